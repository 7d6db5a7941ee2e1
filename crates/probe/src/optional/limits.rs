//! Limits: how much of what the kernel has only so much of is in use: descriptors, threads, tracked connections.
//!
//! Compat: `kernel.files.allocated` and `kernel.maxfiles` are the original's and are always there; what is here are the
//! share of them, and limits that the original does not know. Without the module nf_conntrack nothing is tracked and
//! there is nothing to report.

use crate::reading::{Reading, percent};
use crate::roots::{ProbeError, Roots, TextFile};

/// Collects use, limit and share of each.
pub fn collect(roots: &Roots, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    let files = roots.read_proc("sys/fs/file-nr")?;
    let (allocated, files_max) = (number(&files, 0)?, number(&files, 2)?);
    out.push(Reading::gauge("kernel.files.used.percent", "", percent(allocated, files_max)));

    let threads = threads(&roots.read_proc("loadavg")?)?;
    let threads_max = number(&roots.read_proc("sys/kernel/threads-max")?, 0)?;
    out.push(Reading::gauge("kernel.threads", "", threads as f64));
    out.push(Reading::gauge("kernel.threads.max", "", threads_max as f64));
    out.push(Reading::gauge("kernel.threads.used.percent", "", percent(threads, threads_max)));

    let (count, max) = ("sys/net/netfilter/nf_conntrack_count", "sys/net/netfilter/nf_conntrack_max");
    let count = match roots.read_proc(count) {
        Err(error) if error.is_absent() => return Ok(()),
        file => number(&file?, 0)?,
    };
    let max = number(&roots.read_proc(max)?, 0)?;
    out.push(Reading::gauge("net.conntrack.count", "", count as f64));
    out.push(Reading::gauge("net.conntrack.max", "", max as f64));
    out.push(Reading::gauge("net.conntrack.used.percent", "", percent(count, max)));
    Ok(())
}

fn number(file: &TextFile, index: usize) -> Result<u64, ProbeError> {
    let word = file.text.split_whitespace().nth(index);
    word.and_then(|word| word.parse().ok()).ok_or_else(|| file.missing("number"))
}

/// All threads of the host: the fourth word of `loadavg` is `running/all`.
fn threads(file: &TextFile) -> Result<u64, ProbeError> {
    let pair = file.text.split_whitespace().nth(3).and_then(|word| word.split_once('/'));
    pair.and_then(|(_, all)| all.parse().ok()).ok_or_else(|| file.missing("number of threads"))
}
