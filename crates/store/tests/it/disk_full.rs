//! No room: an error that names the file, nothing acknowledged lost, judging goes on, and writing resumes by itself.

use crate::*;
use store::{Error, Fsync, Observer, ShardView};

/// Times of the points that an observer was shown.
#[derive(Default)]
struct Seen(Vec<i64>);

impl Observer for Seen {
    fn newest(&mut self, _: usize, sample: Sample, _: CounterType, _: &ShardView<'_>) {
        self.0.push(sample.point.time);
    }
}

#[test]
fn what_a_full_log_refuses_is_judged_and_kept_when_it_is_sent_again() {
    for room in 0..60 {
        let disk = FakeDisk::default();
        let store = open(&disk);
        let a = gauge(&store, "a");
        put(&store, a, NOW - 3600, 1.0);
        disk.set_room(Some(room));
        let batch: Vec<Sample> = (1..40).map(|i| sample(a, NOW - 3600 + 60 * i, i as f64 / 3.0)).collect();
        let mut seen = Seen::default();
        let error = store.append(&batch, NOW, &mut seen).expect_err("no room");
        let Error::Disk { path, .. } = &error else { panic!("{error}") };
        assert_eq!(path.to_str(), Some("data/log/00000001.log"));
        assert_eq!(seen.0, batch.iter().map(|sample| sample.point.time).collect::<Vec<_>>());
        let stats = store.stats();
        assert_eq!((stats.log_errors, stats.points_total, stats.unjudged), (1, 40, 0));
        disk.set_room(None);
        if room % 2 == 0 {
            let appended = store.append(&batch, NOW, &mut seen).expect("room");
            assert_eq!((appended.duplicate, seen.0.len()), (39, 39), "in memory already, and not judged twice");
        } else {
            put(&store, a, NOW - 1200, 7.0);
        }
        let before = history(&store, a);
        drop(store);
        disk.restart_after_kill();
        let (store, recovery) = open_with(&disk, options());
        assert_eq!((recovery.torn_bytes_cut, recovery.corrupt), (0, Vec::new()));
        let after = history(&store, a);
        if room % 2 == 0 {
            assert_eq!(after, before, "what was answered is kept");
        } else {
            assert_eq!(after, [(NOW - 3600, 1.0), (NOW - 1200, 7.0)], "nobody was told that the rest is");
        }
    }
}

/// Whoever was refused a batch sees that there is room again without sending one, and leaves no trace in the log.
#[test]
fn the_log_can_be_tried_without_a_batch() {
    for fsync in [Fsync::EverySecond, Fsync::Always, Fsync::Never] {
        let disk = FakeDisk::default();
        let (store, _) = open_with(&disk, Options { fsync, ..options() });
        let a = gauge(&store, "a");
        put(&store, a, NOW - 120, 1.0);
        disk.set_room(Some(1000));
        let error = store.try_log().expect_err("no room");
        assert!(error.to_string().contains("log/00000001.log"), "{error}");
        disk.set_room(None);
        store.try_log().expect("room");
        if fsync == Fsync::Always {
            disk.set_sync_fails(true);
            store.append(&[sample(a, NOW - 60, 2.0)], NOW, &mut ()).expect_err("no sync");
            store.try_log().expect_err("no sync");
            disk.set_sync_fails(false);
            store.try_log().expect("a sync");
        } else {
            put(&store, a, NOW - 60, 2.0);
        }
        put(&store, a, NOW, 3.0);
        drop(store);
        disk.restart_after_kill();
        let (store, recovery) = open_with(&disk, Options { fsync, ..options() });
        assert_eq!((recovery.torn_bytes_cut, recovery.corrupt), (0, Vec::new()));
        assert_eq!(history(&store, a), [(NOW - 120, 1.0), (NOW - 60, 2.0), (NOW, 3.0)]);
    }
}

#[test]
fn a_flush_makes_durable_what_the_log_refused() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let a = gauge(&store, "a");
    disk.set_room(Some(0));
    store.append(&[sample(a, NOW, 1.0)], NOW, &mut ()).expect_err("no room");
    disk.set_room(None);
    store.flush(NOW).expect("room");
    drop(store);
    disk.restart_after_power_cut(1);
    assert_eq!(history(&open(&disk), a), [(NOW, 1.0)]);
}

