//! The old nodata's HTTP routes that monitors and people ask (`listen.nodata_http`, 6090 in the original).
//!
//! How: a series is asked for as `endpoint/metric[/tags]`, with its tags in the order of their keys.
//! Compat: docs/open-falcon/aggregator-nodata-gateway.md §2. Counters have the original's names: its three steps
//! (reading rows, collecting, judging) are one look here, so they count the same. `/proc/collect` shows what the store
//! has now. Not there: `/workdir`, `/config`, which show paths and passwords, and `/debug/…`, which work. Where nodata
//! runs alone, neither are `/proc/collect` and `/proc/group`.

use super::Looks;
use super::looks::Watched;
use crate::clock;
use crate::engine::Engine;
use crate::portal::mock::Mock;
use crate::portal::{Portal, group, host};
use crate::rules::InEffect;
use crate::watch::counters::{Counters, Figure};
use crate::watch::envelope::{NO_PRIVILEGE, is_local, success};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::{Map, Value, json};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// The parts that the routes ask.
#[derive(Clone)]
pub struct NodataRoutes {
    /// The store and the tables, where they are in this process.
    pub here: Option<Here>,
    pub in_effect: watch::Receiver<Arc<InEffect>>,
    pub looks: Looks,
    /// Share of a row's series that may fall silent at once.
    pub flood_share: f64,
    pub counters: Arc<Counters>,
}

/// The parts of a whole server that the routes ask.
#[derive(Clone)]
pub struct Here {
    pub portal: Portal,
    pub engine: Arc<Engine>,
}

/// Routes of the door `nodata_http`.
pub fn router(routes: NodataRoutes) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/version", get(|| async { concat!(env!("CARGO_PKG_VERSION"), "\n") }))
        .route("/config/reload", get(reload))
        .route("/proc/counters", get(counters))
        .route("/statistics/all", get(counters))
        .route("/proc/status/{*series}", get(status))
        .route("/proc/collect/{*series}", get(collected))
        .route("/proc/config", get(all_rows))
        .route("/proc/config/{*series}", get(row))
        .route("/proc/group/{name}", get(hosts))
        .with_state(routes)
}

async fn reload(Extension(ConnectInfo(address)): Extension<ConnectInfo<SocketAddr>>) -> Response {
    match is_local(address) {
        true => success(json!("ok: the configuration is read at the start, rows by themselves")),
        false => success(json!(NO_PRIVILEGE)),
    }
}

async fn counters(State(routes): State<NodataRoutes>) -> Response {
    let figures = routes.clone().blocking(|routes| routes.figures()).await;
    match figures {
        Ok(figures) => success(json!(routes.counters.read(&figures, clock::now()))),
        Err(error) => failed(&error),
    }
}

/// Whether a series is mocked, how often it was since it fell silent, and when last.
async fn status(State(routes): State<NodataRoutes>, Path(series): Path<String>) -> Response {
    let found = routes.blocking(move |routes| {
        let found = routes.find(&series).map(|(watched, _)| watched);
        (found, routes.looks.counts().last, series)
    });
    match found.await {
        Ok((None, ..)) => success(json!({ "Key": "", "Status": "", "Cnt": 0, "Ts": 0 })),
        Ok((Some(Watched { mocks: Some((count, last)), .. }), _, series)) => {
            success(json!({ "Key": series, "Status": "NODATA", "Cnt": count, "Ts": last.max(0) }))
        }
        Ok((Some(_), looked, series)) => success(json!({ "Key": series, "Status": "OK", "Cnt": 0, "Ts": looked })),
        Err(error) => failed(&error),
    }
}

/// The newest point of a series, in the original's words.
async fn collected(State(routes): State<NodataRoutes>, Path(series): Path<String>) -> Response {
    if routes.here.is_none() {
        return elsewhere();
    }
    let found = routes.blocking(move |routes| {
        let (endpoint, counter) = series.split_once('/')?;
        let store = routes.here.as_ref()?.engine.store();
        let found = store.find(endpoint, counter).ok().flatten()?;
        store.last_raw(found)
    });
    let text = |ts: i64, value: f64, asked: i64, status: &str| {
        let (ts, asked) = (clock::local_text(ts), clock::local_text(asked));
        success(json!(format!("ts:{ts}, value:{value:.6}, fts:{asked}, fstatus:{status}")))
    };
    match found.await {
        Ok(Some(point)) => text(point.time, point.value, clock::now(), "OK"),
        Ok(None) => text(0, 0.0, 0, ""),
        Err(error) => failed(&error),
    }
}

