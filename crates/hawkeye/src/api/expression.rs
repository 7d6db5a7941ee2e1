//! Expressions: conditions on all series of a metric with given tags, each with its own action.
//!
//! Compat: priority 0 counts as missing, as in the original. An expression that cannot be parsed or judged is refused.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, message};
use super::paging::Paging;
use super::rule::{self, Lengths};
use crate::portal::action::{self, Action};
use crate::portal::expression::{self, Expression};
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use serde_json::json as object;

/// Routes of expressions.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/expression", get(list).post(create).put(update))
        .route("/expression/{eid}", get(show).delete(remove))
}

const LENGTHS: Lengths =
    Lengths { func: expression::FUNC_MAX, op: expression::OP_MAX, right_value: expression::RIGHT_VALUE_MAX };

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let page = Paging::of(&fields)?;
    json(page.cut(expression::all(&context.portal).await?.into_iter()))
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let expression = expression::by_id(&context.portal, parse_int("eid", &id)?).await?;
    let expression = expression.ok_or_else(|| ApiError::bad("record not found"))?;
    let action = action::by_id(&context.portal, expression.action_id).await?.unwrap_or_default();
    json(object!({ "expression": expression, "action": action }))
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (expression, action) = required_expression(&context, &fields)?;
    let expression = Expression { create_user: caller.name, ..expression };
    expression::create(&context.portal, &expression, &action).await?;
    message("expression created")
}

async fn update(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (expression, action) = required_expression(&context, &fields)?;
    let id = fields.required_int("id")?;
    let old = find_own(&context, &caller, id).await?;
    let expression = Expression { id, action_id: old.action_id, ..expression };
    expression::update(&context.portal, &expression, &action).await?;
    message(format!("expression:{id} has been updated"))
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let id = parse_int("eid", &id)?;
    find_own(&context, &caller, id).await?;
    expression::delete(&context.portal, id).await?;
    message(format!("expression:{id} has been deleted"))
}

/// The expression with this id, if the caller may change it: its creator and administrators may.
async fn find_own(context: &Context, caller: &Caller, id: i64) -> Result<Expression, ApiError> {
    let expression = expression::by_id(&context.portal, id).await?;
    let expression = expression.ok_or_else(|| ApiError::refused("find expression got error:record not found"))?;
    if caller.owns(&expression.create_user) {
        return Ok(expression);
    }
    Err(ApiError::bad("You don't have permission!"))
}

/// The expression and action of a form, without ids and creator.
fn required_expression(context: &Context, fields: &Fields) -> Result<(Expression, Action), ApiError> {
    // Fields are read in the order of the form, so that the first wrong field is the one named.
    fields.required_text("expression", expression::EXPRESSION_MAX)?;
    fields.required_int("priority")?;
    let action = required_action(fields)?;
    Ok((required_rule(context, fields)?, action))
}

/// The judged part of an expression: without id, creator and action.
pub(super) fn required_rule(context: &Context, fields: &Fields) -> Result<Expression, ApiError> {
    let text = fields.required_text("expression", expression::EXPRESSION_MAX)?;
    let condition = rule::required_condition(context, fields, &LENGTHS)?;
    expression::parse_text(&text).map_err(|error| ApiError::bad(format!("expression: {error}")))?;
    Ok(Expression {
        expression: text,
        func: condition.func,
        op: condition.op,
        right_value: condition.right_value,
        max_step: condition.max_step,
        priority: condition.priority,
        note: fields.text("note", expression::NOTE_MAX)?,
        pause: fields.flag("pause")?,
        ..Expression::default()
    })
}

fn required_action(fields: &Fields) -> Result<Action, ApiError> {
    let fields = fields.object("action")?;
    let teams = fields.texts("uic", action::UIC_MAX)?;
    let teams = teams.ok_or_else(|| ApiError::bad("action.uic is required: a list of team names"))?;
    if let Some(team) = teams.iter().find(|team| team.contains(',')) {
        return Err(ApiError::bad(format!("action.uic: {team:?} contains a comma; list each team by itself")));
    }
    let uic = teams.join(",");
    super::body::check_length("action.uic", &uic, action::UIC_MAX)?;
    rule::action_of(&fields, uic)
}
