//! Callback targets: where the callbacks of actions may go (`alarm.callback_allow`).
//!
//! Why: any user may write an action's URL, the server calls it from where it stands, and its answer is quoted in
//! messages. Unchecked, a callback reads what only this machine may ask: its own ports, a cloud's metadata service.
//! How: [`CallbackTargets::check_url`] looks at a URL as it is written, for whoever saves or calls one, and
//! [`CallbackTargets::check`] at an address that a name was resolved to. Without a list everything is allowed but what
//! [`denied`] names; a list allows what is in it, and nothing else. URLs are read as browsers read them, so that
//! `http://2130706433/` is 127.0.0.1 here too.
//! Invariants: pure, no name is resolved here; a v4 address that is written inside a v6 one (mapped, NAT64, 6to4 and
//! the like) is denied as what it leads to.

use ipnet::IpNet;
use reqwest::Url;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The metadata services of clouds outside the link-local network: Alibaba Cloud, Azure, and Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// AWS, Google Cloud, and Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// The targets that callbacks may have; clones share the list.
#[derive(Clone, Debug)]
pub struct CallbackTargets {
    allow: Arc<[IpNet]>,
}

/// Why a callback cannot go to a URL, with a text for people.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetFault {
    /// The text is no URL that can be called.
    NoUrl(String),
    /// The configuration does not let callbacks go there.
    Denied(String),
}

impl fmt::Display for TargetFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetFault::NoUrl(text) | TargetFault::Denied(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for TargetFault {}

impl CallbackTargets {
    /// Targets in the networks of `allow`; an empty list is all that are not [`denied`].
    pub fn new(allow: &[IpNet]) -> CallbackTargets {
        CallbackTargets { allow: allow.into() }
    }

    /// Reads the URL of a callback. Fails for a text that can never be called: no http or https URL, or one that names
    /// an address (or `localhost`) where callbacks may not go. What another name leads to is seen when it is called.
    pub fn check_url(&self, text: &str) -> Result<Url, TargetFault> {
        let url = Url::parse(text.trim())
            .map_err(|error| TargetFault::NoUrl(format!("{error}: give a URL like http://host:port/path")))?;
        if !matches!(url.scheme(), "http" | "https") {
            let text = format!("unsupported protocol scheme {:?}: give an http or https URL", url.scheme());
            return Err(TargetFault::NoUrl(text));
        }
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            self.check(address)?;
        } else if host == "localhost" || host.ends_with(".localhost") {
            // The resolver of every system leads these to the machine itself, by either address.
            self.check(Ipv4Addr::LOCALHOST.into()).or_else(|_| self.check(Ipv6Addr::LOCALHOST.into()))?;
        }
        Ok(url)
    }

    /// Fails when callbacks may not go to `address`.
    pub fn check(&self, address: IpAddr) -> Result<(), TargetFault> {
        let address = address.to_canonical();
        if self.allow.is_empty() {
            let Some(what) = denied(address) else { return Ok(()) };
            return Err(TargetFault::Denied(format!(
                "{address} is {what}, where no callback may go: name its network in alarm.callback_allow to allow it"
            )));
        }
        if self.allow.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        Err(TargetFault::Denied(format!(
            "{address} is in no network of alarm.callback_allow, so no callback goes there"
        )))
    }
}

/// What kind of address this is, if it is one that nobody may call whom the configuration does not allow by name.
fn denied(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => denied_v4(address),
        IpAddr::V6(address) => denied_v6(address),
    }
}

fn denied_v4(address: Ipv4Addr) -> Option<&'static str> {
    if address.is_loopback() {
        Some("a loopback address")
    } else if address.octets()[0] == 0 {
        Some("an unspecified address")
    } else if address.is_link_local() {
        Some("a link-local address")
    } else if METADATA_V4.contains(&address) {
        Some("the address of a cloud's metadata service")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.octets()[0] >= 240 {
        Some("a broadcast or reserved address")
    } else {
        None
    }
}

fn denied_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_unspecified() {
        Some("an unspecified address")
    } else if address.is_unicast_link_local() {
        Some("a link-local address")
    } else if METADATA_V6.contains(&address) {
        Some("the address of a cloud's metadata service")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else {
        embedded(address).into_iter().flatten().find_map(denied_v4)
    }
}

