//! Tables: Open-Falcon's index in MySQL, `endpoint`, `tag_endpoint` and `endpoint_counter`, and how a page of series is
//! written to them.
//!
//! How: for each table what is there is read first, by its unique key; rows that are missing are inserted, rows that
//! are behind are written again *with their id*. `INSERT … ON DUPLICATE KEY UPDATE` alone would do, as in the original,
//! but it takes a new number from the table's 32-bit counter for every row that was there already: a million series
//! refreshed four times a day would use the counter up within three years. Statements have up to [`ROWS_MAX`] rows;
//! every value is bound.
//! Invariants: writing a page twice changes nothing the second time; a `ts` never goes back; one row that MySQL does
//! not take (a column of another size or character set) is counted and keeps no other from being written; rows of one
//! table are sent in the order of their keys, so that two writers wait for each other instead of locking each other
//! out.
//! Compat: docs/open-falcon/graph.md §6. Names are the same when MySQL says so: its utf8_general_ci ignores case,
//! accents and spaces at the end, so `Web` and `web` share a row there, as they do with the original.

use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Error, MySql, MySqlConnection, Row as _};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::Duration;

/// Rows of one statement. With texts of 255 characters it stays below half of the smallest `max_allowed_packet` (1
/// MiB).
pub const ROWS_MAX: usize = 512;
const _: () = assert!(ROWS_MAX.is_power_of_two() && ROWS_MAX * (3 * TEXT_CHARS_MAX + 64) < 1 << 19);
/// Prepared statements of a connection: two kinds for each of three tables, in the sizes from 1 to [`ROWS_MAX`].
const STATEMENTS_MAX: usize = 2 * 3 * (ROWS_MAX.ilog2() as usize + 1);
/// The length of the text columns, in characters of at most three bytes.
const TEXT_CHARS_MAX: usize = 255;
/// A connection or a statement that takes longer is given up, and tried again.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// A `ts` further ahead of the clock than a day was nonsense when it was written (the original takes points from the
/// future), and is put right.
const AHEAD_MAX_S: i64 = 86_400;

/// One series, as the index shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub endpoint: String,
    /// `metric` or `metric/tags`.
    pub counter: String,
    /// Canonical, `k=v,k2=v2`.
    pub tags: String,
    pub step: u32,
    /// GAUGE or DERIVE.
    pub ds_type: &'static str,
    /// The time of its newest point.
    pub ts: i64,
    /// Rows that are missing are made; otherwise only those that are there are refreshed.
    pub create: bool,
}

impl Series {
    /// The column that has no room for its text of this series, if there is one. Each tag is a part of the counter.
    pub fn misfit(&self) -> Option<&'static str> {
        let fits = |text: &str| text.chars().count() <= TEXT_CHARS_MAX && text.chars().all(|c| c <= '\u{ffff}');
        match (fits(&self.endpoint), fits(&self.counter)) {
            (false, _) => Some("endpoint.endpoint"),
            (true, false) => Some("endpoint_counter.counter"),
            (true, true) => None,
        }
    }
}

/// The bounds past which a row is behind its series.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    pub now: i64,
    /// A `ts` that is less than this behind is left as it is (seconds).
    pub grain: i64,
}

/// Counts of rows by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub inserted: u64,
    pub refreshed: u64,
    pub refused: u64,
}

/// One of the three tables, by what distinguishes them.
struct Table {
    name: &'static str,
    /// The column of the text.
    text: &'static str,
    /// The text is unique per `endpoint_id`.
    owned: bool,
    /// The table has columns for step and type.
    typed: bool,
}

const ENDPOINT: Table = Table { name: "endpoint", text: "endpoint", owned: false, typed: false };
const TAG: Table = Table { name: "tag_endpoint", text: "tag", owned: true, typed: false };
const COUNTER: Table = Table { name: "endpoint_counter", text: "counter", owned: true, typed: true };

/// A row that is wanted; the owner of a row of `endpoint` is 0.
#[derive(Clone, Debug)]
struct Row<'a> {
    owner: u64,
    text: &'a str,
    step: u32,
    ds_type: &'static str,
    ts: i64,
    create: bool,
    /// The number of the row that is there.
    id: Option<u64>,
}

