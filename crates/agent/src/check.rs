//! Check: everything that the agent would do, once, for whoever sets a host up: `hawkeye-agent --check`.
//!
//! Why: an agent that lacks a right, a program or a way says so in its log some minutes later, when nobody looks.
//! How: a line for each collector, probe and address as it is done, `NAME ... ok (VALUES, TIME)`, else
//! `NAME ... fail: WHY`. Ports and processes that no strategy asks for are looked for all the same, and so is `du`. Hbs
//! is asked what this host is to do, and not told of it: a check makes no host. StatsD has nothing to try, for a
//! running agent has its port.
//! Invariants: nothing is written, and no point is sent; what hangs costs [`LIMIT`] and a line.
//! Compat: `-check` of the original, whose names the lines have, and whose `... ok` and `... fail` scripts look for.

use crate::client::{CallError, Client};
use crate::collect::{Collector, Moment};
use crate::config::AgentConfig;
use crate::{Agent, clock, du, plugin, process, url};
use anyhow::Result;
use net::tls::client::Trust;
use probe::{Driven, Group, PARTS, Part, ProcessMatch, Reading, Sampler, report_spaces};
use rustix::fs::{Access, access};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use supervisor::causes::line_of;
use supervisor::log::say;

/// The time that one line may take; `du` has 30 s.
const LIMIT: Duration = Duration::from_secs(40);
/// The time between the two samples of what is a rate.
const SAMPLES_APART: Duration = Duration::from_secs(1);
/// The port that is looked for, where no strategy names one.
const ANY_PORT: u16 = 22;
/// The file that `du` is tried on, where no strategy names a directory.
const ANY_FILE: &str = "/dev/null";
/// Faults of one line that are told.
const FAULTS_MAX: usize = 5;

/// A number of values, or none where there are none to count; else why it fails.
type Found = Result<Option<usize>, String>;

/// The arguments of a command line, in which the original's `-check` is ours.
pub fn as_ours(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.map(|argument| if argument == OsStr::new("-check") { "--check".into() } else { argument })
}

/// Checks and prints; true if all is well. Fails where the agent would not start.
pub fn check_process(config: AgentConfig) -> Result<bool> {
    let runtime = process::runtime()?;
    let is_well = runtime.block_on(check(config, &mut |line| say(line)));
    // What hangs is left behind.
    runtime.shutdown_background();
    is_well
}

/// Lines so far.
struct Lines<'p> {
    print: &'p mut dyn FnMut(String),
    is_well: bool,
}

impl Lines<'_> {
    async fn add(&mut self, name: &str, work: impl Future<Output = Found>) {
        let begun = Instant::now();
        let found = tokio::time::timeout(LIMIT, work).await;
        let found =
            found.unwrap_or_else(|_| Err(format!("not done within {LIMIT:?}; does a mount or a program hang?")));
        let (ms, width) = (begun.elapsed().as_millis(), 8);
        (self.print)(match &found {
            Ok(Some(values)) => format!("{name:<width$} ... ok ({values} values, {ms} ms)"),
            Ok(None) => format!("{name:<width$} ... ok ({ms} ms)"),
            Err(why) => format!("{name:<width$} ... fail: {why}"),
        });
        self.is_well &= found.is_ok();
    }
}

async fn check(config: AgentConfig, print: &mut dyn FnMut(String)) -> Result<bool> {
    let ca = &config.ca;
    let trust = if ca.as_os_str().is_empty() { None } else { Some(Trust::of_file("ca", ca)?) };
    let agent = Arc::new(Agent { trust, ..Agent::new(config) });
    let mut lines = Lines { print, is_well: true };
    check_addresses(&agent, &mut lines).await;
    let driven = with_some(&agent.orders.driven());
    check_host(&agent, &driven, &mut lines).await;
    lines.add("du -bs", check_du(&driven.paths)).await;
    if !driven.urls.is_empty() {
        lines.add("url", async { Ok(Some(url::collect(&driven.urls, &agent.config.hostname).await.len())) }).await;
    }
    check_switched_on(&agent, &mut lines).await;
    check_folders(&agent.config, &mut lines).await;
    Ok(lines.is_well)
}

/// Hbs first, for it says what else there is to look for.
async fn check_addresses(agent: &Agent, lines: &mut Lines<'_>) {
    let config = &agent.config;
    if !config.hbs_addr.is_empty() {
        let learn = async {
            let learned = agent.heartbeat().learn().await;
            learned.map(|()| None).map_err(|error| line_of(&*error))
        };
        lines.add(&format!("hbs {}", config.hbs_addr), learn).await;
    }
    for address in &config.transfer_addrs {
        let client = Client::new(address, config.connect_timeout);
        let mut client = client.with_token(&config.token).with_trust(&agent.trust);
        let ping = async {
            match client.call("Transfer.Ping", b"{}").await {
                // Whoever answers so has understood.
                Err(CallError::Refused(text)) if text.contains("can't find") => Ok(None),
                answer => answer.map(|_| None).map_err(|error| error.to_string()),
            }
        };
        lines.add(&format!("transfer {address}"), ping).await;
    }
}

