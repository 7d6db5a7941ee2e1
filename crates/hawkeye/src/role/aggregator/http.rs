//! The old aggregator's HTTP routes that monitors ask (`listen.aggregator_http`, 6055 in the original).
//!
//! Compat: docs/open-falcon/aggregator-nodata-gateway.md §1. `/items` has a line per row as the original writes it,
//! without `LastUpdate`. Not there: `/workdir`; `/config/reload`, which shows the whole configuration in the original,
//! has nothing to reload.

use crate::portal::aggregator::Aggregator;
use crate::rules::InEffect;
use crate::watch::envelope::{NO_PRIVILEGE, is_local};
use axum::extract::{ConnectInfo, State};
use axum::routing::get;
use axum::{Extension, Router};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Routes of the door `aggregator_http`.
pub fn router(in_effect: watch::Receiver<Arc<InEffect>>) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/version", get(|| async { env!("CARGO_PKG_VERSION") }))
        .route("/config/reload", get(reload))
        .route("/items", get(items))
        .with_state(in_effect)
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
