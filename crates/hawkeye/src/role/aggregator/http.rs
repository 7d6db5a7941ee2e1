//! The old aggregator's HTTP routes that monitors ask (`listen.aggregator_http`, 6055 in the original).
//!
//! Compat: docs/open-falcon/aggregator-nodata-gateway.md §1. `/items` has a line per row as the original writes it,
//! without `LastUpdate`. `/aggregator/<id>/last` is not in the original: what became of a row, as the api says it in a
//! whole server. Not there: `/workdir`; `/config/reload`, which shows the whole configuration in the original,
//! has nothing to reload.

use crate::portal::aggregator::Aggregator;
use crate::rules::InEffect;
use crate::rules::computed::{Last, Lasts};
use crate::watch::envelope::{NO_PRIVILEGE, is_local};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Routes of the door `aggregator_http`.
pub fn router(in_effect: watch::Receiver<Arc<InEffect>>, lasts: Lasts) -> Router {
    let last = Router::new().route("/aggregator/{id}/last", get(last)).with_state((in_effect.clone(), lasts));
    Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/version", get(|| async { env!("CARGO_PKG_VERSION") }))
        .route("/config/reload", get(reload))
        .route("/items", get(items))
        .with_state(in_effect)
        .merge(last)
}

type Seen = (watch::Receiver<Arc<InEffect>>, Lasts);

async fn last(State((in_effect, lasts)): State<Seen>, Path(id): Path<String>) -> Response {
    let rules = in_effect.borrow().clone();
    let known = id.parse::<i64>().ok().filter(|id| rules.snapshot.aggregators.iter().any(|row| row.id == *id));
    let Some(id) = known else {
        let error = "no aggregator with this id: /items has all that are known";
        return (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error": error }))).into_response();
    };
    let none = || Last { why: "it was not computed yet: that is within its step".to_string(), ..Last::default() };
    Json(lasts.of(id).unwrap_or_else(none)).into_response()
}

async fn reload(Extension(ConnectInfo(address)): Extension<ConnectInfo<SocketAddr>>) -> &'static str {
    match is_local(address) {
        true => "nothing to reload: the configuration is read at the start, rows by themselves",
        false => NO_PRIVILEGE,
    }
}

async fn items(State(in_effect): State<watch::Receiver<Arc<InEffect>>>) -> String {
    let rules = in_effect.borrow().clone();
    let mut lines = String::new();
    for row in &rules.snapshot.aggregators {
        let Aggregator { id, grp_id, numerator, denominator, endpoint, metric, tags, ds_type, step, .. } = row;
        let _ = writeln!(
            lines,
            "<Id:{id}, GroupId:{grp_id}, Numerator:{numerator}, Denominator:{denominator}, Endpoint:{endpoint}, \
             Metric:{metric}, Tags:{tags}, DsType:{ds_type}, Step:{step}>"
        );
    }
    lines
}
