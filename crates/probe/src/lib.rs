//! Probes: what a host says about itself, read from `/proc` and `/sys` under a given root.
//!
//! Why: the agent's metrics are a contract (docs/open-falcon/agent.md §3): dashboards, templates and scripts of the
//! field name them.
//! How: one file per collector, each a function from files to [`Reading`]s; [`Scope::collect`] runs a group of them.
//! What is a rate "over the last second" comes from the [`Sampler`], to which the caller hands the time.
//! Own small parsers instead of a library: the original skips or clamps what it does not understand line by line
//! (interfaces with other than 16 fields, counters above 2^63, short disk lines), a library refuses the whole file.
//! What a host's owner switches on is in [`optional`].
//! Invariants: no clock, no socket, no child process, no async; nothing here keeps state but the sampler, and what of
//! [`optional`] follows processes and files; every value is finite; tags are canonical; a collector that fails leaves
//! the others alone and names its file.
//! Memory: a file is read up to [`FILE_BYTES_MAX`], which bounds the readings too.

mod reading;
mod roots;
mod text;

mod diskstats;
mod iface;
mod mount;
mod sampler;

mod cpu;
mod df;
mod disk_io;
mod kernel;
mod load;
mod mem;
mod net_if;
mod netstat;
mod snmp;
mod ss;

mod driven;
mod port;
mod process;

pub mod optional;

mod group;
pub mod look;

pub use df::{Mounted, Space, report as report_spaces};
pub use driven::{DRIVEN_MAX, Driven, UrlCheck};
pub use group::{Group, PARTS, Part, Scope};
pub use process::ProcessMatch;
pub use reading::{Reading, tag};
pub use roots::{FILE_BYTES_MAX, ProbeError, Roots};
pub use sampler::Sampler;

#[cfg(test)]
mod tests;
