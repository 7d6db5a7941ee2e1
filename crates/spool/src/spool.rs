//! The spool: a row of segments, written at one end and read at the other.

use crate::cursor::{self, Cursor, Kept, Known, named};
use crate::frame::{Found, Frames, HEAD_BYTES, find};
use crate::segment::{self, Left, Segment, fill};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stdx::{Disk, DiskFile};

/// Segments that the bytes of a spool are spread over: a full one drops that part of what it has.
const SEGMENTS: u64 = 16;
/// The smallest segment; more small files would only be more to open.
const SEGMENT_BYTES_MIN: u64 = 256 << 10;
/// The largest segment.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// Bytes of the last segment from which on it goes when all of it is read: what is less does not pay for a new file.
const FREED_BYTES: u64 = 64 << 10;
/// Texts of losses that are kept until somebody takes them.
const FOUND_MAX: usize = 100;

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
    pub(crate) segment: u64,
    pub(crate) offset: u64,
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
    /// Records that were gone, or damaged, before they were read, since the spool was made.
    pub missing: u64,
    /// Bytes behind the last whole record that the start found, and cut off: a write that a crash cut short, or what
    /// was lost with the power behind the last sync.
    pub torn_bytes: u64,
}

/// Records that wait in a directory.
pub struct Spool {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    cursor: Cursor,
    state: Mutex<State>,
}

struct State {
    /// Segments, oldest first: there is always one, and the last is written to.
    segments: VecDeque<Segment>,
    /// Place in the first segment.
    cursor: Position,
    /// Records before the cursor in its segment.
    consumed: u64,
    /// Records before the cursor, and before the end, from the first that the spool ever had; those that are missing
    /// count.
    read: u64,
    total: u64,
    /// Records before the end that was synced.
    synced: u64,
    dropped: u64,
    missing: u64,
    damaged: u64,
    /// Place at which the reader has met damage.
    damaged_at: Option<Position>,
    torn_bytes: u64,
    /// Losses that nobody has taken yet.
    found: Vec<String>,
}

