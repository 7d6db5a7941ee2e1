//! Transfer: the doors through which points come in.
//!
//! `rpc` is what agents and gateways speak, `http` what scripts post to, `telnet` the legacy line protocol. All three
//! end in the same [`crate::engine::ingest::Ingest`]; none keeps a point after its answer.

pub mod http;
pub mod rpc;
pub mod telnet;
