//! Known rules: what the last answers of an hbs said, and what the one that is coming in changes in it.
//!
//! Why: an original hbs sends all strategies of all hosts each minute, mostly the same as before. Reading 80,000 of
//! them into fresh structures took the original hundreds of megabytes for a moment.
//! How: an answer is a *pass*. Each rule is looked up by its digest and read only when its text is new; each host ends
//! in the sum of its strategies' digests, under which its list is found. A host whose sum is the one it had costs
//! nothing else. [`KnownRules::finish`] says whether anything differs, and only then makes new [`Rules`], of the lists
//! known.
//! Invariants: order makes no difference, of hosts, strategies or expressions; lists are in order of id, each id once.
//! Nothing is in effect before `finish`: a pass that is cut off leaves the rules as they were. A rule that cannot be
//! read is left out, counted and named, and is no part of a sum.
//! Memory: distinct rules + distinct lists + hosts (some 100 bytes and the name each). In a pass without change nothing
//! is allocated (`tests/hbs_memory.rs`).

use super::digest::digest;
use super::distinct::{Distinct, Missed, table_bytes};
use super::error::AnswerError;
use super::limits::AnswerLimits;
use super::rule_text::{BadRule, RuleFault};
use model::rule::HostStrategies;
use model::{Expression, Rules, Strategy};
use std::collections::HashMap;
use std::sync::Arc;

/// Rules left out of one answer that are named.
const NAMED_MAX: usize = 8;

/// The rules that the last answers of an hbs held.
pub struct KnownRules {
    limits: AnswerLimits,
    strategies: Distinct<Strategy>,
    expressions: Distinct<Expression>,
    /// Lists by the sum of their strategies' digests.
    lists: HashMap<u128, HostStrategies>,
    /// Hosts by the digest of their name.
    hosts: HashMap<u128, Host>,
    expression_sum: u128,
    rules: Arc<Rules>,
    pass: Pass,
}

struct Host {
    sum: u128,
    /// The last pass that had the host.
    pass: u64,
}

/// One rule of a list that is being read.
type Entry<T> = (i64, u128, Arc<T>);

#[derive(Default)]
struct Pass {
    number: u64,
    /// Between `begin` and `finish` or `abandon`.
    open: bool,
    /// Hosts of this answer with at least one strategy.
    hosts: usize,
    /// Hosts of this answer that were known before.
    hosts_seen: usize,
    /// New hosts and those whose list differs: name and sum, by the digest of the name.
    changed: HashMap<u128, (String, u128)>,
    /// Strategies of the current host.
    strategies: Vec<Entry<Strategy>>,
    expressions: Vec<Entry<Expression>>,
    left_out: Omissions,
}

/// Rules of an answer that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Omissions {
    pub count: u64,
    /// Names of the first few, in words.
    pub named: Vec<String>,
    /// Sum over the rules left out: equal for equal rules in any order.
    pub sum: u128,
}

impl Omissions {
    fn add(&mut self, sum: u128, name: impl FnOnce() -> String) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(sum);
        if self.named.len() < NAMED_MAX {
            self.named.push(name());
        }
    }
}

impl KnownRules {
    /// No rules yet; answers beyond `limits` will be refused.
    pub fn new(limits: AnswerLimits) -> KnownRules {
        KnownRules {
            limits,
            strategies: Distinct::new(),
            expressions: Distinct::new(),
            lists: HashMap::new(),
            hosts: HashMap::new(),
            expression_sum: 0,
            rules: Arc::new(Rules::default()),
            pass: Pass::default(),
        }
    }

    /// Bounds of an answer, and of what is kept of it.
    pub fn limits(&self) -> &AnswerLimits {
        &self.limits
    }

    /// The rules of the last answers; version 0 before the first.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Distinct strategies and expressions.
    pub fn distinct(&self) -> usize {
        self.strategies.len() + self.expressions.len()
    }

    /// Bytes of the distinct texts of the last pass, which [`AnswerLimits::distinct_bytes`] bounds.
    pub fn distinct_bytes(&self) -> usize {
        self.strategies.bytes() + self.expressions.bytes()
    }

