//! Texts of the audit: what differs between two states of a thing, within a bound.
//!
//! Why: a thing can be large, a group of 20,000 hosts or an `apply` of a whole site, and what somebody looks for may
//! stand at its end.
//! How: equal fields go first, then elements that both lists have. Where a text is still too long, each field gets its
//! share of the room, so that the small ones stay whole: of a long text what both states begin with is left out, of a
//! long list the ids stay ([`shorten`]).
//! Invariants: a text is JSON of at most [`TEXT_MAX`] bytes. What was cut says how long it was.

use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Bytes of each of the two texts of a row: a template with 200 strategies fits.
pub const TEXT_MAX: usize = 64 << 10;
/// Bytes of a share that is still worth reading; where elements have less, their ids are kept alone.
const SHARE_MIN: usize = 120;
/// Bytes that stand around what stays of a cut value: its braces, names and numbers.
const AROUND: usize = 64;
/// Bytes that two long texts have in common at their beginnings before that is left out.
const COMMON_MIN: usize = 200;

/// The texts of two states of a thing: of objects what differs, of lists within them what is in one alone.
pub fn difference(was: Option<Value>, became: Option<Value>) -> (String, String) {
    let (mut was, mut became) = (was, became);
    if let (Some(was), Some(became)) = (&mut was, &mut became) {
        keep_different(was, became);
    }
    let text = |value: &Option<Value>| value.as_ref().map_or(String::new(), Value::to_string);
    let texts = (text(&was), text(&became));
    if texts.0.len() <= TEXT_MAX && texts.1.len() <= TEXT_MAX {
        return texts;
    }
    if let (Some(was), Some(became)) = (&mut was, &mut became) {
        leave_out_common(was, became);
    }
    (bounded(was), bounded(became))
}

fn bounded(value: Option<Value>) -> String {
    let Some(value) = value else { return String::new() };
    let text = shorten(value, TEXT_MAX).to_string();
    if text.len() <= TEXT_MAX { text } else { shorten(Value::String(text), TEXT_MAX).to_string() }
}

/// Takes out of two objects what they have in common, at every depth.
fn keep_different(old: &mut Value, new: &mut Value) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return };
    let keys: Vec<String> = old.keys().filter(|key| new.contains_key(*key)).cloned().collect();
    for key in keys {
        let (Some(before), Some(after)) = (old.get_mut(&key), new.get_mut(&key)) else { continue };
        if before == after {
            old.remove(&key);
            new.remove(&key);
            continue;
        }
        match (before, after) {
            (Value::Array(before), Value::Array(after)) => keep_different_elements(before, after),
            (before, after) => keep_different(before, after),
        }
    }
}

fn keep_different_elements(old: &mut Vec<Value>, new: &mut Vec<Value>) {
    let texts = |list: &[Value]| list.iter().map(Value::to_string).collect::<HashSet<String>>();
    let (had, has) = (texts(old), texts(new));
    old.retain(|value| !has.contains(&value.to_string()));
    new.retain(|value| !had.contains(&value.to_string()));
}

/// Leaves out what long texts of the same field begin with in both states.
fn leave_out_common(old: &mut Value, new: &mut Value) {
    if let (Value::Object(old), Value::Object(new)) = (&mut *old, &mut *new) {
        for (key, before) in old {
            if let Some(after) = new.get_mut(key) {
                leave_out_common(before, after);
            }
        }
        return;
    }
    let (Value::String(before), Value::String(after)) = (&*old, &*new) else { return };
    let same = before.chars().zip(after.chars()).take_while(|(a, b)| a == b);
    let common: usize = same.map(|(c, _)| c.len_utf8()).sum();
    if common >= COMMON_MIN {
        let rest = |text: &str| json!({ "bytes": text.len(), "from": common, "text": text[common..] });
        (*old, *new) = (rest(before), rest(after));
    }
}

/// A value in at most about `room` bytes of JSON; what is cut is told with its length.
fn shorten(value: Value, room: usize) -> Value {
    if value.to_string().len() <= room {
        return value;
    }
    match value {
        Value::String(text) => beginning(&text, room),
        Value::Array(list) => shorten_list(list, room),
        Value::Object(map) => shorten_object(map, room),
        small => small,
    }
}

fn beginning(text: &str, room: usize) -> Value {
    let room = room.saturating_sub(AROUND);
    let mut end = text.floor_char_boundary(room);
    // Quotes take two bytes in JSON, and control characters six.
    while end > 0 && Value::from(&text[..end]).to_string().len() > room {
        end = text.floor_char_boundary(end * 3 / 4);
    }
    json!({ "bytes": text.len(), "begins": text[..end] })
}

fn shorten_object(map: Map<String, Value>, room: usize) -> Value {
    let names: usize = map.keys().map(|key| key.len() + 4).sum();
    let share = share(map.values(), room.saturating_sub(names + 2));
    if share < SHARE_MIN {
        let (count, keys) = (map.len(), map.keys().map(|key| key.as_str().into()));
        return json!({ "count": count, "keys": as_fit(keys, room) });
    }
    Value::Object(map.into_iter().map(|(key, value)| (key, shorten(value, share))).collect())
}

fn shorten_list(list: Vec<Value>, room: usize) -> Value {
    let share = share(list.iter(), room.saturating_sub(list.len() + 2));
    if share >= SHARE_MIN {
        return list.into_iter().map(|value| shorten(value, share)).collect();
    }
    let count = list.len();
    if list.iter().all(|value| value["id"].is_i64()) {
        return json!({ "count": count, "ids": as_fit(list.into_iter().map(|mut value| value["id"].take()), room) });
    }
    json!({ "count": count, "first": as_fit(list.into_iter().map(plain), room) })
}

