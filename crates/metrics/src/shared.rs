//! Shared: what is made for whoever asks, and given to those who ask at the same time as well.
//!
//! Why: pages without a login cost what they say: counters are written out, owners and `/proc` are asked. Whoever asks
//! again and again, on many connections, must not take the machine from those who send points.
//! How: what was made is given again until [`TIMES_AS_LONG`] times its own making has passed, [`AGE_MAX`] at most. So
//! making takes a small part of one core however many ask, a page of a millisecond is as good as new, and one of 50 ms
//! is made once a second. Whoever comes while it is made waits for it.
//! Invariants: nothing is given that is older than [`AGE_MAX`]. The clock is an argument. No lock is held for longer
//! than one making.
//! Memory: what was made last.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Pause behind a making, in times of its own length: making takes a twentieth of a core at most.
const TIMES_AS_LONG: u32 = 20;

/// The longest pause: whoever looks twice in a row sees what has happened.
const AGE_MAX: Duration = Duration::from_secs(1);

/// Something that is made now and then; `T` is cheap to clone.
pub struct Shared<T> {
    made: Mutex<Option<Made<T>>>,
    /// Held for a making.
    making: Mutex<()>,
}

struct Made<T> {
    value: T,
    /// The moment from which on it is made anew.
    until: Instant,
}

impl<T> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared { made: Mutex::new(None), making: Mutex::new(()) }
    }
}

impl<T: Clone> Shared<T> {
    /// What was made a moment ago, if it is to be given again at `now`.
    pub fn kept(&self, now: Instant) -> Option<T> {
        let made = lock(&self.made);
        made.as_ref().filter(|made| now < made.until).map(|made| made.value.clone())
    }

    /// What was made a moment ago, or what `make` makes.
    pub fn get(&self, clock: impl Fn() -> Instant, make: impl FnOnce() -> T) -> T {
        if let Some(value) = self.kept(clock()) {
            return value;
        }
        let _making = lock(&self.making);
        let began = clock();
        // Somebody else may have made it meanwhile.
        if let Some(value) = self.kept(began) {
            return value;
        }
        let value = make();
        let ended = clock();
        let pause = (ended.saturating_duration_since(began) * TIMES_AS_LONG).min(AGE_MAX);
        *lock(&self.made) = Some(Made { value: value.clone(), until: ended + pause });
        value
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked while making has left what was made before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Somebody who asks by a clock of the test's.
    struct Asked {
        shared: Shared<u32>,
        began: Instant,
        at: Cell<Duration>,
        takes: Duration,
        made: Cell<u32>,
    }

    impl Asked {
        fn new(takes: Duration) -> Asked {
            let (shared, began) = (Shared::default(), Instant::now());
            Asked { shared, began, at: Cell::default(), takes, made: Cell::default() }
        }

        fn ask(&self) -> u32 {
            let make = || {
                self.at.set(self.at.get() + self.takes);
                self.made.set(self.made.get() + 1);
                self.made.get()
            };
            self.shared.get(|| self.began + self.at.get(), make)
        }

        /// Asks `times` times, a millisecond between two; answers how often it was made in all.
        fn ask_often(&self, times: u32) -> u32 {
            for _ in 0..times {
                assert_eq!(self.ask(), self.made.get());
                self.at.set(self.at.get() + Duration::from_millis(1));
            }
            self.made.get()
        }
    }

    #[test]
    fn many_who_ask_in_one_second_have_one_page_and_the_next_second_has_another() {
        for takes in [50, 80, 3000] {
            let asked = Asked::new(Duration::from_millis(takes));
            assert_eq!(asked.ask_often(1000), 1, "{takes}");
            assert_eq!(asked.ask_often(1000), 2, "{takes}");
        }
    }

    #[test]
    fn a_page_that_costs_little_is_made_anew_soon_and_never_takes_much_of_a_core() {
        let asked = Asked::new(Duration::from_millis(2));
        assert_eq!(asked.ask_often(40), 1);
        assert_eq!(asked.ask_often(1), 2);
        assert!(asked.ask_often(1000) <= 2 + 1000 / 40);
        // For nothing there is no need to share.
        assert_eq!(Asked::new(Duration::ZERO).ask_often(100), 100);
    }

    #[test]
    fn those_who_come_while_it_is_made_wait_for_it() {
        let (shared, made) = (Shared::default(), std::sync::atomic::AtomicU32::new(0));
        let (begun, is_begun) = std::sync::mpsc::channel();
        let (go, go_on) = std::sync::mpsc::channel();
        let began = Instant::now();
        let count = || made.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        std::thread::scope(|scope| {
            let (shared, count) = (&shared, &count);
            let ticks = std::sync::atomic::AtomicU32::new(0);
            // Each reading of the clock is a second later, so that the making takes a while.
            let clock =
                move || began + Duration::from_secs(1) * ticks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let first = scope.spawn(move || {
                shared.get(clock, || {
                    begun.send(()).expect("somebody waits");
                    go_on.recv().expect("somebody lets it go on");
                    count()
                })
            });
            is_begun.recv().expect("a making");
            let others: Vec<_> = (0..8).map(|_| scope.spawn(move || shared.get(|| began, count))).collect();
            go.send(()).expect("it waits");
            assert_eq!(first.join().expect("no panic"), 1);
            assert!(others.into_iter().all(|other| other.join().expect("no panic") == 1));
        });
    }
}
