//! Inbox: what others push for an alarm into Redis (`alarm.redis_url`): messages of other tools, and, for an alarm that
//! runs alone, the events of judges.
//!
//! Why: the original pops an event or a message and forgets it when it ends; here nothing that was popped is lost.
//! How: a script moves the oldest entries of the queues, high priorities first, to a list of ours ([`TAKEN`]) and shows
//! them; when they are on our disk (events in the event queue, messages in the table of deliveries) they leave that
//! list. What a crash leaves in it is taken first. A list and not reading without popping, since an old alarm may
//! still pop from the same queues; a script, since one round trip moves a batch, on any Redis from 2.6 on.
//! A number beside each list ([`LEFT`]) counts what has left it, so an entry has a number of its own. How far we have
//! handled them is kept with what they became: in the transaction of the deliveries, and for events in a file that says
//! where in the event queue their batch begins ([`super::taken`]).
//! Invariants: each entry is handled once, over any kill or lost answer, and again only where power was lost or Redis
//! forgot; one that cannot be read, or is longer than [`ENTRY_MAX`], is counted and told, and keeps no other. Nothing
//! else waits for Redis.
//! Memory: a batch of [`BATCH`] entries.
//! Compat: docs/open-falcon/wire.md §9.

use super::counters::AlarmMetrics;
use super::plan::{self, Channels, Mail, Plan};
use super::taken::Taken;
use crate::config::RedisUrl;
use crate::plus_redis::Link;
use crate::portal::Portal;
use crate::portal::delivery::{self, Kind, NewDelivery};
use crate::watch::health::Outage;
use anyhow::{Context, Result, anyhow, bail};
use events::EventQueue;
use model::Event;
use redis::aio::MultiplexedConnection;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use supervisor::causes::line_of;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Queues of events, in the order in which they are taken.
const EVENTS: [&str; 7] = ["event:p0", "event:p1", "event:p2", "event:p3", "event:p4", "event:p5", "event:p6"];
/// Queues of messages, and their channels.
const MESSAGES: [(&str, Kind); 3] = [("/sms", Kind::Sms), ("/im", Kind::Im), ("/mail", Kind::Mail)];
/// Beginning of the names of our lists; the queue's follows, or `event`.
const TAKEN: &str = "hawkeye:taken:";
/// End of the name of the number beside each list of ours.
const LEFT: &str = ":left";
/// Beginning of the names under which the portal keeps how far the messages of a queue are handled.
const MARK: &str = "alarm.inbox.";
/// Entries of one turn, as many as alarm stores in one transaction.
const BATCH: usize = 64;
/// The longest entry: events and messages have some hundred bytes, mails some thousand.
const ENTRY_MAX: usize = 64 << 10;
/// Pause while all queues are empty; the original's senders look five times a second.
const PAUSE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);

/// Fills our list (`KEYS[1]`) up to a number of entries from the queues behind it and its number, and shows it, with
/// the number of those that were too long, and of those that have left before. That number begins at one that no other
/// beginning has had, so a Redis that forgot everything is not taken for the one of before.
const TAKE: &str = "local have, long = redis.call('LLEN', KEYS[1]), 0
local left = redis.call('GET', KEYS[2])
if not left then
  left = ARGV[3]
  redis.call('SET', KEYS[2], left)
end
for i = 3, #KEYS do
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
return {long, left, redis.call('LRANGE', KEYS[1], 0, -1)}";

/// Takes a number of the oldest entries out of our list, and counts them.
const LEAVE: &str = "redis.call('LTRIM', KEYS[1], 0, -1 - tonumber(ARGV[1]))
return redis.call('INCRBY', KEYS[2], ARGV[1])";

/// Entries of a list of ours.
struct Entries {
    /// Number of the first.
    left: u64,
    texts: Vec<String>,
}

/// Deliveries of other tools' messages, on their way to the table.
pub struct Foreign {
    pub deliveries: Vec<NewDelivery>,
    pub without_channel: u64,
    /// How far their queue is handled with them: a name and a number that are stored with the deliveries.
    pub mark: (String, u64),
    /// Told when they are on the disk.
    pub stored: oneshot::Sender<()>,
}

/// Reader of the queues.
pub struct Inbox {
    url: RedisUrl,
    link: Option<Link>,
    /// Where events go, and which have gone there; none where the judge is in this process.
    events: Option<(Arc<EventQueue>, Taken)>,
    /// How far messages are handled, by the name of their queue; read when it is needed first.
    marks: HashMap<&'static str, u64>,
    portal: Portal,
    messages: mpsc::Sender<Foreign>,
    channels: Channels,
    counters: AlarmMetrics,
    outage: Outage,
}

impl Inbox {
    /// A reader that has not connected yet. `events` is where events go, if they are wanted; `messages` takes what
    /// other tools have to say, which is stored in `portal`. Fails without a URL.
    pub fn new(
        url: &RedisUrl,
        events: Option<(Arc<EventQueue>, Taken)>,
        portal: Portal,
        messages: mpsc::Sender<Foreign>,
        channels: Channels,
        counters: AlarmMetrics,
        outage: Outage,
    ) -> Result<Inbox> {
        if url.is_none() {
            bail!("alarm.redis_url is empty");
        }
        let (link, marks) = (None, HashMap::new());
        Ok(Inbox { url: url.clone(), link, events, marks, portal, messages, channels, counters, outage })
    }

