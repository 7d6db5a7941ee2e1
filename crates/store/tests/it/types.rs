//! A series that changes its type or step: each stretch of its history stays what it was, wherever its points lie.

use crate::*;
use store::{Fsync, Query};

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

/// An hour of a counter that grows by 2 a second, an hour of a gauge of 7, and an hour of a counter of half the step
/// that grows by 3 a second.
const BEGIN: i64 = NOW - 3 * HOUR;

fn feed(store: &Store, begin: i64, flush: bool) -> SeriesId {
    let id = store.create(key("h", "m", ""), CounterType::Counter, 60).expect("room");
    let stretches = [(CounterType::Counter, 60, 2.0), (CounterType::Gauge, 60, 0.0), (CounterType::Derive, 30, 3.0)];
    for (i, (counter_type, step, per_s)) in stretches.into_iter().enumerate() {
        let from = begin + HOUR * i as i64;
        store.set_meta(id, counter_type, step, from).expect("room");
        for time in (from..from + HOUR).step_by(step as usize) {
            let value = if per_s == 0.0 { 7.0 } else { 1e6 + (time - begin) as f64 * per_s };
            store.append(&[sample(id, time, value)], begin + 3 * HOUR, &mut ()).expect("room");
        }
        if flush {
            store.flush(begin + 3 * HOUR).expect("room");
        }
    }
    id
}

/// Rows of a minute over the three hours: rates of 2, values of 7, rates of 3; none at the first point of a counter.
fn check(store: &Store, begin: i64, context: &str) {
    let now = begin + 3 * HOUR;
    let query = Query { from: begin, to: now - 60, cf: Cf::Average, now };
    let found = store.find("h", "m").expect("names read").expect("known");
    let grid = store.query(found, &query).expect("answers");
    let rows: Vec<Option<f64>> = grid.values.iter().map(|(_, value)| *value).collect();
    let mut expected = vec![Some(2.0); 60];
    expected.extend([Some(7.0); 60]);
    // Two steps of the last stretch are one row of the one before.
    expected.extend([Some(3.0); 60]);
    expected[0] = None;
    let by_minute: Vec<Option<f64>> = match grid.step {
        30 => rows.iter().step_by(2).copied().collect(),
        _ => rows,
    };
    expected[120] = None;
    assert_eq!(by_minute, expected, "{context}");
}

/// A row of the past has the average of what its time was, also where only roll-ups are read; of a row that has more
/// than one stretch, what came last counts.
fn check_coarse(store: &Store, begin: i64, later: i64, context: &str) {
    let query = Query { from: begin, to: begin + 3 * HOUR, cf: Cf::Average, now: begin + later };
    let found = store.find("h", "m").expect("names read").expect("known");
    let grid = store.query(found, &query).expect("answers");
    let values: Vec<f64> = grid.values.iter().filter_map(|(_, value)| *value).collect();
    assert!(values.iter().all(|value| [2.0, 7.0, 3.0].contains(value)), "{context}: nothing is mixed, {grid:?}");
    // Wider rows have more than one stretch each, or are none in three hours.
    let has = |wanted: f64| values.contains(&wanted) || i64::from(grid.step) > HOUR / 2;
    assert!(has(2.0) && has(7.0) && has(3.0), "{context}: {grid:?}");
}

#[test]
fn rows_are_what_each_stretch_was() {
    for flush in [false, true] {
        let disk = FakeDisk::default();
        let store = open(&disk);
        let id = feed(&store, BEGIN, flush);
        check(&store, BEGIN, "as appended");
        assert_eq!(store.last(found(&store, id)), Some(Point { time: NOW - 30, value: 3.0 }));
        drop(store);
        disk.restart_after_kill();
        let store = open(&disk);
        check(&store, BEGIN, "read back, from the log or from blocks");
        store.flush(NOW).expect("room");
        check(&store, BEGIN, "flushed");
        drop(store);
        disk.restart_after_power_cut(7);
        let store = open(&disk);
        check(&store, BEGIN, "read back from blocks");
    }
}

#[test]
fn merged_days_and_roll_ups_are_what_each_stretch_was() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    // The counter's last stretch goes over midnight, with the rate that it begins the next day with.
    let begin = NOW - 3 * DAY;
    feed(&store, begin, true);
    let later = begin + 2 * DAY;
    while store.merge_step(later, 1 << 20).expect("room").more {}
    let stats = store.stats();
    assert_eq!((stats.raw.blocks, stats.rollups_5m.blocks, stats.rollups_1h.blocks), (1, 1, 1));
    check(&store, begin, "merged");
    // Rows of 5 and of 20 steps of the last stretch, from points and from roll-ups; and of an hour and six.
    for later in [4 * HOUR, 20 * HOUR, 2 * DAY, 5 * DAY, 60 * DAY] {
        check_coarse(&store, begin, later, &format!("{later} s later"));
    }
}

