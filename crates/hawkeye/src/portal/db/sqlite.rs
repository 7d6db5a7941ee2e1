//! SQLite: the portal in one file, `<data_dir>/portal.db`, in WAL mode.
//!
//! How: [`open`] checks the file whole, brings it up to date, and compares it with its schema and its mark;
//! [`super::file`] keeps it while it is open. docs/format/portal.md names the files.
//! Invariants: a file of an older version is brought up to date in one transaction, and one of a newer version is left
//! alone. A file that is missing where there should be one is not made anew: that would close all alarms. Nothing
//! touches its log then, which may be all that is left.
//! Memory: at most [`CACHE_KIB`] of page cache per connection.

use super::dialect::Dialect;
use super::fault::{self, Fault};
use super::file::{File, Lane, Way};
use super::mark::{self, Mark};
use super::schema;
use super::{CONNECTIONS_MAX, Db};
use crate::clock;
use crate::watch::health::{Health, Reason};
use anyhow::{Context, Result, anyhow, bail};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Page cache of one connection. The whole portal of a thousand hosts is a few MiB; SQLite's default is 2 MiB.
const CACHE_KIB: u32 = 512;
/// Connections of alarm: one writes, one reads what is due.
const ALARM_CONNECTIONS_MAX: u32 = 2;
/// Longest wait for another's lock, or for a connection. No lock is held while the disk is waited for, so this is long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for the turn to sync: several syncs of a disk that takes seconds.
const TURN_PATIENCE: Duration = Duration::from_secs(30);
/// A log that was folded in is cut to this.
const LOG_BYTES_KEPT: u32 = 4 << 20;
/// Lines that are read of what is damaged.
const DAMAGES_MAX: usize = 10;
/// What makes the tables of a new file: the steps to versions 4 and 5 do no more than add some.
pub(super) const TABLES: [&str; 3] =
    [include_str!("sqlite.sql"), include_str!("sqlite_4.sql"), include_str!("sqlite_5.sql")];
/// The steps that bring a file from each version to the next, beginning with version 1; [`TABLES`] is where they lead
/// to.
const MIGRATIONS: [&str; 4] = [
    include_str!("sqlite_2.sql"),
    include_str!("sqlite_3.sql"),
    include_str!("sqlite_4.sql"),
    include_str!("sqlite_5.sql"),
];
const SCHEMA_VERSION: i64 = 1 + MIGRATIONS.len() as i64;

/// Names in `hawkeye_state` of what a [`Mark`] repeats.
const ID: &str = "portal.id";
const COMMITS: &str = "portal.commits";

/// What an empty portal in place of a lost one means.
const ANEW: &str =
    "start once with --new-portal to begin an empty one (all users, rules and open alarms are then gone)";

/// A portal that was opened.
pub struct Opened {
    pub db: Db,
    /// Nothing in the file is damaged.
    pub is_whole: bool,
}

/// Options of each connection. Commits wait for no disk: see [`super::file`]. A file that somebody deletes while it is
/// open is not made anew by the next connection.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(PATIENCE)
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        .pragma("journal_size_limit", LOG_BYTES_KEPT.to_string())
        .pragma("wal_autocheckpoint", "0")
}

