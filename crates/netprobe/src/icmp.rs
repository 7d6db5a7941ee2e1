//! ICMP: how many echo requests are answered, and how fast.
//!
//! How: the kernel's unprivileged socket first, which `net.ipv4.ping_group_range` opens to groups, then a raw one,
//! which needs CAP_NET_RAW. The socket is connected, so the kernel hands over what comes from the target only. Requests
//! go out at a fixed pace, and replies are taken meanwhile; after the last one, they may come until the time limit.
//! Invariants: a reply counts once, and only with the run's own random token.

pub(crate) mod packet;

use crate::dial::{Family, addresses};
use crate::means::Ground;
use crate::outcome::{Code, Phase, Reason};
use crate::place::host_of;
use crate::trace::Trace;
use packet::{TOKEN, reply, request};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::time::{sleep_until, timeout};

/// Requests of a run: more do not fit between two runs at a usual pace.
const COUNT_MAX: u16 = 100;
/// Milliseconds between two requests at least: faster is a flood.
const PACE_MIN_MS: u32 = 10;
/// Payload of a request: what fits a usual frame of 1500 bytes, less the headers of IPv6 and ICMP.
const SIZE_MAX: u16 = 1452;
/// Bytes that are received: a reply with the header of IP.
const RECEIVED_MAX: usize = 2048;

/// A host that answers echo requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Icmp {
    pub family: Family,
    /// Requests of a run, 1 to 100.
    pub count: u16,
    /// Milliseconds between two requests, from 10 on.
    pub pace_ms: u32,
    /// Bytes behind the head of a request, 8 to 1452.
    pub size: u16,
    /// Percent of the requests that may be lost, 0 to 99; where all are lost the host is down.
    pub loss_percent_max: u8,
}

impl Default for Icmp {
    fn default() -> Icmp {
        Icmp { family: Family::Any, count: 3, pace_ms: 200, size: 56, loss_percent_max: 99 }
    }
}

impl Icmp {
    pub(crate) fn check(&self, target: &str, faults: &mut Vec<String>) {
        crate::fault::note(faults, "target", host_of(target));
        if !(1..=COUNT_MAX).contains(&self.count) {
            faults.push(format!("count is {}: give 1 to {COUNT_MAX}", self.count));
        }
        if !(PACE_MIN_MS..=60_000).contains(&self.pace_ms) {
            faults.push(format!("pace_ms is {}: give {PACE_MIN_MS} to 60000", self.pace_ms));
        }
        if !(TOKEN as u16..=SIZE_MAX).contains(&self.size) {
            faults.push(format!("size is {}: give {TOKEN} to {SIZE_MAX}", self.size));
        }
        if self.loss_percent_max > 99 {
            faults.push(format!("loss_percent_max is {}: give 0 to 99", self.loss_percent_max));
        }
    }

    /// Time from the first request to the last.
    pub(crate) fn span(&self) -> Duration {
        Duration::from_millis(u64::from(self.pace_ms)) * u32::from(self.count.saturating_sub(1))
    }

    pub(crate) async fn run(&self, target: &str, ground: Ground<'_>, trace: &mut Trace) -> Result<(), Reason> {
        let host = host_of(target).map_err(|error| Reason::new(Code::Definition, error))?;
        let address = addresses(&host, self.family, ground, trace).await?[0];
        trace.enter(Phase::Ping);
        let socket = open(address).map_err(|error| told_of_socket(&error, address))?;
        let mut flight = Flight::new(address.is_ipv6(), self.count);
        let window = trace.left().saturating_sub(LAST_WORDS);
        let flown = timeout(window, flight.fly(&socket, self)).await;
        flight.tell(trace);
        trace.end_phase();
        if let Ok(Err(error)) = flown {
            return Err(told_of_flight(&error, address));
        }
        self.judge(&flight, address, window)
    }

    fn judge(&self, flight: &Flight, address: IpAddr, window: Duration) -> Result<(), Reason> {
        let (sent, lost) = (flight.sent.len(), flight.sent.len() - flight.times_ms.len());
        let loss = flight.loss_percent();
        if lost < sent && loss <= f64::from(self.loss_percent_max) {
            return Ok(());
        }
        let text = match lost == sent {
            true => format!("no reply of {address} to {sent} echo requests within {} ms", window.as_millis()),
            false => format!(
                "{lost} of {sent} echo requests to {address} are lost, want at most {} %",
                self.loss_percent_max
            ),
        };
        Err(Reason::new(Code::Loss, text))
    }
}

/// Time before the limit at which replies are no longer waited for, so that the run itself can say what came.
const LAST_WORDS: Duration = Duration::from_millis(5);

/// Requests on their way, and what came back.
struct Flight {
    is_v6: bool,
    token: [u8; TOKEN],
    count: u16,
    /// When each request was sent, by its sequence number; `None` where its reply has come.
    sent: Vec<Option<Instant>>,
    times_ms: Vec<f64>,
}

impl Flight {
    fn new(is_v6: bool, count: u16) -> Flight {
        Flight { is_v6, token: rand::random(), count, sent: Vec::new(), times_ms: Vec::new() }
    }

