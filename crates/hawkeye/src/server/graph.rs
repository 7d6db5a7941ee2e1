//! The graph alone: a store behind an old transfer, in front of an old api.
//!
//! Start: store (it locks the data directory) → the index, if there is one → the gob door and admin. No portal, no judging, no
//! event: the engine has no rules. Stop: the doors close and answer what they have begun; then the index; the log is synced
//! last.

use super::doors::{Doors, Sockets};
use super::{
    IndexTask, SHARDS, Signals, account, admin_router, end, end_at_once_when_asked_again, first_of, open_store,
    show_gauges, watch_memory, why,
};
use crate::clock;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::ingest::Ingest;
use crate::engine::keeper::Keeper;
use crate::role::graph::{self, GraphMetrics, GraphService};
use crate::watch::memory;
use anyhow::{Context, Result};
use metrics::Metrics;
use std::sync::Arc;
use tokio::sync::watch;

pub async fn serve(config: Arc<Config>, descriptors: usize, mut signals: Signals) -> Result<()> {
    let metrics = Arc::new(Metrics::new());
    memory::register_start(metrics.ledger());
    let sockets = Sockets::graph(&config.listen).await?;
    let engine = Arc::new(Engine::new(open_store(&config)?, SHARDS, judge::Options::default(), None));
    show_gauges(&metrics, &engine);
    let pressure = watch_memory(&config, &metrics);
    engine.register_memory(metrics.ledger());
    let mut keeper = Keeper::start(engine.clone(), pressure.clone());
    let mut index = IndexTask::start(&config, &engine, &metrics);

    let (stop_doors, doors_stopping) = watch::channel(false);
    let mut doors = Doors::new(&config, &metrics, descriptors, doors_stopping);
    let Config { ingest: limits, .. } = &*config;
    let ingest = Ingest::new(engine.clone(), pressure.clone(), limits.min_step, limits.future_max, &metrics);
    let ingest = Arc::new(ingest);
    let graph = GraphService::new(engine.clone(), ingest, GraphMetrics::register(&metrics));
    let admin = admin_router(&metrics, account(&config, &engine, &pressure, &metrics))
        .merge(graph::http::router(&graph, index.routes.take()));
    doors.open_gob("graph_rpc", sockets.graph_rpc, graph);
    doors.open_pages("admin", sockets.admin, admin);
    memory::forget_unused_code();
    println!("hawkeye: the graph takes points and queries at {} (Go gob)", config.listen.graph_rpc);

    let ended_early = tokio::select! {
        () = signals.wait() => None,
        () = doors.ended() => Some(anyhow::anyhow!("a listener ended by itself")),
        Some(ended) = index.task.join_next() => Some(why("the index", ended)),
        name = keeper.ended() => Some(anyhow::anyhow!("the store's {name} thread ended by itself")),
    };
    tracing::info!("stopping");
    end_at_once_when_asked_again(signals);
    let mut faults: Vec<anyhow::Error> = ended_early.into_iter().collect();
    stop_doors.send_replace(true);
    doors.closed().await;
    index.stop.send_replace(true);
    end("the index", &mut index.task, &mut faults).await;
    keeper.stop();
    faults.extend(engine.store().close(clock::now()).context("cannot sync the log").err());
    first_of(faults)
}
