//! Node: one old graph, its connections, and whether it answers.
//!
//! How: a call takes an idle connection or makes one; a graph of Go's net/rpc may have closed an idle one meanwhile, so
//! a call that finds it closed is said again on a new one: all calls here may be said twice. A graph that cannot be
//! reached, or leaves a call without an answer, is *away*: calls fail at once with the reason until [`Node::look`] is
//! answered again, so that a graph that hangs costs one wait, and not one for each of its series.
//! Invariants: at most [`CONNECTIONS_MAX`] calls are on their way to a graph; a connection on which something went
//! wrong is never used again.
//! Memory: a connection keeps no buffer between calls; an answer has at most [`ANSWER_MAX`] bytes.

use crate::clock;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use wire::gob::GobError;
use wire::gob::client::{Replies, Reply, Requests};

/// The times of the original's shipped configuration (`conn_timeout`, `call_timeout`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls to one graph at a time, each on a connection of its own: a graph on eight cores answers some ten thousand a
/// second over these.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of an answer: the 50,000 rows of our own graph have some 900 kB, the original's at most a fortieth of that.
const ANSWER_MAX: usize = 4 << 20;

/// Bytes that are read at a time: an hour of a series in one.
const READ_BYTES: usize = 8 << 10;

/// An old graph.
pub struct Node {
    pub name: String,
    pub address: String,
    places: Semaphore,
    idle: Mutex<Vec<Connection>>,
    away: Mutex<Option<Away>>,
}

/// Why, and since when, a graph does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    pub why: String,
    pub since: i64,
}

struct Connection {
    stream: TcpStream,
    requests: Requests,
    replies: Replies,
    next_seq: u64,
    input: Vec<u8>,
}

/// What keeps a call from its answer.
enum Fault {
    /// An answer that is an error.
    Answered(String),
    /// A connection that ended before the first byte of an answer.
    Closed(String),
    /// No answer in time, or none that can be read.
    Broken(String),
}

