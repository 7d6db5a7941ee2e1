//! Rules in effect: what the tables say, at a given time, for each host.
//!
//! Why: hbs works this out per host and per call, and repeats every strategy for every host. Here a strategy under a
//! leaf template exists once behind an `Arc`, and hosts with equal lists share one list; exceptions of strategies come
//! last (`except.rs`).
//! How: strategies whose run window is open are read from their rows; for each set of templates that some host is bound
//! to, inheritance is resolved once.
//! Invariants: pure (time is an argument) and total: a row that cannot be read is left out and named in the second
//! result; no text can make it panic. Lists are in the order of strategy ids, so equal tables give equal rules.
//! Compat: docs/open-falcon/control-plane.md §1. Of two chains with the same strategy, the one with the smaller leaf id
//! wins (the original leaves this to the database's row order); a template bound through two groups counts once.

use super::except::{Excepting, Exceptions};
use super::snapshot::HostRow;
use super::snapshot::Snapshot;
use crate::portal::{expression, strategy, template};
use jiff::Zoned;
use model::rule::HostStrategies;
use model::{Expression, RuleTags, Rules, Strategy};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

impl Snapshot {
    /// The rules in effect at `now`, and why rows were left out.
    pub fn rules(&self, now: &Zoned, version: u64) -> (Rules, Vec<String>) {
        let now = Moment::of(now);
        let mut skipped = Vec::new();
        let expressions = self.expressions.iter().filter_map(|row| keep(read_expression(row), &mut skipped)).collect();
        let mut inheritance = Inheritance::new(self, &now, &mut skipped);
        let mut excepting = Excepting::new(Exceptions::new(self, None, &mut skipped));
        let mut hosts = HashMap::with_capacity(self.hosts.len());
        for host in self.hosts.iter().filter(|host| is_monitored(host, now.unix)) {
            let strategies = excepting.apply(host, inheritance.strategies_of(&host.templates));
            if !strategies.is_empty() {
                hosts.insert(host.hostname.clone(), strategies);
            }
        }
        (Rules { version, hosts, expressions }, skipped)
    }
}

impl Snapshot {
    /// Strategies that a set of templates has at `now`, by their ids, before any exception.
    pub(super) fn resolved(&self, templates: &[i64], now: &Zoned) -> BTreeMap<i64, Arc<Strategy>> {
        Inheritance::new(self, &Moment::of(now), &mut Vec::new()).resolve(templates)
    }
}

/// A moment as rows compare with it: the local time of day as "HH:MM" for run windows, Unix seconds for maintenance.
struct Moment {
    minute: String,
    unix: i64,
}

impl Moment {
    fn of(now: &Zoned) -> Moment {
        Moment { minute: minute_of(now), unix: now.timestamp().as_second() }
    }
}

/// The time of day as run windows have it, "HH:MM".
pub(super) fn minute_of(now: &Zoned) -> String {
    format!("{:02}:{:02}", now.hour(), now.minute())
}

/// True while a host is not in maintenance.
pub(super) fn is_monitored(host: &HostRow, now: i64) -> bool {
    host.maintain_begin > now || host.maintain_end < now
}

/// True while a strategy's run window is open. Times are compared as texts, as the original's SQL does, so one side may
/// be empty or past 24:00.
pub fn is_open(begin: &str, end: &str, now: &str) -> bool {
    if begin.is_empty() && end.is_empty() {
        return true;
    }
    (begin <= now && now <= end) || (begin > end && !(begin > now && end < now))
}

/// A strategy as its row says, still without a template. Strategies of the same metric and tags have the same key: a
/// descendant's replace those of its ancestors.
struct OwnStrategy {
    key: usize,
    strategy: Strategy,
}

/// Resolves templates and sets of templates, each once.
struct Inheritance<'a> {
    snapshot: &'a Snapshot,
    /// Strategies with an open window, by template.
    by_template: HashMap<i64, Vec<OwnStrategy>>,
    /// The strategies of each leaf, those of its ancestors included.
    by_leaf: HashMap<i64, Vec<Arc<Strategy>>>,
    /// The lists that were made, by the (strategy, leaf) pairs in them.
    lists: HashMap<Vec<(i64, i64)>, HostStrategies>,
    /// The list of each set of templates.
    by_set: HashMap<&'a [i64], HostStrategies>,
}

