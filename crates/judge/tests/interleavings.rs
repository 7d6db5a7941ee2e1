//! Any interleaving of points, looks at the clock, changes of rules, restarts, crashes and series that come and go
//! gives no lost and no repeated event.
//!
//! How: two hosts with five series each, four rules on one or both of them. After each action the story told so far
//! must be sound for each alarm: steps 1, 2, … up to `max_step`, times that do not go back, one recovery, nothing
//! closed that is not open; and the judge must think open what the story left open. Where an alarm has just been
//! decided, it must be what a naive look at the whole history says; at the end, when all has been heard, all of them
//! must.

mod support;

use judge::{Options, RuleId};
use model::{Event, Point, Rules, SeriesId, Status, Strategy as Rule};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use support::World;
use support::condition::{Condition, Decision, History, NAMES, OWN, Past, STEP, conditions, series, without_holes};

const BASE: i64 = 1_600_002_000;
const HOSTS: [&str; 2] = ["h", "g"];
/// How often the judge looks at the clock.
const TICK_S: i64 = 5;
/// Older points than this make no PROBLEM after a restart.
const CATCH_UP_S: i64 = 3600;
const AFTER_RESTART: &str = "after a restart";

#[derive(Clone, Debug)]
struct RuleAction {
    id: i64,
    condition: Condition,
    max_step: i32,
    /// For each host whether it has the rule.
    hosts: [bool; 2],
    /// The comparison of a single function may stand in the rule's own fields.
    in_fields: bool,
}

#[derive(Clone, Debug)]
enum Action {
    /// The values that the series of both hosts get in the next minute, in their order.
    Minute([Vec<(usize, i32)>; 2]),
    Set(RuleAction),
    Drop(i64),
    /// Kill and start, without so many of the events just made; the rules may have been changed meanwhile.
    Restart {
        lost: usize,
        change: Option<RuleAction>,
    },
    /// A series is deleted with its points, and comes back.
    Remove(usize),
}

fn rule_action(n_max: u32) -> impl Strategy<Value = RuleAction> {
    let hosts = prop::sample::select(vec![[true, true], [true, true], [true, false], [false, true]]);
    (1..5i64, conditions(true, n_max), 0..4i32, hosts, any::<bool>()).prop_map(
        |(id, condition, max_step, hosts, in_fields)| RuleAction { id, condition, max_step, hosts, in_fields },
    )
}

fn minute() -> impl Strategy<Value = Vec<(usize, i32)>> {
    let point = |series: usize| {
        prop_oneof![6 => (-4..5i32).prop_map(move |value| Some((series, value))), 1 => Just(None)].boxed()
    };
    let points = [0, 1, 2, 3, 4].map(point).prop_map(|points| points.into_iter().flatten().collect::<Vec<_>>());
    points.prop_shuffle()
}

fn action(n_max: u32) -> impl Strategy<Value = Action> {
    let restart = (0..4usize, prop::option::weighted(0.3, rule_action(n_max)));
    prop_oneof![
        10 => [minute(), minute()].prop_map(Action::Minute),
        1 => Just(Action::Minute([Vec::new(), Vec::new()])),
        4 => rule_action(n_max).prop_map(Action::Set),
        1 => (1..5i64).prop_map(Action::Drop),
        3 => restart.prop_map(|(lost, change)| Action::Restart { lost, change }),
        1 => (0..2 * NAMES.len()).prop_map(Action::Remove),
    ]
}

proptest! {
    #![proptest_config(support::cases(100))]

    #[test]
    fn nothing_is_lost_or_repeated(
        actions in prop::collection::vec(action(3), 1..60), min_interval_s in prop::sample::select(vec![0, 300]),
    ) {
        play(&lose_single_points(actions), min_interval_s)?;
    }

    /// Series that stop and come back.
    #[test]
    fn nothing_is_lost_or_repeated_with_holes(
        actions in prop::collection::vec(action(1), 1..60), min_interval_s in prop::sample::select(vec![0, 300]),
    ) {
        play(&actions, min_interval_s)?;
    }
}

