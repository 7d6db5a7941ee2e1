//! Expect: what an HTTP probe wants of an answer: its status, words in its body, a value in its JSON.

use super::Http;
use crate::fault::short;
use crate::outcome::{Code, Reason};
use crate::pattern;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::ops::RangeInclusive;

/// Ranges of a status set; five are all classes.
const RANGES_MAX: usize = 32;
/// Bytes of a JSON path or value.
const JSON_BYTES_MAX: usize = 1024;
/// Characters of a JSON value that are told.
const TOLD_MAX: usize = 60;

/// A pattern that the body must have, or must not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyMatch {
    pub pattern: String,
    /// True where the pattern must not be there.
    #[serde(default)]
    pub absent: bool,
}

/// A value that the JSON of the body must have somewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonMatch {
    /// Keys and numbers of list entries with dots between, like `checks.0.state`; what begins with `/` is a JSON
    /// pointer (RFC 6901), for keys that have dots.
    pub path: String,
    /// The value, of whatever type.
    pub value: Value,
}

/// Set of status codes, like `200-299,304`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    pub fn parse(text: &str) -> Result<StatusSet, String> {
        let want = || format!("{:?} is no set of status codes: give one like 200-299,304", short(text));
        let number = |text: &str| text.trim().parse().ok().filter(|code| (100..=599).contains(code)).ok_or_else(want);
        let range = |part: &str| match part.split_once('-') {
            None => number(part).map(|code| code..=code),
            Some((from, to)) => match (number(from)?, number(to)?) {
                (from, to) if from <= to => Ok(from..=to),
                _ => Err(want()),
            },
        };
        let ranges = text.split(',').take(RANGES_MAX + 1).map(range).collect::<Result<Vec<_>, String>>()?;
        if ranges.len() > RANGES_MAX { Err(want()) } else { Ok(StatusSet(ranges)) }
    }

    pub fn has(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match range.start() == range.end() {
                true => write!(f, "{comma}{}", range.start())?,
                false => write!(f, "{comma}{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

impl JsonMatch {
    pub fn check(&self) -> Result<(), String> {
        let bytes = self.path.len() + serde_json::to_vec(&self.value).map_or(0, |json| json.len());
        match self.path.is_empty() || bytes > JSON_BYTES_MAX {
            true => Err(format!(
                "a path and a value of {bytes} bytes: give a path like checks.0.state, and at most {JSON_BYTES_MAX} bytes"
            )),
            false => Ok(()),
        }
    }

    fn find<'a>(&self, json: &'a Value) -> Option<&'a Value> {
        if self.path.starts_with('/') {
            return json.pointer(&self.path);
        }
        self.path.split('.').try_fold(json, |json, key| match json {
            Value::Array(list) => list.get(key.parse::<usize>().ok()?),
            json => json.get(key),
        })
    }

    pub(crate) fn judge(&self, body: &[u8]) -> Result<(), Reason> {
        let json: Value = serde_json::from_slice(body)
            .map_err(|error| Reason::new(Code::Json, format!("the body is no JSON: {error}")))?;
        let path = &self.path;
        match self.find(&json) {
            Some(value) if is_equal(value, &self.value) => Ok(()),
            Some(value) => {
                let (got, want) = (told(value), told(&self.value));
                Err(Reason::new(Code::Json, format!("JSON {path} is {got}, want {want}")))
            }
            None => Err(Reason::new(Code::Json, format!("JSON {path} is missing, want {}", told(&self.value)))),
        }
    }
}

/// Equality in which 1 and 1.0 are one number.
fn is_equal(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn told(value: &Value) -> String {
    crate::outcome::one_line(&value.to_string(), TOLD_MAX)
}

/// Says what of a body is not as expected.
pub(super) fn judge_body(http: &Http, body: &[u8]) -> Result<(), Reason> {
    if let Some(wanted) = &http.body_match {
        let found = pattern::compile(&wanted.pattern).map_err(|error| Reason::new(Code::Definition, error))?;
        let is_there = found.is_match(&String::from_utf8_lossy(body));
        if is_there == wanted.absent {
            let pattern = short(&wanted.pattern);
            let text = match wanted.absent {
                true => format!("the body has {pattern:?}, which it must not have"),
                false => format!("the body has no {pattern:?}"),
            };
            return Err(Reason::new(Code::Match, text));
        }
    }
    http.json.as_ref().map_or(Ok(()), |wanted| wanted.judge(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn status_sets() {
        let set = StatusSet::parse("200-299, 304").expect("a set");
        assert_eq!(set.to_string(), "200-299,304");
        let in_set: Vec<u16> = [199, 200, 299, 300, 304].into_iter().filter(|status| set.has(*status)).collect();
        assert_eq!(in_set, [200, 299, 304]);
        for text in ["", "2xx", "299-200", "99", "600", "200-", &"200,".repeat(40)] {
            assert!(StatusSet::parse(text).is_err_and(|error| error.contains("give one like")), "{text}");
        }
    }

    #[test]
    fn json_values() {
        let body = br#"{"a.b": 1, "checks": [{"state": "ok", "n": 1.0}], "up": true, "none": null}"#;
        let check = |path: &str, value: Value, expected: Option<&str>| {
            let judged = JsonMatch { path: path.into(), value }.judge(body);
            match expected {
                None => assert_eq!(judged, Ok(())),
                Some(part) => {
                    let reason = judged.expect_err(path);
                    assert!(reason.code == Code::Json && reason.text.contains(part), "{reason:?}");
                }
            }
        };
        check("checks.0.state", json!("ok"), None);
        check("/checks/0/state", json!("ok"), None);
        check("/a.b", json!(1), None);
        check("checks.0.n", json!(1), None);
        check("up", json!(true), None);
        check("none", json!(null), None);
        check("up", json!("true"), Some("JSON up is true, want \"true\""));
        check("checks.0.state", json!("bad"), Some("is \"ok\", want \"bad\""));
        check("checks.1.state", json!("ok"), Some("is missing"));
        check("a.b", json!(1), Some("is missing"));
        let broken = JsonMatch { path: "a".into(), value: json!(1) }.judge(b"{").expect_err("no JSON");
        assert!(broken.text.contains("no JSON"), "{broken:?}");
    }
}
