//! Tokens (`uic.hawkeye_token`): secrets by which scripts and services act as a user, for less than a login allows.
//!
//! Why: in the original a script logs in with a person's password, or has the one server token, which may do anything
//! as anybody and never ends.
//! How: a token belongs to a user and acts with the user's rights, within its [`Scopes`], until it expires. A service
//! is a user of its own that need not log in.
//! Invariants: the table holds SHA-256 of the secret, which needs no salt, for secrets are random; the secret is shown
//! once. Nobody has more than [`TOKENS_PER_USER_MAX`]. A token of a blocked or deleted user opens nothing.

use super::db::{query, record, select};
use super::user::{self, User};
use super::{Portal, password};
use anyhow::Result;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt;

/// The beginning of each secret, by which people and scanners of leaked secrets know it for one.
pub const PREFIX: &str = "hk_";
/// Characters of a token's name.
pub const NAME_MAX: usize = 64;
/// Tokens of one user: more than a site has scripts.
pub const TOKENS_PER_USER_MAX: i64 = 200;
/// Seconds between two notes of a token's use: who asks each second must not write each second.
const USE_NOTED_S: i64 = 60;

record! {
    /// A token as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Token {
        pub id: i64,
        /// The purpose.
        pub name: String,
        pub uid: i64,
        /// Names of scopes, joined by commas.
        pub scopes: String,
        /// Unix seconds, as the other times.
        pub created_at: i64,
        pub created_by: String,
        /// 0 is never.
        pub expires_at: i64,
        /// 0 is never.
        pub used_at: i64,
        /// Address of who used it last.
        pub used_from: String,
    }
}

/// The things that a caller may do, as far as the user behind the token may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    pub read: bool,
    /// Changes, and reading.
    pub write: bool,
    /// Sending points.
    pub ingest: bool,
    /// An administrator's rights, and all of the others.
    pub admin: bool,
}

impl Scopes {
    /// The scopes of a session.
    pub const ALL: Scopes = Scopes { read: true, write: true, ingest: true, admin: true };
    /// The scopes of a token that may do nothing.
    pub const NONE: Scopes = Scopes { read: false, write: false, ingest: false, admin: false };
    /// Names as they are written.
    pub const NAMES: [&str; 4] = ["read", "write", "ingest", "admin"];

    /// Reads names joined by commas; answers the first that is none.
    pub fn parse(text: &str) -> Result<Scopes, String> {
        let mut scopes = Scopes::NONE;
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "read" => scopes.read = true,
                "write" => (scopes.read, scopes.write) = (true, true),
                "ingest" => scopes.ingest = true,
                "admin" => scopes = Scopes::ALL,
                other => return Err(other.to_string()),
            }
        }
        Ok(scopes)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = [self.read, self.write, self.ingest, self.admin];
        let names: Vec<&str> =
            Scopes::NAMES.into_iter().zip(has).filter(|(_, has)| *has).map(|(name, _)| name).collect();
        f.write_str(&names.join(","))
    }
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub name: String,
    pub uid: i64,
    pub scopes: Scopes,
    pub created_by: String,
    /// Unix seconds; 0 is never.
    pub expires_at: i64,
}

