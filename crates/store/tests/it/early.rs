//! Where memory is short: what nobody needs leaves memory early, and nothing is lost by it.

use crate::*;
use store::{IsNeeded, Most, Slept};

const UNNEEDED: IsNeeded<'static> = &|_| false;
const EARLY_GRACE: i64 = 10;

fn pass(store: &Store, now: i64, is_needed: IsNeeded<'_>) -> Slept {
    store.sleep_early(now, is_needed, &mut |_, _| ()).expect("the disk has room")
}

fn put_at(store: &Store, series: SeriesId, time: i64, value: f64) {
    assert_eq!(store.append(&[sample(series, time, value)], time, &mut ()).expect("room").stored, 1);
}

/// A store with a fleet of two that reports at the time returned, one of them needed, and series of one point each.
fn exploded(disk: &FakeDisk, count: usize) -> (Store, i64, [SeriesId; 2]) {
    let store = open(disk);
    let fleet = ["web", "db"].map(|name| gauge(&store, name));
    for i in 0..count {
        let tags = format!("request_id={i:032}");
        let id = store.create(key("shop", "latency", &tags), CounterType::Gauge, 60).expect("room for a series");
        put_at(&store, id, NOW, i as f64);
    }
    let now = NOW + 180;
    fleet.iter().for_each(|id| put_at(&store, *id, now, 1.0));
    (store, now, fleet)
}

#[test]
fn series_of_one_point_leave_memory_after_three_steps_and_are_read_as_before() {
    const COUNT: usize = 40_000;
    let disk = FakeDisk::default();
    let (store, now, _) = exploded(&disk, COUNT);
    assert_eq!(pass(&store, now, UNNEEDED), Slept::default(), "what is in no block stays");
    store.flush(now).expect("room");
    let full = store.stats();
    assert_eq!(pass(&store, now - 1, UNNEEDED), Slept::default(), "the third point may still come");
    assert_eq!(pass(&store, now, UNNEEDED), Slept { drowsy: COUNT, asleep: 0 });
    assert_eq!(pass(&store, now + EARLY_GRACE - 1, UNNEEDED).asleep, 0, "batches may be on their way");
    assert_eq!(pass(&store, now + EARLY_GRACE, UNNEEDED), Slept { drowsy: 0, asleep: COUNT });
    let stats = store.stats();
    assert_eq!((stats.series, stats.series_asleep), (2, COUNT as u64));
    let (bytes, before) = (stats.index_bytes + stats.hot_bytes, full.index_bytes + full.hot_bytes);
    assert!(bytes < before / 20, "{bytes} of {before} bytes are left");
    let counter = format!("latency/request_id={:032}", 77);
    let id = id_of(&store, "shop", &counter).expect("it is found");
    assert_eq!(history(&store, id), [(NOW, 77.0)]);
    drop(store);
    let store = open(&disk);
    assert_eq!(store.stats().series, 2);
    let tags = format!("request_id={:032}", 77);
    let woken = store.create(key("shop", "latency", &tags), CounterType::Gauge, 60).expect("room");
    assert_eq!(woken, id);
    put_at(&store, id, now + 60, 1.0);
    assert_eq!(history(&store, id), [(NOW, 77.0), (now + 60, 1.0)]);
}

#[test]
fn what_a_rule_needs_stays_also_when_the_rule_comes_in_the_grace() {
    let disk = FakeDisk::default();
    let (store, now, [web, db]) = exploded(&disk, 0);
    store.flush(now).expect("room");
    let later = now + 3600;
    put_at(&store, gauge(&store, "other"), later, 1.0);
    assert_eq!(pass(&store, later, &|id| id == web), Slept { drowsy: 1, asleep: 0 });
    assert_eq!(pass(&store, later + EARLY_GRACE, &|id| id == web || id == db).asleep, 0);
    assert!(
        [("web", web), ("db", db)]
            .iter()
            .all(|(name, id)| store.finder().find(key(name, "m", "")).is_some_and(|found| found.id == *id))
    );
    assert_eq!(pass(&store, later + EARLY_GRACE, &|id| id == web).drowsy, 1, "and is looked at again");
}

