//! The recorded connections of the original, over a socket, against this service with a clock of the recording's time;
//! and what a start puts back.

use super::*;
use crate::engine::Engine;
use crate::engine::windowed::{Options, Windowed};
use axum::body::Body;
use axum::http::Request;
use events::{Entry, EventQueue, Fsync};
use metrics::Metrics;
use model::{CounterType, Expression, Rules, SeriesKey, Strategy, Tags};
use net::gob::testing::exchange;
use std::collections::HashMap;
use tower::ServiceExt;
use wire::gob::JudgeItem;
use wire::gob::client::{Replies, Requests};

/// Two seconds after the newest recorded `Judge.Send`.
const RECORDED_AT: i64 = 1_795_376_725;
const NOW: i64 = 1_700_000_040;
const LIMIT: usize = 1 << 20;

fn recorded_at() -> i64 {
    RECORDED_AT
}

struct World {
    dir: tempfile::TempDir,
    queue: Arc<EventQueue>,
    windowed: Arc<Windowed>,
}

fn start(dir: tempfile::TempDir, rules: &Rules, judge: judge::Options, series_max: usize) -> World {
    let (queue, recovered) = EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue");
    let queue = Arc::new(queue);
    let options = Options { judge, series_max, future_max_s: 300, silent_after_s: 7 * 86_400, queue_waits: false };
    let windowed = Arc::new(Windowed::new(options, queue.clone(), &Metrics::new()));
    assert!(windowed.load(Arc::new(rules.clone()), &gone).is_empty());
    let kept = kept::read(dir.path());
    let restored = windowed.restore(kept.as_deref(), &recovered.open_problems, &gone);
    assert_eq!(restored.damage, None);
    World { dir, queue, windowed }
}

fn gone(_: judge::RuleId, _: model::SeriesKey<'_>) -> String {
    "gone".to_string()
}

impl World {
    fn new(rules: &Rules) -> World {
        start(tempfile::tempdir().expect("a directory"), rules, judge::Options::default(), 1000)
    }

    /// Ends it as a signal does, or as `kill -9`, and starts it again.
    fn restart(self, rules: &Rules, orderly: bool) -> World {
        if orderly {
            kept::write(self.dir.path(), &self.windowed).expect("room");
        }
        let World { dir, queue, windowed } = self;
        drop((queue, windowed));
        start(dir, rules, judge::Options::default(), 1000)
    }

    /// A `Judge.Send` of one item per metric of `h`.
    fn send(&self, time: i64, values: &[(&str, f64)]) {
        let mut batch = self.windowed.begin(time);
        for (metric, value) in values {
            let (endpoint, judge_type, tags) = ("h", "GAUGE", "");
            batch.push(&JudgeItem { endpoint, metric, value: *value, timestamp: time, judge_type, tags });
        }
        batch.finish().expect("room");
    }

    /// Content of the queue: status, time and counter of each event, and the closings.
    fn told(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.queue.consumer(0).read(usize::MAX / 2, &mut out).expect("readable");
        let text = |queued: events::Record| match queued.entry {
            Entry::Event(event) => {
                let closed = event.explanation.as_ref().map_or("", |explanation| &explanation.closed);
                format!("{} {} {} {closed}", event.status.as_str(), event.time - NOW, event.key().counter())
                    .trim_end()
                    .to_string()
            }
            other => format!("{other:?}"),
        };
        out.into_iter().map(text).collect()
    }
}

fn strategy(id: i64, metric: &str, func: &str) -> Arc<Strategy> {
    let (metric, func, operator) = (metric.to_string(), func.to_string(), ">".to_string());
    Arc::new(Strategy { id, metric, func, operator, right_value: 5.0, max_step: 1, ..Strategy::default() })
}

fn rules(of_h: &[Arc<Strategy>]) -> Rules {
    Rules { version: 1, hosts: HashMap::from([("h".to_string(), of_h.into())]), expressions: Vec::new() }
}

fn recorded(name: &str) -> Vec<u8> {
    testdata::bytes(&format!("gob/{name}"))
}

