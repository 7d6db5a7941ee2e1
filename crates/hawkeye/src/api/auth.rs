//! Who asks: the Apitoken header.
//!
//! How: the header holds `{"name":…,"sig":…}`; `sig` is a session's secret, or the server token of the configuration, which
//! passes with any name. [`Caller`] is an extractor: a handler that takes it answers 401 to everybody else. The first page
//! has its own rule, `api.viewer` (see `ui.rs`).
//! Compat: the texts are the original's. There is no default server token, sessions expire, and blocked users have none.

use super::Context;
use super::error::ApiError;
use crate::clock;
use crate::portal::session::{self, TokenHolder};
use crate::portal::user::{self, User};
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde_json::Value;

/// Somebody with a valid token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// As the user table spells it; with the server token it may be no user's.
    pub name: String,
    pub sig: String,
    user: Option<User>,
}

impl Caller {
    /// The user behind the token; the server token may come with a name that no user has.
    pub fn user(&self) -> Result<&User, ApiError> {
        self.user.as_ref().ok_or_else(|| ApiError::bad("record not found"))
    }

    pub fn is_admin(&self) -> bool {
        self.user.as_ref().is_some_and(User::is_admin)
    }

    /// True for admins and for the user of that name.
    pub fn owns(&self, create_user: &str) -> bool {
        self.is_admin() || self.name.eq_ignore_ascii_case(create_user)
    }
}

impl FromRequestParts<Context> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Caller, ApiError> {
        Caller::of(&parts.headers, context).await
    }
}

impl Caller {
    /// Who sent these headers.
    pub async fn of(headers: &HeaderMap, context: &Context) -> Result<Caller, ApiError> {
        let (name, sig) = read_token(headers)?;
        let server_token = &context.config.api.server_token;
        if !server_token.is_empty() && equal_in_constant_time(server_token, &sig) {
            let user = user::by_name(&context.portal, &name).await?;
            let name = user.as_ref().map_or(name, |user| user.name.clone());
            return Ok(Caller { name, sig, user });
        }
        match session::find(&context.portal, &name, &sig, clock::now()).await? {
            TokenHolder::User(user) => Ok(Caller { name: user.name.clone(), sig, user: Some(user) }),
            TokenHolder::NoUser => Err(ApiError::unauthorized("not found this user")),
            TokenHolder::NoSession => Err(ApiError::unauthorized("session not found")),
        }
    }
}

/// The name and secret in the Apitoken header.
pub fn read_token(headers: &HeaderMap) -> Result<(String, String), ApiError> {
    let Some(header) = headers.get("apitoken").filter(|value| !value.is_empty()) else {
        return Err(ApiError::unauthorized("token key is not set"));
    };
    let token: Value = serde_json::from_slice(header.as_bytes()).map_err(|error| {
        ApiError::unauthorized(format!("Apitoken is not JSON like {{\"name\":…,\"sig\":…}}: {error}"))
    })?;
    let find = |wanted: &str| {
        let (_, value) = token.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted))?;
        value.as_str().filter(|text| !text.is_empty()).map(str::to_string)
    };
    let name = find("name").ok_or_else(|| ApiError::unauthorized("token key:name is empty"))?;
    let sig = find("sig").ok_or_else(|| ApiError::unauthorized("token key:sig is empty"))?;
    Ok((name, sig))
}

/// Takes the same time wherever the two differ, so that the time says nothing about the token.
fn equal_in_constant_time(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn tokens() {
        let check = |value: &str, expected: Result<(&str, &str), &str>| {
            let mut headers = HeaderMap::new();
            if !value.is_empty() {
                headers.insert("apitoken", HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
            }
            match (read_token(&headers), expected) {
                (Ok((name, sig)), Ok(expected)) => assert_eq!((name.as_str(), sig.as_str()), expected),
                (Err(error), Err(part)) => assert!(format!("{error:?}").contains(part), "{error:?}"),
                (got, expected) => panic!("{value:?}: got {got:?}, want {expected:?}"),
            }
        };
        check(r#"{"name":"a","sig":"s"}"#, Ok(("a", "s")));
        check(r#"{"Name":"王","SIG":"s"}"#, Ok(("王", "s")));
        check("", Err("token key is not set"));
        check("hello", Err("not JSON"));
        check(r#"{"name":"","sig":"s"}"#, Err("token key:name is empty"));
        check(r#"{"name":"a","sig":5}"#, Err("token key:sig is empty"));
        check("[]", Err("token key:name is empty"));
    }

    #[test]
    fn constant_time_comparison_compares() {
        assert!(equal_in_constant_time("abc", "abc"));
        assert!(!equal_in_constant_time("abc", "abd"));
        assert!(!equal_in_constant_time("abc", "abcd"));
    }
}
