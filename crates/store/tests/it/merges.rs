//! Merging: fewer files, the same points; roll-ups that answer as the points would; retention of each; no crash that
//! loses or doubles anything.

use crate::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use store::{Cf, Error, Found, Query};

const DAY: i64 = 86_400;

/// Midnight before `NOW`.
const TODAY: i64 = NOW / DAY * DAY;

/// Merges as long as there is something to do, in small steps.
fn merge_all(store: &Store, now: i64) -> usize {
    let mut replaced = 0;
    for _ in 0..100_000 {
        let merged = store.merge_step(now, 4096).expect("room");
        replaced += merged.replaced;
        if !merged.more {
            return replaced;
        }
    }
    panic!("merging does not end");
}

fn block_files(disk: &FakeDisk) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
    disk.paths().into_iter().filter(|path| path.starts_with("data/block")).map(name).collect()
}

fn counter(store: &Store, endpoint: &str) -> SeriesId {
    store.create(key(endpoint, "c", ""), CounterType::Counter, 60).expect("room for a series")
}

/// A value that jumps about, and a counter that resets now and then.
fn gauge_value(time: i64) -> f64 {
    (time / 60 * 7919 % 1000) as f64 / 7.0
}

fn counter_value(time: i64) -> f64 {
    (time / 60 % 700 * (1 + time / 60 % 3)) as f64
}

/// Points each minute from `from` to `to`, but for a gap each hour, flushed each two hours.
fn fill(store: &Store, from: i64, to: i64, gauge: SeriesId, counter: SeriesId) {
    let mut batch = Vec::new();
    for time in (from..to).step_by(60) {
        if time / 60 % 60 != 17 {
            batch.push(sample(gauge, time, gauge_value(time)));
        }
        if time / 60 % 60 > 4 {
            batch.push(sample(counter, time, counter_value(time)));
        }
        if (time + 60) % 7200 == 0 || time + 60 >= to {
            store.append(&batch, time, &mut ()).expect("room");
            store.flush(time).expect("room");
            batch.clear();
        }
    }
}

/// Queries of several ranges give what the points give.
fn check_rows(store: &Store, found: Found, points: &[(i64, f64)], now: i64, context: &str) {
    for (from, to) in [
        (now - 40_000, now),
        (now - 2 * DAY + 1000, now),
        (now - 6 * DAY, now),
        (now - 6 * DAY, now - 3 * DAY - 77),
        (now - 30 * DAY, now),
        (now - 200 * DAY, now),
    ] {
        for cf in [Cf::Average, Cf::Max, Cf::Min, Cf::Last] {
            let query = Query { from, to, cf, now };
            let grid = store.query(found, &query).expect("answers");
            let expected =
                rows_of_points(points, |_| usize::from(found.counter_type.is_gauge()), &grid, i64::from(grid.step), cf);
            assert_close(&grid, &expected, &format!("{context}, {query:?}"));
        }
    }
}

#[test]
fn closed_days_become_one_block_and_two_roll_ups_and_answer_the_same() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (a, c) = (gauge(&store, "a"), counter(&store, "a"));
    let now = TODAY + 10 * 3600;
    fill(&store, TODAY - 4 * DAY, now, a, c);
    let before = (history(&store, a), history(&store, c));
    let files = store.stats().blocks;
    assert!(files > 50, "{files}");
    assert!(merge_all(&store, now) > 40);
    let stats = store.stats();
    // Four days, and of today five small ones.
    assert_eq!((stats.raw.blocks, stats.rollups_5m.blocks, stats.rollups_1h.blocks), (9, 4, 4));
    assert_eq!((stats.blocks, block_files(&disk).len()), (17, 17));
    assert_eq!(stats.raw.points as usize, before.0.len() + before.1.len());
    assert!(stats.merges > 3 && stats.rollup_bytes > 0 && stats.merge_errors == 0);
    let check = |store: &Store| {
        assert_eq!((history(store, a), history(store, c)), before);
        check_rows(store, found(store, a), &before.0, now, "gauge");
        check_rows(store, found(store, c), &before.1, now, "counter");
        assert_eq!(merge_all(store, now), 0, "nothing is left to do");
    };
    check(&store);
    drop(store);
    check(&open(&disk));
}

