//! A file that somebody takes away is missed at the next start, by its name; the store opens, and serves the rest.

use crate::*;
use std::collections::BTreeSet;
use std::path::Path;
use stdx::{Disk, DiskFile};
use store::Fsync;

const DAY: i64 = 86_400;
const HOUR: i64 = 3600;

/// When the last flush was: what came later is in the log only.
const FLUSHED: i64 = NOW - HOUR;

fn small() -> Options {
    Options { segment_bytes: 4096, ..options() }
}

/// A merged day with its roll-ups, a day in two blocks, two cold runs, some segments of the log.
fn build() -> (FakeDisk, [SeriesId; 4]) {
    let disk = FakeDisk::default();
    let (store, _) = open_with(&disk, small());
    let ids = ["old", "older", "a", "b"].map(|endpoint| gauge(&store, endpoint));
    let fill = |ids: &[SeriesId], from: i64, to: i64, now: i64| {
        for time in (from..to).step_by(60) {
            let batch: Vec<Sample> = ids.iter().map(|id| sample(*id, time, (time % 991) as f64 / 7.0)).collect();
            store.append(&batch, now, &mut ()).expect("room");
        }
    };
    let sleep = |now: i64| {
        // The store was opened later than its first data is, so the first look may be half an hour away.
        let looks = [now, now + 1800, now + 1860];
        let asleep = looks.map(|now| store.sleep_silent(now, &mut |_, _| ()).expect("room").asleep);
        assert_eq!(asleep.iter().sum::<usize>(), 1);
    };
    let begin = NOW - 5 * DAY;
    fill(&ids[..2], begin, begin + HOUR, begin + HOUR);
    fill(&ids[1..], begin + HOUR, begin + 2 * HOUR, begin + 2 * HOUR);
    store.flush(begin + 2 * HOUR).expect("room");
    while store.merge_step(begin + 2 * DAY, 1 << 20).expect("room").more {}
    fill(&ids[2..], begin + 2 * DAY + HOUR, begin + 2 * DAY + 3 * HOUR / 2, begin + 2 * DAY + 2 * HOUR);
    store.flush(begin + 2 * DAY + 2 * HOUR).expect("room");
    sleep(begin + 2 * DAY + 5400);
    fill(&ids[2..], NOW - 4 * HOUR, NOW - 3 * HOUR, NOW - 3 * HOUR);
    store.flush(NOW - 3 * HOUR).expect("room");
    sleep(NOW - 3 * HOUR);
    fill(&ids[2..], NOW - 2 * HOUR, FLUSHED, NOW - HOUR);
    store.flush(NOW - HOUR).expect("room");
    fill(&ids[2..], FLUSHED, NOW, NOW);
    store.close(NOW).expect("room");
    store.tick(NOW).expect("room");
    (disk, ids)
}

fn open_again(disk: &FakeDisk) -> (Store, Recovery) {
    Store::open_on(Arc::new(disk.clone()), small(), NOW).expect("the store opens")
}

/// Files of the store by their names in it, the manifest not among them.
fn files(disk: &FakeDisk) -> Vec<String> {
    let names = disk.paths().into_iter().map(|path| {
        let name = path.strip_prefix("data").expect("all are in the directory");
        name.to_str().expect("all names are text").to_string()
    });
    names.filter(|name| name != "manifest").collect()
}

/// A series that lost points with a block is answered with the block's name; one that lost nothing may be.
fn check_said(store: &Store, id: SeriesId, lost: &[i64], name: &str) {
    let Some(first) = lost.first() else { return };
    let query = store::Query { from: first - HOUR, to: first + HOUR, cf: Cf::Average, now: NOW };
    let grid = store.query(found(store, id), &query).expect("answers");
    assert_eq!(grid.incomplete.as_deref(), name.strip_prefix("block/"), "{name}");
    let far = store::Query { from: first + 3 * DAY, to: first + 3 * DAY + HOUR, ..query };
    assert_eq!(store.query(found(store, id), &far).expect("answers").incomplete, None, "{name}");
}