    /// Bytes held, those of the rules in effect included. Looks at each distinct rule and each host.
    pub fn memory_bytes(&self) -> usize {
        let names: usize = self.rules.hosts.keys().map(String::capacity).sum();
        let lists: usize = self.lists.values().map(|list| 16 + size_of_val::<[_]>(list)).sum();
        let tables = table_bytes::<u128, HostStrategies>(self.lists.capacity())
            + table_bytes::<u128, Host>(self.hosts.capacity())
            + table_bytes::<String, HostStrategies>(self.rules.hosts.capacity());
        let buffers = self.pass.strategies.capacity() * size_of::<Entry<Strategy>>()
            + self.pass.expressions.capacity() * size_of::<Entry<Expression>>()
            + self.rules.expressions.capacity() * size_of::<Arc<Expression>>();
        names + lists + tables + buffers + self.strategies.memory_bytes() + self.expressions.memory_bytes()
    }

    /// Rules that the current pass has left out so far, or the last pass if it is finished.
    pub fn left_out(&self) -> &Omissions {
        &self.pass.left_out
    }

    /// Begins a pass: the answers to both calls, and then [`KnownRules::finish`] or [`KnownRules::abandon`].
    pub fn begin(&mut self) {
        self.strategies.begin();
        self.expressions.begin();
        let pass = &mut self.pass;
        pass.number += 1;
        pass.open = true;
        (pass.hosts, pass.hosts_seen) = (0, 0);
        pass.changed.clear();
        pass.strategies.clear();
        pass.expressions.clear();
        pass.left_out = Omissions::default();
    }

    pub(super) fn begin_host(&mut self) {
        self.pass.strategies.clear();
    }

    /// Takes a strategy of the current host.
    pub(super) fn strategy(&mut self, hostname: &str, text: &[u8]) -> Result<(), AnswerError> {
        let (pass, limits) = (&mut self.pass, &self.limits);
        if pass.strategies.len() == limits.strategies_per_host {
            return Err(AnswerError::Limit { what: "strategies of a host", limit: limits.strategies_per_host as u64 });
        }
        let bytes_max = limits.distinct_bytes.saturating_sub(self.expressions.bytes());
        match self.strategies.rule(text, bytes_max) {
            Ok((digest, strategy)) => pass.strategies.push((strategy.id, digest, strategy)),
            Err(Missed::Bad(bad)) => {
                pass.left_out.add(digest(text), || named("strategy", &bad, Some(hostname)));
            }
            Err(Missed::Full) => return Err(too_many_distinct(limits)),
        }
        Ok(())
    }

    pub(super) fn end_host(&mut self, hostname: &str) -> Result<(), AnswerError> {
        let pass = &mut self.pass;
        let sum = finish_list(&mut pass.strategies, |id, digest| {
            let bad = BadRule { id, fault: RuleFault::IdTwice };
            pass.left_out.add(digest, || named("strategy", &bad, Some(hostname)));
        });
        if pass.strategies.is_empty() {
            return Ok(());
        }
        let name = digest(hostname.as_bytes());
        let known = self.hosts.get_mut(&name);
        if known.as_ref().is_some_and(|host| host.pass == pass.number) || pass.changed.contains_key(&name) {
            pass.left_out
                .add(name, || format!("hostname {hostname:?} stands twice in the answer; its first place is used"));
            return Ok(());
        }
        if pass.hosts == self.limits.hosts {
            return Err(AnswerError::Limit { what: "hosts", limit: self.limits.hosts as u64 });
        }
        pass.hosts += 1;
        let mut same = false;
        if let Some(host) = known {
            host.pass = pass.number;
            pass.hosts_seen += 1;
            same = host.sum == sum;
        }
        if !same {
            let list = || pass.strategies.iter().map(|(_, _, strategy)| strategy.clone()).collect();
            self.lists.entry(sum).or_insert_with(list);
            pass.changed.insert(name, (hostname.to_string(), sum));
        }
        Ok(())
    }

    /// Leaves out a host, or all strategies of one.
    pub(super) fn leave_out_host(&mut self, hostname: &str, fault: &'static str) {
        let sum = digest(hostname.as_bytes());
        self.pass.left_out.add(sum, || format!("host {hostname:?}: {fault}"));
    }

    pub(super) fn expression(&mut self, text: &[u8]) -> Result<(), AnswerError> {
        let (pass, limits) = (&mut self.pass, &self.limits);
        if pass.expressions.len() == limits.expressions {
            return Err(AnswerError::Limit { what: "expressions", limit: limits.expressions as u64 });
        }
        let bytes_max = limits.distinct_bytes.saturating_sub(self.strategies.bytes());
        match self.expressions.rule(text, bytes_max) {
            Ok((digest, expression)) => pass.expressions.push((expression.id, digest, expression)),
            Err(Missed::Bad(bad)) => pass.left_out.add(digest(text), || named("expression", &bad, None)),
            Err(Missed::Full) => return Err(too_many_distinct(limits)),
        }
        Ok(())
    }

