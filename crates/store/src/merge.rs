//! Merge: many small blocks become few, and closed days get their roll-ups; in small steps, at the pace of the caller.
//!
//! Why: each flush leaves a block per day. A query for a day would open twelve files, a point coded among a hundred and
//! twenty costs twice the bytes of one coded among a day's, and nothing would ever drop what was removed.
//! How: `plan.rs` finds the next piece of work:
//! 1. a day that is over: its blocks become one, and its roll-ups are made from the same points;
//! 2. eight blocks of one level, of a day that is not over: one of the next level;
//! 3. roll-ups of days whose points are gone: one file for eight, later for 32 days, so that two years stay few files;
//! 4. a block of which an eighth of the series was removed: the same without them.
//!
//! `job.rs` does it, series by series, a few at each step; then its outputs replace its inputs in the catalog at once.
//! Invariants: an input goes only after the outputs are durable; a crash at any write leaves whole files and `.tmp` ones,
//! and what both an input and an output hold is dropped at the next start (`Label::supersedes`); of equal times the
//! lower flush counts, as in queries; a query that began before a merge ended reads the files it began with; a damaged input
//! costs what is damaged in it, and is kept aside.
//! Locks: `merge` is first and held for a step; nothing that appends, flushes or reads takes it.
//! Memory: 16 inputs with a page and a window of 64 KiB (or a chunk) each, a series' points of a day, three writers.

mod job;
mod plan;

use crate::block::{Block, Kind};
use crate::error::{Error, Result};
use crate::store::{Store, block_dir, lock};
use job::{Finished, Job, Scan};
use plan::{Next, Plan};
pub(crate) use plan::{end_of_day, lacking, oldest_kept};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Blocks open for reading at once.
const INPUTS_MAX: usize = 16;

/// After a failure, before anything else is tried: the disk may be full.
const RETRY_S: i64 = 60;

/// After a failure, before the same day is tried again: others come first.
const RETRY_DAY_S: i64 = 3600;

/// What is under way, and what is known of what was not.
pub(crate) struct State {
    /// Of the blocks written since the start.
    first_number: u64,
    work: Option<Work>,
    not_before: i64,
    /// First days of plans that failed, and until when they are left alone.
    failed: BTreeMap<u32, i64>,
    /// Closed days that got more points after they were done.
    pending: BTreeMap<u32, plan::Pending>,
    /// By a block's number: of how many removals it was looked through, and how many of its series were removed then.
    scanned: BTreeMap<u64, (u64, u32)>,
}

enum Work {
    Merge(Box<Job>),
    Scan(Scan),
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// There is more to do now; else asking again in a minute is soon enough.
    pub more: bool,
    /// Bytes read and written.
    pub bytes: u64,
    /// Blocks that came and went with this step.
    pub written: usize,
    pub replaced: usize,
}

impl State {
    pub fn new(first_number: u64) -> State {
        State {
            first_number,
            work: None,
            not_before: i64::MIN,
            failed: BTreeMap::new(),
            pending: BTreeMap::new(),
            scanned: BTreeMap::new(),
        }
    }

    fn fail(&mut self, day: u32, now: i64) {
        self.not_before = now + RETRY_S;
        self.failed.insert(day, now + RETRY_DAY_S);
    }

    /// A clock that was ahead and is set back must not put off what is due.
    fn follow_clock(&mut self, now: i64) {
        self.not_before = self.not_before.min(now + RETRY_S);
        self.failed.retain(|_, until| *until > now && *until <= now + RETRY_DAY_S);
    }
}

