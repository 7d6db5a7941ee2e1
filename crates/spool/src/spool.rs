//! The spool: a row of segments, written at one end and read at the other.

use crate::frame::{Found, Frames, HEAD_BYTES, find};
use crate::segment::{self, Left, Segment, fill};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stdx::{Disk, DiskFile, checked_line};

/// File that says how far the reader has come.
const CURSOR: &str = "cursor";
/// File beside it that becomes it, so that it is never half written.
const CURSOR_NEW: &str = "cursor.new";
/// First words of that file, and of one that says nothing of what was dropped.
const CURSOR_HEAD: &str = "hawkeye spool cursor 2 ";
const CURSOR_HEAD_1: &str = "hawkeye spool cursor 1 ";
/// Segments that the bytes of a spool are spread over: a full one drops that part of what it has.
const SEGMENTS: u64 = 16;
/// The smallest segment; more small files would only be more to open.
const SEGMENT_BYTES_MIN: u64 = 256 << 10;
/// The largest segment, which is what a reader that is not far behind leaves on the disk.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// Bounds of a spool.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of all its files; at least a megabyte.
    pub bytes_max: u64,
}

impl Options {
    fn segment_bytes(&self) -> u64 {
        (self.bytes_max / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }
}

/// A place between two frames. Later places are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    segment: u64,
    offset: u64,
}

/// What a look behind a position has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub records: u32,
    /// Place behind the records.
    pub next: Position,
}

/// Figures of a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that are not consumed.
    pub waiting: u64,
    /// Bytes of all files, what is consumed included.
    pub bytes: u64,
    /// Records that went unread, because there were too many, since the spool was made.
    pub dropped: u64,
    /// Places at which bytes were no records any more, since the start.
    pub damaged: u64,
    /// Bytes behind the last whole record that the start found, and cut off: a write that a crash cut short, or what
    /// was lost with the power behind the last sync.
    pub torn_bytes: u64,
}

/// Records that wait in a directory.
pub struct Spool {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    state: Mutex<State>,
}

struct State {
    /// Segments, oldest first: there is always one, and the last is written to.
    segments: VecDeque<Segment>,
    cursor: Position,
    /// Records before the cursor in its segment.
    consumed: u64,
    /// What is in the file of the cursor.
    kept: Option<Kept>,
    dropped: u64,
    damaged: u64,
    torn_bytes: u64,
}

/// What the file of the cursor says: how far the reader has come, and how many records went unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    cursor: Position,
    dropped: u64,
}

