//! Client: the other side, requests written and replies read: for forwarders, tests, benchmarks and `hawkeye loadgen`.

use super::call::{GraphDelete, GraphQuery, GraphSeries, read_struct};
use super::describe::{Described, Shape, push_text_value};
use super::message::{Pairs, Value};
use super::plan::{FieldKind, Plan};
use super::types::{Name, Type};
use super::write::{Fields, push_text, push_uint};
use super::{GobError, GraphItem, JudgeItem, P8sItem};
use model::tags::Tags;
use std::borrow::Cow;

/// Writes the requests of one connection, which must be sent in the order in which they were made.
#[derive(Clone, Debug)]
pub struct Requests {
    described: Described,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests::new()
    }
}

impl Requests {
    /// Requests of a connection on which no type is described yet.
    pub fn new() -> Requests {
        Requests { described: Described::new() }
    }

    /// `Judge.Ping`, `Graph.Ping`, and whatever else takes nothing.
    pub fn ping(&mut self, out: &mut Vec<u8>, method: &str, seq: u64) {
        self.header(out, method, seq);
        self.described.push_value(out, Shape::NullRpcRequest, |out| Fields::new(out).end());
    }

    /// `Graph.Send`. Tags must be canonical.
    pub fn graph_send<'i>(&mut self, out: &mut Vec<u8>, seq: u64, items: impl ExactSizeIterator<Item = GraphItem<'i>>) {
        self.header(out, "Graph.Send", seq);
        self.described.push_value(out, Shape::GraphItemList, |out| {
            out.push(0);
            push_uint(out, items.len() as u64);
            items.for_each(|item| push_graph_item(out, &item));
        });
    }

    /// `Judge.Send`. Tags must be canonical.
    pub fn judge_send<'i>(&mut self, out: &mut Vec<u8>, seq: u64, items: impl ExactSizeIterator<Item = JudgeItem<'i>>) {
        self.header(out, "Judge.Send", seq);
        self.described.push_value(out, Shape::JudgeItemList, |out| {
            out.push(0);
            push_uint(out, items.len() as u64);
            items.for_each(|item| push_judge_item(out, &item));
        });
    }

    /// `P8sRelay.Send`. Tags must be canonical.
    pub fn p8s_send<'i>(&mut self, out: &mut Vec<u8>, seq: u64, items: impl ExactSizeIterator<Item = P8sItem<'i>>) {
        self.header(out, "P8sRelay.Send", seq);
        self.described.push_value(out, Shape::P8sItemList, |out| {
            out.push(0);
            push_uint(out, items.len() as u64);
            items.for_each(|item| push_p8s_item(out, &item));
        });
    }

    /// `Graph.Query`.
    pub fn graph_query(&mut self, out: &mut Vec<u8>, seq: u64, query: &GraphQuery<'_>) {
        self.header(out, "Graph.Query", seq);
        self.described.push_value(out, Shape::GraphQueryParam, |out| {
            let mut fields = Fields::new(out);
            fields.int(0, query.start).int(1, query.end).text(2, &query.consol_fun);
            fields.text(3, &query.endpoint).text(4, &query.counter).int(5, query.step).end();
        });
    }

    /// `Graph.Info`.
    pub fn graph_info(&mut self, out: &mut Vec<u8>, seq: u64, series: &GraphSeries<'_>) {
        self.header(out, "Graph.Info", seq);
        self.described.push_value(out, Shape::GraphInfoParam, |out| push_series(out, series));
    }

    /// `Graph.Last` or `Graph.LastRaw`.
    pub fn graph_last(&mut self, out: &mut Vec<u8>, method: &str, seq: u64, series: &GraphSeries<'_>) {
        self.header(out, method, seq);
        self.described.push_value(out, Shape::GraphLastParam, |out| push_series(out, series));
    }

    /// `Graph.Delete`.
    pub fn graph_delete(&mut self, out: &mut Vec<u8>, seq: u64, list: &[GraphDelete<'_>]) {
        self.header(out, "Graph.Delete", seq);
        self.described.push_value(out, Shape::GraphDeleteList, |out| {
            out.push(0);
            push_uint(out, list.len() as u64);
            for delete in list {
                let mut fields = Fields::new(out);
                fields.text(0, &delete.endpoint).text(1, &delete.metric).int(2, delete.step);
                fields.text(3, &delete.ds_type).text(4, &delete.tags).end();
            }
        });
    }

    /// A call with a string: `Graph.GetRrd`.
    pub fn text(&mut self, out: &mut Vec<u8>, method: &str, seq: u64, text: &str) {
        self.header(out, method, seq);
        push_text_value(out, text);
    }

    fn header(&mut self, out: &mut Vec<u8>, method: &str, seq: u64) {
        self.described.push_value(out, Shape::Request, |out| Fields::new(out).text(0, method).uint(1, seq).end());
    }
}

