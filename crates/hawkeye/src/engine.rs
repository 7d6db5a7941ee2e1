//! Engine: the store and the judges behind one lock per shard, and the rules that the judges hold.
//!
//! Why: a point is kept once and judged at once, on the tail of the chunk it was just appended to.
//! How: `append` gives a batch to the store; for each point that became the newest of its series the store calls back,
//! under the lock of that shard, and the shard's judge looks at it if a rule is bound to it. Events go to the durable queue
//! under the same lock, so their order per alarm is the order of the points, also between connections.
//! Rules: [`Engine::load`] compiles them once, gives every judge the shared result, and re-binds only the series that the
//! change touches. A new series is bound when it is created.
//! Conditions over several series: the judges share [`Joins`], whose events come out of one outbox, in the order in which
//! they were decided; whoever has made one hands over all that wait there.
//! Locks, always in this order: shard of the store → judge of that shard → series table (read), or backlog → queue. The
//! joins' is innermost everywhere. Nobody who holds the table takes another.
//! A series that nobody writes to leaves memory ([`Engine::sleep_silent`]): its bindings and alarms go with it, and come back
//! when it is created again.
//! An alarm whose rule or series goes is closed with an event that says why; silently, as far as people are concerned,
//! under `judge.semantics = "open-falcon"`. The queue is told, in order with the events.
//! Invariants: a series that no rule matches costs one branch per point here; what cannot be written to the queue is kept
//! (up to [`BACKLOG_MAX`]) and written as soon as it can be, in order; a batch that the disk refuses is judged all the same.
//! Memory: loading and catching up hold 4 bytes per series and the texts of [`SLICE`] series.

use crate::clock;
use crate::metrics::{push_counter, push_gauge};
use crate::role::alarm::queue::{Closing, EventQueue, What};
use crate::role::alarm::why;
use judge::{Joins, Judge, OpenProblem, RuleId, RuleSet, Semantics};
use model::{CounterType, Event, Point, Rules, Sample, SeriesId, SeriesKey, Tags};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use store::{SeriesInfo, ShardView, Store};

/// Seconds between looks at the clock for points that do not come. Rules count in periods of 30 s and more.
const SILENCE_TICK_S: i64 = 5;

/// Events and closings that wait for the disk. An event is about 900 bytes; past it the oldest is dropped and counted.
const BACKLOG_MAX: usize = 20_000;

/// Series created or changed that nobody has asked for yet: 16 KiB. Who wants them asks each second; what does not fit is
/// found later, by whoever walks over all series.
const RECENT_MAX: usize = 4096;
/// Series whose texts are copied at once, since the table must not be held while a judge is waited for: some 300 kB, and a
/// tenth of a millisecond of the table.
const SLICE: usize = 4096;

pub struct Engine {
    store: Store,
    judges: Vec<Mutex<Judge>>,
    joins: Arc<Joins>,
    /// When silent series were looked at last.
    silences_seen: AtomicI64,
    options: judge::Options,
    /// None where there are no rules, and so no events.
    queue: Option<Arc<EventQueue>>,
    backlog: Mutex<VecDeque<What>>,
    recent: Mutex<Vec<SeriesId>>,
    /// Held while rules are loaded: which series there are must not change between listing and binding them.
    loading: Mutex<()>,
    rules_version: AtomicU64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    events: AtomicU64,
    events_dropped: AtomicU64,
    rules_refused: AtomicU64,
}

/// Why a batch or a series was not taken.
#[derive(Debug)]
pub enum IngestError {
    Store(store::Error),
    /// Of a batch that is otherwise kept: sent again, it meets duplicates, and these series are created anew.
    SeriesRemoved,
}

impl IngestError {
    /// True when only this series is refused (the table is full, the text too long), and the batch can go on without it.
    pub fn refuses_series(&self) -> bool {
        let IngestError::Store(error) = self else { return false };
        matches!(error, store::Error::Full { .. } | store::Error::TextTooLong { .. } | store::Error::BadStep(_))
    }

    /// True when the operator must see to it.
    pub fn is_of_disk(&self) -> bool {
        matches!(self, IngestError::Store(store::Error::Disk { .. }))
    }
}

impl std::fmt::Display for IngestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IngestError::Store(error) => error.fmt(f),
            IngestError::SeriesRemoved => {
                f.write_str("series were removed while the batch was on its way; send it again")
            }
        }
    }
}

impl Engine {
    /// `shard_count` is the store's. Without a queue no rules may be loaded.
    pub fn new(store: Store, shard_count: usize, options: judge::Options, queue: Option<Arc<EventQueue>>) -> Engine {
        let joins = Arc::new(Joins::default());
        let judges = (0..shard_count).map(|_| Mutex::new(Judge::sharing(options, joins.clone()))).collect();
        Engine {
            store,
            judges,
            joins,
            silences_seen: AtomicI64::new(i64::MIN),
            options,
            queue,
            backlog: Mutex::default(),
            recent: Mutex::default(),
            loading: Mutex::default(),
            rules_version: AtomicU64::new(0),
            counts: Counts::default(),
        }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How rules are judged here.
    pub fn judge_options(&self) -> judge::Options {
        self.options
    }

    /// The series table, held for reading: for one decoded batch, no longer.
    pub fn finder(&self) -> store::Finder<'_> {
        self.store.finder()
    }

