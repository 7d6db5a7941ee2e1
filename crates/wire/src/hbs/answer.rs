//! Answer: what an hbs says to `Hbs.GetStrategies` or `Hbs.GetExpressions`, read while it comes in.
//!
//! Why: the answer for 1,000 hosts with 80 strategies each has 26 MB; the original holds all of it, then a tree of it,
//! then its own maps of that. How: a state machine over the few levels that the answer has (answer → result → hosts →
//! strategies). A strategy, an expression and every value that is passed over are taken whole, as text; a strategy goes
//! to [`KnownRules`] and is forgotten.
//! Invariants: what comes out depends on the bytes alone, never on how they were cut (fuzzed); names are taken in
//! any order and any case, as in Go; no rule that comes in is in effect before the caller finishes the pass.
//! Memory: one buffer of at most [`AnswerLimits::rule_bytes`](super::AnswerLimits) and [`PIECE`].

use super::error::AnswerError;
use super::known::KnownRules;
use crate::frame::{FrameError, Framer};
use crate::json::{self, JsonError, Kind, Reader, Scratch, name_eq};
use std::ops::Range;

/// Bytes that are put behind what is not read yet, at a time.
const PIECE: usize = 16 << 10;

/// A longer error text of an hbs is cut.
const ERROR_TEXT_MAX: usize = 512;

/// The two calls whose answers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Strategies,
    Expressions,
}

impl Call {
    /// Name of the method on the wire.
    pub fn method(self) -> &'static str {
        match self {
            Call::Strategies => "Hbs.GetStrategies",
            Call::Expressions => "Hbs.GetExpressions",
        }
    }

    /// The field of the result that holds the list.
    fn list(self) -> &'static str {
        match self {
            Call::Strategies => "hostStrategies",
            Call::Expressions => "expressions",
        }
    }
}

/// Progress of an answer that comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The answer goes on.
    More,
    /// The answer is whole; white space may follow.
    Done,
}

/// The object in which names and values stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Answer,
    Result,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Hosts,
    Strategies,
    Expressions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Result,
    Error,
    /// The list that was asked for.
    Rules,
    Hostname,
    Strategies,
    Other,
}

/// The token that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Begin,
    FirstName(Level),
    Name(Level),
    Colon(Level, Field),
    Value(Level, Field),
    AfterValue(Level),
    FirstElement(List),
    Element(List),
    AfterElement(List),
    End,
    Failed,
}

/// A value that is taken whole: how far it was looked at, counted from its first byte.
#[derive(Clone, Debug)]
enum Taking {
    Nothing,
    Text { looked: usize, escaped: bool },
    Nested(Framer),
    Word { looked: usize },
}

/// Reads the answers of one connection, one after the other.
pub struct AnswerReader {
    call: Call,
    id: u64,
    next: Next,
    taking: Taking,
    /// Bytes that came in; those before `at` are read.
    buffer: Vec<u8>,
    at: usize,
    /// Bytes before the buffer.
    before: u64,
    names: Scratch,
    hostname: String,
    host_fault: Option<&'static str>,
    got_id: Option<i64>,
    error: Option<String>,
    has_rules: bool,
}

impl AnswerReader {
    /// A reader that expects nothing yet.
    pub fn new() -> AnswerReader {
        AnswerReader {
            call: Call::Strategies,
            id: 0,
            next: Next::Failed,
            taking: Taking::Nothing,
            buffer: Vec::new(),
            at: 0,
            before: 0,
            names: Scratch::new(),
            hostname: String::new(),
            host_fault: None,
            got_id: None,
            error: None,
            has_rules: false,
        }
    }

    /// Expects the answer to `call` that was sent with `id`. Buffers are kept.
    pub fn begin(&mut self, call: Call, id: u64) {
        self.buffer.clear();
        let kept = std::mem::take(self);
        let AnswerReader { buffer, names, hostname, .. } = kept;
        *self = AnswerReader { call, id, next: Next::Begin, buffer, names, hostname, ..AnswerReader::new() };
    }

