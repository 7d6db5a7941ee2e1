//! Audit: each change over REST leaves a row with who, when, from where, old and new.
//!
//! How: [`record`] stands around all routes. Of a request that would change something (`changes.rs`) it reads the thing
//! before and behind (`snapshot.rs`: with what goes when it goes), and keeps what differs; of one that makes something,
//! what was made, under its id ([`Made`]), or the fields of the request where there is no row. The row is written
//! before the change and completed behind it.
//! Invariants: requests without a valid session or token write nothing, but for a registration that was made; refused
//! ones leave no row either, nor do those that found nothing to change: the deletion of what is not there, or what
//! leaves a thing as it was. Fields that hold secrets are left out, as are secrets within URLs, and what the route does
//! not read. A change that finds no room for its row is refused: the portal cannot be written. What is applied from
//! files completes its row itself, with the change ([`Row`]).
//! Memory: a body is read into the byte budget of unfinished messages and held beside what the handler makes of it.

use super::Context;
use super::auth::{self, Address, Caller};
use super::body::{self, Fields};
use super::changes::{self, Change, Key};
use super::code_secret::{mask_headers, masked};
use super::docs;
use super::error::{Answer, ApiError, Made, Meant, json};
use super::paging::Paging;
use super::snapshot::{Thing, snapshot};
use crate::clock;
use crate::portal::audit::Keep;
use crate::portal::host::Selection;
use crate::portal::{audit, audit_text, user};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::{Map, Value};

/// Routes of the audit.
pub fn routes() -> Router<Context> {
    Router::new().route("/audit", get(list))
}

/// Rows of a page, at most and by default.
const PAGE_MAX: usize = 1000;
const PAGE: usize = 100;
/// Hosts of which a change of maintenance keeps old and new; of more it keeps the request.
const HOSTS_MAX: usize = 200;
/// Bytes of an answer that says what was changed, at most: twice the longest request's.
const ANSWER_MAX: usize = 2 * body::LARGE_BODY_MAX;
/// Name of what is no fields, but a list.
const LIST: &str = "list";
/// Fields of requests that hold secrets.
const SECRETS: [&str; 6] = ["password", "old_password", "new_password", "sig", "token", "secret"];

/// Routes that change what no snapshot has.
const UNSEEN: [&str; 3] = ["PUT /user/cgpasswd", "PUT /admin/change_user_passwd", "PUT /job/{id}/token"];

/// The id of the row of a request, for a handler that completes it with its change.
#[derive(Clone, Copy, Debug)]
pub struct Row(pub i64);

/// A change as the API shows it.
#[derive(Serialize)]
struct Shown {
    id: i64,
    at: i64,
    who: String,
    token: String,
    peer: String,
    action: String,
    subject: String,
    status: i64,
    was: Option<Value>,
    became: Option<Value>,
}

/// Changes, newest first, for administrators: old names may be those of others, and who registered is nobody's matter.
async fn list(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    if !caller.is_admin() {
        return Err(
            caller.denied(ApiError::bad("You don't have permission! Only an administrator sees who changed what."))
        );
    }
    let page = Paging::from_first(&fields)?;
    let text = |name, max| Ok::<_, ApiError>(Some(fields.text(name, max)?).filter(|text| !text.is_empty()));
    let time = |name| Ok::<_, ApiError>(Some(fields.int(name)?).filter(|time| *time != 0));
    let filter = audit::Filter {
        who: text("who", user::NAME_MAX)?,
        subject: text("subject", 128)?,
        action: text("action", 128)?,
        from: time("from")?,
        until: time("until")?,
        oldest_first: page.oldest_first("at")?,
    };
    let changes = audit::list(&context.portal, &filter, page.offset, page.limit.unwrap_or(PAGE).min(PAGE_MAX)).await?;
    let value = |text: String| serde_json::from_str(&text).ok();
    let shown = changes.into_iter().map(|change| {
        let audit::Change { id, at, who, token, peer, action, subject, status, was, became } = change;
        Shown { id, at, who, token, peer, action, subject, status, was: value(was), became: value(became) }
    });
    json(shown.collect::<Vec<_>>())
}

/// Runs a request, and keeps what it changes.
pub async fn record(
    State(context): State<Context>,
    path: MatchedPath,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let Some(change) = changes::find(request.method(), path.as_str()) else { return next.run(request).await };
    match recorded(&context, change, &parameters, request, next).await {
        Ok(response) | Err(Stopped::Answered(response)) => response,
        Err(Stopped::Failed(error)) => error.into_response(),
    }
}

