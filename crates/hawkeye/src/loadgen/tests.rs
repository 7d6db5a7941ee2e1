use super::*;
use clap::Parser;
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::gob::{Call, Decoder, Encoder, GobScratch, QueryHead};
use wire::{Framer, Scratch, jsonrpc, transfer};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: LoadgenArgs,
}

fn args(words: &[&str]) -> LoadgenArgs {
    Cli::try_parse_from([&["loadgen"], words].concat()).expect("valid arguments").args
}

const NOW: i64 = 1_700_000_000;

#[test]
fn starts() {
    assert_eq!(parse_start("-1h"), Ok(StartTime::Ago(3600)));
    assert_eq!(parse_start("-90s"), Ok(StartTime::Ago(90)));
    assert_eq!(parse_start("now"), Ok(StartTime::Ago(0)));
    assert_eq!(parse_start("1600000000"), Ok(StartTime::At(1_600_000_000)));
    assert!(parse_start("-1").is_err());
    assert!(parse_start("yesterday").is_err());
}

#[test]
fn plans() {
    let plan = |words: &[&str]| RunPlan::new(&args(words), NOW);
    let first = |words: &[&str]| plan(words).map(|plan| plan.fleet.time(0, 0));
    assert_eq!(first(&["--rounds", "10", "--step", "60"]).ok(), Some(NOW - 600));
    assert_eq!(first(&["--start", "-1h", "--rounds", "60"]).ok(), Some(NOW - 3600));
    assert_eq!(first(&["--speed", "real"]).ok(), Some(NOW));
    assert_eq!(plan(&["--hosts", "20"]).map(|plan| plan.connections).ok(), Some(20));
    assert_eq!(plan(&["--hosts", "20000"]).map(|plan| plan.connections).ok(), Some(CONNECTIONS_DEFAULT));
    assert_eq!(plan(&["--hosts", "20", "--connections", "3"]).map(|plan| plan.connections).ok(), Some(3));
    let error = plan(&["--start", "now"]).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("earlier --start"), "{error}");
}

/// Calls that a transfer for tests has seen, and its answers.
#[derive(Default)]
struct Seen {
    /// Points by endpoint.
    points: HashMap<String, usize>,
    connections: usize,
    calls: usize,
}

/// A transfer that counts. `odd` may answer a call (by number) in its own way: `Some(text)` is sent as it is, and the
/// connection closed.
async fn transfer(odd: fn(usize) -> Option<&'static str>) -> (String, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let target = listener.local_addr().expect("bound").to_string();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            shared.lock().expect("no panic under the lock").connections += 1;
            tokio::spawn(serve(stream, shared.clone(), odd));
        }
    });
    (target, seen)
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Seen>>, odd: fn(usize) -> Option<&'static str>) {
    let (mut framer, mut input, mut scratch) = (Framer::new(1 << 20), Vec::new(), Scratch::new());
    while stream.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
        while let Some(range) = framer.scan(&input).expect("framed well") {
            let mut out = Vec::new();
            let strange = answer(&input[range.clone()], &seen, &mut scratch, &mut out, odd);
            input.drain(..range.end);
            framer.reset();
            if stream.write_all(strange.map_or(&out[..], str::as_bytes)).await.is_err() || strange.is_some() {
                return;
            }
        }
    }
}

fn answer(
    message: &[u8],
    seen: &Mutex<Seen>,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
    odd: fn(usize) -> Option<&'static str>,
) -> Option<&'static str> {
    let request = jsonrpc::request(message, scratch).expect("a request");
    if request.method == "Transfer.Ping" {
        jsonrpc::write_result(out, request.id, b"{\"code\":0}");
        return None;
    }
    let mut seen = seen.lock().expect("no panic under the lock");
    seen.calls += 1;
    if let Some(text) = odd(seen.calls) {
        return Some(text);
    }
    let mut each = |item: Result<wire::Item<'_>, wire::Invalid>| {
        *seen.points.entry(item.expect("valid").endpoint.to_string()).or_default() += 1;
    };
    let total = wire::decode_items(request.param.expect("items"), &mut Scratch::new(), &mut each).expect("an array");
    jsonrpc::begin_result(out, request.id);
    transfer::write_answer(out, &transfer::UpdateAnswer { total, invalid: 0, latency_ms: 0 });
    jsonrpc::end_result(out);
    None
}

