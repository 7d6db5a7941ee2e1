//! Series table: the name of each series, by id and by name; the one place where its texts are.
//!
//! Why: every text of a point dies at the door; from there on a series is a `SeriesId(u32)`. Series that are removed or
//! fall asleep leave the table, so that it costs what lives, not what ever was.
//! How: endpoints and counters (`counters.rs`) are interned apart, because hosts share their counters. A series is a
//! 20-byte [`Record`] in a page of 256 neighbouring ids; a hash table of ids finds it by name. Two chains through the
//! records lead from an endpoint and from a counter to their series. A record that goes is first *dead*: not found any
//! more, but still on its chains, which [`Table::sweep`] clears, each once for all of its dead; then its place, its
//! texts and, with the last of its group, its page are given back.
//! Invariants: ids are given in order from 0, and never twice to different names: blocks on disk may hold points under
//! them; a removed id is remembered as such; endpoint numbers likewise are never given twice; only a sweep takes
//! records off chains or empties their places, so that whoever excludes it may walk a chain in several goes.
//! Memory: 20 (record) + 6 to 11 (hash slot) bytes per series here, plus each endpoint (20 and its text) and counter;
//! 24 bytes per 256 ids ever given, and 32 where one of them was removed. Bounded by `series_max`; shown as
//! `index_bytes`.
//! Compat: endpoint ids as the API shows them are the durable endpoint numbers, from 1 on, in order of first
//! appearance.

use super::counters::{Counters, find_counter, full};
use super::meta::{Found, Meta, NONE};
use super::metas::{self, Past};
use crate::error::Result;
use crate::sizes::GROUP;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use model::{CounterType, SeriesId, SeriesKey, Tags};
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use stdx::Interner;

/// Type bits of a record that is dead.
const DEAD: u32 = 3;
const TYPE: u32 = 3;
/// About to fall asleep: new batches do not find it, those on their way still use its id.
const DROWSY: u32 = 1 << 2;
const ON_ENDPOINT: u32 = 1 << 3;
const ON_COUNTER: u32 = 1 << 4;
const STEP_SHIFT: u32 = 5;

#[derive(Clone, Copy)]
struct Record {
    /// Place of the series' endpoint; `NONE` where no series is.
    endpoint: u32,
    counter: u32,
    /// Step, flags, type.
    meta: u32,
    /// The next series of the same endpoint.
    next_of_endpoint: u32,
    /// The next series of the same counter.
    next_of_counter: u32,
}

const _: () = assert!(size_of::<Record>() == 20);

const EMPTY: Record =
    Record { endpoint: NONE, counter: NONE, meta: DEAD, next_of_endpoint: NONE, next_of_counter: NONE };

impl Record {
    fn meta(&self) -> Option<Meta> {
        let counter_type = CounterType::from_u8((self.meta & TYPE) as u8)?;
        Some(Meta { counter_type, step: self.meta >> STEP_SHIFT })
    }

    fn set_meta(&mut self, meta: Meta) {
        let flags = self.meta & (DROWSY | ON_ENDPOINT | ON_COUNTER);
        self.meta = meta.step << STEP_SHIFT | flags | meta.counter_type as u32;
    }

    fn is_dead(&self) -> bool {
        self.meta & TYPE == DEAD
    }

    fn has(&self, flag: u32) -> bool {
        self.meta & flag != 0
    }
}

/// 256 neighbouring ids.
#[derive(Default)]
struct Group {
    /// The page of records; none while the group is empty.
    records: Option<Box<[Record; GROUP as usize]>>,
    /// Places that are not empty.
    used: u16,
    /// Ids that were removed, one bit each.
    removed: Option<Box<[u64; 4]>>,
}

/// An endpoint that a record holds.
#[derive(Clone, Copy)]
struct Endpoint {
    number: u32,
    first: u32,
    /// Count of the endpoint's series that are not dead.
    live: u32,
    /// Records on its chain that are to be swept off.
    dead: u32,
}

/// All series in memory, and the ids that were removed.
#[derive(Default)]
pub struct Table {
    /// Names of endpoints; the ids are their places in `endpoints`, given anew when an endpoint goes.
    names: Interner,
    endpoints: Vec<Endpoint>,
    /// Places of endpoints by number: in order of first appearance.
    by_number: BTreeMap<u32, u32>,
    counters: Counters,
    groups: Vec<Group>,
    /// Id above every one that was ever seen.
    end: u32,
    ids: HashTable<u32>,
    hasher: RandomState,
    live: usize,
    live_endpoints: usize,
    removed: u64,
    /// What series were that changed their type or step, awake or asleep, by id.
    past: BTreeMap<u32, Vec<Past>>,
    /// Ids of dead records, for the next sweep.
    dead: Vec<u32>,
    dirty_endpoints: Vec<u32>,
    dirty_counters: Vec<u32>,
}

