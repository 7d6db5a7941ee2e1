//! Hot chunks: the newest points of the series of one shard, in memory, for the judge, for queries, and until flushed.
//!
//! Why: points are kept once. The judge's window is the tail of the same chunk that the next flush writes to disk.
//! How: a 32-byte [`Head`] per series, in pages of 256 neighbours, holds the newest point and the end of a chain of
//! arena blocks with the records of the points before (`chunk.rs`). A point that is older than the newest is worked in
//! by taking the newer ones off and putting them back. Points that do not fit there (older than the chain, later than
//! the window, or already flushed past) wait in a sorted side table and go to disk with the next flush.
//! Points that are further ahead than a clock which is right can tell are *set aside* when one comes that is not: they
//! leave the chain for the side table (or are in blocks already), so that the newest point of the chain, and the window
//! of the judge, is again what comes. Else a clock that was ahead for a minute would keep all later points from being
//! the newest for as long as it was ahead.
//! Points in blocks that a start takes for ahead stay there. What comes of times before them, when they are ahead no
//! longer or is ahead itself, is late, as if they were in the chain: it may be a repetition of one of them.
//! Invariants: times in a chain strictly ascend; between the later of (its oldest point, newest − late window) and its
//! newest point a chain is complete, that is, no disk need be asked, unless the series came in `with_past`; what is not
//! yet durable in a block is in a chain after `flushed` or in a side table; nothing is allocated per point in the
//! steady state; no clock.
//! Memory: 32 bytes + blocks per series, 16 bytes per 256 ids ever given; `side` is bounded by the flush it triggers.
//! Shown as `hot_bytes`.

use super::arena::{self, Arena, NONE};
use super::chunk::{Cursor, PAD};
use crate::series::Meta;
use crate::sizes::GROUP;
use std::collections::BTreeMap;

/// Points that the judge may look back on at least: the original keeps 11 points, N reaches 10 there.
const KEPT_POINTS_MIN: usize = 16;

/// An agent's usual step.
const USUAL_STEP_S: usize = 60;

/// The state of one series. Plain data; all zero is "no such series".
#[derive(Clone, Copy)]
#[repr(C)]
struct Head {
    /// The newest value. While there is no point: since when that is known to be so, NaN if nobody looked yet.
    value: f64,
    /// 0 is "no point yet": the door lets no point of 1970-01-01 00:00 in.
    time: u32,
    run: u32,
    last_block: u32,
    /// Points up to here are in blocks on disk or in a side table.
    flushed: u32,
    /// `Meta::pack`; 0 for a series that is not here.
    meta: u32,
    /// Bytes of the last block in use.
    used: u8,
    /// Blocks may hold any points of it that the chain does not.
    with_past: bool,
    /// Points were set aside that may be newer than those of the chain.
    set_aside: bool,
    /// Points were set aside while a flush was under way: what it tells of the chain is of before.
    rewound: bool,
}

const _: () = assert!(size_of::<Head>() == 32);

const NO_HEAD: Head = Head {
    value: 0.0,
    time: 0,
    run: 0,
    last_block: 0,
    flushed: 0,
    meta: 0,
    used: 0,
    with_past: false,
    set_aside: false,
    rewound: false,
};

/// The heads of 256 neighbouring slots.
#[derive(Default)]
struct Group {
    /// The page of heads; none while no slot has a series.
    heads: Option<Box<[Head; GROUP as usize]>>,
    series: u16,
}

/// The fate of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Newest,
    /// Kept, out of order.
    Late,
    Duplicate,
    /// The series is not here (removed meanwhile).
    Unknown,
}

/// Seconds that points stay in a chain, and may come late; see `Options`.
#[derive(Clone, Copy)]
pub struct Spans {
    pub hot_s: u32,
    pub late_s: u32,
    /// Bytes of unflushed points up to which points that no block has may be set aside; past them the next flush comes
    /// first.
    pub aside_bytes: usize,
}

impl Spans {
    /// Points that stay in memory however slow their series is: a rule may ask for what the window holds at the usual
    /// step, and whoever saves the rule does not know which series will match it. No series costs more by it than one
    /// at the usual step.
    pub fn kept_points(self) -> usize {
        (self.hot_s as usize / USUAL_STEP_S + 1).max(KEPT_POINTS_MIN)
    }
}

