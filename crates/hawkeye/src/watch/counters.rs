//! Counters: figures under the names that Open-Falcon's monitors read (`/counter/all`, `/statistics/all`).
//!
//! How: a count has its rate per second since the figures were read before, as in the original: two readers disturb
//! each other's. A gauge has none.
//! Memory: the last reading of each count of one page.

use crate::clock;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};

/// A figure and its name.
#[derive(Clone, Copy, Debug)]
pub enum Figure {
    Count(&'static str, u64),
    Gauge(&'static str, u64),
}

/// The figures of one page, each time the same ones in the same order.
#[derive(Default)]
pub struct Counters {
    previous: Mutex<Vec<Reading>>,
}

/// A count when it was last read.
#[derive(Clone, Copy, Default)]
struct Reading {
    time: i64,
    count: u64,
    per_s: u64,
}

impl Counters {
    /// The figures as the original shows them, read at `now`.
    pub fn read(&self, figures: &[Figure], now: i64) -> Vec<Value> {
        let time = clock::local_text(now);
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        previous.resize(figures.len(), Reading::default());
        let shown = figures.iter().zip(previous.iter_mut()).map(|(figure, reading)| match figure {
            Figure::Count(name, count) => {
                reading.next(now, *count);
                json!({"Name": name, "Cnt": count, "Qps": reading.per_s, "Time": time, "Other": {}})
            }
            Figure::Gauge(name, count) => json!({"Name": name, "Cnt": count, "Time": time, "Other": {}}),
        });
        shown.collect()
    }
}

impl Reading {
    fn next(&mut self, now: i64, count: u64) {
        if self.time == 0 {
            *self = Reading { time: now, count, per_s: 0 };
        } else if now > self.time + 1 {
            let per_s = count.saturating_sub(self.count) / (now - self.time) as u64;
            *self = Reading { time: now, count, per_s };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_from_the_last_reading() {
        let counters = Counters::default();
        let read = |now: i64, count: u64| {
            let shown = counters.read(&[Figure::Gauge("g", 7), Figure::Count("c", count)], now);
            assert_eq!((&shown[0]["Cnt"], shown[0].get("Qps")), (&json!(7), None));
            assert_eq!((&shown[1]["Name"], &shown[1]["Cnt"]), (&json!("c"), &json!(count)));
            shown[1]["Qps"].as_u64()
        };
        assert_eq!(read(100, 50), Some(0), "nothing is known before it");
        assert_eq!(read(101, 90), Some(0), "too soon");
        assert_eq!(read(110, 150), Some(10));
        assert_eq!(read(111, 900), Some(10));
        assert_eq!(read(120, 100), Some(0));
    }
}