impl Table {
    /// An id above every one that was ever given.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Notes that ids below `end` are given, also if nothing of them is left.
    pub fn set_end(&mut self, end: u32) {
        self.end = self.end.max(end);
        let groups = self.end.div_ceil(GROUP) as usize;
        if self.groups.len() < groups {
            self.groups.resize_with(groups, Group::default);
        }
    }

    /// Number of living series.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Number of endpoints that have a living series.
    pub fn live_endpoints(&self) -> usize {
        self.live_endpoints
    }

    /// The place of an endpoint, as long as a series of it is here.
    pub fn place_of(&self, endpoint: &str) -> Option<u32> {
        self.names.find(endpoint)
    }

    /// The name of an endpoint by its place; nonsense, but no panic, for a place that was given up.
    pub fn endpoint(&self, place: u32) -> &str {
        if self.names.holders(place) > 0 { self.names.text(place) } else { "" }
    }

    /// Count of the living series of the endpoint in a place.
    pub fn live_of(&self, place: u32) -> u32 {
        self.endpoints[place as usize].live
    }

    /// Number of the endpoint in a place: durable, from 1 on.
    pub fn endpoint_number(&self, place: u32) -> u32 {
        self.endpoints[place as usize].number
    }

    /// The place of an endpoint that has a living series here.
    pub fn place_of_number(&self, number: u32) -> Option<u32> {
        self.by_number.get(&number).copied().filter(|place| self.endpoints[*place as usize].live > 0)
    }

    /// Numbers and places of the endpoints from `number` on that have a living series here, ascending.
    pub fn endpoints_from(&self, number: u32) -> impl Iterator<Item = (u32, u32)> {
        let all = self.by_number.range(number..).map(|(number, place)| (*number, *place));
        all.filter(|(_, place)| self.endpoints[*place as usize].live > 0)
    }

    /// Finds a series for a new batch, whose endpoint has this place: not one that is about to fall asleep.
    #[inline]
    pub fn find_of(&self, place: u32, metric: &str, tags: &str) -> Option<Found> {
        let (id, record) = self.find_record(place, metric, tags)?;
        let meta = record.meta().filter(|_| !record.has(DROWSY))?;
        Some(Found::new(SeriesId(id), meta))
    }

    /// Finds a series, also one that is about to fall asleep.
    pub fn find_drowsy_of(&self, place: u32, metric: &str, tags: &str) -> Option<Found> {
        let (id, record) = self.find_record(place, metric, tags)?;
        Some(Found::new(SeriesId(id), record.meta()?))
    }

    /// Finds a series as [`Table::find_drowsy_of`] does, by the numbers of its metric and tags.
    pub fn find_drowsy_by(&self, place: u32, parts: (u32, u32)) -> Option<Found> {
        let (id, record) = self.find_parts(place, parts)?;
        Some(Found::new(SeriesId(id), record.meta()?))
    }

    /// Numbers of metric and tags for each way in which the text of a counter can be read; what nobody has is left out.
    pub fn readings_of(&self, counter: &str) -> Vec<(u32, u32)> {
        let mut readings = Vec::new();
        find_counter(counter, |metric, tags| -> Option<()> {
            readings.extend(self.counters.parts_of(metric, tags));
            None
        });
        readings
    }

    #[inline]
    fn find_record(&self, place: u32, metric: &str, tags: &str) -> Option<(u32, &Record)> {
        self.find_parts(place, self.counters.parts_of(metric, tags)?)
    }

    #[inline]
    fn find_parts(&self, place: u32, (metric, tags): (u32, u32)) -> Option<(u32, &Record)> {
        let is_it = |id: &u32| {
            self.record(*id)
                .is_some_and(|record| record.endpoint == place && self.counters.parts(record.counter) == (metric, tags))
        };
        let id = *self.ids.find(self.hasher.hash_one((place, metric, tags)), is_it)?;
        Some((id, self.record(id)?))
    }

    /// The record in a place that is not empty.
    #[inline]
    fn record(&self, id: u32) -> Option<&Record> {
        let records = self.groups.get((id / GROUP) as usize)?.records.as_ref()?;
        Some(&records[(id % GROUP) as usize]).filter(|record| record.endpoint != NONE)
    }

