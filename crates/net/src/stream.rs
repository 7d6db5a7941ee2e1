//! Stream: the bytes of an accepted connection, as they are or out of TLS.
//!
//! Why: doors wait for a peer without a buffer, and read only when something has come; over TLS the socket's readiness
//! says nothing about that, for a record may be incomplete, or come with another.
//! Invariants: [`Stream::readable`] loses nothing when it is dropped; what was written leaves with a flush at the
//! latest.
//! Memory: over TLS the state of the session, [`TLS_BYTES`] and a record that is not whole (16 KiB at most).

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Bytes that a session of TLS holds while nothing comes: its value, and the library's first buffer of 4 KiB.
pub const TLS_BYTES: usize = size_of::<TlsStream<TcpStream>>() + (4 << 10);

/// A connection that was accepted, and whose handshake is over if there is one.
pub enum Stream {
    Plain(TcpStream),
    /// Boxed: it has more than a kilobyte, which a plain connection must not hold.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Waits until there is something to read, or the end.
    pub async fn readable(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.readable().await,
            Stream::Tls(stream) => poll_fn(|context| Pin::new(&mut **stream).poll_fill_buf(context).map_ok(drop)).await,
        }
    }

    /// Waits for the first byte that is not read yet, and leaves it; `None` is the end.
    pub async fn peek(&mut self) -> io::Result<Option<u8>> {
        match self {
            Stream::Plain(stream) => peek(stream).await,
            Stream::Tls(stream) => {
                let first = |read: &[u8]| read.first().copied();
                poll_fn(|context| Pin::new(&mut **stream).poll_fill_buf(context).map_ok(first)).await
            }
        }
    }

    /// Appends what has come to `buffer`, within its capacity if that has room; [`ErrorKind::WouldBlock`] when nothing
    /// has.
    pub fn try_read_buf(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.try_read_buf(buffer),
            Stream::Tls(_) => self.try_with(|read| {
                if buffer.len() == buffer.capacity() {
                    buffer.reserve(64);
                }
                let taken = read.len().min(buffer.capacity() - buffer.len());
                buffer.extend_from_slice(&read[..taken]);
                taken
            }),
        }
    }

    /// Reads what has come and throws it away, `most` bytes at most; [`ErrorKind::WouldBlock`] when nothing has.
    pub fn try_discard(&mut self, most: usize) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => {
                let mut sink = [0; 4096];
                let most = most.min(sink.len());
                stream.try_read(&mut sink[..most])
            }
            Stream::Tls(_) => self.try_with(|read| read.len().min(most)),
        }
    }

    /// Has `take` look at what has come over TLS, and say how much of it is done with.
    fn try_with(&mut self, take: impl FnOnce(&[u8]) -> usize) -> io::Result<usize> {
        let Stream::Tls(stream) = self else { return Err(ErrorKind::WouldBlock.into()) };
        let mut stream = Pin::new(&mut **stream);
        // Nobody is to be woken: whoever waits asks `readable`, which says whom.
        match stream.as_mut().poll_fill_buf(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(read)) => {
                let taken = take(read);
                stream.consume(taken);
                Ok(taken)
            }
        }
    }

    /// Writes a last short text without waiting for the peer.
    pub fn try_write(&mut self, bytes: &[u8]) {
        // A peer that does not even take this is not worth more.
        match self {
            Stream::Plain(stream) => _ = stream.try_write(bytes),
            Stream::Tls(stream) => {
                let mut stream = Pin::new(&mut **stream);
                let context = &mut Context::from_waker(Waker::noop());
                let _ = stream.as_mut().poll_write(context, bytes);
                let _ = stream.as_mut().poll_flush(context);
            }
        }
    }
}

/// Waits for the first byte of a socket, and leaves it; `None` is the end.
pub async fn peek(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut first = [0];
    Ok((stream.peek(&mut first).await? == 1).then_some(first[0]))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buf),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
        }
    }
}
