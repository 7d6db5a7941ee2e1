//! Index: which endpoints and counters there are, from the MySQL tables that old graphs write (`graph.endpoint`,
//! `endpoint_counter`).
//!
//! How: names are read in pages and matched here, so that a regular expression of a user costs linear time, means the
//! same as over an own store, and can hold up no database. Nothing is written but for deletions, which take the rows
//! away as the original's api does.
//! Invariants: an answer of MySQL is waited for [`ANSWER_WITHIN`]; a search ends with its page, or with an error where
//! [`COUNTERS_MAX`] rows were looked at. Names are the same when MySQL says so.
//! Memory: a page of names, and the answer; at most [`CONNECTIONS_MAX`] connections.
//! Compat: docs/open-falcon/graph.md §6, control-plane.md §4 "Graph data".

use crate::config::MysqlUrl;
use crate::watch::health::{Health, Outage};
use anyhow::{Context, Result};
use sqlx::mysql::{MySqlArguments, MySqlPool, MySqlPoolOptions, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Error, MySql, Row as _};
use std::collections::HashSet;
use std::io;
use std::time::Duration;

/// The database that the original's configuration names.
const DATABASE: &str = "graph";
/// Connections at most: searches of some users at a time.
const CONNECTIONS_MAX: u32 = 4;
/// A statement that takes longer is given up, so that no user waits for a database that hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Endpoints that are read together.
const PAGE_ROWS: usize = 2_000;
/// Names or ids of one statement.
const NAMES_MAX: usize = 64;
/// Counters that one search looks at; a host of an agent has some 200.
const COUNTERS_MAX: usize = 200_000;

/// A row of `endpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRow {
    pub id: u64,
    pub endpoint: String,
    pub ts: i64,
}

/// A row of `endpoint_counter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRow {
    pub endpoint_id: u64,
    pub counter: String,
    pub step: i64,
    pub ds_type: String,
}

/// Part of an answer that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub offset: usize,
    pub limit: usize,
}

/// The tables; connections are made when they are needed.
pub struct Index {
    pool: MySqlPool,
    outage: Outage,
}

type Statement<'q> = Query<'q, MySql, MySqlArguments>;

impl Index {
    /// The index at this URL; none without one.
    pub fn open(url: &MysqlUrl, health: &Health) -> Result<Option<Index>> {
        if url.is_none() {
            return Ok(None);
        }
        let options = url.options(DATABASE).context("graph.index_url is no URL")?;
        let pool = MySqlPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ANSWER_WITHIN)
            .connect_lazy_with(options.timezone(None));
        let outage = health.outage("the index of old graphs (graph.index_url) cannot be read; no series is found");
        Ok(Some(Index { pool, outage }))
    }

    /// Endpoints whose name is taken, and of which some counter has all `terms` in it, in the order of their ids.
    pub async fn endpoints(
        &self,
        takes: &(dyn Fn(&str) -> bool + Sync),
        terms: &[String],
        page: Page,
    ) -> Result<Vec<EndpointRow>, String> {
        let (mut found, mut after, wanted) = (Vec::new(), 0_u64, page.offset.saturating_add(page.limit));
        while found.len() < wanted {
            let sql = format!("{ENDPOINT_COLUMNS} WHERE id > ? ORDER BY id LIMIT {PAGE_ROWS}");
            let rows = self.rows(sqlx::query(AssertSqlSafe(sql)).bind(after)).await?;
            let rows = rows.iter().map(endpoint_row).collect::<Result<Vec<_>, _>>();
            let rows = self.noted(rows)?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            let mut taken: Vec<EndpointRow> = rows.into_iter().filter(|row| takes(&row.endpoint)).collect();
            if !terms.is_empty() {
                let having = self.having(&taken, terms).await?;
                taken.retain(|row| having.contains(&row.id));
            }
            found.extend(taken);
        }
        Ok(found.into_iter().skip(page.offset).take(page.limit).collect())
    }

    /// Ids of those endpoints of which some counter has all `terms` in it.
    async fn having(&self, rows: &[EndpointRow], terms: &[String]) -> Result<HashSet<u64>, String> {
        let mut having = HashSet::new();
        for part in rows.chunks(NAMES_MAX) {
            let like = " AND counter LIKE ?".repeat(terms.len());
            let sql = format!(
                "SELECT DISTINCT CAST(endpoint_id AS UNSIGNED) FROM endpoint_counter WHERE endpoint_id IN ({}){like}",
                marks(part.len())
            );
            let statement = bind_all(sqlx::query(AssertSqlSafe(sql)), part.iter().map(|row| row.id));
            let statement = terms.iter().fold(statement, |statement, term| statement.bind(containing(term)));
            for row in self.rows(statement).await? {
                having.insert(self.noted(row.try_get_unchecked::<u64, _>(0))?);
            }
        }
        Ok(having)
    }

    /// The endpoints that have these names, in any order.
    pub async fn named(&self, names: &[String]) -> Result<Vec<EndpointRow>, String> {
        let mut found = Vec::new();
        for part in names.chunks(NAMES_MAX) {
            let sql = format!("{ENDPOINT_COLUMNS} WHERE endpoint IN ({})", marks(part.len()));
            let rows = self.rows(bind_all(sqlx::query(AssertSqlSafe(sql)), part.iter().cloned())).await?;
            let rows = rows.iter().map(endpoint_row).collect::<Result<Vec<_>, _>>();
            found.extend(self.noted(rows)?);
        }
        Ok(found)
    }

    /// Counters of these endpoints that are taken, endpoint by endpoint.
    pub async fn counters(
        &self,
        ids: &[u64],
        takes: &(dyn Fn(&str) -> bool + Sync),
        page: Page,
    ) -> Result<Vec<CounterRow>, String> {
        let (mut found, mut seen, wanted) = (Vec::new(), 0, page.offset.saturating_add(page.limit));
        for part in ids.chunks(NAMES_MAX) {
            if found.len() >= wanted {
                break;
            }
            let sql = format!(
                "SELECT CAST(endpoint_id AS UNSIGNED), counter, CAST(step AS SIGNED), type FROM endpoint_counter \
                 WHERE endpoint_id IN ({}) ORDER BY endpoint_id, id LIMIT {COUNTERS_MAX}",
                marks(part.len())
            );
            let rows = self.rows(bind_all(sqlx::query(AssertSqlSafe(sql)), part.iter().copied())).await?;
            seen += rows.len();
            if seen >= COUNTERS_MAX {
                return Err(format!("more than {COUNTERS_MAX} counters to look through: name fewer endpoints"));
            }
            let rows = rows.iter().map(counter_row).collect::<Result<Vec<_>, _>>();
            found.extend(self.noted(rows)?.into_iter().filter(|row| takes(&row.counter)));
        }
        Ok(found.into_iter().skip(page.offset).take(page.limit).collect())
    }

    /// Takes endpoints away with all that belongs to them; answers how many rows of endpoints and of counters went.
    pub async fn remove_endpoints(&self, ids: &[u64]) -> Result<(u64, u64), String> {
        let (mut endpoints, mut counters) = (0, 0);
        for part in ids.chunks(NAMES_MAX) {
            self.remove("tag_endpoint", "endpoint_id", part).await?;
            counters += self.remove("endpoint_counter", "endpoint_id", part).await?;
            endpoints += self.remove("endpoint", "id", part).await?;
        }
        Ok((endpoints, counters))
    }

    async fn remove(&self, table: &str, column: &str, ids: &[u64]) -> Result<u64, String> {
        let sql = format!("DELETE FROM {table} WHERE {column} IN ({})", marks(ids.len()));
        self.changed(bind_all(sqlx::query(AssertSqlSafe(sql)), ids.iter().copied())).await
    }

    /// Takes one counter of an endpoint away; answers whether it was there.
    pub async fn remove_counter(&self, endpoint_id: u64, counter: &str) -> Result<bool, String> {
        let sql = "DELETE FROM endpoint_counter WHERE endpoint_id = ? AND counter = ?";
        Ok(self.changed(sqlx::query(sql).bind(endpoint_id).bind(counter.to_string())).await? > 0)
    }

    async fn rows(&self, statement: Statement<'_>) -> Result<Vec<MySqlRow>, String> {
        self.noted(within(statement.fetch_all(&self.pool)).await)
    }

    async fn changed(&self, statement: Statement<'_>) -> Result<u64, String> {
        self.noted(within(statement.execute(&self.pool)).await).map(|done| done.rows_affected())
    }

    /// Has a fault shown where an operator looks.
    fn noted<T>(&self, result: Result<T, Error>) -> Result<T, String> {
        result.inspect(|_| self.outage.works()).map_err(|error| {
            let why = format!("the index of old graphs (graph.index_url) does not answer: {error}");
            self.outage.fails(error.to_string());
            why
        })
    }
}

