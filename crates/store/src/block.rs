//! Block: an immutable file with points, or with the roll-ups of points, of many series within one or some UTC days.
//!
//! Why: deleting old points must be dropping files, and a query for a series must cost a few small reads, not a scan.
//! How: chunks of up to 256 series, then an index page for them, and so on in ascending series id; a directory of the pages
//! and a footer at the end. Written to a temporary name, synced, renamed. docs/format/block.md draws it. What a file stands
//! for is in its [`Label`]; which files count is `catalog.rs`'s to say.
//! Invariants: the writer holds one page and the directory, never the file; a reader trusts no byte before its checksum; a
//! file without a sound footer is not a block; points of a series ascend strictly within a block; a chunk with points is of
//! one day.
//! Memory: some 200 bytes per file, 4 per 16,384 series in it, and its directory if that is small (up to 4 KiB).

mod coding;
mod reader;
mod writer;

pub use coding::{ChunkMeta, take_head};
pub use reader::{Entry, Reader};
pub use writer::Writer;

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use stdx::{Disk, DiskFile, crc32};

const MAGIC: &[u8; 8] = b"HKBLK002";
/// What the magics of all versions begin with.
const MAGIC_STEM: &[u8] = b"HKBLK";
const SUFFIX: &str = ".blk";
const TEMP_SUFFIX: &str = ".tmp";
const DAMAGED_SUFFIX: &str = ".damaged";

const PAGE_ENTRIES: usize = 256;
const DIRECTORY_ENTRY_BYTES: usize = 24;
/// Pages whose directory entries share a checksum: what a lookup reads of the directory is 1.5 KiB however many series there
/// are.
const SECTION_PAGES: usize = 64;
const SECTION_BYTES: usize = SECTION_PAGES * DIRECTORY_ENTRY_BYTES + 4;
const FOOTER_BYTES: usize = 92;

pub const DAY_S: u32 = 86_400;

/// What a block holds of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Points.
    Raw,
    /// Buckets of five minutes.
    FiveMinutes,
    /// Buckets of an hour.
    Hour,
}

/// The kinds of roll-ups, finest first.
pub const ROLLUPS: [Kind; 2] = [Kind::FiveMinutes, Kind::Hour];

impl Kind {
    /// Seconds that a bucket spans; 1 for points, whose times are whole seconds.
    pub fn resolution_s(self) -> u32 {
        match self {
            Kind::Raw => 1,
            Kind::FiveMinutes => 300,
            Kind::Hour => 3600,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Raw => "raw",
            Kind::FiveMinutes => "5m",
            Kind::Hour => "1h",
        }
    }

    fn from_u8(byte: u8) -> Option<Kind> {
        [Kind::Raw, Kind::FiveMinutes, Kind::Hour].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The level of a block that holds all of a day that was over.
pub const FINAL: u8 = u8::MAX;

/// What a block stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub kind: Kind,
    /// 0 as flushed, one more with each merge, [`FINAL`].
    pub level: u8,
    /// Days since 1970-01-01 (UTC).
    pub first_day: u32,
    pub days: u16,
    /// Its own; grows with each block written.
    pub number: u64,
    /// The numbers of the flushed blocks that it is made of, from the first to the last. Of points with equal times the one
    /// from the lower number counts.
    pub first_flush: u64,
    pub last_flush: u64,
    /// Of roll-ups of a day: the last flushed block of the day before that they know, for the rate across midnight.
    pub last_flush_before: u64,
}

impl Label {
    /// As a flush writes it.
    pub fn flushed(day: u32, number: u64) -> Label {
        Label {
            kind: Kind::Raw,
            level: 0,
            first_day: day,
            days: 1,
            number,
            first_flush: number,
            last_flush: number,
            last_flush_before: 0,
        }
    }

    /// The day after the last one.
    pub fn end_day(&self) -> u32 {
        self.first_day.saturating_add(u32::from(self.days))
    }

