//! Holding: what holds on a host now, and why the rest of what could hold does not.
//!
//! Why: between a strategy and a host lie groups, templates that inherit, hours, maintenance and exceptions; whoever
//! wonders why nobody was called should not have to put them together.
//! How: all strategies of the templates that reach the host are listed; those that are among the rules in effect are
//! so, and of the others the first reason is told. Expressions that name another endpoint are left out.
//! Invariants: what is listed as in effect is what `resolve.rs` gives the judges for this host.

use super::except::{Choice, Exceptions};
use super::gone::{in_maintenance, outside_hours, why_paused};
use super::resolve::{is_monitored, is_open, minute_of, read_expression, read_strategy};
use super::snapshot::{HostRow, Snapshot};
use crate::portal::exception::Exception;
use crate::portal::expression::Expression;
use crate::portal::strategy::Strategy;
use crate::portal::template;
use jiff::Zoned;
use serde::Serialize;
use std::collections::BTreeMap;

/// The rules of a host.
#[derive(Serialize)]
pub struct Holding {
    pub host: String,
    pub groups: Vec<String>,
    pub strategies: Vec<HeldStrategy>,
    pub expressions: Vec<HeldExpression>,
}

/// A strategy of a template that reaches the host.
#[derive(Serialize)]
pub struct HeldStrategy {
    /// The row, as it was saved.
    #[serde(flatten)]
    pub row: Strategy,
    /// The template that has it.
    pub template: String,
    /// The template bound to the host's groups by which it came, whose action is used; "" where it did not come.
    pub bound: String,
    /// Whether it holds for the series of the host that no tag excepts.
    pub in_effect: bool,
    /// The reason why it does not hold; "" where it does.
    pub why_not: String,
    /// What holds in place of the saved values.
    pub applied: Applied,
    /// What holds for series with a tag; the first that a series has counts.
    pub tags: Vec<Applied>,
}

/// The values that hold, and the exception that they come from.
#[derive(Serialize)]
pub struct Applied {
    pub right_value: String,
    pub max_step: i64,
    pub pause: i64,
    pub exception: Option<Exception>,
}

/// An expression that may be about the host.
#[derive(Serialize)]
pub struct HeldExpression {
    #[serde(flatten)]
    pub row: Expression,
    pub in_effect: bool,
    /// The reason why it does not hold; "" where it does.
    pub why_not: String,
}

impl Snapshot {
    /// The rules of a host at `now`; `expressions` are the rows of all, and `patterns` says whether they may name
    /// endpoints by a pattern. None where there is no such host.
    pub fn holding(
        &self,
        hostname: &str,
        expressions: Vec<Expression>,
        patterns: bool,
        now: &Zoned,
    ) -> Option<Holding> {
        let host = self.host(hostname)?;
        let mut groups: Vec<String> = host.groups.iter().filter_map(|group| self.groups.get(group)).cloned().collect();
        groups.sort_unstable();
        let exceptions = Exceptions::new(self, None, &mut Vec::new());
        let resolved = self.resolved(&host.templates, now);
        let strategies = self.reaching(host).into_values();
        let strategies = strategies
            .map(|row| {
                let choice = exceptions.choice(row.id, host);
                let why_not = self.why_not(host, row, &resolved, choice, now);
                let bound = resolved.get(&row.id).map_or(String::new(), |strategy| strategy.tpl.name.clone());
                HeldStrategy {
                    template: self.template_name(row.tpl_id),
                    bound,
                    in_effect: why_not.is_empty(),
                    why_not,
                    applied: applied(row, choice.whole()),
                    tags: choice.tags().map(|exception| applied(row, Some(exception))).collect(),
                    row: row.clone(),
                }
            })
            .collect();
        let expressions = expressions.into_iter().filter_map(|row| held(row, hostname, patterns)).collect();
        Some(Holding { host: hostname.to_string(), groups, strategies, expressions })
    }

    /// All strategies of the templates bound to a host's groups and of their ancestors, by id.
    fn reaching(&self, host: &HostRow) -> BTreeMap<i64, &Strategy> {
        let chain = |leaf: &i64| template::chain(&self.parents, *leaf).unwrap_or_else(|| vec![*leaf]);
        let templates = host.templates.iter().flat_map(chain);
        let places = templates.filter_map(|id| self.by_template.get(&id)).flatten();
        places.map(|at| &self.strategies[*at]).map(|row| (row.id, row)).collect()
    }

    fn why_not(
        &self,
        host: &HostRow,
        row: &Strategy,
        resolved: &BTreeMap<i64, std::sync::Arc<model::Strategy>>,
        choice: Choice<'_>,
        now: &Zoned,
    ) -> String {
        let own = match read_strategy(row) {
            Ok(own) => own,
            Err(error) => return error,
        };
        if !is_monitored(host, now.timestamp().as_second()) {
            return in_maintenance(host);
        }
        if !is_open(&row.run_begin, &row.run_end, &minute_of(now)) {
            return outside_hours(row);
        }
        if !resolved.contains_key(&row.id) {
            let same = resolved.values().find(|other| other.metric == own.metric && other.tags == own.tags);
            let Some(other) = same else {
                return "its template's parents form a cycle, or a chain that is too long".to_string();
            };
            let from = self.strategies.iter().find(|row| row.id == other.id).map_or(0, |row| row.tpl_id);
            let name = self.template_name(from);
            return format!("strategy {} of the template {name} takes its place: the same metric and tags", other.id);
        }
        choice.whole().filter(|exception| exception.is_pause()).map_or(String::new(), why_paused)
    }

    fn template_name(&self, id: i64) -> String {
        self.templates.get(&id).map_or(String::new(), |template| template.name.clone())
    }
}

fn applied(row: &Strategy, exception: Option<&Exception>) -> Applied {
    let right_value = exception.map(|exception| &exception.right_value).filter(|text| !text.is_empty());
    let max_step = exception.map(|exception| exception.max_step).filter(|max_step| *max_step != 0);
    Applied {
        right_value: right_value.unwrap_or(&row.right_value).clone(),
        max_step: max_step.unwrap_or(row.max_step),
        pause: exception.map_or(0, |exception| exception.pause),
        exception: exception.cloned(),
    }
}

/// An expression, unless it names other endpoints only.
fn held(row: Expression, hostname: &str, patterns: bool) -> Option<HeldExpression> {
    let why_not = match read_expression(&row) {
        Ok(read) => {
            let names = |wanted: &str| wanted == hostname || (patterns && judge::pattern::matches(wanted, hostname));
            if !read.tags.get("endpoint").is_none_or(names) {
                return None;
            }
            match &row {
                row if row.is_paused() => "the expression is paused",
                row if row.action_id <= 0 => "it has no action",
                _ => "",
            }
            .to_string()
        }
        Err(error) => error,
    };
    Some(HeldExpression { in_effect: why_not.is_empty(), why_not, row })
}
