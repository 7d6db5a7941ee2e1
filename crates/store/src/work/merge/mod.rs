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
//! Invariants: an input goes only after the outputs are durable; a crash at any write leaves whole files and `.tmp`
//! ones, and what both an input and an output hold is dropped at the next start (`Label::supersedes`); of equal times
//! the lower flush counts, as in queries; a query that began before a merge ended reads the files it began with; a
//! damaged input costs what is damaged in it, and is kept aside.
//! Locks: `merge` is first and held for a step; nothing that appends, flushes or reads takes it.
//! Memory: 16 inputs with a page and a window of 64 KiB (or a chunk) each, a series' points of a day, three writers.

mod job;
mod plan;

use crate::block::{Block, Doomed};
use crate::error::Result;
use crate::parts::Parts;
use job::{Finished, Job, Scan};
use plan::{Next, Notes, Plan};
pub use plan::{end_of_day, lacking, oldest_kept};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Pause after a failure, before anything else is tried: the disk may be full.
const RETRY_S: i64 = 60;

/// Pause after a failure, before the same day is tried again: others come first.
const RETRY_DAY_S: i64 = 3600;

/// The work under way, and the planner's notes.
pub struct Merger {
    notes: Notes,
    work: Option<Work>,
    not_before: i64,
}

enum Work {
    Merge(Box<Job>),
    Scan(Scan),
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// True when there is more to do now; else asking again in a minute is soon enough.
    pub more: bool,
    /// Bytes read and written.
    pub bytes: u64,
    /// Blocks that came and went with this step.
    pub written: usize,
    pub replaced: usize,
}

impl Merger {
    /// `first_number`: of the blocks written since the start.
    pub fn new(first_number: u64) -> Merger {
        Merger { notes: Notes::new(first_number), work: None, not_before: i64::MIN }
    }

    /// Does the next piece of merging: about `budget_bytes` of reading and writing.
    pub fn step(&mut self, parts: &Parts, now: i64, budget_bytes: u64) -> Result<Merged> {
        self.follow_clock(now);
        let swept = parts.sweep_blocks();
        let mut merged = Merged::default();
        if self.work.is_none() && now >= self.not_before {
            self.work = self.begin(parts, now)?;
        }
        let Some(mut work) = self.work.take() else { return swept.map(|_| merged) };
        let day = work.first_day();
        let result = work.run(parts, budget_bytes, &mut merged.bytes);
        parts.tallies.merge_bytes.fetch_add(merged.bytes, Relaxed);
        match result.and_then(|done| if done { self.end(parts, work, &mut merged) } else { Ok(Some(work)) }) {
            Ok(unfinished) => {
                self.work = unfinished;
                merged.more = true;
                swept.map(|_| merged)
            }
            Err(error) => {
                self.fail(parts, day, now);
                Err(error)
            }
        }
    }

    fn begin(&mut self, parts: &Parts, now: i64) -> Result<Option<Work>> {
        let (day, work) = match plan::next(parts, &mut self.notes, now) {
            None => return Ok(None),
            Some(Next::Merge(plan)) => {
                let day = plan.first_day();
                (day, Job::begin(parts, plan).map(|job| Work::Merge(Box::new(job))))
            }
            Some(Next::Scan(block)) => (block.label.first_day, Scan::begin(parts, &block).map(Work::Scan)),
        };
        work.map(Some).inspect_err(|_| self.fail(parts, day, now))
    }

    /// Returns work that follows at once.
    fn end(&mut self, parts: &Parts, work: Work, merged: &mut Merged) -> Result<Option<Work>> {
        match work {
            Work::Scan(scan) => {
                let block = scan.block().clone();
                self.notes.scanned.insert(block.label.number, (scan.removals, scan.removed));
                if scan.removed * plan::REMOVED_SHARE < block.series_count {
                    return Ok(None);
                }
                let plan = Plan::without_removed(&parts.blocks(), &block, parts.shelf.next_number());
                Ok(Some(Work::Merge(Box::new(Job::begin(parts, plan)?))))
            }
            Work::Merge(job) => {
                let Finished { plan, outputs, damaged, removals } = job.finish(parts)?;
                let (written, replaced) = (outputs.len(), plan.replaces.len());
                if parts.publish(&plan, outputs) {
                    parts.tallies.merges.fetch_add(1, Relaxed);
                    self.notes.scanned.extend(plan.outputs.iter().map(|label| (label.number, (removals, 0))));
                    self.notes.pending.remove(&plan.first_day());
                    (merged.written, merged.replaced) = (written, replaced);
                    parts.shelf.doom(plan.into_replaces().into_iter().map(|block| {
                        let damaged = damaged.contains(&block.label.number);
                        Doomed { block, damaged }
                    }));
                    // What a query still reads, or what fails, is for the next sweep.
                    let _ = parts.sweep_blocks();
                }
                Ok(None)
            }
        }
    }

    fn fail(&mut self, parts: &Parts, day: u32, now: i64) {
        self.not_before = now + RETRY_S;
        self.notes.failed.insert(day, now + RETRY_DAY_S);
        parts.tallies.merge_errors.fetch_add(1, Relaxed);
    }

    /// A clock that was ahead and is set back must not put off what is due.
    fn follow_clock(&mut self, now: i64) {
        self.not_before = self.not_before.min(now + RETRY_S);
        self.notes.failed.retain(|_, until| *until > now && *until <= now + RETRY_DAY_S);
    }
}

impl Parts {
    /// Puts the outputs in the place of what they replace. False, and the outputs are gone, when retention took one of
    /// those meanwhile.
    fn publish(&self, plan: &Plan, outputs: Vec<Arc<Block>>) -> bool {
        let published = self.shelf.update(|blocks| {
            let has = |block: &Arc<Block>| blocks.iter().any(|other| Arc::ptr_eq(block, other));
            if !plan.replaces.iter().chain(&plan.inputs).all(has) {
                return None;
            }
            let replaced = |block: &Arc<Block>| plan.replaces.iter().any(|other| Arc::ptr_eq(block, other));
            let kept = blocks.iter().filter(|block| !replaced(block)).cloned();
            Some(kept.chain(outputs.iter().cloned()).collect())
        });
        if !published {
            self.shelf.doom(outputs.into_iter().map(|block| Doomed { block, damaged: false }));
        }
        published
    }
}

impl Work {
    fn first_day(&self) -> u32 {
        match self {
            Work::Merge(job) => job.plan.first_day(),
            Work::Scan(scan) => scan.block().label.first_day,
        }
    }

    /// Adds to `bytes` until there are `budget` of them. True when the work is done.
    fn run(&mut self, parts: &Parts, budget: u64, bytes: &mut u64) -> Result<bool> {
        match self {
            Work::Merge(job) => job.run(parts, budget, bytes),
            Work::Scan(scan) => scan.run(parts, budget, bytes),
        }
    }
}
