//! Types: what the other side has defined on this connection, and how values of it are passed over.
//!
//! Why: gob describes each type once and then sends bare values; to pass over a field nobody asked for, its type must
//! be known.
//! How: a definition becomes a few numbers. Only those field names are kept that Open-Falcon's messages
//! have, as [`Name`]. A type may name others that are defined later; they are looked up when a value is read.
//! Memory: at most [`TYPES_MAX`] types and [`ALL_FIELDS_MAX`] fields, about 22 KiB, per connection; the real programs
//! define six types.

use super::GobError;
use super::value::Reader;

/// Types that one connection may define. A Go program sends those that it uses here, fifteen at most.
pub const TYPES_MAX: usize = 256;
/// Fields of one struct; `GraphItem` has ten.
pub const FIELDS_MAX: usize = 64;
/// Fields of all structs of one connection.
pub(super) const ALL_FIELDS_MAX: usize = 2048;
/// Levels of structs, slices and maps inside a value that is passed over.
pub const DEPTH_MAX: u32 = 32;

pub(super) const BOOL: u32 = 1;
pub(super) const INT: u32 = 2;
pub(super) const UINT: u32 = 3;
pub(super) const FLOAT: u32 = 4;
pub(super) const BYTES: u32 = 5;
pub(super) const STRING: u32 = 6;
const COMPLEX: u32 = 7;
const INTERFACE: u32 = 8;
/// The first id that is not Go's own.
pub(super) const FIRST_USER_ID: u32 = 64;

/// Fields of Open-Falcon's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Name {
    Unknown,
    Code,
    ConsolFun,
    Counter,
    DsType,
    End,
    Endpoint,
    Error,
    Filename,
    Heartbeat,
    JudgeType,
    Max,
    Metric,
    MetricType,
    Min,
    Seq,
    ServiceMethod,
    Start,
    Step,
    Tags,
    Timestamp,
    Value,
    Values,
}

const NAMES: [(&str, Name); 22] = [
    ("Code", Name::Code),
    ("ConsolFun", Name::ConsolFun),
    ("Counter", Name::Counter),
    ("DsType", Name::DsType),
    ("End", Name::End),
    ("Endpoint", Name::Endpoint),
    ("Error", Name::Error),
    ("Filename", Name::Filename),
    ("Heartbeat", Name::Heartbeat),
    ("JudgeType", Name::JudgeType),
    ("Max", Name::Max),
    ("Metric", Name::Metric),
    ("MetricType", Name::MetricType),
    ("Min", Name::Min),
    ("Seq", Name::Seq),
    ("ServiceMethod", Name::ServiceMethod),
    ("Start", Name::Start),
    ("Step", Name::Step),
    ("Tags", Name::Tags),
    ("Timestamp", Name::Timestamp),
    ("Value", Name::Value),
    ("Values", Name::Values),
];

impl Name {
    fn parse(name: &[u8]) -> Name {
        NAMES.iter().find(|(known, _)| known.as_bytes() == name).map_or(Name::Unknown, |(_, name)| *name)
    }

