//! World of the tests: servers on loopback that do what they should not, and checks of what a probe says of them.

use crate::{Code, Definition, Means, Outcome, Policy, Reason, run};
use net::patience::in_time;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tls").join(name)
}

/// PEM text of the authority that has signed the certificates of the tests.
pub fn ca() -> String {
    std::fs::read_to_string(file("ca.crt")).expect("a file")
}

/// A certificate of the tests, for servers.
pub fn acceptor(certificate: &str, alpn: &[&str]) -> TlsAcceptor {
    let chain = CertificateDer::from_pem_file(file(certificate)).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("a pair");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// Serves each connection with `serve`, for as long as the test's runtime lives.
pub async fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A server that never says anything, and keeps what connects.
pub async fn silent() -> SocketAddr {
    listen(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await
}

/// A port on which nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound")
}

/// Reads a request's head, and answers with `answer`; then ends the connection.
pub async fn answer_once(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) -> String {
    let asked = head(&mut stream).await;
    // Who has heard enough ends the connection.
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
    asked
}

/// The head of a request.
pub async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A server that gives this answer to each request.
pub async fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer: Arc<[u8]> = answer.into().into();
    listen(move |stream| {
        let answer = answer.clone();
        async move { _ = answer_once(stream, &answer).await }
    })
    .await
}

/// A server that says this to whoever says something, and then listens on.
pub async fn replying(answer: &'static str) -> SocketAddr {
    listen(move |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(answer.as_bytes()).await;
        read_all(&mut stream).await;
    })
    .await
}

/// An answer of HTTP/1.1 with a length.
pub fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// A definition with `more` keys.
pub fn definition(kind: &str, target: impl ToString, more: Value) -> Definition {
    let mut json = json!({"name": "p", "kind": kind, "target": target.to_string(), "timeout_ms": 20_000});
    let keys = json.as_object_mut().expect("an object");
    keys.extend(more.as_object().expect("an object").clone());
    serde_json::from_value(json).expect("a definition")
}

/// Runs a probe as an agent would.
pub async fn outcome(kind: &str, target: impl ToString, more: Value) -> Outcome {
    under(&Policy::agent(), kind, target, more).await
}

/// Runs a probe under a policy.
pub async fn under(policy: &Policy, kind: &str, target: impl ToString, more: Value) -> Outcome {
    let definition = definition(kind, target, more);
    let outcome = in_time("the end of a run", run(&definition, policy, &Means::default())).await;
    assert_eq!(outcome.readings[0].metric, "probe.up");
    assert_eq!(outcome.readings[0].value, f64::from(u8::from(outcome.up)));
    assert!(outcome.up || outcome.reason.is_some(), "down without a reason");
    for reading in &outcome.readings {
        assert!(reading.tags.contains("target="), "{reading:?}");
        assert_eq!(model::tags::canonical_string(&reading.tags), reading.tags);
        assert!(reading.value.is_finite(), "{reading:?}");
    }
    outcome
}

/// The probe is up.
pub async fn up(kind: &str, target: impl ToString, more: Value) -> Outcome {
    let outcome = outcome(kind, target, more).await;
    assert!(outcome.up, "{:?}", outcome.reason);
    outcome
}

/// The probe is down for this reason, whose text has this part.
pub async fn down(kind: &str, target: impl ToString, more: Value, code: Code, part: &str) -> Outcome {
    let outcome = outcome(kind, target, more).await;
    is_down(&outcome, code, part);
    outcome
}

pub fn is_down(outcome: &Outcome, code: Code, part: &str) {
    let Some(Reason { code: got, text }) = &outcome.reason else { panic!("it is up, want {code:?} with {part:?}") };
    assert!(!outcome.up && *got == code && text.contains(part), "{got:?} {text:?}, want {code:?} with {part:?}");
}

/// Value of a metric.
pub fn value(outcome: &Outcome, metric: &str) -> Option<f64> {
    outcome.readings.iter().find(|reading| reading.metric == metric).map(|reading| reading.value)
}

/// Metrics of an outcome, without those of other kinds.
pub fn metrics(outcome: &Outcome) -> Vec<&str> {
    outcome.readings.iter().map(|reading| reading.metric.as_ref()).collect()
}

/// Calls `check` with a thousand broken forms of `sound`, the same in each run: bytes replaced, taken out, doubled, and
/// the rest cut off.
pub fn broken_forms(sound: &[u8], check: impl Fn(&[u8])) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut number = move |below: usize| {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    for _ in 0..1000 {
        let mut bytes = sound.to_vec();
        for _ in 0..=number(4) {
            let at = number(bytes.len());
            match number(4) {
                0 if !bytes.is_empty() => bytes[at] = number(256) as u8,
                1 if !bytes.is_empty() => _ = bytes.remove(at),
                2 => bytes.extend_from_within(at.min(bytes.len())..),
                _ => bytes.truncate(at.max(1)),
            }
        }
        check(&bytes);
    }
}

/// What was read until the other side said no more.
pub async fn read_all(stream: &mut TcpStream) {
    let mut sink = Vec::new();
    let _ = stream.read_to_end(&mut sink).await;
}
