//! Recovery: what the segments hold when the queue is opened.
//!
//! How: all segments are read in order, and the alarms' states followed. A segment ends, too, where the next one
//! begins: what was appended while that was begun is in both ([`crate::upkeep`]).
//! Invariants: damage is reported and passed over, what follows it is read; nothing in a file can stop the opening but
//! a format of the future.
//! Memory: [`WINDOW`] bytes of a segment, and the events of the open problems until the judge has taken them.

use crate::entry::AlarmKey;
use crate::readers::Runs;
use crate::record::{EVENT, FORGET, OPEN, Place, RECORD_MAX, RawRecord, SNAPSHOT_END, parse_record};
use crate::segment::{FoundProblem, MAGIC, Segment, told};
use model::{Event, Status};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::{Disk, DiskFile};

/// Bytes of a segment that are read at once: a few of the longest records.
const WINDOW: usize = 4 * RECORD_MAX;

/// Bytes that a disk takes at once, or not at all.
const PAGE: u64 = 4096;

/// Findings of opening the queue.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The last event of each alarm that stands at PROBLEM, oldest first: what the judge restores.
    pub open_problems: Vec<Event>,
    /// Bytes of an unfinished last write that were cut off.
    pub torn_bytes_cut: u64,
    /// Damaged places in the middle of a segment; what follows them was read.
    pub damaged: Vec<Damage>,
    /// Places in the last segment that hold no record but a page of zeros. A power cut leaves that of pages that were
    /// not synced, and somebody may have done it; the rest was read.
    pub unwritten: Vec<Damage>,
    /// Whether the list of open problems in the last segment is not whole. It was on the disk before the segment had
    /// its name.
    pub snapshot_lost: bool,
    /// Events that are whole but not understood (written by another version); they stay in the file.
    pub unreadable: u64,
}

/// A part of a file that holds no record.
#[derive(Clone, Debug, PartialEq)]
pub struct Damage {
    pub file: PathBuf,
    pub bytes: Range<u64>,
}

/// Reads all segments in order and follows the alarms' states.
#[derive(Default)]
pub(crate) struct SegmentReader {
    pub(crate) open: HashMap<AlarmKey, FoundProblem>,
    pub(crate) found: Recovery,
    pub(crate) next_seq: u64,
    /// Sequence numbers that were given.
    pub(crate) runs: Runs,
    /// Whether the segment read last begins with a whole snapshot.
    pub(crate) snapshot_whole: bool,
    /// End of the segment read last, if that is no record: torn, if no segment follows.
    last_end: Option<Damage>,
}

impl SegmentReader {
    pub(crate) fn end_of_last_as_damage(&mut self) {
        self.found.damaged.extend(self.last_end.take());
    }

    /// Reads a segment; `next_first_seq` is where the next one begins.
    pub(crate) fn read_segment(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        first_seq: u64,
        next_first_seq: Option<u64>,
    ) -> io::Result<Segment> {
        let mut window = Window::open(disk, path).map_err(told("cannot read", path))?;
        let magic = window.at(0).map_err(told("cannot read", path))?;
        if magic.len() >= MAGIC.len() && magic[..7] == MAGIC[..7] && magic[7] != MAGIC[7] {
            let (path, found, known) = (path.display(), magic[7], MAGIC[7]);
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("{path} has format {found}, this program knows {known}: run the newer program that wrote it"),
            ));
        }
        let mut at = if magic.starts_with(MAGIC) { MAGIC.len() as u64 } else { 0 };
        self.next_seq = self.next_seq.max(first_seq);
        self.snapshot_whole = false;
        let mut snapshot = HashMap::new();
        let (mut events_at, mut superseded) = (0, false);
        while at < window.file_end && !superseded {
            let bytes = window.at(at).map_err(told("cannot read", path))?;
            let Some((record, len)) = parse_record(bytes, 0) else {
                let Some(found) = window.find_record(at + 1).map_err(told("cannot read", path))? else { break };
                let is_last = next_first_seq.is_none();
                let is_unwritten = is_last && window.has_empty_page(at..found).map_err(told("cannot read", path))?;
                let list = if is_unwritten { &mut self.found.unwritten } else { &mut self.found.damaged };
                list.push(Damage { file: path.to_path_buf(), bytes: at..found });
                at = found;
                continue;
            };
            superseded = matches!(record.kind, EVENT | FORGET) && next_first_seq.is_some_and(|next| record.seq >= next);
            if superseded {
                break;
            }
            let next = at + len as u64;
            if record.kind == SNAPSHOT_END {
                events_at = next;
                self.end_snapshot(&mut snapshot, record.payload);
            } else {
                let open = if record.kind == OPEN { &mut snapshot } else { &mut self.open };
                self.found.unreadable += u64::from(!apply(open, &record, &bytes[..len], at));
                self.next_seq = self.next_seq.max(record.seq + 1);
                if record.kind != OPEN {
                    self.runs.add(record.seq..record.seq + 1);
                }
            }
            at = next;
        }
        if events_at == 0 {
            // A damaged snapshot still adds what it holds.
            self.open.extend(snapshot);
            events_at = MAGIC.len() as u64;
        }
        let rest = Damage { file: path.to_path_buf(), bytes: at..window.file_end };
        self.last_end = Some(rest).filter(|rest| !superseded && !rest.bytes.is_empty());
        Ok(Segment { first_seq, events_at: events_at.min(at), end: at })
    }

    /// Open problems with their keys, oldest first.
    pub(crate) fn in_order(&self) -> Vec<(AlarmKey, &FoundProblem)> {
        let mut sorted: Vec<_> = self.open.iter().map(|(key, found)| (*key, found)).collect();
        sorted.sort_unstable_by_key(|(_, found)| (found.place.seq, found.place.at));
        sorted
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

/// The part of a file around the record at hand.
struct Window {
    file: Arc<dyn DiskFile>,
    file_end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn open(disk: &dyn Disk, path: &Path) -> io::Result<Window> {
        let file = disk.open(path)?;
        Ok(Window { file_end: file.len()?, file, start: 0, bytes: Vec::new() })
    }

    /// The bytes from `at` on: at least as many as the longest record has, or all there are.
    fn at(&mut self, at: u64) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        let want = (at + RECORD_MAX as u64).min(self.file_end);
        if at < self.start || end < want {
            self.bytes.resize((self.file_end - at).min(WINDOW as u64) as usize, 0);
            self.start = at;
            self.file.read_at(&mut self.bytes, at)?;
        }
        Ok(&self.bytes[(at - self.start) as usize..])
    }

    /// Whether a whole page of the file within `range` has nothing but zeros.
    fn has_empty_page(&mut self, range: Range<u64>) -> io::Result<bool> {
        for page in range.start.div_ceil(PAGE)..range.end / PAGE {
            let bytes = self.at(page * PAGE)?;
            if bytes.len() as u64 >= PAGE && bytes[..PAGE as usize].iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first place from `from` on where a whole record begins.
    fn find_record(&mut self, from: u64) -> io::Result<Option<u64>> {
        for at in from..self.file_end {
            if parse_record(self.at(at)?, 0).is_some() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

/// Follows one record; false when it is not understood.
fn apply(open: &mut HashMap<AlarmKey, FoundProblem>, record: &RawRecord<'_>, whole: &[u8], at: u64) -> bool {
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
            // No append goes beyond `SEGMENT_BYTES_BOUND`.
            let place = Place { seq: record.seq, at: at as u32, len: whole.len() as u32 };
            open.insert(key, FoundProblem { place, record: whole.to_vec(), event })
        }
    };
    true
}
