//! Index: keeps the MySQL tables in which an old Open-Falcon api, its dashboard and its scripts look up what series
//! there are (`graph.endpoint`, `tag_endpoint`, `endpoint_counter`), when `graph.index_url` is set.
//!
//! Why: the original queues every item that it meets for MySQL, forgets it when the insert fails, and then takes it for
//! indexed; and refreshes no `ts` until somebody calls `/index/updateAll`, so that a cleaner deletes what is alive.
//! How: nothing is done per point. One task looks each second at the store's series table: what was created since
//! ([`plan`]) is written in pages of [`PAGE_SERIES`] ([`tables`]), and a walk over all series refreshes `ts`, the time
//! of the newest point, once per `graph.index_refresh`. Where it stands is kept in `index-progress.json`, so that a
//! restart goes on.
//! Invariants: MySQL that is away, slow, read-only, full or of another schema delays the index and nothing else: no
//! point, start or stop waits for it; it is told once with what to do, tried again with growing pauses (up to
//! [`PAUSE_MAX`]), and caught up. The index uses one connection, at most half of the time. A row that somebody deleted
//! comes back only for a series that still reports. The password is in no log line.
//! Memory: one page of names (about 100 KiB) while it is written, 16 KiB of ids, and the connection.
//! Compat: docs/open-falcon/graph.md §6 and §9. As in the original, rows of deleted series stay until a cleaner goes by
//! their `ts`.

mod plan;
mod tables;
#[cfg(test)]
mod tests;

use crate::clock;
use crate::config::GraphConfig;
use crate::engine::Engine;
use crate::watch::health::Outage;
use anyhow::{Context, Result};
use axum::{Json, Router, routing::get};
use metrics::{Figures, Metrics};
use model::SeriesId;
use plan::{Page, Plan, Progress};
use serde_json::json;
use sqlx::mysql::MySqlConnectOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tables::{Freshness, ROWS_MAX, Series, Tables};
use tokio::sync::watch;

/// The database that the original's configuration names.
const DATABASE: &str = "graph";
/// Series of one page; each is one row of `endpoint_counter`.
const PAGE_SERIES: usize = ROWS_MAX;
/// Time between two looks for something to do; the original looks as often.
const TICK: Duration = Duration::from_secs(1);
/// The longest pause between two attempts. Short enough for whoever waits after repairing MySQL.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A connection that was not used for so long is closed: proxies and MySQL itself cut such ones without a word.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Positions are saved this often at most; what was written since is written again after a crash, which changes
/// nothing.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// A series that is silent for so long is not refreshed any more (the original's two days).
const SILENT_S: i64 = 2 * 86_400;
/// A series whose newest point is younger, or has at most two successors missing, still reports.
const REPORTS_S: i64 = 3600;

/// The handle: what others may ask of the index.
#[derive(Clone, Default)]
pub struct Index(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// A run over all series is wanted, or under way.
    all: AtomicBool,
    up: AtomicBool,
    waiting: AtomicU64,
    inserted: AtomicU64,
    refreshed: AtomicU64,
    left_out: AtomicU64,
    failures: AtomicU64,
    memory_bytes: AtomicU64,
}

impl Index {
    /// An index that does nothing yet, with its figures on the metrics page.
    pub fn register(metrics: &Metrics) -> Index {
        let index = Index::default();
        let shown = index.clone();
        metrics.source(move |figures| shown.show(figures));
        let told = index.clone();
        let bytes = move || told.0.memory_bytes.load(Relaxed);
        metrics.ledger().source(move |report| report.line("index task", bytes(), None, None));
        index
    }

    /// Begins to write all series that are alive, missing rows included, in the background. False when that is being
    /// done already.
    pub fn update_all(&self) -> bool {
        !self.0.all.swap(true, Relaxed)
    }

    /// Number of runs over all series: 0 or 1.
    pub fn running(&self) -> usize {
        usize::from(self.0.all.load(Relaxed))
    }

    /// The original graph's routes, which cron scripts call.
    pub fn routes(&self) -> Router {
        let (all, concurrent) = (self.clone(), self.clone());
        let update_all = move || async move {
            all.update_all();
            Json(json!({"msg": "ok"}))
        };
        let running = move || async move { Json(json!({"msg": "ok", "value": concurrent.running()})) };
        Router::new().route("/index/updateAll", get(update_all)).route("/index/updateAll/concurrent", get(running))
    }

