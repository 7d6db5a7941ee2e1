//! `hawkeye-agent`: the agent alone, for hosts that run nothing else of Hawkeye.
//!
//! Invariants: an error is printed once, as one line with its causes; the exit code is 1, or 2 for a wrong command
//! line.
//! Compat: `-c`, `-v` and `-check` are the original's.

use agent::install::{InstallArgs, UninstallArgs, install, uninstall};
use agent::{AgentArgs, as_ours, check_process, run_program};
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use supervisor::causes::line_of;
use supervisor::log;

#[derive(Parser)]
#[command(name = "hawkeye-agent", version, about = "Collects this host's metrics and sends them to a transfer")]
#[command(disable_version_flag = true, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Prints the version.
    #[arg(short = 'V', short_alias = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
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
    match run(&Cli::parse_from(as_ours(std::env::args_os()))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::give_up(format_args!("hawkeye-agent: {}", line_of(&*error)));
            ExitCode::FAILURE
        }
    }
}

/// Runs until it is told to end, or does what a command says; false where a check has found something.
fn run(cli: &Cli) -> Result<bool> {
    match &cli.command {
        None if cli.args.is_check() => {
            let config = cli.args.load()?;
            log::to_stderr(&config.log)?;
            let result = check_process(config);
            log::flush();
            return result;
        }
        None => run_program(&cli.args)?,
        Some(Command::Install(args)) => install(args)?,
        Some(Command::Uninstall(args)) => uninstall(args)?,
        Some(Command::CheckConfig(args)) => {
            args.load()?;
            log::say("hawkeye-agent: the configuration is fine");
        }
    }
    Ok(true)
}
