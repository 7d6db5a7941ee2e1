//! Against a server in this process that speaks as much RESP as is needed, and breaks where it is told to.

use super::*;
use crate::watch::health::Health;
use events::Fsync;
use events::{AlarmEnd, Options};
use model::{Event, EventRule, Expression, Status, Strategy};
use net::patience::{PATIENCE, in_time, until};
use proptest::prelude::{Just, ProptestConfig, Strategy as _, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Fast enough for tests; nothing depends on how fast.
const FAST: Pauses =
    Pauses { pause: Duration::from_millis(1), pause_max: Duration::from_millis(2), idle: Duration::from_secs(3600) };

/// Treatment of one LPUSH by the server (or, `Lost`, of a connection).
#[derive(Clone, Debug)]
enum Manner {
    /// Refuses with this error and changes nothing.
    Refuse(&'static str),
    /// Closes after so many bytes of it, before anything is done.
    CutRequest(usize),
    /// Does it, and closes after so many bytes of the answer.
    CutAnswer(usize),
    /// Does it, and says something else.
    Babble(&'static [u8]),
}

#[derive(Default)]
struct Told {
    lists: Mutex<BTreeMap<String, Vec<String>>>,
    /// Treatments of the next ones; a server that has none left treats them well.
    manners: Mutex<VecDeque<Manner>>,
    commands: Mutex<Vec<Vec<String>>>,
    password: Option<&'static str>,
    changed: Notify,
}

impl Told {
    /// Whether the connection ends within this LPUSH.
    fn cuts(&self, bytes: &[u8]) -> bool {
        let mut manners = self.manners.lock().expect("unbroken");
        let of_a_push = bytes.windows(5).any(|word| word == b"LPUSH");
        let cut = of_a_push && matches!(manners.front(), Some(Manner::CutRequest(at)) if bytes.len() >= *at);
        if cut {
            manners.pop_front();
        }
        cut
    }
}

struct Server {
    told: Arc<Told>,
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(told: Told) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let told = Arc::new(told);
        let shared = told.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Server { told, address, task }
    }

    fn url(&self) -> RedisUrl {
        RedisUrl::parse(&self.address).expect("valid")
    }

    /// Oldest first: what BRPOP would give.
    fn list(&self, key: &str) -> Vec<String> {
        self.told.lists.lock().expect("unbroken").get(key).cloned().unwrap_or_default()
    }

    /// Returns when `is_so`, which is looked at after each command that came.
    async fn wait(&self, is_so: impl Fn(&Server) -> bool) {
        let changes = async {
            while !is_so(self) {
                self.told.changed.notified().await;
            }
        };
        if timeout(PATIENCE, changes).await.is_err() {
            panic!("missing after {PATIENCE:?}; Redis has {:?}", self.told.lists.lock().expect("unbroken"));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One whole command at the beginning of `bytes`, and its length.
fn parse(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let line = |at: usize| {
        let end = bytes[at..].windows(2).position(|two| two == b"\r\n")? + at;
        Some((std::str::from_utf8(&bytes[at + 1..end]).expect("ASCII").parse::<usize>().expect("a number"), end + 2))
    };
    let (count, mut at) = bytes.first().and_then(|_| line(0))?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let (length, start) = bytes.get(at).and_then(|_| line(at))?;
        let part = bytes.get(start..start + length)?;
        bytes.get(start + length..start + length + 2)?;
        parts.push(String::from_utf8(part.to_vec()).expect("UTF-8"));
        at = start + length + 2;
    }
    Some((parts, at))
}

async fn serve(mut stream: TcpStream, told: Arc<Told>) {
    let (mut bytes, mut known) = (Vec::new(), told.password.is_none());
    loop {
        if told.cuts(&bytes) {
            return;
        }
        let Some((command, used)) = parse(&bytes) else {
            if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                return;
            }
            continue;
        };
        bytes.drain(..used);
        told.commands.lock().expect("unbroken").push(command.clone());
        let (answer, cut) = answer(&command, &told, &mut known);
        told.changed.notify_one();
        if stream.write_all(&answer[..cut.unwrap_or(answer.len()).min(answer.len())]).await.is_err() || cut.is_some() {
            return;
        }
    }
}

fn answer(command: &[String], told: &Told, known: &mut bool) -> (Vec<u8>, Option<usize>) {
    let text = |text: &str| (format!("{text}\r\n").into_bytes(), None);
    match command[0].as_str() {
        "AUTH" => {
            *known = told.password == command.last().map(String::as_str);
            text(if *known { "+OK" } else { "-WRONGPASS invalid username-password pair or user is disabled." })
        }
        _ if !*known => text("-NOAUTH Authentication required."),
        "PING" => text("+PONG"),
        "SELECT" => text("+OK"),
        "LPUSH" => {
            let manner = told.manners.lock().expect("unbroken").pop_front();
            if let Some(Manner::Refuse(error)) = manner {
                return text(error);
            }
            let mut lists = told.lists.lock().expect("unbroken");
            let list = lists.entry(command[1].clone()).or_default();
            list.extend_from_slice(&command[2..]);
            let (answer, _) = text(&format!(":{}", list.len()));
            match manner {
                Some(Manner::CutAnswer(at)) => (answer, Some(at)),
                Some(Manner::Babble(babble)) => (babble.to_vec(), None),
                _ => (answer, None),
            }
        }
        _ => text("-ERR unknown command"),
    }
}

/// `number` tells events apart.
fn event(priority: i32, number: i64, status: Status) -> Event {
    let strategy = Strategy { id: 1, metric: "cpu.idle".into(), priority, note: "<&>".into(), ..Strategy::default() };
    Event {
        rule: EventRule::Strategy(Arc::new(strategy)),
        status,
        endpoint: "host".into(),
        tags: "k=v".into(),
        left_value: 1.5,
        current_step: 1,
        time: number,
        explanation: Some(Box::default()),
    }
}

fn ok(priority: i32, number: i64) -> Event {
    event(priority, number, Status::Ok)
}

fn numbers(list: &[String]) -> Vec<i64> {
    list.iter().map(|json| Event::from_json(json).expect("an event").time).collect()
}

fn open_queue(dir: &Path) -> Arc<EventQueue> {
    let options = Options { fsync: Fsync::Never, segment_bytes: 4000, bytes_max: 1 << 20, reserve_bytes: 0 };
    Arc::new(EventQueue::open_with(&dir.join("events"), options, crate::clock::now()).expect("a queue").0)
}

struct Running {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Result<()>>,
    shared: Arc<Shared>,
}

fn outage() -> Outage {
    Health::default().outage_logged_elsewhere("events wait")
}

fn start(queue: &Arc<EventQueue>, url: &RedisUrl, dir: &Path) -> Running {
    start_told(queue, url, dir, outage())
}

fn start_told(queue: &Arc<EventQueue>, url: &RedisUrl, dir: &Path, outage: Outage) -> Running {
    let pusher = Pusher::open(queue.clone(), url, dir, FAST, outage).expect("it opens");
    let (stop, stopping) = watch::channel(false);
    let shared = pusher.shared.clone();
    Running { stop, shared, task: tokio::spawn(pusher.run(stopping)) }
}

impl Running {
    async fn stop(self) {
        self.stop.send_replace(true);
        in_time("the end of the role", self.task).await.expect("no panic").expect("no error");
    }

    /// Ends the pusher as `kill -9` does.
    async fn kill(self) {
        self.task.abort();
        assert!(in_time("the end of the task", self.task).await.is_err_and(|error| error.is_cancelled()), "it ran");
    }
}

#[tokio::test]
async fn events_are_pushed_as_the_original_does() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, server) = (open_queue(dir.path()), Server::start(Told::default()).await);
    let expression = Expression { id: 5, metric: "m".into(), priority: 6, ..Expression::default() };
    let by_expression = Event { rule: EventRule::Expression(Arc::new(expression)), ..ok(0, 4) };
    let events = [ok(0, 1), ok(3, 2), event(0, 3, Status::Problem), by_expression];
    queue.append(&events).expect("append");
    let running = start(&queue, &server.url(), dir.path());
    server.wait(|server| !server.list("event:p6").is_empty()).await;
    assert_eq!(server.list("event:p0"), [events[0].to_json(), events[2].to_json()]);
    assert_eq!(server.list("event:p3"), [events[1].to_json()]);
    assert_eq!(server.list("event:p6"), [events[3].to_json()]);
    assert!(!server.list("event:p0")[0].contains("explanation"), "the original's JSON");
    running.stop().await;
    let commands = server.told.commands.lock().expect("unbroken").clone();
    let names: Vec<&str> = commands.iter().map(|command| command[0].as_str()).collect();
    assert_eq!(names, ["LPUSH", "LPUSH", "LPUSH", "PING"], "one for each queue, and no more than proxies know");
    assert_eq!(queue.lag(READER).records, 0);
}

/// An alarm that ends otherwise is an event with hawkeye's semantics; without them nothing is said.
#[tokio::test]
async fn closings_with_a_reason_are_pushed_and_silent_ones_are_not() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, server) = (open_queue(dir.path()), Server::start(Told::default()).await);
    let problem = |host: &str| Event { endpoint: host.into(), ..event(0, 10, Status::Problem) };
    queue.append(&[problem("a"), problem("b")]).expect("append");
    let over = AlarmEnd { id: problem("a").id(), reason: "the rule was deleted".into(), time: 20 };
    let ends = [Entry::End(over), Entry::Forget(problem("b").id())];
    queue.append_mixed(&ends, &queue.read_problems(&ends)).expect("append");
    let running = start(&queue, &server.url(), dir.path());
    server.wait(|server| server.list("event:p0").len() == 3).await;
    running.stop().await;
    let last = Event::from_json(&server.list("event:p0")[2]).expect("an event");
    assert_eq!((last.endpoint.as_str(), last.status, last.time), ("a", Status::Ok, 20));
    assert_eq!(queue.lag(READER).records, 0, "what is not pushed is handled, too");
    assert_eq!(server.list("event:p0").len(), 3);
}

