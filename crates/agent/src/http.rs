//! HTTP door of the agent on port 1988: scripts push points here, and ask about the agent's health. Routes that change
//! this host are in `control`, those that show it in `pages`.
//!
//! Compat: docs/open-falcon/agent.md §6. Method and content type are not checked, as in the original; `success` is
//! answered as soon as the items are in the queue, also for items that a transfer will refuse. An item without time
//! gets the time of its arrival here, because it may wait. Items that no transfer would take (no metric, no number) are
//! counted and dropped.
//! A page of another site is refused, and so is a foreign name on a loopback address ([`net::http::Guard`]).
//! Memory: a body has at most [`BODY_MAX`], all unfinished ones together [`BODIES_MAX`].

use super::heartbeat::VERSION;
use super::{Agent, control, intake, pages};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use metrics::Metrics;
use net::http::{BodyError, Peer, read_body};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes of a body, some 30,000 items: far above what a script sends at once.
const BODY_MAX: usize = 4 << 20;
pub const BODIES_MAX: u64 = 8 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Door {
    agent: Arc<Agent>,
    metrics: Arc<Metrics>,
}

/// Routes of the agent's HTTP door.
pub fn router(agent: Arc<Agent>, metrics: Arc<Metrics>) -> Router {
    let control = control::routes(agent.clone());
    let pages = pages::routes(agent.clone());
    let door = Door { agent, metrics };
    Router::new()
        .route("/v1/push", any(push))
        .route("/health", get(|| async { "ok" }))
        .route("/version", get(|| async { VERSION }))
        .route("/workdir", get(workdir))
        .route("/ips", get(ips))
        .route("/metrics", get(figures))
        .with_state(door)
        .merge(control)
        .merge(pages)
}

async fn figures(State(door): State<Door>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], Bytes::from_owner(door.metrics.page())).into_response()
}

async fn push(State(door): State<Door>, peer: Peer, body: Body) -> Response {
    let body = match read_body(&peer, body, BODY_MAX, BODY_TIMEOUT).await {
        Ok(body) => body,
        Err(error) => {
            let text = match error {
                BodyError::TooLong => format!("body is above {BODY_MAX} bytes: send fewer items at once"),
                _ => error.text(),
            };
            return (error.status(), text).into_response();
        }
    };
    if body.is_empty() {
        return (StatusCode::BAD_REQUEST, "body is blank").into_response();
    }
    match accept(&door.agent, &body, super::unix_now()) {
        true => "success".into_response(),
        // The original's spelling, which scripts compare.
        false => (StatusCode::BAD_REQUEST, "connot decode body").into_response(),
    }
}

/// Queues the items of a JSON array; false, and nothing queued, when the body is no array.
fn accept(agent: &Agent, body: &[u8], now: i64) -> bool {
    let settings = agent.live.now();
    let taken = intake::take(
        body,
        &settings.default_tags,
        |item| if item.timestamp == 0 { now } else { item.timestamp },
        |reason| {
            agent.counters.push_invalid.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(reason = reason.explain(), "dropped a pushed item");
        },
    );
    taken.map(|batches| batches.into_iter().for_each(|batch| agent.queue.push(batch))).is_ok()
}

async fn workdir() -> Response {
    let text = match std::env::current_dir() {
        Ok(path) => json!({"msg": "success", "data": path.display().to_string()}),
        Err(error) => json!({"msg": error.to_string()}),
    };
    axum::Json(text).into_response()
}

async fn ips(State(door): State<Door>) -> Response {
    axum::Json(json!({"msg": "success", "data": listed(&door.agent.orders.trustable_ips())})).into_response()
}

/// Addresses that hbs has named, joined by commas, as a list; none while there are none, which Go writes as null.
fn listed(addresses: &str) -> Option<Vec<&str>> {
    (!addresses.is_empty()).then(|| addresses.split(',').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_list() {
        let check = |addresses: &str, expected: &str| assert_eq!(json!(listed(addresses)).to_string(), expected);
        check("", "null");
        check("10.0.0.1", r#"["10.0.0.1"]"#);
        check("10.0.0.1,::1", r#"["10.0.0.1","::1"]"#);
    }
}
