//! A naive look at conditions: the text as a tree, and at each point the whole history of all series again.
//!
//! Written from docs/rules.md alone. What is not known is tried both ways: the answer is known if it is the same.

use super::Series;
use super::naive::Naive;
use model::{CounterType, Point, Strategy};
use proptest::prelude::{any, prop, prop_oneof};
use proptest::strategy::Strategy as _;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub enum Condition {
    Values { func: String, operator: &'static str, right: i32, recover: Option<i32>, of: Option<&'static str> },
    Silence { steps: i64, of: Option<&'static str> },
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

/// What a series has had so far.
#[derive(Clone, Debug, Default)]
pub struct Past {
    pub points: Vec<Point>,
    /// Wall clock of the last arrival.
    pub heard: i64,
}

pub type History = BTreeMap<&'static str, Past>;

pub const OWN: &str = "m";
/// Two series of one metric.
pub const ANY: &str = "p/t=1";
pub const STEP: i64 = 60;
/// The series of an endpoint.
pub const NAMES: [&str; 5] = [OWN, "n", "k", "p/t=1,u=1", "p/t=1,u=2"];

pub fn series(endpoint: &str, name: &str) -> Series {
    let (metric, tags) = name.split_once('/').unwrap_or((name, ""));
    Series::new(endpoint, metric, tags, CounterType::Gauge, STEP as u32)
}

fn of() -> impl proptest::strategy::Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, None, None, Some("n"), Some("k"), Some(OWN), Some(ANY)])
}

fn values(n_max: u32) -> impl proptest::strategy::Strategy<Value = Condition> {
    // Those of one value see no holes.
    let names = if n_max == 1 {
        vec!["all", "max", "min", "sum", "avg"]
    } else {
        vec!["all", "max", "min", "sum", "avg", "diff"]
    };
    let func = prop_oneof![
        4 => (prop::sample::select(names), 1..=n_max).prop_map(|(name, n)| format!("{name}(#{n})")),
        1 => (1..=n_max, 1..=n_max).prop_map(|(a, b)| format!("lookup(#{},{})", a.min(b), a.max(b))),
    ];
    let operator = prop::sample::select(vec![">", ">=", "<", "<=", "=", "!="]);
    (func, operator, -3..4i32, prop::option::of(0..3i32), of()).prop_map(|(func, operator, right, slack, of)| {
        let recover = match operator {
            ">" | ">=" => slack.map(|slack| right - slack),
            "<" | "<=" => slack.map(|slack| right + slack),
            _ => None,
        };
        Condition::Values { func, operator, right, recover, of }
    })
}

/// Conditions with N up to `n_max`.
pub fn conditions(with_silence: bool, n_max: u32) -> impl proptest::strategy::Strategy<Value = Condition> {
    let silence = (1..4i64, of()).prop_map(|(steps, of)| Condition::Silence { steps, of });
    let leaf = if with_silence { prop_oneof![3 => values(n_max), 2 => silence].boxed() } else { values(n_max).boxed() };
    leaf.prop_recursive(3, 6, 2, |inner| {
        (any::<bool>(), inner.clone(), inner).prop_map(|(and, a, b)| match and {
            true => Condition::And(a.into(), b.into()),
            false => Condition::Or(a.into(), b.into()),
        })
    })
}

/// Holes make values unknown, which the naive judge does not know; a series that is only lost for a single point has
/// none.
pub fn without_holes(minutes: Vec<Vec<(usize, i32)>>) -> Vec<Vec<(usize, i32)>> {
    let mut lost = [0; NAMES.len()];
    let keep = |minute: Vec<(usize, i32)>| {
        let mut minute = minute;
        for (series, lost) in lost.iter_mut().enumerate() {
            let has = minute.iter().any(|(other, _)| *other == series);
            if !has && *lost == 1 {
                minute.push((series, 1));
            }
            *lost = if has || *lost == 1 { 0 } else { 1 };
        }
        minute
    };
    minutes.into_iter().map(keep).collect()
}

