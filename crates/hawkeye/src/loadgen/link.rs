//! Link: one connection of the simulated fleet, and the protocol over it.
//!
//! How: to a transfer as agents do, JSON-RPC; to a graph or a judge as a transfer does, Go's net/rpc with gob, whose
//! definitions of types go once over each connection; to other systems their protocols ([`super::peer`]). One call at a
//! time.
//! Invariants: a connection that failed is not used again, the next call makes a new one; after an error that the
//! server answers, the connection is kept.

use super::fleet::{Fleet, HostRound};
use super::peer::{self, Peer};
use anyhow::{Context, Result, bail};
use net::gate::AUTH;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::gob::GraphQuery;
use wire::gob::client::{Replies, Reply, Requests};
use wire::{Framer, Scratch, jsonrpc, transfer};

/// The time to connect, from the shipped configurations of the original agent and transfer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The time that a call may take in the original agent; transfer waits five seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer: one to `Transfer.Update` has about 90, an error text may be longer.
const ANSWER_MAX: usize = 64 << 10;
/// Bytes of an answer with rows that are read back, some 15 bytes each.
const ROWS_ANSWER_MAX: usize = 16 << 20;

/// Connection to a server, made when a call needs one.
pub struct Link {
    target: String,
    /// What a server with `ingest.token` is shown on each connection.
    token: Option<String>,
    stream: Option<TcpStream>,
    next_id: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    speech: Speech,
}

enum Speech {
    Transfer { framer: Framer, scratch: Scratch },
    Graph { requests: Requests, replies: Replies, role: GobRole },
    Peer(Box<peer::PeerSpeech>),
}

/// The role that is spoken to in gob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GobRole {
    Graph,
    Judge,
}

/// An error that the server answered to a call.
#[derive(Debug)]
pub struct RefusedCall(String);

impl std::fmt::Display for RefusedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "answered with an error: {}", self.0)
    }
}

impl std::error::Error for RefusedCall {}

impl Speech {
    fn transfer() -> Speech {
        Speech::Transfer { framer: Framer::new(ANSWER_MAX), scratch: Scratch::new() }
    }

    fn gob(role: GobRole) -> Speech {
        Speech::Graph { requests: Requests::new(), replies: Replies::new(ROWS_ANSWER_MAX), role }
    }
}

impl Link {
    /// A link that speaks to a transfer as agents do.
    pub fn transfer(target: &str) -> Link {
        Link::new(target, Speech::transfer())
    }

    /// A link that speaks to a graph as a transfer does.
    pub fn graph(target: &str) -> Link {
        Link::gob(target, GobRole::Graph)
    }

    /// A link that speaks gob to a graph or a judge.
    pub fn gob(target: &str, role: GobRole) -> Link {
        Link::new(target, Speech::gob(role))
    }

    /// A link to another system.
    pub fn peer(peer: &Peer) -> Link {
        Link::new(&peer.address, Speech::Peer(Box::new(peer::PeerSpeech::new(peer))))
    }

    fn new(target: &str, speech: Speech) -> Link {
        Link {
            target: target.to_string(),
            token: None,
            stream: None,
            next_id: 0,
            input: Vec::new(),
            output: Vec::new(),
            speech,
        }
    }

    /// The link with a token that it shows on each connection before anything else.
    pub fn with_token(self, token: Option<&str>) -> Link {
        Link { token: token.map(str::to_string), ..self }
    }

    /// Fails unless the right kind of server listens.
    pub async fn ping(&mut self) -> Result<()> {
        let id = self.next_id;
        let is_there = match &self.speech {
            Speech::Transfer { .. } => {
                let write = |out: &mut Vec<u8>| jsonrpc::write_request(out, "Transfer.Ping", id, b"{}");
                self.transfer_call(write, |result, _| result == b"{\"code\":0}").await?
            }
            Speech::Graph { role, .. } => {
                let method = if *role == GobRole::Judge { "Judge.Ping" } else { "Graph.Ping" };
                let write = |requests: &mut Requests, out: &mut Vec<u8>| requests.ping(out, method, id);
                self.graph_call(write, |replies, reply| reply.code(replies) == Ok(0)).await?
            }
            Speech::Peer(_) => self.peer_call(|speech, out| speech.hello(out)).await.map(|()| true)?,
        };
        if !is_there {
            bail!("{} does not answer a ping as it should", self.target);
        }
        Ok(())
    }

