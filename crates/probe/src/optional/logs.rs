//! Logs: how many lines of files match a pattern, from one report to the next.
//!
//! Why: "errors per minute" of a program that has nothing but a log; and without shipping the log.
//! How: each file is kept open and read on from where the last report ended. When another file has taken its name (it
//! was rotated), the old one is read to its end first, then the new one from its beginning; a file that is shorter than
//! what was read (`copytruncate`), or begins otherwise, begins anew. At the agent's start files are read from their
//! ends: what stands there happened before. Files that appear later are read whole. A last line without its end waits
//! for it.
//! When a file grew by more than [`ROUND_BYTES_MAX`] since the last report, the newest are looked at, and the rest is
//! counted in `log.bytes.skipped`. Positions are in memory: what is written while no agent runs is not counted.
//! Invariants: nothing but regular files is opened, and without waiting; no clock.
//! Memory: one buffer of [`LINE_BYTES_MAX`], and an open file for each file, [`FILES_MAX`] per pattern at most.

use super::files::matching_files;
use crate::reading::{Reading, tag};
use crate::roots::{ProbeError, Roots};
use regex::bytes::Regex;
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Files of one name; more are a mistake in its globs, and each is an open descriptor.
pub const FILES_MAX: usize = 64;
/// Bytes of a file that are looked at for one report: a second's work of a slow core, and more than a disk's log grows
/// by in a minute while its writer is well.
pub const ROUND_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a line that the pattern sees; a longer line is one line, seen by its beginning.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// First bytes by which a file is known; lines of logs mostly begin with a time.
const HEAD_BYTES: usize = 64;

/// Lines that are counted together.
#[derive(Clone, Debug)]
pub struct LogPattern {
    /// Name of the series' tag.
    pub name: String,
    /// Paths, with `*`, `?` and `[…]`.
    pub files: Vec<String>,
    pub pattern: Regex,
}

/// Logs that are followed.
#[derive(Debug)]
pub struct Logs {
    patterns: Vec<(LogPattern, Followed)>,
    /// Time of the report before.
    seen_ms: Option<u64>,
}

/// Files of one pattern, by their paths.
#[derive(Debug, Default)]
struct Followed(BTreeMap<PathBuf, Position>);

#[derive(Debug)]
struct Position {
    file: File,
    inode: (u64, u64),
    offset: u64,
    /// First bytes of what was read, by which a file is known that was cut and has grown beyond what was read.
    head: Vec<u8>,
    /// Whether the bytes up to the next line's end belong to a line that was counted already.
    inside_line: bool,
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    lines: u64,
    matches: u64,
    bytes_skipped: u64,
}

impl Logs {
    /// Logs of which nothing is known yet.
    pub fn new(patterns: Vec<LogPattern>) -> Logs {
        Logs { patterns: patterns.into_iter().map(|pattern| (pattern, Followed::default())).collect(), seen_ms: None }
    }

    /// Counts what came since the time before; nothing the first time, which finds the ends of the files.
    pub fn collect(
        &mut self,
        roots: &Roots,
        monotonic_ms: u64,
        out: &mut Vec<Reading>,
        failures: &mut Vec<ProbeError>,
    ) {
        let elapsed_ms = self.seen_ms.map(|before| monotonic_ms.saturating_sub(before));
        for (pattern, followed) in &mut self.patterns {
            let counts = followed.read_on(roots, pattern, elapsed_ms.is_none(), failures);
            let Some(elapsed_ms) = elapsed_ms.filter(|elapsed_ms| *elapsed_ms > 0) else { continue };
            let tags = tag("log", &pattern.name);
            let per_second = counts.matches as f64 * 1000.0 / elapsed_ms as f64;
            out.extend([
                Reading::gauge("log.lines", &tags, counts.lines as f64),
                Reading::gauge("log.matches", &tags, counts.matches as f64),
                Reading::gauge("log.matches.rate", &tags, per_second),
                Reading::gauge("log.bytes.skipped", &tags, counts.bytes_skipped as f64),
            ]);
        }
        self.seen_ms = Some(monotonic_ms);
    }
}

