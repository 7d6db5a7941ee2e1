//! Stream: the socket under hyper, which times and counts what hyper does not.
//!
//! Why: hyper holds a head until it is whole, as many bytes as come and for as long as they come, and waits for ever
//! for a peer that does not read.
//! How: while no request is at hand, bytes are a head's: the time runs from the first, and what is beyond hyper's first
//! buffer must find room in the byte budget. A head that is late, or finds no room, is answered here, where no other
//! answer can be on its way, and the connection ends. A write that waits has its time, too; while it waits, the
//! connection keeps the server waiting.
//! Memory: a timer only while a head is not complete, or a write waits.

use super::{Talk, Times};
use crate::budget::Share;
use crate::stream::Stream;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes of a head that each connection has anyway, in hyper's first buffer.
const HEAD_BYTES_FREE: usize = 8 << 10;

const LATE: &str = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 40\r\n\r\n\
                    the request's head did not come in time\n";
const NO_ROOM: &str = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 57\r\n\r\n\
                       too many unfinished requests at once: send shorter heads\n";

/// A socket that hyper reads and writes.
pub struct TimedStream {
    stream: Stream,
    talk: Arc<Talk>,
    times: Times,
    /// The head's bytes beyond [`HEAD_BYTES_FREE`], in the byte budget.
    share: Share,
    head_bytes: usize,
    /// Requests that had begun when this was last read.
    requests: u32,
    /// Bytes of the head that are counted in the budget.
    counted: usize,
    head_deadline: Option<Pin<Box<Sleep>>>,
    stall_deadline: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    /// A stream over `stream`; `share` holds nothing yet.
    pub fn new(stream: Stream, share: Share, talk: Arc<Talk>, times: Times) -> TimedStream {
        TimedStream {
            stream,
            talk,
            times,
            share,
            head_bytes: 0,
            requests: 0,
            counted: 0,
            head_deadline: None,
            stall_deadline: None,
        }
    }

    fn head_is_over(&mut self) {
        self.head_bytes = 0;
        self.head_deadline = None;
        if self.counted > 0 {
            self.counted = 0;
            self.share.shrink(0);
        }
    }

    /// Counts what hyper's buffer grows to: it doubles.
    fn count_head(&mut self, bytes: usize) -> io::Result<()> {
        self.head_bytes += bytes;
        let held = self.head_bytes.next_power_of_two().saturating_sub(HEAD_BYTES_FREE);
        if held > self.counted {
            if !self.share.grow(held - self.counted) {
                return Err(self.refuse(NO_ROOM));
            }
            self.counted = held;
        }
        Ok(())
    }

    /// Says why, if the peer has room for it, and answers the error that ends the connection.
    fn refuse(&mut self, answer: &'static str) -> io::Error {
        self.stream.try_write(answer.as_bytes());
        io::Error::new(io::ErrorKind::TimedOut, "the head was refused")
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let requests = this.talk.requests.load(Relaxed);
        if requests != this.requests {
            this.requests = requests;
            this.head_is_over();
        }
        if !this.talk.in_head.load(Relaxed) {
            return Pin::new(&mut this.stream).poll_read(context, buf);
        }
        if this.head_bytes > 0 {
            let head = this.times.head;
            let deadline = this.head_deadline.get_or_insert_with(|| Box::pin(sleep(head)));
            if deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(this.refuse(LATE)));
            }
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buf))?;
        Poll::Ready(this.count_head(buf.filled().len() - before))
    }
}

impl TimedStream {
    /// Passes a write's result on; one that waits has its time, in which the connection keeps the server waiting.
    fn written<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            if self.stall_deadline.take().is_some() && !self.talk.in_head.load(Relaxed) {
                self.talk.place.waits(false);
            }
            return result;
        }
        self.talk.place.waits(true);
        let stall = self.times.stall;
        let deadline = self.stall_deadline.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its answer")))
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.written(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.written(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
