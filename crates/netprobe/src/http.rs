//! HTTP: whether a URL answers, how fast in each phase, and whether with what it should.
//!
//! How: each hop is resolved, checked against the policy and connected anew; a redirect is followed as often as the
//! definition says. Phases of several hops are summed.
//! Invariants: what is secret stays with its host: headers of one's own but for harmless ones, and a body, are not sent
//! to where a redirect leads when that is another place.
//! Compat: redirects as RFC 9110 §15.4 and browsers have them: 303 asks with GET, so do 301 and 302 after a POST; 307
//! and 308 ask the same again.

mod exchange;
pub(crate) mod expect;
mod url;

pub(crate) use exchange::{Exchange, read, speak, speak_tls};
pub use expect::{BodyMatch, JsonMatch};
pub(crate) use url::Url;

use crate::dial::Family;
use crate::fault::{note, short};
use crate::means::Ground;
use crate::outcome::{Code, Phase, Reason};
use crate::pattern;
use crate::tls::TlsOptions;
use crate::trace::Trace;
use bytes::Bytes;
use expect::{StatusSet, judge_body};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Headers of a request; browsers send some fifteen.
const HEADERS_MAX: usize = 32;
/// Bytes of a header's value: a token or a cookie of the longest that servers take.
const HEADER_BYTES_MAX: usize = 4096;
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Redirects at most, as curl and browsers stop at 20 to 50; a probe has time for fewer.
const REDIRECTS_MAX: u8 = 10;
/// Headers that the connection sets itself.
const OWN_HEADERS: [&str; 6] =
    ["connection", "content-length", "transfer-encoding", "te", "upgrade", "proxy-connection"];

/// Headers that go along to another place.
const HARMLESS: [HeaderName; 5] =
    [header::ACCEPT, header::ACCEPT_LANGUAGE, header::CONTENT_TYPE, header::USER_AGENT, header::CACHE_CONTROL];

/// A URL, and what it should answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    pub method: String,
    /// Headers of the request; `host` asks a virtual host.
    pub headers: BTreeMap<String, String>,
    /// Text that is sent; needs a `content-type` of one's own.
    pub body: String,
    /// Redirects that are followed, 0 to 10.
    pub redirects: u8,
    /// Status codes that are up, like `200-299,304`.
    pub status: String,
    pub body_match: Option<BodyMatch>,
    pub json: Option<JsonMatch>,
    pub family: Family,
    pub protocol: Protocol,
    pub tls: TlsOptions,
}

/// Version of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/2 where a TLS server agrees to it, else HTTP/1.1.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    #[serde(rename = "1.1")]
    One,
    /// HTTP/2; without TLS by prior knowledge.
    #[serde(rename = "2")]
    Two,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            method: "GET".into(),
            headers: BTreeMap::new(),
            body: String::new(),
            redirects: 0,
            status: "200-299".into(),
            body_match: None,
            json: None,
            family: Family::Any,
            protocol: Protocol::Auto,
            tls: TlsOptions::default(),
        }
    }
}

impl Http {
    pub(crate) fn check(&self, target: &str, faults: &mut Vec<String>) {
        note(faults, "target", Url::parse(target));
        note(faults, "method", method(&self.method));
        note(faults, "status", StatusSet::parse(&self.status));
        if self.headers.len() > HEADERS_MAX {
            faults.push(format!("headers has {}: give at most {HEADERS_MAX}", self.headers.len()));
        }
        for (name, value) in &self.headers {
            note(faults, "headers", header_of(name, value));
        }
        if self.body.len() > BODY_BYTES_MAX {
            faults.push(format!("body has {} bytes: give at most {BODY_BYTES_MAX}", self.body.len()));
        }
        if self.redirects > REDIRECTS_MAX {
            faults.push(format!("redirects is {}: give 0 to {REDIRECTS_MAX}", self.redirects));
        }
        if let Some(wanted) = &self.body_match {
            note(faults, "body_match.pattern", pattern::compile(&wanted.pattern));
        }
        if let Some(wanted) = &self.json {
            note(faults, "json", wanted.check());
        }
        if self.method == "HEAD" && (self.body_match.is_some() || self.json.is_some()) {
            faults.push("method is HEAD, whose answer has no body to look at: give GET".to_string());
        }
        self.tls.check(faults);
    }