/// A row that is there.
struct Known {
    owner: u64,
    text: Vec<u8>,
    id: u64,
    ts: i64,
    step: i64,
    ds_type: Vec<u8>,
}

impl Table {
    /// The statement that reads the rows of so many keys.
    fn select(&self, rows: usize) -> String {
        let owner = if self.owned { "CAST(endpoint_id AS UNSIGNED)" } else { "CAST(0 AS UNSIGNED)" };
        let typed = if self.typed { "CAST(step AS SIGNED), type" } else { "CAST(0 AS SIGNED), ''" };
        let columns = format!("CAST(id AS UNSIGNED), {owner}, {}, CAST(COALESCE(ts, 0) AS SIGNED), {typed}", self.text);
        // Not (endpoint_id, counter) IN (…): before MySQL 5.7 that reads the whole table.
        let key =
            if self.owned { format!("(endpoint_id = ? AND {} = ?)", self.text) } else { format!("{} = ?", self.text) };
        format!("SELECT {columns} FROM {} WHERE {}", self.name, list(&key, " OR ", rows))
    }

    fn insert(&self, rows: usize) -> String {
        let (columns, values, updates) = match (self.owned, self.typed) {
            (false, _) => ("", "", ""),
            (true, false) => (", endpoint_id", ", ?", ""),
            (true, true) => (", endpoint_id, step, type", ", ?, ?, ?", ", step = VALUES(step), type = VALUES(type)"),
        };
        format!(
            "INSERT INTO {} (id, {}, ts{columns}, t_create) VALUES {} ON DUPLICATE KEY UPDATE ts = VALUES(ts){updates}",
            self.name,
            self.text,
            list(&format!("(?, ?, ?{values}, NOW())"), ", ", rows),
        )
    }

    fn bind_key<'q>(&self, query: Bound<'q>, row: &Row<'q>) -> Bound<'q> {
        let query = if self.owned { query.bind(row.owner) } else { query };
        query.bind(row.text)
    }

    fn bind<'q>(&self, query: Bound<'q>, row: &Row<'q>) -> Bound<'q> {
        // The column is an INT.
        let query = query.bind(row.id).bind(row.text).bind(row.ts.clamp(0, i64::from(i32::MAX)));
        let query = if self.owned { query.bind(row.owner) } else { query };
        if self.typed { query.bind(row.step).bind(row.ds_type) } else { query }
    }
}

type Bound<'q> = Query<'q, MySql, MySqlArguments>;

/// Repeats `item` `count` times.
fn list(item: &str, between: &str, count: usize) -> String {
    vec![item; count].join(between)
}

/// The rows, the last of them repeated up to a power of two, which changes nothing: so a table has ten statements of
/// each kind, and they can be kept prepared. One that is not kept costs 40 ms each, for nobody answers when it is
/// closed, and the next message waits in the kernel for that answer (Nagle's algorithm, which sqlx leaves on).
fn padded<T>(rows: &[T]) -> impl Iterator<Item = &T> {
    let padding = rows.len().next_power_of_two() - rows.len();
    rows.iter().chain(std::iter::repeat_n(rows.last(), padding).flatten())
}

async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(ANSWER_MAX, answer).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", ANSWER_MAX.as_secs());
        Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, text)))
    })
}

/// A connection whose last statement has been answered.
pub struct Tables {
    connection: MySqlConnection,
    written: Written,
    refusal_told: bool,
}

impl Tables {
    /// Connects, and asks whether the three tables are there.
    pub async fn connect(options: &MySqlConnectOptions) -> Result<Tables, Error> {
        // In the server's time zone `t_create` is like that of other writers.
        let options = options.clone().timezone(None).statement_cache_capacity(STATEMENTS_MAX);
        let connection = within(options.connect()).await?;
        let mut tables = Tables { connection, written: Written::default(), refusal_told: false };
        for table in [ENDPOINT, TAG, COUNTER] {
            let nothing = Row { owner: 0, text: "", step: 0, ds_type: "", ts: 0, create: false, id: None };
            tables.select(&table, &[nothing]).await?;
        }
        Ok(tables)
    }

