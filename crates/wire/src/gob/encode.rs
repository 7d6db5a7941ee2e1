//! Encode: the replies of judge and graph.
//!
//! How: each method appends one answer, the header and the reply, to the caller's buffer. Answers may go out in any
//! order; `seq` links them to their requests. But every answer of a connection must be made by its one [`Encoder`] and
//! sent in the order in which they were made, since a definition stands only before the first use.
//! Compat: as Go's server does, an error comes with an empty struct in place of the reply.

use super::describe::{Described, Shape};
use super::write::{Fields, push_uint};

/// Writes the answers of one connection.
#[derive(Clone, Debug)]
pub struct Encoder {
    described: Described,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder::new()
    }
}

/// The reply to `Graph.Query`, beside its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct QueryHead<'a> {
    pub endpoint: &'a str,
    pub counter: &'a str,
    /// `GAUGE` or `DERIVE`; empty for a series that nobody knows.
    pub ds_type: &'a str,
    pub step: i64,
}

impl Encoder {
    /// An encoder of a connection on which no type is described yet.
    pub fn new() -> Encoder {
        Encoder { described: Described::new() }
    }

    /// Answers `Judge.Send`, `Graph.Send` and the pings with `SimpleRpcResponse{Code}`.
    pub fn simple(&mut self, out: &mut Vec<u8>, method: &str, seq: u64, code: i64) {
        self.header(out, method, seq, "");
        self.described.push_value(out, Shape::SimpleRpcResponse, |out| Fields::new(out).int(0, code).end());
    }

    /// Answers `Graph.Query` with rows of time and value, NaN where nothing is known.
    pub fn graph_query(
        &mut self,
        out: &mut Vec<u8>,
        method: &str,
        seq: u64,
        head: &QueryHead<'_>,
        values: impl ExactSizeIterator<Item = (i64, f64)>,
    ) {
        self.header(out, method, seq, "");
        self.described.push_value(out, Shape::GraphQueryResponse, |out| {
            let mut fields = Fields::new(out);
            fields.text(0, head.endpoint).text(1, head.counter).text(2, head.ds_type).int(3, head.step);
            if values.len() > 0 {
                let out = fields.begin(4);
                push_uint(out, values.len() as u64);
                for (timestamp, value) in values {
                    Fields::new(out).int(0, timestamp).float(1, value).end();
                }
            }
            fields.end();
        });
    }

    /// Answers `Graph.Info` with type, step and RRD file of a series; empty for one that nobody knows.
    pub fn graph_info(&mut self, out: &mut Vec<u8>, method: &str, seq: u64, ds_type: &str, step: i64, filename: &str) {
        self.header(out, method, seq, "");
        self.described.push_value(out, Shape::GraphInfoResp, |out| {
            Fields::new(out).text(0, ds_type).int(1, step).text(2, filename).end();
        });
    }

    /// Answers `Graph.Last` and `Graph.LastRaw` with a point; time 0 and value 0 when there is none.
    pub fn graph_last(
        &mut self,
        out: &mut Vec<u8>,
        method: &str,
        seq: u64,
        endpoint: &str,
        counter: &str,
        (timestamp, value): (i64, f64),
    ) {
        self.header(out, method, seq, "");
        self.described.push_value(out, Shape::GraphLastResp, |out| {
            let mut fields = Fields::new(out);
            fields.text(0, endpoint).text(1, counter);
            // A pointer that is set is sent, also to zeros.
            Fields::new(fields.begin(2)).int(0, timestamp).float(1, value).end();
            fields.end();
        });
    }

    /// Answers `Graph.Delete`, with nothing.
    pub fn graph_delete(&mut self, out: &mut Vec<u8>, method: &str, seq: u64) {
        self.header(out, method, seq, "");
        self.described.push_value(out, Shape::GraphDeleteResp, |out| Fields::new(out).end());
    }

    /// Answers with an error; an empty `text` would read as success.
    pub fn error(&mut self, out: &mut Vec<u8>, method: &str, seq: u64, text: &str) {
        debug_assert!(!text.is_empty(), "an empty error is none");
        self.header(out, method, seq, text);
        self.described.push_value(out, Shape::Nothing, |out| Fields::new(out).end());
    }

    fn header(&mut self, out: &mut Vec<u8>, method: &str, seq: u64, error: &str) {
        self.described.push_value(out, Shape::Response, |out| {
            Fields::new(out).text(0, method).uint(1, seq).text(2, error).end();
        });
    }
}
