//! Windowed: the judges of a process that has no store, over windows of their own.
//!
//! Why: behind an old transfer only the series that have a rule are kept, and only as far back as their rules look.
//! How: a shard is a [`Windows`] and the judge of the same number; which one a series is in depends on its endpoint, so
//! the items of a host that come together hold one lock, its name is held once, and what conditions ask of one host is
//! in one place. Rules, restarts, silence and closings are those of the whole server ([`Judges`]).
//! Locks: windows of a shard → its judge; see `judges.rs`.
//! Invariants: events are in the durable queue, or in its backlog, before the shard is let go; a series that is silent
//! for `judge.silent_after` leaves, and its alarms are closed.
//! Memory: [`Windows::memory_bytes`] and the judges'; at most `ingest.series_max` series, and no new ones from 95 % of
//! `memory_budget` on.

use crate::clock;
use crate::engine::handover::LATENCY_HELP;
use crate::engine::host_clocks::{Notes, Says};
use crate::engine::judges::{Closing, Home, Judges, Unread, WhyGone};
use crate::engine::listening::{Heard, Seen, Taking};
use crate::engine::oddities::{Met, Oddities};
use crate::engine::pressure::{REFUSE_PERCENT, SLACK_PERCENT};
use crate::engine::{EVENTS_WAIT, locks};
use crate::watch::memory::forget_unused_code;
use events::EventQueue;
use judge::{Fate, Judge, Room, Windows};
use metrics::{Figures, Metrics};
use model::{CounterType, Event, Point, Rules, SeriesId, SeriesKey, Tags};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use stdx::Ledger;
use stdx::RankedMutex;
use stdx::ranked::MutexGuard;
use wire::gob::JudgeItem;
use wire::item::{COUNTER_BYTES_MAX, ENDPOINT_BYTES_MAX};

/// Number of shards, that of a store: enough for a few busy cores.
const SHARDS: usize = 8;

/// Items for which a shard is held at most. A message of 16 MiB of one host is judged for some 100 ms; other
/// connections must not wait for that.
const HELD_ITEMS: usize = 4096;

const SERIES_SILENT: &str = "the series has been silent for too long (judge.silent_after)";
const NO_ROOM: &str = "there are more series with rules than may be (ingest.series_max)";

/// Settings of judges that run alone.
pub struct Options {
    pub judge: judge::Options,
    pub series_max: usize,
    /// Seconds ahead of the clock beyond which items are refused.
    pub future_max_s: i64,
    pub silent_after_s: i64,
    /// Whether the queue waits for the disk at each event.
    pub queue_waits: bool,
}

/// Judges that run alone: windows, rules, and the way of events.
pub struct Windowed {
    shards: Shards,
    judges: Judges,
    room: Arc<Room>,
    options: Options,
    /// Rules in effect, for the old judge's HTTP routes.
    rules: RankedMutex<Arc<Rules>>,
    counts: Counts,
    oddities: Oddities,
}

/// Home of the series: windows behind a lock per shard.
struct Shards(Vec<RankedMutex<Windows>>);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

struct Counts {
    received: Counter,
    judged: Counter,
    without_rule: Counter,
    not_newer: Counter,
    refused: Family<ReasonLabel, Counter>,
}

/// Fates of the items of a batch, counted.
#[derive(Default)]
struct ItemCounts {
    received: u64,
    judged: u64,
    without_rule: u64,
    not_newer: u64,
}

