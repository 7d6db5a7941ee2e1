//! What the original judge sent, replayed: 154 recorded scenarios, under `Semantics::OpenFalcon`, event for event.
//!
//! The original also keeps the points; that part is played by this test: a point that is not newer than the newest is
//! dropped, and so is one of a metric that no rule uses.

mod support;

use judge::{Options, RuleSet, Semantics};
use model::{CounterType, Event, Expression, Point, Rules, SeriesId, Strategy};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use support::windowed::Windowed;
use support::{Series, World};

#[derive(Deserialize)]
struct Scenario {
    name: String,
    min_interval: i64,
    rules: RecordedRules,
    #[serde(default)]
    rule_changes: Vec<RuleChange>,
    series: Vec<RecordedSeries>,
    points: Vec<(i64, serde_json::Value, usize, i64)>,
    events: Vec<RecordedEvent>,
}

#[derive(Deserialize)]
struct RecordedRules {
    strategies: Vec<HostStrategy>,
    expressions: Vec<Expression>,
}

#[derive(Deserialize)]
struct HostStrategy {
    hostname: String,
    strategy: Strategy,
}

#[derive(Deserialize)]
struct RuleChange {
    before_point: usize,
    rules: RecordedRules,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordedSeries {
    endpoint: String,
    metric: String,
    tags: BTreeMap<String, String>,
    judge_type: String,
}

#[derive(Deserialize)]
struct RecordedEvent {
    point: usize,
    queue: String,
    json: String,
}

impl RecordedRules {
    fn to_model(&self) -> Rules {
        let mut hosts: HashMap<String, Vec<Arc<Strategy>>> = HashMap::new();
        for row in &self.strategies {
            hosts.entry(row.hostname.clone()).or_default().push(Arc::new(row.strategy.clone()));
        }
        Rules {
            version: 1,
            hosts: hosts.into_iter().map(|(host, strategies)| (host, strategies.into())).collect(),
            expressions: self.expressions.iter().cloned().map(Arc::new).collect(),
        }
    }
}

impl RecordedSeries {
    fn counter_type(&self) -> CounterType {
        // The original looks at the first letter only.
        if self.judge_type.starts_with(['G', 'g']) { CounterType::Gauge } else { CounterType::Counter }
    }

