//! Judging: what becomes of a point, or of a look at the clock, in the series that it belongs to.
//!
//! How: the values of the series are made once and shown to each of its rules. A rule that is one function is judged in the
//! loop itself, which is what almost every point is; programs and operands take the longer way below it.
//! Invariants: a state changes only together with its event; no allocation unless an event is made (a condition over
//! several series: also when its first points come).

use crate::Semantics;
use crate::binding::Bound;
use crate::explain::{self, Said};
use crate::function::{Condition, Verdict};
use crate::history::{self, PERIOD_POINTS};
use crate::joins::{Asked, Joins, Limits, Seat};
use crate::judge::{Judge, Window};
use crate::program::{Program, Question, Subject, TERMS_MAX};
use crate::reading::{Evidence, Look, Outcome, Reading, decide, drop_stale};
use crate::rule_set::{Body, REMAIN, Rule, RuleSet};
use crate::silence::Silences;
use crate::state::{Moment, Next, OpenProblem, States, is_due_after_restart, next};
use model::{CounterType, Event, Explanation, SeriesId, Status};
use std::sync::Arc;

/// Why a series is judged.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Occasion {
    Point,
    /// Again, after a restart.
    CatchUp,
    /// Only to have its part known in conditions over several series.
    Refill,
    /// A point has not come.
    Tick,
}

/// What decides besides the points.
#[derive(Clone, Copy)]
struct Now {
    occasion: Occasion,
    now: i64,
    min_interval_s: i64,
}

impl Judge {
    #[allow(clippy::too_many_arguments)] // the arguments of on_point, and what it looked up
    #[inline]
    pub(crate) fn judge(
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
        let moment = Now { occasion, now, min_interval_s: self.options.min_interval_s };
        let mut may_be_open = bound.is_open();
        let mut is_open = false;
        let mut has_programs = false;
        for rule in rules {
            let rule = &compiled[*rule as usize];
            let Body::Plain(condition) = &rule.body else {
                has_programs = true;
                continue;
            };
            let last = if may_be_open { self.states.find(series, rule.id()) } else { None };
            let mut stays = last.is_some();
            if moment.asks_plain_rules()
                && let Some(verdict) = verdict(condition, rule, &self.values, known, self.options.semantics)
            {
                let (oldest, newest) = (self.points[rule.values_needed as usize - 1].time, self.points[0].time);
                let next = moment.next(rule, last, verdict.holds, oldest, newest);
                if next != Next::Nothing {
                    let look = Look::of(self.options.semantics, &self.points, &self.values, known, step, now);
                    let explain = || explain_plain(rule, condition, verdict, &look);
                    // Older than the alarm if that was opened by another text, for points that were missing.
                    let time = newest.max(last.map_or(i64::MIN, |last| last.time));
                    if send(next, rule, series, verdict.left, time, explain, window, events) {
                        stays = apply(next, rule, series, time, &mut self.states, stays);
                    }
                }
            }
            is_open |= stays;
            may_be_open |= stays;
        }
        if has_programs {
            let mut programs = Programs {
                rules: &self.rules,
                states: &mut self.states,
                joins: &self.joins,
                seats: self.seats.get(&series).map_or(&[][..], Vec::as_slice),
                look: Look::of(self.options.semantics, &self.points, &self.values, known, step, now),
                moment,
                due: i64::MAX,
                is_open: false,
            };
            programs.judge(series, rules, &mut self.silences, window, events);
            is_open |= programs.is_open;
        }
        if is_open != bound.is_open() {
            self.bindings.set_open(series, is_open);
        }
    }
}

/// The rules of a series that are more than one function.
struct Programs<'a> {
    rules: &'a Arc<RuleSet>,
    states: &'a mut States,
    joins: &'a Joins,
    seats: &'a [Seat],
    look: Look<'a>,
    moment: Now,
    /// When the answer of a `nodata` changes next.
    due: i64,
    is_open: bool,
}

