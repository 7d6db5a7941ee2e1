//! Hot: the newest points of every series that is awake, in memory.
//!
//! `chunk.rs` codes points so that they are read from the newest back; `arena.rs` is the memory they lie in;
//! `chains.rs` are the chunks of one shard's series; `shard.rs` parts series among shards, and is what an observer of
//! new points sees.

mod arena;
mod chains;
pub mod chunk;
mod shard;

pub use chains::{Hot, Outcome, Spans};
pub use shard::{Observer, ShardView, Shards};
