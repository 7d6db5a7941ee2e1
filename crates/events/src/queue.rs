//! The durable event queue between the judge and its readers (alarm, Redis): append-only files in `<data_dir>/events/`.
//!
//! Why: in the original an event is popped from Redis before anything is done with it, and a restarted judge has
//! forgotten which alarms are open, so it repeats them and never sends their recovery. Here the RPC whose point made an
//! event is answered after the event is in this queue, and the queue also knows the alarms that are open. That an alarm is
//! closed because its rule or series went is told through the queue too: beside it, it could overtake the PROBLEM that it
//! ends. The queue knows that PROBLEM, and makes the event of the closing from it: nobody else has kept it.
//! How: segments named by the sequence number of their first event. A segment begins with a snapshot of the open
//! problems (the last event of each alarm that stands at PROBLEM), so any older segment can be deleted as soon as all readers
//! have taken all of it. The judge appends with one `write(2)` per batch, under one lock; each reader reads behind it with a
//! [`Consumer`] and keeps its cursor (a sequence number) itself: alarm in its database, in the transaction that handles the
//! record. Rooms: [`record`] and [`segment`] are the bytes, [`entry`] what they mean, [`recovery`] how they are opened,
//! [`consumer`] and [`readers`] who takes them; here is who writes and deletes them.
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
//! skipped, and what follows it is still read; a reader that lags too far holds up neither the judge nor another reader.
//! Never parses a rule.
//! Memory: an open problem costs one entry of [`Place`] (about 60 bytes), not its text; the write buffer shrinks to
//! [`BUFFER_KEEP`]; a consumer holds one record at most. On disk: [`Options::bytes_max`], past which an append fails.

use crate::Consumer;
use crate::entry::{AlarmKey, Closing, Entry, What, closing_event, push_entry};
use crate::readers::{Lag, Readers, Runs};
use crate::record::{Place, parse_record};
use crate::recovery::{Recovered, Recovery, in_order};
use crate::segment::{BUFFER_KEEP, Segment, create_segment, cut_tail, list_segments, open_segment, segment_path, told};
use model::{Event, Status};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use stdx::Ledger;

/// When what was appended is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before an append returns.
    Always,
    /// By [`EventQueue::sync`], which is to be called each second.
    EverySecond,
    /// Whenever the operating system does, and at a stop.
    Never,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub fsync: Fsync,
    /// A segment that holds more events than this (bytes, and more than its snapshot) is followed by a new one.
    pub segment_bytes: u64,
    /// The most bytes of all segments. Reached only when alarm cannot write to its database for long: a GiB is about
    /// 1.7 million events.
    pub bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { fsync: Fsync::EverySecond, segment_bytes: 4 << 20, bytes_max: 1 << 30 }
    }
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
    pub(crate) dir: PathBuf,
    options: Options,
    state: Mutex<State>,
    /// The highest sequence number that the files held when the queue was opened.
    end_when_opened: u64,
}

pub(crate) struct State {
    /// Oldest first; the last one is appended to.
    pub(crate) segments: VecDeque<Segment>,
    file: Arc<File>,
    next_seq: u64,
    readers: Readers,
    runs: Runs,
    appended: u64,
    open: HashMap<AlarmKey, Place>,
    /// Reused for each append.
    buffer: Vec<u8>,
    /// Bytes past `end` may be left of a write that failed and could not be cut off.
    tail_dirty: bool,
    /// Written since the last sync.
    unsynced: bool,
}

const _: () = assert!(size_of::<(AlarmKey, Place)>() <= 64);

impl EventQueue {
    /// Opens the queue in `dir`, creating it. `now` is in Unix seconds: sequence numbers go on above it.
    pub fn open(dir: &Path, fsync: Fsync, now: i64) -> io::Result<(EventQueue, Recovered)> {
        EventQueue::open_with(dir, Options { fsync, ..Options::default() }, now)
    }

