//! Hosts (`falcon_portal.host`): machines that report, or will; their maintenance, groups and templates.
//!
//! Invariants: names compare without case; a host is created by its first report ([`report`]) or by putting its name
//! into a group. The first report also decides how the name is spelled, for rules find a host by the exact name that
//! its points have.
//! Memory: at most [`HOSTS_MAX`] rows, because names come from agents that nobody authenticates.

use super::Portal;
use super::agent;
use super::db::{Record, Salvaged, Transaction, query, record, salvage, select};
use crate::clock;
use serde::Serialize;

/// The most rows: ten times the largest published Open-Falcon installation.
pub const HOSTS_MAX: i64 = 100_000;
/// Length of the column `hostname`, in characters.
pub const HOSTNAME_MAX: usize = 255;
/// Length of the column `ip`, in characters.
pub const IP_MAX: usize = 16;
/// Length of the column `agent_version`, in characters.
pub const AGENT_VERSION_MAX: usize = 16;
/// Length of the column `plugin_version`, in characters.
pub const PLUGIN_VERSION_MAX: usize = 128;

record! {
    /// A host as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Host {
        pub id: i64,
        pub hostname: String,
        pub ip: String,
        pub agent_version: String,
        pub plugin_version: String,
        /// Unix seconds.
        pub maintain_begin: i64,
        /// Unix seconds.
        pub maintain_end: i64,
    }
}

record! {
    /// A host's name and maintenance, which rules depend on.
    #[derive(Clone, Debug)]
    pub struct Maintenance {
        pub id: i64,
        pub hostname: String,
        /// Unix seconds.
        pub maintain_begin: i64,
        /// Unix seconds.
        pub maintain_end: i64,
    }
}

record! {
    /// The columns that an agent's report fills.
    #[derive(Clone, Debug, PartialEq)]
    pub struct AgentFacts {
        pub ip: String,
        pub agent_version: String,
        pub plugin_version: String,
    }
}

/// The hosts that a request means.
#[derive(Clone, Debug)]
pub enum Selection {
    Names(Vec<String>),
    Ids(Vec<i64>),
}

/// Whether there is a host of this id.
pub async fn exists(portal: &Portal, id: i64) -> sqlx::Result<bool> {
    let found: Option<i64> = query("SELECT id FROM falcon_portal.host WHERE id = ?").bind(id).optional(portal).await?;
    Ok(found.is_some())
}

/// Finds a host by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Host>> {
    select::<Host>("FROM falcon_portal.host WHERE id = ?").bind(id).optional(portal).await
}

/// The hosts of a request that are there; it must mean some.
pub async fn find(portal: &Portal, which: &Selection) -> sqlx::Result<Vec<Host>> {
    match which {
        Selection::Names(names) => {
            let hosts = select::<Host>("FROM falcon_portal.host WHERE hostname").in_list(names);
            hosts.push(" ORDER BY id").all(portal).await
        }
        Selection::Ids(ids) => {
            let hosts = select::<Host>("FROM falcon_portal.host WHERE id").in_list(ids.iter().copied());
            hosts.push(" ORDER BY id").all(portal).await
        }
    }
}

/// Finds a host by its name.
pub async fn by_name(portal: &Portal, name: &str) -> sqlx::Result<Option<Host>> {
    select::<Host>("FROM falcon_portal.host WHERE hostname = ?").bind(name).optional(portal).await
}

/// All hosts, oldest first.
pub async fn all(portal: &Portal) -> sqlx::Result<Vec<Host>> {
    select::<Host>("FROM falcon_portal.host ORDER BY id").all(portal).await
}

/// All hosts that can be read, in no order.
pub async fn maintained(transaction: &mut Transaction) -> sqlx::Result<Salvaged<Maintenance>> {
    salvage(transaction, Maintenance::COLUMNS, "falcon_portal.host").await
}

