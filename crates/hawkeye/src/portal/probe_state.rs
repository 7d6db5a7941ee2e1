//! What places say of probes (`falcon_portal.hawkeye_probe_state`): up or down, and why, as rows.
//!
//! Why: an alarm says that `probe.up` is 0; whoever gets it wants to know why, and which places say so.
//! How: a row per probe and place, written when the place says something else than before.
//! Invariants: places are compared exactly, as hosts are.
//! Compat: the table is Hawkeye's own. An Open-Falcon's MySQL, over which hbs runs alone, may lack it, and has no state.

use super::Portal;
use super::db::{fault, query, select};
use super::probe::State;
use model::Event;

/// Place of what the server runs itself.
pub const SERVER: &str = "server";
/// States of a probe that are quoted together: an alarm is a text message.
pub const QUOTED_MAX: i64 = 3;
/// Length of the column `code`, in characters.
pub const CODE_MAX: usize = 32;
/// Rows that are looked up, or deleted, in one statement.
const LIST_ROWS: usize = 100;

impl State {
    /// Whether both say the same, whenever.
    pub fn says_as(&self, other: &State) -> bool {
        (self.up, &self.code, &self.reason) == (other.up, &other.code, &other.reason)
    }

    /// Why it is down, in a line.
    pub fn why(&self) -> &str {
        if self.reason.is_empty() { &self.code } else { &self.reason }
    }
}

