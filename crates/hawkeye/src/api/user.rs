//! Users: registration, profiles, passwords, and their administration.
//!
//! Compat: `/user/create` works for anybody only with `api.signup`, otherwise for administrators; the name `root` gets
//! no role by itself. `PUT /user/u/:uid` asks for the user himself or an administrator (the original asks for nobody),
//! and an administrator cannot change one above him.

use super::Context;
use super::attempts::Origin;
use super::auth::Caller;
use super::body::{Fields, SmallBodies, parse_int};
use super::error::{Answer, ApiError, json, made, message};
use super::paging::{Paging, Search};
use super::session::{PasswordError, check_password};
use crate::clock;
use crate::config::Config;
use crate::portal::user::{self, Profile, User};
use crate::portal::{password, session};
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Router};
use lettre::message::Mailbox;
use serde_json::json as object;

/// Routes of users.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/user/create", post(create).layer(Extension(SmallBodies)))
        .route("/user/current", get(current))
        .route("/user/u/{uid}", get(by_id).put(update_by_id))
        .route("/user/name/{name}", get(by_name))
        .route("/user/users", get(list))
        .route("/user/update", put(update))
        .route("/user/cgpasswd", put(change_own_password))
        .route("/admin/change_user_role", put(change_role))
        .route("/admin/change_user_passwd", put(change_password))
        .route("/admin/change_user_profile", put(change_profile))
        .route("/admin/delete_user", delete(remove))
}

const NO_PERMISSION: &str = "you don't have permission!";

async fn create(State(context): State<Context>, request: Request) -> Answer {
    let (mut parts, body) = request.into_parts();
    let signup = context.config.api.signup;
    let says_who = parts.headers.contains_key("apitoken") || parts.headers.contains_key(header::AUTHORIZATION);
    let disabled = "sign up is disabled: ask an administrator to create the user";
    let by_admin = says_who
        && match Caller::from_request_parts(&mut parts, &context).await {
            Ok(caller) if caller.is_admin() => true,
            Ok(caller) if !signup => return Err(caller.denied(ApiError::bad(disabled))),
            Ok(_) => false,
            // An old token stops nobody where none is needed.
            Err(_) if signup => false,
            Err(error) => return Err(error),
        };
    if !signup && !by_admin {
        return Err(ApiError::bad(disabled));
    }
    let fields = Fields::from_request(Request::from_parts(parts, body), &()).await?;
    let name = fields.required_line("name", user::NAME_MAX)?;
    let password = required_password(&fields, "password")?;
    let profile = required_profile(&context.config, &fields)?;
    // What somebody made who is gone is the administrators', not of the next one who takes his name.
    let is_heir = !by_admin
        && user::by_name(&context.portal, &name).await?.is_none()
        && user::owns_something(&context.portal, &name).await?;
    if is_heir {
        return Err(ApiError::bad(format!(
            "name: groups, templates or rules belong to a user {name:?} who is gone: take another name, or ask an \
             administrator to create it"
        )));
    }
    let hash = password::hash(&password).await?;
    let id = user::create(&context.portal, &name, &hash, &profile, user::NORMAL, 0).await;
    let id = id.map_err(|error| ApiError::duplicate(error, StatusCode::BAD_REQUEST, "name is already existing"))?;
    let sig = session::create(&context.portal, id, clock::now()).await?;
    made(id, json(object!({ "name": name, "sig": sig })))
}

async fn current(caller: Caller) -> Answer {
    json(caller.user().map_err(|error| error.with_status(StatusCode::EXPECTATION_FAILED))?)
}

async fn by_id(State(context): State<Context>, _caller: Caller, Path(uid): Path<String>) -> Answer {
    let user = user::by_id(&context.portal, parse_int("uid", &uid)?).await?;
    json(user.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "record not found"))?)
}

async fn by_name(State(context): State<Context>, _caller: Caller, Path(name): Path<String>) -> Answer {
    let user = user::by_name(&context.portal, &name).await?;
    json(user.ok_or_else(|| ApiError::refused("record not found"))?)
}

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let (page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let users = user::all(&context.portal).await?;
    json(page.rows(users.into_iter().filter(|user| search.finds(&user.name)))?)
}

async fn update(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let profile = required_profile(&context.config, &fields)?;
    user::update_profile(&context.portal, caller.user()?.id, &profile).await?;
    message("user info updated")
}

async fn update_by_id(
    State(context): State<Context>,
    caller: Caller,
    Path(uid): Path<String>,
    fields: Fields,
) -> Answer {
    let uid = parse_int("uid", &uid)?;
    let profile = required_profile(&context.config, &fields)?;
    let user = user::by_id(&context.portal, uid).await?.ok_or_else(|| ApiError::bad("user does not exist"))?;
    if caller.user()?.id != user.id {
        check_rank(&caller, &user)?;
    }
    user::update_profile(&context.portal, user.id, &profile).await?;
    message("user info updated")
}

