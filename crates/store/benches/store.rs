//! `cargo bench -p store`: what a point and a series cost. Prints figures, asserts nothing.
//!
//! `cargo bench -p store -- 100000` takes another number of series (default 1,000,000; 60 points each).

use model::{CounterType, Point, Sample, SeriesId, SeriesKey, Tags};
use regex::Regex;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use store::{Cf, EndpointQuery, Options, Query, Store};

const METRICS: u32 = 200;
const ROUNDS: i64 = 60;
const START: i64 = 1_600_000_020;

fn main() {
    let series = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1_000_000u32) / METRICS * METRICS;
    fleet(series);
    trace();
}

/// A stopwatch for the time this thread was on a CPU: these machines are shared, wall time says little.
struct Cpu(Duration);

impl Cpu {
    fn start() -> Cpu {
        Cpu(Cpu::now())
    }

    fn now() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        Duration::from_nanos(text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0))
    }

    fn elapsed(&self) -> Duration {
        Cpu::now() - self.0
    }
}

/// Anonymous resident bytes of this process.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// A fleet's mix: most values never change; small numbers, byte counters, decimals and unrounded percentages among them.
fn value(series: u32, round: i64) -> f64 {
    let noise = (u64::from(series) * 0x9e37_79b9 + round as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
    match series % METRICS % 20 {
        0 => (noise % 7) as f64,
        1 => (round as u64 * 1_234_567 + noise % 100_000) as f64,
        2 | 3 => (noise % 401) as f64 * (100.0 / 401.0),
        4 => (noise % 900) as f64 / 100.0,
        5 => (1_000_000_000 + noise * 4096) as f64,
        _ => f64::from(series % 17),
    }
}

fn fleet(series: u32) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { dir: dir.path().to_path_buf(), flush_bytes: usize::MAX, ..Options::default() };
    let (store, _) = Store::open(options.clone(), START).expect("opens");
    let before = anonymous_bytes();

    let began = Cpu::start();
    for i in 0..series {
        let (endpoint, metric) =
            (format!("host-{:05}.dc1.example", i / METRICS), format!("metric.name.{}", i % METRICS));
        let key = SeriesKey { endpoint: &endpoint, metric: &metric, tags: Tags::EMPTY };
        store.create(key, CounterType::Gauge, 60).expect("room");
    }
    println!("(CPU time of the one thread, queries in wall time)");
    println!("create: {:.0} ns/series", began.elapsed().as_nanos() as f64 / f64::from(series));

    let began = Cpu::start();
    let mut found = 0u32;
    for host in 0..series / METRICS {
        let endpoint = format!("host-{host:05}.dc1.example");
        let finder = store.finder();
        for metric in 0..METRICS {
            let metric = format!("metric.name.{metric}");
            let key = SeriesKey { endpoint: &endpoint, metric: &metric, tags: Tags::EMPTY };
            found += u32::from(finder.find(key).is_some());
        }
    }
    assert_eq!(found, series);
    println!("find (with a format! each): {:.0} ns/series", began.elapsed().as_nanos() as f64 / f64::from(series));

    let mut batch = Vec::new();
    let began = Cpu::start();
    for round in 0..ROUNDS {
        for host in 0..series / METRICS {
            batch.clear();
            for i in host * METRICS..(host + 1) * METRICS {
                let point = Point { time: START + 60 * round, value: value(i, round) };
                batch.push(Sample { series: SeriesId(i), point });
            }
            store.append(&batch, START + 60 * round, &mut ()).expect("room");
        }
    }
    let points = f64::from(series) * ROUNDS as f64;
    let stats = store.stats();
    println!("append (log + hot chunk): {:.0} ns/point", began.elapsed().as_nanos() as f64 / points);
    println!("log: {:.2} bytes/point", stats.log_bytes as f64 / points);
    println!(
        "memory: {:.1} bytes/series anonymous; index {:.1}, hot {:.1} (with capacity not touched)",
        (anonymous_bytes() - before) as f64 / f64::from(series),
        stats.index_bytes as f64 / f64::from(series),
        stats.hot_bytes as f64 / f64::from(series),
    );

    tails(&store, series);
    queries(&store, series, "in memory");
    searches(&store, series, "awake");
    drop(store);

    let began = Cpu::start();
    let (store, recovery) = Store::open(options.clone(), START + 3600).expect("opens");
    println!("replay: {:.2} s for {} points", began.elapsed().as_secs_f64(), recovery.points_replayed);
    let began = Cpu::start();
    store.flush(START + 3600).expect("room");
    println!("flush: {:.2} s", began.elapsed().as_secs_f64());
    let stats = store.stats();
    println!("blocks: {:.2} bytes/point", stats.block_bytes as f64 / stats.block_points as f64);
    drop(store);
    let began = Cpu::start();
    let (store, recovery) = Store::open(options, START + 3600).expect("opens");
    println!("warm start: {:.2} s for {} points", began.elapsed().as_secs_f64(), recovery.points_warmed);
    queries(&store, series, "after a restart");
    sleep(&store, series);
}

/// Searches by name and by tags.
fn searches(store: &Store, series: u32, when: &str) {
    let patterns = |text: &str| [Regex::new(text).expect("a pattern")];
    let find = |pattern: &str, tag_terms: &[&str]| {
        let patterns = patterns(pattern);
        let query = EndpointQuery { patterns: &patterns, tag_terms, offset: 0, limit: 500 };
        let began = Instant::now();
        let found = store.endpoints(&query).expect("names read").len();
        println!(
            "search of {series} series {when}, {pattern:?} with {tag_terms:?}: {:.2} ms, {found} endpoints",
            began.elapsed().as_secs_f64() * 1e3
        );
    };
    find("host-0", &[]);
    find("nobody", &[]);
    find("", &["name.17"]);
    find("", &["metric"]);
    find("", &["nothing"]);
}

