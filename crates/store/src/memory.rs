//! Memory: what the store holds now, by owner, for the ledger of whoever runs it.
//!
//! How: what lasts is asked when somebody looks, from capacities that its owners know: a few instructions per 256 series,
//! each shard's lock held for its own share only. What comes and goes with a piece of work (a flush, a merge, reading) is
//! counted while that runs, in [`Transient`].
//! Invariants: a byte is in one field only.

use crate::store::Store;
use stdx::ledger::Account;

/// Bytes taken from the allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Distinct texts of endpoints, metrics and tags, and counters made of them.
    pub texts: usize,
    /// Records of series, and what finds them by name.
    pub index: usize,
    /// Newest point and state of each series.
    pub heads: usize,
    /// The points behind them: blocks of the arenas, free ones included, and late points.
    pub chunks: usize,
    /// Buffers of appends and of the series file, kept for the next call, and what is remembered of log segments.
    pub log: usize,
    /// What is kept of each block file.
    pub catalog: usize,
    /// What is kept of each file of sleeping series.
    pub asleep: usize,
    /// A flush under way.
    pub flush: u64,
    /// A merge under way.
    pub merge: u64,
    /// Queries under way.
    pub reads: u64,
}

/// Accounts of work that comes and goes.
pub(crate) struct Transient {
    pub flush: Account,
    pub merge: Account,
    pub reads: Account,
}

impl Default for Transient {
    fn default() -> Transient {
        Transient {
            flush: Account::new("flush", None),
            merge: Account::new("merge", None),
            reads: Account::new("reads", None),
        }
    }
}

impl Store {
    pub fn memory(&self) -> Memory {
        let (catalog, runs) = (self.blocks(), self.runs());
        let mut memory = Memory {
            log: self.buffer_bytes(),
            catalog: catalog.memory_bytes(),
            asleep: runs.iter().map(|run| run.memory_bytes()).sum(),
            flush: self.transient.flush.bytes(),
            merge: self.transient.merge.bytes(),
            reads: self.transient.reads.bytes(),
            ..Memory::default()
        };
        for hot in self.shards.iter() {
            memory.heads += hot.head_bytes();
            memory.chunks += hot.chunk_bytes();
        }
        let table = self.table();
        (memory.texts, memory.index) = (table.text_bytes(), table.index_bytes());
        memory
    }
}
