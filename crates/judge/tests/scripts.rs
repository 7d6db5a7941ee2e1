//! Scripts: `testdata/scripts/*.txt`, one file per function and per quirk, read as a story.
//!
//! ```text
//! semantics open-falcon                    default: hawkeye
//! min_interval 0s                          default: 300s
//! rule all(#3) < 10 max_step 3             more: id N, metric M, tags a=1,b=2, host H; `expression` instead of `rule`
//! rule 'all(#3) and nodata(#2) of m' > 10  words with blanks stand in single quotes
//! drop rule 1                              the rule is gone from now on (or `drop expression 1`)
//! load 60s cpu.idle/host=a 90 _ 5x3        values at 1m, 2m, …; `_` is a lost point, `5x3` three times 5
//! load 60s COUNTER @h2 net.in 0 600        a type other than GAUGE, an endpoint other than h
//! silence until 10m                        the clock goes on, and no more points come
//! restart losing 1                         kill, with the newest event not yet durable, and start again
//! restart at 20m                           the same, and down until then
//! expect PROBLEM at 5m step 1              the next event; more: left V, rule N, host H, series C,
//!                                          why 'the words of the terms that decided, joined by ; '
//! expect nothing                           no further event so far
//! ```
//!
//! Points that were loaded are played in the order of their times before the next `expect`, `play` or `restart`. A
//! further `load` of a series continues it. The clock shows the time of the point; the judge looks at it every five
//! seconds. No event may be left over at the end.

mod support;

use judge::{Options, RuleId, Semantics};
use model::{CounterType, Event, Expression, Point, RuleTags, Rules, SeriesId, Strategy};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use support::{Series, World};

/// Time 0 of the scripts: any multiple of the steps used.
const BASE: i64 = 1_600_002_000;

