//! Heartbeat: tells hbs that this host lives, and asks hbs which ports, processes, paths and URLs to probe.
//!
//! How: one connection, three calls per heartbeat: `ReportStatus`, `BuiltinMetrics` with the checksum of what is known
//! (first the text `nil`), `TrustableIps`; a fourth, `MinePlugins`, while plugins are on, and those about
//! probes over the network (`netprobes`). While hbs does not answer,
//! the last known probes and plugins go on, and heartbeats come sooner.
//! Compat: docs/open-falcon/wire.md §4. The original ignores an answer whose timestamp is not newer than the last;
//! calls follow each other here, so an answer is never stale, and an hbs whose clock was set back is heard. The
//! original opens a connection of its own to find its address.

use super::client::{CallError, Client};
use super::facts::{Facts, Round};
use super::netprobes;
use super::plugin::Plugins;
use anyhow::{Result, anyhow, bail};
use probe::Driven;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use supervisor::causes::line_of;
use tokio::sync::watch;
use wire::hbs::{AgentReport, read_time_ms, write_report};
use wire::json::{self, name_eq, push_string};
use wire::{JsonError, Scratch};

/// The version that hbs gets; `Version@Commit` in the original, in a column of 16 characters.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "@hawkeye");
const _: () = assert!(VERSION.len() <= 16);
/// The checksum before any answer, as in the original.
const NO_CHECKSUM: &str = "nil";
/// Pause after the first failed heartbeat; it doubles up to the interval.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The last answers of hbs.
#[derive(Default)]
pub struct Orders {
    driven: Mutex<Arc<Driven>>,
    trustable_ips: Mutex<String>,
    pub failures: AtomicU64,
}

impl Orders {
    /// Probes that hbs asks for at present.
    pub fn driven(&self) -> Arc<Driven> {
        self.driven.lock().expect("nothing panics while this is locked").clone()
    }

    /// Addresses joined by commas.
    pub fn trustable_ips(&self) -> String {
        self.trustable_ips.lock().expect("nothing panics while this is locked").clone()
    }
}

/// Conversation with hbs: reports that the agent is there, and learns what to measure.
pub struct Heartbeat {
    client: Client,
    hostname: String,
    /// The address that hbs gets; "" is the local address of the connection.
    ip: String,
    interval: Duration,
    parts: Parts,
    checksum: String,
    is_down: bool,
}

/// Parts of the agent that hbs speaks with.
pub struct Parts {
    /// What hbs has measured.
    pub orders: Arc<Orders>,
    pub plugins: Arc<Plugins>,
    /// What hbs is told of this agent.
    pub facts: Arc<Facts>,
    /// Probes over the network.
    pub probes: Arc<netprobes::Probes>,
}

impl Heartbeat {
    /// A heartbeat each `interval`; what hbs says goes to the `parts` that it is about.
    pub fn new(client: Client, hostname: &str, ip: &str, interval: Duration, parts: Parts) -> Heartbeat {
        Heartbeat {
            client,
            hostname: hostname.to_string(),
            ip: ip.to_string(),
            interval,
            parts,
            checksum: NO_CHECKSUM.to_string(),
            is_down: false,
        }
    }

