//! Gob: what Go's `net/rpc` speaks between Open-Falcon's transfer, judge, graph and api, both sides of it.
//!
//! Why: the original decodes by reflection into structs, five strings and a map of tags per item. Here an item borrows
//! from the message, and its tags are written as canonical text without ever being a map.
//! How: a connection is a row of messages, each `uint(bytes)` and that many bytes. A message defines a type
//! (`int(-id)`, a description) or is a value (`int(id)`, the value). A request is two values, `Request{ServiceMethod,
//! Seq}` and the argument; an answer is `Response{ServiceMethod, Seq, Error}` and the reply, an empty struct on errors.
//! Definitions stand before their first use and count for the rest of the connection.
//!
//! ```text
//! uint     one byte below 128; else 256-n as one byte, then n ≤ 8 bytes, high one first
//! int      uint of i<<1, or of (!i<<1)|1 when negative          bool      uint 0 or 1
//! float    uint of the bits of the double with its bytes reversed (exponent first)
//! string   uint(bytes), bytes                                   []byte    the same
//! slice    uint(count), elements                                map       uint(count), key and element in turn
//! struct   (uint(difference to the last field's number, from -1), value)* 0; zero fields are left out
//! a value that is no struct has a 0 before it when it stands alone in a message
//! types    1 bool  2 int  3 uint  4 float  5 []byte  6 string  7 complex  8 interface; from 64 on the sender's
//! ```
//!
//! Reading order: `value` (primitives), `types` (definitions), `plan` (fields by name), `message` (framing),
//! `call` (the server's side: requests), `items` (what `Graph.Send` and `Judge.Send` carry), `write`,
//! `describe` and `encode` (the server's side: replies), `client` (the other side of both).
//! Invariants: never panics, whatever comes; work is linear in the bytes read; nesting is bounded by
//! [`DEPTH_MAX`]; a connection's table of types by [`TYPES_MAX`]. Nothing is allocated per item in the
//! steady state (`tests/gob_allocations.rs`).
//! Compat: as in Go fields match by name, unknown ones are skipped, missing ones are zero, and a field of another type
//! is an error for the call. Interface values, complex numbers and types with an encoding of their own can only be
//! skipped, an interface only when it is nil.
//! Source: the documentation of Go's packages encoding/gob and net/rpc; `testdata/gob` has recorded connections.

use std::fmt;

mod call;
pub mod client;
mod describe;
mod encode;
mod items;
mod message;
mod plan;
mod types;
mod value;
mod write;

pub use call::{Call, Decoder, GraphDelete, GraphQuery, GraphSeries};
pub use encode::{Encoder, QueryHead};
pub use items::{GobScratch, GraphItem, JudgeItem, P8sItem};
pub use types::{DEPTH_MAX, FIELDS_MAX, TYPES_MAX};

/// A fault of a message, and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GobError {
    pub what: &'static str,
    /// Name of the field in question; empty when the field is none of ours.
    pub field: &'static str,
    /// Bytes from the start of the request or reply.
    pub offset: usize,
}

impl fmt::Display for GobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid gob at byte {}: ", self.offset)?;
        if !self.field.is_empty() {
            write!(f, "field {}: ", self.field)?;
        }
        f.write_str(self.what)
    }
}

impl std::error::Error for GobError {}

#[cfg(test)]
mod tests;
