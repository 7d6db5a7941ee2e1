//! `GET /openapi.json`: what the API can do, for programs that make clients and forms of it.

use super::Context;
use super::docs;
use super::error::{Answer, json};
use axum::Router;
use axum::routing::get;

/// The route of the document; it says nothing of the site, so anybody may read it.
pub fn routes() -> Router<Context> {
    Router::new().route("/openapi.json", get(show))
}

async fn show() -> Answer {
    json(docs::openapi::document())
}
