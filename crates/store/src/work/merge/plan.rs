//! Plan: what to merge next. Pure but for what is remembered of days that change after they were done.
//!
//! A day is *closed* when it is over and the late window and a flush since then have passed; it is *done* when its
//! points are in one block that was written after that, and the roll-ups that are wanted of it are valid. A done day
//! that gets more points is done again when it was left alone for a flush interval, or after a day at the latest: what
//! comes late in drops must not cause a rewrite with each drop.

use crate::block::{Block, Catalog, Day, FINAL, Kind, Label, ROLLUPS};
use crate::options::Options;
use crate::parts::Parts;
use crate::sizes::DAY_S;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Blocks open for reading at once.
pub const INPUTS_MAX: usize = 16;

/// Blocks of a level that become one of the next. With a flush each two hours a day then has seven and one at most.
const FAN_IN: usize = 8;

/// Inputs that may be of the day before.
const BEFORE_MAX: usize = 4;

/// A block is rewritten when one in so many of its series was removed.
pub const REMOVED_SHARE: u32 = 8;

/// Days whose roll-ups become one file once their points are gone; a longer one only of files of the shorter.
const PERIODS: [(Kind, u32); 3] = [(Kind::FiveMinutes, 8), (Kind::Hour, 8), (Kind::Hour, 32)];

/// Work that is to be done next.
pub enum Next {
    Merge(Plan),
    /// A look through a block for its removed series.
    Scan(Arc<Block>),
}

/// Plan of a merge: its inputs, its outputs, and the blocks that it replaces.
pub struct Plan {
    /// Blocks to merge, in the order of their flushes, or of their days.
    pub inputs: Vec<Arc<Block>>,
    /// Blocks of the day before, for the rate across midnight.
    pub before: Vec<Arc<Block>>,
    pub outputs: Vec<Label>,
    pub replaces: Vec<Arc<Block>>,
    /// Blocks that go too when no series is left: roll-ups of points that are gone count for ever, and others may come.
    pub replaces_if_empty: Vec<Arc<Block>>,
    /// True when chunks stay as they are coded.
    pub copy: bool,
}

/// A closed day that changed after it was done.
pub struct Pending {
    last_flush: u64,
    first_seen: i64,
    last_change: i64,
}

/// The planner's memory of days and blocks.
pub struct Notes {
    /// The number of the first block written since the start.
    first_number: u64,
    /// First days of plans that failed, and until when they are left alone.
    pub failed: BTreeMap<u32, i64>,
    /// Closed days that got more points after they were done.
    pub pending: BTreeMap<u32, Pending>,
    /// Looks through blocks, by the block's number: the removals there had been, and how many series were removed.
    pub scanned: BTreeMap<u64, (u64, u32)>,
}

impl Notes {
    /// Notes of a start whose first block will have this number.
    pub fn new(first_number: u64) -> Notes {
        Notes { first_number, failed: BTreeMap::new(), pending: BTreeMap::new(), scanned: BTreeMap::new() }
    }
}

impl Plan {
    /// `inputs` become one.
    fn of(inputs: Vec<Arc<Block>>, output: Label) -> Plan {
        Plan {
            replaces: inputs.clone(),
            inputs,
            before: Vec::new(),
            outputs: vec![output],
            replaces_if_empty: Vec::new(),
            copy: false,
        }
    }

    /// First day of the inputs, since 1970 (UTC).
    pub fn first_day(&self) -> u32 {
        self.inputs[0].label.first_day
    }

    /// Whether the inputs are blocks with points, not roll-ups.
    pub fn of_points(&self) -> bool {
        self.inputs[0].label.kind == Kind::Raw
    }

    /// Lets go of all the other blocks.
    pub fn into_replaces(self) -> Vec<Arc<Block>> {
        self.replaces
    }

    /// Plan that copies a block without its removed series.
    pub fn without_removed(catalog: &Catalog, block: &Arc<Block>, number: u64) -> Plan {
        let day = catalog.day(block.label.first_day).filter(|_| block.label.kind == Kind::Raw);
        Plan {
            inputs: vec![block.clone()],
            before: Vec::new(),
            outputs: vec![Label { number, ..block.label }],
            replaces: vec![block.clone()],
            replaces_if_empty: day.map_or(Vec::new(), |day| rollups_of_points(catalog, day)),
            copy: true,
        }
    }
}

/// The oldest time that is kept of a kind. Age is counted back from the newest data where the clock is ahead of it: a
/// clock that jumps by a month for a minute must not take the history with it. A store that gets no more data keeps
/// what it has.
pub fn oldest_kept(catalog: &Catalog, options: &Options, kind: Kind, now: i64) -> i64 {
    let newest = catalog.newest().map_or(now, i64::from);
    now.min(newest) - kind.kept_s(options)
}

/// The first second after a day.
pub fn end_of_day(day: u32) -> i64 {
    (i64::from(day) + 1) * i64::from(DAY_S)
}

