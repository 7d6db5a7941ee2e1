//! The door: items of every protocol become samples of known series, and are stored and judged.
//!
//! How: [`Ingest::begin`] a batch, push each item that a decoder lends, [`Batch::finish`]. A push checks the item's
//! time, aligns it to its step, finds its series in the table, and appends a [`Sample`]. Items of unknown series wait
//! (with their texts) until all are pushed, since the table is held for reading meanwhile (but let go every
//! [`HELD_ITEMS`]); then they are created, and the whole batch goes to the engine.
//! Invariants: a batch is all or nothing towards the log, item by item towards `Invalid`; a point is answered after it
//! is in the log and after the events it caused are in the durable queue; a batch that the disk refuses is judged, as
//! far as its series are known, and answered with the error; nothing is allocated per point of a known series.
//! Compat: docs/open-falcon/transfer.md §3–4 (alignment, minStep), docs/open-falcon/wire.md §2; items of an old
//! transfer, which has done both, keep their step and must have a time and texts that the original graph takes
//! (docs/open-falcon/graph.md §3). No time means now, as in the original. A time beyond twice now is read in
//! milliseconds, microseconds or nanoseconds where that makes sense, and means now, as in the original, where it does
//! not; a time between `ingest.future_max` ahead and that is refused (the original takes it, and the series is dead
//! from then on), and so is one before the retention (the original says nothing and drops it). Who sends times that
//! cannot be right is named ([`super::oddities`]).

use super::text;
use crate::engine::handover::LATENCY_HELP;
use crate::engine::host_clocks::{Notes, Says};
use crate::engine::oddities::{Met, Oddity};
use crate::engine::pressure::Pressure;
use crate::engine::{Engine, IngestError};
use crate::watch::health::Health;
use metrics::Metrics;
use model::{CounterType, Point, Sample, SeriesKey, Tags};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use stdx::ledger::{Account, Held};
use wire::gob::{GraphItem, JudgeItem};
use wire::{Item, JsonError, Scratch};

/// Longest step in seconds: a longer one than a week is a mistake (milliseconds, a time), and the table keeps 32 bits.
const STEP_MAX: u32 = 7 * 86_400;
/// Longest endpoint text in bytes: the width of the host table's column.
const ENDPOINT_BYTES_MAX: usize = 255;

/// Items between two pauses of the table's read lock. A message of 16 MiB is decoded for some 100 ms; new series of
/// other senders must not wait for that.
const HELD_ITEMS: usize = 4096;

/// Items of new series that may wait with their texts, some 200 bytes each: a message may hold a hundred thousand.
const UNKNOWN_MAX: usize = 4096;

/// Units that times come in besides seconds, and how many of each make a second.
const UNITS: [(&str, i64); 3] = [("ms", 1000), ("us", 1_000_000), ("ns", 1_000_000_000)];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DoorLabel {
    door: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabel {
    door: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UnitLabel {
    door: &'static str,
    unit: &'static str,
}

/// The protocol by which items came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Rpc,
    Http,
    Telnet,
    /// Go gob of `Graph.Send`, from an old transfer.
    Graph,
    /// Go gob of `Judge.Send`, from an old transfer.
    Judge,
    /// Points computed over groups, by this server.
    Aggregator,
    /// Points that stand for silent series, by this server.
    Nodata,
    /// What probes find that this server runs, and what their places say together.
    Probe,
    /// Points about jobs, by this server.
    Job,
}

impl Door {
    /// Whether what comes by it has the time of a host's clock, and not of this server's.
    fn has_times_of_hosts(self) -> bool {
        !matches!(self, Door::Aggregator | Door::Nodata | Door::Probe | Door::Job)
    }

    /// Label of the door in counters.
    pub fn name(self) -> &'static str {
        match self {
            Door::Rpc => "rpc",
            Door::Http => "http",
            Door::Telnet => "telnet",
            Door::Graph => "graph",
            Door::Judge => "judge",
            Door::Aggregator => "aggregator",
            Door::Nodata => "nodata",
            Door::Probe => "probe",
            Door::Job => "job",
        }
    }
}

