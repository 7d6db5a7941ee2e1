//! Packed: parameters of `Transfer.UpdateCompressed`, in whatever state, and arrays that are packed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::packed::{UNPACKED_MAX, read_packed, write_packed};

fuzz_target!(|bytes: &[u8]| {
    let mut array = Vec::new();
    if read_packed(bytes, &mut array).is_ok() {
        assert!(array.len() <= UNPACKED_MAX);
    }
    let mut param = Vec::new();
    if write_packed(&mut param, bytes) {
        assert!(param.len() < bytes.len() + 16);
        assert_eq!(read_packed(&param, &mut array), Ok(()));
        assert!(array == bytes);
    } else {
        assert!(param.is_empty());
    }
});
