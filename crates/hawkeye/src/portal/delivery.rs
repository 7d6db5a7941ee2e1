//! Deliveries: what alarm still has to send (`hawkeye_delivery`), and how far it has read the event queue.
//!
//! Invariants: a row exists from the transaction that handled its event until it was sent or given up. Deliveries of one
//! lane (one alarm) to one target are due strictly one after another, also over retries: a recovery never overtakes its
//! problem.
//! Memory: none here; the table's bound is `alarm.deliveries_max`, kept by the caller with [`drop_oldest`].

use super::Portal;
use sqlx::SqliteConnection;

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

/// 0 when nothing was handled yet.
pub async fn cursor(portal: &Portal) -> anyhow::Result<u64> {
    let text: Option<String> = sqlx::query_scalar("SELECT value FROM hawkeye_state WHERE name = ?")
        .bind(CURSOR)
        .fetch_optional(portal.pool())
        .await?;
    match text {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| {
            anyhow::anyhow!("hawkeye_state holds {text:?} as {CURSOR}, want a number: delete the row to start over")
        }),
    }
}

pub async fn set_cursor(connection: &mut SqliteConnection, seq: u64) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO hawkeye_state (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(CURSOR)
    .bind(seq.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// `now_ms` is the wall clock in Unix milliseconds.
pub async fn insert(connection: &mut SqliteConnection, new: &NewDelivery, now_ms: i64) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO hawkeye_delivery (target, kind, lane, body, due_at, created_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&new.target)
    .bind(new.kind.as_str())
    .bind(&new.lane)
    .bind(&new.body)
    .bind(now_ms)
    .bind(now_ms / 1000)
    .execute(connection)
    .await?;
    Ok(())
}

/// Up to `limit` deliveries to `target` that may be tried now, the longest due first.
pub async fn due(portal: &Portal, target: &str, now_ms: i64, limit: usize) -> sqlx::Result<Vec<Delivery>> {
    let rows: Vec<(i64, String, String, String, i64, i64)> = sqlx::query_as(
        "SELECT id, kind, lane, body, attempts, created_at FROM hawkeye_delivery AS d
         WHERE target = ?1 AND due_at <= ?2 AND NOT EXISTS (
           SELECT 1 FROM hawkeye_delivery AS e WHERE e.target = d.target AND e.lane = d.lane AND e.id < d.id)
         ORDER BY due_at, id LIMIT ?3",
    )
    .bind(target)
    .bind(now_ms)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(portal.pool())
    .await?;
    let delivery = |(id, kind, lane, body, attempts, created_at): (i64, String, String, String, i64, i64)| Delivery {
        id,
        target: target.to_string(),
        kind: Kind::parse(&kind),
        lane,
        body,
        attempts,
        created_at,
    };
    Ok(rows.into_iter().map(delivery).collect())
}

/// When the next delivery to `target` after `now_ms` is due; None when there is none.
pub async fn next_due(portal: &Portal, target: &str, now_ms: i64) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("SELECT min(due_at) FROM hawkeye_delivery WHERE target = ? AND due_at > ?")
        .bind(target)
        .bind(now_ms)
        .fetch_one(portal.pool())
        .await
}

/// All targets that something waits for.
pub async fn targets(portal: &Portal) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT DISTINCT target FROM hawkeye_delivery").fetch_all(portal.pool()).await
}

pub async fn count(connection: &mut SqliteConnection) -> sqlx::Result<u64> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM hawkeye_delivery").fetch_one(connection).await?;
    Ok(count.unsigned_abs())
}

/// False when the row was gone already (given up meanwhile).
pub async fn delete(connection: &mut SqliteConnection, id: i64) -> sqlx::Result<bool> {
    let done = sqlx::query("DELETE FROM hawkeye_delivery WHERE id = ?").bind(id).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

/// False when the row was gone already.
pub async fn retry_at(connection: &mut SqliteConnection, id: i64, due_ms: i64, error: &str) -> sqlx::Result<bool> {
    let sql = "UPDATE hawkeye_delivery SET attempts = attempts + 1, due_at = ?, last_error = ? WHERE id = ?";
    let done = sqlx::query(sql).bind(due_ms).bind(error).bind(id).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes the `count` oldest deliveries; returns how many there were.
pub async fn drop_oldest(connection: &mut SqliteConnection, count: u64) -> sqlx::Result<u64> {
    let sql = "DELETE FROM hawkeye_delivery WHERE id IN (SELECT id FROM hawkeye_delivery ORDER BY id LIMIT ?)";
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    Ok(sqlx::query(sql).bind(count).execute(connection).await?.rows_affected())
}

/// Deletes up to `limit` deliveries that were made before `cutoff` (Unix seconds); returns how many.
pub async fn drop_older(connection: &mut SqliteConnection, cutoff: i64, limit: i64) -> sqlx::Result<u64> {
    let sql = "DELETE FROM hawkeye_delivery WHERE created_at < ? AND id IN (SELECT id FROM hawkeye_delivery ORDER BY id LIMIT ?)";
    Ok(sqlx::query(sql).bind(cutoff).bind(limit).execute(connection).await?.rows_affected())
}

/// Makes due what is due only after `latest_ms`: the clock was set back.
pub async fn pull_in(connection: &mut SqliteConnection, latest_ms: i64) -> sqlx::Result<u64> {
    let sql = "UPDATE hawkeye_delivery SET due_at = ?1 WHERE due_at > ?1";
    Ok(sqlx::query(sql).bind(latest_ms).execute(connection).await?.rows_affected())
}
