//! The fan-out in front of next hops in this process, which note what they get, refuse, and are away.

use super::*;
use net::patience::{in_time, until};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::AtomicU32;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use wire::gob::{Decoder, Encoder, GobScratch};
use wire::{Framer, jsonrpc};

/// A time that the recorded points are of.
const NOW: i64 = 1_795_376_719;

/// What a next hop speaks.
#[derive(Clone, Copy)]
enum Speaks {
    Gob,
    Rpc,
    Lines,
    Http,
    /// Whatever it hears, it says this.
    Says(&'static str),
}

/// A next hop, and what it got, a line each.
struct Peer {
    address: String,
    got: Arc<Mutex<Vec<String>>>,
    /// Calls that are answered with an error before one is taken.
    refuses: Arc<AtomicU32>,
    serving: JoinHandle<()>,
}

impl Peer {
    async fn start(speaks: Speaks) -> Peer {
        Peer::start_at("127.0.0.1:0", speaks).await
    }

    async fn start_at(address: &str, speaks: Speaks) -> Peer {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (got, refuses): (Arc<Mutex<Vec<String>>>, Arc<AtomicU32>) = Default::default();
        let (notes, refusing) = (got.clone(), refuses.clone());
        let serving = tokio::spawn(async move {
            // Ends with its connections when it is aborted.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (notes, refusing) = (notes.clone(), refusing.clone());
                connections.spawn(async move {
                    match speaks {
                        Speaks::Gob => gob(stream, notes, refusing).await,
                        Speaks::Rpc => rpc(stream, notes, refusing).await,
                        Speaks::Lines => lines(stream, notes).await,
                        Speaks::Http => http(stream, notes, refusing).await,
                        Speaks::Says(line) => says(stream, line).await,
                    }
                });
            }
        });
        Peer { address, got, refuses, serving }
    }

    fn got(&self) -> Vec<String> {
        self.got.lock().expect("no panic").clone()
    }

    async fn has(&self, count: usize) -> Vec<String> {
        until("what the next hop gets", async || self.got().len() >= count).await;
        self.got()
    }

    async fn end(self) -> String {
        self.serving.abort();
        let _ = self.serving.await;
        self.address
    }
}

fn refuses(refusing: &AtomicU32) -> bool {
    refusing.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
}

async fn says(mut stream: TcpStream, line: &str) {
    let mut input = [0; 1024];
    while stream.read(&mut input).await.is_ok_and(|read| read > 0) {
        if stream.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn gob(mut stream: TcpStream, notes: Arc<Mutex<Vec<String>>>, refusing: Arc<AtomicU32>) {
    let (mut decoder, mut encoder, mut scratch) = (Decoder::new(1 << 20), Encoder::new(), GobScratch::new());
    let mut input = Vec::new();
    while stream.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        while let Some((end, call)) = decoder.next(&input).expect("gob") {
            let (method, seq, mut out) = (call.method.to_string(), call.seq, Vec::new());
            let mut got = Vec::new();
            if method == "P8sRelay.Send" {
                let read = call.p8s_items(&decoder, &mut scratch, &mut |item| got.push(format!("{item:?}")));
                read.expect("items");
            } else if method == "Graph.Send" {
                let read = call.graph_items(&decoder, &mut scratch, &mut |item| got.push(format!("{item:?}")));
                read.expect("items");
            } else {
                let read = call.judge_items(&decoder, &mut scratch, &mut |item| got.push(format!("{item:?}")));
                read.expect("items");
            }
            match refuses(&refusing) {
                true => encoder.error(&mut out, &method, seq, "not now"),
                false => {
                    notes.lock().expect("no panic").append(&mut got);
                    encoder.simple(&mut out, &method, seq, 0);
                }
            }
            input.drain(..end);
            if stream.write_all(&out).await.is_err() {
                return;
            }
        }
    }
}

async fn rpc(mut stream: TcpStream, notes: Arc<Mutex<Vec<String>>>, refusing: Arc<AtomicU32>) {
    let (mut framer, mut input) = (Framer::new(1 << 20), Vec::new());
    while stream.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        while let Some(range) = framer.scan(&input).expect("a frame") {
            let call: Value = serde_json::from_slice(&input[range.clone()]).expect("JSON");
            let (id, mut out) = (call["id"].to_string(), Vec::new());
            if refuses(&refusing) {
                jsonrpc::write_error(&mut out, id.as_bytes(), "not now");
            } else if call["method"] == "Transfer.Update" {
                let items = call["params"][0].as_array().expect("items");
                if items.iter().any(|item| item["metric"] == "poison") {
                    jsonrpc::write_error(&mut out, id.as_bytes(), "a poisoned point");
                    framer.reset();
                    input.drain(..range.end);
                    if stream.write_all(&out).await.is_err() {
                        return;
                    }
                    continue;
                }
                notes.lock().expect("no panic").extend(items.iter().map(Value::to_string));
                let invalid = items.iter().filter(|item| item["metric"] == "refused").count();
                let result = json!({"Message": "ok", "Total": items.len(), "Invalid": invalid, "Latency": 0});
                jsonrpc::write_result(&mut out, id.as_bytes(), result.to_string().as_bytes());
            } else {
                notes.lock().expect("no panic").push(call["params"][0].to_string());
                jsonrpc::write_result(&mut out, id.as_bytes(), b"{\"code\":0}");
            }
            framer.reset();
            input.drain(..range.end);
            if stream.write_all(&out).await.is_err() {
                return;
            }
        }
    }
}