    pub(crate) async fn run(&self, target: &str, ground: Ground<'_>, trace: &mut Trace) -> Result<(), Reason> {
        let wrong = |error: String| Reason::new(Code::Definition, error);
        let wanted = StatusSet::parse(&self.status).map_err(wrong)?;
        let mut request = self.first(target).map_err(wrong)?;
        let mut followed = 0;
        loop {
            let mut exchange = exchange::connect(&request.url, self, ground, trace).await?;
            trace.value("probe.http.version", exchange.version());
            let (method, headers, body) = (request.method.clone(), request.headers.clone(), request.body.clone());
            let answer = exchange.ask(&request.url, method, headers, body, trace).await?;
            let status = answer.status();
            trace.value("probe.http.status", f64::from(status.as_u16()));
            match location_of(&answer).as_deref() {
                Some(location) if self.redirects > 0 => {
                    if followed == self.redirects {
                        trace.end_phase();
                        let text =
                            format!("redirected more than {followed} times, last to {}", without_query(location));
                        return Err(Reason::new(Code::Redirects, text));
                    }
                    followed += 1;
                    trace.value("probe.http.redirects", f64::from(followed));
                    request.follow(status, location).map_err(|error| {
                        // An error quotes what it is about, and secrets are in queries.
                        let error = request.url.join(without_query(location)).err().unwrap_or(error);
                        Reason::new(Code::Redirect, format!("redirected to what cannot be asked: {error}"))
                    })?;
                }
                _ => return self.judge(answer, &wanted, ground, trace).await,
            }
        }
    }

    fn first(&self, target: &str) -> Result<Asked, String> {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 2);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("hawkeye/", env!("CARGO_PKG_VERSION"))));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        for (name, value) in &self.headers {
            let (name, value) = header_of(name, value)?;
            headers.insert(name, value);
        }
        let body = Bytes::copy_from_slice(self.body.as_bytes());
        Ok(Asked { url: Url::parse(target)?, method: method(&self.method)?, headers, body })
    }

    /// Reads the answer, and says what of it is not as expected.
    async fn judge(
        &self,
        answer: Response<Incoming>,
        wanted: &StatusSet,
        ground: Ground<'_>,
        trace: &mut Trace,
    ) -> Result<(), Reason> {
        let status = answer.status().as_u16();
        if !wanted.has(status) {
            trace.end_phase();
            return Err(Reason::new(Code::Status, format!("status {status}, want {wanted}")));
        }
        trace.enter(Phase::Body);
        let keep = self.body_match.is_some() || self.json.is_some();
        let max = ground.policy.limits.body_bytes;
        let body = read(answer.into_body(), keep, max, trace).await?;
        trace.value("probe.http.body_bytes", body.bytes.min(max) as f64);
        trace.end_phase();
        match keep {
            // What cannot be seen whole cannot be said to lack something.
            true if !body.is_whole => {
                Err(Reason::new(Code::TooLong, format!("the body has more than {max} bytes, which are looked at")))
            }
            true => judge_body(self, &body.kept),
            false => Ok(()),
        }
    }
}

/// A request, of the first hop or a later one.
struct Asked {
    url: Url,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    /// Becomes the request that a redirect asks for.
    fn follow(&mut self, status: StatusCode, location: &str) -> Result<(), String> {
        let url = self.url.join(location)?;
        let becomes_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if (url.is_tls, &url.place) != (self.url.is_tls, &self.url.place) {
            // Which of a site's own headers are secrets, nobody here knows.
            let kept = self.headers.iter().filter(|(name, _)| HARMLESS.contains(name));
            self.headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
            if !self.body.is_empty() && !becomes_get {
                return Err("another place, to which no body is sent".to_string());
            }
        }
        if becomes_get {
            self.method = Method::GET;
            self.body = Bytes::new();
            self.headers.remove(header::CONTENT_TYPE);
        }
        self.url = url;
        Ok(())
    }
}

/// Where a redirect leads; a status of that kind without a place is an answer like any other.
fn location_of(answer: &Response<Incoming>) -> Option<Cow<'_, str>> {
    let is_redirect = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = answer.headers().get(header::LOCATION).filter(|_| is_redirect)?;
    Some(String::from_utf8_lossy(location.as_bytes()))
}

