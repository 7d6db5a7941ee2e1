//! Batch: items as the JSON array that `Transfer.Update` takes, ready to be sent, or to be kept while no transfer
//! answers.
//!
//! Why: items that wait for a transfer are kept as the bytes that will be sent: one allocation for hundreds of items.
//! Memory: a batch has at most [`BATCH_BYTES_MAX`]; more items become several batches.

use bytes::Bytes;
use model::tags::canonical_string;
use std::collections::BTreeMap;
use std::fmt::Write;
use wire::item::{OutItem, write_item};

/// Bytes of one batch: far above a collector group, far below a transfer's limit for a message (16 MiB in Hawkeye).
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Items on their way to a transfer, as the bytes that will be sent.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The items as a JSON array.
    pub json: Bytes,
    pub items: usize,
}

/// Collects items into batches.
#[derive(Default)]
pub struct Batches {
    done: Vec<Batch>,
    /// The batch that is being filled, `[item,item` so far.
    open: Vec<u8>,
    items: usize,
}

impl Batches {
    /// Appends an item; a full batch is closed before.
    pub fn push(&mut self, item: &OutItem<'_>) {
        let before = self.open.len();
        self.open.push(if self.items == 0 { b'[' } else { b',' });
        write_item(&mut self.open, item);
        self.items += 1;
        if self.open.len() > BATCH_BYTES_MAX && self.items > 1 {
            let last = self.open.split_off(before);
            self.items -= 1;
            self.close();
            self.open = last;
            self.open[0] = b'[';
            self.items = 1;
        }
    }

    /// Closes the last batch, and gives all of them.
    pub fn finish(mut self) -> Vec<Batch> {
        if self.items > 0 {
            self.close();
        }
        self.done
    }

    fn close(&mut self) {
        let mut json = std::mem::take(&mut self.open);
        json.push(b']');
        json.shrink_to_fit();
        self.done.push(Batch { json: json.into(), items: self.items });
    }
}

/// The tags that are added to every item.
#[derive(Clone, Debug)]
pub struct DefaultTags(String);

impl DefaultTags {
    /// Canonical text of the configured tags.
    pub fn new(tags: &BTreeMap<String, String>) -> DefaultTags {
        let mut text = String::new();
        for (key, value) in tags {
            let comma = if text.is_empty() { "" } else { "," };
            write!(text, "{comma}{key}={value}").expect("writing to a String cannot fail");
        }
        DefaultTags(text)
    }

    /// `tags` with the default ones, which win over equal keys, as in the original. Borrows when there is nothing to
    /// add.
    pub fn add<'a>(&self, tags: &'a str, scratch: &'a mut String) -> &'a str {
        if self.0.is_empty() {
            return tags;
        }
        *scratch = canonical_string(&format!("{tags},{}", self.0));
        scratch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::CounterType;
    use wire::{Scratch, decode_items};

    fn item(metric: &str) -> OutItem<'_> {
        let counter_type = CounterType::Gauge;
        OutItem { endpoint: "h", metric, value: 1.0, step: 60, counter_type, tags: "", timestamp: 120 }
    }

    #[test]
    fn nothing_gives_no_batch() {
        assert!(Batches::default().finish().is_empty());
    }

    #[test]
    fn large_batches_are_split_and_lose_nothing() {
        let names: Vec<String> = (0..30_000).map(|i| format!("metric.number.{i}")).collect();
        let mut batches = Batches::default();
        names.iter().for_each(|name| batches.push(&item(name)));
        let batches = batches.finish();
        assert!(batches.len() > 1);
        let mut read = Vec::new();
        for batch in &batches {
            assert!(batch.json.len() <= BATCH_BYTES_MAX + 1, "{}", batch.json.len());
            let count = decode_items(&batch.json, &mut Scratch::new(), &mut |item| {
                read.push(item.expect("own item").metric.to_string());
            });
            assert_eq!(count, Ok(batch.items));
        }
        assert_eq!(read, names);
    }

    #[test]
    fn default_tags_win() {
        let tags = DefaultTags::new(&[("idc".to_string(), "bj".to_string())].into());
        let check = |own: &str, expected: &str| assert_eq!(tags.add(own, &mut String::new()), expected, "{own}");
        check("", "idc=bj");
        check("mount=/,a=1", "a=1,idc=bj,mount=/");
        check("idc=sh", "idc=bj");
        assert_eq!(DefaultTags::new(&BTreeMap::new()).add("b=1, a=2", &mut String::new()), "b=1, a=2");
    }
}
