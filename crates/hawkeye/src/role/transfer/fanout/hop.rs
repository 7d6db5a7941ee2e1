//! Hop: one place that points go on to, its buffer on the disk, and the task that empties it.
//!
//! How: the task reads what waits, sends it, and only then notes that it is consumed; what fails is sent again after a
//! pause that grows to [`PAUSE_MAX`]. Each second the buffer is synced, and the place to which it is consumed written.
//! What is answered with an error [`REFUSALS_MAX`] times (once, if the answer is final) is sent in parts, and those
//! that are refused alone are put aside ([`super::aside`]), if the hop has taken others meanwhile: one that refuses
//! everything is out of order.
//! Invariants: a hop that is away fills its own buffer and no other; its points leave in the order in which they came;
//! a point is sent at least once, and again by a crash between its sending and the note, or where a part of its batch
//! was refused; while a hop takes nothing, or has refused points, `/health` says so.
//! Memory: two reads of the buffer, and what is made of them ([`super::link`]).

use super::aside::Aside;
use super::link::{Fault, Link};
use super::record::{Record, records};
use crate::clock;
use crate::watch::health::Reason;
use anyhow::{Context, Result};
use net::seldom::Seldom;
use spool::{Frames, Position, Read, Spool};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Pauses after an attempt that failed: the first, and the longest. A hop that is back is found within seconds.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time between two syncs of the buffer.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Failures in a row after which a hop is said to take nothing: a connection that was closed while it was idle is no
/// trouble.
const FAILURES_TOLD: u32 = 2;
/// Answers with an error to the same points after which they are looked at in parts.
const REFUSALS_MAX: u32 = 5;
/// Calls by which the refused parts of a batch are looked for; what is then left is put aside as it is. A dozen points
/// among thousands are found by so many.
const SPLITS_MAX: u32 = 256;
/// Calls that may be refused without one that is taken: then the hop seems to refuse everything.
const SPLITS_REFUSED_MAX: u32 = 16;
/// What `/health` says of a hop.
const AWAY: &str = "a next hop takes no points, which wait in its buffer";
const UNKEPT: &str = "the buffer of a next hop cannot be written; senders are told so";
const UNSYNCED: &str = "the buffer of a next hop cannot be synced, or how far it is sent not written";

/// Kind of a hop, under the original's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Graph,
    Judge,
    Transfer,
    Tsdb,
    Influxdb,
    P8sRelay,
}

/// A next hop.
pub struct Hop {
    pub kind: Kind,
    /// Text by which figures and messages name it, `graph graph-00 10.0.0.1:6070`.
    pub name: String,
    spool: Spool,
    aside: Aside,
    wake: Notify,
    counts: Counts,
    /// Why nothing can be sent, why nothing can be kept, and why nothing can be made durable, each since when.
    failing: Trouble,
    unkept: Trouble,
    unsynced: Trouble,
    /// Points that were dropped when the log was told last.
    told_dropped: AtomicU64,
    seldom: Seldom,
}

/// Something that does not work, with its reason and its beginning, until it works again.
#[derive(Default)]
struct Trouble(Mutex<Option<(String, i64)>>);

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    refused: AtomicU64,
    failures: AtomicU64,
}

/// Figures of a hop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub sent: u64,
    /// Points that the other side refused for good, and those of damaged places.
    pub refused: u64,
    pub failures: u64,
    /// Points that a full buffer, or a full folder of refused ones, had no room for.
    pub dropped: u64,
    /// Points that were gone, or damaged, before they were sent.
    pub missing: u64,
    pub waiting: u64,
    pub bytes: u64,
    /// Refused points that are kept in a folder of their own.
    pub aside: u64,
}

impl Figures {
    /// The sum of both.
    pub fn with(self, other: Figures) -> Figures {
        Figures {
            sent: self.sent + other.sent,
            refused: self.refused + other.refused,
            failures: self.failures + other.failures,
            dropped: self.dropped + other.dropped,
            missing: self.missing + other.missing,
            waiting: self.waiting + other.waiting,
            bytes: self.bytes + other.bytes,
            aside: self.aside + other.aside,
        }
    }
}

