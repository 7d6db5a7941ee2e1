//! Deliver: brings the rows of `hawkeye_delivery` to their targets, each target at its own pace.
//!
//! Why: the original sends each message once, from one loop per kind; what fails is lost, and a slow receiver delays
//! all.
//! How: a target (a callback's origin, a gateway, the mail server) has slots: one attempt at a time at first, twice as
//! many after each answer up to [`DeliveryLimits::per_target_max`], one again when it cannot be reached or is busy.
//! Such a target pauses, for longer after each failure in a row; a delivery that is refused backs off by itself while
//! its target goes on. Attempts run as tasks; their results are written in one transaction before anything else of that
//! target is looked at. All callbacks that a step starts are marked in the table, in one transaction, before they are:
//! a mark that a start finds is a call of which nobody knows whether it was received, and that is told instead.
//! Invariants: a row is attempted by one task at a time; while the database fails, nothing new is sent. A message is
//! sent at least once: a crash between an attempt and its transaction repeats it. A callback is received at most once:
//! tried again is only one that had no connection. A recovery never overtakes its problem at the same target (see
//! `portal::delivery`). Losing power can lose the last commits, and with them a mark; a crash of the process cannot.
//! What waited too long is given up, but not for its age alone, since clocks may be wrong (see [`Aging`]).
//! Memory: [`DeliveryLimits::in_flight_max`] attempts with their bodies, and one [`Target`] per target that has rows.

use super::aging::Aging;
use super::counters::{AlarmMetrics, Ended};
use super::message;
use super::plan::{self, Callback, Channels};
use super::send::{self, Failure, Sender};
use crate::clock::{self, now_ms};
use crate::portal::Portal;
use crate::portal::alarm;
use crate::portal::db::Transaction;
use crate::portal::delivery::{self, Delivery, Kind, NewDelivery};
use anyhow::{Context, Result};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

/// Bounds and pauses of deliveries.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryLimits {
    /// Attempts at a time in all. With TLS one holds some 50 KiB, so this is at most about 12 MiB.
    pub in_flight_max: usize,
    /// Attempts at a time at one target. The original has 10 for SMS and messages, 1 for callbacks.
    pub per_target_max: usize,
    /// The first pause after a failure; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause of a refused delivery.
    pub delivery_pause_max: Duration,
    /// The longest pause of a target: one probe a minute costs nothing, and finds it back soon.
    pub target_pause_max: Duration,
    /// Age in seconds at which a delivery is given up, see [`Aging`].
    pub give_up_after: i64,
    pub deliveries_max: u64,
    /// Longest time that a stop waits for attempts under way: messages need not be repeated, and callbacks end whose
    /// answer comes soon, or that cannot connect. One that is cut off behind that may have been received.
    pub grace: Duration,
}

/// Longer than a callback may take to connect, so that what is cut off behind it had a connection.
const GRACE: Duration = Duration::from_secs(4);
const _: () = assert!(GRACE.as_millis() > send::CALLBACK_CONNECT.as_millis());

impl DeliveryLimits {
    /// Limits as they are in service, with what the configuration decides: the greatest age of a delivery in seconds,
    /// and the number of deliveries that may wait.
    pub fn new(give_up_after: i64, deliveries_max: usize) -> DeliveryLimits {
        DeliveryLimits {
            in_flight_max: 256,
            per_target_max: 8,
            first_pause: Duration::from_secs(1),
            delivery_pause_max: Duration::from_secs(300),
            target_pause_max: Duration::from_secs(60),
            give_up_after,
            deliveries_max: deliveries_max as u64,
            grace: GRACE,
        }
    }
}

/// A row of the table holds this much of an error.
const ERROR_CHARS: usize = 500;
/// Rows given up for their age in one transaction.
const DROP_BATCH: u64 = 1000;

/// Work on the rows of `hawkeye_delivery`: what is due, what is under way, what has ended.
pub struct Deliverer {
    portal: Portal,
    sender: Arc<Sender>,
    channels: Channels,
    limits: DeliveryLimits,
    pub aging: Aging,
    counters: AlarmMetrics,
    targets: HashMap<String, Target>,
    attempts: JoinSet<Result<String, Failure>>,
    under_way: HashMap<Id, Delivery>,
    /// Attempts that ended and are not yet written down.
    ended: Vec<(Delivery, Result<String, Failure>)>,
    /// Rows in the table.
    waiting: u64,
    /// Whether links that are stored with deliveries can be read by people.
    pub keeps_links: bool,
}

