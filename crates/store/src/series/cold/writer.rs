//! Writer: one run, from series in order to a synced file under its name; and the footer that makes it a run.
//!
//! How: the tree of series is streamed to a temporary file; the tree of endpoints is made by reading those series back once,
//! so that its pages lie together and a search of endpoints reads nothing else. docs/format/cold.md draws the bytes.
//! Memory: a page per level of the tree and a write buffer of 64 KiB, whatever the run's size.

use super::page::Kind;
use super::tree::{Root, TreeWriter};
use super::{ColdSeries, Leaves, MAGIC, Run, SUFFIX, key};
use crate::error::{Error, Result};
use crate::record;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::{Disk, DiskFile, crc32};

pub const FOOTER_BYTES: usize = 88;

const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// Trees of two entries per branch over all that a disk can hold are lower.
const HEIGHT_MAX: u32 = 64;

/// Run after run each second, this is a century away; a higher one is damage, and the next number must still fit.
const SEQUENCE_MAX: u64 = u32::MAX as u64;

pub struct Footer {
    /// Where it begins.
    pub at: u64,
    pub first_sequence: u64,
    pub sequence: u64,
    pub series_count: u64,
    pub endpoint_count: u64,
    pub series: Root,
    pub endpoints: Root,
    pub endpoints_at: u64,
    pub newest_max: u32,
}

/// The sequence that a file's name tells, for when its content does not; 0 for a name that is none of ours.
pub fn sequence_of_name(path: &Path) -> u64 {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let digits = stem.and_then(|stem| stem.rsplit_once('-')).map(|(_, digits)| digits);
    digits.and_then(|digits| digits.parse().ok()).filter(|sequence| *sequence <= SEQUENCE_MAX).unwrap_or(0)
}

pub fn read_footer(file: &dyn DiskFile, path: &Path) -> Result<Footer> {
    let len = file.len().map_err(Error::disk("read", path))?;
    let corrupt = |what: &str| Error::Corrupt { path: path.to_path_buf(), offset: len, what: what.to_string() };
    let at = len.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| corrupt("too short for a cold run"))?;
    let mut bytes = [0; FOOTER_BYTES];
    file.read_at(&mut bytes, at).map_err(Error::disk("read", path))?;
    if &bytes[80..] != MAGIC || u32_at(&bytes, 76) != crc32(&[&bytes[..76]]) {
        return Err(corrupt("no footer of a cold run of this version"));
    }
    let root = |at| Root { offset: u64_at(&bytes, at), bytes: u32_at(&bytes, at + 8), height: u32_at(&bytes, at + 12) };
    let footer = Footer {
        at,
        first_sequence: u64_at(&bytes, 0),
        sequence: u64_at(&bytes, 8),
        series_count: u64_at(&bytes, 16),
        endpoint_count: u64_at(&bytes, 24),
        series: root(32),
        endpoints: root(48),
        endpoints_at: u64_at(&bytes, 64),
        newest_max: u32_at(&bytes, 72),
    };
    let sane = (MAGIC.len() as u64..=at).contains(&footer.endpoints_at)
        && footer.series.height.max(footer.endpoints.height) <= HEIGHT_MAX
        && footer.first_sequence <= footer.sequence
        && footer.sequence <= SEQUENCE_MAX;
    if sane { Ok(footer) } else { Err(corrupt("a footer that makes no sense")) }
}

/// `bytes` is a whole footer.
fn u32_at(bytes: &[u8; FOOTER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8; FOOTER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// The temporary file; removed when dropped before it got its name.
pub struct Output<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn DiskFile>,
    temp: PathBuf,
    /// Bytes that are in the file; the rest is in `buffer`.
    written: u64,
    buffer: Vec<u8>,
}

impl Output<'_> {
    pub fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Returns the page's offset and bytes.
    pub fn push_page(&mut self, payload: &[u8]) -> Result<(u64, u32)> {
        let offset = self.offset();
        let start = record::begin(&mut self.buffer);
        self.buffer.extend_from_slice(payload);
        record::seal(&mut self.buffer, start);
        let bytes = (self.buffer.len() - start) as u32;
        if self.buffer.len() >= WRITE_BUFFER_BYTES {
            self.write_out()?;
        }
        Ok((offset, bytes))
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written).map_err(Error::disk("write", &self.temp))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        // Once renamed there is none; what cannot be removed now is removed at the next start.
        let _ = self.disk.remove(&self.temp);
    }
}

/// Writes one run.
pub struct RunWriter<'a> {
    out: Output<'a>,
    dir: PathBuf,
    path: PathBuf,
    first_sequence: u64,
    sequence: u64,
    series: TreeWriter,
    newest_max: u32,
    key: Vec<u8>,
}

