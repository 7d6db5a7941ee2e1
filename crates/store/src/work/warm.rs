//! Warm: after a restart the hot window is read back from the newest blocks.
//!
//! Why: a flush takes points out of the log; without this the judge would have to wait for its window after a restart,
//! `last` would go to disk, and a repeated point would not be recognised.
//! How: two passes over the index pages of the blocks of the last days: first the newest time of each series, then the
//! chunks that reach into its window. The log is replayed on top.
//! Invariants: what is loaded of a series is everything in blocks from some time on, so a chain is complete as
//! `chains.rs` promises; points further ahead than a clock which is right can tell stay on the disk; damage is
//! reported, never fatal.
//! Memory: 4 bytes per series that is awake, while it runs.

use crate::block::{Block, Catalog, Entry, Reader};
use crate::error::Result;
use crate::hot::{Shards, Spans};
use crate::series::Table;
use crate::sizes::GROUP;
use model::SeriesId;
use std::sync::Arc;
use stdx::Disk;

/// A series that is silent for longer is not warmed (issue 3: such series leave memory).
const SILENT_S: u32 = 2 * 86_400;

/// Chunks are read in order; so much at once.
const WINDOW_BYTES: usize = 64 << 10;

/// The time from which on points are read back; 0 when there is none.
pub fn from(catalog: &Catalog, now: i64) -> u32 {
    // One sender's point of the future (the clock was wrong once) must not make all others look silent.
    let newest = catalog.all_raw().map(|block| block.max_time).max().unwrap_or(0);
    newest.min(now.clamp(0, i64::from(u32::MAX)) as u32).saturating_sub(SILENT_S)
}

/// Findings of reading back.
#[derive(Default)]
pub struct Warmed {
    pub points: u64,
    /// File, offset and what was wrong; the rest was read.
    pub corrupt: Vec<String>,
}

/// Puts the points of the times `from` to `latest` that belong to the hot windows of the table's series into the
/// shards.
pub fn load(
    disk: &dyn Disk,
    catalog: &Catalog,
    table: &Table,
    shards: &mut Shards,
    windows: Spans,
    (from, latest): (u32, u32),
) -> Warmed {
    let mut warmed = Warmed::default();
    let recent: Vec<&Arc<Block>> = catalog.all_raw().filter(|block| block.max_time >= from).collect();
    // By group: of most ids that were ever given nothing may be awake.
    let mut newest: Vec<Option<Box<[u32; GROUP as usize]>>> = Vec::new();
    newest.resize_with(table.group_count() as usize, || None);
    table.used_groups().iter().for_each(|group| newest[*group as usize] = Some(Box::new([0; GROUP as usize])));
    let newest_of = |newest: &mut Vec<Option<Box<[u32; GROUP as usize]>>>, series: u32, time: u32| {
        let group = newest.get_mut((series / GROUP) as usize)?.as_mut()?;
        let newest = &mut group[(series % GROUP) as usize];
        *newest = time.min(latest).max(*newest);
        Some(*newest)
    };
    for block in &recent {
        for_each_entry(disk, block, &mut warmed.corrupt, |_, entry| {
            newest_of(&mut newest, entry.series, entry.newest);
            Ok(())
        });
    }
    let mut points = Vec::new();
    for block in &recent {
        for_each_entry(disk, block, &mut warmed.corrupt, |reader, entry| {
            let id = SeriesId(entry.series);
            let Some(meta) = table.meta(id) else { return Ok(()) };
            let window = windows.hot_s.max(meta.step.saturating_mul(windows.kept_points() as u32));
            let newest = newest_of(&mut newest, entry.series, 0).unwrap_or(0);
            let window_from = newest.saturating_sub(window).max(from);
            if entry.newest < window_from {
                return Ok(());
            }
            points.clear();
            reader.points(entry, window_from, latest, &mut points)?;
            let (hot, slot) = shards.of_mut(id);
            if entry.newest > latest {
                hot.note_set_aside(slot, entry.newest);
            }
            for (time, value) in &points {
                hot.load_flushed(slot, *time, *value);
            }
            warmed.points += points.len() as u64;
            Ok(())
        });
    }
    // All of it is in blocks: it must not count towards the next flush.
    shards.iter().for_each(|mut hot| hot.forget_new_bytes());
    warmed
}

fn for_each_entry(
    disk: &dyn Disk,
    block: &Arc<Block>,
    corrupt: &mut Vec<String>,
    mut each: impl FnMut(&mut Reader, &Entry) -> Result<()>,
) {
    let mut note = |result: Result<()>| {
        if let Err(error) = result {
            let text = error.to_string();
            // Both passes come by.
            if !corrupt.contains(&text) {
                corrupt.push(text);
            }
        }
    };
    let mut reader = match Reader::open_ahead(disk, block, WINDOW_BYTES) {
        Ok(reader) => reader,
        Err(error) => return note(Err(error)),
    };
    for page in 0..reader.page_count() {
        match reader.page(page).map(<[Entry]>::to_vec) {
            Ok(entries) => entries.iter().for_each(|entry| note(each(&mut reader, entry))),
            Err(error) => note(Err(error)),
        }
    }
}
