//! Describe: the types that we send, and which of them this connection knows already.
//!
//! How: ids are given in the order in which a Go program gives them that speaks on one connection only: a struct
//! before its fields, a slice or map behind its elements. Definitions go out from the outermost inwards. So what
//! we send is, byte for byte, what the original would send (`tests/gob_recorded.rs`).

use super::types::{FIRST_USER_ID, FLOAT, INT, STRING, UINT};
use super::write::{Fields, push_int, push_message, push_text, push_uint};

/// A type that we send. Names are Go's; nothing depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Shape {
    Response,
    SimpleRpcResponse,
    GraphQueryResponse,
    RrdData,
    RrdDataList,
    GraphInfoResp,
    GraphLastResp,
    GraphDeleteResp,
    /// The reply beside an error.
    Nothing,
    Request,
    NullRpcRequest,
    GraphQueryParam,
    GraphInfoParam,
    GraphLastParam,
    GraphDeleteParam,
    GraphDeleteList,
    GraphItem,
    GraphItemList,
    JudgeItem,
    JudgeItemList,
    P8sItem,
    P8sItemList,
    Tags,
}

const SHAPES: usize = Shape::Tags as usize + 1;

#[derive(Clone, Copy)]
enum FieldShape {
    Int,
    Uint,
    Float,
    Text,
    Shape(Shape),
}

enum Definition {
    Struct(&'static [(&'static str, FieldShape)]),
    Slice(Shape),
    /// `map[string]string`
    Map,
}

impl Shape {
    fn body(self) -> (&'static str, Definition) {
        use FieldShape::{Float, Int, Text, Uint};
        match self {
            Shape::Response => {
                ("Response", Definition::Struct(&[("ServiceMethod", Text), ("Seq", Uint), ("Error", Text)]))
            }
            Shape::SimpleRpcResponse => ("SimpleRpcResponse", Definition::Struct(&[("Code", Int)])),
            Shape::GraphQueryResponse => (
                "GraphQueryResponse",
                Definition::Struct(&[
                    ("Endpoint", Text),
                    ("Counter", Text),
                    ("DsType", Text),
                    ("Step", Int),
                    ("Values", FieldShape::Shape(Shape::RrdDataList)),
                ]),
            ),
            Shape::RrdData => ("", Definition::Struct(&[("Timestamp", Int), ("Value", Float)])),
            Shape::RrdDataList => ("[]*model.RRDData", Definition::Slice(Shape::RrdData)),
            Shape::GraphInfoResp => {
                ("GraphInfoResp", Definition::Struct(&[("ConsolFun", Text), ("Step", Int), ("Filename", Text)]))
            }
            Shape::GraphLastResp => (
                "GraphLastResp",
                Definition::Struct(&[
                    ("Endpoint", Text),
                    ("Counter", Text),
                    ("Value", FieldShape::Shape(Shape::RrdData)),
                ]),
            ),
            Shape::GraphDeleteResp => ("GraphDeleteResp", Definition::Struct(&[])),
            Shape::Nothing => ("", Definition::Struct(&[])),
            Shape::Request => ("Request", Definition::Struct(&[("ServiceMethod", Text), ("Seq", Uint)])),
            Shape::NullRpcRequest => ("NullRpcRequest", Definition::Struct(&[])),
            Shape::GraphQueryParam => (
                "GraphQueryParam",
                Definition::Struct(&[
                    ("Start", Int),
                    ("End", Int),
                    ("ConsolFun", Text),
                    ("Endpoint", Text),
                    ("Counter", Text),
                    ("Step", Int),
                ]),
            ),
            Shape::GraphInfoParam => ("GraphInfoParam", Definition::Struct(&[("Endpoint", Text), ("Counter", Text)])),
            Shape::GraphLastParam => ("GraphLastParam", Definition::Struct(&[("Endpoint", Text), ("Counter", Text)])),
            Shape::GraphDeleteParam => (
                "",
                Definition::Struct(&[
                    ("Endpoint", Text),
                    ("Metric", Text),
                    ("Step", Int),
                    ("DsType", Text),
                    ("Tags", Text),
                ]),
            ),
            Shape::GraphDeleteList => ("", Definition::Slice(Shape::GraphDeleteParam)),
            Shape::GraphItem => (
                "",
                Definition::Struct(&[
                    ("Endpoint", Text),
                    ("Metric", Text),
                    ("Tags", FieldShape::Shape(Shape::Tags)),
                    ("Value", Float),
                    ("Timestamp", Int),
                    ("DsType", Text),
                    ("Step", Int),
                    ("Heartbeat", Int),
                    ("Min", Text),
                    ("Max", Text),
                ]),
            ),
            Shape::GraphItemList => ("", Definition::Slice(Shape::GraphItem)),
            Shape::JudgeItem => (
                "",
                Definition::Struct(&[
                    ("Endpoint", Text),
                    ("Metric", Text),
                    ("Value", Float),
                    ("Timestamp", Int),
                    ("JudgeType", Text),
                    ("Tags", FieldShape::Shape(Shape::Tags)),
                ]),
            ),
            Shape::JudgeItemList => ("", Definition::Slice(Shape::JudgeItem)),
            Shape::P8sItem => (
                "",
                Definition::Struct(&[
                    ("Endpoint", Text),
                    ("Metric", Text),
                    ("Tags", FieldShape::Shape(Shape::Tags)),
                    ("Value", Float),
                    ("Timestamp", Int),
                    ("MetricType", Text),
                    ("Step", Int),
                ]),
            ),
            Shape::P8sItemList => ("", Definition::Slice(Shape::P8sItem)),
            Shape::Tags => ("map[string]string", Definition::Map),
        }
    }
}

