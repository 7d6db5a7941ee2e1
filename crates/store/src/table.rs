//! Series table: what a series is called, by id and by name; the one place where its texts are.
//!
//! Why: every text of a point dies at the door; from there on a series is a `SeriesId(u32)`.
//! How: endpoints, metrics and tags are interned apart, because hosts share their metrics and tags. A series is three
//! numbers and its type and step; a hash table of ids finds it. The series of an endpoint are chained through `next`.
//! Invariants: ids are dense, given in order from 0, and never given twice, also when a series is removed: blocks on
//! disk still hold points under the old id. Texts of removed series stay until the process ends.
//! Memory: 16 (record) + 4 (chain) + 6 to 11 (hash slot) bytes per series, plus each distinct text once; bounded by
//! `series_max`; shown as `index_bytes`.
//! Compat: endpoint ids as the API shows them are the interner's + 1, in order of first appearance.

use crate::error::{Error, Result};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use model::{CounterType, SeriesId, SeriesKey, Tags};
use std::hash::BuildHasher;
use stdx::Interner;

/// Two bits of `meta` hold the type: 34 years are enough for a step.
pub const STEP_MAX: u32 = (1 << 30) - 1;

/// Open-Falcon accepts counters up to 510 bytes; a text beyond 4 KiB is an accident and would only fill the index.
pub const TEXT_MAX: usize = 4096;

/// End of a chain.
const NONE: u32 = u32::MAX;

/// Type bits of a removed series, or of an id whose definition was lost.
const REMOVED: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Record {
    endpoint: u32,
    metric: u32,
    tags: u32,
    meta: u32,
}

const _: () = assert!(size_of::<Record>() == 16);

/// Type and step of a series in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub counter_type: CounterType,
    pub step: u32,
}

impl Meta {
    pub fn new(counter_type: CounterType, step: u32) -> Result<Meta> {
        if step == 0 || step > STEP_MAX { Err(Error::BadStep(step)) } else { Ok(Meta { counter_type, step }) }
    }

    pub fn pack(self) -> u32 {
        self.step << 2 | self.counter_type as u32
    }

    /// `None` for a removed series.
    pub fn unpack(meta: u32) -> Option<Meta> {
        Some(Meta { counter_type: CounterType::from_u8((meta & 3) as u8)?, step: meta >> 2 })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: SeriesId,
    pub counter_type: CounterType,
    pub step: u32,
}

#[derive(Default)]
pub struct Table {
    endpoints: Interner,
    metrics: Interner,
    tags: Interner,
    records: Vec<Record>,
    /// The next series of the same endpoint, by series id.
    next: Vec<u32>,
    /// The newest series of an endpoint, by endpoint number.
    first: Vec<u32>,
    ids: HashTable<u32>,
    hasher: RandomState,
    live: usize,
}

impl Table {
    /// Ids given so far, removed ones included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn live(&self) -> usize {
        self.live
    }

    pub fn endpoint_number(&self, endpoint: &str) -> Option<u32> {
        self.endpoints.find(endpoint)
    }

    /// The number that an endpoint has, or gets with its first series.
    pub fn next_endpoint_number(&self, endpoint: &str) -> u32 {
        self.endpoints.find(endpoint).unwrap_or(self.endpoints.len() as u32)
    }

    pub fn endpoint(&self, number: u32) -> &str {
        self.endpoints.text(number)
    }

    pub fn find(&self, key: SeriesKey<'_>) -> Option<Found> {
        self.find_of(self.endpoints.find(key.endpoint)?, key.metric, key.tags.as_str())
    }

    /// As `find`, for a caller that knows the endpoint's number already.
    pub fn find_of(&self, endpoint: u32, metric: &str, tags: &str) -> Option<Found> {
        let (metric, tags) = (self.metrics.find(metric)?, self.tags.find(tags)?);
        let wanted = (endpoint, metric, tags);
        let id = *self.ids.find(self.hasher.hash_one(wanted), |id| self.name(*id) == wanted)?;
        self.found(SeriesId(id))
    }