    /// Closes the connection in order.
    pub async fn close(self) {
        // Whoever hangs up without a word is a warning in the server's log, no more.
        let _ = tokio::time::timeout(Duration::from_millis(200), self.connection.close()).await;
    }

    /// Takes the counts since the last call, those of a page that failed half-way included.
    pub fn take_written(&mut self) -> Written {
        std::mem::take(&mut self.written)
    }

    /// Writes a page. After an error the connection is of no use.
    pub async fn write(&mut self, series: &[Series], fresh: Freshness) -> Result<(), Error> {
        let ids = self.write_endpoints(series, fresh).await?;
        let (mut tags, mut counters) = (Vec::new(), Vec::new());
        for one in series {
            let Some(owner) = ids.get(one.endpoint.as_str()) else { continue };
            let row = |text| Row {
                owner: *owner,
                text,
                step: one.step,
                ds_type: one.ds_type,
                ts: one.ts,
                create: one.create,
                id: None,
            };
            tags.extend(one.tags.split(',').filter(|tag| !tag.is_empty()).map(row));
            counters.push(row(&one.counter));
        }
        for (table, rows) in [(TAG, merged(tags)), (COUNTER, merged(counters))] {
            self.upsert(&table, rows, fresh).await?;
        }
        Ok(())
    }

    /// The numbers of the endpoints that are there now.
    async fn write_endpoints<'s>(
        &mut self,
        series: &'s [Series],
        fresh: Freshness,
    ) -> Result<BTreeMap<&'s str, u64>, Error> {
        let row = |one: &'s Series| Row {
            owner: 0,
            text: &one.endpoint,
            step: 0,
            ds_type: "",
            ts: one.ts,
            create: one.create,
            id: None,
        };
        let rows = self.upsert(&ENDPOINT, merged(series.iter().map(row).collect()), fresh).await?;
        let (there, mut new): (Vec<Row>, Vec<Row>) =
            rows.into_iter().filter(|row| row.id.is_some() || row.create).partition(|row| row.id.is_some());
        for part in new.chunks_mut(ROWS_MAX) {
            self.find(&ENDPOINT, part, fresh).await?;
        }
        for row in new.iter_mut().filter(|row| row.id.is_none()) {
            // MySQL has the name in another spelling.
            row.id = self.find_spelled(row.text).await?;
        }
        Ok(there.iter().chain(&new).filter_map(|row| Some((row.text, row.id?))).collect())
    }

    async fn find_spelled(&mut self, endpoint: &str) -> Result<Option<u64>, Error> {
        let row = Row { owner: 0, text: endpoint, step: 0, ds_type: "", ts: 0, create: false, id: None };
        Ok(self.select(&ENDPOINT, &[row]).await?.first().map(|known| known.id))
    }

    /// Reads the rows that have the keys of `rows`, as MySQL compares them.
    async fn select(&mut self, table: &Table, rows: &[Row<'_>]) -> Result<Vec<Known>, Error> {
        let sql = sqlx::query(AssertSqlSafe(table.select(rows.len().next_power_of_two())));
        let select = padded(rows).fold(sql, |select, row| table.bind_key(select, row));
        let found = within(select.fetch_all(&mut self.connection)).await?;
        found.iter().map(Known::of).collect()
    }

    /// Inserts the rows that are missing and wanted, and refreshes those that are behind. `rows` are in the order of
    /// their keys; they come back with the ids of those that were there before.
    async fn upsert<'a>(
        &mut self,
        table: &Table,
        mut rows: Vec<Row<'a>>,
        fresh: Freshness,
    ) -> Result<Vec<Row<'a>>, Error> {
        for part in rows.chunks_mut(ROWS_MAX) {
            let behind = self.find(table, part, fresh).await?;
            let missing: Vec<&Row> = part.iter().filter(|row| row.id.is_none() && row.create).collect();
            self.written.inserted += self.insert(table, &missing).await?;
            let behind: Vec<&Row> = behind.into_iter().map(|i| &part[i]).collect();
            self.written.refreshed += self.insert(table, &behind).await?;
        }
        Ok(rows)
    }

    /// Sets the ids of rows that are there, and answers which of these are behind.
    async fn find(&mut self, table: &Table, rows: &mut [Row<'_>], fresh: Freshness) -> Result<Vec<usize>, Error> {
        let mut known = self.select(table, rows).await?;
        known.sort_by(|a, b| (a.owner, &a.text).cmp(&(b.owner, &b.text)));
        let mut behind = Vec::new();
        for (i, row) in rows.iter_mut().enumerate() {
            let key = (row.owner, row.text.as_bytes());
            if let Ok(at) = known.binary_search_by(|known| (known.owner, known.text.as_slice()).cmp(&key)) {
                row.id = Some(known[at].id);
                if known[at].is_behind(row, table, fresh) {
                    behind.push(i);
                }
            }
        }
        Ok(behind)
    }

    /// Writes rows in one statement, or, where MySQL refuses some of them, in as many as it takes. Answers how many it
    /// took.
    async fn insert(&mut self, table: &Table, rows: &[&Row<'_>]) -> Result<u64, Error> {
        let (mut taken, mut parts): (u64, Vec<Range<usize>>) = (0, Vec::new());
        parts.extend((!rows.is_empty()).then_some(0..rows.len()));
        while let Some(part) = parts.pop() {
            let insert = sqlx::query(AssertSqlSafe(table.insert(part.len().next_power_of_two())));
            let insert = padded(&rows[part.clone()]).fold(insert, |insert, row| table.bind(insert, row));
            match within(insert.execute(&mut self.connection)).await {
                Ok(_) => taken += part.len() as u64,
                Err(error) if !refuses_row(&error) => return Err(error),
                Err(error) if part.len() == 1 => {
                    // Once per connection, for there may be many; all are counted.
                    if !std::mem::replace(&mut self.refusal_told, true) {
                        let (table, text) = (table.name, rows[part.start].text);
                        tracing::warn!(table, text, %error, "MySQL does not take a row of the index; others are written");
                    }
                    self.written.refused += 1;
                }
                Err(_) => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                }
            }
        }
        Ok(taken)
    }
}