impl Hop {
    /// A hop with this buffer, and this place for what it refuses.
    pub fn new(kind: Kind, name: String, spool: Spool, aside: Aside) -> Hop {
        let stats = spool.stats();
        if stats.torn_bytes > 0 {
            tracing::warn!(
                hop = name,
                bytes = stats.torn_bytes,
                "the end of a buffer was not whole, and was cut off: a batch that was not answered, or points of the \
                 last second before a loss of power; what more is lost is told beside this"
            );
        }
        let (wake, counts) = (Notify::new(), Counts::default());
        let (failing, unkept, unsynced) = (Trouble::default(), Trouble::default(), Trouble::default());
        let (told_dropped, seldom) = (AtomicU64::new(stats.dropped), Seldom::default());
        Hop { kind, name, spool, aside, wake, counts, failing, unkept, unsynced, told_dropped, seldom }
    }

    /// Keeps points for the hop.
    pub fn append(&self, frames: &mut Frames) -> io::Result<()> {
        match self.spool.append(frames) {
            Ok(()) => self.unkept.ends(UNKEPT, &self.name),
            Err(error) => {
                self.unkept.is(UNKEPT, &self.name, error.to_string());
                return Err(error);
            }
        }
        self.wake.notify_one();
        self.tell_dropped();
        Ok(())
    }

    /// Says in the log, now and then, that the buffer is full and what that has cost since it was made.
    fn tell_dropped(&self) {
        let dropped = self.spool.stats().dropped;
        if dropped > self.told_dropped.load(Relaxed) && self.seldom.may_say() {
            self.told_dropped.store(dropped, Relaxed);
            tracing::error!(
                hop = self.name,
                dropped,
                "a full buffer lost its oldest points: raise transfer.buffer_max"
            );
        }
    }

    /// Figures of now.
    pub fn figures(&self) -> Figures {
        let stats = self.spool.stats();
        let Counts { sent, refused, failures } = &self.counts;
        Figures {
            sent: sent.load(Relaxed),
            refused: refused.load(Relaxed) + stats.damaged,
            failures: failures.load(Relaxed),
            dropped: stats.dropped + self.aside.dropped(),
            missing: stats.missing,
            waiting: stats.waiting,
            bytes: stats.bytes,
            aside: self.aside.points(),
        }
    }

    /// What does not work now.
    pub fn troubles(&self) -> impl Iterator<Item = Reason> {
        let name = &self.name;
        let away = self.failing.now().map(|(why, since)| {
            let stats = self.spool.stats();
            let lost = match stats.dropped {
                0 => String::new(),
                dropped => format!(", {dropped} were lost since the buffer was made, for it was full"),
            };
            Reason { what: AWAY, why: format!("{name}: {why}; {} points wait{lost}", stats.waiting), since }
        });
        let unkept = self.unkept.now();
        let unkept = unkept.map(|(why, since)| Reason { what: UNKEPT, why: format!("{name}: {why}"), since });
        let unsynced = self.unsynced.now();
        let unsynced = unsynced.map(|(why, since)| Reason { what: UNSYNCED, why: format!("{name}: {why}"), since });
        [away, unkept, unsynced, self.aside.trouble(name)].into_iter().flatten()
    }

    /// What was found lost of the buffer and not taken yet, each with its file.
    pub fn take_lost(&self) -> Vec<String> {
        self.spool.take_found()
    }

    /// Sends what waits until `stopping` turns true.
    pub async fn run(self: Arc<Self>, mut link: Link, stopping: watch::Receiver<bool>) -> Result<()> {
        let syncing = self.clone().keep(stopping.clone());
        let sending = self.send_all(&mut link, stopping);
        let ((), ()) = tokio::join!(syncing, sending);
        self.on_disk(Hop::make_durable).await.with_context(|| format!("cannot keep the buffer of {}", self.name))
    }

