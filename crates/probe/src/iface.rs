//! Interfaces: which of them are the host's own, by what the kernel says of them.
//!
//! Why: a host of containers has a `veth` for each, with a name of its own each time: thousands of series that nobody
//! looks at, and that end after hours. Rules over names (`veth`, `cali`, `br-`) miss the next tool's.
//! How: an interface is reported when it is the loopback; when it has hardware, or stands on one that has (bond, team,
//! VLAN, a bridge with a real port), tunnels excepted, which only pass through it; or when the default route leads
//! through it, as through the `veth` that is `eth0` inside a container, or a VPN. One that sysfs does not know is
//! reported: nothing speaks against it.
//! Invariants: read anew for each report, for interfaces come and go; no more than [`STACK_MAX`] below each other.

use crate::roots::Roots;
use std::fs;
use std::path::Path;

/// Interfaces on top of each other; the kernel itself takes no more (`MAX_NEST_DEV`).
const STACK_MAX: usize = 8;
/// Kinds that stand on hardware, and are tunnels of containers or copies of what is below.
const TUNNELS: [&str; 5] = ["vxlan", "geneve", "macvlan", "ipvlan", "macsec"];

/// The interfaces that are reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<'a> {
    /// Beginnings of names; where there are some, they alone decide.
    pub prefixes: &'a [String],
    /// Whether all are reported where there are no prefixes.
    pub with_virtual: bool,
}

impl Choice<'_> {
    /// The choice at this moment.
    pub fn now(self, roots: &Roots) -> impl Fn(&str) -> bool {
        let asks_kernel = self.prefixes.is_empty() && !self.with_virtual;
        let routes = if asks_kernel { default_routes(roots) } else { Vec::new() };
        move |name| match self.prefixes {
            [] => !asks_kernel || routes.iter().any(|route| route == name) || is_own(&roots.sys, name),
            prefixes => prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())),
        }
    }
}

/// Whether an interface is the loopback or has to do with hardware.
fn is_own(sys: &Path, name: &str) -> bool {
    let net = sys.join("class/net");
    name == "lo" || !net.join(name).exists() || stands_on_hardware(&net, name, STACK_MAX)
}

fn stands_on_hardware(net: &Path, name: &str, depth: usize) -> bool {
    let interface = net.join(name);
    if interface.join("device").exists() {
        return true;
    }
    if depth == 0 {
        return false;
    }
    // Nearly all that have no hardware stand on nothing, and are not asked what they are.
    lowers(&interface).any(|lower| lower != name && stands_on_hardware(net, &lower, depth - 1))
        && !is_tunnel(&interface)
}

/// Interfaces that one stands on; of those in another network namespace there is a link, and no directory beside it.
fn lowers(interface: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(interface).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name();
        let lower = name.as_encoded_bytes().strip_prefix(b"lower_")?;
        String::from_utf8(lower.to_vec()).ok()
    })
}

fn is_tunnel(interface: &Path) -> bool {
    let kind = fs::read_to_string(interface.join("uevent")).unwrap_or_default();
    kind.lines().filter_map(|line| line.strip_prefix("DEVTYPE=")).any(|kind| TUNNELS.contains(&kind))
}

