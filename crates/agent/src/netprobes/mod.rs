//! Netprobes: probes over the network that hbs has this agent run, and what they find.
//!
//! Reading order: `known` (what hbs has given), `states` (what hbs is told), `points` (what transfers get),
//! `talk` (the conversation with hbs).
//! How: with each heartbeat hbs is asked whether the probes have changed ([`Probes::beat`]); a [`Runner`] runs what is
//! known. Points of runs are gathered for [`GATHER`]. Where one of them may raise an alarm, hbs is told of the probe's
//! new state before they are queued, so that the alarm's text knows the reason.
//! Invariants: hbs holds no point longer than [`TELL_TIMEOUT`]; what it was not told then, it is told with the next
//! heartbeat that reaches it. A definition that cannot be run costs itself only. While hbs is away, what is known runs.
//! Memory: definitions of at most [`known::BYTES_MAX`], a state per probe, [`points::ITEMS_MAX`] gathered items, and
//! what runs hold (`netprobe::Runner`).

mod known;
mod points;
mod states;
mod talk;

use crate::batch::Batch;
use crate::client::Client;
use crate::clock::{unix_ms, unix_now};
use crate::intake::{Stamp, batches_of};
use crate::live::Live;
use crate::probes_config::ProbesConfig;
use crate::queue::Queue;
use crate::schedule::Schedule;
use known::{Known, Runnable};
use metrics::Figures;
use netprobe::delivery::State;
use netprobe::{Definition, Means, Ran, Runner, RunnerCounters};
use points::Gathered;
use probe::Reading;
use states::States;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use talk::Talk;
use tokio::sync::{Notify, watch};

/// The time over which points of runs are gathered: of 1,000 probes a minute, those of some eight runs go as one batch.
const GATHER: Duration = Duration::from_millis(500);
/// The time that points wait for hbs to take the states behind them.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

/// The probes that this agent runs over the network.
pub struct Probes {
    live: Arc<Live>,
    queue: Arc<Queue>,
    hostname: String,
    /// Seconds between two reports about all probes together.
    interval: i64,
    /// A client without a connection, like the one of the heartbeat; known since the first.
    client: OnceLock<Client>,
    definitions: watch::Sender<Arc<[Arc<Definition>]>>,
    /// Changes when the settings may have changed.
    settings: watch::Sender<()>,
    found: Mutex<Found>,
    gathered: Notify,
    talk: tokio::sync::Mutex<Talk>,
    counters: Arc<RunnerCounters>,
    /// Probes that cannot be run, and probes that are too many.
    refused: AtomicU64,
    left_out: AtomicU64,
    /// States that were told.
    told: AtomicU64,
    /// Calls about probes that hbs did not answer as it should.
    failures: AtomicU64,
}

/// What runs have found, and nobody has yet.
#[derive(Default)]
struct Found {
    /// Ids of the probes that run, by name.
    ids: HashMap<String, i64>,
    states: States,
    points: Gathered,
    /// Points that wait for hbs to take the states behind them.
    leaving: Vec<Batch>,
    /// Whether states wait for the next heartbeat, because hbs does not answer.
    is_hbs_away: bool,
}

impl Probes {
    /// Probes of the agent `hostname`, none of which runs yet.
    pub fn new(live: Arc<Live>, queue: Arc<Queue>, hostname: &str, interval: i64) -> Probes {
        Probes {
            live,
            queue,
            hostname: hostname.to_string(),
            interval,
            client: OnceLock::new(),
            definitions: watch::Sender::new(Arc::new([])),
            settings: watch::Sender::new(()),
            found: Mutex::default(),
            gathered: Notify::new(),
            talk: tokio::sync::Mutex::default(),
            counters: Arc::default(),
            refused: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            told: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Looks anew at the settings, after they have changed.
    pub fn look_again(&self) {
        self.settings.send_replace(());
    }

    /// Puts the figures of probes on the agent's page.
    pub fn show(&self, figures: &mut Figures<'_>) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        figures.gauge("agent_probes", "Probes over the network that run", self.running() as f64);
        let refused = "Probes that hbs gives, and that cannot be run";
        figures.gauge("agent_probes_refused", refused, read(&self.refused) as f64);
        let left_out = "Probes that hbs gives beyond what an agent runs";
        figures.gauge("agent_probes_left_out", left_out, read(&self.left_out) as f64);
        figures.counter("agent_probe_runs", "Runs of probes", read(&self.counters.runs));
        figures.counter("agent_probe_down", "Runs of probes that were down", read(&self.counters.down));
        figures.counter("agent_probe_missed", "Times at which a probe could not run", read(&self.counters.missed));
        figures.counter("agent_probe_faults", "Runs that failed by the agent's fault", read(&self.counters.faults));
        figures.counter("agent_probe_states_told", "States of probes that hbs was told", read(&self.told));
        let failures = "Calls about probes that hbs did not answer as it should";
        figures.counter("agent_probe_call_failures", failures, read(&self.failures));
    }

    /// Runs what hbs gives until `shutdown` turns true; then runs that are under way are dropped, and what they have
    /// found is queued.
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = self.run_for_ever() => {}
            () = self.hand_on_for_ever() => {}
            () = self.report_for_ever() => {}
        }
        self.queue_points();
    }

