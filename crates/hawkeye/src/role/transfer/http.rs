//! `POST /api/push` and the small routes that scripts ask transfer for (docs/open-falcon/wire.md §3,
//! docs/open-falcon/transfer.md §7).
//!
//! How: the original's transfer keeps the last items of a series that somebody traces; here the store has them anyway.
//! Compat: neither method nor content type of a push is looked at. `blank body` and `decode error` are the original's
//! texts; what is wrong, and where, follows them. `/counter/all` has the original's counters in its order; those of
//! backends that are not there stay 0. Without a store, `/trace` and `/filter` say so. `/config`, which shows passwords
//! there, is not served.

use super::fanout::{Fanout, Figures, Kind};
use super::points::Points;
use crate::clock;
use crate::engine::ingest::{Door, Ingest};
use crate::watch::counters::{Counters, Figure};
use crate::watch::envelope::{NO_PRIVILEGE, is_local, success};
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use model::Point;
use net::gate::Gate;
use net::http::{BodyError, Peer, read_body, shown_secret};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::transfer::{UpdateAnswer, write_answer};

/// State of the routes.
#[derive(Clone)]
pub struct PushContext {
    pub points: Points,
    pub message_max: usize,
    pub message_timeout: Duration,
    pub counters: Arc<Counters>,
    pub gate: Gate,
}

/// Routes of the door for pushes over HTTP.
pub fn router(context: PushContext) -> Router {
    Router::new()
        .route("/api/push", any(push))
        .route("/health", get(|| async { "ok\n" }))
        .route("/version", get(|| async { concat!(env!("CARGO_PKG_VERSION"), "\n") }))
        .route("/config/reload", get(reload))
        .route("/counter/all", get(counters))
        .route("/statistics/all", get(counters))
        .route("/proc/step", get(min_step))
        .route("/trace/{*series}", get(trace))
        .route("/filter/{*series}", get(filter))
        .with_state(context)
}

async fn reload(Extension(ConnectInfo(address)): Extension<ConnectInfo<SocketAddr>>) -> Response {
    match is_local(address) {
        true => success(json!("ok: the configuration is read at the start")),
        false => success(json!(NO_PRIVILEGE)),
    }
}

async fn min_step(State(context): State<PushContext>) -> Response {
    success(json!({ "min_step": context.points.min_step() }))
}

async fn counters(State(context): State<PushContext>) -> Response {
    success(json!(context.counters.read(&figures(&context.points), clock::now())))
}

/// The original's counters, in its order.
fn figures(points: &Points) -> Vec<Figure> {
    let [rpc, http, socket] = [Door::Rpc, Door::Http, Door::Telnet].map(|door| points.received_by(door));
    let on = match points {
        Points::Own(ingest) => On::taken(ingest),
        Points::Next(fanout) => On::sent(fanout),
    };
    let mut figures = vec![
        Figure::Count("RecvCnt", rpc + http + socket),
        Figure::Count("RpcRecvCnt", rpc),
        Figure::Count("HttpRecvCnt", http),
        Figure::Count("SocketRecvCnt", socket),
        Figure::Count("SendToJudgeCnt", on.judge.sent),
        Figure::Count("SendToTsdbCnt", on.tsdb.sent),
        Figure::Count("SendToInfluxdbCnt", on.influxdb.sent),
        Figure::Count("SendToGraphCnt", on.graph.sent),
        Figure::Count("SendToTransferCnt", on.transfer.sent),
        Figure::Count("SendToP8sRelayCnt", on.p8s.sent),
        Figure::Count("SendToJudgeDropCnt", on.judge.dropped),
        Figure::Count("SendToTsdbDropCnt", on.tsdb.dropped),
        Figure::Count("SendToGraphDropCnt", on.graph.dropped),
        Figure::Count("SendToTransferDropCnt", on.transfer.dropped),
        Figure::Count("SendToInfluxdbDropCnt", on.influxdb.dropped),
        Figure::Count("SendToP8sRelayDropCnt", on.p8s.dropped),
        Figure::Count("SendToJudgeFailCnt", on.judge.refused),
        Figure::Count("SendToTsdbFailCnt", on.tsdb.refused),
        Figure::Count("SendToGraphFailCnt", on.graph.refused),
        Figure::Count("SendToTransferFailCnt", on.transfer.refused),
        Figure::Count("SendToInfluxdbFailCnt", on.influxdb.refused),
        Figure::Count("SendToP8sRelayFailCnt", on.p8s.refused),
        Figure::Gauge("JudgeSendCacheCnt", on.judge.waiting),
        Figure::Gauge("TsdbSendCacheCnt", on.tsdb.waiting),
        Figure::Gauge("GraphSendCacheCnt", on.graph.waiting),
        Figure::Gauge("TransferSendCacheCnt", on.transfer.waiting),
        Figure::Gauge("P8sRelaySendCacheCnt", on.p8s.waiting),
    ];
    figures.extend(UNUSED.map(|name| Figure::Count(name, 0)));
    figures
}

