//! Upkeep: everything of the queue that waits for the disk: segments are begun, synced and deleted.
//!
//! Why: events are appended under the locks of a shard and of its judge. A disk may take seconds for a sync, and points
//! of all hosts would wait for it.
//! How: [`EventQueue::tick`] each second, and [`EventQueue::consumed`] whenever a reader has come further. A segment is
//! begun in three steps: under the lock of the state its snapshot is decided and appends begin to go to both files;
//! without the lock the snapshot is written, synced and named; under the lock again appends change over. A segment that
//! has its name supersedes what older ones say from its first sequence number on, so the records that both hold count
//! once.
//! Invariants: upkeep runs in one thread at a time; the lock of the state is held for memory only: copying the open
//! problems (64 bytes each) when a segment is begun, and finding their new places when it is taken. What a failed sync
//! may have lost to the disk is written again, from what readers still see, before the next sync counts.

use crate::entry::AlarmKey;
use crate::queue::{EventQueue, Fsync, Options, State, Twin};
use crate::record::{Place, RECORD_MAX, find_record, parse_record};
use crate::segment::{MAGIC, Segment, SnapshotWriter, segment_path, snapshot_bytes, told};
use crate::trouble::Trouble;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use stdx::DiskFile;
use stdx::ranked::MutexGuard;

/// Places in a segment are u32: a GiB of snapshot leaves room for the events behind it.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// A segment that is begun.
struct Draft {
    first_seq: u64,
    events_at: u64,
    /// The segment before, where the open problems are read.
    old: Arc<dyn DiskFile>,
    open: Vec<(AlarmKey, Place)>,
}

impl EventQueue {
    /// Starts a new segment when the last one is full, sets room aside, syncs, and drops the oldest events for readers
    /// that lag too far; to be called each second.
    pub fn tick(&self) -> io::Result<()> {
        let _upkeep = self.upkeep();
        self.rotate_if_due();
        self.reserve_if_due();
        let synced = self.sync_held();
        self.drop_for_laggards();
        synced
    }

    /// Notes that a reader has handled all up to `cursor`, and deletes the segments that hold nothing more for any
    /// reader and are not the last.
    pub fn consumed(&self, name: &'static str, cursor: u64) -> io::Result<()> {
        let mut state = self.lock();
        let reader = state.readers.named(name);
        reader.cursor = reader.cursor.max(cursor);
        drop(state);
        let _upkeep = self.upkeep();
        self.rotate_if_due();
        self.delete_passed()
    }

    /// Forces what was appended to the disk. Appends go on meanwhile.
    pub fn sync(&self) -> io::Result<()> {
        let _upkeep = self.upkeep();
        self.sync_held()
    }

    /// Waits, with [`Fsync::Always`], until what was appended with this [`crate::Receipt`] is on the disk. Whoever
    /// comes while another one syncs waits for that, and mostly finds its own events synced by whoever came next.
    pub fn wait_synced(&self, seq: u64) -> io::Result<()> {
        let is_synced = || self.options.fsync != Fsync::Always || self.synced_seq.load(Ordering::Acquire) >= seq;
        if is_synced() {
            return Ok(());
        }
        let _upkeep = self.upkeep();
        if is_synced() { Ok(()) } else { self.sync_held() }
    }

