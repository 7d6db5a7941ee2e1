//! RuleSet: all rules in effect, compiled, with the indexes by which a series finds its own.
//!
//! Why: the original holds a strategy once per host and parses its text at each point. Here each distinct strategy is
//! compiled once, hosts that have the same strategies share one list, and one rule set serves all shards.
//! How: a host's list is sorted by metric, so a series finds its strategies by two hash look-ups and a binary search.
//! An expression is filed under the rarest of its tags (a series that matches has all of them), so a series looks at
//! few candidates, and at each once. An expression of which only a pattern of endpoints is known (`endpoint=web-*`) is
//! filed under its metric. A condition about other series (`of`) is a rule and, behind it, an operand for
//! each of them, by which those series are bound to the rule, so that they can say their part. A strategy of which a
//! tag excepts some series comes in parts of one id (`model::rule::TagScope`): rules of their own, of which a series
//! has one.
//! Invariants: a rule set never changes after `compile`; no text panics. A refused rule is reported, and otherwise not
//! there.
//! Memory: 64 bytes per distinct rule and operand plus its texts (shared with the portal's `Arc`), a name and 4 bytes
//! per host, 8 bytes per rule of each distinct list. Proportional to distinct strategies and hosts, not to their
//! product.
//! Compat: docs/open-falcon/judge.md §5. A tag `endpoint` of an expression means the series' own tag of that name if it
//! has one, else its endpoint; a strategy has no such rule. Under [`Semantics::OpenFalcon`] a rule that needs more than
//! the eleven points of the original never fires, and one that can never hold (unknown operator, `lookup(#0,3)`) still
//! recovers what is open; under [`Semantics::Hawkeye`] it is refused.

use crate::error::RuleError;
use crate::function::{Comparison, Operator};
use crate::grammar::{self, Parsed, TermDefaults};
use crate::pattern::{self, is_pattern};
use crate::program::{Program, Subject};
use crate::rule_text::{FunctionText, parse};
use crate::state::RuleId;
use crate::{Options, Semantics};
use model::RuleTags;
use model::rule::TagScope;
use model::{EventRule, Expression, Rules, SeriesKey, Strategy};
use std::collections::HashMap;
use std::sync::Arc;

/// Points per series that the original keeps (`remain` in its shipped configuration).
pub(crate) const REMAIN: u32 = 11;

/// The tag of an expression that means the series' endpoint.
const ENDPOINT: &str = "endpoint";

/// Rule numbers leave two bits for flags; see `binding.rs`.
const RULES_MAX: usize = 1 << 30;

/// A rule that is not in the set, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedRule {
    /// `strategy 12` or `expression 3`.
    pub name: String,
    pub error: RuleError,
}

/// The compiled rules, shared by all shards.
#[derive(Default)]
pub struct RuleSet {
    version: u64,
    pub(crate) rules: Vec<Rule>,
    /// Conditions that are more than one function, by the numbers in [`RuleBody`].
    pub(crate) programs: Vec<Arc<Program>>,
    /// Ids of the rules, sorted, once each.
    ids: Vec<RuleId>,
    metrics: HashMap<Box<str>, u32>,
    hosts: HashMap<Box<str>, u32>,
    host_lists: Vec<HostList>,
    /// Expressions by metric, then by the text `tag=value` under which they are filed.
    expressions: HashMap<u32, HashMap<Box<str>, Vec<u32>>>,
    /// Expressions that have no other tag than a pattern of endpoints, by metric.
    pattern_expressions: HashMap<u32, Vec<u32>>,
    /// [`Options::endpoint_patterns`].
    endpoint_patterns: bool,
    /// Operands of expressions, by metric.
    expression_operands: HashMap<u32, Vec<u32>>,
    window_points: u32,
}

/// A compiled rule: what the hot path reads comes first, and all of it fits one cache line.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub body: RuleBody,
    pub values_needed: u32,
    pub metric: u32,
    id: i64,
    pub source: EventRule,
}

const _: () = assert!(size_of::<Rule>() <= 64);

#[derive(Clone, Copy, Debug)]
pub(crate) enum RuleBody {
    /// One function of a series' own points.
    Plain(Comparison),
    Program(u32),
    /// The part of a program about another series than the one that carries the alarm. The rule itself stands before
    /// its operands.
    Operand {
        program: u32,
        operand: u8,
    },
}

