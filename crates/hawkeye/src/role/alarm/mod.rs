//! Alarm: takes events from the durable queue, stores them, and delivers them to people and programs.
//!
//! Why: in the original an alarm is lost when alarm, a gateway or a receiver is down at the wrong moment, and one slow
//! receiver delays all. Here an event is a row before anything else happens, and a delivery is a row until it is made.
//! How: one loop with one writer: [`intake`] (queue → cases, events, deliveries, in one transaction), then [`deliver`]
//! (due deliveries → attempts at their targets, ends → rows); between them [`merging`] each minute. It sleeps until the queue, an attempt or a pause wakes
//! it, so an event is on its way some milliseconds after the judge made it. Nothing on this way waits for the disk:
//! the portal makes alarm's commits safe within a second, and [`passing`] lets the queue's files go behind that.
//! Invariants: nothing is sent before it is stored; a failure of the database stops sending, not the process, and is
//! tried again. Damaged tables stop nothing: deliveries are then kept in memory, and `/health` says so. Where alarm is not among `roles`, events are stored, and an old alarm delivers.
//! Memory: one batch of events, the attempts under way, one small record per failing or busy target.
//! Compat: docs/open-falcon/alarm.md; differences: retries, no waiting of people for callbacks, a status other than 2xx
//! is a failure.

mod aging;
mod counters;
mod deliver;
pub mod http;
mod intake;
mod merging;
mod message;
mod passing;
mod plan;
mod send;

use crate::config::Config;
use crate::engine::age::Believed;
use crate::portal::db::fault::{self, Fault};
use crate::portal::purge::{self, Cutoffs, UnownedActions};
use crate::portal::{Portal, delivery};
use crate::watch::health::{Health, Outage};
use crate::watch::memory;
use anyhow::{Context, Result};
use counters::AlarmMetrics;
use deliver::{Deliverer, DeliveryLimits};
use events::EventQueue;
use intake::Intake;
use merging::Merging;
use metrics::Metrics;
use passing::Passing;
use plan::Channels;
use send::Sender;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use supervisor::causes::line_of;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Alarm's name among the readers of the event queue.
pub const READER: &str = "alarm";
/// Pause after a failure of the database or the queue's files.
const RETRY: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Rounds of deleting what is old, per minute.
const PURGE_ROUNDS: usize = 5;
/// Pause between two looks for actions that nobody has. The events of a deletion are here within moments; an old alarm
/// behind Redis, which asks for the action when it takes the event, gets this long.
const ACTIONS_PAUSE: Duration = Duration::from_secs(3600);

/// Runs until `shutdown` says so; then finishes what is at hand and leaves the rest to the next start.
pub async fn run(
    portal: Portal,
    queue: Arc<EventQueue>,
    config: Arc<Config>,
    believed: Believed,
    metrics: Arc<Metrics>,
    health: Health,
    mut shutdown: watch::Receiver<bool>,
) -> Result<()> {
    let counters = AlarmMetrics::default();
    counters.register(&metrics, &queue, config.alarm.deliveries_max);
    let limits = DeliveryLimits::new(config.alarm.give_up_after, config.alarm.deliveries_max);
    let portal = portal.for_alarm();
    let mut alarm = Alarm::open(portal.clone(), queue.clone(), &config, limits, counters, &health).await?;
    alarm.believe(believed);
    let mut passing = Passing::new(portal.clone(), queue.clone(), &health);
    tokio::select! {
        () = alarm.run(&mut shutdown) => {}
        never = passing.run() => match never {},
    }
    let stopped = alarm.deliverer.stop().await;
    // What cannot be made safe stays in the queue, and is told of by the portal.
    let _ = portal.make_safe().await;
    passing.step().await;
    tokio::task::spawn_blocking(move || queue.sync()).await?.context("cannot sync the event queue")?;
    stopped
}