/// Reason why there is no row.
enum Stopped {
    /// The request was answered without one.
    Answered(Response),
    Failed(ApiError),
}

impl From<ApiError> for Stopped {
    fn from(error: ApiError) -> Stopped {
        Stopped::Failed(error)
    }
}

impl From<sqlx::Error> for Stopped {
    fn from(error: sqlx::Error) -> Stopped {
        Stopped::Failed(error.into())
    }
}

async fn recorded(
    context: &Context,
    change: &'static Change,
    parameters: &RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, Stopped> {
    let (mut parts, body) = request.into_parts();
    let peer = Address::of(&parts).text();
    let Ok(caller) = auth::caller(&mut parts, context).await else {
        // The handler says what is wrong, or lets somebody register, of whom nothing is written before that.
        let response = next.run(Request::from_parts(parts, body)).await;
        return Err(Stopped::Answered(registered(context, change, response, peer).await));
    };
    let (fields, mut request, received) = if change.key == Key::Answer {
        (Fields::Json(Map::new()), Request::from_parts(parts, body), None)
    } else {
        let received = body::read(&parts, body).await?;
        let fields = Fields::parse(&parts, &received).unwrap_or_else(|_| Fields::Json(listed(&received)));
        (fields, Request::from_parts(parts, Body::from(received.to_vec())), Some(received))
    };
    let (subject, thing) = subject(change, parameters, &fields, &caller);
    let was = match &thing {
        Some(thing) => snapshot(&context.portal, thing).await?,
        None => None,
    };
    let row = audit::Change {
        id: 0,
        at: clock::now(),
        who: caller.name.clone(),
        token: caller.token.clone().unwrap_or_default(),
        peer,
        action: change.line.to_string(),
        subject: subject.clone(),
        status: 0,
        was: audit_text::difference(was.clone().map(without_secrets), None).0,
        became: String::new(),
    };
    let id = audit::begin(&context.portal, &row, keep(context)).await?;
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(Row(id));
    let response = next.run(request).await;
    drop(received);
    let (response, is_applied) = match change.key {
        Key::Answer => told_by(response).await?,
        _ => (response, false),
    };
    let status = response.status();
    let made = response.extensions().get::<Made>().copied();
    let (subject, thing) = match (made, response.extensions().get::<Meant>()) {
        (Some(Made(Some(made))), _) => (format!("{}:{made}", change.kind.word()), Some(Thing::Id(change.kind, made))),
        (_, Some(Meant(id))) => (format!("{}:{id}", change.kind.word()), thing),
        _ => (subject, thing),
    };
    let is_refused = status.is_client_error() || made == Some(Made(None));
    let completed = if is_refused || (change.key == Key::Answer && !is_applied && status.is_success()) {
        audit::take_back(&context.portal, id).await
    } else if change.key == Key::Answer {
        // The row was completed with the change; where that failed, nobody knows.
        Ok(())
    } else {
        let became = match &thing {
            Some(thing) => snapshot(&context.portal, thing).await,
            None => Ok(Some(shown(change.line, &fields))),
        };
        match became {
            // A thing that was not there before and is not there now, or that is as it was.
            Ok(became) if became == was && !UNSEEN.contains(&change.line) => {
                audit::take_back(&context.portal, id).await
            }
            Ok(became) => {
                let (was, became) = (was.map(without_secrets), became.map(without_secrets));
                let (was, became) = audit_text::difference(was, became);
                audit::end(&context.portal, id, &subject, status.as_u16(), &was, &became).await
            }
            Err(error) => Err(error),
        }
    };
    if let Err(error) = completed {
        // The change is made, and its row says that it began.
        tracing::warn!(%error, action = change.line, subject, "the record of a change is not complete");
    }
    Ok(response)
}

fn keep(context: &Context) -> Keep {
    Keep { seconds: context.config.api.audit_keep, bytes: context.config.api.audit_max.cast_signed() }
}

/// Keeps that somebody registered, if this is what was answered.
async fn registered(context: &Context, change: &Change, response: Response, peer: String) -> Response {
    if change.line != "POST /user/create" || !response.status().is_success() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, body::SMALL_BODY_MAX).await.unwrap_or_default();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let subject = match parts.extensions.get::<Made>() {
        Some(Made(Some(id))) => format!("user:{id}"),
        _ => format!("user:{}", answer["name"].as_str().unwrap_or_default()),
    };
    let row = audit::Change {
        id: 0,
        at: clock::now(),
        who: "(registration)".to_string(),
        token: String::new(),
        peer,
        action: change.line.to_string(),
        subject,
        status: i64::from(parts.status.as_u16()),
        was: String::new(),
        became: audit_text::difference(None, Some(without_secrets(answer))).1,
    };
    if let Err(error) = audit::begin(&context.portal, &row, keep(context)).await {
        tracing::warn!(%error, subject = row.subject, "the record of a registration is not kept");
    }
    Response::from_parts(parts, Body::from(body))
}

