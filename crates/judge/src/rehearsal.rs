//! Rehearsal: which events a rule would have sent over history, by the judge that would have sent them.
//!
//! Why: a rule that is saved blindly is found to be noisy at night.
//! How: a [`Judge`] is led through the points of the series that may meet in one alarm, in the order of their times,
//! and through the clock between them for what does not come. The window is a slice of the decoded history up to a
//! cursor, so nothing is copied and nothing is kept besides. Series of different endpoints never meet, so a caller
//! plays endpoint by endpoint; and series by series where the rule looks at one only ([`Rehearsal::is_joined`]).
//!
//! Clock: a point arrives at its own time. Really it comes up to a step later (times are aligned down to the step),
//! always about equally late. That would move all looks at the clock alike, and changes no answer as long as
//! `min_interval` is a multiple of the step. Points with the same time come in the order of their series; and a point
//! that comes in the second in which it would be missed is not missed, since a server looks some seconds later. Points
//! that came late are judged where they belong; the live judge does not look at those.
//!
//! Hours: within each of them the rule is in force, from its first second to the one before its end. The rule comes
//! into force as one that is saved then: what came before fills the windows, and nothing is open. Where hours end
//! before the rehearsal does, open alarms are closed, as the server closes those of a rule that is out of its hours.
//!
//! Invariants: the same points give the events of the live judge (`tests/rehearsal.rs`); nothing is allocated per point
//! unless an event is made. Memory: the judge's own for the series of one call.

use crate::judge::{Judge, PointSource};
use crate::rule_set::{RefusedRule, RuleSet};
use crate::silence::FORGOTTEN_S;
use crate::state::{OpenProblem, RuleId};
use crate::values::PERIOD_POINTS;
use crate::{Options, Semantics};
use model::{CounterType, Event, Explanation, Point, Rules, Sample, SeriesId, SeriesKey, Status};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Periods to look back on beyond the window: so many points may be lost one by one, as `values.rs` bears it.
const SLACK: i64 = 2;

/// Rules to be tried over history; usually one.
pub struct Rehearsal {
    options: Options,
    rules: Rules,
    set: Arc<RuleSet>,
    none: Arc<RuleSet>,
    is_joined: bool,
    asks_for_silence: bool,
}

/// What a series was before it changed its type or step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// Unix time from which on the series was something else.
    pub until: i64,
    pub counter_type: CounterType,
    /// Seconds between points.
    pub step: u32,
}

/// A series and its stored points.
#[derive(Clone, Copy)]
pub struct History<'a> {
    pub key: SeriesKey<'a>,
    pub counter_type: CounterType,
    pub step: u32,
    /// What the series was before, ascending; empty for nearly all.
    pub before: &'a [Before],
    /// Points by ascending time, each time once. Points before the first hours only fill the window.
    pub points: &'a [Point],
}

/// The hours in which the rules are in force.
#[derive(Clone, Copy)]
pub struct Schedule<'a> {
    /// Ascending, apart from each other.
    pub hours: &'a [Range<i64>],
    /// The end of the rehearsal: hours that end before it close the alarms that are open.
    pub until: i64,
    /// The reason that such a closing names; see [`Explanation::closed`].
    pub closed: &'a str,
}

/// The part that a series has in the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Involvement {
    /// The series carries alarms.
    Carries,
    /// The series is only asked by the alarms of others.
    Asked,
}

impl Rehearsal {
    /// Compiles the rules; the refused ones are left out and returned.
    pub fn new(rules: Rules, options: Options) -> (Rehearsal, Vec<RefusedRule>) {
        let (set, refused) = RuleSet::compile(&rules, &options);
        let is_joined = set.programs.iter().any(|program| program.is_joined());
        let asks_for_silence = set.rules.iter().any(|rule| {
            let program = set.program(rule);
            program.is_some_and(|program| program.asks_for_silence(rule.subject()))
        });
        let none = Arc::default();
        (Rehearsal { options, rules, set, none, is_joined, asks_for_silence }, refused)
    }

    /// The part that a series has in the rules, if any.
    pub fn involvement(&self, key: SeriesKey<'_>) -> Option<Involvement> {
        if !self.set.uses_metric(key.metric) {
            return None;
        }
        let mut matched = Vec::new();
        self.set.rules_of(key, &mut String::new(), &mut matched);
        let carries = matched.iter().any(|rule| self.set.rules[*rule as usize].carries_alarm());
        (!matched.is_empty()).then_some(if carries { Involvement::Carries } else { Involvement::Asked })
    }

    /// Whether series of an endpoint meet in one alarm, and so must be played together.
    pub fn is_joined(&self) -> bool {
        self.is_joined
    }

