//! `hawkeye-agent`: the agent alone, for hosts that run nothing else of Hawkeye.
//!
//! Invariants: an error is printed once, as one line with its causes; the exit code is 1, or 2 for a wrong command
//! line.

use agent::install::{InstallArgs, UninstallArgs, install, uninstall};
use agent::{AgentArgs, run_program};
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use supervisor::causes::line_of;
use supervisor::log;

#[derive(Parser)]
#[command(name = "hawkeye-agent", version, about = "Collects this host's metrics and sends them to a transfer")]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    args: AgentArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Install this program as a service of systemd, with a user and a configuration (docs/agent-install.md).
    Install(Box<InstallArgs>),
    /// Take away what `install` made; the configuration stays.
    Uninstall(UninstallArgs),
    /// Check a configuration, and do nothing else. A newer program is asked so before it is taken.
    CheckConfig(AgentArgs),
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::give_up(format_args!("hawkeye-agent: {}", line_of(&*error)));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        None => run_program(&cli.args),
        Some(Command::Install(args)) => install(args),
        Some(Command::Uninstall(args)) => uninstall(args),
        Some(Command::CheckConfig(args)) => args.load().map(|_| log::say("hawkeye-agent: the configuration is fine")),
    }
}
