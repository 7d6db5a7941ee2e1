//! Strategies (`falcon_portal.strategy`): the conditions of a template, as rows.
//!
//! Rows are texts, as the original keeps them: the API checks them before they are saved, and `rules/resolve.rs` makes
//! rules of them.

use super::db::{Record, Salvaged, Target, Transaction, query, record, salvage, select};
use super::{Portal, exception};
use serde::Serialize;

/// Length of the column `metric`, in characters.
pub const METRIC_MAX: usize = 128;
/// Length of the column `tags`, in characters.
pub const TAGS_MAX: usize = 256;
/// Characters of a condition: the original has 16, but conditions of several functions are longer.
pub const FUNC_MAX: usize = 512;
/// Length of the column `op`, in characters.
pub const OP_MAX: usize = 8;
/// Length of the column `right_value`, in characters.
pub const RIGHT_VALUE_MAX: usize = 64;
/// Length of the column `note`, in characters.
pub const NOTE_MAX: usize = 128;
/// Length of the columns `run_begin` and `run_end`, in characters.
pub const RUN_MAX: usize = 16;

record! {
    /// Row of a strategy, as the API shows it.
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
}

impl Strategy {
    /// The bytes of its texts, for the memory ledger.
    pub fn text_bytes(&self) -> usize {
        let texts = [&self.metric, &self.tags, &self.func, &self.op, &self.right_value, &self.note];
        texts.into_iter().chain([&self.run_begin, &self.run_end]).map(String::capacity).sum()
    }
}

/// All strategies that can be read, in no order.
pub async fn all(transaction: &mut Transaction) -> sqlx::Result<Salvaged<Strategy>> {
    salvage(transaction, Strategy::COLUMNS, "falcon_portal.strategy").await
}

/// Finds a strategy by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Strategy>> {
    select::<Strategy>("FROM falcon_portal.strategy WHERE id = ?").bind(id).optional(portal).await
}

/// Strategies of these ids, as far as they are there.
pub async fn of_ids(portal: &Portal, ids: impl IntoIterator<Item = i64>) -> sqlx::Result<Vec<Strategy>> {
    select::<Strategy>("FROM falcon_portal.strategy WHERE id").in_list(ids).all(portal).await
}

/// Strategies of a template, oldest first.
pub async fn of_template(portal: &Portal, tpl_id: i64) -> sqlx::Result<Vec<Strategy>> {
    select::<Strategy>("FROM falcon_portal.strategy WHERE tpl_id = ? ORDER BY id").bind(tpl_id).all(portal).await
}

/// Saves a new strategy (its id is ignored) and returns its id.
pub async fn create(portal: &Portal, strategy: &Strategy) -> sqlx::Result<i64> {
    let id = insert(portal, strategy).await?;
    portal.announce_strategy(id);
    Ok(id)
}

/// As [`create`], inside a transaction; the caller announces it.
pub async fn insert(on: impl Into<Target<'_>>, strategy: &Strategy) -> sqlx::Result<i64> {
    let done = query(
        "INSERT INTO falcon_portal.strategy (metric, tags, max_step, priority, func, op, right_value, note, run_begin,
         run_end, tpl_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
    .execute(on)
    .await?;
    Ok(done.id)
}

/// Saves everything but the template that it belongs to.
pub async fn update(portal: &Portal, strategy: &Strategy) -> sqlx::Result<()> {
    change(portal, strategy).await?;
    portal.announce_strategy(strategy.id);
    Ok(())
}

/// As [`update`], inside a transaction; the caller announces it.
pub async fn change(on: impl Into<Target<'_>>, strategy: &Strategy) -> sqlx::Result<()> {
    query(
        "UPDATE falcon_portal.strategy SET metric = ?, tags = ?, max_step = ?, priority = ?, func = ?, op = ?,
         right_value = ?, note = ?, run_begin = ?, run_end = ? WHERE id = ?",
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
    .execute(on)
    .await?;
    Ok(())
}

/// Deletes a strategy with its exceptions, if it is there.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    remove(&mut transaction, id).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(())
}

/// As [`delete`], inside a transaction; the caller announces it.
pub async fn remove(transaction: &mut Transaction, id: i64) -> sqlx::Result<()> {
    exception::remove_of_strategy(transaction, id).await?;
    query("DELETE FROM falcon_portal.strategy WHERE id = ?").bind(id).execute(transaction).await?;
    Ok(())
}
