//! Schema: whether a portal's file has the tables and columns that its version has.
//!
//! Why: SQLite takes what stands in its schema for true. Of one flipped bit in a column's name its check says nothing;
//! the statement that asks for the column fails, mostly at the first event.
//! How: the tables and columns are those of a new portal, made in memory. Then a row without values is compiled, and
//! not inserted, into each table: that names its defaults, its collations, and the tables that it refers to.
//! Invariants: the file is only read. Tables and columns of a site's own are no fault, and so is no case of a name.
//! Memory: some two hundred names, for the milliseconds that it takes.

use super::fault;
use super::sqlite::TABLES;
use anyhow::{Context, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::collections::BTreeSet;

/// A table and a column of it, in small letters.
type Column = (String, String);

/// What is wrong with the schema of a portal that is up to date; none where nothing is. Fails where it cannot be read.
pub async fn fault(connection: &mut SqliteConnection) -> Result<Option<String>> {
    let wanted = wanted().await.context("cannot make tables in memory")?;
    let found = columns(connection).await.context("cannot read the schema")?;
    if let Some((table, column)) = wanted.difference(&found).next() {
        return Ok(Some(format!("its table {table} has no column {column}")));
    }
    let tables: BTreeSet<&String> = wanted.iter().map(|(table, _)| table).collect();
    for table in tables {
        // The names are those of a new portal.
        let sql = AssertSqlSafe(format!("EXPLAIN INSERT INTO {table} DEFAULT VALUES"));
        match sqlx::raw_sql(sql).execute(&mut *connection).await {
            Err(error) if fault::of(&error).is_none() => return Ok(Some(format!("its table {table}: {error}"))),
            compiled => compiled.context("cannot read the schema")?,
        };
    }
    Ok(None)
}

async fn wanted() -> sqlx::Result<BTreeSet<Column>> {
    let mut memory = SqliteConnectOptions::new().in_memory(true).connect().await?;
    for sql in TABLES {
        sqlx::raw_sql(sql).execute(&mut memory).await?;
    }
    let wanted = columns(&mut memory).await?;
    memory.close().await?;
    Ok(wanted)
}

async fn columns(connection: &mut SqliteConnection) -> sqlx::Result<BTreeSet<Column>> {
    let sql = "SELECT lower(m.name), lower(c.name) FROM sqlite_master AS m, pragma_table_info(m.name) AS c
               WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    Ok(sqlx::query_as(sql).fetch_all(connection).await?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::super::sqlite::open;
    use super::*;
    use crate::watch::health::Health;
    use std::path::Path;

    /// The file `to`, made of `from` with the statement run over its schema; answers why a start refuses it.
    async fn refused(from: &Path, to: &Path, change: String) -> Result<String> {
        std::fs::copy(from, to)?;
        let mut connection = SqliteConnectOptions::new().filename(to).connect().await?;
        let change = format!("PRAGMA writable_schema = ON; {change}");
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut connection).await?;
        connection.close().await?;
        let refused = open(to, false, &Health::default()).await.err();
        Ok(format!("{:#}", refused.context("a portal that lacks something was taken")?))
    }

    fn names_ways_out(why: &str) -> bool {
        why.contains("damaged: restore a backup") && why.contains("--new-portal")
    }

    /// The statement that flips a bit at the end of the text `from` in the schema of `table`.
    fn flip(table: &str, from: &str, kept: &str) -> String {
        let mut bytes = from.as_bytes().to_vec();
        *bytes.last_mut().expect("a text") ^= 1;
        let to = String::from_utf8(bytes).expect("ASCII");
        format!(
            "UPDATE sqlite_master SET sql = replace(sql, '{from}{kept}', '{to}{kept}') WHERE name = '{table}' AND type = 'table'"
        )
    }

    /// SQLite's own check finds nothing wrong with most of these.
    #[tokio::test]
    async fn a_column_that_lost_its_name_ends_the_start() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (whole, copy) = (dir.path().join("whole.db"), dir.path().join("copy.db"));
        open(&whole, true, &Health::default()).await?.db.close().await;
        let mut connection = SqliteConnectOptions::new().filename(&whole).connect().await?;
        let columns: Vec<(String, String)> = sqlx::query_as(
            "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'",
        )
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        assert!(columns.len() > 150, "{columns:?}");
        let mut unseen = 0;
        for (table, column) in &columns {
            let why = refused(&whole, &copy, flip(table, &format!("\n  {column}"), " ")).await?;
            assert!(names_ways_out(&why), "{table}.{column}: {why}");
            unseen += usize::from(why.contains(&format!("table {table} has no column {column}")));
        }
        assert!(unseen > 100, "{unseen} that only a comparison sees");
        Ok(())
    }

    #[tokio::test]
    async fn a_schema_that_no_row_fits_ends_the_start() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (whole, copy) = (dir.path().join("whole.db"), dir.path().join("copy.db"));
        open(&whole, true, &Health::default()).await?.db.close().await;
        for change in [
            flip("team", "COLLATE NOCASE", ""),
            flip("mockcfg", "(datetime", ""),
            flip("events", "REFERENCES event_cases", " "),
            flip("event_note", "REFERENCES user (id", ")"),
            "DELETE FROM sqlite_master WHERE name = 'action'".to_string(),
        ] {
            let why = refused(&whole, &copy, change.clone()).await?;
            assert!(names_ways_out(&why), "{change}: {why}");
        }
        Ok(())
    }

    /// The step to the next version does not find its tables, or what it leads to lacks a column.
    #[tokio::test]
    async fn a_damaged_schema_of_an_older_version_ends_the_start() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (whole, copy) = (dir.path().join("whole.db"), dir.path().join("copy.db"));
        open(&whole, true, &Health::default()).await?.db.close().await;
        let second =
            "DROP INDEX idx_hawkeye_delivery_priority; DROP INDEX idx_event_cases_update; PRAGMA user_version = 2;
                      ALTER TABLE hawkeye_delivery DROP COLUMN begun_at; ALTER TABLE event_cases DROP COLUMN told;
                      ALTER TABLE hawkeye_delivery DROP COLUMN priority; DROP TABLE hawkeye_token;
                      DROP TABLE hawkeye_audit; DROP TABLE hawkeye_exception; DROP TABLE hawkeye_probe;
                      DROP TABLE hawkeye_probe_state; DROP TABLE hawkeye_job; DROP TABLE hawkeye_agent;";
        let first = format!("{second} ALTER TABLE events DROP COLUMN explanation; PRAGMA user_version = 1;");
        for older in [second, &first] {
            for (table, column, told) in [
                ("event_cases", "update_at", "no such column: update_at"),
                ("hawkeye_delivery", "body", "table hawkeye_delivery has no column body"),
            ] {
                let why = refused(&whole, &copy, format!("{older} {}", flip(table, column, " "))).await?;
                assert!(names_ways_out(&why) && why.contains(told), "{why}");
            }
        }
        Ok(())
    }

    /// Columns and tables of a site's own, and names in another case, are no damage.
    #[tokio::test]
    async fn what_a_site_has_added_is_no_damage() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("portal.db");
        open(&path, true, &Health::default()).await?.db.close().await;
        let mut own = SqliteConnectOptions::new().filename(&path).connect().await?;
        let sql = "CREATE TABLE cmdb (id INTEGER PRIMARY KEY); ALTER TABLE host ADD COLUMN rack TEXT;
                   ALTER TABLE grp RENAME COLUMN come_from TO COME_FROM";
        sqlx::raw_sql(sql).execute(&mut own).await?;
        own.close().await?;
        let opened = open(&path, false, &Health::default()).await?;
        assert!(opened.is_whole);
        opened.db.close().await;
        Ok(())
    }
}