impl Followed {
    fn read_on(
        &mut self,
        roots: &Roots,
        pattern: &LogPattern,
        is_first: bool,
        failures: &mut Vec<ProbeError>,
    ) -> Counts {
        let mut counts = Counts::default();
        let paths = matching_files(roots, &pattern.files, FILES_MAX, failures);
        // What has lost its name is read to its end; a file that took the name comes below.
        let mut nameless = Vec::new();
        for (path, mut position) in std::mem::take(&mut self.0) {
            let read = position.read_on(&pattern.pattern, &mut counts);
            failures.extend(read.map_err(|error| ProbeError::Unreadable { file: path.clone(), error }).err());
            match std::fs::metadata(&path).is_ok_and(|now| inode(&now) == position.inode) && paths.contains(&path) {
                true => drop(self.0.insert(path, position)),
                false => nameless.push(position),
            }
        }
        for path in paths {
            let result = self.begin(&path, is_first, &mut nameless, &pattern.pattern, &mut counts);
            failures.extend(result.map_err(|error| ProbeError::Unreadable { file: path, error }).err());
        }
        counts
    }

    /// Follows a file that is not followed yet; one that had another name goes on where it was.
    fn begin(
        &mut self,
        path: &Path,
        at_end: bool,
        nameless: &mut Vec<Position>,
        pattern: &Regex,
        counts: &mut Counts,
    ) -> io::Result<()> {
        if self.0.contains_key(path) {
            return Ok(());
        }
        let mut position = Position::begin(path, at_end)?;
        // A file that has two names, as by a link, is followed under one.
        if self.0.values().any(|other| other.inode == position.inode) {
            return Ok(());
        }
        if let Some(index) = nameless.iter().position(|other| other.inode == position.inode) {
            position = nameless.swap_remove(index);
        }
        position.read_on(pattern, counts)?;
        self.0.insert(path.to_path_buf(), position);
        Ok(())
    }
}

