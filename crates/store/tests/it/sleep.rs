//! Silent series leave memory, and nothing else: they are found, read, removed and woken as if they were there.

use crate::*;
use proptest::prelude::*;
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use store::{CounterQuery, EndpointQuery, Error, Fsync, Slept};

const HOUR: i64 = 3600;
const GRACE: i64 = 60;

fn short() -> Options {
    Options { silent_s: HOUR, ..options() }
}

fn open_at(disk: &FakeDisk, options: Options, now: i64) -> Store {
    let (store, recovery) = Store::open_on(Arc::new(disk.clone()), options, now).expect("the store opens");
    assert_eq!(recovery.missing, Vec::<String>::new());
    assert_eq!(recovery.corrupt, Vec::<String>::new());
    store
}

fn put_at(store: &Store, series: SeriesId, time: i64, value: f64) -> Appended {
    store.append(&[sample(series, time, value)], time, &mut ()).expect("the disk has room")
}

fn pass(store: &Store, now: i64) -> (Slept, Vec<SeriesId>) {
    let mut told = Vec::new();
    let slept = store.sleep_silent(now, &mut |id, _| told.push(id)).expect("the disk has room");
    (slept, told)
}

/// A look and, after the grace, its end; returns who sleeps.
fn sleep(store: &Store, now: i64) -> Vec<SeriesId> {
    pass(store, now);
    let (slept, told) = pass(store, now + GRACE);
    assert_eq!(slept, Slept { drowsy: 0, asleep: told.len() });
    told
}

/// A store in which `fleet` reports at the time returned, and the named endpoints sleep, with a point each.
fn with_sleepers(disk: &FakeDisk, names: &[&str]) -> (Store, i64, Vec<SeriesId>) {
    let store = open_at(disk, short(), NOW);
    let ids: Vec<SeriesId> = names.iter().map(|name| gauge(&store, name)).collect();
    ids.iter().for_each(|id| assert_eq!(put_at(&store, *id, NOW, 1.0).stored, 1));
    let now = NOW + 2 * HOUR;
    let fleet = gauge(&store, "fleet");
    put_at(&store, fleet, now, 1.0);
    store.flush(now).expect("room");
    assert_eq!(sleep(&store, now), ids);
    (store, now + GRACE, ids)
}

fn endpoints(store: &Store, pattern: &str, tag_terms: &[&str]) -> Vec<String> {
    let patterns = [Regex::new(pattern).expect("a pattern")];
    let query = EndpointQuery { patterns: &patterns, tag_terms, offset: 0, limit: 1000 };
    store.endpoints(&query).expect("names read").into_iter().map(|(id, name)| format!("{id} {name}")).collect()
}

fn counters(store: &Store, endpoint_id: u32) -> Vec<String> {
    let query = CounterQuery { endpoint_ids: &[endpoint_id], patterns: &[], offset: 0, limit: 1000 };
    store.counters(&query).expect("names read").into_iter().map(|row| row.counter).collect()
}

