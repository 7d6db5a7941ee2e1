//! Configuration of `hawkeye agent`: its own TOML file, or Open-Falcon's `cfg.json` as it stands on the hosts.
//!
//! How: a file whose first character is `{` is a cfg.json and is translated into the keys here; else it is TOML,
//! overlaid by `HAWKEYE_AGENT__TRANSFER_ADDRS=…` variables and by `--set KEY=VALUE`. Afterwards the hostname is
//! resolved: configured, else `FALCON_ENDPOINT`, else the system's.
//! Invariants: an unknown key of our own file is an error; what a cfg.json has beyond our keys is named in
//! `ignored_keys` for one line in the log, because users bring theirs along; everything that can be checked without a
//! network is checked here.
//! Compat: docs/open-falcon/agent.md §1, `NUX_ROOTFS` included. An address without a host means what it means in Go:
//! every address to listen on, this host to connect to.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer};
use settings::units::{duration, is_host_and_port, seconds, size};
use settings::{Faults, not_toml, overlay, overlay_variables};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings of an agent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// The endpoint of everything this agent sends. Not empty after loading.
    pub hostname: String,
    /// The address that hbs gets; "" is the local address of the connection to hbs.
    pub ip: String,
    /// Transfers, tried in random order until one answers.
    pub transfer_addrs: Vec<String>,
    /// The hbs; "" sends no heartbeats, and then no probes are asked for.
    pub hbs_addr: String,
    /// Seconds between two reports, which is also the step of the series.
    #[serde(deserialize_with = "seconds")]
    pub interval: i64,
    /// Seconds between two heartbeats.
    #[serde(deserialize_with = "seconds")]
    pub heartbeat_interval: i64,
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// Bytes of points that are kept while no transfer answers; past them the oldest are dropped.
    #[serde(deserialize_with = "size")]
    pub buffer_max: u64,
    /// Prefixes of the names of interfaces that are reported; empty means all interfaces.
    pub iface_prefixes: Vec<String>,
    /// Mount points that are reported; empty means all.
    pub mount_points: Vec<String>,
    /// Collected metrics that are not sent.
    pub ignore: BTreeSet<String>,
    /// Tags that are added to every item, pushed ones included.
    pub default_tags: BTreeMap<String, String>,
    /// The root of the host's file system, for an agent in a container.
    pub rootfs: PathBuf,
    /// The filter of the log, e.g. `info`.
    pub log: String,
    pub listen: AgentListen,
    /// Keys of a cfg.json that have no meaning here.
    #[serde(skip)]
    pub ignored_keys: Vec<String>,
    /// The key that `listen.agent_http` came from, and how to give it another value, for whoever finds the port taken.
    #[serde(skip)]
    pub agent_http_key: (&'static str, &'static str),
}

/// Section `listen`: the agent's own door.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentListen {
    /// The address of `POST /v1/push` and the other routes; "" turns them off.
    pub agent_http: String,
    /// Names under which browsers may ask on a loopback address, besides the host's own.
    pub hosts: Vec<String>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        AgentConfig {
            hostname: String::new(),
            ip: String::new(),
            transfer_addrs: vec!["127.0.0.1:8433".into()],
            hbs_addr: "127.0.0.1:6030".into(),
            interval: 60,
            heartbeat_interval: 60,
            connect_timeout: Duration::from_secs(1),
            // A host with 200 series sends about 30 kB a minute: nine hours of it.
            buffer_max: 16 << 20,
            iface_prefixes: Vec::new(),
            mount_points: Vec::new(),
            ignore: BTreeSet::new(),
            default_tags: BTreeMap::new(),
            rootfs: PathBuf::from("/"),
            log: "hawkeye=info,warn".into(),
            listen: AgentListen::default(),
            ignored_keys: Vec::new(),
            agent_http_key: ("listen.agent_http", "--set listen.agent_http=HOST:PORT"),
        }
    }
}

impl Default for AgentListen {
    fn default() -> Self {
        // Open-Falcon's port, on loopback, because whoever reaches the port may push points in this host's name.
        AgentListen { agent_http: "127.0.0.1:1988".into(), hosts: Vec::new() }
    }
}

