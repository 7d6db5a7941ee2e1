//! Store: opens it, keeps it with its threads and Open-Falcon's index tables, and closes it.

use super::data_dir;
use super::losses::{self, Losses};
use crate::clock;
use crate::config::{Config, Fsync};
use crate::engine::Engine;
use crate::engine::age::Age;
use crate::engine::keeper::Keeper;
use crate::engine::pressure::Pressure;
use crate::portal;
use crate::role::graph::index::Index;
use crate::watch::health::{Health, Reason};
use anyhow::{Context, Result, bail};
use metrics::Metrics;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use store::Store;
use supervisor::Supervisor;

/// Locks of the store and as many judges: enough for a few busy cores, few enough to cost no memory.
pub const SHARDS: usize = 8;

/// An error where the points that should be in `data` are gone: a portal or events that are not new stand beside a
/// store that has no file. Begun anew, it would close alarms of series that it does not know.
pub fn refuse_lost_store(data: &Path) -> Result<()> {
    let dir = data.join("store");
    let has_files = match std::fs::read_dir(&dir) {
        Ok(mut entries) => entries.next().is_some(),
        // What cannot be read is said by whoever opens it.
        Err(error) => error.kind() != ErrorKind::NotFound,
    };
    // The half of a restore is told by whoever opens the directory.
    let is_half = data.join(data_dir::RESTORING).exists();
    if has_files || is_half || !portal::is_expected(data) {
        return Ok(());
    }
    bail!(
        "{} is missing or empty, though users, rules or events were stored beside it: mount it or restore a backup, or \
         start once with --new-store to begin an empty one (all history is then gone, and open alarms are closed)",
        dir.display()
    )
}

/// Opens the store, locks the data directory, and reads what is known of the time there.
pub fn open_aged_store(config: &Config, health: &Health) -> Result<(Store, Arc<Age>)> {
    let dir = &config.data_dir;
    data_dir::prepare(dir)?;
    let age = Age::open(dir, !dir.join("store").exists(), health);
    let store = open_store(config, age.believed().now())?;
    store.believe(age.believed().now());
    Ok((store, Arc::new(age)))
}

