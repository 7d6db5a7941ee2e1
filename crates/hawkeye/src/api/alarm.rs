//! Alarms: cases, their events, and the notes that people write about them.
//!
//! Compat: docs/open-falcon/control-plane.md §4, "Alarms": GET reads the query, POST a form or JSON; lists are newest
//! first; `step` of a case is its `max_step`; a `metrics` expression that does not compile finds nothing. `limit` alone
//! means page 1 here.
//! Memory: an answer holds at most [`CASES_MAX`] cases. A `metrics` search looks at [`SCANNED_MAX`] cases at most.

use super::Context;
use super::auth::Caller;
use super::body::Fields;
use super::error::{Answer, ApiError, json};
use super::paging::{Paging, Search};
use crate::clock;
use crate::clock::rfc3339;
use crate::engine::why;
use crate::portal::Portal;
use crate::portal::alarm::{
    self, CASE_ORDERS, COMMENT, Case, CaseFilter, CaseOrder, EventRow, NewNote, Note, OccurrenceFilter,
    PROCESS_STATUSES,
};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::{Value, json as object};

/// Routes of alarms.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/alarm/eventcases", get(cases).post(cases))
        .route("/alarm/events", get(events).post(events))
        .route("/alarm/event_note", get(notes).post(add_note))
}

/// The original's limits for a list without pages and for one page.
const CASES_MAX: usize = 2000;
const PAGE_MAX: usize = 50;
/// Cases are never deleted; a search by a rare expression must still end.
const SCANNED_MAX: usize = 200_000;
/// Names in one request. A statement has up to 16,384 values for them, and of SQLite's 32,766 room for others.
const ENDPOINTS_MAX: usize = 10_000;
/// The columns' lengths, in characters.
const EVENT_ID_MAX: usize = 50;
const NOTE_MAX: usize = 300;
const CASE_ID_MAX: usize = 20;

async fn cases(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let filter = case_filter(&fields)?;
    let (offset, limit) = window(&fields, CASES_MAX)?;
    let search = Search::new(&fields.text("metrics", 1000)?);
    let found = match search {
        Search::Nothing => Vec::new(),
        Search::Everything => alarm::cases(&context.portal, &filter, offset, limit).await?,
        Search::Regex(_) => search_cases(&context.portal, &filter, &search, offset, limit).await?,
    };
    json(found.into_iter().map(case_json).collect::<Vec<_>>())
}

fn case_filter(fields: &Fields) -> Result<CaseFilter, ApiError> {
    let nonzero = |name| fields.int(name).map(|value| Some(value).filter(|value| *value != 0));
    let list = |name| {
        let text = fields.text(name, 200)?;
        Ok::<_, ApiError>(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_string).collect())
    };
    let filter = CaseFilter {
        id: fields.text("event_id", EVENT_ID_MAX)?,
        start: nonzero("startTime")?,
        end: nonzero("endTime")?,
        // 0 is a priority; an absent or negative value means any.
        priority: if fields.has("priority") { Some(fields.int("priority")?).filter(|value| *value >= 0) } else { None },
        status: list("status")?,
        process_status: list("process_status")?,
        endpoints: fields.texts("endpoints", 255)?.unwrap_or_default(),
        strategy_id: nonzero("strategy_id")?,
        template_id: nonzero("template_id")?,
        order: case_order(&fields.text("sort", 20)?)?,
    };
    if filter.endpoints.len() > ENDPOINTS_MAX {
        return Err(ApiError::bad(format!("endpoints holds more than {ENDPOINTS_MAX} names: ask in parts")));
    }
    let selects = filter.start.or(filter.end).or(filter.strategy_id).or(filter.template_id).is_some()
        || !filter.id.is_empty()
        || !filter.endpoints.is_empty();
    if !selects {
        return Err(ApiError::bad(
            "startTime, endTime, event_id, endpoints, strategy_id or template_id, You have to at least pick one on the request.",
        ));
    }
    Ok(filter)
}

fn case_order(text: &str) -> Result<CaseOrder, ApiError> {
    if text.is_empty() {
        return Ok(CaseOrder::default());
    }
    let found = CASE_ORDERS.iter().find(|(name, _)| *name == text);
    let names = CASE_ORDERS.map(|(name, _)| name).join(", ");
    found.map(|(_, order)| *order).ok_or_else(|| ApiError::bad(format!("sort is {text:?}: give one of {names}")))
}

async fn search_cases(
    portal: &Portal,
    filter: &CaseFilter,
    search: &Search,
    offset: usize,
    limit: usize,
) -> sqlx::Result<Vec<Case>> {
    let mut found = Vec::new();
    let mut skipped = 0;
    for start in (0..SCANNED_MAX).step_by(CASES_MAX) {
        let part = alarm::cases(portal, filter, start, CASES_MAX).await?;
        let ended = part.len() < CASES_MAX;
        for case in part.into_iter().filter(|case| search.finds(&case.metric)) {
            if skipped < offset {
                skipped += 1;
            } else if found.len() < limit {
                found.push(case);
            }
        }
        if ended || found.len() == limit {
            break;
        }
    }
    Ok(found)
}

