//! Hosts (`falcon_portal.host`): what reports, or will; their maintenance; and what groups and templates they are in.
//!
//! Invariants: names compare without case; a host is created by its first report ([`report`]) or by putting its name
//! into a group. Memory: at most [`HOSTS_MAX`] rows, because names come from agents that nobody authenticates.

use super::Portal;
use super::db::{On, Transaction, query, record, select};
use super::group::Group;
use super::template::Template;
use crate::clock;
use serde::Serialize;

/// Ten times the largest published Open-Falcon installation.
pub const HOSTS_MAX: i64 = 100_000;
/// The columns' lengths, in characters.
pub const HOSTNAME_MAX: usize = 255;
pub const IP_MAX: usize = 16;
pub const AGENT_VERSION_MAX: usize = 16;
pub const PLUGIN_VERSION_MAX: usize = 128;

record! {
    /// A host as the API shows it.
    #[derive(Clone, Debug, PartialEq, Serialize)]
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
    pub struct Maintained {
        pub id: i64,
        pub hostname: String,
        /// Unix seconds.
        pub maintain_begin: i64,
        /// Unix seconds.
        pub maintain_end: i64,
    }
}

record! {
    /// An agent's word about its host.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Told {
        pub ip: String,
        pub agent_version: String,
        pub plugin_version: String,
    }
}

/// Which hosts a request means.
#[derive(Clone, Debug)]
pub enum Which {
    Names(Vec<String>),
    Ids(Vec<i64>),
}

pub async fn exists(portal: &Portal, id: i64) -> sqlx::Result<bool> {
    let found: Option<i64> = query("SELECT id FROM falcon_portal.host WHERE id = ?").bind(id).optional(portal).await?;
    Ok(found.is_some())
}

/// All hosts, in no order.
pub async fn maintained(on: impl Into<On<'_>>) -> sqlx::Result<Vec<Maintained>> {
    select::<Maintained>("FROM falcon_portal.host").all(on).await
}

pub async fn of_group(portal: &Portal, grp_id: i64) -> sqlx::Result<Vec<Host>> {
    select::<Host>(
        "FROM falcon_portal.host WHERE id IN (SELECT host_id FROM falcon_portal.grp_host WHERE grp_id = ?) ORDER BY id",
    )
    .bind(grp_id)
    .all(portal)
    .await
}

pub async fn groups(portal: &Portal, id: i64) -> sqlx::Result<Vec<Group>> {
    select::<Group>(
        "FROM falcon_portal.grp WHERE id IN (SELECT grp_id FROM falcon_portal.grp_host WHERE host_id = ?) ORDER BY id",
    )
    .bind(id)
    .all(portal)
    .await
}

/// The templates that are bound to the host's groups; their ancestors are not listed.
pub async fn templates(portal: &Portal, id: i64) -> sqlx::Result<Vec<Template>> {
    select::<Template>(
        "FROM falcon_portal.tpl WHERE id IN (SELECT tpl_id FROM falcon_portal.grp_tpl
         WHERE grp_id IN (SELECT grp_id FROM falcon_portal.grp_host WHERE host_id = ?)) ORDER BY id",
    )
    .bind(id)
    .all(portal)
    .await
}

/// Sets the window in which nothing is judged (0, 0 ends it); returns how many hosts were meant.
pub async fn maintain(portal: &Portal, which: &Which, begin: i64, end: i64) -> sqlx::Result<u64> {
    let mut transaction = portal.write().await?;
    let mut count = 0;
    match which {
        Which::Names(names) => {
            for name in names {
                let sql = "UPDATE falcon_portal.host SET maintain_begin = ?, maintain_end = ? WHERE hostname = ?";
                count += query(sql).bind(begin).bind(end).bind(name).execute(&mut transaction).await?.rows;
            }
        }
        Which::Ids(ids) => {
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

/// What a report did to the table of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    New,
    Changed,
    Unchanged,
    /// The host is unknown, and there are [`HOSTS_MAX`] already.
    Full,
}

/// Writes what an agent told of its host if it is something new. A host that reports for the first time is announced.
/// `now` is in Unix seconds.
pub async fn report(portal: &Portal, hostname: &str, told: &Told, now: i64) -> sqlx::Result<Reported> {
    let known = select::<Told>("FROM falcon_portal.host WHERE hostname = ?").bind(hostname).optional(portal).await?;
    if known.as_ref() == Some(told) {
        return Ok(Reported::Unchanged);
    }
    let mut transaction = portal.write().await?;
    let Some(id) = ensure(&mut transaction, hostname).await? else { return Ok(Reported::Full) };
    query("UPDATE falcon_portal.host SET ip = ?, agent_version = ?, plugin_version = ?, update_at = ? WHERE id = ?")
        .bind(&told.ip)
        .bind(&told.agent_version)
        .bind(&told.plugin_version)
        .bind(clock::local_text(now))
        .bind(id)
        .execute(&mut transaction)
        .await?;
    transaction.commit().await?;
    if known.is_some() {
        return Ok(Reported::Changed);
    }
    portal.announce();
    Ok(Reported::New)
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
