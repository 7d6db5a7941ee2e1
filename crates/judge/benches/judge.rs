//! `cargo bench -p judge`: nanoseconds per point and bytes per bound pair. A plain program, no harness.
//!
//! All series have the same few points, which are copied from an array: what is measured is the judge and its own
//! memory, not the store's chunks.

use judge::{Judge, Options, PointSource, RuleSet, SEATS_MAX};
use model::{CounterType, Event, Point, Rules, Sample, SeriesId, SeriesKey, Strategy, Tags};
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

const SERIES: u32 = 100_000;
const KEPT: usize = 32;
const SLICE: u32 = 5_000;
const ROUNDS: u32 = 30;
const NEWEST: i64 = 1_600_000_020;

struct Points([Point; KEPT]);

impl PointSource for Points {
    #[inline]
    fn tail(&self, _: SeriesId, count: usize, out: &mut Vec<Point>) {
        out.extend_from_slice(&self.0[..count.min(KEPT)]);
    }

    fn meta(&self, _: SeriesId) -> Option<(CounterType, u32)> {
        Some((CounterType::Gauge, 60))
    }

    fn key(&self, _: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        use_key(SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY });
    }
}

fn main() {
    let points = points();
    println!(
        "{SERIES} series, window of {KEPT} points in an array, each {SLICE} series at their best of {ROUNDS} rounds"
    );
    report("unbound, asked by is_bound", unbound());
    for func in [
        "all(#1)",
        "all(#3)",
        "all(#10)",
        "max(#10)",
        "avg(#10)",
        "diff(#10)",
        "lookup(#3,10)",
        "stddev(#10)",
        "kdiff(#3,7)",
    ] {
        report(&format!("bound by one {func}, GAUGE"), bound(&points, &[func], CounterType::Gauge));
    }
    let both = "all(#3) and max(#5) > 1000000000000 recover 5";
    report("bound by one condition of two functions, GAUGE", bound(&points, &[both], CounterType::Gauge));
    report("bound by one nodata(#3), GAUGE", bound(&points, &["nodata(#3)"], CounterType::Gauge));
    report("bound by one all(#3), COUNTER", bound(&points, &["all(#3)"], CounterType::Counter));
    report(
        "bound by three (all(#3), max(#5), avg(#10))",
        bound(&points, &["all(#3)", "max(#5)", "avg(#10)"], CounterType::Gauge),
    );
    full_join(&points);
    memory();
    reload();
}

fn report(what: &str, nanoseconds: f64) {
    println!("{nanoseconds:8.1} ns per point   {what}");
}

fn points() -> Points {
    Points(std::array::from_fn(|i| Point { time: NEWEST - 60 * i as i64, value: (KEPT - i) as f64 }))
}

/// A judge with these functions on each series of metric m, none of which ever holds.
fn judge(functions: &[&str]) -> Judge {
    let strategy = |(id, func): (usize, &&str)| {
        // A comparison that fails at the last value only costs the whole window.
        let (func, operator, right_value) = (func.to_string(), ">".to_string(), 1e12);
        Arc::new(Strategy {
            id: id as i64,
            metric: "m".into(),
            func,
            operator,
            right_value,
            max_step: 3,
            ..Strategy::default()
        })
    };
    let list: Arc<[Arc<Strategy>]> = functions.iter().enumerate().map(strategy).collect();
    let rules = Rules { version: 1, hosts: [("h".to_string(), list)].into(), expressions: Vec::new() };
    let (set, refused) = RuleSet::compile(&rules, &Options::default());
    assert!(refused.is_empty(), "{refused:?}");
    let mut judge = Judge::new(Options::default());
    judge.load(set);
    judge
}

fn bind(judge: &mut Judge, series: u32, metric: &str) {
    judge.bind(SeriesId(series), SeriesKey { endpoint: "h", metric, tags: Tags::EMPTY }, CounterType::Gauge);
}

/// One in five series is bound, as with 40 strategies on the 200 series of a host; the others are asked.
fn unbound() -> f64 {
    let mut judge = judge(&["all(#3)"]);
    let is_bound = |series: &u32| series % 200 < 40;
    (0..SERIES * 5 / 4).filter(is_bound).for_each(|series| bind(&mut judge, series, "m"));
    let others: Vec<u32> = (0..SERIES * 5 / 4).filter(|series| !is_bound(series)).collect();
    best(|slice| {
        let others = &others[slice.start as usize..slice.end as usize];
        let bound = others.iter().filter(|series| judge.is_bound(SeriesId(black_box(**series)))).count();
        assert_eq!(black_box(bound), 0);
    })
}

fn bound(points: &Points, functions: &[&str], counter_type: CounterType) -> f64 {
    let mut judge = judge(functions);
    (0..SERIES).for_each(|series| bind(&mut judge, series, "m"));
    let mut events: Vec<Event> = Vec::new();
    let nanoseconds = best(|slice| {
        for series in slice {
            let series = SeriesId(series);
            let sample = Sample { series, point: points.0[0] };
            if judge.is_bound(series) {
                judge.on_point(black_box(sample), counter_type, 60, points, NEWEST, &mut events);
            }
        }
    });
    assert!(events.is_empty(), "the benchmark's rules never hold");
    nanoseconds
}