    /// Takes what comes, for ever.
    pub async fn run(mut self) -> Infallible {
        loop {
            let turn = self.turn().await;
            let pause = match &turn {
                Ok(true) => Duration::ZERO,
                Ok(false) => PAUSE,
                Err(_) => {
                    self.link = None;
                    RETRY
                }
            };
            let told = turn.map_err(|error| anyhow!(self.url.without_password(&line_of(&*error))));
            self.outage.note(told);
            sleep(pause).await;
        }
    }

    /// Takes a batch from each kind of queue; true when there may be more.
    async fn turn(&mut self) -> Result<bool> {
        let mut full = false;
        if let Some((queue, taken)) = self.events.clone() {
            full |= self.take_events(queue, taken).await?;
        }
        for (name, kind) in MESSAGES {
            full |= self.take_messages(name, kind).await?;
        }
        Ok(full)
    }

    async fn take_events(&mut self, queue: Arc<EventQueue>, mut taken: Taken) -> Result<bool> {
        let list = format!("{TAKEN}event");
        let Entries { left, texts } = self.take(&list, &EVENTS).await?;
        if texts.is_empty() {
            return Ok(false);
        }
        let mut events = Vec::with_capacity(texts.len());
        for entry in &texts {
            match Event::from_json(entry) {
                Ok(event) => events.push(event),
                Err(error) => self.refuse("an event", &error, entry),
            }
        }
        let kept = spawn_blocking(move || {
            let kept = taken.append(&queue, left, &events);
            (kept, taken)
        });
        let (kept, taken) = kept.await?;
        if let Some(events) = &mut self.events {
            events.1 = taken;
        }
        kept.context("cannot keep events of Redis in the event queue")?;
        self.leave(&list, texts.len()).await?;
        Ok(texts.len() == BATCH)
    }

    async fn take_messages(&mut self, name: &'static str, kind: Kind) -> Result<bool> {
        let list = format!("{TAKEN}{name}");
        let Entries { left, texts } = self.take(&list, &[name]).await?;
        if texts.is_empty() {
            return Ok(false);
        }
        let handled = self.handled(name).await?.saturating_sub(left);
        // A number that is none of these entries is of another Redis, or of one that forgot.
        let handled = usize::try_from(handled).ok().filter(|handled| *handled <= texts.len()).unwrap_or(0);
        let end = left + texts.len() as u64;
        if handled < texts.len() {
            self.store_messages(name, kind, &texts[handled..], end).await?;
            self.marks.insert(name, end);
        }
        self.leave(&list, texts.len()).await?;
        Ok(texts.len() == BATCH)
    }

    /// The number behind the last message of a queue that is handled.
    async fn handled(&mut self, name: &'static str) -> Result<u64> {
        if let Some(mark) = self.marks.get(name) {
            return Ok(*mark);
        }
        let mark = delivery::mark(&self.portal, &format!("{MARK}{name}")).await;
        // Tables that are damaged are told by alarm; without them messages may come twice.
        let mark = mark.map_or(0, |mark| mark.unwrap_or(0));
        self.marks.insert(name, mark);
        Ok(mark)
    }

    async fn store_messages(&self, name: &str, kind: Kind, texts: &[String], end: u64) -> Result<()> {
        let mut all = Plan::default();
        for entry in texts {
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
        let (deliveries, without_channel) = (all.deliveries, all.without_channel);
        let foreign = Foreign { deliveries, without_channel, mark: (format!("{MARK}{name}"), end), stored };
        self.messages.send(foreign).await.context("alarm has ended")?;
        is_stored.await.context("messages of Redis cannot be stored")?;
        self.portal.make_safe().await.context("messages of Redis are not on the disk")
    }

    fn refuse(&self, what: &str, error: &str, entry: &str) {
        self.counters.redis_refused.inc();
        let entry: String = entry.chars().take(200).collect();
        tracing::warn!(what, error, entry, "an entry of Redis cannot be read, and is left out");
    }

    /// The entries of our list, the oldest first, filled up from the queues.
    async fn take(&mut self, list: &str, queues: &[&str]) -> Result<Entries> {
        let mut connection = self.connect().await?;
        let mut take = redis::cmd("EVAL");
        take.arg(TAKE).arg(2 + queues.len()).arg(list).arg(format!("{list}{LEFT}")).arg(queues);
        take.arg(BATCH).arg(ENTRY_MAX).arg(beginning());
        let (long, left, entries): (u64, u64, Vec<Vec<u8>>) = take.query_async(&mut connection).await?;
        if long > 0 {
            self.counters.redis_refused.inc_by(long);
            tracing::warn!(list, long, "entries of Redis are longer than {ENTRY_MAX} bytes, and are left out");
        }
        let texts = entries.into_iter().rev().map(|entry| String::from_utf8_lossy(&entry).into_owned()).collect();
        Ok(Entries { left, texts })
    }

    /// Takes the oldest entries out of our list: they are on our disk.
    async fn leave(&mut self, list: &str, count: usize) -> Result<()> {
        let mut connection = self.connect().await?;
        let mut leave = redis::cmd("EVAL");
        leave.arg(LEAVE).arg(2).arg(list).arg(format!("{list}{LEFT}")).arg(count);
        let _: u64 = leave.query_async(&mut connection).await?;
        self.counters.redis_taken.inc_by(count as u64);
        Ok(())
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection> {
        if let Some(link) = &self.link {
            return Ok(link.connection());
        }
        Ok(self.link.insert(Link::connect(&self.url).await?).connection())
    }
}

/// A number at which the entries of a list may begin: microseconds, of which no list has as many entries.
fn beginning() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(0))
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
