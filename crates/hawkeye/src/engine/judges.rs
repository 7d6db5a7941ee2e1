//! Judges: one per shard of series, the rules that they hold, and what follows when rules, series or the clock change.
//!
//! Why: the same judging stands behind two homes of points: the store of a whole server, where the window is the tail
//! of the chunk that a point was just appended to, and the windows of a judge that runs alone. [`Home`] is what it asks
//! of either.
//! How: [`Judges::load`] compiles the rules once, gives every judge the shared result, and re-binds only the series
//! that the change touches. Whoever keeps the points has each newest one judged, under the lock of its shard, and hands
//! the events to [`Handover`] under the same lock. Conditions over several series: the judges share [`Joins`]. Locks,
//! always in this order: shard of the home → judge of that shard → names of the home (read), or backlog → queue. The
//! joins' is innermost everywhere. Nobody who holds the names takes another. An alarm whose rule or series goes is
//! closed with an event that says why; silently, as far as people are concerned, under
//! `judge.semantics = "open-falcon"`. The queue is told, in order with the events.
//! Memory: loading and catching up hold 4 bytes per series and the texts of [`SLICE`] series.

use crate::clock;
use crate::engine::handover::{Handover, alarm_id};
use crate::engine::listening::{GAP_S, Heard, Intake};
use crate::engine::locks;
use events::EventQueue;
use judge::{Joins, Judge, OpenProblem, RuleId, RuleSet, Touched};
use metrics::Figures;
use model::{CounterType, Event, Point, Rules, SeriesId, SeriesKey, Tags};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use stdx::RankedMutex;
use stdx::ledger::Report;
use stdx::ranked::MutexGuard;

/// Seconds between looks at the clock for points that do not come. Rules count in periods of 30 s and more.
const SILENCE_TICK_S: i64 = 5;

/// Series whose texts are copied at once, since the names must not be held while a judge is waited for: some 300 kB,
/// and a tenth of a millisecond of the names.
pub const SLICE: usize = 4096;

/// Reason of a closing of which nobody knows a better one.
pub const RULE_GONE: &str = "the rule no longer applies";
/// Reason of a closing whose series was deleted.
pub const SERIES_GONE: &str = "the series was deleted";
/// Reason of a closing at a start whose store is whole and does not have the series: a stop came between its deletion
/// and the closing, or it was lost before.
const SERIES_UNKNOWN: &str = "the store does not have the series any more";

/// What a start could not read whole. Whatever is not found there may exist all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    pub rules: bool,
    pub series: bool,
}

/// Open alarms that wait for their rule or series, by a hash of the series' texts.
#[derive(Default)]
struct Kept {
    by_series: HashMap<u64, Vec<Event>>,
    hasher: RandomState,
}

impl Kept {
    fn push(&mut self, event: Event) {
        self.by_series.entry(self.hasher.hash_one(event.key())).or_default().push(event);
    }

    /// Takes the alarms of a series out.
    fn take(&mut self, key: SeriesKey<'_>) -> Vec<Event> {
        if self.by_series.is_empty() {
            return Vec::new();
        }
        let mut found = self.by_series.remove(&self.hasher.hash_one(key)).unwrap_or_default();
        let others: Vec<Event> = found.extract_if(.., |event| event.key() != key).collect();
        others.into_iter().for_each(|event| self.push(event));
        found
    }

    fn alarms(&self) -> impl Iterator<Item = &Event> {
        self.by_series.values().flatten()
    }
}

/// Says why a rule applies to an endpoint no longer.
pub type WhyGone<'w> = dyn Fn(RuleId, SeriesKey<'_>) -> String + 'w;

/// Keeper of the series and their points, under one lock per shard.
pub trait Home {
    /// View of the points of one shard, while its lock is held.
    type Points<'w>: judge::PointSource;

    fn shard_of(&self, id: SeriesId) -> usize;

    fn find(&self, key: SeriesKey<'_>) -> Option<SeriesId>;

    /// Visits all series in memory, in slices; the names are held during each.
    fn for_each_series(&self, each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType, u32));

