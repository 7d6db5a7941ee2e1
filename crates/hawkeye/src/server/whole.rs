//! All six roles in one process.
//!
//! Start: store (it locks the data directory) → portal → event queue → engine with its rules, open alarms and the points of
//! the last minutes judged again → alarm → events to Redis → index → hbs → transfer and graph → api and admin. Each step that
//! fails ends the start with one line that names the fix.
//! Stop: this host's agent first, if it runs here; then the doors close and answer what they have begun; then the index, the rules, what is
//! left for Redis (two seconds at most), then alarm, which leaves its undelivered rows for the next start; the log is synced last.

use super::doors::{Doors, Sockets};
use super::{IndexTask, SHARDS, Signals, admin_router, end, end_at_once_when_asked_again, first_of, health_router};
use super::{account, judge_options, open_event_queue, open_store, show_gauges, watch_memory, why};
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::ingest::Ingest;
use crate::engine::keeper::Keeper;
use crate::portal::{Portal, admin};
use crate::role::graph::{GraphMetrics, GraphService};
use crate::role::hbs::HbsService;
use crate::role::judge::JudgeService;
use crate::role::redis;
use crate::role::transfer::rpc::TransferService;
use crate::role::{alarm, graph, transfer};
use crate::rules::{RulesTask, Settling, settle};
use crate::watch::memory;
use crate::{api, clock, page};
use agent::AgentConfig;
use anyhow::{Context, Result};
use metrics::Metrics;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Points older than this at a restart are not judged again: whoever was to hear of them has heard, or it is too late.
const CATCH_UP_S: i64 = 600;

