//! `hawkeye backup DIR`: a copy of a data directory as it was at one moment, made beside a running server or without.
//!
//! How: nobody is asked to stand still. Files that are ever renamed into place or deleted are opened first and copied
//! later: what is open stays readable when a merge, a flush or retention deletes its name. A folder is *held* when its
//! files were opened, measured, and are all still there under their names: so all of them were there at one moment, and
//! what is only appended to is at least as long as it was then. Where something came or went meanwhile, the folder is
//! held again.
//!
//! The order is what makes the parts fit, as after a crash:
//! 1. events are opened;
//! 2. the small files beside them, which say how far somebody has come (`redis-cursor`, …), and so never more than the
//!    tables and events know that are copied after them;
//! 3. the portal's tables, by SQLite itself, at one moment;
//! 4. events are measured: none that the tables know of is missing, and none between the tables' cursor and the end;
//! 5. points, the log first and then the names: an id that the log holds has its name, and no event is ahead of its
//!    point.
//!
//! Invariants: what was answered before the backup began is in it. The data directory is only read. A backup is whole
//! when it has its manifest (`manifest.rs`), which comes last; one that fails takes away what it wrote. All is for
//! the user's eyes only.
//! Memory: an open file for each file of the data directory, some hundreds, and one buffer.

use super::manifest::{self, Entry};
use super::server::ServerArgs;
use crate::clock;
use crate::portal;
use crate::server::{data_dir, raise_descriptor_limit};
use crate::watch::log::say;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The tables' file in a data directory.
pub const PORTAL: &str = "portal.db";
/// Folders of a data directory.
pub const FOLDERS: [&str; 2] = ["events", "store"];
/// Looks at a folder that changes all the time. A look takes milliseconds; files come and go each second at most.
const TRIES: usize = 100;

#[derive(clap::Args)]
pub struct BackupArgs {
    /// The directory to write the backup to: a new one, or one that is empty.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

pub fn run(args: &BackupArgs) -> Result<()> {
    let data = args.server.data_dir()?;
    data_dir::create_private_files();
    raise_descriptor_limit();
    let (files, bytes) = back_up(&data, &args.dir)?;
    let (data, dir) = (data.display(), args.dir.display());
    say(format_args!("hawkeye: {dir} is a backup of {data}: {files} files, {bytes} bytes; `hawkeye restore` reads it"));
    Ok(())
}

/// Copies the data directory `data` into `dir`; answers how many files and bytes that were.
fn back_up(data: &Path, dir: &Path) -> Result<(usize, u64)> {
    ensure!(
        !data.join(data_dir::RESTORING).exists(),
        "{} is the half of a restore that was not finished",
        data.display()
    );
    let is_one = FOLDERS.iter().any(|folder| data.join(folder).is_dir());
    ensure!(is_one, "{} is no data directory of a server: name it with --data-dir or --config", data.display());
    let is_new = begin(data, dir)?;
    let copied = copy_all(data, dir);
    if copied.is_err() {
        // What is left has no manifest: nobody takes it for a backup.
        let _ = if is_new { fs::remove_dir_all(dir) } else { clear(dir) };
    }
    copied.with_context(|| format!("cannot back up {} to {}", data.display(), dir.display()))
}

/// Whether `dir` is `data`, or lies in it, whatever links lead there.
pub fn lies_in(dir: &Path, data: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(dir).zip(real(data)).is_some_and(|(dir, data)| dir.starts_with(data))
}

/// Creates `dir` for this user alone, or takes one that is empty; true when it is new. It must not lie in `data`.
fn begin(data: &Path, dir: &Path) -> Result<bool> {
    let is_new = !dir.exists();
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    if lies_in(dir, data) {
        if is_new {
            let _ = fs::remove_dir(dir);
        }
        bail!("{} is in the data directory, of which it would be a part: name one elsewhere", dir.display());
    }
    let mut entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    if entries.next().is_some() {
        let what = match dir.join(manifest::NAME).exists() {
            true => "it is a backup",
            false => "if it is a backup that was not finished, delete it",
        };
        bail!("{} is not empty ({what}): name a new directory", dir.display());
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700))
        .with_context(|| format!("cannot make {} private", dir.display()))?;
    Ok(is_new)
}