#[test]
fn each_file_that_is_gone_is_missed_and_the_rest_is_served() {
    let (disk, ids) = build();
    let names = files(&disk);
    let kind_of = |name: &str| name.split(['/', '-']).next().unwrap_or_default().to_string();
    let kinds: BTreeSet<String> = names.iter().map(|name| kind_of(name)).collect();
    assert!(kinds.iter().eq(["block", "cold", "log", "series"]), "{kinds:?}");
    assert!(names.len() >= 9, "{names:?}");
    let whole: Vec<BTreeSet<i64>> = {
        let (store, recovery) = open_again(&disk);
        assert_eq!((recovery.missing, recovery.unchecked, recovery.corrupt), (Vec::new(), None, Vec::new()));
        ids.iter().map(|id| history(&store, *id).iter().map(|(time, _)| *time).collect()).collect()
    };
    assert!(whole.iter().all(|times| times.len() >= 60));
    for name in &names {
        let (disk, ids) = build();
        disk.remove(&Path::new("data").join(name)).expect("it is there");
        let (store, recovery) = open_again(&disk);
        assert_eq!((&recovery.missing, recovery.unchecked), (&vec![name.clone()], None));
        assert!(store.found_at_start().contains(&format!("{name} is missing")));
        let kind = kind_of(name);
        for (i, endpoint) in ["old", "older", "a", "b"].into_iter().enumerate() {
            let known = id_of(&store, endpoint, "m");
            let may_be_unknown = kind == "series" || (kind == "cold" && i < 2);
            assert!(known == Some(ids[i]) || may_be_unknown, "{name}: {endpoint} is {known:?}");
            let Some(id) = known else { continue };
            let times: BTreeSet<i64> = history(&store, id).iter().map(|(time, _)| *time).collect();
            let lost: Vec<i64> = whole[i].difference(&times).copied().collect();
            if kind == "block" {
                check_said(&store, id, &lost, name);
            }
            assert!(times.is_subset(&whole[i]), "{name}: {endpoint}");
            match kind.as_str() {
                "block" if name.contains("-raw-") => {
                    assert!(lost.windows(2).all(|pair| pair[0] / DAY == pair[1] / DAY), "{name}: {endpoint}: {lost:?}");
                }
                "log" => assert!(lost.iter().all(|time| *time >= FLUSHED), "{name}: {endpoint}: {lost:?}"),
                _ => assert_eq!(lost, Vec::<i64>::new(), "{name}: {endpoint}"),
            }
        }
        put(&store, gauge(&store, "new"), NOW, 1.0);
        drop(store);
        let (store, recovery) = open_again(&disk);
        assert_eq!(recovery.missing, Vec::<String>::new(), "{name} was told");
        assert_eq!(history(&store, id_of(&store, "new", "m").expect("known")), [(NOW, 1.0)], "{name}");
    }
}

#[test]
fn a_manifest_that_is_gone_damaged_or_old_is_told_and_stops_nothing() {
    let path = Path::new("data/manifest");
    let told = |disk: &FakeDisk| {
        let (store, recovery) = open_again(disk);
        assert!(store.info(SeriesId(2)).is_some());
        (recovery.missing, recovery.unchecked.is_some())
    };
    let (disk, _) = build();
    disk.remove(path).expect("it is there");
    assert_eq!(told(&disk), (Vec::new(), true));
    assert_eq!(told(&disk), (Vec::new(), false), "it was written anew");
    disk.corrupt(path, 20);
    assert_eq!(told(&disk), (Vec::new(), true));

    // One of an older backup names what is gone since.
    let (disk, _) = build();
    let old = disk.content(path);
    let store = open(&disk);
    store.flush(NOW).expect("room");
    drop(store);
    disk.open_or_create(path).expect("there").write_at(&old, 0).expect("room");
    let (missing, unchecked) = told(&disk);
    assert!(!unchecked && !missing.is_empty() && missing.iter().all(|name| name.starts_with("log/")), "{missing:?}");
}

/// A store whose log ends as the disk has it, and the newest segment with points.
fn logged(fsync: Fsync, end: impl Fn(&Store)) -> (FakeDisk, std::path::PathBuf) {
    let disk = FakeDisk::default();
    let (store, _) = open_with(&disk, Options { fsync, ..small() });
    let a = gauge(&store, "a");
    for i in 0..400 {
        put(&store, a, NOW - 30_000 + 60 * i, (i * i) as f64 / 7.0);
    }
    end(&store);
    drop(store);
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "log");
    let with_points = |path: &std::path::PathBuf| is_segment(path) && disk.content(path).len() > 8;
    let newest = disk.paths().into_iter().filter(with_points).max().expect("a segment");
    assert!(disk.paths().into_iter().filter(is_segment).count() > 2);
    (disk, newest)
}

