//! Envelope: what Open-Falcon's modules put around an answer over HTTP, for those of their routes that scripts ask.
//!
//! Compat: `{"msg":"success","data":…}`; what changes a module is for loopback, and others read `no privilege`.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::fmt::Display;
use std::net::SocketAddr;

/// Answer to somebody who may not have a module read its configuration anew.
pub const NO_PRIVILEGE: &str = "no privilege";

/// The envelope around `data`, which is JSON.
pub fn success(data: impl Display) -> Response {
    let body = format!("{{\"msg\":\"success\",\"data\":{data}}}");
    ([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body).into_response()
}

/// Whether a caller is on this machine.
pub fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
