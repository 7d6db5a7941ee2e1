//! Hosts: their groups and templates, and maintenance windows.
//!
//! Compat: who may set maintenance is in `rights.rs`; in the original anybody.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, message_with};
use super::rights::{self, HostChange};
use super::text::named;
use crate::portal::group;
use crate::portal::host::{self, Selection};
use crate::portal::template;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};

/// Routes of hosts.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/host/{id}/hostgroup", get(groups))
        .route("/host/{id}/template", get(templates))
        .route("/host/maintain", post(maintain).delete(end_maintenance))
}

async fn groups(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let id = find(&context, &id).await?;
    json(group::of_host(&context.portal, id).await?)
}

async fn templates(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let id = find(&context, &id).await?;
    json(template::of_host(&context.portal, id).await?)
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