/// Expressions on the recorded host's series.
fn recorded_rules() -> Rules {
    let expression = |(id, metric, tags): (i64, &str, &[(&str, &str)])| {
        let tags = tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let (metric, func, operator) = (metric.to_string(), "all(#1)".to_string(), "<".to_string());
        let expression =
            Expression { id, metric, tags, func, operator, right_value: 2.0, max_step: 1, ..Expression::default() };
        Arc::new(expression)
    };
    let expressions = [
        (1, "cpu.idle", &[("endpoint", "golden-host-01")][..]),
        (2, "net.port.listen", &[("port", "22")]),
        (3, "m.one", &[("endpoint", "gob-host-01")]),
    ];
    Rules { version: 1, hosts: HashMap::new(), expressions: expressions.map(expression).into() }
}

#[tokio::test]
async fn recorded_connections_are_answered_byte_for_byte_and_judged() {
    let world = World::new(&recorded_rules());
    let service = JudgeService { now: recorded_at, ..JudgeService::new(world.windowed.clone()) };
    for name in ["transfer_judge", "client_judge"] {
        let answers = exchange(&service, LIMIT, &recorded(&format!("{name}.c2s.bin"))).await;
        assert_eq!(answers, recorded(&format!("{name}.s2c.bin")), "{name}");
    }
    let mut told = world.told();
    told.iter_mut().for_each(|event| event.retain(|c| !c.is_ascii_digit()));
    told.sort();
    let expected = ["PROBLEM  cpu.idle", "PROBLEM  m.one", "PROBLEM  net.port.listen/port="];
    assert_eq!(told, expected);
    assert_eq!(world.windowed.series(), 3, "of some twenty");
}

#[tokio::test]
async fn what_is_no_item_is_the_error_of_its_call() {
    let world = World::new(&recorded_rules());
    let service = JudgeService::new(world.windowed.clone());
    let (mut requests, mut stream) = (Requests::new(), Vec::new());
    requests.ping(&mut stream, "Judge.Ping", 0);
    requests.ping(&mut stream, "Graph.Ping", 1);
    requests.ping(&mut stream, "Judge.Send", 2);
    requests.ping(&mut stream, "Judge.Ping", 3);
    let answers = exchange(&service, LIMIT, &stream).await;
    let (mut replies, mut rest, mut errors) = (Replies::new(LIMIT), &answers[..], Vec::new());
    while let Some((consumed, reply)) = replies.next(rest).expect("own gob") {
        errors.push(reply.error.to_string());
        rest = &rest[consumed..];
    }
    assert_eq!(errors[..2], ["", "rpc: can't find service Graph.Ping"]);
    assert!(errors[2].contains("want a slice of structs"), "{errors:?}");
    assert_eq!(errors[3], "");
}

#[test]
fn a_restart_repeats_no_problem_and_misses_no_recovery() {
    let all = rules(&[strategy(1, "m", "all(#1)"), strategy(2, "n", "all(#3)"), strategy(3, "gone", "all(#1)")]);
    for orderly in [true, false] {
        let world = World::new(&all);
        (0..3).for_each(|minute| world.send(NOW + minute * 60, &[("m", 9.0), ("n", 9.0), ("gone", 9.0)]));
        let problems = ["PROBLEM 0 m", "PROBLEM 0 gone", "PROBLEM 120 n"];
        assert_eq!(world.told(), problems);
        let fewer = rules(&[strategy(1, "m", "all(#1)"), strategy(2, "n", "all(#3)")]);
        let world = world.restart(&fewer, orderly);
        let closed = &world.told()[3..];
        assert!(closed.len() == 1 && closed[0].starts_with("OK ") && closed[0].ends_with(" gone gone"), "{closed:?}");
        world.send(NOW + 180, &[("m", 9.0), ("n", 9.0)]);
        assert_eq!(world.told().len(), 4, "nothing is told again: {:?}", world.told());
        let world = world.restart(&fewer, orderly);
        world.send(NOW + 240, &[("m", 1.0), ("n", 1.0)]);
        // Without its window `all(#3)` says nothing yet, and nothing is forgotten.
        (5..8).for_each(|minute| world.send(NOW + minute * 60, &[("m", 1.0), ("n", 1.0)]));
        let recovered = if orderly { "OK 240 n" } else { "OK 360 n" };
        assert_eq!(world.told()[4..], ["OK 240 m", recovered], "orderly: {orderly}");
        assert_eq!(world.queue.stats().open_problems, 0);
    }
}