#[derive(PartialEq)]
enum Fit {
    Known,
    /// Between two points of the chain, and near enough.
    Between,
    No,
}

/// Late points by (slot, time).
type Side = BTreeMap<(u32, u32), f64>;

/// A late point in a side table: key, value, and the tree's share per entry.
const SIDE_ENTRY_BYTES: usize = 32;

/// An entry of `since` or `ahead`, its share of the tree included.
const SINCE_BYTES: usize = 16;

/// The hot chunks of one shard.
pub struct Hot {
    windows: Spans,
    arena: Arena,
    groups: Vec<Group>,
    /// Where the windows of series begin that were a counter and are a gauge now, or the other way round, by slot.
    since: BTreeMap<u32, u32>,
    side: Side,
    /// Newest time in blocks of series that had points ahead there at the start, by slot, until they have a newer one.
    ahead: BTreeMap<u32, u32>,
    /// The side table that the flush under way writes.
    side_flushing: Side,
    flushing: bool,
    points: u64,
    /// Bytes that points have taken since the last flush began.
    new_bytes: usize,
    /// Bytes of the points that the flush under way writes.
    flushing_bytes: usize,
    /// Points taken off while a late one is put in, or set aside.
    taken_off: Vec<(u32, f64)>,
    /// Points set aside since the start.
    set_aside: u64,
    /// Whether points are to be set aside that no block has, and there is no room beside the chains.
    wants_flush: bool,
}

impl Hot {
    /// A shard without series. `windows` says how far back memory reaches.
    pub fn new(windows: Spans) -> Hot {
        Hot {
            windows,
            arena: Arena::default(),
            groups: Vec::new(),
            since: BTreeMap::new(),
            side: Side::new(),
            ahead: BTreeMap::new(),
            side_flushing: Side::new(),
            flushing: false,
            points: 0,
            new_bytes: 0,
            flushing_bytes: 0,
            taken_off: Vec::new(),
            set_aside: 0,
            wants_flush: false,
        }
    }

    /// Makes the series in `slot` known: without a point, `silent_since` then or (NaN) since the next look of
    /// `may_sleep`; `with_past` if blocks may hold points of it.
    pub fn begin(&mut self, slot: u32, meta: Meta, silent_since: f64, with_past: bool) {
        let number = (slot / GROUP) as usize;
        if self.groups.len() <= number {
            self.groups.resize_with(number + 1, Group::default);
        }
        let group = &mut self.groups[number];
        let heads = group.heads.get_or_insert_with(|| Box::new([NO_HEAD; GROUP as usize]));
        let head = &mut heads[(slot % GROUP) as usize];
        if head.meta == 0 {
            *head = Head { value: silent_since, last_block: NONE, meta: meta.pack(), with_past, ..NO_HEAD };
            group.series += 1;
        }
    }

    /// Changes the type and step of a series.
    pub fn set_meta(&mut self, slot: u32, meta: Meta) {
        let Some(head) = self.head(slot) else { return };
        if head.time != 0 && head.meta >> 2 != meta.step {
            self.change_step(slot, meta.step);
        }
        self.head_mut(slot).meta = meta.pack();
    }

    /// Sets the time at which the window of a series begins; 0 for all of its points.
    pub fn set_since(&mut self, slot: u32, since: u32) {
        if since == 0 {
            self.since.remove(&slot);
        } else if self.head(slot).is_some() {
            self.since.insert(slot, since);
        }
    }

    /// Time at which the window of a series begins.
    #[inline]
    pub fn since(&self, slot: u32) -> u32 {
        if self.since.is_empty() { 0 } else { self.since.get(&slot).copied().unwrap_or(0) }
    }

    /// Forgets a series and all its points.
    pub fn remove(&mut self, slot: u32) {
        let Some(head) = self.head(slot).copied() else { return };
        if head.time != 0 {
            self.points -= self.walk(slot).count() as u64;
            self.arena.give_back_chain(head.last_block);
        }
        for side in [&mut self.side, &mut self.side_flushing] {
            let times: Vec<(u32, u32)> = side.range((slot, 0)..=(slot, u32::MAX)).map(|(key, _)| *key).collect();
            self.points -= times.len() as u64;
            for key in times {
                side.remove(&key);
            }
        }
        self.since.remove(&slot);
        self.ahead.remove(&slot);
        *self.head_mut(slot) = NO_HEAD;
        let group = &mut self.groups[(slot / GROUP) as usize];
        group.series -= 1;
        if group.series == 0 {
            group.heads = None;
        }
    }

