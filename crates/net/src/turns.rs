//! Turns: so many things may happen at once, and no peer has all of them.
//!
//! Why: a plain semaphore serves whoever asks most. One sender's slow messages, or one user's large questions, must not
//! keep the others waiting; and a fleet behind one address must be able to use what nobody else wants.
//! How: each turn belongs to a [`Holder`]. A holder may have at most three times what is left free: alone it gets three
//! quarters, and whoever comes next finds room at once. Who has nothing gets what is free. Those who wait are served in
//! their order within a holder, and one after the other between holders.
//! Invariants: nobody waits while a turn is free that the rule gives them; a holder without a turn is never passed by
//! one that has some; whoever stops waiting leaves the queue.
//! Memory: an entry per holder that has turns or waits for one.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// A holder's turns are at most so many times those that are free.
const TIMES_FREE: usize = 3;

/// Whose turns are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// An address as [`network_of`] gives it.
    Address(IpAddr),
    /// A name that has logged in: people behind one proxy are told apart.
    User(Arc<str>),
}

impl Holder {
    /// The holder behind a peer's address.
    pub fn at(address: IpAddr) -> Holder {
        Holder::Address(network_of(address))
    }

    /// The holder with this name.
    pub fn user(name: &str) -> Holder {
        Holder::User(name.into())
    }
}

/// The address by which a peer is known: of IPv6 the network, for one machine has all addresses of its /64.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

/// So many turns; clones share them.
#[derive(Clone)]
pub struct Turns {
    shared: Arc<Shared>,
}

struct Shared {
    count: usize,
    state: Mutex<State>,
}

struct State {
    free: usize,
    held: HashMap<Holder, usize>,
    /// A queue per holder that waits; the front one is asked next.
    queues: VecDeque<Queue>,
}

struct Queue {
    holder: Holder,
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    count: usize,
    granted: oneshot::Sender<Turn>,
}

/// Turns that somebody has; given back when dropped.
pub struct Turn {
    shared: Arc<Shared>,
    holder: Holder,
    count: usize,
}

type Grants = Vec<(oneshot::Sender<Turn>, Turn)>;

impl Turns {
    /// `count` turns, all free.
    pub fn new(count: usize) -> Turns {
        let state = State { free: count, held: HashMap::new(), queues: VecDeque::new() };
        Turns { shared: Arc::new(Shared { count, state: Mutex::new(state) }) }
    }

    /// Waits for `count` turns, or for [`Turns::most`] where that is less. None are had at once.
    pub async fn take(&self, holder: &Holder, count: usize) -> Turn {
        let count = count.min(self.most());
        if count == 0 {
            return Turn { shared: self.shared.clone(), holder: holder.clone(), count };
        }
        let (granted, grant) = oneshot::channel();
        let grants = {
            let mut state = self.shared.lock();
            if state.queues.is_empty() && state.allows(holder, count) {
                return self.shared.give(&mut state, holder, count);
            }
            let waiter = Waiter { count, granted };
            match state.queues.iter_mut().find(|queue| queue.holder == *holder) {
                Some(queue) => queue.waiters.push_back(waiter),
                None => state.queues.push_back(Queue { holder: holder.clone(), waiters: [waiter].into() }),
            }
            self.shared.settle(&mut state)
        };
        hand_over(grants);
        let mut waiting = Waiting { shared: &self.shared, grant, is_over: false };
        let turn = (&mut waiting.grant).await.expect("a waiter that still waits stays in its queue");
        waiting.is_over = true;
        turn
    }

    /// The most turns that one holder can have at once.
    pub fn most(&self) -> usize {
        self.shared.count - self.shared.count / (TIMES_FREE + 1)
    }

    /// All turns, free or not.
    pub fn count(&self) -> usize {
        self.shared.count
    }

