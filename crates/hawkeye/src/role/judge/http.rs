//! The old judge's HTTP routes that people and scripts ask (`listen.judge_http`, 6081 in the original).
//!
//! Compat: docs/open-falcon/judge.md §8. `/history` shows as many points as the rules of the series look back on,
//! instead of ten; a series without a rule has none. `/count` counts series with a rule. `/config/reload` says that
//! there is nothing to reload.

use crate::clock;
use crate::engine::windowed::Windowed;
use crate::watch::envelope::{NO_PRIVILEGE, is_local, success};
use axum::Router;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone)]
struct JudgeContext {
    windowed: Arc<Windowed>,
    data_dir: Arc<PathBuf>,
}

/// Routes of the door `judge_http`.
pub fn router(windowed: Arc<Windowed>, data_dir: PathBuf) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/version", get(|| async { env!("CARGO_PKG_VERSION") }))
        .route("/workdir", get(workdir))
        .route("/config/reload", get(reload))
        .route("/count", get(count))
        .route("/history/{*series}", get(history))
        .route("/strategy/{*key}", get(strategies))
        .route("/expression/{*key}", get(expressions))
        .with_state(JudgeContext { windowed, data_dir: Arc::new(data_dir) })
}

async fn workdir(State(context): State<JudgeContext>) -> Response {
    success(serde_json::Value::from(context.data_dir.display().to_string()))
}

async fn reload(peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>) -> Response {
    if peer.is_some_and(|peer| is_local(peer.0.0)) {
        (StatusCode::OK, "nothing to reload: the configuration is read at the start, rules are pulled by themselves\n")
            .into_response()
    } else {
        NO_PRIVILEGE.into_response()
    }
}

async fn count(State(context): State<JudgeContext>) -> String {
    format!("total: {}\n", context.windowed.series())
}

async fn history(State(context): State<JudgeContext>, Path(series): Path<String>) -> String {
    let points = series.split_once('/').and_then(|(endpoint, counter)| context.windowed.history(endpoint, counter));
    let Some(points) = points.filter(|points| !points.is_empty()) else { return "not found\n".to_string() };
    let mut lines = String::new();
    for point in points {
        let _ = writeln!(lines, "{} {} {}", point.time, clock::local_text(point.time), point.value);
    }
    lines
}

async fn strategies(State(context): State<JudgeContext>, Path(key): Path<String>) -> Response {
    let rules = context.windowed.rules();
    let of_host = key.split_once('/').and_then(|(endpoint, metric)| Some((rules.hosts.get(endpoint)?, metric)));
    let found = of_host.map(|(list, metric)| list.iter().filter(|strategy| strategy.metric == metric).collect());
    list(found.unwrap_or_else(Vec::new), |strategy, out| strategy.push_json(out))
}

/// Shows the expressions of `metric/tag=value`; the original files an expression under each of its tags.
async fn expressions(State(context): State<JudgeContext>, Path(key): Path<String>) -> Response {
    let rules = context.windowed.rules();
    let asked = key.split_once('/').and_then(|(metric, tag)| Some((metric, tag.split_once('=')?)));
    let found = asked.map(|(metric, (tag, value))| {
        let mut found = rules.expressions.iter().collect::<Vec<_>>();
        found.retain(|expression| expression.metric == metric && expression.tags.get(tag) == Some(value));
        found
    });
    list(found.unwrap_or_default(), |expression, out| expression.push_json(out))
}

/// Answer with a list, or null where there is nothing, as in the original.
fn list<T>(all: Vec<T>, push: impl Fn(&T, &mut String)) -> Response {
    if all.is_empty() {
        return success("null");
    }
    let mut json = String::from("[");
    for (i, one) in all.iter().enumerate() {
        json.push_str(if i == 0 { "" } else { "," });
        push(one, &mut json);
    }
    json.push(']');
    success(json)
}
