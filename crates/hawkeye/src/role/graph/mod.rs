//! Graph: what an old transfer and an old api ask of it, `Graph.*` over Go's net/rpc, and the old HTTP routes.
//!
//! How: items of `Graph.Send` go through the one door ([`crate::engine::ingest`]) like those of every protocol, so in a
//! process with all roles they are judged too. What reads the store or deletes from it may wait for the disk, and runs
//! on a blocking thread; a connection's calls are answered in their order.
//! Invariants: a `Graph.Send` is answered after its points are in the log (the original answers first); a batch is all
//! or nothing, its items are checked one by one. An answer holds at most [`query::ROWS_MAX`] rows, and at most
//! [`READS_AT_ONCE`] calls read at once.
//! Compat: docs/open-falcon/graph.md §3, §7, §9, §10. There are no RRD files, so `GetRrd` is an error that says what to
//! do instead.

pub mod http;
pub mod index;
mod query;
#[cfg(test)]
mod tests;

use crate::engine::Engine;
use crate::engine::ingest::{Door, Ingest};
use metrics::Metrics;
use model::{SeriesId, Tags};
use net::gob::{Service, Session};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::sync::Arc;
use store::{Found, Store};
use tokio::sync::Semaphore;
use wire::gob::{Call, QueryHead};
use wire::jsonrpc::unknown_method;

/// Calls that read at once. Each holds a blocking thread and one answer of up to a few MB; more than disks and cores
/// have use for.
const READS_AT_ONCE: usize = 16;

const GET_RRD: &str = "Graph.GetRrd is not served: Hawkeye keeps no RRD files; to move a history, read it with Graph.Query \
                       (or POST /api/v1/graph/history) and send it to the other side in order of time";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

/// Counts of calls, items and rows; the old HTTP routes show them under the original's names.
#[derive(Clone, Default)]
pub struct GraphMetrics {
    calls: Family<MethodLabel, Counter>,
    items: Counter,
    rows: Counter,
}

impl GraphMetrics {
    /// Puts the counts on the metrics page.
    pub fn register(metrics: &Metrics) -> GraphMetrics {
        let own = GraphMetrics::default();
        metrics.register(|registry| {
            registry.register("graph_calls", "Calls of Graph's methods", own.calls.clone());
            registry.register("graph_items", "Items that came by Graph.Send, valid or not", own.items.clone());
            registry.register("graph_rows", "Rows in answers to Graph.Query", own.rows.clone());
        });
        own
    }

    fn count(&self, method: &'static str) {
        self.calls.get_or_create(&MethodLabel { method }).inc();
    }

    fn calls(&self, method: &'static str) -> u64 {
        self.calls.get_or_create(&MethodLabel { method }).get()
    }
}

/// `Graph.*` over one store; clones share it.
#[derive(Clone)]
pub struct GraphService {
    engine: Arc<Engine>,
    ingest: Arc<Ingest>,
    metrics: GraphMetrics,
    reads: Arc<Semaphore>,
    now: fn() -> i64,
}

/// One of the series that `Graph.Delete` names.
struct Named {
    endpoint: String,
    metric: String,
    tags: String,
    step: i64,
    ds_type: String,
}

impl GraphService {
    /// A service over the store of `engine`, whose points go through `ingest`.
    pub fn new(engine: Arc<Engine>, ingest: Arc<Ingest>, metrics: GraphMetrics) -> GraphService {
        let reads = Arc::new(Semaphore::new(READS_AT_ONCE));
        GraphService { engine, ingest, metrics, reads, now: crate::clock::now }
    }

