//! Pull: the rows of aggregators and nodata, as an old api tells them, for modules that run alone beside it.
//!
//! Why: the original reads MySQL; an api over REST is what a site lets others reach.
//! How: a pull asks for groups, the aggregators of each, the hosts of those that are named, and all nodata, and makes a
//! [`Snapshot`] of them that has nothing else; from there on rows are used as in a whole server. A pull that fails
//! leaves the rows of before.
//! Invariants: a snapshot is whole or is not made.
//! Memory: the snapshot; a question for last points has at most [`PAIRS`] pairs.

use super::InEffect;
use super::snapshot::{HostRow, Snapshot};
use crate::plus_api::PlusApi;
use crate::portal::aggregator::Aggregator;
use crate::portal::mock::Mock;
use crate::watch::health::Outage;
use anyhow::{Context, Result, bail};
use model::{Point, Rules};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Pause between two pulls, as in the original.
const EVERY: Duration = Duration::from_secs(55);
/// Pause after one that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Pairs of one question for last points: the api answers them one after another, within its client's ten seconds.
const PAIRS: usize = 500;
/// Groups that are asked for; ten times a large site's.
const GROUPS_MAX: usize = 10_000;

/// Rows that are wanted.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub aggregators: bool,
    pub mocks: bool,
}

#[derive(Deserialize)]
struct Group {
    id: i64,
    grp_name: String,
}

#[derive(Deserialize)]
struct GroupHosts {
    hosts: Option<Vec<Host>>,
}

#[derive(Deserialize)]
struct Host {
    hostname: String,
    #[serde(default)]
    maintain_begin: i64,
    #[serde(default)]
    maintain_end: i64,
}

#[derive(Deserialize)]
struct GroupAggregators {
    aggregators: Option<Vec<Aggregator>>,
}

/// A series that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pair {
    pub endpoint: String,
    pub counter: String,
}

#[derive(Deserialize)]
struct LastPoint {
    endpoint: String,
    counter: String,
    value: Option<LastValue>,
}

#[derive(Deserialize)]
struct LastValue {
    timestamp: i64,
    value: Option<f64>,
}

/// Newest points by endpoint and counter.
pub type LastPoints = HashMap<(String, String), Point>;

/// Pulls until the stop, and has the receivers of `rows` see each change; `outage` says while the api does not answer.
pub async fn run(
    api: PlusApi,
    wanted: Wanted,
    rows: watch::Sender<Arc<InEffect>>,
    outage: Outage,
    mut stopping: watch::Receiver<bool>,
) -> Result<()> {
    loop {
        let pulled = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            pulled = pull(&api, wanted) => pulled,
        };
        let pause = if pulled.is_ok() { EVERY } else { RETRY };
        outage.note(pulled.map(|snapshot| {
            rows.send_replace(Arc::new(InEffect::new(Arc::new(snapshot), Rules::default())));
        }));
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The rows, as the api has them now.
pub async fn pull(api: &PlusApi, wanted: Wanted) -> Result<Snapshot> {
    let groups: Vec<Group> = api.get("hostgroup").await?.unwrap_or_default();
    if groups.len() > GROUPS_MAX {
        bail!("there are {} host groups, above {GROUPS_MAX}", groups.len());
    }
    let mut snapshot = Snapshot::default();
    if wanted.mocks {
        snapshot.mocks = api.get("nodata").await?.unwrap_or_default();
    }
    for group in &groups {
        if wanted.aggregators {
            let path = format!("hostgroup/{}/aggregators", group.id);
            let found: Option<GroupAggregators> = api.get(&path).await?;
            snapshot.aggregators.extend(found.and_then(|found| found.aggregators).into_iter().flatten());
        }
    }
    let mut hosts: BTreeMap<String, HostRow> = BTreeMap::new();
    for group in &groups {
        let of_mock = |mock: &Mock| mock.names().any(|name| name.eq_ignore_ascii_case(&group.grp_name));
        let is_named = snapshot.aggregators.iter().any(|row| row.grp_id == group.id)
            || snapshot.mocks.iter().any(|mock| mock.obj_type == "group" && of_mock(mock));
        if is_named {
            // A group that goes between two questions has no hosts.
            let found: Option<GroupHosts> = api.get(&format!("hostgroup/{}", group.id)).await?;
            for host in found.and_then(|found| found.hosts).into_iter().flatten() {
                let Host { hostname, maintain_begin, maintain_end } = host;
                let row = hosts.entry(hostname.clone()).or_default();
                row.groups.push(group.id);
                *row = HostRow { hostname, maintain_begin, maintain_end, ..std::mem::take(row) };
            }
        }
    }
    snapshot.hosts = hosts.into_values().collect();
    snapshot.groups = groups.into_iter().map(|group| (group.id, group.grp_name)).collect();
    Ok(snapshot)
}

/// The newest points of these series, those of counters as rates; what never reported is left out.
pub async fn last_points(api: &PlusApi, pairs: &[Pair]) -> Result<LastPoints> {
    let mut points = LastPoints::with_capacity(pairs.len());
    for pairs in pairs.chunks(PAIRS) {
        let found: Option<Vec<LastPoint>> = api.post("graph/lastpoint", &pairs).await?;
        for LastPoint { endpoint, counter, value } in found.context("it has no last points")? {
            let Some(LastValue { timestamp: time, value: Some(value) }) = value else { continue };
            // The original says with a time of 0 that there is none.
            if time > 0 {
                points.insert((endpoint, counter), Point { time, value });
            }
        }
    }
    Ok(points)
}

/// A point as transfer and agent take it over HTTP.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pushed {
    pub endpoint: String,
    pub metric: String,
    pub tags: String,
    pub value: f64,
    #[serde(rename = "counterType")]
    pub counter_type: &'static str,
    pub step: i64,
    pub timestamp: i64,
}

/// Points of one push, as in the original.
const PUSH: usize = 200;

/// Pushes points to a transfer or an agent. Of those behind one that fails none is pushed.
pub async fn push(api: &PlusApi, url: &str, points: &[Pushed]) -> Result<()> {
    for points in points.chunks(PUSH) {
        api.push(url, &points).await?;
    }
    Ok(())
}
