//! Deliveries: what alarm still has to send (`alarms.hawkeye_delivery`), and how far it has read the event queue.
//!
//! Invariants: a row exists from the transaction that handled its event until it was sent or given up. Deliveries of
//! one lane (one alarm) to one target are due strictly one after another, also over retries: a recovery never overtakes
//! its problem. A callback is marked as begun before it may be received, and a mark that a start finds is a callback of
//! which nobody knows whether it was.
//! A lane that begins with [`MERGED`] is of messages about several alarms, whose bodies name their cases.
//! Memory: none between calls; the table's bound is `alarm.deliveries_max`, kept by the caller with [`drop_oldest`].

use super::Portal;
use super::db::{FromColumn, Row, Transaction, query, record, select};
use serde::Deserialize;

/// Channel of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Callback,
    Sms,
    Im,
    /// The site's mail gateway.
    Mail,
    Smtp,
}

/// All channels.
pub const KINDS: [Kind; 5] = [Kind::Callback, Kind::Sms, Kind::Im, Kind::Mail, Kind::Smtp];

/// Delivery that is to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDelivery {
    pub target: String,
    pub kind: Kind,
    pub lane: String,
    pub body: String,
    /// Priority of the event, 0 the highest.
    pub priority: i64,
}

record! {
    /// Delivery that waits, as its row says.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Delivery {
        pub id: i64,
        pub target: String,
        /// None for a kind that this program does not know.
        pub kind: Option<Kind>,
        pub lane: String,
        pub body: String,
        pub attempts: i64,
        pub priority: i64,
        /// Unix seconds.
        pub created_at: i64,
        /// Unix seconds when the callback under way began; 0 when none is.
        pub begun_at: i64,
    }
}

/// Beginning of the lanes of messages that are about several alarms.
pub const MERGED: &str = "low:";
/// Rows whose bodies are read at a time for their cases.
const BODIES: usize = 1000;

/// What the body of a message about several alarms says of them.
#[derive(Deserialize)]
struct About {
    #[serde(default)]
    case: String,
    #[serde(default)]
    cases: Vec<String>,
}

impl Delivery {
    /// The ids of the cases that a message is about.
    pub fn cases(&self) -> Vec<String> {
        cases(&self.lane, &self.body)
    }
}

fn cases(lane: &str, body: &str) -> Vec<String> {
    if !lane.starts_with(MERGED) {
        return vec![lane.to_string()];
    }
    let about = serde_json::from_str(body).unwrap_or(About { case: String::new(), cases: Vec::new() });
    about.cases.into_iter().chain(Some(about.case).filter(|case| !case.is_empty())).collect()
}

/// The name in `hawkeye_state` of the highest sequence number of the event queue that was handled.
const CURSOR: &str = "alarm.cursor";

impl Kind {
    /// Text of the channel in the table and on the metrics page.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Callback => "callback",
            Kind::Sms => "sms",
            Kind::Im => "im",
            Kind::Mail => "mail",
            Kind::Smtp => "smtp",
        }
    }

    fn parse(text: &str) -> Option<Kind> {
        KINDS.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl FromColumn for Option<Kind> {
    fn column(row: &Row, at: usize) -> sqlx::Result<Option<Kind>> {
        Ok(row.text(at)?.as_deref().and_then(Kind::parse))
    }
}

/// The sequence number up to which the event queue was handled; 0 when nothing was handled yet.
pub async fn cursor(portal: &Portal) -> anyhow::Result<u64> {
    let text: Option<String> =
        query("SELECT value FROM alarms.hawkeye_state WHERE name = ?").bind(CURSOR).optional(portal).await?;
    match text {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| {
            anyhow::anyhow!("hawkeye_state holds {text:?} as {CURSOR}, want a number: delete the row to start over")
        }),
    }
}

/// Notes that the event queue was handled up to `seq`.
pub async fn set_cursor(transaction: &mut Transaction, seq: u64) -> sqlx::Result<()> {
    set_mark(transaction, CURSOR, seq).await
}

