//! Control: routes that change this host or the agent, for whoever is privileged (`privilege`).
//!
//! Compat: docs/open-falcon/agent.md §6: texts and the status 200 are the original's, also for those who are refused
//! (`no privilege`). The original lets anybody update and reset plugins. `/run`, which runs any command, does not
//! exist. Method and body are not looked at, as there.

use super::{Agent, privilege, reload};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

const NO_PRIVILEGE: &str = "no privilege";

/// Routes that change something, and `/plugins`, which anybody may read.
pub fn routes(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/plugin/update", any(update))
        .route("/plugin/reset", any(reset))
        .route("/config/reload", any(load_again))
        .route("/exit", any(exit))
        .route_layer(from_fn_with_state(agent.clone(), privileged_only))
        .route("/plugins", any(plugins))
        .with_state(agent)
}

async fn privileged_only(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
    let (token, trusted) = (&agent.config.listen.token, agent.orders.trustable_ips());
    if privilege::is_privileged(peer, request.headers(), token, &trusted) {
        return next.run(request).await;
    }
    tracing::debug!(?peer, path = request.uri().path(), "refused who is neither trusted nor shows the token");
    NO_PRIVILEGE.into_response()
}

async fn update(State(agent): State<Arc<Agent>>) -> String {
    agent.plugins.update().await
}

async fn reset(State(agent): State<Arc<Agent>>) -> String {
    agent.plugins.reset().await
}

async fn plugins(State(agent): State<Arc<Agent>>) -> axum::Json<Value> {
    axum::Json(json!({"msg": "success", "data": agent.plugins.shown()}))
}

async fn load_again(State(agent): State<Arc<Agent>>) -> axum::Json<Value> {
    axum::Json(match reload::reload(&agent).await {
        Ok(reloaded) => reloaded.shown(),
        Err(error) => json!({"msg": error}),
    })
}

/// Ends the process as a signal does: the answer is still sent, and so are points that wait.
async fn exit(State(agent): State<Arc<Agent>>) -> &'static str {
    let Some(exit) = &agent.exit else { return "this agent is a part of a server: stop that one" };
    tracing::info!("asked to end by /exit");
    exit.send_replace(true);
    "exiting..."
}
