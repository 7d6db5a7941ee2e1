//! The whole role against receivers in the test: what arrives, in which order, and what a crash costs.

mod damage;

use super::counters::Ended;
use super::*;
use crate::portal::alarm::{CaseFilter, cases};
use crate::portal::db::query;
use crate::portal::delivery::Kind;
use crate::watch::health::Health;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use events::Fsync;
use events::{Entry, Options};
use model::{Event, EventRule, Status, Strategy, Template};
use net::patience::{in_time, until};
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// Users u1 and u2 in team ops, action 1 for them, and a queue: all in a directory of their own.
pub(super) struct Site {
    dir: tempfile::TempDir,
    pub(super) portal: Portal,
    pub(super) queue: Arc<EventQueue>,
    pub(super) config: Config,
    limits: DeliveryLimits,
    pub(super) health: Health,
}

/// An alarm that runs in a task of its own.
pub(super) struct Running {
    task: JoinHandle<()>,
    pub(super) counters: AlarmMetrics,
    stop: watch::Sender<bool>,
    /// What runs beside it, and ends with it.
    beside: Option<JoinHandle<()>>,
}

pub(super) async fn site() -> Site {
    site_in(crate::portal::tests::temporary().await.expect("a portal")).await
}

async fn site_in((dir, portal): (tempfile::TempDir, Portal)) -> Site {
    crate::portal::tests::run(
        &portal,
        "INSERT INTO uic.team (id, name) VALUES (1, 'ops');
         INSERT INTO uic.user (id, name, phone, im, email)
           VALUES (1, 'u1', '111', 'im1', 'u1@x'), (2, 'u2', '222', '', 'u2@x');
         INSERT INTO uic.rel_team_user (tid, uid) VALUES (1, 1), (1, 2)",
    )
    .await
    .expect("rows");
    let queue = open_queue(&dir);
    let mut limits = DeliveryLimits::new(86_400, 100_000);
    limits.first_pause = Duration::from_millis(10);
    limits.target_pause_max = Duration::from_millis(50);
    limits.delivery_pause_max = Duration::from_millis(50);
    let mut config = Config::default();
    config.alarm.callback_allow = vec!["127.0.0.0/8".parse().expect("a network")];
    // The events here have times of 2017.
    config.alarm.event_retention = 100 * 365 * 86_400;
    config.alarm.case_retention = config.alarm.event_retention;
    // What is merged has tests of its own.
    config.alarm.merge = 0;
    Site { dir, portal, queue, config, limits, health: Health::default() }
}

fn open_queue(dir: &tempfile::TempDir) -> Arc<EventQueue> {
    let options = Options { fsync: Fsync::Never, ..Options::default() };
    Arc::new(EventQueue::open_with(&dir.path().join("events"), options, crate::clock::now()).expect("a queue").0)
}

impl Site {
    pub(super) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The queue as a start after a kill finds it.
    pub(super) fn reopen_queue(&mut self) {
        self.queue = open_queue(&self.dir);
    }

    /// An action with a callback to `url` ("" is none) and receivers `uic`; `flags` as s, m (before), S, M (after).
    pub(super) async fn action(&self, id: i64, uic: &str, url: &str, flags: &str) {
        let has = |flag: char| i64::from(flags.contains(flag));
        query("INSERT INTO falcon_portal.action VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(id)
            .bind(uic)
            .bind(url)
            .bind(i64::from(!url.is_empty()))
            .bind(has('s'))
            .bind(has('m'))
            .bind(has('S'))
            .bind(has('M'))
            .execute(&self.portal)
            .await
            .expect("an action");
    }

    pub(super) async fn alarm(&self) -> (Alarm, AlarmMetrics) {
        let counters = AlarmMetrics::default();
        let (portal, queue) = (self.portal.for_alarm(), self.queue.clone());
        let alarm = Alarm::open(portal, queue, &self.config, self.limits, counters.clone(), &self.health).await;
        (alarm.expect("alarm opens"), counters)
    }

    pub(super) async fn start(&self) -> Running {
        let (alarm, counters) = self.alarm().await;
        self.run(alarm, counters)
    }

    pub(super) fn run(&self, mut alarm: Alarm, counters: AlarmMetrics) -> Running {
        let (stop, mut shutdown) = watch::channel(false);
        let task = tokio::spawn(async move {
            alarm.run(&mut shutdown).await;
            alarm.deliverer.stop().await.expect("a clean stop");
        });
        Running { task, counters, stop, beside: None }
    }

    pub(super) async fn count(&self, table: &'static str) -> i64 {
        query("SELECT count(*) FROM alarms.").push(table).one(&self.portal).await.expect("a count")
    }
}

impl Running {
    pub(super) fn beside(self, task: JoinHandle<()>) -> Running {
        Running { beside: Some(task), ..self }
    }

    pub(super) async fn stop(self) {
        self.beside.iter().for_each(JoinHandle::abort);
        self.stop.send(true).expect("alarm runs");
        in_time("the end of alarm", self.task).await.expect("alarm does not panic");
    }