/// The series that a name in a condition means: several have the tag `t=1`.
pub fn meant(name: &'static str) -> Vec<&'static str> {
    if name == ANY { vec!["p/t=1,u=1", "p/t=1,u=2"] } else { vec![name] }
}

/// What a series says to a term, and the times of the newest and oldest points it used; `None` in place of a period
/// never ages.
#[derive(Clone, Copy, Debug)]
struct Said {
    holds: Option<bool>,
    newest: i64,
    oldest: i64,
    period: Option<i64>,
}

/// A term's answer.
#[derive(Clone, Copy, Debug)]
struct Answer {
    holds: bool,
    newest: i64,
    oldest: i64,
}

/// What decided: whether it holds, event time, oldest point used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    pub holds: bool,
    pub newest: i64,
    pub oldest: i64,
}

impl Condition {
    pub fn text(&self) -> String {
        let of = |name: &Option<&str>| name.map_or(String::new(), |name| format!(" of {name}"));
        match self {
            Condition::Values { func, operator, right, recover, of: name } => {
                let recover = recover.map_or(String::new(), |value| format!(" recover {value}"));
                format!("{func}{} {operator} {right}{recover}", of(name))
            }
            Condition::Silence { steps, of: name } => format!("nodata(#{steps}){}", of(name)),
            Condition::And(a, b) => format!("({} and {})", a.text(), b.text()),
            Condition::Or(a, b) => format!("({} or {})", a.text(), b.text()),
        }
    }

    /// Whether a point of the series is news for the alarm; one of its own always is.
    pub fn is_about(&self, name: &str) -> bool {
        match self {
            Condition::Values { of, .. } | Condition::Silence { of, .. } => {
                name == OWN || of.is_some_and(|of| meant(of).contains(&name))
            }
            Condition::And(a, b) | Condition::Or(a, b) => a.is_about(name) || b.is_about(name),
        }
    }

    /// How many points are missing, in multiples of N, for each `nodata`.
    pub fn missing(&self, history: &History, now: i64) -> Vec<i64> {
        match self {
            Condition::Values { .. } => Vec::new(),
            Condition::Silence { steps, of } => {
                let series = meant(of.unwrap_or(OWN)).into_iter();
                series.map(|name| missing(*steps, &history[name], now).0).collect()
            }
            Condition::And(a, b) | Condition::Or(a, b) => [a.missing(history, now), b.missing(history, now)].concat(),
        }
    }

    /// What the alarm is told at `now`: opened (or still), or ended; `None` if nothing.
    pub fn decide(&self, history: &History, now: i64, is_open: bool) -> Option<Decision> {
        let opens = self.evaluate(history, now, false);
        if !is_open || opens.is_some_and(|decision| decision.holds) {
            return opens;
        }
        self.evaluate(history, now, true).filter(|decision| !decision.holds)
    }

    fn evaluate(&self, history: &History, now: i64, is_open: bool) -> Option<Decision> {
        let mut terms = Vec::new();
        self.ask(history, now, is_open, &mut terms);
        let reference = terms.iter().flatten().map(|said| said.newest).max()?;
        let answers: Vec<Option<Answer>> = terms.iter().map(|said| one_answer(said, reference)).collect();
        let mut unknown: Vec<usize> = Vec::new();
        unknown.extend((0..answers.len()).filter(|i| answers[*i].is_none()));
        // All ways that the unknown ones could turn out.
        let mut outcomes = (0..1u32 << unknown.len()).map(|guess| {
            let holds = |i: usize| match answers[i] {
                Some(answer) => answer.holds,
                None => guess >> unknown.iter().position(|u| *u == i).expect("unknown") & 1 == 1,
            };
            self.combine(&holds, &mut 0)
        });
        let holds = outcomes.next()?;
        if outcomes.any(|other| other != holds) {
            return None;
        }
        let mut deciding = Vec::new();
        self.deciding(&answers, &mut 0, &mut deciding);
        let newest = deciding.iter().map(|answer| answer.newest).max()?;
        let oldest = deciding.iter().map(|answer| answer.oldest).min()?;
        Some(Decision { holds, newest, oldest })
    }

    fn combine(&self, holds: &impl Fn(usize) -> bool, next: &mut usize) -> bool {
        match self {
            Condition::Values { .. } | Condition::Silence { .. } => {
                *next += 1;
                holds(*next - 1)
            }
            Condition::And(a, b) => a.combine(holds, next) & b.combine(holds, next),
            Condition::Or(a, b) => a.combine(holds, next) | b.combine(holds, next),
        }
    }