    /// Sends one group of series of a host; answers how many items were refused.
    pub async fn send(&mut self, fleet: &Fleet, host: &HostRound, group: usize) -> Result<u64> {
        let (id, points) = (self.next_id, fleet.points(group));
        if let Speech::Graph { role, .. } = self.speech {
            let write = |requests: &mut Requests, out: &mut Vec<u8>| match role {
                GobRole::Graph => requests.graph_send(out, id, fleet.graph_items(host, group)),
                GobRole::Judge => requests.judge_send(out, id, fleet.judge_items(host, group)),
            };
            // Graph and judge do not say what they refused; reading back does.
            return match self.graph_call(write, |replies, reply| reply.code(replies)).await? {
                Ok(0) => Ok(0),
                other => bail!("answer is not a graph's or judge's: {other:?}"),
            };
        }
        if matches!(self.speech, Speech::Peer(_)) {
            // Other systems take all or nothing: an answer that is not good is an error.
            return self.peer_call(|speech, out| speech.request(fleet, host, group, out)).await.map(|()| 0);
        }
        let write = |out: &mut Vec<u8>| fleet.encode(host, group, id, out);
        match self.transfer_call(write, transfer::read_answer).await? {
            Ok(answer) if answer.total == points => Ok(answer.invalid as u64),
            Ok(answer) => bail!("{points} items were sent, {} answered for", answer.total),
            Err(error) => bail!("answer is not a transfer's: {error}"),
        }
    }

    /// Reads rows from a graph; a row without a value is NaN.
    pub async fn query(&mut self, query: &GraphQuery<'_>, each: &mut dyn FnMut(i64, f64)) -> Result<()> {
        let id = self.next_id;
        let write = |requests: &mut Requests, out: &mut Vec<u8>| requests.graph_query(out, id, query);
        let read = self.graph_call(write, |replies, reply| reply.graph_query(replies, each).map(|_| ())).await?;
        read.context("answer is not a graph's")
    }