/// Hosts of a group, oldest first.
pub async fn of_group(portal: &Portal, grp_id: i64) -> sqlx::Result<Vec<Host>> {
    select::<Host>(
        "FROM falcon_portal.host WHERE id IN (SELECT host_id FROM falcon_portal.grp_host WHERE grp_id = ?) ORDER BY id",
    )
    .bind(grp_id)
    .all(portal)
    .await
}

/// The names or ids of a request that are no hosts.
pub async fn unknown(portal: &Portal, which: &Selection) -> sqlx::Result<Vec<String>> {
    let mut unknown = Vec::new();
    match which {
        Selection::Names(names) => {
            for name in names {
                let sql = "SELECT id FROM falcon_portal.host WHERE hostname = ?";
                let found: Option<i64> = query(sql).bind(name).optional(portal).await?;
                if found.is_none() {
                    unknown.push(name.clone());
                }
            }
        }
        Selection::Ids(ids) => {
            for id in ids {
                if !exists(portal, *id).await? {
                    unknown.push(id.to_string());
                }
            }
        }
    }
    Ok(unknown)
}

/// Deletes a host, its memberships and what its agent has said, if it is there.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    let name = query("SELECT hostname FROM falcon_portal.host WHERE id = ?").bind(id);
    if let Some(name) = name.optional::<String>(&mut transaction).await? {
        agent::delete(&mut transaction, &name).await?;
    }
    query("DELETE FROM falcon_portal.grp_host WHERE host_id = ?").bind(id).execute(&mut transaction).await?;
    query("DELETE FROM falcon_portal.host WHERE id = ?").bind(id).execute(&mut transaction).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(())
}

/// Sets the window in which nothing is judged (0, 0 ends it); returns how many hosts were meant.
pub async fn maintain(portal: &Portal, which: &Selection, begin: i64, end: i64) -> sqlx::Result<u64> {
    let mut transaction = portal.write().await?;
    let mut count = 0;
    match which {
        Selection::Names(names) => {
            for name in names {
                let sql = "UPDATE falcon_portal.host SET maintain_begin = ?, maintain_end = ? WHERE hostname = ?";
                count += query(sql).bind(begin).bind(end).bind(name).execute(&mut transaction).await?.rows;
            }
        }
        Selection::Ids(ids) => {
            for id in ids {
                let sql = "UPDATE falcon_portal.host SET maintain_begin = ?, maintain_end = ? WHERE id = ?";
                count += query(sql).bind(begin).bind(end).bind(*id).execute(&mut transaction).await?.rows;
            }
        }
    }
    transaction.commit().await?;
    portal.announce();
    Ok(count)
}

/// A report's effect on the table of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportEffect {
    New,
    Changed,
    Unchanged,
    /// The host is unknown, and there are [`HOSTS_MAX`] already.
    Full,
}

/// Writes a report if it says something new, and announces a host that reports for the first time. `now` is in Unix
/// seconds.
pub async fn report(portal: &Portal, hostname: &str, told: &AgentFacts, now: i64) -> sqlx::Result<ReportEffect> {
    let known =
        select::<AgentFacts>("FROM falcon_portal.host WHERE hostname = ?").bind(hostname).optional(portal).await?;
    if known.as_ref() == Some(told) {
        return Ok(ReportEffect::Unchanged);
    }
    let mut transaction = portal.write().await?;
    let Some(id) = ensure(&mut transaction, hostname).await? else { return Ok(ReportEffect::Full) };
    let is_first = known.is_none_or(|known| known.ip.is_empty() && known.agent_version.is_empty());
    if is_first {
        let sql = "UPDATE falcon_portal.host SET hostname = ? WHERE id = ?";
        query(sql).bind(hostname).bind(id).execute(&mut transaction).await?;
    }
    query("UPDATE falcon_portal.host SET ip = ?, agent_version = ?, plugin_version = ?, update_at = ? WHERE id = ?")
        .bind(&told.ip)
        .bind(&told.agent_version)
        .bind(&told.plugin_version)
        .bind(clock::local_text(now))
        .bind(id)
        .execute(&mut transaction)
        .await?;
    transaction.commit().await?;
    if !is_first {
        return Ok(ReportEffect::Changed);
    }
    portal.announce();
    Ok(ReportEffect::New)
}

