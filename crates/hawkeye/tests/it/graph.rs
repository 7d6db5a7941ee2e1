//! The graph inside an old Open-Falcon: what transfer and api say to it over Go's net/rpc, and what scripts ask over
//! HTTP.

use crate::alarms::make_strategy;
use crate::harness::{Server, Target, now, this_minute};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use wire::gob::client::{Replies, Reply, Requests};
use wire::gob::{GraphItem, GraphQuery, GraphSeries};

/// The longest retention there is: the recorded points have the times of their recording, 2026-11-22.
const ALONE: &str = "roles = [\"graph\"]\n[graph]\nretention = { raw = \"1000d\" }\n";

/// A connection of a client that has one call at a time.
pub struct Client {
    stream: TcpStream,
    requests: Requests,
    replies: Replies,
    input: Vec<u8>,
    seq: u64,
}

impl Client {
    fn of(server: &Server) -> Client {
        Client::through(server, "graph_rpc")
    }

    pub fn through(server: &Server, listener: &str) -> Client {
        let (stream, replies) = (server.connect(listener), Replies::new(16 << 20));
        Client { stream, requests: Requests::new(), replies, input: Vec::new(), seq: 0 }
    }

    pub fn call<T>(
        &mut self,
        write: impl FnOnce(&mut Requests, &mut Vec<u8>, u64),
        read: impl FnOnce(&Replies, &Reply<'_>) -> T,
    ) -> T {
        let mut out = Vec::new();
        write(&mut self.requests, &mut out, self.seq);
        self.stream.write_all(&out).expect("write");
        loop {
            if let Some((consumed, reply)) = self.replies.next(&self.input).expect("gob") {
                assert_eq!(reply.seq, self.seq);
                let result = read(&self.replies, &reply);
                self.input.drain(..consumed);
                self.seq += 1;
                return result;
            }
            let mut block = [0; 64 << 10];
            let count = self.stream.read(&mut block).expect("an answer");
            assert!(count > 0, "the server closed the connection");
            self.input.extend_from_slice(&block[..count]);
        }
    }

    fn send(&mut self, items: &[GraphItem<'_>]) {
        let code = self.call(
            |requests, out, seq| requests.graph_send(out, seq, items.iter().copied()),
            |replies, reply| (reply.error.to_string(), reply.code(replies)),
        );
        assert_eq!(code, (String::new(), Ok(0)));
    }

    fn last_raw(&mut self, endpoint: &str, counter: &str) -> (i64, f64) {
        let series = GraphSeries { endpoint: endpoint.into(), counter: counter.into() };
        self.call(
            |requests, out, seq| requests.graph_last(out, "Graph.LastRaw", seq, &series),
            |replies, reply| {
                let last = reply.graph_last(replies).expect("a reply");
                (last.timestamp, last.value)
            },
        )
    }

    /// Known points within [start, end].
    fn history(&mut self, endpoint: &str, counter: &str, start: i64, end: i64) -> Vec<(i64, f64)> {
        let (consol_fun, endpoint, counter) = ("AVERAGE".into(), endpoint.into(), counter.into());
        let query = GraphQuery { start, end, consol_fun, endpoint, counter, step: 0 };
        let mut rows = Vec::new();
        self.call(
            |requests, out, seq| requests.graph_query(out, seq, &query),
            |replies, reply| {
                reply.graph_query(replies, &mut |time, value| rows.push((time, value))).expect("a reply");
            },
        );
        rows.retain(|(time, value)| (start..=end).contains(time) && !value.is_nan());
        rows
    }
}

fn gauge<'i>(endpoint: &'i str, metric: &'i str, timestamp: i64, value: f64) -> GraphItem<'i> {
    let (ds_type, step, heartbeat) = ("GAUGE", 60, 120);
    GraphItem { endpoint, metric, tags: "", value, timestamp, ds_type, step, heartbeat, min: "U", max: "U" }
}

#[test]
fn alone_it_listens_where_it_was_told_and_keeps_what_it_answered_for() {
    let mut server = Server::start(ALONE);
    for listener in ["transfer_rpc", "transfer_http", "transfer_telnet", "hbs_rpc", "api"] {
        assert!(TcpStream::connect(("127.0.0.1", server.port(listener))).is_err(), "{listener} listens");
    }
    let minute = this_minute();
    let mut client = Client::of(&server);
    for back in (0..30).rev() {
        client.send(&[gauge("h", "m", minute - 60 * back, back as f64), gauge("h", "n", minute - 60 * back, 0.5)]);
    }
    let expected: Vec<(i64, f64)> = (0..30).rev().map(|back| (minute - 60 * back, back as f64)).collect();
    assert_eq!(client.history("h", "m", minute - 29 * 60, minute), expected);
    server.kill();
    server.restart();
    let mut client = Client::of(&server);
    // The original knows no last point until the next comes.
    assert_eq!(client.last_raw("h", "m"), (minute, 0.0));
    assert_eq!(client.history("h", "m", minute - 29 * 60, minute), expected);
    assert!(server.stop().success());
    let mut files: Vec<_> = std::fs::read_dir(server.data_dir())
        .expect("the data directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort();
    assert_eq!(files, ["clock", "store"], "no portal, no events");
}

/// The recorded calls of the original's transfer and of a Go client get the recorded errors and facts. Rows depend on
/// how long ago the recording was; `role/graph/tests.rs` compares them, with the clock of that time.
#[test]
fn recorded_connections_are_answered() {
    let server = Server::start(ALONE);
    for name in ["transfer_graph", "client_graph"] {
        let recorded: Value = serde_json::from_slice(&testdata::bytes(&format!("gob/{name}.json"))).expect("JSON");
        let mut stream = server.connect("graph_rpc");
        stream.write_all(&testdata::bytes(&format!("gob/{name}.c2s.bin"))).expect("write");
        stream.shutdown(std::net::Shutdown::Write).expect("still open");
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).expect("answers");
        let (mut replies, mut rest, mut count) = (Replies::new(16 << 20), &answers[..], 0);
        while let Some((consumed, reply)) = replies.next(rest).expect("gob") {
            compare(&replies, &reply, &recorded["calls"][reply.seq as usize]);
            rest = &rest[consumed..];
            count += 1;
        }
        assert_eq!(count, recorded["calls"].as_array().map_or(0, Vec::len), "{name}");
    }
    assert_eq!(server.metric("hawkeye_items_refused_total{door=\"graph\""), 6.0);
    assert_eq!(server.metric("hawkeye_rpc_faults_total"), 0.0);
}

fn compare(replies: &Replies, reply: &Reply<'_>, call: &Value) {
    let theirs = &call["response"];
    if reply.method == "Graph.GetRrd" {
        return assert!(reply.error.contains("Graph.Query"), "{}", reply.error);
    }
    assert_eq!(&*reply.error, theirs["error"].as_str().expect("a text"), "{call}");
    if reply.method == "Graph.Send" {
        assert_eq!(reply.code(replies), Ok(0));
    }
    // The first calls; later ones ask for what was deleted.
    if reply.method == "Graph.Query" && reply.seq < 38 {
        let head = reply.graph_query(replies, &mut |_, _| {}).expect("a reply");
        assert_eq!(
            (json!(head.ds_type), json!(head.step)),
            (theirs["reply"]["DsType"].clone(), theirs["reply"]["Step"].clone())
        );
    }
    let is_kept = theirs["reply"]["Value"]["Timestamp"].as_i64() > Some(now() - 999 * 86_400);
    if reply.method == "Graph.LastRaw" && is_kept && theirs["reply"]["Value"]["Value"].is_number() {
        let (last, value) = (reply.graph_last(replies).expect("a reply"), &theirs["reply"]["Value"]);
        assert_eq!(json!(last.timestamp), value["Timestamp"], "{call}");
        assert_eq!(Some(last.value), value["Value"].as_f64(), "{call}");
    }
}

#[test]
fn broken_bytes_close_the_connection_and_are_counted() {
    let server = Server::start(&format!("{ALONE}[ingest]\nmessage_max = \"64KiB\"\n"));
    let padded = |start: &[u8]| [start, &[b'x'; 600]].concat();
    let request = padded(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    for bytes in [request, padded(b"{\"method\":\"Transfer.Ping\"}"), padded(&[0xf8; 9]), vec![0xff; 600]] {
        let mut stream = server.connect("graph_rpc");
        stream.write_all(&bytes).expect("write");
        // An error that Go's client shows with its first call, then the end.
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an orderly end");
        let (_, reply) = Replies::new(1 << 20)
            .next(&answer)
            .expect("gob")
            .map(|(n, r)| (n, r.error.into_owned()))
            .expect("an answer");
        assert!(reply.contains("invalid gob"), "{reply}");
    }
    assert_eq!(server.metric("hawkeye_rpc_faults_total{listener=\"graph_rpc\""), 4.0);
    let mut client = Client::of(&server);
    client.send(&[gauge("h", "m", this_minute(), 1.0)]);
    let many = vec![gauge("h", "m", this_minute(), 1.0); 5000];
    let error = client.call(
        |requests, out, seq| requests.graph_send(out, seq, many.iter().copied()),
        |_, reply| reply.error.to_string(),
    );
    assert!(error.contains("send smaller batches"), "{error}");
}

#[test]
fn senders_from_elsewhere_are_closed_at_once() {
    let server = Server::start(&format!("{ALONE}[ingest]\nallow = [\"10.0.0.0/8\"]\n"));
    let mut stream = server.connect("graph_rpc");
    let mut rest = Vec::new();
    // A reset is as good an end as a close.
    assert_eq!(stream.read_to_end(&mut rest).unwrap_or(0), 0);
    assert_eq!(server.metric("hawkeye_connections_refused_total{listener=\"graph_rpc\",reason=\"not_allowed\""), 1.0);
}

#[test]
fn old_routes_answer_on_admin() {
    let server = Server::start(ALONE);
    let mut client = Client::of(&server);
    client.send(&[gauge("h", "m", this_minute(), 1.0), gauge("h", "n", this_minute(), 1.0)]);
    client.last_raw("h", "m");
    client.history("h", "m", now() - 600, now());
    let get = |path: &str| -> Value {
        let (status, text) = server.http("admin", "GET", path, "", "");
        assert_eq!(status, 200, "{path}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {text:?}: {error}"))
    };
    assert_eq!(server.http("admin", "GET", "/health", "", "").1.trim(), "ok");
    assert_eq!(get("/api/v2/health"), json!({"msg": "ok"}));
    assert_eq!(get("/api/v2/version"), json!({"value": env!("CARGO_PKG_VERSION")}));
    assert_eq!(get("/index/updateAll"), json!({"msg": "ok"}));
    assert_eq!(get("/api/v2/stats/graph-queue-size"), json!({"0": 2}));
    assert_eq!(get("/api/v2/counter/migrate")["FetchSuccess"], json!(0));
    assert_eq!(server.http("admin", "POST", "/api/v2/config/reload", "", "").0, 200);
    let all = get("/counter/all");
    let statistics = get("/statistics/all");
    assert_eq!(
        (&statistics["msg"], statistics["data"].as_array().map(Vec::len)),
        (&json!("success"), all.as_array().map(Vec::len))
    );
    let counts: HashMap<&str, &Value> = all
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["Name"].as_str().expect("a name"), &one["Cnt"]))
        .collect();
    for (name, count) in [
        ("GraphRpcRecvCnt", 2),
        ("GraphQueryCnt", 1),
        ("GraphLastCnt", 0),
        ("GraphLastRawCnt", 1),
        ("GraphInfoCnt", 0),
        ("IndexedItemCacheCnt", 2),
        ("EndpointCacheCnt", 1),
    ] {
        assert_eq!(counts.get(name), Some(&&json!(count)), "{name}");
    }
    assert!(counts["GraphQueryItemCnt"].as_i64() >= Some(11));
    assert!(all[0]["Qps"].is_number() && all[0]["Time"].as_str().map(str::len) == Some(19), "{all}");
}

