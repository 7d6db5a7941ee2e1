//! `GET /ui/counters?endpoint=&q=`: the counters of a host whose text contains `q`.

use super::Sources;
use super::error::{PageError, bad};
use super::old_graph;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use net::turns::Holder;
use serde::Serialize;
use store::{CounterQuery, CounterRow, Store};

/// Counters listed for one host; an agent sends about 200.
const COUNTERS_MAX: usize = 500;

/// Counters of a host that a text finds.
#[derive(Serialize)]
pub struct CounterList {
    total: usize,
    /// The first [`COUNTERS_MAX`] of them, in byte order.
    counters: Vec<String>,
}

/// Lists the counters of `endpoint` that contain `q`.
pub async fn counters(
    State(sources): State<Sources>,
    Extension(viewer): Extension<Holder>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<CounterList>, PageError> {
    let (mut endpoint, mut pattern) = (None, String::new());
    for (key, value) in query {
        match key.as_str() {
            "endpoint" => endpoint = Some(value),
            "q" => pattern = value.to_lowercase(),
            _ => return Err(bad(format!("unknown parameter {key}; want endpoint, q"))),
        }
    }
    let endpoint = endpoint.ok_or_else(|| bad("endpoint is missing: name the host"))?;
    if let Some(graphs) = &sources.graphs {
        let _turn = sources.reads.take(&viewer, 1).await;
        let takes = |text: &str| text.to_lowercase().contains(&pattern);
        return Ok(Json(listed(old_graph::counters(graphs, &endpoint, &takes).await?)));
    }
    let found = sources.read(&viewer, move |engine| {
        Ok(listed(find_counters(engine.store(), &endpoint, |text| text.to_lowercase().contains(&pattern))))
    });
    Ok(Json(found.await?))
}

fn listed(mut counters: Vec<String>) -> CounterList {
    let total = counters.len();
    counters.truncate(COUNTERS_MAX);
    CounterList { total, counters }
}

/// The counters of `host` that match, in byte order. Names of sleeping series that cannot be read are logged and
/// missing.
pub fn find_counters(store: &Store, host: &str, matches: impl Fn(&str) -> bool) -> Vec<String> {
    let rows = match counters_of(store, host) {
        Ok(rows) => rows,
        Err(error) => {
            tracing::error!(host, %error, "cannot read the names of counters; the page lists none for this host");
            Vec::new()
        }
    };
    let mut counters: Vec<String> = rows.into_iter().map(|row| row.counter).filter(|text| matches(text)).collect();
    counters.sort_unstable();
    counters
}

fn counters_of(store: &Store, host: &str) -> Result<Vec<CounterRow>, store::Error> {
    let Some(id) = store.endpoint_ids(&[host])?[0] else { return Ok(Vec::new()) };
    store.counters(&CounterQuery { endpoint_ids: &[id], patterns: &[], offset: 0, limit: usize::MAX })
}
