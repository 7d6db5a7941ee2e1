//! Parts: what a store consists of, each part behind its lock, and how the files of names and points become durable.
//!
//! How: `read/` and `work/` add what can be asked and done (`impl Parts`); `store.rs` adds the work that has a
//! schedule.
//! Locks: `locks.rs` orders them and says what may be done under each.
//! Invariants: `&self` everywhere, no thread, no clock: `now` is an argument.

use crate::block::{Catalog, Shelf};
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::hot::Shards;
use crate::log::{Log, segment_name};
use crate::manifest::{List, Manifest};
use crate::options::{Fsync, Options};
use crate::series::cold::Run;
use crate::series::{Naming, SERIES_NAME, Table};
use crate::tallies::{Accounts, Tallies};
use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use stdx::ranked::{MutexGuard, ReadGuard, WriteGuard};
use stdx::{Disk, RankedMutex, RankedRwLock};

/// The parts of a [`crate::Store`], which derefs to them.
pub struct Parts {
    pub(crate) options: Options,
    pub(crate) disk: Arc<dyn Disk>,
    /// Names of the series in memory. Bound: some thousand steps for reading, one change or a sweep's stretch for
    /// writing.
    pub(crate) table: RankedRwLock<Table>,
    /// Right to walk the table's chains: held for writing by a sweep, for reading by those who walk in several goes. No
    /// file is read meanwhile.
    pub(crate) chains: RankedRwLock<()>,
    /// Series file, and the numbers given last. Bound: one write to the system's cache, of at most 1,024 changes, and
    /// their application. No file is read or synced meanwhile.
    pub(crate) naming: RankedMutex<Naming>,
    /// Right to sync the series file; held meanwhile.
    pub(crate) names_sync: RankedMutex<()>,
    pub(crate) names_unsynced: AtomicBool,
    /// Runs of sleeping series, in order of sequence. Bound: the copy of a pointer. Changed only by the holder of the
    /// store's `sleeper`.
    pub(crate) runs: RankedRwLock<Arc<Vec<Arc<Run>>>>,
    /// Right to append: held for reading from before the log write until the batch is applied, for writing while a
    /// flush rotates the log; so a segment before the rotation holds no batch that the flush does not see. Bound: one
    /// write to the system's cache and the samples of one batch, for reading; a change in memory per shard, for
    /// writing. No file is created or synced meanwhile.
    pub(crate) gate: RankedRwLock<()>,
    pub(crate) log: Log,
    /// Points in memory. Bound of each shard's lock: the samples of one batch with their observer, or 256 series.
    pub(crate) shards: Shards,
    pub(crate) shelf: Shelf,
    pub(crate) opened_at: i64,
    /// No later time is believed where something is old by the clock; see [`Parts::believe`].
    pub(crate) believed: AtomicI64,
    /// True when the next look is to flush: what a failed sync may have cost the log is saved as blocks.
    pub(crate) flush_wanted: AtomicBool,
    /// Names of the files that there are. Bound: a small file written and synced, when the list has changed.
    pub(crate) manifest: RankedMutex<Manifest>,
    pub(crate) damage: Damage,
    /// Days (UTC) of which the start missed a block with points, or could not read one, and the file's name.
    pub(crate) lost_days: Vec<(u32, String)>,
    /// What the start found damaged or missing.
    pub(crate) found_at_start: Vec<String>,
    pub(crate) tallies: Tallies,
    pub(crate) accounts: Accounts,
    /// Buffers of appends that are not running. Bound: taking one, or laying one back.
    pub(crate) scratch: RankedMutex<Vec<Scratch>>,
    pub(crate) _dir_lock: Box<dyn Any + Send + Sync>,
}

/// Buffers of one append call, reused by the next: as many exist as calls ever ran at once.
#[derive(Default)]
pub(crate) struct Scratch {
    pub bytes: Vec<u8>,
    /// Samples to apply, by shard.
    pub order: Vec<u32>,
    /// The place in `order` at which each shard's part begins.
    pub starts: Vec<u32>,
}

impl Scratch {
    fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + (self.order.capacity() + self.starts.capacity()) * size_of::<u32>()
    }
}

impl Parts {
    /// The most series that may be awake.
    pub fn series_max(&self) -> u32 {
        self.options.series_max
    }

    /// Says up to which time the clock is believed: whatever it says from here on, nothing that is stored or comes is
    /// older than by this time.
    pub fn believe(&self, latest: i64) {
        self.believed.store(latest, Relaxed);
    }

    /// The clock, as far as it is believed.
    pub(crate) fn believed(&self, now: i64) -> i64 {
        now.min(self.believed.load(Relaxed))
    }

    /// The oldest time of a point that is kept.
    pub fn oldest_kept(&self, now: i64) -> i64 {
        (self.believed(now) - self.options.retention_raw_s).max(1)
    }

    /// Makes the series file durable, then the log: a log record must never outlive the meaning of its ids.
    pub fn sync(&self) -> Result<()> {
        self.sync_names()?;
        self.log.sync().inspect_err(|_| self.flush_wanted.store(true, Relaxed))
    }

