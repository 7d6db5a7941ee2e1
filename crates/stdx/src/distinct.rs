//! Distinct: about how many different values were seen, in 256 bytes, however many they are.
//!
//! Why: whose values explode is told by how many different ones there are, and keeping them would be the explosion
//! itself.
//! How: HyperLogLog. A hash chooses one of 256 registers, which keeps the longest run of leading zeros that the rest of
//! a hash had; where many registers are empty, their number says it better.
//! Invariants: nothing is allocated; the same value counts once; the error is some 7 % (1.04 / √256). The caller
//! hashes: with a seed of its own, else a sender could choose values that count for more.

const REGISTERS: usize = 256;
const INDEX_BITS: u32 = REGISTERS.trailing_zeros();

/// A count of different values.
#[derive(Clone)]
pub struct Distinct {
    registers: [u8; REGISTERS],
}

impl Default for Distinct {
    fn default() -> Distinct {
        Distinct { registers: [0; REGISTERS] }
    }
}

impl Distinct {
    /// Notes a value by its hash.
    pub fn add(&mut self, hash: u64) {
        let register = &mut self.registers[(hash >> (64 - INDEX_BITS)) as usize];
        // A bit behind the rest ends the run.
        let rank = (hash << INDEX_BITS | 1 << (INDEX_BITS - 1)).leading_zeros() as u8 + 1;
        *register = (*register).max(rank);
    }

    /// Estimates how many different values there were.
    pub fn estimate(&self) -> u64 {
        let count = REGISTERS as f64;
        let sum: f64 = self.registers.iter().map(|rank| (-f64::from(*rank)).exp2()).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / count) * count * count / sum;
        let empty = self.registers.iter().filter(|rank| **rank == 0).count();
        if estimate <= 2.5 * count && empty > 0 {
            return (count * (count / empty as f64).ln()).round() as u64;
        }
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher, RandomState};

    #[test]
    fn estimates_are_near_and_repetitions_do_not_count() {
        let hasher = RandomState::new();
        for count in [0u64, 1, 10, 300, 1000, 50_000, 1_000_000] {
            let mut distinct = Distinct::default();
            for value in (0..count).chain(0..count.min(1000)) {
                distinct.add(hasher.hash_one(value));
            }
            // Five times the usual error.
            let (estimate, error) = (distinct.estimate() as f64, 5.0 * 0.065 * count as f64);
            assert!((estimate - count as f64).abs() <= error.max(1.0), "{estimate} for {count}");
        }
    }
}
