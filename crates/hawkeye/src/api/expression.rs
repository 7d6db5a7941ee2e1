//! Expressions: conditions on all series of a metric with given tags, each with its own action.
//!
//! Compat: priority 0 counts as missing, as in the original. An expression that cannot be parsed or judged is refused.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, made, message_with};
use super::paging::Paging;
use super::rights;
use super::rule::{self, CheckedAction, Lengths};
use crate::config::Config;
use crate::portal::action;
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
    json(page.rows(expression::all(&context.portal).await?.into_iter())?)
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let expression = expression::by_id(&context.portal, parse_int("eid", &id)?).await?;
    let expression = expression.ok_or_else(|| ApiError::bad("record not found"))?;
    let action = action::by_id(&context.portal, expression.action_id).await?.unwrap_or_default();
    json(object!({ "expression": expression, "action": action }))
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (expression, CheckedAction { action, warning }) = required_expression(&context, &fields).await?;
    let expression = Expression { create_user: caller.name, ..expression };
    let id = expression::create(&context.portal, &expression, &action).await?;
    made(id, message_with("expression created", warning))
}

async fn update(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (expression, CheckedAction { action, warning }) = required_expression(&context, &fields).await?;
    let id = fields.required_int("id")?;
    let old = find_own(&context, &caller, id).await?;
    let expression = Expression { id, action_id: old.action_id, ..expression };
    expression::update(&context.portal, &expression, &action).await?;
    message_with(format!("expression:{id} has been updated"), warning)
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let id = parse_int("eid", &id)?;
    find_own(&context, &caller, id).await?;
    expression::delete(&context.portal, id).await?;
    message_with(format!("expression:{id} has been deleted"), None)
}

/// The expression with this id, if the caller may change it (`rights.rs`).
async fn find_own(context: &Context, caller: &Caller, id: i64) -> Result<Expression, ApiError> {
    let expression = expression::by_id(&context.portal, id).await?;
    let expression = expression.ok_or_else(|| ApiError::refused("find expression got error:record not found"))?;
    let action = action::by_id(&context.portal, expression.action_id).await?.unwrap_or_default();
    if rights::may_change(context, caller, &expression.create_user, &action.uic).await? {
        return Ok(expression);
    }
    Err(caller.denied(ApiError::bad("You don't have permission!")))
}

/// The expression and action of a form, without ids and creator.
async fn required_expression(context: &Context, fields: &Fields) -> Result<(Expression, CheckedAction), ApiError> {
    // Fields are read in the order of the form, so that the first wrong field is the one named.
    fields.required_line("expression", expression::EXPRESSION_MAX)?;
    fields.required_int("priority")?;
    let action = required_action(context, fields).await?;
    Ok((required_rule(&context.config, fields)?, action))
}

/// The judged part of an expression: without id, creator and action.
pub(super) fn required_rule(config: &Config, fields: &Fields) -> Result<Expression, ApiError> {
    let text = fields.required_line("expression", expression::EXPRESSION_MAX)?;
    let condition = rule::required_condition(config, fields, &LENGTHS)?;
    let patterns = config.judge.endpoint_patterns;
    check_text(&text, patterns).map_err(|error| ApiError::bad(format!("expression: {error}")))?;
    Ok(Expression {
        expression: text,
        func: condition.func,
        op: condition.op,
        right_value: condition.right_value,
        max_step: condition.max_step,
        priority: condition.priority,
        note: fields.line("note", expression::NOTE_MAX)?,
        pause: fields.flag("pause")?,
        ..Expression::default()
    })
}

/// Refuses a text that finds no series, although it can be read.
fn check_text(text: &str, endpoint_patterns: bool) -> Result<(), String> {
    let (metric, tags) = expression::parse_text(text)?;
    if let Some(key) = expression::repeated_key(text) {
        return Err(format!("{key}= is there twice, and a series has it once: take one out"));
    }
    if judge::pattern::is_pattern(&metric) {
        return Err(format!("metric={metric} has a `*` or `?`, and a metric is no pattern: name one metric"));
    }
    check_name("metric", &metric)?;
    for (key, _) in &tags {
        if let Some(name) =
            ["metric", "endpoint"].into_iter().find(|name| key != *name && key.eq_ignore_ascii_case(name))
        {
            return Err(format!("{key}= would be a tag of that name: write {name}="));
        }
    }
    let tail = expression::tail(text);
    if !tail.is_empty() {
        return Err(format!("{tail:?} behind `)` is not read: take it out"));
    }
    tags.iter().try_for_each(|(key, _)| rule::check_key(key))?;
    match tags.get("endpoint") {
        Some("") => Err("endpoint= has no name behind it".to_string()),
        Some(endpoint) if !endpoint_patterns && judge::pattern::is_pattern(endpoint) => Err(format!(
            "endpoint={endpoint} has a `*` or `?`, which is a pattern with judge.endpoint_patterns = true only: name one \
             endpoint, or none"
        )),
        Some(endpoint) => check_name("endpoint", endpoint),
        None => Ok(()),
    }
}

