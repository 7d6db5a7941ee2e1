//! Points come in by every door and are found again.

use crate::harness::{Server, gauge, now, read_line, this_minute, until};
use serde_json::{Value, json};
use std::io::{BufReader, Write};

/// A real agent's connection, recorded, sent in pieces of odd sizes: each request is answered as the original answered.
#[test]
fn recorded_agent_is_answered_as_recorded() {
    let bytes = testdata::bytes("jsonrpc/agent_transfer.c2s.bin");
    let recorded = testdata::text("jsonrpc/agent_transfer.jsonl");
    let server = Server::start("");
    let stream = server.connect("transfer_rpc");
    let mut writer = stream.try_clone().expect("clone");
    let sender = std::thread::spawn(move || {
        for (i, piece) in bytes.chunks(1777).enumerate() {
            writer.write_all(&piece[..piece.len().min(i + 1)]).expect("write");
            writer.write_all(&piece[piece.len().min(i + 1)..]).expect("write");
        }
    });
    let mut reader = BufReader::new(stream);
    for line in recorded.lines() {
        let expected: Value = serde_json::from_str(line).expect("recorded line");
        let answer = read_line(&mut reader);
        assert_eq!(answer["id"], expected["id"]);
        assert_eq!(answer["error"], Value::Null);
        assert_eq!(answer["result"]["Total"], expected["result"]["Total"], "{line}");
        assert_eq!(answer["result"]["Message"], "ok");
    }
    sender.join().expect("sender");
}

#[test]
fn items_are_refused_one_by_one() {
    let server = Server::start("");
    let minute = this_minute();
    let good = gauge("h", "good", 1.5, minute);
    let with = |field: &str, value: Value| {
        let mut item = gauge("h", "bad", 1.0, minute);
        item[field] = value;
        item
    };
    let items = json!([
        good,
        null,
        with("metric", json!("kernel.hostname")),
        with("endpoint", json!("")),
        with("counterType", json!("gauge")),
        with("value", json!("")),
        with("value", json!("NaN")),
        with("value", json!(true)),
        with("step", json!(0)),
        with("metric", json!("m".repeat(511))),
        with("timestamp", json!(minute + 4000)),
        with("timestamp", json!(minute - 31 * 86_400)),
        with("tags", json!({"a": 1})),
        with("metric", json!("numeric.text")).as_object().map(|item| {
            let mut item = item.clone();
            item.insert("value".into(), json!("2.5e1"));
            Value::Object(item)
        }),
    ]);
    let total = items.as_array().expect("array").len();
    let result = server.update(items);
    assert_eq!(result["Total"], total);
    assert_eq!(result["Invalid"], total - 2, "{result}");
    let api = server.admin();
    assert_eq!(api.history("h", "good", minute - 60, minute), [(minute, 1.5)]);
    assert_eq!(api.history("h", "numeric.text", minute - 60, minute), [(minute, 25.0)]);
    assert_eq!(server.metric("hawkeye_items_refused_total{door=\"rpc\",reason=\"future\"}"), 1.0);
    assert_eq!(server.metric("hawkeye_items_refused_total{door=\"rpc\",reason=\"too_old\"}"), 1.0);
    // The refused point did not poison its series.
    server.update(json!([gauge("h", "bad", 3.0, minute)]));
    assert_eq!(api.history("h", "bad", minute - 60, minute), [(minute, 3.0)]);
}