#[test]
fn who_sleeps_is_found_read_and_wakes_under_the_old_id() {
    let disk = FakeDisk::default();
    let (mut store, now, ids) = with_sleepers(&disk, &["a", "b"]);
    for restart in [false, true] {
        if restart {
            drop(store);
            store = open_at(&disk, short(), now);
        }
        assert_eq!((store.stats().series, store.stats().series_asleep), (1, 2));
        for (name, id) in ["a", "b"].iter().zip(&ids) {
            assert_eq!(id_of(&store, name, "m"), Some(*id));
            assert_eq!(store.find_each(&[name], &["m"])[0].map(|found| found.id), Some(*id));
            assert_eq!(store.finder().find(key(name, "m", "")), None);
            assert_eq!(history(&store, *id), [(NOW, 1.0)]);
        }
        assert_eq!(id_of(&store, "a", "x"), None);
        assert_eq!(endpoints(&store, ".", &[]), ["1 a", "2 b", "3 fleet"]);
        assert_eq!(endpoints(&store, "[ab]", &["m"]), ["1 a", "2 b"]);
        assert_eq!(
            (counters(&store, 1), counters(&store, 3), counters(&store, 9)),
            (vec!["m".into()], vec!["m".into()], vec![])
        );
        assert_eq!(store.endpoint_ids(&["b", "nobody", "fleet"]).expect("names read"), [Some(2), None, Some(3)]);
        assert_eq!(store.endpoint_name(2).expect("names read").as_deref(), Some("b"));
        assert_eq!(put_at(&store, ids[0], now, 2.0).unknown, 1, "its head is gone");
    }
    assert_eq!(gauge(&store, "b"), ids[1]);
    assert_eq!(put_at(&store, ids[1], now, 3.0).stored, 1);
    assert_eq!(put_at(&store, ids[1], NOW - 600, 0.5).stored, 1, "older than what is in blocks");
    let expected = [(NOW - 600, 0.5), (NOW, 1.0), (now, 3.0)];
    assert_eq!(history(&store, ids[1]), expected);
    assert_eq!(history_of(&store, ids[1], NOW - 60, now), expected[1..]);
    let new = store.create(key("b", "new", ""), CounterType::Gauge, 60).expect("room");
    assert!(new.0 > ids[1].0 + 1, "never an old id for a new name");
    assert_eq!(endpoints(&store, ".", &[]), ["1 a", "2 b", "3 fleet"], "its number is the old one");
    assert_eq!(counters(&store, 2), ["m", "new"]);
    drop(store);
    let store = open_at(&disk, short(), now);
    assert_eq!(id_of(&store, "b", "m"), Some(ids[1]));
    assert_eq!(history(&store, ids[1]), expected);
    assert_eq!(sleep(&store, now + 3 * HOUR), [new], "against the newest data, and it has none");
}

#[test]
fn who_gets_a_point_in_the_grace_or_is_created_in_it_stays() {
    let disk = FakeDisk::default();
    let store = open_at(&disk, short(), NOW);
    let ids = ["a", "b", "c"].map(|name| gauge(&store, name));
    ids.iter().for_each(|id| assert_eq!(put_at(&store, *id, NOW, 1.0).stored, 1));
    let now = NOW + 2 * HOUR;
    let fleet = gauge(&store, "fleet");
    put_at(&store, fleet, now, 1.0);
    assert_eq!(sleep(&store, now), [], "what is not in a block keeps its series awake");
    store.flush(now).expect("room");
    let now = now + HOUR;
    put_at(&store, fleet, now, 1.0);
    assert_eq!(pass(&store, now).0, Slept { drowsy: 3, asleep: 0 });
    assert_eq!(store.finder().find(key("a", "m", "")), None, "a new batch has to create it");
    assert_eq!(put_at(&store, ids[0], now, 2.0).stored, 1, "an old one still knows it");
    assert_eq!(gauge(&store, "b"), ids[1]);
    assert!(store.finder().find(key("b", "m", "")).is_some());
    assert_eq!(pass(&store, now + GRACE - 1).0.drowsy, 3, "not yet");
    assert_eq!(pass(&store, now + GRACE), (Slept { drowsy: 0, asleep: 1 }, vec![ids[2]]));
    assert!(store.finder().find(key("a", "m", "")).is_some());
    assert_eq!(history(&store, ids[0]), [(NOW, 1.0), (now, 2.0)]);
    assert_eq!(sleep(&store, now + HOUR), [ids[1]], "it was created, but nothing came");
}

#[test]
fn who_has_no_point_yet_waits_as_long() {
    let disk = FakeDisk::default();
    let store = open_at(&disk, short(), NOW);
    let (fleet, a) = (gauge(&store, "fleet"), gauge(&store, "a"));
    let mut told = Vec::new();
    for half_hours in 0..4 {
        let now = NOW + half_hours * HOUR / 2;
        put_at(&store, fleet, now, 1.0);
        store.flush(now).expect("room");
        told.push(sleep(&store, now));
    }
    assert_eq!(told, [vec![], vec![], vec![a], vec![]]);
    assert_eq!(id_of(&store, "a", "m"), Some(a));
}

#[test]
fn a_late_point_in_no_block_keeps_awake() {
    let disk = FakeDisk::default();
    let store = open_at(&disk, short(), NOW);
    let (fleet, a) = (gauge(&store, "fleet"), gauge(&store, "a"));
    put_at(&store, a, NOW, 1.0);
    let now = NOW + 2 * HOUR;
    put_at(&store, fleet, now, 1.0);
    store.flush(now).expect("room");
    let late = store.append(&[sample(a, NOW - 10 * HOUR, 0.5)], now, &mut ()).expect("the disk has room");
    assert_eq!(late.late, 1);
    assert_eq!(sleep(&store, now), []);
    store.flush(now).expect("room");
    assert_eq!(sleep(&store, now + HOUR / 2), [a]);
    assert_eq!(history(&store, a), [(NOW - 10 * HOUR, 0.5), (NOW, 1.0)]);
}

