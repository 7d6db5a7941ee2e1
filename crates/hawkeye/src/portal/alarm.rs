//! Alarms (`alarms.event_cases`, `events`, `event_note`): cases, their events, and the notes of people about them.
//!
//! Compat: docs/open-falcon/alarm.md §6 (what an event changes), docs/open-falcon/control-plane.md §4 (what the API
//! shows). One case per event id (rule × series), one event row per occurrence. Times are local texts; see `clock`.
//! A column `timestamp` of MySQL sets itself to now at each update that does not name it, so each statement here does.
//! Invariants: an open case is never deleted; what is old goes as [`super::purge`] says.

pub mod open;

use super::Portal;
use super::db::{FromColumn, Query, Row, Transaction, query, record, select};
use crate::clock;
use model::{Event, Explanation, Status};

/// Stores one event: its case (new, or brought up to date) and its own row. `condition` is the text of the comparison.
/// One that closes its case although nothing recovered leaves the reason there, and in place of the comparison in its
/// row; a PROBLEM takes the reason away again, unless somebody has modified the case.
pub async fn record(transaction: &mut Transaction, event: &Event, condition: &str) -> sqlx::Result<()> {
    let (id, time) = (event.id(), clock::local_text(event.time));
    record_case(transaction, event, &id, &time, condition).await?;
    let closed =
        event.explanation.as_ref().map(|explanation| explanation.closed.as_str()).filter(|why| !why.is_empty());
    if let Some(why) = closed {
        query("UPDATE alarms.event_cases SET closed_at = ?, closed_note = ?, timestamp = timestamp WHERE id = ?")
            .bind(&time)
            .bind(why)
            .bind(&id)
            .execute(&mut *transaction)
            .await?;
    }
    query(
        "INSERT INTO alarms.events (event_caseId, step, cond, status, timestamp, explanation)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&id)
    .bind(event.current_step)
    .bind(closed.unwrap_or(condition))
    .bind(i64::from(event.status == Status::Ok))
    .bind(&time)
    .bind(event.explanation.as_ref().map(|explanation| explanation.to_json()))
    .execute(transaction)
    .await?;
    Ok(())
}

async fn record_case(
    transaction: &mut Transaction,
    event: &Event,
    id: &str,
    time: &str,
    condition: &str,
) -> sqlx::Result<()> {
    let creator = match &event.rule {
        model::EventRule::Strategy(strategy) => strategy.tpl.creator.as_str(),
        model::EventRule::Expression(_) => "",
    };
    let is_open = i64::from(event.status == Status::Problem);
    // MySQL assigns from left to right: a column whose old value is needed further right is assigned after that.
    query(
        "INSERT INTO alarms.event_cases (id, endpoint, metric, func, cond, note, max_step, current_step, priority,
           status, timestamp, update_at, tpl_creator, expression_id, strategy_id, template_id)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(&event.endpoint)
    .bind(event.key().counter())
    .bind(event.func())
    .bind(condition)
    .bind(event.note())
    .bind(event.max_step())
    .bind(event.current_step)
    .bind(event.priority())
    .bind(event.status.as_str())
    .bind(time)
    .bind(time)
    .bind(creator)
    .bind(event.expression_id())
    .bind(event.strategy_id())
    .bind(event.template_id())
    .or_update(
        "id",
        &[
            "update_at",
            "max_step",
            "current_step",
            "note",
            "cond",
            "status",
            "func",
            "priority",
            "tpl_creator",
            "expression_id",
            "strategy_id",
            "template_id",
        ],
    )
    .push(
        ", process_note = CASE WHEN process_status IN ('resolved', 'ignored') THEN 0 ELSE process_note END,
         process_status = CASE WHEN process_status IN ('resolved', 'ignored') THEN 'unresolved' ELSE process_status END",
    )
    .push(", timestamp = CASE WHEN ? = 1 THEN ? ELSE timestamp END")
    .bind(event.current_step)
    .bind(time)
    .push(", closed_at = CASE WHEN ? = 1 AND COALESCE(user_modified, 0) = 0 THEN NULL ELSE closed_at END")
    .bind(is_open)
    .push(", closed_note = CASE WHEN ? = 1 AND COALESCE(user_modified, 0) = 0 THEN NULL ELSE closed_note END")
    .bind(is_open)
    .execute(transaction)
    .await?;
    Ok(())
}

/// The reason of a case that was closed without a recovery, for its event and its note.
const RULE_GONE: &str = "the rule no longer applies";

/// Closes the case with this id if it is open, silently: under `judge.semantics = "open-falcon"`, or when the queue no
/// longer knows its PROBLEM. Otherwise an event closes a case.
pub async fn close(transaction: &mut Transaction, id: &str, now: i64) -> sqlx::Result<()> {
    let now = clock::local_text(now);
    let closed = query(
        "UPDATE alarms.event_cases SET status = 'OK', current_step = 1, update_at = ?, closed_at = ?, closed_note = ?,
         timestamp = timestamp WHERE id = ? AND status = 'PROBLEM'",
    )
    .bind(&now)
    .bind(&now)
    .bind(RULE_GONE)
    .bind(id)
    .execute(&mut *transaction)
    .await?;
    if closed.rows > 0 {
        query("INSERT INTO alarms.events (event_caseId, step, cond, status, timestamp) VALUES (?, 1, ?, 1, ?)")
            .bind(id)
            .bind(RULE_GONE)
            .bind(&now)
            .execute(transaction)
            .await?;
    }
    Ok(())
}

/// Deletes up to `limit` event rows older than `cutoff` (Unix seconds); returns how many.
pub async fn drop_events_before(transaction: &mut Transaction, cutoff: i64, limit: usize) -> sqlx::Result<u64> {
    let ids: Vec<i64> = query("SELECT id FROM alarms.events WHERE timestamp < ? ORDER BY timestamp LIMIT ?")
        .bind(clock::local_text(cutoff))
        .bind(limit)
        .all(&mut *transaction)
        .await?;
    if ids.is_empty() {
        return Ok(0);
    }
    Ok(query("DELETE FROM alarms.events WHERE id").in_list(ids).execute(transaction).await?.rows)
}

/// The bounds of a list of cases. Times are Unix seconds; None and empty mean any.
#[derive(Clone, Debug, Default)]
pub struct CaseFilter {
    pub id: String,
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub priority: Option<i64>,
    pub status: Vec<String>,
    pub process_status: Vec<String>,
    pub endpoints: Vec<String>,
    pub strategy_id: Option<i64>,
    pub template_id: Option<i64>,
    pub order: CaseOrder,
}

/// Orders of a list of cases by their names, which are the fields of the API, each with what SQL says.
pub const CASE_ORDERS: [(&str, CaseOrder); 8] = [
    ("-timestamp", CaseOrder("timestamp DESC, id")),
    ("timestamp", CaseOrder("timestamp, id")),
    ("-update_at", CaseOrder("update_at DESC, id")),
    ("update_at", CaseOrder("update_at, id")),
    ("-priority", CaseOrder("priority DESC, timestamp DESC, id")),
    ("priority", CaseOrder("priority, timestamp DESC, id")),
    ("-endpoint", CaseOrder("endpoint DESC, timestamp DESC, id")),
    ("endpoint", CaseOrder("endpoint, timestamp DESC, id")),
];

/// An order of cases; by default the newest come first.
#[derive(Clone, Copy, Debug)]
pub struct CaseOrder(&'static str);

impl Default for CaseOrder {
    fn default() -> CaseOrder {
        CASE_ORDERS[0].1
    }
}

record! {
    /// A case as the table holds it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Case {
        pub id: String,
        pub endpoint: String,
        pub metric: String,
        pub func: String,
        pub cond: String,
        pub note: String,
        pub max_step: i64,
        pub current_step: i64,
        pub priority: i64,
        pub status: String,
        pub timestamp: String,
        pub update_at: Option<String>,
        pub closed_at: Option<String>,
        pub closed_note: String,
        pub user_modified: i64,
        pub tpl_creator: String,
        pub expression_id: i64,
        pub strategy_id: i64,
        pub template_id: i64,
        pub process_note: i64,
        pub process_status: String,
        /// What of the newest event's telling failed ([`tell`]); "" when nothing did.
        pub told: String,
    }
}

/// The cases that match, in the filter's order.
pub async fn cases(portal: &Portal, filter: &CaseFilter, offset: usize, limit: usize) -> sqlx::Result<Vec<Case>> {
    let id = Some(&filter.id).filter(|id| !id.is_empty());
    let mut query = select::<Case>("FROM alarms.event_cases WHERE 1 = 1")
        .narrow(" AND timestamp >= ?", filter.start.map(clock::local_text))
        .narrow(" AND timestamp <= ?", filter.end.map(clock::local_text))
        .narrow(" AND id = ?", id)
        .narrow(" AND priority = ?", filter.priority)
        .narrow(" AND strategy_id = ?", filter.strategy_id)
        .narrow(" AND template_id = ?", filter.template_id);
    for (column, texts) in
        [("status", &filter.status), ("process_status", &filter.process_status), ("endpoint", &filter.endpoints)]
    {
        if !texts.is_empty() {
            query = query.push(" AND ").any_case(column).in_list(texts);
        }
    }
    page(query.push(" ORDER BY ").push(filter.order.0), offset, limit).all(portal).await
}

record! {
    /// One occurrence of a case. `status` is 0 for PROBLEM and 1 for OK.
    #[derive(Clone, Debug, PartialEq)]
    pub struct EventRow {
        pub id: i64,
        pub case_id: String = "event_caseId",
        pub step: i64,
        pub cond: String,
        pub status: i64,
        pub timestamp: Option<String>,
        /// None for an event that an older version stored.
        pub explanation: Option<Explanation>,
    }
}

impl FromColumn for Option<Explanation> {
    fn column(row: &Row, at: usize) -> sqlx::Result<Option<Explanation>> {
        Ok(row.text(at)?.and_then(|json| serde_json::from_str(&json).ok()))
    }
}

/// The bounds of a list of events or notes. Times are Unix seconds; None and empty mean any.
#[derive(Clone, Debug, Default)]
pub struct OccurrenceFilter {
    pub case_id: String,
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub oldest_first: bool,
}

/// The events that match.
pub async fn events(
    portal: &Portal,
    filter: &OccurrenceFilter,
    status: Option<i64>,
    offset: usize,
    limit: usize,
) -> sqlx::Result<Vec<EventRow>> {
    let query = select::<EventRow>("FROM alarms.events WHERE event_caseId = ?")
        .bind(&filter.case_id)
        .narrow(" AND timestamp >= ?", filter.start.map(clock::local_text))
        .narrow(" AND timestamp <= ?", filter.end.map(clock::local_text))
        .narrow(" AND status = ?", status)
        .push(if filter.oldest_first { " ORDER BY timestamp, id" } else { " ORDER BY timestamp DESC, id DESC" });
    page(query, offset, limit).all(portal).await
}

record! {
    /// A note that somebody wrote about a case.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Note {
        pub event_case_id: String = "event_caseId",
        pub note: String,
        pub case_id: String,
        pub status: String,
        pub timestamp: Option<String>,
        /// The writer's name; "" when he is gone.
        pub user: String = "(SELECT name FROM uic.user AS u WHERE u.id = n.user_id)",
    }
}

