//! falcon2p8s: chosen series for a Prometheus to scrape (`listen.p8s_http`): those that a transfer sends here
//! (`listen.p8s_rpc`), and those of the own store whose metrics begin as `p8s.metrics` says.
//!
//! How: a page is made when somebody asks, for all who ask at one time. The store's series are asked for their newest
//! points in memory, which costs no disk.
//! Compat: docs/open-falcon/aggregator-nodata-gateway.md §4. Counters of the store are shown as they came.
//! Memory: a page while it is made, some 150 bytes per series, of at most `p8s.series_max`.

mod page;
mod relay;

pub use relay::Relay;

use crate::clock;
use crate::engine::Engine;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics::Shared;
use model::CounterType;
use page::{Names, Page};
use std::sync::Arc;
use std::time::Instant;

/// Seconds without a point after which a series is not shown, and steps.
const SILENT_S: i64 = 70;
const SILENT_STEPS: i64 = 2;

/// What the page shows; clones share it.
#[derive(Clone)]
pub struct Source {
    pub engine: Arc<Engine>,
    pub relay: Relay,
    /// Beginnings of the metrics of the store that are shown.
    pub metrics: Arc<[String]>,
    pub series_max: usize,
    page: Arc<Shared<Arc<[u8]>>>,
}

impl Source {
    /// A source of which no page was made yet.
    pub fn new(engine: Arc<Engine>, relay: Relay, metrics: &[String], series_max: usize) -> Source {
        Source { engine, relay, metrics: metrics.into(), series_max, page: Arc::default() }
    }

    fn make(&self) -> Arc<[u8]> {
        let mut page = Page::default();
        self.show_store(clock::now(), &mut page);
        self.relay.show(&mut page);
        page.text().into()
    }

    /// Adds the newest points of the chosen series of the store.
    fn show_store(&self, now: i64, page: &mut Page) {
        if self.metrics.is_empty() {
            return;
        }
        let (store, mut chosen, mut names) = (self.engine.store(), Vec::new(), Names::default());
        store.for_each_series(&mut |id, key, counter_type, step| {
            let is_chosen = self.metrics.iter().any(|prefix| key.metric.starts_with(prefix.as_str()));
            if is_chosen && chosen.len() < self.series_max {
                names.set(&key);
                let is_gauge = counter_type == CounterType::Gauge;
                chosen.push((id, names.name.clone(), names.labels.clone(), is_gauge, i64::from(step)));
            }
        });
        for (id, name, labels, is_gauge, step) in chosen {
            let silent_s = SILENT_S.max(SILENT_STEPS * step);
            if let Some(point) = store.newest_in_memory(id)
                && now - point.time <= silent_s
            {
                page.add(&name, &labels, is_gauge, point.value);
            }
        }
    }
}

/// Routes of the door.
pub fn router(source: Source) -> axum::Router {
    axum::Router::new()
        .route("/metrics", get(show))
        .route("/health", get(|| async { "ok\n" }))
        .route("/version", get(|| async { concat!(env!("CARGO_PKG_VERSION"), "\n") }))
        .route("/config/reload", post(|| async { "ok: the configuration is read at the start\n" }))
        .with_state(source)
}

async fn show(State(source): State<Source>) -> Response {
    let making = source.engine.clone().spawn_blocking(move |_| source.page.get(Instant::now, || source.make()));
    match making.await {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], Bytes::from_owner(page)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
