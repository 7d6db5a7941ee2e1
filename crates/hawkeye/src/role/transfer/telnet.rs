//! The telnet socket: `update <endpoint> <metric> <timestamp> <value> [type] [step]` per line (docs/open-falcon/wire.md
//! §12). Where the server asks for a token, the first line is `auth <token>`, and any other ends the connection.
//!
//! Differs from the original, which holds all items of a connection until it ends: here the lines of each read are
//! stored before the next read. Nothing is ever written back, as in the original; bad lines are counted.
//! Invariants: half a line is no line, for its number may lack digits: what a reset, a time-out or our stop cuts off is
//! dropped; only a peer that ends its side in order may leave out the last line's end. A line of HTTP ends the
//! connection before anything that came with it is stored, for a browser must not send points for a page.
//! Memory: a line is at most [`LINE_MAX`] bytes; a longer one is skipped to its end and counted.

use super::points::{Batch, Points};
use crate::clock;
use crate::engine::ingest::Door;
use net::connection::RpcMetrics;
use net::gate::{Gate, Visit};
use net::places::Place;
use net::stream::Stream;
use net::tls::is_tls;
use std::net::SocketAddr;
use std::time::Duration;
use stdx::ledger::Account;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use wire::http::is_http;
use wire::telnet::Line;

/// Longest line in bytes; a longer one cannot be valid.
const LINE_MAX: usize = wire::telnet::LINE_BYTES_MAX;
/// The original's read time-out.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Name of the listener, for the counters of faults.
const LISTENER: &str = "transfer_telnet";

/// What the connections of the door share.
#[derive(Clone)]
pub struct Telnet {
    pub points: Points,
    pub gate: Gate,
    pub metrics: RpcMetrics,
    /// The time within which a line that has begun must end.
    pub line_timeout: Duration,
    /// Account of lines that are not complete.
    pub held: Account,
}

/// Bytes that came and are no whole line yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// The beginning of this line was too long, and is gone.
    skipping: bool,
}

/// Whether a connection goes on.
#[derive(Debug, PartialEq)]
enum Next {
    Read,
    Close,
}

impl Telnet {
    /// Serves one connection until its peer or the process ends it.
    pub async fn connection(
        self,
        mut stream: Stream,
        peer: SocketAddr,
        place: Place,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let mut pending = Pending::default();
        let mut held = self.held.hold();
        let mut visit = self.gate.visit(LISTENER);
        let mut deadline = Instant::now() + IDLE_TIMEOUT;
        loop {
            let was_idle = pending.is_empty();
            let ended = tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => return,
                read = timeout_at(deadline, stream.read_buf(&mut pending.bytes)) => match read {
                    Ok(Ok(n)) => n == 0,
                    Ok(Err(_)) => return,
                    Err(_) => {
                        if !was_idle {
                            self.metrics.fault(LISTENER, "timeout");
                        }
                        return;
                    }
                },
            };
            if is_tls(&pending.bytes) {
                return self.metrics.fault_tls(LISTENER, peer);
            }
            if ended && !pending.skipping {
                pending.bytes.push(b'\n');
            }
            if !visit.is_in() && pending.shows_token(&mut visit) == Next::Close {
                return self.metrics.fault(LISTENER, "no_token");
            }
            let lines_came = pending.bytes.contains(&b'\n');
            let begin = || self.points.begin(Door::Telnet, clock::now(), peer.ip());
            let next = match visit.is_in() {
                true => pending.take_lines(begin, &self.metrics).unwrap_or_else(|error| {
                    tracing::warn!(%peer, %error, "telnet lines were not stored");
                    Next::Close
                }),
                false => Next::Read,
            };
            if next == Next::Close || ended {
                return;
            }
            if lines_came {
                place.waits(false);
            }
            if pending.is_empty() {
                deadline = Instant::now() + IDLE_TIMEOUT;
            } else if lines_came || was_idle {
                deadline = Instant::now() + self.line_timeout;
            }
            held.set(pending.bytes.capacity());
        }
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.skipping
    }

    /// Takes the first line, if it is complete, as the one that shows the token: `auth <token>`.
    fn shows_token(&mut self, visit: &mut Visit) -> Next {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
            return if self.bytes.len() > LINE_MAX { Next::Close } else { Next::Read };
        };
        let shown = token_of(&self.bytes[..end]).is_some_and(|token| visit.show(Some(token)).is_ok());
        self.bytes.drain(..=end);
        if shown { Next::Read } else { Next::Close }
    }

    /// Stores all complete lines and removes them.
    fn take_lines<'i>(&mut self, begin: impl FnOnce() -> Batch<'i>, metrics: &RpcMetrics) -> Result<Next, String> {
        let mut start = 0;
        if self.skipping {
            let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
                self.bytes.clear();
                return Ok(Next::Read);
            };
            start = end + 1;
            self.skipping = false;
        }
        let lines = self.bytes.iter().rposition(|byte| *byte == b'\n').filter(|end| *end >= start);
        let lines = lines.map_or(start..start, |end| start..end + 1);
        let rest = &self.bytes[lines.end..];
        let is_too_long = rest.len() > LINE_MAX;
        // The last line is looked at when its end has come, or has no place any more.
        let seen = if is_too_long { &self.bytes[lines.start..] } else { &self.bytes[lines.clone()] };
        if seen.split(|byte| *byte == b'\n').any(is_http) {
            metrics.fault(LISTENER, "http");
            return Ok(Next::Close);
        }
        let quits = !lines.is_empty() && keep_lines(&self.bytes[lines.clone()], begin())?;
        if is_too_long {
            metrics.fault(LISTENER, "line_too_long");
            self.bytes.clear();
            self.skipping = true;
        } else {
            self.bytes.drain(..lines.end);
        }
        if self.bytes.is_empty() {
            // An idle connection holds no buffer.
            self.bytes = Vec::new();
        }
        Ok(if quits { Next::Close } else { Next::Read })
    }
}

/// The token of a line that shows one.
fn token_of(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"auth ").map(<[u8]>::trim_ascii)
}

/// Stores the updates of complete lines up to the first `quit`; true when there was one.
fn keep_lines(lines: &[u8], mut batch: Batch<'_>) -> Result<bool, String> {
    let mut quit = false;
    for line in lines.split(|byte| *byte == b'\n') {
        match wire::telnet::line(line) {
            Line::Update(item) => batch.push(&item),
            Line::Empty => {}
            // A token that nobody asks for is no update, and no mistake.
            Line::Bad(_) if token_of(line).is_some() => {}
            Line::Bad(_) => batch.refuse("bad_line"),
            Line::Quit => {
                quit = true;
                break;
            }
        }
    }
    batch.finish()?;
    Ok(quit)
}
