//! Joins seen from inside: who waits for whom, and what happens at the bound of a join.

use super::*;
use crate::{Judge, Options, PointSource};
use model::{CounterType, EventRule, Point, Rules, Sample, Status, Strategy, Tags};
use std::sync::mpsc;
use std::time::Duration;

const NOW: i64 = 1_600_000_020;

/// Each series has one point.
struct Newest(f64);

impl PointSource for Newest {
    fn tail(&self, _: SeriesId, _: usize, out: &mut Vec<Point>) {
        out.push(Point { time: NOW, value: self.0 });
    }

    fn meta(&self, _: SeriesId) -> Option<(CounterType, u32)> {
        Some((CounterType::Gauge, 60))
    }

    fn key(&self, _: SeriesId, _: &mut dyn FnMut(SeriesKey<'_>)) {
        unreachable!("a condition over several series has its texts in its join")
    }
}

/// One condition for several endpoints, over the metric `a` and others.
fn rule_set(endpoints: &[&str], func: &str) -> Arc<RuleSet> {
    let (metric, operator) = ("a".to_string(), ">".to_string());
    let strategy =
        Strategy { id: 1, metric, func: func.into(), operator, right_value: 5.0, max_step: 3, ..Strategy::default() };
    let list: Arc<[Arc<Strategy>]> = [Arc::new(strategy)].into();
    let hosts = endpoints.iter().map(|endpoint| (endpoint.to_string(), list.clone())).collect();
    let rules = Rules { version: 1, hosts, expressions: Vec::new() };
    let (set, refused) = RuleSet::compile(&rules, &Options::default());
    assert_eq!(refused, []);
    set
}

/// A judge of several endpoints with one condition over the metrics `a` and `b`.
fn judge(endpoints: &[&str], func: &str) -> Judge {
    let mut judge = Judge::new(Options::default());
    judge.load(rule_set(endpoints, func));
    judge
}

fn bind(judge: &mut Judge, series: u32, endpoint: &str, metric: &str, tags: &str) -> Vec<OpenProblem> {
    let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
    judge.bind(SeriesId(series), key, CounterType::Gauge)
}

fn point(judge: &mut Judge, series: u32, value: f64) -> Vec<Event> {
    let sample = Sample { series: SeriesId(series), point: Point { time: NOW, value } };
    let mut events = Vec::new();
    judge.on_point(sample, CounterType::Gauge, 60, &Newest(value), NOW, &mut events);
    assert!(events.is_empty(), "what the joins decide comes out of them");
    judge.joins().hand_over(|joined| events.append(joined));
    events
}

#[test]
fn two_endpoints_do_not_wait_for_each_other() {
    let mut judge = judge(&["g", "h"], "all(#1) and all(#1) of b > 5");
    for (series, (endpoint, metric)) in [("g", "a"), ("g", "b"), ("h", "a"), ("h", "b")].into_iter().enumerate() {
        bind(&mut judge, series as u32, endpoint, metric, "");
    }
    let (joins, held) = (judge.joins.clone(), judge.seats[&SeriesId(0)][0].clone());
    let _table = joins.table.lock();
    let _join = held.join.members.lock();
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        assert_eq!(point(&mut judge, 2, 9.0), []);
        let events = point(&mut judge, 3, 9.0);
        done.send(events).expect("somebody waits");
    });
    let events = wait.recv_timeout(Duration::from_secs(60)).expect("the point of another endpoint waits for a lock");
    let seen: Vec<_> = events.iter().map(|event| (event.status, event.endpoint.as_str())).collect();
    assert_eq!(seen, [(Status::Problem, "h")]);
}

#[test]
fn a_full_join_refuses_and_counts() {
    let mut judge = judge(&["h"], "all(#1) and all(#1) of b > 5");
    for series in 0..SEATS_MAX as u32 {
        bind(&mut judge, series, "h", "a", &format!("k={series}"));
    }
    let full = judge.joins().stats();
    assert_eq!((full.carriers, full.others, full.seats_refused), (SEATS_MAX, 0, 0));
    // Bound again, a member keeps its seat.
    bind(&mut judge, 0, "h", "a", "k=0");
    let beyond = SEATS_MAX as u32;
    bind(&mut judge, beyond, "h", "a", "k=more");
    bind(&mut judge, beyond + 1, "h", "b", "");
    let stats = judge.joins().stats();
    assert_eq!((stats.carriers, stats.others, stats.seats_refused), (SEATS_MAX, 0, 2));
    assert!(!judge.is_joined(SeriesId(beyond)));
    // Nobody asks `b`, so nothing is decided; and nobody stumbles over those without a seat.
    assert_eq!(point(&mut judge, beyond, 9.0), []);
    assert_eq!(point(&mut judge, beyond + 1, 9.0), []);
    // Who leaves makes room for the next that is bound.
    assert_eq!(judge.unbind(SeriesId(7)), []);
    bind(&mut judge, beyond + 1, "h", "b", "");
    assert_eq!(point(&mut judge, beyond + 1, 9.0), []);
    assert_eq!(point(&mut judge, 0, 9.0).len(), 1);
    assert_eq!(judge.joins().stats().seats_refused, 2);
}

