//! A judge over windows of its own says what one over all points says, on random histories, also over restarts.

mod support;

use judge::{Fate, Options, Semantics, WINDOWS_MAGIC, end_windows};
use model::{CounterType, Event, Point, Rules, Status, Strategy as Rule};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use support::windowed::Windowed;
use support::{Series, World};

const BASE: i64 = 1_600_002_000;
const STEP: u32 = 60;
const FUNCTIONS: [&str; 11] =
    ["all", "max", "min", "sum", "avg", "diff", "pdiff", "stddev", "lookup", "kdiff", "kpdiff"];

fn rule(n_max: u32) -> impl Strategy<Value = Rule> {
    let function = (prop::sample::select(&FUNCTIONS[..]), 1..=n_max, 1..=n_max).prop_map(|(name, a, b)| match name {
        "lookup" | "kdiff" | "kpdiff" => format!("{name}(#{},{})", a.min(b), a.max(b)),
        _ => format!("{name}(#{a})"),
    });
    let condition = prop_oneof![
        4 => function.clone(),
        1 => (function.clone(), function).prop_map(|(one, other)| format!("{one} and {other} > -2")),
    ];
    let operators = prop::sample::select(vec!["=", "!=", "<", "<=", ">", ">="]);
    (condition, operators, -8..9i32, -1..4i32).prop_map(|(func, operator, right, max_step)| Rule {
        metric: "m".into(),
        func,
        operator: operator.into(),
        right_value: f64::from(right) / 2.0,
        max_step,
        ..Rule::default()
    })
}

fn rules(n_max: u32) -> impl Strategy<Value = Rules> {
    prop::collection::vec(rule(n_max), 1..4).prop_map(|mut rules| {
        rules.iter_mut().zip(1..).for_each(|(rule, id)| rule.id = id);
        let list: Vec<Arc<Rule>> = rules.into_iter().map(Arc::new).collect();
        Rules { version: 1, hosts: HashMap::from([("h".to_string(), list.into())]), expressions: Vec::new() }
    })
}

/// Distances in steps and value changes.
fn walk(distances: impl Strategy<Value = i64>) -> impl Strategy<Value = Vec<(i64, i32)>> {
    prop::collection::vec((distances, -4..9i32), 1..60)
}

fn points_of(walk: &[(i64, i32)], counter_type: CounterType) -> Vec<Point> {
    let (mut time, mut counter) = (BASE, 0.0);
    let point = |&(distance, change): &(i64, i32)| {
        time += distance * i64::from(STEP);
        counter += f64::from(change) * 60.0;
        Point { time, value: if counter_type.is_gauge() { f64::from(change) } else { counter } }
    };
    walk.iter().map(point).collect()
}

fn types() -> impl Strategy<Value = CounterType> {
    prop::sample::select(vec![CounterType::Gauge, CounterType::Counter, CounterType::Derive])
}

fn told(events: &[Event]) -> Vec<String> {
    events.iter().map(Event::to_json).collect()
}

/// The alarms that are open after `events`.
fn open(events: &[Event]) -> Vec<Event> {
    let mut last: HashMap<String, &Event> = HashMap::new();
    for event in events {
        last.insert(event.id(), event);
    }
    last.into_values().filter(|event| event.status == Status::Problem).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn windows_say_what_the_store_says(
        rules in rules(12),
        walk in walk(prop_oneof![8 => Just(1i64), 2 => -2..9i64]),
        counter_type in types(),
        semantics in prop::sample::select(vec![Semantics::Hawkeye, Semantics::OpenFalcon]),
    ) {
        let options = Options { semantics, ..Options::default() };
        let (mut world, mut windowed) = (World::new(options), Windowed::new(options));
        world.load(&rules);
        windowed.load(&rules);
        let series = Series::new("h", "m", "a=1", counter_type, STEP);
        let id = world.add(Series::new("h", "m", "a=1", counter_type, STEP));
        let mut now = 0;
        for point in points_of(&walk, counter_type) {
            // A late point does not set the clock back: what is newer would be from a clock that was ahead.
            now = now.max(point.time + 7);
            let is_newest = world.table.0[id.0 as usize].points.last().is_none_or(|newest| point.time > newest.time);
            let expected = if is_newest { told(world.push(id, point, now)) } else { Vec::new() };
            prop_assert_eq!(told(&windowed.item(series.key(), counter_type, point, now)), expected, "at {}", point.time);
            let is_bound = world.judge.is_bound(id);
            let taken = if !is_bound { Fate::NoRule } else if is_newest { Fate::Judged } else { Fate::NotNewer };
            prop_assert_eq!(windowed.taken, Some(taken));
        }
    }

    /// Where the file is of the last moment, restarts between any two points change nothing.
    #[test]
    fn orderly_restarts_change_nothing(
        rules in rules(8), walk in walk(Just(1i64)), counter_type in types(), restarts in prop::collection::vec(prop::bool::weighted(0.3), 60),
    ) {
        let series = Series::new("h", "m", "", counter_type, STEP);
        let (mut calm, mut shaken) = (Windowed::new(Options::default()), Windowed::new(Options::default()));
        let mut events = [Vec::new(), Vec::new()];
        calm.load(&rules);
        shaken.load(&rules);
        for (point, restart) in points_of(&walk, counter_type).into_iter().zip(restarts) {
            if restart {
                let mut file = WINDOWS_MAGIC.to_vec();
                shaken.windows.write(&mut file);
                end_windows(&mut file);
                shaken.restart(&rules, &open(&events[1]), Some(&file));
            }
            events[0].extend(calm.item(series.key(), counter_type, point, point.time));
            events[1].extend(shaken.item(series.key(), counter_type, point, point.time));
        }
        prop_assert_eq!(told(&events[0]), told(&events[1]));
    }

    /// Without a file, and so without a point, no PROBLEM that is open is told again, and no recovery is missed.
    #[test]
    fn a_kill_repeats_no_problem_and_misses_no_recovery(
        right in -3..6i32, walk in walk(1..4i64), restarts in prop::collection::vec(any::<bool>(), 60),
    ) {
        let rule = Rule {
            id: 1,
            metric: "m".into(),
            func: "all(#1)".into(),
            operator: ">".into(),
            right_value: f64::from(right),
            max_step: 1,
            ..Rule::default()
        };
        let rules = Rules {
            version: 1,
            hosts: HashMap::from([("h".to_string(), vec![Arc::new(rule)].into())]),
            expressions: Vec::new(),
        };
        let series = Series::new("h", "m", "", CounterType::Gauge, STEP);
        let (mut calm, mut shaken) = (Windowed::new(Options::default()), Windowed::new(Options::default()));
        let mut events = [Vec::new(), Vec::new()];
        calm.load(&rules);
        shaken.load(&rules);
        for (point, restart) in points_of(&walk, CounterType::Gauge).into_iter().zip(restarts) {
            if restart {
                shaken.restart(&rules, &open(&events[1]), None);
            }
            events[0].extend(calm.item(series.key(), CounterType::Gauge, point, point.time));
            events[1].extend(shaken.item(series.key(), CounterType::Gauge, point, point.time));
        }
        prop_assert_eq!(told(&events[0]), told(&events[1]));
    }
}
