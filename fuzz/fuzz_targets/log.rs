//! Log: a segment in whatever state.
#![no_main]

mod edits;

use edits::{NOW, all, append, edit, file, fill, find, open, series};
use libfuzzer_sys::fuzz_target;
use stdx::FakeDisk;

fuzz_target!(|input: &[u8]| {
    let disk = FakeDisk::default();
    let (store, _) = open(&disk);
    fill(&store, NOW - 7200);
    drop(store);
    edit(&disk, &file(&disk, "log"), input);

    let (store, first) = open(&disk);
    let found = all(&store);
    drop(store);
    let (store, second) = open(&disk);
    assert_eq!(all(&store), found);
    assert_eq!((second.points_replayed, second.torn_bytes_cut), (first.points_replayed, 0));
    // A segment without a point is begun anew, and whoever opens the store keeps what was lost.
    assert!(second.corrupt.iter().all(|what| first.corrupt.contains(what)), "{:?}", second.corrupt);
    assert!(first.corrupt.iter().all(|what| first.lost_of_log.contains(what)), "{:?}", first.corrupt);

    append(&store, &[(series(&store, "new"), NOW, 1.5)]);
    drop(store);
    let (store, third) = open(&disk);
    assert_eq!(third.points_replayed, first.points_replayed + 1);
    let newest = find(&store, "new").and_then(|new| store.last_raw(new));
    assert_eq!(newest.map(|point| (point.time, point.value)), Some((NOW, 1.5)));
    assert_eq!(all(&store), found);
});
