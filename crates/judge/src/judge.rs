//! Judge: one shard's rules in force; the only place where points, rules and alert state meet.
//!
//! Order of life: [`Judge::load`] a rule set, [`Judge::bind`] the series that it touches, [`Judge::restore`] the open
//! PROBLEMs of the durable queue, [`Judge::catch_up`] each bound series once; then [`Judge::on_point`] for each newest point.
//! Invariants: no allocation per point unless an event is made; a state changes only together with its event. Judged
//! again, the same newest point gives no second event.
//! Memory: [`Judge::stats`]; see `binding.rs`, `list.rs`, `state.rs` for what it consists of.
//! Compat: spec/judge.md §6. The original closes nothing when a rule goes away while its PROBLEM is open, and remembers
//! the PROBLEM if the rule comes back; so does `Semantics::OpenFalcon`. `Semantics::Hawkeye` forgets it.

use crate::binding::{Bindings, Bound};
use crate::function::Verdict;
use crate::history::{self, PERIOD_POINTS};
use crate::rule_set::{REMAIN, Rule, RuleSet};
use crate::state::{Moment, Next, OpenProblem, RuleId, States, next};
use crate::touched::Touched;
use crate::{Options, Semantics};
use model::{CounterType, Event, EventRule, Point, Sample, SeriesId, SeriesKey, Status};
use std::sync::Arc;

/// Where a judge finds the points and the name of a series: the store's shard that it belongs to.
pub trait Window {
    /// Appends the newest `count` points of the series, or as many as there are, newest first.
    fn tail(&self, series: SeriesId, count: usize, out: &mut Vec<Point>);

    /// Calls `use_key` once with the key of the series; asked only when an event is made.
    fn key(&self, series: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>));
}

/// More rules than this on one series are a mistake, and are not bound. A guess, far above any use: hosts have some
/// 80 strategies, mostly on metrics of their own.
const RULES_PER_SERIES_MAX: usize = 1000;

/// PROBLEMs of rules that are gone, kept under `Semantics::OpenFalcon` in case the rule comes back. A guess: 2 MiB.
const ORPHANS_MAX: usize = 65_536;

/// A first PROBLEM is made up for after a restart only if its point is at most this old: an older series is silent rather
/// than alarming, and its rule may be younger than its points. A guess: longer than any restart, shorter than a day.
const CATCH_UP_AGE_MAX_S: i64 = 3600;

pub struct Judge {
    options: Options,
    rules: Arc<RuleSet>,
    bindings: Bindings,
    states: States,
    pairs_over_limit: u64,
    /// Buffers of `judge`, refilled at each point.
    points: Vec<Point>,
    values: Vec<f64>,
    /// Buffers of `bind`.
    matched: Vec<u32>,
    text: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    pub bound_series: usize,
    /// Pairs of series and rule.
    pub bound_pairs: usize,
    pub open_problems: usize,
    /// Pairs that were not bound because the series has too many rules already.
    pub pairs_over_limit: u64,
    /// Without the rule set, which all shards share; see [`RuleSet::memory_bytes`].
    pub memory_bytes: usize,
}

/// Why a series is judged.
#[derive(Clone, Copy, PartialEq)]
enum Occasion {
    Point,
    CatchUp,
}

impl Judge {
    pub fn new(options: Options) -> Judge {
        Judge {
            options,
            rules: Arc::new(RuleSet::default()),
            bindings: Bindings::new(),
            states: States::default(),
            pairs_over_limit: 0,
            points: Vec::new(),
            values: Vec::new(),
            matched: Vec::new(),
            text: String::new(),
        }
    }

    /// Puts a rule set into force. The series that the answer covers must be bound anew; the others follow by themselves.
    pub fn load(&mut self, rules: Arc<RuleSet>) -> Touched {
        let old = std::mem::replace(&mut self.rules, rules.clone());
        let mut touched = Touched::between(old, rules);
        self.bindings.renumber(|rule| touched.successor(rule));
        touched.closed = self.forget_gone_rules();
        // Grown here, so that no point finds them too small.
        let points = (self.rules.window_points() as usize).max(PERIOD_POINTS);
        self.points.clear();
        self.points.reserve_exact(points);
        self.values.clear();
        self.values.reserve_exact(points);
        touched
    }

    /// (Re)computes the rules of a series: when it appears, changes its type, or is touched by a load.
    ///
    /// Returns the PROBLEMs that are forgotten because the series no longer has their rule. They get no event; whoever
    /// keeps a list of open alarms can close them there. The type decides nothing today: a rule that is short of points for
    /// a counter must stay bound, for its function may be changed without the series being touched.
    pub fn bind(&mut self, series: SeriesId, key: SeriesKey<'_>, _counter_type: CounterType) -> Vec<OpenProblem> {
        self.rules.rules_of(key, &mut self.text, &mut self.matched);
        self.pairs_over_limit += self.matched.len().saturating_sub(RULES_PER_SERIES_MAX) as u64;
        self.matched.truncate(RULES_PER_SERIES_MAX);
        let (open, closed) = self.settle_states(series);
        self.bindings.set(series, &self.matched, open);
        closed
    }

