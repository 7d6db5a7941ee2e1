//! Store: opening, naming series, appending points. Flushing, queries and searches are in files of their own.
//!
//! How a point goes: the log first (an error there applies nothing), then the hot chunks, one lock per shard and batch,
//! and the observer sees it there. How a flush keeps that whole is in `flush.rs`.
//! Locks, always taken in this order, each for microseconds except where a disk is waited for:
//! `merge` → `flush` → `series` → `gate` → a shard → `table`; the log's, and those of the list of blocks, are innermost and
//! held alone.
//! Invariants: `&self` everywhere, no thread of its own, no clock: `now` is an argument; a series id that was handed out is
//! in the series file; ids are never given twice, also not after a definition was lost.

use crate::block::{self, Block};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};
use crate::hot::{Hot, Outcome, Windows};
use crate::log::{self, Fsync, Log};
use crate::merge::Doomed;
use crate::options::Options;
use crate::series_file::SeriesFile;
use crate::shard::{Observer, ShardView, Shards};
use crate::table::{self, Found, Meta, Table};
use model::{CounterType, Sample, SeriesId, SeriesKey};
use std::any::Any;
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use stdx::{Disk, RealDisk};

pub struct Store {
    pub(crate) options: Options,
    pub(crate) disk: Arc<dyn Disk>,
    table: RwLock<Table>,
    series: Mutex<SeriesWriter>,
    series_unsynced: AtomicBool,
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
    _lock: Box<dyn Any + Send + Sync>,
}

struct SeriesWriter {
    file: SeriesFile,
    next_id: u32,
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

#[derive(Default)]
pub(crate) struct Counters {
    pub points: AtomicU64,
    pub duplicates: AtomicU64,
    pub late: AtomicU64,
    pub too_old: AtomicU64,
    pub unknown: AtomicU64,
    pub log_errors: AtomicU64,
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

/// Looks up series for one decoded batch. Holds the table for reading: drop it before calling anything else of the store.
pub struct Finder<'a> {
    table: RwLockReadGuard<'a, Table>,
    /// A batch is of one endpoint, as a rule.
    endpoint: Cell<Option<u32>>,
}

impl Finder<'_> {
    #[inline]
    pub fn find(&self, key: SeriesKey<'_>) -> Option<Found> {
        let endpoint = match self.endpoint.get() {
            Some(number) if self.table.endpoint(number) == key.endpoint => number,
            _ => self.table.endpoint_number(key.endpoint)?,
        };
        self.endpoint.set(Some(endpoint));
        self.table.find_of(endpoint, key.metric, key.tags.as_str())
    }
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
        let mut table = Table::default();
        let (file, replay) = SeriesFile::open(&*disk, dir, &mut table)?;
        recovery.series = table.live();
        recovery.torn_bytes_cut += replay.torn_bytes_cut;
        recovery.corrupt.extend(replay.corrupt);

        let windows = Windows { hot_s: options.hot_window_s as u32, late_s: options.late_window_s as u32 };
        let mut shards = Shards::new(options.shard_count, || Hot::new(windows));
        for (id, _, meta) in table.live_series() {
            shards.set_meta(id, meta);
        }
        let (blocks, next_number) = open_blocks(&*disk, &block_dir(&options), &mut recovery)?;
        crate::warm::load(&*disk, &blocks, &table, &mut shards, windows, now, &mut recovery);

