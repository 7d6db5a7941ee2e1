//! What the process counts about itself, as Prometheus text on `/metrics` of api and admin.
//!
//! How: each area of the program has a struct of counters and registers it under a prefix; names end in their unit.
//! Counters are atomics: counting costs an uncontended add. Values that an owner holds anyway (series, bytes) are read
//! from it when the page is asked for, so nothing has to be kept in step.
//! The ledger is here too, since every area that counts also holds memory: who registers counters names its memory there.
//! Invariants: labels come from fixed sets, never from input, so the page cannot grow.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::sync::Mutex;
use stdx::Ledger;

/// A gauge source: appends lines of Prometheus text.
type Source = Box<dyn Fn(&mut String) + Send + Sync>;

pub struct Metrics {
    registry: Mutex<Registry>,
    sources: Mutex<Vec<Source>>,
    ledger: Ledger,
}

impl Metrics {
    pub fn new() -> Metrics {
        let registry = Mutex::new(Registry::with_prefix("hawkeye"));
        Metrics { registry, sources: Mutex::default(), ledger: Ledger::new() }
    }

    /// Who holds memory, and how much.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Registers an area's counters, e.g. `metrics.register(|registry| registry.register("x", "…", x.clone()))`.
    pub fn register(&self, with: impl FnOnce(&mut Registry)) {
        with(&mut self.registry.lock().expect("no panic while registering"));
    }

    /// Adds gauges that are read from their owner when the page is asked for; use [`push_gauge`] inside.
    pub fn source(&self, source: impl Fn(&mut String) + Send + Sync + 'static) {
        self.sources.lock().expect("no panic while adding").push(Box::new(source));
    }

    /// The page, in Prometheus text format.
    pub fn text(&self) -> String {
        let mut page = String::with_capacity(16 << 10);
        encode(&mut page, &self.registry.lock().expect("no panic while registering")).expect("String");
        // The registry ends its text with the end mark of OpenMetrics; ours comes after all sources.
        page.truncate(page.rfind("# EOF").unwrap_or(page.len()));
        for source in self.sources.lock().expect("no panic while adding").iter() {
            source(&mut page);
        }
        page
    }
}

/// Appends one gauge with its type and help lines. `name` is without the `hawkeye_` prefix and ends in its unit.
pub fn push_gauge(page: &mut String, name: &str, help: &str, value: f64) {
    push_family(page, name, "gauge", help);
    page.push_str(&format!("hawkeye_{name} {value}\n"));
}

/// Appends one counter that its owner keeps; `name` ends in `_total`.
pub fn push_counter(page: &mut String, name: &str, help: &str, value: u64) {
    push_family(page, name, "counter", help);
    page.push_str(&format!("hawkeye_{name} {value}\n"));
}

/// Appends gauges that differ in one label, whose values come from fixed sets.
pub fn push_gauges(
    page: &mut String,
    name: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) {
    push_family(page, name, "gauge", help);
    for (of, value) in values {
        page.push_str(&format!("hawkeye_{name}{{{label}=\"{of}\"}} {value}\n"));
    }
}

fn push_family(page: &mut String, name: &str, kind: &str, help: &str) {
    page.push_str(&format!("# HELP hawkeye_{name} {help}\n# TYPE hawkeye_{name} {kind}\n"));
}
