//! A line of the telnet door.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::telnet::{Line, line};

fuzz_target!(|bytes: &[u8]| {
    if let Line::Update(item) = line(bytes) {
        assert!(!item.endpoint.is_empty() && !item.metric.is_empty() && item.tags.is_empty());
        assert!(item.value.is_finite() && item.step > 0 && item.timestamp >= 0);
    }
});
