//! `POST /api/v1/strategy/replay`: rehearses a strategy or an expression, saved or not, over stored history.
//!
//! Body: a strategy with the names of `POST /strategy`, or an expression with the names of `POST /expression`; fields
//! left out are taken from the saved rule that `id` or `expression_id` names. A strategy is rehearsed on the hosts that
//! its template (`tpl_id`) watches, or on those of `hosts` (`["*"]`: all that have the metric), with the exceptions
//! that are saved for its `id`. `from` and `to` are
//! Unix seconds or texts like `-7d` and `now`. The answer is a [`RehearsalReport`], as JSON, or as text for
//! `?format=text` and for clients that accept text only.
//! How: a rehearsal reads files and judges for seconds, so it runs on threads that may wait, [`AT_ONCE`] at a time;
//! it ends when its client is gone.
//! Invariants: nothing is saved; a rule that could not be saved gets the error that saving it would get.

use super::auth::Caller;
use super::body::{Fields, JsonBody};
use super::error::{Answer, ApiError, json};
use super::{Context, expression as expressions, strategy as strategies};
use crate::clock;
use crate::engine::Engine;
use crate::portal::{expression, strategy};
use crate::rules::rehearsal::report::RehearsalReport;
use crate::rules::rehearsal::unsaved::{self, Anywhere};
use crate::rules::rehearsal::{Order, RehearsalError, RuleScope, rehearse};
use crate::rules::snapshot::Snapshot;
use anyhow::Context as _;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::post;
use model::Rules;
use net::turns::{Holder, Turns};
use serde::Serialize;
use serde_json::{Map, Value, json as object};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

/// Rehearsals at a time. A rehearsal has two threads; others wait for their turn, user by user.
const AT_ONCE: usize = 1;
/// Seconds that a rehearsal looks back when the request names no `from`.
const SPAN_DEFAULT_S: i64 = 7 * 86_400;

static TURNS: LazyLock<Turns> = LazyLock::new(|| Turns::new(AT_ONCE));

const STRATEGY_FIELDS: [&str; 14] = [
    "id",
    "metric",
    "tags",
    "max_step",
    "priority",
    "func",
    "op",
    "right_value",
    "note",
    "run_begin",
    "run_end",
    "tpl_id",
    "hosts",
    "from",
];
const EXPRESSION_FIELDS: [&str; 11] = [
    "expression_id",
    "expression",
    "max_step",
    "priority",
    "func",
    "op",
    "right_value",
    "note",
    "pause",
    "action",
    "from",
];

/// Routes of rehearsals.
pub fn routes() -> Router<Context> {
    Router::new().route("/strategy/replay", post(rehearsal))
}

async fn rehearsal(
    State(context): State<Context>,
    caller: Caller,
    query: RawQuery,
    headers: HeaderMap,
    JsonBody(fields): JsonBody<Map<String, Value>>,
) -> Answer {
    let wants_text = wants_text(query.0.as_deref().unwrap_or_default(), &headers)?;
    let answer = report_on(&context, &Holder::user(&caller.name), fields).await?;
    if wants_text {
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], answer.text()).into_response());
    }
    json(answer)
}

fn wants_text(query: &str, headers: &HeaderMap) -> Result<bool, ApiError> {
    let pairs = super::body::parse_form(query.as_bytes());
    match pairs.iter().find(|(name, _)| name == "format").map(|(_, format)| format.as_str()) {
        Some("text") => Ok(true),
        Some("json") => Ok(false),
        Some(other) => Err(ApiError::bad(format!("format is {other:?}: give json or text"))),
        None => {
            let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            Ok(accept.trim_start().starts_with("text/plain"))
        }
    }
}

/// Rehearses the rule that the fields describe; the command `hawkeye replay` calls this without a server.
pub async fn report_on(
    context: &Context,
    asks: &Holder,
    fields: Map<String, Value>,
) -> Result<RehearsalReport, ApiError> {
    if context.graphs.is_some() {
        return Err(super::old_graph::refused("a rehearsal reads points"));
    }
    let order = order(context, fields, clock::now()).await?;
    let _turn = TURNS.take(asks, 1).await;
    let stop = Arc::new(AtomicBool::new(false));
    // Dropped with the request when the client is gone, which ends the rehearsal.
    let _stopper = StopOnDrop(stop.clone());
    let rehearsal = move |engine: &Engine| rehearse(engine.store(), engine.judge_options(), &order, &stop);
    let task = context.engine.spawn_blocking(rehearsal);
    match task.await.context("a rehearsal")? {
        Ok(answer) => Ok(answer),
        Err(RehearsalError::Refused(text)) => Err(ApiError::bad(text)),
        Err(RehearsalError::Store(error)) => Err(ApiError::from(anyhow::Error::new(error).context("reading history"))),
        Err(RehearsalError::Stopped) => Err(ApiError::bad("the rehearsal was given up")),
    }
}

