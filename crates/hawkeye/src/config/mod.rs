//! Configuration of `hawkeye server`: one TOML file, each key also as an environment variable, the common ones as
//! flags.
//!
//! How: the file becomes a table, `HAWKEYE_LISTEN__API=…` variables overlay it (`__` separates levels), flags overlay
//! that, and serde turns the result into [`Config`]. Each section has a file beside this one, with its defaults and its
//! `check`. Durations ("5m") and sizes ("16MiB") are strings with a unit.
//! Invariants: all that is wrong is told at once, each with its key; an unknown key is an error; every default is in
//! the section's file, and `hawkeye.example.toml` repeats them (a test compares the two); what can be checked without
//! touching disk or network is checked before anything starts.

mod aggregator;
mod alarm;
mod api;
mod callback;
mod graph;
mod hbs;
mod ingest;
mod judge;
mod listen;
mod mysql_url;
mod nodata;
mod old_api;
mod p8s;
mod portal;
mod probe;
mod redis_url;
#[cfg(test)]
mod refused;
mod role;
mod tls;
mod transfer;
mod watchdog;

pub use aggregator::AggregatorConfig;
pub use alarm::{AlarmConfig, SmtpConfig, SmtpSecurity};
pub use api::{ApiConfig, Grafana, Rights, Viewer};
pub use callback::{CallbackTargets, TargetFault};
pub use graph::{Fsync, GraphConfig};
pub use hbs::{HbsConfig, Wanted};
pub use ingest::IngestConfig;
pub use judge::{JudgeConfig, Semantics};
pub use listen::Listen;
pub use mysql_url::MysqlUrl;
pub use nodata::NodataConfig;
pub use p8s::P8sConfig;
pub use portal::PortalConfig;
pub use probe::ProbeConfig;
pub use redis_url::RedisUrl;
pub use role::{ALL_ROLES, Mode, Role};
pub use tls::TlsConfig;
pub use transfer::{Precision, RingConfig, TransferConfig};
pub use watchdog::WatchdogConfig;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use settings::units::size;
use settings::{Faults, is_json, not_toml, overlay, overlay_variables, without_mark};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Settings of a server, checked.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub roles: BTreeSet<Role>,
    pub data_dir: PathBuf,
    /// Bytes that the whole process may have resident (`engine/pressure.rs`). Many bounds are shares of this.
    #[serde(deserialize_with = "size")]
    pub memory_budget: u64,
    /// The filter of the log, e.g. `info` or `hawkeye=debug,warn`.
    pub log: String,
    pub listen: Listen,
    pub tls: TlsConfig,
    pub portal: PortalConfig,
    pub ingest: IngestConfig,
    pub transfer: TransferConfig,
    pub judge: JudgeConfig,
    pub graph: GraphConfig,
    pub hbs: HbsConfig,
    pub probe: ProbeConfig,
    pub aggregator: AggregatorConfig,
    pub nodata: NodataConfig,
    pub watchdog: WatchdogConfig,
    pub p8s: P8sConfig,
    pub alarm: AlarmConfig,
    pub api: ApiConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            roles: ALL_ROLES.into_iter().collect(),
            data_dir: PathBuf::from("data"),
            memory_budget: 256 << 20,
            log: "hawkeye=info,warn".to_string(),
            listen: Listen::default(),
            tls: TlsConfig::default(),
            portal: PortalConfig::default(),
            ingest: IngestConfig::default(),
            transfer: TransferConfig::default(),
            judge: JudgeConfig::default(),
            graph: GraphConfig::default(),
            hbs: HbsConfig::default(),
            probe: ProbeConfig::default(),
            aggregator: AggregatorConfig::default(),
            nodata: NodataConfig::default(),
            watchdog: WatchdogConfig::default(),
            p8s: P8sConfig::default(),
            alarm: AlarmConfig::default(),
            api: ApiConfig::default(),
        }
    }
}

