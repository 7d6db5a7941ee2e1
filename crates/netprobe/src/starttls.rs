//! STARTTLS: asking in plain text for TLS, as mail servers, directories and databases want it.
//!
//! How: a short dialogue per protocol, from its standard: SMTP (RFC 3207), IMAP and POP3 (RFC 2595), FTP (RFC 4217),
//! LDAP (RFC 4511 §4.14), PostgreSQL (its protocol's SSLRequest).
//! Invariants: what comes in plain text behind the answer is refused, for it would be read as if it had come over TLS.

use crate::dial::{closed, told_of_io};
use crate::lines::{Heard, Lines};
use crate::outcome::{Code, Phase, Reason};
use crate::trace::Trace;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Protocol in which TLS is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartTls {
    Smtp,
    Imap,
    Pop3,
    Ftp,
    Ldap,
    Postgres,
}

/// The request of LDAP: message 1, extended request 1.3.6.1.4.1.1466.20037.
const LDAP_REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
/// The request of PostgreSQL: its length, and the number that stands for TLS.
const POSTGRES_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Bytes of LDAP's answer, which may name a matched entry and a text.
const LDAP_ANSWER_MAX: usize = 1024;

/// Asks for TLS; afterwards the handshake may begin.
pub(crate) async fn ask(stream: &mut TcpStream, protocol: StartTls, trace: &mut Trace) -> Result<(), Reason> {
    trace.enter(Phase::StartTls);
    match protocol {
        StartTls::Smtp => {
            let mut talk = Talk::new(stream, trace);
            talk.expect("220").await?;
            talk.say("EHLO hawkeye-probe\r\n").await?;
            talk.expect("250").await?;
            talk.say("STARTTLS\r\n").await?;
            talk.expect("220").await?;
            talk.end()
        }
        StartTls::Imap => {
            let mut talk = Talk::new(stream, trace);
            talk.expect("* OK").await?;
            talk.say("a STARTTLS\r\n").await?;
            talk.expect("a OK").await?;
            talk.end()
        }
        StartTls::Pop3 => {
            let mut talk = Talk::new(stream, trace);
            talk.expect("+OK").await?;
            talk.say("STLS\r\n").await?;
            talk.expect("+OK").await?;
            talk.end()
        }
        StartTls::Ftp => {
            let mut talk = Talk::new(stream, trace);
            talk.expect("220").await?;
            talk.say("AUTH TLS\r\n").await?;
            talk.expect("234").await?;
            talk.end()
        }
        StartTls::Ldap => ldap(stream, trace).await,
        StartTls::Postgres => postgres(stream, trace).await,
    }
}

/// A dialogue in lines.
struct Talk<'a> {
    stream: &'a mut TcpStream,
    trace: &'a Trace,
    lines: Lines,
}

impl Talk<'_> {
    fn new<'a>(stream: &'a mut TcpStream, trace: &'a Trace) -> Talk<'a> {
        Talk { stream, trace, lines: Lines::default() }
    }

    async fn say(&mut self, text: &str) -> Result<(), Reason> {
        write(self.stream, text.as_bytes(), self.trace).await
    }

    /// Reads a reply that is to begin with `start`. Of SMTP and FTP it may have several lines, which a `-` behind the
    /// number announces; IMAP sends lines with `*` before its own.
    async fn expect(&mut self, start: &str) -> Result<(), Reason> {
        loop {
            let heard = self.lines.next(self.stream).await;
            let line = match heard.map_err(|error| told_of_io(&error, self.trace, "in phase starttls"))? {
                Heard::Line(line) => line,
                Heard::Part(_) => continue,
                Heard::Closed => return Err(closed(self.trace, "in phase starttls")),
                Heard::TooLong => {
                    return Err(Reason::new(Code::TooLong, format!("{} talks on before TLS", self.trace.who())));
                }
            };
            let is_continued = line.as_bytes().get(3) == Some(&b'-') && line.starts_with(|c: char| c.is_ascii_digit());
            let is_aside = start == "a OK" && line.starts_with("* ");
            match line.starts_with(start) {
                true if !is_continued => return Ok(()),
                false if !is_aside => return Err(refused(&line, start)),
                _ => {}
            }
        }
    }

    fn end(self) -> Result<(), Reason> {
        match self.lines.is_empty() {
            true => Ok(()),
            false => Err(Reason::new(Code::StartTls, "the server has said more in plain text after it agreed to TLS")),
        }
    }
}

fn refused(said: &str, wanted: &str) -> Reason {
    Reason::new(Code::StartTls, format!("the server said {said:?}, want {wanted:?}: no STARTTLS"))
}

async fn write(stream: &mut TcpStream, bytes: &[u8], trace: &Trace) -> Result<(), Reason> {
    stream.write_all(bytes).await.map_err(|error| told_of_io(&error, trace, "in phase starttls"))
}

async fn ldap(stream: &mut TcpStream, trace: &Trace) -> Result<(), Reason> {
    write(stream, LDAP_REQUEST, trace).await?;
    let read = |error| told_of_io(&error, trace, "in phase starttls");
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.map_err(read)?;
    let length = match head {
        // One byte with the length, or one or two that follow.
        [0x30, length @ ..=0x7f] => usize::from(length),
        [0x30, 0x81] => usize::from(stream.read_u8().await.map_err(read)?),
        [0x30, 0x82] => usize::from(stream.read_u16().await.map_err(read)?),
        _ => return Err(Reason::new(Code::Protocol, format!("{} speaks no LDAP", trace.who()))),
    };
    if length > LDAP_ANSWER_MAX {
        return Err(Reason::new(Code::TooLong, format!("an LDAP answer of {length} bytes from {}", trace.who())));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await.map_err(read)?;
    match ldap_result(&answer) {
        Some(0) => Ok(()),
        Some(code) => Err(Reason::new(Code::StartTls, format!("the server refuses STARTTLS with LDAP result {code}"))),
        None => Err(Reason::new(Code::Protocol, format!("{} speaks no LDAP", trace.who()))),
    }
}

/// Result code in the answer to message 1: an extended response (`0x78`) that begins with an enumerated value.
pub(crate) fn ldap_result(answer: &[u8]) -> Option<u8> {
    let rest = answer.strip_prefix(&[2, 1, 1, 0x78])?;
    let (length, rest) = rest.split_first()?;
    let long = usize::from(length.saturating_sub(0x80));
    match rest.get(if *length > 0x80 { long } else { 0 }..)? {
        [0x0a, 1, code, ..] => Some(*code),
        _ => None,
    }
}

async fn postgres(stream: &mut TcpStream, trace: &Trace) -> Result<(), Reason> {
    write(stream, &POSTGRES_REQUEST, trace).await?;
    match stream.read_u8().await.map_err(|error| told_of_io(&error, trace, "in phase starttls"))? {
        b'S' => Ok(()),
        b'N' => Err(Reason::new(Code::StartTls, "the server has no TLS configured")),
        _ => Err(Reason::new(Code::Protocol, format!("{} speaks no PostgreSQL", trace.who()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldap_results() {
        assert_eq!(ldap_result(b"\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"), Some(0));
        assert_eq!(ldap_result(b"\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x34\x04\x00\x04\x00"), Some(52));
        for bytes in [&b""[..], b"\x02\x01\x01\x78", b"\x02\x01\x01\x78\xff", b"\x02\x01\x02\x78\x07\x0a\x01\x00"] {
            assert_eq!(ldap_result(bytes), None, "{bytes:?}");
        }
        let long = b"\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x34\x04\x00\x04\x00";
        crate::tests::world::broken_forms(long, |bytes| _ = ldap_result(bytes));
    }
}
