//! A clock that was ahead: points that it told are kept, and what comes when it is right is the newest again.

use crate::{NOW, gauge, history, id_of, sample};
use model::{CounterType, Point, Sample, SeriesId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use stdx::FakeDisk;
use store::{Cf, Observer, Query, ShardView, Store};

const HOUR: i64 = 3600;

/// Windows of the newest points, newest first, as an observer is shown them.
#[derive(Default)]
struct Seen {
    windows: Vec<Vec<i64>>,
    late: Vec<i64>,
}

impl Observer for Seen {
    fn newest(&mut self, _: usize, sample: Sample, _: CounterType, window: &ShardView<'_>) {
        let mut points: Vec<Point> = Vec::new();
        window.tail(sample.series, 3, &mut points);
        self.windows.push(points.iter().map(|point| point.time - NOW).collect());
    }

    fn late(&mut self, _: usize, sample: Sample, _: &ShardView<'_>) {
        self.late.push(sample.point.time - NOW);
    }
}

fn open_at(disk: &FakeDisk, now: i64) -> Store {
    let (store, recovery) = Store::open_on(Arc::new(disk.clone()), crate::options(), now).expect("the store opens");
    assert_eq!(recovery.corrupt, Vec::<String>::new());
    store
}

/// Puts a point that comes without a time, while the clock is so far from `NOW` + `at`.
fn put(store: &Store, series: SeriesId, at: i64, offset: i64) -> Seen {
    let (mut seen, now) = (Seen::default(), NOW + at + offset);
    store.append(&[sample(series, now, at as f64)], now, &mut seen).expect("room");
    seen
}

fn six_hours_ahead(flushed: bool) {
    let disk = FakeDisk::default();
    let store = open_at(&disk, NOW);
    let a = gauge(&store, "a");
    [0, 60].iter().for_each(|at| _ = put(&store, a, *at, 0));
    [120, 180, 240].iter().for_each(|at| _ = put(&store, a, *at, 6 * HOUR));
    if flushed {
        store.flush(NOW + 240).expect("room");
    }
    let ahead = [120, 180, 240].map(|at| at + 6 * HOUR);
    assert_eq!(put(&store, a, 300, 0).windows, [[300, 60, 0]]);
    assert_eq!(put(&store, a, 360, 0).windows, [[360, 300, 60]]);
    assert_eq!((store.stats().set_aside, store.stats().late), (3, 0));
    let times = |store: &Store| -> Vec<i64> { history(store, a).iter().map(|(time, _)| time - NOW).collect() };
    assert_eq!(times(&store), [&[0, 60, 300, 360], &ahead[..]].concat());
    assert_eq!(id_of(&store, "a", "m"), Some(a));
    let found = crate::found(&store, a);
    assert_eq!(store.last_raw(found).map(|point| point.time - NOW), Some(360));
    let query = Query { from: NOW, to: NOW + 7 * HOUR, cf: Cf::Average, now: NOW + 360 };
    let rows = store.query(found, &query).expect("readable").values;
    assert_eq!(rows.iter().filter(|(time, value)| *time > NOW + HOUR && value.is_some()).count(), 3);
    drop(store);
    let store = open_at(&disk, NOW + 400);
    assert_eq!(put(&store, a, 420, 0).windows, [[420, 360, 300]]);
    store.flush(NOW + 420).expect("room");
    drop(store);
    // The points ahead are in blocks now, and stay there.
    let store = open_at(&disk, NOW + 480);
    assert_eq!(store.newest_in_memory(a).map(|point| point.time - NOW), Some(420));
    assert_eq!(put(&store, a, 480, 0).windows, [[480, 420, 360]]);
    assert_eq!(times(&store), [&[0, 60, 300, 360, 420, 480], &ahead[..]].concat());
    // Time passes them.
    assert_eq!(put(&store, a, 7 * HOUR, 0).windows, [[7 * HOUR, 480, 420]]);
    store.flush(NOW + 7 * HOUR).expect("room");
    assert_eq!(times(&store), [&[0, 60, 300, 360, 420, 480], &ahead[..], &[7 * HOUR]].concat());
}

#[test]
fn later_points_are_the_newest_at_once() {
    six_hours_ahead(false);
    six_hours_ahead(true);
}

#[test]
fn a_series_that_began_ahead_begins_anew() {
    let disk = FakeDisk::default();
    let store = open_at(&disk, NOW);
    let a = gauge(&store, "a");
    [0, 60].iter().for_each(|at| _ = put(&store, a, *at, 6 * HOUR));
    assert_eq!(put(&store, a, 120, 0).windows, [[120]]);
    drop(store);
    let store = open_at(&disk, NOW + 180);
    assert_eq!(put(&store, a, 180, 0).windows, [[180, 120]]);
    assert_eq!(history(&store, a).len(), 4);
}

#[test]
fn what_is_a_little_ahead_is_late_and_shown_as_that() {
    let disk = FakeDisk::default();
    let store = open_at(&disk, NOW);
    let a = gauge(&store, "a");
    put(&store, a, 0, 240);
    let seen = put(&store, a, 60, 0);
    assert_eq!((seen.windows.len(), seen.late), (0, vec![60]));
    assert_eq!(store.stats().set_aside, 0);
}

#[derive(Clone, Debug)]
enum Act {
    /// A minute passes and both series have a point, by a clock that is so many hours off.
    Minute(i64),
    Flush,
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => prop::sample::select(vec![0, 0, 0, 1, 6, 30, -1, -6]).prop_map(Act::Minute),
        1 => Just(Act::Flush),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the clock does: every point is kept once, and each that comes is the newest, or is near one that is.
    #[test]
    fn no_point_is_lost_and_each_is_judged(acts in prop::collection::vec(act(), 1..60)) {
        let disk = FakeDisk::default();
        let mut store = open_at(&disk, NOW);
        let series = ["a", "b"].map(|name| gauge(&store, name));
        let mut expected: BTreeMap<i64, f64> = BTreeMap::new();
        let mut at = 0;
        for act in acts {
            match act {
                Act::Minute(hours) => {
                    at += 60;
                    for one in series {
                        let seen = put(&store, one, at, hours * HOUR);
                        let is_new = !expected.contains_key(&(NOW + at + hours * HOUR));
                        prop_assert!(seen.windows.len() + seen.late.len() == usize::from(is_new));
                        let newest = store.newest_in_memory(one).expect("a point").time;
                        prop_assert!(newest <= NOW + at + hours * HOUR + 300, "{newest}");
                    }
                    expected.entry(NOW + at + hours * HOUR).or_insert(at as f64);
                }
                Act::Flush => store.flush(NOW + at).expect("room"),
                Act::Reopen => {
                    drop(store);
                    store = open_at(&disk, NOW + at);
                }
            }
            for one in series {
                let points: Vec<(i64, f64)> = expected.iter().map(|(time, value)| (*time, *value)).collect();
                prop_assert_eq!(history(&store, one), points);
            }
        }
    }
}

/// The first of two points of one time counts, also where a clock that is behind takes its block for ahead, and only
/// the second is in the log.
#[test]
fn a_clock_that_is_behind_brings_no_value_that_was_not_kept() {
    for flushed in [false, true] {
        let disk = FakeDisk::default();
        let store = open_at(&disk, NOW);
        let a = gauge(&store, "a");
        store.append(&[sample(a, NOW, 1.0)], NOW, &mut ()).expect("room");
        drop(store);
        let store = open_at(&disk, NOW - 2 * HOUR);
        if flushed {
            store.flush(NOW).expect("room");
        }
        let again = store.append(&[sample(a, NOW, 500.0)], NOW, &mut ()).expect("room");
        assert_eq!(again.duplicate, 1);
        drop(store);
        for now in [NOW - 2 * HOUR, NOW - 2 * HOUR, NOW] {
            let store = open_at(&disk, now);
            assert_eq!(history(&store, a), [(NOW, 1.0)], "{flushed}");
            let newest = store.newest_in_memory(a);
            assert!(newest.is_none_or(|point| point.value == 1.0), "{flushed}: {newest:?}");
            let mut tail = Vec::new();
            store.with_tail(a, |view| view.tail(a, 3, &mut tail));
            assert!(tail.iter().all(|point| point.value == 1.0), "{flushed}: {tail:?}");
            let last = store.last_raw(crate::found(&store, a));
            assert_eq!(last.map(|point| point.value), Some(1.0), "{flushed}, {now}");
        }
        // The clock is set right while the server runs: what is repeated is shown to nobody as the newest.
        let store = open_at(&disk, NOW - 2 * HOUR);
        let mut seen = Seen::default();
        store.append(&[sample(a, NOW, 700.0)], NOW, &mut seen).expect("room");
        assert_eq!(seen.windows, Vec::<Vec<i64>>::new(), "{flushed}");
        assert_eq!(put(&store, a, 60, 0).windows[0][0], 60);
        assert_eq!(put(&store, a, 120, 0).windows[0][..2], [120, 60]);
        for _ in 0..2 {
            assert_eq!(history(&store, a), [(NOW, 1.0), (NOW + 60, 60.0), (NOW + 120, 120.0)], "{flushed}");
            store.flush(NOW + 120).expect("room");
        }
    }
}
