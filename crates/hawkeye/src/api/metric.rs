//! Metric names to choose from when a strategy is written: what Open-Falcon's agent reports of every host.
//!
//! Compat: the original serves the lines of a file, the last of them empty; its clients skip that one.

use super::Context;
use super::auth::Caller;
use super::error::{Answer, json};
use axum::Router;
use axum::routing::get;

/// Routes of names of metrics.
pub fn routes() -> Router<Context> {
    Router::new().route("/metric/default_list", get(list))
}

/// Names, one a line, in byte order; without the many of TcpExt, which nobody judges by hand.
const NAMES: &str = "\
agent.alive
cpu.busy
cpu.cnt
cpu.guest
cpu.idle
cpu.iowait
cpu.irq
cpu.nice
cpu.softirq
cpu.steal
cpu.switches
cpu.system
cpu.user
df.bytes.free
df.bytes.free.percent
df.bytes.total
df.bytes.used
df.bytes.used.percent
df.inodes.free
df.inodes.free.percent
df.inodes.total
df.inodes.used
df.inodes.used.percent
df.statistics.total
df.statistics.used
df.statistics.used.percent
disk.io.avgqu-sz
disk.io.avgrq_sz
disk.io.await
disk.io.ios_in_progress
disk.io.msec_read
disk.io.msec_total
disk.io.msec_weighted_total
disk.io.msec_write
disk.io.read_bytes
disk.io.read_merged
disk.io.read_requests
disk.io.read_sectors
disk.io.svctm
disk.io.util
disk.io.write_bytes
disk.io.write_merged
disk.io.write_requests
disk.io.write_sectors
du.bs
kernel.files.allocated
kernel.files.left
kernel.maxfiles
kernel.maxproc
load.15min
load.1min
load.5min
mem.memfree
mem.memfree.percent
mem.memtotal
mem.memused
mem.memused.percent
mem.swapfree
mem.swapfree.percent
mem.swaptotal
mem.swapused
mem.swapused.percent
net.if.in.bytes
net.if.in.compressed
net.if.in.dropped
net.if.in.errors
net.if.in.fifo.errs
net.if.in.frame.errs
net.if.in.multicast
net.if.in.packets
net.if.out.bytes
net.if.out.carrier.errs
net.if.out.collisions
net.if.out.compressed
net.if.out.dropped
net.if.out.errors
net.if.out.fifo.errs
net.if.out.packets
net.if.total.bytes
net.if.total.dropped
net.if.total.errors
net.if.total.packets
net.port.listen
proc.num
ss.closed
ss.estab
ss.orphaned
ss.slabinfo.timewait
ss.timewait
url.check.health
";

async fn list(_caller: Caller) -> Answer {
    json(NAMES.split('\n').collect::<Vec<_>>())
}
