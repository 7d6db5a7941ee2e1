//! Labels: what the protocols of other systems need of a series beside host, value and time, encoded once for all
//! hosts.
//!
//! How: the metric's name is the series' name with `_` for characters that their names must not have; tags are labels.

use super::mix::SimulatedSeries;
use wire::protobuf::field_bytes;

/// The texts of one series that are equal on all hosts.
pub struct SeriesTexts {
    /// `put name ` and ` tag=value host=`: time and value go between, the host behind.
    pub put: (Vec<u8>, Vec<u8>),
    /// Labels in the order of their names, as remote write wants them: those before `host` and those behind.
    pub labels: (Vec<u8>, Vec<u8>),
}

impl SeriesTexts {
    /// Makes the texts of a series; `tags` are canonical.
    pub fn new(series: &SimulatedSeries, tags: &str) -> SeriesTexts {
        let name = legal_name(&series.metric);
        let mut sorted: Vec<(String, &str)> = tags
            .split(',')
            .filter_map(|tag| tag.split_once('='))
            .map(|(key, value)| (legal_name(key), value))
            .collect();
        let mut texts =
            SeriesTexts { put: (format!("put {name} ").into_bytes(), Vec::new()), labels: (Vec::new(), Vec::new()) };
        for (key, value) in &sorted {
            // The protocol cannot escape a blank.
            texts.put.1.extend_from_slice(format!(" {key}={}", value.replace(' ', "_")).as_bytes());
        }
        texts.put.1.extend_from_slice(b" host=");
        sorted.push(("__name__".to_string(), &name));
        sorted.sort();
        for (key, value) in &sorted {
            let half = if key.as_str() < "host" { &mut texts.labels.0 } else { &mut texts.labels.1 };
            push_label(half, key, value);
        }
        texts
    }
}

/// A name as Prometheus wants names: of letters, digits and `_`.
pub fn legal_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Appends a name and a value, an element of `TimeSeries.labels`.
pub fn push_label(out: &mut Vec<u8>, name: &str, value: &str) {
    let mut label = Vec::new();
    field_bytes(&mut label, 1, name.as_bytes());
    field_bytes(&mut label, 2, value.as_bytes());
    field_bytes(out, 1, &label);
}
