//! Block: an immutable file with points, or with the roll-ups of points, of many series within one or some UTC days.
//!
//! Why: deleting old points must be dropping files, and a query for a series must cost a few small reads, not a scan.
//! How: chunks of up to 256 series, then an index page for them, and so on in ascending series id; a directory of the
//! pages and a footer at the end. Written to a temporary name, synced, renamed. docs/format/block.md draws the bytes.
//! What a file stands for is in its [`Label`]; which files count is `catalog.rs`'s to say.
//! Invariants: the writer holds one page and the directory, never the file; a reader trusts no byte before its
//! checksum; a file without a sound footer is not a block; points of a series ascend strictly within a block; a chunk
//! with points is of one day.
//! Memory: some 200 bytes per file, 4 per 16,384 series in it, and its directory if that is small (up to 4 KiB).

use super::label::{Kind, Label, SUFFIX};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use stdx::{Disk, DiskFile, crc32};

/// First and last bytes of a block of this version.
pub const MAGIC: &[u8; 8] = b"HKBLK002";
/// The bytes that the magics of all versions begin with.
const MAGIC_STEM: &[u8] = b"HKBLK";
const TEMP_SUFFIX: &str = ".tmp";
const DAMAGED_SUFFIX: &str = ".damaged";

/// Entries of a full index page.
pub const PAGE_ENTRIES: usize = 256;
/// Bytes of a page's entry in the directory.
pub const DIRECTORY_ENTRY_BYTES: usize = 24;
/// Pages whose directory entries share a checksum: what a lookup reads of the directory is 1.5 KiB however many series
/// there are.
pub const SECTION_PAGES: usize = 64;
/// Bytes of a full section of the directory, its checksum included.
pub const SECTION_BYTES: usize = SECTION_PAGES * DIRECTORY_ENTRY_BYTES + 4;
const FOOTER_BYTES: usize = 92;

/// A block on disk: what is known of it without opening it.
pub struct Block {
    pub path: PathBuf,
    pub label: Label,
    /// The least time of a point, or of the end of a bucket.
    pub min_time: u32,
    pub max_time: u32,
    /// Count of points, or of buckets.
    pub points: u64,
    pub bytes: u64,
    pub series_count: u32,
    pub first_series: u32,
    pub last_series: u32,
    pub directory: Directory,
}

/// A directory of no more bytes than this (of some 40,000 series) stays in memory: cold, that saves a third of the
/// reads.
pub const DIRECTORY_KEPT_BYTES: usize = 4096;

/// The directory's place, and the first series of each of its sections.
pub struct Directory {
    pub offset: u64,
    pub bytes: u32,
    pub fences: Box<[u32]>,
    /// Bytes of the directory, all of them or none.
    pub kept: Box<[u8]>,
}

impl Block {
    /// Bytes that a known block holds while it is not open.
    pub fn memory_bytes(&self) -> usize {
        let directory = size_of_val(&*self.directory.fences) + self.directory.kept.len();
        // The counts of an `Arc` stand before what it holds.
        2 * size_of::<usize>() + size_of::<Block>() + self.path.capacity() + directory
    }
}

impl Directory {
    /// Number of index pages.
    pub fn page_count(&self) -> usize {
        let sections = self.fences.len();
        (self.bytes as usize - 4 * sections) / DIRECTORY_ENTRY_BYTES
    }
}