    /// The newest time that the series had, or an upper bound, if it may leave memory: silent since `limit`, and
    /// everything in blocks. Not while a flush is on its way, which has its own notes of what it wrote.
    pub fn may_sleep(&mut self, slot: u32, limit: u32, now: i64) -> Option<u32> {
        if self.flushing {
            return None;
        }
        let has_late = !self.side.is_empty() && self.side.range((slot, 0)..=(slot, u32::MAX)).next().is_some();
        let head = find_mut(&mut self.groups, slot)?;
        if head.time == 0 {
            // Without a point there are no late ones.
            if head.value.is_nan() {
                head.value = now as f64;
            }
            return (head.value <= f64::from(limit)).then_some(limit);
        }
        (head.time <= limit && head.time <= head.flushed && !has_late).then_some(head.time)
    }

    /// Whether a flush is under way.
    pub fn is_flushing(&self) -> bool {
        self.flushing
    }

    /// The newest time of any series.
    pub fn newest_of_all(&self) -> u32 {
        let heads = self.groups.iter().filter_map(|group| group.heads.as_deref());
        heads.flatten().map(|head| head.time).max().unwrap_or(0)
    }

    /// Gives back what a larger past needed.
    pub fn shrink(&mut self) {
        self.arena.give_back_empty_pages();
        if self.arena.is_sparse() {
            self.compact();
        }
    }

    /// Copies the chains together: what was trimmed of many leaves holes in every page. Takes as much as what lives,
    /// meanwhile.
    fn compact(&mut self) {
        let mut arena = Arena::default();
        let heads = self.groups.iter_mut().filter_map(|group| group.heads.as_deref_mut()).flatten();
        for head in heads.filter(|head| head.meta != 0 && head.time != 0 && head.last_block != NONE) {
            head.last_block = arena.copy_chain(&self.arena, head.last_block);
        }
        self.arena = arena;
    }

    /// The head of a series that is here.
    #[inline]
    fn head(&self, slot: u32) -> Option<&Head> {
        let heads = self.groups.get((slot / GROUP) as usize)?.heads.as_deref()?;
        Some(&heads[(slot % GROUP) as usize]).filter(|head| head.meta != 0)
    }

    fn head_mut(&mut self, slot: u32) -> &mut Head {
        find_mut(&mut self.groups, slot).expect("the series is here")
    }

    /// Type and step of the series in a slot.
    pub fn meta(&self, slot: u32) -> Option<Meta> {
        Meta::unpack(self.head(slot)?.meta)
    }

    /// Puts a point in; `time` is not 0. `latest` is the latest time that a clock which is right can tell.
    #[inline]
    pub fn append(&mut self, slot: u32, time: u32, value: f64, latest: u32) -> Outcome {
        let Some(head) = find_mut(&mut self.groups, slot) else { return Outcome::Unknown };
        if time > head.time {
            if head.set_aside && is_behind_blocks(&mut self.ahead, slot, time, latest) {
                return self.append_aside(slot, time, value);
            }
            put(head, &mut self.arena, &mut self.new_bytes, time, value);
        } else if head.time > latest && time <= latest && self.set_ahead_aside(slot, latest) {
            return self.append(slot, time, value, latest);
        } else {
            return self.append_late(slot, time, value);
        }
        self.points += 1;
        Outcome::Newest
    }