/// The notes that match; of one second, in the order they were written (as recorded from the original).
pub async fn notes(
    portal: &Portal,
    filter: &OccurrenceFilter,
    status: &str,
    offset: usize,
    limit: usize,
) -> sqlx::Result<Vec<Note>> {
    let case_id = Some(&filter.case_id).filter(|id| !id.is_empty());
    let query = select::<Note>("FROM alarms.event_note AS n WHERE 1 = 1")
        .narrow(" AND timestamp >= ?", filter.start.map(clock::local_text))
        .narrow(" AND timestamp <= ?", filter.end.map(clock::local_text))
        .narrow(" AND event_caseId = ?", case_id)
        .narrow(" AND status = ?", Some(status).filter(|status| !status.is_empty()))
        .push(if filter.oldest_first { " ORDER BY timestamp, id" } else { " ORDER BY timestamp DESC, id" });
    page(query, offset, limit).all(portal).await
}

/// Rows of alarms that somebody has read already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Id of an event.
    pub event: i64,
    /// Id of a note.
    pub note: i64,
}

/// The newest rows.
pub async fn newest(portal: &Portal) -> sqlx::Result<Position> {
    let event: Option<i64> = query("SELECT id FROM alarms.events ORDER BY id DESC LIMIT 1").optional(portal).await?;
    let note: Option<i64> = query("SELECT id FROM alarms.event_note ORDER BY id DESC LIMIT 1").optional(portal).await?;
    Ok(Position { event: event.unwrap_or(0), note: note.unwrap_or(0) })
}

