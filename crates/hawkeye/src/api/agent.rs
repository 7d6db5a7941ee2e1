//! Agents: what they say of themselves: version, settings, clock.
//!
//! Compat: Hawkeye's own; an original agent says no more than `GET /host` shows.

use super::Context;
use super::auth::Caller;
use super::body::Fields;
use super::error::{Answer, ApiError, json};
use super::paging::{Paging, Search};
use crate::portal::agent::{self, Agent};
use axum::Router;
use axum::extract::State;
use axum::routing::get;

/// Routes of agents.
pub fn routes() -> Router<Context> {
    Router::new().route("/agent", get(list))
}

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let (page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let version = fields.text("version", agent::VERSION_MAX)?;
    let digest = fields.text("config_digest", agent::CONFIG_DIGEST_MAX)?;
    let offset_min = offset_min(&fields)?;
    let takes = |agent: &Agent| {
        search.finds(&agent.hostname)
            && agent.version.starts_with(&version)
            && (digest.is_empty() || agent.config_digest == digest)
            && offset_min.is_none_or(|min| agent.clock_offset_ms.is_some_and(|offset| offset.unsigned_abs() >= min))
    };
    let agents = agent::all(&context.portal).await?.into_iter().filter(takes);
    json(page.rows(agents)?)
}

/// The least offset that is asked for, in milliseconds, of whichever sign.
fn offset_min(fields: &Fields) -> Result<Option<u64>, ApiError> {
    if !fields.has("clock_offset_ms_min") {
        return Ok(None);
    }
    let min = fields.int("clock_offset_ms_min")?;
    u64::try_from(min).map(Some).map_err(|_| {
        ApiError::bad(format!("clock_offset_ms_min is {min}: give milliseconds from 0 on, which stand for both signs"))
    })
}
