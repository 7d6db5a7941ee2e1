//! Configuration of `hawkeye agent`: its own TOML file, or Open-Falcon's `cfg.json` as it stands on the hosts.
//!
//! How: a file that is JSON is a cfg.json and is translated into the keys here (`original.rs`); else it is TOML,
//! overlaid by `HAWKEYE_AGENT__TRANSFER_ADDRS=…` variables and by `--set KEY=VALUE`. Afterwards the hostname is
//! resolved: configured, else `FALCON_ENDPOINT`, else the system's.
//! Invariants: an unknown key of our own file is an error; what a cfg.json has beyond our keys is named in
//! `ignored_keys` for one line in the log, because users bring theirs along; everything that can be checked without a
//! network is checked here, and a fault names the key as the file has it.
//! Compat: docs/open-falcon/agent.md §1, `NUX_ROOTFS` included.

use super::collect::CollectConfig;
use super::original;
use super::plugin_config::PluginConfig;
use super::probes_config::ProbesConfig;
use super::upgrade_config::{FOLDER, UpgradeConfig};
use anyhow::{Context, Result, ensure};
use net::tls::client::SCHEME;
use serde::Deserialize;
use settings::units::{duration, is_host_and_port, is_place, seconds, size};
use settings::{Faults, Secret, is_json, not_toml, overlay, overlay_variables, without_mark};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Folder of points that no transfer has taken, in the directory that systemd gives.
const BUFFER: &str = "agent-buffer";
/// The variable by which systemd names the unit's state directory.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// Settings of an agent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// The endpoint of everything this agent sends. Not empty after loading.
    pub hostname: String,
    /// The address that hbs gets; "" is the local address of the connection to hbs.
    pub ip: String,
    /// Transfers, of which chance takes one; the others are asked when that one fails.
    pub transfer_addrs: Vec<String>,
    /// The hbs; "" sends no heartbeats, and then no probes are asked for.
    pub hbs_addr: String,
    /// Certificates of transfers and hbs at `tls://HOST:PORT`, or of who signed them (PEM); "" is for others.
    pub ca: PathBuf,
    /// A token that transfers and hbs may ask for (`ingest.token` there); "" shows none.
    pub token: Secret,
    /// Seconds between two reports, which is also the step of the series.
    #[serde(deserialize_with = "seconds")]
    pub interval: i64,
    /// Seconds between two heartbeats.
    #[serde(deserialize_with = "seconds")]
    pub heartbeat_interval: i64,
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// Whether batches are compressed for transfers that know how.
    pub compress: bool,
    /// The directory of points that no transfer has taken, for one agent; "" keeps them in memory only, but under
    /// systemd, where it is a folder of `$STATE_DIRECTORY`.
    pub buffer_dir: PathBuf,
    /// Bytes of the files there; past them the oldest points are dropped.
    #[serde(deserialize_with = "size")]
    pub buffer_max: u64,
    /// Bytes of points in memory, where they wait for a second, or for as long as there is no disk for them; past them
    /// the oldest are dropped.
    #[serde(deserialize_with = "size")]
    pub buffer_memory_max: u64,
    /// Prefixes of the names of interfaces that are reported; empty leaves it to `virtual_ifaces`.
    pub iface_prefixes: Vec<String>,
    /// Whether interfaces without hardware under them are reported, as those of containers.
    pub virtual_ifaces: bool,
    /// Mount points that are reported; empty leaves it to `container_mounts`.
    pub mount_points: Vec<String>,
    /// Whether mounts of containers are reported, and those that show a file system a second time.
    pub container_mounts: bool,
    /// Time that the rates of `cpu.*` and `disk.io.*` are taken over.
    pub rates: Rates,
    /// Collected metrics that are not sent.
    pub ignore: BTreeSet<String>,
    /// Tags that are added to every item, pushed ones included.
    pub default_tags: BTreeMap<String, String>,
    /// The root of the host's file system, for an agent in a container.
    pub rootfs: PathBuf,
    /// The filter of the log, e.g. `info`.
    pub log: String,
    /// What is collected beyond the original's metrics.
    pub collect: CollectConfig,
    pub listen: AgentListen,
    pub plugin: PluginConfig,
    pub probes: ProbesConfig,
    pub upgrade: UpgradeConfig,
    /// Where the configuration came from, to read it again; none for one that came from no command line.
    #[serde(skip)]
    pub source: Option<Source>,
    /// Keys of a cfg.json that have no meaning here.
    #[serde(skip)]
    pub ignored_keys: Vec<String>,
    /// The key that `listen.agent_http` came from, and how to give it another value, for whoever finds the port taken.
    #[serde(skip)]
    pub agent_http_key: (&'static str, &'static str),
}

