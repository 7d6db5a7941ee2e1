//! DNS: whether a server answers a question, how fast, and whether with the right records.
//!
//! How: over UDP, asked again twice within the time limit, for a datagram may be lost; an answer that is cut off is
//! asked for over TCP. What is not the answer to this question (another id, another name) is passed over.
//! Invariants: the question's id is random; only the asked server's datagrams are taken.

pub(crate) mod message;

pub use message::RecordType;

use crate::dial::{Family, addresses, dial, told_of_io};
use crate::fault::{note, short};
use crate::means::Ground;
use crate::outcome::{Code, Phase, Reason};
use crate::pattern;
use crate::place::{Place, host_of};
use crate::trace::Trace;
use message::{Message, question, read};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Port of DNS servers.
const PORT: u16 = 53;
/// Datagrams of one question.
const SENDS_MAX: u32 = 3;
/// Bytes of an answer over UDP; more than the question offers to take, as some servers send more.
const UDP_BYTES_MAX: usize = 4096;
/// Expected records; a set of name servers has up to thirteen.
const EXPECTED_MAX: usize = 32;
/// Bytes of an expected record.
const EXPECTED_BYTES_MAX: usize = 1024;

/// A DNS server, what it is asked, and what it should answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Name that is asked for.
    pub query: String,
    pub record: RecordType,
    /// Code of a good answer, like `NOERROR` or `NXDOMAIN`.
    pub rcode: String,
    /// Records that must all be in the answer, as in a zone file: `10.0.0.1`, `10 mx.example.com`.
    pub records: Vec<String>,
    /// Pattern that one record must match.
    pub pattern: Option<String>,
    pub transport: Transport,
    /// Whether the server is to ask others.
    pub recursion: bool,
    /// Family of the server's address.
    pub family: Family,
}

/// How a question is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP, then TCP where the answer is cut off.
    #[default]
    Auto,
    Udp,
    Tcp,
}

impl Default for Dns {
    fn default() -> Dns {
        Dns {
            query: String::new(),
            record: RecordType::A,
            rcode: "NOERROR".into(),
            records: Vec::new(),
            pattern: None,
            transport: Transport::Auto,
            recursion: true,
            family: Family::Any,
        }
    }
}

/// Codes of answers by their numbers (RFC 1035 §4.1.1, RFC 2136 §2.2).
const RCODES: [&str; 11] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
    "NOTZONE",
];

/// The server of a target: `HOST`, or `HOST:PORT`.
pub(crate) fn server_of(target: &str) -> Result<Place, String> {
    let is_alone = !target.contains(':') || target.parse::<Ipv6Addr>().is_ok() || target.ends_with(']');
    match is_alone {
        true => Ok(Place { host: host_of(target)?, port: PORT }),
        false => Place::parse(target),
    }
}

impl Dns {
    pub(crate) fn check(&self, target: &str, faults: &mut Vec<String>) {
        note(faults, "target", server_of(target));
        note(faults, "query", self.asked());
        if !RCODES.contains(&self.rcode.as_str()) {
            faults.push(format!("rcode is {:?}: give one of {}", short(&self.rcode), RCODES.join(", ")));
        }
        if self.records.len() > EXPECTED_MAX {
            faults.push(format!("records has {}: give at most {EXPECTED_MAX}", self.records.len()));
        }
        if self.records.iter().any(|record| record.is_empty() || record.len() > EXPECTED_BYTES_MAX) {
            faults.push(format!("records has one that is empty or too long: give 1 to {EXPECTED_BYTES_MAX} bytes"));
        }
        if let Some(text) = &self.pattern {
            note(faults, "pattern", pattern::compile(text));
        }
        if self.rcode != RCODES[0] && (!self.records.is_empty() || self.pattern.is_some()) {
            faults
                .push(format!("rcode is {}, which comes without records: give no records and no pattern", self.rcode));
        }
    }

