//! Item: one value of one series as agents, scripts and gateways send it, in `Transfer.Update` and in the HTTP pushes.
//!
//! Why: this is the one place that sees the texts of every point. The original builds a struct, five strings and a map
//! of tags for each; here an item borrows from the message and lives as long as the call that hands it out.
//! How: one pass over the array. The field names are tried in the order in which Go writes them before they are
//! compared one by one. What is wrong with an item is kept until the item ends, so one bad item never fails a batch.
//! Invariants: an [`Item`] is complete and checked: names not empty and short enough, value finite, step > 0. Nothing
//! is allocated per item. Never reads the clock; canonical tags and the alignment of times are the caller's.
//! Compat: spec of `Transfer.Update`. Deliberately more tolerant: a wrong type, for which Go refuses the batch, refuses
//! the item; integers may be written `60.0` or `"60"`. Stricter: NaN and infinities are refused, and endpoints over
//! 255 bytes, the width of the original's index column.

use crate::json::{JsonError, Kind, Reader, Scratch, Text, integral, push_integer, push_number, push_string, unescape};
use model::CounterType;

/// Bytes of metric plus tags, as sent: the original's limit, which keeps a counter inside its index column.
pub const COUNTER_BYTES_MAX: usize = 510;
/// Width of the original's column for endpoints.
pub const ENDPOINT_BYTES_MAX: usize = 255;
/// A metric that the original drops, since an old agent sent it with a text as value.
const HOSTNAME_METRIC: &str = "kernel.hostname";

/// A point as it came in, checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item<'a> {
    pub endpoint: &'a str,
    pub metric: &'a str,
    /// Tags as they were sent: neither sorted nor cleaned.
    pub tags: &'a str,
    /// A finite number; −0 has become 0.
    pub value: f64,
    /// Seconds, > 0.
    pub step: u32,
    pub counter_type: CounterType,
    /// Unix seconds; 0 when absent or not positive, which means "now".
    pub timestamp: i64,
}

/// The fields of an item, in the order in which Go writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Endpoint,
    Metric,
    Value,
    Step,
    CounterType,
    Tags,
    Timestamp,
}

/// Reason for which an item was refused: the first that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invalid {
    Null,
    NotAnObject,
    WrongType(Field),
    KernelHostname,
    EmptyMetric,
    EmptyEndpoint,
    CounterType,
    EmptyValue,
    Step,
    CounterTooLong,
    EndpointTooLong,
    /// The value is absent, null, a boolean, an array, an object, or a text that is no number.
    NotANumber,
    /// NaN, an infinity, or beyond the range of a double.
    NotFinite,
}

impl Invalid {
    /// Every reason, for counters that exist before they count.
    pub const ALL: [Invalid; 18] = [
        Invalid::Null,
        Invalid::NotAnObject,
        Invalid::WrongType(Field::Endpoint),
        Invalid::WrongType(Field::Metric),
        Invalid::WrongType(Field::Step),
        Invalid::WrongType(Field::CounterType),
        Invalid::WrongType(Field::Tags),
        Invalid::WrongType(Field::Timestamp),
        Invalid::KernelHostname,
        Invalid::EmptyMetric,
        Invalid::EmptyEndpoint,
        Invalid::CounterType,
        Invalid::EmptyValue,
        Invalid::Step,
        Invalid::CounterTooLong,
        Invalid::EndpointTooLong,
        Invalid::NotANumber,
        Invalid::NotFinite,
    ];