async fn load(words: &[&str], target: &str) -> Result<RunReport> {
    RunPlan::new(&args(&[words, &["--target", target]].concat()), clock::now())?.send().await
}

#[tokio::test]
async fn every_point_arrives_once() {
    let (target, seen) = transfer(|_| None).await;
    let words = ["--hosts", "5", "--metrics", "20", "--rounds", "3", "--connections", "2"];
    let report = load(&words, &target).await.expect("a run");
    assert_eq!((report.tally.sent, report.tally.refused, report.tally.failed_calls), (300, 0, 0));
    assert!(report.latency.max() > Duration::ZERO);
    report.check().expect("nothing failed");
    let seen = seen.lock().expect("no panic under the lock");
    assert_eq!(seen.connections, 2 + 1, "two, and the one that said hello");
    let expected: HashMap<String, usize> = (0..5).map(|host| (format!("load-{host:05}"), 60)).collect();
    assert_eq!(seen.points, expected);
}

#[tokio::test]
async fn a_broken_call_is_counted_and_the_run_goes_on() {
    let odd = |call| match call {
        2 => Some(""),
        4 => Some("{\"id\":999,\"result\":{},\"error\":null}\n"),
        6 => Some("HTTP/1.1 400\r\n"),
        _ => None,
    };
    let (target, seen) = transfer(odd).await;
    let report = load(&["--hosts", "1", "--metrics", "1", "--rounds", "10"], &target).await.expect("a run");
    assert_eq!((report.tally.calls, report.tally.failed_calls, report.tally.lost), (10, 3, 3));
    assert_eq!(report.tally.errors.len(), 3, "{:?}", report.tally.errors);
    assert!(report.check().is_err());
    assert_eq!(seen.lock().expect("no panic under the lock").points["load-00000"], 7);
}

#[tokio::test]
async fn an_error_told_keeps_the_connection() {
    let odd = |call| (call == 1).then_some("{\"id\":0,\"result\":null,\"error\":\"disk is full\"}\n");
    let (target, _) = transfer(odd).await;
    let report = load(&["--hosts", "1", "--metrics", "1", "--rounds", "1"], &target).await.expect("a run");
    assert_eq!(report.tally.errors, ["answered with an error: disk is full"]);
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let target = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let error = load(&[], &target).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("cannot connect") && error.contains("--target"), "{error}");
}

#[test]
fn a_dry_run_counts_all_points() {
    let plan = RunPlan::new(&args(&["--hosts", "3", "--metrics", "50", "--rounds", "4"]), NOW).expect("a plan");
    assert_eq!(plan.encode_only().tally.sent, 600);
}

/// A graph that keeps what it is sent, by endpoint and counter, and closes the connection instead of answering call 3.
async fn graph() -> (String, Arc<Mutex<HashMap<(String, String), HashMap<i64, f64>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let target = listener.local_addr().expect("bound").to_string();
    let kept = Arc::new(Mutex::new(HashMap::new()));
    let shared = kept.clone();
    tokio::spawn(async move {
        let calls = Arc::new(Mutex::new(0));
        while let Ok((mut stream, _)) = listener.accept().await {
            let (kept, calls) = (shared.clone(), calls.clone());
            tokio::spawn(async move {
                let (mut decoder, mut encoder, mut input) = (Decoder::new(1 << 20), Encoder::new(), Vec::new());
                while stream.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
                    let mut out = Vec::new();
                    while let Some((consumed, call)) = decoder.next(&input).expect("gob") {
                        *calls.lock().expect("no panic under the lock") += 1;
                        if *calls.lock().expect("no panic under the lock") == 3 {
                            return;
                        }
                        let mut kept = kept.lock().expect("no panic under the lock");
                        keep_or_query(&call, &decoder, &mut encoder, &mut out, &mut kept);
                        drop(kept);
                        input.drain(..consumed);
                    }
                    stream.write_all(&out).await.expect("somebody reads");
                }
            });
        }
    });
    (target, kept)
}

