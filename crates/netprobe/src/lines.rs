//! Lines: text that comes over a connection, read with bounds.
//!
//! Why bounds for a line and for all: each growing line is looked at again whenever something comes, so one without an
//! end that comes byte by byte would cost its square.
//! Invariants: bytes that are no UTF-8 become U+FFFD; a line has neither its CR nor its LF.
//! Memory: [`LINE_BYTES_MAX`], and a read ahead of [`CHUNK`].

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a line: twice what SMTP allows a reply (RFC 5321 §4.5.3.1.5).
pub(crate) const LINE_BYTES_MAX: usize = 1024;
/// Bytes of all lines: greetings and replies of the longest dialogues.
const ALL_BYTES_MAX: usize = 16 << 10;
/// Bytes that are read at once.
const CHUNK: usize = 1024;

/// What was read and not looked at yet.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    read_bytes: usize,
}

/// What a look at the connection has given.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Line(String),
    /// The beginning of a line, which stays.
    Part(String),
    Closed,
    /// More than a dialogue has.
    TooLong,
}

impl Lines {
    /// The next whole line, or what there is of it after one more read.
    pub async fn next<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<Heard> {
        if let Some(line) = self.take_line() {
            return Ok(Heard::Line(line));
        }
        if self.buffer.len() >= LINE_BYTES_MAX || self.read_bytes >= ALL_BYTES_MAX {
            return Ok(Heard::TooLong);
        }
        let mut chunk = [0; CHUNK];
        match stream.read(&mut chunk).await? {
            0 => return Ok(Heard::Closed),
            count => {
                self.read_bytes += count;
                self.buffer.extend_from_slice(&chunk[..count]);
            }
        }
        Ok(match self.take_line() {
            Some(line) => Heard::Line(line),
            None => Heard::Part(String::from_utf8_lossy(&self.buffer).into_owned()),
        })
    }

    fn take_line(&mut self) -> Option<String> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        let line = self.buffer[..end].strip_suffix(b"\r").unwrap_or(&self.buffer[..end]);
        let line = String::from_utf8_lossy(line).into_owned();
        self.buffer.drain(..=end);
        Some(line)
    }

    /// Forgets the part of a line that was heard.
    pub fn take_part(&mut self) {
        self.buffer.clear();
    }

    /// True where nothing has come beyond the lines that were taken.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_parts_and_bounds() {
        let mut lines = Lines::default();
        let mut input = &b"220 a\r\n250-b\nend"[..];
        for expected in [
            Heard::Line("220 a".into()),
            Heard::Line("250-b".into()),
            // One read more, which finds the end.
            Heard::Closed,
        ] {
            assert_eq!(lines.next(&mut input).await.expect("bytes"), expected);
        }
        assert!(!lines.is_empty());
        let (mut lines, mut input) = (Lines::default(), &[b'x'; 5000][..]);
        assert!(matches!(lines.next(&mut input).await.expect("bytes"), Heard::Part(part) if part.len() == CHUNK));
        assert_eq!(lines.next(&mut input).await.expect("bytes"), Heard::TooLong);
        let many = b"a\n".repeat(20_000);
        let (mut lines, mut input, mut count) = (Lines::default(), &many[..], 0);
        while let Heard::Line(_) = lines.next(&mut input).await.expect("bytes") {
            count += 1;
        }
        assert!(count <= ALL_BYTES_MAX / 2 + CHUNK, "{count}");
    }
}
