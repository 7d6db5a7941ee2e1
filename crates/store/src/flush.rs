//! Flush: from memory to blocks, then the log may go; and what else is done from time to time.
//!
//! How, so that nothing acknowledged is ever only in memory:
//! 1. With the gate shut for an instant the log begins a new segment and the shards note that a flush is on its way. All
//!    batches in older segments are in the hot chunks now.
//! 2. Group by group of 256 series, each under a short lock, unflushed points are copied and written to one block per day.
//! 3. The blocks are synced, renamed, their directory synced; then queries see them.
//! 4. Only then the hot chunks let old points go, and the older log segments are removed.
//!
//! A crash before 4 replays points that are in blocks already; equal times count once wherever points are merged.
//! An error before 4 leaves everything in memory and in the log; the next try is [`RETRY_S`] later.
//! Memory: a group's points, 64 KiB per day written, 4 bytes per series that is awake.

use crate::block::{Block, DAY_S, Label, Writer};
use crate::error::{Error, Result};
use crate::log::Fsync;
use crate::options::Options;
use crate::shard::GROUP;
use crate::store::{Store, block_dir, lock};
use crate::table::Meta;
use model::SeriesId;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

/// After a flush that failed, so that a full disk is not asked each second.
const RETRY_S: i64 = 30;

/// Retention is about days; looking each minute is plenty.
const RETENTION_CHECK_S: i64 = 60;

pub(crate) struct State {
    next_flush: i64,
    /// After a failure nothing but the clock brings the next try.
    not_before: i64,
    next_retention: i64,
}

impl State {
    pub fn new(now: i64, options: &Options) -> State {
        State { next_flush: now + options.flush_interval_s, not_before: now, next_retention: now }
    }

    /// A clock that was ahead and is set back must not put off what is due: a machine that started with a wrong year would
    /// not flush for that long.
    fn follow_clock(&mut self, now: i64, options: &Options) {
        self.next_flush = self.next_flush.min(now + options.flush_interval_s);
        self.not_before = self.not_before.min(now + RETRY_S);
        self.next_retention = self.next_retention.min(now + RETENTION_CHECK_S);
    }
}

/// What a tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    pub flushed: bool,
    pub blocks_removed: usize,
}

impl Store {
    /// All that is to be done from time to time, for a caller with one thread: call each second. A caller that must not let
    /// one wait for the other calls the three from a thread each.
    pub fn tick(&self, now: i64) -> Result<Tick> {
        let (synced, flushed) = (self.sync_if_due(), self.flush_if_due(now));
        // Also after a flush that failed: what is removed may be the room that it needs.
        let blocks_removed = self.expire_if_due(now)?;
        synced?;
        Ok(Tick { flushed: flushed?, blocks_removed })
    }

    /// Syncs the log under `Fsync::EverySecond`. Waits for no flush.
    pub fn sync_if_due(&self) -> Result<()> {
        if self.options.fsync == Fsync::EverySecond { self.sync() } else { Ok(()) }
    }

