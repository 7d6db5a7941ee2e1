//! Queue: whoever makes events appends them here, and a reader takes them behind it.
//!
//! Why: events are appended under the locks of a shard and of its judge, so an append may only write; whatever waits
//! for the disk happens in upkeep (`upkeep.rs`), which no append waits for.
//! How: segments are named by the sequence number of their first event. A segment begins with a snapshot of the open
//! problems (the last event of each alarm that stands at PROBLEM), so any older segment can be deleted as soon as all
//! readers have taken all of it. A batch is one write. While upkeep fills the next segment, an append writes to both
//! ([`Twin`]). An alarm that is closed because its rule or series went is told through the queue too: beside it, that
//! could overtake the PROBLEM that it ends. The queue makes the event of such an end from that PROBLEM: nobody else has
//! kept it. The PROBLEM is read before the append ([`EventQueue::read_problems`]), not under the lock.
//! Locks: upkeep → state. Under the lock of the state a message costs its text, one write (two while a segment is
//! begun) and, should that fail, a truncation; no file is read, synced, created, renamed or removed under it, and
//! nothing is logged.
//! Invariants: sequence numbers only grow, also over restarts that lost unsynced records (they start above the time of
//! opening in seconds × 2^20); a record that cannot be written whole is cut off again, and the append fails; an event
//! that no record can hold is left out, and the append goes on.
//! Memory: an open problem costs one entry of [`Place`] (64 bytes), not its text; the write buffer shrinks to
//! [`BUFFER_KEEP`]; [`TROUBLES_MAX`] troubles. On disk: [`Options::bytes_max`], past which an append fails.

use crate::entry::{AlarmKey, Entry, EntryRef, end_event, push_entry};
use crate::readers::{Lag, Readers, Runs};
use crate::record::{Place, parse_record};
use crate::recovery::{Recovery, SegmentReader};
use crate::segment::{BUFFER_KEEP, Segment, create_segment, cut_tail, list_segments, segment_path, told};
use crate::trouble::Trouble;
use crate::{Consumer, locks};
use model::{Event, Status};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use stdx::RankedMutex;
use stdx::ranked::MutexGuard;
use stdx::{Disk, DiskFile, Ledger, RealDisk};

/// Troubles kept until somebody takes them; what comes beyond them is of the same kinds.
const TROUBLES_MAX: usize = 64;

/// No append makes a segment longer than this (2 GiB), since places are u32 and a segment that is begun needs room for
/// its snapshot. Upkeep starts a new one at [`Options::segment_bytes`], each second; only where it cannot do so for
/// long does a segment come here, and [`Options::bytes_max`] is usually reached before. Appends then fail.
const SEGMENT_BYTES_BOUND: u64 = u32::MAX as u64 / 2;

/// Moment at which what was appended is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Sync before [`EventQueue::wait_synced`] returns; call that before the message is answered.
    Always,
    /// Sync by [`EventQueue::tick`], each second.
    EverySecond,
    /// Sync by [`EventQueue::tick`] too, but the snapshots of new segments are not waited for.
    Never,
}

/// Settings of a queue.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub fsync: Fsync,
    /// A segment that holds more events than this (bytes, and more than its snapshot) is followed by a new one at the
    /// next [`EventQueue::tick`] or [`EventQueue::consumed`]. Until then appends go on in it.
    pub segment_bytes: u64,
    /// The most bytes of all segments. Reached only when alarm cannot write to its database for long: a GiB is about
    /// 1.7 million events.
    pub bytes_max: u64,
    /// Room on the disk that upkeep sets aside behind the last event, half of it at least: events of a disk that is
    /// full are kept in it.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { fsync: Fsync::EverySecond, segment_bytes: 4 << 20, bytes_max: 1 << 30, reserve_bytes: 4 << 20 }
    }
}

/// Sizes of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    pub bytes: u64,
    pub segments: usize,
    pub open_problems: usize,
    /// Events appended in the life of this process.
    pub appended: u64,
}

/// Receipt of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The highest sequence number that was given so far: what [`EventQueue::wait_synced`] waits for.
    pub seq: u64,
    /// Events that are longer than a record can be. They are in no file.
    pub left_out: u64,
}

/// PROBLEMs that were read from the queue's files because their alarms are about to end.
#[derive(Default)]
pub struct Problems(HashMap<u64, Option<Event>>);

