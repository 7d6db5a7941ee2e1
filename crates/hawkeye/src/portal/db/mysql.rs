//! MySQL: the portal in Open-Falcon's databases, on one MySQL or MariaDB server.
//!
//! How: statements name each table with its database, so a connection needs no default one; a transaction may span
//! them, for they are on one server. The session is in the server's time zone, as the original's, and keeps the
//! isolation that reads of one moment need, whatever the server's default is.
//! Invariants: whoever waits for another's lock waits as long as on SQLite, then the statement fails.
//! Memory: statements stay prepared, at most [`STATEMENTS_MAX`] per connection.
//! Compat: mysql.sql has the tables that the portal needs: Open-Falcon's, with a longer `func`, `events.explanation`,
//! and two tables of Hawkeye's own beside the alarms.

use super::{CONNECTIONS_MAX, Db};
use sqlx::Executor;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};

/// Prepared statements of a connection: all of the portal, with room for lists of several lengths. One that is not kept
/// costs 40 ms when it is closed.
const STATEMENTS_MAX: usize = 256;
/// Settings of a session: the isolation that a snapshot needs, and for how many seconds to wait for a lock, as
/// `busy_timeout` on SQLite.
const SESSION: [&str; 2] =
    ["SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET SESSION innodb_lock_wait_timeout = 10"];

/// Connects to the server that `options` name. `prefix` stands before the name of each database.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "portal.url is refused until a MySQL portal can be set up and migrated")
)]
pub async fn open(options: MySqlConnectOptions, prefix: &str) -> sqlx::Result<Db> {
    let options = options.timezone(None).statement_cache_capacity(STATEMENTS_MAX);
    let pool = MySqlPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
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
    Ok(Db::MySql(pool, prefix.into()))
}
