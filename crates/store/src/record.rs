//! Record: the frame around everything that is appended to a file, and how a damaged file is read.
//!
//! ```text
//! | marker 4 | len 4 | crc32 of len and payload 4 | payload … |       all little-endian
//! ```
//! Why the marker: after a corrupt record the reader looks for the next marker whose checksum fits, so that one bad
//! sector costs one record and not the rest of the file.
//! Invariants: a reader never trusts a length before its checksum fits; nothing here writes.

use std::io;
use std::sync::Arc;
use stdx::{DiskFile, crc32};

/// Bytes before the payload of a record: marker, length, checksum.
pub const HEADER_BYTES: usize = 12;
/// Bytes that every record begins with.
pub const MARKER: [u8; 4] = *b"\xf5Hk\x01";

/// Bytes of the longest payload that a writer makes; a longer length is damage.
pub const PAYLOAD_MAX: usize = 16 << 20;

/// Appends an empty header; fill in the payload behind it and call `seal`.
pub fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    start
}

/// Completes the header at `start`; the payload is all that follows.
pub fn seal(out: &mut [u8], start: usize) {
    let len = out.len() - start - HEADER_BYTES;
    assert!(len <= PAYLOAD_MAX, "callers split larger payloads");
    let len_bytes = (len as u32).to_le_bytes();
    let crc = crc32(&[&len_bytes, &out[start + HEADER_BYTES..]]);
    out[start..start + 4].copy_from_slice(&MARKER);
    out[start + 4..start + 8].copy_from_slice(&len_bytes);
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
}

/// The payload of the record at the front of `bytes`, if it is whole and sound.
pub fn at_front(bytes: &[u8]) -> Option<&[u8]> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let len = u32::from_le_bytes(*header[4..].first_chunk()?) as usize;
    let crc = u32::from_le_bytes(*header[8..].first_chunk()?);
    if header[..4] != MARKER || len > PAYLOAD_MAX {
        return None;
    }
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + len)?;
    (crc32(&[&header[4..8], payload]) == crc).then_some(payload)
}

/// One finding of a reader.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A sound record's payload and where the record begins.
    Payload(usize, &'a [u8]),
    /// Bytes that are no record, with sound records after them.
    Corrupt { offset: usize, bytes: usize },
    /// Bytes up to the end that hold no sound record: a write that was not finished.
    Torn { offset: usize, bytes: usize },
}

/// Reads the records of a file's content from `offset` on.
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `bytes` from `offset` on.
    pub fn new(bytes: &'a [u8], offset: usize) -> Reader<'a> {
        Reader { bytes, offset }
    }

    fn next_sound(&self, from: usize) -> Option<usize> {
        let mut at = from;
        while let Some(found) = self.bytes.get(at..)?.windows(4).position(|window| window == MARKER) {
            if at_front(&self.bytes[at + found..]).is_some() {
                return Some(at + found);
            }
            at += found + 1;
        }
        None
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let offset = self.offset;
        if offset >= self.bytes.len() {
            return None;
        }
        if let Some(payload) = at_front(&self.bytes[offset..]) {
            self.offset += HEADER_BYTES + payload.len();
            return Some(Item::Payload(offset, payload));
        }
        match self.next_sound(offset + 1) {
            Some(next) => {
                self.offset = next;
                Some(Item::Corrupt { offset, bytes: next - offset })
            }
            None => {
                self.offset = self.bytes.len();
                Some(Item::Torn { offset, bytes: self.bytes.len() - offset })
            }
        }
    }
}

/// Bytes that a stream holds of its file at once: large enough that sequential reading costs few calls.
const WINDOW_BYTES: u64 = 64 << 10;

/// Reads the records of a file between two offsets, a window at a time, for files that are too large to be held whole.
pub struct Stream {
    file: Arc<dyn DiskFile>,
    at: u64,
    end: u64,
    payload_max: usize,
    window: Vec<u8>,
    window_at: u64,
}

impl Stream {
    /// A length above `payload_max` is damage; the window grows to a record of that size at most.
    pub fn new(file: Arc<dyn DiskFile>, from: u64, end: u64, payload_max: usize) -> Stream {
        Stream { file, at: from, end, payload_max, window: Vec::new(), window_at: from }
    }