    fn name(&self, id: u32) -> (u32, u32, u32) {
        let record = &self.records[id as usize];
        (record.endpoint, record.metric, record.tags)
    }

    fn found(&self, id: SeriesId) -> Option<Found> {
        let Meta { counter_type, step } = self.meta(id)?;
        Some(Found { id, counter_type, step })
    }

    pub fn meta(&self, id: SeriesId) -> Option<Meta> {
        Meta::unpack(self.records.get(id.0 as usize)?.meta)
    }

    pub fn key(&self, id: SeriesId) -> Option<SeriesKey<'_>> {
        self.meta(id)?;
        Some(self.key_of(id.0))
    }

    fn key_of(&self, id: u32) -> SeriesKey<'_> {
        let record = &self.records[id as usize];
        SeriesKey {
            endpoint: self.endpoints.text(record.endpoint),
            metric: self.metrics.text(record.metric),
            tags: Tags::assume_canonical(self.tags.text(record.tags)),
        }
    }

    /// Puts a series that is not there under `id`, which is at least `len()`; ids left out count as removed.
    pub fn insert(&mut self, id: SeriesId, key: SeriesKey<'_>, meta: Meta) -> Result<()> {
        assert!(id.0 as usize >= self.records.len(), "ids are given in order");
        let full = |_| Error::Full { what: "bytes of names", limit: stdx::interner::BYTES_MAX as u64 };
        let endpoint = self.endpoints.intern(key.endpoint).map_err(full)?;
        let metric = self.metrics.intern(key.metric).map_err(full)?;
        let tags = self.tags.intern(key.tags.as_str()).map_err(full)?;
        let lost = Record { endpoint: 0, metric: 0, tags: 0, meta: REMOVED };
        self.records.resize(id.0 as usize, lost);
        self.next.resize(id.0 as usize, NONE);
        self.records.push(Record { endpoint, metric, tags, meta: meta.pack() });
        self.chain(endpoint, id.0);
        let (records, hasher) = (&self.records, &self.hasher);
        let hash_of = |id: &u32| {
            let record = &records[*id as usize];
            hasher.hash_one((record.endpoint, record.metric, record.tags))
        };
        self.ids.insert_unique(hash_of(&id.0), id.0, hash_of);
        self.live += 1;
        Ok(())
    }

    fn chain(&mut self, endpoint: u32, id: u32) {
        if self.first.len() <= endpoint as usize {
            self.first.resize(endpoint as usize + 1, NONE);
        }
        let first = &mut self.first[endpoint as usize];
        self.next.push(*first);
        *first = id;
    }

    /// False when there is no such series.
    pub fn set_meta(&mut self, id: SeriesId, meta: Meta) -> bool {
        let known = self.meta(id).is_some();
        if known {
            self.records[id.0 as usize].meta = meta.pack();
        }
        known
    }

    /// False when there is no such series.
    pub fn remove(&mut self, id: SeriesId) -> bool {
        if self.meta(id).is_none() {
            return false;
        }
        let hash = self.hasher.hash_one(self.name(id.0));
        if let Ok(slot) = self.ids.find_entry(hash, |other| *other == id.0) {
            slot.remove();
        }
        self.unchain(id.0);
        self.records[id.0 as usize].meta = REMOVED;
        self.live -= 1;
        true
    }

    fn unchain(&mut self, id: u32) {
        let endpoint = self.records[id as usize].endpoint;
        let after = self.next[id as usize];
        if self.first[endpoint as usize] == id {
            self.first[endpoint as usize] = after;
            return;
        }
        let mut at = self.first[endpoint as usize];
        while self.next[at as usize] != id {
            at = self.next[at as usize];
        }
        self.next[at as usize] = after;
    }

    /// Series of an endpoint, the newest first; none for a number that was never given.
    pub fn series_of(&self, endpoint: u32) -> impl Iterator<Item = SeriesId> {
        let first = self.first.get(endpoint as usize).copied().unwrap_or(NONE);
        let some = |id: u32| (id != NONE).then_some(id);
        std::iter::successors(some(first), move |id| some(self.next[*id as usize])).map(SeriesId)
    }

    /// Numbers of endpoints that have a series, in order of first appearance.
    pub fn live_endpoints(&self) -> impl Iterator<Item = u32> {
        self.first.iter().enumerate().filter(|(_, first)| **first != NONE).map(|(number, _)| number as u32)
    }

    pub fn live_series(&self) -> impl Iterator<Item = (SeriesId, SeriesKey<'_>, Meta)> {
        self.records.iter().enumerate().filter_map(|(id, record)| {
            let meta = Meta::unpack(record.meta)?;
            Some((SeriesId(id as u32), self.key_of(id as u32), meta))
        })
    }

    /// Numbers of metric and tags, for searches that look at each distinct text once.
    pub fn parts(&self, id: SeriesId) -> (u32, u32) {
        let record = &self.records[id.0 as usize];
        (record.metric, record.tags)
    }

    pub fn metrics(&self) -> &Interner {
        &self.metrics
    }

    pub fn tags(&self) -> &Interner {
        &self.tags
    }

    pub fn memory_bytes(&self) -> usize {
        self.endpoints.memory_bytes()
            + self.metrics.memory_bytes()
            + self.tags.memory_bytes()
            + self.records.capacity() * size_of::<Record>()
            + (self.next.capacity() + self.first.capacity()) * size_of::<u32>()
            + self.ids.allocation_size()
    }
}

