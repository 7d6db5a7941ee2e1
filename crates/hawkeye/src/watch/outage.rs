//! Outage: work that may fail for long is logged when it begins to fail and when it succeeds again, not at each
//! attempt.

use std::fmt::Display;

/// A kind of work that is tried again and again.
pub struct Outage {
    text: &'static str,
    failing: bool,
}

impl Outage {
    pub fn of(text: &'static str) -> Outage {
        Outage { text, failing: false }
    }

    pub fn note<T>(&mut self, result: Result<T, impl Display>) {
        let was_failing = std::mem::replace(&mut self.failing, result.is_err());
        match result {
            Err(error) if !was_failing => tracing::error!(%error, "{}; tried again until it works", self.text),
            Ok(_) if was_failing => tracing::info!("over: {}", self.text),
            _ => {}
        }
    }
}