/// Refuses what was written as a list, an alternative or a quoted text: it is compared as one name.
pub(super) fn check_name(key: &str, name: &str) -> Result<(), String> {
    match name.chars().find(|c| ";|'\"`；“”‘’".contains(*c)) {
        Some(c) => Err(format!("{key}={name} has {c:?} in it: name one {key}, without quotes")),
        None => Ok(()),
    }
}

async fn required_action(context: &Context, fields: &Fields) -> Result<CheckedAction, ApiError> {
    let fields = fields.object("action")?;
    let teams = fields.lines("uic", action::UIC_MAX)?;
    let teams = teams.ok_or_else(|| ApiError::bad("action.uic is required: a list of team names"))?;
    if let Some(team) = teams.iter().find(|team| team.contains(',')) {
        return Err(ApiError::bad(format!("action.uic: {team:?} contains a comma; list each team by itself")));
    }
    let teams: Vec<&str> = teams.iter().map(String::as_str).collect();
    rule::checked_action(context, &fields, "action.", &teams).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_find_nothing() {
        let check = |text: &str, patterns: bool, error: &str| match (check_text(text, patterns), error) {
            (Ok(()), "") => {}
            (Err(got), error) if !error.is_empty() => assert!(got.contains(error), "{text:?}: {got}"),
            (got, error) => panic!("{text:?}: {got:?}, want {error:?}"),
        };
        check("each(metric=m, jmxport=9995)", true, "");
        check("each(metric=m endpoint=web-01)", false, "");
        check("each(metric=m endpoint=web-*)", true, "");
        check("each(metric=m endpoint=web-*)", false, "endpoint=web-* has a `*` or `?`");
        check("each(metric=m path=/var/*.log)", false, "");
        check("each(metric=m endpoint=)", true, "endpoint= has no name");
        check("each(metric=m endpoint=a,b)", true, "\"endpoint=a,b\" is not of the form key=value");
        check("each(metric=m mount!=/data)", true, "\"mount!\" is no name of a tag");
        check("each(metric=m f=g(x))", true, "\")\" behind `)` is not read");
        check("each(metric=m a=b) > 5", true, "\"> 5\" behind `)` is not read");
        check("each(metric=m mount=/my disk)", true, "\"disk\" is not of the form key=value");
        check("each(metric=m* a=b)", true, "metric=m* has a `*` or `?`");
        check("each(metric=m|n a=b)", true, "metric=m|n has '|' in it: name one metric");
        check("each(metric=\"m\" a=b)", true, "name one metric, without quotes");
        check("each(metric=m endpoint=web-01;web-02)", true, "endpoint=web-01;web-02 has ';' in it: name one endpoint");
        check("each(metric=m endpoint=a|b)", false, "endpoint=a|b has '|' in it");
        check("each(metric=m endpoint='a')", true, "name one endpoint, without quotes");
        check("each(metric=m endpoint=\"web-*\")", true, "name one endpoint, without quotes");
        check("each(metric=m path=a|b;'c')", true, "");
        check("each(metric=m Endpoint=a)", true, "Endpoint= would be a tag of that name: write endpoint=");
        check("each(METRIC=n metric=m)", true, "METRIC= would be a tag of that name: write metric=");
        check("each(metric=m endpoint=h endpoint=k)", true, "endpoint= is there twice");
        check("each(metric=m,metric=n,a=b)", true, "metric= is there twice");
        check("each(metric=m a=1 b=2 a=1)", true, "a= is there twice");
        check("each（metric=m a=b）", true, "no opening parenthesis");
        check("each(metric=m，a=b)", true, "a metric and at least one tag are needed");
    }
}
