//! Mark: what the portal was when it was last seen, in a small file beside it, `portal.mark`.
//!
//! Why: SQLite drops a log (WAL) from the first damaged byte on, and whoever puts an older file in place drops what
//! came since; neither leaves a trace in the portal itself. An alarm that was delivered before the loss must not be
//! delivered again.
//! How: one line of text, docs/format/portal.md. The portal counts its commits in a row; the count is forced to the
//! disk there before it is noted here, so a portal that has less than its mark has lost changes.
//! Invariants: the file is whole or not there, for a new one is renamed over it. A file that is missing says nothing:
//! so a portal from before this file, and a backup that is put in place, are taken as they are.

use anyhow::{Context, Result};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use stdx::checked_line;

/// Name of the file beside `portal.db`.
pub const FILE: &str = "portal.mark";
const MAGIC: &str = "hawkeye portal 1 ";

/// State of a portal at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mark {
    /// Name of this portal, drawn when it was made: 32 hex digits.
    pub id: String,
    /// Changes that it has had.
    pub commits: u64,
    /// Highest sequence number of the event queue that alarm has handled.
    pub cursor: u64,
}

/// Path of the mark of the database `portal`.
pub fn path_beside(portal: &Path) -> PathBuf {
    portal.with_extension("mark")
}

impl Mark {
    /// Reads the mark; none when there is no file, or a damaged one, which is logged.
    pub fn load(path: &Path) -> Result<Option<Mark>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mark = parse(&text);
        if mark.is_none() {
            tracing::warn!(file = %path.display(), "the portal's mark is damaged, and counts as missing");
        }
        Ok(mark)
    }

    /// Replaces the file. It is not forced to the disk: a mark that is behind its portal is no fault.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("mark.tmp");
        let words = format_args!("{} {} {}", self.id, self.commits, self.cursor);
        fs::write(&new, checked_line::write(MAGIC, words))?;
        fs::rename(&new, path)
    }
}

fn parse(text: &[u8]) -> Option<Mark> {
    let mut words = checked_line::read(MAGIC, text)?.split_ascii_whitespace();
    let mark = Mark {
        id: words.next()?.to_string(),
        commits: words.next()?.parse().ok()?,
        cursor: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_whole_or_none() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = path_beside(&dir.path().join("portal.db"));
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some("portal.mark"));
        assert_eq!(Mark::load(&path)?, None);
        let mark = Mark { id: "00ff".repeat(8), commits: 7, cursor: u64::MAX };
        mark.save(&path)?;
        assert_eq!(Mark::load(&path)?, Some(mark.clone()));
        let whole = fs::read(&path)?;
        assert_eq!(
            String::from_utf8_lossy(&whole[..whole.len() - 9]),
            "hawkeye portal 1 00ff00ff00ff00ff00ff00ff00ff00ff 7 18446744073709551615 "
        );
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(parse(&damaged), None, "byte {at}");
            assert_eq!(parse(&whole[..at]), None, "{at} bytes");
        }
        mark.save(&path)?;
        assert_eq!(parse(&fs::read(&path)?), Some(mark));
        let released = b"hawkeye portal 1 00ff 7 9 eea8586f\n";
        assert_eq!(
            parse(released),
            Some(Mark { id: "00ff".to_string(), commits: 7, cursor: 9 }),
            "as it was written before"
        );
        Ok(())
    }
}
