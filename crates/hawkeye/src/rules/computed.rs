//! Computed: what became of each aggregator when it was computed last, for whoever asks why there is no value.
//!
//! Invariants: one entry per aggregator that exists; the list of what is missing has a bound (`aggregate.rs`).

use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The last computation of one aggregator, as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Last {
    /// Unix seconds.
    pub time: i64,
    /// None where it could not be computed.
    pub value: Option<f64>,
    pub numerator: f64,
    pub denominator: f64,
    /// Hosts of the group outside maintenance, and those of them that have all counters.
    pub hosts: usize,
    pub valid: usize,
    /// Counters without a value of late, the first of them.
    pub missing: Vec<Missing>,
    /// Why there is no value; "" where there is one.
    pub why: String,
}

/// A counter of a host that has no value of late.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Missing {
    pub endpoint: String,
    pub counter: String,
}

/// Last computations by the aggregators' ids; clones share them.
#[derive(Clone, Default)]
pub struct Lasts(Arc<Mutex<HashMap<i64, Last>>>);

impl Lasts {
    /// The last computation of an aggregator; none before the first.
    pub fn of(&self, id: i64) -> Option<Last> {
        self.lock().get(&id).cloned()
    }

    /// Notes a computation.
    pub fn note(&self, id: i64, last: Last) {
        self.lock().insert(id, last);
    }

    /// Forgets the aggregators that are no more.
    pub fn keep(&self, is_there: impl Fn(i64) -> bool) {
        self.lock().retain(|id, _| is_there(*id));
    }

    /// Number of aggregators whose last computation had no value.
    pub fn failed(&self) -> usize {
        self.lock().values().filter(|last| last.value.is_none()).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