fn keep_or_query(
    call: &Call<'_>,
    decoder: &Decoder,
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    kept: &mut HashMap<(String, String), HashMap<i64, f64>>,
) {
    if call.method == "Graph.Query" {
        let query = call.graph_query(decoder).expect("a query");
        let points = kept.get(&(query.endpoint.to_string(), query.counter.to_string()));
        let rows: Vec<(i64, f64)> = points.into_iter().flatten().map(|(time, value)| (*time, *value)).collect();
        let head = QueryHead { ds_type: "GAUGE", step: 60, ..QueryHead::default() };
        return encoder.graph_query(out, call.method, call.seq, &head, rows.into_iter());
    }
    if call.method == "Judge.Send" {
        let each = &mut |item: wire::gob::JudgeItem<'_>| {
            let tags = model::Tags::assume_canonical(item.tags);
            let counter = model::SeriesKey { endpoint: "", metric: item.metric, tags }.counter();
            assert!(item.timestamp % 60 == 0 && model::CounterType::parse(item.judge_type.as_bytes()).is_some());
            kept.entry((item.endpoint.to_string(), counter)).or_default().insert(item.timestamp, item.value);
        };
        call.judge_items(decoder, &mut GobScratch::new(), each).expect("items");
    }
    if call.method == "Graph.Send" {
        let mut count = 0;
        let each = &mut |item: wire::gob::GraphItem<'_>| {
            let tags = model::Tags::assume_canonical(item.tags);
            let counter = model::SeriesKey { endpoint: "", metric: item.metric, tags }.counter();
            kept.entry((item.endpoint.to_string(), counter)).or_default().insert(item.timestamp, item.value);
            count += 1;
        };
        call.graph_items(decoder, &mut GobScratch::new(), each).expect("items");
        assert!(count <= GRAPH_BATCH);
    }
    encoder.simple(out, call.method, call.seq, 0);
}

/// Over a new connection the definitions of types go again; what a broken call lost is not looked for.
#[tokio::test]
async fn a_graph_gets_every_point_and_is_asked_for_it() {
    let (target, kept) = graph().await;
    let words =
        ["--hosts", "2", "--metrics", "250", "--rounds", "1", "--connections", "1", "--gob", &target, "--read-back"];
    let report = RunPlan::new(&args(&words), clock::now()).expect("a plan").send().await.expect("a run");
    assert_eq!((report.tally.calls, report.tally.sent, report.tally.failed_calls), (4, 500, 1));
    assert_eq!(report.tally.lost, 50, "the second call of the first host, after the ping");
    assert_eq!(kept.lock().expect("no panic under the lock").len(), 450);
    // Of one round only gauges can be compared.
    let verdict = report.verdict.expect("it was asked for");
    assert!(verdict.expected > 80 && verdict.missing + verdict.wrong == 0, "{verdict:?}");
}

#[tokio::test]
async fn a_judge_gets_the_same_points() {
    let (target, kept) = graph().await;
    let words = ["--hosts", "2", "--metrics", "250", "--rounds", "1", "--connections", "1", "--judge-gob", &target];
    let report = RunPlan::new(&args(&words), clock::now()).expect("a plan").send().await.expect("a run");
    assert_eq!((report.tally.calls, report.tally.failed_calls, report.tally.lost), (4, 1, 50));
    assert_eq!(kept.lock().expect("no panic under the lock").len(), 450);
}
