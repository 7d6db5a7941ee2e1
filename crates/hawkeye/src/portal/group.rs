//! Host groups (`falcon_portal.grp`): their hosts, and the templates bound to them.
//!
//! Invariants: a group's change of hosts is one transaction; a host is in a group once (the original's table allows
//! twice).
//! Compat: deleting a group also deletes its template bindings, which the original leaves behind.

use super::db::{Salvaged, Target, Transaction, query, record, salvage, select};
use super::host::Selection;
use super::template::Template;
use super::{Portal, exception, host, probe};
use serde::Serialize;

/// The column's length, in characters.
pub const NAME_MAX: usize = 255;
/// Values of one ` IN (…)`: far below what SQLite and MySQL take.
const LIST_ROWS: usize = 512;

record! {
    /// Row of a host group, as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Group {
        pub id: i64,
        pub grp_name: String,
        pub create_user: String,
    }
}

/// All groups, oldest first.
pub async fn all(portal: &Portal) -> sqlx::Result<Vec<Group>> {
    select::<Group>("FROM falcon_portal.grp ORDER BY id").all(portal).await
}

/// Finds a group by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Group>> {
    select::<Group>("FROM falcon_portal.grp WHERE id = ?").bind(id).optional(portal).await
}

/// Groups that a host is in, oldest first.
pub async fn of_host(portal: &Portal, host_id: i64) -> sqlx::Result<Vec<Group>> {
    select::<Group>(
        "FROM falcon_portal.grp WHERE id IN (SELECT grp_id FROM falcon_portal.grp_host WHERE host_id = ?) ORDER BY id",
    )
    .bind(host_id)
    .all(portal)
    .await
}

/// Groups that a template is bound to, oldest first.
pub async fn of_template(portal: &Portal, tpl_id: i64) -> sqlx::Result<Vec<Group>> {
    select::<Group>(
        "FROM falcon_portal.grp WHERE id IN (SELECT grp_id FROM falcon_portal.grp_tpl WHERE tpl_id = ?) ORDER BY id",
    )
    .bind(tpl_id)
    .all(portal)
    .await
}

/// All groups that can be read, each as its id and name.
pub async fn names(transaction: &mut Transaction) -> sqlx::Result<Salvaged<(i64, String)>> {
    salvage(transaction, &["id", "grp_name"], "falcon_portal.grp").await
}

/// All memberships that can be read, each as the ids of host and group.
pub async fn members(transaction: &mut Transaction) -> sqlx::Result<Salvaged<(i64, i64)>> {
    salvage(transaction, &["host_id", "grp_id"], "falcon_portal.grp_host").await
}

/// All bindings that can be read, each as the ids of group and template.
pub async fn bindings(transaction: &mut Transaction) -> sqlx::Result<Salvaged<(i64, i64)>> {
    salvage(transaction, &["grp_id", "tpl_id"], "falcon_portal.grp_tpl").await
}

/// Creates a group; a name that exists is a unique violation.
pub async fn create(on: impl Into<Target<'_>>, grp_name: &str, create_user: &str) -> sqlx::Result<Group> {
    // come_from 1: made by hand, not synchronised from elsewhere.
    let done = query("INSERT INTO falcon_portal.grp (grp_name, create_user, come_from) VALUES (?, ?, 1)")
        .bind(grp_name)
        .bind(create_user)
        .execute(on)
        .await?;
    Ok(Group { id: done.id, grp_name: grp_name.to_string(), create_user: create_user.to_string() })
}

/// Renames a group; returns how many there were of the id. A name that exists is a unique violation.
pub async fn rename(portal: &Portal, id: i64, grp_name: &str) -> sqlx::Result<u64> {
    let mut transaction = portal.write().await?;
    let count = rename_within(&mut transaction, id, grp_name).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(count)
}

/// As [`rename`], inside a transaction; the caller announces it. Exceptions of strategies go along.
pub async fn rename_within(transaction: &mut Transaction, id: i64, grp_name: &str) -> sqlx::Result<u64> {
    if let Some(old) = name_of(transaction, id).await? {
        exception::rename_group(transaction, &old, grp_name).await?;
    }
    let sql = "UPDATE falcon_portal.grp SET grp_name = ? WHERE id = ?";
    Ok(query(sql).bind(grp_name).bind(id).execute(transaction).await?.rows)
}

