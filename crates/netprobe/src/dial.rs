//! Dial: from a place to a connection, by way of the policy.
//!
//! How: the name is resolved once, addresses of the other family and denied ones fall away, and the rest is connected
//! to in the resolver's order, at most [`TRIES_MAX`]. One that does not answer has only its share of the time that is
//! left, so that a dead path of one family does not hide the other.
//! Invariants: what is connected to is an address that the policy has seen.

use crate::means::Ground;
use crate::outcome::{Code, Phase, Reason};
use crate::place::Place;
use crate::trace::Trace;
use serde::{Deserialize, Serialize};
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;

/// Addresses that are tried: two of each family.
const TRIES_MAX: usize = 4;

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    #[default]
    Any,
    Ipv4,
    Ipv6,
}

impl Family {
    fn has(self, address: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::Ipv4 => address.is_ipv4(),
            Family::Ipv6 => address.is_ipv6(),
        }
    }
}

/// Addresses of a host that may be spoken to; at least one.
pub(crate) async fn addresses(
    host: &str,
    family: Family,
    ground: Ground<'_>,
    trace: &mut Trace,
) -> Result<Vec<IpAddr>, Reason> {
    trace.enter(Phase::Dns);
    if let Some(why) = ground.policy.denies_host(host) {
        return Err(Reason::new(Code::Denied, why));
    }
    let mut addresses = ground.means.resolver.addresses(host).await?;
    addresses.retain(|address| family.has(*address));
    if addresses.is_empty() {
        let what = if family == Family::Ipv4 { "IPv4" } else { "IPv6" };
        return Err(Reason::new(Code::NoAddress, format!("{host} has no {what} address")));
    }
    let mut denied = None;
    addresses.retain(|address| match ground.policy.denies(host, *address) {
        None => true,
        Some(why) => {
            denied.get_or_insert(why);
            false
        }
    });
    match denied {
        Some(why) if addresses.is_empty() => Err(Reason::new(Code::Denied, why)),
        _ => Ok(addresses),
    }
}

/// Connects to a place.
pub(crate) async fn dial(
    place: &Place,
    family: Family,
    ground: Ground<'_>,
    trace: &mut Trace,
) -> Result<TcpStream, Reason> {
    let mut addresses = addresses(&place.host, family, ground, trace).await?;
    addresses.truncate(TRIES_MAX);
    trace.enter(Phase::Connect);
    let count = addresses.len();
    let mut failed = None;
    for (tried, address) in addresses.into_iter().enumerate() {
        let peer = SocketAddr::new(address, place.port);
        trace.peer = Some(peer);
        let share = trace.left() / u32::try_from(count - tried).unwrap_or(1);
        match tokio::time::timeout(share, TcpStream::connect(peer)).await {
            Ok(Ok(stream)) => {
                // Each write is a whole question; waiting to merge it with the next would be measured.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => failed = Some(told_of_connect(&error, peer)),
            Err(_) => failed = Some(trace.too_late()),
        }
    }
    Err(failed.expect("there is at least one address"))
}

fn told_of_connect(error: &Error, peer: SocketAddr) -> Reason {
    let (code, text) = match error.kind() {
        ErrorKind::ConnectionRefused => (Code::Refused, format!("connection refused by {peer}")),
        ErrorKind::ConnectionReset => (Code::Reset, format!("connection reset by {peer}")),
        ErrorKind::TimedOut => (Code::Timeout, format!("no answer from {peer} to the connection, says the system")),
        ErrorKind::HostUnreachable => (Code::Unreachable, format!("the host {peer} cannot be reached")),
        ErrorKind::NetworkUnreachable => (Code::Unreachable, format!("no route to the network of {peer}")),
        ErrorKind::NetworkDown => (Code::Unreachable, format!("the network to {peer} is down")),
        _ => (Code::Local, format!("cannot connect to {peer}: {error}")),
    };
    Reason::new(code, text)
}

/// What a failed read or write on a connection says.
pub(crate) fn told_of_io(error: &Error, trace: &Trace, doing: &str) -> Reason {
    let peer = trace.who();
    match error.kind() {
        ErrorKind::UnexpectedEof => closed(trace, doing),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            Reason::new(Code::Reset, format!("{peer} has reset the connection {doing}"))
        }
        _ => Reason::new(Code::Protocol, format!("the connection to {peer} failed {doing}: {error}")),
    }
}

/// The other side has ended the connection too early.
pub(crate) fn closed(trace: &Trace, doing: &str) -> Reason {
    Reason::new(Code::Closed, format!("{} has closed the connection {doing}", trace.who()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_of_a_connection() {
        let peer = SocketAddr::from(([10, 0, 0, 1], 443));
        let check = |kind: ErrorKind, code: Code, part: &str| {
            let reason = told_of_connect(&Error::from(kind), peer);
            assert!(reason.code == code && reason.text.contains(part), "{reason:?}");
            assert!(reason.text.contains("10.0.0.1:443"), "{reason:?}");
        };
        check(ErrorKind::ConnectionRefused, Code::Refused, "connection refused by");
        check(ErrorKind::ConnectionReset, Code::Reset, "connection reset by");
        check(ErrorKind::TimedOut, Code::Timeout, "says the system");
        check(ErrorKind::HostUnreachable, Code::Unreachable, "cannot be reached");
        check(ErrorKind::NetworkUnreachable, Code::Unreachable, "no route");
        check(ErrorKind::NetworkDown, Code::Unreachable, "is down");
        check(ErrorKind::PermissionDenied, Code::Local, "cannot connect to");
        check(ErrorKind::AddrNotAvailable, Code::Local, "cannot connect to");
    }
}