async fn change_own_password(State(context): State<Context>, caller: Caller, origin: Origin, fields: Fields) -> Answer {
    let old = fields.required_text("old_password", usize::MAX)?;
    let new = required_password(&fields, "new_password")?;
    let user = caller.user()?;
    let stored = user::with_password(&context.portal, &user.name).await?;
    let (user, stored) = stored.ok_or_else(|| ApiError::bad("record not found"))?;
    check_password(&context, origin, &user, &old, &stored).await.map_err(|wrong| match wrong {
        PasswordError::Wrong => ApiError::bad("oldPassword is not match current one"),
        PasswordError::Other(error) => error,
    })?;
    let hash = password::hash(&new).await?;
    user::change_password(&context.portal, user.id, &hash, Some(&caller.sig)).await?;
    message("password updated!")
}

async fn change_role(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let user = find_lesser(&context, &caller, &fields).await?;
    let role = match fields.required_text("admin", 10)?.as_str() {
        "yes" => user::ADMIN,
        "no" => user::NORMAL,
        other => return Err(ApiError::bad(format!("admin must be \"yes\" or \"no\", got {other:?}"))),
    };
    if user.role == user::ROOT {
        return Err(caller.denied(ApiError::bad(NO_PERMISSION)));
    }
    let count = user::set_role(&context.portal, user.id, role).await?;
    message(format!("user role update sccuessful, affect row: {count}"))
}

async fn change_password(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let user = find_lesser(&context, &caller, &fields).await?;
    let hash = password::hash(&required_password(&fields, "password")?).await?;
    // An administrator who sets his own stays where he is.
    let keep = (caller.user()?.id == user.id).then_some(caller.sig.as_str());
    user::change_password(&context.portal, user.id, &hash, keep).await?;
    context.attempts.forgive(&user.name);
    message("password updated!")
}

async fn change_profile(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let user = find_lesser(&context, &caller, &fields).await?;
    user::update_profile(&context.portal, user.id, &required_profile(&context.config, &fields)?).await?;
    message("user profile updated")
}

async fn remove(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let refused = || ApiError::refused("you have no such permission or sth goes wrong");
    if !caller.is_admin() {
        return Err(caller.denied(ApiError::bad(NO_PERMISSION)));
    }
    let uid = fields.required_int("user_id")?;
    let user = user::by_id(&context.portal, uid).await?.ok_or_else(refused)?;
    // The last way in must not delete itself.
    if user.role == user::ROOT || user.role > caller.user()?.role {
        return Err(refused());
    }
    let count = user::delete(&context.portal, uid).await?;
    message(format!("user {uid} has been delete, affect row: {count}"))
}

/// The user that an administrator wants to change, who must be of a lesser role.
async fn find_lesser(context: &Context, caller: &Caller, fields: &Fields) -> Result<User, ApiError> {
    if !caller.is_admin() {
        return Err(caller.denied(ApiError::bad(NO_PERMISSION)));
    }
    let user = user::by_id(&context.portal, fields.required_int("user_id")?).await?;
    let user = user.ok_or_else(|| ApiError::refused("record not found"))?;
    check_rank(caller, &user)?;
    Ok(user)
}

fn check_rank(caller: &Caller, user: &User) -> Result<(), ApiError> {
    if caller.is_admin() && caller.user()?.role >= user.role {
        return Ok(());
    }
    Err(caller.denied(ApiError::bad(NO_PERMISSION)))
}

fn required_password(fields: &Fields, name: &str) -> Result<String, ApiError> {
    let password = fields.required_text(name, usize::MAX)?;
    if password.len() > password::PASSWORD_MAX {
        return Err(ApiError::bad(format!("{name} is longer than {} bytes", password::PASSWORD_MAX)));
    }
    Ok(password)
}

pub(super) fn required_profile(config: &Config, fields: &Fields) -> Result<Profile, ApiError> {
    // A gateway of the site knows what it takes for a receiver; by SMTP it must be an address.
    let to_gateway = !config.alarm.mail.is_empty();
    let is_mail = |one: &str| to_gateway || one.parse::<Mailbox>().is_ok();
    let profile = Profile {
        cnname: fields.required_line("cnname", user::CNNAME_MAX)?,
        email: fields.receivers("email", user::EMAIL_MAX, is_mail, "zhang@example.com")?,
        phone: fields.receivers("phone", user::PHONE_MAX, |one| !one.contains(char::is_whitespace), "13800000001")?,
        im: fields.receivers("im", user::IM_MAX, |_| true, "zhang")?,
        qq: fields.line("qq", user::QQ_MAX)?,
    };
    if profile.email.is_empty() {
        return Err(ApiError::bad("email is required"));
    }
    if super::has_dangerous_characters(&profile.cnname) {
        return Err(ApiError::bad("name pattern is invalid"));
    }
    Ok(profile)
}
