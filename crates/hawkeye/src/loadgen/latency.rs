//! Latency: the durations of calls, counted in a fixed number of buckets.
//!
//! How: each doubling has 32 buckets, so a quantile is at most 1/32 too high, whatever the number of calls; the largest
//! duration is kept exactly.
//! Memory: 15 kB.

use std::time::Duration;

/// Buckets per doubling, as a power of two.
const FINE_BITS: u32 = 5;
const FINE: u64 = 1 << FINE_BITS;
const BUCKETS: usize = (64 - FINE_BITS as usize + 1) << FINE_BITS;

/// Latencies of calls in buckets, 32 per doubling.
#[derive(Clone, Debug)]
pub struct Latency {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { buckets: vec![0; BUCKETS], count: 0, max: Duration::ZERO }
    }
}

impl Latency {
    /// Counts a call.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(took);
    }

    /// Adds the calls of another.
    pub fn add(&mut self, other: &Latency) {
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += other;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// Longest latency.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The time within which this share (0 to 1) of the calls was answered; zero when there was none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper(index)).min(self.max);
            }
        }
        Duration::ZERO
    }
}

fn bucket(micros: u64) -> usize {
    if micros < FINE {
        return micros as usize;
    }
    let doubling = 63 - micros.leading_zeros() - FINE_BITS;
    ((u64::from(doubling) << FINE_BITS) + (micros >> doubling)) as usize
}

/// The largest number of microseconds in a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * FINE {
        return index;
    }
    let doubling = (index >> FINE_BITS) - 1;
    let fine = FINE + (index & (FINE - 1));
    (fine << doubling) + ((1 << doubling) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_gapless_and_narrow() {
        let narrow = |micros| {
            let upper = upper(bucket(micros));
            assert!(upper >= micros && upper - micros <= micros / FINE, "{micros} in {upper}");
        };
        for micros in 0..100_000 {
            assert!(bucket(micros + 1) - bucket(micros) <= 1, "gap behind {micros}");
            narrow(micros);
        }
        (17..64).for_each(|bit| narrow(1 << bit));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), Duration::ZERO);
        for micros in 1..=1000 {
            latency.record(Duration::from_micros(micros));
        }
        let close = |share, micros: u64| {
            let got = latency.quantile(share).as_micros() as u64;
            assert!((micros..=micros + micros / FINE).contains(&got), "{got} is not {micros}");
        };
        close(0.5, 500);
        close(0.99, 990);
        assert_eq!(latency.quantile(1.0), Duration::from_micros(1000));
        assert_eq!(latency.max(), Duration::from_micros(1000));
    }
}
