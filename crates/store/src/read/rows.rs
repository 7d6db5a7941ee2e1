//! Rows: which rows of Open-Falcon's grid a query has, and what becomes of points and buckets in them.
//!
//! How: points and buckets come in order of time and are added to the row that they are in; a row is done when the next
//! one begins. Of a row in which a gauge became a counter, or the reverse, what was before is left out, as it is of a
//! bucket: whatever a row is made of, it has one meaning.
//! Compat: docs/open-falcon/graph.md §5: rows of 1, 5, 20, 180 or 720 steps, as the original's archives would answer.
//! Memory: the rows.

use crate::block::rollup::Bucket;
use crate::series::{Found, Metas};
use model::point::align;

/// A range of time, and how its points become rows.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub from: i64,
    pub to: i64,
    pub cf: Cf,
    pub now: i64,
}

impl Query {
    /// Count of the rows that the answer for a series has, about.
    pub fn rows(&self, found: Found) -> usize {
        row_count(self, row_step(self, found.step))
    }
}

/// Consolidation function: what becomes of several points in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cf {
    Average,
    Max,
    Min,
    Last,
}

impl Cf {
    /// Function by Open-Falcon's name; `None` for another text.
    pub fn parse(text: &str) -> Option<Cf> {
        match text {
            "AVERAGE" => Some(Cf::Average),
            "MAX" => Some(Cf::Max),
            "MIN" => Some(Cf::Min),
            "LAST" => Some(Cf::Last),
            _ => None,
        }
    }
}

/// The rows of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Seconds from row to row. The last row may come sooner, see `query`.
    pub step: u32,
    /// Time and value of each row, ascending; `None` where nothing is known.
    pub values: Vec<(i64, Option<f64>)>,
    /// Name of a damaged file, whose points are missing in the values; `None` as long as all is sound.
    pub incomplete: Option<String>,
}

/// The original's archives: steps per row, and how many steps back they reach (rows × steps per row).
const ARCHIVES: [(i64, i64); 5] = [(1, 720), (5, 576 * 5), (20, 504 * 20), (180, 766 * 180), (720, 730 * 720)];

/// Seconds per row for a series of `step`: of the finest archive that reaches back to the query's `from`.
pub fn row_step(query: &Query, step: u32) -> i64 {
    let step_s = i64::from(step);
    let back = align(query.now, step) - align(query.from.max(0), step);
    let finest = ARCHIVES.iter().find(|(_, reach)| back <= reach.saturating_mul(step_s));
    finest.unwrap_or(&ARCHIVES[ARCHIVES.len() - 1]).0 * step_s
}

/// The part of the range that can have points.
fn clamped(query: &Query) -> (i64, i64) {
    (query.from.max(0), query.to.min(i64::from(u32::MAX)))
}

/// Number of rows, at least as many as `row_times` will have, found without making them.
pub fn row_count(query: &Query, row_step: i64) -> usize {
    let (from, to) = clamped(query);
    if to < from { 0 } else { ((to - from) / row_step) as usize + 2 }
}

/// Ends of the rows to answer.
pub fn row_times(query: &Query, row_step: i64, step: u32) -> Vec<i64> {
    let (from, to) = clamped(query);
    if to < from {
        return Vec::new();
    }
    let first = from.div_euclid(row_step) * row_step + if from % row_step == 0 { 0 } else { row_step };
    let mut times: Vec<i64> = (first..=to).step_by(row_step as usize).collect();
    let open_row_ends = to.div_euclid(row_step) * row_step + row_step;
    let so_far = align(to, step);
    if open_row_ends > query.now && so_far >= from && times.last().is_none_or(|last| *last < so_far) {
        times.push(so_far);
    }
    times
}

/// The rows being made. The one at `t` is made of what ends in (t - row_step, t], or after the row before if that is
/// nearer.
pub struct Rows<'a> {
    times: &'a [i64],
    row_step: i64,
    cf: Cf,
    metas: &'a Metas,
    /// Values of the row that comes next, so far.
    open: Option<(Bucket, f64)>,
    values: Vec<(i64, Option<f64>)>,
}

impl<'a> Rows<'a> {
    /// No rows yet; `times` are the ends of those to make.
    pub fn new(times: &'a [i64], row_step: i64, cf: Cf, metas: &'a Metas) -> Rows<'a> {
        Rows { times, row_step, cf, metas, open: None, values: Vec::with_capacity(times.len()) }
    }

    /// Adds a value; times do not descend.
    pub fn add_value(&mut self, time: u32, value: f64) {
        if !value.is_nan() {
            self.add(Bucket::of(time, value), value);
        }
    }

    /// Adds a bucket, at its end. Which of its values was last nobody knows; `Cf::Last` is never asked of buckets.
    pub fn add_bucket(&mut self, bucket: Bucket) {
        self.add(bucket, f64::NAN);
    }

    fn add(&mut self, bucket: Bucket, last: f64) {
        let time = i64::from(bucket.end);
        while let Some(row) = self.times.get(self.values.len()) {
            if time <= *row {
                let after = self.values.last().map_or(i64::MIN, |(time, _)| *time).max(row - self.row_step);
                let one_kind = bucket.end >= self.metas.kind_since(*row as u32);
                if time > after && one_kind {
                    match &mut self.open {
                        Some((open, newest)) => {
                            open.merge(&bucket);
                            *newest = last;
                        }
                        None => self.open = Some((bucket, last)),
                    }
                }
                return;
            }
            self.end_row(*row);
        }
    }

    fn end_row(&mut self, time: i64) {
        let value = self.open.take().map(|(bucket, last)| match self.cf {
            Cf::Average => bucket.sum / f64::from(bucket.count),
            Cf::Max => bucket.max,
            Cf::Min => bucket.min,
            Cf::Last => last,
        });
        self.values.push((time, value));
    }

    /// Ends the last row, and gives all of them.
    pub fn finish(mut self) -> Vec<(i64, Option<f64>)> {
        while let Some(row) = self.times.get(self.values.len()) {
            self.end_row(*row);
        }
        self.values
    }
}
