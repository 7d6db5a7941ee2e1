//! State: the open PROBLEMs, and the machine that decides when an event is sent.
//!
//! Why: the original keeps the last event of every alarm for ever. A last event that says OK means the same as none, so
//! only an open PROBLEM has a record here, and it goes with the recovery.
//! Compat: docs/open-falcon/judge.md §6. An alarm is a rule (kind and id, not content) and a series; so a changed
//! threshold keeps its state, and two variants of one strategy (from two templates) share it.
//! Memory: 32 bytes per open PROBLEM and a table slot; bounded by the bound pairs of series and rule, and under
//! `Semantics::OpenFalcon`, which keeps the state of rules that are gone, by `ORPHANS_MAX` more.

use hashbrown::HashTable;
use model::{EventRule, SeriesId, Status};

/// The name of a rule over reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleId {
    Strategy(i64),
    Expression(i64),
}

impl RuleId {
    pub fn of(rule: &EventRule) -> RuleId {
        match rule {
            EventRule::Strategy(strategy) => RuleId::Strategy(strategy.id),
            EventRule::Expression(expression) => RuleId::Expression(expression.id),
        }
    }
}

impl std::fmt::Display for RuleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RuleId::Strategy(id) => write!(f, "strategy {id}"),
            RuleId::Expression(id) => write!(f, "expression {id}"),
        }
    }
}

/// An open PROBLEM: the state of an alarm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenProblem {
    pub rule: RuleId,
    /// Time of the point of the last PROBLEM sent.
    pub time: i64,
    pub series: SeriesId,
    pub current_step: i32,
}

const _: () = assert!(size_of::<OpenProblem>() == 32);

impl OpenProblem {
    /// The PROBLEM as what comes is held against it: one whose time is later than `latest` was told by a clock that was
    /// wrong, and is older than anything that comes.
    pub(crate) fn seen(self, latest: i64) -> OpenProblem {
        if self.time > latest { OpenProblem { time: i64::MIN, ..self } } else { self }
    }
}

/// The transition of an alarm that follows from judging its rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Transition {
    Nothing,
    Problem { current_step: i32 },
    Recovery,
}

/// A first PROBLEM is made up for after a restart only if its point is at most this old: an older series is silent
/// rather than alarming, and its rule may be younger than its points. A guess: longer than any restart, shorter than a
/// day.
const CATCH_UP_AGE_MAX_S: i64 = 3600;

impl Transition {
    /// Status and step of the event that is sent, if one is.
    pub fn event(self) -> Option<(Status, i32)> {
        match self {
            Transition::Nothing => None,
            Transition::Problem { current_step } => Some((Status::Problem, current_step)),
            Transition::Recovery => Some((Status::Ok, 1)),
        }
    }
}

/// Whether a transition that follows from the newest point of a series is made up for after a restart. An alarm that is
/// younger than that point was raised by points that are lost: the older ones say nothing of its end.
pub(crate) fn is_due_after_restart(next: Transition, last: Option<&OpenProblem>, newest: i64, now: i64) -> bool {
    match next {
        Transition::Nothing => false,
        Transition::Problem { current_step } => current_step == 1 && now.saturating_sub(newest) <= CATCH_UP_AGE_MAX_S,
        Transition::Recovery => last.is_none_or(|last| newest >= last.time),
    }
}

/// The times and limits that the decision needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Time of the oldest point that the function used.
    pub oldest: i64,
    pub now: i64,
    pub max_step: i32,
    pub min_interval_s: i64,
}

/// Decides what is sent when the rule holds (or not) and `last` is its open PROBLEM, if any.
pub(crate) fn next(last: Option<&OpenProblem>, holds: bool, moment: Moment) -> Transition {
    match (last, holds) {
        (None, false) => Transition::Nothing,
        (Some(_), false) => Transition::Recovery,
        (None, true) if moment.max_step == 0 => Transition::Nothing,
        (None, true) => Transition::Problem { current_step: 1 },
        (Some(last), true) => {
            let exhausted = last.current_step >= moment.max_step;
            // A point that has alarmed is not used again.
            let reused = moment.oldest <= last.time;
            let too_soon = moment.now.saturating_sub(last.time) < moment.min_interval_s;
            if exhausted || reused || too_soon {
                Transition::Nothing
            } else {
                Transition::Problem { current_step: last.current_step + 1 }
            }
        }
    }
}

/// The open PROBLEMs of one shard, found by series.
#[derive(Default)]
pub(crate) struct States {
    table: HashTable<OpenProblem>,
}

impl States {
    pub fn find(&self, series: SeriesId, rule: RuleId) -> Option<&OpenProblem> {
        self.table.find(hash(series), |state| state.series == series && state.rule == rule)
    }

    pub fn any_of(&self, series: SeriesId) -> bool {
        self.table.find(hash(series), |state| state.series == series).is_some()
    }

