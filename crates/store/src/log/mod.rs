//! The log: every accepted batch on disk before it is answered, so that a killed process loses nothing.
//!
//! `writer.rs` appends, syncs and removes; `segment.rs` is one file of the log, and how it is read at start; `batch.rs`
//! codes samples. docs/format/log.md draws the bytes.

mod batch;
mod segment;
mod writer;

pub use batch::encode;
pub use segment::segment_name;
pub use writer::{Before, Log};
