//! RPC: the server side of JSON-RPC 1.0 over a [`connection`](super::connection); the bytes are `wire`'s.
//!
//! Invariants: what cannot be framed or is not JSON closes the connection, after an answer without an id that says why;
//! so does HTTP, of which no byte is taken for a message, for a page in a browser of an allowed machine must not send
//! points; an unknown method or a wrong parameter is answered and the connection stays. A service is called
//! only on connections that the [`gate`](super::gate) has let in.

use super::connection::{Fault, Protocol};
use super::gate::{AUTH, Visit};
use std::net::IpAddr;
use wire::http::is_http;
use wire::jsonrpc::{self, Request};
use wire::{Framer, Scratch, json};

/// Answers requests of `peer`, each by appending exactly one answer to `out`.
pub trait Service: Clone + Send + Sync + 'static {
    fn call(&self, peer: IpAddr, request: Request<'_, '_>, out: &mut Vec<u8>) -> impl Future<Output = ()> + Send;
}

/// Why bytes that are no frame close the connection: what a browser sends is told apart.
fn refusal(input: &[u8], reason: &'static str, text: String) -> Fault {
    if is_http(input.trim_ascii_start()) {
        return Fault { reason: "http", text: "this is HTTP, and the port speaks JSON-RPC 1.0 without it".to_string() };
    }
    Fault { reason, text }
}

/// Answers a call by which a token is shown, or one that came before that. The last refusal is a fault.
fn admit(visit: &mut Visit, request: &Request<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let token = (request.method == AUTH).then(|| token_of(request.param.unwrap_or_default()));
    match visit.show(token.as_deref().map(str::as_bytes)) {
        Ok(()) => jsonrpc::write_result(out, request.id, br#"{"code":0}"#),
        Err(text) => jsonrpc::write_error(out, request.id, text),
    }
    if visit.is_over() {
        Err(Fault { reason: "no_token", text: "closed: too many calls without a valid token".into() })
    } else {
        Ok(())
    }
}

/// The token in `{"token":"…"}`; empty where there is none, which no gate takes.
fn token_of(param: &[u8]) -> String {
    let (mut scratch, mut text) = (Scratch::new(), Scratch::new());
    let mut token = String::new();
    let read = json::fields(param, &mut scratch, |name, value| {
        if json::name_eq(name, "token") {
            token = json::string(value, &mut text).unwrap_or_default().to_string();
        }
    });
    read.map_or(String::new(), |()| token)
}

/// One connection's side of the protocol.
pub struct JsonRpc<S> {
    service: S,
    peer: IpAddr,
    visit: Visit,
    framer: Framer,
    scratch: Scratch,
}

impl<S: Service> JsonRpc<S> {
    /// A connection of `peer` to `service`, with requests of at most `message_max` bytes.
    pub fn new(service: S, peer: IpAddr, visit: Visit, message_max: usize) -> JsonRpc<S> {
        JsonRpc { service, peer, visit, framer: Framer::new(message_max), scratch: Scratch::new() }
    }
}

impl<S: Service> Protocol for JsonRpc<S> {
    async fn answer(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, Fault> {
        let found = self.framer.scan(input);
        let Some(message) = found.map_err(|error| refusal(input, error.as_str(), error.to_string()))? else {
            return Ok(None);
        };
        self.framer.reset();
        let end = message.end;
        let request = jsonrpc::request(&input[message], &mut self.scratch);
        let request =
            request.map_err(|error| Fault { reason: "broken_json", text: format!("broken JSON: {error}") })?;
        if request.method == AUTH || !self.visit.is_in() {
            return admit(&mut self.visit, &request, out).map(|()| Some(end));
        }
        self.service.call(self.peer, request, out).await;
        Ok(Some(end))
    }

    /// White space belongs to no message.
    fn is_blank(input: &[u8]) -> bool {
        input.iter().all(u8::is_ascii_whitespace)
    }

    fn idle(&mut self) {
        // White space that came last is not seen again.
        self.framer.reset();
        self.scratch = Scratch::new();
    }

    fn memory_bytes(&self) -> usize {
        self.scratch.memory_bytes()
    }

    fn say_goodbye(&mut self, text: &str, out: &mut Vec<u8>) {
        jsonrpc::write_error(out, b"null", text);
    }
}