/// All series but those of one host fall silent.
fn sleep(store: &Store, series: u32) {
    let later = START + 3 * 86_400;
    let batch: Vec<Sample> =
        (0..METRICS).map(|i| Sample { series: SeriesId(i), point: Point { time: later, value: 1.0 } }).collect();
    store.append(&batch, later, &mut ()).expect("room");
    store.flush(later).expect("room");
    let before = store.stats();
    for (what, now) in [("looking and writing the run", later), ("falling asleep", later + 60)] {
        let (done, longest) = (AtomicBool::new(false), Mutex::new(Duration::ZERO));
        let began = Cpu::start();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // What a sender sees that looks up its series meanwhile.
                while !done.load(Relaxed) {
                    let began = Instant::now();
                    drop(store.finder());
                    let mut longest = longest.lock().expect("no panic");
                    *longest = longest.max(began.elapsed());
                }
            });
            let slept = store.sleep_silent(now, &mut |_, _| ()).expect("room");
            done.store(true, Relaxed);
            println!("{what}: {:.2} s, {slept:?}", began.elapsed().as_secs_f64());
        });
        println!("  longest wait for the table: {:.1} ms", longest.lock().expect("no panic").as_secs_f64() * 1e3);
    }
    let after = store.stats();
    println!(
        "memory: index {:.1} -> {:.1} MB, hot {:.1} -> {:.1} MB; cold runs {:.1} bytes/series",
        before.index_bytes as f64 / 1e6,
        after.index_bytes as f64 / 1e6,
        before.hot_bytes as f64 / 1e6,
        after.hot_bytes as f64 / 1e6,
        after.cold_bytes as f64 / f64::from(series),
    );
    searches(store, series, "asleep");
    let began = Cpu::start();
    for i in METRICS..METRICS + 10_000.min(series - METRICS) {
        let (endpoint, metric) =
            (format!("host-{:05}.dc1.example", i / METRICS), format!("metric.name.{}", i % METRICS));
        let key = SeriesKey { endpoint: &endpoint, metric: &metric, tags: Tags::EMPTY };
        assert_eq!(store.create(key, CounterType::Gauge, 60).expect("room"), SeriesId(i));
    }
    println!("wake: {:.1} us/series", began.elapsed().as_secs_f64() * 1e6 / f64::from(10_000.min(series - METRICS)));
}

fn tails(store: &Store, series: u32) {
    let mut out = Vec::new();
    let began = Cpu::start();
    for i in 0..series {
        store.with_tail(SeriesId(i), |view| view.tail(SeriesId(i), 3, &mut out));
    }
    println!("tail of 3: {:.0} ns", began.elapsed().as_nanos() as f64 / f64::from(series));
}

fn queries(store: &Store, series: u32, when: &str) {
    let now = START + 60 * ROUNDS;
    let began = Instant::now();
    let hosts = (series / METRICS).min(1000);
    let mut rows = 0;
    for host in 0..hosts {
        let query = Query { from: now - 3600, to: now, cf: Cf::Average, now };
        rows += store.query(SeriesId(host * METRICS + 2), &query).expect("answers").values.len();
    }
    println!("1 h of one counter of {hosts} hosts, {when}: {:.2} ms, {rows} rows", began.elapsed().as_secs_f64() * 1e3);
    let mut slowest = 0.0f64;
    for host in 0..hosts {
        let began = Instant::now();
        let mut out = Vec::new();
        store.history(SeriesId(host * METRICS + 3), now - 86_400, now, &mut out).expect("answers");
        slowest = slowest.max(began.elapsed().as_secs_f64() * 1e3);
    }
    println!("24 h of one series, {when}: slowest of {hosts} {slowest:.3} ms");
}

/// The recorded trace, true timestamps, as one flush writes it.
fn trace() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata/trace/points.csv.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        println!("trace: skipped, {} is not there", path.display());
        return;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("the trace reads");
    let mut by_series: BTreeMap<u32, Vec<Point>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let mut fields = line.split(',');
        let mut field = || fields.next().expect("three fields");
        let (id, time, value) = (field(), field(), field());
        let point = Point { time: time.parse().expect("a time"), value: value.parse().expect("a number") };
        by_series.entry(id.parse().expect("an id")).or_default().push(point);
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { dir: dir.path().to_path_buf(), ..Options::default() };
    let now = by_series.values().flatten().map(|point| point.time).max().expect("points");
    let (store, _) = Store::open(options, now).expect("opens");
    for (id, points) in &by_series {
        let metric = format!("m{id}");
        let key = SeriesKey { endpoint: "trace", metric: &metric, tags: Tags::EMPTY };
        let id = store.create(key, CounterType::Gauge, 5).expect("room");
        let batch: Vec<Sample> = points.iter().map(|point| Sample { series: id, point: *point }).collect();
        store.append(&batch, now, &mut ()).expect("room");
    }
    let hot = store.stats();
    store.flush(now).expect("room");
    let stats = store.stats();
    println!(
        "trace: {} points; hot chunks {:.2} bytes/point, blocks {:.2} bytes/point",
        stats.block_points,
        hot.unflushed_bytes as f64 / hot.hot_points as f64,
        stats.block_bytes as f64 / stats.block_points as f64,
    );
}