/// Durable files between the judges and their readers, and the open alarms; see the crate.
pub struct EventQueue {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    /// Held by whoever begins, syncs or deletes segments. No append takes it.
    pub(crate) upkeep: RankedMutex<()>,
    /// Held for the text of one batch and its write; upkeep holds it to copy the open problems. No read, no sync, no
    /// log.
    state: RankedMutex<State>,
    /// Everything up to this sequence number is on the disk.
    pub(crate) synced_seq: AtomicU64,
    /// The highest sequence number that the files held when the queue was opened.
    end_when_opened: u64,
}

pub(crate) struct State {
    /// Oldest first; the last one is appended to.
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) twin: Option<Twin>,
    pub(crate) next_seq: u64,
    pub(crate) readers: Readers,
    pub(crate) runs: Runs,
    appended: u64,
    /// Whether a record was written since the queue was opened.
    written: bool,
    pub(crate) open: HashMap<AlarmKey, Place>,
    /// Reused for each append.
    buffer: Vec<u8>,
    /// Bytes past the end may be left of a write that failed and could not be cut off.
    pub(crate) tail_dirty: bool,
    /// The last segment is on the disk up to here.
    pub(crate) synced_end: u64,
    /// A sync failed: what was written since the one before may be lost to the disk though readers still see it.
    pub(crate) suspect: bool,
    /// Room is set aside in the last segment up to here.
    pub(crate) reserved_end: u64,
    pub(crate) reserve_failed: bool,
    /// Names of segments are not on the disk yet.
    pub(crate) names_unsynced: bool,
    pub(crate) rotation_failed: bool,
    troubles: Vec<Trouble>,
}

/// The next segment while upkeep fills it: appends go to both, so that either is whole whenever the process ends.
pub(crate) struct Twin {
    pub(crate) file: Arc<dyn DiskFile>,
    /// Offset at which the last segment ended when the twin was begun.
    pub(crate) split: u64,
    /// Offset in the twin of the events that come behind `split`.
    pub(crate) events_at: u64,
    /// The twin has its name, or is about to: an append that it does not take fails. Before, the twin is given up.
    pub(crate) is_binding: bool,
}

impl Twin {
    pub(crate) fn place_of(&self, at: u64) -> u64 {
        at - self.split + self.events_at
    }
}

const _: () = assert!(size_of::<(AlarmKey, Place)>() <= 64);

impl EventQueue {
    /// Opens the queue in `dir`, creating it. `now` is in Unix seconds: sequence numbers go on above it.
    pub fn open(dir: &Path, fsync: Fsync, now: i64) -> io::Result<(EventQueue, Recovery)> {
        EventQueue::open_with(dir, Options { fsync, ..Options::default() }, now)
    }

    /// Opens the queue with settings that tests choose.
    pub fn open_with(dir: &Path, options: Options, now: i64) -> io::Result<(EventQueue, Recovery)> {
        EventQueue::open_on(Arc::new(RealDisk), dir, options, now)
    }