/// Figures of what went on, by the kind of who has it then.
#[derive(Default)]
struct On {
    graph: Figures,
    judge: Figures,
    transfer: Figures,
    tsdb: Figures,
    influxdb: Figures,
    p8s: Figures,
}

impl On {
    /// Judge and graph are behind the door, so what is taken was sent to both, and nothing waits.
    fn taken(ingest: &Ingest) -> On {
        let taken = Figures { sent: ingest.taken(), ..Figures::default() };
        On { graph: taken, judge: taken, ..On::default() }
    }

    fn sent(fanout: &Fanout) -> On {
        On {
            graph: fanout.figures(Kind::Graph),
            judge: fanout.figures(Kind::Judge),
            transfer: fanout.figures(Kind::Transfer),
            tsdb: fanout.figures(Kind::Tsdb),
            influxdb: fanout.figures(Kind::Influxdb),
            p8s: fanout.figures(Kind::P8sRelay),
        }
    }
}

/// Counters that the original has and never counts.
const UNUSED: [&str; 8] = [
    "HistoryRequestCnt",
    "InfoRequestCnt",
    "LastRequestCnt",
    "LastRawRequestCnt",
    "HistoryResponseCounterCnt",
    "HistoryResponseItemCnt",
    "LastRequestItemCnt",
    "LastRawRequestItemCnt",
];

/// Items that a trace shows, and a filter.
const TRACED: usize = 3;
const FILTERED: usize = 5;
/// Seconds back that a filter looks.
const FILTER_S: i64 = 3600;
/// Difference below which two values are one to a filter.
const NEAR: f64 = 1e-6;

/// The last items of `endpoint/metric[/tags]`.
async fn trace(State(context): State<PushContext>, Path(series): Path<String>) -> Response {
    let mut parts = series.splitn(3, '/');
    let (Some(endpoint), Some(metric)) = (parts.next(), parts.next()) else {
        return bad("want /trace/<endpoint>/<metric>[/<k=v,…>]");
    };
    let counter = counter(metric, parts.next());
    last_items(&context, endpoint, &counter, TRACED, |_| true).await
}

/// The last items of `endpoint/metric/op/threshold[/tags]` whose value compares so.
async fn filter(State(context): State<PushContext>, Path(series): Path<String>) -> Response {
    const FORM: &str = "want /filter/<endpoint>/<metric>/<eq|ne|gt|lt>/<threshold>[/<k=v,…>]";
    let parts: Vec<&str> = series.splitn(5, '/').collect();
    let &[endpoint, metric, op, threshold, ref tags @ ..] = &parts[..] else { return bad(FORM) };
    let Ok(threshold) = threshold.parse::<f64>() else { return bad(FORM) };
    let takes: fn(f64, f64) -> bool = match op {
        "eq" => |value, threshold| (value - threshold).abs() < NEAR,
        "ne" => |value, threshold| (value - threshold).abs() >= NEAR,
        "gt" => |value, threshold| value > threshold + NEAR,
        "lt" => |value, threshold| value < threshold - NEAR,
        _ => return bad(FORM),
    };
    let counter = counter(metric, tags.first().copied());
    last_items(&context, endpoint, &counter, FILTERED, move |value| takes(value, threshold)).await
}

