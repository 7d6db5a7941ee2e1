//! Templates (`falcon_portal.tpl`): named sets of strategies that inherit from a parent and share one action.
//!
//! Compat: deleting a template deletes its strategies and bindings, and its action some time later (one that it shares
//! stays); its children keep a parent id that points nowhere, and are roots from then on.

use super::db::{Query, Record, Salvaged, Target, Transaction, query, record, salvage, select};
use super::{Portal, exception};
use serde::Serialize;
use std::collections::HashMap;

/// The column's length, in characters.
pub const NAME_MAX: usize = 255;
/// The length from which on a chain is taken for a cycle and counts for nothing; the original's figure.
pub const CHAIN_MAX: usize = 10;

record! {
    /// Row of a template, as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Template {
        pub id: i64,
        pub tpl_name: String,
        pub parent_id: i64,
        pub action_id: i64,
        pub create_user: String,
    }
}

/// All templates, oldest first.
pub async fn all(portal: &Portal) -> sqlx::Result<Vec<Template>> {
    select::<Template>("FROM falcon_portal.tpl ORDER BY id").all(portal).await
}

/// All templates that can be read, in no order.
pub async fn that_read(transaction: &mut Transaction) -> sqlx::Result<Salvaged<Template>> {
    salvage(transaction, Template::COLUMNS, "falcon_portal.tpl").await
}

/// Finds a template by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Template>> {
    select::<Template>("FROM falcon_portal.tpl WHERE id = ?").bind(id).optional(portal).await
}

/// Templates that are bound to the groups of a host, oldest first; their ancestors are not listed.
pub async fn of_host(portal: &Portal, host_id: i64) -> sqlx::Result<Vec<Template>> {
    select::<Template>(
        "FROM falcon_portal.tpl WHERE id IN (SELECT tpl_id FROM falcon_portal.grp_tpl
         WHERE grp_id IN (SELECT grp_id FROM falcon_portal.grp_host WHERE host_id = ?)) ORDER BY id",
    )
    .bind(host_id)
    .all(portal)
    .await
}

/// Creates a template; a name that exists is a unique violation.
pub async fn create(
    portal: &Portal,
    tpl_name: &str,
    parent_id: i64,
    action_id: i64,
    create_user: &str,
) -> sqlx::Result<Template> {
    let (tpl_name, create_user) = (tpl_name.to_string(), create_user.to_string());
    let new = Template { id: 0, tpl_name, parent_id, action_id, create_user };
    let id = insert(portal, &new).await?;
    portal.announce();
    Ok(Template { id, ..new })
}

/// As [`create`], inside a transaction; the caller announces it.
pub async fn insert(on: impl Into<Target<'_>>, new: &Template) -> sqlx::Result<i64> {
    let sql = "INSERT INTO falcon_portal.tpl (tpl_name, parent_id, action_id, create_user) VALUES (?, ?, ?, ?)";
    Ok(bind(query(sql), new).execute(on).await?.id)
}

/// Changes a row inside a transaction; the caller announces it.
pub async fn change(on: impl Into<Target<'_>>, row: &Template) -> sqlx::Result<()> {
    let sql = "UPDATE falcon_portal.tpl SET tpl_name = ?, parent_id = ?, action_id = ?, create_user = ? WHERE id = ?";
    bind(query(sql), row).bind(row.id).execute(on).await?;
    Ok(())
}

fn bind(query: Query, row: &Template) -> Query {
    query.bind(&row.tpl_name).bind(row.parent_id).bind(row.action_id).bind(&row.create_user)
}

/// Changes name and parent of a template. A name that exists is a unique violation.
pub async fn update(portal: &Portal, id: i64, tpl_name: &str, parent_id: i64) -> sqlx::Result<()> {
    query("UPDATE falcon_portal.tpl SET tpl_name = ?, parent_id = ? WHERE id = ?")
        .bind(tpl_name)
        .bind(parent_id)
        .bind(id)
        .execute(portal)
        .await?;
    portal.announce();
    Ok(())
}

/// Deletes a template with its strategies and its bindings. Its action is left to [`super::purge`].
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    remove(&mut transaction, id).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(())
}

/// As [`delete`], inside a transaction; the caller announces it.
pub async fn remove(transaction: &mut Transaction, id: i64) -> sqlx::Result<()> {
    exception::remove_of_template(transaction, id).await?;
    for sql in [
        "DELETE FROM falcon_portal.tpl WHERE id = ?",
        "DELETE FROM falcon_portal.strategy WHERE tpl_id = ?",
        "DELETE FROM falcon_portal.grp_tpl WHERE tpl_id = ?",
    ] {
        query(sql).bind(id).execute(&mut *transaction).await?;
    }
    Ok(())
}

