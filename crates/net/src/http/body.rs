//! Bodies of requests: read whole, within the byte budget, at a least rate.
//!
//! Why: a body that comes a byte a second holds a connection, and what has come of it, for as long as it likes.
//! How: a body has [`GRACE`], and more time for each byte that has come, up to the caller's limit. What is read is
//! counted before it has room; whoever cannot grow is refused, and the first piece is waited for.
//! Memory: the buffer's capacity, in the byte budget until the reader of the body drops it.

use super::Talk;
use crate::budget::{Budget, Share};
use crate::turns::Holder;
use axum::body::{Body, HttpBody};
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The least bytes per second of a body that takes longer than [`GRACE`]: a fifth of the slowest useful link.
const RATE_MIN: usize = 4 << 10;
/// Time that every body has, as every head.
const GRACE: Duration = super::TIMES.head;
/// The first buffer of a body; most bodies fit.
const BUFFER_FIRST: usize = 4 << 10;
/// Bytes that the requests without a peer may have unfinished together.
const WITHOUT_PEER_MAX: u64 = 64 << 20;

/// The other side of a request: who, and which bytes it may have unfinished. Every request that came through a socket
/// carries it as an extension; handlers take it as an argument.
#[derive(Clone)]
pub struct Peer {
    pub holder: Holder,
    pub budget: Budget,
    /// None where a request came through no socket.
    pub(super) talk: Option<Arc<Talk>>,
}

impl Default for Peer {
    /// The peer of a request that came through no socket, such as a test's.
    fn default() -> Peer {
        let holder = Holder::at(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Peer { holder, budget: Budget::new(WITHOUT_PEER_MAX), talk: None }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Peer, Infallible> {
        Ok(parts.extensions.get::<Peer>().cloned().unwrap_or_default())
    }
}

impl Peer {
    /// Says whether the server waits for the peer.
    fn waits(&self, waits: bool) {
        if let Some(talk) = &self.talk {
            talk.place.waits(waits);
        }
    }
}

/// A body that was read.
pub struct Received {
    bytes: Vec<u8>,
    _share: Share,
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reason for which a body could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It has more bytes than the caller takes.
    TooLong,
    /// The peer has too much unfinished.
    NoRoom,
    TooSlow,
    Broken(String),
}

impl BodyError {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            BodyError::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The text of the answer; the caller knows better what to do about a body that is too long.
    pub fn text(&self) -> String {
        match self {
            BodyError::TooLong => "the body is too long".to_string(),
            BodyError::NoRoom => "too many unfinished messages at once: try again".to_string(),
            BodyError::TooSlow => "the body did not arrive in time".to_string(),
            BodyError::Broken(error) => format!("cannot read the body: {error}"),
        }
    }
}

/// Reads a whole body of at most `bytes_max`, within `timeout`.
pub async fn read_body(peer: &Peer, body: Body, bytes_max: usize, timeout: Duration) -> Result<Received, BodyError> {
    read_within(peer, body, bytes_max, |bytes| time_for(bytes).min(timeout)).await
}

/// The time that a body has of which so many bytes have come.
fn time_for(bytes: usize) -> Duration {
    GRACE + Duration::from_secs((bytes / RATE_MIN) as u64)
}

/// Reads a whole body; `time` says how much of it a body has by its bytes so far.
async fn read_within(
    peer: &Peer,
    mut body: Body,
    bytes_max: usize,
    time: impl Fn(usize) -> Duration,
) -> Result<Received, BodyError> {
    let declared = body.size_hint().exact().map(|length| length as usize);
    if declared.is_some_and(|length| length > bytes_max) {
        return Err(BodyError::TooLong);
    }
    let start = Instant::now();
    peer.waits(true);
    let _over = OnDrop(|| peer.waits(false));
    let first = BUFFER_FIRST.min(declared.unwrap_or(BUFFER_FIRST));
    let share = timeout_at(start + time(0), peer.budget.take(&peer.holder, first)).await;
    let mut share = share.map_err(|_| BodyError::NoRoom)?;
    let mut bytes = Vec::with_capacity(first);
    loop {
        let frame = timeout_at(start + time(bytes.len()), body.frame()).await.map_err(|_| BodyError::TooSlow)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Some(data) = frame.data_ref() else { continue };
        let length = bytes.len() + data.len();
        if length > bytes_max {
            return Err(BodyError::TooLong);
        }
        if length > bytes.capacity() {
            // Twice as much each time, but not beyond what was declared, if that is true.
            let room = (2 * bytes.capacity()).min(declared.unwrap_or(bytes_max)).max(length);
            if !share.grow(room - bytes.capacity()) {
                return Err(BodyError::NoRoom);
            }
            bytes.reserve_exact(room - bytes.len());
        }
        bytes.extend_from_slice(data);
    }
    Ok(Received { bytes, _share: share })
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use hyper::body::Frame;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A body of so many pieces of `size` bytes, which then ends or never does.
    struct Crumbs {
        left: usize,
        size: usize,
        ends: bool,
    }

    fn crumbs(left: usize, size: usize) -> Body {
        Body::new(Crumbs { left, size, ends: true })
    }

    impl HttpBody for Crumbs {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.left == 0 {
                return if self.ends { Poll::Ready(None) } else { Poll::Pending };
            }
            self.left -= 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; self.size])))))
        }
    }

    fn peer(budget: u64) -> Peer {
        Peer { budget: Budget::new(budget), ..Peer::default() }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    async fn length(peer: &Peer, body: Body) -> Result<usize, BodyError> {
        read_body(peer, body, 1 << 20, MINUTE).await.map(|body| body.len())
    }

    #[tokio::test]
    async fn a_body_counts_by_its_buffer_not_by_its_pieces() {
        let peer = peer(64 << 10);
        let read = read_body(&peer, crumbs(1000, 1), 1 << 20, MINUTE).await.expect("it fits");
        assert_eq!((read.len(), peer.budget.bytes_used()), (1000, BUFFER_FIRST));
        drop(read);
        assert_eq!(peer.budget.bytes_used(), 0);
    }

    #[tokio::test]
    async fn a_body_beyond_the_budget_is_refused() {
        let peer = peer(64 << 10);
        assert_eq!(length(&peer, Body::from(vec![b'x'; 60 << 10])).await, Err(BodyError::NoRoom));
        assert_eq!(length(&peer, Body::from(vec![b'x'; 40 << 10])).await, Ok(40 << 10));
        assert_eq!(peer.budget.bytes_used(), 0);
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_refused_before_and_while_it_comes() {
        let peer = peer(64 << 20);
        assert_eq!(length(&peer, Body::from(vec![b'x'; (1 << 20) + 1])).await, Err(BodyError::TooLong));
        assert_eq!(length(&peer, crumbs(1025, 1 << 10)).await, Err(BodyError::TooLong));
        assert_eq!(length(&peer, crumbs(1024, 1 << 10)).await, Ok(1 << 20));
    }

    #[tokio::test]
    async fn a_body_has_time_by_what_has_come() {
        let peer = peer(64 << 20);
        let body = Body::new(Crumbs { left: 3, size: 100, ends: false });
        let time = |bytes| if bytes < 300 { MINUTE } else { Duration::ZERO };
        let read = read_within(&peer, body, 1 << 20, time).await.map(|body| body.len());
        assert_eq!(read, Err(BodyError::TooSlow));
        assert_eq!(peer.budget.bytes_used(), 0);
        let seconds = [0, 4 << 10, 1 << 20].map(|bytes| time_for(bytes).as_secs());
        assert_eq!(seconds, [10, 11, 266]);
    }
}
