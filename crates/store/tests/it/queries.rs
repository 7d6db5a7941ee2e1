//! The grid's rules, one by one, and searches.

use crate::*;
use regex::Regex;
use store::{Cf, CounterQuery, EndpointQuery, Error, Query};

fn grid(store: &Store, id: SeriesId, from: i64, to: i64, cf: Cf) -> Vec<(i64, Option<f64>)> {
    store.query(found(store, id), &Query { from, to, cf, now: NOW }).expect("answers").values
}

#[test]
fn a_short_range_has_every_step_and_nulls() {
    let store = open(&FakeDisk::default());
    let a = gauge(&store, "a");
    put(&store, a, NOW - 180, 1.0);
    put(&store, a, NOW - 60, 3.0);
    let expected = [(NOW - 240, None), (NOW - 180, Some(1.0)), (NOW - 120, None), (NOW - 60, Some(3.0)), (NOW, None)];
    assert_eq!(grid(&store, a, NOW - 250, NOW + 59, Cf::Average), expected);
    assert_eq!(grid(&store, a, NOW - 240, NOW, Cf::Max), expected);
    assert_eq!(grid(&store, a, NOW, NOW - 240, Cf::Average), []);
    assert_eq!(grid(&store, a, i64::MIN, i64::MAX, Cf::Last).iter().filter(|row| row.1.is_some()).count(), 1);
    assert_eq!(grid(&store, a, i64::MAX, i64::MIN, Cf::Last), []);
    let query = Query { from: NOW - 240, to: NOW, cf: Cf::Average, now: NOW };
    assert!((5..=6).contains(&query.rows(found(&store, a))));
}

#[test]
fn many_series_are_found_as_each_of_them_is() {
    let store = open(&FakeDisk::default());
    let names: Vec<String> = (0..600).map(|number| format!("h{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        for (_, (metric, tags)) in (0..number % 4).zip([("m", ""), ("m", "a=1,b=2"), ("m/x", "c=3")]) {
            store.create(key(name, metric, tags), CounterType::Gauge, 60).expect("room");
        }
    }
    let endpoints: Vec<&str> = names.iter().map(String::as_str).chain(["unknown"]).collect();
    let counters = ["m/b=2,a=1", "m", "m/x/c=3", "m/", "x"];
    let each = endpoints.iter().flat_map(|endpoint| counters.iter().map(|counter| id_of(&store, endpoint, counter)));
    let found: Vec<_> = store.find_each(&endpoints, &counters).into_iter().map(|one| one.map(|one| one.id)).collect();
    assert_eq!(found, each.collect::<Vec<_>>());
    assert!(found.iter().flatten().count() >= 900);
    assert_eq!(store.find_each(&endpoints, &[]), []);
}

#[test]
fn counters_become_rates_at_the_later_time() {
    let store = open(&FakeDisk::default());
    let c = store.create(key("c", "m", ""), CounterType::Counter, 60).expect("room");
    // Up by 60, one missing (rate over two steps), a reset, then a gap of three steps.
    for (back, value) in [(600, 100.0), (540, 160.0), (420, 400.0), (360, 5.0), (300, 65.0), (120, 500.0), (60, 530.0)]
    {
        put(&store, c, NOW - back, value);
    }
    let rates = grid(&store, c, NOW - 540, NOW - 60, Cf::Average);
    let known: Vec<(i64, f64)> =
        rates.iter().filter_map(|(time, value)| value.map(|value| (NOW - time, value))).collect();
    assert_eq!(known, [(540, 1.0), (420, 2.0), (300, 1.0), (60, 0.5)]);
    assert_eq!(store.last(found(&store, c)), Some(Point { time: NOW - 60, value: 0.5 }));
    put(&store, c, NOW, 1.0);
    assert_eq!(store.last(found(&store, c)), Some(Point { time: NOW, value: 0.0 }), "a reset is no negative rate");
    assert_eq!(store.last_raw(found(&store, c)), Some(Point { time: NOW, value: 1.0 }));
    put(&store, c, NOW + 180, 1.0);
    assert_eq!(store.last(found(&store, c)), None, "too far apart");
}

