//! `hawkeye server`, and the flags that say which configuration is meant, which `hawkeye check` shares.

use crate::config::Config;
use crate::server::{self, Anew};
use crate::watch::log;
use agent::AgentConfig;
use anyhow::{Context, Result};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Run this host's agent in the same process; the agent stops before the server, so no point is lost.
    #[arg(long)]
    with_agent: bool,
    /// Begin with an empty portal where portal.db is missing or empty, although points, events or rules were stored
    /// here: all users, rules and open alarms are gone then. Without this such a start is refused.
    #[arg(long)]
    new_portal: bool,
    /// Begin with an empty store where the folder store is missing or empty, although rules or events were stored here:
    /// all history is gone then, and open alarms are closed. Without this such a start is refused.
    #[arg(long)]
    new_store: bool,
}

#[derive(clap::Args, Clone)]
pub struct ServerArgs {
    /// The TOML file; without it the embedded defaults are used (see hawkeye.example.toml).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory, in place of the configuration's data_dir.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The roles, in place of the configuration's, e.g. `--roles graph`.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    roles: Vec<String>,
    /// Sets any key of the configuration, e.g. `--set listen.api=0.0.0.0:8080`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ServerArgs {
    /// The flags with another file in place of the configuration's.
    pub fn with_file(&self, file: PathBuf) -> ServerArgs {
        ServerArgs { config: Some(file), ..self.clone() }
    }

    /// Whether any flag says what a server is to be, besides its file.
    pub fn has_flags(&self) -> bool {
        self.data_dir.is_some() || !self.roles.is_empty() || !self.set.is_empty()
    }

    /// The configuration's file, if one is named.
    pub fn file(&self) -> Option<&PathBuf> {
        self.config.as_ref()
    }

    /// The data directory's absolute path: where it is meant from the directory that one is in, whoever reads a message
    /// sees which one that was.
    pub fn data_dir(&self) -> Result<PathBuf> {
        let dir = self.load()?.data_dir;
        std::path::absolute(&dir).with_context(|| format!("cannot say where {} is", dir.display()))
    }

    pub fn load(&self) -> Result<Config> {
        let mut flags: Vec<(&str, String)> = Vec::new();
        for pair in &self.set {
            let (key, value) = settings::pair(pair)?;
            flags.push((key, value.to_string()));
        }
        if let Some(dir) = &self.data_dir {
            flags.push(("data_dir", format!("{:?}", dir.display().to_string())));
        }
        if !self.roles.is_empty() {
            flags.push(("roles", format!("{:?}", self.roles)));
        }
        Config::load(self.config.as_deref(), super::variables()?, &flags)
    }
}

pub fn run(args: &RunArgs) -> Result<()> {
    let config = args.server.load()?;
    log::to_stderr(&config.log)?;
    let agent = if args.with_agent { Some(agent_beside(&config)?) } else { None };
    server::run(config, agent, Anew { portal: args.new_portal, store: args.new_store })
}

/// The agent in the server's process: its defaults, with the server's own addresses.
fn agent_beside(server: &Config) -> Result<AgentConfig> {
    let listen = &server.listen;
    let text = format!("transfer_addrs = [{:?}]\nhbs_addr = {:?}", listen.transfer_rpc, listen.hbs_rpc);
    // The directory that systemd gives is the server's; an agent that ends with its transfer has little to keep.
    let variables = settings::variables()?.into_iter().filter(|(name, _)| name != "STATE_DIRECTORY");
    let config = AgentConfig::load(&text, variables, &[], &agent::system_hostname());
    let mut config = config.context("the agent beside the server")?;
    config.token = server.ingest.secret()?.unwrap_or_default();
    // The server's flags and file do not reach this agent.
    config.agent_http_key = ("the agent's listen.agent_http", "variable HAWKEYE_AGENT__LISTEN__AGENT_HTTP=HOST:PORT");
    Ok(config)
}
