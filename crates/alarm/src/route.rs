//! Route: an ordered tree that says whom an alarm is for, how alarms are put together, and how often people hear of
//! them.
//!
//! How: an alarm goes down the tree from its root. Of the branches of a route the first that matches takes it, unless
//! that says `continue`: then the next ones are looked at, too. Where no branch takes it, it stays with the route. What
//! a route leaves out is its parent's.
//! Invariants: the root matches everything, so an alarm always has a route; a tree that was compiled has receivers and
//! times at each of its nodes.
//! Memory: some hundred bytes per route; receivers are shared by those that inherit them.
//! Compat: as Alertmanager's routes; the receiver `action` is Open-Falcon's action of the rule, and what a site has
//! that configures nothing.

use crate::fact::Fact;
use crate::matcher::{MATCHERS_MAX, Matcher, all_match};
use crate::window::Window;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Routes of a tree; a guess: sites have tens.
pub const ROUTES_MAX: usize = 1000;
/// Depth of a tree: more is not understood by who reads it.
const DEPTH_MAX: usize = 10;
/// Receivers of a route.
const TO_MAX: usize = 32;
/// Fields that alarms are put together by.
const BY_MAX: usize = 8;
/// Seconds of `wait`, `interval`, `repeat`: a month is as good as never.
const SECONDS_MAX: i64 = 31 * 86_400;

/// A receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// The rule's own action: its teams, its callback.
    Action,
    Team(String),
    User(String),
    /// Whoever is on call.
    Rota(String),
}

/// A receiver, and the channels by which it is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receiver {
    pub to: To,
    /// Names of channels; none is each that the receiver has an address for.
    #[serde(default)]
    pub by: Vec<String>,
}

/// A route as people write it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteText {
    pub name: String,
    /// All must match; the root has none.
    pub when: Vec<Matcher>,
    /// Times of the week; none is always.
    pub during: Vec<String>,
    /// Zone of `during`, like `Asia/Shanghai`; "" is the parent's, the root's is the server's.
    pub zone: String,
    /// None is the parent's.
    pub to: Vec<Receiver>,
    /// Fields by which alarms are put together: `alarm` (each alone), `all` (one group), `endpoint`, `metric`,
    /// `priority`, `template`, `strategy`, `note`, `group`, `tags.KEY`.
    pub group_by: Option<Vec<String>>,
    /// Seconds from a group's first alarm to its first message.
    pub wait: Option<i64>,
    /// Seconds between two messages of a group that has changed.
    pub interval: Option<i64>,
    /// Seconds after which an unchanged group is told again; 0 is never.
    pub repeat: Option<i64>,
    /// Name of an escalation; "" ends the parent's.
    pub escalation: Option<String>,
    /// The routes behind this one are looked at, too.
    #[serde(rename = "continue")]
    pub goes_on: bool,
    pub routes: Vec<RouteText>,
}

/// How alarms are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub wait: i64,
    pub interval: i64,
    pub repeat: i64,
}

/// Times of a root that names none: a message at once, as in Open-Falcon.
const DEFAULT_TIMES: Times = Times { wait: 0, interval: 300, repeat: 0 };

/// A route that can be used.
#[derive(Clone, Debug)]
pub struct Route {
    /// Names from the root, joined by `/`.
    pub path: Arc<str>,
    pub to: Arc<[Receiver]>,
    pub by: Arc<[By]>,
    pub times: Times,
    pub escalation: Option<Arc<str>>,
    when: Vec<Matcher>,
    during: Option<Window>,
    goes_on: bool,
    /// Place behind its last descendant.
    end: usize,
}

/// Field by which alarms are put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    Alarm,
    Endpoint,
    Metric,
    Priority,
    Template,
    Strategy,
    Note,
    Group,
    Tag(Box<str>),
}

/// Routes in the order of their texts, each before its branches.
#[derive(Clone, Debug)]
pub struct Tree {
    routes: Vec<Route>,
}

/// What a route has from its parent.
struct Inherited {
    path: String,
    zone: TimeZone,
    to: Arc<[Receiver]>,
    by: Arc<[By]>,
    times: Times,
    escalation: Option<Arc<str>>,
}

