//! `hawkeye-agent`: the agent alone, for hosts that run nothing else of Hawkeye.
//!
//! Invariants: an error is printed once, as one line with its causes; the exit code is 1, or 2 for a wrong command
//! line.

use agent::{AgentArgs, run_process};
use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;
use supervisor::causes::line_of;
use supervisor::log;

#[derive(Parser)]
#[command(name = "hawkeye-agent", version, about = "Collects this host's metrics and sends them to a transfer")]
struct Cli {
    #[command(flatten)]
    args: AgentArgs,
}

fn main() -> ExitCode {
    match run(&Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::give_up(format_args!("hawkeye-agent: {}", line_of(&*error)));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &AgentArgs) -> Result<()> {
    let config = args.load()?;
    log::to_stderr(&config.log)?;
    let result = run_process(config);
    log::flush();
    result
}
