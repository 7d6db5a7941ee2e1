//! Segment: one file of a spool, frames behind a head of eight bytes.
//!
//! Invariants: a segment's number is above those of all before it, also of those that are gone; its frames are whole up
//! to its length, and what is behind that was never answered for.

use crate::frame::{Found, HEAD_BYTES, PAYLOAD_BYTES_MAX, find};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::{Disk, DiskFile};

/// What a file begins with.
pub const MAGIC: &[u8; 8] = b"HKSPOOL1";
/// Bytes that are read at once: the longest frame has its place in them.
pub const READ_BYTES: usize = 2 * PAYLOAD_BYTES_MAX;

/// A file and what is in it.
pub struct Segment {
    pub number: u64,
    /// Open while the segment is written to.
    pub file: Option<Arc<dyn DiskFile>>,
    /// End of its last whole frame.
    pub length: u64,
    pub records: u64,
}

/// What stands in a segment's file behind its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Nothing,
    /// So many bytes that are no frame, or not a whole one.
    Bytes(u64),
    /// The whole file is of another kind.
    Foreign,
}

/// Path of a segment.
pub fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.spool"))
}

/// Number of a segment by its file's name.
pub fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".spool").filter(|stem| stem.len() == 16).and_then(|stem| u64::from_str_radix(stem, 16).ok())
}

impl Segment {
    /// Begins an empty segment.
    pub fn create(disk: &dyn Disk, dir: &Path, number: u64) -> io::Result<Segment> {
        let file = disk.open_or_create(&path(dir, number))?;
        // An attempt that failed may have left something.
        file.set_len(0)?;
        file.write_at(MAGIC, 0)?;
        Ok(Segment { number, file: Some(file), length: MAGIC.len() as u64, records: 0 })
    }

    /// Reads a segment through; answers it, and what is behind its frames.
    pub fn open(disk: &dyn Disk, dir: &Path, number: u64) -> io::Result<(Segment, Left)> {
        let file = disk.open(&path(dir, number))?;
        let end = file.len()?;
        let mut segment = Segment { number, file: None, length: 0, records: 0 };
        let mut magic = [0; MAGIC.len()];
        if end < MAGIC.len() as u64 {
            return Ok((segment, if end == 0 { Left::Nothing } else { Left::Bytes(end) }));
        }
        file.read_at(&mut magic, 0)?;
        if &magic != MAGIC {
            // A file whose length was kept, and whose content was not, is torn.
            return Ok((segment, if magic == [0; MAGIC.len()] { Left::Bytes(end) } else { Left::Foreign }));
        }
        segment.length = MAGIC.len() as u64;
        let mut buffer = Vec::new();
        while segment.length < end {
            fill(&*file, &mut buffer, segment.length, end)?;
            let mut rest = &buffer[..];
            let mut is_stuck = true;
            while let Found::Frame { records, payload } = find(rest) {
                let taken = HEAD_BYTES + payload.len();
                segment.length += taken as u64;
                segment.records += u64::from(records);
                rest = &rest[taken..];
                is_stuck = false;
            }
            // Nothing was found in as many bytes as the longest frame has.
            if is_stuck {
                let left = end - segment.length;
                return Ok((segment, Left::Bytes(left)));
            }
        }
        Ok((segment, Left::Nothing))
    }
}

/// Reads what stands at `offset` of a file, as far as `end` and [`READ_BYTES`] go.
pub fn fill(file: &dyn DiskFile, buffer: &mut Vec<u8>, offset: u64, end: u64) -> io::Result<()> {
    let bytes = end.saturating_sub(offset).min(READ_BYTES as u64) as usize;
    buffer.clear();
    buffer.resize(bytes, 0);
    file.read_at(buffer, offset)
}
