//! Teams and their members.
//!
//! Compat: a team that the caller may not change answers as if it did not exist. Users of a list show id, name and
//! cnname only, as in the original.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, made, message, message_with};
use super::paging::{Paging, Search};
use super::rights;
use super::text::named;
use crate::portal::action;
use crate::portal::team::{self, Team};
use crate::portal::user::{self, User};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json as object};
use std::collections::HashMap;

/// Routes of teams.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/team", get(list).post(create).put(update))
        .route("/team/t/{team_id}", get(by_id))
        .route("/team/name/{team_name}", get(by_name))
        .route("/team/user", post(add_users))
        .route("/team/{team_id}", axum::routing::delete(remove))
        .route("/user/u/{uid}/in_teams", get(in_teams))
        .route("/user/u/{uid}/teams", get(teams_of))
}

/// Lists teams: administrators see all, others the teams that they are in or have created.
async fn list(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (mut page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let teams = if caller.is_admin() {
        team::all(&context.portal).await?
    } else {
        (page.offset, page.limit) = (0, None);
        team::of_user_or_creator(&context.portal, caller.user()?.id).await?
    };
    let teams = page.rows(teams.into_iter().filter(|team| search.finds(&team.name)))?;
    let all = user::all(&context.portal).await?;
    let users: HashMap<i64, User> = all.into_iter().map(|user| (user.id, in_short(user))).collect();
    let mut members: HashMap<i64, Vec<&User>> = HashMap::new();
    for (tid, uid) in team::memberships(&context.portal).await? {
        if let Some(user) = users.get(&uid) {
            members.entry(tid).or_default().push(user);
        }
    }
    let shown = teams.iter().map(|team| {
        let creator_name = users.get(&team.creator).map_or("", |creator| &creator.name);
        let users = members.get(&team.id).map_or(&[][..], Vec::as_slice);
        object!({ "team": team, "creator_name": creator_name, "users": users })
    });
    json(shown.collect::<Vec<_>>())
}

async fn by_id(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let team = team::by_id(&context.portal, parse_int("team_id", &id)?).await?;
    json(with_members(&context, team).await?)
}

async fn by_name(State(context): State<Context>, _caller: Caller, Path(name): Path<String>) -> Answer {
    let team = team::by_name(&context.portal, &name).await?;
    json(with_members(&context, team).await?)
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let name = team_name(&fields, "team_name")?;
    if name.is_empty() {
        return Err(ApiError::bad("team_name is required"));
    }
    check_name_is_free(&context, &caller, "team_name", &name).await?;
    let resume = fields.line("resume", team::RESUME_MAX)?;
    let uids = fields.ints("users")?.unwrap_or_default();
    let created = team::create(&context.portal, &name, &resume, caller.user()?.id, &uids).await;
    let (id, count) = created.map_err(|error| taken(error, &name))?;
    let text = format!("team created! Afftect row: 1, Affect refer: {count}");
    made(id, message_with(text, unknown_users(&context, &uids).await?))
}

async fn update(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let id = fields.required_int("team_id")?;
    let (name, resume) = (team_name(&fields, "name")?, fields.line("resume", team::RESUME_MAX)?);
    let uids = fields.ints("users")?.unwrap_or_default();
    let old = find_own(&context, &caller, id).await?;
    let is_renamed = !name.is_empty() && !name.eq_ignore_ascii_case(&old.name);
    if is_renamed {
        check_name_is_free(&context, &caller, "name", &name).await?;
    }
    team::update(&context.portal, id, &name, &resume, &uids).await.map_err(|error| taken(error, &name))?;
    let orphaned = if is_renamed { orphaned(&context, &old.name).await? } else { None };
    let warnings: Vec<String> = orphaned.into_iter().chain(unknown_users(&context, &uids).await?).collect();
    message_with("team updated!", (!warnings.is_empty()).then(|| warnings.join("; ")))
}

async fn add_users(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let id = fields.required_int("team_id")?;
    let names = fields.lines("users", user::NAME_MAX)?.ok_or_else(|| ApiError::bad("users is required"))?;
    find_own(&context, &caller, id).await?;
    let (mut uids, mut unknown) = (Vec::new(), Vec::new());
    for name in &names {
        match user::by_name(&context.portal, name).await? {
            Some(user) => uids.push(user.id),
            None => unknown.push(name.clone()),
        }
    }
    if uids.is_empty() {
        return Err(ApiError::bad("empty users"));
    }
    team::add_members(&context.portal, id, &uids).await?;
    let warning = (!unknown.is_empty()).then(|| format!("users: there is no user named {}", named(&unknown)));
    message_with("add successful", warning)
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let id = parse_int("team_id", &id)?;
    let old = team::by_id(&context.portal, id).await?;
    if !caller.is_admin() {
        let uid = caller.user()?.id;
        let is_creator = old.as_ref().is_some_and(|team| team.creator == uid);
        if !is_creator {
            return Err(ApiError::refused("record not found"));
        }
    }
    let (teams, members) = team::delete(&context.portal, id).await?;
    let warning = match old {
        Some(old) => orphaned(&context, &old.name).await?,
        None => None,
    };
    message_with(format!("team {id} is deleted. Affect row: {teams} / refer delete: {members}"), warning)
}

async fn in_teams(State(context): State<Context>, _caller: Caller, Path(uid): Path<String>, fields: Fields) -> Answer {
    let uid = parse_int("uid", &uid)?;
    // 65,000 characters hold a thousand names of full length.
    let names = fields.text("team_names", 65_000)?;
    if names.is_empty() {
        return Err(ApiError::bad("system type error. please ask admin for help"));
    }
    let teams = team::of_user(&context.portal, uid).await?;
    let is_in = names.split(',').any(|name| teams.iter().any(|team| team.name.eq_ignore_ascii_case(name)));
    message(is_in.to_string())
}

async fn teams_of(State(context): State<Context>, _caller: Caller, Path(uid): Path<String>, fields: Fields) -> Answer {
    let page = Paging::of(&fields)?;
    let teams = page.rows(team::of_user(&context.portal, parse_int("uid", &uid)?).await?.into_iter())?;
    json(object!({ "teams": teams }))
}

async fn with_members(context: &Context, team: Option<Team>) -> Result<Value, ApiError> {
    let team = team.ok_or_else(|| ApiError::bad("record not found"))?;
    let users = team::members(&context.portal, team.id).await?;
    Ok(object!({
        "id": team.id,
        "name": team.name,
        "resume": team.resume,
        "creator": team.creator,
        "users": users,
        "creator_name": "",
    }))
}

/// The team with this id, if the caller may change it: administrators, its creator and its members may.
async fn find_own(context: &Context, caller: &Caller, id: i64) -> Result<Team, ApiError> {
    let not_found = || ApiError::bad("record not found");
    let team = team::by_id(&context.portal, id).await?.ok_or_else(not_found)?;
    if caller.is_admin() {
        return Ok(team);
    }
    let uid = caller.user()?.id;
    let may = team.creator == uid || team::is_member(&context.portal, id, uid).await?;
    if may { Ok(team) } else { Err(not_found()) }
}

/// A warning about members that a team did not get, for there are no such users.
async fn unknown_users(context: &Context, uids: &[i64]) -> Result<Option<String>, ApiError> {
    let mut unknown = Vec::new();
    for uid in uids {
        if user::by_id(&context.portal, *uid).await?.is_none() {
            unknown.push(uid.to_string());
        }
    }
    Ok((!unknown.is_empty()).then(|| format!("users: there is no user of the id {}", named(&unknown))))
}

fn in_short(user: User) -> User {
    let (email, phone, im, qq) = (String::new(), String::new(), String::new(), String::new());
    User { email, phone, im, qq, role: 0, ..user }
}

/// A team's name without a comma, since actions join team names by commas.
pub(super) fn team_name(fields: &Fields, field: &str) -> Result<String, ApiError> {
    let name = fields.line(field, team::NAME_MAX)?;
    if name.contains(',') {
        return Err(ApiError::bad(format!("{field} must not contain a comma: actions join team names by commas")));
    }
    Ok(name)
}

/// Refuses a name by which somebody would get the alarms, and the rights, of a team that is gone.
async fn check_name_is_free(context: &Context, caller: &Caller, field: &str, name: &str) -> Result<(), ApiError> {
    let may = rights::may_all(context, caller);
    if may || team::by_name(&context.portal, name).await?.is_some() || !action::is_told(&context.portal, name).await? {
        return Ok(());
    }
    Err(ApiError::bad(format!("{field}: actions tell a team {name:?} that is gone: ask an administrator to make it")))
}

/// What to know when a team is not called so any more.
async fn orphaned(context: &Context, name: &str) -> Result<Option<String>, ApiError> {
    let is_told = action::is_told(&context.portal, name).await?;
    Ok(is_told
        .then(|| format!("actions still tell the team {name:?}, so these alarms reach nobody: name another in them")))
}

fn taken(error: sqlx::Error, name: &str) -> ApiError {
    ApiError::duplicate(error, StatusCode::BAD_REQUEST, format!("a team named {name:?} exists already"))
}
