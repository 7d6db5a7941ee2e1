//! Limits: what the system allows this process, and what happens where that is too little.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Raises the limit of open files to what is allowed, and answers it. Each connection is a descriptor, and the usual
/// soft limit of 1024 is far below `connections_max`.
pub fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Makes a limit on the size of files an error of the write, and not the end of the process, for as long as the process
/// runs. Call this within a runtime.
pub fn outlive_file_size_limit() -> Result<()> {
    let file_too_large = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // Nobody waits for it; the handler stays when this is dropped.
    signal(file_too_large).map(drop).context("cannot handle SIGXFSZ")
}
