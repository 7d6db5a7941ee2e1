//! Judge: one shard's rules in force; the only place where points, rules and alert state meet.
//!
//! Order of life: [`Judge::load`] a rule set, [`Judge::bind`] the series that it touches, [`Judge::restore`] the open
//! PROBLEMs of the durable queue, [`Judge::refill`] and then [`Judge::catch_up`] each bound series once; then
//! [`Judge::on_point`] for each newest point, and [`Judge::tick`] every few seconds. How a point is judged:
//! `judging.rs`.
//! Invariants: no allocation per point unless an event is made; a state changes only together with its event. Judged
//! again, the same newest point gives no second event.
//! Memory: [`Judge::stats`]; see `binding.rs`, `list.rs`, `state.rs` for what it consists of.
//! Compat: docs/open-falcon/judge.md §6. The original closes nothing when a rule goes away while its PROBLEM is open,
//! and remembers the PROBLEM if the rule comes back; so does `Semantics::OpenFalcon`. `Semantics::Hawkeye` forgets it.

use crate::binding::Bindings;
use crate::joins::{Joins, Seat};
use crate::occasion::Cause;
use crate::program::Subject;
use crate::rule_set::{REMAIN, Rule, RuleSet};
use crate::silence::Silences;
use crate::state::{OpenProblem, RuleId, States};
use crate::touched::Touched;
use crate::values::PERIOD_POINTS;
use crate::{Options, Semantics};
use model::{CounterType, Event, EventRule, Point, Sample, SeriesId, SeriesKey, Status};
use std::collections::HashMap;
use std::sync::Arc;

/// The points and names of the series of one shard, as a judge asks for them: a locked shard of the store or of
/// [`crate::Windows`].
pub trait PointSource {
    /// Appends the newest `count` points of the series, or as many as there are, newest first.
    fn tail(&self, series: SeriesId, count: usize, out: &mut Vec<Point>);

    /// Type and step of a series; none if the series is gone.
    fn meta(&self, series: SeriesId) -> Option<(CounterType, u32)>;

    /// Calls `use_key` once with the key of the series; asked only when an event is made.
    fn key(&self, series: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>));
}

/// More rules than this on one series are a mistake, and are not bound. A guess, far above any use: hosts have some
/// 80 strategies, mostly on metrics of their own.
const RULES_PER_SERIES_MAX: usize = 1000;

/// PROBLEMs of rules that are gone, kept under `Semantics::OpenFalcon` in case the rule comes back. A guess: 2 MiB.
const ORPHANS_MAX: usize = 65_536;

/// Silent series that one tick looks at; the next ones follow at the next tick. A guess: some milliseconds.
const TICK_SERIES_MAX: usize = 4096;

/// The judge of one shard.
pub struct Judge {
    pub(crate) options: Options,
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) bindings: Bindings,
    pub(crate) states: States,
    pub(crate) silences: Silences,
    /// Shared with the judges of the other shards.
    pub(crate) joins: Arc<Joins>,
    /// The seats that series of this shard have in the joins.
    pub(crate) seats: HashMap<SeriesId, Vec<Seat>>,
    pairs_over_limit: u64,
    /// Buffers of [`Judge::judge`], refilled at each point.
    pub(crate) points: Vec<Point>,
    pub(crate) values: Vec<f64>,
    /// Buffer of [`Judge::tick`].
    due: Vec<SeriesId>,
    /// Buffers of [`Judge::bind`].
    matched: Vec<u32>,
    text: String,
}

/// Figures of a judge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Series with at least one rule.
    pub bound_series: usize,
    /// Pairs of series and rule.
    pub bound_pairs: usize,
    pub open_problems: usize,
    /// Pairs that were not bound because the series has too many rules already.
    pub pairs_over_limit: u64,
    /// Series about which a `nodata` rule asks.
    pub silences: usize,
    /// Bytes of this shard; [`Joins::stats`] and [`RuleSet::memory_bytes`] have what all shards share.
    pub memory_bytes: usize,
    /// The part of `memory_bytes` that says which rules each series has; the rest is the state of alarms.
    pub binding_bytes: usize,
}

impl Judge {
    /// The judge of the only shard.
    pub fn new(options: Options) -> Judge {
        Judge::sharing(options, Arc::default())
    }