    /// Flushes when the interval is over or too much waits; true when it did.
    pub fn flush_if_due(&self, now: i64) -> Result<bool> {
        let (is_due, may_retry) = {
            let mut state = lock(&self.flush);
            state.follow_clock(now, &self.options);
            (now >= state.next_flush, now >= state.not_before)
        };
        // `flush_wanted`: after a sync that failed, what the log may have lost is saved as blocks.
        let full = self.shards.iter().map(|hot| hot.new_bytes()).sum::<usize>() > self.options.flush_bytes
            || self.log.size().0 > self.options.log_bytes;
        if is_due || (may_retry && (full || self.flush_wanted.load(Relaxed))) {
            self.flush(now)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Drops what is older than the retention; looks once a minute. Returns how many blocks went.
    pub fn expire_if_due(&self, now: i64) -> Result<usize> {
        {
            let mut state = lock(&self.flush);
            state.follow_clock(now, &self.options);
            if now < state.next_retention {
                return Ok(0);
            }
            state.next_retention = now + RETENTION_CHECK_S;
        }
        self.drop_old_blocks(now)
    }

    /// Writes all points that are only in memory and in the log to blocks.
    pub fn flush(&self, now: i64) -> Result<()> {
        let mut state = lock(&self.flush);
        let result = self.flush_locked();
        match &result {
            Ok(()) => {
                self.counters.flushes.fetch_add(1, Relaxed);
                self.flush_wanted.store(false, Relaxed);
                state.next_flush = now + self.options.flush_interval_s;
            }
            Err(_) => {
                self.counters.flush_errors.fetch_add(1, Relaxed);
                state.not_before = now + RETRY_S;
                state.next_flush = state.not_before;
            }
        }
        result
    }

    fn flush_locked(&self) -> Result<()> {
        let segment = {
            let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            let segment = self.log.rotate()?;
            self.shards.iter().for_each(|mut hot| hot.flush_begin());
            segment
        };
        // Behind the gate: the log that goes may hold points of series that were created an instant before it shut.
        let written = self.sync_series().and_then(|()| self.write_blocks());
        let (new_blocks, newest) = match written {
            Ok(written) => written,
            Err(error) => {
                self.shards.iter().for_each(|mut hot| hot.flush_end(false));
                return Err(error);
            }
        };
        self.update_blocks(|blocks| {
            let new_blocks = new_blocks.into_iter().map(Arc::new);
            Some(blocks.iter().cloned().chain(new_blocks).collect())
        });
        let geometry = self.shards.geometry;
        for (group, newest) in &newest {
            let first = SeriesId(group * GROUP);
            let mut hot = self.shards.lock(geometry.shard_of(first));
            for (i, newest) in newest.iter().enumerate().filter(|(_, newest)| **newest != 0) {
                hot.flush_done(geometry.slot_of(first) + i as u32, *newest);
            }
        }
        self.shards.iter().for_each(|mut hot| hot.flush_end(true));
        self.log.remove_below(segment)
    }

    /// Returns the blocks and, by group of ids, the times up to which the chains are in them.
    fn write_blocks(&self) -> Result<(Vec<Block>, Vec<GroupTimes>)> {
        let dir = block_dir(&self.options);
        let mut writers = Writers { store: self, dir: &dir, by_day: BTreeMap::new() };
        let mut newest: Vec<GroupTimes> = Vec::new();
        let mut held = self.transient.flush.hold();
        let (mut points, mut parts) = (Vec::new(), Vec::new());
        // A series that is created from here on has its points in the log's new segment.
        let groups = self.table().used_groups();
        for group in groups {
            points.clear();
            parts.clear();
            newest.push((group, self.copy_group(group * GROUP, &mut points, &mut parts)));
            for part in &parts {
                writers.add(part, &mut points[part.range.clone()])?;
            }
            held.at_least(
                newest.len() * (size_of::<GroupTimes>() + size_of::<[u32; GROUP as usize]>())
                    + points.capacity() * size_of::<(u32, f64)>()
                    + parts.capacity() * size_of::<Part>()
                    + writers.memory_bytes(),
            );
        }
        let blocks = writers.finish()?;
        Ok((blocks, newest))
    }

    /// Copies what is unflushed of the 256 series from `first` on, under one lock.
    fn copy_group(
        &self,
        first: u32,
        points: &mut Vec<(u32, f64)>,
        parts: &mut Vec<Part>,
    ) -> Box<[u32; GROUP as usize]> {
        let geometry = self.shards.geometry;
        let hot = self.shards.lock(geometry.shard_of(SeriesId(first)));
        let mut newest = Box::new([0; GROUP as usize]);
        for (i, newest) in newest.iter_mut().enumerate() {
            let id = first.saturating_add(i as u32);
            let slot = geometry.slot_of(SeriesId(id));
            let Some(meta) = hot.meta(slot) else { continue };
            let start = points.len();
            *newest = hot.unflushed(slot, points);
            if points.len() > start {
                parts.push(Part { id: SeriesId(id), meta, range: start..points.len() });
            }
        }
        newest
    }
}

/// A group, and a time for each of its series.
type GroupTimes = (u32, Box<[u32; GROUP as usize]>);

/// Where a series' points are in a group's copy.
struct Part {
    id: SeriesId,
    meta: Meta,
    range: Range<usize>,
}

/// The blocks being written, one per UTC day.
struct Writers<'a> {
    store: &'a Store,
    dir: &'a Path,
    by_day: BTreeMap<u32, Writer>,
}

impl Writers<'_> {
    /// `points` ascend; of equal times the first counts.
    fn add(&mut self, part: &Part, points: &mut [(u32, f64)]) -> Result<()> {
        let count = keep_first_of_equal_times(points);
        for day_points in points[..count].chunk_by(|a, b| a.0 / DAY_S == b.0 / DAY_S) {
            let day = day_points[0].0 / DAY_S;
            let writer = match self.by_day.entry(day) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let label = Label::flushed(day, self.store.next_number());
                    entry.insert(Writer::begin(self.store.disk.clone(), self.dir, label)?)
                }
            };
            writer.add(part.id, part.meta, day_points)?;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.by_day.values().map(|writer| size_of::<Writer>() + writer.memory_bytes()).sum()
    }

    /// Makes all blocks durable, or none of them stays.
    fn finish(self) -> Result<Vec<Block>> {
        let disk = &*self.store.disk;
        let mut blocks = Vec::new();
        let finish_all = || {
            for writer in self.by_day.into_values() {
                blocks.push(writer.finish()?);
            }
            disk.sync_dir(self.dir).map_err(Error::disk("sync", self.dir))
        };
        match finish_all() {
            Ok(()) => Ok(blocks),
            Err(error) => {
                // One that cannot be removed holds points twice after a restart; reading counts them once.
                blocks.iter().for_each(|block| drop(block.remove(disk)));
                Err(error)
            }
        }
    }
}

/// Moves the points that count to the front; returns how many they are.
fn keep_first_of_equal_times(points: &mut [(u32, f64)]) -> usize {
    let mut kept = 0;
    for i in 0..points.len() {
        if kept == 0 || points[kept - 1].0 != points[i].0 {
            points[kept] = points[i];
            kept += 1;
        }
    }
    kept
}
