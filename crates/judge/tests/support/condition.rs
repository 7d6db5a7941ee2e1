//! A naive look at conditions: the text as a tree, and at each point the whole history of all series again.
//!
//! Written from docs/rules.md alone. What is not known is tried both ways: the answer is known if it is the same.

use super::naive::Naive;
use model::{CounterType, Point, Strategy};
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
pub const STEP: i64 = 60;

/// A term's answer, and the times of the newest and oldest points it used; `None` in place of a period never ages.
#[derive(Clone, Copy, Debug)]
struct Answer {
    holds: bool,
    newest: i64,
    oldest: i64,
    period: Option<i64>,
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

    /// How many points are missing, in multiples of N, for each `nodata`.
    pub fn missing(&self, history: &History, now: i64) -> Vec<i64> {
        match self {
            Condition::Values { .. } => Vec::new(),
            Condition::Silence { steps, of } => vec![missing(*steps, of.unwrap_or(OWN), history, now).0],
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
        let mut answers = Vec::new();
        self.answers(history, now, is_open, &mut answers);
        let reference = answers.iter().flatten().map(|answer| answer.newest).max()?;
        let fresh = |answer: &Answer| answer.period.is_none_or(|period| answer.newest >= reference - 2 * period);
        let answers: Vec<Option<Answer>> = answers.into_iter().map(|answer| answer.filter(fresh)).collect();
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

    fn answers(&self, history: &History, now: i64, is_open: bool, out: &mut Vec<Option<Answer>>) {
        match self {
            Condition::Values { func, operator, right, recover, of } => {
                let past = &history[of.unwrap_or(OWN)];
                let right = recover.filter(|_| is_open).unwrap_or(*right);
                let naive = Naive {
                    counter_type: CounterType::Gauge,
                    min_interval_s: 0,
                    remain: usize::MAX,
                    believes_lost_events: false,
                    history: past.points.clone(),
                    last: Vec::new(),
                };
                let (func, operator, right_value) = (func.clone(), operator.to_string(), f64::from(right));
                let answer = naive.answer(&Strategy { func, operator, right_value, ..Strategy::default() });
                out.push(answer.map(|(holds, _, oldest)| {
                    let newest = past.points.last().expect("there is an answer").time;
                    Answer { holds, newest, oldest, period: Some(period(&past.points)) }
                }));
            }
            Condition::Silence { steps, of } => {
                let past = &history[of.unwrap_or(OWN)];
                let (count, period) = missing(*steps, of.unwrap_or(OWN), history, now);
                out.push(past.points.last().map(|last| match count {
                    0 => Answer { holds: false, newest: last.time, oldest: last.time, period: None },
                    count => Answer {
                        holds: true,
                        newest: last.time + period * (count + 1),
                        oldest: last.time + period * (count - steps + 2),
                        period: None,
                    },
                }));
            }
            Condition::And(a, b) | Condition::Or(a, b) => {
                a.answers(history, now, is_open, out);
                b.answers(history, now, is_open, out);
            }
        }
    }
}

fn missing(steps: i64, name: &str, history: &History, now: i64) -> (i64, i64) {
    let past = &history[name];
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
