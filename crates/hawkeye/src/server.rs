//! `hawkeye server`: starts the roles in order, stops them in reverse.
//!
//! Start: store (it locks the data directory) → portal → event queue → engine with its rules, open alarms and the points of
//! the last minutes judged again → alarm → hbs → transfer → api and admin. Each step that fails ends the start with one line
//! that names the fix.
//! Stop (SIGINT, SIGTERM): this host's agent first, if it runs here; then the doors close and answer what they have begun;
//! then the rules, then alarm, which leaves its undelivered rows for the next start; the log is synced last. A second signal
//! ends the process at once; nothing that was answered is lost by that either.
//! Invariants: a role that ends by itself (a panic, a start that failed) stops the process with an error, for a server
//! that takes points and judges or delivers nothing is worse than one that is seen to be down; a fault while stopping does
//! not keep the other roles from their orderly end.

use crate::config::{Config, Fsync, Semantics};
use crate::engine::Engine;
use crate::ingest::Ingest;
use crate::keeper::Keeper;
use crate::metrics::{Metrics, push_counter, push_gauge, resident_bytes};
use crate::net::budget::Budget;
use crate::net::listen::{ConnectionMetrics, Limits, bind, serve};
use crate::net::rpc::{RpcLimits, RpcMetrics, Service, connection};
use crate::net::{http, listen};
use crate::portal::{Portal, admin};
use crate::role::agent::AgentConfig;
use crate::role::alarm::queue::EventQueue;
use crate::role::hbs::HbsService;
use crate::role::transfer::rpc::TransferService;
use crate::role::{agent, alarm, transfer};
use crate::rules::{RulesTask, Settling, settle};
use crate::{api, clock, ui};
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

/// Points older than this at a restart are not judged again: whoever was to hear of them has heard, or it is too late.
const CATCH_UP_S: i64 = 600;

/// Locks of the store and as many judges: enough for a few busy cores, few enough to cost no memory.
const SHARDS: usize = 8;

/// Descriptors that connections leave to files, SQLite and deliveries; were there none, no log segment could begin. A guess:
/// a flush opens a file per day, a query one per block.
const DESCRIPTORS_KEPT: usize = 256;

/// Runs until a signal; with an agent for this host in the same process, if one is given.
pub fn run(config: Config, agent: Option<AgentConfig>) -> Result<()> {
    let descriptors = raise_descriptor_limit();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("hawkeye")
        .build()
        .context("cannot start the runtime")?
        .block_on(serve_until_signal(Arc::new(config), agent, descriptors))
}