fn cut(disk: &FakeDisk, path: &Path, len: u64) {
    disk.open(path).and_then(|file: std::sync::Arc<dyn DiskFile>| file.set_len(len)).expect("a file");
}

#[test]
fn what_somebody_cuts_off_the_log_after_a_stop_is_told_once() {
    let whole = |disk: &FakeDisk| open_with(disk, small()).1;
    for fsync in [Fsync::Never, Fsync::EverySecond] {
        let closed = || logged(fsync, |store| store.close(NOW).expect("room"));
        let recovery = whole(&closed().0);
        assert_eq!((recovery.lost_of_log, recovery.torn_bytes_cut), (Vec::new(), 0));
        let (disk, path) = closed();
        let len = disk.content(&path).len() as u64;
        for kept in [len - 1, len / 2, 8, 7, 0] {
            let (disk, path) = closed();
            cut(&disk, &path, kept);
            let recovery = whole(&disk);
            let [told] = &*recovery.lost_of_log else { panic!("{kept}: {:?}", recovery.lost_of_log) };
            let name = format!("{} at byte ", path.display());
            assert!(told.starts_with(&name) && told.ends_with("bytes that were on the disk are gone"), "{told}");
            assert_eq!((recovery.corrupt, recovery.cut_short), (vec![told.clone()], Vec::new()));
            assert_eq!(whole(&disk).lost_of_log, Vec::<String>::new(), "it was told");
        }
    }
}

/// What comes while a segment is missing is in one of another name, so that the missing one can be put back.
#[test]
fn a_segment_that_is_brought_back_is_in_nobodys_way() {
    let (disk, path) = logged(Fsync::EverySecond, |store| store.close(NOW).expect("room"));
    let bytes = disk.content(&path);
    let points = open_with(&disk, small()).1.points_replayed;
    for other in disk.paths().into_iter().filter(|other| other.extension().is_some_and(|e| e == "log")) {
        if other >= path {
            disk.remove(&other).expect("a file");
        }
    }
    let (store, recovery) = open_again(&disk);
    assert!(!recovery.missing.is_empty() && recovery.points_replayed < points);
    put(&store, gauge(&store, "a"), NOW + 60, 0.5);
    store.close(NOW).expect("room");
    drop(store);
    let file = disk.open_or_create(&path).expect("room");
    assert_eq!(file.len().expect("a length"), 0, "the name was free");
    file.write_at(&bytes, 0).expect("room");
    let (store, recovery) = open_with(&disk, small());
    assert_eq!((recovery.points_replayed, recovery.lost_of_log), (points + 1, Vec::new()));
    assert_eq!(store.last_raw(found(&store, gauge(&store, "a"))).map(|point| point.value), Some(0.5));
}

#[test]
fn what_was_synced_of_the_log_is_missed_after_a_kill_and_what_was_not_is_not() {
    let tick = |store: &Store| {
        store.tick(NOW).expect("room");
        let a = gauge(store, "a");
        put(store, a, NOW, 0.1);
        store.tick(NOW).expect("room");
        put(store, a, NOW + 60, 0.1);
    };
    let (disk, path) = logged(Fsync::EverySecond, tick);
    let len = disk.content(&path).len() as u64;
    for (kept, is_told) in [(len - 1, false), (8, true), (0, true)] {
        let (disk, path) = logged(Fsync::EverySecond, tick);
        cut(&disk, &path, kept);
        let (_, recovery) = open_with(&disk, small());
        assert_eq!(!recovery.lost_of_log.is_empty(), is_told, "{kept}: {:?}", recovery.lost_of_log);
    }
    for seed in 0..32 {
        let (disk, _) = logged(Fsync::EverySecond, tick);
        disk.restart_after_power_cut(seed);
        let (_, recovery) = open_with(&disk, small());
        assert!(recovery.lost_of_log.iter().all(|told| !told.contains("gone")), "{:?}", recovery.lost_of_log);
    }
}

#[test]
fn a_new_store_has_nothing_to_miss() {
    let disk = FakeDisk::default();
    let (store, recovery) = open_with(&disk, options());
    assert_eq!(recovery.unchecked, None);
    drop(store);
    disk.restart_after_power_cut(3);
    let (_, recovery) = open_with(&disk, options());
    assert_eq!(recovery.unchecked, None);
}
