//! Command line: `hawkeye server | agent | loadgen | check | version`.
//!
//! An error is printed once, here, as one line with its causes; the exit code is 1, or 2 for a wrong command line.

use crate::config::Config;
use crate::role::agent::{self, AgentArgs};
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "hawkeye", version, about = "Open-Falcon's job in one binary", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Report this host's metrics to a transfer.
    Agent(AgentArgs),
    /// Check a configuration file and print what is wrong with it.
    Check(ServerArgs),
    /// Print the version.
    Version,
}

#[derive(clap::Args)]
struct ServerArgs {
    /// The TOML file; without it the embedded defaults are used (see hawkeye.example.toml).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides data_dir.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Overrides roles, e.g. `--roles transfer,graph`.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    roles: Vec<String>,
    /// Overrides any key, e.g. `--set listen.api=0.0.0.0:8080`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ServerArgs {
    fn load(&self) -> Result<Config> {
        let mut flags: Vec<(&str, String)> = Vec::new();
        for pair in &self.set {
            let (key, value) = pair.split_once('=').ok_or_else(|| anyhow::anyhow!("--set {pair}: want KEY=VALUE"))?;
            flags.push((key, value.to_string()));
        }
        if let Some(dir) = &self.data_dir {
            flags.push(("data_dir", format!("{:?}", dir.display().to_string())));
        }
        if !self.roles.is_empty() {
            flags.push(("roles", format!("{:?}", self.roles)));
        }
        Config::load(self.config.as_deref(), std::env::vars(), &flags)
    }
}

pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Agent(args) => agent::start(&args),
        Command::Check(args) => args.load().map(|_| println!("the configuration is fine")),
        Command::Version => {
            println!("hawkeye {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hawkeye: {error:#}");
            ExitCode::FAILURE
        }
    }
}
