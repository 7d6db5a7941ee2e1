//! A directory of rules applied to a running server and to a stopped one; and exceptions of strategies as they alarm.

use crate::harness::{Server, find, output, this_minute, until};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

const TEMPLATE: &str = r#"name = "linux"

[[strategy]]
metric = "df.bytes.used.percent"
func = "all(#1)"
op = ">"
right_value = "90"
max_step = 1
"#;

const EXCEPTIONS: &str = r#"
[[strategy.exception]]
kind = "tag"
target = "mount=/data"
pause = true
note = "full on purpose"

[[strategy.exception]]
kind = "host"
target = "db-01"
right_value = 95
"#;

fn hawkeye(command: &str, dir: &Path, flags: &[&str]) -> Output {
    output(Command::new(env!("CARGO_BIN_EXE_hawkeye")).arg(command).arg(dir).args(flags))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn push(server: &Server, host: &str, mount: &str, value: f64, time: i64) {
    server.update(
        json!([{ "endpoint": host, "metric": "df.bytes.used.percent", "value": value, "step": 60, "timestamp": time,
                           "counterType": "GAUGE", "tags": format!("mount={mount}") }]),
    );
}

#[test]
fn a_directory_of_rules_is_applied_and_its_exceptions_hold_at_once() {
    let mut server = Server::start("");
    let dir = tempfile::tempdir().expect("a directory");
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write("templates/linux.toml", TEMPLATE);
    write("groups/all.toml", "name = \"all\"\ntemplates = [\"linux\"]\nhosts = [\"db-01\", \"web-01\"]\n");
    let password = std::fs::read_to_string(server.data_dir().join("admin-password")).expect("admin-password");
    let url = format!("http://127.0.0.1:{}", server.port("api"));
    let online = ["--url", &url, "--password", password.trim()];
    let planned = hawkeye("apply", dir.path(), &[&online[..], &["--dry-run"]].concat());
    assert_eq!(planned.status.code(), Some(2), "{}", said(&planned));
    assert!(
        said(&planned).contains("+ templates linux") && said(&planned).contains("2 would change"),
        "{}",
        said(&planned)
    );
    let done = hawkeye("apply", dir.path(), &online);
    assert!(done.status.success(), "{}", said(&done));

    let api = server.admin();
    let start = this_minute() - 600;
    let series = [("web-01", "/"), ("web-01", "/data"), ("db-01", "/")];
    series.iter().for_each(|(host, mount)| push(&server, host, mount, 93.0, start));
    let cases = |status: &str| {
        let cases = api.get(&format!("/alarm/eventcases?status={status}&startTime=0&endTime=4102444800"));
        let counter = |case: &Value| format!("{} {}", case["endpoint"], case["metric"]).replace('"', "");
        let mut cases: Vec<String> = cases.as_array().into_iter().flatten().map(counter).collect();
        cases.sort();
        cases
    };
    let all = series.map(|(host, mount)| format!("{host} df.bytes.used.percent/mount={mount}"));
    until("three alarms", || cases("PROBLEM").len() == 3);

    write("templates/linux.toml", &format!("{TEMPLATE}{EXCEPTIONS}"));
    let done = hawkeye("apply", dir.path(), &online);
    assert!(done.status.success() && said(&done).contains("~ templates linux"), "{}", said(&done));
    // The one that is paused is closed, with the reason.
    until("the end of the paused alarm", || cases("OK") == [all[1].clone()]);
    let closed = api.get("/alarm/eventcases?status=OK&startTime=0&endTime=4102444800");
    let note = closed[0]["closed_note"].as_str().unwrap_or_default();
    assert!(note.contains("an exception pauses the strategy for the tag mount=/data: full on purpose"), "{closed}");
    assert!(closed[0]["id"].as_str().unwrap_or_default().starts_with("s_1_"), "{closed}");
    // The host has its own threshold from its next point on, and its event says so.
    for (host, mount) in series {
        push(&server, host, mount, 94.0, start + 60);
    }
    until("the end of the alarm of db-01", || cases("OK").len() == 2);
    assert_eq!(cases("PROBLEM"), [all[0].clone()], "the series without an exception goes on");
    push(&server, "db-01", "/", 96.0, start + 120);
    until("an alarm of db-01", || cases("PROBLEM").len() == 2);
    let event = find("the event of db-01", || {
        let cases = api.get("/alarm/eventcases?endpoints=db-01&startTime=0&endTime=4102444800");
        cases[0]["cond"].as_str().filter(|cond| cond.contains("95")).map(str::to_string)
    });
    assert!(event.contains("96") && event.contains("95"), "{event}");

    let refused = hawkeye("apply", dir.path(), &["--data-dir", server.data_dir().to_str().expect("UTF-8")]);
    assert!(
        refused.status.code() == Some(1) && said(&refused).contains("would not notice the change"),
        "{}",
        said(&refused)
    );
    let exported = tempfile::tempdir().expect("a directory");
    assert!(hawkeye("export", exported.path(), &online).status.success());
    assert!(server.stop().success());
    let data = server.data_dir();
    let offline = ["--data-dir", data.to_str().expect("UTF-8")];
    let written = hawkeye("export", exported.path(), &offline);
    assert!(said(&written).contains(": 0 written, 0 removed"), "{}", said(&written));
    let same = hawkeye("apply", exported.path(), &[&offline[..], &["--dry-run"]].concat());
    assert_eq!(same.status.code(), Some(0), "{}", said(&same));
    std::fs::write(exported.path().join("templates/linux.toml"), TEMPLATE).expect("written");
    let done = hawkeye("apply", exported.path(), &offline);
    assert!(done.status.success() && said(&done).contains("exception(host db-01)"), "{}", said(&done));
    server.restart();
    assert_eq!(server.admin().get("/exception"), json!([]));
}
