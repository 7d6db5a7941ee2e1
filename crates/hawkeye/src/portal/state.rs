//! State (`alarms.hawkeye_state`): single texts that the server remembers, by name.

use super::Portal;
use super::db::query;

/// The text of this name; none where there is none.
pub async fn load(portal: &Portal, name: &str) -> sqlx::Result<Option<String>> {
    query("SELECT value FROM alarms.hawkeye_state WHERE name = ?").bind(name).optional(portal).await
}

/// Keeps a text under this name, in place of the one before.
pub async fn save(portal: &Portal, name: &str, value: &str) -> sqlx::Result<()> {
    query("INSERT INTO alarms.hawkeye_state (name, value) VALUES (?, ?)")
        .bind(name)
        .bind(value)
        .or_update("name", &["value"])
        .execute(portal)
        .await?;
    Ok(())
}

/// Forgets the text of this name.
pub async fn delete(portal: &Portal, name: &str) -> sqlx::Result<()> {
    query("DELETE FROM alarms.hawkeye_state WHERE name = ?").bind(name).execute(portal).await?;
    Ok(())
}