    /// Takes the points later than `latest` off a chain; false where that must wait for a flush.
    #[cold]
    fn set_ahead_aside(&mut self, slot: u32, latest: u32) -> bool {
        let head = *self.head_mut(slot);
        let mut aside = std::mem::take(&mut self.taken_off);
        aside.extend(self.walk(slot).take_while(|(time, _)| *time > latest));
        // Those that a flush under way writes count as written when it is done.
        let unflushed = aside.iter().take_while(|(time, _)| *time > head.flushed).count();
        let has_room = unflushed == 0 || self.unflushed_bytes() <= self.windows.aside_bytes;
        if has_room {
            self.take_off(slot, aside.len());
            for (time, value) in &aside[..unflushed] {
                self.points += u64::from(self.side.insert((slot, *time), *value).is_none());
                self.new_bytes += SIDE_ENTRY_BYTES;
            }
            self.set_aside += aside.len() as u64;
            let flushing = self.flushing;
            let head = self.head_mut(slot);
            (head.with_past, head.set_aside) = (true, true);
            head.rewound |= flushing;
        }
        self.wants_flush |= !has_room;
        aside.clear();
        self.taken_off = aside;
        has_room
    }

    /// Takes the newest `count` points off a chain, all of them if it has no more.
    fn take_off(&mut self, slot: u32, count: usize) {
        let head = *self.head_mut(slot);
        self.points -= count as u64;
        if self.walk(slot).nth(count).is_some() {
            (0..count).for_each(|_| _ = self.pop(slot));
            // Taking off may have crossed a change of step.
            self.change_step(slot, head.meta >> 2);
        } else {
            self.arena.give_back_chain(head.last_block);
            let empty = Head { value: f64::NAN, last_block: NONE, flushed: head.flushed, meta: head.meta, ..NO_HEAD };
            *self.head_mut(slot) = Head { with_past: head.with_past, rewound: head.rewound, ..empty };
        }
        // What the chain gets from here on is in no block yet.
        let head = self.head_mut(slot);
        head.flushed = head.flushed.min(head.time);
    }

    /// Notes that blocks hold points of the series that are further ahead than the chain, up to `newest`; only while
    /// the store opens.
    pub fn note_set_aside(&mut self, slot: u32, newest: u32) {
        if let Some(head) = find_mut(&mut self.groups, slot) {
            (head.with_past, head.set_aside) = (true, true);
            let known = self.ahead.entry(slot).or_insert(newest);
            *known = newest.max(*known);
        }
    }

    /// Points set aside since the start.
    pub fn set_aside(&self) -> u64 {
        self.set_aside
    }

    /// Whether a flush is to come soon, so that points can be set aside.
    pub fn wants_flush(&self) -> bool {
        self.wants_flush
    }

    /// Puts in a point that is in a block on disk; only while the store opens.
    pub fn load_flushed(&mut self, slot: u32, time: u32, value: f64) {
        match self.newest(slot) {
            Some((newest, _)) if newest >= time => {
                if self.fits(slot, time) == Fit::Between {
                    self.insert(slot, time, value);
                    self.points += 1;
                }
            }
            _ => {
                let Some(head) = find_mut(&mut self.groups, slot) else { return };
                put(head, &mut self.arena, &mut self.new_bytes, time, value);
                head.flushed = time;
                head.with_past = head.set_aside;
                self.points += 1;
            }
        }
    }

    fn append_late(&mut self, slot: u32, time: u32, value: f64) -> Outcome {
        let fit = self.fits(slot, time);
        let in_side = self.side.contains_key(&(slot, time)) || self.side_flushing.contains_key(&(slot, time));
        if fit == Fit::Known || in_side {
            return Outcome::Duplicate;
        }
        if fit == Fit::Between {
            self.insert(slot, time, value);
            self.points += 1;
        }
        // A flush under way may have passed this time already.
        if fit == Fit::No || time <= self.head_mut(slot).flushed || self.flushing {
            self.append_aside(slot, time, value);
        }
        Outcome::Late
    }

    /// Puts a point into the side table, unless one of its time is there.
    fn append_aside(&mut self, slot: u32, time: u32, value: f64) -> Outcome {
        if self.side.contains_key(&(slot, time)) || self.side_flushing.contains_key(&(slot, time)) {
            return Outcome::Duplicate;
        }
        self.side.insert((slot, time), value);
        self.new_bytes += SIDE_ENTRY_BYTES;
        self.points += 1;
        Outcome::Late
    }

