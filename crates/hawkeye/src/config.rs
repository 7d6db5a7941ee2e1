//! Configuration of `hawkeye server`: one TOML file, each key also as an environment variable, the common ones as flags.
//!
//! How: the file becomes a table, `HAWKEYE_LISTEN__API=…` variables overlay it (`__` separates levels), flags overlay
//! that, and serde turns the result into [`Config`]. Durations ("5m") and sizes ("16MiB") are strings with a unit.
//! Invariants: an unknown key is an error that names it; every default is here, and `hawkeye.example.toml` repeats them
//! (a test compares the two); everything that can be checked without touching disk or network is checked here.

use crate::mysql_url::MysqlUrl;
use crate::redis_url::RedisUrl;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub roles: BTreeSet<Role>,
    pub data_dir: PathBuf,
    /// What the whole process may have resident (`pressure.rs`). Bounds below are shares of it.
    #[serde(deserialize_with = "size")]
    pub memory_budget: u64,
    /// tracing filter, e.g. `info` or `hawkeye=debug,warn`.
    pub log: String,
    pub listen: Listen,
    pub portal: PortalConfig,
    pub ingest: Ingest,
    pub judge: JudgeConfig,
    pub graph: GraphConfig,
    pub hbs: HbsConfig,
    pub alarm: AlarmConfig,
    pub api: ApiConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Transfer,
    Judge,
    Graph,
    Hbs,
    Alarm,
    Api,
}

/// What one process runs: which sets of roles work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All six roles.
    Whole,
    /// The graph alone, behind an old transfer and in front of an old api.
    Graph,
    /// The judge alone, behind an old transfer, beside an old hbs and in front of an old alarm.
    Judge,
}

pub const ALL_ROLES: [Role; 6] = [Role::Transfer, Role::Judge, Role::Graph, Role::Hbs, Role::Alarm, Role::Api];

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Transfer => "transfer",
            Role::Judge => "judge",
            Role::Graph => "graph",
            Role::Hbs => "hbs",
            Role::Alarm => "alarm",
            Role::Api => "api",
        }
    }
}

