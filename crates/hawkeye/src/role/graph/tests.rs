//! The recorded connections of the original, over a socket, against this service with a clock of the recording's time.
//!
//! Differences on purpose are written where answers are compared; docs/compat.md has the reasons.

use super::*;
use net::gob::testing::exchange;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use wire::gob::client::{Replies, Reply, Requests};
use wire::gob::{GraphDelete, GraphItem, GraphQuery, GraphSeries};

/// Two seconds after the newest recorded `Graph.Send`.
const RECORDED_AT: i64 = 1_795_376_725;
const LIMIT: usize = 1 << 20;

/// A service on a fresh directory, whose clock stands still.
fn service(dir: &Path, now: fn() -> i64) -> GraphService {
    let options = store::Options { dir: dir.join("store"), shard_count: 2, ..store::Options::default() };
    let (store, _) = Store::open(options, now()).expect("a store");
    let engine = Arc::new(Engine::new(store, 2, judge::Options::default(), None));
    let pressure = Arc::new(crate::engine::pressure::Pressure::new(u64::MAX, 0));
    let ingest = Arc::new(Ingest::new(engine.clone(), pressure, 30, 300, &Metrics::new()));
    GraphService { now, ..GraphService::new(engine, ingest, GraphMetrics::default()) }
}

fn recorded_at() -> i64 {
    RECORDED_AT
}

/// Hands out the replies in `answers`.
fn replies(answers: &[u8], mut each: impl FnMut(&Replies, &Reply<'_>)) {
    let (mut replies, mut rest) = (Replies::new(64 << 20), answers);
    while let Some((consumed, reply)) = replies.next(rest).expect("own gob") {
        each(&replies, &reply);
        rest = &rest[consumed..];
    }
    assert!(rest.is_empty(), "half a reply");
}

fn calls(name: &str) -> Vec<Value> {
    let recorded: Value = serde_json::from_slice(&testdata::bytes(&format!("gob/{name}"))).expect("JSON");
    recorded["calls"].as_array().expect("calls").clone()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().expect("a text")
}

fn integer(value: &Value, name: &str) -> i64 {
    value[name].as_i64().expect("an integer")
}

/// Values that are no numbers are texts in the recording.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| value.as_str().expect("NaN, +Inf or -Inf").parse().expect("a double"))
}

type Rows = Vec<(i64, f64)>;

fn recorded_rows(reply: &Value) -> Rows {
    let values = reply["Values"].as_array().map(Vec::as_slice).unwrap_or_default();
    values.iter().map(|row| (integer(row, "Timestamp"), number(&row["Value"]))).collect()
}

fn same(ours: &[(i64, f64)], theirs: &[(i64, f64)]) -> bool {
    let equal = |(a, b): (&(i64, f64), &(i64, f64))| a.0 == b.0 && (a.1 == b.1 || a.1.is_nan() && b.1.is_nan());
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(equal)
}

/// Rates stand at the later of their two points here.
fn one_step_later(rows: &[(i64, f64)]) -> Rows {
    let shifted = std::iter::once(f64::NAN).chain(rows.iter().map(|(_, value)| *value));
    rows.iter().map(|(time, _)| *time).zip(shifted).collect()
}

#[tokio::test]
async fn a_recorded_transfer_and_client_are_answered_as_recorded() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let service = service(dir.path(), recorded_at);
    let sent = exchange(&service, LIMIT, &testdata::bytes("gob/transfer_graph.c2s.bin")).await;
    let mut answered = 0;
    replies(&sent, |replies, reply| {
        assert_eq!((reply.seq, &*reply.error, reply.code(replies)), (answered, "", Ok(0)));
        answered += 1;
    });
    assert_eq!(answered, 23);
    check_what_was_taken(&service);

    let theirs = calls("client_graph.json");
    let answers = exchange(&service, LIMIT, &testdata::bytes("gob/client_graph.c2s.bin")).await;
    let mut answered = 0;
    replies(&answers, |replies, reply| {
        let call = &theirs[reply.seq as usize];
        assert_eq!(call["seq"], reply.seq);
        assert_eq!(&*reply.method, text(call, "method"));
        compare(replies, reply, call);
        answered += 1;
    });
    assert_eq!(answered, theirs.len());
    // Tags that are none are not the series without tags, which is still there.
    let m_neg = service.engine.store().find("gob-host-01", "m.neg").expect("readable");
    assert!(m_neg.is_some());
}

