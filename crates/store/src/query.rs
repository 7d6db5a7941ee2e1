//! Query: stored points of a series, and the same on Open-Falcon's grid.
//!
//! How: the hot chunk and the side table are copied under their shard's lock, then the blocks that overlap are read, newest
//! knowledge last; of equal times the first stored counts. A flush publishes its blocks before the hot chunk lets go, so
//! looking at memory first misses nothing. Counters are stored raw; rates are made here, at the later of two points.
//! Memory: the answer, bounded by `query_points_max`.
//! Compat: spec/graph.md §5 and §7: rows of 1, 5, 20, 180 or 720 steps as the original's archives would answer, each at the
//! end of what it covers. Different on purpose: the newest points are always there, also in long ranges and before they
//! are flushed; a rate is at the later of its two points everywhere; MAX and MIN have the finest rows too; a row is made
//! of the known points of its range, where rrdtool wants all of them; LAST exists.

use crate::error::{Error, Result};
use crate::store::Store;
use crate::table::Meta;
use model::point::align;
use model::{Point, SeriesId};
use std::sync::atomic::Ordering::Relaxed;

/// Consolidation function: what becomes of several points in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cf {
    Average,
    Max,
    Min,
    Last,
}

impl Cf {
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

#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub from: i64,
    pub to: i64,
    pub cf: Cf,
    pub now: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Seconds from row to row. The last row may come sooner, see `query`.
    pub step: u32,
    /// Ascending; `None` where nothing is known.
    pub values: Vec<(i64, Option<f64>)>,
}

/// The original's archives: steps per row, and how many steps back they reach (rows × steps per row).
const ARCHIVES: [(i64, i64); 5] = [(1, 720), (5, 576 * 5), (20, 504 * 20), (180, 766 * 180), (720, 730 * 720)];

/// Points further apart than this many steps have no rate between them (rrdtool's heartbeat).
const RATE_STEPS_MAX: i64 = 2;

impl Store {
    /// Appends the stored points of a series within [from, to], ascending, each time once.
    pub fn history(&self, id: SeriesId, from: i64, to: i64, out: &mut Vec<Point>) -> Result<()> {
        self.check_given(id)?;
        if to < from || to < 0 || from > i64::from(u32::MAX) {
            return Ok(());
        }
        let (from, to) = (from.max(0) as u32, to.min(i64::from(u32::MAX)) as u32);
        let start = out.len();
        let mut hot_points = Vec::new();
        if !self.copy_hot(id, from, to, &mut hot_points) {
            for block in self.blocks().iter().filter(|block| block.overlaps(from, to)) {
                self.note_damage(block.read(&*self.disk, id, from, to, out))?;
                self.check_size(out.len() - start)?;
            }
        }
        out.extend_from_slice(&hot_points);
        keep_first_of_equal_times(out, start);
        self.check_size(out.len() - start)
    }

    /// Copies what memory has, oldest first, late points after the chain. True when blocks have nothing to add.
    fn copy_hot(&self, id: SeriesId, from: u32, to: u32, out: &mut Vec<Point>) -> bool {
        let point = |(time, value)| Point { time: i64::from(time), value };
        let (hot, slot) = self.shards.lock_of(id);
        let complete = hot.is_complete_from(slot, from);
        let newest_first = hot.walk(slot).take_while(|(time, _)| *time >= from).filter(|(time, _)| *time <= to);
        out.extend(newest_first.map(point));
        out.reverse();
        out.extend(hot.side_points(slot, from, to).map(point));
        complete
    }

    /// A damaged chunk costs its points, is counted and told; it does not hide the rest of the history.
    fn note_damage(&self, result: Result<()>) -> Result<()> {
        match result {
            Err(Error::Corrupt { .. }) => {
                self.counters.corrupt_reads.fetch_add(1, Relaxed);
                Ok(())
            }
            result => result,
        }
    }