    /// The judge of one of several shards, which share `joins`.
    pub fn sharing(options: Options, joins: Arc<Joins>) -> Judge {
        Judge {
            options,
            rules: Arc::new(RuleSet::default()),
            bindings: Bindings::new(),
            states: States::default(),
            silences: Silences::default(),
            joins,
            seats: HashMap::new(),
            due: Vec::new(),
            pairs_over_limit: 0,
            points: Vec::new(),
            values: Vec::new(),
            matched: Vec::new(),
            text: String::new(),
        }
    }

    /// Puts a rule set into force. Series that the answer covers must be bound anew; the others follow by themselves.
    pub fn load(&mut self, rules: Arc<RuleSet>) -> Touched {
        self.follow(Touched::between(self.rules.clone(), rules))
    }

    /// As [`Judge::load`] of the rule set that another judge was given. Where this one had the same before, what
    /// changed is not looked for again: with thousands of strategies that is most of the work.
    pub fn load_like(&mut self, other: &Touched) -> Touched {
        self.follow(Touched::like(other, self.rules.clone()))
    }

    fn follow(&mut self, mut touched: Touched) -> Touched {
        self.rules = touched.new_rules().clone();
        self.bindings.renumber(|rule| touched.successor(rule));
        touched.closed = self.forget_gone_rules();
        touched.closed.extend(self.joins.load(&self.rules, &touched));
        // Grown here, so that no point finds them too small.
        let points = (self.rules.window_points() as usize).max(PERIOD_POINTS);
        self.points.clear();
        self.points.reserve_exact(points);
        self.values.clear();
        self.values.reserve_exact(points);
        touched
    }

    /// Finds the rules of a series, when it appears, changes its type, or is touched by a load.
    ///
    /// Returns the PROBLEMs that are forgotten because the series no longer has their rule, or has no room in its join.
    /// They get no event; whoever keeps a list of open alarms can close them there. The type decides nothing today: a
    /// rule that is short of points for a counter must stay bound, for its function may be changed without the series
    /// being touched.
    pub fn bind(&mut self, series: SeriesId, key: SeriesKey<'_>, _counter_type: CounterType) -> Vec<OpenProblem> {
        self.rules.rules_of(key, &mut self.text, &mut self.matched);
        self.pairs_over_limit += self.matched.len().saturating_sub(RULES_PER_SERIES_MAX) as u64;
        self.matched.truncate(RULES_PER_SERIES_MAX);
        let (open, mut closed) = self.settle_states(series);
        self.bindings.set(series, &self.matched, open);
        let matched = self.matched.iter().map(|number| &self.rules.rules[*number as usize]);
        let asks_for_silence = matched
            .filter_map(|rule| Some(self.rules.program(rule)?.asks_for_silence(rule.subject())))
            .any(|asks| asks);
        self.silences.follow(series, asks_for_silence);
        self.take_seats(series, key, &mut closed);
        closed
    }

    /// Takes the seats of the rules that a series has now, and leaves those that it had.
    fn take_seats(&mut self, series: SeriesId, key: SeriesKey<'_>, closed: &mut Vec<OpenProblem>) {
        let (mut seats, mut refused): (Vec<Seat>, Vec<RuleId>) = (Vec::new(), Vec::new());
        for number in &self.matched {
            let rule = &self.rules.rules[*number as usize];
            if !self.rules.program(rule).is_some_and(|program| program.is_joined()) {
                continue;
            }
            match self.joins.seat(&self.rules, *number, series, key) {
                Some(seat) if seats.contains(&seat) => {}
                Some(seat) => seats.push(seat),
                None if rule.carries_alarm() && !self.decides_here(&self.matched, rule.id()) => refused.push(rule.id()),
                None => {}
            }
        }
        // The seats of a rule, or of a part of it, stand together, in their order.
        seats.sort_by(|a, b| a.place().cmp(&b.place()));
        let before = match seats.is_empty() {
            true if self.seats.is_empty() => None,
            true => self.seats.remove(&series),
            false => self.seats.insert(series, seats.clone()),
        };
        for seat in before.into_iter().flatten().filter(|seat| !seats.contains(seat)) {
            let Some(open) = self.joins.leave(&seat, series) else { continue };
            let mut matched = self.matched.iter().map(|number| &self.rules.rules[*number as usize]);
            if matched.any(|rule| rule.carries_alarm() && rule.id() == open.rule) {
                self.states.set(open);
                self.bindings.set_open(series, true);
            } else {
                closed.push(open);
            }
        }
        // A rule that was changed from a condition about one series to one about several keeps its alarm, and back; so
        // does one whose series has come into another part of it.
        for seat in seats.iter().filter(|seat| seat.subject == Subject::Own) {
            if let Some(open) = self.states.take(series, seat.rule()) {
                self.joins.restore(seat, series, Some(open));
            }
        }
        // Nobody would end the alarm of a series that has no seat.
        closed.extend(refused.into_iter().filter_map(|rule| self.states.take(series, rule)));
    }

