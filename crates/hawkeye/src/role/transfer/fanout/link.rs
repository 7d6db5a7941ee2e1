//! Link: one next hop's connection, and how a batch of points is said over it.
//!
//! How: to a graph and to a judge calls of gob, one at a time, so that points keep their order; to a transfer calls of
//! JSON-RPC, all of a read at once ([`CALLS_AT_ONCE`]), whose answers are read after them; to OpenTSDB lines, to
//! InfluxDB a POST per batch.
//! A failure says whether the points were refused by an answer, or nobody answered ([`Fault`]).
//! Invariants: a link that failed has no connection, the next batch makes one; an answer counts only if it is that of
//! its call. A batch is sent when it was answered, to OpenTSDB when the system took it: it answers nothing.
//! Memory: the calls of one read, less than a megabyte, while they are on their way.

use super::lines::{push_influx, push_put};
use super::record::Record;
use crate::config::Precision;
use net::tls::client::{Outgoing, SCHEME, Trust};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::gob::client::{Replies, Requests};
use wire::gob::{GraphItem, JudgeItem, P8sItem};
use wire::item::{OutItem, write_item};
use wire::{Framer, Scratch, jsonrpc};

/// The times of the original's shipped configuration: for a connection, and for a call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls to a transfer that wait for their answers together, so that a far one is not waited for each.
const CALLS_AT_ONCE: usize = 8;
/// Bytes of an answer; errors are texts.
const ANSWER_MAX: usize = 64 << 10;
/// Bytes of an answer over HTTP that a message quotes.
const TEXT_MAX: usize = 200;

/// What came of a batch that the other side has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Points that the other side refused, and will each time.
    pub refused: u64,
}

/// Why points are not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody is there, or answers, or lets us in: the points have nothing to do with it.
    Away(String),
    /// An answer that refuses the points.
    Refused {
        why: String,
        /// Whether the other side says that it will each time.
        is_final: bool,
    },
}

impl From<String> for Fault {
    fn from(why: String) -> Fault {
        Fault::Away(why)
    }
}

impl Fault {
    /// The reason of either kind.
    pub fn why(self) -> String {
        match self {
            Fault::Away(why) | Fault::Refused { why, .. } => why,
        }
    }

    /// The fault of an error that a call was answered with.
    fn answered(error: &str) -> Fault {
        if error.contains(net::gate::AUTH) {
            return Fault::Away(
                "it asks for a token: set transfer.next.token to its ingest.token (graphs, judges and falcon2p8s are shown none)"
                    .to_string(),
            );
        }
        Fault::Refused { why: format!("it answers with the error: {error}"), is_final: false }
    }
}

/// A next hop's protocol and address.
#[derive(Clone, Debug)]
pub enum Target {
    Graph {
        address: String,
        min_step: u32,
    },
    Judge {
        address: String,
        min_step: u32,
    },
    P8s {
        address: String,
        min_step: u32,
    },
    /// Any of these transfers.
    Transfer {
        addresses: Vec<String>,
        token: String,
    },
    Tsdb {
        address: String,
    },
    Influx(InfluxTarget),
}

/// An InfluxDB.
#[derive(Clone)]
pub struct InfluxTarget {
    pub url: String,
    pub username: String,
    pub password: String,
    pub precision: Precision,
}

impl std::fmt::Debug for InfluxTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InfluxTarget({})", self.url)
    }
}

/// A target with its connection, if there is one.
pub struct Link {
    target: Target,
    /// Points of a call.
    batch: usize,
    connection: Option<Connection>,
    /// Whom addresses that begin with `tls://` are believed by.
    trust: Option<Trust>,
    http: Option<reqwest::Client>,
}

struct Connection {
    stream: Outgoing,
    requests: Requests,
    replies: Replies,
    next_id: u64,
    input: Vec<u8>,
}

impl Link {
    /// A link that is not connected; `batch` points make a call.
    pub fn new(target: Target, batch: usize, trust: Option<Trust>) -> Result<Link, reqwest::Error> {
        let http = match &target {
            Target::Influx(_) => {
                // Fails only when another part of the process has installed it, which is as good.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
                let client = match &trust {
                    Some(trust) => client.tls_backend_preconfigured(trust.config()),
                    None => client,
                };
                Some(client.redirect(reqwest::redirect::Policy::none()).build()?)
            }
            _ => None,
        };
        Ok(Link { target, batch, connection: None, trust, http })
    }