/// The way in of all items, with its counters.
pub struct Ingest {
    engine: Arc<Engine>,
    pressure: Arc<Pressure>,
    min_step: u32,
    future_max_s: i64,
    received: Family<DoorLabel, Counter>,
    refused: Family<RefusedLabel, Counter>,
    failed: Family<DoorLabel, Counter>,
    /// Items that were kept and judged.
    taken: AtomicU64,
    /// Items whose time was not in seconds; unit `none`: it counts as now.
    rescaled: Family<UnitLabel, Counter>,
    /// Ledger's account of the buffers that threads keep for their next batch.
    buffers: Account,
}

/// Answer to the sender of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub total: usize,
    pub invalid: usize,
}

/// Buffers that a thread refills for each batch.
#[derive(Default)]
struct Buffers {
    scratch: Scratch,
    tags: String,
    samples: Vec<Sample>,
    unknown: Vec<Unknown>,
    /// Bytes of these buffers that the ledger knows.
    held: Option<Held>,
}

impl Buffers {
    fn memory_bytes(&self) -> usize {
        self.scratch.memory_bytes()
            + self.tags.capacity()
            + self.samples.capacity() * size_of::<Sample>()
            + self.unknown.capacity() * size_of::<Unknown>()
    }
}

/// An item whose series, type or step the table does not hold yet.
struct Unknown {
    endpoint: String,
    metric: String,
    tags: String,
    counter_type: CounterType,
    step: u32,
    point: Point,
}

/// Samples that a thread's buffer keeps room for; a batch above it gives its memory back.
const SAMPLES_KEPT: usize = 4096;

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl Ingest {
    /// A door to `engine`. What is refused, and why, is counted in `metrics`.
    pub fn new(
        engine: Arc<Engine>,
        pressure: Arc<Pressure>,
        min_step: u32,
        future_max_s: i64,
        metrics: &Metrics,
    ) -> Ingest {
        let ingest = Ingest {
            engine,
            pressure,
            min_step,
            future_max_s,
            received: Family::default(),
            refused: Family::default(),
            failed: Family::default(),
            taken: AtomicU64::new(0),
            rescaled: Family::default(),
            buffers: metrics.ledger().account("ingest buffers", None),
        };
        metrics.register(|registry| {
            registry.register("items_received", "Items that came in, valid or not", ingest.received.clone());
            registry.register("items_refused", "Items counted as Invalid", ingest.refused.clone());
            let help = "Items whose time was not in seconds, by unit; none: it counts as now";
            registry.register("items_time_unit", help, ingest.rescaled.clone());
            let latency = ingest.engine.event_latency().clone();
            registry.register("event_latency_seconds", LATENCY_HELP, latency);
            registry.register("batches_failed", "Batches answered with an error", ingest.failed.clone());
        });
        ingest
    }

    /// Has `/health` say while points cannot be kept.
    pub fn told_to(self, health: &Health) -> Ingest {
        self.engine.unkept().tell(health);
        self
    }

    /// Begins a batch that came by `door` at `now` (Unix seconds).
    pub fn begin(&self, door: Door, now: i64) -> Batch<'_> {
        Batch {
            ingest: self,
            lookup: Lookup { engine: &self.engine, finder: None, endpoint: 0, items: 0 },
            door,
            now,
            arrived: Instant::now(),
            sender: None,
            odd: Met::default(),
            oldest: self.engine.store().oldest_kept(now),
            buffers: BUFFERS.take(),
            received: Received::default(),
            clocks: Notes::of(&self.engine.intake().clocks),
            fault: None,
            is_kept: false,
        }
    }

    /// Items that came by a door since the start, valid or not.
    pub fn received_by(&self, door: Door) -> u64 {
        self.received.get_or_create(&DoorLabel { door: door.name() }).get()
    }

    /// Items that were kept and judged since the start.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The smallest step of an item (seconds).
    pub fn min_step(&self) -> u32 {
        self.min_step
    }

    /// The engine behind the door.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn count_refused(&self, door: Door, reason: &'static str) {
        self.refused.get_or_create(&RefusedLabel { door: door.name(), reason }).inc();
    }
}

