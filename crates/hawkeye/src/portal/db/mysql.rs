//! MySQL: the portal in Open-Falcon's databases, on one MySQL or MariaDB server.
//!
//! How: statements name each table with its database, so a connection needs no default one; a transaction may span
//! them, for they are on one server. The session is in the server's time zone, as the original's, and keeps the
//! isolation that reads of one moment need, whatever the server's default is.
//! Invariants: whoever waits for another's lock waits as long as on SQLite, then the statement fails. A server that
//! hangs or is away holds up whoever asks for [`ANSWER_WITHIN`] at most, and a connection that it does not answer on is
//! closed.
//! Memory: statements stay prepared, at most [`STATEMENTS_MAX`] per connection.
//! Compat: mysql.sql has the tables that the portal needs: Open-Falcon's, with a longer `func`, `events.explanation`,
//! `event_cases.told`, and tables of Hawkeye's own, `hawkeye_…`.

use super::{CONNECTIONS_MAX, Db};
use crate::watch::health::Outage;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Prepared statements of a connection: all of the portal, with room for lists of several lengths. One that is not kept
/// costs 40 ms when it is closed.
const STATEMENTS_MAX: usize = 256;
/// Settings of a session: the isolation that a snapshot needs, and for how many seconds to wait for a lock, as
/// `busy_timeout` on SQLite.
const SESSION: [&str; 2] =
    ["SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET SESSION innodb_lock_wait_timeout = 10"];

/// Time that a server has to let somebody in; one that takes longer hangs, or its network does.
const REACH: Duration = Duration::from_secs(5);
/// Time that a statement may take: a wait for a lock, and some.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Looks whether the server lets us in. A pool says only that it has waited, and for half a minute.
pub async fn reach(options: &MySqlConnectOptions) -> sqlx::Result<()> {
    within(REACH, MySqlConnection::connect_with(options)).await?.close().await
}

/// Waits for what MySQL is asked, as long as `limit`.
pub(super) async fn within<T>(limit: Duration, asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let hangs = || sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")));
    timeout(limit, asked).await.unwrap_or_else(|_| Err(hangs()))
}

/// Times of looking whether MySQL is there.
#[derive(Clone, Copy)]
pub struct Looks {
    /// Pause between two looks.
    pub every: Duration,
    /// Time that a look may take.
    pub within: Duration,
}

/// Both together let a fault be told within ten seconds.
pub const LOOKS: Looks = Looks { every: Duration::from_secs(3), within: Duration::from_secs(5) };

/// Looks whether the server answers, over a connection of its own, until the stop.
pub async fn watch(options: &MySqlConnectOptions, looks: Looks, outage: Outage, mut stop: watch::Receiver<bool>) {
    let asking = async {
        let mut connection = None;
        loop {
            outage.note(within(looks.within, look(options, &mut connection)).await);
            tokio::time::sleep(looks.every).await;
        }
    };
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = asking => {}
    }
}

/// Asks over the connection of before, or else over a new one.
async fn look(options: &MySqlConnectOptions, connection: &mut Option<MySqlConnection>) -> sqlx::Result<()> {
    if let Some(mut kept) = connection.take()
        && kept.ping().await.is_ok()
    {
        *connection = Some(kept);
        return Ok(());
    }
    *connection = Some(MySqlConnection::connect_with(options).await?);
    Ok(())
}

/// Connects to the server that `options` name. `prefix` stands before the name of each database.
pub async fn open(options: MySqlConnectOptions, prefix: &str) -> sqlx::Result<Db> {
    let options = options.timezone(None).statement_cache_capacity(STATEMENTS_MAX);
    let pool = MySqlPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(REACH)
        // The pool pings what comes back as well, and waits for the answer for ever.
        .after_release(|connection, _| Box::pin(async { within(REACH, connection.ping()).await.map(|()| true) }))
        .after_connect(|connection, _| {
            Box::pin(async move {
                for statement in SESSION {
                    connection.execute(statement).await?;
                }
                Ok(())
            })
        })
        .connect_with(options)
        .await?;
    Ok(Db::MySql(pool, prefix.into(), Arc::default()))
}

/// The tables of a site, and ours.
const SCHEMA: &str = include_str!("mysql.sql");
/// Columns that the portal adds to tables of Open-Falcon: database, table, column, type.
const COLUMNS: [(&str, &str, &str, &str); 2] = [
    ("alarms", "event_cases", "told", "VARCHAR(500) CHARACTER SET utf8mb4"),
    ("alarms", "events", "explanation", "TEXT CHARACTER SET utf8mb4"),
];

/// Does what [`open`] does for the databases of an Open-Falcon, and adds what is missing there of our own. Other
/// programs go on to work with the tables, for no column of theirs changes.
pub async fn open_with_own(options: MySqlConnectOptions) -> sqlx::Result<Db> {
    let db = open(options, "").await?;
    if let Db::MySql(pool, ..) = &db {
        for statement in own_tables() {
            pool.execute(AssertSqlSafe(statement)).await?;
        }
        for (database, table, column, kind) in COLUMNS {
            let sql = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = ? AND table_name = ? AND column_name = ?";
            let count = sqlx::query_scalar(sql).bind(database).bind(table).bind(column);
            if count.fetch_one(pool).await.map(|count: i64| count == 0)? {
                pool.execute(AssertSqlSafe(format!("ALTER TABLE {database}.{table} ADD COLUMN {column} {kind}")))
                    .await?;
            }
        }
    }
    Ok(db)
}

