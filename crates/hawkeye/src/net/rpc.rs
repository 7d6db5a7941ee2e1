//! JSON-RPC 1.0 over a TCP connection, server side; the bytes are `wire`'s, the sockets are ours.
//!
//! How: a connection waits without a buffer. When bytes come it takes a share of the byte budget, reads until the peer
//! pauses, and hands each complete message to its [`Service`]; answers leave in order, together when several requests
//! came together. A started message must be complete within `message_timeout`.
//! Invariants: what cannot be framed or is not JSON is answered with an error that says why, and the connection is closed, as
//! in Go; an unknown method or a wrong parameter is answered and the connection stays. Nothing is ever answered twice.
//! Memory: an idle connection holds its task only (some hundred bytes); a busy one [`BUFFER_FIRST`] bytes and more within
//! the budget, up to `message_max`; one that pauses inside a short message what it has sent, to the next KiB.

use super::budget::{Budget, Share, UNIT};
use crate::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use wire::jsonrpc::{self, Request};
use wire::{Framer, Scratch};

/// The first buffer of a busy connection: one collector group of an agent is 2 to 12 kB.
const BUFFER_FIRST: usize = 16 << 10;
/// Answers are sent when they reach this size, also when more requests wait in the buffer.
const ANSWERS_MAX: usize = 64 << 10;

/// What is read and thrown away after a closing answer; who sends more than that does not listen.
const GOODBYE_BYTES_MAX: usize = 1 << 20;

/// What a listener does with a request: append exactly one answer to `out`.
pub trait Service: Clone + Send + Sync + 'static {
    fn call(&self, request: Request<'_, '_>, out: &mut Vec<u8>) -> impl Future<Output = ()> + Send;
}

#[derive(Clone)]
pub struct RpcLimits {
    pub message_max: usize,
    pub message_timeout: Duration,
    pub budget: Budget,
    pub metrics: RpcMetrics,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FaultLabel {
    listener: &'static str,
    reason: &'static str,
}

/// Connections that were closed because of what came over them, by listener and reason.
#[derive(Clone, Default)]
pub struct RpcMetrics {
    faults: Family<FaultLabel, Counter>,
}

impl RpcMetrics {
    pub fn register(metrics: &Metrics) -> RpcMetrics {
        let own = RpcMetrics::default();
        metrics.register(|registry| {
            registry.register("rpc_faults", "Connections closed for what came over them", own.faults.clone());
        });
        own
    }

    pub fn fault(&self, listener: &'static str, reason: &'static str) {
        self.faults.get_or_create(&FaultLabel { listener, reason }).inc();
    }
}

/// Serves one connection until its peer or the process ends it.
pub async fn connection<S: Service>(
    name: &'static str,
    mut stream: TcpStream,
    peer: SocketAddr,
    service: S,
    limits: RpcLimits,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            ready = stream.readable() => if ready.is_err() { return },
        }
        let share = limits.budget.take(BUFFER_FIRST).await;
        // Boxed, so that an idle connection's task does not hold the room that a busy one needs.
        match Box::pin(burst(&mut stream, &service, &limits, share)).await {
            Ok(Next::Idle) => {}
            Ok(Next::Closed) => return,
            Err(fault) => {
                limits.metrics.fault(name, fault.reason);
                tracing::debug!(listener = name, %peer, reason = fault.reason, text = fault.text, "closed");
                Box::pin(say_goodbye(&mut stream, &fault, limits.message_timeout)).await;
                return;
            }
        }
    }
}

enum Next {
    /// All that came is answered.
    Idle,
    Closed,
}

/// Why a connection is closed by us. `text` goes to the peer unless it is empty.
struct Fault {
    reason: &'static str,
    text: String,
}

impl Fault {
    fn silent(reason: &'static str) -> Fault {
        Fault { reason, text: String::new() }
    }
}

/// Reads and answers until nothing is left over in the buffer.
async fn burst<S: Service>(
    stream: &mut TcpStream,
    service: &S,
    limits: &RpcLimits,
    mut share: Share,
) -> Result<Next, Fault> {
    let mut buffer = Vec::with_capacity(BUFFER_FIRST);
    let mut framer = Framer::new(limits.message_max);
    let mut scratch = Scratch::new();
    let mut answers = Vec::new();
    let mut deadline = tokio::time::Instant::now() + limits.message_timeout;
    loop {
        match stream.try_read_buf(&mut buffer) {
            Ok(0) if is_blank(&buffer) => return Ok(Next::Closed),
            Ok(0) => return Err(Fault::silent("ended_inside_message")),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Readiness can be a memory of bytes that were read before; then there is nothing to wait for here.
                if is_blank(&buffer) {
                    return Ok(Next::Idle);
                }
                give_back(&mut buffer, &mut share);
                if tokio::time::timeout_at(deadline, stream.readable()).await.is_err() {
                    let text = format!("message not complete after {} s", limits.message_timeout.as_secs());
                    return Err(Fault { reason: "timeout", text });
                }
                continue;
            }
            Err(_) => return Err(Fault::silent("read_error")),
        }
        let answered =
            answer_messages(&mut buffer, &mut framer, &mut scratch, service, stream, &mut answers, limits).await?;
        send(stream, &mut answers, limits.message_timeout).await?;
        if is_blank(&buffer) {
            return Ok(Next::Idle);
        }
        if answered {
            deadline = tokio::time::Instant::now() + limits.message_timeout;
        }
        make_room(&mut buffer, &mut share, limits)?;
    }
}

