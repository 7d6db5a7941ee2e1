//! The api alone: REST and the page in front of the graphs of an Open-Falcon.
//!
//! Start: the old graphs, which may be away → admin → portal (in the MySQL of the Open-Falcon, asked until it answers,
//! or in a file of its own) → api. A step that is refused ends the start with one line that names the fix. Rules are
//! not computed here: whoever runs hbs reads the tables.
//! Invariants: the store of this process stays empty; it is there for what asks an engine and nothing of its points.
//! Stop: the doors close and answer what they have begun.

use super::admin::{admin_router, health_router};
use super::doors::{Doors, Sockets};
use super::queue::judge_options;
use super::store::{SHARDS, open_store, wait_for_queries};
use super::whole::{announce_page, announce_password};
use super::{Anew, data_dir, reach, tls, until_stopped};
use crate::api::attempts::Attempts;
use crate::config::Config;
use crate::engine::Engine;
use crate::plus_graph::PlusGraphs;
use crate::portal::{self, Portal, admin};
use crate::watch::health::{Health, Outage};
use crate::watch::log::say;
use crate::watch::memory::{self, Memory, Size};
use crate::{api, clock, page};
use anyhow::{Context, Result};
use metrics::{Metrics, resident_bytes};
use std::sync::Arc;
use supervisor::Supervisor;
use supervisor::signals::Starting;

/// Runs the api until a signal.
pub async fn serve(config: Arc<Config>, anew: Anew, descriptors: usize, starting: Starting) -> Result<()> {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::of_process());
    memory::register_start(metrics.ledger());
    let tls = config.tls.open()?;
    let sockets = Sockets::admin(&config.listen).await?;
    let graphs = PlusGraphs::new(&config.graph, &metrics, &health)?;
    data_dir::prepare(&config.data_dir)?;
    let may_be_new = anew.portal || !portal::is_expected(&config.data_dir);
    let store = open_store(&config, clock::now())?;
    let engine = Arc::new(Engine::new(store, SHARDS, judge_options(&config), None));
    let mut doors = Doors::new(&config, &metrics, descriptors);
    doors.secure(tls.clone(), &config.tls.listeners);
    let memory = Memory::new(metrics.clone(), config.memory_budget, || Size { series: 0, points: 0 });
    let bound = sockets.bound();
    doors.open_admin("admin", sockets.admin, admin_router(&config, bound.clone(), &metrics, &health, memory));

    let away = reach::outage(&health);
    let (portal, is_whole) = open_portal(&config, may_be_new, &health, &away).await?;
    // Who is not found in a damaged portal may be there.
    let new_password = if is_whole { admin::ensure_root(&portal, &config.data_dir).await? } else { None };
    memory::register_sqlite(metrics.ledger());
    let attempts = Attempts::with_known(&portal).await;
    attempts.register_memory(metrics.ledger());
    let sockets = Sockets::api(&config.listen).await?;
    bound.add(&sockets);
    let page_address = sockets.api.as_ref().and_then(|socket| socket.local_addr().ok());

    // From here on something may be accepted, so a signal asks for an orderly end.
    let signals = starting.over().await;
    let context = api::Context::new(portal.clone(), config.clone(), engine.clone(), attempts);
    let context = api::Context { graphs: Some(graphs.clone()), stopping: doors.stopping.clone(), ..context };
    let link = page::EntryLink::default();
    let routes = memory::register_made(metrics.ledger(), "routes", || {
        let shown = page::Points { engine: engine.clone(), graphs: Some(graphs.clone()) };
        api::router(context)
            .merge(page::router(shown, portal.clone(), &config, health.clone(), link.clone()))
            .merge(health_router(&metrics, &health))
    });
    doors.open_api(sockets.api, routes);
    metrics.source(|figures| {
        figures.gauge("resident_bytes", "Resident memory of this process", resident_bytes().unwrap_or(0) as f64);
    });

    let mut parts = Supervisor::default();
    tls::keep(&mut parts, &tls, &metrics, &health);
    super::keep_portal(&mut parts, &portal);
    reach::watch(&mut parts, &config.portal.url, away);
    wait_for_queries(&mut parts, &engine);
    parts.start("watching the old graphs", |stop| graphs.watch(stop.signal));
    parts.start("the doors", |stop| doors.run(stop));
    announce_password(&config, new_password.as_deref());
    if let Some(address) = page_address {
        announce_page(&config, address, &link, &portal).await?;
    }
    let cluster: Vec<&str> = config.graph.cluster.values().map(String::as_str).collect();
    say(format_args!("hawkeye: the api reads the graphs at {}", cluster.join(", ")));
    until_stopped(signals, parts).await
}

/// The portal, and whether it is whole. `away` says while MySQL is waited for.
async fn open_portal(config: &Config, may_be_new: bool, health: &Health, away: &Outage) -> Result<(Portal, bool)> {
    let url = &config.portal.url;
    if url.is_none() {
        return Portal::open_checked(&config.data_dir, may_be_new, health).await;
    }
    let place = url.place("falcon_portal");
    let portal = reach::wait(away, &place, async || Portal::with_own_tables(url).await).await;
    let portal = portal.with_context(|| {
        format!(
            "cannot open the portal in MySQL at {place} (is it there, and may the user of portal.url read and write uic, \
             falcon_portal, dashboard and alarms there, and, at a first start, add tables and columns?)"
        )
    })?;
    Ok((portal, true))
}