async fn lines(mut stream: TcpStream, notes: Arc<Mutex<Vec<String>>>) {
    let mut input = Vec::new();
    while stream.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = input.drain(..=end).collect();
            notes.lock().expect("no panic").push(String::from_utf8(line).expect("UTF-8"));
        }
    }
}

/// Answers 204, or 400 where it refuses; notes the request's line, its authorization and its body.
async fn http(mut stream: TcpStream, notes: Arc<Mutex<Vec<String>>>, refusing: Arc<AtomicU32>) {
    let mut input = Vec::new();
    while stream.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&input).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_string()).next()
        };
        let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if body.len() < length {
            continue;
        }
        let status = if refuses(&refusing) || body.contains("poison") { "400 Bad Request" } else { "204 No Content" };
        let line = head.lines().next().unwrap_or_default();
        let note = format!("{line} {} {body}", header("authorization").unwrap_or_default());
        notes.lock().expect("no panic").push(note);
        input.clear();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A fan-out that runs, in a directory that outlives it.
struct Running {
    fanout: Arc<Fanout>,
    health: Health,
    metrics: Metrics,
    stop: watch::Sender<bool>,
    sending: JoinHandle<Result<()>>,
}

fn start(dir: &Path, transfer: TransferConfig) -> Running {
    let config = Config { data_dir: dir.to_path_buf(), transfer, ..Config::default() };
    let (metrics, health) = (Metrics::new(), Health::default());
    let (fanout, sending) = Fanout::open(&config, &metrics, &health).expect("it opens");
    let (stop, stopping) = watch::channel(false);
    Running { fanout, health, metrics, stop, sending: tokio::spawn(sending.run(stopping)) }
}

impl Running {
    fn push(&self, door: Door, items: &Value) -> Received {
        let mut batch = self.fanout.begin(door, NOW);
        batch.push_json(items.to_string().as_bytes()).expect("an array");
        batch.finish().expect("room")
    }

    /// Points that wait for any hop.
    fn waiting(&self) -> u64 {
        self.fanout.hops.iter().map(|hop| hop.figures().waiting).sum()
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        in_time("the end", self.sending).await.expect("no panic").expect("an orderly end");
    }

    /// Ends without a word, as by a kill.
    async fn kill(self) {
        self.sending.abort();
        let _ = self.sending.await;
    }
}

fn item(metric: &str, value: f64) -> Value {
    json!({"endpoint": "host01", "metric": metric, "value": value, "step": 60, "counterType": "GAUGE",
           "tags": "b=2, a=1", "timestamp": NOW})
}

fn items(numbers: std::ops::Range<u32>) -> Value {
    numbers.map(|number| item("m", f64::from(number))).collect()
}

