//! Handover: events and closings on their way from the judges to the durable queue.
//!
//! Why: the judge has moved on when an event exists, so the event must not be lost where the disk refuses it, and its order per
//! alarm must stay that of the points, also between connections.
//! How: whoever made events writes them at once, under the lock of the shard whose point made them. Conditions over several
//! series give theirs out through the outbox of [`Joins`], in the order in which they were decided; whoever has made one hands
//! over all that wait there.
//! Locks: backlog → queue; the joins' is innermost.
//! Invariants: what cannot be written to the queue is kept (up to [`BACKLOG_MAX`]) and written as soon as it can be, in order.

use crate::clock;
use crate::engine::why;
use events::{Closing, EventQueue, What};
use judge::{Joins, RuleId, Semantics};
use metrics::Figures;
use model::{Event, SeriesKey};
use prometheus_client::metrics::histogram::Histogram;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use stdx::ledger::Report;

/// Events and closings that wait for the disk. An event is about 900 bytes; past it the oldest is dropped and counted.
const BACKLOG_MAX: usize = 20_000;
const BACKLOG_BYTES_MAX: u64 = BACKLOG_MAX as u64 * 900;

/// Buckets of the latency of events: 0.5 ms to 1 s, a factor of two to three apart around what is promised (20 ms).
const LATENCY_S: [f64; 11] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

pub const LATENCY_HELP: &str = "From a message's arrival to its event in the queue";

pub struct Handover {
    joins: Arc<Joins>,
    semantics: Semantics,
    /// None where there are no rules, and so no events.
    queue: Option<Arc<EventQueue>>,
    backlog: Mutex<VecDeque<What>>,
    events: AtomicU64,
    dropped: AtomicU64,
    latency: Histogram,
}

impl Handover {
    pub fn new(joins: Arc<Joins>, semantics: Semantics, queue: Option<Arc<EventQueue>>) -> Handover {
        let (backlog, latency) = (Mutex::default(), Histogram::new(LATENCY_S));
        Handover { joins, semantics, queue, backlog, events: 0.into(), dropped: 0.into(), latency }
    }

    pub fn has_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Seconds from the arrival of a message to each event that it made being in the queue.
    pub fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// As [`Handover::send`], for events of a message that arrived at `arrived`.
    pub fn send_arrived(&self, events: &mut Vec<Event>, arrived: Instant) {
        for _ in 0..self.send(events) {
            self.latency.observe(arrived.elapsed().as_secs_f64());
        }
    }

    /// Writes `events` to the durable queue and clears it. The judge has moved on already, so what the disk refuses waits.
    /// Answers how many there were, with those of the joins.
    pub fn send(&self, events: &mut Vec<Event>) -> usize {
        let count = events.len();
        if count > 0 {
            self.write(&mut lock(&self.backlog), events);
        }
        count + self.hand_over()
    }

    /// Writes what the joins have decided. Their order is kept by the backlog's lock, and whoever made an event goes on only
    /// when it is written, by whomever. Answers how many there were.
    pub fn hand_over(&self) -> usize {
        if !self.joins.is_waiting() {
            return 0;
        }
        let mut backlog = lock(&self.backlog);
        self.joins.hand_over(|events| self.write(&mut backlog, events))
    }

    /// Tells the queue which alarms (by id) are closed, and why: no restart brings them back, and alarm closes their cases.
    pub fn end(&self, closings: Vec<(String, String)>) {
        let Some(queue) = self.queue.as_ref().filter(|_| !closings.is_empty()) else { return };
        // What was decided about them before.
        self.hand_over();
        let time = clock::now();
        let what = |(id, reason): (String, String)| match self.semantics {
            Semantics::OpenFalcon => What::Closed(id),
            Semantics::Hawkeye => {
                tracing::info!(id, reason, "an alarm is closed");
                What::Over(Closing { id, reason, time })
            }
        };
        let closings: Vec<What> = closings.into_iter().map(what).collect();
        let mut backlog = lock(&self.backlog);
        if backlog.is_empty() {
            match queue.append_mixed(&closings) {
                Ok(left_out) => {
                    self.dropped.fetch_add(left_out, Ordering::Relaxed);
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot write to the queue which alarms are closed; it waits in memory")
                }
            }
        }
        self.wait(&mut backlog, closings.into_iter());
    }

    /// Tries again to write what the queue refused, and syncs it.
    pub fn flush(&self) -> std::io::Result<()> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let written = {
            let mut backlog = lock(&self.backlog);
            queue.append_mixed(backlog.make_contiguous()).map(|left_out| {
                self.dropped.fetch_add(left_out, Ordering::Relaxed);
                backlog.clear();
            })
        };
        queue.sync().and(written)
    }

    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.counter("events", "Events that judges made", self.events.load(Ordering::Relaxed));
        figures.counter(
            "events_dropped",
            "Events lost to a full backlog, or longer than the queue takes",
            self.dropped(),
        );
        figures.gauge("events_backlog", "Events that wait for the disk", self.waiting() as f64);
    }

    pub fn report(&self, report: &mut Report) {
        let backlog = lock(&self.backlog);
        let waiting: usize = backlog.iter().map(What::memory_bytes).sum();
        let bytes = waiting + backlog.capacity() * size_of::<What>();
        report.line("events backlog", bytes as u64, Some(BACKLOG_BYTES_MAX), Some(backlog.len() as u64));
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn waiting(&self) -> usize {
        lock(&self.backlog).len()
    }

    fn write(&self, backlog: &mut VecDeque<What>, events: &mut Vec<Event>) {
        let Some(queue) = &self.queue else { return };
        self.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        events.iter().for_each(tell);
        if backlog.is_empty() {
            match queue.append(events) {
                Ok(left_out) => {
                    self.dropped.fetch_add(left_out, Ordering::Relaxed);
                    return events.clear();
                }
                Err(error) => tracing::error!(%error, "cannot write events to the queue; they wait in memory"),
            }
        }
        self.wait(backlog, events.drain(..).map(What::Event));
    }

    /// Puts what the queue refused behind what waits already.
    fn wait(&self, backlog: &mut VecDeque<What>, refused: impl Iterator<Item = What>) {
        for what in refused {
            if backlog.len() >= BACKLOG_MAX {
                backlog.pop_front();
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            backlog.push_back(what);
        }
    }
}

/// A line per event in the log: who asks why somebody was called looks there first.
fn tell(event: &Event) {
    let why = event.explanation.as_deref().map_or(String::new(), why::sentence);
    let (status, endpoint, counter) = (event.status.as_str(), &event.endpoint, event.key().counter());
    let (rule, step) = (RuleId::of(&event.rule), event.current_step);
    let version = event.explanation.as_deref().map_or("", |explanation| &explanation.rule_version);
    tracing::info!(status, endpoint, counter, %rule, version, step, why, "event");
}

/// The id of the events of an alarm.
pub fn alarm_id(rule: RuleId, key: SeriesKey<'_>) -> String {
    match rule {
        RuleId::Strategy(rule) => format!("s_{rule}_{}", key.md5_hex()),
        RuleId::Expression(rule) => format!("e_{rule}_{}", key.md5_hex()),
    }
}

/// A panic while a lock is held leaves a judge or a list that is whole (they change by single assignments); going on is
/// better than a process that refuses every point.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
