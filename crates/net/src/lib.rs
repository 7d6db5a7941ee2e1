//! Net: how a process listens, bounds its connections and their buffers, and lets them finish at the end.
//!
//! `listen` accepts (allow-list, connection limit, counters, shutdown), `connection` carries messages, `rpc` (JSON-RPC 1.0)
//! and `gob` (Go's net/rpc) are what is spoken over it, `http` serves an axum router over one, `budget` bounds the bytes
//! that unfinished messages may hold together.

pub mod budget;
pub mod connection;
pub mod gob;
pub mod http;
pub mod listen;
#[cfg(any(test, feature = "testing"))]
pub mod patience;
pub mod rpc;
