//! Entry: one thing that the judge tells the readers, and how it becomes a record.
//!
//! Invariants: an alarm is named by its event id; what closes an alarm with a reason is an event with the values of the
//! PROBLEM that it ends.

use crate::record::{EVENT, FORGET, Place, RawRecord, push_record};
use model::{Event, Explanation, Status};
use std::fmt;
use std::io::{self, ErrorKind};

/// An entry with its place in the queue, as a consumer reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub seq: u64,
    pub entry: Entry,
}

/// One thing that the judge tells the readers.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Event(Event),
    /// The id of an alarm that was open when its rule or its series went, and is closed silently: no recovery will
    /// come.
    Forget(String),
    /// An alarm that is closed with a reason. A consumer never reads one: the queue writes an event or a `Forget` for
    /// it.
    End(AlarmEnd),
}

/// The end of an alarm although nothing recovered.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmEnd {
    /// Id of the alarm, as in its events.
    pub id: String,
    /// Reason for people: `the host is in maintenance`.
    pub reason: String,
    pub time: i64,
}

/// An [`Entry`] that is borrowed from whoever appends it.
#[derive(Clone, Copy)]
pub(crate) enum EntryRef<'a> {
    Event(&'a Event),
    Forget(&'a str),
    End(&'a AlarmEnd),
}

/// An event id (`s_12_<md5>`) in 25 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AlarmKey {
    md5: u128,
    rule: i64,
    of_strategy: bool,
}

impl Entry {
    /// Bytes besides its own size.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Entry::Event(event) => event.memory_bytes(),
            Entry::Forget(id) => id.capacity(),
            Entry::End(end) => end.id.capacity() + end.reason.capacity(),
        }
    }

    pub(crate) fn as_ref(&self) -> EntryRef<'_> {
        match self {
            Entry::Event(event) => EntryRef::Event(event),
            Entry::Forget(id) => EntryRef::Forget(id),
            Entry::End(end) => EntryRef::End(end),
        }
    }
}

impl EntryRef<'_> {
    pub(crate) fn key(&self) -> io::Result<AlarmKey> {
        match self {
            EntryRef::Event(event) => AlarmKey::parse(&event.id()),
            EntryRef::Forget(id) => AlarmKey::parse(id),
            EntryRef::End(end) => AlarmKey::parse(&end.id),
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

impl fmt::Display for AlarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{:032x}", if self.of_strategy { 's' } else { 'e' }, self.rule, self.md5)
    }
}

impl RawRecord<'_> {
    /// Reads the payload of an EVENT or a FORGET.
    pub(crate) fn entry(&self) -> Result<Entry, String> {
        let text = std::str::from_utf8(self.payload).map_err(|error| error.to_string())?;
        match self.kind {
            FORGET => Ok(Entry::Forget(text.to_string())),
            _ => Event::from_json(text).map(Entry::Event),
        }
    }
}

/// The event that ends a PROBLEM when nothing recovered: with the PROBLEM's own values, as nobody has others.
pub(crate) fn end_event(problem: Event, end: &AlarmEnd) -> Event {
    let rule_version = problem.explanation.map_or_else(|| problem.rule.version(), |before| before.rule_version);
    let explanation = Explanation { rule_version, closed: end.reason.clone(), ..Explanation::default() };
    Event {
        status: Status::Ok,
        current_step: 1,
        time: end.time.max(problem.time),
        explanation: Some(Box::new(explanation)),
        ..problem
    }
}

/// Appends the record of an entry to `buffer`; `json` is scratch.
pub(crate) fn push_entry(buffer: &mut Vec<u8>, seq: u64, entry: &EntryRef<'_>, json: &mut String) -> io::Result<Place> {
    match entry {
        EntryRef::Event(event) => {
            json.clear();
            event.push_json_explained(json);
            push_record(buffer, EVENT, seq, json.as_bytes())
        }
        EntryRef::Forget(id) => push_record(buffer, FORGET, seq, id.as_bytes()),
        // One that is not open here may still have an open case.
        EntryRef::End(end) => push_record(buffer, FORGET, seq, end.id.as_bytes()),
    }
}