impl Programs<'_> {
    #[cold]
    fn judge(
        &mut self,
        series: SeriesId,
        rules: &[u32],
        silences: &mut Silences,
        window: &impl Window,
        events: &mut Vec<Event>,
    ) {
        let is_point = self.moment.occasion == Occasion::Point;
        self.look.silence = silences.look(series, is_point, self.moment.now);
        let set = self.rules;
        for rule in rules.iter().map(|rule| &set.rules[*rule as usize]) {
            let Some(program) = set.program(rule) else { continue };
            let subject = rule.subject();
            self.note_due(program, subject);
            if program.is_joined() {
                self.hear(rule, program, series);
            } else {
                let is_asked = self.moment.occasion != Occasion::Tick || program.asks_for_silence(subject);
                self.judge_alone(rule, program, series, is_asked, window, events);
            }
        }
        if self.due != i64::MAX {
            silences.set_due(series, self.due);
        }
    }

    fn note_due(&mut self, program: &Program, subject: Subject) {
        let Some(silence) = self.look.silence else { return };
        for (_, term) in program.terms_of(subject) {
            if let Question::Silence { steps } = term.question {
                self.due = self.due.min(silence.next_due(self.look.period_s, steps, self.moment.now));
            }
        }
    }

    /// The parts of a condition over several series: all at once, at the first of them. What follows comes out of the joins.
    fn hear(&self, rule: &Rule, program: &Program, series: SeriesId) {
        // The seats of a rule stand together: see `Judge::take_seats`.
        let Some(first) = self.seats.iter().position(|seat| seat.rule == rule.id()) else { return };
        let seats = &self.seats[first..];
        let count = seats.iter().take_while(|seat| seat.rule == rule.id()).count();
        let seats = &seats[..count];
        let is_asked =
            self.moment.occasion != Occasion::Tick || seats.iter().any(|seat| program.asks_for_silence(seat.subject));
        if seats[0].subject != rule.subject() || !is_asked {
            return;
        }
        let asked = match self.moment.occasion {
            Occasion::Point | Occasion::Tick => Asked::Live,
            // A restart decides when all have spoken.
            Occasion::Refill | Occasion::CatchUp => Asked::Only,
        };
        let Now { now, min_interval_s, .. } = self.moment;
        let limits = Limits { now, min_interval_s, is_restart: false };
        self.joins.hear(self.rules, seats, series, &self.look, asked, limits);
    }

    /// A condition about this series only.
    fn judge_alone(
        &mut self,
        rule: &Rule,
        program: &Program,
        series: SeriesId,
        is_asked: bool,
        window: &impl Window,
        events: &mut Vec<Event>,
    ) {
        let last = self.states.find(series, rule.id()).copied();
        let mut stays = last.is_some();
        if is_asked && self.moment.occasion != Occasion::Refill {
            let mut readings = [Reading::UNKNOWN; TERMS_MAX];
            for (reading, term) in readings.iter_mut().zip(&program.terms) {
                *reading = term.read(&self.look, last.map(|last| last.time));
            }
            drop_stale(&mut readings);
            if let Some(outcome) = decide(program, last.is_some(), |_| readings) {
                let next = self.moment.next(rule, last.as_ref(), outcome.holds, outcome.oldest, outcome.newest);
                // A point that was late, as after an outage, may be older than the alarm that it ends.
                let time = outcome.newest.max(last.map_or(i64::MIN, |last| last.time));
                let explain = || explain_program(rule, program, &readings, &outcome, &self.look);
                if send(next, rule, series, outcome.left, time, explain, window, events) {
                    stays = apply(next, rule, series, time, self.states, stays);
                }
            }
        }
        self.is_open |= stays;
    }
}

impl Now {
    fn asks_plain_rules(&self) -> bool {
        matches!(self.occasion, Occasion::Point | Occasion::CatchUp)
    }

    #[inline]
    fn next(&self, rule: &Rule, last: Option<&OpenProblem>, holds: bool, oldest: i64, newest: i64) -> Next {
        let Now { now, min_interval_s, .. } = *self;
        let next = next(last, holds, Moment { oldest, now, max_step: rule.max_step(), min_interval_s });
        if self.occasion == Occasion::CatchUp && !is_due_after_restart(next, newest, self.now) {
            return Next::Nothing;
        }
        next
    }
}

impl<'a> Look<'a> {
    fn of(
        semantics: Semantics,
        points: &'a [model::Point],
        values: &'a [f64],
        known: usize,
        step: u32,
        now: i64,
    ) -> Look<'a> {
        Look { points, values, known, period_s: history::period_s(points, step), silence: None, semantics, now }
    }
}

/// What the rule says about these values; `None` if there are too few, or if too much is unknown.
#[inline]
fn verdict(condition: &Condition, rule: &Rule, values: &[f64], known: usize, semantics: Semantics) -> Option<Verdict> {
    let values = values.get(..rule.values_needed as usize)?;
    if semantics == Semantics::OpenFalcon {
        return Some(condition.judge(values));
    }
    let verdict = if known >= values.len() { Some(condition.judge(values)) } else { condition.judge_partly(values) };
    // A sum that overflows says nothing, and an event could not carry it.
    verdict.filter(|verdict| verdict.left.is_finite())
}

/// Makes the event. False if there is nothing to send, or nobody knows the series.
#[allow(clippy::too_many_arguments)] // what an event is made of
fn send(
    next: Next,
    rule: &Rule,
    series: SeriesId,
    left: f64,
    time: i64,
    explain: impl Fn() -> Box<Explanation>,
    window: &impl Window,
    events: &mut Vec<Event>,
) -> bool {
    let Some((status, current_step)) = next.event() else { return false };
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
            explanation: Some(explain()),
        });
    });
    events.len() > before
}

/// Moves the state on to what was sent; says whether a PROBLEM is open now.
fn apply(next: Next, rule: &Rule, series: SeriesId, time: i64, states: &mut States, is_open: bool) -> bool {
    match next.event() {
        None => is_open,
        Some((Status::Problem, current_step)) => {
            states.set(OpenProblem { rule: rule.id(), time, series, current_step });
            true
        }
        Some((Status::Ok, _)) => {
            states.remove(series, rule.id());
            false
        }
    }
}

fn explain_plain(rule: &Rule, condition: &Condition, verdict: Verdict, look: &Look<'_>) -> Box<Explanation> {
    let question = Question::Values { opens: *condition, stays: *condition };
    let mut evidence = Evidence::default();
    evidence.refill(&question, look);
    let said = Said { holds: verdict.holds, left: verdict.left };
    let term = explain::term(&explain::plain_text(&rule.source), String::new(), &question, said, &evidence);
    explain::whole(&rule.source, vec![term])
}

fn explain_program(
    rule: &Rule,
    program: &Program,
    readings: &[Reading; TERMS_MAX],
    outcome: &Outcome,
    look: &Look<'_>,
) -> Box<Explanation> {
    let decided = program.terms.iter().zip(readings).enumerate().filter(|(i, _)| outcome.deciding >> i & 1 == 1);
    let terms = decided.filter_map(|(_, (term, reading))| {
        let mut evidence = Evidence::default();
        evidence.refill(&term.question, look);
        let said = Said { holds: reading.holds(!outcome.holds)?, left: reading.left };
        Some(explain::term(&term.text, String::new(), &term.question, said, &evidence))
    });
    explain::whole(&rule.source, terms.collect())
}
