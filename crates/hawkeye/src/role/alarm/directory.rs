//! Directory: whom to tell, asked of an old api (`alarm.plus_api`) by an alarm that runs alone.
//!
//! How: before a batch of events is planned, its actions and their teams are asked for and copied into the own tables
//! (`portal::copied`), where they are then read. What was asked a moment ago is not asked again.
//! Invariants: what cannot be asked leaves the last copy, over restarts too, and is told as an outage. An action is
//! copied behind its teams, so one that is there is whole. Events of an action that was never told wait for the api,
//! but not for longer than [`WAIT_MAX`] in one outage: others wait behind them.
//! Memory: a time per action, of [`ASKED_MAX`].
//! Compat: docs/open-falcon/alarm.md §2–3: the header `Apitoken` with the name `falcon-alarm`.

use crate::config::AlarmConfig;
use crate::plus_api::{PlusApi, encoded};
use crate::portal::action::{self, Action};
use crate::portal::{Portal, copied};
use crate::watch::health::Outage;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The time that a copy counts as new. The original asks for each event; a storm has many of one action.
const FRESH: Duration = Duration::from_secs(5);
/// The time that events wait for an api that does not answer: a restart of it takes less.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Actions of which it is known when they were asked for; more are asked for once more.
const ASKED_MAX: usize = 10_000;

/// Where actions and teams are asked for.
pub struct Directory {
    api: PlusApi,
    asked: HashMap<i64, Instant>,
    outage: Outage,
    /// Time since which an action that was never told is asked for in vain.
    missing_since: Option<Instant>,
}

impl Directory {
    /// An api that nothing was asked of yet. Fails where the client cannot be made.
    pub fn new(config: &AlarmConfig, outage: Outage) -> Result<Directory> {
        let api = PlusApi::new(&config.plus_api, "falcon-alarm", &config.plus_api_token)?;
        Ok(Directory { api, asked: HashMap::new(), outage, missing_since: None })
    }

    /// Copies these actions and their teams, as far as the api tells; false where events are to wait for one of them.
    pub async fn copy(&mut self, portal: &Portal, actions: &[i64]) -> bool {
        if self.asked.len() > ASKED_MAX {
            self.asked.clear();
        }
        let mut is_missing = false;
        for id in actions {
            if self.asked.get(id).is_some_and(|at| at.elapsed() < FRESH) {
                continue;
            }
            let copied = self.copy_one(portal, *id).await;
            match &copied {
                Ok(()) => self.missing_since = None,
                Err(_) if self.has_copy(portal, *id).await => {}
                Err(_) => is_missing = true,
            }
            if !is_missing {
                self.asked.insert(*id, Instant::now());
            }
            self.outage.note(copied);
        }
        !is_missing || self.missing_since.get_or_insert_with(Instant::now).elapsed() >= WAIT_MAX
    }

    async fn has_copy(&self, portal: &Portal, id: i64) -> bool {
        // Tables that cannot be read are told by whoever reads them next.
        action::by_id(portal, id).await.map_or(true, |found| found.is_some())
    }

    async fn copy_one(&self, portal: &Portal, id: i64) -> Result<()> {
        // One that is gone was there when its event was made: its last copy says whom to tell.
        let Some(action) = self.api.get::<Action>(&format!("action/{id}")).await? else { return Ok(()) };
        if action.id != id {
            bail!("asked for action {id}, it answers action {}", action.id);
        }
        for name in action::teams(&action.uic) {
            if let Some(team) = self.api.get::<copied::Team>(&format!("team/name/{}", encoded(name))).await? {
                copied::keep_team(portal, &team).await.context("cannot keep a team")?;
            }
        }
        copied::keep_action(portal, &action).await.context("cannot keep an action")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;
    use crate::watch::health::Health;

    #[tokio::test]
    async fn events_wait_for_an_action_that_was_never_told_and_not_for_ever() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let health = Health::default();
        // Nobody listens there.
        let plus_api = "http://127.0.0.1:1".to_string();
        let config = AlarmConfig { plus_api, ..AlarmConfig::default() };
        let mut directory = Directory::new(&config, health.outage("the old api does not tell"))?;
        assert!(!directory.copy(&portal, &[7]).await, "it was never told");
        assert_eq!(health.reasons().len(), 1);
        copied::keep_action(&portal, &Action { id: 8, ..Action::default() }).await?;
        assert!(directory.copy(&portal, &[8]).await, "there is a copy");
        assert!(!directory.copy(&portal, &[7, 8]).await);
        directory.missing_since = Instant::now().checked_sub(WAIT_MAX);
        assert!(directory.copy(&portal, &[7]).await, "others wait behind it");
        Ok(())
    }
}