#[tokio::test]
async fn an_error_of_redis_moves_nothing_and_repeats_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let errors = [
        "-LOADING Redis is loading the dataset in memory",
        "-NOAUTH Authentication required.",
        "-READONLY You can't write against a read only replica.",
        "-OOM command not allowed when used memory > 'maxmemory'.",
        "-MISCONF Redis is configured to save RDB snapshots",
        "-WRONGTYPE Operation against a key holding the wrong kind of value",
        "-ERR unknown command 'LPUSH'",
        "-MOVED 3999 127.0.0.1:6381",
        "-",
    ];
    let told = Told { manners: Mutex::new(errors.map(Manner::Refuse).into()), ..Told::default() };
    let (queue, server) = (open_queue(dir.path()), Server::start(told).await);
    queue.append(&[ok(0, 1), ok(1, 2), ok(0, 3)]).expect("append");
    let before = CursorFile::new(dir.path());
    let running = start(&queue, &server.url(), dir.path());
    let at_start = before.load().expect("whole").expect("written at once");
    server.wait(|server| server.told.manners.lock().expect("unbroken").len() < 3).await;
    assert_eq!(before.load().expect("whole"), Some(at_start));
    server.wait(|server| server.list("event:p1").len() == 1).await;
    let shared = running.shared.clone();
    running.stop().await;
    assert_eq!(numbers(&server.list("event:p0")), [1, 3]);
    assert_eq!(numbers(&server.list("event:p1")), [2]);
    assert_eq!((shared.errors.load(Relaxed), shared.pushed.load(Relaxed)), (errors.len() as u64, 3));
    assert!(before.load().expect("whole") > Some(at_start));
}

