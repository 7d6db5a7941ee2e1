//! Coding of a chunk in a block: type, step, count, then points as records or as columns, then a checksum.
//!
//! How: a flush writes *records* (`chunk.rs`): cheap, and read from the newest point back only as far as is wanted. A
//! merge has more points of a series and takes the shorter of records and *columns* (`column.rs`).
//! Invariants: nothing is believed before the checksum, which also covers what the index page says of the chunk (series
//! and newest time), so that a page cannot lead to another series' points.

use super::column;
use crate::hot::chunk::{Cursor, Walk};
use crate::series::Meta;
use crate::sizes::DAY_S;
use model::CounterType;
use stdx::crc32;
use stdx::varint::{push_u64, take_u64};

/// A day has no more seconds, and a chunk with points is of one day. Chunks of buckets have fewer.
pub const POINTS_MAX: usize = DAY_S as usize;

/// Bits of a chunk's first byte.
const TYPE_BITS: u8 = 0b11;
const COLUMNS: u8 = 1 << 2;

/// Type and step of a series when the chunk was written, and what the chunk holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChunkMeta {
    pub meta: Meta,
    pub count: usize,
}

/// Buffers of an encoder, reused.
#[derive(Default)]
pub struct Scratch {
    records: Vec<u8>,
    times: Vec<u32>,
    values: Vec<f64>,
}

impl Scratch {
    /// Bytes that the buffers hold.
    pub fn memory_bytes(&self) -> usize {
        self.records.capacity() + self.times.capacity() * size_of::<u32>() + self.values.capacity() * size_of::<f64>()
    }
}

/// Appends the head that every chunk begins with.
pub fn push_head(flags: u8, meta: Meta, count: usize, out: &mut Vec<u8>) {
    out.push(meta.counter_type as u8 | flags);
    push_u64(u64::from(meta.step), out);
    push_u64(count as u64, out);
}

/// Takes the head off a chunk without checksum; returns its flags too.
pub fn take_head(input: &mut &[u8]) -> Option<(u8, ChunkMeta)> {
    let first = column::take_byte(input)?;
    let counter_type = CounterType::from_u8(first & TYPE_BITS)?;
    let step = u32::try_from(take_u64(input)?).ok()?;
    let count = usize::try_from(take_u64(input)?).ok().filter(|count| (1..=POINTS_MAX).contains(count))?;
    Some((first & !TYPE_BITS, ChunkMeta { meta: Meta { counter_type, step }, count }))
}

/// Appends the checksum of the chunk that begins at `start`.
pub fn seal(series: u32, newest: u32, start: usize, out: &mut Vec<u8>) {
    let crc = crc32(&[&series.to_le_bytes(), &newest.to_le_bytes(), &out[start..]]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// A chunk without its checksum, if that fits.
pub fn unseal(series: u32, newest: u32, bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32(&[&series.to_le_bytes(), &newest.to_le_bytes(), body]) == u32::from_le_bytes(*crc)).then_some(body)
}

/// Appends a chunk; `points` ascend strictly, there is at least one. With `dense`, columns are tried too.
pub fn push_points(
    series: u32,
    meta: Meta,
    points: &[(u32, f64)],
    dense: bool,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let (time, value) = points[0];
    let mut cursor = Cursor::new(time, value, meta.step);
    scratch.records.clear();
    for (time, value) in &points[1..] {
        cursor.append(*time, *value, |record| scratch.records.extend_from_slice(record));
    }
    push_head(0, meta, points.len(), out);
    out.extend_from_slice(&cursor.value.to_bits().to_le_bytes());
    push_u64(u64::from(cursor.run), out);
    out.extend_from_slice(&scratch.records);
    if dense {
        // Reuses `records` for the other form.
        let Scratch { records: other, times, values } = scratch;
        other.clear();
        times.clear();
        values.clear();
        times.extend(points.iter().map(|(time, _)| *time));
        values.extend(points.iter().map(|(_, value)| *value));
        push_head(COLUMNS, meta, points.len(), other);
        column::push_times(times, meta.step, other);
        column::push_values(values, other);
        if other.len() < out.len() - start {
            out.truncate(start);
            out.extend_from_slice(other);
        }
    }
    seal(series, cursor.time, start, out);
}

/// Appends the points within [from, to], ascending, of an unsealed chunk.
pub fn take_points(newest: u32, body: &[u8], from: u32, to: u32, out: &mut Vec<(u32, f64)>) -> Option<ChunkMeta> {
    let mut rest = body;
    let (flags, head) = take_head(&mut rest)?;
    match flags {
        0 => take_records(newest, head, rest, from, to, out)?,
        COLUMNS => {
            let (mut times, mut values) = (Vec::new(), Vec::new());
            column::take_times(&mut rest, newest, head.meta.step, head.count, &mut times)?;
            column::take_values(&mut rest, head.count, &mut values)?;
            let wanted = times.partition_point(|time| *time < from)..times.partition_point(|time| *time <= to);
            if !rest.is_empty() {
                return None;
            }
            let pairs = times.iter().copied().zip(values);
            out.extend(pairs.take(wanted.end).skip(wanted.start));
        }
        _ => return None,
    }
    Some(head)
}

fn take_records(
    newest: u32,
    head: ChunkMeta,
    rest: &[u8],
    from: u32,
    to: u32,
    out: &mut Vec<(u32, f64)>,
) -> Option<()> {
    let (value, mut rest) = rest.split_first_chunk::<8>()?;
    let run = u32::try_from(take_u64(&mut rest)?).ok()?;
    let value = f64::from_bits(u64::from_le_bytes(*value));
    let cursor = Cursor { time: newest, run, value, step: head.meta.step };
    let start = out.len();
    let (mut seen, mut ended) = (0, false);
    for (time, value) in Walk::new(cursor, rest).take(head.count) {
        seen += 1;
        if time < from {
            ended = true;
            break;
        }
        if time <= to {
            out.push((time, value));
        }
    }
    out[start..].reverse();
    (ended || seen == head.count).then_some(())
}

/// Sorts what is behind `start` by time, if need be, and drops all but the first of equal times.
pub fn keep_first_of_equal_times(points: &mut Vec<(u32, f64)>, start: usize) {
    if points[start..].is_sorted_by(|a, b| a.0 < b.0) {
        return;
    }
    points[start..].sort_by_key(|point| point.0);
    let mut kept = start;
    for i in start..points.len() {
        if kept == start || points[kept - 1].0 != points[i].0 {
            points[kept] = points[i];
            kept += 1;
        }
    }
    points.truncate(kept);
}
