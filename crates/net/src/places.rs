//! Places: how many connections a group of listeners may have, and who gives way when all are taken.
//!
//! Why: connections cost descriptors and memory, so they have a bound; but a bound alone lets whoever opens most shut
//! out everybody else. A fleet behind one address must be able to use all places that nobody else wants.
//! How: as long as there are free places, everybody gets one. When there are none, a newcomer takes the place of a
//! connection of the address that has most at one listener, if that one has at least two more than the newcomer's own:
//! of a connection that keeps the server waiting, the oldest first; else of its newest. Where no address has so many,
//! the oldest connection that keeps the server waiting gives way, whosever it is. What gives way is cut off.
//! A connection keeps the server waiting until its first message is whole; over HTTP also between two requests, in
//! the middle of one, and while it does not read its answer ([`Place::waits`]).
//! Invariants: no more places are taken than there are; a connection that has given way has no place any more, also
//! while its task still ends.
//! Memory: some 260 bytes per connection, which its listener accounts for.

use super::turns::network_of;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// The places of some listeners; clones share them.
#[derive(Clone)]
pub struct Places {
    max: usize,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// By the order in which they came.
    taken: BTreeMap<u64, Taken>,
    counts: HashMap<Key, usize>,
    at_listener: HashMap<&'static str, usize>,
}

