//! The graph alone: a store behind an old transfer, in front of an old api.
//!
//! Start: store (it locks the data directory) → the index, if there is one → the gob door and admin. No portal, no
//! judging, no event: the engine has no rules. Stop: the doors close and answer what they have begun; then the index;
//! the log is synced last.

use super::admin::{account, admin_router};
use super::doors::{Doors, Sockets};
use super::gauges::{show_gauges, watch_memory};
use super::store::{SHARDS, keep_index, keep_store, open_aged_store, wait_for_queries};
use super::{tls, token, until_stopped};
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::ingest::Ingest;
use crate::role::graph::{self, GraphMetrics, GraphService};
use crate::watch::health::Health;
use crate::watch::log::say;
use crate::watch::memory;
use anyhow::Result;
use metrics::Metrics;
use net::gate::Issued;
use std::sync::Arc;
use supervisor::Supervisor;
use supervisor::signals::Starting;

/// Runs the graph until a signal.
pub async fn serve(config: Arc<Config>, descriptors: usize, starting: Starting) -> Result<()> {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::of_process());
    memory::register_start(metrics.ledger());
    let tls = config.tls.open()?;
    let secret = config.ingest.secret()?;
    let sockets = Sockets::graph(&config.listen).await?;
    let (store, age) = open_aged_store(&config, &health)?;
    let engine = Arc::new(Engine::new(store, SHARDS, judge::Options::default(), None));
    show_gauges(&metrics, &engine);
    let pressure = watch_memory(&config, &metrics, &health);
    engine.register_memory(metrics.ledger());

    let mut parts = Supervisor::default();
    keep_store(&mut parts, &config.data_dir, &engine, age, &pressure, &health);
    let index_routes = keep_index(&mut parts, &config, &engine, &metrics, &health);
    wait_for_queries(&mut parts, &engine);

    // From here on something may be accepted, so a signal asks for an orderly end.
    let signals = starting.over().await;
    let mut doors = Doors::new(&config, &metrics, descriptors);
    doors.secure(tls.clone(), &config.tls.listeners);
    doors.ask_for(secret.as_ref(), &Issued::default());
    let Config { ingest: limits, .. } = &*config;
    let ingest =
        Ingest::new(engine.clone(), pressure.clone(), limits.min_step, limits.future_max, &metrics).told_to(&health);
    let ingest = Arc::new(ingest);
    let graph = GraphService::new(engine.clone(), ingest, GraphMetrics::register(&metrics));
    let memory = account(&config, &engine, &pressure, &metrics);
    let admin = admin_router(&config, sockets.bound(), &metrics, &health, memory)
        .merge(graph::http::router(&graph, index_routes));
    doors.open_gob("graph_rpc", sockets.graph_rpc, graph);
    doors.open_admin("admin", sockets.admin, admin);
    tls::keep(&mut parts, &tls, &metrics, &health);
    token::keep(&mut parts, &config.ingest, secret.as_ref(), &doors.gate, &health);
    parts.start("the doors", |stop| doors.run(stop));
    memory::forget_unused_code();
    say(format_args!("hawkeye: the graph takes points and queries at {} (Go gob)", config.listen.graph_rpc));
    until_stopped(signals, parts).await
}
