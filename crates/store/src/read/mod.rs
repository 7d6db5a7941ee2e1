//! Read: everything that is asked of the store and changes nothing.
//!
//! `query.rs` answers points and rows, which `rows.rs` lays on the grid; `search.rs` finds names that are awake,
//! `asleep.rs` those that sleep, with the sets of `bits.rs`; `census.rs` counts who has the most series; `stats.rs` and
//! `memory.rs` are the store's figures.

mod asleep;
mod bits;
mod census;
mod memory;
mod query;
mod rows;
mod search;
mod stats;

pub use census::{Census, Most};
pub use memory::Memory;
pub use query::Histories;
pub use rows::{Cf, Grid, Query};
pub use search::{CounterQuery, CounterRow, EndpointQuery, SeriesInfo};
pub use stats::{KindStats, Stats};
