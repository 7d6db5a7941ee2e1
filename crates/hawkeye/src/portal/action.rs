//! Actions (`falcon_portal.action`): who is told of an alarm, and which URL is called.
//!
//! An action belongs to a template or to an expression. Compat: a template's second action leaves the first row in
//! place, as in the original; an event on its way may still name it.

use super::Portal;
use super::db::{Target, Transaction, query, record, select};
use serde::Serialize;

/// Length of the column `uic`, in characters.
pub const UIC_MAX: usize = 255;
/// Length of the column `url`, in characters.
pub const URL_MAX: usize = 255;

record! {
    /// Action of a template or an expression: teams to tell, and a callback.
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
}

/// Finds an action by its id.
pub async fn by_id(on: impl Into<Target<'_>>, id: i64) -> sqlx::Result<Option<Action>> {
    select::<Action>("FROM falcon_portal.action WHERE id = ?").bind(id).optional(on).await
}

/// Creates `action` (its id is ignored) and makes it the action of a template; returns its id.
pub async fn create_for_template(portal: &Portal, action: &Action, tpl_id: i64) -> sqlx::Result<i64> {
    let mut transaction = portal.write().await?;
    let id = insert(&mut transaction, action).await?;
    query("UPDATE falcon_portal.tpl SET action_id = ? WHERE id = ?")
        .bind(id)
        .bind(tpl_id)
        .execute(&mut transaction)
        .await?;
    transaction.commit().await?;
    portal.announce();
    Ok(id)
}

/// Changes the row of the action's id; returns how many there were. Nothing is announced: alarm reads an action when an
/// event needs it.
pub async fn update(on: impl Into<Target<'_>>, action: &Action) -> sqlx::Result<u64> {
    let done = query(
        "UPDATE falcon_portal.action SET uic = ?, url = ?, callback = ?, before_callback_sms = ?,
         before_callback_mail = ?, after_callback_sms = ?, after_callback_mail = ? WHERE id = ?",
    )
    .bind(&action.uic)
    .bind(&action.url)
    .bind(action.callback)
    .bind(action.before_callback_sms)
    .bind(action.before_callback_mail)
    .bind(action.after_callback_sms)
    .bind(action.after_callback_mail)
    .bind(action.id)
    .execute(on)
    .await?;
    Ok(done.rows)
}

pub(super) async fn insert(transaction: &mut Transaction, action: &Action) -> sqlx::Result<i64> {
    let done = query(
        "INSERT INTO falcon_portal.action (uic, url, callback, before_callback_sms, before_callback_mail,
         after_callback_sms, after_callback_mail) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&action.uic)
    .bind(&action.url)
    .bind(action.callback)
    .bind(action.before_callback_sms)
    .bind(action.before_callback_mail)
    .bind(action.after_callback_sms)
    .bind(action.after_callback_mail)
    .execute(transaction)
    .await?;
    Ok(done.id)
}
