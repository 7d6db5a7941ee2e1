//! Templates and their actions.
//!
//! Compat: who may change what is in `rights.rs`; `/action/:id` and `/template_simple` are open, as in the original. A
//! template whose action is gone shows an empty action (the original answers 400). A parent that is not there or would
//! make a cycle is refused. A second action of a template takes the place of the first, and the answer shows that one.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::code_secret;
use super::error::{Answer, ApiError, json, made, message, message_with};
use super::paging::{Paging, Search};
use super::rights;
use super::rule::{self, CheckedAction};
use crate::portal::action::{self, Action};
use crate::portal::group;
use crate::portal::strategy;
use crate::portal::template::{self, CHAIN_MAX, Template};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json as object};
use std::collections::HashMap;

/// Routes of templates and their actions.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/template", get(list).post(create).put(update))
        .route("/template_simple", get(list_simple))
        .route("/template/{tpl_id}", get(show).delete(remove))
        .route("/template/{tpl_id}/hostgroup", get(groups))
        .route("/template/action", post(create_action).put(update_action))
        .route("/action/{act_id}", get(show_action))
}

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let (page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let all = template::all(&context.portal).await?;
    let names: HashMap<i64, &str> = all.iter().map(|template| (template.id, template.tpl_name.as_str())).collect();
    let show = |template: &Template| object!({ "template": template, "parent_name": names.get(&template.parent_id).unwrap_or(&"") });
    let found = all.iter().filter(|template| search.finds(&template.tpl_name)).map(show);
    let templates: Vec<Value> = page.rows_like(&show(&Template::default()), found)?;
    json(object!({ "templates": templates }))
}

