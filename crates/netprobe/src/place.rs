//! Place: a host and a port, in one form.
//!
//! Why: the tag `target` names a series, so `Example.COM.:80` and `example.com:80` must not be two; and what stands in
//! it must hold no comma, blank or line break.
//! Invariants: a host is an IP address as the standard library prints it, or a name in lower case without a dot at its
//! end, of letters, digits, `-`, `_` and `.`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The longest name (RFC 1035 §2.3.4), without the dot at its end.
const NAME_MAX: usize = 253;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub host: String,
    pub port: u16,
}

impl Place {
    /// Reads `HOST:PORT`; an IPv6 address stands in brackets. An error says what is wrong and what to give.
    pub fn parse(text: &str) -> Result<Place, String> {
        let want = "give HOST:PORT, an IPv6 address as [ADDRESS]:PORT";
        let Some((host, port)) = text.rsplit_once(':') else { return Err(format!("{text:?} has no port: {want}")) };
        if host.contains(':') && !host.starts_with('[') {
            return Err(format!("{text:?} is no host and port: {want}"));
        }
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if is_number && port != 0 => Ok(Place { host: host_of(host)?, port }),
            _ => Err(format!("{text:?} has the port {port:?}: give one from 1 to 65535")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The one form of a host; an IPv6 address with or without its brackets.
pub(crate) fn host_of(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if let Some(address) = bare.or(text.contains(':').then_some(text)) {
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err(format!("{text:?} is no IPv6 address: give one without a zone, like 2001:db8::1")),
        };
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if !name.is_ascii() {
        return Err(format!("{text:?} is no name of a host: give its ASCII form, which begins with xn--"));
    }
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let are_fine = name.split('.').all(|label| (1..=63).contains(&label.len()) && label.chars().all(is_fine));
    match are_fine && name.len() <= NAME_MAX {
        true => Ok(name),
        false => Err(format!("{text:?} is no name of a host: give a name like db1.example.com, or an address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form() {
        let check = |text: &str, expected: &str| {
            let place = Place::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(place.to_string(), expected);
        };
        check("Example.COM.:80", "example.com:80");
        check("10.0.0.1:443", "10.0.0.1:443");
        check("[2001:DB8:0::1]:53", "[2001:db8::1]:53");
        check("_sip.a-b:5060", "_sip.a-b:5060");
    }

    #[test]
    fn what_is_none_is_told_with_the_fix() {
        let check = |text: &str, part: &str| {
            let error = Place::parse(text).expect_err(text);
            assert!(error.contains(part) && error.contains("give"), "{error}");
        };
        check("host", "has no port");
        check("host:0", "1 to 65535");
        check("host:+80", "1 to 65535");
        check("host:65536", "1 to 65535");
        check("::1:80", "[ADDRESS]:PORT");
        check("[fe80::1%eth0]:80", "without a zone");
        check("a,b=c:80", "is no name of a host");
        check("a b:80", "is no name of a host");
        check("münchen.de:80", "xn--");
        check(":80", "is no name of a host");
        check("a..b:80", "is no name of a host");
    }
}