    /// Visits those of `ids` that exist, while the names are held.
    fn with_keys(&self, ids: &[SeriesId], each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType));

    /// Locks the shard of a series.
    fn with_window(&self, id: SeriesId, look: impl FnOnce(&Self::Points<'_>));

    /// Newest point of a series, if it is in memory.
    fn newest(&self, id: SeriesId) -> Option<Point>;
}

/// An alarm that is to be closed since its rule or its series went: the alarm by the texts of its series, and why.
pub struct Closing {
    rule: RuleId,
    endpoint: String,
    metric: String,
    tags: String,
    reason: String,
}

impl Closing {
    pub fn new(rule: RuleId, key: SeriesKey<'_>, reason: impl Into<String>) -> Closing {
        let [endpoint, metric, tags] = [key.endpoint, key.metric, key.tags.as_str()].map(str::to_string);
        Closing { rule, endpoint, metric, tags, reason: reason.into() }
    }

    fn key(&self) -> SeriesKey<'_> {
        let tags = Tags::assume_canonical(&self.tags);
        SeriesKey { endpoint: &self.endpoint, metric: &self.metric, tags }
    }
}

/// The judges of a process, the rules that they share, and the way of their events.
pub struct Judges {
    /// Held for a point, or a slice of series, and for the write of its events; no disk is waited for under it.
    judges: Vec<RankedMutex<Judge>>,
    joins: Arc<Joins>,
    options: judge::Options,
    pub handover: Handover,
    /// What comes in, for whoever asks whether the hosts can be heard.
    pub intake: Intake,
    /// Wall clock of the last look at the clocks; `i64::MIN` before the first.
    looked: AtomicI64,
    /// Since when the hosts have been heard without a break; the end of time before the first look.
    heard_since: AtomicI64,
    /// Times at which silence was counted anew since the start.
    anew: AtomicU64,
    /// Time of the last look at silent series (Unix seconds).
    silences_seen: AtomicI64,
    /// Held while rules are loaded: which series there are must not change between listing and binding them.
    loading: RankedMutex<()>,
    /// Open alarms that could not be put back at the start, since their rule or series was not read. Bound: those that
    /// the queue remembers. Held to move some in or out.
    kept: RankedMutex<Kept>,
    /// Open problems that a load has taken from series whose names had left already; whoever took the series away waits
    /// for the load, and closes them. Bound: moving some in or out.
    orphans: RankedMutex<Vec<OpenProblem>>,
    rules_version: AtomicU64,
    rules_refused: AtomicU64,
    /// Bytes of the compiled rules, which all judges share.
    rule_set_bytes: AtomicU64,
}

impl Judges {
    /// Judges without rules, one per shard of the home. Without a queue no rules may be loaded.
    pub fn new(shards: usize, options: judge::Options, queue: Option<Arc<EventQueue>>) -> Judges {
        let joins = Arc::new(Joins::default());
        Judges {
            judges: (0..shards)
                .map(|_| RankedMutex::new(locks::JUDGE, Judge::sharing(options, joins.clone())))
                .collect(),
            handover: Handover::new(joins.clone(), options.semantics, queue),
            joins,
            options,
            intake: Intake::default(),
            looked: AtomicI64::new(i64::MIN),
            heard_since: AtomicI64::new(i64::MAX),
            anew: AtomicU64::new(0),
            silences_seen: AtomicI64::new(i64::MIN),
            loading: RankedMutex::new(locks::LOADING, ()),
            kept: RankedMutex::new(locks::KEPT, Kept::default()),
            orphans: RankedMutex::new(locks::ORPHANS, Vec::new()),
            rules_version: AtomicU64::new(0),
            rules_refused: AtomicU64::new(0),
            rule_set_bytes: AtomicU64::new(0),
        }
    }

    /// Options that the judges judge with.
    pub fn options(&self) -> judge::Options {
        self.options
    }

