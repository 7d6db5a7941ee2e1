//! Engine: the store and the judges behind one lock per shard.
//!
//! Why: a point is kept once and judged at once, on the tail of the chunk it was just appended to.
//! How: `append` gives a batch to the store; for each point that became the newest of its series the store calls back,
//! under the lock of that shard, and the shard's judge looks at it if a rule is bound to it. Events go to the durable
//! queue under the same lock, so their order per alarm is the order of the points, also between connections. What
//! judging does by itself (rules, restarts, silence, closings) is in `judges.rs`, and how events leave in
//! `handover.rs`. A new series is bound when it is created. Locks, always in this order: shard of the store → judge of
//! that shard → series table (read), or backlog → queue. Under them a point may be judged and its events written, not
//! synced nor logged: see `handover.rs`. A series that nobody writes to leaves memory ([`Engine::sleep_silent`]): its
//! bindings and alarms go with it, and come back when it is created again.
//! Invariants: a series that no rule matches costs one branch per point here; a batch that the disk refuses is judged
//! all the same.

pub mod age;
pub mod blocking;
pub mod fed;
pub mod growth;
pub mod handover;
pub mod host_clocks;
pub mod ingest;
pub mod judges;
pub mod keeper;
pub mod listening;
pub mod locks;
pub mod oddities;
pub mod pressure;
pub mod text;
pub mod unkept;
pub mod why;
pub mod windowed;

use events::EventQueue;
use judge::Judge;
use judges::{Closing, Home, Judges, RULE_GONE, SERIES_GONE, SLICE, Unread, WhyGone};
use listening::{Heard, Intake, Seen};
use metrics::Figures;
use model::{CounterType, Event, Point, Rules, Sample, SeriesId, SeriesKey, Tags};
use oddities::Oddities;
use prometheus_client::metrics::histogram::Histogram;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use stdx::RankedMutex;
use stdx::ledger::{Ledger, Report};
use stdx::ranked::MutexGuard;
use store::{Parts, ShardView, Store};
use unkept::Unkept;

/// Series, created or changed, that may wait for the index task: 16 KiB. The task asks each second; what does not fit
/// is found later, on its walk over all series.
const RECENT_MAX: usize = 4096;

/// Bytes of the index per series, where pages are full: record, slot of the hash table, and its part of an endpoint;
/// newest point and state.
const INDEX_BYTES_MAX: u64 = 40;
const HEAD_BYTES_MAX: u64 = 33;

/// The store of a process, its judges, and the way of their events.
pub struct Engine {
    store: Store,
    judges: Judges,
    blocking: blocking::Running,
    recent: RankedMutex<Vec<SeriesId>>,
    oddities: Arc<Oddities>,
    unkept: Unkept,
    /// Whether starts have found something of the store lost of which nobody has taken note.
    has_losses: bool,
}

/// Failure to take a batch or a series.
#[derive(Debug)]
pub enum IngestError {
    Store(store::Error),
    /// The batch is kept but for some series that were just removed: sent again, it meets duplicates, and these series
    /// are created anew.
    SeriesRemoved,
    /// The batch is kept and judged, but events wait for the disk, in memory only.
    EventsWait,
}

impl IngestError {
    /// True when only this series is refused (the table is full, the text too long), and the batch can go on without
    /// it.
    pub fn refuses_series(&self) -> bool {
        let IngestError::Store(error) = self else { return false };
        matches!(error, store::Error::Full { .. } | store::Error::TextTooLong { .. } | store::Error::BadStep(_))
    }

    /// True when the operator must see to the disk.
    pub fn is_of_disk(&self) -> bool {
        matches!(self, IngestError::Store(store::Error::Disk { .. }) | IngestError::EventsWait)
    }
}

/// Text for whoever sends points while the event queue takes nothing.
pub const EVENTS_WAIT: &str = "the disk takes no events, which wait in memory; send the batch again";

impl std::fmt::Display for IngestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IngestError::Store(error) => error.fmt(f),
            IngestError::SeriesRemoved => {
                f.write_str("series were removed while the batch was on its way; send it again")
            }
            IngestError::EventsWait => f.write_str(EVENTS_WAIT),
        }
    }
}

