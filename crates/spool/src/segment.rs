//! Segment: one file of a spool, frames behind a head that says how many records the spool had before them.
//!
//! Invariants: a segment's number is above those of all before it, also of those that are gone; its frames are whole up
//! to its length, and what is behind that was never answered for.
//! Compat: a head of the first kind has no number; such a segment is read, and not written to any more.

use crate::frame::{Found, HEAD_BYTES, PAYLOAD_BYTES_MAX, find};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::{Disk, DiskFile, crc32};

/// What a file begins with.
const MAGIC: &[u8; 8] = b"HKSPOOL2";
/// What a file of the first kind begins with, which has no more of a head.
const MAGIC_1: &[u8; 8] = b"HKSPOOL1";
/// Bytes before the first frame: the magic, the records before, and the checksum of both.
const HEAD: u64 = 20;
/// Bytes that are read at once: the longest frame has its place in them.
pub const READ_BYTES: usize = 2 * PAYLOAD_BYTES_MAX;

/// A file and what is in it.
pub struct Segment {
    pub number: u64,
    /// Open while the segment is written to, and until what was written is synced.
    pub file: Option<Arc<dyn DiskFile>>,
    /// Place of its first frame; 0 where there is no file yet, or none that can be read.
    pub begin: u64,
    /// End of its last whole frame.
    pub length: u64,
    pub records: u64,
    /// Records that the spool had before it, as its head says.
    pub before: Option<u64>,
    /// Records that the spool had before it, as far as anything says.
    pub start: u64,
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
    /// A segment whose file comes with its first frames, behind `start` records.
    pub fn planned(number: u64, start: u64) -> Segment {
        Segment { number, file: None, begin: 0, length: 0, records: 0, before: Some(start), start }
    }

    /// Begins the file of a segment that was planned.
    pub fn create(&mut self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let file = disk.open_or_create(&path(dir, self.number))?;
        // An attempt that failed may have left something.
        file.set_len(0)?;
        file.write_at(&head(self.start), 0)?;
        (self.file, self.begin, self.length) = (Some(file), HEAD, HEAD);
        Ok(())
    }

    /// Whether frames may be added: not where the head is of the first kind.
    pub fn is_of_now(&self) -> bool {
        self.begin == HEAD && self.before.is_some()
    }

    /// Reads a segment through; answers it, and what is behind its frames.
    pub fn open(disk: &dyn Disk, dir: &Path, number: u64) -> io::Result<(Segment, Left)> {
        let file = disk.open(&path(dir, number))?;
        let end = file.len()?;
        let mut segment = Segment { before: None, ..Segment::planned(number, 0) };
        let mut magic = [0; MAGIC.len()];
        if end < MAGIC.len() as u64 {
            return Ok((segment, if end == 0 { Left::Nothing } else { Left::Bytes(end) }));
        }
        file.read_at(&mut magic, 0)?;
        segment.begin = match &magic {
            MAGIC if end < HEAD => return Ok((segment, Left::Bytes(end))),
            MAGIC => HEAD,
            MAGIC_1 => MAGIC_1.len() as u64,
            // A file whose length was kept, and whose content was not, is torn.
            _ if magic == [0; MAGIC.len()] => return Ok((segment, Left::Bytes(end))),
            _ => return Ok((segment, Left::Foreign)),
        };
        if segment.begin == HEAD {
            let mut bytes = [0; HEAD as usize];
            file.read_at(&mut bytes, 0)?;
            let before = [8, 9, 10, 11, 12, 13, 14, 15].map(|i| bytes[i]);
            // Frames behind a number that is damaged are whole all the same.
            segment.before = Some(u64::from_le_bytes(before)).filter(|before| head(*before) == bytes);
        }
        segment.length = segment.begin;
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

/// What a file begins with that has `before` records before it.
fn head(before: u64) -> [u8; HEAD as usize] {
    let before = before.to_le_bytes();
    let mut head = [0; HEAD as usize];
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&before);
    head[16..].copy_from_slice(&crc32(&[MAGIC, &before]).to_le_bytes());
    head
}

/// Reads what stands at `offset` of a file, as far as `end` and [`READ_BYTES`] go.
pub fn fill(file: &dyn DiskFile, buffer: &mut Vec<u8>, offset: u64, end: u64) -> io::Result<()> {
    let bytes = end.saturating_sub(offset).min(READ_BYTES as u64) as usize;
    buffer.clear();
    buffer.resize(bytes, 0);
    file.read_at(buffer, offset)
}