    pub fn open_with(dir: &Path, options: Options, now: i64) -> io::Result<(EventQueue, Recovered)> {
        std::fs::create_dir_all(dir).map_err(told("cannot create", dir))?;
        let mut recovery = Recovery::default();
        let mut segments = VecDeque::new();
        for (path, first_seq) in list_segments(dir)? {
            recovery.end_of_last_as_damage();
            segments.push_back(recovery.read_segment(&path, first_seq)?);
        }
        let next_seq = recovery.next_seq.max(first_seq_at(now));
        let mut found = std::mem::take(&mut recovery.found);
        let (segment, file, open) = match segments.back().copied() {
            Some(last) if recovery.snapshot_whole => {
                let file = open_segment(dir, last.first_seq)?;
                found.torn_bytes_cut = cut_tail(&file, last.end)
                    .map_err(told("cannot cut the torn end of", &segment_path(dir, last.first_seq)))?;
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
                    .map_err(told("cannot start a new event segment in", dir))?
            }
        };
        segments.push_back(segment);
        found.open_problems = in_order(&recovery.open).into_iter().map(|(_, found)| found.event.clone()).collect();
        let end_when_opened = recovery.next_seq.saturating_sub(1);
        let state = State {
            segments,
            file: Arc::new(file),
            next_seq,
            readers: Readers::default(),
            runs: std::mem::take(&mut recovery.runs),
            appended: 0,
            open,
            buffer: Vec::new(),
            tail_dirty: false,
            // Whoever wrote it may have been killed before it was synced.
            unsynced: true,
        };
        let queue = EventQueue { dir: dir.to_path_buf(), options, state: Mutex::new(state), end_when_opened };
        found.tell(dir);
        Ok((queue, found))
    }

    /// Appends a batch with one write and wakes the readers. All of the events are in the file, or none is and the
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

    /// Keeps all segments for a reader that will say later where it stands. Whoever starts several readers names those first
    /// that would lose events to the others.
    pub fn expect(&self, name: &'static str) {
        self.lock().readers.named(name);
    }

    /// Registers the reader of this name, and reads all events above `cursor`, the highest sequence number that it has handled.
    /// Past `lag_bytes_max` of segments that are kept for it alone it loses the oldest events; without a bound it loses
    /// nothing, and appends fail when the queue is full.
    pub fn reader(self: &Arc<Self>, name: &'static str, cursor: u64, lag_bytes_max: Option<u64>) -> Consumer {
        let mut state = self.lock();
        // Were this queue's directory replaced while the clock was behind, new events would hide below the cursor.
        state.next_seq = state.next_seq.max(cursor.saturating_add(1));
        let reader = state.readers.named(name);
        (reader.cursor, reader.lag_bytes_max) = (cursor, lag_bytes_max);
        let oldest = state.segments.front().map_or(0, |segment| segment.first_seq);
        if cursor > 0 && cursor.saturating_add(1) < oldest {
            tracing::warn!(
                reader = name,
                cursor,
                oldest,
                "events that this reader had not taken may be gone from the queue"
            );
        }
        drop(state);
        Consumer::new(self.clone(), cursor)
    }

    /// Reads without being waited for.
    pub fn consumer(self: &Arc<Self>, cursor: u64) -> Consumer {
        Consumer::new(self.clone(), cursor)
    }

    /// The highest sequence number that the files held when the queue was opened; 0 in a new one.
    pub fn end_when_opened(&self) -> u64 {
        self.end_when_opened
    }

    /// Returns when something was appended since this reader's last call.
    pub async fn appended(&self, name: &'static str) {
        let appended = self.lock().readers.named(name).appended.clone();
        appended.notified().await;
    }

