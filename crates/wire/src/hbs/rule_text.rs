//! Rule text: one strategy or expression from its JSON text, as an hbs sends it.
//!
//! Why: the original decodes a whole answer at once, so one field of a wrong type loses the rules of every host. Here a
//! rule is a text of its own, and a [`BadRule`] costs nobody but itself.
//! Invariants: a rule that is read has an id, a metric and a finite right value, so it can be told apart, bound and
//! compared; whether its function can be compiled is for the judge to say. null leaves a field at zero and unknown
//! fields are passed over, as in Go.

use crate::json::{self, JsonError, Kind, Reader, Scratch, name_eq};
use model::{Expression, RuleTags, Strategy, Template};
use std::fmt;

/// Reason for which a rule was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRule {
    /// Id of the rule; 0 when it was not seen.
    pub id: i64,
    pub fault: RuleFault,
}

/// Fault of a rule's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleFault {
    Json(JsonError),
    Field {
        field: &'static str,
        want: &'static str,
    },
    /// Another rule of the list has this id.
    IdTwice,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleFault::Json(error) => write!(f, "{error}"),
            RuleFault::Field { field, want } => write!(f, "{field} must be {want}"),
            RuleFault::IdTwice => write!(f, "id stands twice in one list; the first in order of content is used"),
        }
    }
}

/// Strategies and expressions as texts on the wire.
pub(super) trait RuleText: Sized {
    fn read(text: &[u8], scratch: &mut Scratch) -> Result<Self, BadRule>;
    /// Appends the text in the one form that Go gives it.
    fn push_json(&self, out: &mut String);
    fn memory_bytes(&self) -> usize;
}

fn text_bytes(texts: [&String; 4], tags: &RuleTags) -> usize {
    let texts: usize = texts.iter().map(|text| text.capacity()).sum();
    texts + tags.memory_bytes()
}

impl RuleText for Strategy {
    fn read(text: &[u8], scratch: &mut Scratch) -> Result<Strategy, BadRule> {
        let mut tpl = Template::default();
        let common = Common::read(text, scratch, |fields, name, value| {
            if name_eq(name, "tpl") {
                fields.template(value, &mut tpl);
            }
        })?;
        let Common { id, metric, tags, func, operator, right_value, max_step, priority, note } = common;
        Ok(Strategy { id, metric, tags, func, operator, right_value, max_step, priority, note, tpl, scope: None })
    }

    fn push_json(&self, out: &mut String) {
        Strategy::push_json(self, out);
    }

    fn memory_bytes(&self) -> usize {
        let Strategy { metric, tags, func, operator, note, tpl, .. } = self;
        let template = tpl.name.capacity() + tpl.creator.capacity();
        size_of::<Strategy>() + template + text_bytes([metric, func, operator, note], tags)
    }
}

impl RuleText for Expression {
    fn read(text: &[u8], scratch: &mut Scratch) -> Result<Expression, BadRule> {
        let mut action_id = 0;
        let common = Common::read(text, scratch, |fields, name, value| {
            if name_eq(name, "actionId") {
                fields.integer("actionId", value, &mut action_id);
            }
        })?;
        let Common { id, metric, tags, func, operator, right_value, max_step, priority, note } = common;
        Ok(Expression { id, metric, tags, func, operator, right_value, max_step, priority, note, action_id })
    }

    fn push_json(&self, out: &mut String) {
        Expression::push_json(self, out);
    }

    fn memory_bytes(&self) -> usize {
        let Expression { metric, tags, func, operator, note, .. } = self;
        size_of::<Expression>() + text_bytes([metric, func, operator, note], tags)
    }
}

#[derive(Default)]
struct Common {
    id: i64,
    metric: String,
    tags: RuleTags,
    func: String,
    operator: String,
    right_value: f64,
    max_step: i32,
    priority: i32,
    note: String,
}

