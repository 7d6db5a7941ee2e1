//! Segment: a file of records that begins with a snapshot of the open problems.
//!
//! Invariants: a segment has its name only when its snapshot is complete.
//! Memory: a writer of snapshots holds [`BUFFER_KEEP`] bytes and the places of what it wrote.

use crate::Fsync;
use crate::entry::AlarmKey;
use crate::record::{BODY_MIN, HEAD, OPEN, Place, SNAPSHOT_END, parse_record, push_record};
use model::Event;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::{Disk, DiskFile};

pub(crate) const MAGIC: &[u8; 8] = b"hkevent\x01";

/// A batch larger than this is rare; its buffer is given back.
pub(crate) const BUFFER_KEEP: usize = 64 << 10;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) first_seq: u64,
    /// Offset in the file at which the snapshot ends and events begin.
    pub(crate) events_at: u64,
    pub(crate) end: u64,
}

/// Last PROBLEM of an open alarm, as a segment holds it.
#[derive(Clone)]
pub(crate) struct FoundProblem {
    pub(crate) place: Place,
    pub(crate) record: Vec<u8>,
    pub(crate) event: Event,
}

/// Says in an error what was tried with which file.
pub(crate) fn told(what: &str, path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

pub(crate) fn segment_path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("{first_seq:020}.events"))
}

/// First sequence numbers of the segments in `dir`, ascending. Removes what was never finished.
pub(crate) fn list_segments(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let mut segments = Vec::new();
    for name in disk.list(dir).map_err(told("cannot list", dir))? {
        let first_seq = name.strip_suffix(".events").and_then(|number| number.parse().ok());
        match first_seq {
            Some(first_seq) if segment_path(dir, first_seq) == dir.join(&name) => segments.push(first_seq),
            _ if name.ends_with(".tmp") => {
                let path = dir.join(&name);
                disk.remove(&path).map_err(told("cannot remove", &path))?;
            }
            _ => {}
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

pub(crate) fn cut_tail(file: &dyn DiskFile, end: u64) -> io::Result<u64> {
    let torn = file.len()?.saturating_sub(end);
    if torn > 0 {
        file.set_len(end)?;
    }
    Ok(torn)
}

pub(crate) type Created = (Segment, Arc<dyn DiskFile>, HashMap<AlarmKey, Place>);

/// Writes a segment that holds `open` as its snapshot.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    dir: &Path,
    first_seq: u64,
    fsync: Fsync,
    open: &[(AlarmKey, &FoundProblem)],
) -> io::Result<Created> {
    let unnamed = dir.join("next.tmp");
    let file = disk.open_or_create(&unnamed)?;
    let write = || {
        file.set_len(0)?;
        let mut writer = SnapshotWriter::new(&*file);
        for (key, found) in open {
            writer.push(*key, &found.record)?;
        }
        let (events_at, places) = writer.end()?;
        if fsync != Fsync::Never {
            file.sync()?;
        }
        disk.rename(&unnamed, &segment_path(dir, first_seq))?;
        if fsync != Fsync::Never {
            disk.sync_dir(dir)?;
        }
        Ok((Segment { first_seq, events_at, end: events_at }, places))
    };
    match write() {
        Ok((segment, places)) => Ok((segment, file.clone(), places)),
        Err(error) => {
            // A leftover would be removed at the next start; the error that counts is the first.
            let _ = disk.remove(&unnamed);
            Err(error)
        }
    }
}

/// The length of a snapshot of these records, with the file's head.
pub(crate) fn snapshot_bytes(places: impl Iterator<Item = Place>) -> u64 {
    let records: u64 = places.map(|place| u64::from(place.len)).sum();
    MAGIC.len() as u64 + records + (HEAD + BODY_MIN + size_of::<u32>()) as u64
}

/// Writes a file's head and snapshot from its beginning on.
pub(crate) struct SnapshotWriter<'f> {
    file: &'f dyn DiskFile,
    /// Bytes of the file that are written.
    written: u64,
    buffer: Vec<u8>,
    places: HashMap<AlarmKey, Place>,
}

impl<'f> SnapshotWriter<'f> {
    pub(crate) fn new(file: &'f dyn DiskFile) -> SnapshotWriter<'f> {
        SnapshotWriter { file, written: 0, buffer: MAGIC.to_vec(), places: HashMap::new() }
    }

    /// Adds the record of an open problem, as it is in another segment.
    pub(crate) fn push(&mut self, key: AlarmKey, record: &[u8]) -> io::Result<()> {
        let Some((old, _)) = parse_record(record, 0) else {
            return Err(io::Error::new(ErrorKind::InvalidData, "the record of an open problem is damaged"));
        };
        let place = push_record(&mut self.buffer, OPEN, old.seq, old.payload)?;
        let at = u32::try_from(self.written + u64::from(place.at)).map_err(io::Error::other)?;
        self.places.insert(key, Place { at, ..place });
        if self.buffer.len() >= BUFFER_KEEP { self.flush() } else { Ok(()) }
    }

    /// Answers where the snapshot ends, and where its records are.
    pub(crate) fn end(mut self) -> io::Result<(u64, HashMap<AlarmKey, Place>)> {
        push_record(&mut self.buffer, SNAPSHOT_END, 0, &(self.places.len() as u32).to_le_bytes())?;
        self.flush()?;
        Ok((self.written, self.places))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
