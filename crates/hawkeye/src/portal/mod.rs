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
pub mod agent;
pub mod aggregator;
pub mod alarm;
pub mod audit;
pub mod audit_text;
pub mod caller;
pub mod copied;
pub mod dashboard;
pub mod db;
pub mod delivery;
pub mod exception;
pub mod expression;
pub mod group;
pub mod host;
pub mod job;
pub mod link;
pub mod mock;
pub mod origin;
pub mod password;
pub mod plugin;
pub mod probe;
pub mod probe_state;
pub mod purge;
pub mod session;
pub mod site;
pub mod state;
pub mod strategy;
pub mod team;
pub mod template;
pub mod token;
pub mod user;

use crate::clock;
use crate::config::MysqlUrl;
use crate::watch::health::{Health, Outage, Reason};
use anyhow::{Context, Result};
pub use db::sqlite::hint;
use db::{Cursors, Db, Target, Transaction};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Name of the file in the data directory.
const FILE: &str = "portal.db";
/// The longest file of a store or an event queue that holds nothing: magic bytes, and a snapshot without alarms.
const EMPTY_BYTES: u64 = 32;

/// Whether there should be a portal in `data_dir`: it was there before, or points or events are. Asked before the store
/// is opened.
pub fn is_expected(data_dir: &Path) -> bool {
    data_dir.join(db::MARK).exists() || ["store", "events"].iter().any(|folder| holds_data(&data_dir.join(folder)))
}

fn holds_data(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => holds_data(&entry.path()),
        Ok(metadata) => metadata.len() > EMPTY_BYTES,
        Err(_) => false,
    })
}

/// Says until the next start that some alarms may tell nobody.
fn tell_unread_receivers(unread: &[&str], health: &Health) {
    if unread.is_empty() {
        return;
    }
    let what = "receivers of alarms cannot be read, and those who can are told: restore a backup of the portal";
    let (why, since) = (format!("damaged tables: {}", unread.join(", ")), clock::now());
    tracing::error!(why, "{what}");
    health.source(move |reasons| reasons.push(Reason { what, why: why.clone(), since }));
}

/// The control plane's tables, and the announcement of their changes; clones share them.
#[derive(Clone)]
pub struct Portal {
    db: Db,
    version: Arc<watch::Sender<u64>>,
    announced: Arc<Mutex<Announced>>,
    alarms: Arc<watch::Sender<u64>>,
}

impl Portal {
    /// Opens the file `path`, creating it and its tables when there are none.
    pub async fn open(path: &Path) -> Result<Portal> {
        Ok(Portal::new(db::sqlite::open(path, true, &Health::default()).await?.db))
    }

    /// Opens the portal of the server whose data are in `data_dir`, and answers whether it is whole. A portal that is
    /// missing or empty is an error unless it `may_be_new`. Where receivers of alarms cannot be read, `health` says so.
    pub async fn open_checked(data_dir: &Path, may_be_new: bool, health: &Health) -> Result<(Portal, bool)> {
        let opened = db::sqlite::open(&data_dir.join(FILE), may_be_new, health).await?;
        let portal = Portal::new(opened.db);
        if !opened.is_whole {
            let unread = action::unread_receivers(&portal).await.map_err(|error| hint(error.into()));
            let unread = unread.context("cannot read who receives alarms")?;
            tell_unread_receivers(&unread, health);
        }
        Ok((portal, opened.is_whole))
    }

    /// The portal in the databases of an Open-Falcon's MySQL, which are used as they are: tables of our own may be
    /// missing there.
    pub async fn over_mysql(url: &MysqlUrl) -> Result<Portal> {
        let options = url.options("falcon_portal").context("portal.url is empty")?;
        db::mysql::reach(&options).await?;
        Ok(Portal::new(db::mysql::open(options, "").await?))
    }

    /// The portal in the databases of an Open-Falcon's MySQL, to which tables and columns of our own are added where
    /// they are missing.
    pub async fn with_own_tables(url: &MysqlUrl) -> Result<Portal> {
        let options = url.options("falcon_portal").context("portal.url is empty")?;
        db::mysql::reach(&options).await?;
        Ok(Portal::new(db::mysql::open_with_own(options).await?))
    }

    /// Has `outage` say while the MySQL at `url` does not answer, until the stop.
    pub async fn watch_mysql(url: &MysqlUrl, outage: Outage, stop: watch::Receiver<bool>) {
        if let Some(options) = url.options("falcon_portal") {
            db::mysql::watch(&options, db::mysql::LOOKS, outage, stop).await;
        }
    }

