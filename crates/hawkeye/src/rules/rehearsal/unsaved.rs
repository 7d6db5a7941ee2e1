//! Unsaved rules: rows as the judge would get them if they were saved, to be rehearsed.
//!
//! How: the row is put among the rows of a snapshot, and the rules in effect are computed from the snapshot as always:
//! so inheritance, replaced ancestors and the template that an event names are right. Hours and maintenance are left
//! out: a rehearsal has its own hours, and a host that is in maintenance now was not always.

use super::super::resolve::{read_expression, read_strategy};
use super::super::snapshot::Snapshot;
use crate::portal::expression;
use crate::portal::strategy::Strategy;
use jiff::Zoned;
use model::{EventRule, Rules};
use std::collections::HashMap;
use std::sync::Arc;

impl Snapshot {
    /// The hosts that a strategy would watch, each with the strategy under the template that is the leaf there.
    pub fn watching(mut self, row: &Strategy, now: &Zoned) -> Result<Rules, String> {
        read_strategy(row)?;
        self.expressions.clear();
        for host in &mut self.hosts {
            (host.maintain_begin, host.maintain_end) = (0, 0);
        }
        let mut strategies: Vec<Strategy> = std::mem::take(&mut self.strategies);
        strategies.retain(|other| other.id != row.id);
        strategies.push(Strategy { run_begin: String::new(), run_end: String::new(), ..row.clone() });
        self.set_strategies(strategies);
        let (mut rules, _) = self.rules(now, 0);
        // The lists of hosts differ in the strategies beside the row; lists with the row alone are shared again.
        let mut left: HashMap<i64, model::rule::HostStrategies> = HashMap::new();
        rules.hosts.retain(|_, list| {
            let Some(strategy) = list.iter().find(|strategy| strategy.id == row.id) else { return false };
            *list = left.entry(strategy.tpl.id).or_insert_with(|| [strategy.clone()].into()).clone();
            true
        });
        Ok(rules)
    }
}

/// The strategy of a row under no template, for hosts that are named.
pub fn strategy_of(row: &Strategy) -> Result<EventRule, String> {
    read_strategy(row).map(|strategy| EventRule::Strategy(Arc::new(strategy)))
}

/// The rules that follow from the row of an expression.
pub fn expression_of(row: &expression::Expression) -> Result<Rules, String> {
    Ok(Rules { expressions: vec![read_expression(row)?], ..Rules::default() })
}
