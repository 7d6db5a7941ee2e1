//! Disks that are full, or that are waited for.

use crate::alarms::make_strategy;
use crate::harness::{Server, Target, gauge, read_line, this_minute, until};
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::Barrier;

/// The log, which is filled to this, shall be the longest file: the limit is one for all.
const LOG_BYTES: u64 = 1 << 20;

/// The length of the log's only segment.
fn log_bytes(server: &Server) -> u64 {
    let path = server.data_dir().join("store/log/00000001.log");
    std::fs::metadata(path).expect("the first segment").len()
}

/// Points that no log codes in less than nine bytes.
fn fill(server: &Server, round: i64, end: i64) {
    let item = |i: i64| gauge("filler", &format!("m{round}"), (i as f64).sqrt() + round as f64, end - 60 * i);
    server.update((0..20_000).rev().map(item).collect());
}

/// Full disk, as far as a process without rights can have one: files that must not grow. Alarms fire; senders are told
/// which file; when there is room again, what they send again is kept.
#[test]
fn alarms_go_on_while_the_disk_is_full() {
    let target = Target::start();
    let mut server = Server::start("");
    make_strategy(&server.admin(), "web-01", &target);
    let start = this_minute() - 600;
    server.update(json!([gauge("web-01", "cpu.idle", 50.0, start)]));
    let rounds = (0..20).take_while(|round| {
        fill(&server, *round, start);
        log_bytes(&server) < LOG_BYTES
    });
    assert!((1..19).contains(&rounds.count()));

    server.limit_file_bytes(Some(log_bytes(&server)));
    let refused = [
        json!([gauge("web-01", "cpu.idle", 5.0, start + 60)]),
        json!([gauge("web-01", "cpu.idle", 60.0, start + 120), gauge("web-01", "new", 1.0, start + 120)]),
    ];
    let answer = server.call("transfer_rpc", "Transfer.Update", refused[0].clone());
    let error = answer["error"].as_str().expect("an error");
    assert!(error.starts_with("cannot write ") && error.contains("store/log/00000001.log: "), "{answer}");
    assert_eq!(answer["result"], Value::Null);
    assert!(target.next().contains("status=PROBLEM"));
    let (status, text) = server.http("transfer_http", "POST", "/api/push", "", &refused[1].to_string());
    assert_eq!((status, text), (503, format!("{error}\n")));
    assert!(target.next().contains("status=OK"));
    assert!(server.metric("hawkeye_store_log_errors_total") >= 2.0);
    let health = || server.http("admin", "GET", "/health", "", "");
    let (status, text) = health();
    assert!(status == 503 && text.contains("points cannot be kept, and senders are told so: cannot write "), "{text}");

    server.limit_file_bytes(None);
    until("that the trouble ends before anybody sends", || health() == (200, "ok\n".to_string()));
    for batch in refused {
        assert_eq!(server.update(batch)["Invalid"], 0);
    }
    assert_eq!(health(), (200, "ok\n".to_string()));
    server.wait_for_deliveries();
    server.kill();
    server.restart();
    let api = server.admin();
    let expected = [(start, 50.0), (start + 60, 5.0), (start + 120, 60.0)];
    assert_eq!(api.history("web-01", "cpu.idle", start, start + 120), expected);
    assert_eq!(api.history("web-01", "new", start, start + 120), [(start + 120, 1.0)]);
    assert_eq!(api.history("filler", "m0", start - 600 * 60, start).len(), 601);
    assert_eq!(target.try_next(), None, "a repetition is not judged again");
}

/// More senders than the runtime has threads, each waiting for the disk at each batch: all are answered, and share
/// syncs.
#[test]
fn senders_that_wait_for_the_disk_wait_together() {
    const SENDERS: usize = 64;
    const BATCHES: i64 = 10;
    let mut server = Server::start("[graph]\nfsync = \"always\"\n");
    let start = this_minute() - 3600;
    let together = Barrier::new(SENDERS);
    // Connected before anybody waits for the others: a sender that fails there would leave them waiting.
    let streams: Vec<TcpStream> = (0..SENDERS).map(|_| server.connect("transfer_rpc")).collect();
    std::thread::scope(|scope| {
        for (sender, mut stream) in streams.into_iter().enumerate() {
            let together = &together;
            scope.spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("clone"));
                together.wait();
                for i in 0..BATCHES {
                    let items = json!([gauge(&format!("h{sender}"), "m", i as f64, start + 60 * i)]);
                    let request = json!({"method": "Transfer.Update", "params": [items], "id": i});
                    stream.write_all(request.to_string().as_bytes()).expect("write");
                    assert_eq!(read_line(&mut reader)["result"]["Invalid"], 0);
                }
            });
        }
    });
    let syncs = server.metric("hawkeye_store_log_syncs_total");
    let batches = SENDERS as f64 * BATCHES as f64;
    println!("{syncs} syncs for {batches} batches");
    assert!((1.0..batches).contains(&syncs), "{syncs} syncs for {batches} batches");
    server.kill();
    server.restart();
    let api = server.admin();
    for sender in 0..SENDERS {
        let history = api.history(&format!("h{sender}"), "m", start, start + 60 * BATCHES);
        assert_eq!(history.len() as i64, BATCHES, "h{sender}");
    }
}
