//! `GET /ui/overview?q=`: the hosts whose name contains `q`, each with its main figures, and the open alarms.

use super::Sources;
use super::error::{PageError, broken};
use super::old_graph;
use super::viewer::ViewerName;
use crate::clock;
use crate::engine::Engine;
use crate::engine::oddities::OddSender;
use crate::portal::alarm::open::{self, OpenCase};
use crate::watch::health::Reason;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use net::turns::Holder;
use serde::Serialize;
use std::collections::BTreeMap;
use store::Store;

/// A host that has reported nothing for this long is marked: three of the default steps of 60 s, so that one lost
/// report marks nobody.
pub const SILENT_AFTER_S: i64 = 180;
/// Hosts in one overview, about 200 kB of JSON; with more of them the page asks for a search text.
pub const HOSTS_MAX: usize = 2000;
/// Alarms in one overview; nobody reads more, and the total is told.
pub const ALARMS_MAX: i64 = 200;

/// Hosts and open alarms, as the page begins with them.
#[derive(Serialize)]
pub struct Overview {
    /// The server's clock; ages are counted from it, as the browser's may be off.
    now: i64,
    /// Null when the viewer is not logged in.
    user: Option<String>,
    silent_after_s: i64,
    series: u64,
    /// What of the server does not work now.
    troubles: Vec<Reason>,
    /// Senders whose points are not what they seem.
    odd_senders: Vec<OddSender>,
    #[serde(flatten)]
    hosts: HostList,
    alarms_total: i64,
    /// Open alarms whose newest event told nobody.
    alarms_untold: i64,
    /// No way to people is configured, so that alarms can tell none.
    no_gateway: bool,
    alarms: Vec<OpenAlarm>,
}

#[derive(Serialize, Default)]
pub struct HostList {
    pub hosts_total: usize,
    /// Hosts that are not silent, whatever their name.
    pub hosts_reporting: usize,
    /// Hosts whose name contains `q`, silent or not.
    pub hosts_matched: usize,
    /// The first [`HOSTS_MAX`] of the matching ones, by name.
    pub hosts: Vec<HostSummary>,
}

#[derive(Serialize)]
pub struct HostSummary {
    pub name: String,
    pub last_report_s: i64,
    pub cpu_busy: Option<f64>,
    pub mem_used_percent: Option<f64>,
    pub load_1min: Option<f64>,
}

#[derive(Serialize)]
struct OpenAlarm {
    id: String,
    priority: i64,
    status: String,
    endpoint: String,
    counter: String,
    func: String,
    /// The condition, as `<left> <operator> <right>`.
    cond: String,
    note: String,
    /// What of the newest event's telling failed; "" when nothing did.
    told: String,
    /// Begin of the problem, Unix seconds; null when its row holds no readable time.
    since: Option<i64>,
}

