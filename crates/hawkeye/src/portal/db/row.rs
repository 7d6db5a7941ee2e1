//! Rows: the answers of a database, and the structs that they are read into.
//!
//! Why: sqlx's own derive would read both databases' rows too, but refuses an `INT UNSIGNED` for an `i64` and a
//! `DATETIME` for a text. MySQL's tables are full of these, and sites have changed the types of their columns. With
//! that derive the list of columns stands beside the struct, where the two can part.
//! How: [`record!`] declares a struct whose fields are the columns, in one list. A column is read as a number or a
//! text, whatever the table holds it as; a time is its text, `YYYY-MM-DD HH:MM:SS`.
//! Compat: NULL is "" and 0, as the original reads it, except where a field is an `Option`.

use sqlx::mysql::MySqlRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, MySql, Row as _, TypeInfo, ValueRef};

/// A row of either database.
pub enum Row {
    Sqlite(SqliteRow),
    MySql(MySqlRow),
}

/// A value that one column is read into.
pub trait FromColumn: Sized {
    fn column(row: &Row, at: usize) -> sqlx::Result<Self>;
}

/// A value that a whole row is read into: a record, or one to three columns.
pub trait FromRow: Sized {
    fn read(row: &Row) -> sqlx::Result<Self>;
}

/// A struct whose fields are columns of a table; [`record!`] declares it.
pub trait Record: FromRow {
    const COLUMNS: &'static [&'static str];
}

impl Row {
    /// Whole number in a column, counted from 0, whatever its width.
    pub fn int(&self, at: usize) -> sqlx::Result<Option<i64>> {
        match self {
            Row::Sqlite(row) => row.try_get(at),
            Row::MySql(row) => mysql_int(row, at).map_err(|source| decode_error(at, source)),
        }
    }

    /// Number in a column, counted from 0: a floating-point or a whole one.
    pub fn float(&self, at: usize) -> sqlx::Result<Option<f64>> {
        match self {
            // SQLite keeps a number as it came: -1 in a column of reals may be a whole one.
            Row::Sqlite(row) => row.try_get_unchecked(at),
            Row::MySql(row) => mysql_float(row, at).map_err(|source| decode_error(at, source)),
        }
    }

    /// Text in a column, counted from 0, whatever its type.
    pub fn text(&self, at: usize) -> sqlx::Result<Option<String>> {
        match self {
            Row::Sqlite(row) => row.try_get(at),
            Row::MySql(row) => mysql_text(row, at).map_err(|source| decode_error(at, source)),
        }
    }
}

type DecodeError = Box<dyn std::error::Error + Send + Sync>;

fn decode_error(at: usize, source: DecodeError) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: at.to_string(), source }
}

/// The number in a column of MySQL's: of any size, with a sign or without, or written as a text.
fn mysql_int(row: &MySqlRow, at: usize) -> Result<Option<i64>, DecodeError> {
    let value = row.try_get_raw(at)?;
    if value.is_null() {
        return Ok(None);
    }
    let kind = value.type_info().name().to_string();
    Ok(Some(match kind.as_str() {
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => <i64 as Decode<MySql>>::decode(value)?,
        unsigned if unsigned.ends_with("UNSIGNED") => <u64 as Decode<MySql>>::decode(value)?.try_into()?,
        _ => std::str::from_utf8(<&[u8] as Decode<MySql>>::decode(value)?)?.trim().parse()?,
    }))
}

/// The number in a column of MySQL's: a float, a whole number or a text.
fn mysql_float(row: &MySqlRow, at: usize) -> Result<Option<f64>, DecodeError> {
    let value = row.try_get_raw(at)?;
    if value.is_null() {
        return Ok(None);
    }
    Ok(match value.type_info().name() {
        "DOUBLE" => Some(<f64 as Decode<MySql>>::decode(value)?),
        "FLOAT" => Some(f64::from(<f32 as Decode<MySql>>::decode(value)?)),
        _ => mysql_text(row, at)?.map(|text| text.trim().parse()).transpose()?,
    })
}

