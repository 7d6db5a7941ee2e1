//! Gob: the server side of Go's net/rpc over a [`connection`](super::connection); the bytes are `wire`'s.
//!
//! Why calls are answered in their order: they share the definitions of types that went before, and Open-Falcon's
//! clients have one call at a time on each of their connections, or do not mind.
//! Invariants: bytes that are no gob, and a message that is too long, close the connection; an argument that does not
//! fit its method, and an unknown method, are answered and the connection stays, as in Go. A service is called only on
//! connections that the [`gate`](super::gate) has let in.
//! Memory: an idle connection keeps the types that its peer has defined, less than 1 KiB for the real programs, at most
//! some 22 KiB (see `wire::gob`), besides the task; what decoding needs is given up.

use super::connection::{Fault, Protocol};
use super::gate::{AUTH, Visit};
use wire::gob::{Call, Decoder, Encoder, GobScratch};

/// Answers calls, each by appending exactly one answer to `out`.
pub trait Service: Clone + Send + Sync + 'static {
    fn call(&self, call: Call<'_>, session: &mut Session, out: &mut Vec<u8>) -> impl Future<Output = ()> + Send;
}

/// State of one connection: the types that have been defined on it, in both directions.
pub struct Session {
    pub decoder: Decoder,
    pub encoder: Encoder,
    pub scratch: GobScratch,
}

/// One connection's side of the protocol.
pub struct Gob<S> {
    service: S,
    visit: Visit,
    session: Session,
    /// The number that Go's client gives its next call; it counts from 0.
    next_seq: u64,
}

impl<S: Service> Gob<S> {
    /// A connection to `service`, with calls of at most `message_max` bytes.
    pub fn new(service: S, visit: Visit, message_max: usize) -> Gob<S> {
        let (decoder, encoder, scratch) = (Decoder::new(message_max), Encoder::new(), GobScratch::new());
        Gob { service, visit, session: Session { decoder, encoder, scratch }, next_seq: 0 }
    }
}

/// Answers a call by which a token is shown, as a string, or one that came before that. The last refusal is a fault.
fn admit(visit: &mut Visit, call: &Call<'_>, session: &mut Session, out: &mut Vec<u8>) -> Result<(), Fault> {
    let token = (call.method == AUTH).then(|| call.text().unwrap_or_default());
    match visit.show(token.as_deref().map(str::as_bytes)) {
        Ok(()) => session.encoder.simple(out, call.method, call.seq, 0),
        Err(text) => session.encoder.error(out, call.method, call.seq, text),
    }
    if visit.is_over() { Err(Fault::silent("no_token")) } else { Ok(()) }
}

