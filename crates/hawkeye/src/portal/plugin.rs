//! Plugin directories of host groups (`falcon_portal.plugin_dir`): which scripts the group's agents run.
//!
//! Invariants: a saved directory stays inside the agent's plugin directory ([`check_dir`]); the original takes `../`.

use super::Portal;
use serde::Serialize;

/// The column's length, in characters.
pub const DIR_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plugin {
    pub id: i64,
    pub grp_id: i64,
    pub dir: String,
    pub create_user: String,
}

type Row = (i64, i64, String, String);

impl From<Row> for Plugin {
    fn from((id, grp_id, dir, create_user): Row) -> Plugin {
        Plugin { id, grp_id, dir, create_user }
    }
}

pub async fn of_group(portal: &Portal, grp_id: i64) -> sqlx::Result<Vec<Plugin>> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT id, grp_id, dir, create_user FROM plugin_dir WHERE grp_id = ? ORDER BY id")
            .bind(grp_id)
            .fetch_all(portal.pool())
            .await?;
    Ok(rows.into_iter().map(Plugin::from).collect())
}

pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Plugin>> {
    let row: Option<Row> = sqlx::query_as("SELECT id, grp_id, dir, create_user FROM plugin_dir WHERE id = ?")
        .bind(id)
        .fetch_optional(portal.pool())
        .await?;
    Ok(row.map(Plugin::from))
}

pub async fn create(portal: &Portal, grp_id: i64, dir: &str, create_user: &str) -> sqlx::Result<Plugin> {
    let done = sqlx::query("INSERT INTO plugin_dir (grp_id, dir, create_user) VALUES (?, ?, ?)")
        .bind(grp_id)
        .bind(dir)
        .bind(create_user)
        .execute(portal.pool())
        .await?;
    portal.announce();
    Ok(Plugin { id: done.last_insert_rowid(), grp_id, dir: dir.to_string(), create_user: create_user.to_string() })
}

pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM plugin_dir WHERE id = ?").bind(id).execute(portal.pool()).await?;
    portal.announce();
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
