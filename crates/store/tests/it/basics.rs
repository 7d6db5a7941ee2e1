//! Opening, naming, appending, restarting, removing.

use crate::*;
use store::{Error, Observer, ShardView};

#[test]
fn points_survive_a_kill_with_and_without_a_flush() {
    for flush in [false, true] {
        let disk = FakeDisk::default();
        let store = open(&disk);
        let (a, b) = (gauge(&store, "a"), gauge(&store, "b"));
        assert_ne!(a, b);
        assert_eq!(gauge(&store, "a"), a);
        for i in 0..100 {
            put(&store, a, NOW - 6000 + 60 * i, i as f64);
        }
        put(&store, b, NOW, -0.5);
        if flush {
            store.flush(NOW).expect("room");
        }
        drop(store);
        disk.restart_after_kill();
        let store = open(&disk);
        assert_eq!(gauge(&store, "a"), a);
        let expected: Vec<(i64, f64)> = (0..100).map(|i| (NOW - 6000 + 60 * i, i as f64)).collect();
        assert_eq!(history(&store, a), expected);
        assert_eq!(history(&store, b), [(NOW, -0.5)]);
        assert_eq!(store.last_raw(found(&store, a)), Some(Point { time: NOW - 60, value: 99.0 }));
        let stats = store.stats();
        assert_eq!((stats.series, stats.endpoints, stats.hot_points), (2, 2, 101));
        assert_eq!(stats.blocks, usize::from(flush));
    }
}

#[test]
fn a_second_opener_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { dir: dir.path().to_path_buf(), ..Options::default() };
    let (store, _) = Store::open(options.clone(), NOW).expect("opens");
    let Err(error) = Store::open(options.clone(), NOW) else { panic!("opened twice") };
    assert!(matches!(error, Error::Locked { .. }));
    assert!(error.to_string().contains(&dir.path().display().to_string()));
    drop(store);
    Store::open(options, NOW).expect("opens again");
}

#[test]
fn works_on_real_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { dir: dir.path().to_path_buf(), segment_bytes: 4096, ..Options::default() };
    let (store, _) = Store::open(options.clone(), NOW).expect("opens");
    let a = gauge(&store, "a");
    let expected: Vec<(i64, f64)> = (0..1000).map(|i| (NOW - 60_000 + 60 * i, (i % 7) as f64 / 3.0)).collect();
    for (i, (time, value)) in expected.iter().enumerate() {
        put(&store, a, *time, *value);
        if i % 300 == 299 {
            store.flush(NOW).expect("room");
        }
    }
    assert!(store.stats().blocks >= 3);
    store.tick(NOW).expect("syncs");
    assert_eq!(history(&store, a), expected);
    drop(store);
    let (store, recovery) = Store::open(options, NOW).expect("opens again");
    assert_eq!(recovery.corrupt, Vec::<String>::new());
    assert_eq!(history(&store, a), expected);
}

#[test]
fn a_clock_that_is_set_back_does_not_stop_flushes() {
    let disk = FakeDisk::default();
    let ahead = NOW + 400 * 86_400;
    let small = Options { flush_bytes: 1, ..options() };
    let (store, _) = Store::open_on(Arc::new(disk.clone()), small, ahead).expect("opens");
    let a = gauge(&store, "a");
    put(&store, a, NOW - 120, 1.0);
    put(&store, a, NOW - 60, 2.0);
    assert!(!store.tick(NOW).expect("syncs").flushed, "the first look notices the clock");
    assert!(store.tick(NOW + 31).expect("room").flushed, "flush_bytes are exceeded");
    put(&store, a, NOW, 2.0);
    assert!(store.tick(NOW + 31 + options().flush_interval_s).expect("room").flushed, "the interval is over");
}

#[test]
fn types_and_steps_change_durably() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let a = gauge(&store, "a");
    put(&store, a, NOW - 120, 1.0);
    put(&store, a, NOW - 60, 1.0);
    store.set_meta(a, CounterType::Counter, 10, NOW - 50).expect("room");
    put(&store, a, NOW - 50, 1.0);
    drop(store);
    let store = open(&disk);
    let info = store.info(a).expect("known");
    assert_eq!((info.counter_type, info.step), (CounterType::Counter, 10));
    assert_eq!(history(&store, a).len(), 3);
    assert!(matches!(store.set_meta(SeriesId(77), CounterType::Gauge, 60, NOW), Err(Error::UnknownSeries(77))));
    assert!(matches!(store.create(key("e", "m", ""), CounterType::Gauge, 0), Err(Error::BadStep(0))));
}

