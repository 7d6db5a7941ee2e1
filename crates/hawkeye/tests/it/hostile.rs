//! Input that is wrong in every way: a clear error or a closed connection, counted, and nothing else changes.

use crate::harness::{Server, gauge, read_line, this_minute};
use serde_json::json;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

/// Checks that a well-behaved agent is served, after whatever happened.
fn assert_serves(server: &Server) {
    let minute = this_minute();
    assert_eq!(server.update(json!([gauge("ok", "m", 1.0, minute)]))["Invalid"], 0);
}

/// Last words of the server before it closes the connection; None when it leaves it open.
fn closes(mut stream: TcpStream) -> Option<String> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        // A reset is as good an end as a close.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
        Err(error) => panic!("reading to the end: {error}"),
    }
    Some(String::from_utf8_lossy(&rest).into_owned())
}

#[test]
fn broken_messages_close_the_connection_with_a_reason() {
    let server = Server::start("");
    let check = |bytes: &[u8], reason: &str| {
        let mut stream = server.connect("transfer_rpc");
        stream.write_all(bytes).expect("write");
        let text = closes(stream).expect("closed");
        assert!(text.contains("\"error\":\"") && text.contains(reason), "{bytes:?} gave {text:?}, want {reason:?}");
    };
    check(b"hello\n", "must be a JSON object");
    check(b"\x00\xff\xfe\x80 binary", "must be a JSON object");
    check(b"[1,2]", "must be a JSON object");
    check(b"{\"method\":\"Transfer.Update\",\"params\":[[}]", "closes another kind");
    check(b"{\"method\":\"Transfer.Update\" \"params\":[[]]}", "broken JSON");
    check(&[b'{'; 200], "deeper");
    check(b"GET / HTTP/1.1\r\n\r\n", "must be a JSON object");
    assert!(server.metric("hawkeye_rpc_faults_total{listener=\"transfer_rpc\"") >= 7.0);
    assert_serves(&server);
}

#[test]
fn wrong_parameters_keep_the_connection() {
    let server = Server::start("");
    let mut stream = server.connect("transfer_rpc");
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    for params in ["{}", "[5]", "[\"x\"]", "[{\"endpoint\":\"h\"}]", "5"] {
        write!(stream, "{{\"method\":\"Transfer.Update\",\"params\":{params},\"id\":1}}").expect("write");
        let answer = read_line(&mut reader);
        assert!(answer["error"].is_string() && answer["result"].is_null(), "{params}: {answer}");
    }
    for params in ["[]", "[null]", "[[]]"] {
        write!(stream, "{{\"method\":\"Transfer.Update\",\"params\":{params},\"id\":2}}").expect("write");
        assert_eq!(read_line(&mut reader)["result"]["Total"], 0, "{params}");
    }
}

#[test]
fn a_hundred_megabyte_line_is_refused_at_the_limit() {
    let server = Server::start("");
    let mut stream = server.connect("transfer_rpc");
    stream.write_all(b"{\"method\":\"").expect("write");
    let piece = vec![b'x'; 1 << 20];
    let sent = (0..100).take_while(|_| stream.write_all(&piece).is_ok()).count();
    assert!(sent < 100, "the server read all of it");
    assert!(server.metric("hawkeye_rpc_faults_total{listener=\"transfer_rpc\",reason=\"too_long\"}") >= 1.0);

    let mut stream = server.connect("transfer_http");
    write!(stream, "POST /api/push HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 100 << 20).expect("write");
    for _ in 0..100 {
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    let text = closes(stream).expect("closed");
    assert!(text.is_empty() || text.contains("413"), "{text:?}");
    assert_serves(&server);
}

#[test]
fn connections_over_the_limit_are_closed_at_once() {
    let server = Server::start("[ingest]\nconnections_max = 50\nmessage_timeout = \"1s\"\n");
    let held: Vec<TcpStream> = (0..50)
        .map(|i| {
            let mut stream = server.connect("transfer_rpc");
            // Half of them say nothing, half begin a message and never end it.
            if i % 2 == 0 {
                stream.write_all(b"{\"method\":").expect("write");
            }
            stream
        })
        .collect();
    // None is closed with a reason: that would be the time-out, after having been let in.
    let refused = (0..200).filter(|_| closes(server.connect("transfer_rpc")).as_deref() == Some("")).count();
    assert!(refused >= 150, "{refused} of 200 were closed");
    assert!(server.metric("hawkeye_connections_refused_total{listener=\"transfer_rpc\",reason=\"too_many\"}") >= 150.0);
    // The ones that began a message are closed by the time-out, and agents are served again.
    for stream in held.into_iter().step_by(2) {
        assert!(closes(stream).expect("closed").contains("not complete"));
    }
    // The server frees their places when it has seen our side close, which may be a moment later.
    let is_served = |_| {
        let mut stream = server.connect("transfer_rpc");
        let mut answer = [0];
        stream.write_all(br#"{"method":"Transfer.Ping","params":[{}],"id":1}"#).is_ok()
            && matches!(stream.read(&mut answer), Ok(1))
    };
    assert!((0..10_000).any(is_served));
}

/// Half messages hold what was sent of them, not a buffer each: more of them than there are first buffers in the budget
/// (4 MiB of 16 KiB) leave room for an agent, long before any of them times out.
#[test]
fn half_messages_do_not_stand_in_the_way_of_whole_ones() {
    let server = Server::start("memory_budget = \"32MiB\"\n[ingest]\nmessage_timeout = \"1h\"\n");
    let held: Vec<TcpStream> = (0..600)
        .map(|_| {
            let mut stream = server.connect("transfer_rpc");
            stream.write_all(b"{\"method\":").expect("write");
            stream
        })
        .collect();
    assert_serves(&server);
    drop(held);
}

#[test]
fn senders_from_elsewhere_are_refused() {
    let server = Server::start("[ingest]\nallow = [\"10.0.0.0/8\"]\n");
    assert_eq!(closes(server.connect("transfer_rpc")).as_deref(), Some(""));
    assert_eq!(closes(server.connect("hbs_rpc")).as_deref(), Some(""));
    assert!(
        server.metric("hawkeye_connections_refused_total{listener=\"transfer_rpc\",reason=\"not_allowed\"}") >= 1.0
    );
    assert_eq!(server.http("api", "GET", "/health", "", "").0, 200);
}