/// Events with a higher id, oldest first, each with its case as it is now.
pub async fn events_after(portal: &Portal, id: i64, limit: usize) -> sqlx::Result<Vec<(EventRow, Option<Case>)>> {
    let events: Vec<EventRow> = select::<EventRow>("FROM alarms.events WHERE id > ? ORDER BY id LIMIT ?")
        .bind(id)
        .bind(limit)
        .all(portal)
        .await?;
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let ids = events.iter().map(|event| &event.case_id);
    let cases: Vec<Case> = select::<Case>("FROM alarms.event_cases WHERE id").in_list(ids).all(portal).await?;
    let with_case = |event: EventRow| {
        let case = cases.iter().find(|case| case.id == event.case_id).cloned();
        (event, case)
    };
    Ok(events.into_iter().map(with_case).collect())
}

/// Notes with a higher id, oldest first, each with its id.
pub async fn notes_after(portal: &Portal, id: i64, limit: usize) -> sqlx::Result<Vec<(i64, Note)>> {
    let ids: Vec<i64> = query("SELECT id FROM alarms.event_note WHERE id > ? ORDER BY id LIMIT ?")
        .bind(id)
        .bind(limit)
        .all(portal)
        .await?;
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(Vec::new()) };
    let notes = select::<Note>("FROM alarms.event_note AS n WHERE id >= ? AND id <= ? ORDER BY id");
    let notes: Vec<Note> = notes.bind(*first).bind(*last).all(portal).await?;
    Ok(ids.into_iter().zip(notes).collect())
}

