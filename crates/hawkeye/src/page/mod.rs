//! The first page (`web/`, embedded) and the read-only routes under `/ui/` that the page draws from.
//!
//! Why: whoever has typed `make run` wants to see hosts, charts and open alarms at once, without an account and without
//! a build step for the page.
//! How: a file per subject: `files.rs` sends the page, `viewer.rs` decides who may look, and `overview.rs`,
//! `counters.rs` and `history.rs` answer with JSON. Series and points are read from the engine's store, open alarms
//! from the portal.
//! Invariants: nothing here writes; no answer carries CORS headers, so no other site's script can read one; the page
//! loads nothing from other hosts, and its content security policy forbids it to.
//! Memory: an answer holds at most [`overview::HOSTS_MAX`] hosts, [`overview::ALARMS_MAX`] alarms and
//! [`history::POINTS_MAX`] points; at most [`READS_MAX`] answers are computed at a time, other requests wait.

mod counters;
mod error;
mod files;
mod history;
mod overview;
mod viewer;

use crate::config::{ApiConfig, Config, Role};
use crate::engine::Engine;
use crate::portal::Portal;
use crate::watch::health::Health;
use axum::Router;
use axum::middleware;
use axum::routing::get;
use error::{PageError, broken};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Answers computed at a time. Each holds at most a few MB, and the machine has agents to listen to.
const READS_MAX: usize = 4;

/// `/` and `/ui/*`. Serve this router with connect info, for without the peer's address nobody counts as local, and
/// keep it outside any CORS layer, see the invariants above.
pub fn router(engine: Arc<Engine>, portal: Portal, config: &Config, health: Health) -> Router {
    let no_gateway = config.roles.contains(&Role::Alarm) && !config.alarm.reaches_people();
    let (api, reads) = (Arc::new(config.api.clone()), Arc::new(Semaphore::new(READS_MAX)));
    let sources = Sources { engine, portal, api, no_gateway, health, reads };
    Router::new()
        .route("/ui/overview", get(overview::overview))
        .route("/ui/history", get(history::history))
        .route("/ui/counters", get(counters::counters))
        .layer(middleware::from_fn_with_state(sources.clone(), viewer::require_viewer))
        .with_state(sources)
        .merge(files::router())
        .layer(middleware::map_response(files::harden))
}

/// The sources that the routes read, and the turns of reading.
#[derive(Clone)]
struct Sources {
    engine: Arc<Engine>,
    portal: Portal,
    api: Arc<ApiConfig>,
    /// Alarms are handled here, and no way to people is configured.
    no_gateway: bool,
    health: Health,
    reads: Arc<Semaphore>,
}

impl Sources {
    /// Runs `read` on a thread that may block, when fewer than [`READS_MAX`] others do.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, PageError> + Send + 'static,
    ) -> Result<T, PageError> {
        let turn = self.reads.clone().acquire_owned().await.expect("the semaphore is never closed");
        let task = self.engine.spawn_blocking(move |engine| {
            let _turn = turn;
            read(engine)
        });
        task.await.map_err(broken)?
    }
}

#[cfg(test)]
mod tests;
