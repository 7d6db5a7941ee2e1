//! Inhibit: alarms that tell nobody while another one explains them.
//!
//! How: a rule has matchers for the cause and for what the cause explains, and fields in which both must be the same.
//! Open alarms are kept in places, by rule and by what they have in those fields; so an alarm that opens or ends looks
//! at its own places only, not at all alarms. Hosts that depend on others are places, too: a host is explained by a
//! cause on any host above it.
//! Invariants: no alarm explains itself; one that is cause and explained by the same rule is not explained by it
//! (as in Alertmanager), so two of a kind do not hide each other.
//! Memory: an entry per open alarm and rule that has something to do with it.

use crate::fact::Fact;
use crate::matcher::{Matcher, all_match};
use crate::route::By;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Hosts between one and the highest that it depends on: a rack, a row, a room, a site.
const DEPTH_MAX: usize = 16;

/// A rule that says which alarms others explain.
#[derive(Clone, Debug, PartialEq)]
pub struct Inhibition {
    pub name: Arc<str>,
    pub cause: Vec<Matcher>,
    pub explains: Vec<Matcher>,
    /// Fields that both have the same.
    pub equal: Vec<By>,
}

/// Which hosts depend on which, and which alarms say that one is down.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dependencies {
    pub down: Vec<Matcher>,
    /// Hosts that each host depends on directly.
    pub above: HashMap<Box<str>, Vec<Box<str>>>,
}

/// Which alarms explain others, by rules and by hosts that depend on others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explaining {
    pub rules: Vec<Inhibition>,
    pub hosts: Dependencies,
}

/// Alarm by its number in the pipeline.
pub type Serial = u64;

/// What explains an alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub alarm: Serial,
    /// Name of the rule; `host` where it is a dependency.
    pub rule: Arc<str>,
}

/// Open alarms where rules look for them.
#[derive(Clone, Debug, Default)]
pub struct Places {
    places: BTreeMap<(u32, Box<str>), Place>,
    /// Alarms that say that a host is down, by endpoint.
    down: HashMap<Box<str>, BTreeSet<Serial>>,
    /// Open alarms of hosts that depend on others.
    dependent: HashMap<Box<str>, BTreeSet<Serial>>,
}

#[derive(Clone, Debug, Default)]
struct Place {
    causes: BTreeSet<Serial>,
    explained: BTreeSet<Serial>,
}

impl Places {
    /// Notes an alarm that has opened, and appends those that it may explain.
    pub fn open(&mut self, by: &Explaining, serial: Serial, fact: &Fact, touched: &mut BTreeSet<Serial>) {
        for (rule, role) in roles(&by.rules, fact) {
            let place = self.places.entry(rule).or_default();
            if role.is_cause {
                place.causes.insert(serial);
                touched.extend(&place.explained);
            }
            if role.is_explained {
                place.explained.insert(serial);
            }
        }
        if by.hosts.is_down(fact) {
            self.down.entry(fact.endpoint.clone()).or_default().insert(serial);
            touched.extend(self.below(&by.hosts, &fact.endpoint));
        }
        if by.hosts.above.contains_key(&fact.endpoint) {
            self.dependent.entry(fact.endpoint.clone()).or_default().insert(serial);
        }
    }

    /// Forgets an alarm that has ended, and appends those that it may have explained.
    pub fn close(&mut self, by: &Explaining, serial: Serial, fact: &Fact, touched: &mut BTreeSet<Serial>) {
        for (rule, _) in roles(&by.rules, fact) {
            let Some(place) = self.places.get_mut(&rule) else { continue };
            place.explained.remove(&serial);
            if place.causes.remove(&serial) {
                touched.extend(&place.explained);
            }
            if place.causes.is_empty() && place.explained.is_empty() {
                self.places.remove(&rule);
            }
        }
        if take(&mut self.down, &fact.endpoint, serial) {
            touched.extend(self.below(&by.hosts, &fact.endpoint));
        }
        take(&mut self.dependent, &fact.endpoint, serial);
    }

    /// What explains an alarm; none where nothing does.
    pub fn cause(&self, by: &Explaining, serial: Serial, fact: &Fact) -> Option<Cause> {
        let by_rule =
            roles(&by.rules, fact).filter(|(_, role)| role.is_explained && !role.is_cause).find_map(|(key, _)| {
                let alarm = *self.places.get(&key)?.causes.iter().find(|cause| **cause != serial)?;
                Some(Cause { alarm, rule: by.rules[key.0 as usize].name.clone() })
            });
        by_rule.or_else(|| {
            let alarm = self.down_above(&by.hosts, &fact.endpoint)?;
            Some(Cause { alarm, rule: "host".into() })
        })
    }

    /// The alarm of the nearest host above this one that is down.
    fn down_above(&self, dependencies: &Dependencies, endpoint: &str) -> Option<Serial> {
        if self.down.is_empty() {
            return None;
        }
        let (mut level, mut seen) = (vec![endpoint], BTreeSet::from([endpoint]));
        for _ in 0..DEPTH_MAX {
            let above: Vec<&str> = level
                .iter()
                .filter_map(|host| dependencies.above.get(*host))
                .flatten()
                .map(|host| &**host)
                .filter(|host| seen.insert(host))
                .collect();
            if let Some(alarm) = above.iter().find_map(|host| self.down.get(*host)?.first()) {
                return Some(*alarm);
            }
            level = above;
        }
        None
    }

