//! Caller: whom the `Apitoken` header of Open-Falcon's API stands for. REST and the first page ask here.
//!
//! How: the header holds `{"name":…,"sig":…}`; `sig` is a session's secret, or the server token of the configuration,
//! which passes with any name.
//! Compat: the texts of [`TokenError`] are the original's. There is no default server token, sessions expire, and
//! blocked users have none.

use super::Portal;
use super::session::{self, TokenHolder};
use super::user::{self, User};
use serde_json::Value;
use std::fmt;
use subtle::ConstantTimeEq;

/// Content of the header, not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub sig: String,
}

/// Reason for which a token stands for nobody.
#[derive(Debug)]
pub enum TokenError {
    Missing,
    NotJson(serde_json::Error),
    NoName,
    NoSig,
    NoUser,
    NoSession,
    Database(sqlx::Error),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Missing => f.write_str("token key is not set"),
            TokenError::NotJson(error) => {
                write!(f, "Apitoken is not JSON like {{\"name\":…,\"sig\":…}}: {error}")
            }
            TokenError::NoName => f.write_str("token key:name is empty"),
            TokenError::NoSig => f.write_str("token key:sig is empty"),
            TokenError::NoUser => f.write_str("not found this user"),
            TokenError::NoSession => f.write_str("session not found"),
            TokenError::Database(error) => write!(f, "portal database: {error}"),
        }
    }
}

impl Token {
    /// Reads the header's value; the names of the two fields match without case, as in the original.
    pub fn parse(header: Option<&[u8]>) -> Result<Token, TokenError> {
        let header = header.filter(|value| !value.is_empty()).ok_or(TokenError::Missing)?;
        let token: Value = serde_json::from_slice(header).map_err(TokenError::NotJson)?;
        let find = |wanted: &str| {
            let (_, value) = token.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted))?;
            value.as_str().filter(|text| !text.is_empty()).map(str::to_string)
        };
        let name = find("name").ok_or(TokenError::NoName)?;
        let sig = find("sig").ok_or(TokenError::NoSig)?;
        Ok(Token { name, sig })
    }
}

/// Somebody with a valid token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name as the user table spells it; with the server token it may be no user's.
    pub name: String,
    pub sig: String,
    /// None where the server token came with a name that no user has.
    pub user: Option<User>,
}

impl Caller {
    /// Looks up whom a token stands for; an empty `server_token` is none.
    pub async fn find(portal: &Portal, server_token: &str, token: Token, now: i64) -> Result<Caller, TokenError> {
        let Token { name, sig } = token;
        // Compared in constant time: how long the answer takes says nothing about where a guess is wrong.
        if !server_token.is_empty() && bool::from(server_token.as_bytes().ct_eq(sig.as_bytes())) {
            if name.chars().count() > user::NAME_MAX {
                return Err(TokenError::NoUser);
            }
            let user = user::by_name(portal, &name).await.map_err(TokenError::Database)?;
            let name = user.as_ref().map_or(name, |user| user.name.clone());
            return Ok(Caller { name, sig, user });
        }
        match session::find(portal, &name, &sig, now).await.map_err(TokenError::Database)? {
            TokenHolder::User(user) => Ok(Caller { name: user.name.clone(), sig, user: Some(user) }),
            TokenHolder::NoUser => Err(TokenError::NoUser),
            TokenHolder::NoSession => Err(TokenError::NoSession),
        }
    }

    /// True when the user of the token is an administrator or root.
    pub fn is_admin(&self) -> bool {
        self.user.as_ref().is_some_and(User::is_admin)
    }

    /// True for admins and for the user of that name.
    pub fn owns(&self, create_user: &str) -> bool {
        self.is_admin() || self.name.eq_ignore_ascii_case(create_user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let check = |value: &str, expected: Result<(&str, &str), &str>| match (
            Token::parse(Some(value.as_bytes())),
            expected,
        ) {
            (Ok(token), Ok(expected)) => assert_eq!((token.name.as_str(), token.sig.as_str()), expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{value:?}: got {got:?}, want {expected:?}"),
        };
        check(r#"{"name":"a","sig":"s"}"#, Ok(("a", "s")));
        check(r#"{"Name":"王","SIG":"s"}"#, Ok(("王", "s")));
        check("", Err("token key is not set"));
        check("hello", Err("not JSON"));
        check(r#"{"name":"","sig":"s"}"#, Err("token key:name is empty"));
        check(r#"{"name":"a","sig":5}"#, Err("token key:sig is empty"));
        check("[]", Err("token key:name is empty"));
        assert!(matches!(Token::parse(None), Err(TokenError::Missing)));
    }

    #[tokio::test]
    async fn the_server_token_passes_with_any_name_and_nothing_shorter_does() -> anyhow::Result<()> {
        let (_dir, portal) = crate::portal::tests::temporary().await?;
        let check = async |server_token: &str, sig: &str, expected: bool| {
            let token = Token { name: "nobody".to_string(), sig: sig.to_string() };
            let found = Caller::find(&portal, server_token, token, 0).await;
            assert_eq!(found.is_ok(), expected, "{server_token:?} {sig:?}");
        };
        check("abc", "abc", true).await;
        check("abc", "abd", false).await;
        check("abc", "abcd", false).await;
        check("abc", "ab", false).await;
        check("", "", false).await;
        let token = |length| Token { name: "n".repeat(length), sig: "abc".to_string() };
        assert!(Caller::find(&portal, "abc", token(user::NAME_MAX), 0).await.is_ok());
        assert!(Caller::find(&portal, "abc", token(user::NAME_MAX + 1), 0).await.is_err(), "no column holds this name");
        Ok(())
    }
}