#[test]
fn long_ranges_have_coarser_rows_and_the_newest_points() {
    let store = open(&FakeDisk::default());
    let a = gauge(&store, "a");
    for i in 0..=1500 {
        put(&store, a, NOW + 120 - 60 * (1500 - i), f64::from(i as i32));
    }
    let now = NOW + 120;
    let query = Query { from: now - 86_400, to: now, cf: Cf::Max, now };
    let grid = store.query(found(&store, a), &query).expect("answers");
    assert_eq!(grid.step, 300);
    let ends = &grid.values[grid.values.len() - 2..];
    assert_eq!(ends, [(NOW, Some(1498.0)), (now, Some(1500.0))], "the open row is given at the end of the range");
    let closed =
        store.query(found(&store, a), &Query { from: now - 86_400, to: NOW - 420, cf: Cf::Max, now }).expect("answers");
    assert_eq!(closed.values.last().map(|row| row.0), Some(NOW - 600), "a row that is over needs none");
    let step_of = |back: i64| {
        store.query(found(&store, a), &Query { from: now - back, to: now, cf: Cf::Min, now }).expect("fits").step
    };
    let day = 86_400;
    let steps = [day / 2, 2 * day, 7 * day, 95 * day, 365 * day, 900 * day].map(step_of);
    assert_eq!(steps, [60, 300, 1200, 10_800, 43_200, 43_200]);
}

#[test]
fn an_answer_beyond_the_limit_is_an_error() {
    let (store, _) = open_with(&FakeDisk::default(), Options { query_points_max: 100, ..options() });
    let a = gauge(&store, "a");
    for i in 0..150 {
        put(&store, a, NOW - 60 * 150 + 60 * i, 1.0);
    }
    let mut out = Vec::new();
    for flush in [false, true] {
        if flush {
            store.flush(NOW).expect("room");
        }
        out.clear();
        assert!(matches!(store.history(found(&store, a), 0, NOW, &mut out), Err(Error::TooManyPoints { limit: 100 })));
    }
    out.clear();
    store.history(found(&store, a), NOW - 6000, NOW, &mut out).expect("100 points");
    let query = Query { from: NOW - 7200, to: NOW, cf: Cf::Average, now: NOW };
    assert!(matches!(store.query(found(&store, a), &query), Err(Error::TooManyPoints { .. })));
}

#[test]
fn last_is_known_after_restart_also_of_a_series_long_silent() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (quiet, c) = (gauge(&store, "quiet"), store.create(key("c", "m", ""), CounterType::Counter, 60).expect("room"));
    put(&store, quiet, NOW - 20 * 86_400, 4.0);
    put(&store, c, NOW - 60, 1.0);
    store.flush(NOW).expect("room");
    put(&store, c, NOW, 61.0);
    store.flush(NOW).expect("room");
    drop(store);
    let store = open(&disk);
    assert_eq!(store.last(found(&store, quiet)), Some(Point { time: NOW - 20 * 86_400, value: 4.0 }));
    assert_eq!(store.last(found(&store, c)), Some(Point { time: NOW, value: 1.0 }));
    assert_eq!(store.newest_in_memory(quiet), None);
    assert_eq!(store.newest_in_memory(c), Some(Point { time: NOW, value: 61.0 }));
}

