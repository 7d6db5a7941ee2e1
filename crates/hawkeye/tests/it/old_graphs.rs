//! The api alone in front of graphs that speak Open-Falcon's gob, which a transfer alone has filled through its ring.

use crate::harness::{Api, Server, find, gauge, this_minute, until};
use serde_json::{Value, json};

const COUNTERS: usize = 40;

fn counter(number: usize) -> String {
    format!("m{number}/a=b,c={number}")
}

/// Two graphs, and their `cluster` in a configuration.
fn cluster() -> ([Server; 2], String) {
    let graphs = [(); 2].map(|()| Server::start("roles = [\"graph\"]\n"));
    let [one, two] = [&graphs[0], &graphs[1]].map(|graph| format!("127.0.0.1:{}", graph.port("graph_rpc")));
    (graphs, format!("cluster = {{ \"graph-00\" = {one:?}, \"graph-01\" = {two:?} }}\n"))
}

/// Sends three points of each counter, the last of them `minute`, and waits until the graphs have them.
fn fill(cluster: &str, minute: i64) {
    let transfer = Server::start(&format!("roles = [\"transfer\"]\n[transfer.graph]\n{cluster}"));
    for back in (0..3).rev() {
        let item = |number: usize| {
            let mut item =
                gauge("far-host", &format!("m{number}"), (number * 10 + back) as f64, minute - 60 * back as i64);
            item["tags"] = json!(format!("c={number},a=b"));
            item["counterType"] = json!(if number == 0 { "COUNTER" } else { "GAUGE" });
            item
        };
        assert_eq!(transfer.update(json!((0..COUNTERS).map(item).collect::<Vec<_>>()))["Invalid"], 0);
    }
    let sent = || transfer.metric("hawkeye_hop_points_sent{hop=\"graph");
    until("all points at the graphs", || sent() == (3 * COUNTERS) as f64);
}

fn history(api: &Api<'_>, minute: i64) -> Vec<Value> {
    let mut counters: Vec<String> = (0..COUNTERS).map(counter).collect();
    counters.insert(7, "unknown".to_string());
    let answer = api.post(
        "/graph/history",
        json!({ "hostnames": ["far-host"], "counters": counters, "consol_fun": "AVERAGE", "start_time": minute - 120,
                "end_time": minute }),
    );
    let mut rows = answer.as_array().expect("a list").clone();
    // Whether it is unknown is not known while its graph is away.
    rows.retain(|row| row["counter"] != "unknown" || row["incomplete"].is_null());
    let names: Vec<&str> = rows.iter().filter_map(|row| row["counter"].as_str()).collect();
    counters.remove(7);
    assert_eq!(names, counters, "in the order of the request, without the unknown one");
    rows
}

fn values(row: &Value) -> Vec<(i64, Option<f64>)> {
    let rows = row["Values"].as_array().expect("rows");
    rows.iter().map(|row| (row["timestamp"].as_i64().expect("a time"), row["value"].as_f64())).collect()
}

