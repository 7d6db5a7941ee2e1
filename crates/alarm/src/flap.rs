//! Flap: the last times at which an alarm has opened or ended.
//!
//! Memory: [`CHANGES_MAX`] times in place.

use serde::{Deserialize, Serialize};

/// Changes that are remembered; who flaps is known by then.
pub const CHANGES_MAX: usize = 12;

/// Times of changes, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes(Vec<i64>);

impl Changes {
    /// Notes a change.
    pub fn note(&mut self, at: i64) {
        if self.0.len() == CHANGES_MAX {
            self.0.remove(0);
        }
        self.0.push(at);
    }

    /// Changes of the last `window` seconds.
    pub fn within(&self, window: i64, now: i64) -> usize {
        self.0.iter().filter(|at| **at > now - window).count()
    }

    /// The newest; none where there was none.
    pub fn last(&self) -> Option<i64> {
        self.0.last().copied()
    }

    /// Moves all times.
    pub fn shift(&mut self, by: i64) {
        self.0.iter_mut().for_each(|at| *at += by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let mut changes = Changes::default();
        (0..20).for_each(|at| changes.note(at * 10));
        assert_eq!((changes.within(30, 190), changes.within(10_000, 190), changes.last()), (3, CHANGES_MAX, Some(190)));
        changes.shift(-100);
        assert_eq!(changes.last(), Some(90));
    }
}