    /// Ends alarm as `kill -9` does, wherever it stands.
    pub(super) async fn kill(self) {
        self.beside.iter().for_each(JoinHandle::abort);
        self.task.abort();
        assert!(self.task.await.expect_err("killed").is_cancelled());
    }
}

pub(super) fn event(action_id: i64, host: &str, status: Status, step: i32) -> Event {
    let strategy = Strategy {
        id: 1,
        metric: "cpu.idle".into(),
        func: "all(#3)".into(),
        operator: "<".into(),
        right_value: 5.0,
        max_step: 3,
        tpl: Template { id: 7, action_id, creator: "alice".into(), ..Template::default() },
        ..Strategy::default()
    };
    Event {
        rule: EventRule::Strategy(Arc::new(strategy)),
        status,
        endpoint: host.into(),
        tags: "k=v".into(),
        left_value: 1.5,
        current_step: step,
        time: 1_490_000_000 + i64::from(step),
        explanation: None,
    }
}

pub(super) fn problem(action_id: i64, host: &str) -> Event {
    event(action_id, host, Status::Problem, 1)
}

pub(super) fn with_priority(mut event: Event, priority: i32) -> Event {
    let EventRule::Strategy(strategy) = &mut event.rule else { panic!("{event:?}") };
    Arc::make_mut(strategy).priority = priority;
    event
}

/// Request that a receiver got: path, query and form.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) path: String,
    fields: HashMap<String, String>,
}

impl Got {
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("(absent)", String::as_str)
    }
}

/// Decides the status and text of the answer to the n-th request.
type Answer = Arc<dyn Fn(usize, &Got) -> (u16, String) + Send + Sync>;

pub(super) struct Receiver {
    pub(super) url: String,
    got: UnboundedReceiver<Got>,
    _server: JoinHandle<()>,
}

impl Receiver {
    pub(super) async fn start() -> Receiver {
        Receiver::answering(Arc::new(|_, _| (200, "ok".to_string()))).await
    }

    async fn answering(answer: Answer) -> Receiver {
        Receiver::listen(TcpListener::bind("127.0.0.1:0").await.expect("a port"), answer)
    }

    fn listen(listener: TcpListener, answer: Answer) -> Receiver {
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (sender, got) = unbounded_channel();
        let state = Arc::new((sender, answer, Mutex::new(0)));
        let router = axum::Router::new().fallback(take).with_state(state);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Receiver { url, got, _server: server }
    }

    pub(super) async fn next(&mut self) -> Got {
        in_time("a delivery", self.got.recv()).await.expect("the receiver lives")
    }

    /// Whether nothing more has come.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.got.try_recv().is_err()
    }
}

type TakeState = Arc<(UnboundedSender<Got>, Answer, Mutex<usize>)>;

async fn take(State(state): State<TakeState>, request: Request) -> (StatusCode, String) {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let mut pairs = crate::api::body::parse_form(parts.uri.query().unwrap_or("").as_bytes());
    pairs.extend(crate::api::body::parse_form(&body));
    let got = Got { path: parts.uri.path().to_string(), fields: pairs.into_iter().collect() };
    let (sender, answer, count) = &*state;
    let index = {
        let mut count = count.lock().expect("nothing panics");
        *count += 1;
        *count - 1
    };
    let (status, text) = answer(index, &got);
    sender.send(got).expect("the test lives");
    (StatusCode::from_u16(status).expect("a status"), text)
}

/// A port that refuses connections until it is told to listen; nobody else can take it meanwhile.
fn closed_port() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let url = format!("http://{}", socket.local_addr().expect("bound"));
    (socket, url)
}

#[tokio::test]
async fn an_event_becomes_a_case_a_callback_and_messages() {
    let mut site = site().await;
    let mut receiver = Receiver::start().await;
    site.config.alarm.sms = format!("{}/sms", receiver.url);
    site.config.alarm.im = format!("{}/im", receiver.url);
    site.config.alarm.mail = format!("{}/mail", receiver.url);
    site.config.alarm.dashboard = "http://dash".into();
    site.action(1, "nobody, ops,ops", &format!("{}/cb?own=1", receiver.url), "").await;
    let running = site.start().await;
    let event = problem(1, "web-01");
    let before = Instant::now();
    site.queue.append(std::slice::from_ref(&event)).expect("append");
    let mut got: HashMap<String, Got> = HashMap::new();
    for _ in 0..4 {
        let next = receiver.next().await;
        if next.path == "/cb" {
            println!("callback arrived {:?} after the append", before.elapsed());
        }
        got.insert(next.path.clone(), next);
    }
    let short = message::short(&event);
    assert_eq!((got["/sms"].field("tos"), got["/sms"].field("content")), ("111,222", short.as_str()));
    assert_eq!((got["/im"].field("tos"), got["/im"].field("content")), ("im1", short.as_str()));
    assert_eq!((got["/mail"].field("tos"), got["/mail"].field("subject")), ("u1@x,u2@x", short.as_str()));
    assert_eq!(got["/mail"].field("content"), message::mail(&event, "http://dash"));
    for (name, value) in message::callback_query(&event) {
        assert_eq!(got["/cb"].field(&name), value, "{name}");
    }
    assert_eq!(got["/cb"].field("own"), "1");
    running.stop().await;
    let case = cases(&site.portal, &CaseFilter::default(), 0, 10).await.expect("cases");
    assert_eq!((case.len(), case[0].id.as_str(), case[0].cond.as_str()), (1, event.id().as_str(), "1.5 < 5"));
    assert_eq!((site.count("events").await, site.count("hawkeye_delivery").await), (1, 0));
}