/// Time that the rates of `cpu.*` and `disk.io.*` are taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Rates {
    /// From the report before to this one.
    #[default]
    Interval,
    /// The second before the report, as the original has it.
    LastSecond,
}

impl Rates {
    /// The name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Rates::Interval => "interval",
            Rates::LastSecond => "last-second",
        }
    }
}

impl TryFrom<String> for Rates {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Rates, &'static str> {
        match text.as_str() {
            "interval" => Ok(Rates::Interval),
            "last-second" => Ok(Rates::LastSecond),
            _ => Err("want \"interval\" or \"last-second\""),
        }
    }
}

/// Section `listen`: the agent's own door.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentListen {
    /// The address of `POST /v1/push` and the other routes; "" turns them off.
    pub agent_http: String,
    /// Names under which browsers may ask on a loopback address, besides the host's own.
    pub hosts: Vec<String>,
    /// A token for those who may ask for what changes this host, besides this machine and `hbs.trustable`; "" is none.
    pub token: Secret,
}

/// The command line of an agent, as far as it is about the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    file: Option<PathBuf>,
    /// Pairs of `--set`, which may hold tokens.
    set: Vec<Secret>,
}

impl Source {
    /// Reads the configuration as it is now.
    pub fn load(&self) -> Result<AgentConfig> {
        let set = self.set.iter().map(|pair| pair.text().to_string()).collect();
        AgentArgs { config: self.file.clone(), set, check: false }.load()
    }

    /// The command line that gives this source.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let file = self.file.iter().flat_map(|path| ["--config".to_string(), path.display().to_string()]);
        file.chain(self.set.iter().flat_map(|pair| ["--set".to_string(), pair.text().to_string()])).collect()
    }
}

/// How a form of the file calls what is checked in both, what turns a key off, and what times are like.
pub(crate) struct Keys {
    pub transfer_addrs: &'static str,
    pub no_transfer: &'static str,
    pub hbs_addr: &'static str,
    pub no_hbs: &'static str,
    pub agent_http: &'static str,
    pub no_door: &'static str,
    pub interval: &'static str,
    pub heartbeat_interval: &'static str,
    pub seconds: &'static str,
    pub connect_timeout: &'static str,
    pub milliseconds: &'static str,
}

/// How our own file calls it.
const KEYS: Keys = Keys {
    transfer_addrs: "transfer_addrs",
    no_transfer: "name at least one transfer, e.g. [\"127.0.0.1:8433\"]",
    hbs_addr: "hbs_addr",
    no_hbs: "\"\" for none",
    agent_http: "listen.agent_http",
    no_door: "\"\" to turn it off",
    interval: "interval",
    heartbeat_interval: "heartbeat_interval",
    seconds: "\"1s\" to \"24h\"",
    connect_timeout: "connect_timeout",
    milliseconds: "\"1ms\" to \"1h\"",
};

impl Default for AgentConfig {
    fn default() -> Self {
        AgentConfig {
            hostname: String::new(),
            ip: String::new(),
            transfer_addrs: vec!["127.0.0.1:8433".into()],
            hbs_addr: "127.0.0.1:6030".into(),
            ca: PathBuf::new(),
            token: Secret::default(),
            interval: 60,
            heartbeat_interval: 60,
            connect_timeout: Duration::from_secs(1),
            compress: false,
            buffer_dir: PathBuf::new(),
            // A host with 200 series sends about 30 kB a minute: a day and a half of it, and nine hours.
            buffer_max: 64 << 20,
            buffer_memory_max: 16 << 20,
            iface_prefixes: Vec::new(),
            virtual_ifaces: false,
            mount_points: Vec::new(),
            container_mounts: false,
            rates: Rates::default(),
            ignore: BTreeSet::new(),
            default_tags: BTreeMap::new(),
            rootfs: PathBuf::from("/"),
            log: "agent=info,warn".into(),
            collect: CollectConfig::default(),
            listen: AgentListen::default(),
            plugin: PluginConfig::default(),
            probes: ProbesConfig::default(),
            upgrade: UpgradeConfig::default(),
            source: None,
            ignored_keys: Vec::new(),
            agent_http_key: ("listen.agent_http", "--set listen.agent_http=HOST:PORT"),
        }
    }
}

