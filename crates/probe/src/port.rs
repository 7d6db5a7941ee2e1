//! net.port.listen: whether a socket listens on a port.
//!
//! Compat: TCP ports in state LISTEN (`ss -t -l -n`) and UDP ports of any socket (`ss -u -a -n`), IPv4 and IPv6. The
//! files are those to which `ss` falls back, so there is no child process and no format that changes between versions.
//! A listening socket may stand anywhere in them: old kernels list half-open connections of a listener right behind it,
//! and emulated ones (gVisor) have no order at all.

use crate::reading::Reading;
use crate::roots::{ProbeError, Roots};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

const LISTEN: &str = "0A";

pub(crate) fn collect(roots: &Roots, ports: &[u16], out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut listening = Vec::new();
    for (name, tcp, optional) in
        [("tcp", true, false), ("tcp6", true, true), ("udp", false, false), ("udp6", false, true)]
    {
        let file = roots.net(name);
        match find(&file, tcp, ports, &mut listening) {
            // A kernel without IPv6 has no such file.
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ProbeError::Unreadable { file, error }),
            Ok(()) => {}
        }
    }
    for port in ports {
        let is_listening = listening.contains(port);
        out.push(Reading::gauge("net.port.listen", &format!("port={port}"), f64::from(u8::from(is_listening))));
    }
    Ok(())
}

/// Adds those of `ports` that occur. The file is read line by line: a busy host has a hundred thousand connections, of
/// which none is kept.
fn find(file: &Path, tcp: bool, ports: &[u16], listening: &mut Vec<u16>) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(file)?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    while listening.len() < ports.len() {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
        let mut words = line.split_ascii_whitespace();
        let (local, state) = (words.nth(1), words.nth(1));
        if tcp && state != Some(LISTEN) {
            continue;
        }
        let port = local.and_then(|local| u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok());
        if let Some(port) = port.filter(|port| ports.contains(port) && !listening.contains(port)) {
            listening.push(port);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports of `ss -tln` and `ss -uan`, taken in the same moment as the files.
    fn recorded(name: &str) -> Vec<u16> {
        let text = std::fs::read_to_string(format!("testdata/sockets/{name}")).expect("testdata");
        let local = |line: &str| line.split_whitespace().nth(3)?.rsplit_once(':')?.1.parse().ok();
        text.lines().skip(1).filter_map(local).collect()
    }

    #[test]
    fn equals_recorded_ss() {
        let mut ports = [recorded("ss_tln.txt"), recorded("ss_uan.txt")].concat();
        assert_eq!(ports.len(), 5, "two sockets of each family and the machine's own");
        ports.push(1);
        let mut out = Vec::new();
        collect(&Roots::new("testdata/sockets"), &ports, &mut out).expect("readable");
        let values: Vec<f64> = out.iter().map(|reading| reading.value).collect();
        assert_eq!(values, [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!(out[5].tags, "port=1");
    }

    #[test]
    fn an_established_connection_is_not_listening() {
        let text = std::fs::read_to_string("testdata/sockets/proc/net/tcp").expect("testdata");
        let established = text.lines().find(|line| line.split_whitespace().nth(3) == Some("01")).expect("recorded one");
        let port = established.split_whitespace().nth(1).and_then(|local| local.rsplit_once(':')).expect("address").1;
        let port = u16::from_str_radix(port, 16).expect("hexadecimal");
        let listening = recorded("ss_tln.txt").contains(&port);
        let mut out = Vec::new();
        collect(&Roots::new("testdata/sockets"), &[port], &mut out).expect("readable");
        assert_eq!(out[0].value, f64::from(u8::from(listening)));
    }

    /// As a kernel before 4.4 lists them, with half-open (03) connections between listeners, and gVisor, in any order.
    #[test]
    fn a_listener_stands_anywhere() {
        let root = tempfile::tempdir().expect("a directory");
        let net = root.path().join("proc/net");
        std::fs::create_dir_all(&net).expect("directories");
        let file = |name: &str, rows: &[(u16, &str)]| {
            let row =
                |(port, state): &(u16, &str)| format!("   0: 0100007F:{port:04X} 00000000:0000 {state} 0:0 00:0 0\n");
            let text = format!("  sl  local_address rem_address   st\n{}", rows.iter().map(row).collect::<String>());
            std::fs::write(net.join(name), text).expect("writable");
        };
        file("tcp", &[(22, "0A"), (22, "03"), (80, "0A"), (5000, "01"), (5001, "06"), (443, "0A")]);
        file("tcp6", &[(5002, "01"), (8080, "0A")]);
        file("udp", &[(53, "07")]);
        let mut out = Vec::new();
        collect(&Roots::new(root.path()), &[22, 80, 443, 5000, 5001, 5002, 8080, 53, 54], &mut out).expect("readable");
        let values: Vec<f64> = out.iter().map(|reading| reading.value).collect();
        assert_eq!(values, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn a_missing_file_is_an_error_and_not_a_closed_port() {
        let mut out = Vec::new();
        collect(&Roots::new(testdata::path("agent/fixture_root")), &[22], &mut out).expect_err("no net/tcp there");
        assert!(out.is_empty());
    }
}