    /// The label of the reason in counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Invalid::Null => "null",
            Invalid::NotAnObject => "not_an_object",
            Invalid::WrongType(Field::Endpoint) => "endpoint_type",
            Invalid::WrongType(Field::Metric) => "metric_type",
            Invalid::WrongType(Field::Value) => "value_type",
            Invalid::WrongType(Field::Step) => "step_type",
            Invalid::WrongType(Field::CounterType) => "counter_type_type",
            Invalid::WrongType(Field::Tags) => "tags_type",
            Invalid::WrongType(Field::Timestamp) => "timestamp_type",
            Invalid::KernelHostname => "kernel_hostname",
            Invalid::EmptyMetric => "empty_metric",
            Invalid::EmptyEndpoint => "empty_endpoint",
            Invalid::CounterType => "counter_type",
            Invalid::EmptyValue => "empty_value",
            Invalid::Step => "step",
            Invalid::CounterTooLong => "counter_too_long",
            Invalid::EndpointTooLong => "endpoint_too_long",
            Invalid::NotANumber => "not_a_number",
            Invalid::NotFinite => "not_finite",
        }
    }

    /// The reason in words, and what would be right, for logs.
    pub fn explain(self) -> &'static str {
        match self {
            Invalid::Null => "item is null; send an object",
            Invalid::NotAnObject => "item is not an object",
            Invalid::WrongType(Field::Endpoint) => "endpoint must be a string",
            Invalid::WrongType(Field::Metric) => "metric must be a string",
            Invalid::WrongType(Field::Value) => "value must be a number or a numeric string",
            Invalid::WrongType(Field::Step) => "step must be a whole number of seconds",
            Invalid::WrongType(Field::CounterType) => "counterType must be a string",
            Invalid::WrongType(Field::Tags) => "tags must be a string: k=v,k2=v2",
            Invalid::WrongType(Field::Timestamp) => "timestamp must be a whole number of Unix seconds",
            Invalid::KernelHostname => "metric kernel.hostname is never stored",
            Invalid::EmptyMetric => "metric is empty",
            Invalid::EmptyEndpoint => "endpoint is empty",
            Invalid::CounterType => "counterType must be GAUGE, COUNTER or DERIVE",
            Invalid::EmptyValue => "value is an empty string",
            Invalid::Step => "step must be from 1 to 4294967295 seconds",
            Invalid::CounterTooLong => "metric and tags together are longer than 510 bytes",
            Invalid::EndpointTooLong => "endpoint is longer than 255 bytes",
            Invalid::NotANumber => "value must be a number or a numeric string",
            Invalid::NotFinite => "value is NaN, infinite or out of range",
        }
    }
}

