//! Counters: pairs of metric and tags, each once, with the series that have it.
//!
//! Why: hosts share their counters. A series then names its counter in four bytes, a search looks at each distinct text
//! once instead of once per series, and from a counter that matches the chain leads to its series.
//! How: metrics and tags are interned apart; a pair of their ids is a counter, found by hash.
//! Invariants: a counter is there exactly as long as a record holds it (`count`); ids are given anew after that.
//! Memory: 20 bytes + 6 to 11 (hash slot) per distinct counter, and the distinct texts.

use super::meta::NONE;
use crate::error::{Error, Result};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use model::Tags;
use std::hash::BuildHasher;
use stdx::Interner;

#[derive(Clone, Copy)]
struct Counter {
    metric: u32,
    tags: u32,
    /// Series that has the counter and came last; the next one is in that one's record.
    first: u32,
    /// Number of records that hold the counter; 0 for an id that means nothing now.
    count: u32,
    /// Number of records on the counter's chain that are to be swept off.
    dead: u32,
}

const _: () = assert!(size_of::<Counter>() == 20);

/// Distinct counters by id.
#[derive(Default)]
pub struct Counters {
    metrics: Interner,
    tags: Interner,
    counters: Vec<Counter>,
    free: Vec<u32>,
    ids: HashTable<u32>,
    hasher: RandomState,
}

impl Counters {
    /// The numbers of a metric and tags that some counter has (not necessarily the same one).
    #[inline]
    pub fn parts_of(&self, metric: &str, tags: &str) -> Option<(u32, u32)> {
        Some((self.metrics.find(metric)?, self.tags.find(tags)?))
    }

    /// The numbers of a counter's metric and tags.
    #[inline]
    pub fn parts(&self, id: u32) -> (u32, u32) {
        let counter = &self.counters[id as usize];
        (counter.metric, counter.tags)
    }

    /// Texts of a counter's metric and tags.
    pub fn texts(&self, id: u32) -> (&str, &str) {
        let (metric, tags) = self.parts(id);
        (self.metrics.text(metric), self.tags.text(tags))
    }

    /// The text of a metric by its number, as long as some counter has it.
    pub fn metric(&self, metric: u32) -> Option<&str> {
        (self.metrics.holders(metric) > 0).then(|| self.metrics.text(metric))
    }

    /// Holds a counter once more, made now if it is new; answers its id.
    pub fn acquire(&mut self, metric: &str, tags: &str) -> Result<u32> {
        if let Some(parts) = self.parts_of(metric, tags)
            && let Some(id) = self.ids.find(self.hasher.hash_one(parts), |id| self.parts(*id) == parts)
        {
            self.counters[*id as usize].count += 1;
            return Ok(*id);
        }
        let metric = self.metrics.acquire(metric).map_err(full)?;
        let tags = self.tags.acquire(tags).map_err(full).inspect_err(|_| {
            self.metrics.release(metric);
        })?;
        let counter = Counter { metric, tags, first: NONE, count: 1, dead: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.counters[id as usize] = counter;
                id
            }
            None => {
                self.counters.push(counter);
                self.counters.len() as u32 - 1
            }
        };
        let (counters, hasher) = (&self.counters, &self.hasher);
        let hash_of = |id: &u32| {
            let counter = &counters[*id as usize];
            hasher.hash_one((counter.metric, counter.tags))
        };
        self.ids.insert_unique(hash_of(&id), id, hash_of);
        Ok(id)
    }

    /// Gives back what one `acquire` took.
    pub fn release(&mut self, id: u32) {
        let counter = &mut self.counters[id as usize];
        counter.count -= 1;
        if counter.count > 0 {
            return;
        }
        let parts = (counter.metric, counter.tags);
        if let Ok(slot) = self.ids.find_entry(self.hasher.hash_one(parts), |other| *other == id) {
            slot.remove();
        }
        self.metrics.release(parts.0);
        self.tags.release(parts.1);
        self.free.push(id);
    }

    /// Gives memory back that a larger past needed.
    pub fn shrink(&mut self) {
        if self.counters.len() < 64 || self.ids.len() > self.counters.len() / 4 {
            return;
        }
        let used = self.counters.iter().rposition(|counter| counter.count > 0).map_or(0, |last| last + 1);
        self.counters.truncate(used);
        self.counters.shrink_to(used + used / 4);
        self.free.retain(|id| (*id as usize) < used);
        self.free.shrink_to_fit();
        let (counters, hasher) = (&self.counters, &self.hasher);
        self.ids.shrink_to(self.ids.len() * 2, |id| {
            let counter = &counters[*id as usize];
            hasher.hash_one((counter.metric, counter.tags))
        });
    }

    /// First series on the chain of a counter; [`NONE`] for an empty chain.
    pub fn first(&self, id: u32) -> u32 {
        self.counters[id as usize].first
    }

    /// Sets the first series on the chain of a counter.
    pub fn set_first(&mut self, id: u32, first: u32) {
        self.counters[id as usize].first = first;
    }

    /// Number of records on the chain of a counter that are to be swept off.
    pub fn dead_mut(&mut self, id: u32) -> &mut u32 {
        &mut self.counters[id as usize].dead
    }

    /// Count of the records that have a counter; 0 for an id that means nothing.
    pub fn count(&self, id: u32) -> u32 {
        self.counters.get(id as usize).map_or(0, |counter| counter.count)
    }

    /// An id above all that mean something.
    pub fn ids_end(&self) -> u32 {
        self.counters.len() as u32
    }

    /// Bytes of the counters and their texts.
    pub fn memory_bytes(&self) -> usize {
        self.metrics.memory_bytes()
            + self.tags.memory_bytes()
            + self.counters.capacity() * size_of::<Counter>()
            + self.free.capacity() * size_of::<u32>()
            + self.ids.allocation_size()
    }
}

/// Error of the store for an interner that is full.
pub fn full(_: stdx::interner::Full) -> Error {
    Error::Full { what: "bytes of names", limit: stdx::interner::BYTES_MAX as u64 }
}

/// Tries the ways to read a counter's text as metric and canonical tags: a metric may contain `/` itself, so every `/`
/// may be the border; the first is the usual one, none the last. Ends when `try_one` finds something.
pub fn find_counter<T>(counter: &str, mut try_one: impl FnMut(&str, &str) -> Option<T>) -> Option<T> {
    let mut scratch = String::new();
    for (border, _) in counter.match_indices('/') {
        let (metric, raw_tags) = (&counter[..border], &counter[border + 1..]);
        let tags = Tags::canonical(raw_tags, &mut scratch);
        // What canonicalising dropped altogether was not tags.
        if tags.is_empty() && !raw_tags.is_empty() {
            continue;
        }
        if let Some(found) = try_one(metric, tags.as_str()) {
            return Some(found);
        }
    }
    try_one(counter, "")
}
