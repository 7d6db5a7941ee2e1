//! Memory: its owners, beside the figures of the allocator and the system; `/memory` on admin, and gauges on
//! `/metrics`.
//!
//! Why: a server that promises a budget must be able to say where its memory is, in one look and without a profile.
//! Memory without an owner is a line of its own, so that the account cannot be nice and wrong.
//! How: each part registers its owners in the ledger of [`Metrics`] when it is made; here the owners are asked, and put
//! beside the figures of `memory/process.rs`. `memory/page.rs` draws the page. docs/memory.md explains each line.
//! Invariants: names of fields and owners are kept, for scripts read them; asking costs a millisecond and holds no lock
//! for longer than a shard's; nothing is remembered between two looks.

mod page;
mod process;
mod sqlite;

pub use process::measured;
pub use sqlite::register_sqlite;

use axum::Router;
use metrics::{Figures, Metrics};
use process::{Allocator, Process};
use serde::Serialize;
use std::sync::Arc;
use stdx::Ledger;
use stdx::ledger::{Line, Report};

/// The content of the store, by which bytes are divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub series: u64,
    /// Points in memory.
    pub points: u64,
}

/// A section of the page from a part above this layer: JSON, drawn as it is. A closure, since this layer knows no
/// engine.
pub type Section = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// The sources of `/memory`.
#[derive(Clone)]
pub struct Memory {
    pub metrics: Arc<Metrics>,
    /// The size of the store. A closure, since this layer knows no engine.
    pub size: Arc<dyn Fn() -> Size + Send + Sync>,
    /// `memory_budget`.
    pub budget_bytes: u64,
    /// The state of the budget: its level, and what was refused.
    pub budget: Option<Section>,
    /// Growers: endpoints, metrics and tag keys that make new series.
    pub growth: Option<Section>,
}

/// The memory of the process at one moment, under the names of the JSON.
#[derive(Debug, Serialize)]
pub struct MemoryView {
    pub resident_bytes: u64,
    pub budget_bytes: u64,
    pub series: u64,
    pub points: u64,
    pub owners: Vec<Owner>,
    /// The sum of the owners.
    pub owned_bytes: u64,
    /// Allocated bytes without an owner, thread caches excepted.
    pub unaccounted_bytes: u64,
    /// Owners of memory that does not come from the program's allocator.
    pub elsewhere: Vec<Owner>,
    pub allocator: Allocator,
    /// Bytes that are free inside pages in use.
    pub slack_bytes: u64,
    /// Whole pages that the allocator has not given back yet.
    pub dirty_bytes: u64,
    pub process: Process,
    /// Anonymous pages that are not the allocator's.
    pub outside_allocator_bytes: u64,
    /// The rest of resident memory: stacks of threads, less pages that the allocator counts and nobody touched.
    pub other_bytes: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<serde_json::Value>,
}

/// Line of the page: an owner of memory.
#[derive(Debug, Serialize)]
pub struct Owner {
    pub owner: &'static str,
    pub bytes: u64,
    pub bound_bytes: Option<u64>,
    /// The number of things that the bytes hold, where bytes per thing say something.
    pub count: Option<u64>,
    pub bytes_per_series: Option<f64>,
}

/// Names the memory of runtime, log and configuration in the ledger. Call this before any part of the server is made.
pub fn register_start(ledger: &Ledger) {
    let allocator = Allocator::now();
    let bytes = allocator.allocated_bytes.saturating_sub(allocator.thread_cache_bytes);
    ledger.source(move |report| report.line("start", bytes, None, None));
}

/// Gives back the pages of code that nobody uses just now, so that code which only the start needed does not stay
/// resident.
pub fn forget_unused_code() {
    if let Err(error) = crate::watch::code_pages::forget_code_pages() {
        tracing::debug!(%error, "cannot give back pages of code; they stay resident");
    }
}

/// Runs `make`, and names the bytes that it leaves behind in the ledger: for libraries that do not say what they hold.
pub fn register_made<R>(ledger: &Ledger, owner: &'static str, make: impl FnOnce() -> R) -> R {
    let (made, bytes) = measured(make);
    ledger.source(move |report| report.line(owner, bytes, None, None));
    made
}

impl Memory {
    /// An account of the process, whose owners are in the ledger of `metrics`; `size` counts series and points.
    pub fn new(metrics: Arc<Metrics>, budget_bytes: u64, size: impl Fn() -> Size + Send + Sync + 'static) -> Memory {
        Memory { metrics, size: Arc::new(size), budget_bytes, budget: None, growth: None }
    }

