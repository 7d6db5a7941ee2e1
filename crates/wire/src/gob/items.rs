//! Items: what transfer sends to graph (`Graph.Send`), to judge (`Judge.Send`) and to falcon2p8s (`P8sRelay.Send`),
//! hundreds per call.
//!
//! Why: this is the hot path of a site that keeps its old transfers. Per item the original builds five strings and a
//! map; here texts are borrowed from the message, and the map is written as canonical text straight away.
//! How: the pairs of a map come in any order (Go's maps have none). Where they stand is noted, they are sorted if they
//! must be, and written as `k=v,k2=v2` into the caller's scratch.
//! Invariants: nothing is allocated per item once the scratch has its size; strings that are not UTF-8, and keys or
//! values with the separators in them, which an unmodified transfer never sends, take a slower way that allocates.
//! Memory: a [`GobScratch`] holds at most the texts of one item, which the limit on messages bounds (times three where
//! bytes are not UTF-8), and 8 KiB of places.
//! Compat: tags are read as the text that the original makes of the map, and then as any that come in as text.

use super::GobError;
use super::call::{Call, Decoder};
use super::plan::{FieldKind, Plan};
use super::types::{Name, Types};
use super::value::Reader;
use crate::item::{self, Invalid, Item};
use model::CounterType;
use model::tags::canonical_string;

/// Tags of one item. Metric and tags have at most 510 bytes together, and each tag takes three.
const TAGS_MAX: usize = 256;

/// An item of `Graph.Send`. Fields that were not sent are zero or empty, as in Go.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct GraphItem<'a> {
    pub endpoint: &'a str,
    pub metric: &'a str,
    /// Canonical.
    pub tags: &'a str,
    /// May be NaN or infinite.
    pub value: f64,
    pub timestamp: i64,
    /// `GAUGE` or `DERIVE`.
    pub ds_type: &'a str,
    pub step: i64,
    pub heartbeat: i64,
    /// `U` or `0`.
    pub min: &'a str,
    pub max: &'a str,
}

impl<'a> GraphItem<'a> {
    /// The item, if it passes the checks of every door.
    pub fn check(&self) -> Result<Item<'a>, Invalid> {
        let counter_type = CounterType::parse(self.ds_type.as_bytes());
        item::checked(self.endpoint, self.metric, self.tags, Ok(self.value), self.step, counter_type, self.timestamp)
    }
}

/// An item of `Judge.Send`. Fields that were not sent are zero or empty, as in Go.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct JudgeItem<'a> {
    pub endpoint: &'a str,
    pub metric: &'a str,
    /// May be NaN or infinite.
    pub value: f64,
    pub timestamp: i64,
    /// `GAUGE`, `COUNTER` or `DERIVE`.
    pub judge_type: &'a str,
    /// Canonical.
    pub tags: &'a str,
}

impl<'a> JudgeItem<'a> {
    /// The item, if it passes the checks of every door. `step` comes from elsewhere: the message has none.
    pub fn check(&self, step: u32) -> Result<Item<'a>, Invalid> {
        let counter_type = CounterType::parse(self.judge_type.as_bytes());
        let value = Ok(self.value);
        item::checked(self.endpoint, self.metric, self.tags, value, i64::from(step), counter_type, self.timestamp)
    }
}

/// An item of `P8sRelay.Send`. Fields that were not sent are zero or empty, as in Go.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct P8sItem<'a> {
    pub endpoint: &'a str,
    pub metric: &'a str,
    /// Canonical.
    pub tags: &'a str,
    /// May be NaN or infinite.
    pub value: f64,
    pub timestamp: i64,
    /// `GAUGE` or `COUNTER`.
    pub metric_type: &'a str,
    pub step: i64,
}

/// Room for what cannot be borrowed from the message. Keep one per connection or thread; it only grows.
#[derive(Debug, Default)]
pub struct GobScratch {
    text: String,
    pairs: Vec<Pair>,
}

impl GobScratch {
    /// A scratch that holds nothing yet.
    pub fn new() -> GobScratch {
        GobScratch::default()
    }

    /// Bytes held, for the memory ledger.
    pub fn memory_bytes(&self) -> usize {
        self.text.capacity() + self.pairs.capacity() * size_of::<Pair>()
    }

    /// Gives memory back after an unusual message, down to `bytes` of text.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.text.clear();
        self.text.shrink_to(bytes);
    }
}

const COMMON: [(Name, FieldKind); 5] = [
    (Name::Endpoint, FieldKind::Text),
    (Name::Metric, FieldKind::Text),
    (Name::Value, FieldKind::Float),
    (Name::Timestamp, FieldKind::Int),
    (Name::Tags, FieldKind::Tags),
];

