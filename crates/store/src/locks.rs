//! Locks: the ranks of the store's locks. Each lock's comment says what may be done while it is held.
//!
//! How: a thread takes locks in the order of this list only, which debug builds check ([`stdx::ranked`]):
//! `merge` → `flush` → `sleep` → `names sync` → `log prepare` → `log sync` → `catalog change` → `manifest` → `naming` →
//! `chains` → `gate` → a shard → what an [`crate::Observer`] takes → one innermost lock.
//! Levels below [`MERGE`] are for what a caller holds while it calls the store; those above [`SHARD`] are for what an
//! observer takes, which is called with a shard locked, and may still look at the table behind it.
//! Bounds: the first eight are not in the way of who appends or names series; all of them but `catalog change` wait for
//! the disk. From
//! `naming` on the hot path waits for each: nobody reads, syncs, creates or removes a file while holding one of those.
//! A write to the system's cache is all that the disk sees of them, under `naming` and under the log's writer.

use stdx::Rank;

/// Held for a step of merging blocks.
pub const MERGE: Rank = Rank::new(2000, "merge");

/// Held for a whole flush.
pub const FLUSH: Rank = Rank::new(2100, "flush");

/// Held while series fall asleep, and while runs are written and merged.
pub const SLEEP: Rank = Rank::new(2200, "sleep");

/// Held while the series file is made durable, or written anew.
pub const NAMES_SYNC: Rank = Rank::new(2300, "names sync");

/// Held while the next segment of the log is created.
pub const LOG_PREPARE: Rank = Rank::new(2400, "log prepare");

/// Held while the log is synced.
pub const LOG_SYNC: Rank = Rank::new(2410, "log sync");

/// Held while a new catalog of blocks is made of the one there is.
pub const CATALOG_CHANGE: Rank = Rank::new(2420, "catalog change");

/// Held while the manifest is written.
pub const MANIFEST: Rank = Rank::new(2430, "manifest");

/// Held while series are named, changed, removed, or fall asleep.
pub const NAMING: Rank = Rank::new(2500, "naming");

/// Held for reading by those who walk the table's chains in several goes, for writing by a sweep.
pub const CHAINS: Rank = Rank::new(2600, "chains");

/// Held for reading while a batch is logged and applied, for writing while a flush begins.
pub const GATE: Rank = Rank::new(2700, "gate");

/// Held for what is done with the points of one shard.
pub const SHARD: Rank = Rank::new(2800, "a shard");

/// Names and types of series.
pub const TABLE: Rank = Rank::innermost("table");

/// The log's current segment.
pub const LOG_WRITER: Rank = Rank::innermost("log writer");

/// The blocks that count.
pub const CATALOG: Rank = Rank::innermost("catalog");

/// The runs of sleeping series.
pub const RUNS: Rank = Rank::innermost("runs");

/// Blocks whose files are to go.
pub const DOOMED: Rank = Rank::innermost("doomed blocks");

/// Notes of damaged files.
pub const DAMAGE: Rank = Rank::innermost("damage");

/// Buffers of appends that are not running.
pub const SCRATCH: Rank = Rank::innermost("scratch");
