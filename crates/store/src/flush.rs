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
//! Memory: a group's points, 64 KiB per day written, 4 bytes per series.

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

/// Groups between two syncs of the log during a flush: the tick that syncs each second is the one that flushes. 16,384 series
/// of two hours take some 200 ms.
const SYNC_GROUPS: u32 = 64;

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
    /// Call each second from one thread: syncs, flushes when it is due, drops what is older than the retention.
    pub fn tick(&self, now: i64) -> Result<Tick> {
        let mut tick = Tick::default();
        let synced = if self.options.fsync == Fsync::EverySecond { self.sync() } else { Ok(()) };
        let (flush_due, may_retry, retention_due) = {
            let mut state = lock(&self.flush);
            state.follow_clock(now, &self.options);
            (now >= state.next_flush, now >= state.not_before, now >= state.next_retention)
        };
        // `flush_wanted`: after a sync that failed, what the log may have lost is saved as blocks.
        let full = self.shards.iter().map(|hot| hot.new_bytes()).sum::<usize>() > self.options.flush_bytes
            || self.log.size().0 > self.options.log_bytes;
        if flush_due || (may_retry && (full || self.flush_wanted.load(Relaxed))) {
            self.flush(now)?;
            tick.flushed = true;
        }
        if retention_due {
            lock(&self.flush).next_retention = now + RETENTION_CHECK_S;
            tick.blocks_removed = self.drop_old_blocks(now)?;
        }
        synced.map(|()| tick)
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
        for (group, newest) in newest.chunks(GROUP as usize).enumerate() {
            let first = SeriesId(group as u32 * GROUP);
            let mut hot = self.shards.lock(geometry.shard_of(first));
            for (i, newest) in newest.iter().enumerate().filter(|(_, newest)| **newest != 0) {
                hot.flush_done(geometry.slot_of(first) + i as u32, *newest);
            }
        }
        self.shards.iter().for_each(|mut hot| hot.flush_end(true));
        self.log.remove_below(segment)
    }

    /// Returns the blocks and, by series id, the time up to which its chain is in them.
    fn write_blocks(&self) -> Result<(Vec<Block>, Vec<u32>)> {
        let dir = block_dir(&self.options);
        let mut writers = Writers { store: self, dir: &dir, by_day: BTreeMap::new() };
        let mut newest = vec![0; self.table().len()];
        let (mut points, mut parts) = (Vec::new(), Vec::new());
        for first in (0..newest.len() as u32).step_by(GROUP as usize) {
            points.clear();
            parts.clear();
            self.copy_group(first, &mut newest, &mut points, &mut parts);
            for part in &parts {
                writers.add(part, &mut points[part.range.clone()])?;
            }
            if (first / GROUP + 1).is_multiple_of(SYNC_GROUPS) && self.options.fsync == Fsync::EverySecond {
                // An error leads to a flush, and that is what this is.
                let _ = self.sync();
            }
        }
        let blocks = writers.finish()?;
        Ok((blocks, newest))
    }

    /// Copies what is unflushed of the 256 series from `first` on, under one lock.
    fn copy_group(&self, first: u32, newest: &mut [u32], points: &mut Vec<(u32, f64)>, parts: &mut Vec<Part>) {
        let geometry = self.shards.geometry;
        let hot = self.shards.lock(geometry.shard_of(SeriesId(first)));
        let end = (first + GROUP).min(newest.len() as u32);
        for id in first..end {
            let slot = geometry.slot_of(SeriesId(id));
            let Some(meta) = hot.meta(slot) else { continue };
            let start = points.len();
            newest[id as usize] = hot.unflushed(slot, points);
            if points.len() > start {
                parts.push(Part { id: SeriesId(id), meta, range: start..points.len() });
            }
        }
    }
}

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
