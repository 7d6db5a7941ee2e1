//! Hbs: the questions of agents and of original judges over JSON-RPC (docs/open-falcon/wire.md §4–5).
//!
//! Answers come from the rules in effect ([`crate::rules::InEffect`]); only a report that is new or differs is written
//! to the table of hosts, where a host that reports for the first time appears.

mod agents;
pub mod http;

use crate::clock;
use crate::engine::oddities::Oddities;
use crate::portal::Portal;
use crate::portal::host::ReportEffect;
use crate::rules::InEffect;
use net::rpc::Service;
use std::net::IpAddr;
use std::sync::Arc;
use supervisor::causes::line_of;
use tokio::sync::watch;
use wire::Scratch;
use wire::hbs::{self, BuiltinMetric};
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
            method => Err(jsonrpc::unknown_method(&["Agent", "Hbs"], method)),
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
    fn in_effect(&self) -> Arc<InEffect> {
        self.rules.borrow().clone()
    }

    async fn report_status(&self, param: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let report = hbs::read_report(param, &mut Scratch::new()).map_err(|error| error.to_string())?;
        if report.hostname.is_empty() {
            hbs::write_code(out, 1);
            return Ok(());
        }
        let reported = agents::report_status(&self.portal, &report).await.map_err(|error| {
            let error = line_of(&*error);
            tracing::error!(hostname = report.hostname, error, "cannot write the host table");
            format!("cannot write the host table: {error}")
        })?;
        // Two agents under one name show by the addresses that they give, also behind a proxy.
        if reported == ReportEffect::Changed
            && let Ok(address) = report.ip.parse()
        {
            let now = clock::now();
            self.oddities.suspect(&report.hostname, now);
            self.oddities.seen(&report.hostname, address, now);
        }
        hbs::write_code(out, 0);
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
            let plugins = agents::plugins(&in_effect.snapshot, &heartbeat.hostname);
            hbs::write_plugins(out, Some(&plugins), clock::now());
        }
        Ok(())
    }

    fn builtin_metrics(&self, param: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let heartbeat = hbs::read_heartbeat(param, &mut Scratch::new()).map_err(|error| error.to_string())?;
        if heartbeat.hostname.is_empty() {
            hbs::write_builtin_metrics(out, None, "", 0);
            return Ok(());
        }
        let (metrics, checksum) = agents::builtin_metrics(&self.in_effect().snapshot, &heartbeat.hostname);
        if checksum == heartbeat.checksum {
            hbs::write_builtin_metrics(out, Some(&[]), &checksum, clock::now());
            return Ok(());
        }
        let metrics: Vec<BuiltinMetric> =
            metrics.into_iter().map(|(metric, tags)| BuiltinMetric { metric, tags }).collect();
        hbs::write_builtin_metrics(out, Some(&metrics), &checksum, clock::now());
        Ok(())
    }
}