impl Common {
    /// `other` is shown the fields that only one of both kinds has.
    fn read(
        text: &[u8],
        scratch: &mut Scratch,
        mut other: impl FnMut(&mut Fields, &str, &[u8]),
    ) -> Result<Common, BadRule> {
        let mut rule = Common::default();
        let mut fields = Fields::default();
        let read = json::fields(text, scratch, |name, value| match name {
            _ if name_eq(name, "id") => fields.integer("id", value, &mut rule.id),
            _ if name_eq(name, "metric") => fields.text("metric", value, &mut rule.metric),
            _ if name_eq(name, "tags") => fields.tags(value, &mut rule.tags),
            _ if name_eq(name, "func") => fields.text("func", value, &mut rule.func),
            _ if name_eq(name, "operator") => fields.text("operator", value, &mut rule.operator),
            _ if name_eq(name, "rightValue") => fields.number("rightValue", value, &mut rule.right_value),
            _ if name_eq(name, "maxStep") => fields.integer("maxStep", value, &mut rule.max_step),
            _ if name_eq(name, "priority") => fields.integer("priority", value, &mut rule.priority),
            _ if name_eq(name, "note") => fields.text("note", value, &mut rule.note),
            _ => other(&mut fields, name, value),
        });
        if let Err(error) = read {
            return Err(BadRule { id: rule.id, fault: RuleFault::Json(error) });
        }
        if rule.id <= 0 {
            fields.refuse("id", "a number above 0");
        }
        if rule.metric.is_empty() {
            fields.refuse("metric", "a text that is not empty");
        }
        match fields.fault {
            Some(fault) => Err(BadRule { id: rule.id, fault }),
            None => Ok(rule),
        }
    }
}

/// Fills fields from raw values and remembers the first that does not fit.
#[derive(Default)]
struct Fields {
    fault: Option<RuleFault>,
    scratch: Scratch,
}

impl Fields {
    fn refuse(&mut self, field: &'static str, want: &'static str) {
        self.fault.get_or_insert(RuleFault::Field { field, want });
    }

    fn text(&mut self, field: &'static str, value: &[u8], target: &mut String) {
        match json::string(value, &mut self.scratch) {
            Some(text) => text.clone_into(target),
            None if json::is_null(value) => {}
            None => self.refuse(field, "a text"),
        }
    }

    fn integer<T: TryFrom<i64>>(&mut self, field: &'static str, value: &[u8], target: &mut T) {
        match json::integer(value).and_then(|integer| T::try_from(integer).ok()) {
            Some(integer) => *target = integer,
            None if json::is_null(value) => {}
            None => self.refuse(field, "an integer that fits"),
        }
    }

    fn number(&mut self, field: &'static str, value: &[u8], target: &mut f64) {
        match json::number(value).filter(|number| number.is_finite()) {
            Some(number) => *target = number,
            None if json::is_null(value) => {}
            None => self.refuse(field, "a finite number"),
        }
    }

    fn tags(&mut self, value: &[u8], target: &mut RuleTags) {
        let mut names = Scratch::new();
        if !is_object_or_null(value) {
            return self.refuse("tags", "an object of texts");
        }
        let mut pairs = Vec::new();
        let read = json::fields(value, &mut names, |name, value| {
            let mut text = String::new();
            self.text("tags", value, &mut text);
            // An original hbs leaves the spaces in, and transfer takes them out of a point's tags.
            text.retain(|c| c != ' ');
            pairs.push((name.replace(' ', ""), text));
        });
        *target = pairs.into_iter().collect();
        debug_assert!(read.is_ok(), "the text around it was read");
    }

    fn template(&mut self, value: &[u8], target: &mut Template) {
        let mut names = Scratch::new();
        if !is_object_or_null(value) {
            return self.refuse("tpl", "an object");
        }
        let read = json::fields(value, &mut names, |name, value| match name {
            _ if name_eq(name, "id") => self.integer("tpl.id", value, &mut target.id),
            _ if name_eq(name, "name") => self.text("tpl.name", value, &mut target.name),
            _ if name_eq(name, "parentId") => self.integer("tpl.parentId", value, &mut target.parent_id),
            _ if name_eq(name, "actionId") => self.integer("tpl.actionId", value, &mut target.action_id),
            _ if name_eq(name, "creator") => self.text("tpl.creator", value, &mut target.creator),
            _ => {}
        });
        debug_assert!(read.is_ok(), "the text around it was read");
    }
}