impl Known {
    fn of(row: &MySqlRow) -> Result<Known, Error> {
        // Unchecked, for sites have changed the types of these columns; the casts in the select make them what they are
        // here.
        Ok(Known {
            id: row.try_get_unchecked(0)?,
            owner: row.try_get_unchecked(1)?,
            text: row.try_get_unchecked(2)?,
            ts: row.try_get_unchecked(3)?,
            step: row.try_get_unchecked(4)?,
            ds_type: row.try_get_unchecked(5)?,
        })
    }

    fn is_behind(&self, row: &Row<'_>, table: &Table, fresh: Freshness) -> bool {
        let changed = self.step != i64::from(row.step) || self.ds_type != row.ds_type.as_bytes();
        (table.typed && changed) || row.ts > self.ts + fresh.grain || self.ts > fresh.now + AHEAD_MAX_S
    }
}

/// Sorts rows by their keys, and keeps one of each key, with the newest time.
fn merged(mut rows: Vec<Row<'_>>) -> Vec<Row<'_>> {
    rows.sort_by(|a, b| (a.owner, a.text).cmp(&(b.owner, b.text)));
    rows.dedup_by(|next, kept| {
        let same = (next.owner, next.text) == (kept.owner, kept.text);
        if same {
            kept.ts = kept.ts.max(next.ts);
            kept.create |= next.create;
        }
        same
    });
    rows
}

/// True when MySQL says of the values, not of the statement or of itself, that it does not take them: out of range, cut
/// off, not of the column's character set, too long.
fn refuses_row(error: &Error) -> bool {
    matches!(code(error), Some(1264 | 1265 | 1366 | 1406))
}

/// rustls reports what it thinks of a certificate as data that is not valid.
fn is_about_tls(error: &Error) -> bool {
    match error {
        Error::Tls(_) => true,
        Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// MySQL's number of an error.
fn code(error: &Error) -> Option<u16> {
    let error = error.as_database_error()?;
    Some(error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?.number())
}

/// The remedy for an error, for whoever runs this server.
pub fn fix(error: &Error) -> &'static str {
    match code(error) {
        Some(1045 | 1698) => "correct the user and the password in graph.index_url",
        Some(1044 | 1142 | 1143) => "grant the user of graph.index_url SELECT, INSERT and UPDATE on that database",
        Some(1049) => {
            "name the database of Open-Falcon's index in graph.index_url, or create it (4_graph-db-schema.sql)"
        }
        Some(1146 | 1054 | 1364) => "create Open-Falcon's tables there (4_graph-db-schema.sql)",
        Some(1290 | 1792 | 1836) => "point graph.index_url at a server that may be written to",
        Some(1021 | 1114 | 3675) => "make room on MySQL's disk",
        Some(1040 | 1203 | 1226) => "allow MySQL more connections",
        Some(_) => "see MySQL's log",
        None if is_about_tls(error) => {
            "set ?ssl-mode=DISABLED, REQUIRED, or VERIFY_CA&ssl-ca=FILE in graph.index_url, as MySQL's certificate wants it"
        }
        None if matches!(error, Error::Configuration(_)) => {
            "its password plug-in wants an encrypted connection: switch TLS on in MySQL, or use mysql_native_password"
        }
        None => "start MySQL, or correct the address in graph.index_url",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(owner: u64, text: &str, ts: i64, create: bool) -> Row<'_> {
        Row { owner, text, step: 60, ds_type: "GAUGE", ts, create, id: None }
    }

    #[test]
    fn statements_name_each_value_by_a_mark() {
        assert_eq!(
            ENDPOINT.insert(2),
            "INSERT INTO endpoint (id, endpoint, ts, t_create) VALUES (?, ?, ?, NOW()), (?, ?, ?, NOW()) \
             ON DUPLICATE KEY UPDATE ts = VALUES(ts)"
        );
        assert_eq!(
            COUNTER.insert(1),
            "INSERT INTO endpoint_counter (id, counter, ts, endpoint_id, step, type, t_create) \
             VALUES (?, ?, ?, ?, ?, ?, NOW()) \
             ON DUPLICATE KEY UPDATE ts = VALUES(ts), step = VALUES(step), type = VALUES(type)"
        );
        assert_eq!(
            TAG.select(2),
            "SELECT CAST(id AS UNSIGNED), CAST(endpoint_id AS UNSIGNED), tag, CAST(COALESCE(ts, 0) AS SIGNED), \
             CAST(0 AS SIGNED), '' FROM tag_endpoint WHERE (endpoint_id = ? AND tag = ?) OR (endpoint_id = ? AND tag = ?)"
        );
        assert!(ENDPOINT.select(1).ends_with(" FROM endpoint WHERE endpoint = ?"));
        assert!(
            COUNTER.select(1).contains(", counter, CAST(COALESCE(ts, 0) AS SIGNED), CAST(step AS SIGNED), type FROM")
        );
    }

    #[test]
    fn rows_are_padded_with_their_last() {
        let check = |count: usize, padded_count: usize| {
            let rows: Vec<usize> = (0..count).collect();
            let padded: Vec<usize> = padded(&rows).copied().collect();
            assert_eq!((padded.len(), &padded[..count]), (padded_count, &rows[..]), "{count}");
            assert!(padded[count..].iter().all(|row| *row + 1 == count), "{padded:?}");
        };
        check(1, 1);
        check(2, 2);
        check(3, 4);
        check(5, 8);
        check(ROWS_MAX - 1, ROWS_MAX);
        check(ROWS_MAX, ROWS_MAX);
    }

    #[test]
    fn equal_keys_become_one_row_with_the_newest_time() {
        let rows = vec![
            row(2, "b", 5, false),
            row(1, "b", 3, false),
            row(2, "a", 1, true),
            row(2, "b", 9, true),
            row(2, "b", 7, false),
        ];
        let merged: Vec<_> =
            merged(rows).iter().map(|row| (row.owner, row.text.to_string(), row.ts, row.create)).collect();
        let expected = [(1, "b", 3, false), (2, "a", 1, true), (2, "b", 9, true)];
        assert_eq!(merged, expected.map(|(owner, text, ts, create)| (owner, text.to_string(), ts, create)));
    }
}
