//! Intake: moves events from the durable queue into the portal's tables, with the deliveries that they cause, and
//! closes the cases of alarms whose rule or series went.
//!
//! How: a batch is one transaction: cases, event rows, deliveries, and the cursor in the queue. Its commit decides
//! whether the batch was handled, so each event and each closing is handled exactly once, over any crash. Where the
//! tables of cases and events are damaged, a batch goes without them; where those of receivers are, it goes to whom
//! they named before, else to those of them who can be read. Where an old api is asked whom to tell and does not
//! answer, an event whose action it never told becomes a row under the target of that action, and is planned when it
//! answers, before younger events of the action are.
//! Invariants: a batch whose transaction failed is kept and tried again, and nothing is read beyond it; a case is
//! closed behind the events of its alarm, so none of them opens it again. An event that waits for its action is bounded
//! as all deliveries are, by `alarm.give_up_after` and `alarm.deliveries_max`.
//! Memory: one batch of [`BATCH`] records; the receivers of each action that was needed.

use super::READER;
use super::counters::AlarmMetrics;
use super::deliver::Deliverer;
use super::directory::Directory;
use super::message;
use super::plan::{self, ACTION, Channels, Contacts, Plan, Untold};
use super::reason;
use crate::clock;
use crate::portal::Portal;
use crate::portal::action::{self, Action};
use crate::portal::db::Transaction;
use crate::portal::db::fault::{self, Fault};
use crate::portal::delivery::{self, NewDelivery};
use crate::portal::{alarm, user};
use crate::watch::health::{Health, Outage};
use anyhow::{Context, Result};
use events::{Consumer, Entry, EventQueue, Record};
use model::Event;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// Events that tell nobody are logged this often at most; each is counted, and its case says why.
const UNTOLD_LOGGED: Duration = Duration::from_secs(60);
/// Records of one transaction, whose beginning and commit they share; the last waits some milliseconds only.
const BATCH: usize = 64;
/// Pause between two looks whether an old api tells an action that events wait for.
const LOOK: Duration = Duration::from_secs(1);
/// Events of one action that are planned in one transaction once it is told.
const WAITING_BATCH: usize = 500;

/// Reader of the event queue that writes to the portal's tables.
pub struct Intake {
    /// Where receivers are read.
    portal: Portal,
    /// Where events, deliveries and the cursor are written: the portal, unless its tables for that are damaged.
    tables: Portal,
    queue: Arc<EventQueue>,
    /// The reader of the queue; None only while a blocking thread reads with it.
    consumer: Option<Consumer>,
    batch: Vec<Record>,
    /// Receivers by action, as they were last read.
    receivers: HashMap<i64, Receivers>,
    unrecorded: Outage,
    channels: Channels,
    dashboard: String,
    counters: AlarmMetrics,
    /// Who is asked for actions and teams, where the portal here has only copies of them.
    directory: Option<Directory>,
    /// Actions that events wait for, none of which the api has told; None until the tables were looked at.
    waiting: Option<BTreeSet<i64>>,
    wait_until: Instant,
    unasked: Outage,
    /// False where an old alarm tells people: events are stored, and nothing is delivered.
    delivers: bool,
    /// Events that told nobody since the log last said so, and when it did.
    untold: u64,
    untold_logged: Option<Instant>,
}

/// What a batch causes; counted when the batch is committed.
#[derive(Default)]
struct BatchCounts {
    deliveries: Vec<NewDelivery>,
    untold: Vec<Untold>,
    /// Text for the case of each event, in order: why nobody is told, or nothing.
    told: Vec<String>,
    without_channel: u64,
}

type Receivers = Option<(Action, Contacts)>;

impl Intake {
    /// Registers alarm as a reader of the queue, at the cursor that the tables hold; where they are damaged, where the
    /// portal's mark says. Fails as the database does.
    pub async fn open(
        portal: Portal,
        queue: Arc<EventQueue>,
        channels: Channels,
        dashboard: String,
        counters: AlarmMetrics,
        health: &Health,
        delivers: bool,
    ) -> Result<Intake> {
        match delivery::cursor(&portal).await {
            Ok(cursor) => portal.cursors().note_handled(cursor),
            Err(error) if fault::among(&error) == Some(Fault::Damage) => {}
            Err(error) => return Err(error),
        }
        let consumer = Some(queue.reader(READER, portal.cursors().handled(), None));
        Ok(Intake {
            tables: portal.clone(),
            portal,
            queue,
            consumer,
            batch: Vec::new(),
            receivers: HashMap::new(),
            unrecorded: health.outage("cases and events cannot be stored: alarms are delivered without"),
            channels,
            dashboard,
            counters,
            directory: None,
            waiting: None,
            wait_until: Instant::now(),
            unasked: health.outage("events wait for alarm.plus_api to say whom to tell"),
            delivers,
            untold: 0,
            untold_logged: None,
        })
    }

