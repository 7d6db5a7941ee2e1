//! `POST /api/push` and the small routes that scripts ask transfer for (docs/open-falcon/wire.md §3,
//! docs/open-falcon/transfer.md §7).
//!
//! Compat: neither method nor content type is looked at. `blank body` and `decode error` are the original's texts; what
//! is wrong, and where, follows them.

use crate::clock;
use crate::engine::ingest::{Door, Ingest};
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use net::http::{BodyError, Peer, read_body};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::transfer::{UpdateAnswer, write_answer};

/// State of the routes.
#[derive(Clone)]
pub struct PushContext {
    pub ingest: Arc<Ingest>,
    pub message_max: usize,
    pub message_timeout: Duration,
}

/// Routes of the door for pushes over HTTP.
pub fn router(context: PushContext) -> Router {
    Router::new()
        .route("/api/push", any(push))
        .route("/health", get(|| async { "ok\n" }))
        .route("/version", get(|| async { concat!(env!("CARGO_PKG_VERSION"), "\n") }))
        .with_state(context)
}

async fn push(
    State(context): State<PushContext>,
    Extension(ConnectInfo(address)): Extension<ConnectInfo<SocketAddr>>,
    peer: Peer,
    body: Body,
) -> Response {
    let start = Instant::now();
    let body = match read_body(&peer, body, context.message_max, context.message_timeout).await {
        Ok(body) => body,
        Err(error) => {
            let text = match error {
                BodyError::TooLong => {
                    format!("body is above {} bytes (ingest.message_max): send smaller batches", context.message_max)
                }
                _ => error.text(),
            };
            return (error.status(), format!("{text}\n")).into_response();
        }
    };
    if body.is_empty() {
        return (StatusCode::BAD_REQUEST, "blank body\n").into_response();
    }
    let mut batch = context.ingest.begin(Door::Http, clock::now()).from(address.ip());
    if let Err(error) = batch.push_json(&body) {
        return (StatusCode::BAD_REQUEST, format!("decode error: {error}\n")).into_response();
    }
    match batch.finish() {
        Ok(received) => {
            let latency_ms = start.elapsed().as_millis() as u64;
            let mut out = br#"{"msg":"success","data":"#.to_vec();
            write_answer(&mut out, &UpdateAnswer { total: received.total, invalid: received.invalid, latency_ms });
            out.push(b'}');
            ([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], out).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
