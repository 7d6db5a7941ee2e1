//! Actions (`falcon_portal.action`): who is told of an alarm, and which URL is called.
//!
//! An action belongs to a template or to an expression. Compat: a template's second action leaves the first row in place,
//! as in the original; an event on its way may still name it.

use super::Portal;
use serde::Serialize;
use sqlx::SqliteConnection;

/// The columns' lengths, in characters.
pub const UIC_MAX: usize = 255;
pub const URL_MAX: usize = 255;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Action {
    pub id: i64,
    /// Names of teams, joined by commas.
    pub uic: String,
    pub url: String,
    pub callback: i64,
    pub before_callback_sms: i64,
    pub before_callback_mail: i64,
    pub after_callback_sms: i64,
    pub after_callback_mail: i64,
}

type Row = (i64, String, String, i64, i64, i64, i64, i64);

impl From<Row> for Action {
    fn from(row: Row) -> Action {
        Action {
            id: row.0,
            uic: row.1,
            url: row.2,
            callback: row.3,
            before_callback_sms: row.4,
            before_callback_mail: row.5,
            after_callback_sms: row.6,
            after_callback_mail: row.7,
        }
    }
}

pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Action>> {
    find(&mut *portal.pool().acquire().await?, id).await
}

/// As [`by_id`], inside a transaction.
pub async fn find(connection: &mut SqliteConnection, id: i64) -> sqlx::Result<Option<Action>> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, uic, url, callback, before_callback_sms, before_callback_mail, after_callback_sms,
         after_callback_mail FROM action WHERE id = ?",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Action::from))
}

/// Creates `action` (its id is ignored) and makes it the action of a template; returns its id.
pub async fn create_for_template(portal: &Portal, action: &Action, tpl_id: i64) -> sqlx::Result<i64> {
    let mut transaction = portal.write().await?;
    let id = insert(&mut transaction, action).await?;
    sqlx::query("UPDATE tpl SET action_id = ? WHERE id = ?").bind(id).bind(tpl_id).execute(&mut *transaction).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(id)
}

/// Returns how many rows there were to change. Nothing is announced: alarm reads the row when it needs it.
pub async fn update(portal: &Portal, action: &Action) -> sqlx::Result<u64> {
    let mut connection = portal.pool().acquire().await?;
    update_in(&mut connection, action).await
}

pub(super) async fn insert(connection: &mut SqliteConnection, action: &Action) -> sqlx::Result<i64> {
    let done = sqlx::query(
        "INSERT INTO action (uic, url, callback, before_callback_sms, before_callback_mail, after_callback_sms,
         after_callback_mail) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&action.uic)
    .bind(&action.url)
    .bind(action.callback)
    .bind(action.before_callback_sms)
    .bind(action.before_callback_mail)
    .bind(action.after_callback_sms)
    .bind(action.after_callback_mail)
    .execute(connection)
    .await?;
    Ok(done.last_insert_rowid())
}

pub(super) async fn update_in(connection: &mut SqliteConnection, action: &Action) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "UPDATE action SET uic = ?, url = ?, callback = ?, before_callback_sms = ?, before_callback_mail = ?,
         after_callback_sms = ?, after_callback_mail = ? WHERE id = ?",
    )
    .bind(&action.uic)
    .bind(&action.url)
    .bind(action.callback)
    .bind(action.before_callback_sms)
    .bind(action.before_callback_mail)
    .bind(action.after_callback_sms)
    .bind(action.after_callback_mail)
    .bind(action.id)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
