//! Hop: one place that points go on to, its buffer on the disk, and the task that empties it.
//!
//! How: the task reads what waits, sends it, and only then notes that it is consumed; what fails is sent again after a
//! pause that grows to [`PAUSE_MAX`]. Each second the buffer is synced, and the place to which it is consumed written.
//! Invariants: a hop that is away fills its own buffer and no other; its points leave in the order in which they came;
//! a point is sent at least once, and again by a crash between its sending and the note; while a hop takes nothing,
//! `/health` says so.
//! Memory: one read of the buffer, and what is made of it ([`super::link`]).

use super::link::Link;
use super::record::records;
use crate::clock;
use crate::watch::health::Reason;
use anyhow::Result;
use net::seldom::Seldom;
use spool::{Frames, Read, Spool};
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
/// What `/health` says of a hop.
const AWAY: &str = "a next hop takes no points, which wait in its buffer";
const UNKEPT: &str = "the buffer of a next hop cannot be written; senders are told so";

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
    wake: Notify,
    counts: Counts,
    /// Why nothing can be sent, and why nothing can be kept, each since when.
    failing: Trouble,
    unkept: Trouble,
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
    pub dropped: u64,
    pub waiting: u64,
    pub bytes: u64,
}

impl Figures {
    /// The sum of both.
    pub fn with(self, other: Figures) -> Figures {
        Figures {
            sent: self.sent + other.sent,
            refused: self.refused + other.refused,
            failures: self.failures + other.failures,
            dropped: self.dropped + other.dropped,
            waiting: self.waiting + other.waiting,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Hop {
    /// A hop with this buffer.
    pub fn new(kind: Kind, name: String, spool: Spool) -> Hop {
        let (wake, counts) = (Notify::new(), Counts::default());
        let (failing, unkept) = (Trouble::default(), Trouble::default());
        let (told_dropped, seldom) = (AtomicU64::new(0), Seldom::default());
        Hop { kind, name, spool, wake, counts, failing, unkept, told_dropped, seldom }
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

    /// Says in the log, now and then, that the buffer is full and what that has cost since the start.
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
            dropped: stats.dropped,
            waiting: stats.waiting,
            bytes: stats.bytes,
        }
    }

    /// What does not work now.
    pub fn troubles(&self) -> impl Iterator<Item = Reason> {
        let name = &self.name;
        let away = self.failing.now().map(|(why, since)| {
            let stats = self.spool.stats();
            let lost = match stats.dropped {
                0 => String::new(),
                dropped => format!(", {dropped} were lost, for the buffer is full"),
            };
            Reason { what: AWAY, why: format!("{name}: {why}; {} points wait{lost}", stats.waiting), since }
        });
        let unkept = self.unkept.now();
        let unkept = unkept.map(|(why, since)| Reason { what: UNKEPT, why: format!("{name}: {why}"), since });
        [away, unkept].into_iter().flatten()
    }

    /// Sends what waits until `stopping` turns true.
    pub async fn run(self: Arc<Self>, mut link: Link, stopping: watch::Receiver<bool>) -> Result<()> {
        let syncing = self.clone().keep(stopping.clone());
        let sending = self.send_all(&mut link, stopping);
        let ((), ()) = tokio::join!(syncing, sending);
        self.on_disk(|hop| hop.spool.keep_cursor().and_then(|()| hop.spool.sync())).await?;
        Ok(())
    }

    async fn send_all(self: &Arc<Self>, link: &mut Link, mut stopping: watch::Receiver<bool>) {
        let (mut failures, mut pause) = (0, PAUSE);
        loop {
            // Asked for before the look, so that what comes after it wakes.
            let woken = self.wake.notified();
            let step = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => return,
                step = self.send_next(link) => step,
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
    async fn send_next(self: &Arc<Self>, link: &mut Link) -> Result<bool, String> {
        let found = self.on_disk(|hop| {
            let mut payload = Vec::new();
            let read = hop.spool.read(hop.spool.cursor(), &mut payload)?;
            Ok(read.map(|read| (read, payload)))
        });
        let Some((read, payload)) = found.await.map_err(|error| format!("its buffer cannot be read: {error}"))? else {
            return Ok(false);
        };
        let mut sent = u64::from(read.records);
        match records(&payload, read.records) {
            Some(records) => {
                let refused = link.send(&records).await?.refused;
                sent -= refused.min(sent);
                self.counts.refused.fetch_add(refused, Relaxed);
            }
            // Written by another version, or none of ours: it would be in the way for ever.
            None => {
                self.counts.refused.fetch_add(sent, Relaxed);
                tracing::error!(hop = self.name, points = sent, "points in the buffer cannot be read, and are lost");
                sent = 0;
            }
        }
        self.counts.sent.fetch_add(sent, Relaxed);
        self.consumed(read).await.map_err(|error| format!("its buffer cannot be emptied: {error}"))?;
        Ok(true)
    }

    async fn consumed(self: &Arc<Self>, read: Read) -> io::Result<()> {
        self.on_disk(move |hop| hop.spool.consumed(read.next, read.records)).await
    }

    /// Has the disk keep, each second, what was appended and consumed.
    async fn keep(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut is_told = false;
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(SYNC_EVERY) => {}
            }
            let kept = self.on_disk(|hop| hop.spool.keep_cursor().and_then(|()| hop.spool.sync())).await;
            let fails = kept.is_err();
            if let Err(error) = kept
                && !is_told
            {
                tracing::error!(hop = self.name, %error, "the buffer cannot be synced; tried again until it can");
            }
            is_told = fails;
        }
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