    fn check_size(&self, points: usize) -> Result<()> {
        let limit = self.options.query_points_max;
        if points > limit { Err(Error::TooManyPoints { limit }) } else { Ok(()) }
    }

    /// Blocks may hold points of any id that was given and not removed, awake or asleep.
    fn check_given(&self, id: SeriesId) -> Result<()> {
        let table = self.table();
        if id.0 < table.end() && !table.is_removed(id) { Ok(()) } else { Err(Error::UnknownSeries(id.0)) }
    }

    fn meta(&self, id: SeriesId) -> Result<Meta> {
        self.table().meta(id).ok_or(Error::UnknownSeries(id.0))
    }

    /// How many rows the answer to `query` has, about; 0 for a series that is not there.
    pub fn rows(&self, id: SeriesId, query: &Query) -> usize {
        self.meta(id).map_or(0, |meta| row_count(query, row_step(query, meta.step)))
    }

    /// The series on a grid. Rows are of the finest archive that reaches back to `from`, at multiples of their step within
    /// [from, to]. While the row that `to` falls in is not over yet, what it has so far is given at `to` (aligned), so that
    /// the newest points are always seen.
    pub fn query(&self, id: SeriesId, query: &Query) -> Result<Grid> {
        let Meta { counter_type, step } = self.meta(id)?;
        let row_step = row_step(query, step);
        self.check_size(row_count(query, row_step))?;
        let times = row_times(query, row_step, step);
        let mut grid = Grid { step: row_step as u32, values: Vec::new() };
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(grid) };
        let rate_s = RATE_STEPS_MAX * i64::from(step);
        let mut points = Vec::new();
        self.history(id, first - row_step + 1 - rate_s, *last, &mut points)?;
        if !counter_type.is_gauge() {
            to_rates(&mut points, rate_s);
        }
        grid.values = rows(&points, &times, row_step, query.cf);
        Ok(grid)
    }

    /// The newest point, if it is in memory: after a restart, if the series was not silent for the last days. Never asks the
    /// disk, so it may be asked of every series.
    pub fn newest_in_memory(&self, id: SeriesId) -> Option<Point> {
        let (hot, slot) = self.shards.lock_of(id);
        hot.newest(slot).map(|(time, value)| Point { time: i64::from(time), value })
    }

    /// The newest stored point. Of a series that is long silent it is looked for in block after block.
    pub fn last_raw(&self, id: SeriesId) -> Option<Point> {
        let (newest, _) = self.newest_two(id)?;
        Some(newest)
    }

    /// The newest point; of a counter its rate, where the two newest points are near enough for one, not below 0.
    pub fn last(&self, id: SeriesId) -> Option<Point> {
        let Meta { counter_type, step } = self.meta(id).ok()?;
        let (newest, before) = self.newest_two(id)?;
        if counter_type.is_gauge() {
            return Some(newest);
        }
        let before = before.filter(|before| newest.time - before.time <= RATE_STEPS_MAX * i64::from(step))?;
        let rate = (newest.value - before.value) / (newest.time - before.time) as f64;
        Some(Point { time: newest.time, value: rate.max(0.0) })
    }

    fn newest_two(&self, id: SeriesId) -> Option<(Point, Option<Point>)> {
        self.check_given(id).ok()?;
        let mut points = Vec::new();
        {
            let (hot, slot) = self.shards.lock_of(id);
            points.extend(hot.walk(slot).take(2).map(|(time, value)| Point { time: i64::from(time), value }));
            if points.len() < 2 {
                let side = hot.side_points(slot, 0, u32::MAX);
                points.extend(side.map(|(time, value)| Point { time: i64::from(time), value }));
            }
        }
        if points.len() < 2 {
            self.newest_in_blocks(id, &mut points);
        }
        // Stable: of equal times the one that was put in first comes first.
        points.sort_by_key(|point| std::cmp::Reverse(point.time));
        points.dedup_by_key(|point| point.time);
        Some((*points.first()?, points.get(1).copied()))
    }

    /// Adds points from blocks until no other block can have a newer second.
    fn newest_in_blocks(&self, id: SeriesId, points: &mut Vec<Point>) {
        let mut blocks = self.blocks().to_vec();
        blocks.sort_by_key(|block| std::cmp::Reverse((block.max_time, block.sequence)));
        for block in blocks {
            points.sort_by_key(|point| std::cmp::Reverse(point.time));
            if points.get(1).is_some_and(|second| second.time > i64::from(block.max_time)) {
                return;
            }
            // An unreadable block is as good as none here; `history` tells.
            let _ = self.note_damage(block.read(&*self.disk, id, 0, u32::MAX, points));
        }
    }
}

