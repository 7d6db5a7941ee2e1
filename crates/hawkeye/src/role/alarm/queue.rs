//! The durable event queue between judge and alarm: append-only files in `<data_dir>/events/`.
//!
//! Why: in the original an event is popped from Redis before anything is done with it, and a restarted judge has
//! forgotten which alarms are open, so it repeats them and never sends their recovery. Here the RPC whose point made an
//! event is answered after the event is in this queue, and the queue also knows the alarms that are open. That an alarm is
//! closed because its rule or series went is told through the queue too: beside it, it could overtake the PROBLEM that it
//! ends. The queue knows that PROBLEM, and makes the event of the closing from it: nobody else has kept it.
//! How: segments named by the sequence number of their first event. A segment begins with a snapshot of the open
//! problems (the last event of each alarm that stands at PROBLEM), so any older segment can be deleted as soon as alarm has
//! taken all of it. The judge appends with one `write(2)` per batch, under one lock; alarm reads behind it with a
//! [`Consumer`] and keeps its cursor (a sequence number) in its own database, in the transaction that handles the record.
//!
//! docs/format/events.md draws the bytes:
//!
//! ```text
//! segment  b"hkevent" 1 | record* ; snapshot records first, then SNAPSHOT_END, then events
//! record   len u32 | crc32 u32 of the body | body: kind u8, seq u64, payload ; integers little-endian, len counts the body
//! payload  EVENT, OPEN: the event's JSON in the original's form, and its explanation; SNAPSHOT_END: count u32 of OPEN records before it;
//!          FORGET: the id of an alarm that is closed
//! ```
//!
//! Invariants: sequence numbers only grow, also over restarts that lost unsynced records (they start above the clock in
//! seconds × 2^20); a record that cannot be written whole is cut off again, and the append fails; an event that no record
//! can hold is left out, and the append goes on; a torn tail is cut when opening, a damaged record is reported and
//! skipped, and what follows it is still read. Never parses a rule.
//! Memory: an open problem costs one entry of [`Place`] (about 60 bytes), not its text; the write buffer shrinks to
//! [`BUFFER_KEEP`]; a consumer holds at most [`RECORD_MAX`] bytes. On disk: [`Options::bytes_max`], past which an append
//! fails.

use crate::config::Fsync;
use anyhow::{Context, Result, bail};
use model::{Event, Explanation, Status};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};
use stdx::Ledger;
use tokio::sync::Notify;

const MAGIC: &[u8; 8] = b"hkevent\x01";
/// len and crc.
const HEAD: usize = 8;
/// kind and seq.
const BODY_MIN: usize = 9;
/// The longest record. Series texts are at most 510 bytes and notes 1,024; JSON escapes can make six bytes of one.
const RECORD_MAX: usize = 256 << 10;
/// A batch larger than this is rare; its buffer is given back.
const BUFFER_KEEP: usize = 64 << 10;

const EVENT: u8 = 1;
const OPEN: u8 = 2;
const SNAPSHOT_END: u8 = 3;
const FORGET: u8 = 4;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `Always`: an append is on the disk when it returns. `Second`: the engine calls [`EventQueue::sync`] each second.
    pub fsync: Fsync,
    /// A segment that holds more events than this (bytes, and more than its snapshot) is followed by a new one.
    pub segment_bytes: u64,
    /// The most bytes of all segments. Reached only when alarm cannot write to its database for long: a GiB is about
    /// 1.7 million events.
    pub bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { fsync: Fsync::Second, segment_bytes: 4 << 20, bytes_max: 1 << 30 }
    }
}

/// What opening the queue found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The last event of each alarm that stands at PROBLEM, oldest first: what the judge restores.
    pub open_problems: Vec<Event>,
    /// Bytes of an unfinished last write that were cut off.
    pub torn_bytes_cut: u64,
    /// Damaged places in the middle of a segment; what follows them was read.
    pub damaged: Vec<Damage>,
    /// Events that are whole but not understood (written by another version); they stay in the file.
    pub unreadable: u64,
}