    /// Takes the bytes that came next. After an error, and for the next answer, `begin` must be called.
    pub fn feed(&mut self, bytes: &[u8], known: &mut KnownRules) -> Result<Progress, AnswerError> {
        let result = self.feed_pieces(bytes, known);
        if result.is_err() {
            self.next = Next::Failed;
        }
        result
    }

    fn feed_pieces(&mut self, bytes: &[u8], known: &mut KnownRules) -> Result<Progress, AnswerError> {
        let limit = known.limits().answer_bytes;
        // Bytes behind the limit are not looked at: whether they are here yet depends on the cut.
        let fed = self.before + self.buffer.len() as u64;
        let room = usize::try_from(limit.saturating_sub(fed)).unwrap_or(usize::MAX).min(bytes.len());
        for piece in bytes[..room].chunks(PIECE) {
            self.buffer.extend_from_slice(piece);
            while self.step(known)? {}
            self.before += self.at as u64;
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        if room < bytes.len() {
            return Err(AnswerError::Limit { what: "bytes", limit });
        }
        Ok(if self.next == Next::End { Progress::Done } else { Progress::More })
    }

    /// Reads one token; false when it is not here yet.
    fn step(&mut self, known: &mut KnownRules) -> Result<bool, AnswerError> {
        let Some(byte) = self.peek() else { return Ok(false) };
        let what = match (self.next, byte) {
            (Next::Begin, b'{') => return self.past(Next::FirstName(Level::Answer)),
            (Next::Begin, _) => "an answer begins with {",
            (Next::FirstName(level), b'}') | (Next::AfterValue(level), b'}') => return self.end_of(level, known),
            (Next::FirstName(level) | Next::Name(level), b'"') => return self.name(level, known),
            (Next::FirstName(_) | Next::Name(_), _) => "a name must stand here",
            (Next::Colon(level, field), b':') => return self.past(Next::Value(level, field)),
            (Next::Colon(..), _) => "a colon must stand here",
            (Next::AfterValue(level), b',') => return self.past(Next::Name(level)),
            (Next::AfterValue(_), _) => "a comma or } must stand here",
            (Next::FirstElement(list), b']') | (Next::AfterElement(list), b']') => return self.end_of_list(list),
            (Next::AfterElement(list), b',') => return self.past(Next::Element(list)),
            (Next::AfterElement(_), _) => "a comma or ] must stand here",
            (Next::FirstElement(list) | Next::Element(list), _) => return self.element(list, byte, known),
            (Next::Value(level, field), _) => return self.value(level, field, byte, known),
            (Next::End, _) => "nothing may follow the answer",
            (Next::Failed, _) => "no answer is expected here",
        };
        self.broken(0, what)
    }

    /// Skips white space and returns the byte behind it.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.buffer.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    fn past(&mut self, next: Next) -> Result<bool, AnswerError> {
        self.at += 1;
        self.next = next;
        Ok(true)
    }

    fn broken<T>(&self, offset: usize, what: &'static str) -> Result<T, AnswerError> {
        Err(AnswerError::Json { at: self.before + (self.at + offset) as u64, what })
    }

    fn name(&mut self, level: Level, known: &KnownRules) -> Result<bool, AnswerError> {
        let Some(range) = self.take(known.limits().rule_bytes, "bytes in a name")? else { return Ok(false) };
        let raw = &self.buffer[range.clone()];
        let text = Reader::new(raw).text().map_err(|error| at(self.before, range.start, error))?;
        let name = text.resolve(&mut self.names);
        let field = match level {
            Level::Answer if name_eq(name, "id") => Field::Id,
            Level::Answer if name_eq(name, "result") => Field::Result,
            Level::Answer if name_eq(name, "error") => Field::Error,
            Level::Result if name_eq(name, self.call.list()) => Field::Rules,
            Level::Host if name_eq(name, "hostname") => Field::Hostname,
            Level::Host if name_eq(name, "strategies") => Field::Strategies,
            _ => Field::Other,
        };
        self.next = Next::Colon(level, field);
        Ok(true)
    }