    /// Asks for receivers from now on.
    pub fn ask(&mut self, directory: Directory) {
        self.directory = Some(directory);
    }

    /// Writes to `tables` from now on.
    pub fn write_to(&mut self, tables: Portal) {
        self.tables = tables;
        self.waiting = None;
    }

    /// The time to look again for actions that events wait for; none where none do.
    pub fn look_at(&self) -> Option<Instant> {
        let waits = self.directory.is_some() && self.waiting.as_ref().is_none_or(|waiting| !waiting.is_empty());
        waits.then_some(self.wait_until)
    }

    /// Plans events whose action is told meanwhile.
    pub async fn look(&mut self, deliverer: &mut Deliverer) -> Result<()> {
        if self.look_at().is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        self.wait_until = Instant::now() + LOOK;
        let waiting: Vec<i64> = self.waiting().await?.iter().copied().collect();
        self.ask_for(&waiting, deliverer).await?;
        Ok(())
    }

    /// The actions that events wait for.
    async fn waiting(&mut self) -> Result<&mut BTreeSet<i64>> {
        if self.waiting.is_none() {
            let targets = delivery::targets(&self.tables).await.context("cannot read which events wait")?;
            let ids = targets.iter().filter_map(|target| target.strip_prefix(ACTION)?.parse().ok());
            self.waiting = Some(ids.collect());
        }
        Ok(self.waiting.get_or_insert_default())
    }

    /// Asks for actions, and plans what has waited for those that are told; answers the others.
    async fn ask_for(&mut self, actions: &[i64], deliverer: &mut Deliverer) -> Result<Vec<i64>> {
        let Some(directory) = &mut self.directory else { return Ok(Vec::new()) };
        let missing = directory.copy(&self.portal, actions).await;
        for action in actions.iter().filter(|action| !missing.contains(action)) {
            if self.waiting().await?.contains(action) {
                self.release(*action, deliverer).await.context("cannot plan events that waited")?;
                self.waiting().await?.remove(action);
            }
        }
        let count = match self.waiting().await?.is_empty() {
            true => 0,
            false => delivery::count_to(&self.tables, ACTION).await?,
        };
        match count {
            0 => self.unasked.works(),
            _ => self.unasked.fails(format!("{count} wait, for at most alarm.give_up_after")),
        }
        Ok(missing)
    }

    /// Puts deliveries in the place of events that waited for an action.
    async fn release(&mut self, action: i64, deliverer: &mut Deliverer) -> Result<()> {
        let mut reading = self.portal.read().await?;
        let receivers = receivers(&mut reading, action).await?;
        drop(reading);
        loop {
            let rows = delivery::of_target(&self.tables, &format!("{ACTION}{action}"), WAITING_BATCH).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let (mut deliveries, mut untold, mut without_channel) = (Vec::new(), Vec::new(), 0);
            let mut transaction = self.tables.write().await?;
            for row in &rows {
                let plan = match (Event::from_json(&row.body), &receivers) {
                    (Ok(event), Some((action, contacts))) => {
                        plan::plan(&event, action, contacts, self.channels, &self.dashboard)
                    }
                    (Ok(_), None) => Plan::untold(Untold::without_action(action)),
                    (Err(error), _) => {
                        tracing::error!(id = row.id, error, "an event that waited cannot be read, and is given up");
                        Plan::untold(Untold::unread(action))
                    }
                };
                let told = plan.untold.as_ref().map_or("", |untold| untold.text.as_str());
                alarm::tell(&mut transaction, &row.lane, told).await?;
                deliveries.extend(plan.deliveries);
                untold.extend(plan.untold);
                without_channel += plan.without_channel;
            }
            delivery::delete_all(&mut transaction, rows.iter().map(|row| row.id)).await?;
            let dropped = deliverer.store(&mut transaction, &deliveries).await?;
            transaction.commit().await?;
            deliverer.removed(rows.len() as u64);
            deliverer.added(&deliveries, dropped);
            self.note_untold(&untold);
            self.counters.without_channel.inc_by(without_channel);
            tracing::info!(action, events = rows.len(), "events that waited for their action are told");
        }
    }