    pub fn set(&mut self, state: OpenProblem) {
        let same = |other: &OpenProblem| other.series == state.series && other.rule == state.rule;
        match self.table.entry(hash(state.series), same, |other| hash(other.series)) {
            hashbrown::hash_table::Entry::Occupied(mut entry) => *entry.get_mut() = state,
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert(state);
            }
        }
    }

    pub fn remove(&mut self, series: SeriesId, rule: RuleId) {
        if let Ok(entry) = self.table.find_entry(hash(series), |state| state.series == series && state.rule == rule) {
            entry.remove();
        }
    }

    /// Removes a state and returns it.
    pub fn take(&mut self, series: SeriesId, rule: RuleId) -> Option<OpenProblem> {
        let same = |state: &OpenProblem| state.series == series && state.rule == rule;
        self.table.find_entry(hash(series), same).ok().map(|entry| entry.remove().0)
    }

    /// Moves the states of `series` whose rule `goes` to `dropped`.
    pub fn drop_of(&mut self, series: SeriesId, goes: impl Fn(RuleId) -> bool, dropped: &mut Vec<OpenProblem>) {
        while let Ok(entry) = self.table.find_entry(hash(series), |state| state.series == series && goes(state.rule)) {
            dropped.push(entry.remove().0);
        }
    }

    /// Moves the states that `stays` refuses to `dropped`.
    pub fn retain(&mut self, mut stays: impl FnMut(&OpenProblem) -> bool, dropped: &mut Vec<OpenProblem>) {
        dropped.extend(self.table.extract_if(|state| !stays(state)));
    }

    pub fn iter(&self) -> impl Iterator<Item = &OpenProblem> {
        self.table.iter()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn memory_bytes(&self) -> usize {
        self.table.allocation_size()
    }
}

/// Hashes a series id. Dense numbers are spread over a table even where a shard has only every 2^k-th of them: the low
/// bits of a product depend on low bits only, so the high half is folded in.
pub(crate) fn hash(series: SeriesId) -> u64 {
    // 2^64 divided by the golden ratio, the usual multiplier of Fibonacci hashing.
    let product = u64::from(series.0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIES: SeriesId = SeriesId(7);

    fn open(current_step: i32, time: i64) -> OpenProblem {
        OpenProblem { rule: RuleId::Strategy(1), time, series: SERIES, current_step }
    }

    /// Rule with `max_step` 3, judged at `now`, where the oldest point used has the time `oldest`.
    fn check(last: Option<OpenProblem>, holds: bool, oldest: i64, now: i64, expected: Transition) {
        let moment = Moment { oldest, now, max_step: 3, min_interval_s: 300 };
        assert_eq!(next(last.as_ref(), holds, moment), expected, "{last:?} {holds} {oldest} {now}");
    }

    #[test]
    fn transitions() {
        check(None, false, 0, 0, Transition::Nothing);
        check(None, true, 0, 0, Transition::Problem { current_step: 1 });
        check(Some(open(1, 60)), false, 120, 120, Transition::Recovery);
        check(Some(open(1, 60)), true, 120, 360, Transition::Problem { current_step: 2 });
    }

    #[test]
    fn repeats_are_limited() {
        check(Some(open(3, 60)), true, 120, 9999, Transition::Nothing);
        check(Some(open(1, 60)), true, 60, 9999, Transition::Nothing);
        check(Some(open(1, 60)), true, 61, 359, Transition::Nothing);
        check(Some(open(1, 60)), true, 61, 360, Transition::Problem { current_step: 2 });
    }

    #[test]
    fn a_problem_from_a_clock_that_was_ahead_silences_nobody() {
        let (now, ahead) = (1000, open(1, 22_600));
        check(Some(ahead), true, 1000, now, Transition::Nothing);
        check(Some(ahead.seen(now + 300)), true, 1000, now, Transition::Problem { current_step: 2 });
        check(Some(ahead.seen(now + 300)), false, 1000, now, Transition::Recovery);
        assert_eq!(open(1, 1300).seen(now + 300), open(1, 1300));
    }

    #[test]
    fn max_step_zero_sends_nothing_but_still_recovers() {
        let moment = Moment { oldest: 0, now: 0, max_step: 0, min_interval_s: 0 };
        assert_eq!(next(None, true, moment), Transition::Nothing);
        assert_eq!(next(Some(&open(1, 60)), false, moment), Transition::Recovery);
    }

    #[test]
    fn states_of_a_series_are_told_apart_by_rule() {
        let mut states = States::default();
        for id in 0..5 {
            states.set(OpenProblem { rule: RuleId::Strategy(id), ..open(1, 60) });
            states.set(OpenProblem { rule: RuleId::Expression(id), ..open(1, 60) });
        }
        states.set(OpenProblem { rule: RuleId::Strategy(2), ..open(2, 120) });
        states.set(OpenProblem { series: SeriesId(8), ..open(1, 60) });
        assert_eq!(states.len(), 11);
        assert_eq!(states.find(SERIES, RuleId::Strategy(2)).map(|s| s.current_step), Some(2));
        let mut dropped = Vec::new();
        states.drop_of(SERIES, |rule| rule != RuleId::Expression(3), &mut dropped);
        assert_eq!(dropped.len(), 9);
        assert_eq!(states.len(), 2);
        states.remove(SERIES, RuleId::Expression(3));
        assert_eq!(states.iter().map(|s| s.series).collect::<Vec<_>>(), [SeriesId(8)]);
    }

    #[test]
    fn strided_ids_spread() {
        let mut low_bits = [0u32; 64];
        for i in 0..6400u32 {
            low_bits[(hash(SeriesId(i * 64)) % 64) as usize] += 1;
        }
        // 100 each on average; without the fold all of them would fall into one.
        assert!(low_bits.iter().all(|count| *count < 200), "{low_bits:?}");
    }
}
