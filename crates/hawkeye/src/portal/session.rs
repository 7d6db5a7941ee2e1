//! Sessions: who is logged in (`uic.session`).
//!
//! Why: in the original all logins of a user share one row that never expires, and logging out anywhere ends them all.
//! Here each login has its own row, which expires after [`SESSION_S`].
//! Invariants: at most [`SESSIONS_PER_USER_MAX`] rows per user; past it the oldest goes. Time is an argument.
//! Whoever reads the table learns no secret: it holds their hashes, and what a request brings is hashed and looked for.
//! Compat: in Open-Falcon's MySQL the column `sig` holds the secret in clear, since the original's api may share the
//! table ([`Portal::kept_secret`] decides).

use super::db::{Transaction, query};
use super::{Portal, password, user};
use anyhow::Result;

/// The life of a session, in seconds: the original writes the same, but never looks at it.
pub const SESSION_S: i64 = 30 * 86_400;
/// Sessions of one user: a script that logs in each minute with a person's account must not throw the person out within
/// the day. A row costs about a hundred bytes.
pub const SESSIONS_PER_USER_MAX: i64 = 2_000;

/// Makes a session and returns its secret. No transaction: what old rows leave locked in MySQL would have parallel
/// logins of one user wait for each other in a circle, and none of them needs the others.
pub async fn create(portal: &Portal, uid: i64, now: i64) -> Result<String> {
    let sig = password::random_sig()?;
    query("DELETE FROM uic.session WHERE uid = ? AND expired <= ?").bind(uid).bind(now).execute(portal).await?;
    let excess: Option<i64> = query("SELECT id FROM uic.session WHERE uid = ? ORDER BY id DESC LIMIT 1 OFFSET ?")
        .bind(uid)
        .bind(SESSIONS_PER_USER_MAX - 1)
        .optional(portal)
        .await?;
    if let Some(id) = excess {
        query("DELETE FROM uic.session WHERE uid = ? AND id <= ?").bind(uid).bind(id).execute(portal).await?;
    }
    query("INSERT INTO uic.session (uid, sig, expired) VALUES (?, ?, ?)")
        .bind(uid)
        .bind(portal.kept_secret(&sig))
        .bind(now + SESSION_S)
        .execute(portal)
        .await?;
    Ok(sig)
}

/// True when `uid` has a session with this secret that has not expired.
pub async fn is_valid(portal: &Portal, uid: i64, sig: &str, now: i64) -> sqlx::Result<bool> {
    let sql = "SELECT id FROM uic.session WHERE sig = ? AND uid = ? AND expired > ?";
    let found: Option<i64> = query(sql).bind(portal.kept_secret(sig)).bind(uid).bind(now).optional(portal).await?;
    Ok(found.is_some())
}

/// Ends one session; returns how many there were.
pub async fn delete(portal: &Portal, name: &str, sig: &str) -> sqlx::Result<u64> {
    let sql = "DELETE FROM uic.session WHERE sig = ? AND uid = (SELECT id FROM uic.user WHERE name = ?)";
    Ok(query(sql).bind(portal.kept_secret(sig)).bind(name).execute(portal).await?.rows)
}

/// Ends all sessions of a user but the one with this text in `sig`; returns how many there were.
pub async fn end_all(transaction: &mut Transaction, uid: i64, keep: Option<String>) -> sqlx::Result<u64> {
    let sessions = query("DELETE FROM uic.session WHERE uid = ?").bind(uid);
    Ok(sessions.narrow(" AND sig <> ?", keep).execute(transaction).await?.rows)
}

/// The holder of a token, if there is one.
#[derive(Debug, PartialEq)]
pub enum TokenHolder {
    User(user::User),
    NoUser,
    NoSession,
}

