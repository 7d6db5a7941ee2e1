//! Explanation: why the judge sent an event, for those who ask.
//!
//! Why: `all(#3) and avg(#5) of mem.memfree.percent < 10` was PROBLEM at three in the morning; by noon the rule may
//! have been changed and the chart is coarser. So an event takes along the points that decided it.
//! How: an explanation is made with the event, kept beside the original's fields in the durable queue and in the events
//! table. An explanation never goes where the original's JSON goes (Redis, callbacks). Words hold no times: a core
//! knows no time zone; whoever shows them adds the times of the points.
//! Memory: some hundred bytes per event on its way; [`POINTS_MAX`] points per term.

use crate::point::Point;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Points of one term that are kept, the newest ones. A guess: more would not be read.
pub const POINTS_MAX: usize = 12;

/// Reason for an event: terms, words and points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// Version of the rule as it was; another version says that the rule was changed since. See
    /// [`crate::EventRule::version`].
    pub rule_version: String,
    /// Reason for closing an alarm although nothing recovered; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub closed: String,
    /// Reason for which a probe is down, as alarm found it when it took the event; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The functions that decided; one, unless the condition joins several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<TermExplanation>,
}

/// One function of the rule, and the points by which it decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TermExplanation {
    /// The term as the rule has it: `all(#3) > 90`.
    pub text: String,
    /// The counter of the series, where it is another than the event's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub counter: String,
    pub holds: bool,
    /// The comparison in words: `3 of 3 points above 90`.
    pub words: String,
    /// Values that were compared (rates, for a counter), oldest first, as `[time, value]`.
    #[serde(serialize_with = "write_points", deserialize_with = "read_points")]
    pub points: Vec<Point>,
}

impl Explanation {
    /// Bytes of the explanation and its texts.
    pub fn memory_bytes(&self) -> usize {
        let term = |term: &TermExplanation| {
            let points = term.points.capacity() * size_of::<Point>();
            term.text.capacity() + term.counter.capacity() + term.words.capacity() + points
        };
        size_of::<Explanation>()
            + self.rule_version.capacity()
            + self.closed.capacity()
            + self.reason.capacity()
            + self.terms.capacity() * size_of::<TermExplanation>()
            + self.terms.iter().map(term).sum::<usize>()
    }
}

fn write_points<S: Serializer>(points: &[Point], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(points.iter().map(|point| (point.time, point.value)))
}

fn read_points<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Point>, D::Error> {
    let pairs = Vec::<(i64, f64)>::deserialize(deserializer)?;
    Ok(pairs.into_iter().map(|(time, value)| Point { time, value }).collect())
}

impl Explanation {
    /// JSON of the explanation, as alarm stores it.
    pub fn to_json(&self) -> String {
        // Values that are not finite become null, which reads back as an error; the judge shows finite ones only.
        serde_json::to_string(self).expect("texts, flags and numbers always have a JSON form")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_back() {
        let points = vec![Point { time: 60, value: 95.2 }, Point { time: 120, value: 97.0 }];
        let term = TermExplanation {
            text: "all(#2) > 90".into(),
            holds: true,
            words: "2 of 2 points above 90".into(),
            points,
            ..TermExplanation::default()
        };
        let explanation = Explanation { rule_version: "00ff".into(), terms: vec![term], ..Explanation::default() };
        let json = explanation.to_json();
        assert_eq!(
            json,
            r#"{"rule_version":"00ff","terms":[{"text":"all(#2) > 90","holds":true,"words":"2 of 2 points above 90","points":[[60,95.2],[120,97.0]]}]}"#
        );
        assert_eq!(serde_json::from_str::<Explanation>(&json).expect("own JSON"), explanation);
    }
}