/// Deletes all that is in `dir`.
fn clear(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

fn copy_all(data: &Path, dir: &Path) -> Result<(usize, u64)> {
    let mut held = hold_events_and_tables(data, dir)?;
    held.extend(hold_points(data)?);
    let mut entries = Vec::new();
    if dir.join(PORTAL).exists() {
        let mut file = File::open(dir.join(PORTAL)).context("cannot read the copy of the portal's tables")?;
        file.sync_all().context("cannot sync the copy of the portal's tables")?;
        let sum = manifest::pass_on(&mut file, u64::MAX, &mut std::io::sink())?;
        entries.push(Entry { path: PORTAL.into(), sum });
    }
    for Held { path, file, len, .. } in &mut held {
        let to = dir.join(&*path);
        let folder = to.parent().expect("below the directory");
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        entries.push(Entry { path: path.clone(), sum: manifest::copy(file, *len, &to)? });
    }
    let mut folders: Vec<&Path> = entries.iter().flat_map(|entry| entry.path.ancestors().skip(1)).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        manifest::sync_dir(&dir.join(folder))?;
    }
    let bytes = entries.iter().map(|entry| dir.join(&entry.path).metadata().map_or(0, |about| about.len())).sum();
    let about = format!("of {} by hawkeye {}", clock::local_text(clock::now()), env!("CARGO_PKG_VERSION"));
    manifest::write(dir, &about, &entries)?;
    Ok((entries.len(), bytes))
}

/// A file that is open to be copied.
struct Held {
    /// The path below the data directory.
    path: PathBuf,
    file: File,
    inode: u64,
    /// Bytes to copy.
    len: u64,
}

impl Held {
    fn measure(&mut self) -> Result<()> {
        self.len = self.file.metadata().with_context(|| format!("cannot read {}", self.path.display()))?.len();
        Ok(())
    }
}

/// Steps 1 to 4: events, small files and the tables. The tables are copied into `dir`.
fn hold_events_and_tables(data: &Path, dir: &Path) -> Result<Vec<Held>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let events = Path::new("events");
    for _ in 0..TRIES {
        let Some(mut held) = open_all(data, &list(data, events)?)? else { continue };
        let Some(mut small) = open_all(data, &small_files(data)?)? else { continue };
        for file in &mut small {
            file.measure()?;
        }
        if data.join(PORTAL).exists() {
            let copy = dir.join(PORTAL);
            if copy.exists() {
                fs::remove_file(&copy).with_context(|| format!("cannot delete {}", copy.display()))?;
            }
            runtime.block_on(portal::db::sqlite::copy(&data.join(PORTAL), &copy))?;
        }
        for file in &mut held {
            file.measure()?;
        }
        if is_held(&held, &list(data, events)?) {
            held.extend(small);
            return Ok(held);
        }
    }
    bail!("the event queue changes faster than it can be copied: try again when fewer alarms come")
}

/// Step 5: points and names.
fn hold_points(data: &Path) -> Result<Vec<Held>> {
    let store = Path::new("store");
    for _ in 0..TRIES {
        let Some(mut held) = open_all(data, &list(data, store)?)? else { continue };
        let (logs, others): (Vec<_>, Vec<_>) = held.iter_mut().partition(|file| file.path.starts_with("store/log"));
        for file in logs.into_iter().chain(others) {
            file.measure()?;
        }
        if is_held(&held, &list(data, store)?) {
            return Ok(held);
        }
    }
    bail!("the store's files change faster than they can be opened: try again later")
}

/// Path below the data directory, and inode, of a file.
type Listed = (PathBuf, u64);

