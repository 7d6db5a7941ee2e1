//! JSON-RPC 1.0 as Go's `net/rpc/jsonrpc` speaks it, both sides of it.
//!
//! A request is `{"method":"Service.Method","params":[<one value>],"id":<any>}`, an answer
//! `{"id":<the same>,"result":<value>,"error":null}` or `{"id":…,"result":null,"error":"text"}`; Go writes a newline
//! after each. A message is what [`crate::Framer`] found.
//!
//! Invariants: `param` and `result` are only delimited and checked to be JSON here; who needs them decodes them. A
//! result is never null: Go's client takes that for a fault and drops the connection.
//! Compat: as Go's server and client do, field names match without case, unknown fields are ignored, of equal names the
//! last wins, any JSON value is echoed as id.

use crate::json::{self, JsonError, Kind, Reader, Scratch, Text, name_eq, push_integer, push_string};

/// A request, as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'m, 's> {
    /// `Service.Method`; empty when absent, which no service has as a name.
    pub method: &'s str,
    /// The id as raw JSON; `null` when absent.
    pub id: &'m [u8],
    /// The first of `params`, raw; `null` for an empty array, as Go leaves the argument at its zero value.
    pub param: Option<&'m [u8]>,
    /// Text to answer with when there is no `param`; else empty.
    pub param_fault: &'static str,
}

const NO_PARAMS: &str = "jsonrpc: request body missing params";
const NOT_AN_ARRAY: &str = "jsonrpc: params must be an array with one value";

/// Reads a request. An error means that the connection has lost its frame, or that `method` is no string; Go closes
/// the connection in both cases.
pub fn request<'m: 's, 's>(message: &'m [u8], scratch: &'s mut Scratch) -> Result<Request<'m, 's>, JsonError> {
    let (mut method, mut id, mut params): (_, &[u8], _) = (None, b"null", Err(NO_PARAMS));
    let mut reader = Reader::new(message);
    let mut name = reader.object()?;
    while let Some(text) = name {
        let field = text.resolve(scratch);
        if name_eq(field, "method") {
            method = string_or_null(&mut reader, "method must be a string")?.or(method);
        } else if name_eq(field, "id") {
            id = reader.skip()?;
        } else if name_eq(field, "params") {
            params = first_of_params(&mut reader)?;
        } else {
            reader.skip()?;
        }
        name = reader.next_field()?;
    }
    reader.end()?;
    let method = method.map_or("", |text| text.resolve(scratch));
    Ok(Request { method, id, param: params.ok(), param_fault: params.err().unwrap_or("") })
}

/// Reads a string; none for null, which in Go changes nothing.
fn string_or_null<'m>(reader: &mut Reader<'m>, what: &'static str) -> Result<Option<Text<'m>>, JsonError> {
    match reader.kind()? {
        Kind::String => reader.text().map(Some),
        Kind::Null => reader.skip().map(|_| None),
        _ => Err(JsonError { at: reader.at(), what }),
    }
}

/// Reads all of `params` and keeps the first; the inner error is for the sender, the connection goes on.
fn first_of_params<'m>(reader: &mut Reader<'m>) -> Result<Result<&'m [u8], &'static str>, JsonError> {
    let kind = reader.kind()?;
    if kind != Kind::Array {
        reader.skip()?;
        return Ok(Err(if kind == Kind::Null { NO_PARAMS } else { NOT_AN_ARRAY }));
    }
    if !reader.array()? {
        return Ok(Ok(b"null"));
    }
    let first = reader.skip()?;
    while reader.next_element()? {
        reader.skip()?;
    }
    Ok(Ok(first))
}

/// The error text of Go's server for a method that nobody serves; `services` are the names before the last dot that it
/// knows.
pub fn unknown_method(services: &[&str], method: &str) -> String {
    match method.rsplit_once('.') {
        None => format!("rpc: service/method request ill-formed: {method}"),
        Some((service, _)) if services.contains(&service) => format!("rpc: can't find method {method}"),
        Some(_) => format!("rpc: can't find service {method}"),
    }
}

/// Appends everything before a result; append the result's JSON (not null), then call [`end_result`].
pub fn begin_result(out: &mut Vec<u8>, id: &[u8]) {
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"result\":");
}

/// Appends everything behind a result.
pub fn end_result(out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"error\":null}\n");
}

/// Appends an answer with a result, which must not be null.
pub fn write_result(out: &mut Vec<u8>, id: &[u8], result_json: &[u8]) {
    debug_assert!(!json::is_null(result_json), "a Go client takes a null result for a fault");
    begin_result(out, id);
    out.extend_from_slice(result_json);
    end_result(out);
}

/// Appends an answer with an error.
pub fn write_error(out: &mut Vec<u8>, id: &[u8], text: &str) {
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"result\":null,\"error\":");
    push_string(out, text);
    out.extend_from_slice(b"}\n");
}

/// Appends everything before the parameter of a request; append its JSON, then call [`end_request`].
pub fn begin_request(out: &mut Vec<u8>, method: &str) {
    out.extend_from_slice(b"{\"method\":");
    push_string(out, method);
    out.extend_from_slice(b",\"params\":[");
}

/// Appends everything behind the parameter of a request.
pub fn end_request(out: &mut Vec<u8>, id: u64) {
    out.extend_from_slice(b"],\"id\":");
    // Go's client reads ids back as unsigned; ours count calls of one connection and never reach 2^63.
    push_integer(out, i64::try_from(id).unwrap_or(i64::MAX));
    out.extend_from_slice(b"}\n");
}

/// Appends a request.
pub fn write_request(out: &mut Vec<u8>, method: &str, id: u64, param_json: &[u8]) {
    begin_request(out, method);
    out.extend_from_slice(param_json);
    end_request(out, id);
}

/// An answer, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'m> {
    /// The call that is answered; none where a server could not read the call, and says so in `error`.
    pub id: Option<u64>,
    /// The result as raw JSON; `null` when `error` is set, or when a server broke the rules.
    pub result: &'m [u8],
    pub error: Option<String>,
}

/// Reads an answer.
pub fn response<'m>(message: &'m [u8], scratch: &mut Scratch) -> Result<Response<'m>, JsonError> {
    let (mut id, mut result, mut error): (Option<&[u8]>, &[u8], &[u8]) = (None, b"null", b"null");
    json::fields(message, scratch, |name, value| {
        if name_eq(name, "id") {
            id = Some(value);
        } else if name_eq(name, "result") {
            result = value;
        } else if name_eq(name, "error") {
            error = value;
        }
    })?;
    let id = id.and_then(json::integer).and_then(|id| u64::try_from(id).ok());
    if id.is_none() && error == b"null" {
        return Err(JsonError { at: 0, what: "id must be an unsigned integer" });
    }
    let error = (error != b"null").then(|| match json::string(error, scratch) {
        Some(text) => text.to_string(),
        None => String::from_utf8_lossy(error).into_owned(),
    });
    Ok(Response { id, result, error })
}

#[cfg(test)]
mod tests;
