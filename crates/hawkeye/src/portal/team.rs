//! Teams (`uic.team`, `uic.rel_team_user`): who is told of alarms; actions name teams.
//!
//! Invariants: a user is in a team once.

use super::Portal;
use super::db::{Transaction, query, record, select};
use super::user::User;
use serde::Serialize;

/// Length of the column `name`, in characters.
pub const NAME_MAX: usize = 64;
/// Length of the column `resume`, in characters.
pub const RESUME_MAX: usize = 255;

record! {
    /// Row of a team, as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Team {
        pub id: i64,
        pub name: String,
        pub resume: String,
        pub creator: i64,
    }
}

/// All teams, oldest first.
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

/// Finds a team by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Team>> {
    select::<Team>("FROM uic.team WHERE id = ?").bind(id).optional(portal).await
}

/// Finds a team by its name.
pub async fn by_name(portal: &Portal, name: &str) -> sqlx::Result<Option<Team>> {
    select::<Team>("FROM uic.team WHERE name = ?").bind(name).optional(portal).await
}

/// Users in a team, oldest first.
pub async fn members(portal: &Portal, id: i64) -> sqlx::Result<Vec<User>> {
    select::<User>("FROM uic.user WHERE id IN (SELECT uid FROM uic.rel_team_user WHERE tid = ?) ORDER BY id")
        .bind(id)
        .all(portal)
        .await
}

/// The ids of all teams with those of their members, in the order of these.
pub async fn memberships(portal: &Portal) -> sqlx::Result<Vec<(i64, i64)>> {
    query("SELECT tid, uid FROM uic.rel_team_user ORDER BY uid").all(portal).await
}

/// Whether a user is in a team.
pub async fn is_member(portal: &Portal, id: i64, uid: i64) -> sqlx::Result<bool> {
    let sql = "SELECT id FROM uic.rel_team_user WHERE tid = ? AND uid = ?";
    let found: Option<i64> = query(sql).bind(id).bind(uid).optional(portal).await?;
    Ok(found.is_some())
}

/// Creates a team and returns its id, and how many members it has; a name that exists is a unique violation.
pub async fn create(portal: &Portal, name: &str, resume: &str, creator: i64, uids: &[i64]) -> sqlx::Result<(i64, u64)> {
    let mut transaction = portal.write().await?;
    let id = insert(&mut transaction, name, resume, creator).await?;
    let count = add(&mut transaction, id, uids).await?;
    transaction.commit().await?;
    Ok((id, count))
}

/// Saves a team without members inside a transaction, and returns its id.
pub async fn insert(transaction: &mut Transaction, name: &str, resume: &str, creator: i64) -> sqlx::Result<i64> {
    let insert = query("INSERT INTO uic.team (name, resume, creator) VALUES (?, ?, ?)");
    Ok(insert.bind(name).bind(resume).bind(creator).execute(transaction).await?.id)
}

/// Changes the row of a team inside a transaction.
pub async fn change(transaction: &mut Transaction, team: &Team) -> sqlx::Result<()> {
    let update = query("UPDATE uic.team SET name = ?, resume = ?, creator = ? WHERE id = ?");
    update.bind(&team.name).bind(&team.resume).bind(team.creator).bind(team.id).execute(transaction).await?;
    Ok(())
}

/// Makes users the only members of a team, inside a transaction.
pub async fn set_members(transaction: &mut Transaction, id: i64, uids: &[i64]) -> sqlx::Result<()> {
    query("DELETE FROM uic.rel_team_user WHERE tid = ?").bind(id).execute(&mut *transaction).await?;
    add(transaction, id, uids).await?;
    Ok(())
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

/// Adds users to a team.
pub async fn add_members(portal: &Portal, id: i64, uids: &[i64]) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    add(&mut transaction, id, uids).await?;
    transaction.commit().await
}

/// Deletes a team; returns how many teams and memberships there were.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<(u64, u64)> {
    let mut transaction = portal.write().await?;
    let counts = remove(&mut transaction, id).await?;
    transaction.commit().await?;
    Ok(counts)
}

/// As [`delete`], inside a transaction.
pub async fn remove(transaction: &mut Transaction, id: i64) -> sqlx::Result<(u64, u64)> {
    let teams = query("DELETE FROM uic.team WHERE id = ?").bind(id).execute(&mut *transaction).await?;
    let members = query("DELETE FROM uic.rel_team_user WHERE tid = ?").bind(id).execute(transaction).await?;
    Ok((teams.rows, members.rows))
}

/// Adds those users that exist and are not in the team yet; returns how many were added.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;
    use crate::portal::user;
    use anyhow::Result;

    async fn user(portal: &Portal, name: &str) -> sqlx::Result<i64> {
        user::create(portal, name, "", &user::Profile::default(), user::NORMAL, 0).await
    }

    fn names(teams: Vec<Team>) -> String {
        teams.into_iter().map(|team| team.name).collect::<Vec<_>>().join(" ")
    }

    #[tokio::test]
    async fn teams_have_a_user_once_and_change_what_is_not_empty() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let (a, b) = (user(&portal, "a").await?, user(&portal, "b").await?);
        assert_eq!(create(&portal, "ops", "r", b, &[a, a, 999]).await?.1, 1);
        assert_eq!(create(&portal, "db", "", a, &[]).await?.1, 0);
        let taken = create(&portal, "OPS", "", a, &[]).await.expect_err("names compare without case");
        assert!(taken.as_database_error().is_some_and(|error| error.is_unique_violation()), "{taken}");
        let ops = by_name(&portal, "Ops").await?.expect("created");
        assert_eq!(ops, Team { id: ops.id, name: "ops".into(), resume: "r".into(), creator: b });
        assert_eq!(by_id(&portal, ops.id).await?.as_ref(), Some(&ops));
        assert_eq!(names(all(&portal).await?), "ops db");
        assert_eq!(names(of_user(&portal, a).await?), "ops");
        assert_eq!(names(of_user_or_creator(&portal, a).await?), "ops db");
        assert_eq!((is_member(&portal, ops.id, a).await?, is_member(&portal, ops.id, b).await?), (true, false));

        update(&portal, ops.id, "", "", &[]).await?;
        assert_eq!(by_id(&portal, ops.id).await?, Some(ops.clone()));
        update(&portal, ops.id, "sre", "s", &[b]).await?;
        add_members(&portal, ops.id, &[a, b]).await?;
        let members: Vec<i64> = members(&portal, ops.id).await?.into_iter().map(|user| user.id).collect();
        assert_eq!(members, [a, b]);
        assert_eq!(names(all(&portal).await?), "sre db");
        assert_eq!(delete(&portal, ops.id).await?, (1, 2));
        assert_eq!(delete(&portal, ops.id).await?, (0, 0));
        Ok(())
    }
}
