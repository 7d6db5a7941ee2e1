//! Files: the part of the buffer that is on the disk, a [`Spool`] in a directory that one agent has for itself.
//!
//! How: a record is an item's JSON with its length before it (docs/format/spool.md), so that what is read is what a
//! transfer takes, cut into calls of 64 KiB wherever the batches ended. Each batch is appended by itself: whoever has
//! one under way when it is written must know where it ends.
//! Invariants: what [`Files::write`] answers is read after a kill; what was told with [`Files::forget`] is not, but for
//! what a disk lets happen that refuses the note.
//! Memory: one batch while it is written or read.

use crate::batch::Batch;
use spool::{Frames, Options, Position, Read, Spool, Stats};
use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::{Disk, varint};
use wire::json;

/// The file by which an agent has the directory for itself.
const LOCK: &str = "lock";

/// The buffer's directory, while this agent has it.
pub struct Files {
    spool: Spool,
    dir: PathBuf,
    frames: Frames,
    /// Whether a look may find something: nothing was found since the last write otherwise.
    may_have_more: bool,
    /// Held until the end of the process, or of this value.
    _lock: Box<dyn Any + Send + Sync>,
}

/// A batch that was written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Number of the batch in the queue.
    pub id: u64,
    /// Items of the batch, and those that are in the file: one that is too long for a record is not.
    pub items: usize,
    pub records: u32,
    /// Place behind it.
    pub end: Position,
}

/// What the oldest records of the files are.
pub enum Found {
    Batch(Batch, Read),
    /// Records whose bytes are whole, and which are none of ours; none of them where a damaged place was met.
    Unreadable(Read),
    Nothing,
}

impl Files {
    /// Takes `dir`, which is made if need be, and opens what is in it.
    pub fn open(disk: &Arc<dyn Disk>, dir: &Path, bytes_max: u64) -> io::Result<Files> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
        disk.create_dir(dir).map_err(named)?;
        let lock = disk.lock(&dir.join(LOCK)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is in use by another agent: give each a buffer_dir of its own", dir.display()),
            ),
            _ => named(error),
        })?;
        let spool = Spool::open(disk.clone(), dir, Options { bytes_max })?;
        Ok(Files { spool, dir: dir.to_path_buf(), frames: Frames::default(), may_have_more: true, _lock: lock })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether something may wait here.
    pub fn may_have_more(&self) -> bool {
        self.may_have_more
    }

    /// Whether nothing waits here.
    pub fn is_empty(&self) -> bool {
        !self.may_have_more || self.stats().waiting == 0
    }

    /// Writes batches in their order; answers those that were, and the error that left out the others.
    pub fn write(&mut self, batches: &[(u64, Batch)]) -> (Vec<Written>, io::Result<()>) {
        let mut written = Vec::with_capacity(batches.len());
        for (id, batch) in batches {
            match self.write_one(*id, batch) {
                Ok(one) => written.push(one),
                Err(error) => return (written, Err(error)),
            }
        }
        // The note says what is there now: a start tells what is missing of it.
        (written, self.spool.sync().and_then(|()| self.spool.keep_cursor()))
    }

    fn write_one(&mut self, id: u64, batch: &Batch) -> io::Result<Written> {
        self.frames.clear(0);
        let mut records = 0;
        let frames = &mut self.frames;
        let read = json::elements(&batch.json, |item| {
            records += u32::from(frames.push(|out| {
                varint::push_u64(item.len() as u64, out);
                out.extend_from_slice(item);
            }));
        });
        debug_assert_eq!(read, Ok(()), "a batch is an array");
        self.spool.append(&mut self.frames)?;
        self.frames.clear(0);
        self.may_have_more = true;
        Ok(Written { id, items: batch.items, records, end: self.spool.end() })
    }

    /// The oldest records, as a batch; they stay.
    pub fn read(&mut self) -> io::Result<Found> {
        let found = self.peek(self.spool.cursor())?;
        self.may_have_more = !matches!(found, Found::Nothing);
        Ok(found)
    }

    /// Records behind `from`, as a batch; they stay.
    pub fn peek(&self, from: Position) -> io::Result<Found> {
        let mut payload = Vec::new();
        let Some(read) = self.spool.read(from, &mut payload)? else { return Ok(Found::Nothing) };
        Ok(match batch_of(&payload, read.records) {
            Some(batch) => Found::Batch(batch, read),
            None => Found::Unreadable(read),
        })
    }

    /// Notes that `records` up to `to` are with a transfer, or given up.
    pub fn forget(&mut self, to: Position, records: u32) -> io::Result<()> {
        self.spool.consumed(to, records)?;
        self.spool.keep_cursor()
    }

    /// Figures of now.
    pub fn stats(&self) -> Stats {
        self.spool.stats()
    }

    /// Losses that were found and not taken yet, for people.
    pub fn take_found(&self) -> Vec<String> {
        self.spool.take_found()
    }
}

