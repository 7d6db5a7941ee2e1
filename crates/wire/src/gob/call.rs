//! Call: a request of `net/rpc` and its argument, as the server sees it.
//!
//! How: [`Decoder::next`] finds a request; its argument stays as it came until the method, and with it what to read, is
//! known. An argument that nobody reads costs nothing.
//! Compat: as in Go's server, an error from [`Decoder::next`] ends the connection, while one from reading an argument
//! is answered as the call's error and the connection goes on; unknown methods get [`crate::jsonrpc::unknown_method`].

use super::GobError;
use super::message::{Pairs, Value};
use super::plan::{FieldKind, Plan};
use super::types::{Name, STRING, Type, Types};
use super::value::Reader;
use std::borrow::Cow;

/// Reads the requests of one connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    pairs: Pairs,
}

impl Decoder {
    /// A decoder that lets requests of up to `message_max` bytes through, with the definitions of their types.
    pub fn new(message_max: usize) -> Decoder {
        Decoder { pairs: Pairs::new(message_max) }
    }

    /// The request at the start of `input` and how many bytes to consume before the next call; none when it is not
    /// complete, when the next call must be given the same bytes and more. However it was split, each message is looked
    /// at once. After an error the connection has lost its frame or its types and must be closed.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(usize, Call<'a>)>, GobError> {
        let Some((header, argument, end)) = self.pairs.next(input)? else { return Ok(None) };
        let (mut method, mut seq): (&[u8], u64) = (b"", 0);
        let mut reader = header.reader(input);
        let fields = [(Name::ServiceMethod, FieldKind::Text), (Name::Seq, FieldKind::Uint)];
        let plan = Plan::compile(&self.pairs.types, header.type_id, &fields, header.from)?;
        plan.read(&self.pairs.types, &mut reader, |name, _, reader| {
            match name {
                Name::ServiceMethod => method = reader.bytes()?,
                _ => seq = reader.uint()?,
            }
            Ok(())
        })?;
        reader.end()?;
        let method = std::str::from_utf8(method).map_err(|_| GobError {
            what: "not UTF-8",
            field: Name::ServiceMethod.as_str(),
            offset: header.from,
        })?;
        Ok(Some((end, Call { method, seq, input, argument })))
    }

    /// Bytes held for this connection's types, for the memory ledger; at most about 22 KiB.
    pub fn memory_bytes(&self) -> usize {
        self.pairs.types.memory_bytes()
    }

    pub(super) fn types(&self) -> &Types {
        &self.pairs.types
    }
}

/// A request. The method of this type that fits `method` reads its argument, with the connection's decoder.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// `Service.Method`
    pub method: &'a str,
    /// Number of the request, sent back with the reply.
    pub seq: u64,
    input: &'a [u8],
    argument: Value,
}

/// The argument of `Graph.Query`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphQuery<'a> {
    pub start: i64,
    pub end: i64,
    /// `AVERAGE`, `MAX` or `MIN`.
    pub consol_fun: Cow<'a, str>,
    pub endpoint: Cow<'a, str>,
    pub counter: Cow<'a, str>,
    /// Step of the query, which the original ignores.
    pub step: i64,
}

/// The argument of `Graph.Info`, `Graph.Last` and `Graph.LastRaw`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphSeries<'a> {
    pub endpoint: Cow<'a, str>,
    pub counter: Cow<'a, str>,
}

/// One of the series that `Graph.Delete` names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphDelete<'a> {
    pub endpoint: Cow<'a, str>,
    pub metric: Cow<'a, str>,
    pub step: i64,
    pub ds_type: Cow<'a, str>,
    /// Tags as they were sent: `k=v,k2=v2`, neither sorted nor cleaned.
    pub tags: Cow<'a, str>,
}