    /// Whether this pass has no strategies, or no expressions, where there were some; or, at first, nothing at all. An
    /// hbs that could not read its tables when it started answers so.
    pub fn has_emptied(&self) -> bool {
        let (hosts, expressions) = (self.pass.hosts == 0, self.pass.expressions.is_empty());
        if self.rules.version == 0 {
            return hosts && expressions;
        }
        (hosts && !self.rules.hosts.is_empty()) || (expressions && !self.rules.expressions.is_empty())
    }

    /// Ends a pass whose answers are both complete. The new rules, when anything differs; always after the first.
    pub fn finish(&mut self) -> Option<Arc<Rules>> {
        let pass = &mut self.pass;
        assert!(pass.open, "a pass ends once");
        let expression_sum = finish_list(&mut pass.expressions, |id, digest| {
            let bad = BadRule { id, fault: RuleFault::IdTwice };
            pass.left_out.add(digest, || named("expression", &bad, None));
        });
        let same_expressions = expression_sum == self.expression_sum;
        let same_hosts = pass.changed.is_empty() && pass.hosts_seen == self.hosts.len();
        if same_expressions && same_hosts && self.rules.version > 0 {
            self.sweep(true);
            return None;
        }
        let rules = Rules {
            version: self.rules.version + 1,
            hosts: if same_hosts { self.rules.hosts.clone() } else { self.changed_hosts() },
            expressions: self.pass.expressions.iter().map(|(_, _, expression)| expression.clone()).collect(),
        };
        self.expression_sum = expression_sum;
        self.rules = Arc::new(rules);
        self.sweep(true);
        Some(self.rules.clone())
    }

    /// Ends a pass whose answers are not to be used.
    pub fn abandon(&mut self) {
        self.sweep(false);
    }

    fn changed_hosts(&mut self) -> HashMap<String, HostStrategies> {
        let pass = &mut self.pass;
        let mut hosts = HashMap::with_capacity(pass.hosts);
        for (hostname, list) in &self.rules.hosts {
            let name = digest(hostname.as_bytes());
            let seen = self.hosts.get(&name).is_some_and(|host| host.pass == pass.number);
            if seen && !pass.changed.contains_key(&name) {
                hosts.insert(hostname.clone(), list.clone());
            }
        }
        self.hosts.reserve(pass.hosts - pass.hosts_seen);
        for (name, (hostname, sum)) in std::mem::take(&mut pass.changed) {
            self.hosts.insert(name, Host { sum, pass: pass.number });
            hosts.insert(hostname, self.lists[&sum].clone());
        }
        self.hosts.retain(|_, host| host.pass == pass.number);
        hosts
    }

    /// Forgets lists and rules that are not in effect. Lists go first, as they hold strategies.
    fn sweep(&mut self, finished: bool) {
        self.pass.open = false;
        self.pass.strategies.clear();
        self.pass.expressions.clear();
        if !finished {
            self.pass.changed = HashMap::new();
        }
        self.lists.retain(|_, list| Arc::strong_count(list) > 1);
        self.strategies.sweep(finished);
        self.expressions.sweep(finished);
    }
}

/// Puts a list in order of id, leaves out what has an id that was there, and answers the sum of the digests.
fn finish_list<T>(list: &mut Vec<Entry<T>>, mut twice: impl FnMut(i64, u128)) -> u128 {
    list.sort_unstable_by_key(|(id, digest, _)| (*id, *digest));
    list.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            twice(later.0, later.1);
        }
        same
    });
    list.iter().fold(0, |sum: u128, (_, digest, _)| sum.wrapping_add(*digest))
}

fn named(kind: &str, bad: &BadRule, hostname: Option<&str>) -> String {
    let id = if bad.id == 0 { "without id".to_string() } else { bad.id.to_string() };
    match hostname {
        Some(hostname) => format!("{kind} {id} of host {hostname:?}: {}", bad.fault),
        None => format!("{kind} {id}: {}", bad.fault),
    }
}

fn too_many_distinct(limits: &AnswerLimits) -> AnswerError {
    AnswerError::Limit { what: "bytes of distinct rules", limit: limits.distinct_bytes as u64 }
}