/// Writes a call.
pub type Write<'w> = &'w (dyn Fn(&mut Requests, &mut Vec<u8>, u64) + Sync);
/// Reads what was answered.
pub type Read<'r, T> = &'r (dyn Fn(&Replies, &Reply<'_>) -> Result<T, GobError> + Sync);

impl Node {
    /// A graph that nobody has spoken to yet.
    pub fn new(name: &str, address: &str) -> Node {
        Node {
            name: name.to_string(),
            address: address.to_string(),
            places: Semaphore::new(CONNECTIONS_MAX),
            idle: Mutex::default(),
            away: Mutex::default(),
        }
    }

    /// Why the graph does not answer, if it does not.
    pub fn away(&self) -> Option<Away> {
        lock(&self.away).clone()
    }

    /// Says a call; an error names the graph and says why there is no answer.
    pub async fn ask<T>(&self, write: Write<'_>, read: Read<'_, T>) -> Result<T, String> {
        self.there()?;
        let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
        // Whoever had the place may have found out.
        self.there()?;
        self.say(write, read).await
    }

    /// Asks whether the graph answers, which ends its being away.
    pub async fn look(&self) {
        let ping: Write<'_> = &|requests, out, seq| requests.ping(out, "Graph.Ping", seq);
        if self.say(ping, &|replies, reply| reply.code(replies)).await.is_ok()
            && let Some(away) = lock(&self.away).take()
        {
            let seconds = clock::now() - away.since;
            tracing::info!(graph = self.name, address = self.address, seconds, "a graph answers again");
        }
    }

    fn there(&self) -> Result<(), String> {
        lock(&self.away).as_ref().map_or(Ok(()), |away| Err(self.named(&away.why)))
    }

    fn named(&self, why: &str) -> String {
        format!("{} ({}): {why}", self.name, self.address)
    }

    async fn say<T>(&self, write: Write<'_>, read: Read<'_, T>) -> Result<T, String> {
        let idle = lock(&self.idle).pop();
        let is_new = idle.is_none();
        let first = match idle {
            Some(connection) => self.say_over(connection, write, read).await,
            None => self.say_anew(write, read).await,
        };
        let said = match first {
            Err(Fault::Closed(_)) if !is_new => {
                // The others are as old.
                lock(&self.idle).clear();
                self.say_anew(write, read).await
            }
            said => said,
        };
        said.map_err(|fault| match fault {
            Fault::Answered(why) => self.named(&why),
            Fault::Closed(why) | Fault::Broken(why) => {
                self.note_away(&why);
                self.named(&why)
            }
        })
    }

    async fn say_anew<T>(&self, write: Write<'_>, read: Read<'_, T>) -> Result<T, Fault> {
        let connection = Connection::to(&self.address).await.map_err(Fault::Broken)?;
        self.say_over(connection, write, read).await
    }

    async fn say_over<T>(&self, mut connection: Connection, write: Write<'_>, read: Read<'_, T>) -> Result<T, Fault> {
        let said = connection.call(write, read).await;
        if matches!(said, Ok(_) | Err(Fault::Answered(_))) {
            let mut idle = lock(&self.idle);
            if idle.len() < CONNECTIONS_MAX {
                idle.push(connection);
            }
        }
        said
    }

    fn note_away(&self, why: &str) {
        lock(&self.idle).clear();
        let mut away = lock(&self.away);
        if away.is_none() {
            tracing::error!(graph = self.name, address = self.address, why, "a graph does not answer");
        }
        let since = away.take().map_or_else(clock::now, |away| away.since);
        *away = Some(Away { why: why.to_string(), since });
    }
}

impl Connection {
    async fn to(address: &str) -> Result<Connection, String> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = stream
            .map_err(|_| format!("no connection within {CONNECT_TIMEOUT:?}"))?
            .map_err(|error| format!("cannot connect: {error}"))?;
        // A call is one write; waiting to merge it with the next would only delay it.
        let _ = stream.set_nodelay(true);
        let (requests, replies) = (Requests::new(), Replies::new(ANSWER_MAX));
        Ok(Connection { stream, requests, replies, next_seq: 0, input: Vec::new() })
    }

    async fn call<T>(&mut self, write: Write<'_>, read: Read<'_, T>) -> Result<T, Fault> {
        let (mut out, seq) = (Vec::new(), self.next_seq);
        self.next_seq += 1;
        write(&mut self.requests, &mut out, seq);
        let deadline = Instant::now() + CALL_TIMEOUT;
        let late = || Fault::Broken(format!("no answer within {CALL_TIMEOUT:?}"));
        timeout_at(deadline, self.stream.write_all(&out))
            .await
            .map_err(|_| late())?
            .map_err(|error| Fault::Closed(error.to_string()))?;
        loop {
            if let Some(answer) = self.answer(seq, read)? {
                self.input = Vec::new();
                return Ok(answer);
            }
            self.input.reserve(READ_BYTES);
            let count = match timeout_at(deadline, self.stream.read_buf(&mut self.input)).await {
                Err(_) => return Err(late()),
                Ok(Err(error)) => return Err(Fault::Closed(error.to_string())),
                Ok(Ok(count)) => count,
            };
            if count == 0 {
                let why = "it closed the connection".to_string();
                return Err(if self.input.is_empty() { Fault::Closed(why) } else { Fault::Broken(why) });
            }
        }
    }

    /// What the input so far answers, if it is a whole answer.
    fn answer<T>(&mut self, seq: u64, read: Read<'_, T>) -> Result<Option<T>, Fault> {
        let broken = |error: GobError| Fault::Broken(format!("its answer cannot be read: {error}"));
        let Some((end, reply)) = self.replies.next(&self.input).map_err(broken)? else { return Ok(None) };
        if reply.seq != seq || end != self.input.len() {
            return Err(Fault::Broken(format!("it answers call {}, and {seq} was asked", reply.seq)));
        }
        if !reply.error.is_empty() {
            let fault = Fault::Answered(format!("it answers with the error: {}", reply.error));
            self.input = Vec::new();
            return Err(fault);
        }
        read(&self.replies, &reply).map(Some).map_err(broken)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