/// Addresses to listen on; an empty text turns a listener off.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    pub transfer_rpc: String,
    pub transfer_http: String,
    pub transfer_telnet: String,
    pub hbs_rpc: String,
    /// Go gob, for an old transfer and an old api; "" by default.
    pub graph_rpc: String,
    /// Go gob, for an old transfer; "" by default.
    pub judge_rpc: String,
    /// The judge alone: the old judge's HTTP routes; "" by default.
    pub judge_http: String,
    pub api: String,
    pub admin: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortalConfig {
    /// "" is SQLite in the data directory, the only portal there is so far.
    pub url: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// Networks that may send points, heartbeats and telnet lines, e.g. "10.0.0.0/8".
    pub allow: Vec<Network>,
    /// Points further ahead of the clock are refused (seconds).
    #[serde(deserialize_with = "seconds")]
    pub future_max: i64,
    /// A smaller step counts as this one (seconds); Open-Falcon's minStep.
    pub min_step: u32,
    /// The longest JSON-RPC message or HTTP body (bytes).
    #[serde(deserialize_with = "size")]
    pub message_max: u64,
    /// The most connections per listener; one more is closed at once.
    pub connections_max: usize,
    /// A started message must be complete after this time (seconds).
    #[serde(deserialize_with = "seconds")]
    pub message_timeout: i64,
    /// The most series; a point of one more is refused.
    pub series_max: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeConfig {
    /// "hawkeye", or "open-falcon": the original's results also where they are wrong.
    pub semantics: Semantics,
    /// The least time between two PROBLEMs of one alarm (seconds).
    #[serde(deserialize_with = "seconds")]
    pub min_interval: i64,
    /// Rules come from one of these (original) hbs, for the judge alone; they are tried in turn.
    pub hbs_addrs: Vec<String>,
    /// Between two pulls of all rules from there (seconds).
    #[serde(deserialize_with = "seconds")]
    pub hbs_interval: i64,
    /// The judge alone forgets a series without a point for so long (seconds).
    #[serde(deserialize_with = "seconds")]
    pub silent_after: i64,
    /// A Redis whose queues event:p<priority> get every event, for an old alarm; "" is none.
    pub redis_url: RedisUrl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Semantics {
    Hawkeye,
    OpenFalcon,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GraphConfig {
    pub retention: Retention,
    /// "always", "second" or "never".
    pub fsync: Fsync,
    /// How far back the judge and the newest charts look without touching the disk (seconds).
    #[serde(deserialize_with = "seconds")]
    pub hot_window: i64,
    /// Points this much older than the newest of their series are still merged in order (seconds).
    #[serde(deserialize_with = "seconds")]
    pub late_window: i64,
    /// A series without a point for so long leaves memory; it stays searchable and readable (seconds; 0 is never).
    #[serde(deserialize_with = "seconds")]
    pub silent_after: i64,
    /// The most points in the answer to one query.
    pub query_points_max: usize,
    /// Open-Falcon's index database, kept for an old api beside this server; "" is none.
    pub index_url: MysqlUrl,
    /// How often the `ts` of every live series is written there (seconds).
    #[serde(deserialize_with = "seconds")]
    pub index_refresh: i64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// How long points are kept as they came (seconds).
    #[serde(deserialize_with = "seconds")]
    pub raw: i64,
    /// How long their roll-ups of five minutes are kept (seconds); 0: none are made.
    #[serde(rename = "5m", deserialize_with = "seconds")]
    pub five_minutes: i64,
    /// How long their roll-ups of an hour are kept (seconds); 0: none are made.
    #[serde(rename = "1h", deserialize_with = "seconds")]
    pub hour: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    Always,
    Second,
    Never,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HbsConfig {
    /// Addresses that agents trust for their control routes (`Agent.TrustableIps`).
    pub trustable: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlarmConfig {
    /// The sites' HTTP gateways (form POST, Open-Falcon's sender contract); "" is none.
    pub sms: String,
    pub im: String,
    pub mail: String,
    pub smtp: SmtpConfig,
    /// Where links in messages point, e.g. "https://hawkeye.example.com"; "" is the API's own address.
    pub dashboard: String,
    /// How long rows of `events` are kept (seconds).
    #[serde(deserialize_with = "seconds")]
    pub event_retention: i64,
    /// A delivery that keeps failing is given up after this time (seconds).
    #[serde(deserialize_with = "seconds")]
    pub give_up_after: i64,
    /// The most deliveries that may wait; past it the oldest are given up, and counted.
    pub deliveries_max: usize,
}

/// Mail by SMTP, used when `alarm.mail` has no gateway. Off while `host` is "".
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmtpConfig {
    pub host: String,
    pub port: u16,
    /// "none", "starttls" or "tls".
    pub security: SmtpSecurity,
    pub user: String,
    pub password: String,
    pub from: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    None,
    Starttls,
    Tls,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// True lets anybody register (`POST /user/create`), as Open-Falcon does by default.
    pub signup: bool,
    /// A second secret that passes as any user's `sig`, for server-to-server calls; "" (the default) is none.
    pub server_token: String,
    /// The `salt` of an old Open-Falcon api whose user table is taken over: its md5 passwords let their users in once.
    pub salt: String,
    /// Who may see the first page without logging in: "loopback" peers, "all", or "none".
    pub viewer: Viewer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Viewer {
    Loopback,
    All,
    None,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            roles: ALL_ROLES.into_iter().collect(),
            data_dir: PathBuf::from("data"),
            memory_budget: 256 << 20,
            log: "hawkeye=info,warn".to_string(),
            listen: Listen::default(),
            portal: PortalConfig::default(),
            ingest: Ingest::default(),
            judge: JudgeConfig::default(),
            graph: GraphConfig::default(),
            hbs: HbsConfig::default(),
            alarm: AlarmConfig::default(),
            api: ApiConfig::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        // Open-Falcon's ports. Loopback, because its protocols carry no identity.
        Listen {
            transfer_rpc: "127.0.0.1:8433".into(),
            transfer_http: "127.0.0.1:6060".into(),
            transfer_telnet: "127.0.0.1:4444".into(),
            hbs_rpc: "127.0.0.1:6030".into(),
            graph_rpc: String::new(),
            judge_rpc: String::new(),
            judge_http: String::new(),
            api: "127.0.0.1:8080".into(),
            admin: "127.0.0.1:6071".into(),
        }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Ingest {
            allow: vec![Network::parse("127.0.0.0/8").expect("literal"), Network::parse("::1").expect("literal")],
            future_max: 300,
            min_step: 30,
            // The largest message of a real agent is below 100 kB; a gateway sends 200 items, a script perhaps 10,000.
            message_max: 16 << 20,
            connections_max: 16_384,
            message_timeout: 60,
            series_max: 4_000_000,
        }
    }
}

impl Default for JudgeConfig {
    fn default() -> Self {
        JudgeConfig {
            semantics: Semantics::Hawkeye,
            min_interval: 300,
            hbs_addrs: Vec::new(),
            hbs_interval: 60,
            // The original's week.
            silent_after: 7 * 86_400,
            redis_url: RedisUrl::default(),
        }
    }
}

impl Default for GraphConfig {
    fn default() -> Self {
        GraphConfig {
            retention: Retention::default(),
            fsync: Fsync::Second,
            hot_window: 2 * 3600,
            late_window: 3600,
            silent_after: 2 * 86_400,
            query_points_max: 2_000_000,
            index_url: MysqlUrl::default(),
            // Cleaners of the index look at days.
            index_refresh: 6 * 3600,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Retention { raw: 30 * 86_400, five_minutes: 180 * 86_400, hour: 730 * 86_400 }
    }
}

impl Default for AlarmConfig {
    fn default() -> Self {
        AlarmConfig {
            sms: String::new(),
            im: String::new(),
            mail: String::new(),
            smtp: SmtpConfig::default(),
            dashboard: String::new(),
            event_retention: 7 * 86_400,
            give_up_after: 86_400,
            deliveries_max: 100_000,
        }
    }
}

impl Default for SmtpConfig {
    fn default() -> Self {
        SmtpConfig {
            host: String::new(),
            port: 25,
            security: SmtpSecurity::Starttls,
            user: String::new(),
            password: String::new(),
            from: "hawkeye@localhost".into(),
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig { signup: false, server_token: String::new(), salt: String::new(), viewer: Viewer::Loopback }
    }
}

impl Config {
    /// Reads `file` (if any), then `HAWKEYE_*` variables, then `flags` (dotted key, TOML value text or plain text).
    pub fn load(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Config> {
        let mut table = match file {
            None => toml::Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the configuration {}", path.display()))?;
                text.parse().map_err(|error| not_toml(path, &text, &error))?
            }
        };
        for (name, text) in variables {
            // HAWKEYE_AGENT__… are the agent's, which may live in the same environment.
            if let Some(key) = name.strip_prefix("HAWKEYE_").filter(|key| !key.starts_with("AGENT__")) {
                let path = key.to_ascii_lowercase().replace("__", ".");
                overlay(&mut table, &path, &text).with_context(|| format!("environment variable {name}"))?;
            }
        }
        for (key, text) in flags {
            overlay(&mut table, key, text)?;
        }
        let config: Config = table.try_into().with_context(|| match file {
            Some(path) => format!("configuration {}", path.display()),
            None => "configuration".to_string(),
        })?;
        config.check()?;
        Ok(config)
    }

    /// What the roles make together; an error for roles that do not work together.
    pub fn mode(&self) -> Result<Mode> {
        let roles: Vec<Role> = self.roles.iter().copied().collect();
        match roles[..] {
            [Role::Graph] => Ok(Mode::Graph),
            [Role::Judge] => Ok(Mode::Judge),
            _ if roles == ALL_ROLES => Ok(Mode::Whole),
            _ => bail!(
                "roles is {:?}: that does not run together in one process; give [\"graph\"] or [\"judge\"] alone, or all six: \
                 {:?} (or leave the key out)",
                roles.iter().map(|role| role.name()).collect::<Vec<_>>(),
                ALL_ROLES.map(Role::name),
            ),
        }
    }

    /// The most points a rule may look back on: what the hot window holds at an agent's usual step of 60 s.
    pub fn rule_points_max(&self) -> u32 {
        (self.graph.hot_window / 60).clamp(1, i64::from(u32::MAX)) as u32
    }

    fn check(&self) -> Result<()> {
        if self.mode()? == Mode::Graph && self.listen.graph_rpc.is_empty() {
            bail!(
                "listen.graph_rpc is \"\": the graph alone takes points by no other door; give an address like \"0.0.0.0:6070\""
            );
        }
        if self.mode()? == Mode::Judge {
            self.check_judge_alone()?;
        }
        if self.mode()? == Mode::Whole && !self.listen.judge_http.is_empty() {
            bail!("listen.judge_http has the routes of a judge that runs alone (roles = [\"judge\"]): leave it \"\"");
        }
        if self.judge.silent_after < 3600 {
            bail!("judge.silent_after is {} s: give at least \"1h\"", self.judge.silent_after);
        }
        if !self.portal.url.is_empty() {
            bail!("portal.url is {:?}: only \"\" (SQLite in data_dir) is known so far", self.portal.url);
        }
        if self.memory_budget < 32 << 20 {
            bail!(
                "memory_budget is {} bytes: a server without a series needs 21 MB, so give at least \"32MiB\"",
                self.memory_budget
            );
        }
        if self.ingest.min_step == 0 || self.ingest.min_step > 86_400 {
            bail!("ingest.min_step is {}: give seconds from 1 to 86400", self.ingest.min_step);
        }
        if !(1024..=1 << 30).contains(&self.ingest.message_max) {
            bail!("ingest.message_max is {} bytes: give \"1KiB\" to \"1GiB\"", self.ingest.message_max);
        }
        if !(1..=3600).contains(&self.ingest.message_timeout) {
            bail!("ingest.message_timeout is {} s: give \"1s\" to \"1h\"", self.ingest.message_timeout);
        }
        if !(0..=86_400).contains(&self.ingest.future_max) {
            bail!("ingest.future_max is {} s: give \"0s\" to \"1day\"", self.ingest.future_max);
        }
        // A listener cannot have more descriptors than a process has.
        if !(1..=1 << 30).contains(&self.ingest.connections_max) {
            bail!("ingest.connections_max is {}: give a number from 1 to 2^30", self.ingest.connections_max);
        }
        self.check_hbs()?;
        if self.graph.hot_window < 600 {
            bail!("graph.hot_window is {} s: give at least \"10m\"", self.graph.hot_window);
        }
        if !(10..=86_400).contains(&self.graph.index_refresh) {
            bail!("graph.index_refresh is {} s: give \"10s\" to \"1day\"", self.graph.index_refresh);
        }
        let silent_after = self.graph.silent_after;
        if silent_after != 0 && silent_after < self.graph.hot_window.max(3600) {
            bail!("graph.silent_after is {silent_after} s: give \"0s\", or at least \"1h\" and graph.hot_window");
        }
        if self.graph.retention.raw < 3600 {
            bail!("graph.retention.raw is {} s: give at least \"1h\"", self.graph.retention.raw);
        }
        Ok(())
    }

    /// What the judge alone cannot do without.
    fn check_judge_alone(&self) -> Result<()> {
        if self.listen.judge_rpc.is_empty() {
            bail!(
                "listen.judge_rpc is \"\": the judge alone takes points by no other door; give an address like \"0.0.0.0:6080\""
            );
        }
        if self.judge.hbs_addrs.is_empty() {
            bail!(
                "judge.hbs_addrs is []: the judge alone has no portal; give the hbs that it takes its rules from, like \
                 [\"10.0.0.5:6030\"]"
            );
        }
        if self.judge.redis_url.is_none() {
            bail!(
                "judge.redis_url is \"\": the judge alone sends its events to the queues of an old alarm; give a Redis like \
                 \"redis://:password@10.0.0.6:6379\""
            );
        }
        Ok(())
    }

    fn check_hbs(&self) -> Result<()> {
        let JudgeConfig { hbs_addrs, hbs_interval, .. } = &self.judge;
        for address in hbs_addrs {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
            if host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
                bail!("judge.hbs_addrs has {address:?}: give addresses like \"10.0.0.5:6030\"");
            }
        }
        // Two judges that each follow another portal would be one too many in a process.
        if !hbs_addrs.is_empty() && matches!(self.mode()?, Mode::Whole | Mode::Graph) {
            bail!(
                "judge.hbs_addrs is {hbs_addrs:?}: only the judge alone (roles = [\"judge\"]) takes its rules from another \
                 hbs; leave the key out"
            );
        }
        if !(5..=3600).contains(hbs_interval) {
            bail!("judge.hbs_interval is {hbs_interval} s: give \"5s\" to \"1h\"");
        }
        Ok(())
    }
}

/// Names file and line. The parser's own text repeats the line, and it may be one that holds a password.
fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    anyhow::anyhow!("cannot parse {}: line {line}: {}", path.display(), error.message())
}

/// Sets the dotted `path` to `text`, read as a TOML value where that works (numbers, lists, booleans), else as a string.
pub(crate) fn overlay(table: &mut toml::Table, path: &str, text: &str) -> Result<()> {
    let value = format!("v = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_string()));
    let (parents, key) = path.rsplit_once('.').map_or(("", path), |(parents, key)| (parents, key));
    let mut current = table;
    for parent in parents.split('.').filter(|part| !part.is_empty()) {
        current = current
            .entry(parent)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .with_context(|| format!("{parent} in {path} is a value, not a section"))?;
    }
    current.insert(key.to_string(), value);
    Ok(())
}

/// A network in CIDR form, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    pub fn parse(text: &str) -> Result<Network> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().with_context(|| format!("{text:?} is not an address or a network"))?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(p) => {
                p.parse().ok().filter(|p| *p <= bits).with_context(|| format!("{text:?}: prefix above {bits}"))?
            }
        };
        Ok(Network { address, prefix })
    }

    pub fn contains(&self, peer: IpAddr) -> bool {
        // A v4 peer of a dual-stack socket arrives as ::ffff:a.b.c.d.
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(peer)) => {
                let shift = 32 - u32::from(self.prefix);
                u32::from(net).checked_shr(shift) == u32::from(peer).checked_shr(shift)
            }
            (IpAddr::V6(net), IpAddr::V6(peer)) => {
                let shift = 128 - u32::from(self.prefix);
                u128::from(net).checked_shr(shift) == u128::from(peer).checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Network::parse(&text).map_err(|error| serde::de::Error::custom(format!("{error:#}")))
    }
}

/// "90s", "5m", "30d" → seconds.
pub(crate) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = humantime::parse_duration(&text)
        .map_err(|error| serde::de::Error::custom(format!("{text:?} is not a duration like \"5m\": {error}")))?;
    Ok(duration.as_secs() as i64)
}

/// "256MiB", "64kB" → bytes.
pub(crate) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|error| serde::de::Error::custom(format!("{text:?} is not a size like \"256MiB\": {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)], flags: &[(&str, String)]) -> Result<Config> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("hawkeye.toml");
        std::fs::write(&path, text)?;
        let variables = variables.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        Config::load(Some(&path), variables, flags)
    }

    #[test]
    fn example_file_holds_the_defaults() {
        let example = include_str!("../../../hawkeye.example.toml");
        assert_eq!(load(example, &[], &[]).expect("the example parses"), Config::default());
    }

    #[test]
    fn variables_overlay_the_file_and_flags_overlay_both() {
        let config = load(
            "data_dir = \"a\"\n[listen]\napi = \"127.0.0.1:1\"\n",
            &[
                ("HAWKEYE_LISTEN__API", "127.0.0.1:2"),
                ("HAWKEYE_INGEST__MIN_STEP", "10"),
                ("PATH", "/bin"),
                ("HAWKEYE_AGENT__INTERVAL", "5s"),
            ],
            &[("data_dir", "b".to_string())],
        )
        .expect("valid");
        assert_eq!(config.listen.api, "127.0.0.1:2");
        assert_eq!(config.ingest.min_step, 10);
        assert_eq!(config.data_dir, PathBuf::from("b"));
    }

    #[test]
    fn errors_name_the_key() {
        let check = |text: &str, part: &str| {
            let error = format!("{:#}", load(text, &[], &[]).expect_err(text));
            assert!(error.contains(part), "{text:?} gave {error:?}");
        };
        check("colour = 1", "colour");
        check("[listen]\napo = \"\"", "apo");
        check("[ingest]\nfuture_max = \"soon\"", "soon");
        check("memory_budget = \"1MiB\"", "memory_budget");
        check("[ingest]\nconnections_max = 9223372036854775807", "ingest.connections_max");
        check("[ingest]\nfuture_max = \"400000000000years\"", "ingest.future_max");
        check("[graph]\nsilent_after = \"90m\"", "graph.silent_after");
        check("[ingest]\nmessage_timeout = \"2h\"", "ingest.message_timeout");
        check("roles = [\"judge\"]", "listen.judge_rpc");
        check("roles = [\"judge\"]\n[listen]\njudge_rpc = \"127.0.0.1:6080\"", "judge.hbs_addrs is []");
        check(
            "roles = [\"judge\"]\n[listen]\njudge_rpc = \"127.0.0.1:6080\"\n[judge]\nhbs_addrs = [\"hbs:6030\"]",
            "judge.redis_url",
        );
        check("roles = [\"judge\", \"graph\"]", "[\"graph\"] or [\"judge\"] alone");
        check("[listen]\njudge_http = \"127.0.0.1:6081\"", "listen.judge_http");
        check("[judge]\nsilent_after = \"5m\"", "judge.silent_after");
        check("roles = []", "roles is []");
        check("roles = [\"graph\", \"transfer\"]", "[\"transfer\", \"graph\"]");
        check("roles = [\"graph\"]", "listen.graph_rpc");
        check("roles = [\"juge\"]", "juge");
        check("[ingest]\nallow = [\"10.0.0.0/99\"]", "10.0.0.0/99");
        check("[portal]\nurl = \"mysql://x\"", "portal.url");
        check("[graph]\nindex_refresh = \"1s\"", "graph.index_refresh");
        check("[judge]\nhbs_addrs = [\"hbs:6030\", \"10.0.0.5\"]", "judge.hbs_addrs has \"10.0.0.5\"");
        check("[judge]\nhbs_addrs = [\":6030\"]", "judge.hbs_addrs has \":6030\"");
        check("[judge]\nhbs_addrs = [\"hbs:70000\"]", "judge.hbs_addrs has \"hbs:70000\"");
        check("[judge]\nhbs_addrs = [\"hbs:6030\"]", "only the judge alone");
        check("[judge]\nhbs_interval = \"1s\"", "judge.hbs_interval");
        check("[graph]\nindex_url = \"mysql://db\"", "graph.index_url");
        check("[judge]\nredis_url = \"redis://\"", "judge.redis_url");
        check("roles = [\"graph\"]\n[ingest\nallow = []", "hawkeye.toml: line 2: ");
    }

    #[test]
    fn no_error_repeats_a_password() {
        let check = |text: &str, variables: &[(&str, &str)]| {
            let error = format!("{:#}", load(text, variables, &[]).expect_err(text));
            assert!(!error.contains("secret"), "{text:?} gave {error:?}");
        };
        check("[graph]\nindex_url = \"mysql://falcon:secret@\"", &[]);
        check("[graph]\nindex_url = \"mysql://falcon:secret@db", &[]);
        check("[graph]\nindex_url = mysql://falcon:secret@db", &[]);
        check("", &[("HAWKEYE_GRAPH__INDEX_URL", "mysql://falcon:secret/@db")]);
        check("[judge]\nredis_url = \"secret@\"", &[]);
        check("", &[("HAWKEYE_JUDGE__REDIS_URL", "redis://:secret@db:secret")]);
        for text in ["[graph]\nindex_url = \"mysql://falcon:secret@db\"", "[judge]\nredis_url = \"secret@db:6379\""] {
            let config = load(text, &[], &[]).expect("valid");
            assert!(!format!("{config:?}").contains("secret"));
        }
    }

    #[test]
    fn modes() {
        let mode = |text: &str| load(text, &[], &[]).and_then(|config| config.mode()).expect("roles that work");
        assert_eq!(mode(""), Mode::Whole);
        assert_eq!(mode("roles = [\"api\", \"alarm\", \"hbs\", \"graph\", \"judge\", \"transfer\"]"), Mode::Whole);
        let judge = "[judge]\nhbs_addrs = [\"hbs:6030\"]\nredis_url = \"redis://redis\"";
        assert_eq!(
            mode(&format!("roles = [\"judge\"]\n[listen]\njudge_rpc = \"127.0.0.1:6080\"\n{judge}")),
            Mode::Judge
        );
        assert_eq!(mode("roles = [\"graph\"]\n[listen]\ngraph_rpc = \"127.0.0.1:6070\""), Mode::Graph);
    }

    #[test]
    fn networks() {
        let check = |network: &str, peer: &str, inside: bool| {
            let network = Network::parse(network).expect("network");
            assert_eq!(network.contains(peer.parse().expect("address")), inside, "{network:?} {peer}");
        };
        check("10.0.0.0/8", "10.9.8.7", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("::1", "::1", true);
        check("127.0.0.0/8", "::ffff:127.0.0.1", true);
        check("10.0.0.0/8", "::1", false);
    }
}
