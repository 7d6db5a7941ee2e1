//! Query: stored points of a series, or rows on Open-Falcon's grid, from memory, points and roll-ups.
//!
//! How: the hot chunk and the side table are copied under their shard's lock, then the blocks that overlap are read,
//! newest knowledge last; of equal times the first stored counts. A flush publishes its blocks before the hot chunk
//! lets go, so looking at memory first misses nothing. Counters are stored raw; rates are made here, at the later of
//! two points, and each point is what its series was at its time (`metas.rs`). For rows of several points a day is read
//! from its coarsest roll-up that the row's length is a multiple of, if there is a valid one, and nothing of the day is
//! only in memory; where the points are gone, from the finest there is. For a damaged one the day's points answer.
//! Memory: the answer, bounded by `query_points_max`; up to `READERS_MAX` open files, each with a page and a chunk.
//! Compat: docs/open-falcon/graph.md §5 and §7. Different on purpose: the newest points are always there, also in long
//! ranges and before they are flushed; a rate is at the later of its two points everywhere; MAX and MIN have the finest
//! rows too; a row is made of the known points of its range, where rrdtool wants all of them; LAST exists as long as
//! the points themselves do.

use super::rows::{Cf, Grid, Query, Rows, row_step, row_times};
use crate::block::rollup::{self, Bucket, rate_gap_s};
use crate::block::{Block, Catalog, Day, Kind, ROLLUPS, Reader, keep_first_of_equal_times};
use crate::error::{Error, Result};
use crate::parts::Parts;
use crate::series::{Found, Metas};
use crate::sizes::DAY_S;
use model::{Point, SeriesId};
use std::sync::Arc;
use stdx::Disk;
use stdx::ledger::Held;

/// Blocks that one query holds open: a day before it is merged has a dozen, a month of roll-ups four.
const READERS_MAX: usize = 64;

/// A series as of one instant.
struct View {
    id: SeriesId,
    memory: Memory,
    catalog: Arc<Catalog>,
}

/// The points of a series that are in memory.
struct Memory {
    /// Points within the range asked for, ascending but for late ones, which come last.
    points: Vec<(u32, f64)>,
    /// True when blocks have nothing to add.
    complete: bool,
    /// The oldest point that is in no block, in the range or not.
    oldest_unflushed: Option<u32>,
}

/// Open blocks, so that a query for many series opens each once.
struct Readers {
    open: Vec<Reader>,
    /// Name of a damaged file, from which something is missing in what was read.
    damage: Option<String>,
    held: Held,
}

impl Readers {
    fn new(parts: &Parts) -> Readers {
        Readers { open: Vec::new(), damage: None, held: parts.accounts.reads.hold() }
    }

    /// Tells the ledger what the query holds, its points besides.
    fn tell(&mut self, points: usize) {
        let open: usize = self.open.iter().map(|reader| size_of::<Reader>() + reader.memory_bytes()).sum();
        self.held.set(open + points * size_of::<(u32, f64)>());
    }

    fn of(&mut self, disk: &dyn Disk, block: &Arc<Block>) -> Result<&mut Reader> {
        if let Some(i) = self.open.iter().position(|reader| Arc::ptr_eq(&reader.block, block)) {
            return Ok(&mut self.open[i]);
        }
        if self.open.len() == READERS_MAX {
            self.open.remove(0);
        }
        self.open.push(Reader::open(disk, block)?);
        Ok(self.open.last_mut().expect("it was pushed"))
    }
}

/// Reads series after series, and opens each file once.
pub struct Histories<'s> {
    parts: &'s Parts,
    readers: Readers,
    points: Vec<(u32, f64)>,
}

impl Histories<'_> {
    /// Name of a damaged file that was met since the last call: what it had is missing in what was read.
    pub fn take_damage(&mut self) -> Option<String> {
        self.readers.damage.take()
    }

    /// Appends the stored points of a series within [from, to], ascending, each time once.
    pub fn read(&mut self, found: Found, from: i64, to: i64, out: &mut Vec<Point>) -> Result<()> {
        self.parts.check_known(found)?;
        if to < from || to < 0 || from > i64::from(u32::MAX) {
            return Ok(());
        }
        let (from, to) = (from.max(0) as u32, to.min(i64::from(u32::MAX)) as u32);
        let view = self.parts.view(found.id, from, to);
        self.parts.note_lost_days(&view, from, to, &mut self.readers);
        self.points.clear();
        self.parts.points(&mut self.readers, &view, from, to, &mut self.points)?;
        out.extend(self.points.iter().map(|(time, value)| Point { time: i64::from(*time), value: *value }));
        Ok(())
    }
}

