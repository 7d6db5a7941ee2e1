//! Values: what functions see of a series' points: values of a GAUGE, rates of a COUNTER or DERIVE, newest first.
//!
//! Compat: docs/open-falcon/judge.md §3. `vs[i]` of a counter is `(v_i - v_{i+1}) / (t_i - t_{i+1})`, at the time
//! `t_i`.
//!
//! [`Semantics::OpenFalcon`] takes each value as it is: negative rates after a reset, and points on both sides of a
//! hole as neighbours. [`Semantics::Hawkeye`] marks as unknown (NaN) what is not true:
//! - a negative or overflowing rate: the counter was reset, its true rate is not known; that one value is unknown;
//! - all values behind a hole, i.e. behind neighbours more than two periods apart: `all(#3)` means three periods, and
//!   the periods in the hole are not known. Two periods, because a single lost point shall not silence a rule, and
//!   because the charts (RRD's heartbeat) draw the line there. A counter's rate *over* the hole is the true mean rate,
//!   hence known.
//!
//! A period is the step, or the least distance among the newest points where that is longer: a script that runs every
//! five minutes but says `step 60` is slow, not full of holes, and its rules must not fall silent. The period is taken
//! from the same [`PERIOD_POINTS`] for every rule, whatever its window: so a rule says the same whichever others look
//! at the series, and `diff(#1)`, which has two points, does not take the far side of a hole for its neighbour. A
//! series of only two points cannot tell slow from hole, and the two count as neighbours.
//!
//! Invariants: the time of a value is that of its point, in both semantics; a value is unknown or finite under Hawkeye.

use crate::Semantics;
use model::{CounterType, Point};

/// A hole is a distance of more than this many periods. RRD's heartbeat in the original's graph.
const HOLE_PERIODS: i64 = 2;

/// Points that show the period: three distances, of which one is whole soon after any hole, and a slow series that sent
/// two points close together (its script was restarted) is silent for two points only.
pub(crate) const PERIOD_POINTS: usize = 4;

/// Refills `values` from `points` (newest first), and returns how many of the newest are known without a break.
pub(crate) fn values(
    points: &[Point],
    counter_type: CounterType,
    step: u32,
    semantics: Semantics,
    values: &mut Vec<f64>,
) -> usize {
    values.clear();
    if counter_type.is_gauge() {
        values.extend(points.iter().map(|point| point.value));
    } else {
        values.extend(points.windows(2).map(|pair| rate(pair[0], pair[1])));
    }
    match semantics {
        Semantics::OpenFalcon => values.len(),
        Semantics::Hawkeye => mark_unknown(points, counter_type, step, values),
    }
}

/// Seconds from one point of the series to the next, as far as its newest points show.
pub(crate) fn period_s(points: &[Point], step: u32) -> i64 {
    let newest = &points[..points.len().min(PERIOD_POINTS)];
    let least = newest.windows(2).map(|pair| pair[0].time - pair[1].time).min().unwrap_or(0);
    least.max(i64::from(step))
}

fn rate(newer: Point, older: Point) -> f64 {
    (newer.value - older.value) / (newer.time - older.time) as f64
}

fn mark_unknown(points: &[Point], counter_type: CounterType, step: u32, values: &mut [f64]) -> usize {
    let hole_s = if step == 0 { i64::MAX } else { HOLE_PERIODS * period_s(points, step) };
    let mut known = None;
    let mut behind_hole = false;
    for i in 0..values.len() {
        behind_hole |= i > 0 && points[i - 1].time - points[i].time > hole_s;
        let reset = !counter_type.is_gauge() && values[i] < 0.0;
        if behind_hole || reset || !values[i].is_finite() {
            values[i] = f64::NAN;
            known = known.or(Some(i));
        }
    }
    known.unwrap_or(values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `points` as `time:value`, newest first; unknown values are shown as `?`.
    fn check(points: &str, counter_type: CounterType, semantics: Semantics, expected: &str, expected_known: usize) {
        let parse = |piece: &str| {
            let (time, value) = piece.split_once(':').expect("time:value");
            Point { time: time.parse().expect("time"), value: value.parse().expect("value") }
        };
        let points: Vec<Point> = points.split(' ').map(parse).collect();
        let mut out = vec![1.0];
        let known = values(&points, counter_type, 60, semantics, &mut out);
        let shown: Vec<String> = out.iter().map(|v| if v.is_nan() { "?".into() } else { v.to_string() }).collect();
        assert_eq!((shown.join(" ").as_str(), known), (expected, expected_known), "{points:?}");
    }

    #[test]
    fn gauge() {
        check("180:3 120:2 60:1", CounterType::Gauge, Semantics::Hawkeye, "3 2 1", 3);
        check("180:-3", CounterType::Gauge, Semantics::Hawkeye, "-3", 1);
    }

    #[test]
    fn rates() {
        check("180:1800 120:600 60:0", CounterType::Counter, Semantics::Hawkeye, "20 10", 2);
        check("180:1800", CounterType::Derive, Semantics::Hawkeye, "", 0);
    }

    #[test]
    fn one_lost_point_is_no_hole_two_are() {
        check("240:3 120:2 60:1", CounterType::Gauge, Semantics::Hawkeye, "3 2 1", 3);
        check("241:3 120:2 60:1", CounterType::Gauge, Semantics::Hawkeye, "3 ? ?", 1);
        check("241:3 120:2 60:1", CounterType::Gauge, Semantics::OpenFalcon, "3 2 1", 3);
    }

    #[test]
    fn a_slow_series_has_no_holes() {
        check("900:3 600:2 300:1", CounterType::Gauge, Semantics::Hawkeye, "3 2 1", 3);
        check("900:2 600:1", CounterType::Gauge, Semantics::Hawkeye, "2 1", 2);
        check("1600:3 600:2 300:1", CounterType::Gauge, Semantics::Hawkeye, "3 ? ?", 1);
    }

    #[test]
    fn a_rate_over_a_hole_is_known_those_behind_it_are_not() {
        check("660:1800 60:600 0:0", CounterType::Counter, Semantics::Hawkeye, "2 ?", 1);
        check("660:1800 60:600 0:0", CounterType::Counter, Semantics::OpenFalcon, "2 10", 2);
    }

    #[test]
    fn a_reset_makes_one_rate_unknown() {
        check("240:1200 180:0 120:1200 60:600", CounterType::Counter, Semantics::Hawkeye, "20 ? 10", 1);
        check("240:1200 180:0 120:1200 60:600", CounterType::Counter, Semantics::OpenFalcon, "20 -20 10", 3);
    }

    #[test]
    fn a_rate_that_overflows_is_unknown() {
        check("120:1.7e308 119:-1.7e308", CounterType::Counter, Semantics::Hawkeye, "?", 0);
    }
}
