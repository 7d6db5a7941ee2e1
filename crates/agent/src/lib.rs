//! The agent: runs on every host, collects, takes pushes from scripts, and sends everything to a transfer.
//!
//! Reading order: `config` → `schedule` (when) → `batch`, `queue`, `files`, `buffer`, `pace`, `sender`, `transfers`,
//! `client` (how points leave) → `heartbeat` (what hbs asks for) → `du`, `url` (probes that need a child process or an
//! HTTP client; the others are in crates/probe) → `collect`, `switched_on` (what a host's owner switches on) →
//! `plugin` (files of the operator's that print points) → `netprobes` (probes over the network that hbs gives) →
//! `http`, `control` (what changes this host), `pages` (what shows it), `reload` → `facts` (what hbs is told of the
//! agent) → `check` (everything once, for people) → `release`, `signature`, `upgrade` (newer programs), `install` (a
//! new host).
//! How: each group of collectors is a task with one report per interval; all put batches into one queue, from which
//! one sender takes them in order. `/proc` is read on a blocking thread; file systems are asked by `mounts`, so that
//! one whose server is gone is silent alone.
//! Start: the port, the sender, then all that fills the queue: the door for pushes, hbs, the groups. Stop: the reverse;
//! what fills the queue ends together within [`STOP_TIMEOUT`], then the sender has 5 s for the rest, and what no
//! transfer takes is written to the buffer's directory.
//! Compat: docs/open-falcon/agent.md; metrics, tags and wire format are the original's. It keeps points while no
//! transfer answers, also over a restart, which the original does not; the route that runs any command is not here.
//! Memory: the queue (`buffer_memory_max`), bodies being read (8 MiB), one report at a time per group, what plugins
//! that run have printed.

mod batch;
mod buffer;
mod check;
mod client;
mod clock;
mod collect;
pub mod config;
mod control;
mod du;
mod facts;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod hand;
mod heartbeat;
mod http;
pub mod install;
mod intake;
mod live;
mod mounts;
mod netprobes;
mod original;
mod pace;
mod pages;
mod plugin;
mod plugin_config;
mod privilege;
mod probes_config;
mod process;
mod queue;
#[cfg(test)]
mod refused;
pub mod release;
mod reload;
mod schedule;
mod sender;
mod shown;
pub mod signature;
mod switched_on;
mod transfers;
mod upgrade;
mod upgrade_config;
mod url;
mod user;

pub use check::{as_ours, check_process};
pub use config::{AgentArgs, AgentConfig, Rates, system_hostname};
pub use process::{run_process, run_program};

use anyhow::{Error, Result, ensure};
use buffer::{Buffer, BufferFigures, BufferTiming, Place};
use client::Client;
use clock::{unix_ms, unix_now};
use collect::{Collector, Fault, Told};
use config::Source;
use facts::Facts;
use heartbeat::{Heartbeat, Orders, Parts};
use intake::{Stamp, batches_of};
use live::Live;
use metrics::{Figures, Metrics, resident_bytes};
use mounts::Mounts;
use net::budget::Budget;
use net::http::{Guard, own_names, serve_router};
use net::listen::{ConnectionMetrics, Limits, bind_as};
use net::places::Places;
use net::tls::client::Trust;
use netprobes::Probes;
use plugin::Plugins;
use probe::{Driven, Group, ProbeError, Reading, Roots, Sampler};
use queue::Queue;
use reload::Reload;
use schedule::Schedule;
use sender::{Sender, SenderCounters, SenderTiming};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use stdx::RealDisk;
use supervisor::Supervisor;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use transfers::{TransferCounters, Transfers};
use upgrade::{Launcher, Taker, UpgradeCounters};

/// Scripts of one host, each with a connection of its own.
const CONNECTIONS_MAX: usize = 256;
/// Longest time that the groups and the HTTP door may take to end; a collection on a hanging mount is left behind.
const STOP_TIMEOUT: Duration = Duration::from_secs(6);
/// Files that were named in the log once; a host has some twenty that can fail.
const FILES_NAMED_MAX: usize = 64;