    /// Opens the queue on a disk that may be a fake one.
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, options: Options, now: i64) -> io::Result<(EventQueue, Recovery)> {
        disk.create_dir(dir).map_err(told("cannot create", dir))?;
        let mut reader = SegmentReader::default();
        let mut segments = VecDeque::new();
        let names = list_segments(&*disk, dir)?;
        for (at, first_seq) in names.iter().enumerate() {
            reader.end_of_last_as_damage();
            let next = names.get(at + 1).copied();
            segments.push_back(reader.read_segment(&*disk, &segment_path(dir, *first_seq), *first_seq, next)?);
        }
        let mut next_seq = reader.next_seq.max(first_seq_at(now));
        let mut found = std::mem::take(&mut reader.found);
        let (segment, file, open) = match segments.back().copied() {
            Some(last) if reader.snapshot_whole => {
                let path = segment_path(dir, last.first_seq);
                let file = disk.open_or_create(&path).map_err(told("cannot open", &path))?;
                found.torn_bytes_cut = cut_tail(&*file, last.end).map_err(told("cannot cut the torn end of", &path))?;
                segments.pop_back();
                (last, file, reader.open.iter().map(|(key, found)| (*key, found.place)).collect())
            }
            // None yet, or the last one's snapshot is damaged: start a new one from what was found.
            last => {
                found.snapshot_lost = last.is_some();
                next_seq = next_seq.max(last.map_or(0, |last| last.first_seq + 1));
                reader.end_of_last_as_damage();
                found.damaged.append(&mut reader.found.damaged);
                create_segment(&*disk, dir, next_seq, options.fsync, &reader.in_order())
                    .map_err(told("cannot start a new event segment in", dir))?
            }
        };
        segments.push_back(segment);
        found.open_problems = reader.in_order().into_iter().map(|(_, found)| found.event.clone()).collect();
        let end_when_opened = reader.next_seq.saturating_sub(1);
        let state = State {
            segments,
            file,
            twin: None,
            next_seq,
            readers: Readers::default(),
            runs: std::mem::take(&mut reader.runs),
            appended: 0,
            written: false,
            open,
            buffer: Vec::new(),
            tail_dirty: false,
            // Whoever wrote them may have been killed before they were synced.
            synced_end: 0,
            suspect: false,
            reserved_end: 0,
            reserve_failed: false,
            names_unsynced: true,
            rotation_failed: false,
            troubles: Vec::new(),
        };
        let queue = EventQueue {
            disk,
            dir: dir.to_path_buf(),
            options,
            upkeep: RankedMutex::new(locks::UPKEEP, ()),
            state: RankedMutex::new(locks::STATE, state),
            synced_seq: AtomicU64::new(0),
            end_when_opened,
        };
        Ok((queue, found))
    }

    /// Appends a batch with one write and wakes the readers. All of the events are in the file, or none is and the
    /// error says why. Only events that are longer than a record can be are left out.
    pub fn append(&self, events: &[Event]) -> io::Result<Receipt> {
        self.write(&events.iter().map(EntryRef::Event).collect::<Vec<_>>(), &Problems::default())
    }

    /// Appends events and ends of alarms, in which order matters. A closed alarm is dropped from the open problems, so
    /// that no restart brings it back, and the readers are told behind all of its events: with an event of its own,
    /// made of the PROBLEM that it ends ([`Entry::End`]), or silently. Alarms that are not open are fine: alarm may
    /// still have an open case of them. `problems` are what [`EventQueue::read_problems`] has read for this batch; the
    /// error is `ErrorKind::WouldBlock` when one of those alarms went on meanwhile, and they are to be read again.
    pub fn append_mixed(&self, batch: &[Entry], problems: &Problems) -> io::Result<Receipt> {
        self.write(&batch.iter().map(Entry::as_ref).collect::<Vec<_>>(), problems)
    }

    /// Reads the PROBLEMs that a batch ends. Reads files: for a caller that holds no lock that an append waits for.
    pub fn read_problems<'e>(&self, batch: impl IntoIterator<Item = &'e Entry>) -> Problems {
        let ends = batch.into_iter().filter_map(|entry| if let Entry::End(end) = entry { Some(end) } else { None });
        let keys: Vec<_> = ends.filter_map(|end| Some((AlarmKey::parse(&end.id).ok()?, end))).collect();
        let (file, places): (_, Vec<_>) = {
            let state = self.lock();
            let place = |(key, end): &(AlarmKey, _)| Some((*state.open.get(key)?, *end));
            (state.file.clone(), keys.iter().filter_map(place).collect())
        };
        let mut problems = Problems::default();
        for (place, end) in places {
            // One that cannot be read (the disk fails) is closed without an event.
            let read = read_problem(&*file, place).map_err(|error| {
                self.note(Trouble::ProblemUnreadable { id: end.id.clone(), error });
            });
            problems.0.insert(place.seq, read.ok());
        }
        problems
    }

    /// Keeps all segments for a reader that will say later where it stands. Whoever starts several readers names those
    /// first that would lose events to the others.
    pub fn expect(&self, name: &'static str) {
        self.lock().readers.named(name);
    }

    /// Registers the reader of this name, and reads all events above `cursor`, the highest sequence number that it has
    /// handled. Past `lag_bytes_max` of segments that are kept for it alone it loses the oldest events; without a bound
    /// it loses nothing, and appends fail when the queue is full.
    pub fn reader(self: &Arc<Self>, name: &'static str, cursor: u64, lag_bytes_max: Option<u64>) -> Consumer {
        let mut state = self.lock();
        // Were this queue's directory replaced while the clock was behind, new events would hide below the cursor.
        state.next_seq = state.next_seq.max(cursor.saturating_add(1));
        let reader = state.readers.named(name);
        (reader.cursor, reader.lag_bytes_max) = (cursor, lag_bytes_max);
        let oldest = state.segments.front().map_or(0, |segment| segment.first_seq);
        if cursor > 0 && cursor.saturating_add(1) < oldest {
            state.note(Trouble::EventsGone { reader: name, cursor, oldest });
        }
        drop(state);
        Consumer::new(self.clone(), cursor)
    }

    /// Reads all events above `cursor` without being waited for: segments can go before they are read.
    pub fn consumer(self: &Arc<Self>, cursor: u64) -> Consumer {
        Consumer::new(self.clone(), cursor)
    }

    /// The highest sequence number that the files held when the queue was opened; 0 in a new one.
    pub fn end_when_opened(&self) -> u64 {
        self.end_when_opened
    }

    /// The number that the next record gets. Between two of these a process may have started, and then numbers are
    /// left out.
    pub fn next_seq(&self) -> u64 {
        self.lock().next_seq
    }

    /// How many records there are from `seq` on, where `seq` was [`EventQueue::next_seq`] in this process or the one
    /// before: so a writer that was killed learns how much of its last batch is in the files.
    pub fn records_from(&self, seq: u64) -> u64 {
        let state = self.lock();
        let end = if state.written { state.next_seq - 1 } else { self.end_when_opened };
        (end + 1).saturating_sub(seq)
    }

    /// Returns when something was appended since this reader's last call.
    pub async fn appended(&self, name: &'static str) {
        let appended = self.lock().readers.named(name).appended.clone();
        appended.notified().await;
    }

    /// Backlog of a reader: what it has not handled.
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

    /// Figures of the queue now.
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

    /// Most bytes that the queue's files may have.
    pub fn bytes_max(&self) -> u64 {
        self.options.bytes_max
    }

    /// Troubles that nobody was told of yet: for the log.
    pub fn take_troubles(&self) -> Vec<Trouble> {
        std::mem::take(&mut self.lock().troubles)
    }

    pub(crate) fn note(&self, trouble: Trouble) {
        self.lock().note(trouble);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.must_lock("nothing panics while it holds the queue")
    }

    pub(crate) fn has_segment(&self, first_seq: u64) -> bool {
        self.lock().segments.iter().any(|segment| segment.first_seq == first_seq)
    }

    fn write(&self, entries: &[EntryRef<'_>], problems: &Problems) -> io::Result<Receipt> {
        let keys = entries.iter().map(EntryRef::key).collect::<io::Result<Vec<_>>>()?;
        let mut state = self.lock();
        let mut receipt = Receipt { seq: state.next_seq - 1, left_out: 0 };
        if keys.is_empty() {
            return Ok(receipt);
        }
        self.refuse_when_full(&state)?;
        let made = make_ends(&state, entries, &keys, problems)?;
        let State { buffer, next_seq, troubles, .. } = &mut *state;
        buffer.clear();
        let mut seq = *next_seq;
        let mut written = Vec::with_capacity(entries.len());
        let mut json = String::with_capacity(512);
        for ((entry, key), made) in entries.iter().zip(&keys).zip(&made) {
            let made = made.as_ref().map(|event| push_entry(buffer, seq, &EntryRef::Event(event), &mut json));
            let is_event = matches!(entry, EntryRef::Event(_)) || matches!(made, Some(Ok(_)));
            // An event that no record can hold is closed silently.
            match made.and_then(Result::ok).map_or_else(|| push_entry(buffer, seq, entry, &mut json), Ok) {
                Ok(place) => {
                    written.push((entry, *key, place, is_event));
                    seq += 1;
                }
                Err(error) => push_trouble(troubles, Trouble::EventTooLong { key: *key, error }),
            }
        }
        receipt.left_out = (entries.len() - written.len()) as u64;
        if written.is_empty() {
            return Ok(receipt);
        }
        let base = self.write_buffer(&mut state)?;
        receipt.seq = seq - 1;
        let given = state.next_seq..seq;
        state.runs.add(given);
        state.next_seq = seq;
        state.written = true;
        for (entry, key, place, is_event) in written {
            state.appended += u64::from(is_event);
            match entry {
                EntryRef::Event(event) if event.status == Status::Problem => {
                    state.open.insert(key, Place { at: base + place.at, ..place })
                }
                EntryRef::Event(_) | EntryRef::Forget(_) | EntryRef::End(_) => state.open.remove(&key),
            };
        }
        state.readers.wake();
        Ok(receipt)
    }

    fn refuse_when_full(&self, state: &State) -> io::Result<()> {
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
        if state.last().end >= SEGMENT_BYTES_BOUND {
            let text =
                format!("no new event segment can be started in {}, and the last one is full", self.dir.display());
            return Err(io::Error::new(ErrorKind::StorageFull, text));
        }
        Ok(())
    }

    /// Writes the buffer behind the last record, and to the twin; returns where it begins.
    fn write_buffer(&self, state: &mut State) -> io::Result<u32> {
        let end = state.last().end;
        let base = u32::try_from(end).map_err(|_| io::Error::other("the event segment is above 4 GiB"))?;
        let written = if state.tail_dirty { state.cut_to(end) } else { Ok(()) };
        let written = written.and_then(|()| state.write_both(end));
        if let Err(error) = written {
            // What was set aside goes with what is cut off.
            (state.tail_dirty, state.reserved_end) = (state.cut_to(end).is_err(), end);
            return Err(io::Error::new(
                error.kind(),
                format!("cannot write {}: {error}", segment_path(&self.dir, state.last().first_seq).display()),
            ));
        }
        state.tail_dirty = false;
        let written = state.buffer.len() as u64;
        state.segments.back_mut().expect("a queue always has a last segment").end += written;
        if state.buffer.capacity() > BUFFER_KEEP {
            state.buffer = Vec::new();
        }
        Ok(base)
    }
}