    /// The route `/memory`.
    pub fn router(self) -> Router {
        page::router(self)
    }

    /// Shows the figures as gauges on `/metrics`.
    pub fn show(&self) {
        // Not an `Arc`: the metrics hold this closure.
        let metrics = Arc::downgrade(&self.metrics);
        let budget_bytes = self.budget_bytes;
        self.metrics.source(move |figures| {
            let Some(metrics) = metrics.upgrade() else { return };
            show(&MemoryView::of(&metrics.ledger().report(), Size::default(), budget_bytes), figures);
        });
    }

    /// Figures of this moment; reads `/proc`, and asks all owners.
    pub fn look(&self) -> MemoryView {
        MemoryView {
            budget: self.budget.as_ref().map(|section| section()),
            growth: self.growth.as_ref().map(|section| section()),
            ..MemoryView::of(&self.metrics.ledger().report(), (self.size)(), self.budget_bytes)
        }
    }
}

impl MemoryView {
    fn of(report: &Report, size: Size, budget_bytes: u64) -> MemoryView {
        let (allocator, process) = (Allocator::now(), Process::now());
        let owner = |line: &Line| Owner {
            owner: line.owner,
            bytes: line.bytes,
            bound_bytes: line.bound,
            count: line.count,
            bytes_per_series: (size.series > 0).then(|| tenths(line.bytes as f64 / size.series as f64)),
        };
        let owners =
            |elsewhere: bool| report.lines().iter().filter(|line| line.elsewhere == elsewhere).map(owner).collect();
        let outside = process.outside_allocator_bytes();
        let in_use = allocator.allocated_bytes.saturating_sub(allocator.thread_cache_bytes);
        let unaccounted_bytes = in_use.saturating_sub(report.bytes());
        let of_allocator = report.bytes() + unaccounted_bytes + allocator.thread_cache_bytes + allocator.slack_bytes();
        let records_and_free = allocator.metadata_bytes + allocator.dirty_bytes();
        let known = of_allocator + records_and_free + outside + process.file_bytes + process.shared_bytes;
        MemoryView {
            resident_bytes: process.resident_bytes,
            budget_bytes,
            series: size.series,
            points: size.points,
            owners: owners(false),
            owned_bytes: report.bytes(),
            unaccounted_bytes,
            elsewhere: owners(true),
            allocator,
            slack_bytes: allocator.slack_bytes(),
            dirty_bytes: allocator.dirty_bytes(),
            process,
            outside_allocator_bytes: outside,
            other_bytes: process.resident_bytes as i64 - known as i64,
            budget: None,
            growth: None,
        }
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn show(look: &MemoryView, figures: &mut Figures<'_>) {
    let owners = || look.owners.iter().chain(&look.elsewhere);
    let held = owners().map(|owner| (owner.owner, owner.bytes));
    figures.gauges("memory_bytes", "Memory by owner", "owner", held);
    let bounds = owners().filter_map(|owner| Some((owner.owner, owner.bound_bytes?)));
    figures.gauges("memory_bound_bytes", "Most bytes that an owner may hold", "owner", bounds);
    let process = &look.process;
    let resident = [
        ("anonymous", process.anonymous_bytes),
        ("file", process.file_bytes),
        ("shared", process.shared_bytes),
        ("outside_allocator", look.outside_allocator_bytes),
    ];
    figures.gauges("resident_part_bytes", "Resident memory by kind of page", "kind", resident);
    let allocator = &look.allocator;
    let gauges = [
        ("memory_budget_bytes", "The setting memory_budget", look.budget_bytes),
        ("memory_unaccounted_bytes", "Allocated, and nobody's", look.unaccounted_bytes),
        ("allocator_allocated_bytes", "What the program has of its allocator", allocator.allocated_bytes),
        ("allocator_thread_cache_bytes", "Of that: kept by threads for later", allocator.thread_cache_bytes),
        ("allocator_active_bytes", "Pages with anything in them", allocator.active_bytes),
        ("allocator_metadata_bytes", "The allocator's own records", allocator.metadata_bytes),
        ("allocator_resident_bytes", "Pages of the allocator with memory behind them", allocator.resident_bytes),
        ("allocator_retained_bytes", "Address space that the allocator keeps", allocator.retained_bytes),
        ("resident_max_bytes", "The most that was resident", process.resident_max_bytes),
    ];
    for (name, help, value) in gauges {
        figures.gauge(name, help, value as f64);
    }
}
