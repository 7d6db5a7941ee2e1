//! Store: the one that callers open: its parts, and the work on them that has a schedule.
//!
//! How: a [`Store`] derefs to its [`Parts`], on which points are appended, names given and everything read
//! (`work/append.rs`,
//! `work/names.rs`, `read/`). What is here is called from time to time, by threads of the caller's: each of the three
//! workers has a lock of its own, held for one piece of work, and none is in the way of who appends or reads.
//! Invariants: no thread of its own, no clock: `now` is an argument.

use crate::error::Result;
use crate::locks;
use crate::options::Options;
use crate::parts::Parts;
use crate::work::{self, Flusher, IsNeeded, Merged, Merger, Opened, Recovery, Sleeper, Slept};
use model::{SeriesId, SeriesKey};
use std::ops::Deref;
use std::sync::Arc;
use stdx::{Disk, RankedMutex, RealDisk};

/// An open store; its directory is locked until it is dropped.
pub struct Store {
    parts: Parts,
    /// Held for a step of merging; waits for the disk.
    merger: RankedMutex<Merger>,
    /// Held for a whole flush; waits for the disk.
    flusher: RankedMutex<Flusher>,
    /// Held for a look at what is silent, its runs written and merged; waits for the disk. Who changes the list of runs
    /// has it.
    sleeper: RankedMutex<Sleeper>,
}

/// The outcome of a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    pub flushed: bool,
    pub blocks_removed: usize,
}

impl Deref for Store {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Store {
    /// Opens or creates the store in `options.dir`. `now` is the clock as far as it is believed: what is in the log and
    /// older than the retention by it is not read.
    pub fn open(options: Options, now: i64) -> Result<(Store, Recovery)> {
        Store::open_on(Arc::new(RealDisk), options, now)
    }

    /// Opens or creates the store on a disk of the caller's.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options, now: i64) -> Result<(Store, Recovery)> {
        let Opened { parts, recovery, next_block, next_run } = work::open(disk, options, now)?;
        let store = Store {
            merger: RankedMutex::new(locks::MERGE, Merger::new(next_block)),
            flusher: RankedMutex::new(locks::FLUSH, Flusher::new(now, &parts.options)),
            sleeper: RankedMutex::new(locks::SLEEP, Sleeper::new(next_run, now)),
            parts,
        };
        Ok((store, recovery))
    }

    /// Makes everything durable, and notes where the log ends. A flush may be left out, as the log holds everything.
    pub fn close(&self, _now: i64) -> Result<()> {
        self.sync()?;
        self.log.note_end();
        // Where there is no room for it, nothing is lost but the check at the next start.
        let _ = self.keep_manifest();
        Ok(())
    }

    /// All that is to be done from time to time, for a caller with one thread: call each second. A caller that must not
    /// let one wait for the other calls the three from a thread each.
    pub fn tick(&self, now: i64) -> Result<Tick> {
        let (synced, flushed) = (self.sync_if_due(), self.flush_if_due(now));
        // Also after a flush that failed: what is removed may be the room that it needs.
        let blocks_removed = self.expire_if_due(now)?;
        // Where there is no room for it, a later tick has some; nothing else depends on it.
        let _ = self.keep_manifest();
        synced?;
        Ok(Tick { flushed: flushed?, blocks_removed })
    }

    /// Flushes when the interval is over or too much waits; true when it did.
    pub fn flush_if_due(&self, now: i64) -> Result<bool> {
        self.flusher.lock().flush_if_due(&self.parts, now)
    }

    /// Writes all points that are only in memory and in the log to blocks.
    pub fn flush(&self, now: i64) -> Result<()> {
        self.flusher.lock().flush(&self.parts, now)
    }

    /// Drops what is older than the retention; looks once a minute. Returns how many blocks went.
    pub fn expire_if_due(&self, now: i64) -> Result<usize> {
        let is_due = self.flusher.lock().expiry_is_due(&self.options, now);
        if is_due { self.drop_old_blocks(now) } else { Ok(0) }
    }

    /// Does the next piece of merging: about `budget_bytes` of reading and writing. One thread is to call it over and
    /// over, pausing as its bound on IO wants. On an error nothing is lost; it is tried again later.
    pub fn merge_step(&self, now: i64, budget_bytes: u64) -> Result<Merged> {
        self.merger.lock().step(&self.parts, now, budget_bytes)
    }

    /// Lets silent series leave memory: call each minute from one thread. `each` is told of those that did, before
    /// anybody can wake them, with the lock of all names held: it must be quick, and not call what takes a lock of the
    /// store.
    pub fn sleep_silent(&self, now: i64, each: &mut dyn FnMut(SeriesId, SeriesKey<'_>)) -> Result<Slept> {
        self.sleeper.lock().sleep_silent(&self.parts, now, each)
    }

    /// Lets series leave memory where it is short: call each few seconds, after a flush. Series that nobody needs go
    /// when they have missed three points, also if `silent_s` keeps all. `each` is called as by `sleep_silent`.
    pub fn sleep_early(
        &self,
        now: i64,
        is_needed: IsNeeded<'_>,
        each: &mut dyn FnMut(SeriesId, SeriesKey<'_>),
    ) -> Result<Slept> {
        self.sleeper.lock().sleep_early(&self.parts, now, is_needed, each)
    }
}