    /// Creates a series, or changes the type or step of one that exists, and binds it to its rules.
    pub fn create(&self, key: SeriesKey<'_>, counter_type: CounterType, step: u32) -> Result<SeriesId, IngestError> {
        let id = self.store.create(key, counter_type, step).map_err(IngestError::Store)?;
        let known = self.store.finder().find(key);
        if known.is_some_and(|found| found.counter_type != counter_type || found.step != step) {
            self.store.set_meta(id, counter_type, step).map_err(IngestError::Store)?;
        }
        let closed = self.judge(self.store.shard_of(id)).bind(id, key, counter_type);
        self.close(&closed, &|_, _| RULE_GONE.to_string());
        let mut recent = lock(&self.recent);
        if recent.len() < RECENT_MAX {
            recent.push(id);
        }
        Ok(id)
    }

    /// Moves the series that were created or changed since the last call to `out`; of very many, not all.
    pub fn take_recent(&self, out: &mut Vec<SeriesId>) {
        out.append(&mut lock(&self.recent));
    }

    /// Logs, stores and judges a batch. On an error it is not kept, or not all of it, though it may have been judged: it is
    /// to be sent again. Where it waits until the disk has it, the runtime's other work goes on in other threads.
    pub fn append(&self, samples: &[Sample], now: i64) -> Result<(), IngestError> {
        if samples.is_empty() {
            return Ok(());
        }
        let mut observer = Observer { engine: self, now, judge: None, events: Vec::new() };
        let mut append = || self.store.append(samples, now, &mut observer);
        let appended = if self.store.append_waits() { tokio::task::block_in_place(append) } else { append() };
        match appended.map_err(IngestError::Store)?.unknown {
            0 => Ok(()),
            _ => Err(IngestError::SeriesRemoved),
        }
    }

    /// Deletes a series, its points and its bindings, and closes the alarms that were open on it, also when the deletion is
    /// not durable yet.
    pub fn remove_series(&self, id: SeriesId) -> Result<(), store::Error> {
        self.remove_together(&mut [id]).map(|_| ())
    }

    /// Deletes all series of some endpoints; answers how many endpoints had any, and how many series there were.
    pub fn remove_endpoints(&self, endpoints: &[String]) -> Result<(usize, usize), store::Error> {
        let (mut found, mut removed) = (0, 0);
        for endpoint in endpoints {
            // Empty for a name that is there twice.
            let mut ids = self.store.series_of_endpoint(endpoint)?;
            found += usize::from(!ids.is_empty());
            for ids in ids.chunks_mut(SLICE) {
                removed += self.remove_together(ids)?;
            }
        }
        Ok((found, removed))
    }

    /// Also where the store's deletion is not durable yet.
    fn remove_together(&self, ids: &mut [SeriesId]) -> Result<usize, store::Error> {
        let infos: Vec<(SeriesId, SeriesInfo)> =
            ids.iter().filter_map(|id| Some((*id, self.store.info(*id)?))).collect();
        let removed = self.store.remove_many(ids);
        let mut closed = Vec::new();
        // One that could not be deleted is judged on; one that sleeps has no alarm.
        for (id, info) in infos.iter().filter(|(id, _)| self.store.is_removed(*id)) {
            let open = self.judge(self.store.shard_of(*id)).unbind(*id);
            closed.extend(open.iter().map(|problem| (alarm_id(problem.rule, key_of(info)), SERIES_GONE.to_string())));
        }
        self.end(closed);
        removed
    }

    /// Lets silent series leave memory; call it each minute. Nothing is bound to them any more, and their alarms are closed.
    pub fn sleep_silent(&self, now: i64) -> Result<store::Slept, store::Error> {
        let mut closed = Vec::new();
        let slept = self.store.sleep_silent(now, &mut |id, key| {
            let _loading = lock(&self.loading);
            let open = self.judge(self.store.shard_of(id)).unbind(id);
            closed.extend(open.iter().map(|problem| (alarm_id(problem.rule, key), SERIES_SILENT.to_string())));
        });
        self.end(closed);
        slept
    }

