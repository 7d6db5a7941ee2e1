//! Strategies: the conditions of templates.
//!
//! Compat: any user may change any strategy, as in the original. A strategy that cannot be judged is refused, so no
//! judge ever sees one.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, message};
use super::rule::{self, Lengths};
use crate::portal::strategy::{self, Strategy};
use crate::portal::template;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;

/// Routes of strategies.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/strategy", get(list).post(create).put(update))
        .route("/strategy/{sid}", get(show).delete(remove))
}

const LENGTHS: Lengths =
    Lengths { func: strategy::FUNC_MAX, op: strategy::OP_MAX, right_value: strategy::RIGHT_VALUE_MAX };

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let tid = fields.text("tid", 20)?;
    if tid.is_empty() {
        return Err(ApiError::bad("tid is missing"));
    }
    json(strategy::of_template(&context.portal, parse_int("tid", &tid)?).await?)
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let strategy = strategy::by_id(&context.portal, parse_int("sid", &id)?).await?;
    json(strategy.ok_or_else(|| ApiError::bad("record not found"))?)
}

async fn create(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let strategy = required_strategy(&context, &fields)?;
    let tpl_id = fields.required_int("tpl_id")?;
    let template = template::by_id(&context.portal, tpl_id).await?;
    template.ok_or_else(|| ApiError::bad(format!("tpl_id: there is no template {tpl_id}")))?;
    let mut strategy = Strategy { tpl_id, ..strategy };
    strategy.id = strategy::create(&context.portal, &strategy).await?;
    json(strategy)
}

async fn update(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let strategy = required_strategy(&context, &fields)?;
    let id = fields.required_int("id")?;
    let found = strategy::by_id(&context.portal, id).await?;
    found.ok_or_else(|| ApiError::refused("find strategy got error:record not found"))?;
    strategy::update(&context.portal, &Strategy { id, ..strategy }).await?;
    message(format!("stragtegy:{id} has been updated"))
}

async fn remove(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let id = parse_int("sid", &id)?;
    strategy::delete(&context.portal, id).await?;
    message(format!("strategy:{id} has been deleted"))
}

/// The strategy that the fields describe, without ids.
pub(super) fn required_strategy(context: &Context, fields: &Fields) -> Result<Strategy, ApiError> {
    let metric = fields.required_text("metric", strategy::METRIC_MAX)?;
    let tags = fields.text("tags", strategy::TAGS_MAX)?;
    let condition = rule::required_condition(context, fields, &LENGTHS)?;
    if let Some(piece) = tags.split(',').find(|piece| !piece.contains('=') && !tags.is_empty()) {
        return Err(ApiError::bad(format!("tags: {piece:?} is not of the form key=value (joined by commas)")));
    }
    Ok(Strategy {
        id: 0,
        metric,
        tags,
        max_step: condition.max_step,
        priority: condition.priority,
        func: condition.func,
        op: condition.op,
        right_value: condition.right_value,
        note: fields.text("note", strategy::NOTE_MAX)?,
        run_begin: time_of_day(fields, "run_begin", "00:00")?,
        run_end: time_of_day(fields, "run_end", "24:00")?,
        tpl_id: 0,
    })
}

/// A field that is "HH:MM" or "".
fn time_of_day(fields: &Fields, name: &str, example: &str) -> Result<String, ApiError> {
    let text = fields.text(name, strategy::RUN_MAX)?;
    let is_time = |text: &[u8]| {
        let [a, b, b':', c, d] = text else { return false };
        [a, b, c, d].iter().all(|byte| byte.is_ascii_digit())
    };
    if text.is_empty() || is_time(text.as_bytes()) {
        return Ok(text);
    }
    Err(ApiError::bad(format!("{name}'s formating is not vaild, please refer ex. {example}")))
}
