//! A gateway in front of a whole server, and a transfer alone in front of two: through kills, absences and restarts.

use crate::harness::{Server, find, gauge, now, this_minute, until};
use serde_json::{Value, json};
use std::io::{Read, Write};

fn address(server: &Server, listener: &str) -> String {
    format!("127.0.0.1:{}", server.port(listener))
}

fn gateway_of(server: &Server, more: &str) -> Server {
    let next = address(server, "transfer_rpc");
    Server::start(&format!("roles = [\"gateway\"]\n[transfer.next]\naddrs = [{next:?}]\n{more}"))
}

/// Waits until a server has a point with this value.
fn wait_for(server: &Server, metric: &str, value: f64) {
    let trace = || server.http("transfer_http", "GET", &format!("/trace/far-host/{metric}"), "", "").1;
    let has = || {
        let answer: Value = serde_json::from_str(&trace()).expect("JSON");
        answer["data"].as_array().is_some_and(|items| items.iter().any(|item| item["value"] == value))
    };
    until(&format!("{metric} {value}"), has);
}

#[test]
fn points_pass_a_gateway_and_wait_where_the_server_is_away() {
    let mut server = Server::start("");
    let mut gateway = gateway_of(&server, "");
    let minute = this_minute();
    assert_eq!(gateway.update(json!([gauge("far-host", "rpc", 1.0, minute)]))["Total"], 1);
    let body = json!([gauge("far-host", "http", 2.0, minute), {"metric": "bad"}]).to_string();
    let (status, text) = gateway.http("transfer_http", "POST", "/api/push", "", &body);
    assert!(status == 200 && text.contains("\"Total\":2,\"Invalid\":1"), "{text}");
    let mut telnet = gateway.connect("transfer_telnet");
    write!(telnet, "update far-host line {} 3 GAUGE 60\nquit\n", now()).expect("it reads");
    let _ = telnet.read_to_end(&mut Vec::new());
    for (metric, value) in [("rpc", 1.0), ("http", 2.0), ("line", 3.0)] {
        wait_for(&server, metric, value);
    }
    let counters = gateway.http("transfer_http", "GET", "/counter/all", "", "").1;
    let counters: Value = serde_json::from_str(&counters).expect("JSON");
    let count = |name: &str| {
        let all = counters["data"].as_array().expect("counters");
        all.iter().find(|counter| counter["Name"] == name).expect("a counter")["Cnt"].clone()
    };
    assert_eq!((count("RecvCnt"), count("SendToTransferCnt")), (json!(4), json!(3)));
    assert_eq!(gateway.http("transfer_http", "GET", "/trace/far-host/rpc", "", "").0, 404);

    server.kill();
    for i in 0..50 {
        gateway.update(json!([
            gauge("far-host", "rpc", f64::from(10 + i), minute + 60),
            gauge("far-host", &format!("m{i}"), 1.0, minute)
        ]));
    }
    let reason =
        find("a reason", || Some(gateway.http("admin", "GET", "/health", "", "")).filter(|(status, _)| *status == 503));
    assert!(reason.1.contains("a next hop takes no points") && reason.1.contains("points wait"), "{}", reason.1);
    gateway.kill();
    gateway.restart();
    gateway.update(json!([gauge("far-host", "last", 7.0, minute)]));
    server.restart();
    wait_for(&server, "last", 7.0);
    for i in 0..50 {
        wait_for(&server, &format!("m{i}"), 1.0);
    }
    until("the end of the reason", || gateway.http("admin", "GET", "/health", "", "").0 == 200);
    until("an empty buffer", || gateway.metric("hawkeye_hop_points_waiting") == 0.0);
    assert!(gateway.stop().success());
}

#[test]
fn a_gateway_shows_its_token() {
    let server = Server::start("[ingest]\ntoken = \"0123456789abcdef\"\n");
    let gateway = gateway_of(&server, "token = \"0123456789abcdef\"\n");
    gateway.update(json!([gauge("far-host", "m", 1.0, this_minute())]));
    wait_for(&server, "m", 1.0);
}

#[test]
fn a_transfer_alone_spreads_points_over_graphs_and_judges() {
    let [one, two] = [(); 2].map(|()| Server::start(""));
    let [graph_one, graph_two] = [&one, &two].map(|server| address(server, "graph_rpc"));
    let judge = address(&one, "judge_rpc");
    let transfer = Server::start(&format!(
        "roles = [\"transfer\"]\n[transfer.graph]\ncluster = {{ \"graph-00\" = {graph_one:?}, \"graph-01\" = {graph_two:?} }}\n\
         [transfer.judge]\ncluster = {{ \"judge-00\" = {judge:?} }}\n"
    ));
    let items: Vec<Value> =
        (0..100).map(|i| gauge("far-host", &format!("m{i}"), f64::from(i), this_minute())).collect();
    assert_eq!(transfer.update(json!(items))["Invalid"], 0);
    let sent = |kind: &str| transfer.metric(&format!("hawkeye_hop_points_sent{{hop=\"{kind}"));
    until("all points at the graphs and the judge", || sent("graph") == 100.0 && sent("judge") == 100.0);
    let taken = |server: &Server| server.metric("hawkeye_items_received_total{door=\"graph\"}");
    assert_eq!(taken(&one) + taken(&two), 100.0);
    assert!(taken(&one) > 0.0 && taken(&two) > 0.0);
    assert_eq!(one.metric("hawkeye_items_received_total{door=\"judge\"}"), 100.0);
}