#[test]
fn memory_for_what_no_disk_takes_has_an_end() {
    const FLUSH_BYTES: usize = 4096;
    let disk = FakeDisk::default();
    let (store, _) = open_with(&disk, Options { flush_bytes: FLUSH_BYTES, ..options() });
    let a = gauge(&store, "a");
    disk.set_room(Some(0));
    let mut seen = Seen::default();
    let mut put = |i: i64| store.append(&[sample(a, NOW - 600_000 + 60 * i, i as f64 / 7.0)], NOW, &mut seen);
    for i in 0..5000 {
        put(i).expect_err("no room");
        if i % 500 == 0 {
            // Fails as well, and forgets nothing by it.
            store.flush(NOW).expect_err("no room");
        }
    }
    let stats = store.stats();
    let unjudged = stats.unjudged as usize;
    assert!((2 * FLUSH_BYTES..2 * FLUSH_BYTES + 100).contains(&stats.unflushed_bytes), "{stats:?}");
    assert!(unjudged > 1000 && store.unjudged() == stats.unjudged, "{stats:?}");
    disk.set_room(None);
    put(5000).expect("room");
    assert!(store.tick(NOW + 10_000).expect("room").flushed);
    assert_eq!(store.stats().unflushed_bytes, 0);
    disk.set_room(Some(0));
    put(5001).expect_err("no room");
    assert_eq!(seen.0.len(), 5002 - unjudged);
    assert_eq!(history(&store, a).len(), 5002 - unjudged);
}

#[test]
fn a_flush_without_room_keeps_everything_and_is_tried_again() {
    for room in [0, 1, 30, 100, 150, 200, 300, 1000] {
        let disk = FakeDisk::default();
        let store = open(&disk);
        let a = gauge(&store, "a");
        let expected: Vec<(i64, f64)> = (0..3000).map(|i| (NOW - 180_000 + 60 * i, (i % 13) as f64 / 3.0)).collect();
        for (time, value) in &expected {
            put(&store, a, *time, *value);
        }
        let late = put(&store, a, NOW - 190_000, 5.0);
        assert_eq!(late.late, 1);
        disk.set_room(Some(room));
        assert!(store.flush(NOW).is_err());
        let blocks: Vec<_> = disk.paths().into_iter().filter(|path| path.starts_with("data/block")).collect();
        assert_eq!(blocks, Vec::<PathBuf>::new(), "nothing half-written stays");
        assert!(!store.tick(NOW + 1).expect("syncs").flushed, "not again at once");
        disk.set_room(None);
        assert!(store.tick(NOW + 31).expect("room").flushed);
        let check = |store: &Store| {
            let all = history(store, a);
            assert_eq!(all[0], (NOW - 190_000, 5.0));
            assert_eq!(all[1..], expected);
        };
        check(&store);
        drop(store);
        check(&open(&disk));
    }
}

#[test]
fn a_sync_that_fails_is_told_and_leads_to_a_flush() {
    let disk = FakeDisk::default();
    let (store, _) = open_with(&disk, Options { fsync: Fsync::Always, ..options() });
    let a = gauge(&store, "a");
    put(&store, a, NOW - 120, 1.0);
    disk.set_sync_fails(true);
    let error = store.append(&[sample(a, NOW - 60, 1.0)], NOW, &mut ()).expect_err("sync fails");
    assert!(matches!(error, Error::Disk { what: "sync", .. }), "{error}");
    disk.set_sync_fails(false);
    // Its own bytes are sure; those that the disk forgot before are not, until a flush has them.
    put(&store, a, NOW, 2.0);
    assert!(store.tick(NOW).expect("room").flushed);
    disk.restart_after_power_cut(1);
    let (store, _) = open_with(&disk, options());
    assert_eq!(history(&store, a), [(NOW - 120, 1.0), (NOW - 60, 1.0), (NOW, 2.0)]);
}