/// Hands out every item of a JSON array, or why it was refused, in order; returns how many there were. `null` is an
/// empty array.
///
/// Broken JSON ends the batch with an error, when items before the break have been handed out already. A parameter of
/// [`crate::jsonrpc::request`] was checked as a whole; for other bytes call [`crate::json::check`] first.
pub fn decode_items(
    array: &[u8],
    scratch: &mut Scratch,
    each: &mut dyn FnMut(Result<Item<'_>, Invalid>),
) -> Result<usize, JsonError> {
    let mut reader = Reader::new(array);
    let mut more = match reader.kind()? {
        Kind::Null => reader.skip().map(|_| false)?,
        _ => reader.array()?,
    };
    let mut total = 0;
    while more {
        total += 1;
        decode_item(&mut reader, scratch, each)?;
        more = reader.next_element()?;
    }
    reader.end()?;
    Ok(total)
}

fn decode_item(
    reader: &mut Reader<'_>,
    scratch: &mut Scratch,
    each: &mut dyn FnMut(Result<Item<'_>, Invalid>),
) -> Result<(), JsonError> {
    let kind = reader.kind()?;
    if kind != Kind::Object {
        reader.skip()?;
        each(Err(if kind == Kind::Null { Invalid::Null } else { Invalid::NotAnObject }));
        return Ok(());
    }
    scratch.text.clear();
    let draft = Draft::read(reader, &mut scratch.text)?;
    each(draft.finish(&scratch.text));
    Ok(())
}

/// A string of an item that is being read.
#[derive(Clone, Copy)]
enum Slot<'a> {
    Input(&'a str),
    /// The string from here to there in the scratch text.
    Scratch(usize, usize),
}

impl<'a> Slot<'a> {
    fn new(text: Text<'a>, scratch: &mut String) -> Slot<'a> {
        match text {
            Text::Plain(text) => Slot::Input(text),
            Text::Coded(raw) => {
                let from = scratch.len();
                unescape(raw, scratch);
                Slot::Scratch(from, scratch.len())
            }
        }
    }

    fn resolve(self, scratch: &'a str) -> &'a str {
        match self {
            Slot::Input(text) => text,
            Slot::Scratch(from, to) => &scratch[from..to],
        }
    }
}

/// An item that is being read: Go's zero values, overwritten by whatever comes, the last of equal names winning.
struct Draft<'a> {
    endpoint: Slot<'a>,
    metric: Slot<'a>,
    tags: Slot<'a>,
    counter_type: Slot<'a>,
    value: Result<f64, Invalid>,
    step: i64,
    timestamp: i64,
    wrong: Option<Field>,
}

/// Bytes before the value of each field when Go has written the item.
const BEFORE: [(Field, &[u8]); 7] = [
    (Field::Endpoint, b"{\"endpoint\":"),
    (Field::Metric, b",\"metric\":"),
    (Field::Value, b",\"value\":"),
    (Field::Step, b",\"step\":"),
    (Field::CounterType, b",\"counterType\":"),
    (Field::Tags, b",\"tags\":"),
    (Field::Timestamp, b",\"timestamp\":"),
];

impl<'a> Draft<'a> {
    fn new() -> Draft<'a> {
        let empty = Slot::Input("");
        Draft {
            endpoint: empty,
            metric: empty,
            tags: empty,
            counter_type: empty,
            value: Err(Invalid::NotANumber),
            step: 0,
            timestamp: 0,
            wrong: None,
        }
    }

    /// Reads the object at which `reader` stands.
    fn read(reader: &mut Reader<'a>, scratch: &mut String) -> Result<Draft<'a>, JsonError> {
        let mut draft = Draft::new();
        let mut in_order = BEFORE.iter();
        for (field, before) in in_order.by_ref() {
            if reader.take(before) {
                draft.field(*field, reader, scratch)?;
            } else {
                let first = *field == Field::Endpoint;
                draft.read_rest(first, reader, scratch)?;
                return Ok(draft);
            }
        }
        draft.read_rest(false, reader, scratch)?;
        Ok(draft)
    }

    /// Reads the fields up to the end of the object, in whatever order they stand.
    fn read_rest(&mut self, first: bool, reader: &mut Reader<'a>, scratch: &mut String) -> Result<(), JsonError> {
        let mut name = if first { reader.object()? } else { reader.next_field()? };
        while let Some(text) = name {
            match with_text(text, scratch, Field::parse) {
                Some(field) => self.field(field, reader, scratch)?,
                None => drop(reader.skip()?),
            }
            name = reader.next_field()?;
        }
        Ok(())
    }

    #[inline]
    fn field(&mut self, field: Field, reader: &mut Reader<'a>, scratch: &mut String) -> Result<(), JsonError> {
        let right = match field {
            Field::Endpoint => read_string(&mut self.endpoint, reader, scratch)?,
            Field::Metric => read_string(&mut self.metric, reader, scratch)?,
            Field::Tags => read_string(&mut self.tags, reader, scratch)?,
            Field::CounterType => read_string(&mut self.counter_type, reader, scratch)?,
            Field::Step => read_integer(&mut self.step, reader, scratch)?,
            Field::Timestamp => read_integer(&mut self.timestamp, reader, scratch)?,
            Field::Value => {
                self.value = read_value(reader, scratch)?;
                true
            }
        };
        if !right && self.wrong.is_none() {
            self.wrong = Some(field);
        }
        Ok(())
    }

    fn finish(self, scratch: &'a str) -> Result<Item<'a>, Invalid> {
        if let Some(field) = self.wrong {
            return Err(Invalid::WrongType(field));
        }
        let (endpoint, metric) = (self.endpoint.resolve(scratch), self.metric.resolve(scratch));
        let counter_type = CounterType::parse(self.counter_type.resolve(scratch).as_bytes());
        let tags = self.tags.resolve(scratch);
        checked(endpoint, metric, tags, self.value, self.step, counter_type, self.timestamp)
    }
}

/// The checks that every item passes, in the original's order.
pub(crate) fn checked<'a>(
    endpoint: &'a str,
    metric: &'a str,
    tags: &'a str,
    value: Result<f64, Invalid>,
    step: i64,
    counter_type: Option<CounterType>,
    timestamp: i64,
) -> Result<Item<'a>, Invalid> {
    if metric == HOSTNAME_METRIC {
        return Err(Invalid::KernelHostname);
    }
    if metric.is_empty() {
        return Err(Invalid::EmptyMetric);
    }
    if endpoint.is_empty() {
        return Err(Invalid::EmptyEndpoint);
    }
    let counter_type = counter_type.ok_or(Invalid::CounterType)?;
    if value == Err(Invalid::EmptyValue) {
        return Err(Invalid::EmptyValue);
    }
    let step = u32::try_from(step).ok().filter(|step| *step > 0).ok_or(Invalid::Step)?;
    if metric.len() + tags.len() > COUNTER_BYTES_MAX {
        return Err(Invalid::CounterTooLong);
    }
    if endpoint.len() > ENDPOINT_BYTES_MAX {
        return Err(Invalid::EndpointTooLong);
    }
    let value = value?;
    if !value.is_finite() {
        return Err(Invalid::NotFinite);
    }
    // Adding 0 turns −0 into 0, as it arrives in the original, whose gob sends no zero of either sign.
    Ok(Item { endpoint, metric, tags, value: value + 0.0, step, counter_type, timestamp: timestamp.max(0) })
}

impl Field {
    fn parse(name: &str) -> Option<Field> {
        let fields = [
            ("endpoint", Field::Endpoint),
            ("metric", Field::Metric),
            ("value", Field::Value),
            ("step", Field::Step),
            ("counterType", Field::CounterType),
            ("tags", Field::Tags),
            ("timestamp", Field::Timestamp),
        ];
        fields.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, field)| *field)
    }
}