/// A batch on its way: what is pushed is kept by [`Batch::finish`]; a batch that is dropped before counts as failed,
/// and nothing of it is kept.
pub struct Batch<'b> {
    ingest: &'b Ingest,
    lookup: Lookup<'b>,
    door: Door,
    now: i64,
    arrived: Instant,
    /// Address of whoever measured, where the door knows it.
    sender: Option<IpAddr>,
    odd: Met,
    /// Oldest time that the store keeps (Unix seconds).
    oldest: i64,
    /// Buffers of the thread, which gets them back when the batch is dropped.
    buffers: Buffers,
    received: Received,
    clocks: Notes<'b>,
    /// Reason for which some series could not be created: the batch is to be sent again.
    fault: Option<IngestError>,
    is_kept: bool,
}

/// Finds series for a batch.
struct Lookup<'b> {
    engine: &'b Engine,
    /// Holds the series table for reading.
    finder: Option<store::Finder<'b>>,
    /// Place of the endpoint of the series that was found last.
    endpoint: u32,
    /// Number of items looked up since the table's lock was taken.
    items: usize,
}

impl Lookup<'_> {
    #[inline]
    fn find(&mut self, key: SeriesKey<'_>) -> Option<store::Found> {
        let finder = self.finder.get_or_insert_with(|| self.engine.finder());
        let found = finder.find(key);
        self.endpoint = finder.endpoint();
        self.items += 1;
        if self.items == HELD_ITEMS {
            // Let go here and taken anew by the next: who waits to write comes in between.
            self.let_go();
        }
        found
    }

    fn let_go(&mut self) {
        (self.finder, self.items) = (None, 0);
    }
}

