//! `hawkeye restore DIR`: a data directory from a backup.
//!
//! How: the whole backup is read and compared with its manifest before anything is written. Then a file, the *mark*
//! ([`data_dir::RESTORING`]), says that the data directory is not whole, the backup's files are copied, compared once
//! more on their way and made durable, and the mark goes. A server does not start while the mark is there. Another
//! restore reads in it whether older files are still to be moved away, or what is there was copied and may be deleted.
//! Invariants: what is in the data directory is never overwritten and never deleted, but for what an unfinished restore
//! has copied: with `--replace` it is moved to a folder beside the new files, and stays there. No server runs on the
//! directory meanwhile. The backup is only read.
//! Memory: one buffer, and the manifest.

use super::backup::{FOLDERS, PORTAL};
use super::manifest::{self, Entry};
use super::server::ServerArgs;
use crate::clock;
use crate::server::data_dir::{self, RESTORING};
use crate::watch::log::say;
use anyhow::{Context, Result, bail, ensure};
use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use stdx::{Disk, RealDisk};

/// Text of the mark while files of before may still be among those in the directory.
const MOVING: &str = "A restore into this directory is not finished: run `hawkeye restore` again.\n\
                      It was moving away what was here before.\n";
/// Text of the mark from then on.
const COPYING: &str = "A restore into this directory is not finished: run `hawkeye restore` again.\n";
/// Beginning of the name of the folder that holds what was there before a restore.
const REPLACED: &str = "replaced-";
/// Found in the root of a disk, and nobody's data.
const OF_THE_DISK: &str = "lost+found";
/// Locks that a running server holds, of a store and of the judge alone.
const LOCKS: [&str; 2] = ["store/LOCK", "judge.lock"];

#[derive(clap::Args)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Move what is in the data directory to a folder of it, `replaced-…`, instead of refusing to touch it.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub fn run(args: &RestoreArgs) -> Result<()> {
    let data = args.server.data_dir()?;
    data_dir::create_private_files();
    let moved = restore(&args.dir, &data, args.replace)?;
    say(format_args!("hawkeye: {} is as {} says; start the server", data.display(), args.dir.display()));
    if let Some(moved) = moved {
        say(format_args!("hawkeye: what was there is in {}; delete it when nothing is missing", moved.display()));
    }
    Ok(())
}

/// Whether a restore would move the backup: what it has moved away before stays where it is.
fn is_moved_away(dir: &Path, data: &Path) -> bool {
    let (Ok(dir), Ok(data)) = (dir.canonicalize(), data.canonicalize()) else { return false };
    let Ok(below) = dir.strip_prefix(data) else { return false };
    below.components().next().is_none_or(|first| !first.as_os_str().to_string_lossy().starts_with(REPLACED))
}

/// Makes `data` what the backup in `dir` says; answers where that has moved what was there.
fn restore(dir: &Path, data: &Path, replace: bool) -> Result<Option<PathBuf>> {
    let entries = manifest::read(dir)?;
    manifest::verify(dir, &entries)?;
    fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))?;
    if is_moved_away(dir, data) {
        bail!(
            "the backup {} lies in the data directory, which is to be moved away: copy it elsewhere, and name that",
            dir.display()
        );
    }
    let mark = data.join(RESTORING);
    let unfinished = fs::read_to_string(&mark).ok();
    let old = contents(data)?;
    if !old.is_empty() && unfinished.is_none() && !replace {
        bail!(
            "{} is not empty: name a new data directory, or say --replace to have what is there moved into a folder of it",
            data.display()
        );
    }
    let locks = lock(data)?;
    let moved = if unfinished.as_deref() == Some(COPYING) {
        clear(data, &old).map(|()| None)
    } else if old.is_empty() {
        Ok(None)
    } else {
        write_mark(data, MOVING)?;
        move_away(data, &old).map(Some)
    };
    let moved = moved.and_then(|moved| write_mark(data, COPYING).map(|()| moved));
    drop(locks);
    let restored = moved
        .and_then(|moved| copy_all(dir, data, &entries).map(|()| moved))
        .with_context(|| format!("{} is not whole: mend the cause, and run the same command again", data.display()))?;
    fs::remove_file(&mark).with_context(|| format!("cannot delete {}", mark.display()))?;
    manifest::sync_dir(data)?;
    data_dir::prepare(data)?;
    Ok(restored)
}

