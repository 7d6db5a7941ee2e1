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
    check(b"GET / HTTP/1.1\r\n\r\n", "this is HTTP");
    check(
        b"POST /x HTTP/1.1\r\nHost: a\r\n\r\n{\"method\":\"Transfer.Ping\",\"params\":[{}],\"id\":1}",
        "this is HTTP",
    );
    assert!(server.metric("hawkeye_rpc_faults_total{listener=\"transfer_rpc\",reason=\"http\"}") >= 2.0);
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
    let head = format!("POST /api/push HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 100 << 20);
    stream.write_all(head.as_bytes()).expect("write");
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
            // All have said something, as agents have; half begin another message and never end it.
            stream.write_all(PING).expect("write");
            assert_eq!(read_line(&mut BufReader::new(&stream))["error"], json!(null));
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
        stream.write_all(PING).is_ok() && matches!(stream.read(&mut answer), Ok(1))
    };
    assert!((0..10_000).any(is_served));
}

const PING: &[u8] = br#"{"method":"Transfer.Ping","params":[{}],"id":1}"#;

/// Connections that have said nothing hold no place that somebody else needs: not of agents, of the page, of admin.
#[test]
fn silent_connections_shut_out_nobody() {
    let server = Server::start("[ingest]\nconnections_max = 20\n");
    for listener in ["transfer_rpc", "transfer_http", "transfer_telnet", "api", "admin"] {
        let held: Vec<TcpStream> = (0..60).map(|_| server.connect(listener)).collect();
        assert_serves(&server);
        for (door, path) in [("api", "/health"), ("admin", "/health"), ("transfer_http", "/health")] {
            assert_eq!(server.http(door, "GET", path, "", ""), (200, "ok\n".to_string()), "beside {listener}");
        }
        drop(held);
    }
    assert!(server.metric("hawkeye_connections_gave_way_total{listener=\"api\"}") >= 40.0);
}

/// Six bodies that do not end; a seventh, as large, is read and answered.
#[test]
fn slow_bodies_hold_nobody() {
    let server = Server::start("");
    let api = server.admin();
    let half = "[\"".to_string() + &"x".repeat(100_000);
    let held: Vec<TcpStream> = (0..6)
        .map(|_| {
            let mut stream = server.connect("api");
            let head = "POST /api/v1/graph/lastpoint HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n";
            write!(stream, "{head}Apitoken: {}\r\n\r\n{half}", api.token).expect("write");
            stream
        })
        .collect();
    let used = || server.metric("hawkeye_buffer_bytes");
    crate::harness::until("half bodies in the budget", || used() >= 600_000.0);
    let many: Vec<_> = (0..3000).map(|i| json!({"endpoint": format!("host-{i:06}"), "counter": "cpu.idle"})).collect();
    assert_eq!(api.post("/graph/lastpoint", json!(many)).as_array().map(Vec::len), Some(3000));
    for mut stream in held {
        stream.set_nonblocking(true).expect("socket option");
        let read = stream.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::WouldBlock), "still being read");
    }
}

/// More answers that nobody reads than are written at once; another is answered all the same, and the first of them is
/// whole when somebody reads it: it had not to be given up first.
#[test]
fn unread_answers_hold_nobody() {
    let server = Server::start("");
    let api = server.admin();
    let hosts: Vec<String> = (0..100).map(|i| format!("host-{i:06}")).collect();
    // Long names make a long answer of few series.
    let counters: Vec<String> = (0..90).map(|i| format!("{i:01000}")).collect();
    let ask = |hosts: &[String]| {
        json!({"hostnames": hosts, "counters": counters, "consol_fun": "AVERAGE", "step": 60, "start_time": 1,
               "end_time": 2})
    };
    let (large, small) = (ask(&hosts).to_string(), ask(&hosts[..1]));
    let mut unread: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = server.connect("api");
            let head = "POST /api/v1/graph/history HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n";
            let length = large.len();
            write!(stream, "{head}Content-Length: {length}\r\nApitoken: {}\r\n\r\n{large}", api.token).expect("write");
            // Its begin says that it is being written.
            let mut begin = [0; 15];
            stream.read_exact(&mut begin).expect("an answer");
            assert_eq!(&begin, b"HTTP/1.0 200 OK");
            stream
        })
        .collect();
    assert_eq!(api.post("/graph/history", small).as_array().map(Vec::len), Some(90));
    let mut answer = String::new();
    unread[0].read_to_string(&mut answer).expect("the rest");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let rows: Vec<serde_json::Value> = serde_json::from_str(body).expect("a whole answer");
    assert_eq!(rows.len(), 9_000);
}