impl Spool {
    /// Opens the spool in `dir`, which is made if need be.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> io::Result<Spool> {
        disk.create_dir(dir)?;
        let numbers = numbers(&*disk, dir)?;
        let kept = read_cursor(&*disk, dir);
        let first = kept.map_or(0, |kept| kept.cursor.segment);
        for number in numbers.iter().copied().filter(|number| *number < first) {
            disk.remove(&segment::path(dir, number))?;
        }
        let mut state = State::read(&*disk, dir, &numbers, kept)?;
        // A last segment with a head of another kind, or none, cannot be written to.
        if let Some(last) = state.segments.back_mut().filter(|last: &&mut Segment| last.length > 0) {
            let file = disk.open_or_create(&segment::path(dir, last.number))?;
            file.set_len(last.length)?;
            last.file = Some(file);
        } else {
            let after = numbers.last().map_or(0, |last| last.saturating_add(1)).max(first);
            state.segments.push_back(Segment::create(&*disk, dir, after)?);
            disk.sync_dir(dir)?;
        }
        state.settle(&*disk, dir)?;
        Ok(Spool { disk, dir: dir.to_path_buf(), options, state: Mutex::new(state) })
    }

    /// Figures of the spool in `dir`, which nobody has open; nothing is changed there.
    pub fn look(disk: &dyn Disk, dir: &Path) -> io::Result<Stats> {
        let mut state = State::read(disk, dir, &numbers(disk, dir)?, read_cursor(disk, dir))?;
        if !state.segments.is_empty() {
            state.settle(disk, dir)?;
        }
        Ok(state.stats())
    }

    /// Writes `frames`. On an error none of them counts.
    pub fn append(&self, frames: &mut Frames) -> io::Result<()> {
        frames.close();
        if frames.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let bytes = frames.bytes.len() as u64;
        let full = state.last().length + bytes > self.options.segment_bytes();
        if full && state.last().records > 0 {
            let next = Segment::create(&*self.disk, &self.dir, state.last().number + 1)?;
            state.segments.back_mut().expect("a spool has a segment").file = None;
            state.segments.push_back(next);
        }
        let last = state.segments.back_mut().expect("a spool has a segment");
        let file = last.file.clone().expect("the last segment is open");
        file.write_at(&frames.bytes, last.length).inspect_err(|_| {
            // What is behind the length counts for nothing, also where this fails.
            let _ = file.set_len(last.length);
        })?;
        last.length += bytes;
        last.records += frames.records;
        while state.bytes() > self.options.bytes_max && state.segments.len() > 1 {
            self.drop_oldest(&mut state)?;
        }
        Ok(())
    }

    fn drop_oldest(&self, state: &mut State) -> io::Result<()> {
        let Some(oldest) = state.segments.front() else { return Ok(()) };
        let consumed = if oldest.number == state.cursor.segment { state.consumed } else { 0 };
        let unread = oldest.records.saturating_sub(consumed);
        self.disk.remove(&segment::path(&self.dir, oldest.number))?;
        state.dropped += unread;
        state.segments.pop_front();
        state.settle(&*self.disk, &self.dir)
    }

    /// Where the reader begins: behind what is consumed.
    pub fn cursor(&self) -> Position {
        self.lock().cursor
    }

    /// Puts the records behind `from` into `payload`, some dozen kilobytes at most; none when there are none. An answer
    /// without records leads over bytes that are damaged.
    pub fn read(&self, from: Position, payload: &mut Vec<u8>) -> io::Result<Option<Read>> {
        let mut buffer = Vec::new();
        payload.clear();
        loop {
            let Some(Behind { file, at, end }) = self.lock().find(from) else { return Ok(None) };
            let file = match file.map_or_else(|| self.disk.open(&segment::path(&self.dir, at.segment)), Ok) {
                Ok(file) => file,
                // Dropped meanwhile.
                Err(_) if !self.lock().has(at.segment) => continue,
                Err(error) => return Err(error),
            };
            fill(&*file, &mut buffer, at.offset, end)?;
            let (mut records, mut offset, mut rest) = (0, at.offset, &buffer[..]);
            while let Found::Frame { records: count, payload: found } = find(rest) {
                if records > 0 && payload.len() + found.len() > crate::frame::FRAME_BYTES {
                    break;
                }
                payload.extend_from_slice(found);
                records += count;
                offset += (HEAD_BYTES + found.len()) as u64;
                rest = &buffer[(offset - at.offset) as usize..];
            }
            if records > 0 {
                return Ok(Some(Read { records, next: Position { segment: at.segment, offset } }));
            }
            // What was whole when it was written is not any more: the rest of the segment is lost.
            self.lock().damaged += 1;
            return Ok(Some(Read { records: 0, next: Position { segment: at.segment, offset: end } }));
        }
    }

    /// Notes that `records` up to `to` have been handled, and removes the segments that hold nothing else.
    pub fn consumed(&self, to: Position, records: u32) -> io::Result<()> {
        let mut state = self.lock();
        if to <= state.cursor {
            // What was read has been dropped meanwhile.
            return Ok(());
        }
        if to.segment == state.cursor.segment {
            state.consumed += u64::from(records);
        } else {
            state.consumed = u64::from(records);
        }
        state.cursor = to;
        while state.segments.len() > 1 && state.segments.front().is_some_and(|first| first.number < to.segment) {
            let gone = state.segments.pop_front().map_or(0, |first| first.number);
            self.disk.remove(&segment::path(&self.dir, gone))?;
        }
        Ok(())
    }

    /// Writes down how far the reader has come, if that has changed.
    pub fn keep_cursor(&self) -> io::Result<()> {
        let now = {
            let state = self.lock();
            let now = Kept { cursor: state.cursor, dropped: state.dropped };
            if state.kept == Some(now) {
                return Ok(());
            }
            now
        };
        let Kept { cursor: Position { segment, offset }, dropped } = now;
        let line = checked_line::write(CURSOR_HEAD, format_args!("{segment:016x} {offset:016x} {dropped:016x}"));
        let new = self.dir.join(CURSOR_NEW);
        let file = self.disk.open_or_create(&new)?;
        file.set_len(0)?;
        file.write_at(line.as_bytes(), 0)?;
        file.sync()?;
        self.disk.rename(&new, &self.dir.join(CURSOR))?;
        self.lock().kept = Some(now);
        Ok(())
    }

    /// Has the disk keep what was appended.
    pub fn sync(&self) -> io::Result<()> {
        let file = self.lock().last().file.clone();
        file.map_or(Ok(()), |file| file.sync())?;
        self.disk.sync_dir(&self.dir)
    }

    /// Figures of now.
    pub fn stats(&self) -> Stats {
        self.lock().stats()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frames of a segment that can be read.
struct Behind {
    /// Open while the segment is written to.
    file: Option<Arc<dyn DiskFile>>,
    at: Position,
    end: u64,
}

/// Place before everything.
const START: Position = Position { segment: 0, offset: 0 };

/// Numbers of the segments in `dir`, ascending.
fn numbers(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = disk.list(dir)?.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl State {
    /// What is in the files from the cursor on; there may be no segment.
    fn read(disk: &dyn Disk, dir: &Path, numbers: &[u64], kept: Option<Kept>) -> io::Result<State> {
        let cursor = kept.map_or(START, |kept| kept.cursor);
        let (mut segments, mut damaged, mut torn_bytes) = (VecDeque::new(), 0, 0);
        for number in numbers.iter().copied().filter(|number| *number >= cursor.segment) {
            let (segment, left) = Segment::open(disk, dir, number)?;
            match left {
                Left::Nothing => {}
                // What stands behind the last frame of the last segment was never answered for, or not synced.
                Left::Bytes(bytes) if Some(&number) == numbers.last() => torn_bytes += bytes,
                Left::Bytes(_) | Left::Foreign => damaged += 1,
            }
            segments.push_back(segment);
        }
        let dropped = kept.map_or(0, |kept| kept.dropped);
        Ok(State { segments, cursor, consumed: 0, kept, dropped, damaged, torn_bytes })
    }

    fn stats(&self) -> Stats {
        let records: u64 = self.segments.iter().map(|segment| segment.records).sum();
        let State { dropped, damaged, torn_bytes, .. } = *self;
        let waiting = records.saturating_sub(self.consumed);
        Stats { waiting, bytes: self.bytes(), dropped, damaged, torn_bytes }
    }

    fn last(&self) -> &Segment {
        self.segments.back().expect("a spool has a segment")
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    fn has(&self, number: u64) -> bool {
        self.segments.iter().any(|segment| segment.number == number)
    }

    /// Moves a cursor whose segment is gone to the first that is there, and counts what is before it otherwise.
    fn settle(&mut self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let first = self.segments.front().expect("a spool has a segment");
        if self.cursor.segment != first.number {
            let offset = (segment::MAGIC.len() as u64).min(first.length);
            self.cursor = Position { segment: first.number, offset };
            self.consumed = 0;
            return Ok(());
        }
        if self.cursor.offset >= first.length {
            // What the segment lost with the power had been consumed.
            self.cursor.offset = first.length;
            self.consumed = first.records;
            return Ok(());
        }
        let file = disk.open(&segment::path(dir, first.number))?;
        let (mut buffer, mut at, mut consumed) = (Vec::new(), segment::MAGIC.len() as u64, 0);
        while at < self.cursor.offset {
            fill(&*file, &mut buffer, at, first.length)?;
            let Found::Frame { records, payload } = find(&buffer) else { break };
            let next = at + (HEAD_BYTES + payload.len()) as u64;
            if next > self.cursor.offset {
                break;
            }
            at = next;
            consumed += u64::from(records);
        }
        // A place within a frame is none of ours: the frame is read again rather than lost.
        self.cursor.offset = at;
        self.consumed = consumed;
        Ok(())
    }

    /// The frames behind `from`.
    fn find(&self, from: Position) -> Option<Behind> {
        let begin = |segment: &Segment| (segment::MAGIC.len() as u64).min(segment.length);
        self.segments.iter().filter(|segment| segment.number >= from.segment).find_map(|segment| {
            let offset = if segment.number == from.segment { from.offset.max(begin(segment)) } else { begin(segment) };
            let at = Position { segment: segment.number, offset };
            (offset < segment.length).then(|| Behind { file: segment.file.clone(), at, end: segment.length })
        })
    }
}

fn read_cursor(disk: &dyn Disk, dir: &Path) -> Option<Kept> {
    let file = disk.open(&dir.join(CURSOR)).ok()?;
    let mut bytes = vec![0; file.len().ok()?.min(256) as usize];
    file.read_at(&mut bytes, 0).ok()?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let words = checked_line::read(CURSOR_HEAD, &bytes).or_else(|| checked_line::read(CURSOR_HEAD_1, &bytes))?;
    let mut words = words.split(' ');
    let cursor = Position { segment: number(words.next()?)?, offset: number(words.next()?)? };
    let dropped = words.next().map_or(Some(0), number)?;
    words.next().is_none().then_some(Kept { cursor, dropped })
}