/// The text that the table has for a secret.
pub fn kept(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

/// Makes a token and returns its id and its secret; None when the user has too many.
pub async fn create(portal: &Portal, new: &NewToken, now: i64) -> Result<Option<(i64, String)>> {
    let secret = format!("{PREFIX}{}{}", password::random_sig()?, password::random_sig()?);
    let mut transaction = portal.write().await?;
    let count = query("SELECT count(*) FROM uic.hawkeye_token WHERE uid = ?").bind(new.uid);
    if count.one::<i64>(&mut transaction).await? >= TOKENS_PER_USER_MAX {
        return Ok(None);
    }
    let made = query(
        "INSERT INTO uic.hawkeye_token (name, uid, kept, scopes, created_at, created_by, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&new.name)
    .bind(new.uid)
    .bind(kept(&secret))
    .bind(new.scopes.to_string())
    .bind(now)
    .bind(&new.created_by)
    .bind(new.expires_at)
    .execute(&mut transaction)
    .await?;
    transaction.commit().await?;
    portal.announce();
    Ok(Some((made.id, secret)))
}

/// The token with this secret and its user, unless it has expired or the user is blocked.
pub async fn find(portal: &Portal, secret: &str, now: i64) -> sqlx::Result<Option<(Token, User)>> {
    let sql = "FROM uic.hawkeye_token WHERE kept = ? AND (expires_at = 0 OR expires_at > ?)";
    let Some(token) = select::<Token>(sql).bind(kept(secret)).bind(now).optional::<Token>(portal).await? else {
        return Ok(None);
    };
    let user = user::by_id(portal, token.uid).await?.filter(|user| user.role != user::BLOCKED);
    Ok(user.map(|user| (token, user)))
}

/// Notes that a token was used from an address, at most once a minute.
pub async fn note_use(portal: &Portal, token: &Token, from: &str, now: i64) -> sqlx::Result<()> {
    if (token.used_at..token.used_at + USE_NOTED_S).contains(&now) {
        return Ok(());
    }
    let sql = "UPDATE uic.hawkeye_token SET used_at = ?, used_from = ? WHERE id = ?";
    query(sql).bind(now).bind(from).bind(token.id).execute(portal).await?;
    Ok(())
}

/// Tokens of a user, or of all, oldest first.
pub async fn list(portal: &Portal, uid: Option<i64>) -> sqlx::Result<Vec<Token>> {
    let tokens = select::<Token>("FROM uic.hawkeye_token").narrow(" WHERE uid = ?", uid);
    tokens.push(" ORDER BY id").all(portal).await
}

/// SHA-256 of each token that may send points at `now`.
pub async fn ingest_sums(portal: &Portal, now: i64) -> sqlx::Result<Vec<[u8; 32]>> {
    let rows: Vec<(String, String)> = query(
        "SELECT t.kept, t.scopes FROM uic.hawkeye_token AS t JOIN uic.user AS u ON u.id = t.uid
         WHERE (t.expires_at = 0 OR t.expires_at > ?) AND u.role <> ?",
    )
    .bind(now)
    .bind(user::BLOCKED)
    .all(portal)
    .await?;
    let may_send = |scopes: &str| Scopes::parse(scopes).is_ok_and(|scopes| scopes.ingest);
    let sums = rows.into_iter().filter(|(_, scopes)| may_send(scopes)).filter_map(|(kept, _)| {
        let mut sum = [0; 32];
        hex::decode_to_slice(kept, &mut sum).ok().map(|()| sum)
    });
    Ok(sums.collect())
}

/// Finds a token by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Token>> {
    select::<Token>("FROM uic.hawkeye_token WHERE id = ?").bind(id).optional(portal).await
}

/// Deletes a token, if it is there.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    query("DELETE FROM uic.hawkeye_token WHERE id = ?").bind(id).execute(portal).await?;
    portal.announce();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;

    const NOW: i64 = 1_600_000_000;

    async fn user(portal: &Portal) -> Result<i64> {
        Ok(user::create(portal, "alice", "", &user::Profile::default(), user::NORMAL, 0).await?)
    }

    fn new(uid: i64, expires_at: i64) -> NewToken {
        let scopes = Scopes::parse("read").expect("a scope");
        NewToken { name: "ci".into(), uid, scopes, created_by: "alice".into(), expires_at }
    }

    #[tokio::test]
    async fn a_token_opens_until_it_expires_its_user_is_blocked_or_it_is_deleted() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let uid = user(&portal).await?;
        let (id, secret) = create(&portal, &new(uid, NOW + 10), NOW).await?.expect("room");
        let opens = async |at: i64| -> Result<bool> { Ok(find(&portal, &secret, at).await?.is_some()) };
        assert!(opens(NOW + 9).await? && !opens(NOW + 10).await?);
        let texts: Vec<String> = query("SELECT kept FROM uic.hawkeye_token").all(&portal).await?;
        assert!(texts.iter().all(|text| !text.contains(&secret[PREFIX.len()..])), "the table holds no secret");
        assert!(find(&portal, &texts[0], NOW).await?.is_none(), "its text there opens nothing");
        user::set_role(&portal, uid, user::BLOCKED).await?;
        assert!(!opens(NOW).await?);
        user::set_role(&portal, uid, user::NORMAL).await?;
        assert!(opens(NOW).await?);
        delete(&portal, id).await?;
        assert!(!opens(NOW).await?);
        Ok(())
    }

    #[tokio::test]
    async fn its_use_is_noted_once_a_minute_and_their_number_is_bounded() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let uid = user(&portal).await?;
        let (id, _) = create(&portal, &new(uid, 0), NOW).await?.expect("room");
        let used = async |from: &str, at: i64| -> Result<(i64, String)> {
            note_use(&portal, &by_id(&portal, id).await?.expect("made above"), from, at).await?;
            let token = by_id(&portal, id).await?.expect("made above");
            Ok((token.used_at, token.used_from))
        };
        assert_eq!(used("10.0.0.1", NOW).await?, (NOW, "10.0.0.1".into()));
        assert_eq!(used("10.0.0.2", NOW + 59).await?, (NOW, "10.0.0.1".into()));
        assert_eq!(used("10.0.0.2", NOW + 60).await?, (NOW + 60, "10.0.0.2".into()));
        assert_eq!(used("10.0.0.3", NOW - 5).await?, (NOW - 5, "10.0.0.3".into()), "a clock that was set back");
        for _ in 1..TOKENS_PER_USER_MAX {
            create(&portal, &new(uid, 0), NOW).await?.expect("room");
        }
        assert!(create(&portal, &new(uid, 0), NOW).await?.is_none());
        assert_eq!(list(&portal, Some(uid + 1)).await?.len(), 0);
        Ok(())
    }

    #[tokio::test]
    async fn those_that_may_send_are_found() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let uid = user(&portal).await?;
        let sums = async || ingest_sums(&portal, NOW).await;
        create(&portal, &new(uid, 0), NOW).await?.expect("room");
        assert_eq!(sums().await?.len(), 0, "it only reads");
        let scopes = Scopes::parse("ingest").expect("a scope");
        let (_, secret) = create(&portal, &NewToken { scopes, ..new(uid, NOW + 1) }, NOW).await?.expect("room");
        assert_eq!(sums().await?, [<[u8; 32]>::from(Sha256::digest(&secret))]);
        create(&portal, &NewToken { scopes, ..new(uid, NOW) }, NOW - 1).await?.expect("room");
        assert_eq!(sums().await?.len(), 1, "one has expired");
        user::set_role(&portal, uid, user::BLOCKED).await?;
        assert_eq!(sums().await?.len(), 0);
        Ok(())
    }

    #[test]
    fn scopes() {
        let check = |text: &str, expected: &str| assert_eq!(Scopes::parse(text).expect(text).to_string(), expected);
        check("", "");
        check("read", "read");
        check("write, ingest", "read,write,ingest");
        check("admin", "read,write,ingest,admin");
        assert_eq!(Scopes::parse("read,root"), Err("root".to_string()));
    }
}