impl Recovered {
    fn tell(&self, dir: &Path) {
        if self.torn_bytes_cut > 0 {
            tracing::warn!(dir = %dir.display(), bytes = self.torn_bytes_cut, "cut off an unfinished write of events");
        }
        for damage in &self.damaged {
            tracing::error!(file = %damage.file.display(), bytes = ?damage.bytes, "events are damaged; the rest was read");
        }
        if self.unreadable > 0 {
            tracing::error!(count = self.unreadable, "events are not understood: written by another version?");
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Damage {
    pub file: PathBuf,
    pub bytes: Range<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    pub bytes: u64,
    pub segments: usize,
    pub open_problems: usize,
    /// Events appended in the life of this process.
    pub appended: u64,
}

pub struct EventQueue {
    dir: PathBuf,
    options: Options,
    state: Mutex<State>,
    appended: Notify,
}

/// What the judge tells alarm, with its place in the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Queued {
    pub seq: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Event(Event),
    /// The id of an alarm that was open when its rule or its series went: no recovery will come.
    Closed(String),
    /// The same, to be told as an event. It is never read: what it became is.
    Over(Closing),
}

/// An alarm that ends although nothing recovered.
#[derive(Clone, Debug, PartialEq)]
pub struct Closing {
    /// Of the alarm.
    pub id: String,
    /// For people: `the host is in maintenance`.
    pub reason: String,
    pub time: i64,
}

/// A [`What`] that is borrowed from whoever appends it.
#[derive(Clone, Copy)]
enum Entry<'a> {
    Event(&'a Event),
    Closed(&'a str),
    Over(&'a Closing),
}

struct State {
    /// Oldest first; the last one is appended to.
    segments: VecDeque<Segment>,
    file: Arc<File>,
    next_seq: u64,
    appended: u64,
    open: HashMap<AlarmKey, Place>,
    /// Reused for each append.
    buffer: Vec<u8>,
    /// Bytes past `end` may be left of a write that failed and could not be cut off.
    tail_dirty: bool,
    /// Written since the last sync.
    unsynced: bool,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    first_seq: u64,
    /// Where the snapshot ends and events begin.
    events_at: u64,
    end: u64,
}

/// Where the last PROBLEM of an open alarm lies in the last segment: the whole record.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u32,
    len: u32,
}

/// An event id (`s_12_<md5>`) in 25 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct AlarmKey {
    md5: u128,
    rule: i64,
    of_strategy: bool,
}

const _: () = assert!(size_of::<(AlarmKey, Place)>() <= 64);

impl EventQueue {
    /// Opens the queue in `dir`, creating it.
    pub fn open(dir: &Path, fsync: Fsync) -> Result<(EventQueue, Recovered)> {
        EventQueue::open_with(dir, Options { fsync, ..Options::default() })
    }

    pub fn open_with(dir: &Path, options: Options) -> Result<(EventQueue, Recovered)> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut recovery = Recovery::default();
        let mut segments = VecDeque::new();
        for (path, first_seq) in list_segments(dir)? {
            recovery.end_of_last_as_damage();
            segments.push_back(recovery.read_segment(&path, first_seq)?);
        }
        let next_seq = recovery.next_seq.max(seq_of_clock());
        let mut found = std::mem::take(&mut recovery.found);
        let (segment, file, open) = match segments.back().copied() {
            Some(last) if recovery.snapshot_whole => {
                let file = open_segment(dir, last.first_seq)?;
                found.torn_bytes_cut = cut_tail(&file, last.end).with_context(|| {
                    format!("cannot cut the torn end of {}", segment_path(dir, last.first_seq).display())
                })?;
                segments.pop_back();
                (last, file, recovery.open.iter().map(|(key, found)| (*key, found.place)).collect())
            }
            // None yet, or the last one's snapshot is damaged: start a new one from what was found.
            _ => {
                recovery.end_of_last_as_damage();
                found.damaged.append(&mut recovery.found.damaged);
                let records = in_order(&recovery.open);
                let mut records = records.into_iter().map(|(key, found)| Ok((key, found.record.clone())));
                create_segment(dir, next_seq, options.fsync, &mut records)
                    .with_context(|| format!("cannot start a new event segment in {}", dir.display()))?
            }
        };
        segments.push_back(segment);
        found.open_problems = in_order(&recovery.open).into_iter().map(|(_, found)| found.event.clone()).collect();
        let state = State {
            segments,
            file: Arc::new(file),
            next_seq,
            appended: 0,
            open,
            buffer: Vec::new(),
            tail_dirty: false,
            // Whoever wrote it may have been killed before it was synced.
            unsynced: true,
        };
        let queue = EventQueue { dir: dir.to_path_buf(), options, state: Mutex::new(state), appended: Notify::new() };
        found.tell(dir);
        Ok((queue, found))
    }

    /// Appends a batch with one write and wakes the consumer. All of the events are in the file, or none is and the
    /// error says why; the caller then must not answer the RPC as done. Only events that are longer than a record can be
    /// are left out: they are logged, and their number is the answer.
    pub fn append(&self, events: &[Event]) -> io::Result<u64> {
        self.write(&events.iter().map(Entry::Event).collect::<Vec<_>>())
    }

    /// A batch of events and closings, in which order matters. A closed alarm is dropped from the open problems, so that no
    /// restart brings it back, and the consumer is told behind all of its events: with an event of its own, made of the
    /// PROBLEM that it ends ([`What::Over`]), or silently. Alarms that are not open are fine: alarm may still have an open
    /// case of them.
    pub fn append_mixed(&self, batch: &[What]) -> io::Result<u64> {
        self.write(&batch.iter().map(What::as_entry).collect::<Vec<_>>())
    }

    /// A reader of all events above `cursor`, the highest sequence number that was handled. There is one at a time.
    pub fn consumer(self: &Arc<Self>, cursor: u64) -> Consumer {
        // Were this queue's directory replaced while the clock was behind, new events would hide below the cursor.
        let mut state = self.lock();
        state.next_seq = state.next_seq.max(cursor + 1);
        drop(state);
        Consumer { queue: self.clone(), cursor, reading: None, buffer: Vec::new(), damaged: Vec::new(), unreadable: 0 }
    }

    /// Returns when something was appended since the last call.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// Deletes the segments that hold nothing above `cursor` and are not the last.
    pub fn consumed(&self, cursor: u64) -> io::Result<()> {
        loop {
            let state = self.lock();
            let gone = match (state.segments.front(), state.segments.get(1)) {
                (Some(oldest), Some(next)) if next.first_seq <= cursor + 1 => *oldest,
                _ => return Ok(()),
            };
            drop(state);
            // The open problems of the old segment live on in the snapshots behind it, once those are on the disk.
            self.sync()?;
            match std::fs::remove_file(segment_path(&self.dir, gone.first_seq)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => self.lock().segments.retain(|segment| segment.first_seq != gone.first_seq),
            }
        }
    }

    /// Forces what was appended to the disk. Appends go on meanwhile.
    pub fn sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        if !std::mem::take(&mut state.unsynced) {
            return Ok(());
        }
        let file = state.file.clone();
        drop(state);
        let result = file.sync_data();
        if result.is_err() {
            self.lock().unsynced = true;
        }
        result
    }

