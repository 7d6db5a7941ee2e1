//! Nodata alone: rows from an old api, newest points from there, mocks to an agent or a transfer.
//!
//! How: each minute the newest points of all series are asked for, and looked at as in a whole server ([`Looks`]).
//! Invariants: silence is counted only since this module began, and since the api answered again: while it does not,
//! nobody is mocked. Floods are held back as in a whole server; there is no series that counts them, but the log.
//! Memory: the newest points of all series of a look.
//! Compat: docs/open-falcon/aggregator-nodata-gateway.md §2.

use super::{Looks, Mocked, counter_of, series_of, tell};
use crate::clock;
use crate::plus_api::PlusApi;
use crate::rules::InEffect;
use crate::rules::pull::{Pair, Pushed, last_points, push};
use crate::rules::snapshot::Snapshot;
use crate::watch::health::Outage;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Looks for silent series beside an old api.
pub struct Alone {
    pub api: PlusApi,
    /// Where mocks go: an agent's `/v1/push`, or a transfer's `/api/push`.
    pub push_api: String,
    pub flood_share: f64,
    pub looks: Looks,
    /// Said while the api gives no points, or mocks are not taken.
    pub outage: Outage,
}

impl Alone {
    /// Looks each minute until the stop.
    pub async fn run(self, rows: watch::Receiver<Arc<InEffect>>, mut stopping: watch::Receiver<bool>) -> Result<()> {
        let mut heard_since = clock::now();
        loop {
            let next_minute = Duration::from_secs(60 - clock::now().rem_euclid(60) as u64);
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(next_minute) => {}
            }
            let (rules, now) = (rows.borrow().clone(), clock::now());
            let looked = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                looked = self.look(&rules.snapshot, heard_since, now) => looked,
            };
            if looked.is_err() {
                heard_since = clock::now();
            }
            self.outage.note(looked);
        }
    }

    /// Looks at `now`, and pushes the mocks that are due.
    pub async fn look(&self, snapshot: &Snapshot, heard_since: i64, now: i64) -> Result<()> {
        let mut pairs = Vec::new();
        for (row, endpoints) in series_of(snapshot, now) {
            let counter = counter_of(&snapshot.mocks[row]);
            let pair = |endpoint: &str| Pair { endpoint: endpoint.to_string(), counter: counter.clone() };
            pairs.extend(endpoints.into_iter().map(pair));
        }
        let points = last_points(&self.api, &pairs).await.context("the api gives no last points")?;
        let last = |endpoint: &str, counter: &str| points.get(&(endpoint.to_string(), counter.to_string())).copied();
        let looked = self.looks.look(snapshot, heard_since, now, self.flood_share, last);
        looked.counts.iter().for_each(|held| tell(&snapshot.mocks[held.row], held));
        let pushed: Vec<Pushed> = looked.mocked.iter().map(|mocked| pushed(snapshot, mocked)).collect();
        push(&self.api, &self.push_api, &pushed).await.context("nodata.push_api takes no points")?;
        self.looks.note_sent(pushed.len(), now);
        Ok(())
    }
}

fn pushed(snapshot: &Snapshot, mocked: &Mocked) -> Pushed {
    let mock = &snapshot.mocks[mocked.row];
    Pushed {
        endpoint: mocked.endpoint.clone(),
        metric: mock.metric.clone(),
        tags: mock.tags.clone(),
        value: mock.mock,
        counter_type: "GAUGE",
        step: mock.step,
        timestamp: mocked.time,
    }
}