impl Windowed {
    /// Judges without rules whose events go to `queue`, and whose counts to `metrics`.
    pub fn new(options: Options, queue: Arc<EventQueue>, metrics: &Metrics) -> Windowed {
        let room = Arc::new(Room::new(options.series_max));
        let shards = (0..SHARDS)
            .map(|shard| RankedMutex::new(locks::WINDOWS, Windows::new(shard, SHARDS, room.clone())))
            .collect();
        let counts = Counts {
            received: Counter::default(),
            judged: Counter::default(),
            without_rule: Counter::default(),
            not_newer: Counter::default(),
            refused: Family::default(),
        };
        let judges = Judges::new(SHARDS, options.judge, Some(queue));
        metrics.register(|registry| {
            registry.register("judge_items", "Items that came by Judge.Send, valid or not", counts.received.clone());
            registry.register("judge_items_judged", "Items of series that have a rule", counts.judged.clone());
            let help = "Items that no rule looks at, dropped";
            registry.register("judge_items_without_rule", help, counts.without_rule.clone());
            let help = "Items not newer than the newest of their series, dropped as in the original";
            registry.register("judge_items_not_newer", help, counts.not_newer.clone());
            registry.register("judge_items_refused", "Items that cannot be judged", counts.refused.clone());
            let latency = judges.handover.latency().clone();
            registry.register("event_latency_seconds", LATENCY_HELP, latency);
        });
        Windowed {
            shards: Shards(shards),
            judges,
            room,
            options,
            rules: RankedMutex::new(locks::RULES, Arc::default()),
            counts,
            oddities: Oddities::new(),
        }
    }