/// White space between messages belongs to none of them, and is no reason to hold a buffer.
fn is_blank(buffer: &[u8]) -> bool {
    buffer.iter().all(u8::is_ascii_whitespace)
}

/// Answers each complete message in `buffer` and removes it. True if there was one.
async fn answer_messages<S: Service>(
    buffer: &mut Vec<u8>,
    framer: &mut Framer,
    scratch: &mut Scratch,
    service: &S,
    stream: &mut TcpStream,
    answers: &mut Vec<u8>,
    limits: &RpcLimits,
) -> Result<bool, Fault> {
    let mut consumed = 0;
    loop {
        let found = framer.scan(&buffer[consumed..]);
        let message = match found {
            Ok(Some(range)) => consumed + range.start..consumed + range.end,
            Ok(None) => break,
            Err(error) => {
                send(stream, answers, limits.message_timeout).await?;
                return Err(Fault { reason: error.as_str(), text: error.to_string() });
            }
        };
        consumed = message.end;
        framer.reset();
        match jsonrpc::request(&buffer[message], scratch) {
            Ok(request) => service.call(request, answers).await,
            Err(error) => {
                send(stream, answers, limits.message_timeout).await?;
                return Err(Fault { reason: "broken_json", text: format!("broken JSON: {error}") });
            }
        }
        if answers.len() >= ANSWERS_MAX {
            send(stream, answers, limits.message_timeout).await?;
        }
    }
    if consumed > 0 {
        buffer.drain(..consumed);
    }
    Ok(consumed > 0)
}

/// Before a pause inside a short message: thousands that begin one and never end it must not hold the first buffers of all
/// others. A longer message keeps its buffer, which is at least half full, for each move of it would cost a copy.
fn give_back(buffer: &mut Vec<u8>, share: &mut Share) {
    // One byte more, for a read into a full buffer would let it grow beyond its share.
    let kept = (buffer.len() + 1).next_multiple_of(UNIT);
    if buffer.capacity() <= BUFFER_FIRST && kept < buffer.capacity() {
        buffer.shrink_to(kept);
        share.shrink(kept);
    }
}

/// Doubles a full buffer, within the budget and up to the longest message.
fn make_room(buffer: &mut Vec<u8>, share: &mut Share, limits: &RpcLimits) -> Result<(), Fault> {
    if buffer.len() < buffer.capacity() {
        return Ok(());
    }
    // The framer has refused what is longer than `message_max` already; one byte more tells it.
    let to_longest = (limits.message_max + 1).saturating_sub(buffer.capacity()).next_multiple_of(UNIT);
    let more = buffer.capacity().min(to_longest.max(UNIT));
    if !limits.budget.grow(share, more) {
        return Err(Fault {
            reason: "no_buffer",
            text: "too many unfinished messages at once: send smaller batches or try again".to_string(),
        });
    }
    buffer.reserve_exact(more);
    Ok(())
}

/// Sends and clears `answers`. A peer that does not read is given up.
async fn send(stream: &mut TcpStream, answers: &mut Vec<u8>, timeout: Duration) -> Result<(), Fault> {
    if answers.is_empty() {
        return Ok(());
    }
    let result = tokio::time::timeout(timeout, stream.write_all(answers)).await;
    answers.clear();
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Fault::silent("write_error")),
        Err(_) => Err(Fault::silent("peer_does_not_read")),
    }
}

/// Tells the peer why, as an answer without an id, and closes.
async fn say_goodbye(stream: &mut TcpStream, fault: &Fault, timeout: Duration) {
    if fault.text.is_empty() {
        return;
    }
    let mut out = Vec::new();
    jsonrpc::write_error(&mut out, b"null", &fault.text);
    if send(stream, &mut out, timeout).await.is_err() {
        return;
    }
    // What the peer sent and nobody read would turn the close into a reset that destroys the answer on its way.
    let _ = stream.shutdown().await;
    let mut sink = [0; 4096];
    let mut left = GOODBYE_BYTES_MAX;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    while let Ok(Ok(())) = tokio::time::timeout_at(deadline, stream.readable()).await {
        match stream.try_read(&mut sink) {
            Ok(n) if n > 0 && n <= left => left -= n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