#[tokio::test]
async fn a_target_that_is_down_delays_only_itself_and_is_found_back() {
    let site = site().await;
    let mut alive = Receiver::start().await;
    let (closed, down) = closed_port();
    // Accepts (the kernel does) and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    site.action(1, "", &down, "").await;
    site.action(2, "", &alive.url, "").await;
    let silent_url = format!("http://{}", silent.local_addr().expect("bound"));
    site.action(3, "", &silent_url, "").await;
    let running = site.start().await;
    for n in 0..20 {
        let host = format!("host-{n}");
        site.queue.append(&[problem(1, &host), problem(3, &host), problem(2, &host)]).expect("append");
    }
    for _ in 0..20 {
        alive.next().await;
    }
    assert_eq!(running.counters.count(Kind::Callback, Ended::GivenUp), 0);
    let mut back = Receiver::listen(closed.listen(16).expect("listens"), Arc::new(|_, _| (200, String::new())));
    let mut hosts: Vec<String> = Vec::new();
    for _ in 0..20 {
        hosts.push(back.next().await.field("endpoint").to_string());
    }
    hosts.sort();
    hosts.dedup();
    assert_eq!(hosts.len(), 20, "each once");
    running.kill().await;
    let waiting = query("SELECT count(*) FROM alarms.hawkeye_delivery WHERE target = ?").bind(&silent_url);
    assert_eq!(waiting.one::<i64>(&site.portal).await.expect("a count"), 20);
    assert_eq!(site.count("events").await, 60);
}

#[tokio::test]
async fn what_is_not_delivered_survives_a_kill() {
    let mut site = site().await;
    let (closed, down) = closed_port();
    site.action(1, "", &down, "").await;
    let running = site.start().await;
    site.queue.append(&[problem(1, "a"), problem(1, "b")]).expect("append");
    until("a failed attempt", async || running.counters.count(Kind::Callback, Ended::Failed) > 0).await;
    running.kill().await;
    // Appended while alarm is away: the queue keeps it.
    site.queue.append(&[problem(1, "c")]).expect("append");
    site.queue = open_queue(&site.dir);
    let mut back = Receiver::listen(closed.listen(16).expect("listens"), Arc::new(|_, _| (200, String::new())));
    let running = site.start().await;
    let mut hosts = Vec::new();
    for _ in 0..3 {
        hosts.push(back.next().await.field("endpoint").to_string());
    }
    hosts.sort();
    assert_eq!(hosts, ["a", "b", "c"]);
    running.stop().await;
    assert_eq!((site.count("events").await, site.count("hawkeye_delivery").await), (3, 0));
    // Nothing is left to do for a third life.
    let (mut alarm, counters) = site.alarm().await;
    alarm.step().await;
    assert!(alarm.deliverer.look_at().is_none() && !alarm.more);
    assert_eq!(counters.count(Kind::Callback, Ended::Done), 0);
}

#[tokio::test]
async fn a_crash_between_the_answer_and_its_record_repeats_a_message() {
    let mut site = site().await;
    let mut gateway = Receiver::start().await;
    site.config.alarm.im = format!("{}/im", gateway.url);
    site.action(1, "ops", "", "").await;
    site.queue.append(&[problem(1, "a")]).expect("append");
    let (mut alarm, _) = site.alarm().await;
    alarm.step().await;
    gateway.next().await;
    drop(alarm);
    assert_eq!(site.count("hawkeye_delivery").await, 1);
    let running = site.start().await;
    gateway.next().await;
    running.stop().await;
    assert_eq!((site.count("events").await, site.count("hawkeye_delivery").await), (1, 0));
}