impl Tree {
    /// The tree of a site that configures nothing: the rule's action, each alarm alone.
    pub fn original() -> Tree {
        let Ok(tree) = Tree::compile(&RouteText::default(), &|_| Some(TimeZone::UTC), &[]) else {
            unreachable!("a route without a text has no fault")
        };
        tree
    }

    /// Makes a tree of its text, or tells all that is wrong. `zone` finds a zone by its name, "" being the server's;
    /// `escalations` are the names that exist.
    pub fn compile(
        root: &RouteText,
        zone: &dyn Fn(&str) -> Option<TimeZone>,
        escalations: &[&str],
    ) -> Result<Tree, Vec<String>> {
        let mut compiling = Compiling { zone, escalations, routes: Vec::new(), faults: Vec::new() };
        if !root.when.is_empty() || !root.during.is_empty() {
            compiling.faults.push("the root has when or during: leave them out, it is for all alarms".to_string());
        }
        let above = Inherited {
            path: String::new(),
            zone: zone("").unwrap_or(TimeZone::UTC),
            to: Arc::new([Receiver { to: To::Action, by: Vec::new() }]),
            by: Arc::new([By::Alarm]),
            times: DEFAULT_TIMES,
            escalation: None,
        };
        compiling.add(root, &above, 0);
        if compiling.routes.len() > ROUTES_MAX {
            compiling.faults.push(format!("there are more than {ROUTES_MAX} routes: give fewer"));
        }
        if compiling.faults.is_empty() { Ok(Tree { routes: compiling.routes }) } else { Err(compiling.faults) }
    }

    /// Appends the places of the routes that an alarm takes at a moment, in their order.
    pub fn route(&self, fact: &Fact, at: i64, out: &mut Vec<usize>) {
        self.walk(0, fact, at, out);
    }

    /// Routes of the tree, the root among them.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route; a tree has its root.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The route at a place.
    pub fn at(&self, place: usize) -> &Route {
        &self.routes[place]
    }

    /// The next moment at which some route takes other alarms; none where that never changes.
    pub fn next_change(&self, at: i64) -> Option<i64> {
        self.routes.iter().filter_map(|route| route.during.as_ref()?.next_change(at)).min()
    }

    fn walk(&self, place: usize, fact: &Fact, at: i64, out: &mut Vec<usize>) -> bool {
        let route = &self.routes[place];
        if !all_match(&route.when, fact) || route.during.as_ref().is_some_and(|window| !window.contains(at)) {
            return false;
        }
        let (mut branch, mut is_taken) = (place + 1, false);
        while branch < route.end {
            if self.walk(branch, fact, at, out) {
                is_taken = true;
                if !self.routes[branch].goes_on {
                    break;
                }
            }
            branch = self.routes[branch].end;
        }
        if !is_taken {
            out.push(place);
        }
        true
    }
}

struct Compiling<'a> {
    zone: &'a dyn Fn(&str) -> Option<TimeZone>,
    escalations: &'a [&'a str],
    routes: Vec<Route>,
    faults: Vec<String>,
}