    /// Puts new rules into effect, re-binds the series that they touch, and closes the open alarms whose rule no longer
    /// applies; `why` says why one does not apply to an endpoint any more. Answers the rules that cannot be compiled.
    pub fn load(&self, rules: &Rules, why: &WhyGone<'_>) -> Vec<judge::Refused> {
        debug_assert!(self.queue.is_some(), "rules make events");
        let (rule_set, refused) = RuleSet::compile(rules, &self.options);
        let _loading = lock(&self.loading);
        let touched: Vec<_> = (0..self.judges.len()).map(|shard| self.judge(shard).load(rule_set.clone())).collect();
        let mut closed: Vec<OpenProblem> = touched.iter().flat_map(|touched| touched.closed()).copied().collect();
        let mut ids = Vec::new();
        self.store.for_each_series(&mut |id, key, _, _| {
            if touched[self.store.shard_of(id)].covers(key) {
                ids.push(id);
            }
        });
        let mut slice: Vec<(SeriesId, [String; 3], CounterType)> = Vec::new();
        for ids in ids.chunks(SLICE) {
            slice.clear();
            self.store.with_keys(ids, &mut |id, key, counter_type| {
                slice.push((id, [key.endpoint, key.metric, key.tags.as_str()].map(str::to_string), counter_type));
            });
            for (id, [endpoint, metric, tags], counter_type) in &slice {
                let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
                closed.extend(self.judge(self.store.shard_of(*id)).bind(*id, key, *counter_type));
            }
        }
        self.close(&closed, why);
        self.refill();
        self.rules_version.store(rules.version, Ordering::Relaxed);
        self.counts.rules_refused.store(refused.len() as u64, Ordering::Relaxed);
        refused
    }

    /// Puts back the open alarms that the queue remembers, and closes those whose rule or series is gone. To be called
    /// after [`Engine::load`].
    pub fn restore(&self, open_problems: &[Event]) {
        let restored = |event: &Event| {
            let found = self.store.finder().find(event.key());
            found.is_some_and(|found| self.judge(self.store.shard_of(found.id)).restore(found.id, event))
        };
        let closing = |event: &Event| {
            let reason = if self.store.finder().find(event.key()).is_some() { RULE_GONE } else { SERIES_GONE };
            (event.id(), reason.to_string())
        };
        self.end(open_problems.iter().filter(|event| !restored(event)).map(closing).collect());
    }

    /// Has all series say their part in conditions over several series: after a load, and before anything is caught up.
    fn refill(&self) {
        let mut joined = Vec::new();
        self.store.for_each_series(&mut |id, _, counter_type, step| joined.push((id, counter_type, step)));
        for shard in 0..self.judges.len() {
            let judge = self.judge(shard);
            joined.retain(|(id, _, _)| self.store.shard_of(*id) != shard || judge.is_joined(*id));
        }
        let now = clock::now();
        for (id, counter_type, step) in joined {
            self.store.with_tail(id, |view| {
                self.judge(self.store.shard_of(id)).refill(id, counter_type, step, &Window(view), now);
            });
        }
    }

    /// Judges the newest stored point of each bound series again, so that an event which the last stop cut off between
    /// the log and the queue is still made. Only points not older than `oldest` count.
    pub fn catch_up(&self, oldest: i64) {
        let now = clock::now();
        self.refill();
        let mut bound = Vec::new();
        self.store.for_each_series(&mut |id, _, _, _| bound.push(id));
        bound.retain(|id| self.judge(self.store.shard_of(*id)).is_bound(*id));
        for id in bound {
            // So young a point is in memory; a series that is silent for long must not be looked for on the disk.
            if self.store.newest_in_memory(id).is_none_or(|point| point.time < oldest) {
                continue;
            }
            let mut events = Vec::new();
            self.store.with_tail(id, |view| {
                let Some((counter_type, step)) = view.meta(id) else { return };
                let window = Window(view);
                self.judge(self.store.shard_of(id)).catch_up(id, counter_type, step, &window, now, &mut events);
                self.send(&mut events);
            });
        }
        self.joins.settle(now, self.options.min_interval_s);
        self.hand_over();
    }

    /// To be called each second: looks for points that do not come, tries again to write what the queue refused, and syncs it.
    pub fn tick(&self) -> std::io::Result<()> {
        let Some(queue) = &self.queue else { return Ok(()) };
        self.look_for_silence(clock::now());
        let written = {
            let mut backlog = lock(&self.backlog);
            queue.append_mixed(backlog.make_contiguous()).map(|left_out| {
                self.counts.events_dropped.fetch_add(left_out, Ordering::Relaxed);
                backlog.clear();
            })
        };
        queue.sync().and(written)
    }

    fn look_for_silence(&self, now: i64) {
        let seen = self.silences_seen.load(Ordering::Relaxed);
        // Also when the clock was set back.
        if (seen..seen.saturating_add(SILENCE_TICK_S)).contains(&now) {
            return;
        }
        self.silences_seen.store(now, Ordering::Relaxed);
        for shard in 0..self.judges.len() {
            // Only to know whether the shard must be locked: that lock comes first.
            let Some(id) = self.judge(shard).first_due(now) else { continue };
            self.store.with_tail(id, |view| {
                let mut events = Vec::new();
                self.judge(shard).tick(now, &Window(view), &mut events);
                self.send(&mut events);
            });
        }
        self.hand_over();
    }