impl Call<'_> {
    /// Hands out the items of `Graph.Send`, in order; those before an error have been handed out.
    pub fn graph_items(
        &self,
        decoder: &Decoder,
        scratch: &mut GobScratch,
        each: &mut dyn FnMut(GraphItem<'_>),
    ) -> Result<(), GobError> {
        let [endpoint, metric, value, timestamp, tags] = COMMON;
        let (ds_type, step) = ((Name::DsType, FieldKind::Text), (Name::Step, FieldKind::Int));
        let (heartbeat, min, max) =
            ((Name::Heartbeat, FieldKind::Int), (Name::Min, FieldKind::Text), (Name::Max, FieldKind::Text));
        let fields = [endpoint, metric, tags, value, timestamp, ds_type, step, heartbeat, min, max];
        let (count, plan, mut reader) = self.list(decoder, &fields)?;
        for _ in 0..count {
            let draft = Draft::read(&plan, decoder.types(), &mut reader, scratch)?;
            each(GraphItem {
                endpoint: draft.endpoint.resolve(&scratch.text),
                metric: draft.metric.resolve(&scratch.text),
                tags: draft.tags.resolve(&scratch.text),
                value: draft.value,
                timestamp: draft.timestamp,
                ds_type: draft.item_type.resolve(&scratch.text),
                step: draft.step,
                heartbeat: draft.heartbeat,
                min: draft.min.resolve(&scratch.text),
                max: draft.max.resolve(&scratch.text),
            });
        }
        reader.end()
    }

    /// Hands out the items of `Judge.Send`, in order; those before an error have been handed out.
    pub fn judge_items(
        &self,
        decoder: &Decoder,
        scratch: &mut GobScratch,
        each: &mut dyn FnMut(JudgeItem<'_>),
    ) -> Result<(), GobError> {
        let [endpoint, metric, value, timestamp, tags] = COMMON;
        let fields = [endpoint, metric, value, timestamp, (Name::JudgeType, FieldKind::Text), tags];
        let (count, plan, mut reader) = self.list(decoder, &fields)?;
        for _ in 0..count {
            let draft = Draft::read(&plan, decoder.types(), &mut reader, scratch)?;
            each(JudgeItem {
                endpoint: draft.endpoint.resolve(&scratch.text),
                metric: draft.metric.resolve(&scratch.text),
                value: draft.value,
                timestamp: draft.timestamp,
                judge_type: draft.item_type.resolve(&scratch.text),
                tags: draft.tags.resolve(&scratch.text),
            });
        }
        reader.end()
    }

    /// Hands out the items of `P8sRelay.Send`, in order; those before an error have been handed out.
    pub fn p8s_items(
        &self,
        decoder: &Decoder,
        scratch: &mut GobScratch,
        each: &mut dyn FnMut(P8sItem<'_>),
    ) -> Result<(), GobError> {
        let [endpoint, metric, value, timestamp, tags] = COMMON;
        let (metric_type, step) = ((Name::MetricType, FieldKind::Text), (Name::Step, FieldKind::Int));
        let (count, plan, mut reader) =
            self.list(decoder, &[endpoint, metric, tags, value, timestamp, metric_type, step])?;
        for _ in 0..count {
            let draft = Draft::read(&plan, decoder.types(), &mut reader, scratch)?;
            each(P8sItem {
                endpoint: draft.endpoint.resolve(&scratch.text),
                metric: draft.metric.resolve(&scratch.text),
                tags: draft.tags.resolve(&scratch.text),
                value: draft.value,
                timestamp: draft.timestamp,
                metric_type: draft.item_type.resolve(&scratch.text),
                step: draft.step,
            });
        }
        reader.end()
    }
}

/// A string of an item that is being read.
#[derive(Clone, Copy)]
enum Slot<'a> {
    Input(&'a str),
    /// The string from here to there in the scratch text.
    Scratch(usize, usize),
}

impl<'a> Slot<'a> {
    #[inline]
    fn resolve(self, scratch: &'a str) -> &'a str {
        match self {
            Slot::Input(text) => text,
            Slot::Scratch(from, to) => &scratch[from..to],
        }
    }

    #[inline]
    fn read(reader: &mut Reader<'a>, scratch: &mut String) -> Result<Slot<'a>, GobError> {
        let bytes = reader.bytes()?;
        Ok(match std::str::from_utf8(bytes) {
            Ok(text) => Slot::Input(text),
            Err(_) => {
                let from = scratch.len();
                push_lossy(scratch, bytes);
                Slot::Scratch(from, scratch.len())
            }
        })
    }
}

#[cold]
fn push_lossy(out: &mut String, bytes: &[u8]) {
    out.push_str(&String::from_utf8_lossy(bytes));
}

/// An item of either kind that is being read: Go's zero values, overwritten by whatever comes.
struct Draft<'a> {
    endpoint: Slot<'a>,
    metric: Slot<'a>,
    tags: Slot<'a>,
    item_type: Slot<'a>,
    min: Slot<'a>,
    max: Slot<'a>,
    value: f64,
    timestamp: i64,
    step: i64,
    heartbeat: i64,
}

impl<'a> Draft<'a> {
    #[inline]
    fn read(
        plan: &Plan,
        types: &Types,
        reader: &mut Reader<'a>,
        scratch: &mut GobScratch,
    ) -> Result<Draft<'a>, GobError> {
        scratch.text.clear();
        let empty = Slot::Input("");
        let mut draft = Draft {
            endpoint: empty,
            metric: empty,
            tags: empty,
            item_type: empty,
            min: empty,
            max: empty,
            value: 0.0,
            timestamp: 0,
            step: 0,
            heartbeat: 0,
        };
        plan.read(types, reader, |name, _, reader| {
            match name {
                Name::Endpoint => draft.endpoint = Slot::read(reader, &mut scratch.text)?,
                Name::Metric => draft.metric = Slot::read(reader, &mut scratch.text)?,
                Name::Value => draft.value = reader.float()?,
                Name::Timestamp => draft.timestamp = reader.int()?,
                Name::Tags => draft.tags = read_tags(reader, scratch)?,
                Name::Step => draft.step = reader.int()?,
                Name::Heartbeat => draft.heartbeat = reader.int()?,
                Name::Min => draft.min = Slot::read(reader, &mut scratch.text)?,
                Name::Max => draft.max = Slot::read(reader, &mut scratch.text)?,
                _ => draft.item_type = Slot::read(reader, &mut scratch.text)?,
            }
            Ok(())
        })?;
        Ok(draft)
    }
}

/// Range of the key and of the value of a tag, counted from the first byte of the map.
#[derive(Clone, Copy, Debug)]
struct Pair {
    key: (usize, usize),
    value: (usize, usize),
}

/// Reads a `map[string]string` as canonical tags.
#[inline]
fn read_tags<'a>(reader: &mut Reader<'a>, scratch: &mut GobScratch) -> Result<Slot<'a>, GobError> {
    let count = reader.count()?;
    if count == 0 {
        return Ok(Slot::Input(""));
    }
    if count > TAGS_MAX {
        return Err(reader.error("more than 256 tags on one item"));
    }
    let GobScratch { text, pairs } = scratch;
    let from = text.len();
    let plain = if count == 1 {
        let (key, value) = (reader.bytes()?, reader.bytes()?);
        push_tag(text, key, value)
    } else {
        let map = reader.rest().0;
        read_pairs(count, map, reader, pairs)?;
        push_pairs(text, map, pairs)
    };
    if !plain {
        clean(text, from);
    }
    Ok(Slot::Scratch(from, text.len()))
}