    /// An empty portal in memory.
    pub async fn in_memory() -> Result<Portal> {
        Ok(Portal::new(db::sqlite::in_memory().await?))
    }

    /// Opens the file `path` as it stands, of whatever version up to this program's; for a command beside a server.
    pub async fn open_existing(path: &Path) -> Result<Portal> {
        Ok(Portal::new(db::sqlite::open_existing(path).await?))
    }

    fn new(db: Db) -> Portal {
        let (version, alarms) = (Arc::new(watch::Sender::new(1)), Arc::new(watch::Sender::new(1)));
        Portal { db, version, announced: Arc::default(), alarms }
    }

    /// This portal over connections of alarm, whose commits wait for no disk and are on the disk within a second.
    pub fn for_alarm(&self) -> Portal {
        Portal { db: self.db.for_alarm(), ..self.clone() }
    }

    /// How far alarm has come with the event queue, and how much of that is on the disk.
    pub fn cursors(&self) -> &Cursors {
        self.db.cursors()
    }

    /// Returns when all that was committed is on the disk.
    pub async fn make_safe(&self) -> sqlx::Result<()> {
        self.db.make_safe().await
    }

    /// Keeps the file until `stop` says otherwise: without this its log grows, and what alarm commits waits for the
    /// system to write it.
    pub async fn keep(&self, stop: watch::Receiver<bool>) {
        self.db.keep(stop).await;
    }

    /// Begins a transaction that may write; see [`Db::write`].
    pub async fn write(&self) -> sqlx::Result<Transaction> {
        self.db.write().await
    }

    /// Begins a transaction whose reads all see the same moment.
    pub async fn read(&self) -> sqlx::Result<Transaction> {
        self.db.read().await
    }

    /// Text that the table of sessions has for the secret `sig`.
    pub(crate) fn kept_secret(&self, sig: &str) -> String {
        self.db.dialect().kept_secret(sig)
    }

    /// Tells hbs and judge that rules, hosts, groups or plugins may have changed. Call it after the commit.
    pub fn announce(&self) {
        self.announce_that(Announced::Anything);
    }

    /// Tells hbs and judge that of all that they depend on only one strategy is new or changed. Call it after the
    /// commit.
    pub fn announce_strategy(&self, id: i64) {
        self.announce_that(Announced::Strategies(BTreeSet::from([id])));
    }

    fn announce_that(&self, what: Announced) {
        self.announce_anew(what);
        self.version.send_modify(|version| *version += 1);
    }

    /// Announces once more what was taken and could not be read; nobody is woken by it.
    pub fn announce_anew(&self, what: Announced) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        *announced = std::mem::take(&mut *announced).and(what);
    }

    /// What was announced since the last call; there is one caller, who keeps what follows from the tables.
    pub fn take_announced(&self) -> Announced {
        std::mem::take(&mut *self.announced.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of announcements so far, plus one.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Sees a new value after each [`Portal::announce`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Tells who watches alarms that there are new events or notes. Call it after the commit.
    pub fn announce_alarms(&self) {
        self.alarms.send_modify(|version| *version += 1);
    }

    /// Sees a new value after each [`Portal::announce_alarms`].
    pub fn alarm_changes(&self) -> watch::Receiver<u64> {
        self.alarms.subscribe()
    }

    /// Closes the database; statements after that fail.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

/// What may have changed of the tables that rules depend on.
#[derive(Clone, Debug, PartialEq)]
pub enum Announced {
    Anything,
    /// Strategies by their ids, and nothing else.
    Strategies(BTreeSet<i64>),
}

/// Strategies that are told apart; with more of them everything is read, which is hardly more then.
const ANNOUNCED_MAX: usize = 256;

impl Default for Announced {
    fn default() -> Announced {
        Announced::Strategies(BTreeSet::new())
    }
}

impl Announced {
    fn and(self, other: Announced) -> Announced {
        match (self, other) {
            (Announced::Strategies(mut ids), Announced::Strategies(more)) => {
                ids.extend(more);
                if ids.len() > ANNOUNCED_MAX { Announced::Anything } else { Announced::Strategies(ids) }
            }
            _ => Announced::Anything,
        }
    }
}

impl<'d> From<&'d Portal> for Target<'d> {
    fn from(portal: &'d Portal) -> Target<'d> {
        Target::Db(&portal.db)
    }
}

#[cfg(test)]
pub(crate) mod tests;