    /// Appends what the judges hold and have done to the metrics page.
    pub fn show(&self, page: &mut String) {
        let mut judge = judge::Stats::default();
        for shard in 0..self.judges.len() {
            let stats = self.judge(shard).stats();
            judge.bound_series += stats.bound_series;
            judge.bound_pairs += stats.bound_pairs;
            judge.open_problems += stats.open_problems;
            judge.silences += stats.silences;
            judge.memory_bytes += stats.memory_bytes;
        }
        let joins = self.joins.stats();
        push_gauge(page, "judge_bound_series", "Series with at least one rule", judge.bound_series as f64);
        push_gauge(page, "judge_bound_pairs", "Pairs of a series and a rule", judge.bound_pairs as f64);
        push_gauge(page, "judge_open_problems", "Alarms that are open", judge.open_problems as f64);
        push_gauge(page, "judge_memory_bytes", "Memory of bindings and alert state", judge.memory_bytes as f64);
        push_gauge(page, "judge_silences", "Series that a nodata rule asks about", judge.silences as f64);
        push_gauge(page, "judge_join_groups", "Conditions over several series, per endpoint", joins.groups as f64);
        push_gauge(
            page,
            "judge_join_series",
            "Series that carry such a condition, or are asked by one",
            (joins.carriers + joins.others) as f64,
        );
        push_gauge(page, "judge_join_memory_bytes", "Memory of what they said last", joins.memory_bytes as f64);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        push_gauge(page, "rules_version", "Version of the rules in effect", load(&self.rules_version) as f64);
        push_gauge(
            page,
            "rules_refused",
            "Rules in effect that cannot be judged",
            load(&self.counts.rules_refused) as f64,
        );
        push_counter(page, "events_total", "Events that judges made", load(&self.counts.events));
        push_counter(
            page,
            "events_dropped_total",
            "Events lost to a full backlog, or longer than the queue takes",
            load(&self.counts.events_dropped),
        );
        push_gauge(page, "events_backlog", "Events that wait for the disk", lock(&self.backlog).len() as f64);
    }

    /// Closes alarms, while their series still exist.
    fn close(&self, problems: &[OpenProblem], why: &WhyGone<'_>) {
        let closing = |problem: &OpenProblem| {
            let info = self.store.info(problem.series)?;
            Some((alarm_id(problem.rule, key_of(&info)), why(problem.rule, &info.endpoint)))
        };
        self.end(problems.iter().filter_map(closing).collect());
    }

    /// Tells the queue which alarms are closed, and why: no restart brings them back, and alarm closes their cases.
    fn end(&self, closings: Vec<(String, String)>) {
        let Some(queue) = self.queue.as_ref().filter(|_| !closings.is_empty()) else { return };
        // What was decided about them before.
        self.hand_over();
        let time = clock::now();
        let what = |(id, reason): (String, String)| match self.options.semantics {
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
                    self.counts.events_dropped.fetch_add(left_out, Ordering::Relaxed);
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot write to the queue which alarms are closed; it waits in memory")
                }
            }
        }
        self.wait(&mut backlog, closings.into_iter());
    }

    fn judge(&self, shard: usize) -> MutexGuard<'_, Judge> {
        lock(&self.judges[shard])
    }

    /// Writes `events` to the durable queue and clears it. The judge has moved on already, so what the disk refuses waits.
    fn send(&self, events: &mut Vec<Event>) {
        if !events.is_empty() {
            self.write(&mut lock(&self.backlog), events);
        }
        self.hand_over();
    }

    /// Writes what the joins have decided. Their order is kept by the backlog's lock, and whoever made an event goes on only
    /// when it is written, by whomever.
    fn hand_over(&self) {
        if self.joins.is_waiting() {
            let mut backlog = lock(&self.backlog);
            self.joins.hand_over(|events| self.write(&mut backlog, events));
        }
    }

    fn write(&self, backlog: &mut VecDeque<What>, events: &mut Vec<Event>) {
        let Some(queue) = &self.queue else { return };
        self.counts.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        events.iter().for_each(tell);
        if backlog.is_empty() {
            match queue.append(events) {
                Ok(left_out) => {
                    self.counts.events_dropped.fetch_add(left_out, Ordering::Relaxed);
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
                self.counts.events_dropped.fetch_add(1, Ordering::Relaxed);
            }
            backlog.push_back(what);
        }
    }
}

/// A series by its counter's text: the md5 of an alarm's id is of the whole text, wherever the metric ends.
fn key_of(series: &SeriesInfo) -> SeriesKey<'_> {
    SeriesKey { endpoint: &series.endpoint, metric: &series.counter, tags: Tags::EMPTY }
}

/// Says why a rule applies to an endpoint no longer.
pub type WhyGone<'w> = dyn Fn(RuleId, &str) -> String + 'w;

/// Where nobody knows better.
const RULE_GONE: &str = "the rule no longer applies";
const SERIES_GONE: &str = "the series was deleted";
const SERIES_SILENT: &str = "the series has been silent for too long (graph.silent_after)";