/// A target that has rows, and how it has answered.
#[derive(Debug)]
struct Target {
    /// Ids of rows that are under way, or whose end is not yet written down.
    taken: HashSet<i64>,
    slots: usize,
    failures: u32,
    paused_until: Option<Instant>,
    /// The time to look for due rows; None while only an end or a new row can make one due.
    look_at: Option<Instant>,
}

impl Target {
    fn new(now: Instant) -> Target {
        Target { taken: HashSet::new(), slots: 1, failures: 0, paused_until: None, look_at: Some(now) }
    }

    fn wake(&mut self, now: Instant) {
        self.look_at = Some(self.paused_until.map_or(now, |until| until.max(now)));
    }

    fn note(&mut self, result: &Result<String, Failure>, limits: &DeliveryLimits, now: Instant) {
        if let Err(Failure::Target(_)) = result {
            // Attempts that were under way together fail together: that is one failure.
            if self.paused_until.is_none_or(|until| until <= now) {
                self.failures = self.failures.saturating_add(1);
                let pause = backoff(limits.first_pause, limits.target_pause_max, self.failures, rand::random());
                self.paused_until = Some(now + pause);
            }
            self.slots = 1;
        } else {
            self.failures = 0;
            self.paused_until = None;
            self.slots = (self.slots * 2).min(limits.per_target_max);
        }
    }
}

impl Deliverer {
    /// Reads which targets have rows, and counts the rows. Callbacks that were under way when the process before this
    /// one ended are taken as ended, for the first step to write down. Fails as the database does.
    pub async fn open(
        portal: Portal,
        sender: Arc<Sender>,
        channels: Channels,
        limits: DeliveryLimits,
        counters: AlarmMetrics,
    ) -> Result<Deliverer> {
        let now = Instant::now();
        let targets = delivery::targets(&portal).await.context("cannot read the deliveries that wait")?;
        let mut deliverer = Deliverer {
            targets: targets
                .into_iter()
                .filter(|target| plan::is_sent(target))
                .map(|target| (target, Target::new(now)))
                .collect(),
            portal,
            sender,
            channels,
            limits,
            aging: Aging::new(limits.give_up_after),
            counters,
            attempts: JoinSet::new(),
            under_way: HashMap::new(),
            ended: Vec::new(),
            waiting: 0,
            keeps_links: true,
        };
        for row in delivery::begun(&deliverer.portal).await.context("cannot read the callbacks that were under way")? {
            let begun = clock::local_text(row.begun_at);
            let failure = Failure::Unknown(format!(
                "unknown: the server ended during this call, begun at {begun}; it may have been received, and is not made again"
            ));
            deliverer.targets.entry(row.target.clone()).or_insert_with(|| Target::new(now)).taken.insert(row.id);
            deliverer.ended.push((row, Err(failure)));
        }
        deliverer.recount().await?;
        Ok(deliverer)
    }

    /// Stores deliveries in the transaction of what caused them. Tell the deliverer with [`Deliverer::added`] once it
    /// is committed. Returns how many of the oldest had to go.
    pub async fn store(&self, transaction: &mut Transaction, new: &[NewDelivery]) -> sqlx::Result<u64> {
        for new in new {
            delivery::insert(transaction, new, now_ms()).await?;
        }
        let excess = (self.waiting + new.len() as u64).saturating_sub(self.limits.deliveries_max);
        if excess == 0 { Ok(0) } else { delivery::drop_oldest(transaction, excess).await }
    }

    /// Notes deliveries that were committed, and how many of the oldest had to go for them.
    pub fn added(&mut self, new: &[NewDelivery], dropped: u64) {
        let now = Instant::now();
        for new in new.iter().filter(|new| plan::is_sent(&new.target)) {
            self.targets.entry(new.target.clone()).or_insert_with(|| Target::new(now)).wake(now);
        }
        if dropped > 0 {
            tracing::error!(dropped, "gave up the oldest deliveries: more than alarm.deliveries_max wait");
            self.counters.dropped.inc_by(dropped);
        }
        self.waiting = (self.waiting + new.len() as u64).saturating_sub(dropped);
    }

    /// The tables that deliveries are stored in.
    pub fn tables(&self) -> &Portal {
        &self.portal
    }

    /// Notes rows that were deleted in a transaction of their own.
    pub fn removed(&mut self, rows: u64) {
        self.waiting = self.waiting.saturating_sub(rows);
    }