    /// Notes that a reader has handled all up to `cursor`, and deletes the segments that hold nothing more for any reader and
    /// are not the last.
    pub fn consumed(&self, name: &'static str, cursor: u64) -> io::Result<()> {
        let mut state = self.lock();
        let reader = state.readers.named(name);
        reader.cursor = reader.cursor.max(cursor);
        drop(state);
        loop {
            let state = self.lock();
            let gone = match (state.segments.front(), state.segments.get(1)) {
                (Some(oldest), Some(next))
                    if !state.readers.0.iter().any(|reader| reader.needs_before(next.first_seq)) =>
                {
                    *oldest
                }
                _ => return Ok(()),
            };
            drop(state);
            // The open problems of the old segment live on in the snapshots behind it, once those are on the disk.
            self.sync()?;
            match std::fs::remove_file(segment_path(&self.dir, gone.first_seq)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => self.lock().forget(gone.first_seq),
            }
        }
    }

    /// How far a reader is behind.
    pub fn lag(&self, name: &'static str) -> Lag {
        let mut state = self.lock();
        let reader = state.readers.named(name);
        let (cursor, dropped) = (reader.cursor, reader.dropped);
        let records = state.runs.count_above(cursor);
        let firsts = state.segments.iter().skip(1).map(|segment| segment.first_seq).chain([u64::MAX]);
        let kept = state.segments.iter().zip(firsts).filter(|(_, next)| cursor.saturating_add(1) < *next);
        let bytes = if records == 0 { 0 } else { kept.map(|(segment, _)| segment.end).sum() };
        Lag { records, bytes, dropped }
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
            bytes: state.bytes(),
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

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
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
        let given = state.next_seq..seq;
        state.runs.add(given);
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
        state.readers.wake();
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

    pub(crate) fn has_segment(&self, first_seq: u64) -> bool {
        self.lock().segments.iter().any(|segment| segment.first_seq == first_seq)
    }

    /// Starts a new segment when the last one is full; refuses when the queue as a whole is.
    fn make_room(&self, state: &mut State) -> io::Result<()> {
        self.drop_for_laggards(state);
        let held = state.bytes();
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

    /// Deletes the oldest segments while they are kept only for readers that lag too far.
    fn drop_for_laggards(&self, state: &mut State) {
        loop {
            let (Some(oldest), Some(next)) = (state.segments.front(), state.segments.get(1)) else { return };
            let (oldest, next, held) = (oldest.first_seq, next.first_seq, state.bytes());
            let mut needy = state.readers.0.iter().filter(|reader| reader.needs_before(next)).peekable();
            let too_far = |max: u64| held > max || held >= self.options.bytes_max;
            if needy.peek().is_none() || !needy.all(|reader| reader.lag_bytes_max.is_some_and(too_far)) {
                return;
            }
            // Its open problems live on in the snapshots behind it, once those are on the disk.
            if std::mem::take(&mut state.unsynced) && state.file.sync_data().is_err() {
                state.unsynced = true;
                return;
            }
            let State { readers, runs, .. } = &mut *state;
            for reader in readers.0.iter_mut().filter(|reader| reader.needs_before(next)) {
                let lost = runs.count_above(reader.cursor) - runs.count_above(next - 1);
                (reader.cursor, reader.dropped) = (next - 1, reader.dropped + lost);
                tracing::error!(
                    reader = reader.name,
                    lost,
                    "a reader lags too far: the oldest events are dropped for it"
                );
            }
            state.forget(oldest);
            let path = segment_path(&self.dir, oldest);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(%error, file = %path.display(), "cannot delete an old event segment");
            }
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

impl State {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    fn forget(&mut self, first_seq: u64) {
        self.segments.retain(|segment| segment.first_seq != first_seq);
        self.runs.forget_before(self.segments.front().map_or(0, |segment| segment.first_seq));
    }

    pub(crate) fn last(&self) -> Segment {
        *self.segments.back().expect("a queue always has a last segment")
    }
}

/// Where the sequence numbers of a process start that opens the queue at `now`: above all that an earlier one can have given.
pub(crate) fn first_seq_at(now: i64) -> u64 {
    // A process would have to make a million events a second over its whole life to pass the next one's start.
    u64::try_from(now).unwrap_or(0) << 20
}