/// What strategies ask for, and something of each kind that they do not.
fn with_some(driven: &Driven) -> Driven {
    let mut driven = driven.clone();
    if driven.ports.is_empty() {
        driven.ports.push(ANY_PORT);
    }
    if driven.processes.is_empty() {
        driven.processes.push(ProcessMatch::parse(""));
    }
    if driven.paths.is_empty() {
        driven.paths.push(ANY_FILE.to_string());
    }
    driven
}

async fn check_host(agent: &Arc<Agent>, driven: &Driven, lines: &mut Lines<'_>) {
    agent.take_sample(Sampler::sample);
    tokio::time::sleep(SAMPLES_APART).await;
    agent.take_sample(Sampler::sample);
    for part in PARTS {
        match part.group {
            Group::Df => lines.add(part.name, check_spaces(agent)).await,
            _ => lines.add(part.name, check_part(agent.clone(), part, driven.clone())).await,
        }
    }
}

async fn check_part(agent: Arc<Agent>, part: Part, driven: Driven) -> Found {
    let collect = move || {
        let (mut readings, sampler) = (Vec::new(), agent.lock_sampler().clone());
        let collected = part.collect(&agent.live.now().scope, &driven, &sampler, &mut readings);
        collected.map(|()| Some(readings.len())).map_err(|error| error.to_string())
    };
    tokio::task::spawn_blocking(collect).await.map_err(|error| format!("a fault of the agent: {error}"))?
}

async fn check_spaces(agent: &Agent) -> Found {
    let answers = agent.mounts.ask(&agent.live.now().scope).await;
    let faults = answers.faults.iter().map(|fault| format!("{}: {}", fault.of, fault.why));
    none_of(faults.collect())?;
    let mut readings: Vec<Reading> = Vec::new();
    report_spaces(answers.spaces.iter().map(|(mounted, space)| (mounted, *space)), &mut readings);
    Ok(Some(readings.len()))
}

async fn check_du(paths: &[String]) -> Found {
    let readings = du::collect(paths).await;
    let failed = readings.iter().filter(|reading| reading.value < 0.0);
    let why = |reading: &Reading| format!("{}: du has failed, complained, or taken more than 30 s", reading.tags);
    none_of(failed.map(why).collect())?;
    Ok(Some(readings.len()))
}

async fn check_switched_on(agent: &Agent, lines: &mut Lines<'_>) {
    for mut collector in Collector::all_of(&agent.config.collect) {
        if matches!(collector, Collector::Statsd(_)) {
            continue;
        }
        let name = format!("collect.{}", collector.name());
        let collect = async {
            let monotonic_ms = agent.started.elapsed().as_millis() as u64;
            let moment = Moment { monotonic_ms, unix: clock::unix_now(), elapsed_ms: 0 };
            let collected = collector.collect(&agent.live.now().scope.roots, moment).await;
            none_of(collected.faults.iter().map(|fault| format!("{}: {}", fault.of, fault.why)).collect())?;
            Ok(Some(collected.readings.len()))
        };
        lines.add(&name, collect).await;
    }
}

async fn check_folders(config: &AgentConfig, lines: &mut Lines<'_>) {
    if config.plugin.enabled {
        let (dir, user) = (config.plugin.dir.clone(), config.plugin.user.clone());
        let look = async move {
            plugin::check_user(&user)?;
            on_a_thread(move || entries_of(&dir)).await
        };
        lines.add("plugins", look).await;
        let logs = config.plugin.logs.clone();
        lines.add("plugin logs", on_a_thread(move || may_be_written(&logs))).await;
    }
    if !config.buffer_dir.as_os_str().is_empty() {
        let dir = config.buffer_dir.clone();
        lines.add("buffer", on_a_thread(move || may_be_written(&dir))).await;
    }
}

async fn on_a_thread(look: impl FnOnce() -> Found + Send + 'static) -> Found {
    tokio::task::spawn_blocking(look).await.map_err(|error| format!("a fault of the agent: {error}"))?
}

fn entries_of(dir: &Path) -> Found {
    let entries = std::fs::read_dir(dir).map_err(|error| {
        format!("cannot read plugin.dir {}: {error}; /plugin/update clones plugin.git there", dir.display())
    })?;
    Ok(Some(entries.count()))
}

