//! Pages: what the original's own page shows of a host, as JSON for scripts that ask for it; and a list of links in
//! place of that page.
//!
//! Compat: docs/open-falcon/agent.md §6: paths, envelopes and shapes are the original's, whose page is not here. Rates
//! are those of the last report, and `/page/df` is asked as the reports are, so that a mount that hangs is left out.
//! Invariants: nothing here changes anything; files are the kernel's, made in memory, and read as the reports read
//! them.

use crate::Agent;
use crate::collect::Program;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use probe::{Driven, Part, ProbeError, Reading, Roots, look};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::Mutex;

const MEBIBYTE: u64 = 1 << 20;
/// Paths that the first page leads to.
const LINKS: [&str; 23] = [
    "/health",
    "/version",
    "/workdir",
    "/ips",
    "/plugins",
    "/metrics",
    "/proc/cpu/num",
    "/proc/cpu/mhz",
    "/proc/cpu/usage",
    "/page/cpu/usage",
    "/page/df",
    "/page/diskio",
    "/page/memory",
    "/proc/memory",
    "/proc/kernel/hostname",
    "/proc/kernel/maxproc",
    "/proc/kernel/maxfiles",
    "/proc/kernel/version",
    "/system/date",
    "/page/system/uptime",
    "/proc/system/uptime",
    "/page/system/loadavg",
    "/proc/system/loadavg",
];
/// Time in which `date` must answer, and bytes of its line.
const DATE_TIMEOUT: Duration = Duration::from_secs(5);
const DATE_BYTES: usize = 100;

/// Local time is the C library's, as every program of this host has it. Who asks meanwhile waits for a turn.
static DATE: LazyLock<Mutex<Program>> = LazyLock::new(|| Mutex::new(Program::new("date")));

/// Routes that show, and change nothing.
pub fn routes(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/", any(index))
        .route("/index.html", any(index))
        .route("/proc/cpu/num", any(|| async { data(cores()) }))
        .route("/proc/cpu/mhz", any(async |State(agent): Host| either(look::cpu_mhz(&agent.roots()))))
        .route("/proc/cpu/usage", any(cpu_usage))
        .route("/page/cpu/usage", any(cpu_page))
        .route("/page/df", any(df))
        .route("/page/diskio", any(async |State(agent): Host| data(look::disks(&agent.lock_sampler()))))
        .route("/page/memory", any(async |State(agent): Host| either(look::memory(&agent.roots()).map(in_mebibytes))))
        .route("/proc/memory", any(async |State(agent): Host| either(look::memory(&agent.roots()).map(in_bytes))))
        .route("/proc/kernel/hostname", any(async |State(agent): Host| data(agent.config.hostname.as_str())))
        .route("/proc/kernel/maxproc", any(async |State(agent): Host| kernel(&agent, "kernel.maxproc")))
        .route("/proc/kernel/maxfiles", any(async |State(agent): Host| kernel(&agent, "kernel.maxfiles")))
        .route("/proc/kernel/version", any(async || data(rustix::system::uname().release().to_string_lossy())))
        .route("/system/date", any(date))
        .route("/page/system/uptime", any(async |State(agent): Host| either(uptime(&agent).map(as_words))))
        .route("/proc/system/uptime", any(async |State(agent): Host| either(uptime(&agent).map(as_object))))
        .route("/page/system/loadavg", any(async |State(agent): Host| either(loads(&agent).map(per_core))))
        .route("/proc/system/loadavg", any(async |State(agent): Host| either(loads(&agent).map(by_minutes))))
        .with_state(agent)
}

type Host = State<Arc<Agent>>;

/// The original's envelope.
fn data(value: impl serde::Serialize) -> Response {
    axum::Json(json!({"msg": "success", "data": value})).into_response()
}

fn message(text: impl Display) -> Response {
    axum::Json(json!({"msg": text.to_string()})).into_response()
}

fn either<T: serde::Serialize, E: Display>(result: Result<T, E>) -> Response {
    match result {
        Ok(value) => data(value),
        Err(error) => message(error),
    }
}

impl Agent {
    fn roots(&self) -> Roots {
        self.live.now().scope.roots.clone()
    }

    /// What one collector reads now.
    fn read(&self, name: &str) -> Result<Vec<Reading>, ProbeError> {
        let (mut readings, sampler) = (Vec::new(), self.lock_sampler().clone());
        let part = Part::named(name).expect("a test asks for each");
        part.collect(&self.live.now().scope, &Driven::default(), &sampler, &mut readings)?;
        Ok(readings)
    }
}

