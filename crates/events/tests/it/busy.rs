//! Busy disk: a fake disk that lets somebody do something in the middle of a sync, a rename, or a removal.
//!
//! Why: these are what an append must not wait for. Whoever appends there stands still for ever if upkeep holds the
//! lock.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use stdx::{Disk, DiskFile, FakeDisk};

type Meanwhile = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

#[derive(Clone)]
pub struct BusyDisk {
    disk: FakeDisk,
    meanwhile: Meanwhile,
}

struct BusyFile {
    file: Arc<dyn DiskFile>,
    meanwhile: Meanwhile,
}

fn call(meanwhile: &Meanwhile) {
    // Taken out, so that what it does to the disk does not come here again.
    let taken = meanwhile.lock().expect("no panic").take();
    if let Some(mut each) = taken {
        each();
        *meanwhile.lock().expect("no panic") = Some(each);
    }
}

impl BusyDisk {
    pub fn new(disk: &FakeDisk) -> BusyDisk {
        BusyDisk { disk: disk.clone(), meanwhile: Meanwhile::default() }
    }

    /// `each` is called before and behind each operation that may take long.
    pub fn meanwhile(&self, each: Option<Box<dyn FnMut() + Send>>) {
        *self.meanwhile.lock().expect("no panic") = each;
    }

    fn between<R>(&self, operation: impl FnOnce() -> R) -> R {
        call(&self.meanwhile);
        let result = operation();
        call(&self.meanwhile);
        result
    }
}

impl Disk for BusyDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(BusyFile { file: self.disk.open(path)?, meanwhile: self.meanwhile.clone() }))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.between(|| self.disk.open_or_create(path))?;
        Ok(Arc::new(BusyFile { file, meanwhile: self.meanwhile.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.between(|| self.disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.between(|| self.disk.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.between(|| self.disk.sync_dir(dir))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.disk.lock(path)
    }
}

impl DiskFile for BusyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        call(&self.meanwhile);
        let result = self.file.sync();
        call(&self.meanwhile);
        result
    }
}
