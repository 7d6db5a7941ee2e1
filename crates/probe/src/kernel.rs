//! Kernel limits: open files and processes.

use crate::reading::Reading;
use crate::roots::{ProbeError, Roots};

pub(crate) fn collect(roots: &Roots, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    out.push(Reading::gauge("kernel.maxproc", "", first_number(roots, "sys/kernel/pid_max")? as f64));
    let max_files = first_number(roots, "sys/fs/file-max")?;
    out.push(Reading::gauge("kernel.maxfiles", "", max_files as f64));
    let allocated = first_number(roots, "sys/fs/file-nr")?;
    out.push(Reading::gauge("kernel.files.allocated", "", allocated as f64));
    // Root may open more than the limit: none left then, where the original wraps around.
    out.push(Reading::gauge("kernel.files.left", "", max_files.saturating_sub(allocated) as f64));
    Ok(())
}

fn first_number(roots: &Roots, name: &str) -> Result<u64, ProbeError> {
    let file = roots.read_proc(name)?;
    let number = file.text.split_whitespace().next().and_then(|field| field.parse().ok());
    number.ok_or_else(|| file.missing("number"))
}
