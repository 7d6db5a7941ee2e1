//! TcpExt: what TCP had to drop, retry or abort.

use crate::reading::Reading;
use crate::roots::{ProbeError, Roots};
use crate::text::columns;

/// Columns that the original reports, as far as the kernel has them.
const REPORTED: [&str; 23] = [
    "PruneCalled",
    "LockDroppedIcmps",
    "ArpFilter",
    "TW",
    "DelayedACKLocked",
    "ListenOverflows",
    "ListenDrops",
    "TCPPrequeueDropped",
    "TCPTSReorder",
    "TCPDSACKUndo",
    "TCPLoss",
    "TCPLostRetransmit",
    "TCPLossFailures",
    "TCPFastRetrans",
    "TCPTimeouts",
    "TCPSchedulerFailed",
    "TCPAbortOnMemory",
    "TCPAbortOnTimeout",
    "TCPAbortFailed",
    "TCPMemoryPressures",
    "TCPSpuriousRTOs",
    "TCPBacklogDrop",
    "TCPMinTTLDrop",
];

pub(crate) fn collect(roots: &Roots, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    let file = roots.read_net("netstat")?;
    for (name, value) in columns(&file.text, "TcpExt").ok_or_else(|| file.missing("TcpExt"))? {
        if REPORTED.contains(&name) {
            out.push(Reading::counter(format!("TcpExt.{name}"), "", value as f64));
        }
    }
    Ok(())
}
