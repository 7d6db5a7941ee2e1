//! Old graphs: what the page shows where points are in the graphs of an Open-Falcon.
//!
//! How: names come from their index, rows and newest points from the graphs, [`AT_ONCE`] calls at a time. A host has
//! reported when one of the counters that describe it has.
//! Invariants: without an index no host is listed; a graph that is away leaves its series without values, and its
//! reason stands among the troubles.
//! Memory: an answer, with [`HOSTS_MAX`] hosts and as many points as the page's other answers.

use super::error::{PageError, bad, broken};
use super::history::{HistoryQuery, POINTS_MAX, SeriesRows, WILDCARD_SERIES_MAX};
use super::overview::{DESCRIBING, HostList, HostSummary, SILENT_AFTER_S};
use crate::plus_graph::PlusGraphs;
use crate::plus_graph::index::Page;
use anyhow::anyhow;
use std::collections::HashMap;
use tokio::task::JoinSet;
use wire::gob::GraphQuery;

/// Calls of one answer that are under way at a time.
const AT_ONCE: usize = 32;
/// Hosts that are described: each costs five calls of a graph.
const HOSTS_MAX: usize = 200;
/// Endpoints that are counted.
const ENDPOINTS_MAX: usize = 100_000;

fn lost(why: String) -> PageError {
    broken(anyhow!(why))
}

/// Counters of a host that are taken, in byte order; none where there is no index.
pub async fn counters(
    graphs: &PlusGraphs,
    host: &str,
    takes: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Vec<String>, PageError> {
    let Some(index) = graphs.index() else { return Ok(Vec::new()) };
    let named = index.named(&[host.to_string()]).await.map_err(lost)?;
    let ids: Vec<u64> = named.into_iter().map(|row| row.id).collect();
    let all = Page { offset: 0, limit: usize::MAX };
    let rows = index.counters(&ids, takes, all).await.map_err(lost)?;
    let mut counters: Vec<String> = rows.into_iter().map(|row| row.counter).collect();
    counters.sort_unstable();
    Ok(counters)
}

/// Rows of series of one host.
pub async fn history(graphs: &PlusGraphs, query: HistoryQuery) -> Result<Vec<SeriesRows>, PageError> {
    let mut names = Vec::new();
    for counter in query.counters {
        match counter.strip_suffix('*').filter(|prefix| prefix.ends_with('/')) {
            None => names.push(counter),
            Some(prefix) => {
                let found = counters(graphs, &query.endpoint, &|text| text.starts_with(prefix)).await?;
                names.extend(found.into_iter().take(WILDCARD_SERIES_MAX));
            }
        }
    }
    let (mut answer, mut points) = (Vec::new(), 0);
    for counter in names {
        let (start, end) = (query.start, query.end);
        let (endpoint, named) = (query.endpoint.as_str().into(), counter.as_str().into());
        let asked = GraphQuery { start, end, consol_fun: "AVERAGE".into(), endpoint, counter: named, step: 0 };
        let (history, incomplete) = match graphs.query(&asked).await {
            Ok(history) => (history, None),
            Err(why) => (Default::default(), Some(why)),
        };
        if history.ds_type.is_empty() && incomplete.is_none() {
            continue;
        }
        let is_known = |value: &f64| value.is_finite() && (history.ds_type == "GAUGE" || *value >= 0.0);
        let within = history.values.iter().filter(|(time, _)| (start..=end).contains(time));
        let values: Vec<_> = within.map(|(time, value)| (*time, Some(*value).filter(is_known))).collect();
        points += values.len();
        if points > POINTS_MAX {
            return Err(bad(format!("more than {POINTS_MAX} points: ask for fewer counters or a shorter range")));
        }
        answer.push(SeriesRows { counter, step: u32::try_from(history.step).unwrap_or(0), values, incomplete });
    }
    Ok(answer)
}

/// Hosts whose name contains `pattern`.
pub async fn hosts(graphs: &PlusGraphs, pattern: &str, now: i64) -> Result<HostList, PageError> {
    let Some(index) = graphs.index() else { return Ok(HostList::default()) };
    let all = Page { offset: 0, limit: ENDPOINTS_MAX };
    let rows = index.endpoints(&|_| true, &[], all).await.map_err(lost)?;
    let hosts_total = rows.len();
    let mut names: Vec<String> = rows.into_iter().map(|row| row.endpoint).collect();
    names.retain(|name| name.to_lowercase().contains(pattern));
    let hosts_matched = names.len();
    names.sort_unstable();
    names.truncate(HOSTS_MAX);
    let last = last_points(graphs, &names).await;
    let describe = |(host, name): (usize, String)| {
        let points: HashMap<&str, (i64, f64)> =
            DESCRIBING.iter().enumerate().filter_map(|(i, counter)| Some((*counter, *last.get(&(host, i))?))).collect();
        let newest = points.values().map(|(time, _)| *time).max().unwrap_or(0);
        HostSummary::of(name, newest, |counter| points.get(counter).copied())
    };
    let hosts: Vec<HostSummary> = names.into_iter().enumerate().map(describe).collect();
    let hosts_reporting = hosts.iter().filter(|host| (now - host.last_report_s).abs() <= SILENT_AFTER_S).count();
    Ok(HostList { hosts_total, hosts_reporting, hosts_matched, hosts })
}

/// The newest points of the describing counters of each host, by the numbers of both.
async fn last_points(graphs: &PlusGraphs, names: &[String]) -> HashMap<(usize, usize), (i64, f64)> {
    let (mut under, mut found) = (JoinSet::new(), HashMap::new());
    let pairs = names.iter().enumerate().flat_map(|(host, name)| (0..DESCRIBING.len()).map(move |i| (host, i, name)));
    for (host, i, name) in pairs {
        if under.len() >= AT_ONCE {
            found.extend(under.join_next().await.and_then(Result::ok).flatten());
        }
        let (graphs, name) = (graphs.clone(), name.clone());
        under.spawn(async move {
            let (time, value) = graphs.last(&name, DESCRIBING[i]).await.ok()?;
            (time > 0).then_some(((host, i), (time, value)))
        });
    }
    while let Some(ended) = under.join_next().await {
        found.extend(ended.ok().flatten());
    }
    found
}