/// Wherever the connection breaks, nothing is lost; what was done and not answered for is done again, in order.
#[tokio::test]
async fn a_connection_may_break_at_each_byte() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, server) = (open_queue(dir.path()), Server::start(Told::default()).await);
    let running = start(&queue, &server.url(), dir.path());
    let request = ok(0, 1000).to_json().len() + "*3\r\n$5\r\nLPUSH\r\n$8\r\nevent:p0\r\n$416\r\n\r\n".len();
    let cuts = (20..request).map(Manner::CutRequest).chain((0..5).map(Manner::CutAnswer));
    let mut expected = Vec::new();
    for (number, manner) in (1000..).zip(cuts) {
        server.told.manners.lock().expect("unbroken").push_back(manner.clone());
        queue.append(&[ok(0, number)]).expect("append");
        expected.push(number);
        if matches!(manner, Manner::CutAnswer(at) if at < 4) {
            expected.push(number);
        }
        server.wait(|server| server.list("event:p0").len() >= expected.len()).await;
    }
    running.stop().await;
    let got = numbers(&server.list("event:p0"));
    // An answer of five digits cut by one may have come whole but for its end.
    assert_eq!(got[..expected.len()], expected, "{} events", got.len());
}

#[tokio::test]
async fn health_says_that_events_wait() {
    let dir = tempfile::tempdir().expect("temp dir");
    let refusal = Manner::Refuse("-NOAUTH Authentication required.");
    let told = Told { manners: Mutex::new([refusal].into()), ..Told::default() };
    let (queue, server, health) = (open_queue(dir.path()), Server::start(told).await, Health::default());
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let away = RedisUrl::parse(&nobody.to_string()).expect("valid");
    let text = "events wait for Redis";
    let running = start_told(&queue, &away, dir.path(), health.outage_logged_elsewhere(text));
    let says = async |part: &str| {
        until(part, async || health.reasons().iter().any(|reason| reason.line().contains(part))).await;
    };
    says("start Redis, or correct judge.redis_url").await;
    assert_eq!(health.reasons()[0].what, text);
    running.stop().await;
    assert_eq!(health.reasons(), [], "who has ended tells nothing");

    queue.append(&[ok(0, 1)]).expect("append");
    let slow = Pauses { pause: Duration::from_millis(500), ..FAST };
    let outage = health.outage_logged_elsewhere(text);
    let pusher = Pusher::open(queue.clone(), &server.url(), dir.path(), slow, outage).expect("it opens");
    let (_stop, stopping) = watch::channel(false);
    let task = tokio::spawn(pusher.run(stopping));
    says("correct the password in judge.redis_url").await;
    until("no reason", async || health.reasons().is_empty()).await;
    assert_eq!(server.list("event:p0").len(), 1);
    task.abort();
}