    pub fn as_str(self) -> &'static str {
        NAMES.iter().find(|(_, name)| *name == self).map_or("", |(text, _)| text)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub name: Name,
    pub type_id: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Type {
    /// A struct whose fields stand from here to there in the table.
    Struct(u16, u16),
    Slice(u32),
    /// An array: its element and length.
    Array(u32, u64),
    /// A map: its key and element.
    Map(u32, u32),
    /// A type with an encoding of its own (GobEncoder and the like): sent as bytes.
    Opaque,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Types {
    /// Types in order of their ids.
    types: Vec<(u32, Type)>,
    fields: Vec<Field>,
}

impl Types {
    pub fn find(&self, id: u32) -> Option<Type> {
        let at = self.types.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.types[at].1)
    }

    pub fn fields(&self, from: u16, to: u16) -> &[Field] {
        &self.fields[usize::from(from)..usize::from(to)]
    }

    pub fn memory_bytes(&self) -> usize {
        self.types.capacity() * size_of::<(u32, Type)>() + self.fields.capacity() * size_of::<Field>()
    }

    /// Reads the description that follows `int(-id)` up to the end of its message.
    pub fn define(&mut self, id: u64, reader: &mut Reader<'_>) -> Result<(), GobError> {
        let id = u32::try_from(id).ok().filter(|id| *id >= FIRST_USER_ID && *id <= i32::MAX as u32);
        let id = id.ok_or_else(|| reader.error("type id is out of range"))?;
        let Err(place) = self.types.binary_search_by_key(&id, |(id, _)| *id) else {
            return Err(reader.error("type is defined twice"));
        };
        if self.types.len() == TYPES_MAX {
            return Err(reader.error("more than 256 types on one connection"));
        }
        let mut defined = None;
        each_field(reader, |number, reader| {
            let one = self.description(number, reader)?;
            if defined.replace(one).is_some() { Err(reader.error("type is of two kinds")) } else { Ok(()) }
        })?;
        reader.end()?;
        let defined = defined.ok_or_else(|| reader.error("type is of no kind"))?;
        self.types.insert(place, (id, defined));
        Ok(())
    }

    /// Reads one field of Go's `wireType`; its number says what kind of type it is.
    fn description(&mut self, kind: usize, reader: &mut Reader<'_>) -> Result<Type, GobError> {
        let (from, mut a, mut b) = (self.fields.len(), 0, 0);
        each_field(reader, |number, reader| {
            match (kind, number) {
                (_, 0) => common(reader)?,
                (2, 1) => self.struct_fields(reader)?,
                (0, 2) => b = reader.int()?,
                (3, 2) => b = i64::from(type_id(reader)?),
                (0 | 1 | 3, 1) => a = type_id(reader)?,
                _ => return Err(reader.error("unknown field in a type definition")),
            }
            Ok(())
        })?;
        let missing = reader.error("type definition names no element type");
        let element = if a == 0 { Err(missing) } else { Ok(a) };
        Ok(match kind {
            0 => Type::Array(element?, u64::try_from(b).map_err(|_| reader.error("array of negative length"))?),
            1 => Type::Slice(element?),
            2 => Type::Struct(from as u16, self.fields.len() as u16),
            3 if b == 0 => return Err(missing),
            3 => Type::Map(element?, b as u32),
            4..=6 => Type::Opaque,
            _ => return Err(reader.error("unknown kind of type")),
        })
    }

    fn struct_fields(&mut self, reader: &mut Reader<'_>) -> Result<(), GobError> {
        let count = reader.count()?;
        if count > FIELDS_MAX {
            return Err(reader.error("struct of more than 64 fields"));
        }
        if self.fields.len() + count > ALL_FIELDS_MAX {
            return Err(reader.error("more than 2048 fields on one connection"));
        }
        for _ in 0..count {
            let mut field = Field { name: Name::Unknown, type_id: 0 };
            each_field(reader, |number, reader| {
                match number {
                    0 => field.name = Name::parse(reader.bytes()?),
                    1 => field.type_id = type_id(reader)?,
                    _ => return Err(reader.error("unknown field in a type definition")),
                }
                Ok(())
            })?;
            if field.type_id == 0 {
                return Err(reader.error("field without a type"));
            }
            self.fields.push(field);
        }
        Ok(())
    }

    /// Passes over a value.
    pub fn skip(&self, type_id: u32, reader: &mut Reader<'_>) -> Result<(), GobError> {
        self.skip_nested(type_id, reader, DEPTH_MAX)
    }

    /// Every call reads at least one byte, so the work is linear in the message.
    fn skip_nested(&self, type_id: u32, reader: &mut Reader<'_>, depth: u32) -> Result<(), GobError> {
        match type_id {
            BOOL | INT | UINT | FLOAT => drop(reader.uint()?),
            BYTES | STRING => drop(reader.bytes()?),
            COMPLEX => drop((reader.uint()?, reader.uint()?)),
            INTERFACE if reader.uint()? == 0 => {}
            INTERFACE => return Err(reader.error("value of an interface type; want a plain type")),
            _ => {
                let depth =
                    depth.checked_sub(1).ok_or_else(|| reader.error("value is nested deeper than 32 levels"))?;
                let found = self.find(type_id).ok_or_else(|| reader.error("value of a type that was not defined"))?;
                self.skip_composite(found, reader, depth)?;
            }
        }
        Ok(())
    }

    fn skip_composite(&self, of: Type, reader: &mut Reader<'_>, depth: u32) -> Result<(), GobError> {
        match of {
            Type::Opaque => drop(reader.bytes()?),
            Type::Struct(from, to) => {
                let fields = self.fields(from, to);
                each_field(reader, |number, reader| match fields.get(number) {
                    Some(field) => self.skip_nested(field.type_id, reader, depth),
                    None => Err(reader.error("field number is out of range")),
                })?;
            }
            Type::Array(element, length) => {
                let count = reader.count()?;
                if count as u64 != length {
                    return Err(reader.error("array of another length than its type"));
                }
                (0..count).try_for_each(|_| self.skip_nested(element, reader, depth))?;
            }
            Type::Slice(element) => {
                let count = reader.count()?;
                (0..count).try_for_each(|_| self.skip_nested(element, reader, depth))?;
            }
            Type::Map(key, element) => {
                let count = reader.count()?;
                (0..count).try_for_each(|_| {
                    self.skip_nested(key, reader, depth)?;
                    self.skip_nested(element, reader, depth)
                })?;
            }
        }
        Ok(())
    }
}

/// Reads a struct: `read` gets the number of each field that is there, ascending, and must read its value.
#[inline]
pub(super) fn each_field<'a>(
    reader: &mut Reader<'a>,
    mut read: impl FnMut(usize, &mut Reader<'a>) -> Result<(), GobError>,
) -> Result<(), GobError> {
    // The number of the next field if its difference is 1.
    let mut next = 0;
    loop {
        let difference = reader.uint()?;
        if difference == 0 {
            return Ok(());
        }
        if difference > FIELDS_MAX as u64 {
            return Err(reader.error("field number is out of range"));
        }
        // No overflow: at most one step per byte of the message, each of at most 64.
        let number = next + difference as usize - 1;
        read(number, reader)?;
        next = number + 1;
    }
}

/// Passes over Go's `CommonType{Name, Id}`, which only repeats what is known.
fn common(reader: &mut Reader<'_>) -> Result<(), GobError> {
    each_field(reader, |number, reader| match number {
        0 => reader.bytes().map(drop),
        1 => reader.int().map(drop),
        _ => Err(reader.error("unknown field in a type definition")),
    })
}

fn type_id(reader: &mut Reader<'_>) -> Result<u32, GobError> {
    let id = reader.int()?;
    match u32::try_from(id) {
        Ok(id) if id > 0 && id <= i32::MAX as u32 => Ok(id),
        _ => Err(reader.error("type id is out of range")),
    }
}
