//! Pieces: a body that is written while it is being sent.
//!
//! Why: a long answer costs a few pieces of memory, and begins to arrive before it is complete.
//! How: text is gathered into pieces of [`PIECE_BYTES`], of which [`PIECES_AHEAD`] wait for the reader. A writer never
//! waits for its reader: when there is no room ahead, it is told to stop ([`Pieces::pass_on`]), gives up its thread,
//! and goes on when the reader has taken a piece ([`Pieces::has_room`]). A reader that takes nothing for
//! [`READ_TIMEOUT`] is given up.
//! Invariants: an answer ends well only if [`Pieces::finish`] was called. Otherwise (given up, a panic) the body ends
//! with an error, which breaks the connection: half an answer must not look whole. One channel carries the pieces and
//! the end, so that the end cannot overtake a piece (it can in http-body-util 0.1.5's channel, where the end has a
//! channel of its own).

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Bytes that are sent together, and how many such pieces are made ahead of what the reader has taken.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_AHEAD: usize = 2;
/// The time without a read after which a reader counts as gone; a guess, as for the bodies of requests.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The writer's side of a body.
pub struct Pieces {
    pub text: String,
    /// None when the reader is gone.
    sender: Option<Sender<Piece>>,
}

enum Piece {
    Text(Bytes),
    End,
}

/// The reader's side of a body, as hyper polls it.
struct PieceBody {
    pieces: Receiver<Piece>,
    is_over: bool,
}

impl Pieces {
    /// A writer, and the body whose reader gets what is written.
    pub fn new() -> (Pieces, Body) {
        let (sender, pieces) = channel(PIECES_AHEAD);
        (Pieces { text: String::new(), sender: Some(sender) }, Body::new(PieceBody { pieces, is_over: false }))
    }

    /// Whether the text so far fills a piece: [`Pieces::pass_on`] sends it.
    pub fn is_due(&self) -> bool {
        self.text.len() >= PIECE_BYTES
    }

    /// Passes the text so far on once it fills a piece; false when the writer has to stop: there is no room ahead, or
    /// nobody reads any more.
    pub fn pass_on(&mut self) -> bool {
        if self.text.len() < PIECE_BYTES {
            return self.sender.is_some();
        }
        let Some(sender) = &self.sender else { return false };
        match sender.try_send(Piece::Text(Bytes::from(std::mem::take(&mut self.text)))) {
            Ok(()) => true,
            Err(TrySendError::Full(Piece::Text(text))) => {
                self.text = String::from_utf8(text.into()).expect("a text a moment ago");
                false
            }
            Err(_) => {
                self.give_up();
                false
            }
        }
    }

    /// True while somebody reads, or may.
    pub fn is_wanted(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Waits until the reader has room for what is written, and passes that on; false when nobody reads any more.
    pub async fn has_room(&mut self) -> bool {
        self.text.is_empty() || self.send_text().await
    }

    /// Sends the last piece and the end: only then is the body whole.
    pub async fn finish(mut self) {
        if self.has_room().await {
            self.send(Piece::End).await;
        }
    }

    /// Stops sending, so that the body ends with an error.
    pub fn give_up(&mut self) {
        self.sender = None;
    }

    async fn send_text(&mut self) -> bool {
        let text = Bytes::from(std::mem::take(&mut self.text));
        self.send(Piece::Text(text)).await
    }

    async fn send(&mut self, piece: Piece) -> bool {
        let Some(sender) = &self.sender else { return false };
        let sent = matches!(tokio::time::timeout(READ_TIMEOUT, sender.send(piece)).await, Ok(Ok(())));
        if !sent {
            self.give_up();
        }
        sent
    }
}

impl HttpBody for PieceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(context));
        self.is_over = !matches!(piece, Some(Piece::Text(_)));
        Poll::Ready(match piece {
            Some(Piece::Text(text)) => Some(Ok(Frame::data(text))),
            Some(Piece::End) => None,
            None => Some(Err(io::Error::other("the answer was not read in time, or not finished"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    /// Reads a body to the end while `write` writes it.
    async fn read(write: impl FnOnce(&mut Pieces) + Send + 'static, finish: bool) -> Result<Bytes, axum::Error> {
        let (mut pieces, body) = Pieces::new();
        let writing = tokio::spawn(async move {
            write(&mut pieces);
            if finish {
                pieces.finish().await;
            }
        });
        let read = body.collect().await.map(|collected| collected.to_bytes());
        writing.await.expect("it does not panic");
        read
    }

    /// Many times, since it is about which thread comes first.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_finished_answer_is_whole() {
        for round in 0..2000 {
            let text = format!("answer {round}");
            let expected = text.clone();
            let read = read(move |pieces| pieces.text.push_str(&text), true).await;
            assert_eq!(read.expect("finished"), expected);
        }
        assert_eq!(read(|_| {}, true).await.expect("finished"), "");
    }

    /// The writer stops where there is no room, and goes on where it was.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_long_answer_comes_in_pieces_and_whole() {
        let (mut pieces, body) = Pieces::new();
        let writing = tokio::spawn(async move {
            let mut stops = 0;
            for i in 0..100_000 {
                pieces.text.push_str(&format!("{i:09}\n"));
                if !pieces.pass_on() {
                    stops += 1;
                    assert!(pieces.has_room().await);
                }
            }
            pieces.finish().await;
            stops
        });
        let whole = body.collect().await.expect("finished").to_bytes();
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        assert!(lines.enumerate().all(|(i, line)| line == format!("{i:09}").as_bytes()));
        assert_eq!(whole.len(), 1_000_000);
        writing.await.expect("it does not panic");
    }

    #[tokio::test]
    async fn a_writer_whose_reader_takes_nothing_stops_with_a_few_pieces() {
        let (mut pieces, body) = Pieces::new();
        let mut passed = 0;
        loop {
            pieces.text = "x".repeat(PIECE_BYTES);
            if !pieces.pass_on() {
                break;
            }
            passed += 1;
        }
        assert_eq!((passed, pieces.text.len()), (PIECES_AHEAD, PIECE_BYTES), "what does not fit is kept");
        drop(body);
        assert!(!pieces.has_room().await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn half_an_answer_does_not_look_whole() {
        for _ in 0..200 {
            assert!(read(|pieces| pieces.text.push_str("half"), false).await.is_err());
        }
    }

    #[tokio::test]
    async fn who_has_gone_is_not_written_to() {
        let (mut pieces, body) = Pieces::new();
        drop(body);
        pieces.text = "x".repeat(PIECE_BYTES);
        assert!(!pieces.pass_on());
    }
}
