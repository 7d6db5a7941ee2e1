//! Interner: each distinct text once, named by a dense `u32`.
//!
//! Why: a fleet repeats the same metrics and tags on every host; held once they cost a number where they are used.
//! How: all texts lie end to end in one `String`; an open-addressing table of ids finds them by hash.
//! Invariants: ids are given in order from 0 and never change; texts are never freed (an interner lives as long as its
//! owner); the hash seed is random per process, so that a sender cannot choose colliding texts.
//! Memory: the text + 4 bytes (its end) + 6 to 11 bytes (hash slot); shown by `memory_bytes`, bounded by `BYTES_MAX`.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Ends of texts are `u32`: a guess at "more than anybody has" that halves the ends.
pub const BYTES_MAX: usize = u32::MAX as usize;

#[derive(Default)]
pub struct Interner {
    texts: String,
    ends: Vec<u32>,
    ids: HashTable<u32>,
    hasher: RandomState,
}

/// The interner holds `BYTES_MAX` bytes of text.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Interner {
    pub fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.ids.find(hash, |id| self.text(*id) == text).copied()
    }

    /// The id of `text`, given now if it is new.
    pub fn intern(&mut self, text: &str) -> Result<u32, Full> {
        let hash = self.hasher.hash_one(text);
        if let Some(id) = self.ids.find(hash, |id| text_of(&self.texts, &self.ends, *id) == text) {
            return Ok(*id);
        }
        let end = self.texts.len() + text.len();
        if end > BYTES_MAX || self.ends.len() >= u32::MAX as usize {
            return Err(Full);
        }
        let id = self.ends.len() as u32;
        self.texts.push_str(text);
        self.ends.push(end as u32);
        let (texts, ends, hasher) = (&self.texts, &self.ends, &self.hasher);
        self.ids.insert_unique(hash, id, |id| hasher.hash_one(text_of(texts, ends, *id)));
        Ok(id)
    }

    /// The text of an id that this interner gave; panics on any other.
    pub fn text(&self, id: u32) -> &str {
        text_of(&self.texts, &self.ends, id)
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn memory_bytes(&self) -> usize {
        self.texts.capacity() + self.ends.capacity() * size_of::<u32>() + self.ids.allocation_size()
    }
}

fn text_of<'a>(texts: &'a str, ends: &[u32], id: u32) -> &'a str {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] as usize };
    &texts[start..ends[id] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_dense_stable_ids() {
        let mut interner = Interner::default();
        let texts = ["", "cpu.idle", "é中", "cpu.idle2"];
        for round in 0..2 {
            for (i, text) in texts.iter().enumerate() {
                assert_eq!(interner.intern(text), Ok(i as u32), "round {round}");
            }
        }
        for (i, text) in texts.iter().enumerate() {
            assert_eq!(interner.text(i as u32), *text);
            assert_eq!(interner.find(text), Some(i as u32));
        }
        assert_eq!(interner.find("cpu"), None);
        assert_eq!(interner.len(), 4);
    }

    #[test]
    fn many_texts_survive_growth() {
        let mut interner = Interner::default();
        for i in 0..10_000 {
            assert_eq!(interner.intern(&format!("text {i}")), Ok(i));
        }
        for i in 0..10_000 {
            assert_eq!(interner.find(&format!("text {i}")), Some(i));
        }
    }
}
