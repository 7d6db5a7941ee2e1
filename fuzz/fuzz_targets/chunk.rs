//! Chunk: records in whatever state, and points of whatever shape.
#![no_main]

use libfuzzer_sys::fuzz_target;
use store::chunk::{Cursor, PAD, RECORD_MAX, Walk};

/// Runs are cheap to write and long to walk.
const POINTS_MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Some((head, records)) = input.split_first_chunk::<24>() else { return };
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    let value = f64::from_le_bytes(head[16..].try_into().expect("8 bytes"));
    // A step of 0 is of no series, but may stand in a damaged file.
    let cursor = Cursor { time: u32_at(0), run: u32_at(4), value, step: u32_at(8) };
    let newest_first: Vec<(u32, f64)> = Walk::new(cursor, records).take(POINTS_MAX).collect();
    assert_eq!(newest_first.first().map(|point| point.0), Some(cursor.time));

    // Those that ascend, as any writer's do.
    let mut points: Vec<(u32, f64)> = newest_first.into_iter().rev().collect();
    points.sort_by_key(|(time, _)| *time);
    points.dedup_by_key(|(time, _)| *time);
    let step = u32_at(12).max(1);
    let mut again = Cursor::new(points[0].0, points[0].1, step);
    let mut bytes = Vec::new();
    for (i, (time, value)) in points.iter().enumerate().skip(1) {
        // Records are moved and cut between, so each must hold by itself.
        again.append(*time, *value, |record| {
            assert!(record.len() <= RECORD_MAX && record.last() != Some(&PAD));
            bytes.extend_from_slice(record);
        });
        if i % 16 == 0 {
            again.change_step(step.wrapping_add(i as u32).max(1), |record| bytes.extend_from_slice(record));
        }
    }
    let back: Vec<(u32, u64)> = Walk::new(again, &bytes).map(|(time, value)| (time, value.to_bits())).collect();
    let expected: Vec<(u32, u64)> = points.iter().rev().map(|(time, value)| (*time, value.to_bits())).collect();
    assert_eq!(back, expected);
});
