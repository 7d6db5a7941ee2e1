//! Deliveries: what alarm still has to send (`alarms.hawkeye_delivery`), and how far it has read the event queue.
//!
//! Invariants: a row exists from the transaction that handled its event until it was sent or given up. Deliveries of one
//! lane (one alarm) to one target are due strictly one after another, also over retries: a recovery never overtakes its
//! problem.
//! Memory: none here; the table's bound is `alarm.deliveries_max`, kept by the caller with [`drop_oldest`].

use super::Portal;
use super::db::{Column, Row, Transaction, query, record, select};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Callback,
    Sms,
    Im,
    /// The site's mail gateway.
    Mail,
    Smtp,
}

pub const KINDS: [Kind; 5] = [Kind::Callback, Kind::Sms, Kind::Im, Kind::Mail, Kind::Smtp];

#[derive(Clone, Debug, PartialEq)]
pub struct NewDelivery {
    pub target: String,
    pub kind: Kind,
    pub lane: String,
    pub body: String,
}

record! {
    #[derive(Clone, Debug, PartialEq)]
    pub struct Delivery {
        pub id: i64,
        pub target: String,
        /// None for a kind that this program does not know.
        pub kind: Option<Kind>,
        pub lane: String,
        pub body: String,
        pub attempts: i64,
        /// Unix seconds.
        pub created_at: i64,
    }
}

/// The name in `hawkeye_state` of the highest sequence number of the event queue that was handled.
const CURSOR: &str = "alarm.cursor";

impl Kind {
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

impl Column for Option<Kind> {
    fn column(row: &Row, at: usize) -> sqlx::Result<Option<Kind>> {
        Ok(row.text(at)?.as_deref().and_then(Kind::parse))
    }
}

/// 0 when nothing was handled yet.
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

pub async fn set_cursor(transaction: &mut Transaction, seq: u64) -> sqlx::Result<()> {
    query("INSERT INTO alarms.hawkeye_state (name, value) VALUES (?, ?)")
        .bind(CURSOR)
        .bind(seq.to_string())
        .or_update("name", &["value"])
        .execute(transaction)
        .await?;
    Ok(())
}

/// `now_ms` is the wall clock in Unix milliseconds.
pub async fn insert(transaction: &mut Transaction, new: &NewDelivery, now_ms: i64) -> sqlx::Result<()> {
    query(
        "INSERT INTO alarms.hawkeye_delivery (target, kind, lane, body, due_at, created_at, last_error)
         VALUES (?, ?, ?, ?, ?, ?, '')",
    )
    .bind(&new.target)
    .bind(new.kind.as_str())
    .bind(&new.lane)
    .bind(&new.body)
    .bind(now_ms)
    .bind(now_ms / 1000)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Up to `limit` deliveries to `target` that may be tried now, the longest due first.
pub async fn due(portal: &Portal, target: &str, now_ms: i64, limit: usize) -> sqlx::Result<Vec<Delivery>> {
    select::<Delivery>(
        "FROM alarms.hawkeye_delivery AS d WHERE target = ? AND due_at <= ? AND NOT EXISTS (
           SELECT 1 FROM alarms.hawkeye_delivery AS e WHERE e.target = d.target AND e.lane = d.lane AND e.id < d.id)
         ORDER BY due_at, id LIMIT ?",
    )
    .bind(target)
    .bind(now_ms)
    .bind(limit)
    .all(portal)
    .await
}

/// When the next delivery to `target` after `now_ms` is due; None when there is none.
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

pub async fn count(portal: &Portal) -> sqlx::Result<u64> {
    let count: i64 = query("SELECT count(*) FROM alarms.hawkeye_delivery").one(portal).await?;
    Ok(count.unsigned_abs())
}

/// False when the row was gone already (given up meanwhile).
pub async fn delete(transaction: &mut Transaction, id: i64) -> sqlx::Result<bool> {
    let done = query("DELETE FROM alarms.hawkeye_delivery WHERE id = ?").bind(id).execute(transaction).await?;
    Ok(done.rows > 0)
}

/// False when the row was gone already.
pub async fn retry_at(transaction: &mut Transaction, id: i64, due_ms: i64, error: &str) -> sqlx::Result<bool> {
    let done =
        query("UPDATE alarms.hawkeye_delivery SET attempts = attempts + 1, due_at = ?, last_error = ? WHERE id = ?")
            .bind(due_ms)
            .bind(error)
            .bind(id)
            .execute(transaction)
            .await?;
    Ok(done.rows > 0)
}

/// Deletes the `count` oldest deliveries; returns how many there were.
pub async fn drop_oldest(transaction: &mut Transaction, count: u64) -> sqlx::Result<u64> {
    let end = end_of_oldest(transaction, count).await?;
    let done = query("DELETE FROM alarms.hawkeye_delivery WHERE id < ?").bind(end).execute(transaction).await?;
    Ok(done.rows)
}

/// Deletes those of the `limit` oldest deliveries that were made before `cutoff` (Unix seconds); returns how many.
pub async fn drop_older(transaction: &mut Transaction, cutoff: i64, limit: u64) -> sqlx::Result<u64> {
    let end = end_of_oldest(transaction, limit).await?;
    let sql = "DELETE FROM alarms.hawkeye_delivery WHERE created_at < ? AND id < ?";
    Ok(query(sql).bind(cutoff).bind(end).execute(transaction).await?.rows)
}

/// The id behind the `count` oldest deliveries.
async fn end_of_oldest(transaction: &mut Transaction, count: u64) -> sqlx::Result<i64> {
    let end: Option<i64> = query("SELECT id FROM alarms.hawkeye_delivery ORDER BY id LIMIT 1 OFFSET ?")
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .optional(transaction)
        .await?;
    Ok(end.unwrap_or(i64::MAX))
}

/// Makes due what is due only after `latest_ms`: the clock was set back.
pub async fn pull_in(transaction: &mut Transaction, latest_ms: i64) -> sqlx::Result<u64> {
    let sql = "UPDATE alarms.hawkeye_delivery SET due_at = ? WHERE due_at > ?";
    Ok(query(sql).bind(latest_ms).bind(latest_ms).execute(transaction).await?.rows)
}
