//! Intake: moves events from the durable queue into the portal's tables, with the deliveries that they cause, and
//! closes the cases of alarms whose rule or series went.
//!
//! How: a batch is one transaction: cases, event rows, deliveries, and the cursor in the queue. Its commit decides
//! whether the batch was handled, so each event and each closing is handled exactly once, over any crash.
//! Invariants: a batch whose transaction failed is kept and tried again, and nothing is read beyond it; a case is
//! closed behind the events of its alarm, so none of them opens it again.
//! Memory: one batch of [`BATCH`] records.

use super::READER;
use super::counters::AlarmMetrics;
use super::deliver::Deliverer;
use super::message;
use super::plan::{self, Channels, Contacts, Plan, Untold};
use crate::clock;
use crate::portal::Portal;
use crate::portal::action::{self, Action};
use crate::portal::db::Transaction;
use crate::portal::delivery::{self, NewDelivery};
use crate::portal::{alarm, user};
use anyhow::{Context, Result};
use events::{Consumer, Entry, EventQueue, Record};
use model::Event;
use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// Events that tell nobody are logged this often at most; each is counted, and its case says why.
const UNTOLD_LOGGED: Duration = Duration::from_secs(60);
/// Records of one transaction. A commit costs an fsync; 64 of them share it, and the last waits some milliseconds only.
const BATCH: usize = 64;

/// Reader of the event queue that writes to the portal's tables.
pub struct Intake {
    portal: Portal,
    queue: Arc<EventQueue>,
    /// The reader of the queue; None only while a blocking thread reads with it.
    consumer: Option<Consumer>,
    batch: Vec<Record>,
    channels: Channels,
    dashboard: String,
    counters: AlarmMetrics,
    /// Events that told nobody since the log last said so, and when it did.
    untold: u64,
    untold_logged: Option<Instant>,
}

/// The outcome of a batch, counted when the batch is committed.
#[derive(Default)]
struct BatchCounts {
    deliveries: Vec<NewDelivery>,
    untold: Vec<Untold>,
    without_channel: u64,
}

type Receivers = Option<(Action, Contacts)>;

impl Intake {
    /// Registers alarm as a reader of the queue, at the cursor that the tables hold. Fails as the database does.
    pub async fn open(
        portal: Portal,
        queue: Arc<EventQueue>,
        channels: Channels,
        dashboard: String,
        counters: AlarmMetrics,
    ) -> Result<Intake> {
        let cursor = delivery::cursor(&portal).await?;
        let consumer = Some(queue.reader(READER, cursor, None));
        Ok(Intake {
            portal,
            queue,
            consumer,
            batch: Vec::new(),
            channels,
            dashboard,
            counters,
            untold: 0,
            untold_logged: None,
        })
    }

    /// Handles up to a batch of records; true when there may be more.
    pub async fn step(&mut self, deliverer: &mut Deliverer) -> Result<bool> {
        if self.batch.is_empty() {
            self.read().await?;
        }
        let Some(last) = self.batch.last() else { return Ok(false) };
        let (cursor, full) = (last.seq, self.batch.len() == BATCH);
        let (counts, dropped) = self.store(cursor, deliverer).await.context("cannot store events")?;
        deliverer.added(&counts.deliveries, dropped);
        self.note_untold(&counts.untold);
        self.counters.without_channel.inc_by(counts.without_channel);
        for queued in self.batch.drain(..) {
            if let Entry::Event(event) = queued.entry {
                self.counters.event(event.status.as_str());
            }
        }
        let queue = self.queue.clone();
        spawn_blocking(move || queue.consumed(READER, cursor)).await?.context("cannot delete handled events")?;
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
            None => self.queue.reader(READER, delivery::cursor(&self.portal).await?, None),
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

    async fn store(&self, cursor: u64, deliverer: &Deliverer) -> Result<(BatchCounts, u64)> {
        let mut transaction = self.portal.write().await?;
        let mut counts = BatchCounts::default();
        let mut known = HashMap::new();
        for queued in &self.batch {
            match &queued.entry {
                Entry::Event(event) => {
                    alarm::record(&mut transaction, event, &message::condition(event)).await?;
                    self.plan(event, &mut transaction, &mut known, &mut counts).await?;
                }
                Entry::Forget(id) => alarm::close(&mut transaction, id, clock::now()).await?,
                Entry::End(closing) => unreachable!("{closing:?} was written as an event or a closing"),
            }
        }
        let dropped = deliverer.store(&mut transaction, &counts.deliveries).await?;
        delivery::set_cursor(&mut transaction, cursor).await?;
        transaction.commit().await?;
        Ok((counts, dropped))
    }

    async fn plan(
        &self,
        event: &Event,
        transaction: &mut Transaction,
        known: &mut HashMap<i64, Receivers>,
        counts: &mut BatchCounts,
    ) -> Result<()> {
        let id = event.action_id();
        let receivers = match known.entry(id) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(unknown) => unknown.insert(receivers(transaction, id).await?),
        };
        let plan = match receivers {
            None => Plan { untold: Some(Untold::without_action(id)), ..Plan::default() },
            Some((action, contacts)) => plan::plan(event, action, contacts, self.channels, &self.dashboard),
        };
        let told = plan.untold.as_ref().map_or("", |untold| &untold.text);
        alarm::tell(transaction, &event.id(), told).await?;
        counts.untold.extend(plan.untold);
        counts.deliveries.extend(plan.deliveries);
        counts.without_channel += plan.without_channel;
        Ok(())
    }
}

async fn receivers(transaction: &mut Transaction, action_id: i64) -> Result<Receivers> {
    if action_id <= 0 {
        return Ok(None);
    }
    let Some(action) = action::by_id(&mut *transaction, action_id).await? else { return Ok(None) };
    let users = user::of_teams(transaction, &action.uic).await?;
    Ok(Some((action, Contacts::of(&users))))
}