/// Sorts what is behind `start` by time, if need be, and drops all but the first of equal times.
fn keep_first_of_equal_times(points: &mut Vec<Point>, start: usize) {
    if !points[start..].is_sorted_by(|a, b| a.time < b.time) {
        points[start..].sort_by_key(|point| point.time);
        let mut kept = start;
        for i in start..points.len() {
            if kept == start || points[kept - 1].time != points[i].time {
                points[kept] = points[i];
                kept += 1;
            }
        }
        points.truncate(kept);
    }
}

fn row_step(query: &Query, step: u32) -> i64 {
    let step_s = i64::from(step);
    let back = align(query.now, step) - align(query.from.max(0), step);
    let finest = ARCHIVES.iter().find(|(_, reach)| back <= reach.saturating_mul(step_s));
    finest.unwrap_or(&ARCHIVES[ARCHIVES.len() - 1]).0 * step_s
}

/// The part of the range that can have points.
fn clamped(query: &Query) -> (i64, i64) {
    (query.from.max(0), query.to.min(i64::from(u32::MAX)))
}

/// At least as many as `row_times` will have, found without making them.
fn row_count(query: &Query, row_step: i64) -> usize {
    let (from, to) = clamped(query);
    if to < from { 0 } else { ((to - from) / row_step) as usize + 2 }
}

/// Ends of the rows to answer.
fn row_times(query: &Query, row_step: i64, step: u32) -> Vec<i64> {
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

/// Replaces raw counter values by rates at the later point of each pair; where there is none, by NaN.
fn to_rates(points: &mut [Point], gap_s_max: i64) {
    for i in (1..points.len()).rev() {
        let (before, point) = (points[i - 1], points[i]);
        let seconds = point.time - before.time;
        let known = seconds <= gap_s_max && point.value >= before.value;
        points[i].value = if known { (point.value - before.value) / seconds as f64 } else { f64::NAN };
    }
    if let Some(first) = points.first_mut() {
        first.value = f64::NAN;
    }
}

/// The row at `t` is made of the known points in (t - row_step, t], or after the row before if that is nearer.
fn rows(points: &[Point], times: &[i64], row_step: i64, cf: Cf) -> Vec<(i64, Option<f64>)> {
    let mut rest = points;
    let mut previous = i64::MIN;
    let mut values = Vec::with_capacity(times.len());
    for time in times {
        let after = previous.max(time - row_step);
        rest = &rest[rest.partition_point(|point| point.time <= after)..];
        let (row, later) = rest.split_at(rest.partition_point(|point| point.time <= *time));
        values.push((*time, consolidate(row, cf)));
        (rest, previous) = (later, *time);
    }
    values
}

fn consolidate(row: &[Point], cf: Cf) -> Option<f64> {
    let mut known = row.iter().map(|point| point.value).filter(|value| !value.is_nan());
    match cf {
        Cf::Average => {
            let (mut sum, mut count) = (0.0, 0u32);
            known.for_each(|value| {
                sum += value;
                count += 1;
            });
            (count > 0).then(|| sum / f64::from(count))
        }
        Cf::Max => known.reduce(f64::max),
        Cf::Min => known.reduce(f64::min),
        Cf::Last => known.next_back(),
    }
}
