//! Directory: whom to tell, asked of an old api (`alarm.plus_api`) by an alarm that runs alone.
//!
//! How: before a batch of events is planned, its actions and their teams are asked for and copied into the own tables
//! (`portal::copied`), where they are then read. What was asked a moment ago is not asked again.
//! Invariants: what cannot be asked leaves the last copy, over restarts too, and is told as an outage; it never keeps
//! an event.
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
/// Actions of which it is known when they were asked for; more are asked for once more.
const ASKED_MAX: usize = 10_000;

/// Where actions and teams are asked for.
pub struct Directory {
    api: PlusApi,
    asked: HashMap<i64, Instant>,
    outage: Outage,
}

impl Directory {
    /// An api that nothing was asked of yet. Fails where the client cannot be made.
    pub fn new(config: &AlarmConfig, outage: Outage) -> Result<Directory> {
        let api = PlusApi::new(&config.plus_api, "falcon-alarm", &config.plus_api_token)?;
        Ok(Directory { api, asked: HashMap::new(), outage })
    }

    /// Copies these actions and their teams, as far as the api tells.
    pub async fn copy(&mut self, portal: &Portal, actions: &[i64]) {
        if self.asked.len() > ASKED_MAX {
            self.asked.clear();
        }
        for id in actions {
            if self.asked.get(id).is_some_and(|at| at.elapsed() < FRESH) {
                continue;
            }
            let copied = self.copy_one(portal, *id).await;
            self.asked.insert(*id, Instant::now());
            self.outage.note(copied);
        }
    }

    async fn copy_one(&self, portal: &Portal, id: i64) -> Result<()> {
        // One that is gone was there when its event was made: its last copy says whom to tell.
        let Some(action) = self.api.get::<Action>(&format!("action/{id}")).await? else { return Ok(()) };
        if action.id != id {
            bail!("asked for action {id}, it answers action {}", action.id);
        }
        copied::keep_action(portal, &action).await.context("cannot keep an action")?;
        for name in action::teams(&action.uic) {
            if let Some(team) = self.api.get::<copied::Team>(&format!("team/name/{}", encoded(name))).await? {
                copied::keep_team(portal, &team).await.context("cannot keep a team")?;
            }
        }
        Ok(())
    }
}
