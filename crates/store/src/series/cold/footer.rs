//! Footer: the end of a run's file that makes it a run: its sequences, and where its trees are.
//!
//! Invariants: a footer is believed only with its checksum and only where its numbers can be.

use super::tree::Root;
use crate::error::{Error, Result};
use std::path::Path;
use stdx::{DiskFile, crc32};

/// Last bytes of a run of this version, and the first ones.
pub const MAGIC: &[u8; 8] = b"HKCOLD01";
/// End of the file names of runs.
pub const SUFFIX: &str = ".run";
/// Bytes of a footer.
pub const FOOTER_BYTES: usize = 88;

/// Greatest height of a tree that is believed: trees of two entries per branch over all that a disk can hold are lower.
const HEIGHT_MAX: u32 = 64;

/// Greatest sequence that is believed. Run after run each second, this is a century away; a higher one is damage, and
/// the next number must still fit.
const SEQUENCE_MAX: u64 = u32::MAX as u64;

/// Fields of a footer.
pub struct Footer {
    /// Offset in the file at which the footer begins.
    pub at: u64,
    pub first_sequence: u64,
    pub sequence: u64,
    pub series_count: u64,
    pub endpoint_count: u64,
    pub series: Root,
    pub endpoints: Root,
    pub endpoints_at: u64,
    pub newest_max: u32,
}

/// The sequence that a file's name tells, for when its content does not; 0 for a name that is none of ours.
pub fn sequence_of_name(path: &Path) -> u64 {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let digits = stem.and_then(|stem| stem.rsplit_once('-')).map(|(_, digits)| digits);
    digits.and_then(|digits| digits.parse().ok()).filter(|sequence| *sequence <= SEQUENCE_MAX).unwrap_or(0)
}

/// Reads the footer of a file; an error when the file is no run of this version.
pub fn read(file: &dyn DiskFile, path: &Path) -> Result<Footer> {
    let len = file.len().map_err(Error::disk("read", path))?;
    let corrupt = |what: &str| Error::Corrupt { path: path.to_path_buf(), offset: len, what: what.to_string() };
    let at = len.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| corrupt("too short for a cold run"))?;
    let mut bytes = [0; FOOTER_BYTES];
    file.read_at(&mut bytes, at).map_err(Error::disk("read", path))?;
    if &bytes[80..] != MAGIC || u32_at(&bytes, 76) != crc32(&[&bytes[..76]]) {
        return Err(corrupt("no footer of a cold run of this version"));
    }
    let root = |at| Root { offset: u64_at(&bytes, at), bytes: u32_at(&bytes, at + 8), height: u32_at(&bytes, at + 12) };
    let footer = Footer {
        at,
        first_sequence: u64_at(&bytes, 0),
        sequence: u64_at(&bytes, 8),
        series_count: u64_at(&bytes, 16),
        endpoint_count: u64_at(&bytes, 24),
        series: root(32),
        endpoints: root(48),
        endpoints_at: u64_at(&bytes, 64),
        newest_max: u32_at(&bytes, 72),
    };
    let sane = (MAGIC.len() as u64..=at).contains(&footer.endpoints_at)
        && footer.series.height.max(footer.endpoints.height) <= HEIGHT_MAX
        && footer.first_sequence <= footer.sequence
        && footer.sequence <= SEQUENCE_MAX;
    if sane { Ok(footer) } else { Err(corrupt("a footer that makes no sense")) }
}

/// `bytes` is a whole footer.
fn u32_at(bytes: &[u8; FOOTER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8; FOOTER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Appends the footer.
pub fn push(footer: &Footer, out: &mut Vec<u8>) {
    let start = out.len();
    for word in [footer.first_sequence, footer.sequence, footer.series_count, footer.endpoint_count] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for root in [footer.series, footer.endpoints] {
        out.extend_from_slice(&root.offset.to_le_bytes());
        out.extend_from_slice(&root.bytes.to_le_bytes());
        out.extend_from_slice(&root.height.to_le_bytes());
    }
    out.extend_from_slice(&footer.endpoints_at.to_le_bytes());
    out.extend_from_slice(&footer.newest_max.to_le_bytes());
    let crc = crc32(&[&out[start..]]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(MAGIC);
    debug_assert_eq!(out.len() - start, FOOTER_BYTES);
}
