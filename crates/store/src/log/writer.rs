//! Log: every accepted batch, appended to a segment before it is applied and answered.
//!
//! Why: chunks live in memory for hours; what was acknowledged must be there after `kill -9`, and after a power cut up
//! to the last fsync.
//! How: one `write` per batch to the current segment under a short lock; fsync by policy, outside that lock, one for
//! all batches that wait (group commit). Segments whose points are all in blocks are removed. At start all segments are
//! replayed, and a new one is begun, or the last gone on with if it holds nothing: others are never appended to.
//! A full segment is followed by one that is *ready*: its file exists and its name is durable, so going over to it is a
//! change in memory. The thread that syncs each second makes it ready from half of the current segment on, a flush
//! before it shuts the gate. Where senders were faster, the next of them makes it ready before it takes any lock, and
//! what is written meanwhile still goes to the full segment: that grows beyond `segment_bytes` by as much as arrives
//! while one file is created, and by nothing when it cannot be: then that sender's batch is refused.
//! How far a segment is on the disk is noted when that was synced: at its first sync, when it is full, and when the
//! store closes, so that a start which finds it shorter knows that somebody cut it. After a sync that failed nothing is
//! noted of the segments of then.
//! Invariants: a write that failed is cut back and leaves the log as it was; a segment's number is never used twice,
//! but for one that holds nothing; no point is in a removed segment that is not in a block; a batch whose sync failed
//! is never said to be durable, also when a later sync succeeds: the system forgets what it could not write, and says
//! so once. No file is created or synced while the writer is held.
//! Memory: the callers' buffers only; at start one segment at a time.

use super::segment::{EMPTY_BYTES, Replay, Segment};
use crate::error::{Error, Result};
use crate::locks;
use model::Sample;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use stdx::ranked::MutexGuard;
use stdx::{Disk, RankedMutex};

/// Bytes that are written to see whether the disk takes any; a batch of an agent is a few KiB.
static TRIED: [u8; 64 << 10] = [0; 64 << 10];

/// The segments of the log; the newest is appended to.
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    /// Held for one write to the system's cache.
    writer: RankedMutex<Writer>,
    /// Held while a segment is created; nobody who holds a lock of the hot path takes it.
    preparing: RankedMutex<()>,
    /// The segment is full and no other is ready.
    is_full: AtomicBool,
    /// Held while syncing, so that those who wait share one sync; nobody who holds a lock of the hot path takes it.
    synced: RankedMutex<Synced>,
    /// The last sync failed.
    sync_failed: AtomicBool,
    /// Segments below this number are removed, or will be.
    let_go_below: AtomicU64,
    syncs: AtomicU64,
}

#[derive(Default)]
struct Synced {
    /// Batches up to this number are durable, as far as they are above `doubtful`.
    to: u64,
    /// Batches up to this number were written when a sync failed. Only a flush makes sure of them.
    doubtful: u64,
}

struct Writer {
    segment: Segment,
    len: u64,
    /// The segment that follows, empty and with a durable name.
    ready: Option<Segment>,
    /// Batches written so far.
    written: u64,
    /// Older segments that were not synced since their last write, also by a process before.
    unsynced: Vec<Segment>,
    /// Bytes of the segments before the current one.
    full: BTreeMap<u64, u64>,
    /// Bytes that are on the disk for sure, of segments with batches.
    ends: BTreeMap<u64, u64>,
    /// Number and bytes of the current segment at the last sync at which it had batches.
    last_end: (u64, u64),
    /// Segments up to this number were written when a sync failed.
    doubtful_to: u64,
}

impl Writer {
    fn is_empty(&self) -> bool {
        self.len <= EMPTY_BYTES
    }

    /// Goes over to the segment that is ready; false when none is. A change in memory only.
    fn go_over(&mut self) -> bool {
        let Some(ready) = self.ready.take() else { return false };
        let full = std::mem::replace(&mut self.segment, ready);
        self.full.insert(full.number, self.len);
        self.unsynced.push(full);
        self.len = EMPTY_BYTES;
        true
    }

