//! Snapshot: the tables that rules, plugins and builtin metrics depend on, as of one moment.
//!
//! Why: hbs answers thousands of agents a minute, and rules are computed again each minute; neither should ask the
//! database, or see half of a change.
//! How: one read transaction, then plain vectors and maps. `resolve.rs` and `role/hbs/agents.rs` compute what follows.
//! A start takes what can be read of tables that are damaged, and names these; whoever decides what a row that is not
//! there means looks at [`Snapshot::unread`] first.
//! Invariants: immutable; rows are kept as they are, also unusable ones. Hosts are found by their exact name, as in the
//! original, although the table compares without case.
//! Memory: the texts of these tables once; a thousand hosts with 80 strategies are about 100 kB. The table of hosts is
//! bounded by `host::HOSTS_MAX`, the others by what users enter.

use super::probes::Probes;
use super::resolve::is_monitored;
use crate::portal::aggregator::{self, Aggregator};
use crate::portal::db::{Salvaged, Transaction};
use crate::portal::exception::{self, Exception};
use crate::portal::expression::{self, Expression};
use crate::portal::mock::{self, Mock};
use crate::portal::strategy::{self, Strategy};
use crate::portal::{Portal, group, host, plugin, probe, template};
use anyhow::{Context, Result};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Rows of the portal's tables that rules depend on, all of one version.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Sorted by name.
    pub hosts: Vec<HostRow>,
    pub templates: HashMap<i64, model::Template>,
    /// Each template's parent; the map that [`template::chain`] takes.
    pub parents: HashMap<i64, i64>,
    pub strategies: Vec<Strategy>,
    /// Places in `strategies`, by template.
    pub by_template: HashMap<i64, Vec<usize>>,
    /// Exceptions of strategies, oldest first. Where they are unread, strategies hold as if there were none: an alarm
    /// too many is the lesser evil.
    pub exceptions: Vec<Exception>,
    pub expressions: Vec<Expression>,
    /// Ids of expressions that are switched off.
    pub paused: Vec<i64>,
    /// Directories by group.
    pub plugin_dirs: HashMap<i64, Vec<String>>,
    pub aggregators: Vec<Aggregator>,
    pub mocks: Vec<Mock>,
    /// Names of the groups, by id.
    pub groups: HashMap<i64, String>,
    /// Shared by the snapshots that follow: only a read of all tables reads probes.
    pub probes: Arc<Probes>,
    /// Tables of which rows are missing here, since they cannot be read. A row that is missing was not deleted.
    pub unread: Vec<&'static str>,
}

/// The tables of a snapshot, by the names that they have in [`Snapshot::unread`].
const HOSTS: &str = "host";
const MEMBERS: &str = "grp_host";
const BINDINGS: &str = "grp_tpl";
const TEMPLATES: &str = "tpl";
const STRATEGIES: &str = "strategy";
const EXPRESSIONS: &str = "expression";
const PLUGINS: &str = "plugin_dir";
const AGGREGATORS: &str = "cluster";
const MOCKS: &str = "mockcfg";
const GROUPS: &str = "grp";
const EXCEPTIONS: &str = "hawkeye_exception";
const PROBES: &str = "hawkeye_probe";
const TABLES: usize = 12;

/// Host with what decides its rules.
#[derive(Clone, Debug, Default)]
pub struct HostRow {
    pub hostname: String,
    /// Unix seconds.
    pub maintain_begin: i64,
    /// Unix seconds.
    pub maintain_end: i64,
    pub groups: Vec<i64>,
    /// The templates bound to the host's groups, each once, in the order of their ids.
    pub templates: Vec<i64>,
}

impl Snapshot {
    /// Reads all tables in one transaction. Fails as the database does, and where a row cannot be read.
    pub async fn load(portal: &Portal) -> Result<Snapshot> {
        match Self::load_readable(portal).await? {
            (_, Some(error)) => Err(error).context("cannot read the rules from the portal"),
            (snapshot, None) => Ok(snapshot),
        }
    }

