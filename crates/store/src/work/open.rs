//! Open: the store put together from its files: names, runs, blocks, the hot window, and the log on top.
//!
//! Invariants: a file that is damaged is told and costs what is damaged in it; what a crash left half done is completed
//! or removed; no id and no number is given that any file uses.

use super::append::acceptable;
use super::warm;
use crate::block::{Block, Catalog, Doomed, Shelf, day_of_points, list, number_of_name, without_superseded};
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::hot::{Hot, Shards, Spans};
use crate::locks;
use crate::log::{Before, Log};
use crate::manifest::{List, Listed, Manifest};
use crate::options::Options;
use crate::parts::{Parts, cold_dir};
use crate::series::cold::Run;
use crate::series::{Naming, Table, cold, kind_since};
use crate::tallies::{Accounts, Tallies};
use model::Sample;
use std::any::Any;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use stdx::{Disk, RankedMutex, RankedRwLock};

/// Findings of opening a store.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Series awake.
    pub series: usize,
    pub points_replayed: u64,
    /// Points read back from blocks to warm the hot window.
    pub points_warmed: u64,
    /// Segments of the log, among them one that was ready and never used.
    pub segments: usize,
    pub blocks: usize,
    pub torn_bytes_cut: u64,
    /// Segments of the log that end too early though later ones have points: a power cut does that to what was not
    /// synced, and so does whoever cuts a file.
    pub cut_short: Vec<String>,
    /// File, offset and what was wrong; the rest was read.
    pub corrupt: Vec<String>,
    /// What of both lists is of the log: the log goes with its blocks, and no later start can find that again.
    pub lost_of_log: Vec<String>,
    /// Names of files that were there when the manifest was written, and are gone.
    pub missing: Vec<String>,
    /// Why nobody can say whether files are missing, where that is so.
    pub unchecked: Option<&'static str>,
}

/// The parts of a store, and where its numbers go on.
pub struct Opened {
    pub parts: Parts,
    pub recovery: Recovery,
    /// No block has this number or a higher one.
    pub next_block: u64,
    /// No run has this sequence or a higher one.
    pub next_run: u64,
}