impl Store {
    /// Does the next piece of merging: about `budget_bytes` of reading and writing. One thread is to call it over and over,
    /// pausing as its bound on IO wants. On an error nothing is lost; it is tried again later.
    pub fn merge_step(&self, now: i64, budget_bytes: u64) -> Result<Merged> {
        let mut state = lock(&self.merge);
        let state = &mut *state;
        state.follow_clock(now);
        let swept = self.sweep();
        let mut merged = Merged::default();
        if state.work.is_none() && now >= state.not_before {
            state.work = self.begin(state, now)?;
        }
        let Some(mut work) = state.work.take() else { return swept.map(|_| merged) };
        let day = work.first_day();
        let result = work.run(self, budget_bytes, &mut merged.bytes);
        self.counters.merge_bytes.fetch_add(merged.bytes, Relaxed);
        match result.and_then(|done| if done { self.end(work, state, &mut merged) } else { Ok(Some(work)) }) {
            Ok(unfinished) => {
                state.work = unfinished;
                merged.more = true;
                swept.map(|_| merged)
            }
            Err(error) => {
                state.fail(day, now);
                self.counters.merge_errors.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }

    fn begin(&self, state: &mut State, now: i64) -> Result<Option<Work>> {
        let begun = match self.next_work(state, now) {
            None => return Ok(None),
            Some(Next::Merge(plan)) => {
                let day = plan.first_day();
                (day, Job::begin(self, plan).map(|job| Work::Merge(Box::new(job))))
            }
            Some(Next::Scan(block)) => {
                (block.label.first_day, Scan::begin(self, &block, self.removals()).map(Work::Scan))
            }
        };
        let (day, work) = begun;
        work.map(Some).inspect_err(|_| {
            state.fail(day, now);
            self.counters.merge_errors.fetch_add(1, Relaxed);
        })
    }

    /// Returns work that follows at once.
    fn end(&self, work: Work, state: &mut State, merged: &mut Merged) -> Result<Option<Work>> {
        match work {
            Work::Scan(scan) => {
                let block = scan.block().clone();
                state.scanned.insert(block.label.number, (scan.removals, scan.removed));
                if scan.removed * plan::REMOVED_SHARE < block.series_count {
                    return Ok(None);
                }
                let plan = Plan::without_removed(&self.blocks(), &block, self.next_number());
                Ok(Some(Work::Merge(Box::new(Job::begin(self, plan)?))))
            }
            Work::Merge(job) => {
                let Finished { plan, outputs, damaged, removals } = job.finish(self)?;
                let (written, replaced) = (outputs.len(), plan.replaces.len());
                if self.publish(&plan, outputs) {
                    self.counters.merges.fetch_add(1, Relaxed);
                    state.scanned.extend(plan.outputs.iter().map(|label| (label.number, (removals, 0))));
                    state.pending.remove(&plan.first_day());
                    (merged.written, merged.replaced) = (written, replaced);
                    self.doom(plan.into_replaces().into_iter().map(|block| {
                        let damaged = damaged.contains(&block.label.number);
                        Doomed { block, damaged }
                    }));
                    // What a query still reads, or what fails, is for the next sweep.
                    let _ = self.sweep();
                }
                Ok(None)
            }
        }
    }

    /// Puts the outputs in the place of what they replace. False, and the outputs are gone, when retention took one of those
    /// meanwhile.
    fn publish(&self, plan: &Plan, outputs: Vec<Arc<Block>>) -> bool {
        let published = self.update_blocks(|blocks| {
            let has = |block: &Arc<Block>| blocks.iter().any(|other| Arc::ptr_eq(block, other));
            if !plan.replaces.iter().chain(&plan.inputs).all(has) {
                return None;
            }
            let replaced = |block: &Arc<Block>| plan.replaces.iter().any(|other| Arc::ptr_eq(block, other));
            let kept = blocks.iter().filter(|block| !replaced(block)).cloned();
            Some(kept.chain(outputs.iter().cloned()).collect())
        });
        if !published {
            self.doom(outputs.into_iter().map(|block| Doomed { block, damaged: false }));
        }
        published
    }

    pub(crate) fn doom(&self, blocks: impl Iterator<Item = Doomed>) {
        lock(&self.doomed).extend(blocks);
    }

    /// Removes the files of blocks that are in no catalog any more, once no query reads them. Returns how many; those that
    /// cannot be removed are tried again with the next sweep.
    pub(crate) fn sweep(&self) -> Result<usize> {
        let mut doomed = lock(&self.doomed);
        let (mut removed, mut failed) = (0, None);
        doomed.retain(|doomed| {
            // Nobody gets a new handle on it: it is in no catalog that is handed out.
            if Arc::strong_count(&doomed.block) > 1 {
                return true;
            }
            let block = &doomed.block;
            let result = if doomed.damaged { block.set_aside(&*self.disk) } else { block.remove(&*self.disk) };
            removed += usize::from(result.is_ok());
            result.map_err(|error| failed = Some(error)).is_err()
        });
        drop(doomed);
        if removed > 0 {
            // What came back after a power cut, beside what was made of it and also went, would count anew.
            let dir = block_dir(&self.options);
            self.disk.sync_dir(&dir).map_err(Error::disk("sync", &dir))?;
        }
        failed.map_or(Ok(removed), Err)
    }

    /// Files that are still to go, and their bytes.
    pub(crate) fn doomed_files(&self) -> (usize, u64) {
        let doomed = lock(&self.doomed);
        (doomed.len(), doomed.iter().map(|doomed| doomed.block.bytes).sum())
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Relaxed)
    }

    /// Series removed so far; what is compared with is only an older answer.
    fn removals(&self) -> u64 {
        self.counters.removed_series.load(Relaxed)
    }
}

/// A block whose file is to go.
pub(crate) struct Doomed {
    pub block: Arc<Block>,
    /// Its file is set aside instead.
    pub damaged: bool,
}

impl Work {
    fn first_day(&self) -> u32 {
        match self {
            Work::Merge(job) => job.plan.first_day(),
            Work::Scan(scan) => scan.block().label.first_day,
        }
    }

    /// Adds to `bytes` until there are `budget` of them. True when the work is done.
    fn run(&mut self, store: &Store, budget: u64, bytes: &mut u64) -> Result<bool> {
        match self {
            Work::Merge(job) => job.run(store, budget, bytes),
            Work::Scan(scan) => scan.run(store, budget, bytes),
        }
    }
}

impl Plan {
    fn first_day(&self) -> u32 {
        self.inputs[0].label.first_day
    }

    /// Of the raw blocks themselves, not of their roll-ups.
    fn of_points(&self) -> bool {
        self.inputs[0].label.kind == Kind::Raw
    }
}