#[test]
fn an_alarm_without_a_seat_is_closed() {
    let mut judge = judge(&["h"], "all(#1) and all(#1) of b > 5");
    for series in 0..SEATS_MAX as u32 {
        bind(&mut judge, series, "h", "a", &format!("k={series}"));
    }
    let beyond = SEATS_MAX as u32;
    bind(&mut judge, beyond, "h", "a", "k=more");
    let rule = judge.rules_of(SeriesId(beyond)).remove(0);
    let open = |series| OpenProblem { rule: RuleId::Strategy(1), time: NOW, series: SeriesId(series), current_step: 1 };
    let event = event(rule);
    // From the queue, after a restart: whoever has no seat does not take it back.
    assert!(!judge.restore(SeriesId(beyond), &event));
    assert!(judge.restore(SeriesId(0), &event));
    assert_eq!(judge.open_problems().collect::<Vec<_>>(), [open(0)]);
    // From a time when the rule was about one series.
    judge.states.set(open(beyond));
    assert_eq!(bind(&mut judge, beyond, "h", "a", "k=more"), [open(beyond)]);
    assert_eq!(judge.open_problems().collect::<Vec<_>>(), [open(0)]);
}

fn event(rule: EventRule) -> Event {
    let (endpoint, tags, explanation) = ("h".to_string(), "k=more".to_string(), None);
    Event { rule, status: Status::Problem, endpoint, tags, left_value: 9.0, current_step: 1, time: NOW, explanation }
}

/// A condition that loses a term is in force as soon as its first series is bound to it anew; the series that the term
/// asked stands in the join until it is bound, too, and points come in between.
#[test]
fn a_member_of_a_term_that_went_says_nothing_until_it_is_bound_anew() {
    let mut judge = judge(&["h"], "all(#1) and all(#1) of b > 5 and all(#1) of c > 5");
    for (series, metric) in ["a", "b", "c"].into_iter().enumerate() {
        bind(&mut judge, series as u32, "h", metric, "");
    }
    judge.load(rule_set(&["h"], "all(#1) and all(#1) of b > 5"));
    bind(&mut judge, 0, "h", "a", "");
    point(&mut judge, 0, 9.0);
    point(&mut judge, 2, 9.0);
    bind(&mut judge, 1, "h", "b", "");
    bind(&mut judge, 2, "h", "c", "");
    point(&mut judge, 0, 9.0);
    let events = point(&mut judge, 1, 9.0);
    assert_eq!(events.iter().map(|event| event.status).collect::<Vec<_>>(), [Status::Problem]);
}

/// Tag of a part, the tags that it has not, and its right value.
type Part = (Option<(String, String)>, Vec<(String, String)>, f64);

/// A series that comes into another part of its strategy keeps its alarm, and each part decides with its own values.
#[test]
fn parts_of_a_strategy_have_joins_of_their_own() {
    let tag = ("k".to_string(), "1".to_string());
    let set = |parts: &[Part]| {
        let part = |(only, except, right_value): &Part| {
            let scope = model::rule::TagScope { only: only.clone(), except: except.clone() };
            let scope = (scope != model::rule::TagScope::default()).then(|| Box::new(scope));
            let (func, operator) = ("all(#1) and all(#1) of b > 5".to_string(), ">".to_string());
            let metric = "a".to_string();
            Arc::new(Strategy {
                id: 1,
                metric,
                func,
                operator,
                right_value: *right_value,
                max_step: 3,
                scope,
                ..Strategy::default()
            })
        };
        let list: Arc<[Arc<Strategy>]> = parts.iter().map(part).collect();
        let hosts = [("h".to_string(), list)].into();
        RuleSet::compile(&Rules { version: 1, hosts, expressions: Vec::new() }, &Options::default()).0
    };
    let mut judge = Judge::new(Options::default());
    let bind_all = |judge: &mut Judge| {
        let closed = ["k=1", "k=2"].map(|tags| bind(judge, u32::from(tags == "k=2"), "h", "a", tags));
        assert_eq!((closed, bind(judge, 2, "h", "b", "")), ([vec![], vec![]], vec![]));
    };
    judge.load(set(&[(None, vec![], 5.0)]));
    bind_all(&mut judge);
    assert_eq!(point(&mut judge, 2, 9.0).len(), 0);
    assert_eq!((point(&mut judge, 0, 7.0).len(), point(&mut judge, 1, 7.0).len()), (1, 1));
    let parts = [(None, vec![tag.clone()], 5.0), (Some(tag), vec![], 8.0)];
    judge.load(set(&parts));
    bind_all(&mut judge);
    assert_eq!(judge.open_problems().count(), 2, "both series keep their alarm");
    assert_eq!((judge.joins().stats().count, judge.joins().stats().carriers), (2, 2));
    for series in 0..3 {
        judge.refill(SeriesId(series), CounterType::Gauge, 60, &Newest(if series == 2 { 9.0 } else { 7.0 }), NOW);
    }
    let ended = point(&mut judge, 0, 7.0);
    assert_eq!(
        ended.iter().map(|event| (event.status, event.tags.as_str())).collect::<Vec<_>>(),
        [(Status::Ok, "k=1")]
    );
    assert_eq!(judge.open_problems().count(), 1);
    judge.load(set(&[(None, vec![], 5.0)]));
    bind_all(&mut judge);
    assert_eq!((judge.joins().stats().count, judge.open_problems().count()), (1, 1));
    assert_eq!(judge.unbind(SeriesId(1)).len(), 1);
}