#[tokio::test]
async fn babble_is_no_answer() {
    let dir = tempfile::tempdir().expect("temp dir");
    let babble: [&[u8]; 9] = [
        b"\0\0\0\0\r\n",
        b"+OK\r\n",
        b"$5\r\nhello\r\n",
        b":x\r\n",
        b"$-9\r\n",
        b"*1000000000\r\n$-1\r\nx\r\n",
        b"$3000000000\r\n",
        b"*2147483647\r\n",
        b"\xff\xff\r\n",
    ];
    let told = Told { manners: Mutex::new(babble.map(Manner::Babble).into()), ..Told::default() };
    let (queue, server) = (open_queue(dir.path()), Server::start(told).await);
    queue.append(&[ok(0, 1)]).expect("append");
    let running = start(&queue, &server.url(), dir.path());
    server.wait(|server| server.list("event:p0").len() == babble.len() + 1).await;
    running.stop().await;
    assert_eq!(queue.lag(READER).records, 0);
}

#[tokio::test]
async fn logs_in_and_chooses_the_database() {
    let dir = tempfile::tempdir().expect("temp dir");
    let told = Told { password: Some("pa@ss"), ..Told::default() };
    let (queue, server) = (open_queue(dir.path()), Server::start(told).await);
    queue.append(&[ok(0, 1)]).expect("append");
    for wrong in ["", "wrong@"] {
        let url = RedisUrl::parse(&format!("{wrong}{}", server.address)).expect("valid");
        let mut pusher = Pusher::open(queue.clone(), &url, dir.path(), FAST, outage()).expect("it opens");
        let Err(PushError::Redis(error)) = pusher.step().await else { panic!("{wrong:?} let it in") };
        assert_eq!(fix(&error), "correct the password in judge.redis_url", "{error}");
    }
    let url = RedisUrl::parse(&format!("redis://:pa%40ss@{}/7", server.address)).expect("valid");
    let running = start(&queue, &url, dir.path());
    server.wait(|server| server.list("event:p0").len() == 1).await;
    running.stop().await;
    let commands = server.told.commands.lock().expect("unbroken").clone();
    assert!(commands.contains(&vec!["AUTH".to_string(), "pa@ss".to_string()]), "{commands:?}");
    assert!(commands.contains(&vec!["SELECT".to_string(), "7".to_string()]), "{commands:?}");
}