fn inode(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Position {
    /// Opens a file, at its end or at its beginning.
    fn begin(path: &Path, at_end: bool) -> io::Result<Position> {
        let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
        }
        let offset = if at_end { metadata.len() } else { 0 };
        let mut position = Position { file, inode: inode(&metadata), offset, head: Vec::new(), inside_line: false };
        position.note_head()?;
        Ok(position)
    }

    /// Counts the lines that were completed since.
    fn read_on(&mut self, pattern: &Regex, counts: &mut Counts) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length < self.offset || !self.has_its_head()? {
            (self.offset, self.inside_line) = (0, false);
            self.head.clear();
        }
        if length - self.offset > ROUND_BYTES_MAX {
            let newest = length - ROUND_BYTES_MAX;
            counts.bytes_skipped += newest - self.offset;
            // The line in whose middle that is, is none of those that are counted.
            (self.offset, self.inside_line) = (newest, true);
        }
        self.file.seek(SeekFrom::Start(self.offset))?;
        // What is written while this reads is the next report's.
        let mut left = length - self.offset;
        let mut buffer = Vec::with_capacity(LINE_BYTES_MAX);
        let mut chunk = [0; 16 << 10];
        while left > 0 {
            let wanted = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = match self.file.read(&mut chunk[..wanted]) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            left -= read as u64;
            let mut unseen = &chunk[..read];
            while !unseen.is_empty() {
                let end = memchr::memchr(b'\n', unseen).map_or(unseen.len(), |at| at + 1);
                let (piece, behind) = unseen.split_at(end);
                self.take(piece, &mut buffer, pattern, counts);
                unseen = behind;
            }
        }
        // A line without its end is read again when it has one.
        self.offset -= buffer.len() as u64;
        self.note_head()
    }

    /// Whether the file begins as it did.
    fn has_its_head(&self) -> io::Result<bool> {
        let mut now = [0; HEAD_BYTES];
        let read = self.file.read_at(&mut now[..self.head.len()], 0)?;
        Ok(now[..read] == self.head[..])
    }

    /// Notes the first bytes, as far as they were read.
    fn note_head(&mut self) -> io::Result<()> {
        let wanted = HEAD_BYTES.min(usize::try_from(self.offset).unwrap_or(HEAD_BYTES));
        if self.head.len() < wanted {
            let mut now = [0; HEAD_BYTES];
            let read = self.file.read_at(&mut now[..wanted], 0)?;
            self.head = now[..read].to_vec();
        }
        Ok(())
    }

    /// Takes a piece that has at most one line's end, as its last byte. `buffer` holds the line so far.
    fn take(&mut self, piece: &[u8], buffer: &mut Vec<u8>, pattern: &Regex, counts: &mut Counts) {
        self.offset += piece.len() as u64;
        let is_end = piece.ends_with(b"\n");
        if self.inside_line {
            self.inside_line = !is_end;
            return;
        }
        let is_too_long = buffer.len() + piece.len() > LINE_BYTES_MAX;
        buffer.extend_from_slice(&piece[..piece.len().min(LINE_BYTES_MAX - buffer.len())]);
        if is_end || is_too_long {
            let line = buffer.strip_suffix(b"\n").unwrap_or(buffer);
            counts.lines += 1;
            counts.matches += u64::from(pattern.is_match(line.strip_suffix(b"\r").unwrap_or(line)));
            buffer.clear();
            self.inside_line = !is_end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optional::pattern;
    use std::fs;
    use std::io::Write;

    struct Host {
        root: tempfile::TempDir,
        logs: Logs,
        at_ms: u64,
    }

    impl Host {
        fn new(globs: &[&str]) -> Host {
            let files = globs.iter().map(|glob| glob.to_string()).collect();
            let name = "app".to_string();
            let logs = Logs::new(vec![LogPattern { name, files, pattern: pattern("ERROR|panic$").unwrap() }]);
            let root = tempfile::tempdir().expect("a directory");
            fs::create_dir(root.path().join("log")).expect("a directory");
            Host { root, logs, at_ms: 0 }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join("log").join(name)
        }

        fn append(&self, name: &str, text: &str) {
            let opened = OpenOptions::new().create(true).append(true).open(self.path(name));
            opened.expect("writable").write_all(text.as_bytes()).expect("room");
        }

        /// Lines, matches, matches per second and skipped bytes of a report ten seconds after the one before.
        fn report(&mut self) -> Vec<f64> {
            let (mut out, mut failures) = (Vec::new(), Vec::new());
            self.logs.collect(&Roots::new(self.root.path()), self.at_ms, &mut out, &mut failures);
            self.at_ms += 10_000;
            assert!(failures.is_empty(), "{failures:?}");
            assert!(out.iter().all(|reading| reading.tags == "log=app"));
            out.iter().map(|reading| reading.value).collect()
        }
    }

    #[test]
    fn a_file_that_was_cut_and_has_grown_beyond_what_was_read_begins_anew() {
        let mut host = Host::new(&["log/a.log"]);
        host.append("a.log", "10:00 one\n10:01 two\n");
        host.report();
        host.append("a.log", "10:02 ERROR\n");
        assert_eq!(host.report()[..2], [1.0, 1.0]);
        File::create(host.path("a.log")).expect("writable");
        host.append("a.log", &"10:05 ERROR\n".repeat(20));
        assert_eq!(host.report()[..2], [20.0, 20.0]);
    }

    #[test]
    fn counts_what_comes_after_the_start() {
        let mut host = Host::new(&["/log/*.log"]);
        host.append("a.log", "ERROR before the start\n");
        assert!(host.report().is_empty());
        assert_eq!(host.report(), [0.0, 0.0, 0.0, 0.0]);
        host.append("a.log", "fine\nERROR one\r\npanic\r\nhalf an ERR");
        assert_eq!(host.report(), [3.0, 2.0, 0.2, 0.0]);
        host.append("a.log", "OR\n");
        host.append("b.log", "ERROR of a new file\n");
        assert_eq!(host.report(), [2.0, 2.0, 0.2, 0.0]);
    }

    #[test]
    fn a_file_that_is_rotated_is_read_to_its_end() {
        let mut host = Host::new(&["log/a.log", "log/a*"]);
        host.append("a.log", "before\n");
        host.report();
        host.append("a.log", "ERROR 1\n");
        fs::rename(host.path("a.log"), host.path("old")).expect("there");
        host.append("old", "ERROR 2\n");
        host.append("a.log", "ERROR 3\n");
        assert_eq!(host.report()[1], 3.0);
        host.append("a.log", "ERROR 4\n");
        assert_eq!(host.report()[1], 1.0);
        // Gone, and back.
        fs::remove_file(host.path("a.log")).expect("there");
        assert_eq!(host.report()[1], 0.0);
        host.append("a.log", "ERROR 5\n");
        assert_eq!(host.report()[1], 1.0);
    }

    /// The new name is followed, too: nothing is counted twice.
    #[test]
    fn a_file_that_is_rotated_within_the_globs_is_known_again() {
        let mut host = Host::new(&["log/a.log*"]);
        host.append("a.log", "ERROR 0\n");
        host.report();
        host.append("a.log", "ERROR 1\n");
        fs::rename(host.path("a.log"), host.path("a.log.1")).expect("there");
        host.append("a.log", "ERROR 2\n");
        assert_eq!(host.report()[1], 2.0);
        host.append("a.log.1", "ERROR 3\n");
        assert_eq!(host.report()[1], 1.0);
    }

    #[test]
    fn a_file_that_is_cut_begins_anew() {
        let mut host = Host::new(&["log/a.log"]);
        host.append("a.log", "some lines\nbefore\n");
        host.report();
        File::create(host.path("a.log")).expect("writable");
        host.append("a.log", "ERROR\n");
        assert_eq!(host.report()[..2], [1.0, 1.0]);
    }

    #[test]
    fn long_lines_are_lines_and_a_flood_is_skipped() {
        let mut host = Host::new(&["log/a.log"]);
        host.append("a.log", "");
        host.report();
        let long = "x".repeat(2 * LINE_BYTES_MAX);
        host.append("a.log", &format!("ERROR {long}\n{long} ERROR\n{long}"));
        assert_eq!(host.report()[..2], [3.0, 1.0]);
        host.append("a.log", " ERROR of the same line\nERROR\n");
        assert_eq!(host.report()[..2], [1.0, 1.0]);
        // A hole in a file is read as NULs without a line's end.
        let file = OpenOptions::new().write(true).open(host.path("a.log")).expect("there");
        let length = file.metadata().expect("there").len();
        file.set_len(length + 100 + ROUND_BYTES_MAX).expect("room");
        host.append("a.log", "\nERROR\n");
        assert_eq!(host.report(), [1.0, 1.0, 0.1, 107.0]);
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let mut host = Host::new(&["log/*"]);
        fs::create_dir(host.path("folder")).expect("a directory");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, host.path("pipe"), rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        host.report();
        assert_eq!(host.report(), [0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn too_many_files_are_told() {
        let mut host = Host::new(&["log/*"]);
        (0..=FILES_MAX).for_each(|index| host.append(&index.to_string(), "x\n"));
        let (mut out, mut failures) = (Vec::new(), Vec::new());
        host.logs.collect(&Roots::new(host.root.path()), 0, &mut out, &mut failures);
        assert!(failures.len() == 1 && failures[0].to_string().contains("narrower"), "{failures:?}");
    }
}
