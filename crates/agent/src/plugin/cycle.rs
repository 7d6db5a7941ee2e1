//! Cycle: when a plugin runs, and which slot its points belong to.
//!
//! Why: a receiver aligns times down to the step. A plugin that runs close before the border of a minute, now a little
//! sooner and now a little later, or that takes now a little less and now a little more time, gives one minute two
//! points and the next none, which looks as if the plugin had not run.
//! How: the first run is one whole cycle after the plugin was bound, moved away from the border of a slot by up to a
//! fifth of the cycle, and later by a pause of the plugin's own ([`SPREAD_MAX_MS`]), so that plugins which were bound
//! together do not start together. Each later run is in the next slot at the same phase, so runs keep a tenth of a
//! cycle from the borders. A point whose time lies within its run, and in a later slot than the run's begin, gets the
//! time of the begin. All other times are as the plugin gives them: older ones (the hour that was evaluated), later
//! ones, those in the slot, and all points whose step is less than the cycle (a plugin that takes samples while it
//! runs).
//! Invariants: pure; the clock is an argument.
//! Compat: the original's first run is after one whole cycle, too, and all plugins that were bound together start in
//! the same second; times are sent as given, and a point without one gets the time at which transfer receives it.

use crate::schedule::Schedule;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The longest pause of a plugin's own, at most a tenth of its cycle. A guess: enough for some ten plugins of a host.
const SPREAD_MAX_MS: i64 = 10_000;

/// The runs of a plugin that is bound at `now_ms`: their times, and the time of a run that would have been the last.
pub fn runs(key: &str, cycle_s: i64, now_ms: i64) -> (Schedule, i64) {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let cycle_ms = cycle_s * 1000;
    let pause_ms = (hasher.finish() % (cycle_ms / 10).clamp(1, SPREAD_MAX_MS) as u64) as i64;
    let (schedule, first_ms) = Schedule::from_first(now_ms + cycle_ms + pause_ms, cycle_s);
    (schedule, first_ms - cycle_ms)
}

/// A run that is over.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Unix seconds.
    pub begin: i64,
    /// Unix seconds.
    pub end: i64,
    pub cycle_s: i64,
}

impl Span {
    /// The time of a point of this run (Unix seconds); `timestamp` is what the plugin says, 0 for nothing.
    pub fn time_of(self, timestamp: i64, step: u32) -> i64 {
        let step = i64::from(step);
        let is_now = (self.begin..=self.end).contains(&timestamp);
        let is_later_slot = timestamp.div_euclid(step) != self.begin.div_euclid(step);
        match timestamp {
            0 => self.begin,
            _ if step >= self.cycle_s && is_now && is_later_slot => self.begin,
            _ => timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn the_first_run_is_a_whole_cycle_later_and_each_slot_has_one() {
        for (cycle_s, offset_ms) in [(1, 999), (5, 4_999), (60, 0), (60, 59_990), (60, 30_000), (3600, 3_599_000)] {
            let cycle_ms = cycle_s * 1000;
            let now_ms = 1_699_999_200_000 + offset_ms;
            let (schedule, mut last_ms) = runs("sys/60_a.sh", cycle_s, now_ms);
            let first_ms = now_ms + schedule.wait(last_ms, now_ms).as_millis() as i64;
            let after = first_ms - now_ms;
            assert!((cycle_ms..=cycle_ms * 13 / 10).contains(&after), "{cycle_s} {offset_ms}: {after}");
            let mut slots = Vec::new();
            for late_ms in [0, 3, cycle_ms / 20, 0, 1, 7] {
                let run_ms = last_ms + schedule.wait(last_ms, last_ms).as_millis() as i64 + late_ms;
                slots.push(run_ms.div_euclid(cycle_ms));
                last_ms = run_ms;
            }
            assert!(slots.windows(2).all(|pair| pair[1] == pair[0] + 1), "{cycle_s} {offset_ms}: {slots:?}");
        }
    }

    #[test]
    fn plugins_that_were_bound_together_are_spread() {
        let now_ms = 1_700_000_000_000;
        let waits: std::collections::BTreeSet<u128> = (0..20)
            .map(|number| {
                let (schedule, last_ms) = runs(&format!("sys/60_{number}.sh"), 60, now_ms);
                schedule.wait(last_ms, now_ms).as_millis()
            })
            .collect();
        assert!(waits.len() > 15, "{waits:?}");
    }

    #[test]
    fn points_keep_the_slot_of_their_run() {
        // Begun five seconds before a minute's border, and over ten seconds behind it.
        let border = 1_700_000_040;
        assert_eq!(border * 1000 % MINUTE, 0);
        let span = Span { begin: border - 5, end: border + 10, cycle_s: 60 };
        let check = |timestamp: i64, step: u32, expected: i64| {
            assert_eq!(span.time_of(timestamp, step), expected, "{} step {step}", timestamp - border);
        };
        check(0, 60, border - 5);
        check(border - 5, 60, border - 5);
        check(border - 1, 60, border - 1);
        check(border, 60, border - 5);
        check(border + 10, 60, border - 5);
        // As given: an aligned one of the slot, older and later ones, and samples that are taken more often.
        check(border - 60, 60, border - 60);
        check(border - 3600, 60, border - 3600);
        check(border + 11, 60, border + 11);
        check(border + 3, 5, border + 3);
        // A step of several cycles, whose border is not crossed.
        check(border + 3, 300, border + 3);
        // A clock that was set back while the plugin ran.
        assert_eq!(Span { begin: border, end: border - 100, cycle_s: 60 }.time_of(border - 90, 60), border - 90);
    }
}
