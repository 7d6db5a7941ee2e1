//! Steps of the judge alone, one for each function: points come from an array.

use crate::{Step, Work};
use judge::{Judge, Options, PointSource, RuleSet};
use model::{CounterType, Event, Point, Rules, Sample, SeriesId, SeriesKey, Strategy, Tags};
use std::hint::black_box;
use std::sync::Arc;

/// Endpoint of all series.
pub const HOST: &str = "h";
/// Metric of all series.
pub const METRIC: &str = "m";
const SERIES: usize = 10_000;
const KEPT: usize = 32;
const NEWEST: i64 = 1_600_000_020;

/// Steps that judge.
pub fn steps() -> Vec<Step> {
    vec![
        Step { name: "judge-unbound", set_up: unbound },
        Step { name: "judge-all-3", set_up: || bound("all(#3)", CounterType::Gauge) },
        Step { name: "judge-all-3-counter", set_up: || bound("all(#3)", CounterType::Counter) },
        Step { name: "judge-max-10", set_up: || bound("max(#10)", CounterType::Gauge) },
        Step { name: "judge-min-10", set_up: || bound("min(#10)", CounterType::Gauge) },
        Step { name: "judge-sum-10", set_up: || bound("sum(#10)", CounterType::Gauge) },
        Step { name: "judge-avg-10", set_up: || bound("avg(#10)", CounterType::Gauge) },
        Step { name: "judge-diff-10", set_up: || bound("diff(#10)", CounterType::Gauge) },
        Step { name: "judge-pdiff-10", set_up: || bound("pdiff(#10)", CounterType::Gauge) },
        Step { name: "judge-lookup-3-10", set_up: || bound("lookup(#3,10)", CounterType::Gauge) },
        Step { name: "judge-stddev-10", set_up: || bound("stddev(#10)", CounterType::Gauge) },
        Step { name: "judge-kdiff-3-7", set_up: || bound("kdiff(#3,7)", CounterType::Gauge) },
        Step { name: "judge-kpdiff-3-7", set_up: || bound("kpdiff(#3,7)", CounterType::Gauge) },
        Step { name: "judge-nodata-3", set_up: || bound("nodata(#3)", CounterType::Gauge) },
        Step {
            name: "judge-condition-of-two",
            set_up: || bound("all(#3) and max(#5) > 1000000000000 recover 5", CounterType::Gauge),
        },
    ]
}

struct Points([Point; KEPT]);

impl PointSource for Points {
    fn tail(&self, _: SeriesId, count: usize, out: &mut Vec<Point>) {
        out.extend_from_slice(&self.0[..count.min(KEPT)]);
    }

    fn meta(&self, _: SeriesId) -> Option<(CounterType, u32)> {
        Some((CounterType::Gauge, 60))
    }

    fn key(&self, _: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        use_key(SeriesKey { endpoint: HOST, metric: METRIC, tags: Tags::EMPTY });
    }
}

/// A judge with one rule, which never holds and looks at its whole window.
pub fn judge(func: &str) -> Judge {
    let strategy = Strategy {
        id: 1,
        metric: METRIC.into(),
        func: func.into(),
        operator: ">".into(),
        right_value: 1e15,
        max_step: 3,
        ..Strategy::default()
    };
    let hosts = [(HOST.to_string(), [Arc::new(strategy)].into())].into();
    let (set, refused) = RuleSet::compile(&Rules { version: 1, hosts, expressions: Vec::new() }, &Options::default());
    assert!(refused.is_empty(), "{refused:?}");
    let mut judge = Judge::new(Options::default());
    judge.load(set);
    judge
}

fn bound(func: &str, counter_type: CounterType) -> Work {
    let mut judge = judge(func);
    let key = SeriesKey { endpoint: HOST, metric: METRIC, tags: Tags::EMPTY };
    (0..SERIES).for_each(|series| drop(judge.bind(SeriesId(series as u32), key, counter_type)));
    let points = Points(std::array::from_fn(|i| Point { time: NEWEST - 60 * i as i64, value: (KEPT - i) as f64 }));
    let mut events: Vec<Event> = Vec::new();
    Box::new(move |count| {
        for i in 0..count {
            let sample = Sample { series: SeriesId((i % SERIES) as u32), point: points.0[0] };
            judge.on_point(black_box(sample), counter_type, 60, &points, NEWEST, &mut events);
        }
        assert!(events.is_empty());
    })
}

/// One series in five is bound, and the others are asked.
fn unbound() -> Work {
    let mut judge = judge("all(#3)");
    let key = SeriesKey { endpoint: HOST, metric: METRIC, tags: Tags::EMPTY };
    (0..SERIES).for_each(|series| drop(judge.bind(SeriesId(5 * series as u32), key, CounterType::Gauge)));
    Box::new(move |count| {
        let others = (0..5 * SERIES as u32).filter(|series| series % 5 != 0).cycle();
        let bound = others.take(count).filter(|series| judge.is_bound(SeriesId(black_box(*series)))).count();
        assert_eq!(black_box(bound), 0);
    })
}