    /// Begins a batch of items that came at `now` (Unix seconds); each is judged when it is pushed.
    pub fn begin(&self, now: i64) -> Batch<'_> {
        Batch {
            windowed: self,
            now,
            judged_at: self.judges.now(now),
            clocks: Notes::of(&self.judges.intake.clocks),
            _taking: self.judges.intake.taking(),
            arrived: Instant::now(),
            held: None,
            events: Vec::new(),
            made_events: false,
            counts: ItemCounts::default(),
            odd: Met::default(),
        }
    }

    /// Puts new rules into effect, see [`Judges::load`]. One call at a time.
    pub fn load(&self, rules: Arc<Rules>, why: &WhyGone<'_>) -> Vec<judge::RefusedRule> {
        let refused = self.judges.load(&self.shards, &rules, why);
        for shard in 0..SHARDS {
            let mut windows = self.shards.windows(shard);
            windows.settle(&mut self.judges.judge(shard));
        }
        *self.rules.lock() = rules;
        refused
    }

    /// Puts back the kept windows and the open alarms, and closes the alarms that no rule looks at any more; call this
    /// at a start, after the rules are loaded. Nothing is judged again: a point that is in a window had its event in
    /// the queue before.
    pub fn restore(&self, kept: Option<&[u8]>, open_problems: &[Event], why: &WhyGone<'_>) -> Restored {
        let mut restored = Restored::default();
        if let Some(kept) = kept {
            let read = judge::read_windows(kept, |key, counter_type, points| {
                let (mut windows, mut judge) = self.shard_of(key.endpoint);
                if let Some(series) = windows.add(&mut judge, key, counter_type) {
                    windows.restore(series, points.iter().copied());
                    restored.series += 1;
                }
            });
            restored.damage = read.err();
        }
        let mut closings = Vec::new();
        for event in open_problems {
            let key = event.key();
            let (mut windows, mut judge) = self.shard_of(key.endpoint);
            // Its next item says its type.
            if windows.add(&mut judge, key, CounterType::Gauge).is_none() {
                let rule = judge::RuleId::of(&event.rule);
                let reason = if judge.wants(key) { NO_ROOM.to_string() } else { why(rule, key) };
                closings.push((event.id(), reason));
            }
        }
        let is_closed = |event: &Event| closings.iter().any(|(id, _)| *id == event.id());
        let left: Vec<Event> = open_problems.iter().filter(|event| !is_closed(event)).cloned().collect();
        restored.alarms = left.len();
        self.judges.handover.end(closings, |_| false);
        self.judges.restore(&self.shards, &left, Unread::default());
        self.judges.refill(&self.shards, self.judges.now(clock::now()));
        restored
    }

    /// Number of events that only memory holds, for the disk takes none.
    pub fn events_waiting(&self) -> usize {
        self.judges.handover.waiting()
    }

    /// Looks at the clocks with `look`, and for points that do not come; call this each second, from a thread that does
    /// not wait for the disk.
    pub fn listen(&self, look: &mut dyn FnMut(Seen<'_>) -> (Heard, i64)) {
        let (heard, now) = look(self.judges.intake.seen(0));
        self.judges.listen(&self.shards, &heard, now);
    }

    /// Writes what the queue refused, and syncs the queue; call this each second.
    pub fn tick(&self) -> std::io::Result<()> {
        self.judges.handover.flush()
    }

    /// Lets no new series in where `resident` bytes are too much for `budget`; call this each second. Series that are
    /// there are judged on.
    pub fn hold_to(&self, budget: u64, resident: u64) {
        let limit = if self.room.is_closed() { REFUSE_PERCENT - SLACK_PERCENT } else { REFUSE_PERCENT };
        let is_short = resident.saturating_mul(100) >= budget.saturating_mul(limit);
        if !self.room.close(is_short) {
            return;
        }
        if is_short {
            tracing::warn!(resident, budget, "memory_budget is nearly used: no window is made for a new series");
            forget_unused_code();
        } else {
            tracing::info!(resident, budget, "there is memory for new series again");
        }
    }

    /// Lets series leave that have been silent for too long; call this each minute. Answers how many.
    pub fn leave_silent(&self, now: i64) -> usize {
        let oldest = now.saturating_sub(self.options.silent_after_s);
        let (mut left, mut closed) = (0, Vec::new());
        for shard in 0..SHARDS {
            let _loading = self.judges.hold_loading();
            let mut windows = self.shards.windows(shard);
            let mut judge = self.judges.judge(shard);
            for series in windows.silent_since(&judge, oldest) {
                let mut texts = [const { String::new() }; 3];
                judge::PointSource::key(&*windows, series, &mut |key| {
                    texts = [key.endpoint, key.metric, key.tags.as_str()].map(str::to_string);
                });
                let open = windows.remove(&mut judge, series);
                let [endpoint, metric, tags] = &texts;
                let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
                closed.extend(open.iter().map(|open| Closing::new(open.rule, key, SERIES_SILENT)));
                left += 1;
            }
        }
        self.judges.end(&self.shards, &closed);
        left
    }

    /// Writes the file of windows, see `judge::read_windows`. A shard is locked while its own part is made, not while
    /// it is written.
    pub fn write(&self, file: &mut impl Write) -> std::io::Result<()> {
        file.write_all(judge::WINDOWS_MAGIC)?;
        let mut section = Vec::new();
        for shard in 0..SHARDS {
            section.clear();
            self.shards.windows(shard).write(&mut section);
            file.write_all(&section)?;
        }
        section.clear();
        judge::end_windows(&mut section);
        file.write_all(&section)
    }

    /// Number of series, all of which have a rule.
    pub fn series(&self) -> usize {
        self.room.used()
    }

    /// Rules in effect.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.lock().clone()
    }

    /// The points of a series, newest first; none if it is not there. `counter` is `metric` or `metric/tags`.
    pub fn history(&self, endpoint: &str, counter: &str) -> Option<Vec<Point>> {
        let windows = self.shards.windows(shard_of(endpoint));
        // A metric may have a slash in it: the first place where both sides name a series.
        let ends = counter.match_indices('/').map(|(at, _)| at).chain([counter.len()]);
        let found = ends.filter_map(|end| {
            let tags = Tags::assume_canonical(counter.get(end + 1..).unwrap_or_default());
            windows.find(SeriesKey { endpoint, metric: &counter[..end], tags })
        });
        let series = found.into_iter().next()?;
        Some(windows.points(series).collect())
    }

    /// Names what windows and judges hold in the ledger.
    pub fn register_memory(self: &Arc<Self>, ledger: &Ledger) {
        let windowed = self.clone();
        ledger.source(move |report| {
            report.line("windows", windowed.window_bytes() as u64, None, Some(windowed.series() as u64));
            windowed.judges.report(report);
            windowed.oddities.memory(report);
        });
    }

    fn window_bytes(&self) -> usize {
        (0..SHARDS).map(|shard| self.shards.windows(shard).memory_bytes()).sum()
    }

    /// Appends what is held and was done to the metrics page.
    pub fn show(&self, figures: &mut Figures<'_>) {
        figures.gauge("judge_window_series", "Series in windows", self.series() as f64);
        figures.gauge("judge_window_bytes", "Memory of windows and names", self.window_bytes() as f64);
        self.judges.show(figures);
    }

    fn shard_of(&self, endpoint: &str) -> (MutexGuard<'_, Windows>, MutexGuard<'_, Judge>) {
        let shard = shard_of(endpoint);
        (self.shards.windows(shard), self.judges.judge(shard))
    }

    fn count_refused(&self, reason: &'static str) {
        self.counts.refused.get_or_create(&ReasonLabel { reason }).inc();
    }
}

