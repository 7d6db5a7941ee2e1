//! Reported: what each agent has said of itself last, so that one that says the same again asks no database.
//!
//! How: a number for the name, and one for the name with all that was said. Two agents are taken for one only where
//! both numbers of 64 bits are the same by chance.
//! Invariants: what is known here was written before. A host that the tables have lost is not known, whatever is here:
//! the caller looks, and the host comes back with its next report.
//! Memory: 16 bytes and a place per host, of at most [`host::HOSTS_MAX`].
//! Compat: docs/open-falcon/wire.md §4: the original remembers so, too, what has been written.

use crate::portal::host;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::hbs::AgentReport;

/// What is known of agents; clones share it.
#[derive(Clone, Default)]
pub struct Reported {
    known: Arc<Mutex<HashMap<u64, u64>>>,
    numbers: RandomState,
}

impl Reported {
    /// Whether this was said before, as the last of its agent.
    pub fn is_known(&self, report: &AgentReport) -> bool {
        let (name, all) = self.numbers_of(report);
        self.known().get(&name) == Some(&all)
    }

    /// Notes what has been written.
    pub fn note(&self, report: &AgentReport) {
        let (name, all) = self.numbers_of(report);
        let mut known = self.known();
        if known.len() >= usize::try_from(host::HOSTS_MAX).unwrap_or(usize::MAX) && !known.contains_key(&name) {
            // Names that came and went; those that are there say so within a minute.
            known.clear();
        }
        known.insert(name, all);
    }

    /// Bytes that are held.
    pub fn memory_bytes(&self) -> usize {
        self.known().capacity() * (size_of::<(u64, u64)>() + 1)
    }

    fn numbers_of(&self, report: &AgentReport) -> (u64, u64) {
        let AgentReport { hostname, ip, agent_version, plugin_version } = report;
        (self.numbers.hash_one(hostname), self.numbers.hash_one((hostname, ip, agent_version, plugin_version)))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_of_each_host_is_known() {
        let report = |hostname: &str, ip: &str| AgentReport {
            hostname: hostname.to_string(),
            ip: ip.to_string(),
            agent_version: "7.0".to_string(),
            plugin_version: String::new(),
        };
        let reported = Reported::default();
        assert!(!reported.is_known(&report("a", "1")));
        reported.note(&report("a", "1"));
        assert!(reported.is_known(&report("a", "1")) && !reported.is_known(&report("a", "2")));
        assert!(!reported.is_known(&report("b", "1")));
        reported.note(&report("a", "2"));
        assert!(reported.is_known(&report("a", "2")) && !reported.is_known(&report("a", "1")));
        for host in 0..host::HOSTS_MAX {
            reported.note(&report(&host.to_string(), ""));
        }
        assert!(reported.known().len() <= 100_000 && reported.is_known(&report("99999", "")));
    }
}
