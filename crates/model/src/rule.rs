//! Rules as the portal hands them to hbs and to the judge: strategies by host, and expressions.
//!
//! Why: the original repeats every strategy, with its template, for every host, each minute. Here a strategy exists
//! once behind an `Arc`, hosts with the same strategies share one list, and [`Rules`] is an immutable value with a
//! version. The JSON forms are those of `Hbs.GetStrategies` and of events (docs/open-falcon/wire.md §5, §9).

use crate::number::push_go_json;
use crate::rule_tags::RuleTags;
use crate::tags::Tags;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

/// The template a strategy came from: the leaf of its chain, whose action is used.
#[derive(Clone, Debug, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Template {
    pub id: i64,
    pub name: String,
    pub parent_id: i64,
    pub action_id: i64,
    pub creator: String,
}

/// The series of a strategy that one part of it is for, where some of its series are excepted by a tag.
///
/// Parts of one strategy never share a series, so an alarm is that of the strategy, whichever part made it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct TagScope {
    /// Tag, as key and value, that a series has besides the strategy's; `None` in the part for all that is left.
    pub only: Option<(String, String)>,
    /// Tags of which a series has none.
    pub except: Vec<(String, String)>,
}

impl TagScope {
    /// Whether a series with these tags is one of the part's.
    pub fn takes(&self, tags: Tags<'_>) -> bool {
        let has = |tag: &(String, String)| tags.find(&tag.0) == Some(&*tag.1);
        self.only.as_ref().is_none_or(has) && !self.except.iter().any(has)
    }

    fn memory_bytes(&self) -> usize {
        let pair = size_of::<(String, String)>();
        let texts = self.only.iter().chain(&self.except).map(|(key, value)| key.capacity() + value.capacity());
        size_of::<TagScope>() + self.except.capacity() * pair + texts.sum::<usize>()
    }
}

/// A strategy in effect for some hosts, inheritance resolved.
#[derive(Clone, Debug, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    pub id: i64,
    pub metric: String,
    #[serde(deserialize_with = "null_as_empty")]
    pub tags: RuleTags,
    pub func: String,
    pub operator: String,
    pub right_value: f64,
    pub max_step: i32,
    pub priority: i32,
    pub note: String,
    pub tpl: Template,
    /// Series that this part of the strategy is for; `None` where it has no parts. Nobody outside is told of it.
    #[serde(skip)]
    pub scope: Option<Box<TagScope>>,
}

/// A rule for every series, of any host, that has a metric and tags. The tag `endpoint` means the series' endpoint.
#[derive(Clone, Debug, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Expression {
    pub id: i64,
    pub metric: String,
    #[serde(deserialize_with = "null_as_empty")]
    pub tags: RuleTags,
    pub func: String,
    pub operator: String,
    pub right_value: f64,
    pub max_step: i32,
    pub priority: i32,
    pub note: String,
    pub action_id: i64,
}

/// The strategies of one host, shared by all hosts that have the same.
pub type HostStrategies = Arc<[Arc<Strategy>]>;

/// All rules in effect at one moment.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Grows with each change; equal versions of one portal mean equal rules.
    pub version: u64,
    pub hosts: HashMap<String, HostStrategies>,
    pub expressions: Vec<Arc<Expression>>,
}

/// Size of the two counts that stand before the value of an `Arc`.
const ARC_BYTES: usize = 2 * size_of::<usize>();

impl Template {
    fn memory_bytes(&self) -> usize {
        self.name.capacity() + self.creator.capacity()
    }
}

impl Rules {
    /// Bytes of memory; a list or strategy that hosts share counts once.
    pub fn memory_bytes(&self) -> usize {
        let (mut lists, mut strategies) = (HashSet::new(), HashSet::new());
        let mut bytes = self.hosts.capacity() * (size_of::<(String, HostStrategies)>() + 1)
            + self.hosts.keys().map(String::capacity).sum::<usize>()
            + self.expressions.capacity() * size_of::<Arc<Expression>>()
            + self.expressions.iter().map(|expression| ARC_BYTES + expression.memory_bytes()).sum::<usize>();
        for list in self.hosts.values().filter(|list| lists.insert(Arc::as_ptr(list).cast::<u8>())) {
            bytes += ARC_BYTES + size_of_val(&**list);
            let new = list.iter().filter(|strategy| strategies.insert(Arc::as_ptr(strategy)));
            bytes += new.map(|strategy| ARC_BYTES + strategy.memory_bytes()).sum::<usize>();
        }
        bytes
    }
}

fn null_as_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<RuleTags, D::Error> {
    Ok(Option::<RuleTags>::deserialize(deserializer)?.unwrap_or_default())
}

impl Strategy {
    /// The excepted tag as `key=value`, in a part for the series that have it; "" in every other strategy.
    pub fn part(&self) -> String {
        let only = self.scope.as_ref().and_then(|scope| scope.only.as_ref());
        only.map_or(String::new(), |(key, value)| format!("{key}={value}"))
    }

