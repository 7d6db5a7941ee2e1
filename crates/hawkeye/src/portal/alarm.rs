//! Alarms: cases and their events and notes, and the people that an event concerns.
//!
//! Compat: docs/open-falcon/alarm.md §6 (what an event changes), docs/open-falcon/control-plane.md §4 (what the API
//! shows). One case per event id (rule × series), one event row per occurrence. Times are local texts; see
//! `local_time`.
//! Invariants: cases are never deleted, as in the original; events older than `alarm.event_retention` are.

pub mod open;

use super::Portal;
use super::user::{self, User};
use crate::clock;
use model::{Event, Status};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, QueryBuilder, Row, Sqlite, SqliteConnection};

/// Stores one event: its case (new, or brought up to date) and its own row. `condition` is the text of the comparison. One
/// that closes its case although nothing recovered leaves the reason there, and in place of the comparison in its
/// row.
pub async fn record(connection: &mut SqliteConnection, event: &Event, condition: &str) -> sqlx::Result<()> {
    let (id, time) = (event.id(), clock::local_text(event.time));
    let creator = match &event.rule {
        model::EventRule::Strategy(strategy) => strategy.tpl.creator.as_str(),
        model::EventRule::Expression(_) => "",
    };
    sqlx::query(
        "INSERT INTO event_cases (id, endpoint, metric, func, cond, note, max_step, current_step, priority, status,
           timestamp, update_at, tpl_creator, expression_id, strategy_id, template_id)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET
           update_at = excluded.update_at, max_step = excluded.max_step, current_step = excluded.current_step,
           note = excluded.note, cond = excluded.cond, status = excluded.status, func = excluded.func,
           priority = excluded.priority, tpl_creator = excluded.tpl_creator, expression_id = excluded.expression_id,
           strategy_id = excluded.strategy_id, template_id = excluded.template_id,
           process_note = CASE WHEN process_status IN ('resolved', 'ignored') THEN 0 ELSE process_note END,
           process_status = CASE WHEN process_status IN ('resolved', 'ignored') THEN 'unresolved' ELSE process_status END,
           timestamp = CASE WHEN excluded.current_step = 1 THEN excluded.timestamp ELSE timestamp END",
    )
    .bind(&id)
    .bind(&event.endpoint)
    .bind(event.key().counter())
    .bind(event.func())
    .bind(condition)
    .bind(event.note())
    .bind(event.max_step())
    .bind(event.current_step)
    .bind(event.priority())
    .bind(event.status.as_str())
    .bind(&time)
    .bind(&time)
    .bind(creator)
    .bind(event.expression_id())
    .bind(event.strategy_id())
    .bind(event.template_id())
    .execute(&mut *connection)
    .await?;
    let closed =
        event.explanation.as_ref().map(|explanation| explanation.closed.as_str()).filter(|why| !why.is_empty());
    if let Some(why) = closed {
        sqlx::query("UPDATE event_cases SET closed_at = ?, closed_note = ? WHERE id = ?")
            .bind(&time)
            .bind(why)
            .bind(&id)
            .execute(&mut *connection)
            .await?;
    }
    let sql = "INSERT INTO events (event_caseId, step, cond, status, timestamp, explanation) VALUES (?, ?, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(&id)
        .bind(event.current_step)
        .bind(closed.unwrap_or(condition))
        .bind(i32::from(event.status == Status::Ok))
        .bind(&time)
        .bind(event.explanation.as_ref().map(|explanation| explanation.to_json()))
        .execute(connection)
        .await?;
    Ok(())
}

/// Why a case was closed without a recovery; told in its event and its note.
const RULE_GONE: &str = "the rule no longer applies";

