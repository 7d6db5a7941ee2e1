//! Hbs: the questions of agents and of original judges over JSON-RPC (docs/open-falcon/wire.md §4–5).
//!
//! Answers come from the rules in effect ([`crate::rules::InEffect`]), each encoded once ([`answers`]); only a report
//! that is new or differs ([`reported`]) is written to the table of hosts, where a host that reports for the first time
//! appears. Agents of Hawkeye also ask which probes they are to run ([`probes`]).
//! Invariants: an agent that says nothing new asks no database, with any of its calls.

mod agents;
mod answers;
pub mod http;
mod placing;
pub mod probes;
mod reported;
mod upgrades;

use crate::clock;
use crate::config::{Config, HbsConfig};
use crate::engine::oddities::Oddities;
use crate::portal::Portal;
use crate::portal::host::ReportEffect;
use crate::releases::Releases;
use crate::rules::InEffect;
use answers::Answers;
use metrics::Metrics;
use net::rpc::Service;
use probes::ProbeAnswers;
use reported::Reported;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use supervisor::causes::line_of;
use tokio::sync::watch;
use upgrades::Upgrades;
use wire::Scratch;
use wire::hbs::{self, AgentReport};
use wire::jsonrpc::{self, Request};

/// `Agent.*` and `Hbs.*` over the rules in effect; clones share them.
#[derive(Clone)]
pub struct HbsService {
    pub portal: Portal,
    pub rules: watch::Receiver<Arc<InEffect>>,
    /// Addresses of `Agent.TrustableIps`: those configured, joined by commas.
    pub trustable: Arc<str>,
    /// Told of hosts whose agents report from alternating addresses.
    pub oddities: Arc<Oddities>,
    answers: Answers,
    reported: Reported,
    /// Which hosts run which probes.
    pub probes: ProbeAnswers,
    upgrades: Upgrades,
}

impl Service for HbsService {
    async fn call(&self, _peer: IpAddr, request: Request<'_, '_>, out: &mut Vec<u8>) {
        let Some(param) = request.param else {
            return jsonrpc::write_error(out, request.id, request.param_fault);
        };
        let mut result = Vec::new();
        let written = match request.method {
            "Agent.ReportStatus" => self.report_status(param, &mut result).await,
            "Agent.MinePlugins" => self.mine_plugins(param, &mut result),
            "Agent.BuiltinMetrics" => self.builtin_metrics(param, &mut result),
            "Agent.TrustableIps" => {
                hbs::write_trustable_ips(&mut result, &self.trustable);
                Ok(())
            }
            // Megabytes with many hosts: straight from the cache to the connection.
            "Hbs.GetStrategies" | "Hbs.GetExpressions" if !self.in_effect().is_whole() => Err(UNREAD.to_string()),
            "Hbs.GetStrategies" => {
                return jsonrpc::write_result(out, request.id, self.in_effect().strategies_json());
            }
            "Hbs.GetExpressions" => {
                return jsonrpc::write_result(out, request.id, self.in_effect().expressions_json());
            }
            "Hawkeye.Probes" | "Hawkeye.ProbeDefinitions" | "Hawkeye.ProbeStates"
                if !self.in_effect().snapshot.has_all_probes() =>
            {
                Err(UNREAD.to_string())
            }
            "Hawkeye.Probes" => self.probes.probes(&self.in_effect().snapshot, param, &mut result),
            "Hawkeye.ProbeDefinitions" => self.probes.definitions(&self.in_effect().snapshot, param, &mut result),
            "Hawkeye.ProbeStates" => {
                hbs::write_code(&mut result, 0);
                self.probes.take_states(&self.portal, &self.in_effect().snapshot, param).await
            }
            "Hawkeye.Agent" => self.upgrades.offer(param, &mut result).await,
            "Hawkeye.AgentPart" => self.upgrades.part(param, &mut result).await,
            method => Err(jsonrpc::unknown_method(&["Agent", "Hbs", "Hawkeye"], method)),
        };
        match written {
            Ok(()) => jsonrpc::write_result(out, request.id, &result),
            Err(text) => jsonrpc::write_error(out, request.id, &text),
        }
    }
}

/// Answer while tables are damaged: with an error an agent runs on what it ran, and a judge goes on with the rules that
/// it has, where an answer that lacks some would end these.
const UNREAD: &str = "the portal's tables are damaged: go on with what you have";

impl HbsService {
    /// A service over these parts, to which no agent has said anything yet. `trustable` are the addresses of
    /// `Agent.TrustableIps`.
    pub fn new(
        portal: Portal,
        rules: watch::Receiver<Arc<InEffect>>,
        trustable: &[String],
        oddities: Arc<Oddities>,
    ) -> HbsService {
        let trustable = trustable.join(",").into();
        let (answers, reported, probes) = (Answers::default(), Reported::default(), ProbeAnswers::default());
        let upgrades = Upgrades::new(Releases::new(Path::new("")), &HbsConfig::default());
        HbsService { portal, rules, trustable, oddities, answers, reported, probes, upgrades }
    }

