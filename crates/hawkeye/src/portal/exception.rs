//! Exceptions (`falcon_portal.hawkeye_exception`): where a strategy has another threshold or number of messages, or
//! does not hold, as rows.
//!
//! Why: one noisy host, or one disk that is full on purpose, needs no copy of its template
//! (open-falcon/falcon-plus#498).
//! How: a row is about one strategy and one host, group or tag value. What it leaves out is the strategy's. Which of
//! several rows counts is in `rules/except.rs`.
//! Invariants: a strategy has at most one row per kind and target; rows go with their strategy, and those of a group
//! with the group.
//! Compat: the table is Hawkeye's own. An old api or dashboard shows the strategy unchanged, and leaves rows behind
//! that nobody reads when it deletes one.

use super::Portal;
use super::db::fault;
use super::db::{Query, Record, Salvaged, Target, Transaction, query, record, salvage, select};
use serde::Serialize;

/// Length of the column `target`, in characters.
pub const TARGET_MAX: usize = 255;
/// Length of the column `note`, in characters.
pub const NOTE_MAX: usize = 128;
/// Rows of one strategy; a list that is longer is a template of its own.
pub const ROWS_MAX: usize = 1000;
/// Rows about tags of one strategy: each is a rule of its own on every host.
pub const TAG_ROWS_MAX: usize = 64;

/// Kind of a row whose target is an endpoint.
pub const HOST: &str = "host";
/// Kind of a row whose target is the name of a group.
pub const GROUP: &str = "group";
/// Kind of a row whose target is a tag, `key=value`.
pub const TAG: &str = "tag";

record! {
    /// Row of an exception, as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Exception {
        pub id: i64,
        pub strategy_id: i64,
        /// [`HOST`], [`GROUP`] or [`TAG`].
        pub kind: String,
        pub target: String,
        /// "" is the strategy's.
        pub right_value: String,
        /// 0 is the strategy's.
        pub max_step: i64,
        /// 1 where the strategy does not hold.
        pub pause: i64,
        pub note: String,
        pub create_user: String,
        /// Unix seconds.
        pub create_at: i64,
    }
}

impl Exception {
    /// Whether the strategy does not hold there.
    pub fn is_pause(&self) -> bool {
        self.pause != 0
    }

    /// Key and value of the tag, where the row is about one.
    pub fn tag(&self) -> Option<(&str, &str)> {
        if self.kind == TAG { self.target.split_once('=') } else { None }
    }

    /// The bytes of its texts, for the memory ledger.
    pub fn text_bytes(&self) -> usize {
        let texts = [&self.kind, &self.target, &self.right_value, &self.note, &self.create_user];
        texts.into_iter().map(String::capacity).sum()
    }
}

/// All exceptions that can be read, in no order. An Open-Falcon's MySQL, over which hbs runs alone, has no such table,
/// and no exception.
pub async fn that_read(transaction: &mut Transaction) -> sqlx::Result<Salvaged<Exception>> {
    match salvage(transaction, Exception::COLUMNS, "falcon_portal.hawkeye_exception").await {
        Err(error) if fault::is_missing_table(&error) => Ok(Salvaged { rows: Vec::new(), lost: None }),
        read => read,
    }
}

/// All exceptions, oldest first.
pub async fn all(on: impl Into<Target<'_>>) -> sqlx::Result<Vec<Exception>> {
    select::<Exception>("FROM falcon_portal.hawkeye_exception ORDER BY id").all(on).await
}

/// Exceptions of a strategy, oldest first.
pub async fn of_strategy(portal: &Portal, strategy_id: i64) -> sqlx::Result<Vec<Exception>> {
    select::<Exception>("FROM falcon_portal.hawkeye_exception WHERE strategy_id = ? ORDER BY id")
        .bind(strategy_id)
        .all(portal)
        .await
}

/// Exceptions of the strategies of a template, oldest first.
pub async fn of_template(portal: &Portal, tpl_id: i64) -> sqlx::Result<Vec<Exception>> {
    select::<Exception>(
        "FROM falcon_portal.hawkeye_exception
         WHERE strategy_id IN (SELECT id FROM falcon_portal.strategy WHERE tpl_id = ?) ORDER BY id",
    )
    .bind(tpl_id)
    .all(portal)
    .await
}

/// Exceptions for a group, oldest first.
pub async fn of_group(portal: &Portal, name: &str) -> sqlx::Result<Vec<Exception>> {
    select::<Exception>("FROM falcon_portal.hawkeye_exception WHERE kind = ? AND target = ? ORDER BY id")
        .bind(GROUP)
        .bind(name)
        .all(portal)
        .await
}

/// Finds an exception by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Exception>> {
    select::<Exception>("FROM falcon_portal.hawkeye_exception WHERE id = ?").bind(id).optional(portal).await
}

/// Saves a new exception, whose id is ignored; answers it with its id. A second one of strategy, kind and target is a
/// unique violation.
pub async fn create(portal: &Portal, new: Exception) -> sqlx::Result<Exception> {
    let id = insert(portal, &new).await?;
    portal.announce();
    Ok(Exception { id, ..new })
}