/// Lists templates with ids and names; the other keys are there and empty.
async fn list_simple(State(context): State<Context>, fields: Fields) -> Answer {
    let (page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let all = template::all(&context.portal).await?.into_iter().filter(|template| search.finds(&template.tpl_name));
    let in_short =
        |template: Template| Template { id: template.id, tpl_name: template.tpl_name, ..Template::default() };
    json(page.rows(all.map(in_short))?)
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let name = fields.required_line("name", template::NAME_MAX)?;
    let (parent_id, action_id) = (fields.int("parent_id")?, fields.int("action_id")?);
    if action_id != 0 {
        let found = action::by_id(&context.portal, action_id).await?;
        found.ok_or_else(|| ApiError::bad(format!("action_id: there is no action {action_id}; 0 is none")))?;
        // Whoever has a template with an action may change the action.
        rights::check_action(&context, &caller, action_id).await?;
    }
    let create_user = &caller.user()?.name;
    // -1 stands for the template that has no id yet; 0 would be everybody's missing parent.
    check_parent(&context, -1, parent_id).await?;
    let template = template::create(&context.portal, &name, parent_id, action_id, create_user).await;
    let template = template.map_err(|error| taken(error, &name))?;
    made(template.id, json(template))
}

async fn update(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let id = fields.required_int("tpl_id")?;
    let name = fields.required_line("name", template::NAME_MAX)?;
    let parent_id = fields.int("parent_id")?;
    let template = find(&context, id).await?;
    let uic = rights::uic_of(&context, &template).await?;
    if !rights::may_change(&context, &caller, &template.create_user, &uic).await? {
        return Err(caller.denied(ApiError::bad("You don't have permission!")));
    }
    if parent_id != template.parent_id {
        check_parent(&context, id, parent_id).await?;
    }
    template::update(&context.portal, id, &name, parent_id).await.map_err(|error| taken(error, &name))?;
    message("template updated")
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let template = find(&context, parse_int("tpl_id", &id)?).await?;
    let strategies = strategy::of_template(&context.portal, template.id).await?;
    let action = action::by_id(&context.portal, template.action_id).await?.unwrap_or_default();
    let parent = template::by_id(&context.portal, template.parent_id).await?;
    json(object!({
        "template": template,
        "stratges": strategies,
        "action": action,
        "parent_name": parent.map_or(String::new(), |parent| parent.tpl_name),
    }))
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let template = find(&context, parse_int("tpl_id", &id)?).await?;
    rights::check_template(&context, &caller, &template).await?;
    template::delete(&context.portal, template.id).await?;
    message(format!("template {} has been deleted", template.id))
}

async fn groups(State(context): State<Context>, _caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let page = Paging::of(&fields)?;
    let template = find(&context, parse_int("tpl_id", &id)?).await?;
    let groups = page.rows(group::of_template(&context.portal, template.id).await?.into_iter())?;
    json(object!({ "template": template, "hostgroups": groups }))
}

async fn create_action(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let id = fields.required_int("tpl_id")?;
    let CheckedAction { action, warning } = required_action(&context, &fields).await?;
    let template = template::by_id(&context.portal, id).await?;
    let template = template.ok_or_else(|| ApiError::bad(format!("template: {id} ; record not found")))?;
    rights::check_template(&context, &caller, &template).await?;
    let Some(replaced) = action::save_for_template(&context.portal, &action, id).await? else {
        return message_with(format!("action is created and bind to template: {id}"), warning);
    };
    let text = format!("action is bind to template: {id}, in place of the one that it had: {}", replaced.id);
    let mut answer = object!({ "message": text, "replaced": replaced });
    if let Some(warning) = warning {
        answer["warning"] = warning.into();
    }
    json(answer)
}

async fn update_action(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let id = fields.required_int("id")?;
    let CheckedAction { action, warning } = required_action(&context, &fields).await?;
    if action::by_id(&context.portal, id).await?.is_none() {
        return Err(ApiError::bad("record not found"));
    }
    rights::check_action(&context, &caller, id).await?;
    let count = action::update(&context.portal, &Action { id, ..action }).await?;
    message_with(format!("action is updated, row affected: {count}"), warning)
}

async fn required_action(context: &Context, fields: &Fields) -> Result<CheckedAction, ApiError> {
    let uic = fields.line("uic", action::UIC_MAX)?;
    rule::checked_action(context, fields, "", &action::teams(&uic).collect::<Vec<_>>()).await
}

/// Shows an action to anybody, as in the original; secrets in its URL only to who shows a login or a token, as an alarm
/// does.
async fn show_action(
    State(context): State<Context>,
    caller: Result<Caller, ApiError>,
    Path(id): Path<String>,
) -> Answer {
    let id = id.parse().map_err(|_| ApiError::bad("invalid action id"))?;
    let mut action = action::by_id(&context.portal, id).await?.ok_or_else(|| ApiError::bad("record not found"))?;
    if caller.is_err() {
        action.url = code_secret::masked(&action.url);
    }
    json(action)
}

async fn find(context: &Context, id: i64) -> Result<Template, ApiError> {
    template::by_id(&context.portal, id).await?.ok_or_else(|| ApiError::bad("record not found"))
}

async fn check_parent(context: &Context, id: i64, parent_id: i64) -> Result<(), ApiError> {
    let all = template::all(&context.portal).await?;
    if parent_id != 0 && all.iter().all(|template| template.id != parent_id) {
        return Err(ApiError::bad(format!("parent_id: there is no template {parent_id}; 0 is none")));
    }
    let mut parents: HashMap<i64, i64> = all.iter().map(|template| (template.id, template.parent_id)).collect();
    parents.insert(id, parent_id);
    match template::chain(&parents, id) {
        Some(_) => Ok(()),
        None => Err(ApiError::bad(format!(
            "parent_id {parent_id} makes a cycle, or a chain of {CHAIN_MAX} templates: choose one that is not below this template"
        ))),
    }
}

fn taken(error: sqlx::Error, name: &str) -> ApiError {
    ApiError::duplicate(error, StatusCode::BAD_REQUEST, format!("a template named {name:?} exists already"))
}
