//! Collector: one of those that are switched on, with what it has seen so far.
//!
//! How: a plain list of kinds. What may block on a mount or on a process that the kernel holds goes to a blocking
//! thread, with its state; the task waits for it, and nobody else does.

use super::child::Program;
use super::config::{CollectConfig, ExporterConfig};
use super::smart::Smart;
use super::statsd::Statsd;
use super::{Collected, certificates, exporters, ntp, nvml, units};
use probe::optional::{Logs, ProcessGroups, collect_cgroups, collect_limits, collect_pressure};
use probe::{Reading, Roots};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Collectors of certificates: each may hang by itself.
const CERTIFICATES_MAX: usize = 8;
/// Collectors of files that may hang at a time: of logs, as many as may be named, and of certificates.
pub const HANGING_MAX: usize = super::config::LOGS_MAX + CERTIFICATES_MAX;

/// When a round begins.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Milliseconds since the agent's start, by the steady clock.
    pub monotonic_ms: u64,
    /// Unix seconds.
    pub unix: i64,
    /// Milliseconds since this collector's round before; 0 for the first.
    pub elapsed_ms: u64,
}

/// A collector that is on.
#[derive(Debug)]
pub enum Collector {
    /// Pressure, limits and control groups, which the kernel makes in memory.
    Kernel {
        pressure: bool,
        limits: bool,
        cgroups: Vec<String>,
    },
    Processes(Arc<Mutex<ProcessGroups>>),
    Logs(Arc<Mutex<Logs>>),
    Certificates(Vec<String>),
    Units {
        systemctl: Program,
        units: Vec<String>,
    },
    Ntp(Vec<String>),
    Smart(Box<Smart>),
    Exporters(BTreeMap<String, ExporterConfig>),
    Statsd(Statsd),
    Gpu,
}

impl Collector {
    /// Collectors that are on; cores are sampled with the CPU.
    pub fn all_of(config: &CollectConfig) -> Vec<Collector> {
        let (pressure, limits, cgroups) = (config.pressure, config.limits, config.cgroups.clone());
        let mut on = Vec::new();
        if pressure || limits || !cgroups.is_empty() {
            on.push(Collector::Kernel { pressure, limits, cgroups });
        }
        if !config.processes.is_empty() {
            on.push(Collector::Processes(Arc::new(Mutex::new(ProcessGroups::new(config.process_groups())))));
        }
        if !config.logs.is_empty() {
            // Each by itself: a mount that hangs costs what lies on it.
            let logs = config.log_patterns().into_iter().map(|pattern| Logs::new(vec![pattern]));
            on.extend(logs.map(|logs| Collector::Logs(Arc::new(Mutex::new(logs)))));
        }
        let globs = config.certificates.chunks(config.certificates.len().div_ceil(CERTIFICATES_MAX).max(1));
        on.extend(globs.map(|globs| Collector::Certificates(globs.to_vec())));
        if !config.units.is_empty() {
            on.push(Collector::Units { systemctl: Program::new("systemctl"), units: config.units.clone() });
        }
        if !config.ntp.is_empty() {
            on.push(Collector::Ntp(config.ntp.clone()));
        }
        if config.smart {
            on.push(Collector::Smart(Box::new(Smart::new("smartctl"))));
        }
        if !config.exporters.is_empty() {
            on.push(Collector::Exporters(config.exporters.clone()));
        }
        if !config.statsd.is_empty() {
            on.push(Collector::Statsd(Statsd::new(&config.statsd)));
        }
        if config.gpu {
            on.push(Collector::Gpu);
        }
        on
    }

    /// Name for the log.
    pub fn name(&self) -> &'static str {
        match self {
            Collector::Kernel { .. } => "kernel",
            Collector::Processes(_) => "processes",
            Collector::Logs(_) => "logs",
            Collector::Certificates(_) => "certificates",
            Collector::Units { .. } => "units",
            Collector::Ntp(_) => "ntp",
            Collector::Smart(_) => "smart",
            Collector::Exporters(_) => "exporters",
            Collector::Statsd(_) => "statsd",
            Collector::Gpu => "gpu",
        }
    }

    /// One round.
    pub async fn collect(&mut self, roots: &Roots, moment: Moment) -> Collected {
        let roots = roots.clone();
        match self {
            Collector::Kernel { pressure, limits, cgroups } => {
                let (pressure, limits, cgroups) = (*pressure, *limits, cgroups.clone());
                blocking(move || kernel(&roots, pressure, limits, &cgroups)).await
            }
            Collector::Processes(groups) => {
                let groups = groups.clone();
                blocking(move || {
                    let (mut readings, mut groups) = (Vec::new(), lock(&groups));
                    let failed = groups.collect(&roots, moment.monotonic_ms, &mut readings).err();
                    of_files(readings, failed.into_iter().collect())
                })
                .await
            }
            Collector::Logs(logs) => {
                let logs = logs.clone();
                blocking(move || {
                    let (mut readings, mut failures) = (Vec::new(), Vec::new());
                    lock(&logs).collect(&roots, moment.monotonic_ms, &mut readings, &mut failures);
                    of_files(readings, failures)
                })
                .await
            }
            Collector::Certificates(globs) => {
                let globs = globs.clone();
                blocking(move || certificates::collect(&roots, &globs, moment.unix)).await
            }
            Collector::Units { systemctl, units } => units::collect(systemctl, units).await,
            Collector::Ntp(servers) => ntp::collect(servers).await,
            Collector::Smart(smart) => smart.collect().await,
            Collector::Exporters(exporters) => exporters::collect(exporters).await,
            Collector::Statsd(statsd) => statsd.collect(moment.elapsed_ms).await,
            Collector::Gpu => blocking(|| nvml::collect(nvml::LIBRARY)).await,
        }
    }
}

