//! Exceptions of strategies: another threshold or number of messages, or a pause, for one host, group or tag value.
//!
//! Compat: the routes are Hawkeye's own; who may change an exception may change its strategy (`rights.rs`). Which of
//! several exceptions counts is in docs/rules.md.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, made, message};
use super::hostgroup::odd_name;
use super::paging::Paging;
use super::rule::{self, MAX_STEP_MAX};
use super::strategy::check_rights;
use crate::clock;
use crate::config::Config;
use crate::portal::exception::{self, Exception, NOTE_MAX, ROWS_MAX, TAG_ROWS_MAX, TARGET_MAX};
use crate::portal::strategy::{self, RIGHT_VALUE_MAX, Strategy};
use crate::portal::{group, host};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;

/// Routes of exceptions.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/exception", get(list).post(create))
        .route("/exception/{id}", get(show).put(update).delete(remove))
}

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let page = Paging::of(&fields)?;
    let rows = match fields.int("strategy_id")? {
        0 => exception::all(&context.portal).await?,
        id => exception::of_strategy(&context.portal, id).await?,
    };
    json(page.rows(rows.into_iter())?)
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    json(find(&context, &id).await?)
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let strategy_id = fields.required_int("strategy_id")?;
    let strategy = strategy::by_id(&context.portal, strategy_id).await?;
    let strategy = strategy.ok_or_else(|| ApiError::bad(format!("strategy_id: there is no strategy {strategy_id}")))?;
    check_rights(&context, &caller, &strategy).await?;
    let (kind, target) = required_target(&fields)?;
    let target = known_target(&context, &kind, target).await?;
    let changes = required_changes(&fields)?;
    let new = Exception { strategy_id, kind, target, create_user: caller.name, create_at: clock::now(), ..changes };
    check_against(&context.config, &strategy, &new)?;
    let others = exception::of_strategy(&context.portal, strategy_id).await?;
    if let Some(same) = others.iter().find(|other| other.kind == new.kind && other.target == new.target) {
        return Err(taken(&new, &same.id.to_string()));
    }
    check_number(&new.kind, others.iter())?;
    let what = new.clone();
    let created = exception::create(&context.portal, new).await;
    let text = taken(&what, ":id").text().to_string();
    let created = created.map_err(|error| ApiError::duplicate(error, StatusCode::BAD_REQUEST, text))?;
    made(created.id, json(created))
}

async fn update(State(context): State<Context>, caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let (old, strategy) = find_own(&context, &caller, &id).await?;
    let strategy = strategy.ok_or_else(|| ApiError::bad("its strategy is gone: delete the exception"))?;
    let is_other = (fields.has("strategy_id") && fields.int("strategy_id")? != old.strategy_id)
        || (fields.has("kind") && fields.text("kind", TARGET_MAX)? != old.kind)
        || (fields.has("target") && fields.text("target", TARGET_MAX)? != old.target);
    if is_other {
        return Err(ApiError::bad("strategy_id, kind and target of an exception stay: make another one"));
    }
    let Exception { right_value, max_step, pause, note, .. } = required_changes(&fields)?;
    let changed = Exception { right_value, max_step, pause, note, ..old };
    check_against(&context.config, &strategy, &changed)?;
    exception::update(&context.portal, &changed).await?;
    json(changed)
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let (old, _) = find_own(&context, &caller, &id).await?;
    exception::delete(&context.portal, old.id).await?;
    message(format!("exception:{} has been deleted", old.id))
}

async fn find(context: &Context, id: &str) -> Result<Exception, ApiError> {
    let found = exception::by_id(&context.portal, parse_int("id", id)?).await?;
    found.ok_or_else(|| ApiError::refused("record not found"))
}

/// The exception with its strategy, if the caller may change that; one whose strategy is gone is the administrators'.
async fn find_own(context: &Context, caller: &Caller, id: &str) -> Result<(Exception, Option<Strategy>), ApiError> {
    let found = find(context, id).await?;
    let strategy = strategy::by_id(&context.portal, found.strategy_id).await?;
    check_rights(context, caller, &strategy.clone().unwrap_or_default()).await?;
    Ok((found, strategy))
}

fn taken(new: &Exception, id: &str) -> ApiError {
    let Exception { kind, target, .. } = new;
    ApiError::bad(format!("the strategy has an exception for the {kind} {target:?} already: PUT /exception/{id}"))
}

