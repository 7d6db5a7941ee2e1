//! ICMP to this host. Whether this process may send echo requests is read from the kernel: what is tested then differs,
//! but something always is.

use super::world::*;
use crate::Code;
use serde_json::json;

/// Whether a socket for echo requests may be opened: by the range of groups, or by CAP_NET_RAW.
fn is_allowed() -> bool {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").expect("a file of Linux");
    let range: Vec<u64> = range.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let group = u64::from(rustix::process::getegid().as_raw());
    let status = std::fs::read_to_string("/proc/self/status").expect("a file of Linux");
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("a line of Linux");
    let rights = u64::from_str_radix(rights.trim(), 16).expect("a number");
    const NET_RAW: u64 = 1 << 13;
    (range[0]..=range[1]).contains(&group) || rights & NET_RAW != 0
}

#[tokio::test]
async fn this_host_answers_or_the_reason_is_told() {
    let has_v6 = tokio::net::UdpSocket::bind("[::1]:0").await.is_ok();
    let mut hosts = vec!["127.0.0.1"];
    hosts.extend(has_v6.then_some("::1"));
    for host in hosts {
        let more = json!({"count": 4, "pace_ms": 10, "size": 100});
        if !is_allowed() {
            down("icmp", host, more, Code::Local, "net.ipv4.ping_group_range").await;
            continue;
        }
        let outcome = up("icmp", host, more).await;
        assert_eq!(value(&outcome, "probe.icmp.loss_percent"), Some(0.0));
        let [min, avg, max, jitter] =
            ["min", "avg", "max", "jitter"].map(|name| value(&outcome, &format!("probe.icmp.{name}_ms")).expect(name));
        assert!(0.0 < min && min <= avg && avg <= max && jitter <= max - min, "{min} {avg} {max} {jitter}");
    }
}

/// The address of loopback that is for all of it takes no echo requests without a right of its own, or answers none.
#[tokio::test]
async fn who_does_not_answer_is_down() {
    down("icmp", "127.0.0.1", json!({"family": "ipv6"}), Code::NoAddress, "no IPv6 address").await;
    let more = json!({"count": 2, "pace_ms": 10, "timeout_ms": 500});
    let reason = outcome("icmp", "127.255.255.255", more).await.reason.expect("a reason");
    let expected: &[Code] = if is_allowed() { &[Code::Loss, Code::Unreachable, Code::Local] } else { &[Code::Local] };
    assert!(expected.contains(&reason.code), "{reason:?}");
}