    pub fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            bytes: state.segments.iter().map(|segment| segment.end).sum(),
            segments: state.segments.len(),
            open_problems: state.open.len(),
            appended: state.appended,
        }
    }

    /// Names what the queue holds in the ledger; the buffers of consumers are theirs.
    pub fn register_memory(self: &Arc<Self>, ledger: &Ledger) {
        let queue = self.clone();
        ledger.source(move |report| {
            let state = queue.lock();
            let open = state.open.capacity() * (size_of::<(AlarmKey, Place)>() + 1);
            let bytes = open + state.buffer.capacity() + state.segments.capacity() * size_of::<Segment>();
            report.line("alarm queue", bytes as u64, None, Some(state.open.len() as u64));
        });
    }

    pub fn bytes_max(&self) -> u64 {
        self.options.bytes_max
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the queue")
    }

    fn write(&self, entries: &[Entry<'_>]) -> io::Result<u64> {
        let keys = entries.iter().map(Entry::key).collect::<io::Result<Vec<_>>>()?;
        if keys.is_empty() {
            return Ok(0);
        }
        let mut state = self.lock();
        self.make_room(&mut state)?;
        let made = self.make_closings(&state, entries, &keys);
        let State { buffer, next_seq, .. } = &mut *state;
        buffer.clear();
        let mut seq = *next_seq;
        let mut written = Vec::with_capacity(entries.len());
        let mut json = String::with_capacity(512);
        for ((entry, key), made) in entries.iter().zip(&keys).zip(&made) {
            let made = made.as_ref().map(|event| push_entry(buffer, seq, &Entry::Event(event), &mut json));
            let is_event = matches!(entry, Entry::Event(_)) || matches!(made, Some(Ok(_)));
            // An event that no record can hold is closed silently.
            match made.and_then(Result::ok).map_or_else(|| push_entry(buffer, seq, entry, &mut json), Ok) {
                Ok(place) => {
                    written.push((entry, *key, place, is_event));
                    seq += 1;
                }
                Err(error) => tracing::error!(%error, ?key, "an event is lost"),
            }
        }
        let left_out = (entries.len() - written.len()) as u64;
        if written.is_empty() {
            return Ok(left_out);
        }
        let base = self.write_buffer(&mut state)?;
        state.next_seq = seq;
        for (entry, key, place, is_event) in written {
            state.appended += u64::from(is_event);
            match entry {
                Entry::Event(event) if event.status == Status::Problem => {
                    state.open.insert(key, Place { at: base + place.at, ..place })
                }
                Entry::Event(_) | Entry::Closed(_) | Entry::Over(_) => state.open.remove(&key),
            };
        }
        drop(state);
        self.appended.notify_one();
        Ok(left_out)
    }

    /// For each entry that closes an open alarm with a reason, its event.
    fn make_closings(&self, state: &State, entries: &[Entry<'_>], keys: &[AlarmKey]) -> Vec<Option<Event>> {
        let make = |(at, entry): (usize, &Entry<'_>)| {
            let Entry::Over(closing) = entry else { return None };
            // What this batch says of the alarm before is not in the file yet.
            let before = entries[..at].iter().zip(&keys[..at]).rev().find(|(_, key)| **key == keys[at]);
            let problem = match before {
                Some((Entry::Event(event), _)) if event.status == Status::Problem => Event::clone(event),
                Some(_) => return None,
                None => self.read_problem(state, *state.open.get(&keys[at])?, closing)?,
            };
            Some(closing_event(problem, closing))
        };
        entries.iter().enumerate().map(make).collect()
    }

    /// The PROBLEM at a place. One that cannot be read (the disk fails) is closed without an event.
    fn read_problem(&self, state: &State, place: Place, closing: &Closing) -> Option<Event> {
        let mut record = vec![0; place.len as usize];
        let read = state.file.read_exact_at(&mut record, u64::from(place.at)).map_err(|error| error.to_string());
        let parsed = read.and_then(|()| match parse_record(&record, 0).map(|(record, _)| record.what()) {
            Some(Ok(What::Event(event))) => Ok(event),
            _ => Err("its record is damaged".to_string()),
        });
        parsed.inspect_err(|error| tracing::error!(id = closing.id, error, "cannot read the alarm that is closed")).ok()
    }

    /// Starts a new segment when the last one is full; refuses when the queue as a whole is.
    fn make_room(&self, state: &mut State) -> io::Result<()> {
        let held: u64 = state.segments.iter().map(|segment| segment.end).sum();
        if held >= self.options.bytes_max {
            return Err(io::Error::new(
                ErrorKind::StorageFull,
                format!(
                    "the event queue {} holds {held} bytes that alarm has not taken: see why alarm cannot write its database",
                    self.dir.display()
                ),
            ));
        }
        let last = state.last();
        // At least as many event bytes as snapshot bytes, so that copying snapshots costs at most one more write of each.
        if last.end - last.events_at < self.options.segment_bytes.max(last.events_at) {
            return Ok(());
        }
        match self.rotate(state) {
            Ok(()) => Ok(()),
            // The next append tries again; until then the full one grows. Places are u32, so not for ever.
            Err(error) if last.end < u64::from(u32::MAX) / 2 => {
                tracing::warn!(%error, dir = %self.dir.display(), "cannot start a new event segment, going on in the last");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn rotate(&self, state: &mut State) -> io::Result<()> {
        // From here on `sync` knows the new segment only.
        if self.options.fsync != Fsync::Never {
            state.file.sync_data()?;
        }
        let mut open: Vec<_> = state.open.iter().map(|(key, place)| (*key, *place)).collect();
        open.sort_by_key(|(_, place)| place.at);
        let file = state.file.clone();
        let mut records = open.into_iter().map(|(key, place)| {
            let mut record = vec![0; place.len as usize];
            file.read_exact_at(&mut record, u64::from(place.at))?;
            Ok((key, record))
        });
        let (segment, file, open) = create_segment(&self.dir, state.next_seq, self.options.fsync, &mut records)?;
        state.segments.push_back(segment);
        state.file = Arc::new(file);
        state.open = open;
        state.unsynced = self.options.fsync == Fsync::Never;
        Ok(())
    }

    /// Writes the buffer behind the last record; returns where it begins.
    fn write_buffer(&self, state: &mut State) -> io::Result<u32> {
        let end = state.last().end;
        let base = u32::try_from(end).map_err(|_| io::Error::other("the event segment is above 4 GiB"))?;
        if state.tail_dirty {
            state.file.set_len(end)?;
            state.tail_dirty = false;
        }
        let mut result = state.file.write_all_at(&state.buffer, end);
        if result.is_ok() && self.options.fsync == Fsync::Always {
            result = state.file.sync_data();
        }
        if let Err(error) = result {
            state.tail_dirty = state.file.set_len(end).is_err();
            return Err(io::Error::new(
                error.kind(),
                format!("cannot write {}: {error}", segment_path(&self.dir, state.last().first_seq).display()),
            ));
        }
        let written = state.buffer.len() as u64;
        state.segments.back_mut().expect("a queue always has a last segment").end += written;
        state.unsynced = self.options.fsync != Fsync::Always;
        if state.buffer.capacity() > BUFFER_KEEP {
            state.buffer = Vec::new();
        }
        Ok(base)
    }
}

impl What {
    /// Bytes besides its own size.
    pub fn memory_bytes(&self) -> usize {
        match self {
            What::Event(event) => event.memory_bytes(),
            What::Closed(id) => id.capacity(),
            What::Over(closing) => closing.id.capacity() + closing.reason.capacity(),
        }
    }

    fn as_entry(&self) -> Entry<'_> {
        match self {
            What::Event(event) => Entry::Event(event),
            What::Closed(id) => Entry::Closed(id),
            What::Over(closing) => Entry::Over(closing),
        }
    }
}

impl Entry<'_> {
    fn key(&self) -> io::Result<AlarmKey> {
        match self {
            Entry::Event(event) => AlarmKey::parse(&event.id()),
            Entry::Closed(id) => AlarmKey::parse(id),
            Entry::Over(closing) => AlarmKey::parse(&closing.id),
        }
    }
}

impl State {
    fn last(&self) -> Segment {
        *self.segments.back().expect("a queue always has a last segment")
    }
}

/// Reads what was appended in order, behind the writer. Blocking (files), so not for an async thread.
pub struct Consumer {
    queue: Arc<EventQueue>,
    /// The highest sequence number that was read.
    cursor: u64,
    reading: Option<Reading>,
    buffer: Vec<u8>,
    damaged: Vec<Damage>,
    unreadable: u64,
}

struct Reading {
    first_seq: u64,
    file: File,
    at: u64,
}

impl Consumer {
    /// Appends up to `count_max` records to `out`; none when all are read. What cannot be read is skipped, and told by
    /// [`Consumer::take_trouble`].
    pub fn read(&mut self, count_max: usize, out: &mut Vec<Queued>) -> io::Result<()> {
        let full = out.len() + count_max;
        while out.len() < full {
            let Some((file, at, end, first_seq)) = self.next_range()? else { break };
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(RECORD_MAX);
            self.buffer.resize(want, 0);
            file.read_exact_at(&mut self.buffer, at)?;
            let mut used = 0;
            while out.len() < full {
                let Some((record, next)) = parse_record(&self.buffer, used) else { break };
                used = next;
                let seq = record.seq;
                if matches!(record.kind, EVENT | FORGET) && seq > self.cursor {
                    match record.what() {
                        Ok(what) => out.push(Queued { seq, what }),
                        Err(error) => {
                            tracing::error!(seq, %error, "skipping an event that cannot be read");
                            self.unreadable += 1;
                        }
                    }
                    self.cursor = seq;
                }
            }
            if used == 0 {
                used = self.skip_damage(at, end, first_seq)?;
            }
            let reading = self.reading.as_mut().expect("set by next_range");
            reading.at = at + used as u64;
        }
        if self.buffer.capacity() > BUFFER_KEEP {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Damaged places and unreadable events met since the last call.
    pub fn take_trouble(&mut self) -> (Vec<Damage>, u64) {
        (std::mem::take(&mut self.damaged), std::mem::take(&mut self.unreadable))
    }

    /// The unread part of the segment at hand, or of the next one that has any.
    fn next_range(&mut self) -> io::Result<Option<(File, u64, u64, u64)>> {
        loop {
            let next = {
                let state = self.queue.lock();
                let current = self.reading.as_ref().map(|reading| reading.first_seq);
                let segment = match current {
                    // The last segment that can hold the event after the cursor.
                    None => state
                        .segments
                        .iter()
                        .rev()
                        .find(|segment| segment.first_seq <= self.cursor + 1)
                        .or(state.segments.front()),
                    Some(first_seq) => state.segments.iter().find(|segment| {
                        let unread = self.reading.as_ref().is_some_and(|reading| reading.at < segment.end);
                        segment.first_seq > first_seq || (segment.first_seq == first_seq && unread)
                    }),
                };
                segment.copied()
            };
            let Some(segment) = next else { return Ok(None) };
            let open_at_hand = self.reading.as_ref().filter(|reading| reading.first_seq == segment.first_seq);
            if let Some(reading) = open_at_hand {
                let file = reading.file.try_clone()?;
                return Ok(Some((file, reading.at, segment.end, segment.first_seq)));
            }
            let file = File::open(segment_path(&self.queue.dir, segment.first_seq))?;
            // The snapshot holds nothing that was not an event before.
            self.reading = Some(Reading { first_seq: segment.first_seq, file, at: segment.events_at });
        }
    }

    /// Looks for the next whole record in the rest of a segment; returns how many bytes to skip.
    fn skip_damage(&mut self, at: u64, end: u64, first_seq: u64) -> io::Result<usize> {
        let reading = self.reading.as_ref().expect("set by next_range");
        let mut rest = vec![0; usize::try_from(end - at).map_err(io::Error::other)?];
        reading.file.read_exact_at(&mut rest, at)?;
        let skipped = find_record(&rest, 1).unwrap_or(rest.len());
        self.damaged.push(Damage { file: segment_path(&self.queue.dir, first_seq), bytes: at..at + skipped as u64 });
        Ok(skipped)
    }
}

#[derive(Clone)]
struct FoundProblem {
    seq: u64,
    place: Place,
    record: Vec<u8>,
    event: Event,
}

/// Reads all segments in order and follows the alarms' states.
#[derive(Default)]
struct Recovery {
    open: HashMap<AlarmKey, FoundProblem>,
    found: Recovered,
    next_seq: u64,
    /// Of the segment read last.
    snapshot_whole: bool,
    /// What is not a record at the end of the segment read last: torn, if no segment follows.
    last_end: Option<Damage>,
}

impl Recovery {
    fn end_of_last_as_damage(&mut self) {
        self.found.damaged.extend(self.last_end.take());
    }

    fn read_segment(&mut self, path: &Path, first_seq: u64) -> Result<Segment> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        if bytes.len() >= MAGIC.len() && bytes[..7] == MAGIC[..7] && bytes[7] != MAGIC[7] {
            bail!(
                "{} has format {}, this program knows {}: run the newer program that wrote it",
                path.display(),
                bytes[7],
                MAGIC[7]
            );
        }
        self.next_seq = self.next_seq.max(first_seq);
        self.snapshot_whole = false;
        let mut snapshot = HashMap::new();
        let mut events_at = 0;
        let mut at = if bytes.starts_with(MAGIC) { MAGIC.len() } else { 0 };
        while at < bytes.len() {
            let Some((record, next)) = parse_record(&bytes, at) else {
                let Some(found) = find_record(&bytes, at + 1) else { break };
                self.found.damaged.push(Damage { file: path.to_path_buf(), bytes: at as u64..found as u64 });
                at = found;
                continue;
            };
            if record.kind == SNAPSHOT_END {
                events_at = next as u64;
                self.end_snapshot(&mut snapshot, record.payload);
            } else {
                let open = if record.kind == OPEN { &mut snapshot } else { &mut self.open };
                self.found.unreadable += u64::from(!apply(open, &record, &bytes[at..next], at));
                self.next_seq = self.next_seq.max(record.seq + 1);
            }
            at = next;
        }
        if events_at == 0 {
            // A damaged snapshot still adds what it holds.
            self.open.extend(snapshot);
            events_at = MAGIC.len() as u64;
        }
        let file_end = bytes.len() as u64;
        self.last_end =
            Some(Damage { file: path.to_path_buf(), bytes: at as u64..file_end }).filter(|_| at < bytes.len());
        Ok(Segment { first_seq, events_at, end: at as u64 })
    }

    /// A whole snapshot replaces what was known, a damaged one adds to it.
    fn end_snapshot(&mut self, snapshot: &mut HashMap<AlarmKey, FoundProblem>, payload: &[u8]) {
        let count = payload.try_into().map(u32::from_le_bytes).ok();
        self.snapshot_whole = count == u32::try_from(snapshot.len()).ok();
        if self.snapshot_whole {
            self.open = std::mem::take(snapshot);
        } else {
            self.open.extend(snapshot.drain());
        }
    }
}

/// Follows one record; false when it is not understood.
fn apply(open: &mut HashMap<AlarmKey, FoundProblem>, record: &Record<'_>, whole: &[u8], at: usize) -> bool {
    let Ok(text) = std::str::from_utf8(record.payload) else { return false };
    match record.kind {
        EVENT | OPEN => {}
        FORGET => return AlarmKey::parse(text).map(|key| open.remove(&key)).is_ok(),
        _ => return false,
    }
    let Ok(event) = Event::from_json(text) else { return false };
    let Ok(key) = AlarmKey::parse(&event.id()) else { return false };
    match event.status {
        Status::Ok => open.remove(&key),
        Status::Problem => {
            // Segments stay far below 4 GiB, see `make_room`.
            let place = Place { at: at as u32, len: whole.len() as u32 };
            open.insert(key, FoundProblem { seq: record.seq, place, record: whole.to_vec(), event })
        }
    };
    true
}

fn in_order(open: &HashMap<AlarmKey, FoundProblem>) -> Vec<(AlarmKey, &FoundProblem)> {
    let sorted: BTreeMap<_, _> = open.iter().map(|(key, found)| (found.seq, (*key, found))).collect();
    sorted.into_values().collect()
}

impl AlarmKey {
    fn parse(id: &str) -> io::Result<AlarmKey> {
        let mut parts = id.splitn(3, '_');
        let (kind, rule, md5) = (parts.next(), parts.next(), parts.next());
        let key = match (kind, rule.and_then(|rule| rule.parse().ok()), md5) {
            (Some(kind @ ("s" | "e")), Some(rule), Some(md5)) if md5.len() == 32 => {
                u128::from_str_radix(md5, 16).ok().map(|md5| AlarmKey { md5, rule, of_strategy: kind == "s" })
            }
            _ => None,
        };
        key.ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidInput, format!("event id {id:?}: want s_<id>_<md5> or e_<id>_<md5>"))
        })
    }
}

