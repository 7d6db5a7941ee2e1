//! Store: opening, appending points. Naming series, flushing, queries and searches are in files of their own.
//!
//! How a point goes: the log first, then the hot chunks, one lock per shard and batch, and the observer sees it there. A
//! batch that the disk refuses is applied all the same and answered with the error: nobody is told that it is kept, but
//! alarms go on, and sent again it meets duplicates in memory and gets its place in the log. Past [`UNFLUSHED_FACTOR`]
//! times `flush_bytes` of points that no disk takes it is not applied, for memory has an end. How a flush keeps that whole
//! is in `flush.rs`.
//! Locks, always taken in this order, each for microseconds except where a disk is waited for:
//! `merge` → `flush` → `sleep` → `series` → `chains` → `gate` → a shard → `table`; the log's, and those of the lists of
//! blocks and runs, are innermost and held alone.
//! Invariants: `&self` everywhere, no thread of its own, no clock: `now` is an argument.

use crate::block::{self, Block};
use crate::catalog::{self, Catalog};
use crate::cold::{self, Run};
use crate::error::{Error, Result};
use crate::hot::{Hot, Outcome, Windows};
use crate::log::{self, Fsync, Log};
use crate::memory::Transient;
use crate::merge::Doomed;
use crate::names::{self, SeriesWriter};
use crate::options::Options;
use crate::series_file::SeriesFile;
use crate::shard::{Observer, ShardView, Shards};
use crate::table::Table;
use model::{Sample, SeriesId};
use std::any::Any;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use stdx::{Disk, RealDisk};

/// A disk that takes neither log nor blocks for long may cost this many times `flush_bytes`: one for what waits for the
/// next flush in any case, one for the fault.
const UNFLUSHED_FACTOR: usize = 2;

/// Samples whose buffers an append leaves for the next one; an agent sends some hundred at once. A sample is 25 bytes in the
/// log at most.
const SAMPLES_KEPT: usize = 4096;

pub struct Store {
    pub(crate) options: Options,
    pub(crate) disk: Arc<dyn Disk>,
    table: RwLock<Table>,
    /// Held for writing by a sweep, for reading by those who walk the table's chains in several goes.
    pub(crate) chains: RwLock<()>,
    series: Mutex<SeriesWriter>,
    /// In order of sequence.
    pub(crate) runs: RwLock<Arc<Vec<Arc<Run>>>>,
    pub(crate) sleep: Mutex<crate::sleep::State>,
    pub(crate) series_unsynced: AtomicBool,
    /// Held for reading from before the log write until the batch is applied, for writing while a flush rotates the log:
    /// so a segment before the rotation holds no batch that the flush does not see.
    pub(crate) gate: RwLock<()>,
    pub(crate) log: Log,
    pub(crate) shards: Shards,
    blocks: RwLock<Arc<Catalog>>,
    /// Held by whoever makes a new catalog from the one there is.
    blocks_change: Mutex<()>,
    pub(crate) next_number: AtomicU64,
    /// Blocks that left the catalog and whose files are to go.
    pub(crate) doomed: Mutex<Vec<Doomed>>,
    pub(crate) merge: Mutex<crate::merge::State>,
    pub(crate) opened_at: i64,
    pub(crate) flush: Mutex<crate::flush::State>,
    pub(crate) flush_wanted: AtomicBool,
    pub(crate) counters: Counters,
    scratch: Mutex<Vec<Scratch>>,
    pub(crate) transient: Transient,
    _lock: Box<dyn Any + Send + Sync>,
}

/// Buffers of one append call, reused by the next: as many exist as calls ever ran at once.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    /// Samples to apply, by shard.
    order: Vec<u32>,
    /// Where each shard's part of `order` begins.
    starts: Vec<u32>,
}

impl Scratch {
    /// A huge batch must not leave its buffers behind for all that come.
    fn give_back(&mut self) {
        self.bytes.shrink_to(SAMPLES_KEPT * 25);
        self.order.shrink_to(SAMPLES_KEPT);
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + (self.order.capacity() + self.starts.capacity()) * size_of::<u32>()
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub points: AtomicU64,
    pub duplicates: AtomicU64,
    pub late: AtomicU64,
    pub too_old: AtomicU64,
    pub unknown: AtomicU64,
    pub log_errors: AtomicU64,
    pub unjudged: AtomicU64,
    pub flushes: AtomicU64,
    pub flush_errors: AtomicU64,
    pub corrupt_reads: AtomicU64,
    pub removed_series: AtomicU64,
    pub merges: AtomicU64,
    pub merge_errors: AtomicU64,
    pub merge_bytes: AtomicU64,
    pub rollup_bytes: AtomicU64,
}

/// What opening found.
#[derive(Debug, Default)]
pub struct Recovery {
    pub series: usize,
    pub points_replayed: u64,
    /// Points read back from blocks to warm the hot window.
    pub points_warmed: u64,
    pub segments: usize,
    pub blocks: usize,
    pub torn_bytes_cut: u64,
    /// File, offset and what was wrong; the rest was read.
    pub corrupt: Vec<String>,
}

/// What became of a batch. `stored` includes `late`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    pub stored: usize,
    /// A point of that time was there; the first is kept.
    pub duplicate: usize,
    /// Kept, though older than the newest of its series; not shown to the observer.
    pub late: usize,
    /// Older than the retention (or a time no clock shows: before 1970, after 2106); not kept.
    pub too_old: usize,
    /// Of a series that was removed meanwhile; not kept.
    pub unknown: usize,
}