#[test]
fn last_is_the_newest_also_when_only_late_points_came_since_a_restart() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let (a, day) = (gauge(&store, "a"), 86_400);
    put(&store, a, NOW - 10 * day, 1.0);
    put(&store, gauge(&store, "b"), NOW, 1.0);
    store.flush(NOW).expect("room");
    drop(store);
    // Silent for so long, it is not read back; then points come that are older still.
    let store = open(&disk);
    let a = gauge(&store, "a");
    for back in [13, 12, 11] {
        put(&store, a, NOW - back * day, 2.0);
    }
    for flush in [false, true] {
        if flush {
            store.flush(NOW).expect("room");
        }
        assert_eq!(store.last_raw(found(&store, a)), Some(Point { time: NOW - 10 * day, value: 1.0 }));
        assert_eq!(history(&store, a).len(), 4);
        assert_eq!(history_of(&store, a, NOW - 11 * day, NOW).len(), 2);
    }
}

#[test]
fn backfill_works_down_to_the_retention_and_no_further() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let a = gauge(&store, "a");
    put(&store, a, NOW, 9.0);
    let retention = options().retention_raw_s;
    let batch: Vec<Sample> = (0..700).map(|i| sample(a, NOW - retention - 3600 + 3600 * i, i as f64)).collect();
    let appended = store.append(&batch, NOW, &mut ()).expect("room");
    assert_eq!(appended, Appended { stored: 699, late: 699, too_old: 1, ..Appended::default() });
    assert_eq!(history(&store, a).len(), 700);
    store.flush(NOW).expect("room");
    assert_eq!(store.append(&batch[600..], NOW, &mut ()).expect("room").too_old, 0);
    drop(store);
    let store = open(&disk);
    assert_eq!(history(&store, a).len(), 700, "sent twice, there once");
    let before = store.stats().blocks;
    assert!(before >= 29, "a block per day: {before}");
    // A clock that is ahead of all data takes nothing with it; data of that time does, if the clock is believed.
    let later = NOW + 10 * 86_400;
    assert_eq!(store.tick(later).expect("room").blocks_removed, 0);
    put(&store, a, later, 9.0);
    store.flush(later).expect("room");
    store.believe(NOW);
    let past = store.past(later + 86_400);
    assert_eq!((past.files, past.days), (9, 9));
    assert_eq!((store.oldest_kept(later), store.past(NOW).files), (NOW - retention, 0));
    assert_eq!(store.tick(later + 86_400).expect("room").blocks_removed, 0);
    assert_eq!(store.append(&[sample(a, NOW, 9.5)], later, &mut ()).expect("room").too_old, 0);
    store.believe(i64::MAX);
    // The youngest of ten such days waits for its roll-ups, which nobody makes here.
    assert_eq!(store.tick(later + 86_460).expect("room").blocks_removed, 9);
    let removed: Vec<_> = history(&store, a).into_iter().filter(|(time, _)| *time < NOW - 22 * 86_400).collect();
    assert_eq!(removed, []);
}

#[test]
fn equal_times_keep_the_first_wherever_it_is() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let a = gauge(&store, "a");
    for i in 0..600 {
        put(&store, a, NOW - 36_000 + 60 * i, 1.0);
    }
    store.flush(NOW).expect("room");
    // Far behind the hot window: not recognised at the door, but not counted twice either.
    put(&store, a, NOW - 35_940, 2.0);
    assert_eq!(history_of(&store, a, NOW - 35_940, NOW - 35_940), [(NOW - 35_940, 1.0)]);
    store.flush(NOW).expect("room");
    assert_eq!(history_of(&store, a, NOW - 35_940, NOW - 35_940), [(NOW - 35_940, 1.0)]);
    assert_eq!(put(&store, a, NOW - 60, 2.0).duplicate, 1);
}