/// Runs until `shutdown` turns true.
pub async fn run(config: AgentConfig, shutdown: watch::Receiver<bool>) -> Result<()> {
    run_at(config, Timing::REAL, shutdown).await
}

/// Runs an agent that is a program of its own until `shutdown` turns true; `exit` is what `/exit` turns true, and
/// `launcher` is who begins it anew.
async fn run_alone(
    config: AgentConfig,
    exit: Arc<watch::Sender<bool>>,
    launcher: Option<Launcher>,
    shutdown: watch::Receiver<bool>,
) -> Result<()> {
    run_until(Agent { exit: Some(exit), launcher, ..Agent::new(config) }, Timing::REAL, shutdown).await
}

/// Durations that a test does not want to wait for.
#[derive(Clone, Copy)]
struct Timing {
    /// Time between two samples of what is a rate "over the last second", and before the first report of any.
    sample: Duration,
    sender: SenderTiming,
    buffer: BufferTiming,
}

impl Timing {
    /// The timing of an agent that runs.
    const REAL: Timing = Timing {
        sample: Duration::from_secs(1),
        sender: SenderTiming { first_pause: Duration::from_secs(1), replay_pause: pace::REPLAY_PAUSE },
        buffer: BufferTiming::REAL,
    };
}

/// State that the tasks of the agent share.
struct Agent {
    /// Settings at the start.
    config: AgentConfig,
    /// Settings that a reload changes.
    live: Arc<Live>,
    plugins: Arc<Plugins>,
    /// What hbs is told of this agent.
    facts: Arc<Facts>,
    mounts: Mounts,
    probes: Arc<Probes>,
    reload: Reload,
    /// Ends the process; none where the agent is a part of another program.
    exit: Option<Arc<watch::Sender<bool>>>,
    /// Who starts a newer program; none where none is taken.
    launcher: Option<Launcher>,
    sampler: Mutex<Sampler>,
    /// The beginning of the sampler's time.
    started: Instant,
    /// Turns true when a report may have rates.
    sampled: watch::Sender<bool>,
    orders: Arc<Orders>,
    queue: Arc<Queue>,
    counters: AgentCounters,
    /// Whom addresses that begin with `tls://` are believed by.
    trust: Option<Trust>,
}

#[derive(Default)]
struct AgentCounters {
    sender: Arc<SenderCounters>,
    /// Known once the sender is made.
    buffer: OnceLock<Arc<BufferFigures>>,
    transfers: OnceLock<Arc<TransferCounters>>,
    upgrade: Arc<UpgradeCounters>,
    push_invalid: AtomicU64,
    collect_failures: AtomicU64,
    files_named: Mutex<BTreeSet<PathBuf>>,
}

/// Readings that are reported together: the original's groups; GPUs are asked by one of [`collect`]'s.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Report {
    Group(Group),
    Du,
    Url,
}

const REPORTS: [Report; 5] =
    [Report::Group(Group::Host), Report::Group(Group::Df), Report::Group(Group::Sockets), Report::Du, Report::Url];

async fn run_at(config: AgentConfig, timing: Timing, shutdown: watch::Receiver<bool>) -> Result<()> {
    run_until(Agent::new(config), timing, shutdown).await
}

