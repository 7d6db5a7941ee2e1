//! The aggregator alone: rows from an old api, values from there, points to an agent or a transfer.
//!
//! How: as in a whole server each row is due once a step; of what is due together the last points are asked for in one
//! go, so that a group is seen at one moment.
//! Invariants: what the api does not answer is computed at the next step, and told; a row that cannot be computed costs
//! no other. Why a row has no value is in the log when it loses it, in `/health`, and at `/aggregator/<id>/last`.
//! Memory: the last points of the rows that are due.
//! Compat: docs/open-falcon/aggregator-nodata-gateway.md §1; rows are due by their id, not after a random pause.

use super::{Due, last_of};
use crate::clock;
use crate::plus_api::PlusApi;
use crate::portal::aggregator::Aggregator;
use crate::rules::InEffect;
use crate::rules::aggregate;
use crate::rules::computed::{Failed, Lasts};
use crate::rules::pull::{Pair, Pushed, last_points, push};
use crate::rules::snapshot::Snapshot;
use crate::watch::health::{Outage, Reason};
use anyhow::{Context, Result};
use net::seldom::Seldom;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const LOOK: Duration = Duration::from_secs(1);

/// Computes what is due beside an old api.
pub struct Alone {
    pub api: PlusApi,
    /// Where points go: an agent's `/v1/push`, or a transfer's `/api/push`.
    pub push_api: String,
    pub lasts: Lasts,
    /// Said while the api gives no values, or points are not taken.
    pub outage: Outage,
    pub told: Seldom,
}

/// Rows that `/health` names.
const NAMED_MAX: usize = 3;

/// The rows that have no value, for `/health`.
pub fn trouble(lasts: &Lasts) -> Option<Reason> {
    let Failed { count, since, first } = lasts.without_value(NAMED_MAX)?;
    let named: Vec<String> = first.iter().map(|(id, why)| format!("{id} ({why})")).collect();
    let more = if count > first.len() { format!(", and {} more", count - first.len()) } else { String::new() };
    let why = format!("{}{more}; listen.aggregator_http says all at /aggregator/<id>/last", named.join(", "));
    Some(Reason { what: "aggregators have no value", why, since })
}

impl Alone {
    /// Computes each second what is due, until the stop.
    pub async fn run(self, rows: watch::Receiver<Arc<InEffect>>, mut stopping: watch::Receiver<bool>) -> Result<()> {
        let mut due = Due::default();
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            let (rules, now) = (rows.borrow().clone(), clock::now());
            self.lasts.keep(|id| rules.snapshot.aggregators.iter().any(|row| row.id == id));
            let places = due.take(&rules.snapshot.aggregators, now);
            if places.is_empty() {
                continue;
            }
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                done = self.compute(&rules.snapshot, &places, now) => self.outage.note(done),
            }
        }
    }

    /// Computes these rows at `now`, and pushes their points.
    pub async fn compute(&self, snapshot: &Snapshot, places: &[usize], now: i64) -> Result<()> {
        let rows: Vec<&Aggregator> = places.iter().map(|place| &snapshot.aggregators[*place]).collect();
        let pairs: BTreeSet<Pair> = rows.iter().flat_map(|row| pairs(snapshot, row, now)).collect();
        let pairs: Vec<Pair> = pairs.into_iter().collect();
        let points = last_points(&self.api, &pairs).await.context("the api gives no last points")?;
        let mut pushed = Vec::new();
        for row in rows {
            let last = last_of(snapshot, row, now, |hosts, counters| {
                let pairs = hosts.iter().flat_map(|host| counters.iter().map(move |counter| (host, counter)));
                pairs.map(|(host, counter)| points.get(&(host.to_string(), counter.to_string())).copied()).collect()
            });
            pushed.extend(last.value.map(|value| Pushed {
                endpoint: row.endpoint.clone(),
                metric: row.metric.clone(),
                tags: row.tags.clone(),
                value,
                counter_type: "GAUGE",
                step: row.step,
                timestamp: now,
            }));
            let why = last.why.clone();
            if self.lasts.note(row.id, last) && self.told.may_say() {
                tracing::warn!(aggregator = row.id, why, "an aggregator has no value, maybe not this one alone");
            }
        }
        push(&self.api, &self.push_api, &pushed).await.context("aggregator.push_api takes no points")
    }
}

/// The series that a row needs.
fn pairs(snapshot: &Snapshot, row: &Aggregator, now: i64) -> Vec<Pair> {
    let Ok(sides) = aggregate::parse(&row.numerator, &row.denominator) else { return Vec::new() };
    let counters = || sides.iter().flat_map(|side| side.terms()).map(|term| term.counter.clone());
    let of_host =
        |host: &str| counters().map(|counter| Pair { endpoint: host.to_string(), counter }).collect::<Vec<_>>();
    snapshot.hosts_of(row.grp_id, now).flat_map(|host| of_host(&host.hostname)).collect()
}
