//! SQLite: the portal in one file, `<data_dir>/portal.db`, in WAL mode.
//!
//! Invariants: a commit is on the disk when it returns; a file of an older version is brought up to date in one
//! transaction, and one of a newer version is left alone.
//! Memory: [`CACHE_KIB`] of page cache per connection.

use super::{CONNECTIONS_MAX, Db};
use anyhow::{Context, Result, bail};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use std::path::Path;
use std::time::Duration;

/// Page cache of one connection. The whole portal of a thousand hosts is a few MiB; SQLite's default is 2 MiB.
const CACHE_KIB: u32 = 512;
/// The steps that bring a file from each version to the next, beginning with version 1; sqlite.sql is where they lead
/// to.
const MIGRATIONS: [&str; 2] = [include_str!("sqlite_2.sql"), include_str!("sqlite_3.sql")];
const SCHEMA_VERSION: i64 = 1 + MIGRATIONS.len() as i64;

/// Opens `path`, creating the file and its tables when there are none.
pub async fn open(path: &Path) -> Result<Db> {
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
    Ok(Db::Sqlite(pool))
}

async fn create_tables(pool: &SqlitePool) -> Result<()> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(pool).await?;
    let steps = match found {
        0 => &[include_str!("sqlite.sql")][..],
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
mod tests {
    use super::*;

    async fn pool(path: &Path) -> Result<SqlitePool> {
        match open(path).await? {
            Db::Sqlite(pool) => Ok(pool),
            Db::MySql(..) => bail!("a file is SQLite's"),
        }
    }

    /// A file of version 1 has the tables of a new one when it was opened, and its rows.
    #[tokio::test]
    async fn an_older_file_is_brought_up_to_date() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let columns = async |pool: &SqlitePool| -> Result<Vec<String>> {
            let sql = "SELECT m.name || '.' || c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c
                       WHERE m.type = 'table' ORDER BY 1";
            Ok(sqlx::query_scalar(sql).fetch_all(pool).await?)
        };
        let new = pool(&dir.path().join("new.db")).await?;
        let path = dir.path().join("old.db");
        let old = pool(&path).await?;
        sqlx::raw_sql(
            "ALTER TABLE events DROP COLUMN explanation; ALTER TABLE hawkeye_delivery DROP COLUMN begun_at;
             ALTER TABLE event_cases DROP COLUMN told; PRAGMA user_version = 1;
             INSERT INTO events (step, cond) VALUES (1, 'kept');",
        )
        .execute(&old)
        .await?;
        assert_ne!(columns(&old).await?, columns(&new).await?);
        old.close().await;
        for _ in 0..2 {
            let again = pool(&path).await?;
            assert_eq!(columns(&again).await?, columns(&new).await?);
            let kept: String = sqlx::query_scalar("SELECT cond FROM events").fetch_one(&again).await?;
            assert_eq!(kept, "kept");
            again.close().await;
        }
        Ok(())
    }

    #[tokio::test]
    async fn creates_and_reopens() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("portal.db");
        pool(&path).await?.close().await;
        let again = pool(&path).await?;
        let tables: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
                .fetch_one(&again)
                .await?;
        assert_eq!(tables, 24);
        sqlx::raw_sql("PRAGMA user_version = 99").execute(&again).await?;
        again.close().await;
        let error = format!("{:#}", open(&path).await.err().context("must refuse a newer schema")?);
        assert!(error.contains("schema version is 99"), "{error}");
        Ok(())
    }
}
