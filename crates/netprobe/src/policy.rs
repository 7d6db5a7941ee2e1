//! Policy: whom probes of this process may speak to, and how much of an answer is read.
//!
//! Why: a probe is a request that somebody else writes and this host sends. On the server it could reach what listens
//! on loopback only, or the cloud's metadata service, which gives away the host's credentials.
//! How: a definition's name is checked before it is resolved, and each address before it is connected to; a name is
//! resolved once, and the address that was checked is the one that is used, so a name that changes between the two
//! (DNS rebinding) gains nothing. Redirects go the same way.
//! Invariants: `deny` wins over `allow`; a name in `allow` opens no special address, only a network does; an IPv6
//! address that carries an IPv4 address is as good as that one.

use ipnet::IpNet;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Bytes of an answer that are read: a page of a service that tells its state, many times over.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// Bytes of the head of an HTTP answer, twice what common servers send at most.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Output of a script: Nagios itself reads 8 KiB.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Whom probes may speak to, and how much is read.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Targets that are permitted.
    pub allow: Vec<Rule>,
    /// Targets that are not, whatever `allow` says.
    pub deny: Vec<Rule>,
    /// What is true of targets in neither list.
    pub rest: Rest,
    pub limits: Limits,
    pub scripts: Scripts,
}

/// What is true of targets in neither list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// Permitted but for special addresses: loopback, link-local, metadata services, unspecified, multicast, reserved.
    #[default]
    Ordinary,
    /// Permitted.
    Any,
    /// Denied.
    Nothing,
}

impl Rest {
    /// The name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Rest::Ordinary => "ordinary",
            Rest::Any => "any",
            Rest::Nothing => "nothing",
        }
    }
}

/// How much of an answer is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body, and of what a TCP probe reads.
    pub body_bytes: usize,
    /// Bytes of an answer's head; what HTTP/1 reads in one piece, at least 8 KiB.
    pub head_bytes: usize,
    /// Bytes of a script's output.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { body_bytes: BODY_BYTES_MAX, head_bytes: HEAD_BYTES_MAX, output_bytes: OUTPUT_BYTES_MAX }
    }
}

/// Which scripts run here, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scripts {
    /// Folders whose programs may run, and those of folders below them; none: no script runs.
    pub dirs: Vec<PathBuf>,
    /// User and group that they run as; none: those of this process.
    pub user: Option<(u32, u32)>,
}

impl Policy {
    /// The policy of a server: no special addresses, no scripts.
    pub fn server() -> Policy {
        Policy::default()
    }

    /// The policy of an agent, whose own host is what it watches: all addresses, no scripts until folders are named.
    pub fn agent() -> Policy {
        Policy { rest: Rest::Any, ..Policy::default() }
    }

    /// Says why a host may not be spoken to, before it is resolved. `host` is in the one form of [`crate::place`].
    pub(crate) fn denies_host(&self, host: &str) -> Option<String> {
        if self.deny.iter().any(|rule| rule.has_name(host)) {
            return Some(format!("{host} is denied by the policy of this prober"));
        }
        None
    }

    /// Says why an address of a host may not be connected to.
    pub(crate) fn denies(&self, host: &str, address: IpAddr) -> Option<String> {
        let inner = carried(address);
        let has = |rules: &[Rule], address| rules.iter().any(|rule| rule.has_address(address));
        let place = match host.parse::<IpAddr>() {
            Ok(_) => address.to_string(),
            Err(_) => format!("{host} ({address})"),
        };
        if has(&self.deny, address) || inner.is_some_and(|inner| has(&self.deny, inner)) {
            return Some(format!("{place} is denied by the policy of this prober"));
        }
        if has(&self.allow, address) || inner.is_some_and(|inner| has(&self.allow, inner)) {
            return None;
        }
        let special = special(inner.unwrap_or(address));
        match (self.rest, special) {
            (Rest::Any, _) => None,
            (_, Some(what)) => Some(format!("{place} is {what}, which the policy of this prober denies")),
            (Rest::Ordinary, None) => None,
            (Rest::Nothing, None) if self.allow.iter().any(|rule| rule.has_name(host)) => None,
            (Rest::Nothing, None) => Some(format!("{place} is not in the targets that this prober allows")),
        }
    }
}

/// Targets of a list: a network, a name, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Rule {
    Net(IpNet),
    Name(String),
    /// Names that end in this text, which begins with a dot.
    Below(String),
}

impl TryFrom<String> for Rule {
    type Error = String;

    fn try_from(text: String) -> Result<Rule, String> {
        Rule::parse(&text)
    }
}

impl Rule {
    /// Reads `10.0.0.0/8`, an address, a name, or `.example.com` for all names below it.
    pub fn parse(text: &str) -> Result<Rule, String> {
        let want = "give a network like 10.0.0.0/8, an address, a name, or .example.com for all names below it";
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Rule::Net(net.trunc()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Rule::Net(address.into()));
        }
        let (below, name) = match text.strip_prefix('.') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = crate::place::host_of(name).map_err(|_| format!("{text:?} is no target: {want}"))?;
        Ok(if below { Rule::Below(format!(".{name}")) } else { Rule::Name(name) })
    }

    fn has_name(&self, host: &str) -> bool {
        match self {
            Rule::Net(_) => false,
            Rule::Name(name) => name == host,
            Rule::Below(end) => host.ends_with(end.as_str()),
        }
    }

    fn has_address(&self, address: IpAddr) -> bool {
        matches!(self, Rule::Net(net) if net.contains(&address))
    }
}