#[test]
fn scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/scripts");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("scripts").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "only {} scripts found", paths.len());
    let mut failures = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("readable script");
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if let Err(failure) = run(&text) {
            failures.push(format!("{name}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The runner itself must notice what is wrong.
#[test]
fn a_wrong_expectation_fails() {
    let story = "rule all(#1) < 10 max_step 3\nload 60s cpu.idle 5\n";
    let check = |expectation: &str, expected: &str| {
        let failure = run(&format!("{story}{expectation}")).expect_err(expectation);
        assert!(failure.contains(expected), "{failure}");
    };
    assert_eq!(run(&format!("{story}expect PROBLEM at 1m step 1 left 5 rule 1 series cpu.idle")), Ok(()));
    check("", "left over");
    check("expect nothing", "expected nothing");
    check("expect OK at 1m", "status");
    check("expect PROBLEM at 2m step 1", "time");
    check("expect PROBLEM at 1m step 2", "step");
    check("expect PROBLEM at 1m step 1 left 6", "left");
    check("expect PROBLEM at 1m why 'x'", "explanation");
    check("silence until 9m", "left over");
    check("expect PROBLEM at 1m\nexpect OK at 2m", "no event");
    check("expect PROBLEM at 1m\nfoo", "unknown statement");
}

fn run(text: &str) -> Result<(), String> {
    let mut story = Story::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().filter(|_| line.starts_with('#')).unwrap_or(line);
        let words = words_of(line);
        if !words.is_empty() && !line.is_empty() {
            story.statement(&words).map_err(|failure| format!("line {}: {failure}", number + 1))?;
        }
    }
    story.play();
    match story.unseen() {
        [] => Ok(()),
        rest => Err(format!("left over: {}", rest.iter().map(show).collect::<Vec<_>>().join("; "))),
    }
}

/// Split at blanks, but not within single quotes.
fn words_of(line: &str) -> Vec<&str> {
    let pieces = line.split('\'').enumerate();
    pieces.flat_map(|(i, piece)| if i % 2 == 1 { vec![piece] } else { piece.split_whitespace().collect() }).collect()
}

/// How often the judge looks at the clock.
const TICK_S: i64 = 5;

struct Story {
    world: World,
    rules: Vec<(RuleId, ScriptRule)>,
    ids: BTreeMap<(String, String), SeriesId>,
    /// For each series the number of periods loaded so far.
    periods: BTreeMap<SeriesId, i64>,
    pending: VecDeque<(i64, SeriesId, f64)>,
    now: i64,
    seen: usize,
}

#[derive(Clone)]
enum ScriptRule {
    Strategy { host: String, strategy: Strategy },
    Expression(Expression),
}

impl Story {
    fn new() -> Story {
        Story {
            world: World::new(Options::default()),
            rules: Vec::new(),
            ids: BTreeMap::new(),
            periods: BTreeMap::new(),
            pending: VecDeque::new(),
            now: BASE,
            seen: 0,
        }
    }

    fn statement(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["semantics", "open-falcon"] => self.set_options(|options| options.semantics = Semantics::OpenFalcon),
            ["semantics", "hawkeye"] => self.set_options(|options| options.semantics = Semantics::Hawkeye),
            ["min_interval", time] => {
                let seconds = duration(time)?;
                self.set_options(|options| options.min_interval_s = seconds)
            }
            ["rule", rest @ ..] => self.rule(rest, false),
            ["expression", rest @ ..] => self.rule(rest, true),
            ["drop", kind, id] => self.drop_rule(kind, id),
            ["load", step, rest @ ..] => self.load(duration(step)?, rest),
            ["play"] => {
                self.play();
                Ok(())
            }
            ["silence", "until", time] => {
                self.play();
                self.clock(BASE + duration(time)?);
                Ok(())
            }
            ["restart"] => self.restart(0, 0),
            ["restart", "losing", count] => self.restart(number(count)? as usize, 0),
            ["restart", "at", time] => self.restart(0, BASE + duration(time)?),
            ["expect", "nothing"] => self.expect_nothing(),
            ["expect", status, rest @ ..] => self.expect(status, rest),
            _ => Err(format!("unknown statement {words:?}")),
        }
    }

    fn set_options(&mut self, change: impl FnOnce(&mut Options)) -> Result<(), String> {
        if !self.ids.is_empty() || !self.rules.is_empty() {
            return Err("options come first".to_string());
        }
        let mut options = self.world.options;
        change(&mut options);
        self.world = World::new(options);
        Ok(())
    }

    fn rule(&mut self, words: &[&str], is_expression: bool) -> Result<(), String> {
        let [func, operator, right, options @ ..] = words else { return Err("want FUNC OP VALUE".to_string()) };
        let mut strategy = Strategy {
            id: 1,
            metric: "cpu.idle".into(),
            func: func.to_string(),
            operator: operator.to_string(),
            right_value: number(right)?,
            max_step: 3,
            ..Strategy::default()
        };
        let mut host = "h".to_string();
        for pair in options.chunks(2) {
            match pair {
                ["id", id] => strategy.id = number(id)? as i64,
                ["max_step", steps] => strategy.max_step = number(steps)? as i32,
                ["metric", metric] => strategy.metric = metric.to_string(),
                ["tags", tags] => strategy.tags = tag_map(tags),
                ["host", name] => host = name.to_string(),
                _ => return Err(format!("unknown option {pair:?} of a rule")),
            }
        }
        let (id, rule) = if is_expression {
            (RuleId::Expression(strategy.id), ScriptRule::Expression(expression_of(strategy)))
        } else {
            (RuleId::Strategy(strategy.id), ScriptRule::Strategy { host, strategy })
        };
        match self.rules.iter_mut().find(|(other, _)| *other == id) {
            Some(slot) => slot.1 = rule,
            None => self.rules.push((id, rule)),
        }
        self.reload()
    }

    fn drop_rule(&mut self, kind: &str, id: &str) -> Result<(), String> {
        let id = number(id)? as i64;
        let id = if kind == "expression" { RuleId::Expression(id) } else { RuleId::Strategy(id) };
        self.rules.retain(|(other, _)| *other != id);
        self.reload()
    }

    fn model_rules(&self) -> Rules {
        let mut hosts: BTreeMap<String, Vec<Arc<Strategy>>> = BTreeMap::new();
        let mut rules = Rules::default();
        for (_, rule) in &self.rules {
            match rule {
                ScriptRule::Strategy { host, strategy } => {
                    hosts.entry(host.clone()).or_default().push(Arc::new(strategy.clone()));
                }
                ScriptRule::Expression(expression) => rules.expressions.push(Arc::new(expression.clone())),
            }
        }
        rules.hosts = hosts.into_iter().map(|(host, strategies)| (host, strategies.into())).collect();
        rules
    }

    fn reload(&mut self) -> Result<(), String> {
        match self.world.load(&self.model_rules()).as_slice() {
            [] => Ok(()),
            [first, ..] => Err(format!("{}: {}", first.name, first.error)),
        }
    }

    fn load(&mut self, step: i64, words: &[&str]) -> Result<(), String> {
        let (counter_type, words) = match words {
            ["GAUGE", rest @ ..] => (CounterType::Gauge, rest),
            ["COUNTER", rest @ ..] => (CounterType::Counter, rest),
            ["DERIVE", rest @ ..] => (CounterType::Derive, rest),
            rest => (CounterType::Gauge, rest),
        };
        let (endpoint, words) = match words {
            [first, rest @ ..] if first.starts_with('@') => (&first[1..], rest),
            rest => ("h", rest),
        };
        let [counter, values @ ..] = words else { return Err("want a counter".to_string()) };
        let series = self.series(endpoint, counter, counter_type, step as u32);
        let period = self.periods.entry(series).or_default();
        for value in values {
            let (value, count) = value.split_once('x').unwrap_or((value, "1"));
            for _ in 0..count.parse::<u32>().map_err(|error| format!("{value}x{count}: {error}"))? {
                *period += 1;
                if value != "_" {
                    self.pending.push_back((BASE + *period * step, series, number(value)?));
                }
            }
        }
        Ok(())
    }

    fn series(&mut self, endpoint: &str, counter: &str, counter_type: CounterType, step: u32) -> SeriesId {
        let name = (endpoint.to_string(), counter.to_string());
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let (metric, tags) = model::series::split_counter(counter);
        let id = self.world.add(Series::new(endpoint, metric, tags, counter_type, step));
        self.ids.insert(name, id);
        id
    }

    fn play(&mut self) {
        let mut points: Vec<_> = self.pending.drain(..).collect();
        points.sort_by_key(|(time, _, _)| *time);
        for (time, series, value) in points {
            self.clock(time);
            self.world.push(series, Point { time, value }, time);
        }
    }

    fn clock(&mut self, until: i64) {
        while self.now + TICK_S < until {
            self.now += TICK_S;
            self.world.tick(self.now);
        }
        self.now = self.now.max(until);
        self.world.tick(self.now);
    }

    fn restart(&mut self, lost: usize, up_at: i64) -> Result<(), String> {
        self.play();
        self.now = self.now.max(up_at);
        let rules = self.model_rules();
        self.seen = self.seen.min(self.world.events.len() - lost);
        self.world.restart(&rules, lost, self.now);
        Ok(())
    }

    fn unseen(&self) -> &[Event] {
        &self.world.events[self.seen..]
    }

    fn expect_nothing(&mut self) -> Result<(), String> {
        self.play();
        match self.unseen() {
            [] => Ok(()),
            [first, ..] => Err(format!("expected nothing, got {}", show(first))),
        }
    }

    fn expect(&mut self, status: &str, words: &[&str]) -> Result<(), String> {
        self.play();
        let [event, ..] = self.unseen() else { return Err(format!("no event where {status} {words:?} is expected")) };
        let compare = |what: &str, got: String, expected: &str| {
            if got == expected { Ok(()) } else { Err(format!("{what} of {} is not {expected}", show(event))) }
        };
        compare("status", event.status.as_str().to_string(), status)?;
        for pair in words.chunks(2) {
            match pair {
                ["at", time] => compare("time", event.time.to_string(), &(BASE + duration(time)?).to_string())?,
                ["step", step] => compare("step", event.current_step.to_string(), step)?,
                ["left", left] => compare("left", model::number::five_decimals(event.left_value), left)?,
                ["rule", id] => compare("rule", event.strategy_id().to_string(), id)?,
                ["expression", id] => compare("expression", event.expression_id().to_string(), id)?,
                ["host", host] => compare("host", event.endpoint.clone(), host)?,
                ["why", words] => compare("explanation", why(event), words)?,
                ["series", counter] => compare("series", event.key().counter(), counter)?,
                _ => return Err(format!("unknown expectation {pair:?}")),
            }
        }
        self.seen += 1;
        Ok(())
    }
}

fn why(event: &Event) -> String {
    let terms = event.explanation.iter().flat_map(|explanation| &explanation.terms);
    terms.map(|term| term.words.clone()).collect::<Vec<_>>().join("; ")
}

fn expression_of(s: Strategy) -> Expression {
    Expression {
        id: s.id,
        metric: s.metric,
        tags: s.tags,
        func: s.func,
        operator: s.operator,
        right_value: s.right_value,
        max_step: s.max_step,
        ..Expression::default()
    }
}

fn tag_map(tags: &str) -> RuleTags {
    let pairs = tags.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn duration(text: &str) -> Result<i64, String> {
    let (digits, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("{text}: want a duration such as 60s, 5m or 2h")),
    };
    Ok(number(digits)? as i64 * unit)
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn show(event: &Event) -> String {
    let minutes = (event.time - BASE) as f64 / 60.0;
    let (status, step, left) = (event.status.as_str(), event.current_step, event.left_value);
    format!(
        "{status} at {minutes}m step {step} left {left} of {} on {} why '{}'",
        RuleId::of(&event.rule),
        event.key().counter(),
        why(event)
    )
}