    /// Forgets a series that is gone, and returns the PROBLEMs that were open on it.
    pub fn unbind(&mut self, series: SeriesId) -> Vec<OpenProblem> {
        self.bindings.remove(series);
        self.silences.follow(series, false);
        let mut closed = Vec::new();
        for seat in self.seats.remove(&series).into_iter().flatten() {
            closed.extend(self.joins.leave(&seat, series));
        }
        self.states.drop_of(series, |_| true, &mut closed);
        closed
    }

    /// Whether a series has rules, at the price of one load for most that have none.
    #[inline]
    pub fn is_bound(&self, series: SeriesId) -> bool {
        self.bindings.contains(series)
    }

    /// Whether any rule would be bound to a series with this key.
    pub fn wants(&mut self, key: SeriesKey<'_>) -> bool {
        self.rules.rules_of(key, &mut self.text, &mut self.matched);
        !self.matched.is_empty()
    }

    /// Points that the rules of a series look back on, whatever its type; 0 if it has none.
    pub fn window_points(&self, series: SeriesId) -> usize {
        let Some(bound) = self.bindings.find(series) else { return 0 };
        let mut one = 0;
        let rules = self.bindings.rules(bound, &mut one);
        let values = rules.iter().map(|rule| self.rules.rules[*rule as usize].values_needed).max();
        match (values, self.options.semantics) {
            (None, _) => 0,
            // One more than values, for a counter.
            (Some(values), Semantics::Hawkeye) => (values as usize + 1).max(PERIOD_POINTS),
            // As many as the original keeps of every series, so that a rule which is changed finds them.
            (Some(_), Semantics::OpenFalcon) => REMAIN as usize,
        }
    }

    /// Whether a PROBLEM of the series is remembered, be it of a rule that is gone (`Semantics::OpenFalcon`).
    pub fn remembers(&self, series: SeriesId) -> bool {
        self.states.any_of(series)
    }

    /// Time of the point of the newest PROBLEM that is open on a series.
    pub fn last_problem(&self, series: SeriesId) -> Option<i64> {
        let seats = self.seats.get(&series).map_or(&[][..], Vec::as_slice);
        let joined = seats.iter().filter_map(|seat| self.joins.open_problem(seat, series)).map(|open| open.time);
        self.states.iter().filter(|state| state.series == series).map(|state| state.time).chain(joined).max()
    }

    /// Semantics of this judge: whose results it gives.
    pub fn semantics(&self) -> Semantics {
        self.options.semantics
    }

    /// The joins, where the events of conditions over several series come out: asked after each call that may make
    /// events.
    pub fn joins(&self) -> &Joins {
        &self.joins
    }

    /// True while a rule's alarm is open on a series.
    pub fn is_open(&self, series: SeriesId, rule: RuleId) -> bool {
        let mut seats = self.seats.get(&series).into_iter().flatten();
        self.states.find(series, rule).is_some()
            || seats.any(|seat| self.joins.open_problem(seat, series).is_some_and(|open| open.rule == rule))
    }

    /// Whether the series has a seat in a condition over several series.
    pub fn is_joined(&self, series: SeriesId) -> bool {
        self.seats.contains_key(&series)
    }

    /// The series that have a seat in a condition over several series, in no order: those that [`Judge::refill`] is
    /// for.
    pub fn seated(&self) -> impl Iterator<Item = SeriesId> {
        self.seats.keys().copied()
    }

