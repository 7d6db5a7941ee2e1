//! Rule text: nothing panics, what may be saved can be loaded, and a loaded rule can judge points.
//!
//! Input: `func`, `operator` and the window's size as `func\noperator\nn`, as an attacker of the portal, or a row of an
//! old database, may have it.

#![no_main]

use judge::{Judge, Options, PointSource, RuleSet, Semantics, check};
use libfuzzer_sys::fuzz_target;
use model::{CounterType, Point, Rules, Sample, SeriesId, SeriesKey, Strategy, Tags};
use std::sync::Arc;

struct Ramp;

impl PointSource for Ramp {
    fn tail(&self, _: SeriesId, count: usize, out: &mut Vec<Point>) {
        // Falling and rising, with a hole and a zero.
        let point = |i: i64| Point { time: 1_600_000_000 - i * 60 - (i / 5) * 300, value: (7 - i % 9) as f64 };
        out.extend((0..count.min(64) as i64).map(point));
    }

    fn meta(&self, _: SeriesId) -> Option<(CounterType, u32)> {
        Some((CounterType::Gauge, 60))
    }

    fn key(&self, series: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        use_key(key(series));
    }
}

/// The rule's own series, and one that a condition may ask with `of n` or `of n/a=1`.
fn key(series: SeriesId) -> SeriesKey<'static> {
    match series {
        SeriesId(0) => SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY },
        _ => SeriesKey { endpoint: "h", metric: "n", tags: Tags::assume_canonical("a=1") },
    }
}

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let func = lines.next().unwrap_or_default().to_string();
    let operator = lines.next().unwrap_or(">").to_string();
    let points_max = lines.next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(120).min(1000);
    let saved = check(&func, &operator, 0.0, points_max);
    if let Err(error) = &saved {
        assert!(!error.to_string().is_empty());
    }
    let strategy = Strategy { id: 1, metric: "m".into(), func, operator, max_step: 3, ..Strategy::default() };
    let list: Arc<[Arc<Strategy>]> = Arc::new([Arc::new(strategy)]);
    let rules = Rules { version: 1, hosts: [("h".to_string(), list)].into(), expressions: Vec::new() };
    for semantics in [Semantics::Hawkeye, Semantics::OpenFalcon] {
        let options = Options { semantics, min_interval_s: 300, points_max, ..Options::default() };
        let (set, refused) = RuleSet::compile(&rules, &options);
        assert!(semantics == Semantics::OpenFalcon || saved.is_err() || refused.is_empty());
        let mut judge = Judge::new(options);
        judge.load(set);
        for counter_type in [CounterType::Gauge, CounterType::Counter] {
            let mut events = Vec::new();
            let now = 1_600_000_000;
            for series in [SeriesId(0), SeriesId(1)] {
                judge.bind(series, key(series), counter_type);
                let point = Point { time: now, value: 7.0 };
                judge.on_point(Sample { series, point }, counter_type, 60, &Ramp, now, &mut events);
            }
            judge.tick(now, &Ramp, &mut events);
            judge.tick(now + 100_000, &Ramp, &mut events);
            judge.joins().hand_over(|joined| events.append(joined));
            for event in &events {
                assert!(event.left_value.is_finite() && event.explanation.is_some());
                let mut json = String::new();
                event.push_json_explained(&mut json);
                assert_eq!(model::Event::from_json(&json).as_ref(), Ok(event));
            }
        }
    }
});
