//! Peer: the points of the fleet in the protocols of other systems, so that all are measured with one load (`make
//! bench`).
//!
//! How: to VictoriaMetrics as OpenTSDB's `put` lines over TCP, to Prometheus as remote write 1.0 (protobuf in a snappy
//! block) over HTTP/1.1 with a connection kept. The metric's name is the series' name with `_` for characters that
//! their names must not have, the endpoint is the label `host`, tags are labels. Only host, value and time of a series
//! change; the rest is encoded once.
//! Why `put` and not Influx lines: among VictoriaMetrics' protocols `put` costs that server least (1.5 µs per point,
//! where Influx lines cost 1.7 in requests of 2,000 points and 2.5 in requests of 200), and a comparison shall be with
//! its best. `put` has no answer: whoever measures asks the server afterwards how many rows it took in.
//! Invariants: a request holds one group of one host. An HTTP answer whose length is not told is an error.
//! Memory: per connection one request, plain and compressed (some 60 kB for 200 series).

use super::fleet::{Fleet, HostRound};
use super::labels::push_label;
use anyhow::{Context, Result, bail};
use stdx::varint;
use wire::json::{push_integer, push_number};
use wire::protobuf::{field_begin, field_bytes, field_double, field_number};

/// Bytes of an answer; error texts of both systems are shorter.
const ANSWER_MAX: usize = 64 << 10;

/// Protocol of another system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerProtocol {
    Telnet,
    RemoteWrite,
}

/// Another system, to which requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    door: PeerProtocol,
    /// Host and port of the system.
    pub address: String,
    path: String,
}

impl Peer {
    /// A VictoriaMetrics, by the address of its `-opentsdbListenAddr`.
    pub fn victoria(address: &str) -> Result<Peer> {
        if address.is_empty() || address.contains('/') {
            bail!("--victoria {address:?}: want host:port, that of its -opentsdbListenAddr");
        }
        Ok(Peer { door: PeerProtocol::Telnet, address: address.to_string(), path: String::new() })
    }

    /// A system that takes remote write, by its whole URL.
    pub fn remote_write(url: &str) -> Result<Peer> {
        let split = url.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        let Some((address, path)) = split.filter(|(address, _)| !address.is_empty()) else {
            bail!("--remote-write {url:?}: want http://host:port/path, such as http://127.0.0.1:9090/api/v1/write");
        };
        Ok(Peer { door: PeerProtocol::RemoteWrite, address: address.to_string(), path: format!("/{path}") })
    }
}

/// The buffers of one connection.
pub struct PeerSpeech {
    peer: Peer,
    body: Vec<u8>,
    /// The block that remote write sends, made of `body`.
    compressed: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl PeerSpeech {
    /// Buffers for a connection to `peer`.
    pub fn new(peer: &Peer) -> PeerSpeech {
        PeerSpeech { peer: peer.clone(), body: Vec::new(), compressed: Vec::new(), encoder: snap::raw::Encoder::new() }
    }

    /// True when the system answers requests.
    pub fn is_answered(&self) -> bool {
        self.peer.door == PeerProtocol::RemoteWrite
    }

    /// Appends a request without points, which the right kind of server takes.
    pub fn hello(&mut self, out: &mut Vec<u8>) {
        if self.peer.door == PeerProtocol::RemoteWrite {
            self.body.clear();
            self.post(out);
        }
    }

    /// Appends the request for one group of series of a host.
    pub fn request(&mut self, fleet: &Fleet, host: &HostRound, group: usize, out: &mut Vec<u8>) {
        if self.peer.door == PeerProtocol::Telnet {
            return put_lines(fleet, host, group, out);
        }
        self.body.clear();
        write_request(fleet, host, group, &mut self.body);
        self.post(out);
    }

    fn post(&mut self, out: &mut Vec<u8>) {
        self.compressed.resize(snap::raw::max_compress_len(self.body.len()), 0);
        // Compressing fails only when the input is too long for a block (4 GiB) or for its room.
        let length = self.encoder.compress(&self.body, &mut self.compressed).expect("room for one group");
        let Peer { address, path, .. } = &self.peer;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {length}\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&self.compressed[..length]);
    }
}