async fn run_until(agent: Agent, timing: Timing, mut shutdown: watch::Receiver<bool>) -> Result<()> {
    let config = &agent.config;
    if !config.ignored_keys.is_empty() {
        tracing::info!(keys = config.ignored_keys.join(", "), "keys of the cfg.json that have no meaning here");
    }
    let ca = &config.ca;
    let trust = if ca.as_os_str().is_empty() { None } else { Some(Trust::of_file("ca", ca)?) };
    if config.plugin.enabled {
        plugin::check_user(&config.plugin.user).map_err(Error::msg)?;
    }
    config.probes.policy().map_err(Error::msg)?;
    let agent = Arc::new(Agent { trust, ..agent });
    let metrics = Arc::new(Metrics::new());
    show(&agent, &metrics);
    let address = &agent.config.listen.agent_http;
    let (key, how) = agent.config.agent_http_key;
    let listener = if address.is_empty() { None } else { Some(bind_as(key, how, address).await?) };
    let mut parts = Supervisor::default();
    let sender = agent.sender(timing);
    parts.start("the sender", |stop| async move {
        sender.run(stop.signal).await;
        Ok(())
    });
    parts.start("collecting", |stop| agent.collect_and_take(listener, metrics, timing, stop.signal));
    let ended_early = tokio::select! {
        _ = shutdown.wait_for(|stop| *stop) => None,
        why = parts.ended() => Some(why),
    };
    parts.stop(ended_early).await
}

impl Agent {
    fn new(config: AgentConfig) -> Agent {
        let live = Arc::new(Live::new(reload::settings_of(&config)));
        let queue = Arc::new(Queue::new(config.buffer_memory_max as usize));
        Agent {
            probes: Arc::new(Probes::new(live.clone(), queue.clone(), &config.hostname, config.interval)),
            plugins: Arc::new(Plugins::new(live.clone(), queue.clone(), &config.hostname, config.interval)),
            facts: Arc::new(Facts::new(&shown::keys(&config), Duration::from_secs(config.heartbeat_interval as u64))),
            mounts: Mounts::new(),
            live,
            reload: Reload::default(),
            exit: None,
            launcher: None,
            sampler: Mutex::new(if config.collect.cores { Sampler::with_cores() } else { Sampler::new() }),
            started: Instant::now(),
            sampled: watch::Sender::new(false),
            orders: Arc::default(),
            queue,
            counters: AgentCounters::default(),
            trust: None,
            config,
        }
    }

    /// Fills the queue, with what is collected here and what scripts push, until `shutdown`.
    async fn collect_and_take(
        self: Arc<Self>,
        listener: Option<TcpListener>,
        metrics: Arc<Metrics>,
        timing: Timing,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<()> {
        let mut tasks = JoinSet::new();
        if let Some(listener) = listener {
            let limits = Limits {
                connections_max: CONNECTIONS_MAX,
                places: Places::new(CONNECTIONS_MAX),
                allow: Arc::new([]),
                metrics: metrics.register(ConnectionMetrics::register),
                connections: metrics.ledger().account("connections", None),
                http: metrics.ledger().account("http", None),
                budget: Budget::new(http::BODIES_MAX),
                tls: None,
            };
            let guard = Guard::own_pages_only(&own_names(&system_hostname(), &self.config.listen.hosts));
            let router = http::router(self.clone(), metrics);
            tasks.spawn(serve_router("agent_http", listener, limits, guard, shutdown.clone(), router));
        }
        if !self.config.hbs_addr.is_empty() {
            tasks.spawn(self.heartbeat().run(shutdown.clone()));
        }
        if let Some(taker) = self.taker() {
            tasks.spawn(taker.run(shutdown.clone()));
        }
        tasks.spawn(self.plugins.clone().run(shutdown.clone()));
        tasks.spawn(self.probes.clone().run(shutdown.clone()));
        tasks.spawn(self.clone().sample(timing.sample, shutdown.clone()));
        for report in REPORTS {
            tasks.spawn(self.clone().report(report, shutdown.clone()));
        }
        for collector in Collector::all_of(&self.config.collect) {
            tasks.spawn(self.clone().report_switched_on(collector, shutdown.clone()));
        }
        // When it is time to stop, tasks end too, and either may be seen first.
        let stopping = shutdown.clone();
        let ended_early = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => false,
            _ = tasks.join_next() => !*stopping.borrow(),
        };
        if ended_early {
            tasks.abort_all();
        }
        let rest = async { while tasks.join_next().await.is_some() {} };
        // Tasks that take longer are left behind.
        let _ = tokio::time::timeout(STOP_TIMEOUT, rest).await;
        ensure!(!ended_early, "a task of the agent ended by itself");
        Ok(())
    }

