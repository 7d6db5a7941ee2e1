//! Collect: what a host's owner switches on in section `[collect]`, and nothing that the original has.
//!
//! How: `config` says what is on; a [`Collector`] is one that is, with what it has seen so far. Those that only read
//! files are in crates/probe (`optional`); those that need a child process, a socket or a library are here, a file
//! each. Every one has its own task and its own times, so that one that hangs is silent alone.
//! Invariants: nothing here knows the agent; a collector hands back readings, and faults by the name of what failed.
//! Memory: what each file says; a collector that is off has none.

mod certificates;
mod child;
mod collector;
mod config;
mod exporters;
mod fault;
mod ntp;
mod nvml;
mod smart;
mod statsd;
mod units;

pub use child::{Output, Program};
pub use collector::{Collector, HANGING_MAX, Moment};
pub use config::CollectConfig;
pub use exporters::of_page;
pub use fault::{Fault, Told};
pub use statsd::of_datagram;

use probe::{ProbeError, Reading};

/// What came out of one round.
#[derive(Debug, Default)]
pub struct Collected {
    pub readings: Vec<Reading>,
    pub faults: Vec<Fault>,
}

impl Collected {
    fn fail(&mut self, of: impl Into<String>, why: impl Into<String>) {
        self.faults.push(Fault { of: of.into(), why: why.into() });
    }

    fn fail_all(&mut self, errors: Vec<ProbeError>) {
        self.faults.extend(errors.into_iter().map(|error| Fault::of_file(&error)));
    }
}

#[cfg(test)]
mod tests;
