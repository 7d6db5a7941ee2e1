//! Docs: each route has its row, each example works, and the fields that are told are those that are read.

use super::{engine, router};
use crate::api::attempts::Attempts;
use crate::api::body;
use crate::api::docs::{self, Doc, SETUP};
use crate::api::{Context, changes};
use crate::config::Config;
use crate::portal::db::query;
use crate::portal::user::{self, Profile};
use crate::portal::{password, session};
use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use tower::ServiceExt;

/// Fields within the object `action`.
const WITHIN_ACTION: [&str; 7] = [
    "uic",
    "url",
    "callback",
    "before_callback_sms",
    "before_callback_mail",
    "after_callback_sms",
    "after_callback_mail",
];

/// Routes that read their query or body by themselves.
const OWN_FIELDS: [&str; 11] = [
    "POST /heartbeat/{token}",
    "POST /heartbeat/{token}/{event}",
    "POST /apply",
    "DELETE /graph/endpoint",
    "GET /graph/endpoint",
    "GET /graph/endpointobj",
    "GET /graph/endpoint_counter",
    "POST /graph/history",
    "DELETE /graph/counter",
    "POST /strategy/replay",
    "GET /alarm/stream",
];

/// A site as after its first start.
pub(super) struct Fresh {
    _dir: tempfile::TempDir,
    router: Router,
    pub context: Context,
    token: String,
}

pub(super) async fn fresh() -> Result<Fresh> {
    let (dir, portal) = crate::portal::tests::temporary().await?;
    let attempts = Attempts::with_known(&portal).await;
    let context = Context::new(portal, Arc::new(Config::default()), engine(dir.path())?, attempts);
    let hash = password::hash("root-secret").await?;
    let root = user::create(&context.portal, "root", &hash, &Profile::default(), user::ROOT, 0).await?;
    let sig = session::create(&context.portal, root, crate::clock::now()).await?;
    let token = serde_json::json!({ "name": "root", "sig": sig }).to_string();
    Ok(Fresh { _dir: dir, router: router(context.clone()), context, token })
}

impl Fresh {
    pub async fn ask(&self, line: &str, body: &str) -> Result<(u16, String)> {
        let (method, path) = line.split_once(' ').context("a method and a path")?;
        let request = Request::builder().method(method).uri(format!("/api/v1{path}")).header("apitoken", &self.token);
        let request = request.header("content-type", "application/json").body(Body::from(body.to_string()))?;
        let response = self.router.clone().oneshot(request).await?;
        let status = response.status().as_u16();
        if response.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
        {
            return Ok((status, String::new()));
        }
        Ok((status, String::from_utf8(to_bytes(response.into_body(), 1 << 20).await?.to_vec())?))
    }
}

/// A site on which the examples work.
pub(super) async fn filled() -> Result<Fresh> {
    let site = fresh().await?;
    for (line, body) in SETUP {
        let (status, answer) = site.ask(line, body).await?;
        assert_eq!(status, 200, "{line}: {answer}");
    }
    query(
        "INSERT INTO alarms.event_cases (id, endpoint, metric, cond, priority, status, timestamp)
         VALUES ('s_2_08d0f3650b4ce6526c78d4a187cb65c9', 'web-01', 'm', 'c', 0, 'PROBLEM', '2020-01-01 00:00:00')",
    )
    .execute(&site.context.portal)
    .await?;
    query(
        "INSERT INTO falcon_portal.hawkeye_agent (hostname, version, config_digest, clock_offset_ms, told_at)
         VALUES ('web-01', '0.1.0 x86_64', '0123456789abcdef', -12, 1767225600)",
    )
    .execute(&site.context.portal)
    .await?;
    let kept = crate::portal::token::kept("hj_example");
    query("UPDATE falcon_portal.hawkeye_job SET kept = ?").bind(kept).execute(&site.context.portal).await?;
    Ok(site)
}