fn value_of(readings: &[Reading], metric: &str) -> f64 {
    readings.iter().find(|reading| reading.metric == metric).map_or(0.0, |reading| reading.value)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn in_mebibytes((total, free): (u64, u64)) -> [u64; 3] {
    [total, total - free, free].map(|bytes| bytes / MEBIBYTE)
}

fn in_bytes((total, free): (u64, u64)) -> Value {
    json!({"total": total, "free": free, "used": total - free})
}

fn kernel(agent: &Agent, metric: &str) -> Response {
    either(agent.read("kernel").map(|readings| value_of(&readings, metric) as u64))
}

/// Names on the page and in the metrics, in the order of the page.
const USAGE: [&str; 10] = ["idle", "busy", "user", "nice", "system", "iowait", "irq", "softirq", "steal", "guest"];

/// Shares of the cores' time; none before there are two samples.
fn usage(agent: &Agent) -> Option<[(&'static str, f64); 10]> {
    let readings = agent.read("cpustat").unwrap_or_default();
    let share = |name| (name, value_of(&readings, &format!("cpu.{name}")));
    readings.iter().any(|reading| reading.metric == "cpu.idle").then(|| USAGE.map(share))
}

async fn cpu_usage(State(agent): Host) -> Response {
    match usage(&agent) {
        Some(shares) => data(BTreeMap::from(shares)),
        None => message("not prepared"),
    }
}

async fn cpu_page(State(agent): Host) -> Response {
    match usage(&agent) {
        Some(shares) => data([shares.map(|(_, share)| percent(share))]),
        None => message("not prepared"),
    }
}

async fn df(State(agent): Host) -> Response {
    let answers = agent.mounts.ask(&agent.live.now().scope).await;
    let is_shown = |(_, space): &&(probe::Mounted, probe::Space)| space.bytes_total > 0;
    let row = |(mounted, space): &(probe::Mounted, probe::Space)| {
        let inodes_percent = 100.0 * space.inodes_used() as f64 / space.inodes_total.max(1) as f64;
        [
            mounted.spec(),
            readable(space.bytes_total),
            readable(space.bytes_used),
            readable(space.bytes_free),
            percent(space.used_percent()),
            mounted.point(),
            readable(space.inodes_total),
            readable(space.inodes_used()),
            readable(space.inodes_free),
            percent(inodes_percent),
            mounted.fs_type().to_string(),
        ]
    };
    data(answers.spaces.iter().filter(is_shown).map(row).collect::<Vec<_>>())
}

fn percent(share: f64) -> String {
    format!("{share:.1}%")
}

/// A number with the letter of the power of 1024 that it is told in.
fn readable(count: u64) -> String {
    const LETTERS: [&str; 6] = ["B", "K", "M", "G", "T", "P"];
    let (mut left, mut letters) = (count as f64, LETTERS.iter());
    let mut letter = letters.next().expect("six");
    while left >= 1024.0 {
        let Some(next) = letters.next() else { return "TooLarge".into() };
        (left, letter) = (left / 1024.0, next);
    }
    format!("{left:.1}{letter}")
}

async fn date() -> Response {
    let said = DATE.lock().await.run(&["+%Y-%m-%d %H:%M:%S"], DATE_TIMEOUT, DATE_BYTES).await;
    either(said.map(|output| output.text.trim().to_string()))
}

/// Days, hours and minutes since the host was started.
fn uptime(agent: &Agent) -> Result<[u64; 3], ProbeError> {
    let minutes = (look::uptime_s(&agent.roots())? / 60.0) as u64;
    Ok([minutes / 1440, minutes / 60 % 24, minutes % 60])
}

fn as_words([days, hours, minutes]: [u64; 3]) -> String {
    format!("{days} days {hours} hours {minutes} minutes")
}

fn as_object([days, hours, mins]: [u64; 3]) -> Value {
    json!({"days": days, "hours": hours, "mins": mins})
}

/// Load averages over 1, 5 and 15 minutes.
fn loads(agent: &Agent) -> Result<[f64; 3], ProbeError> {
    let readings = agent.read("loadavg")?;
    Ok(["load.1min", "load.5min", "load.15min"].map(|metric| value_of(&readings, metric)))
}

/// Each load, and what it is in percent of the cores.
fn per_core(loads: [f64; 3]) -> [Value; 3] {
    loads.map(|load| json!([load, (load * 100.0 / cores() as f64) as i64]))
}

fn by_minutes([one, five, fifteen]: [f64; 3]) -> Value {
    json!({"Avg1min": one, "Avg5min": five, "Avg15min": fifteen})
}

async fn index() -> Response {
    let links: String = LINKS.iter().map(|path| format!("<li><a href=\"{path}\">{path}</a>\n")).collect();
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>hawkeye-agent</title>\n\
         <h1>hawkeye-agent</h1>\n<ul>\n{links}</ul>\n</html>\n"
    );
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_in_powers_of_1024() {
        let check = |count: u64, expected: &str| assert_eq!(readable(count), expected);
        check(0, "0.0B");
        check(1023, "1023.0B");
        check(1024, "1.0K");
        check(270_553_174_016, "252.0G");
        check(u64::MAX, "TooLarge");
    }

    #[test]
    fn times_are_told_in_parts() {
        assert_eq!(as_words([1, 2, 3]), "1 days 2 hours 3 minutes");
        assert_eq!(as_object([1, 2, 3]).to_string(), r#"{"days":1,"hours":2,"mins":3}"#);
        assert_eq!(by_minutes([0.5, 1.0, 2.25]).to_string(), r#"{"Avg15min":2.25,"Avg1min":0.5,"Avg5min":1.0}"#);
    }
}