    fn sender(&self, timing: Timing) -> Sender {
        let config = &self.config;
        let client = |address: &String| {
            Client::new(address, config.connect_timeout).with_token(&config.token).with_trust(&self.trust)
        };
        let transfers = Transfers::new(config.transfer_addrs.iter().map(client).collect(), config.compress);
        let dir = &config.buffer_dir;
        let place = || Place { disk: Arc::new(RealDisk), dir: dir.clone(), bytes_max: config.buffer_max };
        let place = (!dir.as_os_str().is_empty()).then(place);
        let buffer = Buffer::new(self.queue.clone(), place, timing.buffer);
        let counters = &self.counters;
        // A second sender would not be shown.
        let _ = counters.buffer.set(buffer.figures());
        let _ = counters.transfers.set(transfers.counters());
        Sender::new(self.queue.clone(), buffer, transfers, timing.sender, counters.sender.clone())
    }

    fn heartbeat(&self) -> Heartbeat {
        let config = &self.config;
        let client = Client::new(&config.hbs_addr, config.connect_timeout);
        let client = client.with_token(&config.token).with_trust(&self.trust);
        let interval = Duration::from_secs(config.heartbeat_interval as u64);
        let parts = Parts {
            orders: self.orders.clone(),
            plugins: self.plugins.clone(),
            facts: self.facts.clone(),
            probes: self.probes.clone(),
        };
        Heartbeat::new(client, &config.hostname, &config.ip, interval, parts)
    }

    /// Who takes newer programs; none where that is off, or this is a part of another program.
    fn taker(&self) -> Option<Taker> {
        let config = &self.config;
        let (launcher, exit) = (self.launcher.clone()?, self.exit.clone()?);
        let key = config.upgrade.key().filter(|_| !config.hbs_addr.is_empty())?;
        let (address, timeout, token) = (config.hbs_addr.clone(), config.connect_timeout, config.token.clone());
        let trust = self.trust.clone();
        let client = move || Client::new(&address, timeout).with_token(&token).with_trust(&trust);
        let arguments = config.source.as_ref().map(Source::arguments).unwrap_or_default();
        let (section, counters) = ((&config.upgrade, key), self.counters.upgrade.clone());
        Some(Taker::new(client, &config.hostname, section, arguments, launcher, counters, exit))
    }

