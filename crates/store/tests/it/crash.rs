//! The power goes off at every write position: what was acknowledged is there afterwards, and nothing that was never sent.

use crate::*;
use std::collections::{BTreeMap, BTreeSet};
use store::Fsync;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What was sent, and what of it was acknowledged as durable.
#[derive(Default)]
struct Ledger {
    sent: BTreeSet<(&'static str, i64)>,
    sure: BTreeSet<(&'static str, i64)>,
    acknowledged: BTreeSet<(&'static str, i64)>,
}

fn value_of(name: &str, time: i64) -> f64 {
    (time % 977) as f64 + f64::from(name.as_bytes()[0]) / 10.0
}

fn crash_options(fsync: Fsync) -> Options {
    Options { fsync, segment_bytes: 4096, hot_window_s: 600, late_window_s: 300, ..options() }
}

/// Appends, creates, flushes, syncs, removes segments; ends early, with an error, when the power goes.
fn script(store: &Store, ledger: &mut Ledger, fsync: Fsync) -> Result<(), store::Error> {
    for round in 0..24i64 {
        let mut batch = Vec::new();
        let mut points = Vec::new();
        for (i, name) in NAMES.iter().enumerate().filter(|(i, _)| round >= *i as i64 * 5) {
            let id = store.create(key(name, "m", ""), CounterType::Gauge, 60)?;
            for back in [0, 30, i as i64 * 47] {
                let time = NOW - 40_000 + round * 600 - back * 61;
                batch.push(sample(id, time, value_of(name, time)));
                points.push((*name, time));
            }
        }
        ledger.sent.extend(&points);
        store.append(&batch, NOW, &mut ())?;
        ledger.acknowledged.extend(&points);
        if fsync == Fsync::Always {
            ledger.sure.extend(&points);
        }
        if round % 3 == 2 {
            store.tick(NOW)?;
            if fsync == Fsync::EverySecond {
                ledger.sure.clone_from(&ledger.acknowledged);
            }
        }
        if round % 7 == 6 {
            store.flush(NOW)?;
            ledger.sure.clone_from(&ledger.acknowledged);
        }
    }
    Ok(())
}

fn stored(store: &Store) -> BTreeMap<(&'static str, i64), f64> {
    let mut all = BTreeMap::new();
    for name in NAMES {
        if let Some(id) = id_of(store, name, "m") {
            all.extend(history(store, id).into_iter().map(|(time, value)| ((name, time), value)));
        }
    }
    all
}

fn check(store: &Store, sure: &BTreeSet<(&'static str, i64)>, ledger: &Ledger, context: &str) {
    let stored = stored(store);
    for point in sure {
        assert!(stored.contains_key(point), "{context}: {point:?} is lost");
    }
    for ((name, time), value) in &stored {
        assert!(ledger.sent.contains(&(*name, *time)), "{context}: {name} {time} was never sent");
        assert_eq!(*value, value_of(name, *time), "{context}: {name} {time}");
    }
}

fn cut_everywhere(fsync: Fsync) {
    let disk = FakeDisk::default();
    let (store, _) = open_with(&disk, crash_options(fsync));
    script(&store, &mut Ledger::default(), fsync).expect("no cut");
    let operations = disk.operations();
    assert!(operations > 60, "the script reaches the disk: {operations}");
    for cut in 0..operations {
        for seed in 0..4 {
            let context = format!("{fsync:?}, cut at {cut}, seed {seed}");
            let disk = FakeDisk::default();
            disk.cut_power_at(cut);
            let mut ledger = Ledger::default();
            if let Ok((store, _)) = Store::open_on(Arc::new(disk.clone()), crash_options(fsync), NOW) {
                script(&store, &mut ledger, fsync).expect_err("the power goes off before the end");
            }
            disk.restart_after_power_cut(seed);
            let (store, _) = open_with(&disk, crash_options(fsync));
            check(&store, &ledger.sure, &ledger, &context);
            // Life goes on, and a mere kill then costs nothing.
            let survived: BTreeSet<_> = stored(&store).into_keys().collect();
            let mut second = Ledger::default();
            script(&store, &mut second, fsync).expect("power is on");
            drop(store);
            disk.restart_after_kill();
            ledger.sent.extend(&second.sent);
            let (store, _) = open_with(&disk, crash_options(fsync));
            check(&store, &survived, &ledger, &context);
            check(&store, &second.acknowledged, &ledger, &context);
        }
    }
}

#[test]
fn a_power_cut_loses_nothing_acknowledged_with_fsync_always() {
    cut_everywhere(Fsync::Always);
}

#[test]
fn a_power_cut_loses_nothing_synced_with_fsync_each_second() {
    cut_everywhere(Fsync::EverySecond);
}

#[test]
fn a_kill_loses_nothing_even_without_fsync() {
    let disk = FakeDisk::default();
    let mut ledger = Ledger::default();
    for _ in 0..3 {
        let (store, recovery) = open_with(&disk, crash_options(Fsync::Never));
        assert_eq!(recovery.corrupt, Vec::<String>::new());
        check(&store, &ledger.acknowledged, &ledger, "killed");
        script(&store, &mut ledger, Fsync::Never).expect("room");
        drop(store);
        disk.restart_after_kill();
    }
}

#[test]
fn rot_in_the_log_costs_the_record_it_hit_and_is_told() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let a = gauge(&store, "a");
    for i in 0..100 {
        put(&store, a, NOW - 6000 + 60 * i, 1.0);
    }
    drop(store);
    let path = disk.paths().into_iter().find(|path| path.ends_with("log/00000001.log")).expect("a segment");
    disk.corrupt(&path, disk.content(&path).len() as u64 / 2);
    let (store, recovery) = open_with(&disk, options());
    assert_eq!(recovery.corrupt.len(), 1);
    assert!(recovery.corrupt[0].starts_with("data/log/00000001.log at byte "), "{:?}", recovery.corrupt);
    assert_eq!(history(&store, a).len(), 99);
}

#[test]
fn rot_in_a_block_costs_the_chunk_it_hit_and_is_told() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (a, b) = (gauge(&store, "a"), gauge(&store, "b"));
    for i in 0..500 {
        put(&store, a, NOW - 30_000 + 60 * i, (i * i) as f64);
        put(&store, b, NOW - 30_000 + 60 * i, (i * i) as f64);
    }
    store.flush(NOW).expect("room");
    drop(store);
    let path = disk.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "blk")).expect("a block");
    disk.corrupt(&path, 40);
    let (store, recovery) = open_with(&disk, options());
    assert_eq!(recovery.corrupt.len(), 1, "{:?}", recovery.corrupt);
    assert_eq!(history(&store, a), []);
    assert_eq!(history(&store, b).len(), 500);
    assert!(store.stats().corrupt_reads > 0);
}

