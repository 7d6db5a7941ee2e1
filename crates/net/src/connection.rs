//! Connection: messages that come over TCP and are answered; a [`Protocol`] knows what a message is.
//!
//! How: a connection waits without a buffer. When bytes come it takes a share of the byte budget, reads until the peer
//! pauses, and has the protocol answer each complete message; answers leave in order, together when several requests
//! came together. A started message must be complete within `message_timeout`. Until its first message is whole, a
//! connection keeps the server waiting and gives way when places are scarce; later it may be idle for as long as it
//! likes, for agents are.
//! Invariants: what is no message is answered with an error that says why, where the protocol can, and the connection
//! is closed, as in Go. Nothing is ever answered twice.
//! Memory: an idle connection holds its task (some hundred bytes) and what its protocol remembers; a busy one
//! [`BUFFER_FIRST`] bytes and more within the budget, up to `message_max`; one that pauses inside a short message what
//! it has sent, to the next KiB.

use super::budget::{Budget, Share, UNIT};
use super::listen::say_that_it_is_plain;
use super::places::Place;
use super::seldom::Seldom;
use super::stream::Stream;
use super::tls::is_tls;
use super::turns::Holder;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stdx::ledger::Account;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

/// The first buffer of a busy connection: one collector group of an agent is 2 to 12 kB.
const BUFFER_FIRST: usize = 16 << 10;
/// Answers are sent when they reach this size, also when more requests wait in the buffer.
const ANSWERS_MAX: usize = 64 << 10;

/// Bytes that are read and thrown away after a closing answer; who sends more does not listen.
const GOODBYE_BYTES_MAX: usize = 1 << 20;

/// A protocol over one connection: how bytes become messages, and messages are answered.
pub trait Protocol: Send + 'static {
    /// Answers the first message of `input` by appending to `out`; says how many bytes the message and what stands
    /// before it take. `None` while it is not complete.
    fn answer(&mut self, input: &[u8], out: &mut Vec<u8>) -> impl Future<Output = Result<Option<usize>, Fault>> + Send;

    /// True when these bytes belong to no message, and are no reason to hold a buffer.
    fn is_blank(input: &[u8]) -> bool;

    /// Gives up what is needed only while messages come; called when the connection becomes idle.
    fn idle(&mut self);

    /// Bytes that the protocol remembers between messages, besides the size of its value.
    fn memory_bytes(&self) -> usize;

    /// Appends a message that tells the peer why its connection is closed, if the protocol has one.
    fn say_goodbye(&mut self, text: &str, out: &mut Vec<u8>);
}

/// Limits of the connections of one process.
#[derive(Clone)]
pub struct RpcLimits {
    pub message_max: usize,
    pub message_timeout: Duration,
    pub budget: Budget,
    pub metrics: RpcMetrics,
    /// Account of what connections hold besides messages.
    pub connections: Account,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FaultLabel {
    listener: &'static str,
    reason: &'static str,
}

/// Counts of connections that were closed for what came over them, by listener and reason.
#[derive(Clone, Default)]
pub struct RpcMetrics {
    faults: Family<FaultLabel, Counter>,
    tls_told: Arc<Seldom>,
}

impl RpcMetrics {
    /// Counts that are shown on the metrics page from now on.
    pub fn register(registry: &mut Registry) -> RpcMetrics {
        let own = RpcMetrics::default();
        registry.register("rpc_faults", "Connections closed for what came over them", own.faults.clone());
        own
    }

    /// Connections that were closed so far.
    #[cfg(test)]
    pub fn faults(&self, listener: &'static str, reason: &'static str) -> u64 {
        self.faults.get_or_create(&FaultLabel { listener, reason }).get()
    }

    /// Counts a connection that was closed because its peer speaks TLS to a door that does not, and says so.
    pub fn fault_tls(&self, listener: &'static str, peer: SocketAddr) {
        self.fault(listener, "tls");
        if self.tls_told.may_say() {
            say_that_it_is_plain(listener, peer);
        }
    }

    /// Counts a connection that was closed.
    pub fn fault(&self, listener: &'static str, reason: &'static str) {
        self.faults.get_or_create(&FaultLabel { listener, reason }).inc();
    }
}

/// Serves one connection until its peer or the process ends it.
pub async fn connection<P: Protocol>(
    name: &'static str,
    mut stream: Stream,
    peer: SocketAddr,
    place: Place,
    mut protocol: P,
    limits: RpcLimits,
    mut shutdown: watch::Receiver<bool>,
) {
    let holder = Holder::at(peer.ip());
    let mut held = limits.connections.hold();
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            ready = stream.readable() => if ready.is_err() { return },
        }
        let share = limits.budget.take(&holder, BUFFER_FIRST).await;
        // Boxed, so that an idle connection's task does not hold the room that a busy one needs.
        match Box::pin(burst(&mut stream, &place, &mut protocol, &limits, share)).await {
            Ok(Next::Idle) => {
                protocol.idle();
                held.set(protocol.memory_bytes());
            }
            Ok(Next::Closed) => return,
            Err(fault) if fault.reason == TLS_FAULT => return limits.metrics.fault_tls(name, peer),
            Err(fault) => {
                limits.metrics.fault(name, fault.reason);
                tracing::debug!(listener = name, %peer, reason = fault.reason, text = fault.text, "closed");
                Box::pin(say_goodbye(&mut stream, &mut protocol, &fault, limits.message_timeout)).await;
                return;
            }
        }
    }
}

