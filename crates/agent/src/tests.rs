//! The agent against a transfer and an hbs that the test plays, over real sockets on free ports.

mod original;
mod way;

use super::*;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use batch::Batch;
use model::CounterType;
use net::patience::in_time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower::ServiceExt;
use wire::{Framer, Scratch, decode_items, jsonrpc};

const FAST: Timing = Timing {
    sample: Duration::from_millis(1),
    sender: SenderTiming { first_pause: Duration::from_micros(1), replay_pause: Duration::from_micros(1) },
    buffer: BufferTiming::REAL,
};

#[derive(Debug)]
struct Asked {
    method: String,
    param: String,
    is_answered: bool,
}

/// The reply of a played server to the n-th request of its life.
enum Reply {
    Result(&'static str),
    Error(&'static str),
    Close,
}

struct Played {
    address: String,
    asked: UnboundedReceiver<Asked>,
}

impl Played {
    async fn start(reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Played {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (asked, received) = unbounded_channel();
        tokio::spawn(async move {
            let mut count = 0;
            // One connection at a time: the agent has one per address.
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &asked, &reply, &mut count).await;
            }
        });
        Played { address, asked: received }
    }

    async fn next(&mut self) -> Asked {
        in_time("a request", self.asked.recv()).await.expect("played server lives")
    }
}

async fn serve(
    mut stream: TcpStream,
    asked: &UnboundedSender<Asked>,
    reply: &impl Fn(usize, &str) -> Reply,
    count: &mut usize,
) {
    let (mut framer, mut input, mut out) = (Framer::new(16 << 20), Vec::new(), Vec::new());
    loop {
        let Some(range) = framer.scan(&input).expect("the agent's frames are whole") else {
            match stream.read_buf(&mut input).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        let mut scratch = Scratch::new();
        let request = jsonrpc::request(&input[range.clone()], &mut scratch).expect("the agent's requests are right");
        let param = String::from_utf8(request.param.expect("a parameter").to_vec()).expect("UTF-8");
        let method = request.method.to_string();
        out.clear();
        match reply(*count, &method) {
            Reply::Result(json) => jsonrpc::write_result(&mut out, request.id, json.as_bytes()),
            Reply::Error(text) => jsonrpc::write_error(&mut out, request.id, text),
            Reply::Close => {}
        }
        *count += 1;
        // The test may have seen enough.
        let _ = asked.send(Asked { method, param, is_answered: !out.is_empty() });
        if out.is_empty() || stream.write_all(&out).await.is_err() {
            return;
        }
        input.drain(..range.end);
        framer.reset();
    }
}

const TAKEN: Reply = Reply::Result(r#"{"Message":"ok","Total":1,"Invalid":0,"Latency":0}"#);

fn config(text: &str) -> AgentConfig {
    AgentConfig::load(text, std::iter::empty(), &[], "host-1").expect("valid")
}

/// Metric, tags, value, type, step, endpoint, timestamp of each item.
type Row = (String, String, f64, CounterType, u32, String, i64);

fn rows(json: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    decode_items(json, &mut Scratch::new(), &mut |item| {
        let item = item.expect("valid item");
        let (metric, tags) = (item.metric.to_string(), item.tags.to_string());
        rows.push((metric, tags, item.value, item.counter_type, item.step, item.endpoint.to_string(), item.timestamp));
    })
    .expect("an array");
    rows
}

#[tokio::test]
async fn collects_for_a_transfer_and_does_what_hbs_asks() {
    let mut transfer = Played::start(|_, _| TAKEN).await;
    let mut hbs = Played::start(|_, method| match method {
        // A clock that is years behind.
        "Agent.ReportStatus" => Reply::Result(r#"{"code":0,"TimeMs":1000000000000}"#),
        "Agent.BuiltinMetrics" => Reply::Result(
            r#"{"Metrics":[{"Metric":"proc.num","Tags":"name=nginx"},{"Metric":"du.bs","Tags":"path=/nonexistent"}],"Checksum":"c1","Timestamp":1}"#,
        ),
        "Agent.TrustableIps" => Reply::Result(r#""10.0.0.1""#),
        _ => Reply::Error("rpc: can't find method"),
    })
    .await;
    let config = config(&format!(
        "transfer_addrs = [{:?}]\nhbs_addr = {:?}\nrootfs = {:?}\ninterval = \"1s\"\n\
         heartbeat_interval = \"1s\"\nignore = [\"cpu.busy\"]\n[default_tags]\nidc = \"bj\"\n[listen]\nagent_http = \"\"",
        transfer.address,
        hbs.address,
        testdata::path("agent/fixture_root")
    ));
    let (stop, stopping) = watch::channel(false);
    let agent = tokio::spawn(run_at(config, FAST, stopping));

    let asked = hbs.next().await;
    let expected = r#"{"Hostname":"host-1","IP":"127.0.0.1","AgentVersion":"VERSION","PluginVersion":"plugin not enabled","FullVersion":"#;
    assert_eq!(asked.method, "Agent.ReportStatus");
    assert!(
        asked.param.starts_with(&expected.replace("VERSION\",\"Pl", &format!("{}\",\"Pl", heartbeat::VERSION))),
        "{}",
        asked.param
    );
    assert!(asked.param.contains(r#","ConfigDigest":""#) && !asked.param.contains("ClockOffsetMs"), "{}", asked.param);
    let asked = hbs.next().await;
    assert_eq!(asked.method, "Agent.BuiltinMetrics");
    assert_eq!(asked.param, r#"{"Hostname":"host-1","Checksum":"nil"}"#);
    let asked = hbs.next().await;
    let expected = ("Hawkeye.Probes", r#"{"Hostname":"host-1","Version":""}"#);
    assert_eq!((asked.method.as_str(), asked.param.as_str()), expected);
    // An original hbs, as this one, is not asked for probes again.
    assert_eq!(hbs.next().await.method, "Agent.TrustableIps");
    let asked = hbs.next().await;
    assert_eq!(asked.method, "Agent.ReportStatus");
    assert!(asked.param.contains(r#","ClockOffsetMs":"#), "{}", asked.param);
    assert_eq!(hbs.next().await.param, r#"{"Hostname":"host-1","Checksum":"c1"}"#);

    let (mut alive, mut processes, mut du, mut clock) = (false, false, false, false);
    while !(alive && processes && du && clock) {
        let asked = transfer.next().await;
        assert_eq!(asked.method, "Transfer.Update");
        for (metric, tags, value, counter_type, step, endpoint, timestamp) in rows(asked.param.as_bytes()) {
            assert_eq!((step, endpoint.as_str()), (1, "host-1"), "{metric}");
            assert!(tags.contains("idc=bj"), "{metric} {tags}");
            assert_ne!(metric, "cpu.busy");
            assert!(timestamp > 1_600_000_000);
            let is = |wanted: &str| metric == wanted && counter_type == CounterType::Gauge;
            alive |= is("agent.alive") && value == 1.0;
            processes |= is("proc.num") && value == 3.0 && tags == "idc=bj,name=nginx";
            du |= is("du.bs") && value == -1.0 && tags == "idc=bj,path=/nonexistent";
            clock |= is("agent.clock.offset_ms") && value > 600_000_000_000.0 && tags == "idc=bj";
        }
    }
    stop.send_replace(true);
    in_time("the end of the agent", agent).await.expect("no panic").expect("no error");
}

/// The agent with a plugin that hbs names; further lines of its configuration.
#[tokio::test]
async fn runs_plugins_that_hbs_names() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let script = "#!/bin/sh\necho '[{\"endpoint\":\"e\",\"metric\":\"plugin.demo\",\"value\":1.5,\"step\":1,\
                  \"counterType\":\"GAUGE\",\"tags\":\"a=1\"}]'\n";
    std::fs::write(dir.path().join("text"), script).expect("room");
    // Another process writes it, as in the tests of plugins.
    let made = "cd \"$1\" && mkdir sys && cp text sys/1_demo.sh && chmod 755 sys/1_demo.sh";
    let status = std::process::Command::new("sh").args(["-c", made, "sh"]).arg(dir.path()).status().expect("sh");
    assert!(status.success());
    let mut transfer = Played::start(|_, _| TAKEN).await;
    let mut hbs = Played::start(|_, method| match method {
        "Agent.ReportStatus" => Reply::Result(r#"{"code":0}"#),
        "Agent.BuiltinMetrics" => Reply::Result(r#"{"Metrics":[],"Checksum":"","Timestamp":1}"#),
        "Agent.MinePlugins" => Reply::Result(r#"{"Plugins":["sys","nowhere"],"Timestamp":1}"#),
        "Agent.TrustableIps" => Reply::Result(r#""""#),
        _ => Reply::Error("rpc: can't find method"),
    })
    .await;
    let config = config(&format!(
        "transfer_addrs = [{:?}]\nhbs_addr = {:?}\nrootfs = {:?}\ninterval = \"1s\"\nheartbeat_interval = \"1s\"\n\
         [default_tags]\nidc = \"bj\"\n[listen]\nagent_http = \"\"\n[plugin]\nenabled = true\ndir = {:?}\nlogs = {:?}",
        transfer.address,
        hbs.address,
        testdata::path("agent/fixture_root"),
        dir.path(),
        dir.path().join("logs")
    ));
    let (stop, stopping) = watch::channel(false);
    let agent = tokio::spawn(run_at(config, FAST, stopping));
    let asked = hbs.next().await;
    assert!(asked.param.contains(r#""PluginVersion":"Error:exit status 128""#), "{}", asked.param);
    assert_eq!(hbs.next().await.method, "Agent.BuiltinMetrics");
    assert_eq!(hbs.next().await.method, "Hawkeye.Probes");
    let asked = hbs.next().await;
    let expected = ("Agent.MinePlugins", r#"{"Hostname":"host-1","Checksum":""}"#);
    assert_eq!((asked.method.as_str(), asked.param.as_str()), expected);

    let wanted = [
        ("plugin.demo", "a=1,idc=bj", 1.5),
        ("agent.plugin.ok", "idc=bj,plugin=sys/1_demo.sh", 1.0),
        ("agent.plugin.exit", "idc=bj,plugin=sys/1_demo.sh", 0.0),
        ("agent.plugin.failures", "idc=bj,reason=timeout", 0.0),
    ];
    let mut missing: BTreeSet<&str> = wanted.iter().map(|(metric, ..)| *metric).collect();
    while !missing.is_empty() {
        for (metric, tags, value, _, step, _, timestamp) in rows(transfer.next().await.param.as_bytes()) {
            let found = wanted.iter().find(|wanted| (wanted.0, wanted.1) == (metric.as_str(), tags.as_str()));
            if let Some((metric, _, expected)) = found {
                assert_eq!((value, step), (*expected, 1), "{metric}");
                assert!(timestamp > 1_600_000_000, "{metric}");
                missing.remove(metric);
            }
        }
    }
    stop.send_replace(true);
    in_time("the end of the agent", agent).await.expect("no panic").expect("no error");
}

fn sender_for(address: &str) -> (Arc<Queue>, Arc<SenderCounters>, Sender) {
    let (queue, counters) = (Arc::new(Queue::new(1 << 20)), Arc::new(SenderCounters::default()));
    let transfers = Transfers::new(vec![Client::new(address, Duration::from_secs(5))], false);
    let buffer = Buffer::new(queue.clone(), None, FAST.buffer);
    let sender = Sender::new(queue.clone(), buffer, transfers, FAST.sender, counters.clone());
    (queue, counters, sender)
}

fn numbered(number: usize) -> Batch {
    Batch { json: format!("[{number}]").into_bytes().into(), items: 1 }
}

#[tokio::test]
async fn waits_for_a_transfer_and_sends_in_order() {
    let mut transfer = Played::start(|count, _| if count < 3 { Reply::Close } else { TAKEN }).await;
    let (queue, counters, sender) = sender_for(&transfer.address);
    (0..4).for_each(|number| queue.push(numbered(number)));
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(sender.run(stopping));
    for expected in ["[0]", "[0]", "[0]", "[0]", "[1]", "[2]", "[3]"] {
        assert_eq!(transfer.next().await.param, expected);
    }
    stop.send_replace(true);
    in_time("the end of the sender", running).await.expect("no panic");
    assert_eq!(counters.failures.load(Ordering::Relaxed), 3);
    assert_eq!(queue.size().items, 0);
}

#[tokio::test]
async fn a_batch_that_no_transfer_wants_does_not_stop_the_others() {
    let mut transfer = Played::start(|count, _| if count < 10 { Reply::Error("no") } else { TAKEN }).await;
    let (queue, counters, sender) = sender_for(&transfer.address);
    (0..2).for_each(|number| queue.push(numbered(number)));
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(sender.run(stopping));
    for _ in 0..10 {
        assert_eq!(transfer.next().await.param, "[0]");
    }
    assert_eq!(transfer.next().await.param, "[1]", "one that shows whose fault it is");
    assert_eq!(transfer.next().await.param, "[1]");
    stop.send_replace(true);
    in_time("the end of the sender", running).await.expect("no panic");
    assert_eq!(counters.items_refused.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_transfer_that_wants_nothing_costs_nothing() {
    let mut transfer = Played::start(|count, _| if count < 12 { Reply::Error("disk full") } else { TAKEN }).await;
    let (queue, counters, sender) = sender_for(&transfer.address);
    (0..2).for_each(|number| queue.push(numbered(number)));
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(sender.run(stopping));
    let mut asked = Vec::new();
    while asked.len() < 14 {
        asked.push(transfer.next().await.param);
    }
    assert_eq!(asked[9..], ["[0]", "[1]", "[0]", "[0]", "[1]"], "what is behind is refused, too");
    stop.send_replace(true);
    in_time("the end of the sender", running).await.expect("no panic");
    assert_eq!((counters.items_refused.load(Ordering::Relaxed), queue.size().items), (0, 0));
}

#[tokio::test]
async fn sends_the_rest_when_it_stops() {
    let mut transfer = Played::start(|_, _| TAKEN).await;
    let (queue, counters, sender) = sender_for(&transfer.address);
    (0..3).for_each(|number| queue.push(numbered(number)));
    let (_stop, stopping) = watch::channel(true);
    in_time("the end of the sender", sender.run(stopping)).await;
    for expected in ["[0]", "[1]", "[2]"] {
        assert_eq!(transfer.next().await.param, expected);
    }
    assert_eq!((queue.size().items, counters.items_sent.load(Ordering::Relaxed)), (0, 3));
}

#[tokio::test]
async fn stops_at_once_when_nobody_takes_the_rest() {
    let transfer = Played::start(|_, _| Reply::Close).await;
    let (queue, counters, sender) = sender_for(&transfer.address);
    queue.push(numbered(0));
    let (_stop, stopping) = watch::channel(true);
    in_time("the end of the sender", sender.run(stopping)).await;
    assert_eq!((queue.size().items, counters.items_sent.load(Ordering::Relaxed)), (1, 0));
}

#[tokio::test]
async fn counts_what_transfer_calls_invalid() {
    let invalid = r#"{"Message":"ok","Total":3,"Invalid":2,"Latency":0}"#;
    let transfer = Played::start(move |_, _| Reply::Result(invalid)).await;
    let (queue, counters, sender) = sender_for(&transfer.address);
    queue.push(numbered(0));
    let (_stop, stopping) = watch::channel(true);
    in_time("the end of the sender", sender.run(stopping)).await;
    assert_eq!(counters.items_invalid.load(Ordering::Relaxed), 2);
}

/// Sends one request to the agent's door; returns status and text.
async fn request(agent: &Arc<Agent>, method: &str, path: &str, body: &str) -> (StatusCode, String) {
    request_from(None, agent, method, path, body).await
}

async fn request_from(
    peer: Option<&str>,
    agent: &Arc<Agent>,
    method: &str,
    path: &str,
    body: &str,
) -> (StatusCode, String) {
    let metrics = Arc::new(Metrics::new());
    show(agent, &metrics);
    let mut request = Request::builder().method(method).uri(path).body(Body::from(body.to_string())).expect("request");
    if let Some(peer) = peer {
        let address = std::net::SocketAddr::new(peer.parse().expect("an address"), 5);
        request.extensions_mut().insert(ConnectInfo(address));
    }
    let response = http::router(agent.clone(), metrics).oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("body");
    (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
}

#[tokio::test]
async fn pushes_are_answered_with_the_originals_texts() {
    let agent = Arc::new(Agent::new(config("")));
    let check = async |body: &str, status: StatusCode, text: &str| {
        let answer = request(&agent, "POST", "/v1/push", body).await;
        assert_eq!(answer, (status, text.to_string()), "{body}");
    };
    check("", StatusCode::BAD_REQUEST, "body is blank").await;
    for body in ["{", "[1", "{}", "1", "\"x\"", "[1] x", "\u{0}"] {
        check(body, StatusCode::BAD_REQUEST, "connot decode body").await;
    }
    check("[]", StatusCode::OK, "success").await;
    check("null", StatusCode::OK, "success").await;
    check("[null, {\"metric\": \"m\"}]", StatusCode::OK, "success").await;
    assert_eq!(agent.queue.size().items, 0);
    assert_eq!(agent.counters.push_invalid.load(Ordering::Relaxed), 2);
    let (status, _) = request(&agent, "POST", "/v1/push", &" ".repeat((4 << 20) + 1)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn pushed_items_are_queued_as_they_came() {
    let agent = Arc::new(Agent::new(config("[default_tags]\nidc = \"bj\"")));
    let body = r#"[{"endpoint":"other","metric":"m","value":"42","step":30,"counterType":"COUNTER","tags":"b=1,a=2","timestamp":1600000000},
        {"endpoint":"e","metric":"now","value":1.5,"step":60,"counterType":"GAUGE","tags":""}]"#;
    let (status, text) = request(&agent, "PUT", "/v1/push", body).await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "success"), "the method is not checked");
    let (_, batch) = agent.queue.try_oldest().expect("queued");
    let rows = rows(&batch.json);
    let first = ("m".into(), "a=2,b=1,idc=bj".into(), 42.0, CounterType::Counter, 30, "other".into(), 1_600_000_000);
    assert_eq!(rows[0], first);
    assert_eq!((rows[1].0.as_str(), rows[1].1.as_str()), ("now", "idc=bj"));
    assert!(rows[1].6 > 1_600_000_000, "an item without time gets one");
}

#[tokio::test]
async fn says_how_it_is() {
    let agent = Arc::new(Agent::new(config("")));
    let get = async |path: &str| request(&agent, "GET", path, "").await;
    assert_eq!(get("/health").await, (StatusCode::OK, "ok".into()));
    assert_eq!(get("/version").await, (StatusCode::OK, heartbeat::VERSION.into()));
    assert_eq!(get("/ips").await.1, r#"{"data":null,"msg":"success"}"#);
    assert!(get("/workdir").await.1.contains(r#""msg":"success""#));
    let (_, page) = get("/metrics").await;
    assert!(page.contains("\nhawkeye_agent_buffer_max_bytes 16777216\n"), "{page}");
    assert_eq!(get("/nothing").await.0, StatusCode::NOT_FOUND);
}

/// The shapes are the original's; values are those of a recorded tree, or of this machine.
#[tokio::test]
async fn pages_show_the_host() {
    let root = testdata::path("agent/real_proc/1795376803.229");
    let agent = Arc::new(Agent::new(config(&format!("rootfs = {root:?}"))));
    let get = async |path: &str| {
        let (status, text) = request(&agent, "GET", path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    let not_prepared = serde_json::json!({"msg": "not prepared"});
    assert_eq!((get("/proc/cpu/usage").await, get("/page/cpu/usage").await), (not_prepared.clone(), not_prepared));
    assert_eq!(get("/page/diskio").await["data"], serde_json::json!([]));
    for monotonic_ms in [0, 1000] {
        agent.lock_sampler().sample(&Roots::new(&root), monotonic_ms, &mut Vec::new());
    }
    let check = async |path: &str, is_right: fn(&serde_json::Value) -> bool| {
        let answer = get(path).await;
        assert_eq!(answer["msg"], "success", "{path}: {answer}");
        assert!(is_right(&answer["data"]), "{path}: {answer}");
    };
    check("/proc/cpu/num", |data| data.as_u64().is_some_and(|cores| cores > 0)).await;
    check("/proc/cpu/usage", |data| data.as_object().is_some_and(|shares| shares.len() == 10) && data["busy"] == 100.0)
        .await;
    check("/page/cpu/usage", |data| data[0][1] == "100.0%" && data[0][9] == "0.0%" && data[0][10].is_null()).await;
    check("/page/diskio", |data| data.as_array().is_some_and(|disks| disks.iter().all(|disk| disk[11] == "0.00%")))
        .await;
    check("/page/memory", |data| data[0].as_u64() >= data[1].as_u64() && data[2].is_u64() && data[3].is_null()).await;
    check("/proc/memory", |data| {
        let bytes = |name: &str| data[name].as_u64().unwrap_or(0);
        bytes("total") > 0 && bytes("total") == bytes("used") + bytes("free")
    })
    .await;
    check("/proc/kernel/hostname", |data| data == "host-1").await;
    check("/proc/kernel/maxproc", |data| data.as_u64().is_some_and(|count| count > 0)).await;
    check("/proc/kernel/maxfiles", |data| data.as_u64().is_some_and(|count| count > 0)).await;
    check("/proc/kernel/version", |data| data.as_str().is_some_and(|version| version.contains('.'))).await;
    check("/system/date", |data| data.as_str().is_some_and(|date| date.len() == "2006-01-02 15:04:05".len())).await;
    check("/proc/system/loadavg", |data| data["Avg1min"].is_f64() && data["Avg15min"].is_f64()).await;
    check("/page/system/loadavg", |data| data[2][0].is_f64() && data[2][1].is_i64() && data[3].is_null()).await;
    check("/page/df", |data| data.is_array()).await;
    check("/page/system/uptime", |data| data == "0 days 0 hours 54 minutes").await;
    check("/proc/system/uptime", |data| *data == serde_json::json!({"days": 0, "hours": 0, "mins": 54})).await;
    let unread = get("/proc/cpu/mhz").await;
    assert!(unread["msg"].as_str().is_some_and(|text| text.contains("cannot read")), "not recorded: {unread}");
    let here = Arc::new(Agent::new(config("")));
    let (_, space) = request(&here, "GET", "/page/df", "").await;
    let space: serde_json::Value = serde_json::from_str(&space).expect("JSON");
    assert!(space["data"].as_array().is_some_and(|rows| rows.iter().all(|row| row[10].is_string())), "{space}");
    // Each link of the first page leads somewhere.
    let (_, page) = request(&here, "GET", "/", "").await;
    let links: Vec<&str> = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links.len(), 23, "{page}");
    for link in links {
        assert_eq!(request(&here, "GET", link, "").await.0, StatusCode::OK, "{link}");
    }
}

#[tokio::test]
async fn a_digest_follows_what_is_in_effect() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "interval = \"30s\"").expect("room");
    let agent = Arc::new(Agent::new(AgentArgs::of_file(file.clone()).load().expect("valid")));
    let digest_after = async |text: &str| {
        std::fs::write(&file, text).expect("room");
        request_from(Some("::1"), &agent, "GET", "/config/reload", "").await;
        agent.facts.details().config_digest
    };
    let start = agent.facts.details().config_digest;
    let ignoring = digest_after("interval = \"30s\"\nignore = [\"cpu.busy\"]").await;
    assert_ne!(ignoring, start);
    let pending = digest_after("interval = \"40s\"\nignore = [\"cpu.busy\"]").await;
    assert_eq!(pending, ignoring, "an interval changes with a restart");
    assert_eq!(digest_after("interval = \"30s\"").await, start);
}

#[tokio::test]
async fn what_changes_the_host_is_for_whom_may() {
    let agent = Arc::new(Agent::new(config("")));
    for path in ["/plugin/update", "/plugin/reset", "/config/reload", "/exit"] {
        for peer in [None, Some("10.0.0.1"), Some("fd00::1")] {
            let answer = request_from(peer, &agent, "GET", path, "").await;
            assert_eq!(answer, (StatusCode::OK, "no privilege".into()), "{path} {peer:?}");
        }
        for peer in ["127.0.0.1", "::1"] {
            let (status, text) = request_from(Some(peer), &agent, "POST", path, "").await;
            assert!(status == StatusCode::OK && text != "no privilege", "{path} {peer}");
        }
    }
    let update = request_from(Some("127.0.0.1"), &agent, "GET", "/plugin/update", "").await.1;
    assert_eq!(update, "plugin not enabled");
    assert_eq!(request(&agent, "GET", "/plugins", "").await.1, r#"{"data":{},"msg":"success"}"#);
    assert_eq!(request_from(Some("127.0.0.1"), &agent, "POST", "/run", "id").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_agent_of_its_own_ends_when_it_is_asked_to() {
    let (stop, stopping) = watch::channel(false);
    let own = Agent { exit: Some(Arc::new(stop)), ..Agent::new(config("")) };
    let answer = request_from(Some("127.0.0.1"), &Arc::new(own), "GET", "/exit", "").await;
    assert_eq!((answer.1.as_str(), *stopping.borrow()), ("exiting...", true));
    let part = Arc::new(Agent::new(config("")));
    let (_, text) = request_from(Some("127.0.0.1"), &part, "GET", "/exit", "").await;
    assert!(text.contains("part of a server"), "{text}");
}

#[tokio::test]
async fn a_reload_changes_what_can_be_changed_and_names_the_rest() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "ignore = [\"cpu.busy\"]\n[listen]\ntoken = \"abcdefghijklmnopq\"").expect("room");
    let agent = Arc::new(Agent::new(AgentArgs::of_file(file.clone()).load().expect("valid")));
    let reload = async |text: &str| {
        std::fs::write(&file, text).expect("room");
        let (_, answer) = request_from(Some("::1"), &agent, "GET", "/config/reload", "").await;
        serde_json::from_str::<serde_json::Value>(&answer).expect("JSON")
    };
    let token = "[listen]\ntoken = \"abcdefghijklmnopq\"\n";
    let answer =
        reload(&format!("ignore = [\"mem.memfree\"]\ninterval = \"30s\"\n{token}[default_tags]\nidc = \"bj\"")).await;
    assert_eq!(answer["msg"], "success");
    assert_eq!(answer["changed"], serde_json::json!(["ignore", "default_tags"]));
    assert_eq!(answer["needs_restart"], serde_json::json!(["interval"]));
    assert_eq!((&answer["data"]["interval"], &answer["data"]["listen"]["token"]), (&"30s".into(), &"***".into()));
    let settings = agent.live.now();
    assert!(settings.ignore.contains("mem.memfree") && !settings.ignore.contains("cpu.busy"));
    let pushed = r#"[{"endpoint":"e","metric":"m","value":1,"step":60,"counterType":"GAUGE","tags":""}]"#;
    request(&agent, "POST", "/v1/push", pushed).await;
    assert_eq!(rows(&agent.queue.try_oldest().expect("queued").1.json)[0].1, "idc=bj");

    let answer = reload("interval = \"soon\"").await;
    assert!(answer["msg"].as_str().is_some_and(|text| text.contains("interval")), "{answer}");
    let answer = reload("[plugin]\nenabled = true\nuser = \"nobody-of-this-name\"").await;
    assert!(answer["msg"].as_str().is_some_and(|text| text.contains("create the user")), "{answer}");
    assert!(agent.live.now().ignore.contains("mem.memfree"), "what is wrong changes nothing");
    let answer = reload(&format!("ignore = [\"mem.memfree\"]\n{token}[plugin]\nenabled = true")).await;
    assert_eq!(answer["changed"], serde_json::json!(["default_tags", "plugin.enabled"]));
    assert_eq!(answer["needs_restart"], serde_json::json!([]));
    assert!(agent.plugins.is_enabled());
}

#[tokio::test]
async fn a_busy_port_names_the_key() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
    let address = listener.local_addr().expect("bound");
    let config = config(&format!("hbs_addr = \"\"\n[listen]\nagent_http = \"{address}\""));
    let (_stop, stopping) = watch::channel(false);
    let error = run_at(config, FAST, stopping).await.expect_err("busy").to_string();
    assert!(error.contains("listen.agent_http"), "{error}");
}

#[tokio::test]
async fn a_report_takes_its_own_sample_unless_rates_are_of_the_last_second() {
    let check = async |rates: &str, has_rates: bool| {
        let root = testdata::path("agent/fixture_root");
        let mut agent = Agent::new(config(&format!("rates = {rates:?}\nrootfs = {root:?}")));
        // A sample as of the agent's start, which was a minute ago.
        agent.started = Instant::now().checked_sub(Duration::from_secs(60)).expect("the machine is up for longer");
        agent.lock_sampler().sample(&Roots::new(&root), 0, &mut Vec::new());
        let readings = Arc::new(agent).collect(Group::Host).await;
        let found = readings.iter().any(|reading| reading.metric == "cpu.idle");
        assert_eq!(found, has_rates, "{rates}");
        assert!(readings.iter().any(|reading| reading.metric == "load.1min"));
    };
    check("interval", true).await;
    check("last-second", false).await;
}

/// What is switched on goes the same way as the rest: ignored metrics, default tags, one queue.
#[tokio::test]
async fn what_is_switched_on_is_queued() {
    let root = std::fs::canonicalize("../probe/testdata/optional").expect("the tree of the other crate");
    let text = format!(
        "hbs_addr = \"\"\nrootfs = {root:?}\nignore = [\"kernel.threads\"]\n[default_tags]\nidc = \"bj\"\n[collect]\ngpu = false\n\
         pressure = true\nlimits = true\n[listen]\nagent_http = \"\""
    );
    let agent = Arc::new(Agent::new(config(&text)));
    let (stop, stopping) = watch::channel(false);
    let collectors = Collector::all_of(&agent.config.collect);
    assert_eq!(collectors.len(), 1);
    let round = tokio::spawn(agent.clone().report_switched_on(collectors.into_iter().next().expect("one"), stopping));
    in_time("a batch", agent.queue.filled()).await;
    let (_, batch) = agent.queue.try_oldest().expect("a batch");
    let rows = rows(&batch.json);
    let has = |metric: &str| rows.iter().any(|row| row.0 == metric && row.1 == "idc=bj");
    assert!(has("pressure.io.full.percent") && has("net.conntrack.count") && !has("kernel.threads"));
    stop.send_replace(true);
    in_time("the end of the rounds", round).await.expect("no panic");
}
