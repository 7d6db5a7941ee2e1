//! Sender: takes the oldest batch to a transfer, and tries again until a transfer has taken the batch.
//!
//! How: the addresses are tried in random order, the first that answers has the batch. When none does, the sender waits
//! longer each time (with jitter, so that a fleet does not come back in one second) and the queue fills. A transfer
//! that answers with an error has read the batch and does not want it: it may be ill (a full disk), so the batch is
//! tried [`REFUSALS_MAX`] times; then it is dropped and counted, because everything behind it would wait for ever.
//! Compat: one connection per address, one outstanding call; the original gives up after one round over the addresses.
//! A batch whose answer was lost is sent again: at least once, and a transfer keeps one point per series and time.

use super::batch::Batch;
use super::client::{CallError, Client};
use super::queue::Queue;
use net::tls::client::Trust;
use rand::seq::SliceRandom;
use settings::Secret;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use wire::Scratch;
use wire::transfer::read_answer;

/// The longest pause between two attempts: with an interval of a minute, a transfer that answers again is found before
/// the next round.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Refusals of a batch until it is dropped: with the pauses about four minutes, enough for a restart of the transfer,
/// and for an operator to see the refusals in the log.
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

/// Way of the queue's batches to the transfers, one after the other.
pub struct Sender {
    queue: Arc<Queue>,
    clients: Vec<Client>,
    counters: Arc<SenderCounters>,
    first_pause: Duration,
    pause: Duration,
    /// Refusals of the oldest batch so far.
    refusals: u32,
    is_down: bool,
}

enum Outcome {
    Taken,
    /// A refusal by at least one transfer, while none took the batch.
    Refused(String),
    Unreachable(String),
}

impl Sender {
    /// Makes a sender; `first_pause` is the pause after the first failure, and each further failure doubles the pause.
    pub fn new(
        queue: Arc<Queue>,
        addresses: &[String],
        connect_timeout: Duration,
        token: &Secret,
        trust: &Option<Trust>,
        first_pause: Duration,
        counters: Arc<SenderCounters>,
    ) -> Sender {
        let client = |address: &String| Client::new(address, connect_timeout).with_token(token).with_trust(trust);
        let clients = addresses.iter().map(client).collect();
        Sender { queue, clients, counters, first_pause, pause: first_pause, refusals: 0, is_down: false }
    }

    /// Sends until `shutdown` turns true, then the rest of the queue, for [`FINISH_TIMEOUT`] at most.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let stopped = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => true,
            () = self.deliver() => false,
        };
        debug_assert!(stopped, "delivering never ends by itself");
        if tokio::time::timeout(FINISH_TIMEOUT, self.deliver_rest()).await.is_err() {
            tracing::warn!("stopping: no transfer took the rest of the queue within {FINISH_TIMEOUT:?}");
        }
        let left = self.queue.size();
        if left.items > 0 {
            tracing::warn!(items = left.items, "stopped with items that no transfer has taken: they are lost");
        }
    }

    async fn deliver(&mut self) {
        loop {
            let (id, batch) = self.queue.oldest().await;
            if !self.attempt(id, &batch).await {
                tokio::time::sleep(with_jitter(self.pause)).await;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// Sends the rest of the queue, and ends at the first failure: there is no time left for another attempt.
    async fn deliver_rest(&mut self) {
        while let Some((id, batch)) = self.queue.try_oldest() {
            if !self.attempt(id, &batch).await {
                return;
            }
        }
    }

    /// Tries to deliver a batch; true when the batch is out of the queue.
    async fn attempt(&mut self, id: u64, batch: &Batch) -> bool {
        match self.send(batch).await {
            Outcome::Taken => {
                self.queue.remove(id, batch.items);
                self.back_to_normal();
                true
            }
            Outcome::Refused(text) => {
                self.failed(&text);
                self.refusals += 1;
                if self.refusals < REFUSALS_MAX {
                    return false;
                }
                tracing::warn!(
                    items = batch.items,
                    error = text,
                    "dropped a batch that no transfer wants; see transfer's log for the reason"
                );
                self.counters.items_refused.fetch_add(batch.items as u64, Ordering::Relaxed);
                self.queue.remove(id, batch.items);
                self.refusals = 0;
                true
            }
            Outcome::Unreachable(text) => {
                self.failed(&text);
                false
            }
        }
    }

    async fn send(&mut self, batch: &Batch) -> Outcome {
        self.clients.shuffle(&mut rand::rng());
        let (mut refused, mut texts) = (false, String::new());
        for client in &mut self.clients {
            match client.call("Transfer.Update", &batch.json).await {
                Ok(result) => {
                    count_taken(&self.counters, batch, &result);
                    return Outcome::Taken;
                }
                Err(error) => {
                    refused |= matches!(error, CallError::Refused(_));
                    let separator = if texts.is_empty() { "" } else { "; " };
                    texts += &format!("{separator}{}: {error}", client.address());
                }
            }
        }
        if refused { Outcome::Refused(texts) } else { Outcome::Unreachable(texts) }
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
            tracing::info!(items = self.queue.size().items, "transfer takes points again; items still waiting follow");
            self.is_down = false;
        }
        self.refusals = 0;
        self.pause = self.first_pause;
    }
}

fn count_taken(counters: &SenderCounters, batch: &Batch, result: &[u8]) {
    counters.items_sent.fetch_add(batch.items as u64, Ordering::Relaxed);
    // An unreadable answer counts nothing invalid: the batch was taken all the same.
    let invalid = read_answer(result, &mut Scratch::new()).map_or(0, |answer| answer.invalid) as u64;
    if invalid > 0 && counters.items_invalid.fetch_add(invalid, Ordering::Relaxed) == 0 {
        tracing::warn!(invalid, items = batch.items, "transfer refused items of a batch (said once, counted always)");
    }
}

/// A random pause from half of `pause` to all of it.
fn with_jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}