#[test]
fn an_open_day_has_a_bounded_number_of_files() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let a = gauge(&store, "a");
    for i in 0..200 {
        put(&store, a, TODAY + 60 * i, gauge_value(i));
        store.flush(NOW).expect("room");
        merge_all(&store, TODAY + 60 * i);
        assert!(store.stats().raw.blocks <= 7 * 3 + 1);
    }
    assert_eq!(history(&store, a).len(), 200);
    assert_eq!(store.stats().rollups_5m.blocks, 0, "the day is not over");
}

#[test]
fn more_blocks_than_may_be_open_are_folded_first() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let c = counter(&store, "a");
    for i in 0..300 {
        put(&store, c, TODAY - 2 * DAY + 600 * i, (300 + i) as f64);
        store.flush(NOW).expect("room");
    }
    let before = history(&store, c);
    // A job refuses more inputs than there may be.
    merge_all(&store, NOW);
    assert_eq!((store.stats().raw.blocks, store.stats().rollups_5m.blocks, history(&store, c)), (3, 2, before));
}

#[test]
fn late_points_close_a_day_again_once_they_stop() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (a, c) = (gauge(&store, "a"), counter(&store, "a"));
    let mut now = TODAY + 5 * 3600;
    fill(&store, TODAY - 3 * DAY, TODAY + 3600, a, c);
    merge_all(&store, now);
    // Between two points of the day before yesterday, and at the very end of it, where the next day's first rate is.
    let late = [TODAY - 2 * DAY - 37, TODAY - 2 * DAY - 3];
    let mut points = (history(&store, a), history(&store, c));
    for (i, late) in late.into_iter().enumerate() {
        put(&store, a, late, 1e6);
        put(&store, c, late, counter_value(late - late % 60) + 1.0);
        points.0.push((late, 1e6));
        points.1.push((late, counter_value(late - late % 60) + 1.0));
        points.0.sort_by_key(|point| point.0);
        points.1.sort_by_key(|point| point.0);
        let check = |now, context: &str| {
            check_rows(&store, found(&store, a), &points.0, now, context);
            check_rows(&store, found(&store, c), &points.1, now, context);
        };
        check(now, "in memory");
        store.flush(now).expect("room");
        check(now, "in a block of its own");
        assert_eq!(merge_all(&store, now), 0, "more may come");
        now += 7200;
        // The day, and the roll-ups of the one after, whose first rate may be another.
        assert_eq!(merge_all(&store, now), 4 + 2, "late point {i}");
        check(now, "merged");
        assert_eq!(merge_all(&store, now + 7200), 0);
    }
}

#[test]
fn roll_ups_answer_when_the_points_are_gone_and_go_when_it_is_their_time() {
    let disk = FakeDisk::default();
    let options = Options { retention_raw_s: 4 * DAY, retention_5m_s: 20 * DAY, retention_1h_s: 50 * DAY, ..options() };
    let start = TODAY - 90 * DAY;
    let (store, _) = Store::open_on(Arc::new(disk.clone()), options.clone(), start).expect("opens");
    let (a, c) = (gauge(&store, "a"), counter(&store, "a"));
    let mut points = (Vec::new(), Vec::new());
    for day in 0..90 {
        let midnight = start + day * DAY;
        fill(&store, midnight, midnight + DAY, a, c);
        points.0.extend(history_of(&store, a, midnight, midnight + DAY));
        points.1.extend(history_of(&store, c, midnight, midnight + DAY));
        let now = midnight + DAY + 10_800;
        merge_all(&store, now);
        store.tick(now).expect("removes");
        merge_all(&store, now);
        assert!(store.stats().blocks < 40, "day {day}: {:?}", store.stats());
    }
    let now = TODAY + 10_800;
    let check = |store: &Store| {
        let oldest = history(store, a)[0].0;
        assert!((TODAY - 6 * DAY..TODAY - 3 * DAY).contains(&oldest), "points are gone");
        for (id, points) in [(a, &points.0), (c, &points.1)] {
            // Rows of 20 minutes, of 3 hours, of 12 hours.
            for back in [6 * DAY, 18 * DAY, 48 * DAY] {
                for cf in [Cf::Average, Cf::Max, Cf::Min] {
                    let query = Query { from: now - back, to: now, cf, now };
                    let grid = store.query(found(store, id), &query).expect("answers");
                    let expected = rows_of_points(points, |_| usize::from(id == a), &grid, i64::from(grid.step), cf);
                    assert_close(&grid, &expected, &format!("{query:?}"));
                    assert!(grid.values.iter().filter(|row| row.1.is_some()).count() > grid.values.len() - 12);
                }
            }
            let query = Query { from: now - 48 * DAY, to: now, cf: Cf::Last, now };
            let last = store.query(found(store, id), &query).expect("answers").values;
            let known = last.iter().filter(|row| row.1.is_some()).count();
            assert!((4 * 8..=6 * 8).contains(&known), "LAST is known as long as the points are: {known}");
        }
        let query = Query { from: now - 88 * DAY, to: now - 84 * DAY, cf: Cf::Max, now };
        let gone = store.query(found(store, a), &query).expect("answers").values;
        assert!(
            !gone.is_empty() && gone.iter().all(|row| row.1.is_none()),
            "past every retention, and the period it is in"
        );
    };
    check(&store);
    drop(store);
    let (store, recovery) = Store::open_on(Arc::new(disk), options, now).expect("opens");
    assert_eq!(recovery.corrupt, Vec::<String>::new());
    check(&store);
}