impl Spool {
    /// Opens the spool in `dir`, which is made if need be. What is missing of it is told by [`Spool::take_found`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> io::Result<Spool> {
        disk.create_dir(dir).map_err(|error| named(dir, error))?;
        let numbers = numbers(&*disk, dir)?;
        let cursor = Cursor::open(disk.clone(), dir);
        let kept = cursor.kept();
        let first = kept.map_or(0, |kept| kept.place.segment);
        for number in numbers.iter().copied().filter(|number| *number < first) {
            remove(&*disk, dir, number)?;
        }
        let (mut state, lefts) = State::read(&*disk, dir, &numbers, kept)?;
        if kept.is_none() && !state.segments.is_empty() {
            let file = cursor.path();
            state.tell(format!("{} is gone or damaged, so points are sent again", file.display()));
        }
        state.begin_writing(&*disk, dir, kept, lefts.last())?;
        let spool = Spool { disk, dir: dir.to_path_buf(), options, cursor, state: Mutex::new(state) };
        // A full disk may have no room for it, and is no reason not to begin: it is tried again each time.
        let _ = spool.cursor.note(spool.lock().kept());
        Ok(spool)
    }

    /// Figures of the spool in `dir`, which nobody has open; nothing is changed there.
    pub fn look(disk: &dyn Disk, dir: &Path) -> io::Result<Stats> {
        let kept = cursor::read(disk, dir).and_then(|(_, kept, _)| kept);
        Ok(State::read(disk, dir, &numbers(disk, dir)?, kept)?.0.stats())
    }

    /// Writes `frames`. On an error none of them counts.
    pub fn append(&self, frames: &mut Frames) -> io::Result<()> {
        frames.close();
        if frames.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let bytes = frames.bytes.len() as u64;
        if state.last().records > 0 && state.last().length + bytes > self.options.segment_bytes() {
            state.begin_next();
        }
        if let Err(error) = self.write(&mut state, frames) {
            // What is read already may be what fills the disk.
            if state.last().records == 0 || !state.is_read() {
                return Err(error);
            }
            let gone = state.let_go();
            // Where the cursor cannot be written, this room may be what it lacks.
            let _ = self.cursor.note(state.kept());
            self.remove_all(&gone)?;
            self.write(&mut state, frames)?;
        }
        while state.bytes() > self.options.bytes_max && state.segments.len() > 1 {
            self.drop_oldest(&mut state)?;
        }
        Ok(())
    }

    fn write(&self, state: &mut State, frames: &Frames) -> io::Result<()> {
        let last = state.segments.back_mut().expect("a spool has a segment");
        let path = segment::path(&self.dir, last.number);
        if last.file.is_none() {
            last.create(&*self.disk, &self.dir).map_err(|error| named(&path, error))?;
        }
        let file = last.file.clone().expect("the last segment is open");
        let written = file.write_at(&frames.bytes, last.length).inspect_err(|_| {
            // What is behind the length counts for nothing, also where this fails.
            let _ = file.set_len(last.length);
        });
        written.map_err(|error| named(&path, error))?;
        last.length += frames.bytes.len() as u64;
        last.records += frames.records;
        state.total = state.total.saturating_add(frames.records);
        Ok(())
    }

    fn drop_oldest(&self, state: &mut State) -> io::Result<()> {
        let Some(oldest) = state.segments.pop_front() else { return Ok(()) };
        let consumed = if oldest.number == state.cursor.segment { state.consumed } else { 0 };
        state.dropped += oldest.records.saturating_sub(consumed);
        state.settle(&*self.disk, &self.dir)?;
        // Before the file goes, or a start would miss it.
        let _ = self.cursor.note(state.kept());
        remove(&*self.disk, &self.dir, oldest.number)
    }

    fn remove_all(&self, numbers: &[u64]) -> io::Result<()> {
        numbers.iter().try_for_each(|number| remove(&*self.disk, &self.dir, *number))
    }

    /// Where the reader begins: behind what is consumed.
    pub fn cursor(&self) -> Position {
        self.lock().cursor
    }

    /// Place behind all records: what is appended next begins here, or in the segment behind.
    pub fn end(&self) -> Position {
        let state = self.lock();
        let last = state.last();
        Position { segment: last.number, offset: last.length }
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
            let end = self.lock().meet_damage(at).unwrap_or(end);
            return Ok(Some(Read { records: 0, next: Position { segment: at.segment, offset: end } }));
        }
    }

    /// Notes that `records` up to `to` have been handled, and removes the segments that hold nothing else.
    pub fn consumed(&self, to: Position, records: u32) -> io::Result<()> {
        let (gone, kept) = {
            let mut state = self.lock();
            if to <= state.cursor {
                // What was read has been dropped meanwhile.
                return Ok(());
            }
            (state.consume(to, records, &self.dir), state.kept())
        };
        if !gone.is_empty() {
            // Before the files go, or a start would miss them. An error comes again from the next note.
            let _ = self.cursor.note(kept);
        }
        self.remove_all(&gone)
    }

    /// Writes down how far the reader has come, if that has changed. A last segment goes when all of it is read.
    pub fn keep_cursor(&self) -> io::Result<()> {
        let (gone, kept) = {
            let mut state = self.lock();
            let goes = state.is_read() && state.last().length >= FREED_BYTES;
            (if goes { state.let_go() } else { Vec::new() }, state.kept())
        };
        let noted = self.cursor.note(kept);
        self.remove_all(&gone)?;
        noted
    }

    /// Has the disk keep what was appended.
    pub fn sync(&self) -> io::Result<()> {
        let (files, total) = {
            let state = self.lock();
            let files = state.segments.iter().filter_map(|segment| Some((segment.number, segment.file.clone()?)));
            (files.collect::<Vec<_>>(), state.total)
        };
        for (number, file) in &files {
            file.sync().map_err(|error| named(&segment::path(&self.dir, *number), error))?;
        }
        self.disk.sync_dir(&self.dir).map_err(|error| named(&self.dir, error))?;
        let mut state = self.lock();
        state.synced = state.synced.max(total);
        let last = state.last().number;
        for segment in state.segments.iter_mut().filter(|segment| segment.number != last) {
            if files.iter().any(|(number, _)| *number == segment.number) {
                segment.file = None;
            }
        }
        Ok(())
    }

    /// Losses that were found and not taken yet, each with its file, for people.
    pub fn take_found(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().found)
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
    let names = disk.list(dir).map_err(|error| named(dir, error))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes the file of a segment; one that is gone, or was never made, is none.
fn remove(disk: &dyn Disk, dir: &Path, number: u64) -> io::Result<()> {
    let path = segment::path(dir, number);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(&path, error)),
        _ => Ok(()),
    }
}

