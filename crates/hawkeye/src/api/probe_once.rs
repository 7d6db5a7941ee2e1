//! Once: a probe that is run from the server at once, for somebody who writes one (`POST /probe/test`).
//!
//! Why: whoever writes a probe wants to see what it sees, before it alarms.
//! Invariants: the server's policy (`[probe]`) says whom it may ask; no script runs; a run has its own `timeout_ms`, at
//! most a minute, and ends early with the server.
//! Memory: at most [`TESTS_MAX`] run at a time, one more is refused; each reads what one probe reads.

use super::Context;
use super::error::ApiError;
use axum::http::StatusCode;
use netprobe::{Definition, Kind, Means, Outcome};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Tests that run at a time: some people, each with one at a time, and nobody who loads others through us.
const TESTS_MAX: usize = 4;

/// What all tests share; clones are the same.
#[derive(Clone)]
pub struct Tester {
    places: Arc<Semaphore>,
    means: Means,
}

impl Default for Tester {
    fn default() -> Tester {
        Tester { places: Arc::new(Semaphore::new(TESTS_MAX)), means: Means::default() }
    }
}

/// Runs a probe once, under the server's policy.
pub async fn run(context: &Context, definition: &Definition) -> Result<Outcome, ApiError> {
    if matches!(definition.kind, Kind::Script(_)) {
        return Err(ApiError::bad(
            "kind is script, which runs on agents only: run `hawkeye probe script PATH` on a host that has the program",
        ));
    }
    let Ok(_place) = context.tester.places.try_acquire() else {
        let text = format!("{TESTS_MAX} tests of probes are running: try again when one has ended");
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, text));
    };
    let policy = context.config.probe.policy();
    let mut stopping = context.stopping.clone();
    let asking = netprobe::run(definition, &policy, &context.tester.means);
    tokio::select! {
        outcome = asking => Ok(outcome),
        // Who has no sender is never stopped.
        Ok(_) = stopping.wait_for(|stopping| *stopping) => {
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping: try again"))
        }
    }
}

#[cfg(test)]
impl Tester {
    /// All places but `left`, taken until it is dropped.
    pub fn taken(&self, left: usize) -> tokio::sync::OwnedSemaphorePermit {
        let count = u32::try_from(TESTS_MAX - left).expect("few");
        self.places.clone().try_acquire_many_owned(count).expect("nobody else has one")
    }
}
