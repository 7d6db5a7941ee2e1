//! Log: every accepted batch, appended to a segment before it is applied and answered.
//!
//! Why: chunks live in memory for hours; what was acknowledged must be there after `kill -9`, and after a power cut up to
//! the last fsync.
//! How: one `write` per batch to the current segment under a short lock; fsync by policy, outside that lock, one for all
//! batches that wait (group commit). A full segment is followed by the next; segments whose points are all in blocks are
//! removed. At start all segments are replayed, and a new one is begun: old ones are never appended to.
//! docs/format/log.md draws the bytes.
//! Invariants: a write that failed is cut back and leaves the log as it was; a segment's number is never used twice;
//! no point is in a removed segment that is not in a block; a batch whose sync failed is never said to be durable, also when
//! a later sync succeeds: the system forgets what it could not write, and says so once.
//! Memory: the callers' buffers only; at start one segment at a time.

use crate::error::{Error, Result};
use crate::record::{self, Item, Reader};
use model::{Point, Sample, SeriesId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use stdx::varint::{push_i64, take_i64, unzigzag, zigzag};
use stdx::{Disk, DiskFile};

const MAGIC: &[u8; 8] = b"HKLOG001";

/// Samples per record: at 25 bytes in the worst case a tenth of `record::PAYLOAD_MAX`.
const RECORD_SAMPLES_MAX: usize = 65_536;

/// When what is written is made durable against a power cut. A killed process loses nothing under any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before each answer.
    Always,
    /// Each `tick`, so at most a second later.
    EverySecond,
    /// When the operating system likes.
    Never,
}

pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    writer: Mutex<Writer>,
    /// Held while syncing, so that those who wait share one sync.
    synced: Mutex<Synced>,
    syncs: AtomicU64,
}

#[derive(Default)]
struct Synced {
    /// Batches up to this number are durable, as far as they are above `doubtful`.
    to: u64,
    /// Batches up to this number were written when a sync failed. Only a flush makes sure of them.
    doubtful: u64,
}

struct Writer {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    number: u64,
    len: u64,
    /// Batches written so far.
    written: u64,
    /// Older segments that were not synced since their last write, also by a process before.
    unsynced: Vec<(PathBuf, Arc<dyn DiskFile>)>,
    /// Bytes of the segments before the current one.
    full: BTreeMap<u64, u64>,
}

#[derive(Default)]
pub struct Replay {
    pub points: u64,
    pub segments: usize,
    pub torn_bytes_cut: u64,
    pub corrupt: Vec<String>,
}

