//! Transfers: the addresses that batches go to, and which of them is asked first.
//!
//! Why: an address that is dead must cost its timeout now and then, not each minute; and hosts of a fleet must not all
//! stay with one of several transfers.
//! How: one address, taken by chance, is asked first for [`CHOICE_LASTS`]; then chance takes again, so that load evens
//! out also after one was away. Who fails rests: is asked last, for longer each time, and not taken. When the first
//! fails, the others follow in random order, and the one that takes the batch stays first.
//! Compat: the original asks in random order each time, and as here the first success ends the round. It knows no rest.
//! Invariants: every address is asked before a batch is given up; the clock is an argument.

use crate::client::{CallError, Client};
use rand::RngExt;
use rand::seq::SliceRandom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The time for which one address is asked first: long enough that a timeout now and then costs nothing, short enough
/// that a fleet is spread again when somebody looks at the graphs of a restart.
const CHOICE_LASTS: Duration = Duration::from_secs(600);
/// The rest of an address that has failed once, and the longest, which the doubling of each further failure ends at: a
/// transfer that accepts and never answers costs ten seconds an hour.
const REST: Duration = Duration::from_secs(300);
const REST_MAX: Duration = Duration::from_secs(3600);

/// Counts since the start.
#[derive(Default)]
pub struct TransferCounters {
    /// Batches that the first address did not take, and another did.
    pub failovers: AtomicU64,
    /// Bytes of the batches that were taken, and of what was sent for them.
    pub bytes_of_items: AtomicU64,
    pub bytes_sent: AtomicU64,
}

/// What became of a batch.
pub enum Outcome {
    /// The answer of the transfer that has it.
    Taken(Vec<u8>),
    /// A refusal by at least one transfer, while none took the batch.
    Refused(String),
    Unreachable(String),
}

/// The way to all transfers.
pub struct Transfers {
    clients: Vec<Client>,
    turns: Turns,
    counters: Arc<TransferCounters>,
    /// Whether batches are compressed for transfers that know how.
    compress: bool,
}

impl Transfers {
    /// A way to these addresses, of which there is at least one.
    pub fn new(clients: Vec<Client>, compress: bool) -> Transfers {
        let turns = Turns::new(clients.len(), Instant::now());
        Transfers { clients, turns, counters: Arc::default(), compress }
    }

    /// The counters, which this way keeps up to date.
    pub fn counters(&self) -> Arc<TransferCounters> {
        self.counters.clone()
    }

    /// Offers a batch to one after the other until one takes it.
    pub async fn send(&mut self, json: &[u8]) -> Outcome {
        let (mut is_refused, mut texts) = (false, String::new());
        for (attempt, index) in self.turns.order(Instant::now()).into_iter().enumerate() {
            let client = &mut self.clients[index];
            match client.update(json, self.compress).await {
                Ok(answer) => {
                    self.counters.bytes_of_items.fetch_add(json.len() as u64, Relaxed);
                    self.counters.bytes_sent.fetch_add(answer.sent_bytes as u64, Relaxed);
                    if attempt > 0 {
                        self.counters.failovers.fetch_add(1, Relaxed);
                        tracing::info!(to = client.address(), failed = texts, "another transfer takes the points");
                    }
                    self.turns.took(index, Instant::now());
                    return Outcome::Taken(answer.result);
                }
                Err(error) => {
                    self.turns.failed(index, Instant::now());
                    is_refused |= matches!(error, CallError::Refused(_));
                    let separator = if texts.is_empty() { "" } else { "; " };
                    texts += &format!("{separator}{}: {error}", client.address());
                }
            }
        }
        if is_refused { Outcome::Refused(texts) } else { Outcome::Unreachable(texts) }
    }
}

/// Who is asked first, and who rests.
struct Turns {
    rests: Vec<Rest>,
    first: usize,
    /// When chance takes another.
    first_until: Instant,
}

#[derive(Clone, Copy, Default)]
struct Rest {
    until: Option<Instant>,
    /// How long the next failure makes it; none after a success.
    next: Option<Duration>,
}

