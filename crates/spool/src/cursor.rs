//! Cursor: the file that says how far the reader has come, and what the spool knows of its records.
//!
//! Why: a full disk has no room for a new file, and the place of the reader must be written all the same: what is not
//! noted is sent again, and what is not sent cannot be removed.
//! How: a file of two slots of [`SLOT`] bytes, written in turn and in place; each holds a line with a checksum and a
//! number that grows. The newest whole line counts. A file of one line, as it was before, is read, and replaced.
//! Invariants: a slot that a crash tears leaves the other; no note goes back behind one that was written.

use crate::spool::Position;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use stdx::{Disk, DiskFile, checked_line};

/// The file.
const CURSOR: &str = "cursor";
/// File beside it that becomes it when it is made.
const CURSOR_NEW: &str = "cursor.new";
/// First words of a line; of one that was the whole file; and of one that says nothing of what was dropped.
const HEAD: &str = "hawkeye spool cursor 3 ";
const HEAD_2: &str = "hawkeye spool cursor 2 ";
const HEAD_1: &str = "hawkeye spool cursor 1 ";
/// Bytes of a slot: a page, so that no write touches both.
const SLOT: usize = 4096;
/// Bytes of a line at most.
const LINE_MAX: usize = 256;
/// Numbers of segments end long before: a line with a greater one is none of ours.
const SEGMENT_MAX: u64 = 1 << 60;

/// What the cursor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Everything before it has been read.
    pub place: Position,
    /// Records that went unread because there were too many.
    pub dropped: u64,
    /// What lines of earlier versions do not say.
    pub known: Option<Known>,
}

/// Numbers by which a start sees what is missing. Records are counted from the first one that the spool ever had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Records before the place.
    pub read: u64,
    /// Records before the end that was synced, and the segment it was in.
    pub synced: u64,
    pub last: u64,
    /// Records behind the place that are known to be missing.
    pub gap: u64,
    /// Records that were found missing since the spool was made.
    pub missing: u64,
}

/// The file of the cursor.
pub struct Cursor {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    /// None until a file of two slots is there.
    file: Option<Arc<dyn DiskFile>>,
    /// Number of the newest line, and what it says.
    number: u64,
    kept: Option<Kept>,
}

impl Cursor {
    /// The cursor in `dir`, which is made by the first note if it is not there.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Cursor {
        let (number, kept, has_slots) = read(&*disk, dir).unwrap_or_default();
        let file = has_slots.then(|| disk.open_or_create(&dir.join(CURSOR)).ok()).flatten();
        Cursor { disk, dir: dir.to_path_buf(), state: Mutex::new(State { file, number, kept }) }
    }

    /// What it says, if it can be read.
    pub fn kept(&self) -> Option<Kept> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).kept
    }

    /// Path of the file.
    pub fn path(&self) -> PathBuf {
        self.dir.join(CURSOR)
    }

    /// Writes down what is to be kept, unless that, or something later, is there already.
    pub fn note(&self, now: Kept) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = state.kept.is_some_and(|kept| kept == now || kept.place > now.place);
        if is_there && state.file.is_some() {
            return Ok(());
        }
        let number = state.number.saturating_add(1);
        match &state.file {
            None => state.file = Some(self.make(slot_of(number), &line(number, now))?),
            Some(file) => {
                let text = line(number, now);
                let written = file.write_at(text.as_bytes(), slot_of(number) as u64).and_then(|()| file.sync());
                written.map_err(|error| named(&self.path(), error))?;
            }
        }
        (state.number, state.kept) = (number, Some(now));
        Ok(())
    }

    /// Makes the file, with a line in a slot.
    fn make(&self, slot: usize, line: &str) -> io::Result<Arc<dyn DiskFile>> {
        let new = self.dir.join(CURSOR_NEW);
        let made = || {
            let file = self.disk.open_or_create(&new)?;
            file.set_len(0)?;
            file.reserve(0, 2 * SLOT as u64)?;
            let mut bytes = vec![0; 2 * SLOT];
            bytes[slot..slot + line.len()].copy_from_slice(line.as_bytes());
            file.write_at(&bytes, 0)?;
            file.sync()?;
            self.disk.rename(&new, &self.path())?;
            self.disk.sync_dir(&self.dir)?;
            Ok(file)
        };
        made().map_err(|error| named(&new, error))
    }
}

/// An error that says of which file it is.
pub fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Place of the line with this number.
fn slot_of(number: u64) -> usize {
    if number.is_multiple_of(2) { 0 } else { SLOT }
}

fn line(number: u64, kept: Kept) -> String {
    let Kept { place: Position { segment, offset }, dropped, known } = kept;
    let Known { read, synced, last, gap, missing } = known.unwrap_or_default();
    let words = [number, segment, offset, dropped, read, synced, last, gap, missing].map(|word| format!("{word:016x}"));
    checked_line::write(HEAD, words.join(" "))
}

/// What the cursor in `dir` says, with the number of its line, and whether the file has slots.
pub fn read(disk: &dyn Disk, dir: &Path) -> Option<(u64, Option<Kept>, bool)> {
    let file = disk.open(&dir.join(CURSOR)).ok()?;
    let end = file.len().ok()?;
    let line_at = |offset: usize| {
        let mut bytes = vec![0; end.saturating_sub(offset as u64).min(LINE_MAX as u64) as usize];
        file.read_at(&mut bytes, offset as u64).ok()?;
        bytes.truncate(bytes.iter().position(|byte| *byte == b'\n')? + 1);
        Some(bytes)
    };
    let slots = [0, SLOT].map(|offset| line_at(offset).and_then(|line| read_line(&line)));
    let newest = slots
        .into_iter()
        .flatten()
        .filter(|(_, kept)| kept.place.segment < SEGMENT_MAX)
        .max_by_key(|(number, _)| *number);
    let has_slots = end == 2 * SLOT as u64;
    Some(newest.map_or((0, None, has_slots), |(number, kept)| (number, Some(kept), has_slots)))
}

fn read_line(bytes: &[u8]) -> Option<(u64, Kept)> {
    let numbers =
        |words: &str| words.split(' ').map(|word| u64::from_str_radix(word, 16).ok()).collect::<Option<Vec<u64>>>();
    if let Some(words) = checked_line::read(HEAD, bytes) {
        let &[number, segment, offset, dropped, read, synced, last, gap, missing] = &numbers(words)?[..] else {
            return None;
        };
        let known = Some(Known { read, synced, last, gap, missing });
        return Some((number, Kept { place: Position { segment, offset }, dropped, known }));
    }
    let words = checked_line::read(HEAD_2, bytes).or_else(|| checked_line::read(HEAD_1, bytes))?;
    let (place, dropped) = match numbers(words)?[..] {
        [segment, offset] => (Position { segment, offset }, 0),
        [segment, offset, dropped] => (Position { segment, offset }, dropped),
        _ => return None,
    };
    Some((0, Kept { place, dropped, known: None }))
}
