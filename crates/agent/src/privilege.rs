//! Privilege: who may ask the agent's door for what changes this host.
//!
//! Why: operators' scripts call `/plugin/update` and its like from where they administrate, while anybody who reaches
//! the port may push points.
//! How: a request is privileged that comes from this machine, or from an address that hbs trusts, or that shows the
//! token `listen.token`. The token is one of its own, not `token`: that one every agent of the fleet shows to every
//! transfer, and whoever holds it may send points, not act on hosts.
//! Invariants: addresses are compared as a whole, IPv4 in IPv6 as IPv4; a request that a proxy has handed on comes from
//! whoever the proxy speaks for, so that the proxy's address says nothing; only sums of tokens are compared, from whose
//! times nobody learns one.
//! Compat: the original cuts addresses at the last colon, so no IPv6 address is trusted there.

use axum::http::HeaderMap;
use net::gate::sum_of;
use net::http::shown_secret;
use settings::Secret;
use std::net::{IpAddr, SocketAddr};

/// Headers in which proxies say for whom they ask.
const FORWARDING: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Whether a request may change this host. `trusted` are addresses joined by commas, as hbs sends them.
pub fn is_privileged(peer: Option<SocketAddr>, headers: &HeaderMap, token: &Secret, trusted: &str) -> bool {
    has_token(headers, token) || peer.is_some_and(|peer| is_trusted(peer.ip(), headers, trusted))
}

fn has_token(headers: &HeaderMap, token: &Secret) -> bool {
    !token.is_none() && shown_secret(headers).is_some_and(|shown| sum_of(&shown) == sum_of(token.text().as_bytes()))
}

fn is_trusted(peer: IpAddr, headers: &HeaderMap, trusted: &str) -> bool {
    if FORWARDING.iter().any(|name| headers.contains_key(*name)) {
        return false;
    }
    let peer = peer.to_canonical();
    let mut trusted = trusted.split(',').filter_map(|text| text.trim().parse::<IpAddr>().ok());
    peer.is_loopback() || trusted.any(|address| address.to_canonical() == peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_whom_hbs_trusts_and_who_shows_the_token() {
        const TOKEN: &str = "sixteen or more characters";
        let check = |peer: &str, trusted: &str, header: (&'static str, &str), privileged: bool| {
            let mut headers = HeaderMap::new();
            if !header.0.is_empty() {
                headers.insert(header.0, header.1.parse().expect("a value"));
            }
            let peer = Some(format!("{peer}:5").parse().expect("an address"));
            let is = is_privileged(peer, &headers, &Secret::new(TOKEN), trusted);
            assert_eq!(is, privileged, "{peer:?} {trusted} {header:?}");
            assert!(
                !is_privileged(None, &headers, &Secret::default(), trusted),
                "nobody without a token or an address"
            );
        };
        let none = ("", "");
        check("127.0.0.1", "", none, true);
        check("127.8.8.8", "", none, true);
        check("[::1]", "", none, true);
        check("[::ffff:127.0.0.1]", "", none, true);
        check("10.0.0.1", "", none, false);
        check("10.0.0.1", "10.0.0.2, 10.0.0.1", none, true);
        check("10.0.0.1", "10.0.0.10", none, false);
        check("10.0.0.10", "10.0.0.1", none, false);
        check("[::ffff:10.0.0.1]", "10.0.0.1", none, true);
        check("[fd00::1]", "fd00:0:0::1", none, true);
        check("[fd00::2]", "fd00::1,fd00::", none, false);
        check("10.0.0.1", "nonsense,,10.0.0.1/8", none, false);
        check("127.0.0.1", "", ("x-forwarded-for", "127.0.0.1"), false);
        check("127.0.0.1", "", ("via", "1.1 proxy"), false);
        check("10.0.0.1", "", ("authorization", &format!("Bearer {TOKEN}")), true);
        check("10.0.0.1", "", ("authorization", "Bearer another"), false);
        check("10.0.0.1", "", ("authorization", "Bearer "), false);
    }

    #[test]
    fn without_a_token_nothing_that_is_shown_helps() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer ".parse().expect("a value"));
        assert!(!is_privileged("10.0.0.1:5".parse().ok(), &headers, &Secret::default(), ""));
    }
}