/// Whether there are to be roll-ups of a kind for a day.
pub fn is_wanted(catalog: &Catalog, options: &Options, kind: Kind, day: u32, now: i64) -> bool {
    kind.kept_s(options) > 0 && end_of_day(day) > oldest_kept(catalog, options, kind, now)
}

/// The roll-ups that a day lacks.
pub fn lacking(catalog: &Catalog, options: &Options, day: &Day, now: i64) -> Vec<Kind> {
    let lacks =
        |kind: &Kind| catalog.valid_rollup(day, *kind).is_none() && is_wanted(catalog, options, *kind, day.day, now);
    ROLLUPS.into_iter().filter(lacks).collect()
}

/// The next piece of work, if there is any.
pub fn next(parts: &Parts, notes: &mut Notes, now: i64) -> Option<Next> {
    let catalog = parts.blocks();
    let planner = Planner { parts, catalog: &catalog, now };
    planner.forget(notes);
    let plan = planner.day(notes).or_else(|| planner.period(notes));
    plan.map(Next::Merge).or_else(|| planner.block_to_scan(notes).map(Next::Scan))
}

/// Series removed so far; what is compared with is only an older answer.
pub fn removals(parts: &Parts) -> u64 {
    parts.tallies.removed_series.load(Relaxed)
}

struct Planner<'a> {
    parts: &'a Parts,
    catalog: &'a Catalog,
    now: i64,
}

