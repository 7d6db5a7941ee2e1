//! Caller: whom the headers of a request stand for. REST and the first page ask here.
//!
//! How: Open-Falcon's header `Apitoken` holds `{"name":…,"sig":…}`; `sig` is a session's secret, the server token of
//! the configuration, which passes with any name, or a token ([`mod@token`]). A token may also come as
//! `Authorization: Bearer …` or as the password of `Authorization: Basic …`, whose user then is the token's or "".
//! Invariants: where both headers are there, `Apitoken` counts, for a proxy may add the other; a password that is no
//! token is one for the proxy. A caller with a token has no more than its scopes.
//! Compat: the texts of [`CallerError`] are the original's. There is no default server token, sessions expire, and
//! blocked users have none.

use super::Portal;
use super::session::{self, TokenHolder};
use super::token::{self, Scopes};
use super::user::{self, User};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fmt;
use subtle::ConstantTimeEq;

/// What a request says of its sender, not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// "" where only a token came.
    pub name: String,
    pub sig: String,
}

/// Reason for which credentials stand for nobody.
#[derive(Debug)]
pub enum CallerError {
    Missing,
    NotJson(serde_json::Error),
    NoName,
    NoSig,
    NoUser,
    NoSession,
    /// A token that is unknown, has expired, or is another user's.
    NoToken,
    Database(sqlx::Error),
}

impl fmt::Display for CallerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallerError::Missing => f.write_str("token key is not set"),
            CallerError::NotJson(error) => {
                write!(f, "Apitoken is not JSON like {{\"name\":…,\"sig\":…}}: {error}")
            }
            CallerError::NoName => f.write_str("token key:name is empty"),
            CallerError::NoSig => f.write_str("token key:sig is empty"),
            CallerError::NoUser => f.write_str("not found this user"),
            CallerError::NoSession => f.write_str("session not found"),
            CallerError::NoToken => f.write_str("the token is unknown, has expired, or is another user's"),
            CallerError::Database(error) => write!(f, "portal database: {error}"),
        }
    }
}

impl Credentials {
    /// Reads the headers of a request.
    pub fn of(headers: &HeaderMap) -> Result<Credentials, CallerError> {
        match headers.get("apitoken").map(|value| value.as_bytes()).filter(|value| !value.is_empty()) {
            Some(value) => Credentials::of_apitoken(value),
            None => Credentials::of_authorization(headers).ok_or(CallerError::Missing),
        }
    }

    /// Reads the value of `Apitoken`; the names of the two fields match without case, as in the original.
    fn of_apitoken(value: &[u8]) -> Result<Credentials, CallerError> {
        let value: Value = serde_json::from_slice(value).map_err(CallerError::NotJson)?;
        let find = |wanted: &str| {
            let (_, value) = value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted))?;
            value.as_str().filter(|text| !text.is_empty()).map(str::to_string)
        };
        let name = find("name").ok_or(CallerError::NoName)?;
        let sig = find("sig").ok_or(CallerError::NoSig)?;
        Ok(Credentials { name, sig })
    }

    fn of_authorization(headers: &HeaderMap) -> Option<Credentials> {
        let (name, sig) = authorization(headers)?;
        sig.starts_with(token::PREFIX).then_some(Credentials { name, sig })
    }
}

/// The user and the secret of `Authorization: Bearer …`, which names no user, or `Basic …`; schemes match without case.
pub fn authorization(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((String::new(), value.trim().to_string()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_string(), password.to_string()))
}

/// Somebody with a valid token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name as the user table spells it; with the server token it may be no user's.
    pub name: String,
    pub sig: String,
    /// None where the server token came with a name that no user has.
    pub user: Option<User>,
    /// The name of the token that was used; None for a session and for the server token.
    pub token: Option<String>,
    pub scopes: Scopes,
}

impl Caller {
    /// Looks up whom credentials stand for; an empty `server_token` is none. `from` is the address of who asks.
    pub async fn find(
        portal: &Portal,
        server_token: &str,
        credentials: Credentials,
        from: &str,
        now: i64,
    ) -> Result<Caller, CallerError> {
        let Credentials { name, sig } = credentials;
        let scopes = Scopes::ALL;
        // Compared in constant time: how long the answer takes says nothing about where a guess is wrong.
        if !server_token.is_empty() && bool::from(server_token.as_bytes().ct_eq(sig.as_bytes())) {
            if name.chars().count() > user::NAME_MAX {
                return Err(CallerError::NoUser);
            }
            let user = user::by_name(portal, &name).await.map_err(CallerError::Database)?;
            let name = user.as_ref().map_or(name, |user| user.name.clone());
            return Ok(Caller { name, sig, user, token: None, scopes });
        }
        if sig.starts_with(token::PREFIX) {
            return Caller::by_token(portal, &name, sig, from, now).await;
        }
        match session::find(portal, &name, &sig, now).await.map_err(CallerError::Database)? {
            TokenHolder::User(user) => {
                Ok(Caller { name: user.name.clone(), sig, user: Some(user), token: None, scopes })
            }
            TokenHolder::NoUser => Err(CallerError::NoUser),
            TokenHolder::NoSession => Err(CallerError::NoSession),
        }
    }

    async fn by_token(
        portal: &Portal,
        name: &str,
        secret: String,
        from: &str,
        now: i64,
    ) -> Result<Caller, CallerError> {
        let found = token::find(portal, &secret, now).await.map_err(CallerError::Database)?;
        let found = found.filter(|(_, user)| name.is_empty() || user.name.eq_ignore_ascii_case(name));
        let (token, user) = found.ok_or(CallerError::NoToken)?;
        if let Err(error) = token::note_use(portal, &token, from, now).await {
            // Whoever may read may read while the portal cannot be written.
            tracing::debug!(%error, token = token.name, "the use of a token is not noted");
        }
        // A name in the table that is no scope allows nothing.
        let scopes = Scopes::parse(&token.scopes).unwrap_or(Scopes::NONE);
        Ok(Caller { name: user.name.clone(), sig: secret, user: Some(user), token: Some(token.name), scopes })
    }

