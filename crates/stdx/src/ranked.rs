//! Ranked locks: a mutex and a reader-writer lock whose order is checked, in debug builds, each time one is taken.
//!
//! Why: two threads that take the same two locks in opposite orders stop each other for ever, perhaps once a year. An
//! order that stands in prose only is broken by the next change; one that panics in the first test that breaks it is
//! kept.
//! How: each lock has a [`Rank`]: a level and a name. A thread remembers the ranks that it holds, and may take a lock
//! only if its level is above all of them, so outer locks have lower levels. Two locks of one level exclude each other:
//! whoever holds a shard may not take another. A second read of a lock that the thread reads already is refused as
//! well, since a writer that waits between the two stops both.
//! Levels are one scale for the whole process. Every layer names its ranks as constants in one place and says there
//! which levels it leaves to the others: a layer above takes lower levels for what it holds while it calls down, and
//! levels in between for what it takes when it is called back. [`Rank::innermost`] is for a lock under which no other
//! is taken. A panic under a lock poisons nothing that `lock`, `read` and `write` care about: they hand over what is
//! there. Where half a change would be worse than no service, [`RankedMutex::must_lock`] panics as well.
//! Invariants: the check comes before the wait, so a wrong order panics also when nobody else is near; a release build
//! has neither ranks nor a record (asserted below: a lock is as large as the one of std).
//! Absent: waiting on a condition. Whoever sleeps with a lock's guard keeps all outer locks meanwhile, and no user
//! needs it.
//! Memory: in debug builds 24 bytes per lock and per guard, and 400 per thread.

use order::{Note, Order};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError, RwLock, TryLockError};

/// A lock's place in the order of all locks of the process, and what a panic calls the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    level: u16,
    name: &'static str,
}

impl Rank {
    /// A rank by its level, outer locks being lower, and the lock's name.
    pub const fn new(level: u16, name: &'static str) -> Rank {
        Rank { level, name }
    }

    /// The rank of a lock under which no other is taken, not even another innermost one.
    pub const fn innermost(name: &'static str) -> Rank {
        Rank { level: u16::MAX, name }
    }

    /// Level of the rank, for layers that lay theirs around it.
    pub const fn level(self) -> u16 {
        self.level
    }
}

/// A [`std::sync::Mutex`] that is taken in the order of ranks.
pub struct RankedMutex<T: ?Sized> {
    order: Order,
    mutex: Mutex<T>,
}

/// A [`std::sync::RwLock`] that is taken in the order of ranks.
pub struct RankedRwLock<T: ?Sized> {
    order: Order,
    lock: RwLock<T>,
}

/// A guard of std's, and the note that its lock is held.
pub struct Guard<G> {
    // Dropped before the note: while the lock is being released it still counts as held.
    guard: G,
    _note: Note,
}

#[cfg(not(debug_assertions))]
const _: () = assert!(
    size_of::<RankedMutex<u64>>() == size_of::<Mutex<u64>>()
        && size_of::<RankedRwLock<u64>>() == size_of::<RwLock<u64>>()
        && size_of::<MutexGuard<'_, u64>>() == size_of::<std::sync::MutexGuard<'_, u64>>()
);

/// Guard of a [`RankedMutex`].
pub type MutexGuard<'a, T> = Guard<std::sync::MutexGuard<'a, T>>;
/// Guard of a [`RankedRwLock`] for reading.
pub type ReadGuard<'a, T> = Guard<std::sync::RwLockReadGuard<'a, T>>;
/// Guard of a [`RankedRwLock`] for writing.
pub type WriteGuard<'a, T> = Guard<std::sync::RwLockWriteGuard<'a, T>>;

impl<T> RankedMutex<T> {
    /// A lock of this rank around `value`.
    pub const fn new(rank: Rank, value: T) -> RankedMutex<T> {
        RankedMutex { order: Order::of(rank), mutex: Mutex::new(value) }
    }
}

