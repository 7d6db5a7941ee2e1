//! The judge alone: behind an old transfer, beside an old hbs, in front of an old alarm.
//!
//! Start: event queue → events to Redis → admin and the old routes → rules from hbs, asked until one answers → with the
//! first rules the windows of the last run and the alarms that are open → the gob door. So nothing is judged, and no
//! alarm is closed, before it is known which rules there are; a transfer keeps its items meanwhile, or drops them as
//! without a judge.
//! Stop: the door closes and answers what it has begun; the rules stay as they are; the windows are kept in a file;
//! what is left for Redis is pushed; the queue is synced last.

use super::admin::admin_router;
use super::data_dir;
use super::doors::{Doors, Sockets};
use super::queue::{OpenedQueue, judge_options, open_event_queue};
use super::{tls, token, until_stopped};
use crate::config::{Config, Fsync};
use crate::engine::age::Age;
use crate::engine::host_clocks::Hosts;
use crate::engine::listening::{self, Listener};
use crate::engine::windowed::{Options, Windowed};
use crate::role::judge::pull::{self, Access, Gone, PullCounts, Puller, Timeouts};
use crate::role::judge::{JudgeService, http, kept};
use crate::role::redis;
use crate::watch::health::Health;
use crate::watch::log::say;
use crate::watch::memory::{self, Memory, Size};
use anyhow::{Context, Result, bail};
use metrics::{Metrics, resident_bytes};
use model::{Event, Rules};
use net::gate::Issued;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::Past;
use supervisor::Supervisor;
use supervisor::signals::Starting;
use tokio::sync::watch;

const SECOND: Duration = Duration::from_secs(1);

/// Seconds between two writes of the windows, and two looks for silent series.
const KEEP_S: u32 = 60;

/// Runs the judge until a signal.
pub async fn serve(config: Arc<Config>, descriptors: usize, starting: Starting) -> Result<()> {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::of_process());
    memory::register_start(metrics.ledger());
    let tls = config.tls.open()?;
    let secret = config.ingest.secret()?;
    let sockets = Sockets::judge(&config.listen).await?;
    let _locked = data_dir::lock(&config.data_dir, "judge")?;
    let is_new = !config.data_dir.join("events").exists();
    let opened = open_event_queue(&config)?;
    opened.tell_lost_events(&health, 0);
    let OpenedQueue { queue, recovered, .. } = opened;
    let waits = health.outage_logged_elsewhere("events wait for Redis (judge.redis_url); nobody is told");
    let redis = redis::open(&queue, &config.judge.redis_url, &config.data_dir, &metrics, waits)?;
    queue.register_memory(metrics.ledger());
    let windowed = Arc::new(Windowed::new(options(&config), queue, &metrics));
    windowed.register_memory(metrics.ledger());
    show_gauges(&metrics, &windowed);

    // From here on something may be accepted, so a signal asks for an orderly end.
    let signals = starting.over().await;
    let mut doors = Doors::new(&config, &metrics, descriptors);
    doors.secure(tls.clone(), &config.tls.listeners);
    doors.ask_for(secret.as_ref(), &Issued::default());
    let memory = account(&config, &windowed, &metrics);
    let admin = admin_router(&config, sockets.bound(), &metrics, &health, memory);
    doors.open_admin("admin", sockets.admin, admin);
    doors.open_pages("judge_http", sockets.judge_http, http::router(windowed.clone(), config.data_dir.clone()));

    let (ready, is_ready) = watch::channel(false);
    let start = Start { open_problems: Mutex::new(Some(recovered.open_problems)), ready };
    let load = loader(windowed.clone(), config.clone(), start);
    let puller = puller(&config, &metrics)?;
    let interval = Duration::from_secs(config.judge.hbs_interval as u64);
    let judge = JudgeService::new(windowed.clone());
    let address = config.listen.judge_rpc.clone();
    doors.open_gob_when(is_ready.clone(), "judge_rpc", sockets.judge_rpc, judge, move || {
        memory::forget_unused_code();
        say(format_args!("hawkeye: the judge takes points at {address} (Go gob)"));
    });

    let age = Age::open(&config.data_dir, is_new, &health);
    let mut parts = Supervisor::default();
    tls::keep(&mut parts, &tls, &metrics, &health);
    token::keep(&mut parts, &config.ingest, secret.as_ref(), &doors.gate, &health);
    let synced = windowed.clone();
    parts.at_end_blocking("the event queue", move || {
        let ticked = synced.tick();
        match synced.events_waiting() {
            0 => ticked.context("cannot sync the event queue"),
            lost => bail!("{lost} events that no sender was answered for are lost: the disk takes none"),
        }
    });
    parts.start("pushing to Redis", |stop| redis.run(stop.signal));
    let (listener, ears) = (Listener::new(&health), windowed.clone());
    parts.start("looking for silence", |stop| listening::run(listener, move |look| ears.listen(look), stop.signal));
    let told =
        health.outage_logged_elsewhere("the rules cannot be read from hbs (judge.hbs_addrs); those of before stay");
    parts.start("keeping the windows", |stop| keep(windowed, config.clone(), age, is_ready, health, stop.signal));
    parts.start("pulling the rules", |stop| async move {
        pull::run(puller, interval, load, told, stop.signal).await;
        Ok(())
    });
    parts.start("the doors", |stop| doors.run(stop));
    say(format_args!("hawkeye: the judge asks {} for its rules", config.judge.hbs_addrs.join(", ")));
    until_stopped(signals, parts).await
}

