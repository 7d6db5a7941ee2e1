//! Histories: random ones, against what people can count on.
//!
//! How: a listener keeps, for each group, which alarms he knows to be open, and complains where he hears twice of one
//! opening, of the end of what he does not know, or nothing for long of what he should know.

use super::*;
use crate::fact::Rule;
use crate::inhibit::{Explaining, Inhibition};
use crate::matcher::Matcher;
use crate::policy::{Escalation, Flapping, Step, Storm};
use crate::route::{By, RouteText, Tree};
use crate::silence::Silence;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::json;

/// Longest that news may take: the wait and interval of the routes below, a storm, and the window of flapping.
const NEWS_WITHIN: i64 = 2000;
const HOSTS: usize = 6;
const METRICS: [&str; 3] = ["agent.alive", "cpu", "disk"];

#[derive(Clone, Debug)]
enum Act {
    Open {
        host: usize,
        metric: usize,
    },
    End {
        host: usize,
        metric: usize,
    },
    Acknowledge {
        host: usize,
        metric: usize,
        until: Option<i64>,
    },
    Release {
        host: usize,
        metric: usize,
    },
    /// Another policy: with which silences, which tree.
    Policy {
        silence: Option<usize>,
        tree: usize,
    },
    Wait(i64),
    ClockBack(i64),
    /// The process is killed, and begins with what it has stored.
    Crash,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let alarm = (0..HOSTS, 0..METRICS.len());
    let act = prop_oneof![
        6 => alarm.clone().prop_map(|(host, metric)| Act::Open { host, metric }),
        4 => alarm.clone().prop_map(|(host, metric)| Act::End { host, metric }),
        1 => (alarm.clone(), proptest::option::of(1..900_i64))
            .prop_map(|((host, metric), until)| Act::Acknowledge { host, metric, until }),
        1 => alarm.prop_map(|(host, metric)| Act::Release { host, metric }),
        1 => (proptest::option::of(0..HOSTS), 0..3_usize).prop_map(|(silence, tree)| Act::Policy { silence, tree }),
        8 => (0..300_i64).prop_map(Act::Wait),
        1 => (1..5000_i64).prop_map(Act::ClockBack),
        1 => Just(Act::Crash),
    ];
    proptest::collection::vec(act, 1..80)
}

fn policy(silence: Option<usize>, tree: usize, now: i64) -> Policy {
    let ops = json!([{ "to": { "team": "ops" } }]);
    let text = match tree {
        0 => json!({ "to": ops, "group_by": ["all"], "wait": 10, "interval": 60, "repeat": 500 }),
        1 => json!({ "to": ops, "group_by": ["endpoint"], "wait": 0, "interval": 30, "escalation": "chain", "routes": [
            { "name": "disks", "when": ["metric=disk"], "group_by": ["metric"], "continue": true },
            { "name": "rest", "when": ["priority=2"], "to": [{ "to": "action" }, { "to": { "user": "me" } }] },
        ]}),
        _ => {
            json!({ "routes": [{ "name": "cpu", "when": ["metric=cpu"], "to": ops, "group_by": ["all"], "wait": 100 }] })
        }
    };
    let text: RouteText = serde_json::from_value(text).expect("a text");
    let matchers = |texts: &[&str]| texts.iter().map(|text| Matcher::parse(text).expect(text)).collect::<Vec<_>>();
    let silence = silence.map(|host| Silence {
        id: host as i64,
        matchers: matchers(&[&format!("endpoint=h{host}")]),
        from: now,
        until: now + 1000,
        window: None,
        comment: String::new(),
        who: String::new(),
    });
    let inhibition = Inhibition {
        name: "down".into(),
        cause: matchers(&["metric=agent.alive"]),
        explains: matchers(&["metric!=agent.alive"]),
        equal: vec![By::Endpoint],
    };
    let steps =
        vec![Step { after: 50, to: serde_json::from_value(json!([{ "to": { "user": "boss" } }])).expect("one") }];
    Policy {
        tree: Tree::compile(&text, &|_| Some(TimeZone::UTC), &["chain"]).expect("a tree"),
        silences: silence.into_iter().collect(),
        explaining: Explaining { rules: vec![inhibition], ..Explaining::default() },
        escalations: HashMap::from([("chain".into(), Escalation { steps, repeat: 1 })]),
        flapping: Some(Flapping { changes: 6, window: 400 }),
        storm: Some(Storm { hosts: 5, window: 60, hold: 120 }),
    }
}

/// Who hears everything.
#[derive(Default)]
struct Listener {
    /// Open alarms that each group has told of, as far as this one knows.
    known: BTreeSet<(GroupId, Box<str>)>,
    /// Openings that were snoozed, and may be told again.
    snoozed: BTreeSet<Box<str>>,
    acted: BTreeSet<Box<str>>,
    /// What is stored with the effects, as texts.
    alarms: BTreeMap<Serial, String>,
    groups: BTreeMap<GroupId, String>,
    next: u64,
    at: i64,
}

impl Listener {
    fn hear(&mut self, pipeline: &mut Pipeline) -> Result<(), TestCaseError> {
        self.store(pipeline.changes());
        for effect in pipeline.drain() {
            match effect {
                Effect::Action { alarm, has_ended: false } => _ = self.acted.insert(alarm),
                Effect::Action { alarm, .. } => {
                    prop_assert!(self.acted.remove(&alarm), "the end of {} that nobody heard of", alarm);
                }
                Effect::Notice(notice) => self.read(&notice)?,
                Effect::Story { .. } | Effect::SilenceOver { .. } => {}
            }
        }
        Ok(())
    }

