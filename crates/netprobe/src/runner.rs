//! Runner: runs many probes, each once in its step, not too many at a time.
//!
//! How: one task that waits for the next due time, for a run that ends, or for other definitions; each run is a task of
//! its own. What is due while all places are taken waits in the plan. What a run has found is handed to a function,
//! which takes it at once: a queue, if one is needed, is the caller's, with his bound.
//! Invariants: no probe runs twice at the same time; a run that panics costs itself only; when the runner stops, its
//! runs are dropped. A quarter of the places is for probes whose last run was quick, so that those whose targets hang
//! hold up each other only.
//! Memory: per probe a definition and 40 bytes; per run what it holds, [`CONCURRENT_MAX`] at a time unless the caller
//! says otherwise.

mod plan;

use crate::definition::Definition;
use crate::means::Means;
use crate::outcome::Outcome;
use crate::policy::Policy;
use crate::run::run;
use plan::{Now, Plan};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep};

/// Runs at a time where nobody says otherwise: 1,000 probes a minute are 17 a second, and where each of their targets
/// is silent for the usual 5 s, 83 run at once. Of those that speak TLS each holds some 60 KiB.
pub const CONCURRENT_MAX: usize = 128;
/// Time in which a quick probe's run ends; most take milliseconds.
const QUICK: Duration = Duration::from_secs(1);
/// Longest sleep, at which the plan is looked at again.
const SLEEP_MAX_MS: u64 = 60_000;

/// What one run of a probe has found.
#[derive(Clone, Debug)]
pub struct Ran {
    pub definition: Arc<Definition>,
    /// Unix seconds at which it began.
    pub time: i64,
    pub outcome: Outcome,
}

/// Figures of a runner.
#[derive(Debug, Default)]
pub struct RunnerCounters {
    /// Runs that have ended.
    pub runs: AtomicU64,
    /// Ended runs that were down.
    pub down: AtomicU64,
    /// Slots without a run, because the places were taken or the run before had not ended.
    pub missed: AtomicU64,
    /// Runs that ended by a fault of ours.
    pub faults: AtomicU64,
}

/// Runs many probes.
pub struct Runner {
    policy: Arc<Policy>,
    means: Means,
    /// Where it runs, for the offsets.
    place: String,
    concurrent_max: usize,
    counters: Arc<RunnerCounters>,
    /// Unix milliseconds.
    clock: fn() -> i64,
}

impl Runner {
    /// A runner at `place` (a host's name), of at most `concurrent_max` runs at a time.
    pub fn new(policy: Policy, means: Means, place: &str, concurrent_max: usize) -> Runner {
        Runner {
            policy: Arc::new(policy),
            means,
            place: place.to_string(),
            concurrent_max: concurrent_max.max(1),
            counters: Arc::default(),
            clock: unix_ms,
        }
    }

    /// The runner with figures that it goes on counting, as a runner before it has begun.
    pub fn with_counters(self, counters: Arc<RunnerCounters>) -> Runner {
        Runner { counters, ..self }
    }

    /// Figures, which go on counting.
    pub fn counters(&self) -> Arc<RunnerCounters> {
        self.counters.clone()
    }

