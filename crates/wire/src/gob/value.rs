//! Value: the primitives of gob, read from the bytes of one message.
//!
//! Invariants: every length is checked against what is left of the message, so nothing is ever reserved by the word of
//! the sender; an error names its place in the request.

use super::GobError;
use std::borrow::Cow;

pub(super) const ENDS_EARLY: &str = "message ends inside a value";
const BAD_UINT: &str = "integer of more than 8 bytes";

#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Offset in the request at which `bytes` begins.
    base: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], base: usize) -> Reader<'a> {
        Reader { bytes, at: 0, base }
    }

    #[cold]
    pub fn error(&self, what: &'static str) -> GobError {
        GobError { what, field: "", offset: self.base + self.at }
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes that are not read yet, and where they begin in the request.
    pub fn rest(&self) -> (&'a [u8], usize) {
        (&self.bytes[self.at..], self.base + self.at)
    }

    /// Refuses bytes behind the value.
    pub fn end(&self) -> Result<(), GobError> {
        if self.left() == 0 { Ok(()) } else { Err(self.error("bytes follow the value")) }
    }

    #[inline]
    pub fn uint(&mut self) -> Result<u64, GobError> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            Some(&byte) => self.long_uint(byte),
            None => Err(self.error(ENDS_EARLY)),
        }
    }

    #[inline]
    fn long_uint(&mut self, first: u8) -> Result<u64, GobError> {
        let count = usize::from(first.wrapping_neg());
        let rest = &self.bytes[self.at + 1..];
        if count > 8 {
            return Err(self.error(BAD_UINT));
        }
        if rest.len() < count {
            return Err(self.error(ENDS_EARLY));
        }
        self.at += 1 + count;
        Ok(big_endian(rest, count))
    }

    #[inline]
    pub fn int(&mut self) -> Result<i64, GobError> {
        self.uint().map(to_int)
    }

    #[inline]
    pub fn float(&mut self) -> Result<f64, GobError> {
        self.uint().map(|bits| f64::from_bits(bits.swap_bytes()))
    }

    /// The number of elements that follow. Each takes at least one byte, so there are no more than bytes left.
    pub fn count(&mut self) -> Result<usize, GobError> {
        let count = self.uint()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() => Ok(count),
            _ => Err(self.error("more elements announced than the message has bytes")),
        }
    }

    /// Reads a string or `[]byte`.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], GobError> {
        let count = self.uint()?;
        if count > self.left() as u64 {
            return Err(self.error("string is longer than its message"));
        }
        let from = self.at;
        self.at += count as usize;
        Ok(&self.bytes[from..self.at])
    }

    /// Reads a string; bytes that are not UTF-8 become U+FFFD.
    pub fn text(&mut self) -> Result<Cow<'a, str>, GobError> {
        self.bytes().map(String::from_utf8_lossy)
    }
}

/// The first `count` ≤ 8 bytes of `bytes`, which has as many.
#[inline]
fn big_endian(bytes: &[u8], count: usize) -> u64 {
    if let Some(eight) = bytes.first_chunk::<8>()
        && count > 0
    {
        return u64::from_be_bytes(*eight) >> (64 - 8 * count);
    }
    bytes[..count].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[inline]
fn to_int(uint: u64) -> i64 {
    let half = (uint >> 1) as i64;
    if uint & 1 == 0 { half } else { !half }
}

/// The count that begins a message: its value and its own length; none when it is not here yet.
pub(super) fn message_count(bytes: &[u8]) -> Result<Option<(u64, usize)>, &'static str> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if first < 0x80 {
        return Ok(Some((u64::from(first), 1)));
    }
    let count = usize::from(first.wrapping_neg());
    if count > 8 {
        return Err(BAD_UINT);
    }
    let rest = &bytes[1..];
    Ok((rest.len() >= count).then(|| (big_endian(rest, count), 1 + count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> Reader<'_> {
        Reader::new(bytes, 100)
    }

    #[test]
    fn unsigned() {
        let check = |bytes: &[u8], expected: u64| {
            let mut reader = reader(bytes);
            assert_eq!(reader.uint(), Ok(expected), "{bytes:x?}");
            assert_eq!(reader.end(), Ok(()));
            assert_eq!(message_count(bytes), Ok(Some((expected, bytes.len()))));
            for cut in 0..bytes.len() {
                assert!(super::Reader::new(&bytes[..cut], 0).uint().is_err());
                assert_eq!(message_count(&bytes[..cut]), Ok(None));
            }
            let mut followed = bytes.to_vec();
            followed.extend([0xaa; 9]);
            assert_eq!(super::Reader::new(&followed, 0).uint(), Ok(expected));
        };
        check(&[0], 0);
        check(&[7], 7);
        check(&[0x7f], 127);
        check(&[0xff, 0x80], 128);
        check(&[0xfe, 1, 0], 256);
        check(&[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], u64::MAX);
        check(&[0xf8, 0, 0, 0, 0, 0, 0, 0, 5], 5); // not minimal: Go takes it too
        for first in 0x80..0xf8 {
            assert_eq!(reader(&[first; 20]).uint().expect_err("too long").offset, 100);
            assert!(message_count(&[first; 20]).is_err());
        }
    }

    #[test]
    fn signed() {
        let check = |bytes: &[u8], expected: i64| assert_eq!(reader(bytes).int(), Ok(expected), "{bytes:x?}");
        check(&[0], 0);
        check(&[1], -1);
        check(&[2], 1);
        check(&[0xff, 0x81], -65);
        check(&[0xff, 0x82], 65);
        check(&[0xfe, 1, 1], -129);
        check(&[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], i64::MIN);
        check(&[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], i64::MAX);
    }

    #[test]
    fn floats() {
        let check = |bytes: &[u8], expected: f64| {
            assert_eq!(reader(bytes).float().map(f64::to_bits), Ok(expected.to_bits()), "{bytes:x?}");
        };
        check(&[0], 0.0);
        check(&[0xfe, 0x31, 0x40], 17.0);
        check(&[0xff, 0x80], -0.0);
        check(&[0xfe, 0xf0, 0xbf], -1.0);
        check(&[0xfe, 0xf0, 0x7f], f64::INFINITY);
        check(&[0xf8, 0x01, 0, 0, 0, 0, 0, 0, 0], 5e-324);
        assert!(reader(&[0xf8, 1, 0, 0, 0, 0, 0, 0xf8, 0x7f]).float().expect("a float").is_nan());
    }

    #[test]
    fn lengths() {
        assert_eq!(reader(b"\x03abcd").bytes(), Ok(&b"abc"[..]));
        assert_eq!(reader(b"\x00").bytes(), Ok(&b""[..]));
        assert!(reader(b"\x04abc").bytes().is_err());
        assert!(reader(b"\xf8\xff\xff\xff\xff\xff\xff\xff\xffabc").bytes().is_err());
        assert_eq!(reader(b"\x03abc").count(), Ok(3));
        assert!(reader(b"\x04abc").count().is_err());
        assert!(reader(b"\xf8\xff\xff\xff\xff\xff\xff\xff\xffabc").count().is_err());
        assert_eq!(reader(b"\x02\xffa").text().expect("a text"), "\u{fffd}a");
    }
}
