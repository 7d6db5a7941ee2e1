//! Agents (`falcon_portal.hawkeye_agent`): what each Hawkeye agent has said of itself last: version, settings, clock.
//!
//! Why: a fleet of ten thousand has some whose file was changed by hand, that were never upgraded, or whose clock is
//! wrong; nobody finds them by looking at hosts one by one.
//! How: a row per host that has said so, under the name that the table of hosts has. What an agent says again changes
//! nothing, and an offset only where it [`differs`], so that a clock's jitter is no write a minute.
//! Invariants: names compare exactly, for they are taken from the table of hosts, which has each once; a row goes with
//! its host. There are at most [`host::HOSTS_MAX`] rows: where an old dashboard deletes hosts and leaves rows, the one
//! that was told longest ago goes.
//! Compat: the table is Hawkeye's own; over an Open-Falcon's MySQL without it nothing is kept, and nothing fails.

use super::Portal;
use super::db::{Transaction, fault, query, record, select};
use super::host;
use serde::Serialize;

/// Length of the column `version`, in characters.
pub const VERSION_MAX: usize = 64;
/// Length of the column `config_digest`, in characters.
pub const CONFIG_DIGEST_MAX: usize = 64;
/// The furthest offset that is kept, three hundred years in milliseconds: what a clock at its first or last second is
/// off by.
pub const CLOCK_OFFSET_MS_MAX: i64 = 10_000_000_000_000;
/// Milliseconds by which an offset must differ from the one that is kept to be written. An agent measures over a way
/// there and back of half a second at most, so to a quarter of one.
const DIFFERS_MS: u64 = 1000;

record! {
    /// Row of an agent, as the API shows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Agent {
        pub hostname: String,
        /// Version and machine.
        pub version: String,
        /// Equal digests are equal settings.
        pub config_digest: String,
        /// The agent's clock less the server's, in milliseconds; none is unknown.
        pub clock_offset_ms: Option<i64>,
        /// Unix seconds when it has said something else than before.
        pub told_at: i64,
    }
}

/// Whether an offset is another one than the one that was told last.
pub fn differs(told: Option<i64>, now: Option<i64>) -> bool {
    match (told, now) {
        (Some(told), Some(now)) => told.abs_diff(now) >= DIFFERS_MS,
        // One that is no longer known is still the best that is.
        (_, None) => false,
        (None, Some(_)) => true,
    }
}

/// Keeps what an agent says, if it is something new; the host must be there. `agent.hostname` is the name by which it
/// reports. Answers the row as it is now; none where there is no table for it, or no such host.
pub async fn tell(portal: &Portal, agent: &Agent) -> sqlx::Result<Option<Agent>> {
    match keep(portal, agent).await {
        Err(error) if fault::is_missing_table(&error) => Ok(None),
        kept => kept,
    }
}

async fn keep(portal: &Portal, agent: &Agent) -> sqlx::Result<Option<Agent>> {
    let Some(host) = host::by_name(portal, &agent.hostname).await? else { return Ok(None) };
    let known = by_name(portal, &host.hostname).await?;
    let before = known.as_ref().and_then(|known| known.clock_offset_ms);
    let is_further = differs(before, agent.clock_offset_ms);
    let new = Agent {
        hostname: host.hostname,
        clock_offset_ms: if is_further { agent.clock_offset_ms } else { before },
        ..agent.clone()
    };
    if let Some(known) = known.filter(|known| Agent { told_at: known.told_at, ..new.clone() } == *known) {
        return Ok(Some(known));
    }
    let mut transaction = portal.write().await?;
    make_room(&mut transaction, &new.hostname).await?;
    query("INSERT INTO falcon_portal.hawkeye_agent (hostname, version, config_digest, clock_offset_ms, told_at) VALUES (?, ?, ?, ?, ?)")
        .bind(&new.hostname)
        .bind(&new.version)
        .bind(&new.config_digest)
        .bind(new.clock_offset_ms)
        .bind(new.told_at)
        .or_update("hostname", &["version", "config_digest", "clock_offset_ms", "told_at"])
        .execute(&mut transaction)
        .await?;
    transaction.commit().await?;
    Ok(Some(new))
}

async fn by_name(portal: &Portal, hostname: &str) -> sqlx::Result<Option<Agent>> {
    select::<Agent>("FROM falcon_portal.hawkeye_agent WHERE hostname = ?").bind(hostname).optional(portal).await
}

