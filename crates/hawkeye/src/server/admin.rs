//! Admin: the routes for those who run the server, the same in every mode: `/health`, `/metrics`, `/memory`, profiles.

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::growth;
use crate::engine::pressure::Pressure;
use crate::watch::memory::{Memory, Size};
use crate::watch::pprof;
use metrics::Metrics;
use std::sync::Arc;

/// Routes of the door `admin`.
pub fn admin_router(metrics: &Arc<Metrics>, memory: Memory) -> axum::Router {
    memory.show();
    let samples = metrics.ledger().account("cpu samples", None);
    health_router(metrics).merge(pprof::router(samples, pprof::THIS_PROGRAM)).merge(memory.router())
}

/// `/health` and `/metrics`, for the doors `api` and `admin`.
pub fn health_router(metrics: &Arc<Metrics>) -> axum::Router {
    let metrics = metrics.clone();
    axum::Router::new().route("/health", axum::routing::get(|| async { "ok\n" })).route(
        "/metrics",
        axum::routing::get(move || async move {
            ([(axum::http::header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.text())
        }),
    )
}

/// Account of the memory of a server that has a store.
pub fn account(config: &Config, engine: &Arc<Engine>, pressure: &Arc<Pressure>, metrics: &Arc<Metrics>) -> Memory {
    let (sized, counted, growing, budget) = (engine.clone(), engine.clone(), pressure.clone(), pressure.clone());
    let size = move || {
        let stats = sized.store().stats();
        Size { series: stats.series as u64, points: stats.hot_points }
    };
    let growth = move || growth::section(&growing.growth_report(), &counted.store().census(growth::REPORTED));
    Memory {
        budget: Some(Arc::new(move || serde_json::json!(budget.report()))),
        growth: Some(Arc::new(growth)),
        ..Memory::new(metrics.clone(), config.memory_budget, size)
    }
}
