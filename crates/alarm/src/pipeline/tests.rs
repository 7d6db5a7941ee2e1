//! Scenarios: what people hear, as texts.

use super::*;
use crate::fact::Rule;
use crate::inhibit::{Explaining, Inhibition};
use crate::matcher::Matcher;
use crate::policy::{Escalation, Flapping, Step, Storm};
use crate::route::{By, RouteText, Tree};
use crate::silence::Silence;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

fn matchers(texts: &[&str]) -> Vec<Matcher> {
    texts.iter().map(|text| Matcher::parse(text).expect(text)).collect()
}

fn receiver(team: &str) -> Value {
    json!([{ "to": { "team": team } }])
}

fn tree(text: Value) -> Tree {
    let text: RouteText = serde_json::from_value(text).expect("a text");
    Tree::compile(&text, &|_| Some(TimeZone::UTC), &["chain"]).expect("a tree")
}

/// All alarms in one group: a message after 10 s, changes each 60 s.
fn one_group() -> Value {
    json!({ "to": receiver("ops"), "group_by": ["all"], "wait": 10, "interval": 60 })
}

fn policy(text: Value) -> Policy {
    Policy { tree: tree(text), ..Policy::default() }
}

fn fact(metric: &str, endpoint: &str) -> Fact {
    let rule = Rule { priority: 2, metric: metric.into(), ..Rule::default() };
    Fact { rule: Arc::new(rule), endpoint: endpoint.into(), ..Fact::default() }
}

/// A pipeline, and all that it has said.
struct World {
    pipeline: Pipeline,
    said: Vec<String>,
}

impl World {
    fn new(policy: Policy) -> World {
        World { pipeline: Pipeline::new(Arc::new(policy), 0), said: Vec::new() }
    }

    /// Goes on to a moment, by each that is due.
    fn until(&mut self, now: i64) {
        while let Some(at) = self.pipeline.next_due().filter(|at| *at <= now) {
            self.pipeline.tick(at.max(self.pipeline.now));
            self.take();
        }
        self.pipeline.tick(now);
        self.take();
    }

    fn open(&mut self, id: &str, now: i64) {
        self.until(now);
        self.pipeline.problem(id, fact("cpu", id), now);
        self.until(now);
    }

    fn open_as(&mut self, id: &str, fact: Fact, now: i64) {
        self.until(now);
        self.pipeline.problem(id, fact, now);
        self.until(now);
    }

    fn end(&mut self, id: &str, now: i64) {
        self.until(now);
        self.pipeline.recovered(id, "", now);
        self.until(now);
    }

    fn take(&mut self) {
        let now = self.pipeline.now;
        for effect in self.pipeline.drain() {
            match effect {
                Effect::Action { alarm, has_ended } => {
                    let end = if has_ended { "end of " } else { "" };
                    self.said.push(format!("{now} action {end}{alarm}"));
                }
                Effect::Notice(notice) => self.said.push(format!("{now} {}", text(&notice))),
                Effect::SilenceOver { silence, open } => {
                    self.said.push(format!("{now} silence {silence} over, open {}", open.join(" ")));
                }
                Effect::Story { .. } => {}
            }
        }
    }

    #[track_caller]
    fn check(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.said), expected);
    }
}

fn text(notice: &Notice) -> String {
    let to: Vec<String> = notice
        .to
        .iter()
        .map(|receiver| match &receiver.to {
            To::Team(name) | To::User(name) | To::Rota(name) => name.clone(),
            To::Action => "action".to_string(),
        })
        .collect();
    let mut out = format!("{}: {}", to.join(","), notice.what);
    for (sign, alarms) in [("+", &notice.fresh), ("=", &notice.known), ("-", &notice.ended)] {
        alarms.iter().for_each(|alarm| out.push_str(&format!(" {sign}{alarm}")));
    }
    out
}

#[test]
fn a_site_that_configures_nothing_has_each_events_action_at_once() {
    let mut world = World::new(Policy::default());
    world.open("a", 5);
    world.open("a", 65);
    world.end("a", 70);
    world.end("a", 71);
    world.check(&["5 action a", "65 action a", "70 action end of a"]);
    assert!(world.pipeline.alarms.len() == 0 && world.pipeline.groups.len() == 0);
}