#[test]
fn removed_series_are_gone_for_good_and_their_ids_too() {
    for flush in [false, true] {
        let disk = FakeDisk::default();
        let store = open(&disk);
        let (a, b) = (gauge(&store, "a"), gauge(&store, "b"));
        put(&store, a, NOW, 1.0);
        put(&store, b, NOW, 2.0);
        if flush {
            store.flush(NOW).expect("room");
        }
        assert_eq!(store.remove_endpoint("a").expect("room"), 1);
        let mut out = Vec::new();
        assert!(matches!(store.history(found(&store, a), 0, NOW, &mut out), Err(Error::UnknownSeries(_))));
        assert_eq!(put(&store, a, NOW, 3.0).unknown, 1);
        drop(store);
        let store = open(&disk);
        assert_eq!(id_of(&store, "a", "m"), None);
        let again = gauge(&store, "a");
        assert!(again != a && again != b);
        assert_eq!(history(&store, again), []);
        assert_eq!(history(&store, b), [(NOW, 2.0)]);
    }
}

#[test]
fn series_beyond_the_limit_are_refused() {
    let disk = FakeDisk::default();
    let (store, _) = open_with(&disk, Options { series_max: 2, ..options() });
    let (a, _) = (gauge(&store, "a"), gauge(&store, "b"));
    let error = store.create(key("c", "m", ""), CounterType::Gauge, 60).expect_err("no room");
    assert_eq!(error.to_string(), "no room for another series: series_max is 2");
    store.remove_series(a).expect("room");
    gauge(&store, "c");
}

/// What an observer sees: sample and tail.
#[derive(Default)]
struct Seen(Vec<(i64, Vec<i64>)>);

impl Observer for Seen {
    fn newest(&mut self, shard: usize, sample: Sample, counter_type: CounterType, window: &ShardView<'_>) {
        let mut tail = Vec::new();
        window.tail(sample.series, 3, &mut tail);
        assert_eq!(tail[0], sample.point);
        assert_eq!(counter_type, CounterType::Gauge);
        assert_eq!((window.shard(), window.meta(sample.series)), (shard, Some((counter_type, 60))));
        window.key(sample.series, &mut |key| assert_eq!(key.endpoint, "a"));
        self.0.push((sample.point.time, tail.iter().map(|point| point.time).collect()));
    }
}

#[test]
fn the_observer_sees_each_newest_point_with_its_tail_and_no_late_one() {
    let store = open(&FakeDisk::default());
    let a = gauge(&store, "a");
    let mut seen = Seen::default();
    let times = [NOW - 300, NOW - 240, NOW - 270, NOW - 240, NOW - 60];
    let batch: Vec<Sample> = times.iter().map(|time| sample(a, *time, 1.0)).collect();
    let appended = store.append(&batch, NOW, &mut seen).expect("room");
    assert_eq!(appended, Appended { stored: 4, duplicate: 1, late: 1, ..Appended::default() });
    let expected = vec![
        (NOW - 300, vec![NOW - 300]),
        (NOW - 240, vec![NOW - 240, NOW - 300]),
        (NOW - 60, vec![NOW - 60, NOW - 240, NOW - 270]),
    ];
    assert_eq!(seen.0, expected);
}

#[test]
fn the_judges_window_survives_flush_and_restart() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (a, slow) = (gauge(&store, "a"), store.create(key("s", "m", ""), CounterType::Gauge, 600).expect("room"));
    for i in 0..2000 {
        put(&store, a, NOW - 120_000 + 60 * i, (i * i % 97) as f64);
    }
    for i in 0..2000 {
        put(&store, slow, NOW - 600 * (1999 - i), 5.0 + (i % 4) as f64);
    }
    let tail = |store: &Store, id, count| {
        let mut out = Vec::new();
        store.with_tail(id, |view| view.tail(id, count, &mut out));
        out
    };
    let (window, slow_window) = (tail(&store, a, 121), tail(&store, slow, 121));
    assert_eq!((window.len(), slow_window.len()), (121, 121));
    let before = store.stats().hot_points;
    store.flush(NOW).expect("room");
    assert!(store.stats().hot_points < before / 4, "old points leave memory");
    assert_eq!((tail(&store, a, 121), tail(&store, slow, 121)), (window.clone(), slow_window.clone()));
    drop(store);
    let store = open(&disk);
    assert_eq!((tail(&store, a, 121), tail(&store, slow, 121)), (window, slow_window));
    assert_eq!(put(&store, a, NOW - 120, 1.0).duplicate, 1, "what is in blocks is recognised");
}

#[test]
fn what_is_warmed_leads_to_no_flush() {
    let disk = FakeDisk::default();
    let small = Options { flush_bytes: 200, ..options() };
    let (store, _) = open_with(&disk, small.clone());
    let a = gauge(&store, "a");
    for i in 0..100 {
        put(&store, a, NOW - 6000 + 60 * i, (i * i % 97) as f64);
    }
    assert!(store.tick(NOW).expect("room").flushed, "more than 200 bytes");
    put(&store, a, NOW, 1.0);
    drop(store);
    let (store, recovery) = open_with(&disk, small);
    assert_eq!((recovery.points_warmed, recovery.points_replayed), (100, 1));
    assert!(!store.tick(NOW + 1).expect("syncs").flushed, "one point is not");
}