/// How long a point holds the lock of a join at the bound of its seats, half of them carriers: one of a carrier, and
/// one of an other that speaks for all carriers.
fn full_join(points: &Points) {
    let mut judge = judge(&["all(#3) and all(#3) of b/k=v > 1000000000000"]);
    let half = SEATS_MAX as u32 / 2;
    for series in 0..2 * half {
        let tags = format!("k=v,n={series}");
        let metric = if series < half { "m" } else { "b" };
        let key = SeriesKey { endpoint: "h", metric, tags: Tags::assume_canonical(&tags) };
        judge.bind(SeriesId(series), key, CounterType::Gauge);
    }
    let mut events: Vec<Event> = Vec::new();
    let mut fastest = |series: std::ops::Range<u32>| {
        let times = series.map(|series| {
            let start = Instant::now();
            let sample = Sample { series: SeriesId(series), point: points.0[0] };
            judge.on_point(sample, CounterType::Gauge, 60, points, NEWEST, &mut events);
            start.elapsed()
        });
        times.min().map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    fastest(0..2 * half);
    let (carrier, other) = (fastest(0..half), fastest(half..half + 50));
    println!(
        "{carrier:8.2} ms per point of a carrier, {other:.2} of an other that speaks for all: a join of {SEATS_MAX} seats"
    );
    assert!(events.is_empty() && !judge.joins().is_waiting(), "the benchmark's rules never hold");
}

/// Nanoseconds per series, each slice at its fastest: a slice is shorter than the scheduler's, so that other programs
/// on the machine disturb few of them.
fn best(mut judge_slice: impl FnMut(Range<u32>)) -> f64 {
    let slices = SERIES / SLICE;
    let mut fastest = vec![f64::INFINITY; slices as usize];
    for _ in 0..ROUNDS {
        for (slice, fastest) in (0..slices).zip(&mut fastest) {
            let start = Instant::now();
            judge_slice(slice * SLICE..(slice + 1) * SLICE);
            *fastest = fastest.min(start.elapsed().as_nanos() as f64);
        }
    }
    fastest.iter().sum::<f64>() / f64::from(SERIES)
}

fn memory() {
    let functions = ["all(#1)", "all(#2)", "all(#3)"];
    for rules in [1, 3] {
        let mut judge = judge(&functions[..rules]);
        let empty = judge.stats().memory_bytes;
        (0..SERIES).for_each(|series| bind(&mut judge, series, "m"));
        let stats = judge.stats();
        let bytes = (stats.memory_bytes - empty) as f64 / stats.bound_pairs as f64;
        println!("{bytes:8.1} bytes per bound pair, {rules} rules per series; 0 per unbound series");
    }
}

/// A change takes effect, with 1,000 hosts × 80 strategies loaded: the threshold of one strategy, and one strategy
/// more.
fn reload() {
    let strategy = |id: i64, right_value: f64| {
        let (func, operator) = ("all(#3)".to_string(), ">".to_string());
        Arc::new(Strategy {
            id,
            metric: format!("m{id}"),
            func,
            operator,
            right_value,
            max_step: 3,
            ..Strategy::default()
        })
    };
    let rules = |count: i64, right_value: f64| {
        let list: Arc<[Arc<Strategy>]> = (0..count).map(|id| strategy(id, right_value)).collect();
        let hosts = (0..1000).map(|host| (format!("host{host}"), list.clone())).collect();
        Rules { version: 1, hosts, expressions: Vec::new() }
    };
    let mut judge = Judge::new(Options::default());
    judge.load(RuleSet::compile(&rules(80, 1.0), &Options::default()).0);
    let names: Vec<(String, String)> =
        (0..SERIES).map(|series| (format!("host{}", series % 1000), format!("m{}", series / 1000))).collect();
    let key = |series: u32| {
        let (endpoint, metric) = &names[series as usize];
        SeriesKey { endpoint, metric, tags: Tags::EMPTY }
    };
    for series in 0..SERIES {
        judge.bind(SeriesId(series), key(series), CounterType::Gauge);
    }
    for (what, rules) in [("80 thresholds changed", rules(80, 2.0)), ("a strategy added", rules(81, 2.0))] {
        let start = Instant::now();
        let (set, _) = RuleSet::compile(&rules, &Options::default());
        let bytes = set.memory_bytes();
        let touched = judge.load(set);
        let mut covered = 0;
        for series in (0..SERIES).filter(|series| touched.covers(key(*series))) {
            judge.bind(SeriesId(series), key(series), CounterType::Gauge);
            covered += 1;
        }
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        println!(
            "{milliseconds:8.2} ms from rules to effect, {SERIES} series: {what}, {covered} bound anew; rule set {bytes} bytes"
        );
    }
}