    /// Notes that full segments are synced, and the current one of then up to `len`. Of the current one the first
    /// length stands until it is full: whoever keeps the list of ends writes it when it has changed.
    fn note_synced(&mut self, full: &[Segment], current: u64, len: u64) {
        for number in full.iter().map(|segment| segment.number).filter(|number| *number > self.doubtful_to) {
            if let Some(len) = self.full.get(&number).filter(|len| **len > EMPTY_BYTES) {
                self.ends.insert(number, *len);
            }
        }
        if len > EMPTY_BYTES && current > self.doubtful_to {
            self.ends.entry(current).or_insert(len);
            self.last_end = (current, len);
        }
    }
}

/// What is known of a log before it is opened.
#[derive(Debug, Default)]
pub struct Before {
    /// Those that a log had before, see [`Log::ends`].
    pub ends: BTreeMap<u64, u64>,
    /// The newest segment that is missing; 0 for none.
    pub newest: u64,
}

impl Log {
    /// Replays all segments in `dir` through `apply`, then begins a new one, or goes on with the last if it is empty.
    /// `before` is what is known of the log that was there before.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        before: &Before,
        mut apply: impl FnMut(Sample),
    ) -> Result<(Log, Replay)> {
        disk.create_dir(dir).map_err(Error::disk("create", dir))?;
        let (mut full, mut unsynced) = (BTreeMap::new(), Vec::new());
        let mut replay = Replay::default();
        let numbers = Segment::numbers(&*disk, dir)?;
        let (mut short, mut last_is_empty) = (Vec::new(), false);
        for number in &numbers {
            let segment = Segment::open(&*disk, dir, *number)?;
            let (points, torn) = (replay.points, replay.torn_bytes_cut);
            let len = segment.replay(&mut apply, &mut replay)?;
            if replay.points > points {
                replay.cut_short.append(&mut short);
            }
            let shown = segment.path.display();
            if let Some(gone) = before.ends.get(number).and_then(|end| end.checked_sub(len)).filter(|gone| *gone > 0) {
                replay.corrupt.push(format!("{shown} at byte {len}: {gone} bytes that were on the disk are gone"));
            } else if replay.torn_bytes_cut > torn {
                let bytes = replay.torn_bytes_cut - torn;
                short.push(format!("{shown} at byte {len}: {bytes} bytes of a record that does not end"));
            } else if len < EMPTY_BYTES {
                short.push(format!("{shown} at byte {len}: the file ends before its first record"));
            }
            last_is_empty = len <= EMPTY_BYTES;
            full.insert(*number, len);
            // Whoever wrote it may have been killed before it was synced.
            unsynced.push(segment);
        }
        replay.segments = numbers.len();
        // The name of one that is missing stays free: it may be brought back.
        last_is_empty &= numbers.last().is_some_and(|last| *last > before.newest);
        if last_is_empty {
            // Nothing is lost with it, and starts that fail one after the other leave one file, not one each.
            unsynced.pop();
            full.pop_last();
        }
        let last = numbers.last().map_or(0, |last| last - u64::from(last_is_empty)).max(before.newest);
        let segment = Segment::create_at_start(&*disk, dir, last + 1, last_is_empty)?;
        let writer = Writer {
            segment,
            len: EMPTY_BYTES,
            ready: None,
            written: 0,
            unsynced,
            full,
            ends: BTreeMap::new(),
            last_end: (0, 0),
            doubtful_to: 0,
        };
        let log = Log {
            disk,
            dir: dir.to_path_buf(),
            segment_bytes,
            writer: RankedMutex::new(locks::LOG_WRITER, writer),
            preparing: RankedMutex::new(locks::LOG_PREPARE, ()),
            is_full: AtomicBool::new(false),
            synced: RankedMutex::new(locks::LOG_SYNC, Synced::default()),
            sync_failed: AtomicBool::new(false),
            let_go_below: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        };
        Ok((log, replay))
    }

    /// Appends encoded records. Returns the batch's number, for `sync_to`.
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        let mut writer = self.writer();
        let is_full = writer.len + bytes.len() as u64 > self.segment_bytes && !writer.is_empty();
        if is_full && !writer.go_over() {
            self.is_full.store(true, Relaxed);
        }
        if let Err(cause) = writer.segment.file.write_at(bytes, writer.len) {
            // Should this fail as well, the next write goes to the same place and covers what was torn.
            let _ = writer.segment.file.set_len(writer.len);
            return Err(Error::disk("write", &writer.segment.path)(cause));
        }
        writer.len += bytes.len() as u64;
        writer.written += 1;
        Ok(writer.written)
    }

    /// Writes as much as many batches behind the end, and cuts it off again. A kill in between leaves zeros, which the
    /// next start cuts.
    pub fn try_append(&self) -> Result<()> {
        let writer = self.writer();
        let written = writer.segment.file.write_at(&TRIED, writer.len);
        let cut = writer.segment.file.set_len(writer.len);
        written.and(cut).map_err(Error::disk("write", &writer.segment.path))
    }

    /// Makes a segment ready where the current one is full, unless somebody is at it: for each sender before it takes a
    /// lock.
    pub fn make_room(&self) -> Result<()> {
        if !self.is_full.load(Relaxed) {
            return Ok(());
        }
        self.preparing.try_lock().map_or(Ok(()), |held| self.prepare_locked(&held))
    }

    /// Makes a segment ready where the current one is half full: for whoever comes each second.
    pub fn prepare_ahead(&self) -> Result<()> {
        let is_half_full = self.writer().len > self.segment_bytes / 2;
        if is_half_full { self.prepare() } else { Ok(()) }
    }

    /// Makes a segment ready, unless the current one is empty.
    pub fn prepare(&self) -> Result<()> {
        self.prepare_locked(&self.preparing.lock())
    }

    fn prepare_locked(&self, _preparing: &MutexGuard<'_, ()>) -> Result<()> {
        let number = {
            let writer = self.writer();
            if writer.ready.is_some() || writer.is_empty() {
                return Ok(());
            }
            writer.segment.number + 1
        };
        // The number stays the next one: without a segment that is ready nobody goes over, and only the holder makes
        // one.
        let segment = Segment::create(&*self.disk, &self.dir, number)?;
        self.writer().ready = Some(segment);
        self.is_full.store(false, Relaxed);
        Ok(())
    }

    /// Makes everything that is written durable, short of what a failure leaves in doubt.
    pub fn sync(&self) -> Result<()> {
        let mut synced = self.synced();
        let has_nothing = {
            let writer = self.writer();
            writer.written <= synced.to && writer.unsynced.is_empty()
        };
        if has_nothing { Ok(()) } else { self.sync_locked(&mut synced) }
    }

    /// Makes the batches up to `number` durable, with all that were written meanwhile.
    pub fn sync_to(&self, number: u64) -> Result<()> {
        let mut synced = self.synced();
        if number <= synced.doubtful {
            let cause = std::io::Error::other("a sync failed since the batch was written; send it again");
            return Err(Error::disk("sync", &self.dir)(cause));
        }
        if number <= synced.to { Ok(()) } else { self.sync_locked(&mut synced) }
    }

    fn sync_locked(&self, synced: &mut Synced) -> Result<()> {
        let (current, len, written, unsynced) = {
            let writer = self.writer();
            (writer.segment.clone(), writer.len, writer.written, writer.unsynced.clone())
        };
        self.syncs.fetch_add(1, Relaxed);
        for segment in unsynced.iter().chain([&current]) {
            if let Err(cause) = segment.file.sync() {
                // Nobody knows of batches written during the sync; counting them in costs their senders a repetition.
                let mut writer = self.writer();
                synced.doubtful = writer.written;
                writer.doubtful_to = writer.segment.number;
                self.sync_failed.store(true, Relaxed);
                return Err(Error::disk("sync", &segment.path)(cause));
            }
        }
        let mut writer = self.writer();
        writer.unsynced.retain(|segment| unsynced.iter().all(|done| done.number != segment.number));
        writer.note_synced(&unsynced, current.number, len);
        drop(writer);
        synced.to = written;
        self.sync_failed.store(false, Relaxed);
        Ok(())
    }

    /// Whether the last sync failed.
    pub fn sync_failed(&self) -> bool {
        self.sync_failed.load(Relaxed)
    }

    /// Count of the times that the disk was asked to sync.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Relaxed)
    }

    /// Goes over to the segment that is ready, unless the current one is empty; `None` when none is ready. Returns the
    /// number of the current one: all points appended before this call are in segments below it.
    pub fn rotate(&self) -> Option<u64> {
        let mut writer = self.writer();
        (writer.is_empty() || writer.go_over()).then(|| writer.segment.number)
    }

    /// Takes the segments below `number` for removed: they are named no more.
    pub fn let_go_below(&self, number: u64) {
        self.let_go_below.fetch_max(number, Relaxed);
    }

    /// Numbers of the segments that there are, ascending; those that were let go are not among them.
    pub fn numbers(&self) -> Vec<u64> {
        let from = self.let_go_below.load(Relaxed);
        let writer = self.writer();
        let ready = writer.ready.as_ref().map(|segment| segment.number);
        writer.full.range(from..).map(|(number, _)| *number).chain([writer.segment.number]).chain(ready).collect()
    }

    /// Bytes of segments that are on the disk, by number: whoever finds less knows that it was taken.
    pub fn ends(&self) -> BTreeMap<u64, u64> {
        let from = self.let_go_below.load(Relaxed);
        self.writer().ends.range(from..).map(|(number, end)| (*number, *end)).collect()
    }

    /// Notes all of the current segment that the last sync made durable.
    pub fn note_end(&self) {
        let mut writer = self.writer();
        let (number, len) = writer.last_end;
        if let Some(end) = writer.ends.get_mut(&number) {
            *end = len.max(*end);
        }
    }

    /// Removes the segments below `number`, which were let go.
    pub fn remove_below(&self, number: u64) -> Result<()> {
        let old: Vec<u64> = self.writer().full.range(..number).map(|(number, _)| *number).collect();
        for number in &old {
            let path = Segment::path(&self.dir, *number);
            self.disk.remove(&path).map_err(Error::disk("remove", &path))?;
            let mut writer = self.writer();
            writer.full.remove(number);
            writer.ends.remove(number);
            writer.unsynced.retain(|unsynced| unsynced.number != *number);
        }
        if !old.is_empty() {
            // Else a power cut brings one back, perhaps torn, to be replayed in vain and reported.
            self.disk.sync_dir(&self.dir).map_err(Error::disk("sync", &self.dir))?;
        }
        Ok(())
    }

    /// Bytes that remembering the segments takes; the bytes of a batch are its caller's.
    pub fn memory_bytes(&self) -> usize {
        let writer = self.writer();
        // A node of the tree has room for eleven entries and is half full at least.
        let full = (writer.full.len() + writer.ends.len()) * 2 * size_of::<(u64, u64)>();
        let unsynced = writer.unsynced.capacity() * size_of::<Segment>();
        full + unsynced + writer.unsynced.iter().map(|segment| segment.path.capacity()).sum::<usize>()
    }

    /// Bytes and number of the segments that have batches, and of the current one.
    pub fn size(&self) -> (u64, usize) {
        let writer = self.writer();
        (writer.full.values().sum::<u64>() + writer.len, writer.full.len() + 1)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.must_lock("no panic while holding the log")
    }

    fn synced(&self) -> MutexGuard<'_, Synced> {
        self.synced.must_lock("no panic while syncing")
    }
}
