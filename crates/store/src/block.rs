//! Block: an immutable file with the flushed points of many series within one UTC day.
//!
//! Why: deleting old points must be dropping files, and a query for a series must cost a few small reads, not a scan.
//! How: chunks (`chunk.rs`) of up to 256 series, then an index page for them, and so on in ascending series id; a directory
//! of the pages and a footer at the end. Written to a temporary name, synced, renamed. docs/format/block.md draws it.
//! Invariants: the writer holds one page and the directory, never the file; a reader trusts no byte before its checksum; a
//! file without a sound footer is not a block; points of a series ascend strictly within a block.
//! Memory: some 100 bytes per file; a read allocates the directory (24 bytes per 256 series), a page, a chunk.

use crate::chunk::{Cursor, Walk};
use crate::error::{Error, Result};
use model::{Point, SeriesId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use stdx::varint::{push_u64, take_u64};
use stdx::{Disk, DiskFile, crc32};

const MAGIC: &[u8; 8] = b"HKBLK001";
const SUFFIX: &str = ".blk";
const TEMP_SUFFIX: &str = ".tmp";

/// 256 entries of 16 bytes make a page of 4 KiB, the unit in which the system reads anyway.
const PAGE_ENTRIES: usize = 256;
const ENTRY_BYTES: usize = 16;
const DIRECTORY_ENTRY_BYTES: usize = 24;
const FOOTER_BYTES: usize = 56;

/// What is written at once; several files may be open for writing, one per day.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// A chunk holds what one flush has of one series; more than this is damage.
const CHUNK_BYTES_MAX: usize = 64 << 20;

pub const DAY_S: u32 = 86_400;

/// A block on disk: what is known of it without opening it.
pub struct Block {
    path: PathBuf,
    /// Grows with each block written; of equal points the one in the lower block counts.
    pub sequence: u64,
    pub min_time: u32,
    pub max_time: u32,
    pub points: u64,
    pub bytes: u64,
    first_series: u32,
    last_series: u32,
    directory_offset: u64,
    directory_bytes: u32,
    directory_crc: u32,
    removed: AtomicBool,
}

/// Names of the blocks in `dir`; temporary files of a flush that did not end are removed.
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
    Ok(paths)
}

/// The sequence that a file's name tells, for when its content does not; 0 for a name that is none of ours.
pub fn sequence_of_name(path: &Path) -> u64 {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let digits = stem.and_then(|stem| stem.rsplit_once('-')).map(|(_, digits)| digits);
    // Beyond this nobody has flushed; the next number must still fit.
    digits.and_then(|digits| digits.parse::<u32>().ok()).map_or(0, u64::from)
}