    /// Reads what can be read of the tables in one transaction, and says why there is more, if there is. Fails as the
    /// database does, and where no table can be read: then it is the schema that is damaged.
    pub async fn load_readable(portal: &Portal) -> Result<(Snapshot, Option<sqlx::Error>)> {
        let mut transaction = portal.read().await.context("cannot read the portal")?;
        let mut gaps = Gaps::default();
        let snapshot = load(&mut transaction, &mut gaps).await.context("cannot read the rules from the portal")?;
        // One that met damage cannot be committed, and there is nothing to commit.
        drop(transaction);
        if gaps.tables.len() == TABLES {
            gaps.first.take().map_or(Ok(()), Err).context("cannot read any table of rules from the portal")?;
        }
        Ok((Snapshot { unread: gaps.tables, ..snapshot }, gaps.first))
    }

    /// These tables with some strategies as the portal has them now. Whoever asks for it knows that nothing else has
    /// changed.
    pub async fn with_strategies(&self, portal: &Portal, ids: &BTreeSet<i64>) -> Result<Snapshot> {
        if ids.is_empty() {
            return Ok(self.clone());
        }
        let read = strategy::of_ids(portal, ids.iter().copied()).await.context("cannot read strategies")?;
        let mut snapshot = self.clone();
        let mut strategies = std::mem::take(&mut snapshot.strategies);
        strategies.retain(|strategy| !ids.contains(&strategy.id));
        strategies.extend(read);
        strategies.sort_unstable_by_key(|strategy| strategy.id);
        snapshot.set_strategies(strategies);
        Ok(snapshot)
    }

    /// Whether all of what agents are to run of plugins was read.
    pub fn has_all_plugins(&self) -> bool {
        ![HOSTS, MEMBERS, PLUGINS].iter().any(|table| self.unread.contains(table))
    }

    /// Whether all of what agents are to run of probes was read.
    pub fn has_all_probes(&self) -> bool {
        ![HOSTS, MEMBERS, PROBES].iter().any(|table| self.unread.contains(table))
    }

    /// Bytes that the rows hold.
    pub fn memory_bytes(&self) -> usize {
        let ids = size_of::<i64>();
        let host =
            |host: &HostRow| host.hostname.capacity() + (host.groups.capacity() + host.templates.capacity()) * ids;
        let template = |template: &model::Template| template.name.capacity() + template.creator.capacity();
        let dirs = |dirs: &Vec<String>| {
            dirs.capacity() * size_of::<String>() + dirs.iter().map(String::capacity).sum::<usize>()
        };
        self.hosts.capacity() * size_of::<HostRow>()
            + self.hosts.iter().map(host).sum::<usize>()
            + places(&self.templates)
            + self.templates.values().map(template).sum::<usize>()
            + places(&self.parents)
            + self.strategies.capacity() * size_of::<Strategy>()
            + self.strategies.iter().map(Strategy::text_bytes).sum::<usize>()
            + places(&self.by_template)
            + self.by_template.values().map(|list| list.capacity() * size_of::<usize>()).sum::<usize>()
            + self.exceptions.capacity() * size_of::<Exception>()
            + self.exceptions.iter().map(Exception::text_bytes).sum::<usize>()
            + self.expressions.capacity() * size_of::<Expression>()
            + self.expressions.iter().map(Expression::text_bytes).sum::<usize>()
            + self.paused.capacity() * ids
            + places(&self.plugin_dirs)
            + self.plugin_dirs.values().map(dirs).sum::<usize>()
            + self.aggregators.capacity() * size_of::<Aggregator>()
            + self.aggregators.iter().map(Aggregator::text_bytes).sum::<usize>()
            + self.mocks.capacity() * size_of::<Mock>()
            + self.mocks.iter().map(Mock::text_bytes).sum::<usize>()
            + places(&self.groups)
            + self.groups.values().map(String::capacity).sum::<usize>()
            + self.probes.memory_bytes()
    }

    /// How long after `now` (Unix seconds) the rules may be others by the clock alone: until the next full minute, or
    /// until a maintenance begins or is over before that.
    pub fn next_moment(&self, now: i64) -> Duration {
        let changes = self.hosts.iter().flat_map(|host| [host.maintain_begin, host.maintain_end.saturating_add(1)]);
        let next_minute = now - now.rem_euclid(60) + 60;
        let next = changes.filter(|time| *time > now).chain([next_minute]).min().unwrap_or(next_minute);
        Duration::from_secs(next.abs_diff(now))
    }

