//! HTTP: serves an axum router over accepted connections, and reads bodies within the byte budget.
//!
//! Why not `axum::serve`: it has neither a limit on connections nor a time-out for a request head that never ends.
//! Invariants: a head must be complete within [`HEAD_TIMEOUT`]; a body is bounded by `message_max` and by the budget
//! that all connections share; at shutdown the request at hand is answered and the connection closed.

use super::budget::Budget;
use super::listen::{Limits, serve};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use stdx::ledger::{Account, Held};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::Layer;

/// Longest time that a peer may take for the head of a request, and that an idle keep-alive connection stays.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Buffer that one connection has for heads; hyper's default of 400 KiB is far above what any client of ours sends.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes that an open connection holds: hyper's buffers for a head and for an answer's, 8 KiB each, and
/// the copy of the routes.
const CONNECTION_BYTES: usize = 17 << 10;
/// Steps in which a body is counted: a few per usual body, small beside the budget.
const COUNTED_BLOCK: usize = 4 << 10;

/// Serves `router` on `listener` until `shutdown` turns true. Handlers find the peer in `ConnectInfo<SocketAddr>`.
pub async fn serve_router(
    name: &'static str,
    listener: TcpListener,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
    router: Router,
) {
    let http = limits.http.clone();
    let router = router.layer(middleware::map_response_with_state(http.clone(), counted));
    serve(name, listener, limits, shutdown.clone(), |stream, peer| {
        connection(stream, peer, router.clone(), http.clone(), shutdown.clone())
    })
    .await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    http: Account,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut held = http.hold();
    held.set(CONNECTION_BYTES);
    let service = TowerToHyperService::new(axum::Extension(ConnectInfo(peer)).layer(router));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
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
        tracing::debug!(%peer, %error, "HTTP connection ended");
    }
}

/// Counts the body of an answer until it is sent.
async fn counted(State(http): State<Account>, response: Response) -> Response {
    let bytes = response.body().size_hint().exact().unwrap_or(0);
    let mut held = http.hold();
    held.set(bytes as usize);
    response.map(|body| Body::new(CountedBody { body, _held: held }))
}

struct CountedBody {
    body: Body,
    _held: Held,
}

impl HttpBody for CountedBody {
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

/// Reads a whole body of at most `bytes_max`, its bytes counted in `budget` while it is read, within `timeout`.
/// The error is a status and a text for the sender.
pub async fn read_body(
    body: Body,
    bytes_max: usize,
    budget: &Budget,
    timeout: Duration,
) -> Result<Vec<u8>, (StatusCode, String)> {
    let read = async {
        let mut body = body;
        let mut bytes = Vec::new();
        let mut share = budget.take(0).await;
        // Counted in whole blocks, whatever the pieces: a body of one-byte chunks must not count a KiB for each.
        let mut counted = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("cannot read the body: {error}")))?;
            let Some(data) = frame.data_ref() else { continue };
            if bytes.len() + data.len() > bytes_max {
                let text = format!("body is above {bytes_max} bytes (ingest.message_max): send smaller batches");
                return Err((StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            let more = (bytes.len() + data.len()).next_multiple_of(COUNTED_BLOCK) - counted;
            if more > 0 && !budget.grow(&mut share, more) {
                let text = "too many unfinished messages at once: try again".to_string();
                return Err((StatusCode::SERVICE_UNAVAILABLE, text));
            }
            counted += more;
            bytes.extend_from_slice(data);
        }
        Ok(bytes)
    };
    match tokio::time::timeout(timeout, read).await {
        Ok(result) => result,
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Bytes, HttpBody};
    use hyper::body::Frame;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A body of so many pieces of one byte.
    struct Crumbs(usize);

    impl HttpBody for Crumbs {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0 = match self.0.checked_sub(1) {
                Some(left) => left,
                None => return Poll::Ready(None),
            };
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test]
    async fn a_body_counts_by_its_bytes_not_by_its_pieces() {
        let budget = Budget::new(64 << 10);
        let read = read_body(Body::new(Crumbs(1000)), 1 << 20, &budget, Duration::from_secs(60)).await;
        assert_eq!(read.map(|bytes| bytes.len()), Ok(1000));
        assert_eq!(budget.bytes_used(), 0);
    }

    #[tokio::test]
    async fn a_body_beyond_the_budget_is_refused() {
        let budget = Budget::new(64 << 10);
        let read = read_body(Body::from(vec![b'x'; 60 << 10]), 1 << 20, &budget, Duration::from_secs(60)).await;
        assert_eq!(read.map_err(|(status, _)| status), Err(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(budget.bytes_used(), 0);
    }
}
