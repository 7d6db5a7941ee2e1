//! Diff: what files change, key by key, for people to read before it is so.
//!
//! How: the views of a thing before and behind are compared. Strategies are told apart by their ids, exceptions by what
//! they are about; of lists what comes and what goes is told.
//! Invariants: a secret in a URL or a header is not shown, and a change of it is.

use super::code_model::{Kind, Model, Thing, View, objects};
use super::code_probe;
use super::code_secret::masked;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// A thing that is made, changed or deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// `create`, `change` or `delete`.
    pub what: String,
    /// The folder of its kind.
    pub kind: String,
    pub name: String,
    /// What becomes different; of what is deleted, what it was.
    pub fields: Vec<Field>,
}

/// A key whose value becomes another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    pub key: String,
    /// `null` where there was none.
    pub old: Value,
    /// `null` where there is none any more.
    pub new: Value,
}

/// All changes from one model to the next, by kind.
pub fn changes(old: &Model, new: &Model) -> Vec<Change> {
    let mut changes = Vec::new();
    add(&mut changes, Kind::Users, &old.users, &new.users);
    add(&mut changes, Kind::Teams, &old.teams, &new.teams);
    add(&mut changes, Kind::Templates, &old.templates, &new.templates);
    add(&mut changes, Kind::Groups, &old.groups, &new.groups);
    add(&mut changes, Kind::Expressions, &old.expressions, &new.expressions);
    add(&mut changes, Kind::Nodata, &old.nodata, &new.nodata);
    add(&mut changes, Kind::Aggregators, &old.aggregators, &new.aggregators);
    add(&mut changes, Kind::Probes, &old.probes, &new.probes);
    add(&mut changes, Kind::Dashboards, &old.dashboards, &new.dashboards);
    changes
}

/// Whether a thing says something else than the one that is there.
pub fn differs<T: Thing>(old: &T, new: &T) -> bool {
    let mut fields = Vec::new();
    compare("", &old.view(), &new.view(), &mut fields);
    !fields.is_empty()
}

fn add<T: Thing>(changes: &mut Vec<Change>, kind: Kind, old: &[T], new: &[T]) {
    let hidden = |field: Field| match kind {
        Kind::Probes => Field {
            old: code_probe::shown(&field.key, field.old),
            new: code_probe::shown(&field.key, field.new),
            ..field
        },
        _ => field,
    };
    let change = |what: &str, thing: &T, fields: Vec<Field>| Change {
        what: what.to_string(),
        kind: kind.folder().to_string(),
        name: thing.parts().join(" "),
        fields: fields.into_iter().map(hidden).collect(),
    };
    for thing in new {
        let before = old.iter().find(|old| thing.id() != 0 && old.id() == thing.id());
        let mut fields = Vec::new();
        compare("", &before.map(Thing::view).unwrap_or_default(), &thing.view(), &mut fields);
        match before {
            Some(_) if fields.is_empty() => {}
            Some(_) => changes.push(change("change", thing, fields)),
            None => changes.push(change("create", thing, fields)),
        }
    }
    let stays: BTreeSet<i64> = new.iter().map(Thing::id).collect();
    for thing in old.iter().filter(|thing| !stays.contains(&thing.id())) {
        let mut fields = Vec::new();
        compare("", &thing.view(), &View::new(), &mut fields);
        changes.push(change("delete", thing, fields));
    }
}

/// Appends the keys in which two views differ. Ids are compared by nobody: a new thing has none.
fn compare(within: &str, old: &View, new: &View, fields: &mut Vec<Field>) {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys.into_iter().filter(|key| *key != "id") {
        let path = format!("{within}{key}");
        match (key.as_str(), old.get(key), new.get(key)) {
            ("strategy" | "exception" | "graph", _, _) => compare_lists(within, key, old, new, fields),
            (_, Some(Value::Object(a)), Some(Value::Object(b))) => compare(&format!("{path}."), a, b, fields),
            (_, a, b) if said(a) == said(b) => {}
            (_, a, b) => fields.push(field(path, a, b)),
        }
    }
}