fn put_lines(fleet: &Fleet, host: &HostRound, group: usize, out: &mut Vec<u8>) {
    fleet.each_point(host, group, |texts, value| {
        out.extend_from_slice(&texts.put.0);
        push_integer(out, host.timestamp());
        out.push(b' ');
        push_number(out, value);
        out.extend_from_slice(&texts.put.1);
        out.extend_from_slice(host.endpoint().as_bytes());
        out.push(b'\n');
    });
}

/// Appends a `WriteRequest`: a `TimeSeries` with one sample for each series.
fn write_request(fleet: &Fleet, host: &HostRound, group: usize, out: &mut Vec<u8>) {
    let (mut host_label, mut sample) = (Vec::new(), Vec::new());
    push_label(&mut host_label, "host", host.endpoint());
    fleet.each_point(host, group, |texts, value| {
        sample.clear();
        field_double(&mut sample, 1, value);
        field_number(&mut sample, 2, host.timestamp() as u64 * 1000);
        // The sample is shorter than 128 bytes: its own key and length are a byte each.
        let labels = [&texts.labels.0, &host_label, &texts.labels.1];
        field_begin(out, 1, labels.iter().map(|bytes| bytes.len()).sum::<usize>() + sample.len() + 2);
        labels.iter().for_each(|bytes| out.extend_from_slice(bytes));
        field_bytes(out, 2, &sample);
    });
    debug_assert!(sample.len() <= 2 * (1 + varint::BYTES_MAX));
}

/// An answer of an HTTP server.
#[derive(Debug, PartialEq)]
pub struct HttpAnswer {
    pub status: u16,
    pub text: String,
}

impl HttpAnswer {
    /// Whether the status says that the request was taken.
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Takes an answer off the front of `input`: where the answer ends, and its content; `None` while it is not whole.
pub fn take_answer(input: &[u8]) -> Result<Option<(usize, HttpAnswer)>> {
    let Some(head_end) = input.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
        if input.len() > ANSWER_MAX {
            bail!("answer is not HTTP: its head has more than {ANSWER_MAX} bytes");
        }
        return Ok(None);
    };
    let head = std::str::from_utf8(&input[..head_end]).context("answer is not HTTP: its head is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|line| line.get(..3));
    let status: u16 = status.and_then(|digits| digits.parse().ok()).context("answer is not HTTP/1.1")?;
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("Content-Length"));
    let length = match length {
        Some((_, value)) => value.trim().parse().context("answer is not HTTP: bad Content-Length")?,
        // "No content" has no length, and needs none.
        None if status == 204 => 0,
        None => bail!("answered {status} without saying how long its text is"),
    };
    if length > ANSWER_MAX {
        bail!("answered {status} with a text of {length} bytes; want at most {ANSWER_MAX}");
    }
    let Some(body) = input.get(head_end..head_end + length) else { return Ok(None) };
    Ok(Some((head_end + length, HttpAnswer { status, text: String::from_utf8_lossy(body).trim().to_string() })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loadgen::labels::legal_name;
    use stdx::varint::take_u64;

    fn fleet() -> Fleet {
        Fleet::new("h-", 7, 300, 60, 1_600_000_000, 1).in_batches_of(500)
    }

    #[test]
    fn addresses() {
        assert_eq!(Peer::victoria("127.0.0.1:4242").expect("good").address, "127.0.0.1:4242");
        assert!(Peer::victoria("http://127.0.0.1:4242").is_err());
        let peer = Peer::remote_write("http://h:9090/api/v1/write").expect("good");
        assert_eq!((peer.address.as_str(), peer.path.as_str()), ("h:9090", "/api/v1/write"));
        assert!(Peer::remote_write("h:9090/api/v1/write").is_err());
        assert!(Peer::remote_write("http://h:9090").is_err());
    }

    /// Names stay apart when their dots are gone; every series has its line, and the value that the mix says.
    #[test]
    fn lines_hold_every_series() {
        let (fleet, mut out) = (fleet(), Vec::new());
        let host = fleet.moment(3, 2);
        PeerSpeech::new(&Peer::victoria("h:1").expect("good")).request(&fleet, &host, 0, &mut out);
        let text = String::from_utf8(out).expect("text");
        let mut names = std::collections::BTreeSet::new();
        for ((_, series), line) in fleet.counters(0).zip(text.lines()) {
            let words: Vec<&str> = line.split(' ').collect();
            let value: f64 = words[3].parse().expect("a number");
            assert_eq!((words[0], words[2], value), ("put", "1600000145", fleet.value(3, 2, series)));
            assert_eq!(words.last(), Some(&"host=h-00003"));
            names.insert([&words[1..2], &words[4..]].concat().join(" "));
        }
        assert_eq!((text.lines().count(), names.len()), (300, 300));
        assert!(names.contains("cpu_idle host=h-00003") && names.contains("net_if_in_bytes iface=eth0 host=h-00003"));
    }

    /// The bytes of a field of wire type 2 with this number.
    fn take_field<'a>(input: &mut &'a [u8], number: u64) -> Option<&'a [u8]> {
        let mut rest = *input;
        if take_u64(&mut rest)? != number << 3 | 2 {
            return None;
        }
        let length = take_u64(&mut rest)? as usize;
        let (bytes, rest) = rest.split_at_checked(length)?;
        *input = rest;
        Some(bytes)
    }

