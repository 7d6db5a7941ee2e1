//! Windows: the newest points of the series that have rules, for a judge that runs without a store.
//!
//! Why: behind an old transfer most items belong to series that no rule looks at, and the original keeps eleven whole
//! items of each series of each metric that some rule uses. Here a series appears with its first item that a rule
//! matches, with as many points as its rules look back on; all other items are dropped after a look-up or two, and
//! leave nothing behind.
//! How: texts are interned; a series is a row, found by its three texts, with its points in a ring (`rings.rs`). Ids
//! are `shard + row × shards`, so that they mean one series over all shards, as the joins need it.
//! Step: an item does not say it. A transfer aligns times to it, so the least distance seen is taken for it, within
//! [`STEP_LEAST_S`] and [`STEP_USUAL_S`] (a longer period shows in the points, see `values.rs`); while there is only
//! one point, [`STEP_UNKNOWN_S`].
//! Invariants: times only grow within a series, other items are dropped unjudged (but points that a clock told which
//! was ahead go when one comes that is of now); no allocation per item of a series
//! that is known, nor for one without rules. A window that was read back from a file goes on only where no period was
//! missed since then: points in between, which may have ended an alarm, are not known.
//! Memory: 24 bytes per row, 6 to 11 per slot of the table, 12 per point, and names; see [`Windows::memory_bytes`].
//! Bounded by the [`Room`] that all shards share.
//! Compat: docs/open-falcon/judge.md §2. The original keeps points of series without a rule too, if another series of
//! their metric has one: a rule that is changed to match them has history there, and begins without here.

pub mod file;

use crate::Semantics;
use crate::judge::{Judge, PointSource};
use crate::rings::{Ring, Rings, TIMES};
use crate::state::OpenProblem;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use model::{CounterType, Event, Point, Sample, SeriesId, SeriesKey, Tags};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use stdx::Interner;

/// `minStep` of the original's transfer. Items that come closer together have two senders.
const STEP_LEAST_S: i64 = 30;

/// The step of nearly all agents; what is sent less often shows it by its distances.
const STEP_USUAL_S: i64 = 60;

/// The step of a series with one point only: `nodata` shall not cry before the second point of a slow script. A guess.
const STEP_UNKNOWN_S: u32 = 300;

/// The endpoint of an empty row.
const NONE: u32 = u32::MAX;

/// The number of series that all shards may have together.
#[derive(Debug)]
pub struct Room {
    used: AtomicUsize,
    max: usize,
    /// Whether there is no memory for more series, however few there are.
    is_closed: AtomicBool,
}

impl Room {
    /// Room for `max` series, none taken.
    pub fn new(max: usize) -> Room {
        Room { used: AtomicUsize::new(0), max, is_closed: AtomicBool::new(false) }
    }

    /// Number of series that all shards have.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Lets no more series in, or lets them in again; answers whether that is new.
    pub fn close(&self, closed: bool) -> bool {
        self.is_closed.swap(closed, Ordering::Relaxed) != closed
    }

    /// Whether no more series are let in.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let next = |used| (used < self.max && !self.is_closed()).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The fate of an item that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Judged,
    /// No rule looks at the item's series.
    NoRule,
    /// The item's time is not above that of the newest point.
    NotNewer,
    /// The item's time is not above 0, or too far ahead for 32 bits.
    BadTime,
    /// The item's series is new, and there are as many as may be, or there is no memory for more.
    Full,
}

#[derive(Clone, Copy)]
struct Row {
    endpoint: u32,
    metric: u32,
    tags: u32,
    ring: Ring,
    counter_type: CounterType,
    least_step_s: u8,
    /// Whether the points were read from a file, and none has come since.
    restored: bool,
}

const _: () = assert!(size_of::<Row>() <= 28);

/// The windows of one shard.
pub struct Windows {
    shard: u32,
    shards: u32,
    rows: Vec<Row>,
    /// Rows that are empty.
    free: Vec<u32>,
    table: HashTable<u32>,
    hasher: RandomState,
    names: Interner,
    rings: Rings,
    room: Arc<Room>,
}

