//! The telnet socket: `update <endpoint> <metric> <timestamp> <value> [type] [step]` per line (docs/open-falcon/wire.md
//! §12).
//!
//! Differs from the original, which holds all items of a connection until it ends: here the lines of each read are
//! stored before the next read. Nothing is ever written back, as in the original; bad lines are counted.
//! Invariants: half a line is no line, for its number may lack digits: what a reset, a time-out or our stop cuts off is
//! dropped; only a peer that ends its side in order may leave out the last line's end.
//! Memory: a line is at most [`LINE_MAX`] bytes; a longer one is skipped to its end and counted.

use crate::clock;
use crate::engine::IngestError;
use crate::engine::ingest::{Batch, Door, Ingest};
use net::connection::RpcMetrics;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stdx::ledger::Account;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use wire::telnet::Line;

/// Longest line in bytes; a longer one cannot be valid.
const LINE_MAX: usize = wire::telnet::LINE_BYTES_MAX;
/// The original's read time-out.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Serves one connection until its peer or the process ends it.
pub async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    ingest: Arc<Ingest>,
    metrics: RpcMetrics,
    telnet: Account,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut buffer = Vec::new();
    let mut skipping = false;
    let mut held = telnet.hold();
    loop {
        let ended = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => return,
            read = tokio::time::timeout(IDLE_TIMEOUT, stream.read_buf(&mut buffer)) => match read {
                Ok(Ok(n)) => n == 0,
                Ok(Err(_)) | Err(_) => return,
            },
        };
        if ended && !skipping {
            buffer.push(b'\n');
        }
        let begin = || ingest.begin(Door::Telnet, clock::now()).from(peer.ip());
        let quit = match take_lines(&mut buffer, &mut skipping, begin, &metrics) {
            Ok(quit) => quit,
            Err(error) => {
                tracing::warn!(%peer, %error, "telnet lines were not stored");
                true
            }
        };
        if quit || ended {
            return;
        }
        if buffer.is_empty() {
            // An idle connection holds no buffer.
            buffer = Vec::new();
        }
        held.set(buffer.capacity());
    }
}

/// Hands all complete lines on and removes them; true when one was `quit`.
fn take_lines<'i>(
    buffer: &mut Vec<u8>,
    skipping: &mut bool,
    begin: impl FnOnce() -> Batch<'i>,
    metrics: &RpcMetrics,
) -> Result<bool, IngestError> {
    let mut start = 0;
    if *skipping {
        match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                start = end + 1;
                *skipping = false;
            }
            None => {
                buffer.clear();
                return Ok(false);
            }
        }
    }
    let mut quit = false;
    if let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n').filter(|end| *end >= start) {
        quit = keep_lines(&buffer[start..=end], begin())?;
        start = end + 1;
    }
    buffer.drain(..start);
    if buffer.len() > LINE_MAX {
        metrics.fault("transfer_telnet", "line_too_long");
        buffer.clear();
        *skipping = true;
    }
    Ok(quit)
}

/// Stores the updates of complete lines up to the first `quit`; true when there was one.
fn keep_lines(lines: &[u8], mut batch: Batch<'_>) -> Result<bool, IngestError> {
    let mut quit = false;
    for line in lines.split(|byte| *byte == b'\n') {
        match wire::telnet::line(line) {
            Line::Update(item) => batch.push(&item),
            Line::Empty => {}
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
