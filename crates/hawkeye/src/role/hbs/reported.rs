//! Reported: what each agent has said of itself last, so that one that says the same again asks no database.
//!
//! How: a number for the name, and one for the name with all that was said but the clock's offset, which is kept as it
//! was written: an agent measures another one each minute, and few of them matter ([`agent::differs`]). Two agents are
//! taken for one only where both numbers of 64 bits are the same by chance.
//! Invariants: what is known here was written before. A host that the tables have lost is not known, whatever is here:
//! the caller looks, and the host comes back with its next report.
//! Memory: 40 bytes and a place per host, of at most [`host::HOSTS_MAX`].
//! Compat: docs/open-falcon/wire.md §4: the original remembers so, too, what has been written.

use crate::portal::{agent, host};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::hbs::AgentReport;

/// The offset from which on a clock counts as wrong (milliseconds): points of a host that is ahead by more than this
/// are refused, and those of one that is behind come as if late.
const WRONG_MS: u64 = 300_000;
/// Seconds after its last report for which an agent's clock counts: five heartbeats of the default interval.
const LASTS_S: i64 = 300;

/// What is known of agents; clones share it.
#[derive(Clone, Default)]
pub struct Reported {
    known: Arc<Mutex<HashMap<u64, Said>>>,
    numbers: RandomState,
}

/// What an agent has said last.
struct Said {
    /// Number of all but the offset.
    all: u64,
    /// Offset of its clock that was written, in milliseconds.
    clock_offset_ms: Option<i64>,
    /// When it reported last (Unix seconds).
    at: i64,
}

impl Reported {
    /// Whether this was said before, as the last of its agent. `now` is in Unix seconds.
    pub fn is_known(&self, report: &AgentReport, now: i64) -> bool {
        let (name, all) = self.numbers_of(report);
        let mut known = self.known();
        let Some(said) = known.get_mut(&name) else { return false };
        said.at = now;
        said.all == all && !agent::differs(said.clock_offset_ms, report.details.clock_offset_ms)
    }

    /// Notes what has been written, and with which offset. `now` is in Unix seconds.
    pub fn note(&self, report: &AgentReport, clock_offset_ms: Option<i64>, now: i64) {
        let (name, all) = self.numbers_of(report);
        let mut known = self.known();
        if known.len() >= usize::try_from(host::HOSTS_MAX).unwrap_or(usize::MAX) && !known.contains_key(&name) {
            // Names that came and went; those that are there say so within a minute.
            known.clear();
        }
        known.insert(name, Said { all, clock_offset_ms, at: now });
    }

    /// How many agents that report at `now` (Unix seconds) have a clock that is wrong.
    pub fn wrong_clocks(&self, now: i64) -> usize {
        let is_wrong = |said: &&Said| {
            said.at >= now - LASTS_S && said.clock_offset_ms.is_some_and(|offset| offset.unsigned_abs() >= WRONG_MS)
        };
        self.known().values().filter(is_wrong).count()
    }

    /// Bytes that are held.
    pub fn memory_bytes(&self) -> usize {
        self.known().capacity() * (size_of::<(u64, Said)>() + 1)
    }

    fn numbers_of(&self, report: &AgentReport) -> (u64, u64) {
        let AgentReport { hostname, ip, agent_version, plugin_version, details } = report;
        let said = (hostname, ip, agent_version, plugin_version, &details.version, &details.config_digest);
        (self.numbers.hash_one(hostname), self.numbers.hash_one(said))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Said>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::hbs::AgentDetails;

    #[test]
    fn the_last_report_of_each_host_is_known() {
        let report = |hostname: &str, ip: &str| AgentReport {
            hostname: hostname.to_string(),
            ip: ip.to_string(),
            agent_version: "7.0".to_string(),
            plugin_version: String::new(),
            ..AgentReport::default()
        };
        let reported = Reported::default();
        assert!(!reported.is_known(&report("a", "1"), 5));
        reported.note(&report("a", "1"), None, 5);
        assert!(reported.is_known(&report("a", "1"), 5) && !reported.is_known(&report("a", "2"), 5));
        assert!(!reported.is_known(&report("b", "1"), 5));
        reported.note(&report("a", "2"), None, 5);
        assert!(reported.is_known(&report("a", "2"), 5) && !reported.is_known(&report("a", "1"), 5));
        for host in 0..host::HOSTS_MAX {
            reported.note(&report(&host.to_string(), ""), None, 5);
        }
        assert!(reported.known().len() <= 100_000 && reported.is_known(&report("99999", ""), 5));
    }

    #[test]
    fn an_offset_is_said_again_where_it_matters() {
        let report = |digest: &str, clock_offset_ms| AgentReport {
            hostname: "a".to_string(),
            details: AgentDetails { config_digest: digest.into(), clock_offset_ms, ..AgentDetails::default() },
            ..AgentReport::default()
        };
        let reported = Reported::default();
        reported.note(&report("d", None), None, 5);
        assert!(reported.is_known(&report("d", None), 5) && !reported.is_known(&report("e", None), 5));
        assert!(!reported.is_known(&report("d", Some(7)), 5), "the first");
        reported.note(&report("d", Some(7)), Some(7), 5);
        assert!(reported.is_known(&report("d", Some(-900)), 5) && reported.is_known(&report("d", None), 5));
        assert!(!reported.is_known(&report("d", Some(-1000)), 5) && reported.wrong_clocks(5) == 0);
        reported.note(&report("d", Some(-400_000)), Some(-400_000), 5);
        assert_eq!(reported.wrong_clocks(5), 1);
        assert!(reported.is_known(&report("d", Some(-400_000)), 100));
        assert_eq!([100 + LASTS_S, 101 + LASTS_S].map(|now| reported.wrong_clocks(now)), [1, 0], "who is gone is not");
    }
}