impl Config {
    /// Reads `file` (if any), then `HAWKEYE_*` variables, then `flags` (dotted key, TOML value text or plain text).
    pub fn load(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Config> {
        let mut table = file.map(read_table).transpose()?.unwrap_or_default();
        // Variables HAWKEYE_AGENT__… belong to the agent, which may live in the same environment.
        let variables: Vec<(String, String)> =
            variables.filter(|(name, _)| !name.starts_with("HAWKEYE_AGENT__")).collect();
        let borrowed = variables.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        overlay_variables::<Config>(&mut table, "HAWKEYE_", borrowed)?;
        for (key, text) in flags {
            overlay::<Config>(&mut table, key, text)?;
        }
        let sources = || {
            // An unknown key may come from any of these.
            let ours = variables.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("HAWKEYE_"));
            let file = file.map(|path| path.display().to_string());
            let ours: Vec<&str> = ours.collect();
            let variables = if ours.is_empty() {
                String::new()
            } else {
                format!("the environment's {} (two underscores stand for a dot)", ours.join(", "))
            };
            let sources: Vec<String> = file.into_iter().chain([variables]).filter(|text| !text.is_empty()).collect();
            format!("configuration {}", sources.join(", and ")).trim_end().to_string()
        };
        let mut faults = Faults::default();
        let config: Config = settings::read(table, &mut faults).with_context(sources)?;
        config.check(&mut faults);
        faults.none().with_context(sources)?;
        Ok(config)
    }

    /// The mode of the process, which follows from the roles.
    pub fn mode(&self) -> Result<Mode> {
        Mode::of(&self.roles)
    }

    /// The directory of agents' programs.
    pub fn agents_dir(&self) -> PathBuf {
        let dir = &self.api.agents_dir;
        if dir.as_os_str().is_empty() { self.data_dir.join("agents") } else { dir.clone() }
    }

    /// Whether this process tells people and makes callbacks; else whoever takes its events from Redis does.
    pub fn delivers(&self) -> bool {
        self.roles.contains(&Role::Alarm)
    }

    /// What people are told of the settings; nothing of it keeps the process from working.
    pub fn remarks(&self) -> Vec<String> {
        let unopened = self.mode().map(|mode| self.listen.unopened(mode)).unwrap_or_default();
        let text = |key| format!("listen.{key} is set, and not opened by these roles: leave it \"\"");
        unopened.into_iter().map(text).chain(self.api.remark()).collect()
    }

    /// The most points a rule may look back on: what the hot window holds at an agent's usual step of 60 s.
    pub fn rule_points_max(&self) -> u32 {
        (self.graph.hot_window / 60).clamp(1, i64::from(u32::MAX)) as u32
    }

    /// Whether only owners, their teams and administrators may change things over REST.
    pub fn is_strict(&self) -> bool {
        match self.api.rights {
            Rights::ByPortal => self.portal.url.is_none(),
            Rights::Strict => true,
            Rights::OpenFalcon => false,
        }
    }

    fn check(&self, faults: &mut Faults) {
        let mode = self.mode();
        if let Err(error) = &mode {
            faults.add(error.to_string());
        }
        // What depends on the mode is left out where there is none.
        let mode = mode.ok();
        if self.data_dir.as_os_str().is_empty() {
            faults.add("data_dir is \"\": give the directory that everything is stored in, like \"data\"");
        }
        if self.memory_budget < 32 << 20 {
            faults.add(format!(
                "memory_budget is {} bytes: a server without a series needs some 14 MB, and 20 at its start, so give at least \"32MiB\"",
                self.memory_budget
            ));
        }
        if mode == Some(Mode::Whole) && !self.delivers() && self.judge.redis_url.is_none() {
            faults.add(
                "roles is without alarm, so nobody is told: set judge.redis_url, from which an old alarm takes the events, or add alarm",
            );
        }
        if let Err(error) = supervisor::log::parse_filter("log", &self.log) {
            faults.add(error.to_string());
        }
        self.listen.check(mode, faults);
        self.tls.check(mode, &self.listen, faults);
        let hbs = self.judge.hbs_addrs.iter().map(|place| ("judge.hbs_addrs", place));
        self.tls.check_places(self.transfer.places().chain(hbs), faults);
        self.portal.check(mode, faults);
        self.ingest.check(faults);
        self.transfer.check(mode, &self.listen, faults);
        self.judge.check(mode, faults);
        self.graph.check(mode, faults);
        self.hbs.check(faults);
        self.aggregator.check(mode, &self.roles, faults);
        self.nodata.check(mode, &self.roles, faults);
        self.watchdog.check(faults);
        self.p8s.check(mode, &self.listen, faults);
        self.alarm.check(mode, self.delivers(), faults);
        self.api.check(faults);
    }
}

