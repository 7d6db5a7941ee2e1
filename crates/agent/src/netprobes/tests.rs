//! Probes over the network with an hbs that the test plays, over real sockets on free ports.

use super::*;
use crate::batch::DefaultTags;
use crate::live::Settings;
use net::patience::{PATIENCE, in_time};
use netprobe::{Code, Outcome, Reason};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wire::{Framer, Scratch, jsonrpc};

/// An hbs for many connections: answers `Hawkeye.Probes` with what the test has put in, and the rest from there.
struct Hbs {
    address: String,
    state: Arc<Mutex<Answers>>,
    asked: UnboundedReceiver<(String, Value)>,
}

#[derive(Default)]
struct Answers {
    version: String,
    /// Id, digest, definition.
    probes: Vec<(i64, String, Value)>,
    /// Whether methods about probes are unknown.
    is_original: bool,
    /// Whether states are never answered.
    is_mute: bool,
}

impl Answers {
    fn answer(&self, method: &str, param: &Value) -> Option<Result<Value, String>> {
        if self.is_original {
            return Some(Err(format!("rpc: can't find service {method}")));
        }
        let handle = |(id, digest, _): &(i64, String, Value)| json!({"Id": id, "Digest": digest});
        Some(Ok(match method {
            "Hawkeye.Probes" if param["Version"] == self.version.as_str() => json!({"Version": self.version}),
            "Hawkeye.Probes" => {
                json!({"Version": self.version, "Probes": self.probes.iter().map(handle).collect::<Vec<_>>()})
            }
            "Hawkeye.ProbeDefinitions" => {
                let ids: Vec<i64> = serde_json::from_value(param["Ids"].clone()).expect("ids");
                let wanted = self.probes.iter().filter(|(id, ..)| ids.contains(id));
                let given = wanted
                    .map(|(id, digest, definition)| json!({"Id": id, "Digest": digest, "Definition": definition}));
                json!({"Probes": given.collect::<Vec<_>>()})
            }
            _ if self.is_mute => return None,
            _ => json!({"code": 0}),
        }))
    }
}

impl Hbs {
    async fn start() -> Hbs {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
        let address = listener.local_addr().expect("bound").to_string();
        let state = Arc::new(Mutex::new(Answers::default()));
        let (ask, asked) = unbounded_channel();
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone(), ask.clone()));
            }
        });
        Hbs { address, state, asked }
    }

    fn set(&self, version: &str, probes: &[(i64, &str, Value)]) {
        let mut state = self.state.lock().expect("no panic");
        state.version = version.to_string();
        state.probes = probes.iter().map(|(id, digest, json)| (*id, digest.to_string(), json.clone())).collect();
    }

    fn client(&self) -> Client {
        Client::new(&self.address, PATIENCE)
    }

    /// The calls since the last look: the method's last word, and ids of what was asked or told.
    fn calls(&mut self) -> Vec<(String, Vec<i64>)> {
        std::iter::from_fn(|| self.asked.try_recv().ok()).map(short).collect()
    }

    async fn next(&mut self) -> (String, Value) {
        in_time("a call", self.asked.recv()).await.expect("hbs lives")
    }
}

