//! Lists: distinct lists of rules, shared by the series that have the same.
//!
//! Why: 1,000 hosts with the same templates have the same few hundred lists, so a series holds a list's number only.
//! How: members stand end to end in one array; a table finds a list by content; lists count their uses. Space of
//! dropped lists is given back by moving the others together once it is more than half.
//! Invariants: list 0 is empty, always there and never counted; a list in use is never moved to another number.
//! Memory: 4 bytes per member and about 22 bytes per distinct list. Bounded by `RULES_PER_SERIES_MAX` × bound series.

use hashbrown::HashTable;

/// The list without members.
pub(crate) const EMPTY: u32 = 0;

/// Dropped members below this many are not worth moving the others. A guess: 4 KiB.
const DEAD_MIN: usize = 1024;

pub(crate) struct Lists {
    members: Vec<u32>,
    lists: Vec<List>,
    by_content: HashTable<u32>,
    free: Vec<u32>,
    /// Members that belong to dropped lists.
    dead: usize,
}

#[derive(Clone, Copy)]
struct List {
    start: u32,
    len: u32,
    uses: u32,
}

impl Lists {
    pub fn new() -> Lists {
        let empty = List { start: 0, len: 0, uses: 0 };
        Lists { members: Vec::new(), lists: vec![empty], by_content: HashTable::new(), free: Vec::new(), dead: 0 }
    }

    pub fn members(&self, list: u32) -> &[u32] {
        members(&self.members, self.lists[list as usize])
    }

    /// The number of the list with these members, with one use more.
    pub fn acquire(&mut self, rules: &[u32]) -> u32 {
        if rules.is_empty() {
            return EMPTY;
        }
        let same = |list: &u32| members(&self.members, self.lists[*list as usize]) == rules;
        if let Some(&list) = self.by_content.find(hash(rules), same) {
            self.lists[list as usize].uses += 1;
            return list;
        }
        let start = u32::try_from(self.members.len()).expect("rule lists stay below 16 GiB");
        self.members.extend_from_slice(rules);
        let list = self.number(List { start, len: rules.len() as u32, uses: 1 });
        let (members_of_all, lists) = (&self.members, &self.lists);
        self.by_content.insert_unique(hash(rules), list, |list| hash(members(members_of_all, lists[*list as usize])));
        list
    }

    /// Takes one use away; without any the list is dropped.
    pub fn release(&mut self, list: u32) {
        if list == EMPTY {
            return;
        }
        let entry = &mut self.lists[list as usize];
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        self.dead += entry.len as usize;
        if let Ok(slot) =
            self.by_content.find_entry(hash(members(&self.members, self.lists[list as usize])), |l| *l == list)
        {
            slot.remove();
        }
        self.lists[list as usize].len = 0;
        self.free.push(list);
        if self.dead > DEAD_MIN && self.dead > self.members.len() / 2 {
            self.compact();
        }
    }

    /// Renumbers all members; those without a successor are left out. Lists keep their numbers.
    pub fn renumber(&mut self, successor: impl Fn(u32) -> Option<u32>) {
        for list in &mut self.lists {
            let start = list.start as usize;
            let mut kept = start;
            for at in start..start + list.len as usize {
                if let Some(new) = successor(self.members[at]) {
                    self.members[kept] = new;
                    kept += 1;
                }
            }
            self.dead += start + list.len as usize - kept;
            list.len = (kept - start) as u32;
        }
        self.by_content.clear();
        for number in 1..self.lists.len() as u32 {
            let list = self.lists[number as usize];
            if list.uses == 0 {
                continue;
            }
            // Two lists may have become equal; both stay until their series are bound anew.
            let (members_of_all, lists) = (&self.members, &self.lists);
            let content = hash(members(members_of_all, list));
            self.by_content.insert_unique(content, number, |list| hash(members(members_of_all, lists[*list as usize])));
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.members.capacity() * size_of::<u32>()
            + self.lists.capacity() * size_of::<List>()
            + self.free.capacity() * size_of::<u32>()
            + self.by_content.allocation_size()
    }

    fn number(&mut self, list: List) -> u32 {
        match self.free.pop() {
            Some(number) => {
                self.lists[number as usize] = list;
                number
            }
            None => {
                self.lists.push(list);
                self.lists.len() as u32 - 1
            }
        }
    }

    fn compact(&mut self) {
        let mut members = Vec::with_capacity(self.members.len() - self.dead);
        for list in &mut self.lists {
            let start = list.start as usize;
            list.start = members.len() as u32;
            members.extend_from_slice(&self.members[start..start + list.len as usize]);
        }
        self.members = members;
        self.dead = 0;
    }
}

fn members(members: &[u32], list: List) -> &[u32] {
    &members[list.start as usize..list.start as usize + list.len as usize]
}

fn hash(rules: &[u32]) -> u64 {
    // FNV-1a over whole numbers, folded as in state.rs: rule numbers are ours, nobody can choose them to collide.
    let mixed = rules.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, rule| {
        let mixed = (hash ^ u64::from(*rule)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 32)
    });
    mixed ^ (mixed << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_one() {
        let mut lists = Lists::new();
        let a = lists.acquire(&[1, 2]);
        assert_eq!(lists.acquire(&[1, 2]), a);
        assert_ne!(lists.acquire(&[2, 1]), a);
        assert_eq!(lists.acquire(&[]), EMPTY);
        assert_eq!(lists.members(a), [1, 2]);
    }

    #[test]
    fn a_dropped_list_gives_its_number_and_space_back() {
        let mut lists = Lists::new();
        let kept = lists.acquire(&[7, 8]);
        for round in 0..10_000u32 {
            let list = lists.acquire(&[round, round + 1, round + 2]);
            assert_eq!(lists.members(list), [round, round + 1, round + 2]);
            lists.release(list);
        }
        assert_eq!(lists.members(kept), [7, 8]);
        assert!(lists.lists.len() <= 3 && lists.members.len() <= 2 * DEAD_MIN + 8);
    }

    #[test]
    fn renumbering_keeps_order_and_lists_apart() {
        let mut lists = Lists::new();
        let a = lists.acquire(&[0, 1, 2]);
        let b = lists.acquire(&[0, 2]);
        lists.renumber(|rule| (rule != 1).then_some(rule + 10));
        assert_eq!((lists.members(a), lists.members(b)), (&[10, 12][..], &[10, 12][..]));
        lists.release(a);
        assert_eq!(lists.acquire(&[10, 12]), b);
        lists.release(b);
        lists.release(b);
        assert_eq!(lists.by_content.len(), 0);
    }
}
