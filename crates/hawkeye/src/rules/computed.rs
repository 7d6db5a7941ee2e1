//! Computed: what became of each aggregator when it was computed last, for whoever asks why there is no value.
//!
//! An entry keeps since when there is no value, too.
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
pub struct Lasts(Arc<Mutex<HashMap<i64, Noted>>>);

struct Noted {
    last: Last,
    /// Unix seconds since which there is no value, while there is none.
    since: Option<i64>,
}

/// Aggregators without a value.
pub struct Failed {
    pub count: usize,
    /// Unix seconds when the first of them lost its value.
    pub since: i64,
    /// The first of them by their ids, and why.
    pub first: Vec<(i64, String)>,
}

impl Lasts {
    /// The last computation of an aggregator; none before the first.
    pub fn of(&self, id: i64) -> Option<Last> {
        self.lock().get(&id).map(|noted| noted.last.clone())
    }

    /// Notes a computation; true when there is no value now, and was one before.
    pub fn note(&self, id: i64, last: Last) -> bool {
        let mut lasts = self.lock();
        let before = lasts.get(&id).and_then(|noted| noted.since);
        let since = last.value.is_none().then(|| before.unwrap_or(last.time));
        lasts.insert(id, Noted { last, since });
        since.is_some() && before.is_none()
    }

    /// Rows that have no value, if any; `most` of them are named.
    pub fn without_value(&self, most: usize) -> Option<Failed> {
        let lasts = self.lock();
        let failed = lasts.iter().filter_map(|(id, noted)| Some((*id, noted.since?, &noted.last.why)));
        let mut failed: Vec<(i64, i64, &String)> = failed.collect();
        failed.sort_unstable();
        let since = failed.iter().map(|(_, since, _)| *since).min()?;
        let first = failed.iter().take(most).map(|(id, _, why)| (*id, (*why).clone())).collect();
        Some(Failed { count: failed.len(), since, first })
    }

    /// Forgets the aggregators that are no more.
    pub fn keep(&self, is_there: impl Fn(i64) -> bool) {
        self.lock().retain(|id, _| is_there(*id));
    }

    /// Number of aggregators whose last computation had no value.
    pub fn failed(&self) -> usize {
        self.lock().values().filter(|noted| noted.since.is_some()).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Noted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