fn page(query: Query, offset: usize, limit: usize) -> Query {
    query.push(" LIMIT ? OFFSET ?").bind(limit).bind(offset)
}

/// A note to be added; `status` is one of [`PROCESS_STATUSES`] or [`COMMENT`].
#[derive(Clone, Debug)]
pub struct NewNote {
    pub event_id: String,
    pub note: String,
    pub status: String,
    pub case_id: String,
    pub user_id: i64,
}

/// The values of a case's `process_status`.
pub const PROCESS_STATUSES: [&str; 4] = ["in progress", "unresolved", "resolved", "ignored"];
/// A note that leaves the case as it is.
pub const COMMENT: &str = "comment";

/// Adds a note, and brings its case to the note's status; returns false when there is no such case.
pub async fn add_note(portal: &Portal, new: &NewNote, now: i64) -> sqlx::Result<bool> {
    let mut transaction = portal.write().await?;
    let sql = "SELECT 1 FROM alarms.event_cases WHERE id = ?";
    let case: Option<i64> = query(sql).bind(&new.event_id).optional(&mut transaction).await?;
    if case.is_none() {
        return Ok(false);
    }
    let added = query(
        "INSERT INTO alarms.event_note (event_caseId, note, case_id, status, timestamp, user_id)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&new.event_id)
    .bind(&new.note)
    .bind(&new.case_id)
    .bind(&new.status)
    .bind(clock::local_text(now))
    .bind(new.user_id)
    .execute(&mut transaction)
    .await?;
    if new.status != COMMENT {
        query("UPDATE alarms.event_cases SET process_note = ?, process_status = ?, timestamp = timestamp WHERE id = ?")
            .bind(added.id)
            .bind(&new.status)
            .bind(&new.event_id)
            .execute(&mut transaction)
            .await?;
    }
    transaction.commit().await?;
    portal.announce_alarms();
    Ok(true)
}

/// Begin of what a case says whose newest event told nobody.
pub const TOLD_NOBODY: &str = "told nobody";

/// Length of the column `told`, in characters.
const TOLD_MAX: usize = 500;

/// Notes with a case what is known of the telling of its newest event: "" is that its messages are on their way.
pub async fn tell(transaction: &mut Transaction, id: &str, text: &str) -> sqlx::Result<()> {
    query("UPDATE alarms.event_cases SET told = ?, timestamp = timestamp WHERE id = ?")
        .bind(text.chars().take(TOLD_MAX).collect::<String>())
        .bind(id)
        .execute(transaction)
        .await?;
    Ok(())
}

/// Adds what became of a delivery to what is known of the telling; a case that is gone needs it no more.
pub async fn tell_more(transaction: &mut Transaction, id: &str, text: &str) -> sqlx::Result<()> {
    let sql = "SELECT told FROM alarms.event_cases WHERE id = ?";
    match query(sql).bind(id).optional::<String>(&mut *transaction).await? {
        None => Ok(()),
        Some(told) if told.is_empty() => tell(transaction, id, text).await,
        Some(told) => tell(transaction, id, &format!("{told}; {text}")).await,
    }
}

#[cfg(test)]
mod tests;
