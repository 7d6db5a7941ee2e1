//! Series file: what each id means; a journal in `series`, replayed at start and rewritten when most of it is dead.
//!
//! Why: the log and the blocks name a series by its id, and the API an endpoint by its number; this file says what they
//! mean. A fleet of short-lived containers defines, puts to sleep and removes series for ever: the file must follow the
//! series in memory, not all that ever were.
//! How: each call of `append` is one write of checksummed records (`record.rs`), made before the first log record that
//! uses the id. A record is complete in itself: the first definition in it names the endpoint, so damage costs the
//! definitions in the damaged record and no other. A compaction writes the present state to `series.tmp` while
//! appending goes on, then what was appended since, and syncs it. What was appended during that last sync was
//! remembered: it is one more write, and the new file takes the old one's name. Nobody who appends waits for a disk
//! meanwhile; who wants changes to be durable waits for the whole last step.
//! docs/format/series.md draws the bytes.
//! Invariants: an append that failed leaves nothing; a definition that could not be written was never given an id that
//! anybody saw. Whoever replays must bear that a change is told again, or tells of a state older than what it knows: a
//! page of a compaction may be younger than the journal behind it. So removed stays removed; a change or the sleep of
//! an id that is unknown is fine.
//! Memory: a window of 64 KiB while replaying; the records of one call while appending.

use super::meta::Meta;
use super::metas::Past;
use crate::error::{Error, Result};
use crate::record::{self, Item, Stream};
use crate::sizes::TEXT_MAX;
use model::{CounterType, SeriesId, Tags};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::varint::{push_u64, take_u64};
use stdx::{Disk, DiskFile};

const MAGIC: &[u8; 8] = b"HKSERS02";
/// Name of the file in the store's directory.
pub const NAME: &str = "series";
const TEMP_NAME: &str = "series.tmp";

const ENDPOINT: u8 = 1;
const DEFINE: u8 = 2;
const DEFINE_SAME: u8 = 3;
const META: u8 = 4;
const REMOVE: u8 = 5;
const SLEEP: u8 = 6;
const REMOVED: u8 = 7;
const NEXT: u8 = 8;
const PAST: u8 = 9;

/// A record takes changes up to this size: what one bad sector may cost, against 12 bytes of header each.
const RECORD_BYTES: usize = 16 << 10;

/// The last change may cross `RECORD_BYTES`: three texts and some numbers. Longer records are damage.
const PAYLOAD_MAX: usize = RECORD_BYTES + 3 * TEXT_MAX + 64;

/// Bytes that a compaction writes, or copies, at once.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// Damage beyond this many places is counted, not listed.
const CORRUPT_MAX: usize = 100;

/// One thing that the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The number of an endpoint, from 1 on, never given twice; needed only where no definition says it.
    Endpoint {
        number: u32,
        name: &'a str,
    },
    /// The definition of a series, which is awake from here on.
    Define {
        id: SeriesId,
        endpoint: u32,
        endpoint_name: &'a str,
        metric: &'a str,
        tags: Tags<'a>,
        meta: Meta,
    },
    /// Another type or step of a series.
    Meta {
        id: SeriesId,
        meta: Meta,
    },
    /// What a series was until another type or step came, which the next change of it tells.
    Past {
        id: SeriesId,
        past: Past,
    },
    Remove {
        id: SeriesId,
    },
    /// A series leaves memory: from here on its name is in a cold run.
    Sleep {
        id: SeriesId,
    },
    /// The removed ones among the ids from `group` × 256 on, lowest bit first.
    Removed {
        group: u32,
        bits: [u64; 4],
    },
    /// All numbers of endpoints and ids of series below these were given.
    Next {
        endpoint: u32,
        series: u32,
    },
}

/// The journal of series on disk.
pub struct SeriesFile {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
    buffer: Vec<u8>,
    /// A failed write could not be cut back yet: there may be bytes behind `len`.
    torn: bool,
    /// A compaction took the file's name, but a power cut may still bring the old file back.
    name_unsynced: bool,
    /// Bytes appended since a compaction began its last step.
    recent: Option<Vec<u8>>,
}

/// The files to sync so that all changes are durable, without holding whatever guards the series file.
pub struct Unsynced {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// The directory, when the file has its name from a compaction.
    dir: Option<PathBuf>,
}

impl Unsynced {
    /// Syncs the file, and its name if need be; true when [`SeriesFile::name_is_durable`] is to be told.
    pub fn sync(&self, disk: &dyn Disk) -> Result<bool> {
        self.file.sync().map_err(Error::disk("sync", &self.path))?;
        let Some(dir) = &self.dir else { return Ok(false) };
        disk.sync_dir(dir).map_err(Error::disk("sync", dir))?;
        Ok(true)
    }
}

