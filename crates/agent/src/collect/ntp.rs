//! NTP: how far this host's clock is from a server's, asked as SNTP does (RFC 4330).
//!
//! Why: alarms are judged by the times of points, and a clock that is off puts them into another minute.
//! How: one datagram and its answer; the offset is the mean of the two ways' differences, good to half of the delay.
//! The time that passes is measured by the steady clock, so a clock that is set meanwhile does no harm.
//! Invariants: an answer counts only from the address that was asked, with our own random time in it, of a server that
//! says it is synchronised; one datagram per server and interval is sent, and none is repeated.

use super::Collected;
use model::tags::canonical_string;
use probe::Reading;
use rand::RngExt;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// The time for name and answer; the slowest link of the field needs half of a second.
const TIMEOUT: Duration = Duration::from_secs(5);
const PACKET_BYTES: usize = 48;
/// Version 4, mode 3: a client.
const CLIENT: u8 = 4 << 3 | 3;
const MODE_OF_SERVER: u8 = 4;
/// What leap indicator says of a server that has no time itself.
const NOT_SYNCHRONISED: u8 = 3;
const STRATUM_MAX: u8 = 15;
/// Seconds from 1900, where NTP begins, to 1970.
const UNIX_EPOCH_OF_NTP: f64 = 2_208_988_800.0;
/// Seconds of an era of NTP; the next begins in 2036.
const ERA: f64 = 4_294_967_296.0;

/// Difference of a server's clock from ours.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Difference {
    offset_ms: f64,
    delay_ms: f64,
    stratum: u8,
}

/// Asks all servers at once.
pub async fn collect(servers: &[String]) -> Collected {
    let mut asking = JoinSet::new();
    for server in servers.iter().cloned() {
        asking.spawn(async move {
            let asked = tokio::time::timeout(TIMEOUT, ask(&server)).await;
            let difference = asked.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")));
            (server, difference)
        });
    }
    let mut collected = Collected::default();
    while let Some(Ok((server, difference))) = asking.join_next().await {
        push(server, difference, &mut collected);
    }
    collected
}

fn push(server: String, difference: Result<Difference, String>, collected: &mut Collected) {
    let tags = canonical_string(&format!("server={server}"));
    let is_up = f64::from(u8::from(difference.is_ok()));
    collected.readings.push(Reading::gauge("ntp.up", &tags, is_up));
    match difference {
        Ok(difference) => collected.readings.extend([
            Reading::gauge("ntp.offset_ms", &tags, difference.offset_ms),
            Reading::gauge("ntp.delay_ms", &tags, difference.delay_ms),
            Reading::gauge("ntp.stratum", &tags, f64::from(difference.stratum)),
        ]),
        Err(why) => collected.fail(server, why),
    }
}