#[test]
fn alarms_of_a_group_are_one_message_that_lists_updates_and_resolves() {
    let mut world = World::new(policy(one_group()));
    world.open("a", 0);
    world.open("b", 4);
    world.until(10);
    world.check(&["10 ops: problem +a +b"]);
    world.open("c", 11);
    world.end("a", 12);
    world.open("d", 13);
    world.end("d", 20);
    world.until(70);
    world.check(&["70 ops: update +c =b -a"]);
    world.end("b", 75);
    world.end("c", 76);
    world.until(1000);
    world.check(&["76 ops: resolved -b -c"]);
    assert!(world.pipeline.groups.len() == 0 && world.pipeline.alarms.len() == 0 && world.pipeline.due.is_empty());
}

#[test]
fn what_ended_before_anybody_heard_is_not_told() {
    let mut world = World::new(policy(one_group()));
    world.open("a", 0);
    world.end("a", 5);
    world.until(100);
    world.check(&[]);
    assert!(world.pipeline.groups.len() == 0);
}

#[test]
fn an_unchanged_group_repeats_itself_until_somebody_acknowledges() {
    let mut text = one_group();
    text["repeat"] = json!(100);
    let mut world = World::new(policy(text));
    world.open("a", 0);
    world.until(250);
    world.check(&["10 ops: problem +a", "110 ops: repeat =a", "210 ops: repeat =a"]);
    assert!(world.pipeline.acknowledge("a", "root", None, 251));
    world.until(900);
    world.end("a", 1000);
    world.until(1001);
    world.check(&["1000 ops: resolved -a"]);
    assert!(!world.pipeline.acknowledge("a", "root", None, 1002));
}

#[test]
fn snoozed_is_told_again_when_the_time_is_over() {
    let mut world = World::new(policy(one_group()));
    world.open("a", 0);
    world.until(10);
    world.pipeline.acknowledge("a", "root", Some(500), 20);
    world.until(600);
    world.check(&["10 ops: problem +a", "500 ops: update +a"]);
    world.pipeline.acknowledge("a", "root", None, 610);
    assert!(world.pipeline.release("a", "root", 620) && !world.pipeline.release("a", "root", 621));
}

#[test]
fn a_silence_that_ends_while_the_alarm_is_open_lets_it_be_told() {
    let silence = |from, until| Silence {
        id: 7,
        matchers: matchers(&["endpoint=~a.*"]),
        from,
        until,
        window: None,
        comment: String::new(),
        who: "root".into(),
    };
    let mut world = World::new(Policy { silences: vec![silence(0, 100)], ..policy(one_group()) });
    world.open("a1", 1);
    world.open("a2", 2);
    world.open("b", 3);
    world.end("a2", 50);
    world.until(200);
    world.check(&["13 ops: problem +b", "100 silence 7 over, open a1", "100 ops: update +a1 =b"]);
    // Silenced when people know: nothing more is said, but its end.
    let with = Policy { silences: vec![silence(0, 5000)], ..policy(one_group()) };
    world.pipeline.set_policy(Arc::new(with), 210);
    world.until(300);
    world.end("a1", 310);
    world.until(400);
    world.check(&["310 ops: update =b -a1"]);
}

#[test]
fn maintenance_of_an_action_is_a_silence_too() {
    let silence = Silence {
        id: 1,
        matchers: matchers(&["endpoint=a"]),
        from: 0,
        until: 100,
        window: None,
        comment: String::new(),
        who: String::new(),
    };
    let mut world = World::new(Policy { silences: vec![silence], ..Policy::default() });
    world.open("a", 10);
    world.open("a", 70);
    world.until(100);
    world.open("a", 130);
    world.end("a", 140);
    world.check(&["100 silence 1 over, open a", "100 action a", "130 action a", "140 action end of a"]);
}