    /// Enters a list or the result, or takes the value whole.
    fn value(&mut self, level: Level, field: Field, byte: u8, known: &mut KnownRules) -> Result<bool, AnswerError> {
        match (field, byte) {
            (Field::Result, b'{') => return self.past(Next::FirstName(Level::Result)),
            (Field::Rules, b'[') => {
                self.has_rules = true;
                let list = if self.call == Call::Strategies { List::Hosts } else { List::Expressions };
                return self.past(Next::FirstElement(list));
            }
            (Field::Strategies, b'[') => return self.past(Next::FirstElement(List::Strategies)),
            _ => {}
        }
        let (limit, what) = match field {
            Field::Hostname => (known.limits().hostname_bytes, "bytes in a hostname"),
            _ => (known.limits().rule_bytes, "bytes in one value"),
        };
        let Some(range) = self.take(limit, what)? else { return Ok(false) };
        let raw = &self.buffer[range.clone()];
        json::check(raw).map_err(|error| at(self.before, range.start, error))?;
        let null = json::is_null(raw);
        match field {
            Field::Id => self.got_id = json::integer(raw),
            Field::Error if null => self.error = None,
            Field::Error => self.error = Some(error_text(raw, &mut self.names)),
            Field::Result if !null => return Err(AnswerError::Field { field: "result", want: "an object" }),
            Field::Rules if null => self.has_rules = true,
            Field::Rules => return Err(AnswerError::Field { field: self.call.list(), want: "a list" }),
            Field::Hostname => match json::string(raw, &mut self.names) {
                Some(text) => text.clone_into(&mut self.hostname),
                None => self.host_fault = Some("hostname must be a text"),
            },
            Field::Strategies if !null => self.host_fault = Some("strategies must be a list"),
            Field::Result | Field::Strategies | Field::Other => {}
        }
        self.next = Next::AfterValue(level);
        Ok(true)
    }

    fn element(&mut self, list: List, byte: u8, known: &mut KnownRules) -> Result<bool, AnswerError> {
        if (list, byte) == (List::Hosts, b'{') {
            self.hostname.clear();
            self.host_fault = None;
            known.begin_host();
            return self.past(Next::FirstName(Level::Host));
        }
        let Some(range) = self.take(known.limits().rule_bytes, "bytes in one rule")? else { return Ok(false) };
        let text = &self.buffer[range];
        match list {
            List::Hosts => known.leave_out_host("", "a host must be an object"),
            List::Strategies => known.strategy(&self.hostname, text)?,
            List::Expressions => known.expression(text)?,
        }
        self.next = Next::AfterElement(list);
        Ok(true)
    }

    fn end_of_list(&mut self, list: List) -> Result<bool, AnswerError> {
        self.past(Next::AfterValue(if list == List::Strategies { Level::Host } else { Level::Result }))
    }

    fn end_of(&mut self, level: Level, known: &mut KnownRules) -> Result<bool, AnswerError> {
        let next = match level {
            Level::Host => {
                self.end_host(known)?;
                Next::AfterElement(List::Hosts)
            }
            Level::Result => Next::AfterValue(Level::Answer),
            Level::Answer => {
                self.judge_answer()?;
                Next::End
            }
        };
        self.past(next)
    }

    fn end_host(&mut self, known: &mut KnownRules) -> Result<(), AnswerError> {
        let fault = self.host_fault.or(self.hostname.is_empty().then_some("hostname must not be empty"));
        match fault {
            Some(fault) => known.leave_out_host(&self.hostname, fault),
            None => known.end_host(&self.hostname)?,
        }
        Ok(())
    }