#[tokio::test]
async fn each_example_works_and_tells_the_fields_that_are_read() -> Result<()> {
    let site = filled().await?;
    let mut wrong = Vec::new();
    for doc in docs::all() {
        body::take_asked();
        let (status, answer) = site.ask(&format!("{} {}", doc.method(), doc.example_path()), doc.example.body).await?;
        if !matches!(status, 200 | 307) {
            wrong.push(format!("{}: {status} {answer}", doc.line));
        }
        if !OWN_FIELDS.contains(&doc.line) {
            wrong.extend(fields_fault(doc, body::take_asked()));
        }
        if !doc.answer.is_empty() {
            wrong.extend(answer_fault(doc, &answer)?);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

fn fields_fault(doc: &Doc, asked: BTreeSet<String>) -> Option<String> {
    let told: BTreeSet<String> = doc.all_fields().map(|field| field.name.to_string()).collect();
    let is_within = |name: &str| told.contains("action") && WITHIN_ACTION.contains(&name);
    let untold: Vec<&String> = asked.difference(&told).filter(|name| !is_within(name)).collect();
    let unread: Vec<&String> = told.difference(&asked).collect();
    (!untold.is_empty() || !unread.is_empty())
        .then(|| format!("{}: not told {untold:?}, not read {unread:?}", doc.line))
}

/// The keys that the document shows must be those of the answer.
fn answer_fault(doc: &Doc, answer: &str) -> Result<Option<String>> {
    fn keys(value: &Value) -> BTreeSet<String> {
        match value {
            Value::Object(map) => map.keys().cloned().collect(),
            Value::Array(list) => list.first().map(keys).unwrap_or_default(),
            _ => BTreeSet::new(),
        }
    }
    let (shown, got): (Value, Value) = (serde_json::from_str(doc.answer)?, serde_json::from_str(answer)?);
    // The site has no points.
    let is_empty = got.as_array().is_some_and(Vec::is_empty);
    let (shown, got) = (keys(&shown), keys(&got));
    Ok((!is_empty && shown != got).then(|| format!("{}: shows {shown:?}, answers {got:?}", doc.line)))
}

/// All methods of all routes, not only those that change something.
#[tokio::test]
async fn each_route_has_a_row() -> Result<()> {
    let site = fresh().await?;
    let rows: BTreeSet<&str> = docs::all().map(|doc| doc.line).collect();
    assert_eq!(rows.len(), docs::all().count(), "no route has two rows");
    for line in changes::CHANGES.iter().map(|change| change.line).chain(changes::READS.iter().copied()) {
        assert!(rows.contains(line), "{line} has no row");
    }
    let shown = format!("{:?}", site.router);
    let paths = regex::Regex::new(r#"RouteId\(\d+\): "/api/v1([^"]*)""#)?;
    let routed: BTreeSet<&str> = paths.captures_iter(&shown).filter_map(|found| Some(found.get(1)?.as_str())).collect();
    let told: BTreeSet<&str> = docs::all().map(Doc::path).chain(["/openapi.json"]).collect();
    assert_eq!(told, routed);
    Ok(())
}

#[tokio::test]
async fn the_openapi_document_has_each_route_with_its_fields() -> Result<()> {
    let site = fresh().await?;
    let (status, text) = site.ask("GET /openapi.json", "").await?;
    let document: Value = serde_json::from_str(&text)?;
    assert_eq!((status, &document["openapi"].as_str().map(|version| version.starts_with("3."))), (200, &Some(true)));
    for doc in docs::all() {
        let operation = &document["paths"][doc.path()][doc.method().to_lowercase()];
        assert_eq!(operation["operationId"], doc.line, "{}", doc.line);
        for field in doc.fields {
            let in_query =
                operation["parameters"].as_array().is_some_and(|list| list.iter().any(|one| one["name"] == field.name));
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["properties"];
            assert!(in_query || body[field.name].is_object(), "{} {}", doc.line, field.name);
        }
    }
    Ok(())
}