/// Counts of what a start has put back.
#[derive(Debug, Default)]
pub struct Restored {
    pub series: usize,
    pub alarms: usize,
    pub damage: Option<judge::WindowsError>,
}

/// Shard of an endpoint.
fn shard_of(endpoint: &str) -> usize {
    hash_of(endpoint) as usize % SHARDS
}

/// Number of an endpoint. Two endpoints that somebody makes collide share a lock and a cell of [`HostClocks`], where
/// the one that is timely speaks for both; no more.
///
/// [`HostClocks`]: crate::engine::host_clocks::HostClocks
fn hash_of(endpoint: &str) -> u32 {
    stdx::crc32(&[endpoint.as_bytes()])
}

impl Shards {
    fn windows(&self, shard: usize) -> MutexGuard<'_, Windows> {
        self.0[shard].lock()
    }
}

impl Home for Shards {
    type Points<'w> = Windows;

    fn shard_of(&self, id: SeriesId) -> usize {
        Windows::shard_of(id, SHARDS)
    }

    fn find(&self, key: SeriesKey<'_>) -> Option<SeriesId> {
        self.windows(shard_of(key.endpoint)).find(key)
    }

    fn for_each_series(&self, each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType, u32)) {
        (0..SHARDS).for_each(|shard| self.windows(shard).for_each_series(each));
    }

    fn with_keys(&self, ids: &[SeriesId], each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType)) {
        for id in ids {
            let windows = self.windows(self.shard_of(*id));
            if let Some((counter_type, _)) = judge::PointSource::meta(&*windows, *id) {
                judge::PointSource::key(&*windows, *id, &mut |key| each(*id, key, counter_type));
            }
        }
    }

    fn with_window(&self, id: SeriesId, look: impl FnOnce(&Windows)) {
        look(&self.windows(self.shard_of(id)));
    }

    fn newest(&self, id: SeriesId) -> Option<Point> {
        self.windows(self.shard_of(id)).points(id).next()
    }
}

/// A batch on its way. What was pushed is judged, whatever becomes of the rest; [`Batch::finish`] waits for the disk.
pub struct Batch<'w> {
    windowed: &'w Windowed,
    now: i64,
    /// The time by which is judged, see [`Judges::now`].
    judged_at: i64,
    clocks: Notes<'w>,
    _taking: Taking<'w>,
    arrived: Instant,
    held: Option<Held<'w>>,
    events: Vec<Event>,
    made_events: bool,
    counts: ItemCounts,
    odd: Met,
}

/// A shard that is locked; its judge is let go first.
struct Held<'w> {
    shard: usize,
    judge: MutexGuard<'w, Judge>,
    windows: MutexGuard<'w, Windows>,
    items: usize,
}