impl<'a> Inheritance<'a> {
    fn new(snapshot: &'a Snapshot, now: &Moment, skipped: &mut Vec<String>) -> Inheritance<'a> {
        let by_template = own_strategies(snapshot, now, skipped);
        let mut cyclic: Vec<i64> =
            snapshot.parents.keys().copied().filter(|id| template::chain(&snapshot.parents, *id).is_none()).collect();
        cyclic.sort_unstable();
        skipped.extend(cyclic.into_iter().map(|id| {
            format!("template {id}: its parents form a cycle, or a chain of {} or more", template::CHAIN_MAX)
        }));
        let (by_leaf, lists, by_set) = (HashMap::new(), HashMap::new(), HashMap::new());
        Inheritance { snapshot, by_template, by_leaf, lists, by_set }
    }

    fn strategies_of(&mut self, templates: &'a [i64]) -> HostStrategies {
        if let Some(list) = self.by_set.get(templates) {
            return list.clone();
        }
        let resolved = self.resolve(templates);
        let pairs = resolved.values().map(|strategy| (strategy.id, strategy.tpl.id)).collect();
        let list = self.lists.entry(pairs).or_insert_with(|| resolved.into_values().collect()).clone();
        self.by_set.insert(templates, list.clone());
        list
    }

    /// The strategies of a set of templates, by id.
    fn resolve(&mut self, templates: &[i64]) -> BTreeMap<i64, Arc<Strategy>> {
        let chains: Vec<Vec<i64>> =
            templates.iter().filter_map(|id| template::chain(&self.snapshot.parents, *id)).collect();
        let mut resolved = BTreeMap::new();
        for chain in &chains {
            // A chain whose leaf is inside another chain is a part of that one. Templates come once, so chains differ.
            let Some(leaf) = chain.first() else { continue };
            if chains.iter().any(|other| other.first() != Some(leaf) && other.contains(leaf)) {
                continue;
            }
            let tpl = &self.snapshot.templates[leaf];
            let strategies = self.by_leaf.entry(*leaf).or_insert_with(|| inherit(&self.by_template, chain, tpl));
            for strategy in strategies {
                resolved.entry(strategy.id).or_insert_with(|| strategy.clone());
            }
        }
        resolved
    }
}

/// The strategies whose row can be read and whose window is open, by template.
fn own_strategies(snapshot: &Snapshot, now: &Moment, skipped: &mut Vec<String>) -> HashMap<i64, Vec<OwnStrategy>> {
    let mut keys: HashMap<(&str, RuleTags), usize> = HashMap::new();
    let mut by_template: HashMap<i64, Vec<OwnStrategy>> = HashMap::new();
    for row in &snapshot.strategies {
        if !snapshot.templates.contains_key(&row.tpl_id) {
            skipped.push(format!("strategy {}: its template {} does not exist", row.id, row.tpl_id));
        } else if is_open(&row.run_begin, &row.run_end, &now.minute) {
            let Some(strategy) = keep(read_strategy(row), skipped) else { continue };
            let next = keys.len();
            let key = *keys.entry((&row.metric, strategy.tags.clone())).or_insert(next);
            by_template.entry(row.tpl_id).or_default().push(OwnStrategy { key, strategy });
        }
    }
    by_template
}

/// The strategies of a chain (leaf first): for each key those of the youngest template that has any. All become
/// `tpl`'s.
fn inherit(by_template: &HashMap<i64, Vec<OwnStrategy>>, chain: &[i64], tpl: &model::Template) -> Vec<Arc<Strategy>> {
    let mut owner: HashMap<usize, i64> = HashMap::new();
    let mut result = Vec::new();
    for id in chain {
        for OwnStrategy { key, strategy } in by_template.get(id).into_iter().flatten() {
            if *owner.entry(*key).or_insert(*id) == *id {
                result.push(Arc::new(Strategy { tpl: tpl.clone(), ..strategy.clone() }));
            }
        }
    }
    result
}

pub(super) fn read_strategy(row: &strategy::Strategy) -> Result<Strategy, String> {
    let read = || {
        Ok(Strategy {
            id: row.id,
            metric: row.metric.clone(),
            tags: model::tags::wanted(&row.tags),
            func: row.func.clone(),
            operator: row.op.clone(),
            right_value: read_right_value(&row.right_value)?,
            max_step: read_int("max_step", row.max_step)?,
            priority: read_int("priority", row.priority)?,
            note: row.note.clone(),
            tpl: model::Template::default(),
            scope: None,
        })
    };
    read().map_err(|error: String| format!("strategy {}: {error}", row.id))
}

pub(super) fn read_expression(row: &expression::Expression) -> Result<Arc<Expression>, String> {
    let read = || {
        let (metric, tags) = expression::parse_text(&row.expression)?;
        Ok(Arc::new(Expression {
            id: row.id,
            metric,
            tags,
            func: row.func.clone(),
            operator: row.op.clone(),
            right_value: read_right_value(&row.right_value)?,
            max_step: read_int("max_step", row.max_step)?,
            priority: read_int("priority", row.priority)?,
            note: row.note.clone(),
            action_id: row.action_id,
        }))
    };
    read().map_err(|error: String| format!("expression {}: {error}", row.id))
}

pub(super) fn read_right_value(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|value| value.is_finite())
        .ok_or_else(|| format!("right_value {text:?} is not a finite number"))
}

pub(super) fn read_int(field: &str, value: i64) -> Result<i32, String> {
    i32::try_from(value).map_err(|_| format!("{field} {value} is out of range"))
}

/// The value, or its error in `skipped`.
fn keep<T>(result: Result<T, String>, skipped: &mut Vec<String>) -> Option<T> {
    result.map_err(|reason| skipped.push(reason)).ok()
}

#[cfg(test)]
mod tests;
