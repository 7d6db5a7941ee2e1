//! The power goes off at every write position: what was acknowledged is there afterwards, and nothing that was never
//! sent or that was removed.

use crate::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use stdx::Disk;
use store::{Error, Fsync};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The one that is removed in the middle of the script, and comes again.
const REMOVED: &str = "b";

type Points = BTreeSet<(&'static str, i64)>;

/// What was sent, and what became of it.
#[derive(Default)]
struct Ledger {
    sent: Points,
    /// Answered: survives a kill.
    acknowledged: Points,
    /// Answered and, as the policy promises, on the disk: survives a power cut.
    sure: Points,
    /// Of a series whose removal was answered.
    gone: Points,
}

impl Ledger {
    fn send(&mut self, points: &[(&'static str, i64)]) {
        self.sent.extend(points);
        self.gone.retain(|point| !points.contains(point));
    }

    fn begin_removal(&mut self) {
        for points in [&mut self.acknowledged, &mut self.sure] {
            points.retain(|(name, _)| *name != REMOVED);
        }
    }

    fn end_removal(&mut self) {
        self.gone.extend(self.sent.iter().filter(|(name, _)| *name == REMOVED));
    }

    /// Everything sent so far and answered is on the disk.
    fn settle(&mut self) {
        self.sure.clone_from(&self.acknowledged);
    }
}

fn value_of(name: &str, time: i64) -> f64 {
    (time % 977) as f64 + f64::from(name.as_bytes()[0]) / 10.0
}

fn crash_options(fsync: Fsync) -> Options {
    Options { fsync, segment_bytes: 4096, hot_window_s: 600, late_window_s: 300, ..options() }
}

fn try_open(disk: &FakeDisk, fsync: Fsync) -> Result<Store, Error> {
    let (store, recovery) = Store::open_on(Arc::new(disk.clone()), crash_options(fsync), NOW)?;
    assert_eq!(recovery.missing, Vec::<String>::new(), "whatever was cut off, nobody took a file");
    assert!(recovery.corrupt.iter().all(|found| !found.contains("are gone")), "nor of one: {:?}", recovery.corrupt);
    Ok(store)
}

/// Creates, appends, flushes, syncs, removes segments and a series, changes steps, restarts in between; ends early,
/// with an error, when the power goes.
fn script(disk: &FakeDisk, ledger: &mut Ledger, fsync: Fsync) -> Result<(), Error> {
    for life in 0..3 {
        let store = try_open(disk, fsync)?;
        for round in life * 8..life * 8 + 8 {
            round_of(&store, round, ledger, fsync)?;
        }
    }
    Ok(())
}

fn round_of(store: &Store, round: i64, ledger: &mut Ledger, fsync: Fsync) -> Result<(), Error> {
    let (mut batch, mut points) = (Vec::new(), Vec::new());
    for (i, name) in NAMES.iter().enumerate().filter(|(i, _)| round >= *i as i64 * 5) {
        let id = store.create(key(name, "m", ""), CounterType::Gauge, 60)?;
        for back in [0, 30, i as i64 * 47] {
            let time = NOW - 40_000 + round * 600 - back * 61;
            batch.push(sample(id, time, value_of(name, time)));
            points.push((*name, time));
        }
    }
    ledger.send(&points);
    store.append(&batch, NOW, &mut ())?;
    ledger.acknowledged.extend(&points);
    if fsync == Fsync::Always {
        ledger.settle();
    }
    if round % 3 == 2 {
        store.tick(NOW)?;
        if fsync == Fsync::EverySecond {
            ledger.settle();
        }
    }
    if round % 7 == 6 {
        store.flush(NOW)?;
        ledger.settle();
    }
    if round % 11 == 9 {
        store.set_meta(batch[0].series, CounterType::Gauge, 30 + round as u32, NOW)?;
    }
    if round == 15 {
        ledger.begin_removal();
        store.remove_endpoint(REMOVED)?;
        ledger.end_removal();
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

fn check(store: &Store, promised: &Points, ledger: &Ledger, context: &str) {
    let stored = stored(store);
    for point in promised {
        assert!(stored.contains_key(point), "{context}: {point:?} is lost");
    }
    for (point, value) in &stored {
        assert!(ledger.sent.contains(point), "{context}: {point:?} was never sent");
        assert!(!ledger.gone.contains(point), "{context}: {point:?} was removed");
        assert_eq!(*value, value_of(point.0, point.1), "{context}: {point:?}");
    }
}

fn cut_everywhere(fsync: Fsync) {
    let disk = FakeDisk::default();
    let mut ledger = Ledger::default();
    script(&disk, &mut ledger, fsync).expect("no cut");
    assert!(ledger.gone.len() > 20 && ledger.sure.iter().any(|(name, _)| *name == REMOVED));
    let operations = disk.operations();
    assert!(operations > 60, "the script reaches the disk: {operations}");
    for cut in 0..operations {
        for seed in 0..8 {
            let context = format!("{fsync:?}, cut at {cut}, seed {seed}");
            let disk = FakeDisk::default();
            disk.cut_power_at(cut);
            let mut ledger = Ledger::default();
            // Only the last tick's manifest, for which it does not fail, may be what the cut hits.
            let _ = script(&disk, &mut ledger, fsync);
            disk.list(Path::new("data")).expect_err("the power goes off before the end");
            disk.restart_after_power_cut(seed);
            // And once more, at some operation of the opening or right behind it.
            disk.cut_power_at(disk.operations() + (cut + 3 * seed) % 9);
            drop(try_open(&disk, fsync));
            disk.restart_after_power_cut(seed + 8);
            let store = try_open(&disk, fsync).unwrap_or_else(|error| panic!("{context}: {error}"));
            check(&store, &ledger.sure, &ledger, &context);
            // Life goes on, and a mere kill then costs nothing.
            ledger.acknowledged = stored(&store).into_keys().collect();
            ledger.settle();
            drop(store);
            script(&disk, &mut ledger, fsync).expect("power is on");
            disk.restart_after_kill();
            let store = try_open(&disk, fsync).unwrap_or_else(|error| panic!("{context}: {error}"));
            check(&store, &ledger.acknowledged, &ledger, &context);
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
fn a_power_cut_loses_nothing_flushed_without_fsync() {
    cut_everywhere(Fsync::Never);
}

/// Appends more than three segments hold; some are made ready by a tick, one by a flush, the others by who finds them
/// full.
fn script_of_segments(disk: &FakeDisk, ledger: &mut Ledger, fsync: Fsync) -> Result<(), Error> {
    let store = try_open(disk, fsync)?;
    let id = store.create(key("a", "m", ""), CounterType::Gauge, 60)?;
    for round in 0..24 {
        let times: Vec<i64> = (0..70).map(|i| NOW - 200_000 + round * 7000 + i * 97).collect();
        let batch: Vec<Sample> = times.iter().map(|time| sample(id, *time, value_of("a", *time))).collect();
        let points: Vec<_> = times.into_iter().map(|time| ("a", time)).collect();
        ledger.send(&points);
        store.append(&batch, NOW, &mut ())?;
        ledger.acknowledged.extend(&points);
        if fsync == Fsync::Always {
            ledger.settle();
        }
        if round % 5 == 4 {
            store.tick(NOW)?;
            if fsync == Fsync::EverySecond {
                ledger.settle();
            }
        }
        if round == 13 {
            store.flush(NOW)?;
            ledger.settle();
        }
    }
    Ok(())
}

#[test]
fn a_power_cut_loses_nothing_while_segments_follow_each_other() {
    for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::Never] {
        let disk = FakeDisk::default();
        let mut ledger = Ledger::default();
        script_of_segments(&disk, &mut ledger, fsync).expect("no cut");
        let newest = disk.paths().iter().filter_map(|path| path.file_stem()?.to_str()?.parse().ok()).max();
        assert!(newest.is_some_and(|number: u32| number > 4), "{newest:?}");
        for cut in 0..disk.operations() {
            for seed in 3 * cut..3 * cut + 3 {
                let context = format!("{fsync:?}, cut at {cut}, seed {seed}");
                let disk = FakeDisk::default();
                disk.cut_power_at(cut);
                let mut ledger = Ledger::default();
                script_of_segments(&disk, &mut ledger, fsync).expect_err("the power goes off before the end");
                disk.restart_after_power_cut(seed);
                let store = try_open(&disk, fsync).unwrap_or_else(|error| panic!("{context}: {error}"));
                check(&store, &ledger.sure, &ledger, &context);
                ledger.acknowledged = stored(&store).into_keys().collect();
                drop(store);
                // Numbers go on behind a segment that was ready and never used.
                script_of_segments(&disk, &mut ledger, fsync).expect("power is on");
                disk.restart_after_kill();
                let store = try_open(&disk, fsync).unwrap_or_else(|error| panic!("{context}: {error}"));
                check(&store, &ledger.acknowledged, &ledger, &context);
            }
        }
    }
}

#[test]
fn a_kill_loses_nothing_even_without_fsync() {
    let disk = FakeDisk::default();
    let mut ledger = Ledger::default();
    for _ in 0..3 {
        let (store, recovery) = open_with(&disk, crash_options(Fsync::Never));
        assert_eq!(recovery.corrupt, Vec::<String>::new());
        check(&store, &ledger.acknowledged, &ledger, "killed");
        drop(store);
        script(&disk, &mut ledger, Fsync::Never).expect("room");
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
fn a_segment_that_ends_before_later_ones_is_told() {
    for (kept, what) in [(1, "of a record that does not end"), (0, "the file ends before its first record")] {
        let disk = FakeDisk::default();
        for life in 0..3 {
            let store = open(&disk);
            let a = gauge(&store, "a");
            for i in 0..10 {
                put(&store, a, NOW - 6000 + 600 * life + 60 * i, 1.0);
            }
        }
        let path = PathBuf::from("data/log/00000002.log");
        let half = disk.content(&path).len() as u64 * kept / 2 + 3 * kept;
        disk.open(&path).and_then(|file| file.set_len(half)).expect("a file");
        let (store, recovery) = open_with(&disk, options());
        let [told] = &*recovery.cut_short else { panic!("{:?}", recovery.cut_short) };
        assert!(told.starts_with("data/log/00000002.log at byte ") && told.ends_with(what), "{told}");
        assert_eq!(recovery.corrupt, Vec::<String>::new(), "a power cut does that as well");
        assert_eq!(recovery.lost_of_log, recovery.cut_short);
        let a = id_of(&store, "a", "m").expect("a series");
        assert!((20..30).contains(&history(&store, a).len()));
        drop(store);
        // The newest is what a kill tears.
        let newest = PathBuf::from("data/log/00000003.log");
        let torn = disk.content(&newest).len() as u64 - 3;
        disk.open(&newest).and_then(|file| file.set_len(torn)).expect("a file");
        let (_, recovery) = open_with(&disk, options());
        let of_newest = recovery.cut_short.iter().filter(|told| told.contains("00000003")).count();
        assert_eq!((of_newest, recovery.torn_bytes_cut > 0), (0, true));
    }
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
    // Once for the log, for as long as it counts for the operator, and in each answer that lacks something.
    let shown = format!("{} is corrupt at byte ", path.display());
    let damaged = store.damaged_files();
    assert!(damaged.len() == 1 && damaged[0].starts_with(&shown), "{damaged:?}");
    assert_eq!((store.take_untold_damage(), store.take_untold_damage()), (damaged, Vec::new()));
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_string);
    let incomplete = |id: SeriesId| {
        let query = store::Query { from: NOW - 30_000, to: NOW, cf: Cf::Average, now: NOW };
        let (mut histories, mut points) = (store.histories(), Vec::new());
        histories.read(found(&store, id), 0, NOW, &mut points).expect("reads");
        let grid = store.query(found(&store, id), &query).expect("reads");
        assert_eq!(grid.incomplete, histories.take_damage());
        grid.incomplete
    };
    assert_eq!((incomplete(a), incomplete(b)), (name, None));
    assert!(recovery.corrupt.iter().eq(store.found_at_start()));
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
    let (mut histories, mut points) = (store.histories(), Vec::new());
    histories.read(found(&store, a), 0, NOW, &mut points).expect("reads");
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_string);
    assert_eq!((points.len(), histories.take_damage()), (1, name), "what it had is missing");
    assert_eq!(history(&store, a), [(NOW - 60, 2.0)]);
}

/// Pins that a block which goes while queries come is told once, and not in each answer that lacks it.
#[test]
fn a_block_that_is_gone_is_told_once() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let series: Vec<SeriesId> = (0..3).map(|i| gauge(&store, &format!("m{i}"))).collect();
    // So many points that memory lets go of the older ones.
    for time in (NOW - 30_000..NOW).step_by(60) {
        for id in &series {
            put(&store, *id, time, (time * time % 1009) as f64);
        }
    }
    store.flush(NOW).expect("room");
    let path = disk.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "blk")).expect("a block");
    stdx::Disk::remove(&disk, &path).expect("it is there");
    let found: Vec<_> = series.iter().map(|id| found(&store, *id)).collect();
    let query = store::Query { from: NOW - 30_000, to: NOW, cf: Cf::Average, now: NOW };
    for _ in 0..2 {
        let mut gone = 0;
        let each = |_, grid: Result<_, store::Error>| {
            gone += usize::from(grid.is_err_and(|error| error.is_missing_file()));
            true
        };
        store.query_many(&found, &query, each).expect("few points");
        assert_eq!(gone, 3, "each answer says so");
    }
    let told = store.take_untold_damage();
    assert!(told.len() == 1 && told[0].contains(&path.display().to_string()), "{told:?}");
    assert_eq!((store.take_untold_damage(), store.damaged_files()), (Vec::new(), told));
}