/// A callback runs a script that is not made to run twice.
#[tokio::test]
async fn a_callback_that_a_crash_cut_off_is_told_and_not_made_again() {
    let mut site = site().await;
    let mut gateway = Receiver::start().await;
    let mut script = Receiver::start().await;
    // Accepts (the kernel does) and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    site.config.alarm.im = format!("{}/im", gateway.url);
    site.action(1, "ops", &format!("http://{}/", silent.local_addr().expect("bound")), "S").await;
    site.action(2, "", &script.url, "").await;
    let low = |action, host| with_priority(problem(action, host), 5);
    site.queue.append(&[low(1, "a"), low(2, "b"), low(1, "c")]).expect("append");
    let (mut alarm, _) = site.alarm().await;
    alarm.step().await;
    assert_eq!(site.count("hawkeye_delivery WHERE begun_at > 0").await, 2, "one call at a time to each, marked before");
    let _first = silent.accept().await.expect("the first call");
    script.next().await;
    drop(alarm);

    let running = site.start().await;
    let mut told = gateway.next().await;
    while told.field("content").starts_with('[') {
        told = gateway.next().await;
    }
    let content = told.field("content");
    let start = format!("curl http://{}/ fail:unknown: the server ended", silent.local_addr().expect("bound"));
    assert!(content.starts_with(&start) && content.ends_with(" resp: "), "{content}");
    assert!(content.contains("is not made again"), "{content}");
    // The next callback to the same target has its turn; the first is not made again.
    let _second = silent.accept().await.expect("the call for c");
    assert_eq!(running.counters.count(Kind::Callback, Ended::Unknown), 2);
    assert_eq!(script.got.try_recv().err(), Some(TryRecvError::Empty));
    running.kill().await;
    let told: Vec<String> = query("SELECT told FROM alarms.event_cases WHERE endpoint <> 'c' ORDER BY endpoint")
        .all(&site.portal)
        .await
        .expect("cases");
    assert!(told.iter().all(|told| told.starts_with("callback for PROBLEM failed: unknown: ")), "{told:?}");
    assert_eq!(site.count("hawkeye_delivery WHERE kind = 'callback'").await, 1, "that for c, which is under way");
}

/// A stop waits a moment; a call that takes longer is cut off, and has been received.
#[tokio::test]
async fn a_callback_that_a_stop_cut_off_is_told_and_not_made_again() {
    let mut site = site().await;
    site.limits.grace = Duration::ZERO;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    site.action(1, "", &format!("http://{}/", silent.local_addr().expect("bound")), "").await;
    let running = site.start().await;
    site.queue.append(&[problem(1, "a")]).expect("append");
    let _call = silent.accept().await.expect("the call");
    running.stop().await;
    let running = site.start().await;
    until("the end of the callback", async || running.counters.count(Kind::Callback, Ended::Unknown) == 1).await;
    running.stop().await;
    assert_eq!(site.count("hawkeye_delivery").await, 0);
}

/// Whatever a script answers, it has run.
#[tokio::test]
async fn a_callback_that_was_received_is_not_made_again() {
    let site = site().await;
    let mut script =
        Receiver::answering(Arc::new(|index, _| ([404, 500, 503, 429, 302][index], "no".to_string()))).await;
    site.action(1, "", &script.url, "").await;
    let running = site.start().await;
    let hosts = ["a", "b", "c", "d", "e"];
    site.queue.append(&hosts.map(|host| problem(1, host))).expect("append");
    let mut called = Vec::new();
    for _ in hosts {
        called.push(script.next().await.field("endpoint").to_string());
    }
    called.sort();
    assert_eq!(called, hosts);
    until("all ends", async || running.counters.count(Kind::Callback, Ended::Failed) == 5).await;
    assert_eq!(site.count("hawkeye_delivery").await, 0);
    running.stop().await;
    assert_eq!(script.got.try_recv().err(), Some(TryRecvError::Empty));
    assert_eq!(site.count("event_cases WHERE told = 'callback for PROBLEM failed: status 404: no'").await, 1);
}

/// A database that fails at the mark delays the call; nothing is called that is not marked.
#[tokio::test]
async fn no_callback_begins_without_its_mark() {
    // The trigger is SQLite's.
    let site = site_in(crate::portal::tests::in_file().await.expect("a portal")).await;
    let mut receiver = Receiver::start().await;
    site.action(1, "", &receiver.url, "").await;
    site.queue.append(&[problem(1, "a")]).expect("append");
    let sql = |text: &'static str| query(text).execute(&site.portal);
    sql("CREATE TRIGGER alarms_full BEFORE UPDATE OF begun_at ON hawkeye_delivery BEGIN SELECT RAISE(FAIL, 'full'); END")
        .await
        .expect("trigger");
    let (mut alarm, counters) = site.alarm().await;
    alarm.step().await;
    assert_eq!((counters.failures.get(), site.count("hawkeye_delivery").await), (1, 1));
    sql("DROP TRIGGER alarms_full").await.expect("no trigger");
    alarm.failed_until = None;
    alarm.step().await;
    assert_eq!(receiver.next().await.field("endpoint"), "a");
    assert_eq!(site.count("hawkeye_delivery WHERE begun_at > 0").await, 1);
}