    /// The values that a decision looks at, at most.
    pub fn window_points(&self) -> u32 {
        self.set.window_points()
    }

    /// Seconds before the first hours from which on points matter, for a series with this step.
    pub fn warm_up_s(&self, step: u32) -> i64 {
        // One more for a rate.
        let points = i64::from(self.set.window_points()) + 1 + PERIOD_POINTS as i64;
        let window_s = points * SLACK * i64::from(step);
        // Whether a series has just fallen silent, or is gone.
        if self.asks_for_silence { window_s + FORGOTTEN_S } else { window_s }
    }

    /// Plays the histories of one endpoint, and gives each event to `tell`, which can end the rehearsal. Answers how
    /// many points were judged.
    pub fn play(
        &self,
        series: &[History<'_>],
        schedule: Schedule<'_>,
        tell: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<(), u64> {
        debug_assert!(series.iter().all(|one| one.key.endpoint == series[0].key.endpoint), "endpoints never meet");
        let Some(first) = series.first() else { return ControlFlow::Continue(0) };
        let set = self.set_of(first.key.endpoint);
        let judge = Judge::new(self.options);
        let tape = Tape { series, next: vec![0; series.len()] };
        let mut stage = Stage { judge, tape, events: Vec::new(), open: HashMap::new(), judged: 0, tell };
        for hours in schedule.hours {
            stage.begin(&set, hours.start);
            stage.play(hours.clone())?;
            if hours.end < schedule.until {
                stage.end(&self.none, hours.end, schedule.closed, self.options.semantics)?;
            }
        }
        ControlFlow::Continue(stage.judged)
    }

    /// The rules as far as an endpoint is concerned: a set of all hosts costs each load all hosts.
    fn set_of(&self, endpoint: &str) -> Arc<RuleSet> {
        let Some(strategies) = self.rules.hosts.get(endpoint) else { return self.set.clone() };
        let hosts = HashMap::from([(endpoint.to_string(), strategies.clone())]);
        RuleSet::compile(&Rules { version: 0, hosts, expressions: self.rules.expressions.clone() }, &self.options).0
    }
}

impl History<'_> {
    /// Type and step at a time.
    #[inline]
    fn at(&self, time: i64) -> (CounterType, u32) {
        let before = self.before.iter().find(|before| time < before.until);
        before.map_or((self.counter_type, self.step), |before| (before.counter_type, before.step))
    }

    /// Whether a window that ends at `newest` has a point of this time: not one of a counter among those of a gauge.
    #[inline]
    fn is_in_window(&self, time: i64, newest: i64) -> bool {
        self.before.is_empty() || self.at(time).0.is_gauge() == self.at(newest).0.is_gauge()
    }
}

/// Histories, each up to the point that is to come next.
struct Tape<'a> {
    series: &'a [History<'a>],
    next: Vec<usize>,
}

impl PointSource for Tape<'_> {
    #[inline]
    fn tail(&self, series: SeriesId, count: usize, out: &mut Vec<Point>) {
        let index = series.0 as usize;
        let history = &self.series[index];
        let played = &history.points[..self.next[index]];
        let Some(newest) = played.last().map(|point| point.time) else { return };
        let tail = played[played.len().saturating_sub(count)..].iter().rev();
        out.extend(tail.take_while(|point| history.is_in_window(point.time, newest)));
    }

    fn meta(&self, series: SeriesId) -> Option<(CounterType, u32)> {
        let index = series.0 as usize;
        let history = self.series.get(index)?;
        let newest = self.next[index].checked_sub(1).map_or(i64::MIN, |newest| history.points[newest].time);
        Some(history.at(newest))
    }

    fn key(&self, series: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        use_key(self.series[series.0 as usize].key);
    }
}

impl Tape<'_> {
    fn peek(&self, index: usize) -> Option<Point> {
        self.series[index].points.get(self.next[index]).copied()
    }

    /// Passes over what is before `time`.
    fn wind(&mut self, time: i64) {
        for (history, next) in self.series.iter().zip(&mut self.next) {
            *next += history.points[*next..].partition_point(|point| point.time < time);
        }
    }
}

struct Stage<'a> {
    judge: Judge,
    tape: Tape<'a>,
    /// Events of the current point.
    events: Vec<Event>,
    /// The last PROBLEM of each open alarm, by tags: one endpoint, and the metric is the rule's.
    open: HashMap<(RuleId, String), Event>,
    judged: u64,
    tell: &'a mut dyn FnMut(Event) -> ControlFlow<()>,
}