    /// The terms that make the answer what it is; the answer, if known.
    fn deciding(&self, answers: &[Option<Answer>], next: &mut usize, out: &mut Vec<Answer>) -> Option<bool> {
        let (a, b, decisive) = match self {
            Condition::Values { .. } | Condition::Silence { .. } => {
                *next += 1;
                out.extend(answers[*next - 1]);
                return answers[*next - 1].map(|answer| answer.holds);
            }
            Condition::And(a, b) => (a, b, false),
            Condition::Or(a, b) => (a, b, true),
        };
        let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
        let answer_a = a.deciding(answers, next, &mut of_a);
        let answer_b = b.deciding(answers, next, &mut of_b);
        let takes_part = |answer: Option<bool>| {
            let is_decisive = |answer: &Option<bool>| *answer == Some(decisive);
            answer == Some(decisive) || !(is_decisive(&answer_a) || is_decisive(&answer_b))
        };
        out.extend(of_a.into_iter().filter(|_| takes_part(answer_a)));
        out.extend(of_b.into_iter().filter(|_| takes_part(answer_b)));
        match (answer_a, answer_b) {
            (Some(a), _) if a == decisive => Some(decisive),
            (_, Some(b)) if b == decisive => Some(decisive),
            (Some(_), Some(_)) => Some(!decisive),
            _ => None,
        }
    }

    /// What the series of each term say.
    fn ask(&self, history: &History, now: i64, is_open: bool, out: &mut Vec<Vec<Said>>) {
        match self {
            Condition::Values { func, operator, right, recover, of } => {
                let right = recover.filter(|_| is_open).unwrap_or(*right);
                let (func, operator, right_value) = (func.clone(), operator.to_string(), f64::from(right));
                let rule = Strategy { func, operator, right_value, ..Strategy::default() };
                let heard = meant(of.unwrap_or(OWN)).into_iter().filter_map(|name| ask_values(&rule, &history[name]));
                out.push(heard.collect());
            }
            Condition::Silence { steps, of } => {
                let heard =
                    meant(of.unwrap_or(OWN)).into_iter().filter_map(|name| ask_silence(*steps, &history[name], now));
                out.push(heard.collect());
            }
            Condition::And(a, b) | Condition::Or(a, b) => {
                a.ask(history, now, is_open, out);
                b.ask(history, now, is_open, out);
            }
        }
    }
}

fn ask_values(rule: &Strategy, past: &Past) -> Option<Said> {
    let newest = past.points.last()?.time;
    let naive = Naive {
        counter_type: CounterType::Gauge,
        min_interval_s: 0,
        remain: usize::MAX,
        believes_lost_events: false,
        history: past.points.clone(),
        last: Vec::new(),
    };
    let answer = naive.answer(rule);
    let (holds, oldest) = (answer.map(|answer| answer.0), answer.map_or(newest, |answer| answer.2));
    Some(Said { holds, newest, oldest, period: Some(period(&past.points)) })
}

fn ask_silence(steps: i64, past: &Past, now: i64) -> Option<Said> {
    let last = past.points.last()?.time;
    let (count, period) = missing(steps, past, now);
    Some(match count {
        0 => Said { holds: Some(false), newest: last, oldest: last, period: None },
        count => Said {
            holds: Some(true),
            newest: last + period * (count + 1),
            oldest: last + period * (count - steps + 2),
            period: None,
        },
    })
}

/// Holds if it does for one series, and does not if that is known of all; who has stopped does not count. Of several
/// that say the same, the newest tells, and of these the one that looks back least.
fn one_answer(said: &[Said], reference: i64) -> Option<Answer> {
    let fresh = said.iter().filter(|said| said.period.is_none_or(|period| said.newest >= reference - 2 * period));
    let rank = |said: &&Said| (said.holds == Some(true), said.holds.is_none(), said.newest, said.oldest);
    let said = fresh.max_by_key(rank)?;
    said.holds.map(|holds| Answer { holds, newest: said.newest, oldest: said.oldest })
}

fn missing(steps: i64, past: &Past, now: i64) -> (i64, i64) {
    let period = period(&past.points);
    if past.points.is_empty() {
        return (0, period);
    }
    // A point is missing when it is a period late.
    let count = (1..).take_while(|number| past.heard + period * (number + 1) <= now).count() as i64;
    (count / steps * steps, period)
}

fn period(points: &[Point]) -> i64 {
    let newest = &points[points.len().saturating_sub(4)..];
    newest.windows(2).map(|pair| pair[1].time - pair[0].time).min().unwrap_or(0).max(STEP)
}
