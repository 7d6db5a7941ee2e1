//! Record: one entry of a segment, and how it is found again behind damage.
//!
//! How: docs/format/events.md draws the bytes.
//! Invariants: a record is whole and its checksum right, or it is none.

use std::io::{self, ErrorKind};
use stdx::crc32;

/// len and crc.
pub(crate) const HEAD: usize = 8;

/// kind and seq.
pub(crate) const BODY_MIN: usize = 9;

/// The longest record. Series texts are at most 510 bytes and notes 1,024; JSON escapes can make six bytes of one.
pub(crate) const RECORD_MAX: usize = 256 << 10;

pub(crate) const EVENT: u8 = 1;
pub(crate) const OPEN: u8 = 2;
pub(crate) const SNAPSHOT_END: u8 = 3;
pub(crate) const FORGET: u8 = 4;

/// No record has a sequence number above: the largest that a start can begin with (32 bits of seconds, times 2^20) is
/// far below.
const SEQ_MAX: u64 = 1 << 62;

/// Place in the last segment of the last PROBLEM of an open alarm: the whole record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) at: u32,
    pub(crate) len: u32,
}

/// The parts of a record's body.
pub(crate) struct RawRecord<'a> {
    pub(crate) kind: u8,
    pub(crate) seq: u64,
    pub(crate) payload: &'a [u8],
}

/// Appends a record to `buffer`. Fails only for what is too long, and then leaves `buffer` as it was.
pub(crate) fn push_record(buffer: &mut Vec<u8>, kind: u8, seq: u64, payload: &[u8]) -> io::Result<Place> {
    let len = BODY_MIN + payload.len();
    if HEAD + len > RECORD_MAX {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("an event of {len} bytes is longer than {RECORD_MAX}"),
        ));
    }
    let at = buffer.len();
    buffer.extend_from_slice(&(len as u32).to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.push(kind);
    buffer.extend_from_slice(&seq.to_le_bytes());
    buffer.extend_from_slice(payload);
    let crc = crc32(&[&buffer[at + HEAD..]]);
    buffer[at + 4..at + HEAD].copy_from_slice(&crc.to_le_bytes());
    // A buffer holds one batch or one snapshot record: below 4 GiB as the segment is.
    Ok(Place { seq, at: at as u32, len: (HEAD + len) as u32 })
}

/// The whole and intact record at `at`, with the place behind it.
pub(crate) fn parse_record(bytes: &[u8], at: usize) -> Option<(RawRecord<'_>, usize)> {
    let head = bytes.get(at..at + HEAD)?;
    let len = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
    let crc = u32::from_le_bytes(head[4..].try_into().expect("four bytes"));
    if !(BODY_MIN..=RECORD_MAX - HEAD).contains(&len) {
        return None;
    }
    let next = at + HEAD + len;
    let body = bytes.get(at + HEAD..next)?;
    if crc32(&[body]) != crc {
        return None;
    }
    let seq = u64::from_le_bytes(body[1..BODY_MIN].try_into().expect("eight bytes"));
    if seq > SEQ_MAX {
        return None;
    }
    Some((RawRecord { kind: body[0], seq, payload: &body[BODY_MIN..] }, next))
}

/// The first place from `from` on where a whole record begins.
pub(crate) fn find_record(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|at| parse_record(bytes, *at).is_some())
}