    /// Whether there is a template of this id.
    pub fn has_template(&self, id: i64) -> bool {
        self.templates.contains_key(&id)
    }

    /// Hosts of a group that are not in maintenance at `now`.
    pub fn hosts_of(&self, group: i64, now: i64) -> impl Iterator<Item = &HostRow> {
        let counts = move |host: &&HostRow| host.groups.contains(&group) && is_monitored(host, now);
        self.hosts.iter().filter(counts)
    }

    /// Finds a host by its name.
    pub fn host(&self, hostname: &str) -> Option<&HostRow> {
        let at = self.hosts.binary_search_by(|host| host.hostname.as_str().cmp(hostname)).ok()?;
        Some(&self.hosts[at])
    }
}

/// The bytes of a map's places: a hash table keeps one byte besides each place, used or not.
fn places<K, V>(map: &HashMap<K, V>) -> usize {
    map.capacity() * (size_of::<(K, V)>() + 1)
}

/// The tables that could not be read whole, and why the first could not.
#[derive(Default)]
struct Gaps {
    tables: Vec<&'static str>,
    first: Option<sqlx::Error>,
}

impl Gaps {
    /// The rows that were read of `table`.
    fn note<T>(&mut self, table: &'static str, read: Salvaged<T>) -> Vec<T> {
        if let Some(error) = read.lost {
            self.tables.push(table);
            self.first.get_or_insert(error);
        }
        read.rows
    }
}

async fn load(transaction: &mut Transaction, gaps: &mut Gaps) -> sqlx::Result<Snapshot> {
    let mut snapshot = Snapshot { hosts: load_hosts(transaction, gaps).await?, ..Snapshot::default() };
    for template in gaps.note(TEMPLATES, template::that_read(transaction).await?) {
        let template::Template { id, tpl_name: name, parent_id, action_id, create_user: creator } = template;
        snapshot.parents.insert(id, parent_id);
        snapshot.templates.insert(id, model::Template { id, name, parent_id, action_id, creator });
    }
    let mut strategies = gaps.note(STRATEGIES, strategy::all(transaction).await?);
    strategies.sort_unstable_by_key(|strategy| strategy.id);
    snapshot.set_strategies(strategies);
    snapshot.exceptions = gaps.note(EXCEPTIONS, exception::that_read(transaction).await?);
    snapshot.exceptions.sort_unstable_by_key(|exception| exception.id);
    let mut expressions = gaps.note(EXPRESSIONS, expression::that_read(transaction).await?);
    expressions.sort_unstable_by_key(|expression| expression.id);
    snapshot.paused = expressions.iter().filter(|row| row.is_paused()).map(|row| row.id).collect();
    expressions.retain(Expression::is_in_effect);
    snapshot.expressions = expressions;
    for (group, dir) in gaps.note(PLUGINS, plugin::dirs(transaction).await?) {
        snapshot.plugin_dirs.entry(group).or_default().push(dir);
    }
    snapshot.aggregators = gaps.note(AGGREGATORS, aggregator::that_read(transaction).await?);
    snapshot.mocks = gaps.note(MOCKS, mock::that_read(transaction).await?);
    snapshot.probes = Arc::new(Probes::of(gaps.note(PROBES, probe::that_read(transaction).await?)));
    snapshot.groups = gaps.note(GROUPS, group::names(transaction).await?).into_iter().collect();
    Ok(snapshot)
}

async fn load_hosts(transaction: &mut Transaction, gaps: &mut Gaps) -> sqlx::Result<Vec<HostRow>> {
    let rows = gaps.note(HOSTS, host::maintained(transaction).await?);
    let members = gaps.note(MEMBERS, group::members(transaction).await?);
    let bindings = gaps.note(BINDINGS, group::bindings(transaction).await?);
    let mut groups_of: HashMap<i64, Vec<i64>> = HashMap::new();
    for (host, group) in members {
        groups_of.entry(host).or_default().push(group);
    }
    let mut templates_of: HashMap<i64, Vec<i64>> = HashMap::new();
    for (group, template) in bindings {
        templates_of.entry(group).or_default().push(template);
    }
    let mut hosts: Vec<HostRow> = rows
        .into_iter()
        .map(|host::Maintenance { id, hostname, maintain_begin, maintain_end }| {
            let groups = groups_of.remove(&id).unwrap_or_default();
            let mut templates: Vec<i64> =
                groups.iter().filter_map(|group| templates_of.get(group)).flatten().copied().collect();
            templates.sort_unstable();
            templates.dedup();
            HostRow { hostname, maintain_begin, maintain_end, groups, templates }
        })
        .collect();
    hosts.sort_unstable_by(|a, b| a.hostname.cmp(&b.hostname));
    Ok(hosts)
}