#[test]
fn nobody_sleeps_when_the_clock_jumps_or_all_data_stops_or_it_is_turned_off() {
    for (silent_s, now) in [(HOUR, NOW + 400 * 86_400), (0, NOW + 5 * HOUR)] {
        let disk = FakeDisk::default();
        let store = open_at(&disk, Options { silent_s, ..short() }, NOW);
        let (fleet, a) = (gauge(&store, "fleet"), gauge(&store, "a"));
        put_at(&store, a, NOW - 1800, 1.0);
        put_at(&store, fleet, NOW, 1.0);
        store.flush(NOW).expect("room");
        assert_eq!(sleep(&store, now), []);
    }
}

#[test]
fn a_removed_sleeper_is_gone_for_good() {
    for by_endpoint in [false, true] {
        let disk = FakeDisk::default();
        let (mut store, now, ids) = with_sleepers(&disk, &["a", "b"]);
        if by_endpoint {
            assert_eq!(store.remove_endpoint("a").expect("room"), 1);
        } else {
            assert!(store.remove_series(ids[0]).expect("room"));
        }
        assert!(!store.remove_series(ids[0]).expect("nothing to do"));
        assert!(!store.remove_series(SeriesId(1000)).expect("nothing to do"));
        for restart in [false, true] {
            if restart {
                drop(store);
                store = open_at(&disk, short(), now);
            }
            assert_eq!(id_of(&store, "a", "m"), None);
            assert_eq!(endpoints(&store, ".", &[]), ["2 b", "3 fleet"]);
            assert_eq!(endpoints(&store, ".", &["m"]), ["2 b", "3 fleet"]);
            assert_eq!(counters(&store, 1), [""; 0]);
            assert_eq!(store.endpoint_ids(&["a"]).expect("names read"), [None]);
            let mut out = Vec::new();
            assert!(matches!(store.history(found(&store, ids[0]), 0, now, &mut out), Err(Error::UnknownSeries(0))));
            assert!(store.is_removed(ids[0]) && !store.is_removed(ids[1]));
        }
        let again = gauge(&store, "a");
        assert!(again.0 > 2, "{again:?}");
        assert_eq!(history(&store, again), []);
    }
}

