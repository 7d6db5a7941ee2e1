//! Reader: an open block. Lookups for queries, and the chunks in order for merges.
//!
//! Invariants: nothing is believed before its checksum; every length is bounded before memory is taken for it.
//! Memory: one section of the directory (1.5 KiB), one page (6 KiB), one chunk; for merges also a window of the file.

use super::coding::{take_head, take_points, unseal};
use super::file::{Block, DIRECTORY_ENTRY_BYTES, PAGE_ENTRIES, SECTION_BYTES, SECTION_PAGES};
use super::file::{section_entries, u32_at, u64_at};
use super::rollup::{self, Bucket};
use crate::error::{Error, Result};
use crate::series::Meta;
use model::SeriesId;
use std::sync::Arc;
use stdx::varint::take_u64;
use stdx::{Disk, DiskFile, crc32};

/// A chunk has a day of one series at most; more than this is damage.
const CHUNK_BYTES_MAX: usize = 64 << 20;

/// A group no larger than this is read at once with its page: two reads of a cold disk in one, for the price of a few
/// microseconds of copying.
const GROUP_READ_BYTES: usize = 16 << 10;

/// An open block.
pub struct Reader {
    pub block: Arc<Block>,
    file: Arc<dyn DiskFile>,
    section: Option<(usize, Vec<u8>)>,
    page: Option<(usize, Vec<Entry>)>,
    window: ReadAhead,
}

/// Bytes of the file, and how many are read at once at least.
struct ReadAhead {
    start: u64,
    bytes: Vec<u8>,
    ahead: usize,
}

/// The place of a series' chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    pub series: u32,
    /// Time of the newest point, or end of the newest bucket.
    pub newest: u32,
    pub bytes: u32,
    offset: u64,
}

/// A page's place, from the directory.
struct Page {
    count: usize,
    start: u64,
    chunk_bytes: u32,
    page_bytes: usize,
}

impl Reader {
    /// Opens a block for reading single series.
    pub fn open(disk: &dyn Disk, block: &Arc<Block>) -> Result<Reader> {
        Reader::open_ahead(disk, block, 0)
    }

    /// Opens a block for reading all of it in order, `ahead` bytes at once.
    pub fn open_ahead(disk: &dyn Disk, block: &Arc<Block>, ahead: usize) -> Result<Reader> {
        let file = disk.open(&block.path).map_err(Error::disk("open", &block.path))?;
        let window = ReadAhead { start: 0, bytes: Vec::new(), ahead };
        Ok(Reader { block: block.clone(), file, section: None, page: None, window })
    }

    /// Bytes that the reader has read ahead and keeps.
    pub fn memory_bytes(&self) -> usize {
        self.section.as_ref().map_or(0, |(_, bytes)| bytes.capacity())
            + self.page.as_ref().map_or(0, |(_, page)| page.capacity() * size_of::<Entry>())
            + self.window.bytes.capacity()
    }