/// The v4 addresses that a v6 address may lead to, by what translators and tunnels do with it.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let part = address.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    let last = v4(part[6], part[7]);
    match part {
        // Mapped (RFC 4291), compatible (the same), and translated (RFC 2765) addresses.
        [0, 0, 0, 0, 0, 0xffff | 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => [last, None],
        // NAT64: the well-known prefix, and the local one with the prefix lengths 96 and 48 (RFC 6052, 8215), of which
        // the other one's place is zero.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [last, None],
        [0x64, 0xff9b, 1, ..] => {
            let by_48 = v4(part[3], part[4] << 8 | part[5] >> 8);
            [last, by_48].map(|found| found.filter(|address| !address.is_unspecified()))
        }
        // 6to4 (RFC 3056), and Teredo with its server and its client, which is stored inverted (RFC 4380).
        [0x2002, high, low, ..] => [v4(high, low), None],
        [0x2001, 0, high, low, ..] => [v4(high, low), v4(!part[6], !part[7])],
        // ISATAP (RFC 5214), in any network.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => [last, None],
        _ => [None; 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(allow: &[&str]) -> CallbackTargets {
        let networks: Vec<IpNet> = allow.iter().map(|text| text.parse().expect("a network")).collect();
        CallbackTargets::new(&networks)
    }

    /// `expected` is "" for a URL that may be called, and else a part of the reason.
    fn check(targets: &CallbackTargets, url: &str, expected: &str) {
        match targets.check_url(url) {
            Ok(_) => assert_eq!(expected, "", "{url} is allowed"),
            Err(fault) => {
                let text = fault.to_string();
                assert!(!expected.is_empty() && text.contains(expected), "{url} gave {text}");
            }
        }
    }

    #[test]
    fn by_default_what_only_this_machine_reaches_is_denied() {
        let default = targets(&[]);
        for url in [
            "http://10.1.2.3/x",
            "https://192.168.0.1:8443/",
            "http://8.8.8.8",
            "http://[2001:db8::1]/",
            "http://[fd12::1]/",
            "http://[64:ff9b::a01:203]/",
            "http://[64:ff9b:1::a01:203]/",
            "http://[64:ff9b:1:a01:2:300::]/",
            "http://script.site.example/a?b=c",
            " http://h/ ",
        ] {
            check(&default, url, "");
        }
        for url in [
            "http://127.0.0.1:8080/",
            "http://127.9.9.9",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::127.0.0.1]/",
            "http://[::ffff:0:127.0.0.1]/",
            "http://[2002:7f00:1::]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[64:ff9b:1:7f00:0:100::]/",
            "http://[2001:0:7f00:1::]/",
            "http://[2001:0:a01:203::80ff:fffe]/",
            "http://[fe81::5efe:127.0.0.1%25lo]/",
            "http://[fd00::5efe:127.0.0.1]/",
            "http://[fd00::200:5efe:127.0.0.1]/",
            "http://localhost:6071/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://127.0.0.1./",
            "http://127.1/",
        ] {
            if url.contains('%') {
                check(&default, url, "give a URL");
            } else {
                check(&default, url, "loopback");
            }
        }
        check(&default, "http://169.254.169.254/latest/meta-data/", "link-local");
        check(&default, "http://[::ffff:a9fe:a9fe]/", "link-local");
        check(&default, "http://[fe80::1]/", "link-local");
        check(&default, "http://[febf::1]/", "link-local");
        for url in [
            "http://100.100.100.200/",
            "http://168.63.129.16/",
            "http://192.0.0.192/",
            "http://[fd00:ec2::254]/",
            "http://[fd20:ce::254]/",
            "http://[fd00:42::42]/",
            "http://[64:ff9b::6464:64c8]/",
        ] {
            check(&default, url, "metadata");
        }
        for url in ["http://0.0.0.0:80/", "http://0/", "http://0.1.2.3/", "http://[::]/", "http://[::ffff:0.0.0.0]/"] {
            check(&default, url, "unspecified");
        }
        for url in ["http://224.0.0.1/", "http://239.255.255.250:1900/", "http://[ff02::1]/"] {
            check(&default, url, "multicast");
        }
        check(&default, "http://255.255.255.255/", "broadcast");
        check(&default, "http://240.0.0.1/", "reserved");
    }

    #[test]
    fn a_list_is_all_that_is_allowed() {
        let list = targets(&["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"]);
        for url in [
            "http://10.9.8.7/",
            "http://[::ffff:10.9.8.7]/",
            "http://127.0.0.1/",
            "http://localhost/",
            "http://[fd00::1]/",
            "http://any.name.example/",
        ] {
            check(&list, url, "");
        }
        for url in [
            "http://127.0.0.2/",
            "http://192.168.0.1/",
            "http://[::1]/",
            "http://[2002:a01:203::]/",
            "http://[::10.1.2.3]/",
        ] {
            check(&list, url, "is in no network of alarm.callback_allow");
        }
        check(&targets(&["::1/128"]), "http://localhost/", "");
        check(&targets(&["10.0.0.0/8"]), "http://localhost/", "in no network");
        check(&targets(&["0.0.0.0/0"]), "http://169.254.169.254/", "");
    }

    #[test]
    fn what_is_no_url_is_named() {
        for (url, expected) in [
            ("", "relative URL without a base"),
            ("not a url", "relative URL"),
            ("127.0.0.1:80/x", "relative URL"),
            ("ftp://h/", "unsupported protocol scheme \"ftp\""),
            ("file:///etc/passwd", "unsupported protocol scheme \"file\""),
            ("host:80/x", "unsupported protocol scheme \"host\""),
            ("http://", "empty host"),
            ("http://h:99999/", "invalid port"),
        ] {
            let fault = targets(&[]).check_url(url).expect_err(url);
            assert!(matches!(&fault, TargetFault::NoUrl(text) if text.contains(expected)), "{url}: {fault:?}");
        }
    }
}