    /// Reads the next record or damage; `None` at the end. Fails as the disk does.
    pub fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        let offset = self.at;
        if offset >= self.end {
            return Ok(None);
        }
        if let Some(bytes) = self.sound_at(offset)? {
            self.at += bytes as u64;
            let start = (offset - self.window_at) as usize;
            return Ok(Some(Item::Payload(offset as usize, &self.window[start + HEADER_BYTES..start + bytes])));
        }
        let mut from = offset + 1;
        while let Some(marker) = self.next_marker(from)? {
            if self.sound_at(marker)?.is_some() {
                self.at = marker;
                return Ok(Some(Item::Corrupt { offset: offset as usize, bytes: (marker - offset) as usize }));
            }
            from = marker + 1;
        }
        self.at = self.end;
        Ok(Some(Item::Torn { offset: offset as usize, bytes: (self.end - offset) as usize }))
    }

    /// Bytes of the sound record at `offset`, header included; the window then holds it.
    fn sound_at(&mut self, offset: u64) -> io::Result<Option<usize>> {
        self.fill(offset, HEADER_BYTES as u64)?;
        let Some(header) = self.held(offset).first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*header[4..].first_chunk().expect("12 bytes")) as usize;
        if header[..4] != MARKER || len > self.payload_max {
            return Ok(None);
        }
        self.fill(offset, (HEADER_BYTES + len) as u64)?;
        Ok(at_front(self.held(offset)).map(|payload| HEADER_BYTES + payload.len()))
    }

    fn next_marker(&mut self, mut from: u64) -> io::Result<Option<u64>> {
        loop {
            self.fill(from, MARKER.len() as u64)?;
            let held = self.held(from);
            if let Some(found) = held.windows(MARKER.len()).position(|window| window == MARKER) {
                return Ok(Some(from + found as u64));
            }
            let held_to = from + held.len() as u64;
            if held_to >= self.end {
                return Ok(None);
            }
            // A marker may lie across the window's end.
            from = held_to - (MARKER.len() as u64 - 1);
        }
    }

    /// Makes the window hold so many bytes from `offset` on, or all up to the end.
    fn fill(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        let wanted_to = (offset + bytes).min(self.end);
        if offset >= self.window_at && wanted_to <= self.window_at + self.window.len() as u64 {
            return Ok(());
        }
        self.window.resize(bytes.max(WINDOW_BYTES).min(self.end.saturating_sub(offset)) as usize, 0);
        self.window_at = offset;
        self.file.read_at(&mut self.window, offset)
    }

    fn held(&self, offset: u64) -> &[u8] {
        &self.window[(offset - self.window_at) as usize..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use stdx::{Disk, FakeDisk};

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in payloads {
            let start = begin(&mut out);
            out.extend_from_slice(payload);
            seal(&mut out, start);
        }
        out
    }

    /// Reads all items, by the reader and by the stream, which must agree.
    fn read(bytes: &[u8]) -> Vec<Item<'_>> {
        let items: Vec<Item<'_>> = Reader::new(bytes, 0).collect();
        let file = FakeDisk::default().open_or_create(Path::new("f")).expect("new file");
        file.write_at(bytes, 0).expect("room");
        let mut stream = Stream::new(file, 0, bytes.len() as u64, PAYLOAD_MAX);
        for item in &items {
            assert_eq!(stream.next().expect("reads").as_ref(), Some(item));
        }
        assert_eq!(stream.next().expect("reads"), None);
        items
    }

    #[test]
    fn reads_back() {
        let bytes = file(&[b"one", b"", b"three"]);
        assert_eq!(read(&bytes), [Item::Payload(0, b"one"), Item::Payload(15, b""), Item::Payload(27, b"three")]);
        assert_eq!(read(b""), []);
    }

    #[test]
    fn every_cut_is_a_torn_tail() {
        let bytes = file(&[b"one", b"two"]);
        for cut in 16..bytes.len() {
            let torn = Item::Torn { offset: 15, bytes: cut - 15 };
            assert_eq!(read(&bytes[..cut]), [Item::Payload(0, b"one"), torn]);
        }
    }

    #[test]
    fn every_flipped_byte_costs_one_record() {
        let sound = file(&[b"one", b"two", b"three"]);
        for at in 15..30 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            let corrupt = Item::Corrupt { offset: 15, bytes: 15 };
            assert_eq!(read(&bytes), [Item::Payload(0, b"one"), corrupt, Item::Payload(30, b"three")]);
        }
    }

    #[test]
    fn windows_have_no_seams() {
        // Records and damage of all sizes around the window's.
        let window = WINDOW_BYTES as usize;
        for size in [window - 14, window - 13, window - 12, window - 3, window, 3 * window + 1] {
            let large = vec![b'x'; size];
            let mut bytes = file(&[b"one", &large, b"three", &large, b"five"]);
            assert_eq!(read(&bytes).len(), 5);
            bytes[20] ^= 1;
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            let items = read(&bytes);
            assert_eq!(items[1], Item::Corrupt { offset: 15, bytes: size + HEADER_BYTES });
            assert_eq!(items.len(), 5);
        }
    }
}
