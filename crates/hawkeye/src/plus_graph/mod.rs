//! Plus graph: what the graphs of an Open-Falcon are asked by an api that stands alone in front of them.
//!
//! Why: a site moves step by step. Its users, charts and rules are Hawkeye's while its points are still in the old
//! graphs.
//! How: the ring says which graph has a series ([`model::ring`], as transfer and the old api place it); [`node`] speaks
//! to one graph over Go's net/rpc. Which endpoints and counters there are is no graph's to say: the old graphs write it
//! into MySQL, where [`index`] reads it. [`PlusGraphs::watch`] asks each graph every [`LOOK_EACH`] whether it answers.
//! Invariants: a graph that is away costs only its series, and each answer that lacks them says why; health says so as
//! long as it lasts, and it ends by itself.
//! Compat: docs/open-falcon/wire.md §6, graph.md §7, transfer.md §5.

pub mod index;
mod node;
#[cfg(test)]
mod tests;

use crate::config::GraphConfig;
use crate::watch::health::{Health, Reason};
use anyhow::{Context, Result};
use index::Index;
use metrics::Metrics;
use model::ring::Ring;
use model::{SeriesKey, Tags};
use node::Node;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wire::gob::{GraphDelete, GraphQuery, GraphSeries};

/// Pause between two looks at a graph.
const LOOK_EACH: Duration = Duration::from_secs(2);
/// Rows of an answer that are kept: what our own graph has at most in one.
const ROWS_MAX: usize = 50_000;

/// The old graphs of a site; clones share them.
#[derive(Clone)]
pub struct PlusGraphs(Arc<Shared>);

struct Shared {
    ring: Ring,
    /// In the order of the names, which is the ring's.
    nodes: Vec<Node>,
    index: Option<Index>,
    calls: AtomicU64,
    failures: AtomicU64,
}

/// The rows of a series, as its graph has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// GAUGE or DERIVE; "" for a series that is unknown.
    pub ds_type: String,
    pub step: i64,
    /// Time and value, ascending; NaN where nothing is known.
    pub values: Vec<(i64, f64)>,
}

/// A series, as the ring and a deletion name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    pub endpoint: String,
    pub counter: String,
    pub ds_type: String,
    pub step: i64,
}

/// The name of a series, in parts.
fn key<'k>(endpoint: &'k str, counter: &'k str) -> SeriesKey<'k> {
    let (metric, tags) = counter.split_once('/').unwrap_or((counter, ""));
    // As in the original, a counter is written as its series is called.
    SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) }
}

impl PlusGraphs {
    /// The graphs that the configuration names, of which none is asked yet.
    pub fn new(config: &GraphConfig, metrics: &Metrics, health: &Health) -> Result<PlusGraphs> {
        let ring = Ring::new(config.cluster.keys().map(String::as_str), config.replicas);
        let ring = ring.context("graph.cluster names no graph: give the old graphs")?;
        let nodes = config.cluster.iter().map(|(name, address)| Node::new(name, address.trim())).collect();
        let index = Index::open(&config.index_url, health)?;
        let graphs =
            PlusGraphs(Arc::new(Shared { ring, nodes, index, calls: AtomicU64::new(0), failures: AtomicU64::new(0) }));
        graphs.show_on(metrics);
        let told = graphs.clone();
        health.source(move |reasons| reasons.extend(told.reason()));
        Ok(graphs)
    }

    fn show_on(&self, metrics: &Metrics) {
        let shown = self.clone();
        metrics.source(move |figures| {
            let Shared { nodes, calls, failures, .. } = &*shown.0;
            let away = nodes.iter().filter(|node| node.away().is_some()).count();
            figures.gauge("old_graphs", "Old graphs behind the api", nodes.len() as f64);
            figures.gauge("old_graphs_away", "Old graphs that do not answer", away as f64);
            figures.counter("old_graph_calls", "Calls of old graphs", calls.load(Relaxed));
            figures.counter("old_graph_failures", "Calls of old graphs without an answer", failures.load(Relaxed));
        });
    }

    fn reason(&self) -> Option<Reason> {
        let away: Vec<_> = self.0.nodes.iter().filter_map(|node| Some((node, node.away()?))).collect();
        let since = away.iter().map(|(_, away)| away.since).min()?;
        let each = away.iter().map(|(node, away)| format!("{} ({}): {}", node.name, node.address, away.why));
        let why = each.collect::<Vec<_>>().join("; ");
        Some(Reason { what: "old graphs do not answer; their series are missing in charts", why, since })
    }