async fn serve_until_signal(config: Arc<Config>, agent: Option<AgentConfig>, descriptors: usize) -> Result<()> {
    let mut signals = Signals::new()?;
    let metrics = Arc::new(Metrics::new());
    let sockets = Sockets::bind(&config).await?;

    let store = open_store(&config)?;
    let portal = Portal::open(&config.data_dir.join("portal.db")).await?;
    let new_password = admin::ensure_root(&portal, &config.data_dir).await?;
    let (queue, recovered) = EventQueue::open(&config.data_dir.join("events"), config.graph.fsync)
        .with_context(|| format!("cannot open the event queue in {}", config.data_dir.display()))?;
    for damage in &recovered.damaged {
        tracing::error!(file = %damage.file.display(), bytes = ?damage.bytes, "part of the event queue is damaged; the rest was read");
    }
    let queue = Arc::new(queue);
    let engine = Arc::new(Engine::new(store, SHARDS, judge_options(&config), queue.clone()));
    let rules = RulesTask::start(portal.clone(), engine.clone()).await?;
    engine.restore(&recovered.open_problems);
    drop(recovered);
    engine.catch_up(clock::now() - CATCH_UP_S);
    show_gauges(&metrics, &engine);

    let in_effect = rules.subscribe();
    let mut keeper = Keeper::start(engine.clone());
    let (stop_rules, rules_stopping) = watch::channel(false);
    let mut rules_task = JoinSet::new();
    rules_task.spawn(async move {
        rules.run(rules_stopping).await;
        Ok(())
    });
    let (stop_alarm, alarm_stopping) = watch::channel(false);
    let mut alarm_task = JoinSet::new();
    alarm_task.spawn(alarm::run(portal.clone(), queue.clone(), config.clone(), metrics.clone(), alarm_stopping));

    let (stop_doors, doors_stopping) = watch::channel(false);
    let doors = Doors::new(&config, &metrics, descriptors, doors_stopping);
    let ingest = Arc::new(Ingest::new(engine.clone(), config.ingest.min_step, config.ingest.future_max, &metrics));
    let hbs = HbsService {
        portal: portal.clone(),
        rules: in_effect.clone(),
        trustable: config.hbs.trustable.join(",").into(),
    };
    let api_context = api::Context::new(portal.clone(), config.clone(), engine.clone());
    let settling = Settling { portal: portal.clone(), in_effect };
    let api_router = api::router(api_context.clone())
        .layer(axum::middleware::from_fn_with_state(settling, settle))
        .merge(ui::router(first_page(&api_context)))
        .merge(health_router(&metrics));
    let mut open_doors = doors.open(sockets, hbs, ingest, api_router, health_router(&metrics));
    announce(&config, new_password.as_deref());
    let (stop_agent, agent_stopping) = watch::channel(false);
    let mut agent_task = JoinSet::new();
    if let Some(agent) = agent {
        agent_task.spawn(agent::run(agent, agent_stopping));
    }

    let ended_early = tokio::select! {
        () = signals.wait() => None,
        _ = open_doors.join_next() => Some(anyhow::anyhow!("a listener ended by itself")),
        Some(ended) = agent_task.join_next() => Some(why("the agent", ended)),
        Some(ended) = rules_task.join_next() => Some(why("the rules task", ended)),
        Some(ended) = alarm_task.join_next() => Some(why("alarm", ended)),
        name = keeper.ended() => Some(anyhow::anyhow!("the store's {name} thread ended by itself")),
    };
    tracing::info!("stopping");
    tokio::spawn(async move {
        signals.wait().await;
        std::process::exit(130);
    });
    let mut faults: Vec<anyhow::Error> = ended_early.into_iter().collect();
    stop_agent.send_replace(true);
    end("the agent", &mut agent_task, &mut faults).await;
    stop_doors.send_replace(true);
    while open_doors.join_next().await.is_some() {}
    stop_rules.send_replace(true);
    end("the rules task", &mut rules_task, &mut faults).await;
    stop_alarm.send_replace(true);
    end("alarm", &mut alarm_task, &mut faults).await;
    keeper.stop();
    faults.extend(engine.store().close(clock::now()).context("cannot sync the log").err());
    portal.close().await;
    let mut faults = faults.into_iter();
    let first = faults.next();
    faults.for_each(|fault| tracing::error!(error = format!("{fault:#}"), "while stopping"));
    first.map_or(Ok(()), Err)
}

/// Why a task that runs until it is told to stop has ended before.
fn why(what: &'static str, ended: Result<Result<()>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("{what} ended by itself"),
        Ok(Err(error)) => error,
        Err(error) => anyhow::Error::new(error).context(what),
    }
}

/// Waits for a task that was told to stop, and notes what went wrong.
async fn end(what: &'static str, task: &mut JoinSet<Result<()>>, faults: &mut Vec<anyhow::Error>) {
    while let Some(ended) = task.join_next().await {
        if !matches!(ended, Ok(Ok(()))) {
            faults.push(why(what, ended));
        }
    }
}

