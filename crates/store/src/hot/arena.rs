//! Arena: the memory of all hot chunks of a shard, in 32-byte blocks chained by number.
//!
//! Why: a heap object per series costs a pointer, a header and slack, and growing one copies it. Chained small blocks
//! grow by 32 bytes and give back old points by dropping the far end of the chain.
//! How: pages of 2,048 blocks; a block is the number of the block before it and 28 bytes of records. Records never
//! straddle blocks: the rest of a full block is [`chunk::PAD`], which is zero. Free blocks are chained the same way.
//! One size only, against size classes: most chains are empty or short (constant series need none), and a long chain
//! loses 12 % to links and about 4 bytes a block to padding, less than half-empty large blocks would.
//! Memory: 32 bytes per block in use; empty pages are kept for reuse until `give_back_empty_pages`; shown as
//! `hot_bytes` and in [`crate::Memory`].

use super::chunk;

/// Bytes of a block that hold records.
pub const PAYLOAD: usize = 28;
const BLOCKS_PER_PAGE: usize = 2048;

/// No block: the end of a chain.
pub const NONE: u32 = u32::MAX;

/// Block of a chain: records, and the block with older ones.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Block {
    pub before: u32,
    pub payload: [u8; PAYLOAD],
}

const _: () = assert!(size_of::<Block>() == 32 && PAYLOAD >= chunk::RECORD_MAX);

/// Pages of blocks, of which some are free.
#[derive(Default)]
pub struct Arena {
    /// Pages by number; a page that was given back has no blocks.
    pages: Vec<Box<[Block]>>,
    /// Pages that were given back.
    absent: Vec<u32>,
    /// Blocks of the last page not used yet begin here.
    fresh: usize,
    free: Vec<u32>,
}

impl Arena {
    /// The block of a number.
    pub fn block(&self, number: u32) -> &Block {
        &self.pages[number as usize / BLOCKS_PER_PAGE][number as usize % BLOCKS_PER_PAGE]
    }

    /// The block of a number, to be written.
    pub fn block_mut(&mut self, number: u32) -> &mut Block {
        &mut self.pages[number as usize / BLOCKS_PER_PAGE][number as usize % BLOCKS_PER_PAGE]
    }

    /// An empty block behind `before`.
    pub fn take(&mut self, before: u32) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| self.take_fresh());
        *self.block_mut(number) = Block { before, payload: [chunk::PAD; PAYLOAD] };
        number
    }

    fn take_fresh(&mut self) -> u32 {
        if self.fresh == self.pages.len() * BLOCKS_PER_PAGE {
            if let Some(page) = self.absent.pop() {
                self.pages[page as usize] = new_page();
                let first = page * BLOCKS_PER_PAGE as u32;
                self.free.extend((first + 1..first + BLOCKS_PER_PAGE as u32).rev());
                return first;
            }
            self.pages.push(new_page());
        }
        let number = self.fresh as u32;
        assert!(number != NONE, "four billion blocks are 128 GiB; the log would have been flushed long before");
        self.fresh += 1;
        number
    }

    /// Gives back one block.
    pub fn give_back(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Gives back `last` and everything before it.
    pub fn give_back_chain(&mut self, mut last: u32) {
        while last != NONE {
            let before = self.block(last).before;
            self.give_back(last);
            last = before;
        }
    }

    /// Lets go of the pages in which no block is in use: for after many series went at once.
    pub fn give_back_empty_pages(&mut self) {
        let page_of = |block: u32| block as usize / BLOCKS_PER_PAGE;
        let mut free = vec![0; self.pages.len()];
        self.free.iter().for_each(|block| free[page_of(*block)] += 1);
        let mut gave = false;
        for (page, free) in free.iter().enumerate() {
            // The last page may have fresh blocks, so it is never full of free ones unless all were used.
            if *free == BLOCKS_PER_PAGE {
                self.pages[page] = Box::default();
                self.absent.push(page as u32);
                gave = true;
            }
        }
        if gave {
            self.free.retain(|block| free[page_of(*block)] < BLOCKS_PER_PAGE);
            self.free.shrink_to(self.free.len() * 2);
        }
    }

    /// Whether most of it is free, in pages that are each in use a little: then it is worth copying what lives.
    pub fn is_sparse(&self) -> bool {
        let pages = self.pages.len() - self.absent.len();
        pages > 1 && self.free.len() > pages * BLOCKS_PER_PAGE / 2
    }

    /// Copies a chain of another arena; returns its last block here.
    pub fn copy_chain(&mut self, other: &Arena, last: u32) -> u32 {
        let Block { before, payload } = *other.block(last);
        // The older blocks are linked as they are met: the chain is walked once, newest first.
        let copied = self.take(NONE);
        self.block_mut(copied).payload = payload;
        let (mut newer, mut older) = (copied, before);
        while older != NONE {
            let Block { before, payload } = *other.block(older);
            let number = self.take(NONE);
            self.block_mut(number).payload = payload;
            self.block_mut(newer).before = number;
            (newer, older) = (number, before);
        }
        copied
    }

    /// Bytes that the pages hold, free blocks included.
    pub fn memory_bytes(&self) -> usize {
        (self.pages.len() - self.absent.len()) * BLOCKS_PER_PAGE * size_of::<Block>()
            + (self.free.capacity() + self.absent.capacity()) * size_of::<u32>()
            + self.pages.capacity() * size_of::<Box<[Block]>>()
    }
}

fn new_page() -> Box<[Block]> {
    vec![Block { before: NONE, payload: [chunk::PAD; PAYLOAD] }; BLOCKS_PER_PAGE].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_copied_with_what_they_hold() {
        let (mut arena, mut copy) = (Arena::default(), Arena::default());
        let mut chains = [NONE, NONE];
        for i in 0..1000 {
            let chain = &mut chains[i % 2];
            *chain = arena.take(*chain);
            arena.block_mut(*chain).payload[0] = i as u8;
        }
        let payloads = |arena: &Arena, last: u32| -> Vec<u8> {
            let before = |number: &u32| Some(arena.block(*number).before).filter(|before| *before != NONE);
            std::iter::successors(Some(last), before).map(|number| arena.block(number).payload[0]).collect()
        };
        for last in chains {
            let copied = copy.copy_chain(&arena, last);
            assert_eq!(payloads(&copy, copied), payloads(&arena, last));
        }
    }

    #[test]
    fn empty_pages_are_given_back_and_taken_again() {
        let mut arena = Arena::default();
        let blocks: Vec<u32> = (0..BLOCKS_PER_PAGE * 3 + 5).map(|_| arena.take(NONE)).collect();
        let full = arena.memory_bytes();
        let (kept, gone): (Vec<u32>, Vec<u32>) = blocks.iter().partition(|block| **block == BLOCKS_PER_PAGE as u32);
        arena.block_mut(kept[0]).payload[0] = 7;
        gone.iter().for_each(|block| arena.give_back(*block));
        arena.give_back_empty_pages();
        assert!(arena.memory_bytes() < full * 3 / 4, "two of four pages went: {} of {full}", arena.memory_bytes());
        let mut again: Vec<u32> = (0..BLOCKS_PER_PAGE * 5).map(|_| arena.take(NONE)).collect();
        assert_eq!(arena.block(kept[0]).payload[0], 7);
        again.push(kept[0]);
        again.sort_unstable();
        assert!(again.is_sorted_by(|a, b| a < b), "no block is given twice");
    }
}
