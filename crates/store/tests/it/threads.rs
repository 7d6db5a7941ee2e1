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
    /// The first that comes here; the others pass.
    ReadingARun,
    CreatingASegment,
    SyncingNames,
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
        *self.state.0.lock().expect("no panic") = (stop, 0);
        self.state.1.notify_all();
    }

    fn pass(&self, here: Stop) {
        let (lock, changed) = &*self.state;
        let mut state = lock.lock().expect("no panic");
        if here == Stop::ReadingARun && state.1 > 0 {
            return;
        }
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

/// Lets everybody go on when a test ends, also by a panic.
struct Release<'a>(&'a SlowDisk);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.set(Stop::Nowhere);
    }
}

struct SlowFile {
    disk: SlowDisk,
    file: Arc<dyn DiskFile>,
    /// The ending of its name, or its name.
    kind: String,
}

impl DiskFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.kind == "run" {
            self.disk.pass(Stop::ReadingARun);
        }
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(buf, offset)?;
        self.disk.log_writes.fetch_add(usize::from(self.kind == "log"), SeqCst);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        match self.kind.as_str() {
            "log" => self.disk.pass(Stop::SyncingTheLog),
            "series" | "tmp" => self.disk.pass(Stop::SyncingNames),
            _ => {}
        }
        self.file.sync()
    }
}

impl SlowDisk {
    fn wrap(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let kind = path.extension().or(path.file_name()).and_then(|kind| kind.to_str()).unwrap_or_default();
        Arc::new(SlowFile { disk: self.clone(), file, kind: kind.to_string() })
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
        if dir.ends_with("log") {
            self.pass(Stop::CreatingASegment);
        }
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

/// Does `work` on a thread; panics when that waits for somebody who stands at the stop.
fn within_patience<T: Send>(what: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        scope.spawn(move || tell.send(work()));
        told.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"))
    })
}

#[test]
fn nobody_waits_while_a_name_is_looked_for_in_a_run() {
    const HOUR: i64 = 3600;
    let disk = SlowDisk::new();
    let options = Options { silent_s: HOUR, ..options() };
    let (store, _) = Store::open_on(Arc::new(disk.clone()), options, NOW).expect("the store opens");
    let put_at = |id, time| store.append(&[sample(id, time, 1.0)], time, &mut ()).expect("room");
    let sleep = |now| {
        store.flush(now).expect("room");
        store.sleep_silent(now, &mut |_, _| ()).expect("room");
        store.sleep_silent(now + 60, &mut |_, _| ()).expect("room").asleep
    };
    put_at(gauge(&store, "sleeper"), NOW);
    let awake = gauge(&store, "awake");
    put_at(awake, NOW + 2 * HOUR);
    assert_eq!(sleep(NOW + 2 * HOUR), 1);
    disk.set(Stop::ReadingARun);
    std::thread::scope(|scope| {
        let release = Release(&disk);
        let looking = scope.spawn(|| gauge(&store, "new"));
        disk.wait_until_somebody_stands();
        let new = within_patience("names and points wait for a run that is read", || {
            store.set_meta(awake, CounterType::Gauge, 30, NOW + 4 * HOUR).expect("room");
            assert_eq!(gauge(&store, "awake"), awake);
            let new = gauge(&store, "new");
            put_at(new, NOW + 2 * HOUR);
            put_at(awake, NOW + 4 * HOUR);
            // What was looked for meanwhile is in a run that the look has not seen.
            assert_eq!(sleep(NOW + 4 * HOUR), 1);
            new
        });
        assert!(!store.is_awake(key("new", "m", "")));
        drop(release);
        assert_eq!(looking.join().expect("no panic"), new, "one name, one id");
    });
    assert_eq!(store.endpoint_ids(&["sleeper", "awake", "new"]).expect("names read"), [Some(1), Some(2), Some(3)]);
}

#[test]
fn points_are_taken_while_a_segment_is_created() {
    for by_flush in [false, true] {
        let disk = SlowDisk::new();
        let options = Options { segment_bytes: 4096, ..options() };
        let store = Store::open_on(Arc::new(disk.clone()), options.clone(), NOW).expect("the store opens").0;
        let a = gauge(&store, "a");
        let batch = |from: i64| -> Vec<Sample> {
            (from..from + 100).map(|i| sample(a, NOW - 80_000 + 60 * i, i as f64 / 7.0)).collect()
        };
        let mut sent = 0;
        let mut send = |batches: i64| {
            for _ in 0..batches {
                store.append(&batch(sent), NOW, &mut ()).expect("room");
                sent += 100;
            }
        };
        send(3);
        assert!((2048..4096).contains(&store.stats().log_bytes), "half full: {}", store.stats().log_bytes);
        disk.set(Stop::CreatingASegment);
        std::thread::scope(|scope| {
            let release = Release(&disk);
            let creating = scope.spawn(|| if by_flush { store.flush(NOW) } else { store.sync_if_due() });
            disk.wait_until_somebody_stands();
            within_patience("points wait for a segment that is created", || send(6));
            assert_eq!((store.stats().segments, store.stats().log_bytes > 2 * 4096), (1, true), "the full one goes on");
            drop(release);
            creating.join().expect("no panic").expect("room");
        });
        send(1);
        assert_eq!(store.stats().segments, if by_flush { 1 } else { 2 });
        let expected = history(&store, a);
        assert_eq!(expected.len(), 1000);
        drop(store);
        disk.disk.restart_after_kill();
        let (store, recovery) = Store::open_on(Arc::new(disk), options, NOW).expect("the store opens");
        assert_eq!(recovery.missing, Vec::<String>::new());
        assert_eq!((recovery.torn_bytes_cut, recovery.corrupt), (0, Vec::new()));
        assert_eq!(history(&store, a), expected);
    }
}

#[test]
fn a_batch_is_answered_when_the_names_that_it_uses_are_durable_also_if_another_sync_has_begun() {
    let disk = SlowDisk::new();
    let store = open_slow(&disk, Fsync::Always);
    let a = gauge(&store, "a");
    disk.set(Stop::SyncingNames);
    std::thread::scope(|scope| {
        let release = Release(&disk);
        let first = scope.spawn(|| put(&store, a, NOW, 1.0));
        disk.wait_until_somebody_stands();
        let writes = disk.log_writes.load(SeqCst);
        let second = scope.spawn(|| put(&store, a, NOW + 60, 2.0));
        // Names are created and points read by others.
        within_patience("names wait for a sync", || (gauge(&store, "b"), history(&store, a)));
        assert!(!first.is_finished() && !second.is_finished(), "answered before it is sure");
        assert_eq!(disk.log_writes.load(SeqCst), writes, "a log record must not outlive the meaning of its ids");
        drop(release);
        first.join().expect("no panic");
        second.join().expect("no panic");
    });
    drop(store);
    disk.disk.restart_after_power_cut(7);
    assert_eq!(history(&open_slow(&disk, Fsync::Always), a), [(NOW, 1.0), (NOW + 60, 2.0)]);
}