    /// Finds where a point belongs that is not newer than the newest. Looks back no further than the windows, so that
    /// one late sender cannot make every point cost a walk down a long chain.
    fn fits(&self, slot: u32, time: u32) -> Fit {
        let Some(behind) = self.head(slot).map(|head| head.time - time) else { return Fit::No };
        if behind > self.windows.hot_s.max(self.windows.late_s) {
            return Fit::No;
        }
        for (known, _) in self.walk(slot) {
            if known == time {
                return Fit::Known;
            }
            if known < time {
                return if behind <= self.windows.late_s { Fit::Between } else { Fit::No };
            }
        }
        Fit::No
    }

    /// Works a point into the chain, between two that are there.
    fn insert(&mut self, slot: u32, time: u32, value: f64) {
        let step = self.head_mut(slot).meta >> 2;
        let mut taken_off = std::mem::take(&mut self.taken_off);
        while self.head_mut(slot).time > time {
            taken_off.push(self.pop(slot));
        }
        // Taking off may have crossed a change of step.
        self.change_step(slot, step);
        let head = find_mut(&mut self.groups, slot).expect("the series is here");
        push(head, &mut self.arena, &mut self.new_bytes, time, value);
        while let Some((time, value)) = taken_off.pop() {
            push(head, &mut self.arena, &mut self.new_bytes, time, value);
        }
        self.taken_off = taken_off;
    }

    fn change_step(&mut self, slot: u32, step: u32) {
        let head = find_mut(&mut self.groups, slot).expect("the series is here");
        let mut cursor = head.cursor();
        let (arena, new_bytes) = (&mut self.arena, &mut self.new_bytes);
        let (mut last_block, mut used) = (head.last_block, head.used);
        cursor.change_step(step, |record| write_record(arena, &mut last_block, &mut used, new_bytes, record));
        (head.last_block, head.used) = (last_block, used);
        head.set(cursor);
    }

    /// Takes the newest point off a chain that has an older one.
    fn pop(&mut self, slot: u32) -> (u32, f64) {
        let mut walk = self.walk(slot);
        let newest = walk.next().expect("the chain has points");
        walk.next().expect("the chain has an older point");
        let (cursor, block, used) = (walk.cursor, walk.block, walk.used);
        let head = find_mut(&mut self.groups, slot).expect("the series is here");
        while head.last_block != block {
            let last = head.last_block;
            head.last_block = self.arena.block(last).before;
            self.arena.give_back(last);
        }
        if block != NONE {
            // What was read becomes padding again.
            self.arena.block_mut(block).payload[usize::from(used)..].fill(PAD);
        }
        head.used = used;
        head.set(cursor);
        newest
    }