impl<'a> Call<'a> {
    /// The argument of `Graph.Query`.
    pub fn graph_query(&self, decoder: &Decoder) -> Result<GraphQuery<'a>, GobError> {
        let mut query = GraphQuery::default();
        let fields = [
            (Name::Start, FieldKind::Int),
            (Name::End, FieldKind::Int),
            (Name::ConsolFun, FieldKind::Text),
            (Name::Endpoint, FieldKind::Text),
            (Name::Counter, FieldKind::Text),
            (Name::Step, FieldKind::Int),
        ];
        read_struct(decoder.types(), self.argument, self.input, &fields, |name, _, reader| {
            match name {
                Name::Start => query.start = reader.int()?,
                Name::End => query.end = reader.int()?,
                Name::ConsolFun => query.consol_fun = reader.text()?,
                Name::Endpoint => query.endpoint = reader.text()?,
                Name::Counter => query.counter = reader.text()?,
                _ => query.step = reader.int()?,
            }
            Ok(())
        })?;
        Ok(query)
    }

    /// The argument of `Graph.Info`, `Graph.Last` and `Graph.LastRaw`.
    pub fn graph_series(&self, decoder: &Decoder) -> Result<GraphSeries<'a>, GobError> {
        let mut series = GraphSeries::default();
        let fields = [(Name::Endpoint, FieldKind::Text), (Name::Counter, FieldKind::Text)];
        read_struct(decoder.types(), self.argument, self.input, &fields, |name, _, reader| {
            match name {
                Name::Endpoint => series.endpoint = reader.text()?,
                _ => series.counter = reader.text()?,
            }
            Ok(())
        })?;
        Ok(series)
    }

    /// The argument of `Graph.Delete`, one series after the other; those before an error have been handed out.
    pub fn graph_delete(&self, decoder: &Decoder, each: &mut dyn FnMut(GraphDelete<'a>)) -> Result<(), GobError> {
        let fields = [
            (Name::Endpoint, FieldKind::Text),
            (Name::Metric, FieldKind::Text),
            (Name::Step, FieldKind::Int),
            (Name::DsType, FieldKind::Text),
            (Name::Tags, FieldKind::Text),
        ];
        let (count, plan, mut reader) = self.list(decoder, &fields)?;
        for _ in 0..count {
            let mut delete = GraphDelete::default();
            plan.read(decoder.types(), &mut reader, |name, _, reader| {
                match name {
                    Name::Endpoint => delete.endpoint = reader.text()?,
                    Name::Metric => delete.metric = reader.text()?,
                    Name::Step => delete.step = reader.int()?,
                    Name::DsType => delete.ds_type = reader.text()?,
                    _ => delete.tags = reader.text()?,
                }
                Ok(())
            })?;
            each(delete);
        }
        reader.end()
    }

    /// An argument that is a string: that of `Graph.GetRrd`.
    pub fn text(&self) -> Result<Cow<'a, str>, GobError> {
        let mut reader = self.argument.reader(self.input);
        if self.argument.type_id != STRING {
            return Err(reader.error("want a string"));
        }
        bare(&mut reader)?;
        let text = reader.text()?;
        reader.end()?;
        Ok(text)
    }

    /// An argument that is a slice of structs: how many, the plan for each, and where the first begins.
    pub(super) fn list(
        &self,
        decoder: &Decoder,
        fields: &[(Name, FieldKind)],
    ) -> Result<(usize, Plan, Reader<'a>), GobError> {
        let mut reader = self.argument.reader(self.input);
        let Some(Type::Slice(element)) = decoder.types().find(self.argument.type_id) else {
            return Err(reader.error("want a slice of structs"));
        };
        let plan = Plan::compile(decoder.types(), element, fields, self.argument.from)?;
        bare(&mut reader)?;
        let count = reader.count()?;
        Ok((count, plan, reader))
    }
}

/// Reads a struct that stands alone in its message.
pub(super) fn read_struct<'a>(
    types: &Types,
    value: Value,
    input: &'a [u8],
    fields: &[(Name, FieldKind)],
    read: impl FnMut(Name, u32, &mut Reader<'a>) -> Result<(), GobError>,
) -> Result<(), GobError> {
    let mut reader = value.reader(input);
    Plan::compile(types, value.type_id, fields, value.from)?.read(types, &mut reader, read)?;
    reader.end()
}

/// Reads the 0 before a value that is no struct and stands alone.
fn bare(reader: &mut Reader<'_>) -> Result<(), GobError> {
    if reader.uint()? == 0 { Ok(()) } else { Err(reader.error("want 0 before a value that is no struct")) }
}
