//! The old graph's HTTP routes that scripts ask, on the admin listener (docs/open-falcon/graph.md §9).
//!
//! `/counter/all` and `/statistics/all` have the original's counters under their names, as far as they mean something
//! here. A rate counts from the previous reading, as there: two readers disturb each other's.

use super::GraphService;
use crate::clock;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// Calls that have a counter of their own in the original, and the counter's name.
const CALLS: [(&str, &str); 4] =
    [("Query", "GraphQueryCnt"), ("Info", "GraphInfoCnt"), ("Last", "GraphLastCnt"), ("LastRaw", "GraphLastRawCnt")];

#[derive(Clone)]
struct GraphContext {
    graph: GraphService,
    previous: Arc<Mutex<Vec<Look>>>,
}

/// A counter when it was last read.
#[derive(Clone, Copy, Default)]
struct Look {
    time: i64,
    count: u64,
    per_s: u64,
}

impl Look {
    fn next(&mut self, now: i64, count: u64) {
        if self.time == 0 {
            *self = Look { time: now, count, per_s: 0 };
        } else if now > self.time + 1 {
            let per_s = count.saturating_sub(self.count) / (now - self.time) as u64;
            *self = Look { time: now, count, per_s };
        }
    }
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
        .route("/counter/all", get(counters))
        .route("/statistics/all", get(statistics))
        .with_state(GraphContext { graph: graph.clone(), previous: Arc::default() })
        .merge(index)
}

/// Answers as the original does, and does nothing: the store's own index is always that of its series.
async fn update_index() -> Json<Value> {
    Json(json!({"msg": "ok"}))
}

async fn counters(State(context): State<GraphContext>) -> Json<Vec<Value>> {
    Json(context.counters())
}

async fn statistics(State(context): State<GraphContext>) -> Json<Value> {
    Json(json!({"msg": "success", "data": context.counters()}))
}

impl GraphContext {
    fn counters(&self) -> Vec<Value> {
        let now = clock::now();
        let time = clock::local_text(now);
        let metrics = &self.graph.metrics;
        let mut counts = vec![("GraphRpcRecvCnt", metrics.items.get()), ("GraphQueryItemCnt", metrics.rows.get())];
        counts.extend(CALLS.map(|(method, name)| (name, metrics.calls(method))));
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        previous.resize(counts.len(), Look::default());
        let mut all: Vec<Value> = counts
            .iter()
            .zip(previous.iter_mut())
            .map(|((name, count), reading)| {
                reading.next(now, *count);
                json!({"Name": name, "Cnt": count, "Qps": reading.per_s, "Time": time, "Other": {}})
            })
            .collect();
        let store = self.graph.engine.store().stats();
        let gauges = [("IndexedItemCacheCnt", store.series), ("EndpointCacheCnt", store.endpoints)];
        all.extend(gauges.map(|(name, count)| json!({"Name": name, "Cnt": count, "Time": time, "Other": {}})));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::Look;

    #[test]
    fn rates_count_from_the_last_reading() {
        let mut reading = Look::default();
        let mut read = |now, count| {
            reading.next(now, count);
            reading.per_s
        };
        assert_eq!(read(100, 50), 0, "nothing is known before it");
        assert_eq!(read(101, 90), 0, "too soon");
        assert_eq!(read(110, 150), 10);
        assert_eq!(read(111, 900), 10);
        assert_eq!(read(120, 100), 0);
    }
}