impl Batch<'_> {
    /// Names the address of the host that sends the batch. A door behind which others stand does not know it.
    pub fn from(mut self, sender: IpAddr) -> Self {
        self.sender = Some(sender.to_canonical());
        self
    }

    /// Pushes the items of a JSON array of metric objects; those that cannot be used are refused one by one.
    pub fn push_json(&mut self, array: &[u8]) -> Result<(), JsonError> {
        let mut scratch = std::mem::take(&mut self.buffers.scratch);
        let decoded = wire::decode_items(array, &mut scratch, &mut |item| match item {
            Ok(item) => self.push(&item),
            Err(invalid) => self.refuse(invalid.as_str()),
        });
        self.buffers.scratch = scratch;
        decoded.map(|_| ())
    }

    /// Pushes an item as an agent or a script sends it.
    pub fn push(&mut self, item: &Item<'_>) {
        self.received.total += 1;
        let own_time = match item.timestamp {
            ..=0 => None,
            time if time > self.now.saturating_mul(2) => self.seconds(item),
            time => Some(time),
        };
        self.keep(item, item.step.max(self.ingest.min_step), own_time);
    }

    /// Pushes an item that a transfer has aligned to its own smallest step. An item without a time (0 or less) is
    /// refused.
    pub fn push_aligned(&mut self, item: &GraphItem<'_>) {
        match item.check() {
            Ok(item) if item.timestamp <= 0 => self.refuse("no_time"),
            Ok(checked) => {
                self.received.total += 1;
                self.keep(&checked, checked.step, Some(checked.timestamp));
            }
            Err(invalid) => self.refuse(invalid.as_str()),
        }
    }

    /// Pushes an item that a transfer has aligned to a step that the item does not tell: the step of the series, or the
    /// least there is. A transfer sends the same item to a graph; what comes twice is kept and judged once.
    pub fn push_without_step(&mut self, item: &JudgeItem<'_>) {
        let tags = Tags::canonical(item.tags, &mut self.buffers.tags);
        let key = SeriesKey { endpoint: item.endpoint, metric: item.metric, tags };
        let step = self.lookup.find(key).map_or(self.ingest.min_step, |found| found.step);
        match item.check(step) {
            Ok(item) if item.timestamp <= 0 => self.refuse("no_time"),
            Ok(checked) => {
                self.received.total += 1;
                self.keep(&checked, step, Some(checked.timestamp));
            }
            Err(invalid) => self.refuse(invalid.as_str()),
        }
    }

    /// Counts an item that came and cannot be used.
    pub fn refuse(&mut self, reason: &'static str) {
        self.received.total += 1;
        self.leave_out(reason);
    }

    /// Stores and judges what was pushed. On an error the batch is to be sent again; it may have been judged, for the
    /// points of known series are judged also where the disk takes nothing.
    pub fn finish(mut self) -> Result<Received, IngestError> {
        self.create_unknown();
        // The table must be free from here on.
        self.lookup.let_go();
        let kept = self.ingest.engine.append(&self.buffers.samples, self.now, self.arrived);
        self.ingest.engine.seen_from(self.sender, &self.buffers.samples, self.now);
        self.ingest.engine.oddities().note_all(std::mem::take(&mut self.odd), self.sender, self.now);
        match self.fault.take().map_or(kept, Err) {
            Ok(()) => {
                self.is_kept = true;
                self.ingest.engine.unkept().kept();
                let label = DoorLabel { door: self.door.name() };
                self.ingest.received.get_or_create(&label).inc_by(self.received.total as u64);
                let taken = self.received.total - self.received.invalid;
                self.ingest.taken.fetch_add(taken as u64, Ordering::Relaxed);
                Ok(self.received)
            }
            Err(error) => {
                if error.is_of_disk() {
                    self.ingest.engine.unkept().refused(&error);
                }
                Err(error)
            }
        }
    }

    /// A time that is far beyond now in seconds, in the unit in which it is near; none, where there is none.
    fn seconds(&mut self, item: &Item<'_>) -> Option<i64> {
        let near = self.now / 2..=self.now.saturating_mul(2);
        let found = UNITS.into_iter().find(|(_, per_second)| near.contains(&(item.timestamp / per_second)));
        let unit = found.map_or("none", |(unit, _)| unit);
        self.ingest.rescaled.get_or_create(&UnitLabel { door: self.door.name(), unit }).inc();
        let Some((_, per_second)) = found else {
            let detail = || format!("{} has time {}", item.metric, item.timestamp);
            self.odd.add(Oddity::UnreadableTime, item.endpoint, detail);
            return None;
        };
        Some(item.timestamp / per_second)
    }

    fn leave_out(&mut self, reason: &'static str) {
        self.received.invalid += 1;
        self.ingest.count_refused(self.door, reason);
    }

    /// Refuses an item for its time, and notes what its host's clock says if the series is known.
    fn refuse_time(&mut self, item: &Item<'_>, time: i64, says: Says, reason: &'static str) {
        self.leave_out(reason);
        let tags = Tags::canonical(item.tags, &mut self.buffers.tags);
        let key = SeriesKey { endpoint: item.endpoint, metric: item.metric, tags };
        if says != Says::Timely && self.lookup.find(key).is_some() {
            self.clocks.note(self.lookup.endpoint, says, time.saturating_sub(self.now));
        }
    }

    /// Keeps an item with its own time, or as of now where it has none.
    fn keep(&mut self, item: &Item<'_>, step: u32, own_time: Option<i64>) {
        if step > STEP_MAX {
            return self.leave_out("step_too_long");
        }
        if item.endpoint.len() > ENDPOINT_BYTES_MAX {
            return self.leave_out("endpoint_too_long");
        }
        let time = own_time.unwrap_or(self.now);
        let says = Says::of(time, self.now, self.ingest.future_max_s);
        if says == Says::Ahead {
            self.odd.add_ahead(item.endpoint, time.saturating_sub(self.now));
            return self.refuse_time(item, time, says, "future");
        }
        let point = Point { time: model::point::align(time, step), value: item.value };
        if point.time < self.oldest {
            return self.refuse_time(item, time, says, "too_old");
        }
        let tags = Tags::canonical(item.tags, &mut self.buffers.tags);
        let key = SeriesKey { endpoint: item.endpoint, metric: item.metric, tags };
        let found = self.lookup.find(key);
        if found.is_some() && own_time.is_some() && self.door.has_times_of_hosts() {
            self.clocks.note(self.lookup.endpoint, says, time.saturating_sub(self.now));
        }
        if let Some(found) =
            found.filter(|found| found.step == step && is_type(self.door, found.counter_type, item.counter_type))
        {
            return self.buffers.samples.push(Sample { series: found.id, point });
        }
        // Of a series that exists the texts were looked at before.
        let texts = [item.endpoint, item.metric, tags.as_str()];
        if matches!(self.door, Door::Graph | Door::Judge) && found.is_none() && !texts.into_iter().all(text::is_valid) {
            return self.leave_out("bad_text");
        }
        self.buffers.unknown.push(Unknown {
            endpoint: item.endpoint.to_string(),
            metric: item.metric.to_string(),
            tags: tags.as_str().to_string(),
            counter_type: item.counter_type,
            step,
            point,
        });
        if self.buffers.unknown.len() == UNKNOWN_MAX {
            self.create_unknown();
        }
    }

    /// Creates series for what the table did not hold, up to the first fault, and refuses those that have no room.
    fn create_unknown(&mut self) {
        self.lookup.let_go();
        let mut unknown = std::mem::take(&mut self.buffers.unknown);
        sort_each_series(&mut unknown);
        for item in unknown.drain(..) {
            if self.fault.is_none() {
                self.create(&item);
            }
        }
        self.buffers.unknown = unknown;
    }

    fn create(&mut self, item: &Unknown) {
        let (engine, pressure) = (&self.ingest.engine, &self.ingest.pressure);
        let key =
            SeriesKey { endpoint: &item.endpoint, metric: &item.metric, tags: Tags::assume_canonical(&item.tags) };
        // One whose type or step changes is in memory already.
        if !engine.store().is_awake(key) && !pressure.admit(key, self.now) {
            return self.leave_out("memory_budget");
        }
        match engine.create(key, item.counter_type, item.step, item.point.time) {
            Ok(series) => self.buffers.samples.push(Sample { series, point: item.point }),
            Err(error) if error.refuses_series() => self.leave_out("series_max"),
            Err(error) => self.fault = Some(error),
        }
    }
}