impl Rule {
    pub fn id(&self) -> RuleId {
        match self.source {
            EventRule::Strategy(_) => RuleId::Strategy(self.id),
            EventRule::Expression(_) => RuleId::Expression(self.id),
        }
    }

    /// Whether a series with this rule carries its alarm.
    pub fn carries_alarm(&self) -> bool {
        self.subject() == Subject::Own
    }

    /// The part that a series with this rule has in it.
    pub fn subject(&self) -> Subject {
        match self.body {
            RuleBody::Plain(_) | RuleBody::Program(_) => Subject::Own,
            RuleBody::Operand { operand, .. } => Subject::Other(operand),
        }
    }

    /// The endpoint that an expression names.
    fn only_endpoint(&self) -> Option<&str> {
        match &self.source {
            EventRule::Strategy(_) => None,
            EventRule::Expression(expression) => expression.tags.get(ENDPOINT),
        }
    }

    /// The series that the rule is for, where it is a part of a strategy.
    fn scope(&self) -> Option<&TagScope> {
        match &self.source {
            EventRule::Strategy(strategy) => strategy.scope.as_deref(),
            EventRule::Expression(_) => None,
        }
    }

    /// The text that tells the parts of a strategy apart; "" for what has none.
    pub fn part(&self) -> String {
        match &self.source {
            EventRule::Strategy(strategy) => strategy.part(),
            EventRule::Expression(_) => String::new(),
        }
    }

    /// Whether `part` is the text that [`Rule::part`] answers; nothing is allocated to say so.
    pub fn is_part(&self, part: &str) -> bool {
        match self.scope().and_then(|scope| scope.only.as_ref()) {
            None => part.is_empty(),
            Some((key, value)) => {
                part.strip_prefix(&**key).and_then(|rest| rest.strip_prefix('=')).is_some_and(|rest| rest == value)
            }
        }
    }

    pub fn max_step(&self) -> i32 {
        match &self.source {
            EventRule::Strategy(strategy) => strategy.max_step,
            EventRule::Expression(expression) => expression.max_step,
        }
    }
}

/// Reach of a rule: what decides which series it is bound to, and what is kept about it there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Reach<'a> {
    id: RuleId,
    pub metric: &'a str,
    tags: &'a RuleTags,
    /// The whole text of a program: func, operator, the right value's bits; and the number of the operand.
    program: Option<(&'a str, &'a str, u64, Option<u8>)>,
    /// The only endpoint that the expression of an operand is about.
    endpoint: Option<&'a str>,
    /// The part of a strategy's series.
    scope: Option<&'a TagScope>,
}

/// (metric, rule) sorted by metric; the rules of a metric in the portal's order.
type HostList = Box<[(u32, u32)]>;

impl RuleSet {
    /// Compiles what can be compiled. `rules` may come from an old installation, so texts are read as leniently as the
    /// original reads them; see `rule_text.rs`.
    pub fn compile(rules: &Rules, options: &Options) -> (Arc<RuleSet>, Vec<RefusedRule>) {
        let mut compiler = Compiler::new(options);
        compiler.add_hosts(rules);
        compiler.add_expressions(&rules.expressions);
        let (mut set, refused) = compiler.finish();
        set.version = rules.version;
        (Arc::new(set), refused)
    }

    /// The version of the portal's rules from which the set was compiled.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Distinct rules; a strategy that comes from several templates counts once for each.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Whether any rule could match a series of this metric.
    pub fn uses_metric(&self, metric: &str) -> bool {
        self.metrics.contains_key(metric)
    }

    /// The most points that any rule looks back on; a window that is shorter keeps such a rule from speaking.
    pub fn window_points(&self) -> u32 {
        self.window_points
    }