impl Batch<'_> {
    /// Judges an item of a `Judge.Send`.
    #[inline]
    pub fn push(&mut self, item: &JudgeItem<'_>) {
        self.counts.received += 1;
        let says = Says::of(item.timestamp, self.now, self.windowed.options.future_max_s);
        if says == Says::Ahead {
            return self.refuse_ahead(item);
        }
        if item.endpoint.len() > ENDPOINT_BYTES_MAX || item.metric.len() + item.tags.len() > COUNTER_BYTES_MAX {
            return self.windowed.count_refused("text_too_long");
        }
        let (now, events) = (self.judged_at, &mut self.events);
        let endpoint = hash_of(item.endpoint);
        let held = hold(self.windowed, &mut self.held, endpoint as usize % SHARDS);
        let key = SeriesKey { endpoint: item.endpoint, metric: item.metric, tags: Tags::assume_canonical(item.tags) };
        let point = Point { time: item.timestamp, value: item.value };
        let taken = held.windows.take(&mut held.judge, key, type_of(item.judge_type), point, now, events);
        match taken {
            Fate::Judged => self.counts.judged += 1,
            Fate::NoRule => self.counts.without_rule += 1,
            Fate::NotNewer => self.counts.not_newer += 1,
            Fate::BadTime => self.windowed.count_refused("no_time"),
            Fate::Full if self.windowed.room.is_closed() => self.windowed.count_refused("memory_budget"),
            Fate::Full => self.windowed.count_refused("series_max"),
        }
        if matches!(taken, Fate::Judged | Fate::NotNewer) {
            self.clocks.note(endpoint, says, item.timestamp.saturating_sub(self.now));
        }
        // Under the lock of the shard: events of an alarm are in the order of its points.
        self.made_events |= self.windowed.judges.handover.send_arrived(&mut self.events, self.arrived) > 0;
    }

    fn refuse_ahead(&mut self, item: &JudgeItem<'_>) {
        self.odd.add_ahead(item.endpoint, item.timestamp.saturating_sub(self.now));
        self.windowed.count_refused("future");
        let endpoint = hash_of(item.endpoint);
        let key = SeriesKey { endpoint: item.endpoint, metric: item.metric, tags: Tags::assume_canonical(item.tags) };
        let held = hold(self.windowed, &mut self.held, endpoint as usize % SHARDS);
        if held.windows.find(key).is_some() {
            self.clocks.note(endpoint, Says::Ahead, item.timestamp.saturating_sub(self.now));
        }
    }

    /// Lets the shard go, and waits until the events that were made are as durable as `graph.fsync` says. The error is
    /// for the sender: events wait in memory.
    pub fn finish(self) -> Result<(), &'static str> {
        let Batch { windowed, held, now, made_events, counts, odd, _taking, .. } = self;
        drop(held);
        windowed.oddities.note_all(odd, None, now);
        windowed.counts.received.inc_by(counts.received);
        windowed.counts.judged.inc_by(counts.judged);
        windowed.counts.without_rule.inc_by(counts.without_rule);
        windowed.counts.not_newer.inc_by(counts.not_newer);
        let settle = || windowed.judges.handover.settle();
        match made_events {
            // The runtime's other work goes on in other threads meanwhile.
            true if windowed.options.queue_waits => tokio::task::block_in_place(settle),
            true => settle(),
            false => {}
        }
        if windowed.judges.handover.is_waiting() { Err(EVENTS_WAIT) } else { Ok(()) }
    }
}

/// The shard, locked now or before.
#[inline]
fn hold<'h, 'w>(windowed: &'w Windowed, held: &'h mut Option<Held<'w>>, shard: usize) -> &'h mut Held<'w> {
    if held.as_ref().is_none_or(|held| held.shard != shard || held.items == HELD_ITEMS) {
        // The old one is let go first: two are never held together, and who waits comes in between.
        *held = None;
    }
    let held = held.get_or_insert_with(|| {
        let windows = windowed.shards.windows(shard);
        Held { shard, judge: windowed.judges.judge(shard), windows, items: 0 }
    });
    held.items += 1;
    held
}

/// Type of a series by the text of an old transfer; only its first letter counts, as in the original.
fn type_of(judge_type: &str) -> CounterType {
    match judge_type.as_bytes().first() {
        Some(b'G' | b'g') => CounterType::Gauge,
        Some(b'D' | b'd') => CounterType::Derive,
        _ => CounterType::Counter,
    }
}