fn ring(nodes: &[(&str, &str)]) -> RingConfig {
    let cluster = nodes.iter().map(|(node, addresses)| (node.to_string(), addresses.to_string())).collect();
    RingConfig { cluster, ..RingConfig::default() }
}

fn next(peers: &[&str]) -> TransferConfig {
    let mut transfer = TransferConfig::default();
    transfer.next.addrs = peers.iter().map(|address| address.to_string()).collect();
    transfer
}

fn values(got: &[String]) -> Vec<u32> {
    let value = |line: &String| serde_json::from_str::<Value>(line).expect("JSON")["value"].as_f64().expect("a value");
    got.iter().map(|line| value(line) as u32).collect()
}

/// An item of a recorded call, as Rust shows that of `wire`; none for what no number stands for.
fn recorded(item: &Value, is_graph: bool) -> Option<String> {
    let text = |key: &str| item[key].as_str().expect("a text");
    let number = |key: &str| item[key].as_i64().expect("a number");
    let tags = item["Tags"].as_object().into_iter().flatten();
    let mut tags: Vec<String> = tags.map(|(key, value)| format!("{key}={}", value.as_str().expect("a text"))).collect();
    tags.sort();
    let (tags, value) = (tags.join(","), item["Value"].as_f64()?);
    Some(match is_graph {
        true => format!(
            "{:?}",
            wire::gob::GraphItem {
                endpoint: text("Endpoint"),
                metric: text("Metric"),
                tags: &tags,
                value,
                timestamp: number("Timestamp"),
                ds_type: text("DsType"),
                step: number("Step"),
                heartbeat: number("Heartbeat"),
                min: text("Min"),
                max: text("Max"),
            }
        ),
        false => format!(
            "{:?}",
            wire::gob::JudgeItem {
                endpoint: text("Endpoint"),
                metric: text("Metric"),
                value,
                timestamp: number("Timestamp"),
                judge_type: text("JudgeType"),
                tags: &tags,
            }
        ),
    })
}

fn recorded_json(name: &str) -> Value {
    serde_json::from_slice(&testdata::bytes(&format!("gob/{name}.json"))).expect("JSON")
}

/// The points that a recorded transfer was sent reach graph and judge as that sent them.
#[tokio::test]
async fn recorded_points_go_on_as_the_original_sends_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let (graph, judge) = (Peer::start(Speaks::Gob).await, Peer::start(Speaks::Gob).await);
    let transfer = TransferConfig {
        graph: ring(&[("graph-00", &graph.address)]),
        judge: ring(&[("judge-00", &judge.address)]),
        ..TransferConfig::default()
    };
    let running = start(dir.path(), transfer);
    for call in recorded_json("transfer_input")["calls"].as_array().expect("calls") {
        running.push(Door::Rpc, &call["params"]);
    }
    for (peer, name, is_graph) in [(&graph, "transfer_graph", true), (&judge, "transfer_judge", false)] {
        let calls = recorded_json(name);
        let args =
            calls["calls"].as_array().expect("calls").iter().flat_map(|call| call["args"].as_array().expect("args"));
        let mut expected: Vec<String> = args.filter_map(|item| recorded(item, is_graph)).collect();
        let mut got = peer.has(expected.len()).await;
        expected.sort();
        got.sort();
        assert_eq!(got, expected, "{name}");
    }
    running.stop().await;
}

