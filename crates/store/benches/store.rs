//! `cargo bench -p store`: what a point and a series cost. Prints figures, asserts nothing.
//!
//! `cargo bench -p store -- 100000` takes another number of series (default 1,000,000; 60 points each). With 0 only
//! what is about blocks is done: the codings of a chunk, the recorded trace, and two days of a fleet.

use model::{CounterType, Point, Sample, SeriesId, SeriesKey, Tags};
use regex::Regex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use store::{Cf, EndpointQuery, Found, Options, Query, Store, chunk, column};

const METRICS: u32 = 200;
const ROUNDS: i64 = 60;
const START: i64 = 1_600_000_020;

fn main() {
    let series = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1_000_000u32) / METRICS * METRICS;
    if series > 0 {
        fleet(series);
    }
    codings();
    trace();
    days();
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

/// A fleet's mix: most values never change; small numbers, byte counters, decimals and unrounded percentages among
/// them.
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
        rows += store.query(found(host * METRICS + 2), &query).expect("answers").values.len();
    }
    println!("1 h of one counter of {hosts} hosts, {when}: {:.2} ms, {rows} rows", began.elapsed().as_secs_f64() * 1e3);
    let mut slowest = 0.0f64;
    for host in 0..hosts {
        let began = Instant::now();
        let mut out = Vec::new();
        store.history(found(host * METRICS + 3), now - 86_400, now, &mut out).expect("answers");
        slowest = slowest.max(began.elapsed().as_secs_f64() * 1e3);
    }
    println!("24 h of one series, {when}: slowest of {hosts} {slowest:.3} ms");
}

fn found(id: u32) -> Found {
    Found { id: SeriesId(id), counter_type: CounterType::Gauge, step: 60 }
}

/// The recorded trace, true timestamps, by series.
fn trace_points() -> BTreeMap<u32, Vec<Point>> {
    let text = testdata::gunzip("trace/points.csv.gz");
    let mut by_series: BTreeMap<u32, Vec<Point>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let mut fields = line.split(',');
        let mut field = || fields.next().expect("three fields");
        let (id, time, value) = (field(), field(), field());
        let point = Point { time: time.parse().expect("a time"), value: value.parse().expect("a number") };
        by_series.entry(id.parse().expect("an id")).or_default().push(point);
    }
    by_series
}

/// How many bytes some values take.
type Way = fn(&[f64]) -> usize;

/// Bytes per value of ways to code a chunk's values, without times, heads and index.
fn codings() {
    let mix: Vec<Vec<f64>> = (0..METRICS).map(|i| (0..1440).map(|round| value(i, round)).collect()).collect();
    let trace = trace_points();
    let trace: Vec<Vec<f64>> = trace.values().map(|points| points.iter().map(|point| point.value).collect()).collect();
    let ways: [(&str, Way); 5] = [
        ("XOR, whole bytes", xor_bytes),
        ("records", record_bytes),
        ("differences, packed in 64s", packed_bytes),
        ("pco alone", pco_bytes),
        ("columns", column_bytes),
    ];
    println!("codings, bytes/point: the trace (237 a series), the mix (1440 a series), and CPU to code");
    for (name, way) in ways {
        let per_point = |set: &[Vec<f64>]| {
            let points = set.iter().map(Vec::len).sum::<usize>().max(1);
            set.iter().map(|values| way(values)).sum::<usize>() as f64 / points as f64
        };
        let began = Cpu::start();
        let (trace, mix) = (per_point(&trace), per_point(&mix));
        let ns = began.elapsed().as_nanos() as f64 / (46_926 + 288_000) as f64;
        println!("  {name:28} {trace:5.3}  {mix:5.3}  {ns:4.0} ns/point");
    }
}

/// A tag and the bytes that differ; a repeated value is free, as in `records`.
fn xor_bytes(values: &[f64]) -> usize {
    let cost = |pair: &[f64]| match pair[0].to_bits() ^ pair[1].to_bits() {
        0 => 0,
        xor => 1 + 8 - xor.leading_zeros() as usize / 8 - xor.trailing_zeros() as usize / 8,
    };
    8 + values.windows(2).map(cost).sum::<usize>()
}