fn short((method, param): (String, Value)) -> (String, Vec<i64>) {
    let told = param["States"].as_array().cloned().unwrap_or_default();
    let ids = match &param["Ids"] {
        Value::Array(ids) => ids.iter().filter_map(Value::as_i64).collect(),
        _ => told.iter().filter_map(|state| state["Id"].as_i64()).collect(),
    };
    (method.trim_start_matches("Hawkeye.").to_string(), ids)
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<Answers>>, ask: UnboundedSender<(String, Value)>) {
    let (mut framer, mut input) = (Framer::new(16 << 20), Vec::new());
    loop {
        let Some(range) = framer.scan(&input).expect("whole frames") else {
            match stream.read_buf(&mut input).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        let mut scratch = Scratch::new();
        let request = jsonrpc::request(&input[range.clone()], &mut scratch).expect("a request");
        let param: Value = serde_json::from_slice(request.param.expect("a parameter")).expect("JSON");
        let method = request.method.to_string();
        let answer = state.lock().expect("no panic").answer(&method, &param);
        let mut out = Vec::new();
        match answer {
            Some(Ok(json)) => jsonrpc::write_result(&mut out, request.id, json.to_string().as_bytes()),
            Some(Err(text)) => jsonrpc::write_error(&mut out, request.id, &text),
            None => {}
        }
        // The test may have seen enough.
        let _ = ask.send((method, param));
        if stream.write_all(&out).await.is_err() {
            return;
        }
        input.drain(..range.end);
        framer.reset();
    }
}

/// Probes of an agent that does not run them; what they have found comes from the test.
fn probes() -> Arc<Probes> {
    let settings = Settings {
        scope: probe::Scope {
            roots: probe::Roots::new(std::path::Path::new("/")),
            iface_prefixes: Vec::new(),
            virtual_ifaces: false,
            mount_points: Vec::new(),
            container_mounts: false,
        },
        ignore: BTreeSet::from(["probe.up".to_string()]),
        default_tags: DefaultTags::new(&[("idc".to_string(), "bj".to_string())].into()),
        plugin: Default::default(),
        probes: ProbesConfig::default(),
    };
    let queue = Arc::new(Queue::new(1 << 20));
    Arc::new(Probes::new(Arc::new(Live::new(settings)), queue, "host,1", 60))
}

fn icmp(name: &str) -> Value {
    json!({"name": name, "kind": "icmp", "target": "10.0.0.1", "tags": {"team": "net"}})
}

/// A run of the probe `name`, up where `code` is none.
fn ran(name: &str, code: Option<Code>, time: i64) -> Ran {
    let definition: Definition = serde_json::from_value(icmp(name)).expect("a definition");
    let reading = Reading::gauge("probe.up", &definition.series_tags(), f64::from(u8::from(code.is_none())));
    let outcome = Outcome {
        up: code.is_none(),
        reason: code.map(|code| Reason::new(code, "because")),
        phases: Vec::new(),
        peer: None,
        readings: vec![reading],
    };
    Ran { definition: Arc::new(definition), time, outcome }
}

fn names(probes: &Probes) -> Vec<String> {
    probes.definitions.borrow().iter().map(|definition| definition.name.clone()).collect()
}

fn calls(pairs: &[(&str, &[i64])]) -> Vec<(String, Vec<i64>)> {
    pairs.iter().map(|(method, ids)| (method.to_string(), ids.to_vec())).collect()
}

#[tokio::test]
async fn only_what_has_changed_is_asked_for() {
    let (mut hbs, probes) = (Hbs::start().await, probes());
    let mut client = hbs.client();
    hbs.set("v1", &[(1, "a", icmp("x")), (2, "b", icmp("y"))]);
    probes.beat(&mut client).await;
    assert_eq!(hbs.calls(), calls(&[("Probes", &[]), ("ProbeDefinitions", &[1, 2])]));
    assert_eq!(names(&probes), ["x", "y"]);
    probes.beat(&mut client).await;
    assert_eq!(hbs.calls(), calls(&[("Probes", &[])]));
    hbs.set("v2", &[(2, "c", icmp("yy")), (3, "d", icmp("z"))]);
    probes.beat(&mut client).await;
    assert_eq!(hbs.calls(), calls(&[("Probes", &[]), ("ProbeDefinitions", &[2, 3])]));
    assert_eq!(names(&probes), ["yy", "z"]);
    hbs.set("", &[]);
    probes.beat(&mut client).await;
    assert_eq!((hbs.calls(), names(&probes)), (calls(&[("Probes", &[])]), Vec::new()));
}

#[tokio::test]
async fn what_cannot_be_run_is_told_once_and_the_rest_runs() {
    let (mut hbs, probes) = (Hbs::start().await, probes());
    let mut client = hbs.client();
    hbs.set("v1", &[(1, "a", json!({"name": "x", "kind": "gopher", "target": "h"})), (2, "b", icmp("y"))]);
    probes.beat(&mut client).await;
    assert_eq!((names(&probes), probes.refused.load(Ordering::Relaxed)), (vec!["y".to_string()], 1));
    let _probes_and_definitions = (hbs.next().await, hbs.next().await);
    let (method, told) = hbs.next().await;
    let state = &told["States"][0];
    assert_eq!((method.as_str(), &told["Hostname"]), ("Hawkeye.ProbeStates", &json!("host,1")));
    assert_eq!((&state["Id"], &state["Up"], &state["Code"]), (&json!(1), &json!(false), &json!("definition")));
    assert!(state["Reason"].as_str().is_some_and(|text| text.contains("kind: give")), "{state}");
    probes.beat(&mut client).await;
    assert_eq!(hbs.calls(), calls(&[("Probes", &[])]));
}

#[tokio::test]
async fn an_original_hbs_is_left_alone() {
    let (mut hbs, probes) = (Hbs::start().await, probes());
    let mut client = hbs.client();
    hbs.state.lock().expect("no panic").is_original = true;
    for expected in [calls(&[("Probes", &[])]), Vec::new(), Vec::new()] {
        probes.beat(&mut client).await;
        assert_eq!(hbs.calls(), expected);
    }
    assert_eq!(probes.failures.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_is_known_stays_while_hbs_is_away_and_all_is_told_anew() {
    let (mut hbs, probes) = (Hbs::start().await, probes());
    let mut client = hbs.client();
    hbs.set("v1", &[(1, "a", icmp("x"))]);
    probes.beat(&mut client).await;
    probes.take(ran("x", None, 60));
    probes.beat(&mut client).await;
    hbs.calls();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
    let nobody = listener.local_addr().expect("bound").to_string();
    drop(listener);
    probes.beat(&mut Client::new(&nobody, PATIENCE)).await;
    probes.hbs_is_away();
    assert_eq!((names(&probes), probes.failures.load(Ordering::Relaxed)), (vec!["x".to_string()], 1));
    probes.beat(&mut client).await;
    assert_eq!(hbs.calls(), calls(&[("Probes", &[]), ("ProbeStates", &[1])]));
}

/// Items that wait in the queue, as the agent sends them.
fn queued(probes: &Probes) -> Vec<Value> {
    let batches = probes.queue.all();
    batches.iter().flat_map(|(_, batch)| serde_json::from_slice::<Vec<Value>>(&batch.json).expect("a list")).collect()
}

#[tokio::test]
async fn the_state_is_told_before_the_points_are_queued() {
    let (mut hbs, probes) = (Hbs::start().await, probes());
    hbs.set("v1", &[(1, "a", icmp("x"))]);
    probes.beat(&mut hbs.client()).await;
    hbs.calls();
    let (stop, stopping) = watch::channel(false);
    // hbs answers no state: points wait for it, and go without it.
    hbs.state.lock().expect("no panic").is_mute = true;
    let running = tokio::spawn(probes.clone().run(stopping));
    probes.take(ran("x", Some(Code::Refused), 120));
    let (method, told) = hbs.next().await;
    assert_eq!((method.as_str(), &told["States"][0]["Code"]), ("Hawkeye.ProbeStates", &json!("refused")));
    assert_eq!(told["States"][0]["Reason"], "because");
    assert_eq!(queued(&probes), Vec::<Value>::new(), "hbs has not answered");
    in_time("the points", probes.queue.filled()).await;
    let items = queued(&probes);
    assert_eq!((&items[0]["endpoint"], &items[0]["metric"]), (&json!("x"), &json!("probe.up")));
    assert_eq!((&items[0]["timestamp"], &items[0]["step"]), (&json!(120), &json!(60)));
    assert_eq!(items[0]["tags"], "from=host_1,target=10.0.0.1,team=net", "no default tags");
    // The next one does not wait, and the next heartbeat tells what is so now.
    hbs.state.lock().expect("no panic").is_mute = false;
    probes.take(ran("x", Some(Code::Timeout), 180));
    stop.send_replace(true);
    in_time("the end", running).await.expect("no panic");
    assert_eq!(queued(&probes).len(), 2, "what was gathered is queued at the end");
    assert_eq!(hbs.calls(), Vec::new());
    probes.beat(&mut hbs.client()).await;
    assert_eq!(hbs.calls(), calls(&[("Probes", &[]), ("ProbeStates", &[1])]));
}

#[tokio::test]
async fn probes_run_by_the_settings_that_are_in_effect() {
    let (mut hbs, probes) = (Hbs::start().await, probes());
    let open = TcpListener::bind("127.0.0.1:0").await.expect("free port");
    let target = open.local_addr().expect("bound").to_string();
    let definition = json!({"name": "x", "kind": "tcp", "target": target, "step": 5, "timeout_ms": 4000});
    hbs.set("v1", &[(1, "a", definition)]);
    probes.beat(&mut hbs.client()).await;
    hbs.calls();
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(probes.clone().run(stopping));
    let now = probes.live.now();
    let denied = ProbesConfig { deny: vec!["127.0.0.1".into()], ..ProbesConfig::default() };
    probes.live.change(Settings {
        scope: now.scope.clone(),
        ignore: now.ignore.clone(),
        default_tags: now.default_tags.clone(),
        plugin: now.plugin.clone(),
        probes: denied,
    });
    probes.look_again();
    let (method, told) = hbs.next().await;
    assert_eq!((method.as_str(), &told["States"][0]["Code"]), ("Hawkeye.ProbeStates", &json!("denied")));
    in_time("the points of a run", probes.queue.filled()).await;
    assert_eq!(queued(&probes)[0]["value"].as_f64(), Some(0.0));
    stop.send_replace(true);
    in_time("the end", running).await.expect("no panic");
}
