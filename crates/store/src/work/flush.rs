//! Flush: from memory to blocks, then the log may go; and what else is done from time to time.
//!
//! How, so that nothing acknowledged is ever only in memory:
//! 1. The log's next segment is made ready. With the gate shut for an instant the log goes over to it and the shards
//!    note that a flush is on its way: all batches in older segments are in the hot chunks now.
//! 2. Group by group of 256 series, each under a short lock, unflushed points are copied and written to one block per
//!    day.
//! 3. The blocks are synced, renamed, their directory synced; then queries see them.
//! 4. Only then the hot chunks let old points go, and the older log segments are removed.
//!
//! A crash before 4 replays points that are in blocks already; equal times count once wherever points are merged.
//! An error before 4 leaves everything in memory and in the log; the next try is [`RETRY_S`] later.
//! Memory: a group's points, 64 KiB per day written, 4 bytes per series that is awake.

use crate::block::{Block, Label, Writer};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::parts::Parts;
use crate::series::Meta;
use crate::sizes::{DAY_S, GROUP};
use model::SeriesId;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Pause after a flush that failed, so that a full disk is not asked each second.
const RETRY_S: i64 = 30;

/// Retention is about days; looking each minute is plenty.
const RETENTION_CHECK_S: i64 = 60;

/// Schedule of flushes, and of looks for what is too old.
pub struct Flusher {
    next_flush: i64,
    /// Time before which no flush begins, after a failure.
    not_before: i64,
    next_retention: i64,
}

impl Flusher {
    /// A schedule whose first flush is one interval after `now`.
    pub fn new(now: i64, options: &Options) -> Flusher {
        Flusher { next_flush: now + options.flush_interval_s, not_before: now, next_retention: now }
    }

    /// Flushes when the interval is over or too much waits; true when it did.
    pub fn flush_if_due(&mut self, parts: &Parts, now: i64) -> Result<bool> {
        self.follow_clock(now, &parts.options);
        // `flush_wanted`: after a sync that failed, what the log may have lost is saved as blocks.
        let wanted = || parts.flush_wanted.load(Relaxed) || parts.is_full();
        let is_due = now >= self.next_flush || (now >= self.not_before && wanted());
        if is_due {
            self.flush(parts, now)?;
        }
        Ok(is_due)
    }

    /// Writes all points that are only in memory and in the log to blocks.
    pub fn flush(&mut self, parts: &Parts, now: i64) -> Result<()> {
        let result = parts.flush_points();
        match &result {
            Ok(()) => {
                parts.tallies.flushes.fetch_add(1, Relaxed);
                parts.flush_wanted.store(false, Relaxed);
                self.next_flush = now + parts.options.flush_interval_s;
            }
            Err(_) => {
                parts.tallies.flush_errors.fetch_add(1, Relaxed);
                self.not_before = now + RETRY_S;
                self.next_flush = self.not_before;
            }
        }
        result
    }

    /// Whether to look for what is too old, once a minute.
    pub fn expiry_is_due(&mut self, options: &Options, now: i64) -> bool {
        self.follow_clock(now, options);
        let is_due = now >= self.next_retention;
        if is_due {
            self.next_retention = now + RETENTION_CHECK_S;
        }
        is_due
    }

    /// A clock that was ahead and is set back must not put off what is due: a machine that started with a wrong year
    /// would not flush for that long.
    fn follow_clock(&mut self, now: i64, options: &Options) {
        self.next_flush = self.next_flush.min(now + options.flush_interval_s);
        self.not_before = self.not_before.min(now + RETRY_S);
        self.next_retention = self.next_retention.min(now + RETENTION_CHECK_S);
    }
}

impl Parts {
    /// Whether memory or the log holds more unflushed points than it should.
    fn is_full(&self) -> bool {
        self.shards.iter().map(|hot| hot.new_bytes()).sum::<usize>() > self.options.flush_bytes
            || self.log.size().0 > self.options.log_bytes
            || self.shards.iter().any(|hot| hot.wants_flush())
    }

    fn flush_points(&self) -> Result<()> {
        let segment = self.begin_flush()?;
        // Behind the gate: the log that goes may hold points of series that were created an instant before it shut.
        let written = self.sync_names().and_then(|()| self.write_blocks());
        let (new_blocks, newest) = match written {
            Ok(written) => written,
            Err(error) => {
                self.shards.iter().for_each(|mut hot| hot.flush_end(false));
                return Err(error);
            }
        };
        self.shelf.update(|blocks| {
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
        self.log.let_go_below(segment);
        self.before_removal()?;
        self.log.remove_below(segment)
    }

    /// Shuts the gate for an instant; returns the number of the log's segment that begins there. The segment is made
    /// ready before. Where senders took it between the two, another try makes the next one: each such try has a
    /// segment's worth of points for its price.
    fn begin_flush(&self) -> Result<u64> {
        loop {
            self.log.prepare()?;
            let _gate = self.gate.write();
            if let Some(segment) = self.log.rotate() {
                self.shards.iter().for_each(|mut hot| hot.flush_begin());
                return Ok(segment);
            }
        }
    }

    /// Returns the blocks and, by group of ids, the times up to which the chains are in them.
    fn write_blocks(&self) -> Result<(Vec<Block>, Vec<GroupTimes>)> {
        let mut writers = Writers { parts: self, by_day: BTreeMap::new() };
        let mut newest: Vec<GroupTimes> = Vec::new();
        let mut held = self.accounts.flush.hold();
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

/// The place of a series' points in a group's copy.
struct Part {
    id: SeriesId,
    meta: Meta,
    range: Range<usize>,
}

/// The blocks being written, one per UTC day.
struct Writers<'a> {
    parts: &'a Parts,
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
                    let label = Label::flushed(day, self.parts.shelf.next_number());
                    entry.insert(Writer::begin(self.parts.disk.clone(), self.parts.shelf.dir(), label)?)
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
        let (disk, dir) = (&*self.parts.disk, self.parts.shelf.dir());
        let mut blocks = Vec::new();
        let finish_all = || {
            for writer in self.by_day.into_values() {
                blocks.push(writer.finish()?);
            }
            disk.sync_dir(dir).map_err(Error::disk("sync", dir))
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