    pub fn memory_bytes(&self) -> usize {
        // A table keeps a byte besides each place, used or not.
        let places = |capacity: usize, entry: usize| capacity * (entry + 1);
        let names = |map: &HashMap<Box<str>, u32>| {
            places(map.capacity(), size_of::<(Box<str>, u32)>()) + map.keys().map(|name| name.len()).sum::<usize>()
        };
        let filed = |by_tag: &HashMap<Box<str>, Vec<u32>>| {
            let lists = by_tag.iter().map(|(tag, rules)| tag.len() + rules.capacity() * size_of::<u32>());
            places(by_tag.capacity(), size_of::<(Box<str>, Vec<u32>)>()) + lists.sum::<usize>()
        };
        let list = size_of::<(u32, Vec<u32>)>();
        self.rules.capacity() * size_of::<Rule>()
            + self.programs.iter().map(|program| program.memory_bytes() + size_of::<Arc<Program>>()).sum::<usize>()
            + self.ids.capacity() * size_of::<RuleId>()
            + names(&self.metrics)
            + names(&self.hosts)
            + self.host_lists.capacity() * size_of::<HostList>()
            + self.host_lists.iter().map(|list| size_of_val(&**list)).sum::<usize>()
            + places(self.expression_operands.capacity(), list)
            + self.expression_operands.values().map(|rules| rules.capacity() * size_of::<u32>()).sum::<usize>()
            + places(self.pattern_expressions.capacity(), list)
            + self.pattern_expressions.values().map(|rules| rules.capacity() * size_of::<u32>()).sum::<usize>()
            + places(self.expressions.capacity(), size_of::<(u32, HashMap<Box<str>, Vec<u32>>)>())
            + self.expressions.values().map(filed).sum::<usize>()
    }

    pub(crate) fn has(&self, id: RuleId) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// Refills `matched` with the rules of a series: strategies in the portal's order, then expressions.
    pub(crate) fn rules_of(&self, key: SeriesKey<'_>, text: &mut String, matched: &mut Vec<u32>) {
        matched.clear();
        let Some(&metric) = self.metrics.get(key.metric) else { return };
        for &(_, rule) in self.strategies_of(key.endpoint, metric) {
            // A list may name a strategy twice; the alarm is one.
            if self.matches(rule, key) && !matched.contains(&rule) {
                matched.push(rule);
            }
        }
        let strategies = matched.len();
        for by_metric in [&self.expression_operands, &self.pattern_expressions] {
            let candidates = by_metric.get(&metric).map_or(&[][..], Vec::as_slice);
            matched.extend(candidates.iter().copied().filter(|rule| self.matches(*rule, key)));
        }
        let filed = self.expressions.get(&metric);
        let mut add = |tag: &str| {
            let candidates = filed.and_then(|filed| filed.get(tag)).map_or(&[][..], Vec::as_slice);
            matched.extend(candidates.iter().copied().filter(|rule| self.matches(*rule, key)));
        };
        key.tags.as_str().split(',').filter(|tag| !tag.is_empty()).for_each(&mut add);
        if key.tags.find(ENDPOINT).is_none() {
            text.clear();
            text.push_str(ENDPOINT);
            text.push('=');
            text.push_str(key.endpoint);
            add(text);
        }
        // One order, so that series with the same expressions share a list.
        matched[strategies..].sort_unstable();
    }

    /// (metric, rule) of a host's strategies for a metric.
    pub(crate) fn strategies_of(&self, endpoint: &str, metric: u32) -> &[(u32, u32)] {
        let Some(&list) = self.hosts.get(endpoint) else { return &[] };
        let list = &self.host_lists[list as usize];
        let start = list.partition_point(|(other, _)| *other < metric);
        let count = list[start..].iter().take_while(|(other, _)| *other == metric).count();
        &list[start..start + count]
    }