#[test]
fn a_broken_file_of_windows_is_no_reason_not_to_start() {
    let all = rules(&[strategy(1, "m", "all(#3)")]);
    let world = World::new(&all);
    (0..3).for_each(|minute| world.send(NOW + minute * 60, &[("m", 9.0)]));
    let mut whole = Vec::new();
    world.windowed.write(&mut whole).expect("memory");
    for damaged in [&b"something else"[..], &whole[..whole.len() - 3], b""] {
        let fresh = World::new(&all);
        let restored = fresh.windowed.restore(Some(damaged), &[], &gone);
        assert!(restored.damage.is_some(), "{restored:?}");
        fresh.send(NOW + 180, &[("m", 9.0)]);
    }
    let fresh = World::new(&all);
    let restored = fresh.windowed.restore(Some(&whole), &[], &gone);
    assert_eq!((restored.series, restored.damage), (1, None));
    fresh.send(NOW + 180, &[("m", 9.0)]);
    assert_eq!(fresh.told(), ["PROBLEM 180 m"], "the window was warm");
}

#[test]
fn series_that_are_too_many_items_of_the_future_and_long_texts_are_refused_one_by_one() {
    let expression = Expression {
        metric: "m".into(),
        tags: [("a".to_string(), "1".to_string())].into_iter().collect(),
        func: "all(#1)".into(),
        operator: ">".into(),
        right_value: 5.0,
        max_step: 1,
        ..Expression::default()
    };
    let all = Rules { version: 1, hosts: HashMap::new(), expressions: vec![Arc::new(expression)] };
    let world = start(tempfile::tempdir().expect("a directory"), &all, judge::Options::default(), 2);
    let long = "h".repeat(256);
    let send = |endpoint: &str, time: i64| {
        let (metric, value, judge_type, tags) = ("m", 9.0, "GAUGE", "a=1");
        let item = JudgeItem { endpoint, metric, value, timestamp: time, judge_type, tags };
        let mut batch = world.windowed.begin(NOW);
        batch.push(&item);
        batch.finish().expect("room");
        world.told().len()
    };
    assert_eq!(send("a", NOW + 301), 0);
    assert_eq!(send("a", 0), 0);
    assert_eq!(send(&long, NOW), 0);
    assert_eq!(send("a", NOW + 300), 1);
    assert_eq!(send("b", NOW), 2);
    assert_eq!(send("c", NOW), 2, "one too many");
    assert_eq!(send("b", NOW), 2, "not newer");
    assert_eq!(world.windowed.leave_silent(NOW + 7 * 86_400), 0);
    assert_eq!(world.windowed.leave_silent(NOW + 7 * 86_400 + 1), 1);
    let told = world.told();
    assert!(told[2].ends_with("the series has been silent for too long (judge.silent_after)"), "{told:?}");
    world.windowed.hold_to(100, 95);
    assert_eq!(send("c", NOW), 3, "no memory for another");
    world.windowed.hold_to(100, 94);
    assert_eq!(send("c", NOW), 3, "nor a little below");
    world.windowed.hold_to(100, 92);
    assert_eq!(send("c", NOW), 4);
}