#[test]
fn a_roll_up_that_is_off_is_not_made() {
    let disk = FakeDisk::default();
    let (store, _) = open_with(&disk, Options { retention_5m_s: 0, retention_1h_s: 0, ..options() });
    let (a, c) = (gauge(&store, "a"), counter(&store, "a"));
    fill(&store, TODAY - DAY, TODAY, a, c);
    merge_all(&store, NOW);
    let stats = store.stats();
    assert_eq!((stats.raw.blocks, stats.rollups_5m.blocks, stats.rollups_1h.blocks), (1, 0, 0));
    check_rows(&store, found(&store, a), &history(&store, a), NOW, "points only");
}

#[test]
fn removed_series_give_their_space_back() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let ids: Vec<SeriesId> = (0..40).map(|i| gauge(&store, &format!("host-{i}"))).collect();
    for time in (TODAY - DAY..TODAY).step_by(600) {
        let batch: Vec<Sample> = ids.iter().map(|id| sample(*id, time, gauge_value(time + i64::from(id.0)))).collect();
        store.append(&batch, NOW, &mut ()).expect("room");
    }
    store.flush(NOW).expect("room");
    merge_all(&store, NOW);
    let (before, kept) = (store.stats(), history(&store, ids[30]));
    for id in &ids[..4] {
        store.remove_series(*id).expect("room");
    }
    assert_eq!(merge_all(&store, NOW), 0, "four of forty are not worth it");
    store.remove_series(ids[4]).expect("room");
    assert_eq!(merge_all(&store, NOW), 3);
    let after = store.stats();
    assert_eq!((after.raw.points, after.raw.blocks), (before.raw.points * 35 / 40, 1));
    assert!(after.rollups_1h.points == before.rollups_1h.points * 35 / 40 && after.block_bytes < before.block_bytes);
    assert_eq!(history(&store, ids[30]), kept);
    assert_eq!(merge_all(&store, NOW), 0);
    for i in 0..40 {
        store.remove_endpoint(&format!("host-{i}")).expect("room");
    }
    merge_all(&store, NOW);
    assert_eq!(store.stats().raw.blocks, 0, "a block with nothing in it is none");
    assert_eq!(history(&store, gauge(&store, "host-1")), []);
}

#[test]
fn a_merge_without_room_keeps_everything_and_is_tried_again() {
    for room in [0, 10, 100, 1000, 3000] {
        let disk = FakeDisk::default();
        let store = open(&disk);
        let (a, c) = (gauge(&store, "a"), counter(&store, "a"));
        fill(&store, TODAY - DAY, TODAY, a, c);
        let (before, files) = (history(&store, a), block_files(&disk));
        disk.set_room(Some(room));
        let failed = (0..1000).find_map(|_| store.merge_step(NOW, 100).err());
        assert!(matches!(failed, Some(Error::Disk { .. })), "{failed:?}");
        assert_eq!(block_files(&disk), files, "nothing half-written stays");
        assert_eq!(history(&store, a), before);
        assert!(!store.merge_step(NOW + 30, 1000).expect("waits").more);
        disk.set_room(None);
        merge_all(&store, NOW + 4000);
        assert_eq!((store.stats().raw.blocks, store.stats().merge_errors), (1, 1));
        assert_eq!(history(&store, a), before);
    }
}