    /// Whether `other` is of no use beside this block: what it holds was written anew.
    pub fn supersedes(&self, other: &Label) -> bool {
        let covers_days = self.first_day <= other.first_day && self.end_day() >= other.end_day();
        let covers_flushes = self.first_flush <= other.first_flush && self.last_flush >= other.last_flush;
        self.kind == other.kind
            && self.number > other.number
            && covers_days
            && (covers_flushes || self.kind != Kind::Raw)
    }

    fn file_name(&self) -> String {
        format!("{}-{}-{:08}{SUFFIX}", date(self.first_day), self.kind.name(), self.number)
    }
}

/// A block on disk: what is known of it without opening it.
pub struct Block {
    path: PathBuf,
    pub label: Label,
    /// Of points, or of the ends of buckets.
    pub min_time: u32,
    pub max_time: u32,
    /// Points or buckets.
    pub points: u64,
    pub bytes: u64,
    pub series_count: u32,
    first_series: u32,
    last_series: u32,
    directory: Directory,
}

/// A directory of no more bytes than this (of some 40,000 series) stays in memory: cold, that saves a third of the reads.
const DIRECTORY_KEPT_BYTES: usize = 4096;

/// Where the directory is, and the first series of each of its sections.
struct Directory {
    offset: u64,
    bytes: u32,
    fences: Box<[u32]>,
    /// All of it, or nothing.
    kept: Box<[u8]>,
}

impl Block {
    pub fn memory_bytes(&self) -> usize {
        let directory = size_of_val(&*self.directory.fences) + self.directory.kept.len();
        // The counts of an `Arc` stand before what it holds.
        2 * size_of::<usize>() + size_of::<Block>() + self.path.capacity() + directory
    }
}

impl Directory {
    fn page_count(&self) -> usize {
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

    fn corrupt(&self, offset: u64, what: &str) -> Error {
        Error::Corrupt { path: self.path.clone(), offset, what: what.to_string() }
    }

    pub fn overlaps(&self, from: u32, to: u32) -> bool {
        self.series_count > 0 && self.min_time <= to && self.max_time >= from
    }

    /// Ids in this block are at most this; `None` of an empty one.
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

/// What a sound section has before its checksum: whole entries, at least one.
fn section_entries(section: &[u8]) -> Option<&[u8]> {
    let (entries, crc) = section.split_last_chunk::<4>()?;
    let whole = !entries.is_empty() && entries.len().is_multiple_of(DIRECTORY_ENTRY_BYTES);
    (whole && crc32(&[entries]) == u32::from_le_bytes(*crc)).then_some(entries)
}

/// What the footer tells, but for magic and checksum.
struct Footer {
    label: Label,
    min_time: u32,
    max_time: u32,
    series_count: u32,
    first_series: u32,
    last_series: u32,
    points: u64,
    directory_offset: u64,
    directory_bytes: u32,
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

    fn push(&self, out: &mut Vec<u8>) {
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

    fn into_block(self, path: PathBuf, bytes: u64, directory: Directory) -> Block {
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

/// Sorts what is behind `start` by time, if need be, and drops all but the first of equal times.
pub fn keep_first_of_equal_times(points: &mut Vec<(u32, f64)>, start: usize) {
    if points[start..].is_sorted_by(|a, b| a.0 < b.0) {
        return;
    }
    points[start..].sort_by_key(|point| point.0);
    let mut kept = start;
    for i in start..points.len() {
        if kept == start || points[kept - 1].0 != points[i].0 {
            points[kept] = points[i];
            kept += 1;
        }
    }
    points.truncate(kept);
}

/// `bytes` is long enough: lengths are checked where it was read.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// A day since 1970-01-01 as `20261122`, for people who look at the files. After the usual arithmetic of eras of 400
/// years that begin in March.
fn date(day: u32) -> String {
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    format!("{year:04}{month:02}{day:02}")
}

#[cfg(test)]
mod tests;
