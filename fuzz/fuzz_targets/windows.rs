//! The file of a judge's windows in whatever state: nothing panics, points ascend, and what is found does not depend on
//! what follows a damaged section.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let mut found = Vec::new();
    let read = judge::read_windows(content, |key, counter_type, points| {
        assert!(points.windows(2).all(|pair| pair[0].time < pair[1].time), "{points:?}");
        found.push((key.endpoint.to_string(), key.counter(), counter_type, points.len()));
    });
    let mut again = 0;
    let cut = &content[..content.len() - content.len().min(1)];
    let read_cut = judge::read_windows(cut, |key, counter_type, points| {
        let series = (key.endpoint.to_string(), key.counter(), counter_type, points.len());
        assert!(found.contains(&series), "{series:?} is only found in a part");
        again += 1;
    });
    assert!(again <= found.len());
    // The whole file ends where its last section does.
    assert!(read.is_err() || read_cut.is_err());
});