impl State {
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    pub(crate) fn forget(&mut self, first_seq: u64) {
        self.segments.retain(|segment| segment.first_seq != first_seq);
        self.runs.forget_before(self.segments.front().map_or(0, |segment| segment.first_seq));
    }

    pub(crate) fn last(&self) -> Segment {
        *self.segments.back().expect("a queue always has a last segment")
    }

    pub(crate) fn note(&mut self, trouble: Trouble) {
        push_trouble(&mut self.troubles, trouble);
    }

    fn write_both(&mut self, end: u64) -> io::Result<()> {
        let State { file, twin, buffer, .. } = self;
        file.write_at(buffer, end)?;
        twin_takes(twin, |twin| twin.file.write_at(buffer, twin.place_of(end)))
    }

    fn cut_to(&mut self, end: u64) -> io::Result<()> {
        self.file.set_len(end)?;
        twin_takes(&mut self.twin, |twin| twin.file.set_len(twin.place_of(end)))
    }
}

/// Does with the twin what was done with the last segment; a twin that fails is given up while it may be.
fn twin_takes(at_hand: &mut Option<Twin>, change: impl FnOnce(&Twin) -> io::Result<()>) -> io::Result<()> {
    match at_hand.as_ref().map(|twin| (twin.is_binding, change(twin))) {
        Some((true, result)) => result,
        Some((false, Err(_))) => {
            *at_hand = None;
            Ok(())
        }
        Some((false, Ok(()))) | None => Ok(()),
    }
}