impl Store {
    /// Opens or creates the store in `options.dir`.
    pub fn open(options: Options, now: i64) -> Result<(Store, Recovery)> {
        Store::open_on(Arc::new(RealDisk), options, now)
    }

    /// As `open`, on a disk of the caller's.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options, now: i64) -> Result<(Store, Recovery)> {
        options.check()?;
        let dir = &options.dir;
        disk.create_dir(dir).map_err(Error::disk("create", dir))?;
        let lock_path = dir.join("LOCK");
        let lock = disk.lock(&lock_path).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::WouldBlock => Error::Locked { dir: dir.clone() },
            _ => Error::disk("lock", &lock_path)(cause),
        })?;

        let mut recovery = Recovery::default();
        let (mut table, mut next_endpoint, mut applied) = (Table::default(), 1, Ok(()));
        let (file, replay) = SeriesFile::open(&disk, dir, &mut |change| {
            names::apply_change(&mut table, &mut next_endpoint, change).unwrap_or_else(|error| {
                applied = Err(error);
                true
            })
        })?;
        applied?;
        let mut sweep = table.begin_sweep();
        while !table.sweep(&mut sweep, usize::MAX) {}
        recovery.series = table.live();
        recovery.torn_bytes_cut += replay.torn_bytes_cut;
        recovery.corrupt.extend(replay.corrupt);

        let cold = cold::open_all(&*disk, &crate::sleep::cold_dir(&options))?;
        recovery.corrupt.extend(cold.corrupt);

        let windows = Windows { hot_s: options.hot_window_s as u32, late_s: options.late_window_s as u32 };
        let mut shards = Shards::new(options.shard_count, || Hot::new(windows));
        let (blocks, next_number) = open_blocks(&*disk, &block_dir(&options), &mut recovery)?;
        let warm_from = crate::warm::from(&blocks, now);
        for (id, _, meta) in table.live_series() {
            let (hot, slot) = shards.of_mut(id);
            hot.begin(slot, meta, f64::from(warm_from), true);
        }
        crate::warm::load(&*disk, &blocks, &table, &mut shards, windows, warm_from, &mut recovery);

        let known = table.end();
        let used = blocks.blocks().iter().filter_map(|block| block.last_series());
        let next_id = used.map(|last| next_after(last, known)).fold(known, u32::max);
        let counters = Counters { removed_series: AtomicU64::new(table.removed()), ..Counters::default() };
        let (log, next_id) = replay_log(&disk, &options, now, next_id, &table, &mut shards, &mut recovery)?;
        let store = Store {
            disk,
            table: RwLock::new(table),
            chains: RwLock::new(()),
            runs: RwLock::new(Arc::new(cold.runs)),
            sleep: Mutex::new(crate::sleep::State::new(cold.next_sequence, now)),
            series: Mutex::new(SeriesWriter { file, next_id, next_endpoint }),
            series_unsynced: AtomicBool::new(true),
            gate: RwLock::new(()),
            log,
            shards,
            blocks: RwLock::new(Arc::new(blocks)),
            blocks_change: Mutex::new(()),
            next_number: AtomicU64::new(next_number),
            doomed: Mutex::new(Vec::new()),
            merge: Mutex::new(crate::merge::State::new(next_number)),
            opened_at: now,
            flush: Mutex::new(crate::flush::State::new(now, &options)),
            flush_wanted: AtomicBool::new(false),
            counters,
            scratch: Mutex::new(Vec::new()),
            transient: Transient::default(),
            _lock: lock,
            options,
        };
        Ok((store, recovery))
    }

    /// Logs and applies a batch. On an error it is not kept, though memory and the observer have had it unless memory is
    /// full of what the disk refused (`Stats::unjudged`); send it again. Ids are from `finder` or `create`.
    pub fn append(&self, samples: &[Sample], now: i64, observer: &mut impl Observer) -> Result<Appended> {
        let mut scratch = lock(&self.scratch).pop().unwrap_or_default();
        let mut appended = Appended::default();
        let result = self.append_with(samples, now, observer, &mut scratch, &mut appended);
        scratch.give_back();
        lock(&self.scratch).push(scratch);
        let counters = &self.counters;
        let counts = [
            (&counters.points, appended.stored),
            (&counters.duplicates, appended.duplicate),
            (&counters.late, appended.late),
            (&counters.too_old, appended.too_old),
            (&counters.unknown, appended.unknown),
        ];
        for (counter, count) in counts {
            counter.fetch_add(count as u64, Relaxed);
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
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let logged = self.write_log(&scratch.bytes);
        if logged.is_err() {
            self.counters.log_errors.fetch_add(1, Relaxed);
            if self.is_full_of_unflushed() {
                self.counters.unjudged.fetch_add(accepted as u64, Relaxed);
                return logged;
            }
        }
        for shard in 0..self.shards.len() {
            let part = scratch.starts[shard] as usize..scratch.starts[shard + 1] as usize;
            if !part.is_empty() {
                self.apply(samples, &scratch.order[part], shard, observer, appended);
            }
        }
        logged
    }

    /// Whether what waits for the disk takes all the memory that it may.
    fn is_full_of_unflushed(&self) -> bool {
        let unflushed: usize = self.shards.iter().map(|hot| hot.unflushed_bytes()).sum();
        unflushed > self.options.flush_bytes.saturating_mul(UNFLUSHED_FACTOR)
    }

    /// The oldest time of a point that is kept.
    pub fn oldest_kept(&self, now: i64) -> i64 {
        (now - self.options.retention_raw_s).max(1)
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

    fn write_log(&self, bytes: &[u8]) -> Result<()> {
        let number = self.log.append(bytes)?;
        if self.options.fsync == Fsync::Always {
            self.sync_series()?;
            self.log.sync_to(number).inspect_err(|_| self.flush_wanted.store(true, Relaxed))?;
        }
        Ok(())
    }

    fn apply(
        &self,
        samples: &[Sample],
        order: &[u32],
        shard: usize,
        observer: &mut impl Observer,
        appended: &mut Appended,
    ) {
        let geometry = self.shards.geometry;
        let mut hot = self.shards.lock(shard);
        for i in order {
            let sample = samples[*i as usize];
            let slot = geometry.slot_of(sample.series);
            match hot.append(slot, sample.point.time as u32, sample.point.value) {
                Outcome::Newest => {
                    appended.stored += 1;
                    let Some(meta) = hot.meta(slot) else { continue };
                    let view = ShardView { hot: &hot, table: &self.table, geometry, shard };
                    observer.newest(shard, sample, meta.counter_type, &view);
                }
                Outcome::Late => {
                    appended.stored += 1;
                    appended.late += 1;
                }
                Outcome::Duplicate => appended.duplicate += 1,
                Outcome::Unknown => appended.unknown += 1,
            }
        }
    }

    /// The most series that may be awake.
    pub fn series_max(&self) -> u32 {
        self.options.series_max
    }

    pub fn shard_of(&self, id: SeriesId) -> usize {
        self.shards.geometry.shard_of(id)
    }

    /// A look at the hot chunks of the shard of `id`, outside an append. The same rules hold as for an observer.
    pub fn with_tail<R>(&self, id: SeriesId, look: impl FnOnce(&ShardView<'_>) -> R) -> R {
        let geometry = self.shards.geometry;
        let shard = geometry.shard_of(id);
        let hot = self.shards.lock(shard);
        look(&ShardView { hot: &hot, table: &self.table, geometry, shard })
    }

    /// Gives back what is not in use now: buffers of batches, and what a larger past left in the shards.
    pub fn shrink(&self) {
        lock(&self.scratch).clear();
        self.shards.iter().for_each(|mut hot| hot.shrink());
    }

    /// Whether an append waits until the disk has it: not something to do on an async worker.
    pub fn append_waits(&self) -> bool {
        self.options.fsync == Fsync::Always
    }

    /// Points that were neither kept nor shown to the observer since start, as the disk and memory were full.
    pub fn unjudged(&self) -> u64 {
        self.counters.unjudged.load(Relaxed)
    }

    /// Makes everything durable. A flush may be left out, as the log holds everything.
    pub fn close(&self, _now: i64) -> Result<()> {
        self.sync()
    }

    /// Makes the series file durable, then the log: a log record must never outlive the meaning of its ids.
    pub fn sync(&self) -> Result<()> {
        self.sync_series()?;
        self.log.sync().inspect_err(|_| self.flush_wanted.store(true, Relaxed))
    }

    pub(crate) fn sync_series(&self) -> Result<()> {
        if !self.series_unsynced.swap(false, Relaxed) {
            return Ok(());
        }
        let (file, path) = self.series().file.file();
        file.sync().map_err(|cause| {
            self.series_unsynced.store(true, Relaxed);
            Error::disk("sync", &path)(cause)
        })
    }

    pub(crate) fn series_bytes(&self) -> u64 {
        self.series().file.bytes()
    }

    /// The buffers that appends and changes of names wait with for their next call.
    pub(crate) fn buffer_bytes(&self) -> usize {
        let scratch: usize = lock(&self.scratch).iter().map(Scratch::memory_bytes).sum();
        scratch + self.series().file.memory_bytes() + self.log.memory_bytes()
    }

    pub(crate) fn series(&self) -> MutexGuard<'_, SeriesWriter> {
        lock(&self.series)
    }

    pub(crate) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blocks as of now. Their files stay as long as this is held.
    pub(crate) fn blocks(&self) -> Arc<Catalog> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other blocks in the place of those there are, unless `change` answers `None`; says whether it did.
    pub(crate) fn update_blocks(&self, change: impl FnOnce(&[Arc<Block>]) -> Option<Vec<Arc<Block>>>) -> bool {
        let _change = lock(&self.blocks_change);
        let Some(blocks) = change(self.blocks().blocks()) else { return false };
        let catalog = Arc::new(Catalog::new(blocks));
        *self.blocks.write().unwrap_or_else(PoisonError::into_inner) = catalog;
        true
    }
}

pub(crate) fn block_dir(options: &Options) -> PathBuf {
    options.dir.join("block")
}

/// Panics under these locks would be our bugs, and come after the state was made whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[inline]
fn acceptable(sample: &Sample, oldest: i64) -> bool {
    (oldest..=i64::from(u32::MAX)).contains(&sample.point.time)
}

/// Returns the blocks and the next number. A block that cannot be read is reported and left where it is, and no other gets
/// its name. What a merge wrote anew before the power went is removed.
fn open_blocks(disk: &dyn Disk, dir: &std::path::Path, recovery: &mut Recovery) -> Result<(Catalog, u64)> {
    let (mut blocks, mut newest) = (Vec::new(), 0);
    for path in block::list(disk, dir)? {
        newest = newest.max(block::number_of_name(&path));
        match Block::open(disk, path) {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(error @ Error::Corrupt { .. }) => recovery.corrupt.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    newest = blocks.iter().map(|block| block.label.number.max(block.label.last_flush)).fold(newest, u64::max);
    let (blocks, superseded) = catalog::without_superseded(blocks);
    for block in &superseded {
        block.remove(disk)?;
    }
    if !superseded.is_empty() {
        disk.sync_dir(dir).map_err(Error::disk("sync", dir))?;
    }
    recovery.blocks = blocks.len();
    Ok((Catalog::new(blocks), newest + 1))
}

/// More definitions cannot be lost in a row (a 64 MiB hole of them); an id further on is damage that no checksum saw.
const LOST_IDS_MAX: u32 = 1 << 20;

/// The id after one that a log or a block names, where `known` ids are defined.
fn next_after(id: u32, known: u32) -> u32 {
    if id.saturating_sub(known) < LOST_IDS_MAX { id.saturating_add(1) } else { known }
}

/// Applies the log; returns it and the next id that nothing on disk uses.
fn replay_log(
    disk: &Arc<dyn Disk>,
    options: &Options,
    now: i64,
    mut next_id: u32,
    table: &Table,
    shards: &mut Shards,
    recovery: &mut Recovery,
) -> Result<(Log, u32)> {
    let oldest = (now - options.retention_raw_s).max(1);
    let mut lost = 0u64;
    let apply = |sample: Sample| {
        let id = sample.series;
        if id.0 >= table.end() {
            lost += 1;
            next_id = next_id.max(next_after(id.0, table.end()));
        } else if acceptable(&sample, oldest) {
            let (hot, slot) = shards.of_mut(id);
            // A series that was removed since is unknown here, and so are its points.
            hot.append(slot, sample.point.time as u32, sample.point.value);
        }
    };
    let (log, replay) = Log::open(disk.clone(), &options.dir.join("log"), options.segment_bytes, apply)?;
    recovery.points_replayed = replay.points;
    recovery.segments = replay.segments;
    recovery.torn_bytes_cut += replay.torn_bytes_cut;
    recovery.corrupt.extend(replay.corrupt);
    if lost > 0 {
        recovery.corrupt.push(format!("log: {lost} points of series whose definition was lost"));
    }
    Ok((log, next_id))
}