/// Checks that all 116 items are in the store but those that no store should keep.
fn check_what_was_taken(service: &GraphService) {
    let refused = |item: &Value| {
        let value = number(&item["Value"]);
        let time = integer(item, "Timestamp");
        !value.is_finite() || time <= 0 || time > RECORDED_AT + 300 || item["Tags"]["q"].is_string()
    };
    let sends = calls("transfer_graph.json");
    let items: Vec<&Value> = sends.iter().flat_map(|call| call["args"].as_array().expect("items")).collect();
    assert_eq!(items.len(), 116);
    let (bad, good): (Vec<&Value>, Vec<&Value>) = items.iter().partition(|item| refused(item));
    // ts.old, ts.y2038, v.inf, v.ninf, v.nan, u.quote.
    assert_eq!(bad.len(), 6);
    let series: HashSet<String> =
        good.iter().map(|item| format!("{}{}{}", item["Endpoint"], item["Metric"], item["Tags"])).collect();
    let stats = service.engine.store().stats();
    assert_eq!((stats.series, stats.points_total), (series.len(), good.len() as u64));
    assert_eq!(service.metrics.items.get(), 116);
}

fn compare(replies: &Replies, reply: &Reply<'_>, call: &Value) {
    let (method, args, theirs) = (text(call, "method"), &call["args"], &call["response"]["reply"]);
    match method {
        // There are no files; the texts say what to do.
        "Graph.GetRrd" => assert_eq!(&*reply.error, GET_RRD),
        _ => assert_eq!(&*reply.error, text(&call["response"], "error")),
    }
    if !reply.error.is_empty() {
        return;
    }
    // Two series were deleted, and are gone; the original goes on to name and to answer them.
    let deleted = reply.seq > 38 && ["t.one/k=v", "m.one"].contains(&args["Counter"].as_str().unwrap_or_default());
    match method {
        "Graph.Query" => {
            let mut rows = Rows::new();
            let head = reply.graph_query(replies, &mut |time, value| rows.push((time, value))).expect("a reply");
            assert_eq!((&*head.endpoint, &*head.counter), (text(args, "Endpoint"), text(args, "Counter")));
            if deleted {
                return assert_eq!((&*head.ds_type, head.step, rows.len()), ("", 0, 0));
            }
            assert_eq!((&*head.ds_type, head.step), (text(theirs, "DsType"), integer(theirs, "Step")));
            let recorded = recorded_rows(theirs);
            if head.ds_type == "DERIVE" {
                assert!(same(&rows, &one_step_later(&recorded)), "{call}: {rows:?}");
            } else if recorded.is_empty() && !rows.is_empty() {
                // Before the series' first point, where the original has no file yet: rows of nothing.
                assert!(rows.iter().all(|(time, value)| time % 300 == 0 && value.is_nan()), "{rows:?}");
                assert_eq!(reply.seq, 7);
            } else {
                assert!(same(&rows, &recorded), "{call}: {rows:?}");
            }
        }
        "Graph.Info" => {
            let info = reply.graph_info(replies).expect("a reply");
            assert_eq!((&*info.ds_type, info.step), (text(theirs, "ConsolFun"), integer(theirs, "Step")));
            assert_eq!(&*info.filename, text(theirs, "Filename").trim_start_matches("./data/6070/"));
        }
        "Graph.Last" | "Graph.LastRaw" => {
            let last = reply.graph_last(replies).expect("a reply");
            assert_eq!((&*last.endpoint, &*last.counter), (text(args, "Endpoint"), text(args, "Counter")));
            let value = number(&theirs["Value"]["Value"]);
            // What is not finite is not taken, so there is none.
            let unknown = deleted || !value.is_finite();
            let expected = if unknown { (0, 0.0) } else { (integer(&theirs["Value"], "Timestamp"), value) };
            assert_eq!((last.timestamp, last.value), expected, "{call}");
        }
        "Graph.Ping" => assert_eq!(reply.code(replies), Ok(0)),
        "Graph.Delete" => {}
        method => panic!("{method} was not an error"),
    }
}