/// Interfaces of default routes; none where the kernel has no such file, as without IPv6.
fn default_routes(roots: &Roots) -> Vec<String> {
    let text = |name| roots.read_net(name).map(|file| file.text).unwrap_or_default();
    let (v4, v6) = (text("route"), text("ipv6_route"));
    // Interface, destination, gateway, flags, three counts, mask: all zeros for the default.
    let v4 = v4.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")).then(|| words[0].to_string())
    });
    // Destination, length of its prefix, …, interface.
    let v6 = v6.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_default = words.len() == 10 && words[1] == "00" && words[0].bytes().all(|byte| byte == b'0');
        is_default.then(|| words[9].to_string())
    });
    v4.chain(v6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Makes an interface: its kind, whether it has hardware, and what it stands on.
    fn add(root: &Path, name: &str, kind: &str, has_device: bool, lowers: &[&str]) {
        let interface = root.join("sys/class/net").join(name);
        fs::create_dir_all(&interface).expect("directories");
        let kind = if kind.is_empty() { String::new() } else { format!("DEVTYPE={kind}\n") };
        fs::write(interface.join("uevent"), format!("{kind}INTERFACE={name}\nIFINDEX=2\n")).expect("writable");
        if has_device {
            fs::create_dir_all(root.join("sys/devices/pci0")).expect("directories");
            symlink("../../../devices/pci0", interface.join("device")).expect("writable");
        }
        for lower in lowers {
            symlink(format!("../{lower}"), interface.join(format!("lower_{lower}"))).expect("writable");
        }
    }

    fn check(root: &Path, prefixes: &[&str], with_virtual: bool, expected: &[&str]) {
        let roots = Roots::new(root);
        let prefixes: Vec<String> = prefixes.iter().map(|prefix| prefix.to_string()).collect();
        let is_reported = Choice { prefixes: &prefixes, with_virtual }.now(&roots);
        let mut names: Vec<String> = fs::read_dir(root.join("sys/class/net"))
            .expect("made here")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
            .collect();
        names.push("unknown0".into());
        names.retain(|name| is_reported(name));
        names.sort();
        assert_eq!(names, expected);
    }

    /// A host of virtual machines and containers, with every kind that its tools make.
    fn host() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let add = |name, kind, has_device, lowers: &[&str]| add(root.path(), name, kind, has_device, lowers);
        add("lo", "", false, &[]);
        add("eth0", "", true, &[]);
        add("wlan0", "wlan", true, &[]);
        add("bond0", "bond", false, &["eth0"]);
        add("bond0.100", "vlan", false, &["bond0"]);
        add("team0", "", false, &["wlan0"]);
        add("br0", "bridge", false, &["bond0.100", "tap0"]);
        add("tap0", "", false, &[]);
        add("docker0", "bridge", false, &["veth1a2b"]);
        add("veth1a2b", "", false, &[]);
        add("cali123", "", false, &["gone"]);
        add("flannel.1", "vxlan", false, &["eth0"]);
        add("macvtap0", "macvlan", false, &["eth0"]);
        add("virbr0", "bridge", false, &[]);
        add("dummy0", "", false, &[]);
        add("wg0", "wireguard", false, &[]);
        // A knot, which no kernel ties, ends.
        add("knot0", "", false, &["knot1"]);
        add("knot1", "", false, &["knot0"]);
        root
    }

    #[test]
    fn by_default_those_of_the_host() {
        let host = host();
        let own = ["bond0", "bond0.100", "br0", "eth0", "lo", "team0", "unknown0", "wlan0"];
        check(host.path(), &[], false, &own);
        check(host.path(), &["veth", "eth"], false, &["eth0", "veth1a2b"]);
        let roots = Roots::new(host.path());
        let is_reported = Choice { prefixes: &[], with_virtual: true }.now(&roots);
        assert!(is_reported("veth1a2b") && is_reported("docker0"));
    }

    /// Inside a container there is no hardware, and what the default route leads through is its network.
    #[test]
    fn what_the_default_route_leads_through() {
        let container = tempfile::tempdir().expect("a directory");
        let net = container.path().join("proc/net");
        fs::create_dir_all(&net).expect("directories");
        for name in ["lo", "eth0", "eth1", "wg0", "dummy0"] {
            add(container.path(), name, "", false, &[]);
        }
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let v4 = "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        fs::write(net.join("route"), format!("{head}{v4}")).expect("writable");
        check(container.path(), &[], false, &["eth0", "lo", "unknown0"]);
        let zero = "0".repeat(32);
        let route = |prefix, name| format!("{zero} {prefix} {zero} 00 {zero} 00000400 1 0 00000001 {name}\n");
        fs::write(net.join("ipv6_route"), format!("{}{}", route("00", "     wg0"), route("40", "dummy0")))
            .expect("writable");
        check(container.path(), &[], false, &["eth0", "lo", "unknown0", "wg0"]);
    }
}