/// Statements that make our own tables where they are missing.
fn own_tables() -> Vec<String> {
    let statements = SCHEMA.split(";\n").filter_map(|text| Some(&text[text.find("CREATE TABLE ")?..]));
    let own = statements.filter(|text| text.lines().next().is_some_and(|first| first.contains(".hawkeye_")));
    own.map(|text| text.replacen("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::db::{fault, query};
    use crate::portal::tests::{run, temporary};
    use crate::watch::health::Health;

    /// What is added to a site's databases is what the schema has beside Open-Falcon's tables.
    #[test]
    fn own_tables_and_columns_are_those_of_the_schema() {
        let own = own_tables();
        assert_eq!(own.len(), SCHEMA.matches(".hawkeye_").count());
        assert!(own.iter().all(|text| text.starts_with("CREATE TABLE IF NOT EXISTS ") && text.contains(".hawkeye_")));
        for (_, _, column, kind) in COLUMNS {
            let is_there = SCHEMA.lines().any(|line| {
                line.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches(',')
                    == format!("{column} {kind}")
            });
            assert!(is_there, "{column} {kind}");
        }
    }

    /// A server that refuses, and one that takes the connection and says nothing, are told, and why.
    #[tokio::test]
    async fn a_server_that_is_away_is_told() {
        let health = Health::default();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = silent.local_addr().expect("bound").port();
        let looks = Looks { every: Duration::from_millis(1), within: Duration::from_millis(50) };
        let (stop, stopping) = watch::channel(false);
        for (port, part) in [(1, "refused"), (port, "no answer within 50ms")] {
            let options = MySqlConnectOptions::new().host("127.0.0.1").port(port).username("falcon");
            let (outage, stopping) = (health.outage("MySQL is away"), stopping.clone());
            let looking = tokio::spawn(async move { watch(&options, looks, outage, stopping).await });
            let is_told = || health.reasons().iter().any(|reason| reason.line().contains(part));
            net::patience::until(part, async || is_told()).await;
            looking.abort();
        }
        stop.send_replace(true);
        let late = within(Duration::from_millis(1), std::future::pending::<sqlx::Result<()>>()).await;
        assert_eq!(fault::of(&late.expect_err("nobody answers")), Some(fault::Fault::Disk));
    }

    /// Sites have changed the types of their columns.
    #[tokio::test]
    #[ignore = "needs MySQL: tests/services/mysql.sh"]
    async fn numbers_and_texts_are_read_from_columns_of_any_type() -> anyhow::Result<()> {
        std::env::var("TEST_MYSQL").expect("TEST_MYSQL=mysql://user:password@host:port names a MySQL");
        let (_dir, portal) = temporary().await?;
        run(
            &portal,
            "CREATE TABLE uic.odd (tiny TINYINT, bool TINYINT(1), small SMALLINT UNSIGNED, medium MEDIUMINT,
               whole INT UNSIGNED, big BIGINT, huge BIGINT UNSIGNED, exact DECIMAL(20, 0), text VARCHAR(20),
               time DATETIME(3), day DATE, bytes BLOB, bin VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin);
             INSERT INTO uic.odd VALUES (-1, 1, 65535, -8388608, 4294967295, -9000000000, 9000000000, -12345678901, ' 42',
               '2017-03-20 16:53:20.500', '2017-03-20', 'b', '😀');
             INSERT INTO uic.odd () VALUES ()",
        )
        .await?;
        let check = async |sql: &'static str, int: Option<i64>, text: &str| -> anyhow::Result<()> {
            let ints: Vec<Option<i64>> = match int {
                Some(_) => query(sql).all(&portal).await?,
                None => vec![None, None],
            };
            assert_eq!(ints, [int, None], "{sql}");
            let texts: Vec<Option<String>> = query(sql).all(&portal).await?;
            assert_eq!(texts, [Some(text.to_string()), None], "{sql}");
            let absent: Vec<String> = query(sql).all(&portal).await?;
            assert_eq!(absent, [text, ""], "{sql}");
            Ok(())
        };
        check("SELECT tiny FROM uic.odd", Some(-1), "-1").await?;
        check("SELECT bool FROM uic.odd", Some(1), "1").await?;
        check("SELECT small FROM uic.odd", Some(65_535), "65535").await?;
        check("SELECT medium FROM uic.odd", Some(-8_388_608), "-8388608").await?;
        check("SELECT whole FROM uic.odd", Some(4_294_967_295), "4294967295").await?;
        check("SELECT big FROM uic.odd", Some(-9_000_000_000), "-9000000000").await?;
        check("SELECT huge FROM uic.odd", Some(9_000_000_000), "9000000000").await?;
        check("SELECT exact FROM uic.odd", Some(-12_345_678_901), "-12345678901").await?;
        check("SELECT text FROM uic.odd", Some(42), " 42").await?;
        check("SELECT time FROM uic.odd", None, "2017-03-20 16:53:20").await?;
        check("SELECT day FROM uic.odd", None, "2017-03-20 00:00:00").await?;
        check("SELECT bytes FROM uic.odd", None, "b").await?;
        check("SELECT bin FROM uic.odd", None, "😀").await?;
        let wrong = query("SELECT bytes FROM uic.odd").all::<i64>(&portal).await.expect_err("no number");
        assert!(wrong.to_string().contains("invalid digit"), "{wrong}");
        Ok(())
    }
}