/// An object without what is within its fields.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, value)| !value.is_object() && !value.is_array()).collect::<Map<_, _>>().into()
        }
        value => value,
    }
}

/// As many elements as `room` has place for.
fn as_fit(list: impl Iterator<Item = Value>, room: usize) -> Vec<Value> {
    let mut left = room.saturating_sub(AROUND);
    let fits = |value: &Value| {
        let bytes = value.to_string().len() + 1;
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    };
    list.take_while(fits).collect()
}

/// The bytes that each value may have, so that small ones stay whole and all together have `room`.
fn share<'v>(values: impl Iterator<Item = &'v Value>, room: usize) -> usize {
    let mut sizes: Vec<usize> = values.map(|value| value.to_string().len()).collect();
    sizes.sort_unstable();
    let mut left = room;
    for (at, size) in sizes.iter().enumerate() {
        let share = left / (sizes.len() - at);
        if *size > share {
            return share;
        }
        left -= size;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences() {
        let check = |was: Value, became: Value, expected: (&str, &str)| {
            let some = |value: Value| (!value.is_null()).then_some(value);
            let (got_was, got_became) = difference(some(was), some(became));
            assert_eq!((got_was.as_str(), got_became.as_str()), expected);
        };
        check(json!({ "a": 1, "b": 2 }), json!({ "a": 1, "b": 3 }), (r#"{"b":2}"#, r#"{"b":3}"#));
        check(json!({ "l": [1, 2] }), json!({ "l": [2, 3] }), (r#"{"l":[1]}"#, r#"{"l":[3]}"#));
        check(json!({ "a": 1 }), Value::Null, (r#"{"a":1}"#, ""));
        check(json!({ "a": 1 }), json!({ "a": 1 }), ("{}", "{}"));
        check(json!({ "a": null }), json!({ "b": 1 }), (r#"{"a":null}"#, r#"{"b":1}"#));
        let inner = |b: i64| json!({ "action": { "id": 1, "callback": b } });
        check(inner(0), inner(1), (r#"{"action":{"callback":0}}"#, r#"{"action":{"callback":1}}"#));
    }

    #[test]
    fn a_change_at_the_end_of_much_is_kept() -> anyhow::Result<()> {
        let parts = |was: Value, became: Value| -> anyhow::Result<(Value, Value)> {
            let (was, became) = difference(Some(was), Some(became));
            assert!(was.len() <= TEXT_MAX && became.len() <= TEXT_MAX, "{} {}", was.len(), became.len());
            Ok((serde_json::from_str(&was)?, serde_json::from_str(&became)?))
        };
        let long = "\"长".repeat(TEXT_MAX);
        let thing = |end: &str, number: i64| json!({ "a_text": format!("{long}{end}"), "same": long, "z": number });
        let (was, became) = parts(thing("x", 1), thing("yz", 2))?;
        let bytes = long.len();
        let rest = |text: &str| json!({ "bytes": bytes + text.len(), "from": bytes, "text": text });
        assert_eq!((was, became), (json!({ "a_text": rest("x"), "z": 1 }), json!({ "a_text": rest("yz"), "z": 2 })));

        // Two long texts have nothing in common, and the small fields stay.
        let (was, became) = parts(json!({ "a": long, "z": 1 }), json!({ "a": "\u{1}".repeat(TEXT_MAX), "z": 2 }))?;
        assert_eq!((&was["z"], &was["a"]["bytes"]), (&json!(1), &json!(bytes)));
        assert!(became["a"]["begins"].as_str().is_some_and(|text| text.len() > 1000), "{became}");

        let names = |part: &str| (0..20_000).map(|at| format!("{part}-{at}.example.com")).collect::<Vec<_>>();
        let (was, became) = parts(json!({ "hosts": names("a"), "z": 1 }), json!({ "hosts": names("b"), "z": 2 }))?;
        assert_eq!((&was["hosts"]["count"], &became["z"]), (&json!(20_000), &json!(2)));
        assert_eq!(was["hosts"]["first"][1], "a-1.example.com");
        Ok(())
    }

    #[test]
    fn of_many_rows_the_ids_stay() -> anyhow::Result<()> {
        let of = |count: i64, note: &str| -> anyhow::Result<Value> {
            let rows: Vec<Value> = (0..count).map(|id| json!({ "id": id, "note": note, "list": [1] })).collect();
            let text = difference(Some(json!({ "name": "t", "rows": rows })), None).0;
            assert!(text.len() <= TEXT_MAX, "{}", text.len());
            Ok(serde_json::from_str(&text)?)
        };
        let few = of(200, &"n".repeat(1000))?;
        assert_eq!((&few["name"], &few["rows"][199]["id"]), (&json!("t"), &json!(199)), "each has its share");
        assert_eq!(few["rows"][199]["note"]["bytes"], 1000);
        let many = of(5_000, "note")?;
        assert_eq!(many["rows"]["ids"].as_array().map(Vec::len), Some(5_000));
        let changes: Vec<Value> = (0..3_000).map(|at| json!({ "name": format!("n{at}"), "fields": [1, 2] })).collect();
        let text = difference(None, Some(json!({ "changes": changes }))).1;
        let told: Value = serde_json::from_str(&text)?;
        assert_eq!(
            (&told["changes"]["count"], &told["changes"]["first"][2]),
            (&json!(3_000), &json!({ "name": "n2" }))
        );
        let odd: serde_json::Map<_, _> = (0..9_000).map(|at| (format!("key-{at}"), json!("x".repeat(50)))).collect();
        let text = difference(Some(Value::Object(odd)), None).0;
        assert!(text.len() <= TEXT_MAX && text.starts_with("{\"count\":9000,"), "{}", &text[..200]);
        Ok(())
    }
}