/// Notes where the pairs of `map` stand, in the order of their keys; of equal keys, which Go never sends, the last.
fn read_pairs<'a>(count: usize, map: &'a [u8], reader: &mut Reader<'a>, pairs: &mut Vec<Pair>) -> Result<(), GobError> {
    pairs.clear();
    let mut ordered = true;
    let mut last_key: &[u8] = b"";
    for i in 0..count {
        let key = reader.bytes()?;
        let key_end = map.len() - reader.left();
        let value = reader.bytes()?;
        let value_end = map.len() - reader.left();
        pairs.push(Pair { key: (key_end - key.len(), key_end), value: (value_end - value.len(), value_end) });
        ordered &= i == 0 || last_key < key;
        last_key = key;
    }
    if !ordered {
        let key = |pair: &Pair| &map[pair.key.0..pair.key.1];
        // Not the stable sort, which allocates: where they stand tells equal keys apart.
        pairs.sort_unstable_by(|a, b| key(a).cmp(key(b)).then(b.key.0.cmp(&a.key.0)));
        pairs.dedup_by(|later, kept| key(later) == key(kept));
    }
    Ok(())
}

/// Appends `k=v,k2=v2`; false when the result may not be canonical.
fn push_pairs(text: &mut String, map: &[u8], pairs: &[Pair]) -> bool {
    let mut plain = true;
    for (i, pair) in pairs.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        plain &= push_tag(text, &map[pair.key.0..pair.key.1], &map[pair.value.0..pair.value.1]);
    }
    plain
}

/// Appends `key=value`; false when there is in it what ends or cuts a tag.
#[inline]
fn push_tag(text: &mut String, key: &[u8], value: &[u8]) -> bool {
    let (Ok(key_text), Ok(value_text)) = (std::str::from_utf8(key), std::str::from_utf8(value)) else {
        push_lossy(text, key);
        text.push('=');
        push_lossy(text, value);
        return false;
    };
    text.push_str(key_text);
    text.push('=');
    text.push_str(value_text);
    !key.iter().any(|byte| matches!(byte, b' ' | b',' | b'=')) && !value.iter().any(|byte| matches!(byte, b' ' | b','))
}

/// Makes the tags that stand in `text` from `from` on canonical, as any that come in as text.
#[cold]
fn clean(text: &mut String, from: usize) {
    let clean = canonical_string(&text[from..]);
    text.truncate(from);
    text.push_str(&clean);
}
