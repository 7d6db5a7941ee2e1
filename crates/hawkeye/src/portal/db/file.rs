//! File: the portal's one SQLite file while it is open: what of it is on the disk, and what it was when it was last
//! seen.
//!
//! Why: SQLite forces each commit to the disk while it holds the lock of all writers. Where that takes a second, alarm
//! waits for people who save rules, and people for each other.
//! How: no commit waits for the disk. Whoever answers for one ([`Lane::Durable`]) then waits for [`File::make_safe`],
//! which syncs the log (WAL) beside the lock, once for all who wait. What alarm commits ([`Lane::Alarm`]) is on the
//! disk within a second ([`File::keep`]). The log is folded into the file by a connection of its own, that nobody waits
//! for.
//! Invariants: what was answered is on the disk; losing power loses at most the last second of what alarm commits. A
//! connection whose transaction ended in doubt is closed, and not used again. While nothing can be written, or no mark,
//! that is tried each second, so that the end of the trouble is seen without anybody's help.
//! Memory: two connections besides those of the lanes, which look at few pages.

use super::fault::{self, Fault};
use super::mark::Mark;
use super::sqlite;
use crate::watch::health::{Health, Outage};
use anyhow::{Context, Result};
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{ConnectOptions, Connection};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// Time after which alarm's commits are on the disk.
pub const SAFE_AFTER: Duration = Duration::from_secs(1);
/// Pause between two times that the log is folded in: a portal of which only the file is saved lacks no more than this.
const FOLD_PAUSE: Duration = Duration::from_secs(10);
/// Pause between two foldings where the disk is slow: the commit behind a folding waits for it once, with the lock of
/// writers.
const SLOW_FOLD_PAUSE: Duration = Duration::from_secs(600);
/// A disk that takes this long to sync is slow; one that turns takes a tenth.
const SLOW: Duration = Duration::from_millis(100);
/// A log that is longer is folded in at once, and with writers waiting: a storm of alarms writes some MiB a second.
const FOLD_BYTES: u64 = 8 << 20;
/// SQLite's page.
const PAGE_BYTES: i64 = 4096;
/// A longer log is folded in however slow the disk is. A storm of alarms writes some MiB a second.
const LOG_BYTES_MAX: u64 = 32 << 20;

/// How the commits of a connection reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// A commit returns when it is on the disk.
    Durable,
    /// A commit returns at once, and is on the disk within a second.
    Alarm,
}

/// Sequence numbers of the event queue: how far alarm has come.
#[derive(Debug, Default)]
pub struct Cursors {
    handled: AtomicU64,
    safe: AtomicU64,
}

impl Cursors {
    /// Notes that alarm has committed all up to `seq`.
    pub fn note_handled(&self, seq: u64) {
        self.handled.fetch_max(seq, Ordering::AcqRel);
    }

    /// The highest number that alarm has committed.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Acquire)
    }

    /// The highest number of which that is on the disk.
    pub fn safe(&self) -> u64 {
        self.safe.load(Ordering::Acquire)
    }

    /// Notes that what was committed up to `seq` is on the disk.
    pub fn note_safe(&self, seq: u64) {
        self.safe.fetch_max(seq, Ordering::AcqRel);
    }
}

/// The open file, or a database in memory; its pools, and what is known of the disk below them.
pub struct File {
    place: Option<Place>,
    durable: SqlitePool,
    alarm: SqlitePool,
    /// One connection: whoever has it makes the commits safe of all who wait for it.
    turn: SqlitePool,
    commits: AtomicU64,
    safe: AtomicU64,
    cursors: Cursors,
    cannot_write: Outage,
    cannot_mark: Outage,
    cannot_fold: Outage,
    damaged: Outage,
    failing: AtomicBool,
    /// The last mark could not be written.
    unmarked: AtomicBool,
    /// The last sync took longer than [`SLOW`].
    is_slow: AtomicBool,
}

/// Where the file is, and what it was at the start.
struct Place {
    path: PathBuf,
    mark: Mark,
}