impl Log {
    /// Replays all segments in `dir` through `apply`, then begins a new one.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        mut apply: impl FnMut(Sample),
    ) -> Result<(Log, Replay)> {
        disk.create_dir(dir).map_err(Error::disk("create", dir))?;
        let (mut full, mut unsynced) = (BTreeMap::new(), Vec::new());
        let mut replay = Replay::default();
        let numbers = segment_numbers(&*disk, dir)?;
        for number in &numbers {
            let path = dir.join(segment_name(*number));
            let file = disk.open_or_create(&path).map_err(Error::disk("open", &path))?;
            full.insert(*number, replay_segment(&path, &*file, &mut apply, &mut replay)?);
            // Whoever wrote it may have been killed before it was synced.
            unsynced.push((path, file));
        }
        replay.segments = numbers.len();
        let number = numbers.last().map_or(1, |last| last + 1);
        let (file, path) = create_segment(&*disk, dir, number)?;
        let len = MAGIC.len() as u64;
        let writer = Writer { file, path, number, len, written: 0, unsynced, full };
        let log = Log {
            disk,
            dir: dir.to_path_buf(),
            segment_bytes,
            writer: Mutex::new(writer),
            synced: Mutex::default(),
            syncs: AtomicU64::new(0),
        };
        Ok((log, replay))
    }

    /// Appends encoded records. Returns the batch's number, for `sync_to`.
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        let mut writer = self.writer();
        if writer.len + bytes.len() as u64 > self.segment_bytes && writer.len > MAGIC.len() as u64 {
            self.next_segment(&mut writer)?;
        }
        if let Err(cause) = writer.file.write_at(bytes, writer.len) {
            // Should this fail as well, the next write goes to the same place and covers what was torn.
            let _ = writer.file.set_len(writer.len);
            return Err(Error::disk("write", &writer.path)(cause));
        }
        writer.len += bytes.len() as u64;
        writer.written += 1;
        Ok(writer.written)
    }

    /// Makes everything that is written durable, short of what a failure leaves in doubt.
    pub fn sync(&self) -> Result<()> {
        let mut synced = self.synced.lock().expect("no panic while syncing");
        let writer = self.writer();
        if writer.written <= synced.to && writer.unsynced.is_empty() {
            return Ok(());
        }
        drop(writer);
        self.sync_locked(&mut synced)
    }

    /// Makes the batches up to `number` durable, with all that were written meanwhile.
    pub fn sync_to(&self, number: u64) -> Result<()> {
        let mut synced = self.synced.lock().expect("no panic while syncing");
        if number <= synced.doubtful {
            let cause = std::io::Error::other("a sync failed since the batch was written; send it again");
            return Err(Error::disk("sync", &self.dir)(cause));
        }
        if number <= synced.to { Ok(()) } else { self.sync_locked(&mut synced) }
    }

    fn sync_locked(&self, synced: &mut Synced) -> Result<()> {
        let (file, path, written, unsynced) = {
            let writer = self.writer();
            (writer.file.clone(), writer.path.clone(), writer.written, writer.unsynced.clone())
        };
        self.syncs.fetch_add(1, Relaxed);
        for (path, file) in unsynced.iter().chain([&(path, file)]) {
            if let Err(cause) = file.sync() {
                // Of those written while the sync ran nobody knows; counting them in costs their senders a repetition.
                synced.doubtful = self.writer().written;
                return Err(Error::disk("sync", path)(cause));
            }
        }
        self.writer().unsynced.retain(|(path, _)| unsynced.iter().all(|(done, _)| done != path));
        synced.to = written;
        Ok(())
    }

    /// How often the disk was asked to sync.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Relaxed)
    }

    /// Begins a new segment, unless the current one is empty. Returns its number: all points appended before this call are
    /// in segments below it.
    pub fn rotate(&self) -> Result<u64> {
        let mut writer = self.writer();
        if writer.len > MAGIC.len() as u64 {
            self.next_segment(&mut writer)?;
        }
        Ok(writer.number)
    }

    fn next_segment(&self, writer: &mut Writer) -> Result<()> {
        let number = writer.number + 1;
        let (file, path) = create_segment(&*self.disk, &self.dir, number)?;
        let old = std::mem::replace(&mut writer.file, file);
        let old_path = std::mem::replace(&mut writer.path, path);
        writer.unsynced.push((old_path, old));
        writer.full.insert(writer.number, writer.len);
        writer.number = number;
        writer.len = MAGIC.len() as u64;
        Ok(())
    }

    /// Removes the segments below `number`.
    pub fn remove_below(&self, number: u64) -> Result<()> {
        let old: Vec<u64> = self.writer().full.range(..number).map(|(number, _)| *number).collect();
        for number in &old {
            let path = self.dir.join(segment_name(*number));
            self.disk.remove(&path).map_err(Error::disk("remove", &path))?;
            let mut writer = self.writer();
            writer.full.remove(number);
            writer.unsynced.retain(|(unsynced, _)| *unsynced != path);
        }
        if !old.is_empty() {
            // Else a power cut brings one back, perhaps torn, to be replayed in vain and reported.
            self.disk.sync_dir(&self.dir).map_err(Error::disk("sync", &self.dir))?;
        }
        Ok(())
    }

    /// What is remembered of segments; the bytes of a batch are its caller's.
    pub fn memory_bytes(&self) -> usize {
        let writer = self.writer();
        // A node of the tree has room for eleven entries and is half full at least.
        let full = writer.full.len() * 2 * size_of::<(u64, u64)>();
        let unsynced = writer.unsynced.capacity() * size_of::<(PathBuf, Arc<dyn DiskFile>)>();
        full + unsynced + writer.unsynced.iter().map(|(path, _)| path.capacity()).sum::<usize>()
    }

    /// Bytes and number of all segments.
    pub fn size(&self) -> (u64, usize) {
        let writer = self.writer();
        (writer.full.values().sum::<u64>() + writer.len, writer.full.len() + 1)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect("no panic while holding the log")
    }
}

fn segment_name(number: u64) -> String {
    format!("{number:08}.log")
}

fn segment_numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let names = disk.list(dir).map_err(Error::disk("list", dir))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn create_segment(disk: &dyn Disk, dir: &Path, number: u64) -> Result<(Arc<dyn DiskFile>, PathBuf)> {
    let path = dir.join(segment_name(number));
    let file = disk.open_or_create(&path).map_err(Error::disk("create", &path))?;
    let begin = || {
        // A segment that could not be begun before may have left bytes.
        file.set_len(0)?;
        file.write_at(MAGIC, 0)
    };
    begin().map_err(Error::disk("write", &path))?;
    disk.sync_dir(dir).map_err(Error::disk("sync", dir))?;
    Ok((file, path))
}

