//! Callers: a handler that takes a [`Caller`] answers 401 to everybody without a valid `Apitoken` header.
//!
//! How: `portal/caller.rs` reads the header and looks the session up. The first page has a rule of its own, the setting
//! `api.viewer` (`page/viewer.rs`).

use super::Context;
use super::error::ApiError;
use crate::clock;
pub use crate::portal::caller::Caller;
use crate::portal::caller::{Token, TokenError};
use crate::portal::user::User;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

impl Caller {
    /// The user behind the token; the server token may come with a name that no user has.
    pub fn user(&self) -> Result<&User, ApiError> {
        self.user.as_ref().ok_or_else(|| ApiError::bad("record not found"))
    }
}

impl FromRequestParts<Context> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Caller, ApiError> {
        let token = read_token(&parts.headers)?;
        Ok(Caller::find(&context.portal, &context.config.api.server_token, token, clock::now()).await?)
    }
}

/// The name and secret in the `Apitoken` header.
pub fn read_token(headers: &HeaderMap) -> Result<Token, TokenError> {
    Token::parse(headers.get("apitoken").map(|value| value.as_bytes()))
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> ApiError {
        match error {
            TokenError::Database(error) => ApiError::from(error),
            error => ApiError::unauthorized(error.to_string()),
        }
    }
}
