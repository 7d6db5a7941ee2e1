//! The door for HTTP over real sockets. Tests of times give the door short ones, and wait for what it does.

use super::*;
use crate::budget::Budget;
use crate::listen::ConnectionMetrics;
use crate::patience::{in_time, until};
use crate::places::Places;
use axum::body::Bytes;
use axum::routing::{any, get};
use std::time::Instant;
use stdx::ledger::Account;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

struct Served {
    address: SocketAddr,
    budget: Budget,
    metrics: ConnectionMetrics,
    /// Answers that were made by `/counted`.
    counted: Arc<AtomicU32>,
    _stop: watch::Sender<bool>,
}

/// Serves a few routes with so many bytes for unfinished messages and so many connections.
async fn serve_routes(budget: u64, connections_max: usize) -> Served {
    serve_routes_within(TIMES, budget, connections_max).await
}

async fn serve_routes_within(times: Times, budget: u64, connections_max: usize) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (budget, metrics) = (Budget::new(budget), ConnectionMetrics::default());
    let limits = Limits {
        connections_max,
        places: Places::new(1000),
        allow: Arc::new([]),
        metrics: metrics.clone(),
        connections: Account::new("connections", None),
        http: Account::new("http", None),
        budget: budget.clone(),
        tls: None,
    };
    let echo = async |peer: Peer, body: Body| match read_body(&peer, body, 1 << 20, Duration::from_secs(60)).await {
        Ok(body) => body.len().to_string(),
        Err(error) => error.text(),
    };
    let counted: Arc<AtomicU32> = Arc::default();
    let counter = counted.clone();
    let count = async move || {
        counter.fetch_add(1, Relaxed);
        Bytes::from(vec![b'x'; 1 << 20])
    };
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", any(echo))
        .route("/counted", get(count))
        .route("/long", get(|| async { Bytes::from(vec![b'x'; LONG]) }));
    let (stop, stopping) = watch::channel(false);
    let door = Door { times, name: "door", limits, guard: Guard::own_pages_only(&[]), router };
    tokio::spawn(door.serve(listener, stopping));
    Served { address, budget, metrics, counted, _stop: stop }
}

/// Bytes of a long answer: more than the buffers of two sockets.
const LONG: usize = 64 << 20;

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("it reads");
        stream
    }

    async fn ask(&self, request: &str) -> String {
        read_all(self.send(request.as_bytes()).await).await
    }
}

/// What comes until the end; a reset is an end, too.
async fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = in_time("the end of the connection", stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn half_a_head(bytes: usize) -> Vec<u8> {
    let mut head = b"GET / HTTP/1.1\r\nHost: localhost\r\nx: ".to_vec();
    head.resize(bytes, b'x');
    head
}

#[tokio::test]
async fn heads_count_against_the_budget() {
    let served = serve_routes(256 << 10, 1000).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(served.send(&half_a_head(60 << 10)).await);
    }
    until("three heads in the budget", async || served.budget.bytes_used() == 3 * (56 << 10)).await;
    let refused = read_all(served.send(&half_a_head(60 << 10)).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.ends_with("send shorter heads\n"), "{refused:?}");
    assert!(served.ask(GET).await.ends_with("hello"), "an ordinary head needs nothing of it");
    // Another machine has what the first one leaves.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("a loopback address");
    let mut other = socket.connect(served.address).await.expect("it listens");
    other.write_all(&half_a_head(20 << 10)).await.expect("it reads");
    other.write_all(b"\r\nConnection: close\r\n\r\n").await.expect("it reads");
    assert!(read_all(other).await.ends_with("hello"));
    drop(held);
    until("all bytes back", async || served.budget.bytes_used() == 0).await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let served = serve_routes(64 << 20, 1000).await;
    let answer = read_all(served.send(&half_a_head(HEAD_BYTES_MAX + 1)).await).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
}

const SHORT: Duration = Duration::from_millis(100);