    /// Sends all, and returns when all have been answered.
    async fn fly(&mut self, socket: &UdpSocket, icmp: &Icmp) -> io::Result<()> {
        let begun = tokio::time::Instant::now();
        let pace = Duration::from_millis(u64::from(icmp.pace_ms));
        let mut buffer = [0; RECEIVED_MAX];
        loop {
            let next = self.sent.len() as u32;
            if next < u32::from(self.count) {
                tokio::select! {
                    _ = sleep_until(begun + pace * next) => self.send(socket, icmp).await?,
                    received = socket.recv(&mut buffer) => self.take(received, &buffer)?,
                }
            } else if self.times_ms.len() < self.sent.len() {
                let received = socket.recv(&mut buffer).await;
                self.take(received, &buffer)?;
            } else {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, socket: &UdpSocket, icmp: &Icmp) -> io::Result<()> {
        let sequence = self.sent.len() as u16;
        let packet = request(self.is_v6, sequence, self.token, usize::from(icmp.size));
        self.sent.push(Some(Instant::now()));
        match socket.send(&packet).await {
            // A queue that is full now is a lost request, as on any hop.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => Ok(()),
            // An error that an earlier request was answered with.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            sent => sent.map(|_| ()),
        }
    }

    fn take(&mut self, received: io::Result<usize>, buffer: &[u8]) -> io::Result<()> {
        let length = match received {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(()),
            Err(error) => return Err(error),
        };
        let sequence = reply(self.is_v6, &buffer[..length], self.token);
        let sent = sequence.and_then(|sequence| self.sent.get_mut(usize::from(sequence))).and_then(Option::take);
        self.times_ms.extend(sent.map(|sent| sent.elapsed().as_secs_f64() * 1000.0));
        Ok(())
    }

    fn loss_percent(&self) -> f64 {
        match self.sent.len() {
            0 => 100.0,
            sent => (sent - self.times_ms.len()) as f64 * 100.0 / sent as f64,
        }
    }

    /// Notes loss, times, and jitter: the mean difference between one time and the next.
    fn tell(&self, trace: &mut Trace) {
        trace.value("probe.icmp.loss_percent", self.loss_percent());
        let times = &self.times_ms;
        if times.is_empty() {
            return;
        }
        let mean = |sum: f64, count: usize| sum / count.max(1) as f64;
        trace.value("probe.icmp.min_ms", times.iter().copied().fold(f64::INFINITY, f64::min));
        trace.value("probe.icmp.avg_ms", mean(times.iter().sum(), times.len()));
        trace.value("probe.icmp.max_ms", times.iter().copied().fold(0.0, f64::max));
        let steps = times.windows(2).map(|pair| (pair[1] - pair[0]).abs());
        trace.value("probe.icmp.jitter_ms", mean(steps.sum(), times.len() - 1));
    }
}

/// A socket for echo requests to one address.
fn open(address: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).or_else(|error| match error.kind() {
        ErrorKind::PermissionDenied => Socket::new(domain, Type::RAW, Some(protocol)),
        _ => Err(error),
    })?;
    socket.set_nonblocking(true)?;
    socket.connect(&SocketAddr::new(address, 0).into())?;
    // What sends and receives datagrams is the same for both types of socket.
    UdpSocket::from_std(socket.into())
}

fn told_of_socket(error: &io::Error, address: IpAddr) -> Reason {
    match error.kind() {
        ErrorKind::PermissionDenied => Reason::new(
            Code::Local,
            "this host does not let the prober send echo requests: \
             give its group to net.ipv4.ping_group_range, or CAP_NET_RAW to the program",
        ),
        _ => told_of_flight(error, address),
    }
}

fn told_of_flight(error: &io::Error, address: IpAddr) -> Reason {
    match error.kind() {
        ErrorKind::HostUnreachable => Reason::new(Code::Unreachable, format!("the host {address} cannot be reached")),
        ErrorKind::NetworkUnreachable => {
            Reason::new(Code::Unreachable, format!("no route to the network of {address}"))
        }
        _ => Reason::new(Code::Local, format!("cannot send echo requests to {address}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked() {
        let check = |icmp: Icmp, part: &str| {
            let mut faults = Vec::new();
            icmp.check("h", &mut faults);
            assert!(faults.len() == 1 && faults[0].contains(part) && faults[0].contains("give"), "{faults:?}");
        };
        check(Icmp { count: 0, ..Icmp::default() }, "count");
        check(Icmp { count: 101, ..Icmp::default() }, "count");
        check(Icmp { pace_ms: 1, ..Icmp::default() }, "pace_ms");
        check(Icmp { size: 4, ..Icmp::default() }, "size");
        check(Icmp { size: 1453, ..Icmp::default() }, "size");
        check(Icmp { loss_percent_max: 100, ..Icmp::default() }, "loss_percent_max");
    }

    #[test]
    fn figures_of_a_flight() {
        let mut flight = Flight::new(false, 4);
        flight.sent = vec![None, None, None, Some(Instant::now())];
        flight.times_ms = vec![1.0, 3.0, 2.0];
        let mut trace = Trace::new("icmp", "target=h".into(), Duration::from_secs(1));
        flight.tell(&mut trace);
        let outcome = trace.outcome(Ok(()));
        let values: Vec<(&str, f64)> = outcome.readings.iter().map(|r| (r.metric.as_ref(), r.value)).collect();
        let expected = [
            ("probe.up", 1.0),
            ("probe.icmp.loss_percent", 25.0),
            ("probe.icmp.min_ms", 1.0),
            ("probe.icmp.avg_ms", 2.0),
            ("probe.icmp.max_ms", 3.0),
            ("probe.icmp.jitter_ms", 1.5),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_reply_counts_once_and_only_ours() {
        let mut flight = Flight::new(false, 2);
        flight.sent = vec![Some(Instant::now()), Some(Instant::now())];
        let mut packet = request(false, 1, flight.token, 8);
        packet[0] = 0;
        let foreign = request(false, 0, [0; TOKEN], 8);
        for bytes in [&packet, &packet, &foreign] {
            flight.take(Ok(bytes.len()), bytes).expect("no error");
        }
        assert_eq!((flight.times_ms.len(), flight.loss_percent()), (1, 50.0));
    }
}