/// Closes the case with this id if it is open, silently: under `judge.semantics = "open-falcon"`, or when the queue no longer
/// knows its PROBLEM. Otherwise an event does it.
pub async fn close(connection: &mut SqliteConnection, id: &str, now: i64) -> sqlx::Result<()> {
    let now = clock::local_text(now);
    let closed = sqlx::query(
        "UPDATE event_cases SET status = 'OK', current_step = 1, update_at = ?, closed_at = ?, closed_note = ?
         WHERE id = ? AND status = 'PROBLEM'",
    )
    .bind(&now)
    .bind(&now)
    .bind(RULE_GONE)
    .bind(id)
    .execute(&mut *connection)
    .await?;
    if closed.rows_affected() > 0 {
        sqlx::query("INSERT INTO events (event_caseId, step, cond, status, timestamp) VALUES (?, 1, ?, 1, ?)")
            .bind(id)
            .bind(RULE_GONE)
            .bind(&now)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// The members of the teams named in `uic` (joined by commas), each once, in order of their ids.
pub async fn members(connection: &mut SqliteConnection, uic: &str) -> sqlx::Result<Vec<User>> {
    let teams: Vec<&str> = uic.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if teams.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT DISTINCT u.id, u.name, u.cnname, u.email, u.phone, u.im, u.qq, u.role FROM user AS u
         JOIN rel_team_user AS r ON r.uid = u.id JOIN team AS t ON t.id = r.tid WHERE t.name IN (",
    );
    let mut names = query.separated(", ");
    for name in teams {
        names.push_bind(name);
    }
    query.push(") ORDER BY u.id");
    let rows: Vec<user::Row> = query.build_query_as().fetch_all(connection).await?;
    Ok(rows.into_iter().map(User::from).collect())
}

/// Deletes up to `limit` event rows older than `cutoff` (Unix seconds); returns how many.
pub async fn drop_events_before(connection: &mut SqliteConnection, cutoff: i64, limit: i64) -> sqlx::Result<u64> {
    let sql = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE timestamp < ? ORDER BY timestamp LIMIT ?)";
    Ok(sqlx::query(sql).bind(clock::local_text(cutoff)).bind(limit).execute(connection).await?.rows_affected())
}

/// What a list of cases is narrowed to. Times are Unix seconds; None and empty mean any.
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
}

/// A case as the table holds it, absent texts and numbers as the original reads them ("" and 0).
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
}

/// The cases that match, newest first.
pub async fn cases(portal: &Portal, filter: &CaseFilter, offset: usize, limit: usize) -> sqlx::Result<Vec<Case>> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT id, endpoint, metric, coalesce(func, '') AS func, cond, coalesce(note, '') AS note,
           coalesce(max_step, 0) AS max_step, coalesce(current_step, 0) AS current_step, priority, status, timestamp,
           update_at, closed_at, coalesce(closed_note, '') AS closed_note, coalesce(user_modified, 0) AS user_modified,
           coalesce(tpl_creator, '') AS tpl_creator, coalesce(expression_id, 0) AS expression_id,
           coalesce(strategy_id, 0) AS strategy_id, coalesce(template_id, 0) AS template_id,
           coalesce(process_note, 0) AS process_note, coalesce(process_status, '') AS process_status
         FROM event_cases WHERE 1",
    );
    push_times(&mut query, filter.start, filter.end);
    if !filter.id.is_empty() {
        query.push(" AND id = ").push_bind(&filter.id);
    }
    for (column, value) in
        [("priority", filter.priority), ("strategy_id", filter.strategy_id), ("template_id", filter.template_id)]
    {
        if let Some(value) = value {
            query.push(format!(" AND {column} = ")).push_bind(value);
        }
    }
    push_any_of(&mut query, "status", &filter.status);
    push_any_of(&mut query, "process_status", &filter.process_status);
    push_any_of(&mut query, "endpoint", &filter.endpoints);
    query.push(" ORDER BY timestamp DESC, id");
    push_limit(&mut query, offset, limit);
    query.build_query_as().fetch_all(portal.pool()).await
}

/// One occurrence of a case. `status` is 0 for PROBLEM and 1 for OK.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    pub id: i64,
    pub case_id: String,
    pub step: i64,
    pub cond: String,
    pub status: i64,
    pub timestamp: Option<String>,
    /// None of an event that an older version stored.
    pub explanation: Option<model::Explanation>,
}

/// What a list of events or notes is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct OccurrenceFilter {
    pub case_id: String,
    pub start: Option<i64>,
    pub end: Option<i64>,
}

/// The events that match, newest first.
pub async fn events(
    portal: &Portal,
    filter: &OccurrenceFilter,
    status: Option<i64>,
    offset: usize,
    limit: usize,
) -> sqlx::Result<Vec<EventRow>> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT id, event_caseId, coalesce(step, 0) AS step, cond, coalesce(status, 0) AS status, timestamp, explanation
         FROM events WHERE event_caseId = ",
    );
    query.push_bind(&filter.case_id);
    push_times(&mut query, filter.start, filter.end);
    if let Some(status) = status {
        query.push(" AND status = ").push_bind(status);
    }
    query.push(" ORDER BY timestamp DESC, id DESC");
    push_limit(&mut query, offset, limit);
    query.build_query_as().fetch_all(portal.pool()).await
}

/// What somebody wrote about a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub event_case_id: String,
    pub note: String,
    pub case_id: String,
    pub status: String,
    pub timestamp: Option<String>,
    pub user: String,
}

