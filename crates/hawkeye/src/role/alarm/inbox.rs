//! Inbox: what others push for an alarm into Redis (`alarm.redis_url`): messages of other tools, and, for an alarm that
//! runs alone, the events of judges.
//!
//! Why: the original pops an event or a message and forgets it when it ends; here nothing that was popped is lost.
//! How: a script moves the oldest entries of the queues, high priorities first, to a list of ours ([`TAKEN`]) and shows
//! them; when they are on our disk (events in the event queue, messages in the table of deliveries) they leave that
//! list. What a crash leaves in it is taken first. A list and not reading without popping, since an old alarm may
//! still pop from the same queues; a script, since one round trip moves a batch, on any Redis from 2.6 on.
//! Invariants: each entry is handled at least once, and twice only behind a crash or a lost answer; one that cannot be
//! read, or is longer than [`ENTRY_MAX`], is counted and told, and keeps no other. Nothing else waits for Redis.
//! Memory: a batch of [`BATCH`] entries.
//! Compat: docs/open-falcon/wire.md §9.

use super::counters::AlarmMetrics;
use super::plan::{self, Channels, Mail, Plan};
use crate::config::RedisUrl;
use crate::portal::Portal;
use crate::portal::delivery::{Kind, NewDelivery};
use crate::watch::health::Outage;
use anyhow::{Context, Result, anyhow};
use events::EventQueue;
use model::Event;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Queues of events, in the order in which they are taken.
const EVENTS: [&str; 7] = ["event:p0", "event:p1", "event:p2", "event:p3", "event:p4", "event:p5", "event:p6"];
/// Queues of messages, and their channels.
const MESSAGES: [(&str, Kind); 3] = [("/sms", Kind::Sms), ("/im", Kind::Im), ("/mail", Kind::Mail)];
/// Beginning of the names of our lists; the queue's follows, or `event`.
const TAKEN: &str = "hawkeye:taken:";
/// Entries of one turn, as many as alarm stores in one transaction.
const BATCH: usize = 64;
/// The longest entry: events and messages have some hundred bytes, mails some thousand.
const ENTRY_MAX: usize = 64 << 10;
/// Pause while all queues are empty; the original's senders look five times a second.
const PAUSE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);
/// The original's five seconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Fills our list (`KEYS[1]`) up to a number of entries from the queues behind it, and shows it, with the number of
/// those that were too long.
const TAKE: &str = "local have, long = redis.call('LLEN', KEYS[1]), 0
for i = 2, #KEYS do
  while have < tonumber(ARGV[1]) do
    local entry = redis.call('RPOPLPUSH', KEYS[i], KEYS[1])
    if not entry then break end
    if #entry > tonumber(ARGV[2]) then
      redis.call('LPOP', KEYS[1])
      long = long + 1
    else
      have = have + 1
    end
  end
end
return {long, redis.call('LRANGE', KEYS[1], 0, -1)}";

/// Deliveries of other tools' messages, on their way to the table.
pub struct Foreign {
    pub deliveries: Vec<NewDelivery>,
    pub without_channel: u64,
    /// Told when they are on the disk.
    pub stored: oneshot::Sender<()>,
}

/// Reader of the queues.
pub struct Inbox {
    url: RedisUrl,
    client: Client,
    connection: Option<MultiplexedConnection>,
    /// Where events go; none where the judge is in this process.
    queue: Option<Arc<EventQueue>>,
    portal: Portal,
    messages: mpsc::Sender<Foreign>,
    channels: Channels,
    counters: AlarmMetrics,
    outage: Outage,
}

impl Inbox {
    /// A reader that has not connected yet. `queue` takes the events, if they are wanted; `messages` what other tools
    /// have to say, which is stored in `portal`. Fails without a URL.
    pub fn new(
        url: &RedisUrl,
        queue: Option<Arc<EventQueue>>,
        portal: Portal,
        messages: mpsc::Sender<Foreign>,
        channels: Channels,
        counters: AlarmMetrics,
        outage: Outage,
    ) -> Result<Inbox> {
        let client = url.info().context("alarm.redis_url is empty").and_then(|info| Ok(Client::open(info)?))?;
        Ok(Inbox { url: url.clone(), client, connection: None, queue, portal, messages, channels, counters, outage })
    }

