//! Append: how a point goes: the log first, then the hot chunks, one lock per shard and batch, and the observer sees it
//! there. One that is late is shown as such.
//!
//! How: a batch that the disk refuses is applied all the same and answered with the error: nobody is told that it is
//! kept, but alarms go on, and sent again it meets duplicates in memory and gets its place in the log. Past
//! [`UNFLUSHED_FACTOR`] times `flush_bytes` of points that no disk takes it is not applied, for memory has an end. How
//! a flush keeps that whole is in
//! `flush.rs`.
//! Under `Fsync::Always` the names that a batch may use are made durable before the gate is entered, and the batch
//! itself after it was left, so nobody waits for the disk with a lock that others want.
//! Invariants: nothing is allocated per point; an answer without error is in the log, and durable as the policy says.

use crate::error::Result;
use crate::hot::{Observer, Outcome, ShardView};
use crate::log;
use crate::options::Fsync;
use crate::parts::{Parts, Scratch};
use model::{Sample, SeriesId};
use std::sync::atomic::Ordering::Relaxed;

/// A disk that takes neither log nor blocks for long may cost this many times `flush_bytes`: one for what waits for the
/// next flush in any case, one for the fault.
const UNFLUSHED_FACTOR: usize = 2;

/// Samples whose buffers an append leaves for the next one; an agent sends some hundred at once. A sample is 25 bytes
/// in the log at most.
const SAMPLES_KEPT: usize = 4096;

/// The samples of a batch, counted by what became of them. `stored` includes `late`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    pub stored: usize,
    /// Points of a time that was there; the first is kept.
    pub duplicate: usize,
    /// Points kept, though older than the newest of its series.
    pub late: usize,
    /// Points older than the retention (or of a time no clock shows: before 1970, after 2106); not kept.
    pub too_old: usize,
    /// Points of a series that was removed meanwhile; not kept.
    pub unknown: usize,
}

impl Parts {
    /// Logs and applies a batch. On an error it is not kept, though memory and the observer have had it unless memory
    /// is full of what the disk refused (`Stats::unjudged`); send it again. Ids are from `finder` or `create`.
    pub fn append(&self, samples: &[Sample], now: i64, observer: &mut impl Observer) -> Result<Appended> {
        let mut scratch = self.scratch.lock().pop().unwrap_or_default();
        let mut appended = Appended::default();
        let result = self.append_with(samples, now, observer, &mut scratch, &mut appended);
        give_back(&mut scratch);
        self.scratch.lock().push(scratch);
        let tallies = &self.tallies;
        let counts = [
            (&tallies.points, appended.stored),
            (&tallies.duplicates, appended.duplicate),
            (&tallies.late, appended.late),
            (&tallies.too_old, appended.too_old),
            (&tallies.unknown, appended.unknown),
        ];
        for (tally, count) in counts {
            tally.fetch_add(count as u64, Relaxed);
        }
        result.map(|()| appended)
    }

    /// Counts in `appended` what was applied, also where the log failed.
    fn append_with(
        &self,
        samples: &[Sample],
        now: i64,
        observer: &mut impl Observer,
        scratch: &mut Scratch,
        appended: &mut Appended,
    ) -> Result<()> {
        let oldest = self.oldest_kept(now);
        self.sort_by_shard(samples, oldest, scratch);
        let accepted = scratch.order.len();
        appended.too_old = samples.len() - accepted;
        if accepted == 0 {
            return Ok(());
        }
        scratch.bytes.clear();
        log::encode(samples.iter().copied().filter(|sample| acceptable(sample, oldest)), &mut scratch.bytes);
        let logged = self.log_and_apply(samples, self.options.latest(now), observer, scratch, appended);
        let kept = logged.and_then(|number| self.sync_batch(number));
        if kept.is_err() {
            self.tallies.log_errors.fetch_add(1, Relaxed);
        }
        kept
    }

    /// Writes the batch to the log and applies it; returns its number there.
    fn log_and_apply(
        &self,
        samples: &[Sample],
        latest: u32,
        observer: &mut impl Observer,
        scratch: &Scratch,
        appended: &mut Appended,
    ) -> Result<u64> {
        let ready = self.prepare_log();
        let _gate = self.gate.read();
        let logged = ready.and_then(|()| self.log.append(&scratch.bytes));
        if logged.is_err() && self.is_full_of_unflushed() {
            self.tallies.unjudged.fetch_add(scratch.order.len() as u64, Relaxed);
            return logged;
        }
        for shard in 0..self.shards.len() {
            let part = scratch.starts[shard] as usize..scratch.starts[shard + 1] as usize;
            if !part.is_empty() {
                self.apply((samples, &scratch.order[part]), latest, shard, observer, appended);
            }
        }
        logged
    }

    /// Does what a batch needs of the disk before the gate is entered: where the log's segment is full, another is made
    /// ready; under `Fsync::Always` the meaning of the batch's ids becomes durable, and a disk that failed must have
    /// come back before more is applied than memory may hold for it.
    fn prepare_log(&self) -> Result<()> {
        if self.options.fsync == Fsync::Always {
            self.sync_names()?;
            if self.log.sync_failed() && self.is_full_of_unflushed() {
                self.log.sync()?;
            }
        }
        self.log.make_room()
    }