/// As [`create`], inside a transaction; the caller announces it.
pub async fn insert(on: impl Into<Target<'_>>, new: &Exception) -> sqlx::Result<i64> {
    let insert = query(
        "INSERT INTO falcon_portal.hawkeye_exception (right_value, max_step, pause, note, strategy_id, kind, target,
         create_user, create_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let done = bind(insert, new)
        .bind(new.strategy_id)
        .bind(&new.kind)
        .bind(&new.target)
        .bind(&new.create_user)
        .bind(new.create_at)
        .execute(on)
        .await?;
    Ok(done.id)
}

/// Saves what an exception changes; what it is about stays.
pub async fn update(portal: &Portal, changed: &Exception) -> sqlx::Result<()> {
    change(portal, changed).await?;
    portal.announce();
    Ok(())
}

/// As [`update`], inside a transaction; the caller announces it.
pub async fn change(on: impl Into<Target<'_>>, changed: &Exception) -> sqlx::Result<()> {
    let update = query(
        "UPDATE falcon_portal.hawkeye_exception SET right_value = ?, max_step = ?, pause = ?, note = ? WHERE id = ?",
    );
    bind(update, changed).bind(changed.id).execute(on).await?;
    Ok(())
}

/// Binds what may change.
fn bind(query: Query, row: &Exception) -> Query {
    query.bind(&row.right_value).bind(row.max_step).bind(row.pause).bind(&row.note)
}

/// Deletes an exception, if it is there.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    remove(portal, id).await?;
    portal.announce();
    Ok(())
}

/// As [`delete`], inside a transaction; the caller announces it.
pub async fn remove(on: impl Into<Target<'_>>, id: i64) -> sqlx::Result<()> {
    query("DELETE FROM falcon_portal.hawkeye_exception WHERE id = ?").bind(id).execute(on).await?;
    Ok(())
}

/// Deletes the exceptions of a strategy.
pub(super) async fn remove_of_strategy(transaction: &mut Transaction, strategy_id: i64) -> sqlx::Result<()> {
    let sql = "DELETE FROM falcon_portal.hawkeye_exception WHERE strategy_id = ?";
    query(sql).bind(strategy_id).execute(transaction).await?;
    Ok(())
}

/// Deletes the exceptions of a template's strategies, which are still there.
pub(super) async fn remove_of_template(transaction: &mut Transaction, tpl_id: i64) -> sqlx::Result<()> {
    query(
        "DELETE FROM falcon_portal.hawkeye_exception
         WHERE strategy_id IN (SELECT id FROM falcon_portal.strategy WHERE tpl_id = ?)",
    )
    .bind(tpl_id)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Takes the exceptions of a group along to its new name.
pub(super) async fn rename_group(transaction: &mut Transaction, old: &str, new: &str) -> sqlx::Result<()> {
    let sql = "UPDATE falcon_portal.hawkeye_exception SET target = ? WHERE kind = ? AND target = ?";
    query(sql).bind(new).bind(GROUP).bind(old).execute(transaction).await?;
    Ok(())
}

/// Deletes the exceptions of a group.
pub(super) async fn remove_of_group(transaction: &mut Transaction, name: &str) -> sqlx::Result<()> {
    let sql = "DELETE FROM falcon_portal.hawkeye_exception WHERE kind = ? AND target = ?";
    query(sql).bind(GROUP).bind(name).execute(transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::strategy::{self, Strategy};
    use crate::portal::tests::temporary;
    use crate::portal::{group, template};
    use anyhow::Result;

    fn row(strategy_id: i64, kind: &str, target: &str) -> Exception {
        let (kind, target) = (kind.to_string(), target.to_string());
        Exception { strategy_id, kind, target, right_value: "5".into(), ..Exception::default() }
    }

    #[tokio::test]
    async fn an_exception_is_there_once_and_goes_with_what_it_is_about() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let tpl_id = template::create(&portal, "t", 0, 0, "root").await?.id;
        let new = Strategy { tpl_id, ..Strategy::default() };
        let (a, b) = (strategy::create(&portal, &new).await?, strategy::create(&portal, &new).await?);
        let group = group::create(&portal, "web", "root").await?.id;
        let first = create(&portal, row(a, HOST, "h")).await?;
        let taken = create(&portal, row(a, HOST, "h")).await.expect_err("there already");
        assert!(taken.as_database_error().is_some_and(|error| error.is_unique_violation()), "{taken}");
        for (id, kind, target) in [(b, HOST, "h"), (a, TAG, "mount=/"), (b, GROUP, "web"), (a, GROUP, "other")] {
            create(&portal, row(id, kind, target)).await?;
        }
        let changed = Exception { pause: 1, right_value: String::new(), note: "n".into(), ..first.clone() };
        update(&portal, &Exception { target: "ignored".into(), ..changed.clone() }).await?;
        assert_eq!(by_id(&portal, first.id).await?, Some(changed));
        let left = async || -> Result<String> {
            let rows = all(&portal).await?.into_iter();
            Ok(rows.map(|row| format!("{}{}", if row.strategy_id == a { "a:" } else { "b:" }, row.target)).collect())
        };
        group::rename(&portal, group, "front").await?;
        assert_eq!(left().await?, "a:hb:ha:mount=/b:fronta:other");
        group::delete(&portal, group).await?;
        assert_eq!(left().await?, "a:hb:ha:mount=/a:other");
        delete(&portal, first.id).await?;
        assert_eq!(of_strategy(&portal, a).await?.len(), 2);
        strategy::delete(&portal, a).await?;
        assert_eq!(left().await?, "b:h");
        template::delete(&portal, tpl_id).await?;
        assert_eq!(left().await?, "");
        Ok(())
    }
}
