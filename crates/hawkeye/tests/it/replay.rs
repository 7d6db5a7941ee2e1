//! A rehearsal against what really happens when the same points come under the same rule; over REST, by the command,
//! and without a server.

use crate::harness::{Api, Server, find, gauge, output, this_minute};
use serde_json::{Value, json};
use std::process::{Command, Output};

const MINUTES: i64 = 300;
const RULE: &str = "all(#3) < 10 recover 40 and max(#2) of load.1min > 5";
/// A repeat depends on the wall clock, and the points of this test come all at once.
const CONFIG: &str = "[judge]\nmin_interval = \"0s\"\n";

/// Sends the history of a host, minute by minute: idle falls and rises in waves of an hour, load in waves of 100
/// minutes.
fn push(server: &Server, host: &str, start: i64) {
    for minutes in (0..MINUTES).collect::<Vec<_>>().chunks(50) {
        let items = minutes.iter().flat_map(|minute| {
            let idle = (minute % 60 - 30).abs() as f64 * 2.0;
            let load = if minute % 100 < 70 { 9.0 } else { 1.0 };
            let time = start + minute * 60;
            [gauge(host, "cpu.idle", idle, time), gauge(host, "load.1min", load, time)]
        });
        server.update(Value::Array(items.collect()));
    }
}

/// Status, step and what decided, with the times of its points.
fn told<'a>(events: impl Iterator<Item = &'a Value>, status: impl Fn(&Value) -> bool) -> Vec<(bool, Value, Value)> {
    events
        .map(|event| (status(&event["status"]), event["step"].clone(), event["explanation"]["terms"].clone()))
        .collect()
}

fn rehearsed(answer: &Value) -> Vec<(bool, Value, Value)> {
    told(answer["events"].as_array().into_iter().flatten(), |status| status == "PROBLEM")
}

/// Saves the rule for a host.
fn save(api: &Api<'_>, host: &str) {
    let group = api.post("/hostgroup", json!({"name": "live"}));
    api.post("/hostgroup/host", json!({"hostgroup_id": group["id"], "hosts": [host]}));
    let template = api.post("/template", json!({"name": "live", "parent_id": 0}));
    api.post("/hostgroup/template", json!({"tpl_id": template["id"], "grp_id": group["id"]}));
    api.post(
        "/strategy",
        json!({"tpl_id": template["id"], "metric": "cpu.idle", "tags": "", "max_step": 3, "priority": 1, "func": RULE,
               "op": "<", "right_value": "10", "note": "", "run_begin": "", "run_end": ""}),
    );
}

/// The first `count` events of a host's case, as soon as they are there.
fn live(api: &Api<'_>, host: &str, count: usize) -> Vec<(bool, Value, Value)> {
    find(&format!("{count} events of {host}"), || {
        let cases = api.get(&format!("/alarm/eventcases?endpoints={host}&startTime=0&endTime=4102444800"));
        let id = cases[0]["id"].as_str()?;
        let events = api.get(&format!("/alarm/events?event_id={id}&startTime=0&endTime=4102444800"));
        let mut told = told(events.as_array().into_iter().flatten(), |status| *status == 0);
        // The newest comes first.
        told.reverse();
        (told.len() >= count).then_some(told)
    })
}

fn replay(flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
    command.arg("replay").args(["--metric", "cpu.idle", "--func", RULE, "--op", "<", "--right-value", "10"]);
    command.args(["--max-step", "3", "--host", "past-01"]).args(flags);
    output(&mut command)
}

#[test]
fn a_rehearsal_is_what_happens() {
    let mut server = Server::start(CONFIG);
    let start = this_minute() - MINUTES * 60;
    push(&server, "past-01", start);
    let api = server.admin();
    let body = json!({"metric": "cpu.idle", "func": RULE, "op": "<", "right_value": "10", "max_step": 3, "hosts": ["past-01"],
                      "from": start});
    let answer = api.post("/strategy/replay", body);
    let expected = rehearsed(&answer);
    assert!(expected.len() >= 10, "{answer}");
    assert_eq!(answer["summary"]["events"], json!(expected.len()));
    assert_eq!(
        api.get("/alarm/eventcases?endpoints=past-01&startTime=0&endTime=4102444800"),
        json!([]),
        "nothing is sent"
    );

    save(&api, "live-01");
    push(&server, "live-01", start);
    assert_eq!(live(&api, "live-01", expected.len()), expected);

    let password = std::fs::read_to_string(server.data_dir().join("admin-password")).expect("admin-password");
    let url = format!("http://127.0.0.1:{}", server.port("api"));
    let online = ["--api", &url, "--password", password.trim()];
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let json = |output: Output| -> Value {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    assert_eq!(rehearsed(&json(replay(&[&online[..], &["--json"]].concat()))), expected);
    let shown = text(&replay(&online));
    let events = format!("events   {}: ", expected.len());
    assert!(shown.lines().any(|line| line.starts_with(&events)), "{shown}");
    assert_eq!(shown.matches("  past-01 cpu.idle  ").count(), expected.len(), "a line for each: {shown}");
    let wrong = replay(&[&online[..], &["--tags", "novalue"]].concat());
    let error = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && error.contains("is not of the form key=value"), "{error}");

    let (data_dir, config) = (server.data_dir(), server.dir.path().join("hawkeye.toml"));
    let offline =
        ["--data-dir", data_dir.to_str().expect("a path"), "--config", config.to_str().expect("a path"), "--json"];
    let locked = replay(&offline);
    let error = String::from_utf8_lossy(&locked.stderr).into_owned();
    assert!(!locked.status.success() && error.contains("while a server runs on this directory, ask it"), "{error}");
    assert!(server.stop().success());
    assert_eq!(rehearsed(&json(replay(&offline))), expected);
}
