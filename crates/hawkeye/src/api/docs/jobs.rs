//! Docs of jobs and their heartbeats.

use super::Kind::{Flag, Int, Text};
use super::{Doc, Field, doc, may, need};

const JOB: &[Field] = &[
    need("name", Text, "endpoint of its series"),
    need("period", Int, "seconds in which it must end well once, from 60 to a year"),
    may("grace", Int, "seconds that it may be late"),
    may("runtime_max", Int, "seconds that a run may take; 0 is any"),
    may("tags", Text, "tags of its series"),
    may("pause", Flag, "1: nobody waits for it"),
];

pub const DOCS: &[Doc] = &[
    doc("POST /heartbeat/{token}", "A job ended, or what `event` says. No login: the token is the right (docs/jobs.md).")
        .open()
        .at("/heartbeat/hj_example?event=start")
        .answer(r#"{"job":"old","state":"running"}"#),
    doc("POST /heartbeat/{token}/{event}", "As above; the event is `start`, `end`, `fail` or an exit code.")
        .open()
        .at("/heartbeat/hj_example/2?note=disk%20full")
        .answer(r#"{"job":"old","state":"failed"}"#),
    doc("POST /job", "Makes a job that is waited for. The token is in this answer only.")
        .fields(JOB)
        .body(r#"{"name":"backup","period":86400,"grace":3600}"#)
        .answer(r#"{"id":2,"name":"backup","token":"hj_…"}"#),
    doc("GET /job", "Jobs, each with its state and what is wrong with it.")
        .list()
        .fields(&[may("q", Text, "regular expression on the name")])
        .answer(
            r#"[{"id":1,"name":"old","period":86400,"grace":3600,"runtime_max":0,"tags":"","pause":0,"create_user":"root","create_at":1790000000,"resumed_at":0,"started_at":1790000000,"ended_at":1790000000,"ok_at":0,"duration":0,"exit_code":2,"note":"disk full","state":"failed","reason":"exit code 2: disk full"}]"#,
        ),
    doc("GET /job/{id}", "A job.").at("/job/1"),
    doc("PUT /job/{id}", "Changes a job; a field that is not sent gets its default.")
        .fields(JOB)
        .at("/job/1")
        .body(r#"{"name":"old","period":86400,"grace":7200}"#),
    doc("PUT /job/{id}/token", "Makes its token anew; the one before opens nothing from then on.")
        .at("/job/1/token")
        .answer(r#"{"id":1,"name":"old","token":"hj_…"}"#),
    doc("DELETE /job/{id}", "Deletes a job; its series stay.").at("/job/1"),
];
