//! What scripts cannot tell: shared alarms, limits, and what becomes of alarms whose rule or series goes away.

mod support;

use judge::{OpenProblem, Options, PointSource, RuleId, RuleSet, Semantics};
use model::{CounterType, Expression, Point, Rules, SeriesId, SeriesKey, Strategy, Template};
use std::collections::HashMap;
use std::sync::Arc;
use support::{Series, World};

fn strategy(id: i64, template: i64) -> Arc<Strategy> {
    let tpl = Template { id: template, ..Template::default() };
    let (func, operator) = ("all(#1)".to_string(), ">".to_string());
    Arc::new(Strategy {
        id,
        metric: "m".into(),
        func,
        operator,
        right_value: 5.0,
        max_step: 3,
        tpl,
        ..Strategy::default()
    })
}

fn of_host(strategies: &[Arc<Strategy>]) -> Rules {
    Rules { version: 1, hosts: HashMap::from([("h".to_string(), strategies.into())]), expressions: Vec::new() }
}

fn world(options: Options, strategies: &[Arc<Strategy>]) -> World {
    let mut world = World::new(options);
    world.load(&of_host(strategies));
    world.add(Series::new("h", "m", "", CounterType::Gauge, 60));
    world
}

const SERIES: SeriesId = SeriesId(0);
const PROBLEM: OpenProblem = OpenProblem { series: SERIES, rule: RuleId::Strategy(1), time: 60, current_step: 1 };

fn push(world: &mut World, time: i64, value: f64) -> usize {
    world.push(SERIES, Point { time, value }, time).len()
}

/// A host may have one strategy from two templates; its event id is the same, so the alarm is one.
#[test]
fn variants_of_a_strategy_share_an_alarm() {
    let mut world = world(Options::default(), &[strategy(1, 7), strategy(1, 8)]);
    assert_eq!(world.judge.stats().bound_pairs, 2);
    assert_eq!(push(&mut world, 60, 9.0), 1);
    assert_eq!(push(&mut world, 120, 1.0), 1);
    assert_eq!(push(&mut world, 180, 9.0), 1);
}

#[test]
fn a_rule_that_goes_says_what_it_leaves_open() {
    let mut world = world(Options::default(), &[strategy(1, 7)]);
    push(&mut world, 60, 9.0);
    assert_eq!(world.judge.open_problems().collect::<Vec<_>>(), [PROBLEM]);
    let (set, _) = RuleSet::compile(&of_host(&[]), &world.options);
    let touched = world.judge.load(set);
    assert_eq!(touched.closed(), [PROBLEM]);
    assert_eq!(world.judge.stats().open_problems, 0);
}

#[test]
fn a_series_that_loses_its_rule_says_what_it_leaves_open() {
    let mut world = world(Options::default(), &[strategy(1, 7)]);
    push(&mut world, 60, 9.0);
    let mut rules = of_host(&[]);
    rules.hosts.insert("other".into(), [strategy(1, 7)].into());
    let (set, _) = RuleSet::compile(&rules, &world.options);
    let touched = world.judge.load(set);
    assert_eq!(touched.closed(), []);
    let series = &world.table.0[0];
    assert!(touched.covers(series.key()));
    assert_eq!(world.judge.bind(SERIES, series.key(), series.counter_type), [PROBLEM]);
    assert!(!world.judge.is_bound(SERIES));
}

#[test]
fn a_series_that_goes_says_what_it_leaves_open() {
    for semantics in [Semantics::Hawkeye, Semantics::OpenFalcon] {
        let mut world = world(Options { semantics, ..Options::default() }, &[strategy(1, 7)]);
        push(&mut world, 60, 9.0);
        assert_eq!(world.judge.unbind(SERIES), [PROBLEM]);
        assert_eq!(world.judge.unbind(SERIES), []);
        let stats = world.judge.stats();
        assert_eq!((stats.bound_series, stats.bound_pairs, stats.open_problems), (0, 0, 0));
    }
}

