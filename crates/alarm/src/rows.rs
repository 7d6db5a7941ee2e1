//! Rows: things by number, and which of them have changed since they were stored.
//!
//! Invariants: whoever gets at a thing to change it has it stored again; one that is gone is named, too.

use std::collections::{BTreeMap, BTreeSet};

/// Things by number.
#[derive(Debug)]
pub struct Rows<T> {
    rows: BTreeMap<u64, T>,
    changed: BTreeSet<u64>,
}

impl<T> Rows<T> {
    /// Things that are stored already.
    pub fn stored(rows: BTreeMap<u64, T>) -> Rows<T> {
        Rows { rows, changed: BTreeSet::new() }
    }

    pub fn get(&self, id: u64) -> Option<&T> {
        self.rows.get(&id)
    }

    /// A thing that is about to change.
    pub fn change(&mut self, id: u64) -> Option<&mut T> {
        let row = self.rows.get_mut(&id)?;
        self.changed.insert(id);
        Some(row)
    }

    pub fn insert(&mut self, id: u64, row: T) {
        self.rows.insert(id, row);
        self.changed.insert(id);
    }

    pub fn remove(&mut self, id: u64) {
        if self.rows.remove(&id).is_some() {
            self.changed.insert(id);
        }
    }

    pub fn ids(&self) -> Vec<u64> {
        self.rows.keys().copied().collect()
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.rows.values()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Changes all things.
    pub fn change_all(&mut self, change: impl FnMut(&mut T)) {
        self.rows.values_mut().for_each(change);
        self.changed.extend(self.rows.keys());
    }

    /// What has changed since the last call; none is gone.
    pub fn drain(&mut self) -> Vec<(u64, Option<&T>)> {
        std::mem::take(&mut self.changed).into_iter().map(|id| (id, self.rows.get(&id))).collect()
    }
}

impl<T> std::ops::Index<u64> for Rows<T> {
    type Output = T;

    fn index(&self, id: u64) -> &T {
        &self.rows[&id]
    }
}