/// Opens the store and locks it, at the time that is believed. Damage is logged, and what is whole is read.
pub fn open_store(config: &Config, now: i64) -> Result<Store> {
    let dir = &config.data_dir;
    let options = store::Options {
        dir: dir.join("store"),
        shard_count: SHARDS,
        hot_window_s: config.graph.hot_window,
        silent_s: config.graph.silent_after,
        late_window_s: config.graph.late_window,
        // An eighth of the budget in points that are not in a block yet; the rest is index, tails and buffers.
        flush_bytes: (config.memory_budget / 8) as usize,
        future_max_s: config.ingest.future_max,
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
    let (store, recovery) = Store::open(options, now).map_err(|error| not_opened(dir, error))?;
    for damage in &recovery.corrupt {
        tracing::error!(damage, "part of the store is damaged; the rest was read");
    }
    // Nobody can say which: what a power cut tore was not synced, and is no fault.
    for segment in &recovery.cut_short {
        tracing::warn!(segment, "a segment of the log ends before later ones: a power cut, or somebody cut the file");
    }
    for file in &recovery.missing {
        tracing::error!(file, "a file of the store is missing; restore it from a backup, or its points stay lost");
    }
    losses::note(dir, &recovery, clock::now());
    if let Some(why) = recovery.unchecked {
        tracing::warn!(why, "whether files of the store are missing cannot be said; from now on it can");
    }
    tracing::info!(
        series = recovery.series,
        points = recovery.points_replayed,
        torn_bytes = recovery.torn_bytes_cut,
        "store open"
    );
    Ok(store)
}

/// Bytes that one point of an answer may cost: an answer is in memory at once, with 16 bytes a point, and its text
/// while it is written. The default leaves half of 256 MiB to the rest.
const QUERY_POINT_BYTES: u64 = 128;

/// Points that one answer may hold.
fn query_points_max(config: &Config) -> usize {
    let room = (config.memory_budget / QUERY_POINT_BYTES) as usize;
    if config.graph.query_points_max > room {
        tracing::warn!(room, "graph.query_points_max is above what memory_budget has room for, and counts as this");
    }
    config.graph.query_points_max.min(room)
}

/// Says what to do where the error does not; one that another server has the directory does.
fn not_opened(dir: &Path, error: store::Error) -> anyhow::Error {
    let fix = match &error {
        store::Error::Disk { cause, .. } => format!(" ({})", data_dir::fix(cause)),
        store::Error::Corrupt { .. } => " (restore a backup)".to_string(),
        _ => String::new(),
    };
    anyhow::Error::new(error).context(format!("cannot open the store in {}{fix}", dir.display()))
}

/// Starts the threads that keep the store. At the end they are joined, and then the log is synced.
pub fn keep_store(
    parts: &mut Supervisor,
    data_dir: &Path,
    engine: &Arc<Engine>,
    age: Arc<Age>,
    pressure: &Arc<Pressure>,
    health: &Health,
) {
    let (asked, since) = (engine.clone(), clock::now());
    let losses = Losses::tell(data_dir, health, since);
    let lost = losses.clone();
    health.source(move |reasons| reasons.extend(what_is_damaged(&asked, &lost, since)));
    parts.start("the look at losses", |stop| losses.run(stop.signal));
    let (closed, kept, pressure) = (engine.clone(), engine.clone(), pressure.clone());
    parts.at_end_blocking("the log", move || closed.store().close(clock::now()).context("cannot sync the log"));
    parts.start("the store's threads", |stop| Keeper::start(kept, age, pressure, health).run(stop));
}

/// Files that a reason names; a reason is a line.
const FILES_NAMED_MAX: usize = 5;

/// What cannot be read any more, and so is missing in answers; each start finds it again. What no other start finds is
/// among the losses.
fn what_is_damaged(engine: &Engine, losses: &Losses, since: i64) -> impl Iterator<Item = Reason> {
    let store = engine.store();
    let why = |what: &[String]| match what.split_at(what.len().min(FILES_NAMED_MAX)) {
        ([], _) => None,
        (named, []) => Some(named.join("; ")),
        (named, more) => Some(format!("{} more, which the log names; {}", more.len(), named.join("; "))),
    };
    let found: Vec<String> = store.found_at_start().iter().filter(|found| !losses.name(found)).cloned().collect();
    let at_start =
        why(&found).map(|why| Reason { what: "files of the store were found damaged at the start", why, since });
    let met = why(&store.damaged_files()).map(|why| Reason {
        what: "files of the store are damaged, and answers lack what was in them",
        why,
        since,
    });
    at_start.into_iter().chain(met)
}

/// Starts to keep Open-Falcon's index tables, if `graph.index_url` says where; answers `/index/updateAll` for cron
/// scripts.
pub fn keep_index(
    parts: &mut Supervisor,
    config: &Config,
    engine: &Arc<Engine>,
    metrics: &Metrics,
    health: &Health,
) -> Option<axum::Router> {
    if config.graph.index_url.is_none() {
        return None;
    }
    let index = Index::register(metrics);
    let routes = index.routes();
    let (engine, graph, data_dir) = (engine.clone(), config.graph.clone(), config.data_dir.clone());
    let text = "Open-Falcon's index (graph.index_url) cannot be written; new series are not found by an old api";
    let told = health.outage_logged_elsewhere(text);
    parts.start("the index", |stop| index.run(engine, graph, data_dir, told, stop.signal));
    Some(routes)
}

/// Waits at the end for the queries and deletions that connections have left to threads; call this before the doors
/// open.
pub fn wait_for_queries(parts: &mut Supervisor, engine: &Arc<Engine>) {
    let engine = engine.clone();
    parts.at_end("queries", async move {
        engine.blocking_ended().await;
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io;
    use supervisor::causes::line_of;

    #[test]
    fn a_store_that_cannot_be_opened_says_once_why_and_what_to_do() {
        let text = |error: store::Error| line_of(&*not_opened(Path::new("d"), error));
        let refused = |number: i32| store::Error::Disk {
            what: "create",
            path: "d/store/log".into(),
            cause: io::Error::from_raw_os_error(number),
        };
        assert_eq!(
            text(refused(28)),
            "cannot open the store in d (make room there, or set data_dir to a disk that has room): cannot create \
             d/store/log: No space left on device (os error 28)"
        );
        for number in [1, 5, 13, 17, 28, 30] {
            assert!(!text(refused(number)).contains("server"), "{}", text(refused(number)));
        }
        assert_eq!(
            text(store::Error::Locked { dir: "d/store".into() }),
            "cannot open the store in d: data directory d/store is in use by another server; stop it or give this one \
             another data_dir"
        );
    }

    #[test]
    fn a_store_without_a_file_is_lost_where_something_stands_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path();
        refuse_lost_store(data).expect("a first start");
        fs::create_dir(data.join("store")).expect("a directory");
        refuse_lost_store(data).expect("a first start in a folder that was made before");
        fs::write(data.join("portal.mark"), "x").expect("room");
        let error = refuse_lost_store(data).expect_err("lost").to_string();
        assert!(error.contains("store is missing or empty") && error.contains("--new-store"), "{error}");
        fs::remove_dir(data.join("store")).expect("it is empty");
        refuse_lost_store(data).expect_err("lost");
        fs::remove_file(data.join("portal.mark")).expect("a file");
        fs::create_dir(data.join("events")).expect("a directory");
        fs::write(data.join("events/1.events"), [0; 32]).expect("room");
        refuse_lost_store(data).expect("no event was ever stored");
        fs::write(data.join("events/1.events"), [0; 100]).expect("room");
        refuse_lost_store(data).expect_err("lost");
        fs::create_dir(data.join("store")).expect("a directory");
        fs::write(data.join("store/lock"), "").expect("room");
        refuse_lost_store(data).expect("a store that took no point yet");
    }
}