/// One call, and what `read` makes of its reply.
async fn call<T>(
    service: &GraphService,
    write: impl FnOnce(&mut Requests, &mut Vec<u8>),
    mut read: impl FnMut(&Replies, &Reply<'_>) -> T,
) -> T {
    let mut request = Vec::new();
    write(&mut Requests::new(), &mut request);
    let answer = exchange(service, LIMIT, &request).await;
    let mut result = None;
    replies(&answer, |replies, reply| result = Some(read(replies, reply)));
    result.expect("an answer")
}

fn item<'i>(metric: &'i str, tags: &'i str, ds_type: &'i str, step: i64, timestamp: i64, value: f64) -> GraphItem<'i> {
    let heartbeat = 2 * step;
    GraphItem { endpoint: "h", metric, tags, value, timestamp, ds_type, step, heartbeat, min: "U", max: "U" }
}

async fn send(service: &GraphService, items: &[GraphItem<'_>]) -> String {
    call(
        service,
        |requests, out| requests.graph_send(out, 0, items.iter().copied()),
        |_, reply| reply.error.to_string(),
    )
    .await
}

#[tokio::test]
async fn items_are_checked_one_by_one() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let service = service(dir.path(), recorded_at);
    let (now, long) = (RECORDED_AT / 60 * 60, "x".repeat(600));
    let items = [
        item("good", "a=1", "GAUGE", 60, now, 1.0),
        item("good", "a=1", "GAUGE", 60, now - 60, 2.0),
        item("step.0", "", "GAUGE", 0, now, 1.0),
        item("step.negative", "", "GAUGE", -60, now, 1.0),
        item("step.huge", "", "GAUGE", 1 << 40, now, 1.0),
        item("type", "", "RATE", 60, now, 1.0),
        item("type.empty", "", "", 60, now, 1.0),
        item("time.0", "", "GAUGE", 60, 0, 1.0),
        item("time.negative", "", "GAUGE", 60, -60, 1.0),
        item("future", "", "GAUGE", 60, now + 3600, 1.0),
        item("nan", "", "GAUGE", 60, now, f64::NAN),
        item("infinite", "", "DERIVE", 60, now, f64::INFINITY),
        item(&long, "", "GAUGE", 60, now, 1.0),
        item("", "", "GAUGE", 60, now, 1.0),
        item("quote'", "", "GAUGE", 60, now, 1.0),
        item("line\n", "", "GAUGE", 60, now, 1.0),
        item("tag", "a=x>y", "GAUGE", 60, now, 1.0),
        // Not aligned: it is, here. A step below transfer's usual 30 s is the other side's business.
        item("step.1", "", "DERIVE", 1, now + 1, 5.0),
        item("step.10", "", "GAUGE", 10, now + 7, 5.0),
    ];
    assert_eq!(send(&service, &items).await, "");
    let store = service.engine.store();
    let mut kept = Vec::new();
    store.for_each_series(&mut |id, key, counter_type, step| {
        kept.push((id, key.counter(), counter_type.as_str(), step))
    });
    let names: Vec<_> = kept.iter().map(|(_, counter, ds_type, step)| (counter.as_str(), *ds_type, *step)).collect();
    assert_eq!(names, [("good/a=1", "GAUGE", 60), ("step.1", "DERIVE", 1), ("step.10", "GAUGE", 10)]);
    let last = |index: usize| {
        let found = store.find("h", &kept[index].1).expect("readable")?;
        assert_eq!(found.id, kept[index].0);
        store.last_raw(found).map(|point| (point.time, point.value))
    };
    assert_eq!(last(0), Some((now, 1.0)));
    assert_eq!(last(1), Some((now + 1, 5.0)));
    assert_eq!(last(2), Some((now, 5.0)));
}