fn bad(text: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{text}\n")).into_response()
}

fn counter(metric: &str, tags: Option<&str>) -> String {
    match tags.filter(|tags| !tags.is_empty()) {
        Some(tags) => format!("{metric}/{tags}"),
        None => metric.to_string(),
    }
}

/// The last items of a series whose values `takes` takes, as the original shows them: the oldest first.
async fn last_items(
    context: &PushContext,
    endpoint: &str,
    counter: &str,
    count: usize,
    takes: impl Fn(f64) -> bool + Send + 'static,
) -> Response {
    let Points::Own(ingest) = &context.points else {
        let text = "this process keeps no points: ask the graph that has the series";
        return (StatusCode::NOT_FOUND, format!("{text}\n")).into_response();
    };
    let (endpoint, counter) = (endpoint.to_string(), counter.to_string());
    let reading = ingest.engine().spawn_blocking(move |engine| {
        let store = engine.store();
        let Some(found) = store.find(&endpoint, &counter)? else { return Ok(Vec::new()) };
        let (now, mut points) = (clock::now(), Vec::new());
        store.history(found, now - FILTER_S.max(i64::from(found.step) * TRACED as i64), now + FILTER_S, &mut points)?;
        points.retain(|point| takes(point.value));
        let last = &points[points.len().saturating_sub(count)..];
        let (metric, tags) = counter.split_once('/').unwrap_or((&counter, ""));
        let tags: BTreeMap<&str, &str> = tags.split(',').filter_map(|tag| tag.split_once('=')).collect();
        let item = |point: &Point| {
            json!({
                "metric": metric, "endpoint": endpoint, "timestamp": point.time, "step": found.step,
                "value": point.value, "counterType": found.counter_type.as_str(), "tags": tags,
            })
        };
        Ok::<_, store::Error>(last.iter().map(item).collect())
    });
    match reading.await {
        Ok(Ok(items)) => success(Value::Array(items)),
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Answer to a push without a valid token.
fn no_token() -> Response {
    let text =
        "no valid token: send Authorization: Bearer TOKEN, or the token as the password of Basic; ingest.token has it";
    let headers = [(header::WWW_AUTHENTICATE, "Bearer"), (header::CONTENT_TYPE, "application/json; charset=UTF-8")];
    (StatusCode::UNAUTHORIZED, headers, json!({ "error": text }).to_string()).into_response()
}

async fn push(
    State(context): State<PushContext>,
    Extension(ConnectInfo(address)): Extension<ConnectInfo<SocketAddr>>,
    peer: Peer,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let start = Instant::now();
    if !context.gate.takes("transfer_http", shown_secret(&headers).as_deref()) {
        return no_token();
    }
    let body = match read_body(&peer, body, context.message_max, context.message_timeout).await {
        Ok(body) => body,
        Err(error) => {
            let text = match error {
                BodyError::TooLong => {
                    format!("body is above {} bytes (ingest.message_max): send smaller batches", context.message_max)
                }
                _ => error.text(),
            };
            return (error.status(), format!("{text}\n")).into_response();
        }
    };
    if body.is_empty() {
        return (StatusCode::BAD_REQUEST, "blank body\n").into_response();
    }
    let mut batch = context.points.begin(Door::Http, clock::now(), address.ip());
    if let Err(error) = batch.push_json(&body) {
        return (StatusCode::BAD_REQUEST, format!("decode error: {error}\n")).into_response();
    }
    match batch.finish() {
        Ok(received) => {
            let latency_ms = start.elapsed().as_millis() as u64;
            let mut out = br#"{"msg":"success","data":"#.to_vec();
            write_answer(&mut out, &UpdateAnswer { total: received.total, invalid: received.invalid, latency_ms });
            out.push(b'}');
            ([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], out).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