#[test]
fn field_names_match_without_case_and_answers_end_in_a_newline() {
    let server = Server::start("");
    let mut stream = server.connect("transfer_rpc");
    let item =
        json!({"Endpoint": "h", "METRIC": "m", "Value": "1", "Step": 60, "CounterType": "GAUGE", "TAGS": "b=2, a=1"});
    write!(stream, r#"{{"Method":"Transfer.Update","PARAMS":[[{item}]],"ID":18446744073709551615}}"#).expect("write");
    write!(
        stream,
        r#"{{"method":"Transfer.Ping","params":[{{}}],"id":0}}{{"method":"No.Such","params":[1],"id":"x"}}"#
    )
    .expect("write");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).expect("answer");
    assert!(
        line.starts_with(r#"{"id":18446744073709551615,"result":{"Message":"ok","Total":1,"Invalid":0,"#),
        "{line}"
    );
    assert!(line.ends_with(",\"error\":null}\n"), "{line}");
    assert_eq!(read_line(&mut reader), json!({"id": 0, "result": {"code": 0}, "error": null}));
    assert_eq!(read_line(&mut reader)["error"], "rpc: can't find service No.Such");
    let api = server.admin();
    let minute = this_minute();
    assert_eq!(api.history("h", "m/a=1,b=2", minute - 120, minute).len(), 1);
}

#[test]
fn http_push_answers_as_the_original() {
    let server = Server::start("");
    let push = |body: &str| server.http("transfer_http", "POST", "/api/push", "", body);
    let (status, text) = push(&json!([gauge("h", "m", 1.0, now())]).to_string());
    assert_eq!(status, 200);
    assert!(text.starts_with(r#"{"msg":"success","data":{"Message":"ok","Total":1,"Invalid":0,"Latency":"#), "{text}");
    assert_eq!(push(""), (400, "blank body\n".to_string()));
    let (status, text) = push("[{]");
    assert_eq!(status, 400);
    assert!(text.starts_with("decode error"), "{text}");
}

#[test]
fn telnet_lines_are_stored_while_the_connection_is_open() {
    let server = Server::start("");
    let minute = this_minute();
    let mut stream = server.connect("transfer_telnet");
    write!(stream, "update h t.gauge {minute} 4.5 GAUGE 60\nnonsense\nupdate h t.bad x y\n").expect("write");
    let api = server.admin();
    // The connection stays open; the point must appear all the same.
    until("the point of t.gauge", || {
        let answer = api.post("/graph/lastpoint", json!([{"endpoint": "h", "counter": "t.gauge"}]));
        answer[0]["value"]["value"] == 4.5
    });
    assert_eq!(server.metric("hawkeye_items_refused_total{door=\"telnet\""), 2.0);
}

/// Lines that a stop cuts off in the middle are none: a number may lack digits.
#[test]
fn half_a_telnet_line_is_not_stored_when_the_server_stops() {
    let mut server = Server::start("");
    let minute = this_minute();
    let mut stream = server.connect("transfer_telnet");
    write!(stream, "update h t.whole {minute} 4.5 GAUGE 60\nupdate h t.half {minute} 1").expect("write");
    let last = |server: &Server, counter: &str| {
        let asked = json!([{"endpoint": "h", "counter": counter}]);
        server.admin().post("/graph/lastpoint", asked)[0]["value"]["timestamp"].as_i64()
    };
    until("the point of t.whole", || last(&server, "t.whole") == Some(minute));
    assert!(server.stop().success());
    server.restart();
    assert_eq!((last(&server, "t.whole"), last(&server, "t.half")), (Some(minute), Some(0)));
    // A peer that ends in order may leave out the end of its last line.
    let mut stream = server.connect("transfer_telnet");
    write!(stream, "update h t.half {minute} 1 GAUGE 60").expect("write");
    drop(stream);
    until("the point of t.half", || last(&server, "t.half") == Some(minute));
}

#[test]
fn agents_report_to_hbs_and_appear_in_the_host_table() {
    let server = Server::start("");
    let report =
        json!({"Hostname": "web-01", "IP": "10.0.0.1", "AgentVersion": "5.1.2", "PluginVersion": "plugin not enabled"});
    assert_eq!(server.call("hbs_rpc", "Agent.ReportStatus", report)["result"], json!({"code": 0}));
    assert_eq!(server.call("hbs_rpc", "Agent.ReportStatus", json!({"Hostname": ""}))["result"], json!({"code": 1}));
    let plugins = server.call("hbs_rpc", "Agent.MinePlugins", json!({"Hostname": "web-01", "Checksum": ""}));
    assert_eq!(plugins["result"]["Plugins"], json!([]));
    let metrics = server.call("hbs_rpc", "Agent.BuiltinMetrics", json!({"Hostname": "web-01", "Checksum": "nil"}));
    assert_eq!(metrics["result"]["Checksum"], "");
    assert_eq!(server.call("hbs_rpc", "Agent.TrustableIps", json!({}))["result"], "");
    assert_eq!(server.call("hbs_rpc", "Hbs.GetStrategies", json!({}))["error"], Value::Null);
    let api = server.admin();
    let group = api.post("/hostgroup", json!({"name": "all"}));
    api.post("/hostgroup/host", json!({"hostgroup_id": group["id"], "hosts": ["web-01"]}));
    let hosts = api.get(&format!("/hostgroup/{}", group["id"]));
    assert_eq!(hosts["hosts"][0]["agent_version"], "5.1.2");
}

/// An answer of many pieces is one JSON text; a search of too many terms is refused.
#[test]
fn large_histories_come_whole() {
    let server = Server::start("");
    let start = this_minute() - 11 * 3600;
    let items: Vec<Value> = (0..600).map(|i| gauge("h", "m", f64::from(i), start + 60 * i64::from(i))).collect();
    server.update(Value::Array(items));
    let api = server.admin();
    let asked = json!({"hostnames": vec!["h"; 20], "counters": ["m", "unknown"], "consol_fun": "AVERAGE",
                       "start_time": start, "end_time": start + 60 * 599});
    let answer = api.post("/graph/history", asked);
    let elements = answer.as_array().expect("a list");
    assert_eq!(elements.len(), 20);
    for element in elements {
        let values = element["Values"].as_array().expect("values");
        assert_eq!(values.len(), 600);
        assert_eq!(values[599], json!({"timestamp": start + 60 * 599, "value": 599.0}));
    }
    assert_eq!(
        api.post(
            "/graph/history",
            json!({"hostnames": [], "counters": [], "consol_fun": "MAX",
                        "start_time": 0, "end_time": 1})
        ),
        json!([])
    );
    let terms = "x+".repeat(17);
    assert_eq!(api.request("GET", &format!("/graph/endpoint?q={terms}"), Value::Null).0, 400);
    let ids = api.get("/graph/endpoint?q=h");
    let id = &ids[0]["id"];
    assert_eq!(api.get(&format!("/graph/endpoint_counter?eid={id},{id}")).as_array().map(Vec::len), Some(1));
}

#[test]
fn counters_are_charted_as_rates() {
    let server = Server::start("");
    let start = this_minute() - 600;
    let items: Vec<Value> = [100.0, 700.0, 1300.0, 50.0, 650.0]
        .iter()
        .enumerate()
        .map(|(i, value)| {
            let mut item = gauge("h", "net.in", *value, start + 60 * i as i64);
            item["counterType"] = json!("COUNTER");
            item
        })
        .collect();
    server.update(Value::Array(items));
    let rates = server.admin().history("h", "net.in", start, start + 240);
    // The reset between the third and the fourth point has no rate.
    assert_eq!(rates, [(start + 60, 10.0), (start + 120, 10.0), (start + 240, 10.0)]);
}

/// Monitors and people ask the original's transfer these.
#[test]
fn old_routes_of_transfer_answer() {
    let server = Server::start("");
    let minute = this_minute();
    let mut tagged = gauge("web-01", "qps", 5.0, minute);
    tagged["tags"] = json!("b=2,a=1");
    server
        .update(json!([gauge("web-01", "cpu.idle", 1.0, minute - 120), gauge("web-01", "cpu.idle", 2.0, minute - 60)]));
    server.update(json!([gauge("web-01", "cpu.idle", 3.0, minute), tagged]));
    let ask = |path: &str| {
        let (status, body) = server.http("transfer_http", "GET", path, "", "");
        assert_eq!(status, 200, "{path}: {body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["msg"], "success", "{path}");
        answer["data"].clone()
    };
    assert_eq!(ask("/proc/step"), json!({ "min_step": 30 }));
    for path in ["/counter/all", "/statistics/all"] {
        let all = ask(path);
        let of = |name: &str| all.as_array().into_iter().flatten().find(|one| one["Name"] == name).cloned();
        let names: Vec<_> = all.as_array().into_iter().flatten().map(|one| one["Name"].clone()).collect();
        assert_eq!((names.len(), &names[0], &names[34]), (35, &json!("RecvCnt"), &json!("LastRawRequestItemCnt")));
        assert_eq!(of("RpcRecvCnt").expect("a counter")["Cnt"], 4);
        assert_eq!(of("SendToGraphCnt").expect("a counter")["Cnt"], 4);
        assert!(of("GraphSendCacheCnt").expect("a gauge").get("Qps").is_none());
    }
    let values = |path: &str| -> Vec<f64> {
        ask(path).as_array().into_iter().flatten().filter_map(|item| item["value"].as_f64()).collect()
    };
    assert_eq!(values("/trace/web-01/cpu.idle"), [1.0, 2.0, 3.0]);
    assert_eq!(values("/filter/web-01/cpu.idle/gt/1"), [2.0, 3.0]);
    assert_eq!(values("/filter/web-01/cpu.idle/eq/2"), [2.0]);
    assert_eq!(values("/trace/web-01/none"), [0.0; 0]);
    let traced = ask("/trace/web-01/qps/a=1,b=2");
    let expected = json!([{ "metric": "qps", "endpoint": "web-01", "timestamp": minute, "step": 60, "value": 5.0,
                            "counterType": "GAUGE", "tags": { "a": "1", "b": "2" } }]);
    assert_eq!(traced, expected);
    for path in ["/trace/web-01", "/filter/web-01/cpu.idle/like/1", "/filter/web-01/cpu.idle/gt/x"] {
        assert_eq!(server.http("transfer_http", "GET", path, "", "").0, 400, "{path}");
    }
}