    /// The service with what agents are offered of newer programs, which without this is nothing.
    pub fn with_upgrades(self, config: &Config) -> HbsService {
        HbsService { upgrades: Upgrades::new(Releases::new(&config.agents_dir()), &config.hbs), ..self }
    }

    /// Names what is kept for agents in the ledger, and shows what is dropped and how many agents have a wrong clock.
    pub fn register(&self, metrics: &Metrics) {
        let reported = self.reported.clone();
        metrics.source(move |figures| {
            let count = reported.wrong_clocks(clock::now());
            let help = "Agents that report, whose clocks are off by five minutes or more";
            figures.gauge("hbs_wrong_clocks", help, count as f64);
        });
        let (answers, reported, probes) = (self.answers.clone(), self.reported.clone(), self.probes.clone());
        probes.show_on(metrics);
        let bytes = move || (answers.memory_bytes() + reported.memory_bytes() + probes.memory_bytes()) as u64;
        metrics.ledger().source(move |report| report.line("hbs answers", bytes(), None, None));
        let upgrades = self.upgrades.clone();
        metrics.source(move |figures| {
            let troubles = "Agents that said why they take no newer program";
            figures.counter("hbs_agent_upgrade_troubles", troubles, upgrades.troubles());
        });
    }

    fn in_effect(&self) -> Arc<InEffect> {
        self.rules.borrow().clone()
    }

    async fn report_status(&self, param: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let report = hbs::read_report(param, &mut Scratch::new()).map_err(|error| error.to_string())?;
        if report.hostname.is_empty() {
            hbs::write_code(out, 1);
            return Ok(());
        }
        let is_there = self.in_effect().snapshot.host(&report.hostname).is_some();
        if is_there && self.reported.is_known(&report, clock::now()) {
            answer_report(&report, out);
            return Ok(());
        }
        let unwritten = |error: anyhow::Error| {
            let error = line_of(&*error);
            tracing::error!(hostname = report.hostname, error, "cannot write the host table");
            format!("cannot write the host table: {error}")
        };
        let reported = agents::report_status(&self.portal, &report).await.map_err(unwritten)?;
        let clock_offset_ms = agents::tell_details(&self.portal, &report).await.map_err(unwritten)?;
        self.reported.note(&report, clock_offset_ms, clock::now());
        // Two agents under one name show by the addresses that they give, also behind a proxy.
        if reported == ReportEffect::Changed
            && let Ok(address) = report.ip.parse()
        {
            let now = clock::now();
            self.oddities.suspect(&report.hostname, now);
            self.oddities.seen(&report.hostname, address, now);
        }
        answer_report(&report, out);
        Ok(())
    }

    fn mine_plugins(&self, param: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let heartbeat = hbs::read_heartbeat(param, &mut Scratch::new()).map_err(|error| error.to_string())?;
        if heartbeat.hostname.is_empty() {
            hbs::write_plugins::<&str>(out, None, 0);
        } else {
            let in_effect = self.in_effect();
            if !in_effect.snapshot.has_all_plugins() {
                return Err(UNREAD.to_string());
            }
            self.answers.plugins(&in_effect.snapshot, &heartbeat.hostname, clock::now(), out);
        }
        Ok(())
    }

    fn builtin_metrics(&self, param: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let heartbeat = hbs::read_heartbeat(param, &mut Scratch::new()).map_err(|error| error.to_string())?;
        if heartbeat.hostname.is_empty() {
            hbs::write_builtin_metrics(out, None, "", 0);
            return Ok(());
        }
        let snapshot = &self.in_effect().snapshot;
        self.answers.builtin_metrics(snapshot, &heartbeat.hostname, &heartbeat.checksum, clock::now(), out);
        Ok(())
    }
}

