//! Roll-up: what remains of the points of a stretch of time: how many, their sum, the least and the greatest.
//!
//! Why: a year of a series at 60 s is half a million points; a chart has a thousand rows. With sum and count an average
//! of any rows is exact, and points can go while their roll-ups stay.
//! How: a bucket ends at a multiple of its resolution R and has the points of (end - R, end], as the rows of a query
//! do. A point at midnight so belongs to the last bucket of the day before, but is in the file of the day that it
//! begins: both days' files have a part of that bucket, and readers add parts of equal end. Of counters the *rates* are
//! rolled up, each at the later of its two points. Of a bucket in which a gauge became a counter, or the reverse, what
//! was before is left out: the two have no average. docs/format/rollup.md draws the chunk.
//! Invariants: NaN is no value; a bucket has at least one value; decoding hostile bytes ends in `None`.
//! Compat: the original's archives keep averages of averages; here AVERAGE stays exact however it is rolled up.

use super::coding::ChunkMeta;
use super::column::{push_counts, push_times, push_values, take_byte, take_counts, take_times, take_values};
use crate::series::Metas;

/// Marks a chunk of buckets (its first byte, see `block/coding.rs`).
pub const FLAG: u8 = 1 << 3;

/// Points further apart than this many steps have no rate between them (rrdtool's heartbeat).
const RATE_STEPS_MAX: u32 = 2;

/// The greatest is the least, in all buckets.
const ONE_VALUE_EACH: u8 = 1;
/// The sum is count times the least, in all buckets.
const SUM_IS_PRODUCT: u8 = 2;

/// Stretch of time of one series, which ends at `end`: count, sum, least and greatest of its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub end: u32,
    pub count: u32,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
}

impl Bucket {
    /// A bucket with one value.
    pub fn of(end: u32, value: f64) -> Bucket {
        Bucket { end, count: 1, sum: value, min: value, max: value }
    }