/// A number that was kept with deliveries under `name`; none where there is none.
pub async fn mark(portal: &Portal, name: &str) -> sqlx::Result<Option<u64>> {
    let text: Option<String> =
        query("SELECT value FROM alarms.hawkeye_state WHERE name = ?").bind(name).optional(portal).await?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// Keeps a number under `name`, in the transaction of the deliveries that it is about.
pub async fn set_mark(transaction: &mut Transaction, name: &str, mark: u64) -> sqlx::Result<()> {
    query("INSERT INTO alarms.hawkeye_state (name, value) VALUES (?, ?)")
        .bind(name)
        .bind(mark.to_string())
        .or_update("name", &["value"])
        .execute(transaction)
        .await?;
    Ok(())
}

/// Number of deliveries to targets that begin with these letters and digits.
pub async fn count_to(portal: &Portal, beginning: &str) -> sqlx::Result<u64> {
    let sql = "SELECT count(*) FROM alarms.hawkeye_delivery WHERE target LIKE ?";
    let count: i64 = query(sql).bind(format!("{beginning}%")).one(portal).await?;
    Ok(count.unsigned_abs())
}

/// Adds a delivery that is due at once; `now_ms` is the wall clock in Unix milliseconds.
pub async fn insert(transaction: &mut Transaction, new: &NewDelivery, now_ms: i64) -> sqlx::Result<()> {
    query(
        "INSERT INTO alarms.hawkeye_delivery (target, kind, lane, body, priority, due_at, created_at, last_error)
         VALUES (?, ?, ?, ?, ?, ?, ?, '')",
    )
    .bind(&new.target)
    .bind(new.kind.as_str())
    .bind(&new.lane)
    .bind(&new.body)
    .bind(new.priority)
    .bind(now_ms)
    .bind(now_ms / 1000)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Up to `limit` deliveries to `target` that may be tried now, those of the highest priority first, and of them the
/// longest due.
pub async fn due(portal: &Portal, target: &str, now_ms: i64, limit: usize) -> sqlx::Result<Vec<Delivery>> {
    select::<Delivery>(
        "FROM alarms.hawkeye_delivery AS d WHERE target = ? AND due_at <= ? AND NOT EXISTS (
           SELECT 1 FROM alarms.hawkeye_delivery AS e WHERE e.target = d.target AND e.lane = d.lane AND e.id < d.id)
         ORDER BY priority, due_at, id LIMIT ?",
    )
    .bind(target)
    .bind(now_ms)
    .bind(limit)
    .all(portal)
    .await
}

/// Up to `limit` rows of `target`, due or not, lane by lane.
pub async fn of_target(portal: &Portal, target: &str, limit: usize) -> sqlx::Result<Vec<Delivery>> {
    let sql = "FROM alarms.hawkeye_delivery WHERE target = ? ORDER BY lane, id LIMIT ?";
    select::<Delivery>(sql).bind(target).bind(limit).all(portal).await
}

/// Marks deliveries as begun, in one transaction, which is committed when this returns.
pub async fn begin(portal: &Portal, ids: &[i64], now: i64) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    query("UPDATE alarms.hawkeye_delivery SET begun_at = ? WHERE id")
        .bind(now)
        .in_list(ids.iter().copied())
        .execute(&mut transaction)
        .await?;
    transaction.commit().await
}

/// Deliveries that had begun when their process ended.
pub async fn begun(portal: &Portal) -> sqlx::Result<Vec<Delivery>> {
    select::<Delivery>("FROM alarms.hawkeye_delivery WHERE begun_at > 0 ORDER BY id").all(portal).await
}

/// The time at which the next delivery to `target` after `now_ms` is due; None when there is none.
pub async fn next_due(portal: &Portal, target: &str, now_ms: i64) -> sqlx::Result<Option<i64>> {
    query("SELECT min(due_at) FROM alarms.hawkeye_delivery WHERE target = ? AND due_at > ?")
        .bind(target)
        .bind(now_ms)
        .one(portal)
        .await
}

/// All targets that something waits for.
pub async fn targets(portal: &Portal) -> sqlx::Result<Vec<String>> {
    query("SELECT DISTINCT target FROM alarms.hawkeye_delivery").all(portal).await
}