/// A transfer calls a COUNTER a DERIVE; points of both doors are of one series whose type stays.
#[tokio::test]
async fn both_doors_fill_one_series() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let service = service(dir.path(), recorded_at);
    let time = RECORDED_AT / 60 * 60 - 60;
    let json = format!(
        r#"[{{"endpoint":"h","metric":"c","tags":"b=2,a=1","value":10,"step":60,"counterType":"COUNTER","timestamp":{time}}}]"#
    );
    let mut batch = service.ingest.begin(Door::Http, crate::clock::now());
    batch.push_json(json.as_bytes()).expect("JSON");
    batch.finish().expect("kept");
    assert_eq!(send(&service, &[item("c", "a=1,b=2", "DERIVE", 60, time + 60, 70.0)]).await, "");
    let store = service.engine.store();
    let found = || store.find("h", "c/a=1,b=2").expect("readable").expect("known");
    assert_eq!(found().counter_type.as_str(), "COUNTER");
    assert_eq!(store.last(found()).map(|point| (point.time, point.value)), Some((time + 60, 1.0)));
    // A gauge is something else, and the later word counts.
    assert_eq!(send(&service, &[item("c", "a=1,b=2", "GAUGE", 60, time + 120, 5.0)]).await, "");
    assert_eq!(found().counter_type.as_str(), "GAUGE");
}

/// A parameter that does not fit its method is the call's error, as in Go, and the next call is answered.
#[tokio::test]
async fn wrong_arguments_are_the_calls_error() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let service = service(dir.path(), recorded_at);
    let (mut requests, mut out) = (Requests::new(), Vec::new());
    requests.text(&mut out, "Graph.Send", 0, "not a list");
    requests.text(&mut out, "Graph.Query", 1, "not a query");
    requests.text(&mut out, "Graph.Delete", 2, "not a list");
    requests.ping(&mut out, "nonsense", 3);
    requests.ping(&mut out, "Judge.Send", 4);
    requests.ping(&mut out, "Graph.Ping", 5);
    let mut errors = Vec::new();
    replies(&exchange(&service, LIMIT, &out).await, |_, reply| errors.push((reply.seq, reply.error.to_string())));
    assert_eq!(errors.len(), 6);
    for (seq, part) in [
        (0, "invalid gob"),
        (1, "invalid gob"),
        (2, "invalid gob"),
        (3, "ill-formed"),
        (4, "can't find service Judge.Send"),
    ] {
        assert!(errors[seq].1.contains(part), "{errors:?}");
    }
    assert_eq!(errors[5], (5, String::new()));
}

/// Go's client counts its calls, so the reason reaches the call that was too long.
#[tokio::test]
async fn broken_bytes_close_with_an_answer() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let service = service(dir.path(), recorded_at);
    let now = RECORDED_AT / 60 * 60;
    let (mut requests, mut out) = (Requests::new(), Vec::new());
    requests.ping(&mut out, "Graph.Ping", 0);
    let many = vec![item("m", "", "GAUGE", 60, now, 1.0); 100_000];
    requests.graph_send(&mut out, 1, many.iter().copied());
    assert!(out.len() > LIMIT);
    let mut errors = Vec::new();
    replies(&exchange(&service, LIMIT, &out).await, |_, reply| errors.push((reply.seq, reply.error.to_string())));
    assert_eq!(errors[0], (0, String::new()));
    assert_eq!(errors[1].0, 1);
    assert!(errors[1].1.contains("send smaller batches"), "{errors:?}");
    assert_eq!(service.engine.store().stats().series, 0);
}

#[tokio::test]
async fn an_answer_has_a_bound() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let service = service(dir.path(), recorded_at);
    let now = RECORDED_AT / 60 * 60;
    assert_eq!(send(&service, &[item("m", "", "GAUGE", 1, now, 1.0)]).await, "");
    let ask = async |start: i64, end: i64, cf: &'static str| {
        let (endpoint, counter) = ("h".into(), "m".into());
        let query = GraphQuery { start, end, consol_fun: cf.into(), endpoint, counter, step: 0 };
        let read = |replies: &Replies, reply: &Reply<'_>| {
            let mut rows = 0;
            if reply.error.is_empty() {
                reply.graph_query(replies, &mut |_, _| rows += 1).expect("a reply");
            }
            (rows, reply.error.to_string())
        };
        call(&service, |requests, out| requests.graph_query(out, 0, &query), read).await
    };
    let (_, error) = ask(now, i64::MAX, "AVERAGE").await;
    assert!(error.contains("more than 50000") && error.contains("shorter"), "{error}");
    assert_eq!(ask(now, now + 40_000, "AVERAGE").await, (40_002, String::new()));
    assert_eq!(ask(i64::MAX, i64::MIN, "AVERAGE").await, (0, String::new()));
    assert_eq!(ask(i64::MIN, now, "no such").await, (0, String::new()));
}

