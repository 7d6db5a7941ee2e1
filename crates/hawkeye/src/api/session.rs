//! Sessions over REST: logging in and out.
//!
//! Compat: login takes JSON, a form or the query; texts and statuses are the original's. Attempts at one name are
//! limited by address (429), and so are passwords that are checked at once (503); each login has its own session, and
//! logging out ends that session only.

use super::Context;
use super::attempts::{Origin, Refused};
use super::auth::Caller;
use super::body::{Fields, SmallBodies};
use super::error::{Answer, ApiError, json, meant, message};
use crate::clock;
use crate::portal;
use crate::portal::caller::Credentials;
use crate::portal::password::{self, Verdict};
use crate::portal::session;
use crate::portal::user::{self, User};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Serialize;
use std::time::Instant;

/// Routes of sessions.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/user/login", post(login).layer(Extension(SmallBodies)))
        .route("/user/logout", get(logout))
        .route("/user/auth_session", get(auth_session))
        .route("/admin/login", post(login_as))
}

#[derive(Serialize)]
struct LoginAnswer {
    sig: String,
    name: String,
    admin: bool,
}

async fn login(State(context): State<Context>, origin: Origin, fields: Fields) -> Answer {
    let (name, password) = (fields.text("name", usize::MAX)?, fields.text("password", usize::MAX)?);
    if name.is_empty() || password.is_empty() {
        return Err(ApiError::bad("name or password is blank"));
    }
    let Some((user, stored)) = user::with_password(&context.portal, &name).await? else {
        return Err(ApiError::bad("no such user"));
    };
    check_password(&context, origin, &user, &password, &stored).await.map_err(|wrong| match wrong {
        PasswordError::Wrong => ApiError::bad("password error"),
        PasswordError::Other(error) => error,
    })?;
    if user.role == user::BLOCKED {
        return Err(ApiError::bad("this user is blocked: ask an administrator"));
    }
    logged_in(&context, user).await
}

/// Reasons why a password does not let its user pass.
pub enum PasswordError {
    Wrong,
    Other(ApiError),
}

/// Checks a password within the attempts at this user that `origin` has left, and renews an old hash.
pub async fn check_password(
    context: &Context,
    origin: Origin,
    user: &User,
    password: &str,
    stored: &str,
) -> Result<(), PasswordError> {
    let other = |error: anyhow::Error| PasswordError::Other(ApiError::from(error));
    let attempt = context.attempts.take(origin, &user.name, Instant::now()).await.map_err(refused)?;
    match password::verify(password, stored, &context.config.api.salt).await.map_err(other)? {
        Verdict::Wrong => return Err(PasswordError::Wrong),
        Verdict::Right => {}
        // A password that bcrypt cannot take whole stays as it is, and keeps working.
        Verdict::RightAndOld if password.len() > password::PASSWORD_MAX => {}
        Verdict::RightAndOld => {
            let hash = password::hash(password).await.map_err(other)?;
            let updated = user::set_password(&context.portal, user.id, &hash).await;
            updated.map_err(|error| PasswordError::Other(ApiError::from(error)))?;
        }
    }
    if let Some(addresses) = attempt.succeeded() {
        // The right password counts, whether this is kept or not.
        if let Err(error) = portal::origin::save(&context.portal, user.id, &addresses).await {
            tracing::warn!(user = user.name, %error, "where a user has logged in from cannot be kept over a restart");
        }
    }
    Ok(())
}

fn refused(why: Refused) -> PasswordError {
    PasswordError::Other(match why {
        Refused::Wrong(seconds) => {
            let text = format!("too many wrong passwords for this name from your address: try again in {seconds} s");
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, text)
        }
        Refused::Busy => {
            let text = "busy: many passwords are being checked, and this one was not: try again";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    })
}

async fn logout(State(context): State<Context>, headers: HeaderMap) -> Answer {
    let credentials =
        Credentials::of(&headers).map_err(|error| ApiError::from(error).with_status(StatusCode::BAD_REQUEST))?;
    if session::delete(&context.portal, &credentials.name, &credentials.sig).await? == 0 {
        return Err(ApiError::bad("not found this kind of session in database."));
    }
    message("logout successful")
}

async fn auth_session(_caller: Caller) -> Answer {
    message("session is valid!")
}

/// Gives an administrator a session of a lesser user; LDAP front ends log their users in with this route.
async fn login_as(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let denied = || ApiError::bad("API_USER not admin, no permissions can do this");
    if caller.token.is_some() {
        // A session would outlive the token, and have more than its scopes.
        return Err(ApiError::new(StatusCode::FORBIDDEN, "a token gives no sessions: log in"));
    }
    if !caller.is_admin() {
        return Err(denied());
    }
    let name = fields.text("name", usize::MAX)?;
    if name.is_empty() {
        return Err(ApiError::bad("name is blank"));
    }
    let user = user::by_name(&context.portal, &name).await?.ok_or_else(|| ApiError::bad("no such user"))?;
    if user.role >= caller.user()?.role || user.role == user::BLOCKED {
        return Err(denied());
    }
    meant(user.id, logged_in(&context, user).await)
}

async fn logged_in(context: &Context, user: User) -> Answer {
    let sig = session::create(&context.portal, user.id, clock::now()).await?;
    json(LoginAnswer { sig, admin: user.is_admin(), name: user.name })
}
