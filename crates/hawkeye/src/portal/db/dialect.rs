//! Dialect: the fragments that SQLite and MySQL write differently, a function for each.
//!
//! Compat: MySQL 5.7 and later, and MariaDB 10.3 and later. MySQL compares names without case by its column's
//! collation, SQLite by the `COLLATE NOCASE` of its schema; only where a column of ours compares exactly does a
//! statement say more.

use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Open-Falcon's databases that the portal has tables in.
pub const DATABASES: [&str; 4] = ["uic", "falcon_portal", "dashboard", "alarms"];

/// Kind of database, by what its SQL has of its own.
#[derive(Clone, Debug)]
pub enum Dialect {
    Sqlite,
    MySql { prefix: Arc<str> },
}

impl Dialect {
    /// `text` with its tables' names as this database has them: `uic.user` is the table `user` of SQLite's one file.
    pub fn tables(&self, text: &str) -> String {
        DATABASES.iter().fold(text.to_string(), |text, database| match self {
            Dialect::Sqlite => text.replace(&format!("{database}."), ""),
            Dialect::MySql { prefix } if prefix.is_empty() => text,
            Dialect::MySql { prefix } => text.replace(&format!("{database}."), &format!("{prefix}{database}.")),
        })
    }

    /// Follows the values of an INSERT: where a row has the unique `key` already, its `columns` get the new values.
    /// Further assignments may follow behind a comma. MySQL carries assignments out from left to right.
    pub fn or_update(&self, key: &str, columns: &[&str]) -> String {
        let (clause, open, close) = match self {
            Dialect::Sqlite => (format!(" ON CONFLICT ({key}) DO UPDATE SET "), "excluded.", ""),
            // The alias of MySQL 8.0.19 is unknown to MariaDB, and `VALUES` is known to both.
            Dialect::MySql { .. } => (" ON DUPLICATE KEY UPDATE ".to_string(), "VALUES(", ")"),
        };
        let assignments: Vec<String> =
            columns.iter().map(|column| format!("{column} = {open}{column}{close}")).collect();
        clause + &assignments.join(", ")
    }

    /// `column`, to be compared without regard to case.
    pub fn any_case(&self, column: &str) -> String {
        match self {
            Dialect::Sqlite => format!("{column} COLLATE NOCASE"),
            Dialect::MySql { .. } => column.to_string(),
        }
    }

    /// Text that the table of sessions has for the secret of a session. An old api may read Open-Falcon's MySQL; a file
    /// of ours holds hashes, which need no salt, for the secrets are random.
    pub fn kept_secret(&self, sig: &str) -> String {
        match self {
            Dialect::Sqlite => hex::encode(Sha256::digest(sig)),
            Dialect::MySql { .. } => sig.to_string(),
        }
    }

    /// Column by which the rows of each table lie in the file, where a damaged part of it may be passed by.
    pub fn place_of_rows(&self) -> Option<&'static str> {
        match self {
            Dialect::Sqlite => Some("rowid"),
            Dialect::MySql { .. } => None,
        }
    }

    /// Statement that begins a transaction that writes.
    pub fn begin_write(&self) -> &'static str {
        match self {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::MySql { .. } => "START TRANSACTION",
        }
    }

    /// Statement that begins a transaction whose reads see one moment.
    pub fn begin_read(&self) -> &'static str {
        match self {
            Dialect::Sqlite => "BEGIN",
            Dialect::MySql { .. } => "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_each_database() {
        let mysql = |prefix: &str| Dialect::MySql { prefix: prefix.into() };
        let text = "SELECT u.id FROM uic.user AS u, falcon_portal.action AS a WHERE a.uic = ?";
        let one_file = "SELECT u.id FROM user AS u, action AS a WHERE a.uic = ?";
        let prefixed = "SELECT u.id FROM x_uic.user AS u, x_falcon_portal.action AS a WHERE a.uic = ?";
        assert_eq!(Dialect::Sqlite.tables(text), one_file);
        assert_eq!(mysql("").tables(text), text);
        assert_eq!(mysql("x_").tables(text), prefixed);
        let columns = ["a", "b"];
        assert_eq!(
            Dialect::Sqlite.or_update("id", &columns),
            " ON CONFLICT (id) DO UPDATE SET a = excluded.a, b = excluded.b"
        );
        assert_eq!(mysql("").or_update("id", &columns), " ON DUPLICATE KEY UPDATE a = VALUES(a), b = VALUES(b)");
    }
}
