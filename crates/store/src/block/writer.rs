//! Writer: one block on its way to the disk; series come in ascending order.
//!
//! Invariants: what was begun under the temporary name is complete and synced under its real one after `finish`, or
//! gone.
//! Memory: the buffer (64 KiB and a chunk), one page, 24 bytes per 256 series.

use super::coding::{self, Scratch};
use super::file::{Block, DIRECTORY_KEPT_BYTES, Directory, Footer, MAGIC, PAGE_ENTRIES, SECTION_PAGES};
use super::label::Label;
use super::reader::Entry;
use super::rollup::{self, Bucket};
use crate::error::{Error, Result};
use crate::series::Meta;
use crate::sizes::DAY_S;
use model::SeriesId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::varint::push_u64;
use stdx::{Disk, DiskFile, crc32};

/// Bytes that are written at once; several files may be open for writing, one per day.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// A block on its way to the disk.
pub struct Writer {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    temp: PathBuf,
    path: PathBuf,
    label: Label,
    /// Bytes that are in the file; the rest is in `buffer`.
    written: u64,
    buffer: Vec<u8>,
    scratch: Scratch,
    group_start: u64,
    /// Series, newest time and bytes of each chunk since `group_start`.
    page: Vec<(u32, u32, u32)>,
    directory: Vec<u8>,
    fences: Vec<u32>,
    /// Pages in the directory's last section, which has no checksum yet, and where that begins.
    section_pages: usize,
    section_start: usize,
    min_time: u32,
    max_time: u32,
    first_series: u32,
    last_series: u32,
    series_count: u32,
    points: u64,
    finished: bool,
}

impl Writer {
    /// Begins a block in a temporary file of `dir`.
    pub fn begin(disk: Arc<dyn Disk>, dir: &Path, label: Label) -> Result<Writer> {
        let path = dir.join(label.file_name());
        let temp = path.with_extension("tmp");
        let file = disk.open_or_create(&temp).map_err(Error::disk("create", &temp))?;
        Ok(Writer {
            disk,
            file,
            temp,
            path,
            label,
            written: 0,
            buffer: MAGIC.to_vec(),
            scratch: Scratch::default(),
            group_start: MAGIC.len() as u64,
            page: Vec::new(),
            directory: Vec::new(),
            fences: Vec::new(),
            section_pages: 0,
            section_start: 0,
            min_time: u32::MAX,
            max_time: 0,
            first_series: u32::MAX,
            last_series: 0,
            series_count: 0,
            points: 0,
            finished: false,
        })
    }

    /// Label that the block will have.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Bytes of memory that the writer holds so far.
    pub fn memory_bytes(&self) -> usize {
        self.buffer.capacity()
            + self.scratch.memory_bytes()
            + self.page.capacity() * size_of::<(u32, u32, u32)>()
            + self.directory.capacity()
            + self.fences.capacity() * size_of::<u32>()
    }

    /// Bytes of the file so far.
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Whether no series was added yet.
    pub fn is_empty(&self) -> bool {
        self.series_count == 0
    }

    /// Adds the points of a series, strictly ascending and at least one, all of the block's day. A block that was
    /// merged is worth the time that a dense coding takes.
    pub fn add(&mut self, series: SeriesId, meta: Meta, points: &[(u32, f64)]) -> Result<()> {
        let start = self.begin_chunk(series.0);
        let dense = self.label.level > 0;
        coding::push_points(series.0, meta, points, dense, &mut self.scratch, &mut self.buffer);
        self.end_chunk(series.0, points[0].0, points[points.len() - 1].0, points.len(), start)
    }

    /// Adds the buckets of a series, strictly ascending and at least one.
    pub fn add_buckets(&mut self, series: SeriesId, meta: Meta, buckets: &[Bucket]) -> Result<()> {
        let start = self.begin_chunk(series.0);
        let newest = buckets[buckets.len() - 1].end;
        coding::push_head(rollup::FLAG, meta, buckets.len(), &mut self.buffer);
        rollup::push(buckets, self.label.kind.resolution_s(), &mut self.buffer);
        let at = start as usize - self.written as usize;
        coding::seal(series.0, newest, at, &mut self.buffer);
        self.end_chunk(series.0, buckets[0].end, newest, buckets.len(), start)
    }

    /// Adds a chunk of another block as it is; `oldest` and `count` are of what it holds.
    pub fn add_chunk(&mut self, entry: &Entry, oldest: u32, count: usize, chunk: &[u8]) -> Result<()> {
        let start = self.begin_chunk(entry.series);
        self.buffer.extend_from_slice(chunk);
        self.end_chunk(entry.series, oldest, entry.newest, count, start)
    }

