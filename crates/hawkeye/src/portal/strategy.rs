//! Strategies (`falcon_portal.strategy`): the conditions of a template, as rows.
//!
//! Rows are texts, as the original keeps them; `rules.rs` makes rules of them, and the API checks them before they are saved.

use super::Portal;
use serde::Serialize;

/// The columns' lengths, in characters.
pub const METRIC_MAX: usize = 128;
pub const TAGS_MAX: usize = 256;
/// The original has 16; conditions of several functions are longer.
pub const FUNC_MAX: usize = 512;
pub const OP_MAX: usize = 8;
pub const RIGHT_VALUE_MAX: usize = 64;
pub const NOTE_MAX: usize = 128;
pub const RUN_MAX: usize = 16;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Strategy {
    pub id: i64,
    pub metric: String,
    pub tags: String,
    pub max_step: i64,
    pub priority: i64,
    pub func: String,
    pub op: String,
    pub right_value: String,
    pub note: String,
    /// "HH:MM", or "" when there is no window.
    pub run_begin: String,
    pub run_end: String,
    pub tpl_id: i64,
}

pub type Row = (i64, String, String, i64, i64, String, String, String, String, String, String, i64);

impl Strategy {
    /// Of its texts, for the memory ledger.
    pub fn text_bytes(&self) -> usize {
        let texts = [&self.metric, &self.tags, &self.func, &self.op, &self.right_value, &self.note];
        texts.into_iter().chain([&self.run_begin, &self.run_end]).map(String::capacity).sum()
    }
}

impl From<Row> for Strategy {
    fn from(row: Row) -> Strategy {
        Strategy {
            id: row.0,
            metric: row.1,
            tags: row.2,
            max_step: row.3,
            priority: row.4,
            func: row.5,
            op: row.6,
            right_value: row.7,
            note: row.8,
            run_begin: row.9,
            run_end: row.10,
            tpl_id: row.11,
        }
    }
}

pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Strategy>> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, metric, tags, max_step, priority, func, op, right_value, note, run_begin, run_end, tpl_id
         FROM strategy WHERE id = ?",
    )
    .bind(id)
    .fetch_optional(portal.pool())
    .await?;
    Ok(row.map(Strategy::from))
}

pub async fn of_template(portal: &Portal, tpl_id: i64) -> sqlx::Result<Vec<Strategy>> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, metric, tags, max_step, priority, func, op, right_value, note, run_begin, run_end, tpl_id
         FROM strategy WHERE tpl_id = ? ORDER BY id",
    )
    .bind(tpl_id)
    .fetch_all(portal.pool())
    .await?;
    Ok(rows.into_iter().map(Strategy::from).collect())
}

/// Saves a new strategy (its id is ignored) and returns its id.
pub async fn create(portal: &Portal, strategy: &Strategy) -> sqlx::Result<i64> {
    let done = sqlx::query(
        "INSERT INTO strategy (metric, tags, max_step, priority, func, op, right_value, note, run_begin, run_end, tpl_id)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&strategy.metric)
    .bind(&strategy.tags)
    .bind(strategy.max_step)
    .bind(strategy.priority)
    .bind(&strategy.func)
    .bind(&strategy.op)
    .bind(&strategy.right_value)
    .bind(&strategy.note)
    .bind(&strategy.run_begin)
    .bind(&strategy.run_end)
    .bind(strategy.tpl_id)
    .execute(portal.pool())
    .await?;
    portal.announce();
    Ok(done.last_insert_rowid())
}

/// Saves everything but the template that it belongs to.
pub async fn update(portal: &Portal, strategy: &Strategy) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE strategy SET metric = ?, tags = ?, max_step = ?, priority = ?, func = ?, op = ?, right_value = ?,
         note = ?, run_begin = ?, run_end = ? WHERE id = ?",
    )
    .bind(&strategy.metric)
    .bind(&strategy.tags)
    .bind(strategy.max_step)
    .bind(strategy.priority)
    .bind(&strategy.func)
    .bind(&strategy.op)
    .bind(&strategy.right_value)
    .bind(&strategy.note)
    .bind(&strategy.run_begin)
    .bind(&strategy.run_end)
    .bind(strategy.id)
    .execute(portal.pool())
    .await?;
    portal.announce();
    Ok(())
}

pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM strategy WHERE id = ?").bind(id).execute(portal.pool()).await?;
    portal.announce();
    Ok(())
}
