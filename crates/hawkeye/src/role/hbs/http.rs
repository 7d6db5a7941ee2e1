//! The old hbs' HTTP routes that scripts ask (`listen.hbs_http`, 6031 in the original): what holds now, as maps.
//!
//! Compat: docs/open-falcon/control-plane.md §1. `/strategies` are those that hold for some host; the original's are
//! also those of templates that are bound to nothing. `/config/reload` has nothing to reload.

use super::{HbsService, agents as of_agents};
use crate::clock;
use crate::portal::host;
use crate::watch::envelope::{NO_PRIVILEGE, is_local, success};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use model::Strategy;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;

/// Routes of the door `hbs_http`.
pub fn router(hbs: HbsService) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/version", get(|| async { env!("CARGO_PKG_VERSION") }))
        .route("/config/reload", get(reload))
        .route("/agents", get(agents))
        .route("/hosts", get(hosts))
        .route("/strategies", get(strategies))
        .route("/expressions", get(expressions))
        .route("/templates", get(templates))
        .route("/plugins/{hostname}", get(plugins))
        .with_state(hbs)
}

async fn reload(Extension(ConnectInfo(address)): Extension<ConnectInfo<SocketAddr>>) -> Response {
    match is_local(address) {
        true => success(json!("nothing to reload: the configuration is read at the start, rules by themselves")),
        false => success(json!(NO_PRIVILEGE)),
    }
}

/// Names of the hosts whose agents have reported.
async fn agents(State(hbs): State<HbsService>) -> Response {
    let hosts = match host::all(&hbs.portal).await {
        Ok(hosts) => hosts,
        Err(error) => return failed(&error),
    };
    let reported = hosts.into_iter().filter(|host| !host.agent_version.is_empty());
    success(json!(reported.map(|host| host.hostname).collect::<Vec<_>>()))
}

/// Hosts that are not in maintenance, by id.
async fn hosts(State(hbs): State<HbsService>) -> Response {
    let hosts = match host::all(&hbs.portal).await {
        Ok(hosts) => hosts,
        Err(error) => return failed(&error),
    };
    let now = clock::now();
    let watched = hosts.into_iter().filter(|host| host.maintain_begin > now || host.maintain_end < now);
    let by_id = watched.map(|host| (host.id.to_string(), json!({ "Id": host.id, "Name": host.hostname })));
    success(Value::Object(by_id.collect()))
}

/// Strategies that hold for some host, by id.
async fn strategies(State(hbs): State<HbsService>) -> Response {
    let rules = hbs.in_effect();
    let by_id: BTreeMap<i64, &Strategy> =
        rules.rules.hosts.values().flat_map(|list| list.iter()).map(|strategy| (strategy.id, &**strategy)).collect();
    let mut all = String::from("{");
    for (id, strategy) in by_id {
        all.push_str(if all.len() > 1 { "," } else { "" });
        all.push_str(&format!("\"{id}\":"));
        // As it was saved, without the exceptions of some host.
        rules.snapshot.without_exceptions(strategy).push_json(&mut all);
    }
    all.push('}');
    success(all)
}

async fn expressions(State(hbs): State<HbsService>) -> Response {
    let rules = hbs.in_effect();
    let mut all = String::from("[");
    for expression in rules.rules.expressions.iter() {
        all.push_str(if all.len() > 1 { "," } else { "" });
        expression.push_json(&mut all);
    }
    all.push(']');
    success(all)
}

/// All templates, by id.
async fn templates(State(hbs): State<HbsService>) -> Response {
    let rules = hbs.in_effect();
    let template = |tpl: &model::Template| {
        let model::Template { id, name, parent_id, action_id, creator } = tpl;
        json!({ "id": id, "name": name, "parentId": parent_id, "actionId": action_id, "creator": creator })
    };
    let all = rules.snapshot.templates.values().map(|tpl| (tpl.id.to_string(), template(tpl)));
    success(Value::Object(all.collect()))
}

async fn plugins(State(hbs): State<HbsService>, Path(hostname): Path<String>) -> Response {
    let snapshot = &hbs.in_effect().snapshot;
    let groups = snapshot.host(&hostname).map_or(&[][..], |host| &host.groups);
    success(json!(of_agents::plugins(snapshot, groups)))
}

fn failed(error: &dyn Display) -> Response {
    tracing::error!(%error, "cannot answer a question about hosts");
    (StatusCode::SERVICE_UNAVAILABLE, "the portal cannot be read: see /health\n").into_response()
}
