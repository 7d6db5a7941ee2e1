//! gRPC: what a server's health service says (`grpc.health.v1.Health/Check`).
//!
//! How: one call over HTTP/2, with TLS or, by prior knowledge, without. The two messages have one field each, so they
//! are written and read here: a five-byte head (not compressed, length), then protobuf.
//! Compat: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>; statuses as gRPC names them.

use crate::dial::{Family, dial};
use crate::fault::note;
use crate::http::{Exchange, Url, read, speak, speak_tls};
use crate::means::Ground;
use crate::outcome::{Code, Phase, Reason};
use crate::place::Place;
use crate::tls::TlsOptions;
use crate::trace::Trace;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use net::tls::client::Outgoing;
use serde::{Deserialize, Serialize};

/// Bytes of a service's name; protobuf writes lengths below 16,384 in two bytes.
const SERVICE_BYTES_MAX: usize = 255;
/// Bytes of the answer, which has seven.
const ANSWER_BYTES_MAX: usize = 1024;
/// The one good state of the health protocol.
const SERVING: u64 = 1;

/// A gRPC server that tells its health.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// Service that is asked about; empty: the server as a whole.
    pub service: String,
    pub family: Family,
    /// Speaks TLS.
    pub tls: Option<TlsOptions>,
}

impl Grpc {
    pub(crate) fn check(&self, target: &str, faults: &mut Vec<String>) {
        note(faults, "target", Place::parse(target));
        if self.service.len() > SERVICE_BYTES_MAX {
            faults.push(format!("service has {} bytes: give at most {SERVICE_BYTES_MAX}", self.service.len()));
        }
        if let Some(tls) = &self.tls {
            tls.check(faults);
        }
    }

    pub(crate) async fn run(&self, target: &str, ground: Ground<'_>, trace: &mut Trace) -> Result<(), Reason> {
        let place = Place::parse(target).map_err(|error| Reason::new(Code::Definition, error))?;
        let stream = dial(&place, self.family, ground, trace).await?;
        let mut exchange: Exchange = match &self.tls {
            None => speak(Outgoing::Plain(stream), true, ground, trace).await?,
            Some(tls) => speak_tls(stream, &place.host, tls, &[b"h2"], true, ground, trace).await?,
        };
        trace.enter(Phase::Answer);
        let url = Url { is_tls: self.tls.is_some(), place, path: "/grpc.health.v1.Health/Check".to_string() };
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
            (TE, HeaderValue::from_static("trailers")),
        ]);
        let answer = exchange.ask(&url, Method::POST, headers, request(&self.service), trace).await?;
        let (head, body) = answer.into_parts();
        if head.status.as_u16() != 200 {
            let text = format!("status {} of HTTP, want 200: this is no gRPC server", head.status.as_u16());
            return Err(Reason::new(Code::Protocol, text));
        }
        let body = read(body, true, ANSWER_BYTES_MAX, trace).await?;
        trace.end_phase();
        // An answer without messages has its status in the head.
        let trailers = body.trailers.unwrap_or(head.headers);
        judge(&trailers, &body.kept, &self.service)
    }
}

/// A message with the service's name as field 1.
fn request(service: &str) -> Bytes {
    let mut field = Vec::new();
    if !service.is_empty() {
        field.push(0x0a);
        put_varint(&mut field, service.len());
        field.extend_from_slice(service.as_bytes());
    }
    let mut message = vec![0];
    message.extend_from_slice(&(field.len() as u32).to_be_bytes());
    message.extend_from_slice(&field);
    message.into()
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Names of gRPC's status codes that a health check may give.
fn name_of(status: &str) -> &'static str {
    match status {
        "1" => "CANCELLED",
        "4" => "DEADLINE_EXCEEDED",
        "5" => "NOT_FOUND: the server does not know this service",
        "7" => "PERMISSION_DENIED",
        "8" => "RESOURCE_EXHAUSTED",
        "12" => "UNIMPLEMENTED: the server has no health service",
        "13" => "INTERNAL",
        "14" => "UNAVAILABLE",
        "16" => "UNAUTHENTICATED",
        _ => "see grpc-status",
    }
}

fn judge(trailers: &HeaderMap, body: &[u8], service: &str) -> Result<(), Reason> {
    let text_of = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    match text_of("grpc-status") {
        Some("0") => {}
        Some(status) => {
            let said = text_of("grpc-message").map_or_else(String::new, |said| format!(" ({})", decoded(said)));
            return Err(Reason::new(Code::Grpc, format!("gRPC status {status}, {}{said}", name_of(status))));
        }
        None => return Err(Reason::new(Code::Protocol, "the answer has no grpc-status: this is no gRPC server")),
    }
    let status =
        health(body).ok_or_else(|| Reason::new(Code::Protocol, "the answer is no message of grpc.health.v1"))?;
    let state = match status {
        SERVING => return Ok(()),
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "in a state that is not known",
    };
    let who = if service.is_empty() { "the server" } else { service };
    Err(Reason::new(Code::NotServing, format!("{who} is {state}, want SERVING")))
}

/// The status in an answer: field 1, whose absence is 0.
fn health(message: &[u8]) -> Option<u64> {
    let (head, mut rest) = message.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != 0 || usize::try_from(length) != Ok(rest.len()) {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = varint(&mut rest)?,
            (_, 0) => _ = varint(&mut rest)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A message without its percent-encoding; what is none stays as it is.
fn decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &behind[2..];
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(&request("")[..], [0; 5]);
        assert_eq!(&request("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        assert_eq!(&request(&"x".repeat(200))[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
        assert_eq!(decoded("unknown%20service%e4%b8%ad 5% %zz%"), "unknown service中 5% %zz%");
        assert_eq!(health(b"\0\0\0\0\0"), Some(0));
        assert_eq!(health(b"\0\0\0\0\x02\x08\x01"), Some(1));
        assert_eq!(health(b"\0\0\0\0\x05\x12\x01x\x08\x02"), Some(2));
        for bytes in [&b""[..], b"\x01\0\0\0\0", b"\0\0\0\0\x02\x08", b"\0\0\0\0\x01\x08", b"\0\0\0\0\x02\x12\x09"] {
            assert_eq!(health(bytes), None, "{bytes:?}");
        }
        crate::tests::world::broken_forms(b"\0\0\0\0\x05\x12\x01x\x08\x02", |bytes| _ = health(bytes));
    }
}