/// Number of deliveries that wait.
pub async fn count(portal: &Portal) -> sqlx::Result<u64> {
    let count: i64 = query("SELECT count(*) FROM alarms.hawkeye_delivery").one(portal).await?;
    Ok(count.unsigned_abs())
}

/// Deletes a delivery; returns false when the row was gone already (given up meanwhile).
pub async fn delete(transaction: &mut Transaction, id: i64) -> sqlx::Result<bool> {
    let done = query("DELETE FROM alarms.hawkeye_delivery WHERE id = ?").bind(id).execute(transaction).await?;
    Ok(done.rows > 0)
}

/// Deletes deliveries; there must be one.
pub async fn delete_all(transaction: &mut Transaction, ids: impl IntoIterator<Item = i64>) -> sqlx::Result<()> {
    query("DELETE FROM alarms.hawkeye_delivery WHERE id").in_list(ids).execute(transaction).await?;
    Ok(())
}

/// Counts a failed attempt, which is no longer under way, and makes the delivery due again later; returns false when
/// the row was gone already.
pub async fn retry_at(transaction: &mut Transaction, id: i64, due_ms: i64, error: &str) -> sqlx::Result<bool> {
    let done = query(
        "UPDATE alarms.hawkeye_delivery SET attempts = attempts + 1, begun_at = 0, due_at = ?, last_error = ?
         WHERE id = ?",
    )
    .bind(due_ms)
    .bind(error)
    .bind(id)
    .execute(transaction)
    .await?;
    Ok(done.rows > 0)
}

/// Deletes the `count` oldest deliveries; returns how many there were. Their cases say so.
pub async fn drop_oldest(transaction: &mut Transaction, count: u64) -> sqlx::Result<u64> {
    let why = "messages were given up: more than alarm.deliveries_max waited";
    let end = end_of_oldest(transaction, count).await?;
    give_up(transaction, i64::MAX, end, why).await
}

/// Deletes those of the `limit` oldest deliveries that were made before `cutoff` (Unix seconds); returns how many.
/// Their cases say so.
pub async fn drop_older(transaction: &mut Transaction, cutoff: i64, limit: u64) -> sqlx::Result<u64> {
    let why = "messages were given up: they waited longer than alarm.give_up_after";
    let end = end_of_oldest(transaction, limit).await?;
    give_up(transaction, cutoff, end, why).await
}

/// Deletes the deliveries that were made before `cutoff` and have ids below `end`, and notes with their cases why.
async fn give_up(transaction: &mut Transaction, cutoff: i64, end: i64, why: &'static str) -> sqlx::Result<u64> {
    query(
        "UPDATE alarms.event_cases SET told = ?, timestamp = timestamp WHERE id IN (
           SELECT lane FROM alarms.hawkeye_delivery WHERE created_at < ? AND id < ?)",
    )
    .bind(why)
    .bind(cutoff)
    .bind(end)
    .execute(&mut *transaction)
    .await?;
    give_up_merged(transaction, cutoff, end, why).await?;
    let sql = "DELETE FROM alarms.hawkeye_delivery WHERE created_at < ? AND id < ?";
    Ok(query(sql).bind(cutoff).bind(end).execute(transaction).await?.rows)
}

/// Notes with the cases of messages about several alarms that they are given up.
async fn give_up_merged(transaction: &mut Transaction, cutoff: i64, end: i64, why: &'static str) -> sqlx::Result<()> {
    let mut behind = 0;
    loop {
        let rows = select::<Delivery>(
            "FROM alarms.hawkeye_delivery WHERE created_at < ? AND id < ? AND id > ? AND lane LIKE 'low:%'
             ORDER BY id LIMIT ?",
        );
        let rows: Vec<Delivery> = rows.bind(cutoff).bind(end).bind(behind).bind(BODIES).all(&mut *transaction).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        behind = last.id;
        for id in rows.iter().flat_map(Delivery::cases) {
            query("UPDATE alarms.event_cases SET told = ?, timestamp = timestamp WHERE id = ?")
                .bind(why)
                .bind(id)
                .execute(&mut *transaction)
                .await?;
        }
    }
}

