//! Actions (`falcon_portal.action`): who is told of an alarm, and which URL is called.
//!
//! An action belongs to a template or to an expression; a template that was copied may share the one of another.
//! Whoever deletes the last owner leaves the row: the recovery of an alarm that ends with its rule is on its way, and
//! is told to whom the action names. [`super::purge`] deletes what nobody has had for long.
//! Invariants: a template's second action takes the place and the id of the first, for an event on its way may name it
//! (the original leaves the first row behind); a shared one is neither changed nor deleted with one of its owners.

use super::db::{Query, Record, Target, Transaction, query, record, salvage, select};
use super::{Portal, user};
use serde::{Deserialize, Serialize};

/// Length of the column `uic`, in characters.
pub const UIC_MAX: usize = 255;
/// Length of the column `url`, in characters.
pub const URL_MAX: usize = 255;

record! {
    /// Action of a template or an expression: teams to tell, and a callback.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
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

/// Reads the receivers of all actions, as alarm does, and answers the tables of which that cannot read all.
pub async fn unread_receivers(portal: &Portal) -> sqlx::Result<Vec<&'static str>> {
    let mut transaction = portal.read().await?;
    let actions = salvage::<Action>(&mut transaction, Action::COLUMNS, "falcon_portal.action").await?;
    let mut unread = Vec::from_iter(actions.lost.map(|_| "action"));
    let members = user::members_that_read(&mut transaction).await?;
    unread.extend(members.unread);
    Ok(unread)
}

/// Saves `action` (its id is ignored) as the action of a template: in place of the template's own, which is returned as
/// it was, or as a new row where it has none, or shares one.
pub async fn save_for_template(portal: &Portal, action: &Action, tpl_id: i64) -> sqlx::Result<Option<Action>> {
    let mut transaction = portal.write().await?;
    let sql = "SELECT action_id FROM falcon_portal.tpl WHERE id = ?";
    let action_id: i64 = query(sql).bind(tpl_id).optional(&mut transaction).await?.unwrap_or_default();
    let old = by_id(&mut transaction, action_id).await?;
    let is_own = owners(&mut transaction, action_id).await?.len() == 1;
    let replaced = old.filter(|_| is_own);
    if let Some(&Action { id, .. }) = replaced.as_ref() {
        update(&mut transaction, &Action { id, ..action.clone() }).await?;
    } else {
        let id = insert(&mut transaction, action).await?;
        let sql = "UPDATE falcon_portal.tpl SET action_id = ? WHERE id = ?";
        query(sql).bind(id).bind(tpl_id).execute(&mut transaction).await?;
    }
    transaction.commit().await?;
    portal.announce();
    Ok(replaced)
}

/// The names of those who created the templates and expressions that have this action.
pub async fn owners(on: impl Into<Target<'_>>, id: i64) -> sqlx::Result<Vec<String>> {
    query(
        "SELECT create_user FROM falcon_portal.tpl WHERE action_id = ?
         UNION ALL SELECT create_user FROM falcon_portal.expression WHERE action_id = ?",
    )
    .bind(id)
    .bind(id)
    .all(on)
    .await
}

/// Whether the action of any template or expression names a team.
pub async fn is_told(portal: &Portal, team: &str) -> sqlx::Result<bool> {
    let all: Vec<String> = query(
        "SELECT uic FROM falcon_portal.action WHERE id IN (SELECT action_id FROM falcon_portal.tpl)
         OR id IN (SELECT action_id FROM falcon_portal.expression)",
    )
    .all(portal)
    .await?;
    Ok(all.iter().any(|uic| teams(uic).any(|name| name.eq_ignore_ascii_case(team))))
}

/// The names of teams in a `uic`.
pub fn teams(uic: &str) -> impl Iterator<Item = &str> {
    uic.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// Ids of actions that no template and no expression has, at most `limit`.
pub(super) async fn unowned(portal: &Portal, limit: usize) -> sqlx::Result<Vec<i64>> {
    query("SELECT id FROM falcon_portal.action WHERE 1 = 1")
        .push(UNOWNED)
        .push(" ORDER BY id LIMIT ?")
        .bind(limit)
        .all(portal)
        .await
}

/// Deletes those of these actions that no template and no expression has; returns how many.
pub(super) async fn delete_unowned(portal: &Portal, ids: Vec<i64>) -> sqlx::Result<u64> {
    let done = query("DELETE FROM falcon_portal.action WHERE id").in_list(ids).push(UNOWNED).execute(portal).await?;
    Ok(done.rows)
}

/// Part of a condition that no owner of an action meets.
const UNOWNED: &str = " AND id NOT IN (SELECT action_id FROM falcon_portal.tpl)
     AND id NOT IN (SELECT action_id FROM falcon_portal.expression)";

/// Changes the row of the action's id; returns how many there were. Nothing is announced: alarm reads an action when an
/// event needs it.
pub async fn update(on: impl Into<Target<'_>>, action: &Action) -> sqlx::Result<u64> {
    let update = query(
        "UPDATE falcon_portal.action SET uic = ?, url = ?, callback = ?, before_callback_sms = ?,
         before_callback_mail = ?, after_callback_sms = ?, after_callback_mail = ? WHERE id = ?",
    );
    Ok(bind(update, action).bind(action.id).execute(on).await?.rows)
}

/// Saves an action, whose id is ignored, and returns its id.
pub async fn insert(transaction: &mut Transaction, action: &Action) -> sqlx::Result<i64> {
    let insert = query(
        "INSERT INTO falcon_portal.action (uic, url, callback, before_callback_sms, before_callback_mail,
         after_callback_sms, after_callback_mail) VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    Ok(bind(insert, action).execute(transaction).await?.id)
}

/// Saves an action under its id, over the one that is there.
pub async fn keep(portal: &Portal, action: &Action) -> sqlx::Result<()> {
    let insert = query(
        "INSERT INTO falcon_portal.action (uic, url, callback, before_callback_sms, before_callback_mail,
         after_callback_sms, after_callback_mail, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let columns: &[&str] = &[
        "uic",
        "url",
        "callback",
        "before_callback_sms",
        "before_callback_mail",
        "after_callback_sms",
        "after_callback_mail",
    ];
    bind(insert, action).bind(action.id).or_update("id", columns).execute(portal).await?;
    Ok(())
}

/// Binds everything but the id.
fn bind(query: Query, action: &Action) -> Query {
    query
        .bind(&action.uic)
        .bind(&action.url)
        .bind(action.callback)
        .bind(action.before_callback_sms)
        .bind(action.before_callback_mail)
        .bind(action.after_callback_sms)
        .bind(action.after_callback_mail)
}