/// The IPv4 address within an IPv6 address that leads to it: mapped, compatible, NAT64 (RFC
/// 6052, RFC 8215), SIIT (RFC 2765), 6to4 (RFC 3056).
fn carried(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    let octets = address.octets();
    let four = |at: usize| IpAddr::V4(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] => Some(four(12)),
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(four(12)),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(four(12)),
        [0x2002, ..] => Some(four(2)),
        _ => None,
    }
}

/// What an address is, if it is not one that a probe from elsewhere has business with.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        // Metadata services: of most clouds, of Alibaba's, of Oracle's, and Azure's host agent.
        [169, 254, 169, 254] | [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => {
            Some("a metadata service")
        }
        [0, ..] => Some("unspecified"),
        [127, ..] => Some("loopback"),
        [169, 254, ..] => Some("link-local"),
        [224..=239, ..] => Some("multicast"),
        [240..=255, ..] => Some("reserved"),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        // Metadata services of Amazon and Google.
        [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..] => Some("a metadata service"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rest: Rest, allow: &[&str], deny: &[&str]) -> Policy {
        let rules = |texts: &[&str]| texts.iter().map(|text| Rule::parse(text).expect("a rule")).collect();
        Policy { rest, allow: rules(allow), deny: rules(deny), ..Policy::default() }
    }

    #[test]
    fn a_server_speaks_to_no_special_address() {
        let check = |address: &str, expected: Option<&str>| {
            let why = Policy::server().denies(address, address.parse().expect("an address"));
            match expected {
                None => assert_eq!(why, None),
                Some(part) => assert!(why.as_ref().is_some_and(|why| why.contains(part)), "{address}: {why:?}"),
            }
        };
        check("127.0.0.1", Some("loopback"));
        check("127.255.0.9", Some("loopback"));
        check("169.254.169.254", Some("metadata"));
        check("100.100.100.200", Some("metadata"));
        check("169.254.1.1", Some("link-local"));
        check("0.0.0.0", Some("unspecified"));
        check("0.1.2.3", Some("unspecified"));
        check("224.0.0.1", Some("multicast"));
        check("255.255.255.255", Some("reserved"));
        check("::", Some("unspecified"));
        check("::1", Some("loopback"));
        check("fe80::1", Some("link-local"));
        check("febf::1", Some("link-local"));
        check("ff02::1", Some("multicast"));
        check("fd00:ec2::254", Some("metadata"));
        check("::ffff:127.0.0.1", Some("loopback"));
        check("::ffff:169.254.169.254", Some("metadata"));
        check("::127.0.0.1", Some("loopback"));
        check("64:ff9b::7f00:1", Some("loopback"));
        check("64:ff9b:1::7f00:1", Some("loopback"));
        check("::ffff:0:127.0.0.1", Some("loopback"));
        check("2002:7f00:1::", Some("loopback"));
        check("10.0.0.1", None);
        check("192.168.1.1", None);
        check("8.8.8.8", None);
        check("2001:db8::1", None);
        check("fd00::1", None);
        check("::ffff:10.0.0.1", None);
    }

    #[test]
    fn lists_and_the_rest() {
        let check = |policy: &Policy, host: &str, address: &str, is_denied: bool| {
            let why = policy.denies_host(host).or(policy.denies(host, address.parse().expect("an address")));
            assert_eq!(why.is_some(), is_denied, "{host} at {address}: {why:?}");
        };
        let opened = policy(Rest::Ordinary, &["127.0.0.0/8", "localhost"], &["127.0.0.9", ".bad.example"]);
        check(&opened, "127.0.0.1", "127.0.0.1", false);
        check(&opened, "::ffff:127.0.0.1", "::ffff:127.0.0.1", false);
        check(&opened, "127.0.0.9", "127.0.0.9", true);
        check(&opened, "::ffff:127.0.0.9", "::ffff:127.0.0.9", true);
        check(&opened, "localhost", "::1", true);
        check(&opened, "a.bad.example", "10.0.0.1", true);
        check(&opened, "bad.example", "10.0.0.1", false);
        let only = policy(Rest::Nothing, &["10.0.0.0/8", "db.example"], &[]);
        check(&only, "10.1.1.1", "10.1.1.1", false);
        check(&only, "db.example", "192.168.0.1", false);
        check(&only, "db.example", "169.254.169.254", true);
        check(&only, "other.example", "192.168.0.1", true);
        let agent = policy(Rest::Any, &[], &["169.254.169.254"]);
        check(&agent, "127.0.0.1", "127.0.0.1", false);
        check(&agent, "meta.example", "169.254.169.254", true);
    }

    #[test]
    fn rules_that_are_none_are_told() {
        assert_eq!(Rule::parse("10.1.2.3/8"), Rule::parse("10.0.0.0/8"));
        assert_eq!(Rule::parse("DB.example."), Ok(Rule::Name("db.example".into())));
        for text in ["", ".", "a b", "10.0.0.0/33", "http://a"] {
            assert!(Rule::parse(text).is_err_and(|error| error.contains("give a network")), "{text}");
        }
    }
}
