//! Block: a block file in whatever state, beside a sound one.
#![no_main]

mod edits;

use edits::{HOSTS, NOW, all, answered, append, edit, file, fill, find, history, open, series};
use libfuzzer_sys::fuzz_target;
use stdx::FakeDisk;
use store::{Cf, Query};

fuzz_target!(|input: &[u8]| {
    let disk = FakeDisk::default();
    let (store, _) = open(&disk);
    fill(&store, NOW - 90_000 - 7200);
    store.flush(NOW).expect("room");
    let path = file(&disk, "blk");
    // In another block and day, and behind that in the log.
    let sure = [(NOW - 3600, 1.5), (NOW, 2.5)];
    for (time, value) in sure {
        append(&store, &[(series(&store, "a"), time, value)]);
        if time < NOW {
            store.flush(NOW).expect("room");
        }
    }
    drop(store);
    edit(&disk, &path, input);

    let (store, _) = open(&disk);
    all(&store);
    for host in HOSTS {
        let Some(series) = find(&store, host) else { continue };
        let query = Query { from: NOW - 2 * 86_400, to: NOW, cf: Cf::Average, now: NOW };
        answered(store.query(series, &query));
        store.last(series);
        store.last_raw(series);
    }
    // Their values the hostile block may have claimed first, but not their places.
    if let Some(found) = history(&store, "a") {
        assert!(sure.iter().all(|(time, _)| found.iter().any(|point| point.time == *time)), "{found:?}");
    }
    // What is read is also written again.
    store.flush(NOW).expect("room");
    store.tick(NOW + 60).expect("room");
    while store.merge_step(NOW + 7 * 86_400, 1 << 20).expect("room").more {}
    all(&store);
});
