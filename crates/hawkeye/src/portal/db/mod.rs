//! Database: where the portal's tables are, and the one place that knows SQLite from MySQL.
//!
//! Why: the tables are Open-Falcon's, and a site has them in one file of Hawkeye's or in the five MySQL databases that
//! its scripts and dashboard use already. Each statement is written once, as a plain text that both databases take.
//! How: statements name tables as MySQL does, `uic.user`. [`query()`] collects a text and its values; when it runs,
//! [`dialect`] makes the text that this database takes. Whatever the two say differently is a named function there, and
//! nothing else. A row is a struct that [`record!`] declares: its fields are the list of its columns, and [`row`] reads
//! them, whatever integer or time type a site gave the column.
//! Invariants: statements are made of texts in the source and of marks (`?`); a value is always bound. Constructs that
//! only one of the two takes are absent: `RETURNING`, numbered marks, `LIMIT` inside `IN (…)`, a deletion that reads
//! its own table, SQL's clock, `SELECT` without `FROM` but with `WHERE`.
//! Memory: at most [`CONNECTIONS_MAX`] connections, and on SQLite alarm's ([`mod@file`]); rows of an answer are read
//! whole, so each list has its bound where it is asked for.

pub mod dialect;
pub mod fault;
mod file;
mod mark;
pub mod mysql;
mod query;
mod row;
mod salvage;
mod schema;
pub mod sqlite;

#[cfg(test)]
pub use query::take_statements;
pub use query::{Query, Value, query, select};
pub(super) use row::record;
pub use row::{FromColumn, FromRow, Record, Row};
pub use salvage::{Salvaged, salvage};

use dialect::Dialect;
pub use file::Cursors;
use file::{Lane, Way};
pub use mark::FILE as MARK;
use sqlx::mysql::MySqlPool;
use sqlx::pool::PoolConnection;
use sqlx::{MySql, MySqlConnection, Sqlite, SqliteConnection};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::timeout;

/// SQLite's readers do not block each other in WAL mode; its writers take turns anyway. Four covers the rules, hbs and
/// two requests of the API.
const CONNECTIONS_MAX: u32 = 4;

/// A statement on its way. Boxed: the compiler looks into each future that a handler waits for, all the way down into
/// the driver, at each handler anew; a box ends that, and takes minutes off a build.
pub type Running<'d, T> = Pin<Box<dyn Future<Output = sqlx::Result<T>> + Send + 'd>>;

/// The connections to the portal's database.
#[derive(Clone)]
pub enum Db {
    Sqlite(Way),
    /// The prefix stands before the name of each of Open-Falcon's databases; sites have none.
    MySql(MySqlPool, Arc<str>, Arc<Cursors>),
}

impl Db {
    /// Begins a transaction that may write. On SQLite it takes the write lock at once: a transaction that reads first
    /// and writes later would fail, not wait, when somebody else wrote in between.
    pub fn write(&self) -> Running<'_, Transaction> {
        self.begin(self.dialect().begin_write(), true)
    }

    /// Begins a transaction whose reads all see the same moment.
    pub fn read(&self) -> Running<'_, Transaction> {
        self.begin(self.dialect().begin_read(), false)
    }

    /// This database over connections of alarm's own, whose commits wait for no disk.
    pub fn for_alarm(&self) -> Db {
        match self {
            Db::Sqlite(way) => Db::Sqlite(Way { lane: Lane::Alarm, ..way.clone() }),
            Db::MySql(..) => self.clone(),
        }
    }

    /// How far alarm has come with the event queue, and how much of that is on the disk.
    pub fn cursors(&self) -> &Cursors {
        match self {
            Db::Sqlite(way) => way.file.cursors(),
            Db::MySql(.., cursors) => cursors,
        }
    }

    /// Returns when all that was committed is on the disk. A server of MySQL's sees to that itself.
    pub async fn make_safe(&self) -> sqlx::Result<()> {
        match self {
            Db::Sqlite(way) => way.file.make_safe(u64::MAX).await,
            Db::MySql(.., cursors) => {
                cursors.note_safe(cursors.handled());
                Ok(())
            }
        }
    }

    /// Keeps the database until `stop` says otherwise; see [`file::File::keep`].
    pub async fn keep(&self, mut stop: watch::Receiver<bool>) {
        if let Db::Sqlite(way) = self {
            return way.file.keep(stop).await;
        }
        while timeout(file::SAFE_AFTER, stop.wait_for(|stop| *stop)).await.is_err() {
            // Nothing fails there.
            let _ = self.make_safe().await;
        }
    }

    /// Closes all connections, when those in use are given back.
    pub async fn close(&self) {
        match self {
            Db::Sqlite(way) => way.file.close().await,
            Db::MySql(pool, ..) => pool.close().await,
        }
    }

    /// Waits for what the database is asked. A server may hang, and is not waited for for ever.
    async fn answered<T>(&self, asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        match self {
            Db::Sqlite(_) => asked.await,
            Db::MySql(..) => mysql::within(mysql::ANSWER_WITHIN, asked).await,
        }
    }

    fn begin(&self, sql: &'static str, writes: bool) -> Running<'_, Transaction> {
        Box::pin(async move {
            let begun = match self {
                Db::Sqlite(way) => way.pool().begin_with(sql).await.map(OpenTransaction::Sqlite),
                Db::MySql(pool, ..) => self.answered(pool.begin_with(sql)).await.map(OpenTransaction::MySql),
            };
            let inner = self.noted(begun)?;
            Ok(Transaction { inner, db: self.clone(), writes })
        })
    }

    async fn acquire(&self) -> sqlx::Result<Pooled> {
        Ok(match self {
            Db::Sqlite(way) => Pooled::Sqlite(way.pool().acquire().await?),
            Db::MySql(pool, ..) => Pooled::MySql(pool.acquire().await?),
        })
    }

    /// Has a fault of the database shown where an operator looks.
    fn noted<T>(&self, result: sqlx::Result<T>) -> sqlx::Result<T> {
        if let (Db::Sqlite(way), Err(error)) = (self, &result) {
            way.file.note_error(error);
        }
        result
    }

    /// Follows a commit: waits for the disk, where somebody waits for this answer.
    async fn committed(&self) -> sqlx::Result<()> {
        match self {
            Db::Sqlite(way) => way.file.committed(way.lane).await,
            Db::MySql(..) => Ok(()),
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Db::Sqlite(_) => Dialect::Sqlite,
            Db::MySql(_, prefix, _) => Dialect::MySql { prefix: prefix.clone() },
        }
    }
}

