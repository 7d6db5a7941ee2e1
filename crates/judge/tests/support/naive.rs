//! A naive judge: at each point it looks at the whole history of the series again, and keeps the last event of each
//! rule.
//!
//! Written from docs/open-falcon/judge.md alone, to be compared with the real one. It knows no holes, resets or unknown
//! values.

use model::{CounterType, Point, Strategy};

#[derive(Clone, Debug, PartialEq)]
pub struct NaiveEvent {
    pub rule: i64,
    pub is_problem: bool,
    pub left: f64,
    pub step: i32,
    pub time: i64,
}

pub struct Naive {
    pub counter_type: CounterType,
    pub min_interval_s: i64,
    /// Points that are kept at most.
    pub remain: usize,
    /// An event whose value is not finite: never happened, or (as in the original) believed to be sent.
    pub believes_lost_events: bool,
    /// Oldest first.
    pub history: Vec<Point>,
    /// Last event of each rule that has one.
    pub last: Vec<NaiveEvent>,
}

/// What a function says: whether it holds, its value, and the time of the oldest value used.
pub type Answer = (bool, f64, i64);

impl Naive {
    pub fn push(&mut self, point: Point, now: i64, rules: &[Strategy]) -> Vec<NaiveEvent> {
        self.history.push(point);
        rules.iter().filter_map(|rule| self.judge(rule, now)).filter(|event| event.left.is_finite()).collect()
    }

    fn judge(&mut self, rule: &Strategy, now: i64) -> Option<NaiveEvent> {
        let (holds, left, oldest) = self.answer(rule)?;
        if !left.is_finite() && !self.believes_lost_events {
            return None;
        }
        let last = self.last.iter().find(|event| event.rule == rule.id && event.is_problem).cloned();
        let step = match (holds, &last) {
            (true, None) if rule.max_step != 0 => 1,
            (true, Some(last)) => {
                let is_new = oldest > last.time && now - last.time >= self.min_interval_s;
                if last.step >= rule.max_step || !is_new {
                    return None;
                }
                last.step + 1
            }
            (false, Some(_)) => 1,
            _ => return None,
        };
        let time = self.history.last().expect("a point was pushed").time;
        let event = NaiveEvent { rule: rule.id, is_problem: holds, left, step, time };
        self.last.retain(|other| other.rule != rule.id);
        self.last.push(event.clone());
        Some(event)
    }

    /// The function of `rule` over the newest points; `None` if there are too few.
    pub fn answer(&self, rule: &Strategy) -> Option<Answer> {
        let (name, a, b) = arguments(&rule.func);
        let test = |left: f64| compare(left, &rule.operator, rule.right_value);
        let wanted = match name {
            "diff" | "pdiff" => a + 1,
            "lookup" => b,
            "kdiff" | "kpdiff" => a + b,
            _ => a,
        };
        let values = self.values(wanted)?;
        let v: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
        let (holds, left) = match name {
            "all" => (!v.iter().any(|x| !test(*x)), v[0]),
            "lookup" => (a > 0 && v.iter().filter(|x| test(**x)).count() >= a, v[0]),
            "max" => single(v.iter().copied().reduce(f64::max)?, test),
            "min" => single(v.iter().copied().reduce(f64::min)?, test),
            "sum" => single(v.iter().fold(0.0, |s, x| s + x), test),
            "avg" => single(v.iter().fold(0.0, |s, x| s + x) / v.len() as f64, test),
            "diff" => first_or_last(v[1..].iter().map(|old| v[0] - old).collect(), test),
            "pdiff" => {
                let bases = v[1..].iter().filter(|old| **old != 0.0);
                first_or_last(bases.map(|old| (v[0] - old) / old * 100.0).collect(), test)
            }
            "stddev" => {
                let mean = v.iter().fold(0.0, |s, x| s + x) / v.len() as f64;
                let squares = v.iter().fold(0.0, |s, x| s + (x - mean) * (x - mean));
                let sigma = (squares / v.len() as f64).sqrt();
                (v[0] < mean - rule.right_value * sigma || v[0] > mean + rule.right_value * sigma, v[0])
            }
            "kdiff" => pairs(&v, a, b, |new, old| new - old, test),
            "kpdiff" => pairs(&v, a, b, |new, old| (new - old) / new * 100.0, test),
            _ => panic!("unknown function {name}"),
        };
        Some((holds, left, values.last()?.0))
    }

    /// Times and values, newest first.
    fn values(&self, wanted: usize) -> Option<Vec<(i64, f64)>> {
        let kept = &self.history[self.history.len().saturating_sub(self.remain)..];
        let mut all: Vec<(i64, f64)> = match self.counter_type {
            CounterType::Gauge => kept.iter().map(|p| (p.time, p.value)).collect(),
            _ => kept
                .windows(2)
                .map(|w| (w[1].time, (w[1].value - w[0].value) / (w[1].time - w[0].time) as f64))
                .collect(),
        };
        all.reverse();
        (all.len() >= wanted).then(|| all[..wanted].to_vec())
    }
}

fn arguments(func: &str) -> (&str, usize, usize) {
    let (name, rest) = func.split_once("(#").expect("name(#…");
    let mut numbers = rest.trim_end_matches(')').split(',').map(|number| number.parse().expect("number"));
    (name, numbers.next().expect("a number"), numbers.next().unwrap_or(0))
}

fn compare(left: f64, operator: &str, right: f64) -> bool {
    match operator {
        "=" | "==" => (left - right).abs() < 0.0001,
        "!=" => (left - right).abs() > 0.0001,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        _ => false,
    }
}

fn single(left: f64, test: impl Fn(f64) -> bool) -> (bool, f64) {
    (test(left), left)
}

fn first_or_last(differences: Vec<f64>, test: impl Fn(f64) -> bool) -> (bool, f64) {
    match differences.iter().find(|d| test(**d)) {
        Some(first) => (true, *first),
        None => (false, differences.last().copied().unwrap_or(0.0)),
    }
}

fn pairs(v: &[f64], k: usize, n: usize, difference: fn(f64, f64) -> f64, test: impl Fn(f64) -> bool) -> (bool, f64) {
    let mut left = 0.0;
    for i in 0..k {
        if v[i] == 0.0 {
            return (false, left);
        }
        for new in &v[..n] {
            left = difference(*new, v[v.len() - 1 - i]);
            if !test(left) {
                return (false, left);
            }
        }
    }
    (true, left)
}
