//! Log: what a plugin wrote to its stderr in its last run that wrote any, in a file of its own.
//!
//! How: `<logs>/<path>(<args>).stderr.log`, written beside and moved into place, so a reader sees the whole of one run.
//! Invariants: no file outside of the directory is made, written or removed, whatever the arguments are and whatever
//! lies in the directory: each folder on the way is opened without following links, and the file is a new one.
//! Memory: none; a file has at most the bytes of stderr that are kept.
//! Compat: the names are the original's; a `/` in arguments, and what is too long for a name, is another there.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Bytes of a file's name, as Linux's file systems have them.
const NAME_BYTES_MAX: usize = 255;
const ENDING: &str = ").stderr.log";
/// The name under which the next file is written; no plugin's log has it, for theirs end otherwise.
const NEXT: &str = ".stderr.log.next";

/// Writes a plugin's errors. `path` and `args` are those of an entry.
pub fn write(logs: &Path, path: &str, args: &str, errors: &[u8]) -> io::Result<()> {
    fs::create_dir_all(logs)?;
    let mut folder = open_folder(CWD, logs, OFlags::empty())?;
    let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
    for name in folders.split('/').filter(|name| !name.is_empty()) {
        match mkdirat(&folder, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        folder = open_folder(&folder, Path::new(name), OFlags::NOFOLLOW)?;
    }
    write_whole(&folder, &name_of(file, args), errors)
}

fn open_folder(at: impl std::os::fd::AsFd, name: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

fn write_whole(folder: &OwnedFd, name: &str, errors: &[u8]) -> io::Result<()> {
    match unlinkat(folder, NEXT, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(folder, NEXT, flags, Mode::from_raw_mode(0o644))?;
    File::from(file).write_all(errors)?;
    Ok(renameat(folder, NEXT, folder, name)?)
}

/// Name of the file, cut at its arguments where it would be too long.
fn name_of(file: &str, args: &str) -> String {
    let mut name = format!("{file}({}", args.replace('/', "_"));
    let mut end = name.len().min(NAME_BYTES_MAX - ENDING.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name + ENDING
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_last_errors_stand_in_the_originals_place() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let logs = dir.path().join("logs");
        let check = |path: &str, args: &str, file: &str| {
            for errors in ["first and longer", "second"] {
                write(&logs, path, args, errors.as_bytes()).expect(path);
                assert_eq!(fs::read_to_string(logs.join(file)).expect(file), errors);
            }
        };
        check("sys/ntp/60_ntp.py", "", "sys/ntp/60_ntp.py().stderr.log");
        check("60_a.sh", "a, \"b c\"", "60_a.sh(a, \"b c\").stderr.log");
        check("60_a.sh", "../../x", "60_a.sh(.._.._x).stderr.log");
        let cut = format!("60_a.sh({}).stderr.log", "ä".repeat(117));
        assert!(cut.len() <= NAME_BYTES_MAX);
        check("60_a.sh", &"ä".repeat(150), &cut);
    }

    #[test]
    fn nothing_outside_is_touched() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (logs, outside) = (dir.path().join("logs"), dir.path().join("outside"));
        fs::create_dir_all(&logs).expect("room");
        fs::create_dir_all(outside.join("folder")).expect("room");
        fs::write(outside.join("file"), "kept").expect("room");
        symlink(outside.join("folder"), logs.join("sys")).expect("a link");
        symlink(outside.join("file"), logs.join("60_a.sh().stderr.log")).expect("a link");
        symlink(outside.join("file"), logs.join(NEXT)).expect("a link");
        assert!(write(&logs, "sys/60_a.sh", "", b"errors").is_err());
        write(&logs, "60_a.sh", "", b"errors").expect("the link makes room");
        assert_eq!(fs::read_to_string(outside.join("file")).expect("still there"), "kept");
        assert_eq!(fs::read_dir(outside.join("folder")).expect("still there").count(), 0);
        assert_eq!(fs::read_to_string(logs.join("60_a.sh().stderr.log")).expect("a file"), "errors");
    }
}
