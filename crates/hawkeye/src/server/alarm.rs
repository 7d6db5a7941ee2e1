//! The alarm alone: behind the Redis of an old judge, beside an old api, in front of people.
//!
//! Start: portal (cases, deliveries, copies of the old api's actions and teams) → event queue → admin and the old
//! routes → alarm, with its reader of Redis. Events go from Redis into the event queue, and from there the way that
//! those of a whole server go.
//! Stop: the doors close; alarm leaves its undelivered rows for the next start; what Redis has waits there.

use super::admin::admin_router;
use super::data_dir;
use super::doors::{Doors, Sockets};
use super::queue::{OpenedQueue, open_event_queue};
use super::{Anew, tls, until_stopped};
use crate::config::Config;
use crate::engine::age::Age;
use crate::engine::host_clocks::Hosts;
use crate::portal::{self, Portal, delivery};
use crate::role::alarm;
use crate::watch::health::{Health, Outage};
use crate::watch::log::say;
use crate::watch::memory::{self, Memory, Size};
use anyhow::{Context, Result};
use events::EventQueue;
use metrics::{Metrics, resident_bytes};
use std::sync::Arc;
use std::time::Duration;
use store::Past;
use supervisor::Supervisor;
use supervisor::signals::Starting;
use tokio::sync::watch;

const SECOND: Duration = Duration::from_secs(1);

/// Runs the alarm until a signal.
pub async fn serve(config: Arc<Config>, anew: Anew, descriptors: usize, starting: Starting) -> Result<()> {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::of_process());
    memory::register_start(metrics.ledger());
    let tls = config.tls.open()?;
    let sockets = Sockets::alarm(&config.listen).await?;
    let _locked = data_dir::lock(&config.data_dir, "alarm")?;
    let is_new = !config.data_dir.join("events").exists();
    let may_be_new = anew.portal || !portal::is_expected(&config.data_dir);
    let (portal, _) = Portal::open_checked(&config.data_dir, may_be_new, &health).await?;
    let opened = open_event_queue(&config)?;
    // Tables that are damaged are told by alarm.
    let handled = delivery::cursor(&portal).await.unwrap_or_else(|_| portal.cursors().handled());
    opened.tell_lost_events(&health, handled);
    let OpenedQueue { queue, .. } = opened;
    queue.expect(alarm::READER);
    queue.register_memory(metrics.ledger());
    memory::register_sqlite(metrics.ledger());
    let age = Age::open(&config.data_dir, is_new, &health);

    // From here on something may be accepted, so a signal asks for an orderly end.
    let signals = starting.over().await;
    let mut doors = Doors::new(&config, &metrics, descriptors);
    doors.secure(tls.clone(), &config.tls.listeners);
    let memory = Memory::new(metrics.clone(), config.memory_budget, || Size { series: 0, points: 0 });
    let admin = admin_router(&config, sockets.bound(), &metrics, &health, memory);
    doors.open_admin("admin", sockets.admin, admin);
    doors.open_pages("alarm_http", sockets.alarm_http, alarm::http::router());
    metrics.source(|figures| {
        figures.gauge("resident_bytes", "Resident memory of this process", resident_bytes().unwrap_or(0) as f64);
    });

    let mut parts = Supervisor::default();
    tls::keep(&mut parts, &tls, &metrics, &health);
    super::keep_portal(&mut parts, &portal);
    let believed = age.believed();
    let (ticked, outage) = (queue.clone(), health.outage("the event queue cannot be written"));
    parts.start("the event queue's keeper", |stop| keep(ticked, age, outage, stop.signal));
    parts.start("alarm", |stop| {
        alarm::run(portal, queue, config.clone(), believed, metrics.clone(), health.clone(), stop.signal)
    });
    parts.start("the doors", |stop| doors.run(stop));
    let (redis, api) = (config.alarm.redis_url.place(), &config.alarm.plus_api);
    say(format_args!("hawkeye: the alarm takes events from Redis at {redis} and asks {api} whom to tell"));
    until_stopped(signals, parts).await
}

/// Does each second what the event queue and the clock of ages need.
async fn keep(queue: Arc<EventQueue>, age: Age, outage: Outage, mut stopping: watch::Receiver<bool>) -> Result<()> {
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(SECOND) => {}
        }
        // No file goes here by its age, but events and cases do.
        age.may_delete(Past::default(), Hosts::default());
        let ticked = queue.clone();
        outage.note(tokio::task::spawn_blocking(move || ticked.tick()).await.context("keeping the event queue")?);
    }
}
