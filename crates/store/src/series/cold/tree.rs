//! Tree: pages with branches above them, written once from sorted entries, bottom up.
//!
//! How: entries fill a page; a full page is written, and its place is an entry of the page one level up, under the
//! shortest key that tells it from the page before. The page that is alone on its level at the end is the root.
//! Memory: one page per level, of which tens of millions of entries need four.

use super::output::Output;
use super::page::{self, Builder, Kind};
use crate::error::Result;

/// The first page of a tree, and how many levels of branches there are: 0 when it is a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Root {
    pub offset: u64,
    pub bytes: u32,
    pub height: u32,
}

/// Writer of a sorted tree: the open page of each level.
pub struct TreeWriter {
    branch: Kind,
    levels: Vec<Level>,
    /// Hashes of the keys on the open leaf, for its filter.
    hashes: Vec<u64>,
    filter: Vec<u8>,
    pub entries: u64,
}

struct Level {
    page: Builder,
    /// The least key of the open page, cut to what tells it from the last key before.
    separator: Vec<u8>,
}

impl TreeWriter {
    /// An empty tree with pages of these kinds.
    pub fn new(leaf: Kind, branch: Kind) -> TreeWriter {
        let levels = vec![Level { page: Builder::new(leaf), separator: Vec::new() }];
        TreeWriter { branch, levels, hashes: Vec::new(), filter: Vec::new(), entries: 0 }
    }

    /// Adds an entry; false, and nothing is added, when its key is not greater than the last.
    pub fn push(&mut self, key: &[u8], numbers: &[u64], out: &mut Output<'_>) -> Result<bool> {
        let leaf = &mut self.levels[0];
        let last = leaf.page.last_key();
        if self.entries > 0 {
            if key <= last {
                return Ok(false);
            }
            if leaf.page.is_empty() {
                let shared = page::shared_bytes(last, key);
                leaf.separator.clear();
                leaf.separator.extend_from_slice(&key[..shared + 1]);
            }
        }
        leaf.page.push(key, numbers, &[]);
        self.entries += 1;
        if self.branch == Kind::SeriesBranch {
            self.hashes.push(page::hash(key));
        }
        self.end_full_pages(out)?;
        Ok(true)
    }

    fn end_full_pages(&mut self, out: &mut Output<'_>) -> Result<()> {
        let mut level = 0;
        while self.levels[level].page.is_full() {
            self.end_page(level, out)?;
            level += 1;
        }
        Ok(())
    }

    /// Writes the open page of a level and enters it one level up.
    fn end_page(&mut self, level: usize, out: &mut Output<'_>) -> Result<()> {
        let (offset, bytes) = out.push_page(self.levels[level].page.payload())?;
        if self.levels.len() == level + 1 {
            self.levels.push(Level { page: Builder::new(self.branch), separator: Vec::new() });
        }
        let (below, above) = self.levels.split_at_mut(level + 1);
        let (ended, parent) = (&mut below[level], &mut above[0]);
        self.filter.clear();
        if level == 0 {
            page::build_filter(&self.hashes, &mut self.filter);
            self.hashes.clear();
        }
        if parent.page.is_empty() {
            parent.separator.clone_from(&ended.separator);
        }
        parent.page.push(&ended.separator, &[offset, u64::from(bytes)], &self.filter);
        ended.page.begin_next();
        Ok(())
    }

    /// Writes what is open. There must be an entry.
    pub fn finish(mut self, out: &mut Output<'_>) -> Result<Root> {
        let mut level = 0;
        while level + 1 < self.levels.len() {
            if !self.levels[level].page.is_empty() {
                self.end_page(level, out)?;
            }
            level += 1;
        }
        let (offset, bytes) = out.push_page(self.levels[level].page.payload())?;
        Ok(Root { offset, bytes, height: level as u32 })
    }
}