#[test]
fn after_a_failed_sync_what_is_answered_is_sure_also_before_the_flush() {
    for seed in 0..16 {
        let disk = FakeDisk::default();
        let (store, _) = open_with(&disk, Options { fsync: Fsync::Always, ..options() });
        let a = gauge(&store, "a");
        put(&store, a, NOW - 120, 1.0);
        disk.set_sync_fails(true);
        store.append(&[sample(a, NOW - 60, 1.0)], NOW, &mut ()).expect_err("sync fails");
        disk.set_sync_fails(false);
        put(&store, a, NOW, 2.0);
        drop(store);
        disk.restart_after_power_cut(seed);
        let (store, _) = open_with(&disk, options());
        let found = history(&store, a);
        assert!(found.contains(&(NOW - 120, 1.0)) && found.contains(&(NOW, 2.0)), "{found:?}");
    }
}

#[test]
fn a_definition_without_room_is_no_series() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    disk.set_room(Some(5));
    let error = store.create(key("a", "m", ""), CounterType::Gauge, 60).expect_err("no room");
    assert!(matches!(error, Error::Disk { .. }));
    assert_eq!(id_of(&store, "a", "m"), None);
    disk.set_room(None);
    let b = gauge(&store, "b");
    put(&store, b, NOW, 1.0);
    drop(store);
    let store = open(&disk);
    assert_eq!(id_of(&store, "a", "m"), None);
    assert_eq!(history(&store, b), [(NOW, 1.0)]);
}

#[test]
fn an_old_block_that_cannot_be_removed_is_tried_again() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let a = gauge(&store, "a");
    for day in [29, 28, 1] {
        put(&store, a, NOW - day * 86_400, 1.0);
    }
    store.flush(NOW).expect("room");
    let later = NOW + 10 * 86_400;
    put(&store, a, later, 2.0);
    store.flush(later).expect("room");
    disk.set_remove_fails(true);
    // Nothing to flush: only the retention removes files.
    let Err(Error::Disk { path, .. }) = store.tick(later) else { panic!("nothing can be removed") };
    assert!(path.starts_with("data/block"), "{path:?}");
    store.tick(later + 60).expect_err("nothing can be removed");
    assert_eq!(store.stats().blocks, 4, "what takes space is counted");
    disk.set_remove_fails(false);
    assert_eq!(store.tick(later + 120).expect("removes").blocks_removed, 2);
    let files = disk.paths().into_iter().filter(|path| path.starts_with("data/block")).count();
    assert_eq!((files, store.stats().blocks), (2, 2));
}

fn log_files(disk: &FakeDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.starts_with("data/log")).collect()
}

#[test]
fn a_start_on_a_full_disk_succeeds_and_leaves_one_file() {
    for room in 0..10 {
        let disk = FakeDisk::default();
        let store = open(&disk);
        let a = gauge(&store, "a");
        put(&store, a, NOW - 120, 1.0);
        drop(store);
        for _ in 0..3 {
            disk.restart_after_kill();
            disk.set_room(Some(room));
            let store = open(&disk);
            assert_eq!(history(&store, a), [(NOW - 120, 1.0)]);
            store.append(&[sample(a, NOW - 60, 2.0)], NOW, &mut ()).expect_err("no room");
            assert_eq!(log_files(&disk), ["data/log/00000001.log", "data/log/00000002.log"].map(PathBuf::from));
        }
        disk.set_room(None);
        let store = open(&disk);
        put(&store, a, NOW, 3.0);
        store.close(NOW).expect("room");
        drop(store);
        disk.restart_after_power_cut(room);
        let (store, recovery) = open_with(&disk, options());
        assert_eq!((recovery.torn_bytes_cut, recovery.corrupt, recovery.cut_short), (0, Vec::new(), Vec::new()));
        assert_eq!(history(&store, a), [(NOW - 120, 1.0), (NOW, 3.0)]);
    }
}

#[test]
fn a_segment_that_holds_nothing_is_gone_on_with() {
    let disk = FakeDisk::default();
    for _ in 0..5 {
        drop(open(&disk));
    }
    assert_eq!(log_files(&disk), [PathBuf::from("data/log/00000001.log")]);
    let store = open(&disk);
    let a = gauge(&store, "a");
    put(&store, a, NOW, 1.0);
    drop(store);
    assert_eq!(history(&open(&disk), a), [(NOW, 1.0)]);
}