/// Opens or creates the store in `options.dir`.
pub fn open(disk: Arc<dyn Disk>, options: Options, now: i64) -> Result<Opened> {
    options.check()?;
    let dir = &options.dir;
    disk.create_dir(dir).map_err(Error::disk("create", dir))?;
    let dir_lock = lock_dir(&*disk, dir)?;

    let mut recovery = Recovery::default();
    let listed = Manifest::read(&*disk, dir)?;
    // Before anything is created that may be missing.
    recovery.missing = missing(&*disk, dir, &listed)?;
    let (mut naming, table, replay) = Naming::open(&disk, dir)?;
    recovery.series = table.live();
    recovery.torn_bytes_cut += replay.torn_bytes_cut;
    recovery.corrupt.extend(replay.corrupt);

    let cold = cold::open_all(&*disk, &cold_dir(&options))?;
    recovery.corrupt.extend(cold.corrupt);

    let block_dir = dir.join("block");
    let OpenedBlocks { catalog: blocks, superseded, unreadable, next_number: next_block } =
        open_blocks(&*disk, &block_dir, &mut recovery)?;

    let windows = Spans {
        hot_s: options.hot_window_s as u32,
        late_s: options.late_window_s as u32,
        aside_bytes: options.flush_bytes / options.shard_count,
    };
    let mut shards = Shards::new(options.shard_count, || Hot::new(windows));
    let warm_from = warm::from(&blocks, now);
    for (id, _, meta) in table.live_series() {
        let (hot, slot) = shards.of_mut(id);
        hot.begin(slot, meta, f64::from(warm_from), true);
        hot.set_since(slot, kind_since(meta, table.past(id)));
    }
    let within = (warm_from, options.latest(now));
    let warmed = warm::load(&*disk, &blocks, &table, &mut shards, windows, within);
    recovery.points_warmed = warmed.points;
    recovery.corrupt.extend(warmed.corrupt);

    let known = table.end();
    let used = blocks.blocks().iter().filter_map(|block| block.last_series());
    let next_id = used.map(|last| next_after(last, known)).fold(known, u32::max);
    let before = Before { ends: log_ends(&listed), newest: newest_missing(&recovery.missing) };
    let (log, next_of_log) = replay_log(&disk, &options, now, &before, &table, &mut shards, &mut recovery)?;
    naming.next_id = next_id.max(next_of_log);
    let is_new = recovery.series + recovery.blocks + recovery.segments + cold.runs.len() == 0;
    recovery.unchecked = unchecked(&listed).filter(|_| !is_new);
    let missing_blocks = recovery.missing.iter().filter_map(|name| name.strip_prefix("block/"));
    let lost_blocks = missing_blocks.map(str::to_string).chain(unreadable);
    let lost_days = lost_blocks.filter_map(|name| Some((day_of_points(&name)?, name))).collect();
    let found_at_start =
        recovery.missing.iter().map(|name| format!("{name} is missing")).chain(recovery.corrupt.clone());
    let parts = Parts {
        manifest: RankedMutex::new(locks::MANIFEST, Manifest::new(disk.clone(), dir)),
        damage: Damage::default(),
        lost_days,
        found_at_start: found_at_start.collect(),
        tallies: Tallies { removed_series: AtomicU64::new(table.removed()), ..Tallies::default() },
        table: RankedRwLock::new(locks::TABLE, table),
        chains: RankedRwLock::new(locks::CHAINS, ()),
        naming: RankedMutex::new(locks::NAMING, naming),
        names_sync: RankedMutex::new(locks::NAMES_SYNC, ()),
        names_unsynced: AtomicBool::new(true),
        runs: RankedRwLock::new(locks::RUNS, Arc::new(cold.runs)),
        gate: RankedRwLock::new(locks::GATE, ()),
        log,
        shards,
        shelf: Shelf::new(disk.clone(), block_dir, blocks, next_block),
        opened_at: now,
        believed: AtomicI64::new(i64::MAX),
        flush_wanted: AtomicBool::new(false),
        accounts: Accounts::default(),
        scratch: RankedMutex::new(locks::SCRATCH, Vec::new()),
        _dir_lock: dir_lock,
        disk,
        options,
    };
    remove_superseded(&parts, superseded, &cold.superseded)?;
    // Where the disk has no room now, a later try may.
    let _ = parts.keep_manifest();
    Ok(Opened { parts, recovery, next_block, next_run: cold.next_sequence })
}

/// Completes merges that were cut off between making their outputs durable and removing their inputs.
fn remove_superseded(parts: &Parts, blocks: Vec<Arc<Block>>, runs: &[Arc<Run>]) -> Result<()> {
    parts.shelf.doom(blocks.into_iter().map(|block| Doomed { block, damaged: false }));
    parts.sweep_blocks()?;
    if runs.is_empty() {
        return Ok(());
    }
    parts.before_removal()?;
    cold::retire(&*parts.disk, runs, None)
}

/// The files that the manifest names and that are not there.
fn missing(disk: &dyn Disk, dir: &Path, listed: &Listed) -> Result<Vec<String>> {
    let Listed::Files(List { names, .. }) = listed else { return Ok(Vec::new()) };
    let mut missing = Vec::new();
    for name in names {
        let path = dir.join(name);
        match disk.open(&path) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => missing.push(name.clone()),
            opened => drop(opened.map_err(Error::disk("open", &path))?),
        }
    }
    Ok(missing)
}

/// What the manifest says of the log.
/// Number of the newest segment of the log among the files that are missing; 0 where there is none.
fn newest_missing(missing: &[String]) -> u64 {
    let numbers = missing.iter().filter_map(|name| name.strip_prefix("log/")?.strip_suffix(".log")?.parse().ok());
    numbers.max().unwrap_or(0)
}