    /// The rules of a series, for whoever asks why the series alarms or does not.
    pub fn rules_of(&self, series: SeriesId) -> Vec<EventRule> {
        let Some(bound) = self.bindings.find(series) else { return Vec::new() };
        let rules = self.bindings.rules(bound, &mut 0).to_vec();
        let rules = rules.into_iter().map(|rule| &self.rules.rules[rule as usize]);
        rules.filter(|rule| rule.carries_alarm()).map(|rule| rule.source.clone()).collect()
    }

    /// Judges a point that has just become the newest of its series, and is in `window` already. `now` is the wall
    /// clock.
    #[inline]
    pub fn on_point(
        &mut self,
        sample: Sample,
        counter_type: CounterType,
        step: u32,
        window: &impl PointSource,
        now: i64,
        events: &mut Vec<Event>,
    ) {
        if let Some(bound) = self.bindings.find(sample.series) {
            self.judge(sample.series, bound, counter_type, step, window, now, Cause::Point, events);
        }
    }

    /// Takes note of a point that is kept but not judged, as a newer one was there: if it is of now, the series is not
    /// silent, whatever clock told the newer one.
    pub fn hear(&mut self, sample: Sample, counter_type: CounterType, step: u32, window: &impl PointSource, now: i64) {
        let is_of_now = sample.point.time >= now.saturating_sub(2 * i64::from(step));
        if is_of_now && self.silences.look(sample.series, true, now).is_some() {
            self.refill(sample.series, counter_type, step, window, now);
        }
    }

    /// Judges the newest point of a series again, after a restart, so that an event that was lost in the crash is made.
    ///
    /// The event is a first PROBLEM or a recovery, never a repeat; a second call makes none.
    pub fn catch_up(
        &mut self,
        series: SeriesId,
        counter_type: CounterType,
        step: u32,
        window: &impl PointSource,
        now: i64,
        events: &mut Vec<Event>,
    ) {
        if let Some(bound) = self.bindings.find(series) {
            self.judge(series, bound, counter_type, step, window, now, Cause::CatchUp, events);
        }
    }

    /// Lets a series say its part in conditions over several series, without deciding: after a restart before anything
    /// is caught up, and after each [`Judge::load`].
    pub fn refill(
        &mut self,
        series: SeriesId,
        counter_type: CounterType,
        step: u32,
        window: &impl PointSource,
        now: i64,
    ) {
        if let Some(bound) = self.bindings.find(series).filter(|_| self.is_joined(series)) {
            self.judge(series, bound, counter_type, step, window, now, Cause::Refill, &mut Vec::new());
        }
    }

    /// Looks at the series whose next point is missing, if a rule asks about that. The caller does this every few
    /// seconds.
    pub fn tick(&mut self, now: i64, window: &impl PointSource, events: &mut Vec<Event>) {
        let mut due = std::mem::take(&mut self.due);
        due.clear();
        self.silences.due(now, TICK_SERIES_MAX, &mut due);
        for series in &due {
            match (self.bindings.find(*series), window.meta(*series)) {
                (Some(bound), Some((counter_type, step))) => {
                    self.judge(*series, bound, counter_type, step, window, now, Cause::Tick, events);
                }
                _ => self.silences.follow(*series, false),
            }
        }
        self.due = due;
    }

    /// Counts all silences from `now`, as after a start: points could not come until then, or the clock was set. What
    /// conditions over several series have heard of them is to be refilled ([`Judge::refill`]).
    pub fn listen_anew(&mut self, now: i64) {
        self.silences.begin_anew(now);
    }

    /// A series at which [`Judge::tick`] would look, if there is any; where there is none, its shard need not be
    /// locked.
    pub fn first_due(&self, now: i64) -> Option<SeriesId> {
        self.silences.first_due(now)
    }

    /// The time at which [`Judge::tick`] has something to look at next: for a clock that can be set, as a rehearsal's.
    pub fn next_due(&self) -> Option<i64> {
        self.silences.next_due()
    }