    /// Under `Fsync::Always`, waits until the batch of this number is durable.
    fn sync_batch(&self, number: u64) -> Result<()> {
        if self.options.fsync != Fsync::Always {
            return Ok(());
        }
        self.log.sync_to(number).inspect_err(|_| self.flush_wanted.store(true, Relaxed))
    }

    /// Whether what waits for the disk takes all the memory that it may.
    fn is_full_of_unflushed(&self) -> bool {
        let unflushed: usize = self.shards.iter().map(|hot| hot.unflushed_bytes()).sum();
        unflushed > self.options.flush_bytes.saturating_mul(UNFLUSHED_FACTOR)
    }

    /// Fills `order` and `starts` with the acceptable samples, in the batch's order within each shard.
    fn sort_by_shard(&self, samples: &[Sample], oldest: i64, scratch: &mut Scratch) {
        let Scratch { order, starts, .. } = scratch;
        let geometry = self.shards.geometry;
        starts.clear();
        starts.resize(self.shards.len() + 2, 0);
        let mut accepted = 0;
        for sample in samples.iter().filter(|sample| acceptable(sample, oldest)) {
            starts[geometry.shard_of(sample.series) + 2] += 1;
            accepted += 1;
        }
        for shard in 2..starts.len() {
            starts[shard] += starts[shard - 1];
        }
        order.clear();
        order.resize(accepted, 0);
        for (i, sample) in samples.iter().enumerate().filter(|(_, sample)| acceptable(sample, oldest)) {
            let start = &mut starts[geometry.shard_of(sample.series) + 1];
            order[*start as usize] = i as u32;
            *start += 1;
        }
    }

    /// Applies those of the samples whose places are named. `latest` is the latest time that a clock which is right can
    /// tell.
    fn apply(
        &self,
        (samples, order): (&[Sample], &[u32]),
        latest: u32,
        shard: usize,
        observer: &mut impl Observer,
        appended: &mut Appended,
    ) {
        let geometry = self.shards.geometry;
        let mut hot = self.shards.lock(shard);
        for i in order {
            let sample = samples[*i as usize];
            let slot = geometry.slot_of(sample.series);
            match hot.append(slot, sample.point.time as u32, sample.point.value, latest) {
                Outcome::Newest => {
                    appended.stored += 1;
                    let Some(meta) = hot.meta(slot) else { continue };
                    // What its sender took for another type, and sent with the first point of the new one.
                    if hot.since(slot) > sample.point.time as u32 {
                        continue;
                    }
                    let view = ShardView { hot: &hot, table: &self.table, geometry, shard };
                    observer.newest(shard, sample, meta.counter_type, &view);
                }
                Outcome::Late => {
                    appended.stored += 1;
                    appended.late += 1;
                    observer.late(shard, sample, &ShardView { hot: &hot, table: &self.table, geometry, shard });
                }
                Outcome::Duplicate => {
                    appended.duplicate += 1;
                    let kept = hot.newest(slot).filter(|(time, _)| i64::from(*time) == sample.point.time);
                    if kept.is_some_and(|(_, value)| value != sample.point.value) {
                        observer.contradicted(sample);
                    }
                }
                Outcome::Unknown => appended.unknown += 1,
            }
        }
        observer.leave();
    }

    /// The shard whose lock a series shares.
    pub fn shard_of(&self, id: SeriesId) -> usize {
        self.shards.geometry.shard_of(id)
    }

    /// Lends the hot chunks of the shard of `id`, outside an append. The rules of an observer hold for `look`.
    pub fn with_tail<R>(&self, id: SeriesId, look: impl FnOnce(&ShardView<'_>) -> R) -> R {
        let geometry = self.shards.geometry;
        let shard = geometry.shard_of(id);
        let hot = self.shards.lock(shard);
        look(&ShardView { hot: &hot, table: &self.table, geometry, shard })
    }

    /// Gives back what is not in use now: buffers of batches, and what a larger past left in the shards.
    pub fn shrink(&self) {
        self.scratch.lock().clear();
        self.shards.iter().for_each(|mut hot| hot.shrink());
    }

    /// Whether an append waits until the disk has it: not something to do on an async worker.
    pub fn append_waits(&self) -> bool {
        self.options.fsync == Fsync::Always
    }

    /// Points that were neither kept nor shown to the observer since start, as the disk and memory were full.
    pub fn unjudged(&self) -> u64 {
        self.tallies.unjudged.load(Relaxed)
    }
}

/// A huge batch must not leave its buffers behind for all that come.
fn give_back(scratch: &mut Scratch) {
    scratch.bytes.shrink_to(SAMPLES_KEPT * 25);
    scratch.order.shrink_to(SAMPLES_KEPT);
}

/// Whether a sample's time is one that is kept: not older than `oldest`, and one that 32 bits hold.
#[inline]
pub fn acceptable(sample: &Sample, oldest: i64) -> bool {
    (oldest..=i64::from(u32::MAX)).contains(&sample.point.time)
}
