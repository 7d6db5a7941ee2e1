//! Batch: accepted samples as records of the log, and back. docs/format/log.md draws the bytes.
//!
//! How: within a record ids and times are differences to the sample before, and a value is a whole number in as few
//! bytes as it needs, or the upper bytes of its bits: a host's 200 small values take two bytes each.
//! Invariants: exact for every f64; decoding hostile bytes ends in `None`; nothing is allocated but what `out` grows
//! by.

use crate::record;
use model::{Point, Sample, SeriesId};
use stdx::varint::{push_i64, take_i64, unzigzag, zigzag};

/// Samples per record: at 25 bytes in the worst case a tenth of `record::PAYLOAD_MAX`.
const RECORD_SAMPLES_MAX: usize = 65_536;

/// Appends `samples` as records to `out`.
pub fn encode(samples: impl Iterator<Item = Sample>, out: &mut Vec<u8>) {
    let mut samples = samples.peekable();
    while samples.peek().is_some() {
        let start = record::begin(out);
        let (mut series, mut time) = (-1, 0);
        for sample in samples.by_ref().take(RECORD_SAMPLES_MAX) {
            encode_sample(sample, &mut series, &mut time, out);
        }
        record::seal(out, start);
    }
}

/// The bits of a sample's first byte; the rest is the value's form.
const NEXT_SERIES: u8 = 1;
const SAME_TIME: u8 = 2;
const VALUE_SHIFT: u32 = 2;
/// Forms 0 to 7: a whole number in so many bytes; 8 to 15: the upper 1 to 8 bytes of the bits.
const UPPER_BYTES: u8 = 8;

#[inline]
fn encode_sample(sample: Sample, series: &mut i64, time: &mut i64, out: &mut Vec<u8>) {
    let at = out.len();
    out.push(0);
    let mut first = 0;
    let id = i64::from(sample.series.0);
    if id == *series + 1 {
        first |= NEXT_SERIES;
    } else {
        push_i64(id - *series, out);
    }
    if sample.point.time == *time {
        first |= SAME_TIME;
    } else {
        push_i64(sample.point.time.wrapping_sub(*time), out);
    }
    (*series, *time) = (id, sample.point.time);
    let form = encode_value(sample.point.value, out);
    out[at] = first | form << VALUE_SHIFT;
}

#[inline]
fn encode_value(value: f64, out: &mut Vec<u8>) -> u8 {
    let bits = value.to_bits();
    let whole = value as i64;
    let upper = 8 - (bits.trailing_zeros() / 8).min(7) as u8;
    if (whole as f64).to_bits() == bits && whole != i64::MAX {
        let code = zigzag(whole);
        let width = 8 - (code.leading_zeros() / 8) as u8;
        if width < UPPER_BYTES && width <= upper {
            out.extend_from_slice(&code.to_le_bytes()[..usize::from(width)]);
            return width;
        }
    }
    out.extend_from_slice(&bits.to_be_bytes()[..usize::from(upper)]);
    UPPER_BYTES + upper - 1
}

/// Hands the samples of a payload to `apply`; `None` at the first byte that makes no sense.
pub fn decode(mut input: &[u8], mut apply: impl FnMut(Sample)) -> Option<()> {
    let (mut series, mut time) = (-1i64, 0i64);
    while let Some((first, rest)) = input.split_first() {
        input = rest;
        let ahead = if first & NEXT_SERIES != 0 { 1 } else { take_i64(&mut input)? };
        series = series.checked_add(ahead)?;
        if first & SAME_TIME == 0 {
            time = time.wrapping_add(take_i64(&mut input)?);
        }
        let value = decode_value(first >> VALUE_SHIFT, &mut input)?;
        let series = SeriesId(u32::try_from(series).ok()?);
        apply(Sample { series, point: Point { time, value } });
    }
    Some(())
}

#[inline]
fn decode_value(form: u8, input: &mut &[u8]) -> Option<f64> {
    let mut bytes = [0; 8];
    if form < UPPER_BYTES {
        let (code, rest) = input.split_at_checked(usize::from(form))?;
        bytes[..code.len()].copy_from_slice(code);
        *input = rest;
        return Some(unzigzag(u64::from_le_bytes(bytes)) as f64);
    }
    let (upper, rest) = input.split_at_checked(usize::from(form - UPPER_BYTES) + 1)?;
    bytes.get_mut(..upper.len())?.copy_from_slice(upper);
    *input = rest;
    Some(f64::from_bits(u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Item, Reader};
    use proptest::prelude::*;

    fn sample(series: u32, time: i64, value: f64) -> Sample {
        Sample { series: SeriesId(series), point: Point { time, value } }
    }

    #[test]
    fn a_hosts_batch_is_small() {
        let mut out = Vec::new();
        encode((0..200).map(|i| sample(1000 + i, 1_600_000_000, 7.0)), &mut out);
        // Record's header, first series and time, then two bytes each.
        assert_eq!(out.len(), record::HEADER_BYTES + 2 + 5 + 200 * 2);
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        let value = prop_oneof![any::<f64>(), (-5i64..5).prop_map(|v| v as f64), any::<i64>().prop_map(|v| v as f64)];
        (any::<u32>(), any::<i64>(), value).prop_map(|(series, time, value)| sample(series, time, value))
    }

    proptest! {
        #[test]
        fn batches_read_back(samples in prop::collection::vec(any_sample(), 0..50)) {
            let mut out = Vec::new();
            encode(samples.iter().copied(), &mut out);
            let mut back = Vec::new();
            for item in Reader::new(&out, 0) {
                let Item::Payload(_, payload) = item else { panic!("{item:?}") };
                decode(payload, |sample| back.push(sample)).expect("own bytes");
            }
            let bits = |samples: &[Sample]| -> Vec<(u32, i64, u64)> {
                samples.iter().map(|s| (s.series.0, s.point.time, s.point.value.to_bits())).collect()
            };
            prop_assert_eq!(bits(&samples), bits(&back));
        }

        #[test]
        fn hostile_payloads_end(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes, |_| ());
        }
    }
}