/// A transaction, which is rolled back unless [`Transaction::commit`] was called.
pub struct Transaction {
    inner: OpenTransaction,
    db: Db,
    writes: bool,
}

enum OpenTransaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    MySql(sqlx::Transaction<'static, MySql>),
}

impl Transaction {
    /// Makes the transaction's changes durable; dropping it instead undoes them. What [`Db::for_alarm`] commits is
    /// durable within a second.
    pub fn commit(self) -> Running<'static, ()> {
        Box::pin(async move {
            let committed = match self.inner {
                OpenTransaction::Sqlite(transaction) => transaction.commit().await,
                OpenTransaction::MySql(transaction) => self.db.answered(transaction.commit()).await,
            };
            self.db.noted(committed)?;
            if self.writes { self.db.committed().await } else { Ok(()) }
        })
    }
}

/// Place where a statement runs: on a connection of its own, or inside a transaction.
pub enum Target<'d> {
    Db(&'d Db),
    Transaction(&'d mut Transaction),
}

impl<'d> From<&'d Db> for Target<'d> {
    fn from(db: &'d Db) -> Target<'d> {
        Target::Db(db)
    }
}

impl<'d> From<&'d mut Transaction> for Target<'d> {
    fn from(transaction: &'d mut Transaction) -> Target<'d> {
        Target::Transaction(transaction)
    }
}

/// A connection of the pool for one statement.
enum Pooled {
    Sqlite(PoolConnection<Sqlite>),
    MySql(PoolConnection<MySql>),
}

/// A connection that a statement is sent over.
enum Connection<'c> {
    Sqlite(&'c mut SqliteConnection),
    MySql(&'c mut MySqlConnection),
}

impl Pooled {
    fn connection(&mut self) -> Connection<'_> {
        match self {
            Pooled::Sqlite(connection) => Connection::Sqlite(connection),
            Pooled::MySql(connection) => Connection::MySql(connection),
        }
    }
}

impl OpenTransaction {
    fn connection(&mut self) -> Connection<'_> {
        match self {
            OpenTransaction::Sqlite(transaction) => Connection::Sqlite(transaction),
            OpenTransaction::MySql(transaction) => Connection::MySql(transaction),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Files about MySQL alone: the index of old graphs, and the URL of a database.
    const MYSQL_ONLY: [&str; 3] = ["role/graph/index", "plus_graph/index.rs", "config/mysql_url.rs"];

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    /// Other files may speak of a database's results and errors, but not of a certain database.
    #[test]
    fn one_place_knows_the_databases() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        let mut seen = 0;
        for path in files {
            let name = path.strip_prefix(&root).expect("below").to_string_lossy().into_owned();
            if name.starts_with("portal/db/")
                || name == "portal/tests.rs"
                || MYSQL_ONLY.iter().any(|own| name.starts_with(own))
            {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source");
            for (at, _) in text.match_indices("sqlx::") {
                let rest = &text[at + "sqlx::".len()..];
                let neutral = rest.starts_with("Result") || rest.starts_with("Error");
                assert!(neutral, "{name}: sqlx::{} belongs into portal/db", rest.lines().next().unwrap_or_default());
                seen += 1;
            }
        }
        assert!(seen > 50, "only {seen} places speak of a database");
    }
}
