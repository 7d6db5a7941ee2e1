//! Record: a point as it waits for a next hop, in as many bytes as its texts and some fifteen more.
//!
//! How: type, step, time, value, then endpoint, metric and canonical tags, each behind its length; numbers but the
//! value are varints. What a hop of some kind wants of it (alignment, names, rounding) is made when it is sent.

use model::{CounterType, SeriesKey, Tags};
use stdx::varint::{push_i64, push_u64, take_i64, take_u64};

/// A point, borrowed from the bytes it waits in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'a> {
    pub key: SeriesKey<'a>,
    pub value: f64,
    /// Unix seconds, as the sender said.
    pub time: i64,
    /// Step that the sender said.
    pub step: u32,
    pub counter_type: CounterType,
}

impl<'a> Record<'a> {
    /// Appends the record.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.counter_type as u8);
        push_u64(u64::from(self.step), out);
        push_i64(self.time, out);
        out.extend_from_slice(&self.value.to_le_bytes());
        for text in [self.key.endpoint, self.key.metric, self.key.tags.as_str()] {
            push_u64(text.len() as u64, out);
            out.extend_from_slice(text.as_bytes());
        }
    }

    fn take(input: &mut &'a [u8]) -> Option<Record<'a>> {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        let counter_type = CounterType::from_u8(*byte)?;
        let step = u32::try_from(take_u64(input)?).ok()?;
        let time = take_i64(input)?;
        let (value, rest) = input.split_first_chunk::<8>()?;
        *input = rest;
        let mut text = || {
            let length = usize::try_from(take_u64(input)?).ok()?;
            let (text, rest) = input.split_at_checked(length)?;
            *input = rest;
            std::str::from_utf8(text).ok()
        };
        let (endpoint, metric, tags) = (text()?, text()?, text()?);
        let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
        Some(Record { key, value: f64::from_le_bytes(*value), time, step, counter_type })
    }

    /// The time, aligned to the step that counts, and that step.
    pub fn aligned(&self, min_step: u32) -> (i64, i64) {
        let step = i64::from(self.step.max(min_step).max(1));
        (self.time - self.time.rem_euclid(step), step)
    }
}

/// The records in `bytes`; none when these are not `count` records.
pub fn records(mut bytes: &[u8], count: u32) -> Option<Vec<Record<'_>>> {
    let records: Vec<Record<'_>> = std::iter::from_fn(|| Record::take(&mut bytes)).collect();
    (records.len() == count as usize && bytes.is_empty()).then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_others_are_none() {
        let key = |tags| SeriesKey { endpoint: "host", metric: "a.b", tags: Tags::assume_canonical(tags) };
        let one = Record {
            key: key("k=v,z=é"),
            value: -1.5,
            time: 1_600_000_059,
            step: 60,
            counter_type: CounterType::Derive,
        };
        let two = Record { key: key(""), value: f64::MAX, time: -1, step: u32::MAX, counter_type: CounterType::Gauge };
        let mut bytes = Vec::new();
        one.write(&mut bytes);
        two.write(&mut bytes);
        assert_eq!(records(&bytes, 2), Some(vec![one, two]));
        assert_eq!(records(&bytes, 1), None);
        for end in 0..bytes.len() {
            assert_eq!(records(&bytes[..end], 2), None, "{end}");
        }
    }

    /// Rules of docs/open-falcon/transfer.md §4.
    #[test]
    fn times_are_aligned_to_the_step_that_counts() {
        let key = SeriesKey { endpoint: "h", metric: "m", tags: Tags::assume_canonical("") };
        let check = |time: i64, step: u32, aligned: (i64, i64)| {
            let record = Record { key, value: 0.0, time, step, counter_type: CounterType::Gauge };
            assert_eq!(record.aligned(30), aligned);
        };
        check(1_600_000_059, 60, (1_600_000_020, 60));
        check(1_600_000_059, 1, (1_600_000_050, 30));
        check(1_600_000_020, 60, (1_600_000_020, 60));
    }
}
