//! Process: an agent as a program of its own, until it is told to stop.
//!
//! Memory: one runtime thread and at most [`BLOCKING_MAX`] for `/proc`, so that the agent is small on every host.

use crate::collect::HANGING_MAX;
use crate::mounts::HUNG_MAX;
use crate::upgrade::{Launcher, launch};
use crate::{AgentArgs, AgentConfig, run_alone};
use anyhow::{Context, Result, bail};
use std::sync::Arc;
use supervisor::log;
use supervisor::signals::Signals;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// Threads for work that may hang: one for each group of collectors that may hang on a mount or a process (four that
/// are always there, and four that can be switched on), one for the buffer's disk, one for the plugin directory, one
/// for the configuration that is read again, one for newer programs, one for name resolution, one for each mount that
/// hangs, and one for each log and some certificates. A thread is there while it works.
const BLOCKING_MAX: usize = 13 + HUNG_MAX + HANGING_MAX;

/// Runs the program `hawkeye-agent`, or the newer one that this host has taken in its place.
pub fn run_program(args: &AgentArgs) -> Result<()> {
    let (launcher, told) = launch(args.upgrade());
    let config = args.load()?;
    log::to_stderr(&config.log)?;
    for trouble in told {
        tracing::warn!(trouble, "a newer program does not run");
    }
    run(config, launcher.clone())?;
    log::flush();
    launcher.and_then(|launcher| launcher.begin_anew()).map_or(Ok(()), |error| bail!("{error}"))
}

/// Runs until SIGINT or SIGTERM; a second one ends the process at once. Takes no newer programs: this one may be
/// another's, as the server's is.
pub fn run_process(config: AgentConfig) -> Result<()> {
    if config.upgrade.is_on() {
        tracing::warn!("upgrade.public_key is for the program hawkeye-agent: this one is not upgraded");
    }
    run(config, None)
}

fn run(config: AgentConfig, launcher: Option<Launcher>) -> Result<()> {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let (stop, stopping) = watch::channel(false);
        let stop = Arc::new(stop);
        let exit = stop.clone();
        tokio::spawn(async move {
            signals.asked().await;
            stop.send_replace(true);
            signals.end_at_once_when_asked_again();
        });
        run_alone(config, exit, launcher, stopping).await
    });
    // A collection that hangs on a dead mount must not hold the process.
    runtime.shutdown_background();
    result
}

/// The runtime of an agent.
pub fn runtime() -> Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(BLOCKING_MAX).build().context("cannot start the runtime")
}
