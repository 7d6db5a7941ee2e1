//! The file of windows: what a judge that runs alone knew, for its next start (docs/format/windows.md).
//!
//! Why: without it every window is empty after a restart, and a rule over ten points is blind for ten minutes.
//! How: sections, one per shard, each with its checksum, so that a shard is locked only while its own is made; an end
//! section says that all are there. Within a section a series follows another of the same endpoint where it can.
//! Invariants: a damaged or foreign file is an error that says where, and nothing of the damaged section is handed out.

use super::Windows;
use model::{CounterType, Point, SeriesKey, Tags};
use stdx::{crc32, varint};

/// The first bytes of the file.
pub const MAGIC: &[u8; 8] = b"HKWIND01";

/// Length and checksum before the payload of a section.
const HEAD: usize = 8;

/// Reason for which a file of windows is not read, or not to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum WindowsError {
    /// The file is another one, or of another version.
    Foreign,
    /// The section at this byte is damaged or cut off.
    Damaged(usize),
}

impl std::fmt::Display for WindowsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WindowsError::Foreign => {
                f.write_str("no file of windows, or of another version: want \"HKWIND01\" at its start")
            }
            WindowsError::Damaged(at) => write!(f, "damaged or cut off in the section at byte {at}"),
        }
    }
}

impl Windows {
    /// Appends a section with all series; the file begins with [`MAGIC`] and ends with [`end_windows`].
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = begin(out);
        out.push(SHARD);
        let mut rows: Vec<_> = self.used().map(|(series, row)| (row.endpoint, series)).collect();
        rows.sort_unstable();
        let mut endpoint = None;
        for (number, series) in rows {
            let Some(row) = self.existing(series) else { continue };
            let key = self.key_of(row);
            out.push(row.counter_type as u8 | if endpoint == Some(number) { SAME_ENDPOINT } else { 0 });
            if endpoint != Some(number) {
                push_text(out, key.endpoint);
            }
            endpoint = Some(number);
            push_text(out, key.metric);
            push_text(out, key.tags.as_str());
            varint::push_u64(row.ring.len() as u64, out);
            // Newest first, so that the times are one number and distances.
            let mut newer = None;
            for point in self.rings.newest_first(row.ring) {
                varint::push_i64(newer.replace(point.time).map_or(point.time, |newer| newer - point.time), out);
                out.extend_from_slice(&point.value.to_le_bytes());
            }
        }
        seal(out, start);
    }
}

/// First byte of a section of series: one without any is told apart from the end.
const SHARD: u8 = 1;

const SAME_ENDPOINT: u8 = 1 << 7;

/// Appends the end of a file, without which sections are missing.
pub fn end_windows(out: &mut Vec<u8>) {
    let start = begin(out);
    seal(out, start);
}

/// Hands out each series with its points, oldest first, of all sections up to the first that is damaged.
pub fn read_windows(
    file: &[u8],
    mut each: impl FnMut(SeriesKey<'_>, CounterType, &[Point]),
) -> Result<(), WindowsError> {
    if !file.starts_with(MAGIC) {
        return Err(WindowsError::Foreign);
    }
    let mut at = MAGIC.len();
    let mut points = Vec::new();
    loop {
        let section = section(&file[at..]).ok_or(WindowsError::Damaged(at))?;
        if section.is_empty() {
            return if at + HEAD == file.len() { Ok(()) } else { Err(WindowsError::Damaged(at + HEAD)) };
        }
        // Walked twice: a section that does not end well is not begun.
        walk(section, &mut points, &mut |_, _, _| {}).ok_or(WindowsError::Damaged(at))?;
        walk(section, &mut points, &mut each);
        at += HEAD + section.len();
    }
}

/// The payload of the section at the front, if it is whole.
fn section(bytes: &[u8]) -> Option<&[u8]> {
    let head: &[u8; HEAD] = bytes.first_chunk()?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let payload = bytes[HEAD..].get(..number(0) as usize)?;
    // A fuzzer would not get past the checksum.
    (cfg!(fuzzing) || crc32(&[&head[..4], payload]) == number(4)).then_some(payload)
}

fn walk(
    mut input: &[u8],
    points: &mut Vec<Point>,
    each: &mut dyn FnMut(SeriesKey<'_>, CounterType, &[Point]),
) -> Option<()> {
    let input = &mut input;
    if take(input, 1)? != [SHARD] {
        return None;
    }
    let mut endpoint = "";
    while !input.is_empty() {
        let kind = take(input, 1)?[0];
        let counter_type = CounterType::from_u8(kind & !SAME_ENDPOINT)?;
        if kind & SAME_ENDPOINT == 0 {
            endpoint = text(input)?;
        }
        let (metric, tags) = (text(input)?, text(input)?);
        if Tags::canonical(tags, &mut String::new()).as_str() != tags {
            return None;
        }
        points.clear();
        let mut time = None::<i64>;
        for _ in 0..varint::take_u64(input)? {
            let number = varint::take_i64(input)?;
            let next = time.map_or(Some(number), |newer| newer.checked_sub(number).filter(|_| number > 0))?;
            let value = f64::from_le_bytes(*take(input, 8)?.first_chunk()?);
            points.push(Point { time: next, value });
            time = Some(next);
        }
        points.reverse();
        let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
        each(key, counter_type, points);
    }
    Some(())
}

fn begin(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; HEAD]);
    out.len()
}

fn seal(out: &mut [u8], start: usize) {
    let len = ((out.len() - start) as u32).to_le_bytes();
    let crc = crc32(&[&len, &out[start..]]).to_le_bytes();
    out[start - HEAD..start - HEAD + 4].copy_from_slice(&len);
    out[start - HEAD + 4..start].copy_from_slice(&crc);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    varint::push_u64(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(taken)
}

fn text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::try_from(varint::take_u64(input)?).ok()?;
    std::str::from_utf8(take(input, len)?).ok()
}