/// The files in `folder` of `data` and below; none where there is no such folder. What is being written under a
/// temporary name, and locks, are left out.
fn list(data: &Path, folder: &Path) -> Result<Vec<Listed>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(data.join(folder)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        result => result.with_context(|| format!("cannot read {}", data.join(folder).display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", data.join(folder).display()))?;
        let path = folder.join(entry.file_name());
        // What is gone already is as good as not listed.
        let Ok(about) = fs::metadata(entry.path()) else { continue };
        if about.is_dir() {
            found.extend(list(data, &path)?);
        } else if about.is_file() && !is_passing(&entry.file_name()) {
            found.push((path, about.ino()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The files in `data` itself, but those of the tables.
fn small_files(data: &Path) -> Result<Vec<Listed>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data).with_context(|| format!("cannot read {}", data.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", data.display()))?;
        let name = entry.file_name();
        let is_ours = !is_passing(&name) && !name.to_string_lossy().starts_with(PORTAL);
        let Ok(about) = fs::metadata(entry.path()) else { continue };
        if is_ours && about.is_file() {
            found.push((PathBuf::from(name), about.ino()));
        }
    }
    Ok(found)
}

/// True for names that say nothing after the process has ended, and for those that no manifest can hold.
fn is_passing(name: &OsStr) -> bool {
    name.to_str().is_none_or(|name| {
        name.ends_with(".tmp") || name.ends_with(".lock") || name == "LOCK" || name.chars().any(char::is_control)
    })
}

/// Opens all of `listed`; `None` when one has gone, or is another by now.
fn open_all(data: &Path, listed: &[Listed]) -> Result<Option<Vec<Held>>> {
    let mut held = Vec::with_capacity(listed.len());
    for (path, inode) in listed {
        let file = match File::open(data.join(path)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            result => result.with_context(|| format!("cannot read {}", data.join(path).display()))?,
        };
        if file.metadata().with_context(|| format!("cannot read {}", path.display()))?.ino() != *inode {
            return Ok(None);
        }
        held.push(Held { path: path.clone(), file, inode: *inode, len: 0 });
    }
    Ok(Some(held))
}

/// Whether the folder has the files that are held, and no others. No other file can have the inode of one that is open.
fn is_held(held: &[Held], listed: &[Listed]) -> bool {
    held.iter().map(|file| (&file.path, file.inode)).eq(listed.iter().map(|(path, inode)| (path, *inode)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data directory with a file in each place.
    fn data(root: &Path) -> Result<PathBuf> {
        let data = root.join("data");
        for (path, text) in [
            ("events/00000000000000000001.events", "events"),
            ("store/LOCK", ""),
            ("store/series", "names"),
            ("store/series.tmp", "half"),
            ("store/log/00000001.log", "points"),
            ("redis-cursor", "7"),
            ("judge.lock", ""),
            ("portal.db-wal", "the tables are SQLite's to copy"),
            ("unknown/file", "no folder of ours"),
        ] {
            let path = data.join(path);
            fs::create_dir_all(path.parent().expect("a folder"))?;
            fs::write(path, text)?;
        }
        Ok(data)
    }

    fn names(dir: &Path) -> Result<Vec<String>> {
        let listed = list(dir, Path::new(""))?;
        Ok(listed.into_iter().map(|(path, _)| path.display().to_string()).collect())
    }

    #[test]
    fn files_that_count_are_copied_and_no_others() -> Result<()> {
        let root = tempfile::tempdir()?;
        let (data, dir) = (data(root.path())?, root.path().join("a/backup"));
        assert_eq!(back_up(&data, &dir)?, (4, 18));
        let expected = [
            "SHA256SUMS",
            "events/00000000000000000001.events",
            "redis-cursor",
            "store/log/00000001.log",
            "store/series",
        ];
        assert_eq!(names(&dir)?, expected);
        manifest::verify(&dir, &manifest::read(&dir)?)?;
        let error = format!("{:#}", back_up(&data, &dir).expect_err("not empty"));
        assert!(error.contains("is not empty (it is a backup)"), "{error}");
        assert_eq!(names(&dir)?, expected);
        Ok(())
    }

    /// What fails takes away what it wrote, and nothing else.
    #[test]
    fn a_backup_that_fails_leaves_nothing() -> Result<()> {
        let root = tempfile::tempdir()?;
        let (data, dir) = (data(root.path())?, root.path().join("backup"));
        fs::write(data.join(PORTAL), "no tables, though it has the name of a database")?;
        for is_new in [true, false] {
            if !is_new {
                fs::create_dir(&dir)?;
            }
            let error = format!("{:#}", back_up(&data, &dir).expect_err("no database"));
            assert!(error.contains("portal.db: ") && error.contains("not a database"), "{error}");
            assert_eq!((dir.exists(), dir.exists() && fs::read_dir(&dir)?.next().is_some()), (!is_new, false));
        }
        let nowhere = format!("{:#}", back_up(&root.path().join("none"), &dir).expect_err("nothing there"));
        assert!(nowhere.contains("is no data directory"), "{nowhere}");
        Ok(())
    }

    /// A file that is replaced, deleted or new since it was listed is noticed.
    #[test]
    fn a_folder_is_held_only_as_a_whole() -> Result<()> {
        let root = tempfile::tempdir()?;
        let data = data(root.path())?;
        let store = Path::new("store");
        let listed = list(&data, store)?;
        let held = open_all(&data, &listed)?.context("all there")?;
        assert!(is_held(&held, &list(&data, store)?));
        fs::write(data.join("store/new"), "")?;
        assert!(!is_held(&held, &list(&data, store)?));
        fs::remove_file(data.join("store/new"))?;
        assert!(is_held(&held, &list(&data, store)?));
        fs::rename(data.join("store/series.tmp"), data.join("store/series"))?;
        assert!(!is_held(&held, &list(&data, store)?));
        assert!(open_all(&data, &listed)?.is_none(), "another file has the name");
        fs::remove_file(data.join("store/series"))?;
        assert!(open_all(&data, &listed)?.is_none(), "the name has gone");
        Ok(())
    }
}
