//! Properties of conditions that are more than one function: equal to a naive look at the whole history of all series,
//! also over restarts. Changes of rules: `interleavings.rs`.

mod support;

use judge::Options;
use model::{Event, Point, Rules, SeriesId, Status, Strategy as Rule};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use support::World;
use support::condition::{Condition, History, NAMES, OWN, Past, STEP, conditions, without_holes};

const BASE: i64 = 1_600_002_000;
/// How often the judge looks at the clock.
const TICK_S: i64 = 5;

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
        world.add(support::condition::series("h", name));
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
            let is_news = alarm.condition.is_about(NAMES[series]);
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
