//! Aggregator and nodata alone, or one of them: beside an old api, in front of an agent or a transfer.
//!
//! Start: admin and the old routes → the rows from the api, asked until it answers → what is computed. Each role has an
//! api and a target of its own, as in the original.
//! Stop: the doors close; nothing is kept, since the next start has the rows from the api again.

use super::admin::admin_router;
use super::doors::{Doors, Sockets};
use super::{tls, until_stopped};
use crate::config::{Config, Role};
use crate::plus_api::PlusApi;
use crate::role::aggregator::{self, alone as aggregator_alone};
use crate::role::nodata::http::NodataRoutes;
use crate::role::nodata::{self, Looks, alone as nodata_alone};
use crate::rules::InEffect;
use crate::rules::computed::Lasts;
use crate::rules::pull::{self, Wanted};
use crate::watch::health::{Health, Outage};
use crate::watch::log::say;
use crate::watch::memory::{self, Memory, Size};
use anyhow::Result;
use metrics::{Metrics, resident_bytes};
use model::Rules;
use net::seldom::Seldom;
use std::sync::Arc;
use supervisor::Supervisor;
use supervisor::signals::Starting;
use tokio::sync::watch;

/// Runs the modules until a signal.
pub async fn serve(config: Arc<Config>, descriptors: usize, starting: Starting) -> Result<()> {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::of_process());
    memory::register_start(metrics.ledger());
    let tls = config.tls.open()?;
    let sockets = Sockets::modules(&config.listen).await?;
    let signals = starting.over().await;
    let mut doors = Doors::new(&config, &metrics, descriptors);
    doors.secure(tls.clone(), &config.tls.listeners);
    let memory = Memory::new(metrics.clone(), config.memory_budget, || Size { series: 0, points: 0 });
    let admin = admin_router(&config, sockets.bound(), &metrics, &health, memory);
    doors.open_admin("admin", sockets.admin, admin);
    metrics.source(|figures| {
        figures.gauge("resident_bytes", "Resident memory of this process", resident_bytes().unwrap_or(0) as f64);
    });
    let mut parts = Supervisor::default();
    tls::keep(&mut parts, &tls, &metrics, &health);
    if config.roles.contains(&Role::Aggregator) {
        let (rows, lasts) = start_aggregator(&mut parts, &config, &metrics, &health)?;
        doors.open_pages("aggregator_http", sockets.aggregator_http, aggregator::http::router(rows, lasts));
    }
    if config.roles.contains(&Role::Nodata) {
        let routes = start_nodata(&mut parts, &config, &health)?;
        doors.open_pages("nodata_http", sockets.nodata_http, nodata::http::router(routes));
    }
    parts.start("the doors", |stop| doors.run(stop));
    until_stopped(signals, parts).await
}

fn start_aggregator(
    parts: &mut Supervisor,
    config: &Config,
    metrics: &Metrics,
    health: &Health,
) -> Result<(watch::Receiver<Arc<InEffect>>, Lasts)> {
    let settings = &config.aggregator;
    let api =
        PlusApi::new(&settings.plus_api, "falcon-aggregator", &settings.plus_api_token, config.tls.trust()?.as_ref())?;
    let outage = health.outage("the old api does not tell the aggregators; those of before are computed");
    let rows = follow(parts, "pulling aggregators", &api, Wanted { aggregators: true, mocks: false }, outage);
    let lasts = Lasts::default();
    let shown = lasts.clone();
    metrics.source(move |figures| {
        let help = "Aggregators that had no value when they were computed last";
        figures.gauge("aggregators_without_value", help, shown.failed() as f64);
    });
    let told = lasts.clone();
    health.source(move |reasons| reasons.extend(aggregator_alone::trouble(&told)));
    let (push_api, kept) = (settings.push_api.clone(), lasts.clone());
    let outage = health.outage("aggregators cannot be computed, or their points are not taken");
    let alone = aggregator_alone::Alone { api, push_api, lasts, outage, told: Seldom::default() };
    let seen = rows.clone();
    parts.start("computing aggregators", |stop| alone.run(seen, stop.signal));
    say(format_args!("hawkeye: the aggregator asks {} and pushes to {}", settings.plus_api, settings.push_api));
    Ok((rows, kept))
}

fn start_nodata(parts: &mut Supervisor, config: &Config, health: &Health) -> Result<NodataRoutes> {
    let settings = &config.nodata;
    let api =
        PlusApi::new(&settings.plus_api, "falcon-nodata", &settings.plus_api_token, config.tls.trust()?.as_ref())?;
    let outage = health.outage("the old api does not tell the nodata; those of before are looked after");
    let rows = follow(parts, "pulling nodata", &api, Wanted { aggregators: false, mocks: true }, outage);
    let looks = Looks::default();
    let alone = nodata_alone::Alone {
        api,
        push_api: settings.push_api.clone(),
        flood_share: settings.flood_share,
        looks: looks.clone(),
        outage: health.outage("silent series cannot be looked for, or mocks are not taken"),
    };
    let seen = rows.clone();
    parts.start("looking for nodata", |stop| alone.run(seen, stop.signal));
    say(format_args!("hawkeye: nodata asks {} and pushes to {}", settings.plus_api, settings.push_api));
    let flood_share = settings.flood_share;
    Ok(NodataRoutes { here: None, in_effect: rows, looks, flood_share, counters: Arc::default() })
}

/// Follows the rows of an api; there are none before its first answer.
fn follow(
    parts: &mut Supervisor,
    name: &'static str,
    api: &PlusApi,
    wanted: Wanted,
    outage: Outage,
) -> watch::Receiver<Arc<InEffect>> {
    let (rows, seen) = watch::channel(Arc::new(InEffect::new(Arc::default(), Rules::default())));
    let api = api.clone();
    parts.start(name, |stop| pull::run(api, wanted, rows, outage, stop.signal));
    seen
}
