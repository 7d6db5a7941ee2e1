//! Teams (`uic.team`, `uic.rel_team_user`): who is told of alarms; actions name teams.
//!
//! Invariants: a user is in a team once.

use super::Portal;
use super::db::{Transaction, query, record, select};
use super::user::User;
use serde::Serialize;

/// The columns' lengths, in characters.
pub const NAME_MAX: usize = 64;
pub const RESUME_MAX: usize = 255;

record! {
    #[derive(Clone, Debug, PartialEq, Serialize)]
    pub struct Team {
        pub id: i64,
        pub name: String,
        pub resume: String,
        pub creator: i64,
    }
}

pub async fn all(portal: &Portal) -> sqlx::Result<Vec<Team>> {
    select::<Team>("FROM uic.team ORDER BY id").all(portal).await
}

/// The teams that a user is in or has created.
pub async fn of_user_or_creator(portal: &Portal, uid: i64) -> sqlx::Result<Vec<Team>> {
    select::<Team>(
        "FROM uic.team WHERE creator = ? OR id IN (SELECT tid FROM uic.rel_team_user WHERE uid = ?) ORDER BY id",
    )
    .bind(uid)
    .bind(uid)
    .all(portal)
    .await
}

/// The teams that a user is in.
pub async fn of_user(portal: &Portal, uid: i64) -> sqlx::Result<Vec<Team>> {
    select::<Team>("FROM uic.team WHERE id IN (SELECT tid FROM uic.rel_team_user WHERE uid = ?) ORDER BY id")
        .bind(uid)
        .all(portal)
        .await
}

pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Team>> {
    select::<Team>("FROM uic.team WHERE id = ?").bind(id).optional(portal).await
}

pub async fn by_name(portal: &Portal, name: &str) -> sqlx::Result<Option<Team>> {
    select::<Team>("FROM uic.team WHERE name = ?").bind(name).optional(portal).await
}

pub async fn members(portal: &Portal, id: i64) -> sqlx::Result<Vec<User>> {
    select::<User>("FROM uic.user WHERE id IN (SELECT uid FROM uic.rel_team_user WHERE tid = ?) ORDER BY id")
        .bind(id)
        .all(portal)
        .await
}

pub async fn is_member(portal: &Portal, id: i64, uid: i64) -> sqlx::Result<bool> {
    let sql = "SELECT id FROM uic.rel_team_user WHERE tid = ? AND uid = ?";
    let found: Option<i64> = query(sql).bind(id).bind(uid).optional(portal).await?;
    Ok(found.is_some())
}

/// Returns how many members the new team has. A name that exists is a unique violation.
pub async fn create(portal: &Portal, name: &str, resume: &str, creator: i64, uids: &[i64]) -> sqlx::Result<u64> {
    let mut transaction = portal.write().await?;
    let team = query("INSERT INTO uic.team (name, resume, creator) VALUES (?, ?, ?)")
        .bind(name)
        .bind(resume)
        .bind(creator)
        .execute(&mut transaction)
        .await?;
    let count = add(&mut transaction, team.id, uids).await?;
    transaction.commit().await?;
    Ok(count)
}

/// Changes what is not empty: the name, the resume, and the whole list of members.
pub async fn update(portal: &Portal, id: i64, name: &str, resume: &str, uids: &[i64]) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    for (sql, text) in
        [("UPDATE uic.team SET name = ? WHERE id = ?", name), ("UPDATE uic.team SET resume = ? WHERE id = ?", resume)]
    {
        if !text.is_empty() {
            query(sql).bind(text).bind(id).execute(&mut transaction).await?;
        }
    }
    if !uids.is_empty() {
        query("DELETE FROM uic.rel_team_user WHERE tid = ?").bind(id).execute(&mut transaction).await?;
        add(&mut transaction, id, uids).await?;
    }
    transaction.commit().await
}

pub async fn add_members(portal: &Portal, id: i64, uids: &[i64]) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    add(&mut transaction, id, uids).await?;
    transaction.commit().await
}

/// Returns how many teams and memberships there were.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<(u64, u64)> {
    let mut transaction = portal.write().await?;
    let teams = query("DELETE FROM uic.team WHERE id = ?").bind(id).execute(&mut transaction).await?;
    let members = query("DELETE FROM uic.rel_team_user WHERE tid = ?").bind(id).execute(&mut transaction).await?;
    transaction.commit().await?;
    Ok((teams.rows, members.rows))
}

/// Adds users that exist and are not in the team yet; returns how many these were.
async fn add(transaction: &mut Transaction, id: i64, uids: &[i64]) -> sqlx::Result<u64> {
    let mut count = 0;
    for uid in uids {
        let done = query(
            "INSERT INTO uic.rel_team_user (tid, uid) SELECT ?, id FROM uic.user
             WHERE id = ? AND NOT EXISTS (SELECT 1 FROM uic.rel_team_user WHERE tid = ? AND uid = ?)",
        )
        .bind(id)
        .bind(*uid)
        .bind(id)
        .bind(*uid)
        .execute(&mut *transaction)
        .await?;
        count += done.rows;
    }
    Ok(count)
}