        let mut next_id = table.len() as u32;
        let used = blocks.blocks().iter().filter_map(|block| block.last_series());
        next_id = used.map(|last| last.saturating_add(1)).fold(next_id, u32::max);
        let removed = (table.len() - table.live()) as u64;
        let counters = Counters { removed_series: AtomicU64::new(removed), ..Counters::default() };
        let (log, next_id) = replay_log(&disk, &options, now, next_id, &table, &mut shards, &mut recovery)?;
        let store = Store {
            disk,
            table: RwLock::new(table),
            series: Mutex::new(SeriesWriter { file, next_id }),
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
            _lock: lock,
            options,
        };
        Ok((store, recovery))
    }

    pub fn finder(&self) -> Finder<'_> {
        Finder { table: self.table(), endpoint: Cell::new(None) }
    }

    /// The id of a series, given now if it is new. Its definition is written before this returns, and as durable as the
    /// first append of it when that returns.
    pub fn create(&self, key: SeriesKey<'_>, counter_type: CounterType, step: u32) -> Result<SeriesId> {
        let meta = Meta::new(counter_type, step)?;
        table::check_texts(key)?;
        let mut series = self.series();
        if let Some(found) = self.table().find(key) {
            return Ok(found.id);
        }
        if self.table().live() >= self.options.series_max as usize || series.next_id == u32::MAX {
            return Err(Error::Full { what: "series_max", limit: u64::from(self.options.series_max) });
        }
        let id = SeriesId(series.next_id);
        series.file.define(id, key, meta)?;
        series.next_id += 1;
        self.series_unsynced.store(true, Relaxed);
        // The shard first: whoever finds the id in the table may append at once.
        self.shards.set_meta(id, meta);
        self.table_mut().insert(id, key, meta)?;
        Ok(id)
    }

    /// The type or step of a known series changed.
    pub fn set_meta(&self, id: SeriesId, counter_type: CounterType, step: u32) -> Result<()> {
        let meta = Meta::new(counter_type, step)?;
        let mut series = self.series();
        match self.table().meta(id) {
            None => return Err(Error::UnknownSeries(id.0)),
            Some(same) if same == meta => return Ok(()),
            Some(_) => {}
        }
        series.file.set_meta(id, meta)?;
        self.series_unsynced.store(true, Relaxed);
        self.shards.set_meta(id, meta);
        self.table_mut().set_meta(id, meta);
        Ok(())
    }

    /// Removes a series with all its points, durably; false when there is no such series.
    pub fn remove_series(&self, id: SeriesId) -> Result<bool> {
        let mut series = self.series();
        if self.table().meta(id).is_none() {
            return Ok(false);
        }
        series.file.remove(id)?;
        let (file, path) = series.file.file();
        self.table_mut().remove(id);
        self.counters.removed_series.fetch_add(1, Relaxed);
        let (mut hot, slot) = self.shards.lock_of(id);
        hot.remove(slot);
        drop(hot);
        file.sync().map_err(Error::disk("sync", &path))?;
        Ok(true)
    }

    /// Removes all series of an endpoint; returns how many they were.
    pub fn remove_endpoint(&self, endpoint: &str) -> Result<usize> {
        let ids: Vec<SeriesId> = {
            let table = self.table();
            table.endpoint_number(endpoint).map(|number| table.series_of(number).collect()).unwrap_or_default()
        };
        let mut removed = 0;
        for id in ids {
            removed += usize::from(self.remove_series(id)?);
        }
        Ok(removed)
    }

    /// Logs and applies a batch; on an error nothing of it is applied. Ids are from `finder` or `create`.
    pub fn append(&self, samples: &[Sample], now: i64, observer: &mut impl Observer) -> Result<Appended> {
        let mut scratch = lock(&self.scratch).pop().unwrap_or_default();
        let result = self.append_with(samples, now, observer, &mut scratch);
        lock(&self.scratch).push(scratch);
        let appended = result?;
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
        Ok(appended)
    }

    fn append_with(
        &self,
        samples: &[Sample],
        now: i64,
        observer: &mut impl Observer,
        scratch: &mut Scratch,
    ) -> Result<Appended> {
        let oldest = (now - self.options.retention_raw_s).max(1);
        self.sort_by_shard(samples, oldest, scratch);
        let accepted = scratch.order.len();
        let mut appended = Appended { too_old: samples.len() - accepted, ..Appended::default() };
        if accepted == 0 {
            return Ok(appended);
        }
        scratch.bytes.clear();
        log::encode(samples.iter().copied().filter(|sample| acceptable(sample, oldest)), &mut scratch.bytes);
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.write_log(&scratch.bytes).inspect_err(|_| {
            self.counters.log_errors.fetch_add(1, Relaxed);
        })?;
        for shard in 0..self.shards.len() {
            let part = scratch.starts[shard] as usize..scratch.starts[shard + 1] as usize;
            if !part.is_empty() {
                self.apply(samples, &scratch.order[part], shard, observer, &mut appended);
            }
        }
        Ok(appended)
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

    fn series(&self) -> MutexGuard<'_, SeriesWriter> {
        lock(&self.series)
    }

    pub(crate) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a series was removed: its points are to be forgotten wherever they are met.
    pub(crate) fn is_removed(&self, id: SeriesId) -> bool {
        let table = self.table();
        (id.0 as usize) < table.len() && table.meta(id).is_none()
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
        if id.0 as usize >= table.len() {
            lost += 1;
            next_id = next_id.max(id.0.saturating_add(1));
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
