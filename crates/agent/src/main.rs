//! `hawkeye-agent`: the agent alone, for hosts that run nothing else of Hawkeye.
//!
//! Invariants: an error is printed once, as one line with its causes; the exit code is 1, or 2 for a wrong command
//! line.
//! Compat: `-c`, `-v` and `-check` are the original's.

use agent::{AgentArgs, as_ours, check_process, run_process};
use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;
use supervisor::causes::line_of;
use supervisor::log;

#[derive(Parser)]
#[command(name = "hawkeye-agent", version, about = "Collects this host's metrics and sends them to a transfer")]
#[command(disable_version_flag = true)]
struct Cli {
    /// Prints the version.
    #[arg(short = 'V', short_alias = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    args: AgentArgs,
}

fn main() -> ExitCode {
    match run(&Cli::parse_from(as_ours(std::env::args_os())).args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::give_up(format_args!("hawkeye-agent: {}", line_of(&*error)));
            ExitCode::FAILURE
        }
    }
}

/// Runs until it is told to end, or checks; false where a check has found something.
fn run(args: &AgentArgs) -> Result<bool> {
    let config = args.load()?;
    log::to_stderr(&config.log)?;
    let result = if args.is_check() { check_process(config) } else { run_process(config).map(|()| true) };
    log::flush();
    result
}
