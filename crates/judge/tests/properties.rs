//! Properties: equal to a naive look at the whole history; nothing lost or repeated in any interleaving of points, rule
//! changes and restarts; a change of rules binds the touched series anew, and only those need it; no text panics.

mod support;

use judge::{Judge, Options, RuleId, RuleSet, Semantics, check};
use model::{CounterType, Event, EventRule, Expression, Point, Rules, SeriesId, Status};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use support::naive::{Naive, NaiveEvent};
use support::{Series, World};

type Rule = model::Strategy;

const BASE: i64 = 1_600_002_000;
const STEP: u32 = 60;
const ONE_ARGUMENT: [&str; 8] = ["all", "max", "min", "sum", "avg", "diff", "pdiff", "stddev"];
const TWO_ARGUMENTS: [&str; 3] = ["lookup", "kdiff", "kpdiff"];
const OPERATORS: [&str; 7] = ["=", "==", "!=", "<", "<=", ">", ">="];

fn functions(n_max: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => (prop::sample::select(&ONE_ARGUMENT[..]), 1..=n_max).prop_map(|(name, n)| format!("{name}(#{n})")),
        1 => (prop::sample::select(&TWO_ARGUMENTS[..]), 1..=n_max, 1..=n_max)
            .prop_map(|(name, a, b)| format!("{name}(#{},{})", a.min(b), a.max(b))),
    ]
}

fn rule(n_max: u32) -> impl Strategy<Value = Rule> {
    (functions(n_max), prop::sample::select(&OPERATORS[..]), -8..9i32, -1..4i32).prop_map(
        |(func, operator, right, max_step)| Rule {
            metric: "m".into(),
            func,
            operator: operator.into(),
            right_value: f64::from(right) / 2.0,
            max_step,
            ..Rule::default()
        },
    )
}

fn rules(n_max: u32) -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(n_max), 1..4).prop_map(|mut rules| {
        rules.iter_mut().zip(1..).for_each(|(rule, id)| rule.id = id);
        rules
    })
}

fn of_host(rules: &[Rule]) -> Rules {
    let list: Vec<Arc<Rule>> = rules.iter().cloned().map(Arc::new).collect();
    Rules { version: 1, hosts: HashMap::from([("h".to_string(), list.into())]), expressions: Vec::new() }
}

/// Distances in steps and value changes; for counters a change below zero is a reset.
fn walk(is_dirty: bool) -> impl Strategy<Value = Vec<(i64, i32)>> {
    let distance = if is_dirty { prop_oneof![8 => Just(1i64), 1 => 2..9i64].boxed() } else { (1..3i64).boxed() };
    prop::collection::vec((distance, -4..9i32), 1..60)
}

fn points_of(walk: &[(i64, i32)], counter_type: CounterType, is_dirty: bool) -> Vec<Point> {
    let (mut time, mut counter) = (BASE, 0.0);
    let step = |&(distance, change): &(i64, i32)| {
        time += distance * i64::from(STEP);
        let value = match counter_type {
            CounterType::Gauge => f64::from(change),
            _ => {
                counter += f64::from(if is_dirty { change } else { change.max(0) }) * 60.0;
                counter
            }
        };
        Point { time, value }
    };
    walk.iter().map(step).collect()
}

fn as_naive(event: &Event) -> NaiveEvent {
    let rule = event.strategy_id();
    let is_problem = event.status == Status::Problem;
    NaiveEvent { rule, is_problem, left: event.left_value, step: event.current_step, time: event.time }
}

fn compare_with_naive(
    options: Options,
    rules: &[Rule],
    points: &[Point],
    counter_type: CounterType,
) -> Result<(), TestCaseError> {
    let is_original = options.semantics == Semantics::OpenFalcon;
    let mut naive = Naive {
        counter_type,
        min_interval_s: options.min_interval_s,
        remain: if is_original { 11 } else { usize::MAX },
        believes_lost_events: is_original,
        history: Vec::new(),
        last: Vec::new(),
    };
    let mut world = World::new(options);
    world.load(&of_host(rules));
    let series = world.add(Series::new("h", "m", "a=1", counter_type, STEP));
    for point in points {
        let sent: Vec<NaiveEvent> = world.push(series, *point, point.time + 7).iter().map(as_naive).collect();
        prop_assert_eq!(sent, naive.push(*point, point.time + 7, rules), "at {}", point.time);
    }
    Ok(())
}

