//! Open cases: the alarms that the first page shows.

use super::TOLD_NOBODY;
use crate::portal::Portal;
use crate::portal::db::{query, record, select};

record! {
    /// A case whose last event is a PROBLEM; absent texts are "".
    #[derive(Debug, PartialEq)]
    pub struct OpenCase {
        pub id: String,
        pub priority: i64,
        pub status: String,
        pub endpoint: String,
        pub metric: String,
        pub func: String,
        pub cond: String,
        pub note: String,
        /// Begin of the problem, a local text: later events of the same problem only move `update_at`.
        pub timestamp: String,
        /// What of the newest event's telling failed; "" when nothing did.
        pub told: String,
    }
}

/// The open cases whose last event is newest, at most `limit`, and how many are open.
pub async fn newest(portal: &Portal, limit: i64) -> sqlx::Result<(Vec<OpenCase>, i64)> {
    let cases: Vec<OpenCase> =
        select::<OpenCase>("FROM alarms.event_cases WHERE status = 'PROBLEM' ORDER BY update_at DESC, id LIMIT ?")
            .bind(limit)
            .all(portal)
            .await?;
    let mut total = cases.len() as i64;
    if total == limit {
        total = query("SELECT count(*) FROM alarms.event_cases WHERE status = 'PROBLEM'").one(portal).await?;
    }
    Ok((cases, total))
}

/// How many open cases have a newest event that told nobody.
pub async fn untold(portal: &Portal) -> sqlx::Result<i64> {
    query("SELECT count(*) FROM alarms.event_cases WHERE status = 'PROBLEM' AND told LIKE ?")
        .bind(format!("{TOLD_NOBODY}%"))
        .one(portal)
        .await
}
