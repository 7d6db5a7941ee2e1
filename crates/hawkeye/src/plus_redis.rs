//! Plus Redis: connections to a Redis of others, whose answers have bounds.
//!
//! Why: the client library reads whatever an answer says it has, and makes room for it; who took a Redis' place, or
//! what stands between, could take all memory with one line. How: the library reads through a stream that reads along:
//! it knows where an answer begins and ends, and fails before the library makes room for one that is too long.
//! Invariants: an answer has at most [`ANSWER_MAX`] bytes, [`VALUES_MAX`] values and lines of [`LINE_MAX`] bytes, and
//! only what RESP2 has; whoever answers otherwise loses the connection. Nothing waits longer than [`TIMEOUT`].
//! Memory: an answer, and the library's copy of it.

use crate::config::RedisUrl;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ErrorKind, RedisError};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The original's five seconds for connecting, reading and writing.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Four times what a batch of the longest entries has.
const ANSWER_MAX: usize = 16 << 20;
/// Values of an answer, nested ones too: a batch has some seventy.
const VALUES_MAX: usize = 1 << 16;
/// Bytes of a line: a state or an error.
const LINE_MAX: usize = 64 << 10;
/// Bytes of a line that is a number.
const NUMBER_MAX: usize = 32;

/// A connection, which is closed when this is dropped.
pub struct Link {
    connection: MultiplexedConnection,
    _driver: JoinSet<()>,
}

impl Link {
    /// Connects and logs in. Fails as the library does, also where `url` is none.
    pub async fn connect(url: &RedisUrl) -> Result<Link, RedisError> {
        let Some(info) = url.info() else {
            return Err(RedisError::from((ErrorKind::InvalidClientConfig, "no URL")));
        };
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(RedisError::from((ErrorKind::InvalidClientConfig, "only TCP is spoken")));
        };
        let opening = async {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let stream = Bounded { stream, answers: Answers::default() };
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
            MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await
        };
        let hangs = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {TIMEOUT:?}"));
        let (connection, driver) = timeout(TIMEOUT, opening).await.map_err(hangs)??;
        Ok(Link { connection, _driver: JoinSet::from_iter([driver]) })
    }

    /// What commands are sent over, while the link is there.
    pub fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

/// A stream that ends with an error where an answer is too long.
struct Bounded {
    stream: TcpStream,
    answers: Answers,
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let error = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        Poll::Ready(self.answers.follow(&buffer.filled()[before..]).map_err(error))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where in an answer a connection stands.
#[derive(Default)]
struct Answers {
    at: At,
    /// Values that are still to come, and those that were there, of the answer under way.
    missing: usize,
    values: usize,
    bytes: usize,
}

#[derive(Default)]
enum At {
    /// At the first byte of a value.
    #[default]
    Kind,
    Line {
        kind: u8,
        length: usize,
        /// Text of a line that is a number.
        number: Vec<u8>,
        is_return: bool,
    },
    /// In a text that has so many bytes more, its end of a line included.
    Text(usize),
}

impl Answers {
    /// Follows what came. Fails at the first byte that shows that an answer is none, or is too long.
    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let [first, rest @ ..] = bytes {
            let used = if let At::Text(left) = self.at { left.min(bytes.len()) } else { 1 };
            self.bytes += used;
            if self.bytes > ANSWER_MAX {
                return Err(format!("an answer has more than {ANSWER_MAX} bytes"));
            }
            match &mut self.at {
                At::Kind => self.begin(*first)?,
                At::Text(left) => {
                    *left -= used;
                    if *left == 0 {
                        self.end();
                    }
                }
                At::Line { .. } => self.line(*first)?,
            }
            bytes = if used == 1 { rest } else { &bytes[used..] };
        }
        Ok(())
    }

    fn begin(&mut self, kind: u8) -> Result<(), String> {
        if !b"+-:$*".contains(&kind) {
            return Err(format!("an answer has a value of the kind {:?}, which RESP2 does not know", char::from(kind)));
        }
        self.missing = self.missing.max(1);
        self.at = At::Line { kind, length: 0, number: Vec::new(), is_return: false };
        Ok(())
    }