/// A page in a browser of a machine that may send cannot send points, and cannot ask admin; scripts, which send no
/// `Origin`, can, and the API goes on answering to pages of other sites.
#[test]
fn pages_of_other_sites_send_no_points() {
    let server = Server::start("");
    let items = |name: &str| json!([gauge(name, "m", 1.0, this_minute())]).to_string();
    let origin = "Origin: http://evil.example\r\nContent-Type: text/plain\r\n";
    let (status, text) = server.http("transfer_http", "POST", "/api/push", origin, &items("web"));
    assert!(status == 403 && text.contains("http://evil.example"), "{status} {text}");
    for headers in ["Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-site\r\n"] {
        assert_eq!(server.http("transfer_http", "POST", "/api/push", headers, &items("web")).0, 403, "{headers}");
        assert_eq!(server.http("admin", "GET", "/memory", headers, "").0, 403, "{headers}");
        assert_eq!(server.http("api", "GET", "/api/v1/user/users", headers, "").0, 401, "{headers}");
    }
    assert_eq!(server.http("transfer_http", "POST", "/api/push", "", &items("script")).0, 200);

    // The lines of a request stand before those of its body, however long they are.
    let point = format!("update web m {} 1 GAUGE\r\n", this_minute());
    let long = "x".repeat(5000);
    for request in [
        format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{point}"),
        format!("POST /{long} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{point}"),
        format!("update /{long} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{point}"),
        format!("{point}GET / HTTP/1.1\r\n"),
    ] {
        let mut stream = server.connect("transfer_telnet");
        stream.write_all(request.as_bytes()).expect("write");
        assert_eq!(closes(stream).as_deref(), Some(""), "{request:.20}");
    }
    assert!(server.metric("hawkeye_rpc_faults_total{listener=\"transfer_telnet\",reason=\"http\"}") >= 4.0);
    let found = server.admin().get("/graph/endpoint?q=.");
    assert_eq!(
        found.as_array().map(|rows| rows.iter().map(|row| row["endpoint"].clone()).collect()),
        Some(vec![json!("script")])
    );
}

/// A foreign name that leads to this machine is refused where only names of the machine count.
#[test]
fn foreign_names_are_refused() {
    let server = Server::start("");
    let raw = |listener: &str, host: &str| {
        let mut stream = server.connect(listener);
        write!(stream, "GET /health HTTP/1.0\r\nHost: {host}\r\n\r\n").expect("write");
        closes(stream).expect("closed")
    };
    for listener in ["admin", "api", "transfer_http"] {
        let answer = raw(listener, "evil.example:6071");
        assert!(answer.starts_with("HTTP/1.0 421 ") && answer.contains("listen.hosts"), "{listener}: {answer}");
        for host in ["localhost:1", "127.0.0.1", "[::1]:6071", "10.0.0.5"] {
            assert!(raw(listener, host).starts_with("HTTP/1.0 200 "), "{listener} {host}");
        }
    }
    let mut text = std::fs::read_to_string(server.dir.path().join("hawkeye.toml")).expect("configuration");
    text = text.replace("[listen]\n", "[listen]\nhosts = [\"Hawkeye.example.com\"]\n");
    std::fs::write(server.dir.path().join("hawkeye.toml"), text).expect("configuration");
    let mut server = server;
    server.stop();
    server.restart();
    let mut stream = server.connect("admin");
    stream.write_all(b"GET /health HTTP/1.0\r\nHost: hawkeye.example.com:6071\r\n\r\n").expect("write");
    assert!(closes(stream).is_some_and(|answer| answer.ends_with("\r\n\r\nok\n")));
}

/// Half messages hold what was sent of them, not a buffer each: more of them than there are first buffers in the budget
/// (6 MiB of 16 KiB) leave room for an agent, long before any of them times out. A debug build has some 25 MB of code
/// resident, so with the smallest `memory_budget` this would be about new series that are refused.
#[test]
fn half_messages_do_not_stand_in_the_way_of_whole_ones() {
    let server = Server::start("memory_budget = \"56MiB\"\n[ingest]\nmessage_timeout = \"1h\"\n");
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
