//! Properties of conditions that are more than one function: equal to a naive look at the whole history of all series, and
//! sound over any interleaving of points, looks at the clock, rule changes and restarts.

mod support;

use judge::{Options, RuleId};
use model::{CounterType, Event, Point, Rules, SeriesId, Status, Strategy as Rule};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use support::condition::{ANY, Condition, History, OWN, Past, STEP, meant};
use support::{Series, World};

const BASE: i64 = 1_600_002_000;
const NAMES: [&str; 5] = [OWN, "n", "k", "p/t=1,u=1", "p/t=1,u=2"];
/// How often the judge looks at the clock.
const TICK_S: i64 = 5;

fn of() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, None, None, Some("n"), Some("k"), Some(OWN), Some(ANY)])
}

fn values(n_max: u32) -> impl Strategy<Value = Condition> {
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

fn conditions(with_silence: bool, n_max: u32) -> impl Strategy<Value = Condition> {
    let silence = (1..4i64, of()).prop_map(|(steps, of)| Condition::Silence { steps, of });
    let leaf = if with_silence { prop_oneof![3 => values(n_max), 2 => silence].boxed() } else { values(n_max).boxed() };
    leaf.prop_recursive(3, 6, 2, |inner| {
        (any::<bool>(), inner.clone(), inner).prop_map(|(and, a, b)| match and {
            true => Condition::And(a.into(), b.into()),
            false => Condition::Or(a.into(), b.into()),
        })
    })
}

fn rule(id: i64, condition: &Condition, max_step: i32) -> Rule {
    let (func, operator) = (condition.text(), ">".to_string());
    Rule { id, metric: OWN.into(), func, operator, max_step, ..Rule::default() }
}

fn of_host(rules: &[Rule]) -> Rules {
    let list: Vec<Arc<Rule>> = rules.iter().cloned().map(Arc::new).collect();
    Rules { version: 1, hosts: HashMap::from([("h".to_string(), list.into())]), expressions: Vec::new() }
}

/// For each minute, in any order, the series that have a point and its value.
fn minutes(is_dirty: bool) -> impl Strategy<Value = Vec<Vec<(usize, i32)>>> {
    let silent = if is_dirty { 3 } else { 1 };
    let point = move |series: usize| prop_oneof![8 => (-4..5i32).prop_map(move |value| Some((series, value))), silent => Just(None)];
    let minute = [0, 1, 2, 3, 4].map(point).prop_map(|points| points.into_iter().flatten().collect::<Vec<_>>());
    prop::collection::vec(minute.prop_shuffle(), 1..40)
}

fn world(options: Options, rules: &[Rule]) -> World {
    let mut world = World::new(options);
    world.load(&of_host(rules));
    for name in NAMES {
        let (metric, tags) = name.split_once('/').unwrap_or((name, ""));
        world.add(Series::new("h", metric, tags, CounterType::Gauge, STEP as u32));
    }
    world
}

/// The alarm as the naive judge keeps it, with each event as (is a PROBLEM, step, time).
struct Alarm {
    condition: Condition,
    max_step: i32,
    min_interval_s: i64,
    last: Option<(i32, i64)>,
    missing: Vec<i64>,
}

impl Alarm {
    /// What is sent when something has happened: a point, or another N points are missing.
    fn judge(&mut self, history: &History, now: i64) -> Option<(bool, i32, i64)> {
        self.missing = self.condition.missing(history, now);
        let decision = self.condition.decide(history, now, self.last.is_some())?;
        let event = match (decision.holds, self.last) {
            (false, None) => return None,
            (false, Some((_, time))) => (false, 1, decision.newest.max(time)),
            (true, None) => (true, 1, decision.newest),
            (true, Some((step, time))) => {
                if step >= self.max_step || decision.oldest <= time || now - time < self.min_interval_s {
                    return None;
                }
                (true, step + 1, decision.newest.max(time))
            }
        };
        self.last = Some((event.1, event.2)).filter(|_| event.0);
        Some(event)
    }
}

fn shown(events: &[Event]) -> Vec<(bool, i32, i64)> {
    events.iter().map(|event| (event.status == Status::Problem, event.current_step, event.time)).collect()
}

/// Holes make values unknown, which the naive judge does not know; a series that is only lost for a single point has none.
fn without_holes(minutes: Vec<Vec<(usize, i32)>>) -> Vec<Vec<(usize, i32)>> {
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

proptest! {
    #![proptest_config(support::cases(300))]

    #[test]
    fn conditions_equal_the_naive_judge(
        condition in conditions(true, 3), minutes in minutes(true), max_step in 1..4i32, min_interval_s in prop::sample::select(vec![0, 300]),
    ) {
        compare_with_naive(condition, without_holes(minutes), max_step, min_interval_s)?;
    }

    /// Series that stop and come back: silence, and terms that are too old to count.
    #[test]
    fn conditions_over_series_with_holes_equal_the_naive_judge(
        condition in conditions(true, 1), minutes in minutes(true), max_step in 1..4i32, min_interval_s in prop::sample::select(vec![0, 300]),
    ) {
        compare_with_naive(condition, minutes, max_step, min_interval_s)?;
    }

    /// Restarts between any two points change nothing, whether the events of the last point were durable or not.
    #[test]
    fn restarts_lose_and_repeat_nothing(
        conditions in prop::collection::vec(conditions(false, 3), 1..4), minutes in minutes(true),
        restarts in prop::collection::vec((any::<bool>(), any::<bool>()), 120),
    ) {
        let rules: Vec<Rule> = (1..).zip(&conditions).map(|(id, condition)| rule(id, condition, 1)).collect();
        let mut calm = world(Options::default(), &rules);
        let mut shaken = world(Options::default(), &rules);
        let mut restarts = restarts.into_iter();
        for (minute, points) in (1..).zip(minutes) {
            let time = BASE + minute * STEP;
            for (series, value) in points {
                let (id, point) = (SeriesId(series as u32), Point { time, value: f64::from(value) });
                calm.push(id, point, time);
                let made = shaken.push(id, point, time).len();
                let (restart, lose) = restarts.next().unwrap_or_default();
                if restart {
                    shaken.restart(&of_host(&rules), if lose { made } else { 0 }, time);
                }
                // Of several rules, those that are joined speak last after a restart.
                prop_assert_eq!(in_order(&shaken.events), in_order(&calm.events));
            }
        }
    }

    #[test]
    fn any_interleaving_tells_a_sound_story(actions in prop::collection::vec(action(), 1..80)) {
        interleave(&actions)?;
    }
}

fn compare_with_naive(
    condition: Condition,
    minutes: Vec<Vec<(usize, i32)>>,
    max_step: i32,
    min_interval_s: i64,
) -> Result<(), TestCaseError> {
    let options = Options { min_interval_s, ..Options::default() };
    let mut world = world(options, &[rule(1, &condition, max_step)]);
    let mut history: History = NAMES.iter().map(|name| (*name, Past::default())).collect();
    let missing = condition.missing(&history, BASE);
    let mut alarm = Alarm { missing, condition, max_step, min_interval_s, last: None };
    let text = alarm.condition.text();
    for (minute, points) in (1..).zip(minutes) {
        let time = BASE + minute * STEP;
        for now in (time - STEP + TICK_S..=time).step_by(TICK_S as usize) {
            let sent = shown(world.tick(now));
            let has_changed = alarm.condition.missing(&history, now) != alarm.missing;
            let expected = if has_changed { alarm.judge(&history, now) } else { None };
            prop_assert_eq!(sent, Vec::from_iter(expected), "looked at {} {}", now - BASE, text);
        }
        for (series, value) in points {
            let point = Point { time, value: f64::from(value) };
            let past = history.get_mut(NAMES[series]).expect("a series");
            past.points.push(point);
            past.heard = time;
            let sent = shown(world.push(SeriesId(series as u32), point, time));
            // A point is news where its series is asked, and always where it carries the alarm.
            let asked = ["n", "k", ANY].into_iter().filter(|name| text.contains(&format!(" of {name}")));
            let is_news = series == 0 || asked.flat_map(meant).any(|name| name == NAMES[series]);
            let expected = if is_news { alarm.judge(&history, time) } else { None };
            prop_assert_eq!(sent, Vec::from_iter(expected), "point of {} at {} {}", NAMES[series], time - BASE, text);
        }
    }
    Ok(())
}

fn in_order(events: &[Event]) -> Vec<String> {
    let mut shown: Vec<String> = events.iter().map(|event| format!("{} {:?}", event.time, event)).collect();
    shown.sort();
    shown
}

#[derive(Clone, Debug)]
enum Action {
    Push { series: usize, value: i32 },
    Wait { minutes: i64 },
    SetRule { id: i64, condition: Condition },
    DropRule { id: i64 },
    Restart { lose: bool },
    Remove { series: usize },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (0..NAMES.len(), -4..5i32).prop_map(|(series, value)| Action::Push { series, value }),
        2 => (1..6i64).prop_map(|minutes| Action::Wait { minutes }),
        2 => (1..4i64, conditions(true, 3)).prop_map(|(id, condition)| Action::SetRule { id, condition }),
        1 => (1..4i64).prop_map(|id| Action::DropRule { id }),
        2 => any::<bool>().prop_map(|lose| Action::Restart { lose }),
        1 => (0..NAMES.len()).prop_map(|series| Action::Remove { series }),
    ]
}

/// What was sent must be PROBLEM, OK, PROBLEM, … for each alarm, and the judge must think the same of what is open.
fn interleave(actions: &[Action]) -> Result<(), TestCaseError> {
    let mut world = world(Options::default(), &[]);
    let mut rules: BTreeMap<i64, Rule> = BTreeMap::new();
    let in_force = |rules: &BTreeMap<i64, Rule>| of_host(&rules.values().cloned().collect::<Vec<_>>());
    let (mut now, mut just_made) = (BASE, 0);
    for action in actions {
        let made = std::mem::take(&mut just_made);
        match action {
            Action::Push { series, value } => {
                now += 20;
                let points = &world.table.0[*series].points;
                let time = points.last().map_or(BASE, |point| point.time).max(now - 90) + STEP;
                let point = Point { time, value: f64::from(*value) };
                just_made = world.push(SeriesId(*series as u32), point, now).len();
            }
            Action::Wait { minutes } => {
                for _ in 0..minutes * STEP / TICK_S {
                    now += TICK_S;
                    world.tick(now);
                }
            }
            Action::SetRule { id, condition } => {
                rules.insert(*id, rule(*id, condition, 1));
                world.load(&in_force(&rules));
            }
            Action::DropRule { id } => {
                rules.remove(id);
                world.load(&in_force(&rules));
            }
            Action::Restart { lose } => world.restart(&in_force(&rules), if *lose { made } else { 0 }, now),
            Action::Remove { series } => world.forget(SeriesId(*series as u32)),
        }
        let open = alternating(&world.queue)?;
        prop_assert_eq!(&open, &world.judge.open_problems().map(|p| (p.series, p.rule)).collect::<BTreeSet<_>>());
    }
    Ok(())
}

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