#[tokio::test]
async fn begins_at_the_end_of_an_old_queue_and_then_where_it_was() {
    let dir = tempfile::tempdir().expect("temp dir");
    open_queue(dir.path()).append(&[ok(0, 1), ok(0, 2)]).expect("append");
    let server = Server::start(Told::default()).await;
    let queue = open_queue(dir.path());
    queue.append(&[ok(0, 3)]).expect("between the opening and the first start");
    drop(Pusher::open(queue.clone(), &server.url(), dir.path(), FAST, outage()).expect("it opens"));
    drop(queue);
    // It was ended before it pushed anything.
    let queue = open_queue(dir.path());
    queue.append(&[ok(0, 4)]).expect("append");
    let running = start(&queue, &server.url(), dir.path());
    server.wait(|server| server.list("event:p0").len() == 2).await;
    running.stop().await;
    assert_eq!(numbers(&server.list("event:p0")), [3, 4]);
    drop(queue);

    // Off for a while, and on again.
    off(dir.path()).expect("removed");
    open_queue(dir.path()).append(&[ok(0, 5)]).expect("append");
    let queue = open_queue(dir.path());
    let running = start(&queue, &server.url(), dir.path());
    queue.append(&[ok(0, 6)]).expect("append");
    server.wait(|server| server.list("event:p0").len() == 3).await;
    running.stop().await;
    assert_eq!(numbers(&server.list("event:p0")), [3, 4, 6]);
}

#[test]
fn a_damaged_cursor_ends_the_start() {
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::write(dir.path().join("redis-cursor"), "7\n").expect("writable");
    let url = RedisUrl::parse("127.0.0.1:1").expect("valid");
    let opened = open(&open_queue(dir.path()), &url, dir.path(), &Metrics::new(), outage());
    let error = format!("{:#}", opened.err().expect("damaged"));
    assert!(error.contains("redis-cursor") && error.contains("delete it"), "{error}");
}

/// Redis is away for long, and the backlog has its bound.
#[tokio::test]
async fn a_backlog_drops_its_oldest_and_says_so() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = open_queue(dir.path());
    let server = Server::start(Told::default()).await;
    let metrics = Arc::new(Metrics::new());
    let pusher = Pusher::open(queue.clone(), &server.url(), dir.path(), FAST, outage()).expect("it opens");
    pusher.show_on(&metrics);
    for number in 0..3000 {
        queue.append(&[ok(0, number)]).expect("the judge goes on");
        if number % 10 == 0 {
            queue.tick().expect("a second later");
        }
    }
    let lag = queue.lag(READER);
    assert!(lag.dropped > 500 && lag.dropped + lag.records == 3000, "{lag:?}");
    let page = metrics.text();
    let shows = |text: String| assert!(page.contains(&text), "{text} in {page}");
    shows(format!("hawkeye_redis_dropped_total {}\n", lag.dropped));
    shows(format!("hawkeye_redis_lag_events {}\n", lag.records));
    shows(format!("hawkeye_redis_lag_bytes {}\n", lag.bytes));
    shows("hawkeye_redis_connected 0\n".to_string());
    let (stop, stopping) = watch::channel(true);
    pusher.run(stopping).await.expect("a stop pushes what is left");
    drop(stop);
    assert_eq!(numbers(&server.list("event:p0")), (lag.dropped as i64..3000).collect::<Vec<_>>());
    let page = metrics.text();
    assert!(page.contains(&format!("hawkeye_redis_events_pushed_total {}\n", lag.records)), "{page}");
    assert!(page.contains("hawkeye_redis_connected 1\n") && page.contains("hawkeye_redis_lag_events 0\n"), "{page}");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_redis_that_is_away() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = open_queue(dir.path());
    queue.append(&[ok(0, 1)]).expect("append");
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let url = RedisUrl::parse(&nobody.to_string()).expect("valid");
    start(&queue, &url, dir.path()).stop().await;
    assert_eq!(queue.lag(READER).records, 1);
    // One that takes the connection and never says a word: the stop gives up after DRAIN, not after TIMEOUT.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = RedisUrl::parse(&silent.local_addr().expect("bound").to_string()).expect("valid");
    start(&queue, &url, dir.path()).stop().await;
    assert_eq!(queue.lag(READER).records, 1);
}