    /// Writes down what ended, then starts what is due.
    pub async fn step(&mut self) -> Result<()> {
        self.aging.look();
        while let Some(ended) = self.attempts.try_join_next_with_id() {
            self.note(ended);
        }
        self.settle().await.context("cannot write down the ends of deliveries")?;
        self.start().await.context("cannot read the deliveries that are due")?;
        self.counters.show_waiting(self.waiting);
        self.counters.show_deliveries_bytes(self.memory_bytes());
        self.counters.show_failing(self.targets.values().filter(|target| target.failures > 0).count());
        Ok(())
    }

    /// The bytes of targets and of rows under way; what the clients hold while they send is theirs.
    fn memory_bytes(&self) -> usize {
        let target =
            |(name, target): (&String, &Target)| name.capacity() + target.taken.capacity() * (size_of::<i64>() + 1);
        let row = |row: &Delivery| row.target.capacity() + row.lane.capacity() + row.body.capacity();
        let ended = self.ended.iter().map(|(delivery, _)| delivery);
        self.targets.capacity() * (size_of::<(String, Target)>() + 1)
            + self.targets.iter().map(target).sum::<usize>()
            + self.under_way.capacity() * (size_of::<(Id, Delivery)>() + 1)
            + self.under_way.values().chain(ended).map(row).sum::<usize>()
    }

    /// Returns when an attempt has ended; never while none is under way. [`Deliverer::step`] does the rest.
    pub async fn attempt_ended(&mut self) {
        match self.attempts.join_next_with_id().await {
            Some(ended) => self.note(ended),
            None => std::future::pending().await,
        }
    }

    /// The time at which [`Deliverer::step`] has something to start, if nothing happens before.
    pub fn look_at(&self) -> Option<Instant> {
        if self.attempts.len() >= self.limits.in_flight_max {
            return None;
        }
        self.targets
            .values()
            .filter(|target| target.taken.len() <= target.slots)
            .filter_map(|target| target.look_at)
            .min()
    }

    /// Waits a little for the attempts under way and writes their ends down; the rest is left to the next start.
    pub async fn stop(&mut self) -> Result<()> {
        let until = Instant::now() + self.limits.grace;
        while let Ok(Some(ended)) = tokio::time::timeout_at(until, self.attempts.join_next_with_id()).await {
            self.note(ended);
        }
        self.attempts.abort_all();
        self.settle().await.context("cannot write down the ends of deliveries")
    }

    /// Gives up what was too old at the last step, makes good a clock that was set back, and counts anew.
    pub async fn tidy(&mut self) -> Result<()> {
        let mut transaction = self.portal.write().await?;
        let dropped = match self.aging.cutoff() {
            Some(cutoff) => delivery::drop_older(&mut transaction, cutoff, DROP_BATCH).await?,
            None => 0,
        };
        let latest = now_ms() + 2 * self.limits.delivery_pause_max.as_millis() as i64;
        let pulled_in = delivery::pull_in(&mut transaction, latest, now_ms()).await?;
        transaction.commit().await?;
        if dropped > 0 {
            tracing::error!(dropped, "gave up deliveries that waited longer than alarm.give_up_after");
            self.counters.dropped.inc_by(dropped);
        }
        if pulled_in > 0 {
            self.targets.values_mut().for_each(|target| target.wake(Instant::now()));
        }
        self.recount().await
    }

    async fn recount(&mut self) -> Result<()> {
        self.waiting = delivery::count(&self.portal).await?;
        Ok(())
    }