impl Snapshot {
    /// Replaces the rows of strategies.
    pub fn set_strategies(&mut self, strategies: Vec<Strategy>) {
        self.by_template.clear();
        for (at, strategy) in strategies.iter().enumerate() {
            self.by_template.entry(strategy.tpl_id).or_default().push(at);
        }
        self.strategies = strategies;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::Announced;
    use crate::portal::tests::temporary;

    /// What is read of some strategies makes of a snapshot what reading everything would make.
    #[tokio::test]
    async fn some_strategies_are_read_anew() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let tpl_id = template::create(&portal, "t", 0, 0, "root").await?.id;
        let row = |metric: &str| Strategy { metric: metric.into(), tpl_id, ..Strategy::default() };
        let mut ids = Vec::new();
        for metric in ["a", "b", "c"] {
            ids.push(strategy::create(&portal, &row(metric)).await?);
        }
        let before = Snapshot::load(&portal).await?;
        portal.take_announced();
        strategy::update(&portal, &Strategy { id: ids[0], ..row("changed") }).await?;
        strategy::create(&portal, &row("new")).await?;
        let Announced::Strategies(mut told) = portal.take_announced() else { panic!("nothing else was changed") };
        assert_eq!(told.len(), 2);
        let mut transaction = portal.write().await?;
        strategy::remove(&mut transaction, ids[1]).await?;
        transaction.commit().await?;
        told.insert(ids[1]);
        let (read, whole) = (before.with_strategies(&portal, &told).await?, Snapshot::load(&portal).await?);
        assert_eq!((&read.strategies, &read.by_template), (&whole.strategies, &whole.by_template));
        let metrics: Vec<&str> = read.strategies.iter().map(|row| row.metric.as_str()).collect();
        assert_eq!(metrics, ["changed", "c", "new"]);
        assert_eq!(before.with_strategies(&portal, &BTreeSet::new()).await?.strategies, before.strategies);
        Ok(())
    }

    /// A maintenance holds from the second that it names, and through its last one.
    #[test]
    fn rules_are_computed_when_a_maintenance_begins_and_when_it_is_over() {
        let check = |windows: &[(i64, i64)], now: i64, seconds: u64| {
            let host = |window: &(i64, i64)| HostRow {
                maintain_begin: window.0,
                maintain_end: window.1,
                ..HostRow::default()
            };
            let snapshot = Snapshot { hosts: windows.iter().map(host).collect(), ..Snapshot::default() };
            assert_eq!(snapshot.next_moment(now), Duration::from_secs(seconds), "{windows:?} at {now}");
        };
        check(&[], 600, 60);
        check(&[(0, 0)], 601, 59);
        check(&[(610, 630), (700, 800)], 605, 5);
        check(&[(610, 630), (0, 0)], 610, 21);
        check(&[(610, 630)], 631, 29);
        check(&[(1, i64::MAX)], 605, 55);
    }

    /// Agents go on with their plugins while it cannot be said which they are to run, and only then.
    #[test]
    fn plugins_depend_on_three_tables() {
        let check = |unread: &[&'static str], has_all: bool| {
            let snapshot = Snapshot { unread: unread.to_vec(), ..Snapshot::default() };
            assert_eq!(snapshot.has_all_plugins(), has_all, "{unread:?}");
        };
        check(&[], true);
        check(&[BINDINGS, TEMPLATES, STRATEGIES, EXPRESSIONS], true);
        check(&[STRATEGIES, PLUGINS], false);
        check(&[HOSTS], false);
        check(&[MEMBERS], false);
    }
}