fn push_trouble(troubles: &mut Vec<Trouble>, trouble: Trouble) {
    if troubles.len() < TROUBLES_MAX {
        troubles.push(trouble);
    }
}

/// Makes the event of each entry that ends an open alarm with a reason.
fn make_ends(
    state: &State,
    entries: &[EntryRef<'_>],
    keys: &[AlarmKey],
    problems: &Problems,
) -> io::Result<Vec<Option<Event>>> {
    let make = |(at, entry): (usize, &EntryRef<'_>)| {
        let EntryRef::End(end) = entry else { return Ok(None) };
        // What this batch says of the alarm before is not in the file yet.
        let before = entries[..at].iter().zip(&keys[..at]).rev().find(|(_, key)| **key == keys[at]);
        let problem = match (before, state.open.get(&keys[at])) {
            (Some((EntryRef::Event(event), _)), _) if event.status == Status::Problem => Some(Event::clone(event)),
            (Some(_), _) | (None, None) => None,
            (None, Some(place)) => match problems.0.get(&place.seq) {
                Some(read) => read.clone(),
                None => {
                    let text = format!("alarm {} went on while its PROBLEM was read", end.id);
                    return Err(io::Error::new(ErrorKind::WouldBlock, text));
                }
            },
        };
        Ok(problem.map(|problem| end_event(problem, end)))
    };
    entries.iter().enumerate().map(make).collect()
}

fn read_problem(file: &dyn DiskFile, place: Place) -> Result<Event, String> {
    let mut record = vec![0; place.len as usize];
    file.read_at(&mut record, u64::from(place.at)).map_err(|error| error.to_string())?;
    match parse_record(&record, 0).map(|(record, _)| record.entry()) {
        Some(Ok(Entry::Event(event))) => Ok(event),
        _ => Err("its record is damaged".to_string()),
    }
}

/// First sequence number of a process that opens the queue at `now`: above all that an earlier one can have given.
pub(crate) fn first_seq_at(now: i64) -> u64 {
    // A process would have to make a million events a second over its whole life to pass the next one's start.
    u64::try_from(now).unwrap_or(0).min(u32::MAX.into()) << 20
}