/// Refuses one more of `kind` where there are enough.
pub(super) fn check_number<'a>(kind: &str, others: impl Iterator<Item = &'a Exception>) -> Result<(), ApiError> {
    let (all, tags) =
        others.fold((0, 0), |(all, tags), other| (all + 1, tags + usize::from(other.kind == exception::TAG)));
    if all >= ROWS_MAX {
        return Err(ApiError::bad(format!("the strategy has {ROWS_MAX} exceptions: make a template of its own")));
    }
    if kind == exception::TAG && tags >= TAG_ROWS_MAX {
        return Err(ApiError::bad(format!(
            "the strategy has exceptions for {TAG_ROWS_MAX} tags: make a strategy with the tag in tags"
        )));
    }
    Ok(())
}

/// Kind and target that the fields name; whether there is such a group is not asked yet.
pub(super) fn required_target(fields: &Fields) -> Result<(String, String), ApiError> {
    let kind = fields.required_line("kind", TARGET_MAX)?;
    let target = fields.required_line("target", TARGET_MAX)?;
    let target = match kind.as_str() {
        exception::HOST => match odd_name(&target) {
            None => target,
            Some(what) => return Err(ApiError::bad(format!("target: {target:?} {what}: name one host"))),
        },
        exception::GROUP => target,
        exception::TAG => canonical_tag(&target)?,
        _ => return Err(ApiError::bad(format!("kind is {kind:?}: give host, group or tag"))),
    };
    Ok((kind, target))
}

/// A tag as points have it.
fn canonical_tag(text: &str) -> Result<String, ApiError> {
    let wrong = |what: &str| ApiError::bad(format!("target: {text:?} {what}: give one tag like mount=/data"));
    let tag = model::tags::canonical_string(text);
    let Some((key, value)) = tag.split_once('=') else { return Err(wrong("is not of the form key=value")) };
    if text.contains(',') {
        return Err(wrong("has a comma, and is one tag"));
    }
    if key.is_empty() || value.is_empty() {
        return Err(wrong("has no key or no value"));
    }
    rule::check_key(key).map_err(|error| ApiError::bad(format!("target: {error}")))?;
    Ok(tag)
}

/// The target as the portal spells it. A group must be there; a host may report later.
async fn known_target(context: &Context, kind: &str, target: String) -> Result<String, ApiError> {
    match kind {
        exception::HOST => {
            let known = host::by_name(&context.portal, &target).await?;
            Ok(known.map_or(target, |host| host.hostname))
        }
        exception::GROUP => {
            let groups = group::all(&context.portal).await?;
            let known = groups.into_iter().find(|group| group.grp_name.eq_ignore_ascii_case(&target));
            let unknown =
                || ApiError::bad(format!("target: there is no host group {target:?}: make it, or name another"));
            Ok(known.ok_or_else(unknown)?.grp_name)
        }
        _ => Ok(target),
    }
}

/// What the fields change of the strategy. One that changes nothing is refused.
pub(super) fn required_changes(fields: &Fields) -> Result<Exception, ApiError> {
    let right_value = fields.line("right_value", RIGHT_VALUE_MAX)?;
    if !right_value.is_empty() && !rule::is_decimal(&right_value) {
        return Err(ApiError::bad(format!("right_value is {right_value:?}: give a number like 95 or -0.5")));
    }
    let max_step = fields.int("max_step")?;
    if !(0..=MAX_STEP_MAX).contains(&max_step) {
        return Err(ApiError::bad(format!("max_step must be from 1 to {MAX_STEP_MAX}; 0 is the strategy's")));
    }
    let pause = fields.flag("pause")?;
    if pause == 1 && (max_step != 0 || !right_value.is_empty()) {
        return Err(ApiError::bad("pause is 1, so right_value and max_step mean nothing: leave them out"));
    }
    if pause == 0 && max_step == 0 && right_value.is_empty() {
        return Err(ApiError::bad("the exception changes nothing: give right_value, max_step or pause"));
    }
    Ok(Exception { right_value, max_step, pause, note: fields.line("note", NOTE_MAX)?, ..Exception::default() })
}

/// Refuses an exception with which the strategy cannot be judged, or that no series of it can have.
pub(super) fn check_against(config: &Config, strategy: &Strategy, new: &Exception) -> Result<(), ApiError> {
    if !new.right_value.is_empty() {
        rule::check_judged(config, &strategy.func, &strategy.op, &new.right_value)
            .map_err(|error| ApiError::bad(format!("right_value {}: {}", new.right_value, error.text())))?;
    }
    let Some((key, value)) = new.tag() else { return Ok(()) };
    match model::tags::wanted(&strategy.tags).get(key) {
        None => Ok(()),
        Some(own) if own == value => Err(ApiError::bad(format!(
            "target: each series of the strategy has {key}={value}: change the strategy itself"
        ))),
        Some(own) => {
            Err(ApiError::bad(format!("target: no series of the strategy has {key}={value}, for all have {key}={own}")))
        }
    }
}