#[tokio::test]
async fn a_recovery_never_overtakes_its_problem_and_others_pass() {
    let mut site = site().await;
    // The first three attempts for host a are refused.
    let refusals = Mutex::new(3);
    let mut gateway = Receiver::answering(Arc::new(move |_, got| {
        let mut left = refusals.lock().expect("nothing panics");
        if got.field("content").contains("[a]") && *left > 0 {
            *left -= 1;
            return (500, "broken".to_string());
        }
        (200, String::new())
    }))
    .await;
    site.config.alarm.im = format!("{}/im", gateway.url);
    site.action(1, "ops", "", "").await;
    site.queue
        .append(&[problem(1, "a"), event(1, "a", Status::Ok, 1), problem(1, "b"), event(1, "b", Status::Ok, 1)])
        .expect("append");
    let running = site.start().await;
    let mut seen: HashMap<String, Vec<String>> = HashMap::new();
    for _ in 0..7 {
        let got = gateway.next().await;
        let parts: Vec<&str> = got.field("content").split(['[', ']']).collect();
        seen.entry(parts[5].to_string()).or_default().push(parts[3].to_string());
    }
    assert_eq!(seen["a"], ["PROBLEM", "PROBLEM", "PROBLEM", "PROBLEM", "OK"]);
    assert_eq!(seen["b"], ["PROBLEM", "OK"]);
    running.stop().await;
    assert_eq!(site.count("hawkeye_delivery").await, 0);
}

#[tokio::test]
async fn people_are_told_how_a_callback_ended() {
    let mut site = site().await;
    let mut gateway = Receiver::start().await;
    let (closed, down) = closed_port();
    let broken = Receiver::answering(Arc::new(|_, _| (500, "no".to_string()))).await;
    site.config.alarm.im = format!("{}/im", gateway.url);
    site.config.alarm.mail = format!("{}/mail", gateway.url);
    site.action(1, "ops", &down, "S").await;
    site.action(2, "ops", &broken.url, "S").await;
    site.action(3, "ops", "http://169.254.169.254/latest/", "S").await;
    let running = site.start().await;
    let mut next_im = async || loop {
        let got = gateway.next().await;
        if got.path == "/im" {
            return got.field("content").to_string();
        }
    };
    let event = problem(1, "a");
    site.queue.append(std::slice::from_ref(&event)).expect("append");
    assert_eq!(next_im().await, message::short(&event));
    // A call that was not received is tried again, and its later end is told too.
    let first = next_im().await;
    assert!(first.starts_with(&format!("curl {down} fail:")) && first.contains("refused"), "{first}");
    let _back = Receiver::listen(closed.listen(16).expect("listens"), Arc::new(|_, _| (200, "done".to_string())));
    assert_eq!(next_im().await, format!("curl {down} success. resp: done"));
    // One that was received has its end.
    site.queue.append(&[problem(2, "b")]).expect("append");
    next_im().await;
    assert_eq!(next_im().await, format!("curl {} fail:status 500: no. resp: ", broken.url));
    // So has one that is not allowed.
    site.queue.append(&[problem(3, "c")]).expect("append");
    next_im().await;
    let denied = next_im().await;
    assert!(
        denied.starts_with("curl http://169.254.169.254/latest/ fail:169.254.169.254 is in no network"),
        "{denied}"
    );
    assert_eq!(running.counters.count(Kind::Callback, Ended::Denied), 1);
    running.stop().await;
    assert_eq!(site.count("hawkeye_delivery").await, 0);
    let denied = "told LIKE 'callback for PROBLEM failed: 169.254.169.254 is in no network of alarm.callback_allow%'";
    let sql = query("SELECT count(*) FROM alarms.event_cases WHERE ").push(denied);
    assert_eq!(sql.one::<i64>(&site.portal).await.expect("a count"), 1);
}

#[tokio::test]
async fn what_told_nobody_says_why() {
    let mut site = site().await;
    let gateway = Receiver::start().await;
    site.config.alarm.im = format!("{}/im", gateway.url);
    let sql = "INSERT INTO uic.user (id, name, phone) VALUES (3, 'u3', '333');
               INSERT INTO uic.team (id, name) VALUES (2, 'phones'); INSERT INTO uic.rel_team_user (tid, uid) VALUES (2, 3)";
    crate::portal::tests::run(&site.portal, sql).await.expect("rows");
    site.action(1, "ops", "", "").await;
    site.action(2, "phones", "", "").await;
    site.action(3, "nobody", "", "").await;
    site.action(4, "", "", "").await;
    let events = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (9, "e"), (0, "f")];
    site.queue.append(&events.map(|(action, host)| problem(action, host))).expect("append");
    let (mut alarm, counters) = site.alarm().await;
    alarm.step().await;
    let told: Vec<String> =
        query("SELECT told FROM alarms.event_cases ORDER BY endpoint").all(&site.portal).await.expect("cases");
    assert_eq!(
        told,
        [
            "",
            "told nobody: there is no gateway for sms; no im, no mail address in team phones",
            "told nobody: no phone, no im, no mail address in team nobody",
            "told nobody: the action names no team, and has no callback",
            "told nobody: action 9 of the rule is gone",
            "told nobody: the rule has no action",
        ]
    );
    let counts = plan::MISSING.map(|missing| counters.untold_counter(missing).get());
    assert_eq!(counts, [2, 1, 1, 1]);
    // The next event of an alarm that somebody is told of says so.
    query("UPDATE falcon_portal.action SET uic = 'ops' WHERE id = 2").execute(&site.portal).await.expect("update");
    site.queue.append(&[event(2, "b", Status::Ok, 1)]).expect("append");
    alarm.more = true;
    alarm.step().await;
    assert_eq!(site.count("event_cases WHERE told = '' AND endpoint = 'b'").await, 1);
}

