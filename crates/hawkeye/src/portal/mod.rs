//! Portal: the control plane's tables (users, teams, hosts, groups, templates, strategies, expressions, alarms) and
//! what follows from them.
//!
//! Why: Open-Falcon spreads them over five MySQL databases that every component polls each minute. Here one file
//! (`<data_dir>/portal.db`) holds them, and a change is announced at once.
//! How: one file per subject has the record of each table and its statements, which [`db`] runs. Whoever writes a row
//! that rules depend on calls [`Portal::announce`] after its commit; hbs and judge wait on [`Portal::changes`].
//! Invariants: no row text can stop the process: rows are validated when saved, and what an old row holds is skipped
//! and counted when rules are computed. No file here knows which database it speaks to.
//! Memory: the connections' caches (see [`db`]), and lists as long as the answers that ask for them.

pub mod action;
pub mod admin;
pub mod alarm;
pub mod caller;
pub mod db;
pub mod delivery;
pub mod expression;
pub mod group;
pub mod host;
pub mod password;
pub mod plugin;
pub mod session;
pub mod strategy;
pub mod team;
pub mod template;
pub mod user;

use anyhow::Result;
use db::{Db, Target, Transaction};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// The control plane's tables, and the announcement of their changes; clones share them.
#[derive(Clone)]
pub struct Portal {
    db: Db,
    version: Arc<watch::Sender<u64>>,
}

impl Portal {
    /// Opens the file `path`, creating it and its tables when there are none.
    pub async fn open(path: &Path) -> Result<Portal> {
        Ok(Portal::new(db::sqlite::open(path).await?))
    }

    fn new(db: Db) -> Portal {
        Portal { db, version: Arc::new(watch::Sender::new(1)) }
    }

    /// Begins a transaction that may write; see [`Db::write`].
    pub async fn write(&self) -> sqlx::Result<Transaction> {
        self.db.write().await
    }

    /// Begins a transaction whose reads all see the same moment.
    pub async fn read(&self) -> sqlx::Result<Transaction> {
        self.db.read().await
    }

    /// Tells hbs and judge that rules, hosts, groups or plugins may have changed. Call it after the commit.
    pub fn announce(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// The number of announcements so far, plus one.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Sees a new value after each [`Portal::announce`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Closes the database; statements after that fail.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

impl<'d> From<&'d Portal> for Target<'d> {
    fn from(portal: &'d Portal) -> Target<'d> {
        Target::Db(&portal.db)
    }
}

#[cfg(test)]
pub(crate) mod tests;
