//! Who waits for whom when the disk is slow: seen on a disk that stands still until it is told to go on.

use crate::*;
use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use stdx::{Disk, DiskFile};
use store::Fsync;

/// Where the disk stands still.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Nowhere,
    NamingABlock,
    SyncingTheLog,
}

/// A fake disk whose operations can be held up.
#[derive(Clone)]
struct SlowDisk {
    disk: FakeDisk,
    /// The stop, and how many stand at it.
    state: Arc<(Mutex<(Stop, usize)>, Condvar)>,
    log_writes: Arc<AtomicUsize>,
}

impl SlowDisk {
    fn new() -> SlowDisk {
        let state = Arc::new((Mutex::new((Stop::Nowhere, 0)), Condvar::new()));
        SlowDisk { disk: FakeDisk::default(), state, log_writes: Arc::default() }
    }

    fn set(&self, stop: Stop) {
        self.state.0.lock().expect("no panic").0 = stop;
        self.state.1.notify_all();
    }

    fn pass(&self, here: Stop) {
        let (lock, changed) = &*self.state;
        let mut state = lock.lock().expect("no panic");
        state.1 += usize::from(state.0 == here);
        changed.notify_all();
        // Behind the patience of who waits for this thread: its test has failed by then.
        let waited = changed.wait_timeout_while(state, 2 * PATIENCE, |state| state.0 == here).expect("no panic");
        assert!(!waited.1.timed_out(), "nobody lets the disk go on");
    }

    /// Returns when somebody stands at the stop.
    fn wait_until_somebody_stands(&self) {
        let (lock, changed) = &*self.state;
        let state = lock.lock().expect("no panic");
        let (state, timeout) = changed.wait_timeout_while(state, PATIENCE, |state| state.1 == 0).expect("no panic");
        assert!(!timeout.timed_out(), "nobody came to the stop: {}", state.1);
    }
}

struct SlowFile {
    disk: SlowDisk,
    file: Arc<dyn DiskFile>,
    is_log: bool,
}

impl DiskFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(buf, offset)?;
        self.disk.log_writes.fetch_add(usize::from(self.is_log), SeqCst);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.is_log {
            self.disk.pass(Stop::SyncingTheLog);
        }
        self.file.sync()
    }
}

impl SlowDisk {
    fn wrap(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        Arc::new(SlowFile { disk: self.clone(), file, is_log })
    }
}

impl Disk for SlowDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(path, self.disk.open(path)?))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(path, self.disk.open_or_create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass(Stop::NamingABlock);
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.disk.lock(path)
    }
}

fn open_slow(disk: &SlowDisk, fsync: Fsync) -> Store {
    let options = Options { fsync, ..options() };
    Store::open_on(Arc::new(disk.clone()), options, NOW).expect("the store opens").0
}

#[test]
fn points_are_taken_and_synced_while_a_flush_waits_for_the_disk() {
    let disk = SlowDisk::new();
    let store = open_slow(&disk, Fsync::EverySecond);
    let a = gauge(&store, "a");
    put(&store, a, NOW - 60, 1.0);
    disk.set(Stop::NamingABlock);
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| store.flush(NOW));
        disk.wait_until_somebody_stands();
        put(&store, a, NOW, 2.0);
        let syncs = store.stats().log_syncs;
        store.sync_if_due().expect("syncs");
        assert_eq!(store.stats().log_syncs, syncs + 1);
        assert!(!flush.is_finished());
        disk.set(Stop::Nowhere);
        flush.join().expect("no panic").expect("room");
    });
    drop(store);
    // Nothing was synced since.
    disk.disk.restart_after_power_cut(3);
    assert_eq!(history(&open_slow(&disk, Fsync::EverySecond), a), [(NOW - 60, 1.0), (NOW, 2.0)]);
}

#[test]
fn batches_that_wait_for_the_disk_share_a_sync() {
    const SENDERS: usize = 8;
    let disk = SlowDisk::new();
    let store = open_slow(&disk, Fsync::Always);
    let ids: Vec<SeriesId> = (0..SENDERS).map(|i| gauge(&store, &format!("h{i}"))).collect();
    put(&store, ids[0], NOW - 60, 1.0);
    let (syncs, writes) = (store.stats().log_syncs, disk.log_writes.load(SeqCst));
    disk.set(Stop::SyncingTheLog);
    std::thread::scope(|scope| {
        let (store, disk) = (&store, &disk);
        let append = move |id: SeriesId| scope.spawn(move || put(store, id, NOW, 2.0));
        let first = append(ids[0]);
        disk.wait_until_somebody_stands();
        let others: Vec<_> = ids[1..].iter().map(|id| append(*id)).collect();
        until("the writes of all batches", || disk.log_writes.load(SeqCst) >= writes + SENDERS);
        assert!(!first.is_finished() && others.iter().all(|other| !other.is_finished()), "answered before it is sure");
        disk.set(Stop::Nowhere);
    });
    assert_eq!(store.stats().log_syncs - syncs, 2, "one for the first, one for all others");
    drop(store);
    disk.disk.restart_after_power_cut(5);
    let store = open_slow(&disk, Fsync::Always);
    assert!(ids.iter().all(|id| history(&store, *id).last() == Some(&(NOW, 2.0))));
}
