//! Packed: a batch of items compressed, as `Transfer.UpdateCompressed` takes it.
//!
//! Why: a host's minute is the same names again and again; packed it has a tenth of the bytes (`cargo bench -p wire`),
//! which counts where hosts are behind a slow or a paid link.
//! How: the parameter is `{"zlib":"…"}`, the array of `Transfer.Update` as a zlib stream (RFC 1950, with its checksum)
//! in base64 (RFC 4648, padded), because a JSON-RPC message is text. The answer is that of `Transfer.Update`.
//! Invariants: what is unpacked has at most [`UNPACKED_MAX`] bytes, and [`RATIO_MAX`] for each byte of the stream, so
//! that a message costs its receiver no more than it costs its sender; what [`write_packed`] makes is always taken.
//! Memory: while a message is read, the stream and the array; nothing between two.

use crate::json::{self, JsonError, Scratch, name_eq};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::fmt;

/// The call; a transfer that does not have it says `can't find`.
pub const METHOD: &str = "Transfer.UpdateCompressed";
/// Bytes of an array: twice what the agent puts into one, and little beside what a message may have anyway.
pub const UNPACKED_MAX: usize = 2 << 20;
/// Bytes that one of a stream may stand for. Items of recorded hosts come to 10 to 25; the format could do 1,032.
pub const RATIO_MAX: usize = 200;
/// How hard is tried: a fifth less time than the library's own level 6, for 4 % more bytes (`cargo bench -p wire`).
const LEVEL: u32 = 3;
/// Bytes that the array grows by while it is unpacked.
const STEP_BYTES: usize = 64 << 10;

/// Why a parameter is none that can be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackedError {
    Json(JsonError),
    /// No text under the name `zlib`.
    NoStream,
    NotBase64,
    /// The stream is broken, or does not end.
    NotZlib,
    TooLong,
    TooDense,
}

impl PackedError {
    /// A word for a counter's label.
    pub fn as_str(self) -> &'static str {
        match self {
            PackedError::Json(_) => "json",
            PackedError::NoStream => "no_stream",
            PackedError::NotBase64 => "base64",
            PackedError::NotZlib => "zlib",
            PackedError::TooLong => "too_long",
            PackedError::TooDense => "too_dense",
        }
    }
}

impl fmt::Display for PackedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackedError::Json(error) => write!(f, "{METHOD}: {error}"),
            PackedError::NoStream => write!(f, "{METHOD}: want params [{{\"zlib\":\"…\"}}]"),
            PackedError::NotBase64 => write!(f, "{METHOD}: zlib is no base64 (RFC 4648, padded)"),
            PackedError::NotZlib => write!(f, "{METHOD}: zlib is no whole zlib stream (RFC 1950)"),
            PackedError::TooLong => {
                write!(f, "{METHOD}: the items have more than {UNPACKED_MAX} bytes: send fewer at once")
            }
            PackedError::TooDense => {
                write!(
                    f,
                    "{METHOD}: the items have more than {RATIO_MAX} times the stream's bytes: call Transfer.Update"
                )
            }
        }
    }
}

impl std::error::Error for PackedError {}