#[test]
fn a_block_that_cannot_be_read_is_never_written_over() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let a = gauge(&store, "a");
    put(&store, a, NOW - 120, 1.0);
    store.flush(NOW).expect("room");
    drop(store);
    let path = disk.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "blk")).expect("a block");
    disk.corrupt(&path, disk.content(&path).len() as u64 - 20);
    let damaged = disk.content(&path);
    let (store, recovery) = open_with(&disk, options());
    assert_eq!(recovery.corrupt.len(), 1, "{:?}", recovery.corrupt);
    put(&store, a, NOW - 60, 2.0);
    store.flush(NOW).expect("room");
    assert_eq!(disk.content(&path), damaged);
    assert_eq!(history(&store, a), [(NOW - 60, 2.0)]);
}

#[test]
fn a_long_flush_does_not_put_off_the_sync() {
    /// More series than a flush writes between two syncs.
    const MANY: u32 = 17_000;
    let fill = || {
        let disk = FakeDisk::default();
        let store = open(&disk);
        let id = |i: u32| store.create(key("a", &i.to_string(), ""), CounterType::Gauge, 60).expect("room");
        let batch: Vec<Sample> = (0..MANY).map(|i| sample(id(i), NOW, 1.0)).collect();
        store.append(&batch, NOW, &mut ()).expect("room");
        (disk, store)
    };
    let (disk, store) = fill();
    store.flush(NOW).expect("room");
    // Before the block has its name; what a flush does is the same each time.
    let cut = disk.operations() - 6;
    for seed in 0..8 {
        let (disk, store) = fill();
        disk.cut_power_at(cut);
        store.flush(NOW).expect_err("the power goes");
        drop(store);
        disk.restart_after_power_cut(seed);
        let (_, recovery) = open_with(&disk, options());
        assert_eq!((recovery.blocks, recovery.series, recovery.points_replayed), (0, 17_000, 17_000));
    }
}