    fn show(&self, figures: &mut Figures<'_>) {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let shared = &*self.0;
        figures.gauge("index_up", "1 while MySQL takes the index", f64::from(u8::from(shared.up.load(Relaxed))));
        figures.gauge("index_waiting_series", "New series not in the index yet", load(&shared.waiting) as f64);
        figures.gauge("index_update_all_running", "Runs over all series", self.running() as f64);
        figures.counter("index_rows_inserted", "Rows inserted into the index", load(&shared.inserted));
        figures.counter("index_rows_refreshed", "Rows of the index written again", load(&shared.refreshed));
        figures.counter(
            "index_left_out",
            "Series and rows that do not fit the index's columns, counted at each attempt",
            load(&shared.left_out),
        );
        figures.counter("index_failures", "Attempts that MySQL refused or did not answer", load(&shared.failures));
    }

    /// Runs until `stopping`; ends at once then, whatever MySQL does. `config` has an `index_url`. `outage` says while
    /// MySQL takes nothing.
    pub async fn run(
        self,
        engine: Arc<Engine>,
        config: GraphConfig,
        data_dir: PathBuf,
        outage: Outage,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<()> {
        let options = config.index_url.options(DATABASE).context("graph.index_url is empty")?;
        let (place, file) = (config.index_url.place(DATABASE), data_dir.join("index-progress.json"));
        loop {
            let plan = Plan::new(Progress::load(&file, &place, clock::now()), config.index_refresh);
            let task = Task::new(self.clone(), engine.clone(), options.clone(), file.clone(), plan, outage.clone());
            // A task of its own: the client library decodes what comes from outside, and a panic in it must stop no
            // server.
            let Err(fault) = tokio::spawn(task.run(stopping.clone())).await else { return Ok(()) };
            self.0.failures.fetch_add(1, Relaxed);
            self.0.up.store(false, Relaxed);
            outage.fails(format!("the index task failed: {fault}"));
            tracing::error!(at = place, %fault, "the index task failed, and begins again in a minute where it was");
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(PAUSE_MAX) => {}
            }
        }
    }
}

impl Progress {
    /// Reads the positions. A file that is not there, not readable or of another database is a beginning; all it costs
    /// is to look at every series.
    fn load(file: &Path, place: &str, now: i64) -> Progress {
        let saved = std::fs::read(file).ok().and_then(|text| serde_json::from_slice::<Progress>(&text).ok());
        saved.filter(|saved| saved.place == place).unwrap_or_else(|| Progress::none(place, now))
    }

    /// Writes the positions, without forcing them to the disk: a file that is lost or torn is a beginning, too.
    async fn save(&self, file: &Path) -> std::io::Result<()> {
        let new = file.with_extension("json.tmp");
        tokio::fs::write(&new, serde_json::to_vec(self)?).await?;
        tokio::fs::rename(&new, file).await
    }
}

/// Texts of a page, which go into the statement too.
fn page_bytes(series: &[Series]) -> usize {
    let texts = |one: &Series| one.endpoint.capacity() + one.counter.capacity() + one.tags.capacity();
    2 * (size_of_val(series) + series.iter().map(texts).sum::<usize>())
}

struct Task {
    index: Index,
    engine: Arc<Engine>,
    options: MySqlConnectOptions,
    file: PathBuf,
    plan: Plan,
    outage: Outage,
    /// Ids from here on were given after the start.
    born: SeriesId,
    tables: Option<Tables>,
    used: Instant,
    saved: (Progress, Instant),
    /// Attempts that failed since the last that did not.
    failed: u32,
    /// Advice that was last given in the log: what is to be done against the fault.
    told: Option<&'static str>,
    misfit_told: bool,
    unsaved_told: bool,
    /// A run over all series has begun, and what it must end.
    all_begun: bool,
    scratch: Vec<SeriesId>,
}

