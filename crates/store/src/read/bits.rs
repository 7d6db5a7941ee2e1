//! Bits: a set of small numbers, a bit for each up to the largest.

/// A set of small numbers.
#[derive(Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Adds a number.
    pub fn set(&mut self, number: u32) {
        let word = number as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    /// Whether a number is in the set.
    pub fn has(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 != 0)
    }

    /// The smallest member that is not below `from`.
    pub fn next_from(&self, from: u32) -> Option<u32> {
        let mut word = from as usize / 64;
        let mut bits = self.0.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.0.get(word)?;
        }
        Some(word as u32 * 64 + bits.trailing_zeros())
    }

    /// Members from `from` on, ascending.
    pub fn from(&self, from: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(self.next_from(from), |number| self.next_from(number.checked_add(1)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_a_set() {
        let mut bits = Bits::default();
        assert_eq!(bits.next_from(0), None);
        let numbers = [0, 1, 63, 64, 200, 4096];
        numbers.iter().rev().for_each(|number| bits.set(*number));
        assert_eq!(bits.from(0).collect::<Vec<_>>(), numbers);
        assert_eq!(bits.from(64).collect::<Vec<_>>(), [64, 200, 4096]);
        assert_eq!(bits.next_from(4097), None);
        assert!(bits.has(200) && !bits.has(201) && !bits.has(1 << 30));
    }
}
