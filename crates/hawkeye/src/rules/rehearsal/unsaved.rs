//! Unsaved rules: rows as the judge would get them if they were saved, to be rehearsed.
//!
//! How: the row is put among the rows of a snapshot, and the rules in effect are computed from the snapshot as always:
//! so inheritance, replaced ancestors, the exceptions that are saved for its id, and the template that an event names
//! are right. Hours and maintenance are left out: a rehearsal has its own hours, and a host that is in maintenance now
//! was not always.

use super::super::except::{Excepting, Exceptions};
use super::super::resolve::{read_expression, read_strategy};
use super::super::snapshot::{HostRow, Snapshot};
use crate::portal::expression;
use crate::portal::strategy::Strategy;
use jiff::Zoned;
use model::Rules;
use model::rule::HostStrategies;
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
        let mut left: HashMap<Vec<*const model::Strategy>, HostStrategies> = HashMap::new();
        rules.hosts.retain(|_, list| {
            let parts: Vec<_> = list.iter().filter(|strategy| strategy.id == row.id).cloned().collect();
            if parts.is_empty() {
                return false;
            }
            *list = left.entry(parts.iter().map(Arc::as_ptr).collect()).or_insert_with(|| parts.into()).clone();
            true
        });
        Ok(rules)
    }
}

/// The strategy of a row under no template, for hosts that are named, with the exceptions that are saved for its id.
#[derive(Clone, Debug)]
pub struct Anywhere {
    snapshot: Arc<Snapshot>,
    list: HostStrategies,
}

impl Anywhere {
    /// The strategy that `row` describes.
    pub fn new(row: &Strategy, snapshot: Snapshot) -> Result<Anywhere, String> {
        Ok(Anywhere { snapshot: Arc::new(snapshot), list: [Arc::new(read_strategy(row)?)].into() })
    }

    /// The metric that it watches.
    pub fn metric(&self) -> &str {
        self.list.first().map_or("", |strategy| &strategy.metric)
    }

    /// The rules of these hosts.
    pub fn rules(&self, hosts: impl IntoIterator<Item = String>) -> Rules {
        let mut excepting = Excepting::new(Exceptions::new(&self.snapshot, None, &mut Vec::new()));
        let mut of_host = |name: &str| match self.snapshot.host(name) {
            Some(host) => excepting.apply(host, self.list.clone()),
            None => excepting.apply(&HostRow { hostname: name.to_string(), ..HostRow::default() }, self.list.clone()),
        };
        let hosts = hosts.into_iter().map(|name| (of_host(&name), name));
        let hosts = hosts.filter(|(list, _)| !list.is_empty()).map(|(list, name)| (name, list)).collect();
        Rules { hosts, ..Rules::default() }
    }
}

/// The rules that follow from the row of an expression.
pub fn expression_of(row: &expression::Expression) -> Result<Rules, String> {
    Ok(Rules { expressions: vec![read_expression(row)?], ..Rules::default() })
}
