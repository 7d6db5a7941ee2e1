//! Sender: takes the oldest batch to a transfer, and tries again until a transfer has taken the batch.
//!
//! How: [`Transfers`] says which address is asked first; the first that answers has the batch. When none does, the
//! sender waits longer each time (with jitter, so that a fleet does not come back in one second) and the buffer fills.
//! What has waited on the disk goes at its [`Pace`], and what comes in meanwhile goes behind that. A transfer that
//! answers with an error has read the batch and does not want it: it may be ill (a full disk), or the batch may be of
//! no use to it. After [`REFUSALS_MAX`] refusals an item of what comes behind is tried: if that is taken, the batch is
//! dropped and counted, because everything behind it would wait for ever; else all of it goes on waiting.
//! Compat: one connection per address, one outstanding call; the original gives up after one round over the addresses.
//! A batch whose answer was lost is sent again: at least once, and a transfer keeps one point per series and time.

use super::batch::Batch;
use super::buffer::{Buffer, Waiting};
use super::pace::Pace;
use super::queue::Queue;
use super::transfers::{Outcome, Transfers};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use wire::Scratch;
use wire::json::Reader;
use wire::transfer::read_answer;

/// The longest pause between two attempts: with an interval of a minute, a transfer that answers again is found before
/// the next round.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Refusals of a batch until it is asked whose fault they are: with the pauses about four minutes, enough for a restart
/// of the transfer, and for an operator to see the refusals in the log.
const REFUSALS_MAX: u32 = 10;
/// The time that the last batches may take when the agent stops.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Counts of items and failures since the start.
#[derive(Default)]
pub struct SenderCounters {
    pub items_sent: AtomicU64,
    /// Sent items that transfer called invalid.
    pub items_invalid: AtomicU64,
    /// Items of batches that were given up after [`REFUSALS_MAX`] refusals.
    pub items_refused: AtomicU64,
    pub failures: AtomicU64,
}

/// Pauses that a test does not want to wait for.
#[derive(Clone, Copy)]
pub struct SenderTiming {
    /// The pause after the first failure; each further failure doubles it.
    pub first_pause: Duration,
    /// The pause behind a batch that has waited on the disk.
    pub replay_pause: Duration,
}

/// Way of the buffer's batches to the transfers, one after the other.
pub struct Sender {
    queue: Arc<Queue>,
    buffer: Buffer,
    transfers: Transfers,
    counters: Arc<SenderCounters>,
    first_pause: Duration,
    pause: Duration,
    pace: Pace,
    /// Refusals of the oldest batch so far.
    refusals: u32,
    is_down: bool,
}

impl Sender {
    /// A sender of what is in `buffer`, which is filled through `queue`.
    pub fn new(
        queue: Arc<Queue>,
        buffer: Buffer,
        transfers: Transfers,
        timing: SenderTiming,
        counters: Arc<SenderCounters>,
    ) -> Sender {
        let SenderTiming { first_pause, replay_pause } = timing;
        let pace = Pace::new(replay_pause, queue.bytes_pushed());
        let pause = first_pause;
        Sender { queue, buffer, transfers, counters, first_pause, pause, pace, refusals: 0, is_down: false }
    }

