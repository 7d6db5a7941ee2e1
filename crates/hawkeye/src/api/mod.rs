//! REST API: Open-Falcon's routes under `/api/v1`, with its shapes, statuses and texts.
//!
//! How: one file per subject; each has `routes()` and short handlers that check the input, ask `portal` and answer.
//! The functions of `portal` that change what rules, probes or plugins depend on announce it after their commit.
//! Invariants: a handler that panics answers 500 and nothing else happens; bodies are at most [`body::BODY_MAX`] bytes;
//! whatever is not a route is a JSON 404, also a known path with another method, as in the original.
//! Compat: `tests.rs` asks for the recorded answers of the original again; docs/compat.md lists the differences.

mod agent;
mod aggregator;
mod alarm;
mod alarm_stream;
pub mod attempts;
mod audit;
pub mod auth;
pub mod body;
mod changes;
pub mod code;
pub mod code_diff;
pub mod code_file;
mod code_model;
mod code_plan;
mod code_probe;
mod code_secret;
mod code_write;
mod dashboard;
mod docs;
mod download;
pub mod error;
mod exception;
mod expression;
mod grafana;
mod graph;
mod host;
mod host_stream;
mod hostgroup;
pub mod job;
mod metric;
mod nodata;
mod old_graph;
mod openapi;
pub mod paging;
mod pieces;
mod probe;
pub mod probe_once;
mod probe_said;
pub mod rehearsal;
mod rights;
mod rule;
mod session;
mod snapshot;
mod strategy;
mod stream;
mod team;
mod template;
mod text;
mod token;
mod user;

use crate::config::Config;
use crate::engine::Engine;
use crate::plus_graph::PlusGraphs;
use crate::portal::Portal;
use crate::releases::Releases;
use crate::rules::computed::Lasts;
use attempts::Attempts;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use error::ApiError;
use host_stream::HostWatch;
use job::Heartbeats;
use probe_once::Tester;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The parts of the server that handlers work with.
#[derive(Clone)]
pub struct Context {
    pub portal: Portal,
    pub config: Arc<Config>,
    pub engine: Arc<Engine>,
    /// The old graphs that have the points, for an api that stands alone; the engine's store is empty then.
    pub graphs: Option<PlusGraphs>,
    pub attempts: Arc<Attempts>,
    /// What became of aggregators.
    pub lasts: Lasts,
    pub hosts: HostWatch,
    pub tester: Tester,
    /// Agents' programs.
    pub releases: Releases,
    pub heartbeats: Heartbeats,
    /// Turns true when answers are to end.
    pub stopping: watch::Receiver<bool>,
}

impl Context {
    /// A context over these parts, in which no aggregator was computed yet.
    pub fn new(portal: Portal, config: Arc<Config>, engine: Arc<Engine>, attempts: Arc<Attempts>) -> Context {
        // Nobody stops it, unless its maker says who does.
        let stopping = watch::channel(false).1;
        let (lasts, hosts, tester) = (Lasts::default(), HostWatch::default(), Tester::default());
        let (releases, heartbeats) = (Releases::new(&config.agents_dir()), Heartbeats::default());
        Context { portal, config, engine, graphs: None, attempts, lasts, hosts, tester, releases, heartbeats, stopping }
    }
}

/// All routes under `/api/v1`. The caller adds what lies beside it (pages, `/health`, `/metrics`).
pub fn router(context: Context) -> Router {
    let v1 = Router::new()
        .merge(session::routes())
        .merge(user::routes())
        .merge(graph::routes())
        .merge(team::routes())
        .merge(host::routes())
        .merge(agent::routes())
        .merge(hostgroup::routes())
        .merge(template::routes())
        .merge(strategy::routes())
        .merge(exception::routes())
        .merge(rehearsal::routes())
        .merge(metric::routes())
        .merge(expression::routes())
        .merge(aggregator::routes())
        .merge(nodata::routes())
        .merge(probe::routes())
        .merge(job::routes())
        .merge(dashboard::routes())
        .merge(grafana::routes())
        .merge(alarm::routes())
        .merge(token::routes())
        .merge(stream::routes())
        .merge(openapi::routes())
        .merge(audit::routes())
        .merge(code::routes())
        .merge(download::routes())
        .route_layer(axum::middleware::from_fn_with_state(context.clone(), audit::record));
    Router::new()
        .nest("/api/v1", v1)
        .merge(hostgroup::old_routes())
        .merge(download::program_routes())
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(DefaultBodyLimit::max(body::BODY_MAX))
        .layer(axum::middleware::from_fn(check_path))
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(cors())
        .layer(axum::middleware::map_response(complete_preflight))
        .with_state(context)
}

async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no such route: docs/api.md and /api/v1/openapi.json have all of them")
}

/// Refuses a path whose escapes are no UTF-8, which axum would refuse with a plain text.
async fn check_path(request: Request, next: Next) -> Response {
    if is_utf8(request.uri().path()) {
        return next.run(request).await;
    }
    ApiError::bad("the path has escapes that are no UTF-8, like %ff: encode the name as UTF-8").into_response()
}

/// Whether a path is UTF-8 once its escapes are read; a `%` that begins none stays as it is.
fn is_utf8(path: &str) -> bool {
    let (mut read, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let Some((byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *byte == b'%');
        match digits.and_then(|digits| hex::decode(digits).ok()) {
            Some(escaped) => {
                read.extend(escaped);
                rest = &behind[2..];
            }
            None => {
                read.push(*byte);
                rest = behind;
            }
        }
    }
    std::str::from_utf8(&read).is_ok()
}

fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
    tracing::error!("a request handler panicked, and the request was answered with status 500: {text}");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error: see the server's log").into_response()
}

/// CORS as in the original: any origin may ask, since the secret travels in a header that no browser adds by itself.
fn cors() -> CorsLayer {
    let update = Method::from_bytes(b"UPDATE").expect("a valid token");
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_credentials(true)
        .allow_methods([Method::POST, Method::GET, Method::OPTIONS, Method::PUT, Method::DELETE, update, Method::PATCH])
        .allow_headers([
            header::CONTENT_TYPE,
            header::CONTENT_LENGTH,
            header::AUTHORIZATION,
            HeaderName::from_static("apitoken"),
        ])
        .expose_headers([header::CONTENT_LENGTH])
        .max_age(Duration::from_secs(86_400))
}

/// Names the exposed header in the answer to a preflight, as the original does; the layer does so only in other
/// answers.
async fn complete_preflight(mut response: Response) -> Response {
    if response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_METHODS) {
        let exposed = HeaderValue::from_static("Content-Length");
        response.headers_mut().insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// The characters that the original refuses in names which pages show.
fn has_dangerous_characters(name: &str) -> bool {
    name.contains(['<', '>', '&', '\'', '"'])
}

/// The content type of every answer, as the original spells it.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

#[cfg(test)]
mod tests;