const ENDPOINT_COLUMNS: &str = "SELECT CAST(id AS UNSIGNED), endpoint, CAST(COALESCE(ts, 0) AS SIGNED) FROM endpoint";

async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(ANSWER_WITHIN, answer).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
        Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, text)))
    })
}

/// Marks for so many values, up to the next power of two: so few texts are kept prepared.
fn marks(count: usize) -> String {
    vec!["?"; count.next_power_of_two()].join(", ")
}

/// Binds values to such marks, the last of them as often as there are marks too many.
fn bind_all<'q, V>(statement: Statement<'q>, values: impl ExactSizeIterator<Item = V>) -> Statement<'q>
where
    V: Clone + 'q + sqlx::Encode<'q, MySql> + sqlx::Type<MySql>,
{
    let padding = values.len().next_power_of_two() - values.len();
    let (statement, last) = values.fold((statement, None), |(statement, _), value| {
        let last = Some(value.clone());
        (statement.bind(value), last)
    });
    std::iter::repeat_n(last, padding).flatten().fold(statement, |statement, value| statement.bind(value))
}

/// A pattern of LIKE for what has `term` in it.
fn containing(term: &str) -> String {
    format!("%{}%", term.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
}

/// A text of whatever character set and collation.
fn text(row: &MySqlRow, column: usize) -> Result<String, Error> {
    // Unchecked, for sites have changed the types of these columns.
    let bytes: Vec<u8> = row.try_get_unchecked(column)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn endpoint_row(row: &MySqlRow) -> Result<EndpointRow, Error> {
    Ok(EndpointRow { id: row.try_get_unchecked(0)?, endpoint: text(row, 1)?, ts: row.try_get_unchecked(2)? })
}

fn counter_row(row: &MySqlRow) -> Result<CounterRow, Error> {
    let (endpoint_id, counter) = (row.try_get_unchecked(0)?, text(row, 1)?);
    Ok(CounterRow { endpoint_id, counter, step: row.try_get_unchecked(2)?, ds_type: text(row, 3)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_few_lengths() {
        assert_eq!((marks(1), marks(3), marks(4)), ("?".into(), "?, ?, ?, ?".into(), "?, ?, ?, ?".into()));
        assert_eq!(containing("a_b%c\\"), "%a\\_b\\%c\\\\%");
    }
}
