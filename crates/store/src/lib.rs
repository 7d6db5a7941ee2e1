//! Store: the time-series engine. Series are named once and numbered; points go to a log, then to hot chunks in memory,
//! then to immutable blocks; queries merge what is in memory and on disk.
//!
//! Why: Open-Falcon's graph holds whole items in memory, writes one 70 KB file per series, and loses half an hour in a
//! crash. Here a series costs about a hundred bytes, files are few and sequential, and what was acknowledged is in the
//! log.
//! How: in reading order below, from what all agree on to what callers open. Arrows run up the list only: `store` knows
//! `work`, which knows `read`, which knows `parts`, which knows `block`, `log` and `hot`, which know `series`.
//! Files only: no network, no async, no clock, no thread; time and disk are arguments.
//! Memory: see `series/table.rs`, `hot/chains.rs`, `hot/arena.rs`; shown by [`Memory`].
//! Formats: docs/format/{series,cold,log,chunk,block,rollup,manifest}.md.

mod damage;
mod error;
pub mod locks;
mod manifest;
mod options;
mod record;
mod sizes;

mod series;

mod hot;
mod log;

mod block;

mod parts;
mod tallies;

mod read;

mod work;

mod store;

#[doc(hidden)]
pub mod fuzzing;

pub use block::column;
pub use error::Error;
pub use hot::{Observer, ShardView, chunk};
pub use options::{Fsync, Options};
pub use parts::Parts;
pub use read::{Census, Most};
pub use read::{Cf, Grid, Histories, Query};
pub use read::{CounterQuery, CounterRow, EndpointQuery, SeriesInfo};
pub use read::{KindStats, Memory, Stats};
pub use series::{Found, Metas, Stretch};
pub use sizes::{STEP_MAX, TEXT_MAX};
pub use store::{Store, Tick};
pub use work::{Appended, Finder, IsNeeded, Merged, Past, Recovery, Slept};
