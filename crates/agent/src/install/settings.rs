//! Settings: the configuration that a new host gets, from the flags of the line that was copied, or from a cfg.json.
//!
//! Invariants: what is made is read again by the configuration's own reader, and a fault ends the install before
//! anything is written; only keys that differ from their defaults are in it.

use crate::config::AgentConfig;
use crate::shown::keys;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use net::tls::client::{SCHEME, Trust};
use std::path::{Path, PathBuf};
use stdx::small_file;

/// The server's ports, as of Open-Falcon.
const TRANSFER_PORT: u16 = 8433;
const HBS_PORT: u16 = 6030;
/// Bytes of a cfg.json, a token's and a certificate's file; a file of authorities has some 200 kB.
const FILE_MAX: u64 = 1 << 20;
/// The directory that systemd will give the agent, on which defaults depend.
const STATE: (&str, &str) = ("STATE_DIRECTORY", super::STATE_DIR);
/// Keys that a start fills in, and that no file needs to have for that.
const FILLED_IN: [&str; 2] = ["buffer_dir", "upgrade.dir"];

const HEAD: &str = "# Hawkeye's agent on this host, made by `hawkeye-agent install`. hawkeye-agent.example.toml has every key with its\n\
                    # default. After a change: systemctl restart hawkeye-agent\n";

/// Flags that a new configuration is made of.
#[derive(Args, Default)]
pub struct SettingsArgs {
    /// The server's name or address: points go to its port 8433, heartbeats to 6030.
    #[arg(long, value_name = "HOST")]
    server: Option<String>,
    /// A transfer, instead of the server's; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    transfer: Vec<String>,
    /// The hbs, instead of the server's.
    #[arg(long, value_name = "HOST:PORT")]
    hbs: Option<String>,
    /// The name under which this host reports, instead of the system's.
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// A file with the token that transfer and hbs ask for.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Asks transfer and hbs over TLS; wants --ca.
    #[arg(long)]
    tls: bool,
    /// Certificates of transfer and hbs, or of who signed them (PEM).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Takes newer programs from hbs that are signed by the owner of this public key.
    #[arg(long, value_name = "KEY")]
    upgrade_key: Option<String>,
    /// An Open-Falcon agent's cfg.json, whose settings are taken over; other flags are laid over it.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// A configuration that is to be written.
#[derive(Debug)]
pub struct Made {
    pub text: String,
    /// Content of the file of certificates.
    pub ca: Option<Vec<u8>>,
    /// What its owner should know of it.
    pub notes: Vec<String>,
}

impl SettingsArgs {
    /// Whether a flag asks for anything.
    pub fn says_anything(&self) -> bool {
        let SettingsArgs { server, transfer, hbs, hostname, token_file, tls, ca, upgrade_key, from } = self;
        let texts = [server, hbs, hostname, upgrade_key].iter().any(|text| text.is_some());
        texts || *tls || !transfer.is_empty() || [token_file, ca, from].iter().any(|path| path.is_some())
    }

    /// The configuration for a host whose certificates will be at `ca_path`.
    pub fn make(&self, ca_path: &str) -> Result<Made> {
        let (mut table, mut notes) = (toml::Table::new(), Vec::new());
        if let Some(path) = &self.from {
            (table, notes) = translated(path)?;
        }
        self.lay_addresses_over(&mut table)?;
        let mut put = |key: &str, text: String| table.insert(key.to_string(), text.into());
        if let Some(hostname) = &self.hostname {
            put("hostname", hostname.clone());
        }
        if let Some(path) = &self.token_file {
            let token =
                String::from_utf8(read(path)?).ok().with_context(|| format!("{} is no text", path.display()))?;
            put("token", token.trim().to_string());
        }
        let ca = self.ca.as_deref().map(read).transpose()?;
        if let Some(path) = &self.ca {
            Trust::of_file("--ca", path)?;
            put("ca", ca_path.to_string());
        }
        if let Some(key) = &self.upgrade_key {
            table.insert(
                "upgrade".to_string(),
                toml::Table::from_iter([("public_key".to_string(), key.as_str().into())]).into(),
            );
        }
        let text = format!("{HEAD}{}", toml::to_string(&table).context("cannot write the configuration")?);
        let config = load(&text).context("these flags make no configuration")?;
        if config.hbs_addr.is_empty() {
            notes.push(
                "there is no hbs, and so no heartbeat, no plugins, no probes and no upgrades: give --hbs HOST:PORT, or --server"
                    .to_string(),
            );
        }
        if config.plugin.enabled && config.plugin.dir.is_relative() {
            notes.push(format!(
                "plugin.dir is {}: it was meant from the old agent's directory, so give an absolute path",
                config.plugin.dir.display()
            ));
        }
        Ok(Made { text, ca, notes })
    }