struct Record<'a> {
    kind: u8,
    seq: u64,
    payload: &'a [u8],
}

impl Record<'_> {
    /// What an EVENT or a FORGET says.
    fn what(&self) -> Result<What, String> {
        let text = std::str::from_utf8(self.payload).map_err(|error| error.to_string())?;
        match self.kind {
            FORGET => Ok(What::Closed(text.to_string())),
            _ => Event::from_json(text).map(What::Event),
        }
    }
}

/// What ends a PROBLEM when nothing recovered: its own values, as nobody has others.
fn closing_event(problem: Event, closing: &Closing) -> Event {
    let rule_version = problem.explanation.map_or_else(|| problem.rule.version(), |before| before.rule_version);
    let explanation = Explanation { rule_version, closed: closing.reason.clone(), terms: Vec::new() };
    Event {
        status: Status::Ok,
        current_step: 1,
        time: closing.time.max(problem.time),
        explanation: Some(Box::new(explanation)),
        ..problem
    }
}

/// `json` is scratch.
fn push_entry(buffer: &mut Vec<u8>, seq: u64, entry: &Entry<'_>, json: &mut String) -> io::Result<Place> {
    match entry {
        Entry::Event(event) => {
            json.clear();
            event.push_json_explained(json);
            push_record(buffer, EVENT, seq, json.as_bytes())
        }
        Entry::Closed(id) => push_record(buffer, FORGET, seq, id.as_bytes()),
        // One that is not open here may still have an open case.
        Entry::Over(closing) => push_record(buffer, FORGET, seq, closing.id.as_bytes()),
    }
}

