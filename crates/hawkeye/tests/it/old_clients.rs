//! Programs that call the original's api, as they call it: the old dashboard, Grafana's Falcon plugin, and the
//! original's own test of its api.
//!
//! How: each has a scenario in `testdata/rest`, a request per line in the order, with the headers and the bodies that
//! the program sends, and the fields that it reads of the answers. A text `<int>` and so on in an answer stands for any
//! such value, `~text` for a text with `text` in it, a list of one for a list that is not empty, `{"<has>": …}` for a
//! list in which one is so; fields that are not named may be there. `${name}` is what an earlier answer had (`keep`).

use crate::harness::{Server, gauge, now, this_minute};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Values by their names: those of the test, and what answers had.
type Known = HashMap<String, Value>;

/// Sends the last hour of some series of four hosts.
fn fill(server: &Server) {
    let minute = this_minute();
    let hosts = ["web-01", "web-02", "db.example.com", "10.0.0.7"];
    let series = [("cpu.idle", ""), ("load.1min", ""), ("df.bytes.free.percent", "mount=/,fstype=ext4")];
    for back in (0..10).rev() {
        let time = minute - 60 * back;
        let mut items = Vec::new();
        for host in hosts {
            for (metric, tags) in if host == "web-01" { &series[..] } else { &series[..2] } {
                let mut item = gauge(host, metric, back as f64, time);
                item["tags"] = json!(tags);
                items.push(item);
            }
        }
        let mut counter = gauge("web-01", "net.if.in.bits", 1000.0 - back as f64, time);
        (counter["counterType"], counter["tags"]) = (json!("COUNTER"), json!("iface=eth0"));
        items.push(counter);
        assert_eq!(server.update(json!(items))["Invalid"], 0);
    }
}

/// `text` with what is known in the place of its `${name}`.
fn filled(text: &str, known: &Known) -> String {
    let mut out = text.to_string();
    for (name, value) in known {
        let plain = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        out = out.replace(&format!("\"${{{name}:int}}\""), &plain).replace(&format!("${{{name}}}"), &plain);
    }
    assert!(!out.contains("${"), "unknown: {out}");
    out
}

/// Where and why `answer` is not as expected.
fn fault(answer: &Value, expected: &Value, place: &str) -> Option<String> {
    let is_so = match expected {
        Value::String(kind) => match kind.as_str() {
            "<any>" => true,
            "<int>" => answer.is_i64() || answer.is_u64(),
            "<number>" => answer.is_number(),
            "<number or null>" => answer.is_number() || answer.is_null(),
            "<bool>" => answer.is_boolean(),
            "<text>" => answer.is_string(),
            text => match text.strip_prefix('~') {
                Some(part) => answer.as_str().is_some_and(|answer| answer.contains(part)),
                None => answer == expected,
            },
        },
        Value::Object(fields) => match fields.get("<has>") {
            Some(one) => {
                answer.as_array().is_some_and(|list| list.iter().any(|item| fault(item, one, place).is_none()))
            }
            None => {
                return fields
                    .iter()
                    .find_map(|(name, expected)| fault(&answer[name], expected, &format!("{place}.{name}")));
            }
        },
        Value::Array(list) => match (&list[..], answer.as_array()) {
            ([], Some(items)) => items.is_empty(),
            ([one], Some(items)) if !items.is_empty() => {
                return items.iter().find_map(|item| fault(item, one, &format!("{place}[]")));
            }
            _ => false,
        },
        _ => answer == expected,
    };
    (!is_so).then(|| format!("{place} is {answer}, and not {expected}"))
}

/// Replays a scenario; all that is not as expected.
fn replay(server: &Server, scenario: &str) -> (usize, Vec<String>) {
    let (now, mut known) = (now(), Known::new());
    let password = std::fs::read_to_string(server.data_dir().join("admin-password")).expect("a password");
    known.insert("root_password".to_string(), json!(password.trim()));
    known.insert("now".to_string(), json!(now));
    known.insert("hour_ago".to_string(), json!(now - 3600));
    let (mut count, mut faults) = (0, Vec::new());
    let text = String::from_utf8(testdata::bytes(&format!("rest/{scenario}.jsonl"))).expect("UTF-8");
    for line in text.lines() {
        let step: Value = serde_json::from_str(line).expect("JSON");
        let name = step["name"].as_str().expect("a name");
        let text = |field: &str| filled(step[field].as_str().unwrap_or(""), &known);
        let headers: String = step["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .map(|(header, value)| format!("{header}: {}\r\n", filled(value.as_str().expect("a text"), &known)))
            .collect();
        let path = format!("/api/v1{}", text("path"));
        let (status, body) = server.http("api", &text("method"), &path, &headers, &text("body"));
        let answer: Value = serde_json::from_str(&body).unwrap_or(json!(body));
        count += 1;
        if step["status"] != status {
            faults.push(format!("{name}: {status}, and not {}: {body}", step["status"]));
            continue;
        }
        if let Some(expected) = step.get("answer") {
            let expected = serde_json::from_str(&filled(&expected.to_string(), &known)).expect("JSON");
            faults.extend(fault(&answer, &expected, "answer").map(|fault| format!("{name}: {fault}")));
        }
        for (name, pointer) in step["keep"].as_object().into_iter().flatten() {
            let value = answer.pointer(pointer.as_str().expect("a pointer")).cloned().unwrap_or_default();
            known.insert(name.clone(), value);
        }
    }
    (count, faults)
}

fn check(scenario: &str, steps: usize) {
    let server = Server::start("");
    fill(&server);
    let (count, faults) = replay(&server, scenario);
    assert!(faults.is_empty(), "{} of {count} steps:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(count, steps);
}

#[test]
fn the_old_dashboard_is_served() {
    check("dashboard", DASHBOARD);
}

#[test]
fn grafanas_plugin_is_served() {
    check("grafana", GRAFANA);
}

#[test]
fn the_originals_own_test_of_its_api_passes() {
    check("api_test", API_TEST);
}

/// Steps of the scenarios: one that lost its end would pass.
const DASHBOARD: usize = 58;
const GRAFANA: usize = 18;
const API_TEST: usize = 38;