async fn events(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let filter = occurrence_filter(&fields)?;
    fields.required_text("event_id", EVENT_ID_MAX)?;
    let status = if fields.has("status") { fields.int("status")? } else { -1 };
    if !(-1..=1).contains(&status) {
        return Err(ApiError::bad(format!("status must be 0 (PROBLEM), 1 (OK) or -1 (any), got {status}")));
    }
    let (offset, limit) = window(&fields, PAGE_MAX)?;
    let status = Some(status).filter(|status| *status >= 0);
    let events = alarm::events(&context.portal, &filter, status, offset, limit).await?;
    json(events.into_iter().map(event_json).collect::<Vec<_>>())
}

async fn notes(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let filter = occurrence_filter(&fields)?;
    if filter.case_id.is_empty() && filter.start.or(filter.end).is_none() {
        return Err(ApiError::bad("startTime, endTime OR event_id, You have to at least pick one on the request."));
    }
    let (offset, limit) = window(&fields, PAGE_MAX)?;
    let notes = alarm::notes(&context.portal, &filter, &fields.text("status", 15)?, offset, limit).await?;
    json(notes.into_iter().map(note_json).collect::<Vec<_>>())
}

async fn add_note(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let note = NewNote {
        event_id: fields.required_text("event_id", EVENT_ID_MAX)?,
        note: fields.required_text("note", NOTE_MAX)?,
        status: fields.required_text("status", NOTE_MAX)?,
        case_id: fields.text("case_id", CASE_ID_MAX)?,
        user_id: caller.user()?.id,
    };
    if !PROCESS_STATUSES.contains(&note.status.as_str()) && note.status != COMMENT {
        return Err(ApiError::bad(
            r#"params status: only accepect ["in progress", "unresolved", "resolved", "ignored", "comment"]"#,
        ));
    }
    if !alarm::add_note(&context.portal, &note, clock::now()).await? {
        return Err(ApiError::bad(format!("event_id {:?} is no event case", note.event_id)));
    }
    json(object!({ "id": note.event_id, "message": format!("add note to {} successfuled", note.event_id) }))
}

fn occurrence_filter(fields: &Fields) -> Result<OccurrenceFilter, ApiError> {
    let nonzero = |name| fields.int(name).map(|value| Some(value).filter(|value| *value != 0));
    let case_id = fields.text("event_id", EVENT_ID_MAX)?;
    let oldest_first = Paging::of(fields)?.oldest_first("timestamp")?;
    Ok(OccurrenceFilter { case_id, start: nonzero("startTime")?, end: nonzero("endTime")?, oldest_first })
}

/// Offset and limit of a list. A page has at most [`PAGE_MAX`] rows; without `page`, `limit` is at most `most`.
fn window(fields: &Fields, most: usize) -> Result<(usize, usize), ApiError> {
    let page = Paging::of(fields)?;
    if let Some(limit) = page.limit {
        // The offset was computed with the limit that was asked for; a page that is cut shorter begins earlier.
        let shorter = limit.min(PAGE_MAX);
        return Ok((page.offset / limit * shorter, shorter));
    }
    match fields.int("limit")? {
        0 => Ok((0, most)),
        limit if limit < 0 => Err(ApiError::bad("limit or page can not set to 0 or less than 0")),
        limit => Ok((0, usize::try_from(limit).unwrap_or(most).min(most))),
    }
}

/// A case with the original's fields, and with what of its telling failed, where something did.
pub(super) fn case_json(case: Case) -> Value {
    let mut json = object!({
        "id": case.id,
        "endpoint": case.endpoint,
        "metric": case.metric,
        "func": case.func,
        "cond": case.cond,
        "note": case.note,
        "step": case.max_step,
        "current_step": case.current_step,
        "priority": case.priority,
        "status": case.status,
        "timestamp": rfc3339(&case.timestamp),
        "update_at": case.update_at.as_deref().and_then(rfc3339),
        "closed_at": case.closed_at.as_deref().and_then(rfc3339),
        "closed_note": case.closed_note,
        "user_modified": case.user_modified,
        "tpl_creator": case.tpl_creator,
        "expression_id": case.expression_id,
        "strategy_id": case.strategy_id,
        "template_id": case.template_id,
        "process_note": case.process_note,
        "process_status": case.process_status,
    });
    if !case.told.is_empty() {
        json["told"] = case.told.into();
    }
    json
}

/// An event with the original's fields, and with its explanation, which the original's clients pass over.
pub(super) fn event_json(event: EventRow) -> Value {
    let mut json = object!({
        "id": event.id,
        "step": event.step,
        "event_caseId": event.case_id,
        "cond": event.cond,
        "status": event.status,
        "timestamp": event.timestamp.as_deref().and_then(rfc3339),
    });
    if let Some(explanation) = event.explanation {
        json["explanation"] = object!(explanation);
        json["explanation"]["text"] = why::sentence(&explanation).into();
    }
    json
}

pub(super) fn note_json(note: Note) -> Value {
    object!({
        "event_caseId": note.event_case_id,
        "note": note.note,
        "case_id": note.case_id,
        "status": note.status,
        "timestamp": note.timestamp.as_deref().and_then(rfc3339),
        "user": note.user,
    })
}

#[cfg(test)]
mod tests;
