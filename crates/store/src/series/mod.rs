//! Series: what the store knows of names: which series there are, awake in memory or asleep on disk.
//!
//! `meta.rs` is what is known of a series besides its name, `metas.rs` what that was at any time; `counters.rs` holds
//! the texts that hosts share; `table.rs` is all series that are awake; `file.rs` is the journal that says what each id
//! means, `naming.rs` how the table follows it; `cold/` are the files of names that sleep.

pub mod cold;
mod counters;
mod file;
mod meta;
mod metas;
mod naming;
mod table;

pub use counters::find_counter;
pub use file::{Change, Compaction, NAME as SERIES_NAME, SeriesFile};
pub use meta::{Found, Meta, check_texts};
pub use metas::{Metas, Past, Stretch, kind_since};
pub use naming::{Naming, insert};
pub use table::Table;