/// Findings of reading the file, besides the changes.
#[derive(Default)]
pub struct Replay {
    pub torn_bytes_cut: u64,
    /// File, offset and what was wrong there.
    pub corrupt: Vec<String>,
}

impl SeriesFile {
    /// Opens or creates `series` in `dir` and hands all that it says to `apply`, which answers whether it makes sense.
    pub fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        apply: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(SeriesFile, Replay)> {
        remove_temp(&**disk, dir)?;
        let path = dir.join(NAME);
        let file = disk.open_or_create(&path).map_err(Error::disk("open", &path))?;
        let len = file.len().map_err(Error::disk("read", &path))?;
        let mut head = vec![0; len.min(MAGIC.len() as u64) as usize];
        file.read_at(&mut head, 0).map_err(Error::disk("read", &path))?;
        let (disk, dir) = (disk.clone(), dir.to_path_buf());
        let mut this = SeriesFile {
            disk,
            dir,
            path,
            file,
            len,
            buffer: Vec::new(),
            torn: false,
            name_unsynced: false,
            recent: None,
        };
        let mut replay = Replay::default();
        if head == MAGIC {
            this.replay(apply, &mut replay)?;
        } else if MAGIC.starts_with(&head) {
            this.create()?;
        } else {
            let what = "it is no series file of this version; move it away or take the version that wrote it";
            return Err(Error::Corrupt { path: this.path, offset: 0, what: what.to_string() });
        }
        // The last process may have ended between giving the file its name and making that durable.
        this.disk.sync_dir(&this.dir).map_err(Error::disk("sync", &this.dir))?;
        Ok((this, replay))
    }

    fn create(&mut self) -> Result<()> {
        self.file.write_at(MAGIC, 0).map_err(Error::disk("write", &self.path))?;
        self.file.sync().map_err(Error::disk("sync", &self.path))?;
        self.len = MAGIC.len() as u64;
        Ok(())
    }