impl Stage<'_> {
    /// Brings the rules into force, as when they are saved.
    fn begin(&mut self, set: &Arc<RuleSet>, now: i64) {
        self.tape.wind(now);
        self.judge.load(set.clone());
        self.bind();
        for series in (0..self.tape.series.len()).map(|number| SeriesId(number as u32)) {
            let Some((counter_type, step)) = self.tape.meta(series) else { continue };
            self.judge.refill(series, counter_type, step, &self.tape, now);
        }
    }

    fn bind(&mut self) -> Vec<OpenProblem> {
        let series = self.tape.series.iter().enumerate();
        series
            .flat_map(|(number, history)| self.judge.bind(SeriesId(number as u32), history.key, history.counter_type))
            .collect()
    }

    fn play(&mut self, hours: Range<i64>) -> ControlFlow<()> {
        let mut now = hours.start;
        if let [_] = self.tape.series {
            while let Some(point) = self.tape.peek(0).filter(|point| point.time < hours.end) {
                self.look_until(point.time, now)?;
                now = point.time;
                self.point(0, point)?;
            }
        } else {
            let mut heads: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::with_capacity(self.tape.series.len());
            let all = 0..self.tape.series.len();
            heads.extend(all.filter_map(|index| Some(Reverse((self.tape.peek(index)?.time, index)))));
            while let Some(mut head) = heads.peek_mut() {
                let Reverse((time, index)) = *head;
                if time >= hours.end {
                    break;
                }
                self.look_until(time, now)?;
                now = time;
                let point = self.tape.series[index].points[self.tape.next[index]];
                self.point(index, point)?;
                match self.tape.peek(index) {
                    Some(next) => *head = Reverse((next.time, index)),
                    None => drop(std::collections::binary_heap::PeekMut::pop(head)),
                }
            }
        }
        self.look_until(hours.end, now)
    }

    fn point(&mut self, index: usize, point: Point) -> ControlFlow<()> {
        self.tape.next[index] += 1;
        self.judged += 1;
        let (series, history) = (SeriesId(index as u32), &self.tape.series[index]);
        let sample = Sample { series, point };
        let (counter_type, step) = history.at(point.time);
        self.judge.on_point(sample, counter_type, step, &self.tape, point.time, &mut self.events);
        self.tell()
    }

    /// Looks at the clock whenever it may tell something, from `now` on and before `until`.
    fn look_until(&mut self, until: i64, now: i64) -> ControlFlow<()> {
        while let Some(due) = self.judge.next_due().map(|due| due.max(now)).filter(|due| *due < until) {
            // Each look moves what was due into the future.
            self.judge.tick(due, &self.tape, &mut self.events);
            self.tell()?;
        }
        ControlFlow::Continue(())
    }

    /// Takes the rules out of force; alarms that are open are closed.
    fn end(&mut self, none: &Arc<RuleSet>, now: i64, reason: &str, semantics: Semantics) -> ControlFlow<()> {
        let mut closed = self.judge.load(none.clone()).closed().to_vec();
        closed.extend(self.bind());
        for problem in closed {
            let key = self.tape.series[problem.series.0 as usize].key;
            let open = self.open.remove(&(problem.rule, key.tags.as_str().to_string()));
            // The original tells nobody of it.
            if semantics == Semantics::OpenFalcon {
                continue;
            }
            if let Some(event) = open {
                self.events.push(closing(event, now, reason));
            }
        }
        self.tell()
    }

    #[inline]
    fn tell(&mut self) -> ControlFlow<()> {
        let joins = self.judge.joins();
        if joins.is_waiting() {
            joins.hand_over(|events| self.events.append(events));
        }
        if self.events.is_empty() { ControlFlow::Continue(()) } else { self.tell_all() }
    }

    #[cold]
    fn tell_all(&mut self) -> ControlFlow<()> {
        for event in self.events.drain(..) {
            let alarm = (RuleId::of(&event.rule), event.tags.clone());
            match event.status {
                Status::Problem => self.open.insert(alarm, event.clone()),
                Status::Ok => self.open.remove(&alarm),
            };
            (self.tell)(event)?;
        }
        ControlFlow::Continue(())
    }
}

/// The closing of an alarm whose rule is out of force, as the server makes it.
fn closing(problem: Event, now: i64, reason: &str) -> Event {
    let rule_version = problem.rule.version();
    let explanation = Explanation { rule_version, closed: reason.to_string(), ..Explanation::default() };
    Event {
        status: Status::Ok,
        current_step: 1,
        time: now.max(problem.time),
        explanation: Some(Box::new(explanation)),
        ..problem
    }
}
