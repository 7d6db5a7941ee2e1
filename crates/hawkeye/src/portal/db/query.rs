//! Query: one statement with its values, for either database.
//!
//! How: the text is kept in pieces until it is known where the statement runs; then the pieces that differ are written.
//! Invariants: pieces are texts of the source, so no value can become a part of the text.
//! Memory: values are copied, at most as many as a list has names.

use super::dialect::Dialect;
use super::row::{FromRow, Record, Row};
use super::{Connection, Db, Running, Target};
use sqlx::{AssertSqlSafe, Database, Encode, Executor, IntoArguments, Type};

/// A statement that is being put together.
#[derive(Debug, Default)]
pub struct Query {
    pieces: Vec<Piece>,
    values: Vec<Value>,
}

#[derive(Debug)]
enum Piece {
    Text(&'static str),
    AnyCase(&'static str),
    OrUpdate { key: &'static str, columns: &'static [&'static str] },
}

/// A value that is bound to a mark.
#[derive(Clone, Debug)]
pub enum Value {
    Int(i64),
    Float(f64),
    Text(String),
    Null,
}

/// The effect of a statement that changes rows.
#[derive(Clone, Copy, Debug)]
pub struct Effect {
    /// Rows that were meant, changed or not.
    pub rows: u64,
    /// The id of the row that was inserted last.
    pub id: i64,
}

/// A statement that begins with `text`.
pub fn query(text: &'static str) -> Query {
    Query::default().push(text)
}

/// `SELECT` the columns of a record, followed by `rest`: `FROM …`.
pub fn select<R: Record>(rest: &'static str) -> Query {
    query("SELECT ").columns(R::COLUMNS).push(" ").push(rest)
}

impl Query {
    /// Appends a piece of the statement.
    pub fn push(mut self, text: &'static str) -> Query {
        self.pieces.push(Piece::Text(text));
        self
    }

    /// Appends a list of columns.
    pub fn columns(mut self, columns: &[&'static str]) -> Query {
        for (i, column) in columns.iter().enumerate() {
            self = self.push(if i > 0 { ", " } else { "" }).push(column);
        }
        self
    }

    /// Gives the next mark its value.
    pub fn bind(mut self, value: impl Into<Value>) -> Query {
        self.values.push(value.into());
        self
    }

    /// Writes `text`, which ends with a mark, and its value, where there is one.
    pub fn narrow(self, text: &'static str, value: Option<impl Into<Value>>) -> Query {
        match value {
            Some(value) => self.push(text).bind(value),
            None => self,
        }
    }

    /// Writes ` IN (?, …)`. The last value is repeated up to a power of two, which changes nothing: so lists of all
    /// lengths come to a few statements, which stay prepared. `values` must not be empty.
    pub fn in_list<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Query {
        let before = self.values.len();
        self.values.extend(values.into_iter().map(V::into));
        let count = self.values.len() - before;
        assert!(count > 0, "an empty list is no SQL");
        let last = self.values[self.values.len() - 1].clone();
        self.values.resize(before + count.next_power_of_two(), last);
        self.pieces.push(Piece::Text(" IN (?"));
        self.pieces.extend((1..count.next_power_of_two()).map(|_| Piece::Text(", ?")));
        self.push(")")
    }

    /// Writes the name of a column that is compared without regard to case.
    pub fn any_case(mut self, column: &'static str) -> Query {
        self.pieces.push(Piece::AnyCase(column));
        self
    }

    /// Follows the values of an INSERT: where a row has the unique `key` already, its `columns` get the new values.
    pub fn or_update(mut self, key: &'static str, columns: &'static [&'static str]) -> Query {
        self.pieces.push(Piece::OrUpdate { key, columns });
        self
    }

    /// Reads all rows.
    pub async fn all<T: FromRow>(self, on: impl Into<Target<'_>>) -> sqlx::Result<Vec<T>> {
        self.rows(on).await?.iter().map(T::read).collect()
    }

    /// Reads the first row, if there is one.
    pub async fn optional<T: FromRow>(self, on: impl Into<Target<'_>>) -> sqlx::Result<Option<T>> {
        self.rows(on).await?.first().map(T::read).transpose()
    }

    /// Reads the first row; that there is none is an error.
    pub async fn one<T: FromRow>(self, on: impl Into<Target<'_>>) -> sqlx::Result<T> {
        self.optional(on).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// Reads all rows as the database has them.
    pub fn rows<'d>(self, on: impl Into<Target<'d>>) -> Running<'d, Vec<Row>> {
        Box::pin(self.fetch(on.into()))
    }

    /// Runs the statement; answers what it changed.
    pub fn execute<'d>(self, on: impl Into<Target<'d>>) -> Running<'d, Effect> {
        Box::pin(self.change(on.into()))
    }

    async fn change(self, on: Target<'_>) -> sqlx::Result<Effect> {
        self.count();
        match on {
            Target::Db(db) => {
                let effect = db.noted(self.execute_alone(db).await)?;
                db.committed().await?;
                Ok(effect)
            }
            Target::Transaction(transaction) => {
                let text = self.text(&transaction.db.dialect());
                let asked = transaction.inner.connection().execute(text, self.values);
                let result = transaction.db.answered(asked).await;
                transaction.db.noted(result)
            }
        }
    }

    /// Counts the statement, for a test that compares how many an answer takes.
    fn count(&self) {
        #[cfg(test)]
        STATEMENTS.set(STATEMENTS.get() + 1);
    }

    async fn execute_alone(self, db: &Db) -> sqlx::Result<Effect> {
        let text = self.text(&db.dialect());
        db.answered(db.acquire().await?.connection().execute(text, self.values)).await
    }

    async fn fetch(self, on: Target<'_>) -> sqlx::Result<Vec<Row>> {
        self.count();
        match on {
            Target::Db(db) => db.noted(self.fetch_alone(db).await),
            Target::Transaction(transaction) => {
                let text = self.text(&transaction.db.dialect());
                let asked = transaction.inner.connection().fetch(text, self.values);
                let result = transaction.db.answered(asked).await;
                transaction.db.noted(result)
            }
        }
    }

    async fn fetch_alone(self, db: &Db) -> sqlx::Result<Vec<Row>> {
        let text = self.text(&db.dialect());
        db.answered(db.acquire().await?.connection().fetch(text, self.values)).await
    }

    /// The statement as `dialect` writes it.
    fn text(&self, dialect: &Dialect) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text += piece,
                Piece::AnyCase(column) => text += &dialect.any_case(column),
                Piece::OrUpdate { key, columns } => text += &dialect.or_update(key, columns),
            }
        }
        dialect.tables(&text)
    }
}

