//! Aggregators: series computed over the hosts of a group.
//!
//! Compat: who may change the group or made the aggregator may change it. An expression that cannot be computed is
//! refused, where the original saves it and leaves it out each minute.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, made, message};
use super::expression::check_name;
use super::paging::Paging;
use super::rights::{self, HostChange};
use super::strategy::checked_tags;
use crate::config::Config;
use crate::portal::aggregator::{self, Aggregator};
use crate::portal::group;
use crate::portal::host::Selection;
use crate::rules::aggregate;
use crate::rules::computed::Last;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use serde_json::json as object;
use wire::item::{COUNTER_BYTES_MAX, ENDPOINT_BYTES_MAX};

/// Longest step of a series that is made here: a day. A guess; the original has no bound.
const STEP_MAX: i64 = 86_400;

/// Routes of aggregators.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/aggregator", axum::routing::post(create).put(update))
        .route("/aggregator/{id}", get(show).delete(remove))
        .route("/aggregator/{id}/last", get(last))
        .route("/hostgroup/{id}/aggregators", get(list))
}

async fn list(State(context): State<Context>, _caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let page = Paging::of(&fields)?;
    let id = parse_int("id", &id)?;
    let aggregators = page.rows(aggregator::of_group(&context.portal, id).await?.into_iter())?;
    // The name comes with the first aggregator in the original.
    let group = if aggregators.is_empty() { None } else { group::by_id(&context.portal, id).await? };
    let name = group.map_or(String::new(), |group| group.grp_name);
    json(object!({ "hostgroup": name, "aggregators": aggregators }))
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    json(find(&context, &id).await?)
}

/// What became of the aggregator when it was computed last; the original has nothing like it.
async fn last(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let found = find(&context, &id).await?;
    let last = context.lasts.of(found.id);
    let why = "it was not computed yet: a new aggregator is within two steps".to_string();
    json(last.unwrap_or(Last { why, ..Last::default() }))
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let grp_id = fields.required_int("hostgroup_id")?;
    let new = required_aggregator(&context.config, &fields)?;
    let new = Aggregator { grp_id, creator: caller.name.clone(), ..new };
    check_rights(&context, &caller, grp_id, None).await?;
    check_expressions(&new)?;
    check_target(&context, &caller, &new).await?;
    let created = aggregator::create(&context.portal, new).await?;
    made(created.id, json(created))
}

async fn update(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let id = fields.required_int("id")?;
    let changed = required_aggregator(&context.config, &fields)?;
    let old = aggregator::by_id(&context.portal, id).await?.ok_or_else(|| ApiError::refused("record not found"))?;
    check_rights(&context, &caller, old.grp_id, Some(&old.creator)).await?;
    let changed = Aggregator { id, grp_id: old.grp_id, creator: old.creator, ..changed };
    check_expressions(&changed)?;
    check_target(&context, &caller, &changed).await?;
    aggregator::update(&context.portal, &changed).await?;
    json(changed)
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let found = find(&context, &id).await.map_err(|error| match error.text() {
        "record not found" => ApiError::refused("find aggregator got error: record not found"),
        _ => error,
    })?;
    check_rights(&context, &caller, found.grp_id, Some(&found.creator)).await?;
    aggregator::delete(&context.portal, found.id).await?;
    message(format!("aggregator:{} has been deleted", found.id))
}

async fn find(context: &Context, id: &str) -> Result<Aggregator, ApiError> {
    let found = aggregator::by_id(&context.portal, parse_int("id", id)?).await?;
    found.ok_or_else(|| ApiError::refused("record not found"))
}

/// Lets those pass who may change the group, and who made the aggregator, if there is one already.
async fn check_rights(context: &Context, caller: &Caller, grp_id: i64, creator: Option<&str>) -> Result<(), ApiError> {
    if let Some(creator) = creator
        && rights::may_change(context, caller, creator, "").await?
    {
        return Ok(());
    }
    let may = match (group::by_id(&context.portal, grp_id).await?, creator) {
        (Some(group), _) => rights::may_change_group(context, caller, group.id, &group.create_user).await?,
        (None, None) => return Err(ApiError::refused("record not found")),
        (None, Some(_)) => false,
    };
    if may { Ok(()) } else { Err(caller.denied(ApiError::bad("You don't have permission!"))) }
}

/// Refuses what cannot be computed. Whose it is comes before, as in the original.
pub(super) fn check_expressions(aggregator: &Aggregator) -> Result<(), ApiError> {
    let sides = aggregate::parse(&aggregator.numerator, &aggregator.denominator);
    sides.map(drop).map_err(ApiError::bad)
}

/// Refuses a series of a host of others: its points would be made up by a stranger.
async fn check_target(context: &Context, caller: &Caller, aggregator: &Aggregator) -> Result<(), ApiError> {
    let host = Selection::Names(vec![aggregator.endpoint.clone()]);
    rights::check_hosts(context, caller, &host, HostChange::Maintain).await
}

/// The aggregator that the fields describe, without id, group and creator; its expressions are not read yet.
pub(super) fn required_aggregator(config: &Config, fields: &Fields) -> Result<Aggregator, ApiError> {
    let numerator = fields.required_line("numerator", aggregator::EXPRESSION_MAX)?;
    let denominator = fields.required_line("denominator", aggregator::EXPRESSION_MAX)?;
    let computed = Aggregator {
        numerator,
        denominator,
        endpoint: fields.required_line("endpoint", aggregator::TEXT_MAX)?,
        metric: required_metric(fields, aggregator::TEXT_MAX)?,
        tags: checked_tags(fields.text("tags", aggregator::TEXT_MAX)?)?,
        ds_type: "GAUGE".to_string(),
        step: required_step(config, fields)?,
        ..Aggregator::default()
    };
    check_series(&computed.endpoint, &computed.metric, &computed.tags)?;
    Ok(computed)
}

/// Refuses a series that no point can be of.
pub(super) fn check_series(endpoint: &str, metric: &str, tags: &str) -> Result<(), ApiError> {
    if endpoint.len() > ENDPOINT_BYTES_MAX {
        return Err(ApiError::bad(format!("{endpoint:?} is longer than {} bytes", ENDPOINT_BYTES_MAX)));
    }
    if metric.len() + tags.len() > COUNTER_BYTES_MAX {
        return Err(ApiError::bad(format!("metric and tags are longer than {} bytes", COUNTER_BYTES_MAX)));
    }
    Ok(())
}

/// The metric of a series that is made here: one, and no pattern.
pub(super) fn required_metric(fields: &Fields, max: usize) -> Result<String, ApiError> {
    let metric = fields.required_line("metric", max)?;
    if judge::pattern::is_pattern(&metric) {
        return Err(ApiError::bad(format!("metric {metric:?} has a `*` or `?`, and is no pattern: name one metric")));
    }
    check_name("metric", &metric).map_err(ApiError::bad)?;
    Ok(metric)
}

/// The seconds between two points of a series that is made here: from the least step that is kept on.
pub(super) fn required_step(config: &Config, fields: &Fields) -> Result<i64, ApiError> {
    let (step, min) = (fields.required_int("step")?, i64::from(config.ingest.min_step));
    if !(min..=STEP_MAX).contains(&step) {
        return Err(ApiError::bad(format!("step must be from {min} (ingest.min_step) to {STEP_MAX} seconds")));
    }
    Ok(step)
}