/// Reason of the fault of a client that speaks TLS to a door that does not.
const TLS_FAULT: &str = "tls";

enum Next {
    /// Everything that came is answered.
    Idle,
    Closed,
}

/// Reason for which this side closes a connection. `text` goes to the peer unless it is empty.
pub struct Fault {
    pub reason: &'static str,
    pub text: String,
}

impl Fault {
    /// A fault that the peer is not told.
    pub fn silent(reason: &'static str) -> Fault {
        Fault { reason, text: String::new() }
    }
}

/// Reads and answers until nothing is left over in the buffer.
async fn burst<P: Protocol>(
    stream: &mut Stream,
    place: &Place,
    protocol: &mut P,
    limits: &RpcLimits,
    mut share: Share,
) -> Result<Next, Fault> {
    let mut buffer = Vec::with_capacity(BUFFER_FIRST);
    let mut answers = Vec::new();
    let mut deadline = tokio::time::Instant::now() + limits.message_timeout;
    loop {
        match stream.try_read_buf(&mut buffer) {
            Ok(0) if P::is_blank(&buffer) => return Ok(Next::Closed),
            Ok(0) => return Err(Fault::silent("ended_inside_message")),
            Ok(_) => {}
            // The end of a TLS connection whose peer did not announce it.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && P::is_blank(&buffer) => return Ok(Next::Closed),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Readiness can be a memory of bytes that were read before; then there is nothing to wait for here.
                if P::is_blank(&buffer) {
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
        if is_tls(&buffer) {
            return Err(Fault::silent(TLS_FAULT));
        }
        let answered = answer_messages(&mut buffer, protocol, stream, &mut answers, limits).await?;
        if answered {
            place.waits(false);
        }
        send(stream, &mut answers, limits.message_timeout).await?;
        if P::is_blank(&buffer) {
            return Ok(Next::Idle);
        }
        if answered {
            deadline = tokio::time::Instant::now() + limits.message_timeout;
        }
        make_room(&mut buffer, &mut share, limits)?;
    }
}

/// Answers each complete message in `buffer` and removes it. True if there was one.
async fn answer_messages<P: Protocol>(
    buffer: &mut Vec<u8>,
    protocol: &mut P,
    stream: &mut Stream,
    answers: &mut Vec<u8>,
    limits: &RpcLimits,
) -> Result<bool, Fault> {
    let mut consumed = 0;
    loop {
        match protocol.answer(&buffer[consumed..], answers).await {
            Ok(Some(bytes)) => consumed += bytes,
            Ok(None) => break,
            Err(fault) => {
                // What came before it is answered first.
                send(stream, answers, limits.message_timeout).await?;
                return Err(fault);
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

/// Shrinks the buffer before a pause inside a short message: thousands that begin one and never end it must not hold
/// the first buffers of all others. A longer message keeps its buffer, which is at least half full, for each move of it
/// would cost a copy.
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
    // The protocol has refused what is longer than `message_max` already; one byte more tells it.
    let to_longest = (limits.message_max + 1).saturating_sub(buffer.capacity()).next_multiple_of(UNIT);
    let more = buffer.capacity().min(to_longest.max(UNIT));
    if !share.grow(more) {
        return Err(Fault {
            reason: "no_buffer",
            text: "too many unfinished messages at once: send smaller batches or try again".to_string(),
        });
    }
    buffer.reserve_exact(more);
    Ok(())
}

/// Sends and clears `answers`. A peer that does not read is given up.
async fn send(stream: &mut Stream, answers: &mut Vec<u8>, timeout: Duration) -> Result<(), Fault> {
    if answers.is_empty() {
        return Ok(());
    }
    let write = async {
        stream.write_all(answers).await?;
        // What TLS holds back leaves now.
        stream.flush().await
    };
    let result = tokio::time::timeout(timeout, write).await;
    answers.clear();
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Fault::silent("write_error")),
        Err(_) => Err(Fault::silent("peer_does_not_read")),
    }
}

/// Tells the peer why, and closes.
async fn say_goodbye<P: Protocol>(stream: &mut Stream, protocol: &mut P, fault: &Fault, timeout: Duration) {
    let mut out = Vec::new();
    if !fault.text.is_empty() {
        protocol.say_goodbye(&fault.text, &mut out);
    }
    if out.is_empty() {
        return;
    }
    if send(stream, &mut out, timeout).await.is_err() {
        return;
    }
    // What the peer sent and nobody read would turn the close into a reset that destroys the answer on its way.
    let _ = stream.shutdown().await;
    let mut left = GOODBYE_BYTES_MAX;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    while let Ok(Ok(())) = tokio::time::timeout_at(deadline, stream.readable()).await {
        match stream.try_discard(4096) {
            Ok(n) if n > 0 && n <= left => left -= n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
