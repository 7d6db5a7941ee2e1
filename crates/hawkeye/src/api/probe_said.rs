//! Said: what a request or a file says of a probe, or all that is wrong with it.
//!
//! How: the library stops at the first key that it cannot read. So what it complains of is taken out, or given a value
//! that can be read, and the rest is read again, until nothing is left ([`definition`]). What was read checks itself.
//! Invariants: each fault begins with its key and says what to give. Faults of a text are at most [`FAULTS_MAX`], and a
//! definition of more than [`KEYS_MAX`] keys is not looked at, so that no body costs more than some readings.

use super::code_file::key_of_error;
use super::code_secret as secret;
use super::error::ApiError;
use super::text;
use crate::portal::probe::PLACES_MAX;
use netprobe::{Definition, Kind};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Keys of a definition at most: five that all have, the kind, and ten of HTTP's own, twice.
const KEYS_MAX: usize = 32;
/// Keys that cannot be read, of which one answer tells.
const FAULTS_MAX: usize = 8;
/// Keys that answers have beside the definition; a request may send them back, and they mean nothing there.
const ANSWERED: [&str; 5] = ["id", "create_user", "create_at", "states", "states_left_off"];

/// Keys and values of a definition.
pub type Keys = Map<String, Value>;

/// What a request says of a probe; None is what it does not speak of.
#[derive(Debug, Default, PartialEq)]
pub struct Said {
    pub definition: Option<Definition>,
    pub from: Option<From>,
    pub pause: Option<i64>,
}

/// Where a probe runs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// Host group whose agents run it; none is the server.
    #[serde(default)]
    pub group: Option<String>,
    /// How many of these agents; 0 is all.
    #[serde(default)]
    pub places: i64,
}

/// Reads a request. `old` are the keys of the definition that is there, whose secrets `***` stands for.
pub fn said(mut keys: Keys, old: &Keys) -> Result<Said, Vec<String>> {
    let mut faults = Vec::new();
    ANSWERED.iter().for_each(|key| drop(keys.remove(*key)));
    let from = keys.remove("from").and_then(|value| noted(from(value), &mut faults));
    let pause = keys.remove("pause").and_then(|value| noted(pause(&value), &mut faults));
    let definition = match keys.is_empty() {
        true => None,
        false => match definition(keys, old) {
            Ok(definition) => Some(definition),
            Err(more) => {
                faults.extend(more);
                None
            }
        },
    };
    if faults.is_empty() { Ok(Said { definition, from, pause }) } else { Err(faults) }
}

fn noted<T>(read: Result<T, String>, faults: &mut Vec<String>) -> Option<T> {
    read.map_err(|fault| faults.push(fault)).ok()
}

fn from(value: Value) -> Result<From, String> {
    let want = "give {\"group\": NAME, \"places\": N}, or {} for the server";
    let from = From::deserialize(value).map_err(|error| format!("from: {error}: {want}"))?;
    let group = text::line("from.group", &from.group.unwrap_or_default(), usize::MAX).map_err(text_of)?;
    check_places(&group, from.places).map_err(|fault| format!("from.{fault}"))?;
    Ok(From { group: Some(group).filter(|group| !group.is_empty()), places: from.places })
}

/// Refuses a number of places that there cannot be.
pub fn check_places(group: &str, places: i64) -> Result<(), String> {
    if !(0..=PLACES_MAX).contains(&places) {
        return Err(format!("places is {places}: give 1 to {PLACES_MAX}, or 0 for all hosts of the group"));
    }
    if group.is_empty() && places != 0 {
        return Err("places counts the hosts of a group, and there is none: give a group, or leave it out".to_string());
    }
    Ok(())
}

fn pause(value: &Value) -> Result<i64, String> {
    match value {
        Value::Bool(is_set) => Ok(i64::from(*is_set)),
        Value::Number(number) => match number.as_i64() {
            Some(number @ (0 | 1)) => Ok(number),
            _ => Err(format!("pause is {number}: give true or false")),
        },
        _ => Err("pause is neither true nor false: give one of them".to_string()),
    }
}

/// Refuses what the server cannot run, if it is to.
pub fn check_place(definition: &Definition, is_server: bool) -> Result<(), String> {
    match definition.kind {
        Kind::Script(_) if is_server => {
            Err("kind is script, which only agents run: give the group of the hosts that have the program".to_string())
        }
        _ => Ok(()),
    }
}

