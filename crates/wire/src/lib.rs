//! Bytes ⇄ the field's nouns, for every protocol that Hawkeye speaks. Sans-IO: input is a slice that somebody else
//! read, output is a `Vec<u8>` that somebody else sends.
//!
//! Hostile input is the normal case: nothing here panics, recurses by the input's will, or holds more than a bounded
//! multiple of one message. Nothing is allocated per item in the steady state (`tests/allocations.rs`).
//!
//! Compat: the formats are those of Open-Falcon's agent, transfer, hbs, judge and graph; docs/compat.md lists the
//! differences.

pub mod json;
pub mod protobuf;

pub mod frame;
pub mod jsonrpc;

pub mod gob;

pub mod hbs;
pub mod http;
pub mod item;
pub mod packed;
pub mod telnet;
pub mod transfer;

pub use frame::{FrameError, Framer};
pub use item::{Invalid, Item, OutItem, decode_items, write_item};
pub use json::{JsonError, Scratch};
