use super::*;
use crate::engine::oddities::Oddities;
use crate::portal::Portal;
use crate::role::hbs::HbsService;
use crate::rules::InEffect;
use crate::rules::snapshot::Snapshot;
use crate::watch::health::Health;
use model::{Expression, Strategy};
use net::patience::in_time;
use net::rpc::Service;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use tokio::net::{TcpListener, TcpStream};
use wire::{Framer, Scratch};

/// Behaviour of a fake hbs towards one request.
enum Act {
    /// Sends this, which may be less than an answer, and waits for the next request.
    Say(Vec<u8>),
    /// Sends this and closes.
    Cut(Vec<u8>),
}

/// Asked with the request's method and id, and how many connections there were before.
type Script = Box<dyn FnMut(&str, u64, usize) -> Act + Send>;

/// An hbs on a free port that follows a script; ends with the test's runtime.
async fn fake(script: impl FnMut(&str, u64, usize) -> Act + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(serve(stream, number, script.clone()));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, number: usize, script: Arc<Mutex<Script>>) {
    while let Some(message) = next_request(&mut stream).await {
        let mut scratch = Scratch::new();
        let request = jsonrpc::request(&message, &mut scratch).expect("a request");
        assert_eq!(request.param, Some(&b"{}"[..]), "the original's parameter");
        let id = std::str::from_utf8(request.id).expect("a number").parse().expect("a number");
        let act = script.lock().expect("no panic in a script")(request.method, id, number);
        let (bytes, close) = match act {
            Act::Say(bytes) => (bytes, false),
            Act::Cut(bytes) => (bytes, true),
        };
        // Odd parts, so that nothing depends on how TCP cuts.
        for part in bytes.chunks(997) {
            if stream.write_all(part).await.is_err() {
                return;
            }
        }
        if close {
            return;
        }
    }
}

/// None when the other side has closed.
async fn next_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut framer, mut input) = (Framer::new(1 << 10), Vec::new());
    loop {
        if let Some(range) = framer.scan(&input).expect("a request") {
            return Some(input[range].to_vec());
        }
        if stream.read_buf(&mut input).await.ok()? == 0 {
            return None;
        }
    }
}

fn rules(right_value: f64, hosts: &[&str]) -> Rules {
    let strategy = |id: i64| Strategy {
        id,
        metric: format!("m{id}"),
        func: "all(#3)".into(),
        operator: ">".into(),
        right_value,
        ..Strategy::default()
    };
    let list: model::rule::HostStrategies = [Arc::new(strategy(1)), Arc::new(strategy(2))].into();
    let expression = Expression { id: 7, metric: "m".into(), ..Expression::default() };
    Rules {
        version: 0,
        hosts: hosts.iter().map(|host| (host.to_string(), list.clone())).collect(),
        expressions: vec![Arc::new(expression)],
    }
}

fn same(a: &Rules, b: &Rules) -> bool {
    a.hosts == b.hosts && a.expressions == b.expressions
}

/// A whole answer to a call, as an hbs with these rules gives it.
fn answer(rules: &Rules, method: &str, id: u64) -> Vec<u8> {
    let (mut result, mut out) = (Vec::new(), Vec::new());
    match method {
        "Hbs.GetStrategies" => wire::hbs::write_strategies(&mut result, rules),
        "Hbs.GetExpressions" => wire::hbs::write_expressions(&mut result, rules),
        method => panic!("{method} is nothing that a judge asks"),
    }
    jsonrpc::write_result(&mut out, id.to_string().as_bytes(), &result);
    out
}

fn good(rules: Rules) -> impl FnMut(&str, u64, usize) -> Act + Send {
    move |method, id, _| Act::Say(answer(&rules, method, id))
}

/// Short where a test waits for it to pass.
const SILENCE: Duration = Duration::from_millis(50);

fn puller(addresses: &[&str]) -> Puller {
    let timeouts = Timeouts { connect: Duration::from_secs(10), ..Timeouts::default() };
    let addresses = addresses.iter().map(|address| address.to_string()).collect();
    Puller::new(addresses, Access::default(), timeouts, AnswerLimits::default(), Arc::default())
}