    /// Adds what another bucket has.
    pub fn merge(&mut self, other: &Bucket) {
        self.count = self.count.saturating_add(other.count);
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

/// The end of the bucket that a time is in.
fn end_of(time: u32, resolution_s: u32) -> u32 {
    time.div_ceil(resolution_s).saturating_mul(resolution_s)
}

/// The most seconds between two points of a counter that have a rate.
pub fn rate_gap_s(step: u32) -> u32 {
    step.saturating_mul(RATE_STEPS_MAX)
}

/// The rate between two points, if there is one: not over a gap, not over a reset.
fn rate(before: (u32, f64), point: (u32, f64), gap_s: u32) -> Option<f64> {
    let seconds = point.0 - before.0;
    (seconds <= gap_s && point.1 >= before.1).then(|| (point.1 - before.1) / f64::from(seconds))
}

/// What a point says: its value while the series is a gauge; while it is a counter the rate since the point before, if
/// it was a counter then, too. Where the step has changed between the two, the longer one says how far apart they may
/// be.
#[inline]
pub fn value(metas: &Metas, before: Option<(u32, f64)>, point: (u32, f64)) -> Option<f64> {
    let meta = metas.at(point.0);
    if meta.counter_type.is_gauge() {
        return Some(point.1);
    }
    let before = before?;
    let earlier = metas.at(before.0);
    if earlier.counter_type.is_gauge() {
        return None;
    }
    rate(before, point, rate_gap_s(meta.step.max(earlier.step)))
}

/// Replaces `out` by the buckets of `points`, which ascend strictly. `before` is the series' newest point before them.
pub fn fold(
    points: &[(u32, f64)],
    before: Option<(u32, f64)>,
    metas: &Metas,
    resolution_s: u32,
    out: &mut Vec<Bucket>,
) {
    out.clear();
    let mut before = before;
    for point in points {
        let value = value(metas, before.replace(*point), *point);
        let end = end_of(point.0, resolution_s);
        if let Some(value) = value.filter(|value| !value.is_nan() && point.0 >= metas.kind_since(end)) {
            add(out, Bucket::of(end, value));
        }
    }
}

/// Adds a bucket that does not end before the last one.
pub fn add(out: &mut Vec<Bucket>, bucket: Bucket) {
    match out.last_mut().filter(|last| last.end == bucket.end) {
        Some(last) => last.merge(&bucket),
        None => out.push(bucket),
    }
}

/// Appends the columns of at least one bucket.
pub fn push(buckets: &[Bucket], resolution_s: u32, out: &mut Vec<u8>) {
    let column = |field: fn(&Bucket) -> f64| buckets.iter().map(field).collect::<Vec<f64>>();
    let one_value_each = buckets.iter().all(|bucket| bucket.min.to_bits() == bucket.max.to_bits());
    let sum_is_product =
        buckets.iter().all(|bucket| product(bucket.count, bucket.min).to_bits() == bucket.sum.to_bits());
    let flag = |is_so: bool, flag: u8| if is_so { flag } else { 0 };
    out.push(flag(one_value_each, ONE_VALUE_EACH) | flag(sum_is_product, SUM_IS_PRODUCT));
    push_times(&buckets.iter().map(|bucket| bucket.end).collect::<Vec<u32>>(), resolution_s, out);
    push_counts(&buckets.iter().map(|bucket| bucket.count).collect::<Vec<u32>>(), out);
    push_values(&column(|bucket| bucket.min), out);
    if !one_value_each {
        push_values(&column(|bucket| bucket.max), out);
    }
    if !sum_is_product {
        push_values(&column(|bucket| bucket.sum), out);
    }
}

fn product(count: u32, value: f64) -> f64 {
    f64::from(count) * value
}

/// Appends the buckets that end within [from, to], ascending, of what `push` wrote.
pub fn take(
    input: &[u8],
    newest: u32,
    resolution_s: u32,
    head: ChunkMeta,
    (from, to): (u32, u32),
    out: &mut Vec<Bucket>,
) -> Option<()> {
    let mut rest = input;
    let flags = take_byte(&mut rest)?;
    let (mut ends, mut counts) = (Vec::new(), Vec::new());
    take_times(&mut rest, newest, resolution_s, head.count, &mut ends)?;
    take_counts(&mut rest, head.count, &mut counts)?;
    let mut column = || {
        let mut values = Vec::new();
        take_values(&mut rest, head.count, &mut values).map(|()| values)
    };
    let mins = column()?;
    let maxs = if flags & ONE_VALUE_EACH == 0 { Some(column()?) } else { None };
    let sums = if flags & SUM_IS_PRODUCT == 0 { Some(column()?) } else { None };
    if !rest.is_empty() || flags > (ONE_VALUE_EACH | SUM_IS_PRODUCT) {
        return None;
    }
    for i in ends.partition_point(|end| *end < from)..ends.partition_point(|end| *end <= to) {
        let (count, min) = (counts[i], mins[i]);
        let max = maxs.as_ref().map_or(min, |maxs| maxs[i]);
        let sum = sums.as_ref().map_or_else(|| product(count, min), |sums| sums[i]);
        out.push(Bucket { end: ends[i], count, sum, min, max });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Meta;
    use model::CounterType;
    use proptest::prelude::*;

    const GAUGE: Meta = Meta { counter_type: CounterType::Gauge, step: 60 };
    const COUNTER: Meta = Meta { counter_type: CounterType::Counter, step: 60 };

    fn folded(points: &[(u32, f64)], before: Option<(u32, f64)>, meta: Meta) -> Vec<Bucket> {
        let mut out = Vec::new();
        fold(points, before, &Metas::new(meta, &[]), 300, &mut out);
        out
    }

    #[test]
    fn a_bucket_has_the_points_up_to_its_end() {
        let points = [(600, 1.0), (601, 5.0), (700, f64::NAN), (800, 3.0), (900, 4.0), (901, 2.0)];
        let expected =
            [Bucket::of(600, 1.0), Bucket { end: 900, count: 3, sum: 12.0, min: 3.0, max: 5.0 }, Bucket::of(1200, 2.0)];
        assert_eq!(folded(&points, None, GAUGE), expected);
        assert_eq!(folded(&points[2..3], None, GAUGE), []);
        assert_eq!(folded(&[(u32::MAX, 1.0)], None, GAUGE), [Bucket::of(u32::MAX, 1.0)]);
    }

    #[test]
    fn counters_have_rates() {
        // Up by 60, one missing, a reset, a gap of three steps.
        let points = [(660, 60.0), (780, 300.0), (840, 5.0), (1020, 6.0), (1080, 66.0)];
        let later = [Bucket::of(900, 2.0), Bucket::of(1200, 1.0)];
        assert_eq!(folded(&points, None, COUNTER), later);
        let with_before = folded(&points, Some((600, 0.0)), COUNTER);
        assert_eq!(with_before[0], Bucket { end: 900, count: 2, sum: 3.0, min: 1.0, max: 2.0 });
        assert_eq!(folded(&points, Some((500, 0.0)), COUNTER), later, "too far before");
    }

    fn check(buckets: &[Bucket]) -> usize {
        let mut bytes = Vec::new();
        push(buckets, 300, &mut bytes);
        let head = ChunkMeta { meta: GAUGE, count: buckets.len() };
        let newest = buckets[buckets.len() - 1].end;
        let mut back = Vec::new();
        take(&bytes, newest, 300, head, (0, u32::MAX), &mut back).expect("decodes");
        assert_eq!(back, buckets);
        back.clear();
        take(&bytes, newest, 300, head, (buckets[0].end + 1, newest), &mut back).expect("decodes");
        assert_eq!(back, buckets[1..]);
        bytes.len()
    }

    #[test]
    fn a_day_of_a_series_that_never_changes_takes_a_few_bytes() {
        let day: Vec<Bucket> =
            (1..=288).map(|i| Bucket { end: 300 * i, count: 5, sum: 35.0, min: 7.0, max: 7.0 }).collect();
        assert_eq!(check(&day), 6);
    }

    proptest! {
        #[test]
        fn any_buckets_read_back(points in prop::collection::vec((1u32..2000, -1e6..1e6f64), 1..200)) {
            let mut time = 1000;
            let points: Vec<(u32, f64)> = points.iter().map(|(gap, value)| { time += gap; (time, *value) }).collect();
            check(&folded(&points, None, GAUGE));
        }

        #[test]
        fn hostile_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 1usize..500) {
            let head = ChunkMeta { meta: GAUGE, count };
            let _ = take(&bytes, 9_000_000, 300, head, (0, u32::MAX), &mut Vec::new());
        }
    }
}