impl Compiling<'_> {
    fn add(&mut self, text: &RouteText, above: &Inherited, depth: usize) {
        let name = if text.name.is_empty() { self.routes.len().to_string() } else { text.name.clone() };
        let path = if depth == 0 { name } else { format!("{}/{name}", above.path) };
        if depth > DEPTH_MAX || self.routes.len() >= ROUTES_MAX {
            return self.faults.push(format!("{path}: routes are nested {depth} deep, or too many: give fewer"));
        }
        let own = self.own(text, above, path);
        let during = self.during(text, &own);
        let place = self.routes.len();
        self.routes.push(Route {
            path: own.path.as_str().into(),
            to: own.to.clone(),
            by: own.by.clone(),
            times: own.times,
            escalation: own.escalation.clone(),
            when: text.when.clone(),
            during,
            goes_on: text.goes_on,
            end: 0,
        });
        for branch in &text.routes {
            self.add(branch, &own, depth + 1);
        }
        self.routes[place].end = self.routes.len();
    }

    fn own(&mut self, text: &RouteText, above: &Inherited, path: String) -> Inherited {
        if text.when.len() > MATCHERS_MAX || text.to.len() > TO_MAX {
            self.fault(
                &path,
                &format!(
                    "when has {} and to {}: give at most {MATCHERS_MAX} and {TO_MAX}",
                    text.when.len(),
                    text.to.len()
                ),
            );
        }
        let zone = match text.zone.as_str() {
            "" => above.zone.clone(),
            name => (self.zone)(name).unwrap_or_else(|| {
                self.fault(&path, &format!("zone is {name:?}, which is not known: give one like Asia/Shanghai"));
                above.zone.clone()
            }),
        };
        let by = match &text.group_by {
            None => above.by.clone(),
            Some(names) => self.by(&path, names),
        };
        let escalation = match text.escalation.as_deref() {
            None => above.escalation.clone(),
            Some("") => None,
            Some(name) => {
                if !self.escalations.contains(&name) {
                    self.fault(&path, &format!("escalation is {name:?}, which does not exist: make it first"));
                }
                Some(name.into())
            }
        };
        let times = self.times(&path, text, above.times);
        let to = if text.to.is_empty() { above.to.clone() } else { text.to.clone().into() };
        Inherited { path, zone, to, by, times, escalation }
    }

    fn by(&mut self, path: &str, names: &[String]) -> Arc<[By]> {
        let known: Vec<Option<By>> = names.iter().filter(|name| *name != "all").map(|name| By::parse(name)).collect();
        for (name, _) in names.iter().filter(|name| *name != "all").zip(&known).filter(|(_, by)| by.is_none()) {
            self.fault(path, &format!("group_by has {name:?}: give alarm, all, endpoint, metric, priority, template, strategy, note, group or tags.KEY"));
        }
        if names.len() > BY_MAX {
            self.fault(path, &format!("group_by has {}: give at most {BY_MAX}", names.len()));
        }
        known.into_iter().flatten().collect()
    }

    fn times(&mut self, path: &str, text: &RouteText, above: Times) -> Times {
        let mut pick = |name: &str, own: Option<i64>, above: i64| match own {
            Some(seconds) if !(0..=SECONDS_MAX).contains(&seconds) => {
                self.fault(path, &format!("{name} is {seconds} s: give 0 to {SECONDS_MAX}"));
                above
            }
            own => own.unwrap_or(above),
        };
        Times {
            wait: pick("wait", text.wait, above.wait),
            interval: pick("interval", text.interval, above.interval),
            repeat: pick("repeat", text.repeat, above.repeat),
        }
    }

    fn during(&mut self, text: &RouteText, own: &Inherited) -> Option<Window> {
        if text.during.is_empty() {
            return None;
        }
        match Window::parse(&text.during, own.zone.clone()) {
            Ok(window) => Some(window),
            Err(faults) => {
                faults.iter().for_each(|why| self.fault(&own.path, &format!("during: {why}")));
                None
            }
        }
    }

    fn fault(&mut self, path: &str, why: &str) {
        self.faults.push(format!("route {path}: {why}"));
    }
}

impl By {
    /// Reads the name of a field.
    pub fn parse(name: &str) -> Option<By> {
        Some(match name {
            "alarm" => By::Alarm,
            "endpoint" => By::Endpoint,
            "metric" => By::Metric,
            "priority" => By::Priority,
            "template" => By::Template,
            "strategy" => By::Strategy,
            "note" => By::Note,
            "group" => By::Group,
            name => By::Tag(name.strip_prefix("tags.").filter(|key| !key.is_empty())?.into()),
        })
    }

