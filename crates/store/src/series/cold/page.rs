//! Page: entries of a cold run in order of their keys, each written as its difference to the one before, and the
//! filters that say which pages a key is not in. docs/format/cold.md draws the bytes.
//!
//! Why: series of a host share most of their names and have neighbouring ids, so the difference is small: some 20 bytes
//! for a series.
//! Invariants: nothing here panics on hostile bytes: entries that do not ascend, or end early, are damage.

use stdx::crc32;
use stdx::varint::{push_i64, push_u64, take_i64, take_u64};

/// A page ends with the entry that reaches this: about what the system reads anyway, and some 200 entries to go
/// through.
const PAGE_BYTES: usize = 4000;

/// More than any page can have: two keys of three texts of 4 KiB whose every byte is escaped, and their filters.
pub const PAGE_MAX: usize = 56 << 10;

/// Numbers per entry, at most.
const COLUMNS_MAX: usize = 4;

/// The kind of entries that a page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Key of a series: id, endpoint's number, packed type and step, newest time.
    Series = 1,
    /// Least key: offset and bytes of a page; its filter when that is one of series.
    SeriesBranch = 2,
    /// Name of an endpoint: its number, count of its series.
    Endpoint = 3,
    /// Least name: offset and bytes of a page.
    EndpointBranch = 4,
}

impl Kind {
    fn columns(self) -> usize {
        if self == Kind::Series { COLUMNS_MAX } else { 2 }
    }
}

/// Writes the entries of one page.
pub struct Builder {
    kind: Kind,
    payload: Vec<u8>,
    entries: usize,
    key: Vec<u8>,
    numbers: [u64; COLUMNS_MAX],
}

impl Builder {
    /// A builder of pages of this kind, the first of them empty.
    pub fn new(kind: Kind) -> Builder {
        Builder { kind, payload: vec![kind as u8], entries: 0, key: Vec::new(), numbers: [0; COLUMNS_MAX] }
    }

    /// Empties the page; the last key is still known.
    pub fn begin_next(&mut self) {
        self.payload.truncate(1);
        self.entries = 0;
        self.numbers = [0; COLUMNS_MAX];
    }

    /// Adds an entry with a greater key than the one before.
    pub fn push(&mut self, key: &[u8], numbers: &[u64], filter: &[u8]) {
        debug_assert_eq!(numbers.len(), self.kind.columns());
        let shared = if self.entries == 0 { 0 } else { shared_bytes(&self.key, key) };
        push_u64(shared as u64, &mut self.payload);
        push_u64((key.len() - shared) as u64, &mut self.payload);
        self.payload.extend_from_slice(&key[shared..]);
        for (last, number) in self.numbers.iter_mut().zip(numbers) {
            push_i64(number.wrapping_sub(*last) as i64, &mut self.payload);
            *last = *number;
        }
        if self.kind == Kind::SeriesBranch {
            push_u64(filter.len() as u64, &mut self.payload);
            self.payload.extend_from_slice(filter);
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(&key[shared..]);
        self.entries += 1;
    }

    /// Whether the page has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Whether the page should end. A branch must have two entries, or a tree over it would have no end.
    pub fn is_full(&self) -> bool {
        let leaf = matches!(self.kind, Kind::Series | Kind::Endpoint);
        self.payload.len() >= PAGE_BYTES && (leaf || self.entries >= 2)
    }

    /// Bytes of the page so far.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The key added last, also when that was on the page before.
    pub fn last_key(&self) -> &[u8] {
        &self.key
    }
}

/// Number of bytes that both begin with.
pub fn shared_bytes(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// Goes through the entries of a page, or of pages that follow each other.
pub struct Entries {
    kind: Kind,
    /// Offset in the page at which the next entry begins.
    at: usize,
    any: bool,
    pub key: Vec<u8>,
    pub numbers: [u64; COLUMNS_MAX],
    /// Range of the page that is the entry's filter.
    filter: std::ops::Range<usize>,
}

impl Entries {
    /// A reader in front of the first entry of a page of this kind.
    pub fn new(kind: Kind) -> Entries {
        Entries { kind, at: 1, any: false, key: Vec::new(), numbers: [0; COLUMNS_MAX], filter: 0..0 }
    }

    /// The next `advance` is on a new page, whose keys are still greater than the last.
    pub fn begin_page(&mut self) {
        self.at = 1;
        self.numbers = [0; COLUMNS_MAX];
    }

    /// Goes to the next entry of the page: false when there is none, `None` when the rest of the page makes no sense.
    pub fn advance(&mut self, page: &[u8]) -> Option<bool> {
        if self.at >= page.len() {
            return Some(false);
        }
        let mut input = &page[self.at..];
        let first = self.at == 1;
        // Until the entry is found sound.
        self.at = page.len();
        let (shared, own) = (take_usize(&mut input)?, take_usize(&mut input)?);
        let (own, mut input) = input.split_at_checked(own)?;
        let replaced = self.key.get(shared..)?;
        if first && shared > 0 || self.any && own <= replaced {
            return None;
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(own);
        self.any = true;
        for number in &mut self.numbers[..self.kind.columns()] {
            *number = number.wrapping_add(take_i64(&mut input)? as u64);
        }
        if self.kind == Kind::SeriesBranch {
            let bytes = take_usize(&mut input)?;
            let start = page.len() - input.len();
            input = input.get(bytes..)?;
            self.filter = start..start + bytes;
        }
        self.at = page.len() - input.len();
        Some(true)
    }
}

fn take_usize(input: &mut &[u8]) -> Option<usize> {
    usize::try_from(take_u64(input)?).ok()
}

/// A page as its branch tells of it.
pub struct Child<'a> {
    pub offset: u64,
    pub bytes: u32,
    /// Empty where the child is no page of series.
    pub filter: &'a [u8],
}

/// The child that would hold `key`; `None` when the branch makes no sense.
pub fn child_of<'a>(page: &'a [u8], kind: Kind, key: &[u8]) -> Option<Child<'a>> {
    let mut entries = Entries::new(kind);
    let mut child = None;
    while entries.advance(page)? && entries.key.as_slice() <= key {
        let filter = &page[entries.filter.clone()];
        child = Some(Child { offset: entries.numbers[0], bytes: u32::try_from(entries.numbers[1]).ok()?, filter });
    }
    child
}