/// All listening sockets, bound before anything is opened: a busy port is the commonest reason for a start to fail.
struct Sockets {
    transfer_rpc: Option<TcpListener>,
    transfer_http: Option<TcpListener>,
    transfer_telnet: Option<TcpListener>,
    hbs_rpc: Option<TcpListener>,
    api: Option<TcpListener>,
    admin: Option<TcpListener>,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Sockets> {
        let listen = &config.listen;
        Ok(Sockets {
            transfer_rpc: bind_unless_empty("transfer_rpc", &listen.transfer_rpc).await?,
            transfer_http: bind_unless_empty("transfer_http", &listen.transfer_http).await?,
            transfer_telnet: bind_unless_empty("transfer_telnet", &listen.transfer_telnet).await?,
            hbs_rpc: bind_unless_empty("hbs_rpc", &listen.hbs_rpc).await?,
            api: bind_unless_empty("api", &listen.api).await?,
            admin: bind_unless_empty("admin", &listen.admin).await?,
        })
    }
}

async fn bind_unless_empty(key: &str, address: &str) -> Result<Option<TcpListener>> {
    if address.is_empty() { Ok(None) } else { bind(key, address).await.map(Some) }
}

/// What every door needs: limits, the shared byte budget, and when to close.
struct Doors {
    senders: Limits,
    users: Limits,
    rpc: RpcLimits,
    stopping: watch::Receiver<bool>,
}

impl Doors {
    fn new(config: &Config, metrics: &Arc<Metrics>, descriptors: usize, stopping: watch::Receiver<bool>) -> Doors {
        // A quarter of the budget for unfinished messages: four of the largest, or four thousand first buffers.
        let budget = Budget::new(config.memory_budget / 4);
        let shown = budget.clone();
        metrics.source(move |page| {
            push_gauge(page, "buffer_bytes", "Bytes of unfinished messages", shown.bytes_used() as f64);
            push_gauge(page, "buffer_max_bytes", "Bound of buffer_bytes", shown.bytes_max() as f64);
        });
        // Senders cannot lock people out: an eighth of the places is theirs.
        let places = descriptors.saturating_sub(DESCRIPTORS_KEPT).clamp(64, Semaphore::MAX_PERMITS);
        let senders = Limits {
            connections_max: config.ingest.connections_max,
            places: Arc::new(Semaphore::new(places - places / 8)),
            allow: config.ingest.allow.clone().into(),
            metrics: ConnectionMetrics::register(metrics),
        };
        let users = Limits { allow: Arc::new([]), places: Arc::new(Semaphore::new(places / 8)), ..senders.clone() };
        let message_max = (config.ingest.message_max as usize).min(budget.message_max());
        if message_max < config.ingest.message_max as usize {
            tracing::warn!(
                message_max,
                "ingest.message_max is above what memory_budget has room for, and counts as this"
            );
        }
        let rpc = RpcLimits {
            message_max,
            message_timeout: Duration::from_secs(config.ingest.message_timeout as u64),
            budget,
            metrics: RpcMetrics::register(metrics),
        };
        Doors { senders, users, rpc, stopping }
    }

    fn open(
        &self,
        sockets: Sockets,
        hbs: HbsService,
        ingest: Arc<Ingest>,
        api: axum::Router,
        admin: axum::Router,
    ) -> JoinSet<()> {
        let mut open = JoinSet::new();
        if let Some(socket) = sockets.hbs_rpc {
            self.open_rpc(&mut open, "hbs_rpc", socket, hbs);
        }
        if let Some(socket) = sockets.transfer_rpc {
            self.open_rpc(&mut open, "transfer_rpc", socket, TransferService { ingest: ingest.clone() });
        }
        if let Some(socket) = sockets.transfer_http {
            let context = transfer::http::PushContext {
                ingest: ingest.clone(),
                budget: self.rpc.budget.clone(),
                message_max: self.rpc.message_max,
                message_timeout: self.rpc.message_timeout,
            };
            self.open_http(&mut open, "transfer_http", socket, &self.senders, transfer::http::router(context));
        }
        if let Some(socket) = sockets.transfer_telnet {
            let (metrics, stopping) = (self.rpc.metrics.clone(), self.stopping.clone());
            open.spawn(serve("transfer_telnet", socket, self.senders.clone(), self.stopping.clone(), {
                move |stream, peer| {
                    transfer::telnet::connection(stream, peer, ingest.clone(), metrics.clone(), stopping.clone())
                }
            }));
        }
        if let Some(socket) = sockets.api {
            self.open_http(&mut open, "api", socket, &self.users, api);
        }
        if let Some(socket) = sockets.admin {
            self.open_http(&mut open, "admin", socket, &self.users, admin);
        }
        open
    }