/// Writes those of `told` that differ from what there is, in one transaction; all are of `place`. Answers how many.
pub async fn set(portal: &Portal, place: &str, told: &[State]) -> sqlx::Result<usize> {
    let mut new = Vec::new();
    for told in told.chunks(LIST_ROWS) {
        let ids = told.iter().map(|state| state.probe_id);
        let known = select::<State>("FROM falcon_portal.hawkeye_probe_state WHERE place = ? AND probe_id");
        let known: Vec<State> = known.bind(place).in_list(ids).all(portal).await?;
        let is_known =
            |state: &&State| known.iter().any(|known| known.probe_id == state.probe_id && known.says_as(state));
        new.extend(told.iter().filter(|state| !is_known(state)));
    }
    if new.is_empty() {
        return Ok(0);
    }
    let mut transaction = portal.write().await?;
    for state in &new {
        debug_assert!(state.place == place && state.code.chars().count() <= CODE_MAX, "{state:?}");
        query(
            "INSERT INTO falcon_portal.hawkeye_probe_state (probe_id, place, up, code, reason, changed_at)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(state.probe_id)
        .bind(place)
        .bind(state.up)
        .bind(&state.code)
        .bind(&state.reason)
        .bind(state.changed_at)
        .or_update("probe_id, place", &["up", "code", "reason", "changed_at"])
        .execute(&mut transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(new.len())
}

/// Places of the probe with this name that are down, and how many: all of them, of which at most [`QUOTED_MAX`] are
/// answered, or the one of `place`.
pub async fn down(portal: &Portal, name: &str, place: Option<&str>) -> sqlx::Result<(Vec<State>, i64)> {
    const OF_NAME: &str = " probe_id IN (SELECT id FROM falcon_portal.hawkeye_probe WHERE name = ?) AND up = 0";
    let rows = select::<State>("FROM falcon_portal.hawkeye_probe_state WHERE").push(OF_NAME).bind(name);
    let rows = rows.narrow(" AND place = ?", place).push(" ORDER BY place LIMIT ?").bind(QUOTED_MAX);
    let count = query("SELECT COUNT(*) FROM falcon_portal.hawkeye_probe_state WHERE").push(OF_NAME).bind(name);
    let read = async || {
        let count: i64 = count.narrow(" AND place = ?", place).one(portal).await?;
        Ok((if count == 0 { Vec::new() } else { rows.all(portal).await? }, count))
    };
    match read().await {
        Err(error) if fault::is_missing_table(&error) => Ok((Vec::new(), 0)),
        read => read,
    }
}

/// Local text of the time at which the alarm of an event was OK last; none where it never was.
pub async fn ok_before(portal: &Portal, event: &Event) -> sqlx::Result<Option<String>> {
    let found =
        query("SELECT timestamp FROM alarms.events WHERE event_caseId = ? AND status = 1 ORDER BY id DESC LIMIT 1");
    found.bind(event.id()).optional(portal).await
}

/// Ids of the probes of which there are states, also of those that are gone.
pub async fn probes(portal: &Portal) -> sqlx::Result<Vec<i64>> {
    let rows = query("SELECT DISTINCT probe_id FROM falcon_portal.hawkeye_probe_state").all(portal).await;
    match rows {
        Err(error) if fault::is_missing_table(&error) => Ok(Vec::new()),
        rows => rows,
    }
}

/// Deletes what places say of a probe whose `runs` says no; answers how many rows went. Nothing waits for a lock while
/// nothing goes.
pub async fn purge(portal: &Portal, probe_id: i64, mut runs: impl FnMut(&str) -> bool) -> sqlx::Result<usize> {
    let rows = query("SELECT place FROM falcon_portal.hawkeye_probe_state WHERE probe_id = ?").bind(probe_id);
    let rows: Vec<String> = rows.all(portal).await?;
    let gone: Vec<String> = rows.into_iter().filter(|place| !runs(place)).collect();
    for places in gone.chunks(LIST_ROWS) {
        query("DELETE FROM falcon_portal.hawkeye_probe_state WHERE probe_id = ? AND place")
            .bind(probe_id)
            .in_list(places.iter().cloned())
            .execute(portal)
            .await?;
    }
    Ok(gone.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::{run, temporary};
    use anyhow::Result;

    fn state(probe_id: i64, place: &str, up: i64, reason: &str, changed_at: i64) -> State {
        let code = if up == 1 { "" } else { "status" };
        State { probe_id, place: place.into(), up, code: code.into(), reason: reason.into(), changed_at }
    }

    #[tokio::test]
    async fn only_what_differs_is_written() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        run(&portal, "INSERT INTO falcon_portal.hawkeye_probe (id, name, definition) VALUES (1, 'shop', '{}')").await?;
        let first = [state(1, "a", 0, "status 503", 10), state(2, "a", 1, "", 10)];
        assert_eq!(set(&portal, "a", &first).await?, 2);
        let later: Vec<State> = first.iter().map(|state| State { changed_at: 70, ..state.clone() }).collect();
        assert_eq!(set(&portal, "a", &later).await?, 0);
        assert_eq!(down(&portal, "shop", None).await?, (vec![first[0].clone()], 1), "the first that said so");
        assert_eq!(set(&portal, "a", &[state(1, "a", 0, "status 500", 130), later[1].clone()]).await?, 1);
        assert_eq!(down(&portal, "shop", Some("a")).await?, (vec![state(1, "a", 0, "status 500", 130)], 1));
        assert_eq!(down(&portal, "shop", Some("A")).await?, (Vec::new(), 0));
        for place in ["e", "d", "c", "b"] {
            set(&portal, place, &[state(1, place, 0, "no", 5)]).await?;
        }
        set(&portal, "b", &[state(1, "b", 1, "", 6)]).await?;
        let (quoted, count) = down(&portal, "shop", None).await?;
        let places: Vec<&str> = quoted.iter().map(|state| state.place.as_str()).collect();
        assert_eq!((places, count), (vec!["a", "c", "d"], 4));
        assert_eq!(down(&portal, "mail", None).await?, (Vec::new(), 0));
        Ok(())
    }

    #[tokio::test]
    async fn what_nobody_runs_goes() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        for place in ["a", "b", "c"] {
            set(&portal, place, &[state(1, place, 1, "", 5), state(2, place, 1, "", 5)]).await?;
        }
        assert_eq!(purge(&portal, 1, |place| place == "b").await?, 2);
        assert_eq!(purge(&portal, 1, |place| place == "b").await?, 0);
        assert_eq!(purge(&portal, 2, |_| false).await?, 3);
        assert_eq!(probes(&portal).await?, [1]);
        Ok(())
    }
}