/// Asks hbs for the rules, and shows what that costs.
fn puller(config: &Config, metrics: &Metrics) -> Result<Puller> {
    let counts = PullCounts::register(metrics);
    let told = counts.clone();
    metrics.ledger().source(move |report| report.line("rule texts", told.memory_bytes(), None, None));
    let access = Access { token: config.judge.hbs_token.clone(), trust: config.tls.trust()? };
    let limits = wire::hbs::AnswerLimits::default();
    Ok(Puller::new(config.judge.hbs_addrs.clone(), access, Timeouts::default(), limits, counts))
}

/// Options of windows that are judged without a store.
fn options(config: &Config) -> Options {
    Options {
        judge: judge_options(config),
        series_max: config.ingest.series_max as usize,
        future_max_s: config.ingest.future_max,
        silent_after_s: config.judge.silent_after,
        queue_waits: config.graph.fsync == Fsync::Always,
    }
}

/// State of the last run that waits for the first rules.
struct Start {
    open_problems: Mutex<Option<Vec<Event>>>,
    ready: watch::Sender<bool>,
}

/// Puts rules into effect, and with the first of them the windows and alarms that the last run has left.
fn loader(windowed: Arc<Windowed>, config: Arc<Config>, start: Start) -> impl Fn(Arc<Rules>) + Send + Sync + 'static {
    move |rules| {
        let gone = Gone::new(&rules);
        let why = |rule, key: model::SeriesKey<'_>| gone.why(rule, key.endpoint);
        for rule in windowed.load(rules.clone(), &why) {
            tracing::warn!(rule = rule.name, error = %rule.error, "a rule cannot be judged");
        }
        let open_problems = start.open_problems.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(open_problems) = open_problems {
            let restored = windowed.restore(kept::read(&config.data_dir).as_deref(), &open_problems, &why);
            if let Some(damage) = restored.damage {
                let file = kept::path(&config.data_dir);
                tracing::error!(file = %file.display(), %damage, "the windows of the last run are not read further");
            }
            tracing::info!(series = restored.series, alarms = restored.alarms, "the last run's windows are back");
            start.ready.send_replace(true);
        }
    }
}

/// Does each second and each minute what is due, and writes the file of windows once more at the end.
async fn keep(
    windowed: Arc<Windowed>,
    config: Arc<Config>,
    age: Age,
    ready: watch::Receiver<bool>,
    health: Health,
    mut stopping: watch::Receiver<bool>,
) -> Result<()> {
    let events = health.outage("the event queue cannot be written");
    let file = health.outage("the windows cannot be written");
    let mut seconds = 0;
    loop {
        let stop = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => true,
            () = tokio::time::sleep(SECOND) => false,
        };
        seconds += 1;
        let due = stop || seconds % KEEP_S == 0;
        // Before the first rules there is nothing to keep, and what the last run has left must not be overwritten.
        let due = due && *ready.borrow();
        // No file goes here by its age, but series do.
        age.may_delete(Past::default(), Hosts::default());
        let now = age.believed().now();
        let (windowed, config) = (windowed.clone(), config.clone());
        let work = tokio::task::spawn_blocking(move || {
            windowed.hold_to(config.memory_budget, resident_bytes().unwrap_or(0));
            let ticked = windowed.tick();
            let written = due.then(|| {
                let left = windowed.leave_silent(now);
                if left > 0 {
                    tracing::info!(series = left, "silent series are forgotten");
                }
                kept::write(&config.data_dir, &windowed)
            });
            (ticked, written)
        });
        let (ticked, written) = work.await.context("keeping the windows")?;
        events.note(ticked);
        if let Some(written) = written {
            file.note(written);
        }
        if stop {
            return Ok(());
        }
    }
}

/// Account of the memory of a judge without a store.
fn account(config: &Config, windowed: &Arc<Windowed>, metrics: &Arc<Metrics>) -> Memory {
    let sized = windowed.clone();
    Memory::new(metrics.clone(), config.memory_budget, move || Size { series: sized.series() as u64, points: 0 })
}

/// Shows the figures of the windows.
fn show_gauges(metrics: &Metrics, windowed: &Arc<Windowed>) {
    let windowed = windowed.clone();
    metrics.source(move |figures| {
        figures.gauge("resident_bytes", "Resident memory of this process", resident_bytes().unwrap_or(0) as f64);
        windowed.show(figures);
    });
}
