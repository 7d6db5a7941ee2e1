//! Links: the addresses of the old dashboard that messages carry, and that other tools store texts under.
//!
//! How: `POST /portal/links/store` keeps its body under a new path and answers that; `GET /portal/links/<path>` shows
//! the messages of a text, which `,,` separates, a line each, to whoever has the path. `/portal/template/view/<id>` and
//! `/portal/expression/view/<id>`, to which an alarm's mail leads, are the page's `#/template/<id>` and
//! `#/expression/<id>`, where it asks for a login.
//! Invariants: texts become text, never markup; a body has at most [`link::CONTENT_MAX`] bytes. Whoever stores is on
//! this machine or in `ingest.allow`, and no page in a browser, or logged in; behind a proxy a login is needed.
//! Compat: docs/open-falcon/dashboard.md §2; in the original anybody stores, and a path that is not there is an empty
//! page.

use super::Sources;
use super::error::{PageError, broken, unauthorized};
use super::viewer;
use crate::portal::link;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use net::http::{BodyError, Peer, read_body};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Between the messages of a text, as in the original.
const SEPARATOR: &str = ",,";

/// Routes of the old dashboard that messages carry.
pub fn router() -> Router<Sources> {
    Router::new()
        .route("/portal/links/store", post(store))
        .route("/portal/links/{path}", get(show))
        .route("/portal/template/view/{id}", get(|id| view("template", id)))
        .route("/portal/expression/view/{id}", get(|id| view("expression", id)))
}

/// Leads to the page's place for a rule. Its address is relative, since a proxy may have put something before it.
async fn view(kind: &'static str, Path(id): Path<String>) -> Response {
    match id.parse::<u64>() {
        Ok(id) => (StatusCode::FOUND, [(header::LOCATION, format!("../../../#/{kind}/{id}"))]).into_response(),
        Err(_) => (StatusCode::NOT_FOUND, "want the id of a rule\n").into_response(),
    }
}

async fn store(
    State(sources): State<Sources>,
    address: Option<Extension<ConnectInfo<SocketAddr>>>,
    peer: Peer,
    headers: HeaderMap,
    body: Body,
) -> Result<String, PageError> {
    let from = address.map(|Extension(ConnectInfo(address))| address.ip().to_canonical());
    if !may_store(&sources, from, &headers).await {
        return Err(unauthorized(
            "not allowed: send from this machine or a network of ingest.allow, or log in (header Apitoken)",
        ));
    }
    let body = read_body(&peer, body, link::CONTENT_MAX, BODY_TIMEOUT).await;
    let body = body.map_err(|error| {
        let too_long = || format!("the text is above {} bytes: store fewer messages", link::CONTENT_MAX);
        PageError::new(error.status(), if error == BodyError::TooLong { too_long() } else { error.text() })
    })?;
    let content = String::from_utf8_lossy(&body);
    let path = link::new_path();
    let mut transaction = sources.portal.write().await.map_err(broken)?;
    link::store(&mut transaction, &path, &content).await.map_err(broken)?;
    transaction.commit().await.map_err(broken)?;
    Ok(path)
}

async fn may_store(sources: &Sources, from: Option<IpAddr>, headers: &HeaderMap) -> bool {
    let is_allowed = from.is_some_and(|ip| ip.is_loopback() || sources.allow.iter().any(|net| net.contains(&ip)));
    if is_allowed && !viewer::speaks_for_others(headers) && !is_of_a_page(headers) {
        return true;
    }
    viewer::caller_of(sources, headers, from).await.is_some_and(|caller| caller.scopes.write)
}

/// Whether a page in a browser asks: none has a reason to.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

async fn show(State(sources): State<Sources>, Path(path): Path<String>) -> Result<Response, PageError> {
    let found = link::find(&sources.portal, &path).await.map_err(broken)?;
    let (status, lines) = match &found {
        Some(content) => (StatusCode::OK, content.split(SEPARATOR).map(line).collect()),
        None => (StatusCode::NOT_FOUND, line("There is no such link, or it is too old.")),
    };
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>alerts</title>\n<link rel=\"stylesheet\" href=\"../../ui/style.css\">\n\
         <main>\n{lines}</main>\n</html>\n"
    );
    Ok((status, Html(page)).into_response())
}

/// A message as a line of the page.
fn line(text: &str) -> String {
    let mut out = String::from("<p>");
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out.push_str("</p>\n");
    out
}