/// The notes that match, newest first; of one second, in the order they were written (as recorded from the original).
pub async fn notes(
    portal: &Portal,
    filter: &OccurrenceFilter,
    status: &str,
    offset: usize,
    limit: usize,
) -> sqlx::Result<Vec<Note>> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT event_caseId, coalesce(note, '') AS note, coalesce(case_id, '') AS case_id,
           coalesce(status, '') AS status, timestamp,
           coalesce((SELECT name FROM user WHERE user.id = event_note.user_id), '') AS user
         FROM event_note WHERE 1",
    );
    push_times(&mut query, filter.start, filter.end);
    if !filter.case_id.is_empty() {
        query.push(" AND event_caseId = ").push_bind(&filter.case_id);
    }
    if !status.is_empty() {
        query.push(" AND status = ").push_bind(status);
    }
    query.push(" ORDER BY timestamp DESC, id");
    push_limit(&mut query, offset, limit);
    query.build_query_as().fetch_all(portal.pool()).await
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

/// What a case's `process_status` can be.
pub const PROCESS_STATUSES: [&str; 4] = ["in progress", "unresolved", "resolved", "ignored"];
/// A note that leaves the case as it is.
pub const COMMENT: &str = "comment";

/// False when there is no such case.
pub async fn add_note(portal: &Portal, new: &NewNote, now: i64) -> sqlx::Result<bool> {
    let mut transaction = portal.write().await?;
    let case: Option<i64> = sqlx::query_scalar("SELECT 1 FROM event_cases WHERE id = ?")
        .bind(&new.event_id)
        .fetch_optional(&mut *transaction)
        .await?;
    if case.is_none() {
        return Ok(false);
    }
    let added = sqlx::query(
        "INSERT INTO event_note (event_caseId, note, case_id, status, timestamp, user_id) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&new.event_id)
    .bind(&new.note)
    .bind(&new.case_id)
    .bind(&new.status)
    .bind(clock::local_text(now))
    .bind(new.user_id)
    .execute(&mut *transaction)
    .await?;
    if new.status != COMMENT {
        sqlx::query("UPDATE event_cases SET process_note = ?, process_status = ? WHERE id = ?")
            .bind(added.last_insert_rowid())
            .bind(&new.status)
            .bind(&new.event_id)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(true)
}

impl FromRow<'_, SqliteRow> for Case {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Case> {
        Ok(Case {
            id: row.try_get("id")?,
            endpoint: row.try_get("endpoint")?,
            metric: row.try_get("metric")?,
            func: row.try_get("func")?,
            cond: row.try_get("cond")?,
            note: row.try_get("note")?,
            max_step: row.try_get("max_step")?,
            current_step: row.try_get("current_step")?,
            priority: row.try_get("priority")?,
            status: row.try_get("status")?,
            timestamp: row.try_get("timestamp")?,
            update_at: row.try_get("update_at")?,
            closed_at: row.try_get("closed_at")?,
            closed_note: row.try_get("closed_note")?,
            user_modified: row.try_get("user_modified")?,
            tpl_creator: row.try_get("tpl_creator")?,
            expression_id: row.try_get("expression_id")?,
            strategy_id: row.try_get("strategy_id")?,
            template_id: row.try_get("template_id")?,
            process_note: row.try_get("process_note")?,
            process_status: row.try_get("process_status")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for EventRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<EventRow> {
        let explanation: Option<String> = row.try_get("explanation")?;
        Ok(EventRow {
            id: row.try_get("id")?,
            case_id: row.try_get("event_caseId")?,
            step: row.try_get("step")?,
            cond: row.try_get("cond")?,
            status: row.try_get("status")?,
            timestamp: row.try_get("timestamp")?,
            explanation: explanation.and_then(|json| serde_json::from_str(&json).ok()),
        })
    }
}

impl FromRow<'_, SqliteRow> for Note {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Note> {
        Ok(Note {
            event_case_id: row.try_get("event_caseId")?,
            note: row.try_get("note")?,
            case_id: row.try_get("case_id")?,
            status: row.try_get("status")?,
            timestamp: row.try_get("timestamp")?,
            user: row.try_get("user")?,
        })
    }
}

fn push_times(query: &mut QueryBuilder<Sqlite>, start: Option<i64>, end: Option<i64>) {
    if let Some(start) = start {
        query.push(" AND timestamp >= ").push_bind(clock::local_text(start));
    }
    if let Some(end) = end {
        query.push(" AND timestamp <= ").push_bind(clock::local_text(end));
    }
}

fn push_any_of(query: &mut QueryBuilder<Sqlite>, column: &str, values: &[String]) {
    if values.is_empty() {
        return;
    }
    query.push(format!(" AND {column} COLLATE NOCASE IN ("));
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value.clone());
    }
    query.push(")");
}

fn push_limit(query: &mut QueryBuilder<Sqlite>, offset: usize, limit: usize) {
    query.push(" LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    query.push(" OFFSET ").push_bind(i64::try_from(offset).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests;
