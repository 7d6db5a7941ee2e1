//! Refusal: an error of the page's routes, as Open-Falcon's API shows errors: a status and `{"error": …}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

pub struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

/// 400: the request is wrong, and the reason names the field and what is wanted.
pub fn bad(reason: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, reason.into())
}

/// 401: whoever asks has to log in.
pub fn unauthorized(reason: impl Into<String>) -> Refusal {
    Refusal(StatusCode::UNAUTHORIZED, reason.into())
}

/// 500: a disk or database failed.
pub fn broken(reason: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, reason.to_string())
}
