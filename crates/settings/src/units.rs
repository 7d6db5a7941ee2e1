//! Units: durations, sizes and networks as they are written in a configuration, for `#[serde(deserialize_with = "…")]`.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// As far as a time may reach back or ahead; sums of such times are far from the end of any number that holds them.
const DURATION_MAX: Duration = Duration::from_secs(1000 * 366 * 86_400);

/// Reads a duration like "500ms", "90s", "5m" or "30d".
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let custom = serde::de::Error::custom;
    let time = humantime::parse_duration(&text)
        .map_err(|error| custom(format!("{text:?} is not a duration like \"5m\": {error}")))?;
    if time > DURATION_MAX {
        return Err(custom(format!("{text:?} is longer than any that is counted with: give at most \"1000years\"")));
    }
    Ok(time)
}

/// Reads a duration like "90s", "5m" or "30d" as whole seconds.
pub fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let time = duration(deserializer)?;
    if time.subsec_nanos() > 0 {
        return Err(serde::de::Error::custom("it has a part of a second: give whole seconds, like \"1s\""));
    }
    Ok(time.as_secs() as i64)
}

/// Reads a size like "256MiB" or "64kB" as bytes.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|error| serde::de::Error::custom(format!("{text:?} is not a size like \"256MiB\": {error}")))
}

/// Reads networks like "10.0.0.0/8"; an address alone is the network that holds only itself.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let (mut networks, mut wrong) = (Vec::new(), Vec::new());
    for text in &texts {
        match network(text) {
            Ok(network) => networks.push(network),
            Err(error) => wrong.push(error),
        }
    }
    if wrong.is_empty() { Ok(networks) } else { Err(serde::de::Error::custom(wrong.join("; "))) }
}

/// True for texts like `127.0.0.1:8080`, `[::1]:8080` and `host:8080`. Whether there is such a host is not asked.
pub fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || "/:@[]".contains(c))
        }
    };
    is_host && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// True for what [`is_host_and_port`] takes, and for that with `tls://` before it: where a connection goes.
pub fn is_place(text: &str) -> bool {
    is_host_and_port(text.strip_prefix("tls://").unwrap_or(text))
}

fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let network: IpNet =
        text.parse().map_err(|_| format!("{text:?} is not an address, nor a network like \"10.0.0.0/8\""))?;
    Ok(without_mapping(network))
}

/// A v4 network that is written as a part of `::ffff:0:0/96` as what it is: peers are compared as v4.
fn without_mapping(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().filter(|_| v6.prefix_len() >= MAPPED_BITS);
    v4.map_or(network, |address| Ipv4Net::new_assert(address, v6.prefix_len() - MAPPED_BITS).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["127.0.0.1:8080", "[::1]:8080", "0.0.0.0:0", "host-1.example:65535", "localhost:1"] {
            assert!(is_host_and_port(text), "{text}");
        }
        for text in [
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:99999",
            "127.0.0.1:+80",
            ":8080",
            "::1:8080",
            "[::1]",
            "[x]:80",
            "a b:80",
            "http://h:80",
            "h:80/x",
            "h: 80",
            "",
        ] {
            assert!(!is_host_and_port(text), "{text}");
        }
    }

    #[test]
    fn a_place_may_speak_tls() {
        assert!(is_place("h:1") && is_place("tls://h:1"));
        assert!(!is_place("tls://h") && !is_place("https://h:1") && !is_place("tls://tls://h:1"));
    }

    #[test]
    fn networks_are_networks_or_addresses() {
        let check = |text: &str, peer: &str, inside: bool| {
            let network = network(text).expect("a network");
            let peer: IpAddr = peer.parse().expect("an address");
            assert_eq!(network.contains(&peer), inside, "{text} {peer}");
        };
        check("10.0.0.0/8", "10.9.8.7", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.1.2.3/8", "10.9.8.7", true);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("::1", "::1", true);
        check("10.0.0.0/8", "::1", false);
        check("::ffff:10.0.0.0/104", "10.9.8.7", true);
        check("::ffff:10.0.0.1", "10.0.0.1", true);
        check("::ffff:10.0.0.1", "10.0.0.2", false);
        for text in ["10.0.0.0/99", "10.0.0", "", "host", "::/129"] {
            assert!(network(text).expect_err(text).contains(text), "{text}");
        }
    }
}