impl Default for AgentListen {
    fn default() -> Self {
        // Open-Falcon's port, on loopback, because whoever reaches the port may push points in this host's name.
        AgentListen { agent_http: "127.0.0.1:1988".into(), hosts: Vec::new(), token: Secret::default() }
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
    /// Does everything once and says of each part `ok` or why not: exit code 0 (all well), 1 (not all).
    #[arg(long)]
    check: bool,
}

impl AgentArgs {
    /// Flags that name a file and nothing else.
    pub fn of_file(path: PathBuf) -> AgentArgs {
        AgentArgs { config: Some(path), ..AgentArgs::default() }
    }

    /// Whether everything is to be done once, and told.
    pub fn is_check(&self) -> bool {
        self.check
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
        let is_original = is_json(self.config.as_deref(), &text);
        let variables = settings::variables()?;
        let mut config = AgentConfig::read(&text, is_original, &variables, &flags, &system_hostname());
        if let Ok(config) = &mut config {
            let set = self.set.iter().map(Secret::new).collect();
            config.source = Some(Source { file: self.config.clone(), set });
        }
        match &self.config {
            Some(path) => config.with_context(|| format!("configuration {}", path.display())),
            None => config.context("configuration"),
        }
    }
}

impl AgentArgs {
    /// Section `upgrade` alone, while it is on and right: for a start that may become a newer program, whose other keys
    /// this one need not know.
    pub(crate) fn upgrade(&self) -> Option<UpgradeConfig> {
        let text = self.config.as_deref().map_or(Some(String::new()), |path| std::fs::read_to_string(path).ok())?;
        let is_ours = !is_json(self.config.as_deref(), &text);
        let mut table: toml::Table = without_mark(&text).parse().ok().filter(|_| is_ours)?;
        let known = ["public_key", "dir"];
        if let Some(section) = table.get_mut("upgrade").and_then(toml::Value::as_table_mut) {
            section.retain(|key, _| known.contains(&key));
        }
        table.retain(|key, _| key == "upgrade");
        let is_known =
            |name: &str| known.iter().any(|key| name == format!("HAWKEYE_AGENT__UPGRADE__{}", key.to_uppercase()));
        let variables = settings::variables().ok()?.into_iter();
        let variables: Vec<_> = variables.filter(|(name, _)| is_known(name) || name == STATE_DIRECTORY).collect();
        let flags = self.set.iter().filter_map(|pair| settings::pair(pair).ok());
        let flags: Vec<_> =
            flags.filter(|(key, _)| known.iter().any(|known| *key == format!("upgrade.{known}"))).collect();
        let mut faults = Faults::default();
        let mut config = AgentConfig::read_table(table, &variables, &flags, &mut faults).ok()?;
        config.resolve(&variables, "");
        config.upgrade.check(&mut faults);
        faults.none().ok()?;
        config.upgrade.is_on().then_some(config.upgrade)
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
        AgentConfig::read(text, is_json(None, text), &variables, flags, system_hostname)
    }

    fn read(
        text: &str,
        is_original: bool,
        variables: &[(String, String)],
        flags: &[(&str, &str)],
        system_hostname: &str,
    ) -> Result<AgentConfig> {
        let text = without_mark(text);
        let mut faults = Faults::default();
        if is_original {
            ensure!(flags.is_empty(), "--set goes with a TOML file only: change the cfg.json instead");
            let mut config = original::read(text, &mut faults)?;
            config.resolve(variables, system_hostname);
            config.check(&original::KEYS, &mut faults);
            faults.none().context("the cfg.json")?;
            return Ok(config);
        }
        let mut config = AgentConfig::read_own(text, variables, flags, &mut faults)?;
        config.resolve(variables, system_hostname);
        config.check(&KEYS, &mut faults);
        config.check_own(&mut faults);
        faults.none()?;
        Ok(config)
    }

