//! Rehearsal: equal to a live judge that gets the same points, ticks and rule changes at the same times.

mod support;

use judge::{History, Involvement, Options, Rehearsal, RuleSet, Schedule, Semantics};
use model::{CounterType, Event, Expression, Point, Rules, SeriesId, SeriesKey, Status, Strategy as Rule, Tags};
use proptest::prelude::*;
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use support::condition::{Condition, OWN, STEP};
use support::{Series, World};

const BASE: i64 = 1_600_002_000;
/// The alarm's own metric twice, with tags; one other with the same tags, and one without.
const SERIES: [(&str, &str, CounterType); 4] = [
    (OWN, "d=1", CounterType::Gauge),
    (OWN, "d=2", CounterType::Counter),
    ("n", "d=1", CounterType::Gauge),
    ("k", "", CounterType::Gauge),
];
/// How often a server looks at the clock.
const TICK_S: usize = 5;
const OUT_OF_HOURS: &str = "out of hours";

fn of() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, None, Some("n"), Some("k")])
}

fn values() -> impl Strategy<Value = Condition> {
    let func = prop_oneof![
        4 => (prop::sample::select(vec!["all", "max", "avg", "diff"]), 1..4).prop_map(|(name, n)| format!("{name}(#{n})")),
        1 => (1..4u32, 1..4u32).prop_map(|(a, b)| format!("lookup(#{},{})", a.min(b), a.max(b))),
    ];
    let operator = prop::sample::select(vec![">", ">=", "<", "<=", "!="]);
    (func, operator, -3..4i32, prop::option::of(0..3i32), of()).prop_map(|(func, operator, right, slack, of)| {
        let recover = match operator {
            ">" | ">=" => slack.map(|slack| right - slack),
            "<" | "<=" => slack.map(|slack| right + slack),
            _ => None,
        };
        Condition::Values { func, operator, right, recover, of }
    })
}

fn conditions() -> impl Strategy<Value = Condition> {
    let silence = (1..4i64, of()).prop_map(|(steps, of)| Condition::Silence { steps, of });
    prop_oneof![3 => values(), 2 => silence].prop_recursive(2, 4, 2, |inner| {
        (any::<bool>(), inner.clone(), inner).prop_map(|(and, a, b)| match and {
            true => Condition::And(a.into(), b.into()),
            false => Condition::Or(a.into(), b.into()),
        })
    })
}

/// For each minute the value of each series that has a point then.
fn minutes() -> impl Strategy<Value = Vec<[Option<i32>; SERIES.len()]>> {
    let point = || prop::option::weighted(0.75, -4..5i32);
    prop::collection::vec([point(), point(), point(), point()], 1..50)
}

/// Minutes at which the rules come and go in turn; those before the first are warm-up.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::btree_set(0..50usize, 1..6).prop_map(|cuts| cuts.into_iter().collect())
}

/// As a strategy of the host, or as an expression.
fn rules(func: String, max_step: i32, as_expression: bool) -> Rules {
    let (metric, operator) = (OWN.to_string(), ">".to_string());
    if as_expression {
        let tags = [("endpoint".to_string(), "h".to_string())].into();
        let expression = Expression { id: 1, metric, tags, func, operator, max_step, ..Expression::default() };
        return Rules { version: 1, hosts: HashMap::new(), expressions: vec![Arc::new(expression)] };
    }
    let strategy = Arc::new(Rule { id: 1, metric, func, operator, max_step, ..Rule::default() });
    Rules { version: 1, hosts: HashMap::from([("h".to_string(), [strategy].into())]), expressions: Vec::new() }
}

/// What is told; of a closing, that it is one.
fn shown(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| format!("{} {:?}", event.time - BASE, event)).collect()
}

struct Live {
    world: World,
}

impl Live {
    fn new(options: Options) -> Live {
        let mut world = World::new(options);
        for (metric, tags, counter_type) in SERIES {
            world.add(Series::new("h", metric, tags, counter_type, STEP as u32));
        }
        Live { world }
    }

    /// Brings rules into force as the server does; the empty ones close what is open.
    fn load(&mut self, rules: &Rules, now: i64) {
        let World { judge, table, options, events, .. } = &mut self.world;
        let mut closed = judge.load(RuleSet::compile(rules, options).0).closed().to_vec();
        for (number, series) in table.0.iter().enumerate() {
            closed.extend(judge.bind(SeriesId(number as u32), series.key(), series.counter_type));
        }
        for (number, series) in table.0.iter().enumerate() {
            judge.refill(SeriesId(number as u32), series.counter_type, series.step, table, now);
        }
        if options.semantics == Semantics::OpenFalcon {
            return;
        }
        let mut ends = Vec::new();
        for problem in closed {
            let key = table.0[problem.series.0 as usize].key();
            let open = events.iter().rev().find(|event| event.key() == key).expect("its PROBLEM").clone();
            let rule_version = open.rule.version();
            let explanation = model::Explanation { rule_version, closed: OUT_OF_HOURS.into(), ..Default::default() };
            let time = now.max(open.time);
            let explanation = Some(Box::new(explanation));
            ends.push(Event { status: Status::Ok, current_step: 1, time, explanation, ..open });
        }
        events.append(&mut ends);
    }
}

