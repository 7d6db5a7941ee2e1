//! Groups: which collectors run, and report, together.
//!
//! Compat: the original's groups (docs/open-falcon/agent.md §2). Each is one `Transfer.Update` and has its own clock,
//! so that a mount that hangs delays its own group only. Three more, `du`, the URL checks and GPUs, need a child
//! process, an HTTP client and a library, and belong to the agent.

use crate::driven::Driven;
use crate::reading::Reading;
use crate::roots::{ProbeError, Roots};
use crate::sampler::Sampler;
use crate::{cpu, df, disk_io, iface, kernel, load, mem, mount, net_if, netstat, port, process, snmp, ss};

/// A group of collectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// agent.alive, cpu, net.if, kernel, load, mem, disk.io, TcpExt, proc.num, snmp.Udp.
    Host,
    Df,
    /// net.port.listen and ss.
    Sockets,
}

/// Roots to look under, and which of what is there to report.
#[derive(Clone, Debug)]
pub struct Scope {
    pub roots: Roots,
    /// Beginnings of the names of interfaces to report; empty leaves it to the next.
    pub iface_prefixes: Vec<String>,
    /// Whether interfaces of containers and the like are reported, too.
    pub virtual_ifaces: bool,
    /// Mount points to report; empty leaves it to the next.
    pub mount_points: Vec<String>,
    /// Whether the mounts are those of the original's rule, instead of each file system once and none of containers.
    pub container_mounts: bool,
}

impl Scope {
    /// Appends the group's readings. A collector that fails is appended to `failures` and leaves the others alone.
    pub fn collect(
        &self,
        group: Group,
        driven: &Driven,
        sampler: &Sampler,
        out: &mut Vec<Reading>,
        failures: &mut Vec<ProbeError>,
    ) {
        match group {
            Group::Host => self.collect_host(driven, sampler, out, failures),
            Group::Df => {
                let choice = mount::Choice { points: &self.mount_points, as_original: self.container_mounts };
                failures.extend(df::collect(&self.roots, choice, out).err());
            }
            Group::Sockets => {
                failures.extend(port::collect(&self.roots, &driven.ports, out).err());
                failures.extend(ss::collect(&self.roots, out).err());
            }
        }
    }

    fn collect_host(&self, driven: &Driven, sampler: &Sampler, out: &mut Vec<Reading>, failures: &mut Vec<ProbeError>) {
        let roots = &self.roots;
        out.push(Reading::gauge("agent.alive", "", 1.0));
        cpu::collect(sampler, out);
        cpu::collect_cores(sampler, out);
        let choice = iface::Choice { prefixes: &self.iface_prefixes, with_virtual: self.virtual_ifaces };
        failures.extend(net_if::collect(roots, choice, out).err());
        failures.extend(kernel::collect(roots, out).err());
        failures.extend(load::collect(roots, out).err());
        failures.extend(mem::collect(roots, out).err());
        failures.extend(disk_io::collect(roots, sampler, out).err());
        failures.extend(netstat::collect(roots, out).err());
        failures.extend(process::collect(roots, &driven.processes, out).err());
        failures.extend(snmp::collect(roots, out).err());
    }
}
