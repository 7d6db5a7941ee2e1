//! Portal: the control plane's tables (users, teams, hosts, groups, templates, strategies, expressions, alarms) and what
//! follows from them.
//!
//! Why: Open-Falcon spreads them over five MySQL databases that every component polls each minute. Here one file
//! (`<data_dir>/portal.db`, SQLite in WAL mode) holds them, and a change is announced at once.
//! How: queries are plain SQL through sqlx, one file per subject beside this one. Whoever writes a row that rules depend
//! on calls [`Portal::announce`] after its commit; hbs and judge wait on [`Portal::changes`].
//! Invariants: no row text can stop the process: rows are validated when saved, and what an old row holds is skipped and
//! counted when rules are computed.
//! Memory: at most [`CONNECTIONS_MAX`] SQLite connections with [`CACHE_KIB`] of page cache each.

pub mod action;
pub mod admin;
pub mod alarm;
pub mod caller;
pub mod delivery;
pub mod expression;
pub mod group;
pub mod host;
pub mod password;
pub mod plugin;
pub mod session;
pub mod strategy;
pub mod team;
pub mod template;
pub mod user;

use anyhow::{Context, Result, bail};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stdx::Ledger;
use tokio::sync::watch;

/// Readers do not block each other in WAL mode; writers take turns anyway. Four covers alarm, hbs and two API requests.
const CONNECTIONS_MAX: u32 = 4;
/// Page cache of one connection. The whole portal of a thousand hosts is a few MiB; SQLite's default is 2 MiB.
const CACHE_KIB: u32 = 512;
/// What brings a file from each version to the next, beginning with version 1. schema.sql is what they lead to.
const MIGRATIONS: [&str; 1] = [include_str!("schema_2.sql")];
const SCHEMA_VERSION: i64 = 1 + MIGRATIONS.len() as i64;

#[derive(Clone)]
pub struct Portal {
    pool: SqlitePool,
    version: Arc<watch::Sender<u64>>,
}

impl Portal {
    /// Opens `path`, creating the file and its tables when there are none.
    pub async fn open(path: &Path) -> Result<Portal> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .pragma("cache_size", format!("-{CACHE_KIB}"));
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_with(options)
            .await
            .with_context(|| format!("cannot open the portal's database {}", path.display()))?;
        create_tables(&pool).await.with_context(|| format!("cannot prepare {}", path.display()))?;
        Ok(Portal { pool, version: Arc::new(watch::Sender::new(1)) })
    }

    pub fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Names what SQLite holds in the ledger: of the C library's heap, in all connections of the process.
    pub fn register_memory(ledger: &Ledger) {
        ledger.source(|report| {
            // SAFETY: it only reads a counter, under a lock of SQLite's own.
            let bytes = unsafe { libsqlite3_sys::sqlite3_memory_used() };
            report.elsewhere("portal database", bytes.max(0) as u64, None);
        });
    }

    /// Begins a transaction that may write. It takes SQLite's write lock at once: a transaction that reads first and
    /// writes later would fail, not wait, when somebody else wrote in between.
    pub async fn write(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }

    /// Tells hbs and judge that rules, hosts, groups or plugins may have changed. Call it after the commit.
    pub fn announce(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// The number of announcements so far, plus one.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Sees a new value after each [`Portal::announce`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn create_tables(pool: &SqlitePool) -> Result<()> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(pool).await?;
    let steps = match found {
        0 => &[include_str!("schema.sql")][..],
        1..=SCHEMA_VERSION => &MIGRATIONS[(found - 1) as usize..],
        newer => bail!(
            "its schema version is {newer}, this program knows up to {SCHEMA_VERSION}: run the newer program that wrote it"
        ),
    };
    if steps.is_empty() {
        return Ok(());
    }
    let mut transaction = pool.begin().await?;
    for sql in steps {
        sqlx::raw_sql(*sql).execute(&mut *transaction).await?;
    }
    let version = format!("PRAGMA user_version = {SCHEMA_VERSION}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(version)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A portal in a directory of its own, which lives as long as the first value.
    pub(crate) async fn temporary() -> Result<(tempfile::TempDir, Portal)> {
        let dir = tempfile::tempdir()?;
        let portal = Portal::open(&dir.path().join("portal.db")).await?;
        Ok((dir, portal))
    }

    /// A file of version 1 has the tables of a new one when it was opened, and its rows.
    #[tokio::test]
    async fn an_older_file_is_brought_up_to_date() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let columns = async |portal: &Portal| -> Result<Vec<String>> {
            let sql = "SELECT m.name || '.' || c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c
                       WHERE m.type = 'table' ORDER BY 1";
            Ok(sqlx::query_scalar(sql).fetch_all(portal.pool()).await?)
        };
        let new = Portal::open(&dir.path().join("new.db")).await?;
        let path = dir.path().join("old.db");
        let old = Portal::open(&path).await?;
        sqlx::raw_sql(
            "ALTER TABLE events DROP COLUMN explanation; PRAGMA user_version = 1;
             INSERT INTO events (step, cond) VALUES (1, 'kept');",
        )
        .execute(old.pool())
        .await?;
        assert_ne!(columns(&old).await?, columns(&new).await?);
        old.close().await;
        for _ in 0..2 {
            let again = Portal::open(&path).await?;
            assert_eq!(columns(&again).await?, columns(&new).await?);
            let kept: String = sqlx::query_scalar("SELECT cond FROM events").fetch_one(again.pool()).await?;
            assert_eq!(kept, "kept");
            again.close().await;
        }
        Ok(())
    }

    #[tokio::test]
    async fn creates_and_reopens() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("portal.db");
        Portal::open(&path).await?.close().await;
        let portal = Portal::open(&path).await?;
        let tables: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
                .fetch_one(portal.pool())
                .await?;
        assert_eq!(tables, 24);
        sqlx::raw_sql("PRAGMA user_version = 99").execute(portal.pool()).await?;
        portal.close().await;
        let error = format!("{:#}", Portal::open(&path).await.err().context("must refuse a newer schema")?);
        assert!(error.contains("schema version is 99"), "{error}");
        Ok(())
    }
}
