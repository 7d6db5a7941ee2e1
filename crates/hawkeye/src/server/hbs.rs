//! Hbs alone: over the MySQL of an Open-Falcon, in front of its agents and judges.
//!
//! Start: admin → the portal in MySQL, which the original's api goes on to write, and its rules, asked until MySQL
//! answers → the other doors. A step that is refused ends the start with one line that names the fix. Stop: the doors
//! close; nothing else is kept.

use super::admin::admin_router;
use super::doors::{Doors, Sockets};
use super::{reach, tls, token, until_stopped};
use crate::clock;
use crate::config::Config;
use crate::engine::oddities::Oddities;
use crate::portal::Portal;
use crate::role::hbs::probes::without_runner;
use crate::role::hbs::{self, HbsService};
use crate::rules::follow;
use crate::watch::health::Health;
use crate::watch::log::say;
use crate::watch::memory::{self, Memory, Size};
use anyhow::{Context, Result};
use metrics::{Metrics, resident_bytes};
use net::gate::Issued;
use std::sync::Arc;
use supervisor::Supervisor;
use supervisor::signals::Starting;

/// Runs hbs until a signal.
pub async fn serve(config: Arc<Config>, descriptors: usize, starting: Starting) -> Result<()> {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::of_process());
    memory::register_start(metrics.ledger());
    let tls = config.tls.open()?;
    let secret = config.ingest.secret()?;
    let sockets = Sockets::admin(&config.listen).await?;
    let mut doors = Doors::new(&config, &metrics, descriptors);
    doors.secure(tls.clone(), &config.tls.listeners);
    doors.ask_for(secret.as_ref(), &Issued::default());
    let memory = Memory::new(metrics.clone(), config.memory_budget, || Size { series: 0, points: 0 });
    let bound = sockets.bound();
    doors.open_admin("admin", sockets.admin, admin_router(&config, bound.clone(), &metrics, &health, memory));

    let (url, place, away) = (&config.portal.url, config.portal.url.place("falcon_portal"), reach::outage(&health));
    let opened = reach::wait(&away, &place, async || {
        let portal = Portal::over_mysql(url).await?;
        let current = follow::first(&portal).await.context("cannot read the rules there")?;
        Ok((portal, current))
    });
    let (portal, current) = opened.await.with_context(|| {
        format!(
            "cannot open the portal in MySQL at {place} (is it there, and may the user of portal.url read falcon_portal?)"
        )
    })?;
    let (rules, trustable) = (current.subscribe(), &config.hbs.trustable);
    let service = HbsService::new(portal.clone(), rules, trustable, Arc::new(Oddities::new())).with_upgrades(&config);
    service.register(&metrics);
    let (probes, in_effect, since) = (service.probes.clone(), service.rules.clone(), clock::now());
    let of_server = in_effect.clone();
    health.source(move |reasons| reasons.extend(without_runner(&of_server.borrow().snapshot, since)));
    let sockets = Sockets::hbs(&config.listen).await?;
    bound.add(&sockets);

    // From here on something may be accepted, so a signal asks for an orderly end.
    let signals = starting.over().await;
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
    reach::watch(&mut parts, url, away);
    let (swept, unswept) = (portal.clone(), health.outage("old states of probes cannot be deleted"));
    parts.start("sweeping states of probes", |stop| probes.sweep(swept, in_effect, unswept, stop.signal));
    parts.start("following the tables", |stop| follow::run(portal, current, told, stop.signal));
    parts.start("the doors", |stop| doors.run(stop));
    say(format_args!("hawkeye: hbs answers agents and judges at {}, from MySQL at {place}", config.listen.hbs_rpc));
    until_stopped(signals, parts).await
}
