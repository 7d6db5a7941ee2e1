//! Kept: the file `<data_dir>/windows` (docs/format/windows.md), written each minute and at the end.
//!
//! How: written whole under another name, synced and renamed. Invariants: a file that is damaged or foreign is told and
//! not used past the damage; it is never the reason for a start to fail.

use crate::engine::windowed::Windowed;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Path of the file of windows.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("windows")
}

/// Reads the file, if there is one that can be read.
pub fn read(data_dir: &Path) -> Option<Vec<u8>> {
    let path = path(data_dir);
    match fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "cannot read the windows of the last run; all begin empty");
            None
        }
    }
}

/// Replaces the file by the windows as they are now.
pub fn write(data_dir: &Path, windowed: &Windowed) -> Result<()> {
    let (path, fresh) = (path(data_dir), data_dir.join("windows.tmp"));
    let replace = || {
        let mut file = File::create(&fresh)?;
        windowed.write(&mut file)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(data_dir)?.sync_all()
    };
    replace().with_context(|| format!("cannot write the windows to {}", path.display()))
}
