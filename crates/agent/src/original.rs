//! Original: Open-Falcon's cfg.json, as far as it has a meaning here.
//!
//! How: the file is read as Go reads it (a null and a section that is absent are off) and translated into
//! [`AgentConfig`]; [`KEYS`] has the names of its own keys, for whoever is told of a fault.
//! Invariants: what it has beyond our keys is no fault, and is named in `ignored_keys`; no error repeats a text of the
//! file, which may hold a password.
//! Compat: docs/open-falcon/agent.md §1. An address without a host means what it means in Go: every address to listen
//! on, this host to connect to.

use super::config::{AgentConfig, AgentListen, Keys, Rates};
use super::plugin_config::PluginConfig;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer};
use settings::Faults;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How a cfg.json calls what is checked.
pub(crate) const KEYS: Keys = Keys {
    transfer_addrs: "transfer.addrs",
    no_transfer: "switch transfer.enabled on, and name at least one transfer, e.g. [\"127.0.0.1:8433\"]",
    hbs_addr: "heartbeat.addr",
    no_hbs: "\"enabled\": false in heartbeat for none",
    agent_http: "http.listen",
    no_door: "\"enabled\": false in http to turn it off",
    interval: "transfer.interval",
    heartbeat_interval: "heartbeat.interval",
    seconds: "a number from 1 to 86400",
    connect_timeout: "transfer.timeout",
    milliseconds: "a number from 1 to 3600000",
};

/// Reads the text of a cfg.json.
pub fn read(text: &str, faults: &mut Faults) -> Result<AgentConfig> {
    let value: serde_json::Value = serde_json::from_str(text).context("cannot parse the cfg.json")?;
    let serde_json::Value::Object(members) = value else { bail!("the cfg.json is no JSON object: begin it with {{") };
    let original: Original = settings::read(table_of(members), faults).context("cannot read the cfg.json")?;
    Ok(original.translate())
}

/// Keys of a cfg.json that have a meaning here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Original {
    hostname: String,
    ip: String,
    debug: bool,
    heartbeat: OriginalHeartbeat,
    transfer: OriginalTransfer,
    http: OriginalHttp,
    collector: OriginalCollector,
    plugin: OriginalPlugin,
    #[serde(deserialize_with = "null_as_default")]
    default_tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    ignore: BTreeMap<String, bool>,
    #[serde(flatten)]
    rest: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
#[serde(default)]
struct OriginalHeartbeat {
    enabled: bool,
    addr: String,
    interval: i64,
}

#[derive(Deserialize)]
#[serde(default)]
struct OriginalTransfer {
    enabled: bool,
    #[serde(deserialize_with = "null_as_default")]
    addrs: Vec<String>,
    interval: i64,
    /// The time to connect, in milliseconds.
    timeout: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OriginalHttp {
    enabled: bool,
    listen: String,
    backdoor: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OriginalCollector {
    #[serde(deserialize_with = "null_as_default")]
    iface_prefix: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    mount_point: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OriginalPlugin {
    enabled: bool,
    dir: String,
    git: String,
    logs: String,
}

/// A section that is absent is off, as in Go.
impl Default for OriginalHeartbeat {
    fn default() -> Self {
        OriginalHeartbeat { enabled: false, addr: String::new(), interval: 60 }
    }
}

impl Default for OriginalTransfer {
    fn default() -> Self {
        OriginalTransfer { enabled: false, addrs: Vec::new(), interval: 60, timeout: 1000 }
    }
}

impl Original {
    fn translate(self) -> AgentConfig {
        let mut ignored_keys: Vec<String> = self.rest.into_keys().collect();
        if self.http.backdoor {
            ignored_keys.push("http.backdoor".into());
        }
        let transfer_addrs = if self.transfer.enabled { self.transfer.addrs } else { Vec::new() };
        let hbs_addr = if self.heartbeat.enabled { connect_address(self.heartbeat.addr) } else { String::new() };
        let agent_http = if self.http.enabled { listen_address(self.http.listen) } else { String::new() };
        AgentConfig {
            hostname: self.hostname,
            ip: self.ip,
            transfer_addrs: transfer_addrs.into_iter().map(connect_address).collect(),
            hbs_addr,
            interval: self.transfer.interval,
            heartbeat_interval: self.heartbeat.interval,
            connect_timeout: Duration::from_millis(self.transfer.timeout),
            // What an original agent reported goes on, and means what it meant.
            rates: Rates::LastSecond,
            iface_prefixes: self.collector.iface_prefix,
            virtual_ifaces: true,
            mount_points: self.collector.mount_point,
            container_mounts: true,
            ignore: self.ignore.into_iter().filter(|(_, ignored)| *ignored).map(|(metric, _)| metric).collect(),
            default_tags: self.default_tags,
            log: if self.debug { "agent=debug,info".into() } else { AgentConfig::default().log },
            listen: AgentListen { agent_http, ..AgentListen::default() },
            plugin: PluginConfig {
                enabled: self.plugin.enabled,
                dir: here_for_none(self.plugin.dir),
                git: self.plugin.git.trim().to_string(),
                logs: here_for_none(self.plugin.logs),
                user: String::new(),
            },
            ignored_keys,
            agent_http_key: ("http.listen", "in the cfg.json"),
            ..AgentConfig::default()
        }
    }
}

/// Members of a JSON object; a null is absent, as Go reads it.
fn table_of(members: serde_json::Map<String, serde_json::Value>) -> toml::Table {
    members.into_iter().filter_map(|(key, value)| Some((key, value_of(value)?))).collect()
}

fn value_of(value: serde_json::Value) -> Option<toml::Value> {
    use serde_json::Value;
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.into(),
        Value::Number(number) => number.as_i64().map_or_else(|| number.as_f64().unwrap_or(f64::MAX).into(), Into::into),
        Value::String(text) => text.into(),
        Value::Array(values) => values.into_iter().filter_map(value_of).collect::<Vec<toml::Value>>().into(),
        Value::Object(members) => table_of(members).into(),
    })
}

/// A directory of which nothing is said is the one that the agent runs in, as in Go.
fn here_for_none(path: String) -> PathBuf {
    PathBuf::from(if path.is_empty() { "." } else { &path })
}

fn connect_address(address: String) -> String {
    if address.starts_with(':') { format!("127.0.0.1{address}") } else { address }
}

fn listen_address(address: String) -> String {
    if address.starts_with(':') { format!("0.0.0.0{address}") } else { address }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
