//! Hosts: who there is and who reports, their groups and templates, and maintenance windows.
//!
//! Compat: who may set maintenance is in `rights.rs`; in the original anybody. `GET /host`, `DELETE /host/:id` and
//! `GET /host/:id/rule` are Hawkeye's own.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, message_with};
use super::graph;
use super::paging::{Paging, Search};
use super::rights::{self, HostChange};
use super::text::named;
use crate::clock;
use crate::engine::Engine;
use crate::engine::oddities::Oddity;
use crate::portal::expression;
use crate::portal::group;
use crate::portal::host::{self, Host, Selection};
use crate::portal::template;
use crate::rules::snapshot::Snapshot;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use serde::Serialize;
use std::collections::HashMap;

/// Routes of hosts.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/host", get(list))
        .route("/host/{id}", delete(remove))
        .route("/host/{id}/hostgroup", get(groups))
        .route("/host/{id}/template", get(templates))
        .route("/host/{id}/rule", get(rules))
        .route("/host/maintain", post(maintain).delete(end_maintenance))
}

/// Seconds without a point after which a host counts as silent: most agents report each minute.
const SILENT_S: i64 = 300;

/// A host as the list shows it.
#[derive(Default, Serialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    pub host: Host,
    /// `maintenance`, `silent`, `reporting`, or `unknown` where the points are in old graphs.
    pub state: &'static str,
    /// Unix seconds of its newest point in memory; 0 for none.
    last: i64,
    /// How far the clock of the host is ahead, where its points were refused for that in the last hour.
    ahead: Option<String>,
    /// Seconds that the freshest point of the last two minutes was ahead of this server's clock, behind is negative.
    clock_offset: Option<i64>,
}

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let (page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let (ip, version) = (fields.text("ip", host::IP_MAX)?, fields.text("agent_version", host::AGENT_VERSION_MAX)?);
    let state = fields.text("state", 20)?;
    if !["", "maintenance", "silent", "reporting", "unknown"].contains(&state.as_str()) {
        return Err(ApiError::bad(format!("state is {state:?}: give maintenance, silent, reporting or unknown")));
    }
    let is_ahead = fields.flag("ahead")? == 1;
    let offset_min = offset_min(&fields)?;
    let mut hosts = match fields.int("group")? {
        0 => host::all(&context.portal).await?,
        group => host::of_group(&context.portal, group).await?,
    };
    let takes = |host: &Host| {
        search.finds(&host.hostname)
            && (ip.is_empty() || host.ip.starts_with(&ip))
            && (version.is_empty() || host.agent_version == version)
    };
    hosts.retain(takes);
    let listed = all_listed(&context, hosts).await?;
    let takes = |one: &Listed| {
        (state.is_empty() || one.state == state)
            && (!is_ahead || one.ahead.is_some())
            && offset_min.is_none_or(|min| one.clock_offset.is_some_and(|offset| offset.abs() >= min))
    };
    let listed = listed.into_iter().filter(takes);
    match &page.sort {
        Some(sort) if sort.field == "clock_offset" => json(page.cut(by_offset(listed, sort.is_reverse).into_iter())),
        _ => json(page.rows(listed)?),
    }
}

/// The least offset that is asked for, in seconds, of whichever sign.
fn offset_min(fields: &Fields) -> Result<Option<i64>, ApiError> {
    if !fields.has("clock_offset_min") {
        return Ok(None);
    }
    match fields.int("clock_offset_min")? {
        min @ 0.. => Ok(Some(min)),
        min => {
            Err(ApiError::bad(format!("clock_offset_min is {min}: give seconds from 0 on, which stand for both signs")))
        }
    }
}

/// Hosts by the size of their offsets; those of which nothing is known come first, as what has no value does elsewhere.
fn by_offset(listed: impl Iterator<Item = Listed>, is_reverse: bool) -> Vec<Listed> {
    let mut listed: Vec<Listed> = listed.collect();
    let size = |one: &Listed| one.clock_offset.map(i64::abs);
    listed.sort_by(|a, b| if is_reverse { size(b).cmp(&size(a)) } else { size(a).cmp(&size(b)) });
    listed
}

/// Hosts with their states; those of hosts whose points are in old graphs are unknown, for the index there does
/// not follow what reports.
pub(super) async fn all_listed(context: &Context, hosts: Vec<Host>) -> Result<Vec<Listed>, ApiError> {
    let is_heard = context.graphs.is_none();
    let mut listed = graph::reading(context, move |engine| listed(engine, hosts, clock::now())).await?;
    if !is_heard {
        listed.iter_mut().filter(|one| one.state == "silent").for_each(|one| one.state = "unknown");
    }
    Ok(listed)
}

