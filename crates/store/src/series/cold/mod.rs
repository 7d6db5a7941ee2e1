//! Cold runs: the names of series that left memory, in immutable sorted files, `cold/<first>-<last>.run`.
//!
//! Why: a fleet of short-lived containers must not grow memory, yet a series that fell silent stays searchable and
//! readable, and has its old id when it comes back. Tens of millions of names must be asked about, for every new
//! series, in a few small reads.
//! How: when series fall asleep their names are written as one run, sorted; runs are merged as they grow many, newer
//! ones win. A run is two search trees of prefix-compressed pages of some 4 KiB, one over series, one over endpoints,
//! and a footer. The branches above the pages of series hold a filter for each, so that a name that is not there costs
//! one or two reads and one that is costs three. Each page is a record of `record.rs`: what reads in order skips damage
//! and goes on. docs/format/cold.md draws the bytes.
//! `key.rs` orders names, `page.rs` codes entries, `tree.rs` writes trees of pages to an `output.rs`, `footer.rs` ends
//! the file;
//! `writer.rs` writes a run, `run.rs` reads one, `merge.rs` says which runs become one, and how; `open.rs` opens all.
//! Invariants: a run knows the range of sequences it covers, so the inputs of a merge whose end was cut off are known
//! as superseded; no byte is trusted before its checksum, and none after it to make sense; the file stays open, so that
//! a run can be read to the end while its file is replaced or removed.
//! Memory: per run one page, some 4 KiB and 52 KiB at most; reading takes a page per level, or a window of 64 KiB.

mod footer;
mod key;
mod merge;
mod open;
mod output;
mod page;
mod run;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

pub use footer::{FOOTER_BYTES, MAGIC};
pub use merge::{merge, pick_merge, retire};
pub use open::open_all;
pub use run::{ColdFound, ColdSeries, Run};
pub use writer::RunWriter;