impl<T: ?Sized> RankedMutex<T> {
    /// Waits for the lock; what a panic under the lock left is handed over as it is.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let note = self.order.note();
        Guard { guard: self.mutex.lock().unwrap_or_else(PoisonError::into_inner), _note: note }
    }

    /// Waits for the lock; panics, with the reason why that cannot be, if somebody panicked under the lock.
    #[inline]
    pub fn must_lock(&self, reason: &str) -> MutexGuard<'_, T> {
        let note = self.order.note();
        Guard { guard: self.mutex.lock().expect(reason), _note: note }
    }

    /// Takes the lock if nobody has it. The order is kept all the same: what is taken next may have to wait.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let note = self.order.note();
        match self.mutex.try_lock() {
            Ok(guard) => Some(Guard { guard, _note: note }),
            Err(TryLockError::Poisoned(poisoned)) => Some(Guard { guard: poisoned.into_inner(), _note: note }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Access without a lock, for whoever has the mutex alone.
    pub fn get_mut(&mut self) -> &mut T {
        self.mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> RankedRwLock<T> {
    /// A lock of this rank around `value`.
    pub const fn new(rank: Rank, value: T) -> RankedRwLock<T> {
        RankedRwLock { order: Order::of(rank), lock: RwLock::new(value) }
    }
}

impl<T: ?Sized> RankedRwLock<T> {
    /// Waits until nobody writes; what a panic under the lock left is handed over as it is.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_, T> {
        let note = self.order.note();
        Guard { guard: self.lock.read().unwrap_or_else(PoisonError::into_inner), _note: note }
    }

    /// Waits until nobody reads or writes; what a panic under the lock left is handed over as it is.
    #[inline]
    pub fn write(&self) -> WriteGuard<'_, T> {
        let note = self.order.note();
        Guard { guard: self.lock.write().unwrap_or_else(PoisonError::into_inner), _note: note }
    }

    /// Access without a lock, for whoever has the lock alone.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    #[inline]
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    #[inline]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// The check: what each lock knows of its rank, and each thread of the ranks that it holds.
#[cfg(debug_assertions)]
mod order {
    use super::Rank;
    use std::cell::RefCell;

    /// Locks that a thread may hold at once; ours hold six. An array, so that taking a lock never allocates.
    const HELD_MAX: usize = 16;

    struct Held {
        ranks: [Rank; HELD_MAX],
        count: usize,
    }

    thread_local! {
        static HELD: RefCell<Held> = const { RefCell::new(Held { ranks: [Rank::new(0, ""); HELD_MAX], count: 0 }) };
    }

    pub struct Order(Rank);

    /// One held lock; dropped when the lock is released.
    pub struct Note(Rank);

    impl Order {
        pub const fn of(rank: Rank) -> Order {
            Order(rank)
        }

        /// Notes that the lock is about to be taken; panics when the order forbids that.
        pub fn note(&self) -> Note {
            let Rank { level, name } = self.0;
            let other = HELD.with_borrow(|held| {
                let held = &held.ranks[..held.count];
                held.iter().copied().find(|held| held.level >= level)
            });
            if let Some(Rank { level: held_level, name: held }) = other {
                panic!("locks out of order: {name} ({level}) is taken while {held} ({held_level}) is held");
            }
            HELD.with_borrow_mut(|held| {
                assert!(held.count < HELD_MAX, "more than {HELD_MAX} locks are held; the last is {name}");
                held.ranks[held.count] = self.0;
                held.count += 1;
            });
            Note(self.0)
        }
    }

    impl Drop for Note {
        fn drop(&mut self) {
            // Guards may be dropped in any order; no two that are held have one level.
            HELD.with_borrow_mut(|held| {
                let ranks = &held.ranks[..held.count];
                let at = ranks.iter().position(|held| held.level == self.0.level).expect("the lock is held");
                held.ranks.copy_within(at + 1..held.count, at);
                held.count -= 1;
            });
        }
    }
}

/// Nothing: release builds know no ranks.
#[cfg(not(debug_assertions))]
mod order {
    use super::Rank;

    pub struct Order;

    pub struct Note;

    impl Order {
        pub const fn of(_rank: Rank) -> Order {
            Order
        }

        #[inline(always)]
        pub fn note(&self) -> Note {
            Note
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTER: Rank = Rank::new(10, "outer");
    const INNER: Rank = Rank::new(20, "inner");
    const LAST: Rank = Rank::innermost("last");

    #[test]
    fn locks_in_order_are_taken_and_given_back_in_any() {
        let (outer, inner, last) = (RankedMutex::new(OUTER, 1), RankedRwLock::new(INNER, 2), RankedMutex::new(LAST, 3));
        for _ in 0..20 {
            let (a, mut b, c) = (outer.lock(), inner.write(), last.must_lock("no panic"));
            *b += 1;
            drop(a);
            drop(c);
            assert!(last.try_lock().is_some());
            drop(b);
            assert_eq!(*outer.lock(), 1);
        }
        assert_eq!(*inner.read(), 22);
    }

    #[test]
    fn a_lock_that_somebody_has_is_not_taken_by_trying() {
        let lock = RankedMutex::new(OUTER, ());
        let held = lock.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(lock.try_lock().is_none());
                // What was not taken does not count as held.
                drop(RankedMutex::new(OUTER, ()).lock());
            });
        });
        drop(held);
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn each_thread_holds_its_own() {
        let (outer, inner) = (RankedMutex::new(OUTER, ()), RankedMutex::new(INNER, ()));
        let _held = inner.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(outer.lock()));
        });
    }

    #[test]
    fn a_panic_under_a_lock_is_passed_over_unless_one_must_not() {
        let mut lock = RankedMutex::new(OUTER, 7);
        std::thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _held = lock.lock();
                panic!("as asked");
            });
            panicking.join().expect_err("it panicked");
        });
        assert_eq!(*lock.lock(), 7);
        assert_eq!(lock.try_lock().map(|held| *held), Some(7));
        let must = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(lock.must_lock("it is whole"))));
        must.expect_err("somebody panicked under the lock");
        assert_eq!(*lock.get_mut(), 7);
        drop(RankedMutex::new(OUTER, ()).lock());
    }

    #[cfg(debug_assertions)]
    mod in_debug_builds {
        use super::*;

        #[test]
        #[should_panic(expected = "locks out of order: outer (10) is taken while inner (20) is held")]
        fn a_wrong_order_panics() {
            let (outer, inner) = (RankedMutex::new(OUTER, ()), RankedRwLock::new(INNER, ()));
            let _inner = inner.read();
            let _outer = outer.lock();
        }

        #[test]
        #[should_panic(expected = "shard 1 (10) is taken while shard 0 (10) is held")]
        fn two_of_one_level_panic() {
            let (one, other) =
                (RankedMutex::new(Rank::new(10, "shard 0"), ()), RankedMutex::new(Rank::new(10, "shard 1"), ()));
            let _one = one.lock();
            let _other = other.lock();
        }

        #[test]
        #[should_panic(expected = "inner (20) is taken while inner (20) is held")]
        fn a_second_read_by_one_thread_panics() {
            let lock = RankedRwLock::new(INNER, ());
            let _one = lock.read();
            let _other = lock.read();
        }

        #[test]
        #[should_panic(expected = "last (65535) is taken while last (65535) is held")]
        fn trying_keeps_the_order() {
            let (one, other) = (RankedMutex::new(LAST, ()), RankedMutex::new(LAST, ()));
            let _one = one.lock();
            let _other = other.try_lock();
        }

        #[test]
        #[should_panic(expected = "inner (20) is taken while last (65535) is held")]
        fn the_highest_of_all_that_are_held_counts() {
            let (outer, inner, last) =
                (RankedMutex::new(OUTER, ()), RankedMutex::new(INNER, ()), RankedMutex::new(LAST, ()));
            let (held, _last) = (outer.lock(), last.lock());
            drop(held);
            let _inner = inner.lock();
        }
    }
}