/// A hundred generations of containers: memory follows those that live, and the past stays searchable and readable.
#[test]
fn short_lived_containers_do_not_grow_memory() {
    const GENERATIONS: usize = 100;
    const CONTAINERS: usize = 20;
    const COUNTERS: usize = 50;
    let name = |generation: usize, container: usize| format!("pod-{generation:03}-{container:02}");
    let create = |store: &Store, generation, container| -> Vec<SeriesId> {
        let own = format!("pod={}", name(generation, container));
        let id = |counter| {
            let key = SeriesKey {
                endpoint: &name(generation, container),
                metric: &format!("metric.{counter}"),
                tags: Tags::assume_canonical(&own),
            };
            store.create(key, CounterType::Gauge, 60).expect("room")
        };
        (0..COUNTERS).map(id).collect()
    };
    let disk = FakeDisk::default();
    let mut store = open_at(&disk, short(), NOW);
    let fleet = gauge(&store, "fleet");
    let (mut most, mut ids, mut now) = (0, Vec::new(), NOW);
    for generation in 0..GENERATIONS {
        let mut born = Vec::new();
        for container in 0..CONTAINERS {
            let series = create(&store, generation, container);
            for round in 0..3 {
                let time = now + 60 * round;
                let batch: Vec<Sample> = series.iter().map(|id| sample(*id, time, f64::from(id.0 % 97))).collect();
                store.append(&batch, time, &mut ()).expect("room");
            }
            born.extend(series);
        }
        store.flush(now).expect("room");
        now += 3 * HOUR;
        put_at(&store, fleet, now, 1.0);
        assert_eq!(sleep(&store, now), born);
        ids.push(born);
        let stats = store.stats();
        assert_eq!(stats.series, 1);
        let memory = stats.index_bytes + stats.hot_bytes;
        if generation < 12 {
            most = most.max(memory);
        }
        // What is kept per id ever given: 40 bytes of directories per 256, and the first pages of eight runs.
        let kept = ids.len() * CONTAINERS * COUNTERS / 256 * 40 * 2 + 8 * (52 << 10);
        assert!(memory <= most + kept, "{memory} of {most} in generation {generation}");
        assert!(stats.series_file_bytes < 3 << 20, "{}", stats.series_file_bytes);
        assert!(stats.cold_runs <= 8);
    }
    let check = |store: &Store| {
        for generation in (0..GENERATIONS).step_by(9) {
            let container = generation % CONTAINERS;
            let endpoint = name(generation, container);
            let id = ids[generation][container * COUNTERS + 7];
            assert_eq!(id_of(store, &endpoint, &format!("metric.7/pod={endpoint}")), Some(id));
            assert_eq!(history(store, id).len(), 3);
            let number = 2 + generation * CONTAINERS + container;
            assert_eq!(endpoints(store, &endpoint, &[]), [format!("{number} {endpoint}")]);
            assert_eq!(endpoints(store, &endpoint, &["metric.7", "pod="]), [format!("{number} {endpoint}")]);
            assert_eq!(counters(store, number as u32).len(), COUNTERS);
        }
        assert_eq!(endpoints(store, "pod", &[]).len(), 1000);
        assert_eq!(endpoints(store, "pod", &["pod=pod-042-17"]).len(), 1);
    };
    check(&store);
    drop(store);
    store = open_at(&disk, short(), now);
    assert_eq!(store.stats().series, 1);
    check(&store);
    assert_eq!(create(&store, 17, 3), ids[17][3 * COUNTERS..4 * COUNTERS], "the old ids");
    assert_eq!(put_at(&store, ids[17][3 * COUNTERS], now, 5.0).stored, 1);
    assert_eq!(history(&store, ids[17][3 * COUNTERS]).len(), 4);
    drop(store);
    let store = open_at(&disk, short(), now);
    assert_eq!(store.stats().series, 1 + COUNTERS);
    assert_eq!(history(&store, ids[17][3 * COUNTERS]).len(), 4);
    check(&store);
}

/// Returns the times that were answered as kept, and how many points were not.
fn send(store: &Store, sender: i64) -> (BTreeMap<SeriesId, Vec<i64>>, usize) {
    let (mut kept, mut refused) = (BTreeMap::<SeriesId, Vec<i64>>::new(), 0);
    for round in 0..400 {
        for host in 0..4 {
            let name = format!("host-{sender}-{}", (host + round / 50) % 8);
            let found = store.finder().find(key(&name, "m", ""));
            let id = found.map_or_else(|| gauge(store, &name), |found| found.id);
            // In the past of the keeper's data: silent from the first look on.
            let time = NOW - 20 * HOUR + 60 * round;
            let appended = store.append(&[sample(id, time, 1.0)], NOW, &mut ()).expect("room");
            if appended.unknown == 0 {
                kept.entry(id).or_default().push(time);
            }
            refused += appended.unknown;
        }
    }
    (kept, refused)
}

/// Senders that pause now and then, while a keeper flushes and lets series sleep: what was answered as kept is there.
#[test]
fn senders_and_sleep_run_side_by_side() {
    let disk = FakeDisk::default();
    let store = open_at(&disk, short(), NOW);
    let done = AtomicBool::new(false);
    let fleet = gauge(&store, "fleet");
    let kept: Vec<BTreeMap<SeriesId, Vec<i64>>> = std::thread::scope(|scope| {
        let store = &store;
        let keeper = scope.spawn(|| {
            let (mut now, mut asleep) = (NOW, 0);
            while !done.load(Relaxed) {
                now += HOUR;
                put_at(store, fleet, now, 1.0);
                store.flush(now).expect("room");
                asleep += pass(store, now).1.len() + pass(store, now + GRACE).1.len();
            }
            asleep
        });
        let ends = Ends(&done);
        let senders: Vec<_> = (0..3).map(|number| scope.spawn(move || send(store, number))).collect();
        let kept: Vec<_> = senders.into_iter().map(|sender| sender.join().expect("no panic")).collect();
        drop(ends);
        let asleep = keeper.join().expect("no panic");
        println!("{asleep} fell asleep, {} refused", kept.iter().map(|(_, refused)| refused).sum::<usize>());
        kept.into_iter().map(|(kept, _)| kept).collect()
    });
    let check = |store: &Store| {
        for (id, times) in kept.iter().flatten() {
            let there: Vec<i64> = history(store, *id).into_iter().map(|(time, _)| time).collect();
            let missing = times.iter().filter(|time| !there.contains(time)).count();
            assert_eq!(missing, 0, "of {} points of {id:?}", times.len());
        }
        assert_eq!(kept.iter().map(BTreeMap::len).sum::<usize>(), 24, "one id per name, whatever slept and woke");
    };
    check(&store);
    drop(store);
    disk.restart_after_kill();
    let store = open_at(&disk, short(), NOW);
    check(&store);
    for (sender, kept) in kept.iter().enumerate() {
        for host in 0..8 {
            let id = id_of(&store, &format!("host-{sender}-{host}"), "m").expect("it is known");
            assert!(kept.contains_key(&id));
        }
    }
}

