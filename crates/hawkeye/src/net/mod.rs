//! Sockets: how this process listens, bounds its connections and their buffers, and lets them finish at the end.
//!
//! `listen` accepts (allow-list, connection limit, counters, shutdown), `rpc` speaks JSON-RPC 1.0 over a connection,
//! `http` serves an axum router over one, `budget` bounds the bytes that unfinished messages may hold together.

pub mod budget;
pub mod http;
pub mod listen;
pub mod rpc;
