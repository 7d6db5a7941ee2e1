//! Page: series as Prometheus reads them, under the names that falcon2p8s gives them
//! (docs/open-falcon/aggregator-nodata-gateway.md §4).
//!
//! How: what a name of Prometheus cannot have becomes `_`, and a name that would begin with a digit begins with `F_`;
//! the endpoint is the label `hostname`, tags are labels. Samples are gathered by name, for a page has one type for
//! each.
//! Invariants: a name keeps the type it had first; of two samples with one name and the same labels the last counts;
//! a tag that is called `hostname`, or becomes a label that is there, is left out.

use model::SeriesKey;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A page in the making.
#[derive(Default)]
pub struct Page {
    families: BTreeMap<String, Family>,
}

struct Family {
    is_gauge: bool,
    /// Values by labels.
    samples: BTreeMap<String, f64>,
}

impl Page {
    /// Adds a sample; false where its name has samples of the other type.
    pub fn add(&mut self, name: &str, labels: &str, is_gauge: bool, value: f64) -> bool {
        if !self.families.contains_key(name) {
            self.families.insert(name.to_string(), Family { is_gauge, samples: BTreeMap::new() });
        }
        let family = self.families.get_mut(name).filter(|family| family.is_gauge == is_gauge);
        family.map(|family| family.samples.insert(labels.to_string(), value)).is_some()
    }

    /// The text of the page.
    pub fn text(&self) -> Vec<u8> {
        let mut out = String::new();
        for (name, family) in &self.families {
            let kind = if family.is_gauge { "gauge" } else { "counter" };
            // Writing to memory does not fail.
            let _ = writeln!(out, "# TYPE {name} {kind}");
            for (labels, value) in &family.samples {
                let _ = writeln!(out, "{name}{{{labels}}} {value}");
            }
        }
        out.into_bytes()
    }
}

/// Name and labels of a series, in texts that are refilled.
#[derive(Default)]
pub struct Names {
    pub name: String,
    pub labels: String,
    key: String,
}

impl Names {
    /// Makes those of `series`.
    pub fn set(&mut self, series: &SeriesKey<'_>) {
        self.name.clear();
        push_name(&mut self.name, series.metric, |c| c == ':');
        self.labels.clear();
        self.labels.push_str("hostname=\"");
        push_value(&mut self.labels, series.endpoint);
        self.labels.push('"');
        let mut seen = vec!["hostname".to_string()];
        for (key, value) in series.tags.iter() {
            self.key.clear();
            push_name(&mut self.key, key, |_| false);
            if self.key.is_empty() || seen.contains(&self.key) {
                continue;
            }
            seen.push(self.key.clone());
            let _ = write!(self.labels, ",{}=\"", self.key);
            push_value(&mut self.labels, value);
            self.labels.push('"');
        }
    }
}

fn push_name(out: &mut String, text: &str, may_have: impl Fn(char) -> bool) {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        out.push_str("F_");
    }
    out.extend(text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || may_have(c) { c } else { '_' }));
}

fn push_value(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Tags;

    #[test]
    fn names_and_labels_are_those_of_falcon2p8s() {
        let mut names = Names::default();
        let mut check = |metric: &str, tags: &str, name: &str, labels: &str| {
            names.set(&SeriesKey { endpoint: "host-01", metric, tags: Tags::assume_canonical(tags) });
            assert_eq!((names.name.as_str(), names.labels.as_str()), (name, labels));
        };
        check("cpu.idle", "", "cpu_idle", "hostname=\"host-01\"");
        check("95th-latency:sum", "", "F_95th_latency:sum", "hostname=\"host-01\"");
        check("é中", "", "__", "hostname=\"host-01\"");
        check("df", "1a=x,k:b=/", "df", "hostname=\"host-01\",F_1a=\"x\",k_b=\"/\"");
        check("df", "a.b=1,a_b=2,hostname=other", "df", "hostname=\"host-01\",a_b=\"1\"");
        check("df", "k=a\"b\\c", "df", "hostname=\"host-01\",k=\"a\\\"b\\\\c\"");
    }

    #[test]
    fn a_name_has_one_type() {
        let mut page = Page::default();
        assert!(page.add("b", "hostname=\"x\"", true, 1.5) && page.add("a", "hostname=\"x\"", false, 2.0));
        assert!(page.add("b", "hostname=\"w\"", true, f64::MAX) && !page.add("b", "hostname=\"v\"", false, 3.0));
        let expected = format!(
            "# TYPE a counter\na{{hostname=\"x\"}} 2\n# TYPE b gauge\nb{{hostname=\"w\"}} {}\nb{{hostname=\"x\"}} 1.5\n",
            f64::MAX
        );
        assert_eq!(String::from_utf8(page.text()).expect("UTF-8"), expected);
    }
}