impl Block {
    /// Reads the footer.
    pub fn open(disk: &dyn Disk, path: PathBuf) -> Result<Block> {
        let file = disk.open(&path).map_err(Error::disk("open", &path))?;
        let bytes = file.len().map_err(Error::disk("read", &path))?;
        let corrupt = |what: &str| Error::Corrupt { path: path.clone(), offset: bytes, what: what.to_string() };
        let footer_at = bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| corrupt("too short for a block"))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(&mut footer, footer_at).map_err(Error::disk("read", &path))?;
        if &footer[48..] != MAGIC || u32_at(&footer, 44) != crc32(&[&footer[..44]]) {
            return Err(corrupt("no footer of a block of this version"));
        }
        let directory_offset = u64_at(&footer, 24);
        let directory_bytes = u32_at(&footer, 40);
        if directory_offset.checked_add(u64::from(directory_bytes)) != Some(footer_at) {
            return Err(corrupt("the footer points outside the file"));
        }
        let block = Block {
            sequence: u64_at(&footer, 32),
            min_time: u32_at(&footer, 0),
            max_time: u32_at(&footer, 4),
            first_series: u32_at(&footer, 12),
            points: u64_at(&footer, 16),
            last_series: 0,
            bytes,
            directory_offset,
            directory_bytes,
            directory_crc: 0,
            removed: AtomicBool::new(false),
            path: path.clone(),
        };
        block.with_directory_summary(&*file)
    }

    /// The directory is read once at start, so that a damaged one is reported then and not in some query.
    fn with_directory_summary(mut self, file: &dyn DiskFile) -> Result<Block> {
        let mut directory = vec![0; self.directory_bytes as usize];
        file.read_at(&mut directory, self.directory_offset).map_err(Error::disk("read", &self.path))?;
        let Some((entries, crc)) = directory.split_last_chunk::<4>() else {
            return Err(self.corrupt(self.directory_offset, "no directory"));
        };
        self.directory_crc = u32::from_le_bytes(*crc);
        if crc32(&[entries]) != self.directory_crc || entries.len() % DIRECTORY_ENTRY_BYTES != 0 || entries.is_empty() {
            return Err(self.corrupt(self.directory_offset, "the directory's checksum does not fit"));
        }
        self.last_series = u32_at(entries, entries.len() - DIRECTORY_ENTRY_BYTES + 4);
        Ok(self)
    }

    fn corrupt(&self, offset: u64, what: &str) -> Error {
        Error::Corrupt { path: self.path.clone(), offset, what: what.to_string() }
    }

    pub fn overlaps(&self, from: u32, to: u32) -> bool {
        self.min_time <= to && self.max_time >= from
    }

    /// Ids in this block are at most this.
    pub fn last_series(&self) -> u32 {
        self.last_series
    }

    pub fn remove(&self, disk: &dyn Disk) -> Result<()> {
        self.removed.store(true, Relaxed);
        match disk.remove(&self.path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::disk("remove", &self.path)(cause)),
            // Whoever took it away before did what was wanted.
            _ => Ok(()),
        }
    }

    /// Appends the points of a series within [from, to], ascending.
    pub fn read(&self, disk: &dyn Disk, series: SeriesId, from: u32, to: u32, out: &mut Vec<Point>) -> Result<()> {
        if series.0 < self.first_series || series.0 > self.last_series {
            return Ok(());
        }
        let Some(mut reader) = self.reader(disk)? else { return Ok(()) };
        let Some(page) = reader.find_page(series.0) else { return Ok(()) };
        let entries = reader.page(page)?;
        match entries.binary_search_by_key(&series.0, |entry| entry.series) {
            Ok(i) => reader.points(&entries[i], from, to, out),
            Err(_) => Ok(()),
        }
    }

    /// `None` when retention has removed the file meanwhile.
    pub fn reader(&self, disk: &dyn Disk) -> Result<Option<Reader<'_>>> {
        let file = match disk.open(&self.path) {
            Ok(file) => file,
            Err(_) if self.removed.load(Relaxed) => return Ok(None),
            Err(cause) => return Err(Error::disk("open", &self.path)(cause)),
        };
        let mut directory = vec![0; self.directory_bytes as usize];
        file.read_at(&mut directory, self.directory_offset).map_err(Error::disk("read", &self.path))?;
        directory.truncate(directory.len() - 4);
        if crc32(&[&directory]) != self.directory_crc {
            return Err(self.corrupt(self.directory_offset, "the directory's checksum does not fit"));
        }
        Ok(Some(Reader { block: self, file, directory, buffer: Vec::new() }))
    }
}

/// An open block.
pub struct Reader<'a> {
    block: &'a Block,
    file: Arc<dyn DiskFile>,
    directory: Vec<u8>,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    pub series: u32,
    /// Time of the newest point.
    pub newest: u32,
    bytes: u32,
    offset: u64,
}