impl Parts {
    /// Appends the stored points of a series within [from, to], ascending, each time once.
    pub fn history(&self, found: Found, from: i64, to: i64, out: &mut Vec<Point>) -> Result<()> {
        self.histories().read(found, from, to, out)
    }

    /// Opens a reader of many series one after the other: best in the order of their ids, which is that of the files.
    pub fn histories(&self) -> Histories<'_> {
        Histories { parts: self, readers: Readers::new(self), points: Vec::new() }
    }

    /// The time at which points begin, when only roll-ups are left of what was before: the oldest day with points, or
    /// the day behind the roll-ups.
    pub fn points_begin(&self) -> Option<i64> {
        let catalog = self.blocks();
        let days = catalog.days();
        let rolled_up = days.iter().take_while(|day| catalog.raw(day).is_empty()).last()?;
        let next = days.iter().find(|day| !catalog.raw(day).is_empty()).map_or(rolled_up.day + 1, |day| day.day);
        Some(i64::from(next) * i64::from(DAY_S))
    }

    /// Midnight (UTC) that begins the oldest day of which there are points in blocks.
    pub fn oldest_points(&self) -> Option<i64> {
        self.blocks().all_raw().map(|block| i64::from(block.label.first_day) * i64::from(DAY_S)).min()
    }

    fn check_known(&self, found: Found) -> Result<()> {
        if self.is_removed(found.id) { Err(Error::UnknownSeries(found.id.0)) } else { Ok(()) }
    }

    /// Views a series within [from, to]. Memory comes first: what leaves it meanwhile is in the blocks.
    fn view(&self, id: SeriesId, from: u32, to: u32) -> View {
        let memory = self.in_memory(id, from, to);
        View { id, memory, catalog: self.blocks() }
    }

    /// Copies what memory has: first the chain, oldest first, then late points.
    fn in_memory(&self, id: SeriesId, from: u32, to: u32) -> Memory {
        let (hot, slot) = self.shards.lock_of(id);
        let newest_first = hot.walk(slot).take_while(|(time, _)| *time >= from).filter(|(time, _)| *time <= to);
        let mut points: Vec<(u32, f64)> = newest_first.collect();
        points.reverse();
        points.extend(hot.side_points(slot, from, to));
        Memory { points, complete: hot.is_complete_from(slot, from), oldest_unflushed: hot.oldest_unflushed(slot) }
    }

    /// Appends the points within [from, to], a part of the view's range, ascending, each time once.
    fn points(&self, readers: &mut Readers, view: &View, from: u32, to: u32, out: &mut Vec<(u32, f64)>) -> Result<()> {
        let start = out.len();
        if !view.memory.complete {
            for block in view.catalog.raw_within(from, to) {
                let read = readers.of(&*self.disk, block).and_then(|reader| reader.read(view.id, from, to, out));
                self.unless_damaged(read, readers)?;
                self.check_size(out.len() - start)?;
            }
        }
        out.extend(view.memory.points.iter().filter(|(time, _)| (from..=to).contains(time)));
        keep_first_of_equal_times(out, start);
        readers.tell(out.capacity() + view.memory.points.capacity());
        self.check_size(out.len() - start)
    }

    /// Notes damage, and lets the query go on: a damaged chunk costs its points, and does not hide the rest of the
    /// history.
    fn unless_damaged(&self, result: Result<()>, readers: &mut Readers) -> Result<()> {
        match result {
            Err(error) if error.is_damage() => {
                self.note_damage(&error);
                readers.damage.get_or_insert_with(|| error.file_name());
                Ok(())
            }
            Err(error) => {
                if error.is_missing_file() {
                    self.note_damage(&error);
                }
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Notes that points are missing within [from, to] where a whole block of a day is.
    fn note_lost_days(&self, view: &View, from: u32, to: u32, readers: &mut Readers) {
        let days = from / DAY_S..=to / DAY_S;
        let lost = self.lost_days.iter().find(|(day, _)| !view.memory.complete && days.contains(day));
        if let Some((_, name)) = lost {
            readers.damage.get_or_insert_with(|| name.clone());
        }
    }

    fn check_size(&self, points: usize) -> Result<()> {
        let limit = self.options.query_points_max;
        if points > limit { Err(Error::TooManyPoints { limit }) } else { Ok(()) }
    }

    /// Rows of a series on the grid. They are of the finest archive that reaches back to `from`, at multiples of their
    /// step within [from, to]. While the row that `to` falls in is not over yet, what it has so far is given at `to`
    /// (aligned), so that the newest points are always seen.
    pub fn query(&self, found: Found, query: &Query) -> Result<Grid> {
        self.check_size(query.rows(found))?;
        self.grid(&mut Readers::new(self), found, query)
    }

    /// Rows of many series in one call, one after the other: `each` gets the position in `series` and what `query`
    /// would answer, and ends the call by answering false. Fails before anything is read when the rows of all together
    /// are more than `query_points_max`.
    pub fn query_many(
        &self,
        series: &[Found],
        query: &Query,
        mut each: impl FnMut(usize, Result<Grid>) -> bool,
    ) -> Result<()> {
        let rows = series.iter().map(|found| query.rows(*found)).fold(0, usize::saturating_add);
        self.check_size(rows)?;
        let mut readers = Readers::new(self);
        for (i, found) in series.iter().enumerate() {
            if !each(i, self.grid(&mut readers, *found, query)) {
                break;
            }
        }
        Ok(())
    }

    fn grid(&self, readers: &mut Readers, found: Found, query: &Query) -> Result<Grid> {
        self.check_known(found)?;
        let row_step = row_step(query, found.step);
        let times = row_times(query, row_step, found.step);
        let mut grid = Grid { step: row_step as u32, values: Vec::new(), incomplete: None };
        readers.damage = None;
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(grid) };
        let (from, to) = ((first - row_step + 1).max(0) as u32, *last as u32);
        let metas = self.metas(found);
        let mut rows = Rows::new(&times, row_step, query.cf, &metas);
        // So far before the first row there may be a point that makes its rate.
        let gap_s = rate_gap_s(metas.longest_counter_step());
        let view = self.view(found.id, from.saturating_sub(gap_s), to);
        self.note_lost_days(&view, from, to, readers);
        let stretches = if view.memory.complete || query.cf == Cf::Last {
            vec![Stretch { from, to, rollup: None }]
        } else {
            stretches(&view, row_step, from, to)
        };
        let (mut points, mut buckets) = (Vec::new(), Vec::new());
        for stretch in stretches {
            let Some(points_to) = self.add_rollup(readers, &view, stretch, &mut buckets, &mut rows)? else { continue };
            points.clear();
            let before = stretch.from.saturating_sub(gap_s);
            self.points(readers, &view, before, points_to, &mut points)?;
            add_points(&points, &metas, stretch.from, &mut rows);
        }
        grid.values = rows.finish();
        grid.incomplete = readers.damage.take();
        Ok(grid)
    }

    /// Adds the stretch's roll-up to the rows. Answers up to where its points are to be added instead: where it has no
    /// roll-up, or one that is damaged, which is a matter of the answer only where points are gone.
    fn add_rollup(
        &self,
        readers: &mut Readers,
        view: &View,
        stretch: Stretch<'_>,
        buckets: &mut Vec<Bucket>,
        rows: &mut Rows<'_>,
    ) -> Result<Option<u32>> {
        let Stretch { from, to, rollup } = stretch;
        let Some(block) = rollup else { return Ok(Some(to)) };
        buckets.clear();
        let read = readers.of(&*self.disk, block).and_then(|reader| match reader.find(view.id)? {
            Some(entry) => reader.buckets(&entry, from, to, buckets).map(drop),
            None => Ok(()),
        });
        buckets.drain(..).for_each(|bucket| rows.add_bucket(bucket));
        match read {
            Err(error) if error.is_damage() => {
                // A point at midnight is in the file of the day that it begins.
                let to = if to > from && to.is_multiple_of(DAY_S) { to - 1 } else { to };
                let mut days = view.catalog.days_within(from / DAY_S, to / DAY_S).iter();
                match days.all(|day| !view.catalog.raw(day).is_empty()) {
                    true => self.note_damage(&error),
                    false => self.unless_damaged(Err(error), readers)?,
                }
                Ok(Some(to))
            }
            read => self.unless_damaged(read, readers).map(|()| None),
        }
    }

    /// The newest point of a series, if it is in memory: after a restart, if the series was not silent for the last
    /// days. No disk is asked, so this may be called for every series.
    pub fn newest_in_memory(&self, id: SeriesId) -> Option<Point> {
        let (hot, slot) = self.shards.lock_of(id);
        hot.newest(slot).map(|(time, value)| Point { time: i64::from(time), value })
    }

    /// The newest stored point of a series; for one that is long silent, block after block is searched.
    pub fn last_raw(&self, found: Found) -> Option<Point> {
        let (newest, _) = self.newest_two(found)?;
        Some(newest)
    }

    /// The newest point of a gauge; the rate of a counter, where its two newest points are near enough for one, not
    /// below 0.
    pub fn last(&self, found: Found) -> Option<Point> {
        self.last_of_plain(found).or_else(|| self.last_of_two(found))
    }

    /// What [`Parts::last`] answers for nearly every series: one that always was a gauge, and whose newest point is in
    /// memory for sure. Who asks for the counters of a thousand hosts pays two short locks for each.
    fn last_of_plain(&self, found: Found) -> Option<Point> {
        let is_plain = {
            let table = self.table();
            found.counter_type.is_gauge() && table.past(found.id).is_empty() && !table.is_removed(found.id)
        };
        let (hot, slot) = is_plain.then(|| self.shards.lock_of(found.id))?;
        hot.known_newest(slot).map(|(time, value)| Point { time: i64::from(time), value })
    }

    fn last_of_two(&self, found: Found) -> Option<Point> {
        let (newest, before) = self.newest_two(found)?;
        let metas = self.metas(found);
        let [meta, earlier] = [Some(newest), before].map(|point| metas.at(point.map_or(0, |point| point.time as u32)));
        if meta.counter_type.is_gauge() {
            return Some(newest);
        }
        let gap_s = i64::from(rate_gap_s(meta.step.max(earlier.step)));
        let before = before.filter(|before| newest.time - before.time <= gap_s && !earlier.counter_type.is_gauge())?;
        let rate = (newest.value - before.value) / (newest.time - before.time) as f64;
        Some(Point { time: newest.time, value: rate.max(0.0) })
    }

    fn newest_two(&self, found: Found) -> Option<(Point, Option<Point>)> {
        self.check_known(found).ok()?;
        let mut points: Vec<Stored> = Vec::new();
        let is_enough = {
            let (hot, slot) = self.shards.lock_of(found.id);
            let stored = |(time, value)| Stored { time, flush: IN_MEMORY, value };
            points.extend(hot.walk(slot).take(2).map(stored));
            if points.len() < 2 {
                points.extend(hot.side_points(slot, 0, u32::MAX).map(stored));
            }
            hot.knows_newest_two(slot)
        };
        if !is_enough {
            self.newest_in_blocks(found.id, &mut points);
        }
        newest_first(&mut points);
        let mut points = points.iter().map(|point| Point { time: i64::from(point.time), value: point.value });
        Some((points.next()?, points.next()))
    }

    /// Adds points from blocks until no other block can have a newer second.
    fn newest_in_blocks(&self, id: SeriesId, points: &mut Vec<Stored>) {
        let catalog = self.blocks();
        let mut blocks: Vec<&Arc<Block>> = catalog.all_raw().collect();
        blocks.sort_by_key(|block| std::cmp::Reverse((block.max_time, block.label.first_flush)));
        let mut read = Vec::new();
        for block in blocks {
            newest_first(points);
            if points.get(1).is_some_and(|second| second.time > block.max_time) {
                return;
            }
            let reading =
                Reader::open(&*self.disk, block).and_then(|mut reader| reader.read(id, 0, u32::MAX, &mut read));
            // An unreadable block is as good as none here.
            if let Some(error) = reading.err().filter(Error::is_damage) {
                self.note_damage(&error);
            }
            let flush = block.label.first_flush;
            points.extend(read.drain(..).map(|(time, value)| Stored { time, flush, value }));
        }
    }
}

/// A point, and the flush that stored it.
struct Stored {
    time: u32,
    flush: u64,
    value: f64,
}

/// The flush of what is in no block: later than every other.
const IN_MEMORY: u64 = u64::MAX;

/// Sorts, newest first; of equal times the one that was stored first stays.
fn newest_first(points: &mut Vec<Stored>) {
    points.sort_by_key(|point| (std::cmp::Reverse(point.time), point.flush));
    points.dedup_by_key(|point| point.time);
}

/// Adds the points from `from` on, those of a counter as rates; those before are there for the first rate.
fn add_points(points: &[(u32, f64)], metas: &Metas, from: u32, rows: &mut Rows<'_>) {
    let first = points.partition_point(|(time, _)| *time < from);
    for i in first..points.len() {
        let before = i.checked_sub(1).map(|before| points[before]);
        if let Some(value) = rollup::value(metas, before, points[i]) {
            rows.add_value(points[i].0, value);
        }
    }
}

/// A part of the range and what to read it from; without a roll-up, from the points.
#[derive(Clone, Copy)]
struct Stretch<'a> {
    from: u32,
    to: u32,
    rollup: Option<&'a Arc<Block>>,
}