    /// Runs `read` on a thread that may wait for the disk.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let turn = self.reads.clone().acquire_owned().await.expect("the semaphore is never closed");
        let reading = self.engine.spawn_blocking(move |engine| {
            let _turn = turn;
            read(engine)
        });
        reading.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a call of the graph panicked");
            Err("internal error; the server's log has more".to_string())
        })
    }

    fn send(&self, call: &Call<'_>, session: &mut Session) -> Result<(), String> {
        self.metrics.count("Send");
        let Session { decoder, scratch, .. } = session;
        let mut batch = self.ingest.begin(Door::Graph, (self.now)());
        let decoded = call.graph_items(decoder, scratch, &mut |item| batch.push_aligned(&item));
        decoded.map_err(|error| error.to_string())?;
        let received = batch.finish().map_err(|error| error.to_string())?;
        self.metrics.items.inc_by(received.total as u64);
        Ok(())
    }

    async fn query(&self, call: &Call<'_>, session: &mut Session, out: &mut Vec<u8>) -> Result<(), String> {
        self.metrics.count("Query");
        let asked = call.graph_query(&session.decoder).map_err(|error| error.to_string())?;
        let (now, query) = ((self.now)(), query::Asked::of(&asked));
        let answer = self.reading(move |engine| query::answer(engine.store(), &query, now)).await?;
        self.metrics.rows.inc_by(answer.values.len() as u64);
        let (endpoint, counter) = (&*asked.endpoint, &*asked.counter);
        let head = QueryHead { endpoint, counter, ds_type: answer.ds_type, step: answer.step };
        session.encoder.graph_query(out, call.method, call.seq, &head, answer.values.into_iter());
        Ok(())
    }

    async fn info(&self, call: &Call<'_>, session: &mut Session, out: &mut Vec<u8>) -> Result<(), String> {
        self.metrics.count("Info");
        let asked = call.graph_series(&session.decoder).map_err(|error| error.to_string())?;
        let (endpoint, counter) = (asked.endpoint.into_owned(), asked.counter.into_owned());
        let info = self.reading(move |engine| query::info(engine.store(), &endpoint, &counter)).await?;
        session.encoder.graph_info(out, call.method, call.seq, info.ds_type, info.step, &info.filename);
        Ok(())
    }

    /// Answers `Graph.Last` and `Graph.LastRaw`; what is unknown is time 0 and value 0.
    async fn last(&self, call: &Call<'_>, session: &mut Session, out: &mut Vec<u8>) -> Result<(), String> {
        let raw = call.method == "Graph.LastRaw";
        self.metrics.count(if raw { "LastRaw" } else { "Last" });
        let asked = call.graph_series(&session.decoder).map_err(|error| error.to_string())?;
        let (endpoint, counter) = (asked.endpoint.clone().into_owned(), asked.counter.clone().into_owned());
        let last = self.reading(move |engine| {
            let store = engine.store();
            let found = store.find(&endpoint, &counter).map_err(|error| error.to_string())?;
            Ok(found.and_then(|found| if raw { store.last_raw(found) } else { store.last(found) }))
        });
        let point = last.await?.map_or((0, 0.0), |point| (point.time, point.value));
        session.encoder.graph_last(out, call.method, call.seq, &asked.endpoint, &asked.counter, point);
        Ok(())
    }

    async fn delete(&self, call: &Call<'_>, session: &mut Session) -> Result<(), String> {
        self.metrics.count("Delete");
        let mut named = Vec::new();
        let read = call.graph_delete(&session.decoder, &mut |item| {
            named.push(Named {
                endpoint: item.endpoint.into_owned(),
                metric: item.metric.into_owned(),
                tags: item.tags.into_owned(),
                step: item.step,
                ds_type: item.ds_type.into_owned(),
            });
        });
        read.map_err(|error| error.to_string())?;
        self.reading(move |engine| {
            for item in &named {
                if let Some(id) = item.find(engine.store()).map_err(|error| error.to_string())? {
                    engine.remove_series(id).map_err(|error| error.to_string())?;
                }
            }
            Ok(())
        })
        .await
    }
}

impl Named {
    /// Finds the series, if it has the type and step that were named: as in the original, where they are part of a
    /// file's name.
    fn find(&self, store: &Store) -> Result<Option<SeriesId>, store::Error> {
        let mut scratch = String::new();
        let tags = Tags::canonical(&self.tags, &mut scratch);
        // Nothing is left of what were no tags; the series without tags was not meant.
        if tags.is_empty() && !self.tags.is_empty() {
            return Ok(None);
        }
        let key = model::SeriesKey { endpoint: &self.endpoint, metric: &self.metric, tags };
        let found = store.find(&self.endpoint, &key.counter())?;
        let is_meant =
            |found: &Found| found.counter_type.ds_type() == self.ds_type && i64::from(found.step) == self.step;
        Ok(found.filter(is_meant).map(|found| found.id))
    }
}

impl Service for GraphService {
    async fn call(&self, call: Call<'_>, session: &mut Session, out: &mut Vec<u8>) {
        let (method, seq) = (call.method, call.seq);
        let answered = match method {
            "Graph.Send" => self.send(&call, session).map(|()| session.encoder.simple(out, method, seq, 0)),
            "Graph.Query" => self.query(&call, session, out).await,
            "Graph.Info" => self.info(&call, session, out).await,
            "Graph.Last" | "Graph.LastRaw" => self.last(&call, session, out).await,
            "Graph.Delete" => {
                self.delete(&call, session).await.map(|()| session.encoder.graph_delete(out, method, seq))
            }
            "Graph.Ping" => {
                session.encoder.simple(out, method, seq, 0);
                Ok(())
            }
            "Graph.GetRrd" => Err(GET_RRD.to_string()),
            _ => Err(unknown_method(&["Graph"], method)),
        };
        if let Err(text) = answered {
            tracing::debug!(method, text, "answered with an error");
            session.encoder.error(out, method, seq, &text);
        }
    }
}