impl Windows {
    /// Empty windows for one of several shards.
    pub fn new(shard: usize, shards: usize, room: Arc<Room>) -> Windows {
        Windows {
            shard: shard as u32,
            shards: shards as u32,
            rows: Vec::new(),
            free: Vec::new(),
            table: HashTable::new(),
            hasher: RandomState::default(),
            names: Interner::default(),
            rings: Rings::default(),
            room,
        }
    }

    /// The shard of a series by its id.
    pub fn shard_of(series: SeriesId, shards: usize) -> usize {
        series.0 as usize % shards
    }

    /// Takes an item and has `judge`, which is of the same shard, judge it. `now` is the wall clock.
    #[inline]
    pub fn take(
        &mut self,
        judge: &mut Judge,
        key: SeriesKey<'_>,
        counter_type: CounterType,
        point: Point,
        now: i64,
        events: &mut Vec<Event>,
    ) -> Fate {
        if !(1..TIMES.end).contains(&point.time) && !self.is_first_of_any_time(judge, key, point.time) {
            return Fate::BadTime;
        }
        let row = match self.find_row(key) {
            Some(row) => row,
            None if !judge.wants(key) => return Fate::NoRule,
            None => match self.add(judge, key, counter_type) {
                Some(series) => self.row(series) as u32,
                None => return Fate::Full,
            },
        };
        let latest = judge.options.latest(now);
        let is_newest = self.push(row, counter_type, point, latest, judge.semantics());
        let (series, step) = (self.id(row), self.rows[row as usize].step_s());
        if !is_newest {
            // One with the time of the newest says nothing new.
            if self.points(series).next().is_some_and(|newest| newest.time > point.time) {
                judge.hear(Sample { series, point }, counter_type, step, self, now);
            }
            return Fate::NotNewer;
        }
        judge.on_point(Sample { series, point }, counter_type, step, self, now, events);
        Fate::Judged
    }

    /// Whether the item is the first of its series and of any time: the original looks at times from the second item
    /// on.
    #[cold]
    fn is_first_of_any_time(&self, judge: &Judge, key: SeriesKey<'_>, time: i64) -> bool {
        judge.semantics() == Semantics::OpenFalcon && TIMES.contains(&time) && self.find(key).is_none()
    }

    /// Id of a series by its name.
    pub fn find(&self, key: SeriesKey<'_>) -> Option<SeriesId> {
        self.find_row(key).map(|row| self.id(row))
    }

    #[inline]
    fn find_row(&self, key: SeriesKey<'_>) -> Option<u32> {
        self.table.find(self.hash(key), |row| self.key_of(&self.rows[*row as usize]) == key).copied()
    }

    /// Makes a series that has rules, and binds it; `None` if it has none, or if there is no room.
    pub fn add(&mut self, judge: &mut Judge, key: SeriesKey<'_>, counter_type: CounterType) -> Option<SeriesId> {
        if let Some(known) = self.find(key) {
            return Some(known);
        }
        if !judge.wants(key) || !self.room.take() {
            return None;
        }
        let Some([endpoint, metric, tags]) = self.acquire([key.endpoint, key.metric, key.tags.as_str()]) else {
            self.room.give_back();
            return None;
        };
        let ring = Ring::default();
        let fresh =
            Row { endpoint, metric, tags, ring, counter_type, least_step_s: STEP_USUAL_S as u8, restored: false };
        let row = self.free.pop().unwrap_or_else(|| {
            if self.rows.len() == self.rows.capacity() {
                // By an eighth, not by half as much again: this is what the series cost.
                self.rows.reserve_exact(self.rows.len() / 8 + 64);
            }
            self.rows.push(fresh);
            self.rows.len() as u32 - 1
        });
        let hash = self.hash(key);
        let (rows, names, hasher) = (&self.rows, &self.names, &self.hasher);
        self.table.insert_unique(hash, row, |row| hash_of(hasher, key_in(names, &rows[*row as usize])));
        let series = self.id(row);
        // Nothing is open on a series that was not there.
        judge.bind(series, key, counter_type);
        let ring = self.rings.add(judge.window_points(series) as u16);
        self.rows[row as usize] = Row { ring, ..fresh };
        Some(series)
    }