/// The power goes off at every write of falling asleep, waking and falling asleep again.
#[test]
fn a_cut_at_any_step_loses_neither_name_nor_point() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let options = || Options { fsync: Fsync::Always, ..short() };
    let script = |store: &Store, kept: &mut Vec<(&'static str, i64)>| -> Result<(), Error> {
        for round in 0..3 {
            let now = NOW + round * 4 * HOUR;
            // One after the other sleeps, wakes, and is joined by others.
            for name in NAMES.iter().skip(round as usize % 2) {
                let id = store.create(key(name, "m", ""), CounterType::Gauge, 60)?;
                store.append(&[sample(id, now, 1.0)], now, &mut ())?;
                kept.push((name, now));
            }
            store.flush(now)?;
            let fleet = store.create(key("fleet", "m", ""), CounterType::Gauge, 60)?;
            store.append(&[sample(fleet, now + 2 * HOUR, 1.0)], now, &mut ())?;
            store.sleep_silent(now + 2 * HOUR, &mut |_, _| ())?;
            store.sleep_silent(now + 2 * HOUR + GRACE, &mut |_, _| ())?;
        }
        Ok(())
    };
    let mut cut = 0;
    for seed in 0.. {
        let disk = FakeDisk::default();
        let store = open_at(&disk, options(), NOW);
        let before = disk.operations();
        disk.cut_power_at(before + cut);
        let mut kept = Vec::new();
        let result = script(&store, &mut kept);
        drop(store);
        if result.is_ok() {
            assert_eq!(kept.len(), 8);
            assert!(cut > 60, "{cut} operations");
            break;
        }
        cut += 1;
        disk.restart_after_power_cut(seed);
        // What was torn is told, and was never answered for.
        let (store, recovery) =
            Store::open_on(Arc::new(disk.clone()), options(), NOW + 10 * HOUR).expect("the store opens");
        assert_eq!(recovery.missing, Vec::<String>::new());
        let mut ids = BTreeMap::new();
        for (name, time) in &kept {
            let id = id_of(&store, name, "m").unwrap_or_else(|| panic!("{name} is lost at {cut}"));
            assert!(history(&store, id).contains(&(*time, 1.0)), "{name} {time} is lost at {cut}");
            ids.insert(*name, id);
        }
        for (name, id) in &ids {
            assert_eq!(gauge(&store, name), *id, "{name} at {cut}");
        }
        let distinct: std::collections::BTreeSet<_> = ids.values().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}

#[test]
fn a_disk_without_room_keeps_all_awake_and_is_tried_again() {
    for room in [0, 10, 200, 600, 700, 800, 900, 1000] {
        let disk = FakeDisk::default();
        let store = open_at(&disk, short(), NOW);
        let ids = ["a", "b"].map(|name| gauge(&store, name));
        ids.iter().for_each(|id| assert_eq!(put_at(&store, *id, NOW, 1.0).stored, 1));
        let now = NOW + 2 * HOUR;
        let fleet = gauge(&store, "fleet");
        put_at(&store, fleet, now, 1.0);
        store.flush(now).expect("room");
        disk.set_room(Some(room));
        let mut told = Vec::new();
        for now in [now, now + GRACE] {
            let _ = store.sleep_silent(now, &mut |id, _| told.push(id));
        }
        disk.set_room(None);
        let awake: Vec<SeriesId> = ids.iter().copied().filter(|id| !told.contains(id)).collect();
        for id in &awake {
            assert_eq!(put_at(&store, *id, NOW, 2.0).unknown, 0);
        }
        let later = now + HOUR;
        put_at(&store, fleet, later, 1.0);
        store.flush(later).expect("room");
        told.extend(pass(&store, later).1);
        told.extend(pass(&store, later + GRACE).1);
        told.sort_unstable();
        assert_eq!(told, ids, "room {room}");
        ids.iter().for_each(|id| assert_eq!(history(&store, *id), [(NOW, 1.0)]));
    }
}

