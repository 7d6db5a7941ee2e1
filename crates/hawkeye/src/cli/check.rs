//! `hawkeye check`: everything that is wrong with configuration files, before anything is started with them.
//!
//! How: each file is read as a start would read it, with the variables of the environment over it. Whether it is a
//! server's, an agent's, or the cfg.json of an Open-Falcon agent is seen from what is in it: JSON is an agent's, and
//! TOML is what it has fewer unknown keys as. Who gives a server's flags means a server, and so does who names the file
//! by `--config`, as `hawkeye server` does, and has set variables of a server: the check is then of what would start.
//! Invariants: each fault of each file is a line, and so is each listener that is set in vain, which is no fault;
//! nothing is opened but the files, and those that they name (`tls`, `ingest.token_file`).

use super::server::ServerArgs;
use crate::config::Config;
use crate::watch::log::{give_up, say};
use agent::{AgentArgs, AgentConfig};
use anyhow::{Error, Result, bail};
use settings::Faults;
use std::path::{Path, PathBuf};
use supervisor::causes::{line_of, one_line};

#[derive(clap::Args)]
pub struct CheckArgs {
    /// Files to check: a server's, an agent's, or an Open-Falcon agent's cfg.json; with a server's flags each is a
    /// server's.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// An agent's file, or an Open-Falcon agent's cfg.json, whatever is in it; may be repeated.
    #[arg(long, value_name = "FILE")]
    agent: Vec<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

pub fn run(args: &CheckArgs) -> Result<()> {
    let mut count = 0;
    if args.files.is_empty() && args.agent.is_empty() && args.server.file().is_none() {
        count +=
            tell("the configuration", args.server.load().and_then(|config| check_files("the configuration", &config)));
    }
    let by_flags = args.server.has_flags();
    let configured = args.server.file().map(|file| (file, by_flags || has_variables_of_a_server()));
    for (file, is_servers) in configured.into_iter().chain(args.files.iter().map(|file| (file, by_flags))) {
        let checked = if is_servers { check_server(&args.server, file) } else { check(&args.server, file) };
        count += tell(&file.display().to_string(), checked);
    }
    for file in &args.agent {
        count += tell(&file.display().to_string(), load_agent(file).map(|_| "an agent"));
    }
    match count {
        0 => Ok(()),
        1 => bail!("1 fault in all"),
        count => bail!("{count} faults in all"),
    }
}

/// Whether the environment has keys of a server; an agent's, and arguments of other commands, are none.
fn has_variables_of_a_server() -> bool {
    let is_servers = |name: &str| name.starts_with("HAWKEYE_") && !name.starts_with("HAWKEYE_AGENT__");
    // A variable that is no text is told where the configuration is read.
    super::variables().is_ok_and(|mut variables| variables.any(|(name, _)| is_servers(&name)))
}

/// Reads `file` as a server does, with flags and variables over it.
fn check_server(server: &ServerArgs, file: &Path) -> Result<&'static str> {
    let config = server.with_file(file.to_path_buf()).load()?;
    check_files(&file.display().to_string(), &config)
}

/// Reads `file` as what it seems to be, and answers that.
fn check(server: &ServerArgs, file: &Path) -> Result<&'static str> {
    // A file that cannot be read is told below.
    if std::fs::read_to_string(file).is_ok_and(|text| settings::is_json(Some(file), &text)) {
        return load_agent(file).map(|_| "an agent");
    }
    let as_server = match server.with_file(file.to_path_buf()).load() {
        Ok(config) => return check_files(&file.display().to_string(), &config),
        Err(error) => error,
    };
    match load_agent(file) {
        Ok(_) => Ok("an agent"),
        Err(as_agent) if weight(&as_agent) < weight(&as_server) => Err(as_agent),
        Err(_) => Err(as_server),
    }
}

/// Looks at the files that a server's configuration names, and says what a start would warn of.
fn check_files(what: &str, config: &Config) -> Result<&'static str> {
    config.tls.check_files()?;
    config.ingest.secret()?;
    for text in config.remarks() {
        say(format_args!("{what}: {text}"));
    }
    Ok("a server")
}

fn load_agent(file: &Path) -> Result<AgentConfig> {
    AgentArgs::of_file(file.to_path_buf()).load()
}

/// How many keys of a file are unknown, and how many faults there are; a file that cannot be read at all has the most.
fn weight(error: &Error) -> (usize, usize) {
    error.downcast_ref::<Faults>().map_or((usize::MAX, usize::MAX), |faults| {
        let unknown = faults.texts().iter().filter(|text| text.contains("unknown field")).count();
        (unknown, faults.texts().len())
    })
}

/// Prints what was found in `what`, and answers how many faults that are.
fn tell(what: &str, result: Result<&'static str>) -> usize {
    let error = match result {
        Ok(whose) => {
            say(format_args!("{what} is fine, for {whose}"));
            return 0;
        }
        Err(error) => error,
    };
    match error.downcast_ref::<Faults>() {
        Some(faults) => {
            for fault in faults.texts() {
                give_up(format_args!("{what}: {}", one_line(fault)));
            }
            faults.texts().len()
        }
        None => {
            let line = line_of(&*error);
            let told = format!("configuration {what}: ");
            give_up(format_args!("{what}: {}", line.strip_prefix(&told).unwrap_or(&line)));
            1
        }
    }
}