/// A line per event in the log: who asks why somebody was called looks there first.
fn tell(event: &Event) {
    let why = event.explanation.as_deref().map_or(String::new(), why::sentence);
    let (status, endpoint, counter) = (event.status.as_str(), &event.endpoint, event.key().counter());
    let (rule, step) = (RuleId::of(&event.rule), event.current_step);
    let version = event.explanation.as_deref().map_or("", |explanation| &explanation.rule_version);
    tracing::info!(status, endpoint, counter, %rule, version, step, why, "event");
}

/// The id of the events of an alarm.
fn alarm_id(rule: RuleId, key: SeriesKey<'_>) -> String {
    match rule {
        RuleId::Strategy(rule) => format!("s_{rule}_{}", key.md5_hex()),
        RuleId::Expression(rule) => format!("e_{rule}_{}", key.md5_hex()),
    }
}

/// A panic while a lock is held leaves a judge or a list that is whole (they change by single assignments); going on is
/// better than a process that refuses every point.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Judges each point that the store reports, holding the judge of the shard that is being appended to.
struct Observer<'e> {
    engine: &'e Engine,
    now: i64,
    judge: Option<(usize, MutexGuard<'e, Judge>)>,
    events: Vec<Event>,
}

impl store::Observer for Observer<'_> {
    fn newest(&mut self, shard: usize, sample: Sample, counter_type: CounterType, view: &ShardView<'_>) {
        if self.judge.as_ref().is_none_or(|(held, _)| *held != shard) {
            // The old one is let go first: two judges are never held together.
            self.judge = None;
            self.judge = Some((shard, self.engine.judge(shard)));
        }
        let Some((_, judge)) = &mut self.judge else { return };
        if !judge.is_bound(sample.series) {
            return;
        }
        let Some((_, step)) = view.meta(sample.series) else { return };
        judge.on_point(sample, counter_type, step, &Window(view), self.now, &mut self.events);
        self.engine.send(&mut self.events);
    }
}

/// What a judge sees of the store: the tail of a chunk, and the texts of a series when an event is made.
struct Window<'w>(&'w ShardView<'w>);

