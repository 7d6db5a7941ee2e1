//! Section `collect` of the agent's file: what is collected beyond the original's metrics, one key each.
//!
//! Invariants: what the original does not have is off by default; what cannot be used (a pattern, a glob, an address)
//! is refused here, with the key and the fix; every list has a bound.

use probe::optional::{LogPattern, ProcessGroup, glob_fault, pattern};
use serde::{Deserialize, Serialize};
use settings::Faults;
use settings::units::is_host_and_port;
use std::collections::BTreeMap;
use std::path::Path;

/// Names of process groups, logs and exporters; each is a set of series, or a scrape per interval.
const GROUPS_MAX: usize = 32;
pub const LOGS_MAX: usize = 16;
const EXPORTERS_MAX: usize = 16;
/// Entries of a list: globs, units, servers.
const ENTRIES_MAX: usize = 256;
/// Servers that are asked for the time each interval.
const SERVERS_MAX: usize = 8;

/// What is collected beyond the original's metrics.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectConfig {
    /// NVIDIA's cards, where their library is; the original's metrics, so they are on.
    pub gpu: bool,
    /// Shares of each core's time.
    pub cores: bool,
    /// Time that tasks had to wait (PSI).
    pub pressure: bool,
    /// Descriptors, threads and tracked connections, of their limits.
    pub limits: bool,
    /// Globs below the root of the control groups.
    pub cgroups: Vec<String>,
    /// Units of systemd, by name or glob.
    pub units: Vec<String>,
    /// Globs of PEM files.
    pub certificates: Vec<String>,
    /// Servers of the time, `HOST:PORT`.
    pub ntp: Vec<String>,
    /// State of the disks by smartctl.
    pub smart: bool,
    /// Address on which StatsD's datagrams are taken; "" is none.
    pub statsd: String,
    /// Patterns of command lines by the group's name.
    pub processes: BTreeMap<String, String>,
    pub logs: BTreeMap<String, LogConfig>,
    pub exporters: BTreeMap<String, ExporterConfig>,
}

/// Lines of files that are counted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Absolute globs.
    pub files: Vec<String>,
    /// Regular expression over bytes.
    pub pattern: String,
}

/// A page of Prometheus' text that is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExporterConfig {
    /// `http://HOST:PORT/PATH`.
    pub url: String,
    /// Globs of the names that are taken; empty takes all.
    pub metrics: Vec<String>,
}

impl Default for CollectConfig {
    fn default() -> Self {
        CollectConfig {
            gpu: true,
            cores: false,
            pressure: false,
            limits: false,
            cgroups: Vec::new(),
            units: Vec::new(),
            certificates: Vec::new(),
            ntp: Vec::new(),
            smart: false,
            statsd: String::new(),
            processes: BTreeMap::new(),
            logs: BTreeMap::new(),
            exporters: BTreeMap::new(),
        }
    }
}

impl CollectConfig {
    /// Adds what cannot be used.
    pub fn check(&self, faults: &mut Faults) {
        self.check_lists(faults);
        self.check_names(faults);
        for (name, text) in &self.processes {
            if let Err(why) = pattern(text) {
                faults.add(format!("collect.processes has {name} = {text:?}: {why}: give a regular expression"));
            }
        }
        for (name, log) in &self.logs {
            check_log(name, log, faults);
        }
        for (name, exporter) in &self.exporters {
            check_exporter(name, exporter, faults);
        }
        if !self.statsd.is_empty() && !is_host_and_port(&self.statsd) {
            faults.add(format!(
                "collect.statsd is {:?}: want HOST:PORT, like \"127.0.0.1:8125\", or \"\" for none",
                self.statsd
            ));
        }
    }

    fn check_lists(&self, faults: &mut Faults) {
        let lists = [
            ("cgroups", &self.cgroups, ENTRIES_MAX),
            ("units", &self.units, ENTRIES_MAX),
            ("certificates", &self.certificates, ENTRIES_MAX),
            ("ntp", &self.ntp, SERVERS_MAX),
        ];
        for (key, list, max) in lists.into_iter().filter(|(_, list, max)| list.len() > *max) {
            faults.add(format!("collect.{key} has {} entries: give at most {max}", list.len()));
        }
        for text in &self.cgroups {
            if text.is_empty() || text.starts_with('/') || text.split('/').any(|part| part == "..") {
                faults.add(format!(
                    "collect.cgroups has {text:?}: give paths below /sys/fs/cgroup, like \"system.slice/*\""
                ));
            } else if let Some(why) = glob_fault(text) {
                faults.add(format!("collect.cgroups has {text:?}: {why}: give one * for each folder"));
            }
        }
        for text in &self.units {
            // A word that begins with a dash is a flag to systemctl, whatever stands before.
            if text.is_empty() || text.starts_with('-') || text.contains(|c: char| c.is_whitespace() || c.is_control())
            {
                faults.add(format!("collect.units has {text:?}: give names or globs, like \"nginx.service\""));
            }
        }
        for text in &self.certificates {
            check_path("collect.certificates has", text, faults);
        }
        for text in self.ntp.iter().filter(|text| !is_host_and_port(text)) {
            faults.add(format!("collect.ntp has {text:?}: want HOST:PORT, like \"10.0.0.1:123\""));
        }
    }