    fn replay(&mut self, apply: &mut dyn FnMut(Change<'_>) -> bool, replay: &mut Replay) -> Result<()> {
        let mut stream = Stream::new(self.file.clone(), MAGIC.len() as u64, self.len, PAYLOAD_MAX);
        let mut corrupt_count = 0;
        let mut corrupt = |offset: usize, what: &str| {
            corrupt_count += 1;
            if corrupt_count <= CORRUPT_MAX {
                replay.corrupt.push(format!("{} at byte {offset}: {what}", self.path.display()));
            }
        };
        while let Some(item) = stream.next().map_err(Error::disk("read", &self.path))? {
            match item {
                Item::Payload(offset, payload) => {
                    let mut changes = Changes::new(payload);
                    for change in &mut changes {
                        if !apply(change) {
                            corrupt(offset, &senseless(&change));
                        }
                    }
                    if !changes.rest.is_empty() {
                        corrupt(offset, "no record of series");
                    }
                }
                Item::Corrupt { offset, bytes } => corrupt(offset, &format!("{bytes} bytes skipped")),
                Item::Torn { offset, bytes } => {
                    self.len = offset as u64;
                    replay.torn_bytes_cut = bytes as u64;
                }
            }
        }
        if corrupt_count > CORRUPT_MAX {
            let more = corrupt_count - CORRUPT_MAX;
            replay.corrupt.push(format!("{}: {more} more places", self.path.display()));
        }
        if replay.torn_bytes_cut > 0 {
            self.file.set_len(self.len).map_err(Error::disk("cut", &self.path))?;
        }
        Ok(())
    }

    /// Adds `changes` in one write; on an error none of them is there.
    pub fn append(&mut self, changes: &[Change<'_>]) -> Result<()> {
        if self.torn {
            self.file.set_len(self.len).map_err(Error::disk("cut", &self.path))?;
            self.torn = false;
        }
        self.buffer.clear();
        encode(changes, &mut self.buffer);
        if let Err(cause) = self.file.write_at(&self.buffer, self.len) {
            // Whole records of what failed must not be read again, should a shorter write come next.
            self.torn = self.file.set_len(self.len).is_err();
            return Err(Error::disk("write", &self.path)(cause));
        }
        self.len += self.buffer.len() as u64;
        if let Some(recent) = &mut self.recent {
            recent.extend_from_slice(&self.buffer);
        }
        self.buffer.shrink_to(RECORD_BYTES);
        Ok(())
    }

    /// Bytes that the buffers hold.
    pub fn memory_bytes(&self) -> usize {
        self.buffer.capacity() + self.recent.as_ref().map_or(0, Vec::capacity)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// The files to sync so that all changes so far are durable.
    pub fn unsynced(&self) -> Unsynced {
        let dir = self.name_unsynced.then(|| self.dir.clone());
        Unsynced { file: self.file.clone(), path: self.path.clone(), dir }
    }

    /// The directory was synced since the last compaction ended.
    pub fn name_is_durable(&mut self) {
        self.name_unsynced = false;
    }

    /// Begins the last step of a compaction: remembers what is appended until `unwatch`. Until a compaction took the
    /// file's place, or was given up, nobody may be told that a change appended from now on is durable.
    pub fn watch(&mut self) -> Journal {
        self.recent = Some(Vec::new());
        Journal { file: self.file.clone(), path: self.path.clone(), len: self.len }
    }

    /// Ends what `watch` began; returns the bytes appended since.
    pub fn unwatch(&mut self) -> Vec<u8> {
        self.recent.take().unwrap_or_default()
    }

    /// Puts a compaction that has caught up in the file's place; `recent` is what was appended since. Writes, and
    /// renames, but waits for no disk. On an error the file is as it was.
    pub fn switch_to(&mut self, compaction: Compaction, recent: &[u8]) -> Result<()> {
        let Compaction { file, temp, written, .. } = &compaction;
        file.write_at(recent, *written).map_err(Error::disk("write", temp))?;
        self.disk.rename(temp, &self.path).map_err(Error::disk("rename", temp))?;
        self.file = file.clone();
        self.len = written + recent.len() as u64;
        self.torn = false;
        self.name_unsynced = true;
        Ok(())
    }
}

/// The journal as it was when a compaction looked, to be read without holding what guards the series file.
pub struct Journal {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    len: u64,
}

fn remove_temp(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let temp = dir.join(TEMP_NAME);
    match disk.remove(&temp) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::disk("remove", &temp)(cause)),
        _ => Ok(()),
    }
}

fn senseless(change: &Change<'_>) -> String {
    match change {
        Change::Endpoint { number, name } => format!("endpoint {number} cannot be {name:?}"),
        Change::Define { id, endpoint_name, metric, .. } => {
            format!("series {} cannot be {metric:?} of {endpoint_name:?}", id.0)
        }
        other => format!("{other:?} makes no sense"),
    }
}

/// A new series file on its way; dropped before the end, it leaves nothing.
pub struct Compaction {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    temp: PathBuf,
    /// Length of the journal when this began.
    since: u64,
    written: u64,
    buffer: Vec<u8>,
}

impl Compaction {
    /// Begins an empty file beside the journal; to be called without holding what guards the series file. There is one
    /// compaction at a time.
    pub fn begin(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Compaction> {
        let temp = dir.join(TEMP_NAME);
        let file = disk.open_or_create(&temp).map_err(Error::disk("create", &temp))?;
        file.set_len(0).map_err(Error::disk("cut", &temp))?;
        Ok(Compaction { disk: disk.clone(), file, temp, since: 0, written: 0, buffer: MAGIC.to_vec() })
    }

    /// Notes where the journal ends now: what is added must be read from the state after this call.
    pub fn follow(&mut self, journal: &SeriesFile) {
        self.since = journal.len;
    }

    /// Adds a part of the state; some hundred changes at once make good records.
    pub fn add(&mut self, changes: &[Change<'_>]) -> Result<()> {
        encode(changes, &mut self.buffer);
        if self.buffer.len() >= WRITE_BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written).map_err(Error::disk("write", &self.temp))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes durable what was added, so that the last step waits for the journal's last changes only. To be called
    /// without holding what guards the series file.
    pub fn settle(&mut self) -> Result<()> {
        self.write_out()?;
        self.file.sync().map_err(Error::disk("sync", &self.temp))
    }

    /// Copies what the journal got since `follow`, and makes it durable. To be called without holding what guards the
    /// series file.
    pub fn catch_up(&mut self, journal: &Journal) -> Result<()> {
        let mut at = self.since;
        while at < journal.len {
            self.write_out()?;
            self.buffer.resize((journal.len - at).min(WRITE_BUFFER_BYTES as u64) as usize, 0);
            journal.file.read_at(&mut self.buffer, at).map_err(Error::disk("read", &journal.path))?;
            at += self.buffer.len() as u64;
        }
        self.settle()
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        // After `switch_to` there is none; what cannot be removed now is removed at the next start.
        let _ = self.disk.remove(&self.temp);
    }
}

/// Appends `changes` as records to `out`.
fn encode(changes: &[Change<'_>], out: &mut Vec<u8>) {
    let mut changes = changes.iter().peekable();
    while changes.peek().is_some() {
        let start = record::begin(out);
        let mut endpoint = None;
        while out.len() - start < RECORD_BYTES {
            let Some(change) = changes.next() else { break };
            push_change(change, &mut endpoint, out);
        }
        record::seal(out, start);
    }
}

/// Appends one change; `named` is the endpoint of the definition before in the same record.
fn push_change(change: &Change<'_>, named: &mut Option<u32>, out: &mut Vec<u8>) {
    match *change {
        Change::Endpoint { number, name } => {
            push_kind(ENDPOINT, number, out);
            push_text(name, out);
        }
        Change::Define { id, endpoint, endpoint_name, metric, tags, meta } => {
            if named.replace(endpoint) == Some(endpoint) {
                push_kind(DEFINE_SAME, id.0, out);
            } else {
                push_kind(DEFINE, id.0, out);
                push_u64(u64::from(endpoint), out);
                push_text(endpoint_name, out);
            }
            push_meta(meta, out);
            push_text(metric, out);
            push_text(tags.as_str(), out);
        }
        Change::Meta { id, meta } => {
            push_kind(META, id.0, out);
            push_meta(meta, out);
        }
        Change::Past { id, past } => {
            push_kind(PAST, id.0, out);
            push_u64(u64::from(past.until), out);
            push_meta(past.meta, out);
        }
        Change::Remove { id } => push_kind(REMOVE, id.0, out),
        Change::Sleep { id } => push_kind(SLEEP, id.0, out),
        Change::Removed { group, bits } => {
            push_kind(REMOVED, group, out);
            bits.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        }
        Change::Next { endpoint, series } => {
            push_kind(NEXT, endpoint, out);
            push_u64(u64::from(series), out);
        }
    }
}

fn push_kind(kind: u8, number: u32, out: &mut Vec<u8>) {
    out.push(kind);
    push_u64(u64::from(number), out);
}

fn push_meta(meta: Meta, out: &mut Vec<u8>) {
    out.push(meta.counter_type as u8);
    push_u64(u64::from(meta.step), out);
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    push_u64(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Reads the changes of a payload; `rest` is empty at the end unless something made no sense there.
struct Changes<'a> {
    rest: &'a [u8],
    named: Option<(u32, &'a str)>,
}

impl<'a> Changes<'a> {
    fn new(payload: &'a [u8]) -> Changes<'a> {
        Changes { rest: payload, named: None }
    }

    fn take(&mut self, input: &mut &'a [u8]) -> Option<Change<'a>> {
        let (kind, number) = (take_u8(input)?, take_u32(input)?);
        let id = SeriesId(number);
        Some(match kind {
            ENDPOINT => Change::Endpoint { number, name: take_text(input)? },
            DEFINE => {
                self.named = Some((take_u32(input)?, take_text(input)?));
                self.take_definition(id, input)?
            }
            DEFINE_SAME => self.take_definition(id, input)?,
            META => Change::Meta { id, meta: take_meta(input)? },
            PAST => Change::Past { id, past: Past { until: take_u32(input)?, meta: take_meta(input)? } },
            REMOVE => Change::Remove { id },
            SLEEP => Change::Sleep { id },
            REMOVED => Change::Removed { group: number, bits: take_bits(input)? },
            NEXT => Change::Next { endpoint: number, series: take_u32(input)? },
            _ => return None,
        })
    }

    fn take_definition(&self, id: SeriesId, input: &mut &'a [u8]) -> Option<Change<'a>> {
        let (endpoint, endpoint_name) = self.named?;
        let (meta, metric, tags) = (take_meta(input)?, take_text(input)?, take_tags(input)?);
        Some(Change::Define { id, endpoint, endpoint_name, metric, tags, meta })
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        let mut input = self.rest;
        let change = self.take(&mut input)?;
        self.rest = input;
        Some(change)
    }
}

fn take_u8(input: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = input.split_first()?;
    *input = rest;
    Some(*byte)
}

fn take_u32(input: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_u64(input)?).ok()
}

fn take_meta(input: &mut &[u8]) -> Option<Meta> {
    let counter_type = CounterType::from_u8(take_u8(input)?)?;
    Meta::new(counter_type, take_u32(input)?).ok()
}

fn take_bits(input: &mut &[u8]) -> Option<[u64; 4]> {
    let mut bits = [0; 4];
    for word in &mut bits {
        let (bytes, rest) = input.split_first_chunk::<8>()?;
        *word = u64::from_le_bytes(*bytes);
        *input = rest;
    }
    Some(bits)
}

fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::try_from(take_u64(input)?).ok().filter(|len| *len <= TEXT_MAX)?;
    let (text, rest) = input.split_at_checked(len)?;
    *input = rest;
    std::str::from_utf8(text).ok()
}

fn take_tags<'a>(input: &mut &'a [u8]) -> Option<Tags<'a>> {
    let text = take_text(input)?;
    let canonical = Tags::canonical(text, &mut String::new()).as_str() == text;
    canonical.then(|| Tags::assume_canonical(text))
}

#[cfg(test)]
mod tests;
