//! Bindings: which rules a series has.
//!
//! Why: this is the only memory that a judged series costs, and the first question about each point. How: one slot of a
//! table keyed by series; most judged series have one rule, whose number stands in the slot itself, others the number
//! of a shared list.
//! Invariants: a series without rules is not in the table. "Open" may be said of a series that has no open PROBLEM any
//! more, never the other way round.
//! Memory: 9 bytes per slot, of which 44 to 87 % are used, and 1 to 2 in the filter: 11 to 23 bytes per bound series;
//! nothing for others.

use crate::filter::Filter;
use crate::list::{EMPTY, Lists};
use crate::state::hash;
use hashbrown::HashTable;
use model::SeriesId;

/// The rules of a series, in 32 bits: flags and the number of a rule or of a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BoundRules(u32);

const OPEN: u32 = 1 << 31;
const LIST: u32 = 1 << 30;
const NUMBER: u32 = LIST - 1;

#[derive(Clone, Copy)]
struct Binding {
    series: SeriesId,
    bound: BoundRules,
}

const _: () = assert!(size_of::<Binding>() == 8);

/// Slots are given back when fewer than one in this many is used.
const SHRINK_BELOW: usize = 8;

pub(crate) struct Bindings {
    table: HashTable<Binding>,
    filter: Filter,
    lists: Lists,
    pairs: usize,
}

impl BoundRules {
    /// Whether a PROBLEM may be open on the series.
    pub fn is_open(self) -> bool {
        self.0 & OPEN != 0
    }

    fn list(self) -> Option<u32> {
        (self.0 & LIST != 0).then_some(self.0 & NUMBER)
    }
}

impl Bindings {
    pub fn new() -> Bindings {
        Bindings { table: HashTable::new(), filter: Filter::with_capacity(0), lists: Lists::new(), pairs: 0 }
    }

    #[inline]
    pub fn find(&self, series: SeriesId) -> Option<BoundRules> {
        self.table.find(hash(series), |binding| binding.series == series).map(|binding| binding.bound)
    }

    /// Whether a series has rules: a quicker question than [`Bindings::find`] where it has none.
    #[inline]
    pub fn contains(&self, series: SeriesId) -> bool {
        self.filter.may_contain(series) && self.find(series).is_some()
    }

    /// The numbers of the rules. A single one is put into `one`, to be borrowed from there.
    pub fn rules<'a>(&'a self, bound: BoundRules, one: &'a mut u32) -> &'a [u32] {
        match bound.list() {
            Some(list) => self.lists.members(list),
            None => {
                *one = bound.0 & NUMBER;
                std::slice::from_ref(one)
            }
        }
    }