    fn note(&mut self, ended: Result<(Id, Result<String, Failure>), tokio::task::JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Ok(result)),
            Err(error) => (error.id(), Err(format!("the attempt broke off: {error}"))),
        };
        let delivery = self.under_way.remove(&id).expect("each task was entered when it was spawned");
        // A bug of ours: a message is tried again like any that failed, a callback may have been received.
        let result = result.unwrap_or_else(|text| match delivery.kind {
            Some(Kind::Callback) => Err(Failure::Received(text)),
            _ => Err(Failure::Refused(text)),
        });
        let now = Instant::now();
        let target = self.targets.get_mut(&delivery.target).expect("a target stays while it has rows under way");
        let failing = target.failures > 0;
        target.note(&result, &self.limits, now);
        match &result {
            Err(Failure::Target(error)) if !failing => {
                tracing::warn!(target = %delivery.target, error, "deliveries fail, trying again later");
            }
            Ok(_) if failing => tracing::info!(target = %delivery.target, "deliveries succeed again"),
            _ => {}
        }
        self.ended.push((delivery, result));
    }

    async fn settle(&mut self) -> sqlx::Result<()> {
        if self.ended.is_empty() {
            return Ok(());
        }
        let mut transaction = self.portal.write().await?;
        let mut new = Vec::new();
        let mut without_channel = 0;
        let mut ends = Vec::new();
        let mut gone = 0;
        for (delivery, result) in &self.ended {
            let end = self.end_of(delivery, result);
            ends.push(end);
            let again = result.as_ref().err().filter(|failure| end == Ended::Failed && failure.may_be_tried_again());
            let was_there = match again {
                Some(failure) => {
                    let text: String = failure.text().chars().take(ERROR_CHARS).collect();
                    delivery::retry_at(&mut transaction, delivery.id, self.retry_at(delivery, failure), &text).await?
                }
                None => delivery::delete(&mut transaction, delivery.id).await?,
            };
            if !was_there {
                continue;
            }
            if again.is_none() {
                gone += 1;
                if let Err(failure) = result {
                    let text = failed_for_good(delivery, end, failure);
                    for case in delivery.cases() {
                        alarm::tell_more(&mut transaction, &case, &text).await?;
                    }
                }
            }
            // People are told of the first attempt, as in the original, and of the end when that comes later.
            if again.is_none() || delivery.attempts == 0 {
                let after = self.after_callback(delivery, result);
                new.extend(after.deliveries);
                without_channel += after.without_channel;
            }
        }
        let dropped = self.store(&mut transaction, &new).await?;
        transaction.commit().await?;
        self.waiting = self.waiting.saturating_sub(gone);
        self.counters.without_channel.inc_by(without_channel);
        self.added(&new, dropped);
        self.release(&ends);
        Ok(())
    }

    fn end_of(&self, delivery: &Delivery, result: &Result<String, Failure>) -> Ended {
        match result {
            Ok(_) => Ended::Done,
            Err(Failure::Never(_)) => Ended::GivenUp,
            Err(Failure::Received(_)) => Ended::Failed,
            Err(Failure::Denied(_)) => Ended::Denied,
            Err(Failure::Unknown(_)) => Ended::Unknown,
            Err(_) if self.aging.cutoff().is_some_and(|cutoff| delivery.created_at <= cutoff) => Ended::GivenUp,
            Err(_) => Ended::Failed,
        }
    }

    fn retry_at(&self, delivery: &Delivery, failure: &Failure) -> i64 {
        let failures = u32::try_from(delivery.attempts + 1).unwrap_or(u32::MAX);
        let max = match failure {
            Failure::Target(_) => self.limits.target_pause_max,
            _ => self.limits.delivery_pause_max,
        };
        let pause = backoff(self.limits.first_pause, max, failures, rand::random());
        now_ms() + pause.as_millis() as i64
    }

    /// Plans what people are told after a callback; of other deliveries they are told nothing.
    fn after_callback(&self, delivery: &Delivery, result: &Result<String, Failure>) -> plan::Plan {
        let Some(callback) = callback(delivery) else { return plan::Plan::default() };
        let text = message::after_callback(&callback.url, result.as_deref().map_err(Failure::text));
        plan::after_callback(&delivery.lane, delivery.priority, &callback, &text, self.channels)
    }

    /// Frees the slots of what was written down.
    fn release(&mut self, ends: &[Ended]) {
        let now = Instant::now();
        for ((delivery, result), end) in self.ended.drain(..).zip(ends) {
            self.counters.delivery(delivery.kind, *end);
            if let Err(failure) = result {
                log_end(&delivery, *end, &failure);
            }
            if let Some(target) = self.targets.get_mut(&delivery.target) {
                target.taken.remove(&delivery.id);
                target.wake(now);
            }
        }
    }

    /// Starts what is due: marks the callbacks among it, then attempts all.
    async fn start(&mut self) -> sqlx::Result<()> {
        let mut fresh = Vec::new();
        let mut marked = self.pick(&mut fresh).await;
        if marked.is_ok() {
            marked = self.mark(&fresh).await;
        }
        if marked.is_err() {
            self.put_back(&fresh);
            return marked;
        }
        for delivery in fresh {
            let (sender, row) = (self.sender.clone(), delivery.clone());
            let task = self.attempts.spawn(async move { sender.send(&row).await });
            self.under_way.insert(task.id(), delivery);
        }
        Ok(())
    }

    /// Takes what is due and has a slot.
    async fn pick(&mut self, fresh: &mut Vec<Delivery>) -> sqlx::Result<()> {
        let now = Instant::now();
        let ready = |target: &Target| target.taken.len() <= target.slots && target.look_at.is_some_and(|at| at <= now);
        // Who waits longest comes first, should all attempts be taken.
        let names: BTreeSet<(Option<Instant>, String)> = self
            .targets
            .iter()
            .filter(|(_, target)| ready(target))
            .map(|(name, target)| (target.look_at, name.clone()))
            .collect();
        for (_, name) in names {
            if self.attempts.len() + fresh.len() >= self.limits.in_flight_max {
                return Ok(());
            }
            self.pick_of(&name, fresh).await?;
        }
        Ok(())
    }

    async fn pick_of(&mut self, name: &str, fresh: &mut Vec<Delivery>) -> sqlx::Result<()> {
        let room = self.limits.in_flight_max - self.attempts.len() - fresh.len();
        let now = Instant::now();
        let target = self.targets.get_mut(name).expect("named by the caller");
        let due_by = now_ms();
        let rows = delivery::due(&self.portal, name, due_by, target.slots + 1).await?;
        let (mut all_taken, before) = (rows.len() <= target.slots, fresh.len());
        for delivery in rows {
            if target.taken.contains(&delivery.id) {
                continue;
            }
            // One slot more is open to high priorities alone: they do not wait for scripts of low ones.
            let slots = target.slots + usize::from(delivery.priority < i64::from(plan::LOW_PRIORITY));
            if target.taken.len() >= slots || fresh.len() - before >= room {
                all_taken = false;
                break;
            }
            target.taken.insert(delivery.id);
            fresh.push(delivery);
        }
        if !all_taken {
            if target.taken.len() >= target.slots {
                // An end, or a new row, makes the next one possible.
                target.look_at = None;
            }
            return Ok(());
        }
        match delivery::next_due(&self.portal, name, due_by).await? {
            Some(due) => {
                let wait = Duration::from_millis(u64::try_from(due - due_by).unwrap_or(0));
                target.look_at = Some(now + wait);
            }
            None if !target.taken.is_empty() => target.look_at = None,
            // A pause is kept to its end, for deliveries that may come.
            None if target.paused_until.is_some_and(|until| until > now) => target.look_at = target.paused_until,
            None => {
                self.targets.remove(name);
            }
        }
        Ok(())
    }

    async fn mark(&self, fresh: &[Delivery]) -> sqlx::Result<()> {
        let callbacks = fresh.iter().filter(|delivery| delivery.kind == Some(Kind::Callback));
        let ids: Vec<i64> = callbacks.map(|delivery| delivery.id).collect();
        if ids.is_empty() { Ok(()) } else { delivery::begin(&self.portal, &ids, clock::now()).await }
    }

    /// Leaves what was picked for the next step.
    fn put_back(&mut self, fresh: &[Delivery]) {
        let now = Instant::now();
        for delivery in fresh {
            let target = self.targets.get_mut(&delivery.target).expect("a target stays while rows of it are taken");
            target.taken.remove(&delivery.id);
            target.wake(now);
        }
    }
}