impl Reader<'_> {
    pub fn page_count(&self) -> usize {
        self.directory.len() / DIRECTORY_ENTRY_BYTES
    }

    fn find_page(&self, series: u32) -> Option<usize> {
        let mut pages = 0..self.page_count();
        while pages.len() > 1 {
            let middle = pages.start + pages.len() / 2;
            if u32_at(&self.directory, middle * DIRECTORY_ENTRY_BYTES) <= series {
                pages.start = middle;
            } else {
                pages.end = middle;
            }
        }
        pages.next()
    }

    /// The entries of a page, in order of series.
    pub fn page(&mut self, page: usize) -> Result<Vec<Entry>> {
        let at = page * DIRECTORY_ENTRY_BYTES;
        let (count, start) = (u32_at(&self.directory, at + 8) as usize, u64_at(&self.directory, at + 12));
        let chunk_bytes = u32_at(&self.directory, at + 20);
        let page_at = start.saturating_add(u64::from(chunk_bytes));
        if count > PAGE_ENTRIES {
            return Err(self.block.corrupt(page_at, "an index page with too many entries"));
        }
        let mut bytes = vec![0; count * ENTRY_BYTES + 4];
        self.file.read_at(&mut bytes, page_at).map_err(Error::disk("read", &self.block.path))?;
        let (entries, crc) = bytes.split_last_chunk::<4>().expect("4 bytes were added");
        if crc32(&[entries]) != u32::from_le_bytes(*crc) {
            return Err(self.block.corrupt(page_at, "an index page's checksum does not fit"));
        }
        let entry = |bytes: &[u8]| Entry {
            series: u32_at(bytes, 0),
            newest: u32_at(bytes, 4),
            bytes: u32_at(bytes, 8),
            offset: start + u64::from(u32_at(bytes, 12)),
        };
        Ok(entries.chunks_exact(ENTRY_BYTES).map(entry).collect())
    }

    /// Appends the points of an entry within [from, to], ascending.
    pub fn points(&mut self, entry: &Entry, from: u32, to: u32, out: &mut Vec<Point>) -> Result<()> {
        let bytes = entry.bytes as usize;
        if bytes > CHUNK_BYTES_MAX {
            return Err(self.block.corrupt(entry.offset, "a chunk larger than any"));
        }
        self.buffer.resize(bytes, 0);
        self.file.read_at(&mut self.buffer, entry.offset).map_err(Error::disk("read", &self.block.path))?;
        let start = out.len();
        if decode_chunk(entry.series, entry.newest, &self.buffer, from, to, out).is_none() {
            out.truncate(start);
            return Err(self.block.corrupt(entry.offset, "a chunk's checksum or records do not fit"));
        }
        out[start..].reverse();
        Ok(())
    }
}

/// Appends a chunk to `out`. `points` ascend strictly.
fn encode_chunk(series: u32, step: u32, points: &[(u32, f64)], records: &mut Vec<u8>, out: &mut Vec<u8>) {
    let start = out.len();
    let (time, value) = points[0];
    let mut cursor = Cursor::new(time, value, step);
    records.clear();
    for (time, value) in &points[1..] {
        cursor.append(*time, *value, |record| records.extend_from_slice(record));
    }
    out.extend_from_slice(&cursor.value.to_bits().to_le_bytes());
    push_u64(u64::from(cursor.step), out);
    push_u64(u64::from(cursor.run), out);
    push_u64(points.len() as u64, out);
    out.extend_from_slice(records);
    let crc = crc32(&[&series.to_le_bytes(), &cursor.time.to_le_bytes(), &out[start..]]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Appends the points within [from, to], newest first.
fn decode_chunk(series: u32, newest: u32, bytes: &[u8], from: u32, to: u32, out: &mut Vec<Point>) -> Option<()> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32(&[&series.to_le_bytes(), &newest.to_le_bytes(), body]) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (value, mut rest) = body.split_first_chunk::<8>()?;
    let step = u32::try_from(take_u64(&mut rest)?).ok()?;
    let run = u32::try_from(take_u64(&mut rest)?).ok()?;
    let count = usize::try_from(take_u64(&mut rest)?).ok()?;
    let cursor = Cursor { time: newest, run, value: f64::from_bits(u64::from_le_bytes(*value)), step };
    let mut seen = 0;
    for (time, value) in Walk::new(cursor, rest).take(count) {
        seen += 1;
        if time < from {
            return Some(());
        }
        if time <= to {
            out.push(Point { time: i64::from(time), value });
        }
    }
    (seen == count).then_some(())
}

/// Writes one block; series come in ascending order.
pub struct Writer<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn DiskFile>,
    temp: PathBuf,
    path: PathBuf,
    sequence: u64,
    /// Bytes that are in the file; the rest is in `buffer`.
    written: u64,
    buffer: Vec<u8>,
    records: Vec<u8>,
    group_start: u64,
    page: Vec<u8>,
    page_first: u32,
    directory: Vec<u8>,
    min_time: u32,
    max_time: u32,
    first_series: u32,
    last_series: u32,
    series_count: u32,
    points: u64,
    finished: bool,
}