async fn changed(puller: &mut Puller) -> Arc<Rules> {
    match puller.pull().await.expect("an hbs that answers") {
        Pulled::Changed(rules) => rules,
        Pulled::Unchanged => panic!("want new rules"),
    }
}

async fn unchanged(puller: &mut Puller) {
    let pulled = puller.pull().await.expect("an hbs that answers");
    assert!(matches!(pulled, Pulled::Unchanged), "{pulled:?}");
}

async fn refused(puller: &mut Puller) -> String {
    puller.pull().await.expect_err("no hbs that answers").to_string()
}

#[tokio::test]
async fn rules_and_the_same_again_on_one_connection() {
    let versions = Arc::new(Mutex::new(rules(5.0, &["a", "b"])));
    let script = versions.clone();
    let connections = Arc::new(Mutex::new(0));
    let seen = connections.clone();
    let address = fake(move |method, id, number| {
        *seen.lock().expect("no panic") = number + 1;
        Act::Say(answer(&script.lock().expect("no panic"), method, id))
    })
    .await;
    let mut puller = puller(&[&address]);
    let first = changed(&mut puller).await;
    assert!(first.version == 1 && same(&first, &rules(5.0, &["a", "b"])));
    unchanged(&mut puller).await;
    *versions.lock().expect("no panic") = rules(6.0, &["b", "c"]);
    let second = changed(&mut puller).await;
    assert!(second.version == 2 && same(&second, &rules(6.0, &["b", "c"])));
    unchanged(&mut puller).await;
    assert_eq!(*connections.lock().expect("no panic"), 1);
    let counts = &puller.counts;
    assert_eq!((counts.pulls.get(), counts.unchanged.get(), counts.errors.get()), (4, 2, 0));
    assert_eq!((counts.hosts.load(Ordering::Relaxed), counts.left_out.load(Ordering::Relaxed)), (2, 0));
    assert!(counts.bytes.get() > 1000);
}

#[tokio::test]
async fn what_goes_wrong_leaves_the_rules() {
    let whole = rules(5.0, &["a", "b"]);
    let other = rules(6.0, &["a", "c"]);
    let all = answer(&other, "Hbs.GetStrategies", 0);
    let (half, rest) = all.split_at(all.len() / 2);
    let with_id = |id: u64| answer(&other, "Hbs.GetStrategies", id);
    let mut error = Vec::new();
    jsonrpc::write_error(&mut error, b"0", "rpc: can't find service Hbs.GetStrategies");
    let bad: Vec<(Act, &str)> = vec![
        (Act::Cut(Vec::new()), "the connection was closed before Hbs.GetStrategies was answered"),
        (Act::Cut(half.to_vec()), "the connection was closed before Hbs.GetStrategies was answered"),
        (Act::Say(Vec::new()), "no byte of Hbs.GetStrategies within 50ms"),
        (Act::Say(half.to_vec()), "no byte of Hbs.GetStrategies within 50ms"),
        (Act::Say(rest.to_vec()), "the answer is broken at byte 0"),
        (
            Act::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
            "the answer is broken at byte 0: an answer begins with {",
        ),
        (Act::Say(error), "hbs answered with an error: rpc: can't find service Hbs.GetStrategies"),
        (Act::Say(with_id(17)), "the answer has id 17, want 0"),
        (
            Act::Say([&all[..all.len() - 7], b"!!"].concat()),
            "the answer is broken at byte 845: a colon must stand here",
        ),
    ];
    for (act, expected) in bad {
        // The first connection is good, the second as written, the third good.
        let (good, mut act) = (whole.clone(), Some(act));
        let address = fake(move |method, id, number| match number {
            0 if id < 2 => Act::Say(answer(&good, method, id)),
            0 => Act::Cut(Vec::new()),
            _ => act.take().unwrap_or_else(|| Act::Say(answer(&good, method, id))),
        })
        .await;
        let mut puller = puller(&[&address]);
        let before = changed(&mut puller).await;
        let usual = puller.timeouts.silence;
        if expected.starts_with("no byte") {
            puller.timeouts.silence = SILENCE;
        }
        let text = refused(&mut puller).await;
        puller.timeouts.silence = usual;
        assert!(text.starts_with(&format!("{address}: {expected}")), "got {text:?}, want {expected:?}");
        assert!(Arc::ptr_eq(puller.known.rules(), &before));
        assert_eq!(puller.known.distinct(), 3, "nothing is kept of {expected:?}");
        unchanged(&mut puller).await;
        assert_eq!(puller.counts.errors.get(), 1);
    }
}

