//! `memory_budget` is a promise: an explosion of series is refused by name, and everything else goes on.

use crate::alarms::make_strategy;
use crate::harness::{Server, Target, gauge, read_line, this_minute, until};
use serde_json::{Value, json};
use std::io::{BufReader, Write};

/// Room that the server has beside what it needs for itself; a test build needs more than a release.
const ROOM_BYTES: u64 = 16 << 20;

/// New series per message, as a gateway sends them.
const MESSAGE: usize = 2000;

/// More than the room holds three times over.
const EXPLOSION: usize = 240_000;

/// Resident bytes as the system tells them to others.
fn resident_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") * 1024
}

fn empty_server_bytes() -> u64 {
    let server = Server::start("");
    let _ = server.admin();
    resident_bytes(&server)
}

#[test]
fn an_explosion_of_series_is_refused_by_name_and_alarms_go_on() {
    let budget = empty_server_bytes() + ROOM_BYTES;
    let target = Target::start();
    let server = Server::start(&format!("memory_budget = \"{budget}B\"\n"));
    make_strategy(&server.admin(), "web-01", &target);
    let start = this_minute() - 600;
    let idle = |minute: i64, value: f64| {
        let items: Vec<Value> = (0..20).map(|i| gauge("web-01", &format!("m{i}"), 1.0, start + 60 * minute)).collect();
        assert_eq!(server.update(json!(items))["Invalid"], 0, "known series at minute {minute}");
        server.update(json!([gauge("web-01", "cpu.idle", value, start + 60 * minute)]));
    };
    idle(0, 50.0);
    idle(1, 5.0);
    assert!(target.next().contains("status=PROBLEM"));

    let stream = server.connect("transfer_rpc");
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let (mut stream, mut invalid, mut peak) = (stream, 0, 0);
    for first in (0..EXPLOSION).step_by(MESSAGE) {
        let items: Vec<Value> = (first..first + MESSAGE)
            .map(|i| {
                let mut item = gauge("shop-07", "http.latency", 1.0, start + 60);
                item["tags"] = json!(format!("dc=bj,request_id={i:032x}"));
                item
            })
            .collect();
        let request = json!({"method": "Transfer.Update", "params": [items], "id": 1}).to_string();
        stream.write_all(request.as_bytes()).expect("write");
        let answer = read_line(&mut reader);
        assert_eq!(answer["error"], Value::Null, "{answer}");
        invalid += answer["result"]["Invalid"].as_u64().expect("a number");
        peak = peak.max(resident_bytes(&server));
    }
    assert!(peak < budget / 100 * 115, "{peak} of {budget}");
    assert!(invalid > EXPLOSION as u64 / 4 && invalid < EXPLOSION as u64, "{invalid} were refused");
    let refused = server.metric("hawkeye_items_refused_total{door=\"rpc\",reason=\"memory_budget\"}");
    assert_eq!((refused as u64, server.metric("hawkeye_series_refused_total") as u64), (invalid, invalid));
    // What left memory early may have ended refusing meanwhile.
    assert!(server.metric("hawkeye_memory_level") >= 2.0);

    let (status, page) = server.http("admin", "GET", "/memory?format=json", "", "");
    assert_eq!(status, 200, "{page}");
    let look: Value = serde_json::from_str(&page).expect("JSON");
    assert!(["flush", "refuse"].contains(&look["budget"]["level"].as_str().expect("a level")), "{look}");
    assert_eq!(look["budget"]["refused_series"], invalid);
    for list in ["growing", "most_series"] {
        let first = |kind: &str| look["growth"][list][kind][0].clone();
        for (kind, name) in [("endpoints", "shop-07"), ("metrics", "http.latency"), ("tag_keys", "request_id")] {
            assert_eq!(first(kind)["name"], name, "{list} {kind} in {look}");
        }
        assert!(first("tag_keys")["values"].as_u64() > Some(10_000), "{look}");
    }
    assert!(look["growth"]["growing"]["endpoints"][0]["refused"].as_u64() > Some(invalid / 2), "{look}");
    let (_, html) = server.http("admin", "GET", "/memory", "Accept: text/html\r\n", "");
    assert!(html.contains("request_id") && html.contains("shop-07"), "{html}");

    // A new host is no explosion, by any door; nor are known series. At the budget itself nobody new is taken, so the
    // memory of the explosion must have been given back, which the process does by itself.
    let host = |name: &str| -> Vec<Value> { (0..20).map(|i| gauge(name, &format!("m{i}"), 1.0, start)).collect() };
    until("room for a new host", || server.update(json!(host("new-01")))["Invalid"] == 0);
    let (status, answer) = server.http("transfer_http", "POST", "/api/push", "", &json!(host("new-02")).to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(server.metric("hawkeye_endpoints") >= 4.0);
    idle(2, 60.0);
    assert!(target.next().contains("status=OK"), "the older alarm recovers");
    idle(3, 4.0);
    assert!(target.next().contains("status=PROBLEM"), "and fires again");
    assert!(resident_bytes(&server) < budget / 100 * 115);
}

#[test]
fn a_budget_that_is_too_small_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join("hawkeye.toml"), "memory_budget = \"16MiB\"\n").expect("configuration");
    let output = crate::harness::command(dir.path()).output().expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("memory_budget") && text.contains("32MiB"), "{text}");
}
