//! Plugins: files of the operator's git repository that run once in each cycle and print points.
//!
//! Reading order: `entry` (what hbs says), `tree` (what may be run), `plan` (what should run), `cycle` (when, and which
//! slot the points belong to), `child` (a program within bounds), `log`, `run` (one run),
//! `report` (what the agent says of it), `repository` (git).
//! How: the heartbeat hands over what hbs answers ([`Plugins::order`]); each answer is made into a plan anew, because a
//! file may have changed. Each plugin is a task that waits, runs and queues points. A plugin that is not in the plan
//! any more ends its run before it goes; one whose file has changed begins anew, a whole cycle later.
//! Invariants: nothing runs that hbs has not named, or while `plugin.enabled` is false. A plugin that hangs, floods or
//! forks costs its own run; of what the plugin directory holds up, only plugins wait.
//! Memory: [`PLUGINS_MAX`](plan::PLUGINS_MAX) tasks, and what runs hold (`run`).
//! Compat: docs/open-falcon/agent.md §5, docs/plugins.md.

mod child;
mod cycle;
mod entry;
mod log;
mod plan;
mod report;
mod repository;
mod run;
mod tree;

use crate::clock::unix_ms;
use crate::intake::{Stamp, batches_of};
use crate::live::Live;
use crate::queue::Queue;
use crate::schedule::Schedule;
use crate::user::User;
pub use entry::{Entry, arguments};
use metrics::Figures;
use plan::{Plan, Plugin};
use report::Counters;
use repository::Repository;
pub use repository::masked;
use run::{Fault, Ground, Ran, Reason, Runner};
use rustix::process::geteuid;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// The text for hbs, and for whoever asks for an update, while `plugin.enabled` is false.
pub const NOT_ENABLED: &str = "plugin not enabled";
/// The time that a look through the plugin directory may take.
const PLAN_TIMEOUT: Duration = Duration::from_secs(10);

/// The plugins of this host.
pub struct Plugins {
    ground: Arc<Ground>,
    queue: Arc<Queue>,
    hostname: String,
    /// Seconds between two reports about all plugins together.
    interval: i64,
    repository: Repository,
    /// The last answer of hbs; none before the first.
    ordered: watch::Sender<Option<Arc<[String]>>>,
    running: Mutex<BTreeMap<String, Running>>,
    counters: Counters,
}

/// A plugin that has a task.
struct Running {
    plugin: Plugin,
    /// Ends the task after the run that is under way.
    stop: watch::Sender<bool>,
    task: AbortHandle,
}

impl Plugins {
    /// Plugins of the host `hostname`, none of which runs yet.
    pub fn new(live: Arc<Live>, queue: Arc<Queue>, hostname: &str, interval: i64) -> Plugins {
        let ground = Ground::new(live);
        Plugins {
            repository: Repository::new(ground.hand.clone()),
            ground: Arc::new(ground),
            queue,
            hostname: hostname.to_string(),
            interval,
            ordered: watch::Sender::new(None),
            running: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// Whether plugins are asked for.
    pub fn is_enabled(&self) -> bool {
        self.ground.live.now().plugin.enabled
    }

    /// Takes hbs's answer: the entries that should run from now on.
    pub fn order(&self, entries: Vec<String>) {
        self.ordered.send_replace(Some(entries.into()));
    }

    /// Looks anew at what should run, after the settings have changed.
    pub fn look_again(&self) {
        self.ordered.send_modify(|_| {});
    }

    /// The plugin version that hbs gets.
    pub async fn version(&self) -> String {
        let settings = self.ground.live.now();
        if settings.plugin.enabled { self.repository.version(&settings.plugin).await } else { NOT_ENABLED.to_string() }
    }

    /// Clones or pulls the repository; answers the original's text.
    pub async fn update(&self) -> String {
        let settings = self.ground.live.now();
        if !settings.plugin.enabled {
            return NOT_ENABLED.to_string();
        }
        let answer = self.repository.update(&settings.plugin).await;
        // What was pulled runs without waiting for the next heartbeat.
        self.look_again();
        answer
    }

    /// Takes back changes in the repository's directory; answers the original's text.
    pub async fn reset(&self) -> String {
        let settings = self.ground.live.now();
        if settings.plugin.enabled { self.repository.reset(&settings.plugin).await } else { NOT_ENABLED.to_string() }
    }

    /// The plugins that run, by key, as the original shows them.
    pub fn shown(&self) -> Value {
        let running = self.running();
        let shown = running.iter().map(|(key, Running { plugin, .. })| {
            let Plugin { path, mtime, cycle_s, args } = plugin;
            (key.clone(), json!({"FilePath": path, "MTime": mtime, "Cycle": cycle_s, "Args": args}))
        });
        Value::Object(shown.collect())
    }

    /// Puts the figures of plugins on the agent's page.
    pub fn show(&self, figures: &mut Figures<'_>) {
        let runs = self.counters.runs.load(Ordering::Relaxed);
        figures.gauge("agent_plugins", "Plugins that run", self.running().len() as f64);
        figures.counter("agent_plugin_runs", "Runs of plugins", runs);
        figures.counter("agent_plugin_failures", "Runs of plugins that failed", self.counters.failures());
    }

    /// Runs what hbs asks for until `shutdown` turns true; then runs that are under way are killed.
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = self.run_for_ever(&mut tasks) => {}
        }
        self.ground.end();
        for one in self.running().values() {
            one.stop.send_replace(true);
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn run_for_ever(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let mut ordered = self.ordered.subscribe();
        // hbs may have answered before.
        ordered.mark_changed();
        let (mut follower, schedule) = (Follower::default(), Schedule::new(&self.hostname, self.interval));
        let mut reported_ms = unix_ms();
        loop {
            tokio::select! {
                // The sender is a field of `self`, so it cannot end.
                _ = ordered.changed() => self.follow(&mut follower, tasks).await,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => tell_if_broken(ended),
                () = tokio::time::sleep(schedule.wait(reported_ms, unix_ms())) => {
                    reported_ms = unix_ms();
                    self.report(reported_ms / 1000);
                }
            }
        }
    }

    /// Makes what runs into what hbs has asked for last.
    async fn follow(self: &Arc<Self>, follower: &mut Follower, tasks: &mut JoinSet<()>) {
        let Some(entries) = self.ordered.borrow().clone() else { return };
        let config = self.ground.live.now().plugin.clone();
        let look = move || if config.enabled { Plan::new(&config.dir, &entries) } else { Plan::default() };
        let plan = self.ground.hand.run(Instant::now() + PLAN_TIMEOUT, look).await;
        follower.tell(plan.as_ref());
        let Some(Plan { plugins, .. }) = plan else { return };
        let mut running = self.running();
        running.retain(|key, one| {
            let stays =
                !one.task.is_finished() && plugins.get(key).is_some_and(|plugin| plugin.mtime == one.plugin.mtime);
            if !stays {
                one.stop.send_replace(true);
            }
            stays
        });
        for (key, plugin) in plugins {
            running.entry(key).or_insert_with_key(|key| self.start(key.clone(), plugin, tasks));
        }
    }

    fn start(self: &Arc<Self>, key: String, plugin: Plugin, tasks: &mut JoinSet<()>) -> Running {
        let (stop, stopping) = watch::channel(false);
        let task = tasks.spawn(self.clone().run_plugin(key, plugin.clone(), stopping));
        Running { plugin, stop, task }
    }

    async fn run_plugin(self: Arc<Self>, key: String, plugin: Plugin, mut stopping: watch::Receiver<bool>) {
        let (schedule, mut last_ms) = cycle::runs(&key, plugin.cycle_s, unix_ms());
        let (mut runner, mut told) = (Runner::new(plugin.clone()), None);
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(schedule.wait(last_ms, unix_ms())) => {}
            }
            last_ms = unix_ms();
            let ran = runner.run(&self.ground).await;
            if ran.fault.is_some() && self.ground.is_ending() {
                return;
            }
            self.counters.count(&ran);
            tell(&key, ran.fault.as_ref(), &mut told);
            self.queue_run(&plugin, ran);
        }
    }