/// Whether an answer says that anything was changed.
async fn told_by(response: Response) -> Result<(Response, bool), ApiError> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, ANSWER_MAX).await.map_err(anyhow::Error::new)?;
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok((Response::from_parts(parts, Body::from(body)), told["applied"] == true))
}

/// What a request changes: its name, and where it has rows, which.
fn subject(change: &Change, parameters: &RawPathParams, fields: &Fields, caller: &Caller) -> (String, Option<Thing>) {
    let word = change.kind.word();
    let id = match change.key {
        Key::Path(name) => {
            let text = parameters.iter().find(|(key, _)| *key == name).map(|(_, text)| text);
            text.and_then(|text| text.parse().ok())
        }
        Key::Field(name) => fields.int(name).ok(),
        Key::Caller => caller.user.as_ref().map(|user| user.id),
        Key::Named(name) => {
            let name = fields.text(name, usize::MAX).unwrap_or_default();
            return (format!("{word}:{name}"), None);
        }
        Key::Lists => return hosts(fields),
        Key::Answer => return (format!("{word}:"), None),
    };
    match id {
        Some(id) => (format!("{word}:{id}"), Some(Thing::Id(change.kind, id))),
        None => (format!("{word}:"), None),
    }
}

fn hosts(fields: &Fields) -> (String, Option<Thing>) {
    let names = fields.texts("hosts", usize::MAX).ok().flatten().filter(|names| !names.is_empty());
    let ids = fields.ints("ids").ok().flatten().filter(|ids| !ids.is_empty());
    let (first, count, which) = match (names, ids) {
        (Some(names), _) => (names[0].clone(), names.len(), Selection::Names(names)),
        (None, Some(ids)) => (ids[0].to_string(), ids.len(), Selection::Ids(ids)),
        (None, None) => return ("host:".to_string(), None),
    };
    let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
    (format!("host:{first}{more}"), (count <= HOSTS_MAX).then_some(Thing::Hosts(which)))
}

/// A body that is a list; one that is nothing known is refused by its handler.
fn listed(body: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice(body) {
        Ok(list @ Value::Array(_)) => Map::from_iter([(LIST.to_string(), list)]),
        _ => Map::new(),
    }
}

/// The fields of a request that the route reads, without secrets; a body that is a list is shown as it is.
fn shown(line: &str, fields: &Fields) -> Value {
    let map: Map<String, Value> = match fields {
        Fields::Json(map) => map.clone(),
        Fields::Form(pairs) => pairs.iter().map(|(key, text)| (key.clone(), Value::from(text.as_str()))).collect(),
    };
    let is_known = |name: &String| name == LIST || docs::reads(line, name);
    without_secrets(Value::Object(map.into_iter().filter(|(name, _)| is_known(name)).collect()))
}

/// Takes secret fields out, and secrets out of URLs and headers, at every depth.
pub(super) fn without_secrets(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let is_secret = |key: &str| SECRETS.iter().any(|secret| key.eq_ignore_ascii_case(secret));
            let kept = map.into_iter().filter(|(key, _)| !is_secret(key));
            let shown = |(key, value)| match value {
                Value::Object(mut headers) if key == "headers" => {
                    mask_headers(&mut headers);
                    (key, Value::Object(headers))
                }
                value => (key, without_secrets(value)),
            };
            Value::Object(kept.map(shown).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_secrets).collect()),
        Value::String(text) if text.contains("://") => Value::String(masked(&text)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as object;

    #[test]
    fn secrets_are_left_out_at_every_depth() {
        let fields = object!({ "name": "a", "Password": "p", "action": { "url": "http://u:p@h/x", "token": 1 } });
        let kept = object!({ "name": "a", "action": { "url": "http://u:***@h/x" } });
        assert_eq!(without_secrets(fields), kept);
        let headers =
            object!({ "definition": { "headers": { "Authorization": "Bearer x", "token": "x", "Accept": "a" } } });
        let kept = object!({ "definition": { "headers": { "Authorization": "***", "token": "***", "Accept": "a" } } });
        assert_eq!(without_secrets(headers), kept);
        let url = object!({ "url": "http://h/cb?token=SECRET&a=1" });
        assert_eq!(without_secrets(url), object!({ "url": "http://h/cb?token=***&a=1" }));
    }
}
