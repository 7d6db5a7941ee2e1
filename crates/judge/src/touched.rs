//! Touched: which series a change of the rules concerns.
//!
//! Why: a saved strategy takes effect in milliseconds only if the series of the other hosts and metrics are not bound
//! anew.
//! How: each old rule is paired with its successor (the equal one, or else the one with the same id, metric and tags,
//! whose threshold or note was changed; of a condition that is more than one function, only the note and the like may
//! be); a series is touched if its own strategies or the expressions of its metric are not the successors of what they
//! were.
//! Invariants: a series that is not covered has exactly the successors of its rules (`tests/properties.rs`).

use crate::rule_set::{Reach, RuleSet};
use crate::state::OpenProblem;
use model::{EventRule, SeriesKey};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The change from one rule set to the next: each known series that it covers must be bound anew.
pub struct Touched {
    /// Findings that all judges share which go from the one rule set to the other.
    difference: Arc<Difference>,
    pub(crate) closed: Vec<OpenProblem>,
}

struct Difference {
    old: Arc<RuleSet>,
    new: Arc<RuleSet>,
    /// Number of the new rule, by number of the old one.
    successors: Vec<Option<u32>>,
    /// Metrics with an expression that came, went, or changed its tags.
    expression_metrics: HashSet<Box<str>>,
    /// Metrics of which some host has other strategies than before; most series are known to be untouched by these two.
    strategy_metrics: HashSet<Box<str>>,
}

impl Touched {
    pub(crate) fn between(old: Arc<RuleSet>, new: Arc<RuleSet>) -> Touched {
        let successors = successors(&old, &new);
        let expression_metrics = changed_expressions(&old, &new, &successors);
        let strategy_metrics = changed_strategies(&old, &new, &successors);
        let difference = Arc::new(Difference { old, new, successors, expression_metrics, strategy_metrics });
        Touched { difference, closed: Vec::new() }
    }

    /// What [`Touched::between`] says of `old` and the new rule set of `other`, without comparing again where `other`
    /// is about the same two.
    pub(crate) fn like(other: &Touched, old: Arc<RuleSet>) -> Touched {
        if !Arc::ptr_eq(&other.difference.old, &old) {
            return Touched::between(old, other.new_rules().clone());
        }
        Touched { difference: other.difference.clone(), closed: Vec::new() }
    }

    pub(crate) fn new_rules(&self) -> &Arc<RuleSet> {
        &self.difference.new
    }

    /// Whether the series must be bound anew.
    pub fn covers(&self, key: SeriesKey<'_>) -> bool {
        let Difference { old, new, successors, expression_metrics, strategy_metrics } = &*self.difference;
        if !expression_metrics.is_empty() && expression_metrics.contains(key.metric) {
            return true;
        }
        if strategy_metrics.is_empty() || !strategy_metrics.contains(key.metric) {
            return false;
        }
        let (old_metric, new_metric) = (old.metric(key.metric), new.metric(key.metric));
        let before = old_metric.map_or(&[][..], |metric| old.strategies_of(key.endpoint, metric));
        let after = new_metric.map_or(&[][..], |metric| new.strategies_of(key.endpoint, metric));
        !same(before, after, successors)
    }

    /// The PROBLEMs that are forgotten because their rule is gone; [`crate::Judge::bind`] returns those of touched
    /// series.
    pub fn closed(&self) -> &[OpenProblem] {
        &self.closed
    }

    pub(crate) fn successor(&self, old: u32) -> Option<u32> {
        self.difference.successors[old as usize]
    }
}

fn successors(old: &RuleSet, new: &RuleSet) -> Vec<Option<u32>> {
    let (old_numbers, new_numbers) = (0..old.rules.len() as u32, 0..new.rules.len() as u32);
    let mut by_reach: HashMap<Reach<'_>, Vec<u32>> = HashMap::new();
    for number in new_numbers {
        by_reach.entry(new.reach(number)).or_default().push(number);
    }
    let mut old_variants: HashMap<Reach<'_>, usize> = HashMap::new();
    for number in old_numbers.clone() {
        *old_variants.entry(old.reach(number)).or_default() += 1;
    }
    let successor = |number: u32| {
        let reach = old.reach(number);
        let variants = by_reach.get(&reach)?;
        let source = &old.rules[number as usize].source;
        match variants[..] {
            // With several variants of one strategy only an equal one is surely the same.
            [only] if old_variants[&reach] == 1 => Some(only),
            _ => variants.iter().copied().find(|number| new.rules[*number as usize].source == *source),
        }
    };
    old_numbers.map(successor).collect()
}

fn changed_expressions(old: &RuleSet, new: &RuleSet, successors: &[Option<u32>]) -> HashSet<Box<str>> {
    let mut has_predecessor = vec![false; new.rules.len()];
    successors.iter().flatten().for_each(|number| has_predecessor[*number as usize] = true);
    let gone = (0u32..).zip(successors).filter(|(_, successor)| successor.is_none()).map(|(rule, _)| (old, rule));
    let came = (0u32..).zip(has_predecessor).filter(|(_, has)| !has).map(|(rule, _)| (new, rule));
    let is_expression = |(set, rule): &(&RuleSet, u32)| {
        let source = &set.rules[*rule as usize].source;
        matches!(source, EventRule::Expression(_))
    };
    gone.chain(came).filter(is_expression).map(|(set, rule)| Box::from(set.reach(rule).metric)).collect()
}

/// Whether the strategies of a host for a metric are the successors of what they were.
fn same(old: &[(u32, u32)], new: &[(u32, u32)], successors: &[Option<u32>]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| successors[old.1 as usize] == Some(new.1))
}

fn changed_strategies(old: &RuleSet, new: &RuleSet, successors: &[Option<u32>]) -> HashSet<Box<str>> {
    // Many hosts, few lists: each pair of lists is compared once.
    let mut pairs: HashSet<(Option<u32>, Option<u32>)> = HashSet::new();
    pairs.extend(old.hosts().map(|(name, list)| (Some(list), new.host(name))));
    pairs.extend(new.hosts().filter(|(name, _)| old.host(name).is_none()).map(|(_, list)| (None, Some(list))));
    let mut changed = HashSet::new();
    for (old_list, new_list) in pairs {
        let (old_list, new_list) = (old.by_metric(old_list), new.by_metric(new_list));
        for (metric, rules) in &old_list {
            if !same(rules, new_list.get(metric).copied().unwrap_or_default(), successors) {
                changed.insert(Box::from(*metric));
            }
        }
        changed
            .extend(new_list.keys().filter(|metric| !old_list.contains_key(*metric)).map(|metric| Box::from(*metric)));
    }
    changed
}