#[test]
fn what_a_cause_explains_is_told_when_the_cause_ends() {
    let rule = Inhibition {
        name: "host down".into(),
        cause: matchers(&["metric=agent.alive"]),
        explains: matchers(&["metric!=agent.alive"]),
        equal: vec![By::Endpoint],
    };
    let mut world = World::new(Policy {
        explaining: Explaining { rules: vec![rule], ..Explaining::default() },
        ..policy(one_group())
    });
    world.open_as("cpu", fact("cpu", "h"), 0);
    world.open_as("down", fact("agent.alive", "h"), 5);
    world.open_as("disk", fact("disk", "h"), 6);
    world.open_as("other", fact("disk", "g"), 7);
    world.until(50);
    world.check(&["10 ops: problem +down +other"]);
    let quiet = &world.pipeline.alarm("cpu").expect("open").quiet;
    assert_eq!(*quiet, Quiet::Explained { alarm: "down".into(), rule: "host down".into() });
    world.end("cpu", 60);
    world.end("down", 65);
    world.until(200);
    world.check(&["70 ops: update +disk =other -down"]);
}

#[test]
fn nobody_acknowledges_and_the_next_people_are_told() {
    let step = |after, team: &str| Step { after, to: serde_json::from_value(receiver(team)).expect("a receiver") };
    let chain = Escalation { steps: vec![step(100, "second"), step(300, "boss")], repeat: 1 };
    let mut text = one_group();
    text["escalation"] = json!("chain");
    let world = || {
        let escalations = HashMap::from([("chain".into(), chain.clone())]);
        World::new(Policy { escalations, ..policy(text.clone()) })
    };
    let mut nobody = world();
    nobody.open("a", 0);
    nobody.until(2000);
    nobody.check(&[
        "10 ops: problem +a",
        "110 second: escalation step 1 =a",
        "310 boss: escalation step 2 =a",
        "410 second: escalation step 1 =a",
        "610 boss: escalation step 2 =a",
    ]);
    let mut somebody = world();
    somebody.open("a", 0);
    somebody.until(150);
    somebody.pipeline.acknowledge("a", "x", None, 160);
    somebody.open("b", 500);
    somebody.until(650);
    let expected = ["10 ops: problem +a", "110 second: escalation step 1 =a", "510 ops: update +b =a"];
    somebody.check(&[expected[0], expected[1], "500 ops: update +b =a", "600 second: escalation step 1 =b"]);
}

#[test]
fn flapping_is_one_message_with_a_count() {
    let flapping = Some(Flapping { changes: 5, window: 600 });
    let mut world = World::new(Policy { flapping, ..policy(one_group()) });
    for round in 0..6 {
        world.open("a", round * 100);
        world.end("a", round * 100 + 50);
    }
    world.check(&[
        "10 ops: problem +a",
        "50 ops: resolved -a",
        "110 ops: problem +a",
        "150 ops: resolved -a",
        "200 ops: flapping, 5 changes =a",
    ]);
    world.until(3000);
    world.check(&["1150 ops: resolved -a"]);
    assert!(world.pipeline.alarms.len() == 0 && world.pipeline.groups.len() == 0);
}

#[test]
fn in_a_storm_a_summary_comes_first() {
    let storm = Some(Storm { hosts: 5, window: 60, hold: 120 });
    let text = json!({ "to": receiver("ops"), "group_by": ["endpoint"], "wait": 10, "interval": 60 });
    let mut world = World::new(Policy { storm, ..policy(text) });
    for host in 0..8 {
        world.open(&format!("h{host}"), host);
    }
    world.until(20);
    world.check(&["10 ops: storm, 8 hosts"]);
    world.until(1000);
    assert_eq!(world.said.len(), 8);
    assert!(world.said.iter().all(|line| line.contains("problem")), "{:?}", world.said);
}

#[test]
fn another_route_tells_it_anew_and_the_old_one_tells_the_end() {
    let mut world = World::new(policy(one_group()));
    world.open("a", 0);
    world.until(20);
    let moved = json!({ "name": "x", "to": receiver("web"), "group_by": ["all"], "wait": 0, "repeat": 50 });
    world.pipeline.set_policy(Arc::new(policy(moved)), 30);
    world.until(90);
    world.end("a", 100);
    world.until(101);
    world.check(&[
        "10 ops: problem +a",
        "30 web: problem +a",
        "80 web: repeat =a",
        "100 ops: resolved -a",
        "100 web: resolved -a",
    ]);
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let mut world = World::new(policy(one_group()));
    world.open("a", 100_000);
    world.pipeline.tick(50_000);
    world.take();
    world.until(50_010);
    world.check(&["50010 ops: problem +a"]);
}
