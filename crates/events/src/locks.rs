//! Locks: the ranks of the event queue's locks.
//!
//! Bounds: upkeep waits for the disk and is in nobody's way; appends wait for the state, under which nothing is read,
//! synced, created, removed or logged.

use stdx::Rank;

/// Held while segments are begun, synced and deleted.
pub const UPKEEP: Rank = Rank::new(1900, "upkeep of the event queue");

/// Held for one write to the system's cache, or to move a cursor.
pub const STATE: Rank = Rank::new(3200, "event queue");