    /// Where series are searched, if the configuration says so.
    pub fn index(&self) -> Option<&Index> {
        self.0.index.as_ref()
    }

    fn node_of(&self, endpoint: &str, counter: &str) -> &Node {
        &self.0.nodes[self.0.ring.node_of(&key(endpoint, counter))]
    }

    fn counted<T>(&self, asked: Result<T, String>) -> Result<T, String> {
        self.0.calls.fetch_add(1, Relaxed);
        if asked.is_err() {
            self.0.failures.fetch_add(1, Relaxed);
        }
        asked
    }

    /// The rows of a series. An error says which graph does not answer, and why.
    pub async fn query(&self, query: &GraphQuery<'_>) -> Result<History, String> {
        let node = self.node_of(&query.endpoint, &query.counter);
        let asked = node
            .ask(&|requests, out, seq| requests.graph_query(out, seq, query), &|replies, reply| {
                let mut values = Vec::new();
                let mut each = |time, value| {
                    if values.len() < ROWS_MAX {
                        values.push((time, value));
                    }
                };
                let head = reply.graph_query(replies, &mut each)?;
                Ok(History { ds_type: head.ds_type.into_owned(), step: head.step, values })
            })
            .await;
        self.counted(asked)
    }

    /// The newest point of a series, a rate for a counter; (0, 0) where there is none.
    pub async fn last(&self, endpoint: &str, counter: &str) -> Result<(i64, f64), String> {
        let series = GraphSeries { endpoint: endpoint.into(), counter: counter.into() };
        let asked = self
            .node_of(endpoint, counter)
            .ask(&|requests, out, seq| requests.graph_last(out, "Graph.Last", seq, &series), &|replies, reply| {
                reply.graph_last(replies).map(|last| (last.timestamp, last.value))
            })
            .await;
        self.counted(asked)
    }

    /// Type and step of a series; none for one that is unknown.
    pub async fn info(&self, endpoint: &str, counter: &str) -> Result<Option<Series>, String> {
        let series = GraphSeries { endpoint: endpoint.into(), counter: counter.into() };
        let asked = self
            .node_of(endpoint, counter)
            .ask(&|requests, out, seq| requests.graph_info(out, seq, &series), &|replies, reply| {
                reply.graph_info(replies).map(|info| (info.ds_type.into_owned(), info.step))
            })
            .await;
        let (ds_type, step) = self.counted(asked)?;
        let is_known = !ds_type.is_empty();
        let found = || Series { endpoint: endpoint.to_string(), counter: counter.to_string(), ds_type, step };
        Ok(is_known.then(found))
    }

    /// Deletes series, graph by graph; fails at the first graph that does not answer.
    pub async fn delete(&self, series: &[Series]) -> Result<(), String> {
        for (number, node) in self.0.nodes.iter().enumerate() {
            let is_there = |one: &&Series| self.0.ring.node_of(&key(&one.endpoint, &one.counter)) == number;
            let list: Vec<GraphDelete<'_>> = series.iter().filter(is_there).map(deletion).collect();
            if list.is_empty() {
                continue;
            }
            let asked = node.ask(&|requests, out, seq| requests.graph_delete(out, seq, &list), &|_, _| Ok(())).await;
            self.counted(asked)?;
        }
        Ok(())
    }

    /// Looks again and again whether the graphs answer, until the stop.
    pub async fn watch(self, mut stopping: watch::Receiver<bool>) -> Result<()> {
        let mut looks = JoinSet::new();
        for number in 0..self.0.nodes.len() {
            let graphs = self.clone();
            looks.spawn(async move {
                loop {
                    graphs.0.nodes[number].look().await;
                    tokio::time::sleep(LOOK_EACH).await;
                }
            });
        }
        // Nobody is left to say it, which is as good.
        let _ = stopping.wait_for(|stop| *stop).await;
        looks.shutdown().await;
        Ok(())
    }
}

fn deletion(series: &Series) -> GraphDelete<'_> {
    let (metric, tags) = series.counter.split_once('/').unwrap_or((&series.counter, ""));
    GraphDelete {
        endpoint: series.endpoint.as_str().into(),
        metric: metric.into(),
        step: series.step,
        ds_type: series.ds_type.as_str().into(),
        tags: tags.into(),
    }
}