/// Flags of `hawkeye agent`.
#[derive(clap::Args, Default)]
pub struct AgentArgs {
    /// The agent's TOML file, or Open-Falcon's cfg.json; without it the defaults are used (hawkeye-agent.example.toml).
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets any key of the configuration, e.g. `--set transfer_addrs='["10.0.0.1:8433"]'`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl AgentArgs {
    /// Flags that name a file and nothing else.
    pub fn of_file(path: PathBuf) -> AgentArgs {
        AgentArgs { config: Some(path), set: Vec::new() }
    }

    /// Reads the file, and puts variables and flags over it. The error names the key and the fix.
    pub fn load(&self) -> Result<AgentConfig> {
        let mut flags = Vec::new();
        for pair in &self.set {
            flags.push(settings::pair(pair)?);
        }
        let text = match &self.config {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?,
        };
        let config = AgentConfig::load(&text, settings::variables()?.into_iter(), &flags, &system_hostname());
        match &self.config {
            Some(path) => config.with_context(|| format!("configuration {}", path.display())),
            None => config.context("configuration"),
        }
    }
}

/// The name that the system has for this host.
pub fn system_hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl AgentConfig {
    /// Reads a configuration; `system_hostname` is the endpoint when neither a key nor a variable names one.
    pub fn load(
        text: &str,
        variables: impl Iterator<Item = (String, String)>,
        flags: &[(&str, &str)],
        system_hostname: &str,
    ) -> Result<AgentConfig> {
        let variables: Vec<(String, String)> = variables.collect();
        // Editors of Windows begin a file so.
        let text = text.trim_start_matches('\u{feff}');
        let mut faults = Faults::default();
        let is_original = text.trim_start().starts_with('{');
        let mut config = if is_original {
            ensure!(flags.is_empty(), "--set goes with a TOML file only: change the cfg.json instead");
            let json = serde_json::from_str(text).context("cannot parse the cfg.json")?;
            settings::read::<Original>(table_of(json), &mut faults).context("cannot read the cfg.json")?.translate()
        } else {
            let read = text.parse().map_err(|error| not_toml(Path::new("the TOML"), text, &error));
            let mut table: toml::Table = read?;
            let borrowed = variables.iter().map(|(name, text)| (name.as_str(), text.as_str()));
            overlay_variables::<AgentConfig>(&mut table, "HAWKEYE_AGENT__", borrowed)?;
            for (key, text) in flags {
                overlay::<AgentConfig>(&mut table, key, text)?;
            }
            settings::read::<AgentConfig>(table, &mut faults)?
        };
        config.resolve(&variables, system_hostname);
        config.check(&mut faults);
        let checked = faults.none();
        if is_original {
            checked.context("the cfg.json")?
        } else {
            checked?
        }
        Ok(config)
    }

    fn resolve(&mut self, variables: &[(String, String)], system_hostname: &str) {
        let variable = |wanted: &str| variables.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.as_str());
        if self.hostname.is_empty() {
            let endpoint = variable("FALCON_ENDPOINT").filter(|endpoint| !endpoint.is_empty());
            self.hostname = endpoint.unwrap_or(system_hostname).to_string();
        }
        let rootfs = variable("NUX_ROOTFS").map(Path::new).filter(|path| path.is_absolute() && path.is_dir());
        if let Some(rootfs) = rootfs
            && self.rootfs == Path::new("/")
        {
            self.rootfs = rootfs.to_path_buf();
        }
    }