    /// Checks what becomes a tag.
    fn check_names(&self, faults: &mut Faults) {
        let tables: [(&str, Vec<&String>, usize); 3] = [
            ("processes", self.processes.keys().collect(), GROUPS_MAX),
            ("logs", self.logs.keys().collect(), LOGS_MAX),
            ("exporters", self.exporters.keys().collect(), EXPORTERS_MAX),
        ];
        for (key, names, max) in tables {
            if names.len() > max {
                faults.add(format!("collect.{key} has {} names: give at most {max}", names.len()));
            }
            let is_tag = |name: &str| {
                !name.is_empty()
                    && !name.contains(|c: char| c == ',' || c == '=' || c.is_whitespace() || c.is_control())
            };
            for name in names.into_iter().filter(|name| !is_tag(name)) {
                faults.add(format!(
                    "collect.{key} has the name {name:?}, which becomes a tag: give one without spaces, commas and ="
                ));
            }
        }
    }

    /// Groups of processes, compiled.
    pub fn process_groups(&self) -> Vec<ProcessGroup> {
        let group =
            |(name, text): (&String, &String)| Some(ProcessGroup { name: name.clone(), pattern: pattern(text).ok()? });
        self.processes.iter().filter_map(group).collect()
    }

    /// Logs, compiled.
    pub fn log_patterns(&self) -> Vec<LogPattern> {
        let log = |(name, log): (&String, &LogConfig)| {
            Some(LogPattern { name: name.clone(), files: log.files.clone(), pattern: pattern(&log.pattern).ok()? })
        };
        self.logs.iter().filter_map(log).collect()
    }
}

fn check_path(place: &str, text: &str, faults: &mut Faults) {
    if !Path::new(text).is_absolute() {
        faults.add(format!("{place} {text:?}: give paths that begin with /"));
    } else if let Some(why) = glob_fault(text) {
        faults.add(format!("{place} {text:?}: {why}: give one * for each folder"));
    }
}

fn check_log(name: &str, log: &LogConfig, faults: &mut Faults) {
    if log.files.is_empty() || log.files.len() > ENTRIES_MAX {
        faults.add(format!("collect.logs.{name}.files has {} entries: give 1 to {ENTRIES_MAX}", log.files.len()));
    }
    for text in &log.files {
        check_path(&format!("collect.logs.{name}.files has"), text, faults);
    }
    if let Err(why) = pattern(&log.pattern) {
        faults.add(format!("collect.logs.{name}.pattern: {why}: give a regular expression"));
    }
    if log.pattern.is_empty() {
        faults.add(format!("collect.logs.{name}.pattern is \"\", which every line has: give a regular expression"));
    }
}

fn check_exporter(name: &str, exporter: &ExporterConfig, faults: &mut Faults) {
    if super::exporters::Page::parse(&exporter.url).is_none() {
        faults.add(format!(
            "collect.exporters.{name}.url is {:?}: want http://HOST:PORT/PATH, like \"http://127.0.0.1:9100/metrics\"",
            exporter.url
        ));
    }
    for text in exporter.metrics.iter().filter(|text| text.is_empty() || glob_fault(text).is_some()) {
        faults.add(format!("collect.exporters.{name}.metrics has {text:?}: give names or globs, like \"node_load*\""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, parts: &[&str]) {
        let config: CollectConfig = toml::from_str(text).expect(text);
        let mut faults = Faults::default();
        config.check(&mut faults);
        let texts = faults.texts();
        assert_eq!(texts.len(), parts.len(), "{text} gave {texts:?}");
        assert!(texts.iter().zip(parts).all(|(text, part)| text.contains(part)), "{texts:?}, want {parts:?}");
    }

    #[test]
    fn what_can_be_used_is_taken() {
        check("", &[]);
        check(
            r#"cores = true
            cgroups = ["system.slice/*"]
            units = ["nginx.service", "*.timer"]
            certificates = ["/etc/ssl/*.pem"]
            ntp = ["10.0.0.1:123"]
            statsd = "127.0.0.1:8125"
            processes = { java = "^java " }
            logs = { app = { files = ["/var/log/app*.log"], pattern = "ERROR" } }
            exporters = { node = { url = "http://127.0.0.1:9100/metrics", metrics = ["node_load*"] } }"#,
            &[],
        );
    }

    #[test]
    fn what_cannot_be_used_is_told_with_the_fix() {
        check("cgroups = [\"/sys\", \"a/../b\", \"a/**\"]", &["/sys/fs/cgroup", "a/../b", "one *"]);
        check("units = [\"-h\", \"a b\"]", &["nginx.service", "a b"]);
        check("certificates = [\"x.pem\", \"/a/[\"]", &["begin with /", "/a/["]);
        check("ntp = [\"host\"]", &["HOST:PORT"]);
        check("statsd = \"8125\"", &["127.0.0.1:8125"]);
        check("processes = { x = \"(\", \"a,b\" = \"\" }", &["a,b", "unclosed"]);
        check("logs = { a = {} }", &["files", "pattern"]);
        check("logs = { a = { files = [\"x\"], pattern = \"[\" } }", &["begin with /", "regular expression"]);
        check("exporters = { a = { url = \"https://h:1\", metrics = [\"\"] } }", &["http://HOST:PORT", "metrics"]);
        let servers = "\"h:1\",".repeat(SERVERS_MAX + 1);
        check(&format!("ntp = [{servers}]"), &["at most 8"]);
    }
}
