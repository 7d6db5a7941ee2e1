//! Probe: runs the probes that have no group on the server itself, and says what the places of the others say together
//! ([`places`]).
//!
//! Why: a site wants to watch its first URL before it has agents elsewhere.
//! How: as on agents, a runner (`netprobe`) has the definitions of the rules in effect, under the server's policy
//! (`[probe]`). What it finds is handed over in a queue; whoever takes it out writes the states first, then sends the
//! points in, so that the text of an alarm that these raise knows the reason.
//! Invariants: points go the way of all points, with the tag `from=server`; what the portal cannot take costs no point.
//! Memory: [`WAITING_MAX`] results, some KiB each; per probe what its place has said last.

pub mod places;

use crate::clock;
use crate::config::ProbeConfig;
use crate::engine::ingest::{Door, Ingest};
use crate::engine::{Engine, IngestError};
use crate::portal::Portal;
use crate::portal::probe::State;
use crate::portal::probe_state::{self, SERVER};
use crate::rules::InEffect;
use crate::rules::probes::Probes;
use crate::watch::health::Outage;
use anyhow::{Context, Result};
use metrics::Metrics;
use netprobe::{CONCURRENT_MAX, Definition, Means, Ran, Runner, RunnerCounters};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, watch};
use wire::Item;

/// Results that wait to be stored: 17 a second come of 1,000 probes, so the store may stand for a minute.
const WAITING_MAX: usize = 1024;
/// Results that are stored together.
const BATCH: usize = 128;

/// Runs the server's probes.
pub struct ServerProbes {
    pub engine: Arc<Engine>,
    pub ingest: Arc<Ingest>,
    pub portal: Portal,
    pub config: ProbeConfig,
    /// Said while points are not taken.
    pub unkept: Outage,
    /// Said while states cannot be written.
    pub untold: Outage,
}

impl ServerProbes {
    /// Runs what the rules in effect have for the server, until the stop.
    pub async fn run(
        self,
        in_effect: watch::Receiver<Arc<InEffect>>,
        metrics: Arc<Metrics>,
        stopping: watch::Receiver<bool>,
    ) -> Result<()> {
        let runner = Runner::new(self.config.policy(), Means::default(), SERVER, CONCURRENT_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        show_on(&metrics, runner.counters(), lost.clone());
        let (tell, told) = watch::channel(definitions(&in_effect.borrow().snapshot.probes));
        let (found, results) = mpsc::channel(WAITING_MAX);
        let take = move |ran| {
            if found.try_send(ran).is_err() {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        };
        let following = follow(in_effect.clone(), tell, stopping.clone());
        // The taker ends when the runner, which holds the other end of the queue, has ended.
        let ((), (), stored) =
            tokio::join!(following, runner.run(told, stopping, take), self.store(in_effect, results));
        stored
    }

    /// Stores what comes, until nothing more can come.
    async fn store(self, in_effect: watch::Receiver<Arc<InEffect>>, mut results: mpsc::Receiver<Ran>) -> Result<()> {
        let (work, mut said) = (Arc::new(self), HashMap::new());
        let mut batch = Vec::new();
        while results.recv_many(&mut batch, BATCH).await > 0 {
            let probes = in_effect.borrow().snapshot.probes.clone();
            work.untold.note(work.tell(&probes, &batch, &mut said).await);
            let (storing, taken) = (work.clone(), std::mem::take(&mut batch));
            let stored = work.engine.spawn_blocking(move |_| storing.send(&taken));
            work.unkept.note(stored.await.context("storing what probes have found")?);
        }
        Ok(())
    }

    /// Writes what is said anew of probes; `said` is what was said before.
    async fn tell(&self, probes: &Probes, batch: &[Ran], said: &mut HashMap<i64, State>) -> sqlx::Result<()> {
        said.retain(|id, _| probes.by_id(*id).is_some());
        let mut new: HashMap<i64, State> = HashMap::new();
        for ran in batch {
            // One that was deleted while it ran has no id any more.
            let Some(probe) = probes.by_name(&ran.definition.name) else { continue };
            let state = state_of(probe.id, ran);
            if said.get(&probe.id).is_none_or(|before| !before.says_as(&state)) {
                new.insert(probe.id, state);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let rows: Vec<State> = new.values().cloned().collect();
        probe_state::set(&self.portal, SERVER, &rows).await?;
        said.extend(new);
        Ok(())
    }

    /// Sends the points in.
    fn send(&self, batch: &[Ran]) -> Result<(), IngestError> {
        let mut points = self.ingest.begin(Door::Probe, clock::now());
        for ran in batch {
            for reading in &ran.outcome.readings {
                points.push(&Item {
                    endpoint: &ran.definition.name,
                    metric: &reading.metric,
                    tags: &from(&reading.tags, SERVER),
                    value: reading.value,
                    step: ran.definition.step,
                    counter_type: reading.counter_type,
                    timestamp: ran.time,
                });
            }
        }
        points.finish().map(drop)
    }
}

/// Shows the figures of the runner.
fn show_on(metrics: &Metrics, counters: Arc<RunnerCounters>, lost: Arc<AtomicU64>) {
    metrics.source(move |figures| {
        let RunnerCounters { runs, down, missed, faults } = &*counters;
        let all = [
            ("probe_runs", "Runs of the server's probes that have ended", runs),
            ("probe_runs_down", "Runs of the server's probes that were down", down),
            ("probe_runs_missed", "Runs of the server's probes that were left out, for others went on", missed),
            ("probe_runs_failed", "Runs of the server's probes that ended by a fault of the server", faults),
            ("probe_results_lost", "Results of the server's probes that found no place to wait for the store", &lost),
        ];
        for (name, help, count) in all {
            figures.counter(name, help, count.load(Ordering::Relaxed));
        }
    });
}

/// Tells the runner of other definitions.
async fn follow(
    mut in_effect: watch::Receiver<Arc<InEffect>>,
    tell: watch::Sender<Arc<[Arc<Definition>]>>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut probes = in_effect.borrow_and_update().snapshot.probes.clone();
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            changed = in_effect.changed() => if changed.is_err() { return },
        }
        let now = in_effect.borrow_and_update().snapshot.probes.clone();
        if !Arc::ptr_eq(&now, &probes) {
            probes = now;
            let new = definitions(&probes);
            tell.send_if_modified(|told| {
                let is_new = *told != new;
                *told = new;
                is_new
            });
        }
    }
}

fn definitions(probes: &Probes) -> Arc<[Arc<Definition>]> {
    probes.of_server().map(|probe| probe.definition.clone()).collect()
}

/// Tags with the place that has seen it.
fn from(tags: &str, place: &str) -> String {
    let place = probe::tag("from", place);
    match tags {
        "" => place,
        tags => model::tags::canonical_string(&format!("{tags},{place}")),
    }
}

fn state_of(probe_id: i64, ran: &Ran) -> State {
    let reason = ran.outcome.reason.as_ref();
    State {
        probe_id,
        place: SERVER.to_string(),
        up: ran.outcome.up.into(),
        code: reason.map_or("", |reason| reason.code.as_str()).to_string(),
        reason: reason.map_or("", |reason| reason.text.as_str()).to_string(),
        changed_at: ran.time,
    }
}

#[cfg(test)]
mod tests;
