//! Users: who may log in, and where alarms reach them (`uic.user`).
//!
//! Invariants: names compare without case, as the original's collation does; a password column is never read except to
//! check a login.

use super::db::{Record, Target, Transaction, query, record, salvage, select};
use super::{Portal, action, origin, session};
use serde::Serialize;

/// A user who cannot log in, and whose sessions are void; the original has the value and lets him in.
pub const BLOCKED: i64 = -1;
/// Role of a user without further rights.
pub const NORMAL: i64 = 0;
/// Role of an administrator.
pub const ADMIN: i64 = 1;
/// Role of the user `root`, who is above administrators.
pub const ROOT: i64 = 2;

/// Length of the column `name`, in characters.
pub const NAME_MAX: usize = 64;
/// Length of the column `cnname`, in characters.
pub const CNNAME_MAX: usize = 128;
/// Length of the column `email`, in characters.
pub const EMAIL_MAX: usize = 255;
/// Length of the column `phone`, in characters.
pub const PHONE_MAX: usize = 16;
/// Length of the column `im`, in characters.
pub const IM_MAX: usize = 32;
/// Length of the column `qq`, in characters.
pub const QQ_MAX: usize = 16;

record! {
    /// A user as the API shows him.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
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
}

/// The part of a user that he may change himself.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pub cnname: String,
    pub email: String,
    pub phone: String,
    pub im: String,
    pub qq: String,
}

impl User {
    /// True for administrators and root.
    pub fn is_admin(&self) -> bool {
        self.role == ADMIN || self.role == ROOT
    }
}

/// Finds a user by his id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<User>> {
    select::<User>("FROM uic.user WHERE id = ?").bind(id).optional(portal).await
}

/// Finds a user by his name.
pub async fn by_name(portal: &Portal, name: &str) -> sqlx::Result<Option<User>> {
    select::<User>("FROM uic.user WHERE name = ?").bind(name).optional(portal).await
}

/// Finds a user by name, with the text of his password column.
pub async fn with_password(portal: &Portal, name: &str) -> sqlx::Result<Option<(User, String)>> {
    let Some(user) = by_name(portal, name).await? else { return Ok(None) };
    let stored = query("SELECT passwd FROM uic.user WHERE id = ?").bind(user.id).one(portal).await?;
    Ok(Some((user, stored)))
}

/// All users, oldest first.
pub async fn all(portal: &Portal) -> sqlx::Result<Vec<User>> {
    select::<User>("FROM uic.user ORDER BY id").all(portal).await
}

/// The members of the teams named in `uic` (joined by commas), each once, in order of their ids.
pub async fn of_teams(transaction: &mut Transaction, uic: &str) -> sqlx::Result<Vec<User>> {
    let teams: Vec<&str> = action::teams(uic).collect();
    if teams.is_empty() {
        return Ok(Vec::new());
    }
    select::<User>(
        "FROM uic.user WHERE id IN (
           SELECT r.uid FROM uic.rel_team_user AS r JOIN uic.team AS t ON t.id = r.tid WHERE t.name",
    )
    .in_list(teams)
    .push(") ORDER BY id")
    .all(transaction)
    .await
}

/// Members of teams, as far as their tables can be read.
pub struct Members {
    users: Vec<User>,
    /// The id of a team with that of a member of it.
    pairs: Vec<(i64, i64)>,
    teams: Vec<(i64, String)>,
    /// Tables that cannot be read whole.
    pub unread: Vec<&'static str>,
}

/// Reads all members of teams that can be read.
pub async fn members_that_read(transaction: &mut Transaction) -> sqlx::Result<Members> {
    let users = salvage::<User>(transaction, User::COLUMNS, "uic.user").await?;
    let pairs = salvage(transaction, &["tid", "uid"], "uic.rel_team_user").await?;
    let teams = salvage(transaction, &["id", "name"], "uic.team").await?;
    let lost = [("user", users.lost), ("rel_team_user", pairs.lost), ("team", teams.lost)];
    let unread = lost.into_iter().filter_map(|(table, lost)| lost.map(|_| table)).collect();
    Ok(Members { users: users.rows, pairs: pairs.rows, teams: teams.rows, unread })
}

