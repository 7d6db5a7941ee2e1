//! Network interfaces: bytes, packets and errors, and the utilisation of the line.
//!
//! Compat: a line counts when it has exactly 16 fields. Bits and totals saturate at 2^63 - 1, where the original wraps
//! to negative values (docs/open-falcon/agent.md §8). The speed comes from `/sys` alone: the original also runs
//! `ethtool` when that file cannot be read, which knows no more on any kernel since 2.6.33. Where the driver says "no
//! idea" the speed is 0 as where there is no file; the original multiplies the -1, and has a negative utilisation.

use crate::iface::Choice;
use crate::reading::{Reading, tag};
use crate::roots::{ProbeError, Roots, read_into};
use crate::text::int;

const FIELDS: usize = 16;

/// Metrics of the 16 columns.
const COLUMNS: [&str; FIELDS] = [
    "net.if.in.bytes",
    "net.if.in.packets",
    "net.if.in.errors",
    "net.if.in.dropped",
    "net.if.in.fifo.errs",
    "net.if.in.frame.errs",
    "net.if.in.compressed",
    "net.if.in.multicast",
    "net.if.out.bytes",
    "net.if.out.packets",
    "net.if.out.errors",
    "net.if.out.dropped",
    "net.if.out.fifo.errs",
    "net.if.out.collisions",
    "net.if.out.carrier.errs",
    "net.if.out.compressed",
];

/// Sums of an in and an out column.
const TOTALS: [(&str, usize); 4] =
    [("net.if.total.bytes", 0), ("net.if.total.packets", 1), ("net.if.total.errors", 2), ("net.if.total.dropped", 3)];
const OUT: usize = 8;

/// Collects the interfaces of the choice.
pub(crate) fn collect(roots: &Roots, choice: Choice<'_>, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    let file = roots.read_net("dev")?;
    let is_reported = choice.now(roots);
    for (name, fields) in file.text.lines().filter_map(parse) {
        if is_reported(name) {
            push(&tag("iface", name), &fields, speed_bits(roots, name), out);
        }
    }
    Ok(())
}

fn parse(line: &str) -> Option<(&str, [i64; FIELDS])> {
    // The first colon: an alias `eth0:1` then has 17 fields and is left out, its traffic is in `eth0`.
    let (name, rest) = line.split_once(':')?;
    let mut fields = [0; FIELDS];
    let mut words = rest.split_whitespace();
    for field in &mut fields {
        *field = int(words.next()?);
    }
    words.next().is_none().then_some((name.trim(), fields))
}

fn push(tags: &str, fields: &[i64; FIELDS], speed_bits: i64, out: &mut Vec<Reading>) {
    for (metric, value) in COLUMNS.iter().zip(fields) {
        out.push(Reading::counter(*metric, tags, *value as f64));
    }
    for (metric, column) in TOTALS {
        out.push(Reading::counter(metric, tags, fields[column].saturating_add(fields[OUT + column]) as f64));
    }
    let (in_bits, out_bits) = (fields[0].saturating_mul(8), fields[OUT].saturating_mul(8));
    let total_bits = fields[0].saturating_add(fields[OUT]).saturating_mul(8);
    out.extend([
        Reading::gauge("net.if.speed.bits", tags, speed_bits as f64),
        Reading::counter("net.if.in.percent", tags, utilisation(in_bits, speed_bits)),
        Reading::counter("net.if.out.percent", tags, utilisation(out_bits, speed_bits)),
        Reading::counter("net.if.in.bits", tags, in_bits as f64),
        Reading::counter("net.if.out.bits", tags, out_bits as f64),
        Reading::counter("net.if.total.bits", tags, total_bits as f64),
    ]);
}

/// A counter whose rate per second is the share of the line in percent; 0 where the speed is unknown.
fn utilisation(bits: i64, speed_bits: i64) -> f64 {
    if speed_bits == 0 { 0.0 } else { bits as f64 * 100.0 / speed_bits as f64 }
}

/// What drivers say that do not know their speed, where their -1 is printed as 32 or 16 bits without a sign.
const UNKNOWN: [i64; 2] = [u32::MAX as i64, u16::MAX as i64];

/// Speed of an interface in bits per second; 0 when unknown: loopback and interfaces that are down refuse to be read.
fn speed_bits(roots: &Roots, name: &str) -> i64 {
    let mut bytes = Vec::new();
    match read_into(&roots.sys.join("class/net").join(name).join("speed"), &mut bytes) {
        Ok(()) => known_speed(int(String::from_utf8_lossy(&bytes).trim())).saturating_mul(1_000_000),
        Err(_) => 0,
    }
}

/// The speed in Mbit/s, or 0 where the driver has none.
fn known_speed(mbits: i64) -> i64 {
    if mbits < 0 || UNKNOWN.contains(&mbits) { 0 } else { mbits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_sixteen_fields() {
        let check =
            |line: &str, expected: Option<&str>| assert_eq!(parse(line).map(|(name, _)| name), expected, "{line}");
        check("  eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", Some("eth0"));
        check("eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", None);
        check("eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", None);
        check(" face |bytes    packets errs", None);
    }

    #[test]
    fn no_idea_is_no_speed() {
        for (said, known) in
            [(-1, 0), (4_294_967_295, 0), (65_535, 0), (i64::MIN, 0), (0, 0), (10, 10), (400_000, 400_000)]
        {
            assert_eq!(known_speed(said), known, "{said}");
        }
        assert_eq!((utilisation(800, 0), utilisation(800, 1000)), (0.0, 80.0));
    }

    #[test]
    fn huge_counters_saturate() {
        let mut fields = [0; FIELDS];
        (fields[0], fields[OUT]) = (i64::MAX, i64::MAX);
        let mut out = Vec::new();
        push("iface=x", &fields, 1_000_000, &mut out);
        let most = i64::MAX as f64;
        for metric in ["net.if.in.bits", "net.if.total.bytes", "net.if.total.bits"] {
            let reading = out.iter().find(|reading| reading.metric == metric).expect(metric);
            assert_eq!(reading.value, most, "{metric}");
        }
    }
}
