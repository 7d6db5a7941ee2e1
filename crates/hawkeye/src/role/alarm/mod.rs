//! Alarm: takes events from the durable queue, stores them, and delivers them to people and programs.
//!
//! Why: in the original an alarm is lost when alarm, a gateway or a receiver is down at the wrong moment, and one slow
//! receiver delays all. Here an event is a row before anything else happens, and a delivery is a row until it is made.
//! How: one loop with one writer: [`intake`] (queue → cases, events, deliveries, in one transaction), then [`deliver`]
//! (due deliveries → attempts at their targets, ends → rows); between them [`merging`] each minute. It sleeps until the
//! queue, an attempt or a pause wakes it, so an event is on its way some milliseconds after the judge made it. Nothing
//! on this way waits for the disk: the portal makes alarm's commits safe within a second, and [`passing`] lets the
//! queue's files go behind that.
//! Invariants: nothing is sent before it is stored; a failure of the database stops sending, not the process, and is
//! tried again. Damaged tables stop nothing: deliveries are then kept in memory, and `/health` says so.
//! Where alarm is not among `roles`, events are stored, and an old alarm delivers.
//! What others push into Redis comes through [`inbox`]: messages to send, and where alarm runs alone the events, whose
//! receivers an old api tells ([`directory`]).
//! Memory: one batch of events, the attempts under way, one small record per failing or busy target.
//! Compat: docs/open-falcon/alarm.md; differences: retries, no waiting of people for callbacks, a status other than 2xx
//! is a failure.

mod aging;
mod counters;
mod deliver;
mod directory;
pub mod http;
mod inbox;
mod intake;
mod merging;
mod message;
mod passing;
mod plan;
mod reason;
mod send;
mod taken;

use crate::config::{Config, Mode};
use crate::engine::age::Believed;
use crate::portal::db::fault::{self, Fault};
use crate::portal::purge::{self, Cutoffs, UnownedActions};
use crate::portal::{Portal, delivery};
use crate::watch::health::{Health, Outage};
use crate::watch::memory;
use anyhow::{Context, Result};
use counters::AlarmMetrics;
use deliver::{Deliverer, DeliveryLimits};
use directory::Directory;
use events::EventQueue;
use inbox::{Foreign, Inbox};
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
use taken::Taken;
use tokio::sync::{mpsc, watch};
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
    let inbox = alarm.read_redis(&config, &health)?;
    let reading = async {
        match inbox {
            Some(inbox) => inbox.run().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = alarm.run(&mut shutdown) => {}
        never = passing.run() => match never {},
        never = reading => match never {},
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
    /// Actions here are copies, which nobody owns.
    has_copies: bool,
    /// Messages of other tools: those that come, and those that have come and are to be stored.
    foreign: Option<mpsc::Receiver<Foreign>>,
    come: Option<Foreign>,
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
        let mut merging = Merging::new(config.alarm.merge, dashboard.clone(), counters.clone());
        let (tables, counted, delivers) = (portal.clone(), counters.clone(), config.delivers());
        let mut intake = Intake::open(tables, queue.clone(), channels, dashboard, counted, health, delivers).await?;
        let has_copies = config.mode().is_ok_and(|mode| mode == Mode::Alarm);
        if has_copies {
            let outage = health.outage("the old api cannot be asked whom to tell; those of before are told");
            intake.ask(Directory::new(&config.alarm, config.tls.trust()?.as_ref(), outage)?);
            merging.ask_dashboard()?;
        }
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
            outage: health.vital_outage("alarm cannot store or send"),
            unstored,
            unpurged: health.outage("old events and cases cannot be deleted"),
            event_retention: config.alarm.event_retention,
            case_retention: config.alarm.case_retention,
            unowned: UnownedActions::default(),
            unowned_at: Instant::now(),
            has_copies,
            foreign: None,
            come: None,
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

    /// Has messages of other tools come from Redis, and events where no judge is here; none where no Redis is named.
    fn read_redis(&mut self, config: &Config, health: &Health) -> Result<Option<Inbox>> {
        let url = &config.alarm.redis_url;
        if url.is_none() {
            return Ok(None);
        }
        let (messages, foreign) = mpsc::channel(1);
        let events = self.has_copies.then(|| {
            let taken = Taken::open(&config.data_dir, &self.queue);
            (self.queue.clone(), taken)
        });
        let outage = health.outage("Redis cannot be read: events or messages wait there");
        let (channels, counters) = (self.delivering.channels, self.counters.clone());
        let inbox = Inbox::new(url, events, self.portal.clone(), messages, channels, counters, outage)?;
        self.foreign = Some(foreign);
        Ok(Some(inbox))
    }

    /// Stores messages of other tools that have come.
    async fn store_foreign(&mut self) -> sqlx::Result<()> {
        let Some(come) = &self.come else { return Ok(()) };
        let mut transaction = self.deliverer.tables().write().await?;
        let dropped = self.deliverer.store(&mut transaction, &come.deliveries).await?;
        delivery::set_mark(&mut transaction, &come.mark.0, come.mark.1).await?;
        transaction.commit().await?;
        self.deliverer.added(&come.deliveries, dropped);
        self.counters.without_channel.inc_by(come.without_channel);
        if let Some(come) = self.come.take() {
            // Whoever waited may have been stopped meanwhile.
            let _ = come.stored.send(());
        }
        Ok(())
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
                come = next(&mut self.foreign), if self.come.is_none() => self.come = Some(come),
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
        self.intake.look(&mut self.deliverer).await?;
        self.store_foreign().await.context("cannot store messages of other tools")?;
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
                let times = [self.deliverer.look_at(), self.merging.at(), self.intake.look_at()];
                times.into_iter().flatten().fold(self.tidy_at, Instant::min)
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
        if self.more || self.has_copies || self.unowned_at > Instant::now() {
            return Ok(());
        }
        self.unowned_at = Instant::now() + ACTIONS_PAUSE;
        self.unowned.look(&self.portal).await
    }
}

/// What comes next from other tools; never where none can.
async fn next(foreign: &mut Option<mpsc::Receiver<Foreign>>) -> Foreign {
    let next = match foreign {
        Some(foreign) => foreign.recv().await,
        None => None,
    };
    match next {
        Some(next) => next,
        None => std::future::pending().await,
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
