//! Client: JSON-RPC 1.0 calls over one connection to one address.
//!
//! Compat: one outstanding call per connection, ids from 0 on for each connection, a call that takes longer than 10 s
//! closes it (docs/open-falcon/wire.md §1). An answer with an error leaves the connection usable; everything else that
//! goes wrong closes it, and the next call connects anew.
//! A batch goes compressed where that is wanted and the transfer knows how: one that does not says `can't find`, or
//! drops the connection, and gets `Transfer.Update` for [`PLAIN_FOR`], after which it may be another program.
//! Invariants: dropping a call half-way closes the connection, so an answer is never taken for that of another call.
//! Memory: while connected, the buffers of the last call, shrunk to [`BUFFER_KEEP`]; an answer has at most
//! [`ANSWER_MAX`].

use net::gate::AUTH;
use net::tls::client::{Outgoing, SCHEME, Trust};
use settings::Secret;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::json::push_string;
use wire::{Framer, Scratch, jsonrpc, packed};

/// The time that a call may take, as in the original agent.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer; the longest is hbs's list of probes, of which a thousand have some 100 kB.
const ANSWER_MAX: usize = 4 << 20;
/// Bytes of a buffer that is kept between calls; one collector group has 2 to 30 kB.
const BUFFER_KEEP: usize = 32 << 10;

/// Bytes of a batch from which on compressing pays: what is less fits into two packets as it is.
const COMPRESSED_MIN: usize = 2 << 10;
/// The time for which a transfer that does not know compressed batches is not offered any.
const PLAIN_FOR: Duration = Duration::from_secs(3600);

/// Failure of a call.
#[derive(Debug)]
pub enum CallError {
    /// The call had no answer, or one against the protocol. The connection is closed.
    Broken(String),
    /// The server has answered with this error.
    Refused(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Broken(text) => write!(f, "{text}"),
            CallError::Refused(text) => write!(f, "refused: {text}"),
        }
    }
}

/// JSON-RPC to one address, over a connection that is made when a call needs one.
pub struct Client {
    address: String,
    connect_timeout: Duration,
    token: Secret,
    /// Whom addresses that begin with `tls://` are believed by.
    trust: Option<Trust>,
    connection: Option<Connection>,
    /// Whether a compressed batch was ever taken, and until when none is offered.
    knows_compressed: bool,
    plain_until: Option<Instant>,
}

/// The answer to a batch.
pub struct Taken {
    /// The JSON of the result.
    pub result: Vec<u8>,
    /// Bytes of the parameter that was taken.
    pub sent_bytes: usize,
}

struct Connection {
    stream: Outgoing,
    framer: Framer,
    out: Vec<u8>,
    input: Vec<u8>,
    next_id: u64,
}

impl Client {
    /// A client without a connection; `connect_timeout` is for each attempt to make one.
    pub fn new(address: &str, connect_timeout: Duration) -> Client {
        let (address, token) = (address.to_string(), Secret::default());
        Client {
            address,
            connect_timeout,
            token,
            trust: None,
            connection: None,
            knows_compressed: false,
            plain_until: None,
        }
    }

    /// The client with those whom it believes over TLS.
    pub fn with_trust(self, trust: &Option<Trust>) -> Client {
        Client { trust: trust.clone(), ..self }
    }

    /// The client with a token that it shows on each connection before anything else; none shows nothing.
    pub fn with_token(self, token: &Secret) -> Client {
        Client { token: token.clone(), ..self }
    }

    /// A client like this one without a connection.
    pub fn another(&self) -> Client {
        Client::new(&self.address, self.connect_timeout).with_token(&self.token).with_trust(&self.trust)
    }

