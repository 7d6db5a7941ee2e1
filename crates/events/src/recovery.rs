//! Recovery: what the segments hold when the queue is opened.
//!
//! How: all segments are read in order, and the alarms' states followed. Invariants: damage is reported and passed over, what
//! follows it is read; nothing in a file can stop the opening but a format of the future.
//! Memory: one segment and the events of the open problems, until the judge has taken them.

use crate::entry::AlarmKey;
use crate::readers::Runs;
use crate::record::{EVENT, FORGET, OPEN, Place, Record, SNAPSHOT_END, find_record, parse_record};
use crate::segment::{MAGIC, Segment, told};
use model::{Event, Status};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

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
    pub(crate) fn tell(&self, dir: &Path) {
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

#[derive(Clone)]
pub(crate) struct FoundProblem {
    pub(crate) seq: u64,
    pub(crate) place: Place,
    pub(crate) record: Vec<u8>,
    pub(crate) event: Event,
}

/// Reads all segments in order and follows the alarms' states.
#[derive(Default)]
pub(crate) struct Recovery {
    pub(crate) open: HashMap<AlarmKey, FoundProblem>,
    pub(crate) found: Recovered,
    pub(crate) next_seq: u64,
    /// Which sequence numbers were given.
    pub(crate) runs: Runs,
    /// Of the segment read last.
    pub(crate) snapshot_whole: bool,
    /// What is not a record at the end of the segment read last: torn, if no segment follows.
    last_end: Option<Damage>,
}

impl Recovery {
    pub(crate) fn end_of_last_as_damage(&mut self) {
        self.found.damaged.extend(self.last_end.take());
    }

    pub(crate) fn read_segment(&mut self, path: &Path, first_seq: u64) -> io::Result<Segment> {
        let bytes = std::fs::read(path).map_err(told("cannot read", path))?;
        if bytes.len() >= MAGIC.len() && bytes[..7] == MAGIC[..7] && bytes[7] != MAGIC[7] {
            let (path, found, known) = (path.display(), bytes[7], MAGIC[7]);
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("{path} has format {found}, this program knows {known}: run the newer program that wrote it"),
            ));
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
                self.next_seq = self.next_seq.max(record.seq.saturating_add(1));
                if record.kind != OPEN {
                    self.runs.add(record.seq..record.seq.saturating_add(1));
                }
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
pub(crate) fn apply(open: &mut HashMap<AlarmKey, FoundProblem>, record: &Record<'_>, whole: &[u8], at: usize) -> bool {
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

pub(crate) fn in_order(open: &HashMap<AlarmKey, FoundProblem>) -> Vec<(AlarmKey, &FoundProblem)> {
    let sorted: BTreeMap<_, _> = open.iter().map(|(key, found)| (found.seq, (*key, found))).collect();
    sorted.into_values().collect()
}