/// A value as far as it says something: an empty one is none.
fn said(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    })
}

fn field(key: String, old: Option<&Value>, new: Option<&Value>) -> Field {
    let (old, new) = match (said(old), said(new)) {
        // Lists are told by what goes, and what comes.
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            let without =
                |list: &[Value], other: &[Value]| list.iter().filter(|one| !other.contains(one)).cloned().collect();
            (without(a, b), without(b, a))
        }
        (old, new) => (shown(old), shown(new)),
    };
    let is_url = key.ends_with("url");
    let hidden = |value: Value| match value {
        Value::String(url) if is_url => Value::String(masked(&url)),
        value => value,
    };
    Field { old: hidden(old), new: hidden(new), key }
}

fn shown(value: Option<&Value>) -> Value {
    match value {
        Some(Value::Object(view)) => {
            let masked = view.iter().filter(|(key, value)| *key != "id" && said(Some(value)).is_some());
            let url = |key: &String, value: &Value| match value {
                Value::String(url) if key == "url" => Value::String(masked_url(url)),
                value => value.clone(),
            };
            Value::Object(masked.map(|(key, value)| (key.clone(), url(key, value))).collect())
        }
        value => value.cloned().unwrap_or_default(),
    }
}

fn masked_url(url: &str) -> String {
    masked(url)
}

/// Compares strategies, the exceptions of one, or charts.
fn compare_lists(within: &str, key: &str, old: &View, new: &View, fields: &mut Vec<Field>) {
    let is_same = |a: &View, b: &View| match key {
        "strategy" | "graph" => a["id"] != 0 && a["id"] == b["id"],
        _ => a["kind"] == b["kind"] && a["target"] == b["target"],
    };
    for after in objects(new, key) {
        match objects(old, key).find(|before| is_same(before, after)) {
            Some(before) => compare(&format!("{within}{}.", label(key, after)), before, after, fields),
            None => {
                fields.push(field(format!("{within}{}", label(key, after)), None, Some(&Value::Object(after.clone()))))
            }
        }
    }
    for before in objects(old, key).filter(|before| !objects(new, key).any(|after| is_same(before, after))) {
        fields.push(field(format!("{within}{}", label(key, before)), Some(&Value::Object(before.clone())), None));
    }
}

/// The name of a strategy, an exception or a chart.
fn label(key: &str, view: &View) -> String {
    let text = |key: &str| view.get(key).and_then(Value::as_str).unwrap_or_default();
    if key == "exception" {
        return format!("exception({} {})", text("kind"), text("target"));
    }
    let id = view.get("id").and_then(Value::as_i64).filter(|id| *id != 0);
    if key == "graph" {
        return id.map_or(format!("graph({})", text("title")), |id| format!("graph({id} {})", text("title")));
    }
    let tags = text("tags");
    let slash = if tags.is_empty() { "" } else { "/" };
    match id {
        Some(id) => format!("strategy({id} {}{slash}{tags})", text("metric")),
        None => format!("strategy({}{slash}{tags})", text("metric")),
    }
}

/// Changes as lines for people.
pub fn lines(changes: &[Change]) -> String {
    let mut out = String::new();
    for Change { what, kind, name, fields } in changes {
        let sign = match what.as_str() {
            "create" => '+',
            "delete" => '-',
            _ => '~',
        };
        out.push_str(&format!("{sign} {kind} {name}\n"));
        // The name says what goes; what it was is in the record.
        let fields = if what == "delete" { &[][..] } else { fields };
        for Field { key, old, new } in fields {
            let line = match (old, new) {
                (Value::Null, new) => format!("    {key}: {new}\n"),
                (old, Value::Null) => format!("    {key}: {old} → nothing\n"),
                (Value::Array(gone), Value::Array(come)) => {
                    let names =
                        |list: &[Value], sign| list.iter().map(|one| format!(" {sign}{one}")).collect::<String>();
                    format!("    {key}:{}{}\n", names(gone, '-'), names(come, '+'))
                }
                (old, new) => format!("    {key}: {old} → {new}\n"),
            };
            out.push_str(&line);
        }
    }
    out
}