    /// Forgets a series that is gone, and returns the PROBLEMs that were open on it.
    pub fn unbind(&mut self, series: SeriesId) -> Vec<OpenProblem> {
        self.bindings.remove(series);
        let mut closed = Vec::new();
        self.states.drop_of(series, |_| true, &mut closed);
        closed
    }

    #[inline]
    pub fn is_bound(&self, series: SeriesId) -> bool {
        self.bindings.contains(series)
    }

    /// The rules of a series, for whoever asks why it (does not) alarm.
    pub fn rules_of(&self, series: SeriesId) -> Vec<EventRule> {
        let Some(bound) = self.bindings.find(series) else { return Vec::new() };
        let rules = self.bindings.rules(bound, &mut 0).to_vec();
        rules.into_iter().map(|rule| self.rules.rules[rule as usize].source.clone()).collect()
    }

    /// Judges a point that has just become the newest of its series, and is in `window` already. `now` is the wall clock.
    #[inline]
    pub fn on_point(
        &mut self,
        sample: Sample,
        counter_type: CounterType,
        step: u32,
        window: &impl Window,
        now: i64,
        events: &mut Vec<Event>,
    ) {
        if let Some(bound) = self.bindings.find(sample.series) {
            self.judge(sample.series, bound, counter_type, step, window, now, Occasion::Point, events);
        }
    }

    /// After a restart: judges the newest point of a series again, so that an event that was lost in the crash is made.
    ///
    /// Makes a first PROBLEM or a recovery, never a repeat; doing it twice does nothing.
    pub fn catch_up(
        &mut self,
        series: SeriesId,
        counter_type: CounterType,
        step: u32,
        window: &impl Window,
        now: i64,
        events: &mut Vec<Event>,
    ) {
        if let Some(bound) = self.bindings.find(series) {
            self.judge(series, bound, counter_type, step, window, now, Occasion::CatchUp, events);
        }
    }

    /// Takes over what an event of the durable queue says: an open PROBLEM, or that none is open. The events of an alarm
    /// are given in their order, after `bind`. False if the series does not have the rule (any more).
    pub fn restore(&mut self, series: SeriesId, event: &Event) -> bool {
        let rule = RuleId::of(&event.rule);
        let Some(bound) = self.bindings.find(series) else { return false };
        let mut one = 0;
        let rules = self.bindings.rules(bound, &mut one);
        if !rules.iter().any(|number| self.rules.rules[*number as usize].id == rule) {
            return false;
        }
        match event.status {
            Status::Problem => {
                self.states.set(OpenProblem { rule, time: event.time, series, current_step: event.current_step });
                self.bindings.set_open(series, true);
            }
            Status::Ok => self.states.remove(series, rule),
        }
        true
    }