    /// Reports until `shutdown` turns true.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = self.beat_for_ever() => {}
        }
    }

    async fn beat_for_ever(&mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.beat().await {
                Ok(()) => {
                    if std::mem::take(&mut self.is_down) {
                        tracing::info!(hbs = self.client.address(), "hbs answers again");
                    }
                    pause = FIRST_PAUSE;
                    tokio::time::sleep(self.interval).await;
                }
                Err(error) => {
                    self.parts.probes.hbs_is_away();
                    self.parts.orders.failures.fetch_add(1, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.is_down, true) {
                        let error = line_of(&*error);
                        tracing::warn!(
                            hbs = self.client.address(),
                            error,
                            "no heartbeat: hbs does not answer as it should"
                        );
                    }
                    tokio::time::sleep(pause.min(self.interval)).await;
                    pause = (pause * 2).min(self.interval);
                }
            }
        }
    }

    async fn beat(&mut self) -> Result<()> {
        self.report_status().await?;
        self.ask_for_probes().await?;
        self.parts.probes.beat(&mut self.client).await;
        self.ask_for_the_rest().await
    }

    /// Asks what this host is to do, without telling of it.
    pub async fn learn(&mut self) -> Result<()> {
        self.ask_for_probes().await?;
        self.ask_for_the_rest().await
    }

    async fn ask_for_the_rest(&mut self) -> Result<()> {
        if self.parts.plugins.is_enabled() {
            self.ask_for_plugins().await?;
        }
        self.ask_for_trustable_ips().await
    }

    async fn report_status(&mut self) -> Result<()> {
        let ip = if self.ip.is_empty() {
            self.client.local_ip().await.map_err(failed("connect"))?.to_string()
        } else {
            self.ip.clone()
        };
        let report = AgentReport {
            hostname: self.hostname.clone(),
            ip,
            agent_version: VERSION.to_string(),
            plugin_version: self.parts.plugins.version().await,
            details: self.parts.facts.details(),
        };
        let mut param = Vec::new();
        write_report(&mut param, &report);
        let round = Round::begin();
        let answer = self.client.call("Agent.ReportStatus", &param).await.map_err(failed("Agent.ReportStatus"))?;
        let theirs_ms = read_time_ms(&answer, &mut Scratch::new());
        if let Some(offset_ms) = theirs_ms.and_then(|theirs_ms| round.offset_ms(theirs_ms)) {
            self.parts.facts.note_offset(offset_ms);
        }
        Ok(())
    }

    async fn ask_for_probes(&mut self) -> Result<()> {
        let mut param = b"{\"Hostname\":".to_vec();
        push_string(&mut param, &self.hostname);
        param.extend_from_slice(b",\"Checksum\":");
        push_string(&mut param, &self.checksum);
        param.push(b'}');
        let call = self.client.call("Agent.BuiltinMetrics", &param).await;
        let answer = read_probes(&call.map_err(failed("Agent.BuiltinMetrics"))?)
            .map_err(|error| anyhow!("Agent.BuiltinMetrics: {error}"))?;
        if answer.checksum == self.checksum {
            return Ok(());
        }
        let pairs = answer.metrics.iter().map(|(metric, tags)| (metric.as_str(), tags.as_str()));
        let (driven, refused) = Driven::parse(pairs);
        for reason in refused {
            tracing::warn!(
                reason,
                "hbs asks for a probe that cannot be run; correct the tags of the strategy behind it"
            );
        }
        *self.parts.orders.driven.lock().expect("nothing panics while this is locked") = Arc::new(driven);
        self.checksum = answer.checksum;
        Ok(())
    }

    async fn ask_for_plugins(&mut self) -> Result<()> {
        let mut param = b"{\"Hostname\":".to_vec();
        push_string(&mut param, &self.hostname);
        param.extend_from_slice(b",\"Checksum\":\"\"}");
        let result = self.client.call("Agent.MinePlugins", &param).await.map_err(failed("Agent.MinePlugins"))?;
        let entries = read_plugins(&result).map_err(|error| anyhow!("Agent.MinePlugins: {error}"))?;
        self.parts.plugins.order(entries);
        Ok(())
    }

    async fn ask_for_trustable_ips(&mut self) -> Result<()> {
        let result = self.client.call("Agent.TrustableIps", b"{}").await.map_err(failed("Agent.TrustableIps"))?;
        let Some(addresses) = json::string(&result, &mut Scratch::new()).map(str::to_string) else {
            bail!("Agent.TrustableIps: the result is no string");
        };
        *self.parts.orders.trustable_ips.lock().expect("nothing panics while this is locked") = addresses;
        Ok(())
    }
}

fn failed(what: &'static str) -> impl Fn(CallError) -> anyhow::Error {
    move |error| anyhow!("{what}: {error}")
}