/// The series' histories: of a counter the values are added up, minus a reset where they would fall.
fn histories(minutes: &[[Option<i32>; SERIES.len()]]) -> Vec<Vec<Point>> {
    let of = |index: usize| {
        let mut sum = 0.0;
        let points = minutes.iter().enumerate().filter_map(|(minute, values)| {
            let value = f64::from(values[index]?);
            sum += value * 60.0;
            let value = if SERIES[index].2.is_gauge() { value } else { sum };
            Some(Point { time: BASE + minute as i64 * STEP, value })
        });
        points.collect()
    };
    (0..SERIES.len()).map(of).collect()
}

fn hours_of(cuts: &[usize], until: i64) -> Vec<Range<i64>> {
    let time = |minute: usize| (BASE + minute as i64 * STEP).min(until);
    let hours = cuts.chunks(2).map(|cut| time(cut[0])..cut.get(1).map_or(until, |end| time(*end)));
    hours.filter(|hours| !hours.is_empty()).collect()
}

/// One stretch of hours, to the end.
fn always(hours: &Range<i64>) -> Schedule<'_> {
    Schedule { hours: std::slice::from_ref(hours), until: hours.end, closed: OUT_OF_HOURS }
}

fn rehearse(rehearsal: &Rehearsal, series: &[History<'_>], schedule: Schedule<'_>) -> Vec<Event> {
    let mut told = Vec::new();
    let played = rehearsal.play(series, schedule, &mut |event| {
        told.push(event);
        ControlFlow::Continue(())
    });
    assert!(played.is_continue());
    told
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_rehearsal_equals_the_live_judge(
        condition in conditions(), minutes in minutes(), cuts in cuts(), max_step in 1..4i32,
        min_interval_s in prop::sample::select(vec![0, 300]), original in any::<bool>(), as_expression in any::<bool>(),
    ) {
        let semantics = if original { Semantics::OpenFalcon } else { Semantics::Hawkeye };
        let options = Options { semantics, min_interval_s, ..Options::default() };
        let rules = rules(condition.text(), max_step, as_expression);
        let histories = histories(&minutes);
        // Silence goes on after the last point.
        let until = BASE + (minutes.len() as i64 + 12) * STEP;
        let hours = hours_of(&cuts, until);
        let mut live = Live::new(options);
        for now in (BASE..until).step_by(TICK_S) {
            if hours.iter().any(|hours| hours.end == now) {
                live.load(&Rules::default(), now);
            }
            if hours.iter().any(|hours| hours.start == now) {
                live.load(&rules, now);
            }
            for (number, points) in histories.iter().enumerate() {
                if let Ok(at) = points.binary_search_by_key(&now, |point| point.time) {
                    live.world.push(SeriesId(number as u32), points[at], now);
                }
            }
            live.world.tick(now);
        }
        let (rehearsal, refused) = Rehearsal::new(rules, options);
        prop_assert!(refused.is_empty(), "{:?}", refused);
        let history = |(at, (metric, tags, counter_type)): (usize, &(&'static str, &'static str, CounterType))| History {
            key: SeriesKey { endpoint: "h", metric, tags: Tags::assume_canonical(tags) },
            counter_type: *counter_type,
            step: STEP as u32,
            before: &[],
            points: &histories[at],
        };
        let series: Vec<History<'_>> = SERIES.iter().enumerate().map(history).collect();
        let schedule = Schedule { hours: &hours, until, closed: OUT_OF_HOURS };
        let told = rehearse(&rehearsal, &series, schedule);
        // Those that are closed together are closed in no order.
        let in_order = |events: &[Event]| {
            let mut shown = shown(events);
            shown.sort();
            shown
        };
        prop_assert_eq!(in_order(&told), in_order(&live.world.events), "{}", condition.text());
        if !rehearsal.is_joined() {
            let alone = series.iter().filter(|one| rehearsal.involvement(one.key) == Some(Involvement::Carries));
            let apart: Vec<Event> = alone.flat_map(|one| rehearse(&rehearsal, &[*one], schedule)).collect();
            prop_assert_eq!(in_order(&apart), in_order(&told), "series by series: {}", condition.text());
        }
        // What `warm_up_s` leaves out makes no difference.
        let from = hours.first().map_or(BASE, |hours| hours.start) - rehearsal.warm_up_s(STEP as u32);
        let cut = |one: &History<'_>| {
            let points: Vec<Point> = one.points.iter().copied().filter(|point| point.time >= from).collect();
            points
        };
        let cut: Vec<Vec<Point>> = series.iter().map(cut).collect();
        let short: Vec<_> = series.iter().zip(&cut).map(|(one, points)| History { points, ..*one }).collect();
        prop_assert_eq!(shown(&rehearse(&rehearsal, &short, schedule)), shown(&told), "warm-up: {}", condition.text());
    }
}