async fn ask(server: &str) -> Result<Difference, String> {
    let said = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let address: SocketAddr =
        tokio::net::lookup_host(server).await.map_err(said("cannot resolve"))?.next().ok_or("it has no address")?;
    let own: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(own).await.map_err(said("cannot open a socket"))?;
    socket.connect(address).await.map_err(said("cannot connect"))?;

    let mark: u64 = rand::rng().random();
    let mut packet = [0; PACKET_BYTES];
    packet[0] = CLIENT;
    packet[40..].copy_from_slice(&mark.to_be_bytes());
    let (asked_at, started) = (unix_seconds(), Instant::now());
    socket.send(&packet).await.map_err(said("cannot ask"))?;
    loop {
        let mut answer = [0; PACKET_BYTES];
        let length = socket.recv(&mut answer).await.map_err(said("no answer"))?;
        let passed = started.elapsed().as_secs_f64();
        // A datagram of somebody else leaves the right one the rest of the time.
        if length == PACKET_BYTES && answer[24..32] == mark.to_be_bytes() {
            return difference(&answer, asked_at, asked_at + passed);
        }
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Reads an answer to a question that left and came back at these times of ours.
fn difference(answer: &[u8; PACKET_BYTES], left: f64, came: f64) -> Result<Difference, String> {
    let (leap, mode, stratum) = (answer[0] >> 6, answer[0] & 7, answer[1]);
    if mode != MODE_OF_SERVER {
        return Err(format!("it answers in mode {mode}, not as a server"));
    }
    if leap == NOT_SYNCHRONISED || !(1..=STRATUM_MAX).contains(&stratum) {
        return Err("it is not synchronised itself".into());
    }
    let (received, sent) = (time_at(&answer[32..40], left)?, time_at(&answer[40..48], left)?);
    let offset = ((received - left) + (sent - came)) / 2.0;
    let delay = ((came - left) - (sent - received)).max(0.0);
    Ok(Difference { offset_ms: offset * 1000.0, delay_ms: delay * 1000.0, stratum })
}

/// A time of 32 bits of seconds and 32 of their fraction, in Unix seconds; of the era that is nearest to `now`.
fn time_at(bytes: &[u8], now: f64) -> Result<f64, String> {
    let number = bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    if number == 0 {
        return Err("it gives no time".into());
    }
    let seconds = number as f64 / ERA - UNIX_EPOCH_OF_NTP;
    Ok(seconds + ((now - seconds) / ERA).round() * ERA)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::rows;

    fn ntp_time(unix: f64) -> [u8; 8] {
        let seconds = (unix + UNIX_EPOCH_OF_NTP) % ERA;
        ((seconds * ERA) as u64).to_be_bytes()
    }

    fn answer(head: u8, stratum: u8, received: f64, sent: f64) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        (packet[0], packet[1]) = (head, stratum);
        packet[32..40].copy_from_slice(&ntp_time(received));
        packet[40..].copy_from_slice(&ntp_time(sent));
        packet
    }

    fn check(left: f64, received: f64, sent: f64, came: f64, offset_ms: f64, delay_ms: f64) {
        let found = difference(&answer(0x24, 2, received, sent), left, came).expect("a good answer");
        // Times of this size are good to some tenths of a microsecond.
        assert!((found.offset_ms - offset_ms).abs() < 0.01, "{found:?}, want {offset_ms}");
        assert!((found.delay_ms - delay_ms).abs() < 0.01, "{found:?}, want {delay_ms}");
    }

    #[test]
    fn offsets() {
        let now = 1_800_000_000.0;
        check(now, now + 0.010, now + 0.011, now + 0.021, 0.0, 20.0);
        check(now, now + 5.010, now + 5.011, now + 0.021, 5000.0, 20.0);
        check(now, now - 3599.99, now - 3599.99, now + 0.02, -3_600_000.0, 20.0);
        // The era that begins in February 2036, from both sides.
        let era = ERA - UNIX_EPOCH_OF_NTP;
        check(era - 1.0, era + 1.0, era + 1.0, era - 1.0, 2000.0, 0.0);
        check(era + 1.0, era - 1.0, era - 1.0, era + 1.0, -2000.0, 0.0);
    }

    #[test]
    fn answers_of_no_use() {
        let error = |packet| difference(&packet, 1.8e9, 1.8e9).expect_err("of no use");
        assert!(error(answer(0x23, 2, 1.8e9, 1.8e9)).contains("mode 3"));
        assert!(error(answer(0xe4, 2, 1.8e9, 1.8e9)).contains("not synchronised"));
        assert!(error(answer(0x24, 0, 1.8e9, 1.8e9)).contains("not synchronised"));
        assert!(error(answer(0x24, 1, 1.8e9, -UNIX_EPOCH_OF_NTP)).contains("no time"));
    }

    #[tokio::test]
    async fn asks_a_server() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("free port");
        let address = server.local_addr().expect("bound").to_string();
        let answering = async {
            let mut question = [0; 100];
            let (length, client) = server.recv_from(&mut question).await.expect("asked");
            assert_eq!((length, question[0]), (PACKET_BYTES, 0x23));
            let mut packet = answer(0x24, 3, unix_seconds() + 100.0, unix_seconds() + 100.0);
            // A stranger's datagram, without our mark, comes first.
            server.send_to(&packet, client).await.expect("sent");
            packet[24..32].copy_from_slice(&question[40..48]);
            server.send_to(&packet, client).await.expect("sent");
        };
        let servers = [address.clone()];
        let (collected, ()) = tokio::join!(collect(&servers), answering);
        assert!(collected.faults.is_empty(), "{:?}", collected.faults);
        let rows = rows(&collected.readings);
        assert_eq!(rows[0], format!("ntp.up server={address} GAUGE 1"));
        assert_eq!(rows[3], format!("ntp.stratum server={address} GAUGE 3"));
        // A hundred seconds, right within half of the delay and the last digit of such times.
        let (offset_ms, delay_ms) = (collected.readings[1].value, collected.readings[2].value);
        assert!((offset_ms - 100_000.0).abs() <= delay_ms / 2.0 + 0.01, "{rows:?}");
    }

    #[tokio::test]
    async fn nobody_there_is_told() {
        let unused = UdpSocket::bind("127.0.0.1:0").await.expect("free port");
        let address = unused.local_addr().expect("bound").to_string();
        drop(unused);
        let collected = collect(std::slice::from_ref(&address)).await;
        assert_eq!(rows(&collected.readings), [format!("ntp.up server={address} GAUGE 0")]);
        assert_eq!(collected.faults[0].of, address);
    }
}