#[test]
fn names_of_points_that_have_all_expired_go() {
    let disk = FakeDisk::default();
    let options = || Options { retention_raw_s: 86_400, retention_5m_s: 0, retention_1h_s: 0, ..short() };
    let store = open_at(&disk, options(), NOW);
    let a = gauge(&store, "a");
    put_at(&store, a, NOW, 1.0);
    store.flush(NOW).expect("room");
    let fleet = gauge(&store, "fleet");
    for (hours, there) in [(2, true), (20, true), (30, false)] {
        put_at(&store, fleet, NOW + hours * HOUR, 1.0);
        store.flush(NOW + hours * HOUR).expect("room");
        sleep(&store, NOW + hours * HOUR);
        assert_eq!(id_of(&store, "a", "m"), there.then_some(a), "after {hours} hours");
    }
    assert_eq!(store.stats().cold_runs, 0);
    assert_ne!(gauge(&store, "a"), a);
}

/// Endpoint, its series, and whether they sleep.
type Fleet = Vec<(u8, Vec<u8>, bool)>;

fn any_fleet() -> impl Strategy<Value = Fleet> {
    prop::collection::vec((any::<u8>(), prop::collection::vec(0u8..12, 1..5), any::<bool>()), 1..25)
}

fn tags_of(counter: u8) -> String {
    format!("n={},zone={}", counter, counter % 3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Searches against going through everything.
    #[test]
    fn searches_equal_the_model(
        fleet in any_fleet(),
        (pattern, term) in ("[0-9]?", prop_oneof![Just(""), Just("zone=1"), Just("n=1"), Just("m1/n"), Just("nothing")]),
        (offset, limit) in (0usize..6, 1usize..8),
    ) {
        let disk = FakeDisk::default();
        let store = open_at(&disk, short(), NOW);
        let later = NOW + 2 * HOUR;
        let mut model: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut order = Vec::new();
        for (endpoint, counters, silent) in &fleet {
            let name = format!("e{endpoint}");
            for counter in counters {
                let (metric, tags) = (format!("m{}", counter % 4), tags_of(*counter));
                let id = store.create(key(&name, &metric, &tags), CounterType::Gauge, 60).expect("room");
                put_at(&store, id, if *silent { NOW } else { later }, 1.0);
                let known = model.entry(name.clone()).or_insert_with(|| {
                    order.push(name.clone());
                    Vec::new()
                });
                let text = format!("{metric}/{tags}");
                if !known.contains(&text) {
                    known.push(text);
                }
            }
        }
        let last = gauge(&store, "last");
        put_at(&store, last, later, 1.0);
        store.flush(later).expect("room");
        sleep(&store, later);
        let patterns = [Regex::new(&pattern).expect("a pattern")];
        let terms = [term];
        let tag_terms = if term.is_empty() { &[][..] } else { &terms[..] };
        let query = EndpointQuery { patterns: &patterns, tag_terms, offset, limit };
        let found = store.endpoints(&query).expect("names read");
        order.push("last".into());
        model.insert("last".into(), vec!["m".into()]);
        let expected: Vec<(u32, String)> = order
            .iter()
            .enumerate()
            .filter(|(_, name)| patterns[0].is_match(name) && model[*name].iter().any(|text| text.contains(term)))
            .map(|(i, name)| (i as u32 + 1, name.clone()))
            .skip(offset)
            .take(limit)
            .collect();
        prop_assert_eq!(found, expected);
        for (i, name) in order.iter().enumerate() {
            prop_assert_eq!(&counters(&store, i as u32 + 1), &model[name]);
        }
    }
}
