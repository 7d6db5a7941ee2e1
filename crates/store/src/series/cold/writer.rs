//! Writer: one run, from series in order to a synced file under its name; and the footer that makes it a run.
//!
//! How: the tree of series is streamed to a temporary file; the tree of endpoints is made by reading those series back
//! once, so that its pages lie together and a search of endpoints reads nothing else. docs/format/cold.md draws the
//! bytes.
//! Memory: a page per level of the tree and a write buffer of 64 KiB, whatever the run's size.

use super::footer::{self, Footer, MAGIC, SUFFIX};
use super::key;
use super::output::Output;
use super::page::Kind;
use super::run::{ColdSeries, Leaves, Run};
use super::tree::{Root, TreeWriter};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use stdx::Disk;

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

    /// Begins the run that replaces those with sequences from `first` to `last`.
    pub fn begin_range(disk: &'a dyn Disk, dir: &Path, first: u64, last: u64) -> Result<RunWriter<'a>> {
        let path = dir.join(format!("{first:08}-{last:08}{SUFFIX}"));
        Ok(RunWriter {
            out: Output::create(disk, path.with_extension("tmp"), MAGIC)?,
            dir: dir.to_path_buf(),
            path,
            first_sequence: first,
            sequence: last,
            series: TreeWriter::new(Kind::Series, Kind::SeriesBranch),
            newest_max: 0,
            key: Vec::new(),
        })
    }

    /// Adds a series. They come in order of endpoint, metric, tags, each name once; the texts are those of a series
    /// table, so not longer than `TEXT_MAX`.
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
        footer::push(&footer, &mut self.out.buffer);
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
