//! Schedule: the times at which a group reports.
//!
//! How: every group reports once in each slot of `interval` seconds of the wall clock, at a phase that comes from the
//! hostname. The receiver aligns times down to the slot, so each slot gets exactly one point, also when the clock is
//! slewed; and the hosts of a fleet do not all come in the same second.
//! Compat: the original's first report comes after one interval; here the first comes at once, so that a new host is
//! seen.
//! Invariants: pure; the clock is an argument.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// The part of a slot, at either end, in which nobody reports: a clock that is stepped by less cannot skip a slot.
const MARGIN: f64 = 0.1;

/// Times of a group's reports: one in each slot of the clock, at the host's own phase.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    interval_ms: i64,
    phase_ms: i64,
}

impl Schedule {
    /// The times of a host that reports every `interval_s` seconds.
    pub fn new(hostname: &str, interval_s: i64) -> Schedule {
        let mut hasher = DefaultHasher::new();
        hostname.hash(&mut hasher);
        let interval_ms = interval_s * 1000;
        let margin_ms = (interval_ms as f64 * MARGIN) as i64;
        let phase_ms = margin_ms + (hasher.finish() % (interval_ms - 2 * margin_ms) as u64) as i64;
        Schedule { interval_ms, phase_ms }
    }

    /// The times of what is first due at `first_ms` (Unix milliseconds) or, away from the border of a slot, up to a
    /// fifth of the interval later; and when that is.
    pub fn from_first(first_ms: i64, interval_s: i64) -> (Schedule, i64) {
        let interval_ms = interval_s * 1000;
        let margin_ms = (interval_ms as f64 * MARGIN) as i64;
        let (slot, phase_ms) = (first_ms.div_euclid(interval_ms), first_ms.rem_euclid(interval_ms));
        let (slot, phase_ms) = match phase_ms <= interval_ms - margin_ms {
            true => (slot, phase_ms.max(margin_ms)),
            false => (slot + 1, margin_ms),
        };
        (Schedule { interval_ms, phase_ms }, slot * interval_ms + phase_ms)
    }

    /// The time to wait for the next report after one at `last_ms` (Unix milliseconds).
    pub fn wait(&self, last_ms: i64, now_ms: i64) -> Duration {
        let slot = last_ms.div_euclid(self.interval_ms);
        let next_ms = (slot + 1) * self.interval_ms + self.phase_ms;
        // A clock that was set back must not silence the host for as long.
        Duration::from_millis((next_ms - now_ms).clamp(0, 2 * self.interval_ms) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_in_each_slot() {
        for hostname in ["a", "b", "c", "d", "e"] {
            let schedule = Schedule::new(hostname, 60);
            let mut last_ms = 1_000_000_000_123;
            for _ in 0..100 {
                // Each report comes a little late.
                let next_ms = last_ms + schedule.wait(last_ms, last_ms + 7).as_millis() as i64 + 7 + 900;
                assert_eq!(next_ms.div_euclid(60_000), last_ms.div_euclid(60_000) + 1, "{hostname}");
                last_ms = next_ms;
            }
        }
    }

    #[test]
    fn hosts_are_spread() {
        let phases: std::collections::BTreeSet<i64> =
            (0..100).map(|i| Schedule::new(&format!("host{i}"), 60).phase_ms / 1000).collect();
        assert!(phases.len() > 30, "{phases:?}");
        assert!(phases.iter().all(|phase| (6..54).contains(phase)), "{phases:?}");
    }

    #[test]
    fn a_late_report_is_followed_at_once_and_a_clock_set_back_by_two_intervals_at_most() {
        let schedule = Schedule::new("a", 60);
        assert_eq!(schedule.wait(1_000_000_000_000, 1_000_000_500_000), Duration::ZERO);
        assert_eq!(schedule.wait(1_000_000_000_000, 900_000_000_000), Duration::from_secs(120));
        assert!(Schedule::new("a", 1).wait(1_000_000_000_000, 1_000_000_000_000) < Duration::from_secs(2));
    }
}