#[tokio::test]
async fn half_a_pull_is_none() {
    let (old, new) = (rules(5.0, &["a"]), rules(6.0, &["a"]));
    let address = fake(move |method, id, _| match id {
        0 | 1 => Act::Say(answer(&old, method, id)),
        2 => Act::Say(answer(&new, method, id)),
        _ => Act::Cut(answer(&new, method, id)[..10].to_vec()),
    })
    .await;
    let mut puller = puller(&[&address]);
    let before = changed(&mut puller).await;
    // The connection that was kept breaks; on a new one the old rules come again.
    unchanged(&mut puller).await;
    assert!(Arc::ptr_eq(puller.known.rules(), &before));
}

#[tokio::test]
async fn answers_that_drip_end() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<()>(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        // White space for ever; the socket's buffer paces it.
        while stream.write_all(b" ").await.is_ok() {}
        sender.send(()).await.expect("the test waits");
    });
    let mut puller = puller(&[&address]);
    puller.timeouts.pull = SILENCE;
    assert_eq!(refused(&mut puller).await, format!("{address}: the answers were not complete within 50ms"));
    in_time("the end of the connection", receiver.recv()).await.expect("the connection was closed");
}

#[tokio::test]
async fn addresses_in_turn_and_the_last_good_one_first() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let nobody = gone.local_addr().expect("bound").to_string();
    drop(gone);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (one, two) = (asked.clone(), asked.clone());
    let first = fake(move |method, id, number| {
        one.lock().expect("no panic").push("first");
        // Serves one pull, and nobody who comes later.
        if number == 0 && id < 2 { Act::Say(answer(&rules(5.0, &["a"]), method, id)) } else { Act::Cut(Vec::new()) }
    })
    .await;
    let second = fake(move |method, id, _| {
        two.lock().expect("no panic").push("second");
        Act::Say(answer(&rules(5.0, &["a"]), method, id))
    })
    .await;
    let mut puller = puller(&[&nobody, &first, &second]);
    changed(&mut puller).await;
    unchanged(&mut puller).await;
    unchanged(&mut puller).await;
    let asked = asked.lock().expect("no panic").clone();
    // One pull; then the connection that was kept, a new one, and the next address with two calls each.
    assert_eq!(asked, ["first", "first", "first", "first", "second", "second", "second", "second"]);
    assert_eq!(puller.counts.errors.get(), 0);
}

#[tokio::test]
async fn every_address_is_named_when_none_answers() {
    let one = fake(|_, _, _| Act::Cut(Vec::new())).await;
    let two = fake(|_, _, _| Act::Say(b"[]".to_vec())).await;
    let text = refused(&mut puller(&[&one, &two])).await;
    let expected = format!(
        "{one}: the connection was closed before Hbs.GetStrategies was answered; {two}: the answer is broken at byte 0: an \
         answer begins with {{"
    );
    assert_eq!(text, expected);
}

#[tokio::test]
async fn an_hbs_with_nothing_is_believed_later() {
    let current = Arc::new(Mutex::new(Rules::default()));
    let script = current.clone();
    let address = fake(move |method, id, _| Act::Say(answer(&script.lock().expect("no panic"), method, id))).await;
    let mut puller = puller(&[&address]);
    let say = |rules: Rules| *current.lock().expect("no panic") = rules;
    unchanged(&mut puller).await;
    assert_eq!(puller.known.rules().version, 0);
    say(rules(5.0, &["a"]));
    let before = changed(&mut puller).await;
    for nothing in [Rules::default(), Rules { expressions: vec![], ..rules(6.0, &["a"]) }, rules(6.0, &[])] {
        say(nothing);
        unchanged(&mut puller).await;
        unchanged(&mut puller).await;
        assert!(Arc::ptr_eq(puller.known.rules(), &before));
    }
    // It has come back before it was believed: the time begins anew with the next.
    say(rules(5.0, &["a"]));
    unchanged(&mut puller).await;
    assert_eq!(puller.empty_since, None);
    say(Rules::default());
    puller.timeouts.empty = Duration::ZERO;
    unchanged(&mut puller).await;
    let after = changed(&mut puller).await;
    assert!(after.hosts.is_empty() && after.expressions.is_empty() && after.version == 2);
    unchanged(&mut puller).await;
}

