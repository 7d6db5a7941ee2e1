//! Finding: what one term of a condition says about its series at a moment, and what the terms together come to.
//!
//! How: a term with `recover` is asked two things, whether it opens a PROBLEM and whether it keeps one open; which of
//! them counts depends on the alarm, which a term about another series does not know. The values that a term saw are
//! kept with its finding where the event may be made later, by a point of another series ([`Evidence`]).
//! Times: terms are compared by the times of their points, not by the clock. A term whose newest point is more than
//! [`STALE_PERIODS`] of its periods older than the newest of the others is unknown: its series has stopped. So is one
//! whose newest point was told by a clock that was ahead: nothing has come since.
//! Invariants: the answer depends on the findings only, not on which came first.

use crate::Semantics;
use crate::function::{Comparison, Verdict};
use crate::program::{Program, Question, Subject, TERMS_MAX, Term};
use crate::silence::Silence;
use model::Point;
use model::explanation::POINTS_MAX;

/// Periods after which a series has stopped beside others. A single lost point is no hole, as in `values.rs`.
const STALE_PERIODS: i64 = 2;

/// The points and values of a series as they are when the series is judged.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// Newest first.
    pub points: &'a [Point],
    pub values: &'a [f64],
    /// Number of the newest values that are known without a break.
    pub known: usize,
    pub period_s: i64,
    pub silence: Option<Silence>,
    pub semantics: Semantics,
    pub now: i64,
    /// See [`crate::occasion::Occasion::latest`].
    pub latest: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Finding {
    /// Whether the term holds, as far as a new PROBLEM is concerned.
    pub opens: Option<bool>,
    /// Whether the term holds while a PROBLEM is open.
    pub stays: Option<bool>,
    pub left: f64,
    /// Times of the newest and the oldest point that the term used.
    pub newest: i64,
    pub oldest: i64,
    /// 0 where the answer does not age.
    pub period_s: i64,
}

/// The decision that the terms of a condition come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub holds: bool,
    /// The bits of the terms that decided.
    pub deciding: u8,
    pub left: f64,
    pub newest: i64,
    pub oldest: i64,
}

/// The values that a term saw, for whoever asks why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// The newest values with their times, newest first.
    pub points: Vec<Point>,
    /// Values that fulfil the comparison which opens, and the one which keeps open.
    pub holding: [u32; 2],
    /// Values that are not known.
    pub unknown: u32,
    pub period_s: i64,
}

impl Finding {
    pub const UNKNOWN: Finding =
        Finding { opens: None, stays: None, left: f64::NAN, newest: i64::MIN, oldest: i64::MIN, period_s: 0 };

    pub fn holds(&self, is_open: bool) -> Option<bool> {
        if is_open { self.stays } else { self.opens }
    }

    /// Whether the series has stopped, seen from `reference`, the newest point of all series that terms ask. A point
    /// later than `latest` is from a clock that was wrong.
    pub fn is_stale(&self, reference: i64, latest: i64) -> bool {
        let is_behind = self.newest < reference.saturating_sub(STALE_PERIODS * self.period_s);
        self.period_s > 0 && (is_behind || self.newest > latest)
    }
}

impl Term {
    /// Asks the term about a series. `open_since` is the time of the open PROBLEM, where that is known.
    pub fn read(&self, view: &View<'_>, open_since: Option<i64>) -> Finding {
        match &self.question {
            Question::Silence { steps } => {
                let newest = view.points.first().map(|point| point.time);
                read_silence(*steps, newest.zip(view.silence), view.period_s, open_since, (view.now, view.latest))
            }
            Question::Values { opens, stays } => read_values(opens, stays, view),
        }
    }
}

fn read_values(opens: &Comparison, stays: &Comparison, view: &View<'_>) -> Finding {
    let needed = opens.function.values_needed() as usize;
    let Some(values) = view.values.get(..needed) else { return unknown(view) };
    let Some(first) = verdict(opens, values, view.known, view.semantics) else {
        // Both comparisons look at the same values; but one threshold may be sure where the other is not.
        let second = verdict(stays, values, view.known, view.semantics);
        return second.map_or(unknown(view), |second| finding(None, Some(second), needed, view));
    };
    let second = if opens == stays { Some(first) } else { verdict(stays, values, view.known, view.semantics) };
    finding(Some(first), second, needed, view)
}

/// The finding of a term that cannot tell. A series that has points can be seen to have stopped.
fn unknown(view: &View<'_>) -> Finding {
    let Some(newest) = view.points.first() else { return Finding::UNKNOWN };
    Finding { newest: newest.time, period_s: view.period_s, ..Finding::UNKNOWN }
}

fn finding(opens: Option<Verdict>, stays: Option<Verdict>, needed: usize, view: &View<'_>) -> Finding {
    let left = opens.or(stays).map_or(f64::NAN, |verdict| verdict.left);
    let (newest, oldest) = (view.points[0].time, view.points[needed - 1].time);
    let holds = |verdict: Verdict| verdict.holds;
    Finding { opens: opens.map(holds), stays: stays.map(holds), left, newest, oldest, period_s: view.period_s }
}

