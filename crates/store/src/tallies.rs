//! Tallies: what happened since the start, and what the work under way holds, each counted where it happens.
//!
//! How: atomic numbers that nobody waits for; `read/stats.rs` and `read/memory.rs` read them when somebody looks.

use std::sync::atomic::AtomicU64;
use stdx::ledger::Account;

/// Events since the start; [`crate::Stats`] says of each what is counted.
#[derive(Default)]
pub struct Tallies {
    pub points: AtomicU64,
    pub duplicates: AtomicU64,
    pub late: AtomicU64,
    pub too_old: AtomicU64,
    pub unknown: AtomicU64,
    pub log_errors: AtomicU64,
    pub unjudged: AtomicU64,
    pub flushes: AtomicU64,
    pub flush_errors: AtomicU64,
    pub corrupt_reads: AtomicU64,
    /// Ids that were ever removed, before the start as well.
    pub removed_series: AtomicU64,
    pub merges: AtomicU64,
    pub merge_errors: AtomicU64,
    pub merge_bytes: AtomicU64,
    pub rollup_bytes: AtomicU64,
}

/// Memory of work that comes and goes.
pub struct Accounts {
    pub flush: Account,
    pub merge: Account,
    pub reads: Account,
}

impl Default for Accounts {
    fn default() -> Accounts {
        Accounts {
            flush: Account::new("flush", None),
            merge: Account::new("merge", None),
            reads: Account::new("reads", None),
        }
    }
}
