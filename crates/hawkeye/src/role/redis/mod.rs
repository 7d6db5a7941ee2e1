//! Redis: pushes every event to the queues of an old Open-Falcon, `LPUSH event:p<priority> <the original's JSON>`.
//!
//! Why: an old alarm, and the consumers that sites have written, take events from there. The original forgets an event
//! that Redis does not take; here it waits in the event queue.
//! How: a reader of the event queue of its own, beside alarm, with its cursor in a file ([`cursor`]). A batch is one
//! `LPUSH` per priority, so Redis takes the events of a queue wholly and in order, or not at all; the cursor moves when
//! it has answered for all of them. What closes silently (`judge.semantics = "open-falcon"`) is no event, and is not
//! pushed.
//! Invariants: order within a queue is kept; nothing is lost while the backlog stays below [`LAG_BYTES_MAX`], past
//! which the oldest events are dropped, counted and told; an event is pushed again only when the answer to it, or the
//! place of the cursor, was lost in a failure. Alarm and the judge never wait for Redis.
//! Memory: one batch of [`BATCH`] events, and the client's buffers.
//! Compat: docs/open-falcon/wire.md §9; differences in docs/compat.md.

mod cursor;

use crate::config::RedisUrl;
use crate::plus_redis::Link;
use crate::watch::health::Outage;
use anyhow::{Context, Result, bail};
use cursor::CursorFile;
use events::{Consumer, Entry, EventQueue, Record};
use metrics::Metrics;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use supervisor::causes::line_of;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Name of the pusher among the readers of the event queue.
const READER: &str = "redis";
/// Records of one turn. A turn costs a round trip per priority and an fsync of the cursor; events have some 500 bytes,
/// so 256 of them are one packet or three.
const BATCH: usize = 256;
/// The most bytes of the event queue that are kept for Redis alone: about 850,000 events. Half of what the queue may
/// hold.
const LAG_BYTES_MAX: u64 = 512 << 20;
/// Longest time that a stop pushes what is still in the queue.
const DRAIN: Duration = Duration::from_secs(2);

/// Pauses between attempts.
#[derive(Clone, Copy)]
struct Pauses {
    /// The first pause after a failure; each further one is twice as long.
    pause: Duration,
    pause_max: Duration,
    /// Pause after which a connection without events is asked whether it still is one.
    idle: Duration,
}

const PAUSES: Pauses =
    Pauses { pause: Duration::from_secs(1), pause_max: Duration::from_secs(30), idle: Duration::from_secs(15) };

#[derive(Default)]
struct Shared {
    connected: AtomicBool,
    pushed: AtomicU64,
    errors: AtomicU64,
}

/// Opens what pushes events to Redis, and shows its figures. The reader is registered, and its place in the queue noted
/// on the disk: no event that comes later is missed. `outage` says while Redis takes none.
pub fn open(
    queue: &Arc<EventQueue>,
    url: &RedisUrl,
    data_dir: &Path,
    metrics: &Metrics,
    outage: Outage,
) -> Result<Pusher> {
    let pusher = Pusher::open(queue.clone(), url, data_dir, PAUSES, outage)?;
    pusher.show_on(metrics);
    Ok(pusher)
}

/// Forgets the place in the queue, when no Redis is configured: whoever configures one later does not want the events
/// from before.
pub fn off(data_dir: &Path) -> Result<()> {
    let file = CursorFile::new(data_dir);
    file.remove().with_context(|| format!("cannot remove {}", file.path().display()))
}

fn consumer(queue: &Arc<EventQueue>, handled: u64) -> Consumer {
    queue.reader(READER, handled, Some(LAG_BYTES_MAX.min(queue.bytes_max() / 2)))
}

/// Pushes the events of the queue to the lists of an old Open-Falcon's Redis.
pub struct Pusher {
    queue: Arc<EventQueue>,
    /// None only while a blocking thread reads with it.
    consumer: Option<Consumer>,
    url: RedisUrl,
    link: Option<Link>,
    cursor: CursorFile,
    /// Cursor in the file, as far as it could be written.
    handled: u64,
    batch: Batch,
    shared: Arc<Shared>,
    pauses: Pauses,
    /// Attempts that failed since the last that did not.
    failed: u32,
    /// Advice that was last given in the log: what is to be done against the fault.
    told: Option<&'static str>,
    unsaved_told: bool,
    outage: Outage,
}

/// Events that were read and are not pushed yet.
#[derive(Default)]
struct Batch {
    /// Events of each priority, the oldest first.
    groups: VecDeque<Group>,
    /// Sequence number of the last record that was read.
    cursor: u64,
    /// True when there may be more records.
    full: bool,
    /// True when Redis has some of the groups.
    begun: bool,
}

