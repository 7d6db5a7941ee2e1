//! Command line: `hawkeye server | agent | loadgen | replay | pprof | check | version`, a file per command.
//!
//! Invariants: an error is printed once, here, as one line with its causes; the exit code is 1, or 2 for a wrong
//! command line.

mod agent;
mod pprof;
mod rehearsal;
mod server;

use crate::loadgen::{self, LoadgenArgs};
use crate::watch;
use ::agent::AgentArgs;
use clap::{Parser, Subcommand};
use pprof::PprofArgs;
use rehearsal::RehearsalArgs;
use server::{RunArgs, ServerArgs};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "hawkeye", version, about = "Open-Falcon's job in one binary", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run transfer, judge, graph, hbs, alarm and api.
    Server(RunArgs),
    /// Run this host's agent.
    Agent(AgentArgs),
    /// Simulate a fleet over the agent's protocol.
    Loadgen(LoadgenArgs),
    /// Rehearse a rule: which events it would have sent over stored history.
    Replay(Box<RehearsalArgs>),
    /// Fetch a profile of a running server, for `go tool pprof` or as a flame graph.
    Pprof(PprofArgs),
    /// Check a configuration file and print what is wrong with it.
    Check(ServerArgs),
    /// Resolve addresses for a server that is asked for a profile.
    #[command(hide = true)]
    Symbols,
    /// Print the version.
    Version,
}

pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Server(args) => server::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Loadgen(args) => loadgen::run(&args),
        Command::Replay(args) => rehearsal::run(&args),
        Command::Pprof(args) => pprof::fetch(&args),
        Command::Check(args) => args.load().map(|_| println!("the configuration is fine")),
        Command::Symbols => watch::pprof::serve_symbols(),
        Command::Version => {
            println!("hawkeye {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hawkeye: {}", one_line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// Folds the lines of a text into one: some libraries spread an error over several.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
