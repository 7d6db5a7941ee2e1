//! Aggregator: computes the series of groups (`falcon_portal.cluster`) and sends them in as points.
//!
//! Why: the original asks its api for the last points of all hosts over HTTP each step; here the store is beside it.
//! How: rows come with the rules in effect. Each is due once a step, at a second of its own, so that a thousand of them
//! do not come at once; what is due is computed together, at one moment, on a thread that may wait for the disk. Points
//! go the way of all points: they are stored, judged and refused as those of agents.
//! Invariants: a value older than two steps, or ahead of now, does not count; a row that cannot be computed costs no
//! other, and says why (`rules/computed.rs`).
//! Memory: a due time per row; while one is computed, the newest points of its counters.
//! Compat: docs/open-falcon/aggregator-nodata-gateway.md §1.

pub mod alone;
pub mod http;

use crate::clock;
use crate::engine::ingest::{Door, Ingest};
use crate::engine::{Engine, IngestError};
use crate::portal::aggregator::Aggregator;
use crate::rules::InEffect;
use crate::rules::aggregate::{self, Computed, Side};
use crate::rules::computed::{Last, Lasts, Missing};
use crate::rules::snapshot::Snapshot;
use crate::watch::health::Outage;
use anyhow::{Context, Result};
use metrics::Metrics;
use model::{CounterType, Point};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::Item;

/// Pause between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);

/// Computes what is due.
#[derive(Clone)]
pub struct Aggregators {
    pub engine: Arc<Engine>,
    pub ingest: Arc<Ingest>,
    pub lasts: Lasts,
}

impl Aggregators {
    /// Shows how many rows could not be computed.
    pub fn show_on(&self, metrics: &Metrics) {
        let lasts = self.lasts.clone();
        metrics.source(move |figures| {
            let help = "Aggregators that had no value when they were computed last";
            figures.gauge("aggregators_without_value", help, lasts.failed() as f64);
        });
    }

    /// Computes each second what is due, until the stop. `outage` says while points are not taken.
    pub async fn run(
        self,
        in_effect: watch::Receiver<Arc<InEffect>>,
        outage: Outage,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<()> {
        let mut due = Due::default();
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            let (rules, now) = (in_effect.borrow().clone(), clock::now());
            self.lasts.keep(|id| rules.snapshot.aggregators.iter().any(|row| row.id == id));
            let rows = due.take(&rules.snapshot.aggregators, now);
            if rows.is_empty() {
                continue;
            }
            let work = self.clone();
            let computing = self.engine.spawn_blocking(move |_| work.compute(&rules, &rows, now));
            outage.note(computing.await.context("computing aggregators")?);
        }
    }

    /// Computes these rows at `now`, and sends their points in.
    fn compute(&self, rules: &InEffect, rows: &[usize], now: i64) -> Result<(), IngestError> {
        let mut points = Vec::new();
        for row in rows.iter().map(|row| &rules.snapshot.aggregators[*row]) {
            let store = self.engine.store();
            let last = last_of(&rules.snapshot, row, now, |hosts, counters| {
                let found = store.find_each(hosts, counters);
                found.into_iter().map(|found| store.last(found?)).collect()
            });
            points.extend(last.value.map(|value| (row, value)));
            self.lasts.note(row.id, last);
        }
        let mut batch = self.ingest.begin(Door::Aggregator, now);
        for (row, value) in points {
            batch.push(&Item {
                endpoint: &row.endpoint,
                metric: &row.metric,
                tags: &row.tags,
                value,
                step: row.step.clamp(1, u32::MAX.into()) as u32,
                counter_type: CounterType::Gauge,
                timestamp: now,
            });
        }
        batch.finish().map(drop)
    }
}

/// What becomes of a row at `now`; `newest` gives the newest points of some counters of some hosts, host by host.
fn last_of(
    snapshot: &Snapshot,
    row: &Aggregator,
    now: i64,
    newest: impl FnOnce(&[&str], &[&str]) -> Vec<Option<Point>>,
) -> Last {
    let hosts: Vec<&str> = snapshot.hosts_of(row.grp_id, now).map(|host| host.hostname.as_str()).collect();
    let last = Last { time: now, hosts: hosts.len(), ..Last::default() };
    if row.step < 1 {
        return Last { why: format!("step is {}: give at least 1", row.step), ..last };
    }
    let sides = match aggregate::parse(&row.numerator, &row.denominator) {
        Ok(sides) => sides,
        Err(why) => return Last { why, ..last },
    };
    let terms: Vec<&str> = sides.iter().flat_map(Side::terms).map(|term| term.counter.as_str()).collect();
    let mut counters = terms.clone();
    counters.sort_unstable();
    counters.dedup();
    let place_of = |term: &&str| counters.binary_search(term).expect("a counter of a term");
    let places: Vec<usize> = terms.iter().map(place_of).collect();
    let (points, oldest) = (newest(&hosts, &counters), now - 2 * row.step);
    let computed = aggregate::compute(&sides, hosts.len(), |host, term| {
        let point = points[host * counters.len() + places[term]]?;
        (oldest..=now).contains(&point.time).then_some(point.value)
    });
    told(last, computed, &hosts)
}

/// The computation as it is shown.
fn told(last: Last, computed: Computed, hosts: &[&str]) -> Last {
    let value = computed.value();
    let missing = computed.missing.into_iter().map(|(host, counter)| Missing { endpoint: hosts[host].into(), counter });
    let why = match value {
        Some(_) => "",
        None if hosts.is_empty() => "the group has no host outside maintenance",
        None if computed.valid == 0 => "no host has a value of all counters within two steps",
        None if computed.denominator == 0.0 => "the denominator is 0",
        None => "the value is too large a number",
    };
    Last {
        value,
        numerator: computed.numerator,
        denominator: computed.denominator,
        valid: computed.valid,
        missing: missing.collect(),
        why: why.to_string(),
        ..last
    }
}

/// When each row was computed last.
#[derive(Default)]
struct Due(HashMap<i64, i64>);

impl Due {
    /// The places of the rows that are due at `now`, which count as computed. A row is due once a step, at a second of
    /// the step that its id gives; one that is new within the first step.
    fn take(&mut self, rows: &[Aggregator], now: i64) -> Vec<usize> {
        self.0.retain(|id, _| rows.iter().any(|row| row.id == *id));
        let slot = |row: &Aggregator| {
            let step = row.step.max(1);
            (now - row.id.rem_euclid(step)).div_euclid(step)
        };
        let due = rows.iter().enumerate().filter(|(_, row)| {
            let slot = slot(row);
            // A clock that was set back makes rows due too.
            let before = self.0.insert(row.id, slot);
            before.is_some_and(|before| before != slot)
        });
        due.map(|(place, _)| place).collect()
    }
}

#[cfg(test)]
mod tests;