fn one<'a>(points: &'a [Point], step: u32) -> History<'a> {
    let key = SeriesKey { endpoint: "h", metric: OWN, tags: Tags::EMPTY };
    History { key, counter_type: CounterType::Gauge, step, before: &[], points }
}

#[test]
fn a_window_does_not_mix_a_counter_and_a_gauge() {
    let (rehearsal, _) = Rehearsal::new(rules("max(#3) > 5".into(), 1, false), Options::default());
    // A counter that grows by one a second, then a gauge of 3, then of 9.
    let value = |i: i64| match i {
        0..10 => 1e6 + 60.0 * i as f64,
        10..20 => 3.0,
        _ => 9.0,
    };
    let points: Vec<Point> = (0..22).map(|i| Point { time: BASE + i * 60, value: value(i) }).collect();
    let before = [judge::Before { until: BASE + 600, counter_type: CounterType::Counter, step: 60 }];
    let history = History { before: &before, ..one(&points, 60) };
    let hours = BASE..BASE + 6000;
    let schedule = Schedule { hours: std::slice::from_ref(&hours), until: hours.end, closed: OUT_OF_HOURS };
    let told = rehearse(&rehearsal, &[history], schedule);
    assert_eq!(told.iter().map(|event| event.time).collect::<Vec<_>>(), [BASE + 20 * 60]);
    // The same points taken for one gauge alarm at once.
    let mixed = rehearse(&rehearsal, &[one(&points, 60)], schedule);
    assert_eq!(mixed.first().map(|event| event.time), Some(BASE + 120));
}

#[test]
fn who_has_heard_enough_ends_it() {
    let (rehearsal, _) = Rehearsal::new(rules("all(#1) > 5".into(), 1, false), Options::default());
    let points: Vec<Point> =
        (0..100).map(|i| Point { time: BASE + i * 60, value: if i % 2 == 0 { 9.0 } else { 1.0 } }).collect();
    let hours = BASE..BASE + 6000;
    let schedule = always(&hours);
    let mut told = 0;
    let played = rehearsal.play(&[one(&points, 60)], schedule, &mut |_| {
        told += 1;
        if told == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(played.is_break() && told == 3);
    let played = rehearsal.play(&[one(&points, 60)], schedule, &mut |_| ControlFlow::Continue(()));
    assert_eq!(played, ControlFlow::Continue(100));
    assert_eq!(rehearsal.play(&[], schedule, &mut |_| ControlFlow::Continue(())), ControlFlow::Continue(0));
}

#[test]
fn the_window_is_warm_and_nothing_before_is_told() {
    let (rehearsal, _) = Rehearsal::new(rules("all(#3) > 5".into(), 1, false), Options::default());
    let points: Vec<Point> = (0..10).map(|i| Point { time: BASE + i * 60, value: 9.0 }).collect();
    let from = BASE + 300;
    let told = rehearse(&rehearsal, &[one(&points, 60)], always(&(from..BASE + 600)));
    assert_eq!(told.iter().map(|event| (event.status, event.time)).collect::<Vec<_>>(), [(Status::Problem, from)]);
}

/// A point that comes in the very second in which it would be missed is not missed; one a step later is.
#[test]
fn a_point_in_the_last_second_is_in_time() {
    let (rehearsal, _) = Rehearsal::new(rules("nodata(#1)".into(), 1, false), Options::default());
    let at = |minutes: &[i64]| -> Vec<Point> {
        minutes.iter().map(|minute| Point { time: BASE + minute * 60, value: 1.0 }).collect()
    };
    let told = |points: &[Point]| -> Vec<(Status, i64)> {
        let told = rehearse(&rehearsal, &[one(points, 60)], always(&(BASE..BASE + 600)));
        told.iter().map(|event| (event.status, (event.time - BASE) / 60)).collect()
    };
    assert_eq!(told(&at(&[0, 2, 4, 6, 8, 9])), []);
    assert_eq!(told(&at(&[0, 1, 4, 5, 6, 7, 8, 9])), [(Status::Problem, 3), (Status::Ok, 4)]);
}

#[test]
fn the_part_of_a_series() {
    let (rehearsal, _) = Rehearsal::new(rules("all(#1) > 5 and all(#1) of n > 1".into(), 1, false), Options::default());
    let part = |endpoint, metric| rehearsal.involvement(SeriesKey { endpoint, metric, tags: Tags::EMPTY });
    assert!(rehearsal.is_joined());
    assert_eq!(part("h", OWN), Some(Involvement::Carries));
    assert_eq!(part("h", "n"), Some(Involvement::Asked));
    assert_eq!((part("h", "k"), part("other", OWN)), (None, None));
}
