//! Store: opening, naming series, appending points. Flushing, queries and searches are in files of their own.
//!
//! How a point goes: the log first, then the hot chunks, one lock per shard and batch, and the observer sees it there. A
//! batch that the disk refuses is applied all the same and answered with the error: nobody is told that it is kept, but
//! alarms go on, and sent again it meets duplicates in memory and gets its place in the log. Past [`UNFLUSHED_FACTOR`]
//! times `flush_bytes` of points that no disk takes it is not applied, for memory has an end. How a flush keeps that whole
//! is in `flush.rs`.
//! Locks, always taken in this order, each for microseconds except where a disk is waited for:
//! `flush` → `series` → `gate` → a shard → `table`; the log's are innermost and held alone.
//! Invariants: `&self` everywhere, no thread of its own, no clock: `now` is an argument; a series id that was handed out is
//! in the series file; ids are never given twice, also not after a definition was lost.

use crate::block::{self, Block};
use crate::error::{Error, Result};
use crate::hot::{Hot, Outcome, Windows};
use crate::log::{self, Fsync, Log};
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

/// A disk that takes neither log nor blocks for long may cost this many times `flush_bytes`: one for what waits for the
/// next flush in any case, one for the fault.
const UNFLUSHED_FACTOR: usize = 2;

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
    /// In order of sequence.
    blocks: RwLock<Arc<Vec<Arc<Block>>>>,
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
    pub unjudged: AtomicU64,
    pub flushes: AtomicU64,
    pub flush_errors: AtomicU64,
    pub corrupt_reads: AtomicU64,
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
        let (blocks, next_sequence) = open_blocks(&*disk, &block_dir(&options), &mut recovery)?;
        crate::warm::load(&*disk, &blocks, &table, &mut shards, windows, now, &mut recovery);

        let known = table.len() as u32;
        let next_id = blocks.iter().map(|block| next_after(block.last_series(), known)).fold(known, u32::max);
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
            flush: Mutex::new(crate::flush::State::new(next_sequence, now, &options)),
            flush_wanted: AtomicBool::new(false),
            counters: Counters::default(),
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
        let (mut hot, slot) = self.shards.lock_of(id);
        hot.remove(slot);
        drop(hot);
        file.sync().map_err(Error::disk("sync", &path))?;
        Ok(true)
    }

    /// Removes all series of an endpoint; returns how many they were.
    pub fn remove_endpoint(&self, endpoint: &str) -> Result<usize> {
        let mut removed = 0;
        for id in self.series_of(endpoint) {
            removed += usize::from(self.remove_series(id)?);
        }
        Ok(removed)
    }

    /// Logs and applies a batch. On an error it is not kept, though memory and the observer have had it unless memory is
    /// full of what the disk refused (`Stats::unjudged`); send it again. Ids are from `finder` or `create`.
    pub fn append(&self, samples: &[Sample], now: i64, observer: &mut impl Observer) -> Result<Appended> {
        let mut scratch = lock(&self.scratch).pop().unwrap_or_default();
        let mut appended = Appended::default();
        let result = self.append_with(samples, now, observer, &mut scratch, &mut appended);
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

    /// Whether an append waits until the disk has it: not something to do on an async worker.
    pub fn append_waits(&self) -> bool {
        self.options.fsync == Fsync::Always
    }

    /// Points that were neither kept nor shown to the observer since start, as the disk and memory were full.
    pub fn unjudged(&self) -> u64 {
        self.counters.unjudged.load(Relaxed)
    }

    /// The series of an endpoint, the newest first.
    pub fn series_of(&self, endpoint: &str) -> Vec<SeriesId> {
        let table = self.table();
        table.endpoint_number(endpoint).map(|number| table.series_of(number).collect()).unwrap_or_default()
    }

    /// Lends the names of some series, leaving out those that are gone. The table is held for reading meanwhile: name some
    /// thousands at once, not all, and do not call the store from within.
    pub fn with_keys(&self, ids: &[SeriesId], each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType)) {
        let table = self.table();
        for id in ids {
            if let Some((key, meta)) = table.key(*id).zip(table.meta(*id)) {
                each(*id, key, meta.counter_type);
            }
        }
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

    /// The blocks as of now; those that are removed meanwhile read as empty.
    pub(crate) fn blocks(&self) -> Arc<Vec<Arc<Block>>> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_blocks(&self, blocks: Vec<Arc<Block>>) {
        *self.blocks.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(blocks);
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

/// Returns the blocks and the next sequence. A block that cannot be read is reported and left where it is, and no other
/// gets its name.
fn open_blocks(disk: &dyn Disk, dir: &std::path::Path, recovery: &mut Recovery) -> Result<(Vec<Arc<Block>>, u64)> {
    let (mut blocks, mut newest) = (Vec::new(), 0);
    for path in block::list(disk, dir)? {
        newest = newest.max(block::sequence_of_name(&path));
        match Block::open(disk, path) {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(error @ Error::Corrupt { .. }) => recovery.corrupt.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    blocks.sort_by_key(|block| block.sequence);
    recovery.blocks = blocks.len();
    let newest = blocks.last().map_or(newest, |block| newest.max(block.sequence));
    Ok((blocks, newest + 1))
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
        if id.0 as usize >= table.len() {
            lost += 1;
            next_id = next_id.max(next_after(id.0, table.len() as u32));
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
