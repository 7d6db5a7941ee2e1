//! What the store says that it holds, by owner. How true the sum is, `tests/alloc.rs` says.

use crate::*;

#[test]
fn each_owner_grows_with_what_it_holds_and_work_gives_back() {
    let store = open(&FakeDisk::default());
    let empty = store.memory();
    let hosts: Vec<String> = (0..2000).map(|i| format!("host-{i:04}")).collect();
    let ids: Vec<SeriesId> = hosts.iter().map(|host| gauge(&store, host)).collect();
    for round in 0..20 {
        let time = NOW - 1200 + round * 60;
        let value = |id: &SeriesId| f64::from(id.0).sqrt() * time as f64;
        let samples: Vec<Sample> = ids.iter().map(|id| sample(*id, time, value(id))).collect();
        store.append(&samples, NOW, &mut ()).expect("the disk has room");
    }
    let full = store.memory();
    assert!(full.texts > empty.texts + 2000 * "host-0000".len(), "{full:?}");
    assert!(full.index >= empty.index + 2000 * 20 && full.heads >= empty.heads + 2000 * 32, "{full:?}");
    assert!(full.chunks > empty.chunks && full.log > empty.log, "{full:?}");
    assert_eq!((full.catalog, full.flush, full.merge, full.reads), (empty.catalog, 0, 0, 0));
    store.flush(NOW).expect("the disk has room");
    assert_eq!(history(&store, ids[7]).len(), 20);
    let flushed = store.memory();
    assert!(flushed.catalog > empty.catalog, "{flushed:?}");
    assert_eq!((flushed.flush, flushed.reads), (0, 0), "what work held went with it");
}