    /// Takes over what an event of the durable queue says: an open PROBLEM, or that none is open. The events of an
    /// alarm are given in their order, after `bind`. False if the series does not have the rule (any more), or no seat
    /// in its join.
    pub fn restore(&mut self, series: SeriesId, event: &Event) -> bool {
        let rule = RuleId::of(&event.rule);
        let Some(bound) = self.bindings.find(series) else { return false };
        let problem = OpenProblem { rule, time: event.time, series, current_step: event.current_step };
        if let Some(seat) = self.seat(series, rule, Subject::Own) {
            self.joins.restore(seat, series, (event.status == Status::Problem).then_some(problem));
            return true;
        }
        if !self.decides_here(self.bindings.rules(bound, &mut 0), rule) {
            return false;
        }
        match event.status {
            Status::Problem => {
                self.states.set(problem);
                self.bindings.set_open(series, true);
            }
            Status::Ok => self.states.remove(series, rule),
        }
        true
    }

    /// Whether one of `rules` has this id, carries its alarm and is decided without the joins.
    fn decides_here(&self, rules: &[u32], id: RuleId) -> bool {
        let is_joined = |rule: &Rule| self.rules.program(rule).is_some_and(|program| program.is_joined());
        let mut rules = rules.iter().map(|number| &self.rules.rules[*number as usize]);
        rules.any(|rule| rule.id() == id && rule.carries_alarm() && !is_joined(rule))
    }

    fn seat(&self, series: SeriesId, rule: RuleId, subject: Subject) -> Option<&Seat> {
        let seats = self.seats.get(&series)?;
        seats.iter().find(|seat| seat.rule() == rule && seat.subject == subject)
    }

    /// The open PROBLEMs of rules that are loaded, in no order.
    pub fn open_problems(&self) -> impl Iterator<Item = OpenProblem> + '_ {
        let joined = self.seats.iter().flat_map(|(series, seats)| seats.iter().map(|seat| (*series, seat)));
        let joined = joined.filter_map(|(series, seat)| self.joins.open_problem(seat, series));
        self.states.iter().filter(|state| self.rules.has(state.rule)).copied().chain(joined)
    }

    /// Figures of the judge now.
    pub fn stats(&self) -> Stats {
        let buffers = self.points.capacity() * size_of::<Point>()
            + self.values.capacity() * size_of::<f64>()
            + self.matched.capacity() * size_of::<u32>()
            + self.due.capacity() * size_of::<SeriesId>()
            + self.text.capacity();
        Stats {
            bound_series: self.bindings.len(),
            bound_pairs: self.bindings.pairs(),
            open_problems: self.open_problems().count(),
            pairs_over_limit: self.pairs_over_limit,
            silences: self.silences.len(),
            binding_bytes: self.bindings.memory_bytes(),
            memory_bytes: self.bindings.memory_bytes()
                + self.states.memory_bytes()
                + self.silences.memory_bytes()
                + self.seats.capacity() * (size_of::<(SeriesId, Vec<Seat>)>() + 1)
                + self.seats.values().map(|seats| seats.capacity() * size_of::<Seat>()).sum::<usize>()
                + buffers,
        }
    }

    /// Drops the states of rules that are no longer loaded; under `Semantics::OpenFalcon` they are kept, as the
    /// original does.
    fn forget_gone_rules(&mut self) -> Vec<OpenProblem> {
        let mut closed = Vec::new();
        let mut orphans_left = match self.options.semantics {
            Semantics::Hawkeye => 0,
            Semantics::OpenFalcon => ORPHANS_MAX,
        };
        let rules = &self.rules;
        let has_place = |state: &OpenProblem| {
            let keep = rules.has(state.rule) || orphans_left > 0;
            orphans_left -= usize::from(keep && !rules.has(state.rule));
            keep
        };
        self.states.retain(has_place, &mut closed);
        closed
    }

    /// Drops the states of rules that the series no longer has; says whether a PROBLEM of one in `matched` is open.
    fn settle_states(&mut self, series: SeriesId) -> (bool, Vec<OpenProblem>) {
        let mut closed = Vec::new();
        if self.states.is_empty() {
            return (false, closed);
        }
        let rules = &self.rules.rules;
        let has = |id: RuleId| {
            let mut matched = self.matched.iter().map(|rule| &rules[*rule as usize]);
            matched.any(|rule| rule.carries_alarm() && rule.id() == id)
        };
        if self.options.semantics == Semantics::Hawkeye {
            self.states.drop_of(series, |id| !has(id), &mut closed);
        }
        let is_open = |rule: &u32| self.states.find(series, rules[*rule as usize].id()).is_some();
        (self.matched.iter().any(is_open), closed)
    }
}