    fn begin_chunk(&mut self, series: u32) -> u64 {
        assert!(self.series_count == 0 || series > self.last_series, "series come in order");
        if self.page.is_empty() {
            self.group_start = self.bytes();
        }
        self.bytes()
    }

    fn end_chunk(&mut self, series: u32, oldest: u32, newest: u32, count: usize, start: u64) -> Result<()> {
        self.page.push((series, newest, (self.bytes() - start) as u32));
        self.min_time = self.min_time.min(oldest);
        self.max_time = self.max_time.max(newest);
        self.first_series = self.first_series.min(series);
        self.last_series = series;
        self.series_count += 1;
        self.points += count as u64;
        // A page's chunks are addressed with 32 bits; the second bound keeps far away from their end.
        if self.page.len() == PAGE_ENTRIES || self.bytes() - self.group_start > 1 << 30 {
            self.end_page();
        }
        if self.buffer.len() >= WRITE_BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }

    fn end_page(&mut self) {
        let chunk_bytes = (self.bytes() - self.group_start) as u32;
        let page_start = self.buffer.len();
        let newest = self.page.iter().map(|(_, newest, _)| *newest).max().unwrap_or(0);
        self.buffer.extend_from_slice(&newest.to_le_bytes());
        let mut next = 0;
        for (series, chunk_newest, bytes) in &self.page {
            for word in [series - next, newest - chunk_newest, *bytes] {
                push_u64(u64::from(word), &mut self.buffer);
            }
            next = series.saturating_add(1);
        }
        let crc = crc32(&[&self.buffer[page_start..]]);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        let (first, count) = (self.page[0].0, self.page.len() as u16);
        let page_bytes = (self.buffer.len() - page_start) as u16;
        self.push_directory_entry(first, count, page_bytes, chunk_bytes);
        self.page.clear();
    }

    fn push_directory_entry(&mut self, first: u32, count: u16, page_bytes: u16, chunk_bytes: u32) {
        if self.section_pages == 0 {
            self.fences.push(first);
            self.section_start = self.directory.len();
        }
        for word in [first, self.last_series] {
            self.directory.extend_from_slice(&word.to_le_bytes());
        }
        self.directory.extend_from_slice(&count.to_le_bytes());
        self.directory.extend_from_slice(&page_bytes.to_le_bytes());
        self.directory.extend_from_slice(&chunk_bytes.to_le_bytes());
        self.directory.extend_from_slice(&self.group_start.to_le_bytes());
        self.section_pages += 1;
        if self.section_pages == SECTION_PAGES {
            self.end_section();
        }
    }

    fn end_section(&mut self) {
        let crc = crc32(&[&self.directory[self.section_start..]]);
        self.directory.extend_from_slice(&crc.to_le_bytes());
        self.section_pages = 0;
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written).map_err(Error::disk("write", &self.temp))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Completes the file and makes it durable under its name. The directory is the caller's to sync.
    pub fn finish(mut self) -> Result<Block> {
        if !self.page.is_empty() {
            self.end_page();
        }
        if self.section_pages > 0 {
            self.end_section();
        }
        if self.series_count == 0 {
            // A day whose counters have no rate has roll-ups too: empty ones, so that nobody looks again.
            self.min_time = self.label.first_day.saturating_mul(DAY_S);
            (self.max_time, self.first_series) = (self.min_time, 0);
        }
        let directory_offset = self.bytes();
        let directory_bytes = self.directory.len() as u32;
        self.buffer.extend_from_slice(&self.directory);
        let footer = Footer {
            label: self.label,
            min_time: self.min_time,
            max_time: self.max_time,
            series_count: self.series_count,
            first_series: self.first_series,
            last_series: self.last_series,
            points: self.points,
            directory_offset,
            directory_bytes,
        };
        footer.push(&mut self.buffer);
        self.write_out()?;
        self.file.sync().map_err(Error::disk("sync", &self.temp))?;
        self.disk.rename(&self.temp, &self.path).map_err(Error::disk("rename", &self.temp))?;
        self.finished = true;
        let fences = std::mem::take(&mut self.fences).into();
        let kept = if self.directory.len() <= DIRECTORY_KEPT_BYTES { &self.directory[..] } else { &[] };
        let directory = Directory { offset: directory_offset, bytes: directory_bytes, fences, kept: kept.into() };
        Ok(footer.into_block(std::mem::take(&mut self.path), self.written, directory))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now is removed at the next start.
            let _ = self.disk.remove(&self.temp);
        }
    }
}
