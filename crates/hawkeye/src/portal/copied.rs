//! Copied: teams that actions tell, as another portal last told them (the actions themselves: `action::keep`).
//!
//! Why: an alarm that runs alone beside an old api has no rules of its own, but it must know whom to tell when that api
//! is away, also after a restart. The copies lie where a portal's own rows do, so they are read as those.
//! Invariants: ids are the other portal's; a name is there once, by its newest id.

use super::Portal;
use super::db::{Transaction, query};
use serde::Deserialize;

/// A team with its members.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Team {
    pub id: i64,
    pub name: String,
    /// The original answers null for none.
    #[serde(default)]
    pub users: Option<Vec<Member>>,
}

/// How a member is reached.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub struct Member {
    pub id: i64,
    pub name: String,
    pub email: String,
    pub phone: String,
    pub im: String,
}

impl Default for Member {
    fn default() -> Self {
        let text = String::new;
        Member { id: 0, name: text(), email: text(), phone: text(), im: text() }
    }
}

/// Keeps a team and its members.
pub async fn keep_team(portal: &Portal, team: &Team) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    query("DELETE FROM uic.team WHERE name = ? AND id <> ?")
        .bind(&team.name)
        .bind(team.id)
        .execute(&mut transaction)
        .await?;
    query("INSERT INTO uic.team (id, name) VALUES (?, ?)")
        .bind(team.id)
        .bind(&team.name)
        .or_update("id", &["name"])
        .execute(&mut transaction)
        .await?;
    query("DELETE FROM uic.rel_team_user WHERE tid = ?").bind(team.id).execute(&mut transaction).await?;
    for member in team.users.iter().flatten() {
        keep_member(&mut transaction, team.id, member).await?;
    }
    transaction.commit().await
}

async fn keep_member(transaction: &mut Transaction, team: i64, member: &Member) -> sqlx::Result<()> {
    query("DELETE FROM uic.user WHERE name = ? AND id <> ?")
        .bind(&member.name)
        .bind(member.id)
        .execute(&mut *transaction)
        .await?;
    query("INSERT INTO uic.user (id, name, email, phone, im) VALUES (?, ?, ?, ?, ?)")
        .bind(member.id)
        .bind(&member.name)
        .bind(&member.email)
        .bind(&member.phone)
        .bind(&member.im)
        .or_update("id", &["name", "email", "phone", "im"])
        .execute(&mut *transaction)
        .await?;
    query("INSERT INTO uic.rel_team_user (tid, uid) VALUES (?, ?)")
        .bind(team)
        .bind(member.id)
        .execute(transaction)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::action::{self, Action};
    use crate::portal::tests::temporary;
    use crate::portal::user;

    #[tokio::test]
    async fn copies_are_read_as_rows_and_follow_changes() -> anyhow::Result<()> {
        let (_dir, portal) = temporary().await?;
        let of = |uic: &str| Action { id: 7, uic: uic.to_string(), callback: 1, ..Action::default() };
        for uic in ["ops", "ops,db"] {
            action::keep(&portal, &of(uic)).await?;
            assert_eq!(action::by_id(&portal, 7).await?, Some(of(uic)));
        }
        let member = |id: i64, name: &str, phone: &str| Member {
            id,
            name: name.to_string(),
            phone: phone.to_string(),
            ..Member::default()
        };
        let team = |id: i64, users: &[Member]| Team { id, name: "ops".to_string(), users: Some(users.to_vec()) };
        let phones = async || -> anyhow::Result<Vec<String>> {
            let users = user::of_teams(&mut portal.read().await?, "ops").await?;
            Ok(users.into_iter().map(|user| user.phone).collect())
        };
        keep_team(&portal, &team(3, &[member(5, "u5", "111"), member(6, "u6", "222")])).await?;
        assert_eq!(phones().await?, ["111", "222"]);
        keep_team(&portal, &team(3, &[member(6, "u6", "333")])).await?;
        assert_eq!(phones().await?, ["333"]);
        // Team and user were deleted and made again: they have other ids.
        keep_team(&portal, &team(4, &[member(9, "U6", "444")])).await?;
        assert_eq!(phones().await?, ["444"]);
        keep_team(&portal, &Team { users: None, ..team(4, &[]) }).await?;
        assert_eq!(phones().await?, [""; 0]);
        Ok(())
    }
}