impl Planner<'_> {
    /// Drops the notes of days and blocks that are no more.
    fn forget(&self, notes: &mut Notes) {
        notes.pending.retain(|day, _| self.catalog.day(*day).is_some());
        let numbers: Vec<u64> = {
            let mut numbers: Vec<u64> = self.catalog.blocks().iter().map(|block| block.label.number).collect();
            numbers.sort_unstable();
            numbers
        };
        notes.scanned.retain(|number, _| numbers.binary_search(number).is_ok());
    }

    /// The oldest day with something to do.
    fn day(&self, notes: &mut Notes) -> Option<Plan> {
        // The first rate of a day needs the day before as it will stay.
        let mut wait_for = None;
        for day in self.catalog.days() {
            let raw = self.catalog.raw(day);
            if raw.is_empty() || notes.failed.contains_key(&day.day) {
                continue;
            }
            if self.is_closed(day) && !self.is_done(day) {
                let first_of_two = wait_for.is_none_or(|waiting: u32| waiting + 1 != day.day);
                wait_for = Some(day.day);
                if self.is_due(day, notes) && first_of_two {
                    return Some(self.close(day));
                }
            } else {
                notes.pending.remove(&day.day);
            }
            if let Some(inputs) = run_of_one_level(raw) {
                return Some(self.fold(inputs));
            }
        }
        None
    }

    fn is_closed(&self, day: &Day) -> bool {
        let options = &self.parts.options;
        self.now >= end_of_day(day.day) + options.late_window_s + options.flush_interval_s
    }

    fn is_done(&self, day: &Day) -> bool {
        let raw = self.catalog.raw(day);
        let whole = raw.len() == 1 && raw[0].label.level == FINAL;
        whole && lacking(self.catalog, &self.parts.options, day, self.now).is_empty()
    }

    fn is_due(&self, day: &Day, notes: &mut Notes) -> bool {
        let raw = self.catalog.raw(day);
        let last_flush = raw.iter().map(|block| block.label.last_flush).max().unwrap_or(0);
        // Never done yet, or as it is since before the start.
        if raw.iter().all(|block| block.label.level != FINAL) || last_flush < notes.first_number {
            return true;
        }
        let fresh = Pending { last_flush, first_seen: self.now, last_change: self.now };
        let pending = notes.pending.entry(day.day).or_insert(fresh);
        // A clock that is set back.
        pending.last_change = pending.last_change.min(self.now);
        pending.first_seen = pending.first_seen.min(self.now);
        if pending.last_flush != last_flush {
            (pending.last_flush, pending.last_change) = (last_flush, self.now);
        }
        self.now - pending.last_change >= self.parts.options.flush_interval_s
            || self.now - pending.first_seen >= i64::from(DAY_S)
    }

    /// Points into one block, and the roll-ups from them. More blocks than can be open are folded first.
    fn close(&self, day: &Day) -> Plan {
        let raw = self.catalog.raw(day);
        let before = day.day.checked_sub(1).and_then(|day| self.catalog.day(day));
        let before = before.map_or(&[][..], |before| self.catalog.raw(before));
        if before.len() > BEFORE_MAX {
            // A day that failed, as it seems.
            return self.fold(&before[before.len().saturating_sub(INPUTS_MAX)..]);
        }
        if raw.len() + before.len() > INPUTS_MAX {
            return self.fold(&raw[raw.len() - FAN_IN..]);
        }
        let (first, last) = (&raw[0].label, &raw[raw.len() - 1].label);
        let known_before = before.last().map_or(0, |block| block.label.last_flush);
        let label = |kind, level, last_flush_before| Label {
            kind,
            level,
            first_day: day.day,
            days: 1,
            number: self.parts.shelf.next_number(),
            first_flush: first.first_flush,
            last_flush: last.last_flush,
            last_flush_before,
        };
        let lacking = lacking(self.catalog, &self.parts.options, day, self.now);
        let mut outputs: Vec<Label> = Vec::new();
        let mut replaces: Vec<Arc<Block>> = Vec::new();
        if raw.len() > 1 || first.level != FINAL {
            outputs.push(label(Kind::Raw, FINAL, 0));
            replaces.extend(raw.iter().cloned());
        }
        outputs.extend(lacking.iter().map(|kind| label(*kind, FINAL, known_before)));
        replaces.extend(lacking.iter().filter_map(|kind| self.catalog.rollup(day, *kind)).cloned());
        let before = if lacking.is_empty() { Vec::new() } else { before.to_vec() };
        let replaces_if_empty = rollups_of_points(self.catalog, day);
        Plan { inputs: raw.to_vec(), before, outputs, replaces, replaces_if_empty, copy: false }
    }

    fn fold(&self, inputs: &[Arc<Block>]) -> Plan {
        let (first, last) = (&inputs[0].label, &inputs[inputs.len() - 1].label);
        let level = inputs.iter().map(|block| block.label.level).max().unwrap_or(0);
        let label = Label {
            level: level.saturating_add(1).min(FINAL - 1),
            number: self.parts.shelf.next_number(),
            last_flush: last.last_flush,
            ..*first
        };
        let inputs = inputs.to_vec();
        Plan::of(inputs, label)
    }

    /// Roll-ups of a period whose points are gone.
    fn period(&self, notes: &Notes) -> Option<Plan> {
        let gone = oldest_kept(self.catalog, &self.parts.options, Kind::Raw, self.now);
        PERIODS.into_iter().find_map(|(kind, days)| {
            let blocks: Vec<&Arc<Block>> =
                self.catalog.blocks().iter().filter(|block| block.label.kind == kind).collect();
            let period = |block: &Arc<Block>| block.label.first_day / days;
            blocks.chunk_by(|a, b| period(a) == period(b)).find_map(|blocks| {
                let first_day = period(blocks[0]) * days;
                let last_day = first_day + days - 1;
                let within = blocks.iter().all(|block| block.label.end_day() <= last_day + 1);
                let no_points = end_of_day(last_day) <= gone
                    && self.catalog.days_within(first_day, last_day).iter().all(|day| self.catalog.raw(day).is_empty());
                let fits = (2..=INPUTS_MAX).contains(&blocks.len());
                let failed = notes.failed.contains_key(&blocks[0].label.first_day);
                (within && no_points && fits && !failed).then(|| self.join(blocks))
            })
        })
    }

    /// `blocks` ascend by day.
    fn join(&self, blocks: &[&Arc<Block>]) -> Plan {
        let inputs: Vec<Arc<Block>> = blocks.iter().map(|block| Arc::clone(block)).collect();
        let first_day = inputs[0].label.first_day;
        let end_day = inputs.iter().map(|block| block.label.end_day()).max().unwrap_or(first_day);
        let label = Label {
            days: (end_day - first_day) as u16,
            number: self.parts.shelf.next_number(),
            first_flush: inputs.iter().map(|block| block.label.first_flush).min().unwrap_or(0),
            last_flush: inputs.iter().map(|block| block.label.last_flush).max().unwrap_or(0),
            last_flush_before: 0,
            ..inputs[0].label
        };
        Plan::of(inputs, label)
    }

    /// A block that may have enough removed series to be written anew.
    fn block_to_scan(&self, notes: &Notes) -> Option<Arc<Block>> {
        let removals = removals(self.parts);
        let may_have_enough = |block: &&Arc<Block>| {
            let (seen, removed) = notes.scanned.get(&block.label.number).copied().unwrap_or((0, 0));
            let removed_max = removals.saturating_sub(seen) + u64::from(removed);
            // Those of a lower level are merged soon anyway.
            block.label.level == FINAL
                && block.series_count > 0
                && !notes.failed.contains_key(&block.label.first_day)
                && removals > seen
                && removed_max * u64::from(REMOVED_SHARE) >= u64::from(block.series_count)
        };
        self.catalog.blocks().iter().find(may_have_enough).cloned()
    }
}

/// The roll-ups of a day that were made of the points that are there.
fn rollups_of_points(catalog: &Catalog, day: &Day) -> Vec<Arc<Block>> {
    let first_flush = catalog.raw(day).first().map_or(0, |block| block.label.first_flush);
    let rollups = ROLLUPS.into_iter().filter_map(|kind| catalog.rollup(day, kind));
    rollups.filter(|block| block.label.days == 1 && block.label.first_flush >= first_flush).cloned().collect()
}

/// Neighbours of one level that are enough to make one of the next.
fn run_of_one_level(raw: &[Arc<Block>]) -> Option<&[Arc<Block>]> {
    let same = |a: &Arc<Block>, b: &Arc<Block>| a.label.level == b.label.level;
    let run = raw.chunk_by(same).find(|run| run.len() >= FAN_IN && run[0].label.level != FINAL)?;
    Some(&run[..run.len().min(INPUTS_MAX)])
}