impl State {
    /// What is in the files from the cursor on, and what stands behind the frames of each; there may be no segment.
    fn read(disk: &dyn Disk, dir: &Path, numbers: &[u64], kept: Option<Kept>) -> io::Result<(State, Vec<Left>)> {
        let cursor = kept.map_or(START, |kept| kept.place);
        let (mut segments, mut lefts, mut damaged, mut torn_bytes) = (VecDeque::new(), Vec::new(), 0, 0);
        for number in numbers.iter().copied().filter(|number| *number >= cursor.segment) {
            let opened = Segment::open(disk, dir, number);
            let (segment, left) = opened.map_err(|error| named(&segment::path(dir, number), error))?;
            match left {
                Left::Nothing => {}
                // What stands behind the last frame of the last segment was never answered for, or not synced.
                Left::Bytes(bytes) if Some(&number) == numbers.last() => torn_bytes += bytes,
                Left::Bytes(_) | Left::Foreign => damaged += 1,
            }
            segments.push_back(segment);
            lefts.push(left);
        }
        let known = kept.and_then(|kept| kept.known);
        let mut state = State {
            segments,
            cursor,
            consumed: 0,
            read: known.map_or(0, |known| known.read),
            total: 0,
            synced: known.map_or(0, |known| known.synced),
            dropped: kept.map_or(0, |kept| kept.dropped),
            missing: known.map_or(0, |known| known.missing),
            damaged,
            damaged_at: None,
            torn_bytes,
            found: Vec::new(),
        };
        if !state.segments.is_empty() {
            state.settle(disk, dir)?;
        }
        state.compare(dir, kept, &lefts);
        Ok((state, lefts))
    }

    /// Finds what is missing between what the cursor and the heads of segments say and what is there.
    fn compare(&mut self, dir: &Path, kept: Option<Kept>, lefts: &[Left]) {
        let known = kept.and_then(|kept| kept.known);
        let place = kept.map_or(START, |kept| kept.place);
        let path = |number: u64| segment::path(dir, number).display().to_string();
        // The next record and the next file, as far as anything says.
        let (mut next, mut next_number) = (known.map(|known| known.read), known.map(|_| place.segment));
        // What was not synced may be lost with the power.
        let synced = known.map_or(u64::MAX, |known| known.synced);
        let (mut texts, mut lacks, mut is_uncounted) = (Vec::new(), 0_u64, false);
        let mut before = None::<(u64, Left)>;
        for (i, (segment, left)) in self.segments.iter_mut().zip(lefts).enumerate() {
            let consumed = if i == 0 && segment.number == place.segment { self.consumed } else { 0 };
            segment.start = segment.before.unwrap_or_else(|| next.unwrap_or(0).saturating_sub(consumed));
            let gap = next.map_or(0, |next| segment.start.saturating_add(consumed).min(synced).saturating_sub(next));
            lacks = lacks.saturating_add(gap);
            let is_damaged = before.is_some_and(|(_, left)| left != Left::Nothing);
            // A head of the first kind, or a damaged one.
            let is_unnumbered = segment.before.is_none() && segment.begin > 0;
            let points = if gap > 0 { format!("{gap} points") } else { "points".to_string() };
            match next_number {
                Some(first) if first < segment.number => {
                    let more = segment.number - first - 1;
                    let rest = if more > 0 { format!(" and {more} files behind it") } else { String::new() };
                    texts.push(format!("{}{rest} missing, with {points}", path(first)));
                    is_uncounted |= is_unnumbered;
                }
                _ if (gap > 0 && !is_uncounted) || (is_damaged && is_unnumbered) => {
                    let file = path(before.map_or(segment.number, |(number, _)| number));
                    let how = if is_damaged { "is damaged" } else { "was cut" };
                    texts.push(format!("{file} {how}, and lacks {points}"));
                    is_uncounted |= is_unnumbered;
                }
                _ => {}
            }
            let end = segment.start.saturating_add(segment.records);
            next = Some(next.unwrap_or(0).max(end));
            next_number = Some(segment.number.saturating_add(1));
            before = Some((segment.number, *left));
        }
        let end = next.unwrap_or(0);
        self.total = end.max(known.map_or(0, |known| known.synced));
        if let Some(known) = known.filter(|known| known.synced > end) {
            let at_end = known.synced - end;
            lacks = lacks.saturating_add(at_end);
            let how = match before {
                Some((number, Left::Nothing)) if number >= known.last => "was cut, and lacks",
                Some((number, _)) if number >= known.last => "is damaged, and lacks",
                _ => "is missing, with",
            };
            texts.push(format!("{} {how} {at_end} points", path(known.last)));
        }
        let fresh = lacks.saturating_sub(known.map_or(0, |known| known.gap));
        self.missing = self.missing.saturating_add(fresh);
        if fresh > 0 || is_uncounted {
            texts.into_iter().for_each(|text| self.tell(text));
        }
        self.read = self.read.max(self.reached());
    }

    /// Has a segment to write to: the last, if it is whole and of our kind, or a new one.
    fn begin_writing(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        kept: Option<Kept>,
        left: Option<&Left>,
    ) -> io::Result<()> {
        let (place, total) = (kept.map_or(START, |kept| kept.place), self.total);
        if let Some(last) = self.segments.back_mut() {
            let path = segment::path(dir, last.number);
            let end = last.start.saturating_add(last.records);
            let is_written_on = last.is_of_now() && end == total && total >= self.read;
            // What is behind the frames would be damage when the segment is not the last any more.
            if is_written_on || matches!(left, Some(Left::Bytes(_))) {
                let file = disk.open_or_create(&path).and_then(|file| file.set_len(last.length).map(|()| file));
                let file = file.map_err(|error| named(&path, error))?;
                if is_written_on {
                    last.file = Some(file);
                    return Ok(());
                }
            }
            self.begin_next();
            return Ok(());
        }
        // Its file may have been there, and a place within it must not lie in the new one.
        let number = if place.offset > 0 { place.segment.saturating_add(1) } else { place.segment };
        self.segments.push_back(Segment::planned(number, self.total));
        self.settle(disk, dir)
    }

