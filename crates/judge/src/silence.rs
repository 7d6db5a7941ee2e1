//! Silences: which series have a `nodata` rule, when they were last heard of, and when to look at them again.
//!
//! Why: a point that does not come calls nobody; somebody must look at the clock, and only at the few series that a
//! rule asks this about. No mock points are made for it, as the original needs.
//!
//! How: `nodata(#N)` holds when N points have failed to come. A point is missing when it is a period late, so this is
//! the case N + 1 periods after the series was last heard of: one period until the first point was due, one of grace,
//! and N - 1 more. Time is counted on our clock from the moment at which the last point *arrived*: a host whose clock
//! is slow, or which hands in old points after an outage, is not silent. Each further N missing points are new
//! evidence, which lets a PROBLEM repeat. The time of the event is counted from the time *of* the last point, so that
//! it does not depend on when somebody looked. After a start (or when the rule is new) silence, and with it the time of
//! the event, is counted from then: while the judge was down it heard nobody, and a start must not alarm for the whole
//! fleet. Nothing is known of a series that never had a point; a series that has been silent for more than
//! [`FORGOTTEN_S`] since before the start is gone rather than silent. A time in which nobody could be heard, or a step
//! of the clock, is such a start ([`Silences::begin_anew`]); whoever has the clock notices it.
//!
//! Invariants: the period is that of `values.rs`, of points that are there; never reads the clock; no silence counts
//! from before the last start, nor from a time that has not come.
//! Memory: 24 bytes per series with such a rule and a table slot; nothing for others.

use crate::state::hash;
use hashbrown::HashTable;
use model::SeriesId;

/// Seconds of silence before a start after which a series is gone. A day, so that a host that was lost the evening
/// before is still told after a restart in the morning.
pub(crate) const FORGOTTEN_S: i64 = 86_400;

/// Silence of a series: since when, and whether anything was heard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    series: SeriesId,
    /// Whether a point came since the start.
    pub heard: bool,
    /// Wall clock at the last point's arrival, or when we began to listen.
    pub since: i64,
    /// Wall clock when the answer may change next.
    due: i64,
}

const _: () = assert!(size_of::<Silence>() == 24);

/// The time of a silence at which nobody has looked yet.
const UNKNOWN: i64 = i64::MIN;

/// Points that are missing, in whole multiples of N, and the times that follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Missing {
    pub count: i64,
    /// Times at which the newest and the oldest of the newest N counted as missing.
    pub newest: i64,
    pub oldest: i64,
}

impl Silence {
    /// The points missing at `now`, of a series whose newest point has the time `newest`; `None` if fewer than `steps`.
    pub fn missing(&self, newest: i64, period_s: i64, steps: u32, now: i64) -> Option<Missing> {
        let steps = i64::from(steps);
        let late = now.saturating_sub(self.since) / period_s.max(1) - 1;
        let count = late / steps * steps;
        if count < steps || self.is_forgotten(newest) {
            return None;
        }
        let counted_from = if self.heard { newest } else { newest.max(self.since) };
        let time = |number: i64| counted_from.saturating_add(period_s.saturating_mul(number + 1));
        Some(Missing { count, newest: time(count), oldest: time(count - steps + 1) })
    }

    /// Whether the series was silent for so long before the start that it is gone.
    pub fn is_forgotten(&self, newest: i64) -> bool {
        !self.heard && self.since.saturating_sub(newest) > FORGOTTEN_S
    }

    /// Whether the answer may have changed, or the clock was set back.
    fn is_due(&self, now: i64) -> bool {
        self.due <= now || self.since > now
    }

    /// The time at which the number of missing points reaches the next multiple of `steps`.
    pub fn next_due(&self, period_s: i64, steps: u32, now: i64) -> i64 {
        let (steps, period_s) = (i64::from(steps), period_s.max(1));
        let late = (now.saturating_sub(self.since) / period_s - 1).max(0);
        let next = (late / steps + 1) * steps;
        self.since.saturating_add(period_s.saturating_mul(next + 1))
    }
}

#[derive(Default)]
pub(crate) struct Silences {
    table: HashTable<Silence>,
    /// The last time at which listening began anew; what comes with an older clock was on its way then.
    began: Option<i64>,
}

impl Silences {
    /// Begins or ends to follow a series; one that is followed already is left as it is.
    pub fn follow(&mut self, series: SeriesId, wanted: bool) {
        if !wanted {
            // Most judges follow nobody, and bind many.
            if self.table.is_empty() {
                return;
            }
            if let Ok(entry) = self.table.find_entry(hash(series), |silence| silence.series == series) {
                entry.remove();
            }
        } else if self.table.find(hash(series), |silence| silence.series == series).is_none() {
            // Due at once: the first look learns the period.
            let silence = Silence { series, heard: false, since: UNKNOWN, due: UNKNOWN };
            self.table.insert_unique(hash(series), silence, |silence| hash(silence.series));
        }
    }

