//! `cargo bench -p judge --bench rehearsal`: seconds for 1,000 series × 7 days at 60 s, without reading them.
//!
//! Each function alone, and conditions of several. Values go up and down over a day with noise, so that windows change;
//! the thresholds make an alarm or two a day, as a rule that is worth saving does.

use judge::{History, Options, Rehearsal, Schedule};
use model::{CounterType, Point, Rules, SeriesKey, Strategy, Tags};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

const SERIES: usize = 1000;
const POINTS: i64 = 7 * 1440;
const BASE: i64 = 1_600_002_000;
const UNTIL: i64 = BASE + POINTS * 60;

fn main() {
    println!("{SERIES} series of {POINTS} points each, on one core");
    for func in ["all(#3) > 95", "avg(#10) > 90", "stddev(#10)", "all(#3) > 95 recover 80", "nodata(#3)"] {
        report(func, 1);
    }
    report("all(#3) > 95 and all(#3) of n > 90", 2);
}

/// Plays hosts with `joined` series each, so that there are [`SERIES`] in all.
fn report(func: &str, joined: usize) {
    let (metric, operator, right_value) = ("m".to_string(), ">".to_string(), 3.0);
    let (func_text, id, max_step) = (func.to_string(), 1, 3);
    let strategy =
        Arc::new(Strategy { id, metric, func: func_text, operator, right_value, max_step, ..Strategy::default() });
    let hosts = HashMap::from([("h".to_string(), [strategy].into())]);
    let (rehearsal, refused) = Rehearsal::new(Rules { version: 0, hosts, expressions: Vec::new() }, Options::default());
    assert!(refused.is_empty(), "{refused:?}");
    let histories: Vec<Vec<Point>> = (0..joined).map(|seed| points(seed as u64)).collect();
    let series: Vec<History<'_>> =
        ["m", "n"].iter().zip(&histories).map(|(metric, points)| history(metric, points)).collect();
    let always = BASE..UNTIL;
    let schedule = Schedule { hours: std::slice::from_ref(&always), until: UNTIL, closed: "" };
    let (mut events, mut judged) = (0, 0);
    let started = Instant::now();
    for _ in 0..SERIES / joined {
        let played = rehearsal.play(&series, schedule, &mut |_| {
            events += 1;
            ControlFlow::Continue(())
        });
        if let ControlFlow::Continue(points) = played {
            judged += points;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let each_ns = seconds * 1e9 / judged as f64;
    println!("{seconds:6.2} s  {each_ns:6.1} ns per point  {events:6} events   {func}");
}

fn history<'a>(metric: &'a str, points: &'a [Point]) -> History<'a> {
    let key = SeriesKey { endpoint: "h", metric, tags: Tags::EMPTY };
    History { key, counter_type: CounterType::Gauge, step: 60, before: &[], points }
}

fn points(seed: u64) -> Vec<Point> {
    let mut state = seed + 1;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let value = |i: i64, noise: f64| 60.0 + 38.0 * (i as f64 * std::f64::consts::TAU / 1440.0).sin() + noise;
    (0..POINTS).map(|i| Point { time: BASE + i * 60, value: value(i, noise()) }).collect()
}