#[test]
fn an_api_alone_reads_old_graphs_through_their_ring() {
    let ([mut one, two], cluster) = cluster();
    let minute = this_minute();
    fill(&cluster, minute);
    let server = Server::start(&format!("roles = [\"api\"]\n[graph]\n{cluster}"));
    let api = server.admin();
    let rows = history(&api, minute);
    for (number, row) in rows.iter().enumerate().skip(1) {
        let expected = [(minute - 120, 2), (minute - 60, 1), (minute, 0)];
        let expected = expected.map(|(time, back)| (time, Some((number * 10 + back) as f64)));
        assert_eq!((values(row), &row["dstype"], &row["step"]), (expected.to_vec(), &json!("GAUGE"), &json!(60)));
    }
    // A counter that falls has no rate.
    assert_eq!(
        (&rows[0]["dstype"], values(&rows[0]).iter().all(|(_, value)| value.is_none())),
        (&json!("DERIVE"), true)
    );
    let pair = |counter: &str| json!({ "endpoint": "far-host", "counter": counter });
    let last = || api.post("/graph/lastpoint", json!([pair(&counter(5)), pair("unknown"), pair(&counter(3))]));
    let point = |counter: &str, time: i64, value: f64| json!({ "endpoint": "far-host", "counter": counter, "value": { "timestamp": time, "value": value } });
    let expected =
        json!([point(&counter(5), minute, 50.0), point("unknown", 0, 0.0), point(&counter(3), minute, 30.0)]);
    assert_eq!(last(), expected);
    let token = format!("Apitoken: {}\r\n", api.token);
    let (status, chart) = server.http("api", "GET", "/ui/history?endpoint=far-host&counter=m5/a=b,c=5", &token, "");
    assert!(status == 200 && chart.contains(&format!("[{minute},50.0]")), "{chart}");

    // One graph is gone: its series say so, the others are there, and so they are again when it is back.
    one.kill();
    let is_of_one = |row: &&Value| row["incomplete"].as_str().is_some_and(|why| why.starts_with("graph-00 ("));
    let rows = history(&api, minute);
    let lost = rows.iter().filter(is_of_one).count();
    assert!((1..COUNTERS).contains(&lost), "{lost}");
    assert_eq!(rows.iter().filter(|row| values(row).len() == 3).count(), COUNTERS - lost);
    let health = || server.http("admin", "GET", "/health", "", "");
    let (status, why) = find("a reason", || Some(health()).filter(|(status, _)| *status == 503));
    assert!(status == 503 && why.contains("old graphs do not answer") && why.contains("graph-00"), "{why}");
    one.restart();
    until("the end of the reason", || health().0 == 200);
    assert_eq!(history(&api, minute).iter().filter(|row| values(row).len() == 3).count(), COUNTERS);

    // A graph that hangs is waited for once, and loses only its own.
    signal(&two, rustix::process::Signal::STOP);
    let rows = history(&api, minute);
    assert_eq!(rows.iter().filter(|row| values(row).len() == 3).count(), lost);
    signal(&two, rustix::process::Signal::CONT);
    until("the end of the reason", || health().0 == 200);
    assert_eq!(last(), expected);
    assert_eq!(server.metric("hawkeye_old_graphs_away"), 0.0);
}

fn signal(server: &Server, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.pid()).expect("a process")).expect("a process");
    rustix::process::kill_process(pid, signal).expect("a signal");
}

#[test]
fn an_api_alone_deletes_in_old_graphs_and_says_what_they_lack() {
    let (_graphs, cluster) = cluster();
    let minute = this_minute();
    fill(&cluster, minute);
    let server = Server::start(&format!("roles = [\"api\"]\n[graph]\n{cluster}"));
    let api = server.admin();
    let named = json!({ "endpoints": ["far-host"], "counters": [counter(1), counter(2), "unknown"] });
    assert_eq!(api.request("DELETE", "/graph/counter", named), (200, json!({ "affected_counter": 2 })));
    let pair = |counter: &str| json!({ "endpoint": "far-host", "counter": counter });
    let last = api.post("/graph/lastpoint", json!([pair(&counter(1)), pair(&counter(3))]));
    assert_eq!((&last[0]["value"]["timestamp"], &last[1]["value"]["timestamp"]), (&json!(0), &json!(minute)));
    // Without an index nobody knows the names.
    for (method, path, body) in [
        ("GET", "/graph/endpoint?q=.", json!(null)),
        ("GET", "/graph/endpoint_counter?eid=1", json!(null)),
        ("GET", "/grafana/metrics/find?query=far", json!(null)),
        ("DELETE", "/graph/endpoint", json!(["far-host"])),
    ] {
        let (status, answer) = api.request(method, path, body);
        assert_eq!(status, 417, "{method} {path}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|why| why.contains("graph.index_url")), "{answer}");
    }
    let raw = json!({ "hostnames": ["h"], "counters": ["m"], "start_time": 1, "end_time": 2, "raw": true });
    let replay = json!({ "metric": "m", "func": "all(#1)", "op": ">", "right_value": "1" });
    for (path, body) in [("/graph/history", raw), ("/strategy/replay", replay)] {
        let (status, answer) = api.request("POST", path, body);
        assert!(status == 400 && answer["error"].as_str().is_some_and(|why| why.contains("graph.cluster")), "{answer}");
    }
    // What needs no points is as ever; a host's reports are not known here.
    let group = api.post("/hostgroup", json!({ "name": "web" }));
    api.post("/hostgroup/host", json!({ "hostgroup_id": group["id"], "hosts": ["web-01"] }));
    assert_eq!(api.get("/host")[0]["state"], "unknown");
    assert_eq!(server.http("admin", "GET", "/status", "", "").0, 200);
    for listener in ["transfer_rpc", "hbs_rpc", "graph_rpc"] {
        assert!(std::net::TcpStream::connect(("127.0.0.1", server.port(listener))).is_err(), "{listener} listens");
    }
}