#[test]
fn rot_in_an_input_costs_what_it_hit_and_the_file_is_kept_aside() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (a, c) = (gauge(&store, "a"), counter(&store, "a"));
    fill(&store, TODAY - DAY, TODAY, a, c);
    let (a_before, c_before) = (history(&store, a), history(&store, c));
    let damaged = block_files(&disk).remove(3);
    // The first chunk of it.
    disk.corrupt(&PathBuf::from("data/block").join(&damaged), 30);
    merge_all(&store, NOW);
    assert!(store.stats().corrupt_reads > 0);
    assert!(store.take_untold_damage()[0].contains(&damaged), "the log names it");
    assert_eq!(store.damaged_files(), Vec::<String>::new(), "it counts no more");
    assert_eq!(history(&store, a).len(), a_before.len() - 118);
    assert_eq!(history(&store, c), c_before);
    let aside = damaged.replace(".blk", ".damaged");
    assert!(block_files(&disk).contains(&aside) && !block_files(&disk).contains(&damaged));
    drop(store);
    assert_eq!(history(&open(&disk), c), c_before);
}

/// The points of a day answer where its roll-ups cannot; where they are gone, too, the answer says so.
#[test]
fn points_answer_for_a_damaged_roll_up() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (a, c) = (gauge(&store, "a"), counter(&store, "a"));
    let now = TODAY + 10 * 3600;
    fill(&store, TODAY - 4 * DAY, now, a, c);
    merge_all(&store, now);
    let points = (history(&store, a), history(&store, c));
    let is_rolled_up = |name: &String| name.contains("-5m-") || name.contains("-1h-");
    // The first chunk of each, and the second.
    for name in block_files(&disk).into_iter().filter(is_rolled_up) {
        let path = PathBuf::from("data/block").join(name);
        [30, disk.content(&path).len() as u64 / 2].into_iter().for_each(|at| disk.corrupt(&path, at));
    }
    drop(store);
    let store = open(&disk);
    check_rows(&store, found(&store, a), &points.0, now, "gauge");
    check_rows(&store, found(&store, c), &points.1, now, "counter");
    assert!(store.stats().corrupt_reads > 0 && !store.damaged_files().is_empty());
    let query = Query { from: TODAY - 4 * DAY, to: now, cf: Cf::Average, now: now + 60 * DAY };
    let grid = store.query(found(&store, a), &query).expect("answers");
    assert_eq!(grid.incomplete, None, "nothing is missing");
}

/// The power goes at every write of a merge and of what follows: no point is lost, none is there twice, and after the
/// next start and merge no file is left over.
#[test]
fn a_power_cut_at_every_write_of_a_merge() {
    let build = |disk: &FakeDisk| {
        let store = open(disk);
        let ids = [gauge(&store, "a"), counter(&store, "a"), gauge(&store, "b")];
        for from in (TODAY - 2 * DAY..TODAY).step_by(21_600) {
            let times = (from..from + 21_600).step_by(1800);
            let batch: Vec<Sample> =
                times.flat_map(|time| ids.map(|id| sample(id, time, gauge_value(time + i64::from(id.0))))).collect();
            store.append(&batch, NOW, &mut ()).expect("room");
            store.flush(NOW).expect("room");
        }
        (store, ids)
    };
    let disk = FakeDisk::default();
    let (store, ids) = build(&disk);
    let before = disk.operations();
    let expected = ids.map(|id| history(&store, id));
    merge_all(&store, NOW);
    let (operations, files) = (disk.operations(), block_files(&disk).len());
    assert!(operations > before + 20 && files == 6, "{files} files");
    for cut in before..operations {
        for seed in 0..6 {
            let disk = FakeDisk::default();
            let (store, ids) = build(&disk);
            disk.cut_power_at(cut);
            let failed = (0..1000).any(|_| store.merge_step(NOW, 300).is_err());
            // Only when what is replaced goes away, and that is not made durable at once, nobody needs to hear of it.
            assert!(failed || disk.operations() >= cut, "cut at {cut}");
            drop(store);
            disk.restart_after_power_cut(seed);
            let context = format!("cut at {cut}, seed {seed}");
            let (store, recovery) = open_with(&disk, options());
            // A torn head of the newest log segment may be told; of blocks there is nothing to tell.
            assert!(recovery.corrupt.iter().all(|text| !text.contains("/block/")), "{context}: {:?}", recovery.corrupt);
            let check = || ids.map(|id| history(&store, id));
            assert_eq!(check(), expected, "{context}");
            // Finds what is not merged yet, at once.
            merge_all(&store, NOW);
            assert_eq!(check(), expected, "{context}");
            let left = block_files(&disk);
            assert_eq!((left.len(), store.stats().raw.points), (6, 288), "{context}: {left:?}");
        }
    }
}

