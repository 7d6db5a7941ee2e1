//! `hawkeye-agent`: the agent alone, for hosts that run nothing else of Hawkeye.
//!
//! Invariants: an error is printed once, as one line with its causes; the exit code is 1, or 2 for a wrong command
//! line.

use agent::{AgentArgs, run_process};
use anyhow::{Context, Result};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

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
            let text = format!("{error:#}");
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let _ = writeln!(std::io::stderr(), "hawkeye-agent: {}", lines.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &AgentArgs) -> Result<()> {
    let config = args.load()?;
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| config.log.clone());
    let filter = EnvFilter::try_new(&filter).with_context(|| {
        format!("log is {filter:?} (key log, or RUST_LOG): give a filter like \"info\" or \"agent=debug,warn\"")
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false).init();
    run_process(config)
}
