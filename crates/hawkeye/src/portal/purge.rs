//! Purge: what goes from the tables by its age, in steps that hold the lock of writers for a moment only.
//!
//! Why: the original deletes old events, and lets cases, alert links and temporary graphs grow for ever.
//! How: each table is asked for the oldest rows by an index on their time. Events and notes go with their case, which
//! is older than both.
//! Invariants: an open case stays, however old it is.

use super::db::{FromRow, Query, Value, query};
use super::{Portal, alarm};
use crate::clock;

/// Rows of a table that go in one transaction. The original's 100 events a minute do not keep up with a storm; five
/// rounds of these a minute do, and a transaction stays short.
const BATCH: usize = 1000;
/// Cases of one transaction: their notes go with them.
const CASES_BATCH: usize = 200;

/// Times before which rows go (Unix seconds).
#[derive(Clone, Copy, Debug)]
pub struct Cutoffs {
    pub events: i64,
    /// Time before which cases, alert links and temporary graphs go.
    pub cases: i64,
}

/// Deletes a batch of each kind; true when more may be old. Fails as the database does.
pub async fn round(portal: &Portal, cutoffs: Cutoffs) -> sqlx::Result<bool> {
    let mut transaction = portal.write().await?;
    let events = alarm::drop_events_before(&mut transaction, cutoffs.events, BATCH).await?;
    transaction.commit().await?;
    let before = clock::local_text(cutoffs.cases);
    let cases = drop_some::<String>(
        portal,
        query("SELECT id FROM alarms.event_cases WHERE status = 'OK' AND update_at < ? ORDER BY update_at LIMIT ?")
            .bind(&before)
            .bind(CASES_BATCH),
        "DELETE FROM alarms.event_cases WHERE id",
    );
    let links = drop_some::<i64>(
        portal,
        query("SELECT id FROM falcon_portal.alert_link WHERE create_at < ? ORDER BY create_at LIMIT ?")
            .bind(&before)
            .bind(BATCH),
        "DELETE FROM falcon_portal.alert_link WHERE id",
    );
    let graphs = drop_some::<i64>(
        portal,
        query("SELECT id FROM dashboard.tmp_graph WHERE time_ < ? ORDER BY time_ LIMIT ?").bind(&before).bind(BATCH),
        "DELETE FROM dashboard.tmp_graph WHERE id",
    );
    let full = [events == BATCH as u64, cases.await? == CASES_BATCH, links.await? == BATCH, graphs.await? == BATCH];
    Ok(full.contains(&true))
}

/// Deletes the rows whose ids `find` answers, in a transaction of its own; returns how many. Nothing waits for a lock
/// while nothing is old.
async fn drop_some<I: FromRow + Into<Value>>(
    portal: &Portal,
    find: Query,
    delete: &'static str,
) -> sqlx::Result<usize> {
    let ids: Vec<I> = find.all(portal).await?;
    if ids.is_empty() {
        return Ok(0);
    }
    let count = ids.len();
    query(delete).in_list(ids).execute(portal).await?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::{fill, run, temporary};
    use anyhow::Result;

    #[tokio::test]
    async fn what_is_old_goes_and_open_cases_stay() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let cutoffs = Cutoffs { events: 1_490_000_000, cases: 1_490_000_000 };
        run(
            &portal,
            "INSERT INTO alarms.event_cases (id, endpoint, metric, cond, priority, status, timestamp, update_at) VALUES
               ('old', 'h', 'm', '', 0, 'OK', '2016-01-01 00:00:00', '2017-01-01 00:00:00'),
               ('open', 'h', 'm', '', 0, 'PROBLEM', '2016-01-01 00:00:00', '2016-01-01 00:00:00'),
               ('ended', 'h', 'm', '', 0, 'OK', '2016-01-01 00:00:00', '2018-01-01 00:00:00');
             INSERT INTO alarms.events (event_caseId, cond, timestamp) VALUES ('old', '', '2018-01-01 00:00:00'),
               ('ended', '', '2018-01-01 00:00:00'), ('ended', '', '2016-01-01 00:00:00');
             INSERT INTO alarms.event_note (event_caseId, note) VALUES ('old', 'n'), ('open', 'n');
             INSERT INTO falcon_portal.alert_link (path, content, create_at) VALUES ('a', '', '2016-01-01 00:00:00'),
               ('b', '', '2018-01-01 00:00:00')",
        )
        .await?;
        let sql = "INSERT INTO dashboard.tmp_graph (ck, time_) SELECT i, '2016-01-01 00:00:00'";
        fill(&portal, sql, BATCH as i64 + 1).await?;
        assert!(round(&portal, cutoffs).await?, "one graph is left");
        assert!(!round(&portal, cutoffs).await?);
        let check = async |sql: &'static str, expected: &[&str]| -> Result<()> {
            assert_eq!(query(sql).all::<String>(&portal).await?, expected, "{sql}");
            Ok(())
        };
        check("SELECT id FROM alarms.event_cases ORDER BY id", &["ended", "open"]).await?;
        check("SELECT event_caseId FROM alarms.events", &["ended"]).await?;
        check("SELECT event_caseId FROM alarms.event_note", &["open"]).await?;
        check("SELECT path FROM falcon_portal.alert_link", &["b"]).await?;
        check("SELECT ck FROM dashboard.tmp_graph", &[]).await?;
        Ok(())
    }
}