fn is_object_or_null(value: &[u8]) -> bool {
    matches!(Reader::new(value).kind(), Ok(Kind::Object | Kind::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRATEGY: &str = r#"{"id":9,"metric":"df.bytes.free.percent","tags":{"fstype":"ext4","mount":"/"},"func":"lookup(#2,3)","operator":"\u003c","rightValue":12.5,"maxStep":3,"priority":4,"note":"进程","tpl":{"id":2,"name":"web","parentId":1,"actionId":2,"creator":"alice"}}"#;
    const EXPRESSION: &str = r#"{"id":1,"metric":"m","tags":{"k":"v"},"func":"all(#1)","operator":"==","rightValue":1e-7,"maxStep":3,"priority":1,"note":"","actionId":3}"#;

    fn strategy(text: &str) -> Result<Strategy, BadRule> {
        Strategy::read(text.as_bytes(), &mut Scratch::new())
    }

    #[test]
    fn read_and_written_again_they_are_the_same() {
        let mut out = String::new();
        strategy(STRATEGY).expect("a strategy").push_json(&mut out);
        assert_eq!(out, STRATEGY);
        out.clear();
        Expression::read(EXPRESSION.as_bytes(), &mut Scratch::new()).expect("an expression").push_json(&mut out);
        assert_eq!(out, EXPRESSION);
    }

    #[test]
    fn as_go_takes_it() {
        let read =
            strategy(r#"{"ID":1,"Metric":"m","tags":null,"note":null,"tpl":null,"colour":[1,{}],"rightvalue":2}"#);
        let expected = Strategy { id: 1, metric: "m".into(), right_value: 2.0, ..Strategy::default() };
        assert_eq!(read, Ok(expected));
        let read = strategy(r#"{"id":1,"metric":"m","tags":{"a":null}}"#).expect("a strategy");
        assert_eq!(read.tags, [("a".to_string(), String::new())].into());
    }

    #[test]
    fn faults_name_the_field() {
        let check = |text: &str, id: i64, expected: &str| {
            let bad = strategy(text).expect_err(text);
            assert_eq!((bad.id, bad.fault.to_string().as_str()), (id, expected), "of {text}");
        };
        check(r#"{"metric":"m"}"#, 0, "id must be a number above 0");
        check(r#"{"id":-1,"metric":"m"}"#, -1, "id must be a number above 0");
        check(r#"{"id":"7","metric":"m"}"#, 0, "id must be an integer that fits");
        check(r#"{"id":7}"#, 7, "metric must be a text that is not empty");
        check(r#"{"id":7,"metric":["m"]}"#, 7, "metric must be a text");
        check(r#"{"id":7,"metric":"m","tags":[]}"#, 7, "tags must be an object of texts");
        check(r#"{"id":7,"metric":"m","tags":{"a":1}}"#, 7, "tags must be a text");
        check(r#"{"id":7,"metric":"m","func":3}"#, 7, "func must be a text");
        check(r#"{"id":7,"metric":"m","rightValue":"5"}"#, 7, "rightValue must be a finite number");
        check(r#"{"id":7,"metric":"m","rightValue":1e999}"#, 7, "rightValue must be a finite number");
        check(r#"{"id":7,"metric":"m","maxStep":2147483648}"#, 7, "maxStep must be an integer that fits");
        check(r#"{"id":7,"metric":"m","priority":1.5}"#, 7, "priority must be an integer that fits");
        check(r#"{"id":7,"metric":"m","tpl":5}"#, 7, "tpl must be an object");
        check(r#"{"id":7,"metric":"m","tpl":{"actionId":"x"}}"#, 7, "tpl.actionId must be an integer that fits");
        check(r#"{"id":7,"metric" "m"}"#, 7, "invalid JSON at byte 17: a colon must stand here");
        check("null", 0, "id must be a number above 0");
        check("5", 0, "invalid JSON at byte 0: an object must stand here");
    }
}