/// An old alarm takes the events from Redis: cases are kept for the page, nobody is told from here, and nothing is left
/// that a later start with alarm would tell.
#[tokio::test]
async fn without_the_role_events_are_stored_and_nothing_is_delivered() {
    let mut site = site().await;
    site.config.alarm.im = "http://127.0.0.1:1/im".into();
    site.action(1, "ops", "http://127.0.0.1:1/called", "").await;
    site.queue.append(&[problem(1, "a")]).expect("append");
    let (mut alarm, _) = site.alarm().await;
    alarm.intake.step(&mut alarm.deliverer).await.expect("stored");
    assert!(site.count("hawkeye_delivery").await > 0);
    drop(alarm);
    site.config.roles.remove(&crate::config::Role::Alarm);
    site.queue.append(&[problem(1, "b")]).expect("append");
    let (mut alarm, _) = site.alarm().await;
    alarm.step().await;
    assert_eq!(site.health.reasons(), []);
    assert_eq!((site.count("event_cases").await, site.count("hawkeye_delivery").await), (2, 0));
    assert_eq!(site.count("event_cases WHERE endpoint = 'b' AND told = ''").await, 1);
}

/// A script of a low priority that hangs holds up no call of a high one to the same host.
#[tokio::test]
async fn high_priorities_do_not_wait_for_low_ones() {
    let site = site().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    site.action(1, "nobody", &format!("http://{}/run", listener.local_addr().expect("bound")), "").await;
    let of = |priority: i32, host: &str| with_priority(problem(1, host), priority);
    site.queue.append(&[of(5, "a"), of(5, "b"), of(4, "c")]).expect("append");
    let running = site.start().await;
    let accept = async || {
        let (stream, _) = in_time("a call", listener.accept()).await.expect("a connection");
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        in_time("its first line", lines.read_line(&mut line)).await.expect("readable");
        (lines, line)
    };
    // Nobody answers: each keeps its slot.
    let (_first, line) = accept().await;
    assert!(line.contains("endpoint=c"), "the higher of the low ones: {line}");
    site.queue.append(&[of(0, "d")]).expect("append");
    let (_second, line) = accept().await;
    assert!(line.contains("endpoint=d"), "{line}");
    running.kill().await;
}

#[tokio::test]
async fn deliveries_are_given_up_and_counted() {
    let mut site = site().await;
    let (_closed, down) = closed_port();
    site.action(1, "", &down, "").await;
    site.action(2, "", "gopher://x/", "").await;
    site.limits.give_up_after = 0;
    let running = site.start().await;
    site.queue.append(&[problem(1, "a"), problem(2, "a"), problem(9, "a"), problem(0, "a")]).expect("append");
    until("two deliveries given up", async || running.counters.count(Kind::Callback, Ended::GivenUp) >= 2).await;
    assert_eq!(running.counters.untold_counter(plan::Missing::Action).get(), 2);
    running.stop().await;
    assert_eq!((site.count("events").await, site.count("hawkeye_delivery").await), (4, 0));
}

/// Has alarm see clocks that went on together by so many seconds since its start.
fn run_for(alarm: &mut Alarm, seconds: u32) {
    let now = crate::clock::now() + i64::from(seconds);
    alarm.deliverer.aging.look_at(now, Duration::from_secs(u64::from(seconds)), now);
}

/// A run whose clock was two days behind leaves deliveries, and the next one, whose clock is right, finds them old.
#[tokio::test]
async fn what_waits_since_a_clock_was_behind_is_tried_for_an_hour() {
    let site = site().await;
    let (socket, down) = closed_port();
    site.action(1, "", &down, "").await;
    let events: Vec<Event> = (0..3).map(|n| problem(1, &format!("host-{n}"))).collect();
    site.queue.append(&events).expect("append");
    site.alarm().await.0.step().await;
    query("UPDATE alarms.hawkeye_delivery SET created_at = created_at - 172800, begun_at = 0, due_at = 0")
        .execute(&site.portal)
        .await
        .expect("update");
    let (mut alarm, counters) = site.alarm().await;
    for seconds in [0, 3599] {
        run_for(&mut alarm, seconds);
        alarm.deliverer.tidy().await.expect("tidy");
    }
    assert_eq!((site.count("hawkeye_delivery").await, counters.dropped.get()), (3, 0));
    let mut receiver = Receiver::listen(socket.listen(8).expect("listens"), Arc::new(|_, _| (200, "ok".to_string())));
    let running = site.start().await;
    for _ in 0..3 {
        receiver.next().await;
    }
    until("no delivery", async || site.count("hawkeye_delivery").await == 0).await;
    assert_eq!((running.counters.dropped.get(), running.counters.count(Kind::Callback, Ended::Done)), (0, 3));
    running.stop().await;
}

