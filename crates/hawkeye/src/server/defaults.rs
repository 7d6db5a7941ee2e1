//! Defaults: rules that a new installation has from the first minute, and that begin to hold when there is a way to
//! tell people.
//!
//! Why: the first alarm of most sites is a full disk that nobody had a rule for.
//! How: the files beside this one are applied as `hawkeye apply` applies files. They are expressions that hold for all
//! hosts, probes and jobs, paused; a template for hosts with the same, bound to no group, as a beginning of one's own;
//! and the team that they tell. At the first start with a channel (`alarm.sms`, `alarm.im`, `alarm.mail`,
//! `alarm.smtp.host`) those expressions that are still there and paused are switched on, once: what people change later
//! stays so.
//! Invariants: only a portal without a user gets them, so no upgraded site has rules that it did not ask for.

use crate::api::code::{self, Actor, ApplyError, Sent};
use crate::config::Config;
use crate::portal::expression;
use crate::portal::{Portal, state};
use anyhow::{Context, Result, bail};

/// Name of what is kept of them: the ids of the expressions that wait for a channel, joined by commas.
const STATE: &str = "defaults.waiting";

/// Files by their paths, as `hawkeye export` names them.
macro_rules! files {
    ($($path:literal),* $(,)?) => { [$(($path, include_str!(concat!("defaults/", $path)))),*] };
}

const FILES: [(&str, &str); 12] = files![
    "expressions/certificate_file.toml",
    "expressions/certificate_served.toml",
    "expressions/disk_full.toml",
    "expressions/host_down.toml",
    "expressions/inodes.toml",
    "expressions/job.toml",
    "expressions/load.toml",
    "expressions/memory.toml",
    "expressions/probe_places.toml",
    "expressions/probe_server.toml",
    "teams/hawkeye.toml",
    "templates/hawkeye.host.toml",
];

/// Gives a portal its defaults where it `is_new`, and switches them on where there is a channel for the first time.
pub async fn keep(portal: &Portal, config: &Config, is_new: bool) -> Result<()> {
    if is_new && config.portal.defaults {
        put(portal, config).await.context("cannot put the default rules into the new portal")?;
    }
    if config.alarm.has_channel() {
        switch_on(portal).await.context("cannot switch the default rules on")?;
    }
    Ok(())
}

async fn put(portal: &Portal, config: &Config) -> Result<()> {
    let files = FILES.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
    let kinds = ["expressions", "teams", "templates"].map(str::to_string).into();
    let sent = Sent { files, kinds, keep: true, dry_run: false };
    let bundle = sent.bundle().map_err(anyhow::Error::msg)?;
    match code::apply(portal, config, &Actor::machine(), &bundle, false).await {
        Ok(_) => {}
        Err(ApplyError::Faults(faults)) => bail!("{}", faults[0]),
        Err(ApplyError::Other(error)) => return Err(error),
    }
    let ids: Vec<String> = expression::all(portal).await?.iter().map(|row| row.id.to_string()).collect();
    state::save(portal, STATE, &ids.join(",")).await?;
    Ok(())
}

async fn switch_on(portal: &Portal) -> Result<()> {
    let Some(waiting) = state::load(portal, STATE).await? else { return Ok(()) };
    let ids: Vec<i64> = waiting.split(',').filter_map(|id| id.parse().ok()).collect();
    let on = expression::resume(portal, &ids).await?;
    state::delete(portal, STATE).await?;
    tracing::info!(expressions = on, "the default rules hold from now on, for there is a channel to tell people by");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::db::query;
    use crate::portal::tests::temporary;
    use crate::portal::{admin, team, template};

    fn with_channel(url: &str) -> Config {
        let mut config = Config::default();
        config.alarm.im = url.to_string();
        config
    }

    #[tokio::test]
    async fn rules_are_there_and_wait_for_a_channel() -> Result<()> {
        let (dir, portal) = temporary().await?;
        let is_new = admin::ensure_root(&portal, dir.path()).await?.is_some();
        let silent = with_channel("");
        keep(&portal, &silent, is_new).await?;
        let rows = expression::all(&portal).await?;
        assert_eq!(rows.len(), 10);
        assert!(rows.iter().all(|row| row.is_paused()), "{rows:?}");
        assert!(template::all(&portal).await?.iter().any(|row| row.tpl_name == "hawkeye.host"));
        assert!(team::by_name(&portal, "hawkeye").await?.is_some());
        // One that is deleted stays so, and one start without a channel changes nothing.
        expression::delete(&portal, rows[0].id).await?;
        keep(&portal, &silent, false).await?;
        assert!(expression::all(&portal).await?.iter().all(|row| row.is_paused()));
        let loud = with_channel("http://127.0.0.1:1/im");
        keep(&portal, &loud, false).await?;
        let on = expression::all(&portal).await?;
        assert_eq!(on.len(), 9);
        assert!(on.iter().all(|row| !row.is_paused()), "{on:?}");
        // What somebody pauses behind that stays paused.
        let sql = "UPDATE falcon_portal.expression SET pause = 1 WHERE id = ?";
        query(sql).bind(on[0].id).execute(&portal).await?;
        keep(&portal, &loud, false).await?;
        assert!(expression::all(&portal).await?[0].is_paused());
        Ok(())
    }

    #[tokio::test]
    async fn nobody_gets_them_who_did_not_ask() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        keep(&portal, &with_channel("http://127.0.0.1:1/im"), false).await?;
        let mut without = Config::default();
        without.portal.defaults = false;
        keep(&portal, &without, true).await?;
        assert_eq!(expression::all(&portal).await?, []);
        Ok(())
    }
}
