//! Files of each version that was ever released stay readable: `testdata/v01` holds a store as version 01 wrote it.

use crate::*;
use std::fs;
use std::path::Path;
use store::{Cf, Query};

const FORMS: usize = 8;

/// Values that take every form of a chunk, by series.
fn value(series: usize, i: i64) -> f64 {
    let x = i as f64;
    match series {
        0 => 42.0,
        1 => (i * 7 % 5) as f64,
        2 => (i * i * 123_457) as f64,
        3 => (i * 13 % 900) as f64 / 100.0,
        4 => (i * 31 % 199) as f64 * (100.0 / 199.0),
        5 => 100.0 - (i * 31 % 401) as f64 * (100.0 / 401.0),
        6 => (x * 0.7).sqrt() * 1e-3,
        _ => (i / 10) as f64,
    }
}

/// Points of a series: gaps in some, the last day only in the log.
fn points(series: usize) -> Vec<(i64, f64)> {
    let times = (0..300).filter(|i| series != 7 || i % 11 != 3);
    times.map(|i| (NOW - 90_000 + 300 * i, value(series, i))).collect()
}

fn series(store: &Store, i: usize) -> SeriesId {
    let (endpoint, tags) = (format!("host-{}", i % 2), format!("n={i}"));
    let counter_type = [CounterType::Gauge, CounterType::Counter, CounterType::Derive][i % 3];
    store.create(key(&endpoint, "a.metric", &tags), counter_type, 300).expect("room")
}

/// A series whose name is in a cold run: the default for silence is two days.
const SILENT_SINCE: i64 = NOW - 5 * 86_400;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v01")
}

/// Run by hand, once per version, before its release: `cargo test -p store --test it -- --ignored write_this_version`.
#[test]
#[ignore = "writes testdata"]
fn write_this_version() {
    assert!(!golden().exists(), "a released version's files are never written again");
    let (store, _) = Store::open(Options { dir: golden(), ..options() }, NOW).expect("opens");
    let removed = gauge(&store, "removed");
    put(&store, removed, NOW, 1.0);
    let silent = gauge(&store, "silent");
    put(&store, silent, SILENT_SINCE, 7.5);
    for i in 0..FORMS {
        let id = series(&store, i);
        let all = points(i);
        let (early, late) = all.split_at(200);
        for part in [early, late] {
            let batch: Vec<Sample> = part.iter().map(|(time, value)| sample(id, *time, *value)).collect();
            store.append(&batch, NOW, &mut ()).expect("room");
            if part.len() == 200 {
                store.flush(NOW).expect("room");
            }
        }
    }
    // The first day is over: one block, with both kinds of roll-ups.
    while store.merge_step(NOW, 1 << 20).expect("room").more {}
    let stats = store.stats();
    assert!(stats.raw.blocks > 1 && stats.rollups_5m.blocks > 0 && stats.rollups_1h.blocks > 0);
    let asleep = [NOW, NOW + 60].map(|now| store.sleep_silent(now, &mut |_, _| ()).expect("room").asleep);
    assert_eq!(asleep, [0, 1]);
    store.remove_series(removed).expect("room");
    store.close(NOW).expect("room");
    drop(store);
    fs::remove_file(golden().join("LOCK")).expect("it was there");
}

#[test]
fn version_01_reads() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path();
    for sub in ["log", "block", "cold", "."] {
        fs::create_dir_all(dir.join(sub)).expect("a directory");
        for entry in fs::read_dir(golden().join(sub)).expect("testdata") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                fs::copy(entry.path(), dir.join(sub).join(entry.file_name())).expect("a copy");
            }
        }
    }
    let (store, recovery) = Store::open(Options { dir: dir.to_path_buf(), ..options() }, NOW).expect("opens");
    assert_eq!((recovery.series, recovery.corrupt, recovery.torn_bytes_cut), (FORMS, Vec::new(), 0));
    assert!(recovery.blocks > 0 && recovery.points_replayed > 0);
    for i in 0..FORMS {
        let id = id_of(&store, &format!("host-{}", i % 2), &format!("a.metric/n={i}")).expect("known");
        assert_eq!(history(&store, id), points(i), "series {i}");
        let query = Query { from: NOW - 90_000, to: NOW, cf: Cf::Max, now: NOW + 60 * 86_400 };
        let rolled_up = store.query(found(&store, id), &query).expect("reads");
        assert_eq!(rolled_up.step, 180 * 300);
        assert!(rolled_up.values.iter().any(|row| row.1.is_some()), "series {i}");
        assert_eq!(series(&store, i), id);
    }
    assert_eq!(id_of(&store, "removed", "m"), None);
    let silent = id_of(&store, "silent", "m").expect("asleep, not gone");
    assert_eq!((history(&store, silent), store.stats().series_asleep), (vec![(SILENT_SINCE, 7.5)], 1));
}