/// Vectors of docs/open-falcon/transfer.md §9, and a node with a mirror.
#[tokio::test]
async fn the_ring_places_and_mirrors_get_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let peers = [(); 4].map(|()| Peer::start(Speaks::Gob));
    let [a, b, c, mirror] = peers;
    let (a, b, c, mirror) = tokio::join!(a, b, c, mirror);
    let both = format!("{}, {}", a.address, mirror.address);
    let graph = ring(&[("graph-00", &both), ("graph-01", &b.address), ("graph-02", &c.address)]);
    let running = start(dir.path(), TransferConfig { graph, ..TransferConfig::default() });
    let point = |endpoint: &str, metric: &str, tags: &str| {
        json!({"endpoint": endpoint, "metric": metric, "value": 1, "step": 60, "counterType": "GAUGE", "tags": tags,
               "timestamp": NOW})
    };
    let received = running.push(
        Door::Rpc,
        &json!([
            point("host01", "cpu.idle", ""),
            point("host01", "agent.alive", ""),
            point("host02", "net.if.in.bytes", "iface=eth0"),
            point("test-endpoint", "test-metric", "loc=beijing,idc=lg"),
            point("a", "b", ""),
        ]),
    );
    assert_eq!((received.total, received.invalid), (5, 0));
    let (first, third) = (a.has(3).await, c.has(2).await);
    assert!(first.iter().all(|item| item.contains("host01") || item.contains("test-metric")), "{first:?}");
    assert!(third.iter().all(|item| item.contains("host02") || item.contains("\"b\"")), "{third:?}");
    assert_eq!(mirror.has(3).await, first);
    assert_eq!(b.got(), Vec::<String>::new());
    running.stop().await;
}

#[tokio::test]
async fn a_hop_that_is_away_fills_its_own_buffer_and_gets_all_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let (graph, away) = (Peer::start(Speaks::Gob).await, Peer::start(Speaks::Rpc).await);
    let transfer = TransferConfig { graph: ring(&[("g", &graph.address)]), ..next(&[&away.address]) };
    let address = away.end().await;
    let running = start(dir.path(), transfer);
    for batch in 0..20 {
        running.push(Door::Rpc, &items(batch * 50..batch * 50 + 50));
    }
    graph.has(1000).await;
    until("a reason", async || !running.health.reasons().is_empty()).await;
    let reasons = running.health.reasons();
    assert!(reasons.len() == 1 && reasons[0].line().contains("1000 points wait"), "{reasons:?}");
    let page = running.metrics.text();
    assert!(page.contains(&format!("hop_points_waiting{{hop=\"transfer {address}\"}} 1000")), "{page}");
    let back = Peer::start_at(&address, Speaks::Rpc).await;
    assert_eq!(values(&back.has(1000).await), Vec::from_iter(0..1000));
    until("an end of the reason", async || running.health.reasons().is_empty()).await;
    assert!(back.got()[0].contains("\"tags\":\"a=1,b=2\""), "canonical: {}", back.got()[0]);
    running.stop().await;
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = Peer::start(Speaks::Rpc).await;
    let running = start(dir.path(), next(&[&peer.address]));
    running.push(Door::Rpc, &items(0..300));
    peer.has(300).await;
    let address = peer.end().await;
    running.push(Door::Http, &items(300..700));
    running.kill().await;
    let again = start(dir.path(), next(&[&address]));
    again.push(Door::Rpc, &items(700..800));
    let back = Peer::start_at(&address, Speaks::Rpc).await;
    until("all of them", async || back.got().len() >= 500 && again.waiting() == 0).await;
    let got = values(&back.got());
    let behind: Vec<u32> = got.iter().copied().skip_while(|value| *value < 300).collect();
    assert_eq!(behind, Vec::from_iter(300..800), "{} were sent again", got.len() - 500);
    again.stop().await;
    // An orderly end repeats nothing.
    let third = start(dir.path(), next(&[&address]));
    third.push(Door::Rpc, &items(900..901));
    until("the last", async || values(&back.got()).last() == Some(&900)).await;
    assert_eq!(back.got().len(), got.len() + 1);
    third.stop().await;
}

#[tokio::test]
async fn what_is_answered_with_an_error_is_sent_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (graph, transfer) = (Peer::start(Speaks::Gob).await, Peer::start(Speaks::Rpc).await);
    graph.refuses.store(3, Relaxed);
    transfer.refuses.store(2, Relaxed);
    let running =
        start(dir.path(), TransferConfig { graph: ring(&[("g", &graph.address)]), ..next(&[&transfer.address]) });
    running.push(Door::Rpc, &json!([item("refused", 1.0), item("m", 2.0)]));
    assert_eq!(graph.has(2).await.len(), 2);
    assert_eq!(transfer.has(2).await.len(), 2);
    until("the notes", async || running.waiting() == 0).await;
    assert_eq!(running.fanout.figures(Kind::Graph).sent, 2);
    assert_eq!(running.fanout.figures(Kind::Graph).failures, 3);
    assert_eq!(running.fanout.figures(Kind::Transfer).sent, 1);
    assert_eq!(running.fanout.figures(Kind::Transfer).refused, 1);
    running.stop().await;
}

