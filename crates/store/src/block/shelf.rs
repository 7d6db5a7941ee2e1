//! Shelf: the blocks that count now, and those whose files are to go.
//!
//! How: the catalog of now is a pointer; who reads takes a copy of it, who changes blocks puts another catalog in its
//! place. A block that left the catalog is *doomed*: its file is removed when nobody reads it any more.
//! Invariants: no file is opened, removed or synced while a lock is held; a doomed block is in no catalog that is
//! handed out, so nobody gets a new handle on it.
//! Memory: the catalog (see there), and 24 bytes per doomed block.

use super::catalog::Catalog;
use super::file::Block;
use crate::error::{Error, Result};
use crate::locks;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use stdx::{Disk, RankedMutex, RankedRwLock};

/// The catalog of now, and the doomed blocks.
pub struct Shelf {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Held for the copy of a pointer.
    catalog: RankedRwLock<Arc<Catalog>>,
    /// Held by whoever makes a new catalog from the one there is.
    change: RankedMutex<()>,
    /// Held to look at the list.
    doomed: RankedMutex<Vec<Doomed>>,
    next_number: AtomicU64,
}

/// A block whose file is to go.
pub struct Doomed {
    pub block: Arc<Block>,
    /// Whether the file is set aside instead of removed.
    pub damaged: bool,
}

impl Shelf {
    /// A shelf with the blocks of `dir`; blocks written from now on have numbers from `next_number` on.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, catalog: Catalog, next_number: u64) -> Shelf {
        Shelf {
            disk,
            dir,
            catalog: RankedRwLock::new(locks::CATALOG, Arc::new(catalog)),
            change: RankedMutex::new(locks::CATALOG_CHANGE, ()),
            doomed: RankedMutex::new(locks::DOOMED, Vec::new()),
            next_number: AtomicU64::new(next_number),
        }
    }

    /// The directory that the blocks are in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A number that no block has.
    pub fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Relaxed)
    }

    /// The blocks as of now. Their files stay as long as the answer is held.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Puts other blocks in the place of those there are, unless `change` answers `None`; says whether it did.
    pub fn update(&self, change: impl FnOnce(&[Arc<Block>]) -> Option<Vec<Arc<Block>>>) -> bool {
        let _change = self.change.lock();
        let Some(blocks) = change(self.catalog().blocks()) else { return false };
        let catalog = Arc::new(Catalog::new(blocks));
        *self.catalog.write() = catalog;
        true
    }

    /// Notes blocks that left the catalog.
    pub fn doom(&self, blocks: impl Iterator<Item = Doomed>) {
        self.doomed.lock().extend(blocks);
    }

    /// Removes the files of doomed blocks that nobody reads. Returns how many; those that cannot be removed are tried
    /// again with the next sweep. `before` is called before the first one is.
    pub fn sweep(&self, before: impl FnOnce() -> Result<()>) -> Result<usize> {
        let unread: Vec<Doomed> =
            self.doomed.lock().extract_if(.., |doomed| Arc::strong_count(&doomed.block) == 1).collect();
        if unread.is_empty() {
            return Ok(0);
        }
        if let Err(error) = before() {
            self.doom(unread.into_iter());
            return Err(error);
        }
        let (mut removed, mut failed) = (0, Ok(()));
        for doomed in unread {
            let block = &doomed.block;
            let result = if doomed.damaged { block.set_aside(&*self.disk) } else { block.remove(&*self.disk) };
            removed += usize::from(result.is_ok());
            if result.is_err() {
                self.doom([doomed].into_iter());
                failed = result;
            }
        }
        if removed > 0 {
            // What came back after a power cut, beside what was made of it and also went, would count anew.
            self.disk.sync_dir(&self.dir).map_err(Error::disk("sync", &self.dir))?;
        }
        failed.map(|()| removed)
    }

    /// Files that are still to go, and their bytes.
    pub fn doomed_files(&self) -> (usize, u64) {
        let doomed = self.doomed.lock();
        (doomed.len(), doomed.iter().map(|doomed| doomed.block.bytes).sum())
    }
}
