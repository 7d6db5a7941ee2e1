//! The old graph's HTTP routes that scripts ask, on the admin listener (docs/open-falcon/graph.md §9).
//!
//! `/counter/all` and `/statistics/all` have the original's counters under their names, as far as they mean something
//! here. Nothing migrates, so the counters of that are 0; nothing waits in slots, so the queue has one, with the series
//! in memory. `/api/v2/config/reload` answers as the original does, and does nothing.

use super::GraphService;
use crate::clock;
use crate::watch::counters::{Counters, Figure};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;

/// Calls that have a counter of their own in the original, and the counter's name.
const CALLS: [(&str, &str); 4] =
    [("Query", "GraphQueryCnt"), ("Info", "GraphInfoCnt"), ("Last", "GraphLastCnt"), ("LastRaw", "GraphLastRawCnt")];

/// Counters of moving RRD files from node to node.
const MIGRATION: [&str; 9] = [
    "FetchSuccess",
    "FetchErr",
    "FetchNotExist",
    "SendSuccess",
    "SendErr",
    "QuerySuccess",
    "QueryErr",
    "ConnErr",
    "ConnDial",
];

#[derive(Clone)]
struct GraphContext {
    graph: GraphService,
    counters: Arc<Counters>,
}

/// `index` has the routes of the MySQL index, if one is kept.
pub fn router(graph: &GraphService, index: Option<Router>) -> Router {
    let none = || {
        let concurrent = get(|| async { Json(json!({"msg": "ok", "value": 0})) });
        Router::new().route("/index/updateAll", get(update_index)).route("/index/updateAll/concurrent", concurrent)
    };
    let index = index.unwrap_or_else(none);
    Router::new()
        .route("/api/v2/health", get(|| async { Json(json!({"msg": "ok"})) }))
        .route("/api/v2/version", get(|| async { Json(json!({"value": env!("CARGO_PKG_VERSION")})) }))
        .route("/api/v2/config/reload", post(|| async { Json(json!({"msg": "ok"})) }))
        .route("/api/v2/stats/graph-queue-size", get(queue_size))
        .route("/api/v2/counter/migrate", get(migrated))
        .route("/counter/migrate", get(migrated))
        .route("/counter/all", get(counters))
        .route("/statistics/all", get(statistics))
        .with_state(GraphContext { graph: graph.clone(), counters: Arc::default() })
        .merge(index)
}

/// Answers as the original does, and does nothing: the store's own index is always that of its series.
async fn update_index() -> Json<Value> {
    Json(json!({"msg": "ok"}))
}

async fn queue_size(State(context): State<GraphContext>) -> Json<Value> {
    Json(json!({ "0": context.graph.engine.store().stats().series }))
}

async fn migrated() -> Json<Value> {
    Json(Value::Object(MIGRATION.map(|name| (name.to_string(), json!(0))).into_iter().collect()))
}

async fn counters(State(context): State<GraphContext>) -> Json<Vec<Value>> {
    Json(context.counters())
}

async fn statistics(State(context): State<GraphContext>) -> Json<Value> {
    Json(json!({"msg": "success", "data": context.counters()}))
}

impl GraphContext {
    fn counters(&self) -> Vec<Value> {
        let metrics = &self.graph.metrics;
        let mut figures = vec![
            Figure::Count("GraphRpcRecvCnt", metrics.items.get()),
            Figure::Count("GraphQueryItemCnt", metrics.rows.get()),
        ];
        figures.extend(CALLS.map(|(method, name)| Figure::Count(name, metrics.calls(method))));
        let store = self.graph.engine.store().stats();
        let gauges = [("IndexedItemCacheCnt", store.series), ("EndpointCacheCnt", store.endpoints)];
        figures.extend(gauges.map(|(name, count)| Figure::Gauge(name, count as u64)));
        self.counters.read(&figures, clock::now())
    }
}
