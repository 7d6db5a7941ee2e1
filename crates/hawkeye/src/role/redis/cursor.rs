//! Cursor file: how far events are pushed, `<data_dir>/redis-cursor`.
//!
//! How: one line of text, `hawkeye redis-cursor 1 <sequence number> <crc32 of what is before, 8 hex digits>`; a new one
//! is written beside it, forced to the disk and renamed (docs/format/events.md).
//! Invariants: the file is whole or not there; a damaged one ends the start, for it says neither what was pushed nor
//! what not.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use stdx::checked_line;

const MAGIC: &str = "hawkeye redis-cursor 1 ";

/// The cursor's file in a data directory.
#[derive(Clone)]
pub struct CursorFile {
    path: PathBuf,
    dir: PathBuf,
}

impl CursorFile {
    /// Names the file; nothing is read yet.
    pub fn new(data_dir: &Path) -> CursorFile {
        CursorFile { path: data_dir.join("redis-cursor"), dir: data_dir.to_path_buf() }
    }

    /// Path of the file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the cursor; none when there is no file. A damaged file is an error.
    pub fn load(&self) -> Result<Option<u64>> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        };
        let Some(cursor) = parse(&text) else {
            bail!(
                "{} is damaged or of another version: restore it, or delete it to push only what comes from now on",
                self.path.display()
            );
        };
        Ok(Some(cursor))
    }

    /// Writes the cursor; it is durable when this returns.
    pub fn save(&self, cursor: u64) -> io::Result<()> {
        let new = self.path.with_extension("tmp");
        let mut file = File::create(&new)?;
        file.write_all(checked_line::write(MAGIC, cursor).as_bytes())?;
        file.sync_data()?;
        std::fs::rename(&new, &self.path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Removes the file; there may be none.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn parse(text: &[u8]) -> Option<u64> {
    checked_line::read(MAGIC, text)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_told() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = CursorFile::new(dir.path());
        assert_eq!(file.load().expect("none"), None);
        for cursor in [0, 1, u64::MAX, 1_700_000_000 << 20] {
            file.save(cursor).expect("writable");
            assert_eq!(file.load().expect("whole"), Some(cursor));
        }
        let whole = std::fs::read(&file.path).expect("readable");
        for at in 0..whole.len() {
            let error = |bytes: &[u8]| {
                std::fs::write(&file.path, bytes).expect("writable");
                format!("{:#}", file.load().expect_err("damaged"))
            };
            assert!(error(&whole[..at]).contains("redis-cursor"), "cut at {at}");
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(error(&bytes).contains("delete it"), "byte {at}");
        }
        file.remove().expect("removable");
        file.remove().expect("nothing to remove");
        assert_eq!(file.load().expect("none"), None);
    }
}
