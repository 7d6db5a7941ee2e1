//! Readers: who takes events from the queue, and how far each has come.
//!
//! Why: alarm is not the only one; Redis may be away for a week, and must then hold up neither alarm nor the judge.
//! How: a reader is known by its name, with the highest sequence number that it has handled. A segment goes when all of
//! them have passed it. A reader with a bound on how far it may lag loses its oldest events past it; for one without,
//! appends fail when the queue is full. Which sequence numbers were given is kept as [`Runs`], so that a lag can be
//! counted without reading files.
//! Invariants: a cursor never goes back but by a new registration; what a reader loses is counted.
//! Memory: one entry per reader; one range per start of the process, or damaged place, that the kept segments hold.

use std::ops::Range;
use std::sync::Arc;
use tokio::sync::Notify;

pub(crate) struct Reader {
    pub(crate) name: &'static str,
    /// The highest sequence number that it has handled.
    pub(crate) cursor: u64,
    /// The most bytes of segments that are kept for it alone; without a bound all are kept.
    pub(crate) lag_bytes_max: Option<u64>,
    /// Records that the reader lost because it lagged too far, in the life of this process.
    pub(crate) dropped: u64,
    /// Woken by each append.
    pub(crate) appended: Arc<Notify>,
}

impl Reader {
    /// Whether it has not passed all that lies before the segment that begins with `next_first_seq`.
    pub(crate) fn needs_before(&self, next_first_seq: u64) -> bool {
        self.cursor.saturating_add(1) < next_first_seq
    }
}

#[derive(Default)]
pub(crate) struct Readers(pub(crate) Vec<Reader>);

impl Readers {
    /// The reader of this name; one that is not known yet has handled nothing.
    pub(crate) fn named(&mut self, name: &'static str) -> &mut Reader {
        let at = self.0.iter().position(|reader| reader.name == name).unwrap_or_else(|| {
            self.0.push(Reader { name, cursor: 0, lag_bytes_max: None, dropped: 0, appended: Arc::default() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    pub(crate) fn wake(&self) {
        self.0.iter().for_each(|reader| reader.appended.notify_one());
    }
}

/// Backlog of one reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Events and silent closings that the reader has not handled.
    pub records: u64,
    /// Bytes of the segments that hold these records.
    pub bytes: u64,
    /// Records that the reader lost because it lagged too far, in the life of this process.
    pub dropped: u64,
}

/// The sequence numbers that were given: ranges without a hole, growing.
#[derive(Default)]
pub(crate) struct Runs(Vec<Range<u64>>);

impl Runs {
    pub(crate) fn add(&mut self, given: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if last.end == given.start => last.end = given.end,
            _ if given.is_empty() => {}
            _ => self.0.push(given),
        }
    }

    /// Number of sequence numbers above `cursor` that were given.
    pub(crate) fn count_above(&self, cursor: u64) -> u64 {
        let above = |run: &Range<u64>| run.end.saturating_sub(run.start.max(cursor.saturating_add(1)));
        self.0.iter().rev().take_while(|run| run.end > cursor).map(above).sum()
    }

    /// Forgets the sequence numbers before `first_seq`, whose segments are gone.
    pub(crate) fn forget_before(&mut self, first_seq: u64) {
        self.0.retain(|run| run.end > first_seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_count_what_was_given() {
        let mut runs = Runs::default();
        for given in [5..6, 6..8, 8..8, 100..103] {
            runs.add(given);
        }
        assert_eq!(runs.0, [5..8, 100..103]);
        let check = |cursor, count| assert_eq!(runs.count_above(cursor), count, "above {cursor}");
        check(0, 6);
        check(4, 6);
        check(5, 5);
        check(7, 3);
        check(50, 3);
        check(99, 3);
        check(101, 1);
        check(102, 0);
        check(u64::MAX, 0);
        runs.forget_before(8);
        assert_eq!(runs.count_above(0), 3);
    }
}