#[tokio::test]
async fn a_bad_strategy_is_counted_and_named_once() {
    let address = fake(|method, id, _| {
        let text = match method {
            "Hbs.GetStrategies" => {
                r#"{"hostStrategies":[{"hostname":"a","strategies":[{"id":1,"metric":"m"},{"id":2,"metric":5}]}]}"#
            }
            _ => r#"{"expressions":[{"id":7}]}"#,
        };
        let mut out = Vec::new();
        jsonrpc::write_result(&mut out, id.to_string().as_bytes(), text.as_bytes());
        Act::Say(out)
    })
    .await;
    let mut puller = puller(&[&address]);
    let rules = changed(&mut puller).await;
    assert_eq!((rules.hosts["a"].len(), rules.expressions.len()), (1, 0));
    assert_eq!(puller.counts.left_out.load(Ordering::Relaxed), 2);
    let told = puller.told.clone();
    let expected =
        ["strategy 2 of host \"a\": metric must be a text", "expression 7: metric must be a text that is not empty"];
    assert_eq!(told.named, expected);
    unchanged(&mut puller).await;
    assert_eq!(puller.told, told);
}

#[tokio::test]
async fn limits_come_from_the_caller() {
    let address = fake(good(rules(5.0, &["a", "b"]))).await;
    let mut puller = puller(&[&address]);
    puller.known = KnownRules::new(AnswerLimits { hosts: 1, ..AnswerLimits::default() });
    assert_eq!(refused(&mut puller).await, format!("{address}: the answer has more hosts than allowed (1)"));
}