/// A text that is changed while the judge is down leaves the alarm that the old text opened; older points do not end
/// it, and the next one does.
#[test]
fn an_alarm_of_a_changed_text_ends_with_the_next_point() {
    let values = |right, of| Condition::Values { func: "all(#1)".into(), operator: ">", right, recover: None, of };
    let rule = |condition, max_step| RuleAction { id: 4, condition, max_step, hosts: [true, true], in_fields: false };
    let silence = Condition::Silence { steps: 1, of: None };
    let old = rule(Condition::Or(silence.into(), values(-1, Some("p/t=1")).into()), 1);
    let new = rule(Condition::And(values(-1, None).into(), values(0, Some("n")).into()), 0);
    let quiet: Vec<_> = [0, 0, 0, 0, 0].into_iter().enumerate().collect();
    let actions = [
        Action::Set(old),
        Action::Minute([vec![(0, 0), (1, -2), (2, 0), (3, -1), (4, -1)], quiet.clone()]),
        Action::Minute([vec![(0, 0), (2, 0), (3, 0), (4, 0)], quiet]),
        Action::Restart { lost: 0, change: Some(new) },
    ];
    play(&actions, 0).expect("a sound story");
}

/// Fills holes: the naive judge does not know them.
fn lose_single_points(mut actions: Vec<Action>) -> Vec<Action> {
    for host in 0..HOSTS.len() {
        let minutes = actions.iter_mut().filter_map(|action| match action {
            Action::Minute(points) => Some(&mut points[host]),
            _ => None,
        });
        let minutes: Vec<_> = minutes.collect();
        let filled = without_holes(minutes.iter().map(|points| points.to_vec()).collect());
        minutes.into_iter().zip(filled).for_each(|(points, filled)| *points = filled);
    }
    actions
}

struct Play {
    world: World,
    rules: BTreeMap<i64, RuleAction>,
    histories: [History; 2],
    now: i64,
    /// Events of the last step, which a crash may lose.
    just_made: usize,
}

fn play(actions: &[Action], min_interval_s: i64) -> Result<(), TestCaseError> {
    let mut world = World::new(Options { min_interval_s, ..Options::default() });
    for host in HOSTS {
        for name in NAMES {
            world.add(series(host, name));
        }
    }
    let histories = [(); 2].map(|()| NAMES.into_iter().map(|name| (name, Past::default())).collect());
    let mut play = Play { world, rules: BTreeMap::new(), histories, now: BASE, just_made: 0 };
    for action in actions {
        match action {
            Action::Minute(points) => play.minute(points)?,
            Action::Set(rule) => {
                play.rules.insert(rule.id, rule.clone());
                play.load();
            }
            Action::Drop(id) => {
                play.rules.remove(id);
                play.load();
            }
            Action::Restart { lost, change } => play.restart(*lost, change.as_ref())?,
            Action::Remove(series) => {
                play.world.forget(SeriesId(*series as u32));
                *play.past(*series) = Past::default();
                play.just_made = 0;
            }
        }
        play.is_sound()?;
    }
    // Everybody is heard of, and falls silent again: nothing is unknown any more.
    for value in [1, -2, 3, 0] {
        let points: Vec<_> = (0..NAMES.len()).map(|series| (series, value - series as i32)).collect();
        play.minute(&[points.clone(), points])?;
    }
    play.agrees(|_, _| true, "at the end")?;
    for _ in 0..8 {
        play.minute(&[Vec::new(), Vec::new()])?;
    }
    play.agrees(|_, condition| has_silence(condition), "in the last silence")
}

impl Play {
    fn minute(&mut self, points: &[Vec<(usize, i32)>; 2]) -> Result<(), TestCaseError> {
        for _ in 0..STEP / TICK_S {
            self.now += TICK_S;
            self.just_made = self.world.tick(self.now).len();
            self.is_sound()?;
        }
        for (host, points) in points.iter().enumerate() {
            for &(number, value) in points {
                let (series, now) = (host * NAMES.len() + number, self.now);
                let point = Point { time: now, value: f64::from(value) };
                let past = self.past(series);
                past.points.push(point);
                past.heard = now;
                self.just_made = self.world.push(SeriesId(series as u32), point, now).len();
                self.is_sound()?;
                let name = NAMES[number];
                let was_decided = |other: usize, condition: &Condition| {
                    other == host && condition.is_about(name) && !has_silence(condition)
                };
                self.agrees(was_decided, "at a point")?;
            }
        }
        Ok(())
    }

    fn restart(&mut self, lost: usize, change: Option<&RuleAction>) -> Result<(), TestCaseError> {
        if let Some(rule) = change {
            self.rules.insert(rule.id, rule.clone());
        }
        let lost = lost.min(std::mem::take(&mut self.just_made));
        self.world.restart(&self.in_force(), lost, self.now);
        self.agrees(|_, condition| !has_silence(condition), AFTER_RESTART)
    }