    /// Plans a segment behind the last.
    fn begin_next(&mut self) {
        let next = Segment::planned(self.last().number.saturating_add(1), self.total);
        self.segments.push_back(next);
    }

    /// Whether nothing waits.
    fn is_read(&self) -> bool {
        self.stats().waiting == 0
    }

    /// Leaves all segments, which are read, for a new one; answers which are to be removed.
    fn let_go(&mut self) -> Vec<u64> {
        self.begin_next();
        let gone = self.leave(self.last().number);
        (self.cursor, self.consumed) = (Position { segment: self.last().number, offset: 0 }, 0);
        self.read = self.read.max(self.total);
        gone
    }

    /// Forgets the segments before `number`, but for the last; answers which those are.
    fn leave(&mut self, number: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        while self.segments.len() > 1 && self.segments.front().is_some_and(|first| first.number < number) {
            gone.extend(self.segments.pop_front().map(|first| first.number));
        }
        gone
    }

    /// Moves the cursor; answers the segments that are to be removed.
    fn consume(&mut self, to: Position, records: u32, dir: &Path) -> Vec<u64> {
        self.consumed = if to.segment == self.cursor.segment { self.consumed } else { 0 } + u64::from(records);
        self.cursor = to;
        let gone = self.leave(to.segment);
        let mut reached = self.reached();
        let consumed = self.consumed;
        if let Some(first) = self.segments.front_mut().filter(|first| records == 0 && first.length == to.offset) {
            let lost = first.records.saturating_sub(consumed);
            first.records = consumed;
            reached = reached.saturating_add(lost);
            self.missing = self.missing.saturating_add(lost);
            let file = segment::path(dir, to.segment);
            self.tell(format!("{} is damaged, and lacks {lost} points", file.display()));
        }
        self.read = self.read.max(reached);
        gone
    }

    /// Notes that the bytes at `at` are no frame any more, and has nothing more written behind them; answers where
    /// their segment ends.
    fn meet_damage(&mut self, at: Position) -> Option<u64> {
        if self.damaged_at != Some(at) {
            self.damaged_at = Some(at);
            self.damaged += 1;
        }
        if self.last().number == at.segment {
            self.begin_next();
        }
        self.segments.iter().find(|segment| segment.number == at.segment).map(|segment| segment.length)
    }

    /// Records before the cursor by the number of its segment.
    fn reached(&self) -> u64 {
        self.segments.front().map_or(0, |first| first.start.saturating_add(self.consumed))
    }

    /// What the cursor's file is to say.
    fn kept(&self) -> Kept {
        let gap = self.total.saturating_sub(self.read).saturating_sub(self.stats().waiting);
        let State { read, synced, missing, dropped, .. } = *self;
        let known = Known { read, synced, last: self.last().number, gap, missing };
        Kept { place: self.cursor, dropped, known: Some(known) }
    }

    fn tell(&mut self, loss: String) {
        if self.found.len() < FOUND_MAX {
            self.found.push(loss);
        }
    }

    fn stats(&self) -> Stats {
        let records: u64 = self.segments.iter().map(|segment| segment.records).sum();
        let State { dropped, damaged, missing, torn_bytes, .. } = *self;
        let waiting = records.saturating_sub(self.consumed);
        Stats { waiting, bytes: self.bytes(), dropped, damaged, missing, torn_bytes }
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
            self.cursor = Position { segment: first.number, offset: first.begin };
            self.consumed = 0;
            self.read = self.read.max(first.start);
            return Ok(());
        }
        if self.cursor.offset >= first.length {
            // What the segment lost with the power had been consumed.
            self.cursor.offset = first.length;
            self.consumed = first.records;
            return Ok(());
        }
        let file = disk.open(&segment::path(dir, first.number))?;
        let (mut buffer, mut at, mut consumed) = (Vec::new(), first.begin, 0);
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
        self.segments.iter().filter(|segment| segment.number >= from.segment).find_map(|segment| {
            let is_within = segment.number == from.segment;
            let offset = if is_within { from.offset.max(segment.begin) } else { segment.begin };
            let at = Position { segment: segment.number, offset };
            (offset < segment.length).then(|| Behind { file: segment.file.clone(), at, end: segment.length })
        })
    }
}