    /// Address that is called.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The local address of the connection, which is made if need be.
    pub async fn local_ip(&mut self) -> Result<IpAddr, CallError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let local = connection.stream.local_addr().map_err(|error| broken("own address", error))?;
        self.connection = Some(connection);
        Ok(local.ip().to_canonical())
    }

    /// Gives a batch of items, a JSON array, to the transfer behind the address.
    pub async fn update(&mut self, json: &[u8], compress: bool) -> Result<Taken, CallError> {
        let is_plain = self.plain_until.is_some_and(|until| until > Instant::now());
        let mut param = Vec::new();
        if compress && !is_plain && json.len() >= COMPRESSED_MIN && packed::write_packed(&mut param, json) {
            // What fails before the call says nothing of what the transfer knows.
            self.connected().await?;
            match self.call(packed::METHOD, &param).await {
                Ok(result) => {
                    self.knows_compressed = true;
                    return Ok(Taken { result, sent_bytes: param.len() });
                }
                Err(CallError::Refused(text)) if text.contains("can't find") => self.send_plain(),
                Err(error) => {
                    // Not every server survives a call that it does not know; one that knew it before is just away.
                    if matches!(error, CallError::Broken(_)) && !self.knows_compressed {
                        self.send_plain();
                    }
                    return Err(error);
                }
            }
        }
        let result = self.call("Transfer.Update", json).await?;
        Ok(Taken { result, sent_bytes: json.len() })
    }

    fn send_plain(&mut self) {
        self.plain_until = Some(Instant::now() + PLAIN_FOR);
        self.knows_compressed = false;
    }

    /// Has a connection made, if there is none.
    async fn connected(&mut self) -> Result<(), CallError> {
        if self.connection.is_none() {
            self.connection = Some(self.connect().await?);
        }
        Ok(())
    }

    /// Calls `method` with the JSON `param`; returns the JSON of the result.
    pub async fn call(&mut self, method: &str, param: &[u8]) -> Result<Vec<u8>, CallError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let call = tokio::time::timeout(CALL_TIMEOUT, connection.call(method, param)).await;
        let result = call.map_err(|_| CallError::Broken(format!("no answer within {CALL_TIMEOUT:?}")))?;
        if !matches!(result, Err(CallError::Broken(_))) {
            connection.shrink();
            self.connection = Some(connection);
        }
        result
    }

    async fn connect(&self) -> Result<Connection, CallError> {
        // A handshake is two more ways there and back.
        let limit = if self.address.starts_with(SCHEME) { CALL_TIMEOUT } else { self.connect_timeout };
        let stream = tokio::time::timeout(limit, Outgoing::connect(&self.address, self.trust.as_ref())).await;
        let stream = stream
            .map_err(|_| CallError::Broken(format!("no connection within {limit:?}")))?
            .map_err(CallError::Broken)?;
        let framer = Framer::new(ANSWER_MAX);
        let mut connection = Connection { stream, framer, out: Vec::new(), input: Vec::new(), next_id: 0 };
        if !self.token.is_none() {
            let shown = tokio::time::timeout(CALL_TIMEOUT, connection.show(&self.token)).await;
            shown.map_err(|_| CallError::Broken(format!("no answer to the token within {CALL_TIMEOUT:?}")))??;
        }
        Ok(connection)
    }
}

impl Connection {
    async fn call(&mut self, method: &str, param: &[u8]) -> Result<Vec<u8>, CallError> {
        let id = self.next_id;
        self.next_id += 1;
        self.out.clear();
        jsonrpc::write_request(&mut self.out, method, id, param);
        self.stream.write_all(&self.out).await.map_err(|error| broken("cannot send", error))?;
        self.stream.flush().await.map_err(|error| broken("cannot send", error))?;
        let message = self.read_message().await?;
        let mut scratch = Scratch::new();
        let answer = jsonrpc::response(&message, &mut scratch)
            .map_err(|error| CallError::Broken(format!("the answer is no JSON-RPC: {error}")))?;
        match (answer.id, answer.error.as_deref()) {
            (None, Some(text)) => return Err(CallError::Broken(format!("the call was not understood: {text}"))),
            (told, _) if told != Some(id) => {
                return Err(CallError::Broken(format!("the answer has id {}, want {id}", told.unwrap_or_default())));
            }
            _ => {}
        }
        match answer.error {
            Some(text) => Err(CallError::Refused(text)),
            None => Ok(answer.result.to_vec()),
        }
    }

    /// Shows the token. Who knows of no token (an original transfer, or hbs) is fine without.
    async fn show(&mut self, token: &Secret) -> Result<(), CallError> {
        let mut param = b"{\"token\":".to_vec();
        push_string(&mut param, token.text());
        param.push(b'}');
        match self.call(AUTH, &param).await {
            Err(CallError::Refused(text)) if !text.contains("can't find") => Err(CallError::Broken(text)),
            Err(CallError::Broken(text)) => Err(CallError::Broken(text)),
            _ => Ok(()),
        }
    }

    async fn read_message(&mut self) -> Result<Vec<u8>, CallError> {
        loop {
            let found = self.framer.scan(&self.input);
            if let Some(range) = found.map_err(|error| CallError::Broken(format!("the answer is broken: {error}")))? {
                let message = self.input[range.clone()].to_vec();
                self.input.drain(..range.end);
                self.framer.reset();
                return Ok(message);
            }
            let read = self.stream.read_buf(&mut self.input).await.map_err(|error| broken("cannot receive", error))?;
            if read == 0 {
                return Err(CallError::Broken("the connection was closed".into()));
            }
        }
    }

    fn shrink(&mut self) {
        self.out.clear();
        self.out.shrink_to(BUFFER_KEEP);
        self.input.shrink_to(BUFFER_KEEP);
    }
}

fn broken(what: &str, error: io::Error) -> CallError {
    CallError::Broken(format!("{what}: {error}"))
}