struct Group {
    priority: i32,
    events: Vec<String>,
}

enum PushError {
    Redis(RedisError),
    /// Failure of the event queue's files.
    Queue(anyhow::Error),
}

impl From<RedisError> for PushError {
    fn from(error: RedisError) -> PushError {
        PushError::Redis(error)
    }
}

impl Batch {
    fn of(records: Vec<Record>, cursor: u64) -> Batch {
        let full = records.len() == BATCH;
        let mut groups: VecDeque<Group> = VecDeque::new();
        for queued in records {
            let Entry::Event(event) = queued.entry else { continue };
            let (priority, json) = (event.priority(), event.to_json());
            match groups.iter_mut().find(|group| group.priority == priority) {
                Some(group) => group.events.push(json),
                None => groups.push_back(Group { priority, events: vec![json] }),
            }
        }
        Batch { groups, cursor, full, begun: false }
    }
}

impl Pusher {
    fn open(queue: Arc<EventQueue>, url: &RedisUrl, data_dir: &Path, pauses: Pauses, outage: Outage) -> Result<Pusher> {
        if url.is_none() {
            bail!("judge.redis_url is empty");
        }
        let cursor = CursorFile::new(data_dir);
        let handled = match cursor.load()? {
            Some(handled) => handled,
            // What an old server has told its alarm long ago is not told to another one now.
            None => {
                let end = queue.end_when_opened();
                cursor.save(end).with_context(|| format!("cannot write {}", cursor.path().display()))?;
                end
            }
        };
        let consumer = Some(consumer(&queue, handled));
        let batch = Batch { cursor: handled, ..Batch::default() };
        Ok(Pusher {
            queue,
            consumer,
            url: url.clone(),
            link: None,
            cursor,
            handled,
            batch,
            shared: Arc::default(),
            pauses,
            failed: 0,
            told: None,
            unsaved_told: false,
            outage,
        })
    }

    fn show_on(&self, metrics: &Metrics) {
        let (shared, queue) = (self.shared.clone(), self.queue.clone());
        metrics.source(move |figures| {
            let connected = f64::from(u8::from(shared.connected.load(Relaxed)));
            let lag = queue.lag(READER);
            figures.gauge("redis_connected", "1 while Redis takes events", connected);
            figures.gauge("redis_lag_events", "Events that wait for Redis", lag.records as f64);
            figures.gauge("redis_lag_bytes", "Size of the event queue's files that wait for Redis", lag.bytes as f64);
            let (pushed, errors) = (shared.pushed.load(Relaxed), shared.errors.load(Relaxed));
            figures.counter("redis_events_pushed", "Events that Redis has taken", pushed);
            figures.counter("redis_errors", "Attempts that Redis refused or did not answer", errors);
            let help = "Events that Redis did not get because too many waited";
            figures.counter("redis_dropped", help, lag.dropped);
        });
    }

    /// Pushes until `stopping`, and then what is left, for two seconds.
    pub async fn run(mut self, stopping: watch::Receiver<bool>) -> Result<()> {
        let mut stop = stopping.clone();
        let too_long = async {
            // An error means that nobody is left to say stop, which is a stop too.
            let _ = stop.wait_for(|stop| *stop).await;
            sleep(DRAIN).await;
        };
        tokio::select! {
            () = self.keep(stopping) => {}
            () = too_long => {}
        }
        let waiting = self.queue.lag(READER).records;
        if waiting > 0 {
            tracing::info!(waiting, at = self.url.place(), "events wait for Redis; the next start pushes them");
        }
        Ok(())
    }

