//! Viewer: who may look at the page's data.
//!
//! How: the setting `api.viewer` says who needs no login; anybody else sends the `Apitoken` header of Open-Falcon's
//! API, and may look when the header names a valid session.
//! Invariants: with `none`, the default, nobody looks without a session. With `loopback` no other site's page can look
//! through a browser of this machine, and no proxy that says for whom it asks; one that says nothing is this machine.

use super::Sources;
use super::error::unauthorized;
use crate::clock;
use crate::config::Viewer;
use crate::portal::caller::{Caller, CallerError, Credentials};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use net::turns::Holder;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The name of who looks, when logged in; an extension of the request that handlers read to tell the page.
#[derive(Clone)]
pub struct ViewerName(pub Option<String>);

/// Lets a request pass to the routes when whoever sent the request may look. They find in its extensions the
/// [`ViewerName`], and the [`Holder`] whose turns the answer takes.
pub async fn require_viewer(State(sources): State<Sources>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let caller = caller_of(&sources, request.headers(), peer).await;
    let user = caller.filter(|caller| caller.scopes.read).map(|caller| caller.name);
    if user.is_none() && !may_look_without_login(sources.api.viewer, peer, request.uri(), request.headers()) {
        let reason = "not allowed: log in (header Apitoken), or set api.viewer = \"all\" in the server's configuration";
        return unauthorized(reason).into_response();
    }
    let address = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let viewer = user.as_deref().map_or(Holder::at(address), Holder::user);
    request.extensions_mut().insert(viewer);
    request.extensions_mut().insert(ViewerName(user));
    next.run(request).await
}

/// Whom the headers name by a valid session or token.
pub async fn caller_of(sources: &Sources, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<Caller> {
    let credentials = Credentials::of(headers).ok()?;
    let from = peer.map(|ip| ip.to_string()).unwrap_or_default();
    match Caller::find(&sources.portal, &sources.api.server_token, credentials, &from, clock::now()).await {
        Ok(caller) => Some(caller),
        Err(error) => {
            if let CallerError::Database(error) = error {
                tracing::error!(%error, "cannot look up a session in the portal's database; the page asks for a login");
            }
            None
        }
    }
}

/// The rule of the setting `api.viewer`. With `loopback` a request passes when it comes from this machine and says
/// nothing else:
/// - its peer is a loopback address, and no proxy speaks for somebody behind it (`Forwarded`, `X-Forwarded-For`, …);
/// - it is addressed to a loopback name: a foreign name that was made to resolve to 127.0.0.1 (DNS rebinding) would let
///   that site's script read the answer;
/// - it was not started by another site's page (`Origin`, `Sec-Fetch-Site`).
fn may_look_without_login(viewer: Viewer, peer: Option<IpAddr>, uri: &Uri, headers: &HeaderMap) -> bool {
    match viewer {
        Viewer::All => true,
        Viewer::None => false,
        Viewer::Loopback => {
            peer.is_some_and(|ip| ip.to_canonical().is_loopback())
                && !speaks_for_others(headers)
                && addressed_to_loopback(uri, headers)
                && started_by_this_page(headers)
        }
    }
}

/// Whether a proxy says that somebody else asks.
pub fn speaks_for_others(headers: &HeaderMap) -> bool {
    ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name))
}

fn addressed_to_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    hosts.next().is_none()
        && host.is_some_and(is_loopback_authority)
        && uri.authority().is_none_or(|authority| is_loopback_authority(authority.as_str()))
}

fn started_by_this_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("not text"));
    let origin_is_local = text("origin")
        .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, authority)| is_loopback_authority(authority)));
    origin_is_local && text("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none")
}

/// True for `localhost`, `127.x.y.z` and `[::1]`, each with or without a port.
fn is_loopback_authority(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn who_may_look_without_login() {
        let check = |viewer, peer: &str, uri: &str, headers: &[(&str, &str)], expected: bool| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(
                    axum::http::HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
                    HeaderValue::from_str(value).expect("a header value"),
                );
            }
            let peer = peer.parse().ok();
            let got = may_look_without_login(viewer, peer, &uri.parse().expect("a URI"), &map);
            assert_eq!(got, expected, "{viewer:?} {peer:?} {uri} {headers:?}");
        };
        let local = ("host", "127.0.0.1:8080");
        let v = Viewer::Loopback;
        check(v, "127.0.0.1", "/", &[local], true);
        check(v, "127.0.0.1", "/", &[("host", "localhost:8080")], true);
        check(v, "127.0.0.1", "/", &[("host", "LocalHost")], true);
        check(v, "127.9.9.9", "/", &[("host", "127.9.9.9:8080")], true);
        check(v, "::1", "/", &[("host", "[::1]:8080")], true);
        check(v, "::ffff:127.0.0.1", "/", &[local], true);
        check(
            v,
            "127.0.0.1",
            "/",
            &[local, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")],
            true,
        );
        check(v, "127.0.0.1", "/", &[local, ("sec-fetch-site", "none")], true);
        check(v, "127.0.0.1", "http://localhost:8080/", &[local], true);
        // Not from this machine, or unknown where from.
        check(v, "10.0.0.1", "/", &[local], false);
        check(v, "none", "/", &[local], false);
        // Through a proxy.
        check(v, "127.0.0.1", "/", &[local, ("x-forwarded-for", "10.0.0.1")], false);
        check(v, "127.0.0.1", "/", &[local, ("forwarded", "for=10.0.0.1")], false);
        check(v, "127.0.0.1", "/", &[local, ("x-real-ip", "10.0.0.1")], false);
        // Under a foreign name.
        check(v, "127.0.0.1", "/", &[("host", "evil.example:8080")], false);
        check(v, "127.0.0.1", "/", &[("host", "127.0.0.1.evil.example")], false);
        check(v, "127.0.0.1", "/", &[("host", "localhost.evil.example:8080")], false);
        check(v, "127.0.0.1", "/", &[("host", "localhost:80@evil.example")], false);
        check(v, "127.0.0.1", "/", &[], false);
        check(v, "127.0.0.1", "/", &[local, ("host", "evil.example")], false);
        check(v, "127.0.0.1", "http://evil.example/", &[local], false);
        // From another site's page.
        check(v, "127.0.0.1", "/", &[local, ("origin", "http://evil.example")], false);
        check(v, "127.0.0.1", "/", &[local, ("origin", "null")], false);
        check(v, "127.0.0.1", "/", &[local, ("sec-fetch-site", "cross-site")], false);
        check(v, "127.0.0.1", "/", &[local, ("sec-fetch-site", "same-site")], false);
        // The other two settings.
        check(Viewer::All, "10.0.0.1", "/", &[("host", "hawkeye.example")], true);
        check(Viewer::None, "127.0.0.1", "/", &[local], false);
    }
}