fn read_table(path: &Path) -> Result<toml::Table> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration {}", path.display()))?;
    if is_json(Some(path), &text) {
        bail!(
            "the configuration {} is JSON: give a server's as TOML, like hawkeye.example.toml; the cfg.json of an agent goes \
             with `hawkeye agent --config`",
            path.display()
        );
    }
    let text = without_mark(&text);
    text.parse().map_err(|error| not_toml(path, text, &error))
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
        let example = include_str!("../../../../hawkeye.example.toml");
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
        check("[listen]\nhosts = [\"http://hawkeye:8080\"]", "listen.hosts has \"http://hawkeye:8080\"");
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
        check(
            "roles = [\"judge\", \"graph\"]",
            "[\"graph\"], [\"judge\"], [\"hbs\"], [\"alarm\"], [\"api\"], [\"aggregator\"] or [\"nodata\"] alone",
        );
        check("[listen]\njudge_http = \"127.0.0.1:6081\"", "listen.judge_http");
        check("[tls]\nlisteners = [\"api\"]", "tls.cert is \"\": give a PEM file");
        check(
            "[tls]\ncert = \"a\"\nkey = \"b\"\nlisteners = [\"graph_rpc\"]",
            "that listener is off: set listen.graph_rpc",
        );
        check("[judge]\nsilent_after = \"5m\"", "judge.silent_after");
        check("roles = []", "roles is []");
        check("roles = [\"transfer\", \"judge\", \"graph\", \"hbs\", \"api\"]", "judge.redis_url");
        check("roles = [\"transfer\", \"judge\", \"graph\", \"hbs\", \"alarm\"]", "only alarm may be missing");
        check("roles = [\"graph\", \"transfer\"]", "[\"transfer\", \"graph\"]");
        check("roles = [\"graph\"]", "listen.graph_rpc");
        check("roles = [\"transfer\"]", "transfer has no next hop");
        let own = "roles = [\"gateway\"]\n[transfer.next]\naddrs = [\"localhost:8433\"]";
        check(own, "where this process listens itself");
        check("roles = [\"gateway\"]", "transfer.next.addrs is where a gateway sends");
        check(
            "roles = [\"gateway\", \"transfer\", \"graph\", \"hbs\", \"api\"]",
            "[\"transfer\"] or [\"gateway\"] alone",
        );
        check("[transfer.next]\naddrs = [\"h:1\"]", "transfer has next hops, and this process keeps points itself");
        check("[transfer.influxdb]\naddress = \"http://u:secret@h\"", "transfer.influxdb.address is no URL");
        check("roles = [\"aggregator\"]", "aggregator.plus_api is \"\"");
        check("roles = [\"nodata\", \"aggregator\"]", "nodata.push_api is \"\"");
        check("roles = [\"nodata\", \"transfer\", \"judge\", \"graph\", \"hbs\", \"api\"]", "alone");
        check("roles = [\"alarm\"]", "alarm.redis_url");
        check("roles = [\"alarm\"]\n[alarm]\nredis_url = \"h:1\"", "alarm.plus_api is \"\"");
        check("roles = [\"juge\"]", "juge");
        check("[ingest]\nallow = [\"10.0.0.0/99\"]", "10.0.0.0/99");
        check("[portal]\nurl = \"mysql://x\"", "portal.url");
        check("[portal]\nurl = \"mysql://u:p@x\"", "portal.url");
        check("roles = [\"hbs\"]", "portal.url is \"\"");
        check("[graph]\nindex_refresh = \"1s\"", "graph.index_refresh");
        check("[judge]\nhbs_addrs = [\"hbs:6030\", \"10.0.0.5\"]", "judge.hbs_addrs has \"10.0.0.5\"");
        check("[judge]\nhbs_addrs = [\":6030\"]", "judge.hbs_addrs has \":6030\"");
        check("[judge]\nhbs_addrs = [\"hbs:70000\"]", "judge.hbs_addrs has \"hbs:70000\"");
        check("[judge]\nhbs_addrs = [\"hbs:6030\"]", "only the judge alone");
        check("[judge]\nhbs_interval = \"1s\"", "judge.hbs_interval");
        check("[alarm]\nsms = \"htp:/nonsense\"", "alarm.sms");
        check("[alarm]\ndashboard = \"hawkeye.example.com\"", "alarm.dashboard");
        check("[alarm.smtp]\nhost = \"mail\"\nfrom = \"nobody\"", "alarm.smtp");
        check("[alarm]\ngive_up_after = \"0s\"", "alarm.give_up_after");
        check("[alarm]\ndeliveries_max = 0", "alarm.deliveries_max");
        check("[nodata]\nflood_share = 0", "nodata.flood_share is 0: give a share above 0, up to 1");
        check("[nodata]\nflood_share = 1.5", "nodata.flood_share is 1.5");
        check("[nodata]\nflood_share = nan", "nodata.flood_share is NaN");
        check("[hbs]\ntrustable = [\"10.0.0.5,10.0.0.6\"]", "hbs.trustable");
        check("[ingest]\nallow = \"10.0.0.0/8\"", "ingest.allow: want a list in brackets");
        check("[api]\nserver_token = \" secret\"", "api.server_token");
        check("[graph]\nindex_url = \"mysql://db\"", "graph.index_url");
        check("[judge]\nredis_url = \"redis://\"", "judge.redis_url");
        check("roles = [\"graph\"]\n[ingest\nallow = []", "hawkeye.toml: line 2: ");
        check("{\"debug\": true}", "hawkeye.toml is JSON: give a server's as TOML");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let text = r#"
            colour = 1
            memory_budget = "1MiB"
            log = "hawkeye=nonsense=x"
            [listen]
            api = "127.0.0.1:99999"
            admin = "127.0.0.1:6060"
            hbs_rpc = "6030"
            [ingest]
            allow = ["10.0.0.0/99", "127.0.0.1", "home"]
            min_step = "a"
            future_max = "2days"
            [alarm]
            sms = "gateway.local"
            dashboard = "nope"
            im = "http://"
            [alarm.smtp]
            port = 99999
            [graph.retention]
            raw = "1s"
            [none]
            a = 1
        "#;
        let error = load(text, &[], &[]).expect_err("much is wrong");
        let faults = error.downcast_ref::<Faults>().expect("a list of faults").texts();
        let parts = [
            "colour",
            "memory_budget",
            "log is",
            "listen.api is \"127.0.0.1:99999\"",
            "listen.admin is",
            "listen.hbs_rpc",
            "\"10.0.0.0/99\" is not",
            "ingest.min_step",
            "ingest.future_max",
            "alarm.sms",
            "alarm.dashboard",
            "alarm.im",
            "alarm.smtp.port",
            "graph.retention.raw",
            "`none`",
        ];
        for part in parts {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:#?}");
        }
        assert_eq!(faults.len(), parts.len(), "{faults:#?}");
        assert!(faults.iter().any(|fault| fault.contains("\"home\" is not")), "{faults:#?}");
    }

    #[test]
    fn what_keeps_nothing_from_working_is_told() {
        let remarks = |text: &str| load(text, &[], &[]).expect(text).remarks();
        assert_eq!(remarks(""), Vec::<String>::new());
        assert!(remarks("[api]\nserver_token = \"fifteen letters\"")[0].contains("api.server_token opens everything"));
        assert_eq!(remarks("[api]\nserver_token = \"sixteen letters.\""), Vec::<String>::new());
        let error = format!("{:#}", load("", &[("HAWKEYE_URL", "1")], &[]).expect_err("no such key"));
        assert!(error.contains("the environment's HAWKEYE_URL") && error.contains("`url`"), "{error}");
    }

    #[test]
    fn no_error_repeats_a_password() {
        let check = |text: &str, variables: &[(&str, &str)]| {
            let error = format!("{:#}", load(text, variables, &[]).expect_err(text));
            assert!(!error.contains("secret"), "{text:?} gave {error:?}");
        };
        check("[graph]\nindex_url = \"mysql://falcon:secret@\"", &[]);
        check("[portal]\nurl = \"mysql://falcon:secret@db\"", &[]);
        check("[graph]\nindex_url = \"mysql://falcon:secret@db", &[]);
        check("[graph]\nindex_url = mysql://falcon:secret@db", &[]);
        check("", &[("HAWKEYE_GRAPH__INDEX_URL", "mysql://falcon:secret/@db")]);
        check("[judge]\nredis_url = \"secret@\"", &[]);
        check("[api]\nserver_token = \"secret \"", &[]);
        check("[ingest]\ntoken = \"secret\"", &[]);
        check("[alarm]\nsms = \"secret\"", &[]);
        check("[transfer.influxdb]\naddress = \"http://u:secret@h\"", &[]);
        check("[transfer.next]\ntoken = \"secret\"", &[]);
        check("", &[("HAWKEYE_JUDGE__REDIS_URL", "redis://:secret@db:secret")]);
        for text in [
            "[graph]\nindex_url = \"mysql://falcon:secret@db\"",
            "[judge]\nredis_url = \"secret@db:6379\"",
            "[ingest]\ntoken = \"secret-secret-secret\"",
        ] {
            let config = load(text, &[], &[]).expect("valid");
            assert!(!format!("{config:?}").contains("secret"));
        }
    }

    #[test]
    fn modes() {
        let mode = |text: &str| load(text, &[], &[]).and_then(|config| config.mode()).expect("roles that work");
        assert_eq!(mode(""), Mode::Whole);
        let no_alarm =
            "roles = [\"transfer\", \"judge\", \"graph\", \"hbs\", \"api\"]\n[judge]\nredis_url = \"redis://redis\"";
        assert_eq!(mode(no_alarm), Mode::Whole);
        assert_eq!(mode("roles = [\"api\", \"alarm\", \"hbs\", \"graph\", \"judge\", \"transfer\"]"), Mode::Whole);
        let judge = "[judge]\nhbs_addrs = [\"hbs:6030\"]\nredis_url = \"redis://redis\"";
        assert_eq!(
            mode(&format!("roles = [\"judge\"]\n[listen]\njudge_rpc = \"127.0.0.1:6080\"\n{judge}")),
            Mode::Judge
        );
        assert_eq!(mode("roles = [\"gateway\"]\n[transfer.next]\naddrs = [\"h:8433\"]"), Mode::Gateway);
        assert_eq!(
            mode("roles = [\"transfer\"]\n[transfer.graph]\ncluster = { a = \"h:1,i:1\", b = \"j:1\" }"),
            Mode::Transfer
        );
        let alarm = "[alarm]\nredis_url = \"redis\"\nplus_api = \"http://api:8080\"\nplus_api_token = \"t\"";
        assert_eq!(mode(&format!("roles = [\"alarm\"]\n{alarm}")), Mode::Alarm);
        assert_eq!(mode("roles = [\"hbs\"]\n[portal]\nurl = \"mysql://falcon@db\""), Mode::Hbs);
        assert_eq!(mode("roles = [\"api\"]\n[graph]\ncluster = { graph-00 = \"h:1\" }"), Mode::Api);
        assert_eq!(mode("roles = [\"graph\"]\n[listen]\ngraph_rpc = \"127.0.0.1:6070\""), Mode::Graph);
    }
}
