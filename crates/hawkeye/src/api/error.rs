//! Answers: the JSON of a success, and errors with the original's statuses.
//!
//! Compat: `{"error":"…"}` with 400 for bad input and missing permission, 417 where the original says so, 401 for
//! tokens. While the portal is busy, its disk full or its file damaged, the answer is 503 with that reason; what else
//! fails in the server is 500 with no detail; the detail goes to the log.

use super::JSON;
use crate::portal::db::fault::{self, Fault};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use supervisor::causes::line_of;

/// The result of a handler.
pub type Answer = Result<Response, ApiError>;

/// Refusal or failure of a request: a status, and a text for the caller.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    text: String,
}

impl ApiError {
    /// An error with any status; the text is shown to the caller.
    pub fn new(status: StatusCode, text: impl Into<String>) -> ApiError {
        ApiError { status, text: text.into() }
    }

    /// An error with status 400: bad input, and most refusals.
    pub fn bad(text: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, text)
    }

    /// An error with status 401: something is wrong with the token.
    pub fn unauthorized(text: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, text)
    }

    /// An error with status 417, the original's for many refusals.
    pub fn refused(text: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::EXPECTATION_FAILED, text)
    }

    /// The text that the client gets.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The error with another status, for the routes whose status differs.
    pub fn with_status(self, status: StatusCode) -> ApiError {
        ApiError { status, ..self }
    }

    /// An error with `status` and `text` when `error` says that a unique name exists already; else a fault of the
    /// server.
    pub fn duplicate(error: sqlx::Error, status: StatusCode, text: impl Into<String>) -> ApiError {
        if error.as_database_error().is_some_and(|error| error.is_unique_violation()) {
            return ApiError::new(status, text);
        }
        ApiError::from(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.text }).to_string();
        (self.status, [(header::CONTENT_TYPE, JSON)], body).into_response()
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> ApiError {
        ApiError::from(anyhow::Error::new(error).context("portal database"))
    }
}

impl From<anyhow::Error> for ApiError {
    fn from(error: anyhow::Error) -> ApiError {
        if let Some(fault) = fault::among(&error) {
            // The portal has told it once, and `/health` tells it while it lasts.
            tracing::debug!("a request failed and was answered with status 503: {}", line_of(&*error));
            return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason(fault));
        }
        tracing::error!("a request failed and was answered with status 500: {}", line_of(&*error));
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error: see the server's log")
    }
}

fn reason(fault: Fault) -> &'static str {
    match fault {
        Fault::Busy => "the portal is busy, nothing was changed: try again",
        Fault::Disk => "the portal cannot be read or written (is its disk full?): try again when /health is ok",
        Fault::Damage => "the portal is damaged here: restore a backup (the server's log says where)",
    }
}

/// The id of what a request has made, told to the audit beside an answer; None where nothing was to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made(pub Option<i64>);

/// The id of the thing that a request has named, told to the audit beside an answer.
#[derive(Clone, Copy, Debug)]
pub struct Meant(pub i64);

/// An answer about what has the id `id`.
pub fn meant(id: i64, answer: Answer) -> Answer {
    told(Meant(id), answer)
}

/// An answer about what was made under `id`.
pub fn made(id: i64, answer: Answer) -> Answer {
    told(Made(Some(id)), answer)
}

/// An answer to a request that found nothing to change.
pub fn unchanged(answer: Answer) -> Answer {
    told(Made(None), answer)
}

fn told(what: impl Clone + Send + Sync + 'static, answer: Answer) -> Answer {
    let mut answer = answer?;
    answer.extensions_mut().insert(what);
    Ok(answer)
}

/// An answer with status 200 and `value` as its JSON.
pub fn json(value: impl Serialize) -> Answer {
    let body =
        serde_json::to_string(&value).map_err(|error| anyhow::Error::new(error).context("encoding an answer"))?;
    Ok(([(header::CONTENT_TYPE, JSON)], body).into_response())
}

/// An answer with status 200 and `{"message":"…"}`, and what the caller should know beside it as `"warning"`.
pub fn message_with(text: impl Into<String>, warning: Option<String>) -> Answer {
    match warning {
        None => message(text),
        Some(warning) => json(serde_json::json!({ "message": text.into(), "warning": warning })),
    }
}

/// An answer with status 200 and `{"message":"…"}`.
pub fn message(text: impl Into<String>) -> Answer {
    json(serde_json::json!({ "message": text.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_database_are_503_with_their_reason() {
        let check = |error: sqlx::Error, status: StatusCode, text: &str| {
            let answer = ApiError::from(error);
            assert_eq!(answer.status, status);
            assert!(answer.text.contains(text), "{}", answer.text);
        };
        check(sqlx::Error::PoolTimedOut, StatusCode::SERVICE_UNAVAILABLE, "busy, nothing was changed");
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        check(sqlx::Error::Io(full), StatusCode::SERVICE_UNAVAILABLE, "is its disk full?");
        check(sqlx::Error::Decode("no UTF-8".into()), StatusCode::SERVICE_UNAVAILABLE, "restore a backup");
        check(sqlx::Error::RowNotFound, StatusCode::INTERNAL_SERVER_ERROR, "see the server's log");
    }
}
