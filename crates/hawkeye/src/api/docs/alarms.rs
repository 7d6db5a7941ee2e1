//! Alarms: cases, their events and notes.

use super::Kind::{Int, Text, Texts};
use super::{Doc, Field, doc, may, need};

const CASES: &[Field] = &[
    may("startTime", Int, "Unix seconds"),
    may("endTime", Int, "Unix seconds"),
    may("priority", Int, "0 to 6"),
    may("status", Text, "`PROBLEM`, `OK`, or both with a comma between"),
    may("process_status", Text, "of `unresolved`, `in progress`, `resolved`, `ignored`; joined by commas"),
    may("metrics", Text, "regular expression on the counter"),
    may("event_id", Text, ""),
    may("endpoints", Texts, ""),
    may("strategy_id", Int, ""),
    may("template_id", Int, ""),
    may("page", Int, "page from 1 on; needs `limit`"),
    may("limit", Int, "at most 50 with `page`, else 2000"),
    may("sort", Text, "`timestamp`, `update_at`, `priority` or `endpoint`; `-timestamp` by default"),
];

const EVENTS: &[Field] = &[
    need("event_id", Text, "id of the case"),
    may("startTime", Int, "Unix seconds"),
    may("endTime", Int, "Unix seconds"),
    may("status", Int, "0 PROBLEM, 1 OK, -1 any"),
    may("page", Int, "page from 1 on; needs `limit`"),
    may("limit", Int, "at most 50"),
    may("sort", Text, "`timestamp`, or `-timestamp` (default)"),
];

/// The case of web-01 in the examples.
const CASE_BODY: &str = r#"{"event_id":"s_2_08d0f3650b4ce6526c78d4a187cb65c9"}"#;

pub const DOCS: &[Doc] = &[
    doc("GET /alarm/eventcases", "Alarms. One of the times, `event_id`, `endpoints`, `strategy_id` or `template_id` is needed.")
        .fields(CASES)
        .at("/alarm/eventcases?startTime=1&status=PROBLEM"),
    doc("POST /alarm/eventcases", "As `GET /alarm/eventcases`.").fields(CASES).body(r#"{"endpoints":["web-01"]}"#),
    doc("GET /alarm/events", "Events of an alarm, newest first, each with why it was sent.")
        .fields(EVENTS)
        .at("/alarm/events?event_id=s_2_08d0f3650b4ce6526c78d4a187cb65c9"),
    doc("POST /alarm/events", "As `GET /alarm/events`.").fields(EVENTS).body(CASE_BODY),
    doc("POST /alarm/event_note", "Notes what is done about an alarm.")
        .fields(&[
            need("event_id", Text, "id of the case"),
            need("note", Text, ""),
            need("status", Text, "`in progress`, `unresolved`, `resolved`, `ignored`, or `comment`"),
            may("case_id", Text, "number in another system"),
        ])
        .body(r#"{"event_id":"s_2_08d0f3650b4ce6526c78d4a187cb65c9","note":"on it","status":"in progress"}"#),
    doc("GET /alarm/event_note", "Notes. One of the times or `event_id` is needed.")
        .fields(&[
            may("event_id", Text, "id of the case"),
            may("startTime", Int, "Unix seconds"),
            may("endTime", Int, "Unix seconds"),
            may("status", Text, ""),
            may("page", Int, "page from 1 on; needs `limit`"),
            may("limit", Int, "at most 50"),
            may("sort", Text, "`timestamp`, or `-timestamp` (default)"),
        ])
        .at("/alarm/event_note?event_id=s_2_08d0f3650b4ce6526c78d4a187cb65c9"),
    doc("GET /alarm/stream", "Live alarms as server-sent events: `alarm` with the event and its case, `note`. `since`, or the header `Last-Event-ID`, is the id of the last message that was seen.")
        .fields(&[may("since", Text, "as `17-3`")])
        .stream(),
];