    /// The open PROBLEMs of rules that are loaded, in no order.
    pub fn open_problems(&self) -> impl Iterator<Item = OpenProblem> + '_ {
        self.states.iter().filter(|state| self.rules.has(state.rule)).copied()
    }

    pub fn stats(&self) -> Stats {
        let buffers = self.points.capacity() * size_of::<Point>()
            + self.values.capacity() * size_of::<f64>()
            + self.matched.capacity() * size_of::<u32>()
            + self.text.capacity();
        Stats {
            bound_series: self.bindings.len(),
            bound_pairs: self.bindings.pairs(),
            open_problems: self.open_problems().count(),
            pairs_over_limit: self.pairs_over_limit,
            memory_bytes: self.bindings.memory_bytes() + self.states.memory_bytes() + buffers,
        }
    }

    /// Drops the states of rules that are no longer loaded; the original's way is to keep them.
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

    /// Drops the states of rules that the series no longer has; says whether any is open of those in `matched`.
    fn settle_states(&mut self, series: SeriesId) -> (bool, Vec<OpenProblem>) {
        let mut closed = Vec::new();
        if self.states.is_empty() {
            return (false, closed);
        }
        let rules = &self.rules.rules;
        let has = |id: RuleId| self.matched.iter().any(|rule| rules[*rule as usize].id == id);
        if self.options.semantics == Semantics::Hawkeye {
            self.states.drop_of(series, |id| !has(id), &mut closed);
        }
        let is_open = |rule: &u32| self.states.find(series, rules[*rule as usize].id).is_some();
        (self.matched.iter().any(is_open), closed)
    }

    #[allow(clippy::too_many_arguments)] // the arguments of on_point, and what it looked up
    fn judge(
        &mut self,
        series: SeriesId,
        bound: Bound,
        counter_type: CounterType,
        step: u32,
        window: &impl Window,
        now: i64,
        occasion: Occasion,
        events: &mut Vec<Event>,
    ) {
        let mut one = 0;
        let rules = self.bindings.rules(bound, &mut one);
        let compiled = &self.rules.rules;
        let values_needed = rules.iter().map(|rule| compiled[*rule as usize].values_needed).max().unwrap_or(0);
        let count = values_needed as usize + usize::from(!counter_type.is_gauge());
        let count = match self.options.semantics {
            Semantics::Hawkeye => count.max(PERIOD_POINTS),
            // It has eleven points: ten rates of a counter, so that `all(#11)` never fires on one.
            Semantics::OpenFalcon => count.min(REMAIN as usize),
        };
        self.points.clear();
        window.tail(series, count, &mut self.points);
        let known = history::values(&self.points, counter_type, step, self.options.semantics, &mut self.values);
        let mut may_be_open = bound.is_open();
        let mut is_open = false;
        for rule in rules {
            let rule = &compiled[*rule as usize];
            let last = if may_be_open { self.states.find(series, rule.id) } else { None };
            let mut stays = last.is_some();
            if let Some(verdict) = verdict(rule, &self.values, known, self.options.semantics) {
                let moment = Moment {
                    oldest: self.points[rule.values_needed as usize - 1].time,
                    now,
                    max_step: max_step(&rule.source),
                    min_interval_s: self.options.min_interval_s,
                };
                let newest = self.points[0].time;
                let next = next(last, verdict.holds, moment);
                if (occasion == Occasion::Point || is_due_after_restart(next, newest, now))
                    && send(next, rule, series, verdict.left, newest, window, events)
                {
                    stays = apply(next, rule.id, series, newest, &mut self.states, stays);
                }
            }
            is_open |= stays;
            may_be_open |= stays;
        }
        if is_open != bound.is_open() {
            self.bindings.set_open(series, is_open);
        }
    }
}

/// What the rule says about these values; `None` if there are too few, or if too much is unknown.
fn verdict(rule: &Rule, values: &[f64], known: usize, semantics: Semantics) -> Option<Verdict> {
    let values = values.get(..rule.values_needed as usize)?;
    if semantics == Semantics::OpenFalcon {
        return Some(rule.condition.judge(values));
    }
    let verdict =
        if known >= values.len() { Some(rule.condition.judge(values)) } else { rule.condition.judge_partly(values) };
    // A sum that overflows says nothing, and an event could not carry it.
    verdict.filter(|verdict| verdict.left.is_finite())
}

fn is_due_after_restart(next: Next, newest: i64, now: i64) -> bool {
    match next {
        Next::Nothing => false,
        Next::Problem { current_step } => current_step == 1 && now.saturating_sub(newest) <= CATCH_UP_AGE_MAX_S,
        Next::Recovery => true,
    }
}

/// Makes the event. False if there is nothing to send, or nobody knows the series.
fn send(
    next: Next,
    rule: &Rule,
    series: SeriesId,
    left: f64,
    time: i64,
    window: &impl Window,
    events: &mut Vec<Event>,
) -> bool {
    let (status, current_step) = match next {
        Next::Nothing => return false,
        Next::Problem { current_step } => (Status::Problem, current_step),
        Next::Recovery => (Status::Ok, 1),
    };
    // Only under `Semantics::OpenFalcon`: such an event has no JSON form, so the original loses it and believes it sent.
    if !left.is_finite() {
        return true;
    }
    let before = events.len();
    window.key(series, &mut |key| {
        events.push(Event {
            rule: rule.source.clone(),
            status,
            endpoint: key.endpoint.to_string(),
            tags: key.tags.as_str().to_string(),
            left_value: left,
            current_step,
            time,
        });
    });
    events.len() > before
}

/// Moves the state on to what was sent; says whether a PROBLEM is open now.
fn apply(next: Next, rule: RuleId, series: SeriesId, time: i64, states: &mut States, is_open: bool) -> bool {
    match next {
        Next::Nothing => is_open,
        Next::Problem { current_step } => {
            states.set(OpenProblem { rule, time, series, current_step });
            true
        }
        Next::Recovery => {
            states.remove(series, rule);
            false
        }
    }
}

fn max_step(rule: &EventRule) -> i32 {
    match rule {
        EventRule::Strategy(strategy) => strategy.max_step,
        EventRule::Expression(expression) => expression.max_step,
    }
}
