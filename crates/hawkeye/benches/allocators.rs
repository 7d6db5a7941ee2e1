//! `cargo bench -p hawkeye --bench allocators`: the allocators that the server could use, under the server's kind of
//! load.
//!
//! Why: the choice of jemalloc, and of its settings (.cargo/config.toml), is to be measured and not believed. How: the
//! program starts itself once for each allocator, named by a variable of the environment which is read at the first
//! allocation. The child does what the server does: makes 100,000 series and takes an hour of their points, in batches,
//! from two threads; writes them to blocks and lets three quarters of the series leave memory; then allocates and frees
//! a burst of 200 MiB in pieces of the sizes of requests and answers. Printed: anonymous resident memory after each of
//! these, and CPU time.

use model::{CounterType, Point, Sample, SeriesId, SeriesKey, Tags};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, c_char};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use store::{Options, Store};

const NAMES: [&str; 3] = ["jemalloc", "mimalloc", "system"];
const VARIABLE: &CStr = c"HAWKEYE_BENCH_ALLOCATOR";
const HOSTS: u32 = 500;
const METRICS: u32 = 200;
const ROUNDS: i64 = 60;
const START: i64 = 1_600_000_020;
const BURST_BYTES: usize = 200 << 20;
/// jemalloc's settings give freed pages back after a second.
const PAUSE: Duration = Duration::from_secs(3);

fn main() {
    let variable = VARIABLE.to_str().expect("ASCII");
    if let Ok(name) = std::env::var(variable) {
        return load(&name);
    }
    println!("anonymous resident MiB: {HOSTS} hosts × {METRICS} series, {ROUNDS} points each");
    let columns = ["empty", "loaded", "three quarters asleep", "burst", "after 3 s", "CPU s"];
    println!("{:<10} {}", "", columns.map(|column| format!("{column:>22}")).join(""));
    for name in NAMES {
        let program = std::env::current_exe().expect("this program has a path");
        let status = std::process::Command::new(program).env(variable, name).status().expect("it starts again");
        assert!(status.success(), "{name}: {status}");
    }
}

fn load(name: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut figures = vec![anonymous_mib()];
    let options = Options { dir: dir.path().into(), silent_s: 3600, flush_bytes: usize::MAX, ..Options::default() };
    let (store, _) = Store::open(options, START).expect("opens");
    for i in 0..HOSTS * METRICS {
        let (endpoint, metric) = (format!("host-{:05}.dc1", i / METRICS), format!("metric.name.{}", i % METRICS));
        let key = SeriesKey { endpoint: &endpoint, metric: &metric, tags: Tags::EMPTY };
        store.create(key, CounterType::Gauge, 60).expect("room");
    }
    take_points(&store, 0..HOSTS, 0..ROUNDS);
    figures.push(anonymous_mib());
    // A quarter goes on for hours; nobody writes to the others any more.
    take_points(&store, 0..HOSTS / 4, ROUNDS..3 * ROUNDS);
    let now = START + 60 * 3 * ROUNDS;
    store.flush(now).expect("room");
    for minute in 0..3 {
        store.sleep_silent(now + 60 * minute, &mut |_, _| {}).expect("room");
    }
    std::thread::sleep(PAUSE);
    figures.push(anonymous_mib());
    let burst = burst();
    figures.push(anonymous_mib());
    drop(burst);
    std::thread::sleep(PAUSE);
    figures.push(anonymous_mib());
    let figures: String = figures.iter().map(|mib| format!("{mib:>22.1}")).collect();
    println!("{name:<10} {figures}{:>22.2}", cpu_seconds());
}

/// Two threads, as connections do: whole hosts, round by round.
fn take_points(store: &Store, hosts: std::ops::Range<u32>, rounds: std::ops::Range<i64>) {
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (hosts, rounds) = (hosts.clone(), rounds.clone());
            scope.spawn(move || {
                for round in rounds {
                    for host in hosts.clone().filter(|host| host % 2 == half) {
                        let time = START + 60 * round;
                        let value =
                            |i: u32| f64::from(i % 17) + if i.is_multiple_of(5) { round as f64 * 1.7 } else { 0.0 };
                        let sample = |i: u32| Sample { series: SeriesId(i), point: Point { time, value: value(i) } };
                        let batch: Vec<Sample> = (host * METRICS..(host + 1) * METRICS).map(sample).collect();
                        store.append(&batch, time, &mut ()).expect("room");
                    }
                }
            });
        }
    });
}

/// Pieces from 64 bytes to 256 KiB, half of which are freed at once, as requests beside long answers.
fn burst() -> Vec<Vec<u8>> {
    let (mut kept, mut bytes, mut i) = (Vec::new(), 0, 0usize);
    while bytes < BURST_BYTES {
        let piece = vec![i as u8; 64 << (i * 7 % 13)];
        bytes += piece.len();
        i += 1;
        if i.is_multiple_of(2) {
            kept.push(piece);
        } else {
            black_box(piece);
        }
    }
    kept
}

fn anonymous_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line of it");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("kilobytes") / 1024.0
}

/// User and system time of all threads: fields 14 and 15, in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit(')').next().expect("after the name").split(' ').skip(12).take(2);
    fields.map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
}

struct Chosen;

static JEMALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
static MIMALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
/// Place in [`NAMES`] and one; 0 before the first allocation.
static CHOSEN: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
}

impl Chosen {
    #[inline]
    fn get() -> &'static dyn GlobalAlloc {
        match CHOSEN.load(Relaxed) {
            0 => Chosen::choose(),
            1 => &JEMALLOC,
            2 => &MIMALLOC,
            _ => &System,
        }
    }

    #[cold]
    fn choose() -> &'static dyn GlobalAlloc {
        // SAFETY: the name ends with a zero byte; nobody changes the environment before the first allocation, which is
        // made before any thread starts.
        let name = unsafe { getenv(VARIABLE.as_ptr()) };
        // SAFETY: what getenv answers ends with a zero byte too, unless it is null.
        let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) });
        let known = |name: &CStr| NAMES.iter().position(|known| known.as_bytes() == name.to_bytes());
        CHOSEN.store(name.and_then(known).unwrap_or(NAMES.len() - 1) + 1, Relaxed);
        Chosen::get()
    }
}

// SAFETY: every call is handed on unchanged, all of a process to the same allocator.
unsafe impl GlobalAlloc for Chosen {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { Chosen::get().alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { Chosen::get().dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { Chosen::get().realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Chosen = Chosen;
