//! Series file: every definition, change and removal of a series, appended to `series` and replayed at start.
//!
//! Why: the log and the blocks name a series by its id; this file says what the id means. docs/format/series.md.
//! How: one checksummed record each (`record.rs`), written when the series is created, so before the first log record
//! that uses the id.
//! Invariants: written in id order; a definition that could not be written was never given an id that anybody saw.
//! Not here yet: compaction. The file grows by some 60 bytes per series ever created.

use crate::error::{Error, Result};
use crate::record::{self, Item, Reader};
use crate::table::{Meta, Table};
use model::{CounterType, SeriesId, SeriesKey, Tags};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::varint::{push_u64, take_u64};
use stdx::{Disk, DiskFile};

const MAGIC: &[u8; 8] = b"HKSERS01";

const DEFINE: u8 = 1;
const META: u8 = 2;
const REMOVE: u8 = 3;

pub struct SeriesFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    len: u64,
    buffer: Vec<u8>,
}

/// What reading the file found besides series.
#[derive(Default)]
pub struct Replay {
    pub torn_bytes_cut: u64,
    pub corrupt: Vec<String>,
}

impl SeriesFile {
    /// Opens or creates `series` in `dir` and fills the table from it.
    pub fn open(disk: &dyn Disk, dir: &Path, table: &mut Table) -> Result<(SeriesFile, Replay)> {
        let path = dir.join("series");
        let file = disk.open_or_create(&path).map_err(Error::disk("open", &path))?;
        let mut bytes = vec![0; file.len().map_err(Error::disk("read", &path))? as usize];
        file.read_at(&mut bytes, 0).map_err(Error::disk("read", &path))?;
        let mut replay = Replay::default();
        let mut this = SeriesFile { file, path, len: MAGIC.len() as u64, buffer: Vec::new() };
        if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
            this.create(disk, dir)?;
        } else if bytes.starts_with(MAGIC) {
            this.replay(&bytes, table, &mut replay)?;
        } else {
            let what = "it is no series file of this version; move it away or take the version that wrote it";
            return Err(Error::Corrupt { path: this.path, offset: 0, what: what.to_string() });
        }
        Ok((this, replay))
    }

    fn create(&mut self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        self.file.write_at(MAGIC, 0).map_err(Error::disk("write", &self.path))?;
        self.file.sync().map_err(Error::disk("sync", &self.path))?;
        disk.sync_dir(dir).map_err(Error::disk("sync", dir))
    }

    fn replay(&mut self, bytes: &[u8], table: &mut Table, replay: &mut Replay) -> Result<()> {
        self.len = bytes.len() as u64;
        for item in Reader::new(bytes, MAGIC.len()) {
            match item {
                Item::Payload(offset, payload) => {
                    if apply(payload, table)?.is_none() {
                        replay.corrupt.push(format!("{} at byte {offset}: no series record", self.path.display()));
                    }
                }
                Item::Corrupt { offset, bytes } => {
                    replay.corrupt.push(format!("{} at byte {offset}: {bytes} bytes skipped", self.path.display()));
                }
                Item::Torn { offset, bytes } => {
                    self.len = offset as u64;
                    replay.torn_bytes_cut += bytes as u64;
                    self.file.set_len(self.len).map_err(Error::disk("cut", &self.path))?;
                }
            }
        }
        Ok(())
    }

    pub fn define(&mut self, id: SeriesId, key: SeriesKey<'_>, meta: Meta) -> Result<()> {
        self.write(DEFINE, id, |out| {
            push_meta(meta, out);
            for text in [key.endpoint, key.metric, key.tags.as_str()] {
                push_u64(text.len() as u64, out);
                out.extend_from_slice(text.as_bytes());
            }
        })
    }

    pub fn set_meta(&mut self, id: SeriesId, meta: Meta) -> Result<()> {
        self.write(META, id, |out| push_meta(meta, out))
    }

    pub fn remove(&mut self, id: SeriesId) -> Result<()> {
        self.write(REMOVE, id, |_| ())
    }

    fn write(&mut self, kind: u8, id: SeriesId, rest: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.buffer.clear();
        let start = record::begin(&mut self.buffer);
        self.buffer.push(kind);
        push_u64(u64::from(id.0), &mut self.buffer);
        rest(&mut self.buffer);
        record::seal(&mut self.buffer, start);
        if let Err(cause) = self.file.write_at(&self.buffer, self.len) {
            // Should this fail as well, the next write goes to the same place and covers what was torn.
            let _ = self.file.set_len(self.len);
            return Err(Error::disk("write", &self.path)(cause));
        }
        self.len += self.buffer.len() as u64;
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// The file, to be synced without holding whatever guards this.
    pub fn file(&self) -> (Arc<dyn DiskFile>, PathBuf) {
        (self.file.clone(), self.path.clone())
    }
}

fn push_meta(meta: Meta, out: &mut Vec<u8>) {
    out.push(meta.counter_type as u8);
    push_u64(u64::from(meta.step), out);
}

