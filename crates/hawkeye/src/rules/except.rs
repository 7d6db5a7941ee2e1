//! Except: which of a strategy's exceptions counts where, and the strategies that hosts have with them.
//!
//! Why: a host with an exception has another strategy than its neighbours, and these must go on sharing theirs: a site
//! has thousands of hosts and a handful of exceptions.
//! How: for each host the exceptions of the strategies in its list are looked up; hosts with equal lists and equal
//! exceptions share the list that is made, and strategies that are changed in the same way are one. A tag splits a
//! strategy into parts that share no series (`model::rule::TagScope`).
//! Invariants: of a host, a tag and a group the host counts before the tag and the tag before the group; among several
//! groups (or tags of one series) one that does not pause before one that does, then the older one. The one that counts
//! counts whole: what it leaves out is the strategy's, not another exception's. A list without exceptions is given back
//! as it came. Pure and total: a row that cannot be used is named in what [`Exceptions::new`] skips.
//! Memory: a list per set of hosts with equal exceptions, a strategy per exception and leaf template, as long as the
//! rules are in effect.

use super::resolve::{read_int, read_right_value, read_strategy};
use super::snapshot::{HostRow, Snapshot};
use crate::portal::exception::{self, Exception};
use model::rule::{HostStrategies, TagScope};
use model::{Strategy, Tags};
use std::collections::HashMap;
use std::sync::Arc;

/// The exceptions of all strategies, by what they are about.
pub struct Exceptions<'a> {
    by_strategy: HashMap<i64, OfStrategy<'a>>,
}

/// The exceptions of one strategy.
#[derive(Default)]
struct OfStrategy<'a> {
    by_host: HashMap<&'a str, Read<'a>>,
    by_group: HashMap<i64, Read<'a>>,
    /// In the order in which they count.
    tags: Vec<Read<'a>>,
}

/// A row with what it changes.
#[derive(Clone, Copy)]
struct Read<'a> {
    row: &'a Exception,
    right_value: Option<f64>,
    max_step: Option<i32>,
}

/// The exceptions that count for one strategy on one host.
#[derive(Clone, Copy, Default)]
pub struct Choice<'a> {
    /// Exception of the host or of one of its groups, which counts for all series that `tags` leave.
    whole: Option<Read<'a>>,
    tags: &'a [Read<'a>],
}

impl<'a> Exceptions<'a> {
    /// The exceptions of a snapshot, or those of one strategy; rows that cannot be used are named in `skipped`.
    pub fn new(snapshot: &'a Snapshot, strategy: Option<i64>, skipped: &mut Vec<String>) -> Exceptions<'a> {
        let mut by_strategy: HashMap<i64, OfStrategy<'a>> = HashMap::new();
        let mut groups: Option<HashMap<String, i64>> = None;
        let is_wanted = |row: &&Exception| strategy.is_none_or(|id| row.strategy_id == id);
        for row in snapshot.exceptions.iter().filter(is_wanted) {
            let groups = groups.get_or_insert_with(|| {
                snapshot.groups.iter().map(|(id, name)| (name.to_ascii_lowercase(), *id)).collect()
            });
            let of = by_strategy.entry(row.strategy_id).or_default();
            if let Err(error) = read(row).and_then(|read| of.add(read, groups)) {
                skipped.push(format!("exception {} of strategy {}: {error}", row.id, row.strategy_id));
            }
        }
        by_strategy.values_mut().for_each(|of| of.tags.sort_by_key(Read::order));
        Exceptions { by_strategy }
    }

    /// The exceptions that count for a strategy on a host.
    pub fn choice(&self, strategy: i64, host: &HostRow) -> Choice<'_> {
        self.by_strategy.get(&strategy).map(|of| of.choice(host)).unwrap_or_default()
    }
}

impl<'a> OfStrategy<'a> {
    fn add(&mut self, read: Read<'a>, groups: &HashMap<String, i64>) -> Result<(), String> {
        match read.row.kind.as_str() {
            exception::HOST => _ = self.by_host.insert(&read.row.target, read),
            exception::GROUP => {
                let name = read.row.target.as_str();
                let id = groups.get(&name.to_ascii_lowercase()).ok_or_else(|| format!("there is no group {name:?}"))?;
                self.by_group.insert(*id, read);
            }
            exception::TAG if read.row.tag().is_some() => self.tags.push(read),
            kind => return Err(format!("{kind} {:?} is no host, group or tag like key=value", read.row.target)),
        }
        Ok(())
    }

    fn choice(&self, host: &HostRow) -> Choice<'_> {
        if let Some(read) = self.by_host.get(host.hostname.as_str()) {
            return Choice { whole: Some(*read), tags: &[] };
        }
        let of_groups = host.groups.iter().filter_map(|group| self.by_group.get(group));
        Choice { whole: of_groups.min_by_key(|read| read.order()).copied(), tags: &self.tags }
    }
}

fn read(row: &Exception) -> Result<Read<'_>, String> {
    let right_value = match row.right_value.as_str() {
        "" => None,
        text => Some(read_right_value(text)?),
    };
    let max_step = if row.max_step == 0 { None } else { Some(read_int("max_step", row.max_step)?) };
    Ok(Read { row, right_value, max_step })
}

impl Read<'_> {
    /// Among several of one kind the least counts.
    fn order(&self) -> (bool, i64) {
        (self.row.is_pause(), self.row.id)
    }

    /// The strategy as it is there; none where it does not hold.
    fn changed(&self, strategy: &Strategy) -> Option<Strategy> {
        (!self.row.is_pause()).then(|| Strategy {
            right_value: self.right_value.unwrap_or(strategy.right_value),
            max_step: self.max_step.unwrap_or(strategy.max_step),
            ..strategy.clone()
        })
    }

    fn tag(&self) -> (String, String) {
        let (key, value) = self.row.tag().unwrap_or_default();
        (key.to_string(), value.to_string())
    }
}

