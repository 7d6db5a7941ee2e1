//! The queues of others, in a server of this process that speaks as much RESP as is needed.

use super::*;
use crate::config::{Config, Role};
use crate::portal::db::query;
use crate::role::alarm::tests::{Receiver, Running, Site, event, problem, site, with_priority};
use axum::http::StatusCode;
use model::Status;
use net::patience::until;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Lists by their keys; the oldest entry is first, which Redis calls the tail.
type Lists = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

struct Redis {
    lists: Lists,
    /// Whether the answer to what takes entries out of a list is lost, which it may still do.
    loses: Arc<AtomicU8>,
    url: RedisUrl,
    task: tokio::task::JoinHandle<()>,
}

impl Redis {
    async fn start() -> Redis {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = RedisUrl::parse(&listener.local_addr().expect("bound").to_string()).expect("valid");
        let lists = Lists::default();
        let loses: Arc<AtomicU8> = Arc::default();
        let shared = (lists.clone(), loses.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (lists, loses) = shared.clone();
                tokio::spawn(serve(stream, lists, loses));
            }
        });
        Redis { lists, loses, url, task }
    }

    fn push(&self, key: &str, entry: impl Into<String>) {
        self.lists.lock().expect("unbroken").entry(key.to_string()).or_default().push(entry.into());
    }

    fn len(&self, key: &str) -> usize {
        self.lists.lock().expect("unbroken").get(key).map_or(0, Vec::len)
    }

    fn is_empty(&self) -> bool {
        let lists = self.lists.lock().expect("unbroken");
        lists.iter().all(|(name, list)| list.is_empty() || name.ends_with(LEFT))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Leaving is not done, or is done, and not answered.
const FORGETS: u8 = 1;
const KEEPS_SILENT: u8 = 2;

async fn serve(mut stream: TcpStream, lists: Lists, loses: Arc<AtomicU8>) {
    let mut bytes = Vec::new();
    loop {
        let Some((command, used)) = parse(&bytes) else {
            if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                return;
            }
            continue;
        };
        bytes.drain(..used);
        let lost = if command[1..].first().is_some_and(|text| text == LEAVE) { loses.load(SeqCst) } else { 0 };
        if lost == FORGETS {
            return;
        }
        let answer = answer(&command, &lists);
        if lost == KEEPS_SILENT || stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One whole command at the beginning of `bytes`, and its length.
fn parse(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let number = |at: usize| {
        let end = bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")? + at;
        Some((std::str::from_utf8(&bytes[at + 1..end]).ok()?.parse::<usize>().ok()?, end + 2))
    };
    let (count, mut at) = number(0)?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let (length, start) = number(at)?;
        parts.push(String::from_utf8_lossy(bytes.get(start..start + length)?).into_owned());
        at = start + length + 2;
        bytes.get(..at)?;
    }
    Some((parts, at))
}

fn answer(command: &[String], lists: &Lists) -> String {
    let mut lists = lists.lock().expect("unbroken");
    match command[0].as_str() {
        "EVAL" if command[1] == LEAVE => {
            let (list, left) = (&command[3], &command[4]);
            let count: usize = command[5].parse().expect("a number");
            lists.get_mut(list).expect("a list").drain(..count);
            let left = lists.get_mut(left).expect("a number");
            left[0] = (left[0].parse::<usize>().expect("a number") + count).to_string();
            format!(":{}\r\n", left[0])
        }
        "EVAL" => {
            assert_eq!(command[1], TAKE);
            let keys: usize = command[2].parse().expect("a number");
            let (taken, left, queues) = (&command[3], &command[4], &command[5..3 + keys]);
            let max: usize = command[3 + keys].parse().expect("a number");
            lists.entry(left.clone()).or_insert_with(|| vec![command[5 + keys].clone()]);
            let left = lists[left][0].clone();
            let mut long = 0;
            for queue in queues {
                while lists.get(taken).map_or(0, Vec::len) < max {
                    let Some(list) = lists.get_mut(queue).filter(|list| !list.is_empty()) else { break };
                    let entry = list.remove(0);
                    if entry.len() > ENTRY_MAX {
                        long += 1;
                    } else {
                        lists.entry(taken.clone()).or_default().push(entry);
                    }
                }
            }
            let shown = lists.get(taken).cloned().unwrap_or_default();
            let entries: String = shown.iter().rev().map(|entry| format!("${}\r\n{entry}\r\n", entry.len())).collect();
            format!("*3\r\n:{long}\r\n${}\r\n{left}\r\n*{}\r\n{entries}", left.len(), shown.len())
        }
        "SELECT" => "+OK\r\n".to_string(),
        _ => "-ERR unknown command\r\n".to_string(),
    }
}

/// Starts alarm with a reader of these queues.
async fn start(site: &Site, redis: &Redis, with_events: bool) -> Running {
    let (mut alarm, counters) = site.alarm().await;
    let (messages, foreign) = mpsc::channel(1);
    let events = with_events.then(|| (site.queue.clone(), Taken::open(site.dir(), &site.queue)));
    let (channels, outage) = (Channels::of(&site.config.alarm), site.health.outage("Redis cannot be read"));
    let portal = site.portal.for_alarm();
    let inbox = Inbox::new(&redis.url, events, portal, messages, channels, counters.clone(), outage);
    alarm.foreign = Some(foreign);
    site.run(alarm, counters).beside(tokio::spawn(async move { match inbox.expect("a URL").run().await {} }))
}

#[tokio::test]
async fn messages_of_other_tools_are_sent() {
    let (mut site, redis, mut receiver) = (site().await, Redis::start().await, Receiver::start().await);
    site.config.alarm.sms = format!("{}/sms", receiver.url);
    site.config.alarm.mail = format!("{}/mail", receiver.url);
    redis.push("/sms", json!({ "tos": "1,2", "content": "down" }).to_string());
    redis.push("/sms", "no JSON");
    redis.push("/im", json!({ "tos": "i", "content": "nobody has a gateway for it" }).to_string());
    redis.push("/mail", "x".repeat(ENTRY_MAX + 1));
    redis.push("/mail", json!({ "tos": "a@x, b@x,", "subject": "s", "content": "c" }).to_string());
    // What a run before has taken, and not handled.
    redis.push(&format!("{TAKEN}/mail"), json!({ "tos": "z@x", "subject": "first", "content": "" }).to_string());
    let running = start(&site, &redis, false).await;
    let mut got = Vec::new();
    for _ in 0..3 {
        let next = receiver.next().await;
        got.push(format!("{} {} {}", next.path, next.field("tos"), next.field("content")));
    }
    got.sort();
    assert_eq!(got, ["/mail a@x,b@x c", "/mail z@x ", "/sms 1,2 down"]);
    until("all is taken", async || redis.is_empty()).await;
    let counters = running.counters.clone();
    assert_eq!((counters.redis_refused.get(), counters.without_channel.get()), (2, 1));
    running.stop().await;
    assert_eq!((site.health.reasons(), site.count("hawkeye_delivery").await), (vec![], 0));
}

/// An old api that knows one action with one team; it is away where the switch says so.
async fn api(away: Arc<std::sync::atomic::AtomicBool>) -> String {
    let answer = move |request: axum::extract::Request| {
        let away = away.load(std::sync::atomic::Ordering::SeqCst);
        async move {
            let token =
                request.headers().get("apitoken").map(|token| String::from_utf8_lossy(token.as_bytes()).into_owned());
            assert_eq!(token.as_deref(), Some(r#"{"name":"falcon-alarm","sig":"secret"}"#));
            let (status, body): (u16, Value) = match request.uri().path() {
                _ if away => (502, json!("away")),
                "/api/v1/action/7" => (200, json!({ "id": 7, "uic": "ops team", "url": "", "callback": 0 })),
                "/api/v1/team/name/ops%20team" => {
                    let user = json!({ "id": 9, "name": "u", "phone": "555", "email": "", "im": "im9", "role": 0 });
                    (200, json!({ "id": 3, "name": "ops team", "users": [user], "creator_name": "" }))
                }
                _ => (400, json!({ "error": "record not found" })),
            };
            (StatusCode::from_u16(status).expect("a status"), axum::Json(body))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await.expect("serves") });
    url
}

/// Events of an old judge are told to whom an old api names, also when that is away, and none is lost by a kill.
#[tokio::test]
async fn events_of_an_old_judge_are_told() {
    let (mut site, redis, mut receiver) = (site().await, Redis::start().await, Receiver::start().await);
    site.config.roles = [Role::Alarm].into();
    site.config.alarm.sms = format!("{}/sms", receiver.url);
    site.config.alarm.plus_api_token = "secret".to_string();
    let away = Arc::new(std::sync::atomic::AtomicBool::new(false));
    site.config.alarm.plus_api = api(away.clone()).await;
    for (priority, host) in [(4, "low"), (1, "high")] {
        redis.push(&format!("event:p{priority}"), with_priority(problem(7, host), priority).to_json());
    }
    redis.push("event:p0", "{}");
    // Nobody takes it yet: a run that ended behind its move.
    redis.push(&format!("{TAKEN}event"), with_priority(problem(7, "before"), 0).to_json());
    let running = start(&site, &redis, true).await;
    let mut hosts = Vec::new();
    for _ in 0..2 {
        let got = receiver.next().await;
        assert_eq!(got.field("tos"), "555");
        hosts.push(got.field("content").split("][").nth(2).unwrap_or_default().to_string());
    }
    hosts.sort();
    assert_eq!(hosts, ["before", "high"]);
    until("all is taken", async || redis.is_empty()).await;
    until("the case of the low one", async || site.count("event_cases").await == 3).await;
    assert_eq!(running.counters.redis_refused.get(), 1);
    // A kill between an answer and its note would repeat the message.
    until("the ends of the messages", async || site.count("hawkeye_delivery").await == 0).await;
    running.kill().await;
    // A restart while the api is away knows the last copy.
    away.store(true, std::sync::atomic::Ordering::SeqCst);
    redis.push("event:p1", with_priority(event(7, "high", Status::Ok, 1), 1).to_json());
    let running = start(&site, &redis, true).await;
    let got = receiver.next().await;
    assert!(got.field("content").starts_with("[P1][OK][high][]"), "{got:?}");
    until("the outage is told", async || site.health.reasons().iter().any(|reason| reason.why.contains("502"))).await;
    running.stop().await;
    assert_eq!(redis.len("event:p1"), 0);
    let cases: Vec<String> =
        query("SELECT endpoint FROM alarms.event_cases ORDER BY endpoint").all(&site.portal).await.expect("cases");
    assert_eq!(cases, ["before", "high", "low"]);
}

/// A batch whose end Redis does not hear of, or does not answer, is shown again after a kill, and told once.
#[tokio::test]
async fn a_batch_is_told_once_over_lost_answers_and_kills() {
    for (lost, queue) in [(FORGETS, "/sms"), (FORGETS, "event:p1"), (KEEPS_SILENT, "/sms"), (KEEPS_SILENT, "event:p1")]
    {
        let (mut site, redis, mut receiver) = (site().await, Redis::start().await, Receiver::start().await);
        site.config.roles = [Role::Alarm].into();
        site.config.alarm.sms = format!("{}/sms", receiver.url);
        site.config.alarm.plus_api_token = "secret".to_string();
        site.config.alarm.plus_api = api(Arc::default()).await;
        // Messages that say the same are two messages all the same.
        let entry = |host: &str| match queue {
            "/sms" => json!({ "tos": "1", "content": "again" }).to_string(),
            _ => with_priority(problem(7, host), 1).to_json(),
        };
        redis.loses.store(lost, SeqCst);
        redis.push(queue, entry("first"));
        let running = start(&site, &redis, true).await;
        let mut got = vec![receiver.next().await.field("content").to_string()];
        until("the end of the message", async || site.count("hawkeye_delivery").await == 0).await;
        running.kill().await;
        site.reopen_queue();
        redis.loses.store(0, SeqCst);
        redis.push(queue, entry("second"));
        let running = start(&site, &redis, true).await;
        got.push(receiver.next().await.field("content").to_string());
        until("all is taken", async || redis.is_empty()).await;
        until("the end of the message", async || site.count("hawkeye_delivery").await == 0).await;
        running.stop().await;
        assert!(receiver.is_quiet(), "{lost} {queue}: {got:?}");
        let is_right = |text: &String, host| text == "again" || text.contains(host);
        assert!(is_right(&got[0], "first") && is_right(&got[1], "second"), "{lost} {queue}: {got:?}");
    }
}

/// Events of an action that the old api never told wait for it, in order, and hold up no others.
#[tokio::test]
async fn events_wait_for_an_api_that_is_away() {
    let (mut site, redis, mut receiver) = (site().await, Redis::start().await, Receiver::start().await);
    site.config.roles = [Role::Alarm].into();
    site.config.alarm.sms = format!("{}/sms", receiver.url);
    site.config.alarm.plus_api_token = "secret".to_string();
    let away = Arc::new(std::sync::atomic::AtomicBool::new(true));
    site.config.alarm.plus_api = api(away.clone()).await;
    redis.push("event:p1", with_priority(problem(7, "a"), 1).to_json());
    redis.push("event:p1", with_priority(event(7, "a", Status::Ok, 1), 1).to_json());
    let running = start(&site, &redis, true).await;
    until("events that wait", async || site.count("hawkeye_delivery").await == 2).await;
    let waits = |why: &str| why == "2 wait, for at most alarm.give_up_after";
    until("a reason", async || site.health.reasons().iter().any(|reason| waits(&reason.why))).await;
    let told: Vec<String> = query("SELECT told FROM alarms.event_cases").all(&site.portal).await.expect("a case");
    assert!(told[0].contains("alarm.plus_api does not say whom action 7 tells"), "{told:?}");
    // Over a kill, too.
    running.kill().await;
    site.reopen_queue();
    let running = start(&site, &redis, true).await;
    away.store(false, SeqCst);
    for status in ["PROBLEM", "OK"] {
        let got = receiver.next().await;
        assert!(got.field("content").starts_with(&format!("[P1][{status}][a][]")), "{got:?}");
    }
    until("the ends of the messages", async || site.count("hawkeye_delivery").await == 0).await;
    until("no reason", async || site.health.reasons().is_empty()).await;
    running.stop().await;
    let told: Vec<String> = query("SELECT told FROM alarms.event_cases").all(&site.portal).await.expect("a case");
    assert_eq!(told, [""]);
}

/// A Redis that is away is told, and read when it is back.
#[tokio::test]
async fn redis_may_be_away() {
    let site = site().await;
    let config = Config::default();
    let away = RedisUrl::parse("127.0.0.1:1").expect("valid");
    let (messages, _foreign) = mpsc::channel(1);
    let (channels, outage) = (Channels::of(&config.alarm), site.health.outage("Redis cannot be read"));
    let portal = site.portal.clone();
    let counters = AlarmMetrics::default();
    let inbox = Inbox::new(&away, None, portal, messages, channels, counters, outage).expect("a URL");
    let reading = tokio::spawn(inbox.run());
    until("the outage is told", async || site.health.reasons().iter().any(|reason| reason.what.contains("Redis")))
        .await;
    reading.abort();
}
