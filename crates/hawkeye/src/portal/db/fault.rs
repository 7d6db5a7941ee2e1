//! Faults: what of a database's errors is the world's doing, and not the statement's.
//!
//! Why: a disk that is full, a lock that is held and a page that is damaged want different answers: a client comes
//! again, alarm waits or delivers without its tables, an operator is told. A name that exists already is no fault.
//! Compat: SQLite's result codes by their low byte (sqlite.org/rescode.html), MySQL's numbers of lock faults.

use sqlx::Error;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::sqlite::SqliteError;

/// Kind of trouble that a database is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Others hold the lock, or all connections, for longer than whoever asks waits.
    Busy,
    /// The disk is full, or cannot be read or written.
    Disk,
    /// The file holds bytes that are no table.
    Damage,
}

/// The fault behind `error`; none where the statement itself is refused.
pub fn of(error: &Error) -> Option<Fault> {
    match error {
        Error::PoolTimedOut => Some(Fault::Busy),
        Error::Io(_) | Error::WorkerCrashed => Some(Fault::Disk),
        // A text that is no UTF-8, a number that is none.
        Error::ColumnDecode { .. } | Error::Decode(_) => Some(Fault::Damage),
        Error::Database(error) => match error.try_downcast_ref::<MySqlDatabaseError>() {
            Some(mysql) => [1205, 1213].contains(&mysql.number()).then_some(Fault::Busy),
            None => error.try_downcast_ref::<SqliteError>().and_then(|_| of_sqlite(error.code()?.parse().ok()?)),
        },
        _ => None,
    }
}

fn of_sqlite(code: i32) -> Option<Fault> {
    match code & 0xff {
        // BUSY, LOCKED, PROTOCOL
        5 | 6 | 15 => Some(Fault::Busy),
        // PERM, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN
        3 | 7 | 8 | 9 | 10 | 13 | 14 => Some(Fault::Disk),
        // CORRUPT, NOTADB
        11 | 26 => Some(Fault::Damage),
        _ => None,
    }
}

/// The fault of the database's error among the causes of `error`.
pub fn among(error: &anyhow::Error) -> Option<Fault> {
    error.chain().find_map(|cause| cause.downcast_ref::<Error>()).and_then(of)
}

/// Whether asking once more is of no use: a database has answered, and said no, or it is not known whom to ask.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    match error.chain().find_map(|cause| cause.downcast_ref::<Error>()) {
        Some(Error::Database(error)) => !error.code().is_some_and(|code| is_of_connections(&code)),
        Some(Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::PoolTimedOut | Error::WorkerCrashed) => false,
        _ => true,
    }
}

/// Whether this SQLSTATE is of a server that has no room for a connection, begins, or ends.
fn is_of_connections(code: &str) -> bool {
    code.starts_with("08")
}

/// SQLSTATE by which MySQL says that there is no such table.
const NO_SUCH_TABLE: &str = "42S02";

/// Whether MySQL has no table of that name. SQLite says this in its text alone, and its tables are made by us.
pub fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == NO_SUCH_TABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::db::query;
    use crate::portal::tests::in_file;
    use anyhow::Context;

    #[test]
    fn codes_are_told_by_their_low_byte() {
        let check = |code: i32, fault: Option<Fault>| assert_eq!(of_sqlite(code), fault, "{code}");
        check(5, Some(Fault::Busy));
        check(5 | 2 << 8, Some(Fault::Busy));
        check(13, Some(Fault::Disk));
        check(10 | 12 << 8, Some(Fault::Disk));
        check(11, Some(Fault::Damage));
        check(26, Some(Fault::Damage));
        check(19 | 8 << 8, None);
        check(1, None);
    }

    #[test]
    fn who_says_no_is_not_asked_again() {
        let is_refusal = |error: Error| super::is_refusal(&anyhow::Error::new(error).context("cannot open"));
        assert!(!is_refusal(Error::Io(std::io::Error::other("refused"))));
        assert!(!is_refusal(Error::PoolTimedOut));
        assert!(is_refusal(Error::RowNotFound));
        assert!(super::is_refusal(&anyhow::anyhow!("portal.url is empty")));
        // Access denied, no such table, too many connections, shutdown in progress.
        assert_eq!(["28000", "42S02", "08004", "08S01"].map(is_of_connections), [false, false, true, true]);
    }

    #[tokio::test]
    async fn a_statement_that_is_wrong_is_no_fault_and_a_text_that_is_none_is_damage() -> anyhow::Result<()> {
        let (_dir, portal) = in_file().await?;
        let wrong = query("SELECT nothing FROM nowhere").all::<i64>(&portal).await.expect_err("no table");
        assert_eq!(of(&wrong), None);
        query("INSERT INTO uic.team (name) VALUES (CAST(x'ff' AS TEXT))").execute(&portal).await?;
        let wild = query("SELECT name FROM uic.team").all::<String>(&portal).await.expect_err("no UTF-8");
        assert_eq!(of(&wild), Some(Fault::Damage));
        let wrapped = Err::<(), _>(wild).context("cannot read the teams").expect_err("an error");
        assert_eq!(among(&wrapped), Some(Fault::Damage));
        assert_eq!(among(&anyhow::anyhow!("of no database")), None);
        Ok(())
    }
}