/// Type and step must be those of the series; endpoint by endpoint the rest stays.
#[tokio::test]
async fn only_what_was_named_is_deleted() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let service = service(dir.path(), recorded_at);
    let now = RECORDED_AT / 60 * 60;
    let items = ["a", "b", "c", "d"].map(|metric| item(metric, "k=v", "DERIVE", 60, now, 1.0));
    assert_eq!(send(&service, &items).await, "");
    let named = |metric: &'static str, ds_type: &'static str, step, tags: &'static str| GraphDelete {
        endpoint: "h".into(),
        metric: metric.into(),
        step,
        ds_type: ds_type.into(),
        tags: tags.into(),
    };
    let list = [
        named("a", "GAUGE", 60, "k=v"),
        named("b", "DERIVE", 30, "k=v"),
        named("c", "DERIVE", 60, ""),
        named("d", "DERIVE", 60, " k = v"),
        named("e", "DERIVE", 60, "k=v"),
    ];
    let delete = |requests: &mut Requests, out: &mut Vec<u8>| requests.graph_delete(out, 0, &list);
    assert_eq!(call(&service, delete, |_, reply| reply.error.to_string()).await, "");
    let known = ["a/k=v", "b/k=v", "c/k=v", "d/k=v"]
        .map(|counter| service.engine.store().find("h", counter).expect("readable").is_some());
    assert_eq!(known, [true, true, true, false]);
}

static VECTOR_NOW: AtomicI64 = AtomicI64::new(0);

fn vector_now() -> i64 {
    VECTOR_NOW.load(Ordering::Relaxed)
}

/// Recorded queries whose answers are rows of the same points as here: no holes, no resets, nothing rewritten.
const PLAIN: [&str; 9] =
    ["g.full", "g.cacheonly", "g.300/t=5m", "g.30", "g.3600", "g.in23h", "g.late26h", "c.full/iface=eth0", "no.such"];

/// Queries recorded from the original, asked through the door.
#[tokio::test]
async fn rows_are_the_originals() {
    let vectors: Vec<Value> = testdata::gunzip("graph/queries.jsonl.gz")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|vector| vector["variant"] == "start80h")
        .collect();
    VECTOR_NOW.store(integer(&vectors[0], "now"), Ordering::Relaxed);
    let dir = tempfile::tempdir().expect("temporary directory");
    let service = service(dir.path(), vector_now);
    let series: Vec<Value> = serde_json::from_slice(&testdata::bytes("graph/series_start80h.json")).expect("JSON");
    let mut fed: BTreeMap<(usize, i64), f64> = BTreeMap::new();
    for line in testdata::gunzip("graph/feed_start80h.csv.gz").lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let at = (fields[0].parse().expect("a number"), fields[1].parse().expect("a time"));
        fed.entry(at).or_insert(fields[2].parse().expect("a value"));
    }
    let items: Vec<GraphItem<'_>> = fed
        .iter()
        .map(|((index, time), value)| {
            let series = &series[*index];
            let (metric, tags) = model::series::split_counter(text(series, "counter"));
            let endpoint = text(series, "endpoint");
            GraphItem { endpoint, ..item(metric, tags, text(series, "dstype"), integer(series, "step"), *time, *value) }
        })
        .collect();
    for batch in items.chunks(5000) {
        assert_eq!(send(&service, batch).await, "");
    }
    let (mut compared, mut rows_equal) = (0, 0);
    for vector in &vectors {
        let counter = text(&vector["request"], "counter");
        if PLAIN.contains(&counter) {
            VECTOR_NOW.store(integer(vector, "now"), Ordering::Relaxed);
            compared += 1;
            let index = series.iter().position(|series| text(series, "counter") == counter);
            let times = index.map(|index| fed.range((index, 0)..(index + 1, 0)).map(|((_, time), _)| *time).collect());
            rows_equal += compare_vector(&service, vector, &times.unwrap_or_default()).await;
        }
    }
    println!("{compared} calls, {rows_equal} rows");
    assert!(compared > 40 && rows_equal > 2500, "{compared} calls, {rows_equal} rows");
}