    async fn send_all(self: &Arc<Self>, link: &mut Link, mut stopping: watch::Receiver<bool>) {
        let (mut failures, mut pause, mut refusals) = (0, PAUSE, Refusals::default());
        loop {
            // Asked for before the look, so that what comes after it wakes.
            let woken = self.wake.notified();
            let step = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => return,
                step = self.send_next(link, &mut refusals) => step,
            };
            match step {
                Ok(true) => {
                    (failures, pause) = (0, PAUSE);
                    self.failing.ends(AWAY, &self.name);
                }
                Ok(false) => tokio::select! {
                    _ = stopping.wait_for(|stop| *stop) => return,
                    () = woken => {}
                },
                Err(why) => {
                    failures += 1;
                    self.counts.failures.fetch_add(1, Relaxed);
                    if failures >= FAILURES_TOLD {
                        self.failing.is(AWAY, &self.name, why);
                    }
                    tokio::select! {
                        _ = stopping.wait_for(|stop| *stop) => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (2 * pause).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Sends what a read of the buffer finds; false when nothing waits.
    async fn send_next(self: &Arc<Self>, link: &mut Link, refusals: &mut Refusals) -> Result<bool, String> {
        let at = self.spool.cursor();
        let Some((read, payload)) = self.read(at).await? else { return Ok(false) };
        // Damage, which the buffer tells.
        if read.records == 0 {
            return self.consumed(read).await.map(|()| true);
        }
        // Written by another version, or none of ours: it would be in the way for ever.
        let Some(records) = records(&payload, read.records) else {
            let points = u64::from(read.records);
            self.counts.refused.fetch_add(points, Relaxed);
            tracing::error!(hop = self.name, points, "points in the buffer cannot be read, and are lost");
            return self.consumed(read).await.map(|()| true);
        };
        match link.send(&records).await {
            Ok(sent) => self.count(records.len(), sent.refused),
            Err(Fault::Refused { is_final, why }) if refusals.are_many(at, is_final) => {
                self.send_parts(link, &records, read, why).await?;
            }
            Err(fault) => return Err(fault.why()),
        }
        self.consumed(read).await?;
        Ok(true)
    }

    /// What waits behind `from`.
    async fn read(self: &Arc<Self>, from: Position) -> Result<Option<(Read, Vec<u8>)>, String> {
        let found = self.on_disk(move |hop| {
            let mut payload = Vec::new();
            let read = hop.spool.read(from, &mut payload)?;
            Ok(read.map(|read| (read, payload)))
        });
        found.await.map_err(|error| format!("its buffer cannot be read: {error}"))
    }

    /// Counts points that the hop has, of which it calls some wrong.
    fn count(&self, sent: usize, refused: u64) {
        self.counts.sent.fetch_add((sent as u64).saturating_sub(refused), Relaxed);
        self.counts.refused.fetch_add(refused, Relaxed);
        if refused > 0 && self.seldom.may_say() {
            tracing::warn!(
                hop = self.name,
                points = refused,
                "a next hop calls points invalid, which it does not name"
            );
        }
    }

    /// Sends points that were refused together in parts, and puts aside what is refused by itself. An error if it looks
    /// as if the hop refused anything, whatever it says: then all of them stay.
    async fn send_parts(
        self: &Arc<Self>,
        link: &mut Link,
        records: &[Record<'_>],
        read: Read,
        mut why: String,
    ) -> Result<(), String> {
        let (mut parts, mut refused) = (vec![records], Vec::new());
        let (mut calls, mut taken) = (0, false);
        while let Some(part) = parts.pop() {
            let is_enough = calls >= if taken { SPLITS_MAX } else { SPLITS_REFUSED_MAX };
            // The whole has been refused just now.
            if is_enough || (part.len() == 1 && part.len() == records.len()) {
                refused.push(part);
                continue;
            }
            if part.len() < records.len() {
                calls += 1;
                match link.send(part).await {
                    Ok(sent) => {
                        // What was refused before may have been because everything was.
                        if !std::mem::replace(&mut taken, true) {
                            parts.append(&mut refused);
                        }
                        self.count(part.len(), sent.refused);
                        continue;
                    }
                    Err(Fault::Away(why)) => return Err(why),
                    Err(Fault::Refused { why: told, .. }) => why = told,
                }
            }
            match part.len() {
                1 => refused.push(part),
                length => {
                    let (first, second) = part.split_at(length / 2);
                    parts.extend([second, first]);
                }
            }
        }
        if !taken && !self.takes_what_follows(link, read).await? {
            return Err(why);
        }
        self.put_aside(refused.concat(), why).await
    }

    /// Whether the hop takes the points behind a read; they are sent again in their turn.
    async fn takes_what_follows(self: &Arc<Self>, link: &mut Link, read: Read) -> Result<bool, String> {
        let Some((next, payload)) = self.read(read.next).await? else { return Ok(false) };
        let Some(records) = records(&payload, next.records) else { return Ok(false) };
        // One call is enough to tell.
        Ok(link.send(&records[..records.len().min(1)]).await.is_ok())
    }

    async fn put_aside(self: &Arc<Self>, records: Vec<Record<'_>>, why: String) -> Result<(), String> {
        let Some(first) = records.first() else { return Ok(()) };
        let (points, key) = (records.len() as u64, first.key);
        self.counts.refused.fetch_add(points, Relaxed);
        tracing::error!(
            hop = self.name,
            points,
            why,
            first = format!("{}/{}", key.endpoint, key.counter()),
            "points that a next hop refuses are put aside"
        );
        let mut frames = Frames::default();
        for record in &records {
            frames.push(|out| record.write(out));
        }
        let told = why.clone();
        let put = self.on_disk(move |hop| hop.aside.put(frames, &told)).await;
        put.map_err(|error| format!("{why}; and what it refuses cannot be put aside: {error}"))
    }

    async fn consumed(self: &Arc<Self>, read: Read) -> Result<(), String> {
        let consumed = self.on_disk(move |hop| hop.spool.consumed(read.next, read.records)).await;
        consumed.map_err(|error| format!("its buffer cannot be emptied: {error}"))
    }

    /// Has the disk keep, each second, what was appended and consumed.
    async fn keep(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(SYNC_EVERY) => {}
            }
            let kept = self.on_disk(|hop| {
                hop.aside.look();
                hop.make_durable()
            });
            match kept.await {
                Ok(()) => self.unsynced.ends(UNSYNCED, &self.name),
                Err(error) => self.unsynced.is(UNSYNCED, &self.name, error.to_string()),
            }
        }
    }

    /// Has the disk keep what was appended, and then how far it is sent: a start misses what was synced and is gone.
    fn make_durable(&self) -> io::Result<()> {
        let synced = self.spool.sync();
        // A place that is not written would have more sent again.
        self.spool.keep_cursor().and(synced)
    }

    /// Runs `work` on a thread that may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Hop) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let hop = self.clone();
        tokio::task::spawn_blocking(move || work(&hop)).await.map_err(io::Error::other)?
    }
}

/// How often the points at one place of the buffer were refused in a row.
#[derive(Default)]
struct Refusals {
    at: Option<Position>,
    times: u32,
}

impl Refusals {
    /// Counts a refusal of the points at `at`; true when they are to be looked at in parts.
    fn are_many(&mut self, at: Position, is_final: bool) -> bool {
        if self.at != Some(at) {
            *self = Refusals { at: Some(at), times: 0 };
        }
        self.times += 1;
        let are_many = is_final || self.times >= REFUSALS_MAX;
        if are_many {
            // Where that has no result, as many attempts come before the next.
            self.times = 0;
        }
        are_many
    }
}

impl Trouble {
    fn lock(&self) -> MutexGuard<'_, Option<(String, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Option<(String, i64)> {
        self.lock().clone()
    }

    fn is(&self, what: &str, hop: &str, why: String) {
        let mut state = self.lock();
        let since = match state.take() {
            Some((_, since)) => since,
            None => {
                tracing::error!(hop, why, "{what}");
                clock::now()
            }
        };
        *state = Some((why, since));
    }

    fn ends(&self, what: &str, hop: &str) {
        if self.lock().take().is_some() {
            tracing::info!(hop, "over: {what}");
        }
    }
}
