//! HTTP: serves an axum router over accepted connections, and reads bodies within the byte budget.
//!
//! Why not `axum::serve`: it has neither a limit on connections nor a time-out for a request head that never ends.
//! How: a connection waits for its first byte without a buffer; then hyper reads from a [`TimedStream`], which times
//! and counts heads and gives up a peer that does not read. Each request passes the [`Guard`], and carries its
//! [`Peer`].
//! Invariants: heads, bodies, pauses and answers that are not read have their times ([`TIMES`]); a body is bounded by
//! the caller, by the budget that all connections share, and must keep to a least rate; at shutdown the request at hand
//! is answered and the connection closed.
//! Memory: [`CONNECTION_BYTES`] per connection that has said something; of heads what is beyond, and bodies, count
//! against the budget.

mod authorization;
mod body;
mod guard;
mod stream;

pub use authorization::shown_secret;
pub use body::{BodyError, Peer, Received, read_body};
pub use guard::{Guard, check_name, own_names};

use super::listen::{Limits, serve};
use super::places::Place;
use super::stream::Stream;
use super::tls::HANDSHAKE;
use super::turns::Holder;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;
use stdx::ledger::Held;
use stream::TimedStream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt;

/// How long a connection waits for its peer.
#[derive(Clone, Copy)]
struct Times {
    /// From the first byte of a head to its last, and from a connection's begin to its first byte.
    head: Duration,
    /// Between two requests.
    idle: Duration,
    /// Without a byte taken of an answer.
    stall: Duration,
}

/// Heads are a packet or two, so theirs is the time of many lost packets. Proxies keep their connections for a minute.
/// The time of a stalled answer is a guess, as for bodies.
const TIMES: Times =
    Times { head: Duration::from_secs(10), idle: Duration::from_secs(60), stall: Duration::from_secs(30) };
/// Longest head; hyper's default of 400 KiB is far above what any client of ours sends.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes that a connection holds once it has said something: hyper's buffers for a head and for an answer's, 8 KiB
/// each, and the copy of the routes.
pub const CONNECTION_BYTES: usize = 17 << 10;

/// Serves `router` on `listener` until `shutdown` turns true. Handlers find the peer in `ConnectInfo<SocketAddr>` and
/// [`Peer`].
pub async fn serve_router(
    name: &'static str,
    listener: TcpListener,
    limits: Limits,
    guard: Guard,
    shutdown: watch::Receiver<bool>,
    router: Router,
) {
    Door { times: TIMES, name, limits, guard, router }.serve(listener, shutdown).await;
}

/// What the connections of a listener share.
struct Door {
    times: Times,
    name: &'static str,
    limits: Limits,
    guard: Guard,
    router: Router,
}

impl Door {
    async fn serve(mut self, listener: TcpListener, shutdown: watch::Receiver<bool>) {
        self.guard = self.guard.at(listener.local_addr().ok());
        let door = Arc::new(self);
        let (name, limits, stopping) = (door.name, door.limits.clone(), shutdown.clone());
        serve(name, listener, limits, shutdown, move |stream, peer, place| {
            connection(stream, peer, place, door.clone(), stopping.clone())
        })
        .await;
    }
}

/// State of one connection that its stream and its requests share.
struct Talk {
    place: Place,
    /// True while no request is at hand: the next bytes are a head's.
    in_head: AtomicBool,
    /// Heads that were complete so far.
    requests: AtomicU32,
}

impl Talk {
    fn new(place: Place) -> Arc<Talk> {
        Arc::new(Talk { place, in_head: AtomicBool::new(true), requests: AtomicU32::new(0) })
    }

    /// A head is complete.
    fn begins(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.in_head.store(false, Relaxed);
        self.place.waits(false);
    }

    /// The answer is handed over whole, or nobody wants it any more.
    fn is_over(&self) {
        self.in_head.store(true, Relaxed);
        self.place.waits(true);
    }
}

async fn connection(
    mut stream: Stream,
    peer: SocketAddr,
    place: Place,
    door: Arc<Door>,
    mut shutdown: watch::Receiver<bool>,
) {
    // Looked at and not taken; that a socket counts as readable says nothing about a byte.
    let first = tokio::select! {
        biased;
        _ = shutdown.wait_for(|stop| *stop) => return,
        seen = tokio::time::timeout(door.times.head, stream.peek()) => match seen {
            Ok(Ok(Some(first))) => first,
            _ => return,
        },
    };
    if first == HANDSHAKE {
        return door.limits.metrics.refuse_tls(door.name, peer);
    }
    let mut held = door.limits.http.hold();
    let requests = requests(stream, peer, place, door, shutdown);
    held.set(CONNECTION_BYTES + size_of_val(&requests));
    // Boxed, so that a connection that says nothing does not hold the room that the others need.
    Box::pin(requests).await;
}

/// Answers the requests of a connection.
async fn requests(
    stream: Stream,
    address: SocketAddr,
    place: Place,
    door: Arc<Door>,
    mut shutdown: watch::Receiver<bool>,
) {
    let talk = Talk::new(place);
    let holder = Holder::at(address.ip());
    // No bytes yet: growth then asks for what a head takes, and never waits.
    let share = door.limits.budget.take(&holder, 0).await;
    let stream = TimedStream::new(stream, share, talk.clone(), door.times);
    let peer = Peer { holder, budget: door.limits.budget.clone(), talk: Some(talk.clone()) };
    let idle = door.times.idle;
    let service = hyper::service::service_fn(move |request| {
        talk.begins();
        answer(request, address, peer.clone(), door.clone(), talk.clone())
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        // The guard that `wait_for` returns must not live across the await below.
        () = async { drop(shutdown.wait_for(|stop| *stop).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %address, %error, "HTTP connection ended");
    }
}

/// Answers one request: its own refusal, or what the routes say.
async fn answer(
    mut request: Request<Incoming>,
    address: SocketAddr,
    peer: Peer,
    door: Arc<Door>,
    talk: Arc<Talk>,
) -> Result<Response, Infallible> {
    let response = match door.guard.check(request.uri(), request.headers()) {
        Ok(()) => {
            request.extensions_mut().insert(ConnectInfo(address));
            request.extensions_mut().insert(peer);
            door.router.clone().oneshot(request.map(Body::new)).await?
        }
        Err(refusal) => {
            door.limits.metrics.refuse_request(door.name, refusal.reason);
            tracing::debug!(listener = door.name, peer = %address, text = refusal.text, "refused a request");
            (refusal.status, format!("{}\n", refusal.text)).into_response()
        }
    };
    let mut held = door.limits.http.hold();
    held.set(response.body().size_hint().exact().unwrap_or(0) as usize);
    Ok(response.map(|body| Body::new(Answer { body, talk, _held: held })))
}

/// The body of an answer, counted until it is sent.
struct Answer {
    body: Body,
    talk: Arc<Talk>,
    _held: Held,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.talk.is_over();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