impl Served {
    /// What comes on a connection after `bytes`; sent again where this test was slower than the door is patient.
    async fn answer_to(&self, bytes: &[u8]) -> String {
        loop {
            let mut stream = self.connect().await;
            let answer = match stream.write_all(bytes).await {
                Ok(()) => read_all(stream).await,
                Err(_) => String::new(),
            };
            if !answer.is_empty() {
                return answer;
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_ends_and_so_does_half_a_head() {
    let served = serve_routes_within(Times { head: SHORT, ..TIMES }, 1 << 20, 1000).await;
    assert_eq!(read_all(served.connect().await).await, "");
    let late = in_time("a refusal", served.answer_to(b"GET / HTTP/1.1\r\n")).await;
    assert!(late.starts_with("HTTP/1.1 408 ") && late.ends_with("did not come in time\n"), "{late:?}");
}

/// Between two requests a connection may be silent for longer than within a head.
#[tokio::test]
async fn an_idle_connection_stays_a_while() {
    let idle = 3 * SHORT;
    let served = serve_routes_within(Times { head: SHORT, idle, ..TIMES }, 1 << 20, 1000).await;
    let start = Instant::now();
    let answer = in_time("an answer", served.answer_to(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer:?}");
    assert!(start.elapsed() >= idle, "{:?}", start.elapsed());
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_given_up() {
    let served = serve_routes_within(Times { stall: SHORT, ..TIMES }, 1 << 20, 1000).await;
    let stream = served.send(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let label = crate::listen::ListenerLabel { listener: "door" };
    let (accepted, open) =
        (served.metrics.accepted.get_or_create_owned(&label), served.metrics.open.get_or_create_owned(&label));
    until("the end of the connection", async || accepted.get() == 1 && open.get() == 0).await;
    assert!(read_all(stream).await.len() < LONG);
}

/// Pins that hyper makes no answer ahead while the ones before do not leave: of 500 requests in one go, those are
/// answered whose answers fit into the buffers of two sockets.
#[tokio::test]
async fn who_does_not_read_has_no_further_answers_made() {
    let served = serve_routes_within(Times { stall: SHORT, ..TIMES }, 1 << 20, 1000).await;
    let requests = "GET /counted HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500);
    let stream = served.send(requests.as_bytes()).await;
    let label = crate::listen::ListenerLabel { listener: "door" };
    let (accepted, open) =
        (served.metrics.accepted.get_or_create_owned(&label), served.metrics.open.get_or_create_owned(&label));
    until("the end of the connection", async || accepted.get() == 1 && open.get() == 0).await;
    let counted = served.counted.load(Relaxed);
    assert!((1..50).contains(&counted), "{counted} answers were made");
    drop(stream);
}

#[tokio::test]
async fn silent_connections_give_way() {
    let served = serve_routes(1 << 20, 4).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(served.connect().await);
    }
    for _ in 0..5 {
        assert!(served.ask(GET).await.ends_with("hello"));
    }
    assert_eq!(read_all(silent.remove(0)).await, "", "the oldest is cut off");
}

#[tokio::test]
async fn foreign_pages_and_names_are_refused_and_counted() {
    let served = serve_routes(1 << 20, 1000).await;
    let ask = async |headers: &str| {
        served.ask(&format!("POST /echo HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: 2\r\n\r\nab")).await
    };
    let answer = ask("Host: localhost\r\nOrigin: http://evil.example\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("http://evil.example"), "{answer:?}");
    let answer = ask("Host: evil.example\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 421 ") && answer.contains("listen.hosts"), "{answer:?}");
    let port = served.address.port();
    let answer = ask(&format!("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n")).await;
    assert!(answer.ends_with("\r\n\r\n2"), "{answer:?}");
    for reason in ["foreign", "host"] {
        assert_eq!(served.metrics.requests_refused("door", reason), 1, "{reason}");
    }
}