/// Fails only for what is too long, and then leaves `buffer` as it was.
fn push_record(buffer: &mut Vec<u8>, kind: u8, seq: u64, payload: &[u8]) -> io::Result<Place> {
    let len = BODY_MIN + payload.len();
    if HEAD + len > RECORD_MAX {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("an event of {len} bytes is longer than {RECORD_MAX}"),
        ));
    }
    let at = buffer.len();
    buffer.extend_from_slice(&(len as u32).to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.push(kind);
    buffer.extend_from_slice(&seq.to_le_bytes());
    buffer.extend_from_slice(payload);
    let crc = crc32fast::hash(&buffer[at + HEAD..]);
    buffer[at + 4..at + HEAD].copy_from_slice(&crc.to_le_bytes());
    // A buffer holds one batch or one snapshot record: below 4 GiB as the segment is.
    Ok(Place { at: at as u32, len: (HEAD + len) as u32 })
}

/// The whole and intact record at `at`, with the place behind it.
fn parse_record(bytes: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let head = bytes.get(at..at + HEAD)?;
    let len = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
    let crc = u32::from_le_bytes(head[4..].try_into().expect("four bytes"));
    if !(BODY_MIN..=RECORD_MAX - HEAD).contains(&len) {
        return None;
    }
    let next = at + HEAD + len;
    let body = bytes.get(at + HEAD..next)?;
    if crc32fast::hash(body) != crc {
        return None;
    }
    let seq = u64::from_le_bytes(body[1..BODY_MIN].try_into().expect("eight bytes"));
    Some((Record { kind: body[0], seq, payload: &body[BODY_MIN..] }, next))
}

