//! HTTP: answers that are as they should, and each way in which they are not.

use super::world::*;
use crate::{Code, Means, Policy, Rule};
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_good_answer_has_all_figures() {
    let server = answering(http("200 OK", "", r#"{"state": "ok"}"#)).await;
    let wanted = json!({"body_match": {"pattern": "state"}, "json": {"path": "state", "value": "ok"}});
    let outcome = up("http", format!("http://{server}/x"), wanted).await;
    assert_eq!(value(&outcome, "probe.http.status"), Some(200.0));
    assert_eq!(value(&outcome, "probe.http.body_bytes"), Some(15.0));
    assert_eq!(value(&outcome, "probe.http.version"), Some(1.1));
    for phase in ["dns_ms", "connect_ms", "first_byte_ms", "body_ms", "total_ms"] {
        assert!(value(&outcome, &format!("probe.http.{phase}")).is_some_and(|ms| ms >= 0.0), "{phase}");
    }
    assert_eq!(outcome.readings[0].tags, format!("target={server}"));
    assert_eq!(outcome.peer, Some(server));
}

#[tokio::test]
async fn what_is_not_as_expected() {
    let page = answering(http("200 OK", "", "all is well: {}")).await;
    let page = format!("http://{page}/");
    let broken = answering(http("503 Service Unavailable", "", "")).await;
    let outcome = down("http", format!("http://{broken}/"), json!({}), Code::Status, "status 503, want 200-299").await;
    assert!(value(&outcome, "probe.http.total_ms").is_some(), "it has answered");
    up("http", format!("http://{broken}/"), json!({"status": "503"})).await;
    let wanted = json!({"body_match": {"pattern": "^fine"}});
    down("http", &page, wanted, Code::Match, "the body has no \"^fine\"").await;
    let wanted = json!({"body_match": {"pattern": "well", "absent": true}});
    down("http", &page, wanted, Code::Match, "which it must not have").await;
    let wanted = json!({"json": {"path": "a", "value": 1}});
    down("http", &page, wanted, Code::Json, "the body is no JSON").await;
    let stateful = answering(http("200 OK", "", r#"{"a": [{"b": 2}]}"#)).await;
    let wanted = json!({"json": {"path": "a.0.b", "value": 1}});
    down("http", format!("http://{stateful}/"), wanted, Code::Json, "JSON a.0.b is 2, want 1").await;
}

#[tokio::test]
async fn broken_servers() {
    let url = |address| format!("http://{address}/");
    down("http", url(nobody().await), json!({}), Code::Refused, "connection refused by 127.0.0.1:").await;
    let late = json!({"timeout_ms": 500});
    down("http", url(silent().await), late.clone(), Code::Timeout, "within 500 ms in phase first_byte").await;
    down("http", url(answering("").await), json!({}), Code::Closed, "has closed the connection").await;
    down("http", url(answering("hello\r\n\r\n").await), json!({}), Code::Protocol, "speaks no HTTP").await;
    let short = answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort").await;
    down("http", url(short), json!({}), Code::Closed, "before the answer was whole").await;
    let chunks = answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").await;
    down("http", url(chunks), json!({}), Code::Protocol, "").await;
    let drip = listen(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx").await;
        std::future::pending::<()>().await;
    });
    let begun = down("http", url(drip.await), late, Code::Timeout, "in phase body").await;
    assert_eq!(value(&begun, "probe.http.total_ms"), None, "it has not ended");
    assert!(value(&begun, "probe.http.first_byte_ms").is_some());
    let reset = listen(|stream| async move {
        // Closing with a linger of nothing is a reset.
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("a socket");
    });
    let code = outcome("http", url(reset.await), json!({})).await.reason.expect("a reason").code;
    assert!(matches!(code, Code::Reset | Code::Closed), "{code:?}");
}

#[tokio::test]
async fn heads_and_bodies_have_bounds() {
    let url = |address| format!("http://{address}/");
    let many: String = (0..2000).map(|i| format!("x-{i}: y\r\n")).collect();
    down("http", url(answering(http("200 OK", &many, "")).await), json!({}), Code::Head, "too large").await;
    let long = format!("x: {}\r\n", "y".repeat(100_000));
    down("http", url(answering(http("200 OK", &long, "")).await), json!({}), Code::Head, "too large").await;
    let endless = listen(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
    });
    let endless = url(endless.await);
    let outcome = up("http", &endless, json!({})).await;
    assert_eq!(value(&outcome, "probe.http.body_bytes"), Some(Policy::agent().limits.body_bytes as f64));
    let wanted = json!({"body_match": {"pattern": "y", "absent": true}});
    down("http", &endless, wanted, Code::TooLong, "more than 262144 bytes").await;
    let endless_head = listen(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
    });
    down("http", url(endless_head.await), json!({}), Code::Head, "too large").await;
}

/// A server whose queue of connections is full answers none; a resolver that hangs answers no name.
#[tokio::test]
async fn slow_before_the_first_byte() {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    full.listen(0).expect("a socket");
    let address = full.local_addr().expect("bound").as_socket().expect("an address of IP");
    let waiting: Vec<_> = (0..8).map(|_| tokio::spawn(tokio::net::TcpStream::connect(address))).collect();
    net::patience::until("a full queue", async || waiting.iter().any(|one| one.is_finished())).await;
    let late = json!({"timeout_ms": 500});
    let part = "within 500 ms in phase connect";
    down("http", format!("http://{address}/"), late.clone(), Code::Timeout, part).await;
    waiting.iter().for_each(|one| one.abort());

    let means = Means::default();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Arc::new(Mutex::new(ended));
    for _ in 0..8 {
        let (aside, ended) = (means.resolver.aside.clone(), ended.clone());
        // Until the sender is dropped.
        tokio::spawn(async move { aside.call(move || ended.lock().is_ok_and(|ended| ended.recv().is_ok())).await });
    }
    tokio::task::yield_now().await;
    let asked = definition("http", "http://localhost:1/", late);
    let outcome = net::patience::in_time("the end", crate::run(&asked, &Policy::agent(), &means)).await;
    is_down(&outcome, Code::Timeout, "no answer within 500 ms in phase dns");
    drop(end);
}

/// What is compressed stays so, however large it would become.
#[tokio::test]
async fn nothing_is_decompressed() {
    let asked = Arc::new(Mutex::new(String::new()));
    let note = asked.clone();
    let server = listen(move |stream| {
        let note = note.clone();
        async move {
            let asked =
                answer_once(stream, http("200 OK", "content-encoding: gzip\r\n", "\u{1f}bomb").as_bytes()).await;
            *note.lock().expect("nobody panics") = asked;
        }
    });
    let outcome = up("http", format!("http://{}/", server.await), json!({"body_match": {"pattern": "bomb"}})).await;
    assert_eq!(value(&outcome, "probe.http.body_bytes"), Some(5.0));
    net::patience::until("the request", async || asked.lock().expect("nobody panics").contains("GET / ")).await;
    assert!(!asked.lock().expect("nobody panics").to_ascii_lowercase().contains("accept-encoding"));
}

#[tokio::test]
async fn a_request_is_as_defined() {
    let asked = Arc::new(Mutex::new(String::new()));
    let note = asked.clone();
    let server = listen(move |stream| {
        let note = note.clone();
        async move {
            let asked = answer_once(stream, http("200 OK", "", "").as_bytes()).await;
            *note.lock().expect("nobody panics") = asked;
        }
    });
    let server = server.await;
    let more = json!({"method": "POST", "body": "hello", "headers": {"Host": "shop.example", "X-A": "b"}});
    up("http", format!("http://{server}/a?b=c#d"), more).await;
    net::patience::until("the request", async || !asked.lock().expect("nobody panics").is_empty()).await;
    let asked = asked.lock().expect("nobody panics").to_ascii_lowercase();
    assert!(asked.starts_with("post /a?b=c http/1.1\r\n"), "{asked}");
    for line in ["host: shop.example\r\n", "x-a: b\r\n", "content-length: 5\r\n", "user-agent: hawkeye/"] {
        assert!(asked.contains(line), "{asked}");
    }
}

/// A server that sends everyone elsewhere.
async fn redirecting(location: impl Into<String>) -> std::net::SocketAddr {
    answering(http("302 Found", &format!("location: {}\r\n", location.into()), "")).await
}

#[tokio::test]
async fn redirects() {
    let good = answering(http("200 OK", "", "there")).await;
    let to_good = redirecting(format!("http://{good}/there")).await;
    let url = format!("http://{to_good}/");
    down("http", &url, json!({}), Code::Status, "status 302, want 200-299").await;
    up("http", &url, json!({"status": "302"})).await;
    let outcome = up("http", &url, json!({"redirects": 1, "body_match": {"pattern": "there"}})).await;
    assert_eq!((value(&outcome, "probe.http.redirects"), outcome.peer), (Some(1.0), Some(good)));
    let circle = redirecting("/again").await;
    let more = json!({"redirects": 3});
    down("http", format!("http://{circle}/"), more, Code::Redirects, "more than 3 times, last to /again").await;
    for nowhere in ["file:///etc/passwd", "http://", "gopher://a/"] {
        let server = redirecting(nowhere).await;
        down("http", format!("http://{server}/"), json!({"redirects": 3}), Code::Redirect, "cannot be asked").await;
    }
    let without = answering(http("302 Found", "", "")).await;
    down("http", format!("http://{without}/"), json!({"redirects": 3}), Code::Status, "302").await;
}

/// A server that may be probed sends the probe to one that may not.
#[tokio::test]
async fn a_redirect_leads_past_no_policy() {
    let inner = answering(http("200 OK", "", "secret")).await;
    let port = inner.port();
    let policy = Policy { allow: vec![Rule::parse("127.0.0.1").expect("a rule")], ..Policy::server() };
    let good = redirecting(format!("http://127.0.0.1:{port}/")).await;
    let more = json!({"redirects": 3});
    assert!(under(&policy, "http", format!("http://{good}/"), more.clone()).await.up);
    for host in ["127.0.0.2", "[::ffff:127.0.0.3]", "[::1]", "169.254.169.254", "[fd00:ec2::254]", "0.0.0.0"] {
        let bad = redirecting(format!("http://{host}:{port}/")).await;
        let outcome = under(&policy, "http", format!("http://{bad}/"), more.clone()).await;
        is_down(&outcome, Code::Denied, "denies");
    }
    // A name is looked up, and what it leads to is what counts.
    let policy = Policy { deny: vec![Rule::parse("localhost").expect("a rule")], ..policy };
    let bad = redirecting(format!("http://LOCALHOST.:{port}/")).await;
    let outcome = under(&policy, "http", format!("http://{bad}/"), more).await;
    is_down(&outcome, Code::Denied, "localhost is denied by the policy");
}

#[tokio::test]
async fn families() {
    let server = answering(http("200 OK", "", "")).await;
    up("http", format!("http://{server}/"), json!({"family": "ipv4"})).await;
    let more = json!({"family": "ipv6"});
    down("http", format!("http://{server}/"), more, Code::NoAddress, "127.0.0.1 has no IPv6 address").await;
    let name = "http://no-such-name.invalid/";
    // Where no resolver answers at all, that is what is told.
    let reason = outcome("http", name, json!({})).await.reason.expect("a reason");
    assert!(matches!(reason.code, Code::NameUnknown | Code::Resolver | Code::Timeout), "{reason:?}");
}
