//! Who asks: the Apitoken header, and who may look without one.
//!
//! How: the header holds `{"name":…,"sig":…}`; `sig` is a session's secret, or the server token of the configuration, which
//! passes with any name. [`Caller`] is an extractor: a handler that takes it answers 401 to everybody else. [`Reader`] also
//! lets the viewers of `api.viewer` in, for the first page.
//! Compat: the texts are the original's. There is no default server token, sessions expire, and blocked users have none.

use super::Context;
use super::error::ApiError;
use crate::clock;
use crate::config::Viewer;
use crate::portal::session::{self, Found};
use crate::portal::user::{self, User};
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use serde_json::Value;
use std::net::SocketAddr;

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
        let (name, sig) = read_token(&parts.headers)?;
        let server_token = &context.config.api.server_token;
        if !server_token.is_empty() && equal_in_constant_time(server_token, &sig) {
            let user = user::by_name(&context.portal, &name).await?;
            let name = user.as_ref().map_or(name, |user| user.name.clone());
            return Ok(Caller { name, sig, user });
        }
        match session::find(&context.portal, &name, &sig, clock::now()).await? {
            Found::User(user) => Ok(Caller { name: user.name.clone(), sig, user: Some(user) }),
            Found::NoUser => Err(ApiError::unauthorized("not found this user")),
            Found::NoSession => Err(ApiError::unauthorized("session not found")),
        }
    }
}

/// A [`Caller`], or somebody whom `api.viewer` lets read without a token (then None).
#[derive(Clone, Debug)]
pub struct Reader(pub Option<Caller>);

impl FromRequestParts<Context> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Reader, ApiError> {
        if parts.headers.contains_key("apitoken") || !is_viewer(parts, context.config.api.viewer) {
            return Caller::from_request_parts(parts, context).await.map(|caller| Reader(Some(caller)));
        }
        Ok(Reader(None))
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

/// Loopback alone is not enough: a page of another site in a browser of this host comes from loopback too. Such a request
/// names that site in Origin or Host, and one that a proxy handed on says so.
fn is_viewer(parts: &Parts, viewer: Viewer) -> bool {
    match viewer {
        Viewer::None => false,
        Viewer::All => true,
        Viewer::Loopback => {
            let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
            let host = header_text(&parts.headers, header::HOST.as_str());
            let origin = header_text(&parts.headers, header::ORIGIN.as_str());
            peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback())
                && host.is_none_or(is_local_authority)
                && origin
                    .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, rest)| is_local_authority(rest)))
                && !["forwarded", "x-forwarded-for", "x-real-ip", "via"]
                    .iter()
                    .any(|name| parts.headers.contains_key(*name))
        }
    }
}

fn is_local_authority(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("not text"))
}

/// Takes the same time wherever the two differ, so that the time says nothing about the token.
fn equal_in_constant_time(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, Request};

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
    fn viewers() {
        let check = |viewer, peer: &str, headers: &[(&str, &str)], expected: bool| {
            let mut request = Request::builder().uri("/");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (mut parts, ()) = request.body(()).expect("a request").into_parts();
            parts.extensions.insert(ConnectInfo(peer.parse::<SocketAddr>().expect("an address")));
            assert_eq!(is_viewer(&parts, viewer), expected, "{peer} {headers:?}");
        };
        let own = ("host", "127.0.0.1:8080");
        check(Viewer::Loopback, "127.0.0.1:5", &[own], true);
        check(Viewer::Loopback, "[::1]:5", &[("host", "[::1]:8080")], true);
        check(Viewer::Loopback, "127.0.0.1:5", &[own, ("origin", "http://localhost:8080")], true);
        check(Viewer::Loopback, "10.0.0.1:5", &[own], false);
        check(Viewer::Loopback, "127.0.0.1:5", &[own, ("origin", "http://evil.example")], false);
        check(Viewer::Loopback, "127.0.0.1:5", &[own, ("origin", "null")], false);
        check(Viewer::Loopback, "127.0.0.1:5", &[("host", "rebound.example:8080")], false);
        check(Viewer::Loopback, "127.0.0.1:5", &[own, ("x-forwarded-for", "10.0.0.1")], false);
        check(Viewer::None, "127.0.0.1:5", &[own], false);
        check(Viewer::All, "10.0.0.1:5", &[], true);
    }

    #[test]
    fn constant_time_comparison_compares() {
        assert!(equal_in_constant_time("abc", "abc"));
        assert!(!equal_in_constant_time("abc", "abd"));
        assert!(!equal_in_constant_time("abc", "abcd"));
    }
}