async fn name_of(transaction: &mut Transaction, id: i64) -> sqlx::Result<Option<String>> {
    query("SELECT grp_name FROM falcon_portal.grp WHERE id = ?").bind(id).optional(transaction).await
}

/// Deletes a group with its memberships, bindings, plugin directories, aggregators and probes, and the exceptions of
/// strategies that are about it.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    let mut transaction = portal.write().await?;
    remove(&mut transaction, id).await?;
    transaction.commit().await?;
    portal.announce();
    Ok(())
}

/// As [`delete`], inside a transaction; the caller announces it.
pub async fn remove(transaction: &mut Transaction, id: i64) -> sqlx::Result<()> {
    if let Some(name) = name_of(transaction, id).await? {
        exception::remove_of_group(transaction, &name).await?;
        probe::remove_of_group(transaction, id).await?;
    }
    for sql in [
        "DELETE FROM falcon_portal.grp WHERE id = ?",
        "DELETE FROM falcon_portal.grp_host WHERE grp_id = ?",
        "DELETE FROM falcon_portal.grp_tpl WHERE grp_id = ?",
        "DELETE FROM falcon_portal.plugin_dir WHERE grp_id = ?",
        "DELETE FROM falcon_portal.cluster WHERE grp_id = ?",
    ] {
        query(sql).bind(id).execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Makes `hostnames` the group's hosts, creating those that are unknown, and returns their ids. None when the table of
/// hosts is full; then nothing has changed.
pub async fn replace_hosts(portal: &Portal, id: i64, hostnames: &[String]) -> sqlx::Result<Option<Vec<i64>>> {
    let mut transaction = portal.write().await?;
    let Some(ids) = set_hosts(&mut transaction, id, hostnames).await? else { return Ok(None) };
    transaction.commit().await?;
    portal.announce();
    Ok(Some(ids))
}

/// As [`replace_hosts`], inside a transaction, which the caller drops where the answer is None.
pub async fn set_hosts(transaction: &mut Transaction, id: i64, hostnames: &[String]) -> sqlx::Result<Option<Vec<i64>>> {
    query("DELETE FROM falcon_portal.grp_host WHERE grp_id = ?").bind(id).execute(&mut *transaction).await?;
    let mut ids = Vec::with_capacity(hostnames.len());
    for hostname in hostnames {
        let Some(host_id) = host::ensure(transaction, hostname).await? else { return Ok(None) };
        if bind_host(transaction, id, host_id).await? {
            ids.push(host_id);
        }
    }
    Ok(Some(ids))
}

/// Sets who made a group, inside a transaction.
pub async fn set_owner(transaction: &mut Transaction, id: i64, create_user: &str) -> sqlx::Result<()> {
    let sql = "UPDATE falcon_portal.grp SET create_user = ? WHERE id = ?";
    query(sql).bind(create_user).bind(id).execute(transaction).await?;
    Ok(())
}

/// The names of an addition to a group: those that were added, and those that were there already.
#[derive(Debug, Default, PartialEq)]
pub struct Addition {
    pub added: Vec<String>,
    pub existing: Vec<String>,
}

/// Adds hosts, creating those that are unknown. None when the table of hosts is full; then nothing has changed.
pub async fn add_hosts(portal: &Portal, id: i64, hostnames: Vec<String>) -> sqlx::Result<Option<Addition>> {
    let mut transaction = portal.write().await?;
    let mut done = Addition::default();
    for hostname in hostnames {
        let Some(host_id) = host::ensure(&mut transaction, &hostname).await? else { return Ok(None) };
        match bind_host(&mut transaction, id, host_id).await? {
            true => done.added.push(hostname),
            false => done.existing.push(hostname),
        }
    }
    transaction.commit().await?;
    portal.announce();
    Ok(Some(done))
}

/// Removes hosts; returns the names that were in the group.
pub async fn remove_hosts(portal: &Portal, id: i64, hostnames: Vec<String>) -> sqlx::Result<Vec<String>> {
    let mut transaction = portal.write().await?;
    let mut removed = Vec::new();
    for hostname in hostnames {
        let Some(host_id) = host::id_of(&mut transaction, &hostname).await? else { continue };
        let sql = "DELETE FROM falcon_portal.grp_host WHERE grp_id = ? AND host_id = ?";
        if query(sql).bind(id).bind(host_id).execute(&mut transaction).await?.rows > 0 {
            removed.push(hostname);
        }
    }
    transaction.commit().await?;
    portal.announce();
    Ok(removed)
}

/// Removes a host from a group, if it is there.
pub async fn remove_host(portal: &Portal, id: i64, host_id: i64) -> sqlx::Result<()> {
    let sql = "DELETE FROM falcon_portal.grp_host WHERE grp_id = ? AND host_id = ?";
    query(sql).bind(id).bind(host_id).execute(portal).await?;
    portal.announce();
    Ok(())
}

/// The teams that the actions of a group's templates tell (each a `uic`), with the creators of the templates.
pub async fn told(portal: &Portal, id: i64) -> sqlx::Result<Vec<(String, String)>> {
    query(
        "SELECT a.uic, t.create_user FROM falcon_portal.grp_tpl AS b JOIN falcon_portal.tpl AS t ON t.id = b.tpl_id
         JOIN falcon_portal.action AS a ON a.id = t.action_id WHERE b.grp_id = ?",
    )
    .bind(id)
    .all(portal)
    .await
}

/// The ids of the hosts of a request that are known, each with id and creator of every group that it is in; None where
/// it is in none.
pub async fn of_hosts(portal: &Portal, which: &Selection) -> sqlx::Result<Vec<(i64, Option<i64>, Option<String>)>> {
    const SELECT: &str = "SELECT h.id, g.id, g.create_user FROM falcon_portal.host AS h
         LEFT JOIN falcon_portal.grp_host AS m ON m.host_id = h.id LEFT JOIN falcon_portal.grp AS g ON g.id = m.grp_id
         WHERE ";
    let mut found = Vec::new();
    match which {
        Selection::Names(names) => {
            for names in names.chunks(LIST_ROWS) {
                found.extend(
                    query(SELECT).push("h.hostname").in_list(names.iter().map(String::as_str)).all(portal).await?,
                );
            }
        }
        Selection::Ids(ids) => {
            for ids in ids.chunks(LIST_ROWS) {
                found.extend(query(SELECT).push("h.id").in_list(ids.iter().copied()).all(portal).await?);
            }
        }
    }
    Ok(found)
}

/// The templates bound to a group.
pub async fn templates(portal: &Portal, id: i64) -> sqlx::Result<Vec<Template>> {
    select::<Template>(
        "FROM falcon_portal.tpl WHERE id IN (SELECT tpl_id FROM falcon_portal.grp_tpl WHERE grp_id = ?) ORDER BY id",
    )
    .bind(id)
    .all(portal)
    .await
}

/// The name of the user who bound a template to a group; None when nobody did.
pub async fn bind_user(portal: &Portal, id: i64, tpl_id: i64) -> sqlx::Result<Option<String>> {
    let sql = "SELECT bind_user FROM falcon_portal.grp_tpl WHERE grp_id = ? AND tpl_id = ?";
    query(sql).bind(id).bind(tpl_id).optional(portal).await
}

/// Binds a template; returns false when that was done already.
pub async fn bind_template(portal: &Portal, id: i64, tpl_id: i64, bind_user: &str) -> sqlx::Result<bool> {
    let is_new = bind_within(portal, id, tpl_id, bind_user).await?;
    portal.announce();
    Ok(is_new)
}

/// As [`bind_template`], inside a transaction; the caller announces it.
pub async fn bind_within(on: impl Into<Target<'_>>, id: i64, tpl_id: i64, bind_user: &str) -> sqlx::Result<bool> {
    let done = query(
        "INSERT INTO falcon_portal.grp_tpl (grp_id, tpl_id, bind_user)
         SELECT ?, ?, ? FROM (SELECT 1 AS one) AS one_row
         WHERE NOT EXISTS (SELECT 1 FROM falcon_portal.grp_tpl WHERE grp_id = ? AND tpl_id = ?)",
    )
    .bind(id)
    .bind(tpl_id)
    .bind(bind_user)
    .bind(id)
    .bind(tpl_id)
    .execute(on)
    .await?;
    Ok(done.rows == 1)
}

/// Unbinds a template from a group, if it is bound.
pub async fn unbind_template(portal: &Portal, id: i64, tpl_id: i64) -> sqlx::Result<()> {
    unbind_within(portal, id, tpl_id).await?;
    portal.announce();
    Ok(())
}

/// As [`unbind_template`], inside a transaction; the caller announces it.
pub async fn unbind_within(on: impl Into<Target<'_>>, id: i64, tpl_id: i64) -> sqlx::Result<()> {
    let sql = "DELETE FROM falcon_portal.grp_tpl WHERE grp_id = ? AND tpl_id = ?";
    query(sql).bind(id).bind(tpl_id).execute(on).await?;
    Ok(())
}

/// Puts a host into a group; returns false when the group has it already.
async fn bind_host(transaction: &mut Transaction, id: i64, host_id: i64) -> sqlx::Result<bool> {
    let done = query(
        "INSERT INTO falcon_portal.grp_host (grp_id, host_id) SELECT ?, ? FROM (SELECT 1 AS one) AS one_row
         WHERE NOT EXISTS (SELECT 1 FROM falcon_portal.grp_host WHERE host_id = ? AND grp_id = ?)",
    )
    .bind(id)
    .bind(host_id)
    .bind(host_id)
    .bind(id)
    .execute(transaction)
    .await?;
    Ok(done.rows == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;
    use crate::portal::{host, plugin, template};
    use anyhow::Result;

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    /// A group with its hosts, templates and plugins, seen from each of them.
    #[tokio::test]
    async fn a_group_is_seen_from_its_hosts_and_templates() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let group = create(&portal, "web", "alice").await?;
        let taken = create(&portal, "WEB", "bob").await.expect_err("names compare without case");
        assert!(taken.as_database_error().is_some_and(|error| error.is_unique_violation()), "{taken}");
        let ids = replace_hosts(&portal, group.id, &texts(&["a", "b"])).await?.expect("room");
        let added = add_hosts(&portal, group.id, texts(&["B", "c"])).await?.expect("room");
        assert_eq!(added, Addition { added: texts(&["c"]), existing: texts(&["B"]) });
        assert_eq!(remove_hosts(&portal, group.id, texts(&["none", "c", "c"])).await?, ["c"]);
        let names: Vec<_> = host::of_group(&portal, group.id).await?.into_iter().map(|host| host.hostname).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(of_host(&portal, ids[0]).await?, std::slice::from_ref(&group));
        assert_eq!((host::exists(&portal, ids[1]).await?, host::exists(&portal, 999).await?), (true, false));
        remove_host(&portal, group.id, ids[1]).await?;
        assert_eq!(members(&mut portal.read().await?).await?.rows, [(ids[0], group.id)]);

        let tpl = template::create(&portal, "t", 0, 0, "alice").await?;
        assert!(bind_template(&portal, group.id, tpl.id, "alice").await?);
        assert!(!bind_template(&portal, group.id, tpl.id, "bob").await?, "a binding is there once");
        assert_eq!(bindings(&mut portal.read().await?).await?.rows, [(group.id, tpl.id)]);
        assert_eq!(bind_user(&portal, group.id, tpl.id).await?.as_deref(), Some("alice"));
        assert_eq!(templates(&portal, group.id).await?, std::slice::from_ref(&tpl));
        assert_eq!(template::of_host(&portal, ids[0]).await?, std::slice::from_ref(&tpl));
        assert_eq!(of_template(&portal, tpl.id).await?, std::slice::from_ref(&group));
        unbind_template(&portal, group.id, tpl.id).await?;
        assert_eq!(template::of_host(&portal, ids[0]).await?, []);

        let dir = plugin::create(&portal, group.id, "sys/ntp", "alice").await?;
        assert_eq!(plugin::of_group(&portal, group.id).await?, std::slice::from_ref(&dir));
        assert_eq!(plugin::dirs(&mut portal.read().await?).await?.rows, [(group.id, "sys/ntp".to_string())]);
        assert_eq!(plugin::by_id(&portal, dir.id).await?, Some(dir.clone()));
        plugin::delete(&portal, dir.id).await?;
        assert_eq!(plugin::by_id(&portal, dir.id).await?, None);

        assert_eq!(rename(&portal, group.id, "web2").await?, 1);
        assert_eq!(by_id(&portal, group.id).await?.map(|group| group.grp_name).as_deref(), Some("web2"));
        delete(&portal, group.id).await?;
        assert_eq!((all(&portal).await?, members(&mut portal.read().await?).await?.rows), (vec![], vec![]));
        Ok(())
    }
}