/// Parts [from, to] by what each day is read from.
fn stretches(view: &View, row_step: i64, from: u32, to: u32) -> Vec<Stretch<'_>> {
    let catalog = &*view.catalog;
    let mut stretches: Vec<Stretch<'_>> = Vec::new();
    // From here on nothing was said yet.
    let mut open_from = from;
    // A point that is only in memory is in no roll-up, and may change the first rate of the next day.
    let unflushed_day = view.memory.oldest_unflushed.map_or(u32::MAX, |time| time / DAY_S);
    for day in catalog.days_within(from / DAY_S, to / DAY_S) {
        let has_points = !catalog.raw(day).is_empty();
        let only_in_memory = has_points && day.day >= unflushed_day;
        let Some(rollup) = best_rollup(catalog, day, row_step).filter(|_| !only_in_memory) else { continue };
        let first = from.max(day.day * DAY_S);
        if open_from < first {
            stretches.push(Stretch { from: open_from, to: first - 1, rollup: None });
        }
        // The last bucket ends at midnight; the one that begins the next day's file has the rest of it.
        let next_day = (day.day * DAY_S).saturating_add(DAY_S);
        let resolution_s = rollup.label.kind.resolution_s();
        let until = if to >= next_day { next_day } else { to / resolution_s * resolution_s };
        match stretches.last_mut() {
            // One file for many days.
            Some(last) if last.rollup.is_some_and(|last| Arc::ptr_eq(last, rollup)) => last.to = until,
            _ => stretches.push(Stretch { from: first, to: until, rollup: Some(rollup) }),
        }
        open_from = match to < next_day {
            // Within the last bucket, only the points know.
            true if has_points => first.max(until + 1),
            true => to.saturating_add(1),
            false => next_day,
        };
    }
    if open_from <= to {
        stretches.push(Stretch { from: open_from, to, rollup: None });
    }
    stretches
}

/// The coarsest valid roll-up that rows can be made of; where there are no points, the finest one there is.
fn best_rollup<'a>(catalog: &'a Catalog, day: &Day, row_step: i64) -> Option<&'a Arc<Block>> {
    let suits = |kind: &Kind| row_step % i64::from(kind.resolution_s()) == 0;
    let valid = |kind: Kind| catalog.valid_rollup(day, kind);
    let coarsest = ROLLUPS.into_iter().rev().filter(suits).find_map(valid);
    match coarsest {
        None if catalog.raw(day).is_empty() => ROLLUPS.into_iter().find_map(|kind| catalog.rollup(day, kind)),
        coarsest => coarsest,
    }
}