    /// Read as a receiver of remote write reads it: labels in order, one sample, milliseconds.
    #[test]
    fn remote_write_is_what_a_receiver_reads() {
        let (fleet, mut out) = (fleet(), Vec::new());
        let peer = Peer::remote_write("http://h:1/w").expect("good");
        let mut speech = PeerSpeech::new(&peer);
        speech.request(&fleet, &fleet.moment(3, 2), 0, &mut out);
        let start = out.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&out[..start]).into_owned();
        assert!(head.starts_with("POST /w HTTP/1.1\r\nHost: h:1\r\n") && head.contains("Content-Encoding: snappy"));
        assert!(head.contains(&format!("Content-Length: {}\r\n", out.len() - start)), "{head}");
        let message = snap::raw::Decoder::new().decompress_vec(&out[start..]).expect("a snappy block");
        let mut input = message.as_slice();
        for (_, series) in fleet.counters(0) {
            let mut one = take_field(&mut input, 1).expect("a series");
            let mut labels: Vec<(String, String)> = Vec::new();
            while let Some(mut label) = take_field(&mut one, 1) {
                let mut text =
                    |number| String::from_utf8_lossy(take_field(&mut label, number).expect("set")).into_owned();
                labels.push((text(1), text(2)));
            }
            assert!(labels.is_sorted() && labels.contains(&("host".into(), "h-00003".into())), "{labels:?}");
            assert!(labels.contains(&("__name__".into(), legal_name(&series.metric))), "{labels:?}");
            let mut sample = take_field(&mut one, 2).expect("a sample");
            assert_eq!((one.len(), sample[0]), (0, 9));
            assert_eq!(sample[1..9], fleet.value(3, 2, series).to_le_bytes());
            sample = &sample[9..];
            assert_eq!((take_u64(&mut sample), take_u64(&mut sample)), (Some(2 << 3), Some(1_600_000_145_000)));
        }
        assert!(input.is_empty());
    }

    #[test]
    fn answers() {
        let whole = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\nout of order\nHTTP";
        let answer = HttpAnswer { status: 400, text: "out of order".into() };
        assert_eq!(take_answer(whole).expect("HTTP"), Some((60, answer)));
        assert_eq!(take_answer(&whole[..59]).expect("HTTP"), None);
        assert_eq!(take_answer(&whole[..30]).expect("HTTP"), None);
        let empty = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert!(take_answer(empty).expect("HTTP").is_some_and(|(end, answer)| end == empty.len() && answer.is_good()));
        for bad in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert!(take_answer(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(take_answer(&[b'x'; ANSWER_MAX + 1]).is_err());
    }
}