impl Rest {
    fn lasts(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

impl Turns {
    fn new(count: usize, now: Instant) -> Turns {
        // The time is over, so the first order takes one.
        Turns { rests: vec![Rest::default(); count], first: 0, first_until: now }
    }

    /// The order in which to ask.
    fn order(&mut self, now: Instant) -> Vec<usize> {
        if now >= self.first_until || self.rests[self.first].lasts(now) {
            self.choose(now);
        }
        let mut order: Vec<usize> = (0..self.rests.len()).collect();
        order.shuffle(&mut rand::rng());
        // The one whose rest ends first is the likeliest of them to be back.
        let rank = |index: usize| {
            let rest = &self.rests[index];
            (rest.lasts(now), index != self.first, rest.until.filter(|_| rest.lasts(now)))
        };
        order.sort_by_key(|index| rank(*index));
        order
    }

    /// Takes one by chance, of those that do not rest.
    fn choose(&mut self, now: Instant) {
        let awake: Vec<usize> = (0..self.rests.len()).filter(|index| !self.rests[*index].lasts(now)).collect();
        if !awake.is_empty() {
            self.stay_with(awake[rand::rng().random_range(0..awake.len())], now);
        }
    }

    fn stay_with(&mut self, index: usize, now: Instant) {
        self.first = index;
        self.first_until = now + CHOICE_LASTS.mul_f64(rand::random_range(0.5..=1.0));
    }

    fn took(&mut self, index: usize, now: Instant) {
        self.rests[index] = Rest::default();
        if index != self.first {
            self.stay_with(index, now);
        }
    }

    fn failed(&mut self, index: usize, now: Instant) {
        let rest = &mut self.rests[index];
        let length = rest.next.unwrap_or(REST);
        *rest = Rest { until: Some(now + length), next: Some((length * 2).min(REST_MAX)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// Asks one after the other until one that `takes` is met; answers whom it asked.
    fn round(turns: &mut Turns, now: Instant, takes: &[usize]) -> Vec<usize> {
        let mut asked = Vec::new();
        for index in turns.order(now) {
            asked.push(index);
            if takes.contains(&index) {
                turns.took(index, now);
                break;
            }
            turns.failed(index, now);
        }
        asked
    }

    #[test]
    fn the_first_is_taken_by_chance_and_stays_for_a_while() {
        let now = Instant::now();
        let mut firsts = [0; 3];
        for _ in 0..300 {
            let mut turns = Turns::new(3, now);
            let first = round(&mut turns, now, &[0, 1, 2])[0];
            firsts[first] += 1;
            for minute in 1..5 {
                assert_eq!(round(&mut turns, now + seconds(60 * minute), &[0, 1, 2]), [first]);
            }
        }
        assert!(firsts.iter().all(|count| *count > 30), "{firsts:?}");
    }

    #[test]
    fn load_evens_out_again() {
        let (now, mut turns) = (Instant::now(), Turns::new(2, Instant::now()));
        let firsts: std::collections::BTreeSet<usize> =
            (0..100).map(|hour| round(&mut turns, now + seconds(3600 * hour), &[0, 1])[0]).collect();
        assert_eq!(firsts.len(), 2);
    }

    #[test]
    fn who_fails_costs_its_timeout_once_and_who_worked_stays() {
        for _ in 0..20 {
            let (now, mut turns) = (Instant::now(), Turns::new(3, Instant::now()));
            let mut asked_dead = 0;
            for minute in 0..60 {
                let asked = round(&mut turns, now + seconds(60 * minute), &[2]);
                assert_eq!(asked.last(), Some(&2));
                asked_dead += asked.len() - 1;
            }
            // Two that rest for 5, 10, 20 and 40 minutes.
            assert!(asked_dead <= 8, "{asked_dead}");
        }
    }

    #[test]
    fn all_are_asked_before_a_batch_is_given_up_also_while_they_rest() {
        let (now, mut turns) = (Instant::now(), Turns::new(3, Instant::now()));
        for attempt in 0..10 {
            let mut asked = round(&mut turns, now + seconds(attempt), &[]);
            asked.sort_unstable();
            assert_eq!(asked, [0, 1, 2]);
        }
        let back = now + seconds(60);
        assert_eq!(round(&mut turns, back, &[1]).last(), Some(&1));
        assert_eq!(round(&mut turns, back + seconds(1), &[1]), [1], "it is the first from then on");
    }
}
