//! The store as its users see it: one module per promise.

mod ahead;
mod basics;
mod crash;
mod disk_full;
mod early;
mod formats;
mod manifest;
mod memory;
mod merges;
mod model_test;
mod queries;
mod sleep;
mod threads;
mod types;
mod vectors;

use model::{CounterType, Point, Sample, SeriesId, SeriesKey, Tags};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stdx::FakeDisk;
use store::{Appended, Cf, Found, Grid, Options, Recovery, Store};

/// A Sunday noon; nothing depends on it.
const NOW: i64 = 1_600_000_000 / 86_400 * 86_400 + 43_200;

/// Far above what anything here takes; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns when `is_so` answers true; panics with `what` when it never does.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "missing after {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// Sets a flag when it is dropped: threads that work beside its owner end with it, also when it panics.
struct Ends<'f>(&'f AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn options() -> Options {
    Options { dir: PathBuf::from("data"), shard_count: 2, ..Options::default() }
}

fn open_with(disk: &FakeDisk, options: Options) -> (Store, Recovery) {
    let (store, recovery) = Store::open_on(Arc::new(disk.clone()), options, NOW).expect("the store opens");
    assert_eq!(recovery.missing, Vec::<String>::new());
    (store, recovery)
}

fn open(disk: &FakeDisk) -> Store {
    let (store, recovery) = open_with(disk, options());
    assert_eq!(recovery.corrupt, Vec::<String>::new());
    store
}

fn key<'a>(endpoint: &'a str, metric: &'a str, tags: &'a str) -> SeriesKey<'a> {
    SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) }
}

fn gauge(store: &Store, endpoint: &str) -> SeriesId {
    store.create(key(endpoint, "m", ""), CounterType::Gauge, 60).expect("room for a series")
}

fn sample(series: SeriesId, time: i64, value: f64) -> Sample {
    Sample { series, point: Point { time, value } }
}

fn put(store: &Store, series: SeriesId, time: i64, value: f64) -> Appended {
    store.append(&[sample(series, time, value)], NOW, &mut ()).expect("the disk has room")
}

/// What a caller that looked the series up would have; one that is not there reads as a gauge.
fn found(store: &Store, id: SeriesId) -> Found {
    let (counter_type, step) = store.info(id).map_or((CounterType::Gauge, 60), |info| (info.counter_type, info.step));
    Found { id, counter_type, step }
}

fn id_of(store: &Store, endpoint: &str, counter: &str) -> Option<SeriesId> {
    store.find(endpoint, counter).expect("the names read").map(|found| found.id)
}

fn history(store: &Store, series: SeriesId) -> Vec<(i64, f64)> {
    history_of(store, series, 0, i64::MAX)
}

fn history_of(store: &Store, series: SeriesId, from: i64, to: i64) -> Vec<(i64, f64)> {
    let mut out = Vec::new();
    store.history(found(store, series), from, to, &mut out).expect("history reads");
    out.iter().map(|point| (point.time, point.value)).collect()
}

/// The rows that the points themselves give, as the rules say: rates over at most two steps, not over resets.
/// `kind` numbers the stretches in which a series was a counter (even) or a gauge (odd).
fn rows_of_points(
    points: &[(i64, f64)],
    kind: impl Fn(i64) -> usize,
    grid: &Grid,
    row_s: i64,
    cf: Cf,
) -> Vec<Option<f64>> {
    let is_gauge = |time: i64| kind(time) % 2 == 1;
    let mut values: Vec<(i64, f64)> = Vec::new();
    for (i, (time, value)) in points.iter().copied().enumerate() {
        if is_gauge(time) {
            values.push((time, value));
        } else if let Some((t0, v0)) = i.checked_sub(1).map(|before| points[before])
            && !is_gauge(t0)
            && time - t0 <= 120
            && value >= v0
        {
            values.push((time, (value - v0) / (time - t0) as f64));
        }
    }
    let mut before = i64::MIN;
    let row = |(end, _): &(i64, Option<f64>)| {
        let after = before.max(end - row_s);
        before = *end;
        let row = values.partition_point(|(time, _)| *time <= after)..values.partition_point(|(time, _)| time <= end);
        // What came after the last change of the series counts, of the row that has it.
        let row = values[row.start..row.end.max(row.start)].iter().filter(|(time, _)| kind(*time) == kind(*end));
        let row: Vec<f64> = row.map(|(_, value)| *value).collect();
        let best = row.iter().copied();
        match cf {
            Cf::Average => (!row.is_empty()).then(|| row.iter().sum::<f64>() / row.len() as f64),
            Cf::Max => best.reduce(f64::max),
            Cf::Min => best.reduce(f64::min),
            Cf::Last => row.last().copied(),
        }
    };
    grid.values.iter().map(row).collect()
}

fn assert_close(got: &Grid, expected: &[Option<f64>], context: &str) {
    assert_eq!(got.values.len(), expected.len(), "{context}");
    for ((time, got), expected) in got.values.iter().zip(expected) {
        let close = match (got, expected) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(1e-300),
            (a, b) => a == b,
        };
        assert!(close, "{context}, at {time}: {got:?}, want {expected:?}");
    }
}