impl<S: Service> Protocol for Gob<S> {
    async fn answer(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, Fault> {
        let next = self.session.decoder.next(input);
        let Some((consumed, call)) = next.map_err(|error| Fault { reason: "gob", text: error.to_string() })? else {
            return Ok(None);
        };
        self.next_seq = call.seq.wrapping_add(1);
        if call.method == AUTH || !self.visit.is_in() {
            return admit(&mut self.visit, &call, &mut self.session, out).map(|()| Some(consumed));
        }
        self.service.call(call, &mut self.session, out).await;
        Ok(Some(consumed))
    }

    fn is_blank(input: &[u8]) -> bool {
        input.is_empty()
    }

    fn idle(&mut self) {
        self.session.scratch = GobScratch::new();
    }

    fn memory_bytes(&self) -> usize {
        self.session.decoder.memory_bytes() + self.session.scratch.memory_bytes()
    }

    /// Answers the call that could not be read: its number is not known, but Go's clients count.
    fn say_goodbye(&mut self, text: &str, out: &mut Vec<u8>) {
        self.session.encoder.error(out, "", self.next_seq, text);
    }
}

/// Connections for tests of services.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use super::super::budget::Budget;
    use super::super::connection::{RpcLimits, RpcMetrics, connection};
    use super::super::gate::Gate;
    use super::super::places::{Claim, Places};
    use super::super::stream::Stream;
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    /// Sends `requests` over a connection of their own, and answers all that comes back.
    pub async fn exchange(service: &impl Service, message_max: usize, requests: &[u8]) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("somebody listens");
        let (stream, peer) = listener.accept().await.expect("the client");
        let limits = RpcLimits {
            message_max,
            message_timeout: Duration::from_secs(60),
            budget: Budget::new(64 << 20),
            metrics: RpcMetrics::default(),
            connections: stdx::ledger::Account::new("connections", None),
        };
        let (_run, stopping) = watch::channel(false);
        let gob = Gob::new(service.clone(), Gate::open().visit("gob"), message_max);
        let Claim::Free(place) = Places::new(1).claim("gob", peer.ip(), 1) else { panic!("one place is free") };
        let serving = tokio::spawn(connection("gob", Stream::Plain(stream), peer, place, gob, limits, stopping));
        let (mut reader, mut writer) = client.split();
        let mut answers = Vec::new();
        let write = async {
            writer.write_all(requests).await.expect("somebody reads");
            writer.shutdown().await.expect("still open");
        };
        let (_, read) = tokio::join!(write, reader.read_to_end(&mut answers));
        read.expect("an orderly end");
        serving.await.expect("no panic");
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Gate, GateMetrics, Issued};
    use wire::gob::client::{Replies, Requests};

    #[derive(Clone)]
    struct Nothing;

    impl Service for Nothing {
        async fn call(&self, call: Call<'_>, session: &mut Session, out: &mut Vec<u8>) {
            session.encoder.simple(out, call.method, call.seq, 0);
        }
    }

    /// Pins what the header says, for the recorded connections of the original's transfer and of a client of all
    /// methods.
    #[tokio::test]
    async fn an_idle_connection_holds_less_than_a_kilobyte() {
        for name in ["transfer_graph", "client_graph"] {
            let bytes = testdata::bytes(&format!("gob/{name}.c2s.bin"));
            let (mut gob, mut rest, mut out) =
                (Gob::new(Nothing, Gate::open().visit("gob"), 1 << 20), &bytes[..], Vec::new());
            while let Ok(Some(consumed)) = gob.answer(rest, &mut out).await {
                rest = &rest[consumed..];
            }
            assert!(rest.is_empty());
            gob.idle();
            let held = size_of::<Gob<Nothing>>() + gob.memory_bytes();
            println!("{name}: {held} bytes");
            assert!(held <= 1024, "{name}: {held} bytes");
        }
    }

    /// Calls before the token are answered with an error, and the third refusal ends the connection.
    #[tokio::test]
    async fn a_token_comes_first() {
        let gate = Gate::closed(b"a secret of the site", Issued::default(), GateMetrics::default());
        let say = async |gob: &mut Gob<Nothing>, replies: &mut Replies, input: Vec<u8>| {
            let mut out = Vec::new();
            let answered = gob.answer(&input, &mut out).await;
            let (_, reply) = replies.next(&out).expect("gob").expect("an answer");
            (answered.is_ok(), reply.error.into_owned())
        };
        for (tokens, ends) in [(vec!["a secret of the site"], true), (vec!["x", "y"], false)] {
            let mut gob = Gob::new(Nothing, gate.visit("gob"), 1 << 20);
            let (mut requests, mut replies) = (Requests::new(), Replies::new(1 << 20));
            let mut input = Vec::new();
            requests.ping(&mut input, "Graph.Ping", 0);
            let (open, error) = say(&mut gob, &mut replies, input).await;
            assert!(open && error.contains("call Hawkeye.Auth"), "{error}");
            let mut last = (true, String::new());
            for (seq, token) in (1..).zip(tokens) {
                let mut input = Vec::new();
                requests.text(&mut input, AUTH, seq, token);
                last = say(&mut gob, &mut replies, input).await;
                assert!(!last.1.contains(token), "{}", last.1);
            }
            assert_eq!((last.0, last.1.is_empty()), (ends, ends), "{}", last.1);
        }
    }
}
