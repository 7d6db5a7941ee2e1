//! Switched on: the rounds of what a host's owner has switched on, each at its own times.
//!
//! How: a collector's round comes once in each slot, as the reports of the other groups do. What fails is counted each
//! time and told in the log when it begins and when it ends; so is a round that does not end, as on a mount that hangs.

use crate::Agent;
use crate::clock::unix_ms;
use crate::collect::{Collector, Fault, Moment, Told};
use crate::schedule::Schedule;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A round that takes longer is told: programs that are asked may take 20 s, and 30 in all.
const HANGS_AFTER: Duration = Duration::from_secs(40);

impl Agent {
    /// Collects and queues once per interval.
    pub(crate) async fn report_switched_on(self: Arc<Self>, collector: Collector, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = self.rounds(collector) => {}
        }
    }

    async fn rounds(&self, mut collector: Collector) {
        let schedule = Schedule::new(&self.config.hostname, self.config.interval);
        let (mut told, mut before_ms) = (Told::default(), None);
        loop {
            let (started_ms, monotonic_ms) = (unix_ms(), self.started.elapsed().as_millis() as u64);
            let elapsed_ms = before_ms.map_or(0, |before_ms| monotonic_ms - before_ms);
            let moment = Moment { monotonic_ms, unix: started_ms / 1000, elapsed_ms };
            let (name, scope) = (collector.name(), self.live.now().scope.clone());
            let mut collecting = std::pin::pin!(collector.collect(&scope.roots, moment));
            let collected = loop {
                match tokio::time::timeout(HANGS_AFTER, &mut collecting).await {
                    Ok(collected) => break collected,
                    Err(_) => {
                        let why = format!("a round has not ended within {} s", HANGS_AFTER.as_secs());
                        self.tell(&mut told, name, &[Fault { of: name.to_string(), why }]);
                    }
                }
            };
            self.tell(&mut told, name, &collected.faults);
            self.queue_readings(&collected.readings, started_ms / 1000);
            drop(collected);
            before_ms = Some(monotonic_ms);
            tokio::time::sleep(schedule.wait(started_ms, unix_ms())).await;
        }
    }
}
