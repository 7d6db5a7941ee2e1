//! Interner: each distinct text once, named by a small `u32`, for as long as somebody holds it.
//!
//! Why: a fleet repeats the same metrics and tags on every host; held once they cost a number where they are used.
//! Short-lived containers bring texts that never come again, so texts are counted and go with their last holder.
//! How: texts lie in one `String`; a span per id says where, and how often it is held; an open-addressing table of ids
//! finds them by hash. A released text leaves dead bytes behind; when they are more than half, the living ones are
//! copied together.
//! Invariants: an id means the same text from its first `acquire` to its last `release`, and is given anew afterwards;
//! the hash seed is random per process, so that a sender cannot choose colliding texts.
//! Memory: the text (twice at most, while half of the bytes are dead) + 12 bytes (span) + 6 to 11 bytes (hash slot), by
//! the most texts held at once since the last compaction; shown by `memory_bytes`, bounded by `BYTES_MAX`.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Starts of texts are `u32`: a guess at "more than anybody has" that halves the spans.
pub const BYTES_MAX: usize = u32::MAX as usize;

/// Number of dead bytes below which the living ones are not worth copying.
const DEAD_BYTES_MIN: usize = 4096;

#[derive(Clone, Copy, Default)]
struct Span {
    start: u32,
    len: u32,
    /// Number of holders; 0 for an id that means nothing now.
    holders: u32,
}

const _: () = assert!(size_of::<Span>() == 12);

/// Distinct texts by number.
#[derive(Default)]
pub struct Interner {
    texts: String,
    spans: Vec<Span>,
    /// Ids below `spans.len()` that mean nothing now.
    free: Vec<u32>,
    dead_bytes: usize,
    ids: HashTable<u32>,
    hasher: RandomState,
}

/// The interner holds `BYTES_MAX` bytes of text, or a text `u32::MAX` times.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Interner {
    /// Id of `text`, if somebody holds it.
    pub fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.ids.find(hash, |id| self.text(*id) == text).copied()
    }

    /// Holds `text` once more, given an id now if it is new; answers the id.
    pub fn acquire(&mut self, text: &str) -> Result<u32, Full> {
        if let Some(id) = self.find(text) {
            return self.hold(id).map(|()| id);
        }
        if self.texts.len() + text.len() > BYTES_MAX {
            self.compact();
        }
        if self.texts.len() + text.len() > BYTES_MAX || self.spans.len() >= u32::MAX as usize {
            return Err(Full);
        }
        let span = Span { start: self.texts.len() as u32, len: text.len() as u32, holders: 1 };
        self.texts.push_str(text);
        let id = match self.free.pop() {
            Some(id) => {
                self.spans[id as usize] = span;
                id
            }
            None => {
                self.spans.push(span);
                self.spans.len() as u32 - 1
            }
        };
        let (texts, spans, hasher) = (&self.texts, &self.spans, &self.hasher);
        self.ids.insert_unique(hasher.hash_one(text), id, |id| hasher.hash_one(text_of(texts, spans, *id)));
        Ok(id)
    }

    /// Holds a text once more that is held already, by its id.
    pub fn hold(&mut self, id: u32) -> Result<(), Full> {
        let holders = &mut self.spans[id as usize].holders;
        debug_assert!(*holders > 0, "nobody holds {id}");
        *holders = holders.checked_add(1).ok_or(Full)?;
        Ok(())
    }

    /// Gives back what one `acquire` or `hold` of this id took. True when it was the last holder: the id means nothing
    /// any more.
    pub fn release(&mut self, id: u32) -> bool {
        let span = &mut self.spans[id as usize];
        debug_assert!(span.holders > 0, "released more often than acquired");
        span.holders -= 1;
        if span.holders > 0 {
            return false;
        }
        let hash = self.hasher.hash_one(self.text(id));
        if let Ok(slot) = self.ids.find_entry(hash, |other| *other == id) {
            slot.remove();
        }
        self.dead_bytes += self.spans[id as usize].len as usize;
        self.free.push(id);
        if self.dead_bytes > DEAD_BYTES_MIN.max(self.texts.len() / 2) {
            self.compact();
        }
        true
    }

    /// Copies the living texts together, and gives back what a larger past needed.
    fn compact(&mut self) {
        let mut texts = String::with_capacity(self.texts.len() - self.dead_bytes);
        let used = self.spans.iter().rposition(|span| span.holders > 0).map_or(0, |last| last + 1);
        self.spans.truncate(used);
        self.spans.shrink_to(used + used / 4);
        self.free.clear();
        for (id, span) in self.spans.iter_mut().enumerate() {
            if span.holders == 0 {
                self.free.push(id as u32);
                continue;
            }
            let start = span.start as usize;
            span.start = texts.len() as u32;
            texts.push_str(&self.texts[start..start + span.len as usize]);
        }
        self.free.shrink_to_fit();
        self.texts = texts;
        self.dead_bytes = 0;
        let (texts, spans, hasher) = (&self.texts, &self.spans, &self.hasher);
        self.ids.shrink_to(self.ids.len() * 2, |id| hasher.hash_one(text_of(texts, spans, *id)));
    }

    /// The text of an id that is held; of any other what happens to be there, or a panic.
    pub fn text(&self, id: u32) -> &str {
        text_of(&self.texts, &self.spans, id)
    }

    /// Count of the holders of an id; 0 for one that means nothing.
    pub fn holders(&self, id: u32) -> u32 {
        self.spans.get(id as usize).map_or(0, |span| span.holders)
    }

    /// Count of the texts that are held.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no text is held.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// An id above all that are held.
    pub fn ids_end(&self) -> u32 {
        self.spans.len() as u32
    }

    /// Bytes that texts, spans and hash table hold.
    pub fn memory_bytes(&self) -> usize {
        self.texts.capacity()
            + self.spans.capacity() * size_of::<Span>()
            + self.free.capacity() * size_of::<u32>()
            + self.ids.allocation_size()
    }
}