impl File {
    /// A file with its pools; `path` and what the file is are given for one on a disk.
    pub fn new(pools: [SqlitePool; 3], place: Option<(&Path, Mark)>, health: &Health) -> File {
        let [durable, alarm, turn] = pools;
        let place = place.map(|(path, mark)| Place { path: path.to_path_buf(), mark });
        let mark = place.as_ref().map(|place| place.mark.clone()).unwrap_or_default();
        let cursors = Cursors { handled: AtomicU64::new(mark.cursor), safe: AtomicU64::new(mark.cursor) };
        File {
            place,
            durable,
            alarm,
            turn,
            commits: AtomicU64::new(mark.commits),
            safe: AtomicU64::new(mark.commits),
            cursors,
            cannot_write: health.outage("the portal cannot be written"),
            cannot_mark: health.outage("the portal's mark cannot be written"),
            cannot_fold: health.outage("the portal's log cannot be folded into its file"),
            damaged: health.outage("the portal is damaged: restore a backup"),
            failing: AtomicBool::new(false),
            unmarked: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
        }
    }

    /// The pool of a lane.
    pub fn pool(&self, lane: Lane) -> &SqlitePool {
        match lane {
            Lane::Durable => &self.durable,
            Lane::Alarm => &self.alarm,
        }
    }

    /// How far alarm has come with the event queue.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// Notes a fault of a statement, for `/health`. A fault of the statement itself is none.
    pub fn note_error(&self, error: &sqlx::Error) {
        match fault::of(error) {
            Some(Fault::Damage) => self.damaged.fails(error.to_string()),
            Some(Fault::Busy | Fault::Disk) => {
                self.failing.store(true, Ordering::Release);
                self.cannot_write.fails(error.to_string());
            }
            None => {}
        }
    }

    /// Says that the file is damaged, until the next start.
    pub fn note_damage(&self, what: &str) {
        self.damaged.fails(what.to_string());
    }

    /// Counts a commit, and waits until it is on the disk if its lane does.
    pub async fn committed(&self, lane: Lane) -> sqlx::Result<()> {
        let commit = self.commits.fetch_add(1, Ordering::AcqRel) + 1;
        match lane {
            Lane::Durable => self.make_safe(commit).await,
            Lane::Alarm => Ok(()),
        }
    }

    /// Returns when all up to this commit is on the disk. Whoever comes while another one syncs waits for that, and
    /// mostly finds its own commit synced by whoever came next.
    pub async fn make_safe(&self, commit: u64) -> sqlx::Result<()> {
        let result = self.try_make_safe(commit).await;
        if let Err(error) = &result {
            self.note_error(error);
        }
        result
    }