/// Ten bits and six probes let one in 120 keys through that are not there.
const FILTER_BITS: usize = 10;
const PROBES: u64 = 6;

/// The hash that filters know a key by: its CRC-32, spread over 64 bits.
pub fn hash(key: &[u8]) -> u64 {
    // The last steps of splitmix64.
    let mut z = u64::from(crc32(&[key])).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn probes(hash: u64, bits: usize) -> impl Iterator<Item = usize> {
    let (first, step) = (hash & 0xffff_ffff, hash >> 32 | 1);
    (0..PROBES).map(move |i| ((first + i * step) % bits as u64) as usize)
}

/// Replaces `filter` by one that lets these keys through.
pub fn build_filter(hashes: &[u64], filter: &mut Vec<u8>) {
    filter.clear();
    filter.resize((hashes.len() * FILTER_BITS).div_ceil(8), 0);
    for hash in hashes {
        probes(*hash, filter.len() * 8).for_each(|bit| filter[bit / 8] |= 1 << (bit % 8));
    }
}

/// False when the key of `hash` is not among those of the filter. An empty filter lets everything through.
pub fn may_hold(filter: &[u8], hash: u64) -> bool {
    filter.is_empty() || probes(hash, filter.len() * 8).all(|bit| filter[bit / 8] >> (bit % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn filters_let_theirs_through_and_few_others() {
        let key = |i: u32| hash(format!("host-{}\0cpu.core{}\0", i / 50, i % 50).as_bytes());
        let hashes: Vec<u64> = (0..200).map(key).collect();
        let mut filter = Vec::new();
        build_filter(&hashes, &mut filter);
        assert_eq!(filter.len(), 250);
        assert!(hashes.iter().all(|hash| may_hold(&filter, *hash)));
        let wrong = (200..20_200).filter(|i| may_hold(&filter, key(*i))).count();
        assert!(wrong < 20_000 / 80, "{wrong} of 20000");
    }

    fn entries() -> impl Strategy<Value = std::collections::BTreeMap<Vec<u8>, ([u64; 2], Vec<u8>)>> {
        let bytes = || prop::collection::vec(prop::sample::select(vec![0u8, 1, b'a', b'b', 255]), 0..6);
        let numbers = prop_oneof![any::<[u64; 2]>(), [0u64..9, 0..9]];
        prop::collection::btree_map(bytes(), (numbers, bytes()), 0..30)
    }

    proptest! {
        #[test]
        fn pages_read_back(expected in entries()) {
            let mut builder = Builder::new(Kind::SeriesBranch);
            for (key, (numbers, filter)) in &expected {
                builder.push(key, numbers, filter);
            }
            let page = builder.payload();
            let mut entries = Entries::new(Kind::SeriesBranch);
            for (key, (numbers, filter)) in &expected {
                prop_assert_eq!(entries.advance(page), Some(true));
                prop_assert_eq!((&entries.key, &entries.numbers[..2]), (key, &numbers[..]));
                prop_assert_eq!(&page[entries.filter.clone()], filter.as_slice());
            }
            prop_assert_eq!(entries.advance(page), Some(false));
        }

        #[test]
        fn hostile_pages_end_and_ascend(page in prop::collection::vec(0u8..6, 0..200), kind in 0..4) {
            let kind = [Kind::Series, Kind::SeriesBranch, Kind::Endpoint, Kind::EndpointBranch][kind as usize];
            let mut entries = Entries::new(kind);
            let mut last: Option<Vec<u8>> = None;
            while entries.advance(&page) == Some(true) {
                prop_assert!(last.is_none_or(|last| last < entries.key));
                last = Some(entries.key.clone());
            }
            prop_assert_eq!(entries.advance(&page), Some(false), "no end after damage");
            child_of(&page, kind, b"a");
        }
    }
}
