//! Tokens over REST: secrets for scripts and services, each with its scopes and its end.
//!
//! How: whoever is logged in makes tokens for himself, an administrator for everybody of his rank or below. The secret
//! is in the answer that makes it, and nowhere else.
//! Invariants: no token makes another one, so that who finds one cannot keep it alive; nobody gives a scope that he
//! has not. Hawkeye's own: Open-Falcon has none.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, made, message};
use super::paging::{Paging, Search};
use crate::clock;
use crate::portal::token::{self, NewToken, Scopes, TOKENS_PER_USER_MAX, Token};
use crate::portal::user::{self, User};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use serde::Serialize;
use std::collections::HashMap;

/// Routes of tokens.
pub fn routes() -> Router<Context> {
    Router::new().route("/token", get(list).post(create)).route("/token/{id}", delete(remove))
}

/// The longest life of a token, in seconds: ten years. One that shall not end has no end.
const LIFE_MAX_S: i64 = 3650 * 86_400;

/// A token in the list.
#[derive(Default, Serialize)]
struct Listed {
    #[serde(flatten)]
    token: Token,
    user: String,
    expired: bool,
}

/// A token that was made.
#[derive(Serialize)]
struct Made {
    id: i64,
    /// The secret, shown this once.
    token: String,
    name: String,
    user: String,
    scopes: String,
    expires_at: i64,
}

/// The caller's tokens; an administrator sees all.
async fn list(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let uid = if caller.is_admin() { None } else { Some(caller.user()?.id) };
    let users = user::all(&context.portal).await?.into_iter().map(|user| (user.id, user.name));
    let (names, now): (HashMap<i64, String>, i64) = (users.collect(), clock::now());
    let tokens = token::list(&context.portal, uid).await?.into_iter().filter(|token| search.finds(&token.name));
    let listed = tokens.map(|token| Listed {
        user: names.get(&token.uid).cloned().unwrap_or_default(),
        expired: token.expires_at != 0 && token.expires_at <= now,
        token,
    });
    json(page.rows(listed)?)
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    if caller.token.is_some() {
        return Err(forbidden("a token makes no tokens: log in"));
    }
    let name = fields.required_line("name", token::NAME_MAX)?;
    let texts = match fields.texts("scopes", 20) {
        Ok(texts) => texts.unwrap_or_default(),
        Err(_) => vec![fields.text("scopes", 100)?],
    };
    let scopes = Scopes::parse(&texts.join(","))
        .map_err(|word| ApiError::bad(format!("scopes has {word:?}: give some of {}", Scopes::NAMES.join(", "))))?;
    if scopes == Scopes::NONE {
        return Err(ApiError::bad(format!("scopes is required: give some of {}", Scopes::NAMES.join(", "))));
    }
    let user = holder(&context, &caller, &fields.text("user", user::NAME_MAX)?).await?;
    if scopes.admin && !user.is_admin() {
        return Err(ApiError::bad(format!("scopes has \"admin\": {} is no administrator", user.name)));
    }
    let now = clock::now();
    let expires_at = fields.int("expires_at")?;
    if expires_at != 0 && !(now + 1..=now + LIFE_MAX_S).contains(&expires_at) {
        return Err(ApiError::bad(format!(
            "expires_at is {expires_at}: give Unix seconds between now ({now}) and ten years ahead, or 0 for never"
        )));
    }
    let new = NewToken { name, uid: user.id, scopes, created_by: caller.name, expires_at };
    let Some((id, secret)) = token::create(&context.portal, &new, now).await? else {
        let text = format!("{} has {TOKENS_PER_USER_MAX} tokens: delete those that are not used", user.name);
        return Err(ApiError::refused(text));
    };
    let (name, scopes) = (new.name, scopes.to_string());
    made(id, json(Made { id, token: secret, name, user: user.name, scopes, expires_at }))
}

/// The user whom a new token is for: the caller, or whom an administrator names.
async fn holder(context: &Context, caller: &Caller, name: &str) -> Result<User, ApiError> {
    let own = caller.user()?;
    if name.is_empty() || own.name.eq_ignore_ascii_case(name) {
        return Ok(own.clone());
    }
    if !caller.is_admin() {
        return Err(ApiError::bad("user: only an administrator makes tokens for others"));
    }
    let user = user::by_name(&context.portal, name).await?;
    let user = user.ok_or_else(|| ApiError::bad(format!("user: there is no user {name:?}")))?;
    if user.role > own.role {
        return Err(ApiError::bad(format!("user: {} has more rights than you", user.name)));
    }
    Ok(user)
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let id = parse_int("id", &id)?;
    let not_found = || ApiError::refused("record not found");
    let token = token::by_id(&context.portal, id).await?.ok_or_else(not_found)?;
    if !caller.is_admin() && caller.user()?.id != token.uid {
        return Err(not_found());
    }
    token::delete(&context.portal, id).await?;
    message(format!("token:{id} has been deleted"))
}

fn forbidden(text: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, text)
}