/// Names in `data`, but those that a restore leaves alone.
fn contents(data: &Path) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(data).with_context(|| format!("cannot read {}", data.display()))? {
        let name = entry.with_context(|| format!("cannot read {}", data.display()))?.file_name();
        let text = name.to_string_lossy();
        if text != OF_THE_DISK && !text.starts_with(RESTORING) && !text.starts_with(REPLACED) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Takes the locks of the server that ran on `data`; an error while it runs.
fn lock(data: &Path) -> Result<Vec<Box<dyn Any + Send + Sync>>> {
    let there = LOCKS.iter().map(|name| data.join(name)).filter(|path| path.exists());
    there
        .map(|path| {
            RealDisk
                .lock(&path)
                .with_context(|| format!("cannot lock {} (a server runs on this directory? stop it)", path.display()))
        })
        .collect()
}

/// Says in `data` that it is not whole, from now on and over a power cut.
fn write_mark(data: &Path, text: &str) -> Result<()> {
    let (mark, tmp) = (data.join(RESTORING), data.join(format!("{RESTORING}.tmp")));
    let written = File::create(&tmp).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&tmp, &mark)
    });
    written.with_context(|| format!("cannot write {}", mark.display()))?;
    manifest::sync_dir(data)
}

/// Deletes what an unfinished restore has left.
fn clear(data: &Path, names: &[OsString]) -> Result<()> {
    for name in names {
        let path = data.join(name);
        let is_folder = FOLDERS.iter().any(|folder| name == folder) && path.is_dir();
        let deleted = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        deleted.with_context(|| format!("cannot delete {}", path.display()))?;
    }
    Ok(())
}

/// Moves what is in `data` to a new folder in it.
fn move_away(data: &Path, names: &[OsString]) -> Result<PathBuf> {
    let time = clock::local_text(clock::now()).replace([' ', ':'], "-");
    let mut candidates = (1..).map(|n| match n {
        1 => data.join(format!("{REPLACED}{time}")),
        n => data.join(format!("{REPLACED}{time}-{n}")),
    });
    let to = candidates.find(|path| !path.exists()).context("no name is free")?;
    fs::create_dir(&to).with_context(|| format!("cannot create {}", to.display()))?;
    for name in names {
        let path = data.join(name);
        fs::rename(&path, to.join(name)).with_context(|| format!("cannot move {}", path.display()))?;
    }
    manifest::sync_dir(&to)?;
    manifest::sync_dir(data)?;
    Ok(to)
}

fn copy_all(dir: &Path, data: &Path, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        let (from, to) = (dir.join(&entry.path), data.join(&entry.path));
        let folder = to.parent().expect("below the directory");
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut file = File::open(&from).with_context(|| format!("cannot read {}", from.display()))?;
        let sum = manifest::copy(&mut file, u64::MAX, &to)?;
        ensure!(sum == entry.sum, "{} has changed while it was copied", from.display());
    }
    let mut folders: Vec<&Path> = entries.iter().flat_map(|entry| entry.path.ancestors().skip(1)).collect();
    folders.sort_unstable();
    folders.dedup();
    folders.into_iter().try_for_each(|folder| manifest::sync_dir(&data.join(folder)))?;
    place_portal(data)
}