#[test]
fn nobody_sleeps_early_when_memory_is_not_short_any_more() {
    let disk = FakeDisk::default();
    let (store, now, _) = exploded(&disk, 10);
    store.flush(now).expect("room");
    assert_eq!(pass(&store, now, UNNEEDED).drowsy, 10);
    let calm = |now| store.sleep_silent(now, &mut |_, _| ()).expect("room");
    assert_eq!(calm(now + 30), Slept { drowsy: 10, asleep: 0 });
    assert_eq!(calm(now + 60), Slept::default());
    assert_eq!(store.stats().series, 12);
    let tags = format!("request_id={:032}", 3);
    assert!(store.finder().find(key("shop", "latency", &tags)).is_some());
}

#[test]
fn flushed_points_that_nobody_needs_leave_memory_and_are_read_from_the_disk() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let ids: Vec<SeriesId> = (0..2000).map(|i| gauge(&store, &format!("host-{i}"))).collect();
    let value = |id: SeriesId, minute: i64| ((i64::from(id.0) * 7919 + minute * minute) % 1009) as f64 / 7.0;
    let mut now = NOW;
    for minute in 0..100 {
        now = NOW + 60 * minute;
        let samples: Vec<Sample> = ids.iter().map(|id| sample(*id, now, value(*id, minute))).collect();
        assert_eq!(store.append(&samples, now, &mut ()).expect("room").stored, ids.len());
    }
    let is_needed = |id: SeriesId| id.0.is_multiple_of(10);
    store.trim_unneeded(&is_needed);
    assert_eq!(store.stats().hot_points, 200_000, "what is in no block stays");
    store.flush(now).expect("room");
    assert_eq!(store.stats().hot_points, 200_000, "the flush itself keeps the hot window");
    let before = store.stats().hot_bytes;
    store.trim_unneeded(&is_needed);
    let stats = store.stats();
    assert!(stats.hot_points < 20_000 + 1800 * 25 && stats.hot_points >= 20_000 + 1800 * 16, "{}", stats.hot_points);
    assert!(stats.hot_bytes < before / 2, "{} of {before}", stats.hot_bytes);
    for id in [ids[0], ids[10], ids[11], ids[1999]] {
        let expected: Vec<(i64, f64)> = (0..100).map(|minute| (NOW + 60 * minute, value(id, minute))).collect();
        assert_eq!(history(&store, id), expected);
    }
    // A point that is late lands in order, wherever the chain begins now.
    assert_eq!(store.append(&[sample(ids[11], NOW + 90, -1.0)], now, &mut ()).expect("room").late, 1);
    assert_eq!(history(&store, ids[11]).len(), 101);
    store.flush(now).expect("room");
    assert_eq!(history(&store, ids[11])[1..4].iter().map(|(time, _)| time - NOW).collect::<Vec<_>>(), [60, 90, 120]);
}

#[test]
fn a_census_counts_series_by_endpoint_metric_and_tag_key() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    // More than one stretch of counters and of endpoints.
    for i in 0..5000 {
        gauge(&store, &format!("host-{i:04}"));
        let tags = format!("dc=bj,request_id={i}");
        store.create(key("shop", "latency", &tags), CounterType::Gauge, 60).expect("room");
    }
    let gone = store.create(key("gone", "gone", "gone=1"), CounterType::Gauge, 60).expect("room");
    store.remove_series(gone).expect("room");
    let most = |name: &str, series, values| Most { name: name.into(), series, values };
    let census = store.census(2);
    assert_eq!(census.endpoints, [most("shop", 5000, 0), most("host-0000", 1, 0)]);
    assert_eq!(census.metrics, [most("m", 5000, 0), most("latency", 5000, 0)]);
    let [ids, dc] = &census.tag_keys[..] else { panic!("{census:?}") };
    assert_eq!((ids.name.as_str(), ids.series, dc), ("request_id", 5000, &most("dc", 5000, 1)));
    assert!((4000..6000).contains(&ids.values), "{}", ids.values);
    assert_eq!(store.census(0), Default::default());
}
