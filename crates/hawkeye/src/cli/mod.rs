//! Command line: `hawkeye server | agent | agent-key | status | backup | restore | passwd | export | apply | loadgen |
//! replay | probe | pprof | check | version`, a file per command.
//!
//! Invariants: an error is printed once, here, as one line with its causes (mistakes in files are a line each); the
//! exit code is 1, or 2 for a wrong command line. `status` and `probe` have codes of their own.

mod agent;
mod agent_key;
mod backup;
mod check;
mod client;
mod code;
mod manifest;
mod passwd;
mod pprof;
mod probe;
mod rehearsal;
mod restore;
mod server;
mod status;

use self::probe::ProbeArgs;
use crate::loadgen::{self, LoadgenArgs};
use crate::watch;
use crate::watch::log::{give_up, say};
use ::agent::AgentArgs;
use agent_key::AgentKeyArgs;
use anyhow::Result;
use backup::BackupArgs;
use check::CheckArgs;
use clap::{CommandFactory, Parser, Subcommand};
use code::{ApplyArgs, ExportArgs, Mistakes};
use passwd::PasswdArgs;
use pprof::PprofArgs;
use rehearsal::RehearsalArgs;
use restore::RestoreArgs;
use server::RunArgs;
use status::StatusArgs;
use std::collections::BTreeSet;
use std::process::ExitCode;
use supervisor::causes::line_of;

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
    /// Make the key of who says what agents run, and sign programs of agents.
    AgentKey(AgentKeyArgs),
    /// Say what a running server is, and whether all works: exit code 0 (all), 1 (not all), 2 (nobody answers).
    Status(StatusArgs),
    /// Back a data directory up, also while a server runs on it.
    Backup(BackupArgs),
    /// Make a data directory of a backup.
    Restore(RestoreArgs),
    /// Set a user's password, also while a server runs.
    Passwd(PasswdArgs),
    /// Write users, teams, groups, templates and rules as TOML files.
    Export(Box<ExportArgs>),
    /// Make users, teams, groups, templates and rules what TOML files say.
    Apply(Box<ApplyArgs>),
    /// Simulate a fleet over the agent's protocol.
    Loadgen(LoadgenArgs),
    /// Rehearse a rule: which events it would have sent over stored history.
    Replay(Box<RehearsalArgs>),
    /// Run a probe once, from here: exit code 0 (up), 1 (down), 2 (it cannot be run).
    Probe(ProbeArgs),
    /// Fetch a profile of a running server, for `go tool pprof` or as a flame graph.
    Pprof(PprofArgs),
    /// Check configuration files, of servers and agents, and print all that is wrong with them.
    Check(CheckArgs),
    /// Resolve addresses for a server that is asked for a profile.
    #[command(hide = true)]
    Symbols,
    /// Print the version.
    Version,
}

/// Environment of the process as far as it can be configuration. Variables that stand for an argument of some command,
/// such as `HAWKEYE_TOKEN`, are left out: they may be set where a server starts, and are no keys.
pub fn variables() -> Result<impl Iterator<Item = (String, String)>> {
    let arguments = variables_of(&Cli::command());
    Ok(settings::variables()?.into_iter().filter(move |(name, _)| !arguments.contains(name)))
}

/// Names of the variables that stand for arguments of `command` and of the commands below it.
fn variables_of(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).map(str::to_string);
    own.chain(command.get_subcommands().flat_map(variables_of)).collect()
}

pub fn run() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let result = match Cli::parse_from(::agent::as_ours(std::env::args_os())).command {
        Command::Server(args) => server::run(&args),
        Command::Agent(args) => agent::run(&args).map(|exit| code = exit),
        Command::AgentKey(args) => agent_key::run(&args),
        Command::Status(args) => {
            let code = status::run(&args);
            watch::log::flush();
            return code;
        }
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Passwd(args) => passwd::run(&args),
        Command::Export(args) => code::run_export(&args),
        Command::Apply(args) => code::run_apply(&args).map(|exit| code = exit),
        Command::Loadgen(args) => loadgen::run(&args),
        Command::Replay(args) => rehearsal::run(&args),
        Command::Probe(args) => {
            let code = probe::run(&args);
            watch::log::flush();
            return code;
        }
        Command::Pprof(args) => pprof::fetch(&args),
        Command::Check(args) => check::run(&args),
        Command::Symbols => watch::pprof::serve_symbols(),
        Command::Version => {
            say(format_args!("hawkeye {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    };
    watch::log::flush();
    match result {
        Ok(()) => code,
        Err(error) => {
            match error.downcast_ref::<Mistakes>() {
                Some(mistakes) => give_up(format_args!("hawkeye: {mistakes}")),
                None => give_up(format_args!("hawkeye: {}", line_of(&*error))),
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use ::agent::AgentConfig;
    use std::path::Path;

    /// Files that tell people of variables, below the root of the repository.
    const DOCUMENTS: [&str; 6] = [".", "docs", "docs/format", "bench", "fuzz", "tests/services"];

    /// Every `HAWKEYE_…` in the texts of `folder`, with the file that has it.
    fn named_in(folder: &Path) -> Vec<(String, String)> {
        let is_text = |path: &Path| {
            let ends = ["md", "toml", "sh", "py", "txt"];
            path.extension().is_some_and(|end| ends.iter().any(|text| *text == end)) || path.ends_with("Makefile")
        };
        let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let pattern = regex::Regex::new("HAWKEYE_[A-Z0-9_]*[A-Z0-9]").expect("valid");
        let names = |path: std::path::PathBuf| {
            let text = std::fs::read_to_string(&path).expect("a text");
            let names = pattern.find_iter(&text).map(|found| (found.as_str().to_string(), path.display().to_string()));
            names.collect::<Vec<_>>()
        };
        files.filter(|path| is_text(path)).flat_map(names).collect()
    }

    /// True when the server's or the agent's configuration has the key that `name` stands for.
    fn is_key(name: &str) -> bool {
        let variable = || std::iter::once((name.to_string(), "\"\"".to_string()));
        let error = match name.starts_with("HAWKEYE_AGENT__") {
            true => AgentConfig::load("", variable(), &[], "host").err(),
            false => Config::load(None, variable(), &[]).err(),
        };
        // A key that wants something else than a text says so instead.
        !error.is_some_and(|error| format!("{error:#}").contains("unknown field"))
    }

    #[test]
    fn every_variable_that_is_documented_is_a_key_or_an_argument() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let arguments = variables_of(&Cli::command());
        let named: Vec<_> = DOCUMENTS.iter().flat_map(|folder| named_in(&root.join(folder))).collect();
        for (name, file) in &named {
            assert!(arguments.contains(name) || is_key(name), "{file} names {name}, which nothing reads");
        }
        let names: BTreeSet<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["HAWKEYE_TOKEN", "HAWKEYE_PASSWORD", "HAWKEYE_LISTEN__API", "HAWKEYE_AGENT__INTERVAL"] {
            assert!(names.contains(name), "{name} is documented: {names:?}");
        }
        assert!(!is_key("HAWKEYE_TOKEN") && !is_key("HAWKEYE_AGENT__TOKENS"));
    }
}