    /// Open alarms of hosts that depend on this one, however far.
    fn below(&self, dependencies: &Dependencies, endpoint: &str) -> Vec<Serial> {
        let depends = |host: &str| {
            let (mut level, mut seen) = (vec![host], BTreeSet::from([host]));
            for _ in 0..DEPTH_MAX {
                level = level
                    .iter()
                    .filter_map(|host| dependencies.above.get(*host))
                    .flatten()
                    .map(|host| &**host)
                    .filter(|host| seen.insert(host))
                    .collect();
                if level.contains(&endpoint) {
                    return true;
                }
            }
            false
        };
        self.dependent.iter().filter(|(host, _)| depends(host)).flat_map(|(_, alarms)| alarms).copied().collect()
    }
}

impl Dependencies {
    fn is_down(&self, fact: &Fact) -> bool {
        !self.down.is_empty() && all_match(&self.down, fact)
    }
}

struct Role {
    is_cause: bool,
    is_explained: bool,
}

/// Rules that have something to do with an alarm, with what it is to each.
fn roles(rules: &[Inhibition], fact: &Fact) -> impl Iterator<Item = ((u32, Box<str>), Role)> {
    rules.iter().enumerate().filter_map(|(at, rule)| {
        let role = Role { is_cause: all_match(&rule.cause, fact), is_explained: all_match(&rule.explains, fact) };
        (role.is_cause || role.is_explained).then(|| {
            let mut key = String::new();
            // An alarm's own id is equal to no other's, so it is left out.
            rule.equal.iter().for_each(|by| by.push("", fact, &mut key));
            ((at as u32, key.into_boxed_str()), role)
        })
    })
}

fn take(of: &mut HashMap<Box<str>, BTreeSet<Serial>>, endpoint: &str, serial: Serial) -> bool {
    let Some(alarms) = of.get_mut(endpoint) else { return false };
    let was_there = alarms.remove(&serial);
    if alarms.is_empty() {
        of.remove(endpoint);
    }
    was_there
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Rule;

    fn matchers(texts: &[&str]) -> Vec<Matcher> {
        texts.iter().map(|text| Matcher::parse(text).expect(text)).collect()
    }

    fn fact(metric: &str, endpoint: &str) -> Fact {
        let rule = Rule { metric: metric.into(), ..Rule::default() };
        Fact { rule: Arc::new(rule), endpoint: endpoint.into(), ..Fact::default() }
    }

    fn rules() -> Explaining {
        let equal = vec![By::Endpoint];
        let rule = Inhibition {
            name: "down".into(),
            cause: matchers(&["metric=agent.alive"]),
            explains: matchers(&["metric!=agent.alive"]),
            equal,
        };
        Explaining { rules: vec![rule], ..Explaining::default() }
    }

    #[test]
    fn a_host_that_is_down_explains_its_own_alarms_only() {
        let (rules, mut places) = (rules(), Places::default());
        let (cpu, other, down) = (fact("cpu.idle", "a"), fact("cpu.idle", "b"), fact("agent.alive", "a"));
        let mut touched = BTreeSet::new();
        places.open(&rules, 1, &cpu, &mut touched);
        places.open(&rules, 2, &other, &mut touched);
        assert_eq!(touched.len(), 0);
        places.open(&rules, 3, &down, &mut touched);
        assert_eq!(touched, BTreeSet::from([1]));
        let cause = places.cause(&rules, 1, &cpu).expect("a cause");
        assert_eq!((cause.alarm, &*cause.rule), (3, "down"));
        assert_eq!(places.cause(&rules, 2, &other), None);
        assert_eq!(places.cause(&rules, 3, &down), None);
        touched.clear();
        places.close(&rules, 3, &down, &mut touched);
        assert_eq!((touched.len(), places.cause(&rules, 1, &cpu)), (1, None));
        places.close(&rules, 1, &cpu, &mut touched);
        places.close(&rules, 2, &other, &mut touched);
        assert!(places.places.is_empty() && places.dependent.is_empty() && places.down.is_empty());
    }

    #[test]
    fn two_of_a_kind_do_not_hide_each_other() {
        let rule = Inhibition {
            name: "x".into(),
            cause: matchers(&["metric=a"]),
            explains: matchers(&["metric=a"]),
            equal: vec![],
        };
        let same = Explaining { rules: vec![rule], ..Explaining::default() };
        let (mut places, mut touched) = (Places::default(), BTreeSet::new());
        for serial in [1, 2] {
            places.open(&same, serial, &fact("a", "h"), &mut touched);
        }
        assert_eq!(places.cause(&same, 1, &fact("a", "h")), None);
    }

    #[test]
    fn hosts_behind_a_switch_are_explained_by_it() {
        let above = [("web", "rack"), ("rack", "core"), ("core", "web")];
        let above = above.map(|(host, other)| (host.into(), vec![other.into()])).into();
        let hosts = Dependencies { down: matchers(&["metric=agent.alive"]), above };
        let tree = Explaining { hosts, ..Explaining::default() };
        let (mut places, mut touched) = (Places::default(), BTreeSet::new());
        places.open(&tree, 1, &fact("cpu.idle", "web"), &mut touched);
        places.open(&tree, 2, &fact("agent.alive", "core"), &mut touched);
        assert_eq!(touched, BTreeSet::from([1]));
        assert_eq!(places.cause(&tree, 1, &fact("cpu.idle", "web")).map(|cause| cause.alarm), Some(2));
        // A circle of hosts ends.
        assert_eq!(places.cause(&tree, 2, &fact("agent.alive", "core")), None);
        touched.clear();
        places.close(&tree, 2, &fact("agent.alive", "core"), &mut touched);
        assert_eq!(touched, BTreeSet::from([1]));
        assert_eq!(places.cause(&tree, 1, &fact("cpu.idle", "web")), None);
    }
}