fn pool(connections_max: u32) -> PoolOptions<Sqlite> {
    SqlitePoolOptions::new().max_connections(connections_max).acquire_timeout(PATIENCE).after_release(
        |connection, _| {
            Box::pin(async move {
                // SQLite ends a transaction by itself when the disk is full or fails. The rollback that follows fails,
                // and such a connection would refuse each further transaction.
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        },
    )
}

/// Opens `path`. A file that is missing or empty is made, with its tables, if `may_be_new`, and is an error otherwise.
pub async fn open(path: &Path, may_be_new: bool, health: &Health) -> Result<Opened> {
    let is_new = std::fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0;
    if is_new && !may_be_new {
        let what = "is missing or empty, though points, events or rules were stored here";
        bail!("{} {what}: restore a backup of the data directory, or {ANEW}", path.display());
    }
    // An empty file is a database without tables.
    let made = std::fs::File::options().append(true).create(true).open(path);
    made.with_context(|| format!("cannot open the portal {}", path.display()))?;
    // A connection of no pool: on a slow disk the first one takes longer than anybody waits for those.
    let first = options(path).connect().await.map_err(|error| hint(error.into()));
    let mut first = first.with_context(|| format!("cannot open the portal {}", path.display()))?;
    let damages = damages(&mut first).await.map_err(|error| hint(error.into()));
    let damages = damages.with_context(|| format!("cannot read the portal {}", path.display()))?;
    let prepared = create_tables(&mut first).await.map_err(hint);
    prepared.with_context(|| format!("cannot prepare {}", path.display()))?;
    let fault = schema::fault(&mut first).await.map_err(hint);
    if let Some(fault) = fault.with_context(|| format!("cannot read the portal {}", path.display()))? {
        return Err(damaged(anyhow!(fault))).with_context(|| format!("cannot use the portal {}", path.display()));
    }
    let mark = identify(&mut first, path, is_new, damages.is_empty(), health).await?;

    let durable = pool(CONNECTIONS_MAX).connect_lazy_with(options(path));
    let alarm = pool(ALARM_CONNECTIONS_MAX).connect_lazy_with(options(path));
    // The last connection of a file folds its log in when it is closed, and then removes it: this one stays.
    let turn = pool(1).idle_timeout(None).max_lifetime(None).acquire_timeout(TURN_PATIENCE);
    let turn = turn.connect_with(options(path)).await?;
    first.close().await?;
    let file = File::new([durable, alarm, turn], Some((path, mark)), health);
    for damage in &damages {
        tracing::error!(file = %path.display(), damage, "the portal is damaged");
    }
    if let Some(first) = damages.first() {
        file.note_damage(first);
    }
    let db = Db::Sqlite(Way { file: Arc::new(file), lane: Lane::Durable });
    Ok(Opened { db, is_whole: damages.is_empty() })
}

/// Opens an empty portal in memory.
pub async fn in_memory() -> Result<Db> {
    let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(true);
    let pool = pool(1).idle_timeout(None).max_lifetime(None).connect_with(options).await?;
    create_tables(&mut *pool.acquire().await?).await?;
    let file = File::new([pool.clone(), pool.clone(), pool], None, &Health::default());
    Ok(Db::Sqlite(Way { file: Arc::new(file), lane: Lane::Alarm }))
}

/// Adds to an error what can be done about it where the file is damaged.
pub fn hint(error: anyhow::Error) -> anyhow::Error {
    match fault::among(&error) {
        Some(Fault::Damage) => damaged(error),
        _ => error,
    }
}

/// Adds to an error what can be done about a file that is damaged.
fn damaged(error: anyhow::Error) -> anyhow::Error {
    error.context(format!(
        "the portal is damaged: restore a backup of the data directory, or move portal.db away and {ANEW}"
    ))
}

/// Reads the whole file, and answers what is wrong with it.
async fn damages(connection: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    let lines: Vec<String> = match sqlx::query_scalar("PRAGMA quick_check(10)").fetch_all(connection).await {
        // The check gives up at some damages, and some schemas refuse it. What is needed is read behind it, and says
        // whether it can be.
        Err(error) if matches!(fault::of(&error), Some(Fault::Damage) | None) => vec![error.to_string()],
        lines => lines?,
    };
    // A line may hold several.
    let damages = lines.iter().flat_map(|line| line.lines()).filter(|line| *line != "ok" && !line.starts_with("***"));
    Ok(damages.take(DAMAGES_MAX).map(str::to_string).collect())
}

/// Compares the portal with its mark, says what was lost since, and answers what the portal is from now on.
async fn identify(
    connection: &mut SqliteConnection,
    path: &Path,
    is_new: bool,
    is_whole: bool,
    health: &Health,
) -> Result<Mark> {
    let mark_path = mark::path_beside(path);
    let before = Mark::load(&mark_path)?;
    if before.is_none() && !is_new {
        tracing::warn!(
            file = %mark_path.display(),
            "the portal has no mark, and so nobody can say whether it lost changes; it is taken as it is, and marked"
        );
    }
    let (id, commits) = (state(connection, ID).await, state(connection, COMMITS).await);
    let commits = commits.and_then(|text| text.parse().ok()).unwrap_or(0);
    // What a damaged portal lacks is told as damage.
    if let Some(before) = before.as_ref().filter(|_| is_whole && !is_new) {
        if id.as_ref() != Some(&before.id) {
            tell_loss("another one is in its place".to_string(), health);
        } else if commits < before.commits {
            let counts = format!("it has {commits} of {} changes", before.commits);
            tell_loss(format!("{counts}: its log was damaged, or an older one is in its place"), health);
        }
    }
    let cursor = before.map_or(0, |mark| mark.cursor);
    let mark = Mark { id: id.unwrap_or_else(|| hex::encode(rand::random::<[u8; 16]>())), commits, cursor };
    if let Err(error) = introduce(connection, &mark, &mark_path).await {
        // A start goes on without, where the table is damaged or the disk is full.
        tracing::error!(error = format!("{error:#}"), "cannot note which portal this is");
    }
    Ok(mark)
}

/// Writes into the portal which one it is, folds its log in, and marks it.
async fn introduce(connection: &mut SqliteConnection, mark: &Mark, path: &Path) -> Result<()> {
    for (name, value) in [(ID, mark.id.clone()), (COMMITS, mark.commits.to_string())] {
        let sql = "INSERT INTO hawkeye_state (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING";
        sqlx::query(sql).bind(name).bind(value).execute(&mut *connection).await?;
    }
    sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(connection).await?;
    Ok(mark.save(path)?)
}

/// Says what the portal lacks, until the next start takes it as it is.
fn tell_loss(why: String, health: &Health) {
    let what = "the portal is not what it was: check the rules, and start again to take it as it is";
    tracing::error!(why, "{what}");
    let since = clock::now();
    health.source(move |reasons| reasons.push(Reason { what, why: why.clone(), since }));
}

/// A text of `hawkeye_state`; none where there is none, or where the table cannot be read.
async fn state(connection: &mut SqliteConnection, name: &str) -> Option<String> {
    let sql = "SELECT value FROM hawkeye_state WHERE name = ?";
    sqlx::query_scalar(sql).bind(name).fetch_optional(connection).await.ok().flatten()
}

/// Notes in the portal how many commits it has had. Another program may have noted more meanwhile.
pub(super) async fn note_commits(connection: &mut SqliteConnection, commits: u64) -> sqlx::Result<()> {
    let sql = "UPDATE hawkeye_state SET value = max(CAST(value AS INTEGER), ?) WHERE name = ?";
    sqlx::query(sql).bind(commits.cast_signed()).bind(COMMITS).execute(connection).await?;
    Ok(())
}

/// Opens the tables in `path` as they are, whatever version wrote them; it is an error when there is no such file.
pub async fn open_existing(path: &Path) -> Result<Db> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10));
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options);
    let pool = pool.await.with_context(|| format!("cannot open the portal's database {}", path.display()))?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&pool).await?;
    if !(1..=SCHEMA_VERSION).contains(&found) {
        bail!(
            "the schema version of {} is {found}, this program knows 1 to {SCHEMA_VERSION}: use the program whose server \
             wrote it",
            path.display()
        );
    }
    // Commits over this pool wait for the disk by themselves (`Full`), and are not counted: a server may be counting.
    let file = File::new([pool.clone(), pool.clone(), pool], None, &Health::default());
    Ok(Db::Sqlite(Way { file: Arc::new(file), lane: Lane::Alarm }))
}