fn listed(engine: &Engine, hosts: Vec<Host>, now: i64) -> Result<Vec<Listed>, store::Error> {
    let names: Vec<&str> = hosts.iter().map(|host| host.hostname.as_str()).collect();
    let ids = engine.store().endpoint_ids(&names)?;
    let odd = engine.oddities().report(now).into_iter().filter(|odd| odd.what == Oddity::ClockAhead);
    let mut ahead: HashMap<String, (String, Option<i64>)> =
        odd.map(|odd| (odd.endpoint, (odd.detail, odd.offset))).collect();
    let clocks = &engine.intake().clocks;
    let listed = hosts.into_iter().zip(ids).map(|(host, id)| {
        let last = id.and_then(|id| engine.store().endpoint_last_time(id)).unwrap_or(0);
        let state = match (host.maintain_begin <= now && now <= host.maintain_end, last < now - SILENT_S) {
            (true, _) => "maintenance",
            (_, true) => "silent",
            _ => "reporting",
        };
        // Refused points are all that is known of a host that never had one in time.
        let (ahead, refused) = ahead.remove(&host.hostname).unzip();
        let fresh = engine.store().endpoint_place(&host.hostname).and_then(|place| clocks.offset(place));
        Listed { host, state, last, ahead, clock_offset: fresh.or(refused.flatten()) }
    });
    Ok(listed.collect())
}

/// Deletes a host that is no more, with its place in all groups; its history stays. One that still reports comes back.
async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let id = find(&context, &id).await?;
    rights::check_hosts(&context, &caller, &Selection::Ids(vec![id]), HostChange::Maintain).await?;
    host::delete(&context.portal, id).await?;
    message_with(format!("host:{id} has been deleted"), None)
}

async fn groups(State(context): State<Context>, _caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let (page, id) = (Paging::of(&fields)?, find(&context, &id).await?);
    json(page.rows(group::of_host(&context.portal, id).await?.into_iter())?)
}

async fn templates(State(context): State<Context>, _caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let (page, id) = (Paging::of(&fields)?, find(&context, &id).await?);
    json(page.rows(template::of_host(&context.portal, id).await?.into_iter())?)
}

/// What holds on a host, and why the rest does not.
async fn rules(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let host = host::by_id(&context.portal, parse_int("id", &id)?).await?;
    let name = host.ok_or_else(|| ApiError::refused("record not found"))?.hostname;
    let snapshot = Snapshot::load(&context.portal).await?;
    let expressions = expression::all(&context.portal).await?;
    let patterns = context.config.judge.endpoint_patterns;
    let holding = snapshot.holding(&name, expressions, patterns, &jiff::Zoned::now());
    json(holding.ok_or_else(|| ApiError::refused("record not found"))?)
}

/// The last second that the columns hold, in 2106.
const TIME_MAX: i64 = u32::MAX as i64;

async fn maintain(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (begin, end) = (fields.required_int("maintain_begin")?, fields.required_int("maintain_end")?);
    if end < begin {
        return Err(ApiError::bad("maintain_end is before maintain_begin: both are Unix seconds"));
    }
    for (name, time) in [("maintain_begin", begin), ("maintain_end", end)] {
        if !(1..=TIME_MAX).contains(&time) {
            return Err(ApiError::bad(format!(
                "{name} is {time}: give Unix seconds, not milliseconds, up to {TIME_MAX}"
            )));
        }
    }
    set(&context, &caller, &fields, begin, end).await
}

async fn end_maintenance(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    set(&context, &caller, &fields, 0, 0).await
}

async fn set(context: &Context, caller: &Caller, fields: &Fields, begin: i64, end: i64) -> Answer {
    let names = fields.lines("hosts", host::HOSTNAME_MAX)?.filter(|names| !names.is_empty());
    let ids = fields.ints("ids")?.filter(|ids| !ids.is_empty());
    let (through, which) = match (names, ids) {
        (Some(names), _) => ("hosts", Selection::Names(names)),
        (None, Some(ids)) => ("ids", Selection::Ids(ids)),
        (None, None) => return Err(ApiError::bad("hosts or ids is required")),
    };
    rights::check_hosts(context, caller, &which, HostChange::Maintain).await?;
    let count = host::maintain(&context.portal, &which, begin, end).await?;
    let mut warnings = Vec::new();
    let unknown = host::unknown(&context.portal, &which).await?;
    if !unknown.is_empty() {
        warnings.push(format!("{through}: nothing was set for what is no host here: {}", named(&unknown)));
    }
    if begin == end && begin > 0 {
        warnings.push("maintain_begin and maintain_end are equal: the maintenance lasts one second".to_string());
    }
    message_with(
        format!("Through: {through}, Affect row: {count}"),
        (!warnings.is_empty()).then(|| warnings.join("; ")),
    )
}

async fn find(context: &Context, id: &str) -> Result<i64, ApiError> {
    let id = parse_int("id", id)?;
    if host::exists(&context.portal, id).await? { Ok(id) } else { Err(ApiError::refused("record not found")) }
}