impl Members {
    /// What [`of_teams`] answers.
    pub fn of_teams(&self, uic: &str) -> Vec<User> {
        let is_named = |team: &str| action::teams(uic).any(|name| name.eq_ignore_ascii_case(team));
        let teams: Vec<i64> = self.teams.iter().filter(|(_, name)| is_named(name)).map(|(id, _)| *id).collect();
        let is_member = |user: &&User| self.pairs.iter().any(|(tid, uid)| *uid == user.id && teams.contains(tid));
        self.users.iter().filter(is_member).cloned().collect()
    }
}

/// Whether something belongs to this name: a group, template, expression, binding, plugin, nodata or aggregator row.
pub async fn owns_something(portal: &Portal, name: &str) -> sqlx::Result<bool> {
    let name = name.to_ascii_lowercase();
    for sql in [
        "SELECT id FROM falcon_portal.grp WHERE LOWER(create_user) = ? LIMIT 1",
        "SELECT id FROM falcon_portal.tpl WHERE LOWER(create_user) = ? LIMIT 1",
        "SELECT id FROM falcon_portal.expression WHERE LOWER(create_user) = ? LIMIT 1",
        "SELECT grp_id FROM falcon_portal.grp_tpl WHERE LOWER(bind_user) = ? LIMIT 1",
        "SELECT id FROM falcon_portal.plugin_dir WHERE LOWER(create_user) = ? LIMIT 1",
        "SELECT id FROM falcon_portal.mockcfg WHERE LOWER(creator) = ? LIMIT 1",
        "SELECT id FROM falcon_portal.cluster WHERE LOWER(creator) = ? LIMIT 1",
    ] {
        let found: Option<i64> = query(sql).bind(name.as_str()).optional(portal).await?;
        if found.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Creates a user and returns his id; a name that exists is a unique violation.
pub async fn create(
    on: impl Into<Target<'_>>,
    name: &str,
    passwd: &str,
    profile: &Profile,
    role: i64,
    creator: i64,
) -> sqlx::Result<i64> {
    let done = query(
        "INSERT INTO uic.user (name, passwd, cnname, email, phone, im, qq, role, creator)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
    .execute(on)
    .await?;
    Ok(done.id)
}

/// Changes a user's profile; returns how many rows there were to change.
pub async fn update_profile(on: impl Into<Target<'_>>, id: i64, profile: &Profile) -> sqlx::Result<u64> {
    let done = query("UPDATE uic.user SET cnname = ?, email = ?, phone = ?, im = ?, qq = ? WHERE id = ?")
        .bind(&profile.cnname)
        .bind(&profile.email)
        .bind(&profile.phone)
        .bind(&profile.im)
        .bind(&profile.qq)
        .bind(id)
        .execute(on)
        .await?;
    Ok(done.rows)
}

/// Stores the text of a new hash of the password that a user has; returns how many users there were of the id.
pub async fn set_password(portal: &Portal, id: i64, passwd: &str) -> sqlx::Result<u64> {
    let sql = "UPDATE uic.user SET passwd = ? WHERE id = ?";
    Ok(query(sql).bind(passwd).bind(id).execute(portal).await?.rows)
}

/// Stores the hash of a new password, and ends the sessions of whoever knew the old one: all but the one whose secret
/// is `keep`. Returns how many ended.
pub async fn change_password(portal: &Portal, id: i64, passwd: &str, keep: Option<&str>) -> sqlx::Result<u64> {
    let mut transaction = portal.write().await?;
    query("UPDATE uic.user SET passwd = ? WHERE id = ?").bind(passwd).bind(id).execute(&mut transaction).await?;
    let ended = session::end_all(&mut transaction, id, keep.map(|sig| portal.kept_secret(sig))).await?;
    transaction.commit().await?;
    Ok(ended)
}

/// Spells a user's name anew; it differs in case at most.
pub async fn rename(on: impl Into<Target<'_>>, id: i64, name: &str) -> sqlx::Result<()> {
    query("UPDATE uic.user SET name = ? WHERE id = ?").bind(name).bind(id).execute(on).await?;
    Ok(())
}

/// Stores a role; returns how many users there were of the id.
pub async fn set_role(on: impl Into<Target<'_>>, id: i64, role: i64) -> sqlx::Result<u64> {
    let sql = "UPDATE uic.user SET role = ? WHERE id = ?";
    Ok(query(sql).bind(role).bind(id).execute(on).await?.rows)
}

/// Deletes a user with his sessions, tokens and memberships. His notes on alarms stay, without an author.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<u64> {
    let mut transaction = portal.write().await?;
    let count = remove(&mut transaction, id).await?;
    transaction.commit().await?;
    Ok(count)
}

/// As [`delete`], inside a transaction.
pub async fn remove(transaction: &mut Transaction, id: i64) -> sqlx::Result<u64> {
    for sql in [
        "UPDATE alarms.event_note SET user_id = NULL, timestamp = timestamp WHERE user_id = ?",
        "DELETE FROM uic.rel_team_user WHERE uid = ?",
        "DELETE FROM uic.session WHERE uid = ?",
        "DELETE FROM uic.hawkeye_token WHERE uid = ?",
    ] {
        query(sql).bind(id).execute(&mut *transaction).await?;
    }
    origin::delete(transaction, id).await?;
    Ok(query("DELETE FROM uic.user WHERE id = ?").bind(id).execute(transaction).await?.rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::{run, temporary};
    use anyhow::Result;

    #[tokio::test]
    async fn members_of_teams_are_found_once() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        run(
            &portal,
            "INSERT INTO uic.team (id, name) VALUES (1, 'Ops'), (2, 'db'), (3, 'other');
             INSERT INTO uic.user (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c');
             INSERT INTO uic.rel_team_user (tid, uid) VALUES (1, 2), (1, 1), (2, 2), (3, 3);",
        )
        .await?;
        let mut transaction = portal.write().await?;
        let mut check = async |uic: &str, expected: &[&str]| -> Result<()> {
            let users = of_teams(&mut transaction, uic).await?;
            let same = members_that_read(&mut transaction).await?;
            assert_eq!((same.of_teams(uic), same.unread), (users.clone(), Vec::new()), "{uic:?}");
            assert_eq!(users.into_iter().map(|user| user.name).collect::<Vec<_>>(), expected, "{uic:?}");
            Ok(())
        };
        check("ops,db", &["a", "b"]).await?;
        check("ops,db,none", &["a", "b"]).await?;
        check(" db , nobody,", &["b"]).await?;
        check("", &[]).await?;
        check(",", &[]).await?;
        Ok(())
    }

    #[tokio::test]
    async fn users_come_and_go() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let text = str::to_string;
        let profile = Profile {
            cnname: text("张三"),
            email: text("a@x"),
            phone: text("1"),
            im: text("'; DROP TABLE user; --"),
            qq: text("9"),
        };
        let id = create(&portal, "Alice", "hash", &profile, BLOCKED, 7).await?;
        let taken = create(&portal, "alice", "", &profile, NORMAL, 0).await.expect_err("names compare without case");
        assert!(taken.as_database_error().is_some_and(|error| error.is_unique_violation()), "{taken}");
        let Profile { cnname, email, phone, im, qq } = profile;
        let user = User { id, name: text("Alice"), cnname, email, phone, im, qq, role: BLOCKED };
        assert_eq!(with_password(&portal, "ALICE").await?, Some((user.clone(), text("hash"))));
        assert_eq!(all(&portal).await?, [user]);
        assert_eq!(update_profile(&portal, id, &Profile::default()).await?, 1);
        assert_eq!(update_profile(&portal, id, &Profile::default()).await?, 1, "rows that were meant, changed or not");
        assert_eq!((set_password(&portal, id, "new").await?, set_role(&portal, id, ADMIN).await?), (1, 1));
        let (user, passwd) = with_password(&portal, "alice").await?.expect("still there");
        assert_eq!((user.is_admin(), user.email.as_str(), passwd.as_str()), (true, "", "new"));
        assert_eq!((delete(&portal, id).await?, delete(&portal, id).await?), (1, 0));
        assert_eq!(by_id(&portal, id).await?, None);
        Ok(())
    }
}