/// Copies the tables in `from`, as they are at one moment, into the new file `to`. A server may be using them; `from`
/// and its WAL are only read.
pub async fn copy(from: &Path, to: &Path) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(from).read_only(true).busy_timeout(Duration::from_secs(10));
    let cannot = || format!("cannot copy the portal's database {}", from.display());
    let mut connection = options.connect().await.with_context(cannot)?;
    let to = to.to_str().context("the name of the directory is no UTF-8: give another")?;
    let copied = sqlx::query("VACUUM INTO ?").bind(to).execute(&mut connection).await;
    connection.close().await.with_context(cannot)?;
    copied.map(drop).with_context(cannot)
}

async fn create_tables(connection: &mut SqliteConnection) -> Result<()> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await?;
    let steps = match found {
        0 => &TABLES[..],
        1..=SCHEMA_VERSION => &MIGRATIONS[(found - 1) as usize..],
        newer => bail!(
            "its schema version is {newer}, this program knows up to {SCHEMA_VERSION}: run the newer program that wrote it"
        ),
    };
    if steps.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    for sql in steps {
        sqlx::raw_sql(*sql).execute(&mut *transaction).await.map_err(unlike_its_version)?;
    }
    if found < SESSIONS_ARE_HASHED {
        hash_sessions(&mut transaction).await.map_err(unlike_its_version)?;
    }
    let version = format!("PRAGMA user_version = {SCHEMA_VERSION}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(version)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// A step that is refused, though disk and locks are well, does not find the tables of the version that it begins with.
fn unlike_its_version(error: sqlx::Error) -> anyhow::Error {
    if fault::of(&error).is_none() { damaged(error.into()) } else { error.into() }
}

/// The version from which on `session.sig` is the hash of a secret ([`Dialect::kept_secret`]).
const SESSIONS_ARE_HASHED: i64 = 3;

/// Replaces the secrets of an older file by their hashes, so that whoever is logged in stays so.
async fn hash_sessions(transaction: &mut SqliteConnection) -> sqlx::Result<()> {
    let sessions: Vec<(i64, String)> =
        sqlx::query_as("SELECT id, sig FROM session").fetch_all(&mut *transaction).await?;
    for (id, sig) in sessions {
        let update = sqlx::query("UPDATE session SET sig = ? WHERE id = ?");
        update.bind(Dialect::Sqlite.kept_secret(&sig)).bind(id).execute(&mut *transaction).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::db::query;
    use net::patience::until;
    use sqlx::sqlite::SqlitePool;

    async fn pool(path: &Path) -> Result<SqlitePool> {
        match open(path, true, &Health::default()).await?.db {
            Db::Sqlite(way) => Ok(way.file.pool(Lane::Durable).clone()),
            Db::MySql(..) => bail!("a file is SQLite's"),
        }
    }

    /// A file of version 1 has the tables of a new one when it was opened, and its rows.
    #[tokio::test]
    async fn an_older_file_is_brought_up_to_date() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let columns = async |pool: &SqlitePool| -> Result<Vec<String>> {
            let sql = "SELECT m.name || '.' || c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c
                       WHERE m.type = 'table' ORDER BY 1";
            Ok(sqlx::query_scalar(sql).fetch_all(pool).await?)
        };
        let new = pool(&dir.path().join("new.db")).await?;
        let path = dir.path().join("old.db");
        let old = pool(&path).await?;
        sqlx::raw_sql(
            "ALTER TABLE events DROP COLUMN explanation; ALTER TABLE hawkeye_delivery DROP COLUMN begun_at;
             DROP INDEX idx_hawkeye_delivery_priority; ALTER TABLE hawkeye_delivery DROP COLUMN priority;
             ALTER TABLE event_cases DROP COLUMN told; DROP TABLE hawkeye_token; DROP TABLE hawkeye_audit;
             DROP TABLE hawkeye_exception; DROP TABLE hawkeye_probe; DROP TABLE hawkeye_probe_state;
             DROP TABLE hawkeye_job; DROP TABLE hawkeye_agent; PRAGMA user_version = 1;
             INSERT INTO events (step, cond) VALUES (1, 'kept');
             INSERT INTO session (uid, sig, expired) VALUES (1, 'abc', 2000000000);",
        )
        .execute(&old)
        .await?;
        assert_ne!(columns(&old).await?, columns(&new).await?);
        old.close().await;
        for _ in 0..2 {
            let again = pool(&path).await?;
            assert_eq!(columns(&again).await?, columns(&new).await?);
            let kept: String = sqlx::query_scalar("SELECT cond FROM events").fetch_one(&again).await?;
            assert_eq!(kept, "kept");
            let sig: String = sqlx::query_scalar("SELECT sig FROM session").fetch_one(&again).await?;
            assert_eq!(sig, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "of abc, once");
            again.close().await;
        }
        Ok(())
    }

    #[tokio::test]
    async fn creates_and_reopens() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("portal.db");
        pool(&path).await?.close().await;
        let again = pool(&path).await?;
        let tables: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
                .fetch_one(&again)
                .await?;
        assert_eq!(tables, 31);
        sqlx::raw_sql("PRAGMA user_version = 99").execute(&again).await?;
        again.close().await;
        let error = format!("{:#}", pool(&path).await.err().context("must refuse a newer schema")?);
        assert!(error.contains("schema version is 99"), "{error}");
        Ok(())
    }

    /// SQLite ends the transaction of an insertion that finds the disk full; what sqlx does then fails.
    #[tokio::test]
    async fn a_full_disk_leaves_no_connection_in_doubt() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let health = Health::default();
        let db = open(&dir.path().join("portal.db"), true, &health).await?.db;
        let insert = |bytes: usize| {
            query("INSERT INTO falcon_portal.alert_link (path, content) VALUES ('p', ?)").bind("x".repeat(bytes))
        };
        for _ in 0..2 * CONNECTIONS_MAX {
            let mut transaction = db.write().await?;
            query("PRAGMA max_page_count = 1").execute(&mut transaction).await?;
            let full = insert(1 << 20).execute(&mut transaction).await.expect_err("no page is left");
            assert_eq!(fault::of(&full), Some(Fault::Disk), "{full}");
            assert_eq!(health.reasons()[0].what, "the portal cannot be written");
        }
        db.make_safe().await?;
        assert_eq!(health.reasons(), [], "a write shows that the trouble is over");
        let mut transaction = db.write().await?;
        insert(1).execute(&mut transaction).await?;
        transaction.commit().await?;
        db.close().await;
        Ok(())
    }

    /// Copies the files of an open portal, as a kill would leave them.
    fn copy(from: &Path, to: &Path) -> Result<()> {
        for name in ["portal.db", "portal.db-wal", "portal.mark"] {
            std::fs::copy(from.join(name), to.join(name))?;
        }
        Ok(())
    }

    async fn what_is_wrong(dir: &Path) -> Result<Vec<String>> {
        let health = Health::default();
        open(&dir.join("portal.db"), false, &health).await?.db.close().await;
        Ok(health.reasons().iter().map(Reason::line).collect())
    }

    /// A mark that found no room is written when there is some, also if nobody changes anything.
    #[tokio::test]
    async fn a_mark_that_cannot_be_written_is_tried_until_it_can() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let health = Health::default();
        let db = open(&dir.path().join("portal.db"), true, &health).await?.db;
        let in_the_way = dir.path().join("portal.mark.tmp");
        std::fs::create_dir(&in_the_way)?;
        query("INSERT INTO uic.team (name) VALUES ('a')").execute(&db).await?;
        assert_eq!(health.reasons()[0].what, "the portal's mark cannot be written");
        std::fs::remove_dir(&in_the_way)?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let kept = db.clone();
        let keeper = tokio::spawn(async move { kept.keep(stopped).await });
        until("the end of the trouble", async || health.reasons().is_empty()).await;
        stop.send(true)?;
        keeper.await?;
        db.close().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_portal_that_lost_changes_is_noticed_once() -> Result<()> {
        let dirs = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
        let [open_one, whole, flipped, other] = [0, 1, 2, 3].map(|at: usize| dirs[at].path());
        let db = open(&open_one.join("portal.db"), true, &Health::default()).await?.db;
        let team = |name: &str| query("INSERT INTO uic.team (name) VALUES (?)").bind(name);
        for name in ["a", "b", "c"] {
            team(name).execute(&db).await?;
        }
        copy(open_one, whole)?;
        copy(open_one, flipped)?;
        assert_eq!(what_is_wrong(whole).await?, [""; 0]);

        let log = flipped.join("portal.db-wal");
        let mut bytes = std::fs::read(&log)?;
        bytes[100] ^= 1;
        std::fs::write(&log, bytes)?;
        let reasons = what_is_wrong(flipped).await?;
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].contains("it has 0 of 3 changes: its log was damaged"), "{reasons:?}");
        assert_eq!(what_is_wrong(flipped).await?, [""; 0], "taken as it is");

        std::fs::copy(open_one.join("portal.mark"), other.join("portal.mark"))?;
        open(&other.join("elsewhere.db"), true, &Health::default()).await?.db.close().await;
        std::fs::rename(other.join("elsewhere.db"), other.join("portal.db"))?;
        let reasons = what_is_wrong(other).await?;
        assert!(reasons[0].contains("another one is in its place"), "{reasons:?}");
        std::fs::remove_file(other.join("portal.mark"))?;
        assert_eq!(what_is_wrong(other).await?, [""; 0], "a backup that was put in place");
        db.close().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_portal_that_is_lost_is_not_made_anew_and_its_log_stays() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (path, log) = (dir.path().join("portal.db"), dir.path().join("portal.db-wal"));
        std::fs::write(&log, "all that is left")?;
        for empty in [false, true] {
            if empty {
                std::fs::write(&path, "")?;
            }
            let error = format!("{:#}", open(&path, false, &Health::default()).await.err().context("must refuse")?);
            assert!(error.contains("missing or empty") && error.contains("--new-portal"), "{error}");
            assert_eq!(std::fs::read(&log)?, b"all that is left");
        }
        std::fs::write(&path, "no database at all, but long enough to be taken for one".repeat(100))?;
        let error = format!("{:#}", open(&path, false, &Health::default()).await.err().context("must refuse")?);
        assert!(error.contains("damaged: restore a backup"), "{error}");
        Ok(())
    }

    /// The log is in the file when nobody has it open, and alarm's commits are there when somebody makes them safe.
    #[tokio::test]
    async fn the_log_is_folded_in_and_alarm_waits_for_nothing() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("portal.db");
        let db = open(&path, true, &Health::default()).await?.db;
        let mark = || Mark::load(&mark::path_beside(&path));
        let begun = mark()?.context("a mark")?;
        let team = |name: &str| query("INSERT INTO uic.team (name) VALUES (?)").bind(name);
        team("by alarm").execute(&db.for_alarm()).await?;
        db.cursors().note_handled(7);
        assert_eq!((mark()?.context("a mark")?, db.cursors().safe()), (begun.clone(), 0));
        team("by a user").execute(&db).await?;
        let now = mark()?.context("a mark")?;
        assert_eq!((now.commits, now.cursor, db.cursors().safe()), (begun.commits + 2, 7, 7));
        db.close().await;
        assert!(!dir.path().join("portal.db-wal").exists());
        Ok(())
    }

    /// A log that is long begins anew although somebody writes all the time, and nothing of it is lost.
    #[tokio::test]
    async fn a_long_log_does_not_grow_on() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("portal.db");
        let db = open(&path, true, &Health::default()).await?.db;
        let log = dir.path().join("portal.db-wal");
        let resume = "x".repeat(1 << 20);
        for team in 0..10 {
            query("INSERT INTO uic.team (name, resume) VALUES (?, ?)")
                .bind(format!("team {team}"))
                .bind(&resume)
                .execute(&db.for_alarm())
                .await?;
        }
        assert!(std::fs::metadata(&log)?.len() > 10 << 20);
        assert!(super::super::file::fold(&path).await?);
        assert_eq!(std::fs::metadata(&log)?.len(), 0);
        let count: i64 = query("SELECT count(*) FROM uic.team").one(&db).await?;
        assert_eq!(count, 10);
        db.close().await;
        Ok(())
    }
}