    /// Points of a series' chain, newest first.
    pub fn walk(&self, slot: u32) -> HotWalk<'_> {
        let head = self.head(slot).copied().unwrap_or(NO_HEAD);
        HotWalk {
            arena: &self.arena,
            cursor: head.cursor(),
            block: if head.time == 0 { NONE } else { head.last_block },
            used: head.used,
            at: if head.time == 0 { At::End } else { At::Start },
        }
    }

    /// Points of a series' window, newest first: those of its chain that are of the kind that it is now.
    #[inline]
    pub fn window(&self, slot: u32) -> impl Iterator<Item = (u32, f64)> {
        let since = self.since(slot);
        self.walk(slot).take_while(move |(time, _)| *time >= since)
    }

    /// Time and value of the newest point of a series.
    pub fn newest(&self, slot: u32) -> Option<(u32, f64)> {
        let head = self.head(slot)?;
        (head.time != 0).then_some((head.time, head.value))
    }

    /// The newest point of the chain, where no disk can have a newer one of the series, nor one is set aside.
    pub fn known_newest(&self, slot: u32) -> Option<(u32, f64)> {
        let head = self.head(slot)?;
        (head.time != 0 && !head.with_past).then_some((head.time, head.value))
    }

    /// Late points of a series that are not in its chain, or not only there, ascending.
    pub fn side_points(&self, slot: u32, from: u32, to: u32) -> impl Iterator<Item = (u32, f64)> {
        let of = move |side: &'_ Side| {
            let points: Vec<(u32, f64)> =
                side.range((slot, from)..=(slot, to)).map(|((_, time), value)| (*time, *value)).collect();
            points
        };
        let (mut older, newer) = (of(&self.side_flushing), of(&self.side));
        older.extend(newer);
        older.into_iter()
    }

    /// The oldest point of a series that is in no block yet.
    pub fn oldest_unflushed(&self, slot: u32) -> Option<u32> {
        let flushed = self.head(slot).map_or(0, |head| head.flushed);
        let in_chain = self.walk(slot).take_while(|(time, _)| *time > flushed).last();
        let late = self.side_points(slot, 0, u32::MAX);
        in_chain.into_iter().chain(late).map(|(time, _)| time).min()
    }

    /// Whether the two newest points of the chain are the two newest of the series, but for what was set aside.
    pub fn knows_newest_two(&self, slot: u32) -> bool {
        self.head(slot).is_some_and(|head| !head.with_past || head.set_aside) && self.walk(slot).nth(1).is_some()
    }

    /// Whether a chain needs no help from the disk for `from` and later. Walks no further than the late window: a
    /// series that never changes has months of points in one run.
    pub fn is_complete_from(&self, slot: u32, from: u32) -> bool {
        let near = |head: &Head| !head.with_past && from >= head.time.saturating_sub(self.windows.late_s);
        self.head(slot).is_some_and(near) && self.walk(slot).any(|(time, _)| time <= from)
    }

    /// Number of points in memory.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// Bytes that points have taken since the last flush began.
    pub fn new_bytes(&self) -> usize {
        self.new_bytes
    }

    /// Bytes of points that are in no block yet, those of a flush under way included.
    pub fn unflushed_bytes(&self) -> usize {
        self.new_bytes + self.flushing_bytes
    }

    /// Notes that all points so far are in blocks; only while the store opens.
    pub fn forget_new_bytes(&mut self) {
        self.new_bytes = 0;
    }

    /// Bytes of heads and points.
    pub fn memory_bytes(&self) -> usize {
        self.head_bytes() + self.chunk_bytes()
    }

    /// The heads, which know the newest point of each series.
    pub fn head_bytes(&self) -> usize {
        let pages = self.groups.iter().filter(|group| group.heads.is_some()).count();
        self.groups.capacity() * size_of::<Group>()
            + pages * size_of::<[Head; GROUP as usize]>()
            + (self.since.len() + self.ahead.len()) * SINCE_BYTES
    }

    /// Bytes of the points behind the newest, and of late points.
    pub fn chunk_bytes(&self) -> usize {
        self.arena.memory_bytes()
            + (self.side.len() + self.side_flushing.len()) * SIDE_ENTRY_BYTES
            + self.taken_off.capacity() * 16
    }

    /// Begins a flush: until `flush_end`, late points also go to the side table, as the flush may have passed them.
    pub fn flush_begin(&mut self) {
        debug_assert!(!self.flushing && self.side_flushing.is_empty());
        self.side_flushing = std::mem::take(&mut self.side);
        self.flushing = true;
        self.wants_flush = false;
        self.flushing_bytes = std::mem::take(&mut self.new_bytes);
    }

    /// Appends to `out`, ascending, the points of `slot` that are not yet in a block. Returns the time of the newest
    /// one in the chain, for `flush_done`.
    pub fn unflushed(&self, slot: u32, out: &mut Vec<(u32, f64)>) -> u32 {
        let Some(head) = self.head(slot) else { return 0 };
        let start = out.len();
        if head.time > head.flushed {
            out.extend(self.walk(slot).take_while(|(time, _)| *time > head.flushed));
            out[start..].reverse();
        }
        let side = self.side_flushing.range((slot, 0)..=(slot, u32::MAX));
        let before = out.len();
        out.extend(side.map(|((_, time), value)| (*time, *value)));
        if out.len() > before && before > start {
            out[start..].sort_by_key(|(time, _)| *time);
        }
        head.time
    }

    /// The points that `unflushed` gave, up to `newest`, are durable: old ones may go.
    pub fn flush_done(&mut self, slot: u32, newest: u32) {
        let Some(head) = find_mut(&mut self.groups, slot).filter(|head| head.time != 0) else { return };
        if std::mem::take(&mut head.rewound) {
            // What the chain has now is written again by the next flush; equal times count once.
            return;
        }
        head.flushed = head.flushed.max(newest);
        self.trim(slot);
    }

    /// Ends a flush. After a failed one the late points go back to wait for the next.
    pub fn flush_end(&mut self, done: bool) {
        self.flushing = false;
        let flushed_bytes = std::mem::take(&mut self.flushing_bytes);
        let written = std::mem::take(&mut self.side_flushing);
        if done {
            self.points -= written.len() as u64;
        } else {
            self.side.extend(written);
            self.new_bytes += flushed_bytes;
        }
    }

    /// Drops blocks of a chain that hold only flushed points behind the hot window and beyond the kept minimum.
    fn trim(&mut self, slot: u32) {
        let Some(head) = self.head(slot) else { return };
        let keep_from = head.time.saturating_sub(self.windows.hot_s).min(head.flushed);
        self.trim_before(slot, keep_from, self.windows.kept_points());
    }

    /// Drops flushed points of a series that no rule looks at, whatever the hot window; what a rule that comes later
    /// asks for at least stays.
    pub fn trim_to_last(&mut self, slot: u32) {
        let Some(head) = self.head(slot) else { return };
        self.trim_before(slot, head.flushed.min(head.time), KEPT_POINTS_MIN);
    }

    /// Drops blocks of a chain that hold only points before `keep_from` and beyond the newest `kept_points`.
    fn trim_before(&mut self, slot: u32, keep_from: u32, kept_points: usize) {
        let mut walk = self.walk(slot);
        let mut seen = 0;
        let cut = loop {
            match walk.next() {
                None => return,
                Some((time, _)) if seen >= kept_points && time < keep_from => break walk.block,
                Some(_) => seen += 1,
            }
        };
        if cut == NONE {
            return;
        }
        let dropped = self.arena.block(cut).before;
        if dropped == NONE {
            return;
        }
        let all = self.walk(slot).count();
        self.arena.block_mut(cut).before = NONE;
        self.arena.give_back_chain(dropped);
        self.points -= (all - self.walk(slot).count()) as u64;
    }
}

