//! Probe: what the servers and scripts that are probed answer, and definitions of probes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| netprobe::fuzzing::answers(bytes));