    /// Handles up to a batch of records; true when there may be more.
    pub async fn step(&mut self, deliverer: &mut Deliverer) -> Result<bool> {
        if self.batch.is_empty() {
            self.read().await?;
            self.add_reasons().await;
        }
        let Some(last) = self.batch.last() else { return Ok(false) };
        let (cursor, full) = (last.seq, self.batch.len() == BATCH);
        let missing = self.read_receivers(deliverer).await.context("cannot read the receivers of events")?;
        let counts = self.plan(&missing);
        let dropped = self.store(cursor, &counts, deliverer).await.context("cannot store events")?;
        self.portal.cursors().note_handled(cursor);
        deliverer.added(&counts.deliveries, dropped);
        if !missing.is_empty() {
            self.waiting().await?.extend(missing);
            self.wait_until = Instant::now() + LOOK;
        }
        self.note_untold(&counts.untold);
        self.counters.without_channel.inc_by(counts.without_channel);
        for queued in self.batch.drain(..) {
            if let Entry::Event(event) = queued.entry {
                self.counters.event(event.status.as_str());
            }
        }
        Ok(full)
    }

    fn note_untold(&mut self, untold: &[Untold]) {
        untold.iter().for_each(|untold| self.counters.untold(untold.missing));
        self.untold += untold.len() as u64;
        let Some(last) = untold.last() else { return };
        if self.untold_logged.is_none_or(|at| at.elapsed() >= UNTOLD_LOGGED) {
            tracing::warn!(events = self.untold, last = last.text, "events told nobody");
            (self.untold, self.untold_logged) = (0, Some(Instant::now()));
        }
    }