    /// Takes the sample that the first report looks back on; then, for rates of the last second, one each second for
    /// ever. On the runtime's own thread: the two files are made by the kernel in memory.
    async fn sample(self: Arc<Self>, every: Duration, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = 0_u64;
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                _ = ticks.tick(), if count < 2 || self.config.rates == Rates::LastSecond => {}
            }
            if count == 0 || self.config.rates == Rates::LastSecond {
                self.take_sample(Sampler::sample);
            }
            count += 1;
            if count == 2 {
                self.sampled.send_replace(true);
            }
        }
    }

    fn take_sample(&self, sample: fn(&mut Sampler, &Roots, u64, &mut Vec<ProbeError>)) {
        let mut failures = Vec::new();
        let monotonic_ms = self.started.elapsed().as_millis() as u64;
        sample(&mut self.lock_sampler(), &self.live.now().scope.roots, monotonic_ms, &mut failures);
        self.count_failures(failures);
    }

    /// Collects and queues once per interval.
    async fn report(self: Arc<Self>, report: Report, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = self.report_for_ever(report) => {}
        }
    }

    async fn report_for_ever(self: Arc<Self>, report: Report) {
        let schedule = Schedule::new(&self.config.hostname, self.config.interval);
        let mut sampled = self.sampled.subscribe();
        // The sender of this channel is a field of `self`, so it cannot end.
        let _ = sampled.wait_for(|sampled| *sampled).await;
        drop(sampled);
        let mut told = Told::default();
        loop {
            let started_ms = unix_ms();
            let readings = match report {
                Report::Group(Group::Df) => self.collect_spaces(&mut told).await,
                Report::Group(group) => self.clone().collect(group).await,
                Report::Du => du::collect(&self.orders.driven().paths).await,
                Report::Url => url::collect(&self.orders.driven().urls, &self.config.hostname).await,
            };
            self.queue_readings(&readings, started_ms / 1000);
            drop(readings);
            tokio::time::sleep(schedule.wait(started_ms, unix_ms())).await;
        }
    }

    async fn collect(self: Arc<Self>, group: Group) -> Vec<Reading> {
        let collected = tokio::task::spawn_blocking(move || {
            let (mut readings, mut failures) = (Vec::new(), Vec::new());
            let driven: Arc<Driven> = self.orders.driven();
            if group == Group::Host && self.config.rates == Rates::Interval {
                self.take_sample(Sampler::sample_for_report);
            }
            let sampler = self.lock_sampler().clone();
            self.live.now().scope.collect(group, &driven, &sampler, &mut readings, &mut failures);
            self.count_failures(failures);
            if group == Group::Host {
                let offset = self.facts.clock_offset_ms();
                readings.extend(offset.map(|offset| Reading::gauge("agent.clock.offset_ms", "", offset as f64)));
            }
            readings
        });
        collected.await.unwrap_or_else(|error| {
            tracing::error!(?group, %error, "a collection failed: this is a fault of the agent");
            Vec::new()
        })
    }

    /// Space of the file systems; those that hang are left out.
    async fn collect_spaces(&self, told: &mut Told) -> Vec<Reading> {
        let answers = self.mounts.ask(&self.live.now().scope).await;
        self.tell(told, "df", &answers.faults);
        let mut readings = Vec::new();
        probe::report_spaces(answers.spaces.iter().map(|(mounted, space)| (mounted, *space)), &mut readings);
        readings
    }

    /// Counts the faults of a round, and tells the log which are new, and what works again.
    fn tell(&self, told: &mut Told, collector: &str, faults: &[Fault]) {
        self.counters.collect_failures.fetch_add(faults.len() as u64, Ordering::Relaxed);
        let (fresh, well) = told.take(faults);
        for fault in fresh {
            tracing::warn!(collector, of = fault.of, why = fault.why, "cannot be collected");
        }
        for of in well {
            tracing::info!(collector, of, "is collected again");
        }
    }

    fn queue_readings(&self, readings: &[Reading], timestamp: i64) {
        let step = u32::try_from(self.config.interval).expect("checked to be at most a day");
        let (settings, stamp) = (self.live.now(), Stamp { endpoint: &self.config.hostname, step, timestamp });
        let batches = batches_of(readings, stamp, &settings.ignore, &settings.default_tags);
        batches.into_iter().for_each(|batch| self.queue.push(batch));
    }

    /// Counts failures, and names each file once in the log: one that cannot be read now cannot be read in the next
    /// minute either.
    fn count_failures(&self, failures: Vec<ProbeError>) {
        if failures.is_empty() {
            return;
        }
        self.counters.collect_failures.fetch_add(failures.len() as u64, Ordering::Relaxed);
        let mut named = self.counters.files_named.lock().expect("nothing panics while this is locked");
        for failure in failures {
            if named.len() < FILES_NAMED_MAX && named.insert(failure.file().to_path_buf()) {
                tracing::warn!(%failure, "a file cannot be collected (said once, counted always)");
            }
        }
    }

    fn lock_sampler(&self) -> std::sync::MutexGuard<'_, Sampler> {
        self.sampler.lock().expect("nothing panics while the sampler is locked")
    }
}

