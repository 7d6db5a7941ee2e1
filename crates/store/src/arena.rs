//! Arena: the memory of all hot chunks of a shard, in 32-byte blocks chained by number.
//!
//! Why: a heap object per series costs a pointer, a header and slack, and growing one copies it. Chained small blocks
//! grow by 32 bytes and give back old points by dropping the far end of the chain.
//! How: pages of 2,048 blocks; a block is the number of the block before it and 28 bytes of records. Records never
//! straddle blocks: the rest of a full block is [`chunk::PAD`], which is zero. Free blocks are chained the same way.
//! One size only, against size classes: most chains are empty or short (constant series need none), and a long chain
//! loses 12 % to links and about 4 bytes a block to padding, less than half-empty large blocks would.
//! Memory: 32 bytes per block in use, pages are kept for reuse; shown as `hot_bytes`.

use crate::chunk;

pub const PAYLOAD: usize = 28;
const BLOCKS_PER_PAGE: usize = 2048;

/// No block: the end of a chain.
pub const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Block {
    pub before: u32,
    pub payload: [u8; PAYLOAD],
}

const _: () = assert!(size_of::<Block>() == 32 && PAYLOAD >= chunk::RECORD_MAX);

#[derive(Default)]
pub struct Arena {
    pages: Vec<Box<[Block]>>,
    /// Blocks of the last page not used yet begin here.
    fresh: usize,
    free: Vec<u32>,
}

impl Arena {
    pub fn block(&self, number: u32) -> &Block {
        &self.pages[number as usize / BLOCKS_PER_PAGE][number as usize % BLOCKS_PER_PAGE]
    }

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
            let empty = Block { before: NONE, payload: [chunk::PAD; PAYLOAD] };
            self.pages.push(vec![empty; BLOCKS_PER_PAGE].into_boxed_slice());
        }
        let number = self.fresh as u32;
        assert!(number != NONE, "four billion blocks are 128 GiB; the log would have been flushed long before");
        self.fresh += 1;
        number
    }

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

    pub fn memory_bytes(&self) -> usize {
        self.pages.len() * BLOCKS_PER_PAGE * size_of::<Block>() + self.free.capacity() * size_of::<u32>()
    }
}
