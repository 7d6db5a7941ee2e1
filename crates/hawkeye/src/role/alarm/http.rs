//! The old alarm's HTTP routes that monitors ask (`listen.alarm_http`, 9912 in the original).
//!
//! Compat: docs/open-falcon/alarm.md §1. Not there: `/workdir`, which shows a path.

use axum::Router;
use axum::routing::get;

/// Routes of the door `alarm_http`.
pub fn router() -> Router {
    Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/version", get(|| async { env!("CARGO_PKG_VERSION") }))
}
