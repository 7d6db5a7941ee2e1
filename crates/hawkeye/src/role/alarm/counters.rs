//! Counters of alarm, and the gauges of what waits and what is held.
//!
//! Invariants: labels are kinds and results from the code, never texts from outside.

use super::plan::{MISSING, Missing};
use crate::portal::delivery::Kind;
use events::EventQueue;
use metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UntoldLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    kind: &'static str,
    result: &'static str,
}

/// End of an attempt or of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// The attempt failed. The delivery stays, but for a callback that may have been received: that is its end.
    Failed,
    /// The process ended during the callback, and nobody knows whether it was received.
    Unknown,
    /// The callback leads to where `alarm.callback_allow` lets none go.
    Denied,
    /// The delivery failed for too long, or can never succeed.
    GivenUp,
}

impl Ended {
    fn as_str(self) -> &'static str {
        match self {
            Ended::Done => "done",
            Ended::Failed => "failed",
            Ended::Unknown => "unknown",
            Ended::Denied => "denied",
            Ended::GivenUp => "given_up",
        }
    }
}

/// Counts of events and deliveries, and the figures of what waits; clones share them.
#[derive(Clone, Default)]
pub struct AlarmMetrics {
    events: Family<EventLabels, Counter>,
    deliveries: Family<DeliveryLabels, Counter>,
    /// Deliveries given up because too many or too old ones waited.
    pub dropped: Counter,
    untold: Family<UntoldLabels, Counter>,
    /// Messages that had receivers, but the configuration has no gateway for them.
    pub without_channel: Counter,
    /// Messages of low priority that became one with others.
    pub merged: Counter,
    /// Entries that were taken from Redis, and those that could not be read.
    pub redis_taken: Counter,
    pub redis_refused: Counter,
    /// Events in the queue's files that could not be read.
    pub unreadable: Counter,
    /// Times that the portal's database or the queue's files failed; alarm tries again.
    pub failures: Counter,
    waiting: Arc<AtomicU64>,
    targets_failing: Arc<AtomicU64>,
    deliveries_bytes: Arc<AtomicU64>,
    clients_bytes: Arc<AtomicU64>,
}

impl AlarmMetrics {
    /// Puts the counters and gauges on the metrics page, and the bytes into the ledger.
    pub fn register(&self, metrics: &Metrics, queue: &Arc<EventQueue>, deliveries_max: usize) {
        // A counter that begins with its first event looks to Prometheus as if that one had not been.
        MISSING.into_iter().for_each(|missing| _ = self.untold_counter(missing));
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("alarm");
            registry.register("events", "Events stored, by status", self.events.clone());
            registry.register("deliveries", "Attempts and ends of deliveries, by kind", self.deliveries.clone());
            registry.register(
                "deliveries_dropped",
                "Deliveries given up for their number or age",
                self.dropped.clone(),
            );
            registry.register("events_untold", "Events that told nobody, by reason", self.untold.clone());
            registry.register(
                "messages_without_channel",
                "Messages that have no gateway",
                self.without_channel.clone(),
            );
            registry.register(
                "messages_merged",
                "Messages of low priority that became one with others",
                self.merged.clone(),
            );
            registry.register("redis_taken", "Entries that were taken from Redis", self.redis_taken.clone());
            registry.register(
                "redis_refused",
                "Entries of Redis that could not be read, or were too long",
                self.redis_refused.clone(),
            );
            registry.register("events_unreadable", "Events that the queue could not read", self.unreadable.clone());
            registry.register("storage_failures", "Failures of database or queue", self.failures.clone());
        });
        let (deliveries_bytes, clients_bytes) = (self.deliveries_bytes.clone(), self.clients_bytes.clone());
        metrics.ledger().source(move |report| {
            report.line("alarm deliveries", deliveries_bytes.load(Ordering::Relaxed), None, None);
            report.line("delivery clients", clients_bytes.load(Ordering::Relaxed), None, None);
        });
        let (waiting, failing, queue) = (self.waiting.clone(), self.targets_failing.clone(), queue.clone());
        metrics.source(move |figures| {
            let gauge = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
            figures.gauge("alarm_deliveries_waiting", "Deliveries that wait", gauge(&waiting));
            figures.gauge("alarm_deliveries_max", "Most deliveries that may wait", deliveries_max as f64);
            figures.gauge("alarm_targets_failing", "Targets whose last attempt failed", gauge(&failing));
            let stats = queue.stats();
            figures.gauge("event_queue_bytes", "Bytes of the event queue's files", stats.bytes as f64);
            figures.gauge(
                "event_queue_bytes_max",
                "Most bytes that the event queue's files may have",
                queue.bytes_max() as f64,
            );
            figures.gauge("open_problems", "Alarms that stand at PROBLEM", stats.open_problems as f64);
            figures.counter("event_queue_appended", "Events appended to the queue since the start", stats.appended);
        });
    }

    /// Shows the bytes of the batch at hand and of attempts under way.
    pub fn show_deliveries_bytes(&self, bytes: usize) {
        self.deliveries_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    /// Shows the bytes of the HTTP clients: most of them are the certificates that they trust.
    pub fn show_clients_bytes(&self, bytes: u64) {
        self.clients_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Counts an event that was stored with `status`.
    pub fn event(&self, status: &'static str) {
        self.events.get_or_create(&EventLabels { status }).inc();
    }

    /// Counts an event that told nobody.
    pub fn untold(&self, missing: Missing) {
        self.untold_counter(missing).inc();
    }

    /// The number of events that told nobody for want of this.
    pub fn untold_counter(&self, missing: Missing) -> Counter {
        self.untold.get_or_create(&UntoldLabels { reason: missing.as_str() }).clone()
    }

    /// Counts an end of an attempt or a delivery; `None` is a kind that this version does not know.
    pub fn delivery(&self, kind: Option<Kind>, ended: Ended) {
        let kind = kind.map_or("unknown", Kind::as_str);
        self.deliveries.get_or_create(&DeliveryLabels { kind, result: ended.as_str() }).inc();
    }

    /// Shows the number of deliveries that wait.
    pub fn show_waiting(&self, count: u64) {
        self.waiting.store(count, Ordering::Relaxed);
    }

    /// Shows the number of targets whose last attempt failed.
    pub fn show_failing(&self, count: usize) {
        self.targets_failing.store(count as u64, Ordering::Relaxed);
    }

    /// Number of ends of this sort that deliveries of `kind` had.
    #[cfg(test)]
    pub fn count(&self, kind: Kind, ended: Ended) -> u64 {
        self.deliveries.get_or_create(&DeliveryLabels { kind: kind.as_str(), result: ended.as_str() }).get()
    }
}