fn lines_of(running: &Running) -> Vec<String> {
    running.health.reasons().iter().map(|reason| reason.line()).collect()
}

#[tokio::test]
async fn points_that_are_always_refused_are_put_aside_and_hold_up_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = Peer::start(Speaks::Rpc).await;
    let running = start(dir.path(), next(&[&peer.address]));
    let mut batch: Vec<Value> = items(0..100).as_array().expect("items").clone();
    batch.insert(30, item("poison", 1.0));
    batch.insert(77, item("poison", 2.0));
    running.push(Door::Rpc, &Value::from(batch));
    running.push(Door::Rpc, &items(100..150));
    until("the others", async || running.waiting() == 0).await;
    let mut got = values(&peer.got());
    assert_eq!(got.iter().rev().take(50).rev().copied().collect::<Vec<_>>(), Vec::from_iter(100..150), "at last");
    got.sort_unstable();
    got.dedup();
    assert_eq!(got, Vec::from_iter(0..150));
    let figures = running.fanout.figures(Kind::Transfer);
    assert_eq!((figures.sent, figures.refused, figures.aside), (150, 2, 2));
    let folder = dir.path().join("buffer/next.refused");
    let told = [&folder.display().to_string(), "2 points, the last because it answers with the error: a poisoned"];
    // What was true while they were refused may be told a moment longer.
    until("that reason alone", async || {
        let lines = lines_of(&running);
        lines.len() == 1 && told.iter().all(|part| lines[0].contains(part))
    })
    .await;
    running.stop().await;
    // Over a start, until somebody has taken note.
    let running = start(dir.path(), next(&[&peer.address]));
    assert_eq!(running.fanout.figures(Kind::Transfer).aside, 2);
    let spool = Spool::open(Arc::new(RealDisk), &folder, Options { bytes_max: 1 << 20 }).expect("it opens");
    let mut payload = Vec::new();
    let read = spool.read(spool.cursor(), &mut payload).expect("it reads").expect("points");
    let kept = record::records(&payload, read.records).expect("as they were");
    assert!(kept.len() == 2 && kept.iter().all(|record| record.key.metric == "poison"), "{kept:?}");
    std::fs::remove_dir_all(&folder).expect("it goes");
    until("an end of the reason", async || running.health.reasons().is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_hop_that_refuses_everything_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = Peer::start(Speaks::Rpc).await;
    peer.refuses.store(u32::MAX, Relaxed);
    let running = start(dir.path(), next(&[&peer.address]));
    running.push(Door::Rpc, &items(0..50));
    // More attempts than a batch has before its parts are tried.
    until("many refusals", async || u32::MAX - peer.refuses.load(Relaxed) > 20).await;
    let figures = running.fanout.figures(Kind::Transfer);
    assert_eq!((figures.waiting, figures.aside, figures.refused), (50, 0, 0));
    peer.refuses.store(0, Relaxed);
    assert_eq!(values(&peer.has(50).await), Vec::from_iter(0..50));
    until("an end of the reason", async || running.health.reasons().is_empty()).await;
    running.stop().await;
}

/// InfluxDB says of each refusal that it is for good.
#[tokio::test]
async fn a_database_that_refuses_everything_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = Peer::start(Speaks::Http).await;
    peer.refuses.store(u32::MAX, Relaxed);
    let mut transfer = TransferConfig::default();
    transfer.influxdb.address = format!("http://{}", peer.address);
    transfer.influxdb.db = "falcon".to_string();
    let running = start(dir.path(), transfer);
    // More than one read of the buffer.
    for batch in 0..4 {
        running.push(Door::Rpc, &items(batch * 500..batch * 500 + 500));
    }
    until("a reason", async || !lines_of(&running).is_empty()).await;
    until("many refusals", async || u32::MAX - peer.refuses.load(Relaxed) > 40).await;
    let figures = running.fanout.figures(Kind::Influxdb);
    assert_eq!((figures.waiting, figures.aside, figures.refused, figures.dropped), (2000, 0, 0, 0));
    let lines = lines_of(&running);
    assert!(lines.len() == 1 && lines[0].contains("it answers 400 Bad Request"), "{lines:?}");
    peer.refuses.store(0, Relaxed);
    until("an empty buffer", async || running.waiting() == 0).await;
    let figures = running.fanout.figures(Kind::Influxdb);
    assert_eq!((figures.sent + figures.aside, figures.dropped), (2000, 0), "what was refused just then is aside");
    running.stop().await;
}

