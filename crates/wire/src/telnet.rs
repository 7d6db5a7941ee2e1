//! The telnet door: `update <endpoint> <metric> <timestamp> <value> [type] [step]`, a line each, and `quit`.
//!
//! Lines have no tags, and nothing is ever answered. Compat: type defaults to COUNTER and step to 60, the step may be
//! RRD's `heartbeat:min:max:step`. Stricter than the original: an item passes the same checks as any other.

use crate::item::{self, Item, parse_value};
use model::CounterType;

/// Longest line worth buffering: an endpoint, a counter, and as much again for numbers and spaces.
pub const LINE_BYTES_MAX: usize = 2048;
/// The step of a line that names none, as in the original.
const STEP_DEFAULT: i64 = 60;

/// A line of the telnet door.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Line<'a> {
    Update(Item<'a>),
    Quit,
    Empty,
    /// Line that was ignored, with the reason.
    Bad(&'static str),
}

/// Reads a line, with or without its end.
pub fn line(bytes: &[u8]) -> Line<'_> {
    if bytes.len() > LINE_BYTES_MAX {
        return Line::Bad("line is longer than 2048 bytes");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Line::Bad("line is not UTF-8") };
    let mut words = text.split_ascii_whitespace();
    match words.next() {
        None => Line::Empty,
        Some("quit") => Line::Quit,
        Some("update") => update(words).map_or_else(Line::Bad, Line::Update),
        Some(_) => Line::Bad("line must start with update or quit"),
    }
}

fn update<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Item<'a>, &'static str> {
    const FEW: &str = "update needs endpoint, metric, timestamp and value, then type and step if wanted";
    let mut next = || words.next();
    let (endpoint, metric) = (next().ok_or(FEW)?, next().ok_or(FEW)?);
    let (timestamp, value) = (next().ok_or(FEW)?, next().ok_or(FEW)?);
    let (counter_type, step) = (next(), next());
    if next().is_some() {
        return Err("nothing may follow the step");
    }
    let timestamp = timestamp.parse().map_err(|_| "timestamp must be a whole number of Unix seconds")?;
    let counter_type = counter_type.map_or(Some(CounterType::Counter), |word| CounterType::parse(word.as_bytes()));
    let step = step.map_or(Ok(STEP_DEFAULT), parse_step)?;
    item::checked(endpoint, metric, "", parse_value(value), step, counter_type, timestamp)
        .map_err(item::Invalid::explain)
}

fn parse_step(word: &str) -> Result<i64, &'static str> {
    let mut parts = word.split(':');
    let step = match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(step), None, ..) | (_, _, _, Some(step), None) => step,
        _ => return Err("step must be seconds, or heartbeat:min:max:seconds"),
    };
    step.parse().map_err(|_| "step must be a whole number of seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Line<'_>) {
        assert_eq!(line(text.as_bytes()), expected, "of {text:?}");
    }

    fn item(counter_type: CounterType, step: u32) -> Line<'static> {
        let value = 1.5;
        Line::Update(Item { endpoint: "h", metric: "m", tags: "", value, step, counter_type, timestamp: 1_600_000_000 })
    }

    #[test]
    fn updates() {
        use CounterType::*;
        check("update h m 1600000000 1.5", item(Counter, 60));
        check("update h m 1600000000 1.5\r\n", item(Counter, 60));
        check("  update\th  m 1600000000 1.5 GAUGE\n", item(Gauge, 60));
        check("update h m 1600000000 15e-1 DERIVE 30", item(Derive, 30));
        check("update h m 1600000000 1.5 GAUGE 120:0:U:30", item(Gauge, 30));
    }

    #[test]
    fn other_lines() {
        check("quit\n", Line::Quit);
        check("\r\n", Line::Empty);
        check("", Line::Empty);
        check("UPDATE h m 1 1", Line::Bad("line must start with update or quit"));
    }

    #[test]
    fn bad_lines_say_why() {
        let bad = |text: &str, part: &str| match line(text.as_bytes()) {
            Line::Bad(why) => assert!(why.contains(part), "{why:?} of {text:?} does not name {part:?}"),
            other => panic!("{text:?} was read as {other:?}"),
        };
        bad("update h m 1600000000", "update needs");
        bad("update h m x 1", "timestamp");
        bad("update h m 1.5 1", "timestamp");
        bad("update h m 1 x", "value");
        bad("update h m 1 NaN", "NaN");
        bad("update h m 1 1e999", "out of range");
        bad("update h m 1 1 gauge", "counterType");
        bad("update h m 1 1 GAUGE 0", "step");
        bad("update h m 1 1 GAUGE x", "step");
        bad("update h m 1 1 GAUGE 1:2", "heartbeat");
        bad("update h m 1 1 GAUGE 1:2:3:4:5", "heartbeat");
        bad("update h m 1 1 GAUGE 60 more", "follow");
        bad("update h kernel.hostname 1 1", "kernel.hostname");
        bad(&format!("update h {} 1 1", "m".repeat(511)), "510");
        bad(&format!("update {} m 1 1", "h".repeat(256)), "255");
        bad(&"x".repeat(3000), "2048");
    }

    #[test]
    fn noise_is_bad() {
        assert_eq!(line(b"update h \xff 1 1"), Line::Bad("line is not UTF-8"));
    }
}