    /// The question's name in its one form; the root is `.`.
    fn asked(&self) -> Result<String, String> {
        if self.query == "." {
            return Ok(String::new());
        }
        // An address is asked for by its name in in-addr.arpa.
        match host_of(&self.query) {
            Ok(name) if name.parse::<Ipv4Addr>().is_err() && !name.contains(':') => Ok(name),
            Ok(name) => Err(format!("{name} is an address: give a name, like 1.0.0.10.in-addr.arpa for a PTR record")),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn run(&self, target: &str, ground: Ground<'_>, trace: &mut Trace) -> Result<(), Reason> {
        let wrong = |error: String| Reason::new(Code::Definition, error);
        let server = server_of(target).map_err(wrong)?;
        let name = self.asked().map_err(wrong)?;
        let mut answer = match self.transport {
            Transport::Tcp => self.ask_tcp(&server, &name, ground, trace).await?,
            _ => self.ask_udp(&server, &name, ground, trace).await?,
        };
        if answer.is_truncated && self.transport == Transport::Auto {
            answer = self.ask_tcp(&server, &name, ground, trace).await?;
        }
        trace.end_phase();
        self.judge(&answer, &name, trace)
    }

    async fn ask_udp(
        &self,
        server: &Place,
        name: &str,
        ground: Ground<'_>,
        trace: &mut Trace,
    ) -> Result<Message, Reason> {
        let address = addresses(&server.host, self.family, ground, trace).await?[0];
        let peer = SocketAddr::new(address, server.port);
        trace.peer = Some(peer);
        trace.enter(Phase::Answer);
        let id = rand::random();
        let asked = question(id, name, self.record, self.recursion);
        let socket = connected(peer).await.map_err(|error| told_of_udp(&error, peer))?;
        let share = trace.left() / SENDS_MAX;
        let mut buffer = [0; UDP_BYTES_MAX];
        // Sent again when a share has passed; the time limit of the run ends this.
        loop {
            socket.send(&asked).await.map_err(|error| told_of_udp(&error, peer))?;
            let answer = timeout(share, self.hear(&socket, &mut buffer, id, name, trace)).await;
            if let Ok(answer) = answer {
                return answer.map_err(|error| told_of_udp(&error, peer));
            }
        }
    }

    /// Takes datagrams until the answer comes.
    async fn hear(
        &self,
        socket: &UdpSocket,
        buffer: &mut [u8],
        id: u16,
        name: &str,
        trace: &mut Trace,
    ) -> io::Result<Message> {
        loop {
            let length = socket.recv(buffer).await?;
            let what = match read(&buffer[..length]) {
                Some(message) if message.is_for(id, name, self.record) => {
                    trace.unmet = None;
                    return Ok(message);
                }
                Some(_) => "an answer to another question",
                None => "what is no DNS message",
            };
            trace.unmet = Some(Reason::new(Code::Protocol, format!("the server sent {what}, and no answer")));
        }
    }

    async fn ask_tcp(
        &self,
        server: &Place,
        name: &str,
        ground: Ground<'_>,
        trace: &mut Trace,
    ) -> Result<Message, Reason> {
        let mut stream = dial(server, self.family, ground, trace).await?;
        trace.enter(Phase::Answer);
        let id = rand::random();
        let asked = question(id, name, self.record, self.recursion);
        let exchanged = async {
            let length = asked.len() as u16;
            stream.write_all(&[&length.to_be_bytes()[..], &asked].concat()).await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        let bytes = exchanged.await.map_err(|error: io::Error| told_of_io(&error, trace, "in phase answer"))?;
        let message = read(&bytes).filter(|message| message.is_for(id, name, self.record));
        message.ok_or_else(|| Reason::new(Code::Protocol, "the server sent what is no answer to the question"))
    }

    fn judge(&self, answer: &Message, name: &str, trace: &mut Trace) -> Result<(), Reason> {
        if answer.is_truncated {
            return Err(Reason::new(Code::Protocol, "the answer is cut off, and transport does not allow TCP"));
        }
        let got = RCODES.get(usize::from(answer.rcode)).copied().unwrap_or("a code without a name");
        if got != self.rcode {
            return Err(Reason::new(Code::Rcode, format!("the server answered {got}, want {}", self.rcode)));
        }
        let records = answer.answers(name, self.record);
        trace.value("probe.dns.records", records.len() as f64);
        if self.rcode != RCODES[0] {
            return Ok(());
        }
        let got = match records.is_empty() {
            true => "there is none".to_string(),
            false => format!("got {}", records.join(", ")),
        };
        let is_there = |wanted: &String| records.iter().any(|record| is_same(self.record, wanted, record));
        if let Some(missing) = self.records.iter().find(|wanted| !is_there(wanted)) {
            return Err(Reason::new(Code::Records, format!("no record {missing}: {got}")));
        }
        if let Some(text) = &self.pattern {
            let pattern = pattern::compile(text).map_err(|error| Reason::new(Code::Definition, error))?;
            if !records.iter().any(|record| pattern.is_match(record)) {
                return Err(Reason::new(Code::Records, format!("no record matches {text:?}: {got}")));
            }
        }
        match records.is_empty() {
            true => Err(Reason::new(
                Code::Records,
                format!("{} has no record of type {}", self.query, self.record.as_str()),
            )),
            false => Ok(()),
        }
    }
}

/// True where a record is the expected one; of names neither case nor a dot at the end matters.
fn is_same(kind: RecordType, wanted: &str, record: &str) -> bool {
    match kind {
        // In a zone file texts stand in quotes, in several pieces where they are long.
        RecordType::Txt | RecordType::Caa => wanted == record || unquoted(wanted) == record,
        RecordType::Aaaa => wanted.parse::<Ipv6Addr>().is_ok_and(|wanted| wanted.to_string() == record),
        _ => wanted.trim_end_matches('.').eq_ignore_ascii_case(record),
    }
}

/// A text without the quotes around its pieces, which are one.
fn unquoted(text: &str) -> String {
    text.replace("\" \"", "").replace('"', "")
}

async fn connected(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(peer).await?;
    Ok(socket)
}

fn told_of_udp(error: &io::Error, peer: SocketAddr) -> Reason {
    let (code, text) = match error.kind() {
        ErrorKind::ConnectionRefused => (Code::Refused, format!("nobody listens on {peer} (UDP)")),
        ErrorKind::HostUnreachable => (Code::Unreachable, format!("the host {peer} cannot be reached")),
        ErrorKind::NetworkUnreachable => (Code::Unreachable, format!("no route to the network of {peer}")),
        _ => (Code::Local, format!("cannot ask {peer}: {error}")),
    };
    Reason::new(code, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_as_in_a_zone_file() {
        let check = |kind, wanted: &str, record: &str, is| assert_eq!(is_same(kind, wanted, record), is, "{wanted}");
        check(RecordType::Aaaa, "2001:db8:0:0:1::1", "2001:db8::1:0:0:1", true);
        check(RecordType::Aaaa, "2001:DB8::1", "2001:db8::1", true);
        check(RecordType::Aaaa, "2001:db8::2", "2001:db8::1", false);
        check(RecordType::Caa, "0 issue \"letsencrypt.org\"", "0 issue letsencrypt.org", true);
        check(RecordType::Txt, "\"hello\" \" world\"", "hello world", true);
        check(RecordType::Txt, "say \"x\"", "say \"x\"", true);
        check(RecordType::Mx, "10 MX.example.com.", "10 mx.example.com", true);
    }

    #[test]
    fn keys_are_checked() {
        let fine = || Dns { query: "a.example".into(), ..Dns::default() };
        let check = |dns: Dns, part: &str| {
            let mut faults = Vec::new();
            dns.check("h", &mut faults);
            assert!(faults.len() == 1 && faults[0].contains(part) && faults[0].contains("give"), "{faults:?}");
        };
        check(Dns { query: String::new(), ..fine() }, "query");
        check(Dns { query: "10.0.0.1".into(), ..fine() }, "in-addr.arpa");
        check(Dns { rcode: "OK".into(), ..fine() }, "rcode");
        check(Dns { records: vec![String::new()], ..fine() }, "records");
        check(Dns { records: vec!["x".into(); 33], ..fine() }, "records has 33");
        check(Dns { pattern: Some("(".into()), ..fine() }, "pattern");
        check(Dns { rcode: "NXDOMAIN".into(), records: vec!["x".into()], ..fine() }, "without records");
    }

    #[test]
    fn servers() {
        let check = |target: &str, expected: &str| {
            assert_eq!(server_of(target).unwrap_or_else(|error| panic!("{error}")).to_string(), expected);
        };
        check("8.8.8.8", "8.8.8.8:53");
        check("ns.example:5353", "ns.example:5353");
        check("2001:db8::1", "[2001:db8::1]:53");
        check("[2001:db8::1]", "[2001:db8::1]:53");
        check("[2001:db8::1]:54", "[2001:db8::1]:54");
    }
}
