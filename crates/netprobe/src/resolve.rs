//! Resolve: from a name to its addresses, by the system's resolver.
//!
//! Why [`Aside`]: the system's call blocks for half a minute where no DNS server answers. The lookups of other probes
//! wait meanwhile, and are late in phase dns.
//! Invariants: nothing is cached, for a probe is to notice what changes.

use crate::aside::Aside;
use crate::outcome::{Code, Reason};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};

/// Lookups at a time: at a millisecond each, these are thousands a second; hanging ones hold as many threads.
const PARALLEL_MAX: usize = 4;
/// Addresses of a name that are looked at; more than are tried.
const ADDRESSES_MAX: usize = 16;

/// The system's resolver; clones share its turns.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    pub aside: Aside,
}

impl Default for Resolver {
    fn default() -> Resolver {
        Resolver { aside: Aside::new("resolve", PARALLEL_MAX) }
    }
}

impl Resolver {
    /// Addresses of a name or of an address as text, in the system's order; at least one.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Reason> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let name = host.to_string();
        match self.aside.call(move || look_up(&name)).await? {
            Ok(addresses) if addresses.is_empty() => Err(unknown(host)),
            Ok(addresses) => Ok(addresses),
            Err(error) => Err(told_of(host, &error)),
        }
    }
}

fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for address in (host, 0).to_socket_addrs()?.map(|address| address.ip()) {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn unknown(host: &str) -> Reason {
    Reason::new(Code::NameUnknown, format!("the name {host} does not exist"))
}

/// Texts of the system, which has no kind for them: of EAI_NONAME and EAI_NODATA in glibc and musl.
const OF_UNKNOWN: [&str; 4] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "Name has no usable address",
];

fn told_of(host: &str, error: &io::Error) -> Reason {
    let text = error.to_string();
    match OF_UNKNOWN.iter().any(|known| text.contains(known)) {
        true => unknown(host),
        false => {
            let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
            Reason::new(Code::Resolver, format!("cannot resolve {host}: {text}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_addresses() {
        let resolver = Resolver::default();
        assert_eq!(resolver.addresses("::1").await.expect("an address"), ["::1".parse::<IpAddr>().expect("one")]);
        let of_localhost = resolver.addresses("localhost").await.expect("in /etc/hosts");
        assert!(of_localhost.iter().all(IpAddr::is_loopback), "{of_localhost:?}");
    }

    #[test]
    fn what_the_system_says() {
        let check = |text: &str, code: Code| {
            let error = io::Error::other(format!("failed to lookup address information: {text}"));
            let reason = told_of("h.example", &error);
            assert!(reason.code == code && reason.text.contains("h.example"), "{reason:?}");
        };
        check("Name or service not known", Code::NameUnknown);
        check("Name does not resolve", Code::NameUnknown);
        check("Temporary failure in name resolution", Code::Resolver);
    }
}
