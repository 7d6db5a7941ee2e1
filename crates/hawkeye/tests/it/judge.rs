//! The judge inside an old Open-Falcon: items by gob from a transfer, rules from an hbs, events to Redis; restarts of
//! every kind.

use crate::graph::Client;
use crate::harness::{PATIENCE, Server, command, output, this_minute};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use wire::gob::JudgeItem;

/// An hbs that answers with these strategies of host `h`.
struct Hbs {
    address: String,
    strategies: Arc<Mutex<Value>>,
}

impl Hbs {
    fn start(strategies: Value) -> Hbs {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let strategies = Arc::new(Mutex::new(strategies));
        let shared = strategies.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                std::thread::spawn(move || Hbs::answer(stream.expect("a connection"), &shared));
            }
        });
        Hbs { address, strategies }
    }

    fn answer(mut stream: TcpStream, strategies: &Mutex<Value>) {
        let requests = serde_json::Deserializer::from_reader(stream.try_clone().expect("clone")).into_iter::<Value>();
        for request in requests.map_while(Result::ok) {
            let result = if request["method"] == "Hbs.GetStrategies" {
                let strategies = strategies.lock().expect("unbroken").clone();
                json!({"hostStrategies": [{"hostname": "h", "strategies": strategies}]})
            } else {
                json!({"expressions": null})
            };
            let answer = json!({"id": request["id"], "result": result, "error": null});
            if stream.write_all(format!("{answer}\n").as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn strategy(id: i64, metric: &str, func: &str) -> Value {
    json!({"id": id, "metric": metric, "tags": {}, "func": func, "operator": ">", "rightValue": 5, "maxStep": 1,
           "priority": 2, "note": "", "tpl": {"id": 1, "name": "t", "parentId": 0, "actionId": 1, "creator": "root"}})
}

/// A Redis that takes whatever comes, and hands on what is pushed: the key and one value at a time.
struct Redis {
    address: String,
    pushed: Receiver<(String, Value)>,
    seen: RefCell<Vec<(String, Value)>>,
}

impl Redis {
    fn start() -> Redis {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (send, pushed) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let send = send.clone();
                std::thread::spawn(move || Redis::answer(stream.expect("a connection"), &send));
            }
        });
        Redis { address, pushed, seen: RefCell::default() }
    }

    fn answer(mut stream: TcpStream, send: &Sender<(String, Value)>) {
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        let number = |reader: &mut BufReader<TcpStream>| {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            line.get(1..)?.trim_end().parse::<usize>().ok()
        };
        while let Some(count) = number(&mut reader) {
            let mut parts = Vec::new();
            for _ in 0..count {
                let Some(length) = number(&mut reader) else { return };
                let mut part = vec![0; length + 2];
                if reader.read_exact(&mut part).is_err() {
                    return;
                }
                part.truncate(length);
                parts.push(String::from_utf8(part).expect("UTF-8"));
            }
            let answer = match parts.split_first() {
                Some((name, [key, values @ ..])) if name.eq_ignore_ascii_case("LPUSH") => {
                    for value in values {
                        let _ = send.send((key.clone(), serde_json::from_str(value).expect("JSON")));
                    }
                    format!(":{}\r\n", values.len())
                }
                _ => "+OK\r\n".to_string(),
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// The next event that was not pushed before: its queue, status, metric and time. What a kill cuts off between the
    /// push and the note of it is pushed again, as it was; a judge that repeats itself would do so with another time.
    fn next(&self) -> (String, String, String, i64) {
        let mut seen = self.seen.borrow_mut();
        let next = || self.pushed.recv_timeout(PATIENCE).expect("an event in time");
        let (key, event) = std::iter::repeat_with(next).find(|pushed| !seen.contains(pushed)).expect("endless");
        seen.push((key.clone(), event.clone()));
        let text = |value: &Value| value.as_str().expect("a text").to_string();
        let time = event["eventTime"].as_i64().expect("a time");
        (key, text(&event["status"]), text(&event["strategy"]["metric"]), time)
    }
}

fn start(hbs: &Hbs, redis: &Redis) -> Server {
    Server::start(&format!(
        "roles = [\"judge\"]\n[judge]\nhbs_addrs = [{:?}]\nhbs_interval = \"5s\"\nredis_url = \"redis://{}\"\n",
        hbs.address, redis.address
    ))
}

/// One item of `h` per metric, in one call.
fn send(server: &Server, time: i64, values: &[(&str, f64)]) {
    let items = values.iter().map(|(metric, value)| {
        let (endpoint, judge_type, tags) = ("h", "GAUGE", "");
        JudgeItem { endpoint, metric, value: *value, timestamp: time, judge_type, tags }
    });
    let answer = Client::through(server, "judge_rpc").call(
        |requests, out, seq| requests.judge_send(out, seq, items),
        |replies, reply| (reply.error.to_string(), reply.code(replies)),
    );
    assert_eq!(answer, (String::new(), Ok(0)));
}

#[test]
fn an_old_transfer_hbs_and_redis_are_served_over_kills_and_restarts() {
    let (hbs, redis) = (Hbs::start(json!([strategy(1, "m", "all(#1)"), strategy(2, "n", "all(#3)")])), Redis::start());
    let mut server = start(&hbs, &redis);
    let minute = this_minute() - 600;
    let event = |status: &str, metric: &str, at: i64| {
        ("event:p2".to_string(), status.to_string(), metric.to_string(), minute + at)
    };
    send(&server, minute, &[("m", 9.0), ("n", 9.0), ("other", 9.0)]);
    assert_eq!(redis.next(), event("PROBLEM", "m", 0));
    assert_eq!(server.metric("hawkeye_judge_window_series "), 2.0);
    server.kill();
    server.restart();
    send(&server, minute + 60, &[("m", 9.0), ("n", 9.0)]);
    send(&server, minute + 120, &[("m", 9.0), ("n", 9.0)]);
    assert!(server.stop().success());
    server.restart();
    // The window of n is warm, m is not told again.
    send(&server, minute + 180, &[("m", 9.0), ("n", 9.0)]);
    assert_eq!(redis.next(), event("PROBLEM", "n", 180));
    server.kill();
    server.restart();
    send(&server, minute + 240, &[("m", 1.0)]);
    assert_eq!(redis.next(), event("OK", "m", 240));
    // The rule of n goes: its alarm is closed, on its own.
    *hbs.strategies.lock().expect("unbroken") = json!([strategy(1, "m", "all(#1)")]);
    let closed = redis.next();
    assert_eq!((closed.0.as_str(), closed.1.as_str(), closed.2.as_str()), ("event:p2", "OK", "n"));
    assert_eq!(server.metric("hawkeye_judge_open_problems "), 0.0);
    assert!(server.stop().success());
    let seen = redis.seen.borrow();
    assert!(redis.pushed.try_iter().all(|pushed| seen.contains(&pushed)), "nothing else was told");
}

#[test]
fn two_judges_do_not_share_a_directory() {
    let (hbs, redis) = (Hbs::start(json!([strategy(1, "m", "all(#1)")])), Redis::start());
    let server = start(&hbs, &redis);
    let text = std::fs::read_to_string(server.dir.path().join("hawkeye.toml")).expect("configuration");
    let second = tempfile::tempdir().expect("temporary directory");
    // The same data directory, and no port of the first.
    let text: String = text
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some(("judge_rpc", _)) => "judge_rpc = \"127.0.0.1:0\"\n".to_string(),
            Some(("admin", _)) => "admin = \"\"\n".to_string(),
            _ => format!("{line}\n"),
        })
        .collect();
    std::fs::write(second.path().join("hawkeye.toml"), text).expect("configuration");
    let output = output(&mut command(second.path()));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("is another judge using it"), "{error}");
}
