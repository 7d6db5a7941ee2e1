//! Segment: a file of records that begins with a snapshot of the open problems.
//!
//! Invariants: a segment has its name only when its snapshot is complete.

use crate::Fsync;
use crate::entry::AlarmKey;
use crate::record::{OPEN, Place, SNAPSHOT_END, parse_record, push_record};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

pub(crate) const MAGIC: &[u8; 8] = b"hkevent\x01";

/// A batch larger than this is rare; its buffer is given back.
pub(crate) const BUFFER_KEEP: usize = 64 << 10;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) first_seq: u64,
    /// Where the snapshot ends and events begin.
    pub(crate) events_at: u64,
    pub(crate) end: u64,
}

/// Says in an error what was tried with which file.
pub(crate) fn told(what: &str, path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

pub(crate) fn segment_path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("{first_seq:020}.events"))
}

pub(crate) fn list_segments(dir: &Path) -> io::Result<BTreeMap<PathBuf, u64>> {
    let mut segments = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(told("cannot list", dir))? {
        let path = entry.map_err(told("cannot list", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(first_seq) = name.strip_suffix(".events").and_then(|number| number.parse().ok()) {
            segments.insert(path, first_seq);
        } else if name.ends_with(".tmp") {
            std::fs::remove_file(&path).map_err(told("cannot remove", &path))?;
        }
    }
    Ok(segments)
}

pub(crate) fn open_segment(dir: &Path, first_seq: u64) -> io::Result<File> {
    let path = segment_path(dir, first_seq);
    OpenOptions::new().read(true).write(true).open(&path).map_err(told("cannot open", &path))
}

pub(crate) fn cut_tail(file: &File, end: u64) -> io::Result<u64> {
    let torn = file.metadata()?.len().saturating_sub(end);
    if torn > 0 {
        file.set_len(end)?;
    }
    Ok(torn)
}

pub(crate) type Created = (Segment, File, HashMap<AlarmKey, Place>);

/// Writes a segment that holds `open` (whole records) as its snapshot. It has its name only when it is complete.
pub(crate) fn create_segment(
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

pub(crate) fn write_snapshot(
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
