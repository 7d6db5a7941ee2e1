//! Handover: events and closings on their way from the judges to the durable queue.
//!
//! Why: the judge has moved on when an event exists, so the event must not be lost where the disk refuses it, and its
//! order per alarm must stay that of the points, also between connections.
//! How: whoever made events writes them at once, under the lock of the shard whose point made them. Conditions over
//! several series give theirs out through the outbox of [`Joins`], in the order in which they were decided; whoever has
//! made one hands over all that wait there.
//! Locks: backlog → queue; the joins' is innermost, the log's too. All of them are taken under the lock of a shard and
//! of its judge. Under them a message may write its events to the queue's file and leave lines for the log
//! ([`EventLog`]), no more. Whoever answers the message waits for the disk afterwards ([`Handover::settle`]);
//! [`Handover::flush`] writes the lines.
//! Invariants: what cannot be written to the queue is kept (up to [`BACKLOG_MAX`]) and written as soon as it can be, in
//! order; while something waits, no message is answered ([`Handover::is_waiting`]): what was answered survives a kill.

use crate::clock;
use crate::engine::{locks, why};
use events::{AlarmEnd, Entry, EventQueue, Problems};
use judge::{Joins, RuleId, Semantics};
use metrics::Figures;
use model::{Event, SeriesKey};
use prometheus_client::metrics::histogram::Histogram;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use stdx::RankedMutex;
use stdx::ledger::Report;

/// Events and closings that may wait for the disk, about 900 bytes each; beyond them the oldest is dropped and counted.
const BACKLOG_MAX: usize = 20_000;
const BACKLOG_BYTES_MAX: u64 = BACKLOG_MAX as u64 * 900;

/// Lines of events that may wait for the log: a second's worth. Events beyond them are in the queue all the same, and
/// counted.
const LOG_LINES_MAX: usize = 1000;

const REFUSED: &str = "cannot write events to the queue; they wait in memory";

/// Buckets of the latency of events: 0.5 ms to 1 s, a factor of two to three apart around what is promised (20 ms).
const LATENCY_S: [f64; 11] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// Help text of the histogram of [`Handover::latency`] on the metrics page.
pub const LATENCY_HELP: &str = "From a message's arrival to its event in the queue";

/// Events and closings between the judges and the durable queue.
pub struct Handover {
    joins: Arc<Joins>,
    semantics: Semantics,
    /// Durable queue; none in a process that judges no rules, and so makes no events.
    queue: Option<Arc<EventQueue>>,
    /// Entries that the queue refused. Held for one write to the queue's file (of all that waits, in
    /// [`Handover::flush`]), for no read and no sync.
    backlog: RankedMutex<VecDeque<Entry>>,
    /// Number of entries of the backlog, for whoever only asks.
    waiting: AtomicUsize,
    /// Held to move events in or out, never while a line is written.
    log: RankedMutex<EventLog>,
    /// Highest sequence number that was written to the queue.
    written_seq: AtomicU64,
    events: AtomicU64,
    dropped: AtomicU64,
    latency: Histogram,
}

/// Lines for the log, written once no lock is held that points wait for.
#[derive(Default)]
struct EventLog {
    events: Vec<Event>,
    left_out: u64,
    /// Last refusal of the disk, and what follows from it.
    fault: Option<(&'static str, io::Error)>,
}

impl EventLog {
    fn push(&mut self, events: impl ExactSizeIterator<Item = Event>) {
        let room = LOG_LINES_MAX - self.events.len();
        self.left_out += events.len().saturating_sub(room) as u64;
        self.events.extend(events.take(room));
    }

    fn tell(self) {
        self.events.iter().for_each(tell);
        if self.left_out > 0 {
            tracing::warn!(count = self.left_out, "more events than the log takes: see /api/v1/alarm/events");
        }
        if let Some((text, error)) = self.fault {
            tracing::error!(%error, "{text}");
        }
    }
}

impl Handover {
    /// A handover to `queue`; without one nobody may make events.
    pub fn new(joins: Arc<Joins>, semantics: Semantics, queue: Option<Arc<EventQueue>>) -> Handover {
        let backlog = RankedMutex::new(locks::BACKLOG, VecDeque::new());
        let latency = Histogram::new(LATENCY_S);
        let (log, written_seq) = (RankedMutex::new(locks::EVENT_LOG, EventLog::default()), AtomicU64::new(0));
        Handover {
            joins,
            semantics,
            queue,
            backlog,
            waiting: 0.into(),
            log,
            written_seq,
            events: 0.into(),
            dropped: 0.into(),
            latency,
        }
    }

