//! Exchange: one request and its answer over one connection, with bounds on all that comes.
//!
//! How: the library's connection runs in tasks of its own, which end with the exchange, whatever the other side does.
//! HTTP/2 is spoken where both sides agree on it in the handshake, or where it is asked for.
//! Invariants: nothing is decompressed (and nothing compressed is asked for), so a body is what came over the wire.
//! Memory: the head, and of the body what the caller wants kept, both within the policy's limits; HTTP/2 has windows of
//! [`WINDOW`].

use super::{Http, Protocol, url::Url};
use crate::dial::{closed, dial, told_of_io};
use crate::means::Ground;
use crate::outcome::{Code, Phase, Reason};
use crate::tls::{TlsOptions, shake};
use crate::trace::Trace;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::rt::Executor;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use net::tls::client::Outgoing;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::AbortHandle;

/// Lines of a head; servers send some twenty.
const HEADERS_MAX: usize = 100;
/// Least bytes that the library reads a head in.
const BUFFER_MIN: usize = 8192;
/// Bytes that a peer may send ahead over HTTP/2; the protocol's own default.
const WINDOW: u32 = 65_535;

/// A connection over which one request is sent.
pub(crate) struct Exchange {
    sender: Sender,
    /// Ends what drives the connection.
    _tasks: Tasks,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// Tasks of one connection, which end when the exchange is dropped.
#[derive(Default)]
struct Tasks(Spawner);

/// Starts tasks for the library, and knows them.
#[derive(Clone, Default)]
struct Spawner(Arc<Mutex<Vec<AbortHandle>>>);

impl<F> Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let task = tokio::spawn(future).abort_handle();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(AbortHandle::abort);
    }
}

/// Connects to where a URL is, and agrees on the protocol.
pub(crate) async fn connect(url: &Url, http: &Http, ground: Ground<'_>, trace: &mut Trace) -> Result<Exchange, Reason> {
    let stream = dial(&url.place, http.family, ground, trace).await?;
    if !url.is_tls {
        return speak(Outgoing::Plain(stream), http.protocol == Protocol::Two, ground, trace).await;
    }
    let alpn: &[&[u8]] = match http.protocol {
        Protocol::Auto => &[b"h2", b"http/1.1"],
        Protocol::One => &[b"http/1.1"],
        Protocol::Two => &[b"h2"],
    };
    speak_tls(stream, &url.place.host, &http.tls, alpn, http.protocol == Protocol::Two, ground, trace).await
}

/// Has the handshake; HTTP/2 follows where the other side chose it.
pub(crate) async fn speak_tls(
    stream: tokio::net::TcpStream,
    host: &str,
    tls: &TlsOptions,
    alpn: &[&[u8]],
    needs_two: bool,
    ground: Ground<'_>,
    trace: &mut Trace,
) -> Result<Exchange, Reason> {
    let stream = shake(stream, host, tls, alpn, &ground.means.roots, trace).await?;
    let is_two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if needs_two && !is_two {
        return Err(Reason::new(Code::Protocol, format!("{} does not agree to HTTP/2", trace.who())));
    }
    speak(Outgoing::Tls(Box::new(stream)), is_two, ground, trace).await
}

/// Begins HTTP over a connection.
pub(crate) async fn speak(
    stream: Outgoing,
    is_two: bool,
    ground: Ground<'_>,
    trace: &mut Trace,
) -> Result<Exchange, Reason> {
    trace.enter(Phase::FirstByte);
    let (io, tasks) = (TokioIo::new(stream), Tasks::default());
    let head_bytes = ground.policy.limits.head_bytes;
    // Why a connection ended is told to whoever waits for the answer.
    let made = match is_two {
        true => http2::Builder::new(tasks.0.clone())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
            .handshake(io)
            .await
            .map(|(sender, connection)| {
                tasks.0.execute(async { _ = connection.await });
                Sender::Two(sender)
            }),
        false => http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_header_size(head_bytes)
            .max_buf_size(head_bytes.max(BUFFER_MIN))
            .handshake(io)
            .await
            .map(|(sender, connection)| {
                tasks.0.execute(async { _ = connection.await });
                Sender::One(sender)
            }),
    };
    match made {
        Ok(sender) => Ok(Exchange { sender, _tasks: tasks }),
        Err(error) => Err(told(&error, is_two, trace)),
    }
}