impl judge::Window for Window<'_> {
    fn tail(&self, series: SeriesId, count: usize, out: &mut Vec<Point>) {
        self.0.tail(series, count, out);
    }

    fn meta(&self, series: SeriesId) -> Option<(CounterType, u32)> {
        self.0.meta(series)
    }

    fn key(&self, series: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        self.0.key(series, use_key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fsync;
    use crate::role::alarm::queue::Options;
    use model::{Status, Strategy};
    use std::collections::HashMap;

    const NOW: i64 = 1_700_000_040;

    /// A rule for host `h`, and one for host `long` whose events no queue takes.
    fn rules() -> Rules {
        let strategy = |id: i64, note: String| {
            let (metric, func, operator) = ("m".to_string(), "all(#1)".to_string(), ">".to_string());
            let all = [Arc::new(Strategy {
                id,
                metric,
                func,
                operator,
                right_value: 5.0,
                max_step: 1,
                note,
                ..Strategy::default()
            })];
            all[..].into()
        };
        let hosts = [("h", strategy(1, String::new())), ("long", strategy(2, "x".repeat(300_000)))];
        let hosts: HashMap<_, _> = hosts.map(|(name, strategies)| (name.to_string(), strategies)).into();
        Rules { version: 1, hosts, expressions: Vec::new() }
    }

    fn engine(dir: &std::path::Path, queue: &Arc<EventQueue>) -> Engine {
        let options = store::Options { dir: dir.join("store"), shard_count: 1, ..store::Options::default() };
        let (store, _) = store::Store::open(options, NOW).expect("a store");
        let engine = Engine::new(store, 1, judge::Options::default(), Some(queue.clone()));
        assert!(engine.load(&rules(), &|_, _| "gone".to_string()).is_empty());
        engine
    }

    fn push(engine: &Engine, host: &str) {
        let key = SeriesKey { endpoint: host, metric: "m", tags: Tags::EMPTY };
        let series = engine.create(key, CounterType::Gauge, 60).expect("a series");
        engine.append(&[Sample { series, point: Point { time: NOW, value: 9.0 } }], NOW).expect("append");
    }

    fn read(queue: &Arc<EventQueue>, cursor: u64) -> Vec<crate::role::alarm::queue::Queued> {
        let mut out = Vec::new();
        queue.consumer(cursor).read(usize::MAX / 2, &mut out).expect("readable");
        out
    }

    /// A queue that is full, until [`make_room`] is called.
    fn full_queue(dir: &std::path::Path) -> Arc<EventQueue> {
        let options = Options { fsync: Fsync::Never, segment_bytes: 300, bytes_max: 4000 };
        let queue = Arc::new(EventQueue::open_with(&dir.join("events"), options).expect("a queue").0);
        let strategy = rules().hosts["h"][0].clone();
        let (rule, endpoint, tags) = (model::EventRule::Strategy(strategy), "filler".to_string(), String::new());
        let filler = Event {
            rule,
            status: Status::Ok,
            endpoint,
            tags,
            left_value: 0.0,
            current_step: 1,
            time: NOW,
            explanation: None,
        };
        while queue.append(std::slice::from_ref(&filler)).is_ok() {}
        queue
    }

    /// Answers where what comes next begins.
    fn make_room(queue: &Arc<EventQueue>) -> u64 {
        let cursor = read(queue, 0).last().expect("the queue is full").seq;
        queue.consumed(cursor).expect("segments are deleted");
        cursor
    }

    #[test]
    fn what_the_queue_refuses_waits_in_order() {
        let dir = tempfile::tempdir().expect("temp dir");
        let queue = full_queue(dir.path());
        let engine = engine(dir.path(), &queue);
        push(&engine, "long");
        push(&engine, "h");
        // Also an alarm that is closed while its PROBLEM waits.
        engine.load(&Rules::default(), &|_, _| "gone".to_string());
        engine.tick().expect_err("the queue is full");
        assert_eq!(lock(&engine.backlog).len(), 4);
        let cursor = make_room(&queue);
        engine.tick().expect("room");
        assert_eq!(lock(&engine.backlog).len(), 0, "the one that never fits does not stand in the way");
        assert_eq!(engine.counts.events_dropped.load(Ordering::Relaxed), 1);
        let read = read(&queue, cursor);
        let What::Event(event) = &read[0].what else { panic!("{read:?}") };
        assert_eq!((event.endpoint.as_str(), event.status), ("h", Status::Problem));
        let ends: Vec<_> = read[1..].iter().map(|queued| &queued.what).collect();
        let is_ok =
            |what: &&&What| matches!(what, What::Event(end) if end.id() == event.id() && end.status == Status::Ok);
        assert!(ends.len() == 2 && ends.iter().any(|what| is_ok(&what)), "{read:?}");
        assert!(
            ends.iter().any(|what| matches!(what, What::Closed(_))),
            "no record holds the end of the long one: {read:?}"
        );
        assert_eq!(queue.stats().open_problems, 0);
    }

    #[test]
    fn series_that_were_created_or_changed_are_told_once_and_only_so_many() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = engine(dir.path(), &full_queue(dir.path()));
        let create = |metric: &str, step: u32| {
            let key = SeriesKey { endpoint: "e", metric, tags: Tags::EMPTY };
            engine.create(key, CounterType::Gauge, step).expect("a series")
        };
        let ids = [create("a", 60), create("b", 60), create("a", 30)];
        let mut recent = Vec::new();
        engine.take_recent(&mut recent);
        assert_eq!(recent, ids);
        engine.take_recent(&mut recent);
        assert_eq!(recent.len(), 3);
        for step in 1..=RECENT_MAX as u32 + 9 {
            create("a", step);
        }
        recent.clear();
        engine.take_recent(&mut recent);
        assert_eq!(recent.len(), RECENT_MAX);
    }

    #[test]
    fn a_batch_whose_series_was_removed_on_its_way_is_to_be_sent_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never).expect("a queue").0);
        let engine = engine(dir.path(), &queue);
        let key = |endpoint| SeriesKey { endpoint, metric: "m", tags: Tags::EMPTY };
        let ids = ["gone", "h"].map(|host| engine.create(key(host), CounterType::Gauge, 60).expect("a series"));
        let batch = ids.map(|series| Sample { series, point: Point { time: NOW, value: 9.0 } });
        assert_eq!(engine.remove_endpoints(&["gone".to_string(), "gone".to_string()]).expect("room"), (1, 1));
        let error = engine.append(&batch, NOW).expect_err("one of them is gone");
        assert_eq!(error.to_string(), "series were removed while the batch was on its way; send it again");
        assert!(!error.refuses_series() && !error.is_of_disk());
        let stats = engine.store().stats();
        assert_eq!((stats.unknown, stats.points_total), (1, 1), "the other is kept");
        push(&engine, "gone");
        engine.append(&batch[1..], NOW).expect("a repetition");
        assert_eq!(read(&queue, 0).len(), 1, "and judged once");
    }

    #[test]
    fn rules_reach_more_series_than_one_slice_holds() {
        const HOSTS: usize = SLICE + 2;
        let dir = tempfile::tempdir().expect("temp dir");
        let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never).expect("a queue").0);
        let engine = engine(dir.path(), &queue);
        let rules = rules();
        let mut hosts = HashMap::new();
        for i in 0..HOSTS {
            let host = format!("host-{i}");
            let key = SeriesKey { endpoint: &host, metric: "m", tags: Tags::EMPTY };
            engine.create(key, CounterType::Gauge, 60).expect("a series");
            hosts.insert(host, rules.hosts["h"].clone());
        }
        engine.load(&Rules { hosts, ..Rules::default() }, &|_, _| "gone".to_string());
        let bound: usize = (0..engine.judges.len()).map(|shard| engine.judge(shard).stats().bound_series).sum();
        assert_eq!(bound, HOSTS);
    }

    #[test]
    fn a_silent_series_takes_its_bindings_and_alarms_along_and_gets_rules_when_it_wakes() {
        let dir = tempfile::tempdir().expect("temp dir");
        let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never).expect("a queue").0);
        let engine = engine(dir.path(), &queue);
        push(&engine, "h");
        let later = NOW + 3 * 86_400;
        let key = SeriesKey { endpoint: "other", metric: "m", tags: Tags::EMPTY };
        let other = engine.create(key, CounterType::Gauge, 60).expect("a series");
        let point = Point { time: later, value: 9.0 };
        engine.append(&[Sample { series: other, point }], later).expect("append");
        engine.store().flush(later).expect("room");
        assert_eq!(engine.sleep_silent(later).expect("room").drowsy, 1);
        assert_eq!(queue.stats().open_problems, 1);
        assert_eq!(engine.sleep_silent(later + 60).expect("room").asleep, 1);
        let [event, closed] = &read(&queue, 0)[..] else { panic!("a PROBLEM and its end") };
        let What::Event(event) = &event.what else { panic!("{event:?}") };
        let What::Event(end) = &closed.what else { panic!("{closed:?}") };
        let reason = end.explanation.as_ref().map(|explanation| explanation.closed.as_str());
        assert_eq!((end.id(), end.status, reason), (event.id(), Status::Ok, Some(SERIES_SILENT)));
        assert_eq!(engine.judge(0).stats().bound_series, 0);
        push(&engine, "h");
        assert_eq!(engine.judge(0).stats().bound_series, 1);
        assert_eq!(engine.remove_endpoints(&["h".into(), "h".into(), "nobody".into()]).expect("room"), (1, 1));
        assert_eq!(engine.judge(0).stats().bound_series, 0);
    }

    #[test]
    fn an_alarm_whose_series_or_rule_is_gone_at_the_start_is_closed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never).expect("a queue").0);
        let first = engine(dir.path(), &queue);
        push(&first, "h");
        drop((first, queue));
        // The portal changed, and the process ended before it told the queue.
        std::fs::remove_dir_all(dir.path().join("store")).expect("removable");
        let (queue, recovered) = EventQueue::open(&dir.path().join("events"), Fsync::Never).expect("a queue");
        let queue = Arc::new(queue);
        engine(dir.path(), &queue).restore(&recovered.open_problems);
        let [event, closed] = &read(&queue, 0)[..] else { panic!("a PROBLEM and its end") };
        let What::Event(event) = &event.what else { panic!("{event:?}") };
        let What::Event(end) = &closed.what else { panic!("{closed:?}") };
        assert_eq!((end.id(), end.status), (event.id(), Status::Ok));
        assert_eq!(end.explanation.as_ref().map(|why| why.closed.as_str()), Some(SERIES_GONE));
        assert_eq!(queue.stats().open_problems, 0);
    }

    /// As the original: nobody is told. (There the case stays open; here it is closed.)
    #[test]
    fn a_rule_that_goes_is_closed_silently_under_open_falcon() {
        let dir = tempfile::tempdir().expect("temp dir");
        let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never).expect("a queue").0);
        let options = store::Options { dir: dir.path().join("store"), shard_count: 1, ..store::Options::default() };
        let (store, _) = store::Store::open(options, NOW).expect("a store");
        let options = judge::Options { semantics: Semantics::OpenFalcon, ..judge::Options::default() };
        let engine = Engine::new(store, 1, options, Some(queue.clone()));
        engine.load(&rules(), &|_, _| "gone".to_string());
        push(&engine, "h");
        let id = engine
            .store()
            .finder()
            .find(SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY })
            .expect("a series")
            .id;
        engine.remove_series(id).expect("removable");
        let [problem, closed] = &read(&queue, 0)[..] else { panic!("a PROBLEM and its end") };
        let What::Event(problem) = &problem.what else { panic!("{problem:?}") };
        assert_eq!(closed.what, What::Closed(problem.id()));
    }

    /// A series that falls silent is found by the clock, and only once, also over a restart.
    #[test]
    fn silence_is_found_by_the_clock() {
        let dir = tempfile::tempdir().expect("temp dir");
        let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never).expect("a queue").0);
        let start = |open: &[Event]| {
            let options = store::Options { dir: dir.path().join("store"), shard_count: 8, ..store::Options::default() };
            let (store, _) = store::Store::open(options, NOW).expect("a store");
            let engine = Engine::new(store, 8, judge::Options::default(), Some(queue.clone()));
            let mut rules = rules();
            let silent = Strategy { func: "nodata(#3)".into(), ..Strategy::clone(&rules.hosts["h"][0]) };
            rules.hosts = [("h".to_string(), [Arc::new(silent)].into())].into();
            assert!(engine.load(&rules, &|_, _| "gone".to_string()).is_empty());
            engine.restore(open);
            engine.catch_up(NOW - 600);
            engine
        };
        let engine = start(&[]);
        push_at(&engine, "m", NOW, 1.0);
        (NOW..NOW + 240).for_each(|now| engine.look_for_silence(now));
        assert_eq!(told(&queue), []);
        (NOW + 240..NOW + 2000).for_each(|now| engine.look_for_silence(now));
        let problem = (Status::Problem, 240, "m".to_string());
        assert_eq!(told(&queue), std::slice::from_ref(&problem));
        drop(engine);
        let What::Event(open) = read(&queue, 0).remove(0).what else { panic!("a PROBLEM") };
        let engine = start(&[open]);
        let now = clock::now();
        (now..now + 2000).step_by(5).for_each(|now| engine.look_for_silence(now));
        assert_eq!(told(&queue), std::slice::from_ref(&problem), "told once");
        push_at(&engine, "m", NOW + 3000, 1.0);
        assert_eq!(told(&queue).last(), Some(&(Status::Ok, 3000, "m".to_string())));
    }

    /// A strategy whose condition asks a series of another shard, on a store of eight.
    fn joined_engine(dir: &std::path::Path, queue: &Arc<EventQueue>) -> Engine {
        let options = store::Options { dir: dir.join("store"), shard_count: 8, ..store::Options::default() };
        let (store, _) = store::Store::open(options, NOW).expect("a store");
        let engine = Engine::new(store, 8, judge::Options::default(), Some(queue.clone()));
        let mut rules = rules();
        let strategy =
            Strategy { func: "all(#1) and all(#1) of n > 5".into(), ..Strategy::clone(&rules.hosts["h"][0]) };
        rules.hosts = [("h".to_string(), [Arc::new(strategy)].into())].into();
        assert!(engine.load(&rules, &|_, _| "gone".to_string()).is_empty());
        engine
    }

    fn push_at(engine: &Engine, metric: &str, time: i64, value: f64) {
        let key = SeriesKey { endpoint: "h", metric, tags: Tags::EMPTY };
        let series = engine.create(key, CounterType::Gauge, 60).expect("a series");
        engine.append(&[Sample { series, point: Point { time, value } }], time).expect("append");
    }

    fn told(queue: &Arc<EventQueue>) -> Vec<(Status, i64, String)> {
        let events = read(queue, 0).into_iter().filter_map(|queued| match queued.what {
            What::Event(event) => {
                let counter = event.key().counter();
                Some((event.status, event.time - NOW, counter))
            }
            _ => None,
        });
        events.collect()
    }

    #[test]
    fn series_of_different_shards_make_one_alarm_over_restarts() {
        let dir = tempfile::tempdir().expect("temp dir");
        let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never).expect("a queue").0);
        let engine = joined_engine(dir.path(), &queue);
        // Ids in groups of 256 share a shard.
        let key = |number: usize| format!("filler{number}");
        push_at(&engine, "m", NOW, 9.0);
        (0..256).for_each(|number| push_at(&engine, &key(number), NOW, 1.0));
        push_at(&engine, "n", NOW, 9.0);
        let problem = (Status::Problem, 0, "m".to_string());
        assert_eq!(told(&queue), std::slice::from_ref(&problem));
        drop(engine);
        let engine = joined_engine(dir.path(), &queue);
        let open: Vec<Event> = read(&queue, 0)
            .into_iter()
            .filter_map(|queued| match queued.what {
                What::Event(event) => Some(event),
                _ => None,
            })
            .collect();
        engine.restore(&open);
        engine.catch_up(NOW - 600);
        assert_eq!(told(&queue), std::slice::from_ref(&problem), "not sent again");
        push_at(&engine, "n", NOW + 60, 1.0);
        assert_eq!(told(&queue), [problem, (Status::Ok, 60, "m".to_string())]);
    }

    /// Two threads make and end the alarm of a condition over two shards; the queue has its events in turn.
    #[test]
    fn events_of_a_joined_alarm_keep_their_order_between_threads() {
        let dir = tempfile::tempdir().expect("temp dir");
        let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never).expect("a queue").0);
        let engine = joined_engine(dir.path(), &queue);
        push_at(&engine, "m", NOW, 9.0);
        (0..256).for_each(|number| push_at(&engine, &format!("filler{number}"), NOW, 1.0));
        push_at(&engine, "n", NOW, 1.0);
        let play = |metric: &'static str, phase: i64| {
            let engine = &engine;
            move || {
                (1..400).for_each(|i| push_at(engine, metric, NOW + i, if (i + phase) % 3 == 0 { 1.0 } else { 9.0 }))
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(play("m", 0));
            scope.spawn(play("n", 1));
        });
        let told = told(&queue);
        assert!(told.len() > 1, "{told:?}");
        let in_turn = told.iter().enumerate().all(|(i, (status, _, _))| (*status == Status::Problem) == (i % 2 == 0));
        assert!(in_turn, "{told:?}");
    }
}
