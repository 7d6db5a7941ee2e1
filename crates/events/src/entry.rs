//! Entry: what the judge tells, and how it becomes a record.
//!
//! Invariants: an alarm is named by its event id; what closes an alarm with a reason is an event with the values of the
//! PROBLEM that it ends.

use crate::record::{EVENT, FORGET, Place, Record, push_record};
use model::{Event, Explanation, Status};
use std::io::{self, ErrorKind};

/// What the judge tells alarm, with its place in the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Queued {
    pub seq: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Event(Event),
    /// The id of an alarm that was open when its rule or its series went: no recovery will come.
    Closed(String),
    /// The same, to be told as an event. It is never read: what it became is.
    Over(Closing),
}

/// An alarm that ends although nothing recovered.
#[derive(Clone, Debug, PartialEq)]
pub struct Closing {
    /// Of the alarm.
    pub id: String,
    /// For people: `the host is in maintenance`.
    pub reason: String,
    pub time: i64,
}

/// A [`What`] that is borrowed from whoever appends it.
#[derive(Clone, Copy)]
pub(crate) enum Entry<'a> {
    Event(&'a Event),
    Closed(&'a str),
    Over(&'a Closing),
}

/// An event id (`s_12_<md5>`) in 25 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct AlarmKey {
    md5: u128,
    rule: i64,
    of_strategy: bool,
}

impl What {
    /// Bytes besides its own size.
    pub fn memory_bytes(&self) -> usize {
        match self {
            What::Event(event) => event.memory_bytes(),
            What::Closed(id) => id.capacity(),
            What::Over(closing) => closing.id.capacity() + closing.reason.capacity(),
        }
    }

    pub(crate) fn as_entry(&self) -> Entry<'_> {
        match self {
            What::Event(event) => Entry::Event(event),
            What::Closed(id) => Entry::Closed(id),
            What::Over(closing) => Entry::Over(closing),
        }
    }
}

impl Entry<'_> {
    pub(crate) fn key(&self) -> io::Result<AlarmKey> {
        match self {
            Entry::Event(event) => AlarmKey::parse(&event.id()),
            Entry::Closed(id) => AlarmKey::parse(id),
            Entry::Over(closing) => AlarmKey::parse(&closing.id),
        }
    }
}

impl AlarmKey {
    pub(crate) fn parse(id: &str) -> io::Result<AlarmKey> {
        let mut parts = id.splitn(3, '_');
        let (kind, rule, md5) = (parts.next(), parts.next(), parts.next());
        let key = match (kind, rule.and_then(|rule| rule.parse().ok()), md5) {
            (Some(kind @ ("s" | "e")), Some(rule), Some(md5)) if md5.len() == 32 => {
                u128::from_str_radix(md5, 16).ok().map(|md5| AlarmKey { md5, rule, of_strategy: kind == "s" })
            }
            _ => None,
        };
        key.ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidInput, format!("event id {id:?}: want s_<id>_<md5> or e_<id>_<md5>"))
        })
    }
}

impl Record<'_> {
    /// What an EVENT or a FORGET says.
    pub(crate) fn what(&self) -> Result<What, String> {
        let text = std::str::from_utf8(self.payload).map_err(|error| error.to_string())?;
        match self.kind {
            FORGET => Ok(What::Closed(text.to_string())),
            _ => Event::from_json(text).map(What::Event),
        }
    }
}

/// What ends a PROBLEM when nothing recovered: its own values, as nobody has others.
pub(crate) fn closing_event(problem: Event, closing: &Closing) -> Event {
    let rule_version = problem.explanation.map_or_else(|| problem.rule.version(), |before| before.rule_version);
    let explanation = Explanation { rule_version, closed: closing.reason.clone(), terms: Vec::new() };
    Event {
        status: Status::Ok,
        current_step: 1,
        time: closing.time.max(problem.time),
        explanation: Some(Box::new(explanation)),
        ..problem
    }
}

/// `json` is scratch.
pub(crate) fn push_entry(buffer: &mut Vec<u8>, seq: u64, entry: &Entry<'_>, json: &mut String) -> io::Result<Place> {
    match entry {
        Entry::Event(event) => {
            json.clear();
            event.push_json_explained(json);
            push_record(buffer, EVENT, seq, json.as_bytes())
        }
        Entry::Closed(id) => push_record(buffer, FORGET, seq, id.as_bytes()),
        // One that is not open here may still have an open case.
        Entry::Over(closing) => push_record(buffer, FORGET, seq, closing.id.as_bytes()),
    }
}