    /// Adds a point; false if it is not the newest. Points later than `latest` are from a clock that was wrong, and
    /// make room for one that is not.
    #[inline]
    fn push(&mut self, row: u32, counter_type: CounterType, point: Point, latest: i64, semantics: Semantics) -> bool {
        let row = &mut self.rows[row as usize];
        let mut newest = self.rings.newest(row.ring);
        while point.time <= latest && newest.is_some_and(|newest| newest > latest) {
            self.rings.pop(&mut row.ring);
            newest = self.rings.newest(row.ring);
        }
        if let Some(newest) = newest {
            if point.time <= newest {
                return false;
            }
            if row.restored {
                go_on(row, &self.rings, point.time - newest);
            }
            let least = (point.time - newest).min(i64::from(row.least_step_s));
            row.least_step_s = least.max(STEP_LEAST_S) as u8;
        }
        if row.counter_type.is_gauge() != counter_type.is_gauge() && semantics == Semantics::Hawkeye {
            // Readings of a counter are no values of a gauge, and make no rates with them. The original mixes them.
            self.rings.clear(&mut row.ring);
        }
        row.counter_type = counter_type;
        self.rings.push(&mut row.ring, point);
        true
    }

    /// Puts back the points of a series that were read from a file, oldest first.
    pub fn restore(&mut self, series: SeriesId, points: impl Iterator<Item = Point>) {
        let row = self.row(series);
        let counter_type = self.rows[row].counter_type;
        for point in points {
            if TIMES.contains(&point.time) {
                self.push(row as u32, counter_type, point, i64::MAX, Semantics::Hawkeye);
            }
        }
        self.rows[row].restored = self.rows[row].ring.len() > 0;
    }

    /// Fits the windows to changed rules, when the series that the change touches are bound anew: series without a rule
    /// go, and each other one gets as many points as its rules look back on.
    pub fn settle(&mut self, judge: &mut Judge) {
        for row in 0..self.rows.len() as u32 {
            if self.rows[row as usize].endpoint == NONE {
                continue;
            }
            let series = self.id(row);
            let needed = judge.window_points(series) as u16;
            let ring = self.rows[row as usize].ring;
            let length = self.rings.length(ring);
            if needed == 0 {
                // The original's alarm of a rule that is gone goes on when the rule comes back.
                if !judge.remembers(series) {
                    self.remove(judge, series);
                }
            } else if length < needed || length / 2 > needed {
                self.rows[row as usize].ring = self.rings.resize(ring, needed);
            }
        }
    }

    /// Forgets a series and returns the PROBLEMs that were open on it.
    pub fn remove(&mut self, judge: &mut Judge, series: SeriesId) -> Vec<OpenProblem> {
        let number = self.row(series);
        let row = self.rows[number];
        let hash = self.hash(self.key_of(&row));
        if let Ok(entry) = self.table.find_entry(hash, |other| *other as usize == number) {
            entry.remove();
        }
        for name in [row.endpoint, row.metric, row.tags] {
            self.names.release(name);
        }
        self.rings.remove(row.ring);
        self.rows[number].endpoint = NONE;
        self.free.push(number as u32);
        self.room.give_back();
        if self.table.is_empty() {
            (self.rows, self.free, self.table) = (Vec::new(), Vec::new(), HashTable::new());
        }
        judge.unbind(series)
    }

    /// The series that have had no point since `oldest`. A series that is there only for its alarm is as old as the
    /// alarm.
    pub fn silent_since(&self, judge: &Judge, oldest: i64) -> Vec<SeriesId> {
        let newest = |series, row: &Row| self.rings.newest(row.ring).or_else(|| judge.last_problem(series));
        let is_silent = |series, row: &Row| newest(series, row).is_none_or(|newest| newest < oldest);
        self.used().filter(|(series, row)| is_silent(*series, row)).map(|(series, _)| series).collect()
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Visits each series, with its name, type and step in seconds.
    pub fn for_each_series(&self, each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType, u32)) {
        for (series, row) in self.used() {
            each(series, self.key_of(row), row.counter_type, row.step_s());
        }
    }