/// The batch that these records are; none where they are not so many, or of another form.
fn batch_of(mut payload: &[u8], records: u32) -> Option<Batch> {
    let mut json = Vec::with_capacity(payload.len() + 2);
    let mut items = 0;
    while !payload.is_empty() {
        let length = usize::try_from(varint::take_u64(&mut payload)?).ok()?;
        let (item, rest) = payload.split_at_checked(length)?;
        json.push(if items == 0 { b'[' } else { b',' });
        json.extend_from_slice(item);
        items += 1;
        payload = rest;
    }
    json.push(b']');
    (items > 0 && items == records as usize).then(|| Batch { json: json.into(), items })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stdx::FakeDisk;

    const MIB: u64 = 1 << 20;

    fn open(disk: &Arc<FakeDisk>) -> Files {
        let disk: Arc<dyn Disk> = disk.clone();
        Files::open(&disk, Path::new("/buffer"), MIB).expect("it opens")
    }

    fn batch(items: &[String]) -> Batch {
        Batch { json: format!("[{}]", items.join(",")).into_bytes().into(), items: items.len() }
    }

    fn items(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|i| format!("{{\"metric\":\"m, [{i}]\",\"value\":{i}}}")).collect()
    }

    /// Reads and forgets everything; answers the items' text.
    fn drain(files: &mut Files) -> String {
        let mut text = String::new();
        loop {
            match files.read().expect("it reads") {
                Found::Batch(batch, read) => {
                    let array = std::str::from_utf8(&batch.json).expect("UTF-8");
                    assert!(json::check(&batch.json).is_ok() && batch.items == read.records as usize);
                    text = format!("{text}{}{}", if text.is_empty() { "" } else { "," }, &array[1..array.len() - 1]);
                    files.forget(read.next, read.records).expect("room");
                }
                Found::Unreadable(read) => panic!("{read:?}"),
                Found::Nothing => return text,
            }
        }
    }

    #[test]
    fn what_was_written_is_read_in_order_after_a_kill_and_once() {
        let disk = Arc::new(FakeDisk::default());
        let mut files = open(&disk);
        // More than one call's worth, in batches of different sizes.
        let batches: Vec<(u64, Batch)> = [0..1, 1..3000, 3000..3002]
            .map(items)
            .map(|it| batch(&it))
            .into_iter()
            .zip(5..)
            .map(|(batch, id)| (id, batch))
            .collect();
        let (written, result) = files.write(&batches);
        assert!(result.is_ok() && written.iter().map(|one| (one.id, one.records)).eq([(5, 1), (6, 2999), (7, 2)]));
        drop(files);
        disk.restart_after_kill();
        let mut files = open(&disk);
        assert_eq!(drain(&mut files), items(0..3002).join(","));
        assert!(!files.may_have_more());
        drop(files);
        disk.restart_after_kill();
        assert_eq!(drain(&mut open(&disk)), "", "what was forgotten stays so");
    }

    #[test]
    fn one_agent_has_the_directory() {
        let disk = Arc::new(FakeDisk::default());
        let _files = open(&disk);
        let other: Arc<dyn Disk> = disk.clone();
        let error = Files::open(&other, Path::new("/buffer"), MIB).err().expect("it is in use").to_string();
        assert!(error.contains("/buffer") && error.contains("buffer_dir"), "{error}");
    }

    #[test]
    fn an_item_that_no_record_holds_is_left_out_and_told() {
        let disk = Arc::new(FakeDisk::default());
        let mut files = open(&disk);
        let long = format!("{{\"metric\":\"{}\"}}", "m".repeat(20_000));
        let (written, result) = files.write(&[(1, batch(&["{}".to_string(), long, "{}".to_string()]))]);
        assert!(result.is_ok());
        assert_eq!((written[0].items, written[0].records), (3, 2));
        assert_eq!(drain(&mut files), "{},{}");
    }

    #[test]
    fn records_of_another_form_are_told_apart() {
        let disk = Arc::new(FakeDisk::default());
        let mut files = open(&disk);
        let mut frames = Frames::default();
        assert!(frames.push(|out| out.extend_from_slice(b"\x7fnot as long as it says")));
        files.spool.append(&mut frames).expect("room");
        files.may_have_more = true;
        let Ok(Found::Unreadable(read)) = files.read() else { panic!("these are no items") };
        files.forget(read.next, read.records).expect("room");
        assert!(matches!(files.read(), Ok(Found::Nothing)));
    }

    #[test]
    fn a_full_disk_leaves_out_what_it_did_not_take() {
        let disk = Arc::new(FakeDisk::default());
        let mut files = open(&disk);
        let first = batch(&items(0..10));
        let (written, result) = files.write(&[(1, first)]);
        assert!(result.is_ok() && written.len() == 1);
        disk.set_room(Some(0));
        let (written, result) = files.write(&[(2, batch(&items(10..5000)))]);
        assert!(result.is_err() && written.is_empty());
        disk.set_room(None);
        assert_eq!(drain(&mut files), items(0..10).join(","));
    }
}
