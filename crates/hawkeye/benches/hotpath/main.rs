//! `cargo bench -p hawkeye --bench hotpath`: what each step of a point's way costs, and the whole of it: nanoseconds,
//! allocations and allocated bytes per operation.
//!
//! `-- NAME…` measures only steps whose name contains one of these. `-- run NAME COUNT` sets a step up and does it so
//! many times, and prints nothing: bench/instructions.sh runs that under callgrind with two counts and divides the
//! difference, so that a regression shows which a noisy machine hides in the times. Times are the best of many rounds:
//! on a shared machine the others measure the neighbours.

mod judged;
mod stored;
mod wired;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Does an operation so many times; what it works on was made before.
type Work = Box<dyn FnMut(usize)>;

struct Step {
    name: &'static str,
    set_up: fn() -> Work,
}

/// Operations come in batches of this many, as points do. Counts are multiples of it.
const BATCH: usize = 200;

/// Time that a round of a measurement may take, so that a short stretch without neighbours is enough.
const ROUND: Duration = Duration::from_millis(2);
const ROUNDS: usize = 300;

fn main() {
    let mut steps = wired::steps();
    steps.extend(stored::steps());
    steps.extend(judged::steps());
    // `cargo bench` adds --bench.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match &arguments[..] {
        [run, name, count] if run == "run" => {
            let step = steps.iter().find(|step| step.name == name).unwrap_or_else(|| panic!("no step {name}"));
            let count: usize = count.parse().expect("a count");
            let mut work = (step.set_up)();
            work(BATCH);
            work(count / BATCH * BATCH);
        }
        [list] if list == "list" => steps.iter().for_each(|step| println!("{}", step.name)),
        names => {
            println!("{:<26} {:>9} {:>12} {:>9}", "step", "ns", "allocations", "bytes");
            let is_asked =
                |step: &&Step| names.is_empty() || names.iter().any(|name| step.name.contains(name.as_str()));
            steps.iter().filter(is_asked).for_each(measure);
        }
    }
}

fn measure(step: &Step) {
    let mut work = (step.set_up)();
    let mut count = BATCH;
    // Also the warm-up.
    while {
        let began = Instant::now();
        work(count);
        began.elapsed() < ROUND
    } {
        count *= 2;
    }
    let (calls, bytes) = (CALLS.load(Relaxed), BYTES.load(Relaxed));
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        work(count);
        best = best.min(began.elapsed());
    }
    let operations = (ROUNDS * count) as f64;
    let (calls, bytes) = ((CALLS.load(Relaxed) - calls) as f64, (BYTES.load(Relaxed) - bytes) as f64);
    let ns = best.as_nanos() as f64 / count as f64;
    println!("{:<26} {ns:>9.1} {:>12.3} {:>9.1}", step.name, calls / operations, bytes / operations);
}

struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

fn count(bytes: usize) {
    CALLS.fetch_add(1, Relaxed);
    BYTES.fetch_add(bytes as u64, Relaxed);
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