/// Applies a payload to the table; `None` when it is none of ours.
fn apply(mut payload: &[u8], table: &mut Table) -> Result<Option<()>> {
    let input = &mut payload;
    let Some((kind, id)) = take_u8(input).zip(take_u64(input)) else { return Ok(None) };
    // The last number is the table's "none".
    if id >= u64::from(u32::MAX) {
        return Ok(None);
    }
    let id = SeriesId(id as u32);
    match kind {
        DEFINE => {
            let Some((meta, key)) = take_definition(input) else { return Ok(None) };
            // Twice the same id cannot happen; a jump far ahead would be damage that the checksum did not see.
            if (id.0 as usize) < table.len() || id.0 as usize > table.len() + JUMP_MAX || table.find(key).is_some() {
                return Ok(None);
            }
            table.insert(id, key, meta)?;
            Ok(Some(()))
        }
        META => Ok(take_meta(input).filter(|meta| table.set_meta(id, *meta)).map(|_| ())),
        REMOVE => Ok(table.remove(id).then_some(())),
        _ => Ok(None),
    }
}

/// Definitions that may be lost in a row to one damaged stretch: more than a 64 MiB hole of them.
const JUMP_MAX: usize = 1 << 20;

fn take_definition<'a>(input: &mut &'a [u8]) -> Option<(Meta, SeriesKey<'a>)> {
    let meta = take_meta(input)?;
    let (endpoint, metric, tags) = (take_text(input)?, take_text(input)?, take_text(input)?);
    Some((meta, SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) }))
}

fn take_meta(input: &mut &[u8]) -> Option<Meta> {
    let counter_type = CounterType::from_u8(take_u8(input)?)?;
    Meta::new(counter_type, u32::try_from(take_u64(input)?).ok()?).ok()
}

fn take_u8(input: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = input.split_first()?;
    *input = rest;
    Some(*byte)
}

fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::try_from(take_u64(input)?).ok()?;
    let (text, rest) = input.split_at_checked(len)?;
    *input = rest;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stdx::FakeDisk;

    const DIR: &str = "data";

    fn open(disk: &FakeDisk) -> (SeriesFile, Replay, Table) {
        let mut table = Table::default();
        let (file, replay) = SeriesFile::open(disk, Path::new(DIR), &mut table).expect("opens");
        (file, replay, table)
    }

    fn key(endpoint: &str) -> SeriesKey<'_> {
        SeriesKey { endpoint, metric: "m", tags: Tags::EMPTY }
    }

    #[test]
    fn replays_definitions_changes_and_removals() {
        let disk = FakeDisk::default();
        let (mut file, _, _) = open(&disk);
        let gauge = Meta::new(CounterType::Gauge, 60).expect("good");
        let counter = Meta::new(CounterType::Counter, 10).expect("good");
        for (i, endpoint) in ["a", "b", "c"].iter().enumerate() {
            file.define(SeriesId(i as u32), key(endpoint), gauge).expect("room");
        }
        file.set_meta(SeriesId(1), counter).expect("room");
        file.remove(SeriesId(0)).expect("room");
        let (_, replay, table) = open(&disk);
        assert!(replay.corrupt.is_empty() && replay.torn_bytes_cut == 0);
        assert_eq!(table.find(key("a")), None);
        assert_eq!(table.meta(SeriesId(1)), Some(counter));
        assert_eq!(table.meta(SeriesId(2)), Some(gauge));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn a_full_disk_loses_only_the_definition_that_failed() {
        let disk = FakeDisk::default();
        let (mut file, _, _) = open(&disk);
        let gauge = Meta::new(CounterType::Gauge, 60).expect("good");
        file.define(SeriesId(0), key("a"), gauge).expect("room");
        disk.set_room(Some(9));
        assert!(matches!(file.define(SeriesId(1), key("b"), gauge), Err(Error::Disk { .. })));
        disk.set_room(None);
        file.define(SeriesId(1), key("c"), gauge).expect("room again");
        let (_, replay, table) = open(&disk);
        assert_eq!((replay.torn_bytes_cut, replay.corrupt.len()), (0, 0));
        assert_eq!(table.find(key("c")).map(|found| found.id), Some(SeriesId(1)));
        assert_eq!(table.find(key("b")), None);
    }

    #[test]
    fn a_damaged_definition_leaves_the_other_ids_right() {
        let disk = FakeDisk::default();
        let (mut file, _, _) = open(&disk);
        let gauge = Meta::new(CounterType::Gauge, 60).expect("good");
        for (i, endpoint) in ["a", "b", "c"].iter().enumerate() {
            file.define(SeriesId(i as u32), key(endpoint), gauge).expect("room");
        }
        let middle = file.bytes() / 2;
        disk.corrupt(&Path::new(DIR).join("series"), middle);
        let (_, replay, table) = open(&disk);
        assert_eq!(replay.corrupt.len(), 1);
        assert_eq!(table.find(key("c")).map(|found| found.id), Some(SeriesId(2)));
        assert_eq!(table.meta(SeriesId(1)), None);
    }
}
