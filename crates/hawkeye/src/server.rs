//! `hawkeye server`: one process, whose roles decide what it is.
//!
//! Each mode has a page that starts its roles in order and stops them in reverse: `server/whole.rs`, `server/graph.rs`,
//! `server/judge.rs`. Here
//! is what they share: the store, the index, signals, gauges; `server/doors.rs` has the sockets.
//! SIGINT and SIGTERM stop; a second signal ends the process at once; nothing that was answered is lost by that either.
//! Invariants: a role that ends by itself (a panic, a start that failed) stops the process with an error, for a server
//! that takes points and judges or delivers nothing is worse than one that is seen to be down; a fault while stopping does
//! not keep the other roles from their orderly end.

mod doors;
mod graph;
mod judge;
mod whole;

use crate::config::{Config, Fsync, Mode, Semantics};
use crate::engine::Engine;
use crate::memory::{Memory, Size, resident_bytes};
use crate::metrics::{Metrics, push_counter, push_gauge};
use crate::pressure::Pressure;
use crate::role::agent::AgentConfig;
use crate::role::graph::index::Index;
use crate::{clock, growth, pprof};
use anyhow::{Context, Result, bail};
use events::{EventQueue, Recovery};
use std::path::Path;
use std::sync::Arc;
use store::Store;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// Locks of the store and as many judges: enough for a few busy cores, few enough to cost no memory.
pub const SHARDS: usize = 8;

/// Descriptors that connections leave to files, SQLite and deliveries; were there none, no log segment could begin. A guess:
/// a flush opens a file per day, a query one per block.
const DESCRIPTORS_KEPT: usize = 256;

/// Runs until a signal; with an agent for this host in the same process, if one is given.
pub fn run(config: Config, agent: Option<AgentConfig>) -> Result<()> {
    let mode = config.mode()?;
    if mode != Mode::Whole && agent.is_some() {
        bail!(
            "--with-agent needs transfer and hbs in the same process: leave it out, and run `hawkeye agent` beside it"
        );
    }
    let descriptors = raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("hawkeye")
        .build()
        .context("cannot start the runtime")?;
    let config = Arc::new(config);
    let result = runtime.block_on(async {
        let signals = Signals::new()?;
        match mode {
            Mode::Whole => whole::serve(config, agent, descriptors, signals).await,
            Mode::Graph => graph::serve(config, descriptors, signals).await,
            Mode::Judge => judge::serve(config, descriptors, signals).await,
        }
    });
    // A look-up of a name that no server answers holds its thread for many seconds; nothing waits for it any more.
    runtime.shutdown_background();
    result
}

/// Open-Falcon's index tables, kept if `graph.index_url` says where.
struct IndexTask {
    task: JoinSet<Result<()>>,
    stop: watch::Sender<bool>,
    /// `/index/updateAll` for cron scripts.
    routes: Option<axum::Router>,
}

impl IndexTask {
    fn start(config: &Config, engine: &Arc<Engine>, metrics: &Metrics) -> IndexTask {
        let (stop, stopping) = watch::channel(false);
        let mut task = JoinSet::new();
        let routes = (!config.graph.index_url.is_none()).then(|| {
            let index = Index::register(metrics);
            let routes = index.routes();
            task.spawn(index.run(engine.clone(), config.graph.clone(), config.data_dir.clone(), stopping));
            routes
        });
        IndexTask { task, stop, routes }
    }
}

/// Ends the process at the next signal: whoever asks twice does not want to wait.
fn end_at_once_when_asked_again(mut signals: Signals) {
    tokio::spawn(async move {
        signals.wait().await;
        std::process::exit(130);
    });
}

/// The first fault is what the process ends with; the others are told.
fn first_of(faults: Vec<anyhow::Error>) -> Result<()> {
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

/// What is for those who run the server, whatever its roles.
fn admin_router(metrics: &Arc<Metrics>, memory: Memory) -> axum::Router {
    memory.show();
    let samples = metrics.ledger().account("cpu samples", None);
    health_router(metrics).merge(pprof::router(samples, pprof::THIS_PROGRAM)).merge(memory.router())
}

/// The account of memory, of a server with a store.
fn account(config: &Config, engine: &Arc<Engine>, pressure: &Arc<Pressure>, metrics: &Arc<Metrics>) -> Memory {
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

pub fn open_store(config: &Config) -> Result<Store> {
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
        query_points_max: query_points_max(config),
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

/// An answer is in memory at once: 16 bytes a point, and its text while it is written. Of 256 MiB the default leaves half.
const QUERY_POINT_BYTES: u64 = 128;

fn query_points_max(config: &Config) -> usize {
    let room = (config.memory_budget / QUERY_POINT_BYTES) as usize;
    if config.graph.query_points_max > room {
        tracing::warn!(room, "graph.query_points_max is above what memory_budget has room for, and counts as this");
    }
    config.graph.query_points_max.min(room)
}

fn open_hint(dir: &Path) -> String {
    format!(
        "cannot open the store in {} (is another server using it, and may this user write it? data_dir sets the directory)",
        dir.display()
    )
}

/// To be started when what the data needs is in memory.
fn watch_memory(config: &Config, metrics: &Metrics) -> Arc<Pressure> {
    let pressure = Arc::new(Pressure::new(config.memory_budget, clock::now()));
    let shown = pressure.clone();
    metrics.source(move |page| shown.show(page));
    let told = pressure.clone();
    metrics.ledger().source(move |report| report.line("growth", told.memory_bytes() as u64, None, None));
    pressure
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

/// With the alarms that are open.
fn open_event_queue(config: &Config) -> Result<(Arc<EventQueue>, Recovery)> {
    let fsync = match config.graph.fsync {
        Fsync::Always => events::Fsync::Always,
        Fsync::Second => events::Fsync::EverySecond,
        Fsync::Never => events::Fsync::Never,
    };
    let (queue, recovered) = EventQueue::open(&config.data_dir.join("events"), fsync, clock::now())
        .with_context(|| format!("cannot open the event queue in {}", config.data_dir.display()))?;
    if recovered.torn_bytes_cut > 0 {
        tracing::warn!(bytes = recovered.torn_bytes_cut, "cut off an unfinished write of events");
    }
    for damage in &recovered.damaged {
        tracing::error!(file = %damage.file.display(), bytes = ?damage.bytes, "events are damaged; the rest was read");
    }
    if recovered.unreadable > 0 {
        tracing::error!(count = recovered.unreadable, "events are not understood: written by another version?");
    }
    Ok((Arc::new(queue), recovered))
}

pub fn judge_options(config: &Config) -> ::judge::Options {
    ::judge::Options {
        semantics: match config.judge.semantics {
            Semantics::Hawkeye => ::judge::Semantics::Hawkeye,
            Semantics::OpenFalcon => ::judge::Semantics::OpenFalcon,
        },
        min_interval_s: config.judge.min_interval,
        points_max: config.rule_points_max(),
    }
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
