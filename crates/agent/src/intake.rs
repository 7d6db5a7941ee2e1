//! Intake: points on their way into the queue: those in JSON that others have made (scripts over HTTP, plugins on their
//! stdout), and those that the agent has read itself.
//!
//! Why: whoever made a point, default tags are added and what no transfer would take is left out, in one place.
//! Invariants: pure; a list that is broken anywhere gives no batch at all, a bad item leaves the others alone.
//! Memory: the batches that are handed back, which are as long as the list, tags added.

use super::batch::{Batch, Batches, DefaultTags};
use probe::Reading;
use std::collections::BTreeSet;
use wire::item::{Invalid, Item, OutItem};
use wire::json::{Kind, Reader, check};
use wire::{Scratch, decode_items};

/// The bytes are no JSON array.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAList;

/// Reads a JSON array of items, `null` being an empty one. `time` says when an item was (Unix seconds); `refused` hears
/// why an item is left out.
pub fn take(
    json: &[u8],
    default_tags: &DefaultTags,
    time: impl Fn(&Item<'_>) -> i64,
    mut refused: impl FnMut(Invalid),
) -> Result<Vec<Batch>, NotAList> {
    let is_list = matches!(Reader::new(json).kind(), Ok(Kind::Array | Kind::Null));
    if !is_list || check(json).is_err() {
        return Err(NotAList);
    }
    let (mut batches, mut tags) = (Batches::default(), String::new());
    let decoded = decode_items(json, &mut Scratch::new(), &mut |item| match item {
        Ok(item) => batches.push(&OutItem {
            endpoint: item.endpoint,
            metric: item.metric,
            value: item.value,
            step: item.step,
            counter_type: item.counter_type,
            tags: default_tags.add(item.tags, &mut tags),
            timestamp: time(&item),
        }),
        Err(reason) => refused(reason),
    });
    decoded.map(|_| batches.finish()).map_err(|_| NotAList)
}

/// What the agent's own readings have in common.
#[derive(Clone, Copy)]
pub struct Stamp<'a> {
    pub endpoint: &'a str,
    /// Seconds, > 0.
    pub step: u32,
    /// Unix seconds.
    pub timestamp: i64,
}

/// Batches of the agent's own readings, without those of metrics that are ignored.
pub fn batches_of(
    readings: &[Reading],
    stamp: Stamp<'_>,
    ignore: &BTreeSet<String>,
    default_tags: &DefaultTags,
) -> Vec<Batch> {
    let (mut batches, mut tags) = (Batches::default(), String::new());
    for reading in readings.iter().filter(|reading| !ignore.contains(reading.metric.as_ref())) {
        batches.push(&OutItem {
            endpoint: stamp.endpoint,
            metric: &reading.metric,
            value: reading.value,
            step: stamp.step,
            counter_type: reading.counter_type,
            tags: default_tags.add(&reading.tags, &mut tags),
            timestamp: stamp.timestamp,
        });
    }
    batches.finish()
}