impl Engine {
    /// An engine over a store of `shard_count` shards. Without a queue no rules may be loaded.
    pub fn new(store: Store, shard_count: usize, options: judge::Options, queue: Option<Arc<EventQueue>>) -> Engine {
        let judges = Judges::new(shard_count, options, queue);
        Engine {
            store,
            judges,
            blocking: blocking::Running::default(),
            recent: RankedMutex::new(locks::RECENT, Vec::new()),
            oddities: Arc::new(Oddities::new()),
            unkept: Unkept::default(),
            has_losses: false,
        }
    }

    /// The engine over a store of which something is lost: a series that it does not know may be one of what is.
    pub fn with_losses(self, has_losses: bool) -> Engine {
        Engine { has_losses, ..self }
    }

    /// Seconds between the arrival of a batch and the moment when each of its events is in the queue.
    pub fn event_latency(&self) -> &Histogram {
        self.judges.handover.latency()
    }

    /// The senders whose points are not what they seem.
    pub fn oddities(&self) -> &Arc<Oddities> {
        &self.oddities
    }

    /// The store, for whoever reads.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Options that rules are judged with.
    pub fn judge_options(&self) -> judge::Options {
        self.judges.options()
    }

    /// The series table, held for reading: for one decoded batch, no longer.
    pub fn finder(&self) -> store::Finder<'_> {
        self.store.finder()
    }

    /// Creates a series, or changes the type or step of one that exists for its points from `from` on, and binds it to
    /// its rules.
    pub fn create(
        &self,
        key: SeriesKey<'_>,
        counter_type: CounterType,
        step: u32,
        from: i64,
    ) -> Result<SeriesId, IngestError> {
        let id = self.store.create(key, counter_type, step).map_err(IngestError::Store)?;
        let known = self.store.finder().find(key);
        if known.is_some_and(|found| found.counter_type != counter_type || found.step != step) {
            self.store.set_meta(id, counter_type, step, from).map_err(IngestError::Store)?;
        }
        self.bind(id, key, counter_type);
        let mut recent = self.recent.lock();
        if recent.len() < RECENT_MAX {
            recent.push(id);
        }
        Ok(id)
    }

    /// Binds a series that was just found or created. It may leave at the same moment, and what unbinds it may have
    /// come first: so the table is looked at again behind each step, until both say the same.
    fn bind(&self, id: SeriesId, key: SeriesKey<'_>, counter_type: CounterType) {
        let is_there = || self.store.finder().find(key).is_some_and(|found| found.id == id);
        loop {
            let closed = self.judge_of(id).bind(id, key, counter_type);
            let closings: Vec<_> = closed.iter().map(|open| Closing::new(open.rule, key, RULE_GONE)).collect();
            self.judges.end(&self.store, &closings);
            self.judges.put_back(self.store.shard_of(id), id, key);
            if is_there() {
                return;
            }
            self.judge_of(id).unbind(id);
            if !is_there() {
                return;
            }
        }
    }

    /// Moves the series that were created or changed since the last call to `out`; of very many, not all.
    pub fn take_recent(&self, out: &mut Vec<SeriesId>) {
        out.append(&mut self.recent.lock());
    }

    /// Logs, stores and judges a batch that arrived at `arrived`, before it was decoded. On an error it is not kept, or
    /// not all of it, though it may have been judged: it is to be sent again. Where it waits until the disk has it, the
    /// runtime's other work goes on in other threads.
    pub fn append(&self, samples: &[Sample], now: i64, arrived: Instant) -> Result<(), IngestError> {
        if samples.is_empty() {
            return Ok(());
        }
        let _taking = self.judges.intake.taking();
        let mut observer = Observer {
            engine: self,
            now: self.judges.now(now),
            arrived,
            judge: None,
            events: Vec::new(),
            made_events: false,
            contradicted: None,
        };
        let mut append = || {
            let appended = self.store.append(samples, now, &mut observer);
            // Nobody waits for the disk under a judge's lock.
            observer.judge = None;
            if std::mem::take(&mut observer.made_events) {
                self.judges.handover.settle();
            }
            appended
        };
        let appended = if self.store.append_waits() { tokio::task::block_in_place(append) } else { append() };
        if let Some(series) = observer.contradicted {
            self.with_endpoint(series, |endpoint| self.oddities.suspect(endpoint, now));
        }
        match appended.map_err(IngestError::Store)?.unknown {
            0 if self.judges.handover.is_waiting() => Err(IngestError::EventsWait),
            0 => Ok(()),
            _ => Err(IngestError::SeriesRemoved),
        }
    }

    /// Notes for suspects which address has sent a batch; only the batch's first endpoint, as agents send one.
    pub fn seen_from(&self, address: Option<IpAddr>, samples: &[Sample], now: i64) {
        let (Some(address), Some(first)) = (address, samples.first()) else { return };
        if self.oddities.has_suspects() {
            self.with_endpoint(first.series, |endpoint| self.oddities.seen(endpoint, address, now));
        }
    }

    fn with_endpoint(&self, series: SeriesId, use_endpoint: impl FnOnce(&str)) {
        let mut found = None;
        self.store.with_keys(&[series], &mut |_, key, _| found = Some(key.endpoint.to_string()));
        if let Some(endpoint) = found {
            use_endpoint(&endpoint);
        }
    }

    /// Deletes a series, its points and its bindings, and closes the alarms that were open on it, also when the
    /// deletion is not durable yet.
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

    /// Deletes some series and closes their alarms, also where the store's deletion is not durable yet; answers how
    /// many there were.
    fn remove_together(&self, ids: &mut [SeriesId]) -> Result<usize, store::Error> {
        let mut names: Vec<(SeriesId, [String; 3])> = Vec::new();
        self.store.with_keys(ids, &mut |id, key, _| {
            names.push((id, [key.endpoint, key.metric, key.tags.as_str()].map(str::to_string)));
        });
        let removed = self.store.remove_many(ids);
        let mut closings = Vec::new();
        // A load of rules that has listed the series before binds it yet; what it binds is unbound behind it.
        let loading = self.judges.hold_loading();
        // One that could not be deleted is judged on; one that sleeps has no alarm.
        for (id, [endpoint, metric, tags]) in names.iter().filter(|(id, _)| self.store.is_removed(*id)) {
            let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
            let open = self.judges.unbind(self.store.shard_of(*id), *id);
            closings.extend(open.iter().map(|problem| Closing::new(problem.rule, key, SERIES_GONE)));
        }
        drop(loading);
        self.judges.end(&self.store, &closings);
        removed
    }

    /// Closes the alarms that are open on an endpoint's series whose metrics begin with `metrics`; the series stay, and
    /// are judged on as if they were new.
    pub fn end_alarms(&self, endpoint: &str, metrics: &str, reason: &str) -> Result<(), store::Error> {
        let ids = self.store.series_of_endpoint(endpoint)?;
        let mut names: Vec<(SeriesId, [String; 2], CounterType)> = Vec::new();
        self.store.with_keys(&ids, &mut |id, key, counter_type| {
            if key.metric.starts_with(metrics) {
                names.push((id, [key.metric, key.tags.as_str()].map(str::to_string), counter_type));
            }
        });
        let mut closings = Vec::new();
        let loading = self.judges.hold_loading();
        for (id, [metric, tags], counter_type) in &names {
            let (shard, key) =
                (self.store.shard_of(*id), SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) });
            let mut open = self.judges.unbind(shard, *id);
            open.extend(self.judges.judge(shard).bind(*id, key, *counter_type));
            closings.extend(open.iter().map(|problem| Closing::new(problem.rule, key, reason)));
        }
        drop(loading);
        self.judges.end(&self.store, &closings);
        Ok(())
    }

    /// Lets silent series leave memory, and closes their alarms; call this each minute.
    pub fn sleep_silent(&self, now: i64) -> Result<store::Slept, store::Error> {
        self.unbinding(|each| self.store.sleep_silent(now, each))
    }

    /// Lets series that no rule looks at leave memory early, for a process that is short of it; call this each few
    /// seconds.
    pub fn sleep_early(&self, now: i64) -> Result<store::Slept, store::Error> {
        self.unbinding(|each| self.store.sleep_early(now, &|id| self.is_judged(id), each))
    }

    /// Lets go of what is in blocks, of series that no rule looks at.
    pub fn trim_unneeded(&self) {
        self.store.trim_unneeded(&|id| self.is_judged(id));
    }

    fn is_judged(&self, id: SeriesId) -> bool {
        let judge = self.judge_of(id);
        judge.is_bound(id) || judge.is_joined(id)
    }

    /// Unbinds the series that `sleep` tells of.
    fn unbinding<R>(&self, sleep: impl FnOnce(&mut dyn FnMut(SeriesId, SeriesKey<'_>)) -> R) -> R {
        let mut closings = Vec::new();
        let slept = sleep(&mut |id, key| {
            let _loading = self.judges.hold_loading();
            let open = self.judges.unbind(self.store.shard_of(id), id);
            closings.extend(open.iter().map(|problem| Closing::new(problem.rule, key, SERIES_SILENT)));
        });
        self.judges.end(&self.store, &closings);
        slept
    }

    /// Loads rules into the judges over the store's series, see [`Judges::load`].
    pub fn load(&self, rules: &Rules, why: &WhyGone<'_>) -> Vec<judge::RefusedRule> {
        self.judges.load(&self.store, rules, why)
    }

    /// Puts the open alarms back, see [`Judges::restore`]; call this after [`Engine::load`].
    pub fn restore(&self, open_problems: &[Event], rules_are_whole: bool) {
        self.judges.restore(&self.store, open_problems, self.unread(rules_are_whole));
    }

    /// Puts the alarms back that a start without all rules has kept; call this after [`Engine::load`] of all.
    pub fn restore_kept(&self) {
        self.judges.restore_kept(&self.store, self.unread(true));
    }

    fn unread(&self, rules_are_whole: bool) -> Unread {
        Unread { rules: !rules_are_whole, series: self.has_losses || !self.store.found_at_start().is_empty() }
    }

    /// Judges the newest points again after a start, see [`Judges::catch_up`].
    pub fn catch_up(&self, oldest: i64) {
        self.judges.catch_up(&self.store, oldest);
    }

    /// What comes in, for whoever asks whether the hosts can be heard.
    pub fn intake(&self) -> &Intake {
        &self.judges.intake
    }

    /// Looks at the clocks with `look`, and for points that do not come; call this each second, from a thread that does
    /// not wait for the disk.
    pub fn listen(&self, look: &mut dyn FnMut(Seen<'_>) -> (Heard, i64)) {
        let (heard, now) = look(self.intake().seen(self.store.unjudged()));
        self.judges.listen(&self.store, &heard, now);
    }

    /// Unix seconds since which the hosts have been heard without a break; the end of time before the first look.
    pub fn heard_since(&self) -> i64 {
        self.judges.heard_since()
    }

    /// Writes what the queue refused, and syncs the queue; call this each second.
    pub fn tick(&self) -> std::io::Result<()> {
        self.judges.handover.flush()
    }

    /// Whether points cannot be kept now.
    pub fn unkept(&self) -> &Unkept {
        &self.unkept
    }

    /// Sees whether the disk takes points again that it refused; call this each second.
    pub fn look_at_unkept(&self) {
        self.unkept.look(|| !self.judges.handover.is_waiting() && self.store.try_log().is_ok());
    }

    /// Number of events that only memory holds, for the disk takes none.
    pub fn events_waiting(&self) -> usize {
        self.judges.handover.waiting()
    }

    /// Names what store and judges hold in the ledger.
    pub fn register_memory(self: &Arc<Self>, ledger: &Ledger) {
        let engine = self.clone();
        ledger.source(move |report| {
            engine.report_store(report);
            engine.judges.report(report);
            let recent = engine.recent.lock().capacity() * size_of::<SeriesId>();
            report.line("recent series", recent as u64, Some((RECENT_MAX * size_of::<SeriesId>()) as u64), None);
            engine.oddities.memory(report);
        });
    }

    fn report_store(&self, report: &mut Report) {
        let (memory, stats) = (self.store.memory(), self.store.stats());
        let series = Some(stats.series as u64);
        let bound = |bytes: u64| Some(u64::from(self.store.series_max()) * bytes);
        report.line("series index", memory.index as u64, bound(INDEX_BYTES_MAX), series);
        report.line("series heads", memory.heads as u64, bound(HEAD_BYTES_MAX), series);
        let mut line = |owner, bytes: usize, count| report.line(owner, bytes as u64, None, count);
        line("interner", memory.texts, None);
        line("hot chunks", memory.chunks, Some(stats.hot_points));
        line("log buffers", memory.log, None);
        line("block catalogue", memory.catalog, Some(stats.blocks as u64));
        line("sleeping series", memory.asleep, Some(stats.series_asleep));
        report.line("flush buffers", memory.flush, None, None);
        report.line("merge buffers", memory.merge, None, None);
        report.line("read buffers", memory.reads, None, None);
    }

    /// Appends what the judges hold and have done to the metrics page.
    pub fn show(&self, figures: &mut Figures<'_>) {
        self.judges.show(figures);
    }

    fn judge_of(&self, id: SeriesId) -> MutexGuard<'_, Judge> {
        self.judges.judge(self.store.shard_of(id))
    }
}

impl Home for Store {
    type Points<'w> = Tail<'w>;

    fn shard_of(&self, id: SeriesId) -> usize {
        Parts::shard_of(self, id)
    }

    fn find(&self, key: SeriesKey<'_>) -> Option<SeriesId> {
        self.finder().find(key).map(|found| found.id)
    }

    fn for_each_series(&self, each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType, u32)) {
        Parts::for_each_series(self, each);
    }

    fn with_keys(&self, ids: &[SeriesId], each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType)) {
        Parts::with_keys(self, ids, each);
    }

    fn with_window(&self, id: SeriesId, look: impl FnOnce(&Tail<'_>)) {
        self.with_tail(id, |view| look(&Tail(view)));
    }

    fn newest(&self, id: SeriesId) -> Option<Point> {
        self.newest_in_memory(id)
    }
}