    fn lay_addresses_over(&self, table: &mut toml::Table) -> Result<()> {
        let scheme = if self.tls { SCHEME } else { "" };
        let of_server = |port: u16| {
            let host = self.server.as_ref()?;
            // An IPv6 address stands in brackets before a port.
            let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
            Some(if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
        };
        let transfers: Vec<String> = match self.transfer.is_empty() {
            true => of_server(TRANSFER_PORT).into_iter().collect(),
            false => self.transfer.clone(),
        };
        if transfers.is_empty() && !table.contains_key("transfer_addrs") {
            bail!("nothing says where points go: give --server HOST, or --transfer HOST:PORT, or --from cfg.json");
        }
        let hbs = self.hbs.clone().or_else(|| of_server(HBS_PORT));
        ensure!(!self.tls || hbs.is_some() || !transfers.is_empty(), "--tls is for --server, --transfer and --hbs");
        if !transfers.is_empty() {
            let transfers: Vec<toml::Value> = transfers.iter().map(|place| format!("{scheme}{place}").into()).collect();
            table.insert("transfer_addrs".to_string(), transfers.into());
        }
        match hbs {
            Some(hbs) => drop(table.insert("hbs_addr".to_string(), format!("{scheme}{hbs}").into())),
            // The default is for an agent beside its server.
            None if !table.contains_key("hbs_addr") => drop(table.insert("hbs_addr".to_string(), "".into())),
            None => {}
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    small_file::read(path, FILE_MAX).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a configuration as the agent will.
fn load(text: &str) -> Result<AgentConfig> {
    let state = std::iter::once((STATE.0.to_string(), STATE.1.to_string()));
    AgentConfig::load(text, state, &[], &crate::system_hostname())
}

/// The keys of a cfg.json in which it differs from the defaults, and what of it has no meaning here.
fn translated(path: &Path) -> Result<(toml::Table, Vec<String>)> {
    let text = String::from_utf8(read(path)?).ok().with_context(|| format!("{} is no text", path.display()))?;
    ensure!(settings::is_json(Some(path), &text), "--from is {}: give an Open-Falcon agent's cfg.json", path.display());
    let original = load(&text).with_context(|| format!("cannot take {} over", path.display()))?;
    let mut table = toml::Table::new();
    let always = ["transfer_addrs", "hbs_addr"];
    for (key, default) in keys(&original).into_iter().zip(keys(&load("")?)) {
        let is_told = key.value != default.value || always.contains(&key.name);
        if !is_told || FILLED_IN.contains(&key.name) {
            continue;
        }
        let value = toml::Value::try_from(&key.value).with_context(|| format!("cannot write {}", key.name))?;
        match key.name.split_once('.') {
            None => drop(table.insert(key.name.to_string(), value)),
            Some((section, name)) => {
                let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
                section.as_table_mut().context("a section is a table")?.insert(name.to_string(), value);
            }
        }
    }
    let ignored = &original.ignored_keys;
    let notes = (!ignored.is_empty()).then(|| format!("of {} left out: {}", path.display(), ignored.join(", ")));
    Ok((table, notes.into_iter().collect()))
}
