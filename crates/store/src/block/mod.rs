//! Blocks: points, and roll-ups of points, in immutable files by UTC day; and which of these files count.
//!
//! `label.rs` says what a file stands for; `file.rs` is a file that is not open, `writer.rs` writes one, `reader.rs`
//! reads one;
//! `coding.rs` codes a series' points in it, as the records of a hot chunk or as the columns of `column.rs`;
//! `rollup.rs` makes and codes roll-ups; `catalog.rs` orders files by day; `shelf.rs` holds the catalog of now, and the
//! files that are to go.

mod catalog;
mod coding;
pub mod column;
mod file;
mod label;
mod reader;
pub mod rollup;
mod shelf;
#[cfg(test)]
mod tests;
mod writer;

pub use catalog::{Catalog, Day, without_superseded};
pub use coding::{keep_first_of_equal_times, take_head};
pub use file::{Block, list, number_of_name};
pub use label::{FINAL, Kind, Label, ROLLUPS, day_of_points};
pub use reader::{Entry, Reader};
pub use shelf::{Doomed, Shelf};
pub use writer::Writer;
