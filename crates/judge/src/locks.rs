//! Locks: the ranks of the joins' locks. Whoever owns the judges gives them a lower level, and a level between
//! [`JOIN`] and [`OUTBOX`] to what is held while events are handed over.
//!
//! Bounds: beside each lock in `joins.rs`.

use stdx::Rank;

/// The table of joins.
pub const JOINS: Rank = Rank::new(2910, "table of joins");

/// Held while the series of one join speak.
pub const JOIN: Rank = Rank::new(2920, "a join");

/// Events that were decided and are not handed over yet.
pub const OUTBOX: Rank = Rank::new(3100, "outbox");