    /// Queues what a run has printed, and what there is to say of it.
    fn queue_run(&self, plugin: &Plugin, ran: Ran) {
        let step = u32::try_from(plugin.cycle_s).expect("checked to be at most a month");
        self.queue_readings(&report::readings(plugin, &ran), step, ran.span.begin);
        ran.batches.into_iter().for_each(|batch| self.queue.push(batch));
    }

    fn report(&self, timestamp: i64) {
        if self.running().is_empty() {
            return;
        }
        let step = u32::try_from(self.interval).expect("checked to be at most a day");
        self.queue_readings(&self.counters.readings(), step, timestamp);
    }

    fn queue_readings(&self, readings: &[probe::Reading], step: u32, timestamp: i64) {
        let settings = self.ground.live.now();
        let stamp = Stamp { endpoint: &self.hostname, step, timestamp };
        let batches = batches_of(readings, stamp, &settings.ignore, &settings.default_tags);
        batches.into_iter().for_each(|batch| self.queue.push(batch));
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().expect("nothing panics while this is locked")
    }
}

/// Refuses a user that plugins cannot run as; asked at a start and at a reload.
pub fn check_user(user: &str) -> Result<(), String> {
    if user.is_empty() && geteuid().is_root() {
        tracing::warn!("plugins run as root: name a user with fewer rights in plugin.user");
    }
    User::of("plugin.user", user).map(drop)
}

/// What the log was told about the plans so far.
#[derive(Default)]
struct Follower {
    refused: Vec<String>,
    hangs: bool,
}

impl Follower {
    /// Names what cannot run, once until that changes; no plan is a directory that does not answer.
    fn tell(&mut self, plan: Option<&Plan>) {
        let Some(plan) = plan else {
            if !std::mem::replace(&mut self.hangs, true) {
                tracing::warn!("the plugin directory does not answer: plugins go on as they were");
            }
            return;
        };
        self.hangs = false;
        if plan.refused != self.refused {
            for reason in &plan.refused {
                tracing::warn!(
                    reason,
                    "hbs asks for a plugin that cannot run; correct its group's plugins, or the repository"
                );
            }
            plan.refused.clone_into(&mut self.refused);
        }
    }
}

/// Names a fault of a plugin once until the reason changes.
fn tell(key: &str, fault: Option<&Fault>, told: &mut Option<Reason>) {
    let reason = fault.map(Fault::reason);
    if reason == *told {
        return;
    }
    match fault {
        Some(fault) => tracing::warn!(plugin = key, %fault, "a plugin failed (said once until that changes)"),
        None => tracing::info!(plugin = key, "a plugin is as it should be again"),
    }
    *told = reason;
}

fn tell_if_broken(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a plugin's task failed: this is a fault of the agent");
    }
}

#[cfg(test)]
mod tests;
