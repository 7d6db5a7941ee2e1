//! TLS: certificates that are believed, and each kind that is not; HTTP over it.

use super::world::*;
use crate::Code;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server that shows a certificate, and then answers in HTTP/1.1.
async fn secure(certificate: &str) -> SocketAddr {
    let acceptor = acceptor(certificate, &[]);
    listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                answer_once(stream, http("200 OK", "", "").as_bytes()).await;
            }
        }
    })
    .await
}

fn by_ca(more: Value) -> Value {
    let mut tls = json!({"ca": ca()});
    tls.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    json!({"tls": tls})
}

#[tokio::test]
async fn a_good_certificate_is_believed_and_its_days_told() {
    let server = secure("good.crt").await;
    for (kind, target) in [
        ("tls", server.to_string()),
        ("tls", format!("localhost:{}", server.port())),
        ("tcp", server.to_string()),
        ("http", format!("https://{server}/")),
    ] {
        let outcome = up(kind, target, by_ca(json!({}))).await;
        assert!(value(&outcome, "probe.tls.days_left").is_some_and(|days| days > 0.0));
        assert_eq!(value(&outcome, "probe.tls.days_left"), value(&outcome, "probe.tls.chain_days_left"));
        assert!(value(&outcome, &format!("probe.{kind}.tls_ms")).is_some_and(|ms| ms > 0.0));
    }
    // A certificate may be believed itself, instead of who signed it.
    let own = std::fs::read_to_string(file("self.crt")).expect("a file");
    up("tls", secure("self.crt").await, json!({"tls": {"ca": own}})).await;
}

/// Each certificate that is of no use, seen by each kind that looks at one.
#[tokio::test]
async fn certificates_that_are_not_believed() {
    let by_system = json!({"tls": {}});
    let rows = [
        ("expired.crt", by_ca(json!({})), Code::CertificateExpired, "the certificate expired "),
        ("expired.crt", by_ca(json!({})), Code::CertificateExpired, " days ago"),
        ("not_yet.crt", by_ca(json!({})), Code::CertificateNotYet, "the certificate is not valid yet, but in "),
        ("other.crt", by_ca(json!({})), Code::CertificateName, "is for other.example, not for 127.0.0.1"),
        ("self.crt", by_ca(json!({})), Code::CertificateUntrusted, "signed by itself"),
        ("self_authority.crt", by_ca(json!({})), Code::CertificateUntrusted, "signed by itself"),
        ("stranger.crt", by_ca(json!({})), Code::CertificateUntrusted, "signed by nobody who is believed here"),
        ("client.crt", by_ca(json!({})), Code::Certificate, "the certificate is of no use: "),
        ("good.crt", by_ca(json!({"server_name": "b.example"})), Code::CertificateName, "not for b.example"),
        ("good.crt", by_ca(json!({"days_left_min": 10_000})), Code::CertificateSoon, "expires in "),
    ];
    for (certificate, more, code, part) in rows {
        let server = secure(certificate).await;
        for (kind, target) in
            [("tls", server.to_string()), ("http", format!("https://{server}/")), ("grpc", server.to_string())]
        {
            let outcome = down(kind, target, more.clone(), code, part).await;
            let days = value(&outcome, "probe.tls.days_left").expect("told all the same");
            assert_eq!(days < 0.0, certificate == "expired.crt", "{certificate}: {days}");
        }
    }
    // Without a file of authorities on this host, that is what is told.
    let reason = outcome("tls", secure("good.crt").await, by_system).await.reason.expect("a reason");
    assert!(matches!(reason.code, Code::CertificateUntrusted | Code::Local), "{reason:?}");
}

#[tokio::test]
async fn who_believes_all_is_told_the_days_all_the_same() {
    let server = secure("expired.crt").await;
    let outcome = up("tls", server, json!({"tls": {"verify": false}})).await;
    assert!(value(&outcome, "probe.tls.days_left").is_some_and(|days| days < 0.0));
    let more = json!({"tls": {"verify": false, "days_left_min": 7}});
    down("tls", server, more, Code::CertificateSoon, "the certificate expired ").await;
}

#[tokio::test]
async fn servers_that_do_not_speak_it() {
    let late = json!({"timeout_ms": 500, "tls": {"verify": false}});
    down("tls", silent().await, late, Code::Timeout, "in phase tls").await;
    let more = json!({"tls": {"verify": false}});
    for words in ["220 hello\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"] {
        down("tls", replying(words).await, more.clone(), Code::NoTls, "speaks no TLS").await;
    }
    let ends = listen(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    });
    down("tls", ends.await, more.clone(), Code::Closed, "has closed the connection in phase tls").await;
    let refuses = listen(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        // An alert: fatal, handshake failure.
        let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).await;
        read_all(&mut stream).await;
    });
    down("tls", refuses.await, more, Code::Tls, "has refused the handshake: HandshakeFailure").await;
}

/// A server of HTTP/2, or HTTP/1.1 where it is asked for.
async fn both(alpn: &'static [&'static str]) -> SocketAddr {
    let acceptor = acceptor("good.crt", alpn);
    listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let answer = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello")))) });
            let is_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = TokioIo::new(stream);
            // Who has heard enough ends the connection.
            let _ = match is_two {
                true => {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer).await
                }
                false => hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await,
            };
        }
    })
    .await
}

#[tokio::test]
async fn http_2_is_spoken_where_both_agree() {
    let check = async |alpn: &'static [&'static str], protocol: &str, expected: f64| {
        let mut more = by_ca(json!({}));
        more["protocol"] = json!(protocol);
        more["body_match"] = json!({"pattern": "^hello$"});
        let outcome = up("http", format!("https://{}/", both(alpn).await), more).await;
        assert_eq!(value(&outcome, "probe.http.version"), Some(expected), "{alpn:?} {protocol}");
    };
    check(&["h2", "http/1.1"], "auto", 2.0).await;
    check(&["h2", "http/1.1"], "1.1", 1.1).await;
    check(&["h2", "http/1.1"], "2", 2.0).await;
    check(&["http/1.1"], "auto", 1.1).await;
    check(&[], "auto", 1.1).await;
    let mut more = by_ca(json!({}));
    more["protocol"] = json!("2");
    let server = both(&[]).await;
    down("http", format!("https://{server}/"), more, Code::Protocol, "does not agree to HTTP/2").await;
    let plain = replying("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    down("http", format!("http://{plain}/"), json!({"protocol": "2"}), Code::Protocol, "HTTP/2").await;
}

/// Heads over HTTP/2 have the same bound.
#[tokio::test]
async fn heads_of_http_2_have_a_bound() {
    let server = listen(|stream| async move {
        let answer = service_fn(|_| async {
            let long = Response::builder().header("x", "y".repeat(60_000)).body(Full::new(Bytes::new()));
            Ok::<_, Infallible>(long.expect("an answer"))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), answer).await;
    });
    // The library says no more than that the protocol was broken.
    down("http", format!("http://{}/", server.await), json!({"protocol": "2"}), Code::Protocol, "HTTP/2").await;
}