/// The first place from `from` on where a whole record begins.
fn find_record(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|at| parse_record(bytes, *at).is_some())
}

fn segment_path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("{first_seq:020}.events"))
}

fn list_segments(dir: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    let mut segments = BTreeMap::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(first_seq) = name.strip_suffix(".events").and_then(|number| number.parse().ok()) {
            segments.insert(path, first_seq);
        } else if name.ends_with(".tmp") {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(segments)
}

fn open_segment(dir: &Path, first_seq: u64) -> Result<File> {
    let path = segment_path(dir, first_seq);
    OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
}

fn cut_tail(file: &File, end: u64) -> io::Result<u64> {
    let torn = file.metadata()?.len().saturating_sub(end);
    if torn > 0 {
        file.set_len(end)?;
    }
    Ok(torn)
}

type Created = (Segment, File, HashMap<AlarmKey, Place>);

/// Writes a segment that holds `open` (whole records) as its snapshot. It has its name only when it is complete.
fn create_segment(
    dir: &Path,
    first_seq: u64,
    fsync: Fsync,
    open: &mut dyn Iterator<Item = io::Result<(AlarmKey, Vec<u8>)>>,
) -> io::Result<Created> {
    let path = segment_path(dir, first_seq);
    let unnamed = path.with_extension("tmp");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unnamed)?;
    let written = write_snapshot(&file, open).and_then(|(end, places)| {
        if fsync != Fsync::Never {
            file.sync_data()?;
        }
        std::fs::rename(&unnamed, &path)?;
        if fsync != Fsync::Never {
            File::open(dir)?.sync_all()?;
        }
        Ok((Segment { first_seq, events_at: end, end }, places))
    });
    match written {
        Ok((segment, places)) => Ok((segment, file, places)),
        Err(error) => {
            // A leftover would be removed at the next start; the error that counts is the first.
            let _ = std::fs::remove_file(&unnamed);
            Err(error)
        }
    }
}

