//! `kill -9` under load: every point whose RPC was answered is in the history afterwards.

use crate::harness::{Api, Server, read_line, this_minute, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const HOSTS: usize = 4;
const METRICS: usize = 50;
/// Minutes of one round; all lie within the last twelve hours, which history answers at full resolution.
const MINUTES_MAX: i64 = 640;

/// Number of times that the server is killed; the environment variable makes it more.
fn kills() -> usize {
    std::env::var("TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

/// One host: sends minute after minute until the connection breaks; `answered` counts the minutes that were answered.
fn send_until_broken(server: std::net::TcpStream, endpoint: &str, start: i64, answered: &AtomicI64) {
    let mut reader = BufReader::new(server.try_clone().expect("clone"));
    let mut writer = server;
    for minute in 0..MINUTES_MAX {
        let items: Vec<Value> = (0..METRICS).map(|metric| item(endpoint, metric, start, minute)).collect();
        let request = json!({"method": "Transfer.Update", "params": [items], "id": minute}).to_string();
        let mut answer = String::new();
        if writer.write_all(request.as_bytes()).is_err() || reader.read_line(&mut answer).unwrap_or(0) == 0 {
            return;
        }
        assert!(answer.contains("\"Invalid\":0"), "{answer}");
        answered.store(minute + 1, Ordering::Relaxed);
    }
}

fn item(endpoint: &str, metric: usize, start: i64, minute: i64) -> Value {
    json!({"endpoint": endpoint, "metric": format!("m{metric}"), "value": value(metric, minute), "step": 60,
           "counterType": "GAUGE", "tags": "", "timestamp": start + 60 * minute})
}

fn value(metric: usize, minute: i64) -> f64 {
    metric as f64 + minute as f64 / 8.0
}

#[test]
fn nothing_answered_is_lost() {
    let mut server = Server::start("");
    let start = this_minute() - 11 * 3600;
    let mut rounds = Vec::new();
    for round in 0..kills() {
        let answered: Arc<Vec<AtomicI64>> = Arc::new((0..HOSTS).map(|_| AtomicI64::new(0)).collect());
        let senders: Vec<_> = (0..HOSTS)
            .map(|host| {
                let (stream, answered) = (server.connect("transfer_rpc"), answered.clone());
                let endpoint = format!("r{round}-h{host}");
                std::thread::spawn(move || send_until_broken(stream, &endpoint, start, &answered[host]))
            })
            .collect();
        // Killed in the middle of the work, after a different amount of it each time.
        until("answers to all senders", || {
            assert!(!senders.iter().any(|sender| sender.is_finished()), "a sender ended before the server was killed");
            answered.iter().all(|minutes| minutes.load(Ordering::Relaxed) >= 10 + 7 * round as i64 % 100)
        });
        server.kill();
        for sender in senders {
            sender.join().expect("sender");
        }
        rounds.push(answered);
        server.restart();
        let api = server.admin();
        for (round, answered) in rounds.iter().enumerate() {
            for (host, minutes) in answered.iter().enumerate() {
                check_history(&api, &format!("r{round}-h{host}"), start, minutes.load(Ordering::Relaxed));
            }
        }
    }
}

/// All `minutes` that were answered are there; the one that was on its way may be.
fn check_history(api: &Api<'_>, endpoint: &str, start: i64, minutes: i64) {
    for metric in [0, METRICS / 2, METRICS - 1] {
        let found = api.history(endpoint, &format!("m{metric}"), start, start + 60 * (minutes - 1));
        let expected: Vec<(i64, f64)> =
            (0..minutes).map(|minute| (start + 60 * minute, value(metric, minute))).collect();
        assert_eq!(found, expected, "{endpoint}, metric {metric}");
    }
}

/// An orderly stop and a start keep everything too, and the second start does not print a password.
#[test]
fn orderly_restart_keeps_points_and_password() {
    let mut server = Server::start("");
    assert!(server.stdout.iter().any(|line| line.contains("password")), "{:?}", server.stdout);
    let minute = this_minute();
    let answer = server.update(json!([item("h0", 0, minute, 0)]));
    assert_eq!(answer["Invalid"], 0);
    assert!(server.stop().success());
    server.restart();
    assert!(!server.stdout.iter().any(|line| line.contains("password")), "{:?}", server.stdout);
    assert_eq!(server.admin().history("h0", "m0", minute - 60, minute), [(minute, 0.0)]);
    let mut stream = server.connect("transfer_rpc");
    stream.write_all(br#"{"method":"Transfer.Ping","params":[{}],"id":1}"#).expect("write");
    assert_eq!(read_line(&mut BufReader::new(stream))["result"], json!({"code": 0}));
}
