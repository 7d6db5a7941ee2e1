//! `cargo bench -p judge`: nanoseconds per point and bytes per bound pair. A plain program, no harness: each figure is the
//! best of several rounds, as these machines are noisy.
//!
//! The window is an array of the newest points of each series, of which the newest are copied: what is measured is the
//! judge, not the store's chunks.

use judge::{Judge, Options, RuleSet, Window};
use model::{CounterType, Event, Point, Rules, Sample, SeriesId, SeriesKey, Strategy, Tags};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const SERIES: u32 = 100_000;
const KEPT: usize = 32;
const ROUNDS: u32 = 10;
const NEWEST: i64 = 1_600_000_020;

struct Points(Vec<[Point; KEPT]>);

impl Window for Points {
    #[inline]
    fn tail(&self, series: SeriesId, count: usize, out: &mut Vec<Point>) {
        out.extend_from_slice(&self.0[series.0 as usize][..count.min(KEPT)]);
    }

    fn key(&self, _: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        use_key(SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY });
    }
}

fn main() {
    let points = points();
    println!("{SERIES} series, window of {KEPT} points in an array, best of {ROUNDS} rounds");
    report("unbound, asked by is_bound", unbound(&points));
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
    report("bound by one all(#3), COUNTER", bound(&points, &["all(#3)"], CounterType::Counter));
    report(
        "bound by three (all(#3), max(#5), avg(#10))",
        bound(&points, &["all(#3)", "max(#5)", "avg(#10)"], CounterType::Gauge),
    );
    memory();
    reload();
}

fn report(what: &str, nanoseconds: f64) {
    println!("{nanoseconds:8.1} ns per point   {what}");
}

fn points() -> Points {
    let of_series = |series: u32| {
        std::array::from_fn(|i| Point {
            time: NEWEST - 60 * i as i64,
            value: f64::from(series % 97) + (KEPT - i) as f64,
        })
    };
    Points((0..SERIES).map(of_series).collect())
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

/// As many series again are bound, so that the table is not empty.
fn unbound(_: &Points) -> f64 {
    let mut judge = judge(&["all(#3)"]);
    (SERIES..SERIES * 2).for_each(|series| bind(&mut judge, series, "m"));
    best(|| {
        let bound = (0..SERIES).filter(|series| judge.is_bound(SeriesId(black_box(*series)))).count();
        assert_eq!(black_box(bound), 0);
    })
}

fn bound(points: &Points, functions: &[&str], counter_type: CounterType) -> f64 {
    let mut judge = judge(functions);
    (0..SERIES).for_each(|series| bind(&mut judge, series, "m"));
    let mut events: Vec<Event> = Vec::new();
    let nanoseconds = best(|| {
        for series in 0..SERIES {
            let series = SeriesId(series);
            let sample = Sample { series, point: points.0[series.0 as usize][0] };
            if judge.is_bound(series) {
                judge.on_point(black_box(sample), counter_type, 60, points, NEWEST, &mut events);
            }
        }
    });
    assert!(events.is_empty(), "the benchmark's rules never hold");
    nanoseconds
}

/// Nanoseconds per series of the fastest round.
fn best(mut round: impl FnMut()) -> f64 {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        round();
        start.elapsed().as_nanos() as f64 / f64::from(SERIES)
    });
    times.fold(f64::INFINITY, f64::min)
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

/// A threshold is changed, with 1,000 hosts × 80 strategies loaded.
fn reload() {
    let rules = |right_value: f64| {
        let strategy = |id: i64| {
            let (func, operator) = ("all(#3)".to_string(), ">".to_string());
            let right_value = if id == 0 { right_value } else { 1e12 };
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
        let list: Arc<[Arc<Strategy>]> = (0..80).map(strategy).collect();
        Rules {
            version: 1,
            hosts: (0..1000).map(|host| (format!("host{host}"), list.clone())).collect(),
            expressions: Vec::new(),
        }
    };
    let mut judge = Judge::new(Options::default());
    judge.load(RuleSet::compile(&rules(1.0), &Options::default()).0);
    let names: Vec<(String, String)> =
        (0..SERIES).map(|series| (format!("host{}", series % 1000), format!("m{}", series / 1000))).collect();
    let key = |series: usize| SeriesKey { endpoint: &names[series].0, metric: &names[series].1, tags: Tags::EMPTY };
    (0..SERIES).for_each(|series| drop(judge.bind(SeriesId(series), key(series as usize), CounterType::Gauge)));
    let rules = rules(2.0);
    let start = Instant::now();
    let (set, _) = RuleSet::compile(&rules, &Options::default());
    let compiled = start.elapsed();
    let bytes = set.memory_bytes();
    let touched = judge.load(set);
    let loaded = start.elapsed();
    let covered = (0..SERIES as usize).filter(|series| touched.covers(key(*series))).count();
    let asked = start.elapsed();
    let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    println!(
        "{:8.2} ms from save to effect: compile {:.2}, load {:.2}, ask {SERIES} series {:.2} ({covered} touched); rule set {bytes} bytes",
        milliseconds(asked),
        milliseconds(compiled),
        milliseconds(loaded - compiled),
        milliseconds(asked - loaded),
    );
}
