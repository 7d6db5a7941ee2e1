//! `hawkeye agent`: this host's agent, as the slim binary `hawkeye-agent` runs it.

use crate::watch::log;
use agent::AgentArgs;
use anyhow::Result;

pub fn run(args: &AgentArgs) -> Result<()> {
    let config = args.load()?;
    log::to_stderr(&config.log)?;
    agent::run_process(config)
}
