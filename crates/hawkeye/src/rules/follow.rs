//! Follow: the rules in effect for an hbs alone, from tables that others change.
//!
//! Why: the original's api and dashboard write the tables and announce nothing; the original's hbs reads them once a
//! minute.
//! How: all tables are read in one transaction each [`EVERY`], and sooner when an agent has reported for the first
//! time. There is no engine: nothing is judged here.
//! Invariants: what cannot be read leaves the rules of before, and is told.

use super::{InEffect, compute};
use crate::portal::Portal;
use crate::rules::snapshot::Snapshot;
use crate::watch::health::Outage;
use anyhow::Result;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Pause between two reads: a read of a thousand hosts takes milliseconds.
const EVERY: Duration = Duration::from_secs(10);
/// The least pause: a fleet that reports for the first time does not read for each host.
const SOONEST: Duration = Duration::from_secs(1);

/// Reads the rules once; fails where they cannot be read.
pub async fn first(portal: &Portal) -> Result<watch::Sender<Arc<InEffect>>> {
    let snapshot = Arc::new(Snapshot::load(portal).await?);
    let rules = compute(&snapshot, 1, true);
    Ok(watch::Sender::new(Arc::new(InEffect::new(snapshot, rules))))
}

/// Keeps the rules up to date until the stop.
pub async fn run(
    portal: Portal,
    current: watch::Sender<Arc<InEffect>>,
    outage: Outage,
    mut stopping: watch::Receiver<bool>,
) -> Result<()> {
    let mut changes = portal.changes();
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
            () = after_change(&mut changes) => {}
        }
        let read = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            read = Snapshot::load(&portal) => read,
        };
        outage.note(read.map(|snapshot| take(&current, snapshot)));
    }
}

async fn after_change(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        // Nobody is left to announce anything.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(SOONEST).await;
}

/// Puts the rules of these tables into effect.
fn take(current: &watch::Sender<Arc<InEffect>>, snapshot: Snapshot) {
    let before = current.borrow().clone();
    let snapshot = Arc::new(snapshot);
    let rules = compute(&snapshot, before.rules.version + 1, false);
    current.send_replace(Arc::new(InEffect::new(snapshot, rules)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;
    use crate::portal::{group, strategy, template};
    use crate::watch::health::Health;

    /// Tables that another writes are seen, and damage leaves what was.
    #[tokio::test]
    async fn what_others_write_is_seen() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let current = first(&portal).await?;
        assert_eq!(current.borrow().rules.hosts.len(), 0);
        let (seen, health) = (current.subscribe(), Health::default());
        let (stop, stopping) = watch::channel(false);
        let following = tokio::spawn(run(portal.clone(), current, health.outage("rules"), stopping));
        let grp = group::create(&portal, "web", "root").await?.id;
        group::add_hosts(&portal, grp, vec!["web-01".to_string()]).await?;
        let tpl = template::create(&portal, "t", 0, 0, "root").await?.id;
        group::bind_template(&portal, grp, tpl, "root").await?;
        let row = strategy::Strategy {
            tpl_id: tpl,
            metric: "m".into(),
            func: "all(#1)".into(),
            op: ">".into(),
            right_value: "1".into(),
            ..Default::default()
        };
        strategy::create(&portal, &row).await?;
        net::patience::until("the host's rule", async || seen.borrow().rules.hosts.contains_key("web-01")).await;
        stop.send(true)?;
        following.await??;
        assert_eq!(health.reasons(), []);
        Ok(())
    }
}