/// Items that come twice, to a graph and a judge of one whole server, are kept and judged once.
#[tokio::test]
async fn a_whole_server_takes_the_items_of_both_doors() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = store::Options { dir: dir.path().join("store"), shard_count: 2, ..store::Options::default() };
    let (store, _) = store::Store::open(options, NOW).expect("a store");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let engine = Arc::new(Engine::new(store, 2, judge::Options::default(), Some(queue.clone())));
    engine.load(&rules(&[strategy(1, "m", "all(#1)")]), &gone);
    let pressure = Arc::new(crate::engine::pressure::Pressure::new(u64::MAX, 0));
    let ingest = Arc::new(Ingest::new(engine.clone(), pressure, 30, 300, &Metrics::new()));
    let service = JudgeService { now: || NOW + 2, ..JudgeService::into_store(ingest.clone()) };
    let item = |metric, time| JudgeItem {
        endpoint: "h",
        metric,
        value: 9.0,
        timestamp: time,
        judge_type: "COUNTER",
        tags: "",
    };
    let (mut requests, mut stream) = (Requests::new(), Vec::new());
    requests.judge_send(&mut stream, 0, [item("m", NOW - 60), item("m", NOW), item("alone", NOW - 30)].into_iter());
    let answers = exchange(&service, LIMIT, &stream).await;
    let (_, reply) = Replies::new(LIMIT)
        .next(&answers)
        .expect("gob")
        .map(|(n, reply)| (n, reply.error.to_string()))
        .expect("a reply");
    assert_eq!(reply, "");
    let (endpoint, metric, ds_type, step) = ("h", "m", "DERIVE", 60);
    let item =
        wire::gob::GraphItem { endpoint, metric, value: 9.0, timestamp: NOW, ds_type, step, ..Default::default() };
    let mut batch = ingest.begin(Door::Graph, NOW + 2);
    batch.push_aligned(&item);
    let received = batch.finish().expect("room");
    assert_eq!((received.total, received.invalid), (1, 0));
    let found =
        |metric| engine.finder().find(SeriesKey { endpoint: "h", metric, tags: Tags::EMPTY }).expect("a series");
    assert_eq!((found("m").counter_type, found("m").step), (CounterType::Derive, 60));
    assert_eq!((found("alone").counter_type, found("alone").step), (CounterType::Counter, 30), "nobody told its step");
    let stats = engine.store().stats();
    assert_eq!((stats.points_total, stats.duplicates), (3, 1));
}

#[tokio::test]
async fn old_routes_answer() {
    let expression = Expression {
        id: 7,
        metric: "m".into(),
        tags: [("a".to_string(), "1".to_string())].into_iter().collect(),
        func: "all(#1)".into(),
        operator: ">".into(),
        max_step: 1,
        ..Expression::default()
    };
    let mut all = rules(&[strategy(1, "m", "all(#1)")]);
    all.expressions.push(Arc::new(expression));
    let world = World::new(&all);
    world.send(NOW, &[("m", 1.5), ("without", 1.0)]);
    world.send(NOW + 60, &[("m", 2.0)]);
    let router = http::router(world.windowed.clone(), world.dir.path().to_path_buf());
    let page = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("an answer");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        String::from_utf8(body.to_vec()).expect("a text")
    };
    assert_eq!(page("/health").await, "ok");
    assert_eq!(page("/version").await, env!("CARGO_PKG_VERSION"));
    assert_eq!(page("/count").await, "total: 1\n");
    let (one, two) = (crate::clock::local_text(NOW), crate::clock::local_text(NOW + 60));
    assert_eq!(page("/history/h/m").await, format!("{} {two} 2\n{NOW} {one} 1.5\n", NOW + 60));
    for path in ["/history/h/without", "/history/h", "/history/x/m", "/history/h/m/a=1"] {
        assert_eq!(page(path).await, "not found\n", "{path}");
    }
    let strategies = page("/strategy/h/m").await;
    assert!(strategies.starts_with("{\"msg\":\"success\",\"data\":[{\"id\":1,\"metric\":\"m\","), "{strategies}");
    assert_eq!(page("/strategy/h/n").await, "{\"msg\":\"success\",\"data\":null}");
    let expressions = page("/expression/m/a=1").await;
    assert!(expressions.starts_with("{\"msg\":\"success\",\"data\":[{\"id\":7,"), "{expressions}");
    assert_eq!(page("/expression/m/a=2").await, "{\"msg\":\"success\",\"data\":null}");
    assert_eq!(page("/config/reload").await, "no privilege");
}