impl Drop for Batch<'_> {
    /// Gives the thread its buffers back. They are emptied here and not by the next batch, for which this thread may
    /// wait long.
    fn drop(&mut self) {
        if !self.is_kept {
            self.ingest.failed.get_or_create(&DoorLabel { door: self.door.name() }).inc();
        }
        let mut buffers = std::mem::take(&mut self.buffers);
        buffers.samples.clear();
        buffers.samples.shrink_to(SAMPLES_KEPT);
        buffers.unknown.clear();
        buffers.unknown.shrink_to(SAMPLES_KEPT);
        let bytes = buffers.memory_bytes();
        buffers.held.get_or_insert_with(|| self.ingest.buffers.hold()).set(bytes);
        BUFFERS.set(buffers);
    }
}

/// Puts the items of each series in the order of their times, and leaves it the places that it has: a series that
/// changes its type among them does so at one time, and all get their ids in the order in which they came.
fn sort_each_series(items: &mut Vec<Unknown>) {
    if items.len() < 2 {
        return;
    }
    let by_series =
        |a: &Unknown, b: &Unknown| (&a.endpoint, &a.metric, &a.tags).cmp(&(&b.endpoint, &b.metric, &b.tags));
    let mut places: Vec<usize> = (0..items.len()).collect();
    places.sort_by(|a, b| by_series(&items[*a], &items[*b]));
    let mut sorted = places.clone();
    sorted.sort_by(|a, b| {
        let (a, b) = (&items[*a], &items[*b]);
        by_series(a, b).then(a.point.time.cmp(&b.point.time))
    });
    let mut placed: Vec<(usize, usize)> = places.into_iter().zip(sorted).collect();
    placed.sort_unstable();
    let mut taken: Vec<Option<Unknown>> = items.drain(..).map(Some).collect();
    items.extend(placed.into_iter().filter_map(|(_, from)| taken[from].take()));
}

