//! A cold run in whatever state: nothing panics, names come in order, and a merge keeps what can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| store::fuzzing::cold_run(content));