/// Takes the row away that was told longest ago, where there are as many as may be and none of this name.
async fn make_room(transaction: &mut Transaction, hostname: &str) -> sqlx::Result<()> {
    let count: i64 = query("SELECT count(*) FROM falcon_portal.hawkeye_agent WHERE hostname <> ?")
        .bind(hostname)
        .one(&mut *transaction)
        .await?;
    if count < host::HOSTS_MAX {
        return Ok(());
    }
    let sql = "SELECT hostname FROM falcon_portal.hawkeye_agent ORDER BY told_at LIMIT 1";
    let oldest: Option<String> = query(sql).optional(&mut *transaction).await?;
    delete(transaction, &oldest.unwrap_or_default()).await
}

/// Takes the row of a host away, if there is one.
pub(super) async fn delete(transaction: &mut Transaction, hostname: &str) -> sqlx::Result<()> {
    let sql = "DELETE FROM falcon_portal.hawkeye_agent WHERE hostname = ?";
    match query(sql).bind(hostname).execute(transaction).await {
        Err(error) if fault::is_missing_table(&error) => Ok(()),
        deleted => deleted.map(drop),
    }
}

/// All agents by name; none where there is no table for them.
pub async fn all(portal: &Portal) -> sqlx::Result<Vec<Agent>> {
    match select::<Agent>("FROM falcon_portal.hawkeye_agent ORDER BY hostname").all(portal).await {
        Err(error) if fault::is_missing_table(&error) => Ok(Vec::new()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::{fill, temporary};
    use anyhow::Result;

    fn agent(hostname: &str, digest: &str, clock_offset_ms: Option<i64>, told_at: i64) -> Agent {
        let (hostname, config_digest) = (hostname.to_string(), digest.to_string());
        Agent { hostname, version: "0.1.0".into(), config_digest, clock_offset_ms, told_at }
    }

    #[tokio::test]
    async fn what_matters_is_written_and_jitter_is_not() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let mut transaction = portal.write().await?;
        host::ensure(&mut transaction, "web-01").await?;
        transaction.commit().await?;
        let check = async |told: Agent, kept: Agent| -> Result<()> {
            assert_eq!(tell(&portal, &told).await?.as_ref(), Some(&kept), "{told:?}");
            assert_eq!(all(&portal).await?, [kept]);
            Ok(())
        };
        let first = agent("web-01", "a", None, 1);
        check(first.clone(), first.clone()).await?;
        check(agent("web-01", "a", None, 2), first).await?;
        check(agent("WEB-01", "a", Some(40), 3), agent("web-01", "a", Some(40), 3)).await?;
        check(agent("web-01", "a", Some(-900), 4), agent("web-01", "a", Some(40), 3)).await?;
        check(agent("web-01", "a", None, 5), agent("web-01", "a", Some(40), 3)).await?;
        check(agent("web-01", "b", Some(-900), 6), agent("web-01", "b", Some(40), 6)).await?;
        check(agent("web-01", "b", Some(-3_600_000), 7), agent("web-01", "b", Some(-3_600_000), 7)).await?;
        assert_eq!(tell(&portal, &agent("nobody", "a", None, 8)).await?, None);
        let id = host::by_name(&portal, "web-01").await?.expect("there").id;
        host::delete(&portal, id).await?;
        assert_eq!(all(&portal).await?, []);
        Ok(())
    }

    #[test]
    fn offsets_differ_by_a_second() {
        for (told, now, expected) in [
            (Some(0), Some(999), false),
            (Some(0), Some(-1000), true),
            (Some(500), Some(-500), true),
            (None, Some(0), true),
            (Some(5), None, false),
            (None, None, false),
            (Some(i64::MIN), Some(i64::MAX), true),
        ] {
            assert_eq!(differs(told, now), expected, "{told:?} {now:?}");
        }
    }

    #[tokio::test]
    async fn rows_that_were_left_behind_make_room() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let insert = "INSERT INTO falcon_portal.hawkeye_agent (hostname, told_at) SELECT 'h' || i, i";
        fill(&portal, insert, host::HOSTS_MAX).await?;
        let mut transaction = portal.write().await?;
        host::ensure(&mut transaction, "new").await?;
        transaction.commit().await?;
        tell(&portal, &agent("new", "a", None, 9)).await?;
        let names: Vec<String> = all(&portal).await?.into_iter().map(|agent| agent.hostname).collect();
        assert_eq!(names.len() as i64, host::HOSTS_MAX);
        assert!(names.contains(&"new".to_string()) && !names.contains(&"h1".to_string()));
        Ok(())
    }
}