fn record_bytes(values: &[f64]) -> usize {
    let mut bytes = 8;
    let mut cursor = chunk::Cursor::new(60, values[0], 60);
    for value in &values[1..] {
        cursor.append(cursor.time + 60, *value, |record| bytes += record.len());
    }
    bytes
}

/// Whole numbers and decimals as differences of the order that suits best, less the least of 64, in as many bits as the
/// greatest has; other values as they are.
fn packed_bytes(values: &[f64]) -> usize {
    let scaled = |scale: f64| {
        let convert = |value: &f64| if scale == 1.0 { chunk::whole(*value) } else { chunk::scaled(*value, scale) };
        values.iter().map(convert).collect::<Option<Vec<i64>>>()
    };
    let Some(mut numbers) = [1.0, 10.0, 100.0, 1000.0].into_iter().find_map(scaled) else { return 8 * values.len() };
    let mut best = usize::MAX;
    for order in 0..3 {
        let packed = |numbers: &[i64]| {
            let (least, greatest) = (numbers.iter().min().expect("some"), numbers.iter().max().expect("some"));
            let bits = 64 - (greatest - least).leading_zeros() as usize;
            let least_bits = 64 - least.unsigned_abs().leading_zeros() as usize;
            2 + least_bits.div_ceil(7) + (bits * numbers.len()).div_ceil(8)
        };
        best = best.min(8 * order + numbers.chunks(64).map(packed).sum::<usize>());
        for i in (order + 1..numbers.len()).rev() {
            numbers[i] -= numbers[i - 1];
        }
    }
    best
}

fn pco_bytes(values: &[f64]) -> usize {
    pco::standalone::simple_compress(values, &pco::ChunkConfig::default()).expect("some values").len()
}

fn column_bytes(values: &[f64]) -> usize {
    let mut out = Vec::new();
    column::push_values(values, &mut out);
    out.len()
}

fn merge_all(store: &Store, now: i64) {
    while store.merge_step(now, 8 << 20).expect("room").more {}
}

/// The recorded trace as one flush writes it, and merged.
fn trace() {
    let by_series = trace_points();
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
    let flushed = store.stats();
    merge_all(&store, now + 2 * 86_400);
    let merged = store.stats();
    let points = merged.raw.points as f64;
    println!(
        "trace: {points} points; bytes/point: hot chunks {:.2}, flushed {:.3}, merged {:.3} (whole files; roll-ups {:.3} more)",
        hot.unflushed_bytes as f64 / hot.hot_points as f64,
        flushed.raw.bytes as f64 / points,
        merged.raw.bytes as f64 / points,
        (merged.rollups_5m.bytes + merged.rollups_1h.bytes) as f64 / points,
    );
}

/// Two days of the mix, each of 1,000 hosts with 20 series, flushed every two hours and merged as time goes by; then
/// what queries take at 14:00 of the second day, after a restart.
fn days() {
    const HOSTS: u32 = 1000;
    const SERIES: u32 = HOSTS * 20;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { dir: dir.path().to_path_buf(), flush_bytes: usize::MAX, ..Options::default() };
    let start = START / 86_400 * 86_400;
    let (store, _) = Store::open(options.clone(), start).expect("opens");
    for i in 0..SERIES {
        let (endpoint, metric) = (format!("host-{:05}", i / 20), format!("metric.name.{}", i % 20));
        let key = SeriesKey { endpoint: &endpoint, metric: &metric, tags: Tags::EMPTY };
        store.create(key, CounterType::Gauge, 60).expect("room");
    }
    let now = start + 86_400 + 14 * 3600;
    let mut batch = Vec::new();
    let mut merging = Duration::ZERO;
    for time in (start..now).step_by(60) {
        for host in 0..HOSTS {
            batch.clear();
            for i in host * 20..(host + 1) * 20 {
                // As in `value`, with 20 shapes in a row.
                let point = Point { time, value: value(i % 20 + i / 20 * METRICS, (time - start) / 60) };
                batch.push(Sample { series: SeriesId(i), point });
            }
            store.append(&batch, time, &mut ()).expect("room");
        }
        if (time + 60 - start) % 7200 == 0 {
            store.flush(time).expect("room");
            let began = Cpu::start();
            merge_all(&store, time);
            merging += began.elapsed();
        }
    }
    let open = store.stats();
    println!(
        "34 h of the mix, {SERIES} series: {} files with points, {} with roll-ups; {:.3} bytes/point in all of them; merging \
         took {:.0} ns/point, read and wrote {:.2} bytes/point",
        open.raw.blocks,
        open.rollups_5m.blocks + open.rollups_1h.blocks,
        open.raw.bytes as f64 / open.raw.points as f64,
        merging.as_nanos() as f64 / open.raw.points as f64,
        open.merge_bytes as f64 / open.raw.points as f64,
    );
    drop(store);
    let (store, recovery) = Store::open(options, now).expect("opens");
    println!("  warm start read {} points", recovery.points_warmed);
    for cold in [true, false] {
        blocks_queries(&store, dir.path(), start, now, HOSTS, cold);
    }
    // Both days over.
    merge_all(&store, now + 86_400);
    let closed = store.stats();
    let points = closed.raw.points as f64;
    println!(
        "  merged: {:.3} bytes/point (whole files); roll-ups of 5 min {:.3}, of 1 h {:.3} more",
        closed.raw.bytes as f64 / points,
        closed.rollups_5m.bytes as f64 / points,
        closed.rollups_1h.bytes as f64 / points,
    );
}