impl<'a> Writer<'a> {
    /// Begins the block of the UTC day that `time` is in.
    pub fn begin(disk: &'a dyn Disk, dir: &Path, time: u32, sequence: u64) -> Result<Writer<'a>> {
        let path = dir.join(format!("{}-{sequence:08}{SUFFIX}", date(time / DAY_S)));
        let temp = path.with_extension("tmp");
        let file = disk.open_or_create(&temp).map_err(Error::disk("create", &temp))?;
        Ok(Writer {
            disk,
            file,
            temp,
            path,
            sequence,
            written: 0,
            buffer: MAGIC.to_vec(),
            records: Vec::new(),
            group_start: MAGIC.len() as u64,
            page: Vec::new(),
            page_first: 0,
            directory: Vec::new(),
            min_time: u32::MAX,
            max_time: 0,
            first_series: u32::MAX,
            last_series: 0,
            series_count: 0,
            points: 0,
            finished: false,
        })
    }

    /// Adds the points of a series, strictly ascending and at least one, all of the block's day.
    pub fn add(&mut self, series: SeriesId, step: u32, points: &[(u32, f64)]) -> Result<()> {
        let series = series.0;
        assert!(self.series_count == 0 || series > self.last_series, "series come in order");
        let (oldest, newest) = (points[0].0, points[points.len() - 1].0);
        let offset = self.offset();
        if self.page.is_empty() {
            self.group_start = offset;
            self.page_first = series;
        }
        encode_chunk(series, step, points, &mut self.records, &mut self.buffer);
        let bytes = (self.offset() - offset) as u32;
        for word in [series, newest, bytes, (offset - self.group_start) as u32] {
            self.page.extend_from_slice(&word.to_le_bytes());
        }
        self.min_time = self.min_time.min(oldest);
        self.max_time = self.max_time.max(newest);
        self.first_series = self.first_series.min(series);
        self.last_series = series;
        self.series_count += 1;
        self.points += points.len() as u64;
        // A page's chunks are addressed with 32 bits; the second bound keeps far away from their end.
        if self.page.len() == PAGE_ENTRIES * ENTRY_BYTES || self.offset() - self.group_start > 1 << 30 {
            self.end_page();
        }
        if self.buffer.len() >= WRITE_BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }

    fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn end_page(&mut self) {
        let chunk_bytes = (self.offset() - self.group_start) as u32;
        let count = (self.page.len() / ENTRY_BYTES) as u32;
        for word in [self.page_first, self.last_series, count] {
            self.directory.extend_from_slice(&word.to_le_bytes());
        }
        self.directory.extend_from_slice(&self.group_start.to_le_bytes());
        self.directory.extend_from_slice(&chunk_bytes.to_le_bytes());
        self.buffer.extend_from_slice(&self.page);
        self.buffer.extend_from_slice(&crc32(&[&self.page]).to_le_bytes());
        self.page.clear();
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written).map_err(Error::disk("write", &self.temp))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Completes the file and makes it durable under its name. The directory is the caller's to sync.
    pub fn finish(mut self) -> Result<Block> {
        assert!(self.series_count > 0, "a writer is begun for a series that it has points of");
        if !self.page.is_empty() {
            self.end_page();
        }
        let directory_offset = self.offset();
        let directory_crc = crc32(&[&self.directory]);
        let directory_bytes = self.directory.len() as u32 + 4;
        self.buffer.extend_from_slice(&self.directory);
        self.buffer.extend_from_slice(&directory_crc.to_le_bytes());
        self.push_footer(directory_offset, directory_bytes);
        self.write_out()?;
        self.file.sync().map_err(Error::disk("sync", &self.temp))?;
        self.disk.rename(&self.temp, &self.path).map_err(Error::disk("rename", &self.temp))?;
        self.finished = true;
        Ok(Block {
            path: std::mem::take(&mut self.path),
            sequence: self.sequence,
            min_time: self.min_time,
            max_time: self.max_time,
            points: self.points,
            bytes: self.written,
            first_series: self.first_series,
            last_series: self.last_series,
            directory_offset,
            directory_bytes,
            directory_crc,
            removed: AtomicBool::new(false),
        })
    }

    fn push_footer(&mut self, directory_offset: u64, directory_bytes: u32) {
        let start = self.buffer.len();
        for word in [self.min_time, self.max_time, self.series_count, self.first_series] {
            self.buffer.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.points, directory_offset, self.sequence] {
            self.buffer.extend_from_slice(&word.to_le_bytes());
        }
        self.buffer.extend_from_slice(&directory_bytes.to_le_bytes());
        let crc = crc32(&[&self.buffer[start..]]);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(MAGIC);
        debug_assert_eq!(self.buffer.len() - start, FOOTER_BYTES);
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now is removed at the next start.
            let _ = self.disk.remove(&self.temp);
        }
    }
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
mod tests {
    use super::*;
    use stdx::FakeDisk;