#[tokio::test]
async fn what_a_database_always_refuses_is_put_aside_when_it_takes_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = Peer::start(Speaks::Http).await;
    let mut transfer = TransferConfig::default();
    transfer.influxdb.address = format!("http://{}", peer.address);
    transfer.influxdb.db = "falcon".to_string();
    let running = start(dir.path(), transfer);
    running.push(Door::Rpc, &json!([item("poison", 1.0)]));
    until("a reason", async || !lines_of(&running).is_empty()).await;
    assert_eq!(running.waiting(), 1, "nothing else says that it takes any");
    running.push(Door::Rpc, &items(0..10));
    until("an empty buffer", async || running.waiting() == 0).await;
    let figures = running.fanout.figures(Kind::Influxdb);
    assert_eq!((figures.sent, figures.aside, figures.refused), (10, 1, 1));
    running.stop().await;
}

#[test]
fn what_finds_no_room_aside_is_counted() {
    let disk = stdx::FakeDisk::default();
    let spool = Spool::open(Arc::new(disk.clone()), Path::new("/buffer"), Options { bytes_max: 1 << 20 });
    let aside = Aside::open(Arc::new(disk), "/refused".into());
    let put = || {
        let mut frames = Frames::default();
        (0..1000).for_each(|_| _ = frames.push(|out| out.resize(out.len() + 1000, 0)));
        aside.put(frames, "it is refused").expect("room");
    };
    (0..10).for_each(|_| put());
    let points = aside.points();
    let hop = Hop::new(Kind::Influxdb, "influxdb h:1".to_string(), spool.expect("room"), aside);
    let Figures { aside, dropped, .. } = hop.figures();
    assert!(dropped > 0 && aside == points && dropped + points == 10_000, "{dropped}, {points}");
}

#[tokio::test]
async fn what_vanishes_from_a_buffer_is_told_and_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let away = Peer::start(Speaks::Rpc).await.end().await;
    let running = start(dir.path(), next(&[&away]));
    running.push(Door::Rpc, &items(0..500));
    running.stop().await;
    let segment = dir.path().join("buffer/next/0000000000000000.spool");
    std::fs::remove_file(&segment).expect("a segment");
    let running = start(dir.path(), next(&[&away]));
    let told = format!("{} is missing, with 500 points", segment.display());
    assert_eq!(running.fanout.take_lost(), [told]);
    assert_eq!(running.fanout.figures(Kind::Transfer).missing, 500);
    let page = running.metrics.text();
    assert!(page.contains(&format!("hop_points_missing{{hop=\"transfer {away}\"}} 500")), "{page}");
    running.stop().await;
}

#[tokio::test]
async fn mirrors_that_change_places_keep_their_points() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second) = (Peer::start(Speaks::Gob).await, Peer::start(Speaks::Gob).await);
    let (away, here) = (first.end().await, second.address.clone());
    let mirrors = |addresses: &str| TransferConfig { graph: ring(&[("g", addresses)]), ..TransferConfig::default() };
    let running = start(dir.path(), mirrors(&format!("{away},{here}")));
    running.push(Door::Rpc, &items(0..10));
    assert_eq!(second.has(10).await.len(), 10);
    until("the note that it has them", async || running.waiting() == 10).await;
    running.stop().await;
    let running = start(dir.path(), mirrors(&format!("{here}, {away}")));
    let back = Peer::start_at(&away, Speaks::Gob).await;
    assert_eq!(back.has(10).await.len(), 10);
    until("an empty buffer", async || running.waiting() == 0).await;
    assert_eq!(second.got().len(), 10, "none comes twice");
    running.stop().await;
}