#[tokio::test]
async fn too_many_or_too_old_deliveries_lose_the_oldest() {
    let mut site = site().await;
    let (_closed, down) = closed_port();
    site.action(1, "", &down, "").await;
    site.limits.deliveries_max = 5;
    let events: Vec<Event> = (0..8).map(|n| problem(1, &format!("host-{n}"))).collect();
    site.queue.append(&events).expect("append");
    let (mut alarm, counters) = site.alarm().await;
    alarm.step().await;
    assert_eq!((site.count("hawkeye_delivery").await, counters.dropped.get()), (5, 3));
    assert_eq!(site.count("hawkeye_delivery WHERE body LIKE '%host-7%'").await, 1, "the newest stay");
    assert_eq!(site.count("event_cases WHERE told LIKE '%more than alarm.deliveries_max waited'").await, 3);
    query("UPDATE alarms.hawkeye_delivery SET created_at = created_at - 90000 WHERE body LIKE '%host-3%'")
        .execute(&site.portal)
        .await
        .expect("update");
    alarm.deliverer.tidy().await.expect("tidy");
    assert_eq!(counters.dropped.get(), 3, "its age is nothing that this process has seen");
    run_for(&mut alarm, 3600);
    alarm.deliverer.tidy().await.expect("tidy");
    assert_eq!((site.count("hawkeye_delivery").await, counters.dropped.get()), (4, 4));
    assert_eq!(site.count("event_cases WHERE told LIKE '%longer than alarm.give_up_after'").await, 1);
    assert_eq!(site.count("events").await, 8, "events are kept whatever becomes of their deliveries");
}

#[tokio::test]
async fn a_database_that_fails_delays_and_loses_nothing() {
    let site = site().await;
    let mut receiver = Receiver::start().await;
    site.action(1, "", &receiver.url, "").await;
    let sql = |text: &'static str| query(text).execute(&site.portal);
    sql("ALTER TABLE alarms.events RENAME TO alarms.away").await.expect("rename");
    let (mut alarm, counters) = site.alarm().await;
    site.queue.append(&[problem(1, "a")]).expect("append");
    alarm.step().await;
    assert_eq!((counters.failures.get(), site.count("event_cases").await), (1, 0));
    assert_eq!(delivery_cursor(&site).await, 0);
    sql("ALTER TABLE alarms.away RENAME TO alarms.events").await.expect("rename");
    alarm.failed_until = None;
    alarm.step().await;
    receiver.next().await;
    assert_eq!((site.count("event_cases").await, site.count("events").await), (1, 1));
    assert!(delivery_cursor(&site).await > 0);
}

async fn delivery_cursor(site: &Site) -> u64 {
    crate::portal::delivery::cursor(&site.portal).await.expect("a cursor")
}

/// Alarm is behind when the rule goes: the PROBLEM that it still has to take must not open the case for ever.
#[tokio::test]
async fn a_case_is_closed_behind_the_events_of_its_alarm() {
    let site = site().await;
    site.queue.append(&[problem(0, "a"), problem(0, "b")]).expect("append");
    site.queue
        .append_mixed(
            &[Entry::Forget(problem(0, "a").id()), Entry::Forget(problem(0, "unknown").id())],
            &events::Problems::default(),
        )
        .expect("forget");
    let (mut alarm, _) = site.alarm().await;
    alarm.step().await;
    assert_eq!(standing(&site).await, [("a", "OK"), ("b", "PROBLEM")].map(owned));
    assert_eq!(site.count("events").await, 3, "two PROBLEMs and the closing");
    assert_eq!(site.count("event_cases WHERE closed_note = 'the rule no longer applies'").await, 1);
    // The same alarm later: what is open again stays open, and a case that has recovered needs no closing.
    site.queue.append(&[event(0, "a", Status::Problem, 2), event(0, "b", Status::Ok, 1)]).expect("append");
    site.queue.append_mixed(&[Entry::Forget(problem(0, "b").id())], &events::Problems::default()).expect("forget");
    alarm.more = true;
    alarm.step().await;
    assert_eq!(standing(&site).await, [("a", "PROBLEM"), ("b", "OK")].map(owned));
    assert_eq!(site.count("events").await, 5);
}

#[tokio::test]
async fn a_crash_after_a_rule_went_leaves_no_case_open() {
    let mut site = site().await;
    site.queue.append(&[problem(0, "a")]).expect("append");
    let (mut alarm, _) = site.alarm().await;
    alarm.step().await;
    assert_eq!(standing(&site).await, [owned(("a", "PROBLEM"))]);
    site.queue.append_mixed(&[Entry::Forget(problem(0, "a").id())], &events::Problems::default()).expect("forget");
    drop(alarm);
    site.queue = open_queue(&site.dir);
    assert_eq!(site.queue.stats().open_problems, 0, "the judge has nothing to restore or to close");
    let (mut alarm, _) = site.alarm().await;
    alarm.step().await;
    assert_eq!(standing(&site).await, [owned(("a", "OK"))]);
    assert_eq!(site.count("events").await, 2);
}

