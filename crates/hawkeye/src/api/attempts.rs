//! Attempts: how often a password may be guessed.
//!
//! Why: the original lets anybody try as fast as the network allows.
//! How: each user name has [`BURST`] attempts, and gets one back every [`REFILL_S`]; a right password gives its attempt
//! back. Only names that exist are counted, so guesses at random names take no memory.
//! Invariants: time is an argument. An attempt is taken before the password is looked at, so parallel guesses count
//! too.
//! Memory: one entry per user with recent failures, at most [`NAMES_MAX`]; past them the entries
//! without a failure go, then all do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use stdx::Ledger;

/// Attempts in a row; a person who mistypes needs a handful.
const BURST: i64 = 10;
/// Seconds until one attempt comes back: a guesser gets 2,880 tries a day at one name.
const REFILL_S: i64 = 30;
/// Names with recent failures, about 1 MB of them; a site has a few hundred users.
const NAMES_MAX: usize = 10_000;

/// Logins that may still be tried, by name.
#[derive(Default)]
pub struct Attempts {
    by_name: Mutex<HashMap<String, AttemptsLeft>>,
}

#[derive(Clone, Copy)]
struct AttemptsLeft {
    count: i64,
    /// Unix seconds at which `count` was right.
    at: i64,
}

impl Attempts {
    /// Takes an attempt at `name`; Err is how many seconds to wait for one.
    pub fn take(&self, name: &str, now: i64) -> Result<(), i64> {
        let mut by_name = self.lock();
        if by_name.len() >= NAMES_MAX {
            by_name.retain(|_, left| refill(*left, now).count < BURST);
            if by_name.len() >= NAMES_MAX {
                by_name.clear();
            }
        }
        let left = by_name.entry(name.to_lowercase()).or_insert(AttemptsLeft { count: BURST, at: now });
        *left = refill(*left, now);
        if left.count == 0 {
            return Err(left.at + REFILL_S - now);
        }
        left.count -= 1;
        Ok(())
    }

    /// Gives all attempts back to `name`, whose password was right.
    pub fn succeeded(&self, name: &str) {
        self.lock().remove(&name.to_lowercase());
    }

    /// Names the memory of the attempts in the ledger.
    pub fn register_memory(self: &Arc<Self>, ledger: &Ledger) {
        let attempts = self.clone();
        ledger.source(move |report| {
            let by_name = attempts.lock();
            let names: usize = by_name.keys().map(String::capacity).sum();
            let bytes = names + by_name.capacity() * (size_of::<(String, AttemptsLeft)>() + 1);
            report.line("logins", bytes as u64, None, Some(by_name.len() as u64));
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, AttemptsLeft>> {
        self.by_name.lock().expect("nothing inside can panic")
    }
}

fn refill(left: AttemptsLeft, now: i64) -> AttemptsLeft {
    // A clock that was set back gives nothing, and takes nothing; the wait counts from now.
    let left = AttemptsLeft { at: left.at.min(now), ..left };
    let periods = (now - left.at) / REFILL_S;
    if left.count + periods >= BURST {
        return AttemptsLeft { count: BURST, at: now };
    }
    AttemptsLeft { count: left.count + periods, at: left.at + periods * REFILL_S }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_slows_down_per_name() {
        let attempts = Attempts::default();
        for _ in 0..BURST {
            assert_eq!(attempts.take("root", 1000), Ok(()));
        }
        assert_eq!(attempts.take("ROOT", 1010), Err(20));
        assert_eq!(attempts.take("alice", 1010), Ok(()), "another name is not affected");
        assert_eq!(attempts.take("root", 1030), Ok(()), "one comes back");
        assert_eq!(attempts.take("root", 1030), Err(30));
        assert_eq!(attempts.take("root", 1030 - 6 * 3600), Err(30), "a clock that is set back locks nobody out");
        attempts.succeeded("Root");
        assert_eq!(attempts.take("root", 1030), Ok(()));
    }

    #[test]
    fn names_are_bounded() {
        let attempts = Attempts::default();
        for i in 0..3 * NAMES_MAX {
            assert_eq!(attempts.take(&format!("user{i}"), 1000), Ok(()));
        }
        assert!(attempts.lock().len() <= NAMES_MAX);
    }
}