/// Reads a definition. `old` are the keys of the one that is there, whose secrets `***` stands for.
pub fn definition(mut keys: Keys, old: &Keys) -> Result<Definition, Vec<String>> {
    if keys.len() > KEYS_MAX {
        return Err(vec![format!("{} keys are no definition: give those of docs/probes.md", keys.len())]);
    }
    let bytes = serde_json::to_string(&keys).map_or(0, |text| text.len());
    if bytes > 2 * netprobe::BYTES_MAX {
        let max = netprobe::BYTES_MAX;
        return Err(vec![format!("the definition has {bytes} bytes: give at most {max}, with shorter texts")]);
    }
    let mut faults = secret::unmask_probe(&mut keys, old);
    for key in ["name", "target"] {
        if let Some(Value::String(value)) = keys.get_mut(key) {
            match text::line(key, value, usize::MAX) {
                Ok(line) => *value = line,
                Err(error) => faults.push(text_of(error)),
            }
        }
    }
    loop {
        let error = match read(&keys) {
            Ok(definition) => {
                // What was given a right value in between has told its fault.
                let told: Vec<String> = faults.iter().map(|fault| key_of_error(fault).to_string()).collect();
                let is_new = |fault: &String| !told.iter().any(|key| key == key_of_error(fault));
                faults.extend(definition.check().into_iter().filter(is_new));
                return if faults.is_empty() { Ok(definition) } else { Err(faults) };
            }
            Err(error) => error,
        };
        match mended(&keys, &error).filter(|_| faults.len() < FAULTS_MAX) {
            Some((key, mended)) => {
                faults.push(format!("{key}: {error}"));
                keys = mended;
            }
            // A kind that nobody knows has no keys to be read.
            None => {
                faults.push(error);
                return Err(faults);
            }
        }
    }
}

fn read(keys: &Keys) -> Result<Definition, String> {
    serde_json::from_value(Value::Object(keys.clone())).map_err(|error| error.to_string())
}

/// The key that an error is about, and the keys without that error. None where it is about the kind.
fn mended(keys: &Keys, error: &str) -> Option<(String, Keys)> {
    let without = |key: &str| {
        let mut keys = keys.clone();
        match key {
            "name" | "target" => keys.insert(key.to_string(), json!("x")),
            _ => keys.remove(key),
        };
        keys
    };
    let required = ["name", "target"];
    let optional = keys.keys().map(String::as_str).filter(|key| *key != "kind" && !required.contains(key));
    let mut candidates = required.into_iter().chain(optional).map(|key| (key.to_string(), without(key)));
    candidates.find(|(_, keys)| read(keys).err().is_none_or(|left| left != error))
}

fn text_of(error: ApiError) -> String {
    error.text().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(value: Value) -> Keys {
        value.as_object().cloned().expect("an object")
    }

    /// Checks that each fault has its key in front and its part, in this order.
    fn check(value: Value, parts: &[(&str, &str)]) {
        let faults = said(keys(value), &Keys::new()).expect_err("wrong");
        assert_eq!(faults.len(), parts.len(), "{faults:#?}");
        for (fault, (key, part)) in faults.iter().zip(parts) {
            assert!(fault.starts_with(key) && fault.contains(part), "{fault}, want {key}: {part}");
        }
    }

    #[test]
    fn all_faults_are_told_each_with_its_key() {
        check(
            json!({ "name": 5, "kind": "tcp", "target": ["h"], "step": "often", "colour": 1, "pause": 2,
                    "from": { "group": "web", "places": 101 } }),
            &[
                ("from.places is 101", "give 1 to 100"),
                ("pause is 2", "give true or false"),
                ("name: ", "expected a string"),
                ("step: ", "expected u32"),
                ("target: ", "expected a string"),
                ("colour: ", "unknown field"),
            ],
        );
        check(json!({ "target": "h:1" }), &[("name: missing field", ""), ("kind: ", "give")]);
        check(
            json!({ "name": "a\u{7}b", "kind": "tcp", "target": "h", "step": 1 }),
            &[
                ("name has a control character", "take it out"),
                ("step", "give"),
                ("timeout_ms", "give"),
                ("target", "give"),
            ],
        );
        check(json!({ "from": { "places": 2 } }), &[("from.places counts the hosts", "give a group")]);
        check(json!({ "from": { "grp": "x" } }), &[("from: unknown field", "give {\"group\"")]);
        check(json!({ "from": 5, "pause": "yes" }), &[("from: ", "or {} for the server"), ("pause is", "give one")]);
        let many: Keys = (0..100).map(|at| (format!("k{at}"), json!(1))).collect();
        check(Value::Object(many), &[("100 keys are no definition", "give")]);
        check(
            json!({ "name": "a", "kind": "http", "target": "http://h", "body": "x".repeat(300_000) }),
            &[("the definition has", "give at most 131072")],
        );
    }

    #[test]
    fn what_is_answered_may_be_sent_back() {
        let said_of = |value: Value| said(keys(value), &Keys::new()).expect("right");
        let full = json!({ "id": 5, "name": " shop ", "kind": "tcp", "target": "h:1", "from": { "group": null, "places": 0 },
                           "pause": false, "create_user": "x", "create_at": 1, "states": [], "states_left_off": 0 });
        let read = said_of(full);
        assert_eq!(read.definition.map(|one| one.name).as_deref(), Some("shop"));
        assert_eq!((read.from, read.pause), (Some(From::default()), Some(0)));
        assert_eq!(said_of(json!({ "pause": 1 })), Said { pause: Some(1), ..Said::default() });
        let group = From { group: Some("web".into()), places: 3 };
        assert_eq!(said_of(json!({ "from": { "group": "web ", "places": 3 } })).from, Some(group));
    }
}
