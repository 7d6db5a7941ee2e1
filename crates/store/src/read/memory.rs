//! Memory: what the store holds now, by owner, for the ledger of whoever runs it.
//!
//! How: what lasts is asked when somebody looks, from capacities that its owners know: a few instructions per 256
//! series, each shard's lock held for its own share only. What comes and goes with a piece of work (a flush, a merge,
//! reading) is counted while that runs, in [`crate::tallies::Accounts`].
//! Invariants: a byte is in one field only.

use crate::parts::Parts;

/// Bytes taken from the allocator, by owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Distinct texts of endpoints, metrics and tags, and counters made of them.
    pub texts: usize,
    /// Records of series, and the hash table that finds them by name.
    pub index: usize,
    /// Newest point and state of each series.
    pub heads: usize,
    /// Points behind the newest: blocks of the arenas, free ones included, and late points.
    pub chunks: usize,
    /// Buffers of appends and of the series file, kept for the next call, and what is remembered of log segments.
    pub log: usize,
    /// Labels and directories of block files.
    pub catalog: usize,
    /// First pages of the files of sleeping series.
    pub asleep: usize,
    /// A flush under way.
    pub flush: u64,
    /// A merge under way.
    pub merge: u64,
    /// Queries under way.
    pub reads: u64,
}

impl Parts {
    /// Bytes that the store holds now, by owner. Takes each shard's lock in turn.
    pub fn memory(&self) -> Memory {
        let (catalog, runs) = (self.blocks(), self.runs());
        let mut memory = Memory {
            log: self.buffer_bytes(),
            catalog: catalog.memory_bytes(),
            asleep: runs.iter().map(|run| run.memory_bytes()).sum(),
            flush: self.accounts.flush.bytes(),
            merge: self.accounts.merge.bytes(),
            reads: self.accounts.reads.bytes(),
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
