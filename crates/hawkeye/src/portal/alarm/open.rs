//! Open cases: the alarms that the first page shows.

use crate::portal::Portal;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

/// A case whose last event is a PROBLEM; absent texts are "".
pub struct OpenCase {
    pub id: String,
    pub priority: i64,
    pub status: String,
    pub endpoint: String,
    pub metric: String,
    pub func: String,
    pub cond: String,
    pub note: String,
    /// When the problem began, a local text: later events of the same problem only move `update_at`.
    pub timestamp: String,
}

/// The open cases whose last event is newest, at most `limit`, and how many are open.
pub async fn newest(portal: &Portal, limit: i64) -> sqlx::Result<(Vec<OpenCase>, i64)> {
    let cases: Vec<OpenCase> = sqlx::query_as(
        "SELECT id, priority, status, endpoint, metric, coalesce(func, '') AS func, cond, coalesce(note, '') AS note,
           timestamp
         FROM event_cases WHERE status = 'PROBLEM' ORDER BY update_at DESC, id LIMIT ?",
    )
    .bind(limit)
    .fetch_all(portal.pool())
    .await?;
    let mut total = cases.len() as i64;
    if total == limit {
        total = sqlx::query_scalar("SELECT count(*) FROM event_cases WHERE status = 'PROBLEM'")
            .fetch_one(portal.pool())
            .await?;
    }
    Ok((cases, total))
}

impl FromRow<'_, SqliteRow> for OpenCase {
    fn from_row(row: &SqliteRow) -> sqlx::Result<OpenCase> {
        Ok(OpenCase {
            id: row.try_get("id")?,
            priority: row.try_get("priority")?,
            status: row.try_get("status")?,
            endpoint: row.try_get("endpoint")?,
            metric: row.try_get("metric")?,
            func: row.try_get("func")?,
            cond: row.try_get("cond")?,
            note: row.try_get("note")?,
            timestamp: row.try_get("timestamp")?,
        })
    }
}
