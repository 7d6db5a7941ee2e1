//! Aging: from which age on a delivery is given up, and when that age is believed.
//!
//! Why: the age of a delivery is told by the wall clock, over restarts. One that was behind when the delivery was made,
//! or that jumps ahead, makes what waits for seconds look days old.
//! How: each look compares the wall clock with the steady one. A start, and a step of the wall clock, begin a trial;
//! while it lasts nothing is given up for its age, and all that waits is tried.
//! Invariants: what is given up for its age has waited `give_up_after`, or was there during a whole trial, which is an
//! hour (or `give_up_after`, if that is shorter) that this process has run. Behind a start it is given up at most a
//! trial later than its age says. Whoever starts more often than a trial lasts gives nothing up for its age;
//! `alarm.deliveries_max` bounds that. Decided by arguments only, but for [`Aging::look`].

use crate::clock;
use crate::engine::age::Believed;
use std::time::{Duration, Instant};

/// The longest trial: a target that cannot be reached is asked once a minute, and somebody may set the clock right.
const TRIAL: Duration = Duration::from_secs(3600);

/// Difference between the clocks' steps from look to look that a busy machine explains; more is a step of the clock.
const STEP_S: i64 = 60;

/// The age at which deliveries are given up, in one process.
pub struct Aging {
    give_up_after: i64,
    believed: Believed,
    started: Instant,
    /// The wall clock (Unix seconds) and the steady one at the last look.
    last: Option<(i64, Duration)>,
    /// The steady clock when the trial began.
    since: Duration,
    cutoff: Option<i64>,
}

impl Aging {
    /// Begins a trial; `give_up_after` is in seconds.
    pub fn new(give_up_after: i64) -> Aging {
        let (believed, started) = (Believed::default(), Instant::now());
        Aging { give_up_after, believed, started, last: None, since: Duration::ZERO, cutoff: None }
    }

    /// Has deliveries grow old by this time.
    pub fn believe(&mut self, believed: Believed) {
        self.believed = believed;
    }

    /// Unix seconds by which deliveries grow old.
    pub fn believed_now(&self) -> i64 {
        self.believed.now()
    }

    /// Looks at the clocks.
    pub fn look(&mut self) {
        self.look_at(clock::now(), self.started.elapsed(), self.believed_now());
    }

    /// Looks at the wall clock, the steady one since the start, and the time that is believed.
    pub fn look_at(&mut self, wall: i64, steady: Duration, believed: i64) {
        if let Some((wall_before, steady_before)) = self.last.replace((wall, steady)) {
            let passed = seconds(steady.saturating_sub(steady_before));
            if wall.saturating_sub(wall_before).saturating_sub(passed).saturating_abs() > STEP_S {
                self.since = steady;
            }
        }
        let is_over = steady.saturating_sub(self.since) >= self.trial();
        self.cutoff = is_over.then(|| believed.saturating_sub(self.give_up_after));
    }

    /// The time (Unix seconds) up to which deliveries were made that are too old; none during a trial.
    pub fn cutoff(&self) -> Option<i64> {
        self.cutoff
    }

    fn trial(&self) -> Duration {
        TRIAL.min(Duration::from_secs(self.give_up_after.max(0).unsigned_abs()))
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;
    const DAY: i64 = 86_400;
    const HOUR: u64 = 3600;

    /// A process that looks each minute, its wall clock at `NOW` + `offset` + the time that it runs.
    struct Run {
        aging: Aging,
        ran: u64,
    }

    impl Run {
        fn new(give_up_after: i64) -> Run {
            Run { aging: Aging::new(give_up_after), ran: 0 }
        }

        /// Looks until `ran`; says whether what was made at `created_at` is given up at the last look, and at none
        /// before.
        fn gives_up(&mut self, ran: u64, offset: i64, created_at: i64) -> bool {
            let mut is_given_up = false;
            while self.ran < ran {
                assert!(!is_given_up, "before {ran}");
                self.ran += 60;
                let wall = NOW + offset + self.ran as i64;
                self.aging.look_at(wall, Duration::from_secs(self.ran), wall);
                is_given_up = self.aging.cutoff().is_some_and(|cutoff| created_at <= cutoff);
            }
            is_given_up
        }
    }

    #[test]
    fn what_waits_for_a_day_is_given_up_over_restarts_too() {
        assert!(Run::new(DAY).gives_up(24 * HOUR, 0, NOW));
        // Restarts in the first 20 hours change nothing, one in the last hour makes it up to an hour later.
        assert!(Run::new(DAY).gives_up(4 * HOUR, 0, NOW - 20 * HOUR as i64));
        assert!(Run::new(DAY).gives_up(HOUR, 0, NOW - DAY));
        assert!(Run::new(DAY).gives_up(HOUR, 0, NOW - 9 * DAY));
    }

    #[test]
    fn a_short_time_is_a_short_trial() {
        assert!(Run::new(600).gives_up(600, 0, NOW - DAY));
        let mut aging = Aging::new(0);
        aging.look_at(NOW, Duration::ZERO, NOW);
        assert_eq!(aging.cutoff(), Some(NOW));
    }

    /// The delivery was made in the run before, two days behind; or the clock is put right while this one runs.
    #[test]
    fn a_clock_that_was_behind_gives_up_nothing_that_was_not_tried() {
        assert!(!Run::new(DAY).gives_up(HOUR - 60, 0, NOW - 2 * DAY));
        let mut run = Run::new(DAY);
        assert!(!run.gives_up(5 * HOUR, -2 * DAY, NOW - 2 * DAY));
        assert!(run.gives_up(6 * HOUR + 60, 0, NOW - 2 * DAY));
    }

    #[test]
    fn a_clock_that_jumps_ahead_gives_up_nothing_when_it_is_set_right_in_time() {
        let mut run = Run::new(DAY);
        assert!(!run.gives_up(5 * HOUR, 0, NOW));
        assert!(!run.gives_up(6 * HOUR, DAY, NOW));
        assert!(run.gives_up(24 * HOUR, 0, NOW));
        // A second of slewing each minute is no step.
        let mut aging = Aging::new(DAY);
        for minute in 0..=60 {
            aging.look_at(NOW + 61 * minute, Duration::from_secs(60 * minute.unsigned_abs()), NOW);
        }
        assert_eq!(aging.cutoff(), Some(NOW - DAY));
    }
}
