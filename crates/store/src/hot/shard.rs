//! Shard: which series share a lock, and what an observer of new points sees while that lock is held.
//!
//! Why: a batch of one host should take one lock, and batches of different hosts different ones. Series of a host get
//! neighbouring ids when it first reports, so 256 neighbours share a shard.
//! Invariants: whoever holds a shard's lock may take the table's for reading, never the other way round.

use super::chains::Hot;
use crate::locks;
use crate::series::{Meta, Table};
use crate::sizes::GROUP;
use model::{CounterType, Point, Sample, SeriesId, SeriesKey};
use stdx::ranked::MutexGuard;
use stdx::{RankedMutex, RankedRwLock};

/// The rule that gives each series its shard, and its slot there. Slots of a shard are dense.
#[derive(Clone, Copy)]
pub struct Geometry {
    pub shard_count: u32,
}

impl Geometry {
    /// Shard of a series.
    #[inline]
    pub fn shard_of(self, id: SeriesId) -> usize {
        ((id.0 / GROUP) & (self.shard_count - 1)) as usize
    }

    /// Slot of a series in its shard.
    #[inline]
    pub fn slot_of(self, id: SeriesId) -> u32 {
        id.0 / GROUP / self.shard_count * GROUP + id.0 % GROUP
    }
}

/// Somebody who is shown each point that became the newest of its series, with the shard's lock held: be quick, and do
/// not call the store. Locks that an observer takes have ranks between [`crate::locks::SHARD`] and the innermost.
pub trait Observer {
    fn newest(&mut self, shard: usize, sample: Sample, counter_type: CounterType, window: &ShardView<'_>);

    /// Told of a point that is not kept, for its series has another value at the newest time, which is the point's.
    fn contradicted(&mut self, _sample: Sample) {}

    /// Shown a point that is kept, though its series has a newer one.
    fn late(&mut self, _shard: usize, _sample: Sample, _window: &ShardView<'_>) {}

    /// Told when a batch is done with a shard, whose lock is let go next: locks that the observer kept from point to
    /// point must go before it.
    fn leave(&mut self) {}
}

/// An observer that looks at nothing.
impl Observer for () {
    fn newest(&mut self, _shard: usize, _sample: Sample, _counter_type: CounterType, _window: &ShardView<'_>) {}
}

/// The hot chunks of one shard.
pub struct ShardView<'a> {
    pub(crate) hot: &'a Hot,
    pub(crate) table: &'a RankedRwLock<Table>,
    pub(crate) geometry: Geometry,
    pub(crate) shard: usize,
}

impl ShardView<'_> {
    /// Replaces `out` by the newest points of a series of this shard, newest first, at most `count`; what a series of
    /// another shard has is not seen, nor what came before a counter became a gauge, or a gauge a counter.
    pub fn tail(&self, id: SeriesId, count: usize, out: &mut Vec<Point>) {
        out.clear();
        if self.geometry.shard_of(id) == self.shard {
            let newest_first = self.hot.window(self.geometry.slot_of(id)).take(count);
            out.extend(newest_first.map(|(time, value)| Point { time: i64::from(time), value }));
        }
    }

    /// Type and step of a series of this shard.
    pub fn meta(&self, id: SeriesId) -> Option<(CounterType, u32)> {
        let meta = self.hot.meta(self.geometry.slot_of(id)).filter(|_| self.geometry.shard_of(id) == self.shard)?;
        Some((meta.counter_type, meta.step))
    }

    /// Lends the name of a series of any shard; does nothing when it was removed.
    pub fn key(&self, id: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        let table = self.table.read();
        if let Some(key) = table.key(id) {
            use_key(key);
        }
    }

    /// Number of the shard.
    pub fn shard(&self) -> usize {
        self.shard
    }
}

/// All shards, each behind its lock.
pub struct Shards {
    pub geometry: Geometry,
    shards: Box<[RankedMutex<Hot>]>,
}

impl Shards {
    /// Shards, `count` of them, each made by `new`.
    pub fn new(count: usize, new: impl Fn() -> Hot) -> Shards {
        let shards = (0..count).map(|_| RankedMutex::new(locks::SHARD, new())).collect();
        Shards { geometry: Geometry { shard_count: count as u32 }, shards }
    }

    /// A panicking observer (not ours, and called only between appends) must not take the shard down with it.
    pub fn lock(&self, shard: usize) -> MutexGuard<'_, Hot> {
        self.shards[shard].lock()
    }

    /// The shard of a series, locked, and the series' slot there.
    pub fn lock_of(&self, id: SeriesId) -> (MutexGuard<'_, Hot>, u32) {
        (self.lock(self.geometry.shard_of(id)), self.geometry.slot_of(id))
    }

    /// The shard of a series and its slot there, without a lock: while nobody else can have the shards.
    pub fn of_mut(&mut self, id: SeriesId) -> (&mut Hot, u32) {
        (self.shards[self.geometry.shard_of(id)].get_mut(), self.geometry.slot_of(id))
    }

    /// Makes a series known that is new, or comes back (`with_past`); its window begins at `since`.
    pub fn begin(&self, id: SeriesId, meta: Meta, with_past: bool, since: u32) {
        let (mut hot, slot) = self.lock_of(id);
        hot.begin(slot, meta, f64::NAN, with_past);
        hot.set_since(slot, since);
    }

    /// Changes type and step of a series, whose window begins at `since`.
    pub fn set_meta(&self, id: SeriesId, meta: Meta, since: u32) {
        let (mut hot, slot) = self.lock_of(id);
        hot.set_meta(slot, meta);
        hot.set_since(slot, since);
    }

    /// All shards, locked one after the other.
    pub fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, Hot>> {
        (0..self.shards.len()).map(|shard| self.lock(shard))
    }

    /// Number of shards.
    pub fn len(&self) -> usize {
        self.shards.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_dense_and_distinct() {
        for shard_count in [1, 2, 8] {
            let geometry = Geometry { shard_count };
            let mut seen = vec![Vec::new(); shard_count as usize];
            for id in 0..GROUP * 16 {
                seen[geometry.shard_of(SeriesId(id))].push(geometry.slot_of(SeriesId(id)));
            }
            for slots in seen {
                assert_eq!(slots, (0..GROUP * 16 / shard_count).collect::<Vec<_>>());
            }
        }
    }
}
