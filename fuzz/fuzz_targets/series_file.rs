//! A series file in whatever state: nothing panics, and what was read once is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| store::fuzzing::series_file(content));
