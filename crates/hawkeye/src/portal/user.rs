//! Users: who may log in, and where alarms reach them (`uic.user`).
//!
//! Invariants: names compare without case, as the original's collation does; a password column is never read except to
//! check a login.

use super::Portal;
use serde::Serialize;

/// Not enforced in the original; here a blocked user cannot log in and his sessions are void.
pub const BLOCKED: i64 = -1;
pub const NORMAL: i64 = 0;
pub const ADMIN: i64 = 1;
pub const ROOT: i64 = 2;

/// The column lengths of Open-Falcon's schema, in characters.
pub const NAME_MAX: usize = 64;
pub const CNNAME_MAX: usize = 128;
pub const EMAIL_MAX: usize = 255;
pub const PHONE_MAX: usize = 16;
pub const IM_MAX: usize = 32;
pub const QQ_MAX: usize = 16;

/// A user as the API shows him.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct User {
    pub id: i64,
    pub name: String,
    pub cnname: String,
    pub email: String,
    pub phone: String,
    pub im: String,
    pub qq: String,
    pub role: i64,
}

/// What a user says about himself.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pub cnname: String,
    pub email: String,
    pub phone: String,
    pub im: String,
    pub qq: String,
}

pub(super) type Row = (i64, String, String, String, String, String, String, i64);

impl From<Row> for User {
    fn from((id, name, cnname, email, phone, im, qq, role): Row) -> User {
        User { id, name, cnname, email, phone, im, qq, role }
    }
}

impl User {
    pub fn is_admin(&self) -> bool {
        self.role == ADMIN || self.role == ROOT
    }
}

pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<User>> {
    let row: Option<Row> = sqlx::query_as("SELECT id, name, cnname, email, phone, im, qq, role FROM user WHERE id = ?")
        .bind(id)
        .fetch_optional(portal.pool())
        .await?;
    Ok(row.map(User::from))
}

pub async fn by_name(portal: &Portal, name: &str) -> sqlx::Result<Option<User>> {
    let row: Option<Row> =
        sqlx::query_as("SELECT id, name, cnname, email, phone, im, qq, role FROM user WHERE name = ?")
            .bind(name)
            .fetch_optional(portal.pool())
            .await?;
    Ok(row.map(User::from))
}

/// The user and the text of his password column.
pub async fn with_password(portal: &Portal, name: &str) -> sqlx::Result<Option<(User, String)>> {
    let Some(user) = by_name(portal, name).await? else { return Ok(None) };
    let stored =
        sqlx::query_scalar("SELECT passwd FROM user WHERE id = ?").bind(user.id).fetch_one(portal.pool()).await?;
    Ok(Some((user, stored)))
}

/// All users, oldest first.
pub async fn all(portal: &Portal) -> sqlx::Result<Vec<User>> {
    let rows: Vec<Row> = sqlx::query_as("SELECT id, name, cnname, email, phone, im, qq, role FROM user ORDER BY id")
        .fetch_all(portal.pool())
        .await?;
    Ok(rows.into_iter().map(User::from).collect())
}

/// Returns the new id; a name that exists is a unique violation.
pub async fn create(
    portal: &Portal,
    name: &str,
    passwd: &str,
    profile: &Profile,
    role: i64,
    creator: i64,
) -> sqlx::Result<i64> {
    let done = sqlx::query(
        "INSERT INTO user (name, passwd, cnname, email, phone, im, qq, role, creator) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(name)
    .bind(passwd)
    .bind(&profile.cnname)
    .bind(&profile.email)
    .bind(&profile.phone)
    .bind(&profile.im)
    .bind(&profile.qq)
    .bind(role)
    .bind(creator)
    .execute(portal.pool())
    .await?;
    Ok(done.last_insert_rowid())
}

/// Returns how many rows there were to change.
pub async fn update_profile(portal: &Portal, id: i64, profile: &Profile) -> sqlx::Result<u64> {
    let done = sqlx::query("UPDATE user SET cnname = ?, email = ?, phone = ?, im = ?, qq = ? WHERE id = ?")
        .bind(&profile.cnname)
        .bind(&profile.email)
        .bind(&profile.phone)
        .bind(&profile.im)
        .bind(&profile.qq)
        .bind(id)
        .execute(portal.pool())
        .await?;
    Ok(done.rows_affected())
}

pub async fn set_password(portal: &Portal, id: i64, passwd: &str) -> sqlx::Result<u64> {
    let done =
        sqlx::query("UPDATE user SET passwd = ? WHERE id = ?").bind(passwd).bind(id).execute(portal.pool()).await?;
    Ok(done.rows_affected())
}

pub async fn set_role(portal: &Portal, id: i64, role: i64) -> sqlx::Result<u64> {
    let done = sqlx::query("UPDATE user SET role = ? WHERE id = ?").bind(role).bind(id).execute(portal.pool()).await?;
    Ok(done.rows_affected())
}

/// Deletes a user with his sessions and memberships. His notes on alarms stay, without an author.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<u64> {
    let mut transaction = portal.write().await?;
    for sql in [
        "UPDATE event_note SET user_id = NULL WHERE user_id = ?",
        "DELETE FROM rel_team_user WHERE uid = ?",
        "DELETE FROM session WHERE uid = ?",
    ] {
        sqlx::query(sql).bind(id).execute(&mut *transaction).await?;
    }
    let done = sqlx::query("DELETE FROM user WHERE id = ?").bind(id).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(done.rows_affected())
}