    fn record_mut(&mut self, id: u32) -> Option<&mut Record> {
        let records = self.groups.get_mut((id / GROUP) as usize)?.records.as_mut()?;
        Some(&mut records[(id % GROUP) as usize]).filter(|record| record.endpoint != NONE)
    }

    fn live_record(&self, id: u32) -> Option<&Record> {
        self.record(id).filter(|record| !record.is_dead())
    }

    /// Type and step of a series; `None` when there is no such series.
    pub fn meta(&self, id: SeriesId) -> Option<Meta> {
        self.record(id.0)?.meta()
    }

    /// Name of a series; `None` when there is no such series.
    pub fn key(&self, id: SeriesId) -> Option<SeriesKey<'_>> {
        self.live_record(id.0).map(|record| self.key_of(record))
    }

    fn key_of(&self, record: &Record) -> SeriesKey<'_> {
        let (metric, tags) = self.counters.texts(record.counter);
        SeriesKey { endpoint: self.names.text(record.endpoint), metric, tags: Tags::assume_canonical(tags) }
    }

    /// Place of a series' endpoint, and its counter.
    pub fn parts(&self, id: SeriesId) -> Option<(u32, u32)> {
        self.live_record(id.0).map(|record| (record.endpoint, record.counter))
    }

    /// Gives the endpoint a number and a place, which stays until `let_go_endpoint`, and longer if a series of it came.
    pub fn hold_endpoint(&mut self, number: u32, name: &str) -> Result<u32> {
        let place = self.names.acquire(name).map_err(full)?;
        if self.names.holders(place) == 1 {
            let fresh = Endpoint { number, first: NONE, live: 0, dead: 0 };
            if self.endpoints.len() <= place as usize {
                self.endpoints.resize(place as usize + 1, fresh);
            }
            self.endpoints[place as usize] = fresh;
        } else if self.endpoints[place as usize].number != number {
            // Its last series was removed, and it came again.
            self.drop_number(place);
            self.endpoints[place as usize].number = number;
        }
        self.by_number.insert(number, place);
        Ok(place)
    }

    /// Lets go what [`Table::hold_endpoint`] held; an endpoint without a series goes.
    pub fn let_go_endpoint(&mut self, place: u32) {
        if self.names.release(place) {
            self.drop_number(place);
        }
    }

    fn drop_number(&mut self, place: u32) {
        let number = self.endpoints[place as usize].number;
        if self.by_number.get(&number) == Some(&place) {
            self.by_number.remove(&number);
        }
    }

    /// Puts a series that is not here under `id`; ids left out count as lost. `place` is held by the caller. False, and
    /// nothing done, when the id is taken or removed.
    pub fn insert(&mut self, id: SeriesId, place: u32, metric: &str, tags: &str, meta: Meta) -> Result<bool> {
        let fits = self.record(id.0).is_none_or(|record| {
            record.is_dead() && record.endpoint == place && self.counters.texts(record.counter) == (metric, tags)
        });
        if !fits || self.is_removed(id) {
            return Ok(false);
        }
        if self.record(id.0).is_none() {
            let counter = self.counters.acquire(metric, tags)?;
            if let Err(error) = self.names.hold(place) {
                self.counters.release(counter);
                return Err(full(error));
            }
            self.set_end(id.0.saturating_add(1));
            let group = &mut self.groups[(id.0 / GROUP) as usize];
            let records = group.records.get_or_insert_with(|| Box::new([EMPTY; GROUP as usize]));
            records[(id.0 % GROUP) as usize] = Record { endpoint: place, counter, ..EMPTY };
            group.used += 1;
        }
        self.live_again(id.0, meta);
        Ok(true)
    }

    /// Makes a record live that is dead, or was put in just now.
    fn live_again(&mut self, id: u32, meta: Meta) {
        let mut record = *self.record(id).expect("it is there");
        let endpoint = &mut self.endpoints[record.endpoint as usize];
        endpoint.live += 1;
        self.live_endpoints += usize::from(endpoint.live == 1);
        if record.has(ON_ENDPOINT) {
            endpoint.dead -= 1;
        } else {
            record.next_of_endpoint = endpoint.first;
            endpoint.first = id;
        }
        if record.has(ON_COUNTER) {
            *self.counters.dead_mut(record.counter) -= 1;
        } else {
            record.next_of_counter = self.counters.first(record.counter);
            self.counters.set_first(record.counter, id);
        }
        record.set_meta(meta);
        record.meta = (record.meta | ON_ENDPOINT | ON_COUNTER) & !DROWSY;
        *self.record_mut(id).expect("it is there") = record;
        let (groups, counters, hasher) = (&self.groups, &self.counters, &self.hasher);
        let hash_of = |id: &u32| {
            let records = groups[(*id / GROUP) as usize].records.as_ref().expect("whose id is listed has a page");
            let record = &records[(*id % GROUP) as usize];
            let (metric, tags) = counters.parts(record.counter);
            hasher.hash_one((record.endpoint, metric, tags))
        };
        self.ids.insert_unique(hash_of(&id), id, hash_of);
        self.live += 1;
    }

    /// Notes what a series was until its type or step changed; nothing of one that was removed.
    pub fn note_past(&mut self, id: SeriesId, past: Past) {
        if !self.is_removed(id) {
            metas::note(self.past.entry(id.0).or_default(), past);
        }
    }

    /// What a series was before it changed, ascending.
    pub fn past(&self, id: SeriesId) -> &[Past] {
        self.past.get(&id.0).map_or(&[], Vec::as_slice)
    }

    /// All notes of what series were, in order of ids.
    pub fn all_past(&self) -> impl Iterator<Item = (SeriesId, &[Past])> {
        self.past.iter().map(|(id, past)| (SeriesId(*id), past.as_slice()))
    }

    /// Drops the notes that are about times before `oldest` only: no point of then is left.
    pub fn forget_past(&mut self, oldest: i64) {
        self.past.retain(|_, past| {
            past.retain(|past| i64::from(past.until) > oldest);
            !past.is_empty()
        });
    }

    /// Changes type and step of a series; false when there is no such series.
    pub fn set_meta(&mut self, id: SeriesId, meta: Meta) -> bool {
        let record = self.record_mut(id.0).filter(|record| !record.is_dead());
        record.map(|record| record.set_meta(meta)).is_some()
    }

    /// Sets whether a series is about to fall asleep, so that new batches do not find it; false when there is no such
    /// series.
    pub fn set_drowsy(&mut self, id: SeriesId, drowsy: bool) -> bool {
        let Some(record) = self.record_mut(id.0).filter(|record| !record.is_dead()) else { return false };
        record.meta = record.meta & !DROWSY | if drowsy { DROWSY } else { 0 };
        true
    }

    /// Whether a series is about to fall asleep.
    pub fn is_drowsy(&self, id: SeriesId) -> bool {
        self.live_record(id.0).is_some_and(|record| record.has(DROWSY))
    }

    /// Takes a series out of the table, and leaves its record to the next sweep; false when there is no such series.
    pub fn forget(&mut self, id: SeriesId) -> bool {
        let Some(record) = self.live_record(id.0).copied() else { return false };
        let (metric, tags) = self.counters.parts(record.counter);
        let hash = self.hasher.hash_one((record.endpoint, metric, tags));
        if let Ok(slot) = self.ids.find_entry(hash, |other| *other == id.0) {
            slot.remove();
        }
        self.record_mut(id.0).expect("it is there").meta |= DEAD;
        let endpoint = &mut self.endpoints[record.endpoint as usize];
        endpoint.live -= 1;
        self.live_endpoints -= usize::from(endpoint.live == 0);
        endpoint.dead += 1;
        if endpoint.dead == 1 {
            self.dirty_endpoints.push(record.endpoint);
        }
        let dead = self.counters.dead_mut(record.counter);
        *dead += 1;
        if *dead == 1 {
            self.dirty_counters.push(record.counter);
        }
        self.dead.push(id.0);
        self.live -= 1;
        true
    }

    /// Takes a series out for ever: the id counts as removed from now on, also if there is no such series.
    pub fn remove(&mut self, id: SeriesId) {
        self.forget(id);
        self.set_end(id.0.saturating_add(1));
        self.removed += u64::from(!self.is_removed(id));
        self.past.remove(&id.0);
        let removed = self.groups[(id.0 / GROUP) as usize].removed.get_or_insert_default();
        removed[(id.0 % GROUP / 64) as usize] |= 1 << (id.0 % 64);
    }

    /// Whether an id was removed.
    pub fn is_removed(&self, id: SeriesId) -> bool {
        let group = self.groups.get((id.0 / GROUP) as usize);
        let removed = group.and_then(|group| group.removed.as_ref());
        removed.is_some_and(|removed| removed[(id.0 % GROUP / 64) as usize] >> (id.0 % 64) & 1 != 0)
    }

    /// Whether any id was ever removed.
    pub fn has_removed(&self) -> bool {
        self.removed > 0
    }

    /// Count of the ids that were ever removed.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Whether a series of this name can be put under this id.
    pub fn is_free_for(&self, id: SeriesId, key: SeriesKey<'_>) -> bool {
        !self.is_removed(id) && self.record(id.0).is_none_or(|record| record.is_dead() && self.key_of(record) == key)
    }

    /// The removed ids of a group, a bit for each; `None` if there are none.
    pub fn removed_of(&self, group: u32) -> Option<[u64; 4]> {
        self.groups.get(group as usize)?.removed.as_deref().copied()
    }

    /// The series on an endpoint's chain after `previous`, or the first one; dead ones too.
    pub fn next_of_endpoint(&self, place: u32, previous: Option<u32>) -> Option<u32> {
        let next = match previous {
            None => self.endpoints.get(place as usize)?.first,
            Some(id) => self.record(id)?.next_of_endpoint,
        };
        (next != NONE).then_some(next)
    }

    /// The series on a counter's chain after `previous`, or the first one; dead ones too.
    pub fn next_of_counter(&self, counter: u32, previous: Option<u32>) -> Option<u32> {
        let next = match previous {
            None => self.counters.first(counter),
            Some(id) => self.record(id)?.next_of_counter,
        };
        (next != NONE).then_some(next)
    }

    /// Living series of an endpoint, in no order.
    pub fn series_of(&self, place: u32) -> impl Iterator<Item = SeriesId> {
        let first = self.next_of_endpoint(place, None);
        std::iter::successors(first, move |id| self.next_of_endpoint(place, Some(*id)))
            .filter(|id| self.live_record(*id).is_some())
            .map(SeriesId)
    }

    /// Groups in which something is, ascending.
    pub fn used_groups(&self) -> Vec<u32> {
        let groups = self.groups.iter().enumerate().filter(|(_, group)| group.used > 0);
        groups.map(|(number, _)| number as u32).collect()
    }

    /// Number of groups of ids that were given.
    pub fn group_count(&self) -> u32 {
        self.groups.len() as u32
    }

    /// Living series of a group, by id.
    pub fn series_in(&self, group: u32) -> impl Iterator<Item = (SeriesId, SeriesKey<'_>, Meta)> {
        let records = self.groups.get(group as usize).and_then(|group| group.records.as_deref());
        records.into_iter().flatten().enumerate().filter_map(move |(i, record)| {
            let meta = record.meta().filter(|_| record.endpoint != NONE)?;
            Some((SeriesId(group * GROUP + i as u32), self.key_of(record), meta))
        })
    }

    /// All living series, for whoever opens the store: nobody else wants the table then.
    pub fn live_series(&self) -> impl Iterator<Item = (SeriesId, SeriesKey<'_>, Meta)> {
        (0..self.group_count()).flat_map(|group| self.series_in(group))
    }

    /// Counters of the series, for searches.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes of texts and records.
    pub fn memory_bytes(&self) -> usize {
        self.text_bytes() + self.index_bytes()
    }

    /// Bytes of the distinct texts of endpoints, metrics and tags, and of the counters made of them.
    pub fn text_bytes(&self) -> usize {
        self.names.memory_bytes() + self.counters.memory_bytes()
    }

    /// Bytes of the records of series, and of what finds them.
    pub fn index_bytes(&self) -> usize {
        let page = size_of::<[Record; GROUP as usize]>();
        let pages = self.groups.iter().filter(|group| group.records.is_some()).count();
        let removed = self.groups.iter().filter(|group| group.removed.is_some()).count();
        let lists = self.dead.capacity() + self.dirty_endpoints.capacity() + self.dirty_counters.capacity();
        self.endpoints.capacity() * size_of::<Endpoint>()
            + self.by_number.len() * NUMBER_BYTES
            + self.past.values().map(|past| PAST_BYTES + past.capacity() * size_of::<Past>()).sum::<usize>()
            + self.groups.capacity() * size_of::<Group>()
            + pages * page
            + removed * size_of::<[u64; 4]>()
            + self.ids.allocation_size()
            + lists * size_of::<u32>()
    }
}

