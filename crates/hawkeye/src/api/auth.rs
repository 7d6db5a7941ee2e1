//! Callers: a handler that takes a [`Caller`] answers 401 to everybody without a valid session or token.
//!
//! How: `portal/caller.rs` reads the headers and looks the caller up, once a request. A token whose scopes do not cover
//! the route (`changes.rs`) is answered 403. The first page has a rule of its own, the setting `api.viewer`
//! (`page/viewer.rs`).

use super::Context;
use super::attempts::address;
use super::changes;
use super::error::ApiError;
use crate::clock;
pub use crate::portal::caller::Caller;
use crate::portal::caller::{CallerError, Credentials};
use crate::portal::user::User;
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

impl Caller {
    /// The user behind the token; the server token may come with a name that no user has.
    pub fn user(&self) -> Result<&User, ApiError> {
        self.user.as_ref().ok_or_else(|| ApiError::bad("record not found"))
    }

    /// Refuses what the token in use is not for.
    fn check_scopes(&self, method: &Method, path: &str) -> Result<(), ApiError> {
        let Some(token) = &self.token else { return Ok(()) };
        let (allowed, wanted) = match changes::is_read(method, path) {
            true => (self.scopes.read, "read"),
            false => (self.scopes.write, "write"),
        };
        if allowed { Ok(()) } else { Err(self.needs(token, wanted)) }
    }

    /// The answer to what the caller may not do: what the token in use lacks, where its user may do it, else `answer`.
    pub fn denied(&self, answer: ApiError) -> ApiError {
        match (&self.token, &self.user) {
            (Some(token), Some(user)) if user.is_admin() && !self.scopes.admin => self.needs(token, "admin"),
            _ => answer,
        }
    }

    fn needs(&self, token: &str, scope: &str) -> ApiError {
        let text = format!("the token {token:?} has the scopes {:?}: this needs {scope}", self.scopes.to_string());
        ApiError::new(StatusCode::FORBIDDEN, text)
    }
}

impl FromRequestParts<Context> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Caller, ApiError> {
        caller(parts, context).await
    }
}

/// The caller of a request; once looked up, an extension of it. Boxed, as each handler waits for it: see
/// [`crate::portal::db::Running`].
pub fn caller<'r>(
    parts: &'r mut Parts,
    context: &'r Context,
) -> Pin<Box<dyn Future<Output = Result<Caller, ApiError>> + Send + 'r>> {
    Box::pin(look_up(parts, context))
}

async fn look_up(parts: &mut Parts, context: &Context) -> Result<Caller, ApiError> {
    if let Some(caller) = parts.extensions.get::<Caller>() {
        return Ok(caller.clone());
    }
    let (from, credentials) = (Address::of(parts), Credentials::of(&parts.headers)?);
    let server_token = &context.config.api.server_token;
    let caller = Caller::find(&context.portal, server_token, credentials, &from.text(), clock::now()).await?;
    let path = parts.extensions.get::<MatchedPath>().map_or("", |path| path.as_str());
    caller.check_scopes(&parts.method, path)?;
    parts.extensions.insert(caller.clone());
    Ok(caller)
}

/// Address that a request comes from: behind a proxy on this machine the one that the proxy saw.
#[derive(Clone, Copy, Debug)]
pub struct Address(Option<IpAddr>);

impl Address {
    /// The address of a request.
    pub fn of(parts: &Parts) -> Address {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        Address(peer.map(|peer| address(peer, &parts.headers)))
    }

    /// The text of the address; "" where nothing is known of the connection.
    pub fn text(self) -> String {
        self.0.map(|ip| ip.to_string()).unwrap_or_default()
    }
}

impl From<CallerError> for ApiError {
    fn from(error: CallerError) -> ApiError {
        match error {
            CallerError::Database(error) => ApiError::from(error),
            error => ApiError::unauthorized(error.to_string()),
        }
    }
}
