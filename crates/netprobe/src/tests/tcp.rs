//! TCP: dialogues, and STARTTLS with servers that refuse it.

use super::world::*;
use crate::Code;
use serde_json::json;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that says each text, and reads a line before the next one.
async fn saying(texts: &'static [&'static str]) -> SocketAddr {
    listen(move |mut stream| async move {
        for (i, text) in texts.iter().enumerate() {
            if i > 0 {
                while stream.read_u8().await.is_ok_and(|byte| byte != b'\n') {}
            }
            let _ = stream.write_all(text.as_bytes()).await;
        }
        read_all(&mut stream).await;
    })
    .await
}

#[tokio::test]
async fn a_dialogue() {
    let outcome = up("tcp", silent().await, json!({})).await;
    assert_eq!(metrics(&outcome), ["probe.up", "probe.tcp.dns_ms", "probe.tcp.connect_ms", "probe.tcp.total_ms"]);
    let server = saying(&["220-one\r\n220 two\r\n", "250 hello\r\n", "+PONG"]).await;
    let talk = json!({"talk": [
        {"expect": "^220 "}, {"send": "EHLO a\r\n", "expect": "^250"}, {"send": "PING\r\n", "expect": "PONG"}
    ]});
    let outcome = up("tcp", server, talk).await;
    assert!(value(&outcome, "probe.tcp.talk_ms").is_some());
}

#[tokio::test]
async fn dialogues_that_fail() {
    let expect = |pattern: &str| json!({"talk": [{"expect": pattern}], "timeout_ms": 500});
    down("tcp", nobody().await, json!({}), Code::Refused, "connection refused by").await;
    down("tcp", silent().await, expect("220"), Code::Timeout, "in phase talk").await;
    let other = saying(&["554 no\r\n"]).await;
    let part = "got \"554 no\", want \"^220\", within 500 ms";
    down("tcp", other, expect("^220"), Code::Match, part).await;
    let ends = answering("").await;
    let talk = json!({"talk": [{"send": "\r\n\r\n", "expect": "^220"}]});
    down("tcp", ends, talk.clone(), Code::Closed, "in phase talk, want \"^220\"").await;
    let says_and_ends = answering("421 busy\r\n").await;
    down("tcp", says_and_ends, talk.clone(), Code::Match, "got \"421 busy\", want \"^220\"").await;
    let floods = listen(|mut stream| async move { while stream.write_all(b"more\r\n").await.is_ok() {} });
    down("tcp", floods.await, json!({"talk": [{"expect": "^220"}]}), Code::TooLong, "too much came").await;
    let one_line = listen(|mut stream| async move { while stream.write_all(b"more").await.is_ok() {} });
    down("tcp", one_line.await, json!({"talk": [{"expect": "^220"}]}), Code::TooLong, "too much came").await;
}

/// A server that has a dialogue in plain text, then shows a certificate.
async fn upgrading(texts: &'static [&'static str]) -> SocketAddr {
    let acceptor = acceptor("good.crt", &[]);
    listen(move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            for (i, text) in texts.iter().enumerate() {
                if i > 0 {
                    while stream.read_u8().await.is_ok_and(|byte| byte != b'\n') {}
                }
                let _ = stream.write_all(text.as_bytes()).await;
            }
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.write_all(b"over TLS\r\n").await;
                let _ = stream.read(&mut [0; 64]).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn starttls() {
    let tls = json!({"ca": ca()});
    let check = async |protocol: &str, texts: &'static [&'static str]| {
        let more = json!({"starttls": protocol, "tls": tls});
        let outcome = up("tls", upgrading(texts).await, more).await;
        for phase in ["starttls_ms", "tls_ms"] {
            assert!(value(&outcome, &format!("probe.tls.{phase}")).is_some(), "{protocol} {phase}");
        }
        let talk = json!([{"expect": "over TLS"}]);
        up("tcp", upgrading(texts).await, json!({"starttls": protocol, "tls": tls, "talk": talk})).await;
    };
    check("smtp", &["220-a\r\n220 b\r\n", "250-a\r\n250 STARTTLS\r\n", "220 go\r\n"]).await;
    check("imap", &["* OK ready\r\n", "* CAPABILITY X\r\na OK go\r\n"]).await;
    check("pop3", &["+OK ready\r\n", "+OK go\r\n"]).await;
    check("ftp", &["220 ready\r\n", "234 go\r\n"]).await;
}

/// A server that reads a request of `length` bytes, answers, and then shows a certificate.
async fn binary(length: usize, answer: &'static [u8]) -> SocketAddr {
    let acceptor = acceptor("good.crt", &[]);
    listen(move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut request = vec![0; length];
            if stream.read_exact(&mut request).await.is_ok() && stream.write_all(answer).await.is_ok() {
                let _ = acceptor.accept(stream).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn starttls_of_directories_and_databases() {
    let more = |protocol: &str| json!({"starttls": protocol, "tls": {"ca": ca()}});
    up("tls", binary(31, b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00").await, more("ldap")).await;
    let refused = binary(31, b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x34\x04\x00\x04\x00").await;
    down("tls", refused, more("ldap"), Code::StartTls, "LDAP result 52").await;
    down("tls", binary(31, b"HTTP/1.1 400").await, more("ldap"), Code::Protocol, "speaks no LDAP").await;
    down("tls", binary(31, b"\x30\x82\xff\xff").await, more("ldap"), Code::TooLong, "65535 bytes").await;
    up("tls", binary(8, b"S").await, more("postgres")).await;
    down("tls", binary(8, b"N").await, more("postgres"), Code::StartTls, "has no TLS configured").await;
    down("tls", binary(8, b"E").await, more("postgres"), Code::Protocol, "speaks no PostgreSQL").await;
}

#[tokio::test]
async fn starttls_that_is_refused() {
    let check = async |protocol: &str, texts: &'static [&'static str], code: Code, part: &str| {
        down("tls", saying(texts).await, json!({"starttls": protocol, "timeout_ms": 500}), code, part).await;
    };
    check("smtp", &["220 a\r\n", "250 a\r\n", "454 no\r\n"], Code::StartTls, "said \"454 no\", want \"220\"").await;
    check("smtp", &["554 go away\r\n"], Code::StartTls, "554 go away").await;
    check("imap", &["* OK\r\n", "a NO\r\n"], Code::StartTls, "a NO").await;
    check("pop3", &["+OK\r\n", "-ERR\r\n"], Code::StartTls, "-ERR").await;
    check("ftp", &["220 a\r\n", "500 what\r\n"], Code::StartTls, "500 what").await;
    check("pop3", &["+OK\r\n", "+OK\r\ninjected\r\n"], Code::StartTls, "more in plain text").await;
    check("smtp", &[], Code::Timeout, "in phase starttls").await;
    let ends = answering("").await;
    // A server of HTTP reads the head of a request first, so its greeting never comes.
    down("tls", ends, json!({"starttls": "smtp", "timeout_ms": 500}), Code::Timeout, "starttls").await;
    let closes = listen(|stream| async move { drop(stream) });
    let code = outcome("tls", closes.await, json!({"starttls": "smtp"})).await.reason.expect("a reason").code;
    assert!(matches!(code, Code::Closed | Code::Reset), "{code:?}");
    let floods = listen(|mut stream| async move { while stream.write_all(b"220-more\r\n").await.is_ok() {} });
    down("tls", floods.await, json!({"starttls": "smtp"}), Code::TooLong, "talks on before TLS").await;
}