    /// Whether there is a queue, without which no rules may be loaded.
    pub fn has_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Seconds between the arrival of a message and the moment when each of its events is in the queue.
    pub fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Does what [`Handover::send`] does for events of a message that arrived at `arrived`, and measures their latency.
    pub fn send_arrived(&self, events: &mut Vec<Event>, arrived: Instant) -> usize {
        let count = self.send(events);
        for _ in 0..count {
            self.latency.observe(arrived.elapsed().as_secs_f64());
        }
        count
    }

    /// Writes `events` to the durable queue and clears it. The judge has moved on already, so what the disk refuses
    /// waits. Answers how many there were, with those of the joins.
    pub fn send(&self, events: &mut Vec<Event>) -> usize {
        let count = events.len();
        if count > 0 {
            self.write(&mut self.backlog.lock(), events);
        }
        count + self.hand_over()
    }

    /// Writes what the joins have decided. The backlog's lock keeps the order, and whoever made an event goes on only
    /// when the event is written, by whatever thread. Answers the number of events.
    pub fn hand_over(&self) -> usize {
        if !self.joins.is_waiting() {
            return 0;
        }
        let mut backlog = self.backlog.lock();
        self.joins.hand_over(|events| self.write(&mut backlog, events))
    }

    /// Tells the queue which alarms (by id) are closed, and why: no restart brings them back, and alarm closes their
    /// cases. `is_open_again` is asked, by the place in `closings`, behind each look at what is open and before the end
    /// is written: an alarm that went on meanwhile is looked at once more. Call this without a lock: files are read.
    pub fn end(&self, closings: Vec<(String, String)>, is_open_again: impl Fn(usize) -> bool) {
        let Some(queue) = self.queue.as_ref().filter(|_| !closings.is_empty()) else { return };
        // What was decided about them before.
        self.hand_over();
        let time = clock::now();
        let entries = |left: &[usize]| -> Vec<Entry> {
            left.iter().map(|index| self.end_entry(closings[*index].clone(), time)).collect()
        };
        let mut left: Vec<usize> = (0..closings.len()).collect();
        loop {
            let problems = queue.read_problems(&entries(&left));
            left.retain(|index| !is_open_again(*index));
            if left.is_empty() || self.try_end(queue, &entries(&left), &problems) {
                break;
            }
        }
        if self.semantics == Semantics::Hawkeye {
            for (id, reason) in left.iter().map(|index| &closings[*index]) {
                tracing::info!(id, reason, "an alarm is closed");
            }
        }
        self.settle();
    }

    fn end_entry(&self, (id, reason): (String, String), time: i64) -> Entry {
        match self.semantics {
            Semantics::OpenFalcon => Entry::Forget(id),
            Semantics::Hawkeye => Entry::End(AlarmEnd { id, reason, time }),
        }
    }

    /// Writes the ends; false when an alarm went on while its PROBLEM was read.
    fn try_end(&self, queue: &EventQueue, closings: &[Entry], problems: &Problems) -> bool {
        let mut backlog = self.backlog.lock();
        if backlog.is_empty() {
            match queue.append_mixed(closings, problems) {
                Ok(receipt) => {
                    self.note(receipt);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => self.log.lock().fault = Some((REFUSED, error)),
            }
        }
        self.wait(&mut backlog, closings.iter().cloned());
        true
    }

    /// Waits until what was written is on the disk, under `graph.fsync = "always"`: for whoever answers a message that
    /// made events, and holds no lock any more. What cannot be forced to the disk is tried again by
    /// [`Handover::flush`].
    pub fn settle(&self) {
        let Some(queue) = &self.queue else { return };
        if let Err(error) = queue.wait_synced(self.written_seq.load(Ordering::Acquire)) {
            self.log.lock().fault = Some(("events may not survive a power cut until they are written again", error));
        }
    }

    fn note(&self, receipt: events::Receipt) {
        self.dropped.fetch_add(receipt.left_out, Ordering::Relaxed);
        self.written_seq.fetch_max(receipt.seq, Ordering::Release);
    }

    /// Tries again to write what the queue refused, syncs it, and writes the log's lines.
    pub fn flush(&self) -> io::Result<()> {
        let Some(queue) = &self.queue else { return Ok(()) };
        let written = loop {
            match self.write_backlog(queue) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => break written,
            }
        };
        let ticked = queue.tick();
        std::mem::take(&mut *self.log.lock()).tell();
        for trouble in queue.take_troubles() {
            if trouble.is_loss() { tracing::error!("{trouble}") } else { tracing::warn!("{trouble}") }
        }
        ticked.and(written)
    }

