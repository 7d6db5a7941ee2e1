//! Plugin directories of host groups (`falcon_portal.plugin_dir`): which scripts the group's agents run.
//!
//! Invariants: a saved directory stays inside the agent's plugin directory ([`check_dir`]); the original takes `../`.

use super::Portal;
use super::db::{Salvaged, Target, Transaction, query, record, salvage, select};
use serde::Serialize;

/// The column's length, in characters.
pub const DIR_MAX: usize = 255;

record! {
    /// Row of a plugin directory of a group, as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Plugin {
        pub id: i64,
        pub grp_id: i64,
        pub dir: String,
        pub create_user: String,
    }
}

/// The directories of all groups that can be read, each with its group's id.
pub async fn dirs(transaction: &mut Transaction) -> sqlx::Result<Salvaged<(i64, String)>> {
    salvage(transaction, &["grp_id", "dir"], "falcon_portal.plugin_dir").await
}

/// Plugin directories of a group, oldest first.
pub async fn of_group(portal: &Portal, grp_id: i64) -> sqlx::Result<Vec<Plugin>> {
    select::<Plugin>("FROM falcon_portal.plugin_dir WHERE grp_id = ? ORDER BY id").bind(grp_id).all(portal).await
}

/// Finds a plugin directory by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Plugin>> {
    select::<Plugin>("FROM falcon_portal.plugin_dir WHERE id = ?").bind(id).optional(portal).await
}

/// Adds a plugin directory to a group.
pub async fn create(portal: &Portal, grp_id: i64, dir: &str, create_user: &str) -> sqlx::Result<Plugin> {
    let id = insert(portal, grp_id, dir, create_user).await?;
    portal.announce();
    Ok(Plugin { id, grp_id, dir: dir.to_string(), create_user: create_user.to_string() })
}

/// As [`create`], inside a transaction; the caller announces it.
pub async fn insert(on: impl Into<Target<'_>>, grp_id: i64, dir: &str, create_user: &str) -> sqlx::Result<i64> {
    let insert = query("INSERT INTO falcon_portal.plugin_dir (grp_id, dir, create_user) VALUES (?, ?, ?)");
    Ok(insert.bind(grp_id).bind(dir).bind(create_user).execute(on).await?.id)
}

/// Deletes a plugin directory, if it is there.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    remove(portal, id).await?;
    portal.announce();
    Ok(())
}

/// As [`delete`], inside a transaction; the caller announces it.
pub async fn remove(on: impl Into<Target<'_>>, id: i64) -> sqlx::Result<()> {
    query("DELETE FROM falcon_portal.plugin_dir WHERE id = ?").bind(id).execute(on).await?;
    Ok(())
}

/// A relative path, perhaps with arguments: `sys/ntp`, `web/60_check.sh(a, "b c")`.
pub fn check_dir(dir: &str) -> Result<(), String> {
    let path = dir.split_once('(').map_or(dir, |(path, _)| path);
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(format!("dir_path must stay inside the plugin directory, got {path:?}"));
    }
    if dir.contains(char::is_control) {
        return Err("dir_path must not contain control characters".to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_stay_inside() {
        for right in ["sys", "sys/ntp", "a/60_x.sh(arg1,../arg2)", "a..b/c"] {
            assert_eq!(check_dir(right), Ok(()), "{right}");
        }
        for wrong in ["/etc", "..", "sys/../..", "sys/..(x)", "a\nb"] {
            assert!(check_dir(wrong).is_err(), "{wrong}");
        }
    }
}