impl Exchange {
    /// Version of HTTP that is spoken.
    pub fn version(&self) -> f64 {
        match self.sender {
            Sender::One(_) => 1.1,
            Sender::Two(_) => 2.0,
        }
    }

    /// Sends the request, and waits for the head of the answer.
    pub async fn ask(
        &mut self,
        url: &Url,
        method: Method,
        mut headers: HeaderMap,
        body: Bytes,
        trace: &mut Trace,
    ) -> Result<Response<Incoming>, Reason> {
        let host = headers.remove(HOST).or_else(|| HeaderValue::from_str(&url.authority()).ok());
        let host = host.and_then(|host| host.to_str().ok().map(str::to_string)).unwrap_or_default();
        let target = match &self.sender {
            // HTTP/2 has scheme and host in the request's own fields.
            Sender::Two(_) => format!("{}://{host}{}", if url.is_tls { "https" } else { "http" }, url.path),
            Sender::One(_) => url.path.clone(),
        };
        let wrong = |what: &str| Reason::new(Code::Definition, format!("the request has a {what} that cannot be sent"));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse::<Uri>().map_err(|_| wrong("URL or header host"))?;
        if matches!(self.sender, Sender::One(_)) {
            headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| wrong("header host"))?);
        }
        *request.headers_mut() = headers;
        let answer = match &mut self.sender {
            Sender::One(sender) => sender.send_request(request).await,
            Sender::Two(sender) => sender.send_request(request).await,
        };
        answer.map_err(|error| told(&error, matches!(self.sender, Sender::Two(_)), trace))
    }
}

/// What was read of a body.
pub(crate) struct Body {
    /// The bytes, where they were to be kept.
    pub kept: Vec<u8>,
    pub bytes: usize,
    /// False where the limit was reached before the end.
    pub is_whole: bool,
    pub trailers: Option<HeaderMap>,
}

/// Reads a body, at most `max` bytes of it.
pub(crate) async fn read(mut body: Incoming, keep: bool, max: usize, trace: &Trace) -> Result<Body, Reason> {
    let mut read = Body { kept: Vec::new(), bytes: 0, is_whole: true, trailers: None };
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| told(&error, false, trace))?.into_data() {
            Ok(data) => {
                read.bytes += data.len();
                if keep {
                    read.kept.extend_from_slice(&data[..data.len().min(max.saturating_sub(read.kept.len()))]);
                }
                if read.bytes > max {
                    read.is_whole = false;
                    break;
                }
            }
            Err(other) => read.trailers = other.into_trailers().ok(),
        }
    }
    Ok(read)
}

/// What the library's error says about the other side.
fn told(error: &hyper::Error, is_two: bool, trace: &Trace) -> Reason {
    let peer = trace.who();
    if error.is_parse_too_large() {
        return Reason::new(Code::Head, format!("the head of the answer of {peer} is too large"));
    }
    if error.is_parse() {
        return Reason::new(Code::Protocol, format!("{peer} speaks no HTTP: {error}"));
    }
    if error.is_incomplete_message() {
        return closed(trace, "before the answer was whole");
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(inner) = inner.downcast_ref::<io::Error>() {
            return told_of_io(inner, trace, "before the answer was whole");
        }
        cause = inner.source();
    }
    let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
    if error.is_closed() || error.is_canceled() {
        return closed(trace, "before it answered");
    }
    let what = if is_two { "speaks no HTTP/2, or breaks it" } else { "breaks HTTP" };
    Reason::new(Code::Protocol, format!("{peer} {what}: {error}{cause}"))
}
