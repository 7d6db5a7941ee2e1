//! Locks: the ranks of the engine's locks, between and behind those of the store ([`store::locks`]).
//!
//! How: a thread takes locks in the order of this list only, which debug builds check ([`stdx::ranked`]): what the
//! store holds to name series → `loading` → a shard of the store, or the windows of one → `judge` → the locks of the
//! joins ([`judge::locks`]) → `backlog` → the joins' outbox → the event queue ([`events::locks`]) → one innermost lock,
//! the table of series included.
//! Bounds: from the shard on, points wait for each; nothing is read, synced or logged under one of those. Each lock's
//! own comment says what a message may do under it.

use stdx::Rank;

/// Held while rules are loaded, and by whoever takes series away.
pub const LOADING: Rank = Rank::new(2550, "loading");

/// Held for what is done with the windows of one shard, where there is no store.
pub const WINDOWS: Rank = store::locks::SHARD;

/// Held while a point of a shard is judged.
pub const JUDGE: Rank = Rank::new(2900, "judge");

/// Events that wait for the disk.
pub const BACKLOG: Rank = Rank::new(3000, "backlog");

/// Lines that wait for the log.
pub const EVENT_LOG: Rank = Rank::innermost("event log");

/// Series that the index task has not been told of.
pub const RECENT: Rank = Rank::innermost("recent series");

/// The lists of growers.
pub const GROWTH: Rank = Rank::innermost("growth");

/// The senders that are odd.
pub const ODDITIES: Rank = Rank::innermost("odd senders");

/// Rules in effect, for the old routes.
pub const RULES: Rank = Rank::innermost("rules");

/// Open alarms whose rule or series was not read.
pub const KEPT: Rank = Rank::innermost("kept alarms");

/// Open problems of series that left while rules were loaded.
pub const ORPHANS: Rank = Rank::innermost("orphans");