    fn check(&self, faults: &mut Faults) {
        if let Err(error) = supervisor::log::parse_filter("log", &self.log) {
            faults.add(error.to_string());
        }
        // 255 is the width of the original's column, which transfer enforces.
        if self.hostname.is_empty() || self.hostname.len() > 255 {
            faults.add(format!("hostname is {:?}: give 1 to 255 bytes (hostname, or FALCON_ENDPOINT)", self.hostname));
        }
        for name in &self.listen.hosts {
            if let Err(error) = net::http::check_name(name) {
                faults.add(format!("listen.hosts has {error}"));
            }
        }
        // As hbs and the portal refuse it.
        if self.hostname.chars().any(char::is_control) {
            faults.add(format!(
                "hostname is {:?}: give a name without control characters (hostname, or FALCON_ENDPOINT)",
                self.hostname
            ));
        }
        if self.transfer_addrs.is_empty() {
            faults.add("transfer_addrs is empty: name at least one transfer, e.g. [\"127.0.0.1:8433\"]");
        }
        for address in self.transfer_addrs.iter().filter(|address| !is_host_and_port(address)) {
            faults.add(format!("transfer_addrs has {address:?}: want HOST:PORT"));
        }
        if !self.hbs_addr.is_empty() && !is_host_and_port(&self.hbs_addr) {
            faults.add(format!("hbs_addr is {:?}: want HOST:PORT, or \"\" for none", self.hbs_addr));
        }
        let door = &self.listen.agent_http;
        if !door.is_empty() && !is_host_and_port(door) {
            faults.add(format!("listen.agent_http is {door:?}: want HOST:PORT, or \"\" to turn it off"));
        }
        if !(1..=86_400).contains(&self.interval) {
            faults.add(format!("interval is {} s: give \"1s\" to \"24h\"", self.interval));
        }
        if !(1..=86_400).contains(&self.heartbeat_interval) {
            faults.add(format!("heartbeat_interval is {} s: give \"1s\" to \"24h\"", self.heartbeat_interval));
        }
        if self.connect_timeout.is_zero() {
            faults.add("connect_timeout is 0: give at least \"1ms\"");
        }
        if self.buffer_max < 1 << 20 {
            faults.add(format!("buffer_max is {} bytes: give at least \"1MiB\"", self.buffer_max));
        }
        if let Some((key, value)) = self.default_tags.iter().find(|(k, v)| k.contains([',', '=']) || v.contains(',')) {
            faults
                .add(format!("default_tags has {key:?} = {value:?}: a comma would begin another tag, a = end the key"));
        }
    }
}

/// Open-Falcon's cfg.json, as far as it has a meaning here.
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
            iface_prefixes: self.collector.iface_prefix,
            mount_points: self.collector.mount_point,
            ignore: self.ignore.into_iter().filter(|(_, ignored)| *ignored).map(|(metric, _)| metric).collect(),
            default_tags: self.default_tags,
            log: if self.debug { "hawkeye=debug,info".into() } else { AgentConfig::default().log },
            listen: AgentListen { agent_http, ..AgentListen::default() },
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

fn connect_address(address: String) -> String {
    if address.starts_with(':') { format!("127.0.0.1{address}") } else { address }
}

