//! Fuzzing: a door for the target `fuzz/fuzz_targets/collected.rs` to what other programs of the host send the agent,
//! with what must hold for every input.

use crate::collect::{Collected, of_datagram, of_page};
use crate::plugin::{Entry, arguments};

/// Datagrams of StatsD, a page of an exporter, an entry that hbs names. What comes of the first two are readings that
/// can be sent: canonical tags, finite values. An entry leads nowhere but below the plugin directory.
pub fn collected(input: &[u8]) {
    check(&of_datagram(input));
    let Ok(text) = std::str::from_utf8(input) else { return };
    check(&of_page(text));
    if let Ok(entry) = Entry::parse(text) {
        assert!(!entry.path.starts_with('/') && entry.path.split('/').all(|part| part != ".." && part != ".git"));
        _ = arguments(&entry.args);
    }
}

fn check(collected: &Collected) {
    for reading in &collected.readings {
        assert_eq!(model::tags::canonical_string(&reading.tags), reading.tags);
        assert!(reading.value.is_finite(), "{reading:?}");
    }
}
