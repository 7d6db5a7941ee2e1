//! Reading: what one term of a condition says about its series at a moment, and what the terms together come to.
//!
//! How: a term with `recover` is asked two things, whether it opens a PROBLEM and whether it keeps one open; which of them
//! counts depends on the alarm, which a term about another series does not know. What a term saw is kept with its answer
//! where the event may be made later, by somebody else's point ([`Evidence`]).
//! Times: terms are compared by the times of their points, not by the clock. A term whose newest point is more than
//! [`STALE_PERIODS`] of its periods older than the newest of the others is unknown: its series has stopped.
//! Invariants: the answer depends on the readings only, not on which came first.

use crate::Semantics;
use crate::function::{Condition, Verdict};
use crate::program::{Program, Question, Subject, TERMS_MAX, Term};
use crate::silence::Silence;
use model::Point;
use model::explanation::POINTS_MAX;

/// As for holes: a single lost point is none. See `history.rs`.
const STALE_PERIODS: i64 = 2;

/// What is known of a series when it is judged.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    /// Newest first.
    pub points: &'a [Point],
    pub values: &'a [f64],
    /// How many of the newest values are known without a break.
    pub known: usize,
    pub period_s: i64,
    pub silence: Option<Silence>,
    pub semantics: Semantics,
    pub now: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    /// Whether it holds, as far as a new PROBLEM is concerned.
    pub opens: Option<bool>,
    /// Whether it holds while a PROBLEM is open.
    pub stays: Option<bool>,
    pub left: f64,
    /// Times of the newest and the oldest point that it used.
    pub newest: i64,
    pub oldest: i64,
    /// 0 where the answer does not age.
    pub period_s: i64,
}

/// What the terms of a condition come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub holds: bool,
    /// The bits of the terms that decided.
    pub deciding: u8,
    pub left: f64,
    pub newest: i64,
    pub oldest: i64,
}

/// What a term saw, for whoever asks why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// The newest values with their times, newest first.
    pub points: Vec<Point>,
    /// How many of all its values fulfil the comparison: that which opens, that which keeps open.
    pub holding: [u32; 2],
    /// How many of its values are not known.
    pub unknown: u32,
    pub period_s: i64,
}

impl Reading {
    pub const UNKNOWN: Reading =
        Reading { opens: None, stays: None, left: f64::NAN, newest: i64::MIN, oldest: i64::MIN, period_s: 0 };

    pub fn holds(&self, is_open: bool) -> Option<bool> {
        if is_open { self.stays } else { self.opens }
    }

    /// Whether its series has stopped, seen from `reference`, the newest point of all series that terms ask.
    pub fn is_stale(&self, reference: i64) -> bool {
        self.period_s > 0 && self.newest < reference.saturating_sub(STALE_PERIODS * self.period_s)
    }
}

impl Term {
    /// Asks the term. `open_since` is the time of the open PROBLEM, where that is known.
    pub fn read(&self, look: &Look<'_>, open_since: Option<i64>) -> Reading {
        match &self.question {
            Question::Silence { steps } => {
                let newest = look.points.first().map(|point| point.time);
                read_silence(*steps, newest.zip(look.silence), look.period_s, open_since, look.now)
            }
            Question::Values { opens, stays } => read_values(opens, stays, look),
        }
    }
}

fn read_values(opens: &Condition, stays: &Condition, look: &Look<'_>) -> Reading {
    let needed = opens.function.values_needed() as usize;
    let Some(values) = look.values.get(..needed) else { return unknown(look) };
    let Some(first) = verdict(opens, values, look.known, look.semantics) else {
        // Both look at the same values; but what is sure of one threshold may not be of the other.
        let second = verdict(stays, values, look.known, look.semantics);
        return second.map_or(unknown(look), |second| reading(None, Some(second), needed, look));
    };
    let second = if opens == stays { Some(first) } else { verdict(stays, values, look.known, look.semantics) };
    reading(Some(first), second, needed, look)
}

/// Of a series that does have points: it can be seen to have stopped.
fn unknown(look: &Look<'_>) -> Reading {
    let Some(newest) = look.points.first() else { return Reading::UNKNOWN };
    Reading { newest: newest.time, period_s: look.period_s, ..Reading::UNKNOWN }
}

fn reading(opens: Option<Verdict>, stays: Option<Verdict>, needed: usize, look: &Look<'_>) -> Reading {
    let left = opens.or(stays).map_or(f64::NAN, |verdict| verdict.left);
    let (newest, oldest) = (look.points[0].time, look.points[needed - 1].time);
    let holds = |verdict: Verdict| verdict.holds;
    Reading { opens: opens.map(holds), stays: stays.map(holds), left, newest, oldest, period_s: look.period_s }
}