    /// Reads our own TOML, with variables and flags over it.
    fn read_own(
        text: &str,
        variables: &[(String, String)],
        flags: &[(&str, &str)],
        faults: &mut Faults,
    ) -> Result<AgentConfig> {
        let read = text.parse().map_err(|error| not_toml(Path::new("the TOML"), text, &error));
        AgentConfig::read_table(read?, variables, flags, faults)
    }

    fn read_table(
        mut table: toml::Table,
        variables: &[(String, String)],
        flags: &[(&str, &str)],
        faults: &mut Faults,
    ) -> Result<AgentConfig> {
        let borrowed = variables.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        overlay_variables::<AgentConfig>(&mut table, "HAWKEYE_AGENT__", borrowed)?;
        for (key, text) in flags {
            overlay::<AgentConfig>(&mut table, key, text)?;
        }
        settings::read(table, faults)
    }

    fn resolve(&mut self, variables: &[(String, String)], system_hostname: &str) {
        let variable = |wanted: &str| variables.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.as_str());
        if self.hostname.is_empty() {
            let endpoint = variable("FALCON_ENDPOINT").filter(|endpoint| !endpoint.is_empty());
            self.hostname = endpoint.unwrap_or(system_hostname).to_string();
        }
        let rootfs = variable("NUX_ROOTFS").map(Path::new).filter(|path| path.is_absolute() && path.is_dir());
        // The unit's StateDirectory; the first, where it names several.
        let state = variable(STATE_DIRECTORY).and_then(|state| state.split(':').next());
        let state = state.map(Path::new).filter(|state| state.is_absolute());
        for (dir, folder) in [(&mut self.buffer_dir, BUFFER), (&mut self.upgrade.dir, FOLDER)] {
            if dir.as_os_str().is_empty() {
                *dir = state.map_or_else(PathBuf::new, |state| state.join(folder));
            }
        }
        if let Some(rootfs) = rootfs
            && self.rootfs == Path::new("/")
        {
            self.rootfs = rootfs.to_path_buf();
        }
    }

    /// Checks what both forms of the file can say; `keys` has the names of the form that was read.
    fn check(&self, keys: &Keys, faults: &mut Faults) {
        if let Err(error) = supervisor::log::parse_filter("log", &self.log) {
            faults.add(error.to_string());
        }
        self.check_hostname(faults);
        self.check_addresses(keys, faults);
        self.check_times(keys, faults);
        self.plugin.check(faults);
        if let Some((key, value)) = self.default_tags.iter().find(|(k, v)| k.contains([',', '=']) || v.contains(',')) {
            faults
                .add(format!("default_tags has {key:?} = {value:?}: a comma would begin another tag, a = end the key; give one without"));
        }
    }

    fn check_hostname(&self, faults: &mut Faults) {
        // 255 is the width of the original's column, which transfer enforces.
        if self.hostname.is_empty() || self.hostname.len() > 255 {
            faults.add(format!("hostname is {:?}: give 1 to 255 bytes (hostname, or FALCON_ENDPOINT)", self.hostname));
        }
        // As hbs and the portal refuse it.
        if self.hostname.chars().any(char::is_control) {
            faults.add(format!(
                "hostname is {:?}: give a name without control characters (hostname, or FALCON_ENDPOINT)",
                self.hostname
            ));
        }
    }