/// Names of the blocks in `dir`; temporary files of a writer that did not end are removed.
pub fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>> {
    disk.create_dir(dir).map_err(Error::disk("create", dir))?;
    let mut paths = Vec::new();
    for name in disk.list(dir).map_err(Error::disk("list", dir))? {
        let path = dir.join(&name);
        if name.ends_with(TEMP_SUFFIX) {
            disk.remove(&path).map_err(Error::disk("remove", &path))?;
        } else if name.ends_with(SUFFIX) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The number that a file's name tells, for when its content does not; 0 for a name that is none of ours.
pub fn number_of_name(path: &Path) -> u64 {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let digits = stem.and_then(|stem| stem.rsplit_once('-')).map(|(_, digits)| digits);
    // Beyond this nobody has flushed; the next number must still fit.
    digits.and_then(|digits| digits.parse::<u32>().ok()).map_or(0, u64::from)
}

impl Block {
    /// Reads the footer, and the directory once, so that a damaged one is reported now and not in some query.
    pub fn open(disk: &dyn Disk, path: PathBuf) -> Result<Block> {
        let file = disk.open(&path).map_err(Error::disk("open", &path))?;
        let bytes = file.len().map_err(Error::disk("read", &path))?;
        let corrupt = |offset: u64, what: &str| Error::Corrupt { path: path.clone(), offset, what: what.to_string() };
        let footer_at =
            bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| corrupt(bytes, "too short for a block"))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(&mut footer, footer_at).map_err(Error::disk("read", &path))?;
        let (body, magic) = footer.split_last_chunk::<8>().expect("a footer is longer");
        if magic != MAGIC && magic.starts_with(MAGIC_STEM) {
            let version = String::from_utf8_lossy(&magic[MAGIC_STEM.len()..]).into_owned();
            return Err(corrupt(bytes, &format!("a block of version {version}, this program reads 002")));
        }
        let (fields, crc) = body.split_last_chunk::<4>().expect("a footer is longer");
        if magic != MAGIC || u32::from_le_bytes(*crc) != crc32(&[fields]) {
            return Err(corrupt(bytes, "no footer of a block"));
        }
        let footer = Footer::parse(fields).ok_or_else(|| corrupt(footer_at, "a footer of a kind not known"))?;
        let (offset, directory_bytes) = (footer.directory_offset, footer.directory_bytes);
        if offset.checked_add(u64::from(directory_bytes)) != Some(footer_at) {
            return Err(corrupt(footer_at, "the footer points outside the file"));
        }
        let directory = Directory::read(&*file, offset, directory_bytes as usize)
            .map_err(Error::disk("read", &path))?
            .ok_or_else(|| corrupt(offset, "the directory's checksum does not fit"))?;
        Ok(footer.into_block(path, bytes, directory))
    }

    /// Error for damage at `offset` of this block.
    pub fn corrupt(&self, offset: u64, what: &str) -> Error {
        Error::Corrupt { path: self.path.clone(), offset, what: what.to_string() }
    }

    /// Whether the block may have points, or buckets, within [from, to].
    pub fn overlaps(&self, from: u32, to: u32) -> bool {
        self.series_count > 0 && self.min_time <= to && self.max_time >= from
    }

    /// Greatest id of a series in this block; `None` of an empty one.
    pub fn last_series(&self) -> Option<u32> {
        (self.series_count > 0).then_some(self.last_series)
    }

    /// Removes the file; fine when it is gone.
    pub fn remove(&self, disk: &dyn Disk) -> Result<()> {
        gone_is_fine(disk.remove(&self.path)).map_err(Error::disk("remove", &self.path))
    }

    /// Takes the file out of the way, but leaves it to whoever wants to see what can be saved of it.
    pub fn set_aside(&self, disk: &dyn Disk) -> Result<()> {
        let aside = self.path.with_extension(&DAMAGED_SUFFIX[1..]);
        gone_is_fine(disk.rename(&self.path, &aside)).map_err(Error::disk("rename", &self.path))
    }
}

fn gone_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

impl Directory {
    /// `None` when a checksum does not fit.
    fn read(file: &dyn DiskFile, offset: u64, bytes: usize) -> std::io::Result<Option<Directory>> {
        let (mut fences, mut kept) = (Vec::new(), Vec::new());
        let mut section = [0; SECTION_BYTES];
        for at in (0..bytes).step_by(SECTION_BYTES) {
            let section = &mut section[..SECTION_BYTES.min(bytes - at)];
            file.read_at(section, offset + at as u64)?;
            let Some(entries) = section_entries(section) else { return Ok(None) };
            fences.push(u32_at(entries, 0));
            if bytes <= DIRECTORY_KEPT_BYTES {
                kept.extend_from_slice(section);
            }
        }
        Ok(Some(Directory { offset, bytes: bytes as u32, fences: fences.into(), kept: kept.into() }))
    }
}

/// The entries of a sound section, at least one; `None` when the checksum does not fit.
pub fn section_entries(section: &[u8]) -> Option<&[u8]> {
    let (entries, crc) = section.split_last_chunk::<4>()?;
    let whole = !entries.is_empty() && entries.len().is_multiple_of(DIRECTORY_ENTRY_BYTES);
    (whole && crc32(&[entries]) == u32::from_le_bytes(*crc)).then_some(entries)
}

/// The fields of a footer, but for magic and checksum.
pub struct Footer {
    pub label: Label,
    pub min_time: u32,
    pub max_time: u32,
    pub series_count: u32,
    pub first_series: u32,
    pub last_series: u32,
    pub points: u64,
    pub directory_offset: u64,
    pub directory_bytes: u32,
}

impl Footer {
    fn parse(bytes: &[u8]) -> Option<Footer> {
        let label = Label {
            kind: Kind::from_u8(bytes[0])?,
            level: bytes[1],
            days: u16::from_le_bytes([bytes[2], bytes[3]]),
            first_day: u32_at(bytes, 4),
            number: u64_at(bytes, 36),
            first_flush: u64_at(bytes, 44),
            last_flush: u64_at(bytes, 52),
            last_flush_before: u64_at(bytes, 60),
        };
        Some(Footer {
            label,
            min_time: u32_at(bytes, 8),
            max_time: u32_at(bytes, 12),
            series_count: u32_at(bytes, 16),
            first_series: u32_at(bytes, 20),
            last_series: u32_at(bytes, 24),
            points: u64_at(bytes, 28),
            directory_offset: u64_at(bytes, 68),
            directory_bytes: u32_at(bytes, 76),
        })
    }

    /// Appends the footer, checksum and magic included.
    pub fn push(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let label = &self.label;
        out.extend_from_slice(&[label.kind as u8, label.level]);
        out.extend_from_slice(&label.days.to_le_bytes());
        let words =
            [label.first_day, self.min_time, self.max_time, self.series_count, self.first_series, self.last_series];
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        let longs = [
            self.points,
            label.number,
            label.first_flush,
            label.last_flush,
            label.last_flush_before,
            self.directory_offset,
        ];
        longs.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        out.extend_from_slice(&self.directory_bytes.to_le_bytes());
        let crc = crc32(&[&out[start..]]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(MAGIC);
        debug_assert_eq!(out.len() - start, FOOTER_BYTES);
    }

    /// Makes a block of a footer, of its file and of the directory.
    pub fn into_block(self, path: PathBuf, bytes: u64, directory: Directory) -> Block {
        Block {
            path,
            label: self.label,
            min_time: self.min_time,
            max_time: self.max_time,
            points: self.points,
            bytes,
            series_count: self.series_count,
            first_series: self.first_series,
            last_series: self.last_series,
            directory,
        }
    }
}

/// Reads a number at `at` of `bytes`, which is long enough: lengths are checked where it was read.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

/// Reads a number at `at` of `bytes`, which is long enough, see [`u32_at`].
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