    async fn read(&mut self) -> Result<()> {
        // The consumer of a read that panicked is gone; a new one begins where the tables stand.
        let mut consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.queue.reader(READER, self.portal.cursors().handled(), None),
        };
        let (consumer, batch, result) = spawn_blocking(move || {
            let mut batch = Vec::new();
            let result = consumer.read(BATCH, &mut batch);
            (consumer, batch, result)
        })
        .await?;
        let consumer = self.consumer.insert(consumer);
        // Kept after an error too: records that were read before the error are behind the consumer's cursor.
        self.batch = batch;
        let (damaged, unreadable) = consumer.take_trouble();
        self.counters.unreadable.inc_by(damaged.len() as u64 + unreadable);
        for damage in damaged {
            tracing::error!(file = %damage.file.display(), bytes = ?damage.bytes, "skipped a damaged part of the event queue");
        }
        result.context("cannot read the event queue")
    }

    /// Adds to the batch's events why their probes are down, as long as the tables can be read.
    async fn add_reasons(&mut self) {
        for queued in &mut self.batch {
            let Entry::Event(event) = &mut queued.entry else { continue };
            if !reason::is_wanted(event) {
                continue;
            }
            match reason::of_event(&self.portal, event).await {
                Ok(reason) if reason.is_empty() => {}
                Ok(reason) => event.explanation.get_or_insert_default().reason = reason,
                Err(error) => {
                    tracing::warn!(%error, "the reasons of probes cannot be read; their alarms go without");
                    return;
                }
            }
        }
    }

    /// Reads the receivers of the batch's actions. Where they are damaged, those of before stay. Answers the actions
    /// that an old api was to tell, and did not.
    async fn read_receivers(&mut self, deliverer: &mut Deliverer) -> Result<Vec<i64>> {
        let mut actions: Vec<i64> = self.events().map(|event| event.action_id()).filter(|id| *id > 0).collect();
        actions.sort_unstable();
        actions.dedup();
        if actions.is_empty() {
            return Ok(Vec::new());
        }
        let missing = self.ask_for(&actions, deliverer).await?;
        let (mut transaction, mut readable) = (self.portal.read().await?, Vec::new());
        for action in actions {
            match receivers(&mut transaction, action).await {
                Ok(receivers) => _ = self.receivers.insert(action, receivers),
                Err(error) if is_damage(&error) && self.receivers.contains_key(&action) => {
                    tracing::error!(action, %error, "receivers cannot be read; those of before get the alarm");
                }
                Err(error) if is_damage(&error) => {
                    tracing::error!(action, %error, "receivers cannot be read; those who can get the alarm");
                    readable.push(action);
                }
                Err(error) => return Err(error.into()),
            }
        }
        for action in readable {
            match receivers_that_read(&mut transaction, action).await {
                Ok(receivers) => _ = self.receivers.insert(action, receivers),
                Err(error) if is_damage(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // One that met damage cannot be committed, and there is nothing to commit.
        drop(transaction);
        Ok(missing)
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.batch.iter().filter_map(|queued| match &queued.entry {
            Entry::Event(event) => Some(event),
            _ => None,
        })
    }

    /// What the batch causes; events of these actions wait.
    fn plan(&self, missing: &[i64]) -> BatchCounts {
        let mut counts = BatchCounts::default();
        for event in self.events() {
            let waits = missing.contains(&event.action_id());
            let plan = match self.receivers.get(&event.action_id()) {
                _ if !self.delivers => Plan::default(),
                _ if waits => Plan::waiting(event),
                Some(Some((action, contacts))) => plan::plan(event, action, contacts, self.channels, &self.dashboard),
                None if event.action_id() > 0 => Plan::untold(Untold::unread(event.action_id())),
                _ => Plan::untold(Untold::without_action(event.action_id())),
            };
            let why = plan.untold.as_ref().map(|untold| untold.text.clone());
            counts
                .told
                .push(why.unwrap_or_else(|| if waits { Untold::unasked(event.action_id()) } else { String::new() }));
            counts.untold.extend(plan.untold);
            counts.deliveries.extend(plan.deliveries);
            counts.without_channel += plan.without_channel;
        }
        counts
    }

    async fn store(&self, cursor: u64, counts: &BatchCounts, deliverer: &Deliverer) -> sqlx::Result<u64> {
        let mut lost = None;
        for recording in [Recording::Whole, Recording::Deliveries, Recording::Bare] {
            let stored = self.store_as(recording, cursor, counts, deliverer).await;
            match (stored, lost) {
                (Err(error), _) if fault::of(&error) == Some(Fault::Damage) => lost = Some(error),
                (stored, Some(error)) => {
                    self.unrecorded.fails(error.to_string());
                    return stored;
                }
                (stored, None) => {
                    self.unrecorded.works();
                    return stored;
                }
            }
        }
        Err(lost.expect("each recording was tried"))
    }

    async fn store_as(
        &self,
        recording: Recording,
        cursor: u64,
        counts: &BatchCounts,
        deliverer: &Deliverer,
    ) -> sqlx::Result<u64> {
        let mut transaction = self.tables.write().await?;
        if recording == Recording::Whole {
            self.record(&mut transaction, &counts.told).await?;
        }
        let dropped = deliverer.store(&mut transaction, &counts.deliveries).await?;
        if recording != Recording::Bare {
            delivery::set_cursor(&mut transaction, cursor).await?;
        }
        transaction.commit().await?;
        self.tables.announce_alarms();
        Ok(dropped)
    }

    async fn record(&self, transaction: &mut Transaction, told: &[String]) -> sqlx::Result<()> {
        let mut told = told.iter();
        for queued in &self.batch {
            match &queued.entry {
                Entry::Event(event) => {
                    alarm::record(transaction, event, &message::condition(event)).await?;
                    let told = told.next().expect("a text for each event");
                    alarm::tell(transaction, &event.id(), told).await?;
                }
                Entry::Forget(id) => alarm::close(transaction, id, clock::now()).await?,
                Entry::End(closing) => unreachable!("{closing:?} was written as an event or a closing"),
            }
        }
        Ok(())
    }
}

/// Parts of a batch that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recording {
    Whole,
    /// No cases and events: their tables are damaged.
    Deliveries,
    /// No cursor either, which the portal's mark repeats.
    Bare,
}

fn is_damage(error: &sqlx::Error) -> bool {
    fault::of(error) == Some(Fault::Damage)
}

/// The receivers of an action whose row can be read, without those who cannot.
async fn receivers_that_read(transaction: &mut Transaction, action_id: i64) -> sqlx::Result<Receivers> {
    let Some(action) = action::by_id(&mut *transaction, action_id).await? else { return Ok(None) };
    let users = user::members_that_read(transaction).await?.of_teams(&action.uic);
    Ok(Some((action, Contacts::of(&users))))
}

async fn receivers(transaction: &mut Transaction, action_id: i64) -> sqlx::Result<Receivers> {
    let Some(action) = action::by_id(&mut *transaction, action_id).await? else { return Ok(None) };
    let users = user::of_teams(transaction, &action.uic).await?;
    Ok(Some((action, Contacts::of(&users))))
}