/// Whether a series keeps its type. A transfer calls every counter DERIVE towards graph, and by its name towards judge;
/// that is no reason to change a series back and forth.
fn is_type(door: Door, known: CounterType, sent: CounterType) -> bool {
    known == sent || matches!(door, Door::Graph | Door::Judge) && known.ds_type() == sent.ds_type()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use events::EventQueue;
    use events::Fsync;
    use net::patience::PATIENCE;
    use std::sync::mpsc;

    fn ingest(dir: &std::path::Path, budget: u64) -> Ingest {
        let options = store::Options { dir: dir.join("store"), shard_count: 1, ..store::Options::default() };
        let (store, _) = store::Store::open(options, clock::now()).expect("a store");
        let queue = EventQueue::open(&dir.join("events"), Fsync::Never, clock::now()).expect("a queue").0;
        let engine = Engine::new(store, 1, judge::Options::default(), Some(Arc::new(queue)));
        Ingest::new(Arc::new(engine), Arc::new(Pressure::new(budget, clock::now())), 30, 300, &Metrics::new())
    }

    fn gauge(metric: &str, timestamp: i64) -> Item<'_> {
        Item { endpoint: "h", metric, value: 1.0, step: 60, counter_type: CounterType::Gauge, tags: "", timestamp }
    }

    #[test]
    fn new_series_of_others_do_not_wait_for_a_long_message() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ingest = ingest(dir.path(), u64::MAX);
        let now = clock::now();
        let mut created = None;
        let mut batch = ingest.begin(Door::Telnet, now);
        for i in 0..3 * HELD_ITEMS {
            if i == 2 * HELD_ITEMS {
                // Now and not later: the decoder goes on when this returns.
                let (done, wait) = mpsc::channel();
                let engine = ingest.engine.clone();
                std::thread::spawn(move || {
                    let key = SeriesKey { endpoint: "other", metric: "m", tags: Tags::EMPTY };
                    done.send(engine.create(key, CounterType::Gauge, 60, 0).is_ok()).expect("somebody waits");
                });
                // In vain only when the table is held to the end of the message.
                created = wait.recv_timeout(PATIENCE).ok();
            }
            batch.push(&gauge("m", now));
        }
        batch.finish().expect("room");
        assert_eq!(created, Some(true));
        assert_eq!(ingest.engine.store().stats().series, 2);
    }

    /// Over budget the points of known series are taken, also when their type changes, and new series are Invalid.
    #[test]
    fn without_memory_only_new_series_are_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        let item = |metric: &str, kind: &str| {
            let now = clock::now();
            format!(
                r#"{{"endpoint":"h","metric":"{metric}","value":1,"step":60,"counterType":"{kind}","timestamp":{now}}}"#
            )
        };
        let send = |ingest: &Ingest, items: [String; 2]| {
            let mut batch = ingest.begin(Door::Rpc, clock::now());
            batch.push_json(format!("[{}]", items.join(",")).as_bytes()).expect("JSON");
            batch.finish().expect("room on the disk")
        };
        let roomy = ingest(dir.path(), u64::MAX);
        assert_eq!(send(&roomy, [item("a", "GAUGE"), item("b", "GAUGE")]), Received { total: 2, invalid: 0 });
        let full = Ingest { pressure: Arc::new(Pressure::new(1, clock::now())), ..roomy };
        assert_eq!(send(&full, [item("a", "COUNTER"), item("c", "GAUGE")]), Received { total: 2, invalid: 1 });
        assert_eq!(full.engine.store().stats().series, 2);
        let report = full.pressure.growth_report();
        assert_eq!((report.refused, report.metrics[0].name.as_str()), (1, "c"));
        assert_eq!(report.last_refused.map(|last| last.counter), Some("c".to_string()));
    }

    /// Hosts by what their clocks said: of known series only, and never of those who report in time.
    #[test]
    fn hosts_are_asked_for_the_time_and_invented_names_are_not() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ingest = ingest(dir.path(), u64::MAX);
        let now = clock::now();
        let send = |endpoints: &[&str], timestamp: i64| {
            let mut batch = ingest.begin(Door::Rpc, now).from(IpAddr::from([10, 0, 0, 1]));
            endpoints.iter().for_each(|endpoint| batch.push(&Item { endpoint, ..gauge("m", timestamp) }));
            batch.finish().expect("room");
        };
        let hosts = || {
            let hosts = ingest.engine.intake().clocks.hosts();
            [hosts.timely, hosts.ahead, hosts.behind]
        };
        // Series are made by the first batch, and known from then on.
        send(&["a", "b", "c", "d"], now);
        send(&["a", "b"], now);
        assert_eq!(hosts(), [2, 0, 0]);
        let invented: Vec<String> = (0..1000).map(|number| format!("x{number}")).collect();
        send(&invented.iter().map(String::as_str).collect::<Vec<_>>(), now + 1000);
        assert_eq!(hosts(), [2, 0, 0], "names that were never kept");
        send(&["a", "b"], now + 1000);
        assert_eq!(hosts(), [2, 0, 0], "somebody under the names of hosts that report");
        (0..100).for_each(|_| send(&["c"], now + 1000));
        assert_eq!(hosts(), [2, 1, 0]);
        // No time of its own, or none that anybody can read, says nothing; a time in milliseconds does.
        send(&["d"], 0);
        send(&["d"], i64::MAX);
        assert_eq!(hosts(), [2, 1, 0]);
        // A value that this server puts in the place of a silent host's is no word of that host.
        let mut batch = ingest.begin(Door::Nodata, now);
        batch.push(&Item { endpoint: "d", ..gauge("m", now - 120) });
        batch.finish().expect("kept");
        assert_eq!(hosts(), [2, 1, 0]);
        send(&["d"], (now - 2 * 86_400) * 1000);
        assert_eq!(hosts(), [2, 1, 1]);
        // Older than anything that is kept.
        ingest.engine.intake().clocks.forget();
        send(&["d"], 86_400);
        send(&["d"], now - 5 * 365 * 86_400);
        assert_eq!(hosts(), [0, 0, 1]);
    }

    #[test]
    fn every_door_refuses_what_has_no_memory() {
        let dir = tempfile::tempdir().expect("temp dir");
        let full = Ingest { pressure: Arc::new(Pressure::new(1, clock::now())), ..ingest(dir.path(), u64::MAX) };
        let now = clock::now();
        let (ds_type, min, max) = ("GAUGE", "U", "U");
        let (endpoint, metric, tags, heartbeat) = ("h", "m", "", 120);
        let aligned =
            GraphItem { endpoint, metric, tags, value: 1.0, timestamp: now, ds_type, step: 60, heartbeat, min, max };
        let without_step = JudgeItem { endpoint, metric, value: 1.0, timestamp: now, judge_type: "GAUGE", tags };
        let doors = [Door::Rpc, Door::Http, Door::Telnet, Door::Graph, Door::Judge];
        for door in doors {
            let mut batch = full.begin(door, now);
            match door {
                Door::Graph => batch.push_aligned(&aligned),
                Door::Judge => batch.push_without_step(&without_step),
                Door::Rpc | Door::Http | Door::Telnet | Door::Aggregator | Door::Nodata | Door::Probe | Door::Job => {
                    batch.push(&gauge("m", now));
                }
            }
            assert_eq!(batch.finish().expect("one item"), Received { total: 1, invalid: 1 });
        }
        for door in doors {
            let label = RefusedLabel { door: door.name(), reason: "memory_budget" };
            assert_eq!(full.refused.get_or_create(&label).get(), 1, "{door:?}");
        }
        assert_eq!(full.engine.store().stats().series, 0);
    }

    #[test]
    fn a_long_message_creates_its_series_as_it_goes() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ingest = ingest(dir.path(), u64::MAX);
        let (count, now) = (UNKNOWN_MAX * 2 + 10, clock::now());
        let metrics: Vec<String> = (0..count).map(|i| format!("m{i}")).collect();
        let mut batch = ingest.begin(Door::Telnet, now);
        metrics[..count - 1].iter().for_each(|metric| batch.push(&gauge(metric, now)));
        // Asked by another thread, for this one may hold the table.
        let created = std::thread::scope(|scope| scope.spawn(|| ingest.engine.store().stats().series).join());
        let created = created.expect("no panic");
        batch.push(&gauge(&metrics[count - 1], now));
        batch.finish().expect("room");
        assert_eq!(created, UNKNOWN_MAX * 2);
        let stats = ingest.engine.store().stats();
        assert_eq!((stats.series, stats.points_total), (count, count as u64));
    }

    #[test]
    fn times_in_other_units_are_divided_and_what_is_in_none_is_now() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ingest = ingest(dir.path(), u64::MAX);
        let now = 1_700_000_040;
        let push = |time: i64| {
            let mut batch = ingest.begin(Door::Rpc, now).from(IpAddr::from([10, 0, 0, 9]));
            batch.push(&Item { metric: &format!("m{time}"), ..gauge("", time) });
            let received = batch.finish().expect("room");
            let key = SeriesKey { endpoint: "h", metric: &format!("m{time}"), tags: Tags::EMPTY };
            let found = ingest.engine.finder().find(key);
            let stored = found.and_then(|found| ingest.engine.store().newest_in_memory(found.id));
            (received.invalid, stored.map(|point| point.time))
        };
        let past = 1_700_000_040 - 600;
        for (time, stored) in [
            (past, past),
            (past * 1000 + 999, past),
            (past * 1_000_000 + 1, past),
            (past * 1_000_000_000 + 1, past),
            (0, now),
            (-5, now),
            (now * 3, now),
            (i64::MAX, now),
        ] {
            assert_eq!(push(time), (0, Some(stored)), "{time}");
        }
        assert_eq!(push((now + 301) * 1000), (1, None), "refused as ahead");
        assert_eq!(push(now + 301), (1, None));
        let count = |unit| ingest.rescaled.get_or_create(&UnitLabel { door: "rpc", unit }).get();
        assert_eq!([count("ms"), count("us"), count("ns"), count("none")], [2, 1, 1, 2]);
        let odd = ingest.engine.oddities().report(now);
        let named: Vec<_> = odd.iter().map(|odd| (odd.what, odd.endpoint.as_str(), odd.count)).collect();
        assert_eq!(named, [(Oddity::UnreadableTime, "h", 2), (Oddity::ClockAhead, "h", 2)]);
        assert_eq!(odd[0].address, Some(IpAddr::from([10, 0, 0, 9])));
    }

    /// Two machines under one name take turns; one that contradicts itself, or two that agree, are none.
    #[test]
    fn two_machines_under_one_name_are_noticed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ingest = ingest(dir.path(), u64::MAX);
        let start = 1_700_000_040;
        let two = |endpoint: &str, send: [(u8, f64); 2]| {
            for minute in 0..4 {
                for (address, value) in send {
                    let now = start + 60 * minute + i64::from(address);
                    let mut batch = ingest.begin(Door::Rpc, now).from(IpAddr::from([10, 0, 0, address]));
                    batch.push(&Item { endpoint, value, ..gauge("m", now) });
                    batch.finish().expect("room");
                }
            }
            let odd = ingest.engine.oddities().report(start + 300);
            odd.into_iter().find(|odd| odd.endpoint == endpoint).map(|odd| odd.detail)
        };
        assert_eq!(two("clone", [(1, 1.0), (2, 2.0)]).as_deref(), Some("10.0.0.1 and 10.0.0.2 take turns"));
        assert_eq!(two("hasty", [(3, 1.0), (3, 2.0)]), None);
        assert_eq!(two("mirrored", [(4, 1.0), (5, 1.0)]), None);
    }

    /// A new version of a sender pushes a gauge and, with it, what it had kept of the counter.
    #[test]
    fn a_type_changes_at_a_time_whatever_the_order_of_items() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ingest = ingest(dir.path(), u64::MAX);
        let now = clock::now() / 60 * 60;
        let counter = |timestamp: i64| Item { counter_type: CounterType::Counter, ..gauge("m", timestamp) };
        let send = |items: &[Item<'_>]| {
            let mut batch = ingest.begin(Door::Rpc, now);
            items.iter().for_each(|item| batch.push(item));
            batch.finish().expect("room");
            let store = ingest.engine.store();
            let found = store.find("h", "m").expect("names read").expect("known");
            let stretches = store.metas(found).stretches();
            stretches.iter().map(|one| (one.counter_type, one.from.max(0))).collect::<Vec<_>>()
        };
        let changed = [(CounterType::Counter, 0), (CounterType::Gauge, now - 60)];
        assert_eq!(send(&[gauge("m", now), gauge("m", now - 60), counter(now - 120), counter(now - 180)]), changed);
        // What comes late, or a second time, changes nothing.
        assert_eq!(send(&[counter(now - 240), counter(now - 60)]), changed);
    }

    /// A batch that its decoder gives up leaves nothing behind but its count, and the thread's buffers are empty.
    #[test]
    fn a_batch_that_is_dropped_keeps_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ingest = ingest(dir.path(), u64::MAX);
        let now = clock::now();
        let mut batch = ingest.begin(Door::Http, now);
        batch.push(&gauge("m", now));
        assert!(batch.push_json(b"[{]").is_err());
        drop(batch);
        let received = ingest.begin(Door::Http, now).finish().expect("nothing to keep");
        assert_eq!(received, Received::default());
        let stats = ingest.engine.store().stats();
        assert_eq!((stats.series, stats.points_total), (0, 0));
        assert_eq!(ingest.failed.get_or_create(&DoorLabel { door: "http" }).get(), 1);
    }
}
