//! `hawkeye agent`: this host's agent, as the slim binary `hawkeye-agent` runs it.

use crate::watch::log;
use agent::AgentArgs;
use anyhow::Result;
use std::process::ExitCode;

/// Runs until it is told to end, or checks.
pub fn run(args: &AgentArgs) -> Result<ExitCode> {
    let config = args.load()?;
    log::to_stderr(&config.log)?;
    if args.is_check() {
        return Ok(if agent::check_process(config)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    agent::run_process(config).map(|()| ExitCode::SUCCESS)
}
