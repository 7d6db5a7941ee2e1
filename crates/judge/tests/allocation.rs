//! Memory, counted at the allocator: nothing per point, and the bytes per bound pair of series and rule.

use judge::{Fate, Judge, Options, Room, RuleSet, Windows};
use model::{CounterType, Event, Expression, Point, Rules, Sample, SeriesId, SeriesKey, Strategy, Tags};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

struct Counting;

// Per thread, so that the test harness and other tests do not disturb the figures.
thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the system's allocator; the counters are plain cells of the thread that
// need no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        BYTES.with(|bytes| bytes.set(bytes.get() + layout.size() as i64));
        // SAFETY: the caller's promises are those of `System.alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.with(|bytes| bytes.set(bytes.get() - layout.size() as i64));
        // SAFETY: the caller's promises are those of `System.dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn bytes() -> i64 {
    BYTES.with(Cell::get)
}

/// Points that are computed, so that the window itself needs no memory.
struct Ramp {
    newest: i64,
    value: f64,
}

impl judge::PointSource for Ramp {
    fn tail(&self, _: SeriesId, count: usize, out: &mut Vec<Point>) {
        out.extend((0..count as i64).map(|i| Point { time: self.newest - i * 60, value: self.value - i as f64 }));
    }

    fn meta(&self, _: SeriesId) -> Option<(CounterType, u32)> {
        Some((CounterType::Gauge, 60))
    }

    fn key(&self, _: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        use_key(SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY });
    }
}

const HOSTS: usize = 500;
/// Series per host, and how many of them have a strategy; what issue 2's load has.
const METRICS: usize = 200;
const STRATEGIES: usize = 40;

fn rules(per_metric: usize) -> Rules {
    rules_of(&FUNCTIONS, per_metric)
}

const FUNCTIONS: [&str; 7] =
    ["all(#3)", "max(#5)", "avg(#10)", "lookup(#2,3)", "pdiff(#3)", "stddev(#10)", "kdiff(#2,3)"];

fn rules_of(functions: &[&str], per_metric: usize) -> Rules {
    let strategy = |id: usize| {
        let (metric, func) = (format!("m{}", id % STRATEGIES), functions[id % functions.len()].to_string());
        let id = id as i64;
        Arc::new(Strategy {
            id,
            metric,
            func,
            operator: ">".into(),
            right_value: 1e12,
            max_step: 3,
            ..Strategy::default()
        })
    };
    let list: Arc<[Arc<Strategy>]> = (0..STRATEGIES * per_metric).map(strategy).collect();
    let hosts = (0..HOSTS).map(|host| (format!("host{host}"), list.clone())).collect();
    Rules { version: 1, hosts, expressions: Vec::new() }
}

fn bind_all(judge: &mut Judge, counter_type: CounterType) {
    for host in 0..HOSTS {
        let endpoint = format!("host{host}");
        for number in 0..METRICS {
            let metric = format!("m{number}");
            let key = SeriesKey { endpoint: &endpoint, metric: &metric, tags: Tags::EMPTY };
            judge.bind(SeriesId((host * METRICS + number) as u32), key, counter_type);
        }
    }
}

#[test]
fn nothing_is_allocated_per_point() {
    for counter_type in [CounterType::Gauge, CounterType::Counter] {
        let mut judge = Judge::new(Options::default());
        let programs =
            ["all(#3) and max(#2) > 1000000 recover 5", "nodata(#3) and max(#1) > 1000000", "avg(#3) outside -9..9"];
        judge.load(RuleSet::compile(&rules_of(&[&FUNCTIONS[..], &programs].concat(), 2), &Options::default()).0);
        bind_all(&mut judge, counter_type);
        let mut events: Vec<Event> = Vec::new();
        let before = allocations();
        for round in 0..4 {
            let window = Ramp { newest: 1_600_000_020 + round * 60, value: round as f64 };
            for series in 0..(HOSTS * METRICS) as u32 {
                let series = SeriesId(series);
                let point = Point { time: window.newest, value: window.value };
                judge.on_point(Sample { series, point }, counter_type, 60, &window, window.newest, &mut events);
            }
        }
        assert_eq!(allocations() - before, 0);
        assert_eq!(events.len(), 0);
    }
}

/// A judge alone: of the series that have a rule, and of those that have none.
#[test]
fn windows_allocate_nothing_per_item() {
    let options = Options::default();
    let mut judge = Judge::new(options);
    judge.load(RuleSet::compile(&rules(2), &options).0);
    let mut windows = Windows::new(0, 1, Arc::new(Room::new(HOSTS * METRICS)));
    let hosts: Vec<String> = (0..HOSTS).map(|host| format!("host{host}")).collect();
    let metrics: Vec<String> = (0..METRICS).map(|number| format!("m{number}")).collect();
    let mut events: Vec<Event> = Vec::new();
    let (mut before, mut judged) = (0, 0);
    for round in 0..14 {
        let point = Point { time: 1_600_000_020 + round * 60, value: round as f64 };
        for (endpoint, metric) in hosts.iter().flat_map(|host| metrics.iter().map(move |metric| (host, metric))) {
            let key = SeriesKey { endpoint, metric, tags: Tags::EMPTY };
            let taken = windows.take(&mut judge, key, CounterType::Gauge, point, point.time, &mut events);
            judged += usize::from(taken == Fate::Judged);
        }
        if round == 0 {
            before = allocations();
        }
    }
    assert_eq!(allocations() - before, 0);
    assert_eq!((judged, windows.len(), events.len()), (14 * HOSTS * STRATEGIES, HOSTS * STRATEGIES, 0));
}