#[test]
fn names_are_found() {
    let store = open(&FakeDisk::default());
    for endpoint in ["web-1", "web-2", "db-1"] {
        store.create(key(endpoint, "cpu.idle", ""), CounterType::Gauge, 60).expect("room");
    }
    let df = store.create(key("db-1", "df.used", "fstype=ext4,mount=/"), CounterType::Gauge, 60).expect("room");
    let odd = store.create(key("db-1", "a/b", "k=v"), CounterType::Counter, 30).expect("room");
    assert_eq!(id_of(&store, "db-1", "df.used/mount=/,fstype=ext4"), Some(df), "tags in any order");
    assert_eq!(id_of(&store, "db-1", "a/b/k=v"), Some(odd));
    assert_eq!(id_of(&store, "db-1", "a"), None);
    assert_eq!(id_of(&store, "db-1", "cpu.idle/garbage"), None);
    assert_eq!(id_of(&store, "nobody", "cpu.idle"), None);

    let web = [Regex::new("^web").expect("a pattern")];
    let names = |patterns: &[Regex], tag_terms: &[&str], offset, limit| {
        let found = store.endpoints(&EndpointQuery { patterns, tag_terms, offset, limit }).expect("names read");
        found.into_iter().map(|(id, name)| format!("{id} {name}")).collect::<Vec<_>>()
    };
    assert_eq!(names(&web, &[], 0, 10), ["1 web-1", "2 web-2"]);
    assert_eq!(names(&[], &[], 1, 1), ["2 web-2"]);
    assert_eq!(names(&[], &["mount=/"], 0, 10), ["3 db-1"]);
    assert_eq!(names(&[], &["used/fs", "ext4"], 0, 10), ["3 db-1"]);
    assert_eq!(names(&web, &["mount=/"], 0, 10), [""; 0]);
    assert_eq!(store.endpoint_ids(&["db-1", "nobody", "web-1"]).expect("names read"), [Some(3), None, Some(1)]);
    assert_eq!(store.endpoint_name(3).expect("names read").as_deref(), Some("db-1"));

    let counters = |patterns: &[(bool, Regex)], offset, limit| {
        let query = CounterQuery { endpoint_ids: &[3, 1, 99, 0], patterns, offset, limit };
        let rows = store.counters(&query).expect("names read");
        rows.into_iter().map(|row| format!("{} {} {}", row.endpoint_id, row.counter, row.step)).collect::<Vec<_>>()
    };
    let all = ["3 cpu.idle 60", "3 df.used/fstype=ext4,mount=/ 60", "3 a/b/k=v 30", "1 cpu.idle 60"];
    assert_eq!(counters(&[], 0, 10), all);
    assert_eq!(counters(&[], 1, 2), all[1..3]);
    let not_cpu = [(true, Regex::new("cpu").expect("a pattern")), (false, Regex::new("df").expect("a pattern"))];
    assert_eq!(counters(&not_cpu, 0, 10), all[1..2]);

    put(&store, df, NOW - 60, 1.0);
    assert_eq!(store.endpoint_last_time(3), Some(NOW - 60));
    assert_eq!(store.endpoint_last_time(1), None);
}

/// Many senders at once, with flushes in between: every acknowledged point is there, before and after a restart.
#[test]
fn senders_and_flushes_run_side_by_side() {
    let disk = FakeDisk::default();
    let store = open(&disk);
    let ids: Vec<SeriesId> = (0..600).map(|i| gauge(&store, &format!("host-{i}"))).collect();
    std::thread::scope(|scope| {
        for part in ids.chunks(200) {
            let store = &store;
            scope.spawn(move || {
                for round in 0..60 {
                    let batch: Vec<Sample> =
                        part.iter().map(|id| sample(*id, NOW - 3600 + 60 * round, (round % 5) as f64)).collect();
                    assert_eq!(store.append(&batch, NOW, &mut ()).expect("room").stored, part.len());
                    assert_eq!(history(store, part[0]).len() as i64, round + 1, "read while flushing");
                }
            });
        }
        scope.spawn(|| (0..20).for_each(|_| store.flush(NOW).expect("room")));
    });
    let check = |store: &Store| ids.iter().all(|id| history(store, *id).len() == 60);
    assert!(check(&store));
    drop(store);
    assert!(check(&open(&disk)));
}
