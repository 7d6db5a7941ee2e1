//! Consumer: reads the queue's records in order, behind the writer.
//!
//! Invariants: each record once; a segment that is deleted because its reader lags too far is passed over.
//! Memory: a buffer of at most [`RECORD_MAX`] bytes, given back when it grew.

use crate::EventQueue;
use crate::entry::Record;
use crate::record::{EVENT, FORGET, RECORD_MAX, find_record, parse_record};
use crate::recovery::Damage;
use crate::segment::{BUFFER_KEEP, segment_path};
use crate::trouble::Trouble;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use stdx::DiskFile;

/// Reader of records in their order, behind whoever appends. Blocks for files, so not for an async thread.
pub struct Consumer {
    queue: Arc<EventQueue>,
    /// The highest sequence number that was read.
    pub(crate) cursor: u64,
    reading: Option<SegmentAtHand>,
    buffer: Vec<u8>,
    damaged: Vec<Damage>,
    unreadable: u64,
}

/// A part of a segment that was not read yet.
struct Unread {
    file: Arc<dyn DiskFile>,
    at: u64,
    end: u64,
    first_seq: u64,
}

/// The segment at hand.
struct SegmentAtHand {
    first_seq: u64,
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Consumer {
    pub(crate) fn new(queue: Arc<EventQueue>, cursor: u64) -> Consumer {
        Consumer { queue, cursor, reading: None, buffer: Vec::new(), damaged: Vec::new(), unreadable: 0 }
    }

    /// The highest sequence number that was read, or could not be.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Appends up to `count_max` records to `out`; none when all are read. What cannot be read is skipped, and told by
    /// [`Consumer::take_trouble`].
    pub fn read(&mut self, count_max: usize, out: &mut Vec<Record>) -> io::Result<()> {
        let full = out.len() + count_max;
        while out.len() < full {
            let Some(Unread { file, at, end, first_seq }) = self.next_range()? else { break };
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(RECORD_MAX);
            self.buffer.resize(want, 0);
            file.read_at(&mut self.buffer, at)?;
            let mut used = 0;
            while out.len() < full {
                let Some((record, next)) = parse_record(&self.buffer, used) else { break };
                used = next;
                let seq = record.seq;
                if matches!(record.kind, EVENT | FORGET) && seq > self.cursor {
                    match record.entry() {
                        Ok(entry) => out.push(Record { seq, entry }),
                        Err(error) => {
                            self.queue.note(Trouble::EventUnreadable { seq, error });
                            self.unreadable += 1;
                        }
                    }
                    self.cursor = seq;
                }
            }
            if used == 0 {
                used = self.skip_damage(at, end, first_seq)?;
            }
            let reading = self.reading.as_mut().expect("set by next_range");
            reading.at = at + used as u64;
        }
        if self.buffer.capacity() > BUFFER_KEEP {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Damaged places and unreadable events met since the last call.
    pub fn take_trouble(&mut self) -> (Vec<Damage>, u64) {
        (std::mem::take(&mut self.damaged), std::mem::take(&mut self.unreadable))
    }

    /// The unread part of the segment at hand, or of the next one that has any.
    fn next_range(&mut self) -> io::Result<Option<Unread>> {
        loop {
            let next = {
                let state = self.queue.lock();
                let current = self.reading.as_ref().map(|reading| reading.first_seq);
                let segment = match current {
                    // The last segment that can hold the event after the cursor.
                    None => state
                        .segments
                        .iter()
                        .rev()
                        .find(|segment| segment.first_seq <= self.cursor + 1)
                        .or(state.segments.front()),
                    Some(first_seq) => state.segments.iter().find(|segment| {
                        let unread = self.reading.as_ref().is_some_and(|reading| reading.at < segment.end);
                        segment.first_seq > first_seq || (segment.first_seq == first_seq && unread)
                    }),
                };
                segment.copied()
            };
            let Some(segment) = next else { return Ok(None) };
            let open_at_hand = self.reading.as_ref().filter(|reading| reading.first_seq == segment.first_seq);
            if let Some(reading) = open_at_hand {
                let (file, at) = (reading.file.clone(), reading.at);
                return Ok(Some(Unread { file, at, end: segment.end, first_seq: segment.first_seq }));
            }
            let file = match self.queue.disk.open(&segment_path(&self.queue.dir, segment.first_seq)) {
                // Deleted meanwhile, because its reader lags too far.
                Err(error) if error.kind() == ErrorKind::NotFound && !self.queue.has_segment(segment.first_seq) => {
                    continue;
                }
                opened => opened?,
            };
            // The snapshot holds nothing that was not an event before.
            self.reading = Some(SegmentAtHand { first_seq: segment.first_seq, file, at: segment.events_at });
        }
    }

    /// Looks for the next whole record in the rest of a segment; returns how many bytes to skip.
    fn skip_damage(&mut self, at: u64, end: u64, first_seq: u64) -> io::Result<usize> {
        let reading = self.reading.as_ref().expect("set by next_range");
        let mut rest = vec![0; usize::try_from(end - at).map_err(io::Error::other)?];
        reading.file.read_at(&mut rest, at)?;
        let skipped = find_record(&rest, 1).unwrap_or(rest.len());
        self.damaged.push(Damage { file: segment_path(&self.queue.dir, first_seq), bytes: at..at + skipped as u64 });
        Ok(skipped)
    }
}
