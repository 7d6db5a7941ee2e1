//! Judging: what becomes of a point, or of a look at the clock, in the series that it belongs to.
//!
//! How: the values of the series are made once and shown to each of its rules. A rule that is one function is judged in
//! the loop itself, as almost every point needs it; programs and operands take the longer way below.
//! Invariants: a state changes only together with its event; no allocation unless an event is made (a condition over
//! several series allocates when its first points come, too).

use crate::Semantics;
use crate::binding::BoundRules;
use crate::explain;
use crate::finding::{Evidence, Finding, Outcome, View, decide, drop_stale};
use crate::function::{Comparison, Verdict};
use crate::joins::{Joins, Seat};
use crate::judge::{Judge, PointSource};
use crate::occasion::{Cause, Occasion};
use crate::program::{Program, Question, Subject, TERMS_MAX};
use crate::rule_set::{REMAIN, Rule, RuleBody, RuleSet};
use crate::silence::Silences;
use crate::state::{Moment, OpenProblem, States, Transition, is_due_after_restart, next};
use crate::values::{self, PERIOD_POINTS};
use model::{CounterType, Event, Explanation, SeriesId, Status};
use std::sync::Arc;

impl Judge {
    #[allow(clippy::too_many_arguments)] // the arguments of on_point, and the rules that it looked up
    #[inline]
    pub(crate) fn judge(
        &mut self,
        series: SeriesId,
        bound: BoundRules,
        counter_type: CounterType,
        step: u32,
        window: &impl PointSource,
        now: i64,
        cause: Cause,
        events: &mut Vec<Event>,
    ) {
        let mut one = 0;
        let rules = self.bindings.rules(bound, &mut one);
        let compiled = &self.rules.rules;
        let values_needed = rules.iter().map(|rule| compiled[*rule as usize].values_needed).max().unwrap_or(0);
        let count = values_needed as usize + usize::from(!counter_type.is_gauge());
        let count = match self.options.semantics {
            Semantics::Hawkeye => count.max(PERIOD_POINTS),
            // The original has eleven points: ten rates of a counter, so that `all(#11)` never fires on one.
            Semantics::OpenFalcon => count.min(REMAIN as usize),
        };
        self.points.clear();
        window.tail(series, count, &mut self.points);
        let known = values::values(&self.points, counter_type, step, self.options.semantics, &mut self.values);
        let occasion = Occasion::new(cause, now, &self.options);
        let mut may_be_open = bound.is_open();
        let mut is_open = false;
        let mut has_programs = false;
        for rule in rules {
            let rule = &compiled[*rule as usize];
            let RuleBody::Plain(condition) = &rule.body else {
                has_programs = true;
                continue;
            };
            let last = if may_be_open { self.states.find(series, rule.id()) } else { None };
            let last = last.map(|last| last.seen(occasion.latest));
            let mut stays = last.is_some();
            if occasion.asks_plain_rules()
                && let Some(verdict) = verdict(condition, rule, &self.values, known, self.options.semantics)
            {
                let (oldest, newest) = (self.points[rule.values_needed as usize - 1].time, self.points[0].time);
                let next = next_of(occasion, rule, last.as_ref(), verdict.holds, oldest, newest);
                if next != Transition::Nothing {
                    let view = View::of(self.options.semantics, &self.points, &self.values, known, step, occasion);
                    let explain = || explain_plain(rule, condition, verdict, &view);
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
                view: View::of(self.options.semantics, &self.points, &self.values, known, step, occasion),
                occasion,
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
    view: View<'a>,
    occasion: Occasion,
    /// Time at which the answer of a `nodata` changes next.
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
        window: &impl PointSource,
        events: &mut Vec<Event>,
    ) {
        let is_point = self.occasion.cause == Cause::Point;
        self.view.silence = silences.look(series, is_point, self.occasion.now);
        let set = self.rules;
        for rule in rules.iter().map(|rule| &set.rules[*rule as usize]) {
            let Some(program) = set.program(rule) else { continue };
            let subject = rule.subject();
            self.note_due(program, subject);
            if program.is_joined() {
                self.hear(rule, program, series);
            } else {
                let is_asked = self.occasion.cause != Cause::Tick || program.asks_for_silence(subject);
                self.judge_alone(rule, program, series, is_asked, window, events);
            }
        }
        if self.due != i64::MAX {
            silences.set_due(series, self.due);
        }
    }

    fn note_due(&mut self, program: &Program, subject: Subject) {
        let Some(silence) = self.view.silence else { return };
        for (_, term) in program.terms_of(subject) {
            if let Question::Silence { steps } = term.question {
                self.due = self.due.min(silence.next_due(self.view.period_s, steps, self.occasion.now));
            }
        }
    }

    /// Says the parts of a condition over several series, all at once, at the first of them. Events come out of the
    /// joins.
    fn hear(&self, rule: &Rule, program: &Program, series: SeriesId) {
        // The seats of a rule stand together: see `Judge::take_seats`.
        let Some(first) = self.seats.iter().position(|seat| seat.is_of(rule)) else { return };
        let seats = &self.seats[first..];
        let count = seats.iter().take_while(|seat| seat.is_of(rule)).count();
        let seats = &seats[..count];
        let is_asked =
            self.occasion.cause != Cause::Tick || seats.iter().any(|seat| program.asks_for_silence(seat.subject));
        if seats[0].subject != rule.subject() || !is_asked {
            return;
        }
        self.joins.hear(self.rules, seats, series, &self.view, self.occasion);
    }

    /// Decides a condition about this series only.
    fn judge_alone(
        &mut self,
        rule: &Rule,
        program: &Program,
        series: SeriesId,
        is_asked: bool,
        window: &impl PointSource,
        events: &mut Vec<Event>,
    ) {
        let last = self.states.find(series, rule.id()).map(|last| last.seen(self.occasion.latest));
        let mut stays = last.is_some();
        if is_asked && self.occasion.cause != Cause::Refill {
            let mut findings = [Finding::UNKNOWN; TERMS_MAX];
            for (finding, term) in findings.iter_mut().zip(&program.terms) {
                *finding = term.read(&self.view, last.map(|last| last.time));
            }
            drop_stale(&mut findings, self.occasion.latest);
            if let Some(outcome) = decide(program, last.is_some(), |_| findings) {
                let (oldest, newest) = (outcome.oldest, outcome.newest);
                let next = next_of(self.occasion, rule, last.as_ref(), outcome.holds, oldest, newest);
                // A point that was late, as after an outage, may be older than the alarm that it ends.
                let time = outcome.newest.max(last.map_or(i64::MIN, |last| last.time));
                let explain = || explain_program(rule, program, &findings, &outcome, &self.view);
                if send(next, rule, series, outcome.left, time, explain, window, events) {
                    stays = apply(next, rule, series, time, self.states, stays);
                }
            }
        }
        self.is_open |= stays;
    }
}

/// Event that is sent when a rule holds (or not) by points from `oldest` to `newest`.
#[inline]
fn next_of(
    occasion: Occasion,
    rule: &Rule,
    last: Option<&OpenProblem>,
    holds: bool,
    oldest: i64,
    newest: i64,
) -> Transition {
    let Occasion { cause, now, min_interval_s, .. } = occasion;
    let next = next(last, holds, Moment { oldest, now, max_step: rule.max_step(), min_interval_s });
    if cause == Cause::CatchUp && !is_due_after_restart(next, last, newest, now) {
        return Transition::Nothing;
    }
    next
}

impl<'a> View<'a> {
    fn of(
        semantics: Semantics,
        points: &'a [model::Point],
        values: &'a [f64],
        known: usize,
        step: u32,
        occasion: Occasion,
    ) -> View<'a> {
        let Occasion { now, latest, .. } = occasion;
        View { points, values, known, period_s: values::period_s(points, step), silence: None, semantics, now, latest }
    }
}

/// The verdict of a rule on these values; `None` if there are too few, or if too much is unknown.
#[inline]
fn verdict(condition: &Comparison, rule: &Rule, values: &[f64], known: usize, semantics: Semantics) -> Option<Verdict> {
    let values = values.get(..rule.values_needed as usize)?;
    if semantics == Semantics::OpenFalcon {
        return Some(condition.judge(values));
    }
    let verdict = if known >= values.len() { Some(condition.judge(values)) } else { condition.judge_partly(values) };
    // A sum that overflows says nothing, and an event could not carry it.
    verdict.filter(|verdict| verdict.left.is_finite())
}

/// Makes the event of a transition. False if there is nothing to send, or nobody knows the series.
#[allow(clippy::too_many_arguments)] // what an event is made of
fn send(
    next: Transition,
    rule: &Rule,
    series: SeriesId,
    left: f64,
    time: i64,
    explain: impl Fn() -> Box<Explanation>,
    window: &impl PointSource,
    events: &mut Vec<Event>,
) -> bool {
    let Some((status, current_step)) = next.event() else { return false };
    // Happens under `Semantics::OpenFalcon` only: the event has no JSON form, so the original loses it and believes it
    // sent.
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

/// Moves the state on to the event that was sent; says whether a PROBLEM is open now.
fn apply(next: Transition, rule: &Rule, series: SeriesId, time: i64, states: &mut States, is_open: bool) -> bool {
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

fn explain_plain(rule: &Rule, condition: &Comparison, verdict: Verdict, view: &View<'_>) -> Box<Explanation> {
    let question = Question::Values { opens: *condition, stays: *condition };
    let mut evidence = Evidence::default();
    evidence.refill(&question, view);
    let text = explain::plain_text(&rule.source);
    let term = explain::term(&text, String::new(), &question, verdict, &evidence);
    explain::whole(&rule.source, vec![term])
}

fn explain_program(
    rule: &Rule,
    program: &Program,
    findings: &[Finding; TERMS_MAX],
    outcome: &Outcome,
    view: &View<'_>,
) -> Box<Explanation> {
    let decided = program.terms.iter().zip(findings).enumerate().filter(|(i, _)| outcome.deciding >> i & 1 == 1);
    let terms = decided.filter_map(|(_, (term, finding))| {
        let mut evidence = Evidence::default();
        evidence.refill(&term.question, view);
        let verdict = Verdict { holds: finding.holds(!outcome.holds)?, left: finding.left };
        Some(explain::term(&term.text, String::new(), &term.question, verdict, &evidence))
    });
    explain::whole(&rule.source, terms.collect())
}