    /// Sends points; what an error speaks of may have been taken in part.
    pub async fn send(&mut self, records: &[Record<'_>]) -> Result<Sent, Fault> {
        let mut connection = match (&self.target, self.connection.take()) {
            (Target::Influx(target), _) => return self.post(target, records).await,
            (_, Some(connection)) => connection,
            (_, None) => self.connect().await?,
        };
        let sent = connection.send(&self.target, self.batch, records).await?;
        self.connection = Some(connection);
        Ok(sent)
    }

    async fn connect(&self) -> Result<Connection, String> {
        match &self.target {
            Target::Graph { address, .. }
            | Target::Judge { address, .. }
            | Target::P8s { address, .. }
            | Target::Tsdb { address } => dial(address, self.trust.as_ref()).await,
            Target::Transfer { addresses, token } => {
                let mut why = "there is no address".to_string();
                // From one of them on, by chance, as in the original: not all gateways are to ask the first.
                let first = rand::random_range(0..addresses.len().max(1));
                for i in 0..addresses.len() {
                    let address = &addresses[(first + i) % addresses.len()];
                    match dial_transfer(address, token, self.trust.as_ref()).await {
                        Ok(connection) => return Ok(connection),
                        Err(error) => why = error,
                    }
                }
                Err(why)
            }
            Target::Influx(_) => Err("it is asked over HTTP".to_string()),
        }
    }

    /// Posts lines; what InfluxDB says cannot be right (a 4xx) would be refused the next time, too.
    async fn post(&self, target: &InfluxTarget, records: &[Record<'_>]) -> Result<Sent, Fault> {
        let Some(http) = &self.http else { return Err("no HTTP client".to_string().into()) };
        for batch in records.chunks(self.batch) {
            let mut body = Vec::new();
            batch.iter().for_each(|record| push_influx(&mut body, record, target.precision));
            let request = http.post(&target.url).body(body);
            let request = match target.username.is_empty() {
                true => request,
                false => request.basic_auth(&target.username, Some(&target.password)),
            };
            let answer = request.send().await.map_err(|error| supervisor::causes::line_of(&error.without_url()))?;
            match answer.status() {
                status if status.is_success() => {}
                // Who may not write is told, and may be let in; so is who comes too often.
                status if status.is_client_error() && ![401, 403, 404, 408, 429].contains(&status.as_u16()) => {
                    let text = start_of(answer).await;
                    return Err(Fault::Refused { why: format!("it answers {status}: {text}"), is_final: true });
                }
                status => return Err(Fault::Away(format!("it answers {status}"))),
            }
        }
        Ok(Sent::default())
    }
}

/// The beginning of an answer's text, on one line.
async fn start_of(mut answer: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < TEXT_MAX
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        bytes.extend_from_slice(&chunk[..chunk.len().min(TEXT_MAX - bytes.len())]);
    }
    String::from_utf8_lossy(&bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn dial(address: &str, trust: Option<&Trust>) -> Result<Connection, String> {
    // A handshake is two more ways there and back.
    let limit = if address.starts_with(SCHEME) { CALL_TIMEOUT } else { CONNECT_TIMEOUT };
    let stream = tokio::time::timeout(limit, Outgoing::connect(address, trust)).await;
    let stream = stream.map_err(|_| format!("no connection to {address} within {limit:?}"))??;
    Ok(Connection {
        stream,
        requests: Requests::new(),
        replies: Replies::new(ANSWER_MAX),
        next_id: 0,
        input: Vec::new(),
    })
}

async fn dial_transfer(address: &str, token: &str, trust: Option<&Trust>) -> Result<Connection, String> {
    let mut connection = dial(address, trust).await?;
    if !token.is_empty() {
        let shown = connection.show(token).await;
        shown.map_err(|error| {
            format!("{address} refuses transfer.next.token, which is to be its ingest.token: {error}")
        })?;
    }
    Ok(connection)
}

impl Connection {
    async fn send(&mut self, target: &Target, batch: usize, records: &[Record<'_>]) -> Result<Sent, Fault> {
        let mut sent = Sent::default();
        match target {
            Target::Graph { min_step, .. } => {
                for batch in records.chunks(batch) {
                    let items = batch.iter().map(|record| graph_item(record, *min_step));
                    self.gob(|requests, out, seq| requests.graph_send(out, seq, items)).await?;
                }
            }
            Target::Judge { min_step, .. } => {
                for batch in records.chunks(batch) {
                    let items = batch.iter().map(|record| judge_item(record, *min_step));
                    self.gob(|requests, out, seq| requests.judge_send(out, seq, items)).await?;
                }
            }
            Target::P8s { min_step, .. } => {
                for batch in records.chunks(batch) {
                    let items = batch.iter().map(|record| p8s_item(record, *min_step));
                    self.gob(|requests, out, seq| requests.p8s_send(out, seq, items)).await?;
                }
            }
            Target::Transfer { .. } => {
                for calls in records.chunks(batch * CALLS_AT_ONCE) {
                    sent.refused += self.updates(calls.chunks(batch)).await?;
                }
            }
            Target::Tsdb { .. } => self.put(records).await?,
            Target::Influx(_) => return Err("it is asked over HTTP".to_string().into()),
        }
        Ok(sent)
    }

    /// One call of gob, answered without an error.
    async fn gob(&mut self, write: impl FnOnce(&mut Requests, &mut Vec<u8>, u64)) -> Result<(), Fault> {
        let (mut out, seq) = (Vec::new(), self.next_id);
        self.next_id += 1;
        write(&mut self.requests, &mut out, seq);
        self.write(&out).await?;
        let deadline = tokio::time::Instant::now() + CALL_TIMEOUT;
        loop {
            let found = self.replies.next(&self.input).map_err(|error| format!("its answer is no gob: {error}"))?;
            if let Some((end, reply)) = found {
                let answered = match (reply.seq == seq, reply.error.is_empty()) {
                    (false, _) => Err(format!("it answers call {}, and {seq} was asked", reply.seq).into()),
                    (true, false) => Err(Fault::answered(&reply.error)),
                    (true, true) => Ok(()),
                };
                self.input.drain(..end);
                return answered;
            }
            self.read(deadline).await?;
        }
    }

    /// Calls of `Transfer.Update`, all sent before the first answer is read; the number of refused points.
    async fn updates<'r>(&mut self, batches: impl Iterator<Item = &'r [Record<'r>]>) -> Result<u64, Fault> {
        let (mut out, first) = (Vec::new(), self.next_id);
        for batch in batches {
            jsonrpc::begin_request(&mut out, "Transfer.Update");
            push_items(&mut out, batch);
            jsonrpc::end_request(&mut out, self.next_id);
            self.next_id += 1;
        }
        let ids = first..self.next_id;
        let Connection { stream, input, .. } = self;
        let (mut reader, mut writer) = tokio::io::split(stream);
        // Written and read at once: a transfer that answers what it has read may wait for us to read that.
        let write = async {
            let written = async { writer.write_all(&out).await.and(writer.flush().await) };
            written.await.map_err(|error| Fault::Away(error.to_string()))
        };
        let read = async {
            let (mut refused, mut framer) = (0, Framer::new(ANSWER_MAX));
            for _ in ids.clone() {
                let answer = loop {
                    if let Some(range) = framer.scan(input).map_err(broken)? {
                        framer.reset();
                        break range;
                    }
                    let read = reader.read_buf(input).await.map_err(|error| error.to_string())?;
                    if read == 0 {
                        return Err(Fault::Away("it closed the connection".to_string()));
                    }
                };
                refused += refused_of(&input[answer.clone()], &ids)?;
                input.drain(..answer.end);
            }
            Ok(refused)
        };
        let both = async { tokio::try_join!(write, read) };
        let answered = tokio::time::timeout(CALL_TIMEOUT, both).await;
        let ((), refused) = answered.map_err(|_| format!("no answer within {CALL_TIMEOUT:?}"))??;
        Ok(refused)
    }

    /// Shows the token that the other side may ask for; one that knows of none is fine with it.
    async fn show(&mut self, token: &str) -> Result<(), String> {
        let (mut out, id) = (Vec::new(), self.next_id);
        self.next_id += 1;
        jsonrpc::begin_request(&mut out, net::gate::AUTH);
        out.extend_from_slice(serde_json::json!({ "token": token }).to_string().as_bytes());
        jsonrpc::end_request(&mut out, id);
        self.write(&out).await?;
        let deadline = tokio::time::Instant::now() + CALL_TIMEOUT;
        let mut framer = Framer::new(ANSWER_MAX);
        loop {
            let found = framer.scan(&self.input).map_err(broken)?;
            let Some(range) = found else {
                self.read(deadline).await?;
                continue;
            };
            let mut scratch = Scratch::new();
            let answer = jsonrpc::response(&self.input[range.clone()], &mut scratch)
                .map_err(|error| format!("its answer is no JSON-RPC: {error}"))?;
            let refusal = answer.error.filter(|error| !error.contains("can't find"));
            self.input.drain(..range.end);
            return refusal.map_or(Ok(()), Err);
        }
    }

    /// Writes the lines of `records`; what came back is thrown away.
    async fn put(&mut self, records: &[Record<'_>]) -> Result<(), String> {
        let mut out = Vec::new();
        records.iter().for_each(|record| push_put(&mut out, record));
        self.input.clear();
        // A connection that was closed says so before anything is lost in it.
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => return Err("it closed the connection".to_string()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
        self.write(&out).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let stream = &mut self.stream;
        let written = async { stream.write_all(bytes).await.and(stream.flush().await) };
        match tokio::time::timeout(CALL_TIMEOUT, written).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("it takes nothing for {CALL_TIMEOUT:?}")),
        }
    }

    async fn read(&mut self, deadline: tokio::time::Instant) -> Result<(), String> {
        match tokio::time::timeout_at(deadline, self.stream.read_buf(&mut self.input)).await {
            Err(_) => Err(format!("no answer within {CALL_TIMEOUT:?}")),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(0)) => Err("it closed the connection".to_string()),
            Ok(Ok(_)) => Ok(()),
        }
    }
}

fn broken(error: wire::FrameError) -> String {
    format!("its answer is broken: {error}")
}

/// Points that an answer to `Transfer.Update` calls invalid; an error if it is none to a call with these ids.
fn refused_of(answer: &[u8], ids: &std::ops::Range<u64>) -> Result<u64, Fault> {
    let mut scratch = Scratch::new();
    let answer = jsonrpc::response(answer, &mut scratch);
    let answer = answer.map_err(|error| format!("its answer is no JSON-RPC: {error}"))?;
    match (answer.id, answer.error) {
        // Said of the connection, not of the points of a call.
        (None, error) => return Err(Fault::Away(format!("it answers: {}", error.unwrap_or_default()))),
        (Some(id), _) if !ids.contains(&id) => {
            return Err(Fault::Away(format!("it answers call {id}, which was not asked")));
        }
        (Some(_), Some(error)) => return Err(Fault::answered(&error)),
        (Some(_), None) => {}
    }
    Ok(wire::transfer::read_answer(answer.result, &mut scratch).map_or(0, |told| told.invalid as u64))
}

fn push_items(out: &mut Vec<u8>, batch: &[Record<'_>]) {
    out.push(b'[');
    for (i, record) in batch.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_item(
            out,
            &OutItem {
                endpoint: record.key.endpoint,
                metric: record.key.metric,
                value: record.value,
                step: record.step,
                counter_type: record.counter_type,
                tags: record.key.tags.as_str(),
                timestamp: record.time,
            },
        );
    }
    out.push(b']');
}

/// A point as the original sends it to a graph (docs/open-falcon/transfer.md §4).
fn graph_item<'a>(record: &Record<'a>, min_step: u32) -> GraphItem<'a> {
    let (timestamp, step) = record.aligned(min_step);
    GraphItem {
        endpoint: record.key.endpoint,
        metric: record.key.metric,
        tags: record.key.tags.as_str(),
        value: record.value,
        timestamp,
        ds_type: record.counter_type.ds_type(),
        step,
        heartbeat: 2 * step,
        min: if record.counter_type.is_gauge() { "U" } else { "0" },
        max: "U",
    }
}

/// A point as the original sends it to a judge.
fn judge_item<'a>(record: &Record<'a>, min_step: u32) -> JudgeItem<'a> {
    let (timestamp, _) = record.aligned(min_step);
    JudgeItem {
        endpoint: record.key.endpoint,
        metric: record.key.metric,
        value: record.value,
        timestamp,
        judge_type: record.counter_type.as_str(),
        tags: record.key.tags.as_str(),
    }
}

/// A point as the original sends it to falcon2p8s: three digits behind the point.
fn p8s_item<'a>(record: &Record<'a>, min_step: u32) -> P8sItem<'a> {
    let (timestamp, step) = record.aligned(min_step);
    P8sItem {
        endpoint: record.key.endpoint,
        metric: record.key.metric,
        tags: record.key.tags.as_str(),
        value: rounded(record.value),
        timestamp,
        metric_type: record.counter_type.as_str(),
        step,
    }
}

/// Three digits behind the point, of what is small enough to have some.
fn rounded(value: f64) -> f64 {
    let thousands = (value * 1000.0).round() / 1000.0;
    if thousands.is_finite() { thousands } else { value }
}