/// The text in a column of MySQL's, or of the time or number that it holds.
fn mysql_text(row: &MySqlRow, at: usize) -> Result<Option<String>, DecodeError> {
    let value = row.try_get_raw(at)?;
    if value.is_null() {
        return Ok(None);
    }
    let kind = value.type_info().name().to_string();
    if kind == "BOOLEAN" || kind.contains("INT") {
        return Ok(mysql_int(row, at)?.map(|int| int.to_string()));
    }
    let bytes = <&[u8] as Decode<MySql>>::decode(value)?;
    // A time of the text protocol begins with a digit, one of the binary protocol with its length.
    let is_time = matches!(kind.as_str(), "DATETIME" | "TIMESTAMP" | "DATE");
    if is_time && bytes.first().is_some_and(|length| usize::from(*length) == bytes.len() - 1) {
        return Ok(Some(time_text(&bytes[1..]).ok_or("a time is cut short")?));
    }
    Ok(Some(std::str::from_utf8(bytes)?.to_string()))
}

/// The text of a time in MySQL's binary protocol: year (16 bits), month, day, and unless they are zero hour, minute,
/// second.
fn time_text(bytes: &[u8]) -> Option<String> {
    let (&[low, high, month, day], clock) = bytes.split_first_chunk()?;
    let year = u16::from_le_bytes([low, high]);
    let [hour, minute, second] = clock.first_chunk().copied().unwrap_or_default();
    Some(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"))
}

impl FromColumn for i64 {
    fn column(row: &Row, at: usize) -> sqlx::Result<i64> {
        Ok(row.int(at)?.unwrap_or_default())
    }
}

impl FromColumn for String {
    fn column(row: &Row, at: usize) -> sqlx::Result<String> {
        Ok(row.text(at)?.unwrap_or_default())
    }
}

impl FromColumn for f64 {
    fn column(row: &Row, at: usize) -> sqlx::Result<f64> {
        Ok(row.float(at)?.unwrap_or_default())
    }
}

impl FromColumn for Option<i64> {
    fn column(row: &Row, at: usize) -> sqlx::Result<Option<i64>> {
        row.int(at)
    }
}

impl FromColumn for Option<String> {
    fn column(row: &Row, at: usize) -> sqlx::Result<Option<String>> {
        row.text(at)
    }
}

impl<A: FromColumn> FromRow for A {
    fn read(row: &Row) -> sqlx::Result<A> {
        A::column(row, 0)
    }
}

impl<A: FromColumn, B: FromColumn> FromRow for (A, B) {
    fn read(row: &Row) -> sqlx::Result<(A, B)> {
        Ok((A::column(row, 0)?, B::column(row, 1)?))
    }
}

impl<A: FromColumn, B: FromColumn, C: FromColumn> FromRow for (A, B, C) {
    fn read(row: &Row) -> sqlx::Result<(A, B, C)> {
        Ok((A::column(row, 0)?, B::column(row, 1)?, C::column(row, 2)?))
    }
}

/// Declares a struct and how a row is read into it: each field is the column of its name, or the expression behind `=`.
macro_rules! record {
    (
        $(#[$meta:meta])*
        $visible:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_visible:vis $field:ident: $type:ty $(= $column:literal)?,)*
        }
    ) => {
        $(#[$meta])*
        $visible struct $name {
            $($(#[$field_meta])* $field_visible $field: $type,)*
        }

        impl $crate::portal::db::Record for $name {
            const COLUMNS: &'static [&'static str] = &[$($crate::portal::db::record!(@column $field $($column)?)),*];
        }

        impl $crate::portal::db::FromRow for $name {
            fn read(row: &$crate::portal::db::Row) -> sqlx::Result<$name> {
                let mut columns = 0..;
                let mut next = || columns.next().expect("counting does not end");
                Ok($name { $($field: $crate::portal::db::FromColumn::column(row, next())?,)* })
            }
        }
    };
    (@column $field:ident $column:literal) => { $column };
    (@column $field:ident) => { stringify!($field) };
}
pub(in crate::portal) use record;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_binary_protocol() {
        assert_eq!(time_text(&[0xe1, 7, 3, 20]).as_deref(), Some("2017-03-20 00:00:00"));
        assert_eq!(time_text(&[0xe1, 7, 3, 20, 16, 53, 20]).as_deref(), Some("2017-03-20 16:53:20"));
        assert_eq!(time_text(&[0xe1, 7, 3, 20, 16, 53, 20, 1, 0, 0, 0]).as_deref(), Some("2017-03-20 16:53:20"));
        assert_eq!(time_text(&[0xe1, 7, 3]), None);
    }
}