fn kernel(roots: &Roots, pressure: bool, limits: bool, cgroups: &[String]) -> Collected {
    let (mut readings, mut failures) = (Vec::new(), Vec::new());
    if pressure {
        failures.extend(collect_pressure(roots, &mut readings).err());
    }
    if limits {
        failures.extend(collect_limits(roots, &mut readings).err());
    }
    if !cgroups.is_empty() {
        collect_cgroups(roots, cgroups, &mut readings, &mut failures);
    }
    of_files(readings, failures)
}

fn of_files(readings: Vec<Reading>, failures: Vec<probe::ProbeError>) -> Collected {
    let mut collected = Collected { readings, faults: Vec::new() };
    collected.fail_all(failures);
    collected
}

/// State is whole also after a panic: a round that failed has added nothing, or counts anew.
fn lock<T>(state: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking(collect: impl FnOnce() -> Collected + Send + 'static) -> Collected {
    let collected = tokio::task::spawn_blocking(collect).await;
    collected.unwrap_or_else(|error| {
        let mut failed = Collected::default();
        failed.fail("a collector", format!("it failed, which is a fault of the agent: {error}"));
        failed
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::rows;

    #[test]
    fn what_is_no_metric_of_the_original_is_off_by_default_and_each_key_switches_one_on() {
        let check = |text: &str, expected: &[&str]| {
            let config: CollectConfig = toml::from_str(&format!("gpu = false\n{text}")).expect(text);
            let names: Vec<&str> = Collector::all_of(&config).iter().map(Collector::name).collect();
            assert_eq!(names, expected, "{text}");
        };
        let default = Collector::all_of(&CollectConfig::default());
        assert_eq!(default.iter().map(Collector::name).collect::<Vec<_>>(), ["gpu"]);
        check("cores = true", &[]);
        check("pressure = true\nlimits = true\ncgroups = [\"*\"]", &["kernel"]);
        check("processes = { a = \"x\" }", &["processes"]);
        check("logs = { a = { files = [\"/x\"], pattern = \"x\" } }", &["logs"]);
        check("certificates = [\"/x\"]", &["certificates"]);
        check("units = [\"x\"]\nntp = [\"h:1\"]\nsmart = true", &["units", "ntp", "smart"]);
        check("exporters = { a = { url = \"http://h\" } }\nstatsd = \"h:1\"", &["exporters", "statsd"]);
    }

    /// Rounds of what only reads files, on a tree of a host.
    #[tokio::test]
    async fn rounds_on_a_tree() {
        let text = "gpu = false\npressure = true\nlimits = true\ncgroups = [\"system.slice/*\", \"absent\"]\n\
            processes = { web = \"nginx\" }\nlogs = { app = { files = [\"/var/log/*.log\"], pattern = \"E\" } }";
        let config: CollectConfig = toml::from_str(text).expect(text);
        let roots = Roots::new("../probe/testdata/optional");
        for mut collector in Collector::all_of(&config) {
            for (monotonic_ms, elapsed_ms) in [(0, 0), (60_000, 60_000)] {
                let moment = Moment { monotonic_ms, unix: 1_800_000_000, elapsed_ms };
                let collected = collector.collect(&roots, moment).await;
                assert!(collected.faults.is_empty(), "{}: {:?}", collector.name(), collected.faults);
                let is_first = monotonic_ms == 0;
                assert!(!rows(&collected.readings).is_empty() || is_first, "{}", collector.name());
            }
        }
        let mut collector = Collector::Kernel { pressure: true, limits: true, cgroups: vec!["*".into()] };
        let moment = Moment { monotonic_ms: 0, unix: 0, elapsed_ms: 0 };
        let failed = collector.collect(&Roots::new("/nowhere"), moment).await;
        assert_eq!((failed.readings.len(), failed.faults.len()), (0, 3), "each says so by itself");
    }
}