#[test]
fn many_series_come_in_one_call_and_too_many_rows_are_refused_first() {
    let disk = FakeDisk::default();
    let (store, _) = open_with(&disk, Options { query_points_max: 10_000, ..options() });
    let ids: Vec<SeriesId> = (0..300).map(|i| gauge(&store, &format!("host-{i}"))).collect();
    for time in (NOW - 2 * DAY..NOW).step_by(1800) {
        let batch: Vec<Sample> = ids.iter().map(|id| sample(*id, time, f64::from(id.0))).collect();
        store.append(&batch, NOW, &mut ()).expect("room");
    }
    store.flush(NOW).expect("room");
    merge_all(&store, NOW);
    // In any order, one twice, one of them removed.
    let mut asked: Vec<Found> = ids.iter().rev().map(|id| found(&store, *id)).collect();
    asked.push(asked[7]);
    store.remove_series(ids[100]).expect("room");
    let query = Query { from: NOW - 3600, to: NOW - 1800, cf: Cf::Average, now: NOW };
    let mut answers = BTreeMap::new();
    let each = |i: usize, grid| answers.insert(i, grid).is_none();
    store.query_many(&asked, &query, each).expect("answers");
    assert_eq!(answers.len(), 301);
    for (i, grid) in answers {
        if asked[i].id == ids[100] {
            assert!(matches!(grid, Err(Error::UnknownSeries(100))));
            continue;
        }
        let grid = grid.expect("answers");
        assert_eq!(grid, store.query(asked[i], &query).expect("answers"), "{i}");
        assert!(grid.values.contains(&(NOW - 1800, Some(f64::from(asked[i].id.0)))));
    }
    let wide = Query { from: NOW - 43_200, ..query };
    let refused = store.query_many(&asked, &wide, |_, _| panic!("nothing is read"));
    assert!(matches!(refused, Err(Error::TooManyPoints { limit: 10_000 })));
    let mut seen = 0;
    store
        .query_many(&asked, &query, |_, _| {
            seen += 1;
            seen < 3
        })
        .expect("ends early");
    assert_eq!(seen, 3);
}

/// Queries, flushes, removals and retention beside merges: whatever a query sees is complete.
#[test]
fn merges_run_beside_everything_else() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (a, c) = (gauge(&store, "a"), counter(&store, "a"));
    fill(&store, TODAY - 5 * DAY, TODAY, a, c);
    let expected = history(&store, a);
    let query = Query { from: TODAY - 5 * DAY, to: TODAY - 1, cf: Cf::Max, now: NOW };
    let grid = store.query(found(&store, a), &query).expect("answers");
    let merged = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ends = Ends(&merged);
            merge_all(&store, NOW);
        });
        scope.spawn(|| {
            for i in 0..20 {
                let id = gauge(&store, &format!("short-lived-{i}"));
                put(&store, id, TODAY + 60 * i, 1.0);
                store.flush(NOW).expect("room");
                store.tick(NOW).expect("room");
                store.remove_series(id).expect("room");
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !merged.load(Relaxed) {
                    assert_eq!(history_of(&store, a, 0, TODAY - 1), expected);
                    assert_eq!(store.query(found(&store, a), &query).expect("answers"), grid);
                }
            });
        }
    });
    merge_all(&store, NOW);
    assert_eq!(history(&store, a), expected);
    assert_eq!(store.stats().blocks, block_files(&disk).len(), "no file is left over");
}