#[test]
fn an_event_is_restored_only_to_a_series_that_has_the_rule() {
    let mut other = world(Options::default(), &[strategy(1, 7)]);
    push(&mut other, 60, 9.0);
    let event = other.events[0].clone();
    let mut world = world(Options::default(), &[strategy(2, 7)]);
    assert!(!world.judge.restore(SERIES, &event));
    assert!(!world.judge.restore(SeriesId(5), &event));
    world.load(&of_host(&[strategy(1, 7)]));
    assert!(world.judge.restore(SERIES, &event));
    assert_eq!(world.judge.open_problems().collect::<Vec<_>>(), [PROBLEM]);
}

#[test]
fn rules_beyond_the_limit_of_a_series_are_counted() {
    let mut world = World::new(Options::default());
    let expression = |id| {
        let tags = [("endpoint".to_string(), "h".to_string())].into();
        let (func, operator) = ("all(#1)".to_string(), ">".to_string());
        Arc::new(Expression { id, metric: "m".into(), tags, func, operator, max_step: 1, ..Expression::default() })
    };
    world.load(&Rules { version: 1, hosts: HashMap::new(), expressions: (0..1010).map(expression).collect() });
    world.add(Series::new("h", "m", "", CounterType::Gauge, 60));
    let stats = world.judge.stats();
    assert_eq!((stats.bound_pairs, stats.pairs_over_limit), (1000, 10));
    assert_eq!(push(&mut world, 60, 9.0), 1000);
}

/// A window that has the points but not the name.
struct Nameless<'a>(&'a support::Table);

impl PointSource for Nameless<'_> {
    fn tail(&self, series: SeriesId, count: usize, out: &mut Vec<Point>) {
        self.0.tail(series, count, out);
    }

    fn meta(&self, series: SeriesId) -> Option<(CounterType, u32)> {
        self.0.meta(series)
    }

    fn key(&self, _: SeriesId, _: &mut dyn FnMut(SeriesKey<'_>)) {}
}

/// A state never runs ahead of its event.
#[test]
fn without_an_event_the_state_stays() {
    let mut world = world(Options::default(), &[strategy(1, 7)]);
    world.table.0[0].points.push(Point { time: 60, value: 9.0 });
    let mut events = Vec::new();
    world.judge.catch_up(SERIES, CounterType::Gauge, 60, &Nameless(&world.table), 60, &mut events);
    assert_eq!((events.len(), world.judge.stats().open_problems), (0, 0));
    world.judge.catch_up(SERIES, CounterType::Gauge, 60, &world.table, 60, &mut events);
    assert_eq!((events.len(), world.judge.stats().open_problems), (1, 1));
}

#[test]
fn a_window_without_points_makes_nothing() {
    let mut world = world(Options::default(), &[strategy(1, 7)]);
    let mut events = Vec::new();
    world.judge.catch_up(SERIES, CounterType::Counter, 60, &world.table, 60, &mut events);
    assert_eq!(events, []);
}

/// An exception that pauses a strategy for a tag ends the alarm of the series that has the tag, and no other.
#[test]
fn a_tag_that_is_paused_ends_its_alarm() {
    let mut world = World::new(Options::default());
    world.load(&of_host(&[strategy(1, 7)]));
    for tags in ["mount=/", "mount=/data"] {
        world.add(Series::new("h", "m", tags, CounterType::Gauge, 60));
    }
    for series in 0..2 {
        assert_eq!(world.push(SeriesId(series), Point { time: 60, value: 9.0 }, 60).len(), 1);
    }
    let except = vec![("mount".to_string(), "/data".to_string())];
    let scope = Some(Box::new(model::rule::TagScope { only: None, except }));
    let (set, _) =
        RuleSet::compile(&of_host(&[Arc::new(Strategy { scope, ..Strategy::clone(&strategy(1, 7)) })]), &world.options);
    let touched = world.judge.load(set);
    assert_eq!(touched.closed(), []);
    let closed: Vec<_> = (0..2)
        .map(|id| {
            let series = &world.table.0[id];
            assert!(touched.covers(series.key()));
            world.judge.bind(SeriesId(id as u32), series.key(), series.counter_type)
        })
        .collect();
    assert_eq!(closed, [vec![], vec![OpenProblem { series: SeriesId(1), ..PROBLEM }]]);
    assert!(world.judge.is_bound(SERIES) && !world.judge.is_bound(SeriesId(1)));
}
