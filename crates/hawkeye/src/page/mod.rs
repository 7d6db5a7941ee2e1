//! The first page (`web/`, embedded) and the read-only routes under `/ui/` that the page draws from.
//!
//! Why: whoever has typed `make run` wants to see hosts, charts and open alarms at once, without a password and without
//! a build step for the page.
//! How: a file per subject: `files.rs` sends the page, `viewer.rs` decides who may look, `enter.rs` logs in by the link
//! of a start, and `overview.rs`, `counters.rs` and `history.rs` answer with JSON; `links.rs` has what the old
//! dashboard's addresses mean. Series and points are read from the engine's store, or from old graphs (`old_graph.rs`);
//! open alarms from the portal.
//! Invariants: nothing here writes, but for the session that `enter.rs` makes and the texts that `links.rs` keeps; no
//! answer carries CORS headers, so no other site's script can read one; the page loads nothing from other hosts, and
//! its content security policy forbids it to.
//! Memory: an answer holds at most [`overview::HOSTS_MAX`] hosts, [`overview::ALARMS_MAX`] alarms and
//! [`history::POINTS_MAX`] points; at most [`READS_MAX`] answers are computed at a time, other requests wait, viewer by
//! viewer.

mod counters;
mod enter;
mod error;
mod files;
mod history;
mod links;
mod old_graph;
mod overview;
mod viewer;

use crate::config::{ApiConfig, Config};
use crate::engine::Engine;
use crate::plus_graph::PlusGraphs;
use crate::portal::Portal;
use crate::watch::health::Health;
use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
pub use enter::EntryLink;
use error::{PageError, broken};
use ipnet::IpNet;
use net::turns::{Holder, Turns};
use std::sync::Arc;

/// Answers computed at a time. Each holds at most a few MB, and the machine has agents to listen to.
const READS_MAX: usize = 4;

/// Where series and points are.
#[derive(Clone)]
pub struct Points {
    pub engine: Arc<Engine>,
    /// The old graphs that have them; the engine's store has none then.
    pub graphs: Option<PlusGraphs>,
}

/// `/` and `/ui/*`. Serve this router with connect info, for without the peer's address nobody counts as local, and
/// keep it outside any CORS layer, see the invariants above.
pub fn router(points: Points, portal: Portal, config: &Config, health: Health, link: EntryLink) -> Router {
    let no_gateway = config.delivers() && !config.alarm.reaches_people();
    let (api, reads) = (Arc::new(config.api.clone()), Turns::new(READS_MAX));
    let allow = config.ingest.allow.clone().into();
    let Points { engine, graphs } = points;
    let sources = Sources { engine, graphs, portal, api, allow, no_gateway, health, link, reads };
    Router::new()
        .route("/ui/overview", get(overview::overview))
        .route("/ui/history", get(history::history))
        .route("/ui/counters", get(counters::counters))
        .layer(middleware::from_fn_with_state(sources.clone(), viewer::require_viewer))
        .route("/ui/enter", post(enter::enter))
        .merge(links::router())
        .with_state(sources)
        .merge(files::router())
        .layer(middleware::map_response(files::harden))
}

/// The sources that the routes read, and the turns of reading.
#[derive(Clone)]
struct Sources {
    engine: Arc<Engine>,
    graphs: Option<PlusGraphs>,
    portal: Portal,
    api: Arc<ApiConfig>,
    /// Networks that may store texts under links.
    allow: Arc<[IpNet]>,
    /// Alarms are handled here, and no way to people is configured.
    no_gateway: bool,
    health: Health,
    link: EntryLink,
    reads: Turns,
}

impl Sources {
    /// Runs `read` for a viewer on a thread that may block, when fewer than [`READS_MAX`] others do.
    async fn read<T: Send + 'static>(
        &self,
        viewer: &Holder,
        read: impl FnOnce(&Engine) -> Result<T, PageError> + Send + 'static,
    ) -> Result<T, PageError> {
        let turn = self.reads.take(viewer, 1).await;
        let task = self.engine.spawn_blocking(move |engine| {
            let _turn = turn;
            read(engine)
        });
        task.await.map_err(broken)?
    }
}

#[cfg(test)]
mod tests;