    async fn try_make_safe(&self, commit: u64) -> sqlx::Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        let mut turn = self.turn.acquire().await?;
        if self.safe.load(Ordering::Acquire) >= commit {
            return Ok(());
        }
        if self.failing.load(Ordering::Acquire) {
            // A count that has not changed would not be written, and show nothing.
            self.commits.fetch_add(1, Ordering::AcqRel);
        }
        let (commits, cursor) = (self.commits.load(Ordering::Acquire), self.cursors.handled());
        let counted = sqlite::note_commits(&mut turn, commits).await;
        let log = place.log();
        let begun = Instant::now();
        let synced = spawn_blocking(move || sync(&log)).await.map_err(io::Error::other);
        self.is_slow.store(begun.elapsed() > SLOW, Ordering::Release);
        synced.flatten().map_err(sqlx::Error::Io)?;
        self.safe.fetch_max(commits, Ordering::AcqRel);
        self.cursors.note_safe(cursor);
        // Where the count is damaged, the mark goes on saying how far alarm has come.
        let commits = if counted.is_ok() { commits } else { place.mark.commits };
        let mark = Mark { commits, cursor, ..place.mark.clone() };
        let path = super::mark::path_beside(&place.path);
        let marked = spawn_blocking(move || mark.save(&path)).await.map_err(io::Error::other);
        let marked = marked.flatten();
        self.unmarked.store(marked.is_err(), Ordering::Release);
        self.cannot_mark.note(marked);
        match counted {
            Err(error) => self.note_error(&error),
            Ok(()) if self.failing.swap(false, Ordering::AcqRel) => self.cannot_write.works(),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Keeps the file until `stop` says otherwise: makes commits safe, folds the log in, and sees when troubles end.
    pub async fn keep(&self, mut stop: watch::Receiver<bool>) {
        let Some(place) = &self.place else { return };
        // None before the first time, which follows at once where the disk is fast.
        let (started, mut last_fold, mut folded) = (Instant::now(), None, None);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(SAFE_AFTER) => {}
            }
            let commits = self.commits.load(Ordering::Acquire);
            let is_behind = commits > self.safe.load(Ordering::Acquire) || self.cursors.handled() > self.cursors.safe();
            if is_behind || self.failing.load(Ordering::Acquire) || self.unmarked.load(Ordering::Acquire) {
                // A failure is noted, and the next second tries again.
                let _ = self.make_safe(u64::MAX).await;
            }
            let log_bytes = place.log_bytes();
            let is_due = if self.is_slow.load(Ordering::Acquire) && log_bytes <= LOG_BYTES_MAX {
                last_fold.unwrap_or(started).elapsed() >= SLOW_FOLD_PAUSE
            } else {
                log_bytes > FOLD_BYTES || last_fold.is_none_or(|at: Instant| at.elapsed() >= FOLD_PAUSE)
            };
            if is_due && folded != Some(commits) {
                last_fold = Some(Instant::now());
                if self.fold(place).await {
                    // The commit behind a folding begins the log anew, and waits for the disk: better this one than
                    // alarm's. A log that was folded in and is damaged later would bring old pages back.
                    let before = self.commits.fetch_add(1, Ordering::AcqRel);
                    folded = (before == commits).then_some(before + 1);
                    let _ = self.make_safe(u64::MAX).await;
                }
            }
        }
    }

    /// Folds the log into the file, beside whoever reads and writes; true when all of it is there.
    async fn fold(&self, place: &Place) -> bool {
        self.cannot_fold.begin();
        let done = fold(&place.path).await;
        let is_whole = matches!(done, Ok(true));
        self.cannot_fold.note(done);
        is_whole
    }

    /// Closes all connections, when those in use are given back; the last one folds the log in.
    pub async fn close(&self) {
        // What alarm handled last is marked, so that a portal from before is noticed.
        let _ = self.make_safe(u64::MAX).await;
        for pool in [&self.durable, &self.alarm, &self.turn] {
            pool.close().await;
        }
    }
}

impl Place {
    fn log(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push("-wal");
        name.into()
    }

    fn log_bytes(&self) -> u64 {
        fs::metadata(self.log()).map_or(0, |metadata| metadata.len())
    }
}

/// Forces the log to the disk. One that is not there was folded in, which the disk has then.
fn sync(log: &Path) -> io::Result<()> {
    match fs::File::open(log) {
        Ok(file) => file.sync_data(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) async fn fold(path: &Path) -> Result<bool> {
    let mut connection = sqlite::options(path).connect().await.context("cannot open the file")?;
    let folded = fold_with(&mut connection).await;
    connection.close().await?;
    folded
}

async fn fold_with(connection: &mut SqliteConnection) -> Result<bool> {
    let mut checkpoint = async |sql: &'static str| -> sqlx::Result<(i64, i64, i64)> {
        sqlx::query_as(sql).fetch_one(&mut *connection).await
    };
    let (busy, log, folded) = checkpoint("PRAGMA wal_checkpoint(PASSIVE)").await?;
    let (busy, log, folded) = if log * PAGE_BYTES <= FOLD_BYTES as i64 {
        (busy, log, folded)
    } else {
        // Writers that never rest leave no moment at which all is folded in; for the rest they wait, once.
        checkpoint("PRAGMA wal_checkpoint(TRUNCATE)").await?
    };
    Ok(busy == 0 && log == folded)
}

/// A lane of the file, which whoever runs statements holds.
#[derive(Clone)]
pub struct Way {
    pub file: Arc<File>,
    pub lane: Lane,
}

impl Way {
    /// The pool whose connections run this lane's statements.
    pub fn pool(&self) -> &SqlitePool {
        self.file.pool(self.lane)
    }
}