/// Door of an old transfer beside the other roles: what comes through it is judged, charted, and of the same series.
#[test]
fn points_of_an_old_transfer_are_judged() {
    let target = Target::start();
    let server = Server::start("");
    let api = server.admin();
    make_strategy(&api, "web-01", &target);
    let minute = this_minute();
    let mut client = Client::of(&server);
    client.send(&[gauge("web-01", "cpu.idle", minute - 60, 50.0)]);
    client.send(&[gauge("web-01", "cpu.idle", minute, 5.0)]);
    let call = target.next();
    assert!(call.contains("status=PROBLEM") && call.contains("left_value=5"), "{call}");
    server.update(json!([crate::harness::gauge("web-01", "cpu.idle", 7.0, minute - 120)]));
    let expected = [(minute - 120, 7.0), (minute - 60, 50.0), (minute, 5.0)];
    assert_eq!(api.history("web-01", "cpu.idle", minute - 120, minute), expected);
    assert_eq!(client.history("web-01", "cpu.idle", minute - 120, minute), expected);
}

/// Replays what the original answered about graph data, over the series that the recording fed it.
#[test]
fn recorded_graph_data_is_answered_as_recorded() {
    let config = "signup = true\nrights = \"open-falcon\"\nserver_token = \"default-token-used-in-server-side\"\n";
    let server = Server::start(&format!("[api]\n{config}"));
    let password = std::fs::read_to_string(server.data_dir().join("admin-password")).expect("admin-password");
    let results = server.dir.path().join("results.json");
    let mut checker = std::process::Command::new("python3");
    checker.arg(testdata::path("rest/check_rest.py")).arg(testdata::path("rest/rest.jsonl"));
    checker.args(["--base", &format!("http://127.0.0.1:{}/api/v1", server.port("api"))]);
    checker.args(["--transfer", &format!("127.0.0.1:{}", server.port("transfer_rpc"))]);
    // What is answered for is there: nothing need settle.
    checker.args(["--settle", "0", "--admin-setup", "login", "--admin-password", password.trim()]);
    checker.args(["--only", "graph,grafana", "--strict", "--json"]).arg(&results);
    let output = checker.output().expect("python3, which the checker is written in");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let steps = std::fs::read(&results).unwrap_or_else(|_| panic!("no results: {output}"));
    let steps: Vec<Value> = serde_json::from_slice(&steps).expect("a list of steps");
    let told = |result: &str| -> Vec<i64> {
        steps.iter().filter(|step| step["result"] == result).filter_map(|step| step["n"].as_i64()).collect()
    };
    assert_eq!(told("fail"), Vec::<i64>::new(), "{output}");
    assert_eq!(told("pass"), (239..=277).collect::<Vec<_>>(), "{output}");
}