/// Bytes of an entry of `by_number`, its share of the tree included.
const NUMBER_BYTES: usize = 12;

/// Bytes of an entry of `past` besides its notes: the list, and its share of the tree.
const PAST_BYTES: usize = 48;

/// A sweep under way. It goes on where it was also when the table changed between two steps.
pub struct Sweep {
    dead: Vec<u32>,
    endpoints: Vec<u32>,
    counters: Vec<u32>,
    /// The record behind which the last step stopped, on the last chain of the two lists.
    previous: Option<u32>,
}

impl Table {
    /// Count of the records that wait for a sweep.
    pub fn dead(&self) -> usize {
        self.dead.len()
    }

    /// Begins to take the dead off their chains. One sweep at a time.
    pub fn begin_sweep(&mut self) -> Sweep {
        Sweep {
            dead: std::mem::take(&mut self.dead),
            endpoints: std::mem::take(&mut self.dirty_endpoints),
            counters: std::mem::take(&mut self.dirty_counters),
            previous: None,
        }
    }

    /// Does about `steps` steps of a sweep; true when it is done.
    pub fn sweep(&mut self, sweep: &mut Sweep, mut steps: usize) -> bool {
        while let Some(place) = sweep.endpoints.last().copied() {
            if !self.sweep_endpoint(place, &mut sweep.previous, &mut steps) {
                return false;
            }
            sweep.endpoints.pop();
        }
        while let Some(counter) = sweep.counters.last().copied() {
            if !self.sweep_counter(counter, &mut sweep.previous, &mut steps) {
                return false;
            }
            sweep.counters.pop();
        }
        while let Some(id) = sweep.dead.pop() {
            if steps == 0 {
                sweep.dead.push(id);
                return false;
            }
            steps -= 1;
            self.empty(id);
        }
        self.shrink();
        true
    }