/// Stops a rehearsal when dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn order(context: &Context, asked: Map<String, Value>, now: i64) -> Result<Order, ApiError> {
    let asked: Map<String, Value> = asked.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let is_expression = asked.contains_key("expression") || asked.contains_key("expression_id");
    let known: &[&str] = if is_expression { &EXPRESSION_FIELDS } else { &STRATEGY_FIELDS };
    if let Some(name) = asked.keys().find(|name| *name != "to" && !known.contains(&name.as_str())) {
        return Err(ApiError::bad(format!(
            "{name} is no field of this request: give some of {}, to",
            known.join(", ")
        )));
    }
    let to = time(&asked, "to", now)?.unwrap_or(now).min(now);
    let from = time(&asked, "from", now)?.unwrap_or(to - SPAN_DEFAULT_S);
    if from < 0 || from >= to {
        return Err(ApiError::bad(format!(
            "from is {from}, to is {to}: from must be the earlier, and to not in the future"
        )));
    }
    if is_expression {
        let rule = RuleScope::Rules(expression_rules(context, asked).await?);
        let (run_begin, run_end) = (String::new(), String::new());
        return Ok(Order { rule, run_begin, run_end, from, to });
    }
    let (row, rule) = strategy_rules(context, asked).await?;
    Ok(Order { rule, run_begin: row.run_begin, run_end: row.run_end, from, to })
}

/// The fields of a saved row, overlaid by the fields of the request.
fn changed(saved: Value, asked: Map<String, Value>) -> Fields {
    let mut fields = match saved {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.extend(asked.into_iter().filter(|(_, value)| !value.is_null()));
    Fields::Json(fields)
}

/// The rule of a strategy with the hosts that it is rehearsed on.
async fn strategy_rules(
    context: &Context,
    asked: Map<String, Value>,
) -> Result<(strategy::Strategy, RuleScope), ApiError> {
    let id = Fields::Json(asked.clone()).int("id")?;
    let saved = if id == 0 { None } else { strategy::by_id(&context.portal, id).await? };
    let fields = changed(saved_fields("id", "strategy", id, saved)?, asked);
    let tpl_id = fields.int("tpl_id")?;
    let row = strategy::Strategy { id, tpl_id, ..strategies::required_strategy(&context.config, &fields)? };
    let scope = match fields.texts("hosts", crate::portal::host::HOSTNAME_MAX)? {
        Some(hosts) => named_hosts(context, &row, hosts).await?,
        None => template_hosts(context, &row).await?,
    };
    Ok((row, scope))
}

/// The strategy on the hosts of its template.
async fn template_hosts(context: &Context, row: &strategy::Strategy) -> Result<RuleScope, ApiError> {
    let tpl_id = row.tpl_id;
    if tpl_id == 0 {
        return Err(ApiError::bad("hosts is required, unless tpl_id or id names a template: give names, or [\"*\"]"));
    }
    let snapshot = Snapshot::load(&context.portal).await?;
    if !snapshot.has_template(tpl_id) {
        return Err(ApiError::bad(format!("tpl_id: there is no template {tpl_id}")));
    }
    snapshot.watching(row, &jiff::Zoned::now()).map(RuleScope::Rules).map_err(ApiError::bad)
}

/// The strategy on hosts that the request names; `["*"]` is every host that has the metric.
async fn named_hosts(context: &Context, row: &strategy::Strategy, hosts: Vec<String>) -> Result<RuleScope, ApiError> {
    // One that is not saved has no exceptions.
    let snapshot = if row.id == 0 { Snapshot::default() } else { Snapshot::load(&context.portal).await? };
    let strategy = Anywhere::new(row, snapshot).map_err(ApiError::bad)?;
    if hosts == ["*"] {
        return Ok(RuleScope::Everywhere(strategy));
    }
    Ok(RuleScope::Rules(strategy.rules(hosts)))
}

async fn expression_rules(context: &Context, asked: Map<String, Value>) -> Result<Rules, ApiError> {
    let id = Fields::Json(asked.clone()).int("expression_id")?;
    let saved = if id == 0 { None } else { expression::by_id(&context.portal, id).await? };
    let fields = changed(saved_fields("expression_id", "expression", id, saved)?, asked);
    let row = expressions::required_rule(&context.config, &fields)?;
    unsaved::expression_of(&expression::Expression { id, ..row }).map_err(ApiError::bad)
}

/// The fields of the saved row that `name` names with `id`, or the defaults of a new rule for id 0.
fn saved_fields<R: Serialize>(name: &str, kind: &str, id: i64, saved: Option<R>) -> Result<Value, ApiError> {
    match saved {
        _ if id == 0 => Ok(object!({ "max_step": 3 })),
        Some(row) => Ok(object!(row)),
        None => Err(ApiError::bad(format!("{name}: there is no {kind} {id}"))),
    }
}

/// A field that is a time: Unix seconds as a number or text, `now`, or a time before now like `-7d`.
fn time(fields: &Map<String, Value>, name: &str, now: i64) -> Result<Option<i64>, ApiError> {
    let wrong = |what: &dyn std::fmt::Display| {
        ApiError::bad(format!("{name} is {what}: give Unix seconds, now, or a time before it like -7d"))
    };
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text == "now" => Ok(Some(now)),
        Some(Value::String(text)) => {
            let ago = text.strip_prefix('-').and_then(|ago| humantime::parse_duration(ago).ok());
            let ago = ago.and_then(|ago| i64::try_from(ago.as_secs()).ok());
            ago.and_then(|ago| now.checked_sub(ago))
                .or_else(|| text.parse().ok())
                .map(Some)
                .ok_or_else(|| wrong(&format!("{text:?}")))
        }
        Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong(value)),
    }
}
