//! Pace: how fast what has waited on the disk is sent.
//!
//! Why: a transfer that comes back has a whole fleet in front of it, each host with hours of points; sent as fast as
//! the line takes them they would keep out the points of now, and fill the transfer's memory.
//! How: a batch, then a pause: [`REPLAY_PAUSE`], or [`REST_PER_CALL`] times what the call took where that is longer, so
//! a transfer that slows down is asked less. What comes in meanwhile may go out twice over without a pause, so that a
//! buffer empties also where a host makes more points than the pace lets out.
//! Invariants: the clock is an argument.

use crate::batch::BATCH_BYTES_MAX;
use std::time::Duration;

/// The pause behind a batch of 64 KiB, some 400 points: an hour of 200 series has gone in half a minute, a full buffer
/// of 64 MiB in 17, and a thousand hosts that come back at once send 400,000 points a second, a third of what a server
/// on two cores takes (docs/benchmarks.md).
pub const REPLAY_PAUSE: Duration = Duration::from_secs(1);
/// Pauses are so many times longer than the calls before them: a host keeps a slow transfer busy a tenth of the time.
const REST_PER_CALL: u32 = 9;

/// Pauses between batches that have waited on the disk.
pub struct Pace {
    pause: Duration,
    /// Bytes that had come in at the last batch.
    came: u64,
    /// Bytes that may go without a pause.
    credit: u64,
}

impl Pace {
    /// A pace with this pause; `came` are the bytes that have come in so far.
    pub fn new(pause: Duration, came: u64) -> Pace {
        Pace { pause, came, credit: 0 }
    }

    /// The pause behind a batch of so many bytes, whose call took `took`; `came` are all bytes that ever came in.
    pub fn after(&mut self, bytes: usize, came: u64, took: Duration) -> Duration {
        let fresh = came.saturating_sub(self.came).saturating_mul(2);
        self.came = came;
        self.credit = self.credit.saturating_add(fresh).min(2 * BATCH_BYTES_MAX as u64);
        match self.credit.checked_sub(bytes as u64) {
            Some(credit) => {
                self.credit = credit;
                Duration::ZERO
            }
            None => self.pause.max(took * REST_PER_CALL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(5);

    #[test]
    fn pauses_behind_each_batch_and_longer_behind_a_slow_one() {
        let mut pace = Pace::new(REPLAY_PAUSE, 7);
        assert_eq!(pace.after(60_000, 7, FAST), REPLAY_PAUSE);
        assert_eq!(pace.after(60_000, 7, Duration::from_secs(2)), Duration::from_secs(18));
    }

    #[test]
    fn what_comes_in_goes_out_twice_over_without_a_pause() {
        let mut pace = Pace::new(REPLAY_PAUSE, 0);
        let pauses = (1..=100).filter(|batch| pace.after(60_000, batch * 45_000, FAST) > Duration::ZERO).count();
        assert!(pauses <= 1, "{pauses}: the buffer empties though it fills nearly as fast");
        let mut pace = Pace::new(REPLAY_PAUSE, 0);
        let pauses = (1..=100).filter(|batch| pace.after(60_000, batch * 3_000, FAST) > Duration::ZERO).count();
        assert_eq!(pauses, 90);
    }

    #[test]
    fn no_more_than_two_batches_are_owed() {
        let mut pace = Pace::new(REPLAY_PAUSE, 0);
        let came = 1 << 40;
        let free = (0..1000).take_while(|_| pace.after(60_000, came, FAST).is_zero()).count();
        assert_eq!(free, 2 * BATCH_BYTES_MAX / 60_000);
    }
}