/// Puts the agent's own figures on its `/metrics`.
fn show(agent: &Arc<Agent>, metrics: &Metrics) {
    let agent = agent.clone();
    metrics.source(move |figures| {
        let (queue, counters) = (agent.queue.size(), &agent.counters);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sender = &counters.sender;
        figures.counter("agent_items_sent", "Items that a transfer has taken", read(&sender.items_sent));
        figures.counter("agent_items_invalid", "Items that a transfer has called invalid", read(&sender.items_invalid));
        figures.counter("agent_items_refused", "Items that no transfer wanted", read(&sender.items_refused));
        figures.counter("agent_items_dropped", "Items lost to a full buffer", queue.items_dropped);
        figures.counter("agent_push_invalid", "Pushed items dropped as invalid", read(&counters.push_invalid));
        figures.counter("agent_send_failures", "Attempts that no transfer took", read(&sender.failures));
        figures.counter("agent_heartbeat_failures", "Failed heartbeats", read(&agent.orders.failures));
        figures.counter("agent_collect_failures", "Files that could not be read", read(&counters.collect_failures));
        figures.gauge("agent_buffer_items", "Items waiting in memory", queue.items as f64);
        figures.gauge("agent_buffer_bytes", "Bytes waiting in memory", queue.bytes as f64);
        figures.gauge("agent_buffer_max_bytes", "Most bytes that may wait in memory", agent.queue.bytes_max() as f64);
        if let Some(transfers) = counters.transfers.get() {
            show_transfers(transfers, figures);
        }
        if let Some(buffer) = counters.buffer.get().filter(|_| !agent.config.buffer_dir.as_os_str().is_empty()) {
            show_buffer(buffer, agent.config.buffer_max, figures);
        }
        agent.plugins.show(figures);
        agent.probes.show(figures);
        if agent.config.upgrade.is_on() {
            let upgrade = &counters.upgrade;
            figures.counter(
                "agent_upgrade_asked",
                "Questions for a newer program that hbs answered",
                read(&upgrade.asked),
            );
            figures.counter("agent_upgrade_failures", "Newer programs not taken", read(&upgrade.failures));
        }
        figures.gauge("resident_bytes", "Resident memory", resident_bytes().unwrap_or(0) as f64);
    });
}

fn show_transfers(transfers: &TransferCounters, figures: &mut Figures<'_>) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let failovers = "Batches that the first address did not take, and another did";
    figures.counter("agent_failovers", failovers, read(&transfers.failovers));
    figures.counter("agent_batch_bytes", "Bytes of the batches that were taken", read(&transfers.bytes_of_items));
    figures.counter("agent_sent_bytes", "Bytes that were sent for these batches", read(&transfers.bytes_sent));
}

fn show_buffer(buffer: &BufferFigures, bytes_max: u64, figures: &mut Figures<'_>) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    figures.gauge("agent_buffer_disk_items", "Items waiting on the disk", read(&buffer.items) as f64);
    figures.gauge("agent_buffer_disk_bytes", "Bytes of the buffer's files", read(&buffer.bytes) as f64);
    figures.gauge("agent_buffer_disk_max_bytes", "Most bytes of the buffer's files", bytes_max as f64);
    figures.counter("agent_buffer_written", "Items written to the buffer's files", read(&buffer.written));
    let dropped = "Items that full buffer files lost since they were made";
    figures.counter("agent_buffer_dropped", dropped, read(&buffer.dropped));
    let missing = "Items found missing or damaged in the buffer's files since they were made";
    figures.counter("agent_buffer_missing", missing, read(&buffer.missing));
    let unusable = "Items too long for the buffer's files, and records there that are no items";
    figures.counter("agent_buffer_unusable", unusable, read(&buffer.unusable));
    figures.counter("agent_buffer_faults", "Work that the buffer's disk refused, or hung at", read(&buffer.faults));
}

#[cfg(test)]
mod tests;