    fn check_addresses(&self, keys: &Keys, faults: &mut Faults) {
        if self.transfer_addrs.is_empty() {
            faults.add(format!("{} is empty: {}", keys.transfer_addrs, keys.no_transfer));
        }
        for address in self.transfer_addrs.iter().filter(|address| !is_place(address)) {
            faults.add(format!("{} has {address:?}: want HOST:PORT, or tls://HOST:PORT", keys.transfer_addrs));
        }
        let mut over_tls = self.transfer_addrs.iter().chain([&self.hbs_addr]).filter(|place| place.starts_with(SCHEME));
        match (over_tls.next(), self.ca.as_os_str().is_empty()) {
            (Some(place), true) => faults.add(format!(
                "ca is \"\", and {place:?} is asked over TLS: give a PEM file with that server's certificate, or with that of who \
                 signed it"
            )),
            (None, false) => faults.add("ca is set, and nobody is asked over TLS: give addresses like \"tls://10.0.0.1:8433\""),
            _ => {}
        }
        for (key, address, none) in
            [(keys.hbs_addr, &self.hbs_addr, keys.no_hbs), (keys.agent_http, &self.listen.agent_http, keys.no_door)]
        {
            let is_fine = if key == keys.hbs_addr { is_place(address) } else { is_host_and_port(address) };
            if !address.is_empty() && !is_fine {
                faults.add(format!("{key} is {address:?}: want HOST:PORT, or {none}"));
            }
        }
    }

    fn check_times(&self, keys: &Keys, faults: &mut Faults) {
        for (key, time) in [(keys.interval, self.interval), (keys.heartbeat_interval, self.heartbeat_interval)] {
            if !(1..=86_400).contains(&time) {
                faults.add(format!("{key} is {time} s: give {}", keys.seconds));
            }
        }
        let timeout = self.connect_timeout.as_millis();
        if !(1..=3_600_000).contains(&timeout) {
            faults.add(format!("{} is {timeout} ms: give {}", keys.connect_timeout, keys.milliseconds));
        }
    }

    /// Checks what only our own file can say, or is asked for: a cfg.json that an original agent takes is taken.
    fn check_own(&self, faults: &mut Faults) {
        if self.ip.len() > 255 || self.ip.chars().any(char::is_control) {
            faults.add(format!("ip is {:?}: give an address, or \"\" for that of the connection to hbs", self.ip));
        }
        if !self.token.is_none()
            && let Some(fault) = self.token.fault_as_token()
        {
            faults.add(format!("token {fault}"));
        }
        if !self.listen.token.is_none()
            && let Some(fault) = self.listen.token.fault_as_token()
        {
            faults.add(format!("listen.token {fault}"));
        }
        for (key, bytes) in [("buffer_max", self.buffer_max), ("buffer_memory_max", self.buffer_memory_max)] {
            if bytes < 1 << 20 {
                faults.add(format!("{key} is {bytes} bytes: give at least \"1MiB\""));
            }
        }
        if !self.buffer_dir.as_os_str().is_empty() && !self.buffer_dir.is_absolute() {
            faults.add(format!(
                "buffer_dir is {:?}: give a path that begins with /, or \"\" for memory only",
                self.buffer_dir
            ));
        }
        if !self.rootfs.is_absolute() {
            faults.add(format!("rootfs is {:?}: give a path that begins with /", self.rootfs));
        }
        if let Some(path) = self.mount_points.iter().find(|path| !path.starts_with('/')) {
            faults.add(format!(
                "mount_points has {path:?}: give paths that begin with /, or [] for what container_mounts says"
            ));
        }
        if self.iface_prefixes.iter().any(String::is_empty) {
            faults.add(
                "iface_prefixes has \"\", which every name begins with: give [] and virtual_ifaces = true for all",
            );
        }
        if self.ignore.contains("") {
            faults.add("ignore has \"\": give names of metrics, like \"cpu.busy\"");
        }
        if self.default_tags.contains_key("") {
            faults.add("default_tags has a tag without a name: give it one, or take it away");
        }
        self.collect.check(faults);
        self.probes.check(faults);
        self.upgrade.check(faults);
        for name in &self.listen.hosts {
            if let Err(error) = net::http::check_name(name) {
                faults.add(format!("listen.hosts has {error}"));
            }
        }
    }
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
    fn the_examples_of_the_metrics_page_are_taken() {
        let page = include_str!("../../../docs/agent-metrics.md");
        let examples: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        for example in &examples {
            let config = load(example, &[], &[]).expect(example);
            assert_ne!(config.collect, CollectConfig::default(), "{example} switches nothing on");
        }
        assert_eq!(examples.len(), 12);
    }

