//! States: what hbs is told of each probe, and when.
//!
//! How: who is down for another reason, or up again, is urgent: hbs is to know before a transfer has the points. The
//! rest (a probe's first state when it is up, another text of the same failure) has time until the next heartbeat.
//! Invariants: pure. Per probe one state, the newest; what was told is told again only after [`States::forget`].
//! Memory: two texts per probe, each of at most 240 characters.

use netprobe::Ran;
use netprobe::delivery::{ASKED_MAX, State};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// States by the probe's id.
#[derive(Debug, Default)]
pub struct States(BTreeMap<i64, Seen>);

#[derive(Debug)]
struct Seen {
    state: State,
    told: Option<State>,
    is_urgent: bool,
}

/// The state that a run has found.
pub fn of_run(id: i64, ran: &Ran) -> State {
    let reason = ran.outcome.reason.as_ref();
    State {
        id,
        up: ran.outcome.up,
        code: reason.map_or_else(String::new, |reason| reason.code.as_str().to_string()),
        reason: reason.map_or_else(String::new, |reason| reason.text.clone()),
        time: ran.time,
    }
}

/// Whether two states are one and the same to who waits for an alarm.
fn is_like(one: &State, other: &State) -> bool {
    one.up == other.up && one.code == other.code
}

impl Seen {
    /// Whether hbs has another state than this. What a script says that is up changes with each run, and tells nothing.
    fn is_untold(&self) -> bool {
        let same = |told: &State| is_like(told, &self.state) && (told.up || told.reason == self.state.reason);
        !self.told.as_ref().is_some_and(same)
    }
}

impl States {
    /// Notes the newest state of a probe.
    pub fn saw(&mut self, state: State) {
        match self.0.entry(state.id) {
            Entry::Vacant(entry) => {
                let is_urgent = !state.up;
                entry.insert(Seen { state, told: None, is_urgent });
            }
            Entry::Occupied(entry) => {
                let seen = entry.into_mut();
                // What was urgent once and could not be told is not urgent again: its points are gone.
                if !is_like(&seen.state, &state) {
                    seen.is_urgent = !seen.told.as_ref().is_some_and(|told| is_like(told, &state));
                }
                seen.state = state;
            }
        }
    }

    /// Urgent states, which are urgent no more.
    pub fn take_urgent(&mut self) -> Vec<State> {
        let urgent = self.0.values_mut().filter(|seen| seen.is_urgent);
        let taken = urgent.map(|seen| {
            seen.is_urgent = false;
            seen.state.clone()
        });
        taken.collect()
    }

    /// States that hbs does not have, as many as one call takes.
    pub fn untold(&self) -> Vec<State> {
        self.0.values().filter(|seen| seen.is_untold()).take(ASKED_MAX).map(|seen| seen.state.clone()).collect()
    }

    /// Notes that hbs has taken these.
    pub fn told(&mut self, states: &[State]) {
        for state in states {
            if let Some(seen) = self.0.get_mut(&state.id) {
                seen.told = Some(state.clone());
            }
        }
    }

    /// Drops what is about other probes.
    pub fn keep(&mut self, is_kept: impl Fn(i64) -> bool) {
        self.0.retain(|id, _| is_kept(*id));
    }

    /// Has everything told anew: hbs was away, and may know nothing.
    pub fn forget(&mut self) {
        self.0.values_mut().for_each(|seen| seen.told = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: i64, code: &str, reason: &str, time: i64) -> State {
        State { id, up: code.is_empty() || code == "script_ok", code: code.into(), reason: reason.into(), time }
    }

    fn ids(states: Vec<State>) -> Vec<i64> {
        states.into_iter().map(|state| state.id).collect()
    }

    #[test]
    fn who_goes_down_or_comes_back_is_urgent() {
        let mut states = States::default();
        let mut check = |code: &str, reason: &str, time: i64, is_urgent: bool, is_untold: bool| {
            states.saw(state(1, code, reason, time));
            let urgent = states.take_urgent();
            assert_eq!(!urgent.is_empty(), is_urgent, "{code} {reason}");
            states.told(&urgent);
            let untold = states.untold();
            assert_eq!(!untold.is_empty(), is_untold, "{code} {reason}");
            states.told(&untold);
        };
        check("", "", 0, false, true);
        check("", "", 60, false, false);
        check("refused", "a", 120, true, false);
        check("refused", "a", 180, false, false);
        check("refused", "b", 240, false, true);
        check("timeout", "c", 300, true, false);
        check("script_ok", "12 files", 360, true, false);
        check("script_ok", "13 files", 420, false, false);
    }

    #[test]
    fn the_first_state_is_urgent_when_it_is_down() {
        let mut states = States::default();
        states.saw(state(1, "refused", "a", 0));
        states.saw(state(2, "", "", 0));
        assert_eq!(ids(states.take_urgent()), [1]);
        assert!(states.take_urgent().is_empty());
        assert_eq!(ids(states.untold()), [1, 2]);
    }

    #[test]
    fn what_could_not_be_told_waits_for_the_heartbeat_as_the_newest() {
        let mut states = States::default();
        for (time, is_urgent) in [(0, true), (60, false), (120, false)] {
            states.saw(state(1, "refused", "a", time));
            assert_eq!(!states.take_urgent().is_empty(), is_urgent, "{time}");
        }
        assert_eq!(states.untold(), [state(1, "refused", "a", 120)]);
        states.saw(state(1, "timeout", "b", 180));
        assert_eq!(states.take_urgent(), [state(1, "timeout", "b", 180)]);
        assert_eq!(states.untold(), [state(1, "timeout", "b", 180)]);
    }

    #[test]
    fn who_is_as_hbs_believes_needs_no_word() {
        let mut states = States::default();
        states.saw(state(1, "", "", 0));
        states.told(&[state(1, "", "", 0)]);
        states.saw(state(1, "refused", "a", 60));
        states.saw(state(1, "", "", 120));
        assert!(states.take_urgent().is_empty() && states.untold().is_empty());
    }

    #[test]
    fn everything_is_told_anew_and_nothing_of_others() {
        let mut states = States::default();
        (0..250).for_each(|id| states.saw(state(id, "", "", 0)));
        for expected in [100, 100, 50, 0] {
            let untold = states.untold();
            assert_eq!(untold.len(), expected);
            states.told(&untold);
        }
        states.forget();
        states.keep(|id| id < 7);
        assert_eq!(states.untold().len(), 7);
    }
}