/// Asks the system to forget the block files (and no others: somebody else may be working here); false where it cannot.
fn drop_caches(dir: &Path) -> bool {
    let files = std::fs::read_dir(dir.join("block")).expect("the directory of blocks");
    let paths: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
    paths.iter().all(|path| {
        let mut dd = std::process::Command::new("dd");
        dd.arg(format!("if={}", path.display())).args(["iflag=nocache", "count=0", "status=none"]);
        dd.status().is_ok_and(|status| status.success())
    })
}

fn blocks_queries(store: &Store, dir: &Path, start: i64, now: i64, hosts: u32, cold: bool) {
    let name = if cold { "cold" } else { "warm" };
    if cold && !drop_caches(dir) {
        println!("  cold: skipped, there is no dd that empties the page cache");
        return;
    }
    let time = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64() * 1e3
    };
    let mut each: Vec<f64> = Vec::new();
    if !cold {
        // The cold queries before these have left most of the files outside the page cache.
        for path in std::fs::read_dir(dir.join("block")).expect("the directory of blocks") {
            std::fs::read(path.expect("an entry").path()).expect("readable");
        }
    }
    for i in 0..if cold { 100 } else { 2000 } {
        if cold {
            drop_caches(dir);
        }
        let mut out = Vec::new();
        let series = found(i * 7919 % (hosts * 20));
        each.push(time(&mut || store.history(series, now - 86_400, now, &mut out).expect("answers")));
        assert_eq!(out.len(), 1440);
    }
    each.sort_by(f64::total_cmp);
    let [median, p90, p99] = [50, 90, 99].map(|percent| each[each.len() * percent / 100]);
    println!("  24 h of one series at 60 s, {name}: median {median:.3} ms, p90 {p90:.3} ms, p99 {p99:.3} ms");
    let counter: Vec<Found> = (0..hosts).map(|host| found(host * 20 + 2)).collect();
    let hour = |from: i64| Query { from, to: from + 3600, cf: Cf::Average, now };
    for (what, query) in [
        ("the last hour", hour(now - 3600)),
        ("an hour of this morning, in blocks of a flush", hour(now - 5 * 3600)),
        ("yesterday noon in rows of 5 min, a merged block or its roll-up", hour(start + 43_200)),
    ] {
        if cold {
            drop_caches(dir);
        }
        let mut rows = 0;
        let ms = time(&mut || {
            let each = |_, grid: Result<store::Grid, store::Error>| {
                rows += grid.expect("answers").values.len();
                true
            };
            store.query_many(&counter, &query, each).expect("answers");
        });
        println!("  {what}: one counter of {hosts} hosts, {name}: {ms:.2} ms, {rows} rows");
    }
    if cold {
        drop_caches(dir);
    }
    let month = Query { from: now - 33 * 3600, to: now, cf: Cf::Max, now };
    let ms = time(&mut || assert!(store.query(found(2), &month).expect("answers").values.len() > 300));
    println!("  33 h of one series in rows of 5 min, {name}: {ms:.3} ms");
}
