//! Message: cuts a connection into pairs of values, a header and a body, each after the definitions of its types.
//!
//! How: messages carry their length, so one that is not complete costs a look at its first bytes, however often it is
//! asked for; types are taken in as soon as their message is here.
//! Invariants: a pair with its definitions never exceeds the limit; a longer one is refused from the announced length,
//! before its bytes are here. Where a pair ends does not depend on how the bytes were split.
//! Memory: the caller's buffer holds at most the limit (plus what it reads ahead), see [`super::types`] for the rest.

use super::GobError;
use super::types::Types;
use super::value::{Reader, message_count};

/// A value as it stands in its message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub type_id: u32,
    /// First byte of the value in the input, behind the type id.
    pub from: usize,
    pub to: usize,
}

impl Value {
    pub fn reader<'a>(&self, input: &'a [u8]) -> Reader<'a> {
        Reader::new(&input[self.from..self.to], self.from)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Pairs {
    pub types: Types,
    limit: usize,
    /// The input before this offset is taken in.
    looked: usize,
    header: Option<Value>,
}

impl Pairs {
    pub fn new(limit: usize) -> Pairs {
        Pairs { types: Types::default(), limit, looked: 0, header: None }
    }

    /// The pair at the start of `input` and where it ends. When it is not complete, the next call must be given the
    /// same bytes and more; after a pair, what follows it.
    pub fn next(&mut self, input: &[u8]) -> Result<Option<(Value, Value, usize)>, GobError> {
        while let Some((from, to)) = self.message(input)? {
            let mut reader = Reader::new(&input[from..to], from);
            let id = reader.int()?;
            if id < 0 {
                self.types.define(id.unsigned_abs(), &mut reader)?;
                self.looked = to;
                continue;
            }
            let type_id = u32::try_from(id).map_err(|_| reader.error("type id is out of range"))?;
            let value = Value { type_id, from: reader.rest().1, to };
            self.looked = to;
            if let Some(header) = self.header.take() {
                self.looked = 0;
                return Ok(Some((header, value, to)));
            }
            self.header = Some(value);
        }
        Ok(None)
    }

    /// The first byte and the end of the next message, without its count; none when the message is not complete.
    fn message(&self, input: &[u8]) -> Result<Option<(usize, usize)>, GobError> {
        let error = |what| GobError { what, field: "", offset: self.looked };
        let Some((count, width)) = input.get(self.looked..).map_or(Ok(None), message_count).map_err(error)? else {
            return Ok(None);
        };
        let from = self.looked + width;
        match usize::try_from(count).ok().and_then(|count| from.checked_add(count)) {
            Some(to) if to <= self.limit && count > 0 => Ok((to <= input.len()).then_some((from, to))),
            Some(_) if count == 0 => Err(error("empty message")),
            _ => Err(error("longer than the limit on messages; send smaller batches")),
        }
    }
}
