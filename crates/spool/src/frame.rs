//! Frames: records that are written and read together, with a checksum.
//!
//! How: a frame is `length u32 | records u32 | crc32 u32 | payload`, little-endian, with the length of the payload and
//! the checksum of length, records and payload. Records are bytes that delimit themselves.
//! Invariants: a frame that is full ends with the record that fills it, so no frame is much longer than
//! [`FRAME_BYTES`].

use stdx::crc32;

/// Bytes before a payload.
pub const HEAD_BYTES: usize = 12;
/// Bytes of payload after which a frame ends: small enough to be read at once, large enough for a call's worth of
/// points.
pub const FRAME_BYTES: usize = 64 << 10;
/// Bytes of the longest record; a point has some hundred, and its texts less than 1,100.
pub const RECORD_BYTES_MAX: usize = 16 << 10;
/// Bytes of the longest payload.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES + RECORD_BYTES_MAX;

/// Frames on their way to a spool, refilled for each batch.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    pub(crate) bytes: Vec<u8>,
    /// Records in all, and in the frame that is open.
    pub(crate) records: u64,
    open: Option<(usize, u32)>,
}

impl Frames {
    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Adds a record, which `write` appends; one that is too long is left out, and false the answer.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let (start, records) = *self.open.get_or_insert_with(|| {
            self.bytes.extend_from_slice(&[0; HEAD_BYTES]);
            (self.bytes.len(), 0)
        });
        let before = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() - before > RECORD_BYTES_MAX {
            self.bytes.truncate(before);
            return false;
        }
        self.records += 1;
        self.open = Some((start, records + 1));
        if self.bytes.len() - start >= FRAME_BYTES {
            self.close();
        }
        true
    }

    /// Ends the open frame.
    pub(crate) fn close(&mut self) {
        let Some((start, records)) = self.open.take() else { return };
        if records == 0 {
            self.bytes.truncate(start - HEAD_BYTES);
            return;
        }
        let length = (self.bytes.len() - start) as u32;
        let head = head(length, records, &self.bytes[start..]);
        self.bytes[start - HEAD_BYTES..start].copy_from_slice(&head);
    }

    /// Empties the frames; keeps no more than `bytes` of their room.
    pub fn clear(&mut self, bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(bytes);
        (self.records, self.open) = (0, None);
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

fn head(length: u32, records: u32, payload: &[u8]) -> [u8; HEAD_BYTES] {
    let (length, records) = (length.to_le_bytes(), records.to_le_bytes());
    let crc = crc32(&[&length, &records, payload]).to_le_bytes();
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&length);
    head[4..8].copy_from_slice(&records);
    head[8..].copy_from_slice(&crc);
    head
}

/// What stands at the beginning of some bytes of a segment.
pub enum Found<'b> {
    Frame {
        records: u32,
        payload: &'b [u8],
    },
    /// The frame goes beyond the bytes.
    Cut,
    Damaged,
}

/// The frame at the beginning of `bytes`.
pub fn find(bytes: &[u8]) -> Found<'_> {
    let Some((head_bytes, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return Found::Cut };
    let number = |from: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| head_bytes[from + i]));
    let (length, records) = (number(0), number(4));
    // A record has a byte at least.
    if records == 0 || records > length || length as usize > PAYLOAD_BYTES_MAX {
        return Found::Damaged;
    }
    let Some(payload) = rest.get(..length as usize) else { return Found::Cut };
    if head(length, records, payload) != head_bytes {
        return Found::Damaged;
    }
    Found::Frame { records, payload }
}