fn push_graph_item(out: &mut Vec<u8>, item: &GraphItem<'_>) {
    let mut fields = Fields::new(out);
    fields.text(0, item.endpoint).text(1, item.metric);
    push_tags(fields.begin(2), item.tags);
    fields.float(3, item.value).int(4, item.timestamp).text(5, item.ds_type).int(6, item.step);
    fields.int(7, item.heartbeat).text(8, item.min).text(9, item.max).end();
}

fn push_judge_item(out: &mut Vec<u8>, item: &JudgeItem<'_>) {
    let mut fields = Fields::new(out);
    fields.text(0, item.endpoint).text(1, item.metric).float(2, item.value).int(3, item.timestamp);
    push_tags(fields.text(4, item.judge_type).begin(5), item.tags);
    fields.end();
}

fn push_p8s_item(out: &mut Vec<u8>, item: &P8sItem<'_>) {
    let mut fields = Fields::new(out);
    fields.text(0, item.endpoint).text(1, item.metric);
    push_tags(fields.begin(2), item.tags);
    fields.float(3, item.value).int(4, item.timestamp).text(5, item.metric_type).int(6, item.step).end();
}

/// Appends tags as a map, as transfer does even when there are none.
fn push_tags(out: &mut Vec<u8>, tags: &str) {
    let tags = Tags::assume_canonical(tags);
    push_uint(out, tags.iter().count() as u64);
    for (key, value) in tags.iter() {
        push_text(out, key);
        push_text(out, value);
    }
}

fn push_series(out: &mut Vec<u8>, series: &GraphSeries<'_>) {
    Fields::new(out).text(0, &series.endpoint).text(1, &series.counter).end();
}

/// Reads the replies of one connection.
#[derive(Clone, Debug)]
pub struct Replies {
    pairs: Pairs,
}

/// An answer. The method of this type that fits the call reads its value, unless it is an error.
#[derive(Clone, Debug)]
pub struct Reply<'a> {
    pub method: Cow<'a, str>,
    pub seq: u64,
    /// The error's text; empty when there is none.
    pub error: Cow<'a, str>,
    input: &'a [u8],
    value: Value,
}

/// The reply to `Graph.Query`, beside its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryReply<'a> {
    pub endpoint: Cow<'a, str>,
    pub counter: Cow<'a, str>,
    pub ds_type: Cow<'a, str>,
    pub step: i64,
}

/// The reply to `Graph.Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InfoReply<'a> {
    pub ds_type: Cow<'a, str>,
    pub step: i64,
    pub filename: Cow<'a, str>,
}

/// The reply to `Graph.Last` and `Graph.LastRaw`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastReply<'a> {
    pub endpoint: Cow<'a, str>,
    pub counter: Cow<'a, str>,
    pub timestamp: i64,
    pub value: f64,
}

const DATUM: [(Name, FieldKind); 2] = [(Name::Timestamp, FieldKind::Int), (Name::Value, FieldKind::Float)];

impl Replies {
    /// A reader that lets replies of up to `message_max` bytes through.
    pub fn new(message_max: usize) -> Replies {
        Replies { pairs: Pairs::new(message_max) }
    }

    /// The reply at the start of `input`; see [`super::Decoder::next`].
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(usize, Reply<'a>)>, GobError> {
        let Some((header, value, end)) = self.pairs.next(input)? else { return Ok(None) };
        let mut reply = Reply { method: Cow::Borrowed(""), seq: 0, error: Cow::Borrowed(""), input, value };
        let fields =
            [(Name::ServiceMethod, FieldKind::Text), (Name::Seq, FieldKind::Uint), (Name::Error, FieldKind::Text)];
        read_struct(&self.pairs.types, header, input, &fields, |name, _, reader| {
            match name {
                Name::ServiceMethod => reply.method = reader.text()?,
                Name::Seq => reply.seq = reader.uint()?,
                _ => reply.error = reader.text()?,
            }
            Ok(())
        })?;
        Ok(Some((end, reply)))
    }
}