/// Returns the segment's length after a torn tail was cut.
fn replay_segment(
    path: &Path,
    file: &dyn DiskFile,
    apply: &mut impl FnMut(Sample),
    replay: &mut Replay,
) -> Result<u64> {
    let mut bytes = vec![0; file.len().map_err(Error::disk("read", path))? as usize];
    file.read_at(&mut bytes, 0).map_err(Error::disk("read", path))?;
    let shown = path.display();
    // Zeros are what a power cut leaves of a head that was not synced yet.
    if bytes.iter().zip(MAGIC).any(|(byte, wanted)| byte != wanted && *byte != 0) {
        // Its records, if any, are marked and summed: they are looked for behind the head all the same.
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

/// Appends `samples` as records to `out`.
pub fn encode(samples: impl Iterator<Item = Sample>, out: &mut Vec<u8>) {
    let mut samples = samples.peekable();
    while samples.peek().is_some() {
        let start = record::begin(out);
        let (mut series, mut time) = (-1, 0);
        for sample in samples.by_ref().take(RECORD_SAMPLES_MAX) {
            encode_sample(sample, &mut series, &mut time, out);
        }
        record::seal(out, start);
    }
}

/// The bits of a sample's first byte; the rest is the value's form.
const NEXT_SERIES: u8 = 1;
const SAME_TIME: u8 = 2;
const VALUE_SHIFT: u32 = 2;
/// Forms 0 to 7: a whole number in so many bytes; 8 to 15: the upper 1 to 8 bytes of the bits.
const UPPER_BYTES: u8 = 8;

#[inline]
fn encode_sample(sample: Sample, series: &mut i64, time: &mut i64, out: &mut Vec<u8>) {
    let at = out.len();
    out.push(0);
    let mut first = 0;
    let id = i64::from(sample.series.0);
    if id == *series + 1 {
        first |= NEXT_SERIES;
    } else {
        push_i64(id - *series, out);
    }
    if sample.point.time == *time {
        first |= SAME_TIME;
    } else {
        push_i64(sample.point.time.wrapping_sub(*time), out);
    }
    (*series, *time) = (id, sample.point.time);
    let form = encode_value(sample.point.value, out);
    out[at] = first | form << VALUE_SHIFT;
}

#[inline]
fn encode_value(value: f64, out: &mut Vec<u8>) -> u8 {
    let bits = value.to_bits();
    let whole = value as i64;
    let upper = 8 - (bits.trailing_zeros() / 8).min(7) as u8;
    if (whole as f64).to_bits() == bits && whole != i64::MAX {
        let code = zigzag(whole);
        let width = 8 - (code.leading_zeros() / 8) as u8;
        if width < UPPER_BYTES && width <= upper {
            out.extend_from_slice(&code.to_le_bytes()[..usize::from(width)]);
            return width;
        }
    }
    out.extend_from_slice(&bits.to_be_bytes()[..usize::from(upper)]);
    UPPER_BYTES + upper - 1
}

/// Hands the samples of a payload to `apply`; `None` at the first byte that makes no sense.
pub fn decode(mut input: &[u8], mut apply: impl FnMut(Sample)) -> Option<()> {
    let (mut series, mut time) = (-1i64, 0i64);
    while let Some((first, rest)) = input.split_first() {
        input = rest;
        let ahead = if first & NEXT_SERIES != 0 { 1 } else { take_i64(&mut input)? };
        series = series.checked_add(ahead)?;
        if first & SAME_TIME == 0 {
            time = time.wrapping_add(take_i64(&mut input)?);
        }
        let value = decode_value(first >> VALUE_SHIFT, &mut input)?;
        let series = SeriesId(u32::try_from(series).ok()?);
        apply(Sample { series, point: Point { time, value } });
    }
    Some(())
}

#[inline]
fn decode_value(form: u8, input: &mut &[u8]) -> Option<f64> {
    let mut bytes = [0; 8];
    if form < UPPER_BYTES {
        let (code, rest) = input.split_at_checked(usize::from(form))?;
        bytes[..code.len()].copy_from_slice(code);
        *input = rest;
        return Some(unzigzag(u64::from_le_bytes(bytes)) as f64);
    }
    let (upper, rest) = input.split_at_checked(usize::from(form - UPPER_BYTES) + 1)?;
    bytes.get_mut(..upper.len())?.copy_from_slice(upper);
    *input = rest;
    Some(f64::from_bits(u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(series: u32, time: i64, value: f64) -> Sample {
        Sample { series: SeriesId(series), point: Point { time, value } }
    }

    #[test]
    fn a_hosts_batch_is_small() {
        let mut out = Vec::new();
        encode((0..200).map(|i| sample(1000 + i, 1_600_000_000, 7.0)), &mut out);
        // Record's header, first series and time, then two bytes each.
        assert_eq!(out.len(), record::HEADER_BYTES + 2 + 5 + 200 * 2);
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        let value = prop_oneof![any::<f64>(), (-5i64..5).prop_map(|v| v as f64), any::<i64>().prop_map(|v| v as f64)];
        (any::<u32>(), any::<i64>(), value).prop_map(|(series, time, value)| sample(series, time, value))
    }

    proptest! {
        #[test]
        fn batches_read_back(samples in prop::collection::vec(any_sample(), 0..50)) {
            let mut out = Vec::new();
            encode(samples.iter().copied(), &mut out);
            let mut back = Vec::new();
            for item in Reader::new(&out, 0) {
                let Item::Payload(_, payload) = item else { panic!("{item:?}") };
                decode(payload, |sample| back.push(sample)).expect("own bytes");
            }
            let bits = |samples: &[Sample]| -> Vec<(u32, i64, u64)> {
                samples.iter().map(|s| (s.series.0, s.point.time, s.point.value.to_bits())).collect()
            };
            prop_assert_eq!(bits(&samples), bits(&back));
        }

        #[test]
        fn hostile_payloads_end(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes, |_| ());
        }
    }
}