/// Shows the open alarms, and the hosts whose name contains `q`.
pub async fn overview(
    State(sources): State<Sources>,
    Extension(ViewerName(user)): Extension<ViewerName>,
    Extension(viewer): Extension<Holder>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Overview>, PageError> {
    let pattern = query.into_iter().find(|(key, _)| key == "q").map_or(String::new(), |(_, text)| text);
    let now = clock::now();
    let old_pattern = pattern.to_lowercase();
    let read = move |engine: &Engine| {
        let store = engine.store();
        Ok((find_hosts(store, &pattern.to_lowercase(), now), store.stats().series as u64))
    };
    let (mut hosts, series) = sources.read(&viewer, read).await?;
    if let Some(graphs) = &sources.graphs {
        let _turn = sources.reads.take(&viewer, 1).await;
        hosts = old_graph::hosts(graphs, &old_pattern, now).await?;
    }
    let (cases, alarms_total) = open::newest(&sources.portal, ALARMS_MAX).await.map_err(broken)?;
    let alarms_untold = open::untold(&sources.portal).await.map_err(broken)?;
    Ok(Json(Overview {
        now,
        user,
        silent_after_s: SILENT_AFTER_S,
        series,
        troubles: sources.health.reasons(),
        odd_senders: sources.engine.oddities().report(now),
        hosts,
        alarms_total,
        alarms_untold,
        no_gateway: sources.no_gateway,
        alarms: cases.into_iter().map(OpenAlarm::from).collect(),
    }))
}

fn find_hosts(store: &Store, pattern: &str, now: i64) -> HostList {
    let (mut total, mut reporting, mut matched) = (0, 0, 0);
    let mut first: BTreeMap<String, i64> = BTreeMap::new();
    for (id, name) in store.endpoints_awake() {
        let Some(last_report_s) = store.endpoint_last_time(id) else { continue };
        total += 1;
        reporting += usize::from((now - last_report_s).abs() <= SILENT_AFTER_S);
        if !pattern.is_empty() && !name.to_lowercase().contains(pattern) {
            continue;
        }
        matched += 1;
        first.insert(name, last_report_s);
        if first.len() > HOSTS_MAX {
            first.pop_last();
        }
    }
    let hosts = first.into_iter().map(|(name, last_report_s)| describe_host(store, name, last_report_s)).collect();
    HostList { hosts_total: total, hosts_reporting: reporting, hosts_matched: matched, hosts }
}

fn describe_host(store: &Store, name: String, last_report_s: i64) -> HostSummary {
    let last = |counter: &str| {
        let point = store.last(store.find(&name, counter).ok()??)?;
        Some((point.time, point.value))
    };
    HostSummary::of(name.clone(), last_report_s, last)
}

/// The counters that a host is described by.
pub const DESCRIBING: [&str; 5] = ["cpu.busy", "cpu.idle", "mem.memused.percent", "mem.memfree.percent", "load.1min"];

impl HostSummary {
    /// A host by the newest points of some of its counters, of which `last` knows time and value. The used share is
    /// taken from the free share when a host does not send it: Open-Falcon's agent as shipped does not.
    pub fn of(name: String, last_report_s: i64, last: impl Fn(&str) -> Option<(i64, f64)>) -> HostSummary {
        // An older value would stand beside newer ones as if it were the host's state.
        let fresh = |counter: &str| {
            let (time, value) = last(counter)?;
            (last_report_s - time <= SILENT_AFTER_S).then_some(value)
        };
        let rest = |counter: &str| fresh(counter).map(|percent| 100.0 - percent);
        HostSummary {
            last_report_s,
            cpu_busy: fresh("cpu.busy").or_else(|| rest("cpu.idle")),
            mem_used_percent: fresh("mem.memused.percent").or_else(|| rest("mem.memfree.percent")),
            load_1min: fresh("load.1min"),
            name,
        }
    }
}

impl From<OpenCase> for OpenAlarm {
    fn from(case: OpenCase) -> OpenAlarm {
        let OpenCase { id, priority, status, endpoint, metric, func, cond, note, timestamp, told } = case;
        let since = clock::unix(&timestamp);
        OpenAlarm { id, priority, status, endpoint, counter: metric, func, cond, note, told, since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::{engine, push};

    #[test]
    fn the_first_hosts_by_name_are_listed() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let engine = engine(dir.path())?;
        let time = clock::now();
        for index in (0..HOSTS_MAX + 500).rev() {
            push(&engine, &format!("h{index:05}"), "m", time, 1.0)?;
        }
        let found = find_hosts(engine.store(), "", time + SILENT_AFTER_S);
        assert_eq!((found.hosts_total, found.hosts_reporting, found.hosts_matched), (2500, 2500, 2500));
        let names: Vec<&str> = found.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!((names.len(), names[0], names[HOSTS_MAX - 1]), (HOSTS_MAX, "h00000", "h01999"));
        assert_eq!(find_hosts(engine.store(), "", time + 1 + SILENT_AFTER_S).hosts_reporting, 0);
        Ok(())
    }
}