/// Answers how many rows have the recorded value. `fed` are the times of the series' points.
async fn compare_vector(service: &GraphService, vector: &Value, fed: &BTreeSet<i64>) -> usize {
    let (request, response) = (&vector["request"], &vector["response"]);
    let series = GraphSeries { endpoint: text(request, "endpoint").into(), counter: text(request, "counter").into() };
    let kind = text(vector, "kind");
    if kind == "Info" {
        let read = |replies: &Replies, reply: &Reply<'_>| {
            let info = reply.graph_info(replies).expect("a reply");
            assert_eq!((&*info.ds_type, info.step), (text(response, "ConsolFun"), integer(response, "Step")));
            assert!(text(response, "Filename").ends_with(&*info.filename), "{vector}");
        };
        call(service, |requests, out| requests.graph_info(out, 0, &series), read).await;
        return 0;
    }
    if kind != "Query" {
        let method = if kind == "Last" { "Graph.Last" } else { "Graph.LastRaw" };
        let read = |replies: &Replies, reply: &Reply<'_>| {
            let last = reply.graph_last(replies).expect("a reply");
            (last.timestamp, last.value)
        };
        let ours = call(service, |requests, out| requests.graph_last(out, method, 0, &series), read).await;
        let theirs = (response["value"][0].as_i64().expect("a time"), number(&response["value"][1]));
        // Of a counter whose points are all in the file the original has no neighbours for a rate.
        assert!(ours == theirs || theirs == (0, 0.0), "{vector}: {ours:?}");
        return 0;
    }
    let (start, end) = (integer(request, "start"), integer(request, "end"));
    let (consol_fun, GraphSeries { endpoint, counter }) = (text(request, "consolFun").into(), series);
    let query = GraphQuery { start, end, consol_fun, endpoint, counter, step: 0 };
    let mut ours = Rows::new();
    let head = call(
        service,
        |requests, out| requests.graph_query(out, 0, &query),
        |replies, reply| {
            let head = reply.graph_query(replies, &mut |time, value| ours.push((time, value))).expect("a reply");
            (head.ds_type.to_string(), head.step)
        },
    )
    .await;
    assert_eq!((head.0.as_str(), head.1), (text(response, "dstype"), integer(response, "step")));
    let theirs: Vec<(i64, Option<f64>)> = response["values"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (row[0].as_i64().expect("a time"), row[1].as_f64()))
        .collect();
    let path = text(vector, "path");
    match path {
        "unknown_series" | "empty_range" => assert!(ours.is_empty() && theirs.is_empty(), "{vector}: {ours:?}"),
        "merge" | "bad_cf" | "merge_minmax" => {
            let ours: Vec<i64> = ours.iter().map(|(time, _)| *time).collect();
            let theirs: Vec<i64> = theirs.iter().map(|(time, _)| *time).collect();
            assert_eq!(ours, theirs, "{request}");
        }
        "archive" => {}
        _ => return 0,
    }
    // The original's rates of unflushed points stand one step early, and it drops most points from MAX and MIN of them.
    if path == "merge_minmax" || head.0 == "DERIVE" && path != "archive" {
        return 0;
    }
    let ours: BTreeMap<i64, f64> = ours.into_iter().collect();
    let row = theirs.windows(2).map(|pair| pair[1].0 - pair[0].0).next().unwrap_or(head.1);
    let our_row = ours.keys().zip(ours.keys().skip(1)).map(|(a, b)| b - a).next();
    // The original takes an archive's reach from its last write to the file, up to 30 minutes ago; we from now.
    if path == "archive" && our_row != Some(row) {
        return 0;
    }
    let mut equal = 0;
    for (time, theirs) in theirs.into_iter().filter(|(time, _)| (start..=end).contains(time)) {
        let Some(theirs) = theirs else { continue };
        // At the ends of a series rrdtool makes rows of values that it does not have.
        let first = time - row + if head.0 == "GAUGE" { head.1 } else { 0 };
        if (fed.range(first..=time).count() as i64) < (time - first) / head.1 + 1 {
            continue;
        }
        let ours = *ours.get(&time).unwrap_or_else(|| panic!("no row at {time}: {request}"));
        // Rows of several steps that reach into the unflushed points are whole only here.
        let whole = time <= integer(vector, "ref") - 1800 || path != "archive";
        assert!(
            !whole || (ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0),
            "at {time}: {ours}, {theirs}: {request}"
        );
        equal += usize::from(whole);
    }
    equal
}