pub async fn serve(
    config: Arc<Config>,
    agent: Option<AgentConfig>,
    descriptors: usize,
    mut signals: Signals,
) -> Result<()> {
    let metrics = Arc::new(Metrics::new());
    memory::register_start(metrics.ledger());
    memory::register_made(metrics.ledger(), "time zones", || _ = jiff::tz::db());
    let sockets = Sockets::whole(&config.listen).await?;

    let store = open_store(&config)?;
    let portal = Portal::open(&config.data_dir.join("portal.db")).await?;
    let new_password = admin::ensure_root(&portal, &config.data_dir).await?;
    let (queue, recovered) = open_event_queue(&config)?;
    queue.expect(alarm::READER);
    let (stop_redis, redis_stopping) = watch::channel(false);
    let redis = if config.judge.redis_url.is_none() {
        redis::off(&config.data_dir)?;
        None
    } else {
        let (url, data_dir) = (config.judge.redis_url.clone(), config.data_dir.clone());
        Some(redis::run(queue.clone(), url, data_dir, metrics.clone(), redis_stopping))
    };
    let engine = Arc::new(Engine::new(store, SHARDS, judge_options(&config), Some(queue.clone())));
    let rules = RulesTask::start(portal.clone(), engine.clone()).await?;
    engine.register_memory(metrics.ledger());
    queue.register_memory(metrics.ledger());
    rules.register_memory(metrics.ledger());
    Portal::register_memory(metrics.ledger());
    engine.restore(&recovered.open_problems);
    drop(recovered);
    engine.catch_up(clock::now() - CATCH_UP_S);
    show_gauges(&metrics, &engine);

    let in_effect = rules.subscribe();
    let pressure = watch_memory(&config, &metrics);
    let mut keeper = Keeper::start(engine.clone(), pressure.clone());
    let (stop_rules, rules_stopping) = watch::channel(false);
    let mut rules_task = JoinSet::new();
    rules_task.spawn(async move {
        rules.run(rules_stopping).await;
        Ok(())
    });
    let (stop_alarm, alarm_stopping) = watch::channel(false);
    let mut alarm_task = JoinSet::new();
    alarm_task.spawn(alarm::run(portal.clone(), queue.clone(), config.clone(), metrics.clone(), alarm_stopping));
    let mut redis_task: JoinSet<_> = redis.into_iter().collect();
    let mut index = IndexTask::start(&config, &engine, &metrics);

    let (stop_doors, doors_stopping) = watch::channel(false);
    let mut doors = Doors::new(&config, &metrics, descriptors, doors_stopping);
    let Config { ingest: limits, .. } = &*config;
    let ingest = Ingest::new(engine.clone(), pressure.clone(), limits.min_step, limits.future_max, &metrics);
    let ingest = Arc::new(ingest);
    let hbs = HbsService {
        portal: portal.clone(),
        rules: in_effect.clone(),
        trustable: config.hbs.trustable.join(",").into(),
    };
    let api_context = api::Context::new(portal.clone(), config.clone(), engine.clone());
    api_context.attempts.register_memory(metrics.ledger());
    let settling = Settling { portal: portal.clone(), in_effect };
    let api_router = memory::register_made(metrics.ledger(), "routes", || {
        api::router(api_context.clone())
            .layer(axum::middleware::from_fn_with_state(settling, settle))
            .merge(page::router(engine.clone(), portal.clone(), config.api.clone()))
            .merge(health_router(&metrics))
    });
    let graph = GraphService::new(engine.clone(), ingest.clone(), GraphMetrics::register(&metrics));
    let judged = JudgeService::into_store(ingest.clone());
    let admin = admin_router(&metrics, account(&config, &engine, &pressure, &metrics))
        .merge(graph::http::router(&graph, index.routes.take()));
    doors.open_rpc("hbs_rpc", sockets.hbs_rpc, hbs);
    doors.open_rpc("transfer_rpc", sockets.transfer_rpc, TransferService { ingest: ingest.clone() });
    let push = transfer::http::PushContext {
        ingest: ingest.clone(),
        budget: doors.rpc.budget.clone(),
        message_max: doors.rpc.message_max,
        message_timeout: doors.rpc.message_timeout,
    };
    doors.open_push("transfer_http", sockets.transfer_http, transfer::http::router(push));
    doors.open_tcp("transfer_telnet", sockets.transfer_telnet, {
        let (faults, stopping) = (doors.rpc.metrics.clone(), doors.stopping.clone());
        let telnet = metrics.ledger().account("telnet", None);
        move |stream, peer| {
            let (faults, telnet) = (faults.clone(), telnet.clone());
            transfer::telnet::connection(stream, peer, ingest.clone(), faults, telnet, stopping.clone())
        }
    });
    doors.open_gob("graph_rpc", sockets.graph_rpc, graph);
    doors.open_gob("judge_rpc", sockets.judge_rpc, judged);
    doors.open_pages("api", sockets.api, api_router);
    doors.open_pages("admin", sockets.admin, admin);
    memory::forget_unused_code();
    announce(&config, new_password.as_deref());
    let (stop_agent, agent_stopping) = watch::channel(false);
    let mut agent_task = JoinSet::new();
    if let Some(agent) = agent {
        agent_task.spawn(agent::run(agent, agent_stopping));
    }

    let ended_early = tokio::select! {
        () = signals.wait() => None,
        () = doors.ended() => Some(anyhow::anyhow!("a listener ended by itself")),
        Some(ended) = agent_task.join_next() => Some(why("the agent", ended)),
        Some(ended) = rules_task.join_next() => Some(why("the rules task", ended)),
        Some(ended) = alarm_task.join_next() => Some(why("alarm", ended)),
        Some(ended) = redis_task.join_next() => Some(why("pushing to Redis", ended)),
        Some(ended) = index.task.join_next() => Some(why("the index", ended)),
        name = keeper.ended() => Some(anyhow::anyhow!("the store's {name} thread ended by itself")),
    };
    tracing::info!("stopping");
    end_at_once_when_asked_again(signals);
    let mut faults: Vec<anyhow::Error> = ended_early.into_iter().collect();
    stop_agent.send_replace(true);
    end("the agent", &mut agent_task, &mut faults).await;
    stop_doors.send_replace(true);
    doors.closed().await;
    index.stop.send_replace(true);
    end("the index", &mut index.task, &mut faults).await;
    stop_rules.send_replace(true);
    end("the rules task", &mut rules_task, &mut faults).await;
    stop_redis.send_replace(true);
    end("pushing to Redis", &mut redis_task, &mut faults).await;
    stop_alarm.send_replace(true);
    end("alarm", &mut alarm_task, &mut faults).await;
    keeper.stop();
    faults.extend(engine.store().close(clock::now()).context("cannot sync the log").err());
    portal.close().await;
    first_of(faults)
}

/// Says where to look. The password is shown this once; the file keeps it.
fn announce(config: &Config, new_password: Option<&str>) {
    if let Some(password) = new_password {
        println!(
            "hawkeye: first start: log in as root with the password {password} (kept in {})",
            config.data_dir.join("admin-password").display()
        );
    }
    if !config.listen.api.is_empty() {
        println!("hawkeye: the page is at http://{}/", config.listen.api);
    }
    if !config.listen.graph_rpc.is_empty() {
        println!("hawkeye: an old transfer and api reach the graph at {}", config.listen.graph_rpc);
    }
    if !config.listen.judge_rpc.is_empty() {
        println!("hawkeye: an old transfer reaches the judge at {}", config.listen.judge_rpc);
    }
    let or_off = |address: &str| if address.is_empty() { "nowhere".to_string() } else { address.to_string() };
    let (points, hbs) = (or_off(&config.listen.transfer_rpc), or_off(&config.listen.hbs_rpc));
    println!("hawkeye: agents report to {points} (points) and {hbs} (hbs)");
}