const SERIES_SILENT: &str = "the series has been silent for too long (graph.silent_after)";

/// Judges each point that the store reports, holding the judge of the shard that is being appended to.
struct Observer<'e> {
    engine: &'e Engine,
    now: i64,
    arrived: Instant,
    judge: Option<(usize, MutexGuard<'e, Judge>)>,
    events: Vec<Event>,
    made_events: bool,
    /// A series that had another value at the time of a point.
    contradicted: Option<SeriesId>,
}

impl store::Observer for Observer<'_> {
    fn newest(&mut self, shard: usize, sample: Sample, counter_type: CounterType, view: &ShardView<'_>) {
        let Some(judge) = judge_of_bound(self.engine, &mut self.judge, shard, sample.series) else { return };
        let Some((_, step)) = view.meta(sample.series) else { return };
        judge.on_point(sample, counter_type, step, &Tail(view), self.now, &mut self.events);
        self.made_events |= self.engine.judges.handover.send_arrived(&mut self.events, self.arrived) > 0;
    }

    fn late(&mut self, shard: usize, sample: Sample, view: &ShardView<'_>) {
        let Some(judge) = judge_of_bound(self.engine, &mut self.judge, shard, sample.series) else { return };
        let Some((counter_type, step)) = view.meta(sample.series) else { return };
        judge.hear(sample, counter_type, step, &Tail(view), self.now);
    }

    fn contradicted(&mut self, sample: Sample) {
        self.contradicted = Some(sample.series);
    }

    fn leave(&mut self) {
        self.judge = None;
    }
}

/// The judge of a shard, which is held from point to point, if the series has rules there.
#[inline]
fn judge_of_bound<'h, 'e>(
    engine: &'e Engine,
    held: &'h mut Option<(usize, MutexGuard<'e, Judge>)>,
    shard: usize,
    series: SeriesId,
) -> Option<&'h mut Judge> {
    if held.as_ref().is_none_or(|(held, _)| *held != shard) {
        // The old one is let go first: two judges are never held together.
        *held = None;
        *held = Some((shard, engine.judges.judge(shard)));
    }
    let (_, judge) = held.as_mut()?;
    judge.is_bound(series).then_some(judge)
}

/// View of the store for a judge: the tail of a chunk, and the texts of a series when an event is made.
pub struct Tail<'w>(&'w ShardView<'w>);

impl judge::PointSource for Tail<'_> {
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
mod tests;