/// Looks a token up. A blocked user has no session, whatever the table says.
pub async fn find(portal: &Portal, name: &str, sig: &str, now: i64) -> sqlx::Result<TokenHolder> {
    let Some(user) = user::by_name(portal, name).await? else { return Ok(TokenHolder::NoUser) };
    let valid = user.role != user::BLOCKED && is_valid(portal, user.id, sig, now).await?;
    Ok(if valid { TokenHolder::User(user) } else { TokenHolder::NoSession })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::{fill, temporary};

    const NOW: i64 = 1_600_000_000;

    #[tokio::test]
    async fn each_login_has_its_own_session_until_it_expires() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let uid = user::create(&portal, "alice", "", &user::Profile::default(), user::NORMAL, 0).await?;
        let (first, second) = (create(&portal, uid, NOW).await?, create(&portal, uid, NOW).await?);
        assert_ne!(first, second);
        assert!(matches!(find(&portal, "ALICE", &first, NOW).await?, TokenHolder::User(user) if user.id == uid));
        assert_eq!(find(&portal, "bob", &first, NOW).await?, TokenHolder::NoUser);
        assert_eq!(find(&portal, "alice", "0", NOW).await?, TokenHolder::NoSession);
        assert_eq!(find(&portal, "alice", &first, NOW + SESSION_S).await?, TokenHolder::NoSession);
        assert_eq!(delete(&portal, "alice", &first).await?, 1);
        assert_eq!(find(&portal, "alice", &first, NOW).await?, TokenHolder::NoSession);
        assert!(is_valid(&portal, uid, &second, NOW).await?, "logging out ends one session, not all");
        user::set_role(&portal, uid, user::BLOCKED).await?;
        assert_eq!(find(&portal, "alice", &second, NOW).await?, TokenHolder::NoSession);
        Ok(())
    }

    /// The text in the table opens nothing, but in a MySQL that an old api reads.
    #[tokio::test]
    async fn the_table_holds_no_secret() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let uid = user::create(&portal, "alice", "", &user::Profile::default(), user::NORMAL, 0).await?;
        let sig = create(&portal, uid, NOW).await?;
        let kept: String = query("SELECT sig FROM uic.session").one(&portal).await?;
        let is_shared = std::env::var("TEST_MYSQL").is_ok();
        assert_eq!((kept == sig, is_valid(&portal, uid, &kept, NOW).await?), (is_shared, is_shared));
        assert!(is_valid(&portal, uid, &sig, NOW).await?);
        Ok(())
    }

    #[tokio::test]
    async fn a_new_password_ends_the_sessions_of_the_old_one() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let uid = user::create(&portal, "alice", "", &user::Profile::default(), user::NORMAL, 0).await?;
        let (first, second) = (create(&portal, uid, NOW).await?, create(&portal, uid, NOW).await?);
        let others = create(&portal, uid + 1, NOW).await?;
        assert_eq!(user::change_password(&portal, uid, "new", Some(&second)).await?, 1);
        assert!(!is_valid(&portal, uid, &first, NOW).await?);
        assert!(is_valid(&portal, uid, &second, NOW).await?);
        assert_eq!(user::change_password(&portal, uid, "newer", None).await?, 1);
        assert!(!is_valid(&portal, uid, &second, NOW).await?);
        assert!(is_valid(&portal, uid + 1, &others, NOW).await?);
        let stored = user::with_password(&portal, "alice").await?.map(|(_, stored)| stored);
        assert_eq!(stored.as_deref(), Some("newer"));
        Ok(())
    }

    #[tokio::test]
    async fn sessions_per_user_are_bounded_and_the_oldest_goes() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let oldest = create(&portal, 1, NOW).await?;
        let insert = "INSERT INTO uic.session (uid, sig, expired) SELECT 1, 'x', 2000000000";
        fill(&portal, insert, SESSIONS_PER_USER_MAX - 1).await?;
        assert!(is_valid(&portal, 1, &oldest, NOW).await?);
        let newest = create(&portal, 1, NOW).await?;
        let count: i64 = query("SELECT count(*) FROM uic.session").one(&portal).await?;
        assert_eq!(count, SESSIONS_PER_USER_MAX);
        assert!(!is_valid(&portal, 1, &oldest, NOW).await?);
        assert!(is_valid(&portal, 1, &newest, NOW).await?);
        Ok(())
    }
}