    fn line(&mut self, byte: u8) -> Result<(), String> {
        let At::Line { kind, length, number, is_return } = &mut self.at else { return Ok(()) };
        *length += 1;
        let is_number = matches!(kind, b'$' | b'*');
        if *length > if is_number { NUMBER_MAX } else { LINE_MAX } {
            return Err("a line of an answer is too long".to_string());
        }
        if byte != b'\n' || !*is_return {
            *is_return = byte == b'\r';
            if is_number && !*is_return {
                number.push(byte);
            }
            return Ok(());
        }
        if !is_number {
            self.end();
            return Ok(());
        }
        let (kind, text) = (*kind, String::from_utf8_lossy(number).into_owned());
        let count: i64 = text.trim().parse().map_err(|_| format!("an answer has {text:?} for a length"))?;
        // Below zero is nothing at all.
        match (kind, usize::try_from(count)) {
            (b'$', Ok(length)) if length > ANSWER_MAX => Err(format!("an answer has a text of {length} bytes")),
            (b'$', Ok(length)) => {
                self.at = At::Text(length + 2);
                Ok(())
            }
            (_, Ok(count)) => {
                self.values = self.values.saturating_add(count);
                if self.values > VALUES_MAX {
                    return Err(format!("an answer has more than {VALUES_MAX} values"));
                }
                self.missing += count;
                self.end();
                Ok(())
            }
            (_, Err(_)) => {
                self.end();
                Ok(())
            }
        }
    }

    /// Ends a value.
    fn end(&mut self) {
        self.at = At::Kind;
        self.missing -= 1;
        if self.missing == 0 {
            (self.values, self.bytes) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::patience::in_time;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn answers_are_followed_however_they_are_cut() {
        let good =
            b"+OK\r\n:12\r\n$5\r\nhel\r\n\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n*1\r\n:1\r\n$0\r\n\r\n-ERR no\r\n".repeat(3);
        for part in [1, 2, 7, good.len()] {
            let mut answers = Answers::default();
            for part in good.chunks(part) {
                answers.follow(part).expect("good answers");
            }
            assert_eq!((answers.missing, answers.bytes, answers.values), (0, 0, 0), "{part}");
        }
    }

    #[test]
    fn lies_end_with_their_first_line() {
        let check = |answer: &[u8], part: &str| {
            let error = Answers::default().follow(answer).expect_err(part);
            assert!(error.contains(part), "{error}");
        };
        check(b"$3000000000\r\n", "text of 3000000000 bytes");
        check(b"$9223372036854775807\r\n", "a text of");
        check(b"*2147483647\r\n", "values");
        check(b"*9223372036854775807\r\n", "values");
        check(b"*60000\r\n*60000\r\n", "values");
        check(b"*1\r\n".repeat(VALUES_MAX + 1).as_slice(), "values");
        check(&[b'+'; LINE_MAX + 2], "line");
        check(b"$00000000000000000000000000000000000001\r\n", "line");
        check(b"$many\r\n", "for a length");
        check(b"%100000000\r\n", "RESP2");
        check(b"HTTP/1.1 400 Bad Request\r\n", "RESP2");
        let text = [b"$8000000\r\n".as_slice(), &vec![b'x'; 8_000_000], b"\r\n"].concat();
        check(&[b"*3\r\n".as_slice(), &text, &text, &text].concat(), "bytes");
    }

    /// Whoever asks is told of the lie, also where it is the answer to the login.
    #[tokio::test]
    async fn a_lie_ends_the_connection() {
        for (secret, part) in [("", "text of"), ("secret@", "text of")] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            let address = listener.local_addr().expect("bound");
            let lies = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut bytes = [0; 512];
                while matches!(stream.read(&mut bytes).await, Ok(1..)) {
                    stream.write_all(b"$3000000000\r\nx").await.expect("the other side reads");
                }
            });
            let url = RedisUrl::parse(&format!("{secret}{address}")).expect("valid");
            let asked = async {
                let link = Link::connect(&url).await?;
                redis::cmd("PING").query_async::<String>(&mut link.connection()).await
            };
            let error = in_time("the error", asked).await.expect_err("a lie");
            assert!(error.to_string().contains(part), "{error:?}");
            in_time("the end of the connection", lies).await.expect("no panic");
        }
    }
}