#[test]
fn a_series_that_slept_wakes_as_what_it_was() {
    let disk = FakeDisk::default();
    let small = || Options { silent_s: HOUR, fsync: Fsync::Always, ..options() };
    let (store, _) = open_with(&disk, small());
    feed(&store, BEGIN, true);
    // The journal grows beyond what is left as it is, by a series that two senders quarrel about.
    let quarrel = gauge(&store, "quarrel");
    for i in 0..60_000 {
        let counter_type = [CounterType::Counter, CounterType::Gauge][i as usize % 2];
        store.set_meta(quarrel, counter_type, 60, NOW - DAY + i).expect("room");
    }
    put(&store, quarrel, NOW, 1.0);
    store.flush(NOW).expect("room");
    // Data of a day later makes the others silent.
    let awake = gauge(&store, "awake");
    store.append(&[sample(awake, NOW + DAY, 1.0)], NOW + DAY, &mut ()).expect("room");
    let before = store.stats().series_file_bytes;
    for now in [NOW + DAY, NOW + DAY + 60] {
        store.sleep_silent(now, &mut |_, _| ()).expect("room");
    }
    assert!(!store.is_awake(key("h", "m", "")));
    assert!(store.stats().series_file_bytes < before / 10, "it was written anew");
    check(&store, BEGIN, "asleep");
    drop(store);
    let (store, recovery) = open_with(&disk, small());
    assert_eq!(recovery.corrupt, Vec::<String>::new());
    check(&store, BEGIN, "asleep after a restart");
    // It comes back as a gauge: until then it was a counter.
    let id = store.create(key("h", "m", ""), CounterType::Gauge, 60).expect("room");
    check(&store, BEGIN, "awake as what it was");
    store.set_meta(id, CounterType::Gauge, 60, NOW + DAY).expect("room");
    store.append(&[sample(id, NOW + DAY, 5.0)], NOW + DAY, &mut ()).expect("room");
    assert_eq!(store.last(found(&store, id)), Some(Point { time: NOW + DAY, value: 5.0 }));
    check(&store, BEGIN, "awake as a gauge");
}

#[test]
fn a_window_has_one_kind_of_points() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let id = store.create(key("h", "m", ""), CounterType::Counter, 60).expect("room");
    let times = |store: &Store| {
        let mut tail = Vec::new();
        store.with_tail(id, |view| view.tail(id, 100, &mut tail));
        tail.iter().map(|point| (NOW - point.time) / 60).collect::<Vec<_>>()
    };
    for i in 0..5 {
        put(&store, id, NOW - 600 + 60 * i, 100.0 * i as f64);
    }
    store.set_meta(id, CounterType::Gauge, 60, NOW - 300).expect("room");
    assert_eq!(times(&store), Vec::<i64>::new());
    put(&store, id, NOW - 300, 7.0);
    put(&store, id, NOW - 240, 7.0);
    assert_eq!(times(&store), [4, 5]);
    // Another step is no other kind.
    store.set_meta(id, CounterType::Gauge, 30, NOW - 180).expect("room");
    put(&store, id, NOW - 180, 7.0);
    assert_eq!(times(&store), [3, 4, 5]);
    // What comes late says nothing about what the series is now.
    store.set_meta(id, CounterType::Counter, 60, NOW - 200).expect("room");
    let info = |store: &Store| store.info(id).map(|info| (info.counter_type, info.step));
    assert_eq!(info(&store), Some((CounterType::Gauge, 30)));
    // But for the step, which some doors learn from another.
    store.set_meta(id, CounterType::Gauge, 60, NOW - 180).expect("room");
    assert_eq!((info(&store), times(&store)), (Some((CounterType::Gauge, 60)), vec![3, 4, 5]));
    drop(store);
    let store = open(&disk);
    assert_eq!(times(&store), [3, 4, 5]);
    store.flush(NOW).expect("room");
    drop(store);
    let store = open(&disk);
    assert_eq!(times(&store), [3, 4, 5]);
}

/// Is shown the points that are judged.
struct Shown(Vec<(i64, CounterType)>);

impl store::Observer for Shown {
    fn newest(&mut self, _: usize, sample: Sample, counter_type: CounterType, _: &store::ShardView<'_>) {
        self.0.push((sample.point.time, counter_type));
    }
}

#[test]
fn a_batch_with_both_types_shows_no_point_as_what_it_is_not() {
    let store = open(&FakeDisk::default());
    let id = store.create(key("h", "m", ""), CounterType::Counter, 60).expect("room");
    store.set_meta(id, CounterType::Gauge, 60, NOW).expect("room");
    let mut shown = Shown(Vec::new());
    store.append(&[sample(id, NOW - 60, 1e6), sample(id, NOW, 7.0)], NOW, &mut shown).expect("room");
    assert_eq!(shown.0, [(NOW, CounterType::Gauge)]);
    assert_eq!(history(&store, id).len(), 2);
}