    /// Takes what comes, for ever.
    pub async fn run(mut self) -> Infallible {
        loop {
            let turn = self.turn().await;
            let pause = match &turn {
                Ok(true) => Duration::ZERO,
                Ok(false) => PAUSE,
                Err(_) => {
                    self.connection = None;
                    RETRY
                }
            };
            let told = turn.map_err(|error| anyhow!(self.url.without_password(&format!("{error:#}"))));
            self.outage.note(told);
            sleep(pause).await;
        }
    }

    /// Takes a batch from each kind of queue; true when there may be more.
    async fn turn(&mut self) -> Result<bool> {
        let mut full = false;
        if let Some(queue) = self.queue.clone() {
            full |= self.take_events(queue).await?;
        }
        for (name, kind) in MESSAGES {
            full |= self.take_messages(name, kind).await?;
        }
        Ok(full)
    }

    async fn take_events(&mut self, queue: Arc<EventQueue>) -> Result<bool> {
        let list = format!("{TAKEN}event");
        let entries = self.take(&list, &EVENTS).await?;
        if entries.is_empty() {
            return Ok(false);
        }
        let mut events = Vec::with_capacity(entries.len());
        for entry in &entries {
            match Event::from_json(entry) {
                Ok(event) => events.push(event),
                Err(error) => self.refuse("an event", &error, entry),
            }
        }
        if !events.is_empty() {
            let kept = spawn_blocking(move || queue.append(&events).and_then(|_| queue.sync()));
            kept.await?.context("cannot keep events of Redis in the event queue")?;
        }
        self.leave(&list, entries.len()).await?;
        Ok(entries.len() == BATCH)
    }

    async fn take_messages(&mut self, name: &str, kind: Kind) -> Result<bool> {
        let list = format!("{TAKEN}{name}");
        let entries = self.take(&list, &[name]).await?;
        if entries.is_empty() {
            return Ok(false);
        }
        let mut all = Plan::default();
        for entry in &entries {
            match serde_json::from_str::<Message>(entry) {
                Ok(Message { tos, subject, content }) => {
                    let plan = plan::of_others(kind, Mail { tos, subject, content }, self.channels);
                    all.deliveries.extend(plan.deliveries);
                    all.without_channel += plan.without_channel;
                }
                Err(error) => self.refuse(name, &error.to_string(), entry),
            }
        }
        let (stored, is_stored) = oneshot::channel();
        let foreign = Foreign { deliveries: all.deliveries, without_channel: all.without_channel, stored };
        self.messages.send(foreign).await.context("alarm has ended")?;
        is_stored.await.context("messages of Redis cannot be stored")?;
        self.portal.make_safe().await.context("messages of Redis are not on the disk")?;
        self.leave(&list, entries.len()).await?;
        Ok(entries.len() == BATCH)
    }

    fn refuse(&self, what: &str, error: &str, entry: &str) {
        self.counters.redis_refused.inc();
        let entry: String = entry.chars().take(200).collect();
        tracing::warn!(what, error, entry, "an entry of Redis cannot be read, and is left out");
    }

    /// The entries of our list, the oldest first, filled up from the queues.
    async fn take(&mut self, list: &str, queues: &[&str]) -> Result<Vec<String>> {
        let mut connection = self.connect().await?;
        let mut take = redis::cmd("EVAL");
        take.arg(TAKE).arg(1 + queues.len()).arg(list).arg(queues).arg(BATCH).arg(ENTRY_MAX);
        let (long, entries): (u64, Vec<Vec<u8>>) = take.query_async(&mut connection).await?;
        if long > 0 {
            self.counters.redis_refused.inc_by(long);
            tracing::warn!(list, long, "entries of Redis are longer than {ENTRY_MAX} bytes, and are left out");
        }
        Ok(entries.into_iter().rev().map(|entry| String::from_utf8_lossy(&entry).into_owned()).collect())
    }

    /// Takes the oldest entries out of our list: they are on our disk.
    async fn leave(&mut self, list: &str, count: usize) -> Result<()> {
        let mut connection = self.connect().await?;
        let mut leave = redis::cmd("LTRIM");
        leave.arg(list).arg(0).arg(-1 - count as i64);
        let () = leave.query_async(&mut connection).await?;
        self.counters.redis_taken.inc_by(count as u64);
        Ok(())
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT)).set_response_timeout(Some(TIMEOUT));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(self.connection.insert(connection).clone())
    }
}

/// A message as other tools push it; an SMS or an instant message has no subject.
#[derive(serde::Deserialize)]
struct Message {
    tos: String,
    #[serde(default)]
    subject: String,
    content: String,
}

#[cfg(test)]
mod tests;
