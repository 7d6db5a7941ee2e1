//! Admin: the routes for those who run the server, the same in every mode: `/health`, `/metrics`, `/memory`, profiles.
//!
//! Compat: `/health` is 200 with the body `ok`, as every component of Open-Falcon answers, while all works; else 503
//! with a line per reason. `/health?json` has the same as JSON, with times. `/status` is what `hawkeye status` prints.
//! Bounds: all of these answer without a login, so none may be made anew for each of many requests. Pages are shared
//! by those who ask at one time ([`Shared`]); of profiles, and of names for them, one is made at a time.

use super::doors::Bound;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::growth;
use crate::engine::pressure::Pressure;
use crate::watch::health::{Health, Reason};
use crate::watch::memory::{Memory, Size};
use crate::watch::pprof;
use axum::Json;
use axum::body::Bytes;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use metrics::{Metrics, Shared};
use std::sync::Arc;
use std::time::Instant;

/// Routes of the door `admin`.
pub fn admin_router(
    config: &Config,
    bound: Bound,
    metrics: &Arc<Metrics>,
    health: &Health,
    memory: Memory,
) -> axum::Router {
    memory.show();
    let samples = metrics.ledger().account("cpu samples", None);
    health_router(metrics, health)
        .merge(status_router(config, bound, health))
        .merge(pprof::router(samples, pprof::THIS_PROGRAM))
        .merge(memory.router())
}

/// `/health` and `/metrics`, for the doors `api` and `admin`.
pub fn health_router(metrics: &Arc<Metrics>, health: &Health) -> axum::Router {
    let (metrics, health) = (metrics.clone(), health.clone());
    let reasons: Arc<Shared<Arc<[Reason]>>> = Arc::default();
    let answer = move |RawQuery(query): RawQuery| async move {
        health_answer(&reasons.get(Instant::now, || health.reasons().into()), query.as_deref())
    };
    axum::Router::new().route("/health", axum::routing::get(answer)).route(
        "/metrics",
        axum::routing::get(move || async move {
            ([(axum::http::header::CONTENT_TYPE, metrics::CONTENT_TYPE)], Bytes::from_owner(metrics.page()))
        }),
    )
}

/// `/status`: what this process is, and whether all of it works.
fn status_router(config: &Config, bound: Bound, health: &Health) -> axum::Router {
    let roles: Vec<&str> = config.roles.iter().map(|role| role.name()).collect();
    let (health, start) = (health.clone(), Instant::now());
    let reasons: Arc<Shared<Arc<[Reason]>>> = Arc::default();
    let answer = move || async move {
        let reasons = reasons.get(Instant::now, || health.reasons().into());
        let listeners: serde_json::Map<String, serde_json::Value> =
            bound.all().into_iter().map(|(name, address)| (name.to_string(), address.to_string().into())).collect();
        Json(serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(), "uptime_s": start.elapsed().as_secs(),
            "roles": roles, "listeners": listeners, "health": health_json(&reasons),
        }))
    };
    axum::Router::new().route("/status", axum::routing::get(answer))
}

fn health_json(reasons: &[Reason]) -> serde_json::Value {
    let word = if reasons.is_empty() { "ok" } else { "failing" };
    serde_json::json!({ "status": word, "reasons": reasons })
}

fn health_answer(reasons: &[Reason], query: Option<&str>) -> Response {
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.is_some_and(|query| query.split('&').any(|part| part == "json" || part.starts_with("json="))) {
        return (status, Json(health_json(reasons))).into_response();
    }
    let text = match reasons {
        [] => "ok\n".to_string(),
        reasons => reasons.iter().map(|reason| reason.line() + "\n").collect(),
    };
    (status, text).into_response()
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
