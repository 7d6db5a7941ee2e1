//! `hawkeye server`: one process, whose roles decide what it is.
//!
//! Each mode has a page that starts its roles in order and stops them in reverse: `server/whole.rs`, `server/graph.rs`. Here
//! is what they share: the store and its thread, signals, gauges; `server/doors.rs` has the sockets.
//! SIGINT and SIGTERM stop; a second signal ends the process at once; nothing that was answered is lost by that either.
//! Invariants: a role that ends by itself (a panic, a start that failed) stops the process with an error, for a server
//! that takes points and judges or delivers nothing is worse than one that is seen to be down; a fault while stopping does
//! not keep the other roles from their orderly end.

mod doors;
mod graph;
mod whole;

use crate::config::{Config, Fsync, Mode};
use crate::engine::Engine;
use crate::metrics::{Metrics, push_counter, push_gauge, resident_bytes};
use crate::role::agent::AgentConfig;
use crate::{clock, pprof};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use store::Store;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};

/// Locks of the store and as many judges: enough for a few busy cores, few enough to cost no memory.
const SHARDS: usize = 8;

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
    runtime.block_on(async {
        let signals = Signals::new()?;
        match mode {
            Mode::Whole => whole::serve(config, agent, descriptors, signals).await,
            Mode::Graph => graph::serve(config, descriptors, signals).await,
        }
    })
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
fn admin_router(metrics: &Arc<Metrics>) -> axum::Router {
    health_router(metrics).merge(pprof::router())
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
        late_window_s: config.graph.late_window,
        // An eighth of the budget in points that are not in a block yet; the rest is index, tails and buffers.
        flush_bytes: (config.memory_budget / 8) as usize,
        retention_raw_s: config.graph.retention.raw,
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

/// The thread that keeps the store: sync, flush, retention, once a second. It is no async task, for it waits on the disk.
struct StoreKeeper {
    stop: mpsc::Sender<()>,
    /// Its sender lives as long as the thread's work.
    ended: oneshot::Receiver<()>,
    thread: std::thread::JoinHandle<()>,
}

impl StoreKeeper {
    fn start(engine: Arc<Engine>) -> StoreKeeper {
        let (stop, stopped) = mpsc::channel();
        let (working, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("store".to_string())
            .spawn(move || {
                let _working = working;
                let mut failing = false;
                while stopped.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                    engine.tick();
                    match engine.store().tick(clock::now()) {
                        Ok(_) => failing = false,
                        Err(error) if !failing => {
                            tracing::error!(%error, "the store cannot write; it tries again each second");
                            failing = true;
                        }
                        Err(_) => {}
                    }
                }
                engine.tick();
            })
            .expect("the system can start one more thread");
        StoreKeeper { stop, ended, thread }
    }

    /// Returns when the thread has ended without being told to.
    async fn ended(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.ended).await;
    }

    fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the store's thread panicked");
        }
    }
}

fn show_gauges(metrics: &Metrics, engine: &Arc<Engine>) {
    let engine = engine.clone();
    metrics.source(move |page| {
        let store = engine.store().stats();
        push_gauge(page, "resident_bytes", "Resident memory of this process", resident_bytes().unwrap_or(0) as f64);
        push_gauge(page, "series", "Series in the table", store.series as f64);
        push_gauge(page, "endpoints", "Endpoints in the table", store.endpoints as f64);
        push_gauge(page, "store_hot_points", "Points in hot chunks", store.hot_points as f64);
        push_gauge(page, "store_hot_bytes", "Memory of hot chunks", store.hot_bytes as f64);
        push_gauge(page, "store_index_bytes", "Memory of the series table", store.index_bytes as f64);
        push_gauge(page, "store_log_bytes", "Size of the log's segments", store.log_bytes as f64);
        push_gauge(page, "store_block_bytes", "Size of the block files", store.block_bytes as f64);
        push_gauge(page, "store_blocks", "Block files", store.blocks as f64);
        push_counter(page, "points_stored_total", "Points taken into the store", store.points_total);
        push_counter(page, "points_duplicate_total", "Points whose time the series already had", store.duplicates);
        push_counter(page, "points_late_total", "Points merged behind newer ones", store.late);
        push_counter(page, "points_too_old_total", "Points older than the retention, not kept", store.too_old);
        push_counter(page, "points_unknown_total", "Points of series deleted meanwhile, not kept", store.unknown);
        push_gauge(page, "store_unflushed_bytes", "Points that are not in a block yet", store.unflushed_bytes as f64);
        push_counter(page, "store_log_errors_total", "Batches that the log could not take", store.log_errors);
        push_counter(page, "store_flushes_total", "Flushes that wrote blocks", store.flushes);
        push_counter(page, "store_flush_errors_total", "Flushes that failed and are tried again", store.flush_errors);
        push_counter(page, "store_corrupt_reads_total", "Reads that met damage in a block", store.corrupt_reads);
        engine.show(page);
    });
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        Ok(Signals { interrupt, terminate })
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