    fn open_rpc<S: Service>(&self, open: &mut JoinSet<()>, name: &'static str, socket: TcpListener, service: S) {
        let (limits, stopping) = (self.rpc.clone(), self.stopping.clone());
        open.spawn(listen::serve(name, socket, self.senders.clone(), self.stopping.clone(), move |stream, peer| {
            connection(name, stream, peer, service.clone(), limits.clone(), stopping.clone())
        }));
    }

    fn open_http(
        &self,
        open: &mut JoinSet<()>,
        name: &'static str,
        socket: TcpListener,
        limits: &Limits,
        router: axum::Router,
    ) {
        open.spawn(http::serve_router(name, socket, limits.clone(), self.stopping.clone(), router));
    }
}

/// The first page: its data from the engine, its users from the API's sessions.
fn first_page(context: &api::Context) -> ui::Ui {
    let api = context.clone();
    ui::Ui {
        data: context.engine.clone(),
        portal: context.portal.clone(),
        viewer: context.config.api.viewer,
        user_of: Arc::new(move |headers| {
            let api = api.clone();
            Box::pin(async move { api::auth::Caller::of(&headers, &api).await.ok().map(|caller| caller.name) })
        }),
    }
}

/// `/health` and `/metrics`, the same on api and admin.
fn health_router(metrics: &Arc<Metrics>) -> axum::Router {
    let metrics = metrics.clone();
    axum::Router::new().route("/health", axum::routing::get(|| async { "ok\n" })).route(
        "/metrics",
        axum::routing::get(move || async move {
            ([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.text())
        }),
    )
}

fn open_store(config: &Config) -> Result<Store> {
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir).with_context(|| {
        format!("cannot create the data directory {} (set data_dir to one that this user may write)", dir.display())
    })?;
    let options = store::Options {
        dir: dir.join("store"),
        shard_count: SHARDS,
        hot_window_s: config.graph.hot_window,
        silent_s: config.graph.silent_after,
        late_window_s: config.graph.late_window,
        // An eighth of the budget in points that are not in a block yet; the rest is index, tails and buffers.
        flush_bytes: (config.memory_budget / 8) as usize,
        retention_raw_s: config.graph.retention.raw,
        retention_5m_s: config.graph.retention.five_minutes,
        retention_1h_s: config.graph.retention.hour,
        fsync: match config.graph.fsync {
            Fsync::Always => store::Fsync::Always,
            Fsync::Second => store::Fsync::EverySecond,
            Fsync::Never => store::Fsync::Never,
        },
        series_max: config.ingest.series_max,
        query_points_max: config.graph.query_points_max,
        ..store::Options::default()
    };
    let (store, recovery) = Store::open(options, clock::now()).with_context(|| open_hint(dir))?;
    for damage in &recovery.corrupt {
        tracing::error!(damage, "part of the store is damaged; the rest was read");
    }
    tracing::info!(
        series = recovery.series,
        points = recovery.points_replayed,
        torn_bytes = recovery.torn_bytes_cut,
        "store open"
    );
    Ok(store)
}

fn open_hint(dir: &Path) -> String {
    format!(
        "cannot open the store in {} (is another server using it, and may this user write it? data_dir sets the directory)",
        dir.display()
    )
}

fn judge_options(config: &Config) -> judge::Options {
    judge::Options {
        semantics: match config.judge.semantics {
            Semantics::Hawkeye => judge::Semantics::Hawkeye,
            Semantics::OpenFalcon => judge::Semantics::OpenFalcon,
        },
        min_interval_s: config.judge.min_interval,
        points_max: config.rule_points_max(),
    }
}