/// The id of the host of that name, created when there is none. None when there are [`HOSTS_MAX`] already.
pub async fn ensure(transaction: &mut Transaction, hostname: &str) -> sqlx::Result<Option<i64>> {
    if let Some(id) = id_of(transaction, hostname).await? {
        return Ok(Some(id));
    }
    let count: i64 = query("SELECT count(*) FROM falcon_portal.host").one(&mut *transaction).await?;
    if count >= HOSTS_MAX {
        return Ok(None);
    }
    let sql = "INSERT INTO falcon_portal.host (hostname) VALUES (?)";
    Ok(Some(query(sql).bind(hostname).execute(transaction).await?.id))
}

pub(super) async fn id_of(transaction: &mut Transaction, hostname: &str) -> sqlx::Result<Option<i64>> {
    query("SELECT id FROM falcon_portal.host WHERE hostname = ?").bind(hostname).optional(transaction).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::group;
    use crate::portal::tests::temporary;
    use anyhow::Result;

    /// Past 2038, where 31 bits end.
    const LATE: i64 = 4_000_000_000;

    #[tokio::test]
    async fn the_first_report_decides_how_a_name_is_spelled() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let group = group::create(&portal, "g", "root").await?;
        let ids = group::replace_hosts(&portal, group.id, &["WEB-01".to_string()]).await?.expect("room");
        let facts = |ip: &str| AgentFacts { ip: ip.into(), agent_version: "5.1".into(), plugin_version: "n".into() };
        let check = async |name: &str, ip: &str, effect: ReportEffect, spelled: &str| -> Result<()> {
            let before = portal.version();
            assert_eq!(report(&portal, name, &facts(ip), 1_600_000_000).await?, effect, "{name} {ip}");
            assert_eq!(
                portal.version() - before,
                u64::from(effect == ReportEffect::New),
                "only a new one is announced"
            );
            let [host] = &of_group(&portal, group.id).await?[..] else { panic!("one host") };
            assert_eq!((host.id, host.hostname.as_str()), (ids[0], spelled));
            Ok(())
        };
        check("Web-01", "10.0.0.1", ReportEffect::New, "Web-01").await?;
        check("Web-01", "10.0.0.1", ReportEffect::Unchanged, "Web-01").await?;
        // A second machine of this name does not take it away from the first.
        check("web-01", "10.0.0.2", ReportEffect::Changed, "Web-01").await
    }

    #[tokio::test]
    async fn maintenance_is_set_by_name_and_by_id() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let group = group::create(&portal, "g", "root").await?;
        let names = ["a".to_string(), "b".to_string()];
        let ids = group::replace_hosts(&portal, group.id, &names).await?.expect("room");
        let windows = async || -> Result<Vec<(i64, i64)>> {
            let hosts = of_group(&portal, group.id).await?;
            Ok(hosts.into_iter().map(|host| (host.maintain_begin, host.maintain_end)).collect())
        };
        let twice = Selection::Names(vec!["A".into(), "none".into()]);
        assert_eq!((maintain(&portal, &twice, 5, LATE).await?, windows().await?), (1, vec![(5, LATE), (0, 0)]));
        let both = Selection::Ids(vec![ids[0], ids[1], 999]);
        assert_eq!((maintain(&portal, &both, 0, 0).await?, windows().await?), (2, vec![(0, 0), (0, 0)]));
        let hosts = maintained(&mut portal.read().await?).await?.rows;
        let known: Vec<String> = hosts.into_iter().map(|host| host.hostname).collect();
        assert_eq!(known.len(), 2);
        Ok(())
    }
}
