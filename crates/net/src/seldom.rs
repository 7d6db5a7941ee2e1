//! Seldom: what anybody can cause as often as they like is said once a minute; counters have the rest.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines of the log about one thing. A guess: often enough to be found, too seldom to fill a disk.
const PAUSE: Duration = Duration::from_secs(60);

/// When one thing was said last.
#[derive(Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it may be said now; then it counts as said.
    pub fn may_say(&self) -> bool {
        let now = Instant::now();
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = said.is_none_or(|said| now.duration_since(said) >= PAUSE);
        if may {
            *said = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_said_once_and_again_after_a_while() {
        let seldom = Seldom::default();
        assert!(seldom.may_say() && !seldom.may_say());
        *seldom.0.lock().expect("no panic") = Instant::now().checked_sub(PAUSE);
        assert!(seldom.may_say() && !seldom.may_say());
    }
}