    /// Locks the judge of a shard.
    pub fn judge(&self, shard: usize) -> MutexGuard<'_, Judge> {
        self.judges[shard].lock()
    }

    /// Locks the loading of rules: for whoever takes a series away.
    pub fn hold_loading(&self) -> MutexGuard<'_, ()> {
        self.loading.lock()
    }

    /// Puts new rules into effect, re-binds the series that they touch, and closes the open alarms whose rule no longer
    /// applies; `why` gives the reason for a series. Answers the rules that cannot be compiled.
    pub fn load(&self, home: &impl Home, rules: &Rules, why: &WhyGone<'_>) -> Vec<judge::RefusedRule> {
        debug_assert!(self.handover.has_queue(), "rules make events");
        let (rule_set, refused) = RuleSet::compile(rules, &self.options);
        let closings = self.bind_anew(home, &rule_set, why);
        // Neither the queue's files nor the log wait under the lock of loading, for which whoever names series may
        // wait.
        self.end(home, &closings);
        let loading = self.hold_loading();
        self.refill(home, self.now(clock::now()));
        drop(loading);
        self.rule_set_bytes.store(rule_set.memory_bytes() as u64, Ordering::Relaxed);
        self.rules_version.store(rules.version, Ordering::Relaxed);
        self.rules_refused.store(refused.len() as u64, Ordering::Relaxed);
        refused
    }

    /// Gives all judges a rule set, and binds the series that it touches; answers the alarms that are to be closed.
    fn bind_anew(&self, home: &impl Home, rule_set: &Arc<RuleSet>, why: &WhyGone<'_>) -> Vec<Closing> {
        let _loading = self.hold_loading();
        // What changed is the same for all judges: only the first looks for it.
        let mut touched: Vec<Touched> = Vec::with_capacity(self.judges.len());
        for shard in 0..self.judges.len() {
            let mut judge = self.judge(shard);
            let next = match touched.first() {
                None => judge.load(rule_set.clone()),
                Some(first) => judge.load_like(first),
            };
            drop(judge);
            touched.push(next);
        }
        let mut closings = Vec::new();
        for problem in touched.iter().flat_map(|touched| touched.closed()) {
            let before = closings.len();
            home.with_keys(&[problem.series], &mut |_, key, _| {
                closings.push(Closing::new(problem.rule, key, why(problem.rule, key)));
            });
            if closings.len() == before {
                self.orphans.lock().push(*problem);
            }
        }
        let mut ids = Vec::new();
        home.for_each_series(&mut |id, key, _, _| {
            if touched[home.shard_of(id)].covers(key) {
                ids.push(id);
            }
        });
        let mut slice: Vec<(SeriesId, [String; 3], CounterType)> = Vec::new();
        for ids in ids.chunks(SLICE) {
            slice.clear();
            home.with_keys(ids, &mut |id, key, counter_type| {
                slice.push((id, [key.endpoint, key.metric, key.tags.as_str()].map(str::to_string), counter_type));
            });
            for (id, [endpoint, metric, tags], counter_type) in &slice {
                let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
                let closed = self.judge(home.shard_of(*id)).bind(*id, key, *counter_type);
                closings.extend(closed.iter().map(|open| Closing::new(open.rule, key, why(open.rule, key))));
            }
        }
        closings
    }

    /// Unbinds a series that has left, with the lock of loading held; answers the problems that were open on it.
    pub fn unbind(&self, shard: usize, id: SeriesId) -> Vec<OpenProblem> {
        let mut open = self.judge(shard).unbind(id);
        open.extend(self.orphans.lock().extract_if(.., |orphan| orphan.series == id));
        open
    }

    /// Puts back the open alarms that the queue remembers, and closes those whose rule or series is gone. Call this
    /// after [`Judges::load`]. An alarm whose rule or series may only be unread stays open.
    pub fn restore(&self, home: &impl Home, open_problems: &[Event], unread: Unread) {
        let mut closings = Vec::new();
        for event in open_problems {
            let found = home.find(event.key());
            if found.is_some_and(|id| self.judge(home.shard_of(id)).restore(id, event)) {
                continue;
            }
            let (may_be_unread, reason) = match found {
                Some(_) => (unread.rules, RULE_GONE),
                None => (unread.series, SERIES_UNKNOWN),
            };
            if may_be_unread {
                self.kept.lock().push(event.clone());
            } else {
                closings.push((event.id(), reason.to_string()));
            }
        }
        self.handover.end(closings, |_| false);
    }

    /// Goes on with [`Judges::restore`], now that all rules are read.
    pub fn restore_kept(&self, home: &impl Home, unread: Unread) {
        let kept: Vec<Event> = std::mem::take(&mut self.kept.lock().by_series).into_values().flatten().collect();
        self.restore(home, &kept, unread);
    }

    /// Puts back the kept alarms of a series that is there again, and was bound to its rules.
    pub fn put_back(&self, shard: usize, id: SeriesId, key: SeriesKey<'_>) {
        let found = self.kept.lock().take(key);
        for event in found {
            let restored = self.judge(shard).restore(id, &event);
            if !restored {
                self.kept.lock().push(event);
            }
        }
    }

    /// Number of open alarms that wait for their rule or series.
    pub fn kept(&self) -> usize {
        self.kept.lock().alarms().count()
    }

    /// Lets all series say their part in conditions over several series: after a load, and before anything is caught
    /// up.
    pub fn refill(&self, home: &impl Home, now: i64) {
        for shard in 0..self.judges.len() {
            let seated: Vec<SeriesId> = self.judge(shard).seated().collect();
            for id in seated {
                home.with_window(id, |window| {
                    let Some((counter_type, step)) = judge::PointSource::meta(window, id) else { return };
                    self.judge(shard).refill(id, counter_type, step, window, now);
                });
            }
        }
    }

    /// Judges the newest stored point of each bound series again, so that an event which the last stop cut off between
    /// the log and the queue is still made. Only points not older than `oldest` count.
    pub fn catch_up(&self, home: &impl Home, oldest: i64) {
        let now = clock::now();
        self.refill(home, now);
        let mut bound = Vec::new();
        home.for_each_series(&mut |id, _, _, _| bound.push(id));
        bound.retain(|id| self.judge(home.shard_of(*id)).is_bound(*id));
        for id in bound {
            // So young a point is in memory; a series that is silent for long must not be looked for on the disk.
            if home.newest(id).is_none_or(|point| point.time < oldest) {
                continue;
            }
            let mut events = Vec::new();
            home.with_window(id, |window| {
                let Some((counter_type, step)) = judge::PointSource::meta(window, id) else { return };
                self.judge(home.shard_of(id)).catch_up(id, counter_type, step, window, now, &mut events);
                self.handover.send(&mut events);
            });
        }
        self.joins.settle(now, &self.options);
        self.handover.hand_over();
    }

    /// The time by which is judged what comes at `wall`: the wall clock, but no further from its last look than a clock
    /// that runs can be. So a clock that was set is noticed before anybody is judged by it.
    pub fn now(&self, wall: i64) -> i64 {
        match self.looked.load(Ordering::Relaxed) {
            i64::MIN => wall,
            looked => wall.clamp(looked.saturating_sub(GAP_S), looked.saturating_add(GAP_S)),
        }
    }

    /// Takes note of how well the hosts were heard until `now`, the wall clock, and looks for points that do not come;
    /// call this each second.
    pub fn listen(&self, home: &impl Home, heard: &Heard, now: i64) {
        if *heard != Heard::Well {
            self.listen_anew(home, now);
        }
        if matches!(heard, Heard::Anew(_)) {
            self.anew.fetch_add(1, Ordering::Relaxed);
        }
        if *heard != Heard::Well || self.heard_since() == i64::MAX {
            self.heard_since.store(now, Ordering::Relaxed);
        }
        self.looked.store(now, Ordering::Relaxed);
        self.look_for_silence(home, now);
    }

    /// Unix seconds since which the hosts have been heard without a break; the end of time before the first look.
    pub fn heard_since(&self) -> i64 {
        self.heard_since.load(Ordering::Relaxed)
    }

    fn listen_anew(&self, home: &impl Home, now: i64) {
        let _loading = self.hold_loading();
        (0..self.judges.len()).for_each(|shard| self.judge(shard).listen_anew(now));
        self.refill(home, now);
    }

    /// Looks for points that do not come.
    pub fn look_for_silence(&self, home: &impl Home, now: i64) {
        let seen = self.silences_seen.load(Ordering::Relaxed);
        // Also when the clock was set back.
        if (seen..seen.saturating_add(SILENCE_TICK_S)).contains(&now) {
            return;
        }
        self.silences_seen.store(now, Ordering::Relaxed);
        for shard in 0..self.judges.len() {
            // Only to know whether the shard must be locked: that lock comes first.
            let Some(id) = self.judge(shard).first_due(now) else { continue };
            home.with_window(id, |window| {
                let mut events = Vec::new();
                self.judge(shard).tick(now, window, &mut events);
                self.handover.send(&mut events);
            });
        }
        self.handover.hand_over();
    }

    /// Closes alarms, but those that are open again: their series came back, or their rule, and a PROBLEM of theirs is
    /// behind the end. Call this without a lock.
    pub fn end(&self, home: &impl Home, closings: &[Closing]) {
        let alarms = closings.iter().map(|closing| (alarm_id(closing.rule, closing.key()), closing.reason.clone()));
        self.handover.end(alarms.collect(), |index| {
            let closing: &Closing = &closings[index];
            let found = home.find(closing.key());
            found.is_some_and(|id| self.judge(home.shard_of(id)).is_open(id, closing.rule))
        });
    }

    /// Sum of the figures of all judges.
    fn stats(&self) -> judge::Stats {
        let mut judge = judge::Stats::default();
        for shard in 0..self.judges.len() {
            let stats = self.judge(shard).stats();
            judge.bound_series += stats.bound_series;
            judge.bound_pairs += stats.bound_pairs;
            judge.open_problems += stats.open_problems;
            judge.silences += stats.silences;
            judge.memory_bytes += stats.memory_bytes;
            judge.binding_bytes += stats.binding_bytes;
        }
        judge
    }

    /// Names what the judges hold in the ledger.
    pub fn report(&self, report: &mut Report) {
        let (judge, joins) = (self.stats(), self.joins.stats());
        let (kept, kept_bytes) = self
            .kept
            .lock()
            .alarms()
            .fold((0, 0), |sum, event| (sum.0 + 1, sum.1 + size_of::<Event>() + event.memory_bytes()));
        let mut line = |owner, bytes: usize, count: usize| report.line(owner, bytes as u64, None, Some(count as u64));
        line("rule bindings", judge.binding_bytes, judge.bound_pairs);
        line("alert state", judge.memory_bytes - judge.binding_bytes + kept_bytes, judge.open_problems + kept);
        line("joins", joins.memory_bytes, joins.carriers + joins.others);
        report.line("rule set", self.rule_set_bytes.load(Ordering::Relaxed), None, None);
        report.line("host clocks", self.intake.clocks.memory_bytes() as u64, None, None);
        self.handover.report(report);
    }

    /// Appends what the judges hold and have done to the metrics page.
    pub fn show(&self, figures: &mut Figures<'_>) {
        let judge = self.stats();
        let joins = self.joins.stats();
        figures.gauge("judge_bound_series", "Series with at least one rule", judge.bound_series as f64);
        figures.gauge("judge_bound_pairs", "Pairs of a series and a rule", judge.bound_pairs as f64);
        figures.gauge("judge_open_problems", "Alarms that are open", judge.open_problems as f64);
        figures.gauge(
            "judge_kept_problems",
            "Alarms that are open, and whose rule or series was not read",
            self.kept() as f64,
        );
        figures.gauge("judge_memory_bytes", "Memory of bindings and alert state", judge.memory_bytes as f64);
        figures.gauge("judge_silences", "Series that a nodata rule asks about", judge.silences as f64);
        let anew = self.anew.load(Ordering::Relaxed);
        let help = "Times at which silence was counted anew, as nobody could be heard or the clock was set";
        figures.counter("judge_listened_anew", help, anew);
        figures.gauge("judge_join_groups", "Conditions over several series, per endpoint", joins.count as f64);
        figures.gauge(
            "judge_join_series",
            "Series that carry a condition over several series, or are asked by one",
            (joins.carriers + joins.others) as f64,
        );
        figures.counter(
            "judge_join_seats_refused",
            "Series without a part in a condition over several series, because it is full at their endpoint",
            joins.seats_refused,
        );
        figures.gauge("judge_join_memory_bytes", "Memory of conditions over several series", joins.memory_bytes as f64);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        figures.gauge("rules_version", "Version of the rules in effect", load(&self.rules_version));
        figures.gauge("rules_refused", "Rules in effect that cannot be judged", load(&self.rules_refused));
        self.handover.show(figures);
    }
}
