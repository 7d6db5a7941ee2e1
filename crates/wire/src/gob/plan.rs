//! Plan: how the fields of a struct of the other side become ours.
//!
//! Why: fields match by name, but names stand in the definition only. Matching them once per call leaves a loop over
//! items that looks up a number.
//! How: the other side's field number leads to a [`Target`]: a field of ours with its type checked, or one to pass
//! over. A plan lives on the stack and is made anew for each call: some 50 ns, beside 200 items.
//! Compat: as in Go a field of ours that has another type there is an error, and so is a struct with fields of which
//! none is ours.

use super::GobError;
use super::types::{FIELDS_MAX, FLOAT, INT, Name, STRING, Type, Types, UINT, each_field};
use super::value::Reader;

/// The type that a field of ours must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    Text,
    Int,
    Uint,
    Float,
    /// `map[string]string`
    Tags,
    /// A struct, checked by who reads it.
    Struct,
    Slice,
}

impl FieldKind {
    fn fits(self, types: &Types, type_id: u32) -> bool {
        match self {
            FieldKind::Text => type_id == STRING,
            FieldKind::Int => type_id == INT,
            FieldKind::Uint => type_id == UINT,
            FieldKind::Float => type_id == FLOAT,
            FieldKind::Tags => matches!(types.find(type_id), Some(Type::Map(STRING, STRING))),
            FieldKind::Struct => matches!(types.find(type_id), Some(Type::Struct(..))),
            FieldKind::Slice => matches!(types.find(type_id), Some(Type::Slice(_))),
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            FieldKind::Text => "want a string",
            FieldKind::Int => "want a signed integer",
            FieldKind::Uint => "want an unsigned integer",
            FieldKind::Float => "want a float",
            FieldKind::Tags => "want a map[string]string",
            FieldKind::Struct => "want a struct",
            FieldKind::Slice => "want a slice",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Target {
    /// The field; [`Name::Unknown`] is passed over.
    name: Name,
    type_id: u32,
}

pub(super) struct Plan {
    targets: [Target; FIELDS_MAX],
    count: usize,
}

impl Plan {
    /// The plan for values of the struct `type_id`; `offset` is where the value stands, for errors.
    pub fn compile(types: &Types, type_id: u32, ours: &[(Name, FieldKind)], offset: usize) -> Result<Plan, GobError> {
        let error = |what, field| GobError { what, field, offset };
        let Some(Type::Struct(from, to)) = types.find(type_id) else {
            return Err(error("want a struct that was defined before", ""));
        };
        let fields = types.fields(from, to);
        let mut plan = Plan { targets: [Target { name: Name::Unknown, type_id: 0 }; FIELDS_MAX], count: fields.len() };
        let mut matched = fields.is_empty() || ours.is_empty();
        for (target, field) in plan.targets.iter_mut().zip(fields) {
            target.type_id = field.type_id;
            if let Some((name, kind)) = ours.iter().find(|(name, _)| *name == field.name) {
                if !kind.fits(types, field.type_id) {
                    return Err(error(kind.wanted(), name.as_str()));
                }
                target.name = *name;
                matched = true;
            }
        }
        if matched { Ok(plan) } else { Err(error("struct has none of the fields of this call", "")) }
    }

    /// Reads one struct: `read` gets each field of ours that is there, with its type, and must read its value.
    #[inline]
    pub fn read<'a>(
        &self,
        types: &Types,
        reader: &mut Reader<'a>,
        mut read: impl FnMut(Name, u32, &mut Reader<'a>) -> Result<(), GobError>,
    ) -> Result<(), GobError> {
        let targets = &self.targets[..self.count];
        each_field(reader, |number, reader| match targets.get(number) {
            Some(Target { name: Name::Unknown, type_id }) => types.skip(*type_id, reader),
            Some(target) => read(target.name, target.type_id, reader),
            None => Err(reader.error("field number is out of range")),
        })
    }
}
