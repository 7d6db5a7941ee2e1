//! Alarm: takes events from the durable queue, stores them, and delivers them to people and programs.
//!
//! Why: in the original an alarm is lost when alarm, a gateway or a receiver is down at the wrong moment, and one slow
//! receiver delays all. Here an event is a row before anything else happens, and a delivery is a row until it is made.
//! How: one loop with one writer: [`intake`] (queue → cases, events, deliveries, in one transaction), then [`deliver`]
//! (due deliveries → attempts at their targets, ends → rows). It sleeps until the queue, an attempt or a pause wakes
//! it, so an event is on its way some milliseconds after the judge made it.
//! Invariants: nothing is sent before it is stored; a failure of the database stops sending, not the process, and is
//! tried again. Low priorities are not merged yet.
//! Memory: one batch of events, the attempts under way, one small record per failing or busy target.
//! Compat: docs/open-falcon/alarm.md; differences: retries, no waiting of people for callbacks, a status other than 2xx
//! is a failure.

mod counters;
mod deliver;
mod intake;
mod message;
mod plan;
mod send;

use crate::clock;
use crate::config::{AlarmConfig, Config};
use crate::portal::{self, Portal};
use crate::watch::health::{Health, Outage};
use crate::watch::memory;
use anyhow::{Context, Result};
use counters::AlarmMetrics;
use deliver::{Deliverer, DeliveryLimits};
use events::EventQueue;
use intake::Intake;
use metrics::Metrics;
use plan::Channels;
use send::Sender;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Alarm's name among the readers of the event queue.
pub const READER: &str = "alarm";
/// Pause after a failure of the database or the queue's files.
const RETRY: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Event rows deleted for their age in one transaction, and transactions per minute. The original's 100 a minute do not
/// keep up with a storm; 5,000 do, and a transaction stays short.
const EVENTS_DROP_BATCH: usize = 1000;
const EVENTS_DROP_ROUNDS: usize = 5;

/// Runs until `shutdown` says so; then finishes what is at hand and leaves the rest to the next start.
pub async fn run(
    portal: Portal,
    queue: Arc<EventQueue>,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    health: Health,
    mut shutdown: watch::Receiver<bool>,
) -> Result<()> {
    let counters = AlarmMetrics::default();
    counters.register(&metrics, &queue, config.alarm.deliveries_max);
    let limits = DeliveryLimits::new(config.alarm.give_up_after, config.alarm.deliveries_max);
    let outage = health.outage("alarm cannot store or send");
    let mut alarm = Alarm::open(portal, queue.clone(), &config, limits, counters, outage).await?;
    alarm.run(&mut shutdown).await;
    let stopped = alarm.deliverer.stop().await;
    tokio::task::spawn_blocking(move || queue.sync()).await?.context("cannot sync the event queue")?;
    stopped
}

struct Alarm {
    portal: Portal,
    queue: Arc<EventQueue>,
    intake: Intake,
    deliverer: Deliverer,
    counters: AlarmMetrics,
    outage: Outage,
    event_retention: i64,
    /// Events may be waiting that no notification will tell of.
    more: bool,
    failed_until: Option<Instant>,
    tidy_at: Instant,
}

impl Alarm {
    async fn open(
        portal: Portal,
        queue: Arc<EventQueue>,
        config: &Config,
        limits: DeliveryLimits,
        counters: AlarmMetrics,
        outage: Outage,
    ) -> Result<Alarm> {
        say_missing_channels(&config.alarm);
        let channels = Channels::of(&config.alarm);
        let (sender, bytes) = memory::measured(|| Sender::new(&config.alarm));
        let sender = Arc::new(sender?);
        counters.show_clients_bytes(bytes);
        let dashboard = dashboard(config);
        let intake = Intake::open(portal.clone(), queue.clone(), channels, dashboard, counters.clone()).await?;
        let deliverer = Deliverer::open(portal.clone(), sender, channels, limits, counters.clone()).await?;
        Ok(Alarm {
            portal,
            queue,
            intake,
            deliverer,
            counters,
            outage,
            event_retention: config.alarm.event_retention,
            more: true,
            failed_until: None,
            tidy_at: Instant::now(),
        })
    }

    async fn run(&mut self, shutdown: &mut watch::Receiver<bool>) {
        while !*shutdown.borrow() {
            self.step().await;
            let wake_at = self.wake_at();
            tokio::select! {
                // An error means that nobody is left to say stop, which is a stop too.
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = self.queue.appended(READER) => self.more = true,
                () = self.deliverer.attempt_ended() => {}
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Does what can be done now. A failure is counted, told, and followed by a pause.
    async fn step(&mut self) {
        if self.failed_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        self.failed_until = None;
        self.outage.begin();
        let result = self.try_step().await;
        if result.is_err() {
            self.counters.failures.inc();
            self.failed_until = Some(Instant::now() + RETRY);
        }
        self.outage.note(result);
    }

    async fn try_step(&mut self) -> Result<()> {
        if self.more {
            self.more = self.intake.step(&mut self.deliverer).await?;
        }
        self.deliverer.step().await?;
        if self.tidy_at <= Instant::now() {
            self.tidy_at = Instant::now() + MINUTE;
            self.deliverer.tidy().await.context("cannot tidy the deliveries")?;
            self.drop_old_events().await.context("cannot delete old events")?;
        }
        Ok(())
    }

    fn wake_at(&self) -> Instant {
        match self.failed_until {
            Some(until) => until,
            None if self.more => Instant::now(),
            None => self.deliverer.look_at().map_or(self.tidy_at, |at| at.min(self.tidy_at)),
        }
    }

    async fn drop_old_events(&self) -> Result<()> {
        let cutoff = clock::now() - self.event_retention;
        for _ in 0..EVENTS_DROP_ROUNDS {
            let mut transaction = self.portal.write().await?;
            let dropped = portal::alarm::drop_events_before(&mut transaction, cutoff, EVENTS_DROP_BATCH).await?;
            transaction.commit().await?;
            if dropped < EVENTS_DROP_BATCH as u64 {
                break;
            }
        }
        Ok(())
    }
}

/// Logs the ways to people that no gateway is configured for.
fn say_missing_channels(config: &AlarmConfig) {
    if !config.reaches_people() {
        return tracing::warn!(
            "alarms tell no people, they only make callbacks: set alarm.sms, alarm.im, alarm.mail or alarm.smtp.host"
        );
    }
    for channel in config.missing_channels() {
        tracing::info!("alarms send no {channel}: there is no gateway (alarm.{channel})");
    }
}

/// Address to which links in mails point: `alarm.dashboard`, or the API's own, by this host's name when it listens on
/// all.
fn dashboard(config: &Config) -> String {
    if !config.alarm.dashboard.is_empty() {
        return config.alarm.dashboard.clone();
    }
    match config.listen.api.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let name = rustix::system::uname();
            format!("http://{}:{}", name.nodename().to_string_lossy(), address.port())
        }
        _ => format!("http://{}", config.listen.api),
    }
}

#[cfg(test)]
mod tests;
