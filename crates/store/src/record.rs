//! Record: the frame around everything that is appended to a file, and how a damaged file is read.
//!
//! ```text
//! | marker 4 | len 4 | crc32 of len and payload 4 | payload … |       all little-endian
//! ```
//! Why the marker: after a corrupt record the reader looks for the next marker whose checksum fits, so that one bad
//! sector costs one record and not the rest of the file.
//! Invariants: a reader never trusts a length before its checksum fits; nothing here writes.

use stdx::crc32;

pub const HEADER_BYTES: usize = 12;
const MARKER: [u8; 4] = *b"\xf5Hk\x01";

/// No writer makes longer ones; a longer length is damage.
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
fn at_front(bytes: &[u8]) -> Option<&[u8]> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let len = u32::from_le_bytes(*header[4..].first_chunk()?) as usize;
    let crc = u32::from_le_bytes(*header[8..].first_chunk()?);
    if header[..4] != MARKER || len > PAYLOAD_MAX {
        return None;
    }
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + len)?;
    (crc32(&[&header[4..8], payload]) == crc).then_some(payload)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in payloads {
            let start = begin(&mut out);
            out.extend_from_slice(payload);
            seal(&mut out, start);
        }
        out
    }

    fn read(bytes: &[u8]) -> Vec<Item<'_>> {
        Reader::new(bytes, 0).collect()
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
}
