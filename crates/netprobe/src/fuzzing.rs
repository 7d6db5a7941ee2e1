//! Fuzzing: a door for the target `fuzz/fuzz_targets/probe.rs` to readers that nobody else reaches, with what must hold
//! for every input.

use crate::dns::{RecordType, message};
use crate::http::expect::StatusSet;
use crate::http::{JsonMatch, Url};
use crate::icmp::packet;
use crate::outcome::one_line;
use crate::script::perfdata;
use crate::{Definition, starttls};

/// Characters with which the bound of [`one_line`] is tried.
const SHORT: usize = 240;

/// What servers and scripts answer, and definitions that others write. Nothing panics or goes on without end; what is
/// taken of an answer is bounded; a URL that is read is read the same again; a definition without a fault stays one
/// when it is written.
pub fn answers(input: &[u8]) {
    if let Some(message) = message::read(input) {
        for kind in [RecordType::A, RecordType::Cname, RecordType::Txt] {
            assert!(message.answers("a", kind).len() <= message.records.len());
        }
    }
    for is_v6 in [false, true] {
        _ = packet::reply(is_v6, input, *b"abcdefgh");
    }
    _ = starttls::ldap_result(input);
    let wanted = JsonMatch { path: "checks.0.state".to_string(), value: "ok".into() };
    _ = wanted.judge(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    assert!(perfdata::read(text).figures.len() <= perfdata::FIGURES_MAX);
    let line = one_line(text, SHORT);
    assert!(line.chars().count() <= SHORT + 1 && !line.contains(char::is_control));
    if let Ok(set) = StatusSet::parse(text) {
        assert_eq!(StatusSet::parse(&set.to_string()).expect("what is shown is read").to_string(), set.to_string());
    }
    urls(text);
    definition(text);
}

fn urls(text: &str) {
    let base = Url::parse("https://shop.example/a/b?c").expect("a URL");
    for url in [Url::parse(text), base.join(text)].into_iter().flatten() {
        assert!(url.path.starts_with('/') && url.place.port != 0);
        assert_eq!(Url::parse(&url.to_text()).as_ref(), Ok(&url));
    }
}

fn definition(text: &str) {
    let Ok(definition) = serde_json::from_str::<Definition>(text) else { return };
    let faults = definition.check();
    let tags = definition.series_tags();
    assert_eq!(model::tags::canonical_string(&tags), tags);
    if faults.is_empty() {
        let written = serde_json::to_string(&definition).expect("JSON");
        let again: Definition = serde_json::from_str(&written).expect("what was written is read");
        assert_eq!(again, definition);
        assert!(again.check().is_empty());
    }
}
