//! Spool: records that wait in files for one reader; when they are too many, the oldest go.
//!
//! Why: whoever forwards points must neither lose what it has answered for, nor hold it in memory, nor fill the disk
//! while the other side is away.
//! How: [`Frames`] puts records together, [`Spool::append`] writes them to the last of some segment files,
//! [`Spool::read`] hands out those behind a [`Position`], and [`Spool::consumed`] removes the segments that are read.
//! Invariants: what `append` has returned for is read after a kill, and after a loss of power up to the last
//! [`Spool::sync`]; records come in the order in which they were appended, those since the last [`Spool::keep_cursor`]
//! again after a start; what is found missing between two starts is counted and told ([`Spool::take_found`]); files
//! have at most the bytes of [`Options`], and what is dropped for that is counted. No clock, no thread, no network.
//! Memory: one frame at a time, by whoever reads; per segment some 100 bytes.
//! The bytes are in docs/format/spool.md.

mod cursor;
mod frame;
mod segment;
mod spool;

pub use frame::Frames;
pub use spool::{Options, Position, Read, Spool, Stats};

#[cfg(test)]
mod tests;