    /// Turns that nobody has.
    pub fn free(&self) -> usize {
        self.shared.lock().free
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(self: &Arc<Self>, state: &mut State, holder: &Holder, count: usize) -> Turn {
        state.add(holder, count);
        Turn { shared: self.clone(), holder: holder.clone(), count }
    }

    /// Gives turns to those who wait and may have them. The caller hands them over without the lock, for a turn that
    /// nobody receives comes back.
    fn settle(self: &Arc<Self>, state: &mut State) -> Grants {
        let (mut grants, mut refused) = (Vec::new(), 0);
        while refused < state.queues.len()
            && let Some(mut queue) = state.queues.pop_front()
        {
            let wanted = queue.waiters.front().map_or(0, |waiter| waiter.count);
            if state.allows(&queue.holder, wanted) {
                refused = 0;
                if let Some(waiter) = queue.waiters.pop_front() {
                    grants.push((waiter.granted, self.give(state, &queue.holder, wanted)));
                }
                if !queue.waiters.is_empty() {
                    state.queues.push_back(queue);
                }
            } else if !state.held.contains_key(&queue.holder) {
                // Who has nothing lacks only what is free, and is next when there is enough.
                state.queues.push_front(queue);
                break;
            } else {
                refused += 1;
                state.queues.push_back(queue);
            }
        }
        grants
    }
}

fn hand_over(grants: Grants) {
    for (granted, turn) in grants {
        // Who has stopped waiting meanwhile gets nothing: the turn is dropped, and so given back.
        let _ = granted.send(turn);
    }
}

impl State {
    fn allows(&self, holder: &Holder, count: usize) -> bool {
        let Some(left) = self.free.checked_sub(count) else { return false };
        self.held.get(holder).is_none_or(|held| held + count <= TIMES_FREE * left)
    }

    fn add(&mut self, holder: &Holder, count: usize) {
        self.free -= count;
        *self.held.entry(holder.clone()).or_default() += count;
    }

    fn take_back(&mut self, holder: &Holder, count: usize) {
        self.free += count;
        if let Some(held) = self.held.get_mut(holder) {
            *held -= count;
            if *held == 0 {
                self.held.remove(holder);
            }
        }
    }
}

impl Turn {
    /// Adds `count` turns if the rule allows them now and `kept_free` others stay free.
    pub fn grow(&mut self, count: usize, kept_free: usize) -> bool {
        let mut state = self.shared.lock();
        if !state.allows(&self.holder, count) || state.free - count < kept_free {
            return false;
        }
        state.add(&self.holder, count);
        self.count += count;
        true
    }

    /// Gives back all but `count` turns.
    pub fn shrink_to(&mut self, count: usize) {
        let surplus = self.count.saturating_sub(count);
        if surplus > 0 {
            self.count -= surplus;
            self.give_back(surplus);
        }
    }

    fn give_back(&self, count: usize) {
        let grants = {
            let mut state = self.shared.lock();
            state.take_back(&self.holder, count);
            self.shared.settle(&mut state)
        };
        hand_over(grants);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.count > 0 {
            self.give_back(self.count);
        }
    }
}

/// One who waits; takes the place in the queue away when dropped before the turn has come.
struct Waiting<'t> {
    shared: &'t Arc<Shared>,
    grant: oneshot::Receiver<Turn>,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.grant.close();
        let grants = {
            let mut state = self.shared.lock();
            for queue in &mut state.queues {
                queue.waiters.retain(|waiter| !waiter.granted.is_closed());
            }
            state.queues.retain(|queue| !queue.waiters.is_empty());
            // Whoever stood behind may be next now.
            self.shared.settle(&mut state)
        };
        hand_over(grants);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::in_time;
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    fn is_ready(future: &mut Pin<&mut impl Future<Output = Turn>>) -> Option<Turn> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(turn) => Some(turn),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn one_holder_leaves_a_quarter_and_the_next_gets_in_at_once() {
        let turns = Turns::new(32);
        let (greedy, other) = (Holder::user("greedy"), Holder::user("other"));
        let mut held = Vec::new();
        for _ in 0..turns.most() {
            held.push(in_time("a turn", turns.take(&greedy, 1)).await);
        }
        let mut waits = pin!(turns.take(&greedy, 1));
        assert!(is_ready(&mut waits).is_none());
        assert_eq!((turns.most(), turns.free()), (24, 8));
        let others: Vec<Turn> =
            [in_time("a turn of another", turns.take(&other, 1)).await, turns.take(&other, 5).await].into();
        assert_eq!(turns.free(), 2);
        let mut waits_too = pin!(turns.take(&other, 1));
        assert!(is_ready(&mut waits_too).is_none(), "7 are more than three times the one that would be left");
        drop(others);
        assert!(is_ready(&mut waits_too).is_some(), "who waits gets what comes back");
        assert!(is_ready(&mut waits).is_none(), "24 and one more are still too many");
        held.truncate(20);
        assert!(is_ready(&mut waits).is_some());
    }