/// The chain of a template, from the template itself to its root. `parents` maps every template's id to its parent's.
/// None when the chain is [`CHAIN_MAX`] long or longer, which a cycle always is.
pub fn chain(parents: &HashMap<i64, i64>, id: i64) -> Option<Vec<i64>> {
    let mut chain = Vec::new();
    let mut next = id;
    while let Some(parent) = parents.get(&next) {
        chain.push(next);
        if chain.len() == CHAIN_MAX {
            return None;
        }
        next = *parent;
    }
    Some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::action::{self, Action};
    use crate::portal::purge::UnownedActions;
    use crate::portal::strategy::{self, Strategy};
    use crate::portal::tests::temporary;

    #[test]
    fn chains() {
        let check = |parents: &[(i64, i64)], id: i64, expected: Option<&[i64]>| {
            let parents = parents.iter().copied().collect();
            assert_eq!(chain(&parents, id).as_deref(), expected);
        };
        check(&[(1, 0), (2, 1), (3, 2)], 3, Some(&[3, 2, 1]));
        check(&[(1, 0)], 1, Some(&[1]));
        check(&[(2, 1)], 2, Some(&[2])); // the parent is gone
        check(&[], 2, Some(&[]));
        check(&[(1, 2), (2, 1)], 1, None);
        check(&[(1, 1)], 1, None);
        let line: Vec<(i64, i64)> = (1..20).map(|id| (id, id - 1)).collect();
        check(&line, 9, Some(&[9, 8, 7, 6, 5, 4, 3, 2, 1]));
        check(&line, 10, None);
    }

    /// A template with all that belongs to it comes back as it was saved, and goes as a whole.
    #[tokio::test]
    async fn a_template_goes_with_its_strategies_and_later_its_action() -> anyhow::Result<()> {
        let (_dir, portal) = temporary().await?;
        let parent = create(&portal, "parent", 0, 0, "alice").await?;
        let tpl = create(&portal, "tpl", parent.id, 0, "alice").await?;
        let action = Action { uic: "ops,db".into(), url: "http://x/?a=1".into(), callback: 1, ..Action::default() };
        assert_eq!(action::save_for_template(&portal, &action, tpl.id).await?, None);
        let id = by_id(&portal, tpl.id).await?.map_or(0, |tpl| tpl.action_id);
        assert_eq!(action::by_id(&portal, id).await?, Some(Action { id, ..action.clone() }));
        let tpl = Template { action_id: id, ..tpl };
        assert_eq!(
            (all(&portal).await?, by_id(&portal, tpl.id).await?),
            (vec![parent.clone(), tpl.clone()], Some(tpl.clone()))
        );
        let changed = Action { id, before_callback_sms: 1, after_callback_mail: 1, ..Action::default() };
        assert_eq!(action::update(&portal, &changed).await?, 1);
        assert_eq!(action::by_id(&portal, id).await?, Some(changed));
        assert_eq!(action::update(&portal, &Action { id: 999, ..action }).await?, 0);
        update(&portal, parent.id, "new 名", 0).await?;
        assert_eq!(by_id(&portal, parent.id).await?.map(|parent| parent.tpl_name).as_deref(), Some("new 名"));

        let text = str::to_string;
        let row = Strategy {
            id: 0,
            metric: text("cpu.idle"),
            tags: text("a=b"),
            max_step: 3,
            priority: -1,
            func: text("all(#3)"),
            op: text("!="),
            right_value: text("0.5"),
            note: text("it's \\ \"%_?"),
            run_begin: text("08:00"),
            run_end: text("20:00"),
            tpl_id: tpl.id,
        };
        let row = Strategy { id: strategy::create(&portal, &row).await?, ..row };
        assert_eq!(strategy::by_id(&portal, row.id).await?, Some(row.clone()));
        let row = Strategy { priority: 5, note: String::new(), ..row };
        strategy::update(&portal, &row).await?;
        let other = Strategy {
            id: strategy::create(&portal, &Strategy { tpl_id: parent.id, ..row.clone() }).await?,
            tpl_id: parent.id,
            ..row.clone()
        };
        assert_eq!(strategy::of_template(&portal, tpl.id).await?, std::slice::from_ref(&row));
        assert_eq!(strategy::all(&mut portal.read().await?).await?.rows, [row, other.clone()]);

        delete(&portal, tpl.id).await?;
        assert_eq!(all(&portal).await?.len(), 1);
        assert!(action::by_id(&portal, id).await?.is_some(), "recoveries are told to it");
        let mut unowned = UnownedActions::default();
        unowned.look(&portal).await?;
        unowned.look(&portal).await?;
        assert_eq!(action::by_id(&portal, id).await?, None);
        assert_eq!(strategy::all(&mut portal.read().await?).await?.rows, std::slice::from_ref(&other));
        strategy::delete(&portal, other.id).await?;
        assert_eq!(strategy::all(&mut portal.read().await?).await?.rows, []);
        Ok(())
    }
}