/// Whether files may be made in a folder, or the folder where there is none yet.
fn may_be_written(dir: &Path) -> Found {
    let mut there: PathBuf = dir.to_path_buf();
    while !there.exists() && there.pop() {}
    if there.as_os_str().is_empty() {
        there = PathBuf::from(".");
    }
    if !there.is_dir() {
        return Err(format!("{} is no directory", there.display()));
    }
    let may = access(&there, Access::WRITE_OK | Access::EXEC_OK);
    may.map(|()| None).map_err(|error| format!("{} cannot be written by this user: {error}", there.display()))
}

/// Fails with the first of these, where there are some.
fn none_of(faults: Vec<String>) -> Result<(), String> {
    let more = faults.len().saturating_sub(FAULTS_MAX);
    let mut told = faults[..faults.len() - more].join("; ");
    if more > 0 {
        told += &format!("; and {more} more");
    }
    if told.is_empty() { Ok(()) } else { Err(told) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(text: &str) -> (Vec<String>, bool) {
        let config = AgentConfig::load(text, std::iter::empty(), &[], "host-1").expect("valid");
        let mut lines = Vec::new();
        let is_well = check(config, &mut |line| lines.push(line)).await.expect("it would start");
        (lines, is_well)
    }

    /// The one line of that name, and whether it is well.
    fn line<'l>(lines: &'l [String], name: &str) -> &'l str {
        let prefix = format!("{name:<8} ... ");
        let mut found = lines.iter().filter_map(|line| line.strip_prefix(&prefix));
        let line = found.next().unwrap_or_else(|| panic!("{name} in {lines:?}"));
        assert!(found.next().is_none() && (line.starts_with("ok (") || line.starts_with("fail: ")), "{line}");
        line
    }

    #[tokio::test]
    async fn each_group_says_ok_or_why_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = testdata::path("agent/fixture_root");
        let (lines, is_well) = lines_of(&format!(
            "hbs_addr = \"127.0.0.1:1\"\ntransfer_addrs = [\"127.0.0.1:1\"]\nrootfs = {root:?}\nbuffer_dir = {:?}\n\
             [collect]\npressure = true\nstatsd = \"127.0.0.1:8125\"\n[plugin]\nenabled = true\ndir = {:?}\nlogs = {:?}",
            dir.path().join("buffer/of/agent"),
            dir.path().join("absent"),
            dir.path(),
        ))
        .await;
        assert!(!is_well);
        for name in [
            "kernel",
            "loadavg",
            "memory",
            "cpustat",
            "net.if",
            "disk.io",
            "netstat",
            "ps aux",
            "du -bs",
            "collect.gpu",
        ] {
            assert!(line(&lines, name).starts_with("ok ("), "{lines:?}");
        }
        assert!(line(&lines, "kernel").starts_with("ok (4 values, "));
        for name in ["hbs 127.0.0.1:1", "transfer 127.0.0.1:1"] {
            assert!(line(&lines, name).contains("refused"), "{lines:?}");
        }
        assert!(line(&lines, "collect.kernel").starts_with("fail: ") && line(&lines, "ss -s").contains("sockstat"));
        assert!(line(&lines, "plugins").contains("/plugin/update"));
        assert!(line(&lines, "plugin logs").starts_with("ok (") && line(&lines, "buffer").starts_with("ok ("));
        assert!(!lines.iter().any(|line| line.starts_with("statsd")) && !dir.path().join("buffer").exists());
    }

    #[tokio::test]
    async fn a_host_on_which_all_works() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = vec![0; 1000];
            tokio::io::AsyncReadExt::read(&mut stream, &mut asked).await.expect("a call");
            let answer = br#"{"id":0,"result":{"code":0},"error":null}"#;
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.expect("answered");
        });
        let (lines, is_well) =
            lines_of(&format!("hbs_addr = \"\"\ntransfer_addrs = [\"{address}\"]\n[collect]\ngpu = false")).await;
        assert!(is_well, "{lines:?}");
        assert!(line(&lines, &format!("transfer {address}")).starts_with("ok ("), "{lines:?}");
        assert!(line(&lines, "df.bytes").starts_with("ok ("), "{lines:?}");
    }

    #[test]
    fn faults_are_told_up_to_a_number() {
        let faults = |count: usize| (0..count).map(|i| format!("f{i}")).collect();
        assert_eq!(none_of(faults(0)), Ok(()));
        assert_eq!(none_of(faults(2)), Err("f0; f1".to_string()));
        assert_eq!(none_of(faults(7)), Err("f0; f1; f2; f3; f4; and 2 more".to_string()));
    }

    #[test]
    fn the_originals_flag_is_ours() {
        let arguments = ["falcon-agent", "-c", "cfg.json", "-check"].map(OsString::from);
        let ours: Vec<OsString> = as_ours(arguments.into_iter()).collect();
        assert_eq!(ours, ["falcon-agent", "-c", "cfg.json", "--check"]);
    }
}
