//! Matcher: one condition on an alarm, as routes, silences and inhibitions have them: `priority<=1`, `group="web"`,
//! `tags.mount=~"/data.*"`.
//!
//! How: a name, an operator, a value. Texts are compared with `=`, `!=`, and by pattern with `=~` and `!~`; a pattern
//! stands for the whole text. The priority and ids are numbers, which `<`, `<=`, `>`, `>=` compare, too. What an alarm
//! does not have is the empty text. An alarm in several groups matches where one of them does; with `!=` and `!~`,
//! where none of them is so.
//! Invariants: a matcher that was read always decides, in time linear in the text (patterns have no look-around).
//! Compat: written and read as Alertmanager's matchers are; names are this field's.

use crate::fact::Fact;
use regex_lite::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Bytes of a matcher; the longest metric and a tag are shorter.
pub const BYTES_MAX: usize = 1024;
/// Matchers of one list: more is a tree of routes.
pub const MATCHERS_MAX: usize = 32;

/// A condition on an alarm.
#[derive(Clone, Debug)]
pub struct Matcher {
    field: Field,
    test: Test,
    text: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Priority,
    TemplateId,
    Strategy,
    Expression,
    Template,
    Group,
    Endpoint,
    Metric,
    Note,
    Tag(Box<str>),
}