    /// Sends until `stopping` turns true, then what is in memory, for [`FINISH_TIMEOUT`] at most; what is left is
    /// written.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut is_in_time = true;
        loop {
            let waiting = tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => break,
                waiting = self.buffer.oldest() => waiting,
            };
            // A call that is under way is let end: given up, it would be made again, and its points come twice.
            let pause = tokio::select! {
                biased;
                pause = self.attempt(&waiting) => pause,
                () = too_late(&mut stopping) => {
                    is_in_time = false;
                    break;
                }
            };
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stop| *stop) => break,
                () = self.buffer.during(tokio::time::sleep(pause)) => {}
            }
        }
        if is_in_time && tokio::time::timeout(FINISH_TIMEOUT, self.deliver_rest()).await.is_err() {
            tracing::warn!("stopping: no transfer took the rest within {FINISH_TIMEOUT:?}");
        }
        let lost = self.buffer.keep_rest().await;
        let items = self.buffer.items();
        if lost > 0 {
            tracing::warn!(items = lost, "stopped with items that no transfer has taken: they are lost");
        } else if items > 0 {
            tracing::info!(items, "stopped with items that no transfer has taken: the next start sends them");
        }
    }

    /// Sends what is in memory, and ends at the first failure: there is no time left for another attempt. What is on
    /// the disk waits there for the next start, and so does what is behind it.
    async fn deliver_rest(&mut self) {
        while let Some(waiting) = self.buffer.oldest_of_now().await {
            if waiting.is_from_disk() || !self.attempt(&waiting).await.is_zero() {
                return;
            }
        }
    }

    /// Tries to deliver a batch; answers the pause before the next attempt, none where the batch is out of the buffer
    /// and nothing is against the next.
    async fn attempt(&mut self, waiting: &Waiting) -> Duration {
        let began = Instant::now();
        match self.buffer.during(self.transfers.send(&waiting.batch.json)).await {
            Outcome::Taken(result) => {
                self.count_taken(&waiting.batch, &result);
                self.buffer.done(waiting).await;
                self.back_to_normal();
                let came = self.queue.bytes_pushed();
                match waiting.is_from_disk() {
                    true => self.pace.after(waiting.batch.json.len(), came, began.elapsed()),
                    false => Duration::ZERO,
                }
            }
            Outcome::Refused(text) => {
                self.failed(&text);
                self.refusals += 1;
                if self.refusals >= REFUSALS_MAX {
                    self.refusals = 0;
                    if self.takes_others(waiting).await {
                        self.give_up(waiting, &text).await;
                        return Duration::ZERO;
                    }
                }
                self.longer_pause()
            }
            Outcome::Unreachable(text) => {
                self.failed(&text);
                self.longer_pause()
            }
        }
    }

    /// Whether a transfer takes an item of what comes behind a batch; it comes again in its turn.
    async fn takes_others(&mut self, waiting: &Waiting) -> bool {
        let Some(behind) = self.buffer.behind(waiting).await else { return false };
        let Some(first) = first_item(&behind.json) else { return false };
        matches!(self.buffer.during(self.transfers.send(&first)).await, Outcome::Taken(_))
    }

    async fn give_up(&mut self, waiting: &Waiting, text: &str) {
        let items = waiting.batch.items;
        tracing::warn!(
            items,
            error = text,
            "dropped a batch that no transfer wants, while others are taken; see transfer's log for the reason"
        );
        self.counters.items_refused.fetch_add(items as u64, Ordering::Relaxed);
        self.buffer.done(waiting).await;
    }

    fn longer_pause(&mut self) -> Duration {
        let pause = with_jitter(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        pause
    }

    fn failed(&mut self, text: &str) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        if !self.is_down {
            tracing::warn!(error = text, "no transfer took the points: they are kept and sent later");
            self.is_down = true;
        }
    }

    fn back_to_normal(&mut self) {
        if self.is_down {
            tracing::info!(items = self.buffer.items(), "transfer takes points again; items still waiting follow");
            self.is_down = false;
        }
        self.refusals = 0;
        self.pause = self.first_pause;
    }

    fn count_taken(&self, batch: &Batch, result: &[u8]) {
        let counters = &self.counters;
        counters.items_sent.fetch_add(batch.items as u64, Ordering::Relaxed);
        // An unreadable answer counts nothing invalid: the batch was taken all the same.
        let invalid = read_answer(result, &mut Scratch::new()).map_or(0, |answer| answer.invalid) as u64;
        if invalid > 0 && counters.items_invalid.fetch_add(invalid, Ordering::Relaxed) == 0 {
            tracing::warn!(
                invalid,
                items = batch.items,
                "transfer refused items of a batch (said once, counted always)"
            );
        }
    }
}

/// Returns when the time for the last calls is over.
async fn too_late(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
    tokio::time::sleep(FINISH_TIMEOUT).await;
}

/// An array of the first item of one.
fn first_item(array: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(array);
    if !reader.array().ok()? {
        return None;
    }
    Some([b"[", reader.skip().ok()?, b"]"].concat())
}

/// A random pause from half of `pause` to all of it.
fn with_jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