/// The types that the other side knows.
#[derive(Clone, Debug)]
pub(super) struct Described {
    /// Ids by shape; 0 until one is given.
    ids: [u8; SHAPES],
    sent: [bool; SHAPES],
    next_id: u8,
}

// Every id fits into the byte in which it is kept.
const _: () = assert!(FIRST_USER_ID as usize + SHAPES < 256);

impl Described {
    pub fn new() -> Described {
        Described { ids: [0; SHAPES], sent: [false; SHAPES], next_id: FIRST_USER_ID as u8 }
    }

    /// Appends a value of `shape` in a message of its own, behind the definitions that are still missing. `write`
    /// appends the value without its type.
    pub fn push_value(&mut self, out: &mut Vec<u8>, shape: Shape, write: impl FnOnce(&mut Vec<u8>)) {
        self.give_id(shape);
        self.define(out, shape);
        let id = self.id(shape);
        push_message(out, |out| {
            push_int(out, id);
            write(out);
        });
    }

    fn id(&self, shape: Shape) -> i64 {
        i64::from(self.ids[shape as usize])
    }

    fn give_id(&mut self, shape: Shape) {
        if self.ids[shape as usize] != 0 {
            return;
        }
        let take = |described: &mut Described| {
            described.ids[shape as usize] = described.next_id;
            described.next_id += 1;
        };
        match shape.body().1 {
            Definition::Struct(fields) => {
                take(self);
                for (_, of) in fields {
                    if let FieldShape::Shape(inner) = of {
                        self.give_id(*inner);
                    }
                }
            }
            Definition::Slice(element) => {
                self.give_id(element);
                take(self);
            }
            Definition::Map => take(self),
        }
    }

    fn define(&mut self, out: &mut Vec<u8>, shape: Shape) {
        if std::mem::replace(&mut self.sent[shape as usize], true) {
            return;
        }
        let (name, body) = shape.body();
        push_message(out, |out| self.push_definition(out, shape, name, &body));
        match body {
            Definition::Struct(fields) => {
                for (_, of) in fields {
                    if let FieldShape::Shape(inner) = of {
                        self.define(out, *inner);
                    }
                }
            }
            Definition::Slice(element) => self.define(out, element),
            Definition::Map => {}
        }
    }

    /// Appends Go's `wireType`: one field, by the kind of the type, with `CommonType{Name, Id}` as its first.
    fn push_definition(&self, out: &mut Vec<u8>, shape: Shape, name: &str, body: &Definition) {
        let id = self.id(shape);
        push_int(out, -id);
        let mut wire_type = Fields::new(out);
        let kind = match body {
            Definition::Slice(_) => 1,
            Definition::Struct(_) => 2,
            Definition::Map => 3,
        };
        let mut one = Fields::new(wire_type.begin(kind));
        Fields::new(one.begin(0)).text(0, name).int(1, id).end();
        match body {
            Definition::Slice(element) => one.int(1, self.id(*element)),
            Definition::Map => one.int(1, STRING.into()).int(2, STRING.into()),
            Definition::Struct(fields) if !fields.is_empty() => {
                let out = one.begin(1);
                push_uint(out, fields.len() as u64);
                for (name, of) in *fields {
                    Fields::new(out).text(0, name).int(1, self.id_of(*of)).end();
                }
                &mut one
            }
            Definition::Struct(_) => &mut one,
        }
        .end();
        wire_type.end();
    }

    fn id_of(&self, of: FieldShape) -> i64 {
        match of {
            FieldShape::Int => INT.into(),
            FieldShape::Uint => UINT.into(),
            FieldShape::Float => FLOAT.into(),
            FieldShape::Text => STRING.into(),
            FieldShape::Shape(shape) => self.id(shape),
        }
    }
}

/// Appends a string in a message of its own.
pub(super) fn push_text_value(out: &mut Vec<u8>, text: &str) {
    push_message(out, |out| {
        push_int(out, STRING.into());
        out.push(0);
        push_text(out, text);
    });
}