/// Appends the parameter for `array`; false, and nothing appended, where that would gain nothing or not be taken: then
/// `Transfer.Update` is the call.
pub fn write_packed(out: &mut Vec<u8>, array: &[u8]) -> bool {
    if array.len() > UNPACKED_MAX {
        return false;
    }
    // A stream that does not fit here would be longer than the array once it is base64.
    let mut stream = Vec::with_capacity(array.len() / 4 * 3);
    let packed = Compress::new(Compression::new(LEVEL), true).compress_vec(array, &mut stream, FlushCompress::Finish);
    if !matches!(packed, Ok(Status::StreamEnd)) || array.len() > stream.len() * RATIO_MAX {
        return false;
    }
    out.extend_from_slice(b"{\"zlib\":\"");
    let from = out.len();
    out.resize(from + stream.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(&stream, &mut out[from..]).expect("base64 has four bytes for three");
    debug_assert_eq!(from + written, out.len());
    out.extend_from_slice(b"\"}");
    true
}

/// Puts the array that a parameter has into `out`, which is cleared before.
pub fn read_packed(param: &[u8], out: &mut Vec<u8>) -> Result<(), PackedError> {
    out.clear();
    let mut found = None;
    json::fields(param, &mut Scratch::new(), |name, value| {
        if name_eq(name, "zlib") {
            found = Some(value);
        }
    })
    .map_err(PackedError::Json)?;
    let mut scratch = Scratch::new();
    let text = found.and_then(|value| json::string(value, &mut scratch)).ok_or(PackedError::NoStream)?;
    let stream = STANDARD.decode(text).map_err(|_| PackedError::NotBase64)?;
    unpack(&stream, out)
}

fn unpack(stream: &[u8], out: &mut Vec<u8>) -> Result<(), PackedError> {
    let ratio_end = stream.len().saturating_mul(RATIO_MAX);
    let end = ratio_end.min(UNPACKED_MAX);
    let mut zlib = Decompress::new(true);
    loop {
        // One byte more than may be tells what is too long from what just fits.
        let room = STEP_BYTES.min(end + 1 - out.len());
        out.reserve_exact(room);
        let (read, before) = (zlib.total_in() as usize, out.len());
        let status = zlib.decompress_vec(&stream[read..], out, FlushDecompress::None);
        match status.map_err(|_| PackedError::NotZlib)? {
            _ if out.len() > end => {
                return Err(if end == ratio_end { PackedError::TooDense } else { PackedError::TooLong });
            }
            Status::StreamEnd if zlib.total_in() as usize == stream.len() => return Ok(()),
            Status::StreamEnd => return Err(PackedError::NotZlib),
            Status::Ok | Status::BufError if out.len() > before || zlib.total_in() as usize > read => {}
            // Nothing goes on: the stream is cut.
            Status::Ok | Status::BufError => return Err(PackedError::NotZlib),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parameter of a stream that this library makes of anything.
    fn param(array: &[u8]) -> Vec<u8> {
        let mut stream = Vec::with_capacity(array.len() + 1024);
        let mut zlib = Compress::new(Compression::best(), true);
        let packed = zlib.compress_vec(array, &mut stream, FlushCompress::Finish);
        assert!(matches!(packed, Ok(Status::StreamEnd)));
        format!("{{\"zlib\":\"{}\"}}", STANDARD.encode(stream)).into_bytes()
    }

    fn refused(param: &[u8]) -> PackedError {
        let mut out = b"rest".to_vec();
        read_packed(param, &mut out).expect_err("not to be unpacked")
    }

    /// Text in which little repeats, from a generator of numbers.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b' ' + (state >> 33) as u8 % 90
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn what_was_packed_comes_back() {
        let item = |i: usize| format!("{{\"metric\":\"m{i}\",\"value\":{}}}", i * i);
        for count in [1, 200, 20_000] {
            let array = format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(",")).into_bytes();
            let (mut param, mut out) = (Vec::new(), b"rest".to_vec());
            if count > 1 {
                assert!(write_packed(&mut param, &array), "{count} items");
                assert!(param.len() < array.len() / 2, "{} of {}", param.len(), array.len());
                assert_eq!(read_packed(&param, &mut out), Ok(()));
                assert!(out == array);
            } else {
                assert!(!write_packed(&mut param, &array) && param.is_empty(), "nothing is gained");
            }
        }
    }

    #[test]
    fn what_would_not_be_taken_or_gains_nothing_is_not_packed() {
        for array in [vec![b' '; 300_000], vec![b' '; UNPACKED_MAX + 1], noise(50_000), Vec::new()] {
            let mut out = Vec::new();
            assert!(!write_packed(&mut out, &array) && out.is_empty(), "{} bytes", array.len());
        }
    }

    #[test]
    fn bounds_hold() {
        let mut out = Vec::new();
        assert_eq!(refused(&param(&vec![b' '; 300_000])), PackedError::TooDense);
        let most = noise(UNPACKED_MAX);
        assert_eq!(read_packed(&param(&most), &mut out), Ok(()));
        assert!(out == most);
        assert_eq!(refused(&param(&noise(UNPACKED_MAX + 1))), PackedError::TooLong);
        // A bomb is left at the bound.
        assert_eq!(refused(&param(&vec![b' '; 64 << 20])), PackedError::TooLong);
    }

    #[test]
    fn other_parameters_are_refused_by_name() {
        let check = |text: &str, error: PackedError| assert_eq!(refused(text.as_bytes()), error, "{text}");
        check("{}", PackedError::NoStream);
        check("{\"zlib\":1}", PackedError::NoStream);
        check("{\"zlib\":\"?\"}", PackedError::NotBase64);
        check("{\"zlib\":\"AAAA\"}", PackedError::NotZlib);
        check("{\"zlib\":\"\"}", PackedError::NotZlib);
        assert!(matches!(refused(b"[1]"), PackedError::Json(_)));
        let whole = param(&noise(1000));
        let text = String::from_utf8(whole).expect("ASCII");
        let stream = STANDARD.decode(&text[9..text.len() - 2]).expect("base64");
        let of = |stream: &[u8]| format!("{{\"zlib\":\"{}\"}}", STANDARD.encode(stream)).into_bytes();
        for end in 0..stream.len() {
            assert_eq!(refused(&of(&stream[..end])), PackedError::NotZlib, "{end} of {}", stream.len());
        }
        assert_eq!(refused(&of(&[&stream[..], &[0]].concat())), PackedError::NotZlib, "something is behind it");
    }
}
