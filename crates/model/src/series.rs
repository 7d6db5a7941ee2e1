//! Series: the row of points that share an endpoint, a metric and tags, and the texts by which Open-Falcon names it.
//!
//! A series is an endpoint, a metric and canonical tags. `counter` is `metric` or `metric/tags`; the primary key text
//! (`PK`) is `endpoint/counter`; its md5 names the series in event ids. Compat: docs/open-falcon/transfer.md §3.

use crate::tags::Tags;
use md5::{Digest, Md5};

/// The dense number of a series; given once, stable over restarts, meaningful only within one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u32);

/// Type of a series: how values become what is charted and judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CounterType {
    /// The value itself.
    Gauge = 0,
    /// A monotonic counter: charted and judged as a rate per second.
    Counter = 1,
    /// A monotonic counter under another name; Open-Falcon keeps the two apart on the wire only.
    Derive = 2,
}

impl CounterType {
    /// Parses the wire text; exactly `GAUGE`, `COUNTER` or `DERIVE`, case-sensitive as in the original.
    pub fn parse(text: &[u8]) -> Option<CounterType> {
        match text {
            b"GAUGE" => Some(CounterType::Gauge),
            b"COUNTER" => Some(CounterType::Counter),
            b"DERIVE" => Some(CounterType::Derive),
            _ => None,
        }
    }

    /// The type that `byte` stands for in our own formats.
    pub fn from_u8(byte: u8) -> Option<CounterType> {
        match byte {
            0 => Some(CounterType::Gauge),
            1 => Some(CounterType::Counter),
            2 => Some(CounterType::Derive),
            _ => None,
        }
    }

    /// The wire text.
    pub fn as_str(self) -> &'static str {
        match self {
            CounterType::Gauge => "GAUGE",
            CounterType::Counter => "COUNTER",
            CounterType::Derive => "DERIVE",
        }
    }

    /// The type as graph and the index show it: a `COUNTER` is stored, and reported, as `DERIVE`.
    pub fn ds_type(self) -> &'static str {
        if self.is_gauge() { "GAUGE" } else { "DERIVE" }
    }

    /// Whether values are judged as they are, not as rates.
    pub fn is_gauge(self) -> bool {
        self == CounterType::Gauge
    }
}

/// The three texts that identify a series, borrowed from their owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey<'a> {
    pub endpoint: &'a str,
    pub metric: &'a str,
    pub tags: Tags<'a>,
}

impl SeriesKey<'_> {
    /// Appends `metric` or `metric/tags`.
    pub fn push_counter(&self, out: &mut String) {
        out.push_str(self.metric);
        if !self.tags.is_empty() {
            out.push('/');
            out.push_str(self.tags.as_str());
        }
    }

    /// `metric` or `metric/tags`.
    pub fn counter(&self) -> String {
        let mut out = String::with_capacity(self.metric.len() + self.tags.as_str().len() + 1);
        self.push_counter(&mut out);
        out
    }

    /// Lower-case hex md5 of the PK, the suffix of every event id.
    pub fn md5_hex(&self) -> String {
        let mut md5 = Md5::new();
        md5.update(self.endpoint);
        md5.update("/");
        md5.update(self.metric);
        if !self.tags.is_empty() {
            md5.update("/");
            md5.update(self.tags.as_str());
        }
        md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Splits a counter text into metric and tags at the first `/`; the tags are returned as written.
///
/// A metric may itself contain `/` (Open-Falcon never forbade it), so a caller that finds no such series should also
/// try the whole text as a metric.
pub fn split_counter(counter: &str) -> (&str, &str) {
    counter.split_once('/').unwrap_or((counter, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of docs/open-falcon/transfer.md §9.
    #[test]
    fn md5_of_pk() {
        let check = |endpoint, metric, tags, expected: &str| {
            let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
            assert_eq!(key.md5_hex(), expected);
        };
        check("host01", "cpu.idle", "", "d2a3cf076e6613a23a3a010c6e6d647a");
        check("host02", "net.if.in.bytes", "iface=eth0", "d756bcadd9b8ebaa907c4429f4982eed");
        check("test-endpoint", "test-metric", "idc=lg,loc=beijing", "7f6bb79daafefd0df0091ccfc147e65c");
    }

    #[test]
    fn counter_text() {
        let key = SeriesKey { endpoint: "e", metric: "m", tags: Tags::assume_canonical("a=1") };
        assert_eq!(key.counter(), "m/a=1");
        assert_eq!(split_counter("m/a=1"), ("m", "a=1"));
        assert_eq!(split_counter("m"), ("m", ""));
    }
}