    /// Appends what an alarm has there; alarms with the same are put together.
    pub fn push(&self, id: &str, fact: &Fact, out: &mut String) {
        let rule = &*fact.rule;
        match self {
            By::Alarm => out.push_str(id),
            By::Endpoint => out.push_str(&fact.endpoint),
            By::Metric => out.push_str(&rule.metric),
            By::Priority => out.push_str(&rule.priority.to_string()),
            By::Template => out.push_str(&rule.template),
            By::Strategy => {
                out.push_str(&rule.strategy_id.to_string());
                out.push('.');
                out.push_str(&rule.expression_id.to_string());
            }
            By::Note => out.push_str(&rule.note),
            By::Group => fact.groups.iter().for_each(|group| {
                out.push_str(group);
                out.push(',');
            }),
            By::Tag(key) => out.push_str(fact.tag(key).unwrap_or_default()),
        }
        // No text has a control character.
        out.push('\u{1f}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Rule;
    use serde_json::json;

    fn tree(text: serde_json::Value) -> Result<Tree, Vec<String>> {
        let text: RouteText = serde_json::from_value(text).expect("a text");
        let zone = |name: &str| ["", "UTC"].contains(&name).then_some(TimeZone::UTC);
        Tree::compile(&text, &zone, &["night"])
    }

    fn fact(priority: i32, group: &str) -> Fact {
        let rule = Rule { priority, metric: "cpu.idle".into(), ..Rule::default() };
        Fact { rule: Arc::new(rule), endpoint: "h".into(), tags: "".into(), groups: Arc::new([group.into()]) }
    }

    fn paths(tree: &Tree, fact: &Fact, at: i64) -> Vec<String> {
        let mut places = Vec::new();
        tree.route(fact, at, &mut places);
        places.into_iter().map(|place| tree.at(place).path.to_string()).collect()
    }

    #[test]
    fn an_alarm_goes_down_the_tree() {
        let tree = tree(json!({ "name": "root", "routes": [
            { "name": "log", "when": ["priority<=9"], "to": [{ "to": { "team": "audit" } }], "continue": true },
            { "name": "web", "when": ["group=web"], "to": [{ "to": { "team": "web" } }], "wait": 30, "routes": [
                { "name": "bad", "when": ["priority=0"], "to": [{ "to": { "rota": "web" }, "by": ["sms"] }], "escalation": "night" },
                { "name": "nights", "when": ["priority=3"], "during": ["22:00-06:00"] },
            ]},
            { "name": "db", "when": ["group=db"] },
        ]}))
        .expect("a tree");
        assert_eq!(paths(&tree, &fact(0, "web"), 0), ["root/log", "root/web/bad"]);
        assert_eq!(paths(&tree, &fact(1, "web"), 0), ["root/log", "root/web"]);
        assert_eq!(paths(&tree, &fact(3, "web"), 0), ["root/log", "root/web/nights"]);
        assert_eq!(paths(&tree, &fact(3, "web"), 12 * 3600), ["root/log", "root/web"]);
        assert_eq!(paths(&tree, &fact(1, "db"), 0), ["root/log", "root/db"]);
        assert_eq!(paths(&tree, &fact(10, "x"), 0), ["root"]);
        assert_eq!(tree.next_change(0), Some(6 * 3600));
        // What a route leaves out is its parent's.
        let bad = tree.routes.iter().find(|route| &*route.path == "root/web/bad").expect("a route");
        assert_eq!((bad.times.wait, bad.to.len(), bad.escalation.as_deref()), (30, 1, Some("night")));
        let nights = tree.routes.iter().find(|route| &*route.path == "root/web/nights").expect("a route");
        assert_eq!(nights.to[0].to, To::Team("web".into()));
    }

    #[test]
    fn a_site_that_configures_nothing_has_the_rules_actions() {
        let tree = Tree::original();
        assert_eq!(paths(&tree, &fact(3, "x"), 0), ["0"]);
        assert_eq!((&tree.at(0).to[0].to, tree.at(0).times.wait), (&To::Action, 0));
    }

    #[test]
    fn all_faults_are_told() {
        let faults = tree(json!({ "when": ["priority=1"], "routes": [
            { "name": "a", "zone": "Mars", "wait": -1, "escalation": "day" },
            { "name": "b", "during": ["x"], "group_by": ["color", "tags.a"] },
        ]}))
        .expect_err("faults");
        assert_eq!(faults.len(), 6, "{faults:#?}");
        assert!(faults[1].starts_with("route 0/a: zone"), "{faults:?}");
    }

    #[test]
    fn alarms_are_put_together_by_what_they_have() {
        let key = |by: &str, fact: &Fact| {
            let mut key = String::new();
            By::parse(by).expect(by).push("s_1_x", fact, &mut key);
            key
        };
        let one = fact(1, "web");
        assert_eq!(key("metric", &one), "cpu.idle\u{1f}");
        assert_eq!(key("alarm", &one), "s_1_x\u{1f}");
        assert_eq!(key("tags.mount", &one), "\u{1f}");
    }
}