    /// The entry of a series.
    pub fn find(&mut self, series: SeriesId) -> Result<Option<Entry>> {
        let series = series.0;
        if self.block.series_count == 0 || series < self.block.first_series || series > self.block.last_series {
            return Ok(None);
        }
        // The last section, then the last page, that does not begin behind the series.
        let fences = &self.block.directory.fences;
        let section = fences.partition_point(|first| *first <= series).saturating_sub(1);
        let entries = self.section(section)?;
        let (mut low, mut high) = (0, entries.len() / DIRECTORY_ENTRY_BYTES);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if u32_at(entries, middle * DIRECTORY_ENTRY_BYTES) <= series {
                low = middle;
            } else {
                high = middle;
            }
        }
        let page = self.page(section * SECTION_PAGES + low)?;
        Ok(page.binary_search_by_key(&series, |entry| entry.series).ok().map(|i| page[i]))
    }

    /// Appends the points of a series within [from, to], ascending.
    pub fn read(&mut self, series: SeriesId, from: u32, to: u32, out: &mut Vec<(u32, f64)>) -> Result<()> {
        match self.find(series)? {
            Some(entry) if entry.newest >= from => self.points(&entry, from, to, out).map(drop),
            _ => Ok(()),
        }
    }

    /// Number of index pages.
    pub fn page_count(&self) -> usize {
        self.block.directory.page_count()
    }

    /// The entries of a section.
    fn section(&mut self, section: usize) -> Result<&[u8]> {
        let kept = self.block.directory.kept.chunks(SECTION_BYTES).nth(section);
        if let Some(kept) = kept {
            return Ok(&kept[..kept.len() - 4]);
        }
        if self.section.as_ref().is_none_or(|(number, _)| *number != section) {
            let directory = &self.block.directory;
            let at = section * SECTION_BYTES;
            let mut bytes = vec![0; SECTION_BYTES.min(directory.bytes as usize - at)];
            let offset = directory.offset + at as u64;
            self.file.read_at(&mut bytes, offset).map_err(Error::disk("read", &self.block.path))?;
            let Some(len) = section_entries(&bytes).map(<[u8]>::len) else {
                return Err(self.block.corrupt(offset, "the directory's checksum does not fit"));
            };
            bytes.truncate(len);
            self.section = Some((section, bytes));
        }
        Ok(&self.section.as_ref().expect("it was put there").1)
    }

    fn locate(&mut self, page: usize) -> Result<Page> {
        let entries = self.section(page / SECTION_PAGES)?;
        let at = page % SECTION_PAGES * DIRECTORY_ENTRY_BYTES;
        let short = |at: usize| usize::from(u16::from_le_bytes([entries[at], entries[at + 1]]));
        Ok(Page {
            count: short(at + 8),
            page_bytes: short(at + 10),
            chunk_bytes: u32_at(entries, at + 12),
            start: u64_at(entries, at + 16),
        })
    }

    /// The entries of a page, in order of series.
    pub fn page(&mut self, page: usize) -> Result<&[Entry]> {
        if self.page.as_ref().is_none_or(|(number, _)| *number != page) {
            let place = self.locate(page)?;
            let offset = place.start.saturating_add(u64::from(place.chunk_bytes));
            let bytes = self.page_bytes(&place, offset).map_err(Error::disk("read", &self.block.path))?;
            let Some(entries) = parse_page(&bytes, &place) else {
                return Err(self.block.corrupt(offset, "an index page's checksum does not fit"));
            };
            self.page = Some((page, entries));
        }
        Ok(&self.page.as_ref().expect("it was put there").1)
    }

    fn page_bytes(&mut self, place: &Page, offset: u64) -> std::io::Result<Vec<u8>> {
        let chunk_bytes = place.chunk_bytes as usize;
        if chunk_bytes <= GROUP_READ_BYTES {
            let len = chunk_bytes + place.page_bytes;
            let group = self.window.load(&*self.file, place.start, len, self.block.directory.offset)?;
            return Ok(self.window.bytes[group][chunk_bytes..].to_vec());
        }
        // Not by way of the window: a merge reads the group's chunks next, which are before it.
        let mut bytes = vec![0; place.page_bytes];
        self.file.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// A chunk, whole and sound, with its checksum.
    pub fn chunk(&mut self, entry: &Entry) -> Result<&[u8]> {
        let bytes = entry.bytes as usize;
        if bytes > CHUNK_BYTES_MAX {
            return Err(self.block.corrupt(entry.offset, "a chunk larger than any"));
        }
        let end = self.block.directory.offset;
        let range =
            self.window.load(&*self.file, entry.offset, bytes, end).map_err(Error::disk("read", &self.block.path))?;
        let chunk = &self.window.bytes[range];
        match unseal(entry.series, entry.newest, chunk) {
            Some(_) => Ok(chunk),
            None => Err(self.block.corrupt(entry.offset, "a chunk's checksum does not fit")),
        }
    }

    /// Appends the points of an entry within [from, to], ascending.
    pub fn points(&mut self, entry: &Entry, from: u32, to: u32, out: &mut Vec<(u32, f64)>) -> Result<Meta> {
        let start = out.len();
        let chunk = self.chunk(entry)?;
        let body = &chunk[..chunk.len() - 4];
        take_points(entry.newest, body, from, to, out).map(|head| head.meta).ok_or_else(|| {
            out.truncate(start);
            self.block.corrupt(entry.offset, "a chunk that does not decode")
        })
    }

    /// Appends the buckets of an entry that end within [from, to], ascending.
    pub fn buckets(&mut self, entry: &Entry, from: u32, to: u32, out: &mut Vec<Bucket>) -> Result<Meta> {
        let start = out.len();
        let resolution_s = self.block.label.kind.resolution_s();
        let chunk = self.chunk(entry)?;
        let mut body = &chunk[..chunk.len() - 4];
        let taken = take_head(&mut body).filter(|(flags, _)| *flags == rollup::FLAG).and_then(|(_, head)| {
            rollup::take(body, entry.newest, resolution_s, head, (from, to), out)?;
            Some(head.meta)
        });
        taken.ok_or_else(|| {
            out.truncate(start);
            self.block.corrupt(entry.offset, "a chunk that does not decode")
        })
    }
}

impl ReadAhead {
    /// Makes `len` bytes at `offset` present and says where; reads further, but not beyond `end`.
    fn load(
        &mut self,
        file: &dyn DiskFile,
        offset: u64,
        len: usize,
        end: u64,
    ) -> std::io::Result<std::ops::Range<usize>> {
        let have = self.start..self.start + self.bytes.len() as u64;
        if offset < have.start || offset.saturating_add(len as u64) > have.end {
            let ahead = (self.ahead as u64).min(end.saturating_sub(offset)) as usize;
            self.bytes.clear();
            self.bytes.resize(len.max(ahead), 0);
            self.start = offset;
            if let Err(error) = file.read_at(&mut self.bytes, offset) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let at = (offset - self.start) as usize;
        Ok(at..at + len)
    }
}

fn parse_page(bytes: &[u8], place: &Page) -> Option<Vec<Entry>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32(&[body]) != u32::from_le_bytes(*crc) || place.count > PAGE_ENTRIES {
        return None;
    }
    let (newest, mut rest) = body.split_first_chunk::<4>()?;
    let newest = u32::from_le_bytes(*newest);
    let mut entries = Vec::with_capacity(place.count);
    let (mut series, mut offset) = (0u32, place.start);
    for i in 0..place.count {
        let mut word = || u32::try_from(take_u64(&mut rest)?).ok();
        let (ahead, behind, bytes) = (word()?, word()?, word()?);
        series = if i == 0 { ahead } else { series.checked_add(ahead)?.checked_add(1)? };
        entries.push(Entry { series, newest: newest.checked_sub(behind)?, bytes, offset });
        offset = offset.checked_add(u64::from(bytes))?;
    }
    rest.is_empty().then_some(entries)
}