/// The verdict of a function on these values; `None` if too much is unknown, or if the left value has no JSON form.
fn verdict(condition: &Comparison, values: &[f64], known: usize, semantics: Semantics) -> Option<Verdict> {
    let verdict = if known >= values.len() || semantics == Semantics::OpenFalcon {
        Some(condition.judge(values))
    } else {
        condition.judge_partly(values)
    };
    verdict.filter(|verdict| verdict.left.is_finite())
}

/// The finding of `nodata` at `now`, for a series with the given newest point and silence. A point later than `latest`
/// is from a clock that was wrong: it came when it came.
pub(crate) fn read_silence(
    steps: u32,
    seen: Option<(i64, Silence)>,
    period_s: i64,
    open_since: Option<i64>,
    (now, latest): (i64, i64),
) -> Finding {
    let Some((newest, silence)) = seen else { return Finding::UNKNOWN };
    let last = if newest > latest { silence.since } else { newest };
    if let Some(missing) = silence.missing(last, period_s, steps, now) {
        let holds = Some(true);
        let (newest, oldest) = (missing.newest, missing.oldest);
        return Finding { opens: holds, stays: holds, left: missing.count as f64, newest, oldest, period_s: 0 };
    }
    if silence.is_forgotten(last) {
        return Finding { newest: last, period_s, ..Finding::UNKNOWN };
    }
    // A series that was not heard since the start may have been silent for long; but a point that is newer than the
    // alarm ends the alarm.
    if !silence.heard && open_since.is_none_or(|time| last <= time) {
        return Finding::UNKNOWN;
    }
    let holds = Some(false);
    Finding { opens: holds, stays: holds, left: 0.0, newest: last, oldest: last, period_s: 0 }
}

/// Makes unknown each finding that is too old beside the others.
pub(crate) fn drop_stale(findings: &mut [Finding], latest: i64) {
    let reference = reference(findings.iter().map(|finding| finding.newest), latest);
    let stale = findings.iter_mut().filter(|finding| finding.is_stale(reference, latest));
    stale.for_each(|finding| *finding = Finding::UNKNOWN);
}

/// The newest of these times, without those that are later than `latest`.
pub(crate) fn reference(times: impl Iterator<Item = i64>, latest: i64) -> i64 {
    times.filter(|time| *time <= latest).max().unwrap_or(i64::MIN)
}

/// Decides an alarm by the findings that are not stale; `None` if they are not enough to open, repeat or end it. A
/// finding that only keeps an alarm open does not repeat it. `findings` is asked twice where the alarm is open: where
/// one term means several series, the one that opens need not be the one that keeps open.
pub(crate) fn decide(
    program: &Program,
    is_open: bool,
    findings: impl Fn(bool) -> [Finding; TERMS_MAX],
) -> Option<Outcome> {
    let opens = outcome(program, &findings(false), false);
    if !is_open || opens.is_some_and(|outcome| outcome.holds) {
        return opens;
    }
    outcome(program, &findings(true), true).filter(|outcome| !outcome.holds)
}

/// The outcome of the findings of a program's terms.
fn outcome(program: &Program, findings: &[Finding; TERMS_MAX], is_open: bool) -> Option<Outcome> {
    let findings = &findings[..program.terms.len()];
    let mut answers = [None; TERMS_MAX];
    answers.iter_mut().zip(findings).for_each(|(answer, finding)| *answer = finding.holds(is_open));
    let answer = program.answer(&answers);
    let (holds, deciding) = (answer.holds?, answer.deciding);
    let decided =
        || findings.iter().enumerate().filter(move |(i, _)| deciding >> i & 1 == 1).map(|(_, finding)| finding);
    let is_own = |i: usize| program.terms[i].subject == Subject::Own;
    // The value that is reported is of the series that carries the alarm, if it has said anything at all.
    let own = || findings.iter().enumerate().filter(|(i, finding)| is_own(*i) && finding.left.is_finite());
    let left = own().find(|(i, _)| deciding >> i & 1 == 1).or_else(|| own().next()).map(|(_, finding)| finding.left);
    Some(Outcome {
        holds,
        deciding,
        left: left.or_else(|| decided().next().map(|finding| finding.left))?,
        newest: decided().map(|finding| finding.newest).max()?,
        oldest: decided().map(|finding| finding.oldest).min()?,
    })
}

impl Evidence {
    /// Notes the values that the term with this question saw.
    pub fn refill(&mut self, question: &Question, view: &View<'_>) {
        self.points.clear();
        self.period_s = view.period_s;
        (self.holding, self.unknown) = ([0; 2], 0);
        let (opens, stays) = match question {
            Question::Values { opens, stays } => (opens, stays),
            Question::Silence { .. } => return self.points.extend(view.points.first()),
        };
        let needed = (opens.function.values_needed() as usize).min(view.values.len());
        if self.points.capacity() == 0 {
            self.points.reserve_exact((opens.function.values_needed() as usize).min(POINTS_MAX));
        }
        let values = view.values[..needed].iter().zip(view.points);
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
