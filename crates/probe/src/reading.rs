//! Reading: one value of one metric, before it gets an endpoint, a step and a time.

use model::CounterType;
use std::borrow::Cow;

/// One value of one metric, as a collector read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Name of the metric, borrowed but for the few that the kernel decides (`TcpExt.*`, `snmp.Udp.*`).
    pub metric: Cow<'static, str>,
    /// Canonical tags; empty when there are none.
    pub tags: String,
    /// A finite number.
    pub value: f64,
    pub counter_type: CounterType,
}

impl Reading {
    /// A reading whose value is shown as it is.
    pub fn gauge(metric: impl Into<Cow<'static, str>>, tags: &str, value: f64) -> Reading {
        Reading::new(metric.into(), tags, value, CounterType::Gauge)
    }

    /// A reading of a monotonic counter, shown as a rate.
    pub fn counter(metric: impl Into<Cow<'static, str>>, tags: &str, value: f64) -> Reading {
        Reading::new(metric.into(), tags, value, CounterType::Counter)
    }

    fn new(metric: Cow<'static, str>, tags: &str, value: f64, counter_type: CounterType) -> Reading {
        debug_assert!(value.is_finite(), "{metric} is {value}");
        Reading { metric, tags: tags.to_string(), value, counter_type }
    }
}

/// `key=value`, made safe for a tag string: names come from the machine (mount points, devices), and a space is removed
/// by every receiver, while a comma would begin a new tag and a line break a new line of whoever prints it.
pub fn tag(key: &str, value: &str) -> String {
    let mut text = String::with_capacity(key.len() + 1 + value.len());
    text.push_str(key);
    text.push('=');
    text.extend(value.chars().filter(|c| *c != ' ').map(|c| if c == ',' || c.is_control() { '_' } else { c }));
    text
}

/// `part` in percent of `whole`; 0 where `whole` is 0, so that the value is always finite.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_cannot_be_broken_by_a_name() {
        assert_eq!(tag("mount", "/a b,c=d"), "mount=/ab_c=d");
        assert_eq!(tag("mount", "/a\tb\n"), "mount=/a_b_");
        assert_eq!(model::tags::canonical_string(&tag("mount", "/a b,c=d")), "mount=/ab_c=d");
    }

    #[test]
    fn percent_of_nothing() {
        assert_eq!(percent(0, 0), 0.0);
        assert_eq!(percent(1, 4), 25.0);
    }
}