    #[tokio::test]
    async fn holders_that_wait_are_served_in_turn() {
        let turns = Turns::new(1);
        let (a, b, c) = (Holder::user("a"), Holder::user("b"), Holder::user("c"));
        let first = turns.take(&a, 1).await;
        let (mut a1, mut a2) = (pin!(turns.take(&a, 1)), pin!(turns.take(&a, 1)));
        let (mut b1, mut c1) = (pin!(turns.take(&b, 1)), pin!(turns.take(&c, 1)));
        for waiting in [&mut a1, &mut a2] {
            assert!(is_ready(waiting).is_none());
        }
        assert!(is_ready(&mut b1).is_none());
        assert!(is_ready(&mut c1).is_none());
        drop(first);
        drop(is_ready(&mut b1).expect("the first that has had nothing"));
        drop(is_ready(&mut a1).expect("the next holder"));
        assert!(is_ready(&mut a2).is_none());
        drop(is_ready(&mut c1).expect("the third holder, before the second of one"));
        assert!(is_ready(&mut a2).is_some());
    }

    /// Pins what a client can do that asks and goes away again and again: the queue does not grow, and a turn that was
    /// on its way comes back.
    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing_behind() {
        let turns = Turns::new(4);
        let holder = Holder::at("10.0.0.1".parse().expect("an address"));
        let held = turns.take(&holder, 3).await;
        for _ in 0..100 {
            let mut waits = pin!(turns.take(&holder, 1));
            assert!(is_ready(&mut waits).is_none());
        }
        assert!(turns.shared.lock().queues.is_empty());
        {
            let mut waits = Box::pin(turns.take(&holder, 1));
            assert!(is_ready(&mut waits.as_mut()).is_none());
            drop(held);
            // Granted, and never taken.
            drop(waits);
        }
        assert_eq!(turns.free(), 4);
        assert!(turns.shared.lock().queues.is_empty() && turns.shared.lock().held.is_empty());
    }

    /// A large wish is not passed by small ones for ever: who has nothing is next when there is enough.
    #[tokio::test]
    async fn who_has_nothing_is_not_passed() {
        let turns = Turns::new(8);
        let (a, b, c) = (Holder::user("a"), Holder::user("b"), Holder::user("c"));
        let mut of_a = turns.take(&a, 6).await;
        let mut large = pin!(turns.take(&b, 4));
        assert!(is_ready(&mut large).is_none());
        let mut small = pin!(turns.take(&c, 1));
        assert!(is_ready(&mut small).is_none(), "the one before has nothing either");
        of_a.shrink_to(3);
        let large = is_ready(&mut large).expect("four of five");
        drop(is_ready(&mut small).expect("the last one"));
        drop((large, of_a));
        assert_eq!(turns.free(), 8);
    }

    #[test]
    fn addresses_of_one_machine_are_one_holder() {
        let check = |text: &str, expected: &str| {
            let address = |text: &str| text.parse().expect("an address");
            assert_eq!(network_of(address(text)), address(expected));
        };
        check("10.0.0.1", "10.0.0.1");
        check("::ffff:10.0.0.1", "10.0.0.1");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("::1", "::");
    }
}
