//! Netprobe: asks from outside whether something works, how fast, and why not.
//!
//! Why: what a host says about itself is nothing against what its users see. A probe is defined once and run by agents,
//! by the server or by hand, with the same result.
//! How: a [`Definition`] says what is asked and what should come; [`run()`] asks once, within its time limit, whom the
//! [`Policy`] permits, and gives an [`Outcome`]: up or down, a [`Reason`], phases, readings. One file per kind: `http`,
//! `tcp` (and TLS), `icmp`, `dns`, `grpc`, `script`. A [`Runner`] does so for many, spread over their steps.
//! Invariants: a run ends within its limit, whatever the other side does; each byte, line, redirect and record that
//! comes has a bound; nothing is sent anywhere but to addresses that the policy has seen; a failure has a reason.
//! Memory: [`Definition`]s, and per run that goes on a connection, an answer's head and what of it is looked at.

mod definition;
pub mod delivery;
mod outcome;
mod policy;

mod aside;
mod dial;
mod fault;
mod lines;
mod means;
mod pattern;
mod place;
mod resolve;
mod roots;
mod starttls;
pub mod strays;
mod tls;
mod trace;

mod dns;
mod grpc;
mod http;
mod icmp;
mod script;
mod tcp;

mod run;
mod runner;
mod spread;

#[doc(hidden)]
pub mod fuzzing;

pub use definition::{BYTES_MAX, Definition, Kind};
pub use dial::Family;
pub use dns::{Dns, RecordType, Transport};
pub use grpc::Grpc;
pub use http::{BodyMatch, Http, JsonMatch, Protocol};
pub use icmp::Icmp;
pub use means::Means;
pub use outcome::{Code, Outcome, Phase, Reason};
pub use policy::{Limits, Policy, Rest, Rule, Scripts};
pub use run::run;
pub use runner::{CONCURRENT_MAX, Ran, Runner, RunnerCounters};
pub use script::Script;
pub use spread::spread;
pub use starttls::StartTls;
pub use tcp::{Step, Tcp, TlsTarget};
pub use tls::TlsOptions;

#[cfg(test)]
mod tests;