impl Head {
    #[inline]
    fn cursor(&self) -> Cursor {
        Cursor { time: self.time, run: self.run, value: self.value, step: self.meta >> 2 }
    }

    #[inline]
    fn set(&mut self, cursor: Cursor) {
        self.time = cursor.time;
        self.run = cursor.run;
        self.value = cursor.value;
        self.meta = cursor.step << 2 | self.meta & 3;
    }
}

/// The head of a series that is here.
#[inline]
fn find_mut(groups: &mut [Group], slot: u32) -> Option<&mut Head> {
    let heads = groups.get_mut((slot / GROUP) as usize)?.heads.as_deref_mut()?;
    Some(&mut heads[(slot % GROUP) as usize]).filter(|head| head.meta != 0)
}

/// Whether a point lies before one that blocks have ahead, and does not show by its time that the clock of that was
/// wrong. One that lies behind them ends the note of them.
#[cold]
fn is_behind_blocks(ahead: &mut BTreeMap<u32, u32>, slot: u32, time: u32, latest: u32) -> bool {
    let Some(newest) = ahead.get(&slot).copied() else { return false };
    if time > newest {
        ahead.remove(&slot);
    }
    time <= newest && !(time <= latest && latest < newest)
}

/// Puts a point behind the newest, or as the first.
#[inline]
fn put(head: &mut Head, arena: &mut Arena, new_bytes: &mut usize, time: u32, value: f64) {
    if head.time == 0 {
        (head.time, head.value, head.last_block) = (time, value, NONE);
    } else {
        push(head, arena, new_bytes, time, value);
    }
}

#[inline]
fn push(head: &mut Head, arena: &mut Arena, new_bytes: &mut usize, time: u32, value: f64) {
    let mut cursor = head.cursor();
    let (mut last_block, mut used) = (head.last_block, head.used);
    cursor.append(time, value, |record| write_record(arena, &mut last_block, &mut used, new_bytes, record));
    (head.last_block, head.used) = (last_block, used);
    head.set(cursor);
}