    fn load(&mut self) {
        self.just_made = 0;
        let rules = self.in_force();
        let refused = self.world.load(&rules);
        assert_eq!(refused, []);
    }

    fn in_force(&self) -> Rules {
        let list = |host: usize| -> Vec<Arc<Rule>> {
            let of_host = self.rules.values().filter(|rule| rule.hosts[host]);
            of_host.map(|rule| Arc::new(rule.compiled())).collect()
        };
        let hosts = HOSTS.iter().enumerate().map(|(number, host)| (host.to_string(), list(number).into()));
        Rules { version: 1, hosts: hosts.collect::<HashMap<_, _>>(), expressions: Vec::new() }
    }

    fn past(&mut self, series: usize) -> &mut Past {
        let history = &mut self.histories[series / NAMES.len()];
        history.get_mut(NAMES[series % NAMES.len()]).expect("a series")
    }

    /// The story of each alarm is one that can be told, and the judge remembers how it ends.
    fn is_sound(&self) -> Result<(), TestCaseError> {
        let mut open: BTreeMap<(SeriesId, RuleId), &Event> = BTreeMap::new();
        for (series, event) in &self.world.queue {
            let alarm = (*series, RuleId::of(&event.rule));
            let last = open.remove(&alarm);
            let no_older = last.is_none_or(|last| event.time >= last.time);
            prop_assert!(no_older, "{:?} is older than {:?}", event, last);
            match event.status {
                Status::Problem => {
                    let step = last.map_or(1, |last| last.current_step + 1);
                    let is_allowed = event.current_step <= event.max_step();
                    prop_assert!(event.current_step == step && is_allowed, "{:?} after {:?}", event, last);
                    open.insert(alarm, event);
                }
                Status::Ok => prop_assert!(last.is_some(), "a recovery from nothing: {:?}", event),
            }
        }
        let known = self.world.judge.open_problems().map(|problem| (problem.series, problem.rule));
        prop_assert_eq!(open.keys().copied().collect::<BTreeSet<_>>(), known.collect::<BTreeSet<_>>());
        Ok(())
    }

    /// The alarms `of` (host, condition) are open or not as a naive look has it, where that knows.
    fn agrees(&self, of: impl Fn(usize, &Condition) -> bool, when: &str) -> Result<(), TestCaseError> {
        let is_restarted = when == AFTER_RESTART;
        for rule in self.rules.values() {
            for host in (0..HOSTS.len()).filter(|host| rule.hosts[*host] && of(*host, &rule.condition)) {
                let alarm = (SeriesId((host * NAMES.len()) as u32), RuleId::Strategy(rule.id));
                let mut problems = self.world.judge.open_problems();
                let open = problems.find(|problem| (problem.series, problem.rule) == alarm);
                let is_open = open.is_some();
                // One that has no point carries no alarm.
                if self.histories[host][OWN].points.is_empty() {
                    continue;
                }
                let decision = rule.condition.decide(&self.histories[host], self.now, is_open);
                let agrees = match decision {
                    None => true,
                    Some(Decision { holds: true, newest, .. }) => {
                        is_open || rule.max_step == 0 || newest < self.now - CATCH_UP_S
                    }
                    // Points that are older than the alarm, which a text of before opened, say nothing of its end.
                    Some(Decision { holds: false, newest, .. }) => {
                        open.is_none_or(|problem| is_restarted && newest < problem.time)
                    }
                };
                prop_assert!(
                    agrees,
                    "{when}, {}: open {is_open}, but {decision:?}: {} of {:?}",
                    self.now - BASE,
                    rule.condition.text(),
                    self.histories[host],
                );
            }
        }
        Ok(())
    }
}

impl RuleAction {
    fn compiled(&self) -> Rule {
        let rule = Rule { id: self.id, metric: OWN.into(), max_step: self.max_step, ..Rule::default() };
        match &self.condition {
            Condition::Values { func, operator, right, recover: None, of: None } if self.in_fields => {
                let (func, operator) = (func.clone(), operator.to_string());
                Rule { func, operator, right_value: f64::from(*right), ..rule }
            }
            condition => Rule { func: condition.text(), operator: ">".to_string(), ..rule },
        }
    }
}

fn has_silence(condition: &Condition) -> bool {
    condition.text().contains("nodata")
}