    fn upkeep(&self) -> MutexGuard<'_, ()> {
        self.upkeep.must_lock("nothing panics in upkeep")
    }

    fn sync_held(&self) -> io::Result<()> {
        let state = self.lock();
        let (file, end, from, suspect) = (state.file.clone(), state.last().end, state.synced_end, state.suspect);
        let (names_unsynced, seq, first_seq) = (state.names_unsynced, state.next_seq - 1, state.last().first_seq);
        drop(state);
        if from < end {
            let again = if suspect { rewrite(&*file, from, end) } else { Ok(0) };
            let synced = again.and_then(|lost| file.sync().map(|()| lost));
            let mut state = self.lock();
            state.suspect = synced.is_err();
            let path = segment_path(&self.dir, first_seq);
            let bytes = synced.map_err(told("cannot sync", &path))?;
            state.synced_end = end;
            if bytes > 0 {
                state.note(Trouble::EventsLost { file: path, bytes });
            }
        }
        if names_unsynced {
            self.disk.sync_dir(&self.dir).map_err(told("cannot sync", &self.dir))?;
            self.lock().names_unsynced = false;
        }
        self.synced_seq.fetch_max(seq, Ordering::Release);
        Ok(())
    }

    /// Appends go on in the full segment when this fails, and the next upkeep tries again.
    fn rotate_if_due(&self) {
        let state = self.lock();
        let last = state.last();
        // At least as many event bytes as snapshot bytes, so that copying snapshots costs at most one more write of
        // each.
        let is_due = last.end - last.events_at >= self.options.segment_bytes.max(last.events_at);
        drop(state);
        if !is_due {
            return;
        }
        let rotated = self.rotate();
        let mut state = self.lock();
        let failed_before = std::mem::replace(&mut state.rotation_failed, rotated.is_err());
        if let Err(error) = rotated
            && !failed_before
        {
            state.note(Trouble::SegmentNotStarted { dir: self.dir.clone(), error });
        }
    }

    /// Sets room aside behind the last event; the next upkeep tries again when this fails.
    fn reserve_if_due(&self) {
        let (state, wanted) = (self.lock(), self.options.reserve_bytes);
        let (file, end, reserved_end) = (state.file.clone(), state.last().end, state.reserved_end);
        drop(state);
        if reserved_end >= end.saturating_add(wanted.div_ceil(2)) {
            return;
        }
        let reserved = file.reserve(end, end + wanted);
        let mut state = self.lock();
        let failed_before = std::mem::replace(&mut state.reserve_failed, reserved.is_err());
        match reserved {
            Ok(()) => state.reserved_end = end + wanted,
            Err(error) if !failed_before => state.note(Trouble::NoRoomSetAside { dir: self.dir.clone(), error }),
            Err(_) => {}
        }
    }

    fn rotate(&self) -> io::Result<()> {
        if self.options.fsync != Fsync::Never {
            self.sync_held()?;
        }
        let unnamed = self.dir.join("next.tmp");
        let file = self.disk.open_or_create(&unnamed)?;
        let begun = file.set_len(0).and_then(|()| self.begin(&file));
        let filled = begun.and_then(|draft| {
            let places = self.fill(&*file, &draft)?;
            self.name(&unnamed, draft.first_seq)?;
            Ok((draft, places))
        });
        match filled {
            Ok((draft, places)) => {
                self.take(&draft, &places);
                Ok(())
            }
            Err(error) => {
                self.lock().twin = None;
                // A leftover would be removed at the next start; the error that counts is the first.
                let _ = self.disk.remove(&unnamed);
                Err(error)
            }
        }
    }

    /// Decides the snapshot of the next segment; from here on appends go to both files.
    fn begin(&self, file: &Arc<dyn DiskFile>) -> io::Result<Draft> {
        let mut state = self.lock();
        let open: Vec<_> = state.open.iter().map(|(key, place)| (*key, *place)).collect();
        let (split, events_at) = (state.last().end, snapshot_bytes(open.iter().map(|(_, place)| *place)));
        if events_at > SNAPSHOT_BYTES_MAX || state.next_seq <= state.last().first_seq {
            return Err(io::Error::other(format!("a snapshot of {events_at} bytes is too long")));
        }
        state.twin = Some(Twin { file: file.clone(), split, events_at, is_binding: false });
        Ok(Draft { first_seq: state.next_seq, events_at, old: state.file.clone(), open })
    }

    /// Writes the snapshot; answers where the open problems are in it. What was appended before it is synced with it.
    fn fill(&self, file: &dyn DiskFile, draft: &Draft) -> io::Result<HashMap<AlarmKey, Place>> {
        let mut open = draft.open.clone();
        open.sort_unstable_by_key(|(_, place)| place.at);
        let mut writer = SnapshotWriter::new(file);
        let mut record = Vec::new();
        for (key, place) in open {
            record.resize(place.len as usize, 0);
            draft.old.read_at(&mut record, u64::from(place.at))?;
            writer.push(key, &record)?;
        }
        let (events_at, places) = writer.end()?;
        if events_at != draft.events_at {
            return Err(io::Error::other("the records of open problems changed their length"));
        }
        if self.options.fsync != Fsync::Never {
            // Nobody syncs the old one once it is the last no more.
            draft.old.sync().inspect_err(|_| self.lock().suspect = true)?;
            file.sync()?;
        }
        Ok(places)
    }

    /// Gives the new segment its name: from here on it supersedes the old one, so an append must be in both.
    fn name(&self, unnamed: &Path, first_seq: u64) -> io::Result<()> {
        match &mut self.lock().twin {
            Some(twin) => twin.is_binding = true,
            None => return Err(io::Error::other("it did not take an append")),
        }
        self.disk.rename(unnamed, &segment_path(&self.dir, first_seq))?;
        // The next sync tries it again, and counts only then.
        let synced = self.options.fsync != Fsync::Never && self.disk.sync_dir(&self.dir).is_ok();
        self.lock().names_unsynced |= !synced;
        Ok(())
    }

    /// Appends go to the new segment only.
    fn take(&self, draft: &Draft, places: &HashMap<AlarmKey, Place>) {
        let mut state = self.lock();
        let twin = state.twin.take().expect("a twin that is binding is not given up");
        let end = twin.place_of(state.last().end);
        state.segments.back_mut().expect("a queue always has a last segment").end = twin.split;
        state.segments.push_back(Segment { first_seq: draft.first_seq, events_at: draft.events_at, end });
        for (key, place) in &mut state.open {
            place.at = match u64::from(place.at) {
                at if at >= twin.split => twin.place_of(at) as u32,
                _ => places[key].at,
            };
        }
        state.synced_end = if self.options.fsync == Fsync::Never { 0 } else { draft.events_at };
        (state.suspect, state.reserved_end) = (false, 0);
        state.file = twin.file;
    }

    fn delete_passed(&self) -> io::Result<()> {
        loop {
            let state = self.lock();
            let gone = match (state.segments.front(), state.segments.get(1)) {
                (Some(oldest), Some(next))
                    if !state.readers.0.iter().any(|reader| reader.needs_before(next.first_seq)) =>
                {
                    oldest.first_seq
                }
                _ => return Ok(()),
            };
            drop(state);
            // The open problems of the old segment live on in the snapshots behind it, once those are on the disk.
            self.sync_held()?;
            self.remove(gone).map_err(told("cannot delete", &segment_path(&self.dir, gone)))?;
            self.lock().forget(gone);
        }
    }

    /// Deletes the oldest segments while they are kept only for readers that lag too far.
    fn drop_for_laggards(&self) {
        loop {
            let kept = self.lock().kept_for_laggards(self.options);
            let Some((oldest, next)) = kept else { return };
            // Open problems of a deleted segment live on in the snapshots behind that segment, once those are on the
            // disk.
            if self.sync_held().is_err() {
                return;
            }
            self.lock().drop_before(oldest, next);
            if let Err(error) = self.remove(oldest) {
                let file = segment_path(&self.dir, oldest);
                self.note(Trouble::SegmentNotDeleted { file, error });
            }
        }
    }

    fn remove(&self, first_seq: u64) -> io::Result<()> {
        match self.disk.remove(&segment_path(&self.dir, first_seq)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl State {
    /// The oldest segment, and the one behind it, if only readers need it that lag too far.
    fn kept_for_laggards(&self, options: Options) -> Option<(u64, u64)> {
        let (oldest, next) = (self.segments.front()?.first_seq, self.segments.get(1)?.first_seq);
        let held = self.bytes();
        let is_nearly_full = held.saturating_add(options.segment_bytes) >= options.bytes_max;
        let mut needy = self.readers.0.iter().filter(|reader| reader.needs_before(next)).peekable();
        let too_far = |max: u64| held > max || is_nearly_full;
        let all_lag = needy.peek().is_some() && needy.all(|reader| reader.lag_bytes_max.is_some_and(too_far));
        all_lag.then_some((oldest, next))
    }

    fn drop_before(&mut self, oldest: u64, next: u64) {
        let State { readers, runs, .. } = &mut *self;
        let mut dropped = Vec::new();
        for reader in readers.0.iter_mut().filter(|reader| reader.needs_before(next)) {
            let lost = runs.count_above(reader.cursor) - runs.count_above(next - 1);
            (reader.cursor, reader.dropped) = (next - 1, reader.dropped + lost);
            dropped.push(Trouble::EventsDropped { reader: reader.name, lost });
        }
        dropped.into_iter().for_each(|trouble| self.note(trouble));
        self.forget(oldest);
    }
}

/// Writes a part of a segment again as it reads: what a failed sync lost to the disk is part of the next one. Answers
/// how many bytes are no records any more: a kernel may forget what it could not write, and read what was there before.
fn rewrite(file: &dyn DiskFile, from: u64, end: u64) -> io::Result<u64> {
    let (mut at, mut lost) = (from, 0);
    while at < end {
        let mut part = vec![0; RECORD_MAX.min((end - at) as usize)];
        file.read_at(&mut part, at)?;
        // The segment's first bytes are no record.
        let mut whole = if at == 0 && part.starts_with(MAGIC) { MAGIC.len() } else { 0 };
        while let Some((_, next)) = parse_record(&part, whole) {
            whole = next;
        }
        if whole == 0 {
            whole = find_record(&part, 1).unwrap_or(part.len());
            lost += whole as u64;
        }
        file.write_at(&part[..whole], at)?;
        at += whole as u64;
    }
    Ok(lost)
}
