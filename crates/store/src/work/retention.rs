//! Retention: dropping what is older than it is kept, by whole files.
//!
//! How: a block with points goes when its day is over for that long, so that no point that would still be accepted can
//! come to a day that is gone. It waits for the roll-ups of its day, but not for ever: when they cannot be made (a full
//! disk), dropping is what helps. Whoever has the clock may ask first what would go by it ([`Past`]), and say up to
//! which time it is to be believed ([`Parts::believe`]).
//! Invariants: see `plan::oldest_kept` for what age is counted from.

use super::merge::{end_of_day, lacking, oldest_kept};
use crate::block::{Block, Catalog, Doomed, Kind};
use crate::error::Result;
use crate::parts::Parts;
use crate::sizes::DAY_S;

/// Seconds that points wait for their roll-ups beyond their time, and after a start: merging a day takes minutes.
const WAIT_S: i64 = DAY_S as i64;

/// What is past its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    pub files: usize,
    /// The most ends of days among the files of one kind. One at most where the clock goes on and somebody looks each
    /// minute.
    pub days: usize,
}

impl Parts {
    /// What is past its time by `now`, believed or not.
    pub fn past(&self, now: i64) -> Past {
        let catalog = self.blocks();
        let is_past = |block: &&std::sync::Arc<Block>| self.is_past(&catalog, block, now);
        let mut ends: Vec<(Kind, u32)> =
            catalog.blocks().iter().filter(is_past).map(|block| (block.label.kind, block.label.end_day())).collect();
        let files = ends.len();
        ends.sort_unstable();
        ends.dedup();
        Past { files, days: ends.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len).max().unwrap_or(0) }
    }

    /// Removes blocks that are past their time; returns how many files went.
    pub(crate) fn drop_old_blocks(&self, now: i64) -> Result<usize> {
        let now = self.believed(now);
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