fn callback(delivery: &Delivery) -> Option<Callback> {
    (delivery.kind == Some(Kind::Callback)).then(|| serde_json::from_str(&delivery.body).ok()).flatten()
}

/// What a case says of a delivery that has failed and is not tried again.
fn failed_for_good(delivery: &Delivery, end: Ended, failure: &Failure) -> String {
    let kind = delivery.kind.map_or("delivery", Kind::as_str);
    // The case may have moved on since: a callback tells which event of it was called for.
    let status = callback(delivery).map_or(String::new(), |callback| format!(" for {}", callback.status()));
    let given_up = if end == Ended::GivenUp && failure.may_be_tried_again() { "given up: " } else { "" };
    format!("{kind}{status} failed: {given_up}{}", failure.text())
}

/// Logs what has failed and is not tried again.
fn log_end(delivery: &Delivery, end: Ended, failure: &Failure) {
    let (target, event, attempts) = (&delivery.target, &delivery.lane, delivery.attempts + 1);
    let error = failure.text();
    match end {
        Ended::GivenUp => tracing::error!(%target, %event, attempts, error, "gave up a delivery"),
        Ended::Denied => tracing::warn!(%target, %event, error, "a callback leads to where none may go"),
        Ended::Unknown => {
            tracing::warn!(%target, %event, error, "nobody knows whether a callback was received; it is not made again");
        }
        Ended::Failed if !failure.may_be_tried_again() => {
            tracing::warn!(%target, %event, error, "a callback failed; it may have been received, and is not made again");
        }
        Ended::Failed | Ended::Done => {}
    }
}

/// The pause after the given number of failures in a row: doubled each time, and shortened by up to half at random, so
/// that what failed together is not tried together again.
fn backoff(first: Duration, max: Duration, failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    first.saturating_mul(1 << doublings).min(max).mul_f64(1.0 - random / 2.0)
}

#[cfg(test)]
mod tests;