/// An address at a listener.
type Key = (&'static str, IpAddr);

struct Taken {
    key: Key,
    waits: Arc<AtomicBool>,
    /// None until the connection's task runs.
    task: Option<AbortHandle>,
}

/// The place of one connection, free again when dropped.
pub struct Place {
    id: u64,
    waits: Arc<AtomicBool>,
    table: Arc<Mutex<Table>>,
}

/// What came of asking for a place.
pub enum Claim {
    Free(Place),
    /// Another connection has given way; its task may still have to end.
    GivenUp(Place, Option<AbortHandle>),
    /// The listener has as many connections as one may have, and none gives way.
    ListenerFull,
    /// All places of the group are taken, and none gives way.
    Full,
}

impl Places {
    /// So many places, all free.
    pub fn new(max: usize) -> Places {
        Places { max, table: Arc::default() }
    }

    /// A place at a listener that may have `listener_max`, for a connection from `address`.
    pub fn claim(&self, listener: &'static str, address: IpAddr, listener_max: usize) -> Claim {
        let mut table = self.lock();
        let key = (listener, network_of(address));
        let at_listener = table.at_listener.get(listener).copied().unwrap_or(0);
        let (leaves, refusal) = if at_listener >= listener_max {
            (table.who_gives_way(key, |other| other.0 == listener), Claim::ListenerFull)
        } else if table.taken.len() >= self.max {
            (table.who_gives_way(key, |_| true), Claim::Full)
        } else {
            return Claim::Free(self.take(&mut table, key));
        };
        let Some(id) = leaves else { return refusal };
        let task = table.leave(id).and_then(|taken| taken.task);
        if let Some(task) = &task {
            task.abort();
        }
        Claim::GivenUp(self.take(&mut table, key), task)
    }

    fn take(&self, table: &mut Table, key: Key) -> Place {
        let (id, waits) = (table.next, Arc::new(AtomicBool::new(true)));
        table.next += 1;
        table.taken.insert(id, Taken { key, waits: waits.clone(), task: None });
        *table.counts.entry(key).or_default() += 1;
        *table.at_listener.entry(key.0).or_default() += 1;
        Place { id, waits, table: self.table.clone() }
    }

    /// Names the task that ends when the connection with this place has to give way.
    pub fn is_run_by(&self, id: u64, task: AbortHandle) {
        match self.lock().taken.get_mut(&id) {
            Some(taken) => taken.task = Some(task),
            // Given up already, or ended already.
            None => task.abort(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    /// The connection that leaves its place to one more of `newcomer`, among those that `may`.
    fn who_gives_way(&self, newcomer: Key, may: impl Fn(&Key) -> bool) -> Option<u64> {
        let own = self.counts.get(&newcomer).copied().unwrap_or(0);
        let richest = self.counts.iter().filter(|(key, _)| may(key)).max_by_key(|(_, count)| **count);
        if let Some((rich, count)) = richest
            && *count > own + 1
        {
            let mut theirs = self.taken.iter().filter(|(_, taken)| taken.key == *rich);
            let waiting = theirs.clone().find(|(_, taken)| taken.waits.load(Relaxed));
            return waiting.or_else(|| theirs.next_back()).map(|(id, _)| *id);
        }
        let waits = |taken: &Taken| may(&taken.key) && taken.waits.load(Relaxed);
        self.taken.iter().find(|(_, taken)| waits(taken)).map(|(id, _)| *id)
    }

    fn leave(&mut self, id: u64) -> Option<Taken> {
        let taken = self.taken.remove(&id)?;
        if let Some(count) = self.at_listener.get_mut(taken.key.0) {
            *count -= 1;
        }
        if let Some(count) = self.counts.get_mut(&taken.key) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&taken.key);
            }
        }
        Some(taken)
    }
}

impl Place {
    /// Number of the place, for [`Places::is_run_by`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Says whether the server waits for the peer, so that the connection gives way before others do. A new one does.
    pub fn waits(&self, waits: bool) {
        self.waits.store(waits, Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.table).leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "10.0.0.1";
    const B: &str = "10.0.0.2";

    fn claim(places: &Places, listener: &'static str, address: &str, listener_max: usize) -> Claim {
        places.claim(listener, address.parse().expect("an address"), listener_max)
    }

    fn place(claim: Claim) -> Place {
        match claim {
            Claim::Free(place) | Claim::GivenUp(place, _) => place,
            Claim::ListenerFull | Claim::Full => panic!("no place"),
        }
    }

    fn busy(claim: Claim) -> Place {
        let place = place(claim);
        place.waits(false);
        place
    }

    fn has(places: &Places, place: &Place) -> bool {
        places.lock().taken.contains_key(&place.id)
    }

    #[test]
    fn one_address_may_have_all_until_another_comes() {
        let places = Places::new(4);
        let of_a: Vec<Place> = (0..4).map(|_| busy(claim(&places, "rpc", A, 99))).collect();
        assert!(matches!(claim(&places, "rpc", A, 99), Claim::Full), "its own do not give way to each other");
        let of_b = [busy(claim(&places, "rpc", B, 99)), busy(claim(&places, "rpc", B, 99))];
        let kept: Vec<bool> = of_a.iter().map(|place| has(&places, place)).collect();
        assert_eq!(kept, [true, true, false, false], "the newest give way");
        assert!(matches!(claim(&places, "rpc", B, 99), Claim::Full), "as many as the other has");
        assert!(of_b.iter().all(|place| has(&places, place)));
        drop((of_a, of_b));
        assert!(places.lock().taken.is_empty() && places.lock().counts.is_empty());
    }

    #[test]
    fn who_keeps_the_server_waiting_gives_way_the_oldest_first() {
        let places = Places::new(3);
        let (busy, old, new) = (
            busy(claim(&places, "api", A, 99)),
            place(claim(&places, "api", A, 99)),
            place(claim(&places, "api", A, 99)),
        );
        let newcomer = place(claim(&places, "api", A, 99));
        assert_eq!([&busy, &old, &new].map(|place| has(&places, place)), [true, false, true]);
        newcomer.waits(false);
        new.waits(false);
        assert!(matches!(claim(&places, "api", A, 99), Claim::Full));
    }

    #[test]
    fn a_full_listener_takes_nothing_from_another() {
        let places = Places::new(10);
        let other: Vec<Place> = (0..5).map(|_| place(claim(&places, "telnet", A, 5))).collect();
        let own = [busy(claim(&places, "rpc", A, 2)), busy(claim(&places, "rpc", A, 2))];
        assert!(matches!(claim(&places, "rpc", A, 2), Claim::ListenerFull));
        assert!(other.iter().chain(&own).all(|place| has(&places, place)));
        own[1].waits(true);
        assert!(matches!(claim(&places, "rpc", A, 2), Claim::GivenUp(..)));
        assert!(!has(&places, &own[1]));
    }

    #[tokio::test]
    async fn what_gives_way_is_cut_off_also_when_its_task_comes_late() {
        let places = Places::new(1);
        let first = place(claim(&places, "api", A, 9));
        let _second = place(claim(&places, "api", A, 9));
        let task = tokio::spawn(std::future::pending::<()>());
        places.is_run_by(first.id(), task.abort_handle());
        let ended = crate::patience::in_time("the end of the first", task).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }
}