/// The id behind the `count` oldest deliveries.
async fn end_of_oldest(transaction: &mut Transaction, count: u64) -> sqlx::Result<i64> {
    let end: Option<i64> = query("SELECT id FROM alarms.hawkeye_delivery ORDER BY id LIMIT 1 OFFSET ?")
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .optional(transaction)
        .await?;
    Ok(end.unwrap_or(i64::MAX))
}

/// Makes the deliveries due now that are due later than `latest_ms`, which no pause explains: the clock was set back.
/// Returns how many there were.
pub async fn pull_in(transaction: &mut Transaction, latest_ms: i64, now_ms: i64) -> sqlx::Result<u64> {
    let sql = "UPDATE alarms.hawkeye_delivery SET due_at = ? WHERE due_at > ?";
    Ok(query(sql).bind(now_ms).bind(latest_ms).execute(transaction).await?.rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;
    use anyhow::Result;

    const NOW_MS: i64 = 1_600_000_000_000;

    #[tokio::test]
    async fn one_lane_waits_for_its_first_and_the_oldest_are_given_up() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let mut transaction = portal.write().await?;
        for (lane, kind) in [("l1", Kind::Sms), ("l1", Kind::Sms), ("L1", Kind::Im), ("l2", Kind::Smtp)] {
            let (target, lane, body) = ("sms".to_string(), lane.to_string(), format!("{{\"{lane}\":\"😀\"}}"));
            insert(&mut transaction, &NewDelivery { target, kind, lane, body, priority: 0 }, NOW_MS).await?;
        }
        set_cursor(&mut transaction, 7).await?;
        set_cursor(&mut transaction, 8).await?;
        transaction.commit().await?;
        assert_eq!(
            (cursor(&portal).await?, targets(&portal).await?, count(&portal).await?),
            (8, vec!["sms".into()], 4)
        );
        let now = due(&portal, "sms", NOW_MS, 10).await?;
        let lanes: Vec<_> = now.iter().map(|row| (row.lane.as_str(), row.kind)).collect();
        let kinds = [("l1", Some(Kind::Sms)), ("L1", Some(Kind::Im)), ("l2", Some(Kind::Smtp))];
        assert_eq!(lanes, kinds, "lanes compare exactly");
        assert_eq!((now[0].body.as_str(), now[0].created_at), ("{\"l1\":\"😀\"}", NOW_MS / 1000));
        assert_eq!(due(&portal, "SMS", NOW_MS, 10).await?, [], "targets compare exactly");

        let ids = |rows: &[Delivery]| rows.iter().map(|row| (row.id, row.begun_at)).collect::<Vec<_>>();
        begin(&portal, &[now[1].id, now[2].id], 7).await?;
        assert_eq!(ids(&begun(&portal).await?), [(now[1].id, 7), (now[2].id, 7)]);

        let mut transaction = portal.write().await?;
        assert!(retry_at(&mut transaction, now[1].id, NOW_MS + 5000, "refused").await?);
        assert!(delete(&mut transaction, now[0].id).await?);
        assert!(!delete(&mut transaction, now[0].id).await?);
        transaction.commit().await?;
        assert_eq!(ids(&begun(&portal).await?), [(now[2].id, 7)], "an attempt that failed is under way no more");
        assert_eq!(next_due(&portal, "sms", NOW_MS).await?, Some(NOW_MS + 5000));
        assert_eq!(next_due(&portal, "sms", NOW_MS + 5000).await?, None);
        assert_eq!(due(&portal, "sms", NOW_MS, 10).await?.len(), 2, "the second of the lane follows");
        assert_eq!(due(&portal, "sms", NOW_MS + 5000, 10).await?[2].attempts, 1);

        let mut transaction = portal.write().await?;
        assert_eq!(pull_in(&mut transaction, NOW_MS + 1, NOW_MS).await?, 1);
        assert_eq!(drop_older(&mut transaction, NOW_MS / 1000, 2).await?, 0);
        assert_eq!(drop_older(&mut transaction, NOW_MS / 1000 + 1, 2).await?, 2);
        assert_eq!(drop_oldest(&mut transaction, 0).await?, 0);
        assert_eq!(drop_oldest(&mut transaction, 9).await?, 1);
        transaction.commit().await?;
        assert_eq!(count(&portal).await?, 0);
        Ok(())
    }
}