impl<'a> Reply<'a> {
    /// The code of a `SimpleRpcResponse`.
    pub fn code(&self, replies: &Replies) -> Result<i64, GobError> {
        let mut code = 0;
        read_struct(&replies.pairs.types, self.value, self.input, &[(Name::Code, FieldKind::Int)], |_, _, reader| {
            code = reader.int()?;
            Ok(())
        })?;
        Ok(code)
    }

    /// The reply to `Graph.Query`; `each` gets its rows.
    pub fn graph_query(&self, replies: &Replies, each: &mut dyn FnMut(i64, f64)) -> Result<QueryReply<'a>, GobError> {
        let (types, mut reply) = (&replies.pairs.types, QueryReply::default());
        let fields = [
            (Name::Endpoint, FieldKind::Text),
            (Name::Counter, FieldKind::Text),
            (Name::DsType, FieldKind::Text),
            (Name::Step, FieldKind::Int),
            (Name::Values, FieldKind::Slice),
        ];
        read_struct(types, self.value, self.input, &fields, |name, type_id, reader| {
            match name {
                Name::Endpoint => reply.endpoint = reader.text()?,
                Name::Counter => reply.counter = reader.text()?,
                Name::DsType => reply.ds_type = reader.text()?,
                Name::Step => reply.step = reader.int()?,
                _ => {
                    let Some(Type::Slice(element)) = types.find(type_id) else {
                        return Err(reader.error("want a slice"));
                    };
                    let plan = Plan::compile(types, element, &DATUM, reader.rest().1)?;
                    for _ in 0..reader.count()? {
                        let (timestamp, value) = read_datum(&plan, replies, reader)?;
                        each(timestamp, value);
                    }
                }
            }
            Ok(())
        })?;
        Ok(reply)
    }

    /// The reply to `Graph.Info`.
    pub fn graph_info(&self, replies: &Replies) -> Result<InfoReply<'a>, GobError> {
        let mut reply = InfoReply::default();
        let fields =
            [(Name::ConsolFun, FieldKind::Text), (Name::Step, FieldKind::Int), (Name::Filename, FieldKind::Text)];
        read_struct(&replies.pairs.types, self.value, self.input, &fields, |name, _, reader| {
            match name {
                Name::ConsolFun => reply.ds_type = reader.text()?,
                Name::Step => reply.step = reader.int()?,
                _ => reply.filename = reader.text()?,
            }
            Ok(())
        })?;
        Ok(reply)
    }

    /// The reply to `Graph.Last` and `Graph.LastRaw`.
    pub fn graph_last(&self, replies: &Replies) -> Result<LastReply<'a>, GobError> {
        let mut reply = LastReply::default();
        let fields =
            [(Name::Endpoint, FieldKind::Text), (Name::Counter, FieldKind::Text), (Name::Value, FieldKind::Struct)];
        let types = &replies.pairs.types;
        read_struct(types, self.value, self.input, &fields, |name, type_id, reader| {
            match name {
                Name::Endpoint => reply.endpoint = reader.text()?,
                Name::Counter => reply.counter = reader.text()?,
                _ => {
                    let plan = Plan::compile(types, type_id, &DATUM, reader.rest().1)?;
                    (reply.timestamp, reply.value) = read_datum(&plan, replies, reader)?;
                }
            }
            Ok(())
        })?;
        Ok(reply)
    }
}

fn read_datum(plan: &Plan, replies: &Replies, reader: &mut super::value::Reader<'_>) -> Result<(i64, f64), GobError> {
    let (mut timestamp, mut value) = (0, 0.0);
    plan.read(&replies.pairs.types, reader, |name, _, reader| {
        match name {
            Name::Timestamp => timestamp = reader.int()?,
            _ => value = reader.float()?,
        }
        Ok(())
    })?;
    Ok((timestamp, value))
}