    /// Does steps of a sweep on an endpoint's chain; true when the chain is done.
    fn sweep_endpoint(&mut self, place: u32, previous: &mut Option<u32>, steps: &mut usize) -> bool {
        // One that is listed twice may be gone by now.
        while self.names.holders(place) > 0 && self.endpoints[place as usize].dead > 0 {
            if *steps == 0 {
                return false;
            }
            *steps -= 1;
            let Some(id) = self.next_of_endpoint(place, *previous) else {
                // Something died behind us meanwhile.
                self.dirty_endpoints.push(place);
                break;
            };
            let record = self.record_mut(id).expect("what is on a chain is there");
            if !record.is_dead() {
                *previous = Some(id);
                continue;
            }
            record.meta &= !ON_ENDPOINT;
            let next = record.next_of_endpoint;
            match *previous {
                None => self.endpoints[place as usize].first = next,
                Some(previous) => {
                    self.record_mut(previous).expect("what is on a chain is there").next_of_endpoint = next;
                }
            }
            self.endpoints[place as usize].dead -= 1;
        }
        *previous = None;
        true
    }

    fn sweep_counter(&mut self, counter: u32, previous: &mut Option<u32>, steps: &mut usize) -> bool {
        while self.counters.count(counter) > 0 && *self.counters.dead_mut(counter) > 0 {
            if *steps == 0 {
                return false;
            }
            *steps -= 1;
            let Some(id) = self.next_of_counter(counter, *previous) else {
                self.dirty_counters.push(counter);
                break;
            };
            let record = self.record_mut(id).expect("what is on a chain is there");
            if !record.is_dead() {
                *previous = Some(id);
                continue;
            }
            record.meta &= !ON_COUNTER;
            let next = record.next_of_counter;
            match *previous {
                None => self.counters.set_first(counter, next),
                Some(previous) => {
                    self.record_mut(previous).expect("what is on a chain is there").next_of_counter = next;
                }
            }
            *self.counters.dead_mut(counter) -= 1;
        }
        *previous = None;
        true
    }