    /// The points of a series, newest first.
    pub fn points(&self, series: SeriesId) -> impl Iterator<Item = Point> {
        let ring = self.existing(series).map(|row| row.ring);
        ring.into_iter().flat_map(|ring| self.rings.newest_first(ring))
    }

    /// Bytes of the series, their names and their points.
    pub fn memory_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.free.capacity() * size_of::<u32>()
            + self.table.allocation_size()
            + self.names.memory_bytes()
            + self.rings.memory_bytes()
    }

    fn used(&self) -> impl Iterator<Item = (SeriesId, &Row)> {
        let numbered = (0u32..).zip(&self.rows).filter(|(_, row)| row.endpoint != NONE);
        numbered.map(|(number, row)| (self.id(number), row))
    }

    fn existing(&self, series: SeriesId) -> Option<&Row> {
        self.rows.get(self.row(series)).filter(|row| row.endpoint != NONE)
    }

    #[inline]
    fn id(&self, row: u32) -> SeriesId {
        SeriesId(row * self.shards + self.shard)
    }

    #[inline]
    fn row(&self, series: SeriesId) -> usize {
        (series.0 / self.shards) as usize
    }

    #[inline]
    fn hash(&self, key: SeriesKey<'_>) -> u64 {
        hash_of(&self.hasher, key)
    }

    #[inline]
    fn key_of(&self, row: &Row) -> SeriesKey<'_> {
        key_in(&self.names, row)
    }

    /// Interns all the texts, or none.
    fn acquire(&mut self, texts: [&str; 3]) -> Option<[u32; 3]> {
        let mut ids = [NONE; 3];
        for (i, text) in texts.into_iter().enumerate() {
            match self.names.acquire(text) {
                Ok(id) => ids[i] = id,
                Err(stdx::interner::Full) => {
                    for id in &ids[..i] {
                        self.names.release(*id);
                    }
                    return None;
                }
            }
        }
        Some(ids)
    }
}

impl Row {
    #[inline]
    fn step_s(&self) -> u32 {
        if self.ring.len() < 2 { STEP_UNKNOWN_S } else { u32::from(self.least_step_s) }
    }
}

impl PointSource for Windows {
    #[inline]
    fn tail(&self, series: SeriesId, count: usize, out: &mut Vec<Point>) {
        if let Some(row) = self.existing(series) {
            out.extend(self.rings.newest_first(row.ring).take(count));
        }
    }

    fn meta(&self, series: SeriesId) -> Option<(CounterType, u32)> {
        self.existing(series).map(|row| (row.counter_type, row.step_s()))
    }

    fn key(&self, series: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        if let Some(row) = self.existing(series) {
            use_key(self.key_of(row));
        }
    }
}

/// Lets a window that was read from a file go on, or begins it anew: its first point since came `distance` seconds
/// after its newest.
#[cold]
fn go_on(row: &mut Row, rings: &Rings, distance: i64) {
    let mut times = rings.newest_first(row.ring).map(|point| point.time);
    let mut newer = times.next();
    let distances = times.map(|time| newer.replace(time).map_or(i64::MAX, |newer| newer - time));
    let period = distances.min().unwrap_or(STEP_USUAL_S);
    if distance > period {
        rings.clear(&mut row.ring);
    }
    row.restored = false;
}

#[inline]
fn hash_of(hasher: &RandomState, key: SeriesKey<'_>) -> u64 {
    hasher.hash_one((key.endpoint, key.metric, key.tags.as_str()))
}

#[inline]
fn key_in<'n>(names: &'n Interner, row: &Row) -> SeriesKey<'n> {
    let [endpoint, metric, tags] = [row.endpoint, row.metric, row.tags].map(|id| names.text(id));
    SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) }
}

#[cfg(test)]
mod tests;