    fn write_backlog(&self, queue: &EventQueue) -> io::Result<()> {
        let ends: Vec<Entry> =
            self.backlog.lock().iter().filter(|entry| matches!(entry, Entry::End(_))).cloned().collect();
        let problems = queue.read_problems(&ends);
        let mut backlog = self.backlog.lock();
        self.note(queue.append_mixed(backlog.make_contiguous(), &problems)?);
        backlog.clear();
        self.waiting.store(0, Ordering::Release);
        Ok(())
    }

    /// Appends the figures of the handover to the metrics page.
    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.counter("events", "Events that judges made", self.events.load(Ordering::Relaxed));
        figures.counter(
            "events_dropped",
            "Events lost to a full backlog, or longer than the queue takes",
            self.dropped(),
        );
        figures.gauge("events_backlog", "Events that wait for the disk", self.waiting() as f64);
    }

    /// Names the backlog's bytes, and its bound, in the ledger.
    pub fn report(&self, report: &mut Report) {
        let backlog = self.backlog.lock();
        let waiting: usize = backlog.iter().map(Entry::memory_bytes).sum();
        let bytes = waiting + backlog.capacity() * size_of::<Entry>();
        report.line("events backlog", bytes as u64, Some(BACKLOG_BYTES_MAX), Some(backlog.len() as u64));
    }

    /// Number of events and closings that were dropped from a full backlog since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Number of events and closings that wait for the disk.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Whether events wait for the disk, which only memory holds until then. Messages are answered with an error
    /// meanwhile, all of them: a point that comes again makes no second event, and must not be answered for the first.
    pub fn is_waiting(&self) -> bool {
        self.waiting() > 0
    }

    fn write(&self, backlog: &mut VecDeque<Entry>, events: &mut Vec<Event>) {
        let Some(queue) = &self.queue else { return };
        self.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        if backlog.is_empty() {
            match queue.append(events) {
                Ok(receipt) => {
                    self.note(receipt);
                    return self.log.lock().push(events.drain(..));
                }
                Err(error) => self.log.lock().fault = Some((REFUSED, error)),
            }
        }
        self.log.lock().push(events.clone().into_iter());
        self.wait(backlog, events.drain(..).map(Entry::Event));
    }

    /// Puts what the queue refused at the end of the backlog.
    fn wait(&self, backlog: &mut VecDeque<Entry>, refused: impl Iterator<Item = Entry>) {
        for what in refused {
            if backlog.len() >= BACKLOG_MAX {
                backlog.pop_front();
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            backlog.push_back(what);
        }
        self.waiting.store(backlog.len(), Ordering::Release);
    }
}

/// Writes the log's line of an event: who asks why somebody was called looks there first.
fn tell(event: &Event) {
    let why = event.explanation.as_deref().map_or(String::new(), why::sentence);
    let (status, endpoint, counter) = (event.status.as_str(), &event.endpoint, event.key().counter());
    let (rule, step) = (RuleId::of(&event.rule), event.current_step);
    let version = event.explanation.as_deref().map_or("", |explanation| &explanation.rule_version);
    tracing::info!(status, endpoint, counter, %rule, version, step, why, "event");
}

/// Id of an alarm, which all its events share.
pub fn alarm_id(rule: RuleId, key: SeriesKey<'_>) -> String {
    match rule {
        RuleId::Strategy(rule) => format!("s_{rule}_{}", key.md5_hex()),
        RuleId::Expression(rule) => format!("e_{rule}_{}", key.md5_hex()),
    }
}