/// A closing alone wakes alarm.
#[tokio::test]
async fn a_closing_is_not_left_until_the_next_event() {
    let site = site().await;
    site.queue.append(&[problem(0, "a")]).expect("append");
    let running = site.start().await;
    until("the case", async || !standing(&site).await.is_empty()).await;
    site.queue.append_mixed(&[Entry::Forget(problem(0, "a").id())], &events::Problems::default()).expect("forget");
    until("the case's end", async || standing(&site).await == [owned(("a", "OK"))]).await;
    running.stop().await;
}

fn owned((endpoint, status): (&str, &str)) -> (String, String) {
    (endpoint.to_string(), status.to_string())
}

/// Endpoint and status of each case.
async fn standing(site: &Site) -> Vec<(String, String)> {
    query("SELECT endpoint, status FROM alarms.event_cases ORDER BY endpoint").all(&site.portal).await.expect("cases")
}

#[tokio::test]
async fn old_events_are_deleted_in_batches() {
    let site = site().await;
    site.queue.append(&[problem(0, "a"), event(0, "a", Status::Ok, 1)]).expect("append");
    let (mut alarm, _) = site.alarm().await;
    alarm.step().await;
    assert_eq!(site.count("events").await, 2);
    alarm.event_retention = 7 * 86_400;
    alarm.purge().await.expect("delete");
    assert_eq!((site.count("events").await, site.count("event_cases").await), (0, 1));
}

/// What nobody has goes at the second look, and not while events wait that may name it.
#[tokio::test]
async fn actions_go_behind_the_events_that_name_them() {
    let site = site().await;
    site.action(7, "", "", "").await;
    let (mut alarm, _) = site.alarm().await;
    let mut left = async |more: bool| -> i64 {
        (alarm.more, alarm.unowned_at) = (more, Instant::now());
        alarm.purge().await.expect("a purge");
        query("SELECT count(*) FROM falcon_portal.action").one(&site.portal).await.expect("a count")
    };
    assert_eq!((left(false).await, left(true).await, left(true).await, left(false).await), (1, 1, 1, 0));
}

#[tokio::test]
async fn a_storm_is_stored_in_order_and_its_segments_are_deleted() {
    let mut site = site().await;
    let options = Options { fsync: Fsync::Never, segment_bytes: 4000, ..Options::default() };
    site.queue = Arc::new(
        EventQueue::open_with(&site.dir.path().join("storm"), options, crate::clock::now()).expect("a queue").0,
    );
    for step in 1..=500 {
        site.queue.append(&[event(0, "a", Status::Problem, step)]).expect("append");
        if step % 10 == 0 {
            site.queue.tick().expect("a second later");
        }
    }
    assert!(site.queue.stats().segments > 10);
    let (mut alarm, _) = site.alarm().await;
    while alarm.more {
        alarm.step().await;
    }
    let steps: Vec<i64> = query("SELECT step FROM alarms.events ORDER BY id").all(&site.portal).await.expect("events");
    assert_eq!(steps, (1..=500).collect::<Vec<_>>());
    let mut passing = Passing::new(site.portal.clone(), site.queue.clone(), &site.health);
    passing.step().await;
    assert!(site.queue.stats().segments > 10, "the cursor is not on the disk, and would be lost with the power");
    site.portal.make_safe().await.expect("a disk");
    passing.step().await;
    assert!(site.queue.stats().segments <= 2, "{:?}", site.queue.stats());
}

#[tokio::test]
async fn the_role_runs_and_stops() {
    let mut site = site().await;
    let mut receiver = Receiver::start().await;
    site.action(1, "", &receiver.url, "").await;
    site.config.alarm.sms = "http://127.0.0.1:9/".into();
    let metrics = Arc::new(Metrics::new());
    let (stop, shutdown) = watch::channel(false);
    let config = Arc::new(site.config.clone());
    let (portal, queue, health) = (site.portal.clone(), site.queue.clone(), site.health.clone());
    let role = tokio::spawn(run(portal, queue, config, Believed::default(), metrics.clone(), health, shutdown));
    site.queue.append(&[problem(1, "a")]).expect("append");
    receiver.next().await;
    stop.send(true).expect("the role runs");
    in_time("the end of the role", role).await.expect("no panic").expect("no error");
    assert_eq!(site.count("hawkeye_delivery").await, 0, "the end of the attempt under way was written down");
    let page = metrics.text();
    for line in [
        "hawkeye_alarm_events_total{status=\"PROBLEM\"} 1",
        "hawkeye_alarm_deliveries_total{kind=\"callback\",result=\"done\"} 1",
        "hawkeye_open_problems 1",
    ] {
        assert!(page.contains(line), "{line} in\n{page}");
    }
}

#[test]
fn links_point_to_a_reachable_address() {
    let check = |dashboard: &str, listen: &str, expected: &str| {
        let mut config = Config::default();
        config.alarm.dashboard = dashboard.into();
        config.listen.api = listen.into();
        assert_eq!(super::dashboard(&config), expected);
    };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    check("https://d.example", "127.0.0.1:8080", "https://d.example");
    check("", "127.0.0.1:8080", "http://127.0.0.1:8080");
    check("", "0.0.0.0:81", &format!("http://{host}:81"));
}