fn counter_types() -> impl Strategy<Value = CounterType> {
    prop::sample::select(vec![CounterType::Gauge, CounterType::Counter, CounterType::Derive])
}

fn text() -> impl Strategy<Value = String> {
    let near = "(all|lookup|kdiff|sum)[(\\[]?#?[+-]?[0-9]{0,20},?[0-9]{0,4}[)\\]]?";
    prop_oneof![near, "\\PC{0,20}", ".{0,12}#.{0,12}", functions(130)]
}

proptest! {
    #![proptest_config(support::cases(600))]

    #[test]
    fn open_falcon_equals_the_naive_judge(
        rules in rules(12), walk in walk(true), counter_type in counter_types(), min_interval_s in prop::sample::select(vec![0, 300]),
    ) {
        let options = Options { semantics: Semantics::OpenFalcon, min_interval_s, ..Options::default() };
        compare_with_naive(options, &rules, &points_of(&walk, counter_type, true), counter_type)?;
    }

    /// Where nothing is unknown, Hawkeye's results are the original's, with any N.
    #[test]
    fn hawkeye_equals_the_naive_judge_on_whole_histories(
        rules in rules(30), walk in walk(false), counter_type in counter_types(), min_interval_s in prop::sample::select(vec![0, 300]),
    ) {
        let options = Options { semantics: Semantics::Hawkeye, min_interval_s, ..Options::default() };
        compare_with_naive(options, &rules, &points_of(&walk, counter_type, false), counter_type)?;
    }

    /// Restarts between any two points change nothing, whether the events of the last point were durable or not: a lost
    /// first PROBLEM or recovery is made again. (A lost repeat comes with a later point, so there is one PROBLEM here.)
    #[test]
    fn restarts_lose_and_repeat_nothing(
        rules in rules(6), walk in walk(true), counter_type in counter_types(), restarts in prop::collection::vec((any::<bool>(), any::<bool>()), 60),
    ) {
        let rules: Vec<Rule> = rules.into_iter().map(|rule| Rule { max_step: 1, ..rule }).collect();
        let rules = of_host(&rules);
        let mut calm = World::new(Options::default());
        let mut shaken = World::new(Options::default());
        for world in [&mut calm, &mut shaken] {
            world.load(&rules);
            world.add(Series::new("h", "m", "", counter_type, STEP));
        }
        for (point, (restart, lose)) in points_of(&walk, counter_type, true).into_iter().zip(restarts) {
            calm.push(SeriesId(0), point, point.time);
            let made = shaken.push(SeriesId(0), point, point.time).len();
            if restart {
                shaken.restart(&rules, if lose { made } else { 0 }, point.time + 30);
            }
            prop_assert_eq!(&shaken.events, &calm.events);
        }
    }

    /// With repeats: nothing differs as long as what was sent is durable.
    #[test]
    fn restarts_keep_steps_and_times(
        rules in rules(4), walk in walk(true), counter_type in counter_types(), restarts in prop::collection::vec(any::<bool>(), 60),
    ) {
        let rules = of_host(&rules);
        let mut calm = World::new(Options { min_interval_s: 120, ..Options::default() });
        let mut shaken = World::new(calm.options);
        for world in [&mut calm, &mut shaken] {
            world.load(&rules);
            world.add(Series::new("h", "m", "", counter_type, STEP));
        }
        for (point, restart) in points_of(&walk, counter_type, true).into_iter().zip(restarts) {
            calm.push(SeriesId(0), point, point.time);
            shaken.push(SeriesId(0), point, point.time);
            if restart {
                shaken.restart(&rules, 0, point.time + 30);
            }
            prop_assert_eq!(&shaken.events, &calm.events);
        }
    }

    #[test]
    fn any_interleaving_tells_a_sound_story(actions in prop::collection::vec(action(), 1..80)) {
        interleave(&actions)?;
    }

    #[test]
    fn what_is_not_covered_needs_no_binding(old in configuration(), new in configuration()) {
        let mut world = World::new(Options::default());
        for (endpoint, metric, tags) in all_series() {
            world.add(Series::new(endpoint, metric, tags, CounterType::Gauge, STEP));
        }
        for rules in [&old, &new, &old] {
            world.load(rules);
            let mut fresh = Judge::new(world.options);
            fresh.load(RuleSet::compile(rules, &world.options).0);
            for (number, series) in world.table.0.iter().enumerate() {
                let id = SeriesId(number as u32);
                fresh.bind(id, series.key(), series.counter_type);
                prop_assert_eq!(sorted(world.judge.rules_of(id)), sorted(fresh.rules_of(id)), "{:?}", series.key());
                prop_assert_eq!(world.judge.is_bound(id), fresh.is_bound(id));
            }
            prop_assert_eq!(world.judge.stats().bound_pairs, fresh.stats().bound_pairs);
            prop_assert_eq!(world.judge.stats().silences, fresh.stats().silences);
            let joined = |judge: &Judge| {
                let stats = judge.joins().stats();
                (stats.count, stats.carriers, stats.others)
            };
            prop_assert_eq!(joined(&world.judge), joined(&fresh));
            prop_assert_eq!(world.judge.stats().bound_series, fresh.stats().bound_series);
        }
    }

    /// What may be saved is never refused when it is loaded; and nothing panics, whatever the text.
    #[test]
    fn what_is_saved_can_be_loaded(func in text(), operator in prop_oneof![Just("<".to_string()), "[=!<>]{0,3}"], points_max in 0..200u32) {
        let saved = check(&func, &operator, 0.0, points_max);
        let rule = Rule { id: 1, metric: "m".into(), func, operator, max_step: 3, ..Rule::default() };
        for semantics in [Semantics::Hawkeye, Semantics::OpenFalcon] {
            let options = Options { semantics, min_interval_s: 0, points_max, ..Options::default() };
            let mut world = World::new(options);
            let refused = world.load(&of_host(std::slice::from_ref(&rule)));
            if semantics == Semantics::Hawkeye && saved.is_ok() {
                prop_assert_eq!(refused, vec![]);
            }
            let series = world.add(Series::new("h", "m", "", CounterType::Counter, STEP));
            for i in 1..14 {
                world.push(series, Point { time: BASE + i * 60, value: (i % 3) as f64 }, BASE);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Action {
    Push {
        series: usize,
        value: i32,
    },
    SetRule {
        rule: Box<Rule>,
    },
    DropRule {
        id: i64,
    },
    /// Losing the events of the point just before, if a point was just before.
    Restart {
        lose: bool,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let metric = prop::sample::select(vec!["m", "n"]);
    let set = (rule(4), 1..4i64, metric).prop_map(|(rule, id, metric)| Action::SetRule {
        rule: Box::new(Rule { id, metric: metric.into(), max_step: 1, ..rule }),
    });
    prop_oneof![
        12 => (0..4usize, -4..9i32).prop_map(|(series, value)| Action::Push { series, value }),
        2 => set,
        1 => (1..4i64).prop_map(|id| Action::DropRule { id }),
        2 => any::<bool>().prop_map(|lose| Action::Restart { lose }),
    ]
}

/// Four series, three rule ids on two metrics. What was sent must be PROBLEM, OK, PROBLEM, … for each alarm (a dropped
/// rule ends its alarm); and after one more point of each series the open alarms are those whose rule holds.
fn interleave(actions: &[Action]) -> Result<(), TestCaseError> {
    let mut world = World::new(Options::default());
    for (metric, tags) in [("m", ""), ("m", "a=1"), ("n", ""), ("n", "a=1")] {
        world.add(Series::new("h", metric, tags, CounterType::Gauge, STEP));
    }
    let mut rules: BTreeMap<i64, Rule> = BTreeMap::new();
    let mut now = BASE;
    let mut just_made = 0;
    let in_force = |rules: &BTreeMap<i64, Rule>| of_host(&rules.values().cloned().collect::<Vec<_>>());
    let finish = (0..4).map(|series| Action::Push { series, value: 1 });
    for action in actions.iter().cloned().chain(finish) {
        let made = std::mem::take(&mut just_made);
        match action {
            Action::Push { series, value } => {
                now += 10;
                let row = &world.table.0[series];
                let time = row.points.last().map_or(BASE, |point| point.time) + i64::from(STEP);
                let point = Point { time, value: f64::from(value) };
                just_made = world.push(SeriesId(series as u32), point, now.max(time)).len();
            }
            Action::SetRule { rule } => {
                rules.insert(rule.id, *rule);
                world.load(&in_force(&rules));
            }
            Action::DropRule { id } => {
                rules.remove(&id);
                world.load(&in_force(&rules));
            }
            Action::Restart { lose } => world.restart(&in_force(&rules), if lose { made } else { 0 }, now),
        }
        let open = alternating(&world.queue)?;
        prop_assert_eq!(&open, &world.judge.open_problems().map(|p| (p.series, p.rule)).collect::<BTreeSet<_>>());
    }
    for (number, series) in world.table.0.iter().enumerate() {
        let id = SeriesId(number as u32);
        let history = series.points.clone();
        let naive = Naive {
            counter_type: CounterType::Gauge,
            min_interval_s: 300,
            remain: usize::MAX,
            believes_lost_events: false,
            history,
            last: Vec::new(),
        };
        for rule in rules.values().filter(|rule| rule.metric == series.metric) {
            let is_open = world.judge.open_problems().any(|p| (p.series, p.rule) == (id, RuleId::Strategy(rule.id)));
            if let Some((holds, left, _)) = naive.answer(rule).filter(|answer| answer.1.is_finite()) {
                prop_assert_eq!(is_open, holds, "{:?} {} {:?}", rule, left, series.points);
            }
        }
    }
    Ok(())
}

/// The alarms that are open after these events; an error if one is opened or closed twice.
fn alternating(queue: &[(SeriesId, Event)]) -> Result<BTreeSet<(SeriesId, RuleId)>, TestCaseError> {
    let mut open = BTreeSet::new();
    for (series, event) in queue {
        let alarm = (*series, RuleId::of(&event.rule));
        let is_sound = match event.status {
            Status::Problem => open.insert(alarm),
            Status::Ok => open.remove(&alarm),
        };
        prop_assert!(is_sound, "{:?} twice: {:?}", event.status, event);
    }
    Ok(open)
}

fn all_series() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut series = Vec::new();
    for endpoint in ["h1", "h2", "h3"] {
        for metric in ["m", "n"] {
            series.extend(["", "a=1", "a=1,b=2", "endpoint=h1"].map(|tags| (endpoint, metric, tags)));
        }
    }
    series
}

/// Rules with few ids, metrics and tags, so that two of them have much in common.
fn configuration() -> impl Strategy<Value = Rules> {
    let tags = prop::sample::select(vec!["", "a=1", "b=2", "endpoint=h2"]);
    let func = prop::sample::select(vec![
        "all(#1)",
        "all(#1) or nodata(#2)",
        "all(#1) and all(#1) of n",
        "all(#1) of m/b=2 > 5 and all(#1)",
    ]);
    let metric = prop::sample::select(vec!["m", "n"]);
    let strategy = (1..4i64, metric.clone(), tags.clone(), 0..2i32, 0..2i64, func).prop_map(
        |(id, metric, tags, right, tpl, func)| {
            let tags = tags.split_once('=').map(|(k, v)| (k.to_string(), v.to_string())).into_iter().collect();
            let (func, operator) = (func.to_string(), ">".into());
            let right_value = f64::from(right);
            let mut rule =
                Rule { id, metric: metric.into(), tags, func, operator, right_value, max_step: 3, ..Rule::default() };
            rule.tpl.id = tpl;
            Arc::new(rule)
        },
    );
    let expression = strategy.clone().prop_map(|s| {
        let (metric, tags, func, operator) = (s.metric.clone(), s.tags.clone(), s.func.clone(), s.operator.clone());
        let right_value = s.right_value;
        Arc::new(Expression { id: s.id, metric, tags, func, operator, right_value, max_step: 3, ..Default::default() })
    });
    let list = prop::collection::vec(strategy, 0..4);
    let hosts = (list.clone(), list, prop::sample::select(vec!["h2", "h3"]));
    let expressions = prop::collection::vec(expression, 0..3);
    (hosts, expressions).prop_map(|((first, second, other), expressions)| Rules {
        version: 1,
        hosts: HashMap::from([("h1".to_string(), first.into()), (other.to_string(), second.into())]),
        expressions,
    })
}

/// The order of expressions is not defined, and a list that follows a change keeps its old one.
fn sorted(rules: Vec<EventRule>) -> Vec<String> {
    let mut shown: Vec<String> = rules.iter().map(|rule| format!("{rule:?}")).collect();
    shown.sort();
    shown
}