    /// Runs the probes of `definitions`, whose names are different, until `stop` turns true; `take` gets what each run
    /// has found, at once.
    pub async fn run(
        self,
        mut definitions: watch::Receiver<Arc<[Arc<Definition>]>>,
        mut stop: watch::Receiver<bool>,
        mut take: impl FnMut(Ran),
    ) {
        let started = Instant::now();
        let now = || Now { wall_ms: (self.clock)(), steady_ms: started.elapsed().as_millis() as i64 };
        let (mut plan, mut running) = (Plan::default(), Running::default());
        let mut is_told = true;
        let first = definitions.borrow_and_update().clone();
        plan.replace(&first, &self.place, now());
        loop {
            while running.tasks.len() < self.concurrent_max
                && let Some(due) = plan.take(now())
            {
                self.counters.missed.fetch_add(due.missed, Ordering::Relaxed);
                self.begin(due.definition, &mut running);
            }
            let is_full = running.tasks.len() >= self.concurrent_max;
            let wait_ms = plan.wait_ms(now().steady_ms).unwrap_or(SLEEP_MAX_MS).min(SLEEP_MAX_MS);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                Some(ended) = running.tasks.join_next_with_id() => {
                    if let Some(ran) = self.end(ended, &mut running) {
                        take(ran);
                    }
                }
                changed = definitions.changed(), if is_told => {
                    // Where who tells them is gone, what is known goes on until the stop.
                    is_told = changed.is_ok();
                    let new = definitions.borrow_and_update().clone();
                    let names: HashSet<&str> = new.iter().map(|definition| definition.name.as_str()).collect();
                    running.quick.retain(|name| names.contains(name.as_str()));
                    plan.replace(&new, &self.place, now());
                }
                _ = sleep(Duration::from_millis(wait_ms)), if !is_full => {}
            }
        }
    }

    /// Begins a run, unless the one before goes on.
    fn begin(&self, definition: Arc<Definition>, running: &mut Running) {
        let is_slow = !running.quick.contains(&definition.name);
        let has_no_place = is_slow && running.slow() >= (self.concurrent_max * 3 / 4).max(1);
        if has_no_place || running.names.values().any(|(name, _)| *name == definition.name) {
            self.counters.missed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (policy, means, time) = (self.policy.clone(), self.means.clone(), (self.clock)().div_euclid(1000));
        let name = definition.name.clone();
        let task = running.tasks.spawn(async move {
            let begun = Instant::now();
            let outcome = run(&definition, &policy, &means).await;
            (Ran { definition, time, outcome }, begun.elapsed() < QUICK)
        });
        running.names.insert(task.id(), (name, is_slow));
    }

    /// Notes the end of a run.
    fn end(&self, ended: Result<(Id, (Ran, bool)), JoinError>, running: &mut Running) -> Option<Ran> {
        match ended {
            Ok((id, (ran, is_quick))) => {
                running.names.remove(&id);
                match is_quick {
                    true => _ = running.quick.insert(ran.definition.name.clone()),
                    false => _ = running.quick.remove(&ran.definition.name),
                }
                self.counters.runs.fetch_add(1, Ordering::Relaxed);
                self.counters.down.fetch_add(u64::from(!ran.outcome.up), Ordering::Relaxed);
                Some(ran)
            }
            Err(error) => {
                let (name, _) = running.names.remove(&error.id()).unwrap_or_default();
                self.counters.faults.fetch_add(1, Ordering::Relaxed);
                tracing::error!(name, %error, "a probe's run failed: this is a fault of the prober");
                None
            }
        }
    }
}

/// Runs that go on.
#[derive(Default)]
struct Running {
    /// With each whether it was quick.
    tasks: JoinSet<(Ran, bool)>,
    /// Names of the probes, few enough to be looked through, and whether each has a place of the slow.
    names: HashMap<Id, (String, bool)>,
    /// Probes whose last run was quick.
    quick: HashSet<String>,
}

impl Running {
    fn slow(&self) -> usize {
        self.names.values().filter(|(_, is_slow)| *is_slow).count()
    }
}

/// Time now (Unix milliseconds).
fn unix_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::cell::OnceCell;

    thread_local! {
        /// Start of a test's clock, which stands still but while everybody waits.
        static START: OnceCell<Instant> = const { OnceCell::new() };
    }

    fn test_clock() -> i64 {
        let start = START.with(|start| *start.get_or_init(Instant::now));
        1_000_000_000_000 + start.elapsed().as_millis() as i64
    }

    /// Probes of a host that the policy denies, which therefore open no socket.
    fn denied(count: usize) -> Arc<[Arc<Definition>]> {
        let read = |i| serde_json::from_value(json!({"name": format!("p{i}"), "kind": "tcp", "target": "127.0.0.1:1"}));
        (0..count).map(|i| Arc::new(read(i).expect("a definition"))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_probes_run_once_a_minute_and_spread() {
        let runner = Runner { clock: test_clock, ..Runner::new(Policy::server(), Means::default(), "h", 4) };
        let counters = runner.counters();
        let (tell, told) = watch::channel(denied(1000));
        let (stop, stopping) = watch::channel(false);
        let (sender, mut ran) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(runner.run(told, stopping, move |ran| _ = sender.send(ran)));
        sleep(Duration::from_secs(600)).await;
        tell.send_replace(denied(1));
        sleep(Duration::from_secs(600)).await;
        stop.send_replace(true);
        task.await.expect("no panic");
        let mut per_second = std::collections::BTreeMap::<i64, usize>::new();
        let (mut all, mut of_first) = (0, Vec::new());
        while let Some(ran) = ran.recv().await {
            *per_second.entry(ran.time).or_default() += 1;
            all += 1;
            assert_eq!(ran.outcome.reason.map(|reason| reason.code), Some(crate::Code::Denied));
            if ran.definition.name == "p0" {
                of_first.push(ran.time / 60);
            }
        }
        assert!((9_000..=10_020).contains(&all), "{all}");
        assert!(per_second.values().all(|count| *count <= 60), "{per_second:?}");
        assert!(of_first.len() >= 19 && of_first.windows(2).all(|pair| pair[1] == pair[0] + 1), "{of_first:?}");
        assert_eq!(counters.runs.load(Ordering::Relaxed), all);
        assert_eq!((counters.missed.load(Ordering::Relaxed), counters.faults.load(Ordering::Relaxed)), (0, 0));
    }
}