    #[test]
    fn hostname_is_configured_else_from_the_environment_else_the_systems() {
        let variables = [("FALCON_ENDPOINT", "from-env")];
        assert_eq!(load("hostname = \"own\"", &variables, &[]).expect("valid").hostname, "own");
        assert_eq!(load("", &variables, &[]).expect("valid").hostname, "from-env");
        assert_eq!(load("", &[("FALCON_ENDPOINT", "")], &[]).expect("valid").hostname, "system-name");
    }

    #[test]
    fn the_buffer_is_where_it_is_said_to_be_else_where_systemd_has_room_else_in_memory() {
        let check = |text: &str, state: &str, dir: &str| {
            let config = load(text, &[("STATE_DIRECTORY", state)], &[]).expect("valid");
            assert_eq!(config.buffer_dir, Path::new(dir), "{text:?} {state:?}");
        };
        check("buffer_dir = \"/data/buffer\"", "/var/lib/hawkeye-agent", "/data/buffer");
        check("", "/var/lib/hawkeye-agent", "/var/lib/hawkeye-agent/agent-buffer");
        check("", "/var/lib/hawkeye-agent:/var/lib/b", "/var/lib/hawkeye-agent/agent-buffer");
        check("{\"transfer\": {\"enabled\": true, \"addrs\": [\"h:1\"]}}", "/var/lib/a", "/var/lib/a/agent-buffer");
        check("", "", "");
        check("", "relative", "");
        assert_eq!(load("", &[], &[]).expect("valid").buffer_dir, Path::new(""));
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
            rates: Rates::LastSecond,
            iface_prefixes: vec!["eth".into(), "em".into()],
            virtual_ifaces: true,
            container_mounts: true,
            ignore: ["cpu.busy".to_string()].into(),
            default_tags: [("idc".to_string(), "bj".to_string())].into(),
            log: "agent=debug,info".into(),
            listen: AgentListen { agent_http: "0.0.0.0:1988".into(), ..AgentListen::default() },
            plugin: PluginConfig { git: "https://github.com/open-falcon/plugin.git".into(), ..PluginConfig::default() },
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
        assert!(!config.plugin.enabled);
    }

    #[test]
    fn the_originals_plugins() {
        let check = |section: &str, expected: PluginConfig| {
            let text = format!(r#"{{"plugin": {section}, "transfer": {{"enabled": true, "addrs": ["h:1"]}}}}"#);
            assert_eq!(load(&text, &[], &[]).expect(section).plugin, expected, "{section}");
        };
        let (dir, logs) = ("/home/falcon/plugin".into(), "/var/log/falcon".into());
        check(
            r#"{"enabled": true, "dir": "/home/falcon/plugin", "git": "git@host:plugin.git", "logs": "/var/log/falcon"}"#,
            PluginConfig { enabled: true, dir, git: "git@host:plugin.git".into(), logs, user: String::new() },
        );
        let here = PluginConfig { dir: ".".into(), logs: ".".into(), ..PluginConfig::default() };
        check(r#"{"enabled": true}"#, PluginConfig { enabled: true, ..here.clone() });
        check("null", here);
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
        check("{\"transfer\": {\"enabled\": false}}", "transfer.addrs");
        check(
            "{\n \"hostname\": \"a\"\n \"ip\": 5}",
            "cannot parse the cfg.json: expected `,` or `}` at line 3 column 2",
        );
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
            &[
                "heartbeat.interval",
                "hostname",
                "transfer.timeout",
                "transfer.addrs has \"a\"",
                "transfer.addrs has \"c:70000\"",
                "heartbeat.addr is \"h:0x\": want HOST:PORT, or \"enabled\": false in heartbeat",
            ],
        );
        check(
            r#"{"heartbeat": {"enabled": true, "addr": "h:1", "interval": 0}, "http": {"enabled": true, "listen": "x"},
               "transfer": {"enabled": false, "addrs": ["a"], "interval": 90000, "timeout": 0}}"#,
            &[
                "transfer.addrs is empty: switch transfer.enabled on",
                "http.listen is \"x\"",
                "transfer.interval is 90000 s: give a number from 1 to 86400",
                "heartbeat.interval is 0 s",
                "transfer.timeout is 0 ms: give a number",
            ],
        );
    }
}
