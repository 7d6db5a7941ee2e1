//! Probes as code: the file of a probe, flat as the API has it, and what a file says.
//!
//! How: the keys of the definition are those of docs/probes.md, its objects are TOML's tables; `group`, `places`,
//! `pause` and `owner` stand beside them. A view has headers as a list of lines, and `json` as its text, so that each
//! change of them is one, also between values that are empty in different ways; [`text`] writes both as tables.
//! Invariants: what has its default is not written. A `json` that TOML cannot say (`null`) is written as the text of an
//! object, which a file may always have there.

use super::code_file as file;
use super::code_model::View;
use super::code_secret::{mask_probe, masked, masked_header};
use super::probe_said::{self as said, Keys};
use crate::portal::probe::Probe;
use netprobe::Definition;
use serde_json::{Value, json};

/// Keys that are written first, in their order. The others follow by their names.
pub const KEYS: [&str; 9] = ["name", "kind", "target", "group", "places", "pause", "owner", "step", "timeout_ms"];
/// Keys of a file that are none of the definition.
const OWN: [&str; 4] = ["group", "places", "pause", "owner"];

/// What the file of a probe says.
pub fn view(row: &Probe, group: &str) -> View {
    let mut view = super::probe::keys_of(row);
    if let Some(Value::Object(headers)) = view.get("headers") {
        let line = |(name, value): (&String, &Value)| format!("{name}: {}", value.as_str().unwrap_or_default());
        let lines: Vec<String> = headers.iter().map(line).collect();
        view.insert("headers".to_string(), json!(lines));
    }
    if let Some(object) = view.get("json").map(Value::to_string) {
        view.insert("json".to_string(), json!(object));
    }
    let own = [("group", json!(group)), ("places", json!(row.places)), ("pause", json!(row.pause))];
    view.extend(own.map(|(key, value)| (key.to_string(), value)));
    view.insert("name".to_string(), json!(row.name));
    view.insert("owner".to_string(), json!(row.create_user));
    view
}

/// A value of a view as people are shown it.
pub fn shown(key: &str, value: Value) -> Value {
    let line = |line: Value| match line.as_str().and_then(|line| line.split_once(": ")) {
        Some((name, value)) => format!("{name}: {}", masked_header(name, value)).into(),
        None => line,
    };
    match (key, value) {
        ("target", Value::String(target)) => masked(&target).into(),
        ("headers", Value::Array(lines)) => lines.into_iter().map(line).collect(),
        (_, value) => value,
    }
}

/// The file of a probe.
pub fn text(view: &View) -> String {
    let mut keys = of_definition(view);
    let defaults = defaults(&keys);
    mask_probe(&mut keys);
    let mut first = view.clone();
    first.insert("target".to_string(), keys.get("target").cloned().unwrap_or_default());
    let mut out = String::new();
    file::push_values(&mut out, &first, &KEYS);
    keys.retain(|key, value| !KEYS.contains(&key.as_str()) && defaults.get(key) != Some(value));
    if let Some(object) = keys.get("json").filter(|object| !is_toml(object)).map(Value::to_string) {
        keys.insert("json".to_string(), object.into());
    }
    let table = toml::Table::try_from(&keys).expect("JSON without null is TOML");
    let rest = table.to_string();
    // A table begins behind an empty line, as elsewhere; the first key of all does not.
    let gap = if rest.starts_with('[') { "\n" } else { "" };
    out + gap + &rest
}

/// The keys of the definition that a view is of.
fn of_definition(view: &View) -> Keys {
    let mut keys = view.clone();
    OWN.iter().for_each(|key| drop(keys.remove(*key)));
    keys.remove("id");
    if let Some(Value::Array(lines)) = keys.get("headers") {
        let header =
            |line: &Value| line.as_str()?.split_once(": ").map(|(name, value)| (name.to_string(), json!(value)));
        let headers: Keys = lines.iter().filter_map(header).collect();
        keys.insert("headers".to_string(), Value::Object(headers));
    }
    if let Some(object) = keys.get("json").and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok()) {
        keys.insert("json".to_string(), object);
    }
    keys
}

/// The keys of the definition of this kind that says nothing but name, kind and target.
fn defaults(keys: &Keys) -> Keys {
    let bare: Keys =
        ["name", "kind", "target"].iter().filter_map(|key| Some((key.to_string(), keys.get(*key)?.clone()))).collect();
    let bare = serde_json::from_value::<Definition>(Value::Object(bare)).ok();
    let definition = bare.and_then(|definition| super::probe::text_of(&definition).ok()).unwrap_or_default();
    super::probe::keys_of(&Probe { definition, ..Probe::default() })
}