fn listen_address(address: String) -> String {
    if address.starts_with(':') { format!("0.0.0.0{address}") } else { address }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<AgentConfig> {
        let variables = variables.iter().map(|(name, text)| (name.to_string(), text.to_string()));
        AgentConfig::load(text, variables, flags, "system-name")
    }

    #[test]
    fn example_file_holds_the_defaults() {
        let example = include_str!("../../../hawkeye-agent.example.toml");
        let defaults = AgentConfig { hostname: "system-name".into(), ..AgentConfig::default() };
        assert_eq!(load(example, &[], &[]).expect("the example parses"), defaults);
    }

    #[test]
    fn hostname_is_configured_else_from_the_environment_else_the_systems() {
        let variables = [("FALCON_ENDPOINT", "from-env")];
        assert_eq!(load("hostname = \"own\"", &variables, &[]).expect("valid").hostname, "own");
        assert_eq!(load("", &variables, &[]).expect("valid").hostname, "from-env");
        assert_eq!(load("", &[("FALCON_ENDPOINT", "")], &[]).expect("valid").hostname, "system-name");
    }

    #[test]
    fn variables_overlay_the_file_and_flags_overlay_both() {
        let variables =
            [("HAWKEYE_AGENT__INTERVAL", "10s"), ("HAWKEYE_AGENT__IP", "1.1.1.1"), ("HAWKEYE_LISTEN__API", "x")];
        let config = load("interval = \"30s\"", &variables, &[("ip", "2.2.2.2")]).expect("valid");
        assert_eq!((config.interval, config.ip.as_str()), (10, "2.2.2.2"));
    }

    /// The file as Open-Falcon ships it, with addresses filled in.
    #[test]
    fn the_originals_file() {
        let text = r#"{
            "debug": true, "hostname": "", "ip": "",
            "plugin": {"enabled": false, "dir": "./plugin", "git": "https://github.com/open-falcon/plugin.git", "logs": "./logs"},
            "heartbeat": {"enabled": true, "addr": "10.0.0.1:6030", "interval": 60, "timeout": 1000},
            "transfer": {"enabled": true, "addrs": ["10.0.0.1:8433", ":8433"], "interval": 30, "timeout": 2000},
            "http": {"enabled": true, "listen": ":1988", "backdoor": false},
            "collector": {"ifacePrefix": ["eth", "em"], "mountPoint": null},
            "default_tags": {"idc": "bj"},
            "ignore": {"cpu.busy": true, "cpu.idle": false}
        }"#;
        let expected = AgentConfig {
            hostname: "system-name".into(),
            transfer_addrs: vec!["10.0.0.1:8433".into(), "127.0.0.1:8433".into()],
            hbs_addr: "10.0.0.1:6030".into(),
            interval: 30,
            connect_timeout: Duration::from_secs(2),
            iface_prefixes: vec!["eth".into(), "em".into()],
            ignore: ["cpu.busy".to_string()].into(),
            default_tags: [("idc".to_string(), "bj".to_string())].into(),
            log: "hawkeye=debug,info".into(),
            listen: AgentListen { agent_http: "0.0.0.0:1988".into(), ..AgentListen::default() },
            ignored_keys: vec!["plugin".into()],
            agent_http_key: ("http.listen", "in the cfg.json"),
            ..AgentConfig::default()
        };
        assert_eq!(load(text, &[], &[]).expect("valid"), expected);
    }

    #[test]
    fn what_the_original_has_switched_off_is_off() {
        let text = r#"{"heartbeat": {"enabled": false, "addr": "h:1"}, "http": {"enabled": false, "listen": ":1"},
            "transfer": {"enabled": true, "addrs": ["h:1"]}}"#;
        let config = load(text, &[], &[]).expect("valid");
        assert_eq!((config.hbs_addr.as_str(), config.listen.agent_http.as_str()), ("", ""));
    }

    #[test]
    fn rootfs_from_the_environment_must_exist() {
        assert_eq!(load("", &[("NUX_ROOTFS", "/proc")], &[]).expect("valid").rootfs, Path::new("/proc"));
        assert_eq!(load("", &[("NUX_ROOTFS", "/nowhere")], &[]).expect("valid").rootfs, Path::new("/"));
        assert_eq!(load("", &[("NUX_ROOTFS", "proc")], &[]).expect("valid").rootfs, Path::new("/"));
    }

    #[test]
    fn errors_name_the_key() {
        let check = |text: &str, part: &str| {
            let error = format!("{:#}", load(text, &[], &[]).expect_err(text));
            assert!(error.contains(part), "{text:?} gave {error:?}");
        };
        check("colour = 1", "colour");
        check("hostname = \"a\\nb\"", "hostname");
        check("interval = \"0s\"", "interval");
        check("interval = \"soon\"", "soon");
        check("transfer_addrs = []", "transfer_addrs");
        check("transfer_addrs = [\"host\"]", "HOST:PORT");
        check("hbs_addr = \"host\"", "hbs_addr");
        check("buffer_max = \"1kB\"", "buffer_max");
        check("connect_timeout = \"0s\"", "connect_timeout");
        check("[default_tags]\na = \"b,c\"", "default_tags");
        check("{\"transfer\": {\"enabled\": false}}", "transfer_addrs");
        check("{\"transfer\": 1}", "cfg.json");
        check("transfer_addrs = [\"h:99999\"]", "h:99999");
        check("[listen]\nagent_http = \"1988\"", "listen.agent_http");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let check = |text: &str, parts: &[&str]| {
            let error = load(text, &[], &[]).expect_err(text);
            let faults = error.downcast_ref::<Faults>().expect("a list of faults").texts();
            assert_eq!(faults.len(), parts.len(), "{faults:?}");
            assert!(faults.iter().zip(parts).all(|(fault, part)| fault.contains(part)), "{faults:?}, want {parts:?}");
        };
        check(
            "colour = 1\ninterval = 5\nhbs_addr = \"h\"\n[listen]\nodd = 1\nagent_http = \"x\"",
            &["colour", "interval", "listen", "hbs_addr", "agent_http"],
        );
        check(
            r#"{"hostname": 5, "heartbeat": {"enabled": true, "addr": "h:0x", "interval": "soon"}, "http": null,
               "transfer": {"enabled": true, "addrs": ["a", "b:1", "c:70000"], "timeout": -1}}"#,
            &["heartbeat.interval", "hostname", "transfer.timeout", "\"a\"", "\"c:70000\"", "hbs_addr"],
        );
    }
}