    /// Whether this is a part for series that a tag excepts, of a strategy that has another part for the rest.
    pub fn is_excepted_part(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.only.is_some())
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        let texts = [&self.metric, &self.func, &self.operator, &self.note].map(String::capacity);
        let scope = self.scope.as_ref().map_or(0, |scope| scope.memory_bytes());
        size_of::<Strategy>() + texts.iter().sum::<usize>() + self.tags.memory_bytes() + self.tpl.memory_bytes() + scope
    }

    /// Appends the rule's JSON, byte for byte as the original writes it.
    pub fn push_json(&self, out: &mut String) {
        write!(out, "{{\"id\":{},\"metric\":", self.id).expect("String");
        push_json_string(&self.metric, out);
        push_common_json(
            &self.tags,
            &self.func,
            &self.operator,
            self.right_value,
            self.max_step,
            self.priority,
            &self.note,
            out,
        );
        write!(out, ",\"tpl\":{{\"id\":{},\"name\":", self.tpl.id).expect("String");
        push_json_string(&self.tpl.name, out);
        write!(out, ",\"parentId\":{},\"actionId\":{},\"creator\":", self.tpl.parent_id, self.tpl.action_id)
            .expect("String");
        push_json_string(&self.tpl.creator, out);
        out.push_str("}}");
    }
}

impl Expression {
    /// Bytes of the rule and its texts.
    pub fn memory_bytes(&self) -> usize {
        let texts = [&self.metric, &self.func, &self.operator, &self.note].map(String::capacity);
        size_of::<Expression>() + texts.iter().sum::<usize>() + self.tags.memory_bytes()
    }

    /// Appends the rule's JSON, byte for byte as the original writes it.
    pub fn push_json(&self, out: &mut String) {
        write!(out, "{{\"id\":{},\"metric\":", self.id).expect("String");
        push_json_string(&self.metric, out);
        push_common_json(
            &self.tags,
            &self.func,
            &self.operator,
            self.right_value,
            self.max_step,
            self.priority,
            &self.note,
            out,
        );
        write!(out, ",\"actionId\":{}}}", self.action_id).expect("String");
    }
}

#[allow(clippy::too_many_arguments)] // the fields that strategies and expressions share, in wire order
fn push_common_json(
    tags: &RuleTags,
    func: &str,
    operator: &str,
    right_value: f64,
    max_step: i32,
    priority: i32,
    note: &str,
    out: &mut String,
) {
    out.push_str(",\"tags\":");
    push_json_map(tags.iter(), out);
    out.push_str(",\"func\":");
    push_json_string(func, out);
    out.push_str(",\"operator\":");
    push_json_string(operator, out);
    out.push_str(",\"rightValue\":");
    push_go_json(right_value, out);
    write!(out, ",\"maxStep\":{max_step},\"priority\":{priority},\"note\":").expect("String");
    push_json_string(note, out);
}

/// A JSON object of strings in the order given.
pub fn push_json_map<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, out: &mut String) {
    out.push('{');
    for (i, (key, value)) in pairs.enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_json_string(key, out);
        out.push(':');
        push_json_string(value, out);
    }
    out.push('}');
}

/// A JSON string as Go's `encoding/json` writes it: `<`, `>`, `&`, U+2028 and U+2029 are escaped as well.
pub fn push_json_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("String");
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosts_share_counts_once() {
        let strategy = |id| Arc::new(Strategy { id, metric: "m".repeat(1000), ..Strategy::default() });
        let (list, other): (HostStrategies, HostStrategies) = ([strategy(1), strategy(2)].into(), [strategy(3)].into());
        let rules = |lists: &[HostStrategies]| {
            let host = |(i, list): (usize, &HostStrategies)| (format!("host-{i}"), list.clone());
            Rules { hosts: lists.iter().enumerate().map(host).collect(), ..Rules::default() }.memory_bytes()
        };
        let (one, same, both) =
            (rules(std::slice::from_ref(&list)), rules(&[list.clone(), list.clone()]), rules(&[list, other]));
        assert!((2000..3000).contains(&one), "{one}");
        assert!((one + 6..one + 100).contains(&same), "{same} after {one}: a name and a place");
        assert!((one + 1000..one + 1500).contains(&both), "{both} after {one}");
    }

    #[test]
    fn strategy_json_reads_back() {
        let strategy = Strategy {
            id: 1,
            metric: "cpu.idle".into(),
            tags: [("k".to_string(), "v<\"".to_string())].into(),
            func: "all(#3)".into(),
            operator: "<".into(),
            right_value: 5.0,
            max_step: 3,
            priority: 0,
            note: "a\nb".into(),
            tpl: Template { id: 7, name: "t".into(), parent_id: 0, action_id: 2, creator: "root".into() },
            scope: None,
        };
        let mut json = String::new();
        strategy.push_json(&mut json);
        assert_eq!(
            json,
            r#"{"id":1,"metric":"cpu.idle","tags":{"k":"v\u003c\""},"func":"all(#3)","operator":"\u003c","rightValue":5,"maxStep":3,"priority":0,"note":"a\nb","tpl":{"id":7,"name":"t","parentId":0,"actionId":2,"creator":"root"}}"#
        );
        assert_eq!(serde_json::from_str::<Strategy>(&json).expect("own JSON"), strategy);
    }
}