#[cfg(test)]
thread_local! {
    static STATEMENTS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Statements that ran on this thread since the last call.
#[cfg(test)]
pub fn take_statements() -> u64 {
    STATEMENTS.take()
}

impl Connection<'_> {
    async fn fetch(self, text: String, values: Vec<Value>) -> sqlx::Result<Vec<Row>> {
        Ok(match self {
            Connection::Sqlite(connection) => {
                bound(text, values).fetch_all(connection).await?.into_iter().map(Row::Sqlite).collect()
            }
            Connection::MySql(connection) => {
                bound(text, values).fetch_all(connection).await?.into_iter().map(Row::MySql).collect()
            }
        })
    }

    async fn execute(self, text: String, values: Vec<Value>) -> sqlx::Result<Effect> {
        Ok(match self {
            Connection::Sqlite(connection) => {
                let done = connection.execute(bound(text, values)).await?;
                Effect { rows: done.rows_affected(), id: done.last_insert_rowid() }
            }
            Connection::MySql(connection) => {
                let done = connection.execute(bound(text, values)).await?;
                Effect { rows: done.rows_affected(), id: done.last_insert_id().cast_signed() }
            }
        })
    }
}

fn bound<D: Database>(text: String, values: Vec<Value>) -> sqlx::query::Query<'static, D, D::Arguments>
where
    D::Arguments: IntoArguments<D>,
    i64: Encode<'static, D> + Type<D>,
    f64: Encode<'static, D> + Type<D>,
    String: Encode<'static, D> + Type<D>,
    Option<String>: Encode<'static, D> + Type<D>,
{
    // `text` is put together from texts of the source alone.
    let query = sqlx::query(AssertSqlSafe(text));
    values.into_iter().fold(query, |query, value| match value {
        Value::Int(int) => query.bind(int),
        Value::Float(float) => query.bind(float),
        Value::Text(text) => query.bind(text),
        Value::Null => query.bind(None::<String>),
    })
}

impl From<i64> for Value {
    fn from(int: i64) -> Value {
        Value::Int(int)
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Value {
        Value::Float(float)
    }
}

impl From<i32> for Value {
    fn from(int: i32) -> Value {
        Value::Int(int.into())
    }
}

/// A number of rows; more than fit are all.
impl From<usize> for Value {
    fn from(count: usize) -> Value {
        Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_string())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Value {
        Value::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl<V: Into<Value>> From<Option<V>> for Value {
    fn from(value: Option<V>) -> Value {
        value.map_or(Value::Null, V::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_padded_to_a_power_of_two() {
        let list = |count: i64| query("SELECT id FROM uic.user WHERE id").in_list(0..count);
        let check = |count: i64, marks: &str, last: i64| {
            let query = list(count);
            assert_eq!(query.text(&Dialect::Sqlite), format!("SELECT id FROM user WHERE id IN ({marks})"));
            assert_eq!(query.values.len(), marks.matches('?').count());
            assert!(matches!(query.values.last(), Some(Value::Int(int)) if *int == last));
        };
        check(1, "?", 0);
        check(2, "?, ?", 1);
        check(3, "?, ?, ?, ?", 2);
        check(5, "?, ?, ?, ?, ?, ?, ?, ?", 4);
    }
}