impl<'a> Choice<'a> {
    fn is_none(&self) -> bool {
        self.whole.is_none() && self.tags.is_empty()
    }

    /// The exception that counts for all series which no tag excepts.
    pub fn whole(&self) -> Option<&'a Exception> {
        self.whole.map(|read| read.row)
    }

    /// The exceptions by tags, in the order in which they count.
    pub fn tags(&self) -> impl Iterator<Item = &'a Exception> {
        self.tags.iter().map(|read| read.row)
    }

    /// The exception that counts for a series with these tags.
    pub fn of_series(&self, tags: Tags<'_>) -> Option<&'a Exception> {
        let has = |row: &&Exception| row.tag().is_some_and(|(key, value)| tags.find(key) == Some(value));
        self.tags().find(has).or(self.whole())
    }

    /// The strategy with these exceptions: for no, one or several parts of its series.
    pub fn parts(&self, strategy: &Strategy) -> Vec<Strategy> {
        let whole = match self.whole {
            None => Some(strategy.clone()),
            Some(read) => read.changed(strategy),
        };
        let tags: Vec<(String, String)> = self.tags.iter().map(Read::tag).collect();
        let scope = |only: Option<usize>| {
            let except = tags[..only.unwrap_or(tags.len())].to_vec();
            Some(Box::new(TagScope { only: only.map(|at| tags[at].clone()), except }))
        };
        if tags.is_empty() {
            return whole.into_iter().collect();
        }
        let rest = whole.map(|strategy| Strategy { scope: scope(None), ..strategy });
        let of_tags = self.tags.iter().enumerate().filter_map(|(at, read)| {
            let changed = read.changed(strategy)?;
            Some(Strategy { scope: scope(Some(at)), ..changed })
        });
        rest.into_iter().chain(of_tags).collect()
    }

    /// The ids of the exceptions, which tell choices for one strategy apart: tags are the same wherever they count.
    fn key(&self) -> Chosen {
        (self.whole().map_or(0, |row| row.id), !self.tags.is_empty())
    }
}

impl Snapshot {
    /// The strategy as its row says, of one that holds somewhere.
    pub fn without_exceptions(&self, strategy: &Strategy) -> Strategy {
        let at = self.strategies.binary_search_by_key(&strategy.id, |row| row.id);
        let row = at.ok().and_then(|at| read_strategy(&self.strategies[at]).ok());
        row.map_or_else(|| strategy.clone(), |row| Strategy { tpl: strategy.tpl.clone(), ..row })
    }
}

/// The id of the exception of host or group, 0 for none, and whether tags count.
type Chosen = (i64, bool);

/// Parts of strategies, by the strategy and what was chosen for it.
type Parts = HashMap<(*const Strategy, Chosen), Vec<Arc<Strategy>>>;

/// Lists of strategies with their exceptions, each made once.
pub struct Excepting<'a> {
    exceptions: Exceptions<'a>,
    /// Places of strategies with exceptions in a list, by the list.
    concerned: HashMap<*const Arc<Strategy>, Vec<usize>>,
    /// Parts of a strategy, by the strategy and what was chosen for it.
    parts: Parts,
    /// Lists that were made, by the list without exceptions and what was chosen for those concerned.
    lists: HashMap<(*const Arc<Strategy>, Vec<Chosen>), HostStrategies>,
    /// Lists whose addresses are keys above.
    held: Vec<HostStrategies>,
}

impl<'a> Excepting<'a> {
    pub fn new(exceptions: Exceptions<'a>) -> Excepting<'a> {
        let (concerned, parts, lists) = (HashMap::new(), HashMap::new(), HashMap::new());
        Excepting { exceptions, concerned, parts, lists, held: Vec::new() }
    }

    /// The strategies that a host has of `list`: the list itself where there is no exception.
    pub fn apply(&mut self, host: &HostRow, list: HostStrategies) -> HostStrategies {
        if self.exceptions.by_strategy.is_empty() || list.is_empty() {
            return list;
        }
        let (exceptions, held) = (&self.exceptions, &mut self.held);
        let concerned = self.concerned.entry(list.as_ptr()).or_insert_with(|| {
            held.push(list.clone());
            let has = |at: &usize| exceptions.by_strategy.contains_key(&list[*at].id);
            (0..list.len()).filter(has).collect()
        });
        let choices: Vec<(usize, Choice<'_>)> =
            concerned.iter().map(|at| (*at, exceptions.choice(list[*at].id, host))).collect();
        if choices.iter().all(|(_, choice)| choice.is_none()) {
            return list;
        }
        let key = (list.as_ptr(), choices.iter().map(|(_, choice)| choice.key()).collect());
        let parts = &mut self.parts;
        self.lists.entry(key).or_insert_with(|| changed(&list, &choices, parts)).clone()
    }
}

fn changed(list: &HostStrategies, choices: &[(usize, Choice<'_>)], parts: &mut Parts) -> HostStrategies {
    let mut changed = Vec::with_capacity(list.len());
    let mut choices = choices.iter().peekable();
    for (at, strategy) in list.iter().enumerate() {
        match choices.next_if(|(concerned, _)| *concerned == at) {
            Some((_, choice)) if !choice.is_none() => {
                let parts = parts
                    .entry((Arc::as_ptr(strategy), choice.key()))
                    .or_insert_with(|| choice.parts(strategy).into_iter().map(Arc::new).collect());
                changed.extend(parts.iter().cloned());
            }
            _ => changed.push(strategy.clone()),
        }
    }
    changed.into()
}
