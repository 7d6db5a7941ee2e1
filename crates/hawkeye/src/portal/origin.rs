//! Origins: the addresses from which each user has logged in, over restarts (`alarms.hawkeye_state`, a row per user).
//!
//! Why: addresses from which an owner has logged in are not kept out by those who guess his password. A restart in the
//! middle of such guesses must not forget them.
//! Invariants: a row goes with its user. A text is the addresses with a space between, the newest last; whoever writes
//! it bounds their number.

use super::db::{Transaction, query};
use super::{Portal, user};
use std::collections::HashMap;

/// Begin of the rows' names; the id of the user follows.
const PREFIX: &str = "login.";

/// The addresses of all users that have any, each text with its user's name.
pub async fn all(portal: &Portal) -> sqlx::Result<Vec<(String, String)>> {
    let sql = "SELECT name, value FROM alarms.hawkeye_state WHERE name LIKE 'login.%'";
    let rows: Vec<(String, String)> = query(sql).all(portal).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let users = user::all(portal).await?.into_iter();
    let names: HashMap<i64, String> = users.map(|user| (user.id, user.name)).collect();
    let of_user = |(name, value): (String, String)| {
        let id: i64 = name.strip_prefix(PREFIX)?.parse().ok()?;
        Some((names.get(&id)?.clone(), value))
    };
    Ok(rows.into_iter().filter_map(of_user).collect())
}

/// Notes the addresses of a user.
pub async fn save(portal: &Portal, uid: i64, addresses: &str) -> sqlx::Result<()> {
    query("INSERT INTO alarms.hawkeye_state (name, value) VALUES (?, ?)")
        .bind(format!("{PREFIX}{uid}"))
        .bind(addresses)
        .or_update("name", &["value"])
        .execute(portal)
        .await?;
    Ok(())
}

/// Forgets the addresses of a user who goes.
pub async fn delete(transaction: &mut Transaction, uid: i64) -> sqlx::Result<()> {
    let sql = "DELETE FROM alarms.hawkeye_state WHERE name = ?";
    query(sql).bind(format!("{PREFIX}{uid}")).execute(transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;

    #[tokio::test]
    async fn addresses_are_kept_per_user_and_go_with_him() -> anyhow::Result<()> {
        let (_dir, portal) = temporary().await?;
        let create =
            async |name: &str| user::create(&portal, name, "", &user::Profile::default(), user::NORMAL, 0).await;
        let (alice, bob) = (create("alice").await?, create("bob").await?);
        assert_eq!(all(&portal).await?, []);
        save(&portal, alice, "10.0.0.1").await?;
        save(&portal, alice, "10.0.0.1 10.0.0.2").await?;
        save(&portal, bob, "::1").await?;
        let text = |name: &str, addresses: &str| (name.to_string(), addresses.to_string());
        let mut kept = all(&portal).await?;
        kept.sort();
        assert_eq!(kept, [text("alice", "10.0.0.1 10.0.0.2"), text("bob", "::1")]);
        assert_eq!(user::delete(&portal, alice).await?, 1);
        assert_eq!(all(&portal).await?, [text("bob", "::1")]);
        let left: i64 =
            query("SELECT count(*) FROM alarms.hawkeye_state WHERE name LIKE 'login.%'").one(&portal).await?;
        assert_eq!(left, 1);
        Ok(())
    }
}
