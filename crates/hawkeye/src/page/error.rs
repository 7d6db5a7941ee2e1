//! Errors of the page's routes, as Open-Falcon's API shows errors: a status and `{"error": …}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// Refusal or failure of a request: a status, and a text for the page.
pub struct PageError(StatusCode, String);

impl PageError {
    /// A refusal with any status.
    pub fn new(status: StatusCode, reason: String) -> PageError {
        PageError(status, reason)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

/// 400: the request is wrong, and the reason names the field and what is wanted.
pub fn bad(reason: impl Into<String>) -> PageError {
    PageError(StatusCode::BAD_REQUEST, reason.into())
}

/// 401: whoever asks has to log in.
pub fn unauthorized(reason: impl Into<String>) -> PageError {
    PageError(StatusCode::UNAUTHORIZED, reason.into())
}

/// 500: a disk or database failed.
pub fn broken(reason: impl std::fmt::Display) -> PageError {
    PageError(StatusCode::INTERNAL_SERVER_ERROR, reason.to_string())
}