fn write_snapshot(
    file: &File,
    open: &mut dyn Iterator<Item = io::Result<(AlarmKey, Vec<u8>)>>,
) -> io::Result<(u64, HashMap<AlarmKey, Place>)> {
    let mut out = io::BufWriter::with_capacity(BUFFER_KEEP, file);
    let mut places = HashMap::new();
    let mut end = MAGIC.len() as u32;
    let mut record = Vec::new();
    out.write_all(MAGIC)?;
    for problem in open {
        let (key, bytes) = problem?;
        let Some((old, _)) = parse_record(&bytes, 0) else {
            return Err(io::Error::new(ErrorKind::InvalidData, "the record of an open problem is damaged"));
        };
        record.clear();
        let place = push_record(&mut record, OPEN, old.seq, old.payload)?;
        out.write_all(&record)?;
        places.insert(key, Place { at: end, ..place });
        end += place.len;
    }
    record.clear();
    let place = push_record(&mut record, SNAPSHOT_END, 0, &(places.len() as u32).to_le_bytes())?;
    out.write_all(&record)?;
    out.flush()?;
    Ok((u64::from(end + place.len), places))
}

/// Sequence numbers of a new process start here, above all that an earlier one can have given.
fn seq_of_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // A process would have to make a million events a second over its whole life to pass the next one's start.
    now << 20
}

#[cfg(test)]
mod tests;