    fn store(&mut self, changed: Changed<'_>) {
        store(&mut self.alarms, changed.alarms);
        store(&mut self.groups, changed.groups);
        (self.next, self.at) = (changed.next, changed.at);
    }

    fn stored(&self) -> Stored {
        Stored { alarms: restored(&self.alarms), groups: restored(&self.groups), next: self.next, at: self.at }
    }

    fn read(&mut self, notice: &Notice) -> Result<(), TestCaseError> {
        if matches!(notice.what, What::Flapping(_)) {
            self.known.extend(notice.known.iter().map(|alarm| (notice.group, alarm.clone())));
        }
        for alarm in &notice.fresh {
            let is_new = self.known.insert((notice.group, alarm.clone()));
            prop_assert!(is_new || self.snoozed.contains(alarm), "{} is told twice by {}", alarm, notice.group);
        }
        for alarm in &notice.ended {
            let was_known = self.known.remove(&(notice.group, alarm.clone()));
            prop_assert!(was_known, "the end of {} that {} never told of", alarm, notice.group);
        }
        prop_assert!(!notice.to.is_empty() && (notice.what != What::Repeat || notice.fresh.is_empty()));
        Ok(())
    }
}

fn store<T: serde::Serialize>(rows: &mut BTreeMap<u64, String>, changed: Vec<(u64, Option<&T>)>) {
    for (id, row) in changed {
        match row {
            Some(row) => _ = rows.insert(id, serde_json::to_string(row).expect("JSON")),
            None => _ = rows.remove(&id),
        }
    }
}

fn restored<T: serde::de::DeserializeOwned>(rows: &BTreeMap<u64, String>) -> BTreeMap<u64, T> {
    rows.iter().map(|(id, text)| (*id, serde_json::from_str(text).expect("a row"))).collect()
}

fn run(pipeline: &mut Pipeline, listener: &mut Listener, until: i64) -> Result<(), TestCaseError> {
    while let Some(at) = pipeline.next_due().filter(|at| *at <= until) {
        let now = at.max(pipeline.now);
        pipeline.tick(now);
        listener.hear(pipeline)?;
    }
    pipeline.tick(until);
    listener.hear(pipeline)
}

fn check(acts: &[Act]) -> Result<(), TestCaseError> {
    let mut now = 1_000_000;
    let mut current = Arc::new(policy(None, 0, now));
    let mut pipeline = Pipeline::new(current.clone(), now);
    let mut listener = Listener::default();
    let id = |host: usize, metric: usize| format!("h{host}.{}", METRICS[metric]);
    for act in acts {
        match act {
            Act::Open { host, metric } => {
                let rule = Rule { priority: *metric as i32, metric: METRICS[*metric].into(), ..Rule::default() };
                let endpoint = format!("h{host}").into();
                let fact = Fact { rule: Arc::new(rule), endpoint, ..Fact::default() };
                pipeline.problem(&id(*host, *metric), fact, now);
            }
            Act::End { host, metric } => pipeline.recovered(&id(*host, *metric), "", now),
            Act::Acknowledge { host, metric, until } => {
                let id = id(*host, *metric);
                if pipeline.acknowledge(&id, "me", until.map(|after| now + after), now) && until.is_some() {
                    listener.snoozed.insert(id.into());
                }
            }
            Act::Release { host, metric } => _ = pipeline.release(&id(*host, *metric), "me", now),
            Act::Policy { silence, tree } => {
                current = Arc::new(policy(*silence, *tree, now));
                pipeline.set_policy(current.clone(), now);
            }
            Act::Crash => {
                // What was decided and not stored is decided again.
                pipeline.tick(now);
                pipeline = Pipeline::restore(current.clone(), listener.stored(), now);
                now += 1;
            }
            Act::Wait(seconds) => now += seconds,
            Act::ClockBack(seconds) => now -= seconds,
        }
        listener.hear(&mut pipeline)?;
        run(&mut pipeline, &mut listener, now)?;
    }
    // Nothing is forgotten: all that is open and loud is known by each of its groups.
    now += NEWS_WITHIN;
    run(&mut pipeline, &mut listener, now)?;
    for alarm in pipeline.open().filter(|alarm| alarm.is_to_be_told()) {
        for group in &alarm.groups {
            let is_known = listener.known.contains(&(*group, alarm.id.clone()));
            prop_assert!(is_known, "{} is never told by {}", alarm.id, group);
        }
        prop_assert!(!alarm.is_for_action || listener.acted.contains(&alarm.id), "no action for {}", alarm.id);
    }
    // When all has ended, everybody knows, and nothing is left.
    let open: Vec<Box<str>> = pipeline.open().map(|alarm| alarm.id.clone()).collect();
    open.iter().for_each(|id| pipeline.recovered(id, "", now));
    listener.hear(&mut pipeline)?;
    run(&mut pipeline, &mut listener, now + NEWS_WITHIN)?;
    prop_assert!(listener.known.is_empty(), "open for ever: {:?}", listener.known);
    prop_assert!(listener.acted.is_empty(), "open for ever: {:?}", listener.acted);
    prop_assert!(pipeline.alarms.len() == 0, "{:?}", pipeline.alarms);
    prop_assert!(pipeline.groups.len() == 0 && pipeline.by_key.is_empty() && pipeline.by_id.is_empty());
    Ok(())
}

/// Histories of one run; `ALARM_HISTORIES` gives another number.
fn histories() -> u32 {
    std::env::var("ALARM_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: histories(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nobody_hears_twice_and_nobody_is_forgotten(acts in acts()) {
        check(&acts)?;
    }
}
