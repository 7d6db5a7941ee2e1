//! Catalog: the blocks that count, by day: which points there are, and which roll-ups may stand for them.
//!
//! How: a catalog never changes; whoever adds or replaces blocks makes a new one, and a query reads the one that it
//! began with. A roll-up stands for the points of a day when it was made of exactly the raw blocks that are there, and
//! knows the end of the day before as it is now (a counter's first rate needs it); or when the points that it was made
//! of are gone.
//! Invariants: the raw blocks of a day are in the order of their flushes, whose numbers do not overlap.
//! Memory: 16 bytes per block and 40 per day.

use super::file::Block;
use super::label::{Kind, ROLLUPS};
use crate::sizes::DAY_S;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The blocks that count.
#[derive(Default)]
pub struct Catalog {
    /// All blocks, sorted by first day, kind, and flush.
    blocks: Vec<Arc<Block>>,
    /// Days with blocks, ascending.
    days: Vec<Day>,
    newest: Option<u32>,
}

/// The blocks of one day, as positions in the list of blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct Day {
    pub day: u32,
    raw: Range<usize>,
    rollups: [Option<Rollup>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rollup {
    block: usize,
    valid: bool,
}

impl Catalog {
    /// A catalog of these blocks, in any order.
    pub fn new(mut blocks: Vec<Arc<Block>>) -> Catalog {
        blocks.sort_by_key(|block| {
            let label = &block.label;
            (label.first_day, label.kind, label.first_flush, label.number)
        });
        let mut days: BTreeMap<u32, Day> = BTreeMap::new();
        for (i, block) in blocks.iter().enumerate() {
            for day in block.label.first_day..block.label.end_day() {
                let day = days.entry(day).or_insert_with(|| Day { day, raw: 0..0, rollups: [None; 2] });
                match ROLLUPS.iter().position(|kind| *kind == block.label.kind) {
                    None if day.raw.is_empty() => day.raw = i..i + 1,
                    None => day.raw.end = i + 1,
                    Some(kind) => {
                        // The newer one, where a merge has not yet taken the older away.
                        let known = &mut day.rollups[kind];
                        if known.is_none_or(|known| blocks[known.block].label.number < block.label.number) {
                            *known = Some(Rollup { block: i, valid: false });
                        }
                    }
                }
            }
        }
        let newest = blocks.iter().filter(|block| block.series_count > 0).map(|block| block.max_time).max();
        let mut catalog = Catalog { blocks, days: days.into_values().collect(), newest };
        catalog.validate();
        catalog
    }

    fn validate(&mut self) {
        for i in 0..self.days.len() {
            for kind in 0..ROLLUPS.len() {
                let Some(rollup) = self.days[i].rollups[kind] else { continue };
                let valid = self.stands_for_its_points(&self.days[i], &self.blocks[rollup.block]);
                self.days[i].rollups[kind] = Some(Rollup { valid, ..rollup });
            }
        }
    }

    fn stands_for_its_points(&self, day: &Day, rollup: &Block) -> bool {
        let (raw, label) = (self.raw(day), &rollup.label);
        let (Some(first), Some(last)) = (raw.first(), raw.last()) else { return true };
        if label.days > 1 || label.first_flush < first.label.first_flush {
            // The points that it was made of are gone; what came since is little.
            return true;
        }
        let before = day.day.checked_sub(1).and_then(|day| self.day(day)).and_then(|day| self.raw(day).last());
        label.first_flush == first.label.first_flush
            && label.last_flush >= last.label.last_flush
            && before.is_none_or(|before| before.label.last_flush <= label.last_flush_before)
    }

    /// All blocks, by kind and day.
    pub fn blocks(&self) -> &[Arc<Block>] {
        &self.blocks
    }

    /// Days that have blocks, ascending.
    pub fn days(&self) -> &[Day] {
        &self.days
    }

    /// A day that has blocks, by its number since 1970 (UTC).
    pub fn day(&self, day: u32) -> Option<&Day> {
        self.days.binary_search_by_key(&day, |day| day.day).ok().map(|i| &self.days[i])
    }

    /// Days within [from, to] that have blocks.
    pub fn days_within(&self, from: u32, to: u32) -> &[Day] {
        let start = self.days.partition_point(|day| day.day < from);
        let end = self.days.partition_point(|day| day.day <= to);
        &self.days[start..end.max(start)]
    }

    /// The blocks with points of a day, in the order of their flushes.
    pub fn raw(&self, day: &Day) -> &[Arc<Block>] {
        &self.blocks[day.raw.clone()]
    }

    /// All blocks with points.
    pub fn all_raw(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.blocks.iter().filter(|block| block.label.kind == Kind::Raw)
    }

    /// Blocks with points that may have some within [from, to], oldest day first.
    pub fn raw_within(&self, from: u32, to: u32) -> impl Iterator<Item = &Arc<Block>> {
        let days = self.days_within(from / DAY_S, to / DAY_S);
        days.iter().flat_map(|day| self.raw(day)).filter(move |block| block.overlaps(from, to))
    }

    /// The roll-up of a kind that covers a day, valid or not.
    pub fn rollup(&self, day: &Day, kind: Kind) -> Option<&Arc<Block>> {
        let rollup = day.rollups[ROLLUPS.iter().position(|rollup| *rollup == kind)?]?;
        Some(&self.blocks[rollup.block])
    }

    /// The roll-up of a kind that covers a day, if it knows all points of the day.
    pub fn valid_rollup(&self, day: &Day, kind: Kind) -> Option<&Arc<Block>> {
        let rollup = day.rollups[ROLLUPS.iter().position(|rollup| *rollup == kind)?]?;
        rollup.valid.then(|| &self.blocks[rollup.block])
    }

    /// Bytes that the lists and the blocks' directories hold.
    pub fn memory_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Arc<Block>>()
            + self.days.capacity() * size_of::<Day>()
            + self.blocks.iter().map(|block| block.memory_bytes()).sum::<usize>()
    }

    /// The time of the newest point or bucket.
    pub fn newest(&self) -> Option<u32> {
        self.newest
    }
}

/// Parts blocks from those that others supersede: what a merge wrote anew and could not take away before the power
/// went.
pub fn without_superseded(blocks: Vec<Arc<Block>>) -> (Vec<Arc<Block>>, Vec<Arc<Block>>) {
    let mut by_day: BTreeMap<(Kind, u32), Vec<Arc<Block>>> = BTreeMap::new();
    for block in &blocks {
        for day in block.label.first_day..block.label.end_day() {
            by_day.entry((block.label.kind, day)).or_default().push(block.clone());
        }
    }
    let superseded = |block: &Block| {
        let of_the_day = by_day.get(&(block.label.kind, block.label.first_day));
        of_the_day.is_some_and(|others| others.iter().any(|other| other.label.supersedes(&block.label)))
    };
    blocks.into_iter().partition(|block| !superseded(block))
}
