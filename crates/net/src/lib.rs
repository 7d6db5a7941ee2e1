//! Net: how a process listens, bounds its connections and their buffers, and lets them finish at the end.
//!
//! `listen` accepts (allow-list, counters, shutdown), `places` says how many connections there are and who gives way,
//! `connection` carries messages, `rpc` (JSON-RPC 1.0) and `gob` (Go's net/rpc) are what is spoken over it, `http`
//! serves an axum router over one, and refuses what a foreign page asks; `turns` lets only so much happen at once, with
//! no peer having all of it, and `budget` counts in turns the bytes that unfinished messages may hold together;
//! `stream` is a connection's bytes, in plain text or out of [`tls`]; `gate` asks senders for a token.

pub mod budget;
pub mod connection;
pub mod gate;
pub mod gob;
pub mod http;
pub mod listen;
#[cfg(any(test, feature = "testing"))]
pub mod patience;
pub mod places;
pub mod rpc;
pub mod seldom;
pub mod stream;
pub mod tls;
pub mod turns;
