//! No room: an error that names the file, nothing acknowledged lost, and writing resumes by itself.

use crate::*;
use store::{Error, Fsync};

#[test]
fn a_full_log_refuses_the_batch_whole_and_recovers() {
    for room in 0..60 {
        let disk = FakeDisk::default();
        let store = open(&disk);
        let a = gauge(&store, "a");
        put(&store, a, NOW - 120, 1.0);
        disk.set_room(Some(room));
        let batch: Vec<Sample> = (0..40).map(|i| sample(a, NOW - 60, f64::from(i) / 3.0)).collect();
        let error = store.append(&batch, NOW, &mut ()).expect_err("no room");
        let Error::Disk { path, .. } = &error else { panic!("{error}") };
        assert_eq!(path.to_str(), Some("data/log/00000001.log"));
        assert_eq!(history(&store, a), [(NOW - 120, 1.0)], "nothing of the batch is applied");
        disk.set_room(None);
        put(&store, a, NOW - 60, 7.0);
        drop(store);
        disk.restart_after_kill();
        let (store, recovery) = open_with(&disk, options());
        assert_eq!((recovery.torn_bytes_cut, recovery.corrupt), (0, Vec::new()));
        assert_eq!(history(&store, a), [(NOW - 120, 1.0), (NOW - 60, 7.0)]);
    }
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
    assert!(store.tick(NOW).expect("room").flushed);
    disk.restart_after_power_cut(1);
    let (store, _) = open_with(&disk, options());
    assert!(history(&store, a).contains(&(NOW - 120, 1.0)));
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
