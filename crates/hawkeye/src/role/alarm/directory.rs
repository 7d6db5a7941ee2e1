//! Directory: whom to tell, asked of an old api (`alarm.plus_api`) by an alarm that runs alone.
//!
//! How: before a batch of events is planned, its actions and their teams are asked for and copied into the own tables
//! (`portal::copied`), where they are then read. What was asked a moment ago is not asked again, nor is an api that has
//! just not answered.
//! Invariants: what cannot be asked leaves the last copy, over restarts too, and is told as an outage. An action is
//! copied behind its teams, so one that is there is whole. An api that hangs holds alarm up for [`ASK_MAX`], then for a
//! pause not at all.
//! Memory: a time per action, of [`ASKED_MAX`].
//! Compat: docs/open-falcon/alarm.md §2–3: the header `Apitoken` with the name `falcon-alarm`.

use crate::config::AlarmConfig;
use crate::plus_api::{PlusApi, encoded};
use crate::portal::action::{self, Action};
use crate::portal::{Portal, copied};
use crate::watch::health::Outage;
use anyhow::{Context, Result, bail};
use net::tls::client::Trust;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The time that a copy counts as new. The original asks for each event; a storm has many of one action.
const FRESH: Duration = Duration::from_secs(5);
/// The time that an action and its teams may take. Everything that alarm does waits meanwhile.
const ASK_MAX: Duration = Duration::from_secs(3);
/// Pauses after an api did not answer: the first, and the longest; each is twice the one before.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Actions of which it is known when they were asked for; more are asked for once more.
const ASKED_MAX: usize = 10_000;

/// The api that takes longer than [`ASK_MAX`].
#[derive(Debug)]
struct NoAnswer;

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it does not answer within {ASK_MAX:?}")
    }
}

impl std::error::Error for NoAnswer {}

/// Where actions and teams are asked for.
pub struct Directory {
    api: PlusApi,
    asked: HashMap<i64, Instant>,
    outage: Outage,
    /// Until when an api that did not answer is not asked, and the pause after that.
    away_until: Option<Instant>,
    pause: Duration,
}

impl Directory {
    /// An api that nothing was asked of yet. Fails where the client cannot be made.
    pub fn new(config: &AlarmConfig, trust: Option<&Trust>, outage: Outage) -> Result<Directory> {
        let api = PlusApi::new(&config.plus_api, "falcon-alarm", &config.plus_api_token, trust)?;
        Ok(Directory { api, asked: HashMap::new(), outage, away_until: None, pause: PAUSE })
    }

    /// Copies these actions and their teams, as far as the api tells; answers those of which there is no copy, because
    /// it did not.
    pub async fn copy(&mut self, portal: &Portal, actions: &[i64]) -> Vec<i64> {
        if self.asked.len() > ASKED_MAX {
            self.asked.clear();
        }
        let mut missing = Vec::new();
        for id in actions {
            if self.asked.get(id).is_some_and(|at| at.elapsed() < FRESH) {
                continue;
            }
            if self.ask(portal, *id).await || self.has_copy(portal, *id).await {
                self.asked.insert(*id, Instant::now());
            } else {
                missing.push(*id);
            }
        }
        missing
    }

    /// Asks for an action, unless the api has just not answered; true when it answered.
    async fn ask(&mut self, portal: &Portal, id: i64) -> bool {
        if self.away_until.is_some_and(|until| until > Instant::now()) {
            return false;
        }
        let copied = tokio::time::timeout(ASK_MAX, self.copy_one(portal, id)).await;
        let copied = copied.unwrap_or_else(|_| Err(NoAnswer.into()));
        let answered =
            copied.as_ref().err().is_none_or(|error| !(error.is::<NoAnswer>() || error.is::<reqwest::Error>()));
        if answered {
            (self.away_until, self.pause) = (None, PAUSE);
        } else {
            self.away_until = Some(Instant::now() + self.pause);
            self.pause = (2 * self.pause).min(PAUSE_MAX);
        }
        let is_copied = copied.is_ok();
        self.outage.note(copied);
        is_copied
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
        action::keep(portal, &action).await.context("cannot keep an action")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;
    use crate::watch::health::Health;

    #[tokio::test]
    async fn what_was_never_told_is_missing_and_an_api_that_is_away_is_left_alone() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let health = Health::default();
        // Nobody listens there.
        let plus_api = "http://127.0.0.1:1".to_string();
        let config = AlarmConfig { plus_api, ..AlarmConfig::default() };
        let mut directory = Directory::new(&config, None, health.outage("the old api does not tell"))?;
        assert_eq!(directory.copy(&portal, &[7]).await, [7], "it was never told");
        assert_eq!(health.reasons().len(), 1);
        assert!(directory.away_until.is_some_and(|until| until > Instant::now()));
        action::keep(&portal, &Action { id: 8, ..Action::default() }).await?;
        assert_eq!(directory.copy(&portal, &[7, 8]).await, [7], "there is a copy");
        let mut last = Duration::ZERO;
        while directory.pause > last {
            last = directory.pause;
            directory.away_until = None;
            directory.copy(&portal, &[9]).await;
        }
        assert_eq!(last, PAUSE_MAX);
        Ok(())
    }
}
