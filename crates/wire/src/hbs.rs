//! Hbs: the calls of agents and judges; parameters are read, answers written.
//!
//! These calls come once a minute per host, so their strings are owned. The two large answers, all strategies and all
//! expressions, are written straight from [`Rules`]; the caller keeps the bytes for as long as the version stays.
//! Invariants: equal rules give equal bytes (hosts are sorted), so that a reader can compare a hash.
//! The two large answers of another hbs are read by [`AnswerReader`] into [`KnownRules`].
//! Compat: null where the original sends null, `[]` where it sends that; hosts without strategies are left out.

mod answer;
mod digest;
mod distinct;
mod error;
mod known;
mod limits;
mod rule_text;

pub use answer::{AnswerReader, Call, Progress};
pub use error::AnswerError;
pub use known::{KnownRules, Omissions};
pub use limits::AnswerLimits;

use crate::json::{self, JsonError, Scratch, name_eq, push_integer, push_string};
use model::rule::HostStrategies;
use model::{Rules, Strategy};
use std::fmt;
use std::sync::Arc;

/// Longest string in a parameter. Hostnames end at 255 bytes; the longest text seen is a plug-in's error message.
pub const STRING_BYTES_MAX: usize = 1024;

/// Reason for which a parameter was not understood; the text goes back to the sender and the connection stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamError {
    Json(JsonError),
    NotAString(&'static str),
    NotAnInteger(&'static str),
    TooLong(&'static str),
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamError::Json(error) => write!(f, "{error}"),
            ParamError::NotAString(field) => write!(f, "json: cannot unmarshal {field}: want a string"),
            ParamError::NotAnInteger(field) => write!(f, "json: cannot unmarshal {field}: want an integer"),
            ParamError::TooLong(field) => write!(f, "{field} is longer than {STRING_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for ParamError {}

/// Parameter of `Agent.ReportStatus`. Strings are empty when absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentReport {
    pub hostname: String,
    pub ip: String,
    pub agent_version: String,
    pub plugin_version: String,
    pub details: AgentDetails,
}

/// What a Hawkeye agent says of itself beyond the original's four fields. Each is left out where it is unknown, so that
/// a report without any has the original's bytes; an original hbs ignores fields that it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AgentDetails {
    /// `FullVersion`: version and machine, for which the original's field of 16 characters has no room.
    pub version: String,
    /// `ConfigDigest`: equal texts are equal settings.
    pub config_digest: String,
    /// `ClockOffsetMs`: the agent's clock less that of hbs, in milliseconds.
    pub clock_offset_ms: Option<i64>,
}

impl AgentDetails {
    /// Whether there is nothing, as in the report of an original agent.
    pub fn is_none(&self) -> bool {
        *self == AgentDetails::default()
    }
}

/// Parameter of `Agent.MinePlugins` and `Agent.BuiltinMetrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    pub hostname: String,
    /// Checksum of the metrics that the agent has; an agent first sends the text `nil`.
    pub checksum: String,
}

/// Reads the parameter of `Agent.ReportStatus`.
pub fn read_report(param: &[u8], scratch: &mut Scratch) -> Result<AgentReport, ParamError> {
    let mut report = AgentReport::default();
    let AgentReport { hostname, ip, agent_version, plugin_version, details } = &mut report;
    read_strings(
        param,
        scratch,
        &mut [
            ("Hostname", hostname),
            ("IP", ip),
            ("AgentVersion", agent_version),
            ("PluginVersion", plugin_version),
            ("FullVersion", &mut details.version),
            ("ConfigDigest", &mut details.config_digest),
        ],
    )?;
    details.clock_offset_ms = read_integer(param, scratch, "ClockOffsetMs")?;
    Ok(report)
}

/// The integer of that name in an object; null is none, as in Go.
fn read_integer(param: &[u8], scratch: &mut Scratch, wanted: &'static str) -> Result<Option<i64>, ParamError> {
    let mut found: &[u8] = b"null";
    json::fields(param, scratch, |name, value| {
        if name_eq(name, wanted) {
            found = value;
        }
    })
    .map_err(ParamError::Json)?;
    match json::integer(found) {
        None if !json::is_null(found) => Err(ParamError::NotAnInteger(wanted)),
        number => Ok(number),
    }
}

/// Reads the parameter of `Agent.MinePlugins` and `Agent.BuiltinMetrics`.
pub fn read_heartbeat(param: &[u8], scratch: &mut Scratch) -> Result<Heartbeat, ParamError> {
    let mut heartbeat = Heartbeat::default();
    let Heartbeat { hostname, checksum } = &mut heartbeat;
    read_strings(param, scratch, &mut [("Hostname", hostname), ("Checksum", checksum)])?;
    Ok(heartbeat)
}

/// Fills the named strings from an object; null changes nothing, as in Go.
fn read_strings(
    param: &[u8],
    scratch: &mut Scratch,
    targets: &mut [(&'static str, &mut String)],
) -> Result<(), ParamError> {
    let mut fault = None;
    let mut text = Scratch::new();
    let fields = json::fields(param, scratch, |name, value| {
        let Some((field, target)) = targets.iter_mut().find(|(field, _)| name_eq(name, field)) else { return };
        match json::string(value, &mut text) {
            Some(found) if found.len() > STRING_BYTES_MAX => fault = Some(ParamError::TooLong(field)),
            Some(found) => found.clone_into(target),
            None if json::is_null(value) => {}
            None => fault = Some(ParamError::NotAString(field)),
        }
    });
    fields.map_err(ParamError::Json)?;
    fault.map_or(Ok(()), Err)
}

/// Appends the parameter of `Agent.ReportStatus`.
pub fn write_report(out: &mut Vec<u8>, report: &AgentReport) {
    out.extend_from_slice(b"{\"Hostname\":");
    push_string(out, &report.hostname);
    out.extend_from_slice(b",\"IP\":");
    push_string(out, &report.ip);
    out.extend_from_slice(b",\"AgentVersion\":");
    push_string(out, &report.agent_version);
    out.extend_from_slice(b",\"PluginVersion\":");
    push_string(out, &report.plugin_version);
    let AgentDetails { version, config_digest, clock_offset_ms } = &report.details;
    for (name, text) in [("FullVersion", version), ("ConfigDigest", config_digest)] {
        if !text.is_empty() {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            push_string(out, text);
        }
    }
    if let Some(offset_ms) = clock_offset_ms {
        out.extend_from_slice(b",\"ClockOffsetMs\":");
        push_integer(out, *offset_ms);
    }
    out.push(b'}');
}

/// Appends `{"code":…}`, the answer to `Agent.ReportStatus` (1 for an empty hostname) and to every ping.
pub fn write_code(out: &mut Vec<u8>, code: i64) {
    out.extend_from_slice(b"{\"code\":");
    push_integer(out, code);
    out.push(b'}');
}

/// Appends `{"code":0,"TimeMs":…}`, the answer to the report of an agent that says more than the original's: by the
/// time of hbs, in Unix milliseconds, it finds out how far its clock is off.
pub fn write_reported(out: &mut Vec<u8>, time_ms: i64) {
    out.extend_from_slice(b"{\"code\":0,\"TimeMs\":");
    push_integer(out, time_ms);
    out.push(b'}');
}

/// Reads the time of an answer to `Agent.ReportStatus`; None where there is none, as an original hbs answers.
pub fn read_time_ms(raw: &[u8], scratch: &mut Scratch) -> Option<i64> {
    read_integer(raw, scratch, "TimeMs").ok().flatten()
}

/// Reads `{"code":…}`; an absent code is 0, as in Go.
pub fn read_code(raw: &[u8], scratch: &mut Scratch) -> Result<i64, JsonError> {
    let mut code = Some(0);
    json::fields(raw, scratch, |name, value| {
        if name_eq(name, "code") {
            code = json::integer(value);
        }
    })?;
    code.ok_or(JsonError { at: 0, what: "code must be an integer" })
}

/// Appends the answer to `Agent.MinePlugins`. `None` is for an empty hostname: null in the original.
pub fn write_plugins<S: AsRef<str>>(out: &mut Vec<u8>, plugins: Option<&[S]>, timestamp: i64) {
    out.extend_from_slice(b"{\"Plugins\":");
    push_list(out, plugins, |out, plugin| push_string(out, plugin.as_ref()));
    out.extend_from_slice(b",\"Timestamp\":");
    push_integer(out, timestamp);
    out.push(b'}');
}

/// A probe that the agent runs because a strategy needs its metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BuiltinMetric {
    pub metric: String,
    /// The strategy's tags as written.
    pub tags: String,
}

/// Appends the answer to `Agent.BuiltinMetrics`. `None` is for an empty hostname: null in the original.
pub fn write_builtin_metrics(out: &mut Vec<u8>, metrics: Option<&[BuiltinMetric]>, checksum: &str, timestamp: i64) {
    out.extend_from_slice(b"{\"Metrics\":");
    push_list(out, metrics, |out, metric| {
        out.extend_from_slice(b"{\"Metric\":");
        push_string(out, &metric.metric);
        out.extend_from_slice(b",\"Tags\":");
        push_string(out, &metric.tags);
        out.push(b'}');
    });
    out.extend_from_slice(b",\"Checksum\":");
    push_string(out, checksum);
    out.extend_from_slice(b",\"Timestamp\":");
    push_integer(out, timestamp);
    out.push(b'}');
}

/// Appends the answer to `Agent.TrustableIps`: addresses joined by commas.
pub fn write_trustable_ips(out: &mut Vec<u8>, addresses: &str) {
    push_string(out, addresses);
}

/// Appends the answer to `Hbs.GetStrategies`.
pub fn write_strategies(out: &mut Vec<u8>, rules: &Rules) {
    // A part of a strategy cannot be told: who reads this knows no tag that a series must not have.
    let is_told = |strategy: &&Arc<Strategy>| !strategy.is_excepted_part();
    let mut hosts: Vec<(&String, &HostStrategies)> =
        rules.hosts.iter().filter(|host| host.1.iter().any(|strategy| is_told(&strategy))).collect();
    hosts.sort_unstable_by_key(|host| host.0);
    let mut strategy_json = String::new();
    out.extend_from_slice(b"{\"hostStrategies\":");
    push_list(out, Some(&hosts), |out, (hostname, strategies)| {
        out.extend_from_slice(b"{\"hostname\":");
        push_string(out, hostname);
        out.extend_from_slice(b",\"strategies\":");
        let told: Vec<&Arc<Strategy>> = strategies.iter().filter(is_told).collect();
        push_list(out, Some(&told), |out, strategy| {
            strategy_json.clear();
            strategy.push_json(&mut strategy_json);
            out.extend_from_slice(strategy_json.as_bytes());
        });
        out.push(b'}');
    });
    out.push(b'}');
}

/// Appends the answer to `Hbs.GetExpressions`.
pub fn write_expressions(out: &mut Vec<u8>, rules: &Rules) {
    let mut expression_json = String::new();
    let expressions = (!rules.expressions.is_empty()).then_some(&rules.expressions[..]);
    out.extend_from_slice(b"{\"expressions\":");
    push_list(out, expressions, |out, expression| {
        expression_json.clear();
        expression.push_json(&mut expression_json);
        out.extend_from_slice(expression_json.as_bytes());
    });
    out.push(b'}');
}

fn push_list<T>(out: &mut Vec<u8>, list: Option<&[T]>, mut push: impl FnMut(&mut Vec<u8>, &T)) {
    let Some(list) = list else { return out.extend_from_slice(b"null") };
    out.push(b'[');
    for (i, element) in list.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push(out, element);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests;