#[derive(Clone, Debug)]
enum Test {
    Number(Order, i64),
    Text { wanted: Box<str>, is: bool },
    Pattern { pattern: Box<Regex>, is: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Operators, those first whose beginning is another.
const OPERATORS: [&str; 8] = ["=~", "!~", "!=", "<=", ">=", "=", "<", ">"];
const NAMES: &str = "priority, template, template_id, strategy, expression, group, endpoint, metric, note, tags.KEY";

impl Matcher {
    /// Reads a matcher, or says what is wrong with it and what to give.
    pub fn parse(text: &str) -> Result<Matcher, String> {
        let text = text.trim();
        if text.len() > BYTES_MAX {
            return Err(format!("a matcher of {} bytes: give at most {BYTES_MAX}", text.len()));
        }
        let at = text.find(['=', '!', '<', '>']).ok_or_else(|| wrong(text, "has no operator"))?;
        let (name, rest) = text.split_at(at);
        let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
        let operator = operator.ok_or_else(|| wrong(text, "has no operator"))?;
        let field = Field::parse(name.trim()).ok_or_else(|| {
            format!("{text:?} asks for {:?}, which alarms do not have: give one of {NAMES}", name.trim())
        })?;
        let value =
            unquoted(rest[operator.len()..].trim()).ok_or_else(|| wrong(text, "has a quote that does not end"))?;
        let test = if field.is_number() { number(text, operator, &value) } else { words(text, operator, &value) }?;
        Ok(Matcher { field, test, text: text.into() })
    }

    /// Whether an alarm is so.
    pub fn matches(&self, fact: &Fact) -> bool {
        let rule = &*fact.rule;
        match &self.field {
            Field::Priority => self.test.of_number(rule.priority.into()),
            Field::TemplateId => self.test.of_number(rule.template_id),
            Field::Strategy => self.test.of_number(rule.strategy_id),
            Field::Expression => self.test.of_number(rule.expression_id),
            Field::Template => self.test.of_text(&rule.template),
            Field::Endpoint => self.test.of_text(&fact.endpoint),
            Field::Metric => self.test.of_text(&rule.metric),
            Field::Note => self.test.of_text(&rule.note),
            Field::Tag(key) => self.test.of_text(fact.tag(key).unwrap_or_default()),
            Field::Group if fact.groups.is_empty() => self.test.of_text(""),
            Field::Group if self.test.is_negative() => fact.groups.iter().all(|group| self.test.of_text(group)),
            Field::Group => fact.groups.iter().any(|group| self.test.of_text(group)),
        }
    }

    /// The matcher as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Whether an alarm is all of this.
pub fn all_match(matchers: &[Matcher], fact: &Fact) -> bool {
    matchers.iter().all(|matcher| matcher.matches(fact))
}

fn wrong(text: &str, why: &str) -> String {
    format!("{text:?} {why}: give one like group=\"web\", priority<=1 or tags.mount=~\"/data.*\"")
}

fn number(text: &str, operator: &str, value: &str) -> Result<Test, String> {
    let order = match operator {
        "=" => Order::Equal,
        "!=" => Order::Unequal,
        "<" => Order::Less,
        "<=" => Order::LessOrEqual,
        ">" => Order::Greater,
        ">=" => Order::GreaterOrEqual,
        _ => return Err(format!("{text:?} has a pattern for a number: give =, !=, <, <=, > or >=")),
    };
    let number =
        value.parse().map_err(|_| format!("{text:?} compares a number with {value:?}: give a whole number"))?;
    Ok(Test::Number(order, number))
}

fn words(text: &str, operator: &str, value: &str) -> Result<Test, String> {
    match operator {
        "=" | "!=" => Ok(Test::Text { wanted: value.into(), is: operator == "=" }),
        "=~" | "!~" => {
            let pattern = Regex::new(&format!("^(?:{value})$"));
            let pattern = pattern.map_err(|error| format!("{text:?} has no pattern that works: {error}"))?;
            Ok(Test::Pattern { pattern: Box::new(pattern), is: operator == "=~" })
        }
        _ => Err(format!("{text:?} compares a text by size: give =, !=, =~ or !~")),
    }
}

/// A value without its quotes, if it has some; none where they do not end.
fn unquoted(text: &str) -> Option<String> {
    let Some(inside) = text.strip_prefix('"') else { return Some(text.to_string()) };
    let inside = inside.strip_suffix('"')?;
    let mut out = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            '\\' => match chars.next()? {
                c @ ('"' | '\\') => out.push(c),
                // A pattern's own: `\d`.
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
    Some(out)
}

impl Field {
    fn parse(name: &str) -> Option<Field> {
        Some(match name {
            "priority" => Field::Priority,
            "template_id" => Field::TemplateId,
            "strategy" => Field::Strategy,
            "expression" => Field::Expression,
            "template" => Field::Template,
            "group" => Field::Group,
            "endpoint" => Field::Endpoint,
            "metric" => Field::Metric,
            "note" => Field::Note,
            name => Field::Tag(name.strip_prefix("tags.").filter(|key| !key.is_empty())?.into()),
        })
    }

    fn is_number(&self) -> bool {
        matches!(self, Field::Priority | Field::TemplateId | Field::Strategy | Field::Expression)
    }
}

impl Test {
    fn of_number(&self, number: i64) -> bool {
        let Test::Number(order, wanted) = self else { return false };
        match order {
            Order::Equal => number == *wanted,
            Order::Unequal => number != *wanted,
            Order::Less => number < *wanted,
            Order::LessOrEqual => number <= *wanted,
            Order::Greater => number > *wanted,
            Order::GreaterOrEqual => number >= *wanted,
        }
    }

    fn of_text(&self, text: &str) -> bool {
        match self {
            Test::Text { wanted, is } => (**wanted == *text) == *is,
            Test::Pattern { pattern, is } => pattern.is_match(text) == *is,
            Test::Number(..) => false,
        }
    }

    fn is_negative(&self) -> bool {
        matches!(self, Test::Text { is: false, .. } | Test::Pattern { is: false, .. })
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Matcher, D::Error> {
        let text = String::deserialize(deserializer)?;
        Matcher::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Rule;
    use std::sync::Arc;

    fn fact() -> Fact {
        let rule = Rule {
            priority: 1,
            metric: "df.bytes.used.percent".into(),
            note: "disk \"full\"".into(),
            template: "base".into(),
            strategy_id: 7,
            ..Rule::default()
        };
        Fact {
            rule: Arc::new(rule),
            endpoint: "web-01".into(),
            tags: "fstype=ext4,mount=/data".into(),
            groups: Arc::new(["web".into(), "bj".into()]),
        }
    }

    #[test]
    fn conditions() {
        let check = |text: &str, expected: bool| {
            assert_eq!(Matcher::parse(text).expect(text).matches(&fact()), expected, "{text}");
        };
        check("priority<=1", true);
        check("priority < 1", false);
        check("priority!=1", false);
        check("priority>=0", true);
        check("strategy=7", true);
        check("expression=0", true);
        check("expression>0", false);
        check("endpoint=web-01", true);
        check("endpoint=\"web-0\"", false);
        check("endpoint=~\"web-\\d+\"", true);
        check("endpoint=~web", false);
        check("endpoint!~\"db.*|web.*\"", false);
        check("group=web", true);
        check("group=~\"b.\"", true);
        check("group!=web", false);
        check("group!=db", true);
        check("tags.mount=/data", true);
        check("tags.disk=\"\"", true);
        check("tags.disk!=\"\"", false);
        check("template=base", true);
        check("note=\"disk \\\"full\\\"\"", true);
        let nobodys = Fact { groups: Arc::new([]), ..fact() };
        assert!(Matcher::parse("group=\"\"").expect("a matcher").matches(&nobodys));
        assert!(Matcher::parse("group!=web").expect("a matcher").matches(&nobodys));
    }

    #[test]
    fn what_cannot_decide_is_refused_with_the_fix() {
        for text in [
            "",
            "web",
            "color=red",
            "tags.=x",
            "=x",
            "!x",
            "priority=high",
            "priority=~1",
            "endpoint<x",
            "endpoint=~(",
            "endpoint=\"x",
            "endpoint=\"a\"b\"",
            &format!("note={}", "x".repeat(BYTES_MAX)),
        ] {
            let why = Matcher::parse(text).expect_err(text);
            assert!(why.contains("give ") || why.contains("works: "), "{text}: {why}");
        }
    }

    #[test]
    fn json_is_the_text() {
        let matchers: Vec<Matcher> = serde_json::from_str(r#"["group=\"web\"", "priority<=1"]"#).expect("matchers");
        assert_eq!(serde_json::to_string(&matchers).expect("JSON"), r#"["group=\"web\"","priority<=1"]"#);
        assert!(all_match(&matchers, &fact()));
    }
}
