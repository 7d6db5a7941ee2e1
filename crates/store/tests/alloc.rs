//! Steady state: appending known series' points allocates nothing; and what a series costs in memory, printed.

use model::{CounterType, Point, Sample, SeriesId, SeriesKey, Tags};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use store::{Observer, Options, ShardView, Store};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);

// SAFETY: every call is handed on unchanged to the system's allocator; only counters are touched besides.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size() as i64, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as i64, Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        BYTES.fetch_add(size as i64 - layout.size() as i64, Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const START: i64 = 1_600_000_020;
const HOSTS: u32 = 100;
const METRICS: u32 = 200;

/// Reads a window of ten, as a judge would.
struct Tails(Vec<Point>);

impl Observer for Tails {
    fn newest(&mut self, _shard: usize, sample: Sample, _counter_type: CounterType, window: &ShardView<'_>) {
        window.tail(sample.series, 10, &mut self.0);
    }
}

/// The mix of a host: 70 % never change, the rest are small numbers, byte counters and unrounded percentages.
fn value(metric: u32, round: i64) -> f64 {
    match metric % 10 {
        0 => (round * 7 % 5) as f64,
        1 => (round * 123_457) as f64,
        2 => ((round * 31 + i64::from(metric)) % 199) as f64 * (100.0 / 199.0),
        _ => f64::from(metric),
    }
}

fn append_round(store: &Store, round: i64, batch: &mut Vec<Sample>, tails: &mut Tails) {
    let time = START + 60 * round;
    for host in 0..HOSTS {
        batch.clear();
        let sample = |metric| Sample {
            series: SeriesId(host * METRICS + metric),
            point: Point { time, value: value(metric, round) },
        };
        batch.extend((0..METRICS).map(sample));
        let appended = store.append(batch, time, tails).expect("the disk has room");
        assert_eq!(appended.stored, METRICS as usize);
    }
}

/// What the store says that it holds.
fn told(store: &Store) -> i64 {
    let store::Memory { texts, index, heads, chunks, log, catalog, asleep, flush, merge, reads } = store.memory();
    let lasting = texts + index + heads + chunks + log + catalog + asleep;
    lasting as i64 + (flush + merge + reads) as i64
}

#[test]
fn no_allocation_per_point_and_few_bytes_per_series() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { dir: dir.path().to_path_buf(), ..Options::default() };
    let (store, _) = Store::open(options, START).expect("opens");
    let (before, told_before) = (BYTES.load(Relaxed), told(&store));
    for host in 0..HOSTS {
        for metric in 0..METRICS {
            let (endpoint, metric) =
                (format!("host-{host:04}.dc1"), format!("group{}.metric.name.{metric}", metric % 9));
            let tags = Tags::EMPTY;
            let key = SeriesKey { endpoint: &endpoint, metric: &metric, tags };
            store.create(key, CounterType::Gauge, 60).expect("room");
        }
    }
    let (mut batch, mut tails) = (Vec::with_capacity(METRICS as usize), Tails(Vec::with_capacity(10)));
    for round in 0..40 {
        append_round(&store, round, &mut batch, &mut tails);
    }
    let allocations = ALLOCATIONS.load(Relaxed);
    for round in 40..60 {
        append_round(&store, round, &mut batch, &mut tails);
    }
    let made = ALLOCATIONS.load(Relaxed) - allocations;
    let points = u64::from(HOSTS * METRICS) * 20;
    let series = f64::from(HOSTS * METRICS);
    println!("{made} allocations for {points} points (arena pages, log segments)");
    println!("{:.1} bytes per series with 60 points each", (BYTES.load(Relaxed) - before) as f64 / series);
    println!("{:?}", store.stats());
    println!("{:?}", store.memory());
    let (taken, told) = (BYTES.load(Relaxed) - before, told(&store) - told_before);
    println!("{told} of {taken} bytes are told");
    assert!((taken - told).abs() * 50 < taken, "more than 2 % off");
    // Arena pages hold 2,048 blocks, a log segment 16 MiB: some dozens of allocations, none of them per point or batch.
    assert!(made < 200, "{made} allocations");
    assert!(made < u64::from(HOSTS) * 20 / 5, "fewer than a fifth of the batches");

    // A series that needs no new memory: not one.
    let repeat = |round: i64| {
        let time = START + 60 * round;
        [Sample { series: SeriesId(3), point: Point { time, value: value(3, round) } }]
    };
    store.append(&repeat(60), START, &mut tails).expect("room");
    let allocations = ALLOCATIONS.load(Relaxed);
    for round in 61..1061 {
        store.append(&repeat(round), START, &mut tails).expect("room");
    }
    assert_eq!(ALLOCATIONS.load(Relaxed) - allocations, 0);
}