    /// Keeps the log ready, for a thread that comes each second: syncs under [`Fsync::EverySecond`], and makes the
    /// log's next segment ready. Waits for no flush.
    pub fn sync_if_due(&self) -> Result<()> {
        let ready = self.log.prepare_ahead();
        let synced = if self.options.fsync == Fsync::EverySecond { self.sync() } else { Ok(()) };
        synced.and(ready)
    }

    /// Fails as a batch would that came now: for whoever was refused one, to see whether there is room again.
    pub fn try_log(&self) -> Result<()> {
        self.sync_if_due()?;
        if self.log.sync_failed() {
            self.sync()?;
        }
        self.log.make_room()?;
        self.log.try_append()
    }

    /// Makes the manifest say which files there are, if files came or went, or ends of the log: for a thread that comes
    /// each second.
    /// Whoever is writing it already is not waited for.
    pub fn keep_manifest(&self) -> Result<()> {
        let Some(mut manifest) = self.manifest.try_lock() else { return Ok(()) };
        // Listed under the lock: who removes a file next comes with a newer list.
        manifest.keep(self.list())
    }

    /// Must come before a file is removed that is in no list any more.
    pub(crate) fn before_removal(&self) -> Result<()> {
        let mut manifest = self.manifest.lock();
        manifest.before_removal(self.list())
    }

    /// The files that the store consists of, and what is durable of the log.
    fn list(&self) -> List {
        let mut names = vec![SERIES_NAME.to_string()];
        let in_dir = |dir: &str, path: &Path| format!("{dir}/{}", path.file_name().unwrap_or_default().display());
        names.extend(self.blocks().blocks().iter().map(|block| in_dir("block", &block.path)));
        names.extend(self.runs().iter().map(|run| in_dir("cold", &run.path)));
        names.extend(self.log.numbers().into_iter().map(|number| format!("log/{}", segment_name(number))));
        names.sort_unstable();
        List { names, log_ends: self.log.ends() }
    }

    /// Removes the files of blocks that nobody reads any more; returns how many.
    pub(crate) fn sweep_blocks(&self) -> Result<usize> {
        self.shelf.sweep(|| self.before_removal())
    }

    /// Counts damage, and notes the file.
    pub(crate) fn note_damage(&self, error: &Error) {
        self.tallies.corrupt_reads.fetch_add(1, Relaxed);
        self.damage.note(error);
    }

    /// The damaged files that answers are made of, each with what was met in it first.
    pub fn damaged_files(&self) -> Vec<String> {
        let (catalog, runs) = (self.blocks(), self.runs());
        self.damage.of_files(|path| {
            let is_block = catalog.blocks().iter().any(|block| block.path == path);
            is_block || runs.iter().any(|run| run.path == path)
        })
    }

    /// Damage that was met since the last call, once per file, for the log.
    pub fn take_untold_damage(&self) -> Vec<String> {
        self.damage.take_untold()
    }

    /// What the start found damaged or missing: [`crate::Recovery::corrupt`] and [`crate::Recovery::missing`].
    pub fn found_at_start(&self) -> &[String] {
        &self.found_at_start
    }

    /// Makes durable what the series file has at the time of the call. Whoever comes while somebody syncs waits, for
    /// that sync may be of the very change that this caller relies on.
    pub(crate) fn sync_names(&self) -> Result<()> {
        let _sync = self.names_sync.lock();
        if !self.names_unsynced.swap(false, Relaxed) {
            return Ok(());
        }
        let unsynced = self.naming().file.unsynced();
        let has_name = unsynced.sync(&*self.disk).inspect_err(|_| self.names_unsynced.store(true, Relaxed))?;
        if has_name {
            self.naming().file.name_is_durable();
        }
        Ok(())
    }

    pub(crate) fn naming(&self) -> MutexGuard<'_, Naming> {
        self.naming.lock()
    }

    pub(crate) fn table(&self) -> ReadGuard<'_, Table> {
        self.table.read()
    }

    pub(crate) fn table_mut(&self) -> WriteGuard<'_, Table> {
        self.table.write()
    }

    /// The blocks as of now. Their files stay as long as the answer is held.
    pub(crate) fn blocks(&self) -> Arc<Catalog> {
        self.shelf.catalog()
    }

    /// The runs as of now, the oldest first; their files can be read to the end also when they are replaced meanwhile.
    pub(crate) fn runs(&self) -> Arc<Vec<Arc<Run>>> {
        self.runs.read().clone()
    }

    /// Puts other runs in the place of those there are; for the holder of the store's `sleeper` only.
    pub(crate) fn set_runs(&self, runs: Vec<Arc<Run>>) {
        let runs = Arc::new(runs);
        *self.runs.write() = runs;
    }

    pub(crate) fn cold_dir(&self) -> PathBuf {
        cold_dir(&self.options)
    }

    /// The buffers that appends and changes of names wait with for their next call.
    pub(crate) fn buffer_bytes(&self) -> usize {
        let scratch: usize = self.scratch.lock().iter().map(Scratch::memory_bytes).sum();
        let names = self.naming().file.memory_bytes();
        // Nobody waits for one that is being written.
        let manifest = self.manifest.try_lock().map_or(0, |manifest| manifest.memory_bytes());
        scratch + names + manifest + self.log.memory_bytes()
    }
}

/// The directory of the runs.
pub(crate) fn cold_dir(options: &Options) -> PathBuf {
    options.dir.join("cold")
}