fn show_gauges(metrics: &Metrics, engine: &Arc<Engine>) {
    let engine = engine.clone();
    metrics.source(move |page| {
        let store = engine.store().stats();
        push_gauge(page, "resident_bytes", "Resident memory of this process", resident_bytes().unwrap_or(0) as f64);
        push_gauge(page, "series", "Series in memory", store.series as f64);
        push_gauge(page, "series_asleep", "Names in cold runs, of silent series", store.series_asleep as f64);
        push_gauge(page, "endpoints", "Endpoints with a series in memory", store.endpoints as f64);
        push_gauge(page, "store_cold_runs", "Files with names of silent series", store.cold_runs as f64);
        push_gauge(page, "store_cold_bytes", "Size of those files", store.cold_bytes as f64);
        push_gauge(page, "store_hot_points", "Points in hot chunks", store.hot_points as f64);
        push_gauge(page, "store_hot_bytes", "Memory of hot chunks", store.hot_bytes as f64);
        push_gauge(page, "store_index_bytes", "Memory of the series table", store.index_bytes as f64);
        push_gauge(page, "store_log_bytes", "Size of the log's segments", store.log_bytes as f64);
        push_gauge(page, "store_block_bytes", "Size of the block files", store.block_bytes as f64);
        push_gauge(page, "store_blocks", "Block files", store.blocks as f64);
        let kinds = [("raw", store.raw), ("5m", store.rollups_5m), ("1h", store.rollups_1h)];
        for (kind, stats) in kinds {
            let (help, points) = ("Blocks of this kind", stats.points as f64);
            push_gauge(page, &format!("store_{kind}_blocks"), help, stats.blocks as f64);
            push_gauge(page, &format!("store_{kind}_bytes"), "Size of them", stats.bytes as f64);
            push_gauge(page, &format!("store_{kind}_points"), "Points, or buckets of roll-ups, in them", points);
        }
        push_counter(page, "store_merges_total", "Merges of blocks that ended", store.merges);
        push_counter(page, "store_merge_errors_total", "Merges that failed and are tried again", store.merge_errors);
        push_counter(page, "store_merge_bytes_total", "Bytes that merges read and wrote", store.merge_bytes);
        push_counter(page, "store_rollup_bytes_total", "Bytes of roll-ups written", store.rollup_bytes);
        push_counter(page, "points_stored_total", "Points taken into the store", store.points_total);
        push_counter(page, "points_duplicate_total", "Points whose time the series already had", store.duplicates);
        push_counter(page, "points_late_total", "Points merged behind newer ones", store.late);
        push_counter(page, "points_too_old_total", "Points older than the retention, not kept", store.too_old);
        push_counter(page, "points_unknown_total", "Points of series deleted meanwhile, not kept", store.unknown);
        push_gauge(page, "store_unflushed_bytes", "Points that are not in a block yet", store.unflushed_bytes as f64);
        push_counter(page, "store_log_errors_total", "Batches that the log could not take", store.log_errors);
        push_counter(page, "store_log_syncs_total", "Times the log was forced to the disk", store.log_syncs);
        push_counter(page, "points_unjudged_total", "Points refused unjudged: disk and memory full", store.unjudged);
        push_counter(page, "store_flushes_total", "Flushes that wrote blocks", store.flushes);
        push_counter(page, "store_flush_errors_total", "Flushes that failed and are tried again", store.flush_errors);
        push_counter(page, "store_corrupt_reads_total", "Reads that met damage in a block", store.corrupt_reads);
        engine.show(page);
    });
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
    println!("hawkeye: agents report to {} (points) and {} (hbs)", config.listen.transfer_rpc, config.listen.hbs_rpc);
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// Handled, so that a limit on the size of files is an error of the write and not the end of the process.
    _file_too_large: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let file_too_large = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        let _file_too_large = signal(file_too_large).context("cannot handle SIGXFSZ")?;
        Ok(Signals { interrupt, terminate, _file_too_large })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Each connection is a descriptor; the usual soft limit of 1024 is far below `connections_max`. Answers the limit.
fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
