//! Metrics: the counters of a process as Prometheus text, and the ledger of the owners of its memory.
//!
//! How: each area of a program has a struct of counters and registers it with [`Metrics::register`]; counters are
//! atomics, and counting costs an uncontended add. Figures that an owner holds anyway (series, bytes) are read from it
//! when the page is asked for ([`Metrics::source`]), so nothing has to be kept in step. Both are the library's
//! registry: a source is one of its collectors. Names end in their unit; the library ends the names of counters in
//! `_total`. The page is made once for all who ask at one time ([`Shared`]).
//! Why the ledger is here: every area that counts holds memory too; who registers counters names its memory there.
//! Invariants: labels come from fixed sets and never from input, so the page cannot grow; a source must not register
//! anything, for the registry is locked while it is asked.

mod figures;
mod process;
mod shared;

pub use figures::Figures;
pub use process::resident_bytes;
pub use shared::Shared;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use stdx::Ledger;

/// The content type of `/metrics`; see [`Metrics::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters and the ledger of one process, or of one part of it that has a page of its own.
pub struct Metrics {
    registry: Mutex<Registry>,
    ledger: Ledger,
    page: Shared<Arc<[u8]>>,
}

impl Metrics {
    /// No counters and no owners yet; names begin with `hawkeye_`.
    pub fn new() -> Metrics {
        Metrics {
            registry: Mutex::new(Registry::with_prefix("hawkeye")),
            ledger: Ledger::new(),
            page: Shared::default(),
        }
    }

    /// The ledger of the owners of memory.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Registers an area's counters, e.g. `metrics.register(|registry| registry.register("x", "…", x.clone()))`.
    pub fn register<R>(&self, with: impl FnOnce(&mut Registry) -> R) -> R {
        with(&mut self.lock())
    }

    /// Adds figures that are read from their owner when the page is asked for.
    pub fn source(&self, source: impl Fn(&mut Figures<'_>) + Send + Sync + 'static) {
        self.lock().register_collector(Box::new(figures::Source::new(source)));
    }

    /// The page for whoever asks over the network: made a moment ago, or now.
    pub fn page(&self) -> Arc<[u8]> {
        self.page.get(Instant::now, || self.text().into_bytes().into())
    }

    /// The page as of now, in Prometheus text format.
    pub fn text(&self) -> String {
        let mut page = String::with_capacity(16 << 10);
        encode_registry(&mut page, &self.lock()).expect("a String takes everything");
        with_names_of_samples(&page)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // A source that panicked has left the registry as it was.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names counters in their HELP and TYPE lines as their samples are named: the library writes OpenMetrics, where a
/// counter is called without `_total`; the older text format wants one name.
fn with_names_of_samples(page: &str) -> String {
    let mut out = String::with_capacity(page.len() + page.len() / 8);
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let (kind, rest) = match line.strip_prefix("# HELP ") {
            Some(rest) => ("# HELP ", rest),
            None => ("# TYPE ", line.strip_prefix("# TYPE ").unwrap_or_default()),
        };
        let name = rest.split(' ').next().unwrap_or_default();
        let is_counter =
            |line: &str| line.strip_prefix("# TYPE ").is_some_and(|rest| rest == format!("{name} counter"));
        if !name.is_empty() && (is_counter(line) || lines.peek().is_some_and(|next| is_counter(next))) {
            out.extend([kind, name, "_total", &rest[name.len()..], "\n"]);
        } else {
            out.extend([line, "\n"]);
        }
    }
    out
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn counters_and_figures_share_a_page() {
        let metrics = Metrics::new();
        let points: Counter = Counter::default();
        points.inc_by(3);
        metrics.register(|registry| registry.register("points", "Points taken", points.clone()));
        metrics.source(|figures| {
            figures.gauge("series", "Series in memory", 2.0);
            figures.gauge("age_seconds", "Age", 0.5);
            figures.counter("merges", "Merges that ended", 1 << 60);
            figures.gauges("memory_bytes", "Memory by owner", "owner", [("index", 7), ("log", 8)]);
        });
        let expected = "\
# HELP hawkeye_points_total Points taken.
# TYPE hawkeye_points_total counter
hawkeye_points_total 3
# HELP hawkeye_series Series in memory.
# TYPE hawkeye_series gauge
hawkeye_series 2
# HELP hawkeye_age_seconds Age.
# TYPE hawkeye_age_seconds gauge
hawkeye_age_seconds 0.5
# HELP hawkeye_merges_total Merges that ended.
# TYPE hawkeye_merges_total counter
hawkeye_merges_total 1152921504606846976
# HELP hawkeye_memory_bytes Memory by owner.
# TYPE hawkeye_memory_bytes gauge
hawkeye_memory_bytes{owner=\"index\"} 7
hawkeye_memory_bytes{owner=\"log\"} 8
";
        assert_eq!(metrics.text(), expected);
        assert_eq!(&*metrics.page(), expected.as_bytes());
    }
}
