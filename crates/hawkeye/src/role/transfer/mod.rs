//! Transfer: the doors through which points come in.
//!
//! `rpc` is what agents and gateways speak, `http` what scripts post to, `telnet` the legacy line protocol. All three
//! end in the same [`points::Points`]: this server's own store, or, for a gateway and a transfer that stands alone, the
//! buffers of the [`fanout`]. None keeps a point after its answer.

pub mod fanout;
pub mod http;
pub mod points;
pub mod rpc;
pub mod telnet;
