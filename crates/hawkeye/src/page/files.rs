//! Files: the page itself, embedded in the binary, and the headers that keep a browser from misusing answers.
//!
//! How: a dozen plain files of `web/`, each sent with an ETag so that a browser keeps the file until it changes.
//! Invariants: no file holds a secret, so anybody may load them: the login form is among them.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use md5::{Digest, Md5};

struct File {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

static FILES: [File; 12] = [
    File { path: "/", content_type: HTML, body: include_str!("../../../../web/index.html") },
    File { path: "/ui/style.css", content_type: CSS, body: include_str!("../../../../web/style.css") },
    File { path: "/ui/icon.svg", content_type: SVG, body: include_str!("../../../../web/icon.svg") },
    File { path: "/ui/app.js", content_type: SCRIPT, body: include_str!("../../../../web/app.js") },
    File { path: "/ui/api.js", content_type: SCRIPT, body: include_str!("../../../../web/api.js") },
    File { path: "/ui/chart.js", content_type: SCRIPT, body: include_str!("../../../../web/chart.js") },
    File { path: "/ui/dom.js", content_type: SCRIPT, body: include_str!("../../../../web/dom.js") },
    File { path: "/ui/format.js", content_type: SCRIPT, body: include_str!("../../../../web/format.js") },
    File { path: "/ui/home.js", content_type: SCRIPT, body: include_str!("../../../../web/home.js") },
    File { path: "/ui/host.js", content_type: SCRIPT, body: include_str!("../../../../web/host.js") },
    File { path: "/ui/i18n.js", content_type: SCRIPT, body: include_str!("../../../../web/i18n.js") },
    File { path: "/ui/rule.js", content_type: SCRIPT, body: include_str!("../../../../web/rule.js") },
];

/// A route per file.
pub fn router() -> Router {
    let mut router = Router::new();
    for file in &FILES {
        let etag = HeaderValue::from_str(&etag(file.body)).expect("hex and quotes");
        router = router.route(file.path, get(move |headers: HeaderMap| async move { send_file(file, etag, &headers) }));
    }
    router
}

fn etag(body: &str) -> String {
    format!("\"{}\"", hex::encode(Md5::digest(body)))
}

/// `no-cache` lets the browser keep the file but ask each time, so that a new binary's page is seen at once.
fn send_file(file: &'static File, etag: HeaderValue, request: &HeaderMap) -> Response {
    let known = request.get(header::IF_NONE_MATCH).is_some_and(|tags| contains(tags.as_bytes(), etag.as_bytes()));
    let caching = [(header::ETAG, etag), (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    if known {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, file.content_type)], file.body).into_response()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Puts on every answer what keeps a browser from using the answer for anything but the page.
pub async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
