//! Host groups (`falcon_portal.grp`): their hosts, and the templates bound to them.
//!
//! Invariants: a group's change of hosts is one transaction; a host is in a group once (the original's table allows twice).
//! Compat: deleting a group also deletes its template bindings, which the original leaves behind.

use super::template::{self, Template};
use super::{Portal, host};
use serde::Serialize;

/// The column's length, in characters.
pub const NAME_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    pub id: i64,
    pub grp_name: String,
    pub create_user: String,
}

pub(super) type Row = (i64, String, String);

impl From<Row> for Group {
    fn from((id, grp_name, create_user): Row) -> Group {
        Group { id, grp_name, create_user }
    }
}

pub async fn all(portal: &Portal) -> sqlx::Result<Vec<Group>> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT id, grp_name, create_user FROM grp ORDER BY id").fetch_all(portal.pool()).await?;
    Ok(rows.into_iter().map(Group::from).collect())
}

pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Group>> {
    let row: Option<Row> = sqlx::query_as("SELECT id, grp_name, create_user FROM grp WHERE id = ?")
        .bind(id)
        .fetch_optional(portal.pool())
        .await?;
    Ok(row.map(Group::from))
}

/// A name that exists is a unique violation.
pub async fn create(portal: &Portal, grp_name: &str, create_user: &str) -> sqlx::Result<Group> {
    // come_from 1: made by hand, not synchronised from elsewhere.
    let done = sqlx::query("INSERT INTO grp (grp_name, create_user, come_from) VALUES (?, ?, 1)")
        .bind(grp_name)
        .bind(create_user)
        .execute(portal.pool())
        .await?;
    let (grp_name, create_user) = (grp_name.to_string(), create_user.to_string());
    Ok(Group { id: done.last_insert_rowid(), grp_name, create_user })
}

pub async fn rename(portal: &Portal, id: i64, grp_name: &str) -> sqlx::Result<u64> {
    let done =
        sqlx::query("UPDATE grp SET grp_name = ? WHERE id = ?").bind(grp_name).bind(id).execute(portal.pool()).await?;
    Ok(done.rows_affected())
}

pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    for sql in [
        "DELETE FROM grp WHERE id = ?",
        "DELETE FROM grp_host WHERE grp_id = ?",
        "DELETE FROM grp_tpl WHERE grp_id = ?",
        "DELETE FROM plugin_dir WHERE grp_id = ?",
        "DELETE FROM cluster WHERE grp_id = ?",
    ] {
        sqlx::query(sql).bind(id).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    portal.announce();
    Ok(())
}

/// Makes `hostnames` the group's hosts, creating those that are unknown, and returns their ids. None when the table of
/// hosts is full; then nothing has changed.
pub async fn replace_hosts(portal: &Portal, id: i64, hostnames: &[String]) -> sqlx::Result<Option<Vec<i64>>> {
    let mut transaction = portal.write().await?;
    sqlx::query("DELETE FROM grp_host WHERE grp_id = ?").bind(id).execute(&mut *transaction).await?;
    let mut ids = Vec::with_capacity(hostnames.len());
    for hostname in hostnames {
        let Some(host_id) = host::ensure(&mut transaction, hostname).await? else { return Ok(None) };
        if bind_host(&mut transaction, id, host_id).await? {
            ids.push(host_id);
        }
    }
    transaction.commit().await?;
    portal.announce();
    Ok(Some(ids))
}

/// What adding hosts did: names that were added, and names that were in the group already.
#[derive(Debug, Default, PartialEq)]
pub struct Added {
    pub added: Vec<String>,
    pub existing: Vec<String>,
}

/// Adds hosts, creating those that are unknown. None when the table of hosts is full; then nothing has changed.
pub async fn add_hosts(portal: &Portal, id: i64, hostnames: Vec<String>) -> sqlx::Result<Option<Added>> {
    let mut transaction = portal.write().await?;
    let mut done = Added::default();
    for hostname in hostnames {
        let Some(host_id) = host::ensure(&mut transaction, &hostname).await? else { return Ok(None) };
        match bind_host(&mut transaction, id, host_id).await? {
            true => done.added.push(hostname),
            false => done.existing.push(hostname),
        }
    }
    transaction.commit().await?;
    portal.announce();
    Ok(Some(done))
}

/// Removes hosts; returns the names that were in the group.
pub async fn remove_hosts(portal: &Portal, id: i64, hostnames: Vec<String>) -> sqlx::Result<Vec<String>> {
    let mut transaction = portal.write().await?;
    let mut removed = Vec::new();
    for hostname in hostnames {
        let Some(host_id) = host::id_of(&mut transaction, &hostname).await? else { continue };
        let sql = "DELETE FROM grp_host WHERE grp_id = ? AND host_id = ?";
        let done = sqlx::query(sql).bind(id).bind(host_id).execute(&mut *transaction).await?;
        if done.rows_affected() > 0 {
            removed.push(hostname);
        }
    }
    transaction.commit().await?;
    portal.announce();
    Ok(removed)
}

pub async fn remove_host(portal: &Portal, id: i64, host_id: i64) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM grp_host WHERE grp_id = ? AND host_id = ?")
        .bind(id)
        .bind(host_id)
        .execute(portal.pool())
        .await?;
    portal.announce();
    Ok(())
}

/// The templates bound to a group.
pub async fn templates(portal: &Portal, id: i64) -> sqlx::Result<Vec<Template>> {
    let rows: Vec<template::Row> = sqlx::query_as(
        "SELECT id, tpl_name, parent_id, action_id, create_user FROM tpl
         WHERE id IN (SELECT tpl_id FROM grp_tpl WHERE grp_id = ?) ORDER BY id",
    )
    .bind(id)
    .fetch_all(portal.pool())
    .await?;
    Ok(rows.into_iter().map(Template::from).collect())
}

/// Who bound a template to a group; None when nobody did.
pub async fn bind_user(portal: &Portal, id: i64, tpl_id: i64) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT bind_user FROM grp_tpl WHERE grp_id = ? AND tpl_id = ?")
        .bind(id)
        .bind(tpl_id)
        .fetch_optional(portal.pool())
        .await
}

/// Returns false when the template is bound already.
pub async fn bind_template(portal: &Portal, id: i64, tpl_id: i64, bind_user: &str) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "INSERT INTO grp_tpl (grp_id, tpl_id, bind_user)
         SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM grp_tpl WHERE grp_id = ?1 AND tpl_id = ?2)",
    )
    .bind(id)
    .bind(tpl_id)
    .bind(bind_user)
    .execute(portal.pool())
    .await?;
    portal.announce();
    Ok(done.rows_affected() == 1)
}

pub async fn unbind_template(portal: &Portal, id: i64, tpl_id: i64) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM grp_tpl WHERE grp_id = ? AND tpl_id = ?")
        .bind(id)
        .bind(tpl_id)
        .execute(portal.pool())
        .await?;
    portal.announce();
    Ok(())
}

/// Returns false when the host is in the group already.
async fn bind_host(connection: &mut sqlx::SqliteConnection, id: i64, host_id: i64) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "INSERT INTO grp_host (grp_id, host_id)
         SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM grp_host WHERE host_id = ?2 AND grp_id = ?1)",
    )
    .bind(id)
    .bind(host_id)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