/// Last step of a restore, when all files are there and durable: the one place for what has to be written so that a
/// server finds the tables of the backup in order. Nothing has to be: the files that say how far the tables had come
/// are copied before them (`backup.rs`, step 2), so that they never say more than the tables know.
fn place_portal(data: &Path) -> Result<()> {
    // A WAL of other tables would be played into these.
    for end in ["-wal", "-shm", "-journal"] {
        let path = data.join(format!("{PORTAL}{end}"));
        ensure!(!path.exists(), "{} is there, though nothing has written it: is a server running?", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Backup of two files.
    fn backup(root: &Path) -> Result<PathBuf> {
        let dir = root.join("backup");
        fs::create_dir_all(dir.join("events"))?;
        fs::create_dir_all(dir.join("store/log"))?;
        let mut entries = Vec::new();
        for (path, text) in [("events/1.events", "an event"), ("store/log/00000001.log", "points")] {
            fs::write(dir.join(path), text)?;
            let sum = manifest::pass_on(&mut text.as_bytes(), u64::MAX, &mut std::io::sink())?;
            entries.push(Entry { path: path.into(), sum });
        }
        manifest::write(&dir, "of a test", &entries)?;
        Ok(dir)
    }

    fn refused(dir: &Path, data: &Path, replace: bool, why: &str) {
        let error = format!("{:#}", restore(dir, data, replace).expect_err(why));
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn only_an_empty_directory_is_restored_into_and_what_is_replaced_stays() -> Result<()> {
        let root = tempfile::tempdir()?;
        let (dir, data) = (backup(root.path())?, root.path().join("var/data"));
        assert_eq!(restore(&dir, &data, false)?, None);
        assert_eq!(fs::read_to_string(data.join("store/log/00000001.log"))?, "points");
        fs::write(data.join("events/1.events"), "another event")?;
        refused(&dir, &data, false, "is not empty");
        assert_eq!(fs::read_to_string(data.join("events/1.events"))?, "another event");
        let moved = restore(&dir, &data, true)?.context("something was there")?;
        assert_eq!(fs::read_to_string(moved.join("events/1.events"))?, "another event");
        assert_eq!(fs::read_to_string(data.join("events/1.events"))?, "an event");
        assert!(!data.join(RESTORING).exists());
        // The root of a disk is empty all the same.
        let disk = root.path().join("disk");
        fs::create_dir_all(disk.join(OF_THE_DISK))?;
        assert_eq!(restore(&dir, &disk, false)?, None);
        Ok(())
    }

    /// A backup that is not whole is refused before anything is written.
    #[test]
    fn damaged_backups_change_nothing() -> Result<()> {
        let root = tempfile::tempdir()?;
        let (dir, data) = (backup(root.path())?, root.path().join("data"));
        let (log, sums) = (dir.join("store/log/00000001.log"), dir.join(manifest::NAME));
        fs::write(&log, "pointS")?;
        refused(&dir, &data, false, "00000001.log is not as it was backed up");
        fs::remove_file(&log)?;
        refused(&dir, &data, false, "cannot read ");
        fs::write(&log, "points")?;
        fs::rename(&sums, dir.join("away"))?;
        refused(&dir, &data, false, "one that was not finished");
        refused(&root.path().join("none"), &data, false, "one that was not finished");
        fs::write(&sums, &fs::read(dir.join("away"))?[1..])?;
        refused(&dir, &data, false, "SHA256SUMS is damaged");
        assert!(!data.exists());
        Ok(())
    }

    #[test]
    fn a_running_server_is_left_alone() -> Result<()> {
        let root = tempfile::tempdir()?;
        let (dir, data) = (backup(root.path())?, root.path().join("data"));
        fs::create_dir_all(data.join("store"))?;
        let running = RealDisk.lock(&data.join("store/LOCK"))?;
        refused(&dir, &data, true, "stop it");
        assert!(!data.join(RESTORING).exists());
        drop(running);
        restore(&dir, &data, true)?;
        Ok(())
    }

    /// Cut off at any place: no server starts, and the next restore ends whole.
    #[test]
    fn an_unfinished_restore_is_known_and_done_again() -> Result<()> {
        let root = tempfile::tempdir()?;
        let (dir, data) = (backup(root.path())?, root.path().join("data"));
        fs::create_dir_all(data.join("store/log"))?;
        fs::create_dir_all(data.join("replaced-before"))?;
        fs::write(data.join("store/log/00000001.log"), "poi")?;
        fs::write(data.join("redis-cursor"), "of another backup")?;
        fs::write(data.join(RESTORING), COPYING)?;
        let refused = format!("{:#}", data_dir::prepare(&data).expect_err("half a restore"));
        assert!(refused.contains("run `hawkeye restore` again"), "{refused}");
        assert_eq!(restore(&dir, &data, false)?, None);
        assert_eq!(fs::read_to_string(data.join("store/log/00000001.log"))?, "points");
        assert!(!data.join("redis-cursor").exists() && data.join("replaced-before").exists());
        data_dir::prepare(&data)
    }

    /// Cut off while it moves files of before away, a restore goes on to do so and deletes none.
    #[test]
    fn files_of_before_are_moved_away_by_who_comes_next() -> Result<()> {
        let root = tempfile::tempdir()?;
        let (dir, data) = (backup(root.path())?, root.path().join("data"));
        fs::create_dir_all(data.join("store/log"))?;
        fs::write(data.join("store/log/00000001.log"), "of before")?;
        for mark in [MOVING, "", "cut of"] {
            fs::write(data.join(RESTORING), mark)?;
            let moved = restore(&dir, &data, false)?.context("files of before")?;
            assert_eq!(fs::read_to_string(moved.join("store/log/00000001.log"))?, "of before");
            fs::remove_dir_all(&data)?;
            fs::create_dir_all(data.join("store/log"))?;
            fs::write(data.join("store/log/00000001.log"), "of before")?;
        }
        Ok(())
    }
}