    /// Silence of a series at `now`, when a point came or somebody only looks.
    pub fn look(&mut self, series: SeriesId, is_point: bool, now: i64) -> Option<Silence> {
        let silence = self.table.find_mut(hash(series), |silence| silence.series == series)?;
        // Later than now: a clock that was set back.
        if is_point || silence.since == UNKNOWN || silence.since > now {
            silence.since = self.began.map_or(now, |began| began.max(now));
            silence.heard |= is_point;
        }
        Some(*silence)
    }

    /// Counts every silence from `now`, as after a start: until then nobody could be heard.
    pub fn begin_anew(&mut self, now: i64) {
        self.began = Some(now);
        for silence in &mut self.table {
            *silence = Silence { heard: false, since: now, due: UNKNOWN, ..*silence };
        }
    }

    pub fn set_due(&mut self, series: SeriesId, due: i64) {
        if let Some(silence) = self.table.find_mut(hash(series), |silence| silence.series == series) {
            silence.due = due;
        }
    }

    /// Appends up to `count_max` series that are to be looked at.
    pub fn due(&self, now: i64, count_max: usize, out: &mut Vec<SeriesId>) {
        out.extend(
            self.table.iter().filter(|silence| silence.is_due(now)).take(count_max).map(|silence| silence.series),
        );
    }

    pub fn first_due(&self, now: i64) -> Option<SeriesId> {
        self.table.iter().find(|silence| silence.is_due(now)).map(|silence| silence.series)
    }

    /// The time at which something is to be looked at next. Looks at all silences.
    pub fn next_due(&self) -> Option<i64> {
        self.table.iter().map(|silence| silence.due).min()
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn memory_bytes(&self) -> usize {
        self.table.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARD: Silence = Silence { series: SeriesId(1), heard: true, since: 1000, due: 0 };

    #[test]
    fn points_are_missing_one_period_after_they_were_due() {
        let check = |steps, now, expected: Option<(i64, i64, i64)>| {
            let missing = HEARD.missing(940, 60, steps, now).map(|m| (m.count, m.newest, m.oldest));
            assert_eq!(missing, expected, "{steps} {now}");
        };
        check(1, 1119, None);
        check(1, 1120, Some((1, 1060, 1060)));
        check(3, 1239, None);
        check(3, 1240, Some((3, 1180, 1060)));
        check(3, 1419, Some((3, 1180, 1060)));
        check(3, 1420, Some((6, 1360, 1240)));
        check(3, 0, None);
    }

    #[test]
    fn due_is_when_the_answer_changes() {
        for steps in 1..5 {
            let mut now = HEARD.since;
            for round in 1..6 {
                let due = HEARD.next_due(60, steps, now);
                let count = |now| HEARD.missing(940, 60, steps, now).map_or(0, |m| m.count);
                assert_eq!((count(due - 1), count(due)), (i64::from(steps) * (round - 1), i64::from(steps) * round));
                now = due;
            }
        }
    }

    #[test]
    fn listening_anew_forgets_what_was_counted() {
        let mut silences = Silences::default();
        silences.follow(SeriesId(1), true);
        silences.look(SeriesId(1), true, 1000);
        let missing = |silences: &mut Silences, now| {
            let silence = silences.look(SeriesId(1), false, now).expect("it is followed");
            silence.missing(940, 60, 1, now).map_or(0, |missing| missing.count)
        };
        assert_eq!(missing(&mut silences, 1120), 1);
        silences.begin_anew(1600);
        assert_eq!((missing(&mut silences, 1719), missing(&mut silences, 1720)), (0, 1));
        // A point that was on its way when the clock was set.
        silences.look(SeriesId(1), true, 1001);
        assert_eq!((missing(&mut silences, 1719), missing(&mut silences, 1720)), (0, 1));
        // Set back by an hour: due at once, and silent in time.
        silences.look(SeriesId(1), true, 5200);
        silences.begin_anew(1600);
        silences.look(SeriesId(1), true, 5201);
        assert_eq!(silences.first_due(1605), Some(SeriesId(1)));
        assert_eq!((missing(&mut silences, 1605), missing(&mut silences, 1724)), (0, 0));
        assert_eq!(missing(&mut silences, 1725), 1);
    }

    #[test]
    fn who_was_gone_long_before_the_start_stays_gone() {
        let unheard = Silence { heard: false, since: 100_000, ..HEARD };
        assert_eq!(unheard.missing(100_000 - FORGOTTEN_S, 60, 1, 100_120).map(|m| m.count), Some(1));
        assert_eq!(unheard.missing(99_999 - FORGOTTEN_S, 60, 1, 100_120), None);
    }
}
