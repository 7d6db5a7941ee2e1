//! Data directory: made for its owner alone before anything is written into it.
//!
//! Why: the portal's tables and the files of points and events say everything of a site, and what a machine's other
//! users may read, one of them reads.
//! How: from here on the process creates files that only its user may use (umask). Files of before, and of programs
//! that had another idea, lose the rights of others at each start. A directory into which a restore was begun and not
//! finished is refused ([`RESTORING`]).
//! Invariants: a link is not followed but for `store` and `events`, which sites put on other disks; rights that cannot
//! be taken away (a volume of somebody else's) are told and stop nothing.

use anyhow::{Context, Result, bail};
use rustix::fs::Mode;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use stdx::{Disk, RealDisk};

/// Name of the file that stands in a data directory from the beginning of a restore to its end.
pub const RESTORING: &str = "restore-unfinished";

/// The rights of group and others.
const OF_OTHERS: u32 = 0o077;

/// Lets nobody but this user use the files that the process creates from now on.
pub fn create_private_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Creates `dir` if there is none, and takes it and what is in it from everybody but its owner.
pub fn prepare(dir: &Path) -> Result<()> {
    create_private_files();
    if let Err(error) = fs::create_dir_all(dir) {
        let text = format!("cannot create the data directory {} ({})", dir.display(), fix(&error));
        return Err(error).context(text);
    }
    if dir.join(RESTORING).exists() {
        bail!(
            "the data directory {} is the half of a restore that was not finished: run `hawkeye restore` again, or begin \
             with an empty directory",
            dir.display()
        );
    }
    let mut changed = 0;
    let taken = [dir.to_path_buf(), dir.join("store"), dir.join("events")]
        .iter()
        .try_for_each(|path| if path.exists() { take_from_others(path, &mut changed) } else { Ok(()) });
    if changed > 0 {
        tracing::warn!(dir = %dir.display(), changed, "files of the data directory were open to other users; now they are not");
    }
    if let Err(error) = taken {
        tracing::warn!(dir = %dir.display(), %error, "cannot take the data directory from other users: they may read it");
    }
    Ok(())
}

/// Locks `dir` for what runs alone in it as `role`: two of them would mix their events.
pub fn lock(dir: &Path, role: &str) -> Result<impl Sized> {
    prepare(dir)?;
    RealDisk.lock(&dir.join(format!("{role}.lock"))).with_context(|| {
        format!(
            "cannot lock {} (is another {role} using it, and may this user write it? data_dir sets the directory)",
            dir.display()
        )
    })
}

/// What to do about an error of a disk below the data directory.
pub fn fix(error: &io::Error) -> &'static str {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there, or set data_dir to a disk that has room",
        ErrorKind::ReadOnlyFilesystem => "mount that file system writable, or set data_dir to one that is",
        ErrorKind::PermissionDenied => "let this user read and write there, or set data_dir to where it may",
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "move the file away that is where a directory belongs, or set data_dir to another place"
        }
        ErrorKind::IsADirectory => {
            "move the directory away that is where a file belongs, or set data_dir to another place"
        }
        _ => "set data_dir to a directory that can be read and written",
    }
}

/// Takes the rights of group and others from `path`, which may be a link, and from everything below. Counts what had
/// some.
fn take_from_others(path: &Path, changed: &mut u64) -> io::Result<()> {
    let about = fs::metadata(path)?;
    let mode = about.permissions().mode();
    if mode & OF_OTHERS != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !OF_OTHERS))?;
        *changed += 1;
    }
    if !about.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() || kind.is_file() {
            match take_from_others(&entry.path(), changed) {
                // Another program's file may go while this looks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o7777
    }

    /// The numbers are Linux's.
    #[test]
    fn each_error_of_a_disk_has_a_fix_of_its_own() {
        let check = |number: i32, part: &str| {
            let fix = fix(&io::Error::from_raw_os_error(number));
            assert!(fix.contains(part), "{number}: {fix}");
        };
        let (not_permitted, no_access, full, over_quota) = (1, 13, 28, 122);
        check(full, "make room");
        check(over_quota, "make room");
        check(30, "mount that file system writable");
        check(no_access, "let this user");
        check(not_permitted, "let this user");
        check(17, "move the file away");
        check(20, "move the file away");
        check(21, "move the directory away");
        check(5, "set data_dir to");
    }

    #[test]
    fn what_is_there_is_taken_from_others_and_links_lead_nowhere_but_to_the_store() -> Result<()> {
        let root = tempfile::tempdir()?;
        let (dir, disk, foreign) = (root.path().join("data"), root.path().join("disk"), root.path().join("foreign"));
        for path in [&dir, &disk, &dir.join("events")] {
            fs::create_dir(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o2755))?;
        }
        symlink(&disk, dir.join("store"))?;
        symlink(&foreign, dir.join("link"))?;
        for path in [&dir.join("portal.db"), &dir.join("events/1.events"), &disk.join("series"), &foreign] {
            fs::write(path, "")?;
            fs::set_permissions(path, Permissions::from_mode(0o644))?;
        }
        let mut changed = 0;
        for path in [&dir, &dir.join("store"), &dir.join("events")] {
            take_from_others(path, &mut changed)?;
        }
        assert_eq!(changed, 6);
        for path in [&dir, &disk, &dir.join("events")] {
            assert_eq!(mode(path), 0o2700, "{}", path.display());
        }
        for path in [&dir.join("portal.db"), &dir.join("events/1.events"), &disk.join("series")] {
            assert_eq!(mode(path), 0o600, "{}", path.display());
        }
        assert_eq!(mode(&foreign), 0o644);
        take_from_others(&dir, &mut changed)?;
        assert_eq!(changed, 6, "nothing is left to take");
        Ok(())
    }
}
