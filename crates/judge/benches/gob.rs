//! `cargo bench -p judge --bench gob`: `Judge.Send` from its bytes to judged windows, on one core, with allocations per
//! item.
//!
//! Hosts send what agents send: 50 series in batches of 200 items, a quarter of them with tags. Each ten calls count at
//! their best of many rounds, with the mean beside it: on a shared machine that measures the neighbours.

use judge::{Fate, Judge, Options, Room, RuleSet, Windows};
use model::{CounterType, Event, Expression, Point, Rules, SeriesKey, Strategy, Tags};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use wire::gob::client::Requests;
use wire::gob::{Decoder, GobScratch, JudgeItem};

const HOSTS: usize = 2000;
const METRICS: usize = 50;
const BATCH: usize = 200;
/// Calls that are timed together.
const SLICE: usize = 10;
const ROUNDS: i64 = 40;
const BASE: i64 = 1_600_002_000;
/// Points that fill every window before anything is measured.
const WARM: i64 = 6;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of `System.alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those of `System.dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is judged: how many of the hosts' 50 metrics have a rule.
struct Side {
    judge: Judge,
    windows: Windows,
    events: Vec<Event>,
}

impl Side {
    /// `strategies` on as many metrics of every host, and `expressions` on as many others.
    fn new(strategies: usize, expressions: usize) -> Side {
        let strategy = |i: usize| {
            let (metric, func, operator) = (format!("metric.number{i}"), "all(#3)".to_string(), ">".to_string());
            let (id, right_value) = (i as i64, 1e12);
            Arc::new(Strategy { id, metric, func, operator, right_value, max_step: 3, ..Strategy::default() })
        };
        let list: Arc<[Arc<Strategy>]> = (0..strategies).map(strategy).collect();
        let expression = |i: usize| {
            let (metric, func, operator) = (format!("metric.number{i}"), "all(#3)".to_string(), ">".to_string());
            let tags = [("iface".to_string(), "eth0".to_string())].into_iter().collect();
            let (id, right_value) = (i as i64, 1e12);
            Arc::new(Expression { id, metric, tags, func, operator, right_value, max_step: 3, ..Expression::default() })
        };
        // Every fourth metric has tags, from the last on.
        let expressions = (0..METRICS).rev().filter(|i| i % 4 == 3).take(expressions).map(expression).collect();
        let hosts: HashMap<_, _> = (0..HOSTS).map(|host| (host_name(host), list.clone())).collect();
        let options = Options::default();
        let mut judge = Judge::new(options);
        judge.load(RuleSet::compile(&Rules { version: 1, hosts, expressions }, &options).0);
        Side { judge, windows: Windows::new(0, 1, Arc::new(Room::new(1 << 20))), events: Vec::new() }
    }

    #[inline]
    fn take(&mut self, item: JudgeItem<'_>, now: i64) -> Fate {
        let key = SeriesKey { endpoint: item.endpoint, metric: item.metric, tags: Tags::assume_canonical(item.tags) };
        let counter_type = if item.judge_type.starts_with('G') { CounterType::Gauge } else { CounterType::Counter };
        let point = Point { time: item.timestamp, value: item.value };
        self.windows.take(&mut self.judge, key, counter_type, point, now, &mut self.events)
    }
}

fn host_name(host: usize) -> String {
    format!("web-shanghai-{host:04}")
}

/// The calls of one minute of all hosts, as one connection's bytes.
fn minute(requests: &mut Requests, minute: i64, out: &mut Vec<u8>) {
    let names: Vec<String> = (0..HOSTS).map(host_name).collect();
    let metrics: Vec<String> = (0..METRICS).map(|i| format!("metric.number{i}")).collect();
    let item = |i: usize| JudgeItem {
        endpoint: &names[i / METRICS],
        metric: &metrics[i % METRICS],
        value: (i % 97) as f64 / 3.0,
        timestamp: BASE + minute * 60,
        judge_type: "GAUGE",
        tags: if i % METRICS % 4 == 3 { "iface=eth0" } else { "" },
    };
    out.clear();
    for batch in 0..HOSTS * METRICS / BATCH {
        requests.judge_send(out, batch as u64, (batch * BATCH..(batch + 1) * BATCH).map(item));
    }
}

fn main() {
    println!("{HOSTS} hosts of {METRICS} series, {BATCH} items per call, one core");
    decode_alone();
    for (what, strategies, expressions) in [
        ("no series has a rule", 0, 0),
        ("half of the series have all(#3)", 20, 5),
        ("every series has all(#3)", METRICS, 0),
    ] {
        run(what, Side::new(strategies, expressions));
    }
}

fn decode_alone() {
    let mut sum = 0.0;
    measure("decode alone", |item, _| sum += item.value);
    assert!(sum > 0.0);
}

fn run(what: &str, mut side: Side) {
    measure(&format!("decode, windows, judge: {what}"), |item, now| {
        side.take(item, now);
    });
    assert!(side.events.is_empty());
    let (series, windows) = (side.windows.len(), side.windows.memory_bytes());
    let judge = side.judge.stats().memory_bytes;
    if series > 0 {
        let per = |bytes: usize| bytes as f64 / series as f64;
        println!("{:>60} {series} series, {:.0} + {:.0} bytes each", "", per(windows), per(judge));
    }
}

fn measure(what: &str, mut take: impl FnMut(JudgeItem<'_>, i64)) {
    let (mut requests, mut stream) = (Requests::new(), Vec::new());
    let (mut decoder, mut scratch) = (Decoder::new(16 << 20), GobScratch::new());
    // Of each slice of calls, the best time of all rounds.
    let mut best = vec![f64::INFINITY; HOSTS * METRICS / BATCH / SLICE];
    let (mut all, mut allocations) = (0.0, 0);
    for round in 0..ROUNDS {
        minute(&mut requests, round, &mut stream);
        let now = BASE + round * 60;
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let (mut rest, mut items) = (&stream[..], 0);
        for best in &mut best {
            let start = Instant::now();
            for _ in 0..SLICE {
                let (consumed, call) = decoder.next(rest).expect("own gob").expect("a whole call");
                let each = &mut |item: JudgeItem<'_>| {
                    items += 1;
                    take(item, now);
                };
                call.judge_items(&decoder, &mut scratch, each).expect("own items");
                rest = &rest[consumed..];
            }
            let seconds = start.elapsed().as_secs_f64();
            if round >= WARM {
                *best = best.min(seconds);
                all += seconds;
            }
        }
        assert_eq!((items, rest.len()), (HOSTS * METRICS, 0));
        if round >= WARM {
            allocations += ALLOCATIONS.load(Ordering::Relaxed) - before;
        }
    }
    let (items, rounds) = ((HOSTS * METRICS) as f64, (ROUNDS - WARM) as f64);
    let (best, mean) = (items / best.iter().sum::<f64>() / 1e6, items * rounds / all / 1e6);
    let per_item = allocations as f64 / (items * rounds);
    println!("{what:<60} {best:5.2} M items/s (mean {mean:.2}), {per_item:.4} allocations/item");
}
