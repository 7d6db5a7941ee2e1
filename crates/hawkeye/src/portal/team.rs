//! Teams (`uic.team`, `uic.rel_team_user`): who is told of alarms; actions name teams.
//!
//! Invariants: a user is in a team once.

use super::Portal;
use super::user::{self, User};
use serde::Serialize;
use sqlx::SqliteConnection;

/// The columns' lengths, in characters.
pub const NAME_MAX: usize = 64;
pub const RESUME_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Team {
    pub id: i64,
    pub name: String,
    pub resume: String,
    pub creator: i64,
}

type Row = (i64, String, String, i64);

impl From<Row> for Team {
    fn from((id, name, resume, creator): Row) -> Team {
        Team { id, name, resume, creator }
    }
}

pub async fn all(portal: &Portal) -> sqlx::Result<Vec<Team>> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT id, name, resume, creator FROM team ORDER BY id").fetch_all(portal.pool()).await?;
    Ok(rows.into_iter().map(Team::from).collect())
}

/// The teams that a user is in or has created.
pub async fn of_user_or_creator(portal: &Portal, uid: i64) -> sqlx::Result<Vec<Team>> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, name, resume, creator FROM team
         WHERE creator = ?1 OR id IN (SELECT tid FROM rel_team_user WHERE uid = ?1) ORDER BY id",
    )
    .bind(uid)
    .fetch_all(portal.pool())
    .await?;
    Ok(rows.into_iter().map(Team::from).collect())
}

/// The teams that a user is in.
pub async fn of_user(portal: &Portal, uid: i64) -> sqlx::Result<Vec<Team>> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, name, resume, creator FROM team WHERE id IN (SELECT tid FROM rel_team_user WHERE uid = ?) ORDER BY id",
    )
    .bind(uid)
    .fetch_all(portal.pool())
    .await?;
    Ok(rows.into_iter().map(Team::from).collect())
}

pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Team>> {
    let row: Option<Row> = sqlx::query_as("SELECT id, name, resume, creator FROM team WHERE id = ?")
        .bind(id)
        .fetch_optional(portal.pool())
        .await?;
    Ok(row.map(Team::from))
}

pub async fn by_name(portal: &Portal, name: &str) -> sqlx::Result<Option<Team>> {
    let row: Option<Row> = sqlx::query_as("SELECT id, name, resume, creator FROM team WHERE name = ?")
        .bind(name)
        .fetch_optional(portal.pool())
        .await?;
    Ok(row.map(Team::from))
}

pub async fn members(portal: &Portal, id: i64) -> sqlx::Result<Vec<User>> {
    let rows: Vec<user::Row> = sqlx::query_as(
        "SELECT id, name, cnname, email, phone, im, qq, role FROM user
         WHERE id IN (SELECT uid FROM rel_team_user WHERE tid = ?) ORDER BY id",
    )
    .bind(id)
    .fetch_all(portal.pool())
    .await?;
    Ok(rows.into_iter().map(User::from).collect())
}

pub async fn is_member(portal: &Portal, id: i64, uid: i64) -> sqlx::Result<bool> {
    let found: Option<i64> = sqlx::query_scalar("SELECT id FROM rel_team_user WHERE tid = ? AND uid = ?")
        .bind(id)
        .bind(uid)
        .fetch_optional(portal.pool())
        .await?;
    Ok(found.is_some())
}

/// Returns how many members the new team has. A name that exists is a unique violation.
pub async fn create(portal: &Portal, name: &str, resume: &str, creator: i64, uids: &[i64]) -> sqlx::Result<u64> {
    let mut transaction = portal.write().await?;
    let done = sqlx::query("INSERT INTO team (name, resume, creator) VALUES (?, ?, ?)")
        .bind(name)
        .bind(resume)
        .bind(creator)
        .execute(&mut *transaction)
        .await?;
    let count = add(&mut transaction, done.last_insert_rowid(), uids).await?;
    transaction.commit().await?;
    Ok(count)
}

/// Changes what is not empty: the name, the resume, and the whole list of members.
pub async fn update(portal: &Portal, id: i64, name: &str, resume: &str, uids: &[i64]) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    sqlx::query(
        "UPDATE team SET name = CASE ?1 WHEN '' THEN name ELSE ?1 END,
         resume = CASE ?2 WHEN '' THEN resume ELSE ?2 END WHERE id = ?3",
    )
    .bind(name)
    .bind(resume)
    .bind(id)
    .execute(&mut *transaction)
    .await?;
    if !uids.is_empty() {
        sqlx::query("DELETE FROM rel_team_user WHERE tid = ?").bind(id).execute(&mut *transaction).await?;
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
    let teams = sqlx::query("DELETE FROM team WHERE id = ?").bind(id).execute(&mut *transaction).await?;
    let members = sqlx::query("DELETE FROM rel_team_user WHERE tid = ?").bind(id).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok((teams.rows_affected(), members.rows_affected()))
}

/// Adds users that exist and are not in the team yet; returns how many these were.
async fn add(connection: &mut SqliteConnection, id: i64, uids: &[i64]) -> sqlx::Result<u64> {
    let mut count = 0;
    for uid in uids {
        let done = sqlx::query(
            "INSERT INTO rel_team_user (tid, uid) SELECT ?1, id FROM user
             WHERE id = ?2 AND NOT EXISTS (SELECT 1 FROM rel_team_user WHERE tid = ?1 AND uid = ?2)",
        )
        .bind(id)
        .bind(uid)
        .execute(&mut *connection)
        .await?;
        count += done.rows_affected();
    }
    Ok(count)
}
