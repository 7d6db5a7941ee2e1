//! Items: an array of them, in whatever state.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{Item, OutItem, Scratch, decode_items, json, write_item};

fuzz_target!(|array: &[u8]| {
    let mut handed_out = 0;
    let total = decode_items(array, &mut Scratch::new(), &mut |item| {
        handed_out += 1;
        if let Ok(item) = item {
            check(&item);
        }
    });
    match total {
        Ok(total) => {
            assert_eq!(total, handed_out);
            assert_eq!(json::check(array), Ok(()));
        }
        // JSON that is no array is refused as well.
        Err(_) => assert!(json::check(array).is_err() || !matches!(array.trim_ascii_start().first(), Some(b'['))),
    }
});

fn check(item: &Item<'_>) {
    assert!(!item.endpoint.is_empty() && !item.metric.is_empty());
    assert!(item.value.is_finite() && item.step > 0 && item.timestamp >= 0);
    let Item { endpoint, metric, tags, value, step, counter_type, timestamp } = *item;
    let mut text = b"[".to_vec();
    write_item(&mut text, &OutItem { endpoint, metric, value, step, counter_type, tags, timestamp });
    text.push(b']');
    let mut seen = 0;
    let total = decode_items(&text, &mut Scratch::new(), &mut |again| {
        seen += 1;
        assert_eq!(again, Ok(*item));
    });
    assert_eq!((total, seen), (Ok(1), 1));
}