fn log_ends(listed: &Listed) -> BTreeMap<u64, u64> {
    match listed {
        Listed::Files(list) => list.log_ends.clone(),
        Listed::Missing | Listed::Damaged => BTreeMap::new(),
    }
}

fn unchecked(listed: &Listed) -> Option<&'static str> {
    match listed {
        Listed::Files(_) => None,
        Listed::Missing => Some("there is no manifest"),
        Listed::Damaged => Some("the manifest is damaged, or of another version"),
    }
}

fn lock_dir(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Any + Send + Sync>> {
    let path = dir.join("LOCK");
    disk.lock(&path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { dir: dir.to_path_buf() },
        _ => Error::disk("lock", &path)(cause),
    })
}

/// The blocks of a directory.
struct OpenedBlocks {
    catalog: Catalog,
    /// Those of no use: a merge wrote them anew before the power went.
    superseded: Vec<Arc<Block>>,
    /// Names of those that cannot be read.
    unreadable: Vec<String>,
    /// No block has this number or a higher one.
    next_number: u64,
}

/// Opens the blocks. One that cannot be read is reported and left where it is, and no other gets its name.
fn open_blocks(disk: &dyn Disk, dir: &Path, recovery: &mut Recovery) -> Result<OpenedBlocks> {
    let (mut blocks, mut unreadable, mut newest) = (Vec::new(), Vec::new(), 0);
    for path in list(disk, dir)? {
        newest = newest.max(number_of_name(&path));
        match Block::open(disk, path) {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(error @ Error::Corrupt { .. }) => {
                unreadable.push(error.file_name());
                recovery.corrupt.push(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    newest = blocks.iter().map(|block| block.label.number.max(block.label.last_flush)).fold(newest, u64::max);
    let (blocks, superseded) = without_superseded(blocks);
    recovery.blocks = blocks.len();
    Ok(OpenedBlocks { catalog: Catalog::new(blocks), superseded, unreadable, next_number: newest + 1 })
}

/// More definitions cannot be lost in a row (a 64 MiB hole of them); an id further on is damage that no checksum saw.
const LOST_IDS_MAX: u32 = 1 << 20;

/// The id after one that a log or a block names, where `known` ids are defined.
fn next_after(id: u32, known: u32) -> u32 {
    if id.saturating_sub(known) < LOST_IDS_MAX { id.saturating_add(1) } else { known }
}

/// Applies the log; returns it and the next id that neither it nor the table uses.
fn replay_log(
    disk: &Arc<dyn Disk>,
    options: &Options,
    now: i64,
    before: &Before,
    table: &Table,
    shards: &mut Shards,
    recovery: &mut Recovery,
) -> Result<(Log, u32)> {
    let (oldest, latest) = ((now - options.retention_raw_s).max(1), options.latest(now));
    let (mut next_id, mut lost) = (table.end(), 0u64);
    let apply = |sample: Sample| {
        let id = sample.series;
        if id.0 >= table.end() {
            lost += 1;
            next_id = next_id.max(next_after(id.0, table.end()));
        } else if acceptable(&sample, oldest) {
            let (hot, slot) = shards.of_mut(id);
            // A series that was removed since is unknown here, and so are its points.
            hot.append(slot, sample.point.time as u32, sample.point.value, latest);
        }
    };
    let (log, replay) = Log::open(disk.clone(), &options.dir.join("log"), options.segment_bytes, before, apply)?;
    recovery.points_replayed = replay.points;
    recovery.segments = replay.segments;
    recovery.torn_bytes_cut += replay.torn_bytes_cut;
    let undefined = (lost > 0).then(|| format!("log: {lost} points of series whose definition was lost"));
    let corrupt: Vec<String> = replay.corrupt.into_iter().chain(undefined).collect();
    recovery.lost_of_log = replay.cut_short.iter().chain(&corrupt).cloned().collect();
    recovery.cut_short = replay.cut_short;
    recovery.corrupt.extend(corrupt);
    Ok((log, next_id))
}
