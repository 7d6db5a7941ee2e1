//! Tree: files below the plugin directory, and whether they may be run.
//!
//! Why: whatever lies there runs with the rights of `plugin.user`, so nobody may put files there but those who may
//! already act as that user: the owner of the directory, and those of the repository that is cloned into it.
//! How: links are followed where they end below the plugin directory. From the file up to the root of the file system
//! nothing may be writable by everybody; above the plugin directory a sticky directory (/tmp) may.
//! Invariants: a look right before each run, not only when the plugin was bound. Between a look and the start of the
//! program there is a moment in which the file can be exchanged, by those only who may exchange it at any other time,
//! too. (A program that is started from an open file would have no such moment, and a script no name.)

use super::entry::cycle_of;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Entries of a directory that are looked at; some ten times the plugins that run at most.
const DIRECTORY_ENTRIES_MAX: usize = 2048;
/// Permission bits: a write by everybody, and a directory in which only owners may exchange files.
const WRITE_BY_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// What lies at a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A file, and when it was changed (Unix seconds).
    File(i64),
    Directory,
}

/// Looks at a path below `dir`. The error says what is wrong, and the fix.
pub fn look(dir: &Path, path: &str) -> Result<Found, String> {
    let full = dir.join(path);
    let metadata = fs::metadata(&full).map_err(|error| format!("{}: {error}", full.display()))?;
    is_safe(dir, &full)?;
    match () {
        _ if metadata.is_dir() => Ok(Found::Directory),
        _ if metadata.is_file() => Ok(Found::File(metadata.mtime())),
        _ => Err(format!("{} is neither a file nor a directory", full.display())),
    }
}

/// Paths of the plugins that lie directly in a directory below `dir`, with their cycles, in order.
pub fn plugins_in(dir: &Path, path: &str) -> Result<Vec<(String, i64)>, String> {
    let full = dir.join(path);
    let list = fs::read_dir(&full).map_err(|error| format!("{}: {error}", full.display()))?;
    let entries: Vec<_> = list.take(DIRECTORY_ENTRIES_MAX + 1).collect();
    if entries.len() > DIRECTORY_ENTRIES_MAX {
        return Err(format!("{} has more than {DIRECTORY_ENTRIES_MAX} entries: bind one with fewer", full.display()));
    }
    let names = entries.into_iter().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut plugins: Vec<(String, i64)> = names
        .filter(|name| name.contains('_') && !name.chars().any(char::is_control))
        .filter_map(|name| Some((format!("{path}/{name}"), cycle_of(&name).ok()?)))
        .collect();
    plugins.sort();
    Ok(plugins)
}

/// Refuses what leads out of `dir`, and what everybody may write.
fn is_safe(dir: &Path, full: &Path) -> Result<(), String> {
    let root = real(dir)?;
    let real = real(full)?;
    if !real.starts_with(&root) {
        return Err(format!("{} leads out of the plugin directory: put the file itself there", full.display()));
    }
    for place in real.ancestors() {
        let metadata = fs::symlink_metadata(place).map_err(|error| format!("{}: {error}", place.display()))?;
        let is_above = root.starts_with(place) && root != place;
        if metadata.mode() & WRITE_BY_ALL != 0 && !(is_above && is_sticky(&metadata)) {
            return Err(format!("{} may be written by everybody: chmod o-w", place.display()));
        }
    }
    Ok(())
}

fn real(path: &Path) -> Result<PathBuf, String> {
    fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn is_sticky(metadata: &Metadata) -> bool {
    metadata.mode() & STICKY != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own file");
    }

    #[test]
    fn only_files_below_that_not_everybody_may_write() {
        let above = tempfile::tempdir().expect("temporary directory");
        let dir = above.path().join("plugin");
        fs::create_dir_all(dir.join("sys")).expect("room");
        for file in ["sys/60_a.sh", "sys/60_open.sh", "../outside.sh"] {
            fs::write(dir.join(file), "").expect("room");
            set_mode(&dir.join(file), 0o755);
        }
        set_mode(&dir.join("sys/60_open.sh"), 0o757);
        symlink("60_a.sh", dir.join("sys/60_link.sh")).expect("a link");
        symlink("../../outside.sh", dir.join("sys/60_out.sh")).expect("a link");
        symlink("nowhere", dir.join("sys/60_broken.sh")).expect("a link");
        let check = |path: &str, part: &str| match look(&dir, path) {
            Ok(found) => assert!(format!("{found:?}").starts_with(part), "{path}: {found:?}"),
            Err(fault) => assert!(fault.contains(part), "{path}: {fault}"),
        };
        check("sys", "Directory");
        check("sys/60_a.sh", "File");
        check("sys/60_link.sh", "File");
        check("sys/60_out.sh", "leads out of");
        check("sys/60_open.sh", "chmod o-w");
        check("sys/60_broken.sh", "No such file");
        check("sys/60_a.sh/x", "Not a directory");
        let listed = plugins_in(&dir, "sys").expect("a directory");
        let names: Vec<&str> = listed.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names, ["sys/60_a.sh", "sys/60_broken.sh", "sys/60_link.sh", "sys/60_open.sh", "sys/60_out.sh"]);
        fs::create_dir(dir.join("many")).expect("room");
        (0..=DIRECTORY_ENTRIES_MAX).for_each(|number| fs::write(dir.join(format!("many/{number}")), "").expect("room"));
        assert!(plugins_in(&dir, "many").is_err_and(|fault| fault.contains("bind one with fewer")));
        set_mode(&dir.join("sys"), 0o1777);
        check("sys/60_a.sh", "chmod o-w");
    }

    #[test]
    fn above_the_plugin_directory_a_sticky_one_is_fine_and_an_open_one_is_not() {
        let above = tempfile::tempdir().expect("temporary directory");
        let dir = above.path().join("plugin");
        fs::create_dir_all(dir.join("sys")).expect("room");
        set_mode(above.path(), 0o1777);
        assert_eq!(look(&dir, "sys"), Ok(Found::Directory));
        set_mode(above.path(), 0o777);
        assert!(look(&dir, "sys").is_err_and(|fault| fault.contains("chmod o-w")));
    }
}