#[test]
fn a_long_log_is_flushed_though_its_points_take_no_memory() {
    let disk = FakeDisk::default();
    let small = Options { log_bytes: 2000, ..options() };
    let mut flushed = 0;
    for life in 0..20 {
        let (store, _) = open_with(&disk, small.clone());
        let a = gauge(&store, "a");
        for i in 0..10 {
            put(&store, a, NOW - 12_000 + 600 * life + 60 * i, 1.0);
        }
        assert_eq!(store.stats().unflushed_bytes, 0, "a constant");
        flushed += usize::from(store.tick(NOW).expect("room").flushed);
        assert!(store.stats().log_bytes <= 2000);
    }
    assert!((1..10).contains(&flushed), "{flushed}");
    assert_eq!(history(&open(&disk), SeriesId(0)).len(), 200);
}

#[test]
fn a_block_of_the_future_does_not_hide_the_window() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (a, wrong) = (gauge(&store, "a"), gauge(&store, "wrong"));
    put(&store, a, NOW - 60, 1.0);
    put(&store, wrong, NOW + 400 * 86_400, 1.0);
    store.flush(NOW).expect("room");
    drop(store);
    let store = open(&disk);
    let mut tail = Vec::new();
    store.with_tail(a, |view| view.tail(a, 1, &mut tail));
    assert_eq!(tail, [Point { time: NOW - 60, value: 1.0 }]);
}

#[test]
fn a_late_point_across_a_change_of_step_leaves_the_new_step() {
    let store = open(&FakeDisk::default());
    let a = gauge(&store, "a");
    for i in 0..5 {
        put(&store, a, NOW - 600 + 60 * i, i as f64);
    }
    store.set_meta(a, CounterType::Gauge, 10, NOW - 300).expect("room");
    for i in 0..5 {
        put(&store, a, NOW - 300 + 10 * i, i as f64);
    }
    assert_eq!(put(&store, a, NOW - 470, 9.0).late, 1);
    assert_eq!(store.with_tail(a, |view| view.meta(a)), Some((CounterType::Gauge, 10)));
    assert_eq!(history(&store, a).len(), 11);
    assert_eq!(history_of(&store, a, NOW - 480, NOW - 420), [(NOW - 480, 2.0), (NOW - 470, 9.0), (NOW - 420, 3.0)]);
}

#[test]
fn a_lost_definition_never_lends_its_points_to_another_series() {
    for flush in [false, true] {
        let disk = FakeDisk::default();
        let store = open(&disk);
        let ids = ["a", "b", "c"].map(|name| gauge(&store, name));
        ids.iter().for_each(|id| assert_eq!(put(&store, *id, NOW, 1.0).stored, 1));
        if flush {
            store.flush(NOW).expect("room");
        }
        drop(store);
        let path = PathBuf::from("data/series");
        disk.corrupt(&path, disk.content(&path).len() as u64 - 3);
        let (store, recovery) = open_with(&disk, options());
        assert!(recovery.torn_bytes_cut > 0);
        assert_eq!(id_of(&store, "c", "m"), None);
        for round in 0..2 {
            let id = gauge(&store, &format!("new-{round}"));
            assert!(!ids.contains(&id));
            assert_eq!(history(&store, id), []);
        }
        assert_eq!(history(&store, ids[0]), [(NOW, 1.0)]);
    }
}

#[test]
fn a_walk_in_pages_meets_each_live_series_once_and_those_that_come_meanwhile() {
    let store = open(&FakeDisk::default());
    let ids: Vec<SeriesId> = (0..10).map(|i| gauge(&store, &format!("e{i}"))).collect();
    for gone in [0, 3, 4, 9] {
        store.remove_series(ids[gone]).expect("room");
    }
    let walk = |limit: usize| {
        let (mut from, mut seen, mut pages) = (SeriesId(0), Vec::new(), 0);
        while from < store.series_end() {
            let page_start = seen.len();
            let mut each = |id: SeriesId, key: SeriesKey<'_>, counter_type, step| {
                assert_eq!((counter_type, step), (CounterType::Gauge, 60));
                assert_eq!(key.endpoint, format!("e{}", id.0 - ids[0].0));
                seen.push(id);
            };
            from = store.series_page(from, limit, &mut each);
            assert!(seen.len() - page_start <= limit);
            pages += 1;
        }
        (seen, pages)
    };
    let live: Vec<SeriesId> = [1, 2, 5, 6, 7, 8].map(|i| ids[i]).to_vec();
    assert_eq!(walk(2), (live.clone(), 3));
    assert_eq!(walk(100), (live, 1));
    let end = store.series_end();
    let new = gauge(&store, "later");
    assert!(new >= end);
    let mut seen = Vec::new();
    assert_eq!(store.series_page(end, 5, &mut |id, _, _, _| seen.push(id)), store.series_end());
    assert_eq!(seen, [new]);
    let beyond = SeriesId(1_000_000);
    assert_eq!(store.series_page(beyond, 5, &mut |_, _, _, _| panic!("nothing is there")), beyond);
}