/// What a function says of these values; `None` if too much is unknown. Terms never report what has no JSON form.
fn verdict(condition: &Condition, values: &[f64], known: usize, semantics: Semantics) -> Option<Verdict> {
    let verdict = if known >= values.len() || semantics == Semantics::OpenFalcon {
        Some(condition.judge(values))
    } else {
        condition.judge_partly(values)
    };
    verdict.filter(|verdict| verdict.left.is_finite())
}

/// What `nodata` says at `now` of a series with the given newest point and silence.
pub(crate) fn read_silence(
    steps: u32,
    seen: Option<(i64, Silence)>,
    period_s: i64,
    open_since: Option<i64>,
    now: i64,
) -> Reading {
    let Some((last, silence)) = seen else { return Reading::UNKNOWN };
    if let Some(missing) = silence.missing(last, period_s, steps, now) {
        let holds = Some(true);
        let (newest, oldest) = (missing.newest, missing.oldest);
        return Reading { opens: holds, stays: holds, left: missing.count as f64, newest, oldest, period_s: 0 };
    }
    if silence.is_forgotten(last) {
        return Reading { newest: last, period_s, ..Reading::UNKNOWN };
    }
    // Before we have heard of it, that it has not been silent for long since the start says nothing; but a point that is
    // newer than the alarm ends it.
    if !silence.heard && open_since.is_none_or(|time| last <= time) {
        return Reading::UNKNOWN;
    }
    let holds = Some(false);
    Reading { opens: holds, stays: holds, left: 0.0, newest: last, oldest: last, period_s: 0 }
}

/// Makes unknown what is too old beside the others.
pub(crate) fn drop_stale(readings: &mut [Reading]) {
    let reference = readings.iter().map(|reading| reading.newest).max().unwrap_or(i64::MIN);
    readings.iter_mut().filter(|reading| reading.is_stale(reference)).for_each(|reading| *reading = Reading::UNKNOWN);
}

/// What the terms say to an alarm, those of them that are not stale; `None` if that is not enough to open, repeat or end it. What only keeps it open does
/// not repeat it. `readings` are asked twice where it is open: of several series that one term means, it need not be
/// the same that opens and that keeps open.
pub(crate) fn decide(
    program: &Program,
    is_open: bool,
    readings: impl Fn(bool) -> [Reading; TERMS_MAX],
) -> Option<Outcome> {
    let opens = outcome(program, &readings(false), false);
    if !is_open || opens.is_some_and(|outcome| outcome.holds) {
        return opens;
    }
    outcome(program, &readings(true), true).filter(|outcome| !outcome.holds)
}

/// Joins the readings of a program's terms.
fn outcome(program: &Program, readings: &[Reading; TERMS_MAX], is_open: bool) -> Option<Outcome> {
    let readings = &readings[..program.terms.len()];
    let mut answers = [None; TERMS_MAX];
    answers.iter_mut().zip(readings).for_each(|(answer, reading)| *answer = reading.holds(is_open));
    let answer = program.answer(&answers);
    let (holds, deciding) = (answer.holds?, answer.deciding);
    let decided =
        || readings.iter().enumerate().filter(move |(i, _)| deciding >> i & 1 == 1).map(|(_, reading)| reading);
    let is_own = |i: usize| program.terms[i].subject == Subject::Own;
    // The value that is reported is of the series that carries the alarm, if it has said anything at all.
    let own = || readings.iter().enumerate().filter(|(i, reading)| is_own(*i) && reading.left.is_finite());
    let left = own().find(|(i, _)| deciding >> i & 1 == 1).or_else(|| own().next()).map(|(_, reading)| reading.left);
    Some(Outcome {
        holds,
        deciding,
        left: left.or_else(|| decided().next().map(|reading| reading.left))?,
        newest: decided().map(|reading| reading.newest).max()?,
        oldest: decided().map(|reading| reading.oldest).min()?,
    })
}

impl Evidence {
    /// Notes what `term` saw.
    pub fn refill(&mut self, question: &Question, look: &Look<'_>) {
        self.points.clear();
        self.period_s = look.period_s;
        (self.holding, self.unknown) = ([0; 2], 0);
        let (opens, stays) = match question {
            Question::Values { opens, stays } => (opens, stays),
            Question::Silence { .. } => return self.points.extend(look.points.first()),
        };
        let needed = (opens.function.values_needed() as usize).min(look.values.len());
        if self.points.capacity() == 0 {
            self.points.reserve_exact((opens.function.values_needed() as usize).min(POINTS_MAX));
        }
        let values = look.values[..needed].iter().zip(look.points);
        for (i, (value, point)) in values.enumerate() {
            self.holding[0] += u32::from(opens.test(*value));
            self.holding[1] += u32::from(stays.test(*value));
            self.unknown += u32::from(!value.is_finite());
            if i < POINTS_MAX && value.is_finite() {
                self.points.push(Point { time: point.time, value: *value });
            }
        }
    }
}
