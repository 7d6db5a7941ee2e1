//! Streams: live changes as server-sent events, `/alarm/stream` and `/host/stream`.
//!
//! Why: who asks every few seconds loads the server when nothing happens, and learns late when something does.
//! How: a task per stream writes what its source tells into a channel, from which hyper sends. When the connection
//! closes, hyper drops the other end, which ends the task. A comment each [`ALIVE_EACH`] keeps proxies from closing.
//! The caller is looked up again before each message and comment, unless that was within [`CALLER_EACH`], so a stream
//! ends with its session, its token or its user.
//! Invariants: at most [`STREAMS_MAX`] streams, and [`STREAMS_PER_USER`] of one user; a reader who takes nothing for
//! [`WRITE_TIMEOUT`] is given up, as is one when the server stops. `id` of a message is where a new stream goes on
//! (`Last-Event-ID`, or `since=`).
//! Memory: a task, and at most [`AHEAD`] messages per stream.
//! Compat: Hawkeye's own. The format is the HTML standard's, "Server-sent events".

use super::Context;
use super::auth::{self, Caller};
use super::error::{Answer, ApiError};
use super::{alarm_stream, host_stream};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Frame;
use serde::Serialize;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Streams at once: the pages of a few hundred people. Each costs a task and a connection.
const STREAMS_MAX: usize = 256;
/// Messages that wait for their reader.
const AHEAD: usize = 16;
/// The time without a message after which a comment is sent; proxies close what is silent for a minute.
const ALIVE_EACH: Duration = Duration::from_secs(15);
/// The time after which a reader who takes nothing is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The time for which a look at who reads is believed: a storm of messages costs a look a second. Tests look each time.
const CALLER_EACH: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 1_000 });
/// Milliseconds after which a browser that lost its stream asks again.
const RETRY_MS: u32 = 3_000;

static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(STREAMS_MAX)));

/// Routes of streams.
pub fn routes() -> Router<Context> {
    Router::new().route("/alarm/stream", get(alarm_stream::stream)).route("/host/stream", get(host_stream::stream))
}

/// Streams of one user: his tabs, and a wall of screens.
const STREAMS_PER_USER: usize = 32;

/// Streams that each user has.
static OF_USERS: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);

/// A user's place for a stream, until it is dropped.
struct UsersPlace(String);

impl UsersPlace {
    fn take(name: &str) -> Option<UsersPlace> {
        let mut of_users = OF_USERS.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_users.entry(name.to_string()).or_default();
        (*count < STREAMS_PER_USER).then(|| {
            *count += 1;
            UsersPlace(name.to_string())
        })
    }
}

impl Drop for UsersPlace {
    fn drop(&mut self) {
        let mut of_users = OF_USERS.lock().unwrap_or_else(PoisonError::into_inner);
        let left = of_users.get_mut(&self.0).map_or(0, |count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == 0 {
            of_users.remove(&self.0);
        }
    }
}

/// The writer's side of a stream.
pub struct Writer {
    sender: Sender<Bytes>,
    pub context: Context,
    /// The head of the request, without the caller who was found by it.
    parts: Parts,
    looked: Instant,
    _places: (OwnedSemaphorePermit, UsersPlace),
}

/// Reason why a stream ends; the reader asks again.
pub struct Ended;

/// Answers with a stream that `write` fills.
pub fn answer<W: Future<Output = Result<(), Ended>> + Send + 'static>(
    context: &Context,
    mut parts: Parts,
    write: impl FnOnce(Writer) -> W + Send + 'static,
) -> Answer {
    let place = PLACES.clone().try_acquire_owned().map_err(|_| {
        let text = format!("{STREAMS_MAX} streams are open, which is all there may be: ask again later");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let name = parts.extensions.remove::<Caller>().map(|caller| caller.name).unwrap_or_default();
    let users = UsersPlace::take(&name).ok_or_else(|| {
        let text = format!("{name} has {STREAMS_PER_USER} streams open: close some");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let (sender, messages) = channel(AHEAD);
    let reader = sender.clone();
    let writer = Writer { sender, context: context.clone(), parts, looked: Instant::now(), _places: (place, users) };
    let mut stopping = context.stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = write(writer) => {}
            // Whoever closes gives his place back, although there is nothing to tell him.
            () = reader.closed() => {}
            // A server that never says so has none who stops it.
            () = async { if stopping.wait_for(|stop| *stop).await.is_err() { std::future::pending().await } } => {}
        }
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Nginx keeps back what is not long enough otherwise.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    let response: Response = (headers, Body::new(Messages(messages))).into_response();
    Ok(response)
}

impl Writer {
    /// Sends the beginning, by which a reader knows that the stream is open.
    pub async fn open(&mut self, id: &str) -> Result<(), Ended> {
        self.send(format!("retry: {RETRY_MS}\nid: {id}\nevent: open\ndata: {{}}\n\n")).await
    }

    /// Sends a message. JSON has no line break, so it is one line.
    pub async fn message(&mut self, id: &str, event: &str, data: &impl Serialize) -> Result<(), Ended> {
        self.check_caller().await?;
        let data = serde_json::to_string(data).map_err(|_| Ended)?;
        self.send(format!("id: {id}\nevent: {event}\ndata: {data}\n\n")).await
    }

    /// Waits for `next`, sending comments meanwhile; ends when the reader is gone or may read no more.
    pub async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::pin!(next);
        loop {
            if let Ok(next) = timeout(ALIVE_EACH, next.as_mut()).await {
                return Ok(next);
            }
            self.check_caller().await?;
            self.send(":\n\n".to_string()).await?;
        }
    }

    async fn send(&mut self, text: String) -> Result<(), Ended> {
        match timeout(WRITE_TIMEOUT, self.sender.send(Bytes::from(text))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Ended),
        }
    }

    async fn check_caller(&mut self) -> Result<(), Ended> {
        if self.looked.elapsed() < CALLER_EACH {
            return Ok(());
        }
        self.looked = Instant::now();
        let mut parts = self.parts.clone();
        auth::caller(&mut parts, &self.context).await.map(drop).map_err(|_| Ended)
    }
}

/// The reader's side, as hyper polls it.
struct Messages(Receiver<Bytes>);

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}