struct Alarm {
    portal: Portal,
    queue: Arc<EventQueue>,
    intake: Intake,
    deliverer: Deliverer,
    merging: Merging,
    delivering: Delivering,
    counters: AlarmMetrics,
    outage: Outage,
    unstored: Outage,
    unpurged: Outage,
    event_retention: i64,
    case_retention: i64,
    unowned: UnownedActions,
    unowned_at: Instant,
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
        health: &Health,
    ) -> Result<Alarm> {
        if config.delivers() {
            say_missing_channels(config);
        } else {
            give_up_waiting(&portal).await?;
        }
        let channels = Channels::of(&config.alarm);
        let (sender, bytes) = memory::measured(|| Sender::new(&config.alarm));
        counters.show_clients_bytes(bytes);
        let dashboard = dashboard(config);
        let merging = Merging::new(config.alarm.merge, dashboard.clone(), counters.clone());
        let (tables, counted, delivers) = (portal.clone(), counters.clone(), config.delivers());
        let mut intake = Intake::open(tables, queue.clone(), channels, dashboard, counted, health, delivers).await?;
        let delivering = Delivering {
            sender: Arc::new(sender?),
            channels,
            limits,
            counters: counters.clone(),
            believed: Believed::default(),
        };
        let unstored = health.outage("deliveries are in memory only: their tables are damaged");
        let deliverer = match delivering.over(portal.clone()).await {
            Err(error) if fault::among(&error) == Some(Fault::Damage) => {
                unstored.fails(line_of(&*error));
                delivering.in_memory(&mut intake).await?
            }
            opened => opened?,
        };
        Ok(Alarm {
            portal,
            queue,
            intake,
            deliverer,
            merging,
            delivering,
            counters,
            outage: health.outage("alarm cannot store or send"),
            unstored,
            unpurged: health.outage("old events and cases cannot be deleted"),
            event_retention: config.alarm.event_retention,
            case_retention: config.alarm.case_retention,
            unowned: UnownedActions::default(),
            unowned_at: Instant::now(),
            more: true,
            failed_until: None,
            tidy_at: Instant::now(),
        })
    }

    /// Gives up and deletes by this time from now on.
    fn believe(&mut self, believed: Believed) {
        self.delivering.believed = believed.clone();
        self.deliverer.aging.believe(believed);
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
        let mut result = self.try_step().await;
        if let Err(error) = &result
            && fault::among(error) == Some(Fault::Damage)
        {
            result = self.do_without_tables(line_of(&**error)).await;
        }
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
        self.merging.step(&mut self.deliverer).await?;
        self.deliverer.step().await?;
        if self.tidy_at <= Instant::now() {
            self.tidy_at = Instant::now() + MINUTE;
            self.deliverer.tidy().await.context("cannot tidy the deliveries")?;
            let purged = self.purge().await;
            self.unpurged.note(purged);
        }
        Ok(())
    }

    /// Goes on with deliveries in memory. What waits in the damaged tables is left to the start with a whole portal.
    async fn do_without_tables(&mut self, why: String) -> Result<()> {
        self.unstored.fails(why);
        // What is under way gets its time; its end cannot be written down.
        let _ = self.deliverer.stop().await;
        self.deliverer = self.delivering.in_memory(&mut self.intake).await?;
        self.more = true;
        Ok(())
    }

    fn wake_at(&self) -> Instant {
        match self.failed_until {
            Some(until) => until,
            None if self.more => Instant::now(),
            None => {
                [self.deliverer.look_at(), self.merging.at()].into_iter().flatten().fold(self.tidy_at, Instant::min)
            }
        }
    }

    async fn purge(&mut self) -> sqlx::Result<()> {
        let now = self.deliverer.aging.believed_now();
        let cutoffs = Cutoffs { events: now - self.event_retention, cases: now - self.case_retention };
        for _ in 0..PURGE_ROUNDS {
            if !purge::round(&self.portal, cutoffs).await? {
                break;
            }
        }
        self.purge_actions().await
    }

    /// Deletes actions that nobody has had for long. Events that still wait may name one, so they come first.
    async fn purge_actions(&mut self) -> sqlx::Result<()> {
        if self.more || self.unowned_at > Instant::now() {
            return Ok(());
        }
        self.unowned_at = Instant::now() + ACTIONS_PAUSE;
        self.unowned.look(&self.portal).await
    }
}

/// Gives up the deliveries that an earlier run has left: an old alarm delivers now.
async fn give_up_waiting(portal: &Portal) -> Result<()> {
    let mut transaction = portal.write().await?;
    let dropped = delivery::drop_oldest(&mut transaction, u64::MAX).await?;
    transaction.commit().await?;
    if dropped > 0 {
        tracing::warn!(dropped, "deliveries that waited are given up, for roles is without alarm");
    }
    Ok(())
}

/// Logs the ways to people that no gateway is configured for, and that a second alarm may stand behind Redis.
fn say_missing_channels(config: &Config) {
    if !config.judge.redis_url.is_none() {
        tracing::warn!(
            "events are delivered here and go to Redis (judge.redis_url): where an old alarm takes them, leave alarm out of roles"
        );
    }
    let config = &config.alarm;
    if !config.reaches_people() {
        return tracing::warn!(
            "alarms tell no people, they only make callbacks: set alarm.sms, alarm.im, alarm.mail or alarm.smtp.host"
        );
    }
    for channel in config.missing_channels() {
        tracing::info!("alarms send no {channel}: there is no gateway (alarm.{channel})");
    }
}

/// Parts that every deliverer is made of, whatever tables it works on.
struct Delivering {
    sender: Arc<Sender>,
    channels: Channels,
    limits: DeliveryLimits,
    counters: AlarmMetrics,
    /// Time by which deliveries are given up for their age.
    believed: Believed,
}

impl Delivering {
    async fn over(&self, tables: Portal) -> Result<Deliverer> {
        let (sender, counters) = (self.sender.clone(), self.counters.clone());
        let mut deliverer = Deliverer::open(tables, sender, self.channels, self.limits, counters).await?;
        deliverer.aging.believe(self.believed.clone());
        Ok(deliverer)
    }

    /// A deliverer over empty tables in memory, which `intake` writes to from now on.
    async fn in_memory(&self, intake: &mut Intake) -> Result<Deliverer> {
        let tables = Portal::in_memory().await.context("cannot make tables in memory")?;
        intake.write_to(tables.clone());
        // Links in memory are read by nobody.
        let mut deliverer = self.over(tables).await?;
        deliverer.keeps_links = false;
        Ok(deliverer)
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