/// Answers a report: with the time to agents that say more than the original's, which is all that others know.
fn answer_report(report: &AgentReport, out: &mut Vec<u8>) {
    match report.details.is_none() {
        true => hbs::write_code(out, 0),
        false => hbs::write_reported(out, clock::now_ms()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;
    use crate::portal::{group, plugin, strategy, template};
    use crate::rules::follow;
    use anyhow::Result;
    use serde_json::{Value, json};
    use std::net::Ipv4Addr;

    async fn call(service: &HbsService, method: &str, param: Value) -> Value {
        let message = json!({ "method": method, "params": [param], "id": 1 }).to_string();
        let (mut scratch, mut out) = (Scratch::new(), Vec::new());
        let request = jsonrpc::request(message.as_bytes(), &mut scratch).expect("a request");
        service.call(Ipv4Addr::LOCALHOST.into(), request, &mut out).await;
        serde_json::from_slice(&out).expect("JSON")
    }

    /// All calls of an agent that says nothing new are answered while the database is closed.
    #[tokio::test]
    async fn a_known_agent_asks_no_database() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let report = |ip: &str| json!({ "Hostname": "web-01", "IP": ip, "AgentVersion": "7.0", "PluginVersion": "p" });
        let fresh =
            HbsService::new(portal.clone(), follow::first(&portal).await?.subscribe(), &[], Arc::new(Oddities::new()));
        assert_eq!(call(&fresh, "Agent.ReportStatus", report("10.0.0.1")).await["result"], json!({ "code": 0 }));
        let grp = group::create(&portal, "g", "root").await?.id;
        group::replace_hosts(&portal, grp, &["web-01".to_string()]).await?;
        let tpl = template::create(&portal, "t", 0, 0, "root").await?.id;
        group::bind_template(&portal, grp, tpl, "root").await?;
        let row = strategy::Strategy {
            metric: "proc.num".into(),
            tags: "name=crond".into(),
            tpl_id: tpl,
            ..Default::default()
        };
        strategy::create(&portal, &row).await?;
        plugin::create(&portal, grp, "sys/ntp", "root").await?;
        let rules = follow::first(&portal).await?.subscribe();
        let trustable = ["10.1.2.3".to_string(), "10.1.2.4".to_string()];
        let service = HbsService::new(portal.clone(), rules, &trustable, Arc::new(Oddities::new()));
        assert_eq!(call(&service, "Agent.ReportStatus", report("10.0.0.1")).await["result"]["code"], 0);
        portal.close().await;
        assert_eq!(call(&service, "Agent.ReportStatus", report("10.0.0.1")).await["result"]["code"], 0);
        let heartbeat = json!({ "Hostname": "web-01", "Checksum": "nil" });
        let plugins = call(&service, "Agent.MinePlugins", heartbeat.clone()).await;
        assert_eq!(plugins["result"]["Plugins"], json!(["sys/ntp"]));
        let probes = call(&service, "Agent.BuiltinMetrics", heartbeat).await;
        assert_eq!(probes["result"]["Metrics"], json!([{ "Metric": "proc.num", "Tags": "name=crond" }]));
        assert_eq!(call(&service, "Agent.TrustableIps", json!({})).await["result"], "10.1.2.3,10.1.2.4");
        // What is new wants the table.
        let refused = call(&service, "Agent.ReportStatus", report("10.0.0.2")).await;
        assert!(refused["error"].as_str().is_some_and(|why| why.contains("host table")), "{refused}");
        Ok(())
    }

    /// What an agent says of itself is kept, answered with the time, and asks no database when it is said again.
    #[tokio::test]
    async fn what_an_agent_says_of_itself_is_kept() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let report = |offset: i64| {
            json!({ "Hostname": "web-01", "IP": "10.0.0.1", "AgentVersion": "7.0", "PluginVersion": "p",
                    "FullVersion": "7.0 x86_64", "ConfigDigest": "0123456789abcdef", "ClockOffsetMs": offset })
        };
        let fresh =
            HbsService::new(portal.clone(), follow::first(&portal).await?.subscribe(), &[], Arc::new(Oddities::new()));
        let before = clock::now_ms();
        let answer = call(&fresh, "Agent.ReportStatus", report(400_000)).await;
        let time = answer["result"]["TimeMs"].as_i64().expect("the time");
        assert!(answer["result"]["code"] == 0 && time >= before && time <= clock::now_ms(), "{answer}");
        let agents = crate::portal::agent::all(&portal).await?;
        assert_eq!((agents.len(), agents[0].clock_offset_ms), (1, Some(400_000)));
        // After a restart what is the same is read once, and written by nobody.
        let rules = follow::first(&portal).await?.subscribe();
        let service = HbsService::new(portal.clone(), rules, &[], Arc::new(Oddities::new()));
        call(&service, "Agent.ReportStatus", report(400_300)).await;
        assert_eq!(crate::portal::agent::all(&portal).await?, agents);
        portal.close().await;
        let answer = call(&service, "Agent.ReportStatus", report(399_500)).await;
        assert!(answer["result"]["TimeMs"].is_i64(), "{answer}");
        assert_eq!(service.reported.wrong_clocks(clock::now()), 1);
        let refused = call(&service, "Agent.ReportStatus", report(0)).await;
        assert!(refused["error"].as_str().is_some_and(|why| why.contains("host table")), "{refused}");
        Ok(())
    }

    /// A host that the tables have lost comes back with its next report.
    #[tokio::test]
    async fn a_host_that_was_deleted_comes_back() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let report = json!({ "Hostname": "web-01", "IP": "10.0.0.1", "AgentVersion": "7.0", "PluginVersion": "p" });
        let rules = follow::first(&portal).await?;
        let service = HbsService::new(portal.clone(), rules.subscribe(), &[], Arc::new(Oddities::new()));
        for _ in 0..2 {
            call(&service, "Agent.ReportStatus", report.clone()).await;
            let hosts = crate::portal::host::all(&portal).await?;
            assert_eq!(hosts.len(), 1);
            crate::portal::host::delete(&portal, hosts[0].id).await?;
        }
        Ok(())
    }
}