#[inline]
fn write_record(arena: &mut Arena, last_block: &mut u32, used: &mut u8, new_bytes: &mut usize, record: &[u8]) {
    let mut start = usize::from(*used);
    if *last_block == NONE || start + record.len() > arena::PAYLOAD {
        *last_block = arena.take(*last_block);
        *new_bytes += size_of::<arena::Block>();
        start = 0;
    }
    let end = start + record.len();
    arena.block_mut(*last_block).payload[start..end].copy_from_slice(record);
    *used = end as u8;
}

#[derive(Clone, Copy, PartialEq)]
enum At {
    Start,
    Inside,
    End,
}

/// A walk down a chain, newest first.
pub struct HotWalk<'a> {
    arena: &'a Arena,
    cursor: Cursor,
    block: u32,
    used: u8,
    at: At,
}

impl HotWalk<'_> {
    fn back(&mut self) -> Option<()> {
        if self.cursor.back_in_run() {
            return Some(());
        }
        loop {
            if self.block == NONE {
                return None;
            }
            let block = self.arena.block(self.block);
            while self.used > 0 && block.payload[usize::from(self.used) - 1] == PAD {
                self.used -= 1;
            }
            if self.used == 0 {
                self.block = block.before;
                self.used = arena::PAYLOAD as u8;
                continue;
            }
            let (len, moved) = self.cursor.back(&block.payload[..usize::from(self.used)])?;
            self.used -= len as u8;
            if moved {
                return Some(());
            }
        }
    }
}

impl Iterator for HotWalk<'_> {
    type Item = (u32, f64);

    fn next(&mut self) -> Option<(u32, f64)> {
        match self.at {
            At::End => return None,
            At::Start => self.at = At::Inside,
            At::Inside => {
                if self.back().is_none() {
                    self.at = At::End;
                    return None;
                }
            }
        }
        Some((self.cursor.time, self.cursor.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::CounterType;

    const LATEST: u32 = 1300;

    /// What a flush that is under way has noted of a chain does not count for what came since.
    #[test]
    fn points_that_come_while_a_flush_sets_others_aside_are_written_by_the_next() {
        let mut hot = Hot::new(Spans { hot_s: 7200, late_s: 3600, aside_bytes: 1 << 20 });
        hot.begin(0, Meta { counter_type: CounterType::Gauge, step: 60 }, f64::NAN, false);
        let mut written = std::collections::BTreeSet::new();
        let mut flush = |hot: &mut Hot, meanwhile: &[u32]| {
            hot.flush_begin();
            let mut points = Vec::new();
            let newest = hot.unflushed(0, &mut points);
            for time in meanwhile {
                assert_eq!(hot.append(0, *time, 1.0, LATEST), Outcome::Newest);
            }
            hot.flush_done(0, newest);
            hot.flush_end(true);
            written.extend(points.iter().map(|(time, _)| *time));
            written.len()
        };
        for time in [900, 20_000, 20_060] {
            assert_eq!(hot.append(0, time, 1.0, u32::MAX), Outcome::Newest);
        }
        assert_eq!(flush(&mut hot, &[960, 1020]), 3);
        assert_eq!(flush(&mut hot, &[1080]), 5);
        assert_eq!(flush(&mut hot, &[]), 6);
        assert!(hot.walk(0).map(|(time, _)| time).eq([1080, 1020, 960, 900]));
        // Everything is written, and nothing waits.
        assert_eq!(hot.oldest_unflushed(0), None);
    }

    #[test]
    fn without_room_a_flush_comes_first() {
        let mut hot = Hot::new(Spans { hot_s: 7200, late_s: 3600, aside_bytes: 0 });
        hot.begin(0, Meta { counter_type: CounterType::Gauge, step: 60 }, f64::NAN, false);
        for time in (20_000..40_000).step_by(7) {
            assert_eq!(hot.append(0, time, f64::from(time) * 1.7, u32::MAX), Outcome::Newest);
        }
        assert_eq!(hot.append(0, 960, 1.0, LATEST), Outcome::Late);
        assert!(hot.wants_flush());
        hot.flush_begin();
        let newest = hot.unflushed(0, &mut Vec::new());
        hot.flush_done(0, newest);
        hot.flush_end(true);
        assert_eq!(hot.append(0, 1020, 1.0, LATEST), Outcome::Newest);
        assert!(hot.walk(0).map(|(time, _)| time).eq([1020]) && !hot.wants_flush());
    }
}