    /// Empties the place of a record that is dead and off its chains. One that lives again, or died again, is left.
    fn empty(&mut self, id: u32) {
        let Some(record) = self.record(id).copied() else { return };
        if !record.is_dead() || record.has(ON_ENDPOINT) || record.has(ON_COUNTER) {
            return;
        }
        let group = &mut self.groups[(id / GROUP) as usize];
        group.used -= 1;
        if group.used == 0 {
            group.records = None;
        } else if let Some(records) = &mut group.records {
            records[(id % GROUP) as usize] = EMPTY;
        }
        self.counters.release(record.counter);
        self.let_go_endpoint(record.endpoint);
    }

    /// Gives memory back that a larger past needed.
    fn shrink(&mut self) {
        self.counters.shrink();
        if self.endpoints.len() > self.names.ids_end() as usize {
            self.endpoints.truncate(self.names.ids_end() as usize);
            self.endpoints.shrink_to(self.endpoints.len() * 5 / 4);
        }
        if self.ids.len() < self.ids.capacity() / 4 {
            let (groups, counters, hasher) = (&self.groups, &self.counters, &self.hasher);
            self.ids.shrink_to(self.ids.len() * 2, |id| {
                let records = groups[(*id / GROUP) as usize].records.as_ref().expect("whose id is listed has a page");
                let record = &records[(*id % GROUP) as usize];
                let (metric, tags) = counters.parts(record.counter);
                hasher.hash_one((record.endpoint, metric, tags))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes::STEP_MAX;

    fn key<'a>(endpoint: &'a str, metric: &'a str, tags: &'a str) -> SeriesKey<'a> {
        SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) }
    }