    /// Binds the series to these rules and no others.
    pub fn set(&mut self, series: SeriesId, rules: &[u32], open: bool) {
        if rules.is_empty() {
            return self.remove(series);
        }
        let number = match rules {
            [one] => *one,
            _ => LIST | self.lists.acquire(rules),
        };
        let bound = BoundRules(number | if open { OPEN } else { 0 });
        self.pairs += rules.len();
        let entry = self.table.entry(hash(series), |binding| binding.series == series, |binding| hash(binding.series));
        match entry {
            hashbrown::hash_table::Entry::Occupied(mut entry) => {
                let old = std::mem::replace(&mut entry.get_mut().bound, bound);
                self.let_go(old);
            }
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert(Binding { series, bound });
                self.filter.insert(series);
                self.grow_filter();
            }
        }
    }

    pub fn remove(&mut self, series: SeriesId) {
        let Ok(entry) = self.table.find_entry(hash(series), |binding| binding.series == series) else { return };
        let (binding, _) = entry.remove();
        self.let_go(binding.bound);
        if self.table.len() < self.table.capacity() / SHRINK_BELOW {
            self.table.shrink_to(self.table.len() * 2, |binding| hash(binding.series));
            self.refill_filter();
        }
    }

    pub fn set_open(&mut self, series: SeriesId, open: bool) {
        if let Some(binding) = self.table.find_mut(hash(series), |binding| binding.series == series) {
            binding.bound.0 = binding.bound.0 & !OPEN | if open { OPEN } else { 0 };
        }
    }

    /// Renumbers the rules of all series; a series whose rules are gone stays, with none, until it is set anew.
    pub fn renumber(&mut self, successor: impl Fn(u32) -> Option<u32>) {
        self.lists.renumber(&successor);
        // A good moment to forget the series that are no longer bound.
        self.refill_filter();
        self.pairs = 0;
        for binding in &mut self.table {
            let flags = binding.bound.0 & OPEN;
            match binding.bound.list() {
                Some(list) => self.pairs += self.lists.members(list).len(),
                None => match successor(binding.bound.0 & NUMBER) {
                    Some(rule) => {
                        self.pairs += 1;
                        binding.bound = BoundRules(rule | flags);
                    }
                    None => binding.bound = BoundRules(LIST | EMPTY),
                },
            }
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn pairs(&self) -> usize {
        self.pairs
    }

    pub fn memory_bytes(&self) -> usize {
        self.table.allocation_size() + self.filter.memory_bytes() + self.lists.memory_bytes()
    }

    fn grow_filter(&mut self) {
        if self.table.len() > self.filter.capacity() {
            self.refill_filter();
        }
    }

    fn refill_filter(&mut self) {
        self.filter = Filter::with_capacity(self.table.len());
        self.table.iter().for_each(|binding| self.filter.insert(binding.series));
    }

    fn let_go(&mut self, bound: BoundRules) {
        match bound.list() {
            Some(list) => {
                self.pairs -= self.lists.members(list).len();
                self.lists.release(list);
            }
            None => self.pairs -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(bindings: &Bindings, series: u32) -> Vec<u32> {
        let Some(bound) = bindings.find(SeriesId(series)) else { return Vec::new() };
        bindings.rules(bound, &mut 0).to_vec()
    }

    #[test]
    fn sets_replaces_and_removes() {
        let mut bindings = Bindings::new();
        bindings.set(SeriesId(1), &[5], false);
        bindings.set(SeriesId(2), &[5, 6], true);
        assert_eq!((rules(&bindings, 1), rules(&bindings, 2), rules(&bindings, 3)), (vec![5], vec![5, 6], vec![]));
        assert_eq!((bindings.len(), bindings.pairs()), (2, 3));
        bindings.set(SeriesId(2), &[0], false);
        assert_eq!((rules(&bindings, 2), bindings.pairs()), (vec![0], 2));
        bindings.set(SeriesId(1), &[], false);
        assert_eq!((bindings.find(SeriesId(1)), bindings.len(), bindings.pairs()), (None, 1, 1));
    }

    #[test]
    fn open_flag_survives_renumbering() {
        let mut bindings = Bindings::new();
        bindings.set(SeriesId(1), &[5], true);
        bindings.set(SeriesId(2), &[5, 6], true);
        bindings.set(SeriesId(3), &[6], true);
        bindings.renumber(|rule| (rule == 5).then_some(1));
        assert_eq!((rules(&bindings, 1), rules(&bindings, 2), rules(&bindings, 3)), (vec![1], vec![1], vec![]));
        assert!(bindings.find(SeriesId(1)).is_some_and(BoundRules::is_open));
        assert!(bindings.find(SeriesId(2)).is_some_and(BoundRules::is_open));
        assert_eq!(bindings.pairs(), 2);
        bindings.set_open(SeriesId(1), false);
        assert!(!bindings.find(SeriesId(1)).is_some_and(BoundRules::is_open));
    }

    #[test]
    fn gives_slots_back() {
        let mut bindings = Bindings::new();
        (0..100_000).for_each(|series| bindings.set(SeriesId(series), &[1], false));
        let full = bindings.memory_bytes();
        (0..99_990).for_each(|series| bindings.remove(SeriesId(series)));
        assert!(bindings.memory_bytes() < full / 100, "{} of {full}", bindings.memory_bytes());
        assert_eq!(rules(&bindings, 99_999), [1]);
    }
}
