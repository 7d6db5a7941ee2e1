//! Event: what the judge says when a rule starts to hold, still holds, or holds no more.
//!
//! The JSON form is the original's (docs/open-falcon/wire.md §9, corrections in docs/open-falcon/judge.md §10): it is
//! what custom consumers of its Redis queues read, and, with the explanation behind it, what Hawkeye's own durable
//! queue holds.

use crate::explanation::Explanation;
use crate::number::push_go_json;
use crate::rule::{Expression, Strategy, push_json_map, push_json_string};
use crate::series::SeriesKey;
use crate::tags::Tags;
use md5::{Digest, Md5};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Whether the rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Status {
    #[serde(rename = "PROBLEM")]
    Problem,
    #[serde(rename = "OK")]
    Ok,
}

impl Status {
    /// Text of the status, `PROBLEM` or `OK`.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Problem => "PROBLEM",
            Status::Ok => "OK",
        }
    }
}

/// The rule as it was when the event was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum EventRule {
    Strategy(Arc<Strategy>),
    Expression(Arc<Expression>),
}

/// A message of the judge about one alarm.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub rule: EventRule,
    pub status: Status,
    pub endpoint: String,
    /// Canonical tags of the series.
    pub tags: String,
    /// The value that the function computed; see the table in docs/open-falcon/judge.md §4.
    pub left_value: f64,
    /// Number of this PROBLEM, from 1 to the rule's `max_step`; 1 for `Ok`.
    pub current_step: i32,
    /// Aligned time of the point that decided, Unix seconds.
    pub time: i64,
    /// Reason for the event; not part of the original's JSON.
    pub explanation: Option<Box<Explanation>>,
}

impl EventRule {
    /// The name of the rule's content: 16 hex digits that change whenever the rule does, and stay over restarts.
    pub fn version(&self) -> String {
        let mut json = String::with_capacity(256);
        match self {
            EventRule::Strategy(strategy) => strategy.push_json(&mut json),
            EventRule::Expression(expression) => expression.push_json(&mut json),
        }
        Md5::digest(&json).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Event {
    /// Bytes on the heap, without those of the rule: rules are shared, and whoever holds all of them counts them.
    pub fn memory_bytes(&self) -> usize {
        let explanation = self.explanation.as_ref().map_or(0, |explanation| explanation.memory_bytes());
        self.endpoint.capacity() + self.tags.capacity() + explanation
    }

    /// Metric of the rule.
    pub fn metric(&self) -> &str {
        match &self.rule {
            EventRule::Strategy(s) => &s.metric,
            EventRule::Expression(e) => &e.metric,
        }
    }

    /// Text of the rule's condition.
    pub fn func(&self) -> &str {
        match &self.rule {
            EventRule::Strategy(s) => &s.func,
            EventRule::Expression(e) => &e.func,
        }
    }

    /// Operator of the rule.
    pub fn operator(&self) -> &str {
        match &self.rule {
            EventRule::Strategy(s) => &s.operator,
            EventRule::Expression(e) => &e.operator,
        }
    }

    /// Threshold of the rule.
    pub fn right_value(&self) -> f64 {
        match &self.rule {
            EventRule::Strategy(s) => s.right_value,
            EventRule::Expression(e) => e.right_value,
        }
    }

    /// Number of PROBLEMs that the rule sends in a row.
    pub fn max_step(&self) -> i32 {
        match &self.rule {
            EventRule::Strategy(s) => s.max_step,
            EventRule::Expression(e) => e.max_step,
        }
    }

    /// Priority of the rule, 0 being the highest.
    pub fn priority(&self) -> i32 {
        match &self.rule {
            EventRule::Strategy(s) => s.priority,
            EventRule::Expression(e) => e.priority,
        }
    }

    /// Note of the rule, for people.
    pub fn note(&self) -> &str {
        match &self.rule {
            EventRule::Strategy(s) => &s.note,
            EventRule::Expression(e) => &e.note,
        }
    }

    /// Id of the action to take; 0 or less means none.
    pub fn action_id(&self) -> i64 {
        match &self.rule {
            EventRule::Strategy(s) => s.tpl.action_id,
            EventRule::Expression(e) => e.action_id,
        }
    }

    /// Id of the strategy; 0 for an event of an expression.
    pub fn strategy_id(&self) -> i64 {
        match &self.rule {
            EventRule::Strategy(s) => s.id,
            EventRule::Expression(_) => 0,
        }
    }

    /// Id of the template; 0 for an event of an expression.
    pub fn template_id(&self) -> i64 {
        match &self.rule {
            EventRule::Strategy(s) => s.tpl.id,
            EventRule::Expression(_) => 0,
        }
    }

    /// Id of the expression; 0 for an event of a strategy.
    pub fn expression_id(&self) -> i64 {
        match &self.rule {
            EventRule::Strategy(_) => 0,
            EventRule::Expression(e) => e.id,
        }
    }

    /// The key of the series that carries the alarm.
    pub fn key(&self) -> SeriesKey<'_> {
        SeriesKey { endpoint: &self.endpoint, metric: self.metric(), tags: Tags::assume_canonical(&self.tags) }
    }

    /// `s_<strategy id>_<md5 of the PK>` or `e_<expression id>_…`: the name of the alarm (rule × series), not of the
    /// occurrence.
    pub fn id(&self) -> String {
        let md5 = self.key().md5_hex();
        match &self.rule {
            EventRule::Strategy(s) => format!("s_{}_{md5}", s.id),
            EventRule::Expression(e) => format!("e_{}_{md5}", e.id),
        }
    }

    /// Appends the original's JSON text, and the explanation as one field more.
    pub fn push_json_explained(&self, out: &mut String) {
        self.push_json(out);
        if let Some(explanation) = &self.explanation {
            out.pop();
            out.push_str(",\"explanation\":");
            out.push_str(&explanation.to_json());
            out.push('}');
        }
    }

    /// Appends the original's JSON text.
    pub fn push_json(&self, out: &mut String) {
        write!(out, "{{\"id\":\"{}\",\"strategy\":", self.id()).expect("String");
        match &self.rule {
            EventRule::Strategy(s) => {
                s.push_json(out);
                out.push_str(",\"expression\":null");
            }
            EventRule::Expression(e) => {
                out.push_str("null,\"expression\":");
                e.push_json(out);
            }
        }
        write!(out, ",\"status\":\"{}\",\"endpoint\":", self.status.as_str()).expect("String");
        push_json_string(&self.endpoint, out);
        out.push_str(",\"leftValue\":");
        push_go_json(self.left_value, out);
        write!(out, ",\"currentStep\":{},\"eventTime\":{},\"pushedTags\":", self.current_step, self.time)
            .expect("String");
        push_json_map(Tags::assume_canonical(&self.tags).iter(), out);
        out.push('}');
    }

    /// JSON of the event, byte for byte as the original writes it.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(512);
        self.push_json(&mut out);
        out
    }

