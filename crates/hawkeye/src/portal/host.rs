//! Hosts (`falcon_portal.host`): what reports, or will; their maintenance; and what groups and templates they are in.
//!
//! Invariants: names compare without case; a host is created by its first heartbeat (`hbs.rs`) or by putting its name into
//! a group. Memory: at most [`HOSTS_MAX`] rows, because names come from agents that nobody authenticates.

use super::Portal;
use super::group::{self, Group};
use super::template::{self, Template};
use serde::Serialize;
use sqlx::SqliteConnection;

/// Ten times the largest published Open-Falcon installation.
pub const HOSTS_MAX: i64 = 100_000;
/// The column's length, in characters.
pub const HOSTNAME_MAX: usize = 255;

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

type Row = (i64, String, String, String, String, i64, i64);

impl From<Row> for Host {
    fn from((id, hostname, ip, agent_version, plugin_version, maintain_begin, maintain_end): Row) -> Host {
        Host { id, hostname, ip, agent_version, plugin_version, maintain_begin, maintain_end }
    }
}

/// Which hosts a request means.
#[derive(Clone, Debug)]
pub enum Which {
    Names(Vec<String>),
    Ids(Vec<i64>),
}

pub async fn exists(portal: &Portal, id: i64) -> sqlx::Result<bool> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT id FROM host WHERE id = ?").bind(id).fetch_optional(portal.pool()).await?;
    Ok(found.is_some())
}

pub async fn of_group(portal: &Portal, grp_id: i64) -> sqlx::Result<Vec<Host>> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, hostname, ip, agent_version, plugin_version, maintain_begin, maintain_end FROM host
         WHERE id IN (SELECT host_id FROM grp_host WHERE grp_id = ?) ORDER BY id",
    )
    .bind(grp_id)
    .fetch_all(portal.pool())
    .await?;
    Ok(rows.into_iter().map(Host::from).collect())
}

pub async fn groups(portal: &Portal, id: i64) -> sqlx::Result<Vec<Group>> {
    let rows: Vec<group::Row> = sqlx::query_as(
        "SELECT id, grp_name, create_user FROM grp
         WHERE id IN (SELECT grp_id FROM grp_host WHERE host_id = ?) ORDER BY id",
    )
    .bind(id)
    .fetch_all(portal.pool())
    .await?;
    Ok(rows.into_iter().map(Group::from).collect())
}

/// The templates that are bound to the host's groups; their ancestors are not listed.
pub async fn templates(portal: &Portal, id: i64) -> sqlx::Result<Vec<Template>> {
    let rows: Vec<template::Row> = sqlx::query_as(
        "SELECT id, tpl_name, parent_id, action_id, create_user FROM tpl
         WHERE id IN (SELECT tpl_id FROM grp_tpl WHERE grp_id IN (SELECT grp_id FROM grp_host WHERE host_id = ?))
         ORDER BY id",
    )
    .bind(id)
    .fetch_all(portal.pool())
    .await?;
    Ok(rows.into_iter().map(Template::from).collect())
}

/// Sets the window in which nothing is judged (0, 0 ends it); returns how many hosts were meant.
pub async fn maintain(portal: &Portal, which: &Which, begin: i64, end: i64) -> sqlx::Result<u64> {
    let mut transaction = portal.write().await?;
    let mut count = 0;
    match which {
        Which::Names(names) => {
            for name in names {
                let sql = "UPDATE host SET maintain_begin = ?, maintain_end = ? WHERE hostname = ?";
                let done = sqlx::query(sql).bind(begin).bind(end).bind(name).execute(&mut *transaction).await?;
                count += done.rows_affected();
            }
        }
        Which::Ids(ids) => {
            for id in ids {
                let sql = "UPDATE host SET maintain_begin = ?, maintain_end = ? WHERE id = ?";
                let done = sqlx::query(sql).bind(begin).bind(end).bind(id).execute(&mut *transaction).await?;
                count += done.rows_affected();
            }
        }
    }
    transaction.commit().await?;
    portal.announce();
    Ok(count)
}

/// The id of the host of that name, created when there is none. None when there are [`HOSTS_MAX`] already.
pub async fn ensure(connection: &mut SqliteConnection, hostname: &str) -> sqlx::Result<Option<i64>> {
    if let Some(id) = id_of(connection, hostname).await? {
        return Ok(Some(id));
    }
    let done = sqlx::query("INSERT INTO host (hostname) SELECT ? WHERE (SELECT count(*) FROM host) < ?")
        .bind(hostname)
        .bind(HOSTS_MAX)
        .execute(connection)
        .await?;
    Ok((done.rows_affected() == 1).then(|| done.last_insert_rowid()))
}

pub(super) async fn id_of(connection: &mut SqliteConnection, hostname: &str) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("SELECT id FROM host WHERE hostname = ?").bind(hostname).fetch_optional(connection).await
}
