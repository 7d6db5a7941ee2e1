//! Lines: points as OpenTSDB and InfluxDB read them (docs/open-falcon/wire.md §7, §8).
//!
//! Compat: the original gives neither an aligned time, and to both the tag `endpoint`; OpenTSDB gets three digits
//! behind the point and a blank before the end of the line. What would break a line of it (a control character) is a
//! `_`.

use super::record::Record;
use crate::config::Precision;
use std::io::Write;

/// Appends the line of a point for OpenTSDB.
pub fn push_put(out: &mut Vec<u8>, record: &Record<'_>) {
    out.extend_from_slice(b"put ");
    push_word(out, record.key.metric, |c| c);
    // Writing to memory does not fail.
    let _ = write!(out, " {} {:.3} ", record.time, record.value);
    for (key, value) in record.key.tags.iter() {
        push_pair(out, key, value);
    }
    push_pair(out, "endpoint", record.key.endpoint);
    out.push(b'\n');
}

fn push_pair(out: &mut Vec<u8>, key: &str, value: &str) {
    let no_blank = |c: char| if c == ' ' { '_' } else { c };
    for c in key.chars().flat_map(char::to_lowercase) {
        push_char(out, no_blank(c));
    }
    out.push(b'=');
    push_word(out, value, no_blank);
    out.push(b' ');
}

fn push_word(out: &mut Vec<u8>, text: &str, replace: impl Fn(char) -> char) {
    text.chars().for_each(|c| push_char(out, replace(c)));
}

fn push_char(out: &mut Vec<u8>, c: char) {
    let c = if c.is_control() { '_' } else { c };
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Appends the line of a point for InfluxDB.
pub fn push_influx(out: &mut Vec<u8>, record: &Record<'_>, precision: Precision) {
    push_escaped(out, record.key.metric, ", ");
    // Canonical tags are sorted; the endpoint takes its place among them, as the original's library sorts all keys.
    let mut endpoint = Some(record.key.endpoint);
    for (key, value) in record.key.tags.iter() {
        if key >= "endpoint"
            && let Some(endpoint) = endpoint.take()
        {
            push_tag(out, "endpoint", endpoint);
        }
        if key != "endpoint" {
            push_tag(out, key, value);
        }
    }
    if let Some(endpoint) = endpoint {
        push_tag(out, "endpoint", endpoint);
    }
    let time = record.time.saturating_mul(precision.per_second());
    let _ = writeln!(out, " value={} {time}", record.value);
}

fn push_tag(out: &mut Vec<u8>, key: &str, value: &str) {
    if key.is_empty() || value.is_empty() {
        return;
    }
    out.push(b',');
    push_escaped(out, key, ",= ");
    out.push(b'=');
    push_escaped(out, value, ",= ");
}

fn push_escaped(out: &mut Vec<u8>, text: &str, escaped: &str) {
    for c in text.chars() {
        if escaped.contains(c) {
            out.push(b'\\');
        }
        push_char(out, c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{CounterType, SeriesKey, Tags};

    fn record<'a>(metric: &'a str, tags: &'a str, value: f64) -> Record<'a> {
        let key = SeriesKey { endpoint: "host 01", metric, tags: Tags::assume_canonical(tags) };
        Record { key, value, time: 1_600_000_059, step: 60, counter_type: CounterType::Gauge }
    }

    #[test]
    fn lines_of_opentsdb() {
        let check = |record: Record<'_>, expected: &str| {
            let mut out = Vec::new();
            push_put(&mut out, &record);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(record("cpu.idle", "", 99.5), "put cpu.idle 1600000059 99.500 endpoint=host_01 \n");
        check(record("df", "FsType=ext4,m=/", 0.0004), "put df 1600000059 0.000 fstype=ext4 m=/ endpoint=host_01 \n");
        check(record("a\nput b", "k=\n", 1.0), "put a_put b 1600000059 1.000 k=_ endpoint=host_01 \n");
    }

    #[test]
    fn lines_of_influxdb() {
        let check = |record: Record<'_>, precision: Precision, expected: &str| {
            let mut out = Vec::new();
            push_influx(&mut out, &record, precision);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        let s = Precision::Seconds;
        check(record("cpu.idle", "", 99.5), s, "cpu.idle,endpoint=host\\ 01 value=99.5 1600000059\n");
        check(
            record("a,b c", "a=1,z=x", 1e21),
            s,
            "a\\,b\\ c,a=1,endpoint=host\\ 01,z=x value=1000000000000000000000 1600000059\n",
        );
        check(
            record("m", "endpoint=other", 1.0),
            Precision::Milliseconds,
            "m,endpoint=host\\ 01 value=1 1600000059000\n",
        );
    }
}