    /// Reads the JSON text back. The error names what is missing or wrong.
    pub fn from_json(text: &str) -> Result<Event, String> {
        let raw: RawEvent = serde_json::from_str(text).map_err(|error| format!("event: {error}"))?;
        let rule = match (raw.strategy, raw.expression) {
            (Some(strategy), None) => EventRule::Strategy(Arc::new(strategy)),
            (None, Some(expression)) => EventRule::Expression(Arc::new(expression)),
            _ => return Err("event: want exactly one of strategy and expression".to_string()),
        };
        let mut tags = String::new();
        for (key, value) in raw.pushed_tags.unwrap_or_default() {
            let comma = if tags.is_empty() { "" } else { "," };
            write!(tags, "{comma}{key}={value}").expect("String");
        }
        let tags = crate::tags::canonical_string(&tags);
        Ok(Event {
            rule,
            status: raw.status,
            endpoint: raw.endpoint,
            tags,
            left_value: raw.left_value,
            current_step: raw.current_step,
            time: raw.event_time,
            // A broken explanation must not make the event unreadable.
            explanation: raw.explanation.and_then(|value| serde_json::from_value(value).ok()).map(Box::new),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEvent {
    strategy: Option<Strategy>,
    expression: Option<Expression>,
    status: Status,
    endpoint: String,
    left_value: f64,
    current_step: i32,
    event_time: i64,
    pushed_tags: Option<BTreeMap<String, String>>,
    explanation: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event recorded from the original judge.
    #[test]
    fn recorded_json_reads_and_writes_back() {
        let text = r#"{"id":"s_1_62a4381b9f5d333d0a43610ebea5d1eb","strategy":{"id":1,"metric":"m.000","tags":{},"func":"all(#1)","operator":"\u003e","rightValue":7,"maxStep":3,"priority":0,"note":"","tpl":{"id":7,"name":"tpl.demo","parentId":0,"actionId":3,"creator":"root"}},"expression":null,"status":"PROBLEM","endpoint":"ep-000","leftValue":8,"currentStep":1,"eventTime":1600000200,"pushedTags":{}}"#;
        let event = Event::from_json(text).expect("recorded event");
        assert_eq!(event.to_json(), text);
    }

    #[test]
    fn the_explanation_is_a_field_of_our_own() {
        let text = r#"{"id":"x","strategy":{"id":1},"expression":null,"status":"OK","endpoint":"e","leftValue":0,"currentStep":1,"eventTime":1,"pushedTags":{}}"#;
        let mut event = Event::from_json(text).expect("an event");
        let plain = event.to_json();
        event.explanation =
            Some(Box::new(Explanation { closed: "the rule was deleted".into(), ..Explanation::default() }));
        assert_eq!(event.to_json(), plain);
        let mut explained = String::new();
        event.push_json_explained(&mut explained);
        assert_eq!(Event::from_json(&explained), Ok(event));
    }

    #[test]
    fn the_version_follows_the_content() {
        let of = |right_value| EventRule::Strategy(Arc::new(Strategy { id: 1, right_value, ..Strategy::default() }));
        assert_eq!(of(1.0).version(), of(1.0).version());
        assert_ne!(of(1.0).version(), of(2.0).version());
        assert_eq!(of(1.0).version().len(), 16);
    }

    #[test]
    fn refuses_both_or_neither_rule() {
        let text = r#"{"id":"x","strategy":null,"expression":null,"status":"OK","endpoint":"e","leftValue":0,"currentStep":1,"eventTime":1,"pushedTags":{}}"#;
        assert!(Event::from_json(text).is_err());
    }
}