    fn gauge() -> Meta {
        Meta::new(CounterType::Gauge, 60).expect("a good step")
    }

    fn find(table: &Table, key: SeriesKey<'_>) -> Option<Found> {
        table.find_of(table.place_of(key.endpoint)?, key.metric, key.tags.as_str())
    }

    fn insert(table: &mut Table, id: u32, key: SeriesKey<'_>) {
        let number = table.place_of(key.endpoint).map_or(id + 1, |place| table.endpoint_number(place));
        let place = table.hold_endpoint(number, key.endpoint).expect("room");
        assert_eq!(table.insert(SeriesId(id), place, key.metric, key.tags.as_str(), gauge()).ok(), Some(true));
        table.let_go_endpoint(place);
    }

    fn sweep(table: &mut Table, steps: usize) {
        let mut sweep = table.begin_sweep();
        while !table.sweep(&mut sweep, steps) {}
    }

    fn of_counter(table: &Table, key: SeriesKey<'_>) -> Vec<u32> {
        let found = find(table, key).expect("there");
        let counter = table.parts(found.id).expect("there").1;
        let first = table.next_of_counter(counter, None);
        std::iter::successors(first, |id| table.next_of_counter(counter, Some(*id))).collect()
    }

    #[test]
    fn finds_what_was_inserted_and_not_what_was_removed() {
        let mut table = Table::default();
        let keys = [key("a", "m", ""), key("a", "m", "k=1"), key("b", "m", ""), key("b", "n", "k=1")];
        for (i, key) in keys.iter().enumerate() {
            insert(&mut table, i as u32, *key);
        }
        for (i, key) in keys.iter().enumerate() {
            assert_eq!(find(&table, *key).map(|found| found.id), Some(SeriesId(i as u32)));
            assert_eq!(table.key(SeriesId(i as u32)), Some(*key));
        }
        assert_eq!(find(&table, key("a", "n", "")), None);
        table.remove(SeriesId(1));
        assert!(!table.forget(SeriesId(1)));
        assert_eq!((find(&table, keys[1]), table.key(SeriesId(1))), (None, None));
        assert_eq!(table.series_of(0).collect::<Vec<_>>(), [SeriesId(0)]);
        table.remove(SeriesId(0));
        assert_eq!(table.endpoints_from(0).collect::<Vec<_>>(), [(3, 1)]);
        insert(&mut table, 9, keys[0]);
        assert_eq!(find(&table, keys[0]).map(|found| found.id), Some(SeriesId(9)));
        assert_eq!(table.live_series().count(), 3);
        assert!(table.is_removed(SeriesId(0)) && table.is_removed(SeriesId(1)) && !table.is_removed(SeriesId(2)));
        let place = table.place_of("a").expect("there");
        assert_eq!(table.insert(SeriesId(0), place, "m", "", gauge()).ok(), Some(false), "an id is never given twice");
        assert_eq!(table.insert(SeriesId(2), place, "m", "x=1", gauge()).ok(), Some(false), "nor a taken one");
    }

    #[test]
    fn a_drowsy_series_is_there_but_not_for_new_batches() {
        let mut table = Table::default();
        insert(&mut table, 0, key("a", "m", ""));
        assert!(table.set_drowsy(SeriesId(0), true));
        assert_eq!(find(&table, key("a", "m", "")), None);
        assert_eq!(table.find_drowsy_of(0, "m", "").map(|found| found.id), Some(SeriesId(0)));
        assert!(table.set_meta(SeriesId(0), Meta::new(CounterType::Derive, STEP_MAX).expect("good")));
        assert!(table.is_drowsy(SeriesId(0)) && table.key(SeriesId(0)).is_some());
        assert!(table.set_drowsy(SeriesId(0), false));
        let found = find(&table, key("a", "m", "")).expect("there");
        assert_eq!((found.counter_type, found.step), (CounterType::Derive, STEP_MAX));
    }

