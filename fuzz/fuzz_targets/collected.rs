//! Collected: what programs of the host send the agent, and what it is told to run.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| agent::fuzzing::collected(bytes));