    /// Runs the probes, by other rules when the settings have changed.
    async fn run_for_ever(&self) {
        let mut settings = self.settings.subscribe();
        loop {
            settings.mark_unchanged();
            let config = self.live.now().probes.clone();
            let changed = async {
                while self.live.now().probes == config {
                    // The sender is a field of `self`, so it cannot end.
                    let _ = settings.changed().await;
                }
            };
            tokio::select! {
                () = self.run_by(&config) => {}
                () = changed => tracing::info!("probes run by other settings from now on"),
            }
        }
    }

    async fn run_by(&self, config: &ProbesConfig) {
        let policy = match config.policy() {
            Ok((policy, trouble)) if config.enabled => {
                if let Some(error) = trouble {
                    tracing::warn!(error, "probes of the kind script do not run");
                }
                policy
            }
            Ok(_) => return std::future::pending().await,
            Err(error) => {
                // Settings are checked before they are in effect; a user may be gone since.
                tracing::warn!(error, "probes do not run");
                return std::future::pending().await;
            }
        };
        let runner = Runner::new(policy, Means::default(), &self.hostname, config.concurrent_max);
        let runner = runner.with_counters(self.counters.clone());
        // Dropping the runner drops its runs; the sender lives as long as it does.
        let (_stop, stopping) = watch::channel(false);
        runner.run(self.definitions.subscribe(), stopping, |ran| self.take(ran)).await;
    }

    /// Takes what a run has found.
    fn take(&self, ran: Ran) {
        let mut found = self.found();
        if let Some(id) = found.ids.get(&ran.definition.name).copied() {
            found.states.saw(states::of_run(id, &ran));
        }
        let is_full = found.points.push(&ran, &self.hostname);
        drop(found);
        if is_full {
            self.queue_points();
        }
        self.gathered.notify_one();
    }

    /// Hands on what was gathered: states first where they may be the reason of an alarm, then points.
    async fn hand_on_for_ever(&self) {
        loop {
            self.gathered.notified().await;
            tokio::time::sleep(GATHER).await;
            let urgent = {
                let mut found = self.found();
                found.leaving = std::mem::take(&mut found.points).finish();
                let urgent = found.states.take_urgent();
                if found.is_hbs_away { Vec::new() } else { urgent }
            };
            if !urgent.is_empty() {
                self.tell_urgently(&urgent).await;
            }
            let leaving = std::mem::take(&mut self.found().leaving);
            leaving.into_iter().for_each(|batch| self.queue.push(batch));
        }
    }

    /// Queues what was gathered as it is.
    fn queue_points(&self) {
        let mut found = self.found();
        let leaving = std::mem::take(&mut found.leaving);
        let points = std::mem::take(&mut found.points).finish();
        drop(found);
        leaving.into_iter().chain(points).for_each(|batch| self.queue.push(batch));
    }

    /// Makes what runs into what is known; tells what cannot run as the state of that probe.
    fn put_in_effect(&self, known: &Known) {
        let Runnable { definitions, refused, left_out } = known.runnable();
        let is_more = |counter: &AtomicU64, count: usize| counter.swap(count as u64, Ordering::Relaxed) < count as u64;
        if is_more(&self.refused, refused.len()) {
            tracing::warn!(count = refused.len(), "some probes cannot be run here: the portal shows which, and why");
        }
        if is_more(&self.left_out, left_out) {
            tracing::warn!(left_out, "hbs gives more probes than an agent runs: give some of them to other agents");
        }
        let time = unix_now();
        let mut found = self.found();
        found.ids = definitions.iter().map(|(id, definition)| (definition.name.clone(), *id)).collect();
        found.states.keep(|id| known.has(id));
        for (id, reason) in refused {
            tracing::debug!(id, reason, "a probe cannot be run");
            found.states.saw(State { id, up: false, code: "definition".into(), reason, time });
        }
        drop(found);
        self.definitions.send_replace(definitions.into_values().collect());
    }

    /// Reports about all probes together, once per interval, while there are any.
    async fn report_for_ever(&self) {
        let schedule = Schedule::new(&self.hostname, self.interval);
        loop {
            let before_ms = unix_ms();
            tokio::time::sleep(schedule.wait(before_ms, unix_ms())).await;
            let known = self.running() as u64 + self.refused.load(Ordering::Relaxed);
            if known == 0 {
                continue;
            }
            let settings = self.live.now();
            let step = u32::try_from(self.interval).expect("checked to be at most a day");
            let stamp = Stamp { endpoint: &self.hostname, step, timestamp: unix_now() };
            let batches = batches_of(&self.readings(), stamp, &settings.ignore, &settings.default_tags);
            batches.into_iter().for_each(|batch| self.queue.push(batch));
        }
    }

    /// Readings about all probes together: docs/probes.md, "From agents".
    fn readings(&self) -> [Reading; 5] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        [
            Reading::gauge("agent.probe.count", "", self.running() as f64),
            Reading::gauge("agent.probe.refused", "", read(&self.refused) + read(&self.left_out)),
            Reading::counter("agent.probe.runs", "", read(&self.counters.runs)),
            Reading::counter("agent.probe.down", "", read(&self.counters.down)),
            Reading::counter("agent.probe.missed", "", read(&self.counters.missed)),
        ]
    }

    fn running(&self) -> usize {
        if self.live.now().probes.enabled { self.definitions.borrow().len() } else { 0 }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().expect("nothing panics while this is locked")
    }
}

#[cfg(test)]
mod tests;
