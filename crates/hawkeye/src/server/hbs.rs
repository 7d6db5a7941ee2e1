//! Hbs alone: over the MySQL of an Open-Falcon, in front of its agents and judges.
//!
//! Start: the portal in MySQL, which the original's api goes on to write → its rules → the doors. Each step that fails
//! ends the start with one line that names the fix. Stop: the doors close; nothing else is kept.

use super::admin::admin_router;
use super::doors::{Doors, Sockets};
use super::{tls, token, until_stopped};
use crate::config::{Config, MysqlUrl};
use crate::engine::oddities::Oddities;
use crate::portal::Portal;
use crate::role::hbs::{self, HbsService};
use crate::rules::follow;
use crate::watch::health::Health;
use crate::watch::log::say;
use crate::watch::memory::{self, Memory, Size};
use anyhow::{Context, Result};
use metrics::{Metrics, resident_bytes};
use net::gate::Issued;
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervisor::Supervisor;
use supervisor::causes::line_of;
use supervisor::signals::Starting;

/// Pauses between two attempts to reach MySQL at a start: the first, and the longest; each is twice the one before.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Time after which a start gives MySQL up: both may have begun with the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens the portal. A server that is not there yet is waited for, and told of at each attempt; one that lets this user
/// not in is not.
async fn open(url: &MysqlUrl, place: &str) -> Result<Portal> {
    let (begin, mut pause) = (Instant::now(), PAUSE);
    loop {
        let error = match Portal::over_mysql(url).await {
            Ok(portal) => return Ok(portal),
            Err(error) => error,
        };
        let is_answer = matches!(error.downcast_ref::<sqlx::Error>(), Some(sqlx::Error::Database(_)) | None);
        if is_answer || begin.elapsed() + pause > PATIENCE {
            return Err(error);
        }
        let error = line_of(&*error);
        tracing::error!(place, error, "cannot open the portal in the MySQL of portal.url; trying again in {pause:?}");
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

/// Runs hbs until a signal.
pub async fn serve(config: Arc<Config>, descriptors: usize, starting: Starting) -> Result<()> {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::of_process());
    memory::register_start(metrics.ledger());
    let tls = config.tls.open()?;
    let secret = config.ingest.secret()?;
    let sockets = Sockets::hbs(&config.listen).await?;
    let place = config.portal.url.place("falcon_portal");
    let fix = "is it there, and may the user of portal.url read falcon_portal?";
    let portal = open(&config.portal.url, &place).await;
    let portal = portal.with_context(|| format!("cannot open the portal in MySQL at {place} ({fix})"))?;
    let current = follow::first(&portal).await;
    let current = current.with_context(|| format!("cannot read the rules in MySQL at {place} ({fix})"))?;
    let (rules, trustable) = (current.subscribe(), &config.hbs.trustable);
    let service = HbsService::new(portal.clone(), rules, trustable, Arc::new(Oddities::new()));
    service.register_memory(&metrics);

    // From here on something may be accepted, so a signal asks for an orderly end.
    let signals = starting.over().await;
    let mut doors = Doors::new(&config, &metrics, descriptors);
    doors.secure(tls.clone(), &config.tls.listeners);
    doors.ask_for(secret.as_ref(), &Issued::default());
    let memory = Memory::new(metrics.clone(), config.memory_budget, || Size { series: 0, points: 0 });
    let admin = admin_router(&config, sockets.bound(), &metrics, &health, memory);
    doors.open_admin("admin", sockets.admin, admin);
    doors.open_rpc("hbs_rpc", sockets.hbs_rpc, service.clone());
    doors.open_pages("hbs_http", sockets.hbs_http, hbs::http::router(service));
    metrics.source(|figures| {
        figures.gauge("resident_bytes", "Resident memory of this process", resident_bytes().unwrap_or(0) as f64);
    });

    let mut parts = Supervisor::default();
    tls::keep(&mut parts, &tls, &metrics, &health);
    token::keep(&mut parts, &config.ingest, secret.as_ref(), &doors.gate, &health);
    let (closed, told) =
        (portal.clone(), health.outage("the tables in MySQL cannot be read; the rules of before stay"));
    parts.at_end("the portal", async move {
        closed.close().await;
        Ok(())
    });
    parts.start("following the tables", |stop| follow::run(portal, current, told, stop.signal));
    parts.start("the doors", |stop| doors.run(stop));
    say(format_args!("hawkeye: hbs answers agents and judges at {}, from MySQL at {place}", config.listen.hbs_rpc));
    until_stopped(signals, parts).await
}
