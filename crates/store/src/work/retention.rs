//! Retention: dropping what is older than it is kept, by whole files.
//!
//! How: a block with points goes when its day is over for that long, so that no point that would still be accepted can
//! come to a day that is gone. It waits for the roll-ups of its day, but not for ever: when they cannot be made (a full
//! disk), dropping is what helps.
//! Invariants: see `plan::oldest_kept` for what age is counted from.

use super::merge::{end_of_day, lacking, oldest_kept};
use crate::block::{Block, Catalog, Doomed, Kind};
use crate::error::Result;
use crate::parts::Parts;
use crate::sizes::DAY_S;

/// Seconds that points wait for their roll-ups beyond their time, and after a start: merging a day takes minutes.
const WAIT_S: i64 = DAY_S as i64;

impl Parts {
    /// Removes blocks that are past their time; returns how many files went.
    pub(crate) fn drop_old_blocks(&self, now: i64) -> Result<usize> {
        let mut dropped = Vec::new();
        self.shelf.update(|blocks| {
            let catalog = Catalog::new(blocks.to_vec());
            let (keep, drop) = blocks.iter().cloned().partition(|block| !self.is_past(&catalog, block, now));
            dropped = drop;
            (!dropped.is_empty()).then_some(keep)
        });
        self.shelf.doom(dropped.into_iter().map(|block| Doomed { block, damaged: false }));
        self.sweep_blocks()
    }

    fn is_past(&self, catalog: &Catalog, block: &Block, now: i64) -> bool {
        let label = &block.label;
        let ended = end_of_day(label.end_day().saturating_sub(1));
        let oldest = oldest_kept(catalog, &self.options, label.kind, now);
        if ended > oldest {
            return false;
        }
        let waited = ended + WAIT_S <= oldest && now >= self.opened_at + WAIT_S;
        let day = catalog.day(label.first_day);
        let rolled_up = || day.is_none_or(|day| lacking(catalog, &self.options, day, now).is_empty());
        label.kind != Kind::Raw || waited || rolled_up()
    }
}
