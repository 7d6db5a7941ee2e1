//! Point and sample: a value at a time, and a point with its series.

use crate::series::SeriesId;

/// A value at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Unix seconds, aligned down to the series' step at the door.
    pub time: i64,
    /// A finite number: NaN and infinities are refused at the door.
    pub value: f64,
}

/// A point of a known series: the only form in which a point travels behind the door.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub series: SeriesId,
    pub point: Point,
}

// Batches hold these by the thousand; both are copied, never boxed.
const _: () = assert!(size_of::<Point>() == 16 && size_of::<Sample>() == 24);

/// Aligns `time` down to a multiple of `step` (seconds, > 0), as Open-Falcon's transfer does for graph and judge.
pub fn align(time: i64, step: u32) -> i64 {
    time - time.rem_euclid(i64::from(step))
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn aligns_down() {
        assert_eq!(align(119, 60), 60);
        assert_eq!(align(120, 60), 120);
        assert_eq!(align(-1, 60), -60);
    }
}
