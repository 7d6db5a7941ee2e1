//! Segment: one file of the log: begun empty, appended to, read once at start, removed when its points are in blocks.
//!
//! Invariants: a segment's name is durable before its first batch is written; a tail that a crash tore is cut off at
//! the next start, and damage costs the records that it hit.
//! Memory: a whole segment while it is replayed.

use super::batch::decode;
use crate::error::{Error, Result};
use crate::record::{Item, Reader};
use model::Sample;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::{Disk, DiskFile};

const MAGIC: &[u8; 8] = b"HKLOG001";

/// Length of a segment without a batch.
pub const EMPTY_BYTES: u64 = MAGIC.len() as u64;

/// A file of the log, open for writing.
#[derive(Clone)]
pub struct Segment {
    pub number: u64,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
}

/// Findings of replaying the log.
#[derive(Default)]
pub struct Replay {
    pub points: u64,
    pub segments: usize,
    pub torn_bytes_cut: u64,
    /// Segments that end in a torn record or hold nothing, though later ones have records; those that are `corrupt` for
    /// it are not among them.
    pub cut_short: Vec<String>,
    /// File, offset and what was wrong there; the rest was read.
    pub corrupt: Vec<String>,
}

/// File name of the segment with this number.
pub fn segment_name(number: u64) -> String {
    format!("{number:08}.log")
}

impl Segment {
    /// Begins an empty segment whose name is durable. What an earlier try left under the name is cut off; a try that
    /// fails leaves no file.
    pub fn create(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Segment> {
        let segment = Segment::open(disk, dir, number)?;
        segment.begin(disk, dir, Err).inspect_err(|_| segment.take_away(disk))?;
        Ok(segment)
    }

    /// Begins the segment of a start, or goes on with the last one if it `holds_nothing`; also where the disk has no
    /// room for its head: zeros in place of one are read, and nobody hears of alarms from a server that does not start.
    pub fn create_at_start(disk: &dyn Disk, dir: &Path, number: u64, holds_nothing: bool) -> Result<Segment> {
        let segment = Segment::open(disk, dir, number)?;
        let do_without = |cause: io::Error| match cause.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Ok(()),
            _ => Err(cause),
        };
        let begun = segment.begin(disk, dir, do_without);
        // One that was there before may be in the manifest, and would be missed.
        begun.inspect_err(|_| {
            if !holds_nothing {
                segment.take_away(disk)
            }
        })?;
        Ok(segment)
    }

    fn begin(&self, disk: &dyn Disk, dir: &Path, without_head: impl Fn(io::Error) -> io::Result<()>) -> Result<()> {
        let Segment { path, file, .. } = self;
        let begun = file.set_len(0).and_then(|()| file.write_at(MAGIC, 0).or_else(without_head));
        begun.map_err(Error::disk("write", path))?;
        disk.sync_dir(dir).map_err(Error::disk("sync", dir))
    }

    /// Removes what could not be begun. Should this fail as well, the next try finds an empty file and takes that.
    fn take_away(&self, disk: &dyn Disk) {
        let _ = disk.remove(&self.path);
    }

    /// Opens a segment, creating the file when there is none.
    pub fn open(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Segment> {
        let path = Segment::path(dir, number);
        let file = disk.open_or_create(&path).map_err(Error::disk("open", &path))?;
        Ok(Segment { number, path, file })
    }

    /// Path of the segment with this number.
    pub fn path(dir: &Path, number: u64) -> PathBuf {
        dir.join(segment_name(number))
    }

    /// The numbers of the segments in `dir`, ascending.
    pub fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
        let names = disk.list(dir).map_err(Error::disk("list", dir))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Hands all samples to `apply`; returns the segment's length after a torn tail was cut.
    pub fn replay(&self, apply: &mut impl FnMut(Sample), replay: &mut Replay) -> Result<u64> {
        let Segment { path, file, .. } = self;
        let mut bytes = vec![0; file.len().map_err(Error::disk("read", path))? as usize];
        file.read_at(&mut bytes, 0).map_err(Error::disk("read", path))?;
        let shown = path.display();
        // Zeros are what a power cut leaves of a head that was not synced yet.
        if bytes.iter().zip(MAGIC).any(|(byte, wanted)| byte != wanted && *byte != 0) {
            // Records behind a broken head are marked and summed: they are looked for all the same.
            replay.corrupt.push(format!("{shown} at byte 0: not the head of a log segment"));
        }
        let mut len = bytes.len() as u64;
        for item in Reader::new(&bytes, MAGIC.len()) {
            match item {
                Item::Payload(offset, payload) => {
                    if decode(payload, |sample| {
                        apply(sample);
                        replay.points += 1;
                    })
                    .is_none()
                    {
                        replay.corrupt.push(format!("{shown} at byte {offset}: not a batch of points"));
                    }
                }
                Item::Corrupt { offset, bytes } => {
                    replay.corrupt.push(format!("{shown} at byte {offset}: {bytes} bytes skipped"));
                }
                Item::Torn { offset, bytes } => {
                    replay.torn_bytes_cut += bytes as u64;
                    len = offset as u64;
                    file.set_len(len).map_err(Error::disk("cut", path))?;
                }
            }
        }
        Ok(len)
    }
}
