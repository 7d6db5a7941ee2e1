//! Groups: which collectors run, and report, together.
//!
//! Compat: the original's groups (docs/open-falcon/agent.md §2). Each is one `Transfer.Update` and has its own clock,
//! so that a mount that hangs delays its own group only. Three more, `du`, the URL checks and GPUs, need a child
//! process, an HTTP client and a library, and belong to the agent.

use crate::df::Mounted;
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

/// A collector of a group.
#[derive(Clone, Copy)]
pub struct Part {
    pub group: Group,
    /// The name in the original's `-check`, where it has one.
    pub name: &'static str,
    collect: fn(&Scope, &Driven, &Sampler, &mut Vec<Reading>) -> Result<(), ProbeError>,
}

/// All collectors, in the order of the reports.
pub const PARTS: [Part; 13] = [
    Part { group: Group::Host, name: "agent", collect: |_, _, _, out| alive(out) },
    Part { group: Group::Host, name: "cpustat", collect: |_, _, sampler, out| cpus(sampler, out) },
    Part { group: Group::Host, name: "net.if", collect: |scope, _, _, out| scope.interfaces(out) },
    Part { group: Group::Host, name: "kernel", collect: |scope, _, _, out| kernel::collect(&scope.roots, out) },
    Part { group: Group::Host, name: "loadavg", collect: |scope, _, _, out| load::collect(&scope.roots, out) },
    Part { group: Group::Host, name: "memory", collect: |scope, _, _, out| mem::collect(&scope.roots, out) },
    Part {
        group: Group::Host,
        name: "disk.io",
        collect: |scope, _, sampler, out| disk_io::collect(&scope.roots, sampler, out),
    },
    Part { group: Group::Host, name: "netstat", collect: |scope, _, _, out| netstat::collect(&scope.roots, out) },
    Part {
        group: Group::Host,
        name: "ps aux",
        collect: |scope, driven, _, out| process::collect(&scope.roots, &driven.processes, out),
    },
    Part { group: Group::Host, name: "snmp.udp", collect: |scope, _, _, out| snmp::collect(&scope.roots, out) },
    Part { group: Group::Df, name: "df.bytes", collect: |scope, _, _, out| df::collect(&scope.mounts()?, out) },
    Part {
        group: Group::Sockets,
        name: "ss -tln",
        collect: |scope, driven, _, out| port::collect(&scope.roots, &driven.ports, out),
    },
    Part { group: Group::Sockets, name: "ss -s", collect: |scope, _, _, out| ss::collect(&scope.roots, out) },
];

impl Part {
    /// Appends the readings of this collector alone. File systems are asked one after another: one that hangs holds
    /// whoever asks.
    pub fn collect(
        &self,
        scope: &Scope,
        driven: &Driven,
        sampler: &Sampler,
        out: &mut Vec<Reading>,
    ) -> Result<(), ProbeError> {
        (self.collect)(scope, driven, sampler, out)
    }

    /// The collector of that name.
    pub fn named(name: &str) -> Option<Part> {
        PARTS.into_iter().find(|part| part.name == name)
    }
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
        for part in PARTS.iter().filter(|part| part.group == group) {
            failures.extend(part.collect(self, driven, sampler, out).err());
        }
    }

    /// File systems that are reported, for whoever asks each by itself ([`crate::Space::of`]).
    pub fn mounts(&self) -> Result<Vec<Mounted>, ProbeError> {
        df::mounted(&self.roots, mount::Choice { points: &self.mount_points, as_original: self.container_mounts })
    }

    fn interfaces(&self, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
        let choice = iface::Choice { prefixes: &self.iface_prefixes, with_virtual: self.virtual_ifaces };
        net_if::collect(&self.roots, choice, out)
    }
}

fn alive(out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    out.push(Reading::gauge("agent.alive", "", 1.0));
    Ok(())
}

fn cpus(sampler: &Sampler, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    cpu::collect(sampler, out);
    cpu::collect_cores(sampler, out);
    Ok(())
}
