//! Purge: what goes from the tables by its age, in steps that hold the lock of writers for a moment only.
//!
//! Why: the original deletes old events, and lets cases, alert links, temporary graphs and actions without an owner
//! grow for ever.
//! How: each table is asked for the oldest rows by an index on their time. Events and notes go with their case, which
//! is older than both. Actions have no time: one goes that had no owner at two looks in a row ([`UnownedActions`]).
//! Invariants: an open case stays, however old it is; an action that has an owner stays.
//! Memory: the ids of one batch of actions.

use super::db::{FromRow, Query, Value, query};
use super::{Portal, action, alarm};
use crate::clock;

/// Rows of a table that go in one transaction. The original's 100 events a minute do not keep up with a storm; five
/// rounds of these a minute do, and a transaction stays short.
const BATCH: usize = 1000;
/// Cases of one transaction: their notes go with them.
const CASES_BATCH: usize = 200;
/// Actions without an owner that go at one look. Who deletes more of them in that time does it by a script, and the
/// next looks take the rest.
const ACTIONS_BATCH: usize = 1000;

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

/// Actions that had no owner at the last look. Alarms end with the owner, and their recoveries need the action until
/// they are told, which is long over at the next look.
#[derive(Default)]
pub struct UnownedActions {
    ids: Vec<i64>,
}

impl UnownedActions {
    /// Deletes what had no owner at the last look and has none now, and notes what has none. After a failure what was
    /// noted is forgotten, which costs a look.
    pub async fn look(&mut self, portal: &Portal) -> sqlx::Result<()> {
        let before = std::mem::take(&mut self.ids);
        if !before.is_empty() {
            action::delete_unowned(portal, before).await?;
        }
        self.ids = action::unowned(portal, ACTIONS_BATCH).await?;
        Ok(())
    }
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

    #[tokio::test]
    async fn an_action_goes_that_had_no_owner_at_two_looks() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        run(
            &portal,
            "INSERT INTO falcon_portal.action (id, uic, url) VALUES (1, '', ''), (2, '', ''), (3, '', ''), (4, '', ''),
               (5, '', '');
             INSERT INTO falcon_portal.tpl (tpl_name, action_id) VALUES ('none', 0), ('t', 1), ('goes', 4);
             INSERT INTO falcon_portal.expression (expression, func, op, right_value, action_id)
               VALUES ('', '', '', '', 2)",
        )
        .await?;
        let left = async || query("SELECT id FROM falcon_portal.action ORDER BY id").all::<i64>(&portal).await;
        let mut unowned = UnownedActions::default();
        unowned.look(&portal).await?;
        assert_eq!(left().await?, [1, 2, 3, 4, 5]);
        run(
            &portal,
            "UPDATE falcon_portal.tpl SET action_id = 5 WHERE tpl_name = 'none';
             DELETE FROM falcon_portal.tpl WHERE tpl_name = 'goes'",
        )
        .await?;
        unowned.look(&portal).await?;
        assert_eq!(left().await?, [1, 2, 4, 5], "5 found an owner, 4 has lost its own since the last look");
        unowned.look(&portal).await?;
        unowned.look(&portal).await?;
        assert_eq!(left().await?, [1, 2, 5]);
        Ok(())
    }
}