    async fn transfer_call<T>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>),
        read: impl FnOnce(&[u8], &mut Scratch) -> T,
    ) -> Result<T> {
        let mut read = Some(read);
        let id = self.next_id;
        let take = |speech: &mut Speech, input: &[u8]| {
            let Speech::Transfer { framer, scratch } = speech else { bail!("not a link to a transfer") };
            let Some(message) = framer.scan(input)? else { return Ok(None) };
            framer.reset();
            let end = message.end;
            let response = jsonrpc::response(&input[message], scratch)?;
            match (response.id, &response.error) {
                (None, Some(text)) => bail!("answered with an error to no call: {text}"),
                (told, _) if told != Some(id) => bail!("answer has id {}, want {id}", told.unwrap_or_default()),
                _ => {}
            }
            let result = match response.error {
                None => Ok(read.take().expect("one answer")(response.result, scratch)),
                Some(text) => Err(RefusedCall(text)),
            };
            Ok(Some((end, result)))
        };
        let write = |_: &mut Speech, out: &mut Vec<u8>| write(out);
        self.call(write, take).await
    }

    async fn graph_call<T>(
        &mut self,
        write: impl FnOnce(&mut Requests, &mut Vec<u8>),
        read: impl FnOnce(&Replies, &Reply<'_>) -> T,
    ) -> Result<T> {
        let mut read = Some(read);
        let id = self.next_id;
        let take = |speech: &mut Speech, input: &[u8]| {
            let Speech::Graph { replies, .. } = speech else { bail!("not a link to a graph") };
            let Some((end, reply)) = replies.next(input)? else { return Ok(None) };
            // A server that could not read the call may not know the call's number; then its error says what was wrong.
            if !reply.error.is_empty() {
                return Ok(Some((end, Err(RefusedCall(reply.error.into_owned())))));
            }
            if reply.seq != id {
                bail!("answer has number {}, want {id}", reply.seq);
            }
            Ok(Some((end, Ok(read.take().expect("one answer")(replies, &reply)))))
        };
        let write = |speech: &mut Speech, out: &mut Vec<u8>| {
            if let Speech::Graph { requests, .. } = speech {
                write(requests, out);
            }
        };
        self.call(write, take).await
    }

    async fn peer_call(&mut self, write: impl FnOnce(&mut peer::PeerSpeech, &mut Vec<u8>)) -> Result<()> {
        let answered = matches!(&self.speech, Speech::Peer(speech) if speech.is_answered());
        let take = |_: &mut Speech, input: &[u8]| {
            if !answered {
                return Ok(Some((0, Ok(()))));
            }
            let Some((end, answer)) = peer::take_answer(input)? else { return Ok(None) };
            let good = answer.is_good();
            Ok(Some((end, if good { Ok(()) } else { Err(RefusedCall(format!("{} {}", answer.status, answer.text))) })))
        };
        let write = |speech: &mut Speech, out: &mut Vec<u8>| {
            if let Speech::Peer(speech) = speech {
                write(speech, out);
            }
        };
        self.call(write, take).await
    }

    /// Makes one call, connecting first if need be.
    async fn call<T>(
        &mut self,
        write: impl FnOnce(&mut Speech, &mut Vec<u8>),
        take: impl FnMut(&mut Speech, &[u8]) -> Result<Option<(usize, Result<T, RefusedCall>)>>,
    ) -> Result<T> {
        self.next_id += 1;
        let result = match timeout(CALL_TIMEOUT, self.exchange(write, take)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("{} did not answer within {CALL_TIMEOUT:?}", self.target)),
        };
        // After an error that the server answered the connection is usable; after any other nobody knows what comes
        // next.
        if result.as_ref().is_err_and(|error| !error.is::<RefusedCall>()) {
            self.stream = None;
        }
        result
    }

    async fn exchange<T>(
        &mut self,
        write: impl FnOnce(&mut Speech, &mut Vec<u8>),
        mut take: impl FnMut(&mut Speech, &[u8]) -> Result<Option<(usize, Result<T, RefusedCall>)>>,
    ) -> Result<T> {
        let Link { target, token, stream, input, output, speech, next_id } = self;
        let stream = match stream {
            Some(stream) => stream,
            None => {
                input.clear();
                match speech {
                    Speech::Transfer { .. } => *speech = Speech::transfer(),
                    Speech::Graph { role, .. } => *speech = Speech::gob(*role),
                    // Requests to other systems need nothing of the connection's past.
                    Speech::Peer(_) => {}
                }
                let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect(&*target)).await;
                let connected = connect.context("timed out (is the server running?)").and_then(|stream| Ok(stream?));
                let connected = connected.with_context(|| format!("cannot connect to {target}"))?;
                // A batch is written whole; waiting for more to send would only delay it.
                connected.set_nodelay(true)?;
                let connected = stream.insert(connected);
                if let Some(token) = token {
                    show(speech, connected, token, *next_id, input).await.context("the token")?;
                }
                connected
            }
        };
        output.clear();
        write(speech, output);
        stream.write_all(output).await.with_context(|| format!("cannot send to {target}"))?;
        loop {
            if let Some((consumed, result)) = take(speech, input)? {
                input.drain(..consumed);
                return Ok(result?);
            }
            let count = stream.read_buf(input).await.with_context(|| format!("cannot read from {target}"))?;
            if count == 0 {
                bail!("{target} closed the connection");
            }
        }
    }
}

/// Shows a token, and waits for the answer. Other systems are shown nothing.
async fn show(speech: &mut Speech, stream: &mut TcpStream, token: &str, id: u64, input: &mut Vec<u8>) -> Result<()> {
    let mut output = Vec::new();
    match speech {
        Speech::Transfer { .. } => {
            let param = serde_json::json!({ "token": token }).to_string();
            jsonrpc::write_request(&mut output, AUTH, id, param.as_bytes());
        }
        Speech::Graph { requests, .. } => requests.text(&mut output, AUTH, id, token),
        Speech::Peer(_) => return Ok(()),
    }
    stream.write_all(&output).await?;
    loop {
        let answered = match speech {
            Speech::Transfer { framer, scratch } => match framer.scan(input)? {
                Some(message) => {
                    framer.reset();
                    let end = message.end;
                    Some((end, jsonrpc::response(&input[message], scratch)?.error.unwrap_or_default()))
                }
                None => None,
            },
            Speech::Graph { replies, .. } => replies.next(input)?.map(|(end, reply)| (end, reply.error.into_owned())),
            Speech::Peer(_) => return Ok(()),
        };
        if let Some((end, error)) = answered {
            input.drain(..end);
            return if error.is_empty() { Ok(()) } else { bail!("{error}") };
        }
        if stream.read_buf(input).await? == 0 {
            bail!("the connection was closed");
        }
    }
}