/// Recorded from the original hbs: 15 pulls on one connection.
#[tokio::test]
async fn the_originals_answers() {
    let stream = testdata::bytes("jsonrpc/judge_hbs.s2c.bin");
    let lines = testdata::text("jsonrpc/judge_hbs.jsonl");
    let calls: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("a call")).collect();
    let mut answers = stream.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter();
    let address = fake(move |method, id, number| {
        assert_eq!((number, calls[id as usize]["method"].as_str()), (0, Some(method)), "as the original asked");
        Act::Say(answers.next().expect("as many answers"))
    })
    .await;
    let mut puller = puller(&[&address]);
    let first = changed(&mut puller).await;
    assert_eq!((first.hosts.len(), first.expressions.len()), (2, 3));
    let ids: Vec<i64> = first.hosts["golden-host-01"].iter().map(|strategy| strategy.id).collect();
    assert_eq!(ids, [2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for _ in 1..15 {
        puller.pull().await.expect("recorded");
    }
    assert_eq!((puller.counts.pulls.get(), puller.counts.bytes.get()), (15, stream.len() as u64));
}

/// Our own hbs role answers another judge as the original would.
#[tokio::test]
async fn our_own_hbs() {
    let dir = tempfile::tempdir().expect("a directory");
    let portal = Portal::open(&dir.path().join("portal.db")).await.expect("a portal");
    let expected = rules(5.0, &["a", "b"]);
    let in_effect = Arc::new(InEffect::new(Arc::new(Snapshot::default()), expected.clone()));
    let (_keep, receiver) = watch::channel(in_effect);
    let service = HbsService::new(portal, receiver, &[], Arc::new(Oddities::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        while let Some(message) = next_request(&mut stream).await {
            let (mut scratch, mut out) = (Scratch::new(), Vec::new());
            service
                .call(
                    Ipv4Addr::LOCALHOST.into(),
                    jsonrpc::request(&message, &mut scratch).expect("a request"),
                    &mut out,
                )
                .await;
            stream.write_all(&out).await.expect("the puller reads");
        }
    });
    let mut puller = puller(&[&address]);
    let pulled = changed(&mut puller).await;
    assert!(same(&pulled, &expected));
    unchanged(&mut puller).await;
}

#[tokio::test]
async fn run_loads_changes_and_stops() {
    let mut number = 0.0;
    let address = fake(move |method, id, _| {
        if method == "Hbs.GetStrategies" {
            number += 1.0;
        }
        Act::Say(answer(&rules(number, &["a"]), method, id))
    })
    .await;
    let (stop, stopping) = watch::channel(false);
    let (loaded, mut loads) = tokio::sync::mpsc::unbounded_channel();
    let load = move |rules: Arc<Rules>| loaded.send(rules.version).expect("the test reads");
    let health = Health::default();
    let outage = health.outage("no rules");
    let running = tokio::spawn(run(puller(&[&address]), Duration::from_millis(1), load, outage, stopping));
    for version in 1..=3 {
        assert_eq!(in_time("the next rules", loads.recv()).await, Some(version));
    }
    stop.send(true).expect("it runs");
    in_time("the end of the pulling", running).await.expect("an orderly end");
}

/// A reason is there before the first answer, whatever comes instead of one, and ends with it.
#[tokio::test]
async fn health_says_that_there_are_no_rules() {
    let (bad, mut is_asked) = (Arc::new(Mutex::new(true)), false);
    let (is_bad, hangs) = (bad.clone(), TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
    let address = fake(move |method, id, _| match *is_bad.lock().expect("no panic") {
        true if method == "Hbs.GetStrategies" => Act::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        _ => Act::Say(answer(&rules(5.0, &["a"]), method, id)),
    })
    .await;
    let silent = hangs.local_addr().expect("bound").to_string();
    let mut puller = puller(&[&silent, &address]);
    puller.timeouts.silence = SILENCE;
    let health = Health::default();
    let outage = health.outage("the rules cannot be read from hbs");
    let (_stop, stopping) = watch::channel(false);
    let ask = run(puller, Duration::from_millis(1), |_| (), outage, stopping);
    tokio::pin!(ask);
    net::patience::until("both addresses are told", async || {
        // The first look is right behind the start of the first pull.
        let _ = timeout(Duration::ZERO, &mut ask).await;
        let reasons = health.reasons();
        if !std::mem::replace(&mut is_asked, true) {
            assert!(reasons[0].line().contains("none has answered yet"), "{reasons:?}");
        }
        reasons.iter().any(|reason| reason.why.contains("no byte of") && reason.why.contains("is broken"))
    })
    .await;
    *bad.lock().expect("no panic") = false;
    net::patience::until("no reason", async || {
        let _ = timeout(Duration::ZERO, &mut ask).await;
        health.reasons().is_empty()
    })
    .await;
}

#[test]
fn why_an_alarm_is_closed() {
    let rules = rules(5.0, &["a"]);
    let gone = Gone::new(&rules);
    let check = |rule: RuleId, endpoint: &str, part: &str| {
        let why = gone.why(rule, endpoint);
        assert!(why.contains(part), "{why:?}");
    };
    check(RuleId::Strategy(1), "b", "no strategies for the host");
    check(RuleId::Strategy(9), "a", "no longer has the strategy");
    check(RuleId::Strategy(1), "a", "no longer applies to this series");
    check(RuleId::Expression(9), "a", "deleted or paused");
    check(RuleId::Expression(7), "a", "no longer applies to this series");
}

#[test]
fn what_metrics_show() {
    let metrics = Metrics::new();
    let counts = PullCounts::register(&metrics);
    counts.note(&KnownRules::new(AnswerLimits::default()), false);
    let page = metrics.text();
    for line in ["hawkeye_hbs_pulls_total 1", "hawkeye_hbs_pulls_unchanged_total 1", "hawkeye_hbs_pull_errors_total 0"]
    {
        assert!(page.contains(line), "{line} is missing in {page}");
    }
    assert!(page.contains("hawkeye_hbs_pull_age_seconds 0\n") || page.contains("hawkeye_hbs_pull_age_seconds 1\n"));
}