    /// Hosts with the numbers of their lists.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (&str, u32)> {
        self.hosts.iter().map(|(name, list)| (&**name, *list))
    }

    pub(crate) fn host(&self, name: &str) -> Option<u32> {
        self.hosts.get(name).copied()
    }

    /// The strategies of a host's list, by the metric's name.
    pub(crate) fn by_metric(&self, list: Option<u32>) -> HashMap<&str, &[(u32, u32)]> {
        let list = list.map_or(&[][..], |list| &self.host_lists[list as usize]);
        let of_a_metric = list.chunk_by(|a, b| a.0 == b.0);
        of_a_metric.map(|rules| (self.reach(rules[0].1).metric, rules)).collect()
    }

    pub(crate) fn metric(&self, metric: &str) -> Option<u32> {
        self.metrics.get(metric).copied()
    }

    /// The program of a rule or of an operand.
    pub(crate) fn program(&self, rule: &Rule) -> Option<&Arc<Program>> {
        match rule.body {
            RuleBody::Plain(_) => None,
            RuleBody::Program(program) | RuleBody::Operand { program, .. } => Some(&self.programs[program as usize]),
        }
    }

    pub(crate) fn reach(&self, number: u32) -> Reach<'_> {
        let rule = &self.rules[number as usize];
        let (metric, tags, text) = match &rule.source {
            EventRule::Strategy(s) => (&*s.metric, &s.tags, (&*s.func, &*s.operator, s.right_value.to_bits())),
            EventRule::Expression(e) => (&*e.metric, &e.tags, (&*e.func, &*e.operator, e.right_value.to_bits())),
        };
        let (func, operator, right) = text;
        let scope = rule.scope();
        match rule.body {
            RuleBody::Plain(_) => Reach { id: rule.id(), metric, tags, program: None, endpoint: None, scope },
            RuleBody::Program(_) => {
                let program = Some((func, operator, right, None));
                Reach { id: rule.id(), metric, tags, program, endpoint: None, scope }
            }
            RuleBody::Operand { program, operand } => {
                let other = &self.programs[program as usize].operands[operand as usize];
                let program = Some((func, operator, right, Some(operand)));
                let endpoint = rule.only_endpoint();
                Reach { id: rule.id(), metric: &other.metric, tags: &other.tags, program, endpoint, scope }
            }
        }
    }

    fn matches(&self, rule: u32, key: SeriesKey<'_>) -> bool {
        let rule = &self.rules[rule as usize];
        if let RuleBody::Operand { program, operand } = rule.body {
            return self.programs[program as usize].operands[operand as usize].may_be(key)
                && rule.only_endpoint().is_none_or(|endpoint| self.is_endpoint(endpoint, key.endpoint));
        }
        match &rule.source {
            EventRule::Strategy(strategy) => {
                key.tags.have(&strategy.tags) && strategy.scope.as_ref().is_none_or(|scope| scope.takes(key.tags))
            }
            EventRule::Expression(expression) => expression.tags.iter().all(|(tag, value)| {
                let own = key.tags.find(tag);
                if tag != ENDPOINT {
                    return own == Some(value);
                }
                self.is_endpoint(value, own.unwrap_or(key.endpoint))
            }),
        }
    }

    /// Whether an endpoint is the one that an expression names, or one that its pattern stands for.
    fn is_endpoint(&self, wanted: &str, endpoint: &str) -> bool {
        wanted == endpoint || (self.endpoint_patterns && pattern::matches(wanted, endpoint))
    }
}

/// The rule set in the making.
struct Compiler<'a> {
    options: &'a Options,
    set: RuleSet,
    /// The outcome for each `Arc` seen, so that a shared one is looked at once.
    by_pointer: HashMap<*const Strategy, Option<u32>>,
    by_id: HashMap<RuleId, Vec<u32>>,
    refused: Vec<(RuleId, RuleError)>,
}