/// A condition over three series of each host: nothing per point, once each has spoken.
#[test]
fn conditions_over_several_series_allocate_nothing_per_point() {
    let mut judge = Judge::new(Options::default());
    let strategy = Strategy {
        id: 1,
        metric: "m0".into(),
        func: "all(#3) and max(#20) of m1 > 1000000 or nodata(#5) of m2".into(),
        operator: ">".into(),
        right_value: 1e12,
        max_step: 3,
        ..Strategy::default()
    };
    let list: Arc<[Arc<Strategy>]> = [Arc::new(strategy)].into();
    let hosts = (0..HOSTS).map(|host| (format!("host{host}"), list.clone())).collect();
    judge.load(RuleSet::compile(&Rules { version: 1, hosts, expressions: Vec::new() }, &Options::default()).0);
    bind_all(&mut judge, CounterType::Gauge);
    let mut events: Vec<Event> = Vec::new();
    let mut before = 0;
    for round in 0..4 {
        let window = Ramp { newest: 1_600_000_020 + round * 60, value: round as f64 };
        for series in 0..(HOSTS * METRICS) as u32 {
            let sample = Sample { series: SeriesId(series), point: Point { time: window.newest, value: window.value } };
            judge.on_point(sample, CounterType::Gauge, 60, &window, window.newest, &mut events);
        }
        judge.tick(window.newest, &window, &mut events);
        if round == 0 {
            before = allocations();
        }
    }
    assert_eq!((allocations() - before, events.len(), judge.joins().is_waiting()), (0, 0, false));
    let stats = judge.joins().stats();
    let bytes = stats.memory_bytes / stats.count;
    println!("{bytes} bytes per host with a condition over three series");
    assert_eq!((stats.count, stats.carriers, stats.others), (HOSTS, HOSTS, 2 * HOSTS));
    assert!(bytes < 2048, "{bytes}");
}

#[test]
fn a_bound_pair_costs_a_few_bytes_and_an_unbound_series_none() {
    for per_metric in [1, 3] {
        let set = RuleSet::compile(&rules(per_metric), &Options::default()).0;
        let mut judge = Judge::new(Options::default());
        judge.load(set);
        let before = bytes();
        bind_all(&mut judge, CounterType::Gauge);
        let used = bytes() - before;
        let stats = judge.stats();
        assert_eq!(stats.bound_series, HOSTS * STRATEGIES);
        assert_eq!(stats.bound_pairs, HOSTS * STRATEGIES * per_metric);
        let per_pair = used as f64 / stats.bound_pairs as f64;
        println!("{per_metric} rules per series: {per_pair:.1} bytes per bound pair, of {} series", stats.bound_series);
        assert!(per_pair <= 24.0, "{per_pair}");
        // The judge's own account agrees with the allocator's.
        assert!((stats.memory_bytes as i64 - used).abs() < 4096, "{} {used}", stats.memory_bytes);
    }
}

/// The worst number of series for a table that doubles, and every series with a list of its own.
#[test]
fn the_worst_case_is_bounded() {
    let mut judge = Judge::new(Options::default());
    judge.load(RuleSet::compile(&rules(1), &Options::default()).0);
    let before = bytes();
    let count = 57_345u32;
    for series in 0..count {
        let key = SeriesKey { endpoint: "host1", metric: "m1", tags: Tags::EMPTY };
        judge.bind(SeriesId(series * 8), key, CounterType::Gauge);
    }
    let per_pair = (bytes() - before) as f64 / f64::from(count);
    println!("{count} series with one rule, just after the table has doubled: {per_pair:.1} bytes per pair");
    assert!(per_pair <= 24.0, "{per_pair}");
}

#[test]
fn binding_again_and_again_does_not_grow() {
    let options = Options::default();
    let expression = |id: i64, right_value| {
        let tags = [("endpoint".to_string(), format!("host{}", id % 500))].into();
        let (func, operator) = ("all(#1)".to_string(), ">".to_string());
        Arc::new(Expression { id, metric: "m1".into(), tags, func, operator, right_value, ..Expression::default() })
    };
    let mut judge = Judge::new(options);
    let mut after_first = 0;
    for round in 0..8 {
        let mut rules = rules(2);
        rules.expressions = (0..1000).map(|id| expression(id + round, round as f64)).collect();
        judge.load(RuleSet::compile(&rules, &options).0);
        bind_all(&mut judge, CounterType::Gauge);
        if round == 1 {
            after_first = judge.stats().memory_bytes;
        }
    }
    let last = judge.stats().memory_bytes;
    assert!(last <= after_first * 5 / 4, "{after_first} {last}");
}