#[tokio::test]
async fn a_stop_pushes_a_batch_whole_of_which_redis_has_a_part() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (queue, server) = (open_queue(dir.path()), Server::start(Told::default()).await);
    queue.append(&[ok(1, 1), ok(0, 2)]).expect("append");
    let manners = [Manner::Babble(b":1\r\n"), Manner::Refuse("-LOADING Redis is loading the dataset in memory")];
    server.told.manners.lock().expect("unbroken").extend(manners);
    let pusher = Pusher::open(queue.clone(), &server.url(), dir.path(), FAST, outage()).expect("it opens");
    let (_stop, stopping) = watch::channel(true);
    in_time("the end of the role", pusher.run(stopping)).await.expect("no error");
    assert_eq!((numbers(&server.list("event:p1")), numbers(&server.list("event:p0"))), (vec![1], vec![2]));
    assert_eq!(queue.lag(READER).records, 0);
}

#[test]
fn pauses_grow_to_their_bound() {
    let dir = tempfile::tempdir().expect("temp dir");
    let url = RedisUrl::parse("127.0.0.1:1").expect("valid");
    let mut pusher = Pusher::open(open_queue(dir.path()), &url, dir.path(), PAUSES, outage()).expect("it opens");
    let refused = RedisError::from((ErrorKind::Io, "refused"));
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let pause = pusher.note_failure(&PushError::Redis(refused.clone())).as_secs_f64();
        assert!((0.5..=1.0).contains(&(pause / f64::from(seconds))), "{pause} of {seconds} s");
    }
    pusher.note_success();
    assert!(pusher.note_failure(&PushError::Redis(refused)) <= Duration::from_secs(1));
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<i32>),
    Misbehave(Manner),
    Kill,
    Stop,
}

/// (proptest's Strategy, not the field's.)
fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let manner = prop_oneof![
        Just(Manner::Refuse("-LOADING Redis is loading the dataset in memory")),
        (20..2000usize).prop_map(Manner::CutRequest),
        (0..6usize).prop_map(Manner::CutAnswer),
    ];
    let step = prop_oneof![
        6 => prop::collection::vec(0..3i32, 1..6).prop_map(Step::Append),
        3 => manner.prop_map(Step::Misbehave),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any order of events, broken connections, refusals and restarts: every event is in its queue; the first of each
    /// are in order; and without broken answers and kills there is none twice.
    #[test]
    fn all_arrive_in_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let (server, sent, repeats) = runtime.block_on(async {
            let dir = tempfile::tempdir().expect("temp dir");
            let server = Server::start(Told::default()).await;
            let mut queue = open_queue(dir.path());
            let mut running = start(&queue, &server.url(), dir.path());
            let (mut sent, mut count, mut repeats) = (BTreeMap::<i32, Vec<i64>>::new(), 0, false);
            for step in steps {
                match step {
                    Step::Append(priorities) => {
                        let events: Vec<Event> = priorities.into_iter().map(|priority| {
                            count += 1;
                            sent.entry(priority).or_default().push(count);
                            ok(priority, count)
                        }).collect();
                        queue.append(&events).expect("append");
                    }
                    Step::Misbehave(manner) => {
                        repeats |= matches!(manner, Manner::CutAnswer(_));
                        server.told.manners.lock().expect("unbroken").push_back(manner);
                    }
                    Step::Kill | Step::Stop => {
                        if matches!(step, Step::Kill) {
                            repeats = true;
                            running.kill().await;
                            // What a blocking thread had begun ends here too, as it would with its process.
                            until("the end of the blocking thread", async || Arc::strong_count(&queue) == 1).await;
                        } else {
                            running.stop().await;
                        }
                        drop(queue);
                        queue = open_queue(dir.path());
                        running = start(&queue, &server.url(), dir.path());
                    }
                }
            }
            let whole = |server: &Server| sent.iter().all(|(priority, numbers_sent)| {
                numbers(&server.list(&format!("event:p{priority}"))).contains(numbers_sent.last().expect("one"))
            });
            server.wait(whole).await;
            running.stop().await;
            (server, sent, repeats)
        });
        for (priority, sent) in sent {
            let got = numbers(&server.list(&format!("event:p{priority}")));
            let mut first: Vec<i64> = Vec::new();
            for number in &got {
                if !first.contains(number) { first.push(*number); }
            }
            prop_assert_eq!(&first, &sent);
            prop_assert!(repeats || got.len() == sent.len(), "{:?}", got);
            prop_assert_eq!(got.last(), sent.last(), "what is repeated is repeated to its end");
        }
    }
}
