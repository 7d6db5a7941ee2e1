//! Portals for tests, here and of whoever uses the portal.
//!
//! How: a test says nothing of a database, so that it runs over both: a portal is in a file, or, where `TEST_MYSQL`
//! names a MySQL or MariaDB (`tests/services/mysql.sh` starts one), in Open-Falcon's databases there.

use super::db::dialect::{DATABASES, Dialect};
use super::db::{mysql, query};
use super::*;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tempfile::TempDir;

/// A portal of its own, and a directory that lives as long as the first value.
pub(crate) async fn temporary() -> Result<(TempDir, Portal)> {
    match std::env::var("TEST_MYSQL") {
        Ok(server) => Ok((tempfile::tempdir()?, Portal::new(in_mysql(&server).await?))),
        Err(_) => in_file().await,
    }
}

/// A portal in a file, `portal.db` in the directory.
pub(crate) async fn in_file() -> Result<(TempDir, Portal)> {
    let dir = tempfile::tempdir()?;
    let portal = Portal::open(&dir.path().join("portal.db")).await?;
    Ok((dir, portal))
}

/// Portals of this process so far: each has databases of its own, which the next run replaces.
static PORTALS: AtomicUsize = AtomicUsize::new(0);

async fn in_mysql(server: &str) -> Result<Db> {
    let prefix = format!("hawkeye_test_{}_", PORTALS.fetch_add(1, Relaxed));
    let options: MySqlConnectOptions = server.parse()?;
    let mut connection = options.connect().await?;
    let dialect = Dialect::MySql { prefix: prefix.as_str().into() };
    // alarms refers to uic.
    for database in DATABASES.iter().rev() {
        connection.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {prefix}{database}"))).await?;
    }
    for database in DATABASES {
        let text = format!("CREATE DATABASE {prefix}{database} CHARACTER SET utf8 COLLATE utf8_general_ci");
        connection.execute(AssertSqlSafe(text)).await?;
    }
    let schema = dialect.tables(include_str!("db/mysql.sql"));
    sqlx::raw_sql(AssertSqlSafe(schema)).execute(&mut connection).await?;
    Ok(mysql::open(options, &prefix).await?)
}

/// Runs statements that are separated by semicolons.
pub(crate) async fn run(portal: &Portal, statements: &'static str) -> Result<()> {
    for statement in statements.split(';').filter(|statement| !statement.trim().is_empty()) {
        query(statement).execute(portal).await?;
    }
    Ok(())
}

/// Inserts `count` rows: `insert` is `INSERT INTO … SELECT …`, in which `i` is the number of the row, from 1 on.
pub(crate) async fn fill(portal: &Portal, insert: &'static str, count: i64) -> Result<()> {
    const DIGITS: &str =
        "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL
                           SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let filled = query(insert)
        .push(" FROM (SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS i FROM ")
        .push(DIGITS)
        .push(" AS a CROSS JOIN ")
        .push(DIGITS)
        .push(" AS b CROSS JOIN ")
        .push(DIGITS)
        .push(" AS c CROSS JOIN ")
        .push(DIGITS)
        .push(" AS e CROSS JOIN ")
        .push(DIGITS)
        .push(" AS f) AS n WHERE i <= ? ORDER BY i");
    assert_eq!(filled.bind(count).execute(portal).await?.rows, count.unsigned_abs());
    Ok(())
}

/// A change of one strategy is told as such until something else changes, or too many do.
#[tokio::test]
async fn what_is_announced_adds_up() -> Result<()> {
    let (_dir, portal) = temporary().await?;
    let strategies = |ids: &[i64]| Announced::Strategies(ids.iter().copied().collect());
    portal.take_announced();
    assert_eq!(portal.take_announced(), strategies(&[]));
    let version = portal.version();
    portal.announce_strategy(2);
    portal.announce_strategy(1);
    assert_eq!((portal.version(), portal.take_announced()), (version + 2, strategies(&[1, 2])));
    portal.announce_strategy(3);
    portal.announce_anew(strategies(&[1]));
    assert_eq!((portal.version(), portal.take_announced()), (version + 3, strategies(&[1, 3])), "nobody is woken");
    portal.announce_strategy(1);
    portal.announce();
    portal.announce_strategy(2);
    assert_eq!(portal.take_announced(), Announced::Anything);
    (0..=ANNOUNCED_MAX as i64).for_each(|id| portal.announce_strategy(id));
    assert_eq!(portal.take_announced(), Announced::Anything);
    Ok(())
}