    fn to_world(&self) -> Series {
        let tags: Vec<String> = self.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Series::new(&self.endpoint, &self.metric, &tags.join(","), self.counter_type(), 60)
    }
}

#[test]
fn all_recorded_scenarios_match() {
    each_scenario("over all points", |scenario| play(scenario, &mut Stored::new(scenario)));
}

/// As a judge alone keeps them: only of series that have a rule, and only so many points.
#[test]
fn all_recorded_scenarios_match_over_windows() {
    each_scenario("over windows", |scenario| play(scenario, &mut Windowed::new(options(scenario))));
}

fn each_scenario(how: &str, play: impl Fn(&Scenario) -> Result<(), String>) {
    let text = testdata::text("judge/vectors.jsonl");
    let mut failures = Vec::new();
    let mut count = 0;
    for line in text.lines() {
        let scenario: Scenario = serde_json::from_str(line).expect("recorded scenario");
        count += 1;
        if let Err(failure) = play(&scenario) {
            failures.push(format!("{}: {failure}", scenario.name));
        }
    }
    assert!(failures.is_empty(), "{} of {count} differ:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(count, 154);
    println!("{count} recorded scenarios match {how}");
}

/// A judge with its points.
trait Judging {
    fn load_rules(&mut self, rules: &Rules);

    /// Keeps and judges a point of the recorded series of this number, or drops it as the original does.
    fn send(&mut self, recorded: &RecordedSeries, number: usize, point: Point, now: i64) -> Vec<Event>;
}

struct Stored {
    world: World,
    ids: Vec<SeriesId>,
}

impl Stored {
    fn new(scenario: &Scenario) -> Stored {
        let mut world = World::new(options(scenario));
        // Recorded series that differ in their type only are one.
        let mut ids: Vec<SeriesId> = Vec::new();
        for recorded in &scenario.series {
            let series = recorded.to_world();
            let same = world.table.0.iter().position(|other| other.key() == series.key());
            ids.push(same.map_or_else(|| world.add(series), |number| SeriesId(number as u32)));
        }
        Stored { world, ids }
    }
}

impl Judging for Stored {
    fn load_rules(&mut self, rules: &Rules) {
        self.world.load(rules);
    }

    fn send(&mut self, recorded: &RecordedSeries, number: usize, point: Point, now: i64) -> Vec<Event> {
        let (id, world) = (self.ids[number], &mut self.world);
        world.change_type(id, recorded.counter_type());
        if is_kept(world, &world.rules, id, point.time) { world.push(id, point, now).to_vec() } else { Vec::new() }
    }
}

impl Judging for Windowed {
    fn load_rules(&mut self, rules: &Rules) {
        self.load(rules);
    }

    fn send(&mut self, recorded: &RecordedSeries, _: usize, point: Point, now: i64) -> Vec<Event> {
        self.item(recorded.to_world().key(), recorded.counter_type(), point, now)
    }
}

fn options(scenario: &Scenario) -> Options {
    Options { semantics: Semantics::OpenFalcon, min_interval_s: scenario.min_interval, ..Options::default() }
}

fn play(scenario: &Scenario, judging: &mut impl Judging) -> Result<(), String> {
    judging.load_rules(&scenario.rules.to_model());
    for (number, (time, value, series, now)) in scenario.points.iter().enumerate() {
        for change in scenario.rule_changes.iter().filter(|change| change.before_point == number) {
            judging.load_rules(&change.rules.to_model());
        }
        let point = Point { time: *time, value: number_of(value) };
        let sent = judging.send(&scenario.series[*series], *series, point, *now);
        let sent: Vec<_> = sent.iter().map(|event| (queue(event), event.to_json())).collect();
        let expected = scenario.events.iter().filter(|event| event.point == number);
        let expected: Vec<_> = expected.map(|event| (event.queue.clone(), event.json.clone())).collect();
        compare(&sent, &expected, number)?;
    }
    Ok(())
}

/// The order over several queues, and that of expressions, is not defined: compared as sets, queue by queue.
fn compare(sent: &[(String, String)], expected: &[(String, String)], point: usize) -> Result<(), String> {
    let sorted = |events: &[(String, String)]| {
        let mut events = events.to_vec();
        events.sort();
        events
    };
    let only_strategies = expected.iter().all(|(_, json)| json.contains("\"expression\":null"));
    let one_queue = expected.iter().all(|(queue, _)| *queue == expected[0].0);
    let same = if only_strategies && one_queue { sent == expected } else { sorted(sent) == sorted(expected) };
    if same { Ok(()) } else { Err(format!("at point {point}: sent {sent:#?}, expected {expected:#?}")) }
}

fn is_kept(world: &World, rules: &RuleSet, series: SeriesId, time: i64) -> bool {
    let row = &world.table.0[series.0 as usize];
    let is_newest = row.points.last().is_none_or(|newest| time > newest.time && time > 0);
    is_newest && rules.uses_metric(&row.metric)
}

fn number_of(value: &serde_json::Value) -> f64 {
    match value.as_str() {
        Some("NaN") => f64::NAN,
        Some("+Inf") => f64::INFINITY,
        Some("-Inf") => f64::NEG_INFINITY,
        // Gob does not transmit the sign of a zero.
        _ => value.as_f64().expect("number, NaN or infinity") + 0.0,
    }
}

fn queue(event: &Event) -> String {
    format!("event:p{}", event.priority())
}

/// Recorded scenarios as a rehearsal of what a store would hold, where the rules and types stay and the wall clock
/// (which a rehearsal sets to the times of the points) decides nothing.
#[test]
fn a_rehearsal_tells_what_was_recorded() {
    let text = testdata::text("judge/vectors.jsonl");
    let scenarios = text.lines().map(|line| serde_json::from_str::<Scenario>(line).expect("recorded scenario"));
    let (mut count, mut told) = (0, 0);
    for scenario in scenarios.filter(is_for_rehearsal) {
        let mut expected: Vec<&str> = scenario.events.iter().map(|event| event.json.as_str()).collect();
        let mut events = rehearse(&scenario);
        events.sort();
        expected.sort();
        assert_eq!(events, expected, "{}", scenario.name);
        count += 1;
        told += events.len();
    }
    assert_eq!((count, told), (136, 488));
}

fn is_for_rehearsal(scenario: &Scenario) -> bool {
    // No store holds times before 1970.
    let is_late_enough =
        |(time, _, _, now): &(i64, serde_json::Value, usize, i64)| *time > 0 && now - time >= scenario.min_interval;
    let mut types: HashMap<String, CounterType> = HashMap::new();
    let keeps_type = |series: &RecordedSeries| {
        let (counter_type, world) = (series.counter_type(), series.to_world());
        let name = format!("{} {}", world.endpoint, world.key().counter());
        *types.entry(name).or_insert(counter_type) == counter_type
    };
    scenario.rule_changes.is_empty()
        && scenario.points.iter().all(is_late_enough)
        && scenario.series.iter().all(keeps_type)
}

fn rehearse(scenario: &Scenario) -> Vec<String> {
    let options = Options { semantics: Semantics::OpenFalcon, min_interval_s: 0, ..Options::default() };
    let (rehearsal, _) = judge::Rehearsal::new(scenario.rules.to_model(), options);
    let mut table: Vec<Series> = Vec::new();
    for (time, value, series, _) in &scenario.points {
        let series = scenario.series[*series].to_world();
        let at = table.iter().position(|other| other.key() == series.key()).unwrap_or_else(|| {
            table.push(series);
            table.len() - 1
        });
        let points = &mut table[at].points;
        if points.last().is_none_or(|newest| newest.time < *time) {
            points.push(Point { time: *time, value: number_of(value) });
        }
    }
    let always = 0..i64::MAX;
    let schedule = judge::Schedule { hours: std::slice::from_ref(&always), until: i64::MAX, closed: "" };
    let mut events = Vec::new();
    for series in &table {
        let Series { counter_type, step, points, .. } = series;
        let history =
            judge::History { key: series.key(), counter_type: *counter_type, step: *step, before: &[], points };
        let played = rehearsal.play(&[history], schedule, &mut |event| {
            events.push(event.to_json());
            std::ops::ControlFlow::Continue(())
        });
        assert!(played.is_continue());
    }
    events
}
