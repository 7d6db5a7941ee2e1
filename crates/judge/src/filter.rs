//! Filter: which series certainly have no rules, at the price of one load.
//!
//! Why: most points belong to series that nobody judges; asking the table of bindings about each took 6.4 ns: a hash, a
//! group of control bytes, and a mispredicted branch at each eighth miss. `cargo bench -p judge` prints what it takes
//! now.
//! How: bits, 256 neighbouring series ids in one row, since hosts report neighbours together and the store's shards
//! hold groups of 256; rows are placed by hashing their number. Like a Bloom filter with one hash, but kind to caches.
//! Invariants: the bit of each bound series is set. A bit may be set in vain (by another row, or by a series that is no
//! longer bound); then the table is asked.
//! Memory: 1 to 2 bytes per bound series; nothing for others.

use model::SeriesId;

/// Bits per bound series at least: one in eight set, so about one unbound series in eight is asked further.
const BITS_PER_SERIES: usize = 8;

/// Series per row, and its words.
const ROW: u32 = 256;
const WORDS: usize = 4;

pub(crate) struct Filter {
    /// Rows, a power of two of them.
    rows: Vec<[u64; WORDS]>,
    shift: u32,
}

impl Filter {
    /// An empty filter for this many bound series.
    pub fn with_capacity(series: usize) -> Filter {
        let rows = (series * BITS_PER_SERIES).div_ceil(ROW as usize).next_power_of_two();
        Filter { rows: vec![[0; WORDS]; rows], shift: u32::BITS - rows.trailing_zeros() }
    }

    /// The number of bound series up to which the filter is selective.
    pub fn capacity(&self) -> usize {
        self.rows.len() * ROW as usize / BITS_PER_SERIES
    }

    #[inline]
    pub fn may_contain(&self, series: SeriesId) -> bool {
        let (row, word, bit) = self.place(series);
        self.rows[row][word] & bit != 0
    }

    pub fn insert(&mut self, series: SeriesId) {
        let (row, word, bit) = self.place(series);
        self.rows[row][word] |= bit;
    }

    pub fn memory_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<[u64; WORDS]>()
    }

    #[inline]
    fn place(&self, series: SeriesId) -> (usize, usize, u64) {
        // Fibonacci hashing: the high bits of the product, by the golden ratio of 2^32, spread strided rows evenly.
        let product = (series.0 / ROW).wrapping_mul(0x9E37_79B1);
        let row = (u64::from(product) >> self.shift) as usize;
        (row, (series.0 % ROW / u64::BITS) as usize, 1 << (series.0 % u64::BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of unbound series of a shard that the filter cannot tell, where every `every`th is bound.
    fn check(series_count: u32, shards: u32, every: u32, at_most: f64) {
        let of_shard = |id: &u32| (id / ROW).is_multiple_of(shards);
        let bound = |id: &u32| id.is_multiple_of(every);
        let mut filter = Filter::with_capacity((series_count / shards / every) as usize);
        (0..series_count).filter(of_shard).filter(bound).for_each(|id| filter.insert(SeriesId(id)));
        let (mut wrong, mut asked) = (0, 0);
        for id in (0..series_count).filter(of_shard) {
            let may = filter.may_contain(SeriesId(id));
            assert!(may || !bound(&id), "{id} is bound");
            if !bound(&id) {
                asked += 1;
                wrong += u32::from(may);
            }
        }
        let share = f64::from(wrong) / f64::from(asked.max(1));
        assert!(share <= at_most, "{series_count} {shards} {every}: {share}");
    }

    #[test]
    fn knows_all_bound_series_and_few_others() {
        check(1_000_000, 1, 5, 0.15);
        check(1_000_000, 16, 5, 0.15);
        check(1_000_000, 16, 300, 0.15);
        check(1_000, 1, 1, 0.0);
        check(20_000, 8, 7, 0.15);
    }
}