fn text_of<'a>(texts: &'a str, spans: &[Span], id: u32) -> &'a str {
    let span = spans[id as usize];
    &texts[span.start as usize..span.start as usize + span.len as usize]
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
                assert_eq!(interner.acquire(text), Ok(i as u32), "round {round}");
            }
        }
        for (i, text) in texts.iter().enumerate() {
            assert_eq!(interner.text(i as u32), *text);
            assert_eq!(interner.find(text), Some(i as u32));
            assert_eq!(interner.holders(i as u32), 2);
        }
        assert_eq!(interner.find("cpu"), None);
        assert_eq!(interner.len(), 4);
    }

    #[test]
    fn many_texts_survive_growth() {
        let mut interner = Interner::default();
        for i in 0..10_000 {
            assert_eq!(interner.acquire(&format!("text {i}")), Ok(i));
        }
        for i in 0..10_000 {
            assert_eq!(interner.find(&format!("text {i}")), Some(i));
        }
    }

    #[test]
    fn a_text_goes_with_its_last_holder_and_its_id_is_given_anew() {
        let mut interner = Interner::default();
        let (a, b) = (interner.acquire("a").expect("room"), interner.acquire("b").expect("room"));
        assert_eq!(interner.acquire("a"), Ok(a));
        assert!(!interner.release(a));
        assert_eq!(interner.find("a"), Some(a));
        assert!(interner.release(a));
        assert_eq!((interner.find("a"), interner.holders(a), interner.len()), (None, 0, 1));
        assert_eq!(interner.acquire("c"), Ok(a));
        assert_eq!((interner.text(a), interner.text(b)), ("c", "b"));
    }

    #[test]
    fn texts_that_come_and_go_take_no_more_room() {
        let mut interner = Interner::default();
        let stays: Vec<u32> = (0..100).map(|i| interner.acquire(&format!("stays {i}")).expect("room")).collect();
        let mut most = 0;
        for generation in 0..100 {
            let name = |i| format!("container {generation:03}-{i:03} with a long name");
            let ids: Vec<u32> = (0..1000).map(|i| interner.acquire(&name(i)).expect("room")).collect();
            if generation < 10 {
                most = most.max(interner.memory_bytes());
            }
            assert!(interner.memory_bytes() <= most, "{} of {most}", interner.memory_bytes());
            ids.iter().for_each(|id| assert!(interner.release(*id)));
        }
        for (i, id) in stays.iter().enumerate() {
            assert_eq!(interner.text(*id), format!("stays {i}"));
            assert_eq!(interner.find(&format!("stays {i}")), Some(*id));
        }
        assert!(interner.memory_bytes() < most / 4, "{} of {most}", interner.memory_bytes());
    }
}
