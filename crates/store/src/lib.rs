//! Store: the time-series engine. Series are named once and numbered; points go to a log, then to hot chunks in memory,
//! then to immutable blocks; queries merge what is in memory and on disk.
//!
//! Why: Open-Falcon's graph holds whole items in memory, writes one 70 KB file per series, and loses half an hour in a
//! crash. Here a series costs about a hundred bytes, files are few and sequential, and what was acknowledged is in the log.
//! How: in reading order below. Files only: no network, no async, no clock, no thread; time and disk are arguments.
//! Memory: see `table`, `hot`, `arena`; shown by [`Memory`].
//! Formats: docs/format/{series,cold,log,chunk,block,rollup}.md.

mod arena;
mod asleep;
mod block;
mod catalog;
mod census;
pub mod chunk;
mod cold;
pub mod column;
mod counters;
mod error;
mod flush;
#[doc(hidden)]
pub mod fuzzing;
mod hot;
mod log;
mod memory;
mod merge;
mod names;
mod options;
mod query;
mod record;
mod retention;
mod rollup;
mod rows;
mod search;
mod series_file;
mod shard;
mod sleep;
mod stats;
mod store;
mod table;
mod warm;

pub use census::{Census, Most};
pub use error::Error;
pub use flush::Tick;
pub use log::Fsync;
pub use memory::Memory;
pub use merge::Merged;
pub use names::Finder;
pub use options::Options;
pub use query::{Histories, Query};
pub use rows::{Cf, Grid};
pub use search::{CounterQuery, CounterRow, EndpointQuery, SeriesInfo};
pub use shard::{Observer, ShardView};
pub use sleep::{IsNeeded, Slept};
pub use stats::{KindStats, Stats};
pub use store::{Appended, Recovery, Store};
pub use table::{Found, STEP_MAX, TEXT_MAX};