/// All series that are looked after, each with its row.
async fn all_rows(State(routes): State<NodataRoutes>) -> Response {
    let rows = routes.blocking(|routes| {
        let rules = routes.in_effect.borrow().clone();
        let watched = routes.looks.watched(&rules.snapshot, clock::now());
        let shown = watched.into_iter().map(|(name, watched)| {
            let row = row_json(&rules.snapshot.mocks[watched.row], &watched.endpoint);
            (name, row)
        });
        shown.collect::<Map<String, Value>>()
    });
    match rows.await {
        Ok(rows) => success(Value::Object(rows)),
        Err(error) => failed(&error),
    }
}

async fn row(State(routes): State<NodataRoutes>, Path(series): Path<String>) -> Response {
    match routes.blocking(move |routes| routes.find(&series)).await {
        Ok(Some((watched, mock))) => success(row_json(&mock, &watched.endpoint)),
        Ok(None) => success(json!({
            "id": 0, "name": "", "objType": "", "endpoint": "", "metric": "", "tags": null, "type": "", "step": 0,
            "mock": 0,
        })),
        Err(error) => failed(&error),
    }
}

/// Hosts of a group that are not in maintenance, with their ids.
async fn hosts(State(routes): State<NodataRoutes>, Path(name): Path<String>) -> Response {
    let Some(Here { portal, .. }) = &routes.here else { return elsewhere() };
    let read = async {
        let groups = group::all(portal).await?;
        let Some(found) = groups.into_iter().find(|group| group.grp_name.eq_ignore_ascii_case(&name)) else {
            return Ok(Vec::new());
        };
        host::of_group(portal, found.id).await
    };
    let now = clock::now();
    match read.await {
        Ok(hosts) => {
            let watched = hosts.into_iter().filter(|host| host.maintain_begin > now || host.maintain_end < now);
            success(Value::Object(watched.map(|host| (host.hostname, json!(host.id))).collect()))
        }
        Err(error) => failed(&error as &dyn Display),
    }
}

impl NodataRoutes {
    /// Runs `work` on a thread that may wait for a look that is under way.
    async fn blocking<T: Send + 'static>(
        self,
        work: impl FnOnce(&NodataRoutes) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        match self.here.clone() {
            Some(here) => here.engine.spawn_blocking(move |_| work(&self)).await,
            None => tokio::task::spawn_blocking(move || work(&self)).await,
        }
    }

    /// A series that is looked after, by its name, with its row.
    fn find(&self, series: &str) -> Option<(Watched, Mock)> {
        let rules = self.in_effect.borrow().clone();
        let watched = self.looks.watched(&rules.snapshot, clock::now());
        let (_, found) = watched.into_iter().find(|(name, _)| name == series)?;
        let mock = rules.snapshot.mocks[found.row].clone();
        Some((found, mock))
    }

    /// The original's counters in its order.
    fn figures(&self) -> [Figure; 15] {
        let counts = self.looks.counts();
        let (last, sent_at) = (counts.last.max(0) as u64, counts.sent_at.max(0) as u64);
        [
            Figure::Count("ConfigCronCnt", counts.looks),
            Figure::Gauge("ConfigLastTs", last),
            Figure::Gauge("ConfigLastCnt", counts.series),
            Figure::Count("CollectorCronCnt", counts.looks),
            Figure::Gauge("CollectorLastCnt", counts.series),
            Figure::Gauge("CollectorLastTs", last),
            Figure::Count("CollectorCnt", counts.series_of_all),
            Figure::Count("JudgeCronCnt", counts.looks),
            Figure::Gauge("JudgeLastTs", last),
            Figure::Count("SenderCronCnt", counts.sendings),
            Figure::Gauge("SenderLastTs", sent_at),
            Figure::Count("SenderCnt", counts.sent),
            Figure::Gauge("FloodRate", (self.flood_share * 100.0).round() as u64),
            Figure::Gauge("Threshold", super::FLOOD_MIN as u64),
            Figure::Gauge("nodata.blocking", counts.held),
        ]
    }
}

fn row_json(mock: &Mock, endpoint: &str) -> Value {
    let mut scratch = String::new();
    let tags: Map<String, Value> = model::Tags::canonical(&mock.tags, &mut scratch)
        .iter()
        .map(|(key, value)| (key.into(), json!(value)))
        .collect();
    json!({
        "id": mock.id, "name": mock.name, "objType": mock.obj_type, "endpoint": endpoint, "metric": mock.metric,
        "tags": tags, "type": mock.dstype, "step": mock.step, "mock": mock.mock,
    })
}

/// Answer of a module that runs alone: the old api has what was asked for.
fn elsewhere() -> Response {
    (StatusCode::NOT_FOUND, "nodata runs alone here: ask the api\n").into_response()
}

fn failed(error: &dyn Display) -> Response {
    tracing::error!(%error, "cannot answer a question about nodata");
    (StatusCode::SERVICE_UNAVAILABLE, "cannot be read now: see /health\n").into_response()
}
