//! Digest: 128 bits that stand for a text. Sums of digests stand for a set of texts in any order.
//!
//! Why: Go's maps give hosts and strategies in another order with each answer; a hash over the answer's bytes would
//! differ each time.
//! How: SipHash-1-3 of the standard library twice, set apart by a first byte; sets add up, wrapping.
//! Invariants: a digest lives in memory only, so it may change with the compiler. Two texts meet by chance once in 2^64
//! of them.

use std::hash::{DefaultHasher, Hasher};

pub(super) fn digest(text: &[u8]) -> u128 {
    let half = |first: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(first);
        hasher.write(text);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_differ() {
        let (a, b) = (digest(b"a"), digest(b"b"));
        assert_ne!(a >> 64, b >> 64);
        assert_ne!(a as u64, b as u64);
        assert_ne!(a >> 64, a & u128::from(u64::MAX));
        assert_eq!(a, digest(b"a"));
    }
}