/// A location without its query, in which secrets are.
fn without_query(location: &str) -> &str {
    location.split(['?', '#']).next().unwrap_or_default()
}

fn method(text: &str) -> Result<Method, String> {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    match known.contains(&text) {
        true => text.parse().map_err(|_| format!("{text} is no method: give GET")),
        false => Err(format!("{:?} is none: give one of {}", short(text), known.join(", "))),
    }
}

fn header_of(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let lower = name.to_ascii_lowercase();
    if OWN_HEADERS.contains(&lower.as_str()) {
        return Err(format!("{name:?} is what the connection sets itself: give others"));
    }
    let read = HeaderName::from_bytes(lower.as_bytes()).ok();
    let name = read.ok_or_else(|| format!("{:?} is no name of a header: give one like accept", short(name)))?;
    // No value is told: it may be a password.
    let wrong = || {
        format!(
            "{name} has a value of {} bytes: give one of at most {HEADER_BYTES_MAX} without line breaks",
            value.len()
        )
    };
    if value.len() > HEADER_BYTES_MAX {
        return Err(wrong());
    }
    let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str) -> Asked {
        let http = Http {
            method: "POST".into(),
            body: "x".into(),
            headers: [("Authorization", "secret"), ("X-Own", "y"), ("Content-Type", "text/plain"), ("Host", "v")]
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .into(),
            ..Http::default()
        };
        http.first(url).expect("a request")
    }

    #[test]
    fn redirects_change_what_is_asked() {
        let check = |status: u16, method: &str, body: &str| {
            let mut asked = asked("https://a/x");
            asked.follow(StatusCode::from_u16(status).expect("a status"), "/y").expect("a place");
            assert_eq!((asked.method.as_str(), &asked.body[..]), (method, body.as_bytes()), "{status}");
            assert_eq!(asked.headers.contains_key("content-type"), !body.is_empty());
            assert!(asked.headers.contains_key("authorization") && asked.headers.contains_key("host"));
        };
        check(301, "GET", "");
        check(302, "GET", "");
        check(303, "GET", "");
        check(307, "POST", "x");
        check(308, "POST", "x");
    }

    #[test]
    fn secrets_stay_with_their_host() {
        for elsewhere in ["https://b/", "http://a/", "https://a:8443/", "//b/"] {
            let mut to = asked("https://a/x");
            to.follow(StatusCode::SEE_OTHER, elsewhere).expect("a place");
            let names: Vec<&str> = to.headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["user-agent", "accept"], "{elsewhere}");
            let error = asked("https://a/x").follow(StatusCode::TEMPORARY_REDIRECT, elsewhere).expect_err(elsewhere);
            assert!(error.contains("no body is sent"), "{error}");
        }
        assert_eq!(without_query("/x?token=secret#y"), "/x");
    }

    #[test]
    fn keys_are_checked() {
        let check = |http: Http, part: &str| {
            let mut faults = Vec::new();
            http.check("http://a/", &mut faults);
            assert!(faults.len() == 1 && faults[0].contains(part) && faults[0].contains("give"), "{faults:?}");
        };
        let headers = |name: &str, value: &str| BTreeMap::from([(name.to_string(), value.to_string())]);
        check(Http { method: "get".into(), ..Http::default() }, "method");
        check(Http { method: "CONNECT".into(), ..Http::default() }, "method");
        check(Http { status: "ok".into(), ..Http::default() }, "status");
        check(Http { redirects: 11, ..Http::default() }, "redirects");
        check(Http { headers: headers("a b", "c"), ..Http::default() }, "headers");
        check(Http { headers: headers("a", "c\r\nd: e"), ..Http::default() }, "headers");
        check(Http { headers: headers("Content-Length", "5"), ..Http::default() }, "headers");
        check(Http { body: "x".repeat(70_000), ..Http::default() }, "body");
        let body_match = Some(BodyMatch { pattern: "(".into(), absent: false });
        check(Http { body_match: body_match.clone(), ..Http::default() }, "body_match.pattern");
        let json = Some(JsonMatch { path: String::new(), value: serde_json::Value::Null });
        check(Http { json: json.clone(), ..Http::default() }, "json");
        let fine = Some(BodyMatch { pattern: "a".into(), absent: true });
        check(Http { method: "HEAD".into(), body_match: fine, ..Http::default() }, "HEAD");
    }
}
