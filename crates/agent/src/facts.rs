//! Facts: what the agent tells hbs of itself beyond the original's four fields: version and machine, which settings are
//! in effect, and how far its clock is off.
//!
//! Why: of ten thousand hosts some were changed by hand, or have a wrong clock, and nobody finds them one by one.
//! How: the digest is over every key and its value, but for the name and address of the host, so that hosts of one
//! file have one digest; after a reload it is over what is in effect then. The offset is this host's wall clock at the
//! middle of a call to hbs, less the time in its answer: it is wrong by half the way there and back at most, so a call
//! that takes longer than [`ROUND_MAX`] says nothing, and neither does one during which this clock was set.
//! Invariants: nothing leads from a digest back to a secret but guessing all settings at once. An offset is told for a
//! few heartbeats, so that one of an hbs that is gone is no news for ever.
//! Compat: an original hbs does not tell its time; then there is no offset.

use super::clock::unix_ms;
use super::shown::Key;
use net::gate::sum_of;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wire::hbs::AgentDetails;

/// Keys that differ from host to host by their nature.
const OF_THE_HOST: [&str; 2] = ["hostname", "ip"];
/// The longest call that says what time it is: it is good to a quarter of a second. Half the world around takes 0.3 s.
const ROUND_MAX: Duration = Duration::from_millis(500);
/// Milliseconds by which the two clocks of this host may disagree about how long a call took; a guess, far above the
/// pace at which a daemon corrects a clock (0.5 ms a second), and below what matters.
const STEP_MS: u64 = 100;
/// Heartbeats for which an offset is told.
const LASTS_HEARTBEATS: u32 = 5;

/// What is known of this agent.
pub struct Facts {
    config_digest: Mutex<String>,
    clock: Mutex<Option<Measured>>,
    /// Time for which an offset counts.
    lasts: Duration,
}

#[derive(Clone, Copy)]
struct Measured {
    offset_ms: i64,
    at: Instant,
}

impl Facts {
    /// Facts of an agent with these keys.
    pub fn new(keys: &[Key], heartbeat: Duration) -> Facts {
        let lasts = heartbeat.saturating_mul(LASTS_HEARTBEATS);
        Facts { config_digest: Mutex::new(digest_of(keys)), clock: Mutex::default(), lasts }
    }

    /// Takes the keys that are in effect from now on.
    pub fn change(&self, keys: &[Key]) {
        *lock(&self.config_digest) = digest_of(keys);
    }

    /// Notes that this host's clock is ahead of that of hbs by so much.
    pub fn note_offset(&self, offset_ms: i64) {
        *lock(&self.clock) = Some(Measured { offset_ms, at: Instant::now() });
    }

    /// Milliseconds by which this host's clock was ahead of that of hbs lately, if that is known.
    pub fn clock_offset_ms(&self) -> Option<i64> {
        let measured = *lock(&self.clock);
        measured.filter(|measured| measured.at.elapsed() <= self.lasts).map(|measured| measured.offset_ms)
    }

    /// All of them, for a report.
    pub fn details(&self) -> AgentDetails {
        AgentDetails {
            version: format!("{} {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH),
            config_digest: lock(&self.config_digest).clone(),
            clock_offset_ms: self.clock_offset_ms(),
        }
    }
}

/// A call to hbs, by both clocks of this host.
pub struct Round {
    begun_ms: i64,
    begun: Instant,
}

impl Round {
    /// Begins a call.
    pub fn begin() -> Round {
        Round { begun_ms: unix_ms(), begun: Instant::now() }
    }

    /// The offset that follows from the time in the answer, which has just come (Unix milliseconds).
    pub fn offset_ms(&self, theirs_ms: i64) -> Option<i64> {
        offset_of(self.begun_ms, unix_ms(), self.begun.elapsed(), theirs_ms)
    }
}

fn offset_of(begun_ms: i64, ended_ms: i64, took: Duration, theirs_ms: i64) -> Option<i64> {
    let took_ms = took.as_millis() as i64;
    let was_set = ended_ms.saturating_sub(begun_ms).abs_diff(took_ms) > STEP_MS;
    // A server without a clock tells 0.
    let is_told = theirs_ms > 0;
    (took <= ROUND_MAX && !was_set && is_told).then(|| begun_ms + took_ms / 2 - theirs_ms)
}

/// The first 16 hex digits of the sum over all keys but those of the host.
fn digest_of(keys: &[Key]) -> String {
    let mut text = String::new();
    for key in keys.iter().filter(|key| !OF_THE_HOST.contains(&key.name)) {
        text += &format!("{}={}\n", key.name, key.value);
    }
    let [a, b, c, d, e, f, g, h, ..] = sum_of(text.as_bytes());
    format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AgentConfig;
    use crate::shown;

    #[test]
    fn equal_settings_have_equal_digests() {
        let digest = |text: &str, hostname: &str| {
            let config = AgentConfig::load(text, std::iter::empty(), &[], hostname).expect(text);
            digest_of(&shown::keys(&config))
        };
        let plain = digest("", "a");
        assert!(plain.len() == 16 && plain.bytes().all(|byte| byte.is_ascii_hexdigit()), "{plain}");
        assert_eq!(digest("interval = \"60s\"\nip = \"10.0.0.1\"", "b"), plain, "the host's own names do not count");
        let changed = [
            "interval = \"30s\"",
            "ignore = [\"cpu.busy\"]",
            "default_tags = { idc = \"bj\" }",
            "token = \"abcdefghijklmnopq\"",
            "token = \"qponmlkjihgfedcba\"",
            "[collect.exporters]\na.url = \"http://h:1/m\"",
            "[collect.exporters]\na.url = \"http://h:1/n\"",
            "[plugin]\nuser = \"nobody\"",
        ];
        let mut digests: std::collections::BTreeSet<String> = changed.map(|text| digest(text, "a")).into();
        digests.insert(plain);
        assert_eq!(digests.len(), changed.len() + 1);
    }

    #[test]
    fn an_offset_follows_from_a_short_call_while_the_clock_ran() {
        let check = |ended_ms: i64, took_ms: u64, theirs_ms: i64, expected: Option<i64>| {
            let offset = offset_of(1_000_000, ended_ms, Duration::from_millis(took_ms), theirs_ms);
            assert_eq!(offset, expected, "{ended_ms} {took_ms} {theirs_ms}");
        };
        check(1_000_040, 40, 1_000_020, Some(0));
        check(1_000_040, 40, 1_000_000, Some(20));
        check(1_000_000, 0, 4_600_000, Some(-3_600_000));
        check(1_000_500, 500, 1_000_250, Some(0));
        check(1_000_501, 501, 1_000_250, None);
        // Set an hour ahead, or back, while hbs was asked.
        check(4_600_040, 40, 1_000_020, None);
        check(-2_600_000, 40, 1_000_020, None);
        check(1_000_040, 40, 0, None);
        check(1_000_040, 40, i64::MIN, None);
    }

    #[test]
    fn an_offset_is_told_for_some_heartbeats() {
        let facts = Facts::new(&[], Duration::from_secs(3600));
        assert_eq!(facts.details().clock_offset_ms, None);
        facts.note_offset(-7);
        assert_eq!(facts.details().clock_offset_ms, Some(-7));
        let gone = Facts::new(&[], Duration::ZERO);
        gone.note_offset(-7);
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(gone.clock_offset_ms(), None);
    }
}
