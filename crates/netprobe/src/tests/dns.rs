//! DNS: a server of the tests, over UDP and TCP, which answers as it is told to.

use super::world::*;
use crate::Code;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// Answers to a question, or nothing.
type Answer = fn(&[u8]) -> Vec<Vec<u8>>;

/// A server on one port of UDP and TCP.
async fn server(over_udp: Answer, over_tcp: Answer) -> SocketAddr {
    // The free port of one protocol may be taken in the other.
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("bound")).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut asked = [0; 512];
        while let Ok((length, peer)) = udp.recv_from(&mut asked).await {
            for answer in over_udp(&asked[..length]) {
                let _ = udp.send_to(&answer, peer).await;
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let length = stream.read_u16().await.unwrap_or(0);
            let mut asked = vec![0; usize::from(length)];
            if stream.read_exact(&mut asked).await.is_ok() {
                for answer in over_tcp(&asked) {
                    let _ = stream.write_all(&(answer.len() as u16).to_be_bytes()).await;
                    let _ = stream.write_all(&answer).await;
                }
            }
        }
    });
    address
}

/// The question turned into an answer with flags and records; each begins with a pointer or a name.
fn answer(asked: &[u8], flags: [u8; 2], records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = asked[..asked.len() - 11].to_vec();
    bytes[2..4].copy_from_slice(&flags);
    bytes[6..12].copy_from_slice(&[0, records.len() as u8, 0, 0, 0, 0]);
    bytes.extend(records.concat());
    bytes
}

const GOOD: [u8; 2] = [0x81, 0x80];
/// `10.0.0.1` for the name of the question.
const A: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01";
/// The name of the question is another name of `x.y`.
const ALIAS: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x05\x01x\x01y\0";
/// `10.0.0.2` for `x.y`.
const A_OF_ALIAS: &[u8] = b"\x01x\x01y\0\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x02";

fn nothing(_: &[u8]) -> Vec<Vec<u8>> {
    Vec::new()
}

fn good(asked: &[u8]) -> Vec<Vec<u8>> {
    vec![answer(asked, GOOD, &[A])]
}

fn query(more: Value) -> Value {
    let mut keys = json!({"query": "shop.example", "timeout_ms": 20_000});
    keys.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    keys
}

#[tokio::test]
async fn a_good_answer() {
    let address = server(good, good).await;
    for transport in ["auto", "udp", "tcp"] {
        let more = query(json!({"transport": transport, "records": ["10.0.0.1"], "pattern": "^10\\."}));
        let outcome = up("dns", address, more).await;
        assert_eq!(value(&outcome, "probe.dns.records"), Some(1.0));
        assert!(value(&outcome, "probe.dns.answer_ms").is_some_and(|ms| ms > 0.0), "{transport}");
        assert_eq!(outcome.readings[0].tags, format!("target={address}"));
    }
}

#[tokio::test]
async fn records_that_are_not_as_expected() {
    let address = server(good, nothing).await;
    let check = async |more: Value, code: Code, part: &str| {
        down("dns", address, query(more), code, part).await;
    };
    check(json!({"records": ["10.0.0.1", "10.0.0.9"]}), Code::Records, "no record 10.0.0.9: got 10.0.0.1").await;
    check(json!({"pattern": "^192"}), Code::Records, "no record matches \"^192\": got 10.0.0.1").await;
    check(json!({"record": "MX"}), Code::Records, "shop.example has no record of type MX").await;
    check(json!({"rcode": "NXDOMAIN"}), Code::Rcode, "answered NOERROR, want NXDOMAIN").await;
    let unknown = server(|asked| vec![answer(asked, [0x81, 0x83], &[])], nothing).await;
    down("dns", unknown, query(json!({})), Code::Rcode, "answered NXDOMAIN, want NOERROR").await;
    up("dns", unknown, query(json!({"rcode": "NXDOMAIN"}))).await;
    let broken = server(|asked| vec![answer(asked, [0x81, 0x82], &[])], nothing).await;
    down("dns", broken, query(json!({})), Code::Rcode, "SERVFAIL").await;
    let empty = server(|asked| vec![answer(asked, GOOD, &[])], nothing).await;
    down("dns", empty, query(json!({"records": ["10.0.0.1"]})), Code::Records, "no record 10.0.0.1: there is none")
        .await;
}

#[tokio::test]
async fn chains_of_names() {
    let address = server(|asked| vec![answer(asked, GOOD, &[ALIAS, A_OF_ALIAS])], nothing).await;
    up("dns", address, query(json!({"records": ["10.0.0.2"]}))).await;
    up("dns", address, query(json!({"record": "CNAME", "records": ["X.Y."]}))).await;
    let open = server(|asked| vec![answer(asked, GOOD, &[ALIAS])], nothing).await;
    down("dns", open, query(json!({})), Code::Records, "has no record of type A").await;
}

#[tokio::test]
async fn answers_that_are_cut_off_are_asked_for_over_tcp() {
    let cut: Answer = |asked| vec![answer(asked, [0x83, 0x80], &[])];
    let address = server(cut, good).await;
    up("dns", address, query(json!({}))).await;
    down("dns", address, query(json!({"transport": "udp"})), Code::Protocol, "is cut off").await;
    let without = server(cut, nothing).await;
    down("dns", without, query(json!({})), Code::Closed, "in phase answer").await;
}

/// Each of these comes before the answer, and alone.
#[tokio::test]
async fn what_is_no_answer_is_passed_over() {
    fn other_id(asked: &[u8]) -> Vec<u8> {
        let mut bytes = answer(asked, GOOD, &[A]);
        bytes[0] ^= 1;
        bytes
    }
    fn other_name(asked: &[u8]) -> Vec<u8> {
        let mut bytes = answer(asked, GOOD, &[A]);
        bytes[13] ^= 1;
        bytes
    }
    let followed: Answer =
        |asked| vec![vec![], vec![1, 2, 3], other_id(asked), other_name(asked), answer(asked, GOOD, &[A])];
    up("dns", server(followed, nothing).await, query(json!({}))).await;
    let late = query(json!({"timeout_ms": 500}));
    let alone: Answer = |asked| vec![other_id(asked)];
    let text = "the server sent an answer to another question, and no answer, within 500 ms";
    down("dns", server(alone, nothing).await, late.clone(), Code::Protocol, text).await;
    let noise: Answer = |_| vec![vec![0; 5]];
    down("dns", server(noise, nothing).await, late.clone(), Code::Protocol, "what is no DNS message").await;
    down("dns", server(nothing, nothing).await, late, Code::Timeout, "in phase answer").await;
    let wrong = server(nothing, |asked| vec![other_id(asked)]).await;
    down("dns", wrong, query(json!({"transport": "tcp"})), Code::Protocol, "no answer to the question").await;
}

#[tokio::test]
async fn servers_that_are_not_there() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    down("dns", nobody, query(json!({})), Code::Refused, "nobody listens on 127.0.0.1:").await;
    down("dns", nobody, query(json!({"transport": "tcp"})), Code::Refused, "connection refused by").await;
}

/// The first datagram is lost; the question comes again.
#[tokio::test]
async fn a_lost_datagram_costs_time_only() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let forgets: Answer = |asked| if ASKED.fetch_add(1, Ordering::Relaxed) == 0 { vec![] } else { good(asked) };
    up("dns", server(forgets, nothing).await, query(json!({"timeout_ms": 600}))).await;
    assert!(ASKED.load(Ordering::Relaxed) >= 2);
}