impl<'a> RunWriter<'a> {
    /// Begins the run of series that fell asleep; `sequence` is higher than that of every other.
    pub fn begin(disk: &'a dyn Disk, dir: &Path, sequence: u64) -> Result<RunWriter<'a>> {
        RunWriter::begin_range(disk, dir, sequence, sequence)
    }

    pub(super) fn begin_range(disk: &'a dyn Disk, dir: &Path, first: u64, last: u64) -> Result<RunWriter<'a>> {
        let path = dir.join(format!("{first:08}-{last:08}{SUFFIX}"));
        let temp = path.with_extension("tmp");
        let file = disk.open_or_create(&temp).map_err(Error::disk("create", &temp))?;
        let out = Output { disk, file, temp, written: 0, buffer: MAGIC.to_vec() };
        // One that failed before may have left bytes.
        out.file.set_len(0).map_err(Error::disk("cut", &out.temp))?;
        Ok(RunWriter {
            out,
            dir: dir.to_path_buf(),
            path,
            first_sequence: first,
            sequence: last,
            series: TreeWriter::new(Kind::Series, Kind::SeriesBranch),
            newest_max: 0,
            key: Vec::new(),
        })
    }

    /// Adds a series. They come in order of endpoint, metric, tags, each name once; the texts are those of a series table, so
    /// not longer than `TEXT_MAX`.
    pub fn add(&mut self, series: &ColdSeries<'_>) -> Result<()> {
        crate::series::check_texts(series.key)?;
        self.key.clear();
        key::push(series.key, &mut self.key);
        let in_order = self.series.push(&self.key, &series.found.numbers(), &mut self.out)?;
        assert!(in_order, "series come in order");
        self.newest_max = self.newest_max.max(series.found.newest);
        Ok(())
    }

    /// Completes the file and makes it durable under its name; `None` when nothing was added.
    pub fn finish(mut self) -> Result<Option<Run>> {
        if self.series.entries == 0 {
            return Ok(None);
        }
        let series_count = self.series.entries;
        let series = self.series.finish(&mut self.out)?;
        let endpoints_at = self.out.offset();
        self.out.write_out()?;
        let (endpoints, endpoint_count) = write_endpoints(&mut self.out, endpoints_at)?;
        let footer = Footer {
            at: self.out.offset(),
            first_sequence: self.first_sequence,
            sequence: self.sequence,
            series_count,
            endpoint_count,
            series,
            endpoints,
            endpoints_at,
            newest_max: self.newest_max,
        };
        push_footer(&footer, &mut self.out.buffer);
        self.out.write_out()?;
        self.out.file.sync().map_err(Error::disk("sync", &self.out.temp))?;
        self.out.disk.rename(&self.out.temp, &self.path).map_err(Error::disk("rename", &self.out.temp))?;
        self.out.disk.sync_dir(&self.dir).map_err(Error::disk("sync", &self.dir))?;
        Run::open(self.out.disk, self.path).map(Some)
    }
}

/// Reads back the series before `end` and writes the tree of their endpoints.
fn write_endpoints(out: &mut Output<'_>, end: u64) -> Result<(Root, u64)> {
    let mut leaves = Leaves::new(out.file.clone(), out.temp.clone(), MAGIC.len() as u64..end, Kind::Series);
    let mut tree = TreeWriter::new(Kind::Endpoint, Kind::EndpointBranch);
    let mut texts = key::Texts::default();
    let mut open: Option<(String, u64, u64)> = None;
    while leaves.next()? {
        let Some(series) = leaves.series(&mut texts) else {
            leaves.damaged("a series that makes no sense");
            break;
        };
        let number = u64::from(series.found.endpoint);
        match &mut open {
            Some((name, highest, count)) if name == series.key.endpoint => {
                // One that was removed and came back has series under both its numbers.
                *highest = number.max(*highest);
                *count += 1;
            }
            other => {
                if let Some((name, number, count)) = other.replace((series.key.endpoint.to_string(), number, 1)) {
                    tree.push(name.as_bytes(), &[number, count], out)?;
                }
            }
        }
    }
    leaves.result()?;
    if let Some((name, number, count)) = open {
        tree.push(name.as_bytes(), &[number, count], out)?;
    }
    let count = tree.entries;
    Ok((tree.finish(out)?, count))
}

fn push_footer(footer: &Footer, out: &mut Vec<u8>) {
    let start = out.len();
    for word in [footer.first_sequence, footer.sequence, footer.series_count, footer.endpoint_count] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for root in [footer.series, footer.endpoints] {
        out.extend_from_slice(&root.offset.to_le_bytes());
        out.extend_from_slice(&root.bytes.to_le_bytes());
        out.extend_from_slice(&root.height.to_le_bytes());
    }
    out.extend_from_slice(&footer.endpoints_at.to_le_bytes());
    out.extend_from_slice(&footer.newest_max.to_le_bytes());
    let crc = crc32(&[&out[start..]]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(MAGIC);
    debug_assert_eq!(out.len() - start, FOOTER_BYTES);
}