impl<'a> Compiler<'a> {
    fn new(options: &'a Options) -> Compiler<'a> {
        let set = RuleSet { endpoint_patterns: options.endpoint_patterns, ..RuleSet::default() };
        Compiler { options, set, by_pointer: HashMap::new(), by_id: HashMap::new(), refused: Vec::new() }
    }

    fn add_hosts(&mut self, rules: &Rules) {
        // In the order of names, so that equal rules compile to equal sets.
        let mut hosts: Vec<_> = rules.hosts.iter().collect();
        hosts.sort_unstable_by_key(|(name, _)| *name);
        let mut lists_by_pointer: HashMap<*const Arc<Strategy>, u32> = HashMap::new();
        let mut lists_by_content: HashMap<HostList, u32> = HashMap::new();
        for (name, strategies) in hosts {
            // An empty slice has no address of its own.
            if strategies.is_empty() {
                continue;
            }
            let list = match lists_by_pointer.get(&strategies.as_ptr()) {
                Some(list) => *list,
                None => {
                    let content = self.host_list(strategies);
                    let next = lists_by_content.len() as u32;
                    let list = *lists_by_content.entry(content).or_insert(next);
                    lists_by_pointer.insert(strategies.as_ptr(), list);
                    list
                }
            };
            self.set.hosts.insert(name.as_str().into(), list);
        }
        let mut lists: Vec<_> = lists_by_content.into_iter().collect();
        lists.sort_unstable_by_key(|(_, number)| *number);
        self.set.host_lists = lists.into_iter().map(|(list, _)| list).collect();
    }

    fn host_list(&mut self, strategies: &[Arc<Strategy>]) -> HostList {
        let mut list = Vec::with_capacity(strategies.len());
        for strategy in strategies {
            if let Some(rule) = self.strategy(strategy) {
                list.extend(self.with_operands(rule).map(|rule| (self.set.rules[rule as usize].metric, rule)));
            }
        }
        list.sort_by_key(|(metric, _)| *metric);
        list.into_boxed_slice()
    }

    /// A rule and the operands behind it.
    fn with_operands(&self, rule: u32) -> std::ops::RangeInclusive<u32> {
        let program = self.set.program(&self.set.rules[rule as usize]);
        rule..=rule + program.map_or(0, |program| program.operands.len() as u32)
    }

    fn strategy(&mut self, strategy: &Arc<Strategy>) -> Option<u32> {
        if let Some(known) = self.by_pointer.get(&Arc::as_ptr(strategy)) {
            return *known;
        }
        let rule = self.add(EventRule::Strategy(strategy.clone()));
        self.by_pointer.insert(Arc::as_ptr(strategy), rule);
        rule
    }

    fn add_expressions(&mut self, expressions: &[Arc<Expression>]) {
        let mut uses: HashMap<(&str, &str, &str), usize> = HashMap::new();
        for expression in expressions {
            for (tag, value) in &expression.tags {
                *uses.entry((&expression.metric, tag, value)).or_default() += 1;
            }
        }
        for expression in expressions {
            let uses_of = |(tag, value): &(&str, &str)| uses[&(expression.metric.as_str(), *tag, *value)];
            if expression.tags.is_empty() {
                self.refused.push((RuleId::Expression(expression.id), RuleError::NoTags));
                continue;
            }
            let Some(rule) = self.add(EventRule::Expression(expression.clone())) else { continue };
            let metric = self.set.rules[rule as usize].metric;
            let patterns = self.options.endpoint_patterns;
            let is_exact = |(tag, value): &(&str, &str)| !(patterns && *tag == ENDPOINT && is_pattern(value));
            let filed = match expression.tags.iter().filter(is_exact).min_by_key(uses_of) {
                Some((tag, value)) => {
                    let by_tag = self.set.expressions.entry(metric).or_default();
                    by_tag.entry(format!("{tag}={value}").into()).or_default()
                }
                None => self.set.pattern_expressions.entry(metric).or_default(),
            };
            if filed.contains(&rule) {
                continue;
            }
            filed.push(rule);
            for operand in self.with_operands(rule).skip(1) {
                let metric = self.set.rules[operand as usize].metric;
                self.set.expression_operands.entry(metric).or_default().push(operand);
            }
        }
    }

    /// The number of a rule, compiled unless an equal one is there; `None` if it is refused.
    fn add(&mut self, source: EventRule) -> Option<u32> {
        let id = RuleId::of(&source);
        let variants = self.by_id.entry(id).or_default();
        if let Some(same) = variants.iter().find(|rule| self.set.rules[**rule as usize].source == source) {
            return Some(*same);
        }
        match compile(&source, self.options) {
            Ok(parsed) if self.set.rules.len() < RULES_MAX => {
                let number = self.set.rules.len() as u32;
                variants.push(number);
                self.push(parsed, source);
                Some(number)
            }
            Ok(_) => {
                self.refused.push((id, RuleError::TooManyRules));
                None
            }
            Err(error) => {
                self.refused.push((id, error));
                None
            }
        }
    }

    /// Adds a compiled rule, and behind it its operands.
    fn push(&mut self, parsed: Parsed, source: EventRule) {
        let metric = metric_of(&source).to_string();
        let program = match parsed {
            Parsed::Plain(condition) => {
                // Fits: compile() has compared it with points_max.
                let values_needed = condition.function.values_needed() as u32;
                return self.push_rule(RuleBody::Plain(condition), values_needed, &metric, source);
            }
            Parsed::Program(program) => program,
        };
        let number = self.set.programs.len() as u32;
        self.push_rule(RuleBody::Program(number), program.values_needed(Subject::Own), &metric, source.clone());
        for (operand, other) in (0u8..).zip(&program.operands) {
            let body = RuleBody::Operand { program: number, operand };
            self.push_rule(body, program.values_needed(Subject::Other(operand)), &other.metric, source.clone());
        }
        self.set.programs.push(Arc::new(program));
    }

    fn push_rule(&mut self, body: RuleBody, values_needed: u32, metric: &str, source: EventRule) {
        let metric = self.metric(metric);
        self.set.window_points = self.set.window_points.max(window_points(values_needed, self.options));
        let (RuleId::Strategy(id) | RuleId::Expression(id)) = RuleId::of(&source);
        self.set.rules.push(Rule { body, values_needed, metric, id, source });
    }

    fn metric(&mut self, name: &str) -> u32 {
        let next = self.set.metrics.len() as u32;
        match self.set.metrics.get(name) {
            Some(metric) => *metric,
            None => {
                self.set.metrics.insert(name.into(), next);
                next
            }
        }
    }

    fn finish(mut self) -> (RuleSet, Vec<RefusedRule>) {
        // One report per rule and reason, however many hosts have it.
        self.refused.sort_by_key(|(id, _)| *id);
        self.refused.dedup();
        let refused = self.refused.into_iter().map(|(id, error)| RefusedRule { name: id.to_string(), error }).collect();
        self.set.ids = self.by_id.into_iter().filter(|(_, variants)| !variants.is_empty()).map(|(id, _)| id).collect();
        self.set.ids.sort_unstable();
        self.set.rules.shrink_to_fit();
        (self.set, refused)
    }
}

fn metric_of(source: &EventRule) -> &str {
    match source {
        EventRule::Strategy(strategy) => &strategy.metric,
        EventRule::Expression(expression) => &expression.metric,
    }
}

/// Points that a rule reads of a counter, which needs one more than values.
fn window_points(values_needed: u32, options: &Options) -> u32 {
    match options.semantics {
        Semantics::Hawkeye => values_needed.saturating_add(1),
        Semantics::OpenFalcon => values_needed.saturating_add(1).min(REMAIN),
    }
}

fn compile(source: &EventRule, options: &Options) -> Result<Parsed, RuleError> {
    let (func, operator, right) = match source {
        EventRule::Strategy(s) => (s.func.as_str(), s.operator.as_str(), s.right_value),
        EventRule::Expression(e) => (e.func.as_str(), e.operator.as_str(), e.right_value),
    };
    if !right.is_finite() {
        return Err(RuleError::RightValue);
    }
    let known = Operator::parse(operator);
    let (operator, points_max) = match options.semantics {
        Semantics::Hawkeye => {
            (known.ok_or_else(|| RuleError::Operator { operator: crate::error::quote(operator) }), options.points_max)
        }
        Semantics::OpenFalcon => (Ok(known.unwrap_or(Operator::Never)), REMAIN.min(options.points_max)),
    };
    let text = match parse(func) {
        Ok(text) => text,
        // Only what the original cannot read is read as more than it had.
        Err(_) if grammar::is_extended(func) => {
            return grammar::read(func, TermDefaults { operator: operator?, right, points_max, spare: 0 });
        }
        Err(error) => return Err(error),
    };
    let operator = operator?;
    let function = match options.semantics {
        Semantics::Hawkeye => text.function(func)?,
        Semantics::OpenFalcon => open_falcon_function(&text, func)?,
    };
    let points = function.values_needed();
    if points > u64::from(points_max) {
        let column = text.arguments[0].column;
        return Err(RuleError::Window { func: crate::error::quote(func), column, points, points_max });
    }
    Ok(Parsed::Plain(Comparison { function, operator, right, high: right }))
}

fn open_falcon_function(text: &FunctionText, func: &str) -> Result<crate::function::Function, RuleError> {
    // Where there are never enough points, the strict reading says what is wrong.
    text.function_of_open_falcon().map_or_else(|| text.function(func), Ok)
}

#[cfg(test)]
#[path = "rule_set/tests.rs"]
mod tests;