/// Whether TOML can say a value.
fn is_toml(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Number(number) => number.is_i64() || number.is_f64(),
        // TOML's readers think differently of a list of different types.
        Value::Array(list) => list.iter().all(|one| one.is_string() || one.is_i64()),
        Value::Object(map) => map.values().all(is_toml),
        _ => true,
    }
}

/// Reads the definition of a file, which is TOML. `old` are the keys of the one that is there.
pub fn read(text: &str, old: &Keys) -> Result<Definition, Vec<String>> {
    let table: toml::Table = text.parse().map_err(|error| vec![format!("this is no TOML: {error}")])?;
    let keys = serde_json::to_value(table).map_err(|error| vec![error.to_string()])?;
    let Value::Object(mut keys) = keys else { return Err(vec!["this is no table: give keys".to_string()]) };
    OWN.iter().for_each(|key| drop(keys.remove(*key)));
    if let Some(text) = keys.get("json").and_then(Value::as_str) {
        let object = serde_json::from_str(text);
        let object = object.map_err(|error| vec![format!("json is a text, and no JSON: {error}: give an object")])?;
        keys.insert("json".to_string(), object);
    }
    said::definition(keys, old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(definition: Value) -> Probe {
        let definition: Definition = serde_json::from_value(definition).expect("a definition");
        assert_eq!(definition.check(), Vec::<String>::new());
        let text = super::super::probe::text_of(&definition).expect("JSON");
        Probe { name: definition.name.clone(), definition: text, create_user: "root".into(), ..Probe::default() }
    }

    /// The file must be as expected, and mean what it was made of.
    fn check(definition: Value, expected: &str) {
        let row = row(definition);
        let written = text(&view(&row, ""));
        assert_eq!(written, expected);
        let old = super::super::probe::keys_of(&row);
        let read = read(&written, &old).expect("it was just written");
        assert_eq!(super::super::probe::text_of(&read).expect("JSON"), row.definition);
    }

    #[test]
    fn a_file_says_what_the_definition_does() {
        check(
            json!({ "name": "gateway", "kind": "icmp", "target": "10.0.0.1", "loss_percent_max": 0 }),
            "name = \"gateway\"\nkind = \"icmp\"\ntarget = \"10.0.0.1\"\nowner = \"root\"\nstep = 60\ntimeout_ms = 5000\n\
             loss_percent_max = 0\n",
        );
        check(
            json!({ "name": "shop", "kind": "http", "target": "https://h/x?token=abc", "tags": { "team": "web" },
                    "headers": { "Accept": "", "Authorization": "Bearer x" }, "tls": { "verify": false },
                    "json": { "path": "state", "value": "ok" }, "step": 30 }),
            "name = \"shop\"\nkind = \"http\"\ntarget = \"https://h/x?token=***\"\nowner = \"root\"\nstep = 30\n\
             timeout_ms = 5000\n\n[headers]\nAccept = \"\"\nAuthorization = \"***\"\n\n[json]\npath = \"state\"\n\
             value = \"ok\"\n\n[tags]\nteam = \"web\"\n\n[tls]\nca = \"\"\nserver_name = \"\"\nverify = false\n",
        );
        check(
            json!({ "name": "null", "kind": "http", "target": "http://h/", "json": { "path": "a", "value": null } }),
            "name = \"null\"\nkind = \"http\"\ntarget = \"http://h/\"\nowner = \"root\"\nstep = 60\ntimeout_ms = 5000\n\
             json = '{\"path\":\"a\",\"value\":null}'\n",
        );
        check(
            json!({ "name": "mail", "kind": "tcp", "target": "h:25", "talk": [{ "expect": "^220 " }, { "send": "QUIT\r\n" }],
                    "starttls": null, "tls": null }),
            "name = \"mail\"\nkind = \"tcp\"\ntarget = \"h:25\"\nowner = \"root\"\nstep = 60\ntimeout_ms = 5000\n\n\
             [[talk]]\nexpect = \"^220 \"\n\n[[talk]]\nsend = \"\"\"\nQUIT\\r\n\"\"\"\n",
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let check = |key: &str, value: Value, expected: Value| assert_eq!(shown(key, value), expected);
        check("target", json!("http://h/?token=x"), json!("http://h/?token=***"));
        check("headers", json!(["Cookie: a: b", "Accept: c"]), json!(["Cookie: ***", "Accept: c"]));
        check("body", json!("http://h/?token=x"), json!("http://h/?token=x"));
    }
}