    const NOON: u32 = 1_600_000_000 / DAY_S * DAY_S + DAY_S / 2;

    fn points(series: u32) -> Vec<(u32, f64)> {
        (0..1 + series % 40).map(|i| (NOON + 60 * i, f64::from(series + i))).collect()
    }

    fn write(disk: &FakeDisk, series: impl Iterator<Item = u32>) -> Block {
        let dir = Path::new("block");
        let mut writer = Writer::begin(disk, dir, NOON, 7).expect("begins");
        for series in series {
            writer.add(SeriesId(series), 60, &points(series)).expect("room");
        }
        writer.finish().expect("finishes")
    }

    #[test]
    fn every_series_reads_back_also_after_reopening() {
        let disk = FakeDisk::default();
        let written = write(&disk, (0..3000).filter(|i| i % 3 == 1));
        let reopened = Block::open(&disk, written.path.clone()).expect("own file");
        assert_eq!(written.path, Path::new("block/20200913-00000007.blk"));
        for block in [&written, &reopened] {
            assert_eq!((block.sequence, block.points, block.bytes), (7, written.points, written.bytes));
            assert_eq!((block.min_time, block.max_time), (NOON, NOON + 60 * 39));
            assert_eq!(block.last_series(), 2998);
            for series in 0..3000 {
                let mut out = Vec::new();
                block.read(&disk, SeriesId(series), 0, u32::MAX, &mut out).expect("sound");
                let expected = if series % 3 == 1 { points(series) } else { Vec::new() };
                let got: Vec<(u32, f64)> = out.iter().map(|p| (p.time as u32, p.value)).collect();
                assert_eq!(got, expected, "series {series}");
            }
        }
    }

    #[test]
    fn reads_only_the_range() {
        let disk = FakeDisk::default();
        let block = write(&disk, 39..40);
        let mut out = Vec::new();
        block.read(&disk, SeriesId(39), NOON + 61, NOON + 180, &mut out).expect("sound");
        assert_eq!(out.iter().map(|p| p.time).collect::<Vec<_>>(), [i64::from(NOON) + 120, i64::from(NOON) + 180]);
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let sound = FakeDisk::default();
        let block = write(&sound, 0..5);
        let content = sound.content(&block.path);
        for at in 0..content.len() as u64 {
            let disk = FakeDisk::default();
            let path = write(&disk, 0..5).path.clone();
            disk.corrupt(&path, at);
            let mut out = Vec::new();
            let noticed = match Block::open(&disk, path) {
                Err(_) => true,
                Ok(block) => (0..5).any(|series| block.read(&disk, SeriesId(series), 0, u32::MAX, &mut out).is_err()),
            };
            // The magic at the front is for people; nothing depends on it.
            assert!(noticed || at < MAGIC.len() as u64, "byte {at}");
        }
    }

    #[test]
    fn a_writer_that_fails_leaves_nothing() {
        let disk = FakeDisk::default();
        let mut writer = Writer::begin(&disk, Path::new("block"), NOON, 1).expect("begins");
        writer.add(SeriesId(1), 60, &points(1)).expect("room");
        disk.set_room(Some(10));
        assert!(writer.finish().is_err());
        assert_eq!(disk.paths(), Vec::<PathBuf>::new());
    }

    #[test]
    fn dates() {
        let check = |day, expected: &str| assert_eq!(date(day), expected);
        check(0, "19700101");
        check(11_016, "20000229");
        check(11_017, "20000301");
        check(20_453, "20251231");
        check(20_454, "20260101");
    }
}