    async fn keep(&mut self, mut stopping: watch::Receiver<bool>) {
        loop {
            let stop = *stopping.borrow() || stopping.has_changed().is_err();
            let (pause, good) = match self.step().await {
                Ok(true) => continue,
                Ok(false) => (self.pauses.idle, true),
                Err(fault) => (self.note_failure(&fault), false),
            };
            // A batch of which Redis has a part is pushed whole, or the next start pushes that part again.
            if stop && (good || !self.batch.begun) {
                return;
            }
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop), if !stop => {}
                () = self.queue.appended(READER), if good => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Pushes up to a batch; true when there may be more.
    async fn step(&mut self) -> Result<bool, PushError> {
        let mut connection = self.connect().await?;
        if self.batch.groups.is_empty() && self.batch.cursor == self.handled {
            self.read().await.map_err(PushError::Queue)?;
        }
        let new = self.batch.cursor != self.handled;
        while let Some(group) = self.batch.groups.front() {
            let mut push = redis::cmd("LPUSH");
            push.arg(format!("event:p{}", group.priority)).arg(&group.events);
            let _length: i64 = push.query_async(&mut connection).await?;
            self.shared.pushed.fetch_add(group.events.len() as u64, Relaxed);
            self.batch.groups.pop_front();
            self.batch.begun = true;
        }
        if new {
            self.note_handled().await.map_err(PushError::Queue)?;
        } else {
            let _pong: String = redis::cmd("PING").query_async(&mut connection).await?;
        }
        self.note_success();
        Ok(new && self.batch.full)
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, RedisError> {
        if let Some(link) = &self.link {
            return Ok(link.connection());
        }
        Ok(self.link.insert(Link::connect(&self.url).await?).connection())
    }

    async fn read(&mut self) -> Result<()> {
        // Were a read to panic, its consumer is gone; a new one begins where the cursor stands.
        let mut consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => consumer(&self.queue, self.handled),
        };
        let (consumer, batch, result) = spawn_blocking(move || {
            let mut records = Vec::new();
            let result = consumer.read(BATCH, &mut records);
            let batch = Batch::of(records, consumer.cursor());
            (consumer, batch, result)
        })
        .await?;
        let consumer = self.consumer.insert(consumer);
        // Also after an error: what was read before it is past the consumer's cursor.
        self.batch = batch;
        let (damaged, _) = consumer.take_trouble();
        for damage in damaged {
            tracing::error!(file = %damage.file.display(), bytes = ?damage.bytes, "skipped a damaged part of the event queue");
        }
        result.context("cannot read the event queue")
    }

    /// A cursor that cannot be saved is no reason to push nothing: the next start then pushes some events again.
    async fn note_handled(&mut self) -> Result<()> {
        self.handled = self.batch.cursor;
        let (handled, cursor, queue) = (self.handled, self.cursor.clone(), self.queue.clone());
        let (saved, deleted) = spawn_blocking(move || (cursor.save(handled), queue.consumed(READER, handled))).await?;
        if let Some(error) = saved.as_ref().err().filter(|_| !self.unsaved_told) {
            tracing::warn!(
                %error,
                file = %self.cursor.path().display(),
                "cannot save how far events are pushed; a restart pushes some again"
            );
        }
        self.unsaved_told = saved.is_err();
        deleted.context("cannot delete pushed events")
    }

    fn note_success(&mut self) {
        self.shared.connected.store(true, Relaxed);
        self.failed = 0;
        self.outage.works();
        if self.told.take().is_some() {
            tracing::info!(at = self.url.place(), "Redis takes events again; what waited is pushed");
        }
    }

    /// Notes a failure, and answers how long to wait. A fault is told when it begins, or when what is to be done
    /// against it changes.
    fn note_failure(&mut self, fault: &PushError) -> Duration {
        self.link = None;
        self.shared.connected.store(false, Relaxed);
        self.shared.errors.fetch_add(1, Relaxed);
        let (error, fix) = match fault {
            PushError::Redis(error) => (self.url.without_password(&error.to_string()), fix(error)),
            PushError::Queue(error) => (line_of(&**error), "see why data_dir cannot be read and written"),
        };
        self.outage.fails(format!("{error} ({fix})"));
        if self.told.replace(fix) != Some(fix) {
            let at = self.url.place();
            tracing::error!(
                at,
                error,
                fix,
                "cannot push events to Redis; they wait, and are pushed when it takes them"
            );
        }
        let pause = self.pauses.pause.saturating_mul(1 << self.failed.min(16)).min(self.pauses.pause_max);
        self.failed += 1;
        // Servers that lost the same Redis do not come back in the same instant.
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// Advice for the operator: what to do against an error.
fn fix(error: &RedisError) -> &'static str {
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            "correct the password in judge.redis_url"
        }
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => "point judge.redis_url at the primary, not at a replica",
        (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => "wait until Redis has loaded its data",
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => "allow that user LPUSH on event:p* and PING",
        (ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::ClusterDown), _) => {
            "point judge.redis_url at a Redis that is no cluster: the original's alarm knows none"
        }
        (_, Some("OOM")) => "start the alarm that takes the events, or give Redis more maxmemory",
        (_, Some("MISCONF")) => "see why Redis cannot save its data to the disk",
        (_, Some("WRONGTYPE")) => "delete or rename the keys event:p* there that are no lists",
        (ErrorKind::Server(_) | ErrorKind::Extension, _) => "see what Redis says of it",
        _ => "start Redis, or correct judge.redis_url",
    }
}

#[cfg(test)]
mod tests;