impl Task {
    fn new(
        index: Index,
        engine: Arc<Engine>,
        options: MySqlConnectOptions,
        file: PathBuf,
        plan: Plan,
        outage: Outage,
    ) -> Task {
        let (born, saved, now) = (engine.store().series_end(), plan.progress.clone(), Instant::now());
        Task {
            index,
            engine,
            options,
            file,
            plan,
            outage,
            born,
            tables: None,
            used: now,
            saved: (saved, now),
            failed: 0,
            told: None,
            misfit_told: false,
            unsaved_told: false,
            all_begun: false,
            scratch: Vec::new(),
        }
    }

    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            () = self.keep() => {}
        }
        self.save().await;
        self.disconnect().await;
    }

    async fn keep(&mut self) {
        // An address or a password that is wrong is told now, not when the first series comes.
        self.outage.begin();
        let mut outcome = self.connect().await;
        loop {
            let pause = match &outcome {
                Ok(()) => TICK,
                Err(error) => self.note_failure(error),
            };
            tokio::time::sleep(pause).await;
            self.outage.begin();
            outcome = self.turn().await;
            self.save().await;
        }
    }

    /// Writes what is due.
    async fn turn(&mut self) -> Result<(), sqlx::Error> {
        self.show_waiting();
        if self.failed > 0 {
            self.connect().await?;
        }
        self.engine.take_recent(&mut self.scratch);
        self.plan.note(&mut self.scratch);
        if self.index.running() > 0 && !self.all_begun {
            self.all_begun = true;
            self.plan.begin_all();
        }
        loop {
            let end = self.engine.store().series_end();
            let Some(page) = self.plan.next(end, clock::now()) else { break };
            let began = Instant::now();
            self.write(page, end).await?;
            self.note_success();
            self.show_waiting();
            if self.saved.1.elapsed() > SAVE_EVERY {
                self.save().await;
            }
            // MySQL has the other half of the time for others, however slow it is.
            tokio::time::sleep(began.elapsed()).await;
        }
        self.note_success();
        if self.used.elapsed() > IDLE_MAX {
            self.disconnect().await;
        }
        Ok(())
    }

    fn show_waiting(&self) {
        let waiting = self.engine.store().series_end().0.saturating_sub(self.plan.progress.new_from);
        self.index.0.waiting.store(u64::from(waiting), Relaxed);
    }

    async fn write(&mut self, page: Page, end: SeriesId) -> Result<(), sqlx::Error> {
        let now = clock::now();
        let (series, next) = self.read(page, now);
        if !series.is_empty() {
            self.connect().await?;
            let held = self.kept_bytes();
            let Some(tables) = &mut self.tables else { return Ok(()) };
            // The walk need not touch rows for a few minutes; who asks for all gets all.
            let grain = if matches!(page, Page::Walk(_) | Page::New(_)) { self.plan.refresh_s() / 6 } else { 0 };
            self.index.0.memory_bytes.store((held + page_bytes(&series)) as u64, Relaxed);
            let result = tables.write(&series, Freshness { now, grain }).await;
            let (written, shared) = (tables.take_written(), &self.index.0);
            shared.memory_bytes.store(held as u64, Relaxed);
            shared.inserted.fetch_add(written.inserted, Relaxed);
            shared.refreshed.fetch_add(written.refreshed, Relaxed);
            shared.left_out.fetch_add(written.refused, Relaxed);
            result?;
            self.used = Instant::now();
        }
        if self.plan.done(page, PAGE_SERIES, next, end, now) {
            self.all_begun = false;
            self.index.0.all.store(false, Relaxed);
        }
        Ok(())
    }

    /// Bytes that the task keeps between pages.
    fn kept_bytes(&self) -> usize {
        self.scratch.capacity() * size_of::<SeriesId>() + self.plan.memory_bytes()
    }

    /// The series of a page that have something to say, and where the next page begins.
    fn read(&mut self, page: Page, now: i64) -> (Vec<Series>, SeriesId) {
        let engine = self.engine.clone();
        let store = engine.store();
        let mut found: Vec<(SeriesId, Series)> = Vec::new();
        let mut copy = |id, key: model::SeriesKey<'_>, counter_type: model::CounterType, step| {
            let mut counter = String::with_capacity(key.metric.len() + 1 + key.tags.as_str().len());
            key.push_counter(&mut counter);
            let (endpoint, tags) = (key.endpoint.to_string(), key.tags.as_str().to_string());
            let ds_type = counter_type.ds_type();
            found.push((id, Series { endpoint, counter, tags, step, ds_type, ts: 0, create: true }));
        };
        let next = match page {
            Page::New(from) | Page::All(from) | Page::Walk(from) => store.series_page(from, PAGE_SERIES, &mut copy),
            Page::Recent => {
                for id in self.plan.recent(PAGE_SERIES) {
                    let mut copy_this = |found, key: model::SeriesKey<'_>, counter_type, step| {
                        if found == *id {
                            copy(found, key, counter_type, step);
                        }
                    };
                    store.series_page(*id, 1, &mut copy_this);
                }
                SeriesId(0)
            }
        };
        let mut series = Vec::with_capacity(found.len());
        for (id, mut one) in found {
            let newest = store.newest_in_memory(id).map(|point| point.time);
            // A series may be met between its creation and its first point.
            let newest = newest.or((id >= self.born || page == Page::Recent).then_some(now));
            let Some(ts) = newest else { continue };
            if matches!(page, Page::All(_) | Page::Walk(_)) && ts < now - SILENT_S {
                continue;
            }
            one.ts = ts;
            one.create = !matches!(page, Page::Walk(_)) || ts >= now - REPORTS_S.max(3 * i64::from(one.step));
            match one.misfit() {
                None => series.push(one),
                Some(column) => self.leave_out(&one, column),
            }
        }
        (series, next)
    }

    fn leave_out(&mut self, series: &Series, column: &'static str) {
        self.index.0.left_out.fetch_add(1, Relaxed);
        if !std::mem::replace(&mut self.misfit_told, true) {
            let Series { endpoint, counter, .. } = series;
            tracing::warn!(
                endpoint,
                counter,
                column,
                "a series is left out of Open-Falcon's index: its name has more than 255 characters, or such as utf8 of three \
                 bytes does not have; shorten the name (further ones are counted in hawkeye_index_left_out_total)"
            );
        }
    }

    async fn connect(&mut self) -> Result<(), sqlx::Error> {
        if self.tables.is_none() {
            self.tables = Some(Tables::connect(&self.options).await?);
            self.used = Instant::now();
        }
        Ok(())
    }

    async fn disconnect(&mut self) {
        if let Some(tables) = self.tables.take() {
            tables.close().await;
        }
    }

    /// Notes a page that was written. A connection alone is no success: MySQL may still take nothing.
    fn note_success(&mut self) {
        self.index.0.up.store(true, Relaxed);
        self.failed = 0;
        self.outage.works();
        if self.told.take().is_some() {
            tracing::info!(at = self.saved.0.place, "MySQL takes the index again; what came meanwhile is written now");
        }
    }

    /// Notes a failure, and answers how long to wait. The first one is not told: MySQL and proxies cut connections, and
    /// the next attempt works.
    fn note_failure(&mut self, error: &sqlx::Error) -> Duration {
        self.tables = None;
        self.failed += 1;
        self.index.0.failures.fetch_add(1, Relaxed);
        if self.failed > 1 {
            self.index.0.up.store(false, Relaxed);
        }
        let fix = tables::fix(error);
        if self.failed > 1 {
            self.outage.fails(format!("{error} ({fix})"));
        }
        if self.failed > 1 && self.told.replace(fix) != Some(fix) {
            let at = &self.saved.0.place;
            tracing::error!(
                at,
                %error,
                fix,
                "cannot write Open-Falcon's index; points are taken as ever, and the index follows when MySQL takes it"
            );
        }
        (TICK * (1 << (self.failed - 1).min(6))).min(PAUSE_MAX)
    }

    async fn save(&mut self) {
        if self.plan.progress == self.saved.0 {
            return;
        }
        let unsaved = self.plan.progress.save(&self.file).await.err();
        if let Some(error) = unsaved.as_ref().filter(|_| !self.unsaved_told) {
            tracing::warn!(%error, file = %self.file.display(), "cannot save where the index stands; a restart begins anew");
        }
        self.unsaved_told = unsaved.is_some();
        self.saved = (self.plan.progress.clone(), Instant::now());
    }
}
