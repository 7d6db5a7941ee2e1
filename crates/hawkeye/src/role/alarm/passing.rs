//! Passing: lets the event queue's files go behind alarm, and sees when events no longer move.
//!
//! Why: alarm's commits are on the disk some moments after it has handled an event. The queue may forget the event only
//! then, or losing power would lose it; and deleting files waits for the disk, which no delivery may.
//! Invariants: the queue is told of no more than the disk holds.

use super::READER;
use crate::portal::Portal;
use crate::watch::health::{Health, Outage};
use anyhow::{Context, Result};
use events::EventQueue;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

const PAUSE: Duration = Duration::from_secs(1);
/// Events that wait longer than this are a trouble. A batch takes milliseconds.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Follower of alarm through the event queue.
pub struct Passing {
    portal: Portal,
    queue: Arc<EventQueue>,
    undeleted: Outage,
    unmoved: Outage,
    /// What the queue was told of.
    passed: u64,
    /// What alarm had handled at the last look, and since when.
    handled: u64,
    moved_at: Instant,
}

impl Passing {
    /// Follows what alarm notes in the portal's cursors.
    pub fn new(portal: Portal, queue: Arc<EventQueue>, health: &Health) -> Passing {
        Passing {
            portal,
            queue,
            undeleted: health.outage("handled events cannot be deleted"),
            unmoved: health.vital_outage("events do not move from the queue to alarm"),
            passed: 0,
            handled: 0,
            moved_at: Instant::now(),
        }
    }

    /// Runs for ever.
    pub async fn run(&mut self) -> Infallible {
        loop {
            sleep(PAUSE).await;
            self.step().await;
        }
    }

    /// Tells the queue how far the disk has come, and looks whether events move.
    pub async fn step(&mut self) {
        let safe = self.portal.cursors().safe();
        if safe > self.passed {
            let told = self.tell(safe).await;
            if told.is_ok() {
                self.passed = safe;
            }
            self.undeleted.note(told);
        }
        let waiting = self.queue.lag(READER).records;
        let handled = self.portal.cursors().handled();
        // The queue counts from what it was told of; what was handled behind that does not wait.
        if waiting == 0 || handled != self.handled || handled != self.passed {
            (self.handled, self.moved_at) = (handled, Instant::now());
            self.unmoved.works();
        } else if self.moved_at.elapsed() > STUCK_AFTER {
            self.unmoved.fails(format!("{waiting} wait"));
        }
    }

    async fn tell(&self, safe: u64) -> Result<()> {
        let queue = self.queue.clone();
        Ok(spawn_blocking(move || queue.consumed(READER, safe)).await.context("a thread broke off")??)
    }
}