/// Entries of the answer to `Agent.MinePlugins`; null is none, and what is no text is left out, as hbs sends none.
fn read_plugins(result: &[u8]) -> Result<Vec<String>, JsonError> {
    let mut list: &[u8] = b"null";
    json::fields(result, &mut Scratch::new(), |name, value| {
        if name_eq(name, "Plugins") {
            list = value;
        }
    })?;
    let (mut entries, mut scratch) = (Vec::new(), Scratch::new());
    json::elements(list, |element| entries.extend(json::string(element, &mut scratch).map(str::to_string)))?;
    Ok(entries)
}

/// The answer to `Agent.BuiltinMetrics`.
#[derive(Debug, Default, PartialEq)]
struct Probes {
    metrics: Vec<(String, String)>,
    checksum: String,
}

fn read_probes(result: &[u8]) -> Result<Probes, JsonError> {
    let (mut metrics, mut checksum): (&[u8], &[u8]) = (b"null", b"null");
    json::fields(result, &mut Scratch::new(), |name, value| {
        if name_eq(name, "Metrics") {
            metrics = value;
        } else if name_eq(name, "Checksum") {
            checksum = value;
        }
    })?;
    let mut scratch = Scratch::new();
    let mut text = |raw| json::string(raw, &mut scratch).unwrap_or_default().to_string();
    let mut probes = Probes { checksum: text(checksum), ..Probes::default() };
    let mut fault = None;
    json::elements(metrics, |element| {
        let mut pair = (String::new(), String::new());
        let read = json::fields(element, &mut Scratch::new(), |name, value| {
            if name_eq(name, "Metric") {
                pair.0 = text(value);
            } else if name_eq(name, "Tags") {
                pair.1 = text(value);
            }
        });
        match read {
            Ok(()) => probes.metrics.push(pair),
            Err(error) => fault = Some(error),
        }
    })?;
    fault.map_or(Ok(probes), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_hbs_says_of_plugins() {
        let check = |json: &str, entries: &[&str]| {
            assert_eq!(read_plugins(json.as_bytes()).expect(json), entries, "{json}");
        };
        check(r#"{"Plugins":["sys/ntp","web\/5_a.sh(a, \"b\")"],"Timestamp":1}"#, &["sys/ntp", "web/5_a.sh(a, \"b\")"]);
        check(r#"{"Plugins":[],"Timestamp":1}"#, &[]);
        check(r#"{"Plugins":null,"Timestamp":0}"#, &[]);
        check("null", &[]);
        assert!(read_plugins(b"[]").is_err());
        assert!(read_plugins(br#"{"Plugins":{}}"#).is_err());
        let recorded = testdata::text("jsonrpc/agent_hbs.jsonl");
        let call = recorded.lines().find(|line| line.contains("Agent.MinePlugins")).expect("a recorded call");
        let call: serde_json::Value = serde_json::from_str(call).expect("JSON");
        check(&call["result"].to_string(), &["sys/demo", "web/5_args.sh(a, \"b c\")"]);
    }

    #[test]
    fn reads_what_hbs_sends() {
        let pair = |metric: &str, tags: &str| (metric.to_string(), tags.to_string());
        let check = |json: &str, metrics: Vec<(String, String)>, checksum: &str| {
            let probes = read_probes(json.as_bytes()).expect(json);
            assert_eq!(probes, Probes { metrics, checksum: checksum.to_string() });
        };
        check(
            r#"{"Metrics":[{"Metric":"du.bs","Tags":"path=\/var"},{"Metric":"proc.num","Tags":"name=a b"}],"Checksum":"c","Timestamp":1}"#,
            vec![pair("du.bs", "path=/var"), pair("proc.num", "name=a b")],
            "c",
        );
        check(r#"{"Metrics":[],"Checksum":"","Timestamp":1}"#, vec![], "");
        check(r#"{"Metrics":null,"Checksum":"","Timestamp":0}"#, vec![], "");
        assert!(read_probes(b"[]").is_err());
        assert!(read_probes(br#"{"Metrics":[1]}"#).is_err());
        assert!(read_probes(br#"{"Metrics":{}}"#).is_err());
    }
}
