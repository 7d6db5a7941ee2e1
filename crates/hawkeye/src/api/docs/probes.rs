//! Probes over the network.

use super::Kind::{Flag, Int, Object, Text};
use super::{Doc, doc, may, need};

/// Fields of a probe, behind its name, kind and target.
macro_rules! probe {
    ([$($first:expr),*], [$($last:expr),*]) => {
        &[
            $($first,)*
            may("step", Int, "seconds between two runs; 60 when left out"),
            may("timeout_ms", Int, "5000 when left out"),
            may("tags", Object, "tags of its series, and beside it the keys of its kind: docs/probes.md"),
            $($last,)*
        ]
    };
}

pub const DOCS: &[Doc] = &[
    doc("POST /probe", "Makes a probe, which asks over the network whether something works: docs/probes.md.")
        .fields(probe!(
            [
                need("name", Text, "endpoint of its series"),
                need("kind", Text, "`http`, `tcp`, `tls`, `icmp`, `dns`, `grpc` or `script`"),
                need("target", Text, "whom to ask")
            ],
            [
                may("from", Object, "`group`, a host group whose agents run it, and `places`, how many of them (0: all); the server when left out"),
                may("pause", Flag, "1: nobody runs it")
            ]
        ))
        .body(r#"{"name":"shop","kind":"http","target":"https://shop.example/health","status":"200-299"}"#),
    doc("GET /probe", "Probes, with what their places say.")
        .list()
        .fields(&[
            may("q", Text, "regular expression on the name and the target"),
            may("kind", Text, ""),
            may("group", Text, "name of a host group; empty is the server"),
        ])
        .at("/probe?q=shop&page=1&limit=10"),
    doc("GET /probe/{id}", "A probe, with what its places say.").at("/probe/2"),
    doc("PUT /probe/{id}", "Changes a probe. The definition is given as a whole, or not at all; `from` and `pause` stay when left out.")
        .fields(probe!(
            [may("name", Text, ""), may("kind", Text, ""), may("target", Text, "")],
            [may("from", Object, ""), may("pause", Flag, "")]
        ))
        .at("/probe/2")
        .body(r#"{"pause":1}"#),
    doc("POST /probe/test", "Runs a definition once, from the server, and answers what it has found.")
        .fields(probe!(
            [
                may("id", Int, "a probe whose secrets `***` stands for"),
                may("name", Text, ""),
                need("kind", Text, "all but `script`"),
                need("target", Text, "")
            ],
            []
        ))
        .body(r#"{"kind":"tcp","target":"127.0.0.1:22"}"#)
        .answer(
            r#"{"up":false,"reason":{"code":"denied","text":"127.0.0.1 is loopback, which the policy of this prober denies"},"peer":null,"phases_ms":{},"readings":[{"metric":"probe.up","tags":"target=127.0.0.1:22","value":0.0}]}"#,
        ),
    doc("DELETE /probe/{id}", "Deletes a probe.").at("/probe/1"),
];