#[tokio::test]
async fn points_of_a_hop_that_was_taken_away_are_told_and_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let (away, peer) = (Peer::start(Speaks::Gob).await.end().await, Peer::start(Speaks::Gob).await);
    let graph = |address: &str| TransferConfig { graph: ring(&[("g", address)]), ..TransferConfig::default() };
    let running = start(dir.path(), graph(&away));
    running.push(Door::Rpc, &items(0..10));
    running.stop().await;
    let running = start(dir.path(), graph(&peer.address));
    let lines = lines_of(&running);
    let folder = dir.path().join("buffer").join(format!("graph-g@{away}"));
    let told = format!("bytes) in {}", folder.display());
    assert!(lines.len() == 1 && lines[0].contains(&told) && lines[0].contains(": 10 ("), "{lines:?}");
    assert!(running.metrics.text().contains("points_without_hop 10"), "{}", running.metrics.text());
    running.stop().await;
    // The folder, renamed, is that of the other.
    let other = dir.path().join("buffer").join(format!("graph-g@{}", peer.address));
    std::fs::remove_dir_all(&other).and_then(|()| std::fs::rename(&folder, &other)).expect("room");
    let running = start(dir.path(), graph(&peer.address));
    assert_eq!(peer.has(10).await.len(), 10);
    assert_eq!(running.health.reasons(), []);
    running.stop().await;
}

#[test]
fn no_two_hops_share_a_folder() {
    assert_eq!(folder_of("graph", "g-1@[::1]:6070"), "graph-g-1@[::1]:6070");
    assert_eq!(folder_of("graph", "g@Host:1"), folder_of("graph", "g@host:1"));
    assert_eq!(folder_of("influxdb", "d/../é@http://h"), "influxdb-d%2f..%2f%c3%a9@http:%2f%2fh");
    let long = |end: &str| folder_of("graph", &format!("g@{}{end}", "a".repeat(250)));
    assert!(long("b:1").len() <= 200 && long("b:1") != long("c:1"));
}

#[tokio::test]
async fn what_an_answer_to_no_call_says_is_told() {
    let tls = "{\"id\":null,\"result\":null,\"error\":\"this port speaks TLS\"}\n";
    let token = "{\"id\":0,\"result\":null,\"error\":\"call Hawkeye.Auth with …\"}\n";
    for (line, told) in [(tls, "this port speaks TLS"), (token, "set transfer.next.token")] {
        let dir = tempfile::tempdir().expect("a directory");
        let peer = Peer::start(Speaks::Says(line)).await;
        let running = start(dir.path(), next(&[&peer.address]));
        running.push(Door::Rpc, &items(0..1));
        until("a reason", async || !running.health.reasons().is_empty()).await;
        let lines = lines_of(&running);
        assert!(lines[0].contains(told), "{lines:?}");
        running.stop().await;
    }
}

#[tokio::test]
async fn one_of_several_transfers_is_enough_and_is_shown_the_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let (away, peer) = (Peer::start(Speaks::Rpc).await, Peer::start(Speaks::Rpc).await);
    let away = away.end().await;
    let mut transfer = next(&[&away, &peer.address]);
    transfer.next.token = settings::Secret::new("0123456789abcdef");
    let running = start(dir.path(), transfer);
    running.push(Door::Telnet, &items(0..1500));
    let got = peer.has(1501).await;
    assert_eq!(got[0], json!({"token": "0123456789abcdef"}).to_string());
    assert_eq!(values(&got[1..]), Vec::from_iter(0..1500));
    running.stop().await;
}