/// Lends the characters of `text`; leaves `scratch` as it was.
fn with_text<R>(text: Text<'_>, scratch: &mut String, read: impl FnOnce(&str) -> R) -> R {
    match text {
        Text::Plain(text) => read(text),
        Text::Coded(raw) => {
            let from = scratch.len();
            unescape(raw, scratch);
            let result = read(&scratch[from..]);
            scratch.truncate(from);
            result
        }
    }
}

/// Reads a string; false when something else stands there. Null changes nothing, as in Go.
#[inline]
fn read_string<'a>(slot: &mut Slot<'a>, reader: &mut Reader<'a>, scratch: &mut String) -> Result<bool, JsonError> {
    match reader.kind()? {
        Kind::String => *slot = Slot::new(reader.text()?, scratch),
        Kind::Null => drop(reader.skip()?),
        _ => {
            reader.skip()?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads an integer; false when there is none. Null changes nothing, as in Go.
#[inline]
fn read_integer(integer: &mut i64, reader: &mut Reader<'_>, scratch: &mut String) -> Result<bool, JsonError> {
    let read = match reader.kind()? {
        Kind::Number => reader.number()?.i64(),
        Kind::String => with_text(reader.text()?, scratch, parse_integer),
        Kind::Null => {
            reader.skip()?;
            return Ok(true);
        }
        _ => {
            reader.skip()?;
            None
        }
    };
    if let Some(value) = read {
        *integer = value;
    }
    Ok(read.is_some())
}

fn parse_integer(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| text.parse::<f64>().ok().and_then(integral))
}

#[inline]
fn read_value(reader: &mut Reader<'_>, scratch: &mut String) -> Result<Result<f64, Invalid>, JsonError> {
    Ok(match reader.kind()? {
        Kind::Number => Ok(reader.number()?.f64()),
        Kind::String => with_text(reader.text()?, scratch, parse_value),
        _ => {
            reader.skip()?;
            Err(Invalid::NotANumber)
        }
    })
}

/// Reads a value as text. Rust knows the decimal grammar of Go's `ParseFloat`, the spellings of NaN and infinity
/// included; not the hexadecimal one, which nobody was seen to send.
pub(crate) fn parse_value(text: &str) -> Result<f64, Invalid> {
    if text.is_empty() {
        return Err(Invalid::EmptyValue);
    }
    text.parse().map_err(|_| Invalid::NotANumber)
}

/// An item to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutItem<'a> {
    pub endpoint: &'a str,
    pub metric: &'a str,
    /// Finite.
    pub value: f64,
    pub step: u32,
    pub counter_type: CounterType,
    pub tags: &'a str,
    pub timestamp: i64,
}

/// Appends an item as Go writes it. Separating items with commas is the caller's.
pub fn write_item(out: &mut Vec<u8>, item: &OutItem<'_>) {
    out.extend_from_slice(b"{\"endpoint\":");
    push_string(out, item.endpoint);
    out.extend_from_slice(b",\"metric\":");
    push_string(out, item.metric);
    out.extend_from_slice(b",\"value\":");
    push_number(out, item.value);
    out.extend_from_slice(b",\"step\":");
    push_integer(out, i64::from(item.step));
    out.extend_from_slice(b",\"counterType\":\"");
    out.extend_from_slice(item.counter_type.as_str().as_bytes());
    out.extend_from_slice(b"\",\"tags\":");
    push_string(out, item.tags);
    out.extend_from_slice(b",\"timestamp\":");
    push_integer(out, item.timestamp);
    out.push(b'}');
}

#[cfg(test)]
mod tests;