    /// True when the user is an administrator or root, and may act as one here.
    pub fn is_admin(&self) -> bool {
        self.scopes.admin && self.user.as_ref().is_some_and(User::is_admin)
    }

    /// True for admins and for the user of that name.
    pub fn owns(&self, create_user: &str) -> bool {
        self.is_admin() || self.name.eq_ignore_ascii_case(create_user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::token::NewToken;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).expect("a header value");
        pairs.iter().map(|(name, text)| (name.parse().expect("a header name"), value(text))).collect()
    }

    #[test]
    fn credentials() {
        let check = |pairs: &[(&'static str, &str)], expected: Result<(&str, &str), &str>| match (
            Credentials::of(&headers(pairs)),
            expected,
        ) {
            (Ok(got), Ok(expected)) => assert_eq!((got.name.as_str(), got.sig.as_str()), expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{pairs:?}: got {got:?}, want {expected:?}"),
        };
        check(&[("apitoken", r#"{"name":"a","sig":"s"}"#)], Ok(("a", "s")));
        check(&[("apitoken", r#"{"Name":"王","SIG":"s"}"#)], Ok(("王", "s")));
        check(&[("apitoken", "")], Err("token key is not set"));
        check(&[("apitoken", "hello")], Err("not JSON"));
        check(&[("apitoken", r#"{"name":"","sig":"s"}"#)], Err("token key:name is empty"));
        check(&[("apitoken", r#"{"name":"a","sig":5}"#)], Err("token key:sig is empty"));
        check(&[("apitoken", "[]")], Err("token key:name is empty"));
        check(&[], Err("token key is not set"));
        check(&[("authorization", "Bearer hk_1")], Ok(("", "hk_1")));
        check(&[("authorization", "bearer  hk_1 ")], Ok(("", "hk_1")));
        // "alice:hk_1", ":hk_1", "alice:secret", and what is no base64.
        check(&[("authorization", "Basic YWxpY2U6aGtfMQ==")], Ok(("alice", "hk_1")));
        check(&[("authorization", "basic OmhrXzE=")], Ok(("", "hk_1")));
        check(&[("authorization", "Basic YWxpY2U6c2VjcmV0")], Err("token key is not set"));
        check(&[("authorization", "Basic *")], Err("token key is not set"));
        check(&[("authorization", "Bearer 0123")], Err("token key is not set"));
        check(&[("authorization", "Negotiate hk_1")], Err("token key is not set"));
        check(&[("authorization", "Bearer hk_1"), ("apitoken", r#"{"name":"a","sig":"s"}"#)], Ok(("a", "s")));
    }

    #[tokio::test]
    async fn the_server_token_passes_with_any_name_and_nothing_shorter_does() -> anyhow::Result<()> {
        let (_dir, portal) = crate::portal::tests::temporary().await?;
        let check = async |server_token: &str, sig: &str, expected: bool| {
            let credentials = Credentials { name: "nobody".into(), sig: sig.into() };
            let found = Caller::find(&portal, server_token, credentials, "", 0).await;
            assert_eq!(found.is_ok(), expected, "{server_token:?} {sig:?}");
        };
        check("abc", "abc", true).await;
        check("abc", "abd", false).await;
        check("abc", "abcd", false).await;
        check("abc", "ab", false).await;
        check("", "", false).await;
        let of_length = |length| Credentials { name: "n".repeat(length), sig: "abc".to_string() };
        assert!(Caller::find(&portal, "abc", of_length(user::NAME_MAX), "", 0).await.is_ok());
        let longer = Caller::find(&portal, "abc", of_length(user::NAME_MAX + 1), "", 0).await;
        assert!(longer.is_err(), "no column holds this name");
        Ok(())
    }

    #[tokio::test]
    async fn a_token_is_its_user_within_its_scopes() -> anyhow::Result<()> {
        let (_dir, portal) = crate::portal::tests::temporary().await?;
        let uid = user::create(&portal, "Root", "", &user::Profile::default(), user::ROOT, 0).await?;
        let make = async |scopes: &str| -> anyhow::Result<String> {
            let scopes = Scopes::parse(scopes).expect("scopes");
            let new = NewToken { name: "ci".into(), uid, scopes, created_by: "Root".into(), expires_at: 0 };
            Ok(token::create(&portal, &new, 5).await?.expect("room").1)
        };
        let find = async |name: &str, sig: &str| {
            let credentials = Credentials { name: name.into(), sig: sig.into() };
            Caller::find(&portal, "abc", credentials, "10.0.0.1", 100).await
        };
        let writes = make("write").await?;
        for name in ["", "root"] {
            let caller = find(name, &writes).await.map_err(|error| anyhow::anyhow!("{error}"))?;
            assert_eq!((caller.name.as_str(), caller.token.as_deref()), ("Root", Some("ci")));
            assert!(!caller.is_admin() && caller.scopes.write, "root's, and without his rights");
        }
        assert!(find("", &make("admin").await?).await.is_ok_and(|caller| caller.is_admin()));
        assert!(matches!(find("alice", &writes).await, Err(CallerError::NoToken)), "another's name");
        assert!(matches!(find("", "hk_0").await, Err(CallerError::NoToken)));
        let used = token::list(&portal, None).await?;
        assert_eq!((used[0].used_at, used[0].used_from.as_str()), (100, "10.0.0.1"));
        Ok(())
    }
}