    /// Whether the answer as a whole can be used.
    fn judge_answer(&mut self) -> Result<(), AnswerError> {
        if self.got_id.and_then(|id| u64::try_from(id).ok()) != Some(self.id) {
            return Err(AnswerError::WrongId { got: self.got_id, want: self.id });
        }
        if let Some(text) = self.error.take() {
            return Err(AnswerError::Refused(text));
        }
        // An answer without the list belongs to another call, and must not pass for an empty list.
        if !self.has_rules {
            return Err(AnswerError::Field { field: self.call.list(), want: "in the result" });
        }
        Ok(())
    }

    /// Takes the value at `at` whole, moves behind it and answers where it stands; none when its end is not here yet.
    fn take(&mut self, limit: usize, what: &'static str) -> Result<Option<Range<usize>>, AnswerError> {
        let rest = &self.buffer[self.at..];
        if let Taking::Nothing = self.taking {
            self.taking = match rest.first() {
                Some(b'"') => Taking::Text { looked: 1, escaped: false },
                Some(b'{' | b'[') => Taking::Nested(Framer::of_value(limit)),
                Some(b',' | b':' | b']' | b'}') => return self.broken(0, "a value must stand here"),
                _ => Taking::Word { looked: 0 },
            };
        }
        let visible = &rest[..rest.len().min(limit)];
        let end = match &mut self.taking {
            Taking::Nothing => None,
            Taking::Text { looked, escaped } => text_end(visible, looked, escaped),
            // A word ends before what ends it, which must be here too.
            Taking::Word { looked } => word_end(rest, looked).filter(|end| *end <= limit),
            Taking::Nested(framer) => match framer.scan(rest) {
                Ok(range) => range.map(|range| range.end),
                Err(FrameError::TooLong { .. }) => None,
                Err(FrameError::TooDeep { at }) => return self.broken(at, "nested deeper than 64 levels"),
                Err(FrameError::Unbalanced { at } | FrameError::NotAnObject { at, .. }) => {
                    return self.broken(at, "a bracket closes another kind of bracket");
                }
            },
        };
        let Some(end) = end else {
            let too_long = rest.len() > limit;
            return if too_long { Err(AnswerError::Limit { what, limit: limit as u64 }) } else { Ok(None) };
        };
        self.taking = Taking::Nothing;
        let range = self.at..self.at + end;
        self.at = range.end;
        Ok(Some(range))
    }
}

impl Default for AnswerReader {
    fn default() -> AnswerReader {
        AnswerReader::new()
    }
}

/// The end of a string, behind its closing quote.
fn text_end(visible: &[u8], looked: &mut usize, escaped: &mut bool) -> Option<usize> {
    for byte in &visible[*looked..] {
        *looked += 1;
        if *escaped {
            *escaped = false;
        } else if *byte == b'\\' {
            *escaped = true;
        } else if *byte == b'"' {
            return Some(*looked);
        }
    }
    None
}

/// The end of a number, a boolean or null.
fn word_end(rest: &[u8], looked: &mut usize) -> Option<usize> {
    let end = |byte: &u8| matches!(byte, b',' | b':' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
    let found = rest[*looked..].iter().position(end);
    *looked += found.unwrap_or(rest.len() - *looked);
    found.map(|_| *looked)
}

fn at(before: u64, start: usize, error: JsonError) -> AnswerError {
    AnswerError::Json { at: before + (start + error.at) as u64, what: error.what }
}

/// An error is a text in Go; whatever else somebody sends is shown as it stands.
fn error_text(raw: &[u8], scratch: &mut Scratch) -> String {
    let text = match Reader::new(raw).kind() {
        Ok(Kind::String) => json::string(raw, scratch).unwrap_or_default().to_string(),
        _ => String::from_utf8_lossy(raw).into_owned(),
    };
    text.chars().take(ERROR_TEXT_MAX).collect()
}

#[cfg(test)]
mod tests;