#[tokio::test]
async fn lines_go_to_other_databases_but_not_those_of_telnet() {
    let dir = tempfile::tempdir().expect("a directory");
    let (tsdb, influx) = (Peer::start(Speaks::Lines).await, Peer::start(Speaks::Http).await);
    let mut transfer = TransferConfig::default();
    transfer.tsdb.address = tsdb.address.clone();
    transfer.influxdb.address = format!("http://{}", influx.address);
    transfer.influxdb.db = "falcon db".to_string();
    transfer.influxdb.username = "u".to_string();
    transfer.influxdb.password = settings::Secret::new("p");
    let running = start(dir.path(), transfer);
    running.push(Door::Rpc, &json!([item("m", 1.0)]));
    influx.has(1).await;
    running.push(Door::Telnet, &json!([item("m", 2.0)]));
    running.push(Door::Http, &json!([item("m", 3.0)]));
    assert_eq!(
        tsdb.has(2).await,
        [1, 3].map(|value| format!("put m {NOW} {value}.000 a=1 b=2 endpoint=host01 \n")),
        "in order, without the telnet's"
    );
    let posts = influx.has(2).await;
    let expected = |value: u32| {
        format!(
            "POST /write?db=falcon+db&precision=s HTTP/1.1 Basic dTpw m,a=1,b=2,endpoint=host01 value={value} {NOW}\n"
        )
    };
    assert_eq!(posts, [expected(1), expected(3)]);
    until("the notes", async || running.waiting() == 0).await;
    running.stop().await;
}

#[tokio::test]
async fn a_full_buffer_drops_the_oldest_and_still_answers() {
    let dir = tempfile::tempdir().expect("a directory");
    let away = Peer::start(Speaks::Rpc).await.end().await;
    let transfer = TransferConfig { buffer_max: 1 << 20, ..next(&[&away]) };
    let running = start(dir.path(), transfer);
    for batch in 0..100 {
        running.push(Door::Rpc, &items(batch * 500..batch * 500 + 500));
    }
    let dropped = running.fanout.figures(Kind::Transfer).dropped;
    assert!(dropped > 0 && dropped + running.waiting() == 50_000, "{dropped}");
    let back = Peer::start_at(&away, Speaks::Rpc).await;
    until("the end of the buffer", async || running.waiting() == 0).await;
    let got = values(&back.got());
    assert_eq!((got.first(), got.last()), (Some(&(dropped as u32)), Some(&49_999)));
    running.stop().await;
}

/// Rules of docs/open-falcon/transfer.md §4.
#[tokio::test]
async fn falcon2p8s_gets_rounded_values_and_neither_derives_nor_what_is_not_synced() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = Peer::start(Speaks::Gob).await;
    let mut transfer = TransferConfig::default();
    transfer.p8s.cluster = ring(&[("p8s-00", &peer.address)]).cluster;
    transfer.p8s.not_sync_metrics = vec!["secret.".to_string()];
    let running = start(dir.path(), transfer);
    let derive = json!({"endpoint": "h", "metric": "d", "value": 1, "step": 60, "counterType": "DERIVE", "tags": "", "timestamp": NOW});
    running.push(Door::Telnet, &json!([item("secret.one", 1.0), derive, item("m", 1.23456), item("big", 1e300)]));
    let got = peer.has(2).await;
    let expected = |metric, value| wire::gob::P8sItem {
        endpoint: "host01",
        metric,
        tags: "a=1,b=2",
        value,
        timestamp: NOW - NOW % 60,
        metric_type: "GAUGE",
        step: 60,
    };
    assert_eq!(got, [expected("m", 1.235), expected("big", 1e300)].map(|item| format!("{item:?}")));
    running.stop().await;
}

#[test]
fn a_disk_that_takes_nothing_is_told_until_it_does() {
    let disk = stdx::FakeDisk::default();
    let spool = Spool::open(Arc::new(disk.clone()), Path::new("/buffer"), Options { bytes_max: 1 << 20 });
    let aside = Aside::open(Arc::new(disk.clone()), "/refused".into());
    let hop = Hop::new(Kind::Tsdb, "tsdb h:1".to_string(), spool.expect("room"), aside);
    let append = || {
        let mut frames = Frames::default();
        frames.push(|out| out.push(1));
        hop.append(&mut frames)
    };
    disk.set_room(Some(5));
    assert!(append().is_err());
    let lines: Vec<String> = hop.troubles().map(|reason| reason.line()).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("the buffer of a next hop cannot be written"), "{lines:?}");
    assert!(lines[0].contains("/buffer/0000000000000000.spool: "), "{lines:?}");
    disk.set_room(None);
    append().expect("room");
    assert_eq!(hop.troubles().count(), 0);
}