    /// Hosts with the same counters; every other host goes, some come back while the sweep is on its way.
    #[test]
    fn a_sweep_in_small_steps_clears_the_chains_whatever_comes_between() {
        const HOSTS: u32 = 40;
        const COUNTERS: u32 = 30;
        let names: Vec<String> = (0..HOSTS).map(|host| format!("host-{host}")).collect();
        let metrics: Vec<String> = (0..COUNTERS).map(|counter| format!("metric.{counter}")).collect();
        let id = |host: u32, counter: u32| host * COUNTERS + counter;
        let key_of = |host: u32, counter: u32| key(&names[host as usize], &metrics[counter as usize], "");
        for steps in [1, 7, 100_000] {
            let mut table = Table::default();
            let all = || (0..HOSTS).flat_map(|host| (0..COUNTERS).map(move |counter| (host, counter)));
            all().for_each(|(host, counter)| insert(&mut table, id(host, counter), key_of(host, counter)));
            let mut here: Vec<bool> = vec![true; (HOSTS * COUNTERS) as usize];
            for (host, counter) in all().filter(|(host, _)| host % 2 == 0) {
                assert!(table.forget(SeriesId(id(host, counter))));
                here[id(host, counter) as usize] = false;
            }
            let (mut under_way, mut round) = (table.begin_sweep(), 0u32);
            while !table.sweep(&mut under_way, steps) {
                let (host, counter) = (round.wrapping_mul(7) % HOSTS, round.wrapping_mul(11) % COUNTERS);
                let was = std::mem::replace(&mut here[id(host, counter) as usize], !round.is_multiple_of(3));
                match (was, !round.is_multiple_of(3)) {
                    (true, false) => assert!(table.forget(SeriesId(id(host, counter)))),
                    (false, true) => insert(&mut table, id(host, counter), key_of(host, counter)),
                    _ => {}
                }
                round += 1;
            }
            sweep(&mut table, 1000);
            for (host, counter) in all() {
                let found = find(&table, key_of(host, counter)).map(|found| found.id.0);
                assert_eq!(found, here[id(host, counter) as usize].then_some(id(host, counter)));
            }
            for counter in 0..COUNTERS {
                let mut expected: Vec<u32> =
                    (0..HOSTS).map(|host| id(host, counter)).filter(|id| here[*id as usize]).collect();
                let Some(host) = (0..HOSTS).find(|host| here[id(*host, counter) as usize]) else { continue };
                let mut chain = of_counter(&table, key_of(host, counter));
                chain.sort_unstable();
                expected.sort_unstable();
                assert_eq!(chain, expected, "nothing dead is left, nothing living is lost");
            }
            assert_eq!(table.live(), here.iter().filter(|here| **here).count());
            let hosts = |host: &u32| (0..COUNTERS).any(|counter| here[id(*host, counter) as usize]);
            assert_eq!(table.live_endpoints(), (0..HOSTS).filter(hosts).count());
            assert_eq!(table.endpoints_from(0).count(), table.live_endpoints());
        }
    }

    #[test]
    fn what_comes_and_goes_takes_no_more_room() {
        let mut table = Table::default();
        let (mut id, mut most) = (0, 0);
        for generation in 0..100 {
            let mut ids = Vec::new();
            for container in 0..20 {
                let endpoint = format!("container-{generation:03}-{container:02}");
                for counter in 0..50 {
                    insert(&mut table, id, key(&endpoint, &format!("m{counter}"), &format!("own={endpoint}")));
                    ids.push(SeriesId(id));
                    id += 1;
                }
            }
            if generation < 10 {
                most = most.max(table.memory_bytes());
            }
            // A thousand ids may begin in the middle of a page.
            let page = size_of::<[Record; GROUP as usize]>();
            let directory = table.groups.capacity() * size_of::<Group>();
            assert!(table.memory_bytes() <= most + page + directory, "{} of {most}", table.memory_bytes());
            ids.iter().for_each(|id| assert!(table.forget(*id)));
            sweep(&mut table, 64);
        }
        assert_eq!((table.live(), table.live_endpoints(), table.used_groups().len()), (0, 0, 0));
        assert!(table.memory_bytes() < most / 3, "{} of {most}", table.memory_bytes());
    }

    #[test]
    fn meta_packs_every_type() {
        for counter_type in [CounterType::Gauge, CounterType::Counter, CounterType::Derive] {
            let meta = Meta::new(counter_type, STEP_MAX).expect("a good step");
            assert_eq!(Meta::unpack(meta.pack()), Some(meta));
        }
        assert_eq!(Meta::unpack(3), None);
        assert!(Meta::new(CounterType::Gauge, 0).is_err());
        assert!(Meta::new(CounterType::Gauge, STEP_MAX + 1).is_err());
    }
}