/// Texts that a definition on disk has room for.
pub fn check_texts(key: SeriesKey<'_>) -> Result<()> {
    for (what, text) in [("endpoint", key.endpoint), ("metric", key.metric), ("tags", key.tags.as_str())] {
        if text.len() > TEXT_MAX {
            return Err(Error::TextTooLong { what, bytes: text.len(), limit: TEXT_MAX });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key<'a>(endpoint: &'a str, metric: &'a str, tags: &'a str) -> SeriesKey<'a> {
        SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) }
    }

    fn gauge() -> Meta {
        Meta::new(CounterType::Gauge, 60).expect("a good step")
    }

    #[test]
    fn finds_what_was_inserted_and_not_what_was_removed() {
        let mut table = Table::default();
        let keys = [key("a", "m", ""), key("a", "m", "k=1"), key("b", "m", ""), key("b", "n", "k=1")];
        for (i, key) in keys.iter().enumerate() {
            table.insert(SeriesId(i as u32), *key, gauge()).expect("room");
        }
        for (i, key) in keys.iter().enumerate() {
            assert_eq!(table.find(*key).map(|found| found.id), Some(SeriesId(i as u32)));
            assert_eq!(table.key(SeriesId(i as u32)), Some(*key));
        }
        assert_eq!(table.find(key("a", "n", "")), None);
        assert!(table.remove(SeriesId(1)));
        assert!(!table.remove(SeriesId(1)));
        assert_eq!(table.find(keys[1]), None);
        assert_eq!(table.series_of(0).collect::<Vec<_>>(), [SeriesId(0)]);
        assert!(table.remove(SeriesId(0)));
        assert_eq!(table.live_endpoints().collect::<Vec<_>>(), [1]);
        table.insert(SeriesId(9), keys[0], gauge()).expect("room");
        assert_eq!(table.find(keys[0]).map(|found| found.id), Some(SeriesId(9)));
        assert_eq!(table.live_series().count(), 3);
    }

    #[test]
    fn meta_packs_every_type() {
        for counter_type in [CounterType::Gauge, CounterType::Counter, CounterType::Derive] {
            let meta = Meta::new(counter_type, STEP_MAX).expect("a good step");
            assert_eq!(Meta::unpack(meta.pack()), Some(meta));
        }
        assert_eq!(Meta::unpack(REMOVED), None);
        assert!(Meta::new(CounterType::Gauge, 0).is_err());
        assert!(Meta::new(CounterType::Gauge, STEP_MAX + 1).is_err());
    }
}
